//! The shell of payments: owns the ledger, watches wallets, and says who may have what costs money.
//!
//! One loop ([`desk`]) owns the ledger. What follows from a fact is told to nobody before the fact is
//! durable in the event log, from which the ledger is made anew at the start. Wallets are asked by tasks
//! beside the loop. While the log does not answer, what changes the ledger is refused after some seconds,
//! and who has paid is let in as ever. A room without a price is not asked about: [`Billing::is_priced`]
//! reads the latest list and nothing more.
//!
//! Of the nodes of a cluster one keeps the ledger; the others follow its facts in the shared log, answer from
//! them, and pass on what changes it ([`passing`]).

mod ask;
mod bitcoind;
mod descriptor;
mod desk;
mod esplora;
mod gap;
mod keys;
mod lnd;
mod macaroon;
mod passing;
mod rates;
mod simulated;
mod tls;
mod waiting;
mod wallet;
mod webhook;
mod wish;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, oneshot, watch};

pub use bitcoind::{Bitcoind, Login};
pub use descriptor::{Payout, PayoutError};
pub use desk::Desk;
pub use esplora::Esplora;
pub use keys::{BillingKey, KeyError};
pub use lnd::{BAKE, CALLS, Lnd};
pub use macaroon::{Macaroon, permissions};
pub use passing::{PATH as WISHES, SIGNATURE};
pub use rates::{Fixed, Rates};
pub use simulated::{PAYOUT as SIMULATED_PAYOUT, Simulated};
pub use wallet::{
    Bill, Issued, News, Preimage, Target, Wallet, WalletError, Watched, WatchedAddress, from_hex, hex,
};
pub use webhook::{HookError, is_public, signature};
pub use wish::Hand;

use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{
    Content, InvoiceId, InvoiceView, Msat, Offer, Period, Progress, Rail, Resource, SubscriptionView,
};
use crate::core::refusal::{Code, Refusal};
use crate::mailbox::ControlSender;
use ask::{Ask, Question, Reply, Stay};
use passing::Passing;
use waiting::Waiting;
use wish::{Declined, Done, Outcome, Wish};

/// For what other nodes did to be known here, before an owner is shown how things are.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(1);
/// Addresses of a payout that its owner is shown to confirm it.
const SHOWN_ADDRESSES: u32 = 3;

/// Who wants into a room that costs money.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payer {
    /// By a token: its identity is proven.
    Known(Identity),
    /// By an L402 token, as it came.
    L402(String),
    /// Nobody yet.
    Guest,
    /// Somebody new, who is called so from now on.
    New(Identity),
}

/// May the payer come in?
#[derive(Debug, Clone)]
pub enum Admission {
    /// As this viewer, until then (ms since the Unix epoch).
    Entitled {
        viewer: Identity,
        until_ms: u64,
    },
    /// To look in for a while, perhaps at the lowest layer alone.
    Preview {
        viewer: Identity,
        until_ms: u64,
        lowest: bool,
    },
    Pay(Box<Challenge>),
}

/// What to pay, and how to show that it was paid.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Challenge {
    pub invoice: InvoiceView,
    /// For one QR code: BIP 21, with `lightning=` beside the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    pub offer: Offer,
    /// Who will have paid.
    pub viewer: Identity,
    /// Proves to be that viewer; to be kept, and shown at `POST …/access`. Absent for holders of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<SubscriptionView>,
    /// No real money: this node runs with `--dev`.
    pub simulated: bool,
    /// For an `L402` challenge: the macaroon.
    #[serde(skip)]
    pub macaroon: Option<String>,
}

/// What an owner sees of where the money goes.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct PayoutView {
    /// `own`, `house` or `none`.
    pub source: &'static str,
    /// As it is used, with its checksum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<String>,
    /// The first addresses, to be compared with one's own wallet.
    pub addresses: Vec<String>,
    /// Viewers may pay by Lightning too.
    pub lightning: bool,
    pub simulated: bool,
}

/// What was bought, for whom and how it was paid.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub of: Resource,
    pub viewer: Identity,
    pub period: Period,
    pub invoice: InvoiceView,
}

/// Where an owner is told of what happens, and by what it is signed.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct WebhookView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The key of the signatures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// One subscriber with its invoices, for the owner.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct SubscriberView {
    /// What it subscribed to; absent: the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    pub subscription: SubscriptionView,
    pub invoices: Vec<InvoiceView>,
}

/// A change of one viewer's money or access, for those who follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub room: RoomName,
    pub viewer: Identity,
}

/// The way in for other shells; cheap to clone.
#[derive(Clone)]
pub struct Billing {
    asks: ControlSender<Ask>,
    questions: ControlSender<Question>,
    priced: watch::Receiver<Arc<BTreeSet<Resource>>>,
    changes: broadcast::Sender<Changed>,
    key: BillingKey,
    network: bitcoin::Network,
    dev: bool,
    /// To the node that keeps the ledger, where that may be another.
    passing: Option<Passing>,
    waiting: Waiting,
}

impl Billing {
    /// A handle with no loop behind it: no room costs anything, and every call answers `unavailable`.
    #[cfg(test)]
    pub(crate) fn unplugged() -> Self {
        let ((asks, _), (questions, _)) = (crate::mailbox::control(1), crate::mailbox::control(1));
        let (_, priced) = watch::channel(Arc::default());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = BillingKey::open(directory.path()).expect("a secret");
        let (changes, network) = (broadcast::Sender::new(1), bitcoin::Network::Regtest);
        Self {
            asks,
            questions,
            priced,
            changes,
            key,
            network,
            dev: true,
            passing: None,
            waiting: Waiting::default(),
        }
    }

    /// Does the room cost something? Costs nothing to ask.
    pub fn is_priced(&self, room: &RoomName) -> bool {
        self.is_sold(&room.clone().into())
    }

    /// Does it cost something? Costs nothing to ask.
    pub fn is_sold(&self, of: &Resource) -> bool {
        self.priced.borrow().contains(of)
    }

    /// What it costs; the ledger is not asked about what is free.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn offer(&self, of: impl Into<Resource>) -> Result<Option<Offer>, Refusal> {
        let of = of.into();
        if self.is_sold(&of) { self.ask(|reply| Question::Price { of, reply }).await } else { Ok(None) }
    }

    /// Has the viewer paid for it, or been given access?
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn is_entitled(&self, of: impl Into<Resource>, viewer: Identity) -> Result<bool, Refusal> {
        let of = of.into();
        self.ask(|reply| Question::Entitled { of, viewer, reply }).await
    }

    /// # Errors
    /// `malformed`, `payout_missing`.
    pub async fn set_offer(
        &self,
        of: impl Into<Resource>,
        offer: Option<Offer>,
        by: Option<Identity>,
    ) -> Result<(), Refusal> {
        self.change(Wish::Offer { of: of.into(), offer, by }).await
    }

    /// # Errors
    /// `rate_limited`, `unavailable`, `payout_missing`.
    pub async fn admit(
        &self,
        of: impl Into<Resource>,
        payer: Payer,
        from: IpAddr,
    ) -> Result<Admission, Refusal> {
        let of = of.into();
        // Who may come in needs no other node's word.
        if !matches!(payer, Payer::Guest) {
            let (of, payer) = (of.clone(), payer.clone());
            if let Some(admission) = self.ask(|reply| Question::Enter { of, payer, reply }).await? {
                return Ok(admission);
            }
        }
        self.settle(of, payer, from, false).await
    }

    /// As [`Self::admit`] for who is in already and wants to pay for more.
    ///
    /// # Errors
    /// As there.
    pub async fn renew(
        &self,
        of: impl Into<Resource>,
        payer: Payer,
        from: IpAddr,
    ) -> Result<Admission, Refusal> {
        self.settle(of.into(), payer, from, true).await
    }

    /// Has the keeper of the ledger say who the payer is to it, and what it is to pay.
    async fn settle(
        &self,
        of: Resource,
        payer: Payer,
        from: IpAddr,
        more: bool,
    ) -> Result<Admission, Refusal> {
        // Named here, so that asked again it is the same one.
        let payer = if let Payer::Guest = payer { Payer::New(desk::new_viewer()) } else { payer };
        let is_new = matches!(payer, Payer::New(_));
        let (viewer, admission, stay) =
            match self.wish(Wish::Admit { of: of.clone(), payer, from, more }).await? {
                Outcome::Asked { viewer, invoice } => {
                    let challenge = |reply| Question::Challenge { of, viewer, invoice, is_new, reply };
                    return Ok(Admission::Pay(Box::new(self.ask(challenge).await?)));
                }
                Outcome::Entitled { viewer, until_ms } => {
                    (viewer.clone(), Admission::Entitled { viewer, until_ms }, Stay::Entitled)
                }
                Outcome::Preview { viewer, until_ms, lowest } => {
                    (viewer.clone(), Admission::Preview { viewer, until_ms, lowest }, Stay::Preview(until_ms))
                }
                Outcome::Done => return Err(Refusal::new(Code::Internal, "nobody was let in")),
            };
        if of.is_live() {
            self.ask(|reply| Question::LetIn { room: of.room, viewer, stay, reply }).await?;
        }
        Ok(admission)
    }

    /// # Errors
    /// `not_found`.
    pub async fn invoice(
        &self,
        room: RoomName,
        invoice: InvoiceId,
    ) -> Result<(InvoiceView, Identity), Refusal> {
        let look = |room, invoice| self.ask(|reply| Question::Invoice { room, invoice, reply });
        match look(room.clone(), invoice.clone()).await {
            // Made a moment ago, and shown by another node.
            Err(refusal) if refusal.code == Code::NotFound && self.passing.is_some() => {
                self.catch_up().await;
                look(room, invoice).await
            }
            found => found,
        }
    }

    /// Of an invoice that is settled.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn receipt(&self, room: RoomName, invoice: InvoiceId) -> Result<Receipt, Refusal> {
        self.ask(|reply| Question::Receipt { room, invoice, reply }).await
    }

    /// Which invoices of a viewer are settled, the latest first.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn settled(
        &self,
        of: impl Into<Resource>,
        viewer: Identity,
    ) -> Result<Vec<InvoiceId>, Refusal> {
        let of = of.into();
        self.ask(|reply| Question::Settled { of, viewer, reply }).await
    }

    /// # Errors
    /// `unavailable`.
    pub async fn subscribers(&self, room: RoomName) -> Result<Vec<SubscriberView>, Refusal> {
        self.catch_up().await;
        self.ask(|reply| Question::Subscribers { room, reply }).await
    }

    /// # Errors
    /// `unavailable`.
    pub async fn payout(&self, room: RoomName) -> Result<PayoutView, Refusal> {
        self.catch_up().await;
        self.ask(|reply| Question::Payout { room, reply }).await
    }

    /// Sets where a room's money goes; nothing for the node's own payout.
    ///
    /// # Errors
    /// `malformed` for what is no public descriptor, `unavailable` where no node could see payments to it.
    pub async fn set_payout(
        &self,
        room: RoomName,
        descriptor: Option<&str>,
        by: Option<Identity>,
    ) -> Result<PayoutView, Refusal> {
        let payout = descriptor.map(|text| Payout::parse(text, self.network)).transpose();
        let payout = payout.map_err(|error| {
            refused("descriptor");
            Refusal::new(Code::Malformed, error.to_string())
        })?;
        let descriptor = payout.map(|payout| payout.text());
        self.change(Wish::Payout { room: room.clone(), descriptor, by }).await?;
        self.payout(room).await
    }

    /// Sets who is told of what happens to a room's money; nothing for nobody.
    ///
    /// # Errors
    /// `malformed` for what is no URL to be called.
    pub async fn set_webhook(
        &self,
        room: RoomName,
        url: Option<String>,
        by: Option<Identity>,
    ) -> Result<WebhookView, Refusal> {
        if let Some(url) = &url {
            let checked = webhook::check_url(url, self.dev);
            checked.map_err(|error| {
                refused("webhook");
                Refusal::new(Code::Malformed, error.to_string())
            })?;
        }
        self.change(Wish::Webhook { room: room.clone(), url, by }).await?;
        self.ask(|reply| Question::Webhook { room, reply }).await
    }

    /// # Errors
    /// `not_found`, `malformed`.
    pub async fn lay_hand(&self, hand: Hand, by: Identity) -> Result<(), Refusal> {
        self.change(Wish::Hand { hand, by }).await
    }

    /// Pretends a payment, where wallets are simulated.
    ///
    /// # Errors
    /// `forbidden` where money is real, `not_found`.
    pub async fn simulate(
        &self,
        room: RoomName,
        invoice: InvoiceId,
        rail: Rail,
        sum: Msat,
        progress: Progress,
    ) -> Result<(), Refusal> {
        self.change(Wish::Simulate { room, invoice, rail, sum, progress }).await
    }

    pub fn is_claim(&self, of: &Resource, viewer: &Identity, claim: &str) -> bool {
        let good = self.key.is_claim(of, viewer, claim);
        if !good {
            refused("claim");
        }
        good
    }

    /// What changes from now on. Who lags is told so, and looks again.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// Waits until this node knows what the keeper of the ledger knows now, or for a second: an owner sees
    /// what was done by way of any node.
    async fn catch_up(&self) {
        if self.passing.is_some() {
            // Without a keeper what is known here is shown.
            let _ = tokio::time::timeout(CATCH_UP_WITHIN, self.wish(Wish::Look)).await;
        }
    }

    async fn change(&self, wish: Wish) -> Result<(), Refusal> {
        self.wish(wish).await.map(drop)
    }

    /// Has a wish done by the node that keeps the ledger, this one or another. What it changed is known here
    /// on return.
    async fn wish(&self, wish: Wish) -> Result<Outcome, Refusal> {
        match &self.passing {
            None => self.wish_here(wish).await.map(|done| done.outcome).map_err(Declined::into_refusal),
            Some(passing) => passing.wish(wish, |wish| self.wish_here(wish)).await,
        }
    }

    /// Has a wish done here, if this node keeps the ledger.
    async fn wish_here(&self, wish: Wish) -> Result<Done, Declined> {
        let is_look = matches!(wish, Wish::Look);
        let ask = || {
            let (reply, answer) = oneshot::channel();
            self.asks.send(Ask::Wish { wish, reply }).map_err(|_| Declined::Refused(overloaded()))?;
            Ok(answer)
        };
        if is_look { waiting::take_turn(ask()?).await } else { self.waiting.wait(ask).await }
    }

    /// Takes a wish that another node passes on, with its signature; the answer and its own.
    ///
    /// # Errors
    /// `unauthorized`, `not_found` where there are no other nodes.
    pub async fn take_passed(&self, text: &str, signature: &str) -> Result<(String, String), Refusal> {
        let nobody = || Refusal::new(Code::NotFound, "this node takes no wishes of others");
        let passing = self.passing.as_ref().ok_or_else(nobody)?;
        passing.take(text, signature, |wish| self.wish_here(wish)).await
    }

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(question(reply)).map_err(|_| overloaded())?;
        answer.await.unwrap_or_else(|_| Err(overloaded()))
    }
}

/// Something forged or unfit was turned away: `claim`, `l402`, `bolt11`, `webhook` or `descriptor`.
fn refused(reason: &'static str) {
    metrics::counter!("antiphon_payments_refused_total", "reason" => reason).increment(1);
}

fn overloaded() -> Refusal {
    Refusal::new(Code::Unavailable, "payments have too much to do: try again in a moment")
}
