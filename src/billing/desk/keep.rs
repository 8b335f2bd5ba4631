//! Taking the ledger over, and letting it go.
//!
//! Who has the lease writes that it opened the ledger under the lease's epoch. Once that is read back, all
//! that was written before is known and nothing that others write later counts: it watches the wallets, goes
//! on with what was left between two steps, and tells owners' servers from where they were. Who loses the
//! lease, or whose facts the log passes over, forgets what is not in the log and follows again.

use std::sync::Arc;

use super::{Ask, Desk, start};
use crate::billing::wish::Declined;
use crate::control::unix_ms;
use crate::core::ids::{NodeId, RoomName};
use crate::core::ledger::{Fact, Ledger, Step};
use crate::events::LogError;

/// Ticks, ten seconds of them, for which a node with another secret than the last keeper's leaves the
/// ledger to others.
const STRANGER_WAITS: u32 = 20;

impl Desk {
    /// Sees whether this node has the ledger's lease, and whether nobody has.
    pub(super) async fn look_after_lease(&mut self) {
        let step = self.keeping.handle_lease(self.control.ledger_epoch());
        match step {
            Some(Step::Open(epoch)) => self.open(epoch),
            Some(Step::StepDown) => self.step_down().await,
            None => {}
        }
        if self.control.ledger_epoch().is_none() && !self.tills.is_empty() {
            self.claim();
        }
    }

    /// Tries for the lease, from a task: the registry may take its time.
    fn claim(&mut self) {
        if self.claiming.as_ref().is_some_and(|claiming| !claiming.is_finished()) {
            return;
        }
        if let Some((node, key)) = &self.books.opened
            && *key != self.key.fingerprint()
        {
            if self.strange_ticks == 0 {
                tracing::error!(
                    keeper = %node,
                    "this node's payments.key is not that of the node that kept the ledger last: what one sold the \
                     other does not know; give all nodes the same"
                );
            }
            self.strange_ticks += 1;
            if self.strange_ticks < STRANGER_WAITS {
                return;
            }
        }
        let control = self.control.clone();
        self.claiming = Some(tokio::spawn(async move {
            if let Err(refusal) = control.claim_ledger().await {
                tracing::debug!(code = refusal.code.as_str(), "nobody can say who keeps the ledger");
            }
        }));
    }

    fn open(&self, epoch: u64) {
        let node = NodeId::parse(self.control.node_id()).expect("a node's own name");
        let fact = Fact::LedgerOpened { epoch, node, key: self.key.fingerprint() };
        let event = fact.into_event(RoomName::ledger(), unix_ms());
        let (events, asks) = (self.events.clone(), self.asks.clone());
        tokio::spawn(async move {
            let opened = events.append_durably(vec![event]).await.map(drop);
            // The loop is gone only with the node.
            let _ = asks.send_when_free(Ask::Opened { epoch, opened }).await;
        });
    }

    pub(super) async fn handle_opened(&mut self, epoch: u64, opened: Result<(), LogError>) {
        match opened {
            Ok(()) if self.catch_up().await => {
                if self.keeping.handle_opened(epoch) {
                    tracing::info!(epoch, facts = self.books.facts, "this node keeps the ledger");
                    metrics::counter!("antiphon_ledger_takeovers_total").increment(1);
                    self.begin();
                }
            }
            // The log does not have it, or cannot be read: another node may try.
            Ok(()) => {
                self.control.release_ledger();
                self.lose().await;
            }
            Err(error) => {
                tracing::warn!(epoch, %error, "the ledger could not be opened");
                if error != LogError::Fenced {
                    self.control.release_ledger();
                }
                self.lose().await;
            }
        }
    }

    /// Begins to keep the ledger, all of which is known.
    pub(super) fn begin(&mut self) {
        metrics::gauge!("antiphon_ledger_keeper").set(1.0);
        self.books.forget_draft();
        self.remember_payouts();
        self.publish_prices();
        self.watch();
        self.publish_hooks();
        for (rail, till) in &self.tills {
            let watching = self.watched.subscribe();
            let follow = start::follow(*rail, Arc::clone(&till.wallet), watching, self.asks.clone());
            self.watchers.push(tokio::spawn(follow));
        }
        self.resume_issuing();
    }

    /// Another node's word counts.
    pub(super) async fn lose(&mut self) {
        self.control.ledger_fenced();
        if self.keeping.handle_fenced().is_some() {
            self.step_down().await;
        }
    }

    async fn step_down(&mut self) {
        tracing::info!("this node does not keep the ledger any more");
        metrics::gauge!("antiphon_ledger_keeper").set(0.0);
        for watcher in self.watchers.drain(..) {
            watcher.abort();
        }
        self.told.clear();
        self.publish_hooks();
        for waiting in std::mem::take(&mut self.waiting).into_values().flatten() {
            // It is asked again where the ledger is kept.
            let _ = waiting.reply.send(Err(Declined::NotHere));
        }
        self.books.draft = Ledger::default();
        self.catch_up().await;
        self.publish_prices();
    }
}
