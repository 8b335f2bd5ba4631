//! What a link carries: where packets wait for it, or many are lost, encodings are withheld, the fullest
//! first, until the rest fits.
//!
//! To a branch an encoding that is withheld looks like one that its publisher does not send, and its viewers
//! go on with a lower one. Sound is never withheld, as it is next to nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::core::rate::RateMeter;
use crate::core::room::ParticipantKey;

/// An encoding of a branch: the branch, its sender's seat, line and encoding.
pub type Flow = (u32, ParticipantKey, u8, u8);

/// How long packets may wait for a link that carries all.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// What is less than two packets is no queue: a few bytes wait always, and where all video is withheld there
/// is no rate to measure them by.
const QUEUE_MIN: usize = 2_500;
/// A link that loses more of what it is sent is taken for one that is full.
const LOSS_MAX: f64 = 0.1;
/// It is judged by no fewer packets.
const JUDGED_MIN: u32 = 20;
/// After a change it is not judged again for so long.
const SETTLE: Duration = Duration::from_millis(500);
/// The first try to send again what was withheld; each that fails doubles it, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// A flow that is not offered for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct State {
    rate: RateMeter,
    seen_at: Instant,
    withheld: bool,
}

/// See the module; one for each link.
#[derive(Debug)]
pub struct Budget {
    flows: BTreeMap<Flow, State>,
    /// Of what was let through.
    sent: RateMeter,
    /// What waited when it was last looked at, bytes.
    backlog: usize,
    /// Packets that were sent, and of them missing, since losses were last judged.
    counted: (u32, u32),
    settled_at: Option<Instant>,
    retry_at: Option<Instant>,
    retry_after: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        let (flows, sent) = (BTreeMap::new(), RateMeter::default());
        Self {
            flows,
            sent,
            backlog: 0,
            counted: (0, 0),
            settled_at: None,
            retry_at: None,
            retry_after: RETRY.0,
        }
    }
}

impl Budget {
    /// Whether a packet of video goes out.
    pub fn admit(&mut self, now: Instant, flow: Flow, bytes: usize) -> bool {
        let fresh = || State { rate: RateMeter::default(), seen_at: now, withheld: false };
        let state = self.flows.entry(flow).or_insert_with(fresh);
        state.seen_at = now;
        state.rate.add(now, bytes);
        if !state.withheld {
            self.sent.add(now, bytes);
        }
        !state.withheld
    }

    /// A packet was sent, of whatever kind.
    pub fn note_sent(&mut self) {
        self.counted.0 += 1;
    }

    /// The other side misses so many.
    pub fn note_missing(&mut self, packets: usize) {
        self.counted.1 = self.counted.1.saturating_add(u32::try_from(packets).unwrap_or(u32::MAX));
    }

    /// Whether more is lost than a network loses that has room.
    fn loses(&mut self) -> bool {
        let (sent, missing) = self.counted;
        if sent < JUDGED_MIN {
            return false;
        }
        self.counted = (0, 0);
        f64::from(missing) > f64::from(sent) * LOSS_MAX
    }

    /// Looks at how much waits to be sent, in bytes: some ten times a second. True when something changed.
    pub fn handle_backlog(&mut self, now: Instant, bytes: usize) -> bool {
        let is_forgotten = |state: &State| now.saturating_duration_since(state.seen_at) > FORGOTTEN_AFTER;
        self.flows.retain(|_, state| !is_forgotten(state));
        // What shrinks is on its way, and needs no more than time; so may what has just come: a key frame is
        // a burst, and what carries it out may be late on a busy machine.
        let before = std::mem::replace(&mut self.backlog, bytes);
        let grows = before > 0 && bytes >= before;
        let loses = self.loses();
        if self.settled_at.is_some_and(|at| now < at) {
            return false;
        }
        let bps = self.sent.bps(now).max(1);
        let queued = if bytes < QUEUE_MIN { 0 } else { bytes };
        let wait = Duration::from_secs_f64(queued as f64 * 8.0 / bps as f64);
        let changed = if wait > WAIT_MAX && grows {
            self.withhold(now, 0)
        } else if loses {
            // A lossy path is no reason to show nothing.
            self.withhold(now, 1)
        } else {
            wait <= WAIT_MAX && self.release(now)
        };
        if changed {
            self.settled_at = Some(now + SETTLE);
        }
        changed
    }

    /// The fullest encoding of the track with the most of them goes first; of what is left the largest. None
    /// below `lowest`.
    fn withhold(&mut self, now: Instant, lowest: u8) -> bool {
        let flowing = self.flows.iter_mut();
        let flowing = flowing.filter(|((_, _, _, encoding), state)| !state.withheld && *encoding >= lowest);
        let ranked = flowing.map(|((_, _, _, encoding), state)| {
            let bps = state.rate.bps(now);
            ((*encoding, bps), state)
        });
        let Some((_, state)) = ranked.max_by_key(|(rank, _)| *rank) else { return false };
        state.withheld = true;
        if self.retry_at.is_some() {
            self.retry_after = (self.retry_after * 2).min(RETRY.1);
        }
        self.retry_at = Some(now + self.retry_after);
        true
    }

    /// What was withheld is tried again, the lowest encoding first.
    fn release(&mut self, now: Instant) -> bool {
        if self.retry_at.is_none_or(|at| now < at) {
            return false;
        }
        let withheld = self.flows.iter_mut().filter(|(_, state)| state.withheld);
        let first = withheld.min_by_key(|((_, _, _, encoding), _)| *encoding);
        let Some((_, state)) = first else {
            // All flows: the next time of need begins anew.
            self.retry_at = None;
            self.retry_after = RETRY.0;
            return false;
        };
        state.withheld = false;
        // If this one fits, the next is not to wait for as long as after tries that failed.
        self.retry_at = Some(now + RETRY.0);
        true
    }

    /// Encodings that were offered lately.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Encodings that are withheld.
    pub fn withheld(&self) -> usize {
        self.flows.values().filter(|state| state.withheld).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(20);

    /// A link of this rate, fed with encodings of these, bits per second; gives what waits and which flowed
    /// in the last second.
    fn feed(
        budget: &mut Budget,
        now: &mut Instant,
        backlog: &mut f64,
        link_bps: f64,
        rates: &[f64],
        seconds: u32,
    ) -> Vec<u8> {
        let mut flowed = Vec::new();
        for turn in 0..seconds * 50 {
            *now += TICK;
            for (encoding, bps) in (0..).zip(rates) {
                let bytes = bps / 8.0 / 50.0;
                if budget.admit(*now, (1, ParticipantKey(0), 0, encoding), bytes as usize) {
                    *backlog += bytes;
                    if turn >= (seconds - 1) * 50 && !flowed.contains(&encoding) {
                        flowed.push(encoding);
                    }
                }
            }
            *backlog = (*backlog - link_bps / 8.0 / 50.0).max(0.0);
            if turn % 5 == 0 {
                budget.handle_backlog(*now, *backlog as usize);
            }
        }
        flowed
    }

    #[test]
    fn a_link_that_carries_all_carries_all() {
        let (mut budget, mut now, mut backlog) = (Budget::default(), Instant::now(), 0.0);
        let flowed = feed(&mut budget, &mut now, &mut backlog, 5e6, &[0.2e6, 0.6e6, 2e6], 20);
        assert_eq!((flowed, budget.withheld()), (vec![0, 1, 2], 0));
    }

    #[test]
    fn a_burst_that_is_gone_by_the_next_look_withholds_nothing() {
        let (mut budget, mut now) = (Budget::default(), Instant::now());
        for _ in 0..30 {
            budget.admit(now, (1, ParticipantKey(0), 0, 1), 30_000);
            assert!(!budget.handle_backlog(now, 30_000), "it has just come");
            now += Duration::from_millis(100);
            assert!(!budget.handle_backlog(now, 0));
            now += Duration::from_millis(100);
        }
        budget.handle_backlog(now, 30_000);
        assert!(budget.handle_backlog(now + Duration::from_millis(100), 30_000), "it stays");
    }

    #[test]
    fn a_narrow_link_carries_lower_encodings_and_tries_again() {
        let (mut budget, mut now, mut backlog) = (Budget::default(), Instant::now(), 0.0);
        let rates = [0.2e6, 0.6e6, 2e6];
        let flowed = feed(&mut budget, &mut now, &mut backlog, 1e6, &rates, 4);
        assert_eq!((flowed, budget.withheld()), (vec![0, 1], 1));
        assert!(backlog < 10_000.0, "{backlog}");
        let flowed = feed(&mut budget, &mut now, &mut backlog, 5e6, &rates, 20);
        assert_eq!((flowed, budget.withheld()), (vec![0, 1, 2], 0));
    }

    #[test]
    fn a_link_that_drops_instead_of_queueing_is_found_out() {
        let (mut budget, mut now) = (Budget::default(), Instant::now());
        let mut run = |budget: &mut Budget, lost: usize| {
            for _ in 0..20 {
                now += Duration::from_millis(100);
                (0..30).for_each(|_| budget.note_sent());
                for encoding in 0..2 {
                    budget.admit(now, (1, ParticipantKey(0), 0, encoding), 1_000);
                }
                budget.note_missing(lost);
                budget.handle_backlog(now, 0);
            }
            budget.withheld()
        };
        assert_eq!(run(&mut budget, 1), 0, "any network loses some");
        assert_eq!(run(&mut budget, 10), 1, "but not the lowest encoding");
    }

    #[test]
    fn tries_that_fail_become_rare() {
        let (mut budget, mut now, mut backlog) = (Budget::default(), Instant::now(), 0.0);
        let mut withheld_for = 0;
        for _ in 0..180 {
            feed(&mut budget, &mut now, &mut backlog, 1e6, &[0.2e6, 2e6], 1);
            withheld_for += budget.withheld();
        }
        assert!(withheld_for > 150, "{withheld_for} of 180 seconds");
    }

    #[test]
    fn what_is_withheld_altogether_is_tried_again() {
        let (mut budget, mut now, mut backlog) = (Budget::default(), Instant::now(), 0.0);
        feed(&mut budget, &mut now, &mut backlog, 1e5, &[2e6, 2e6], 3);
        assert_eq!(budget.withheld(), 2);
        for _ in 0..200 {
            now += Duration::from_millis(100);
            for encoding in 0..2 {
                budget.admit(now, (1, ParticipantKey(0), 0, encoding), 1_000);
            }
            budget.handle_backlog(now, 32);
        }
        assert_eq!(budget.withheld(), 0);
    }

    #[test]
    fn the_last_encoding_goes_too_where_nothing_fits() {
        let (mut budget, mut now, mut backlog) = (Budget::default(), Instant::now(), 0.0);
        assert_eq!(feed(&mut budget, &mut now, &mut backlog, 1e5, &[2e6, 2e6], 3), Vec::<u8>::new());
    }
}
