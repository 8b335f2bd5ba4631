//! What the log answers: from the copy that serves, as far as that reaches back.

use std::time::{Duration, Instant};

use super::KafkaLog;
use crate::core::chat::{HistoryRange, MessagePage, RoomHistory};
use crate::core::event::{Appended, Event, EventId};
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::protocol::ChatMessage;
use crate::events::{EventLog, FileUsage, LogError, Recorded};

/// Kafka says that there is no more once it had nothing for a tenth of a second.
const LOOK_ON: Duration = Duration::from_millis(150);
/// How long the blocking calls wait for Kafka.
const WITHIN: Duration = Duration::from_secs(20);

impl EventLog for KafkaLog {
    fn append(&mut self, batch: &[Event]) -> Result<Vec<Appended>, LogError> {
        let ticket = self.submit(&[batch.to_vec()]).pop().unwrap_or(Err(LogError::Refused))?;
        let deadline = Instant::now() + WITHIN;
        while Instant::now() < deadline {
            let outcomes = self.poll(Duration::from_millis(20));
            if let Some((_, result)) = outcomes.into_iter().find(|(done, _)| *done == ticket) {
                return result;
            }
        }
        Err(LogError::Away)
    }

    fn messages(
        &mut self,
        room: &RoomName,
        range: HistoryRange,
        limit: u32,
    ) -> Result<MessagePage, LogError> {
        let page = self.copy.messages(room, range, limit)?;
        self.partial.as_ref().map_or(Ok(page.clone()), |begun| begun.check(room, range, page))
    }

    fn message(&mut self, room: &RoomName, id: &MessageId) -> Result<Option<ChatMessage>, LogError> {
        let found = self.copy.message(room, id)?;
        let is_sure = found.is_some() || self.partial.as_ref().is_none_or(|begun| begun.has_all(room));
        if is_sure { Ok(found) } else { Err(LogError::CatchingUp) }
    }

    fn history(&mut self, room: &RoomName) -> Result<RoomHistory, LogError> {
        // Places in the copy differ from node to node; how many events a room has does not.
        let before = self.partial.as_ref().map_or(0, |begun| begun.events_before(room));
        let last_offset = before + self.copy.count(room)?;
        let history = self.copy.history(room)?;
        let page = match &self.partial {
            Some(begun) => begun.check(room, HistoryRange::Newest, history.page)?,
            None => history.page,
        };
        Ok(RoomHistory { last_offset, page, ..history })
    }

    fn last_epoch(&mut self, room: &RoomName) -> Result<u64, LogError> {
        let known = self.fence.writer(room).map_or(0, |writer| writer.epoch);
        Ok(known.max(self.copy.last_epoch(room)?))
    }

    fn events(&mut self, room: &RoomName, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        self.check_whole()?;
        self.copy.events(room, after, limit)
    }

    fn ledger(&mut self, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        // Where things are sold no copy begins with snapshots.
        self.copy.ledger(after, limit)
    }

    fn place(&mut self, room: &RoomName, id: &EventId) -> Result<Option<u64>, LogError> {
        self.copy.place(room, id)
    }

    fn files(&mut self, room: &RoomName, before: u64, limit: u32) -> Result<MessagePage, LogError> {
        if self.partial.as_ref().is_some_and(|begun| !begun.has_all(room)) {
            return Err(LogError::CatchingUp);
        }
        self.copy.files(room, before, limit)
    }

    fn file_usage(&mut self, room: &RoomName, identity: &Identity) -> Result<FileUsage, LogError> {
        self.copy.file_usage(room, identity)
    }

    fn files_before(&mut self, at_ms: u64, limit: u32) -> Result<Vec<(RoomName, MessageId)>, LogError> {
        self.check_whole()?;
        self.copy.files_before(at_ms, limit)
    }

    fn unreferenced(&mut self, limit: u32) -> Result<Vec<String>, LogError> {
        // What nobody refers to yet may be referred to further on in the log.
        if !self.link.is_caught_up() {
            self.read(LOOK_ON);
        }
        if self.partial.is_some() || !self.link.is_caught_up() {
            return Ok(Vec::new());
        }
        self.copy.unreferenced(limit)
    }

    fn forget_unreferenced(&mut self, sha256: &str) -> Result<(), LogError> {
        self.copy.forget_unreferenced(sha256)
    }

    fn probe(&mut self) -> Result<(), LogError> {
        self.copy.probe()
    }
}
