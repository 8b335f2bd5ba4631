//! Recordings: what a room and its recorder tell each other, and how packets become files whose times agree.
//!
//! The recorder is a subscriber of the room, in a process of its own: it gets the top layer of each track
//! that may be recorded, or the mix. The room decides which those are, by who may start a recording and by
//! who agreed to be in it ([`ConsentRule`]), and tells the whole of it each time ([`ToRecorder::Tracks`]).
//!
//! Time in a recording is this machine's, counted from its beginning: see [`timeline`].

pub mod captions;
pub mod manifest;
pub mod reorder;
pub mod timeline;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{Identity, RoomName};
use super::protocol::{Kind, Source};

/// Names a recording within its room; also its folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(try_from = "String")]
pub struct RecordingId(String);

impl RecordingId {
    /// Longest; ours have 24.
    const LENGTH_MAX: usize = 40;

    /// `None` for what is no id: it has lower-case letters, digits and dashes, so that it is no path but its
    /// own.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        (plain && (1..=Self::LENGTH_MAX).contains(&text.len())).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RecordingId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a recording's id has 1 to 40 lower-case letters, digits and dashes")
    }
}

impl fmt::Display for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether people are asked before they are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum ConsentRule {
    /// All are told, by a sign that stays; whoever stays is recorded.
    #[default]
    Notice,
    /// Nobody is recorded before they have agreed. The mix, which shows everybody, is not recorded.
    Ask,
}

/// Why a recording is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Somebody stopped it.
    Stopped,
    /// Nobody was left in the room.
    Empty,
    /// The room was closed, or its node went down.
    Closed,
    /// The server's disk is nearly full.
    DiskFull,
    /// It took as much as one recording may.
    TooLarge,
    /// The recorder failed again and again, or none could be had.
    Failed,
}

/// A recording that runs, as everyone in the room sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RecordingState {
    pub id: RecordingId,
    /// Each track is recorded, in a file of its own.
    pub tracks: bool,
    /// The mix is recorded.
    pub mix: bool,
    /// False until its recorder runs, and while a failed one is replaced.
    pub active: bool,
    /// Milliseconds since the Unix epoch.
    #[cfg_attr(test, ts(type = "number"))]
    pub started_at_ms: u64,
    /// Who started it; absent when the API did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub by: Option<Identity>,
}

/// What a recording is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingWish {
    pub id: RecordingId,
    pub tracks: bool,
    pub mix: bool,
}

/// What a recorder is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecorderSettings {
    pub room: RoomName,
    pub recording: RecordingState,
    /// Counts the recorders of this recording, from 1: a later one goes on where an earlier one failed.
    pub part: u32,
    /// The recording's folder; set by the node's shell.
    pub folder: String,
    /// With less free space on its disk it ends.
    pub disk_free_min_bytes: u64,
    /// It takes no more; 0 is no bound.
    pub bytes_max: u64,
}

/// A track that may be recorded, whether or not something comes of it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedTrack {
    /// Of its publication.
    pub serial: u32,
    pub source: Source,
    /// Who sends it.
    pub identity: Identity,
    pub name: String,
}

impl RecordedTrack {
    pub fn kind(&self) -> Kind {
        self.source.kind()
    }
}

/// Tells a recorder something. It ends, and puts its files in order, when its socket is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRecorder {
    /// First of all, and once.
    Begin(Box<RecorderSettings>),
    /// All tracks that may be recorded now. Those that are not named any more have ended.
    Tracks(Vec<RecordedTrack>),
    /// Something that a viewer may want to find again.
    Chapter { at_ms: u64, title: String },
    /// A chat message as it stands now; without text it is gone.
    Chat { id: String, at_ms: u64, name: String, text: String },
    /// Why it will end.
    End { at_ms: u64, reason: EndReason },
}

/// What a recorder tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRecorder {
    /// It records from now on.
    Ready,
    /// Of this track nothing can be written without a key frame.
    Keyframe { serial: u32 },
    /// Every second.
    Figures(Figures),
    /// It cannot go on; what it has is kept.
    Ended { reason: EndReason },
    /// It is no more.
    Gone,
}

/// What a recorder did in the last second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    pub bytes: u64,
    /// Pictures and packets of sound.
    pub units: u64,
    pub packets: u64,
    /// Packets that did not come, in spite of having been asked for.
    pub packets_lost: u64,
    /// Thousandths of a second of one core.
    pub cpu_ms: u64,
    pub rss_bytes: u64,
    /// Files that are written.
    pub files: u32,
}

/// What a room has done with its recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecorderOrder {
    Start(Box<RecorderSettings>),
    Tell(ToRecorder),
    Stop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_no_path() {
        assert!(RecordingId::parse("20261126-101500-7kq2mv").is_some());
        for bad in ["", "..", "a/b", "A", "a.b", "a\0", &"a".repeat(41)] {
            assert_eq!(RecordingId::parse(bad), None, "{bad}");
        }
        assert!(serde_json::from_str::<RecordingId>("\"../x\"").is_err());
    }
}
