//! What is read of the ledger, and the forms in which viewers and owners see it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Ledger;
use super::account::{Account, Entitlement, SubscriptionState};
use super::fact::{InvoiceId, PaymentKey, PaymentStatus};
use super::invoice::{Flags, Invoice, InvoiceState};
use super::money::{MSAT_PER_SAT, Msat, Rate};
use super::offer::Offer;
use super::resource::Resource;
use crate::core::event::EventId;
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

/// What a viewer has with a room, recording or file.
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
    /// What it costs now; nothing where it is free.
    pub fn offer(&self, of: &Resource) -> Option<&Offer> {
        self.wares.get(of)?.offer.as_ref()
    }

    /// All that costs something.
    pub fn offers(&self) -> impl Iterator<Item = (&Resource, &Offer)> {
        self.wares.iter().filter_map(|(of, ware)| Some((of, ware.offer.as_ref()?)))
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

    /// The last event that a room's webhook was told.
    pub fn told(&self, room: &RoomName) -> Option<&EventId> {
        self.shops.get(room)?.told.as_ref()
    }

    /// Every descriptor that owners ever gave.
    pub fn payouts(&self) -> impl Iterator<Item = &str> {
        self.descriptors.iter().map(String::as_str)
    }

    pub fn account(&self, of: &Resource, viewer: &Identity) -> Option<&Account> {
        self.wares.get(of)?.accounts.get(viewer)
    }

    pub fn accounts(&self, of: &Resource) -> impl Iterator<Item = (&Identity, &Account)> {
        self.wares.get(of).into_iter().flat_map(|ware| &ware.accounts)
    }

    /// All that is or was sold in a room, the room itself first.
    pub fn wares(&self, room: &RoomName) -> impl Iterator<Item = &Resource> {
        let first = Resource::from(room.clone());
        let of_room = |of: &&Resource| of.room == first.room;
        let found: Vec<_> = self.wares.range(first.clone()..).map(|(of, _)| of).take_while(of_room).collect();
        found.into_iter()
    }

    /// For what an invoice is, and whose.
    pub fn owner_of(&self, invoice: &InvoiceId) -> Option<&(Resource, Identity)> {
        self.owners.get(invoice)
    }

    pub fn invoice(&self, id: &InvoiceId) -> Option<&Invoice> {
        let (of, viewer) = self.owners.get(id)?;
        self.account(of, viewer)?.invoices.get(id)
    }

    pub fn invoice_of_hash(&self, payment_hash: &str) -> Option<&Invoice> {
        self.invoice(self.hashes.get(payment_hash)?)
    }

    /// The viewer's invoice that may still be paid.
    pub fn payable(&self, of: &Resource, viewer: &Identity, now_ms: u64) -> Option<&Invoice> {
        let open = self.account(of, viewer)?.open()?;
        (now_ms < open.expires_at_ms || open.state() == InvoiceState::Processing).then_some(open)
    }

    /// May the viewer have it? Of what is free nobody is asked. What was fetched cannot be taken back, so
    /// contents are never given for a payment that is not final.
    pub fn entitlement(&self, of: &Resource, viewer: &Identity, now_ms: u64) -> Option<Entitlement> {
        let entitled = self.account(of, viewer)?.entitlement(now_ms)?;
        (of.is_live() || !entitled.provisional).then_some(entitled)
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

    /// Addresses to be looked at closely, each with what was seen paid to it and may yet be replaced.
    pub fn hot_addresses(&self) -> Vec<(String, Vec<(PaymentKey, Msat)>)> {
        let hot = self.unsettled.union(&self.shallow).filter_map(|id| self.invoice(id));
        hot.filter_map(|invoice| {
            let at = invoice.address.as_ref()?;
            let shallow = invoice.payments.iter().filter(|(key, payment)| payment.is_shallow(key));
            Some((at.address.clone(), shallow.map(|(key, payment)| (key.clone(), payment.sum)).collect()))
        })
        .collect()
    }

    /// Every invoice of the node.
    pub fn invoices(&self) -> impl Iterator<Item = &Invoice> {
        let accounts = self.wares.values().flat_map(|ware| ware.accounts.values());
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

    pub fn subscription(&self, of: &Resource, viewer: &Identity, now_ms: u64) -> Option<SubscriptionView> {
        let account = self.account(of, viewer)?;
        let bounded = |sum: i128| i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
        Some(SubscriptionView {
            viewer: viewer.clone(),
            state: account.state(now_ms),
            until_ms: self.entitlement(of, viewer, now_ms).map(|entitled| entitled.until_ms),
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
