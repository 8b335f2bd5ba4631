//! A room's programme as a stream: what leaves the room for ordinary players (HLS) and for other services
//! (restreams).
//!
//! A stream is another taker of the mix (`super::mix`). Its packets go to a process that cuts them into parts
//! ([`cut`]) or pushes them on. The node keeps a ring of parts for each track ([`shelf`]), writes playlists
//! of it ([`playlist`]) and says when a request is to wait ([`reload`]).

pub mod assemble;
pub mod cut;
pub mod playlist;
pub mod reload;
pub mod retry;
pub mod shelf;
pub mod target;

use serde::{Deserialize, Serialize};

use super::mix::{LINE_H264, LINE_SOUND, MixPacket, Place};
use super::payload::VIDEO_CLOCK_RATE;

/// No part is longer (`EXT-X-PART-INF`). After a key frame the mixer may leave out half a second of pictures.
pub const PART_MS: u64 = 500;
/// Segments begin on a grid of this, each with a key frame.
pub const SEGMENT_MS: u64 = 2_000;
/// No segment is longer, rounded to seconds (`EXT-X-TARGETDURATION`).
pub const TARGET_S: u64 = 3;
/// Samples a second of all sound here.
pub const SOUND_CLOCK_RATE: u32 = 48_000;

/// What a player chooses from, and fetches by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Track {
    /// The full picture.
    High,
    /// The small one.
    Low,
    Sound,
}

impl Track {
    pub const ALL: [Self; 3] = [Self::High, Self::Low, Self::Sound];

    /// As it stands in addresses.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
            Self::Sound => "sound",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|track| track.name() == name)
    }

    /// Ticks a second of its media time.
    pub fn timescale(self) -> u32 {
        match self {
            Self::High | Self::Low => VIDEO_CLOCK_RATE,
            Self::Sound => SOUND_CLOCK_RATE,
        }
    }

    /// Of which track a packet of the mix is, if of any.
    pub fn of(packet: &MixPacket) -> Option<Self> {
        match packet.place {
            Place::Line { line: LINE_H264, encoding: 0 } => Some(Self::Low),
            Place::Line { line: LINE_H264, encoding: 1 } => Some(Self::High),
            Place::Line { line: LINE_SOUND, .. } => Some(Self::Sound),
            Place::Line { .. } | Place::Slot(_) | Place::Track { .. } => None,
        }
    }

    /// Which encoding of the mixer's H.264 it is.
    pub fn encoding(self) -> Option<u8> {
        match self {
            Self::Low => Some(0),
            Self::High => Some(1),
            Self::Sound => None,
        }
    }
}

/// Who takes what of the mix, beside those in the room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Takers {
    /// The room is streamed by HLS.
    pub hls: bool,
    /// Services that it is pushed to.
    pub restreams: u32,
}

impl Takers {
    pub fn any(self) -> bool {
        self.hls || self.restreams > 0
    }

    /// Encodings of the mixer's H.264 that are taken, a bit each.
    pub fn pictures(self) -> u32 {
        u32::from(self.any()) << 1 | u32::from(self.hls)
    }
}

/// What a streaming process is for. Said first of all, and once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Parts of all tracks, given back.
    Parts,
    /// RTMP to a relay of the node's, which knows where it goes.
    Push(Push),
}

/// An RTMP publication (Adobe's RTMP 1.0, §7.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Of the relay, on this machine.
    pub port: u16,
    /// What the server is told that it was called by.
    pub tc_url: String,
    pub app: String,
    /// The stream's key: a secret.
    pub play_path: String,
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Push").field("port", &self.port).finish_non_exhaustive()
    }
}

/// What a streaming process tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromStream {
    /// It needs a key frame of this track.
    Keyframe(Track),
    /// What a player needs before parts of an era; its bytes follow.
    Init(Init),
    /// Its bytes follow.
    Part(Part),
    /// It pushes: the server took the publication.
    Pushing,
}

/// The initialisation of a track (ISO/IEC 14496-12, `ftyp` and `moov`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    pub track: Track,
    pub era: u32,
    /// RFC 6381, such as `avc1.42e01f`.
    pub codec: String,
    /// Of a picture, in pixels.
    pub size: Option<(u32, u32)>,
    pub bytes: u32,
}

/// A part of a segment: one `moof` and its `mdat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub track: Track,
    /// Grows where time or parameters jump: a discontinuity, in all tracks.
    pub era: u32,
    /// The first of its segment.
    pub begins: bool,
    /// The last of its segment.
    pub ends: bool,
    /// A decoder may begin with it.
    pub independent: bool,
    /// In ticks of its track.
    pub duration: u32,
    /// When its first frame was captured, in microseconds since the Unix epoch.
    pub captured_us: i64,
    pub bytes: u32,
}

impl Part {
    pub fn seconds(&self) -> f64 {
        f64::from(self.duration) / f64::from(self.track.timescale())
    }
}

/// Where a restream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushState {
    Connecting,
    Live,
    /// It failed, and is tried again.
    Retrying,
    /// It was given up.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_taken_is_made() {
        let takers = |hls, restreams| Takers { hls, restreams };
        assert_eq!((takers(false, 0).pictures(), takers(false, 0).any()), (0, false));
        assert_eq!((takers(true, 0).pictures(), takers(true, 2).pictures()), (0b11, 0b11));
        assert_eq!(takers(false, 1).pictures(), 0b10, "a push takes the full picture alone");
    }

    #[test]
    fn a_track_is_known_by_its_name() {
        assert!(Track::ALL.into_iter().all(|track| Track::parse(track.name()) == Some(track)));
        assert_eq!(Track::parse("middle"), None);
    }

    #[test]
    fn a_key_is_not_shown() {
        let (tc_url, app) = ("rtmp://live.example.org/app".to_owned(), "app".to_owned());
        let push = Push { port: 1, tc_url, app, play_path: "tell-nobody".into() };
        assert!(!format!("{:?}", Task::Push(push)).contains("tell"));
    }
}
