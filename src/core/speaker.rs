//! Who speaks: the dominant speaker, and the few whose audio is forwarded, from the levels in RFC 6464.
//!
//! Speech is counted in ticks of 20 ms over three spans, in the spirit of Volfin and Cohen's dominant speaker
//! identification: a cough is loud but short, an interjection is short, a turn lasts. Whoever begins to speak
//! is heard at once; who is shown changes slowly.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One usual packet of audio.
const TICK_MS: u128 = 20;
/// Spans, in ticks: still speaking (0.2 s), a phrase (1 s), a turn (2.5 s).
const IMMEDIATE: u32 = 10;
const PHRASE: u32 = 50;
const TURN: u32 = 128;
/// Packets of up to 60 ms, or late by that much, speak for the ticks before them.
const TICKS_FILLED_MAX: u64 = 3;

/// How often the dominant speaker is looked for, at most.
pub const EVALUATION_INTERVAL: Duration = Duration::from_millis(300);
/// A new speaker stays for at least this long.
const HOLD: Duration = Duration::from_millis(1_800);
/// Speech within a phrase that makes a challenger: more than a cough or a "yes" has.
const CHALLENGE_TICKS: u32 = 30;
/// And it goes on.
const CHALLENGE_IMMEDIATE_TICKS: u32 = 3;
/// Speech within a phrase, below which the speaker has stopped.
const STOPPED_TICKS: u32 = 10;
/// Speech that makes the first speaker of a room.
const FIRST_TICKS: u32 = 10;
/// How much more of a turn than the speaker a challenger needs to have spoken, while both speak.
const DOMINANCE_TICKS: u32 = 40;

/// Loudness is counted up from -127 dBov. Below this nothing is speech (-60 dBov).
const SPEECH_LOUDNESS_MIN: f32 = 67.0;
/// Speech stands out from the room's noise by this much, in dB.
const ABOVE_NOISE: f32 = 8.0;
/// Noise is never taken to be louder than this (-45 dBov), so that music or a long talk stays speech.
const NOISE_MAX: f32 = 82.0;
/// The noise estimate follows a louder room slowly: dB for each packet, 2 dB a second.
const NOISE_RISE: f32 = 0.04;
/// What is quieter (-100 dBov) is digital silence, a muted microphone, and tells nothing of the room's noise.
const DIGITAL_SILENCE: f32 = 27.0;
/// Weight of a new packet in the loudness of a speaker: a mean of about one second.
const LOUDNESS_WEIGHT: f32 = 0.02;

/// Speech, in ticks of the last 100 ms, that asks for an audio slot: 40 ms.
const ENTER_TICKS: u32 = 2;
const ENTER_SPAN: u32 = 5;
/// A slot whose holder has been silent for this long is free to take.
const RELEASE_AFTER: Duration = Duration::from_millis(600);
/// A voice is shown as speaking for this long after its last word.
const SPEAKING: Duration = Duration::from_millis(500);
/// To take the slot of someone who speaks: this much louder, for half of the last second.
const STEAL_LOUDER: f32 = 6.0;
const STEAL_TICKS: u32 = 25;

/// Another dominant speaker; `None` for a room where no one has spoken, or whose speaker has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeakerChange<K> {
    pub from: Option<K>,
    pub to: Option<K>,
}

/// See the module. One for each room; holds an entry for each participant until it is removed.
#[derive(Debug)]
pub struct Speakers<K> {
    voices: BTreeMap<K, Voice>,
    speaker: Option<K>,
    changed_at: Option<Instant>,
    evaluated_at: Option<Instant>,
    /// The speaker that was last reported.
    reported: Option<K>,
    loudest: Vec<Option<K>>,
    epoch: Option<Instant>,
}

impl<K: Ord + Copy> Speakers<K> {
    /// `slots`: how many are heard at a time.
    pub fn new(slots: usize) -> Self {
        Self {
            voices: BTreeMap::new(),
            speaker: None,
            changed_at: None,
            evaluated_at: None,
            reported: None,
            loudest: vec![None; slots],
            epoch: None,
        }
    }

    /// One packet's level: 0 (loudest) to 127 (silence), in -dBov, and the V bit. True where the packet is of
    /// one of the loudest, to be forwarded.
    pub fn handle_level(&mut self, now: Instant, key: K, level: u8, vad: Option<bool>) -> bool {
        let tick = self.tick(now);
        let voice = self.voices.entry(key).or_default();
        let speaks = voice.hear(tick, level, vad);
        if speaks {
            voice.spoke_at = Some(now);
        }
        self.admit(now, tick, key)
    }

    /// A packet without a level, of a sender that does not support the extension. It is heard like speech,
    /// but never makes a dominant speaker.
    pub fn handle_unmeasured(&mut self, now: Instant, key: K) -> bool {
        let tick = self.tick(now);
        let voice = self.voices.entry(key).or_default();
        voice.spoke_at = Some(now);
        voice.measured = false;
        self.admit(now, tick, key)
    }

    /// The participant has left or its audio has ended.
    pub fn remove(&mut self, key: K) {
        self.voices.remove(&key);
        for slot in self.loudest.iter_mut().filter(|slot| **slot == Some(key)) {
            *slot = None;
        }
        if self.speaker == Some(key) {
            self.speaker = None;
            self.changed_at = None;
        }
    }

    pub fn speaker(&self) -> Option<K> {
        self.speaker
    }

    /// Who is heard. A participant stays in its place for as long as it is among them.
    pub fn loudest(&self) -> &[Option<K>] {
        &self.loudest
    }

    pub fn is_heard(&self, key: K) -> bool {
        self.loudest.contains(&Some(key))
    }

    /// Who speaks at this moment, the loudest first.
    pub fn speaking(&self, now: Instant) -> Vec<K> {
        let lately =
            |voice: &Voice| voice.spoke_at.is_some_and(|at| now.saturating_duration_since(at) < SPEAKING);
        let voices = self.voices.iter().filter(|(_, voice)| voice.measured && lately(voice));
        let mut speaking: Vec<(K, f32)> = voices.map(|(key, voice)| (*key, voice.loudness)).collect();
        speaking.sort_by(|a, b| b.1.total_cmp(&a.1));
        speaking.into_iter().map(|(key, _)| key).collect()
    }

    /// Looks for the dominant speaker, at most once in [`EVALUATION_INTERVAL`].
    pub fn poll(&mut self, now: Instant) -> Option<SpeakerChange<K>> {
        let passed = |at: Instant, span: Duration| now.saturating_duration_since(at) >= span;
        let due = self.evaluated_at.is_none_or(|at| passed(at, EVALUATION_INTERVAL));
        if due {
            self.evaluated_at = Some(now);
            let tick = self.tick(now);
            let held = self.changed_at.is_some_and(|at| !passed(at, HOLD));
            if !held && let Some(next) = self.challenger(tick) {
                self.speaker = Some(next);
                self.changed_at = Some(now);
            }
        }
        let change = SpeakerChange { from: self.reported, to: self.speaker };
        self.reported = self.speaker;
        (change.from != change.to).then_some(change)
    }

    /// Who ought to be the speaker instead.
    fn challenger(&self, tick: u64) -> Option<K> {
        let speaker = self.speaker.and_then(|key| self.voices.get(&key));
        let others = self.voices.iter().filter(|(key, _)| Some(**key) != self.speaker);
        let needed = if speaker.is_some() { CHALLENGE_TICKS } else { FIRST_TICKS };
        let (best, voice) = others
            .filter(|(_, voice)| voice.ticks(tick, PHRASE) >= needed)
            .filter(|(_, voice)| voice.ticks(tick, IMMEDIATE) >= CHALLENGE_IMMEDIATE_TICKS)
            .max_by_key(|(_, voice)| (voice.ticks(tick, TURN), voice.loudness as u32))?;
        let Some(speaker) = speaker else { return Some(*best) };
        let stopped = speaker.ticks(tick, PHRASE) < STOPPED_TICKS;
        let dominates = voice.ticks(tick, TURN) >= speaker.ticks(tick, TURN) + DOMINANCE_TICKS;
        (stopped || dominates).then_some(*best)
    }

    /// Gives `key` a place among the loudest if it is due one; true if it has one.
    fn admit(&mut self, now: Instant, tick: u64, key: K) -> bool {
        if self.is_heard(key) {
            return true;
        }
        let place =
            self.loudest.iter().position(Option::is_none).or_else(|| self.place_to_take(now, tick, key));
        let Some(slot) = place.and_then(|place| self.loudest.get_mut(place)) else { return false };
        *slot = Some(key);
        true
    }

    fn place_to_take(&self, now: Instant, tick: u64, key: K) -> Option<usize> {
        let entrant = self.voices.get(&key)?;
        if entrant.measured && entrant.ticks(tick, ENTER_SPAN) < ENTER_TICKS {
            return None;
        }
        let holders = || self.loudest.iter().enumerate().filter_map(|(place, held)| Some((place, (*held)?)));
        let spoke_at = |key: K| self.voices.get(&key).and_then(|voice| voice.spoke_at);
        let (longest_silent, holder) = holders().min_by_key(|&(_, held)| spoke_at(held))?;
        let silent = spoke_at(holder).is_none_or(|at| now.saturating_duration_since(at) >= RELEASE_AFTER);
        if silent {
            return Some(longest_silent);
        }
        let loudness =
            |key: K| self.voices.get(&key).filter(|voice| voice.measured).map(|voice| voice.loudness);
        let (quietest, quiet) = holders()
            .filter(|&(_, held)| Some(held) != self.speaker)
            .filter_map(|(place, held)| Some((place, loudness(held)?)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let louder = entrant.measured && entrant.loudness >= quiet + STEAL_LOUDER;
        (louder && entrant.ticks(tick, PHRASE) >= STEAL_TICKS).then_some(quietest)
    }

    /// Ticks since the first call, from a number up that leaves room below.
    fn tick(&mut self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(now);
        u64::from(TURN) + (now.saturating_duration_since(epoch).as_millis() / TICK_MS) as u64
    }
}

/// What was heard of one participant.
#[derive(Debug)]
struct Voice {
    /// Bit `n` is set where there was speech in tick `newest - n`.
    speech: u128,
    newest: u64,
    spoke: bool,
    /// Mean of its speech, and the noise behind it, in dB above -127 dBov.
    loudness: f32,
    noise: f32,
    spoke_at: Option<Instant>,
    measured: bool,
}

impl Default for Voice {
    fn default() -> Self {
        let loudness = 0.0;
        Self {
            speech: 0,
            newest: 0,
            spoke: false,
            loudness,
            noise: NOISE_MAX,
            spoke_at: None,
            measured: true,
        }
    }
}

impl Voice {
    /// Takes in one packet; true where it is speech.
    fn hear(&mut self, tick: u64, level: u8, vad: Option<bool>) -> bool {
        let loudness = 127.0 - f32::from(level.min(127));
        if loudness > DIGITAL_SILENCE {
            self.noise = (self.noise + NOISE_RISE).min(loudness).min(NOISE_MAX);
        }
        let threshold = (self.noise + ABOVE_NOISE).max(SPEECH_LOUDNESS_MIN);
        let speaks = loudness >= threshold && vad != Some(false);
        let step = tick.saturating_sub(self.newest);
        self.speech = if step < u64::from(TURN) { self.speech << step } else { 0 };
        self.newest = self.newest.max(tick);
        if speaks {
            let filled = if self.spoke { step.clamp(1, TICKS_FILLED_MAX) } else { 1 };
            self.speech |= (1 << filled) - 1;
            self.loudness +=
                (loudness - self.loudness) * if self.loudness == 0.0 { 1.0 } else { LOUDNESS_WEIGHT };
        }
        self.spoke = speaks;
        self.measured = true;
        speaks
    }

    /// Ticks with speech among the last `span`.
    fn ticks(&self, tick: u64, span: u32) -> u32 {
        let behind = tick.saturating_sub(self.newest);
        if behind >= u64::from(span) {
            return 0;
        }
        let recent = u128::MAX >> (u128::BITS - (span - behind as u32));
        (self.speech & recent).count_ones()
    }
}

#[cfg(test)]
#[path = "speaker_tests.rs"]
mod tests;
