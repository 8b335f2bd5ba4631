//! What is sold: a room while it lives, or one recording or file of it, each with its own price and buyers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::ids::{MessageId, RoomName};
use crate::core::recording::RecordingId;

/// Something that can be fetched, and so is never given before its payment is final.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    Recording(RecordingId),
    /// By the id of the message that brought it.
    File(MessageId),
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recording(id) => write!(f, "recordings/{id}"),
            Self::File(id) => write!(f, "files/{id}"),
        }
    }
}

/// A thing with a price.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    pub room: RoomName,
    /// Absent: the room itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

impl Resource {
    pub fn recording(room: &RoomName, id: &RecordingId) -> Self {
        Self { room: room.clone(), content: Some(Content::Recording(id.clone())) }
    }

    pub fn file(room: &RoomName, id: &MessageId) -> Self {
        Self { room: room.clone(), content: Some(Content::File(id.clone())) }
    }

    /// A room, from which one can be put out again.
    pub fn is_live(&self) -> bool {
        self.content.is_none()
    }
}

impl From<RoomName> for Resource {
    fn from(room: RoomName) -> Self {
        Self { room, content: None }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            None => write!(f, "{}", self.room),
            Some(content) => write!(f, "{}/{content}", self.room),
        }
    }
}
