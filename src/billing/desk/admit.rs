//! Who may come into a room that costs money, and what the others are asked for.

use std::net::IpAddr;
use std::time::Instant;

use rand::RngExt as _;

use super::{ASKER_WINDOW, ASKERS_MAX, Desk, Outcome, Waiting, WishReply};
use crate::billing::wish::Declined;
use crate::billing::{Admission, Payer, Stay, gap};
use crate::control::unix_ms;
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::Resource;
use crate::core::refusal::{Code, Refusal};

/// How the names of those begin who came without a token.
const VIEWER: &str = "viewer-";
/// Looks into rooms that are remembered. Full: nobody new looks in for free.
const PREVIEWS_MAX: usize = 65_536;
/// A look without a length of its own ends after a day, milliseconds.
const LOOK_MS: u64 = 24 * 60 * 60 * 1_000;

impl Desk {
    /// Lets who is entitled in. What is known here is enough for that, whoever keeps the ledger.
    pub(super) fn enter(&mut self, of: Resource, payer: Payer) -> Result<Option<Admission>, Refusal> {
        let viewer = match self.viewer(&of, payer) {
            Ok(viewer) => viewer,
            // The keeper may know more.
            Err(_) if !self.keeping.may_write() => return Ok(None),
            Err(refusal) => return Err(refusal),
        };
        let Some(entitled) = self.books.ledger.entitlement(&of, &viewer, unix_ms()) else { return Ok(None) };
        gap::reach("access.granted");
        if of.is_live() {
            self.inside.insert((of.room, viewer.clone()), Stay::Entitled);
        }
        Ok(Some(Admission::Entitled { viewer, until_ms: entitled.until_ms }))
    }

    /// Says who the payer is to the ledger, and what it is to pay.
    pub(super) async fn admit(
        &mut self,
        of: Resource,
        payer: Payer,
        from: IpAddr,
        more: bool,
        reply: WishReply,
    ) {
        let is_guest = matches!(payer, Payer::Guest | Payer::New(_));
        let known = self.admitted(&of, payer, from, (is_guest, more));
        let ordered = known.and_then(|(viewer, known)| match known {
            Some(outcome) => Ok((viewer, Err(outcome))),
            None => self.order(&of, &viewer, None).map(|invoice| (viewer, Ok(invoice))),
        });
        let kept = self.commit().await;
        let (viewer, invoice) = match kept.and(ordered.map_err(Declined::from)) {
            Ok((viewer, Ok(invoice))) => (viewer, invoice),
            Ok((_, Err(outcome))) => return drop(reply.send(Ok(self.done(outcome)))),
            Err(declined) => return drop(reply.send(Err(declined))),
        };
        let fresh = !self.waiting.contains_key(&invoice);
        let known = self.books.ledger.invoice(&invoice);
        let ready = known.is_some_and(|known| known.bolt11.is_some() || known.payment_hash.is_none());
        self.waiting.entry(invoice.clone()).or_default().push(Waiting { viewer, reply });
        if ready {
            self.answer_waiting(&invoice);
        } else if fresh {
            self.issue(&invoice);
        }
    }

    /// The payer's name, and what it may do without paying, if anything.
    fn admitted(
        &mut self,
        of: &Resource,
        payer: Payer,
        from: IpAddr,
        (is_guest, more): (bool, bool),
    ) -> Result<(Identity, Option<Outcome>), Refusal> {
        let viewer = self.viewer(of, payer)?;
        if !is_guest && of.is_live() {
            self.try_out(&of.room, &viewer, from);
        }
        let now_ms = unix_ms();
        if !more && let Some(entitled) = self.books.draft.entitlement(of, &viewer, now_ms) {
            gap::reach("access.granted");
            let outcome = Outcome::Entitled { viewer: viewer.clone(), until_ms: entitled.until_ms };
            return Ok((viewer, Some(outcome)));
        }
        if let Some(reason) = self.books.draft.account(of, &viewer).and_then(|known| known.revoked.as_ref()) {
            let words = format!("the owner has taken your access away: {reason}");
            return Err(Refusal::new(Code::Forbidden, words));
        }
        if is_guest
            && !more
            && let Some((viewer, until_ms)) = self.preview(of, &viewer, from, now_ms)
        {
            let lowest = self.books.draft.offer(of).is_some_and(|offer| offer.preview_lowest);
            return Ok((viewer.clone(), Some(Outcome::Preview { viewer, until_ms, lowest })));
        }
        self.ask_for(of, &viewer, from)?;
        Ok((viewer, None))
    }

    /// Who the payer is. A guest becomes somebody new.
    fn viewer(&self, of: &Resource, payer: Payer) -> Result<Identity, Refusal> {
        match payer {
            Payer::Known(identity) | Payer::New(identity) => Ok(identity),
            Payer::L402(token) => {
                let ledger = &self.books.ledger;
                let hash = self.key.paid_hash(&token, of, unix_ms());
                let invoice = hash.and_then(|hash| ledger.invoice_of_hash(&hash));
                let paid = invoice.filter(|invoice| {
                    let for_it = ledger.owner_of(&invoice.id).is_some_and(|(bought, _)| bought == of);
                    for_it && invoice.received() > 0
                });
                let words =
                    "the L402 token is not good here: for something else, forged, or its invoice is not paid";
                paid.map(|paid| paid.viewer.clone()).ok_or_else(|| {
                    crate::billing::refused("l402");
                    Refusal::new(Code::Unauthorized, words)
                })
            }
            Payer::Guest => Ok(new_viewer()),
        }
    }

    /// Starts a viewer's trial. Whoever has no token of its own is somebody new as often as it likes, so those have
    /// one for each address.
    fn try_out(&mut self, room: &RoomName, viewer: &Identity, from: IpAddr) {
        let anonymous = viewer.as_str().starts_with(VIEWER);
        let key = (room.clone(), from);
        if !anonymous || (self.trials.len() < PREVIEWS_MAX && !self.trials.contains(&key)) {
            self.books.draft.handle_trial(unix_ms(), room, viewer);
            let account = self.books.draft.account(&room.clone().into(), viewer);
            let started = account.is_some_and(|account| account.trial.is_some());
            if anonymous && started {
                self.trials.insert(key);
            }
        }
    }

    /// A look into the room for whoever comes from this address: once where it is for some time, else as
    /// often as it likes, each a day long.
    fn preview(
        &mut self,
        of: &Resource,
        viewer: &Identity,
        from: IpAddr,
        now_ms: u64,
    ) -> Option<(Identity, u64)> {
        let offer = self.books.draft.offer(of)?;
        let key = (of.room.clone(), from);
        if offer.preview_seconds == 0 {
            let fits = offer.preview_lowest && self.inside.len() < PREVIEWS_MAX;
            return fits.then(|| (viewer.clone(), now_ms.saturating_add(LOOK_MS)));
        }
        if self.previews.len() >= PREVIEWS_MAX && !self.previews.contains_key(&key) {
            return None;
        }
        let until_ms = now_ms.saturating_add(offer.preview_seconds * 1_000);
        let (viewer, until_ms) =
            self.previews.entry(key).or_insert_with(|| (viewer.clone(), until_ms)).clone();
        (now_ms < until_ms).then_some((viewer, until_ms))
    }

    /// Counts a wish for an invoice against its address.
    fn ask_for(&mut self, of: &Resource, viewer: &Identity, from: IpAddr) -> Result<(), Refusal> {
        if self.books.draft.payable(of, viewer, unix_ms()).is_some() {
            return Ok(());
        }
        let over = self.askers_since.elapsed() >= ASKER_WINDOW;
        if over || (self.askers.len() >= ASKERS_MAX && !self.askers.contains_key(&from)) {
            self.askers.clear();
            self.askers_since = Instant::now();
        }
        let count = self.askers.entry(from).or_default();
        *count += 1;
        if *count > self.invoices_per_address {
            metrics::counter!("antiphon_invoices_refused_total").increment(1);
            let words = "too many invoices were asked for from your address: pay one, or wait an hour";
            return Err(Refusal::new(Code::RateLimited, words));
        }
        Ok(())
    }
}

/// Such as `viewer-1f0a…`: 64 random bits.
pub fn new_viewer() -> Identity {
    let random: u64 = rand::rng().random();
    Identity::parse(&format!("{VIEWER}{random:016x}")).expect("a plain word")
}
