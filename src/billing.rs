//! The shell of payments: owns the ledger, watches wallets, and says who may have what costs money.
//!
//! One loop ([`desk`]) owns the ledger. What follows from a fact is told to nobody before the fact is
//! durable in the event log, from which the ledger is made anew at the start. Wallets are asked by tasks
//! beside the loop. A room without a price is not asked about: [`Billing::is_priced`] reads the latest list
//! and nothing more.

mod bitcoind;
mod descriptor;
mod desk;
mod esplora;
mod gap;
mod keys;
mod lnd;
mod macaroon;
mod rates;
mod simulated;
mod tls;
mod wallet;
mod webhook;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{broadcast, oneshot, watch};

pub use bitcoind::{Bitcoind, Login};
pub use descriptor::{Payout, PayoutError};
pub use desk::Desk;
pub use esplora::Esplora;
pub use keys::{BillingKey, KeyError};
pub use lnd::{BAKE, CALLS, Lnd};
pub use macaroon::{Macaroon, permissions};
pub use rates::{Fixed, Rates};
pub use simulated::{PAYOUT as SIMULATED_PAYOUT, Simulated};
pub use wallet::{
    Bill, Issued, News, Preimage, Target, Wallet, WalletError, Watched, WatchedAddress, from_hex, hex,
};
pub use webhook::{HookError, is_public, signature};

use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{
    Content, InvoiceId, InvoiceView, Msat, Offer, Period, Progress, Rail, Resource, SubscriptionView,
};
use crate::core::refusal::{Code, Refusal};
use crate::mailbox::ControlSender;

/// Addresses of a payout that its owner is shown to confirm it.
const SHOWN_ADDRESSES: u32 = 3;

/// Who wants into a room that costs money.
#[derive(Debug, Clone)]
pub enum Payer {
    /// By a token: its identity is proven.
    Known(Identity),
    /// By an L402 token, as it came.
    L402(String),
    /// Nobody yet.
    Guest,
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

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What an owner does to a subscriber.
#[derive(Debug, Clone)]
pub enum Hand {
    Comp { of: Resource, viewer: Identity, period: Period, reason: String },
    Revoke { of: Resource, viewer: Identity, reason: String },
    Restore { of: Resource, viewer: Identity },
    Mark { room: RoomName, invoice: InvoiceId, reason: String },
}

enum Ask {
    Offer {
        of: Resource,
        offer: Option<Offer>,
        by: Option<Identity>,
        reply: Reply<()>,
    },
    Admit {
        of: Resource,
        payer: Payer,
        from: IpAddr,
        new: bool,
        reply: Reply<Admission>,
    },
    Invoice {
        room: RoomName,
        invoice: InvoiceId,
        reply: Reply<(InvoiceView, Identity)>,
    },
    Entitled {
        of: Resource,
        viewer: Identity,
        reply: Reply<bool>,
    },
    Price {
        of: Resource,
        reply: Reply<Option<Offer>>,
    },
    Subscribers {
        room: RoomName,
        reply: Reply<Vec<SubscriberView>>,
    },
    Payout {
        room: RoomName,
        reply: Reply<PayoutView>,
    },
    SetWebhook {
        room: RoomName,
        url: Option<String>,
        by: Option<Identity>,
        reply: Reply<WebhookView>,
    },
    SetPayout {
        room: RoomName,
        payout: Option<Payout>,
        by: Option<Identity>,
        reply: Reply<PayoutView>,
    },
    Hand {
        hand: Hand,
        by: Identity,
        reply: Reply<()>,
    },
    Simulate {
        room: RoomName,
        invoice: InvoiceId,
        rail: Rail,
        sum: Msat,
        progress: Progress,
        reply: Reply<()>,
    },
    /// By a watcher.
    News {
        rail: Rail,
        news: News,
    },
    /// By a task that asked the Lightning node.
    Offered {
        invoice: InvoiceId,
        bolt11: Option<String>,
    },
}

/// The way in for other shells; cheap to clone.
#[derive(Clone)]
pub struct Billing {
    asks: ControlSender<Ask>,
    priced: watch::Receiver<Arc<BTreeSet<Resource>>>,
    changes: broadcast::Sender<Changed>,
    key: BillingKey,
    network: bitcoin::Network,
    dev: bool,
}

impl Billing {
    /// A handle with no loop behind it: no room costs anything, and every call answers `unavailable`.
    #[cfg(test)]
    pub(crate) fn unplugged() -> Self {
        let (asks, _) = crate::mailbox::control(1);
        let (_, priced) = watch::channel(Arc::default());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = BillingKey::open(directory.path()).expect("a secret");
        let (changes, network) = (broadcast::Sender::new(1), bitcoin::Network::Regtest);
        Self { asks, priced, changes, key, network, dev: true }
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
        if self.is_sold(&of) { self.ask(|reply| Ask::Price { of, reply }).await } else { Ok(None) }
    }

    /// Has the viewer paid for it, or been given access?
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn is_entitled(&self, of: impl Into<Resource>, viewer: Identity) -> Result<bool, Refusal> {
        let of = of.into();
        self.ask(|reply| Ask::Entitled { of, viewer, reply }).await
    }

    /// # Errors
    /// `malformed`, `payout_missing`.
    pub async fn set_offer(
        &self,
        of: impl Into<Resource>,
        offer: Option<Offer>,
        by: Option<Identity>,
    ) -> Result<(), Refusal> {
        let of = of.into();
        self.ask(|reply| Ask::Offer { of, offer, by, reply }).await
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
        self.ask(|reply| Ask::Admit { of, payer, from, new: false, reply }).await
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
        let of = of.into();
        self.ask(|reply| Ask::Admit { of, payer, from, new: true, reply }).await
    }

    /// # Errors
    /// `not_found`.
    pub async fn invoice(
        &self,
        room: RoomName,
        invoice: InvoiceId,
    ) -> Result<(InvoiceView, Identity), Refusal> {
        self.ask(|reply| Ask::Invoice { room, invoice, reply }).await
    }

    /// # Errors
    /// `unavailable`.
    pub async fn subscribers(&self, room: RoomName) -> Result<Vec<SubscriberView>, Refusal> {
        self.ask(|reply| Ask::Subscribers { room, reply }).await
    }

    /// # Errors
    /// `unavailable`.
    pub async fn payout(&self, room: RoomName) -> Result<PayoutView, Refusal> {
        self.ask(|reply| Ask::Payout { room, reply }).await
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
        let payout = payout.map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
        self.ask(|reply| Ask::SetPayout { room, payout, by, reply }).await
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
            checked.map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
        }
        self.ask(|reply| Ask::SetWebhook { room, url, by, reply }).await
    }

    /// # Errors
    /// `not_found`, `malformed`.
    pub async fn lay_hand(&self, hand: Hand, by: Identity) -> Result<(), Refusal> {
        self.ask(|reply| Ask::Hand { hand, by, reply }).await
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
        self.ask(|reply| Ask::Simulate { room, invoice, rail, sum, progress, reply }).await
    }

    pub fn is_claim(&self, of: &Resource, viewer: &Identity, claim: &str) -> bool {
        self.key.is_claim(of, viewer, claim)
    }

    /// What changes from now on. Who lags is told so, and looks again.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).map_err(|_| overloaded())?;
        answer.await.unwrap_or_else(|_| Err(overloaded()))
    }
}

fn overloaded() -> Refusal {
    Refusal::new(Code::Unavailable, "payments have too much to do: try again in a moment")
}
