//! After the registry was out of reach: rooms whose leases ran out meanwhile are left to those who had them.
//!
//! When the registry itself was away, all nodes come back to it within moments of each other, and its word
//! for any room is that nobody holds it. Whoever came first would take rooms that are open on others. So a
//! node that was away itself claims none of them until their holders have had a lease's time to speak. And a
//! holder that reads in the log that it was overtaken lets go at once, whether it reaches the registry or
//! not.

use std::time::Duration;

use super::handle::Inner;
use super::{Cluster, Known, LeaseError, boot_time};
use crate::core::ids::RoomName;
use crate::core::placement::Renewal;

/// When this node last came back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reunion {
    /// Until when rooms are left to their holders, by [`boot_time`].
    until: Duration,
    /// For how long it had been away.
    away: Duration,
}

impl Cluster {
    /// The log says that another node has this room: its lease is not renewed, and the control loop is told.
    pub fn fenced(&self, room: &RoomName) {
        let epoch = self.epoch(room);
        self.let_go(room, epoch);
    }

    /// The log says that another node has opened this room under this epoch.
    pub fn overtaken(&self, room: &RoomName, by: u64) {
        let epoch = self.epoch(room).filter(|epoch| *epoch <= by);
        self.let_go(room, epoch);
    }

    fn let_go(&self, room: &RoomName, epoch: Option<u64>) {
        if let Some(epoch) = epoch {
            self.0.state().holdings.handle_renewal(boot_time(), room, epoch, &Renewal::Lost);
            self.0.news.notify_one();
        }
    }
}

impl Inner {
    /// The registry answers again, after so long.
    pub(super) fn note_back(&self, now: Duration, away: Duration) {
        self.state().reunion = Reunion { until: now + self.times.ttl, away };
    }

    /// How long to wait before it is looked again whether a room's holder has spoken; none where it may be
    /// claimed now.
    pub(super) async fn pause_for_holder(&self, room: &RoomName) -> Result<Option<Duration>, LeaseError> {
        let reunion = self.state().reunion;
        let left = reunion.until.saturating_sub(boot_time());
        if left.is_zero() {
            return Ok(None);
        }
        let is_left_to_it = match self.leases.look_up(room).await? {
            Known::Orphaned => true,
            // A room that was without a holder for so long is told from a free one no more.
            Known::Free => reunion.away >= self.orphan_kept,
            Known::Held(_) => false,
        };
        Ok(is_left_to_it.then(|| left.min(self.times.renew_every)))
    }
}
