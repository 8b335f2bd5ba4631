//! Proves of a shared log, record by record, that it is sound: whoever had a room had it alone, epochs rise,
//! what was said in a room has one order, and nothing is in it twice.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::event::{Event, EventBody, EventId};
use super::fence::{Fence, Verdict, Writer};
use super::ids::{MessageId, RoomName};

/// Faults that are told in words; the rest are counted.
const FAULTS_MAX: usize = 100;

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    pub records: u64,
    /// Of writers who did not have the room, or not any more: passed over by all.
    pub fenced: u64,
    pub unreadable: u64,
    pub rooms: u64,
    /// Times that a room was opened, by whichever node.
    pub openings: u64,
    pub events: u64,
    /// Sent again, and taken once.
    pub repeats: u64,
    /// What must not be, in words.
    pub faults: Vec<String>,
    pub faults_total: u64,
}

#[derive(Debug, Default)]
struct Room {
    epoch: u64,
    /// With the room, as the ledger's stream has those of all rooms.
    ids: BTreeSet<(RoomName, EventId)>,
    messages: BTreeMap<u64, MessageId>,
}

/// Reads a log from its beginning.
#[derive(Debug, Default)]
pub struct Audit {
    fence: Fence,
    rooms: BTreeMap<RoomName, Room>,
    findings: Findings,
}

impl Audit {
    /// The next record, and whether it counted.
    pub fn handle_record(
        &mut self,
        room: &RoomName,
        writer: &Writer,
        opens: bool,
        events: &[Event],
    ) -> Verdict {
        let verdict = self.fence.handle_record(room, writer, opens);
        self.findings.records += 1;
        if verdict == Verdict::Fenced {
            self.findings.fenced += 1;
        } else {
            self.handle_counted(room, writer, opens, events);
        }
        verdict
    }

    /// A record that counted, by whatever fence its reader has.
    pub fn handle_counted(&mut self, room: &RoomName, writer: &Writer, opens: bool, events: &[Event]) {
        let seen = self.rooms.entry(room.clone()).or_default();
        let mut faults = Vec::new();
        if writer.epoch < seen.epoch {
            faults.push(format!("{room}: epoch {} after {}", writer.epoch, seen.epoch));
        }
        self.findings.openings += u64::from(opens && writer.epoch > seen.epoch);
        seen.epoch = seen.epoch.max(writer.epoch);
        for event in events {
            if !seen.ids.insert((event.room.clone(), event.id.clone())) {
                self.findings.repeats += 1;
                continue;
            }
            self.findings.events += 1;
            let EventBody::ChatSent { seq, message, .. } = &event.body else { continue };
            if let Some(last) = seen.messages.last_key_value().filter(|(last, _)| *last >= seq) {
                faults.push(format!("{room}: message {seq} after message {}", last.0));
            }
            if seen.messages.values().any(|known| known == message) {
                faults.push(format!("{room}: a message has two places, {seq} is the second"));
            }
            seen.messages.insert(*seq, message.clone());
        }
        for fault in faults {
            self.findings.faults_total += 1;
            if self.findings.faults.len() < FAULTS_MAX {
                self.findings.faults.push(fault);
            }
        }
    }

    pub fn handle_unreadable(&mut self) {
        self.findings.records += 1;
        self.findings.unreadable += 1;
    }

    /// Whether a message is in the log, and counts.
    pub fn has_message(&self, room: &RoomName, message: &MessageId) -> bool {
        let id = (room.clone(), EventId::of_message(message));
        self.rooms.get(room).is_some_and(|room| room.ids.contains(&id))
    }

    pub fn findings(mut self) -> Findings {
        self.findings.rooms = self.rooms.len() as u64;
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::{Identity, NodeId};

    fn said(seq: u64, id: &str) -> Event {
        let message = MessageId::parse(id).unwrap();
        let identity = Identity::parse("ann").unwrap();
        let body = EventBody::ChatSent {
            message: message.clone(),
            seq,
            identity,
            name: "Ann".into(),
            text: "hi".into(),
            reply_to: None,
            file: None,
        };
        Event { id: EventId::of_message(&message), room: room(), at_ms: 1, body }
    }

    fn room() -> RoomName {
        RoomName::parse("room").unwrap()
    }

    fn writer(epoch: u64) -> Writer {
        Writer { epoch, node: NodeId::parse("a").unwrap(), incarnation: 1 }
    }

    #[test]
    fn a_sound_log_has_no_faults() {
        let mut audit = Audit::default();
        audit.handle_record(&room(), &writer(1), true, &[]);
        audit.handle_record(&room(), &writer(1), false, &[said(1, "m1"), said(2, "m2")]);
        audit.handle_record(&room(), &writer(2), true, &[]);
        audit.handle_record(&room(), &writer(1), false, &[said(3, "late")]);
        audit.handle_record(&room(), &writer(2), false, &[said(3, "m3"), said(3, "m3")]);
        let findings = audit.findings();
        assert_eq!((findings.fenced, findings.openings, findings.events, findings.repeats), (1, 2, 3, 1));
        assert_eq!(findings.faults, Vec::<String>::new());
    }

    #[test]
    fn a_log_without_a_fence_is_found_out() {
        let mut audit = Audit::default();
        audit.handle_counted(&room(), &writer(2), true, &[said(1, "m1"), said(2, "m2")]);
        audit.handle_counted(&room(), &writer(1), false, &[said(2, "zombie")]);
        assert_eq!(audit.findings().faults_total, 2, "its epoch, and its place");
    }
}
