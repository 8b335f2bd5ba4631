//! What changes the ledger, wherever it is asked for: done by the one node that keeps it.
//!
//! Answers name what the ledger has by now, and no secret: whoever asked reads the rest from the facts.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Payer;
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{InvoiceId, Msat, Offer, Period, Progress, Rail, Resource};
use crate::core::refusal::{Code, Refusal};

/// What an owner does to a subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hand {
    Comp { of: Resource, viewer: Identity, period: Period, reason: String },
    Revoke { of: Resource, viewer: Identity, reason: String },
    Restore { of: Resource, viewer: Identity },
    Mark { room: RoomName, invoice: InvoiceId, reason: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Nothing: to know how many facts there are.
    Look,
    Offer {
        of: Resource,
        offer: Option<Offer>,
        by: Option<Identity>,
    },
    Admit {
        of: Resource,
        payer: Payer,
        from: IpAddr,
        /// Of who is in already and wants to pay for more.
        more: bool,
    },
    Payout {
        room: RoomName,
        /// A public descriptor, checked where it came in, and again.
        descriptor: Option<String>,
        by: Option<Identity>,
    },
    Webhook {
        room: RoomName,
        url: Option<String>,
        by: Option<Identity>,
    },
    Hand {
        hand: Hand,
        by: Identity,
    },
    Simulate {
        room: RoomName,
        invoice: InvoiceId,
        rail: Rail,
        sum: Msat,
        progress: Progress,
    },
}

/// What came of it. All of it is durable.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// Until then, ms since the Unix epoch.
    Entitled {
        viewer: Identity,
        until_ms: u64,
    },
    Preview {
        viewer: Identity,
        until_ms: u64,
        lowest: bool,
    },
    /// There is an invoice to pay.
    Asked {
        viewer: Identity,
        invoice: InvoiceId,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    pub outcome: Outcome,
    /// How many facts the ledger has by now: the same number on all nodes.
    pub facts: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Declined {
    /// This node does not keep the ledger, or not any more: nothing was done.
    NotHere,
    Refused(Refusal),
}

impl Declined {
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::NotHere => moving(),
            Self::Refused(refusal) => refusal,
        }
    }
}

impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// While no node keeps the ledger.
pub fn moving() -> Refusal {
    Refusal::new(Code::Unavailable, "payments move to another node: try again in a moment")
}
