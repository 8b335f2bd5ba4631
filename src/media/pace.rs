//! When a shard looks at its sockets: at once when something comes, or, while much comes, once in a while
//! for all of it together, as network cards do with their interrupts.
//!
//! Waking a thread costs about as much as forwarding ten packets. A shard that many publishers send to
//! would be woken for each of their bursts; taken together they cost one wake-up, and a receiver's packets
//! leave in longer runs. A shard that little comes to answers at once, and one that is busy looks more
//! often, as wake-ups are the smaller part of its work.

use std::time::{Duration, Instant};

/// Packets that come more often than this are taken together, and ticks of a shard that has little to do
/// begin at least so far apart. What it adds to a packet's way is half of this on average.
const GATHER_MAX: Duration = Duration::from_micros(1_500);
/// The same for a shard with much to do: most of its time goes into packets, and a wake-up more or less is
/// nothing beside them, but who has to wait for a tick waits for all packets of the tick as well.
const GATHER_MIN: Duration = Duration::from_micros(200);
/// Work that is worth one wake-up: it may cost a twentieth of that, about.
const WORTH_WAKING: Duration = Duration::from_micros(150);
/// Ticks over which the share of time that goes into them is taken.
const REMEMBERED: u32 = 64;

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
    /// They come more often than [`GATHER_MAX`].
    is_dense: bool,
    /// Since then nothing came in so many ticks.
    empty: u8,
    /// When the last tick began.
    began: Option<Instant>,
    /// How long ticks take, and from one's beginning to that of the next, both on average.
    work: Duration,
    period: Duration,
}

impl Pace {
    pub fn next(&self) -> Wait {
        match self.last {
            Some(last) if self.is_dense => Wait::Until(last + self.gather() * (u32::from(self.empty) + 1)),
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
        self.is_dense = since.is_some_and(|since| since < GATHER_MAX + GATHER_MAX / 2);
        self.last = Some(now);
    }

    /// A tick that began at `began` took so long.
    pub fn handle_work(&mut self, began: Instant, took: Duration) {
        let period =
            self.began.replace(began).map_or(GATHER_MAX, |last| began.saturating_duration_since(last));
        // A pause tells nothing of how busy it was before.
        let period = period.min(GATHER_MAX * 2);
        self.work = self.work - self.work / REMEMBERED + took / REMEMBERED;
        self.period = self.period - self.period / REMEMBERED + period / REMEMBERED;
    }

    /// As much time as brings work that is worth a wake-up.
    fn gather(&self) -> Duration {
        let share = self.work.as_secs_f64() / self.period.as_secs_f64().max(f64::EPSILON);
        let gather = WORTH_WAKING.as_secs_f64() / share.max(f64::EPSILON);
        Duration::from_secs_f64(gather.clamp(GATHER_MIN.as_secs_f64(), GATHER_MAX.as_secs_f64()))
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
            pace.handle_tick(start + GATHER_MAX * 2 * at, 3);
            assert_eq!(pace.next(), Wait::Readiness);
        }
    }

    #[test]
    fn what_comes_often_is_taken_together_until_nothing_comes() {
        let mut pace = Pace::default();
        let start = Instant::now();
        pace.handle_tick(start, 1);
        let soon = start + GATHER_MAX / 4;
        pace.handle_tick(soon, 1);
        assert_eq!(pace.next(), Wait::Until(soon + GATHER_MAX));
        pace.handle_tick(soon + GATHER_MAX + Duration::from_micros(80), 4);
        assert_eq!(pace.next(), Wait::Until(soon + GATHER_MAX * 2 + Duration::from_micros(80)));
        pace.handle_tick(soon + GATHER_MAX * 3, 0);
        assert_eq!(pace.next(), Wait::Until(soon + GATHER_MAX * 3 + Duration::from_micros(80)));
        pace.handle_tick(soon + GATHER_MAX * 4, 0);
        assert_eq!(pace.next(), Wait::Readiness);
    }

    /// The time between ticks of a shard of whose time so much goes into them.
    fn gather_at(share: f64) -> Duration {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        for _ in 0..1_000 {
            pace.handle_tick(now, 1);
            let period = pace.gather();
            pace.handle_work(now, period.mul_f64(share));
            now += period;
        }
        pace.gather()
    }

    #[test]
    fn who_has_more_to_do_looks_more_often() {
        assert_eq!(gather_at(0.05), GATHER_MAX);
        assert_eq!(gather_at(0.1), GATHER_MAX);
        let at_a_third = gather_at(0.3).as_micros();
        assert!((450..=550).contains(&at_a_third), "{at_a_third} µs");
        assert_eq!(gather_at(0.9), GATHER_MIN);
    }
}
