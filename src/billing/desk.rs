//! The loop that owns the ledger: takes what wallets saw and people ask, makes facts durable, and only then
//! lets anything follow from them.
//!
//! While the event log cannot be written the loop waits for it and makes no other fact: money that was seen
//! is not told of before it is kept, and the wallets will say it again. Questions are answered meanwhile,
//! from what is durable alone: who has paid comes in whatever the log does.
//!
//! Of the nodes of a cluster one keeps the ledger: only there wallets are watched, facts made and owners'
//! servers told. The others fold the same facts as they read them in the shared log ([`follow`]).

mod admit;
mod follow;
mod issue;
mod keep;
mod owner;
mod renew;
mod start;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable as _};
use tokio::sync::{broadcast, mpsc, watch};

use super::gap;
use super::wallet::{Wallet, Watched, WatchedAddress};
use super::webhook::Hook;
use super::wish::{Declined, Done, Outcome, Wish};
use super::{Ask, Billing, BillingKey, Changed, Payout, Question, Rates, Simulated, Stay};
use crate::control::{Control, unix_ms};
use crate::core::event::{Event, EventBody, EventId};
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{Fact, InvoiceId, InvoiceState, Keeping, Rail, Resource};
use crate::core::refusal::{Code, Refusal};
use crate::events::LogError;
use crate::events::writer::EventWriter;
use crate::mailbox::ControlSender;
use follow::Books;

pub(super) use admit::new_viewer;

/// Asks that may wait, and questions. Full: refused with `unavailable`.
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
    books: Books,
    keeping: Keeping,
    /// Looking whether the ledger's lease is to be had.
    claiming: Option<tokio::task::JoinHandle<()>>,
    /// How many facts are known here.
    followed: watch::Sender<u64>,
    /// What watches the wallets, while this node keeps the ledger.
    watchers: Vec<tokio::task::JoinHandle<()>>,
    /// For so many ticks another secret than this node's was the last keeper's.
    strange_ticks: u32,
    /// How far owners' servers are, and not written down yet.
    told: BTreeMap<RoomName, EventId>,
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
    questions: mpsc::Receiver<Question>,
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

struct Waiting {
    viewer: Identity,
    reply: WishReply,
}

type WishReply = tokio::sync::oneshot::Sender<Result<Done, Declined>>;

impl Desk {
    fn simulated(&self) -> bool {
        self.tills.values().any(|till| till.simulated.is_some())
    }

    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut moves = self.events.ledger_moves();
        if self.keeping.is_alone() {
            self.begin();
        }
        loop {
            let shared = !self.keeping.is_alone();
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => self.handle_ask(ask).await,
                    None => return,
                },
                Some(question) = self.questions.recv() => self.answer(question),
                moved = moves.changed(), if shared => match moved {
                    Ok(()) => self.follow_others().await,
                    // The log's thread is gone, and the node with it.
                    Err(_) => return,
                },
                _ = tick.tick() => self.handle_tick().await,
            }
        }
    }

    async fn handle_tick(&mut self) {
        if !self.keeping.is_alone() {
            self.look_after_lease().await;
        }
        if self.keeping.may_write() {
            self.books.draft.handle_timeout(unix_ms());
            for (room, event) in std::mem::take(&mut self.told) {
                self.books.draft.handle_told(unix_ms(), &room, event);
            }
            self.renew_due().await;
            // What was not kept is found out again.
            let _ = self.commit().await;
        }
        self.put_out(unix_ms());
    }

    async fn handle_ask(&mut self, ask: Ask) {
        let now_ms = unix_ms();
        match ask {
            Ask::Wish { wish, reply } => self.handle_wish(wish, reply).await,
            Ask::News { rail, news } if self.keeping.may_write() => {
                for (to, observed) in news.seen {
                    self.books.draft.handle_observed(now_ms, &to, observed);
                }
                if let Some(until_ms) = news.until_ms {
                    self.books.draft.handle_synced(now_ms, rail, until_ms);
                }
                // The wallet says again what was not kept.
                let _ = self.commit().await;
                self.put_out(unix_ms());
            }
            Ask::Offered { invoice, bolt11 } if self.keeping.may_write() => {
                if let Some(bolt11) = bolt11 {
                    self.books.draft.handle_offered(now_ms, &invoice, bolt11);
                    // The Lightning node is asked again by who keeps the ledger then.
                    let _ = self.commit().await;
                }
                self.answer_waiting(&invoice);
            }
            Ask::Told { room, event } if self.keeping.may_write() => drop(self.told.insert(room, event)),
            // What a task says that began while this node kept the ledger.
            Ask::News { .. } | Ask::Offered { .. } | Ask::Told { .. } => {}
            Ask::Opened { epoch, opened } => self.handle_opened(epoch, opened).await,
        }
    }

    fn answer(&mut self, question: Question) {
        let now_ms = unix_ms();
        // Whoever asked may have gone away.
        match question {
            Question::Enter { of, payer, reply } => drop(reply.send(self.enter(of, payer))),
            Question::LetIn { room, viewer, stay, reply } => {
                self.inside.insert((room, viewer), stay);
                let _ = reply.send(Ok(()));
            }
            Question::Challenge { of, viewer, invoice, is_new, reply } => {
                let _ = reply.send(self.challenge(&of, &viewer, &invoice, is_new));
            }
            Question::Invoice { room, invoice, reply } => {
                drop(reply.send(self.show_invoice(&room, &invoice)))
            }
            Question::Receipt { room, invoice, reply } => drop(reply.send(self.receipt(&room, &invoice))),
            Question::Settled { of, viewer, reply } => drop(reply.send(Ok(self.settled(&of, &viewer)))),
            Question::Entitled { of, viewer, reply } => {
                let entitled = self.books.ledger.entitlement(&of, &viewer, now_ms);
                let _ = reply.send(Ok(entitled.is_some()));
            }
            Question::Price { of, reply } => drop(reply.send(Ok(self.books.ledger.offer(&of).cloned()))),
            Question::Subscribers { room, reply } => drop(reply.send(Ok(self.subscribers(&room, now_ms)))),
            Question::Payout { room, reply } => drop(reply.send(Ok(self.show_payout(&room)))),
            Question::Webhook { room, reply } => drop(reply.send(Ok(self.show_webhook(&room)))),
        }
    }

    /// Waits for the log, and meanwhile answers questions and sends away whose time is over.
    async fn answering<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut wait => return done,
                Some(question) = self.questions.recv() => self.answer(question),
                _ = tick.tick() => self.put_out(unix_ms()),
            }
        }
    }

    async fn handle_wish(&mut self, wish: Wish, reply: WishReply) {
        let now_ms = unix_ms();
        if reply.is_closed() {
            // It was refused meanwhile, for the log took too long with what came before.
            return;
        }
        if !self.keeping.may_write() {
            let declined = if self.tills.is_empty() { issue::no_payout().into() } else { Declined::NotHere };
            return drop(reply.send(Err(declined)));
        }
        let done = match wish {
            Wish::Admit { of, payer, from, more } => return self.admit(of, payer, from, more, reply).await,
            Wish::Look => Ok(()),
            Wish::Offer { of, offer, by } => self.set_offer(now_ms, &of, offer, by),
            Wish::Payout { room, descriptor, by } => {
                self.set_payout(now_ms, &room, descriptor.as_deref(), by)
            }
            Wish::Webhook { room, url, by } => {
                self.books.draft.handle_webhook(now_ms, &room, url, by);
                Ok(())
            }
            Wish::Hand { hand, by } => self.lay_hand(now_ms, hand, by),
            Wish::Simulate { room, invoice, rail, sum, progress } => {
                self.simulate(&room, &invoice, rail, sum, progress)
            }
        };
        let kept = self.commit().await;
        // Before the answer: whoever has it may rely on the price.
        self.publish_prices();
        self.publish_hooks();
        self.put_out(unix_ms());
        let answer = kept.and(done.map_err(Declined::from)).map(|()| self.done(Outcome::Done));
        let _ = reply.send(answer);
    }

    fn done(&self, outcome: Outcome) -> Done {
        Done { outcome, facts: self.books.facts }
    }

    /// Makes all new facts durable, then tells what follows from them.
    async fn commit(&mut self) -> Result<(), Declined> {
        let batch: Vec<Event> = std::iter::from_fn(|| self.books.draft.poll_output()).collect();
        if batch.is_empty() {
            return Ok(());
        }
        gap::reach_each("before", &batch);
        let events = self.events.clone();
        let appended = loop {
            match self.answering(events.append_durably(batch.clone())).await {
                Ok(appended) => break appended,
                Err(error @ LogError::Rejected(_)) => {
                    tracing::error!(%error, "facts about money were refused and are forgotten");
                    self.books.forget_draft();
                    let words = "this could not be kept: try again";
                    return Err(Refusal::new(Code::Unavailable, words).into());
                }
                Err(LogError::Fenced) if !self.keeping.is_alone() => {
                    self.lose().await;
                    return Err(Declined::NotHere);
                }
                Err(error) => {
                    tracing::warn!(%error, "facts about money wait for the event log");
                    self.answering(tokio::time::sleep(LOG_PAUSE)).await;
                }
            }
        };
        gap::reach_each("after", &batch);
        self.books.note(&batch, &appended);
        self.followed.send_replace(self.books.facts);
        for event in &batch {
            let EventBody::Ledger(fact) = &event.body else { continue };
            self.act(fact);
            self.tell(&event.room, fact);
        }
        self.watch();
        Ok(())
    }

    /// What the keeper alone does about a fact that is durable.
    fn act(&self, fact: &Fact) {
        use InvoiceState::{Expired, Invalid, New, Processing, Reversed, Settled};
        match fact {
            Fact::InvoiceCreated { invoice, .. } => self.count(invoice, &[New]),
            Fact::PaymentChanged { invoice, change: 1, .. } => self.count(invoice, &[Processing]),
            Fact::InvoiceSettled { invoice, .. } => {
                self.count(invoice, &[Settled]);
                self.cancel_lightning(invoice);
            }
            Fact::InvoiceReversed { invoice, .. } => self.count(invoice, &[Reversed]),
            Fact::InvoiceExpired { invoice } => self.count(invoice, &[Expired, Invalid]),
            _ => {}
        }
    }

    /// What every node says of a fact to who is on it.
    fn tell(&self, room: &RoomName, fact: &Fact) {
        let viewer = match fact {
            Fact::InvoiceCreated { viewer, .. }
            | Fact::TrialStarted { viewer, .. }
            | Fact::Comped { viewer, .. }
            | Fact::Revoked { viewer, .. }
            | Fact::Restored { viewer, .. }
            | Fact::SubscriptionExpired { viewer, .. } => Some(viewer.clone()),
            Fact::PaymentChanged { invoice, .. }
            | Fact::InvoiceSettled { invoice, .. }
            | Fact::InvoiceReversed { invoice, .. }
            | Fact::InvoiceExpired { invoice }
            | Fact::InvoiceOffered { invoice, .. }
            | Fact::InvoiceMarked { invoice, .. } => self.viewer_of(invoice),
            Fact::RenewalDue { content, viewer, ends_at_ms, invoice } => {
                if content.is_none() {
                    self.remind(room, viewer, *ends_at_ms, invoice);
                }
                Some(viewer.clone())
            }
            Fact::OfferSet { .. }
            | Fact::PayoutSet { .. }
            | Fact::WebhookSet { .. }
            | Fact::WebhookTold { .. }
            | Fact::LedgerOpened { .. } => None,
        };
        if let Some(viewer) = viewer {
            // Nobody may be listening.
            let _ = self.changes.send(Changed { room: room.clone(), viewer });
        }
    }

    fn count(&self, invoice: &InvoiceId, states: &[InvoiceState]) {
        let state = self.books.ledger.invoice(invoice).map(|invoice| invoice.state());
        if let Some(state) = state.filter(|state| states.contains(state)) {
            metrics::counter!("antiphon_invoices_total", "state" => state.as_str()).increment(1);
        }
    }

    fn viewer_of(&self, invoice: &InvoiceId) -> Option<Identity> {
        self.books.ledger.owner_of(invoice).map(|(_, viewer)| viewer.clone())
    }

    /// Sends away whoever was let in and may not be there any more.
    fn put_out(&mut self, now_ms: u64) {
        let mut leaving = Vec::new();
        for ((room, viewer), stay) in &self.inside {
            let of = Resource::from(room.clone());
            let offer = self.books.ledger.offer(&of);
            let looks = offer.is_some_and(|offer| offer.preview_seconds > 0 || offer.preview_lowest);
            // A room that became free asks nobody.
            let stays = offer.is_none()
                || matches!(stay, Stay::Preview(until_ms) if looks && now_ms < *until_ms)
                || self.books.ledger.entitlement(&of, viewer, now_ms).is_some();
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

    /// Has owners' servers told, from here alone while this node keeps the ledger.
    fn publish_hooks(&self) {
        let hooks = self.books.ledger.webhooks().filter(|_| self.keeping.may_write());
        let hooks = hooks.map(|(room, url, change)| {
            let secret = self.key.webhook_secret(room, change);
            let told = self.told.get(room).or_else(|| self.books.ledger.told(room)).cloned();
            (room.clone(), Hook { url: url.to_owned(), secret, told })
        });
        self.hooks.send_replace(Arc::new(hooks.collect()));
    }

    fn publish_prices(&self) {
        let priced: BTreeSet<Resource> = self.books.ledger.offers().map(|(of, _)| of.clone()).collect();
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
            let since_ms = self.books.ledger.first_ms(profile).unwrap_or(self.started_ms);
            payouts.push((payout.clone(), self.books.ledger.next_index(profile), since_ms));
        }
        let addresses = self.books.ledger.hot_addresses().into_iter();
        let addresses = addresses.map(|(address, known)| WatchedAddress { address, known }).collect();
        let watched = Watched { payouts, addresses, hashes: self.books.ledger.open_hashes() };
        self.watched.send_if_modified(|known| {
            let changed = *known != watched;
            *known = watched;
            changed
        });
    }
}
