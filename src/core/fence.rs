//! Whose word counts in a shared log: each reader decides alike, from the log alone.
//!
//! Who takes a room over first writes that it opened it, under its epoch. From there on only its records
//! count, until somebody opens the room under a higher epoch; of two with the same epoch the first in the log
//! has it. A record that does not count is passed over, so it is safe whatever leases, clocks and delays did
//! to its writer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{NodeId, RoomName};

/// Who writes, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    pub epoch: u64,
    pub node: NodeId,
    /// Which start of the node.
    pub incarnation: u64,
}

/// Whether a record counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Counts,
    /// Of a writer who is not the room's, or not any more.
    Fenced,
}

/// The writers of all rooms, as the log has them up to here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    writers: BTreeMap<RoomName, Writer>,
}

impl Fence {
    /// As it was at an earlier place in the log.
    pub fn restore(writers: impl IntoIterator<Item = (RoomName, Writer)>) -> Self {
        Self { writers: writers.into_iter().collect() }
    }

    /// Takes the next record of the log. `opens`: it says that its writer has the room from here on.
    pub fn handle_record(&mut self, room: &RoomName, writer: &Writer, opens: bool) -> Verdict {
        let current = self.writers.get(room);
        if current == Some(writer) {
            return Verdict::Counts;
        }
        if !opens || current.is_some_and(|current| current.epoch >= writer.epoch) {
            return Verdict::Fenced;
        }
        self.writers.insert(room.clone(), writer.clone());
        Verdict::Counts
    }

    pub fn writer(&self, room: &RoomName) -> Option<&Writer> {
        self.writers.get(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(node: &str, epoch: u64) -> Writer {
        Writer { epoch, node: NodeId::parse(node).unwrap(), incarnation: 1 }
    }

    #[test]
    fn only_who_opened_last_counts() {
        let mut fence = Fence::default();
        let room = RoomName::parse("room").unwrap();
        let (a, b) = (writer("a", 1), writer("b", 2));
        assert_eq!(fence.handle_record(&room, &a, false), Verdict::Fenced, "nobody opened it");
        assert_eq!(fence.handle_record(&room, &a, true), Verdict::Counts);
        assert_eq!(fence.handle_record(&room, &a, false), Verdict::Counts);
        assert_eq!(fence.handle_record(&room, &b, false), Verdict::Fenced, "it did not open it yet");
        assert_eq!(fence.handle_record(&room, &b, true), Verdict::Counts);
        assert_eq!(fence.handle_record(&room, &a, false), Verdict::Fenced);
        assert_eq!(fence.handle_record(&room, &a, true), Verdict::Fenced, "an epoch never comes back");
        assert_eq!(fence.handle_record(&room, &b, true), Verdict::Counts, "said twice");
    }

    #[test]
    fn of_two_with_one_epoch_the_first_has_it() {
        let mut fence = Fence::default();
        let room = RoomName::parse("room").unwrap();
        assert_eq!(fence.handle_record(&room, &writer("a", 7), true), Verdict::Counts);
        assert_eq!(fence.handle_record(&room, &writer("b", 7), true), Verdict::Fenced);
        let restarted = Writer { incarnation: 2, ..writer("a", 7) };
        assert_eq!(fence.handle_record(&room, &restarted, false), Verdict::Fenced);
        assert_eq!(fence.writer(&room), Some(&writer("a", 7)));
    }
}
