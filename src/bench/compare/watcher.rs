//! The eyes of one person in the room: decodes what comes in their slots, reads the clock in every tile, and
//! keeps a tile now and then to be judged.
//!
//! Decoders run on GStreamer's threads. A packet is decoded as soon as nothing before it is missing, so what
//! is measured has no buffer for playing evenly; a browser's has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks};
use gstreamer_video::{ForceKeyUnitEvent, VideoFrameExt, VideoFrameRef, VideoInfo};
use str0m::media::Mid;

use super::plane::{Plane, View};
use super::record::Line;
use super::{CompareError, clock};
use crate::bench::client::Received;
use crate::core::mix::{Area, Size};

/// RTP to pictures, as a receiver without a playout delay has it.
const DECODER: &str = "appsrc name=in is-live=true format=time do-timestamp=true max-bytes=4000000 \
    caps=\"application/x-rtp,media=video,clock-rate=90000,encoding-name=VP8,payload=96\" \
    ! rtpjitterbuffer latency=60 do-lost=true ! rtpvp8depay wait-for-keyframe=true request-keyframe=true \
    ! vp8dec threads=1 ! appsink name=out sync=false";
/// A tile is kept where its number is a multiple. No divisor of the distance of key frames, so that it falls
/// on all places between them.
const KEEP_EVERY: u32 = 31;
/// Kept tiles; beyond it no more are.
const KEPT_MAX: usize = 1_000;

/// How tiles lie in what comes in a slot.
#[derive(Debug, Clone)]
pub enum Tiles {
    /// One in each slot.
    EachItsSlot,
    /// All in one slot: areas of a canvas.
    Mixed(Size, Vec<Area>),
}

/// A picture was seen for the first time.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// What its clock says.
    pub number: u32,
    pub at: Instant,
}

/// A tile as it was seen.
#[derive(Debug)]
pub struct Kept {
    pub number: u32,
    pub luma: Plane,
}

/// What was seen in a while.
#[derive(Debug, Default)]
pub struct Seen {
    pub sightings: Vec<Sighting>,
    pub kept: Vec<Kept>,
    /// Decoded pictures, of all slots.
    pub pictures: u64,
    /// Tiles whose clock could not be read.
    pub unreadable: u64,
    /// Size of the last picture.
    pub size: Option<(usize, usize)>,
}

/// What decoders share with the watcher.
struct Shared {
    tiles: Tiles,
    seen: Mutex<Seen>,
    /// Whether tiles are kept.
    keeps: AtomicBool,
    /// Packets that a decoder did not take.
    refused: AtomicU64,
}

/// See the module.
pub struct Watcher {
    shared: Arc<Shared>,
    decoders: BTreeMap<Mid, Decoder>,
}

struct Decoder {
    line: Line,
    needs_key_frame: Arc<AtomicBool>,
}

impl Watcher {
    pub fn new(tiles: Tiles) -> Self {
        let shared = Shared {
            tiles,
            seen: Mutex::default(),
            keeps: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), decoders: BTreeMap::new() }
    }

    /// Decodes a packet of a video slot, soon.
    ///
    /// # Errors
    /// GStreamer lacks an element.
    pub fn push(&mut self, packet: &Received) -> Result<(), CompareError> {
        if !self.decoders.contains_key(&packet.mid) {
            self.decoders.insert(packet.mid, Decoder::start(&self.shared)?);
        }
        if let Some(decoder) = self.decoders.get(&packet.mid) {
            let pushed = decoder.line.input.push_buffer(gst::Buffer::from_mut_slice(rtp(packet)));
            self.shared.refused.fetch_add(u64::from(pushed.is_err()), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Slots whose decoder cannot go on without a key frame; each is told once.
    pub fn key_frames_needed(&self) -> Vec<Mid> {
        let needs = |decoder: &Decoder| decoder.needs_key_frame.swap(false, Ordering::Relaxed);
        self.decoders.iter().filter(|(_, decoder)| needs(decoder)).map(|(mid, _)| *mid).collect()
    }

    /// What was seen since this was last asked. From now on tiles are kept, or not.
    pub fn take(&self, keeps: bool) -> Seen {
        self.shared.keeps.store(keeps, Ordering::Relaxed);
        std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Decoder {
    fn start(shared: &Arc<Shared>) -> Result<Self, CompareError> {
        let line = Line::start(DECODER)?;
        let shared = Arc::clone(shared);
        let mut last = Vec::new();
        line.output.set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |sink| shared.look(sink, &mut last).ok_or(gst::FlowError::Error))
                .build(),
        );
        let needs_key_frame = Arc::new(AtomicBool::new(false));
        if let Some(pad) = line.input.static_pad("src") {
            let needs = Arc::clone(&needs_key_frame);
            pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
                if info.event().is_some_and(|event| ForceKeyUnitEvent::is(event)) {
                    needs.store(true, Ordering::Relaxed);
                }
                gst::PadProbeReturn::Ok
            });
        }
        Ok(Self { line, needs_key_frame })
    }
}

impl Shared {
    /// Looks at a decoded picture. `last` holds the numbers that its tiles had before.
    fn look(&self, sink: &AppSink, last: &mut Vec<Option<u32>>) -> Option<gst::FlowSuccess> {
        let sample = sink.pull_sample().ok()?;
        let at = Instant::now();
        let info = VideoInfo::from_caps(sample.caps()?).ok()?;
        let frame = VideoFrameRef::from_buffer_ref_readable(sample.buffer()?, &info).ok()?;
        let stride = usize::try_from(*frame.plane_stride().first()?).ok()?;
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let luma = View::new(frame.plane_data(0).ok()?, stride, width, height)?;
        let tiles = self.tiles.of(&luma);
        last.resize(tiles.len(), None);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pictures += 1;
        seen.size = Some((width, height));
        for (tile, last) in tiles.iter().zip(last) {
            let Some(number) = clock::read(tile) else {
                seen.unreadable += 1;
                continue;
            };
            if last.replace(number) == Some(number) {
                continue;
            }
            seen.sightings.push(Sighting { number, at });
            let keeps = self.keeps.load(Ordering::Relaxed) && number.is_multiple_of(KEEP_EVERY);
            if keeps && seen.kept.len() < KEPT_MAX {
                seen.kept.push(Kept { number, luma: tile.to_plane() });
            }
        }
        Some(gst::FlowSuccess::Ok)
    }
}

impl Tiles {
    /// The tiles in a picture. A mix may come smaller than its canvas.
    fn of<'a>(&self, picture: &View<'a>) -> Vec<View<'a>> {
        let Self::Mixed(canvas, areas) = self else { return vec![*picture] };
        let across = |pixels: u32| pixels as usize * picture.width / canvas.width as usize;
        let down = |pixels: u32| pixels as usize * picture.height / canvas.height as usize;
        let cut =
            |area: &Area| picture.cut(across(area.x), down(area.y), across(area.width), down(area.height));
        areas.iter().filter_map(cut).collect()
    }
}

/// RFC 3550 section 5.1.
fn rtp(packet: &Received) -> Vec<u8> {
    const VERSION: u8 = 0x80;
    const MARKER: u8 = 0x80;
    const PAYLOAD_TYPE: u8 = 96;
    const SSRC: u32 = 1;
    let marker = if packet.marker { MARKER } else { 0 };
    let mut bytes = Vec::with_capacity(12 + packet.payload.len());
    bytes.extend([VERSION, marker | PAYLOAD_TYPE]);
    bytes.extend((packet.seq_no as u16).to_be_bytes());
    bytes.extend(packet.rtp_time.to_be_bytes());
    bytes.extend(SSRC.to_be_bytes());
    bytes.extend(&packet.payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_cut_where_the_canvas_has_them_whatever_size_the_mix_comes_in() {
        let area = |x, y| Area { x, y, width: 640, height: 360 };
        let canvas = Size { width: 1280, height: 720 };
        let tiles = Tiles::Mixed(canvas, vec![area(0, 0), area(640, 360)]);
        let mut mix = Plane::new(640, 360);
        mix.row_mut(180)[320] = 200;
        let view = mix.view();
        let cut = tiles.of(&view);
        assert_eq!(cut.len(), 2);
        assert_eq!((cut[1].width, cut[1].height, cut[1].row(0)[0]), (320, 180, 200));
        assert_eq!(Tiles::EachItsSlot.of(&view).len(), 1);
    }
}
