//! The lease of the ledger: of the nodes of a cluster one at a time keeps it, as one holds a room.
//!
//! A node that is alone needs no lease and is never asked here.

use super::Control;
use super::home::unplaced;
use super::placement::unix_ms;
use crate::cluster::{Home, Placed};
use crate::core::ids::RoomName;
use crate::core::refusal::Refusal;

/// What goes with the lease in the registry: nothing is to be known of it but who has it.
const SETTINGS: &str = "{}";

impl Control {
    /// There are no other nodes.
    pub fn is_alone(&self) -> bool {
        self.cluster.is_alone()
    }

    /// The epoch under which this node has the ledger's lease.
    pub fn ledger_epoch(&self) -> Option<u64> {
        self.cluster.epoch(&RoomName::ledger())
    }

    /// Takes the ledger's lease, where nobody has it.
    ///
    /// # Errors
    /// `unavailable`, while nobody can say.
    pub async fn claim_ledger(&self) -> Result<(), Refusal> {
        let ledger = RoomName::ledger();
        if self.cluster.is_draining() || self.ledger_epoch().is_some() {
            return Ok(());
        }
        let _claiming = self.cluster.claiming(&ledger).await;
        // A log that cannot be read keeps nobody from it; the time is above all it has.
        let floor = self.events.last_epoch(ledger.clone()).await.unwrap_or_else(|_| unix_ms());
        if let Placed::Here(won) = self.cluster.place(&ledger, floor, false).await.map_err(unplaced)? {
            self.cluster.opened(&ledger, &won, SETTINGS.to_owned());
        }
        Ok(())
    }

    /// Where clients reach the node that keeps the ledger; `None` where that is this one or none.
    ///
    /// # Errors
    /// `unavailable`, while nobody can say.
    pub async fn ledger_home(&self) -> Result<Option<String>, Refusal> {
        Ok(match self.cluster.home(&RoomName::ledger()).await.map_err(unplaced)? {
            Home::Elsewhere(url) => Some(url),
            Home::Here | Home::Nowhere { .. } => None,
        })
    }

    /// The log says that another node keeps the ledger.
    pub fn ledger_fenced(&self) {
        self.cluster.fenced(&RoomName::ledger());
    }

    /// Lets the ledger go, so that another node can take it at once.
    pub fn release_ledger(&self) {
        if let Some(epoch) = self.ledger_epoch() {
            self.cluster.give_up(&RoomName::ledger(), epoch, false);
        }
    }
}
