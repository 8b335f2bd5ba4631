//! What happened to money, one [`Fact`] each: the vocabulary of the ledger in the event log.
//!
//! A ledger is the fold of its facts. New fields are optional; none ever changes its meaning.

use serde::{Deserialize, Serialize};

use super::money::{Msat, Rate};
use super::offer::{Offer, Period};
use super::resource::Content;
use crate::core::event::{Event, EventBody, EventId};
use crate::core::ids::{Identity, NodeId, RoomName};

/// Names an invoice: 32 hex digits that cannot be guessed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct InvoiceId(String);

impl InvoiceId {
    pub fn new(random: u128) -> Self {
        Self(format!("{random:032x}"))
    }

    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        plain.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// By which way money comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rail {
    Onchain,
    Lightning,
}

/// What tells one payment from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentKey {
    /// `txid:vout`.
    Outpoint(String),
    /// SHA-256 of the preimage, in hex.
    PaymentHash(String),
    /// The owner's word for this invoice.
    Marked,
}

impl PaymentKey {
    pub fn rail(&self) -> Option<Rail> {
        match self {
            Self::Outpoint(_) => Some(Rail::Onchain),
            Self::PaymentHash(_) => Some(Rail::Lightning),
            Self::Marked => None,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Outpoint(text) | Self::PaymentHash(text) => text,
            Self::Marked => "marked",
        }
    }
}

/// How far a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// Seen, and in no block.
    Unconfirmed,
    /// In a block, with too few over it yet.
    Confirming,
    /// It counts.
    Final,
    /// Under so many blocks that it is watched no more.
    Deep,
    /// Another transaction took its coins, or nobody carries it any more.
    Replaced,
}

impl PaymentStatus {
    pub fn counts(self) -> bool {
        matches!(self, Self::Final | Self::Deep)
    }

    /// It may still come to count.
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Unconfirmed | Self::Confirming)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Confirming => "confirming",
            Self::Final => "final",
            Self::Deep => "deep",
            Self::Replaced => "replaced",
        }
    }
}

/// Where an invoice may be paid on-chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The wallet whose address it is.
    pub profile: String,
    /// Its place in that wallet's descriptor; no other invoice has it.
    pub index: u32,
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Fact {
    #[serde(rename = "offer.set")]
    OfferSet {
        /// Absent: the room itself. So for all facts about what is sold.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
        /// Counts up from 1 for each thing.
        version: u32,
        /// Absent: it is free.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offer: Option<Offer>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Identity>,
    },
    #[serde(rename = "payout.set")]
    PayoutSet {
        /// Counts up from 1 in each room.
        change: u32,
        /// A public descriptor; absent, the node's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        descriptor: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Identity>,
    },
    #[serde(rename = "webhook.set")]
    WebhookSet {
        /// Counts up from 1 in each room.
        change: u32,
        /// Absent: nobody is told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Identity>,
    },
    #[serde(rename = "invoice.created")]
    InvoiceCreated {
        invoice: InvoiceId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
        viewer: Identity,
        version: u32,
        /// What the period costs.
        price: Msat,
        /// What is left of it after credit, or with debt.
        asked: Msat,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<Rate>,
        expires_at_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Address>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payment_hash: Option<String>,
    },
    /// The Lightning node has the invoice.
    #[serde(rename = "invoice.offered")]
    InvoiceOffered { invoice: InvoiceId, bolt11: String },
    #[serde(rename = "invoice.expired")]
    InvoiceExpired { invoice: InvoiceId },
    #[serde(rename = "payment.changed")]
    PaymentChanged {
        invoice: InvoiceId,
        payment: PaymentKey,
        /// Counts this payment's changes from 1.
        change: u32,
        sum: Msat,
        paid_at_ms: u64,
        status: PaymentStatus,
        /// When the wallet said so: what is older is passed over.
        as_of_ms: u64,
        /// Blocks that had it then.
        #[serde(default, skip_serializing_if = "is_nought")]
        confirmations: u32,
    },
    /// The owner says that it was paid.
    #[serde(rename = "invoice.marked")]
    InvoiceMarked { invoice: InvoiceId, sum: Msat, reason: String, by: Identity },
    #[serde(rename = "invoice.settled")]
    InvoiceSettled {
        invoice: InvoiceId,
        /// 1, and one more after each reversal.
        round: u32,
    },
    #[serde(rename = "invoice.reversed")]
    InvoiceReversed { invoice: InvoiceId, round: u32 },
    #[serde(rename = "subscription.trial")]
    TrialStarted { viewer: Identity, version: u32, until_ms: u64 },
    /// A period ends soon: what to pay for the next one.
    #[serde(rename = "subscription.due")]
    RenewalDue {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
        viewer: Identity,
        ends_at_ms: u64,
        invoice: InvoiceId,
    },
    /// It was not renewed, grace included.
    #[serde(rename = "subscription.expired")]
    SubscriptionExpired {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
        viewer: Identity,
        ended_at_ms: u64,
    },
    #[serde(rename = "access.comped")]
    Comped {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
        viewer: Identity,
        change: u32,
        period: Period,
        reason: String,
        by: Identity,
    },
    #[serde(rename = "access.revoked")]
    Revoked {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
        viewer: Identity,
        change: u32,
        reason: String,
        by: Identity,
    },
    #[serde(rename = "access.restored")]
    Restored {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
        viewer: Identity,
        change: u32,
        by: Identity,
    },
    /// The room's webhook was told all up to here.
    #[serde(rename = "webhook.told")]
    WebhookTold { event: EventId },
    /// A node of a cluster keeps the ledger from here on. Of no room.
    #[serde(rename = "ledger.opened")]
    LedgerOpened {
        epoch: u64,
        node: NodeId,
        /// Tells nodes whose secret of billing is another.
        key: String,
    },
}

fn is_nought(number: &u32) -> bool {
    *number == 0
}

impl Fact {
    /// As it is told by webhooks, such as `invoice.settled`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OfferSet { .. } => "offer.set",
            Self::PayoutSet { .. } => "payout.set",
            Self::WebhookSet { .. } => "webhook.set",
            Self::InvoiceCreated { .. } => "invoice.created",
            Self::InvoiceOffered { .. } => "invoice.offered",
            Self::InvoiceExpired { .. } => "invoice.expired",
            Self::PaymentChanged { .. } => "payment.changed",
            Self::InvoiceMarked { .. } => "invoice.marked",
            Self::InvoiceSettled { .. } => "invoice.settled",
            Self::InvoiceReversed { .. } => "invoice.reversed",
            Self::TrialStarted { .. } => "subscription.trial",
            Self::RenewalDue { .. } => "subscription.due",
            Self::SubscriptionExpired { .. } => "subscription.expired",
            Self::Comped { .. } => "access.comped",
            Self::Revoked { .. } => "access.revoked",
            Self::Restored { .. } => "access.restored",
            Self::WebhookTold { .. } => "webhook.told",
            Self::LedgerOpened { .. } => "ledger.opened",
        }
    }

    /// The same fact has the same id, whoever comes to it and how often.
    pub fn id(&self) -> EventId {
        EventId::from_stored(match self {
            Self::OfferSet { content, version, .. } => format!("offer:{}{version}", within(content)),
            Self::PayoutSet { change, .. } => format!("payout:{change}"),
            Self::WebhookSet { change, .. } => format!("webhook:{change}"),
            Self::InvoiceCreated { invoice, .. } => format!("invoice:{}:created", invoice.0),
            Self::InvoiceOffered { invoice, .. } => format!("invoice:{}:offered", invoice.0),
            Self::InvoiceExpired { invoice } => format!("invoice:{}:expired", invoice.0),
            Self::PaymentChanged { invoice, payment, change, status, .. } => {
                format!("payment:{}:{}:{change}:{}", invoice.0, payment.as_str(), status.as_str())
            }
            Self::InvoiceMarked { invoice, .. } => format!("invoice:{}:marked", invoice.0),
            Self::InvoiceSettled { invoice, round } => format!("invoice:{}:settled:{round}", invoice.0),
            Self::InvoiceReversed { invoice, round } => format!("invoice:{}:reversed:{round}", invoice.0),
            Self::TrialStarted { viewer, .. } => format!("trial:{viewer}"),
            Self::RenewalDue { content, viewer, ends_at_ms, .. } => {
                format!("due:{}{viewer}:{ends_at_ms}", within(content))
            }
            Self::SubscriptionExpired { content, viewer, ended_at_ms } => {
                format!("expired:{}{viewer}:{ended_at_ms}", within(content))
            }
            Self::Comped { content, viewer, change, .. }
            | Self::Revoked { content, viewer, change, .. }
            | Self::Restored { content, viewer, change, .. } => {
                format!("access:{}{viewer}:{change}", within(content))
            }
            Self::WebhookTold { event } => format!("told:{event}"),
            Self::LedgerOpened { epoch, .. } => format!("ledger:{epoch}"),
        })
    }

    /// The epoch under which a node keeps the ledger from this fact on.
    pub fn opening_epoch(&self) -> Option<u64> {
        match self {
            Self::LedgerOpened { epoch, .. } => Some(*epoch),
            _ => None,
        }
    }

    /// Something that happened to money, for the room's owner to hear of; not how we go about it.
    pub fn is_news(&self) -> bool {
        !matches!(self, Self::WebhookTold { .. } | Self::LedgerOpened { .. })
    }

    /// As an event of `room`. [`Self::LedgerOpened`] is of [`RoomName::ledger`].
    pub fn into_event(self, room: RoomName, at_ms: u64) -> Event {
        Event { id: self.id(), room, at_ms, body: EventBody::Ledger(Box::new(self)) }
    }

    /// Which part of its room it is about; nothing where it is the room, or where an invoice says it.
    pub fn content(&self) -> Option<&Content> {
        match self {
            Self::OfferSet { content, .. }
            | Self::InvoiceCreated { content, .. }
            | Self::RenewalDue { content, .. }
            | Self::SubscriptionExpired { content, .. }
            | Self::Comped { content, .. }
            | Self::Revoked { content, .. }
            | Self::Restored { content, .. } => content.as_ref(),
            _ => None,
        }
    }

    /// What no two invoices may share, for the log to hold: an address, a payment hash, an outpoint.
    pub fn unique_keys(&self) -> Vec<(String, &InvoiceId)> {
        match self {
            Self::InvoiceCreated { invoice, address, payment_hash, .. } => {
                let address = address.iter().flat_map(|at| {
                    [format!("address:{}", at.address), format!("index:{}:{}", at.profile, at.index)]
                });
                let hash = payment_hash.iter().map(|hash| format!("hash:{hash}"));
                address.chain(hash).map(|key| (key, invoice)).collect()
            }
            Self::PaymentChanged { invoice, payment: PaymentKey::Outpoint(outpoint), .. } => {
                vec![(format!("outpoint:{outpoint}"), invoice)]
            }
            _ => Vec::new(),
        }
    }
}

/// Keeps the facts of one thing in a room from those of another.
fn within(content: &Option<Content>) -> String {
    content.as_ref().map(|content| format!("{content}:")).unwrap_or_default()
}
