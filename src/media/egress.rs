//! What one connection sends: media, resends, probes and RTCP, from one place, sealed by the one holder of
//! the key ([`srtp::Sealer`]).
//!
//! Media is not paced here: its publisher has paced it, and what the path cannot carry is not sent at all
//! ([`crate::core::layers`]). Packets gather by [`Egress::push`] in the shard's [`Queue`] and leave in
//! [`Egress::flush`], so that those of one receiver follow each other and leave in one GSO send.

mod feedback;
mod packet;
mod probing;
mod queue;
mod sent_log;
mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::rtp::RedDecoder;

pub use packet::{ExtensionIds, Framing, Passed};
pub use stream::StreamLine;

use self::packet::{Lane, Packet};
use self::probing::Probing;
use self::queue::Waiting;
use self::sent_log::SentLog;
use self::stream::Stream;
use super::negotiate::PayloadType;
use super::srtp::keys::KeySlot;
use super::srtp::{self, RtcpOpener, Sealer};
use super::wire::{Path, Wire};
use crate::core::bandwidth::Estimator;
use crate::core::format::Format;
use crate::core::forward::Rewritten;
use crate::core::payload::{AUDIO_CLOCK_RATE, VIDEO_CLOCK_RATE};
use crate::core::protocol::Kind;
use crate::core::rtcp;
use crate::core::stats::srtp_profile_name;

/// Packets that may wait for the end of the tick. Full: the newest is dropped.
const QUEUE_MAX: usize = 1_024;
/// Resends that may wait. Full: the newest is dropped; its receiver asks again.
const RESENDS_MAX: usize = 512;
/// Between two sender reports of one stream.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Resends may fill what is left below this share of the estimate, in percent.
const RESEND_SHARE_PERCENT: u64 = 125;
/// Of the media's own bytes as much counts against that, so that a little is always left for resends.
const MEDIA_SHARE_PERCENT: u64 = 80;
/// Share of packets lost from which on a resend leaves twice.
const HEAVY_LOSS: f32 = 0.08;
/// Unused allowance is kept for so long.
const ALLOWANCE_FOR: Duration = Duration::from_millis(250);
const ALLOWANCE_BYTES_MIN: i64 = 8_000;
/// IPv4 and UDP; what a path carries besides our bytes.
const OVERHEAD_BYTES: usize = 28;
/// Room for reports in one datagram.
const COMPOUND_BYTES_MAX: usize = 1_000;

/// The monotone clock and the wall clock at one instant.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    pub start: Instant,
    pub unix_us_at_start: u64,
}

impl WallClock {
    fn ntp_time(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_micros() as u64;
        rtcp::ntp_time(self.unix_us_at_start + since)
    }
}

/// What a connection was negotiated to send.
#[derive(Clone)]
pub struct EgressLines {
    pub keys: KeySlot,
    /// By slot.
    pub streams: Vec<StreamLine>,
    pub cname: String,
    pub payload_types: Vec<PayloadType>,
    /// The receiver gives no feedback that bandwidth could be estimated from.
    pub is_blind: bool,
    pub initial_estimate_bps: u64,
}

/// Packets of all peers of a shard that wait, each with its slot.
pub type Queue = queue::Queue<(u16, Packet)>;

/// A packet for one of the receiver's slots.
pub struct Forwarded<'a> {
    pub slot: u16,
    pub format: Format,
    pub rewritten: Rewritten,
    pub payload: &'a Arc<[u8]>,
    pub passed: &'a Passed,
}

struct Protection {
    sealer: Sealer,
    /// Of the peer's RTCP.
    opener: RtcpOpener,
}

pub struct Egress {
    keys: KeySlot,
    protection: Option<Protection>,
    /// Where the peer is; none until the engine has sent something there.
    pub path: Option<Path>,
    clock: WallClock,
    own_ssrc: u32,
    streams: Vec<Stream>,
    payload_types: Vec<PayloadType>,
    cname: String,
    waiting: Waiting,
    resends: VecDeque<(u16, u16)>,
    sent: SentLog,
    estimator: Estimator,
    is_blind: bool,
    probe: Option<Probing>,
    /// Id of the latest probe.
    probed: Option<u32>,
    allowance: Allowance,
    reports_at: Option<Instant>,
    rtt: Option<Duration>,
    rtt_is_reported: bool,
    plain: Vec<u8>,
    bytes_sent: u64,
}

/// Bytes that resends may take now.
struct Allowance {
    bytes: i64,
    at: Instant,
}

impl Allowance {
    fn refill(&mut self, now: Instant, estimate_bps: u64) {
        let share = estimate_bps.saturating_mul(RESEND_SHARE_PERCENT) / 800;
        let since = now.saturating_duration_since(self.at);
        let most = (share as f64 * ALLOWANCE_FOR.as_secs_f64()) as i64;
        let more = (share as f64 * since.as_secs_f64()) as i64;
        if more > 0 {
            self.bytes = (self.bytes + more).min(most.max(ALLOWANCE_BYTES_MIN));
            self.at = now;
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes = (self.bytes - bytes as i64).max(0);
    }
}

impl Egress {
    /// `seed` makes first numbers unpredictable.
    pub fn new(now: Instant, clock: WallClock, lines: EgressLines, seed: u64) -> Self {
        let own_ssrc = lines.streams.first().map_or((seed >> 32) as u32 | 1, |line| line.ssrc);
        let seeds = (0u16..).map(|slot| (seed >> 16) as u16 ^ slot.wrapping_mul(0x9e37));
        let streams = lines.streams.into_iter().zip(seeds).map(|(line, seed)| Stream::new(line, seed));
        Self {
            keys: lines.keys,
            protection: None,
            path: None,
            clock,
            own_ssrc,
            streams: streams.collect(),
            payload_types: lines.payload_types,
            cname: lines.cname,
            waiting: Waiting::default(),
            resends: VecDeque::new(),
            sent: SentLog::new(now, seed as u16),
            estimator: Estimator::new(now, lines.initial_estimate_bps),
            is_blind: lines.is_blind,
            probe: None,
            probed: None,
            allowance: Allowance { bytes: ALLOWANCE_BYTES_MIN, at: now },
            reports_at: None,
            rtt: None,
            rtt_is_reported: false,
            plain: Vec::new(),
            bytes_sent: 0,
        }
    }

    /// Queues a packet until [`Egress::flush`]. False where this peer cannot take it: it is not
    /// connected, knows no such format, or has too much waiting.
    #[inline]
    pub fn push(&mut self, queue: &mut Queue, now: Instant, packet: Forwarded<'_>) -> bool {
        let Forwarded { slot, format, rewritten, payload, passed } = packet;
        let Some(stream) = self.streams.get_mut(usize::from(slot)) else { return false };
        let Some(payload_type) = stream.payload_type(format, &self.payload_types) else { return false };
        if self.waiting.len() >= QUEUE_MAX || self.protection.is_none() && self.keys.get().is_none() {
            return false;
        }
        let payload = if format == Format::RED && payload_type.format == Format::OPUS {
            // The receiver does not know RED: it gets the newest block alone (RFC 2198 §3).
            let Ok(blocks) = RedDecoder::decode(payload) else { return false };
            let Some(primary) = blocks.last() else { return false };
            Arc::from(primary.payload)
        } else {
            Arc::clone(payload)
        };
        let Passed { audio_level, rare, made_at, .. } = passed;
        let packet = Packet {
            index: rewritten.seq_no,
            rtp_time: rewritten.rtp_time,
            payload_type: *payload_type.pt,
            marker: rewritten.marker,
            payload,
            patch: rewritten.patch,
            passed: Passed {
                audio_level: *audio_level,
                descriptor: rewritten.dd,
                rare: rare.clone(),
                made_at: *made_at,
            },
            transport_seq_no: 0,
            sent_at: now,
            names_mid: false,
            begins: rewritten.begins,
        };
        queue.push(&mut self.waiting, (slot, packet));
        true
    }

    /// Gives up what waits.
    pub fn discard(&mut self, queue: &mut Queue) {
        while queue.pop(&mut self.waiting).is_some() {}
    }

    /// Makes contexts of the keys once they are there.
    fn protect(&mut self) {
        if self.protection.is_some() {
            return;
        }
        let Some(keys) = self.keys.get() else { return };
        let made = || {
            Ok::<_, aws_lc_rs::error::Unspecified>(Protection {
                sealer: Sealer::new(keys.profile, &keys.outgoing)?,
                opener: RtcpOpener::new(keys.profile, &keys.incoming)?,
            })
        };
        // Keys that do not fit their profile cannot come from a handshake; such a peer gets nothing.
        self.protection = made().ok();
    }

    /// Sends a compound that tells the peer of what it sends.
    pub fn send_rtcp(&mut self, compound: &mut Vec<u8>, wire: &mut Wire<'_>) {
        self.protect();
        let (Some(keys), Some(path)) = (&mut self.protection, &self.path) else { return };
        seal_compound(&mut keys.sealer, path, compound, wire);
    }

    /// Sends what waits.
    pub fn flush(&mut self, queue: &mut Queue, now: Instant, wire: &mut Wire<'_>) {
        self.protect();
        self.allowance.refill(now, self.estimator.estimate_bps());
        if !self.resends.is_empty() {
            self.resend_all(now, wire);
        }
        while let Some((slot, packet)) = queue.pop(&mut self.waiting) {
            self.send(now, slot, packet, wire);
        }
        self.run_probe(now, wire);
        self.report(now, wire);
    }

    /// Sends a packet for the first time.
    #[inline]
    fn send(&mut self, now: Instant, slot: u16, mut packet: Packet, wire: &mut Wire<'_>) {
        let Some(stream) = self.streams.get_mut(usize::from(slot)) else { return };
        let (Some(keys), Some(path)) = (&self.protection, &self.path) else { return };
        if packet.begins {
            stream.forget();
        }
        packet.sent_at = now;
        packet.names_mid = stream.names_mid();
        let mut lane = Lane {
            ssrc: stream.line.ssrc,
            payload_type: packet.payload_type,
            seq_no: packet.index as u16,
            transport_seq_no: 0,
            sent_at: now,
        };
        if stream.line.framing.ids.transport_cc != 0 {
            // The number goes into the packet, whose length is known only once it is written.
            lane.transport_seq_no = self.sent.push(now, wire_len(packet.payload.len()), None);
            packet.transport_seq_no = lane.transport_seq_no;
        }
        let bytes = wire.send(path, |out, start| {
            let header_len = stream.line.framing.write_header(&packet, lane, false, out);
            packet.patch.write(&packet.payload, out);
            keys.sealer.seal_rtp(out, start, header_len, lane.ssrc, packet.index)
        });
        let payload_bytes = packet.payload.len();
        let is_told = stream.line.framing.ids.transport_cc != 0;
        stream.handle_sent(packet, payload_bytes);
        self.account(now, bytes, is_told);
        self.allowance.spend(bytes * MEDIA_SHARE_PERCENT as usize / 100);
    }

    /// `is_told`: its receiver will speak of it. What no feedback can come for must not look like silence.
    fn account(&mut self, now: Instant, bytes: usize, is_told: bool) {
        self.bytes_sent += bytes as u64;
        if is_told {
            self.estimator.handle_sent(now, (bytes + OVERHEAD_BYTES) as u32);
        }
        self.reports_at.get_or_insert(now);
    }

    fn resend_all(&mut self, now: Instant, wire: &mut Wire<'_>) {
        // Where much is lost at random the copy may be lost, too, and so may the next request for it.
        let copies = if self.estimator.loss().is_some_and(|loss| loss > HEAVY_LOSS) { 2 } else { 1 };
        while let Some((slot, seq_no)) = self.resends.pop_front() {
            self.resend(now, slot, seq_no, copies, wire);
        }
    }

    fn resend(&mut self, now: Instant, slot: u16, seq_no: u16, copies: u8, wire: &mut Wire<'_>) {
        if self.allowance.bytes <= 0 {
            return;
        }
        let Some(stream) = self.streams.get_mut(usize::from(slot)) else { return };
        let spacing = self.rtt.unwrap_or_default().mul_f32(0.8);
        let Some((packet, lane)) = stream.take_resend(now, seq_no, spacing) else { return };
        if lane.ssrc == stream.line.ssrc {
            let (Some(keys), Some(path)) = (&self.protection, &self.path) else { return };
            let bytes = wire.send(path, |out, start| {
                let header_len = stream.line.framing.write_header(&packet, lane, false, out);
                packet.patch.write(&packet.payload, out);
                keys.sealer.seal_rtp(out, start, header_len, lane.ssrc, packet.index)
            });
            // Under its old number it may have been spoken of already.
            self.account(now, bytes, false);
            self.allowance.spend(bytes);
            return;
        }
        let is_told = stream.line.framing.ids.transport_cc != 0;
        for _ in 0..copies {
            let bytes = self.send_on_resend_lane(now, slot, &packet, None, wire);
            self.account(now, bytes, is_told);
            self.allowance.spend(bytes);
        }
    }

    /// Sends a packet again as RFC 4588 has it: its own number goes first in the payload.
    fn send_on_resend_lane(
        &mut self,
        now: Instant,
        slot: u16,
        packet: &Packet,
        probe: Option<u32>,
        wire: &mut Wire<'_>,
    ) -> usize {
        let Some(stream) = self.streams.get_mut(usize::from(slot)) else { return 0 };
        let Some(mut lane) = stream.resend_lane(now) else { return 0 };
        let (Some(keys), Some(path)) = (&self.protection, &self.path) else { return 0 };
        let index = stream.next_resend_index();
        let framing = &stream.line.framing;
        if framing.ids.transport_cc != 0 {
            lane.transport_seq_no = self.sent.push(now, wire_len(packet.payload.len()), probe);
        }
        wire.send(path, |out, start| {
            let header_len = framing.write_header(packet, lane, false, out);
            out.extend_from_slice(&(packet.index as u16).to_be_bytes());
            packet.patch.write(&packet.payload, out);
            keys.sealer.seal_rtp(out, start, header_len, lane.ssrc, index)
        })
    }

    /// Sender reports of streams that are due.
    fn report(&mut self, now: Instant, wire: &mut Wire<'_>) {
        if self.reports_at.is_none_or(|at| now < at) {
            return;
        }
        let (Some(keys), Some(path)) = (&mut self.protection, &self.path) else { return };
        let ntp_time = self.clock.ntp_time(now);
        self.plain.clear();
        let mut any = false;
        for stream in &mut self.streams {
            let rate = if stream.line.kind == Kind::Audio { AUDIO_CLOCK_RATE } else { VIDEO_CLOCK_RATE };
            let Some(report) = stream.poll_report(now, REPORT_INTERVAL, rate, ntp_time) else { continue };
            any = true;
            rtcp::write::sender_report(&report, &self.cname, &mut self.plain);
            if self.plain.len() >= COMPOUND_BYTES_MAX {
                seal_compound(&mut keys.sealer, path, &mut self.plain, wire);
            }
        }
        if !self.plain.is_empty() {
            seal_compound(&mut keys.sealer, path, &mut self.plain, wire);
        }
        // Nothing was sent since the last time: it begins again with the next packet.
        self.reports_at = any.then(|| now + REPORT_INTERVAL);
    }

    /// Says that its streams have ended (RFC 3550 §6.3.7).
    pub fn say_goodbye(&mut self, wire: &mut Wire<'_>) {
        let (Some(keys), Some(path)) = (&mut self.protection, &self.path) else { return };
        let ssrcs: Vec<u32> = self.streams.iter().flat_map(Stream::heard).collect();
        for some in ssrcs.chunks(31) {
            self.plain.clear();
            rtcp::write::goodbye(some, &mut self.plain);
            seal_compound(&mut keys.sealer, path, &mut self.plain, wire);
        }
    }

    pub fn set_goal(&mut self, now: Instant, next_bps: u64, desired_bps: u64) {
        self.estimator.set_goal(now, next_bps, desired_bps);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.is_blind {
            self.estimator.handle_timeout(now);
        }
    }

    /// When [`Egress::handle_timeout`] and [`Egress::flush`] are due.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let probe_at = self.probe.is_some().then(|| now + Duration::from_millis(1));
        let estimator_at = self.estimator.poll_timeout().filter(|_| !self.is_blind && self.path.is_some());
        [probe_at, self.reports_at, estimator_at].into_iter().flatten().min()
    }

    /// A probe is under way.
    pub fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// A new estimate of what the path carries.
    pub fn poll_estimate(&mut self) -> Option<u64> {
        if self.is_blind { None } else { self.estimator.poll_estimate() }
    }

    /// As whom we speak of what the peer sends.
    pub fn own_ssrc(&self) -> u32 {
        self.own_ssrc
    }

    /// Nothing tells what the path carries.
    pub fn is_blind(&self) -> bool {
        self.is_blind
    }

    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    pub fn srtp_profile(&self) -> Option<&'static str> {
        self.keys.get().map(|keys| srtp_profile_name(keys.profile))
    }

    pub fn loss(&self) -> Option<f32> {
        self.estimator.loss()
    }

    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }
}

/// What a payload of this length takes on the wire, within a few bytes.
fn wire_len(payload_len: usize) -> usize {
    /// Header with extensions and tag, as most packets have them.
    const HEADER_BYTES_USUAL: usize = 12 + 8 + srtp::RTP_TAG_BYTES_MAX;
    payload_len + HEADER_BYTES_USUAL + OVERHEAD_BYTES
}

fn seal_compound(sealer: &mut Sealer, path: &Path, compound: &mut Vec<u8>, wire: &mut Wire<'_>) {
    wire.send(path, |out, start| {
        out.extend_from_slice(compound);
        sealer.seal_rtcp(out, start)
    });
    compound.clear();
}
