//! This node among the others: what it holds, whom it knows, where a room is or is to be.
//!
//! A handle, cheap to clone. What it answers at once comes from what was last heard; what has to be agreed on
//! is asked of the registry. Its lock is held for a look or an assignment, never over a wait.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::sync::{Notify, mpsc};

use super::guarded::{Guarded, RetryBudget};
use super::memory::MemoryLeases;
use super::redis::{AddressError, RedisLeases};
use super::reunion::Reunion;
use super::{Bid, Claim, Known, Lease, LeaseError, SharedLeases, boot_time, keeper};
use crate::config::Config;
use crate::core::ids::{NodeId, RoomName};
use crate::core::placement::{
    Capacity, Holdings, JOINS_BELOW, LeaseTimes, NodeLoad, NodeRecord, NodeState, Owner, RecentJoins, choose,
};
use crate::mailbox;
use crate::telemetry::traces;

/// Claims of one node that may go on at the same time; those of one room never do.
const CLAIMS_AT_ONCE: usize = 64;
/// News for the control loop. Full: the keeper waits.
const NOTICES_MAX: usize = 1_024;
/// The only node there is.
const ALONE: &str = "alone";

/// What the control loop has to know of its leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseNotice {
    /// Another node has the room, or this node's place was taken: drop it.
    Lost { room: RoomName, epoch: u64 },
}

/// Where a room is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    Here,
    /// On the node with this URL.
    Elsewhere(String),
    /// Nowhere. `orphaned`: its node is gone, and it may go on elsewhere.
    Nowhere {
        orphaned: bool,
    },
}

/// A room that this node may open now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Won {
    pub epoch: u64,
    /// As its last holder left them, if it did not end the room.
    pub settings: Option<String>,
    /// Of the request that asked for it (W3C Trace Context), where that is kept.
    pub trace: Option<String>,
    /// When it was asked for, by [`boot_time`].
    sent: Duration,
}

/// Where a room is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    Here(Won),
    Elsewhere(String),
}

/// A room cannot be given a place now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Leases(#[from] LeaseError),
    /// Its node does not answer, and its lease has not run out.
    #[error("the room's node does not answer")]
    Waiting,
    #[error("no node takes new rooms")]
    Full,
}

/// The node's handle on the cluster.
#[derive(Clone)]
pub struct Cluster(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub id: NodeId,
    pub incarnation: u64,
    region: String,
    url: String,
    /// Where other nodes reach it by a link.
    relay: Option<String>,
    capacity: Capacity,
    pub leases: SharedLeases,
    /// Of what is asked of them.
    retries: RetryBudget,
    /// There are no others.
    alone: bool,
    /// The log knows the rooms of all nodes.
    shares_log: bool,
    pub times: LeaseTimes,
    /// How long a room whose holder is gone waits for the next.
    pub orphan_kept: Duration,
    /// The registry answered when it was last asked.
    pub reachable: AtomicBool,
    /// A later start of this node has taken its place.
    pub superseded: AtomicBool,
    /// Something is to be told of leases.
    pub news: Notify,
    /// A claim and the opening after it are one step for everyone else on this node.
    claims: Vec<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub holdings: Holdings,
    /// What goes with each lease.
    pub settings: BTreeMap<RoomName, String>,
    pub load: NodeLoad,
    joins: RecentJoins,
    draining: bool,
    /// All that were alive when last heard of.
    pub nodes: Vec<NodeRecord>,
    pub reunion: Reunion,
}

impl Cluster {
    /// Takes part, as configured: with Redis among others, else alone. Within a runtime.
    ///
    /// # Errors
    /// [`AddressError`] for a Redis that cannot be meant.
    pub fn start(config: &Config, unix_ms: u64) -> Result<(Self, mpsc::Receiver<LeaseNotice>), AddressError> {
        let settings = &config.cluster;
        let times = LeaseTimes::of(Duration::from_millis(settings.lease_ms));
        let orphan_kept = Duration::from_secs(config.rooms.empty_seconds);
        let leases: SharedLeases = match &settings.redis_url {
            Some(url) => {
                let ca_file = settings.redis_ca_file.as_deref();
                let replicas = settings.redis_replicas;
                Arc::new(Guarded::new(RedisLeases::new(url, ca_file, times.ttl, orphan_kept, replicas)?))
            }
            None => Arc::new(MemoryLeases::new(times.ttl, orphan_kept)),
        };
        let alone = settings.redis_url.is_none();
        Ok(Self::join(config, leases, alone, unix_ms))
    }

    /// Takes part in what `leases` holds together. `unix_ms` tells this start of the node from earlier ones.
    fn join(
        config: &Config,
        leases: SharedLeases,
        alone: bool,
        unix_ms: u64,
    ) -> (Self, mpsc::Receiver<LeaseNotice>) {
        let settings = &config.cluster;
        let times = LeaseTimes::of(Duration::from_millis(settings.lease_ms));
        let id = NodeId::parse(&settings.node_id).or_else(|_| NodeId::parse(ALONE));
        let url = settings.url.as_deref().unwrap_or_default();
        let inner = Inner {
            id: id.expect("a plain name"),
            incarnation: unix_ms,
            region: settings.region.clone(),
            url: url.trim_end_matches('/').to_owned(),
            relay: settings.relay.advertised(url),
            capacity: Capacity {
                egress_bps: settings.egress_bps_max as f64,
                packets_per_second: settings.packets_per_second_max as f64,
                peers: settings.peers_max,
            },
            leases,
            retries: RetryBudget::default(),
            alone,
            shares_log: !settings.kafka_brokers.is_empty(),
            times,
            orphan_kept: Duration::from_secs(config.rooms.empty_seconds),
            reachable: AtomicBool::new(alone),
            superseded: AtomicBool::new(false),
            news: Notify::new(),
            claims: (0..CLAIMS_AT_ONCE).map(|_| tokio::sync::Mutex::default()).collect(),
            state: Mutex::new(State {
                holdings: Holdings::new(times),
                settings: BTreeMap::new(),
                load: NodeLoad::default(),
                joins: RecentJoins::default(),
                draining: false,
                nodes: Vec::new(),
                reunion: Reunion::default(),
            }),
        };
        let cluster = Self(Arc::new(inner));
        let (notices, receiver) = mailbox::control(NOTICES_MAX);
        // Alone, nobody could take a room away.
        if !alone {
            tokio::spawn(keeper::run(cluster.clone(), notices));
        }
        (cluster, receiver)
    }

    /// There are no other nodes.
    pub fn is_alone(&self) -> bool {
        self.0.alone
    }

    pub fn id(&self) -> &NodeId {
        &self.0.id
    }

    /// New rooms can be placed, as far as the others matter for that.
    pub fn is_ready(&self) -> bool {
        self.0.reachable.load(Ordering::Relaxed) && !self.0.superseded.load(Ordering::Relaxed)
    }

    /// Where clients reach another node that takes new rooms.
    pub fn other_for_rooms(&self) -> Option<String> {
        self.0.choose_other().map(|node| node.url)
    }

    /// Where clients reach the other nodes that are alive.
    pub fn other_urls(&self) -> Vec<String> {
        let state = self.0.state();
        let others = state.nodes.iter().filter(|node| node.id != self.0.id);
        others.map(|node| node.url.clone()).collect()
    }

    /// The epoch under which this node holds a room.
    pub fn epoch(&self, room: &RoomName) -> Option<u64> {
        self.0.state().holdings.epoch(room)
    }

    /// Where a room is; asks nobody about rooms of this node.
    ///
    /// # Errors
    /// [`PlaceError::Leases`], [`PlaceError::Waiting`].
    pub async fn home(&self, room: &RoomName) -> Result<Home, PlaceError> {
        if self.0.alone || self.epoch(room).is_some() {
            return Ok(Home::Here);
        }
        self.0.check_reachable()?;
        match self.0.leases.look_up(room).await? {
            Known::Free => Ok(Home::Nowhere { orphaned: false }),
            Known::Orphaned => Ok(Home::Nowhere { orphaned: true }),
            Known::Held(owner) if owner.node == self.0.id => Ok(Home::Here),
            Known::Held(owner) => self.0.url_of(&owner).map(Home::Elsewhere),
        }
    }

    /// Keeps others on this node from claiming the same room, until it is dropped.
    pub async fn claiming(&self, room: &RoomName) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        room.hash(&mut hasher);
        self.0.claims[hasher.finish() as usize % CLAIMS_AT_ONCE].lock().await
    }

    /// Gives a room a node: the one that has it, this one, or where `anywhere` the one that suits best.
    /// `floor` is the highest epoch that the log knows of.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub async fn place(&self, room: &RoomName, floor: u64, anywhere: bool) -> Result<Placed, PlaceError> {
        let Inner { id, incarnation, leases, alone, .. } = &*self.0;
        self.0.check_reachable()?;
        let deadline = boot_time() + self.0.times.ttl * 3 / 2;
        loop {
            let (node, incarnation) = if *alone || !anywhere {
                (id.clone(), *incarnation)
            } else {
                match self.0.choose() {
                    Some(chosen) => (chosen.id, chosen.incarnation),
                    None => return self.only_if_placed(room).await,
                }
            };
            let on_behalf = node != *id;
            // A room that the log of all nodes has never heard of is held by none.
            let may_be_held = !alone && (floor > 0 || !self.0.shares_log);
            if may_be_held && let Some(pause) = self.0.pause_for_holder(room).await? {
                if boot_time() + pause > deadline {
                    return Err(PlaceError::Waiting);
                }
                tokio::time::sleep(pause).await;
                continue;
            }
            let bid = Bid { room: room.clone(), node, incarnation, floor, on_behalf, may_be_held };
            let sent = boot_time();
            match leases.claim(&bid).await? {
                Claim::Won { epoch, settings } if !on_behalf => {
                    counter!("antiphon_placement_claims_total", "result" => "here").increment(1);
                    let trace = traces::current();
                    return Ok(Placed::Here(Won { epoch, settings, trace, sent }));
                }
                Claim::Won { epoch, .. } => {
                    counter!("antiphon_placement_claims_total", "result" => "elsewhere").increment(1);
                    let owner = Owner { node: bid.node, incarnation: bid.incarnation, epoch };
                    return self.0.url_of(&owner).map(Placed::Elsewhere);
                }
                // It is ours already, as others know: take it up.
                Claim::Held(owner) if owner.node == *id && anywhere => {
                    return Box::pin(self.place(room, floor, false)).await;
                }
                Claim::Held(owner) => return self.0.url_of(&owner).map(Placed::Elsewhere),
                Claim::Settling(wait) if boot_time() + wait <= deadline => {
                    // Whoever holds it says so within this time.
                    tokio::time::sleep(wait).await;
                }
                Claim::Settling(_) => return Err(PlaceError::Waiting),
            }
        }
    }

    /// Nobody takes new rooms, but this one may be somewhere.
    async fn only_if_placed(&self, room: &RoomName) -> Result<Placed, PlaceError> {
        match self.home(room).await? {
            Home::Elsewhere(url) => Ok(Placed::Elsewhere(url)),
            Home::Here => Box::pin(self.place(room, 0, false)).await,
            Home::Nowhere { .. } => Err(PlaceError::Full),
        }
    }

    /// A room that was won is open now.
    pub fn opened(&self, room: &RoomName, won: &Won, settings: String) {
        {
            let mut state = self.0.state();
            state.settings.insert(room.clone(), settings.clone());
            state.holdings.handle_won(won.sent, room.clone(), won.epoch);
        }
        self.tell(room, won.epoch, settings);
    }

    /// The room's settings have changed.
    pub fn changed(&self, room: &RoomName, settings: String) {
        let epoch = {
            let mut state = self.0.state();
            let Some(kept) = state.settings.get_mut(room) else { return };
            kept.clone_from(&settings);
            state.holdings.epoch(room)
        };
        if let Some(epoch) = epoch {
            self.tell(room, epoch, settings);
        }
    }

    /// Has the settings stand with the lease at once: a room that is private now must be so on its next node.
    fn tell(&self, room: &RoomName, epoch: u64, settings: String) {
        if self.0.alone {
            return;
        }
        let inner = Arc::clone(&self.0);
        let lease = self.0.lease(room.clone(), epoch);
        tokio::spawn(async move {
            // If it fails the keeper says the same a little later.
            let _ = inner.retries.patiently(|| inner.leases.renew(&lease, &settings)).await;
        });
    }

    /// Lets a room go: it has `ended`, or another may open it as it was.
    pub fn give_up(&self, room: &RoomName, epoch: u64, ended: bool) {
        {
            let mut state = self.0.state();
            if state.holdings.handle_ended(room, epoch) {
                state.settings.remove(room);
            }
        }
        let inner = Arc::clone(&self.0);
        let lease = self.0.lease(room.clone(), epoch);
        tokio::spawn(async move {
            // One that cannot be given up now runs out by itself.
            let _ = inner.retries.patiently(|| inner.leases.release(&lease, ended)).await;
        });
    }

    /// Gives a room to another node, before this one lets go of it: false when there is none that takes it.
    pub async fn hand_over(&self, room: &RoomName) -> bool {
        let Some(to) = self.0.choose_other() else { return false };
        let Some(epoch) = self.epoch(room) else { return false };
        let lease = self.0.lease(room.clone(), epoch);
        let hand_over = || self.0.leases.hand_over(&lease, &to.id, to.incarnation);
        let handed = self.0.retries.patiently(hand_over).await;
        if !matches!(handed, Ok(Some(_))) {
            return false;
        }
        let mut state = self.0.state();
        state.holdings.handle_ended(room, epoch);
        state.settings.remove(room);
        true
    }

    /// Drops what went with a lease that is lost, unless the room was won again.
    pub(super) fn forget(&self, room: &RoomName) {
        let mut state = self.0.state();
        if state.holdings.epoch(room).is_none() {
            state.settings.remove(room);
        }
    }

    /// Somebody joined here.
    pub fn joined(&self) {
        self.0.state().joins.add(boot_time());
    }

    /// What the shards measured in the last second. The processors' share is this or, if more, the process's.
    pub fn measured(&self, load: NodeLoad) {
        self.0.state().load = load;
    }

    /// Another room may be opened here. Alone it always may: there is nowhere else to send it.
    pub fn admits_rooms(&self) -> bool {
        self.0.alone || self.0.record().takes_rooms()
    }

    pub fn admits_joins(&self) -> bool {
        self.0.alone || self.0.score() < JOINS_BELOW
    }

    /// No new rooms here from now on.
    pub fn drain(&self) {
        self.0.state().draining = true;
    }

    pub fn is_draining(&self) -> bool {
        self.0.state().draining
    }

    /// Others need not wait for this node's silence.
    pub async fn sign_off(&self) {
        if !self.0.alone {
            // If it fails, silence says the same a little later.
            let _ = self.0.leases.sign_off(&self.0.id, self.0.incarnation).await;
        }
    }
}

impl Inner {
    pub fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before the lock is left.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn lease(&self, room: RoomName, epoch: u64) -> Lease {
        Lease { room, node: self.id.clone(), incarnation: self.incarnation, epoch }
    }

    pub fn score(&self) -> f64 {
        let mut state = self.state();
        let joins = state.joins.count(boot_time());
        state.load.score(&self.capacity, joins)
    }

    /// What this node says of itself.
    pub fn record(&self) -> NodeRecord {
        let (score, state) = (self.score(), self.state());
        NodeRecord {
            id: self.id.clone(),
            incarnation: self.incarnation,
            url: self.url.clone(),
            region: self.region.clone(),
            state: if state.draining { NodeState::Draining } else { NodeState::Active },
            score,
            rooms: u32::try_from(state.holdings.len()).unwrap_or(u32::MAX),
            relay: self.relay.clone(),
            seats_lodgers: self.relay.is_some(),
        }
    }

    /// A registry that did not answer is asked by the keeper alone until it does: nobody else waits for it.
    pub fn check_reachable(&self) -> Result<(), LeaseError> {
        if self.superseded.load(Ordering::Relaxed) {
            return Err(LeaseError::Unreachable("a later start of this node has its place".into()));
        }
        if self.reachable.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(LeaseError::Unreachable("it does not answer".into()))
    }

    fn choose(&self) -> Option<NodeRecord> {
        let own = self.record();
        let mut nodes = self.state().nodes.clone();
        nodes.retain(|node| node.id != self.id);
        nodes.push(own);
        choose(&nodes, &self.region, rand::random()).cloned()
    }

    fn choose_other(&self) -> Option<NodeRecord> {
        let mut nodes = self.state().nodes.clone();
        nodes.retain(|node| node.id != self.id);
        choose(&nodes, &self.region, rand::random()).cloned()
    }

    fn url_of(&self, owner: &Owner) -> Result<String, PlaceError> {
        let state = self.state();
        let node = state.nodes.iter().find(|node| node.id == owner.node);
        node.map(|node| node.url.clone()).ok_or(PlaceError::Waiting)
    }
}
