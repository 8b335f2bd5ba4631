//! What owners do: where money goes, who is told, and what they give, take and mark, each with a reason
//! that stays.

use super::fact::{Fact, InvoiceId};
use super::money::Msat;
use super::offer::Period;
use super::resource::Resource;
use super::{ACCOUNTS_MAX, Ledger};
use crate::core::event::EventId;
use crate::core::ids::{Identity, RoomName};
use crate::core::refusal::{Code, Refusal};

/// Characters of an owner's reason.
const REASON_CHARS_MAX: usize = 200;

impl Ledger {
    /// Sets where a room's money goes from the next invoice on; nothing for the node's own payout. The
    /// descriptor was checked.
    pub fn handle_payout(
        &mut self,
        now_ms: u64,
        room: &RoomName,
        descriptor: Option<String>,
        by: Option<Identity>,
    ) {
        let shop = self.shops.get(room);
        if shop.and_then(|shop| shop.payout.as_ref()) != descriptor.as_ref() {
            let change = shop.map_or(0, |shop| shop.payout_changes) + 1;
            self.enact(now_ms, room, Fact::PayoutSet { change, descriptor, by });
        }
    }

    /// Sets who is told of what happens to a room's money. The URL was checked.
    pub fn handle_webhook(
        &mut self,
        now_ms: u64,
        room: &RoomName,
        url: Option<String>,
        by: Option<Identity>,
    ) {
        let shop = self.shops.get(room);
        if shop.and_then(|shop| shop.webhook.as_ref()) != url.as_ref() {
            let change = shop.map_or(0, |shop| shop.webhook_changes) + 1;
            self.enact(now_ms, room, Fact::WebhookSet { change, url, by });
        }
    }

    /// A room's webhook was told all up to this event.
    pub fn handle_told(&mut self, now_ms: u64, room: &RoomName, event: EventId) {
        if self.told(room) != Some(&event) {
            self.enact(now_ms, room, Fact::WebhookTold { event });
        }
    }

    /// Starts a viewer's trial, where the offer has one and it was not used.
    pub fn handle_trial(&mut self, now_ms: u64, room: &RoomName, viewer: &Identity) {
        let Some(ware) = self.wares.get(&Resource::from(room.clone())) else { return };
        let Some(offer) = ware.offer.as_ref().filter(|offer| offer.trial_seconds > 0) else { return };
        let unused = ware.accounts.get(viewer).is_none_or(|account| {
            account.trial.is_none() && account.terms.is_empty() && account.revoked.is_none()
        });
        if unused && ware.accounts.len() < ACCOUNTS_MAX {
            let until_ms = now_ms.saturating_add(offer.trial_seconds * 1_000);
            let (version, viewer) = (ware.version, viewer.clone());
            self.enact(now_ms, room, Fact::TrialStarted { viewer, version, until_ms });
        }
    }

    /// The owner says that an invoice was paid some other way. Again it changes nothing.
    ///
    /// # Errors
    /// `not_found`, `malformed` without a reason.
    pub fn handle_mark(
        &mut self,
        now_ms: u64,
        room: &RoomName,
        invoice: &InvoiceId,
        reason: &str,
        by: Identity,
    ) -> Result<(), Refusal> {
        let reason = reason_of(reason)?;
        let Some((of, viewer)) = self.owners.get(invoice).filter(|(of, _)| of.room == *room).cloned() else {
            return Err(no_invoice());
        };
        let Some(account) = self.account(&of, &viewer) else { return Err(no_invoice()) };
        let Some(known) = account.invoices.get(invoice) else { return Err(no_invoice()) };
        let missing = i128::from(known.price.0) - account.credit();
        if known.settled || known.marked.is_some() || missing <= 0 {
            return Ok(());
        }
        let sum = Msat(u64::try_from(missing).unwrap_or(u64::MAX));
        self.enact(now_ms, room, Fact::InvoiceMarked { invoice: invoice.clone(), sum, reason, by });
        self.review(now_ms, &of, &viewer);
        Ok(())
    }

    /// The owner gives a period away.
    ///
    /// # Errors
    /// `not_found` where nothing is sold, `malformed` without a reason or period.
    pub fn handle_comp(
        &mut self,
        now_ms: u64,
        of: &Resource,
        viewer: &Identity,
        period: Period,
        reason: &str,
        by: Identity,
    ) -> Result<(), Refusal> {
        let reason = reason_of(reason)?;
        period.check().map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
        if self.offer(of).is_none() {
            return Err(Refusal::new(Code::NotFound, "nothing is sold here"));
        }
        let change = self.account(of, viewer).map_or(0, |account| account.changes) + 1;
        let (content, viewer) = (of.content.clone(), viewer.clone());
        self.enact(now_ms, &of.room, Fact::Comped { content, viewer, change, period, reason, by });
        Ok(())
    }

    /// The owner takes a viewer's access away, or with no reason gives it back.
    ///
    /// # Errors
    /// `not_found`, `malformed` for a reason that is none.
    pub fn handle_revoke(
        &mut self,
        now_ms: u64,
        of: &Resource,
        viewer: &Identity,
        reason: Option<&str>,
        by: Identity,
    ) -> Result<(), Refusal> {
        let Some(account) = self.account(of, viewer) else {
            return Err(Refusal::new(Code::NotFound, "there is no such subscriber"));
        };
        let (change, content, viewer) = (account.changes + 1, of.content.clone(), viewer.clone());
        let fact = match reason {
            Some(reason) => {
                let reason = reason_of(reason)?;
                if account.revoked.is_some() {
                    return Ok(());
                }
                Fact::Revoked { content, viewer, change, reason, by }
            }
            None if account.revoked.is_none() => return Ok(()),
            None => Fact::Restored { content, viewer, change, by },
        };
        self.enact(now_ms, &of.room, fact);
        Ok(())
    }
}

fn reason_of(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let fits = (1..=REASON_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    let words = "a reason is needed: 1 to 200 characters and no control characters";
    if fits { Ok(text.to_owned()) } else { Err(Refusal::new(Code::Malformed, words)) }
}

fn no_invoice() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such invoice")
}
