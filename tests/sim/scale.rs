//! Placement with many nodes and rooms, in virtual seconds: the product's own choice and scores, fed with
//! rooms that come, grow, end, and lose a region. Looked for is how evenly nodes fill, that only those rooms
//! move that must, and what the registry is asked for.
//!
//! Nodes know each other as of their last sign of life, so all choices within a second see the same scores,
//! as they do in a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use antiphon::core::ids::NodeId;
use antiphon::core::placement::{
    Capacity, JOINS_BELOW, LeaseTimes, NodeLoad, NodeRecord, NodeState, RecentJoins, choose,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Of the first seconds, in which all rooms are opened.
const FILL: u64 = 240;
/// Then rooms come and go.
const STEADY: u64 = 120;
/// After which one region is gone, and the rest is watched for so long.
const AFTER: u64 = 60;
/// How full nodes are on average before the loss, with three regions: two thirds of them have to do for all.
const FILLED: f64 = 0.45;
/// Of a room, in seconds, on average.
const LIFE: f64 = 1_200.0;
const REGIONS: [&str; 3] = ["africa", "americas", "asia"];
/// A room's people come one by one within this.
const GATHER: u64 = 20;

#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub nodes: usize,
    pub rooms: usize,
}

/// What came of a run.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// Scores when all was filled and steady: the mean, the 99th percentile, the highest.
    pub steady: [f64; 3],
    /// The same at the end, of those that are left.
    pub after: [f64; 3],
    /// Seconds in which a node turned people away, over all nodes.
    pub full_node_seconds: u64,
    /// Rooms that found no node.
    pub refused: u64,
    /// Rooms of the lost region, and rooms that changed their node.
    pub lost: u64,
    pub moved: u64,
    /// The last of them was open again so long after the loss.
    pub moved_within: Duration,
    /// What the registry is asked for, most in a second: claims and releases, renewals, and records in
    /// answers to signs of life.
    pub claims: u64,
    pub renewals: u64,
    pub records: u64,
}

struct Node {
    region: usize,
    alive: bool,
    peers: u32,
    joins: RecentJoins,
    rooms: u32,
}

#[derive(Clone, Copy)]
struct Room {
    node: usize,
    region: usize,
    size: u32,
    here: u32,
    ends: u64,
}

pub struct Scale {
    rng: StdRng,
    now: u64,
    capacity: Capacity,
    nodes: Vec<Node>,
    /// As of the last signs of life, and the place of each in `nodes`.
    records: Vec<NodeRecord>,
    places: BTreeMap<NodeId, usize>,
    rooms: Vec<Room>,
    outcome: Outcome,
}

impl Scale {
    pub fn new(size: Size, seed: u64) -> Self {
        let people = size.rooms as f64 * mean_size();
        let peers = (people / size.nodes as f64 / FILLED).ceil() as u32;
        let capacity = Capacity { egress_bps: f64::MAX, packets_per_second: f64::MAX, peers };
        let node = |n: usize| Node {
            region: n % REGIONS.len(),
            alive: true,
            peers: 0,
            joins: RecentJoins::default(),
            rooms: 0,
        };
        let id = |n: usize| NodeId::parse(&format!("n{n}")).expect("an id");
        let record = |n: usize| NodeRecord {
            id: id(n),
            incarnation: 1,
            url: String::new(),
            region: REGIONS[n % REGIONS.len()].to_owned(),
            state: NodeState::Active,
            score: 0.0,
            rooms: 0,
            relay: None,
            seats_lodgers: false,
        };
        Self {
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            capacity,
            nodes: (0..size.nodes).map(node).collect(),
            records: (0..size.nodes).map(record).collect(),
            places: (0..size.nodes).map(|n| (id(n), n)).collect(),
            rooms: Vec::with_capacity(size.rooms),
            outcome: Outcome::default(),
        }
    }

    pub fn run(mut self, size: Size) -> Outcome {
        let each_second = (size.rooms as u64).div_ceil(FILL);
        while self.now < FILL {
            self.step(each_second);
        }
        let churn = (size.rooms as f64 / LIFE) as u64;
        while self.now < FILL + STEADY {
            self.step(churn);
        }
        self.outcome.steady = self.spread();
        self.lose_region(0, churn);
        self.outcome.after = self.spread();
        self.outcome
    }

    /// One second: signs of life and renewals, then rooms that end, people who come, and new rooms.
    fn step(&mut self, new_rooms: u64) {
        self.now += 1;
        self.beat();
        let mut claims = 0;
        let (now, nodes) = (self.now, &mut self.nodes);
        self.rooms.retain_mut(|room| {
            let node = &mut nodes[room.node];
            if room.ends <= now {
                node.rooms -= 1;
                node.peers -= room.here;
                claims += 1;
                return false;
            }
            let come = (room.size - room.here).min(room.size.div_ceil(GATHER as u32));
            for _ in 0..come {
                node.joins.add(Duration::from_secs(now));
            }
            node.peers += come;
            room.here += come;
            true
        });
        for _ in 0..new_rooms {
            let region = self.rng.random_range(0..REGIONS.len());
            let (size, life) = (self.size(), -LIFE * (1.0 - self.rng.random::<f64>()).ln());
            // Those of the fill are in the midst of their lives; so are their ends.
            let room = Room { node: 0, region, size, here: 0, ends: self.now + 1 + life as u64 };
            claims += 1;
            self.open(room);
        }
        self.outcome.claims = self.outcome.claims.max(claims);
    }

    fn open(&mut self, mut room: Room) -> bool {
        let seed = self.rng.random();
        let Some(chosen) = choose(&self.records, REGIONS[room.region], seed) else {
            self.outcome.refused += 1;
            return false;
        };
        room.node = self.places[&chosen.id];
        self.nodes[room.node].rooms += 1;
        self.rooms.push(room);
        true
    }

    /// Each node says what it does, and hears of all others.
    fn beat(&mut self) {
        let (now, capacity) = (Duration::from_secs(self.now), self.capacity);
        self.records.clear();
        let mut renewals = 0;
        for (id, &place) in &self.places {
            let node = &mut self.nodes[place];
            if !node.alive {
                continue;
            }
            let load = NodeLoad { peers: node.peers, ..NodeLoad::default() };
            let score = load.score(&capacity, node.joins.count(now));
            self.outcome.full_node_seconds += u64::from(score >= JOINS_BELOW);
            renewals += u64::from(node.rooms);
            self.records.push(NodeRecord {
                id: id.clone(),
                incarnation: 1,
                url: String::new(),
                region: REGIONS[node.region].to_owned(),
                state: NodeState::Active,
                score,
                rooms: node.rooms,
                relay: None,
                seats_lodgers: false,
            });
        }
        let alive = self.records.len() as u64;
        self.outcome.records = self.outcome.records.max(alive * alive);
        self.outcome.renewals = self.outcome.renewals.max(renewals);
    }

    /// All nodes of a region are gone at once. Their rooms can be claimed when their leases have ended, and
    /// are when people ask for them again, within the seconds after.
    fn lose_region(&mut self, region: usize, churn: u64) {
        for node in &mut self.nodes {
            node.alive &= node.region != region;
        }
        let nodes = &self.nodes;
        let (lost, kept): (Vec<Room>, Vec<Room>) =
            self.rooms.drain(..).partition(|room| !nodes[room.node].alive);
        self.rooms = kept;
        self.outcome.lost = lost.len() as u64;
        let ttl = LeaseTimes::of(Duration::from_secs(5)).ttl.as_secs();
        let began = self.now;
        let mut waiting: BTreeMap<u64, Vec<Room>> = BTreeMap::new();
        for room in lost {
            let at = began + ttl + self.rng.random_range(0..3);
            waiting.entry(at).or_default().push(Room { here: 0, ..room });
        }
        while self.now < began + AFTER {
            let before = self.outcome.claims;
            self.step(churn);
            let due = waiting.remove(&self.now).unwrap_or_default();
            let claims = due.len() as u64 + churn;
            for room in due {
                if self.open(room) {
                    self.outcome.moved += 1;
                    self.outcome.moved_within = Duration::from_secs(self.now - began);
                }
            }
            self.outcome.claims = before.max(claims);
        }
    }

    fn size(&mut self) -> u32 {
        let place: f64 = self.rng.random();
        let of = SIZES.iter().find(|(share, _)| place < *share);
        of.map_or(2, |(_, size)| *size)
    }

    fn spread(&self) -> [f64; 3] {
        let alive = self.nodes.iter().filter(|node| node.alive);
        let mut scores: Vec<f64> =
            alive.map(|node| f64::from(node.peers) / f64::from(self.capacity.peers)).collect();
        scores.sort_by(f64::total_cmp);
        let at = |share: f64| scores[((scores.len() - 1) as f64 * share).round() as usize];
        [scores.iter().sum::<f64>() / scores.len() as f64, at(0.99), at(1.0)]
    }
}

/// People in a room: the share of rooms up to this one, and how many.
const SIZES: [(f64, u32); 5] = [(0.5, 2), (0.8, 4), (0.95, 9), (0.995, 25), (1.0, 100)];

fn mean_size() -> f64 {
    let shares = std::iter::once(0.0).chain(SIZES.iter().map(|(share, _)| *share));
    SIZES.iter().zip(shares).map(|((share, size), before)| (share - before) * f64::from(*size)).sum()
}
