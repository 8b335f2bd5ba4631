//! What one viewer has with one room: its invoices, its credit, and the periods that it holds.
//!
//! Credit is what counts minus what live periods cost, so that no satoshi is lost or made: it is computed and
//! never stored. Below zero it is a debt, which suspends.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fact::{Fact, InvoiceId, PaymentKey, PaymentStatus};
use super::invoice::{Invoice, InvoiceState, Payment};
use super::offer::{Period, months_after};

/// How a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Nothing was paid yet.
    Pending,
    Trial,
    Active,
    /// Over, and access goes on for a while.
    Grace,
    Expired,
    /// By the owner, or because a payment that was used was taken back.
    Suspended,
}

/// What gave a period.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TermSource {
    Invoice(InvoiceId),
    /// The owner gave it away.
    Comp(u32),
}

/// A period that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub at_ms: u64,
    pub period: Period,
    pub grace_ms: u64,
    /// Taken back.
    pub void: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    pub started_ms: u64,
    pub until_ms: u64,
}

/// The time that live periods span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Of the last period.
    pub start_ms: u64,
    pub end_ms: u64,
    pub grace_ms: u64,
    /// The first of a row of calendar months, and how many.
    months: Option<(u64, u32)>,
}

/// The right to be in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entitlement {
    /// Milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// The payment is not final: for a live room only.
    pub provisional: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    pub invoices: BTreeMap<InvoiceId, Invoice>,
    pub terms: BTreeMap<TermSource, Term>,
    pub trial: Option<Trial>,
    /// The owner's reason.
    pub revoked: Option<String>,
    /// Changes of access by the owner so far.
    pub changes: u32,
    /// For which end of a period it was reminded.
    pub reminded_of_ms: Option<u64>,
    /// Which end of access was told.
    pub expired_at_ms: Option<u64>,
}

impl Account {
    /// All that counts, in millisatoshis.
    pub fn received(&self) -> i128 {
        self.invoices.values().map(|invoice| i128::from(invoice.received())).sum()
    }

    /// What live periods cost.
    pub fn charged(&self) -> i128 {
        let settled = self.invoices.values().filter(|invoice| invoice.settled);
        settled.map(|invoice| i128::from(invoice.price.0)).sum()
    }

    /// In millisatoshis; below zero a debt.
    pub fn credit(&self) -> i128 {
        self.received() - self.charged()
    }

    /// The invoice that waits to be paid; there is one at most.
    pub fn open(&self) -> Option<&Invoice> {
        let waits = |invoice: &&Invoice| {
            !invoice.expired && matches!(invoice.state(), InvoiceState::New | InvoiceState::Processing)
        };
        self.invoices.values().filter(waits).max_by_key(|invoice| invoice.created_at_ms)
    }

    /// The settled invoice that is to be taken back: a debt, and a payment of it that no longer counts.
    pub fn to_reverse(&self) -> Option<&Invoice> {
        if self.credit() >= 0 {
            return None;
        }
        let lost = |invoice: &&Invoice| {
            let lost = |status: PaymentStatus| !status.counts();
            let mut payments = invoice.payments.values();
            invoice.settled && payments.any(|payment| payment.counted && lost(payment.status))
        };
        self.invoices.values().filter(lost).max_by_key(|invoice| (invoice.created_at_ms, invoice.id.clone()))
    }

    /// The invoice that credit now pays for: first one that money came for, oldest first, then the open one.
    pub fn to_settle(&self) -> Option<&Invoice> {
        let credit = self.credit();
        let paid = |invoice: &&Invoice| !invoice.settled && invoice.received() > 0;
        let affordable = |invoice: &&Invoice| i128::from(invoice.price.0) <= credit;
        let first = self
            .invoices
            .values()
            .filter(paid)
            .filter(affordable)
            .min_by_key(|invoice| (invoice.created_at_ms, invoice.id.clone()));
        first.or_else(|| self.open().filter(affordable))
    }

    /// The time that is paid for, in the order in which it was granted. What is renewed before the end of
    /// grace goes on at the old end; what comes later begins anew.
    pub fn span(&self) -> Option<Span> {
        let mut terms: Vec<(&TermSource, &Term)> = self.terms.iter().filter(|(_, term)| !term.void).collect();
        terms.sort_by_key(|(source, term)| (term.at_ms, (*source).clone()));
        let trial = self.trial.map(|trial| Span {
            start_ms: trial.started_ms,
            end_ms: trial.until_ms,
            grace_ms: 0,
            months: None,
        });
        if terms.is_empty() {
            return None;
        }
        terms.into_iter().fold(trial, |before, (_, term)| {
            let running = before.filter(|span| term.at_ms < span.end_ms.saturating_add(span.grace_ms));
            let start_ms = running.map_or(term.at_ms, |span| span.end_ms);
            let (end_ms, months) = match term.period {
                Period::Months(count) => {
                    let row = running.and_then(|span| span.months);
                    let (first_ms, so_far) = row.unwrap_or((start_ms, 0));
                    let months = so_far.saturating_add(count);
                    (months_after(first_ms, months), Some((first_ms, months)))
                }
                period => (period.after(start_ms), None),
            };
            Some(Span { start_ms, end_ms, grace_ms: term.grace_ms, months })
        })
    }

    pub fn state(&self, now_ms: u64) -> SubscriptionState {
        if self.revoked.is_some() || self.credit() < 0 {
            return SubscriptionState::Suspended;
        }
        let on_trial = self.trial.is_some_and(|trial| now_ms < trial.until_ms);
        match self.span() {
            Some(span) if now_ms < span.end_ms => SubscriptionState::Active,
            Some(span) if now_ms < span.end_ms.saturating_add(span.grace_ms) => SubscriptionState::Grace,
            Some(_) => SubscriptionState::Expired,
            None if on_trial => SubscriptionState::Trial,
            None if self.trial.is_some() => SubscriptionState::Expired,
            None => SubscriptionState::Pending,
        }
    }

    /// May the viewer be in the room now, and until when?
    pub fn entitlement(&self, now_ms: u64) -> Option<Entitlement> {
        let until_ms = match self.state(now_ms) {
            SubscriptionState::Suspended => return None,
            SubscriptionState::Trial => self.trial.map(|trial| trial.until_ms),
            SubscriptionState::Active | SubscriptionState::Grace => {
                self.span().map(|span| span.end_ms.saturating_add(span.grace_ms))
            }
            SubscriptionState::Pending | SubscriptionState::Expired => None,
        };
        if let Some(until_ms) = until_ms {
            return Some(Entitlement { until_ms, provisional: false });
        }
        let unconfirmed = self.invoices.values().filter(|invoice| {
            invoice.offer.zero_conf
                && !invoice.flags().replaced
                && matches!(invoice.state(), InvoiceState::Processing | InvoiceState::Reversed)
        });
        let until =
            unconfirmed.filter_map(|invoice| Some(invoice.offer.period.after(invoice.whole_at_ms()?)));
        let until_ms = until.max().filter(|until_ms| now_ms < *until_ms)?;
        Some(Entitlement { until_ms, provisional: true })
    }
}

impl Account {
    /// Takes a fact about one of its invoices.
    pub(super) fn change_invoice(&mut self, at_ms: u64, fact: &Fact) {
        let (Fact::InvoiceOffered { invoice: id, .. }
        | Fact::InvoiceExpired { invoice: id }
        | Fact::PaymentChanged { invoice: id, .. }
        | Fact::InvoiceMarked { invoice: id, .. }
        | Fact::InvoiceSettled { invoice: id, .. }
        | Fact::InvoiceReversed { invoice: id, .. }) = fact
        else {
            return;
        };
        let Some(invoice) = self.invoices.get_mut(id) else { return };
        match fact {
            Fact::InvoiceOffered { bolt11, .. } => invoice.bolt11 = Some(bolt11.clone()),
            Fact::InvoiceExpired { .. } => invoice.expired = true,
            Fact::PaymentChanged {
                payment: key,
                change,
                sum,
                paid_at_ms,
                status,
                as_of_ms,
                confirmations,
                ..
            } => {
                let counted = invoice.payments.get(key).is_some_and(|known| known.counted) || status.counts();
                let (sum, paid_at_ms, status) = (*sum, *paid_at_ms, *status);
                let (change, as_of_ms, confirmations) = (*change, *as_of_ms, *confirmations);
                let payment = Payment { sum, paid_at_ms, status, change, as_of_ms, counted, confirmations };
                invoice.payments.insert(key.clone(), payment);
            }
            Fact::InvoiceMarked { sum, reason, .. } => {
                invoice.marked = Some(reason.clone());
                let payment = Payment {
                    sum: *sum,
                    paid_at_ms: at_ms,
                    status: PaymentStatus::Deep,
                    change: 1,
                    as_of_ms: at_ms,
                    counted: true,
                    confirmations: 0,
                };
                invoice.payments.insert(PaymentKey::Marked, payment);
            }
            Fact::InvoiceSettled { round, .. } => {
                (invoice.settled, invoice.rounds) = (true, *round);
                let term = Term {
                    at_ms,
                    period: invoice.offer.period,
                    grace_ms: invoice.offer.grace_seconds * 1_000,
                    void: false,
                };
                // Settled again after a reversal, it gives the time that it had given.
                self.terms.entry(TermSource::Invoice(id.clone())).or_insert(term).void = false;
            }
            Fact::InvoiceReversed { .. } => {
                invoice.settled = false;
                if let Some(term) = self.terms.get_mut(&TermSource::Invoice(id.clone())) {
                    term.void = true;
                }
            }
            _ => {}
        }
    }

    /// Takes a fact about what the owner did, or what time did.
    pub(super) fn change_access(&mut self, at_ms: u64, fact: &Fact) {
        match fact {
            Fact::Comped { change, period, .. } => {
                self.changes = *change;
                let term = Term { at_ms, period: *period, grace_ms: 0, void: false };
                self.terms.insert(TermSource::Comp(*change), term);
            }
            Fact::Revoked { change, reason, .. } => {
                self.changes = *change;
                self.revoked = Some(reason.clone());
            }
            Fact::Restored { change, .. } => {
                self.changes = *change;
                self.revoked = None;
            }
            Fact::RenewalDue { ends_at_ms, .. } => self.reminded_of_ms = Some(*ends_at_ms),
            Fact::SubscriptionExpired { ended_at_ms, .. } => self.expired_at_ms = Some(*ended_at_ms),
            _ => {}
        }
    }
}
