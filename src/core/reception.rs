//! What has come of one RTP stream: its extended numbers, what is new, what is missing, and what is reported
//! of it (RFC 3550 §6.4.1, appendix A; RFC 4585 §6.2.1).
//!
//! A packet is looked up ([`Reception::extend`], [`Reception::is_new`]) before it is known to be genuine, and
//! only what is genuine is noted ([`Reception::note`]). Numbers farther behind the newest than
//! [`WINDOW_PACKETS`] count as seen, which is the replay protection of RFC 3711 §3.3.2.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::rtcp::{ReportBlock, SenderReport};

/// As far back a packet may come late, or again: two seconds of a fast stream.
const WINDOW_PACKETS: u64 = 1_024;
const WORDS: usize = WINDOW_PACKETS as usize / 64;
/// Missing packets that are asked for. More: the stream has jumped, and the eldest are given up.
const MISSING_MAX: usize = 256;
/// A packet is asked for so often.
const TRIES_MAX: u8 = 6;
/// Until a resend has shown how long one takes.
const RESEND_TIME_UNKNOWN: Duration = Duration::from_millis(100);
const RESEND_TIME_MIN: Duration = Duration::from_millis(20);
const RESEND_TIME_MAX: Duration = Duration::from_millis(400);

/// A packet that has not come.
#[derive(Debug, Clone, Copy)]
struct Missing {
    seq_no: u64,
    tries: u8,
    first_asked_at: Option<Instant>,
    ask_at: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Reception {
    /// One above the highest extended number; 0 before the first packet.
    next: u64,
    /// Bit `n % WINDOW_PACKETS` is set where `n` was seen, for the last [`WINDOW_PACKETS`] numbers.
    seen: [u64; WORDS],
    first: u64,
    /// Packets of this stream, without what came again on another.
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// In 16ths of a tick of the stream's clock (RFC 3550 appendix A.8).
    jitter_16ths: u32,
    transit: Option<u32>,
    /// By number. `None` where nothing is to be asked for.
    missing: Option<VecDeque<Missing>>,
    resend_time: Duration,
    report: Option<(Instant, SenderReport)>,
}

impl Reception {
    /// `asks`: what is missing is asked for.
    pub fn new(asks: bool) -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
            first: 0,
            received: 0,
            expected_before: 0,
            received_before: 0,
            jitter_16ths: 0,
            transit: None,
            missing: asks.then(VecDeque::new),
            resend_time: RESEND_TIME_UNKNOWN,
            report: None,
        }
    }

    /// The extended number nearest to the newest (RFC 3711 appendix A).
    #[inline]
    pub fn extend(&self, seq_no: u16) -> u64 {
        let Some(highest) = self.next.checked_sub(1) else { return u64::from(seq_no) };
        let ahead = seq_no.wrapping_sub(highest as u16) as i16;
        let extended = highest.checked_add_signed(i64::from(ahead));
        // Before the first round there is none.
        extended.unwrap_or_else(|| highest.wrapping_add(u64::from(ahead as u16)))
    }

    /// Whether a packet of this number has not been seen.
    #[inline]
    pub fn is_new(&self, seq_no: u64) -> bool {
        seq_no >= self.next
            || self.next - seq_no <= WINDOW_PACKETS && self.seen[word(seq_no)] & bit(seq_no) == 0
    }

    /// Takes a genuine packet of this stream that [`Reception::is_new`]. True where it shows that others are
    /// missing.
    #[inline]
    pub fn note(&mut self, now: Instant, seq_no: u64) -> bool {
        self.received += 1;
        if self.next == 0 {
            self.first = seq_no;
            self.next = seq_no;
        }
        let expected = self.next;
        self.mark(seq_no);
        if seq_no < expected {
            self.found(now, seq_no);
            return false;
        }
        seq_no > expected && self.miss(now, expected..seq_no)
    }

    /// Takes a packet of this stream that came again on another (RFC 4588). False if it was seen.
    pub fn recover(&mut self, now: Instant, seq_no: u64) -> bool {
        if self.next == 0 || !self.is_new(seq_no) {
            return false;
        }
        let expected = self.next;
        self.mark(seq_no);
        if seq_no < expected {
            self.found(now, seq_no);
        } else {
            self.miss(now, expected..seq_no);
        }
        true
    }

    fn mark(&mut self, seq_no: u64) {
        if seq_no >= self.next {
            if seq_no - self.next >= WINDOW_PACKETS {
                self.seen = [0; WORDS];
            } else {
                (self.next..seq_no).for_each(|skipped| self.seen[word(skipped)] &= !bit(skipped));
            }
            self.next = seq_no + 1;
        }
        self.seen[word(seq_no)] |= bit(seq_no);
    }

    /// Interarrival jitter; `clock_rate` in Hz.
    #[inline]
    pub fn note_time(&mut self, since_start: Duration, rtp_time: u32, clock_rate: u32) {
        let here = since_start.as_micros() as u64 * u64::from(clock_rate) / 1_000_000;
        let transit = (here as u32).wrapping_sub(rtp_time);
        if let Some(before) = self.transit.replace(transit) {
            let apart = (transit.wrapping_sub(before) as i32).unsigned_abs().min(1 << 24);
            self.jitter_16ths = self.jitter_16ths + apart - ((self.jitter_16ths + 8) >> 4);
        }
    }

    fn found(&mut self, now: Instant, seq_no: u64) {
        let Some(missing) = &mut self.missing else { return };
        let Ok(place) = missing.binary_search_by_key(&seq_no, |missing| missing.seq_no) else { return };
        let Some(Missing { tries: 1, first_asked_at: Some(asked_at), .. }) = missing.remove(place) else {
            return;
        };
        let took = now.saturating_duration_since(asked_at).clamp(RESEND_TIME_MIN, RESEND_TIME_MAX);
        self.resend_time = (self.resend_time * 7 + took) / 8;
    }

    fn miss(&mut self, now: Instant, seq_nos: std::ops::Range<u64>) -> bool {
        let Some(missing) = &mut self.missing else { return false };
        let newest = seq_nos.end.saturating_sub(MISSING_MAX as u64).max(seq_nos.start);
        for seq_no in newest..seq_nos.end {
            if missing.len() == MISSING_MAX {
                missing.pop_front();
            }
            missing.push_back(Missing { seq_no, tries: 0, first_asked_at: None, ask_at: now });
        }
        true
    }

    /// Hands over the numbers to be asked for now, in order.
    pub fn ask(&mut self, now: Instant, mut each: impl FnMut(u16)) {
        let Some(missing) = &mut self.missing else { return };
        let oldest = self.next.saturating_sub(WINDOW_PACKETS);
        missing.retain_mut(|packet| {
            if now < packet.ask_at {
                return true;
            }
            if packet.tries == TRIES_MAX || packet.seq_no < oldest {
                return false;
            }
            each(packet.seq_no as u16);
            packet.tries += 1;
            packet.first_asked_at.get_or_insert(now);
            // A little more than a resend takes, so that none is asked for that is on its way.
            packet.ask_at = now + self.resend_time * 5 / 4;
            true
        });
    }

    /// When to ask again.
    pub fn ask_at(&self) -> Option<Instant> {
        self.missing.as_ref()?.iter().map(|missing| missing.ask_at).min()
    }

    pub fn handle_sender_report(&mut self, now: Instant, report: SenderReport) {
        self.report = Some((now, report));
    }

    /// What is to be reported of the stream `ssrc`, since the last time. `None` before its first packet.
    pub fn poll_report(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        let highest = self.next.checked_sub(1)?;
        let expected = self.next - self.first;
        let of_interval = expected - self.expected_before;
        let received = self.received - self.received_before;
        let lost = of_interval.saturating_sub(received);
        self.expected_before = expected;
        self.received_before = self.received;
        let (last_report, delay_since_last_report) = self.report.map_or((0, 0), |(at, report)| {
            let delay = now.saturating_duration_since(at).as_secs_f64() * 65_536.0;
            ((report.ntp_time >> 16) as u32, delay as u32)
        });
        Some(ReportBlock {
            ssrc,
            fraction_lost: (lost * 256).checked_div(of_interval).unwrap_or(0).min(255) as u8,
            lost: expected.saturating_sub(self.received).min(0x7f_ffff) as u32,
            highest_seq_no: highest as u32,
            jitter: self.jitter_16ths >> 4,
            last_report,
            delay_since_last_report,
        })
    }
}

fn word(seq_no: u64) -> usize {
    (seq_no % WINDOW_PACKETS / 64) as usize
}

fn bit(seq_no: u64) -> u64 {
    1 << (seq_no % 64)
}

#[cfg(test)]
#[path = "reception_tests.rs"]
mod tests;
