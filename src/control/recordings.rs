//! Recordings of rooms: begun, ended, and noted in the log when they are deleted.

use super::{Control, unix_ms};
use crate::core::event::{Event, EventBody, EventId};
use crate::core::ids::{Identity, RoomName};
use crate::core::recording::{RecordingId, RecordingState, RecordingWish};
use crate::core::refusal::{Code, Refusal};
use crate::media::shard::RoomCommand;

impl Control {
    /// Begins a recording that the node has room for.
    ///
    /// # Errors
    /// `not_found`, `already_recording`, `end_to_end_encrypted`, `consent_needed`, `malformed`,
    /// `unavailable`.
    pub async fn start_recording(
        &self,
        room: &RoomName,
        wish: RecordingWish,
        by: Option<Identity>,
    ) -> Result<RecordingState, Refusal> {
        self.in_room(room, |reply| RoomCommand::Record { wish, by, reply }).await
    }

    /// # Errors
    /// `not_found` where it does not run.
    pub async fn stop_recording(
        &self,
        room: &RoomName,
        id: RecordingId,
        by: Option<Identity>,
    ) -> Result<RecordingState, Refusal> {
        self.in_room(room, |reply| RoomCommand::StopRecording { id, by, reply }).await
    }

    /// A recording is no more. Its room need not be open.
    pub fn note_deleted_recording(&self, room: RoomName, recording: RecordingId, by: Option<Identity>) {
        let event = Event {
            id: EventId::of_deleted_recording(&recording),
            room,
            at_ms: unix_ms(),
            body: EventBody::RecordingDeleted { recording, by },
        };
        let appended = self.events.append(vec![event], |result| {
            if let Err(error) = result {
                tracing::warn!(%error, "the log does not know of a deleted recording");
            }
        });
        if appended.is_err() {
            tracing::warn!("the event log is overrun: it does not know of a deleted recording");
        }
    }
}

pub(super) fn no_recordings() -> Refusal {
    Refusal::new(Code::Unavailable, "this node does not record")
}
