//! One slot's decoder: RTP payloads in, the newest picture out.
//!
//! A stream that breaks its decoder costs that slot its picture until the next key frame, and nobody else
//! anything: the graph is put away and made anew.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks};
use gstreamer_video::{ForceKeyUnitEvent, VideoFrame, VideoFrameExt, VideoInfo, video_frame::Readable};

use super::painter::Frame;
use super::picture::{Pixels, Plane, View};
use crate::core::depacketize::av1::{Depacketizer, Outcome};
use crate::core::mix::MixPacket;
use crate::core::payload::Codec;
use crate::mcu::graph::{Graph, GraphError, Stage};

/// What the jitter buffer waits for a packet that is missing.
const LATENCY_MS: u32 = 60;
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(200);
/// Packets without a picture for this long: the decoder has nothing to begin with.
const STALL: Duration = Duration::from_millis(500);
/// And for this long: it hangs.
const HANG: Duration = Duration::from_secs(5);
/// A sender of whom nothing came for this long has nothing to send a key frame of.
const SILENCE: Duration = Duration::from_secs(1);
/// Between two graphs of a slot.
const REMAKE_INTERVAL: Duration = Duration::from_millis(500);
/// A graph that no packet comes for is put away.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes that may wait for a decoder. Full: it is taken for hung.
const WAITING_BYTES_MAX: u64 = 4_000_000;
/// A side of a larger picture is no camera's.
const SIDE_MAX: u32 = 4_096;

const RTP_VERSION: u8 = 0x80;
const MARKER: u8 = 0x80;
/// As the graphs' texts have it.
const PAYLOAD_TYPE: u8 = 96;
const SSRC: u32 = 1;

/// Pictures that are held back for their sound. Full: the oldest is shown before its time.
const WAITING_MAX: usize = 8;

/// What has come into a slot.
#[derive(Default)]
struct Frames {
    /// What is shown, until the next one's time has come.
    shown: Option<Arc<Frame>>,
    /// Oldest first; bounded by [`WAITING_MAX`].
    waiting: VecDeque<Arc<Frame>>,
}

/// What a slot shows, for the thread that paints.
#[derive(Default)]
pub struct Feed {
    frames: Mutex<Frames>,
    /// Pictures are shown so long after they came.
    hold_us: AtomicU64,
    /// Set by whoever finds that the decoder cannot go on without; cleared by a picture.
    needs_keyframe: AtomicBool,
    undecodable: AtomicU32,
}

impl Feed {
    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the newest picture came.
    fn newest(&self) -> Option<Instant> {
        let frames = self.frames();
        frames.waiting.back().or(frames.shown.as_ref()).map(|frame| frame.arrived)
    }

    /// The picture whose time it is.
    pub fn at(&self, now: Instant) -> Option<Arc<Frame>> {
        let hold = Duration::from_micros(self.hold_us.load(Ordering::Relaxed));
        let mut frames = self.frames();
        while frames.waiting.front().is_some_and(|frame| frame.arrived + hold <= now) {
            frames.shown = frames.waiting.pop_front();
        }
        frames.shown.clone()
    }

    pub fn hold(&self, hold: Duration) {
        self.hold_us.store(hold.as_micros() as u64, Ordering::Relaxed);
    }

    /// Shows nothing until the next picture: what it has is of somebody else.
    pub fn forget(&self) {
        *self.frames() = Frames::default();
    }

    /// Since last asked.
    pub fn take_undecodable(&self) -> u32 {
        self.undecodable.swap(0, Ordering::Relaxed)
    }

    fn note_trouble(&self) {
        self.undecodable.fetch_add(1, Ordering::Relaxed);
        self.needs_keyframe.store(true, Ordering::Relaxed);
    }

    fn note_frame(&self, pixels: Box<dyn Pixels>) {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let frame = Arc::new(Frame { serial, arrived: Instant::now(), pixels });
        self.needs_keyframe.store(false, Ordering::Relaxed);
        let mut frames = self.frames();
        if frames.waiting.len() >= WAITING_MAX {
            frames.shown = frames.waiting.pop_front();
        }
        frames.waiting.push_back(frame);
    }
}

/// A picture in a decoder's memory.
pub struct Decoded(VideoFrame<Readable>);

impl Decoded {
    /// `None` where it is of no use.
    pub fn of(sample: &gst::Sample) -> Option<Self> {
        let info = sample.caps().and_then(|caps| VideoInfo::from_caps(caps).ok())?;
        let is_fit = |side| (2..=SIDE_MAX).contains(&side);
        if !is_fit(info.width()) || !is_fit(info.height()) {
            return None;
        }
        let frame = VideoFrame::from_buffer_readable(sample.buffer_owned()?, &info).ok()?;
        (frame.n_planes() == 3).then_some(Self(frame))
    }
}

impl Pixels for Decoded {
    fn view(&self) -> View<'_> {
        let plane = |index: usize| Plane {
            bytes: self.0.plane_data(index as u32).unwrap_or_default(),
            stride: usize::try_from(self.0.plane_stride()[index]).unwrap_or_default(),
            width: self.0.comp_width(index as u32) as usize,
            height: self.0.comp_height(index as u32) as usize,
        };
        View { planes: [plane(0), plane(1), plane(2)] }
    }
}

struct Running {
    codec: Codec,
    graph: Graph,
    /// Of AV1, which the graph takes in whole pictures.
    depacketizer: Depacketizer,
    started: Instant,
    has_failed: Arc<AtomicBool>,
}

/// The decoder of one slot.
pub struct Ingest {
    slot: u16,
    feed: Arc<Feed>,
    running: Option<Running>,
    made: Option<Instant>,
    last_packet: Option<Instant>,
    /// The first packet since the newest picture.
    waits_since: Option<Instant>,
    asked: Option<Instant>,
}

impl Ingest {
    pub fn new(slot: u16) -> Self {
        Self {
            slot,
            feed: Arc::default(),
            running: None,
            made: None,
            last_packet: None,
            waits_since: None,
            asked: None,
        }
    }

    pub fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.feed)
    }

    /// Decodes a packet, soon.
    pub fn handle_packet(&mut self, packet: MixPacket, now: Instant) {
        self.last_packet = Some(now);
        let newest = self.feed.newest();
        if self.waits_since.is_none_or(|since| newest.is_some_and(|newest| newest > since)) {
            self.waits_since = Some(now);
        }
        if self.running.as_ref().is_some_and(|running| running.codec != packet.codec) {
            self.put_away();
        }
        if self.running.is_none() && !self.start(packet.codec, now) {
            self.feed.note_trouble();
            return;
        }
        let Some(running) = &mut self.running else { return };
        if running.push(packet, &self.feed).is_err() {
            running.has_failed.store(true, Ordering::Relaxed);
        }
    }

    /// Looks after the graph; to be called some times a second. Says whether a key frame is to be asked for.
    pub fn check(&mut self, now: Instant) -> bool {
        let Some(last_packet) = self.last_packet else { return false };
        let silence = now.saturating_duration_since(last_packet);
        let Some(running) = &self.running else {
            return silence < SILENCE && self.ask(now);
        };
        let newest = self.feed.newest().map_or(running.started, |newest| newest.max(running.started));
        // From the first packet that no picture came of yet: a sender may have been quiet before it.
        let since = self.waits_since.map_or(newest, |since| since.max(running.started));
        let waits = newest <= since;
        let without_picture =
            if waits { last_packet.saturating_duration_since(since) } else { Duration::ZERO };
        let hangs = without_picture > HANG && silence < SILENCE
            || running.graph.input.current_level_bytes() > WAITING_BYTES_MAX;
        if running.has_failed.load(Ordering::Relaxed) || hangs || silence > IDLE {
            self.put_away();
            return silence < SILENCE && self.ask(now);
        }
        let needs = self.feed.needs_keyframe.load(Ordering::Relaxed) || without_picture > STALL;
        needs && silence < SILENCE && self.ask(now)
    }

    fn ask(&mut self, now: Instant) -> bool {
        let is_due = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= KEYFRAME_INTERVAL);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    /// Makes the graph, unless one was made just now.
    fn start(&mut self, codec: Codec, now: Instant) -> bool {
        if self.made.is_some_and(|made| now.saturating_duration_since(made) < REMAKE_INTERVAL) {
            return false;
        }
        self.made = Some(now);
        match Running::start(codec, &self.feed, now) {
            Ok(running) => {
                self.feed.needs_keyframe.store(true, Ordering::Relaxed);
                self.running = running;
            }
            Err(error) => tracing::warn!(slot = self.slot, %error, "a slot cannot be decoded"),
        }
        self.running.is_some()
    }

    fn put_away(&mut self) {
        if let Some(running) = self.running.take() {
            running.graph.put_away();
        }
    }
}

impl Running {
    /// `None` for a codec that is no video.
    fn start(codec: Codec, feed: &Arc<Feed>, now: Instant) -> Result<Option<Self>, GraphError> {
        let stage = match codec {
            Codec::Vp8 => Stage::DecodeVp8,
            Codec::Vp9 => Stage::DecodeVp9,
            Codec::H264 => Stage::DecodeH264,
            Codec::Av1 => Stage::DecodeAv1,
            Codec::Opus | Codec::Red => return Ok(None),
        };
        let graph = Graph::start(stage, &[("latency_ms", &LATENCY_MS)])?;
        let shown = Arc::clone(feed);
        let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
            match pull(sink)? {
                Some(pixels) => shown.note_frame(Box::new(pixels)),
                None => shown.note_trouble(),
            }
            Ok(gst::FlowSuccess::Ok)
        });
        graph.output.set_callbacks(callbacks.build());
        let has_failed = watch_bus(&graph, feed);
        watch_requests(&graph, feed);
        Ok(Some(Self { codec, graph, depacketizer: Depacketizer::default(), started: now, has_failed }))
    }

    fn push(&mut self, packet: MixPacket, feed: &Feed) -> Result<(), gst::FlowError> {
        if self.codec != Codec::Av1 {
            self.graph.input.push_buffer(gst::Buffer::from_mut_slice(rtp_packet(&packet)))?;
            return Ok(());
        }
        for outcome in self.depacketizer.push(packet) {
            match outcome {
                Outcome::Unit(unit) => {
                    self.graph.input.push_buffer(gst::Buffer::from_mut_slice(unit))?;
                }
                Outcome::Lost => feed.note_trouble(),
            }
        }
        Ok(())
    }
}

/// RFC 3550 section 5.1.
fn rtp_packet(packet: &MixPacket) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + packet.payload.len());
    let marker = if packet.marker { MARKER } else { 0 };
    bytes.extend([RTP_VERSION, marker | PAYLOAD_TYPE]);
    bytes.extend((packet.seq_no as u16).to_be_bytes());
    bytes.extend(packet.rtp_time.to_be_bytes());
    bytes.extend(SSRC.to_be_bytes());
    bytes.extend(&packet.payload[..]);
    bytes
}

/// The picture that a decoder gives, or `None` where it is of no use.
fn pull(sink: &AppSink) -> Result<Option<Decoded>, gst::FlowError> {
    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
    Ok(Decoded::of(&sample))
}

/// Takes note of warnings and errors, which the graph's own threads tell.
fn watch_bus(graph: &Graph, feed: &Arc<Feed>) -> Arc<AtomicBool> {
    let has_failed = Arc::new(AtomicBool::new(false));
    let Some(bus) = graph.pipeline.bus() else { return has_failed };
    let (feed, failed) = (Arc::clone(feed), Arc::clone(&has_failed));
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Error(error) => {
                tracing::debug!(error = %error.error(), "a decoder fails");
                feed.note_trouble();
                failed.store(true, Ordering::Relaxed);
            }
            gst::MessageView::Warning(_) => feed.note_trouble(),
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
    has_failed
}

/// Depayloaders and decoders ask upstream for a key frame when they miss something.
fn watch_requests(graph: &Graph, feed: &Arc<Feed>) {
    let Some(pad) = graph.input.static_pad("src") else { return };
    let feed = Arc::clone(feed);
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if info.event().is_some_and(|event| ForceKeyUnitEvent::is(event)) {
            feed.needs_keyframe.store(true, Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
}
