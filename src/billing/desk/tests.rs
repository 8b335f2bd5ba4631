//! The loop beside a log that hangs: questions are answered from what is durable, and what would change the
//! ledger is refused in time.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Desk;
use crate::billing::{Admission, Billing, Hand, Payer};
use crate::config::Config;
use crate::control::Control;
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{Offer, Period, Resource};
use crate::core::refusal::{Code, Refusal};
use crate::events::memory::MemoryLog;
use crate::events::writer::EventWriter;

fn name(text: &str) -> Identity {
    Identity::parse(text).unwrap()
}

fn room() -> Resource {
    RoomName::parse("show").unwrap().into()
}

async fn give_access(billing: &Billing, viewer: &str) -> Result<(), Refusal> {
    let (of, viewer, period) = (room(), name(viewer), Period::Days(1));
    billing.lay_hand(Hand::Comp { of, viewer, period, reason: "a friend".into() }, name("owner")).await
}

async fn knock(billing: &Billing, viewer: &str) -> Result<Admission, Refusal> {
    billing.admit(room(), Payer::Known(name(viewer)), [127, 0, 0, 1].into()).await
}

/// A shop on a log that answers nothing until the sender is used or dropped.
async fn shop_on_a_log_that_hangs() -> (Billing, mpsc::Sender<()>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { dev: true, ..Config::default() };
    config.node.data_dir = folder.path().to_owned();
    let events = EventWriter::spawn(Box::new(MemoryLog::default())).unwrap();
    let billing = Desk::spawn(&config, Control::unplugged(), events.clone()).await.unwrap();
    let offer: Offer = serde_json::from_str(r#"{"price": {"sats": 20000}, "period": {"days": 1}}"#).unwrap();
    billing.set_offer(room(), Some(offer), None).await.unwrap();
    give_access(&billing, "vera").await.unwrap();
    let (release, held) = mpsc::channel();
    let hang = move |_: &mut dyn crate::events::EventLog| {
        // Ends with the test, whether it passes or not.
        let _ = held.recv();
        Ok(())
    };
    events.read(hang, |_| ()).unwrap();
    (billing, release, folder)
}

#[tokio::test]
async fn while_the_log_hangs_who_has_paid_comes_in_and_changes_are_refused_in_time() {
    let (billing, release, _folder) = shop_on_a_log_that_hangs().await;
    let asked_at = Instant::now();
    let (first, second, invoice) =
        tokio::join!(give_access(&billing, "otto"), give_access(&billing, "ida"), knock(&billing, "udo"));
    assert!(asked_at.elapsed() < Duration::from_secs(8), "{:?}", asked_at.elapsed());
    for refused in [first.err(), second.err(), invoice.err()] {
        let refusal = refused.expect("nothing can be written");
        assert_eq!(refusal.code, Code::Unavailable);
        assert!(refusal.message.contains("the event log does not answer"), "{}", refusal.message);
    }

    let asked_at = Instant::now();
    let vera = knock(&billing, "vera").await.unwrap();
    assert!(matches!(vera, Admission::Entitled { .. }), "{vera:?}");
    assert!(billing.offer(room()).await.unwrap().is_some());
    assert!(!billing.is_entitled(room(), name("otto")).await.unwrap(), "its fact is made and not durable");
    let shown = billing.subscribers(room().room).await.unwrap();
    assert_eq!(shown.iter().map(|one| one.subscription.viewer.as_str()).collect::<Vec<_>>(), ["vera"]);
    assert!(asked_at.elapsed() < Duration::from_secs(1), "{:?}", asked_at.elapsed());

    release.send(()).unwrap();
    give_access(&billing, "emil").await.unwrap();
    for (viewer, is_in, why) in [
        ("otto", true, "what was on its way to the log arrived"),
        ("ida", false, "what nobody waited for any more was not begun"),
        ("emil", true, "the log takes facts again"),
    ] {
        assert_eq!(billing.is_entitled(room(), name(viewer)).await.unwrap(), is_in, "{why}");
    }
}
