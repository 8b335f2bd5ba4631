//! Three real nodes on a real Redis, with real clients: what each fault of the cluster's part of the fault
//! catalogue costs. Figures are printed as lines of JSON; docs/RELIABILITY.md has them.
//!
//! Leases are short here, so that a test takes seconds; `ANTIPHON_LEASE_MS=5000` measures what operators get.

mod faults;
mod history;
mod kafka;
mod nodes;
mod path;
mod placing;
mod redis;
mod relays;
mod stage;

use std::time::{Duration, Instant};

/// For whatever must happen, on a machine with much to do.
const LONG: Duration = Duration::from_secs(40);

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "not so after {LONG:?}: {what}");
        pause();
    }
    began.elapsed()
}

/// Between two looks at what another process does; nothing here could wake us.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}
