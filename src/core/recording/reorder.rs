//! The jitter buffer of one track: packets in, packets in their order out, with what is lost.
//!
//! A recording is in no hurry, so that it waits for what is resent: up to [`WAIT_US`], and for as long as no
//! more than [`WAITING_MAX`] packets have come after what is missing. A key frame is asked for before that,
//! after [`ASK_AFTER_US`], so that a loss which is final costs little more picture than that.

use std::collections::BTreeMap;

use crate::core::mix::MixPacket;

/// Three round trips of a slow path, and what its sender takes to answer.
pub const WAIT_US: i64 = 500_000;
/// One round trip of most paths.
const ASK_AFTER_US: i64 = 200_000;
/// Half a second of 20 Mbit/s.
const WAITING_MAX: usize = 1_024;
/// A larger jump is no loss but another beginning.
const DROPOUT_MAX: u64 = 3_000;

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ordered {
    /// With when it came.
    Packet(MixPacket, i64),
    /// So many packets will not come any more.
    Lost(u64),
    /// Something is missing, and may yet come.
    Missing,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Reorder {
    /// The next sequence number; none before the first packet.
    next: Option<u64>,
    waiting: BTreeMap<u64, (MixPacket, i64)>,
    /// Since when the next one is missing, and whether that was said.
    missing_since: Option<i64>,
    asked: bool,
}

impl Reorder {
    /// Takes a packet that came at `now_us`.
    pub fn push(&mut self, now_us: i64, packet: MixPacket) {
        let next = *self.next.get_or_insert(packet.seq_no);
        if packet.seq_no.abs_diff(next) > DROPOUT_MAX {
            self.next = Some(packet.seq_no);
            self.waiting.clear();
            self.missing_since = None;
        } else if packet.seq_no < next {
            // Twice, or too late.
            return;
        }
        self.waiting.insert(packet.seq_no, (packet, now_us));
    }

    /// What comes next, if it is time for it.
    pub fn poll(&mut self, now_us: i64) -> Option<Ordered> {
        let (&first, &(_, came_us)) = self.waiting.first_key_value()?;
        let next = self.next?;
        if first > next {
            let since = *self.missing_since.get_or_insert(came_us);
            let waited = now_us.saturating_sub(since);
            if waited >= WAIT_US || self.waiting.len() > WAITING_MAX {
                return Some(self.give_up(first, next));
            }
            let asks = waited >= ASK_AFTER_US && !std::mem::replace(&mut self.asked, waited >= ASK_AFTER_US);
            return asks.then_some(Ordered::Missing);
        }
        self.missing_since = None;
        self.asked = false;
        self.next = Some(first + 1);
        let (packet, came_us) = self.waiting.pop_first()?.1;
        Some(Ordered::Packet(packet, came_us))
    }

    fn give_up(&mut self, first: u64, next: u64) -> Ordered {
        self.next = Some(first);
        self.missing_since = None;
        self.asked = false;
        Ordered::Lost(first - next)
    }

    /// Gives what waits, as nothing comes any more.
    pub fn flush(&mut self) -> Option<Ordered> {
        let (&first, _) = self.waiting.first_key_value()?;
        match self.next {
            Some(next) if first > next => Some(self.give_up(first, next)),
            _ => self.poll(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::mix::Place;
    use crate::core::payload::Codec;

    fn packet(seq_no: u64) -> MixPacket {
        let place = Place::Track { slot: 0, serial: 1, encoding: 0 };
        let (codec, rtp_time, payload) = (Codec::Vp8, 0, [0].as_slice().into());
        MixPacket { place, codec, seq_no, rtp_time, captured_us: None, marker: false, payload }
    }

    fn drain(reorder: &mut Reorder, now_us: i64) -> Vec<String> {
        let said = std::iter::from_fn(|| reorder.poll(now_us)).map(|ordered| match ordered {
            Ordered::Packet(packet, _) => packet.seq_no.to_string(),
            Ordered::Lost(count) => format!("lost {count}"),
            Ordered::Missing => "missing".into(),
        });
        said.collect()
    }

    #[test]
    fn what_is_resent_in_time_takes_its_place() {
        let mut reorder = Reorder::default();
        for seq_no in [5, 6, 8, 9] {
            reorder.push(0, packet(seq_no));
        }
        assert_eq!(drain(&mut reorder, 0), ["5", "6"]);
        assert_eq!(drain(&mut reorder, ASK_AFTER_US), ["missing"]);
        assert_eq!(drain(&mut reorder, ASK_AFTER_US + 1), Vec::<String>::new(), "said once");
        reorder.push(WAIT_US - 1, packet(7));
        assert_eq!(drain(&mut reorder, WAIT_US - 1), ["7", "8", "9"]);
    }

    #[test]
    fn what_does_not_come_is_lost_and_what_comes_too_late_is_nothing() {
        let mut reorder = Reorder::default();
        for seq_no in [5, 8, 9] {
            reorder.push(0, packet(seq_no));
        }
        assert_eq!(drain(&mut reorder, WAIT_US), ["5", "lost 2", "8", "9"]);
        reorder.push(WAIT_US, packet(7));
        reorder.push(WAIT_US, packet(9));
        assert_eq!(drain(&mut reorder, WAIT_US), Vec::<String>::new());
    }

    #[test]
    fn it_holds_no_more_than_its_bound_and_another_beginning_is_no_loss() {
        let mut reorder = Reorder::default();
        reorder.push(0, packet(0));
        for seq_no in 2..=WAITING_MAX as u64 + 2 {
            reorder.push(0, packet(seq_no));
        }
        let said = drain(&mut reorder, 0);
        assert_eq!((said[1].as_str(), said.len()), ("lost 1", WAITING_MAX + 3));
        reorder.push(0, packet(1_000_000));
        reorder.push(0, packet(1_000_001));
        assert_eq!(drain(&mut reorder, 0), ["1000000", "1000001"]);
    }

    proptest! {
        #[test]
        fn numbers_only_rise_and_every_one_is_a_packet_or_lost(
            arrivals in prop::collection::vec((0u64..80, 0i64..400_000), 1..200)
        ) {
            let mut reorder = Reorder::default();
            let (mut now_us, mut next) = (0, None);
            let mut take = |ordered: Option<Ordered>| match ordered {
                Some(Ordered::Packet(packet, _)) => {
                    let expected = *next.get_or_insert(packet.seq_no);
                    next = Some(packet.seq_no + 1);
                    (true, packet.seq_no == expected)
                }
                Some(Ordered::Lost(count)) => {
                    next = next.map(|next| next + count);
                    (true, true)
                }
                Some(Ordered::Missing) => (true, true),
                None => (false, true),
            };
            for (seq_no, step_us) in arrivals {
                now_us += step_us;
                reorder.push(now_us, packet(seq_no));
                loop {
                    let (more, fits) = take(reorder.poll(now_us));
                    prop_assert!(fits);
                    if !more {
                        break;
                    }
                }
            }
            while let (true, fits) = take(reorder.flush()) {
                prop_assert!(fits);
            }
            prop_assert!(reorder.waiting.is_empty());
        }
    }
}
