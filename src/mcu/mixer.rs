//! The mixer's process: reads the node's messages and hands each to whom it concerns.
//!
//! `ingest` decodes each slot; `video` composes a picture each tick on a thread of its own and `encoder`
//! encodes it; `sound` does the same for voices; `outlet` writes to the socket. The process ends when the
//! node closes the socket, without tidying up: a decoder that hangs must not keep it.

mod backdrop;
mod budget;
mod clock;
mod encoder;
mod ingest;
mod label;
mod outlet;
mod pace;
pub mod painter;
pub mod picture;
pub mod scale;
mod sign;
mod sound;
mod step;
mod video;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use backdrop::Parts;
use clock::Clock;
use ingest::Ingest;
use outlet::Outlet;
use sound::Sound;
use step::{Hold, Step};
pub use video::h264_encoder;
use video::{Command, Feeds, Video, VideoError};

use super::graph::{self, GraphError};
use crate::core::mix::{FromMixer, LINE_SOUND, MixPacket, MixSettings, Place, Scene, ToMixer};
use crate::core::payload::Codec;
use crate::worker::process;
use crate::worker::wire::{self, MESSAGE_BYTES_MAX, Message, WireError};

/// How often decoders are looked after.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// What a picture takes from its last packet to the canvas, beside its wait for the next tick.
const DECODE_TIME: Duration = Duration::from_millis(5);
/// Slots that decode at a time. More: their packets are dropped.
const SLOTS_MAX: usize = 64;
/// Of writable memory. A stream that makes a decoder ask for more costs its own room a mixer, not the node
/// its memory.
const MEMORY_BYTES_MAX: u64 = 3 << 30;
/// The element that encodes sound.
const SOUND_ENCODER: &str = "opusenc";

/// Why a mixer ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum MixerError {
    #[error("a mixer is started by a node, with a socket as its standard input: {0}")]
    NoSocket(std::io::Error),
    #[error("the node's messages cannot be read: {0}")]
    Read(std::io::Error),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(transparent)]
    Video(#[from] VideoError),
    #[error("no thread is to be had: {0}")]
    NoThread(std::io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the canvas or a rendition has no size")]
    NoSize,
}

/// Mixes until the node closes the socket.
///
/// # Errors
/// [`MixerError`]: it was started by hand, or the machine lacks what it needs.
pub fn run() -> Result<(), MixerError> {
    let socket = process::inherited_socket().map_err(MixerError::NoSocket)?;
    process::limit(MEMORY_BYTES_MAX);
    graph::start()?;
    let outlet = Outlet::default();
    let (writer, exit) = (outlet.clone(), socket.try_clone().map_err(MixerError::NoSocket)?);
    let write = move || {
        writer.write_to(&exit);
        // Wakes the reader: a node that does not take what it is told is gone.
        let _ = exit.shutdown(std::net::Shutdown::Both);
    };
    thread::Builder::new().name("outlet".into()).spawn(write).map_err(MixerError::NoThread)?;
    socket.set_read_timeout(Some(CHECK_INTERVAL)).map_err(MixerError::NoSocket)?;
    read_all(&socket, &outlet)
}

/// Reads until the socket is closed.
fn read_all(mut socket: &Socket, outlet: &Outlet) -> Result<(), MixerError> {
    let mut mixer = None;
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut checked = Instant::now();
    let end = loop {
        match socket.read(&mut bytes) {
            Ok(0) => break Ok(()),
            Ok(length) => match wire::read(&bytes[..length]) {
                Ok(message) => {
                    if let Err(error) = Mixer::handle(&mut mixer, message, outlet) {
                        break Err(error);
                    }
                }
                Err(error) => tracing::warn!(%error, "a message of the node is not understood"),
            },
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break Ok(()),
            Err(error) => break Err(MixerError::Read(error)),
        }
        let now = Instant::now();
        if now.saturating_duration_since(checked) >= CHECK_INTERVAL {
            checked = now;
            if let Some(Err(error)) = mixer.as_mut().map(|mixer| mixer.check(now)) {
                break Err(error);
            }
        }
    };
    // See above: stopping graphs may take for ever.
    std::mem::forget(mixer);
    end
}

/// A mixer that has begun.
struct Mixer {
    video: Video,
    sound: Arc<Sound>,
    step: Step,
    backdrop: Parts,
    /// How long pictures take here that are not held.
    picture_delay: Duration,
    ingests: BTreeMap<u16, Ingest>,
    feeds: Feeds,
    /// What comes into each slot.
    serials: BTreeMap<u16, u64>,
    outlet: Outlet,
}

impl Mixer {
    fn begin(settings: MixSettings, outlet: &Outlet) -> Result<Self, MixerError> {
        let sizes = settings.renditions.iter().map(|rendition| rendition.size).chain([settings.canvas]);
        if sizes.into_iter().any(|size| size.width < 2 || size.height < 2) {
            return Err(MixerError::NoSize);
        }
        process::keep_to_cores(settings.cores_max);
        let line = outlet.clone();
        let clock = Clock::start();
        let sound = Arc::new(Sound::start(clock, move |packet| line.send(&packet))?);
        let feeds = Feeds::default();
        let ticking = Arc::clone(&sound);
        let ticks = Box::new(move || ticking.take_ticks());
        let video = Video::start(settings, clock, Arc::clone(&feeds), outlet.clone(), ticks)?;
        let encoders = video.encoders.iter().cloned().chain([SOUND_ENCODER.to_owned()]).collect();
        tracing::info!(?encoders, "a mixer begins");
        outlet.say(&FromMixer::Ready { encoders })?;
        let (ingests, serials) = (BTreeMap::new(), BTreeMap::new());
        // A picture waits for half of the time between two ticks on average.
        let picture_delay = DECODE_TIME + Duration::from_secs(1) / settings.frames_per_second.max(1) / 2;
        let (step, outlet) = (Step::new(clock.epoch), outlet.clone());
        let backdrop = Parts::default();
        Ok(Self { video, sound, step, backdrop, picture_delay, ingests, feeds, serials, outlet })
    }

    fn handle(
        mixer: &mut Option<Self>,
        message: Message<ToMixer>,
        outlet: &Outlet,
    ) -> Result<(), MixerError> {
        match (mixer, message) {
            (mixer @ None, Message::Words(ToMixer::Begin(settings))) => {
                *mixer = Some(Self::begin(settings, outlet)?);
            }
            (Some(mixer), Message::Words(words)) => mixer.handle_words(words),
            (Some(mixer), Message::Packet(packet)) => mixer.handle_packet(packet),
            // Packets before it began have nowhere to go.
            (None, _) => {}
        }
        Ok(())
    }

    fn handle_words(&mut self, words: ToMixer) {
        match words {
            ToMixer::Begin(_) => tracing::warn!("a mixer is told to begin twice"),
            ToMixer::Scene(scene) => {
                self.sound.set_voices(&scene.voices);
                self.note_serials(&scene);
                self.step.set_scene(&scene);
                self.video.tell(Command::Scene(scene));
            }
            ToMixer::Backdrop(part) => {
                if let Some(file) = self.backdrop.push(&part) {
                    let (commands, serial) = (self.video.commands.clone(), self.backdrop.next_serial());
                    backdrop::decode(part.format, file, move |picture| {
                        // Without its thread the mixer has no pulse, and the node ends it.
                        let _ = commands.send(Command::Backdrop { serial, picture: Some(picture) });
                    });
                }
            }
            ToMixer::NoBackdrop => {
                let serial = self.backdrop.next_serial();
                self.video.tell(Command::Backdrop { serial, picture: None });
            }
            ToMixer::Keyframe { line, encoding } => self.video.tell(Command::Keyframe { line, encoding }),
            ToMixer::Wanted { line, encodings } if line >= LINE_SOUND => {
                self.sound.set_wanted(line, encodings != 0);
            }
            ToMixer::Wanted { line, encodings } => self.video.tell(Command::Wanted { line, encodings }),
            ToMixer::Bitrate { line, encoding, bps } => {
                self.video.tell(Command::Bitrate { line, encoding, bps });
            }
        }
    }

    /// Nobody is shown by a picture of whoever had their slot before.
    fn note_serials(&mut self, scene: &Scene) {
        let tiles = scene.tiles.iter().filter_map(|tile| Some((tile.slot?, tile.serial)));
        let voices = scene.voices.iter().map(|voice| (voice.slot, voice.serial));
        for (slot, serial) in tiles.chain(voices) {
            if self.serials.insert(slot, serial).is_some_and(|before| before != serial) {
                self.step.forget(slot);
                self.ingests.get(&slot).into_iter().for_each(|ingest| ingest.feed().forget());
            }
        }
    }

    fn handle_packet(&mut self, packet: MixPacket) {
        let Place::Slot(slot) = packet.place else { return };
        let now = Instant::now();
        if let Some(captured_us) = packet.captured_us.filter(|_| packet.marker || packet.codec == Codec::Opus)
        {
            self.step.note(now, slot, captured_us);
        }
        match packet.codec {
            Codec::Opus => self.sound.handle_packet(packet),
            // Nothing here asks senders for redundant sound.
            Codec::Red => {}
            Codec::Vp8 | Codec::Vp9 | Codec::H264 | Codec::Av1 => {
                if !self.ingests.contains_key(&slot) {
                    if self.ingests.len() >= SLOTS_MAX {
                        return;
                    }
                    let ingest = Ingest::new(slot);
                    let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
                    feeds.insert(slot, ingest.feed());
                    drop(feeds);
                    self.ingests.insert(slot, ingest);
                }
                if let Some(ingest) = self.ingests.get_mut(&slot) {
                    ingest.handle_packet(packet, now);
                }
            }
        }
    }

    /// Holds back whichever is ahead of each sender's sound and picture.
    fn keep_in_step(&self) {
        let holds: Vec<Hold> = self.step.holds(|slot| self.sound.delay(slot), self.picture_delay).collect();
        for hold in &holds {
            self.ingests
                .get(&hold.picture_slot)
                .into_iter()
                .for_each(|ingest| ingest.feed().hold(hold.picture));
        }
        self.sound.set_holds(holds.iter().map(|hold| (hold.sound_slot, hold.sound)));
    }

    /// Looks after all decoders, and keeps them in step.
    fn check(&mut self, now: Instant) -> Result<(), MixerError> {
        self.keep_in_step();
        for (slot, ingest) in &mut self.ingests {
            if ingest.check(now) {
                self.outlet.say(&FromMixer::Keyframe { slot: *slot })?;
            }
        }
        Ok(())
    }
}
