//! `recording.json`: what is in a recording's folder. It is the record of it; lists and downloads go by it.

use serde::{Deserialize, Serialize};

use super::{EndReason, RecordedTrack, RecordingId, RecordingState};
use crate::core::ids::{Identity, RoomName};
use crate::core::protocol::{Kind, Source};

/// Its name.
pub const FILE_NAME: &str = "recording.json";
/// What people wrote, and what happened when, beside the tracks.
pub const CHAT: &str = "chat.vtt";
pub const CHAPTERS: &str = "chapters.vtt";
/// Letters of an identity that go into a file's name.
const NAME_CHARS_MAX: usize = 32;

/// How far a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    Recording,
    /// Nothing more comes; its files are put in order.
    Finishing,
    Finished,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Manifest {
    pub version: u32,
    pub id: RecordingId,
    pub room: RoomName,
    pub state: Progress,
    pub tracks: bool,
    pub mix: bool,
    /// Milliseconds since the Unix epoch. Times in its files count from here.
    pub started_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at_ms: Option<u64>,
    /// From its beginning to the end of the last thing in it.
    pub duration_ms: u64,
    /// Why it is over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<EndReason>,
    /// Who started it; absent when the API did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<Identity>,
    pub files: Vec<RecordedFile>,
}

/// One file of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecordedFile {
    pub name: String,
    pub content: Content,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identity: Option<Identity>,
    /// As others saw them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub participant_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub codec: Option<String>,
    /// When the first and the end of the last of it is, from the recording's beginning; also in its
    /// timestamps.
    pub start_ms: u64,
    pub end_ms: u64,
    pub bytes: u64,
    /// Packets that did not come, in spite of having been asked for.
    #[serde(default)]
    pub packets_lost: u64,
    /// It has its length and its index.
    pub complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    Video,
    Audio,
    /// The picture and the sound of all.
    Mix,
    /// WebVTT.
    Chat,
    Chapters,
}

impl From<Kind> for Content {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Audio => Self::Audio,
            Kind::Video => Self::Video,
        }
    }
}

impl Manifest {
    /// Of a recording that begins in this room.
    pub fn new(room: RoomName, recording: RecordingState) -> Self {
        Self {
            version: 1,
            id: recording.id,
            room,
            state: Progress::Recording,
            tracks: recording.tracks,
            mix: recording.mix,
            started_at_ms: recording.started_at_ms,
            ended_at_ms: None,
            duration_ms: 0,
            reason: None,
            by: recording.by,
            files: Vec::new(),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The media type that a file is served as.
    pub fn media_type(name: &str) -> &'static str {
        match name.rsplit('.').next() {
            Some("mkv") => "video/x-matroska",
            Some("mka") => "audio/x-matroska",
            Some("mp4") => "video/mp4",
            Some("vtt") => "text/vtt",
            _ => "application/octet-stream",
        }
    }
}

/// What the file of a track is called: who, what, which; no name that is taken already.
pub fn file_name(track: &RecordedTrack, part: u32, turn: u32) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let who: String = track.identity.as_str().chars().map(plain).take(NAME_CHARS_MAX).collect();
    let what = match track.source {
        Source::Microphone => "microphone",
        Source::Camera => "camera",
        Source::Screen => "screen",
        Source::ScreenAudio => "screen-audio",
        Source::Mix | Source::MixAudio => "mix",
    };
    let ending = if track.kind() == Kind::Video { "mkv" } else { "mka" };
    let more = if (part, turn) == (1, 1) { String::new() } else { format!("-{part}.{turn}") };
    format!("{who}-{what}-{}{more}.{ending}", track.serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_says_whose_it_is_and_is_no_path() {
        let track = |identity: &str| RecordedTrack {
            serial: 7,
            source: Source::ScreenAudio,
            identity: Identity::parse(identity).unwrap(),
            name: String::new(),
        };
        assert_eq!(file_name(&track("alice"), 1, 1), "alice-screen-audio-7.mka");
        assert_eq!(file_name(&track("Zoë/.."), 2, 3), "Zo____-screen-audio-7-2.3.mka");
    }
}
