//! The registry in memory: for a node that is alone, and for tests.
//!
//! What it holds is gone with its process, and so is whoever held it. Its clones are one registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;

use super::{Answer, Bid, Claim, Known, Lease, LeaseError, Leases, Pulse, boot_time};
use crate::core::ids::{NodeId, RoomName};
use crate::core::placement::{NodeRecord, Owner, Renewal};

#[derive(Debug, Default)]
struct State {
    /// With the time of the last sign of life.
    nodes: BTreeMap<NodeId, (NodeRecord, Duration)>,
    rooms: BTreeMap<RoomName, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// The epoch outlives its holder.
    epoch: u64,
    /// Absent once it was given up.
    holder: Option<(NodeId, u64)>,
    until: Duration,
    /// Absent once the room has ended.
    settings: Option<String>,
}

impl Entry {
    fn new(lease: &Lease, until: Duration, settings: &str) -> Self {
        let holder = Some((lease.node.clone(), lease.incarnation));
        Self { epoch: lease.epoch, holder, until, settings: Some(settings.to_owned()) }
    }

    fn is_held_by(&self, lease: &Lease) -> bool {
        self.holder
            .as_ref()
            .is_some_and(|(node, incarnation)| *node == lease.node && *incarnation == lease.incarnation)
    }

    fn owner(&self, now: Duration) -> Option<Owner> {
        let (node, incarnation) = self.holder.clone().filter(|_| self.until > now)?;
        Some(Owner { node, incarnation, epoch: self.epoch })
    }
}

/// [`Leases`] of one process.
#[derive(Debug, Clone)]
pub struct MemoryLeases {
    ttl: Duration,
    /// How long a room whose holder is gone waits for the next.
    orphan_kept: Duration,
    state: Arc<Mutex<State>>,
}

impl MemoryLeases {
    pub fn new(ttl: Duration, orphan_kept: Duration) -> Self {
        Self { ttl, orphan_kept, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change is left half done by a panic: each is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self, node: &NodeRecord) -> Pulse {
        let (now, ttl) = (boot_time(), self.ttl);
        let mut state = self.state();
        let other = state.nodes.get(&node.id);
        if other.is_some_and(|(other, _)| other.incarnation > node.incarnation) {
            return Pulse::Superseded;
        }
        state.nodes.insert(node.id.clone(), (node.clone(), now));
        state.nodes.retain(|_, (_, seen)| now.saturating_sub(*seen) < ttl);
        Pulse::Nodes(state.nodes.values().map(|(node, _)| node.clone()).collect())
    }

    /// The settings of a room that waits for its next holder.
    fn waiting(&self, entry: &Entry, now: Duration) -> Option<String> {
        entry.settings.clone().filter(|_| entry.until + self.orphan_kept > now)
    }

    fn take(&self, bid: &Bid) -> Claim {
        let now = boot_time();
        let mut state = self.state();
        let before = state.rooms.get(&bid.room);
        if let Some(owner) = before.and_then(|entry| entry.owner(now))
            && (owner.node != bid.node || bid.on_behalf)
        {
            return Claim::Held(owner);
        }
        let epoch = before.map_or(0, |entry| entry.epoch).max(bid.floor) + 1;
        let settings = before.and_then(|entry| self.waiting(entry, now)).unwrap_or_default();
        let (room, node, incarnation) = (bid.room.clone(), bid.node.clone(), bid.incarnation);
        let lease = Lease { room, node, incarnation, epoch };
        let entry = Entry::new(&lease, now + self.ttl, &settings);
        state.rooms.insert(lease.room, entry);
        Claim::Won { epoch, settings: Some(settings).filter(|settings| !settings.is_empty()) }
    }

    fn hold(&self, lease: &Lease, settings: &str) -> Renewal {
        let until = boot_time() + self.ttl;
        let mut state = self.state();
        let Some(entry) = state.rooms.get_mut(&lease.room) else {
            state.rooms.insert(lease.room.clone(), Entry::new(lease, until, settings));
            return Renewal::Reasserted;
        };
        if entry.is_held_by(lease) && lease.epoch <= entry.epoch {
            (entry.until, entry.settings) = (until, Some(settings.to_owned()));
            return Renewal::Renewed;
        }
        if entry.epoch < lease.epoch {
            *entry = Entry::new(lease, until, settings);
            return Renewal::Reasserted;
        }
        Renewal::Lost
    }

    /// Changes a room that is held under this lease.
    fn change<T>(&self, lease: &Lease, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut state = self.state();
        let entry = state.rooms.get_mut(&lease.room);
        entry.filter(|entry| entry.is_held_by(lease) && entry.epoch == lease.epoch).map(change)
    }
}

fn now<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    std::future::ready(Ok::<T, LeaseError>(answer)).boxed()
}

impl Leases for MemoryLeases {
    fn heartbeat<'a>(&'a self, node: &'a NodeRecord) -> Answer<'a, Pulse> {
        now(self.beat(node))
    }

    fn sign_off<'a>(&'a self, node: &'a NodeId, incarnation: u64) -> Answer<'a, ()> {
        let mut state = self.state();
        if state.nodes.get(node).is_some_and(|(record, _)| record.incarnation == incarnation) {
            state.nodes.remove(node);
        }
        now(())
    }

    fn look_up<'a>(&'a self, room: &'a RoomName) -> Answer<'a, Known> {
        let state = self.state();
        let entry = state.rooms.get(room);
        let time = boot_time();
        let owner = entry.and_then(|entry| entry.owner(time));
        let is_orphan = entry.is_some_and(|entry| self.waiting(entry, time).is_some());
        now(owner.map_or(if is_orphan { Known::Orphaned } else { Known::Free }, Known::Held))
    }

    fn claim<'a>(&'a self, bid: &'a Bid) -> Answer<'a, Claim> {
        now(self.take(bid))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, settings: &'a str) -> Answer<'a, Renewal> {
        now(self.hold(lease, settings))
    }

    fn release<'a>(&'a self, lease: &'a Lease, ended: bool) -> Answer<'a, bool> {
        let released = self.change(lease, |entry| {
            (entry.holder, entry.until) = (None, boot_time());
            entry.settings.take_if(|_| ended);
        });
        now(released.is_some())
    }

    fn hand_over<'a>(
        &'a self,
        lease: &'a Lease,
        to: &'a NodeId,
        incarnation: u64,
    ) -> Answer<'a, Option<u64>> {
        let until = boot_time() + self.ttl;
        now(self.change(lease, |entry| {
            entry.epoch += 1;
            (entry.holder, entry.until) = (Some((to.clone(), incarnation)), until);
            entry.epoch
        }))
    }
}
