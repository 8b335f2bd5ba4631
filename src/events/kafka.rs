//! The log that the nodes of a cluster share, in Kafka, with a copy of it in SQLite on each.
//!
//! All that happens in a room goes to one partition, so it has one order, and with it whose word counts
//! ([`Fence`]). Every node reads all of it into its copy, from which it answers. An event is appended once
//! this node has read it back and it counted: only then is its author told. Until then it lies in an outbox
//! in the same file, on the disk before it is sent, and is sent in its order as soon as Kafka takes it. An
//! event that is read twice changes nothing, by its id.

mod link;
pub mod record;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use super::sqlite::{Applied, Queued, SqliteLog};
use super::{EventLog, FileUsage, LogError, Recorded};
use crate::core::chat::{HistoryRange, MessagePage, RoomHistory};
use crate::core::event::{Appended, Event, EventBody};
use crate::core::fence::{Fence, Verdict, Writer};
use crate::core::ids::{Identity, MessageId, NodeId, RoomName};
use crate::core::protocol::ChatMessage;
use link::{Link, Read};
use record::Record;

pub use link::{KafkaSettings, read_all};
pub(super) use worker::Worker;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "room-log.sqlite3";
/// Records that may wait for Kafka. Full: appends are refused.
pub const OUTBOX_MAX: usize = 10_000;
/// How long the blocking calls wait for Kafka.
const WITHIN: Duration = Duration::from_secs(20);
/// Tries to make sense of a record, before it goes to the dead letters.
const TRIES: u32 = 3;

/// Names an append that is on its way.
pub type Ticket = u64;

/// What became of an append.
pub type Outcome = (Ticket, Result<Vec<Appended>, LogError>);

/// A record of ours that was not read back yet.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    room: RoomName,
}

/// An append whose records are not all read back yet.
#[derive(Debug, Default)]
struct Pending {
    records: usize,
    answers: Vec<(u64, Vec<Appended>)>,
    failure: Option<LogError>,
}

/// An [`EventLog`] that others share.
pub struct KafkaLog {
    copy: SqliteLog,
    fence: Fence,
    node: NodeId,
    incarnation: u64,
    link: Link,
    /// The epoch under which this node has opened each room.
    epochs: BTreeMap<RoomName, u64>,
    /// Rooms that were not opened are, by whoever appends to them: for tools, which have no rooms.
    opens_rooms: bool,
    unsent: VecDeque<Queued>,
    waiting: BTreeMap<u64, Waiting>,
    pending: BTreeMap<Ticket, Pending>,
    last_ticket: Ticket,
    /// One that the disk did not take; nothing behind it is read before it is.
    held: Option<Read>,
    outcomes: Vec<Outcome>,
    taken: u64,
}

impl KafkaLog {
    /// Opens the copy in `directory`; Kafka is looked for as long as it takes. `incarnation` tells this start
    /// of `node` from earlier ones.
    ///
    /// # Errors
    /// The copy cannot be opened.
    pub fn open(
        directory: &Path,
        settings: KafkaSettings,
        node: NodeId,
        incarnation: u64,
    ) -> Result<Self, LogError> {
        let copy = SqliteLog::open(&directory.join(FILE_NAME))?;
        let (fence, unsent, positions) = (copy.fence()?, copy.queued()?, copy.positions()?);
        Ok(Self {
            copy,
            fence,
            node,
            incarnation,
            link: Link::new(settings, positions),
            epochs: BTreeMap::new(),
            opens_rooms: false,
            unsent: unsent.into(),
            waiting: BTreeMap::new(),
            pending: BTreeMap::new(),
            last_ticket: 0,
            held: None,
            outcomes: Vec::new(),
            taken: 0,
        })
    }

    /// Takes rooms over by appending to them, as tools and tests do that have no leases.
    #[must_use]
    pub fn opening_rooms(mut self) -> Self {
        self.opens_rooms = true;
        self
    }

    /// Kafka was there when it was last looked for.
    pub fn is_connected(&self) -> bool {
        self.link.is_up()
    }

    /// Records that wait to be read back.
    pub fn backlog(&self) -> usize {
        self.waiting.len() + self.unsent.len()
    }

    /// Records that were read since this was opened.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Nothing of this node's is on its way for the room.
    pub fn is_settled(&self, room: &RoomName) -> bool {
        !self.waiting.values().any(|waiting| waiting.room == *room)
    }

    /// Sends appends on their way, all of them made durable at once; an answer for each, in order.
    pub fn submit(&mut self, batches: &[Vec<Event>]) -> Vec<Result<Ticket, LogError>> {
        let mut results = Vec::with_capacity(batches.len());
        let mut records: Vec<(Ticket, Record)> = Vec::new();
        for batch in batches {
            let made = self.make_records(batch);
            results.push(made.map(|made| {
                self.last_ticket += 1;
                let ticket = self.last_ticket;
                self.pending.insert(ticket, Pending { records: made.len(), ..Pending::default() });
                if made.is_empty() {
                    self.pending.remove(&ticket);
                    self.outcomes.push((ticket, Ok(Vec::new())));
                }
                records.extend(made.into_iter().map(|record| (ticket, record)));
                ticket
            }));
        }
        if records.is_empty() {
            return results;
        }
        let rooms: Vec<RoomName> = records.iter().map(|(_, record)| record.room.clone()).collect();
        let make = |index: usize, number: u64| {
            records.get_mut(index).map_or_else(Vec::new, |(_, record)| {
                record.number = number;
                record.to_bytes()
            })
        };
        match self.copy.queue(&rooms, make) {
            Ok(queued) => {
                for ((ticket, record), queued) in records.into_iter().zip(queued) {
                    self.waiting.insert(queued.number, Waiting { ticket, room: record.room });
                    self.unsent.push_back(queued);
                }
            }
            Err(error) => {
                for result in &mut results {
                    if let Ok(ticket) = result {
                        self.pending.remove(ticket);
                        *result = Err(error.clone());
                    }
                }
            }
        }
        results
    }

    /// The records of one append: one for each run of events of one room.
    fn make_records(&mut self, batch: &[Event]) -> Result<Vec<Record>, LogError> {
        if self.backlog() + batch.len() > OUTBOX_MAX {
            return Err(LogError::Refused);
        }
        self.check(batch)?;
        let mut records: Vec<Record> = Vec::new();
        for event in batch {
            let opened = match &event.body {
                EventBody::RoomOpened { .. } => event.id.room_epoch(),
                _ => None,
            };
            let mut opens = opened.is_some();
            if let Some(epoch) = opened {
                self.epochs.insert(event.room.clone(), epoch);
            } else if self.opens_rooms && !self.epochs.contains_key(&event.room) {
                let epoch = self.fence.writer(&event.room).map_or(0, |writer| writer.epoch) + 1;
                self.epochs.insert(event.room.clone(), epoch);
                opens = true;
            }
            // A room that was lost, or never opened here, is not for this node to write to.
            let epoch = *self.epochs.get(&event.room).ok_or(LogError::Fenced)?;
            let last = records.last_mut().filter(|last| last.room == event.room && !opens);
            if let Some(last) = last {
                last.events.push(event.clone());
                continue;
            }
            let writer = Writer { epoch, node: self.node.clone(), incarnation: self.incarnation };
            let (room, events) = (event.room.clone(), vec![event.clone()]);
            records.push(Record { room, writer, opens, number: 0, events });
        }
        Ok(records)
    }

    /// Refuses a batch that would give one `seq` to two messages, before any of it is sent.
    fn check(&mut self, batch: &[Event]) -> Result<(), LogError> {
        let (mut seqs, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for event in batch {
            let EventBody::ChatSent { message, seq, .. } = &event.body else { continue };
            let is_known = self.copy.message(&event.room, message)?.is_some();
            if is_known || !ids.insert((&event.room, message)) {
                continue;
            }
            let page = self.copy.messages(&event.room, HistoryRange::After(seq.saturating_sub(1)), 1)?;
            let in_use = page.messages.first().is_some_and(|message| message.seq == *seq);
            if in_use || !seqs.insert((&event.room, *seq)) {
                return Err(LogError::Rejected(format!("seq {seq} is in use")));
            }
        }
        Ok(())
    }

    /// Sends what waits and reads what there is, for so long at most. Says which appends are done.
    pub fn poll(&mut self, within: Duration) -> Vec<Outcome> {
        if self.link.is_new() {
            // A new connection knows nothing of what was on its way on the last one: all of it, in its order.
            // Where the copy cannot be read now, the next connection does it.
            self.unsent = self.copy.queued().unwrap_or_default().into();
        }
        while let Some(queued) = self.unsent.front() {
            if !self.link.send(&queued.room, &queued.record) {
                break;
            }
            self.unsent.pop_front();
        }
        let mut wait = within;
        loop {
            let read = self.held.take().or_else(|| self.link.poll(std::mem::take(&mut wait)));
            let Some(read) = read else { break };
            self.taken += 1;
            if let Err(error) = self.take(&read) {
                tracing::error!(%error, "the copy of the log cannot be written; reading waits");
                self.held = Some(read);
                self.taken -= 1;
                break;
            }
            if !self.outcomes.is_empty() {
                break;
            }
        }
        std::mem::take(&mut self.outcomes)
    }

    /// Takes one record of the log, whoever wrote it.
    fn take(&mut self, read: &Read) -> Result<(), LogError> {
        let place = Applied {
            partition: read.partition,
            next: read.offset + 1,
            events: &[],
            opened: None,
            written: None,
        };
        let parsed = (0..TRIES).find_map(|_| Record::parse(&read.payload).ok());
        let Some(record) = parsed else {
            self.link.bury(read, "unreadable");
            return self.copy.apply(&place).map(drop);
        };
        let verdict = self.fence.handle_record(&record.room, &record.writer, record.opens);
        let own = record.writer.node == self.node;
        let written = own.then_some(record.number);
        let counts = verdict == Verdict::Counts;
        let events = if counts { record.events.as_slice() } else { &[] };
        let opened = (counts && record.opens).then_some((&record.room, &record.writer));
        let applied = Applied { events, opened, written, ..place };
        let result = match self.copy.apply(&applied) {
            Err(LogError::Rejected(why)) => {
                self.link.bury(read, "rejected");
                self.copy.apply(&Applied { events: &[], ..applied })?;
                Err(LogError::Rejected(why))
            }
            Ok(answers) if counts => Ok(answers),
            Ok(_) => {
                metrics::counter!("antiphon_log_fenced_total").increment(1);
                Err(LogError::Fenced)
            }
            Err(error) => return Err(error),
        };
        if opened.is_some() && (!own || record.writer.incarnation != self.incarnation) {
            self.epochs.remove(&record.room);
        }
        if own {
            self.settle(record.number, result);
        }
        Ok(())
    }

    fn settle(&mut self, number: u64, result: Result<Vec<Appended>, LogError>) {
        let Some(Waiting { ticket, .. }) = self.waiting.remove(&number) else { return };
        let Some(pending) = self.pending.get_mut(&ticket) else { return };
        pending.records -= 1;
        match result {
            Ok(answers) => pending.answers.push((number, answers)),
            Err(error) => pending.failure = Some(error),
        }
        if pending.records == 0
            && let Some(mut pending) = self.pending.remove(&ticket)
        {
            // Partitions are read as they come; the answers stand in the order of the events.
            pending.answers.sort_by_key(|(number, _)| *number);
            let answers = pending.answers.into_iter().flat_map(|(_, answers)| answers).collect();
            self.outcomes.push((ticket, pending.failure.map_or(Ok(answers), Err)));
        }
    }

    /// The copy, for reading.
    pub fn copy(&mut self) -> &mut SqliteLog {
        &mut self.copy
    }
}

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
        self.copy.messages(room, range, limit)
    }

    fn message(&mut self, room: &RoomName, id: &MessageId) -> Result<Option<ChatMessage>, LogError> {
        self.copy.message(room, id)
    }

    fn history(&mut self, room: &RoomName) -> Result<RoomHistory, LogError> {
        // Places in the copy differ from node to node; how many events a room has does not.
        let last_offset = self.copy.count(room)?;
        Ok(RoomHistory { last_offset, ..self.copy.history(room)? })
    }

    fn last_epoch(&mut self, room: &RoomName) -> Result<u64, LogError> {
        let known = self.fence.writer(room).map_or(0, |writer| writer.epoch);
        Ok(known.max(self.copy.last_epoch(room)?))
    }

    fn events(&mut self, room: &RoomName, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        self.copy.events(room, after, limit)
    }

    fn files(&mut self, room: &RoomName, before: u64, limit: u32) -> Result<MessagePage, LogError> {
        self.copy.files(room, before, limit)
    }

    fn file_usage(&mut self, room: &RoomName, identity: &Identity) -> Result<FileUsage, LogError> {
        self.copy.file_usage(room, identity)
    }

    fn files_before(&mut self, at_ms: u64, limit: u32) -> Result<Vec<(RoomName, MessageId)>, LogError> {
        self.copy.files_before(at_ms, limit)
    }

    fn unreferenced(&mut self, limit: u32) -> Result<Vec<String>, LogError> {
        self.copy.unreferenced(limit)
    }

    fn forget_unreferenced(&mut self, sha256: &str) -> Result<(), LogError> {
        self.copy.forget_unreferenced(sha256)
    }

    fn probe(&mut self) -> Result<(), LogError> {
        self.copy.probe()
    }
}
