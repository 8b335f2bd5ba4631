//! Who may come into a room, who is in it, as others see them, and why somebody is gone.

use serde::{Deserialize, Serialize};

use super::{Kind, Source};
use crate::core::feed::Playing;
use crate::core::ids::Identity;

/// Who may join without a token of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Anyone with the link, where the node admits guests at all.
    #[default]
    Open,
    /// Only holders of a token for this room.
    Private,
}

/// What a participant may do: a token's `room` grant, without the room's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Grant {
    pub publish: bool,
    pub subscribe: bool,
    pub chat: bool,
    pub files: bool,
    pub admin: bool,
    /// Of each picture the lowest layer alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, ts(as = "Option<bool>", optional))]
    pub lowest_layer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct TrackState {
    pub source: Source,
    pub kind: Kind,
    pub muted: bool,
    /// Such as `vp8` or `opus`; absent until the first packet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub codec: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ParticipantState {
    pub identity: Identity,
    /// What to show; the identity unless the participant chose another name.
    pub name: String,
    pub grant: Grant,
    pub tracks: Vec<TrackState>,
    pub hand_raised: bool,
    /// False while the connection is lost and may still resume.
    pub connected: bool,
    /// Names it among the CSRCs of mixed packets (RFC 3550 §5.1).
    pub csrc: u32,
    #[cfg_attr(test, ts(type = "number"))]
    pub joined_at_ms: u64,
    /// Whether it may be recorded, once it was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub recording_consent: Option<bool>,
    /// Of one that plays a file to all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub playing: Option<Playing>,
}

/// Why a participant is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// It said goodbye.
    Left,
    /// It was lost and did not come back in time.
    Lost,
    /// An admin removed it.
    Removed,
    /// An admin did not let it in.
    Denied,
    /// The same identity joined again elsewhere.
    Replaced,
    /// The room was closed.
    Closed,
    /// The node is going down.
    Draining,
    /// The room goes on at another node: join again.
    Moved,
}
