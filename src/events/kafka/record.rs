//! What stands in the shared log: events of one room or of the ledger, and who wrote them.

use serde::{Deserialize, Serialize};

use crate::core::event::{Event, EventBody};
use crate::core::fence::Writer;
use crate::core::ids::RoomName;

/// One record. What a newer version adds is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The stream of its events: a room, or [`RoomName::ledger`], whose events each name their own.
    #[serde(deserialize_with = "RoomName::stored")]
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
    /// It is none, or its events are of another stream.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Self = serde_json::from_slice(bytes)?;
        let of_ledger = record.room == RoomName::ledger();
        // A newer version's fact is not known for one here, and keeps its place all the same.
        let fits = |event: &Event| match event.body {
            EventBody::Unknown(_) => of_ledger || event.room == record.room,
            _ => event.stream() == record.room,
        };
        if !record.events.iter().all(fits) {
            return Err(serde::de::Error::custom("an event of another stream"));
        }
        Ok(record)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data always has a JSON form; without one it would be buried by its readers.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
