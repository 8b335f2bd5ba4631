//! What the home of a room and a branch tell each other of *lodgers*: members and publishers whose connection
//! ends in the branch, while their seat is at the home.
//!
//! The home knows a lodger by its session, which is never used again; the branch knows it by its seat at the
//! home, as all that the home says of a seat comes in the order in which it was given away.

use serde::{Deserialize, Serialize};

use super::wire;
use crate::core::format::Format;
use crate::core::ids::{Identity, SessionId};
use crate::core::participant::{Entrant, Part};
use crate::core::protocol::{ClientMessage, Grant, LeaveReason, PublishedTrack};
use crate::core::refusal::Refusal;
use crate::core::room::ParticipantKey;
use crate::core::stats::ConnectionStats;
use crate::core::track::PublishedLine;

/// Somebody who is connected in a branch asks for its seat at the home: as a newcomer, with a new connection,
/// or because the link between the two was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    #[serde(with = "wire::session")]
    pub session: SessionId,
    pub identity: Identity,
    pub name: String,
    pub grant: Grant,
    /// It came by WHIP: it has no `control` channel and receives nothing.
    pub only_sends: bool,
    pub has_token: bool,
    /// It was let in before, at the node that had the room then.
    pub returns: bool,
    pub lines: Vec<PublishedLine>,
    /// A new connection takes over from a lost one.
    pub resumes: bool,
    /// What it had, where its connection has outlived the link or the home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// What a lodger has already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Of the room, when it was seated. Its seat is to be found under the same one, and given anew under a
    /// later one.
    pub epoch: u64,
    /// Its connection works.
    pub is_connected: bool,
    /// Its `control` channel is open.
    pub listens: bool,
    /// As it named them last; none where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracks: Option<Vec<PublishedTrack>>,
}

/// What the home answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seating {
    Seated(Box<Seated>),
    /// The home alone can serve it.
    AtHome,
    Refused(Refusal),
}

/// A seat at the home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seated {
    pub seat: ParticipantKey,
    pub epoch: u64,
    pub identity: Identity,
    pub name: String,
    pub grant: Grant,
    /// In the lobby.
    pub waits: bool,
}

/// Of one lodger, to the home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromLodger {
    /// Its `control` channel is open.
    Listens,
    /// Something that it asks over that channel, and the number by which it knows the answer.
    Asks {
        request: Option<u64>,
        message: Box<ClientMessage>,
    },
    /// Its connection failed.
    Lost,
    /// Its connection works, or works again.
    Back,
    Left(LeaveReason),
    /// Packets came of a line that it has not named.
    Sends {
        line: u8,
    },
    /// What the packets of a publication are.
    Format {
        line: u8,
        serial: u64,
        format: Format,
    },
}

/// How the connection of a lodger fares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// At the home.
    pub seat: ParticipantKey,
    pub connection: ConnectionStats,
}

impl Attach {
    /// For a newcomer, or a new connection of one who was here.
    pub fn of(entrant: &Entrant, resumes: bool) -> Self {
        Self {
            session: entrant.session,
            identity: entrant.identity.clone(),
            name: entrant.name.clone(),
            grant: entrant.grant,
            only_sends: entrant.part == Part::Publisher,
            has_token: entrant.has_token,
            returns: entrant.returns,
            lines: entrant.lines.clone(),
            resumes,
            held: None,
        }
    }

    /// Who is to be seated at the home. What it receives is the branch's concern.
    pub fn entrant(&self) -> Entrant {
        Entrant {
            identity: self.identity.clone(),
            name: self.name.clone(),
            grant: self.grant,
            part: self.part(),
            session: self.session,
            has_token: self.has_token,
            returns: self.returns || self.held.is_some(),
            lines: self.lines.clone(),
            slots: Vec::new(),
            seed: 0,
        }
    }

    pub fn part(&self) -> Part {
        if self.only_sends { Part::Publisher } else { Part::Member }
    }
}
