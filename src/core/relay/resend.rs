//! Packets that a link loses: the receiver sees what is missing and asks for it, the sender keeps the last
//! second and sends it again. So all viewers of a branch ask once, for one copy.
//!
//! Numbers are those of [`super::wire::Datagram::Media`], which wrap; here they are extended to 64 bits.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::wire::NAMED_MAX;

/// What is older is of no use to anybody: players have gone on.
const KEPT_FOR: Duration = Duration::from_secs(1);
const KEPT_BYTES_MAX: usize = 8 << 20;
/// One is missing once a later one came this long ago: the network may have changed their order.
const REORDERED_WITHIN: Duration = Duration::from_millis(3);
/// It is given up after so long.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(600);
/// Between two requests for one, at the least; else a round trip and a bit.
const ASK_EVERY_MIN: Duration = Duration::from_millis(15);
/// A hole that is larger is not filled but left: more than a second of a busy link.
const HOLE_MAX: u64 = 4_096;

/// What was sent lately, by its number.
#[derive(Debug, Default)]
pub struct Kept {
    packets: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// Number of the first that is kept.
    first: u64,
}

impl Kept {
    /// The number of the next packet.
    pub fn next_seq_no(&self) -> u32 {
        (self.first + self.packets.len() as u64) as u32
    }

    /// The next packet goes out.
    pub fn push(&mut self, now: Instant, datagram: Bytes) {
        self.bytes += datagram.len();
        self.packets.push_back((now, datagram));
        while let Some((at, oldest)) = self.packets.front() {
            let is_old = now.saturating_duration_since(*at) > KEPT_FOR;
            if !is_old && self.bytes <= KEPT_BYTES_MAX {
                return;
            }
            self.bytes -= oldest.len();
            self.packets.pop_front();
            self.first += 1;
        }
    }

    /// To be sent again; `None` for what is gone or never was.
    pub fn find(&self, seq_no: u32) -> Option<Bytes> {
        let place = seq_no.wrapping_sub(self.first as u32) as usize;
        self.packets.get(place).map(|(_, datagram)| datagram.clone())
    }
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    asked_at: Option<Instant>,
}

/// What came and what did not.
#[derive(Debug, Default)]
pub struct Gaps {
    /// The number after the highest that came.
    next: Option<u64>,
    missing: BTreeMap<u64, Missing>,
    /// Given up on so far.
    lost: u64,
}

impl Gaps {
    /// A packet came. False for one that came before.
    pub fn handle(&mut self, now: Instant, seq_no: u32) -> bool {
        let Some(next) = self.next else {
            // Room below it, as what comes first need not have been sent first.
            self.next = Some(u64::from(seq_no) + (1 << 32) + 1);
            return true;
        };
        let ahead = seq_no.wrapping_sub(next as u32) as i32;
        let number = next.saturating_add_signed(i64::from(ahead));
        if ahead < 0 {
            return self.missing.remove(&number).is_some();
        }
        if number - next <= HOLE_MAX {
            let missing = Missing { since: now, asked_at: None };
            self.missing.extend((next..number).map(|number| (number, missing)));
        } else {
            self.lost += number - next;
        }
        self.next = Some(number + 1);
        true
    }

    /// Those to ask for now, over a path of this round-trip time.
    pub fn poll_missing(&mut self, now: Instant, rtt: Duration) -> Vec<u32> {
        let before = self.missing.len();
        self.missing.retain(|_, one| now.saturating_duration_since(one.since) < GIVEN_UP_AFTER);
        self.lost += (before - self.missing.len()) as u64;
        let every = ASK_EVERY_MIN.max(rtt + rtt / 4);
        let mut named = Vec::new();
        for (number, one) in &mut self.missing {
            let is_due = match one.asked_at {
                Some(at) => now.saturating_duration_since(at) >= every,
                None => now.saturating_duration_since(one.since) >= REORDERED_WITHIN,
            };
            if is_due && named.len() < NAMED_MAX {
                one.asked_at = Some(now);
                named.push(*number as u32);
            }
        }
        named
    }

    /// Whether [`Gaps::poll_missing`] has anything to look at.
    pub fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// How many were given up since this was last asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_missing_is_asked_for_until_it_comes() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        assert!(gaps.handle(start, 5) && gaps.handle(start, 8));
        assert!(gaps.poll_missing(start, MS).is_empty(), "it may be late");
        assert_eq!(gaps.poll_missing(start + 4 * MS, MS), [6, 7]);
        assert!(gaps.poll_missing(start + 10 * MS, MS).is_empty(), "the answer is on its way");
        assert!(gaps.handle(start + 11 * MS, 6));
        assert!(!gaps.handle(start + 11 * MS, 6) && !gaps.handle(start + 11 * MS, 8), "twice");
        assert_eq!(gaps.poll_missing(start + 30 * MS, MS), [7]);
        assert!(gaps.poll_missing(start + 700 * MS, MS).is_empty());
        assert_eq!((gaps.take_lost(), gaps.has_missing()), (1, false));
    }

    #[test]
    fn numbers_wrap() {
        let now = Instant::now();
        let mut gaps = Gaps::default();
        assert!(gaps.handle(now, u32::MAX - 1) && gaps.handle(now, 1));
        assert_eq!(gaps.poll_missing(now + 5 * MS, MS), [u32::MAX, 0]);
        assert!(gaps.handle(now, 0) && gaps.handle(now, u32::MAX) && !gaps.has_missing());
    }

    #[test]
    fn what_is_old_is_not_kept() {
        let start = Instant::now();
        let mut kept = Kept::default();
        for number in 0..100u8 {
            let seq_no = kept.next_seq_no();
            assert_eq!(seq_no, u32::from(number));
            kept.push(start + u32::from(number) * 20 * MS, Bytes::from(vec![number]));
        }
        assert_eq!(kept.find(99), Some(Bytes::from(vec![99])));
        assert_eq!(kept.find(60), Some(Bytes::from(vec![60])));
        assert_eq!((kept.find(10), kept.find(100), kept.find(u32::MAX)), (None, None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Over a link that loses, all comes in the end, each once, as long as it is asked for in time.
        #[test]
        fn each_packet_comes_once(first: u32, fates in proptest::collection::vec(0.0..1.0f64, 20..200)) {
            let mut now = Instant::now();
            let (mut kept, mut gaps) = (Kept::default(), Gaps::default());
            kept.first = u64::from(first);
            let mut came = BTreeMap::<u32, u32>::new();
            let mut take = |gaps: &mut Gaps, now, seq_no: u32| {
                if gaps.handle(now, seq_no) {
                    *came.entry(seq_no).or_default() += 1;
                }
            };
            // The first and the last always come: what nobody knows of is not asked for.
            let last = fates.len() - 1;
            for (place, fate) in fates.iter().enumerate() {
                let seq_no = kept.next_seq_no();
                kept.push(now, Bytes::from_static(b"x"));
                if place == 0 || place == last || *fate > 0.3 {
                    take(&mut gaps, now, seq_no);
                }
                if *fate > 0.9 {
                    take(&mut gaps, now, seq_no);
                }
                now += MS;
                for (at, asked) in gaps.poll_missing(now, MS).into_iter().enumerate() {
                    prop_assert!(kept.find(asked).is_some());
                    if at % 2 == 0 {
                        take(&mut gaps, now, asked);
                    }
                }
            }
            for _ in 0..20 {
                now += 16 * MS;
                gaps.poll_missing(now, MS).into_iter().for_each(|asked| take(&mut gaps, now, asked));
            }
            prop_assert!(!gaps.has_missing());
            prop_assert_eq!(came.len(), fates.len());
            prop_assert!(came.values().all(|count| *count == 1));
        }
    }
}
