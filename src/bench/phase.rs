//! When senders send within the time of one picture or one packet of sound: each at a moment of its own.
//!
//! Cameras do not know of each other. A load tool that lets publishers in at a steady rate, and lets each
//! begin once it is connected, has them all in step wherever that rate divides their own: 30 pictures at
//! once and then a thirtieth of a second of rest, which is another load than 30 senders are.

use std::time::{Duration, Instant};

/// Of all fractions the one whose multiples lie the most evenly in a circle.
const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;

/// A place within an interval that comes again and again.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    base: Instant,
    offset: Duration,
    interval: Duration,
}

impl Phase {
    /// That of one of many senders, counted from `base`, which all of them share.
    pub fn of(sender: u32, base: Instant, interval: Duration) -> Self {
        Self { base, offset: interval.mul_f64((f64::from(sender) * GOLDEN_RATIO).fract()), interval }
    }

    /// The next time it comes, from `now` on.
    pub fn next(&self, now: Instant) -> Instant {
        let interval = self.interval.as_nanos().max(1);
        let since = now.saturating_duration_since(self.base).as_nanos() % interval;
        let wait = (self.offset.as_nanos() + interval - since) % interval;
        now + Duration::from_nanos(wait as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);

    #[test]
    fn senders_lie_evenly_whenever_they_begin() {
        let base = Instant::now();
        let begins = |sender: u32| {
            // In step, as those are who join at a rate that divides theirs.
            let at = Phase::of(sender, base, INTERVAL).next(base + INTERVAL * (sender * 7));
            (at - base).as_micros() % INTERVAL.as_micros()
        };
        let mut places: Vec<u128> = (0..20).map(begins).collect();
        places.sort_unstable();
        let widest = places.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest.is_some_and(|gap| gap < 2_000), "of 20 ms in 20: {places:?}");
    }

    #[test]
    fn it_comes_within_one_interval() {
        let base = Instant::now();
        for sender in 0..50 {
            let phase = Phase::of(sender, base, INTERVAL);
            let now = base + Duration::from_micros(u64::from(sender) * 777);
            let next = phase.next(now);
            assert!(next >= now && next < now + INTERVAL);
            assert_eq!(phase.next(next), next);
        }
    }
}
