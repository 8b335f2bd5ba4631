//! A hashed timer wheel: 256 slots of some milliseconds, one timer for each key, for deadlines of a shard's
//! peers and rooms.
//!
//! A deadline beyond the wheel's span waits in its slot for another round. Setting a timer again replaces it:
//! the entry left behind is recognised as stale when its slot comes up, so nothing is searched or removed.
//! A shard may be late but never early: a key fires in the first [`Wheel::expire`] at or after its deadline.

use std::time::{Duration, Instant};

const SLOTS: usize = 256;
const WORDS: usize = SLOTS / 64;

/// Timers by dense key (the peer's index).
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<(u32, u64)>>,
    /// A bit for each slot that holds something, be it stale.
    occupied: [u64; WORDS],
    /// Deadline of each key, in ticks since `start`; `u64::MAX` for none.
    deadlines: Vec<u64>,
    start: Instant,
    slot: Duration,
    /// The next tick to look at.
    tick: u64,
    armed: usize,
}

impl Wheel {
    /// `slot`: how far apart deadlines may be that are met together.
    pub fn new(start: Instant, slot: Duration) -> Self {
        let slots = vec![Vec::new(); SLOTS];
        Self { slots, occupied: [0; WORDS], deadlines: Vec::new(), start, slot, tick: 0, armed: 0 }
    }

    /// Sets the one timer of `key`, rounding up to the wheel's slots.
    pub fn set(&mut self, key: u32, deadline: Instant) {
        let tick = self.tick_at_or_after(deadline).max(self.tick);
        let index = key as usize;
        if self.deadlines.len() <= index {
            self.deadlines.resize(index + 1, u64::MAX);
        }
        let old = self.deadlines[index];
        if old == tick {
            return;
        }
        self.armed += usize::from(old == u64::MAX);
        self.deadlines[index] = tick;
        let place = (tick % SLOTS as u64) as usize;
        self.slots[place].push((key, tick));
        self.occupied[place / 64] |= 1 << (place % 64);
    }

    /// Sets it where there is none, or a later one.
    pub fn set_earlier(&mut self, key: u32, deadline: Instant) {
        let known = self.deadlines.get(key as usize).copied().unwrap_or(u64::MAX);
        if self.tick_at_or_after(deadline) < known {
            self.set(key, deadline);
        }
    }

    pub fn clear(&mut self, key: u32) {
        if let Some(deadline) = self.deadlines.get_mut(key as usize)
            && *deadline != u64::MAX
        {
            *deadline = u64::MAX;
            self.armed -= 1;
        }
    }

    /// Hands over every key whose deadline has come, each once.
    pub fn expire(&mut self, now: Instant, mut fire: impl FnMut(u32)) {
        let now_tick = (now.saturating_duration_since(self.start).as_micros() / self.slot.as_micros()) as u64;
        if now_tick < self.tick {
            return;
        }
        let rounds = (now_tick - self.tick + 1).min(SLOTS as u64);
        for tick in now_tick + 1 - rounds..=now_tick {
            let index = (tick % SLOTS as u64) as usize;
            let mut later = 0;
            for position in 0..self.slots[index].len() {
                let (key, due) = self.slots[index][position];
                if self.deadlines[key as usize] != due {
                    continue;
                }
                if due > now_tick {
                    self.slots[index][later] = (key, due);
                    later += 1;
                    continue;
                }
                self.deadlines[key as usize] = u64::MAX;
                self.armed -= 1;
                fire(key);
            }
            self.slots[index].truncate(later);
            if later == 0 {
                self.occupied[index / 64] &= !(1 << (index % 64));
            }
        }
        self.tick = now_tick + 1;
    }

    /// When to call [`Wheel::expire`] next: exact within the wheel's span, else at its end.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.armed == 0 {
            return None;
        }
        let due = self.occupied_ticks().find(|tick| {
            self.slots[(tick % SLOTS as u64) as usize]
                .iter()
                .any(|&(key, due)| due == *tick && self.deadlines[key as usize] == due)
        });
        let tick = due.unwrap_or(self.tick + SLOTS as u64 - 1);
        Some(self.start + self.slot * u32::try_from(tick).unwrap_or(u32::MAX))
    }

    /// The ticks to come, within the span, whose slots hold something.
    fn occupied_ticks(&self) -> impl Iterator<Item = u64> {
        let (first, skipped) = (self.tick / 64, self.tick % 64);
        // The word that the wheel stands in is looked at twice: from here on, and up to here.
        (0..=WORDS as u64).flat_map(move |ahead| {
            let word = self.occupied[((first + ahead) % WORDS as u64) as usize];
            let mut left = match ahead {
                0 => word & (u64::MAX << skipped),
                _ if ahead == WORDS as u64 => word & !(u64::MAX << skipped),
                _ => word,
            };
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| u64::from(left.trailing_zeros()))?;
                left &= left - 1;
                Some((first + ahead) * 64 + bit)
            })
        })
    }

    fn tick_at_or_after(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.start);
        since.as_micros().div_ceil(self.slot.as_micros()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Duration = Duration::from_millis(1);

    fn expired(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        let mut keys = Vec::new();
        wheel.expire(now, |key| keys.push(key));
        keys
    }

    #[test]
    fn fires_once_and_never_early() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, SLOT);
        wheel.set(3, start + Duration::from_micros(4_200));
        assert_eq!(expired(&mut wheel, start + Duration::from_millis(4)), [0u32; 0]);
        assert_eq!(wheel.next_deadline(), Some(start + Duration::from_millis(5)));
        assert_eq!(expired(&mut wheel, start + Duration::from_millis(5)), [3]);
        assert_eq!(expired(&mut wheel, start + Duration::from_millis(600)), [0u32; 0]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_timer_set_again_fires_at_its_new_time_only() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, SLOT);
        wheel.set(0, start + Duration::from_millis(5));
        wheel.set(0, start + Duration::from_millis(9));
        wheel.set(1, start + Duration::from_millis(7));
        wheel.clear(1);
        assert_eq!(expired(&mut wheel, start + Duration::from_millis(8)), [0u32; 0]);
        assert_eq!(expired(&mut wheel, start + Duration::from_millis(9)), [0]);
    }

    #[test]
    fn a_deadline_beyond_the_span_waits_for_its_round() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, SLOT);
        wheel.set(7, start + Duration::from_millis(1_000));
        for ms in (0..1_000).step_by(50) {
            assert_eq!(expired(&mut wheel, start + Duration::from_millis(ms)), [0u32; 0]);
        }
        assert_eq!(expired(&mut wheel, start + Duration::from_millis(1_003)), [7]);
    }

    #[test]
    fn the_next_deadline_is_found_wherever_the_wheel_stands() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, SLOT);
        for (round, ahead) in (0..600).zip([1, 2, 63, 64, 65, 130, 191, 192, 193, 255].into_iter().cycle()) {
            let now = start + SLOT * round * 7;
            assert_eq!(expired(&mut wheel, now), [0u32; 0]);
            wheel.set(0, now + SLOT * ahead);
            wheel.set(1, now + SLOT * 256);
            assert_eq!(wheel.next_deadline(), Some(now + SLOT * ahead));
            wheel.clear(0);
            wheel.clear(1);
        }
    }

    #[test]
    fn deadlines_of_one_slot_fire_together() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, SLOT * 5);
        for key in 0..5 {
            wheel.set(key, start + SLOT * (6 + key));
        }
        assert_eq!(wheel.next_deadline(), Some(start + SLOT * 10));
        assert_eq!(expired(&mut wheel, start + SLOT * 9), [0u32; 0]);
        assert_eq!(expired(&mut wheel, start + SLOT * 10), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_long_sleep_loses_no_timer() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, SLOT);
        for key in 0..500 {
            wheel.set(key, start + Duration::from_millis(u64::from(key) * 3));
        }
        let mut keys = expired(&mut wheel, start + Duration::from_secs(10));
        keys.sort_unstable();
        assert_eq!(keys, (0..500).collect::<Vec<_>>());
    }
}
