//! Nodes of a cluster in virtual time, from seeds: the registry, leases and fence of the product, between
//! nodes that crash and freeze, a registry that is slow, deaf and emptied, and a log that is late.
//!
//! Clients say things, through any node, until they are acknowledged. At the end all faults are over, all is
//! acknowledged, and an audit of the log must find everything in it, once and in one order.

mod behaviour;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use antiphon::core::audit::{Audit, Findings};
use antiphon::core::event::Event;
use antiphon::core::fence::{Fence, Writer};
use antiphon::core::ids::{MessageId, NodeId, RoomName};
use antiphon::core::placement::{Holdings, LeaseTimes, Renewal};
use antiphon::core::projection::{Projection, RoomView};
use antiphon::core::registry::{Bid, Claim, Lease, Registry};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const NODES: usize = 3;
const ROOMS: usize = 4;
const TTL: Duration = Duration::from_secs(5);
const ORPHAN_KEPT: Duration = Duration::from_secs(300);
/// Faults go on for so long; then all has to come right within as long again.
const FAULTY: Duration = Duration::from_secs(90);
const SETTLED: Duration = Duration::from_secs(240);
/// A client that heard nothing says it again, through another node.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How often each thing happened, over all seeds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reached {
    pub acknowledged: u64,
    pub fenced: u64,
    pub openings: u64,
    pub lost: u64,
    pub uncertain: u64,
    pub reasserted: u64,
    pub settling: u64,
    pub crashes: u64,
    pub freezes: u64,
    pub emptied: u64,
    pub repeats: u64,
}

impl Reached {
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.counts_mut().into_iter().zip(other.clone().counts_mut()) {
            *own += *other;
        }
    }

    /// A simulation that never gets anywhere proves nothing.
    pub fn assert_all(&mut self) {
        let story = format!("{self:?}");
        assert!(self.counts_mut().into_iter().all(|count| *count > 0), "{story}");
    }

    fn counts_mut(&mut self) -> [&mut u64; 11] {
        let Self {
            acknowledged,
            fenced,
            openings,
            lost,
            uncertain,
            reasserted,
            settling,
            crashes,
            freezes,
            emptied,
            repeats,
        } = self;
        [
            acknowledged,
            fenced,
            openings,
            lost,
            uncertain,
            reasserted,
            settling,
            crashes,
            freezes,
            emptied,
            repeats,
        ]
    }
}

/// A record on its way to the log, or in it.
#[derive(Debug, Clone)]
struct Record {
    room: RoomName,
    writer: Writer,
    opens: bool,
    events: Vec<Event>,
}

#[derive(Debug, Clone)]
enum Ask {
    Claim(Bid),
    Renew(Lease),
}

#[derive(Debug, Clone)]
enum Told {
    Claim(Bid, Claim),
    Renew(Lease, Renewal),
}

#[derive(Debug, Clone)]
enum What {
    /// A node's turn to renew what it holds.
    Tick(usize),
    /// A node reads the log.
    Look(usize),
    Asked {
        node: usize,
        incarnation: u64,
        sent: Duration,
        ask: Ask,
    },
    Answered {
        node: usize,
        incarnation: u64,
        sent: Duration,
        told: Told,
    },
    /// A record arrives in the log.
    Append(Record),
    /// A client says something, or says it again.
    Say {
        room: usize,
        number: u64,
    },
    Crash(usize),
    Restart(usize),
    Freeze(usize),
    Empty,
    /// Whether the registry hears anything.
    Deaf(bool),
}

/// A room that is open on a node.
#[derive(Debug)]
struct Open {
    epoch: u64,
    /// Once the opening was read back: the last place that was given.
    last_seq: Option<u64>,
}

struct Node {
    id: NodeId,
    incarnation: u64,
    alive: bool,
    frozen_until: Duration,
    holdings: Holdings,
    open: BTreeMap<RoomName, Open>,
    claiming: BTreeSet<RoomName>,
    /// Its copy of the log, which survives a crash.
    position: usize,
    fence: Fence,
    last_seqs: BTreeMap<RoomName, u64>,
    known: BTreeMap<RoomName, BTreeSet<MessageId>>,
    /// Sent and not read back: what a restart sends again.
    outbox: Vec<Record>,
    /// When its last record arrives: a producer keeps its order.
    arrives_at: Duration,
}

pub struct World {
    rng: StdRng,
    now: Duration,
    serial: u64,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    due: BTreeMap<u64, What>,
    registry: Registry,
    deaf: bool,
    nodes: Vec<Node>,
    log: Vec<Record>,
    acknowledged: BTreeSet<(RoomName, MessageId)>,
    /// Readers that let everyone's word count: what the audit has to find out.
    fenceless: bool,
    pub reached: Reached,
}

fn room(number: usize) -> RoomName {
    RoomName::parse(&format!("room-{number}")).expect("a plain name")
}

fn message(room: usize, number: u64) -> MessageId {
    MessageId::parse(&format!("m-{room}-{number}")).expect("a plain id")
}

impl World {
    pub fn new(seed: u64, fenceless: bool) -> Self {
        let node = |number: usize| Node {
            id: NodeId::parse(&format!("node-{number}")).expect("a plain name"),
            incarnation: 1,
            alive: true,
            frozen_until: Duration::ZERO,
            holdings: Holdings::new(LeaseTimes::of(TTL)),
            open: BTreeMap::new(),
            claiming: BTreeSet::new(),
            position: 0,
            fence: Fence::default(),
            last_seqs: BTreeMap::new(),
            known: BTreeMap::new(),
            outbox: Vec::new(),
            arrives_at: Duration::ZERO,
        };
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            serial: 0,
            queue: BinaryHeap::new(),
            due: BTreeMap::new(),
            registry: Registry::new(TTL, ORPHAN_KEPT),
            deaf: false,
            nodes: (0..NODES).map(node).collect(),
            log: Vec::new(),
            acknowledged: BTreeSet::new(),
            fenceless,
            reached: Reached::default(),
        };
        for node in 0..NODES {
            let wait = world.ms(0, 1_000);
            world.after(wait, What::Tick(node));
            let wait = world.ms(0, 50);
            world.after(wait, What::Look(node));
        }
        world.plan_faults();
        for number in 0..ROOMS {
            for of in 0..40 {
                let at = world.ms(0, FAULTY.as_millis() as u64);
                world.after(at, What::Say { room: number, number: of });
            }
        }
        world
    }

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(least..most))
    }

    fn after(&mut self, wait: Duration, what: What) {
        self.serial += 1;
        self.due.insert(self.serial, what);
        self.queue.push(Reverse((self.now + wait, self.serial)));
    }

    fn plan_faults(&mut self) {
        let until = FAULTY.as_millis() as u64;
        for _ in 0..4 {
            let (node, at) = (self.rng.random_range(0..NODES), self.ms(1_000, until));
            self.after(at, What::Freeze(node));
            let (node, at) = (self.rng.random_range(0..NODES), self.ms(1_000, until));
            self.after(at, What::Crash(node));
        }
        for _ in 0..2 {
            let at = self.ms(1_000, until);
            self.after(at, What::Empty);
            let at = self.ms(1_000, until - 20_000);
            self.after(at, What::Deaf(true));
            let back = at + self.ms(500, 20_000);
            self.after(back, What::Deaf(false));
        }
    }

    /// Runs to the end, and has the log audited.
    pub fn run(&mut self) -> Findings {
        while let Some(Reverse((at, serial))) = self.queue.pop() {
            if at > FAULTY + SETTLED {
                break;
            }
            self.now = at;
            let Some(what) = self.due.remove(&serial) else { continue };
            self.happen(what);
        }
        let mut audit = Audit::default();
        for Record { room, writer, opens, events } in &self.log {
            audit.handle_record(room, writer, *opens, events);
        }
        let missing: Vec<_> =
            self.acknowledged.iter().filter(|(room, id)| !audit.has_message(room, id)).collect();
        let missing: Vec<_> = missing
            .iter()
            .map(|(room, id)| format!("{room}: {id} was acknowledged, and is not there"))
            .collect();
        let mut findings = audit.findings();
        let faults = [missing, self.misplaced()].concat();
        findings.faults_total += faults.len() as u64;
        findings.faults.extend(faults);
        self.reached.acknowledged += self.acknowledged.len() as u64;
        self.reached.fenced += findings.fenced;
        self.reached.openings += findings.openings;
        self.reached.repeats += findings.repeats;
        findings
    }

    /// Who has each room by the projection of the log must be whose word counts, and nobody have it twice.
    fn misplaced(&self) -> Vec<String> {
        let (mut projection, mut fence) = (Projection::default(), Fence::default());
        for Record { room, writer, opens, events } in &self.log {
            projection.handle_record(room, writer, *opens, events);
            fence.handle_record(room, writer, *opens);
        }
        let is_wrong = |(room, view): &(&RoomName, &RoomView)| {
            let last = view.placement.last().map(|last| (last.epoch, &last.node));
            let rises = view.placement.is_sorted_by(|one, next| one.epoch < next.epoch);
            last != fence.writer(room).map(|writer| (writer.epoch, &writer.node)) || !rises
        };
        let wrong = projection.rooms().filter(is_wrong);
        wrong.map(|(room, view)| format!("{room}: by its projection {:?}", view.placement)).collect()
    }

    /// Everything that was said has been acknowledged.
    pub fn is_done(&self) -> bool {
        self.acknowledged.len() == ROOMS * 40
    }

    fn happen(&mut self, what: What) {
        let of = match &what {
            What::Tick(node) | What::Look(node) | What::Answered { node, .. } => Some(*node),
            _ => None,
        };
        if let Some(node) = of
            && self.now < self.nodes[node].frozen_until
        {
            let wait = self.nodes[node].frozen_until - self.now;
            return self.after(wait, what);
        }
        match what {
            What::Tick(node) => self.tick(node),
            What::Look(node) => self.look(node),
            What::Asked { node, incarnation, sent, ask } => self.asked(node, incarnation, sent, ask),
            What::Answered { node, incarnation, sent, told } => self.answered(node, incarnation, sent, told),
            What::Append(record) => self.log.push(record),
            What::Say { room, number } => self.say(room, number),
            What::Crash(node) => self.crash(node),
            What::Restart(node) => self.restart(node),
            What::Freeze(node) => {
                let long = self.ms(500, 20_000);
                self.nodes[node].frozen_until = self.now + long;
                self.reached.freezes += 1;
            }
            What::Empty => {
                self.registry.empty(self.now, TTL + Duration::from_millis(500));
                self.reached.emptied += 1;
            }
            What::Deaf(deaf) => self.deaf = deaf,
        }
    }

    fn crash(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if !it.alive {
            return;
        }
        it.alive = false;
        it.holdings = Holdings::new(LeaseTimes::of(TTL));
        it.open.clear();
        it.claiming.clear();
        self.reached.crashes += 1;
        let wait = self.ms(500, 15_000);
        self.after(wait, What::Restart(node));
    }

    fn restart(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        (it.alive, it.incarnation) = (true, it.incarnation + 1);
        // What it does not know to be in the log goes there, maybe a second time.
        for record in it.outbox.clone() {
            self.send(node, record);
        }
    }

    /// On the wire to or from the registry: late, lost, or twice.
    fn carry(&mut self, what: What) {
        if self.now < FAULTY && self.rng.random_bool(0.03) {
            return;
        }
        let slow = self.now < FAULTY && self.rng.random_bool(0.05);
        let wait = if slow { self.ms(100, 8_000) } else { self.ms(1, 30) };
        if self.now < FAULTY && self.rng.random_bool(0.03) {
            let again = wait + self.ms(1, 6_000);
            self.after(again, what.clone());
        }
        self.after(wait, what);
    }

    fn ask(&mut self, node: usize, ask: Ask) {
        let (incarnation, sent) = (self.nodes[node].incarnation, self.now);
        self.carry(What::Asked { node, incarnation, sent, ask });
    }

    fn asked(&mut self, node: usize, incarnation: u64, sent: Duration, ask: Ask) {
        if self.deaf {
            return;
        }
        let told = match ask {
            Ask::Claim(bid) => {
                let claim = self.registry.claim(self.now, &bid);
                self.reached.settling += u64::from(matches!(claim, Claim::Settling(_)));
                Told::Claim(bid, claim)
            }
            Ask::Renew(lease) => {
                let renewal = self.registry.renew(self.now, &lease, "");
                self.reached.reasserted += u64::from(renewal == Renewal::Reasserted);
                Told::Renew(lease, renewal)
            }
        };
        self.carry(What::Answered { node, incarnation, sent, told });
    }

    fn answered(&mut self, node: usize, incarnation: u64, sent: Duration, told: Told) {
        let it = &mut self.nodes[node];
        if !it.alive || it.incarnation != incarnation {
            return;
        }
        match told {
            Told::Claim(bid, claim) => {
                // Who asked gave up long ago, as the product does after a second or so.
                let in_time = it.claiming.remove(&bid.room) && self.now.saturating_sub(sent) < PATIENCE;
                if let Claim::Won { epoch, .. } = claim
                    && in_time
                    && !bid.on_behalf
                {
                    self.open(node, sent, bid.room, epoch);
                }
            }
            Told::Renew(lease, renewal) => {
                it.holdings.handle_renewal(sent, &lease.room, lease.epoch, &renewal);
                self.drop_lost(node);
            }
        }
    }
}
