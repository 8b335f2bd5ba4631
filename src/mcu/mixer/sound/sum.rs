//! The arithmetic of the mix: one sum of all voices, what is left of it without one's own, and the limiter
//! that makes samples of a sum.

/// Of all sound here.
pub const SAMPLES_PER_SECOND: u32 = 48_000;
pub const CHANNELS: usize = 2;
/// Of a block, for each channel: 20 ms.
pub const FRAMES: usize = 960;
pub const SAMPLES: usize = FRAMES * CHANNELS;

/// 20 ms of sound, left and right in turn.
pub type Block = [i16; SAMPLES];

/// Up to here, −3 dBFS, the limiter leaves sound as it is.
const UNTOUCHED: f32 = 23_197.0;
/// No sample is larger.
const FULL: f32 = 32_767.0;
/// Loud sound is turned down within so many frames, 5 ms.
const ATTACK: usize = 240;
/// What the gain comes back by in each block, of what it was turned down by: half in 130 ms.
const RELEASE: f32 = 0.1;
/// A gain above is one.
const GAIN_IS_ONE: f32 = 0.999;

/// Voices added up; 32 bits hold 65,536 of the loudest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum([i32; SAMPLES]);

impl Default for Sum {
    fn default() -> Self {
        Self([0; SAMPLES])
    }
}

impl Sum {
    pub fn add(&mut self, block: &Block) {
        for (sum, sample) in self.0.iter_mut().zip(block) {
            *sum += i32::from(*sample);
        }
    }

    /// What is left without a part of it.
    pub fn without(&self, part: &Self) -> Self {
        let mut rest = self.clone();
        for (rest, part) in rest.0.iter_mut().zip(&part.0) {
            *rest -= part;
        }
        rest
    }
}

/// The loudest sample of a block.
pub fn peak(block: &Block) -> u16 {
    block.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or_default()
}

/// Turns a sum down where it would not fit into 16 bits: quickly down, slowly up. What is too loud while it
/// is still being turned down is bent, not cut.
#[derive(Debug)]
pub struct Limiter {
    gain: f32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { gain: 1.0 }
    }
}

impl Limiter {
    /// The next 20 ms of one line.
    pub fn limit(&mut self, sum: &Sum) -> Block {
        let peak = sum.0.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or_default() as f32;
        let fitting = (UNTOUCHED / peak.max(1.0)).min(1.0);
        let from = self.gain;
        let is_attack = fitting < from;
        let to = if is_attack { fitting } else { from + (fitting - from) * RELEASE };
        self.gain = if to > GAIN_IS_ONE { 1.0 } else { to };
        let ramp = if is_attack { ATTACK } else { FRAMES };
        let mut block = [0; SAMPLES];
        for (place, (out, sample)) in block.iter_mut().zip(&sum.0).enumerate() {
            let way = ((place / CHANNELS) as f32 / ramp as f32).min(1.0);
            *out = bend(*sample as f32 * (from + (self.gain - from) * way));
        }
        block
    }
}

/// Leaves what is below [`UNTOUCHED`] and lets the rest approach [`FULL`], which nothing reaches.
fn bend(sample: f32) -> i16 {
    let size = sample.abs();
    if size <= UNTOUCHED {
        return sample.round() as i16;
    }
    let over = (size - UNTOUCHED) / (FULL - UNTOUCHED);
    (UNTOUCHED + (FULL - UNTOUCHED) * over / (1.0 + over)).copysign(sample) as i16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(samples: &[i16]) -> Block {
        let mut block = [0; SAMPLES];
        block.iter_mut().zip(samples.iter().cycle()).for_each(|(out, sample)| *out = *sample);
        block
    }

    fn sum<'a>(blocks: impl Iterator<Item = &'a Block>) -> Sum {
        let mut sum = Sum::default();
        blocks.for_each(|block| sum.add(block));
        sum
    }

    proptest! {
        #[test]
        fn all_but_one_is_the_sum_of_the_others(
            voices in prop::collection::vec(prop::collection::vec(any::<i16>(), 1..20), 1..20),
        ) {
            let blocks: Vec<Block> = voices.iter().map(|samples| block(samples)).collect();
            let all = sum(blocks.iter());
            for own in 0..blocks.len() {
                let others = blocks.iter().enumerate().filter(|(at, _)| *at != own).map(|(_, block)| block);
                prop_assert_eq!(all.without(&sum([&blocks[own]].into_iter())), sum(others));
            }
        }

        #[test]
        fn what_is_quiet_passes_as_it_is_and_nothing_is_cut(
            voices in prop::collection::vec(prop::collection::vec(any::<i16>(), 1..20), 1..40),
            quiet in prop::collection::vec(-23_000_i16..23_000, 1..20),
        ) {
            let quiet = block(&quiet);
            prop_assert_eq!(Limiter::default().limit(&sum([&quiet].into_iter())), quiet);
            let blocks: Vec<Block> = voices.iter().map(|samples| block(samples)).collect();
            let (mut limiter, all) = (Limiter::default(), sum(blocks.iter()));
            for _ in 0..3 {
                let out = limiter.limit(&all);
                for (out, exact) in out.iter().zip(&all.0) {
                    prop_assert!(out.unsigned_abs() <= 32_767);
                    prop_assert!(i32::from(*out).signum() * exact.signum() >= 0, "a sample that wraps");
                }
            }
            prop_assert!(f32::from(peak(&limiter.limit(&all))) <= UNTOUCHED + 1.0, "turned down by now");
        }
    }

    #[test]
    fn the_gain_comes_back_to_one() {
        let (loud, quiet) = (block(&[30_000, -30_000]), block(&[1_234, -77]));
        let mut limiter = Limiter::default();
        limiter.limit(&sum([&loud, &loud, &loud].into_iter()));
        assert!(limiter.gain < 0.3);
        let blocks = (0..200).position(|_| limiter.limit(&sum([&quiet].into_iter())) == quiet);
        assert!(blocks.is_some_and(|blocks| blocks < 100), "{blocks:?}");
    }
}
