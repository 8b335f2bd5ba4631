//! The mixing desk: what is decoded, summed and encoded with each tick, on one thread.
//!
//! All voices are summed once and each key's own subtracted, so work grows with the people and not with their
//! square. Those who are silent hear what everybody hears: they take copies of the common line's packets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::decode::Decoder;
use super::encode::{Emit, Encoder, Taker};
use super::sum::{Block, FRAMES, SAMPLES, SAMPLES_PER_SECOND, Sum, peak};
use crate::core::mix::{LINE_MINUS, LINE_SOUND, MixPacket, Place, Voice};
use crate::core::payload::Codec;
use crate::mcu::graph::GraphError;
use crate::mcu::mixer::clock::Clock;

const TICKS_PER_SECOND: u64 = SAMPLES_PER_SECOND as u64 / FRAMES as u64;
/// A voice whose samples are all smaller, −60 dBFS, is silent.
const HEARD_MIN: u16 = 33;
/// A key has its own encoder until it was silent for so long: 2 s.
const SPEAKS_TICKS: u64 = 2 * TICKS_PER_SECOND;
/// What nobody uses is kept for so long, 10 s.
const KEPT_TICKS: u64 = 10 * TICKS_PER_SECOND;
/// A graph that cannot be made is tried again after a second.
const RETRY_TICKS: u64 = TICKS_PER_SECOND;
/// More slots than this are not decoded; a room shows and hears far fewer.
const SLOTS_MAX: usize = 256;

/// What is to be heard by whom.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    pub voices: Vec<Voice>,
    pub wanted: BTreeSet<u8>,
    /// Frames by which slots are to be later than they would be.
    pub holds: BTreeMap<u16, usize>,
}

/// See the module.
pub struct Desk {
    clock: Clock,
    emit: Emit,
    tick: u64,
    slots: BTreeMap<u16, Slot>,
    lines: BTreeMap<u8, Line>,
    /// When each key was last heard.
    heard: BTreeMap<u32, u64>,
}

/// A slot that packets came for.
struct Slot {
    /// `None`: it could not be made.
    decoder: Option<Decoder>,
    /// What comes in, as the scene says.
    serial: Option<u64>,
    /// When one was last made, or tried. No more often than [`RETRY_TICKS`], whatever a sender does.
    made: Option<u64>,
    /// When it was in a scene for the last time, or made.
    used: u64,
}

/// A line that was wanted.
#[derive(Default)]
struct Line {
    seq_no: u64,
    encoder: Option<Encoder>,
    /// When its encoder was last fed.
    used: u64,
    /// No encoder is made before.
    retry: u64,
}

/// The voices of a tick.
#[derive(Default)]
struct Heard {
    all: Sum,
    by_key: BTreeMap<u32, Sum>,
}

impl Desk {
    pub fn new(clock: Clock, emit: Emit) -> Self {
        let (slots, lines, heard) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { clock, emit, tick: 0, slots, lines, heard }
    }

    /// Frames that each slot's sound takes, now and were nothing held.
    pub fn delays(&self) -> BTreeMap<u16, (usize, usize)> {
        let delays = self.slots.iter();
        delays.filter_map(|(number, slot)| Some((*number, slot.decoder.as_ref()?.delay()?))).collect()
    }

    /// Decodes a packet, its slot's first one by a new decoder.
    pub fn take(&mut self, packet: &MixPacket) {
        let Place::Slot(number) = packet.place else { return };
        if packet.codec != Codec::Opus {
            return;
        }
        let now = self.tick;
        let may_grow = self.slots.len() < SLOTS_MAX;
        let slot = match self.slots.get_mut(&number) {
            Some(slot) => slot,
            None if may_grow => self.slots.entry(number).or_insert(Slot {
                decoder: None,
                serial: None,
                made: None,
                used: now,
            }),
            None => return,
        };
        let may_make = slot.made.is_none_or(|made| now >= made + RETRY_TICKS);
        let is_fit = slot.decoder.as_ref().is_some_and(|decoder| decoder.takes(packet));
        if !is_fit && may_make {
            slot.decoder.take().into_iter().for_each(Decoder::put_away);
            slot.decoder = noted(Decoder::start(packet));
            slot.made = Some(now);
            slot.used = now;
        }
        if let Some(decoder) = &mut slot.decoder {
            decoder.feed(packet);
        }
    }

    /// Mixes the 20 ms of a tick; ticks grow, not always by one.
    pub fn mix(&mut self, tick: u64, orders: &Orders) {
        self.tick = tick;
        let heard = self.listen(orders);
        // The copies that the packet of the common line goes to.
        let mut takers = Vec::new();
        let minus = orders.voices.iter().filter_map(|voice| Some((voice.minus?, voice.key)));
        let minus: BTreeMap<u8, u32> = minus.collect();
        // Whoever is muted is no part of what all hear.
        for line in orders.wanted.iter().filter(|&&line| line >= LINE_MINUS && !minus.contains_key(&line)) {
            takers.push(self.taker(*line));
        }
        for (line, key) in minus {
            if line == LINE_SOUND || !orders.wanted.contains(&line) {
                continue;
            }
            let taker = self.taker(line);
            if self.speaks(key) {
                match heard.by_key.get(&key) {
                    Some(own) => self.encode(line, &heard.all.without(own), vec![taker]),
                    None => self.encode(line, &heard.all, vec![taker]),
                }
            } else {
                takers.push(taker);
            }
        }
        if orders.wanted.contains(&LINE_SOUND) {
            takers.push(self.taker(LINE_SOUND));
        }
        if !takers.is_empty() {
            self.encode(LINE_SOUND, &heard.all, takers);
        }
        if tick.is_multiple_of(TICKS_PER_SECOND) {
            self.put_away(&orders.voices);
        }
    }

    /// Takes 20 ms of every slot, so that none grows old, and sums those that are in the scene.
    fn listen(&mut self, orders: &Orders) -> Heard {
        let mut heard = Heard::default();
        let mut block: Block = [0; SAMPLES];
        let voices: BTreeMap<u16, &Voice> = orders.voices.iter().map(|voice| (voice.slot, voice)).collect();
        for (number, slot) in &mut self.slots {
            let held = orders.holds.get(number).copied().unwrap_or_default();
            slot.decoder.iter().for_each(|decoder| decoder.hold(held));
            let has_sound = slot.decoder.as_ref().is_some_and(|decoder| decoder.pull(&mut block));
            let Some(Voice { serial, key, .. }) = voices.get(number) else { continue };
            if slot.serial.replace(*serial).is_some_and(|before| before != *serial) {
                // What waits is of whoever had the slot before: it must not pass for this one's voice.
                slot.decoder.iter().for_each(Decoder::forget);
                continue;
            }
            if slot.decoder.is_some() {
                slot.used = self.tick;
            }
            if has_sound {
                heard.all.add(&block);
                heard.by_key.entry(*key).or_default().add(&block);
                if peak(&block) >= HEARD_MIN {
                    self.heard.insert(*key, self.tick);
                }
            }
        }
        heard
    }

    /// Whether a key is, or was a moment ago, part of what all hear.
    fn speaks(&self, key: u32) -> bool {
        self.heard.get(&key).is_some_and(|heard| self.tick - heard < SPEAKS_TICKS)
    }

    /// A line's next packet. It is counted now, since two encoders may be at work on a line's packets.
    fn taker(&mut self, number: u8) -> Taker {
        let line = self.lines.entry(number).or_default();
        line.seq_no += 1;
        (number, line.seq_no)
    }

    fn encode(&mut self, number: u8, sum: &Sum, takers: Vec<Taker>) {
        let line = self.lines.entry(number).or_default();
        line.used = self.tick;
        if line.encoder.as_ref().is_some_and(Encoder::has_failed) {
            line.encoder = None;
        }
        if line.encoder.is_none() && self.tick >= line.retry {
            line.retry = self.tick + RETRY_TICKS;
            line.encoder = noted(Encoder::start(self.clock, Arc::clone(&self.emit)));
        }
        if let Some(encoder) = &mut line.encoder {
            encoder.encode(self.tick, sum, takers);
        }
    }

    /// Ends what was not used for a while. A line keeps its count.
    fn put_away(&mut self, voices: &[Voice]) {
        let oldest = self.tick.saturating_sub(KEPT_TICKS);
        self.slots.retain(|_, slot| slot.used >= oldest);
        for line in self.lines.values_mut().filter(|line| line.used < oldest) {
            line.encoder = None;
        }
        self.heard.retain(|key, _| voices.iter().any(|voice| voice.key == *key));
    }
}

/// What was made, or the reason in the log.
fn noted<T>(made: Result<T, GraphError>) -> Option<T> {
    made.inspect_err(|error| tracing::error!(%error, "no graph for sound")).ok()
}
