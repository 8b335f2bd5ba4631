//! The node's one control loop: which rooms are open, on which shard each lives, and who may still come in.
//!
//! Shells talk to it through [`Control`], a cheap handle. What concerns a room is passed on to the room's
//! shard with the asker's reply channel inside, so an answer takes no second hop. The loop never waits for
//! a shard: a full mailbox refuses the request with [`Code::Unavailable`].

use std::net::IpAddr;

pub use crate::core::chat::{HistoryRange, MessagePage};
use crate::core::ids::{Identity, RoomName, SessionId};
use crate::core::protocol::{
    Access, Code, Grant, Mode, ParticipantState, Refusal, RoomChange, RoomState, Source,
};
use crate::core::stats::{RoomStats, RoomSummary};

/// Settings of a room that is about to be made.
#[derive(Debug, Clone, Default)]
pub struct NewRoom {
    /// Absent: a unique, sayable one is generated.
    pub name: Option<RoomName>,
    pub mode: Mode,
    pub access: Access,
    pub lobby: bool,
    /// Absent: the node's limit.
    pub participants_max: Option<u32>,
}

/// How a connection takes part in its room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A participant that sends what it offers and receives into its slots.
    Member,
    /// A WHIP publisher (RFC 9725): sends, receives nothing.
    Publisher,
    /// A WHEP viewer: not seen by others. With an identity it follows that participant, else the programme.
    Viewer { of: Option<Identity> },
}

/// A wish to join, its token already checked.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    pub room: RoomName,
    pub identity: Identity,
    /// What others see; the identity where nothing else was said.
    pub name: String,
    pub grant: Grant,
    pub role: Role,
    /// SDP offer (RFC 8866), as it came.
    pub offer: String,
    /// The session that this connection continues, after its transport was lost.
    pub resume: Option<SessionId>,
    /// A token for this very room was shown: private rooms open to it, locked ones to its admins.
    pub has_token: bool,
    /// The room may be made by this join, with its maker as admin (`--dev` and guest nodes).
    pub may_create: bool,
    /// Whose joins a second are counted. Never logged.
    pub from: IpAddr,
}

/// A join that was granted.
#[derive(Debug, Clone)]
pub struct Joined {
    pub session: SessionId,
    /// SDP answer.
    pub answer: String,
    /// Entity tag of the ICE session (RFC 9725 §4.3.1), quotes included.
    pub etag: String,
}

/// What a `PATCH` of a session did (RFC 9725 §4.3).
#[derive(Debug, Clone)]
pub enum Patched {
    /// Candidates were taken: 204.
    Trickled,
    /// ICE was restarted: 200 with our fragment and its new entity tag.
    Restarted { fragment: String, etag: String },
}

/// The way in for every shell. Each call is one message to the control loop and one back.
#[derive(Clone)]
pub struct Control {}

#[allow(unused_variables)]
impl Control {
    /// A handle with no loop behind it: every call answers `unavailable`, and the node is not ready.
    #[cfg(test)]
    pub(crate) fn unplugged() -> Self {
        Self {}
    }

    /// # Errors
    /// `room_exists`, `node_full`, `draining`.
    pub async fn create_room(&self, new: NewRoom) -> Result<RoomState, Refusal> {
        Err(unavailable())
    }
    pub async fn rooms(&self) -> Result<Vec<RoomSummary>, Refusal> {
        Err(unavailable())
    }
    /// # Errors
    /// `not_found`.
    pub async fn room(&self, room: &RoomName) -> Result<RoomSummary, Refusal> {
        Err(unavailable())
    }
    /// # Errors
    /// `not_found`, `unavailable` for a mode that cannot be had.
    pub async fn change_room(&self, room: &RoomName, change: RoomChange) -> Result<RoomState, Refusal> {
        Err(unavailable())
    }
    /// # Errors
    /// `not_found`.
    pub async fn close_room(&self, room: &RoomName) -> Result<(), Refusal> {
        Err(unavailable())
    }
    /// # Errors
    /// `not_found`, `room_locked`, `room_full`, `room_private`, `rate_limited`, `bad_offer`, `forbidden`,
    /// `node_full`, `draining`.
    pub async fn join(&self, request: JoinRequest) -> Result<Joined, Refusal> {
        Err(unavailable())
    }
    /// Trickle or ICE restart by an SDP fragment (RFC 8840). `if_match` is the `If-Match` header as it came.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed` for an entity tag of an older ICE session, `malformed`.
    pub async fn patch_session(
        &self,
        room: &RoomName,
        session: SessionId,
        if_match: Option<String>,
        fragment: String,
    ) -> Result<Patched, Refusal> {
        Err(unavailable())
    }
    /// # Errors
    /// `not_found`.
    pub async fn leave(&self, room: &RoomName, session: SessionId) -> Result<(), Refusal> {
        Err(unavailable())
    }
    /// # Errors
    /// `not_found`.
    pub async fn participants(&self, room: &RoomName) -> Result<Vec<ParticipantState>, Refusal> {
        Err(unavailable())
    }
    /// # Errors
    /// `not_found`.
    pub async fn remove_participant(&self, room: &RoomName, identity: &Identity) -> Result<(), Refusal> {
        Err(unavailable())
    }
    /// Without a `source`, all of its audio.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn mute_participant(
        &self,
        room: &RoomName,
        identity: &Identity,
        source: Option<Source>,
        by: &Identity,
    ) -> Result<(), Refusal> {
        Err(unavailable())
    }
    /// # Errors
    /// `not_found`.
    pub async fn stats(&self, room: &RoomName) -> Result<RoomStats, Refusal> {
        Err(unavailable())
    }
    /// History outlives its room, so a room that is not open is no error.
    pub async fn messages(
        &self,
        room: &RoomName,
        range: HistoryRange,
        limit: u32,
    ) -> Result<MessagePage, Refusal> {
        Err(unavailable())
    }
    /// False once draining has begun, or while the event log cannot be written.
    pub fn is_ready(&self) -> bool {
        false
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "the node is not ready")
}
