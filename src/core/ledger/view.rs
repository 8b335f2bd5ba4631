//! What is read of the ledger, and the forms in which viewers and owners see it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Ledger;
use super::account::{Account, Entitlement, SubscriptionState};
use super::fact::{InvoiceId, PaymentKey, PaymentStatus};
use super::invoice::{Flags, Invoice, InvoiceState};
use super::money::{MSAT_PER_SAT, Msat, Rate};
use super::offer::Offer;
use crate::core::ids::{Identity, RoomName};

/// A payment as its payer and its receiver see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PaymentView {
    /// The outpoint (`txid:vout`), the payment hash, or that the owner marked it.
    pub key: PaymentKey,
    /// Millisatoshis.
    pub msat: u64,
    pub paid_at_ms: u64,
    pub status: PaymentStatus,
    /// Blocks that have it, as last seen.
    pub confirmations: u32,
    /// Blocks that it needs.
    pub confirmations_needed: u32,
}

/// An invoice as its payer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct InvoiceView {
    #[schema(value_type = String)]
    pub id: InvoiceId,
    pub state: InvoiceState,
    pub flags: Flags,
    /// What is to be paid in all, in satoshis.
    pub amount_sat: u64,
    /// What of it was not seen yet, in satoshis.
    pub remaining_sat: u64,
    /// What the period costs, in satoshis; more than `amount_sat` where credit paid a part.
    pub price_sat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    pub created_at_ms: u64,
    pub expires_at_ms: u64,
    /// Where to pay on-chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What to pay by Lightning (BOLT 11).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bolt11: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_hash: Option<String>,
    pub payments: Vec<PaymentView>,
}

/// What a viewer has with a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SubscriptionView {
    pub viewer: Identity,
    pub state: SubscriptionState,
    /// Access ends then, grace included; absent without access.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// The paid period ends then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at_ms: Option<u64>,
    /// Millisatoshis that the next period will take; below zero a debt.
    pub credit_msat: i64,
    /// All that counted, in millisatoshis.
    pub received_msat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

impl InvoiceView {
    pub fn of(invoice: &Invoice) -> Self {
        let payments = invoice.payments.iter().map(|(key, payment)| PaymentView {
            key: key.clone(),
            msat: payment.sum.0,
            paid_at_ms: payment.paid_at_ms,
            status: payment.status,
            confirmations: payment.confirmations,
            confirmations_needed: match key {
                PaymentKey::Outpoint(_) => invoice.confirmations_needed(payment.sum),
                PaymentKey::PaymentHash(_) | PaymentKey::Marked => 0,
            },
        });
        Self {
            id: invoice.id.clone(),
            state: invoice.state(),
            flags: invoice.flags(),
            amount_sat: invoice.asked.sats_up(),
            remaining_sat: invoice.remaining().sats_up(),
            price_sat: invoice.price.sats_up(),
            rate: invoice.rate.clone(),
            created_at_ms: invoice.created_at_ms,
            expires_at_ms: invoice.expires_at_ms,
            address: invoice.address.as_ref().map(|at| at.address.clone()),
            bolt11: invoice.bolt11.clone(),
            payment_hash: invoice.payment_hash.clone(),
            payments: payments.collect(),
        }
    }

    /// BIP 21, with the Lightning invoice beside the address; in capitals, which makes a smaller QR code.
    pub fn uri(&self) -> Option<String> {
        let address = self.address.as_ref().map(|address| {
            // Only bech32 is the same in capitals (BIP 173).
            if address.to_lowercase() == *address { address.to_uppercase() } else { address.clone() }
        });
        let sats = self.remaining_sat;
        if sats == 0 {
            return None;
        }
        let per_btc = 100_000_000;
        let amount = format!("{}.{:08}", sats / per_btc, sats % per_btc);
        match (address, &self.bolt11) {
            (Some(address), Some(bolt11)) => {
                Some(format!("BITCOIN:{address}?amount={amount}&lightning={}", bolt11.to_uppercase()))
            }
            (Some(address), None) => Some(format!("BITCOIN:{address}?amount={amount}")),
            (None, Some(bolt11)) => Some(format!("LIGHTNING:{}", bolt11.to_uppercase())),
            (None, None) => None,
        }
    }
}

impl Ledger {
    /// What a room costs now; nothing where it is free.
    pub fn offer(&self, room: &RoomName) -> Option<&Offer> {
        self.shops.get(room)?.offer.as_ref()
    }

    /// All rooms that cost something.
    pub fn offers(&self) -> impl Iterator<Item = (&RoomName, &Offer)> {
        self.shops.iter().filter_map(|(room, shop)| Some((room, shop.offer.as_ref()?)))
    }

    /// Where a room's money goes, if its owner said so.
    pub fn payout(&self, room: &RoomName) -> Option<&str> {
        self.shops.get(room)?.payout.as_deref()
    }

    /// Every room whose owner wants to be told, where, and the number of that wish.
    pub fn webhooks(&self) -> impl Iterator<Item = (&RoomName, &str, u32)> {
        self.shops
            .iter()
            .filter_map(|(room, shop)| Some((room, shop.webhook.as_deref()?, shop.webhook_changes)))
    }

    /// Every descriptor that owners gave.
    pub fn payouts(&self) -> impl Iterator<Item = &str> {
        self.shops.values().filter_map(|shop| shop.payout.as_deref())
    }

    pub fn account(&self, room: &RoomName, viewer: &Identity) -> Option<&Account> {
        self.shops.get(room)?.accounts.get(viewer)
    }

    pub fn accounts(&self, room: &RoomName) -> impl Iterator<Item = (&Identity, &Account)> {
        self.shops.get(room).into_iter().flat_map(|shop| &shop.accounts)
    }

    pub fn owner_of(&self, invoice: &InvoiceId) -> Option<&(RoomName, Identity)> {
        self.owners.get(invoice)
    }

    pub fn invoice(&self, id: &InvoiceId) -> Option<&Invoice> {
        let (room, viewer) = self.owners.get(id)?;
        self.account(room, viewer)?.invoices.get(id)
    }

    pub fn invoice_of_hash(&self, payment_hash: &str) -> Option<&Invoice> {
        self.invoice(self.hashes.get(payment_hash)?)
    }

    /// The viewer's invoice that may still be paid.
    pub fn payable(&self, room: &RoomName, viewer: &Identity, now_ms: u64) -> Option<&Invoice> {
        let open = self.account(room, viewer)?.open()?;
        (now_ms < open.expires_at_ms || open.state() == InvoiceState::Processing).then_some(open)
    }

    /// May the viewer be in the room? In a free room nobody is asked.
    pub fn entitlement(&self, room: &RoomName, viewer: &Identity, now_ms: u64) -> Option<Entitlement> {
        self.account(room, viewer)?.entitlement(now_ms)
    }

    /// The place of the next address of a wallet.
    pub fn next_index(&self, profile: &str) -> u32 {
        self.next_index.get(profile).copied().unwrap_or(0)
    }

    /// When a wallet's first address was given out, ms since the Unix epoch.
    pub fn first_ms(&self, profile: &str) -> Option<u64> {
        self.first_ms.get(profile).copied()
    }

    /// Lightning invoices whose end is not known: to be asked for by hash after a pause.
    pub fn open_hashes(&self) -> Vec<String> {
        let open = self.unpaid.iter().filter_map(|id| self.invoice(id));
        open.filter_map(|invoice| invoice.payment_hash.clone()).collect()
    }

    /// Every invoice of the node.
    pub fn invoices(&self) -> impl Iterator<Item = &Invoice> {
        let accounts = self.shops.values().flat_map(|shop| shop.accounts.values());
        accounts.flat_map(|account| account.invoices.values())
    }

    /// How many invoices are in each state.
    pub fn tally(&self) -> BTreeMap<InvoiceState, u64> {
        let mut tally: BTreeMap<_, _> = InvoiceState::ALL.into_iter().map(|state| (state, 0)).collect();
        for invoice in self.invoices() {
            *tally.entry(invoice.state()).or_default() += 1;
        }
        tally
    }

    pub fn subscription(&self, room: &RoomName, viewer: &Identity, now_ms: u64) -> Option<SubscriptionView> {
        let account = self.account(room, viewer)?;
        let bounded = |sum: i128| i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
        Some(SubscriptionView {
            viewer: viewer.clone(),
            state: account.state(now_ms),
            until_ms: account.entitlement(now_ms).map(|entitled| entitled.until_ms),
            ends_at_ms: account.span().map(|span| span.end_ms),
            credit_msat: bounded(account.credit()),
            received_msat: u64::try_from(account.received()).unwrap_or(u64::MAX),
            revoked: account.revoked.clone(),
        })
    }
}

/// Whole satoshis of a sum that may be below zero, for people.
impl SubscriptionView {
    pub fn credit_sat(&self) -> i64 {
        self.credit_msat.div_euclid(i64::try_from(MSAT_PER_SAT).unwrap_or(1))
    }

    pub fn received_sat(&self) -> u64 {
        Msat(self.received_msat).0 / MSAT_PER_SAT
    }
}
