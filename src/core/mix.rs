//! What a room and its mixer tell each other (MCU mode, RFC 3550 §2.3 mixer).
//!
//! The mixer is a participant: it receives what is to be decoded in slots, as any receiver, and publishes the
//! result on lines of its own. The room decides who is seen where and who is heard by whom, and says so as a
//! [`Scene`]; the mixer carries it out. A scene is whole and replaces the one before, so none needs to be
//! told twice.

pub mod backdrop;
pub mod colour;
pub mod layout;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::payload::Codec;
use backdrop::Backdrop;

/// The mixer's line of each kind. Those from [`LINE_MINUS`] on are one speaker's each.
pub const LINE_VP8: u8 = 0;
pub const LINE_H264: u8 = 1;
/// All voices, for those who only listen.
pub const LINE_SOUND: u8 = 2;
/// All voices but one's own.
pub const LINE_MINUS: u8 = 3;

/// A picture's encodings, lowest first: their RIDs.
pub const RENDITIONS: [&str; 2] = ["l", "h"];

/// What a mixer is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MixSettings {
    pub canvas: Size,
    pub frames_per_second: u32,
    /// Of the encodings in [`RENDITIONS`], lowest first. The last is of the canvas's size.
    pub renditions: [Rendition; RENDITIONS.len()],
    /// It runs on no more cores than this at a time.
    pub cores_max: u32,
}

impl Default for MixSettings {
    /// 720p at 30 frames a second, and 360p for slow viewers.
    fn default() -> Self {
        Self {
            canvas: Size { width: 1_280, height: 720 },
            frames_per_second: 30,
            renditions: [
                Rendition { size: Size { width: 640, height: 360 }, bitrate_bps: 500_000 },
                Rendition { size: Size { width: 1_280, height: 720 }, bitrate_bps: 1_800_000 },
            ],
            cores_max: 4,
        }
    }
}

/// Pixels; both even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendition {
    pub size: Size,
    /// What its encoder may use at most.
    pub bitrate_bps: u64,
}

/// What is to be seen and heard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// Behind and between the tiles: 0xRRGGBB.
    pub background: u32,
    /// Painted in this order.
    pub tiles: Vec<Tile>,
    pub voices: Vec<Voice>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tile {
    /// Whose it is. A tile that is in two scenes in a row moves from its old place to its new one.
    pub key: u32,
    /// Where its pictures come in; without one, or before the first came, an avatar is shown.
    pub slot: Option<u16>,
    /// What comes in there: with another one, what came before is of no use any more.
    pub serial: u64,
    /// The slot of the sound that belongs to it: the two are kept in step.
    pub sound: Option<u16>,
    pub area: Area,
    pub fit: Fit,
    /// The name on it; empty: none.
    pub label: String,
    /// Its owner's microphone is off.
    pub muted: bool,
    /// Its owner is heard.
    pub speaking: bool,
}

/// A rectangle on the canvas, in pixels, all even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// How a picture of another shape is put into its area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Fills it; edges are cut off.
    Cover,
    /// All of it is seen, with bars.
    Contain,
}

/// Sound that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voice {
    pub slot: u16,
    /// As of a tile.
    pub serial: u64,
    /// Whose it is: of the tiles' keys.
    pub key: u32,
    /// The line that carries all voices but those of this key. `None`: its owner does not listen to the mix.
    pub minus: Option<u8>,
}

/// Tells a mixer something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToMixer {
    /// First of all, and once.
    Begin(MixSettings),
    Scene(Box<Scene>),
    /// A part of the picture behind the tiles, in their order.
    Backdrop(BackdropPart),
    /// None is to be there any more.
    NoBackdrop,
    /// Somebody needs a key frame of an encoding.
    Keyframe {
        line: u8,
        encoding: u8,
    },
    /// Which encodings of a line somebody takes, a bit each; others need not be made.
    Wanted {
        line: u8,
        encodings: u32,
    },
    /// What an encoding may use: what its slowest receiver can take.
    Bitrate {
        line: u8,
        encoding: u8,
        bps: u64,
    },
}

/// A file that is too large for one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackdropPart {
    pub format: backdrop::Format,
    /// What came before belongs to another one.
    pub is_first: bool,
    pub is_last: bool,
    /// RFC 4648 §4.
    pub base64: String,
}

impl BackdropPart {
    /// So many bytes go into one.
    const BYTES: usize = 32 * 1024;

    /// A whole file.
    pub fn of(backdrop: &Backdrop) -> impl Iterator<Item = Self> {
        let parts = backdrop.bytes.chunks(Self::BYTES);
        let last = parts.len().saturating_sub(1);
        parts.enumerate().map(move |(index, bytes)| Self {
            format: backdrop.format,
            is_first: index == 0,
            is_last: index == last,
            base64: BASE64.encode(bytes),
        })
    }
}

/// What a room has done with its mixer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MixerOrder {
    Start(MixSettings),
    Tell(ToMixer),
    Stop,
}

/// What a mixer tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromMixer {
    /// It mixes from now on.
    Ready {
        /// Elements that encode, such as `vp8enc`, each once, in the order of the lines.
        encoders: Vec<String>,
    },
    /// It encodes with other elements from now on, as hardware gave up.
    Encoders { encoders: Vec<String> },
    /// The decoder of a slot needs a key frame.
    Keyframe { slot: u16 },
    /// Several times a second, while its picture and its sound both go on. A mixer of which nothing is heard
    /// is done without, and after a while taken for hung.
    Pulse,
    /// Every second.
    Figures(Figures),
    /// It is no more.
    Gone,
    /// There will be none: the node has none, or no room for one more.
    Refused,
}

/// What a mixer did in the last second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Figures {
    /// Pictures composed.
    pub frames: u32,
    /// Of these: ready more than one frame's time late.
    pub frames_late: u32,
    /// Left out to keep a bitrate, in all encodings that are made.
    pub frames_left_out: u32,
    /// 20 ms of sound each.
    pub sound_ticks: u32,
    /// Packets for slots that could not be decoded.
    pub undecodable: u32,
    /// Cores used.
    pub cpu: f64,
    pub rss_bytes: u64,
    /// Frames a second it makes now; fewer than set under pressure.
    pub frames_per_second: u32,
}

/// A packet of one of the mixer's slots, or of one of its lines' encodings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixPacket {
    pub place: Place,
    pub codec: Codec,
    /// RTP's sequence number, extended.
    pub seq_no: u64,
    pub rtp_time: u32,
    /// When it was captured, in microseconds since the Unix epoch: of a slot by the clock of its sender, once
    /// that has told it (RFC 3550 §6.4.1); of a line by this machine's.
    pub captured_us: Option<i64>,
    pub marker: bool,
    pub payload: Arc<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Goes to the mixer.
    Slot(u16),
    /// Goes to the recorder: of this encoding of this publication, by way of this slot.
    Track { slot: u16, serial: u32, encoding: u8 },
    /// Comes from it.
    Line { line: u8, encoding: u8 },
}
