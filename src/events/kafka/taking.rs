//! Records of the log as they are taken into the copy: those that are there together in one commit, which is
//! what takes time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::KafkaLog;
use super::connect::Read;
use super::record::Record;
use crate::core::event::Appended;
use crate::core::fence::Verdict;
use crate::core::ids::{NodeId, RoomName};
use crate::events::LogError;
use crate::events::sqlite::Applied;
use crate::telemetry::traces;

/// Records in one commit, bounding how long one may take.
const AT_ONCE: usize = 256;
/// Between two tries to write what the disk did not take.
const HELD_FOR: Duration = Duration::from_millis(250);
/// Tries to make sense of a record, before it goes to the dead letters.
const TRIES: u32 = 3;

/// A record, and whether it counts: which is decided once, in the order of the log.
#[derive(Debug)]
struct Judged {
    read: Read,
    /// Absent where nobody can read it, or it is in the snapshot with which its room began.
    record: Option<Record>,
    counts: bool,
}

impl Judged {
    fn applied(&self, own: &NodeId) -> Applied<'_> {
        let record = self.record.as_ref();
        let counting = record.filter(|_| self.counts);
        let written = record.filter(|record| record.writer.node == *own);
        Applied {
            partition: self.read.partition,
            next: self.read.offset + 1,
            events: counting.map_or(&[], |record| record.events.as_slice()),
            opened: counting.filter(|record| record.opens).map(|record| (&record.room, &record.writer)),
            written: written.map(|record| (record.number, self.read.payload.as_slice())),
        }
    }
}

/// Records that the disk did not take.
#[derive(Debug)]
pub(super) struct Held {
    records: VecDeque<Judged>,
    why: LogError,
    /// When they are tried again.
    at: Instant,
}

impl Held {
    pub fn why(&self) -> &LogError {
        &self.why
    }
}

impl KafkaLog {
    /// Takes what there is, waiting so long for the first of it.
    pub(super) fn read(&mut self, within: Duration) {
        let mut records = match self.held.take() {
            Some(held) if Instant::now() < held.at => {
                self.held = Some(held);
                std::thread::park_timeout(within);
                return;
            }
            Some(held) => held.records,
            None => self.judge_what_there_is(within),
        };
        if let Err(why) = self.take_all(&mut records) {
            self.held = Some(Held { records, why, at: Instant::now() + HELD_FOR });
        }
    }

    fn judge_what_there_is(&mut self, within: Duration) -> VecDeque<Judged> {
        let (mut records, mut wait) = (VecDeque::new(), within);
        while records.len() < AT_ONCE
            && let Some(read) = self.link.poll(std::mem::take(&mut wait))
        {
            records.push_back(self.judge(read));
        }
        records
    }

    fn judge(&mut self, read: Read) -> Judged {
        let Some(record) = (0..TRIES).find_map(|_| Record::parse(&read.payload).ok()) else {
            self.link.bury(&read, "unreadable");
            return Judged { read, record: None, counts: false };
        };
        if self.partial.as_ref().is_some_and(|begun| begun.is_in_snapshot(&record.room, read.offset)) {
            return Judged { read, record: None, counts: false };
        }
        let verdict = self.fence.handle_record(&record.room, &record.writer, record.opens);
        Judged { read, record: Some(record), counts: verdict == Verdict::Counts }
    }

    /// Takes records in one commit; where one of them is rejected, each in its own. What is left over is for
    /// another time.
    fn take_all(&mut self, records: &mut VecDeque<Judged>) -> Result<(), LogError> {
        let applied: Vec<Applied<'_>> = records.iter().map(|judged| judged.applied(&self.node)).collect();
        match self.copy.apply_all(&applied) {
            Ok(answers) => {
                for (judged, answers) in records.drain(..).zip(answers) {
                    self.finish(&judged, Ok(answers));
                }
                return Ok(());
            }
            Err(LogError::Rejected(_)) => {}
            Err(why) => return Err(why),
        }
        while let Some(judged) = records.front() {
            let applied = judged.applied(&self.node);
            let result = match self.copy.apply(&applied) {
                Err(LogError::Rejected(why)) => {
                    self.copy.apply(&Applied { events: &[], ..applied })?;
                    self.link.bury(&judged.read, "rejected");
                    Err(LogError::Rejected(why))
                }
                result => Ok(result?),
            };
            if let Some(judged) = records.pop_front() {
                self.finish(&judged, result);
            }
        }
        Ok(())
    }

    /// A record is in the copy: whoever waits for it is answered.
    fn finish(&mut self, judged: &Judged, result: Result<Vec<Appended>, LogError>) {
        self.taken += 1;
        let Judged { read, record, counts } = judged;
        if let Some(trace) = &read.trace {
            let span =
                tracing::info_span!(parent: None, "read", otel.kind = "consumer", offset = read.offset);
            traces::go_on(&span, Some(trace));
        }
        let Some(record) = record else { return };
        let own = record.writer.node == self.node;
        let of_this_start = own && record.writer.incarnation == self.incarnation;
        // An opening from before ours, which is read only now, takes nothing from us.
        let is_later = self.epochs.get(&record.room).is_some_and(|own| *own <= record.writer.epoch);
        if *counts && record.opens && !of_this_start && is_later {
            self.epochs.remove(&record.room);
            self.overtaken.push((record.room.clone(), record.writer.epoch));
        }
        if own {
            self.note_place(read);
        }
        if !counts {
            metrics::counter!("antiphon_log_fenced_total").increment(1);
        } else if record.room == RoomName::ledger() {
            self.ledger_moved.send_modify(|moves| *moves += 1);
        }
        if of_this_start {
            self.settle(record.number, if *counts { result } else { Err(LogError::Fenced) });
        }
    }
}
