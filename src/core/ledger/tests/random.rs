//! Random histories: payments that are seen, confirmed, reorganised, replaced, doubled, told late, twice
//! and out of order. Whatever happened, no satoshi is lost or made, and a ledger made anew from the log is
//! the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const VIEWERS: [&str; 3] = ["ann", "bob", "cy"];

#[derive(Debug, Clone)]
enum Step {
    Order(usize),
    /// A transaction pays an invoice, so many thousand sats.
    Pay {
        invoice: usize,
        thousands: u64,
    },
    /// The chain changes its mind about a payment: so many blocks have it, or none ever will.
    Chain {
        payment: usize,
        progress: Progress,
    },
    Lightning {
        invoice: usize,
        thousands: u64,
    },
    Mark(usize),
    /// A wallet tells again what it once said.
    Repeat(usize),
    Wait(u64),
    Reprice(u64),
    Revoke(usize, bool),
    Renew,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let progress = prop_oneof![
        3 => (0u32..8).prop_map(Progress::Confirmations),
        1 => Just(Progress::Confirmations(WATCHED_BLOCKS)),
        1 => Just(Progress::Replaced),
    ];
    prop_oneof![
        3 => (0..VIEWERS.len()).prop_map(Step::Order),
        4 => (0usize..20, 1u64..150).prop_map(|(invoice, thousands)| Step::Pay { invoice, thousands }),
        6 => (0usize..30, progress).prop_map(|(payment, progress)| Step::Chain { payment, progress }),
        2 => (0usize..20, 40u64..60).prop_map(|(invoice, thousands)| Step::Lightning { invoice, thousands }),
        1 => (0usize..20).prop_map(Step::Mark),
        3 => (0usize..200).prop_map(Step::Repeat),
        2 => (1u64..90).prop_map(|minutes| Step::Wait(minutes * MINUTE)),
        1 => (30u64..80).prop_map(Step::Reprice),
        1 => (0..VIEWERS.len(), any::<bool>()).prop_map(|(who, on)| Step::Revoke(who, on)),
        1 => Just(Step::Renew),
        1 => Just(Step::Restart),
    ]
}

/// What is true outside of the ledger: each payment's invoice, sats and progress.
#[derive(Default)]
struct World {
    invoices: Vec<InvoiceId>,
    chain: Vec<(usize, u64, Progress)>,
    lightning: BTreeMap<usize, u64>,
    told: Vec<(String, Observed)>,
}

fn tell(desk: &mut Desk, world: &mut World, to: String, observed: Observed) {
    world.told.push((to.clone(), observed.clone()));
    desk.ledger.handle_observed(desk.now, &to, observed);
}

fn tell_chain(desk: &mut Desk, world: &mut World, payment: usize) {
    let (invoice, sats, progress) = world.chain[payment];
    let id = &world.invoices[invoice];
    let to = desk.ledger.invoice(id).unwrap().address.clone().unwrap().address;
    desk.now += 1;
    let key = PaymentKey::Outpoint(format!("tx{payment}:0"));
    let (paid_at_ms, as_of_ms) = (desk.now, desk.now);
    tell(desk, world, to, Observed { key, sum: Msat::from_sats(sats), paid_at_ms, progress, as_of_ms });
}

fn take(desk: &mut Desk, world: &mut World, step: Step) {
    match step {
        Step::Order(who) => {
            let id = desk.order(VIEWERS[who]);
            if !world.invoices.contains(&id) {
                world.invoices.push(id);
            }
        }
        Step::Pay { invoice, thousands } if invoice < world.invoices.len() => {
            world.chain.push((invoice, thousands * 1_000, SEEN));
            tell_chain(desk, world, world.chain.len() - 1);
        }
        Step::Chain { payment, progress } if payment < world.chain.len() => {
            // A hundred blocks are never taken back: it is what watching relies on.
            if world.chain[payment].2 != Progress::Confirmations(WATCHED_BLOCKS) {
                world.chain[payment].2 = progress;
            }
            tell_chain(desk, world, payment);
        }
        Step::Lightning { invoice, thousands } if invoice < world.invoices.len() => {
            let sats = *world.lightning.entry(invoice).or_insert(thousands * 1_000);
            let hash = desk.ledger.invoice(&world.invoices[invoice]).unwrap().payment_hash.clone().unwrap();
            desk.now += 1;
            let key = PaymentKey::PaymentHash(hash.clone());
            let (sum, at) = (Msat::from_sats(sats), desk.now);
            let progress = Progress::Settled;
            tell(desk, world, hash, Observed { key, sum, paid_at_ms: at, progress, as_of_ms: at });
        }
        Step::Mark(invoice) if invoice < world.invoices.len() => {
            let id = world.invoices[invoice].clone();
            desk.ledger.handle_mark(desk.now, &room().room, &id, "cash", viewer("owner")).unwrap();
        }
        Step::Repeat(at) if at < world.told.len() => {
            let (to, observed) = world.told[at].clone();
            desk.ledger.handle_observed(desk.now, &to, observed);
        }
        Step::Wait(ms) => desk.pass(ms),
        Step::Reprice(thousands) => {
            let offer = Offer { price: Price::Sats(thousands * 1_000), ..offer() };
            desk.ledger.handle_offer(desk.now, &room(), Some(offer), None).unwrap();
        }
        Step::Revoke(who, on) => {
            let reason = on.then_some("rude");
            // Who never came cannot be put out.
            let _ = desk.ledger.handle_revoke(desk.now, &room(), &viewer(VIEWERS[who]), reason, viewer("o"));
        }
        Step::Renew => {
            for due in desk.ledger.due_renewals(desk.now) {
                let id = desk.order(due.viewer.as_str());
                desk.ledger.handle_due(desk.now, &due, &id);
                if !world.invoices.contains(&id) {
                    world.invoices.push(id);
                }
            }
        }
        Step::Restart => {
            desk.drain();
            desk.ledger = replayed(&desk.facts);
        }
        _ => {}
    }
    desk.drain();
}

/// What must hold of every account, always.
fn check_sums(desk: &Desk) -> Result<(), TestCaseError> {
    for (_, account) in desk.ledger.accounts(&room()) {
        let received: i128 = account
            .invoices
            .values()
            .flat_map(|invoice| invoice.payments.values())
            .filter(|payment| payment.status.counts())
            .map(|payment| i128::from(payment.sum.0))
            .sum();
        let spent: i128 = account
            .terms
            .iter()
            .filter(|(_, term)| !term.void)
            .filter_map(|(source, _)| match source {
                TermSource::Invoice(id) => Some(i128::from(account.invoices[id].price.0)),
                TermSource::Comp(_) => None,
            })
            .sum();
        prop_assert_eq!(received, spent + account.credit(), "a satoshi was lost or made");
        prop_assert!(account.to_settle().is_none() && account.to_reverse().is_none(), "work was left");
    }
    Ok(())
}

fn check_facts(desk: &Desk) -> Result<(), TestCaseError> {
    let ids: BTreeSet<_> = desk.facts.iter().map(|event| event.id.clone()).collect();
    prop_assert_eq!(ids.len(), desk.facts.len(), "each fact has an id of its own");
    let mut settled = BTreeMap::<&InvoiceId, i32>::new();
    let mut keys = BTreeMap::new();
    for event in &desk.facts {
        let EventBody::Ledger(fact) = &event.body else { continue };
        let by = match &**fact {
            Fact::InvoiceSettled { invoice, .. } => Some((invoice, 1)),
            Fact::InvoiceReversed { invoice, .. } => Some((invoice, -1)),
            _ => None,
        };
        if let Some((invoice, by)) = by {
            let times = settled.entry(invoice).or_default();
            *times += by;
            prop_assert!((0..=1).contains(times), "settled once, and again only after a reversal");
        }
        for (key, invoice) in fact.unique_keys() {
            prop_assert_eq!(keys.entry(key).or_insert_with(|| invoice.clone()), invoice);
        }
    }
    Ok(())
}

/// An account as it can be compared: what wallets last said is not kept over a restart.
fn stripped(ledger: &Ledger) -> BTreeMap<Identity, Account> {
    let room = room();
    let accounts = ledger.accounts(&room).map(|(who, account)| {
        let mut account = account.clone();
        for payment in account.invoices.values_mut().flat_map(|invoice| invoice.payments.values_mut()) {
            (payment.confirmations, payment.as_of_ms) = (0, 0);
        }
        (who.clone(), account)
    });
    accounts.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_satoshi_is_somewhere_and_nothing_settles_twice(steps in prop::collection::vec(step(), 1..120)) {
        let mut desk = Desk::new(offer());
        let mut world = World::default();
        for step in steps {
            take(&mut desk, &mut world, step);
            check_sums(&desk)?;
        }
        check_facts(&desk)?;
        prop_assert_eq!(stripped(&replayed(&desk.facts)), stripped(&desk.ledger), "the log is the ledger");

        // In the end the wallets say once more how all stands: then the ledger and the world agree.
        for payment in 0..world.chain.len() {
            tell_chain(&mut desk, &mut world, payment);
        }
        desk.drain();
        check_sums(&desk)?;
        let mut received = BTreeMap::<Identity, i128>::new();
        for (invoice, sats, progress) in &world.chain {
            let invoice = desk.ledger.invoice(&world.invoices[*invoice]).unwrap();
            let needed = invoice.confirmations_needed(Msat::from_sats(*sats));
            if matches!(progress, Progress::Confirmations(blocks) if *blocks >= needed) {
                *received.entry(invoice.viewer.clone()).or_default() += i128::from(*sats) * 1_000;
            }
        }
        for (invoice, sats) in &world.lightning {
            let invoice = desk.ledger.invoice(&world.invoices[*invoice]).unwrap();
            *received.entry(invoice.viewer.clone()).or_default() += i128::from(*sats) * 1_000;
        }
        for (who, account) in desk.ledger.accounts(&room()) {
            let marked: i128 = account.invoices.values()
                .filter_map(|invoice| invoice.payments.get(&PaymentKey::Marked))
                .map(|payment| i128::from(payment.sum.0)).sum();
            prop_assert_eq!(account.received(), received.remove(who).unwrap_or(0) + marked);
        }
        prop_assert!(received.values().all(|sum| *sum == 0), "money came for nobody");
    }

    #[test]
    fn the_order_of_news_does_not_matter(
        sums in prop::collection::vec((1u64..80, 0u32..4), 1..8),
        order in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let told: Vec<Observed> = sums.iter().enumerate().flat_map(|(n, (thousands, blocks))| {
            (0..=*blocks).map(move |depth| Observed {
                key: PaymentKey::Outpoint(format!("tx{n}:0")),
                sum: Msat::from_sats(thousands * 1_000),
                paid_at_ms: HOUR,
                progress: Progress::Confirmations(depth),
                as_of_ms: HOUR + u64::from(depth) + 1,
            })
        }).collect();
        let outcome = |told: &[Observed]| {
            let mut desk = Desk::new(offer());
            let invoice = desk.order("ann");
            for observed in told {
                desk.ledger.handle_observed(desk.now, "addr0", observed.clone());
            }
            (desk.subscription("ann"), desk.state(&invoice))
        };
        let mut shuffled = told.clone();
        // A cheap shuffle from the seed, with some told twice.
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, (seed.rotate_left(at as u32) % (at as u64 + 1)) as usize);
        }
        shuffled.push(told[order.index(told.len())].clone());
        prop_assert_eq!(outcome(&told), outcome(&shuffled));
    }
}
