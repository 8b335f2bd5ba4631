//! When what is in a file is due, by a clock that stands while it is paused; and what of it waits.
//!
//! Media time counts from the file's beginning. The clock's time goes on for ever: RTP's times are made of
//! it, so a receiver sees one stream, whatever was sought or paused.

use std::collections::VecDeque;

use crate::core::payload::Codec;

/// So much is made ready before it is due.
pub const AHEAD_US: i64 = 250_000;
/// What begins, begins after so long: sound and picture are on their way together.
const LEAD_US: i64 = 20_000;
/// Later than this is a machine that stood still, or cannot keep up: all that follows is due later.
const LATE_US_MAX: i64 = 1_000_000;
/// A kind of which nothing comes for so long is not waited for: a slide show, sound that ended.
const SPARSE_US: i64 = 3_000_000;
/// What waits at most. Files whose sound is far from its picture get no more.
const WAITING_BYTES_MAX: usize = 24 << 20;

/// A picture or a packet of sound.
pub struct Unit {
    pub line: u8,
    pub codec: Codec,
    /// In media time.
    pub at_us: i64,
    pub is_key: bool,
    pub payloads: Vec<Vec<u8>>,
}

impl Unit {
    fn bytes(&self) -> usize {
        self.payloads.iter().map(Vec::len).sum()
    }
}

/// What waits for its time, by its line, and which time it is.
pub struct Pace {
    waiting: [VecDeque<Unit>; 2],
    /// Lines that there are.
    lines: [bool; 2],
    bytes: usize,
    /// The clock's time of media time 0. `None` until enough waits to begin.
    shift_us: Option<i64>,
    /// Where it is while it has not begun.
    from_us: i64,
    paused: bool,
    /// The clock stands since.
    paused_at_us: i64,
    /// Nothing more comes.
    pub is_complete: bool,
}

impl Pace {
    pub fn new(lines: [bool; 2]) -> Self {
        Self {
            waiting: [VecDeque::new(), VecDeque::new()],
            lines,
            bytes: 0,
            shift_us: None,
            from_us: 0,
            paused: false,
            paused_at_us: 0,
            is_complete: false,
        }
    }

    pub fn push(&mut self, unit: Unit) {
        self.bytes += unit.bytes();
        if let Some(waiting) = self.waiting.get_mut(usize::from(unit.line)) {
            waiting.push_back(unit);
        }
    }

    /// Goes on from another time; what waited is of no use.
    pub fn restart(&mut self, from_us: i64) {
        self.waiting.iter_mut().for_each(VecDeque::clear);
        (self.bytes, self.shift_us, self.from_us) = (0, None, from_us);
        self.is_complete = false;
    }

    /// What lies before is not played: the key frame that it begins with is later, or earlier, than was
    /// asked.
    pub fn begin_at(&mut self, from_us: i64) {
        self.from_us = from_us;
        let Self { waiting, bytes, .. } = self;
        for unit in waiting.iter_mut().flat_map(|waiting| {
            let early = waiting.iter().take_while(|unit| unit.at_us < from_us).count();
            waiting.drain(..early)
        }) {
            *bytes -= unit.bytes();
        }
    }

    pub fn begins_us(&self) -> i64 {
        self.from_us
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    pub fn pause(&mut self, now_us: i64, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        if paused {
            self.paused_at_us = now_us;
        } else if let Some(shift_us) = &mut self.shift_us {
            *shift_us += now_us - self.paused_at_us;
        }
    }

    /// Where in the file it is.
    pub fn position_us(&self, now_us: i64) -> i64 {
        let clock_us = if self.paused { self.paused_at_us } else { now_us };
        self.shift_us.map_or(self.from_us, |shift_us| (clock_us - shift_us).max(self.from_us))
    }

    /// Its clock goes on.
    pub fn is_running(&self) -> bool {
        self.shift_us.is_some() && !self.paused
    }

    /// When what is at this media time is due.
    pub fn due_us(&self, at_us: i64) -> i64 {
        at_us + self.shift_us.unwrap_or_default()
    }

    /// Whether more is to be made ready.
    pub fn wants_more(&self, now_us: i64) -> bool {
        if self.is_complete || self.bytes >= WAITING_BYTES_MAX {
            return false;
        }
        let ready = |waiting: &VecDeque<Unit>| waiting.back().map(|unit| unit.at_us);
        let until_us = self.position_us(now_us) + AHEAD_US;
        let furthest = self.waiting.iter().filter_map(ready).max();
        let is_far = furthest.is_some_and(|at_us| at_us >= until_us + SPARSE_US);
        let lines = self.lines.iter().zip(&self.waiting).filter(|(is_there, _)| **is_there);
        !is_far && lines.into_iter().any(|(_, waiting)| ready(waiting).is_none_or(|at_us| at_us < until_us))
    }

    /// Begins if it has not and may. True where a picture is to be shown at once, though it is paused.
    pub fn begin(&mut self, now_us: i64) -> bool {
        if self.shift_us.is_some() || self.wants_more(now_us) {
            return false;
        }
        let firsts = self.waiting.iter().filter_map(|waiting| waiting.front());
        let Some(first_us) = firsts.map(|unit| unit.at_us).min() else { return false };
        self.from_us = self.from_us.max(first_us);
        self.shift_us = Some(now_us + LEAD_US - first_us);
        self.paused_at_us = now_us + LEAD_US;
        self.paused
    }

    /// The first picture that waits, whenever it is due.
    pub fn take_picture(&mut self) -> Option<Unit> {
        self.take(usize::from(crate::core::feed::LINE_PICTURE))
    }

    /// The next unit that is due, the earliest first.
    pub fn take_due(&mut self, now_us: i64) -> Option<Unit> {
        let shift_us = self.shift_us.filter(|_| !self.paused)?;
        let at = |line: usize| self.waiting[line].front().map(|unit| unit.at_us);
        let (at_us, line) = [0, 1].into_iter().filter_map(|line| Some((at(line)?, line))).min()?;
        let late_us = now_us - shift_us - at_us;
        if late_us > LATE_US_MAX {
            self.shift_us = Some(shift_us + late_us);
        }
        (late_us >= 0).then(|| self.take(line)).flatten()
    }

    fn take(&mut self, line: usize) -> Option<Unit> {
        let unit = self.waiting.get_mut(line)?.pop_front()?;
        self.bytes -= unit.bytes();
        Some(unit)
    }

    /// How long nothing is due. `None` while nothing is due by itself.
    pub fn idle_us(&self, now_us: i64) -> Option<i64> {
        let shift_us = self.shift_us.filter(|_| !self.paused)?;
        let next = self.waiting.iter().filter_map(|waiting| waiting.front()).map(|unit| unit.at_us).min()?;
        Some((next + shift_us - now_us).max(0))
    }

    /// All of it was played.
    pub fn is_over(&self) -> bool {
        self.is_complete && !self.paused && self.waiting.iter().all(VecDeque::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::feed::{LINE_PICTURE, LINE_SOUND};

    fn unit(line: u8, at_ms: i64) -> Unit {
        let payloads = vec![vec![0; 10]];
        Unit { line, codec: Codec::Vp8, at_us: at_ms * 1_000, is_key: at_ms == 0, payloads }
    }

    /// Pictures every 40 ms and sound every 20 ms, from and to these times.
    fn filled(from_ms: i64, to_ms: i64) -> Pace {
        let mut pace = Pace::new([true, true]);
        pace.restart(from_ms * 1_000);
        (from_ms..to_ms).step_by(40).for_each(|at_ms| pace.push(unit(LINE_PICTURE, at_ms)));
        (from_ms..to_ms).step_by(20).for_each(|at_ms| pace.push(unit(LINE_SOUND, at_ms)));
        pace
    }

    /// Times of what is due, in milliseconds of the media.
    fn due(pace: &mut Pace, now_ms: i64) -> Vec<i64> {
        std::iter::from_fn(|| pace.take_due(now_ms * 1_000)).map(|unit| unit.at_us / 1_000).collect()
    }

    #[test]
    fn it_begins_when_enough_waits_and_each_is_due_at_its_time() {
        let mut pace = filled(0, 200);
        assert!(pace.wants_more(0) && !pace.begin(0) && pace.take_due(10_000_000).is_none());
        pace.push(unit(LINE_PICTURE, 280));
        pace.push(unit(LINE_SOUND, 280));
        assert!(!pace.wants_more(0));
        assert!(!pace.begin(1_000_000), "nothing is to be shown beforehand");
        assert_eq!(due(&mut pace, 1_019), Vec::<i64>::new());
        assert_eq!(due(&mut pace, 1_020), [0, 0]);
        assert_eq!(due(&mut pace, 1_060), [20, 40, 40]);
        assert_eq!(pace.idle_us(1_065_000), Some(15_000));
        assert_eq!(pace.position_us(1_100_000), 80_000);
        assert!(pace.wants_more(1_100_000), "the next quarter of a second");
    }

    #[test]
    fn what_is_paused_stands_and_goes_on_where_it_was() {
        let mut pace = filled(0, 600);
        pace.begin(0);
        assert_eq!(due(&mut pace, 100).last(), Some(&80));
        pace.pause(110_000, true);
        assert_eq!((due(&mut pace, 5_000), pace.position_us(5_000_000)), (Vec::new(), 90_000));
        assert_eq!(pace.idle_us(5_000_000), None);
        pace.pause(5_000_000, false);
        assert_eq!(pace.position_us(5_000_000), 90_000);
        assert_eq!(due(&mut pace, 5_011), [100]);
    }

    #[test]
    fn after_a_seek_the_clock_goes_on_and_the_place_is_another() {
        let mut pace = filled(0, 400);
        pace.begin(0);
        let before = pace.due_us(0);
        pace.restart(60_000_000);
        assert_eq!(pace.position_us(900_000), 60_000_000);
        pace.push(unit(LINE_SOUND, 59_500));
        pace.push(unit(LINE_SOUND, 59_900));
        pace.begin_at(59_600_000);
        for at_ms in [60_000, 60_300] {
            pace.push(unit(LINE_PICTURE, at_ms));
            pace.push(unit(LINE_SOUND, at_ms));
        }
        pace.begin(1_000_000);
        assert_eq!(due(&mut pace, 1_020), [59_900], "what lies before the key frame is gone");
        assert!(pace.due_us(59_900_000) > before + 900_000);
    }

    #[test]
    fn one_that_is_sought_while_it_is_paused_shows_where_it_is() {
        let mut pace = filled(0, 400);
        pace.pause(0, true);
        assert!(pace.begin(0));
        assert_eq!(pace.take_picture().map(|unit| unit.at_us), Some(0));
        assert_eq!(pace.position_us(9_000_000), 0);
    }

    #[test]
    fn who_stands_still_for_long_is_not_overtaken_by_what_was_due_meanwhile() {
        let mut pace = filled(0, 4_000);
        pace.begin(0);
        let taken = due(&mut pace, 3_000);
        assert_eq!(taken, [0, 0], "the rest is due later");
        assert_eq!(due(&mut pace, 3_020), [20]);
    }

    #[test]
    fn it_is_over_when_all_was_taken_and_a_kind_that_is_absent_is_not_waited_for() {
        let mut pace = filled(0, 100);
        pace.is_complete = true;
        pace.begin(0);
        assert!(!pace.is_over());
        due(&mut pace, 1_000);
        assert!(pace.is_over());
        let mut slides = Pace::new([true, true]);
        slides.push(unit(LINE_PICTURE, 0));
        (0..4_000).step_by(20).for_each(|at_ms| slides.push(unit(LINE_SOUND, at_ms)));
        assert!(!slides.wants_more(0));
    }
}
