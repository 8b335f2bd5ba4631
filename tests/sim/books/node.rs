//! One node of the simulated cluster: what `src/billing/desk` does, without its wires.

use std::collections::BTreeSet;
use std::time::Duration;

use antiphon::core::event::{Event, EventBody, EventId};
use antiphon::core::fence::{Fence, Verdict, Writer};
use antiphon::core::ids::{Identity, NodeId, RoomName};
use antiphon::core::ledger::{
    Address, Fact, InvoiceId, Keeping, Ledger, Observed, Offer, Order, Rail, Resource, Step,
};
use antiphon::core::placement::{Holdings, LeaseEvent, LeaseTimes};
use antiphon::core::registry::{Bid, Claim, Lease, Registry};

use super::{PRICE_SATS, Record, Shown, TTL, room};

const PROFILE: &str = "owner";
/// How often a keeper looks at its wallet, and everyone at the registry.
const EVERY: Duration = Duration::from_millis(700);

/// How often a node looks whether it has the lease.
const TICK: Duration = Duration::from_millis(500);

/// What came of reading the log.
#[derive(Default)]
pub struct Read {
    pub fenced: u64,
    pub stepped_down: bool,
    pub took_over: bool,
    pub shown: Vec<Shown>,
}

/// Facts of ours on their way to the log: nothing else is made until they are back.
struct Commit {
    ids: Vec<EventId>,
    shows: Option<InvoiceId>,
}

pub struct Node {
    id: NodeId,
    incarnation: u64,
    /// Down until then.
    down_until: Option<Duration>,
    pub frozen_until: Duration,
    holdings: Holdings,
    keeping: Keeping,
    pub ledger: Ledger,
    /// Its copy of the log, which survives a crash.
    position: usize,
    fence: Fence,
    copy: Vec<Event>,
    known: BTreeSet<(RoomName, EventId)>,
    fenceless: bool,
    /// Sent and not read back: what a restart sends again.
    outbox: Vec<Record>,
    /// Not sent yet.
    unsent: Vec<Record>,
    committing: Option<Commit>,
    opening: Option<u64>,
    pub arrives_at: Duration,
    next_look: Duration,
    next_ask: Duration,
    next_tick: Duration,
}

impl Node {
    pub fn new(number: usize, fenceless: bool) -> Self {
        Self {
            id: NodeId::parse(&format!("node-{number}")).expect("a plain name"),
            incarnation: 1,
            down_until: None,
            frozen_until: Duration::ZERO,
            holdings: Holdings::new(LeaseTimes::of(TTL)),
            keeping: Keeping::among_others(),
            ledger: Ledger::default(),
            position: 0,
            fence: Fence::default(),
            copy: Vec::new(),
            known: BTreeSet::new(),
            fenceless,
            outbox: Vec::new(),
            unsent: Vec::new(),
            committing: None,
            opening: None,
            arrives_at: Duration::ZERO,
            next_look: Duration::ZERO,
            next_ask: Duration::ZERO,
            next_tick: Duration::ZERO,
        }
    }

    pub fn keeps(&self) -> bool {
        self.keeping.may_write()
    }

    pub fn is_alive(&self) -> bool {
        self.down_until.is_none()
    }

    pub fn crash(&mut self, until: Duration) {
        if self.down_until.is_none() {
            self.down_until = Some(until);
            self.holdings = Holdings::new(LeaseTimes::of(TTL));
            self.keeping = Keeping::among_others();
            (self.committing, self.opening) = (None, None);
            self.unsent.clear();
        }
    }

    /// Starts it again, if it is time; what it sends a second time then.
    pub fn wake(&mut self, now: Duration) -> Vec<Record> {
        if self.down_until.is_none_or(|until| now < until) {
            return Vec::new();
        }
        (self.down_until, self.incarnation) = (None, self.incarnation + 1);
        self.fold_anew();
        self.outbox.clone()
    }

    /// Renews or claims the lease. Where the answer is not heard, the registry did it all the same.
    pub fn ask(&mut self, now: Duration, registry: &mut Registry, heard: bool) {
        if now < self.next_ask {
            return;
        }
        self.next_ask = now + EVERY;
        let (room, node, incarnation) = (RoomName::ledger(), self.id.clone(), self.incarnation);
        if let Some(epoch) = self.holdings.epoch(&room) {
            let lease = Lease { room: room.clone(), node, incarnation, epoch };
            let renewal = registry.renew(now, &lease, "");
            if heard {
                self.holdings.handle_renewal(now, &room, epoch, &renewal);
            }
        } else {
            let floor = self.fence.writer(&room).map_or(0, |writer| writer.epoch);
            let bid = Bid {
                room: room.clone(),
                node,
                incarnation,
                floor,
                on_behalf: false,
                may_be_held: floor > 0,
            };
            if let Claim::Won { epoch, .. } = registry.claim(now, &bid)
                && heard
            {
                self.holdings.handle_won(now, room, epoch);
            }
        }
    }

    /// Reads what is new in the log. Whether its own facts counted is known then.
    pub fn read(&mut self, now_ms: u64, log: &[Record]) -> Read {
        let mut read = Read::default();
        while let Some(record) = log.get(self.position) {
            self.position += 1;
            let verdict = self.fence.handle_record(&RoomName::ledger(), &record.writer, record.opens);
            let counts = verdict == Verdict::Counts || self.fenceless;
            let own = record.writer.node == self.id;
            if own {
                self.outbox.retain(|sent| sent.events != record.events || sent.writer != record.writer);
            }
            read.fenced += u64::from(!counts);
            if counts {
                self.take(&record.events);
            }
            if own && record.writer.incarnation == self.incarnation {
                self.settle(now_ms, record, counts, &mut read);
            }
        }
        read
    }

    fn take(&mut self, events: &[Event]) {
        for event in events {
            if !self.known.insert((event.room.clone(), event.id.clone())) {
                continue;
            }
            self.copy.push(event.clone());
            // A keeper has folded its own.
            if !self.keeping.may_write()
                && let EventBody::Ledger(fact) = &event.body
            {
                self.ledger.restore(&event.room, event.at_ms, fact);
            }
        }
    }

    /// One of this start's own records came back.
    fn settle(&mut self, now_ms: u64, record: &Record, counts: bool, read: &mut Read) {
        if record.opens && self.opening == Some(record.writer.epoch) {
            self.opening = None;
            if counts && self.keeping.handle_opened(record.writer.epoch) {
                read.took_over = true;
                self.price(now_ms);
            } else if !counts {
                read.stepped_down |= self.lose();
            }
            return;
        }
        let ids = record.events.iter().map(|event| event.id.clone());
        let Some(commit) = self.committing.take_if(|commit| ids.eq(commit.ids.iter().cloned())) else {
            return;
        };
        if !counts {
            read.stepped_down |= self.lose();
            return;
        }
        let shown = commit.shows.and_then(|id| self.ledger.invoice(&id));
        read.shown.extend(shown.and_then(|invoice| {
            Some(Shown { invoice: invoice.id.clone(), address: invoice.address.clone()?.address })
        }));
    }

    /// The first keeper's owner sets a price.
    fn price(&mut self, now_ms: u64) {
        let of = Resource::from(room());
        let terms = serde_json::json!({"price": {"sats": PRICE_SATS}, "period": {"minutes": 60}});
        let offer: Offer = serde_json::from_value(terms).expect("terms");
        self.ledger.handle_offer(now_ms, &of, Some(offer), None).expect("terms within bounds");
        self.commit(None);
    }

    /// True where it does not keep the ledger any more.
    pub fn look_after_lease(&mut self, now: Duration, now_ms: u64) -> bool {
        while let Some(LeaseEvent::Lost { .. } | LeaseEvent::Uncertain(_) | LeaseEvent::Certain(_)) =
            self.holdings.poll_event()
        {}
        // The loop waits for its facts, and for nothing else meanwhile; and it looks twice a second.
        if self.committing.is_some() || now < self.next_tick {
            return false;
        }
        self.next_tick = now + TICK;
        match self.keeping.handle_lease(self.holdings.epoch(&RoomName::ledger())) {
            None => false,
            Some(Step::StepDown) => {
                self.fold_anew();
                true
            }
            Some(Step::Open(epoch)) => {
                self.opening = Some(epoch);
                let fact = Fact::LedgerOpened { epoch, node: self.id.clone(), key: "key".into() };
                self.write(epoch, vec![fact.into_event(RoomName::ledger(), now_ms)], true);
                false
            }
        }
    }

    fn lose(&mut self) -> bool {
        let ledger = RoomName::ledger();
        if let Some(epoch) = self.holdings.epoch(&ledger) {
            self.holdings.handle_ended(&ledger, epoch);
        }
        let lost = self.keeping.handle_fenced().is_some();
        self.fold_anew();
        lost
    }

    fn fold_anew(&mut self) {
        (self.ledger, self.committing) = (Ledger::default(), None);
        for event in &self.copy {
            let EventBody::Ledger(fact) = &event.body else { continue };
            self.ledger.restore(&event.room, event.at_ms, fact);
        }
    }

    /// Somebody asks for an invoice.
    pub fn order(&mut self, now: Duration, now_ms: u64, id: InvoiceId, viewer: Identity) {
        let ready = self.is_alive() && now >= self.frozen_until && self.committing.is_none();
        if !ready || !self.keeping.may_write() {
            return;
        }
        let index = self.ledger.next_index(PROFILE);
        let address = Address { profile: PROFILE.into(), index, address: format!("address-{index}") };
        let (of, address) = (Resource::from(room()), Some(address));
        let order = Order { id, of, viewer, rate: None, address, payment_hash: None, pay_until_ms: None };
        if let Ok(id) = self.ledger.handle_order(now_ms, order) {
            self.commit(Some(id));
        }
    }

    /// It is time to look at the wallet.
    pub fn is_due(&mut self, now: Duration) -> bool {
        let due = self.keeping.may_write() && self.committing.is_none() && now >= self.next_look;
        if due {
            self.next_look = now + EVERY;
        }
        due
    }

    pub fn watch(&mut self, now_ms: u64, seen: &[(String, Observed)]) {
        for (to, observed) in seen {
            self.ledger.handle_observed(now_ms, to, observed.clone());
        }
        self.ledger.handle_synced(now_ms, Rail::Onchain, now_ms);
        self.commit(None);
    }

    /// Sends all new facts as one record.
    fn commit(&mut self, shows: Option<InvoiceId>) {
        let events: Vec<Event> = std::iter::from_fn(|| self.ledger.poll_output()).collect();
        if events.is_empty() {
            return;
        }
        let epoch = self.holdings.epoch(&RoomName::ledger()).or(self.last_epoch()).unwrap_or(0);
        self.committing = Some(Commit { ids: events.iter().map(|event| event.id.clone()).collect(), shows });
        self.write(epoch, events, false);
    }

    /// Of its own last opening: who lost the lease a moment ago writes under it still.
    fn last_epoch(&self) -> Option<u64> {
        let writer = self.fence.writer(&RoomName::ledger())?;
        (writer.node == self.id).then_some(writer.epoch)
    }

    fn write(&mut self, epoch: u64, events: Vec<Event>, opens: bool) {
        let writer = Writer { epoch, node: self.id.clone(), incarnation: self.incarnation };
        let record = Record { writer, opens, events, arrives_at: Duration::ZERO };
        self.outbox.push(record.clone());
        self.unsent.push(record);
    }

    pub fn take_sent(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.unsent)
    }
}
