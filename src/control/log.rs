//! What rooms tell the event log, and its answers. A log that refuses at once is answered to its room, too.

use tokio::runtime::Handle;

use super::placement::Placement;
use crate::core::chat::HistoryRange;
use crate::core::event::Event;
use crate::core::ids::{MessageId, RoomName, ShardId};
use crate::core::room::ParticipantKey;
use crate::events::LogError;
use crate::media::ShardHandle;
use crate::media::shard::{Command, LogAnswer, RoomCommand};
use crate::telemetry::traces;

/// Messages in one `chat.history`.
const HISTORY_PAGE: u32 = 50;

impl Placement {
    fn way_to(&self, shard: ShardId) -> Way {
        Way { shard: self.shard(shard), runtime: Handle::current() }
    }

    /// `trace` is the one that this belongs to; without it, it begins its own.
    pub(super) fn append(&self, shard: ShardId, room: RoomName, event: Event, trace: Option<String>) {
        let span = tracing::info_span!(parent: None, "append", otel.kind = "producer", room = %room);
        traces::go_on(&span, trace.as_deref());
        let _within = span.clone().entered();
        let (to, id) = (self.way_to(shard), event.id.clone());
        let (again, name, refused_id) = (to.clone(), room.clone(), id.clone());
        let cluster = self.cluster.clone();
        let refused = self.events.append(vec![event], move |result| match (result, span).0 {
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
        let (to, name, wanted) = (self.way_to(shard), room.clone(), id.clone());
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
        let (handle, name) = (self.way_to(shard), room.clone());
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
        let (to, name) = (self.way_to(shard), room.clone());
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

/// A room waits for each answer of its log, and shows nothing that was said after what is not answered: none
/// is lost, whatever a shard has to do.
#[derive(Clone)]
struct Way {
    shard: ShardHandle,
    /// Where an answer waits for its turn, as the log's thread must not.
    runtime: Handle,
}

fn answer(to: &Way, room: &RoomName, log: LogAnswer) {
    let command = Command::InRoom(room.clone(), RoomCommand::Log(log));
    if !to.shard.send_in_turn(&to.runtime, command) {
        tracing::warn!(room = %room, "the shard is overrun: an answer of the event log waits for its turn");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::EventId;
    use crate::media::Inbox;

    #[tokio::test]
    async fn an_answer_waits_where_the_shard_is_overrun() {
        let (shard, mut inbox) = Inbox::new();
        let room = RoomName::parse("room").unwrap();
        let mut filled = 0u32;
        while shard.send(Command::TcpClosed { remote: ([127, 0, 0, 1], 1).into() }).is_ok() {
            filled += 1;
        }
        let to = Way { shard, runtime: Handle::current() };
        answer(&to, &room, LogAnswer::AppendFailed(EventId::from_stored("chat:m-1".into())));
        for _ in 0..filled {
            assert!(matches!(inbox.next_command().await, Some(Command::TcpClosed { .. })));
        }
        let last = inbox.next_command().await;
        assert!(matches!(last, Some(Command::InRoom(_, RoomCommand::Log(LogAnswer::AppendFailed(_))))));
    }
}
