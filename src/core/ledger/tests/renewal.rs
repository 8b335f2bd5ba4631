//! Renewals: reminders, credit that renews by itself, grace, and the end of what nobody renewed.

use super::*;

/// Begins the renewals that are due, as the shell does.
fn renew(desk: &mut Desk) -> Vec<Fact> {
    for due in desk.ledger.due_renewals(desk.now) {
        let n = desk.orders;
        desk.orders += 1;
        let order = Order {
            id: InvoiceId::new(u128::from(n)),
            of: due.of.clone(),
            viewer: due.viewer.clone(),
            rate: None,
            address: Some(Address { profile: "p".into(), index: n, address: format!("addr{n}") }),
            payment_hash: Some(format!("hash{n}")),
            pay_until_ms: due.pay_until_ms,
        };
        let id = desk.ledger.handle_order(desk.now, order).unwrap();
        desk.ledger.handle_due(desk.now, &due, &id);
    }
    desk.drain()
}

#[test]
fn in_the_last_tenth_there_is_one_reminder_with_an_invoice_to_the_end_of_grace() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.lightning(&first, PRICE);
    let end = desk.ends_at("ann");
    desk.pass(53 * MINUTE);
    assert_eq!(renew(&mut desk), [], "not yet");
    desk.pass(2 * MINUTE);
    let facts = renew(&mut desk);
    let [
        Fact::InvoiceCreated { expires_at_ms, .. },
        Fact::RenewalDue { viewer: who, ends_at_ms, invoice, .. },
    ] = &facts[..]
    else {
        panic!("{facts:?}")
    };
    assert_eq!((who.as_str(), *ends_at_ms, *expires_at_ms), ("ann", end, end + 10 * MINUTE));
    let invoice = invoice.clone();
    desk.pass(MINUTE);
    assert_eq!(renew(&mut desk), [], "and no second one");
    assert_eq!(replayed(&desk.facts).due_renewals(desk.now), [], "nor after a restart");
    desk.lightning(&invoice, PRICE);
    assert_eq!(desk.ends_at("ann"), end + HOUR);
    desk.pass(HOUR);
    assert_eq!(renew(&mut desk).len(), 2, "of the next end it is reminded again");
}

#[test]
fn enough_credit_renews_by_itself_and_says_nothing() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.lightning(&first, 2 * PRICE);
    let end = desk.ends_at("ann");
    desk.pass(55 * MINUTE);
    let facts = renew(&mut desk);
    assert!(matches!(facts[..], [Fact::InvoiceCreated { .. }, Fact::InvoiceSettled { .. }]), "{facts:?}");
    assert_eq!(desk.ends_at("ann"), end + HOUR);
    assert_eq!(desk.subscription("ann"), (SubscriptionState::Active, 0));
}

#[test]
fn what_is_missed_ends_after_grace_and_is_told_once() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.lightning(&first, PRICE);
    let end = desk.ends_at("ann");
    desk.pass(65 * MINUTE);
    assert_eq!(desk.subscription("ann").0, SubscriptionState::Grace);
    assert_eq!(renew(&mut desk).len(), 2, "also in grace");
    assert!(desk.is_in("ann"));
    desk.now += 10 * MINUTE;
    desk.ledger.handle_timeout(desk.now);
    let ended =
        |facts: &[Fact]| facts.iter().filter(|fact| matches!(fact, Fact::SubscriptionExpired { .. })).count();
    let facts = desk.drain();
    assert_eq!(ended(&facts), 1, "{facts:?}");
    assert!(facts.contains(&Fact::SubscriptionExpired {
        content: None,
        viewer: viewer("ann"),
        ended_at_ms: end + 10 * MINUTE,
    }));
    assert!(!desk.is_in("ann"));
    desk.ledger.handle_timeout(desk.now + HOUR);
    assert_eq!(ended(&desk.drain()), 0);
    let mut again = replayed(&desk.facts);
    again.handle_timeout(desk.now + HOUR);
    assert_eq!(again.poll_output().map(|event| event.id), None, "told before the restart");
    assert_eq!(desk.ledger.due_renewals(desk.now), []);
}

#[test]
fn its_owner_says_how_long_before() {
    let mut desk = Desk::new(Offer { remind_seconds: Some(30 * 60), ..offer() });
    let first = desk.order("ann");
    desk.lightning(&first, PRICE);
    desk.pass(29 * MINUTE);
    assert_eq!(desk.ledger.due_renewals(desk.now), []);
    desk.pass(2 * MINUTE);
    assert_eq!(desk.ledger.due_renewals(desk.now).len(), 1);
    let late = Offer { remind_seconds: Some(60), ..offer() };
    desk.ledger.handle_offer(desk.now, &room(), Some(late), None).unwrap();
    assert_eq!(desk.ledger.due_renewals(desk.now), [], "by the terms as they are now it is early");
    desk.ledger.handle_offer(desk.now, &room(), None, None).unwrap();
    assert_eq!(desk.ledger.due_renewals(desk.now), [], "what is free is not renewed");
}

#[test]
fn who_was_put_out_is_not_reminded() {
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.lightning(&first, PRICE);
    desk.ledger.handle_revoke(desk.now, &room(), &viewer("ann"), Some("rude"), viewer("o")).unwrap();
    desk.pass(58 * MINUTE);
    assert_eq!(renew(&mut desk), []);
}

#[test]
fn a_fiat_price_is_frozen_for_no_longer_than_the_offer_says() {
    let price = Price::Fiat { currency: Currency::parse("EUR").unwrap(), cents: 500 };
    let mut desk = Desk::new(offer());
    let first = desk.order("ann");
    desk.lightning(&first, PRICE);
    desk.ledger.handle_offer(desk.now, &room(), Some(Offer { price, ..offer() }), None).unwrap();
    desk.pass(58 * MINUTE);
    assert_eq!(desk.ledger.due_renewals(desk.now)[0].pay_until_ms, None);
}

/// A recording and the room that it is of are bought apart.
#[test]
fn contents_are_sold_by_themselves_and_never_on_a_payment_that_is_not_final() {
    use crate::core::recording::RecordingId;
    let mut desk = Desk::new(Offer { zero_conf: true, ..offer() });
    let recording = Resource::recording(&room().room, &RecordingId::parse("r1").unwrap());
    for offer in [
        Offer { zero_conf: true, ..offer() },
        Offer { trial_seconds: 60, ..offer() },
        Offer { preview_seconds: 60, ..offer() },
        Offer { preview_lowest: true, ..offer() },
    ] {
        let refused = desk.ledger.handle_offer(desk.now, &recording, Some(offer), None).unwrap_err();
        assert_eq!(refused.code, Code::Malformed);
    }
    desk.ledger.handle_offer(desk.now, &recording, Some(offer()), None).unwrap();
    let order = Order {
        id: InvoiceId::new(99),
        of: recording.clone(),
        viewer: viewer("ann"),
        rate: None,
        address: Some(Address { profile: "p".into(), index: 99, address: "addr99".into() }),
        payment_hash: None,
        pay_until_ms: None,
    };
    let invoice = desk.ledger.handle_order(desk.now, order).unwrap();
    desk.chain(&invoice, "a:0", PRICE, SEEN);
    let has = |desk: &Desk, of: &Resource| desk.ledger.entitlement(of, &viewer("ann"), desk.now).is_some();
    assert!(!has(&desk, &recording), "seen is not paid");
    desk.chain(&invoice, "a:0", PRICE, blocks(1));
    assert!(has(&desk, &recording));
    assert!(!has(&desk, &room()), "the room was not bought");
    let ids: Vec<_> = desk.facts.iter().map(|event| event.id.clone()).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "facts of one thing are not taken for another's");
    let again = replayed(&desk.facts);
    assert!(again.entitlement(&recording, &viewer("ann"), desk.now).is_some());
    desk.chain(&invoice, "a:0", PRICE, Progress::Replaced);
    assert!(!has(&desk, &recording), "taken back, it is not served any more");
}

#[test]
fn what_is_to_be_looked_at_closely_waits_or_is_not_deep() {
    let mut desk = Desk::new(offer());
    let (one, two) = (desk.order("ann"), desk.order("bob"));
    let hot = |desk: &Desk| desk.ledger.hot_addresses();
    assert_eq!(hot(&desk).len(), 2);
    desk.chain(&one, "a:0", PRICE, blocks(1));
    desk.lightning(&two, PRICE);
    let known = vec![(PaymentKey::Outpoint("a:0".into()), Msat::from_sats(PRICE))];
    assert_eq!(hot(&desk), [("addr0".into(), known)]);
    assert_eq!(replayed(&desk.facts).hot_addresses(), hot(&desk));
    desk.chain(&one, "a:0", PRICE, blocks(WATCHED_BLOCKS));
    assert_eq!(hot(&desk), []);
}
