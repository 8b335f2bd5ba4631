//! The ledger: what rooms cost, who was asked for what, what came, and who may be in a room because of it.
//!
//! Everything is the fold of [`Fact`]s, each with an id, so that a ledger is rebuilt from the log and ends
//! where it was. Wallets report what they see as often and in whatever order they like; what is older than
//! known is passed over, and an invoice is settled once. Money is never lost or made: what counts is either
//! the price of a live period or credit of the account it came for. A room without an offer has nothing
//! here and costs nothing.
//!
//! `handle_*(now, …)` puts out facts by [`Ledger::poll_output`]; they are to be durable before anything that
//! follows from them is told to anybody.

mod account;
mod fact;
mod invoice;
mod keeping;
mod money;
mod offer;
mod owner;
mod renewal;
mod resource;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use account::{Account, Entitlement, SubscriptionState, Term, TermSource, Trial};
pub use fact::{Address, Fact, InvoiceId, PaymentKey, PaymentStatus, Rail};
pub use invoice::{Flags, Invoice, InvoiceState, Payment, WATCHED_BLOCKS};
pub use keeping::{Keeping, Step};
pub use money::{Currency, MSAT_PER_SAT, Msat, Price, PriceError, Rate, SAT_MAX, confirmations_needed};
pub use offer::{Offer, Period};
pub use renewal::Due;
pub use resource::{Content, Resource};
pub use view::{InvoiceView, PaymentView, SubscriptionView};

use renewal::Calendar;
use serde::{Deserialize, Serialize};

use super::event::{Event, EventId};
use super::ids::{Identity, RoomName};
use super::refusal::{Code, Refusal};

/// Accounts of one thing that is sold. Full: who is new is refused.
const ACCOUNTS_MAX: usize = 100_000;
/// Invoices of one account, whatever became of them. Full: no more is made.
const INVOICES_MAX: usize = 1_000;

/// A wish for an invoice, with what its wallets made for it.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: InvoiceId,
    pub of: Resource,
    pub viewer: Identity,
    /// Needed where the price is in a currency.
    pub rate: Option<Rate>,
    pub address: Option<Address>,
    pub payment_hash: Option<String>,
    /// It may be paid at least until then (ms since the Unix epoch), whatever the offer says.
    pub pay_until_ms: Option<u64>,
}

/// What a wallet says of one payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub key: PaymentKey,
    pub sum: Msat,
    pub paid_at_ms: u64,
    pub progress: Progress,
    /// When the wallet was asked, ms since the Unix epoch.
    pub as_of_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Blocks that have it.
    Confirmations(u32),
    /// By Lightning: the node has the preimage's money.
    Settled,
    /// Another transaction took its coins, or it left the mempool.
    Replaced,
}

/// What holds for all that is sold in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Shop {
    payout: Option<String>,
    payout_changes: u32,
    webhook: Option<String>,
    webhook_changes: u32,
    /// The last event that its webhook was told.
    told: Option<EventId>,
}

/// One thing that is sold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ware {
    version: u32,
    offer: Option<Offer>,
    accounts: BTreeMap<Identity, Account>,
}

/// The ledger of a node.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    shops: BTreeMap<RoomName, Shop>,
    wares: BTreeMap<Resource, Ware>,
    /// For what an invoice is, and whose.
    owners: BTreeMap<InvoiceId, (Resource, Identity)>,
    /// When subscriptions are to be looked at.
    calendar: Calendar,
    addresses: BTreeMap<String, InvoiceId>,
    hashes: BTreeMap<String, InvoiceId>,
    /// Every descriptor that an owner ever gave: what was asked for by an earlier one is watched on.
    descriptors: BTreeSet<String>,
    /// The next free place in each wallet's descriptor.
    next_index: BTreeMap<String, u32>,
    /// When each wallet's first address was given out.
    first_ms: BTreeMap<String, u64>,
    /// Invoices that neither settled nor expired.
    unsettled: BTreeSet<InvoiceId>,
    /// Invoices with payments on-chain that may yet be taken back.
    shallow: BTreeSet<InvoiceId>,
    /// Lightning invoices that nobody was seen to pay, and that did not expire.
    unpaid: BTreeSet<InvoiceId>,
    /// Until when each way's payments are known.
    synced_ms: BTreeMap<Rail, u64>,
    outputs: VecDeque<Event>,
}

impl Ledger {
    /// Takes a fact from the log.
    pub fn restore(&mut self, room: &RoomName, at_ms: u64, fact: &Fact) {
        let of = Resource { room: room.clone(), content: fact.content().cloned() };
        let whose = match fact {
            Fact::OfferSet { version, offer, .. } => {
                let ware = self.wares.entry(of.clone()).or_default();
                if *version > ware.version {
                    (ware.version, ware.offer) = (*version, offer.clone());
                }
                return self.plan_all(&of);
            }
            Fact::PayoutSet { change, descriptor, .. } => {
                self.descriptors.extend(descriptor.clone());
                let shop = self.shops.entry(room.clone()).or_default();
                (shop.payout_changes, shop.payout) = (*change, descriptor.clone());
                return;
            }
            Fact::WebhookSet { change, url, .. } => {
                let shop = self.shops.entry(room.clone()).or_default();
                (shop.webhook_changes, shop.webhook) = (*change, url.clone());
                return;
            }
            Fact::WebhookTold { event } => {
                self.shops.entry(room.clone()).or_default().told = Some(event.clone());
                return;
            }
            Fact::LedgerOpened { .. } => return,
            Fact::InvoiceCreated { .. } => return self.keep_invoice(of, at_ms, fact),
            Fact::TrialStarted { viewer, until_ms, .. } => {
                let account = self.account_mut(&of, viewer);
                account.trial.get_or_insert(Trial { started_ms: at_ms, until_ms: *until_ms });
                return;
            }
            Fact::Comped { viewer, .. }
            | Fact::Revoked { viewer, .. }
            | Fact::Restored { viewer, .. }
            | Fact::RenewalDue { viewer, .. }
            | Fact::SubscriptionExpired { viewer, .. } => {
                self.account_mut(&of, viewer).change_access(at_ms, fact);
                return self.plan(&of, viewer);
            }
            Fact::InvoiceOffered { invoice, .. }
            | Fact::InvoiceExpired { invoice }
            | Fact::PaymentChanged { invoice, .. }
            | Fact::InvoiceMarked { invoice, .. }
            | Fact::InvoiceSettled { invoice, .. }
            | Fact::InvoiceReversed { invoice, .. } => {
                self.keep_watch(invoice, fact);
                self.owners.get(invoice).cloned()
            }
        };
        if let Some((of, viewer)) = whose {
            self.account_mut(&of, &viewer).change_invoice(at_ms, fact);
            if let Fact::PaymentChanged { invoice, .. } = fact {
                self.keep_shallow(invoice);
            }
            self.plan(&of, &viewer);
        }
    }

    /// Which invoices are to be looked after yet.
    fn keep_watch(&mut self, invoice: &InvoiceId, fact: &Fact) {
        match fact {
            Fact::InvoiceExpired { .. } => {
                self.unsettled.remove(invoice);
                self.unpaid.remove(invoice);
            }
            Fact::InvoiceSettled { .. } => drop(self.unsettled.remove(invoice)),
            Fact::PaymentChanged { payment: PaymentKey::PaymentHash(_), .. } => {
                self.unpaid.remove(invoice);
            }
            _ => {}
        }
    }

    fn keep_shallow(&mut self, id: &InvoiceId) {
        let is_shallow = self
            .invoice(id)
            .is_some_and(|invoice| invoice.payments.iter().any(|(key, payment)| payment.is_shallow(key)));
        if is_shallow {
            self.shallow.insert(id.clone());
        } else {
            self.shallow.remove(id);
        }
    }

    fn keep_invoice(&mut self, of: Resource, at_ms: u64, fact: &Fact) {
        let Fact::InvoiceCreated {
            invoice: id,
            content: _,
            viewer,
            version,
            price,
            asked,
            rate,
            expires_at_ms,
            address,
            payment_hash,
        } = fact
        else {
            return;
        };
        let Some(offer) = self.wares.get(&of).and_then(|ware| ware.offer.clone()) else { return };
        self.owners.insert(id.clone(), (of.clone(), viewer.clone()));
        if let Some(at) = address {
            self.addresses.insert(at.address.clone(), id.clone());
            let next = self.next_index.entry(at.profile.clone()).or_default();
            *next = (*next).max(at.index + 1);
            self.first_ms.entry(at.profile.clone()).or_insert(at_ms);
        }
        if let Some(hash) = payment_hash {
            self.hashes.insert(hash.clone(), id.clone());
            self.unpaid.insert(id.clone());
        }
        self.unsettled.insert(id.clone());
        let made = Invoice {
            id: id.clone(),
            viewer: viewer.clone(),
            version: *version,
            offer,
            price: *price,
            asked: *asked,
            rate: rate.clone(),
            created_at_ms: at_ms,
            expires_at_ms: *expires_at_ms,
            address: address.clone(),
            payment_hash: payment_hash.clone(),
            bolt11: None,
            payments: BTreeMap::new(),
            marked: None,
            expired: false,
            rounds: 0,
            settled: false,
        };
        self.account_mut(&of, viewer).invoices.entry(id.clone()).or_insert(made);
    }

    fn account_mut(&mut self, of: &Resource, viewer: &Identity) -> &mut Account {
        self.wares.entry(of.clone()).or_default().accounts.entry(viewer.clone()).or_default()
    }

    /// Takes a fact of our own, and puts it out.
    fn enact(&mut self, now_ms: u64, room: &RoomName, fact: Fact) {
        self.restore(room, now_ms, &fact);
        self.outputs.push_back(fact.into_event(room.clone(), now_ms));
    }

    /// Facts to append, in order. All that one call put out belong into one batch.
    pub fn poll_output(&mut self) -> Option<Event> {
        self.outputs.pop_front()
    }

    /// Sets or ends what something costs. Invoices that were made keep their terms.
    ///
    /// # Errors
    /// `malformed` for terms out of bounds, or that would give contents away.
    pub fn handle_offer(
        &mut self,
        now_ms: u64,
        of: &Resource,
        offer: Option<Offer>,
        by: Option<Identity>,
    ) -> Result<(), Refusal> {
        if let Some(offer) = &offer {
            offer.check_for(of).map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
        }
        let ware = self.wares.get(of);
        if ware.and_then(|ware| ware.offer.as_ref()) == offer.as_ref() {
            return Ok(());
        }
        let version = ware.map_or(0, |ware| ware.version) + 1;
        let content = of.content.clone();
        self.enact(now_ms, &of.room, Fact::OfferSet { content, version, offer, by });
        Ok(())
    }

    /// Makes an invoice, or finds the one that waits. Credit goes first; what is left is asked for.
    ///
    /// # Errors
    /// `not_found` where nothing is sold, `unavailable` without the rate that the price needs,
    /// `rate_limited`.
    pub fn handle_order(&mut self, now_ms: u64, order: Order) -> Result<InvoiceId, Refusal> {
        let Order { id, of, viewer, rate, address, payment_hash, pay_until_ms } = order;
        let ware = self.wares.get(&of);
        let offer = ware.and_then(|ware| ware.offer.as_ref());
        let (Some(ware), Some(offer)) = (ware, offer) else {
            return Err(Refusal::new(Code::NotFound, "nothing is sold here"));
        };
        let account = ware.accounts.get(&viewer);
        if let Some(open) = self.payable(&of, &viewer, now_ms) {
            return Ok(open.id.clone());
        }
        let crowded = account.is_none() && ware.accounts.len() >= ACCOUNTS_MAX;
        if crowded || account.is_some_and(|account| account.invoices.len() >= INVOICES_MAX) {
            return Err(Refusal::new(Code::RateLimited, "too many invoices were made here already"));
        }
        let price = offer.price.at(rate.as_ref());
        let price = price.map_err(|error| Refusal::new(Code::Unavailable, error.to_string()))?;
        let credit = account.map_or(0, Account::credit);
        let asked = (i128::from(price.0) - credit).max(0).div_euclid(i128::from(MSAT_PER_SAT));
        let part = u64::from((i128::from(price.0) - credit).rem_euclid(i128::from(MSAT_PER_SAT)) > 0);
        let pay_by_ms = now_ms.saturating_add(offer.pay_within_seconds * 1_000);
        // Whole satoshis: an address cannot be paid less.
        let asked = Msat::from_sats(u64::try_from(asked).unwrap_or(u64::MAX).saturating_add(part));
        let fact = Fact::InvoiceCreated {
            invoice: id.clone(),
            content: of.content.clone(),
            viewer: viewer.clone(),
            version: ware.version,
            price,
            asked,
            rate,
            expires_at_ms: pay_by_ms.max(pay_until_ms.unwrap_or(0)),
            address,
            payment_hash,
        };
        self.enact(now_ms, &of.room, fact);
        self.review(now_ms, &of, &viewer);
        Ok(id)
    }

    /// The Lightning node took the invoice.
    pub fn handle_offered(&mut self, now_ms: u64, invoice: &InvoiceId, bolt11: String) {
        let Some((of, _)) = self.owners.get(invoice).cloned() else { return };
        if self.invoice(invoice).is_some_and(|known| known.bolt11.is_none()) {
            self.enact(now_ms, &of.room, Fact::InvoiceOffered { invoice: invoice.clone(), bolt11 });
        }
    }

    /// A wallet saw a payment to this address, or with this payment hash. What is no invoice's is passed
    /// over.
    pub fn handle_observed(&mut self, now_ms: u64, to: &str, observed: Observed) {
        let found = match observed.key {
            PaymentKey::Outpoint(_) => self.addresses.get(to),
            PaymentKey::PaymentHash(_) => self.hashes.get(to),
            PaymentKey::Marked => None,
        };
        let Some(id) = found.cloned() else { return };
        let Some((of, viewer)) = self.owners.get(&id).cloned() else { return };
        let Some(invoice) = self.invoice(&id) else { return };
        let known = invoice.payments.get(&observed.key);
        if known.is_some_and(|known| observed.as_of_ms <= known.as_of_ms) || observed.sum.0 == 0 {
            return;
        }
        let (status, blocks) = status_of(invoice, &observed);
        // Watching ended: a payment that is deep does not come back. While too few blocks have it, each is
        // told.
        let changed = known.is_none_or(|known| {
            let one_more = status == PaymentStatus::Confirming && known.confirmations != blocks;
            known.status != PaymentStatus::Deep && (known.status != status || one_more)
        });
        if changed {
            let change = known.map_or(0, |known| known.change) + 1;
            let Observed { key, sum, paid_at_ms, as_of_ms, .. } = observed.clone();
            let (sum, paid_at_ms) = known.map_or((sum, paid_at_ms), |known| (known.sum, known.paid_at_ms));
            let fact = Fact::PaymentChanged {
                invoice: id.clone(),
                payment: key,
                change,
                sum,
                paid_at_ms,
                status,
                as_of_ms,
                confirmations: blocks,
            };
            self.enact(now_ms, &of.room, fact);
        }
        let account = self.account_mut(&of, &viewer);
        let invoice = account.invoices.get_mut(&id);
        if let Some(payment) = invoice.and_then(|invoice| invoice.payments.get_mut(&observed.key)) {
            (payment.confirmations, payment.as_of_ms) = (blocks, observed.as_of_ms);
        }
        if changed {
            self.review(now_ms, &of, &viewer);
        }
    }

    /// All that was paid by this way until then is known: what is out of time may expire.
    pub fn handle_synced(&mut self, now_ms: u64, rail: Rail, until_ms: u64) {
        let synced = self.synced_ms.entry(rail).or_default();
        *synced = (*synced).max(until_ms);
        if rail == Rail::Lightning {
            // Settled on-chain, and its Lightning invoice ended unpaid.
            let (settled, unpaid) = (&self.unsettled, std::mem::take(&mut self.unpaid));
            let waits = |id: &InvoiceId| {
                let ended = self.invoice(id).is_none_or(|invoice| invoice.expires_at_ms < until_ms);
                settled.contains(id) || !ended
            };
            self.unpaid = unpaid.into_iter().filter(waits).collect();
        }
        self.handle_timeout(now_ms);
    }

    /// Lets invoices expire whose time is over and whose wallets have no news from before.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        let synced = |rail| self.synced_ms.get(&rail).copied().unwrap_or(0);
        let is_over = |invoice: &&Invoice| {
            let known = [Rail::Onchain, Rail::Lightning]
                .into_iter()
                .all(|rail| !invoice.uses(rail) || synced(rail) >= invoice.expires_at_ms);
            !invoice.expired && !invoice.settled && now_ms >= invoice.expires_at_ms && known
        };
        let over: Vec<InvoiceId> = self
            .unsettled
            .iter()
            .filter_map(|id| self.invoice(id))
            .filter(is_over)
            .map(|invoice| invoice.id.clone())
            .collect();
        for invoice in over {
            if let Some((of, _)) = self.owners.get(&invoice).cloned() {
                self.enact(now_ms, &of.room, Fact::InvoiceExpired { invoice });
            }
        }
        self.expire_subscriptions(now_ms);
    }

    /// Settles and takes back what the sums say, until nothing changes.
    fn review(&mut self, now_ms: u64, of: &Resource, viewer: &Identity) {
        loop {
            let Some(account) = self.account(of, viewer) else { return };
            let fact = if let Some(lost) = account.to_reverse() {
                Fact::InvoiceReversed { invoice: lost.id.clone(), round: lost.rounds }
            } else if let Some(paid) = account.to_settle() {
                Fact::InvoiceSettled { invoice: paid.id.clone(), round: paid.rounds + 1 }
            } else {
                return;
            };
            self.enact(now_ms, &of.room, fact);
        }
    }
}

/// What an observation makes of a payment, and the blocks that have it.
fn status_of(invoice: &Invoice, observed: &Observed) -> (PaymentStatus, u32) {
    let needed = invoice.confirmations_needed(observed.sum);
    match observed.progress {
        Progress::Settled => (PaymentStatus::Deep, 0),
        Progress::Replaced => (PaymentStatus::Replaced, 0),
        Progress::Confirmations(0) => (PaymentStatus::Unconfirmed, 0),
        Progress::Confirmations(blocks) if blocks >= WATCHED_BLOCKS => (PaymentStatus::Deep, blocks),
        Progress::Confirmations(blocks) if blocks >= needed => (PaymentStatus::Final, blocks),
        Progress::Confirmations(blocks) => (PaymentStatus::Confirming, blocks),
    }
}
