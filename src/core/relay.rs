//! What the home of a room and its branches tell each other.
//!
//! A room has one home, which holds its state. Where its viewers are more than the home should serve, some
//! are seated in a *branch*: a room of the same name on another shard, in which the home's publishers are
//! seated as well, without a connection. The home sends a branch one copy of each encoding that somebody
//! there wants, and a [`Mirror`] of who publishes what; the branch asks for encodings and key frames, merged
//! over its viewers.
//!
//! Whatever is told may be told twice or late: a mirror is whole, a demand replaces the one before, and both
//! name the publication by a serial that is never used again.

use str0m::media::{Mid, Rid};

use super::event::CloseReason;
use super::format::Format;
use super::ids::{Identity, ShardId};
use super::protocol::{RoomState, Source};
use super::room::ParticipantKey;
use super::track::PublishedLine;

/// From the home to a branch.
#[derive(Debug, Clone)]
pub enum Downstream {
    Mirror(Box<Mirror>),
    /// The room is over.
    Ended(CloseReason),
}

/// All that a branch knows of its room.
#[derive(Debug, Clone)]
pub struct Mirror {
    pub state: RoomState,
    /// Seated at the home and in other branches.
    pub viewers_elsewhere: u32,
    pub publishers: Vec<MirroredPublisher>,
}

#[derive(Debug, Clone)]
pub struct MirroredPublisher {
    /// Its seat at the home. A seat is reused, so it means somebody only together with the identity.
    pub seat: ParticipantKey,
    pub identity: Identity,
    pub name: String,
    pub lines: Vec<PublishedLine>,
    /// Of each line.
    pub tracks: Vec<Option<MirroredTrack>>,
}

#[derive(Debug, Clone)]
pub struct MirroredTrack {
    /// Of this publication.
    pub serial: u64,
    pub source: Source,
    pub format: Option<Format>,
    pub muted: bool,
    pub silenced: bool,
    pub height_told: Option<u32>,
}

/// From a branch to its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// The branch is there, and knows nothing yet.
    Opened,
    /// Encodings of a publication that somebody in the branch takes, a bit each; none: nothing more of it.
    Demand {
        seat: ParticipantKey,
        line: u8,
        serial: u64,
        encodings: u32,
    },
    Keyframe {
        seat: ParticipantKey,
        mid: Mid,
        rid: Option<Rid>,
    },
    /// People in the branch.
    Viewers(u32),
    /// The branch is no more.
    Closed,
}

/// A branch as its home knows it.
#[derive(Debug, Clone, Copy)]
pub struct Branch {
    pub shard: ShardId,
    pub viewers: u32,
}
