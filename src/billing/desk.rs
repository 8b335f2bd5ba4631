//! The loop that owns the ledger: takes what wallets saw and people ask, makes facts durable, and only then
//! lets anything follow from them.
//!
//! While the event log cannot be written the loop waits for it and takes nothing else: money that was seen
//! is not told of before it is kept, and the wallets will say it again.

mod admit;
mod issue;
mod owner;
mod renew;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable as _};
use tokio::sync::{broadcast, mpsc, watch};

use super::gap;
use super::wallet::{Wallet, Watched, WatchedAddress};
use super::webhook::Hook;
use super::{Ask, Billing, BillingKey, Changed, Payout, Rates, Reply, Simulated};
use crate::control::{Control, unix_ms};
use crate::core::event::{Event, EventBody};
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{Fact, InvoiceId, InvoiceState, Ledger, Rail, Resource};
use crate::core::refusal::{Code, Refusal};
use crate::events::LogError;
use crate::events::writer::EventWriter;
use crate::mailbox::ControlSender;

/// Asks that may wait. Full: refused with `unavailable`.
const QUEUE_DEPTH: usize = 4_096;
/// Changes that a follower may lag behind before it looks anew.
const CHANGES_DEPTH: usize = 1_024;
/// How often it is looked who must leave and what expires.
const TICK: Duration = Duration::from_millis(500);
/// How long the log is left alone after it refused.
const LOG_PAUSE: Duration = Duration::from_millis(500);
/// Addresses that are counted. Full: the window begins anew for all.
const ASKERS_MAX: usize = 65_536;
/// The window over which invoices for one address are counted.
const ASKER_WINDOW: Duration = Duration::from_secs(60 * 60);

/// One way to be paid.
#[derive(Clone)]
struct Till {
    wallet: Arc<dyn Wallet>,
    simulated: Option<Simulated>,
}

/// The loop.
pub struct Desk {
    ledger: Ledger,
    events: EventWriter,
    control: Control,
    key: BillingKey,
    rates: Box<dyn Rates>,
    network: bitcoin::Network,
    tills: BTreeMap<Rail, Till>,
    /// The operator's own payout.
    house: Option<Payout>,
    /// By which profile: parsed once.
    payouts: BTreeMap<String, Payout>,
    asks: ControlSender<Ask>,
    watched: watch::Sender<Watched>,
    priced: watch::Sender<Arc<BTreeSet<Resource>>>,
    changes: broadcast::Sender<Changed>,
    hooks: watch::Sender<Arc<BTreeMap<RoomName, Hook>>>,
    /// Who waits for an invoice that is being issued.
    waiting: BTreeMap<InvoiceId, Vec<Waiting>>,
    /// Who was let in.
    inside: BTreeMap<(RoomName, Identity), Stay>,
    /// For payouts that were never used: nothing was paid to them before.
    started_ms: u64,
    /// Who looked in, from which address and until when.
    previews: BTreeMap<(RoomName, IpAddr), (Identity, u64)>,
    /// From which addresses somebody without a token tried a room out.
    trials: BTreeSet<(RoomName, IpAddr)>,
    askers: BTreeMap<IpAddr, u32>,
    askers_since: Instant,
    invoices_per_address: u32,
}

/// Why somebody may be in a room.
#[derive(Debug, Clone, Copy)]
enum Stay {
    /// As long as the ledger says so.
    Entitled,
    /// To look in, until then (ms since the Unix epoch).
    Preview(u64),
}

struct Waiting {
    of: Resource,
    viewer: Identity,
    is_guest: bool,
    reply: Reply<super::Admission>,
}

impl Desk {
    fn simulated(&self) -> bool {
        self.tills.values().any(|till| till.simulated.is_some())
    }

    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.resume_issuing();
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => self.handle_ask(ask).await,
                    None => return,
                },
                _ = tick.tick() => {
                    self.ledger.handle_timeout(unix_ms());
                    self.renew_due().await;
                    self.commit().await;
                    self.put_out(unix_ms());
                }
            }
        }
    }

    async fn handle_ask(&mut self, ask: Ask) {
        let now_ms = unix_ms();
        match ask {
            Ask::Offer { of, offer, by, reply } => {
                let done = self.set_offer(now_ms, &of, offer, by);
                self.commit().await;
                // Before the answer: whoever has it may rely on the price.
                self.publish_prices();
                let _ = reply.send(done);
            }
            Ask::Admit { of, payer, from, new, reply } => self.admit(of, payer, from, new, reply).await,
            Ask::Invoice { room, invoice, reply } => {
                let _ = reply.send(self.show_invoice(&room, &invoice));
            }
            Ask::Entitled { of, viewer, reply } => {
                let _ = reply.send(Ok(self.ledger.entitlement(&of, &viewer, now_ms).is_some()));
            }
            Ask::Price { of, reply } => {
                let _ = reply.send(Ok(self.ledger.offer(&of).cloned()));
            }
            Ask::Subscribers { room, reply } => {
                let _ = reply.send(Ok(self.subscribers(&room, now_ms)));
            }
            Ask::Payout { room, reply } => {
                let _ = reply.send(Ok(self.show_payout(&room)));
            }
            Ask::SetWebhook { room, url, by, reply } => {
                self.ledger.handle_webhook(now_ms, &room, url, by);
                self.commit().await;
                self.publish_hooks();
                let _ = reply.send(Ok(self.show_webhook(&room)));
            }
            Ask::SetPayout { room, payout, by, reply } => {
                let done = self.set_payout(now_ms, &room, payout, by);
                self.commit().await;
                let _ = reply.send(done.map(|()| self.show_payout(&room)));
            }
            Ask::Hand { hand, by, reply } => {
                let done = self.lay_hand(now_ms, hand, by);
                self.settle_with(done, reply).await;
                self.put_out(unix_ms());
            }
            Ask::Simulate { room, invoice, rail, sum, progress, reply } => {
                let _ = reply.send(self.simulate(&room, &invoice, rail, sum, progress));
            }
            Ask::News { rail, news } => {
                for (to, observed) in news.seen {
                    self.ledger.handle_observed(now_ms, &to, observed);
                }
                if let Some(until_ms) = news.until_ms {
                    self.ledger.handle_synced(now_ms, rail, until_ms);
                }
                self.commit().await;
                self.put_out(unix_ms());
            }
            Ask::Offered { invoice, bolt11 } => {
                if let Some(bolt11) = bolt11 {
                    self.ledger.handle_offered(now_ms, &invoice, bolt11);
                    self.commit().await;
                }
                self.answer_waiting(&invoice);
            }
        }
    }

    /// Answers after what was done is durable.
    async fn settle_with(&mut self, done: Result<(), Refusal>, reply: Reply<()>) {
        self.commit().await;
        // Who asked may have gone away.
        let _ = reply.send(done);
    }

    /// Makes all new facts durable, then tells what follows from them.
    async fn commit(&mut self) {
        let batch: Vec<Event> = std::iter::from_fn(|| self.ledger.poll_output()).collect();
        if batch.is_empty() {
            return;
        }
        gap::reach_each("before", &batch);
        loop {
            match self.events.append_durably(batch.clone()).await {
                Ok(_) => break,
                Err(error @ LogError::Rejected(_)) => {
                    tracing::error!(%error, "facts about money were refused: the ledger is read anew");
                    return self.reload().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "facts about money wait for the event log");
                    tokio::time::sleep(LOG_PAUSE).await;
                }
            }
        }
        gap::reach_each("after", &batch);
        for event in &batch {
            let EventBody::Ledger(fact) = &event.body else { continue };
            self.follow(&event.room, fact);
        }
        self.watch();
    }

    /// What follows from a fact that is durable.
    fn follow(&self, room: &RoomName, fact: &Fact) {
        let viewer = match fact {
            Fact::InvoiceCreated { invoice, viewer, .. } => {
                self.count(invoice, &[InvoiceState::New]);
                Some(viewer.clone())
            }
            Fact::PaymentChanged { invoice, .. } => {
                self.count(invoice, &[InvoiceState::Processing]);
                self.viewer_of(invoice)
            }
            Fact::InvoiceSettled { invoice, .. } => {
                self.count(invoice, &[InvoiceState::Settled]);
                self.cancel_lightning(invoice);
                self.viewer_of(invoice)
            }
            Fact::InvoiceReversed { invoice, .. } => {
                self.count(invoice, &[InvoiceState::Reversed]);
                self.viewer_of(invoice)
            }
            Fact::InvoiceExpired { invoice } => {
                self.count(invoice, &[InvoiceState::Expired, InvoiceState::Invalid]);
                self.viewer_of(invoice)
            }
            Fact::InvoiceOffered { invoice, .. } | Fact::InvoiceMarked { invoice, .. } => {
                self.viewer_of(invoice)
            }
            Fact::TrialStarted { viewer, .. }
            | Fact::Comped { viewer, .. }
            | Fact::Revoked { viewer, .. }
            | Fact::Restored { viewer, .. }
            | Fact::SubscriptionExpired { viewer, .. } => Some(viewer.clone()),
            Fact::RenewalDue { content, viewer, ends_at_ms, invoice } => {
                if content.is_none() {
                    self.remind(room, viewer, *ends_at_ms, invoice);
                }
                Some(viewer.clone())
            }
            Fact::OfferSet { .. } | Fact::PayoutSet { .. } | Fact::WebhookSet { .. } => None,
        };
        if let Some(viewer) = viewer {
            // Nobody may be listening.
            let _ = self.changes.send(Changed { room: room.clone(), viewer });
        }
    }

    fn count(&self, invoice: &InvoiceId, states: &[InvoiceState]) {
        let state = self.ledger.invoice(invoice).map(|invoice| invoice.state());
        if let Some(state) = state.filter(|state| states.contains(state)) {
            metrics::counter!("antiphon_invoices_total", "state" => state.as_str()).increment(1);
        }
    }

    fn viewer_of(&self, invoice: &InvoiceId) -> Option<Identity> {
        self.ledger.owner_of(invoice).map(|(_, viewer)| viewer.clone())
    }

    /// Sends away whoever was let in and may not be there any more.
    fn put_out(&mut self, now_ms: u64) {
        let mut leaving = Vec::new();
        for ((room, viewer), stay) in &self.inside {
            let of = Resource::from(room.clone());
            let offer = self.ledger.offer(&of);
            let looks = offer.is_some_and(|offer| offer.preview_seconds > 0 || offer.preview_lowest);
            // A room that became free asks nobody.
            let stays = offer.is_none()
                || matches!(stay, Stay::Preview(until_ms) if looks && now_ms < *until_ms)
                || self.ledger.entitlement(&of, viewer, now_ms).is_some();
            if !stays {
                leaving.push((room.clone(), viewer.clone()));
            }
        }
        for (room, viewer) in leaving {
            self.inside.remove(&(room.clone(), viewer.clone()));
            let control = self.control.clone();
            let _ = self.changes.send(Changed { room: room.clone(), viewer: viewer.clone() });
            tokio::spawn(async move {
                let by = Identity::parse("billing").expect("a plain word");
                // Half a minute in all.
                let patience = ExponentialBuilder::default().with_jitter().with_max_times(5);
                let send_away = || control.remove_participant(&room, &viewer, &by);
                // Who left already, or whose room is closed, needs no sending away; one that is overrun is
                // asked again.
                let sent = send_away.retry(patience).when(|refusal| refusal.code != Code::NotFound).await;
                if let Some(refusal) = sent.err().filter(|refusal| refusal.code != Code::NotFound) {
                    tracing::error!(
                        code = refusal.code.as_str(),
                        "somebody who has not paid cannot be sent away"
                    );
                }
            });
        }
    }

    fn publish_hooks(&self) {
        let hooks = self.ledger.webhooks().map(|(room, url, change)| {
            let secret = self.key.webhook_secret(room, change);
            (room.clone(), Hook { url: url.to_owned(), secret })
        });
        self.hooks.send_replace(Arc::new(hooks.collect()));
    }

    fn publish_prices(&self) {
        let priced: BTreeSet<Resource> = self.ledger.offers().map(|(of, _)| of.clone()).collect();
        self.priced.send_if_modified(|known| {
            let changed = **known != priced;
            if changed {
                *known = Arc::new(priced);
            }
            changed
        });
    }

    /// Tells the watchers what to look after.
    fn watch(&self) {
        let mut payouts = Vec::new();
        for (profile, payout) in &self.payouts {
            let since_ms = self.ledger.first_ms(profile).unwrap_or(self.started_ms);
            payouts.push((payout.clone(), self.ledger.next_index(profile), since_ms));
        }
        let addresses = self.ledger.hot_addresses().into_iter();
        let addresses = addresses.map(|(address, known)| WatchedAddress { address, known }).collect();
        let watched = Watched { payouts, addresses, hashes: self.ledger.open_hashes() };
        self.watched.send_if_modified(|known| {
            let changed = *known != watched;
            *known = watched;
            changed
        });
    }
}
