//! What a client got, judged as a browser would: by slot, in order, frame by frame.
//!
//! A [`Slot`] is one m-line. Its packets are counted by their [`Stamp`]s (loss, duplicates, order), and video
//! is played out as a jitter buffer and a VP8 decoder would: a frame shows once it is whole and what it
//! refers to was shown. A slot that is stuck asks for a key frame.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::stamp::{AUDIO, Stamp};

/// A gap that retransmission has not filled for so long makes the receiver ask for a key frame.
const KEY_FRAME_AFTER: Duration = Duration::from_millis(300);
/// Packets that wait for a gap to be filled: 2 s of a 4 Mbit/s stream. Beyond it the oldest are given up.
const WAITING_MAX: usize = 1024;

/// Greatest step of a counter that is believed.
const LEAP_MAX: u32 = 1 << 20;

/// A packet as it came off the wire.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Extended sequence number of the slot's stream.
    pub seq_no: u64,
    pub ssrc: u32,
    pub marker: bool,
    pub stamp: Stamp,
    pub at: Instant,
}

/// A frame that a decoder could show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub at: Instant,
    pub publisher: u32,
    pub encoding: u8,
    pub frame: u32,
    pub key: bool,
}

/// Which packets of one encoding came: a bit for each counter.
///
/// A counter far beyond the highest one is refused: it would only be a broken server's, and cost memory.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    seen: Vec<u64>,
    highest: Option<u32>,
    pub packets: u64,
    pub duplicates: u64,
    /// Came after one with a greater counter.
    pub reordered: u64,
}

impl Tally {
    fn mark(&mut self, counter: u32) {
        let (word, bit) = (counter as usize / 64, 1u64 << (counter % 64));
        if counter > self.next().saturating_add(LEAP_MAX) && self.highest.is_some() {
            return;
        }
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.packets += 1;
        if self.highest.is_some_and(|highest| counter < highest) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(counter));
    }

    /// One more than the highest counter seen.
    pub fn next(&self) -> u32 {
        self.highest.map_or(0, |highest| highest.saturating_add(1))
    }

    /// Distinct packets with a counter in `from..to`.
    pub fn received(&self, from: u32, to: u32) -> u64 {
        let has = |counter: &u32| {
            self.seen.get(*counter as usize / 64).is_some_and(|word| word & (1 << (counter % 64)) != 0)
        };
        (from..to).filter(has).count() as u64
    }
}

/// One m-line of a receiving client.
#[derive(Debug, Default)]
pub struct Slot {
    /// Every SSRC that was seen; a slot of this server has one.
    pub ssrcs: Vec<u32>,
    /// By the sender's numbers, for each publisher and encoding.
    pub tallies: BTreeMap<(u32, u8), Tally>,
    /// By the slot's own sequence numbers, counted from [`Slot::first_seq_no`].
    pub sequence: Tally,
    pub first_seq_no: Option<u64>,
    pub playout: Playout,
}

impl Slot {
    /// Counts a packet and plays what it completes. True if it is new.
    pub fn handle(&mut self, arrival: Arrival) -> bool {
        if !self.ssrcs.contains(&arrival.ssrc) {
            self.ssrcs.push(arrival.ssrc);
        }
        let stamp = arrival.stamp;
        let tally = self.tallies.entry((stamp.publisher, stamp.encoding)).or_default();
        let packets = tally.packets;
        tally.mark(stamp.counter);
        let new = tally.packets > packets;
        // Before the first one seen there may be a few that were overtaken; they are not part of the account.
        let first = *self.first_seq_no.get_or_insert(arrival.seq_no);
        if let Some(number) = arrival.seq_no.checked_sub(first).and_then(|number| u32::try_from(number).ok())
        {
            self.sequence.mark(number);
        }
        if new && stamp.encoding != AUDIO {
            self.playout.handle(arrival);
        }
        new
    }
}

/// Jitter buffer and decoder of one video slot.
#[derive(Debug, Default)]
pub struct Playout {
    /// First sequence number that was not played yet.
    next: Option<u64>,
    waiting: BTreeMap<u64, Arrival>,
    /// What the decoder holds: publisher, encoding, frame.
    reference: Option<(u32, u8, u32)>,
    stuck_since: Option<Instant>,
    key_asked_at: Option<Instant>,
    pub frames: u64,
    pub key_frames_asked: u64,
    /// Frames that were whole but referred to one that was never sent here: a switch without a key frame.
    pub broken: u64,
    /// Longest time without a new picture since the first one.
    pub freeze_max: Duration,
    last_shown: Option<Instant>,
    /// Every frame shown, if kept.
    pub timeline: Option<Vec<Shown>>,
}

impl Playout {
    /// When the last frame was shown.
    pub fn last_shown(&self) -> Option<Instant> {
        self.last_shown
    }

    fn handle(&mut self, arrival: Arrival) {
        let first_key = arrival.stamp.key && arrival.stamp.part == 0;
        let Some(next) = self.next else {
            // Nothing can be shown before a key frame, so that is where the stream begins.
            self.stuck_since.get_or_insert(arrival.at);
            self.wait(arrival);
            if first_key {
                self.waiting = self.waiting.split_off(&arrival.seq_no);
                self.next = Some(arrival.seq_no);
                self.advance(arrival.at);
            }
            return;
        };
        if arrival.seq_no >= next {
            self.wait(arrival);
            self.advance(arrival.at);
        }
    }

    fn wait(&mut self, arrival: Arrival) {
        self.waiting.insert(arrival.seq_no, arrival);
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_first();
        }
    }

    /// Shows every whole frame; leaps over a gap to a whole key frame behind it once the gap is old.
    fn advance(&mut self, now: Instant) {
        loop {
            let Some(next) = self.next else { return };
            if let Some(end) = self.whole_frame(next) {
                self.take_frame(next, end, now);
                continue;
            }
            if self.waiting.is_empty() {
                return;
            }
            let stuck_since = *self.stuck_since.get_or_insert(now);
            let leap = now.duration_since(stuck_since) >= KEY_FRAME_AFTER / 3;
            let Some(key) = self.whole_key_frame_behind(next).filter(|_| leap) else { return };
            self.waiting = self.waiting.split_off(&key);
            self.next = Some(key);
        }
    }

    /// Last sequence number of the frame that begins at `first`, if all of it is here.
    fn whole_frame(&self, first: u64) -> Option<u64> {
        let begin = self.waiting.get(&first)?;
        let last = first.checked_add(u64::from(begin.stamp.parts.checked_sub(1)?))?;
        let whole = (first..=last).zip(0u16..).all(|(seq_no, part)| {
            self.waiting.get(&seq_no).is_some_and(|packet| {
                packet.stamp.part == part
                    && packet.stamp.frame == begin.stamp.frame
                    && packet.stamp.encoding == begin.stamp.encoding
                    && packet.stamp.publisher == begin.stamp.publisher
                    && packet.marker == (seq_no == last)
            })
        });
        whole.then_some(last)
    }

    fn whole_key_frame_behind(&self, next: u64) -> Option<u64> {
        self.waiting
            .range(next + 1..)
            .find(|(seq_no, packet)| {
                packet.stamp.key && packet.stamp.part == 0 && self.whole_frame(**seq_no).is_some()
            })
            .map(|(seq_no, _)| *seq_no)
    }

    fn take_frame(&mut self, first: u64, last: u64, now: Instant) {
        let rest = self.waiting.split_off(&(last + 1));
        let frame = std::mem::replace(&mut self.waiting, rest);
        self.next = Some(last + 1);
        let Some(stamp) = frame.get(&first).map(|packet| packet.stamp) else { return };
        let follows = self.reference.is_some_and(|(publisher, encoding, frame)| {
            (publisher, encoding, frame.wrapping_add(1)) == (stamp.publisher, stamp.encoding, stamp.frame)
        });
        if !stamp.key && !follows {
            self.broken += 1;
            self.reference = None;
            self.stuck_since.get_or_insert(now);
            return;
        }
        self.reference = Some((stamp.publisher, stamp.encoding, stamp.frame));
        self.frames += 1;
        self.stuck_since = None;
        self.key_asked_at = None;
        if let Some(last) = self.last_shown.replace(now) {
            self.freeze_max = self.freeze_max.max(now.duration_since(last));
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.push(Shown {
                at: now,
                publisher: stamp.publisher,
                encoding: stamp.encoding,
                frame: stamp.frame,
                key: stamp.key,
            });
        }
    }

    /// Whether to ask the sender for a key frame now; true once for each interval of being stuck.
    pub fn wants_key_frame(&mut self, now: Instant) -> bool {
        let Some(stuck_since) = self.stuck_since else { return false };
        let since = self.key_asked_at.unwrap_or(stuck_since);
        let wants = now.saturating_duration_since(since) >= KEY_FRAME_AFTER;
        if wants {
            self.key_asked_at = Some(now);
            self.key_frames_asked += 1;
        }
        wants
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::{VideoSource, single};
    use super::*;

    /// A second of video as it would arrive, with its key frame first.
    fn second_of_video(start: Instant) -> Vec<Arrival> {
        let mut source = VideoSource::new(1, single(1_500_000), start, Duration::from_secs(3600));
        let mut arrivals = Vec::new();
        for step in 0..30u32 {
            let at = start + Duration::from_millis(34) * step;
            source.emit(at, 0, |packet| {
                let stamp = Stamp::read(packet.payload).expect("a stamp");
                arrivals.push(Arrival { seq_no: packet.seq_no, ssrc: 1, marker: packet.marker, stamp, at });
            });
        }
        arrivals
    }

    #[test]
    fn every_frame_is_shown_and_counted_once() {
        let mut slot = Slot::default();
        let arrivals = second_of_video(Instant::now());
        for arrival in arrivals.iter().chain(&arrivals) {
            slot.handle(*arrival);
        }
        let tally = &slot.tallies[&(1, 0)];
        assert_eq!((tally.packets, tally.duplicates), (arrivals.len() as u64, arrivals.len() as u64));
        assert_eq!(tally.received(0, arrivals.len() as u32), arrivals.len() as u64);
        assert_eq!((slot.playout.frames, slot.playout.broken), (30, 0));
    }

    #[test]
    fn a_late_packet_heals_the_gap_that_it_left() {
        let mut slot = Slot::default();
        let mut arrivals = second_of_video(Instant::now());
        let late = arrivals.remove(40);
        arrivals.push(late);
        let mut frames_before = 0;
        for arrival in arrivals {
            frames_before = slot.playout.frames;
            slot.handle(arrival);
        }
        assert!(frames_before < 10, "{frames_before}");
        assert_eq!(slot.playout.frames, 30);
        assert_eq!(slot.tallies[&(1, 0)].reordered, 1);
    }

    #[test]
    fn a_hole_asks_for_a_key_frame_again_and_again() {
        let mut slot = Slot::default();
        let start = Instant::now();
        let mut arrivals = second_of_video(start);
        arrivals.remove(40);
        for arrival in arrivals {
            slot.handle(arrival);
        }
        let stuck = start + Duration::from_secs(1);
        assert!(slot.playout.wants_key_frame(stuck));
        assert!(!slot.playout.wants_key_frame(stuck + Duration::from_millis(1)));
        assert!(slot.playout.wants_key_frame(stuck + Duration::from_millis(301)));
        assert_eq!(slot.playout.key_frames_asked, 2);
    }

    #[test]
    fn a_switch_without_a_key_frame_is_broken() {
        let mut slot = Slot::default();
        for mut arrival in second_of_video(Instant::now()) {
            if arrival.stamp.frame >= 10 {
                arrival.stamp.encoding = 1;
            }
            slot.handle(arrival);
        }
        assert_eq!(slot.playout.frames, 10);
        assert!(slot.playout.broken > 0);
    }
}
