//! When a viewer is moved to the mix without having asked: what they have cannot carry the tiles.
//!
//! Slow to move, slower to move back, so that nobody is sent to and fro. Whoever chose for themselves stays
//! with that choice.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// With fewer pictures than this the mix spares nothing worth a change.
const PICTURES_MIN: usize = 4;
/// Half of the pictures, or the device, must have been in want for so long.
const STRAINED_FOR: Duration = Duration::from_secs(6);
/// And the way back must have been clear for so long.
const EASY_FOR: Duration = Duration::from_secs(20);
/// Nobody is moved again within this time.
const MOVE_INTERVAL_MIN: Duration = Duration::from_secs(30);
/// What each picture takes at the least, and what must be there beside that.
const PICTURE_BPS: u64 = 150_000;
const HEADROOM_PERCENT: u64 = 150;

/// Why somebody gets the room as they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum ModeReason {
    /// The room is in this mode.
    Room,
    /// They chose it.
    Chosen,
    /// Their downlink does not carry the tiles.
    Downlink,
    /// Their device does not keep up with the tiles.
    Device,
    /// The mix is wanted and not there yet.
    Starting,
    /// The mixer failed; it is started again.
    Failed,
    /// The node has no mixer, or no room for one more.
    Unavailable,
}

/// How a viewer fares now.
#[derive(Debug, Clone, Copy)]
pub struct Fare {
    /// Pictures that they would see, were they forwarded.
    pub pictures: usize,
    /// Of these, such as get nothing because the path does not carry them; 0 in the mix.
    pub starved: usize,
    pub estimate_bps: u64,
    /// Their device says that it cannot keep up.
    pub device_strained: bool,
}

/// See the module. One for each viewer.
#[derive(Debug, Default)]
pub struct Advice {
    advised: Option<ModeReason>,
    strained_since: Option<Instant>,
    easy_since: Option<Instant>,
    moved_at: Option<Instant>,
}

impl Advice {
    /// Why they are better off with the mix, if they are.
    pub fn reason(&self) -> Option<ModeReason> {
        self.advised
    }

    /// To be told about ten times a second. True when the advice has changed.
    pub fn handle(&mut self, now: Instant, fare: Fare) -> bool {
        let before = self.advised;
        if before.is_none() {
            self.note_strain(now, fare);
        } else {
            self.note_ease(now, fare);
        }
        if before != self.advised {
            self.moved_at = Some(now);
            (self.strained_since, self.easy_since) = (None, None);
        }
        before != self.advised
    }

    fn note_strain(&mut self, now: Instant, fare: Fare) {
        let is_starved = fare.starved * 2 >= fare.pictures;
        let is_strained = fare.pictures >= PICTURES_MIN && (is_starved || fare.device_strained);
        if lasts(&mut self.strained_since, now, is_strained, STRAINED_FOR) && self.may_move(now) {
            let reason = if is_starved { ModeReason::Downlink } else { ModeReason::Device };
            self.advised = Some(reason);
        }
    }

    fn note_ease(&mut self, now: Instant, fare: Fare) {
        let needed_bps = fare.pictures as u64 * PICTURE_BPS * HEADROOM_PERCENT / 100;
        let carries = match self.advised {
            // A device that was too slow for many pictures stays so, whatever the network does.
            Some(ModeReason::Device) => fare.pictures < PICTURES_MIN,
            _ => fare.estimate_bps >= needed_bps || fare.pictures < PICTURES_MIN,
        };
        if lasts(&mut self.easy_since, now, carries, EASY_FOR) && self.may_move(now) {
            self.advised = None;
        }
    }

    fn may_move(&self, now: Instant) -> bool {
        self.moved_at.is_none_or(|at| now.saturating_duration_since(at) >= MOVE_INTERVAL_MIN)
    }
}

/// Whether `holds` has been true for `span`.
fn lasts(since: &mut Option<Instant>, now: Instant, holds: bool, span: Duration) -> bool {
    if !holds {
        *since = None;
        return false;
    }
    now.saturating_duration_since(*since.get_or_insert(now)) >= span
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARVED: Fare = Fare { pictures: 8, starved: 5, estimate_bps: 300_000, device_strained: false };
    const FINE: Fare = Fare { pictures: 8, starved: 0, estimate_bps: 5_000_000, device_strained: false };

    /// Tells it the same for so many seconds, in tenths.
    fn pass(advice: &mut Advice, now: &mut Instant, seconds: u64, fare: Fare) {
        for _ in 0..seconds * 10 {
            *now += Duration::from_millis(100);
            advice.handle(*now, fare);
        }
    }

    #[test]
    fn who_is_starved_for_long_is_moved_and_comes_back_when_the_path_has_room() {
        let (mut advice, mut now) = (Advice::default(), Instant::now());
        pass(&mut advice, &mut now, 5, STARVED);
        pass(&mut advice, &mut now, 1, FINE);
        pass(&mut advice, &mut now, 5, STARVED);
        assert_eq!(advice.reason(), None, "it was never in want for long enough");
        pass(&mut advice, &mut now, 2, STARVED);
        assert_eq!(advice.reason(), Some(ModeReason::Downlink));
        pass(&mut advice, &mut now, 60, Fare { starved: 0, estimate_bps: 1_000_000, ..STARVED });
        assert_eq!(advice.reason(), Some(ModeReason::Downlink), "the tiles need more than that");
        pass(&mut advice, &mut now, 21, FINE);
        assert_eq!(advice.reason(), None);
        pass(&mut advice, &mut now, 20, STARVED);
        assert_eq!(advice.reason(), None, "not to and fro");
        pass(&mut advice, &mut now, 11, STARVED);
        assert_eq!(advice.reason(), Some(ModeReason::Downlink));
    }

    #[test]
    fn a_weak_device_is_moved_and_few_pictures_are_no_reason() {
        let (mut advice, mut now) = (Advice::default(), Instant::now());
        pass(&mut advice, &mut now, 30, Fare { pictures: 3, starved: 3, ..STARVED });
        assert_eq!(advice.reason(), None);
        pass(&mut advice, &mut now, 7, Fare { device_strained: true, ..FINE });
        assert_eq!(advice.reason(), Some(ModeReason::Device));
        pass(&mut advice, &mut now, 90, FINE);
        assert_eq!(advice.reason(), Some(ModeReason::Device));
        pass(&mut advice, &mut now, 21, Fare { pictures: 2, ..FINE });
        assert_eq!(advice.reason(), None);
    }
}
