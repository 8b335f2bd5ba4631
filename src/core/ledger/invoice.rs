//! One invoice and the payments that came for it. Its state is a function of its rows and never stored.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fact::{Address, InvoiceId, PaymentKey, PaymentStatus, Rail};
use super::money::{Msat, Rate, confirmations_needed};
use super::offer::Offer;
use crate::core::ids::Identity;

/// Blocks over a payment after which it is watched no more.
pub const WATCHED_BLOCKS: u32 = 100;

/// How an invoice stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceState {
    /// Waits to be paid.
    New,
    /// The whole sum was seen and does not count yet.
    Processing,
    /// Paid, once.
    Settled,
    /// Its time is over.
    Expired,
    /// The whole sum was seen and never came to count.
    Invalid,
    /// It was settled, and the chain took the payment back.
    Reversed,
}

impl InvoiceState {
    pub const ALL: [Self; 6] =
        [Self::New, Self::Processing, Self::Settled, Self::Expired, Self::Invalid, Self::Reversed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Processing => "processing",
            Self::Settled => "settled",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::Reversed => "reversed",
        }
    }
}

/// What is remarkable about an invoice, beside its state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Flags {
    /// Some of the sum was seen, not all.
    pub partial: bool,
    /// More than the sum came; the rest is credit.
    pub over: bool,
    /// Something came after its time.
    pub late: bool,
    /// Paid on-chain and by Lightning; one of them is credit.
    pub both_ways: bool,
    /// A payment was replaced by another transaction.
    pub replaced: bool,
    /// The owner said that it was paid.
    pub marked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Payment {
    pub sum: Msat,
    pub paid_at_ms: u64,
    pub status: PaymentStatus,
    /// Changes so far.
    pub change: u32,
    pub as_of_ms: u64,
    /// Once it counted.
    pub counted: bool,
    /// Blocks that have it, as last seen. Only what changes its status, and each block before it counts, is a
    /// fact.
    #[serde(skip)]
    pub confirmations: u32,
}

impl Payment {
    /// On-chain, and it may yet be taken back.
    pub fn is_shallow(&self, key: &PaymentKey) -> bool {
        key.rail() == Some(Rail::Onchain) && (self.status.is_pending() || self.status == PaymentStatus::Final)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    pub id: InvoiceId,
    pub viewer: Identity,
    pub version: u32,
    pub offer: Offer,
    pub price: Msat,
    pub asked: Msat,
    pub rate: Option<Rate>,
    pub created_at_ms: u64,
    pub expires_at_ms: u64,
    pub address: Option<Address>,
    pub payment_hash: Option<String>,
    pub bolt11: Option<String>,
    pub payments: BTreeMap<PaymentKey, Payment>,
    pub marked: Option<String>,
    pub expired: bool,
    /// Times it was settled.
    pub rounds: u32,
    /// It is settled now.
    pub settled: bool,
}

impl Invoice {
    /// What counts, in millisatoshis.
    pub fn received(&self) -> u64 {
        self.sum_of(|payment| payment.status.counts())
    }

    /// What was seen and may come to count.
    pub fn pending(&self) -> u64 {
        self.sum_of(|payment| payment.status.is_pending())
    }

    fn sum_of(&self, wanted: impl Fn(&Payment) -> bool) -> u64 {
        let wanted = self.payments.values().filter(|payment| wanted(payment));
        wanted.fold(0, |sum, payment| sum.saturating_add(payment.sum.0))
    }

    /// Blocks that a payment of it must be in before it counts: by the larger of both sums, so that many
    /// small payments do not pass for a small one.
    pub fn confirmations_needed(&self, sum: Msat) -> u32 {
        confirmations_needed(sum.max(self.asked))
    }

    pub fn uses(&self, rail: Rail) -> bool {
        match rail {
            Rail::Onchain => self.address.is_some(),
            Rail::Lightning => self.payment_hash.is_some(),
        }
    }

    pub fn state(&self) -> InvoiceState {
        let seen = self.received().saturating_add(self.pending());
        if self.settled {
            InvoiceState::Settled
        } else if self.rounds > 0 {
            InvoiceState::Reversed
        } else if self.pending() > 0 && seen >= self.asked.0 {
            InvoiceState::Processing
        } else if !self.expired {
            InvoiceState::New
        } else if self.sum_of(|payment| payment.status == PaymentStatus::Replaced) >= self.asked.0 {
            InvoiceState::Invalid
        } else {
            InvoiceState::Expired
        }
    }

    pub fn flags(&self) -> Flags {
        let seen = self.received().saturating_add(self.pending());
        let by = |rail| {
            let alive = |payment: &Payment| payment.status != PaymentStatus::Replaced;
            self.payments.iter().any(|(key, payment)| key.rail() == Some(rail) && alive(payment))
        };
        Flags {
            partial: seen > 0 && seen < self.asked.0 && !self.settled,
            over: seen > self.asked.0,
            late: self.payments.values().any(|payment| payment.paid_at_ms > self.expires_at_ms),
            both_ways: by(Rail::Onchain) && by(Rail::Lightning),
            replaced: self.payments.values().any(|payment| payment.status == PaymentStatus::Replaced),
            marked: self.marked.is_some(),
        }
    }

    /// What is still to be paid, in millisatoshis, of what was asked.
    pub fn remaining(&self) -> Msat {
        Msat(self.asked.0.saturating_sub(self.received().saturating_add(self.pending())))
    }

    /// When the whole sum had been seen, if it was and is not lost.
    pub fn whole_at_ms(&self) -> Option<u64> {
        let seen = self.received().saturating_add(self.pending()) >= self.asked.0;
        let times = self.payments.values().map(|payment| payment.paid_at_ms);
        if seen { times.max() } else { None }
    }
}
