//! What stands in the shared log: events of one room, and who wrote them.

use serde::{Deserialize, Serialize};

use crate::core::event::Event;
use crate::core::fence::Writer;
use crate::core::ids::RoomName;

/// One record. What a newer version adds is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub room: RoomName,
    pub writer: Writer,
    /// The writer takes the room over by this.
    #[serde(default)]
    pub opens: bool,
    /// By which the writer's outbox knows it.
    pub number: u64,
    pub events: Vec<Event>,
}

impl Record {
    /// # Errors
    /// It is none, or its events are of another room.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Self = serde_json::from_slice(bytes)?;
        if record.events.iter().any(|event| event.room != record.room) {
            return Err(serde::de::Error::custom("an event of another room"));
        }
        Ok(record)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data always has a JSON form; without one it would be buried by its readers.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
