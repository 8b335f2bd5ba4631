//! Renewal: whose period ends soon, and whose subscription has ended. Each end is spoken of once.
//!
//! A calendar says who is to be looked at when, so that time passing costs nothing for those it does not
//! concern.

use std::collections::{BTreeMap, BTreeSet};

use super::account::{Account, Span};
use super::fact::{Fact, InvoiceId};
use super::money::Price;
use super::offer::Offer;
use super::resource::Resource;
use super::{InvoiceState, Ledger};
use crate::core::ids::Identity;

/// No reminder comes earlier before the end unless its owner says so, in milliseconds.
const REMIND_MS_MAX: u64 = 3 * 24 * 60 * 60 * 1_000;

/// No invoice for a renewal waits longer, in milliseconds: Lightning nodes take no longer ones.
const PAY_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Renewals that are begun at a time; the others wait for the next.
const DUE_MAX: usize = 100;

/// A period that ends soon, of a viewer who was not reminded of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub of: Resource,
    pub viewer: Identity,
    pub ends_at_ms: u64,
    /// Until when an invoice for the next period may be paid; absent where the rate would be too old by then.
    pub pay_until_ms: Option<u64>,
}

/// When each subscription is to be looked at next.
#[derive(Debug, Clone, Default)]
pub(super) struct Calendar {
    at: BTreeSet<(u64, Resource, Identity)>,
    of: BTreeMap<(Resource, Identity), u64>,
}

impl Calendar {
    fn put(&mut self, of: &Resource, viewer: &Identity, at_ms: Option<u64>) {
        let key = (of.clone(), viewer.clone());
        if let Some(old) = self.of.remove(&key) {
            self.at.remove(&(old, of.clone(), viewer.clone()));
        }
        if let Some(at_ms) = at_ms {
            self.at.insert((at_ms, of.clone(), viewer.clone()));
            self.of.insert(key, at_ms);
        }
    }

    fn due(&self, now_ms: u64) -> Vec<(Resource, Identity)> {
        let due = self.at.iter().take_while(|(at_ms, ..)| *at_ms <= now_ms);
        due.map(|(_, of, viewer)| (of.clone(), viewer.clone())).collect()
    }
}

impl Span {
    /// Access ends then.
    pub fn over_ms(&self) -> u64 {
        self.end_ms.saturating_add(self.grace_ms)
    }

    /// From then on its viewer is to be reminded: by the offer, else in the last tenth.
    fn remind_at_ms(&self, offer: &Offer) -> u64 {
        let tenth = (self.end_ms.saturating_sub(self.start_ms) / 10).min(REMIND_MS_MAX);
        let ahead_ms = offer.remind_seconds.map_or(tenth, |seconds| seconds * 1_000);
        self.end_ms.saturating_sub(ahead_ms).max(self.start_ms)
    }
}

impl Account {
    fn is_reminded(&self, span: &Span) -> bool {
        self.reminded_of_ms.is_some_and(|of_ms| of_ms >= span.end_ms)
    }

    fn is_told_expired(&self, span: &Span) -> bool {
        self.expired_at_ms.is_some_and(|at_ms| at_ms >= span.over_ms())
    }
}

impl Ledger {
    /// Notes when this subscription is to be looked at next.
    pub(super) fn plan(&mut self, of: &Resource, viewer: &Identity) {
        let offer = self.offer(of);
        let at_ms = self.account(of, viewer).and_then(|account| {
            let span = account.span().filter(|_| account.revoked.is_none() && account.credit() >= 0)?;
            if account.is_told_expired(&span) {
                return None;
            }
            let reminder = offer.filter(|_| !account.is_reminded(&span));
            Some(reminder.map_or(span.over_ms(), |offer| span.remind_at_ms(offer)))
        });
        self.calendar.put(of, viewer, at_ms);
    }

    /// After a change of the offer.
    pub(super) fn plan_all(&mut self, of: &Resource) {
        let viewers: Vec<Identity> = self.accounts(of).map(|(viewer, _)| viewer.clone()).collect();
        for viewer in viewers {
            self.plan(of, &viewer);
        }
    }

    /// Who is to be reminded, each with an order for the next period, which credit may pay at once.
    pub fn due_renewals(&self, now_ms: u64) -> Vec<Due> {
        let due = self.calendar.due(now_ms).into_iter();
        due.filter_map(|(of, viewer)| {
            let (account, offer) = (self.account(&of, &viewer)?, self.offer(&of)?);
            let span = account.span().filter(|span| !account.is_reminded(span) && now_ms < span.over_ms())?;
            let longest_ms = now_ms.saturating_add(PAY_MS_MAX);
            let pay_until_ms = matches!(offer.price, Price::Sats(_)).then(|| span.over_ms().min(longest_ms));
            Some(Due { of, viewer, ends_at_ms: span.end_ms, pay_until_ms })
        })
        .take(DUE_MAX)
        .collect()
    }

    /// The invoice of a renewal is there. Where credit has paid it already, there is nothing to say.
    pub fn handle_due(&mut self, now_ms: u64, due: &Due, invoice: &InvoiceId) {
        let paid = self.invoice(invoice).is_none_or(|known| known.state() == InvoiceState::Settled);
        let span = self.account(&due.of, &due.viewer).and_then(|account| {
            account.span().filter(|span| span.end_ms == due.ends_at_ms && !account.is_reminded(span))
        });
        if span.is_some() && !paid {
            let (content, viewer) = (due.of.content.clone(), due.viewer.clone());
            let (ends_at_ms, invoice) = (due.ends_at_ms, invoice.clone());
            self.enact(now_ms, &due.of.room, Fact::RenewalDue { content, viewer, ends_at_ms, invoice });
        }
    }

    /// Says whose time is over, grace included.
    pub(super) fn expire_subscriptions(&mut self, now_ms: u64) {
        for (of, viewer) in self.calendar.due(now_ms) {
            let account = self.account(&of, &viewer);
            let over = account.and_then(|account| {
                let span = account.span().filter(|span| !account.is_told_expired(span))?;
                Some(span.over_ms()).filter(|over_ms| *over_ms <= now_ms)
            });
            if let Some(ended_at_ms) = over {
                let content = of.content.clone();
                let fact = Fact::SubscriptionExpired { content, viewer, ended_at_ms };
                self.enact(now_ms, &of.room, fact);
            }
        }
    }
}
