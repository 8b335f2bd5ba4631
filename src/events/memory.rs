//! The log in memory: for tests and simulation. It grows without bound and is gone with its process.

use std::collections::{BTreeMap, BTreeSet};

use super::{EventLog, FileUsage, LogError, PAGE_MAX, Recorded};
use crate::core::chat::{HistoryRange, MessagePage, RoomHistory, WINDOW, apply};
use crate::core::event::{Appended, Event, EventBody, EventId};
use crate::core::files::FileState;
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::ledger::InvoiceId;
use crate::core::protocol::ChatMessage;

/// An [`EventLog`] that keeps everything in maps.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    rooms: BTreeMap<RoomName, Room>,
    last_offset: u64,
    /// Contents that had a file and have none now.
    unreferenced: BTreeSet<String>,
    /// The invoice of each address, payment hash and outpoint.
    ledger_keys: BTreeMap<String, InvoiceId>,
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

    fn kept(&self) -> impl DoubleEndedIterator<Item = (&ChatMessage, &FileState)> {
        self.messages.values().filter_map(|message| Some((message, kept(message)?)))
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

impl MemoryLog {
    /// What these facts say whose it is; refuses what is another invoice's.
    fn new_keys(&self, batch: &[Event]) -> Result<BTreeMap<String, InvoiceId>, LogError> {
        let mut new = BTreeMap::new();
        for event in batch {
            let EventBody::Ledger(fact) = &event.body else { continue };
            let known = self.rooms.get(&event.room).is_some_and(|room| room.offsets.contains_key(&event.id));
            for (key, invoice) in fact.unique_keys().into_iter().filter(|_| !known) {
                let holder = self.ledger_keys.get(&key).or_else(|| new.get(&key));
                if holder.is_some_and(|holder| holder != invoice) {
                    let words = "an address, hash or payment is another invoice's";
                    return Err(LogError::Rejected(words.into()));
                }
                new.insert(key, invoice.clone());
            }
        }
        Ok(new)
    }

    /// Contents of the file that is kept with the event's message.
    fn file_of(&self, event: &Event) -> Option<String> {
        let message = self.rooms.get(&event.room)?.message(event.body.message_id()?)?;
        kept(message).map(|file| file.sha256.clone())
    }

    fn is_referenced(&self, sha256: &str) -> bool {
        self.rooms.values().flat_map(Room::kept).any(|(_, file)| file.sha256 == sha256)
    }
}

fn kept(message: &ChatMessage) -> Option<&FileState> {
    message.file.as_deref().filter(|file| !file.expired)
}

impl EventLog for MemoryLog {
    fn append(&mut self, batch: &[Event]) -> Result<Vec<Appended>, LogError> {
        self.check(batch)?;
        self.ledger_keys.extend(self.new_keys(batch)?);
        let answer = |event: &Event| {
            let offset = self.last_offset.saturating_add(1);
            let file = self.file_of(event);
            let appended = self.rooms.entry(event.room.clone()).or_default().append(offset, event);
            self.last_offset = self.last_offset.max(appended.offset);
            for sha256 in file.into_iter().chain(self.file_of(event)) {
                if self.is_referenced(&sha256) {
                    self.unreferenced.remove(&sha256);
                } else {
                    self.unreferenced.insert(sha256);
                }
            }
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

    fn last_epoch(&mut self, room: &RoomName) -> Result<u64, LogError> {
        let events = self.rooms.get(room).into_iter().flat_map(|room| room.events.values());
        Ok(events.filter_map(|event| event.id.room_epoch()).max().unwrap_or(0))
    }

    fn events(&mut self, room: &RoomName, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        let Some(room) = self.rooms.get(room) else { return Ok(Vec::new()) };
        let found = room.events.range(after.saturating_add(1)..).take(limit.min(PAGE_MAX) as usize);
        Ok(found.map(|(offset, event)| Recorded { offset: *offset, event: event.clone() }).collect())
    }

    fn ledger(&mut self, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        let events = self.rooms.values().flat_map(|room| room.events.range(after.saturating_add(1)..));
        let mut facts: Vec<_> = events
            .filter(|(_, event)| matches!(event.body, EventBody::Ledger(_)))
            .map(|(offset, event)| Recorded { offset: *offset, event: event.clone() })
            .collect();
        facts.sort_by_key(|fact| fact.offset);
        facts.truncate(limit.min(PAGE_MAX) as usize);
        Ok(facts)
    }

    fn place(&mut self, room: &RoomName, id: &EventId) -> Result<Option<u64>, LogError> {
        let events = self.rooms.get(room).into_iter().flat_map(|room| &room.events);
        Ok(events.into_iter().find(|(_, event)| event.id == *id).map(|(offset, _)| *offset))
    }

    fn files(&mut self, room: &RoomName, before: u64, limit: u32) -> Result<MessagePage, LogError> {
        let Some(room) = self.rooms.get(room) else { return Ok(MessagePage::default()) };
        let mut found = room.kept().rev().filter(|(message, _)| message.seq < before);
        let page = found.by_ref().take(limit.min(PAGE_MAX) as usize);
        let messages = page.map(|(message, _)| message.clone()).collect();
        Ok(MessagePage { messages, more: found.next().is_some() })
    }

    fn file_usage(&mut self, room: &RoomName, identity: &Identity) -> Result<FileUsage, LogError> {
        let mut usage = FileUsage::default();
        let mut contents = BTreeMap::new();
        for (name, (message, file)) in
            self.rooms.iter().flat_map(|(name, room)| room.kept().map(move |kept| (name, kept)))
        {
            let counted = |counts: bool| if counts { file.size_bytes } else { 0 };
            usage.room_bytes += counted(name == room);
            usage.identity_bytes += counted(message.identity == *identity);
            contents.insert(&file.sha256, file.size_bytes);
        }
        usage.node_bytes = contents.values().sum();
        Ok(usage)
    }

    fn files_before(&mut self, at_ms: u64, limit: u32) -> Result<Vec<(RoomName, MessageId)>, LogError> {
        let all = self.rooms.iter().flat_map(|(name, room)| room.kept().map(move |kept| (name, kept.0)));
        let mut old: Vec<_> = all.filter(|(_, message)| message.sent_at_ms < at_ms).collect();
        old.sort_by_key(|(_, message)| message.sent_at_ms);
        let old = old.into_iter().take(limit.min(PAGE_MAX) as usize);
        Ok(old.map(|(room, message)| (room.clone(), message.id.clone())).collect())
    }

    fn unreferenced(&mut self, limit: u32) -> Result<Vec<String>, LogError> {
        Ok(self.unreferenced.iter().take(limit.min(PAGE_MAX) as usize).cloned().collect())
    }

    fn forget_unreferenced(&mut self, sha256: &str) -> Result<(), LogError> {
        self.unreferenced.remove(sha256);
        Ok(())
    }

    fn probe(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}
