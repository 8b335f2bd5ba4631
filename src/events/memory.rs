//! The log in memory: for tests and simulation. It grows without bound and is gone with its process.

use std::collections::{BTreeMap, BTreeSet};

use super::{EventLog, LogError, PAGE_MAX, Recorded};
use crate::core::chat::{HistoryRange, MessagePage, RoomHistory, WINDOW, apply};
use crate::core::event::{Appended, Event, EventBody, EventId};
use crate::core::ids::{MessageId, RoomName};
use crate::core::protocol::ChatMessage;

/// An [`EventLog`] that keeps everything in maps.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    rooms: BTreeMap<RoomName, Room>,
    last_offset: u64,
}

#[derive(Debug, Clone, Default)]
struct Room {
    events: BTreeMap<u64, Event>,
    offsets: BTreeMap<EventId, u64>,
    messages: BTreeMap<u64, ChatMessage>,
    seqs: BTreeMap<MessageId, u64>,
}

impl Room {
    fn message(&self, id: &MessageId) -> Option<&ChatMessage> {
        self.messages.get(self.seqs.get(id)?)
    }

    fn append(&mut self, offset: u64, event: &Event) -> Appended {
        let known = self.offsets.get(&event.id).copied();
        if known.is_none() {
            self.events.insert(offset, event.clone());
            self.offsets.insert(event.id.clone(), offset);
            self.project(event);
        }
        let message = event.body.message_id().and_then(|id| self.message(id)).cloned();
        Appended { id: event.id.clone(), offset: known.unwrap_or(offset), is_new: known.is_none(), message }
    }

    fn project(&mut self, event: &Event) {
        let Some(id) = event.body.message_id() else { return };
        if let Some(message) = apply(self.message(id).cloned(), event) {
            self.seqs.insert(message.id.clone(), message.seq);
            self.messages.insert(message.seq, message);
        }
    }
}

impl MemoryLog {
    /// Refuses a batch that would give one `seq` to two messages, before any of it is appended.
    fn check(&self, batch: &[Event]) -> Result<(), LogError> {
        let (mut seqs, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for event in batch {
            let EventBody::ChatSent { message, seq, .. } = &event.body else { continue };
            let room = self.rooms.get(&event.room);
            if room.is_some_and(|room| room.seqs.contains_key(message)) || !ids.insert((&event.room, message))
            {
                continue;
            }
            let in_use = room.is_some_and(|room| room.messages.contains_key(seq));
            if in_use || !seqs.insert((&event.room, *seq)) {
                return Err(LogError::Rejected(format!("seq {seq} is in use")));
            }
        }
        Ok(())
    }
}

impl EventLog for MemoryLog {
    fn append(&mut self, batch: &[Event]) -> Result<Vec<Appended>, LogError> {
        self.check(batch)?;
        let answer = |event: &Event| {
            let offset = self.last_offset.saturating_add(1);
            let appended = self.rooms.entry(event.room.clone()).or_default().append(offset, event);
            self.last_offset = self.last_offset.max(appended.offset);
            appended
        };
        Ok(batch.iter().map(answer).collect())
    }

    fn messages(
        &mut self,
        room: &RoomName,
        range: HistoryRange,
        limit: u32,
    ) -> Result<MessagePage, LogError> {
        let Some(room) = self.rooms.get(room) else { return Ok(MessagePage::default()) };
        let limit = limit.min(PAGE_MAX) as usize;
        let range = match range {
            HistoryRange::After(seq) => {
                let mut found = room.messages.range(seq.saturating_add(1)..).map(|(_, message)| message);
                let messages: Vec<_> = found.by_ref().take(limit).cloned().collect();
                return Ok(MessagePage { messages, more: found.next().is_some() });
            }
            HistoryRange::Before(seq) => room.messages.range(..seq),
            HistoryRange::Newest => room.messages.range(..),
        };
        let mut found = range.rev().map(|(_, message)| message);
        let mut messages: Vec<_> = found.by_ref().take(limit).cloned().collect();
        messages.reverse();
        Ok(MessagePage { messages, more: found.next().is_some() })
    }

    fn message(&mut self, room: &RoomName, id: &MessageId) -> Result<Option<ChatMessage>, LogError> {
        Ok(self.rooms.get(room).and_then(|room| room.message(id)).cloned())
    }

    fn history(&mut self, room: &RoomName) -> Result<RoomHistory, LogError> {
        let page = self.messages(room, HistoryRange::Newest, WINDOW as u32)?;
        let last_seq = page.messages.last().map_or(0, |message| message.seq);
        let events = self.rooms.get(room).map(|room| &room.events);
        let last_offset = events.and_then(|events| events.keys().next_back()).copied().unwrap_or(0);
        Ok(RoomHistory { page, last_seq, last_offset })
    }

    fn events(&mut self, room: &RoomName, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        let Some(room) = self.rooms.get(room) else { return Ok(Vec::new()) };
        let found = room.events.range(after.saturating_add(1)..).take(limit.min(PAGE_MAX) as usize);
        Ok(found.map(|(offset, event)| Recorded { offset: *offset, event: event.clone() }).collect())
    }

    fn probe(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}
