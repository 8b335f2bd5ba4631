//! One behaviour each, in virtual time; random histories are in `random`.

use super::*;
use crate::core::event::EventBody;

mod random;
mod renewal;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const PRICE: u64 = 50_000;

fn room() -> Resource {
    RoomName::parse("show").unwrap().into()
}

fn viewer(name: &str) -> Identity {
    Identity::parse(name).unwrap()
}

fn offer() -> Offer {
    serde_json::from_value(serde_json::json!({
        "price": {"sats": PRICE}, "period": {"minutes": 60}, "grace_seconds": 600,
    }))
    .unwrap()
}

/// A ledger with one shop, and the facts that it put out.
struct Desk {
    ledger: Ledger,
    facts: Vec<Event>,
    now: u64,
    orders: u32,
}

impl Desk {
    fn new(offer: Offer) -> Self {
        let mut desk = Self { ledger: Ledger::default(), facts: Vec::new(), now: HOUR, orders: 0 };
        desk.ledger.handle_offer(desk.now, &room(), Some(offer), None).unwrap();
        desk.drain();
        desk
    }

    fn drain(&mut self) -> Vec<Fact> {
        let mut new = Vec::new();
        while let Some(event) = self.ledger.poll_output() {
            let EventBody::Ledger(fact) = &event.body else { panic!("a ledger puts out its own facts") };
            new.push((**fact).clone());
            self.facts.push(event);
        }
        new
    }

    fn order(&mut self, who: &str) -> InvoiceId {
        let n = self.orders;
        self.orders += 1;
        let order = Order {
            id: InvoiceId::new(u128::from(n)),
            of: room(),
            viewer: viewer(who),
            rate: None,
            address: Some(Address { profile: "p".into(), index: n, address: format!("addr{n}") }),
            payment_hash: Some(format!("hash{n}")),
            pay_until_ms: None,
        };
        let id = self.ledger.handle_order(self.now, order).unwrap();
        self.drain();
        id
    }

    fn chain(&mut self, invoice: &InvoiceId, outpoint: &str, sats: u64, progress: Progress) -> Vec<Fact> {
        self.now += 1;
        let address = self.ledger.invoice(invoice).unwrap().address.clone().unwrap().address;
        let key = PaymentKey::Outpoint(outpoint.into());
        let (paid_at_ms, as_of_ms) = (self.now, self.now);
        let seen = Observed { key, sum: Msat::from_sats(sats), paid_at_ms, progress, as_of_ms };
        self.ledger.handle_observed(self.now, &address, seen);
        self.drain()
    }

    fn lightning(&mut self, invoice: &InvoiceId, sats: u64) -> Vec<Fact> {
        self.now += 1;
        let hash = self.ledger.invoice(invoice).unwrap().payment_hash.clone().unwrap();
        let key = PaymentKey::PaymentHash(hash.clone());
        let (paid_at_ms, as_of_ms) = (self.now, self.now);
        let seen =
            Observed { key, sum: Msat::from_sats(sats), paid_at_ms, progress: Progress::Settled, as_of_ms };
        self.ledger.handle_observed(self.now, &hash, seen);
        self.drain()
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        for rail in [Rail::Onchain, Rail::Lightning] {
            self.ledger.handle_synced(self.now, rail, self.now);
        }
        self.drain();
    }

    fn state(&self, invoice: &InvoiceId) -> (InvoiceState, Flags) {
        let invoice = self.ledger.invoice(invoice).unwrap();
        (invoice.state(), invoice.flags())
    }

    fn subscription(&self, who: &str) -> (SubscriptionState, i64) {
        let view = self.ledger.subscription(&room(), &viewer(who), self.now).unwrap();
        (view.state, view.credit_sat())
    }

    fn is_in(&self, who: &str) -> bool {
        self.ledger.entitlement(&room(), &viewer(who), self.now).is_some()
    }

    fn ends_at(&self, who: &str) -> u64 {
        self.ledger.account(&room(), &viewer(who)).unwrap().span().unwrap().end_ms
    }
}

fn replayed(facts: &[Event]) -> Ledger {
    let mut ledger = Ledger::default();
    for event in facts {
        let EventBody::Ledger(fact) = &event.body else { panic!("facts alone") };
        ledger.restore(&event.room, event.at_ms, fact);
    }
    ledger
}

const SEEN: Progress = Progress::Confirmations(0);

fn blocks(count: u32) -> Progress {
    Progress::Confirmations(count)
}

#[test]
fn lightning_settles_at_once_and_once() {
    let mut desk = Desk::new(offer());
    let invoice = desk.order("ann");
    assert_eq!(desk.state(&invoice).0, InvoiceState::New);
    let facts = desk.lightning(&invoice, PRICE);
    assert!(matches!(facts[..], [Fact::PaymentChanged { .. }, Fact::InvoiceSettled { round: 1, .. }]));
    assert_eq!(desk.lightning(&invoice, PRICE), []);
    assert_eq!(desk.state(&invoice), (InvoiceState::Settled, Flags::default()));
    assert_eq!(desk.subscription("ann"), (SubscriptionState::Active, 0));
    desk.pass(59 * MINUTE);
    assert!(desk.is_in("ann"));
    desk.pass(2 * MINUTE);
    assert_eq!(desk.subscription("ann").0, SubscriptionState::Grace);
    desk.pass(10 * MINUTE);
    assert_eq!(desk.subscription("ann").0, SubscriptionState::Expired);
    assert!(!desk.is_in("ann"));
}

#[test]
fn on_chain_counts_when_it_is_deep_enough_for_its_sum() {
    let mut desk = Desk::new(Offer { price: Price::Sats(200_000), ..offer() });
    let invoice = desk.order("ann");
    desk.chain(&invoice, "t:0", 200_000, SEEN);
    assert_eq!(desk.state(&invoice).0, InvoiceState::Processing);
    assert!(!desk.is_in("ann"), "0 confirmations are not enough unless the owner says so");
    desk.chain(&invoice, "t:0", 200_000, blocks(1));
    assert_eq!(desk.state(&invoice).0, InvoiceState::Processing);
    desk.chain(&invoice, "t:0", 200_000, blocks(2));
    assert_eq!(desk.state(&invoice).0, InvoiceState::Settled);
    assert!(desk.is_in("ann"));
}

#[test]
fn many_small_payments_do_not_pass_for_a_small_one() {
    let mut desk = Desk::new(Offer { price: Price::Sats(100_000), ..offer() });
    let invoice = desk.order("ann");
    for part in ["a:0", "b:0"] {
        desk.chain(&invoice, part, 50_000, blocks(1));
    }
    assert_eq!(desk.state(&invoice).0, InvoiceState::Processing);
}

#[test]
fn unconfirmed_money_opens_the_door_only_where_the_owner_says_so() {
    let mut desk = Desk::new(Offer { zero_conf: true, ..offer() });
    let invoice = desk.order("ann");
    desk.chain(&invoice, "t:0", PRICE, SEEN);
    let entitled = desk.ledger.entitlement(&room(), &viewer("ann"), desk.now).unwrap();
    assert!(entitled.provisional);
    desk.chain(&invoice, "t:0", PRICE, Progress::Replaced);
    assert!(!desk.is_in("ann"));
    assert_eq!(desk.state(&invoice).0, InvoiceState::New);
    assert!(desk.state(&invoice).1.replaced);
    desk.pass(HOUR);
    assert_eq!(desk.state(&invoice).0, InvoiceState::Invalid);
}

#[test]
fn too_little_waits_for_the_rest_at_the_same_address() {
    let mut desk = Desk::new(offer());
    let invoice = desk.order("ann");
    desk.chain(&invoice, "a:0", 20_000, blocks(1));
    assert!(desk.state(&invoice).1.partial);
    assert_eq!(desk.ledger.invoice(&invoice).unwrap().remaining(), Msat::from_sats(30_000));
    assert_eq!(desk.order("ann"), invoice, "one that may still be paid is not replaced");
    desk.chain(&invoice, "b:1", 30_000, blocks(1));
    assert_eq!(desk.state(&invoice), (InvoiceState::Settled, Flags::default()));
    assert_eq!(desk.subscription("ann").1, 0);
}

#[test]
fn too_much_is_credit_and_the_next_invoice_asks_for_the_rest() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.chain(&first, "a:0", PRICE + 20_000, blocks(1));
    assert!(desk.state(&first).1.over);
    assert_eq!(desk.subscription("ann"), (SubscriptionState::Active, 20_000));
    let second = desk.order("ann");
    assert_eq!(desk.ledger.invoice(&second).unwrap().asked, Msat::from_sats(30_000));
    let end = desk.ends_at("ann");
    desk.lightning(&second, 30_000);
    assert_eq!(desk.ends_at("ann"), end + HOUR, "a renewal before the end goes on at the end");
    assert_eq!(desk.subscription("ann").1, 0);
}

#[test]
fn credit_that_is_enough_pays_by_itself() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.chain(&first, "a:0", 2 * PRICE, blocks(2));
    let second = desk.order("ann");
    assert_eq!(desk.state(&second).0, InvoiceState::Settled);
    assert_eq!(desk.subscription("ann").1, 0);
}

#[test]
fn what_comes_late_still_counts() {
    let mut desk = Desk::new(offer());
    let invoice = desk.order("ann");
    desk.pass(HOUR);
    assert_eq!(desk.state(&invoice).0, InvoiceState::Expired);
    desk.chain(&invoice, "a:0", PRICE, blocks(1));
    assert_eq!(desk.state(&invoice).0, InvoiceState::Settled);
    assert!(desk.state(&invoice).1.late);
    assert!(desk.is_in("ann"));
}

#[test]
fn late_and_too_little_is_credit() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.pass(HOUR);
    desk.chain(&first, "a:0", 10_000, blocks(1));
    assert_eq!(desk.state(&first).0, InvoiceState::Expired);
    assert_eq!(desk.subscription("ann").1, 10_000);
    let second = desk.order("ann");
    assert_ne!(first, second);
    desk.lightning(&second, 40_000);
    assert_eq!(desk.subscription("ann"), (SubscriptionState::Active, 0));
}

#[test]
fn nothing_expires_before_the_wallets_were_asked() {
    let mut desk = Desk::new(offer());
    let invoice = desk.order("ann");
    desk.now += HOUR;
    desk.ledger.handle_timeout(desk.now);
    desk.ledger.handle_synced(desk.now, Rail::Onchain, desk.now);
    assert_eq!(desk.state(&invoice).0, InvoiceState::New, "Lightning was not asked yet");
    desk.ledger.handle_synced(desk.now, Rail::Lightning, desk.now);
    assert_eq!(desk.state(&invoice).0, InvoiceState::Expired);
}

#[test]
fn paid_both_ways_counts_one_and_credits_the_other() {
    let mut desk = Desk::new(offer());
    let invoice = desk.order("ann");
    desk.chain(&invoice, "a:0", PRICE, SEEN);
    desk.lightning(&invoice, PRICE);
    desk.chain(&invoice, "a:0", PRICE, blocks(1));
    let (state, flags) = desk.state(&invoice);
    assert_eq!(state, InvoiceState::Settled);
    assert!(flags.both_ways && flags.over);
    assert_eq!(desk.subscription("ann"), (SubscriptionState::Active, PRICE as i64));
    assert_eq!(desk.ends_at("ann"), desk.now - 1 + HOUR);
}

#[test]
fn a_reorganisation_takes_back_and_gives_again_the_same_time() {
    let mut desk = Desk::new(offer());
    let invoice = desk.order("ann");
    desk.chain(&invoice, "a:0", PRICE, blocks(2));
    let end = desk.ends_at("ann");
    let facts = desk.chain(&invoice, "a:0", PRICE, SEEN);
    assert!(matches!(facts[..], [Fact::PaymentChanged { .. }, Fact::InvoiceReversed { round: 1, .. }]));
    assert_eq!(desk.state(&invoice).0, InvoiceState::Reversed);
    assert!(!desk.is_in("ann"));
    desk.now += MINUTE;
    desk.chain(&invoice, "a:0", PRICE, blocks(1));
    assert_eq!(desk.state(&invoice).0, InvoiceState::Settled);
    assert_eq!(desk.ends_at("ann"), end);
}

#[test]
fn used_credit_that_is_taken_back_is_a_debt() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.chain(&first, "a:0", PRICE, blocks(1));
    desk.chain(&first, "b:0", PRICE, blocks(1));
    let second = desk.order("ann");
    assert_eq!(desk.state(&second).0, InvoiceState::Settled, "by credit");
    desk.chain(&first, "a:0", PRICE, Progress::Replaced);
    assert_eq!(desk.state(&first).0, InvoiceState::Reversed);
    assert_eq!(desk.subscription("ann"), (SubscriptionState::Active, 0), "one of two periods is left");
    desk.chain(&first, "b:0", PRICE, Progress::Replaced);
    assert_eq!(desk.subscription("ann"), (SubscriptionState::Suspended, -(PRICE as i64)));
    assert!(!desk.is_in("ann"));
    let third = desk.order("ann");
    assert_eq!(desk.ledger.invoice(&third).unwrap().asked, Msat::from_sats(2 * PRICE));
    desk.lightning(&third, 2 * PRICE);
    assert_eq!(desk.subscription("ann"), (SubscriptionState::Active, 0));
}

#[test]
fn a_deep_payment_is_watched_no_more() {
    let mut desk = Desk::new(offer());
    let invoice = desk.order("ann");
    desk.chain(&invoice, "a:0", PRICE, blocks(WATCHED_BLOCKS));
    assert_eq!(desk.chain(&invoice, "a:0", PRICE, SEEN), []);
    assert_eq!(desk.state(&invoice).0, InvoiceState::Settled);
}

#[test]
fn older_news_than_known_is_passed_over() {
    let mut desk = Desk::new(offer());
    let invoice = desk.order("ann");
    desk.chain(&invoice, "a:0", PRICE, blocks(1));
    let stale = Observed {
        key: PaymentKey::Outpoint("a:0".into()),
        sum: Msat::from_sats(PRICE),
        paid_at_ms: 0,
        progress: SEEN,
        as_of_ms: desk.now - 1,
    };
    desk.ledger.handle_observed(desk.now, "addr0", stale);
    assert_eq!(desk.drain(), []);
    assert_eq!(desk.state(&invoice).0, InvoiceState::Settled);
}

#[test]
fn after_grace_a_renewal_begins_anew() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.lightning(&first, PRICE);
    let end = desk.ends_at("ann");
    desk.pass(65 * MINUTE);
    let second = desk.order("ann");
    desk.lightning(&second, PRICE);
    assert_eq!(desk.ends_at("ann"), end + HOUR, "in grace it goes on at the old end");
    desk.pass(3 * HOUR);
    let third = desk.order("ann");
    desk.lightning(&third, PRICE);
    assert_eq!(desk.ends_at("ann"), desk.now + HOUR);
}

#[test]
fn a_trial_comes_once_and_a_payment_goes_on_after_it() {
    let mut desk = Desk::new(Offer { trial_seconds: 600, ..offer() });
    desk.ledger.handle_trial(desk.now, &room().room, &viewer("ann"));
    let started = desk.now;
    assert_eq!(desk.subscription("ann").0, SubscriptionState::Trial);
    let invoice = desk.order("ann");
    desk.lightning(&invoice, PRICE);
    assert_eq!(desk.ends_at("ann"), started + 10 * MINUTE + HOUR);
    desk.pass(3 * HOUR);
    desk.ledger.handle_trial(desk.now, &room().room, &viewer("ann"));
    assert_eq!(desk.drain(), []);
    assert_eq!(desk.subscription("ann").0, SubscriptionState::Expired);
}

#[test]
fn the_owner_gives_takes_and_marks_each_once() {
    let mut desk = Desk::new(offer());
    let owner = || viewer("owner");
    let hour = Period::Minutes(60);
    desk.ledger.handle_comp(desk.now, &room(), &viewer("bob"), hour, "a friend", owner()).unwrap();
    assert!(desk.is_in("bob"));
    for _ in 0..2 {
        desk.ledger.handle_revoke(desk.now, &room(), &viewer("bob"), Some("rude"), owner()).unwrap();
    }
    assert_eq!(desk.drain().len(), 2);
    assert_eq!(desk.subscription("bob").0, SubscriptionState::Suspended);
    desk.ledger.handle_revoke(desk.now, &room(), &viewer("bob"), None, owner()).unwrap();
    assert!(desk.is_in("bob"));
    let invoice = desk.order("ann");
    for _ in 0..2 {
        desk.ledger.handle_mark(desk.now, &room().room, &invoice, "cash", owner()).unwrap();
    }
    assert_eq!(desk.subscription("ann"), (SubscriptionState::Active, 0));
    assert!(desk.state(&invoice).1.marked);
    let no_reason = desk.ledger.handle_mark(desk.now, &room().room, &invoice, " ", owner());
    assert_eq!(no_reason.unwrap_err().code, Code::Malformed);
    let elsewhere = RoomName::parse("other").unwrap();
    let foreign = desk.ledger.handle_mark(desk.now, &elsewhere, &invoice, "cash", owner());
    assert_eq!(foreign.unwrap_err().code, Code::NotFound);
}

#[test]
fn what_was_asked_for_by_an_earlier_payout_is_watched_on() {
    let mut desk = Desk::new(offer());
    for descriptor in ["wpkh(a/*)", "wpkh(b/*)"] {
        desk.ledger.handle_payout(desk.now, &room().room, Some(descriptor.into()), None);
    }
    desk.ledger.handle_payout(desk.now, &room().room, None, None);
    desk.drain();
    for ledger in [&desk.ledger, &replayed(&desk.facts)] {
        assert_eq!(ledger.payout(&room().room), None);
        assert_eq!(ledger.payouts().collect::<Vec<_>>(), ["wpkh(a/*)", "wpkh(b/*)"]);
    }
}

#[test]
fn each_block_of_a_payment_that_has_too_few_is_told_and_survives_a_restart() {
    let mut desk = Desk::new(Offer { price: Price::Sats(20_000_000), ..offer() });
    let invoice = desk.order("ann");
    let changes = |facts: Vec<Fact>| {
        facts.into_iter().filter(|fact| matches!(fact, Fact::PaymentChanged { .. })).count()
    };
    for (count, told) in [(0, 1), (0, 0), (1, 1), (2, 1), (2, 0), (5, 1), (6, 1), (7, 0)] {
        desk.now += 1;
        let facts = desk.chain(&invoice, "tx:0", 20_000_000, blocks(count));
        assert_eq!(changes(facts), told, "{count} blocks");
        let kept = replayed(&desk.facts);
        let payments = &kept.invoice(&invoice).unwrap().payments;
        assert_eq!(payments.values().next().unwrap().confirmations, count.min(6));
    }
}

#[test]
fn a_new_price_holds_for_new_invoices_alone() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    let dearer = Offer { price: Price::Sats(90_000), ..offer() };
    desk.ledger.handle_offer(desk.now, &room(), Some(dearer), None).unwrap();
    desk.lightning(&first, PRICE);
    assert_eq!(desk.state(&first).0, InvoiceState::Settled);
    let second = desk.order("ann");
    assert_eq!(desk.ledger.invoice(&second).unwrap().asked, Msat::from_sats(90_000));
    desk.ledger.handle_offer(desk.now, &room(), None, None).unwrap();
    let order = Order {
        id: InvoiceId::new(99),
        of: room(),
        viewer: viewer("eve"),
        rate: None,
        address: None,
        payment_hash: None,
        pay_until_ms: None,
    };
    assert_eq!(desk.ledger.handle_order(desk.now, order).unwrap_err().code, Code::NotFound);
    assert!(desk.is_in("ann"), "what was paid for stays");
}

#[test]
fn one_code_pays_both_ways() {
    let mut desk = Desk::new(offer());
    let invoice = desk.order("ann");
    desk.ledger.handle_offered(desk.now, &invoice, "lnbcrt1".into());
    let view = InvoiceView::of(desk.ledger.invoice(&invoice).unwrap());
    assert_eq!(view.uri().unwrap(), "BITCOIN:ADDR0?amount=0.00050000&lightning=LNBCRT1");
}
