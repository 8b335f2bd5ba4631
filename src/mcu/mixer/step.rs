//! Sound and picture of one sender in step: how long the one that is ahead is held back.
//!
//! A sender's reports put all that it sends on one clock (RFC 3550 §6.4.1). How long each of its streams took
//! to come here, by that clock, and how long the mixer takes with it, say which of the two is ahead. What
//! that clock shows beside ours does not matter: it is the same for both. Pure; time arrives as an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::core::mix::Scene;

/// What nobody notices. Less is not made up for, as each hold delays people. Pictures that are further ahead
/// are held for all of it: they wait for a tick besides, and what was left of the lead would add to that.
const TOLERANCE_US: i64 = 10_000;
/// Nobody's picture is held for longer, nor their sound: what is further apart stays so.
const PICTURE_HOLD_US_MAX: i64 = 250_000;
const SOUND_HOLD_US_MAX: i64 = 150_000;
/// The way here is the shortest of this time and the one before: later packets have waited on the network.
const WINDOW: Duration = Duration::from_secs(2);

/// How long a stream's packets take from being captured to being here, by the clocks of both.
#[derive(Debug, Default)]
struct Transit {
    since: Option<Instant>,
    least_us: Option<i64>,
    least_before_us: Option<i64>,
}

impl Transit {
    fn note(&mut self, now: Instant, took_us: i64) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= WINDOW {
            self.since = Some(now);
            self.least_before_us = self.least_us.take();
        }
        self.least_us = Some(self.least_us.map_or(took_us, |least_us| least_us.min(took_us)));
    }

    fn least_us(&self) -> Option<i64> {
        self.least_us.into_iter().chain(self.least_before_us).min()
    }
}

/// How long to hold what comes into two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    pub picture_slot: u16,
    pub picture: Duration,
    pub sound_slot: u16,
    pub sound: Duration,
}

/// How long the mixer takes with a slot's sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundDelay {
    /// With what it is held for now.
    pub now: Duration,
    /// Were it not held.
    pub unheld: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Step {
    epoch: Instant,
    transits: BTreeMap<u16, Transit>,
    /// Slots of pictures and of the sound that belongs to them.
    pairs: Vec<(u16, u16)>,
}

impl Step {
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, transits: BTreeMap::new(), pairs: Vec::new() }
    }

    pub fn set_scene(&mut self, scene: &Scene) {
        self.pairs = scene.tiles.iter().filter_map(|tile| tile.slot.zip(tile.sound)).collect();
    }

    /// A packet has come: the last of a picture, or one of sound.
    pub fn note(&mut self, now: Instant, slot: u16, captured_us: i64) {
        let here_us = now.saturating_duration_since(self.epoch).as_micros() as i64;
        self.transits.entry(slot).or_default().note(now, here_us.saturating_sub(captured_us));
    }

    /// Another stream comes into a slot, by another clock.
    pub fn forget(&mut self, slot: u16) {
        self.transits.remove(&slot);
    }

    /// How long to hold whom. `sound_of` says how long a slot's sound takes in the mixer, `picture` how long
    /// any picture does. Those of whom nothing is known are not held.
    pub fn holds(
        &self,
        sound_of: impl Fn(u16) -> Option<SoundDelay>,
        picture: Duration,
    ) -> impl Iterator<Item = Hold> {
        let transit_us = |slot: u16| self.transits.get(&slot).and_then(Transit::least_us);
        self.pairs.iter().map(move |&(picture_slot, sound_slot)| {
            let apart_us = || {
                let delay = sound_of(sound_slot)?;
                let ahead_us = transit_us(sound_slot)?
                    .saturating_sub(transit_us(picture_slot)?)
                    .saturating_sub(picture.as_micros() as i64);
                let with = |took: Duration| ahead_us.saturating_add(took.as_micros() as i64);
                Some((with(delay.now), with(delay.unheld)))
            };
            // How far the picture is ahead, now and were the sound not held.
            let (now_us, unheld_us) = apart_us().unwrap_or_default();
            Hold {
                picture_slot,
                picture: if now_us > TOLERANCE_US {
                    hold(now_us, PICTURE_HOLD_US_MAX)
                } else {
                    Duration::ZERO
                },
                sound_slot,
                // By steps as small as they come, as each is heard.
                sound: hold(unheld_us.saturating_neg().saturating_sub(TOLERANCE_US), SOUND_HOLD_US_MAX),
            }
        })
    }
}

fn hold(us: i64, most_us: i64) -> Duration {
    Duration::from_micros(us.clamp(0, most_us) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mix::{Area, Fit, Tile};

    const MS: Duration = Duration::from_millis(1);
    /// How far a sender's clock is from ours, which must not matter.
    const CLOCK_US: i64 = 1_790_000_000_000_000;

    fn step(now: Instant) -> Step {
        let area = Area { x: 0, y: 0, width: 2, height: 2 };
        let (label, fit) = (String::new(), Fit::Cover);
        let tile = Tile {
            key: 1,
            slot: Some(1),
            serial: 1,
            sound: Some(2),
            area,
            fit,
            label,
            muted: false,
            speaking: false,
        };
        let mut step = Step::new(now);
        step.set_scene(&Scene { background: 0, tiles: vec![tile], voices: Vec::new() });
        step
    }

    /// A second of pictures and of sound that take so long to come here, every fifth packet late.
    fn pass(step: &mut Step, begin: Instant, picture_ms: u32, sound_ms: u32) {
        for number in 0..50 {
            let at = MS * 20 * number;
            let late = MS * if number % 5 == 0 { 40 } else { 0 };
            let captured_us = CLOCK_US + at.as_micros() as i64;
            step.note(begin + at + MS * picture_ms + late, 1, captured_us);
            step.note(begin + at + MS * sound_ms + late, 2, captured_us);
        }
    }

    fn held(step: &Step, sound_ms: u32, held_ms: u32) -> (u128, u128) {
        let delay = SoundDelay { now: MS * (sound_ms + held_ms), unheld: MS * sound_ms };
        let holds: Vec<Hold> = step.holds(|_| Some(delay), MS * 20).collect();
        assert_eq!((holds.len(), holds[0].picture_slot, holds[0].sound_slot), (1, 1, 2));
        (holds[0].picture.as_millis(), holds[0].sound.as_millis())
    }

    #[test]
    fn whichever_is_ahead_is_held_up_to_a_bound() {
        let now = Instant::now();
        for (picture_ms, sound_ms, expected) in [
            // The mixer takes 70 ms with sound and 20 with pictures: 50 apart.
            (30, 30, (50, 0)),
            // And 10, which are not noticed.
            (70, 30, (0, 0)),
            (90, 30, (0, 0)),
            (130, 30, (0, 40)),
            (5, 900, (250, 0)),
            (900, 5, (0, 150)),
        ] {
            let mut step = step(now);
            pass(&mut step, now, picture_ms, sound_ms);
            assert_eq!(held(&step, 70, 0), expected, "{picture_ms} and {sound_ms} ms");
        }
    }

    #[test]
    fn sound_that_is_held_stays_held_and_its_picture_is_not_held_for_it() {
        let now = Instant::now();
        let mut step = step(now);
        pass(&mut step, now, 130, 30);
        assert_eq!(held(&step, 70, 40), (0, 40));
        // The picture's way has become shorter: it waits until the sound has come after.
        pass(&mut step, now + WINDOW, 30, 30);
        pass(&mut step, now + 3 * WINDOW, 30, 30);
        assert_eq!(held(&step, 70, 40), (90, 0));
        assert_eq!(held(&step, 70, 0), (50, 0));
    }

    #[test]
    fn nothing_is_held_of_whom_nothing_is_known() {
        let now = Instant::now();
        let mut step = step(now);
        assert_eq!(held(&step, 70, 0), (0, 0));
        pass(&mut step, now, 30, 30);
        step.forget(2);
        assert_eq!(held(&step, 70, 0), (0, 0));
        step.note(now, 2, i64::MIN);
        step.note(now, 1, i64::MAX);
        assert_eq!(held(&step, 70, 0), (250, 0));
    }
}
