//! What rooms tell the event log, and its answers. A log that refuses at once is answered to its room, too.

use super::placement::Placement;
use crate::core::chat::HistoryRange;
use crate::core::event::Event;
use crate::core::ids::{MessageId, RoomName, ShardId};
use crate::core::room::ParticipantKey;
use crate::events::LogError;
use crate::media::ShardHandle;
use crate::media::shard::{Command, LogAnswer, RoomCommand};

/// Messages in one `chat.history`.
const HISTORY_PAGE: u32 = 50;

impl Placement {
    pub(super) fn append(&self, shard: ShardId, room: RoomName, event: Event) {
        let (to, id) = (self.shard(shard), event.id.clone());
        let (again, name, refused_id) = (to.clone(), room.clone(), id.clone());
        let cluster = self.cluster.clone();
        let refused = self.events.append(vec![event], move |result| match result {
            // The room is about to be dropped here; its authors say it again where it is.
            Err(LogError::Fenced) => cluster.fenced(&room),
            Ok(appended) => {
                for appended in appended {
                    answer(&to, &room, LogAnswer::Appended(Box::new(appended)));
                }
            }
            Err(_) => answer(&to, &room, LogAnswer::AppendFailed(id)),
        });
        if refused.is_err() {
            tracing::warn!(room = %name, "the event log is overrun: an event was refused");
            answer(&again, &name, LogAnswer::AppendFailed(refused_id));
        }
    }

    pub(super) fn read_message(&self, shard: ShardId, room: RoomName, id: MessageId) {
        let (to, name, wanted) = (self.shard(shard), room.clone(), id.clone());
        let (again, refused_in, refused_id) = (to.clone(), room.clone(), id.clone());
        let reply = move |read: Result<_, _>| {
            answer(&to, &room, LogAnswer::Message { id, read: read.map_err(|_| ()) });
        };
        if self.events.read(move |log| log.message(&name, &wanted), reply).is_err() {
            answer(&again, &refused_in, LogAnswer::Message { id: refused_id, read: Err(()) });
        }
    }

    pub(super) fn read_history(
        &self,
        shard: ShardId,
        room: RoomName,
        to: ParticipantKey,
        range: HistoryRange,
    ) {
        let (handle, name) = (self.shard(shard), room.clone());
        let (again, refused_in) = (handle.clone(), room.clone());
        let reply = move |page: Result<_, _>| {
            answer(&handle, &room, LogAnswer::History { to, page: page.map_err(|_| ()) });
        };
        let range = if let HistoryRange::Before(u64::MAX) = range { HistoryRange::Newest } else { range };
        if self.events.read(move |log| log.messages(&name, range, HISTORY_PAGE), reply).is_err() {
            answer(&again, &refused_in, LogAnswer::History { to, page: Err(()) });
        }
    }

    /// Reads a room's history. The room asks again where it cannot be read.
    pub(super) fn restore(&self, shard: ShardId, room: RoomName) {
        let (to, name) = (self.shard(shard), room.clone());
        let (again, refused_in) = (to.clone(), room.clone());
        let room_read = room.clone();
        let reply = move |history: Result<_, _>| match history {
            Ok(history) => answer(&to, &room, LogAnswer::Restored(Box::new(history))),
            Err(error) => {
                tracing::error!(room = %room, %error, "the room's history cannot be read; it is tried again");
                answer(&to, &room, LogAnswer::RestoreFailed);
            }
        };
        let read = self.events.read_settled(room_read, move |log| log.history(&name), reply);
        if read.is_err() {
            tracing::error!(room = %refused_in, "the log is overrun: the room's history is tried again");
            answer(&again, &refused_in, LogAnswer::RestoreFailed);
        }
    }
}

fn answer(shard: &ShardHandle, room: &RoomName, log: LogAnswer) {
    // A shard that is overrun loses an answer; its authors send again, and get the same one.
    if shard.send(Command::InRoom(room.clone(), RoomCommand::Log(log))).is_err() {
        tracing::warn!(room = %room, "an answer of the event log was lost: the shard is overrun");
    }
}
