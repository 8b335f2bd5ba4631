//! Who may come into a room that costs money, and what the others are asked for.

use std::net::IpAddr;
use std::time::Instant;

use rand::RngExt as _;

use super::{ASKER_WINDOW, ASKERS_MAX, Desk, Stay, Waiting};
use crate::billing::{Admission, Payer, Reply, gap};
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
    pub(super) async fn admit(
        &mut self,
        of: Resource,
        payer: Payer,
        from: IpAddr,
        new: bool,
        reply: Reply<Admission>,
    ) {
        let is_guest = matches!(payer, Payer::Guest);
        let viewer = match self.viewer(&of, payer) {
            Ok(viewer) => viewer,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        if !is_guest && of.is_live() {
            self.try_out(&of.room, &viewer, from);
        }
        let now_ms = unix_ms();
        if !new && let Some(entitled) = self.ledger.entitlement(&of, &viewer, now_ms) {
            self.commit().await;
            let until_ms = entitled.until_ms;
            gap::reach("access.granted");
            if of.is_live() {
                self.inside.insert((of.room, viewer.clone()), Stay::Entitled);
            }
            return drop(reply.send(Ok(Admission::Entitled { viewer, until_ms })));
        }
        if let Some(reason) = self.ledger.account(&of, &viewer).and_then(|known| known.revoked.as_ref()) {
            let words = format!("the owner has taken your access away: {reason}");
            return drop(reply.send(Err(Refusal::new(Code::Forbidden, words))));
        }
        if is_guest
            && !new
            && let Some((viewer, until_ms)) = self.preview(&of, &viewer, from, now_ms)
        {
            let lowest = self.ledger.offer(&of).is_some_and(|offer| offer.preview_lowest);
            self.inside.insert((of.room, viewer.clone()), Stay::Preview(until_ms));
            return drop(reply.send(Ok(Admission::Preview { viewer, until_ms, lowest })));
        }
        if let Err(refusal) = self.ask_for(&of, &viewer, from) {
            return drop(reply.send(Err(refusal)));
        }
        let ordered = self.order(&of, &viewer, None);
        self.commit().await;
        match ordered {
            Ok(invoice) => {
                let fresh = !self.waiting.contains_key(&invoice);
                let known = self.ledger.invoice(&invoice);
                let ready = known.is_some_and(|known| known.bolt11.is_some() || known.payment_hash.is_none());
                let waiting = Waiting { of, viewer, is_guest, reply };
                self.waiting.entry(invoice.clone()).or_default().push(waiting);
                if ready {
                    self.answer_waiting(&invoice);
                } else if fresh {
                    self.issue(&invoice);
                }
            }
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    /// Who the payer is. A guest becomes somebody new.
    fn viewer(&self, of: &Resource, payer: Payer) -> Result<Identity, Refusal> {
        match payer {
            Payer::Known(identity) => Ok(identity),
            Payer::L402(token) => {
                let hash = self.key.paid_hash(&token, of, unix_ms());
                let invoice = hash.and_then(|hash| self.ledger.invoice_of_hash(&hash));
                let paid = invoice.filter(|invoice| {
                    let for_it = self.ledger.owner_of(&invoice.id).is_some_and(|(bought, _)| bought == of);
                    for_it && invoice.received() > 0
                });
                let words =
                    "the L402 token is not good here: for something else, forged, or its invoice is not paid";
                paid.map(|paid| paid.viewer.clone()).ok_or_else(|| Refusal::new(Code::Unauthorized, words))
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
            self.ledger.handle_trial(unix_ms(), room, viewer);
            let account = self.ledger.account(&room.clone().into(), viewer);
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
        let offer = self.ledger.offer(of)?;
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
        if self.ledger.payable(of, viewer, unix_ms()).is_some() {
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
fn new_viewer() -> Identity {
    let random: u64 = rand::rng().random();
    Identity::parse(&format!("{VIEWER}{random:016x}")).expect("a plain word")
}
