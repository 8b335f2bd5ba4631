//! What the loop that owns the ledger is asked and told, each with its own way back.

use tokio::sync::oneshot;

use super::wallet::News;
use super::wish::{Declined, Done, Wish};
use super::{Admission, Challenge, Payer, PayoutView, Receipt, SubscriberView, WebhookView};
use crate::core::event::EventId;
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{InvoiceId, InvoiceView, Offer, Rail, Resource};
use crate::core::refusal::Refusal;
use crate::events::LogError;

pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What is answered at once by the facts that are durable, also while others wait for the log.
pub enum Question {
    /// Lets who is entitled in, and notes it.
    Enter {
        of: Resource,
        payer: Payer,
        reply: Reply<Option<Admission>>,
    },
    /// Notes who was let in by the word of another node.
    LetIn {
        room: RoomName,
        viewer: Identity,
        stay: Stay,
        reply: Reply<()>,
    },
    Challenge {
        of: Resource,
        viewer: Identity,
        invoice: InvoiceId,
        is_new: bool,
        reply: Reply<Challenge>,
    },
    Invoice {
        room: RoomName,
        invoice: InvoiceId,
        reply: Reply<(InvoiceView, Identity)>,
    },
    Receipt {
        room: RoomName,
        invoice: InvoiceId,
        reply: Reply<Receipt>,
    },
    /// Which invoices of a viewer are settled, the latest first.
    Settled {
        of: Resource,
        viewer: Identity,
        reply: Reply<Vec<InvoiceId>>,
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
    Webhook {
        room: RoomName,
        reply: Reply<WebhookView>,
    },
}

/// What changes the ledger, or may: one after the other, each durable before the next.
pub enum Ask {
    Wish {
        wish: Wish,
        reply: oneshot::Sender<Result<Done, Declined>>,
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
    /// By a courier.
    Told {
        room: RoomName,
        event: EventId,
    },
    /// By a task that wrote that this node keeps the ledger now.
    Opened {
        epoch: u64,
        opened: Result<(), LogError>,
    },
}

/// Why somebody may be in a room.
#[derive(Debug, Clone, Copy)]
pub enum Stay {
    /// As long as the ledger says so.
    Entitled,
    /// To look in, until then (ms since the Unix epoch).
    Preview(u64),
}
