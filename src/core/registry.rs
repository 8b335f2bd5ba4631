//! Who holds which room, as the registry of a cluster decides it: the whole of it, without a wire.
//!
//! The one in memory is this behind a lock, the one in simulation is this behind a bad network, and the
//! scripts in Redis do the same step by step; one suite holds all of them to it. Time is the registry's own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ids::{NodeId, RoomName};
use super::placement::{NodeRecord, Owner, Renewal};

/// Rooms beyond which those that nobody holds are forgotten. Their epochs are then the log's to know.
const ROOMS_REMEMBERED: usize = 65_536;

/// A wish to hold a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bid {
    pub room: RoomName,
    /// Who is to hold it.
    pub node: NodeId,
    pub incarnation: u64,
    /// The highest epoch that the event log knows of this room; the new one is above it.
    pub floor: u64,
    /// Somebody else asks for the node, and does not know what it holds by now.
    pub on_behalf: bool,
    /// It may be held by a node whose word the registry lost: while that may be said again, wait.
    pub may_be_held: bool,
}

/// The answer to a [`Bid`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    Won {
        epoch: u64,
        /// The room's settings, from a holder that did not end it.
        settings: Option<String>,
    },
    Held(Owner),
    /// The registry was emptied lately; ask again after this time.
    Settling(Duration),
}

/// What is known of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Never held, or ended by its holder.
    Free,
    /// Its holder's lease has run out.
    Orphaned,
    Held(Owner),
}

/// A lease, as its holder names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub room: RoomName,
    pub node: NodeId,
    pub incarnation: u64,
    pub epoch: u64,
}

/// The answer to a node's sign of life.
#[derive(Debug, Clone, PartialEq)]
pub enum Pulse {
    /// All nodes that are alive.
    Nodes(Vec<NodeRecord>),
    /// A later start of the same node has taken this one's place.
    Superseded,
}

#[derive(Debug, Clone)]
struct Entry {
    /// It outlives its holder.
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
        let holder = self.holder.as_ref();
        holder.is_some_and(|(node, incarnation)| *node == lease.node && *incarnation == lease.incarnation)
    }

    fn owner(&self, now: Duration) -> Option<Owner> {
        let (node, incarnation) = self.holder.clone().filter(|_| self.until > now)?;
        Some(Owner { node, incarnation, epoch: self.epoch })
    }
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    ttl: Duration,
    /// How long a room whose holder is gone waits for the next.
    orphan_kept: Duration,
    /// When holders have said again what they hold.
    settled_at: Duration,
    /// With the time of the last sign of life.
    nodes: BTreeMap<NodeId, (NodeRecord, Duration)>,
    rooms: BTreeMap<RoomName, Entry>,
}

impl Registry {
    /// One that nobody held rooms in before.
    pub fn new(ttl: Duration, orphan_kept: Duration) -> Self {
        let settled_at = Duration::ZERO;
        Self { ttl, orphan_kept, settled_at, nodes: BTreeMap::new(), rooms: BTreeMap::new() }
    }

    /// Everything is forgotten; `settle` is how long holders have to say again what they hold.
    pub fn empty(&mut self, now: Duration, settle: Duration) {
        self.nodes.clear();
        self.rooms.clear();
        self.settled_at = now + settle;
    }

    pub fn heartbeat(&mut self, now: Duration, node: &NodeRecord) -> Pulse {
        let other = self.nodes.get(&node.id);
        if other.is_some_and(|(other, _)| other.incarnation > node.incarnation) {
            return Pulse::Superseded;
        }
        self.nodes.insert(node.id.clone(), (node.clone(), now));
        self.nodes.retain(|_, (_, seen)| now.saturating_sub(*seen) < self.ttl);
        Pulse::Nodes(self.nodes.values().map(|(node, _)| node.clone()).collect())
    }

    pub fn sign_off(&mut self, node: &NodeId, incarnation: u64) {
        if self.nodes.get(node).is_some_and(|(record, _)| record.incarnation == incarnation) {
            self.nodes.remove(node);
        }
    }

    pub fn look_up(&self, now: Duration, room: &RoomName) -> Known {
        let entry = self.rooms.get(room);
        let owner = entry.and_then(|entry| entry.owner(now));
        let is_orphan = entry.is_some_and(|entry| self.waiting(entry, now).is_some());
        owner.map_or(if is_orphan { Known::Orphaned } else { Known::Free }, Known::Held)
    }

    /// The settings of a room that waits for its next holder.
    fn waiting(&self, entry: &Entry, now: Duration) -> Option<String> {
        entry.settings.clone().filter(|_| entry.until + self.orphan_kept > now)
    }

    pub fn claim(&mut self, now: Duration, bid: &Bid) -> Claim {
        let before = self.rooms.get(&bid.room);
        if let Some(owner) = before.and_then(|entry| entry.owner(now))
            && (owner.node != bid.node || bid.on_behalf)
        {
            return Claim::Held(owner);
        }
        if before.is_none() && bid.may_be_held && now < self.settled_at {
            return Claim::Settling(self.settled_at - now);
        }
        let epoch = before.map_or(0, |entry| entry.epoch).max(bid.floor) + 1;
        let settings = before.and_then(|entry| self.waiting(entry, now)).unwrap_or_default();
        let (room, node, incarnation) = (bid.room.clone(), bid.node.clone(), bid.incarnation);
        let lease = Lease { room, node, incarnation, epoch };
        let entry = Entry::new(&lease, now + self.ttl, &settings);
        self.rooms.insert(lease.room, entry);
        if self.rooms.len() > ROOMS_REMEMBERED {
            self.rooms.retain(|_, entry| entry.holder.is_some());
        }
        Claim::Won { epoch, settings: Some(settings).filter(|settings| !settings.is_empty()) }
    }

    pub fn renew(&mut self, now: Duration, lease: &Lease, settings: &str) -> Renewal {
        let until = now + self.ttl;
        let Some(entry) = self.rooms.get_mut(&lease.room) else {
            self.rooms.insert(lease.room.clone(), Entry::new(lease, until, settings));
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

    pub fn release(&mut self, now: Duration, lease: &Lease, ended: bool) -> bool {
        let released = self.change(lease, |entry| {
            (entry.holder, entry.until) = (None, now);
            entry.settings.take_if(|_| ended);
        });
        released.is_some()
    }

    pub fn hand_over(&mut self, now: Duration, lease: &Lease, to: &NodeId, incarnation: u64) -> Option<u64> {
        let until = now + self.ttl;
        self.change(lease, |entry| {
            entry.epoch += 1;
            (entry.holder, entry.until) = (Some((to.clone(), incarnation)), until);
            entry.epoch
        })
    }

    /// Changes a room that is held under this very lease.
    fn change<T>(&mut self, lease: &Lease, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.rooms.get_mut(&lease.room);
        entry.filter(|entry| entry.is_held_by(lease) && entry.epoch == lease.epoch).map(change)
    }
}
