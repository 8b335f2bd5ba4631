//! Renewals: an invoice for the next period before the old one ends, paid from credit where that is enough,
//! and else told to its viewer in the room.

use super::Desk;
use crate::control::unix_ms;
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{InvoiceId, InvoiceView};
use crate::core::protocol::ServerMessage;

impl Desk {
    /// Begins the renewals that are due. One that cannot be sold now, for want of a rate or payout, is tried
    /// again until its period is over.
    pub(super) async fn renew_due(&mut self) {
        for due in self.books.draft.due_renewals(unix_ms()) {
            match self.order(&due.of, &due.viewer, due.pay_until_ms) {
                Ok(invoice) => {
                    self.books.draft.handle_due(unix_ms(), &due, &invoice);
                    if self.commit().await.is_err() {
                        return;
                    }
                    let waits =
                        self.books.ledger.invoice(&invoice).is_some_and(|known| known.bolt11.is_none());
                    if waits && !self.waiting.contains_key(&invoice) {
                        self.issue(&invoice);
                    }
                }
                Err(refusal) => {
                    tracing::debug!(code = refusal.code.as_str(), "a renewal cannot be asked for now");
                }
            }
        }
    }

    /// Tells a viewer in the room that its time ends, and what to pay for more.
    pub(super) fn remind(&self, room: &RoomName, viewer: &Identity, ends_at_ms: u64, invoice: &InvoiceId) {
        let Some(invoice) = self.books.ledger.invoice(invoice).map(InvoiceView::of) else { return };
        let (control, room, viewer) = (self.control.clone(), room.clone(), viewer.clone());
        let message = ServerMessage::RenewalDue {
            invoice: invoice.id.as_str().to_owned(),
            amount_sat: invoice.amount_sat,
            ends_at_ms,
        };
        tokio::spawn(async move {
            // Who is not in the room is told by its owner's webhook, and at the door.
            let _ = control.tell_participant(&room, &viewer, &message).await;
        });
    }
}
