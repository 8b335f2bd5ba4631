//! One voice between its decoder, which follows the sender's clock and the network, and the mixer's ticks.
//!
//! A pull gives exactly one block and uses up a whole number of frames, so that each block begins where the
//! one before ended: while the depth is right it is copied bit for bit, else stretched or squeezed a little.
//! Where sound is to be held for its picture the depth is that much larger; it gets there in silence, which
//! may be longer or shorter unheard, or a little with each block. Pure; nothing here waits or knows the time.

use std::collections::VecDeque;

use super::sum::{Block, CHANNELS, FRAMES};

/// Left and right.
pub type Frame = [i16; CHANNELS];

/// What is to wait before the first pull, in frames of 48 kHz: 40 ms.
const TARGET: usize = 2 * FRAMES;
/// More than this, 200 ms, is not kept: the oldest goes, down to the target.
const BOUND: usize = 10 * FRAMES;
/// A mean depth from 40 to 60 ms is left alone. Less would run dry where a packet that came just before a
/// pull drifts behind it.
const SLACK: i32 = 480;
/// Samples that are all smaller, −60 dBFS, are silence.
const SILENCE: u16 = 33;
/// Frames that a block uses up more or less than it gives: 0.42 %, which nobody hears.
const STEP_MAX: i32 = 4;
/// A step more for each of these beyond the slack.
const FRAMES_PER_STEP: i32 = 240;
/// Depth is a mean over as many pulls: 640 ms.
const PULLS_OF_MEAN: i32 = 32;
/// Joins that would click are faded over these: 5 ms.
const FADE: usize = 240;

/// See the module. Bounded by [`BOUND`] and what it is held for: the oldest is dropped.
#[derive(Debug, Default)]
pub struct VoiceQueue {
    frames: VecDeque<Frame>,
    /// It fills up to the target before it is played, at first and after it ran dry.
    is_playing: bool,
    /// The mean depth times [`PULLS_OF_MEAN`].
    depths: i32,
    /// The last frame that was pulled.
    last: Frame,
    /// Frames by which the depth is to be larger.
    held: usize,
}

impl VoiceQueue {
    /// Adds frames, as a decoder gives them.
    pub fn push(&mut self, frames: &[Frame]) {
        self.frames.extend(frames);
        if self.frames.len() > BOUND + self.held {
            self.drop_oldest();
        }
    }

    /// Plays so many frames later than it would.
    pub fn hold(&mut self, frames: usize) {
        self.held = frames;
    }

    /// Frames between being pushed and being pulled: the mean, now and were nothing held. `None` while it
    /// does not play.
    pub fn delay(&self) -> Option<(usize, usize)> {
        let depth = usize::try_from(self.depths / PULLS_OF_MEAN).ok().filter(|_| self.is_playing)?;
        Some((depth, TARGET + SLACK as usize))
    }

    fn target(&self) -> usize {
        TARGET + self.held
    }

    /// Fills a block with the next 20 ms. False, and the block is silent: there is nothing to play.
    pub fn pull(&mut self, block: &mut Block) -> bool {
        let begins = !self.is_playing;
        if begins && self.frames.len() < self.target() {
            block.fill(0);
            return false;
        }
        self.is_playing = true;
        let depth = self.frames.len() as i32;
        if begins {
            self.depths = depth * PULLS_OF_MEAN;
        } else {
            self.depths += depth - self.depths / PULLS_OF_MEAN;
        }
        if !begins && self.waits_in_silence(block) {
            return true;
        }
        let count = FRAMES.saturating_add_signed(self.step() as isize);
        if self.frames.len() < count {
            self.run_dry(block);
            return true;
        }
        self.stretch(count, block);
        if begins {
            fade(block, |frame| frame.min(FADE));
        }
        let (frames, _) = block.as_chunks::<CHANNELS>();
        self.last = frames.last().copied().unwrap_or_default();
        true
    }

    /// Frames by which the mean depth is more than what is left alone.
    fn error(&self) -> i32 {
        self.depths / PULLS_OF_MEAN - (self.target() as i32 + SLACK)
    }

    /// How many frames more than a block's the next block uses up.
    fn step(&self) -> i32 {
        let error = self.error();
        let beyond = error.abs() - SLACK;
        let step = if beyond > 0 { (1 + beyond / FRAMES_PER_STEP).min(STEP_MAX) } else { 0 };
        step * error.signum()
    }

    /// Where the depth is a block or more from what it is to be and the next block is silent, that is played
    /// once more, or never. True where it has filled the block.
    fn waits_in_silence(&mut self, block: &mut Block) -> bool {
        let error = self.error();
        let mut next = self.frames.iter().take(FRAMES).flatten();
        let has_two = self.frames.len() > 2 * FRAMES;
        if error.unsigned_abs() < FRAMES as u32 || !has_two || next.any(|s| s.unsigned_abs() >= SILENCE) {
            return false;
        }
        self.depths -= error.signum() * FRAMES as i32 * PULLS_OF_MEAN;
        if error > 0 {
            self.frames.drain(..FRAMES);
            return false;
        }
        let (out, _) = block.as_chunks_mut::<CHANNELS>();
        out.iter_mut().zip(&self.frames).for_each(|(out, next)| *out = *next);
        self.last = out.last().copied().unwrap_or_default();
        true
    }

    /// Makes a block out of the next `count` frames by linear interpolation.
    fn stretch(&mut self, count: usize, block: &mut Block) {
        let (out, _) = block.as_chunks_mut::<CHANNELS>();
        if count == FRAMES {
            let (first, second) = self.frames.as_slices();
            let (head, tail) = out.split_at_mut(first.len().min(FRAMES));
            head.copy_from_slice(&first[..head.len()]);
            tail.copy_from_slice(&second[..tail.len()]);
            self.frames.drain(..count);
            return;
        }
        let frame_at = |at: usize| self.frames.get(at).copied();
        for (place, out) in out.iter_mut().enumerate() {
            let (at, part) = (place * count / FRAMES, (place * count % FRAMES) as i32);
            let this = frame_at(at).unwrap_or_default();
            let next = frame_at(at + 1).unwrap_or(this);
            for (out, (this, next)) in out.iter_mut().zip(this.into_iter().zip(next)) {
                let (this, next) = (i32::from(this), i32::from(next));
                *out = (this + (next - this) * part / FRAMES as i32) as i16;
            }
        }
        self.frames.drain(..count);
    }

    /// Plays what is left, fades to silence and stops until there is enough again.
    fn run_dry(&mut self, block: &mut Block) {
        let left = self.frames.len().min(FRAMES);
        // Where too little is left to fade, its last frame stands still while it fades.
        let last = self.frames.back().copied().unwrap_or(self.last);
        let end = if left >= FADE { left } else { left + FADE };
        let (out, _) = block.as_chunks_mut::<CHANNELS>();
        for (place, out) in out.iter_mut().enumerate() {
            let held = if place < end { last } else { Frame::default() };
            *out = self.frames.get(place).copied().unwrap_or(held);
        }
        fade(block, |place| end.saturating_sub(place).min(FADE));
        self.frames.clear();
        self.last = Frame::default();
        self.is_playing = false;
    }

    /// Jumps ahead to the target's depth, faded over from what would have come next.
    fn drop_oldest(&mut self) {
        let old: Vec<Frame> = self.frames.iter().take(FADE).copied().collect();
        self.frames.drain(..self.frames.len().saturating_sub(self.target()));
        for (place, (new, old)) in self.frames.iter_mut().zip(old).enumerate() {
            for (new, old) in new.iter_mut().zip(old) {
                let (from, to) = (i32::from(old), i32::from(*new));
                *new = (from + (to - from) * place as i32 / FADE as i32) as i16;
            }
        }
        self.depths = self.target() as i32 * PULLS_OF_MEAN;
    }
}

/// Scales each frame of a block by `level` of its place, of [`FADE`].
fn fade(block: &mut Block, level: impl Fn(usize) -> usize) {
    let (frames, _) = block.as_chunks_mut::<CHANNELS>();
    for (place, frame) in frames.iter_mut().enumerate() {
        let level = level(place) as i32;
        for sample in frame {
            *sample = (i32::from(*sample) * level / FADE as i32) as i16;
        }
    }
}

#[cfg(test)]
mod tests;
