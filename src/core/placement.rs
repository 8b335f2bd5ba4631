//! Which node a room lives on, and what the node that holds it may do: loads to a choice, renewals to leases.
//!
//! A room's owner holds a lease with an epoch. Each new owner has a higher epoch, so whoever reads one above
//! its own knows that it is no longer the owner. Time is that of a clock that runs on while the machine
//! sleeps, as a [`Duration`] since some beginning: a node that was frozen must notice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{NodeId, RoomName};

/// From this score on a node takes no new rooms, so that those it has may grow.
pub const ROOMS_BELOW: f64 = 0.8;
/// From this score on it takes nobody more.
pub const JOINS_BELOW: f64 = 0.95;
/// Share of the processors at which a node counts as full: above it, packets wait.
const CPU_FULL: f64 = 0.8;
/// For so long a join is not fully seen in the measured load.
const JOIN_RAMP: Duration = Duration::from_secs(20);
/// What one more participant is taken to cost where nothing was measured yet, and at most.
const JOIN_COST: (f64, f64) = (0.002, 0.01);
/// Scores that differ by less are the same: they are a second old, and most of a small one is noise.
const SCORE_NOISE: f64 = 0.05;
/// Seconds of joins that are remembered, one count for each.
const RAMP_SECONDS: usize = JOIN_RAMP.as_secs() as usize;

/// How long a lease holds and when it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// From a renewal to the end of the lease.
    pub ttl: Duration,
    pub renew_every: Duration,
    /// This long before its end a lease that could not be renewed is uncertain.
    pub margin: Duration,
}

impl LeaseTimes {
    /// Renewed five times within `ttl`, uncertain for its last three tenths.
    pub fn of(ttl: Duration) -> Self {
        Self { ttl, renew_every: ttl / 5, margin: ttl * 3 / 10 }
    }
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Active,
    /// Takes no new rooms and gives up those it has.
    Draining,
    /// Said by a newer version, so nothing is sent there.
    #[serde(other)]
    Unknown,
}

/// What a node tells the others of itself. Fields that a newer version adds are passed over, and those that
/// an older one does not tell have defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: NodeId,
    /// Rises with each start of the node.
    pub incarnation: u64,
    /// Where clients reach it, without a slash at its end.
    pub url: String,
    #[serde(default)]
    pub region: String,
    pub state: NodeState,
    /// 1 is full.
    #[serde(default)]
    pub score: f64,
    #[serde(default)]
    pub rooms: u32,
    /// Where other nodes reach it by a link, `HOST:PORT`. Without one it gives and takes no branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// It seats members of its rooms who are connected in branches at other nodes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seats_lodgers: bool,
}

impl NodeRecord {
    pub fn takes_rooms(&self) -> bool {
        self.state == NodeState::Active && self.score < ROOMS_BELOW
    }
}

/// What a node does, as it was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NodeLoad {
    /// Share of the machine's processors, 0–1.
    pub cpu: f64,
    pub egress_bps: f64,
    pub packets_per_second: f64,
    pub peers: u32,
}

/// What a node can do at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    pub egress_bps: f64,
    pub packets_per_second: f64,
    pub peers: u32,
}

impl NodeLoad {
    /// The scarcest resource's share in use; 1 is full.
    pub fn measured(&self, capacity: &Capacity) -> f64 {
        let shares = [
            self.cpu / CPU_FULL,
            self.egress_bps / capacity.egress_bps,
            self.packets_per_second / capacity.packets_per_second,
            f64::from(self.peers) / f64::from(capacity.peers),
        ];
        shares.into_iter().fold(0.0, f64::max)
    }

    /// With what those who joined lately will cost.
    pub fn score(&self, capacity: &Capacity, joins: u32) -> f64 {
        let measured = self.measured(capacity);
        let (least, most) = JOIN_COST;
        let each = if self.peers == 0 { least } else { (measured / f64::from(self.peers)).clamp(0.0, most) };
        measured + f64::from(joins) * each
    }
}

/// Joins of the last seconds.
#[derive(Debug, Clone, Default)]
pub struct RecentJoins {
    /// Counts by the second, oldest first.
    counts: VecDeque<u32>,
    second: u64,
}

impl RecentJoins {
    pub fn add(&mut self, now: Duration) {
        self.advance(now);
        if let Some(count) = self.counts.back_mut() {
            *count = count.saturating_add(1);
        }
    }

    pub fn count(&mut self, now: Duration) -> u32 {
        self.advance(now);
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn advance(&mut self, now: Duration) {
        let passed = now.as_secs().saturating_sub(self.second);
        self.second = self.second.max(now.as_secs());
        for _ in 0..passed.min(RAMP_SECONDS as u64) {
            self.counts.push_back(0);
        }
        if self.counts.is_empty() {
            self.counts.push_back(0);
        }
        while self.counts.len() > RAMP_SECONDS {
            self.counts.pop_front();
        }
    }
}

/// The node for a new room: of two by chance, the one with less to do. Those of the region come first, and
/// where it has none that takes rooms, all do.
pub fn choose<'a>(nodes: &'a [NodeRecord], region: &str, seed: u64) -> Option<&'a NodeRecord> {
    let near: Vec<_> = nodes.iter().filter(|node| node.takes_rooms() && node.region == region).collect();
    let of = if near.is_empty() { nodes.iter().filter(|node| node.takes_rooms()).collect() } else { near };
    let count = of.len() as u64;
    let first = of.get(seed.checked_rem(count)? as usize)?;
    // Another one than the first, each as likely.
    let Some(others) = count.checked_sub(1).filter(|others| *others > 0) else { return Some(first) };
    let step = 1 + (seed >> 32) % others;
    let second = of.get(((seed % count + step) % count) as usize)?;
    Some(if second.score + SCORE_NOISE < first.score { second } else { first })
}

/// Who holds a room, as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub node: NodeId,
    pub incarnation: u64,
    pub epoch: u64,
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    Renewed,
    /// The registry had lost it, or fallen behind, and has it again.
    Reasserted,
    /// Another holds it, or it was given up.
    Lost,
}

/// What a node has to do about a room that it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEvent {
    /// It may end before it can be renewed. Media goes on; what is acknowledged is for the log to say.
    Uncertain(RoomName),
    /// It was renewed again.
    Certain(RoomName),
    /// Another node has the room: drop it, and everyone in it finds the other.
    Lost { room: RoomName, epoch: u64 },
}

#[derive(Debug, Clone)]
struct Lease {
    epoch: u64,
    /// When the last renewal that worked was sent.
    renewed_at: Duration,
    uncertain: bool,
}

/// The leases that this node holds. Drive it with `handle_*(now, …)`, then [`Holdings::poll_event`].
#[derive(Debug)]
pub struct Holdings {
    times: LeaseTimes,
    leases: BTreeMap<RoomName, Lease>,
    events: VecDeque<LeaseEvent>,
}

impl Holdings {
    pub fn new(times: LeaseTimes) -> Self {
        Self { times, leases: BTreeMap::new(), events: VecDeque::new() }
    }

    /// A room was won by a claim that was sent at `sent`.
    pub fn handle_won(&mut self, sent: Duration, room: RoomName, epoch: u64) {
        self.leases.insert(room, Lease { epoch, renewed_at: sent, uncertain: false });
    }

    /// A room is over or was given away. Answers with its epoch.
    pub fn handle_ended(&mut self, room: &RoomName, epoch: u64) -> bool {
        let is_this = self.leases.get(room).is_some_and(|lease| lease.epoch == epoch);
        if is_this {
            self.leases.remove(room);
        }
        is_this
    }

    /// The answer to a renewal that was sent at `sent`. One of an earlier epoch is void.
    pub fn handle_renewal(&mut self, sent: Duration, room: &RoomName, epoch: u64, renewal: &Renewal) {
        let Some(lease) = self.leases.get_mut(room).filter(|lease| lease.epoch == epoch) else { return };
        match renewal {
            Renewal::Renewed | Renewal::Reasserted => {
                lease.renewed_at = lease.renewed_at.max(sent);
                if std::mem::take(&mut lease.uncertain) {
                    self.events.push_back(LeaseEvent::Certain(room.clone()));
                }
            }
            Renewal::Lost => {
                self.leases.remove(room);
                self.events.push_back(LeaseEvent::Lost { room: room.clone(), epoch });
            }
        }
    }

    /// This node's place was taken by a later start of itself: it holds nothing any more.
    pub fn handle_superseded(&mut self) {
        for (room, lease) in std::mem::take(&mut self.leases) {
            self.events.push_back(LeaseEvent::Lost { room, epoch: lease.epoch });
        }
    }

    pub fn handle_timeout(&mut self, now: Duration) {
        let certain_for = self.times.ttl.saturating_sub(self.times.margin);
        for (room, lease) in &mut self.leases {
            if !lease.uncertain && now.saturating_sub(lease.renewed_at) >= certain_for {
                lease.uncertain = true;
                self.events.push_back(LeaseEvent::Uncertain(room.clone()));
            }
        }
    }

    pub fn poll_event(&mut self) -> Option<LeaseEvent> {
        self.events.pop_front()
    }

    /// The epoch under which this node holds a room.
    pub fn epoch(&self, room: &RoomName) -> Option<u64> {
        self.leases.get(room).map(|lease| lease.epoch)
    }

    /// All that is held, with its epoch.
    pub fn rooms(&self) -> impl Iterator<Item = (&RoomName, u64)> {
        self.leases.iter().map(|(room, lease)| (room, lease.epoch))
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    pub fn uncertain(&self) -> usize {
        self.leases.values().filter(|lease| lease.uncertain).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: &str, region: &str, score: f64) -> NodeRecord {
        NodeRecord {
            id: NodeId::parse(id).unwrap(),
            incarnation: 1,
            url: format!("http://{id}"),
            region: region.into(),
            state: NodeState::Active,
            score,
            rooms: 0,
            relay: None,
            seats_lodgers: false,
        }
    }

    fn room() -> RoomName {
        RoomName::parse("room").unwrap()
    }

    const S: Duration = Duration::from_secs(1);
    const CAPACITY: Capacity = Capacity { egress_bps: 1e9, packets_per_second: 1e5, peers: 1_000 };

    #[test]
    fn of_two_the_one_with_less_to_do_is_chosen() {
        let nodes = [node("a", "", 0.5), node("b", "", 0.1)];
        for seed in 0..50u64 {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(choose(&nodes, "", seed).unwrap().id.as_str(), "b");
        }
    }

    #[test]
    fn nodes_that_are_as_good_as_idle_share_alike() {
        let nodes = [node("a", "", 0.02), node("b", "", 0.0), node("c", "", 0.04)];
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..3_000u64 {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *counts.entry(choose(&nodes, "", seed).unwrap().id.as_str()).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| *count > 900), "{counts:?}");
    }

    #[test]
    fn the_region_comes_first_and_a_full_one_gives_way() {
        let mut nodes = [node("a", "eu", 0.7), node("b", "us", 0.0), node("c", "us", 0.0)];
        assert_eq!(choose(&nodes, "eu", 7).unwrap().id.as_str(), "a");
        nodes[0].score = ROOMS_BELOW;
        assert_eq!(choose(&nodes, "eu", 7).unwrap().region, "us");
        nodes[1].state = NodeState::Draining;
        assert_eq!(choose(&nodes, "eu", 7).unwrap().id.as_str(), "c");
        nodes[2].state = NodeState::Unknown;
        assert_eq!(choose(&nodes, "eu", 7), None);
        assert_eq!(choose(&[], "eu", 7), None);
    }

    #[test]
    fn the_scarcest_resource_makes_the_score() {
        let load = NodeLoad { cpu: 0.4, egress_bps: 9e8, packets_per_second: 1e4, peers: 100 };
        assert!((load.measured(&CAPACITY) - 0.9).abs() < 1e-9);
        assert!(load.score(&CAPACITY, 100) > load.score(&CAPACITY, 0));
        let idle = NodeLoad::default();
        assert!((idle.score(&CAPACITY, 10) - 0.02).abs() < 1e-9);
    }

    #[test]
    fn joins_count_for_twenty_seconds() {
        let mut joins = RecentJoins::default();
        for second in 0..30u32 {
            joins.add(S * second);
        }
        assert_eq!(joins.count(S * 29), 20);
        assert_eq!(joins.count(S * 39), 10);
        assert_eq!(joins.count(S * 500), 0);
    }

    #[test]
    fn a_record_of_another_version_is_read() {
        let newer = r#"{"id":"a","incarnation":3,"url":"http://a","state":"resting","gpu":2}"#;
        let record: NodeRecord = serde_json::from_str(newer).unwrap();
        assert_eq!((record.state, record.region.as_str()), (NodeState::Unknown, ""));
        assert!(!record.takes_rooms());
    }

    #[test]
    fn a_lease_that_is_not_renewed_becomes_uncertain_and_is_kept() {
        let mut holdings = Holdings::new(LeaseTimes::of(5 * S));
        holdings.handle_won(10 * S, room(), 4);
        holdings.handle_timeout(13 * S);
        assert_eq!(holdings.poll_event(), None);
        holdings.handle_timeout(Duration::from_millis(13_500));
        assert_eq!(holdings.poll_event(), Some(LeaseEvent::Uncertain(room())));
        holdings.handle_timeout(100 * S);
        assert_eq!((holdings.poll_event(), holdings.epoch(&room())), (None, Some(4)));
        holdings.handle_renewal(101 * S, &room(), 4, &Renewal::Reasserted);
        assert_eq!(holdings.poll_event(), Some(LeaseEvent::Certain(room())));
    }

    #[test]
    fn an_answer_to_an_earlier_epoch_changes_nothing() {
        let mut holdings = Holdings::new(LeaseTimes::of(5 * S));
        holdings.handle_won(S, room(), 4);
        holdings.handle_won(2 * S, room(), 6);
        holdings.handle_renewal(3 * S, &room(), 4, &Renewal::Lost);
        assert!(!holdings.handle_ended(&room(), 4));
        assert_eq!(holdings.epoch(&room()), Some(6));
        holdings.handle_renewal(3 * S, &room(), 6, &Renewal::Lost);
        assert_eq!(holdings.poll_event(), Some(LeaseEvent::Lost { room: room(), epoch: 6 }));
        assert!(holdings.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whoever is chosen takes rooms, and no node is never chosen.
        #[test]
        fn any_choice_is_sound(scores in proptest::collection::vec(0.0..1.2f64, 1..8), seed: u64) {
            let nodes: Vec<_> =
                scores.iter().enumerate().map(|(at, score)| node(&format!("n{at}"), "", *score)).collect();
            match choose(&nodes, "", seed) {
                Some(chosen) => prop_assert!(chosen.takes_rooms()),
                None => prop_assert!(nodes.iter().all(|node| !node.takes_rooms())),
            }
        }
    }
}
