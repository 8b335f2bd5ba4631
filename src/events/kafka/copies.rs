//! Which copy of the log serves, and what is written for those that have none yet.

use super::KafkaLog;
use super::connect::Read;
use super::partial::Partial;
use super::snapshot::{Checkpoint, EVERY, Next, Snapshot};
use crate::core::chat::{HistoryRange, WINDOW};
use crate::core::ids::RoomName;
use crate::events::{EventLog as _, LogError};

impl KafkaLog {
    /// The copy has everything from the beginning of the log to where it stands.
    pub fn is_whole(&self) -> bool {
        self.partial.is_none()
    }

    pub(super) fn check_whole(&self) -> Result<(), LogError> {
        if self.is_whole() { Ok(()) } else { Err(LogError::CatchingUp) }
    }

    /// A connection that reads from checkpoints on wants the snapshots taken first.
    pub(super) fn begin_with_snapshots(&mut self) {
        let Some(snapshots) = self.link.take_snapshots() else { return };
        let rooms = snapshots.rooms.len();
        let begun = Partial::begin(&self.directory, &self.copy, &snapshots);
        match begun.and_then(|serving| Ok((serving.fence()?, serving))) {
            Ok((fence, serving)) => {
                tracing::info!(rooms, "the copy of the log begins with snapshots");
                self.fence = fence;
                let whole = std::mem::replace(&mut self.copy, serving);
                match Partial::start(&self.directory, &self.settings, whole, &self.copy) {
                    Ok(partial) => self.partial = Some(partial),
                    // The next start goes on with it.
                    Err(error) => tracing::error!(%error, "what is older than the snapshots is not read"),
                }
            }
            Err(error) => {
                tracing::error!(%error, "the snapshots cannot be taken: the log is read from its beginning");
                self.link.read_from(Vec::new());
            }
        }
    }

    /// The whole copy serves, as soon as it is close behind the one that began with snapshots.
    pub(super) fn take_over_from_partial(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        let Some(mut whole) = partial.poll(self.link.positions()) else { return };
        let adopted = whole.adopt(&self.copy).and_then(|()| Ok((whole.fence()?, whole.positions()?)));
        match adopted {
            Ok((fence, positions)) => {
                (self.fence, self.copy, self.held) = (fence, whole, None);
                if let Some(partial) = self.partial.take() {
                    partial.remove();
                }
                self.link.read_from(positions);
                tracing::info!("the copy of the log is whole");
            }
            // The next start tries again; until then the one that is there serves.
            Err(error) => tracing::error!(%error, "the whole copy of the log cannot take over"),
        }
    }

    /// This node wrote the record at this place.
    pub(super) fn note_place(&mut self, read: &Read) {
        let next = read.offset + 1;
        if self.is_whole() && next % EVERY == 0 {
            match self.copy.changed(read.partition) {
                Ok(rooms) => self.due.push(Checkpoint { partition: read.partition, next }, rooms),
                // Whoever writes the next one has these rooms, too.
                Err(error) => tracing::warn!(%error, "no snapshots are written now"),
            }
        }
    }

    pub(super) fn write_snapshots(&mut self) {
        // What was read and could not be taken yet is in no snapshot.
        let Some(next) = (if self.held.is_none() { self.due.pop() } else { None }) else { return };
        let written = match &next {
            Next::Rooms(partition, rooms) => {
                rooms.iter().all(|room| self.write_snapshot(*partition, room).unwrap_or(false))
            }
            Next::Checkpoint(checkpoint) => {
                self.link.send_snapshot(&checkpoint.key(), &checkpoint.to_bytes())
            }
        };
        match next {
            Next::Checkpoint(Checkpoint { partition, next }) if written => {
                metrics::counter!("antiphon_log_checkpoints_total").increment(1);
                if let Err(error) = self.copy.forget_changed(partition, next) {
                    tracing::warn!(%error, "the next snapshots are more than they need be");
                }
            }
            _ if written => {}
            next => self.due.put_back(next),
        }
    }

    fn write_snapshot(&mut self, partition: i32, room: &RoomName) -> Result<bool, LogError> {
        let Some(writer) = self.fence.writer(room).cloned() else { return Ok(true) };
        let page = self.copy.messages(room, HistoryRange::Newest, WINDOW as u32)?;
        let place = self.link.positions().iter().find(|(of, _)| *of == partition);
        let snapshot = Snapshot {
            room: room.clone(),
            writer,
            partition,
            next: place.map_or(0, |(_, next)| *next),
            events: self.copy.count(room)?,
            messages: Snapshot::messages_of(page),
        };
        Ok(self.link.send_snapshot(room.as_str(), &snapshot.to_bytes()))
    }
}
