//! Lines of text as masks. A thread of its own renders them once each, so that fonts, which may take long to
//! load, never hold a picture up. Until a mask is there its text is not shown.
//!
//! Texts are people's names: no log has them.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::picture::Mask;
use crate::mcu::graph::{Graph, GraphError, Stage};

/// Texts that wait to be rendered. Full: the text is asked for again at the next picture.
const ASKED_MAX: usize = 64;
/// Masks kept. Full: all are forgotten and those still shown rendered again.
const KEPT_MAX: usize = 256;
/// A longer text is cut before it is measured.
const CHARACTERS_MAX: usize = 80;
const RENDER_TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(5);
const AYUV_BYTES: usize = 4;

/// A text and how it is to look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub text: String,
    pub font_px: u32,
    /// A longer line ends in an ellipsis.
    pub width_max: u32,
}

impl Line {
    /// Of every line in this size.
    pub fn height(&self) -> u32 {
        (self.font_px * 3 / 2).next_multiple_of(2)
    }
}

/// Gives masks of lines; `None` until there is one.
pub trait Typesetter {
    fn mask(&self, line: &Line) -> Option<Arc<Mask>>;
}

type Masks = Arc<Mutex<BTreeMap<Line, Option<Arc<Mask>>>>>;

/// Renders through GStreamer.
#[derive(Debug)]
pub struct Labels {
    asked: SyncSender<Line>,
    masks: Masks,
}

impl Labels {
    /// # Errors
    /// There is no thread to be had.
    pub fn start() -> std::io::Result<Self> {
        let (asked, lines) = sync_channel(ASKED_MAX);
        let masks = Masks::default();
        let kept = Arc::clone(&masks);
        thread::Builder::new().name("labels".into()).spawn(move || render_all(&lines, &kept))?;
        Ok(Self { asked, masks })
    }
}

impl Typesetter for Labels {
    fn mask(&self, line: &Line) -> Option<Arc<Mask>> {
        let mut masks = self.masks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mask) = masks.get(line) {
            return mask.clone();
        }
        if masks.len() >= KEPT_MAX {
            masks.clear();
        }
        if self.asked.try_send(line.clone()).is_ok() {
            masks.insert(line.clone(), None);
        }
        None
    }
}

fn render_all(lines: &Receiver<Line>, masks: &Masks) {
    for line in lines {
        match render(&line) {
            Ok(mask) => {
                let mut masks = masks.lock().unwrap_or_else(PoisonError::into_inner);
                masks.insert(line, Some(Arc::new(mask)));
            }
            // It stays known as one that has no mask, and is not tried again.
            Err(error) => tracing::warn!(%error, "a label cannot be rendered"),
        }
    }
}

/// Renders a line, shortened until it fits.
fn render(line: &Line) -> Result<Mask, GraphError> {
    let clean = line.text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut text: Vec<char> = clean.take(CHARACTERS_MAX).collect();
    let width_max = line.width_max.max(line.font_px) as usize;
    let mut shown: String = text.iter().collect();
    loop {
        let mask = render_text(&shown, line, width_max * 2)?;
        if mask.width <= width_max || text.len() < 2 {
            return Ok(mask);
        }
        text.truncate((text.len() * width_max / mask.width).min(text.len() - 1));
        shown = text.iter().collect::<String>().trim_end().to_owned() + "…";
    }
}

/// What is inked of a text on a canvas of `width`.
fn render_text(text: &str, line: &Line, width: usize) -> Result<Mask, GraphError> {
    let (width, height) = (width.next_multiple_of(2), line.height() as usize);
    let graph =
        Graph::start(Stage::Label, &[("width", &width), ("height", &height), ("font_px", &line.font_px)])?;
    if let Some(element) = graph.pipeline.by_name("text") {
        element.set_property("text", gst::glib::markup_escape_text(text).as_str());
    }
    let empty = [0, 16, 128, 128];
    let mut buffer = gst::Buffer::from_mut_slice(empty.repeat(width * height));
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(gst::ClockTime::ZERO);
    }
    let pushed = graph.input.push_buffer(buffer);
    let sample = pushed.ok().and_then(|_| graph.output.try_pull_sample(RENDER_TIMEOUT));
    let no_picture = GraphError::NoOutput { stage: Stage::Label };
    let buffer = sample.as_ref().and_then(|sample| sample.buffer()).ok_or(no_picture)?;
    let pixels = buffer.map_readable().map_err(|_| GraphError::NoOutput { stage: Stage::Label })?;
    let alpha: Vec<u8> = pixels.iter().step_by(AYUV_BYTES).copied().collect();
    Ok(cropped(&alpha, width, height))
}

/// Cuts what is empty on the left and right.
fn cropped(alpha: &[u8], width: usize, height: usize) -> Mask {
    let inked = |x: &usize| (0..height).any(|y| alpha.get(y * width + x).is_some_and(|alpha| *alpha > 0));
    let first = (0..width).find(inked).unwrap_or(0);
    let end = (0..width).rev().find(inked).map_or(first, |last| last + 1);
    let rows = alpha.chunks_exact(width).take(height);
    Mask { width: end - first, height, alpha: rows.flat_map(|row| row[first..end].to_vec()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_rendered_whatever_it_says_and_shortened_to_fit() {
        crate::mcu::graph::start().unwrap();
        let line = |text: &str, width_max| Line { text: text.to_owned(), font_px: 20, width_max };
        let name = render(&line("Ada <&> Lovelace", 600)).unwrap();
        assert!((100..300).contains(&name.width), "{}", name.width);
        assert_eq!((name.height, name.alpha.len()), (30, name.width * 30));
        assert!(name.alpha.contains(&255));
        let short = render(&line("Ada <&> Lovelace", 80)).unwrap();
        assert!((30..=80).contains(&short.width), "{}", short.width);
        let long = render(&line(&"long name ".repeat(40), 300)).unwrap();
        assert!((200..=300).contains(&long.width), "{}", long.width);
        assert_eq!(render(&line("", 100)).unwrap().width, 0);
        render(&line("two\nlines\0", 100)).unwrap();
    }

    #[test]
    fn labels_come_when_they_are_ready() {
        crate::mcu::graph::start().unwrap();
        let labels = Labels::start().unwrap();
        let line = Line { text: "Ada".into(), font_px: 16, width_max: 200 };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while labels.mask(&line).is_none() {
            assert!(std::time::Instant::now() < deadline, "no mask");
            thread::yield_now();
        }
    }
}
