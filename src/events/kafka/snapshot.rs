//! Snapshots: what a room is at a place in the log, so that a node that has nothing yet need not read how it
//! came to be so before it can open the room.
//!
//! They stand in a compacted topic of their own, the last one of each room by its name. After those of all
//! rooms that a partition has changed comes a checkpoint: whoever takes all snapshots may begin to read the
//! partition there. Whoever wrote the record at each [`EVERY`]th place writes them; if it dies over it, the
//! next does.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::core::chat::MessagePage;
use crate::core::fence::Writer;
use crate::core::ids::RoomName;
use crate::core::protocol::ChatMessage;

/// Records of a partition from one checkpoint to the next.
pub const EVERY: i64 = 500;
/// Of one snapshot's messages: a broker takes records of one MiB unless it is told otherwise.
pub const BYTES_MAX: usize = 512 << 10;
/// Snapshots that are written in one go, so that the log does not stand still for them.
const AT_ONCE: usize = 4;

/// A room at a place in the log. What a newer version adds is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub room: RoomName,
    pub writer: Writer,
    pub partition: i32,
    /// The place behind all that is in it.
    pub next: i64,
    /// How many events the room had.
    pub events: u64,
    /// The newest, oldest first.
    pub messages: Vec<ChatMessage>,
}

/// From here on a partition may be read by who has all snapshots before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub partition: i32,
    pub next: i64,
}

impl Snapshot {
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data always has a JSON form; without one it would be passed over by its readers.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The place of its oldest message; 1 where it has all.
    pub fn first_seq(&self) -> u64 {
        self.messages.first().map_or(1, |message| message.seq)
    }

    /// Of a page that may be too large.
    pub fn messages_of(page: MessagePage) -> Vec<ChatMessage> {
        page.keep_newest(BYTES_MAX).messages
    }
}

impl Checkpoint {
    /// No room has such a name.
    pub fn key(&self) -> String {
        format!("@{}", self.partition)
    }

    pub fn to_bytes(self) -> Vec<u8> {
        serde_json::to_vec(&self).unwrap_or_default()
    }
}

/// All that the topic holds, the last of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshots {
    pub rooms: BTreeMap<RoomName, Snapshot>,
    pub checkpoints: BTreeMap<i32, i64>,
    /// A room's could not be read.
    unreadable: bool,
}

impl Snapshots {
    /// Takes the next record of the topic. Where a room's cannot be read, as of a newer version, all is read
    /// from the beginning of the log.
    pub fn take(&mut self, key: &[u8], payload: &[u8]) {
        if key.starts_with(b"@") {
            if let Ok(Checkpoint { partition, next }) = serde_json::from_slice(payload) {
                self.checkpoints.insert(partition, next);
            }
            return;
        }
        match serde_json::from_slice::<Snapshot>(payload) {
            Ok(snapshot) => drop(self.rooms.insert(snapshot.room.clone(), snapshot)),
            Err(_) => self.unreadable = true,
        }
    }

    /// Where to begin, by partition; nothing where there is nothing to be gained.
    pub fn positions(&self) -> Vec<(i32, i64)> {
        if self.unreadable {
            return Vec::new();
        }
        self.checkpoints.iter().map(|(partition, next)| (*partition, *next)).collect()
    }
}

/// Snapshots that are to be written, and the checkpoints behind them.
#[derive(Debug, Default)]
pub struct Due(VecDeque<(Checkpoint, Vec<RoomName>)>);

/// What is to be written next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Rooms(i32, Vec<RoomName>),
    Checkpoint(Checkpoint),
}

impl Due {
    pub fn push(&mut self, checkpoint: Checkpoint, rooms: Vec<RoomName>) {
        self.0.push_back((checkpoint, rooms));
    }

    /// A few at a time; what could not be written is pushed back by [`Due::put_back`].
    pub fn pop(&mut self) -> Option<Next> {
        let (checkpoint, rooms) = self.0.front_mut()?;
        if rooms.is_empty() {
            return self.0.pop_front().map(|(checkpoint, _)| Next::Checkpoint(checkpoint));
        }
        let rest = rooms.split_off(rooms.len().min(AT_ONCE));
        Some(Next::Rooms(checkpoint.partition, std::mem::replace(rooms, rest)))
    }

    pub fn put_back(&mut self, next: Next) {
        match next {
            Next::Checkpoint(checkpoint) => self.0.push_front((checkpoint, Vec::new())),
            Next::Rooms(_, mut again) => {
                if let Some((_, rooms)) = self.0.front_mut() {
                    again.append(rooms);
                    *rooms = again;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::NodeId;

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    fn snapshot(name: &str, next: i64) -> Snapshot {
        let writer = Writer { epoch: 1, node: NodeId::parse("a").unwrap(), incarnation: 1 };
        Snapshot { room: room(name), writer, partition: 0, next, events: 3, messages: Vec::new() }
    }

    #[test]
    fn the_last_of_each_counts() {
        let mut all = Snapshots::default();
        all.take(b"one", &snapshot("one", 5).to_bytes());
        all.take(b"one", &snapshot("one", 9).to_bytes());
        assert_eq!(all.positions(), [], "without a checkpoint there is nothing to be gained");
        let checkpoint = Checkpoint { partition: 0, next: 8 };
        all.take(checkpoint.key().as_bytes(), &checkpoint.to_bytes());
        all.take(b"@1", b"a newer version's");
        assert_eq!((all.rooms[&room("one")].next, all.positions()), (9, vec![(0, 8)]));
        all.take(b"two", b"a newer version's");
        assert_eq!(all.positions(), [], "a room would be missing");
    }

    #[test]
    fn rooms_come_before_their_checkpoint_and_nothing_is_left_out() {
        let mut due = Due::default();
        let checkpoint = Checkpoint { partition: 2, next: 500 };
        let names: Vec<RoomName> = (0..10).map(|number| room(&format!("room-{number}"))).collect();
        due.push(checkpoint, names.clone());
        let mut written = Vec::new();
        for turn in 0.. {
            match due.pop().expect("it is not over") {
                // Each second time it cannot be written.
                next if turn % 2 == 0 => due.put_back(next),
                Next::Rooms(partition, rooms) => {
                    assert!(partition == 2 && rooms.len() <= AT_ONCE);
                    written.extend(rooms);
                }
                Next::Checkpoint(last) => {
                    assert_eq!((last, &written), (checkpoint, &names));
                    break;
                }
            }
        }
        assert_eq!(due.pop(), None);
    }
}
