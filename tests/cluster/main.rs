//! Three real nodes on a real Redis, with real clients: what each fault of the cluster's part of the fault
//! catalogue costs. Figures are printed as lines of JSON; docs/RELIABILITY.md has them.
//!
//! Leases are short here, so that a test takes seconds; `ANTIPHON_LEASE_MS=5000` measures what operators get.
//! Something is away for seconds, too: `ANTIPHON_AWAY_S` says for how many. `make test-faults` sets both.

mod breakers;
mod clocks;
mod crowd;
mod faults;
mod history;
mod kafka;
mod lodgers;
mod members;
mod network;
mod nodes;
mod outages;
mod partitions;
mod path;
mod placing;
mod redis;
mod relays;
mod stage;
mod traces;
mod versions;

use std::time::{Duration, Instant};

/// For whatever must happen, on a machine with much to do.
const LONG: Duration = Duration::from_secs(60);

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

/// For how long something is away.
fn away() -> Duration {
    let seconds = std::env::var("ANTIPHON_AWAY_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// What a promise of time is held to: by `make test-faults`, which runs one test at a time, as it stands;
/// beside other tests on the same cores, twice that.
fn bound(promise: Duration) -> Duration {
    if std::env::var_os("ANTIPHON_AWAY_S").is_some() { promise } else { promise * 2 }
}

/// Between two looks at what another process does; nothing here could wake us.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}
