//! The picture behind the tiles: put together from its parts, decoded once, on a thread of its own.

use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gstreamer as gst;

use super::ingest::Decoded;
use super::picture::Pixels;
use crate::core::mix::BackdropPart;
use crate::core::mix::backdrop::{BYTES_MAX, Format};
use crate::mcu::graph::{Graph, Stage};

/// A file of this size is decoded in far less.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(10);

/// The file that is coming in.
#[derive(Debug, Default)]
pub struct Parts {
    bytes: Vec<u8>,
    serial: u64,
}

impl Parts {
    /// Files take different times to decode: by this the last one that came is known.
    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Takes a part; the last one gives the whole file.
    pub fn push(&mut self, part: &BackdropPart) -> Option<Vec<u8>> {
        if part.is_first {
            self.bytes.clear();
        }
        let bytes = BASE64.decode(&part.base64).ok()?;
        if self.bytes.len() + bytes.len() > BYTES_MAX {
            return None;
        }
        self.bytes.extend(bytes);
        part.is_last.then(|| std::mem::take(&mut self.bytes))
    }
}

/// Decodes a file, and gives `show` the picture. One that cannot be decoded is told of in the log: its room
/// has its colour.
pub fn decode(format: Format, file: Vec<u8>, show: impl FnOnce(Box<dyn Pixels>) + Send + 'static) {
    let decoding =
        thread::Builder::new().name("backdrop".into()).spawn(move || match picture(format, file) {
            Some(picture) => show(Box::new(picture)),
            None => tracing::warn!("the picture behind a mix cannot be decoded"),
        });
    if let Err(error) = decoding {
        tracing::error!(%error, "no thread to decode a picture");
    }
}

fn picture(format: Format, file: Vec<u8>) -> Option<Decoded> {
    let stage = match format {
        Format::Png => Stage::DecodePng,
        Format::Jpeg => Stage::DecodeJpeg,
    };
    let graph = Graph::start(stage, &[]).ok()?;
    graph.input.push_buffer(gst::Buffer::from_mut_slice(file)).ok()?;
    graph.input.end_of_stream().ok()?;
    Decoded::of(&graph.output.try_pull_sample(PATIENCE)?)
}
