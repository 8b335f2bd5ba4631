//! When each picture and each sound of a recording was, on one clock: this machine's.
//!
//! RTP timestamps of a track count from anywhere. Sender reports (RFC 3550 §6.4.1) put those of one sender
//! on that sender's clock, so its sound and its picture agree as they were captured. How far its clock is
//! from ours is seen from the packets that took the least time to come ([`SenderClock`]): it is the same for
//! all of its tracks, so that what is wrong about it, a path's shortest delay, moves them together. A sender
//! that tells no time is placed by when its packets came, each track by itself.
//!
//! Noting and placing are two steps, as the first to come is rarely the fastest: whoever waits a little
//! between them has the beginning placed by what its successors told ([`SETTLE_US`]).
//!
//! Times of a track only rise. All are microseconds.

/// After so long the fastest of a track's packets are among those that came: a key frame takes its time to be
/// sent, and a busy reader comes late to the first ones.
pub const SETTLE_US: i64 = 500_000;

/// How long a delay counts as the shortest.
const WINDOW_US: i64 = 10_000_000;
/// While a sender is new, what is found out about its clock is believed at once.
const SETTLED_AFTER_US: i64 = 3_000_000;
/// Later its clock is followed by so much a second: quartz drifts by less, and no ear hears it.
const SLEW_PER_MS: i64 = 200;
/// A timestamp that is farther than this from where the last report has it is of another source.
const JUMP_US: i64 = 30_000;
/// Part of each report's news that is believed.
const REPORT_SHARE: i64 = 8;
/// Two times of one track are at least so far apart, as containers count in milliseconds.
const STEP_US: i64 = 1_000;

/// The least of what was noted in the last one to two windows.
#[derive(Debug, Clone, Copy, Default)]
struct Floor {
    /// When the window began; the least in it, and in the one before.
    window: Option<(i64, i64)>,
    before: Option<i64>,
}

impl Floor {
    fn note(&mut self, now_us: i64, value: i64) -> i64 {
        self.window = match self.window {
            Some((began, least)) if now_us.saturating_sub(began) < WINDOW_US => {
                Some((began, least.min(value)))
            }
            Some((_, least)) => {
                self.before = Some(least);
                Some((now_us, value))
            }
            None => Some((now_us, value)),
        };
        self.window.into_iter().map(|(_, least)| least).chain(self.before).min().unwrap_or(value)
    }
}

/// What is added to a clock to have ours.
#[derive(Debug, Clone, Copy, Default)]
struct Offset {
    floor: Floor,
    began_us: Option<i64>,
    /// In use, and since when.
    value: Option<(i64, i64)>,
}

impl Offset {
    fn note(&mut self, arrived_us: i64, theirs_us: i64) -> i64 {
        let least = self.floor.note(arrived_us, arrived_us.saturating_sub(theirs_us));
        let began = *self.began_us.get_or_insert(arrived_us);
        let value = match self.value {
            Some((value, since)) if arrived_us.saturating_sub(began) > SETTLED_AFTER_US => {
                let step_max = arrived_us.saturating_sub(since).max(0) / 1_000 * SLEW_PER_MS / 1_000;
                value + (least - value).clamp(-step_max, step_max)
            }
            _ => least,
        };
        // A step of less than a microsecond is kept for the next time.
        let is_still = self.value.is_some_and(|(before, _)| before == value && least != value);
        if !is_still {
            self.value = Some((value, arrived_us));
        }
        value
    }

    fn value(&self) -> i64 {
        self.value.map_or(0, |(value, _)| value)
    }
}

/// One sender's clock, shared by its tracks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SenderClock(Offset);

/// A unit's time as its track counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaTime(i64);

/// One track's way from RTP timestamps to our clock.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    clock_rate: i64,
    /// The last timestamp, unwrapped.
    ticks: Option<i64>,
    /// From the timestamps to the sender's clock, once it told it.
    reported: Option<i64>,
    /// From the timestamps to ours, before that.
    arrival: Offset,
    last_us: Option<i64>,
}

impl Timeline {
    pub fn new(clock_rate: u32) -> Self {
        let clock_rate = i64::from(clock_rate.max(1));
        Self { clock_rate, ticks: None, reported: None, arrival: Offset::default(), last_us: None }
    }

    /// Learns from a unit that came. `arrived_us` is when its packets came, `captured_us` when it was by its
    /// sender's clock, where that is known.
    pub fn note(
        &mut self,
        clock: &mut SenderClock,
        rtp_time: u32,
        captured_us: Option<i64>,
        arrived_us: i64,
    ) -> MediaTime {
        let media_us = self.unwrap(rtp_time).saturating_mul(1_000_000) / self.clock_rate;
        if let Some(captured_us) = captured_us {
            let seen = captured_us.saturating_sub(media_us);
            self.reported = Some(match self.reported {
                Some(known) if seen.saturating_sub(known).abs() < JUMP_US => {
                    known + (seen - known) / REPORT_SHARE
                }
                _ => seen,
            });
        }
        match self.reported {
            Some(reported) => clock.0.note(arrived_us, media_us.saturating_add(reported)),
            None => self.arrival.note(arrived_us, media_us),
        };
        MediaTime(media_us)
    }

    /// When a unit was, on our clock. Units are placed in the order in which they were noted.
    pub fn place(&mut self, clock: &SenderClock, noted: MediaTime) -> i64 {
        let at_us = self.time_of(clock, noted);
        let at_us = self.last_us.map_or(at_us, |last_us| at_us.max(last_us + STEP_US));
        self.last_us = Some(at_us);
        at_us
    }

    /// The same, wherever others are.
    pub fn time_of(&self, clock: &SenderClock, MediaTime(media_us): MediaTime) -> i64 {
        match self.reported {
            Some(reported) => media_us.saturating_add(reported).saturating_add(clock.0.value()),
            None => media_us.saturating_add(self.arrival.value()),
        }
    }

    /// Its sender has told the time of this source.
    pub fn is_reported(&self) -> bool {
        self.reported.is_some()
    }

    /// What was placed after this is not in use.
    pub fn go_on_after(&mut self, last_us: Option<i64>) {
        self.last_us = last_us;
    }

    /// Of another source: nothing that was known of its timestamps holds.
    pub fn begin_anew(&mut self) {
        *self = Self { last_us: self.last_us, ..Self::new(self.clock_rate as u32) };
    }

    fn unwrap(&mut self, rtp_time: u32) -> i64 {
        let ticks = match self.ticks {
            Some(last) => last + i64::from(rtp_time.wrapping_sub(last as u32) as i32),
            None => i64::from(rtp_time),
        };
        self.ticks = Some(ticks);
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000;
    /// Where our clock begins, and theirs.
    const OURS: i64 = 1_700_000_000_000_000;
    const THEIRS: i64 = 77_000_000;

    /// A sender's two tracks; each of their packets takes its time to come.
    struct Sender {
        clock: SenderClock,
        picture: Timeline,
        sound: Timeline,
    }

    impl Sender {
        fn new() -> Self {
            Self {
                clock: SenderClock::default(),
                picture: Timeline::new(90_000),
                sound: Timeline::new(48_000),
            }
        }

        fn picture(&mut self, at_us: i64, delay_us: i64, reports: bool) -> i64 {
            let rtp_time = (at_us * 9 / 100 + 4_294_900_000) as u32;
            let captured = reports.then_some(THEIRS + at_us);
            let noted = self.picture.note(&mut self.clock, rtp_time, captured, OURS + at_us + delay_us);
            self.picture.place(&self.clock, noted) - OURS
        }

        fn sound(&mut self, at_us: i64, delay_us: i64, reports: bool) -> i64 {
            let rtp_time = (at_us * 48 / 1_000 + 5_000) as u32;
            let captured = reports.then_some(THEIRS + at_us);
            let noted = self.sound.note(&mut self.clock, rtp_time, captured, OURS + at_us + delay_us);
            self.sound.place(&self.clock, noted) - OURS
        }
    }

    #[test]
    fn reports_put_sound_and_picture_together_whichever_takes_longer() {
        let mut sender = Sender::new();
        let mut apart = Vec::new();
        for number in 0..500 {
            let at_us = number * 40 * MS;
            let sound = sender.sound(at_us, 20 * MS, true);
            let picture = sender.picture(at_us, 150 * MS + number % 7 * MS, true);
            apart.push((picture - sound).abs());
        }
        assert!(apart.iter().all(|apart| *apart <= 2 * MS), "{:?}", apart.iter().max());
    }

    #[test]
    fn before_a_report_arrival_serves_and_times_only_rise_when_it_comes() {
        let mut sender = Sender::new();
        let mut last = i64::MIN;
        for number in 0..200 {
            let at = sender.picture(number * 40 * MS, 150 * MS, number > 100);
            sender.sound(number * 40 * MS, 10 * MS, number > 50);
            assert!(at > last);
            last = at;
        }
        assert!((last - 199 * 40 * MS - 10 * MS).abs() < 5 * MS, "{last}");
    }

    #[test]
    fn what_is_placed_late_is_placed_by_what_came_after_it() {
        let (mut clock, mut picture) = (SenderClock::default(), Timeline::new(90_000));
        // The first ones come late, and later ones do not.
        let delays = [90, 70, 50, 30, 10, 10, 10];
        let noted = (0_i64..).zip(delays).map(|(number, delay)| {
            let at_us = number * 40 * MS;
            picture.note(&mut clock, (at_us * 9 / 100) as u32, None, OURS + at_us + delay * MS)
        });
        let noted: Vec<MediaTime> = noted.collect();
        let placed: Vec<i64> = noted.into_iter().map(|noted| picture.place(&clock, noted) - OURS).collect();
        let expected: Vec<i64> = (0..7).map(|number| (number * 40 + 10) * MS).collect();
        assert_eq!(placed, expected);
    }

    #[test]
    fn a_clock_that_drifts_is_followed_slowly() {
        let mut sender = Sender::new();
        let (mut before, mut lag) = (0, 0);
        for number in 0..30_000_i64 {
            // Theirs is slow by 100 in a million: what they take for 20 ms is a little more.
            let theirs = number * 20 * MS;
            let ours = theirs + theirs / 10_000;
            let at = sender.sound(theirs, ours - theirs + 30 * MS, true);
            assert!((at - before - 20 * MS).abs() < MS || number == 0, "{number}: {}", at - before);
            (before, lag) = (at, ours + 30 * MS - at);
        }
        assert!((0..10 * MS).contains(&lag), "it is {lag} µs behind");
    }

    #[test]
    fn nonsense_does_no_harm() {
        let mut clock = SenderClock::default();
        let mut timeline = Timeline::new(90_000);
        let mut last = i64::MIN;
        for (rtp_time, captured, arrived) in [
            (0, Some(i64::MAX / 4), 0),
            (u32::MAX, Some(i64::MIN / 4), 5),
            (7, None, -9),
            (1 << 31, Some(0), 1),
        ] {
            let noted = timeline.note(&mut clock, rtp_time, captured, arrived);
            let at = timeline.place(&clock, noted);
            assert!(at > last);
            last = at;
        }
    }
}
