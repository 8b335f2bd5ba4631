//! Gaps between two steps of a payment, at which a test ends the process. In a release build nothing of this
//! is left.
//!
//! From an order to its notice: `before invoice.created`, `after invoice.created`, `address.watched`,
//! `lightning.issued`, `before` and `after` each further kind of fact, `access.granted`, `notice of`
//! each kind.

use crate::core::event::{Event, EventBody};
use crate::core::ledger::Fact;

/// Ends the process as `kill -9` does, where `ANTIPHON_KILL_AT` names this gap.
#[cfg(debug_assertions)]
pub fn reach(gap: &str) {
    use std::sync::LazyLock;
    static KILL_AT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("ANTIPHON_KILL_AT").ok());
    if KILL_AT.as_deref() == Some(gap) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal may take a moment, in which nothing more is to happen on this thread.
        std::thread::park();
    }
}

#[cfg(not(debug_assertions))]
pub fn reach(_: &str) {}

/// The gap before or after each fact of a batch becomes durable.
pub fn reach_each(side: &str, batch: &[Event]) {
    if !cfg!(debug_assertions) {
        return;
    }
    for event in batch {
        if let EventBody::Ledger(fact) = &event.body {
            reach(&format!("{side} {}", fact.kind()));
        }
    }
}

/// The gap between a receiver's answer to the notice of a fact and the note of it.
pub fn reach_notice(fact: &Fact) {
    if cfg!(debug_assertions) {
        reach(&format!("notice of {}", fact.kind()));
    }
}
