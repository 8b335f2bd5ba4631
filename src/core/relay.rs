//! What the home of a room and its branches tell each other.
//!
//! A room has one home, which holds its state. Where its viewers are more than the home should serve, or far
//! from it, some are seated in a *branch*: a room of the same name on another shard of this node or of
//! another, in which the home's publishers are seated as well, without a connection. The home sends a branch
//! one copy of each encoding that somebody there wants, and a [`Mirror`] of who publishes what; the branch
//! asks for encodings and key frames, merged over its viewers.
//!
//! A branch at another node may have *lodgers*, too: members whose connection ends there and whose seat is at
//! the home. Of what they send the home asks the branch as the branch asks of all else, and all that is said
//! to them and by them goes by way of the home, see [`members`].
//!
//! Whatever is told may be told twice or late: a mirror is whole, a demand replaces the one before, and both
//! name the publication by a serial that is never used again.

pub mod budget;
pub mod members;
pub mod merge;
pub mod resend;
pub mod wire;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use str0m::media::{Mid, Rid};

use super::event::CloseReason;
use super::format::Format;
use super::ids::{Identity, SessionId, Site};
use super::payload::DescriptorBytes;
use super::protocol::{LeaveReason, RoomState, ServerMessage, Source};
use super::replay::Rare;
use super::room::ParticipantKey;
use super::track::PublishedLine;
use members::{Attach, Figures, FromLodger, Seating};

/// From the home to a branch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Downstream {
    Mirror(Box<Mirror>),
    /// Whoever watches there under this name goes.
    Dismiss {
        identity: Identity,
        reason: LeaveReason,
    },
    /// The room is over.
    Ended(CloseReason),
    /// The answer to [`Upstream::Attach`].
    Seating {
        #[serde(with = "wire::session")]
        session: SessionId,
        seating: Seating,
    },
    /// For the `control` channels of these lodgers.
    Tell {
        to: Vec<ParticipantKey>,
        message: Box<ServerMessage>,
    },
    /// A lodger is in the room, who had waited in the lobby.
    Admitted {
        seat: ParticipantKey,
    },
    /// A lodger has no seat any more.
    Unseated {
        seat: ParticipantKey,
        reason: LeaveReason,
    },
    /// Encodings of a lodger's publication that somebody takes who is not in the branch, a bit each.
    Demand {
        seat: ParticipantKey,
        line: u8,
        serial: u64,
        encodings: u32,
    },
    /// Of a lodger, for somebody who is not in the branch.
    Keyframe {
        seat: ParticipantKey,
        #[serde(with = "wire::mid")]
        mid: Mid,
        #[serde(with = "wire::rid")]
        rid: Option<Rid>,
    },
    /// How do those fare who lodge there?
    Look,
    /// What the branch's own node says of the way to the home. It crosses no link.
    Way(Way),
}

/// How the way to the home is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// It stands: lodgers ask for their seats. The home `seats` them, or is of a version that does not.
    Open { seats: bool },
    /// It is lost. What is said meanwhile waits.
    Lost,
    /// The room goes on under another epoch: what was known of seats at its home means nothing any more.
    Moved,
    /// Nobody has the room: lodgers are to join anew, so that somebody has.
    Orphaned,
}

/// All that a branch knows of its room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mirror {
    pub state: RoomState,
    /// Seated at the home and in other branches.
    pub viewers_elsewhere: u32,
    pub publishers: Vec<MirroredPublisher>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MirroredPublisher {
    /// Its seat at the home. A seat is reused, so it means somebody only together with the identity.
    pub seat: ParticipantKey,
    pub identity: Identity,
    pub name: String,
    pub lines: Vec<PublishedLine>,
    /// Of each line.
    pub tracks: Vec<Option<MirroredTrack>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MirroredTrack {
    /// Of this publication.
    pub serial: u64,
    pub source: Source,
    /// One that only a newer version knows is none: nobody here could take it.
    #[serde(default, deserialize_with = "wire::known")]
    pub format: Option<Format>,
    pub muted: bool,
    pub silenced: bool,
    pub height_told: Option<u32>,
}

/// From a branch to its home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// The branch is there, and knows nothing yet.
    Opened,
    /// Encodings of a publication that somebody in the branch takes, a bit each; none: nothing more of it.
    Demand { seat: ParticipantKey, line: u8, serial: u64, encodings: u32 },
    Keyframe {
        seat: ParticipantKey,
        #[serde(with = "wire::mid")]
        mid: Mid,
        #[serde(with = "wire::rid")]
        rid: Option<Rid>,
    },
    /// People in the branch.
    Viewers(u32),
    /// Somebody there has proved to be this one: its connections elsewhere make way.
    Proven(Identity),
    /// The branch is no more.
    Closed,
    /// A lodger asks for its seat.
    Attach(Box<Attach>),
    Lodger {
        #[serde(with = "wire::session")]
        session: SessionId,
        news: FromLodger,
    },
    /// The answer to [`Downstream::Look`], of some of those who lodge there.
    Figures(Vec<Figures>),
}

/// A branch as its home knows it.
#[derive(Debug, Clone, Copy)]
pub struct Branch {
    pub site: Site,
    pub viewers: u32,
}

/// A packet as it came in at the home, on its way to a branch at another node; or as it came in there from a
/// lodger, on its way home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its sender's seat at the home.
    pub origin: ParticipantKey,
    pub line: u8,
    pub encoding: u8,
    pub format: Format,
    /// Extended sequence number.
    pub seq_no: u64,
    pub rtp_time: u32,
    pub marker: bool,
    /// RFC 6464: −dBov, 0 loudest, and the voice flag.
    pub audio_level: Option<(u8, bool)>,
    pub descriptor: Option<DescriptorBytes>,
    pub rare: Option<Box<Rare>>,
    pub payload: Arc<[u8]>,
}

/// What a member sends over its `lossy` channel, for the channels of all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Its sender's seat at the home.
    pub origin: ParticipantKey,
    pub is_binary: bool,
    pub bytes: Arc<[u8]>,
}

/// What crosses between a shard and a link to another node.
#[derive(Debug, Clone)]
pub enum Cargo {
    /// May be lost. Down to a branch, or up to its home.
    Packets(Vec<Packet>),
    /// Likewise.
    Data(Data),
    Down(Downstream),
    Up(Upstream),
}
