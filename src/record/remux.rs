//! `antiphon remux`: one file of all tracks of a recording, in step, with its chapters and its chat.
//!
//! Nothing is decoded: packets are copied in the order of their times, which all count from the recording's
//! beginning.

use std::io;
use std::path::{Path, PathBuf};

use ffmpeg_next::codec::Id;
use ffmpeg_next::format::{self, context::Input};
use ffmpeg_next::{Packet, Rational, Rescale as _};

use super::folder::read_manifest;
use super::media::{self, MS, MediaError, Stream, Writing};
use crate::core::recording::manifest::{CHAPTERS, CHAT, Content, Manifest};

const MATROSKA: [(&str, &str); 2] = [("avoid_negative_ts", "disabled"), ("default_mode", "infer_no_subs")];
const MP4: [(&str, &str); 1] = [("avoid_negative_ts", "disabled")];

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub enum RemuxError {
    #[error("{0} is no folder of a recording: {1}")]
    NoRecording(PathBuf, io::Error),
    #[error("{0} has no tracks: record with `tracks` to have some")]
    NoTracks(PathBuf),
    #[error("--output ends in .mkv for Matroska or .mp4 for MP4")]
    UnknownContainer,
    #[error("{0} is VP8, which has no place in MP4: take an --output that ends in .mkv")]
    NotForMp4(String),
    #[error("{0}: {1}")]
    File(String, MediaError),
}

/// What was made.
#[derive(Debug)]
pub struct Remuxed {
    pub streams: usize,
    pub chapters: usize,
    /// MP4 has no WebVTT: the chat stays beside it.
    pub chat_left_out: bool,
}

/// A file whose packets are copied.
struct Source {
    input: Input,
    title: String,
    time_base: Rational,
    next: Option<Packet>,
}

impl Source {
    fn open(path: &Path, title: String) -> Result<Self, MediaError> {
        let input = format::input(path)?;
        let time_base = input.streams().next().ok_or(MediaError::Undescribed)?.time_base();
        let mut source = Self { input, title, time_base, next: None };
        source.advance();
        Ok(source)
    }

    /// The end of a file that was cut is where it cannot be read any more.
    fn advance(&mut self) {
        let mut packet = Packet::empty();
        self.next = packet.read(&mut self.input).is_ok().then_some(packet);
    }

    fn next_ms(&self) -> Option<i64> {
        let packet = self.next.as_ref()?;
        Some(packet.dts().or(packet.pts()).unwrap_or_default().rescale(self.time_base, MS))
    }
}

/// Makes `output` of the recording in `folder`.
///
/// # Errors
/// [`RemuxError`]; what there is of `output` is then of no use.
pub fn run(folder: &Path, output: &Path) -> Result<Remuxed, RemuxError> {
    let at = |path: &Path| path.display().to_string();
    let container = match output.extension().and_then(|ending| ending.to_str()) {
        Some("mkv") => "matroska",
        Some("mp4") => "mp4",
        _ => return Err(RemuxError::UnknownContainer),
    };
    media::start().map_err(|error| RemuxError::File("FFmpeg".into(), error))?;
    let manifest =
        read_manifest(folder).map_err(|error| RemuxError::NoRecording(folder.to_owned(), error))?;
    let mut sources = tracks(folder, &manifest)?;
    if sources.is_empty() {
        return Err(RemuxError::NoTracks(folder.to_owned()));
    }
    let is_vp8 = |source: &Source| {
        source.input.streams().next().is_some_and(|stream| stream.parameters().id() == Id::VP8)
    };
    if container == "mp4"
        && let Some(source) = sources.iter().find(|source| is_vp8(source))
    {
        return Err(RemuxError::NotForMp4(source.title.clone()));
    }
    let chat = folder.join(CHAT);
    let has_chat = chat.exists();
    if has_chat && container == "matroska" {
        let captions = Source::open(&chat, "Chat".into());
        sources.push(captions.map_err(|error| RemuxError::File(at(&chat), error))?);
    }
    let chapters = chapters(&folder.join(CHAPTERS));
    let chat_left_out = has_chat && container != "matroska";
    let made = Remuxed { streams: sources.len(), chapters: chapters.len(), chat_left_out };
    write(sources, &chapters, output, container).map_err(|error| RemuxError::File(at(output), error))?;
    Ok(made)
}

/// Pictures first, as players begin with the first of each kind.
fn tracks(folder: &Path, manifest: &Manifest) -> Result<Vec<Source>, RemuxError> {
    let of = |content| manifest.files.iter().filter(move |file| file.content == content);
    of(Content::Video)
        .chain(of(Content::Audio))
        .map(|file| {
            let who = file.participant_name.as_deref().unwrap_or_default();
            let title = format!("{who} {}", file.name).trim().to_owned();
            Source::open(&folder.join(&file.name), title)
                .map_err(|error| RemuxError::File(file.name.clone(), error))
        })
        .collect()
}

/// Begin, end and title of each, in milliseconds; none where they cannot be read.
fn chapters(path: &Path) -> Vec<(i64, i64, String)> {
    let Ok(mut source) = Source::open(path, String::new()) else { return Vec::new() };
    let mut chapters = Vec::new();
    while let Some(packet) = source.next.take() {
        let ms = |at: i64| at.rescale(source.time_base, MS);
        let start = ms(packet.pts().unwrap_or_default());
        let title = String::from_utf8_lossy(packet.data().unwrap_or_default());
        let title = title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        chapters.push((start, start + ms(packet.duration()).max(1), title));
        source.advance();
    }
    chapters
}

fn write(
    mut sources: Vec<Source>,
    chapters: &[(i64, i64, String)],
    output: &Path,
    container: &str,
) -> Result<(), MediaError> {
    let mut streams = Vec::with_capacity(sources.len());
    for source in &sources {
        let stream = source.input.streams().next().ok_or(MediaError::Undescribed)?;
        let parameters = stream.parameters();
        streams.push(Stream { parameters, title: Some(&source.title), time_base: source.time_base });
    }
    let options: &[(&str, &str)] = if container == "mp4" { &MP4 } else { &MATROSKA };
    let chapters: Vec<(i64, i64, &str)> =
        chapters.iter().map(|(start, end, title)| (*start, *end, title.as_str())).collect();
    let mut writing = Writing::create(output, container, options, streams, &chapters)?;
    let earliest = |sources: &[Source]| {
        let times = sources.iter().enumerate().filter_map(|(index, source)| Some((source.next_ms()?, index)));
        times.min().map(|(_, index)| index)
    };
    while let Some(index) = earliest(&sources) {
        let Some(source) = sources.get_mut(index) else { break };
        let Some(packet) = source.next.take() else { break };
        writing.write(packet, index, source.time_base)?;
        source.advance();
    }
    writing.finish()
}
