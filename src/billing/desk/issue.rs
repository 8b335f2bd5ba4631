//! From an order to an invoice that can be paid: address and hash in one durable fact, then the wallets.
//!
//! Killed before the fact, nothing was promised; killed after it, the next start asks the wallets again for
//! the same. A Lightning node that is away leaves the address, and is asked again until the invoice is
//! over.

use std::sync::Arc;
use std::time::Duration;

use super::{Ask, Desk, Outcome, Waiting};
use crate::billing::wallet::{Bill, Issued, Target, Wallet};
use crate::billing::{Challenge, Payout, gap};
use crate::control::unix_ms;
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{
    Address, InvoiceId, InvoiceState, InvoiceView, MSAT_PER_SAT, Order, Price, Rail, Resource,
};
use crate::core::refusal::{Code, Refusal};

/// How long whoever asks waits for the Lightning node before it is shown the address alone.
const ISSUE_WITHIN: Duration = Duration::from_secs(3);
/// How often an absent Lightning node is asked again.
const ISSUE_AGAIN: Duration = Duration::from_secs(5);

impl Desk {
    /// Where a room's money goes: as its owner said, else to the operator.
    pub(super) fn payout_of(&self, room: &RoomName) -> (Option<Payout>, bool) {
        let own = self.books.ledger.payout(room).and_then(|text| Payout::parse(text, self.network).ok());
        let takes = |rail| self.tills.contains_key(&rail);
        match own {
            Some(own) => (Some(own).filter(|_| takes(Rail::Onchain)), false),
            None => (self.house.clone().filter(|_| takes(Rail::Onchain)), takes(Rail::Lightning)),
        }
    }

    /// Makes the viewer's invoice, or finds it. `pay_until_ms` gives it more time than its offer does.
    pub(super) fn order(
        &mut self,
        of: &Resource,
        viewer: &Identity,
        pay_until_ms: Option<u64>,
    ) -> Result<InvoiceId, Refusal> {
        let now_ms = unix_ms();
        if let Some(open) = self.books.draft.payable(of, viewer, now_ms) {
            return Ok(open.id.clone());
        }
        let (payout, lightning) = self.payout_of(&of.room);
        if payout.is_none() && !lightning {
            return Err(no_payout());
        }
        let id = InvoiceId::new(rand::random());
        let address = payout.map(|payout| {
            let profile = payout.profile();
            let index = self.books.draft.next_index(&profile);
            let made =
                payout.address(index).map(|address| Address { profile: profile.clone(), index, address });
            self.payouts.insert(profile, payout);
            made.ok_or_else(|| Refusal::new(Code::Unavailable, "the payout has no addresses left"))
        });
        let rate = match self.books.draft.offer(of).map(|offer| &offer.price) {
            Some(Price::Fiat { currency, .. }) => self.rates.rate(currency),
            _ => None,
        };
        let order = Order {
            payment_hash: lightning.then(|| self.key.preimage(&id).payment_hash()),
            id,
            of: of.clone(),
            viewer: viewer.clone(),
            rate,
            address: address.transpose()?,
            pay_until_ms,
        };
        self.books.draft.handle_order(now_ms, order)
    }

    /// Asks the wallets to be ready for an invoice that is durable, from a task.
    pub(super) fn issue(&self, id: &InvoiceId) {
        let Some(invoice) = self.books.ledger.invoice(id) else { return };
        let expires_in_s = invoice.expires_at_ms.saturating_sub(unix_ms()) / 1_000;
        // Credit may have paid it all; an invoice for nothing would take any sum.
        let asks =
            invoice.state() == InvoiceState::New && invoice.asked.0 >= MSAT_PER_SAT && expires_in_s > 0;
        let lightning = invoice.payment_hash.is_some() && invoice.bolt11.is_none() && asks;
        let what = self.books.ledger.owner_of(id).map(|(of, _)| of.to_string()).unwrap_or_default();
        let bill =
            |target| Bill { target, sum: invoice.asked, expires_in_s, memo: format!("Access to {what}") };
        let till = |rail| self.tills.get(&rail).map(|till| Arc::clone(&till.wallet));
        if let (Some(at), Some(wallet)) = (&invoice.address, till(Rail::Onchain))
            && let Some(payout) = self.payouts.get(&at.profile).cloned()
        {
            let bill = bill(Target::Onchain { payout, index: at.index });
            tokio::spawn(async move {
                match wallet.issue(&bill).await {
                    Ok(_) => gap::reach("address.watched"),
                    // The watcher sees to it as soon as the node is there.
                    Err(error) => tracing::warn!(%error, "an address is not watched yet"),
                }
            });
        }
        let target = Target::Lightning { preimage: self.key.preimage(id) };
        match till(Rail::Lightning).filter(|_| lightning) {
            Some(wallet) => {
                tokio::spawn(offer_lightning(wallet, bill(target), id.clone(), self.asks.clone()));
            }
            None => {
                // No answer is waited for.
                let _ = self.asks.send(Ask::Offered { invoice: id.clone(), bolt11: None });
            }
        }
    }

    /// Goes on with what an earlier process left between two steps.
    pub(super) fn resume_issuing(&self) {
        let undone = self.books.ledger.invoices().filter(|invoice| {
            invoice.payment_hash.is_some() && invoice.bolt11.is_none() && invoice.state() == InvoiceState::New
        });
        for invoice in undone {
            self.issue(&invoice.id);
        }
    }

    /// Paid on-chain, an invoice is not to be paid by Lightning as well.
    pub(super) fn cancel_lightning(&self, id: &InvoiceId) {
        let Some(invoice) = self.books.ledger.invoice(id) else { return };
        let paid = invoice.payments.keys().any(|key| key.rail() == Some(Rail::Lightning));
        if let (Some(hash), Some(till)) = (invoice.payment_hash.clone(), self.tills.get(&Rail::Lightning))
            && !paid
        {
            let wallet = Arc::clone(&till.wallet);
            tokio::spawn(async move {
                // At worst it is paid twice, which is credit.
                let _ = wallet.cancel(&hash).await;
            });
        }
    }

    /// Answers all who wait for an invoice.
    pub(super) fn answer_waiting(&mut self, invoice: &InvoiceId) {
        for Waiting { viewer, reply } in self.waiting.remove(invoice).unwrap_or_default() {
            let outcome = Outcome::Asked { viewer, invoice: invoice.clone() };
            // Who asked may have gone away.
            let _ = reply.send(Ok(self.done(outcome)));
        }
    }

    pub(super) fn challenge(
        &self,
        of: &Resource,
        viewer: &Identity,
        invoice: &InvoiceId,
        is_new: bool,
    ) -> Result<Challenge, Refusal> {
        let gone = || Refusal::new(Code::NotFound, "there is no such invoice");
        let invoice = self.books.ledger.invoice(invoice).ok_or_else(gone)?;
        let view = InvoiceView::of(invoice);
        let hash = invoice.payment_hash.as_deref().filter(|_| invoice.bolt11.is_some());
        Ok(Challenge {
            uri: view.uri(),
            invoice: view,
            offer: invoice.offer.clone(),
            viewer: viewer.clone(),
            claim: is_new.then(|| self.key.claim(of, viewer)),
            subscription: self.books.ledger.subscription(of, viewer, unix_ms()),
            simulated: self.simulated(),
            macaroon: hash.and_then(|hash| self.key.l402(of, hash)),
        })
    }
}

/// Asks the Lightning node until it has the invoice or its time is over. The first answer, or a few seconds
/// without one, lets whoever waits go on.
async fn offer_lightning(
    wallet: Arc<dyn Wallet>,
    bill: Bill,
    invoice: InvoiceId,
    asks: crate::mailbox::ControlSender<Ask>,
) {
    let mut was_told = false;
    let over = tokio::time::Instant::now() + Duration::from_secs(bill.expires_in_s);
    loop {
        let left = over.saturating_duration_since(tokio::time::Instant::now());
        let bill = Bill { expires_in_s: left.as_secs().max(1), ..bill.clone() };
        let issued = tokio::time::timeout(ISSUE_WITHIN, wallet.issue(&bill)).await;
        let bolt11 = match issued {
            Ok(Ok(Issued::Bolt11(bolt11))) => {
                gap::reach("lightning.issued");
                Some(bolt11)
            }
            Ok(Ok(Issued::Watched)) => None,
            Ok(Err(error)) => {
                if !std::mem::replace(&mut was_told, true) {
                    tracing::warn!(%error, "no Lightning invoice; it is asked for again");
                }
                None
            }
            Err(_) => None,
        };
        let done = bolt11.is_some();
        if asks.send_when_free(Ask::Offered { invoice: invoice.clone(), bolt11 }).await.is_err()
            || done
            || left.is_zero()
        {
            return;
        }
        tokio::time::sleep(ISSUE_AGAIN).await;
    }
}

pub(super) fn no_payout() -> Refusal {
    Refusal::new(
        Code::PayoutMissing,
        "nobody has said where the money is to go: set the room's payout first, with a public descriptor of your \
         own wallet",
    )
}
