//! The ledger of a cluster in virtual time, from seeds: lease, fence, keeping and ledger of the product,
//! between nodes that crash and freeze, a registry that is deaf or emptied, a log that is late, and a chain
//! that goes its own way.
//!
//! Viewers ask any node for an invoice and pay what they were shown. At the end all faults are over, and
//! every node must have the same ledger, which has each payment once and shows no address to two.

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use antiphon::core::event::{Event, EventBody};
use antiphon::core::fence::{Fence, Verdict, Writer};
use antiphon::core::ids::{Identity, RoomName};
use antiphon::core::ledger::{Fact, InvoiceId, InvoiceState, Ledger, Msat, Observed, PaymentKey, Progress};
use antiphon::core::registry::Registry;
use node::Node;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const NODES: usize = 3;
const VIEWERS: usize = 8;
const PRICE_SATS: u64 = 50_000;
const STEP: Duration = Duration::from_millis(50);
const TTL: Duration = Duration::from_secs(5);
const ORPHAN_KEPT: Duration = Duration::from_secs(300);
const BLOCK_EVERY: Duration = Duration::from_secs(3);
/// Faults go on for so long; then all has to come right within as long again.
const FAULTY: Duration = Duration::from_secs(60);
const SETTLED: Duration = Duration::from_secs(60);
/// The clock of all nodes at the beginning.
const EPOCH_MS: u64 = 1_000_000;

/// How often each thing happened, over all seeds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reached {
    pub shown: u64,
    pub takeovers: u64,
    pub fenced: u64,
    pub stepped_down: u64,
    pub settled: u64,
    pub reversed: u64,
    pub replaced: u64,
    pub crashes: u64,
    pub freezes: u64,
    pub emptied: u64,
}

impl Reached {
    fn counts(&self) -> [u64; 10] {
        [
            self.shown,
            self.takeovers,
            self.fenced,
            self.stepped_down,
            self.settled,
            self.reversed,
            self.replaced,
            self.crashes,
            self.freezes,
            self.emptied,
        ]
    }

    pub fn add(&mut self, other: &Self) {
        self.shown += other.shown;
        self.takeovers += other.takeovers;
        self.fenced += other.fenced;
        self.stepped_down += other.stepped_down;
        self.settled += other.settled;
        self.reversed += other.reversed;
        self.replaced += other.replaced;
        self.crashes += other.crashes;
        self.freezes += other.freezes;
        self.emptied += other.emptied;
    }

    /// A simulation that never gets anywhere proves nothing.
    pub fn assert_all(&self) {
        assert!(self.counts().iter().all(|count| *count > 0), "{self:?}");
    }
}

/// A record of the ledger's stream.
#[derive(Debug, Clone)]
pub struct Record {
    pub writer: Writer,
    pub opens: bool,
    pub events: Vec<Event>,
    /// When it is in the log.
    pub arrives_at: Duration,
}

/// What somebody was shown to pay.
#[derive(Debug, Clone)]
pub struct Shown {
    pub invoice: InvoiceId,
    pub address: String,
}

/// A transaction, as the chain has it.
#[derive(Debug, Clone)]
struct Payment {
    address: String,
    sats: u64,
    paid_at_ms: u64,
    progress: Progress,
}

pub struct World {
    rng: StdRng,
    pub now: Duration,
    registry: Registry,
    deaf_until: Duration,
    nodes: Vec<Node>,
    log: Vec<Record>,
    /// Sent, and not in the log yet.
    on_the_way: Vec<Record>,
    pub shown: Vec<Shown>,
    chain: Vec<Payment>,
    next_block: Duration,
    /// Readers that let everyone's word count: what the checks have to find out.
    fenceless: bool,
    pub reached: Reached,
}

pub fn room() -> RoomName {
    RoomName::parse("show").expect("a plain name")
}

impl World {
    pub fn new(seed: u64, fenceless: bool) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            registry: Registry::new(TTL, ORPHAN_KEPT),
            deaf_until: Duration::ZERO,
            nodes: (0..NODES).map(|number| Node::new(number, fenceless)).collect(),
            log: Vec::new(),
            on_the_way: Vec::new(),
            shown: Vec::new(),
            chain: Vec::new(),
            next_block: BLOCK_EVERY,
            fenceless,
            reached: Reached::default(),
        }
    }

    pub fn now_ms(&self) -> u64 {
        EPOCH_MS + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX)
    }

    fn chance(&mut self, of: f64) -> bool {
        self.rng.random_bool(of)
    }

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(least..most))
    }

    /// Runs to the end; what is wrong then, in words.
    pub fn run(&mut self) -> Vec<String> {
        while self.now < FAULTY + SETTLED {
            self.now += STEP;
            if self.now < FAULTY {
                self.fail();
                self.live();
            }
            self.mine();
            self.deliver();
            for number in 0..NODES {
                self.turn(number);
            }
        }
        self.check()
    }

    /// Something goes wrong, now and then.
    fn fail(&mut self) {
        if self.chance(0.006) {
            let (node, long) = (self.rng.random_range(0..NODES), self.ms(500, 15_000));
            self.nodes[node].frozen_until = self.now + long;
            self.reached.freezes += 1;
        }
        if self.chance(0.004) {
            let (node, long) = (self.rng.random_range(0..NODES), self.ms(500, 10_000));
            self.nodes[node].crash(self.now + long);
            self.reached.crashes += 1;
        }
        if self.chance(0.002) {
            self.registry.empty(self.now, TTL + Duration::from_millis(500));
            self.reached.emptied += 1;
        }
        if self.chance(0.004) {
            self.deaf_until = self.now + self.ms(500, 15_000);
        }
    }

    /// Viewers ask and pay.
    fn live(&mut self) {
        if self.chance(0.25) {
            let (node, viewer) = (self.rng.random_range(0..NODES), self.rng.random_range(0..VIEWERS));
            let (id, viewer) = (self.rng.random(), format!("viewer-{viewer}"));
            let (now, now_ms) = (self.now, self.now_ms());
            let viewer = Identity::parse(&viewer).expect("a plain name");
            self.nodes[node].order(now, now_ms, InvoiceId::new(id), viewer);
        }
        if !self.shown.is_empty() && self.chance(0.06) {
            let at = self.rng.random_range(0..self.shown.len());
            let sats = [PRICE_SATS, PRICE_SATS, PRICE_SATS / 2, PRICE_SATS * 2][self.rng.random_range(0..4)];
            let (address, paid_at_ms) = (self.shown[at].address.clone(), self.now_ms());
            self.chain.push(Payment { address, sats, paid_at_ms, progress: Progress::Confirmations(0) });
        }
    }

    /// The chain goes on, and sometimes back.
    fn mine(&mut self) {
        if self.now < self.next_block {
            return;
        }
        self.next_block += BLOCK_EVERY;
        let faulty = self.now < FAULTY;
        for at in 0..self.chain.len() {
            let Progress::Confirmations(blocks) = self.chain[at].progress else { continue };
            let replaced = faulty && blocks == 0 && self.chance(0.05);
            let taken_back = faulty && (1..4).contains(&blocks) && self.chance(0.1);
            self.chain[at].progress = match (replaced, taken_back) {
                (true, _) => Progress::Replaced,
                (_, true) => Progress::Confirmations(0),
                _ => Progress::Confirmations(blocks + 1),
            };
            self.reached.replaced += u64::from(replaced);
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (mut here, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.on_the_way).into_iter().partition(|record| record.arrives_at <= now);
        here.sort_by_key(|record| record.arrives_at);
        (self.on_the_way, self.log) = (later, [std::mem::take(&mut self.log), here].concat());
    }

    /// One node does what there is to do.
    fn turn(&mut self, number: usize) {
        let (now, now_ms) = (self.now, self.now_ms());
        if now < self.nodes[number].frozen_until {
            return;
        }
        let restarted = self.nodes[number].wake(now);
        self.send(number, restarted);
        if !self.nodes[number].is_alive() {
            return;
        }
        let read = self.nodes[number].read(now_ms, &self.log);
        self.reached.fenced += read.fenced;
        self.reached.stepped_down += u64::from(read.stepped_down);
        self.reached.takeovers += u64::from(read.took_over);
        self.shown.extend(read.shown);
        self.reached.stepped_down += u64::from(self.nodes[number].look_after_lease(now, now_ms));
        if self.nodes[number].is_due(now) {
            let seen = self.seen();
            self.nodes[number].watch(now_ms, &seen);
        }
        // The registry hears, or does not; or its answer is lost.
        if now >= self.deaf_until {
            let heard = !(now < FAULTY && self.chance(0.05));
            self.nodes[number].ask(now, &mut self.registry, heard);
        }
        let sent = self.nodes[number].take_sent();
        self.send(number, sent);
    }

    /// What a wallet says of all that was paid.
    fn seen(&self) -> Vec<(String, Observed)> {
        let as_of_ms = self.now_ms();
        let payments = self.chain.iter().enumerate();
        let seen = payments.map(|(number, payment)| {
            let key = PaymentKey::Outpoint(format!("tx-{number}:0"));
            let (sum, paid_at_ms) = (Msat::from_sats(payment.sats), payment.paid_at_ms);
            let progress = payment.progress;
            (payment.address.clone(), Observed { key, sum, paid_at_ms, progress, as_of_ms })
        });
        seen.collect()
    }

    /// A producer keeps its order, and is late now and then.
    fn send(&mut self, number: usize, records: Vec<Record>) {
        for record in records {
            let slow = self.now < FAULTY && self.chance(0.1);
            let wait = if slow { self.ms(100, 9_000) } else { self.ms(5, 60) };
            let arrives_at = self.nodes[number].arrives_at.max(self.now + wait);
            self.nodes[number].arrives_at = arrives_at;
            self.on_the_way.push(Record { arrives_at, ..record });
        }
    }

    /// Everything that must hold once all faults are over.
    fn check(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        let facts = self.facts(&mut faults);
        let mut ledger = Ledger::default();
        for event in &facts {
            let EventBody::Ledger(fact) = &event.body else { continue };
            ledger.restore(&event.room, event.at_ms, fact);
        }
        let keepers = self.nodes.iter().filter(|node| node.keeps()).count();
        if keepers != 1 {
            faults.push(format!("{keepers} nodes keep the ledger"));
        }
        for (number, node) in self.nodes.iter().enumerate() {
            if summary(&node.ledger) != summary(&ledger) {
                faults.push(format!("node {number} has another ledger than the log"));
            }
        }
        for Shown { invoice, address } in &self.shown {
            let known = ledger.invoice(invoice).and_then(|known| known.address.as_ref());
            if known.is_none_or(|known| known.address != *address) {
                faults.push(format!("{address} was shown for an invoice that is not, or is elsewhere"));
            }
        }
        let mut paid: BTreeMap<&str, u64> = BTreeMap::new();
        for payment in self.chain.iter().filter(|payment| payment.progress != Progress::Replaced) {
            *paid.entry(&payment.address).or_default() += payment.sats * 1_000;
        }
        for invoice in ledger.invoices() {
            let address = invoice.address.as_ref().map_or("", |at| at.address.as_str());
            let (paid, received) = (paid.get(address).copied().unwrap_or(0), invoice.received());
            if paid != received {
                faults.push(format!("{address} was paid {paid} msat, and the ledger has {received}"));
            }
            self.reached.settled += u64::from(invoice.state() == InvoiceState::Settled);
            self.reached.reversed += u64::from(invoice.rounds > 1);
        }
        self.reached.shown += self.shown.len() as u64;
        faults
    }

    /// The facts that count, in their order, each once.
    fn facts(&self, faults: &mut Vec<String>) -> Vec<Event> {
        let (mut fence, mut ids, mut addresses) = (Fence::default(), BTreeSet::new(), BTreeSet::new());
        let mut facts = Vec::new();
        for record in &self.log {
            let verdict = fence.handle_record(&RoomName::ledger(), &record.writer, record.opens);
            if verdict == Verdict::Fenced && !self.fenceless {
                continue;
            }
            for event in
                record.events.iter().filter(|event| ids.insert((event.room.clone(), event.id.clone())))
            {
                if let EventBody::Ledger(fact) = &event.body
                    && let Fact::InvoiceCreated { address: Some(at), .. } = &**fact
                    && !addresses.insert(at.address.clone())
                {
                    faults.push(format!("{} is two invoices'", at.address));
                }
                facts.push(event.clone());
            }
        }
        facts
    }
}

/// What two ledgers must agree on.
fn summary(ledger: &Ledger) -> Vec<(InvoiceId, InvoiceState, u64, u32)> {
    let invoices = ledger.invoices();
    let mut all: Vec<_> = invoices
        .map(|invoice| (invoice.id.clone(), invoice.state(), invoice.received(), invoice.rounds))
        .collect();
    all.sort();
    all
}
