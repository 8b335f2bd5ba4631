//! What owners see and do.

use super::{Desk, issue};
use crate::billing::{Hand, Payout, PayoutView, Receipt, SHOWN_ADDRESSES, SubscriberView, WebhookView};
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{InvoiceId, InvoiceView, Msat, Offer, PaymentKey, Progress, Rail, Resource};
use crate::core::refusal::{Code, Refusal};

/// Subscribers in one answer, the newest first.
const SHOWN_MAX: usize = 10_000;

impl Desk {
    pub(super) fn set_offer(
        &mut self,
        now_ms: u64,
        of: &Resource,
        offer: Option<Offer>,
        by: Option<Identity>,
    ) -> Result<(), Refusal> {
        if let Some(offer) = &offer {
            let (payout, lightning) = self.payout_of(&of.room);
            if payout.is_none() && !lightning {
                return Err(issue::no_payout());
            }
            if let crate::core::ledger::Price::Fiat { currency, .. } = &offer.price
                && self.rates.rate(currency).is_none()
            {
                let words = crate::core::ledger::PriceError::NoRate.to_string();
                return Err(Refusal::new(Code::Malformed, words));
            }
        }
        self.books.draft.handle_offer(now_ms, of, offer, by)
    }

    pub(super) fn set_payout(
        &mut self,
        now_ms: u64,
        room: &RoomName,
        descriptor: Option<&str>,
        by: Option<Identity>,
    ) -> Result<(), Refusal> {
        let payout = descriptor.map(|text| Payout::parse(text, self.network)).transpose();
        let payout = payout.map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
        if payout.is_some() && !self.tills.contains_key(&Rail::Onchain) {
            let words = "this server has no Bitcoin node by which it could see payments to your wallet";
            return Err(Refusal::new(Code::Unavailable, words));
        }
        if let Some(payout) = &payout {
            self.payouts.insert(payout.profile(), payout.clone());
        }
        self.books.draft.handle_payout(now_ms, room, payout.map(|payout| payout.text()), by);
        Ok(())
    }

    pub(super) fn show_payout(&self, room: &RoomName) -> PayoutView {
        let (payout, lightning) = self.payout_of(room);
        let own = self.books.ledger.payout(room).is_some();
        let addresses =
            payout.iter().flat_map(|payout| (0..SHOWN_ADDRESSES).filter_map(|at| payout.address(at)));
        PayoutView {
            source: match (own, payout.is_some() || lightning) {
                (true, _) => "own",
                (false, true) => "house",
                (false, false) => "none",
            },
            addresses: addresses.collect(),
            descriptor: payout.filter(|_| own).map(|payout| payout.text()),
            lightning,
            simulated: self.simulated(),
        }
    }

    pub(super) fn show_webhook(&self, room: &RoomName) -> WebhookView {
        let hook = self.books.ledger.webhooks().find(|(of, _, _)| *of == room);
        WebhookView {
            url: hook.map(|(_, url, _)| url.to_owned()),
            secret: hook.map(|(_, _, change)| self.key.webhook_secret(room, change)),
        }
    }

    pub(super) fn show_invoice(
        &self,
        room: &RoomName,
        id: &InvoiceId,
    ) -> Result<(InvoiceView, Identity), Refusal> {
        let of_room = self.books.ledger.owner_of(id).is_some_and(|(of, _)| of.room == *room);
        let invoice = self.books.ledger.invoice(id).filter(|_| of_room);
        let invoice = invoice.ok_or_else(|| Refusal::new(Code::NotFound, "there is no such invoice"))?;
        Ok((InvoiceView::of(invoice), invoice.viewer.clone()))
    }

    pub(super) fn receipt(&self, room: &RoomName, id: &InvoiceId) -> Result<Receipt, Refusal> {
        let (view, viewer) = self.show_invoice(room, id)?;
        let (of, invoice) = (self.books.ledger.owner_of(id), self.books.ledger.invoice(id));
        let (Some((of, _)), Some(invoice)) = (of, invoice.filter(|invoice| invoice.settled)) else {
            return Err(Refusal::new(Code::NotFound, "there is no receipt: the invoice is not paid"));
        };
        Ok(Receipt { of: of.clone(), viewer, period: invoice.offer.period, invoice: view })
    }

    /// The latest first.
    pub(super) fn settled(&self, of: &Resource, viewer: &Identity) -> Vec<InvoiceId> {
        let account = self.books.ledger.account(of, viewer);
        let invoices = account.into_iter().flat_map(|account| account.invoices.values());
        let mut settled: Vec<_> = invoices.filter(|invoice| invoice.settled).collect();
        settled.sort_by_key(|invoice| std::cmp::Reverse(invoice.created_at_ms));
        settled.into_iter().map(|invoice| invoice.id.clone()).take(SHOWN_MAX).collect()
    }

    pub(super) fn subscribers(&self, room: &RoomName, now_ms: u64) -> Vec<SubscriberView> {
        let accounts = self.books.ledger.wares(room).flat_map(|of| {
            self.books.ledger.accounts(of).map(move |(viewer, account)| (of, viewer, account))
        });
        let views = accounts.filter_map(|(of, viewer, account)| {
            let subscription = self.books.ledger.subscription(of, viewer, now_ms)?;
            let mut invoices: Vec<_> = account.invoices.values().map(InvoiceView::of).collect();
            invoices.sort_by_key(|invoice| std::cmp::Reverse(invoice.created_at_ms));
            Some(SubscriberView { content: of.content.clone(), subscription, invoices })
        });
        let mut views: Vec<_> = views.collect();
        views.sort_by_key(|view| {
            std::cmp::Reverse(view.invoices.first().map(|invoice| invoice.created_at_ms))
        });
        views.truncate(SHOWN_MAX);
        views
    }

    pub(super) fn lay_hand(&mut self, now_ms: u64, hand: Hand, by: Identity) -> Result<(), Refusal> {
        match hand {
            Hand::Comp { of, viewer, period, reason } => {
                self.books.draft.handle_comp(now_ms, &of, &viewer, period, &reason, by)
            }
            Hand::Revoke { of, viewer, reason } => {
                self.books.draft.handle_revoke(now_ms, &of, &viewer, Some(&reason), by)
            }
            Hand::Restore { of, viewer } => self.books.draft.handle_revoke(now_ms, &of, &viewer, None, by),
            Hand::Mark { room, invoice, reason } => {
                self.books.draft.handle_mark(now_ms, &room, &invoice, &reason, by)
            }
        }
    }

    pub(super) fn simulate(
        &self,
        room: &RoomName,
        id: &InvoiceId,
        rail: Rail,
        sum: Msat,
        progress: Progress,
    ) -> Result<(), Refusal> {
        let wallet = self.tills.get(&rail).and_then(|till| till.simulated.clone());
        let wallet = wallet.ok_or_else(|| Refusal::new(Code::Forbidden, "money is real here: pay it"))?;
        let (view, _) = self.show_invoice(room, id)?;
        let (to, key) = match rail {
            Rail::Onchain => {
                // One made-up transaction an invoice and sum, so that confirming it again is the same.
                let outpoint = format!("simulated-{}-{}:0", id.as_str(), sum.0);
                (view.address, PaymentKey::Outpoint(outpoint))
            }
            Rail::Lightning => {
                (view.payment_hash.clone(), PaymentKey::PaymentHash(view.payment_hash.unwrap_or_default()))
            }
        };
        let to = to.ok_or_else(|| Refusal::new(Code::NotFound, "this invoice cannot be paid this way"))?;
        let paid = wallet.pay(&to, key, sum, progress);
        paid.map_err(|error| Refusal::new(Code::Malformed, error.to_string()))
    }
}
