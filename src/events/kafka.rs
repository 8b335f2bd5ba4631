//! The log that the nodes of a cluster share, in Kafka, with a copy of it in SQLite on each.
//!
//! All that happens in a room goes to one partition, so it has one order, and with it whose word counts
//! ([`Fence`]). Every node reads all of it into its copy, from which it answers. An event is appended once
//! this node has read it back and it counted: only then is its author told. Until then it lies in an outbox
//! in the same file, on the disk before it is sent, and is sent in its order as soon as Kafka takes it. An
//! event that is read twice changes nothing, by its id.

mod answers;
mod connect;
mod copies;
mod ends;
mod link;
mod partial;
pub mod record;
mod settings;
pub mod snapshot;
mod taking;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::sqlite::{Queued, SqliteLog};
use super::{EventLog as _, LogError};
use crate::core::chat::HistoryRange;
use crate::core::event::{Appended, Event, EventBody};
use crate::core::fence::{Fence, Writer};
use crate::core::ids::{NodeId, RoomName};
use crate::telemetry::traces::Underway;
use link::Link;
use partial::Partial;
use record::Record;
use snapshot::Due;
use taking::Held;

pub use connect::{Read, read_all};
pub use settings::{KafkaSettings, Voice};
pub(super) use worker::Worker;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "room-log.sqlite3";
/// Records that may wait for Kafka. Full: appends are refused.
pub const OUTBOX_MAX: usize = 10_000;

/// Names an append that is on its way.
pub type Ticket = u64;

/// What became of an append.
pub type Outcome = (Ticket, Result<Vec<Appended>, LogError>);

/// A record of ours that was not read back yet.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    room: RoomName,
    /// By the connection that there is.
    sent_at: Option<Instant>,
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
    /// While the copy is one that began with snapshots.
    partial: Option<Partial>,
    due: Due,
    directory: PathBuf,
    settings: KafkaSettings,
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
    /// What the disk did not take; nothing behind it is read before it did.
    held: Option<Held>,
    /// Rooms of this node that another has opened, under which epoch.
    overtaken: Vec<(RoomName, u64)>,
    outcomes: Vec<Outcome>,
    taken: u64,
    /// Counts records with facts about money that were taken, for who follows the ledger.
    ledger_moved: watch::Sender<u64>,
    /// By ticket.
    traces: Underway,
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
        let mut copy = SqliteLog::open(&directory.join(FILE_NAME))?;
        copy.prepare_shared()?;
        let mut partial = None;
        if let Some(serving) = Partial::find(directory)? {
            let whole = std::mem::replace(&mut copy, serving);
            partial = Some(Partial::start(directory, &settings, whole, &copy)?);
        }
        let (fence, unsent, positions) = (copy.fence()?, copy.queued()?, copy.positions()?);
        Ok(Self {
            copy,
            partial,
            due: Due::default(),
            directory: directory.to_owned(),
            settings: settings.clone(),
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
            overtaken: Vec::new(),
            outcomes: Vec::new(),
            taken: 0,
            ledger_moved: watch::Sender::new(0),
            traces: Underway::default(),
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

    /// Changes whenever facts about money were taken, whoever wrote them.
    pub fn ledger_moves(&self) -> watch::Receiver<u64> {
        self.ledger_moved.subscribe()
    }

    /// What an append belongs to (W3C Trace Context): its records say so to all who read them.
    pub fn note_trace(&mut self, ticket: Ticket, trace: Option<String>) {
        if self.pending.contains_key(&ticket) {
            self.traces.note(ticket, trace);
        }
    }

    /// For tests: the connection that there is brings nothing from here on, and does not say so.
    pub fn go_blind(&mut self) {
        self.link.go_blind();
    }

    /// Why what is read cannot be written here, where it is so.
    pub fn failure(&self) -> Option<&LogError> {
        self.held.as_ref().map(Held::why)
    }

    /// Rooms of this node that another has opened since this was last asked, and under which epoch.
    pub fn drain_overtaken(&mut self) -> Vec<(RoomName, u64)> {
        std::mem::take(&mut self.overtaken)
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
                    self.waiting.insert(queued.number, Waiting { ticket, room: record.room, sent_at: None });
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

    /// The records of one append: one for each run of events of one stream.
    fn make_records(&mut self, batch: &[Event]) -> Result<Vec<Record>, LogError> {
        if self.backlog() + batch.len() > OUTBOX_MAX {
            return Err(LogError::Refused);
        }
        self.check(batch)?;
        let mut records: Vec<Record> = Vec::new();
        for event in batch {
            let (room, opened) = (event.stream(), event.opening_epoch());
            let mut opens = opened.is_some();
            if let Some(epoch) = opened {
                self.epochs.insert(room.clone(), epoch);
            } else if self.opens_rooms && !self.epochs.contains_key(&room) {
                let epoch = self.fence.writer(&room).map_or(0, |writer| writer.epoch) + 1;
                self.epochs.insert(room.clone(), epoch);
                opens = true;
            }
            // A room that was lost, or never opened here, is not for this node to write to.
            let epoch = *self.epochs.get(&room).ok_or(LogError::Fenced)?;
            let last = records.last_mut().filter(|last| last.room == room && !opens);
            if let Some(last) = last {
                last.events.push(event.clone());
                continue;
            }
            let writer = Writer { epoch, node: self.node.clone(), incarnation: self.incarnation };
            records.push(Record { room, writer, opens, number: 0, events: vec![event.clone()] });
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
            self.begin_with_snapshots();
            // A new connection knows nothing of what was on its way on the last one: all of it, in its order.
            // Where the copy cannot be read now, the next connection does it.
            self.unsent = self.copy.queued().unwrap_or_default().into();
            self.waiting.values_mut().for_each(|waiting| waiting.sent_at = None);
        }
        self.take_over_from_partial();
        while let Some(queued) = self.unsent.front() {
            let waiting = self.waiting.get_mut(&queued.number);
            let trace = waiting.as_ref().and_then(|waiting| self.traces.of(waiting.ticket));
            if !self.link.send(&queued.room, &queued.record, trace) {
                break;
            }
            if let Some(waiting) = waiting {
                waiting.sent_at = Some(Instant::now());
            }
            self.unsent.pop_front();
        }
        // A record that the disk does not take is none that did not come.
        let oldest = self.waiting.first_key_value().filter(|_| self.held.is_none());
        self.link.note_due(oldest.and_then(|(_, waiting)| waiting.sent_at));
        self.write_snapshots();
        self.read(within);
        std::mem::take(&mut self.outcomes)
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
            self.traces.end(ticket);
            self.outcomes.push((ticket, pending.failure.map_or(Ok(answers), Err)));
        }
    }

    /// The copy, for reading.
    pub fn copy(&mut self) -> &mut SqliteLog {
        &mut self.copy
    }
}
