//! When a shard looks at its sockets: at once when something comes, or, while much comes, once in a while
//! for all of it together, as network cards do with their interrupts.
//!
//! Waking a thread costs about as much as forwarding ten packets. A shard that many publishers send to
//! would be woken for each of their bursts; taken together they cost one wake-up, and a receiver's packets
//! leave in longer runs. A shard that little comes to answers at once.

use std::time::{Duration, Instant};

/// Ticks begin at least so far apart while packets come more often than that. What it adds to a packet's
/// way is half of this on average.
const GATHER: Duration = Duration::from_millis(1);

/// After so many ticks in which nothing came it is waited for again.
const EMPTY_MAX: u8 = 2;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Something to read, or a timer.
    Readiness,
    /// This moment, whatever comes.
    Until(Instant),
}

#[derive(Debug, Default)]
pub struct Pace {
    /// When the last tick began that had packets.
    last: Option<Instant>,
    /// They come more often than [`GATHER`].
    is_dense: bool,
    /// Since then nothing came in so many ticks.
    empty: u8,
}

impl Pace {
    pub fn next(&self) -> Wait {
        match self.last {
            Some(last) if self.is_dense => Wait::Until(last + GATHER * (u32::from(self.empty) + 1)),
            _ => Wait::Readiness,
        }
    }

    /// A tick that began at `now` took so many datagrams from the socket that wakes.
    pub fn handle_tick(&mut self, now: Instant, datagrams: usize) {
        if datagrams == 0 {
            self.empty = self.empty.saturating_add(1);
            self.is_dense &= self.empty < EMPTY_MAX;
            return;
        }
        self.empty = 0;
        let since = self.last.map(|last| now.saturating_duration_since(last));
        // Ticks that were put off begin a little later than they might.
        self.is_dense = since.is_some_and(|since| since < GATHER + GATHER / 2);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_seldom_is_taken_at_once() {
        let mut pace = Pace::default();
        let start = Instant::now();
        for at in 0..10 {
            pace.handle_tick(start + GATHER * 2 * at, 3);
            assert_eq!(pace.next(), Wait::Readiness);
        }
    }

    #[test]
    fn what_comes_often_is_taken_together_until_nothing_comes() {
        let mut pace = Pace::default();
        let start = Instant::now();
        pace.handle_tick(start, 1);
        let soon = start + GATHER / 4;
        pace.handle_tick(soon, 1);
        assert_eq!(pace.next(), Wait::Until(soon + GATHER));
        pace.handle_tick(soon + GATHER + Duration::from_micros(80), 4);
        assert_eq!(pace.next(), Wait::Until(soon + GATHER * 2 + Duration::from_micros(80)));
        pace.handle_tick(soon + GATHER * 3, 0);
        assert_eq!(pace.next(), Wait::Until(soon + GATHER * 3 + Duration::from_micros(80)));
        pace.handle_tick(soon + GATHER * 4, 0);
        assert_eq!(pace.next(), Wait::Readiness);
    }
}
