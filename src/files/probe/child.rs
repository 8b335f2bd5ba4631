//! The process that looks into a file: its standard input. Lowers its own limits before it reads a byte of
//! it.

use std::io::{self, Write as _};
use std::sync::mpsc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;
use rustix::process::{Resource, Rlimit};

use super::Facts;

/// Of writable memory, beyond what it has before it reads: a picture of 60 megapixels fits, one that was
/// made to fill memory does not.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
const CPU_SECONDS_MAX: u64 = 10;
const OPEN_FILES_MAX: u64 = 64;
/// Of any file: ORC keeps the code that it makes in one.
const WRITTEN_BYTES_MAX: u64 = 1 << 20;
const NICENESS: i32 = 10;
/// To find out what is in a file, and then to get to the frame to show.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
const SEEK_WITHIN: Duration = Duration::from_secs(4);
/// A thumbnail fits into a square of so many pixels.
const THUMBNAIL_PIXELS: u32 = 480;
/// The frame that is shown of a video: a tenth into it, but no later.
const FRAME_AT_MAX: gst::ClockTime = gst::ClockTime::from_seconds(10);

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("GStreamer does not start: {0}")]
    Start(gst::glib::Error),
    #[error("the pipeline cannot be built: {0}")]
    Build(gst::glib::BoolError),
    #[error("the file cannot be decoded")]
    Undecodable,
    #[error("the process cannot limit itself: {0}")]
    Unlimited(#[from] rustix::io::Errno),
    #[error("the answer cannot be written: {0}")]
    Answer(#[from] io::Error),
}

impl From<gst::glib::BoolError> for ProbeError {
    fn from(error: gst::glib::BoolError) -> Self {
        Self::Build(error)
    }
}

/// Looks into standard input, and answers on standard output.
///
/// # Errors
/// [`ProbeError`]; nothing was answered.
pub fn run() -> Result<(), ProbeError> {
    gst::init().map_err(ProbeError::Start)?;
    limit()?;
    let pipeline = gst::Pipeline::new();
    let (facts, thumbnail) = look(&pipeline)?;
    let mut answer = serde_json::to_vec(&facts).map_err(io::Error::from)?;
    answer.push(b'\n');
    answer.extend(thumbnail.unwrap_or_default());
    io::stdout().write_all(&answer)?;
    // Stopping it could hang, and the process ends here.
    std::mem::forget(pipeline);
    Ok(())
}

fn limit() -> Result<(), ProbeError> {
    // What allocators and stacks only reserve counts, too.
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(5).and_then(|pages| pages.parse::<u64>().ok());
    let had = pages.unwrap_or(0) * rustix::param::page_size() as u64;
    for (resource, most) in [
        (Resource::Data, had + MEMORY_BYTES_MAX),
        (Resource::Cpu, CPU_SECONDS_MAX),
        (Resource::Nofile, OPEN_FILES_MAX),
        (Resource::Fsize, WRITTEN_BYTES_MAX),
        (Resource::Core, 0),
    ] {
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    // Only manners: what it takes is bounded all the same.
    let _ = rustix::process::nice(NICENESS);
    Ok(())
}

/// A picture that is being decoded: how large, and to which size it is scaled.
#[derive(Debug, Clone, Copy)]
struct Picture {
    width: u32,
    height: u32,
    scaled: (u32, u32),
}

fn look(pipeline: &gst::Pipeline) -> Result<(Facts, Option<Vec<u8>>), ProbeError> {
    let source = gst::ElementFactory::make("fdsrc").property("fd", 0i32).build()?;
    let decode = gst::ElementFactory::make("decodebin").build()?;
    pipeline.add_many([&source, &decode])?;
    match is_jpeg().then(|| gst::ElementFactory::make("jpegparse").build()) {
        // It tells how the camera was held, which the decoder alone does not.
        Some(Ok(parse)) => {
            pipeline.add(&parse)?;
            gst::Element::link_many([&source, &parse, &decode])?;
        }
        _ => source.link(&decode)?,
    }
    let (found, pictures) = mpsc::channel();
    let bin = pipeline.downgrade();
    decode.connect_pad_added(move |_, pad| {
        let Some(pipeline) = bin.upgrade() else { return };
        // What cannot be linked stalls the pipeline, which ends by its time.
        let _ = attach(&pipeline, pad).map(|picture| picture.map(|picture| found.send(picture)));
    });
    let _ = pipeline.set_state(gst::State::Paused);
    let opened = wait(pipeline, OPEN_WITHIN);
    let picture = pictures.try_recv().ok();
    if !opened && picture.is_none() {
        return Err(ProbeError::Undecodable);
    }
    let duration = pipeline.query_duration::<gst::ClockTime>().filter(|duration| !duration.is_zero());
    let mut facts = Facts {
        width: picture.map(|picture| picture.width),
        height: picture.map(|picture| picture.height),
        duration_ms: duration.map(gst::ClockTime::mseconds),
        has_video: picture.is_some(),
    };
    let thumbnail = picture.filter(|_| opened).and_then(|_| frame(pipeline, duration));
    if let (Some(picture), Some((_, size))) = (picture, &thumbnail)
        && picture.scaled != *size
        && picture.scaled == (size.1, size.0)
    {
        // The camera was held upright.
        (facts.width, facts.height) = (facts.height, facts.width);
    }
    Ok((facts, thumbnail.map(|(jpeg, _)| jpeg)))
}

fn is_jpeg() -> bool {
    let mut head = [0; 3];
    rustix::io::pread(io::stdin(), &mut head, 0) == Ok(3) && head == [0xff, 0xd8, 0xff]
}

/// Leads the first picture to a JPEG, and everything else to nowhere.
fn attach(pipeline: &gst::Pipeline, pad: &gst::Pad) -> Result<Option<Picture>, ProbeError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let picture = caps.structure(0).filter(|caps| caps.name() == "video/x-raw").and_then(measure);
    let (branch, picture) = match picture {
        Some(picture) if pipeline.by_name("thumbnail").is_none() => {
            let (width, height) = picture.scaled;
            let graph = format!(
                "videoconvert ! videoscale ! video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1 \
                 ! videoflip video-direction=auto ! jpegenc quality=82 ! appsink sync=false"
            );
            let branch = gst::parse::bin_from_description(&graph, true).map_err(ProbeError::Start)?;
            branch.set_property("name", "thumbnail");
            (branch, Some(picture))
        }
        _ => {
            let nowhere = gst::parse::bin_from_description("fakesink sync=false", true);
            (nowhere.map_err(ProbeError::Start)?, None)
        }
    };
    pipeline.add(&branch)?;
    branch.sync_state_with_parent()?;
    if let Some(sink) = branch.static_pad("sink") {
        let _ = pad.link(&sink);
    }
    Ok(picture)
}

/// The size to show a picture in, its pixels made square.
fn measure(caps: &gst::StructureRef) -> Option<Picture> {
    let side = |name| caps.get::<i32>(name).ok().and_then(|pixels| u32::try_from(pixels).ok());
    let (stored, height) = (side("width")?.max(1), side("height")?.max(1));
    let aspect = caps.get::<gst::Fraction>("pixel-aspect-ratio").ok();
    let (over, under) = aspect.map_or((1, 1), |aspect| (aspect.numer().max(1), aspect.denom().max(1)));
    let width = (u64::from(stored) * over as u64 / under as u64).clamp(1, 1 << 20) as u32;
    let longer = width.max(height).max(THUMBNAIL_PIXELS);
    let scale = |side: u32| {
        let scaled = u64::from(side) * u64::from(THUMBNAIL_PIXELS) / u64::from(longer);
        u32::try_from(scaled).unwrap_or(THUMBNAIL_PIXELS).max(1)
    };
    Some(Picture { width, height, scaled: (scale(width), scale(height)) })
}

/// A frame worth showing, with its size.
fn frame(pipeline: &gst::Pipeline, duration: Option<gst::ClockTime>) -> Option<(Vec<u8>, (u32, u32))> {
    if let Some(duration) = duration {
        let at = (duration / 10).min(FRAME_AT_MAX);
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        // Without it, the first frame serves.
        if pipeline.seek_simple(flags, at).is_ok() {
            wait(pipeline, SEEK_WITHIN);
        }
    }
    let branch = pipeline.by_name("thumbnail")?.downcast::<gst::Bin>().ok()?;
    let sink = branch.iterate_sinks().into_iter().flatten().next()?.downcast::<AppSink>().ok()?;
    let sample = sink.try_pull_preroll(gst::ClockTime::from_seconds(1))?;
    let caps = sample.caps()?.structure(0)?;
    let side = |name| caps.get::<i32>(name).ok().and_then(|pixels| u32::try_from(pixels).ok());
    let size = (side("width")?, side("height")?);
    let jpeg = sample.buffer()?.map_readable().ok()?.as_slice().to_vec();
    Some((jpeg, size))
}

/// Waits until every stream of the pipeline has something to show; false when it cannot.
fn wait(pipeline: &gst::Pipeline, within: Duration) -> bool {
    let Some(bus) = pipeline.bus() else { return false };
    let within = gst::ClockTime::from_mseconds(within.as_millis() as u64);
    let kinds = [gst::MessageType::AsyncDone, gst::MessageType::Error, gst::MessageType::Eos];
    let message = bus.timed_pop_filtered(within, &kinds);
    message.is_some_and(|message| matches!(message.view(), gst::MessageView::AsyncDone(_)))
}
