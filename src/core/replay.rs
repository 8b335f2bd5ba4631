//! The newest key frame of one encoding and all that followed it, while that is young and small: a slot that
//! begins gets it at once instead of waiting for a key frame of its own.
//!
//! Invariants: it begins with the first packet of a key frame; it spans at most [`AGE_MAX`], [`BYTES_MAX`]
//! and [`PACKETS_MAX`], and is emptied beyond that until the next key frame; what has a hole is not replayed.
//! Payloads are shared with all who forward them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::forward::PacketMeta;
use super::payload::{DependencyDescriptor, FrameInfo, VIDEO_CLOCK_RATE};
use super::track::KEYFRAME_INTERVAL_MIN;

/// After so long a key frame may be asked for again.
const AGE_MAX: Duration = KEYFRAME_INTERVAL_MIN;
/// Half a second of 2 Mbit/s.
const BYTES_MAX: usize = 128 * 1024;
const PACKETS_MAX: usize = 160;
/// A packet is expected within so long of the last: pictures come at 10 a second or more.
const QUIET: Duration = Duration::from_millis(100);
/// A path that takes longer for it is better served by a new key frame, if one may be asked for.
const BURST_MAX: Duration = Duration::from_millis(200);
/// Between two pictures of a replay. At their own pace they would teach the receiver's jitter buffer that
/// the path delays by as much as they are old.
const STEP: Duration = Duration::from_millis(1);
const STEP_TICKS: u32 = VIDEO_CLOCK_RATE / 1_000;
/// A packet farther behind the newest than this is not late but of a source that began anew.
const LATE_MAX: u64 = 512;

/// CSRCs in a header, at most [`CONTRIBUTORS_MAX`] (RFC 3550 §5.1).
pub type Contributors = SmallVec<[u32; 4]>;
/// No header names more.
pub const CONTRIBUTORS_MAX: usize = 15;

/// What few packets carry in their headers, and that goes on as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rare {
    /// 3GPP TS 26.114 §7.4.5, without the camera bits.
    pub orientation: Option<u8>,
    /// Two times 12 bits, in 10 ms.
    pub playout_delay: Option<[u8; 3]>,
    /// Of a mix.
    pub contributors: Contributors,
}

/// A packet that is kept.
#[derive(Debug)]
pub struct Recorded {
    seq_no: u64,
    /// As its source has it.
    pub rtp_time: u32,
    marker: bool,
    frame: FrameInfo,
    dd: Option<DependencyDescriptor>,
    pub payload: Arc<[u8]>,
    pub rare: Option<Box<Rare>>,
}

impl Recorded {
    fn new(packet: &PacketMeta<'_>, payload: &Arc<[u8]>, rare: Option<&Rare>) -> Self {
        Self {
            seq_no: packet.seq_no,
            rtp_time: packet.rtp_time,
            marker: packet.marker,
            frame: *packet.frame,
            dd: packet.dd.cloned(),
            payload: Arc::clone(payload),
            rare: rare.cloned().map(Box::new),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Replay {
    /// By sequence number, each once.
    packets: VecDeque<Recorded>,
    bytes: usize,
    /// When the first of them came, and the last.
    span: Option<(Instant, Instant)>,
    /// Highest sequence number of the encoding so far.
    newest: Option<u64>,
}

impl Replay {
    /// Takes note of a packet. False for one that others have overtaken: nothing can begin with it, since
    /// what follows it is gone already.
    #[inline]
    pub fn push(
        &mut self,
        now: Instant,
        packet: &PacketMeta<'_>,
        payload: &Arc<[u8]>,
        rare: Option<&Rare>,
    ) -> bool {
        let behind = self.newest.map_or(0, |newest| newest.saturating_sub(packet.seq_no));
        let in_order = behind == 0 || behind > LATE_MAX;
        if in_order {
            self.newest = Some(packet.seq_no);
        }
        let begins = packet.frame.keyframe && in_order;
        if begins || !self.packets.is_empty() {
            self.record(now, begins, Recorded::new(packet, payload, rare));
        }
        in_order
    }

    fn record(&mut self, now: Instant, begins: bool, packet: Recorded) {
        let first = self.packets.front().map(|first| (first.rtp_time, first.seq_no));
        // Parameter sets and picture of one key frame may each look like the beginning of it.
        if begins && first.is_none_or(|(rtp_time, _)| rtp_time != packet.rtp_time) {
            self.packets.clear();
            self.bytes = 0;
            self.span = Some((now, now));
        }
        let too_many = self.packets.len() >= PACKETS_MAX || self.bytes + packet.payload.len() > BYTES_MAX;
        if too_many || self.age(now).is_none_or(|age| age > AGE_MAX) {
            return self.clear();
        }
        let later = self.packets.iter().rev().take_while(|kept| kept.seq_no > packet.seq_no).count();
        let at = self.packets.len() - later;
        let is_known = at.checked_sub(1).is_some_and(|before| self.packets[before].seq_no == packet.seq_no);
        let is_before_all = at == 0 && later > 0;
        let of_the_first = first.is_some_and(|(rtp_time, _)| rtp_time == packet.rtp_time);
        if is_known || is_before_all && !(packet.frame.keyframe && of_the_first) {
            return;
        }
        self.span = self.span.map(|(began, _)| (began, now));
        self.bytes += packet.payload.len();
        self.packets.insert(at, packet);
    }

    /// Forgets everything until the next key frame, with the memory that it took.
    pub fn clear(&mut self) {
        self.packets = VecDeque::new();
        self.bytes = 0;
        self.span = None;
    }

    /// Forgets what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.age(now).is_some_and(|age| age > AGE_MAX) {
            self.clear();
        }
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        self.span.map(|(began, _)| now.saturating_duration_since(began))
    }

    /// Something to begin with, without a hole.
    pub fn is_whole(&self) -> bool {
        let (Some(first), Some(last)) = (self.packets.front(), self.packets.back()) else { return false };
        last.seq_no - first.seq_no + 1 == self.packets.len() as u64
    }

    /// It costs a path of this rate no more than a moment.
    pub fn fits(&self, estimate_bps: u64) -> bool {
        let moment_bits = u128::from(estimate_bps) * BURST_MAX.as_millis() / 1_000;
        self.bytes as u128 * 8 <= moment_bits
    }

    /// When its key frame came.
    pub fn began_at(&self) -> Option<Instant> {
        self.span.map(|(began, _)| began)
    }

    /// A slot that begins now will most likely be served by it: it is whole, and will be when the next packet
    /// comes, which will be soon.
    pub fn will_serve(&self, now: Instant) -> bool {
        let flows = |(began, last): (Instant, Instant)| {
            now.saturating_duration_since(last) < QUIET
                && now.saturating_duration_since(began) + QUIET <= AGE_MAX
        };
        self.span.is_some_and(flows) && self.is_whole()
    }

    /// All of it in order, as of a source that sent a picture each millisecond, the newest of them now.
    pub fn packets(&self, now: Instant) -> impl Iterator<Item = (Instant, PacketMeta<'_>, &Recorded)> {
        let times = self.packets.iter().map(|packet| packet.rtp_time);
        let steps = times.clone().zip(times.skip(1)).filter(|(time, next)| time != next).count();
        let newest = self.packets.back().map_or(0, |last| last.rtp_time);
        let mut left = steps as u32;
        let mut time = self.packets.front().map_or(0, |first| first.rtp_time);
        self.packets.iter().map(move |packet| {
            if std::mem::replace(&mut time, packet.rtp_time) != packet.rtp_time {
                left -= 1;
            }
            let meta = PacketMeta {
                seq_no: packet.seq_no,
                rtp_time: newest.wrapping_sub(left * STEP_TICKS),
                marker: packet.marker,
                frame: &packet.frame,
                dd: packet.dd.as_ref(),
            };
            (now.checked_sub(STEP * left).unwrap_or(now), meta, packet)
        })
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
