//! When a restream that failed is tried again: later each time, and not all at once.

use std::time::Duration;

const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A publication that lasted so long had no fault that it was born with.
const SOUND_AFTER: Duration = Duration::from_secs(30);
/// In a row. The server does not want it.
const FAILURES_MAX: u32 = 20;

/// See the module. One for each restream.
#[derive(Debug, Default)]
pub struct Retry {
    failures: u32,
}

impl Retry {
    /// It ended after it had been live for `lived`. Says when to try again; `None`: not any more. `random` is
    /// uniform in 0–1.
    pub fn next(&mut self, lived: Option<Duration>, random: f64) -> Option<Duration> {
        if lived.is_some_and(|lived| lived >= SOUND_AFTER) {
            self.failures = 0;
        }
        self.failures += 1;
        if self.failures > FAILURES_MAX {
            return None;
        }
        let most = WAIT_MIN.saturating_mul(1 << (self.failures - 1).min(16)).min(WAIT_MAX);
        // Half of it for certain, the other half by chance: those that failed together part.
        Some(most / 2 + (most / 2).mul_f64(random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_part_and_end() {
        let mut retry = Retry::default();
        let waits: Vec<f64> = (0..8).map(|_| retry.next(None, 1.0).unwrap().as_secs_f64()).collect();
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(Retry::default().next(None, 0.0), Some(Duration::from_millis(500)));
        let ended = (0..12).map(|_| retry.next(None, 0.5)).collect::<Vec<_>>();
        assert!(ended.iter().all(Option::is_some) && retry.next(None, 0.5).is_none());
    }

    #[test]
    fn one_that_lived_begins_anew() {
        let mut retry = Retry::default();
        (0..10).for_each(|_| assert!(retry.next(Some(Duration::from_secs(1)), 0.5).is_some()));
        assert_eq!(retry.next(Some(Duration::from_secs(31)), 1.0), Some(Duration::from_secs(1)));
    }
}
