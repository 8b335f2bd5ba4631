//! The ledger as the fold of its facts in the log, and how far it has read them.
//!
//! What anybody is told comes from durable facts alone. A keeper makes facts from a draft, in which its own
//! are folded as they are made; when they turn out not to be kept, the draft is forgotten. A node that
//! follows folds what it reads and has no draft. All facts have one order, so their number tells how far a
//! node is to others.

use super::Desk;
use crate::core::event::{Appended, Event, EventBody};
use crate::core::ids::NodeId;
use crate::core::ledger::{Fact, Ledger};
use crate::events::LogError;
use crate::events::writer::EventWriter;

/// Facts in one page while the ledger is read.
const PAGE: u32 = 500;

/// The ledger, and its place in the log.
#[derive(Default)]
pub(super) struct Books {
    pub ledger: Ledger,
    /// The same and what is not durable yet, for making facts; empty where others do.
    pub draft: Ledger,
    /// How many facts it is made of that are durable.
    pub facts: u64,
    /// Behind the last of them in this node's log.
    after: u64,
    /// Who opened the ledger last, and the fingerprint of its secret.
    pub opened: Option<(NodeId, String)>,
}

impl Books {
    /// All that the log has.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn read(events: &EventWriter) -> Result<Self, LogError> {
        let mut books = Self::default();
        while !books.read_page(events).await?.is_empty() {}
        Ok(books)
    }

    /// Folds the next facts, and says which; none at the end.
    ///
    /// # Errors
    /// The log cannot be read.
    async fn read_page(&mut self, events: &EventWriter) -> Result<Vec<Event>, LogError> {
        let mut folded = Vec::new();
        for recorded in events.ledger(self.after, PAGE).await? {
            (self.after, self.facts) = (recorded.offset, self.facts + 1);
            self.fold(&recorded.event);
            folded.push(recorded.event);
        }
        Ok(folded)
    }

    fn fold(&mut self, event: &Event) {
        let EventBody::Ledger(fact) = &event.body else { return };
        self.ledger.restore(&event.room, event.at_ms, fact);
        if let Fact::LedgerOpened { node, key, .. } = &**fact {
            self.opened = Some((node.clone(), key.clone()));
        }
    }

    /// Facts of the draft are durable now.
    pub fn note(&mut self, batch: &[Event], appended: &[Appended]) {
        batch.iter().for_each(|event| self.fold(event));
        for appended in appended {
            self.facts += u64::from(appended.is_new);
            self.after = self.after.max(appended.offset);
        }
    }

    /// Makes facts from what is durable, from now on.
    pub fn forget_draft(&mut self) {
        self.draft = self.ledger.clone();
    }
}

impl Desk {
    /// Folds what other nodes wrote, and tells what follows from it here.
    pub(super) async fn follow_others(&mut self) {
        // Who keeps the ledger reads its own.
        if !self.keeping.may_write() {
            self.catch_up().await;
        }
    }

    /// Folds all that the log has. False where it cannot be read now: it is tried again with the next facts.
    pub(super) async fn catch_up(&mut self) -> bool {
        let mut is_first = true;
        loop {
            let page = match self.books.read_page(&self.events).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "facts about money cannot be read now");
                    return false;
                }
            };
            if page.is_empty() {
                break;
            }
            is_first = false;
            for event in &page {
                let EventBody::Ledger(fact) = &event.body else { continue };
                self.tell(&event.room, fact);
            }
        }
        if !is_first {
            self.publish_prices();
            self.put_out(crate::control::unix_ms());
            // After the prices: who waits for a fact to be known here relies on them.
            self.followed.send_replace(self.books.facts);
            metrics::gauge!("antiphon_ledger_facts").set(self.books.facts as f64);
        }
        true
    }
}
