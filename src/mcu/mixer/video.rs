//! The video half of the mixer: one thread that composes a picture each tick and hands it to the encoders.
//!
//! It is also the mixer's pulse: it says several times a second that it lives, so that a mixer whose picture
//! hangs is heard no more.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::encoder::{self, Encoder, Punctuality, Shared};
use super::ingest::Feed;
use super::label::Labels;
use super::outlet::Outlet;
use super::pace::Pace;
use super::painter::{Frame, Painter};
use super::picture::{Picture, Pixels};
use super::scale::Scaler;
use crate::core::mix::{Figures, FromMixer, LINE_H264, LINE_VP8, MixSettings, Scene, Size};
use crate::mcu::graph::Stage;
use crate::worker::process;

/// Commands that may wait. Full: the reader of the socket waits, and with it the node's messages.
const COMMANDS_MAX: usize = 256;
/// Pictures of one size in encoders' hands. Full: the tick is left out.
const PICTURES_MAX: usize = 8;
const SECOND: Duration = Duration::from_secs(1);
/// Between two signs of life.
const PULSE_INTERVAL: Duration = Duration::from_millis(200);
/// Of pictures: behind the node, which forwards packets, and behind sound, which a late tick breaks.
const NICENESS: i32 = 5;

/// What the slots show.
pub type Feeds = Arc<Mutex<BTreeMap<u16, Arc<Feed>>>>;

pub enum Command {
    Scene(Box<Scene>),
    /// Those with lower serials have come too late.
    Backdrop {
        serial: u64,
        picture: Option<Box<dyn Pixels>>,
    },
    Keyframe {
        line: u8,
        encoding: u8,
    },
    Wanted {
        line: u8,
        encodings: u32,
    },
    Bitrate {
        line: u8,
        encoding: u8,
        bps: u64,
    },
}

/// What the rest of the mixer adds to the figures: ticks of sound.
pub type SoundTicks = Box<dyn Fn() -> u32 + Send>;

/// Why there is no video.
#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    #[error("no encoder for {0} works here")]
    NoEncoder(&'static str),
    #[error("no thread is to be had: {0}")]
    NoThread(#[from] std::io::Error),
}

/// The video half, as the rest of the mixer sees it.
#[derive(Debug)]
pub struct Video {
    pub commands: SyncSender<Command>,
    /// Elements that encode, in the order of the lines.
    pub encoders: Vec<String>,
}

impl Video {
    /// # Errors
    /// [`VideoError`].
    pub fn start(
        settings: MixSettings,
        clock: Clock,
        feeds: Feeds,
        outlet: Outlet,
        sound_ticks: SoundTicks,
    ) -> Result<Self, VideoError> {
        let lowest = &settings.renditions[0];
        let rate = settings.frames_per_second;
        let vp8 = Some(Stage::EncodeVp8).filter(|stage| encoder::is_usable(*stage, lowest, rate));
        let vp8 = vp8.ok_or(VideoError::NoEncoder("VP8"))?;
        let h264 = h264_encoder(&settings).ok_or(VideoError::NoEncoder("H.264"))?;
        let encoders: Vec<String> = [vp8, h264].into_iter().filter_map(Stage::encoder).collect();
        let (commands, received) = sync_channel(COMMANDS_MAX);
        let labels = Labels::start()?;
        let show = Show::new(
            settings,
            clock,
            [(LINE_VP8, vp8), (LINE_H264, h264)],
            labels,
            feeds,
            outlet,
            sound_ticks,
        );
        thread::Builder::new().name("video".into()).spawn(move || {
            process::step_back(NICENESS);
            show.run(&received);
        })?;
        Ok(Self { commands, encoders })
    }

    /// Waits where too many commands do.
    pub fn tell(&self, command: Command) {
        // Without its thread the mixer has no pulse, and the node ends it.
        let _ = self.commands.send(command);
    }
}

/// What encodes H.264 here: the best that does so for a trial.
pub fn h264_encoder(settings: &MixSettings) -> Option<Stage> {
    let is_usable =
        |stage: &Stage| encoder::is_usable(*stage, &settings.renditions[0], settings.frames_per_second);
    Stage::h264_encoders().into_iter().find(is_usable)
}

/// Pictures of one size, used again when no encoder holds them any more.
struct Pool {
    size: Size,
    pictures: Vec<Arc<Picture>>,
}

impl Pool {
    /// Fills a picture that nobody holds. `None` when encoders hold all.
    fn filled(&mut self, fill: impl FnOnce(&mut Picture)) -> Option<Arc<Picture>> {
        let free = self.pictures.iter().position(|picture| Arc::strong_count(picture) == 1);
        let mut picture = match free {
            Some(place) => self.pictures.swap_remove(place),
            None if self.pictures.len() < PICTURES_MAX => Arc::new(Picture::new(self.size)),
            None => return None,
        };
        fill(Arc::get_mut(&mut picture)?);
        self.pictures.push(Arc::clone(&picture));
        Some(picture)
    }
}

/// What the thread has.
struct Show {
    pace: Pace,
    punctuality: Arc<Punctuality>,
    painter: Painter,
    backdrop_serial: u64,
    labels: Labels,
    feeds: Feeds,
    canvas: Pool,
    /// Of smaller renditions.
    scaled: Vec<(Pool, Scaler)>,
    encoders: BTreeMap<(u8, u8), Encoder>,
    /// What they encode with, as it was told.
    elements: Vec<String>,
    outlet: Outlet,
    sound_ticks: SoundTicks,
    /// Since the last review.
    ticks_of_sound: u32,
    pulsed: Instant,
    reviewed: Instant,
    cpu_before: Duration,
    frames: u32,
    ticks: u32,
    skipped: u32,
}

/// Each element once, in the order of the lines.
fn elements(encoders: &BTreeMap<(u8, u8), Encoder>) -> Vec<String> {
    let mut elements: Vec<String> = encoders.values().filter_map(Encoder::element).collect();
    elements.dedup();
    elements
}

impl Show {
    fn new(
        settings: MixSettings,
        clock: Clock,
        lines: [(u8, Stage); 2],
        labels: Labels,
        feeds: Feeds,
        outlet: Outlet,
        sound_ticks: SoundTicks,
    ) -> Self {
        let now = Instant::now();
        let pace = Pace::new(settings.frames_per_second, clock.epoch);
        let punctuality = Arc::new(Punctuality::new(clock, pace.interval()));
        let shared = Shared {
            outlet: outlet.clone(),
            punctuality: Arc::clone(&punctuality),
            frames_per_second: settings.frames_per_second,
        };
        let mut encoders = BTreeMap::new();
        for (line, stage) in lines {
            for (encoding, rendition) in (0..).zip(settings.renditions) {
                let encoder = Encoder::new(line, encoding, stage, rendition, shared.clone(), now);
                encoders.insert((line, encoding), encoder);
            }
        }
        let pool = |size: Size| Pool { size, pictures: Vec::new() };
        let smaller = settings.renditions.iter().map(|rendition| rendition.size);
        let smaller = smaller.filter(|size| *size != settings.canvas);
        Self {
            pace,
            punctuality,
            painter: Painter::default(),
            backdrop_serial: 0,
            labels,
            feeds,
            canvas: pool(settings.canvas),
            scaled: smaller.map(|size| (pool(size), Scaler::default())).collect(),
            elements: elements(&encoders),
            encoders,
            outlet,
            sound_ticks,
            ticks_of_sound: 0,
            pulsed: now,
            reviewed: now,
            cpu_before: process::cpu_time(),
            frames: 0,
            ticks: 0,
            skipped: 0,
        }
    }

    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let now = Instant::now();
            match commands.recv_timeout(self.pace.due().saturating_duration_since(now)) {
                Ok(command) => self.apply(command, now),
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn apply(&mut self, command: Command, now: Instant) {
        match command {
            Command::Scene(scene) => self.painter.set_scene(&scene, now),
            Command::Backdrop { serial, picture } if serial >= self.backdrop_serial => {
                self.backdrop_serial = serial;
                self.painter.set_backdrop(picture);
            }
            Command::Backdrop { .. } => {}
            Command::Keyframe { line, encoding } => {
                if let Some(encoder) = self.encoders.get_mut(&(line, encoding)) {
                    encoder.ask_keyframe();
                }
            }
            Command::Bitrate { line, encoding, bps } => {
                if let Some(encoder) = self.encoders.get_mut(&(line, encoding)) {
                    encoder.set_bitrate(bps);
                }
            }
            Command::Wanted { line, encodings } => {
                for ((of, encoding), encoder) in &mut self.encoders {
                    if *of == line {
                        encoder.set_wanted(encodings >> encoding & 1 != 0, now);
                    }
                }
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let tick = self.pace.advance(now);
        if self.encoders.values().any(Encoder::is_wanted) {
            self.ticks += 1;
            self.compose(tick, now);
        }
        if now.saturating_duration_since(self.pulsed) >= PULSE_INTERVAL {
            self.pulse(now);
        }
        if now.saturating_duration_since(self.reviewed) >= SECOND {
            self.review(now);
        }
    }

    fn compose(&mut self, tick: Duration, now: Instant) {
        let (painter, feeds, labels) = (&mut self.painter, &self.feeds, &self.labels);
        let newest = |slot| shown(feeds, slot, now);
        let canvas = self.canvas.filled(|canvas| painter.paint(canvas, &newest, labels, now));
        let Some(canvas) = canvas else {
            self.skipped += 1;
            return;
        };
        self.frames += 1;
        let wanted = |encoders: &BTreeMap<(u8, u8), Encoder>, size: Size| {
            encoders.values().any(|encoder| encoder.is_wanted() && encoder.size() == size)
        };
        for (pool, scaler) in &mut self.scaled {
            if !wanted(&self.encoders, pool.size) {
                continue;
            }
            let size = pool.size;
            let Some(picture) = pool.filled(|picture| scaler.scale(&canvas.view(), picture)) else {
                continue;
            };
            for encoder in self.encoders.values_mut().filter(|encoder| encoder.size() == size) {
                encoder.feed(&picture, tick, now);
            }
        }
        for encoder in self.encoders.values_mut().filter(|encoder| encoder.size() == canvas.size()) {
            encoder.feed(&canvas, tick, now);
        }
    }

    /// Says that all goes on, if the sound does too.
    fn pulse(&mut self, now: Instant) {
        let ticks = (self.sound_ticks)();
        self.ticks_of_sound += ticks;
        self.pulsed = now;
        if ticks > 0
            && let Err(error) = self.outlet.say(&FromMixer::Pulse)
        {
            tracing::error!(%error, "a pulse cannot be told");
        }
    }

    /// Looks back on the last second, and tells.
    fn tell_elements(&mut self) {
        let encoders = elements(&self.encoders);
        if encoders == self.elements {
            return;
        }
        tracing::warn!(?encoders, "hardware gave up, the mix is encoded otherwise");
        self.elements.clone_from(&encoders);
        if let Err(error) = self.outlet.say(&FromMixer::Encoders { encoders }) {
            tracing::error!(%error, "what encodes cannot be told");
        }
    }

    fn review(&mut self, now: Instant) {
        for encoder in self.encoders.values_mut() {
            encoder.check(now);
        }
        self.tell_elements();
        let (late, work) = self.punctuality.take();
        let late = late + std::mem::take(&mut self.skipped);
        let before = self.pace.frames_per_second();
        self.pace.review(std::mem::take(&mut self.ticks), late, work);
        if before != self.pace.frames_per_second() {
            tracing::info!(
                frames_per_second = self.pace.frames_per_second(),
                late,
                "a mixer changes its pace"
            );
            self.punctuality.set_interval(self.pace.interval());
        }
        let cpu = process::cpu_time();
        let elapsed_s = now.saturating_duration_since(self.reviewed).as_secs_f64();
        let undecodable = {
            let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            feeds.values().map(|feed| feed.take_undecodable()).sum()
        };
        let figures = Figures {
            frames: std::mem::take(&mut self.frames),
            frames_late: late,
            frames_left_out: self.punctuality.take_left_out(),
            sound_ticks: std::mem::take(&mut self.ticks_of_sound),
            undecodable,
            cpu: cpu.saturating_sub(self.cpu_before).as_secs_f64() / elapsed_s,
            rss_bytes: process::rss_bytes(),
            frames_per_second: self.pace.frames_per_second(),
        };
        (self.cpu_before, self.reviewed) = (cpu, now);
        let dropped = self.outlet.take_dropped();
        if dropped > 0 {
            tracing::warn!(dropped, "the node does not take all of a mixer's packets");
        }
        if let Err(error) = self.outlet.say(&FromMixer::Figures(figures)) {
            tracing::error!(%error, "figures cannot be told");
        }
    }
}

fn shown(feeds: &Feeds, slot: u16, now: Instant) -> Option<Arc<Frame>> {
    let feed = feeds.lock().unwrap_or_else(PoisonError::into_inner).get(&slot).map(Arc::clone);
    feed.and_then(|feed| feed.at(now))
}
