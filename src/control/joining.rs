//! What a join asks for, and what it is answered.

use std::net::IpAddr;

use crate::core::ids::{Identity, RoomName, SessionId};
use crate::core::participant::Seat;
use crate::core::protocol::Grant;

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

/// Why a join came to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    ToBranch,
    ToHome,
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
    /// The seat that it had, for a node that has the room since.
    pub seat: Option<Seat>,
    /// A token for this very room was shown: private rooms open to it, locked ones to its admins.
    pub has_token: bool,
    /// The room may be made by this join, with its maker as admin (`--dev` and guest nodes).
    pub may_create: bool,
    /// The room's own node has sent it here, to be served by a branch; or another has sent it here, as the
    /// room's own node alone can serve it.
    pub sent: Option<Sent>,
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
    /// By which another node lets it in again. `None` where there is no other.
    pub seat: Option<Seat>,
    /// It is served by a branch of a room that another node holds: requests about it belong here.
    pub in_branch: bool,
}

/// What a `PATCH` of a session did (RFC 9725 §4.3).
#[derive(Debug, Clone)]
pub enum Patched {
    /// Candidates were taken: 204.
    Trickled,
    /// ICE was restarted: 200 with our fragment and its new entity tag.
    Restarted { fragment: String, etag: String },
}
