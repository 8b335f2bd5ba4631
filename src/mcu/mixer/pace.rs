//! When the next picture is due, and how many a second this machine can make.
//!
//! Ticks lie on a grid from one epoch, so that they do not drift, and those missed are left out. When most
//! frames of two seconds in a row are late, every second tick is left out; after some good seconds all are
//! tried again, each time later when that went wrong. One bad second is a start or a hiccup.

use std::time::{Duration, Instant};

/// Seconds without trouble before the full rate is tried again, at first and at most.
const PATIENCE_MIN_S: u32 = 4;
const PATIENCE_MAX_S: u32 = 64;
/// Of a frame's time, in percent, that work may take on average when the full rate is tried.
const WORK_MAX_PERCENT: u32 = 70;

#[derive(Debug)]
pub struct Pace {
    epoch: Instant,
    interval: Duration,
    frames_per_second: u32,
    halved: bool,
    next: u64,
    /// Good seconds in a row.
    good_s: u32,
    /// The last second was bad.
    was_bad: bool,
    patience_s: u32,
}

impl Pace {
    pub fn new(frames_per_second: u32, now: Instant) -> Self {
        let frames_per_second = frames_per_second.clamp(1, 60);
        let interval = Duration::from_secs(1) / frames_per_second;
        Self {
            epoch: now,
            interval,
            frames_per_second,
            halved: false,
            next: 0,
            good_s: 0,
            was_bad: false,
            patience_s: PATIENCE_MIN_S,
        }
    }

    /// When the next picture is due.
    pub fn due(&self) -> Instant {
        self.epoch + self.since_epoch(self.next)
    }

    /// The time between pictures.
    pub fn interval(&self) -> Duration {
        if self.halved { self.interval * 2 } else { self.interval }
    }

    pub fn frames_per_second(&self) -> u32 {
        if self.halved { self.frames_per_second.div_ceil(2) } else { self.frames_per_second }
    }

    /// Goes to the first tick after `now`. Gives the time from the epoch of the tick that was due.
    pub fn advance(&mut self, now: Instant) -> Duration {
        let was_due = self.since_epoch(self.next);
        let step = if self.halved { 2 } else { 1 };
        self.next += step;
        while self.due() <= now {
            self.next += step;
        }
        was_due
    }

    /// Frame `index` in exact parts of seconds: a rounded interval would drift.
    fn since_epoch(&self, index: u64) -> Duration {
        let rate = u64::from(self.frames_per_second);
        let nanos = (index % rate) * 1_000_000_000 / rate;
        Duration::from_secs(index / rate) + Duration::from_nanos(nanos)
    }

    /// Looks back on a second: how many pictures were due, how many of them late or left out, and how long
    /// work on one took on average.
    pub fn review(&mut self, due: u32, late: u32, work: Duration) {
        let is_bad = late * 2 > due && due > 0;
        let was_bad = std::mem::replace(&mut self.was_bad, is_bad);
        if is_bad && self.halved {
            self.good_s = 0;
            return;
        }
        if is_bad && !was_bad {
            return;
        }
        if is_bad {
            // Trouble soon after the full rate came back: it came back too early.
            self.patience_s = match self.good_s {
                0..10 => (self.patience_s * 2).min(PATIENCE_MAX_S),
                _ => PATIENCE_MIN_S,
            };
            self.halved = true;
            self.good_s = 0;
            return;
        }
        self.good_s += 1;
        if self.halved && self.good_s >= self.patience_s && work * 100 < self.interval * WORK_MAX_PERCENT {
            self.halved = false;
            self.good_s = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_do_not_drift_and_missed_ones_are_left_out() {
        let start = Instant::now();
        let mut pace = Pace::new(30, start);
        for _ in 0..30 * 60 {
            let due = pace.due();
            pace.advance(due);
        }
        assert_eq!(pace.due(), start + Duration::from_secs(60));
        let late = pace.due() + Duration::from_millis(500);
        assert_eq!(pace.advance(late), Duration::from_secs(60));
        assert!(pace.due() > late && pace.due() <= late + pace.interval());
    }

    #[test]
    fn under_pressure_the_rate_is_halved_and_comes_back_more_slowly_each_time() {
        let mut pace = Pace::new(30, Instant::now());
        let short = Duration::from_millis(8);
        pace.review(30, 10, short);
        assert_eq!(pace.frames_per_second(), 30);
        let mut waits = Vec::new();
        for _ in 0..6 {
            pace.review(30, 20, short);
            assert_eq!(pace.frames_per_second(), 30);
            pace.review(30, 20, short);
            assert_eq!((pace.frames_per_second(), pace.interval()), (15, Duration::from_secs(1) / 30 * 2));
            let mut wait = 0;
            while pace.frames_per_second() == 15 {
                pace.review(15, 0, short);
                wait += 1;
            }
            waits.push(wait);
        }
        assert_eq!(waits, [8, 16, 32, 64, 64, 64]);
    }

    #[test]
    fn work_that_would_not_fit_keeps_the_rate_down() {
        let mut pace = Pace::new(30, Instant::now());
        pace.review(30, 30, Duration::from_millis(40));
        pace.review(30, 30, Duration::from_millis(40));
        for _ in 0..100 {
            pace.review(15, 0, Duration::from_millis(40));
        }
        assert_eq!(pace.frames_per_second(), 15);
    }
}
