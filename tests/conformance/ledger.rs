//! The facts about money in a log: in their order over all rooms, once each, and nothing shared by two
//! invoices.

use antiphon::core::event::{Event, EventBody};
use antiphon::core::ids::Identity;
use antiphon::core::ledger::{
    Address, Fact, InvoiceId, Ledger, Msat, Observed, Offer, Order, PaymentKey, Period, Price, Progress,
    Resource,
};
use antiphon::events::memory::MemoryLog;
use antiphon::events::sqlite::{FILE_NAME, SqliteLog};
use antiphon::events::{EventLog, LogError};

use super::{room, sent};

fn offer() -> Offer {
    Offer {
        price: Price::Sats(1_000),
        period: Period::Months(1),
        trial_seconds: 0,
        grace_seconds: 0,
        preview_seconds: 0,
        pay_within_seconds: 900,
        zero_conf: false,
        preview_lowest: false,
        remind_seconds: None,
    }
}

fn created(n: u8, address: &str) -> Fact {
    Fact::InvoiceCreated {
        invoice: InvoiceId::new(n.into()),
        content: None,
        viewer: Identity::parse("ann").expect("a name"),
        version: 1,
        price: Msat::from_sats(1_000),
        asked: Msat::from_sats(1_000),
        rate: None,
        expires_at_ms: 900_000,
        address: Some(Address { profile: "p".into(), index: n.into(), address: address.into() }),
        payment_hash: Some(format!("hash-{n}")),
    }
}

fn stored(room_name: &str, fact: Fact) -> Event {
    Event { id: fact.id(), room: room(room_name), at_ms: 1_000, body: EventBody::Ledger(Box::new(fact)) }
}

fn for_each_log(check: impl Fn(&mut dyn EventLog)) {
    check(&mut MemoryLog::default());
    let directory = tempfile::tempdir().expect("a temporary directory");
    check(&mut SqliteLog::open(&directory.path().join(FILE_NAME)).expect("a new log"));
}

#[test]
fn facts_of_all_rooms_come_in_their_order_and_page_by_page() {
    for_each_log(|log| {
        let set = |version| Fact::OfferSet { content: None, version, offer: Some(offer()), by: None };
        let facts = [stored("one", set(1)), stored("two", set(1)), stored("one", created(1, "a"))];
        log.append(&[facts[0].clone(), sent("one", 1), facts[1].clone()]).expect("appended");
        log.append(&[facts[2].clone(), facts[0].clone()]).expect("appended");
        let first = log.ledger(0, 2).expect("readable");
        let rest = log.ledger(first[1].offset, 2).expect("readable");
        let read: Vec<Event> = first.into_iter().chain(rest).map(|recorded| recorded.event).collect();
        assert_eq!(read, facts);
    });
}

#[test]
fn what_is_one_invoices_is_no_others() {
    for_each_log(|log| {
        log.append(&[stored("one", created(1, "a"))]).expect("appended");
        let batch = [stored("one", created(2, "b")), stored("two", created(3, "a"))];
        assert!(matches!(log.append(&batch), Err(LogError::Rejected(_))));
        assert_eq!(log.ledger(0, 10).expect("readable").len(), 1, "a batch is appended whole or not at all");
        log.append(&[stored("one", created(1, "a"))]).expect("again is harmless");
        let paid = |invoice: u8, change| Fact::PaymentChanged {
            invoice: InvoiceId::new(invoice.into()),
            payment: PaymentKey::Outpoint("tx:0".into()),
            change,
            sum: Msat::from_sats(5),
            paid_at_ms: 1,
            status: antiphon::core::ledger::PaymentStatus::Unconfirmed,
            as_of_ms: 1,
            confirmations: 0,
        };
        log.append(&[stored("one", paid(1, 1)), stored("one", paid(1, 2))]).expect("appended");
        assert!(matches!(log.append(&[stored("one", paid(2, 1))]), Err(LogError::Rejected(_))));
    });
}

/// A ledger from what a log has.
fn rebuilt(log: &mut dyn EventLog) -> Ledger {
    let mut ledger = Ledger::default();
    for recorded in log.ledger(0, 500).expect("readable") {
        let EventBody::Ledger(fact) = &recorded.event.body else { panic!("facts alone") };
        ledger.restore(&recorded.event.room, recorded.event.at_ms, fact);
    }
    ledger
}

#[test]
fn a_ledger_is_rebuilt_from_its_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(FILE_NAME);
    let (show, ann) = (Resource::from(room("show")), Identity::parse("ann").expect("a name"));
    let mut ledger = Ledger::default();
    ledger.handle_offer(1_000, &show, Some(offer()), None).expect("an offer");
    let order = Order {
        id: InvoiceId::new(1),
        of: show.clone(),
        viewer: ann.clone(),
        rate: None,
        address: Some(Address { profile: "p".into(), index: 4, address: "a".into() }),
        payment_hash: None,
        pay_until_ms: None,
    };
    ledger.handle_order(2_000, order).expect("an invoice");
    let seen = Observed {
        key: PaymentKey::Outpoint("tx:0".into()),
        sum: Msat::from_sats(1_500),
        paid_at_ms: 3_000,
        progress: Progress::Confirmations(1),
        as_of_ms: 3_000,
    };
    ledger.handle_observed(3_000, "a", seen);
    let batch: Vec<Event> = std::iter::from_fn(|| ledger.poll_output()).collect();
    SqliteLog::open(&path).expect("a new log").append(&batch).expect("appended");

    let again = rebuilt(&mut SqliteLog::open(&path).expect("the log"));
    assert_eq!(again.subscription(&show, &ann, 4_000), ledger.subscription(&show, &ann, 4_000));
    assert_eq!(again.next_index("p"), 5);
    assert_eq!(again.offer(&show), ledger.offer(&show));
    assert_eq!(again.subscription(&show, &ann, 4_000).expect("an account").credit_msat, 500_000);
}
