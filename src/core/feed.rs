//! What comes into a room without a connection: a file that is played, a stream that an encoder pushes.
//!
//! A *feed* is a participant whose packets a process of the node makes. The node says what the process is to
//! do ([`ToFeed`]); it says what became of it ([`FromFeed`]). Pictures and sound have a line each.

use serde::{Deserialize, Serialize};

use super::protocol::{Kind, Source};
use super::track::PublishedLine;
use str0m::media::Mid;

/// The lines of a feed, whichever of them it has.
pub const LINE_PICTURE: u8 = 0;
pub const LINE_SOUND: u8 = 1;

/// What a feed's process may use, and whether what it reads can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedSettings {
    /// It comes as it is made: it is passed on at once, and cannot be paused or sought in.
    pub live: bool,
    /// Of a picture that is coded anew.
    pub height_max: u32,
    pub bitrate_bps: u64,
    pub frames_per_second_max: u32,
    /// A picture of more is coded anew: its room would not take it.
    pub copied_bps_max: u64,
    /// It runs on no more cores than this at a time.
    pub cores_max: u32,
}

/// Tells a feed's process something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToFeed {
    /// First of all, and once.
    Begin(FeedSettings),
    /// It has a seat: what it makes is taken from now on.
    Start,
    /// Of a file: what is absent stays. Answered by [`FromFeed::Position`] with this number.
    Change { number: u64, paused: Option<bool>, to_ms: Option<u64> },
    /// Somebody needs a key frame.
    Keyframe,
}

/// What a feed's process tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromFeed {
    /// It knows what it reads, and waits for [`ToFeed::Start`].
    Ready(FeedMedia),
    /// Every second, and after a change.
    Position {
        /// Of the last change that was carried out.
        number: u64,
        paused: bool,
        at_ms: u64,
    },
    /// In the last second.
    Figures(FeedFigures),
    /// All was played.
    Ended,
    /// It cannot go on, or begin.
    Failed(FeedFault),
    /// It is no more.
    Gone,
}

/// What was found in a file or a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedMedia {
    pub picture: bool,
    pub sound: bool,
    /// The picture goes on as it is, without being coded anew.
    pub is_copied: bool,
    /// Of a file, where it says so.
    pub duration_ms: Option<u64>,
}

/// Why there is nothing to see or hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum FeedFault {
    #[error("this is no file of sound or video that can be read, or it is broken")]
    Unreadable,
    #[error("there is neither sound nor video in it")]
    Empty,
    #[error("its codec is not among those that can be decoded here")]
    Undecodable,
    #[error("this server lacks an encoder for it")]
    NoEncoder,
}

/// What a feed's process did in the last second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedFigures {
    /// Thousandths of a second of one core.
    pub cpu_ms: u64,
    pub rss_bytes: u64,
    /// Pictures that were left out, as they would have come too late.
    pub left_out: u64,
}

/// What a room asks of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedOrder {
    Keyframe,
}

/// A file that is played, as everyone in the room sees it. While it is not paused it is at
/// `position_ms` plus what has passed since `at_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Playing {
    /// Names it in the API.
    pub id: String,
    pub paused: bool,
    #[cfg_attr(test, ts(type = "number"))]
    pub position_ms: u64,
    /// Milliseconds since the Unix epoch.
    #[cfg_attr(test, ts(type = "number"))]
    pub at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub duration_ms: Option<u64>,
}

/// The lines that a feed publishes on, by their numbers.
pub fn lines() -> Vec<PublishedLine> {
    let line = |name, kind| PublishedLine { mid: Mid::from(name), kind, rids: Vec::new() };
    vec![line("picture", Kind::Video), line("sound", Kind::Audio)]
}

/// What the two lines carry, of a file and of a live stream. A file is for all to look at, as a screen is.
pub fn sources(live: bool) -> [Source; 2] {
    if live { [Source::Camera, Source::Microphone] } else { [Source::Screen, Source::ScreenAudio] }
}
