//! When packets of one connection came, by their transport-wide numbers, until their sender is told
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): what its bandwidth estimate is made from.

use std::collections::VecDeque;
use std::time::Instant;

use super::transport_cc::{DELTA_US, REFERENCE_US};
use super::write::{begin, end};
use super::{FORMAT_TRANSPORT_CC, TRANSPORT_FEEDBACK};

/// Arrivals that wait to be told. Full: the newest are left untold, as if they had not come.
const WAITING_MAX: usize = 4_096;
/// Arrivals told in one message, so that it fits into one datagram.
const TOLD_MAX: usize = 400;
/// Numbers that one message speaks of, most of which did not come.
const SPAN_MAX: u64 = 2_000;
const TICKS_PER_REFERENCE: i64 = REFERENCE_US / DELTA_US;
/// Chunks of a message: so many numbers at most, one bit or two bits each.
const RUN_MAX: usize = 0x1fff;
const ONE_BIT: usize = 14;
const TWO_BITS: usize = 7;

/// See the module.
#[derive(Debug)]
pub struct Arrivals {
    start: Instant,
    /// By number: extended, and the time in ticks of 250 µs since `start`.
    waiting: VecDeque<(u64, i64)>,
    /// One above the highest number; far from the beginning, so that there is a before.
    next: Option<u64>,
    messages: u8,
    symbols: Vec<u8>,
}

impl Arrivals {
    pub fn new(start: Instant) -> Self {
        Self { start, waiting: VecDeque::new(), next: None, messages: 0, symbols: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    #[inline]
    pub fn note(&mut self, now: Instant, seq_no: u16) {
        let next = self.next.unwrap_or(0x1_0000 | u64::from(seq_no));
        let ahead = seq_no.wrapping_sub(next as u16) as i16;
        let Some(number) = next.checked_add_signed(i64::from(ahead)) else { return };
        self.next = Some(next.max(number + 1));
        let ticks = now.saturating_duration_since(self.start).as_micros() as i64 / DELTA_US;
        if self.waiting.len() >= WAITING_MAX {
            return;
        }
        if self.waiting.back().is_none_or(|(last, _)| *last < number) {
            self.waiting.push_back((number, ticks));
        } else if let Err(place) = self.waiting.binary_search_by_key(&number, |(number, _)| *number) {
            self.waiting.insert(place, (number, ticks));
        }
    }

    /// Appends one message with what waits, as far as it fits; `ssrc` tells about the stream `of`. False when
    /// nothing waits.
    pub fn write(&mut self, ssrc: u32, of: u32, out: &mut Vec<u8>) -> bool {
        let Some(&(base, first)) = self.waiting.front() else { return false };
        let start = begin(ssrc, of, TRANSPORT_FEEDBACK, FORMAT_TRANSPORT_CC, out);
        let reference = first.div_euclid(TICKS_PER_REFERENCE);
        let (mut deltas, mut told) = (Vec::with_capacity(TOLD_MAX), 0);
        let (mut expected, mut before) = (base, reference * TICKS_PER_REFERENCE);
        self.symbols.clear();
        for &(number, at) in self.waiting.iter().take(TOLD_MAX) {
            let Ok(delta) = i16::try_from(at - before) else { break };
            if number - base >= SPAN_MAX {
                break;
            }
            self.symbols.resize(self.symbols.len() + (number - expected) as usize, 0);
            if let Ok(small) = u8::try_from(delta) {
                self.symbols.push(1);
                deltas.push(small);
            } else {
                self.symbols.push(2);
                deltas.extend_from_slice(&delta.to_be_bytes());
            }
            (expected, before, told) = (number + 1, at, told + 1);
        }
        self.waiting.drain(..told);
        out.extend_from_slice(&(base as u16).to_be_bytes());
        out.extend_from_slice(&(self.symbols.len() as u16).to_be_bytes());
        out.extend_from_slice(&(reference as u32).to_be_bytes()[1..]);
        out.push(self.messages);
        self.messages = self.messages.wrapping_add(1);
        write_chunks(&self.symbols, out);
        out.extend_from_slice(&deltas);
        end(start, out);
        true
    }
}

/// Writes what became of each number: as a run of the same, or in a vector of one or two bits each.
fn write_chunks(symbols: &[u8], out: &mut Vec<u8>) {
    let mut rest = symbols;
    while let Some(&first) = rest.first() {
        let run = rest.iter().take(RUN_MAX).take_while(|symbol| **symbol == first).count();
        let of_bits = rest.iter().take(ONE_BIT).take_while(|symbol| **symbol < 2).count();
        let (chunk, len) = if run >= ONE_BIT || run == rest.len() {
            (u16::from(first) << 13 | run as u16, run)
        } else if of_bits == ONE_BIT.min(rest.len()) {
            let bits = |chunk, (at, symbol): (usize, &u8)| chunk | u16::from(*symbol) << (13 - at);
            (rest[..of_bits].iter().enumerate().fold(0x8000, bits), of_bits)
        } else {
            let len = TWO_BITS.min(rest.len());
            let bits = |chunk, (at, symbol): (usize, &u8)| chunk | u16::from(*symbol) << (12 - 2 * at);
            (rest[..len].iter().enumerate().fold(0xc000, bits), len)
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        rest = &rest[len..];
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::core::rtcp::{Feedback, read};

    /// What a sender reads out of all messages: each number's arrival in ticks, where it came.
    fn told(arrivals: &mut Arrivals) -> Vec<(u16, Option<i64>)> {
        let mut told = Vec::new();
        let mut bytes = Vec::new();
        while arrivals.write(1, 2, &mut bytes) {
            assert!(bytes.len() < 1_200, "fits into a datagram");
            read(&bytes, |feedback| {
                let Feedback::TransportCc(report) = feedback else { panic!("{feedback:?}") };
                let reference = i64::from(report.reference) * TICKS_PER_REFERENCE;
                let ticks = |us| reference + us / DELTA_US;
                told.extend(report.packets().map(|(number, us)| (number, us.map(ticks))));
            });
            bytes.clear();
        }
        told
    }

    #[test]
    fn what_came_and_what_did_not_is_told_once() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        for (ms, seq_no) in [(100, 65_534u16), (101, 65_535), (300, 2), (301, 1), (900, 3), (301, 1)] {
            arrivals.note(at(ms), seq_no);
        }
        let expected =
            [(65_534, Some(400)), (65_535, Some(404)), (0, None), (1, Some(1_204)), (2, Some(1_200))];
        let expected: Vec<_> = expected.into_iter().chain([(3, Some(3_600))]).collect();
        assert_eq!(told(&mut arrivals), expected);
        assert_eq!(told(&mut arrivals), []);
        arrivals.note(at(1_000), 0);
        assert_eq!(told(&mut arrivals), [(0, Some(4_000))], "late, and told when it came");
    }

    #[test]
    fn a_pause_longer_than_a_message_can_tell_begins_another() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        arrivals.note(start, 1);
        arrivals.note(start + Duration::from_secs(20), 2);
        assert_eq!(told(&mut arrivals), [(1, Some(0)), (2, Some(80_000))]);
    }

    proptest! {
        #[test]
        fn every_arrival_is_read_as_it_was(
            steps in proptest::collection::vec((0u64..40, 0u64..90_000), 1..900),
            first in any::<u16>(),
        ) {
            let start = Instant::now();
            let mut arrivals = Arrivals::new(start);
            let (mut number, mut us, mut expected) = (first, 0, Vec::new());
            for (skipped, later) in steps {
                number = number.wrapping_add(1 + skipped.saturating_sub(30) as u16);
                us += later;
                arrivals.note(start + Duration::from_micros(us), number);
                expected.push((number, us as i64 / DELTA_US));
            }
            let came: Vec<_> = told(&mut arrivals).into_iter().filter_map(|(n, at)| Some((n, at?))).collect();
            prop_assert_eq!(came, expected);
        }

        #[test]
        fn no_number_breaks_it(numbers in proptest::collection::vec(any::<u16>(), 1..600)) {
            let start = Instant::now();
            let mut arrivals = Arrivals::new(start);
            for number in numbers {
                arrivals.note(start + Duration::from_millis(u64::from(number)), number);
            }
            told(&mut arrivals);
            prop_assert!(arrivals.is_empty());
        }
    }
}
