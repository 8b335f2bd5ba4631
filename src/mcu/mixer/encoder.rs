//! One encoding of a line: pictures in, RTP payloads out.
//!
//! Its encoder runs while somebody takes the encoding. Sequence numbers, picture ids and time go on from one
//! encoder to the next, so that receivers see one stream.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSinkCallbacks;
use gstreamer_video::UpstreamForceKeyUnitEvent;

use super::budget::Budget;
use super::clock::Clock;
use super::outlet::Outlet;
use super::picture::Picture;
use crate::core::mix::{LINE_H264, MixPacket, Place, Rendition, Size};
use crate::core::packetize::packetize;
use crate::core::payload::{Codec, VIDEO_CLOCK_RATE};
use crate::mcu::graph::{Graph, GraphError, Stage};

/// An encoder that nobody needs stays this long, for somebody may come back.
const KEEP_TIME: Duration = Duration::from_secs(5);
/// Several viewers who join at once share one key frame.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);
/// Pictures go in and none comes out for this long: the encoder hangs.
const HANG: Duration = Duration::from_secs(4);
/// After an encoder failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Pictures that may wait for the encoder. Full: the picture is left out and counts as late.
const WAITING_MAX: u64 = 2;
/// Pictures that an encoder holds, at most; an older one that did not come out was dropped by it.
const HELD_MAX: usize = 64;
/// No encoder here makes anything of less.
const BITRATE_BPS_MIN: u64 = 50_000;

/// How encoders of all lines keep up.
#[derive(Debug)]
pub struct Punctuality {
    clock: Clock,
    interval_us: AtomicU64,
    last_late_us: AtomicU64,
    late: AtomicU32,
    left_out: AtomicU32,
    encoded: AtomicU32,
    work_us: AtomicU64,
}

impl Punctuality {
    pub fn new(clock: Clock, interval: Duration) -> Self {
        let this = Self {
            clock,
            interval_us: AtomicU64::new(0),
            last_late_us: AtomicU64::new(0),
            late: AtomicU32::new(0),
            left_out: AtomicU32::new(0),
            encoded: AtomicU32::new(0),
            work_us: AtomicU64::new(0),
        };
        this.set_interval(interval);
        this
    }

    pub fn set_interval(&self, interval: Duration) {
        self.interval_us.store(interval.as_micros() as u64, Ordering::Relaxed);
    }

    /// The picture of `tick` was late, in one encoding or in several.
    fn note_late(&self, tick: Duration) {
        // A tick at the epoch itself is one, too.
        let tick_us = tick.as_micros() as u64 + 1;
        if self.last_late_us.fetch_max(tick_us, Ordering::Relaxed) < tick_us {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The time between pictures, as it is now.
    fn interval(&self) -> Duration {
        Duration::from_micros(self.interval_us.load(Ordering::Relaxed))
    }

    /// A picture was left out in one encoding, to keep its bitrate.
    fn note_left_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Since last asked, in all encodings.
    pub fn take_left_out(&self) -> u32 {
        self.left_out.swap(0, Ordering::Relaxed)
    }

    fn note_encoded(&self, tick: Duration) {
        let took_us = self.clock.epoch.elapsed().saturating_sub(tick).as_micros() as u64;
        self.encoded.fetch_add(1, Ordering::Relaxed);
        self.work_us.fetch_add(took_us, Ordering::Relaxed);
        if took_us > self.interval_us.load(Ordering::Relaxed) {
            self.note_late(tick);
        }
    }

    /// Since last asked: pictures that were late, and how long one took on average.
    pub fn take(&self) -> (u32, Duration) {
        let encoded = self.encoded.swap(0, Ordering::Relaxed);
        let work_us = self.work_us.swap(0, Ordering::Relaxed);
        let late = self.late.swap(0, Ordering::Relaxed);
        (late, Duration::from_micros(work_us / u64::from(encoded.max(1))))
    }
}

/// What the next packet is to be called, and what went before.
#[derive(Debug)]
struct Output {
    seq_no: u64,
    picture_id: u16,
    bitrate_bps: u64,
    budget: Budget,
    held: Held,
    /// Pictures have been put in since this time, and none came out.
    silent_since: Option<Instant>,
}

/// The encoder's own time, by which it is given pictures, and the ticks of those that it holds.
///
/// Its time goes on by one interval with each picture, whatever was left out before: an encoder gives a
/// picture the bits of the time since the one before, so by the ticks' time every second picture would come
/// to cost what two had, and the other one would be left out for ever.
#[derive(Debug, Default)]
struct Held {
    time: Duration,
    ticks: VecDeque<(Duration, Duration)>,
}

impl Held {
    /// The encoder's time for the picture of a tick.
    fn push(&mut self, tick: Duration, interval: Duration) -> Duration {
        self.time += interval;
        if self.ticks.len() >= HELD_MAX {
            self.ticks.pop_front();
        }
        self.ticks.push_back((self.time, tick));
        self.time
    }

    /// The tick of what came out, all before it being forgotten; `None` for what never went in.
    fn take(&mut self, time: Duration) -> Option<Duration> {
        let mut found = None;
        while let Some((_, tick)) = self.ticks.front().filter(|(of, _)| *of <= time) {
            found = Some(*tick);
            self.ticks.pop_front();
        }
        found
    }
}

struct Running {
    graph: Graph,
    element: gst::Element,
}

/// One encoding of one line.
pub struct Encoder {
    place: Place,
    codec: Codec,
    stage: Stage,
    rendition: Rendition,
    frames_per_second: u32,
    bitrate_bps: u64,
    outlet: Outlet,
    punctuality: Arc<Punctuality>,
    output: Arc<Mutex<Output>>,
    running: Option<Running>,
    failed: Option<Instant>,
    /// When it was last wanted; none while it is.
    unwanted_since: Option<Instant>,
    keyframe_due: bool,
    /// Forced, and not yet seen: an encoder short of bits leaves frames out, key frames among them.
    keyframe_pending: Arc<AtomicBool>,
    keyframe_forced: Option<Instant>,
}

/// What all encoders of a mixer share.
#[derive(Clone)]
pub struct Shared {
    pub outlet: Outlet,
    pub punctuality: Arc<Punctuality>,
    pub frames_per_second: u32,
}

impl Encoder {
    /// One that nobody wants yet.
    pub fn new(
        line: u8,
        encoding: u8,
        stage: Stage,
        rendition: Rendition,
        shared: Shared,
        now: Instant,
    ) -> Self {
        // Below half of the range, as receivers take a first number near its end for a late one.
        let output = Output {
            seq_no: u64::from(rand::random::<u16>() >> 1),
            picture_id: rand::random::<u16>() >> 1,
            bitrate_bps: rendition.bitrate_bps,
            budget: Budget::default(),
            held: Held::default(),
            silent_since: None,
        };
        Self {
            place: Place::Line { line, encoding },
            codec: if line == LINE_H264 { Codec::H264 } else { Codec::Vp8 },
            stage,
            rendition,
            frames_per_second: shared.frames_per_second,
            bitrate_bps: rendition.bitrate_bps,
            outlet: shared.outlet,
            punctuality: shared.punctuality,
            output: Arc::new(Mutex::new(output)),
            running: None,
            failed: None,
            unwanted_since: Some(now),
            keyframe_due: false,
            keyframe_pending: Arc::default(),
            keyframe_forced: None,
        }
    }

    pub fn size(&self) -> Size {
        self.rendition.size
    }

    pub fn is_wanted(&self) -> bool {
        self.unwanted_since.is_none()
    }

    pub fn set_wanted(&mut self, wanted: bool, now: Instant) {
        if wanted {
            // Who comes first, or comes back, has nothing to decode on.
            if !self.is_wanted() {
                self.keyframe_due = true;
                self.output().silent_since = None;
            }
            self.unwanted_since = None;
        } else if self.is_wanted() {
            self.unwanted_since = Some(now);
        }
    }

    pub fn ask_keyframe(&mut self) {
        self.keyframe_due = true;
    }

    /// What it may use; never more than its rendition has.
    pub fn set_bitrate(&mut self, bps: u64) {
        self.bitrate_bps = bps.clamp(BITRATE_BPS_MIN, self.rendition.bitrate_bps.max(BITRATE_BPS_MIN));
        self.output().bitrate_bps = self.bitrate_bps;
        if let Some(running) = &self.running {
            set_bitrate(self.stage, &running.element, self.bitrate_bps);
        }
    }

    /// Encodes the picture of a tick, soon.
    pub fn feed(&mut self, picture: &Arc<Picture>, tick: Duration, now: Instant) {
        if !self.is_wanted() || !self.is_up(now) {
            return;
        }
        // A key frame is sent on credit.
        let is_key_due = self.keyframe_due || self.keyframe_pending.load(Ordering::Relaxed);
        if !self.output().budget.allows(tick) && !is_key_due {
            self.punctuality.note_left_out();
            return;
        }
        let Some(running) = &self.running else { return };
        if running.graph.input.current_level_buffers() >= WAITING_MAX {
            self.punctuality.note_late(tick);
            return;
        }
        let is_key = self.takes_forced_key(now);
        let Some(running) = &self.running else { return };
        if is_key && let Some(pad) = running.element.static_pad("src") {
            pad.send_event(UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
        let mut buffer = gst::Buffer::from_slice(Pushed(Arc::clone(picture)));
        let time = self.output().held.push(tick, self.punctuality.interval());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_nseconds(time.as_nanos() as u64));
        }
        let is_pushed = running.graph.input.push_buffer(buffer).is_ok();
        self.output().silent_since.get_or_insert(now);
        if !is_pushed {
            self.fail(now);
        }
    }

    /// Whether a key frame is to be forced now.
    fn takes_forced_key(&mut self, now: Instant) -> bool {
        let is_free = |forced: Instant| now.saturating_duration_since(forced) >= KEYFRAME_INTERVAL;
        let is_due = self.keyframe_due || self.keyframe_pending.load(Ordering::Relaxed);
        let takes = is_due && self.keyframe_forced.is_none_or(is_free);
        if takes {
            self.note_forced(now);
        }
        takes
    }

    fn note_forced(&mut self, now: Instant) {
        self.keyframe_due = false;
        self.keyframe_pending.store(true, Ordering::Relaxed);
        self.keyframe_forced = Some(now);
    }

    /// Puts away what is not wanted, and what failed.
    pub fn check(&mut self, now: Instant) {
        let is_stale = |since: Instant| now.saturating_duration_since(since) > KEEP_TIME;
        if self.unwanted_since.is_some_and(is_stale) {
            self.stop();
        }
        let hangs =
            self.output().silent_since.is_some_and(|since| now.saturating_duration_since(since) > HANG);
        let errors = [gst::MessageType::Error];
        let bus = self.running.as_ref().and_then(|running| running.graph.pipeline.bus());
        if bus.and_then(|bus| bus.pop_filtered(&errors)).is_some() || hangs {
            self.fail(now);
        }
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.graph.put_away();
        }
        self.output().silent_since = None;
    }

    fn fail(&mut self, now: Instant) {
        tracing::warn!(stage = ?self.stage, "an encoder fails");
        self.stop();
        self.give_up(now);
    }

    /// Tries again later, or at once by software where hardware does not do it: a card may take no more
    /// streams, or be gone.
    fn give_up(&mut self, now: Instant) {
        if self.stage.is_hardware() {
            self.stage = Stage::EncodeH264;
            self.keyframe_due = true;
        } else {
            self.failed = Some(now);
        }
    }

    /// What it encodes with.
    pub fn element(&self) -> Option<String> {
        self.stage.encoder()
    }

    /// Starts the encoder where there is none.
    fn is_up(&mut self, now: Instant) -> bool {
        let is_recent = |failed: Instant| now.saturating_duration_since(failed) < RETRY_INTERVAL;
        if self.running.is_none() && !self.failed.is_some_and(is_recent) {
            match self.start() {
                Ok(running) => {
                    // The first picture is a key frame by itself.
                    self.running = Some(running);
                    self.note_forced(now);
                }
                Err(error) => {
                    tracing::warn!(%error, "an encoder does not start");
                    self.give_up(now);
                }
            }
        }
        self.running.is_some()
    }

    fn start(&self) -> Result<Running, GraphError> {
        let running = start(self.stage, &self.rendition, self.frames_per_second, self.bitrate_bps)?;
        let (codec, place, outlet) = (self.codec, self.place, self.outlet.clone());
        let (output, punctuality) = (Arc::clone(&self.output), Arc::clone(&self.punctuality));
        let pending = Arc::clone(&self.keyframe_pending);
        let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
            let bytes = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            let time = Duration::from(buffer.pts().ok_or(gst::FlowError::Error)?);
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.silent_since = None;
            let tick = output.held.take(time).ok_or(gst::FlowError::Error)?;
            let bitrate_bps = output.bitrate_bps;
            output.budget.spend(bytes.len(), bitrate_bps);
            let payloads = packetize(codec, &bytes, output.picture_id);
            output.picture_id = (output.picture_id + 1) & 0x7fff;
            let count = payloads.len();
            let captured_us = punctuality.clock.captured_us(tick);
            for (index, payload) in payloads.into_iter().enumerate() {
                let (seq_no, marker) = (output.seq_no, index + 1 == count);
                output.seq_no += 1;
                let (rtp_time, payload) = (rtp_time(tick), Arc::from(payload));
                outlet.send(&MixPacket { place, codec, seq_no, rtp_time, captured_us, marker, payload });
            }
            punctuality.note_encoded(tick);
            if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
                pending.store(false, Ordering::Relaxed);
            }
            Ok(gst::FlowSuccess::Ok)
        });
        running.graph.output.set_callbacks(callbacks.build());
        Ok(running)
    }
}

/// Whether this machine encodes by a stage: its graph starts and gives something for a picture.
pub fn is_usable(stage: Stage, rendition: &Rendition, frames_per_second: u32) -> bool {
    const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(5);
    let Ok(running) = start(stage, rendition, frames_per_second, rendition.bitrate_bps) else { return false };
    let picture = Arc::new(Picture::new(rendition.size));
    let mut buffer = gst::Buffer::from_slice(Pushed(picture));
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(gst::ClockTime::ZERO);
    }
    let graph = &running.graph;
    graph.input.push_buffer(buffer).is_ok() && graph.output.try_pull_sample(PATIENCE).is_some()
}

fn start(stage: Stage, rendition: &Rendition, rate: u32, bitrate_bps: u64) -> Result<Running, GraphError> {
    let Size { width, height } = rendition.size;
    let graph = Graph::start(
        stage,
        &[
            ("width", &width),
            ("height", &height),
            ("frames_per_second", &rate),
            ("bitrate_bps", &bitrate_bps),
            ("bitrate_kbps", &(bitrate_bps / 1_000)),
        ],
    )?;
    let element = graph.pipeline.by_name("encoder").ok_or(GraphError::NoEnd { stage, name: "encoder" })?;
    Ok(Running { graph, element })
}

fn set_bitrate(stage: Stage, element: &gst::Element, bps: u64) {
    let (property, value) = match stage {
        Stage::EncodeVp8 => ("target-bitrate", bps),
        Stage::EncodeH264 => ("bitrate", bps),
        // Hardware's elements count in kilobits.
        _ => ("bitrate", bps / 1_000),
    };
    element.set_property_from_str(property, &value.to_string());
}

/// From the epoch, at 90 kHz; it wraps.
fn rtp_time(tick: Duration) -> u32 {
    (tick.as_nanos() * u128::from(VIDEO_CLOCK_RATE) / 1_000_000_000) as u32
}

/// A picture in GStreamer's hands.
struct Pushed(Arc<Picture>);

impl AsRef<[u8]> for Pushed {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_their_ticks_whatever_is_left_out_or_dropped() {
        let interval = Duration::from_micros(33_333);
        let mut held = Held::default();
        let times: Vec<Duration> =
            [0, 1, 15, 16, 17].map(|tick| held.push(interval * tick, interval)).to_vec();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == interval));
        assert_eq!(held.take(times[0]), Some(Duration::ZERO));
        assert_eq!(held.take(times[3]), Some(interval * 16));
        assert_eq!(held.take(times[2]), None);
        assert_eq!(held.take(times[4]), Some(interval * 17));
        for tick in 0..200 {
            held.push(interval * tick, interval);
        }
        assert_eq!(held.ticks.len(), HELD_MAX);
    }

    /// Pictures that are let through in each second after a key frame, of an encoder that gives a picture the
    /// bits of the time since the one before.
    fn let_through(time_of: impl Fn(&mut Held, Duration) -> Duration) -> Vec<u32> {
        const BITRATE_BPS: u64 = 1_800_000;
        let (mut budget, mut held, mut before) = (Budget::default(), Held::default(), None);
        let second = |second: u32| {
            let ticks = (0..30).map(|tick| Duration::from_secs(1) / 30 * (30 * second + tick));
            let pictures = ticks.filter(|&tick| {
                let allows = budget.allows(tick);
                if allows {
                    let time = time_of(&mut held, tick);
                    let since = before.replace(time).map(|before| time - before);
                    // The first is a key frame, of half a second's bits.
                    let worth = since.unwrap_or(Duration::from_millis(500));
                    budget.spend((worth.as_secs_f64() * BITRATE_BPS as f64 / 8.0) as usize, BITRATE_BPS);
                }
                allows
            });
            pictures.count() as u32
        };
        (0..6).map(second).collect()
    }

    #[test]
    fn after_a_key_frame_all_pictures_are_made_again() {
        let interval = Duration::from_secs(1) / 30;
        let pictures = let_through(|held, tick| held.push(tick, interval));
        assert!(pictures[0] < 30 && pictures[1..].iter().all(|count| *count >= 29), "{pictures:?}");
        let by_ticks = let_through(|_, tick| tick);
        assert!(by_ticks[5] < 15, "were it given the ticks' own time: {by_ticks:?}");
    }

    #[test]
    fn where_hardware_fails_software_goes_on() {
        crate::mcu::graph::start().unwrap();
        // A card that takes no more streams looks like one that is not there; where there is one, it encodes.
        let settings = crate::core::mix::MixSettings::default();
        let (rendition, start) = (settings.renditions[0], Instant::now());
        let punctuality = Arc::new(Punctuality::new(Clock { epoch: start }, Duration::from_millis(33)));
        let shared = Shared { outlet: Outlet::default(), punctuality, frames_per_second: 30 };
        let is_here = gst::ElementFactory::find("nvh264enc").is_some();
        let mut encoder = Encoder::new(LINE_H264, 0, Stage::EncodeH264Nvidia, rendition, shared, start);
        encoder.set_wanted(true, start);
        assert_eq!(encoder.element().as_deref(), Some("nvh264enc"));
        let picture = Arc::new(Picture::new(rendition.size));
        let deadline = start + Duration::from_secs(20);
        let mut ticks = 0;
        while encoder.punctuality.encoded.load(Ordering::Relaxed) < 3 {
            let now = Instant::now();
            assert!(now < deadline, "nothing comes out of {:?}", encoder.element());
            encoder.feed(&picture, Duration::from_millis(33) * ticks, now);
            encoder.check(now);
            ticks += 1;
            std::thread::yield_now();
        }
        assert!(is_here || encoder.element().as_deref() == Some("openh264enc"));
    }

    #[test]
    fn a_tick_is_late_once_and_time_wraps() {
        let epoch = Instant::now() - Duration::from_secs(2);
        let punctuality = Punctuality::new(Clock { epoch }, Duration::from_millis(33));
        punctuality.note_encoded(Duration::from_secs(1));
        punctuality.note_encoded(Duration::from_secs(1));
        punctuality.note_encoded(epoch.elapsed());
        let (late, work) = punctuality.take();
        assert_eq!(late, 1);
        assert!(work > Duration::from_millis(600), "{work:?}");
        assert_eq!(rtp_time(Duration::from_millis(1_500)), 135_000);
        assert_eq!(rtp_time(Duration::from_secs(47_722)), (47_722_u64 * 90_000) as u32);
    }
}
