//! One slot's outgoing stream: what it was negotiated as, the packets that may be asked for again, and the
//! counts of its sender reports.
//!
//! The payloads kept for resending are the ones that all receivers of a track share; only what is peculiar to
//! this stream is stored here.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packet::{Framing, Lane, Packet, Passed};
use crate::core::format::Format;
use crate::core::payload::{DescriptorBytes, PayloadPatch};
use crate::core::protocol::Kind;
use crate::core::replay::Rare;
use crate::core::rtcp::SenderReport;
use crate::media::negotiate::PayloadType;

/// Packets that a video stream keeps for resending, and how long: a second is more than a receiver waits.
const KEPT_MAX: usize = 512;
const KEPT_FOR: Duration = Duration::from_millis(1_000);
/// A packet is resent no more often than this; a receiver that asks again at once has not had time to get it.
const RESEND_INTERVAL_MIN: Duration = Duration::from_millis(15);
const RESENDS_MAX: u8 = 10;
/// Packets that carry the MID before the receiver has said that it knows the stream.
const MID_PACKETS_MAX: u32 = 100;

/// A stream as it was negotiated.
#[derive(Debug, Clone)]
pub struct StreamLine {
    pub kind: Kind,
    pub ssrc: u32,
    /// Of the stream that resends (RFC 4588); none where the receiver takes no such stream.
    pub resend_ssrc: Option<u32>,
    pub framing: Framing,
}

/// What a [`Packet`] is made of again. Small, as there is one for each packet of the last second, slot and
/// receiver.
struct Kept {
    index: u64,
    /// Microseconds since the epoch of the stream's framing: what the header tells of it, and no less.
    sent_us: u64,
    payload: Arc<[u8]>,
    /// Empty for none.
    descriptor: DescriptorBytes,
    rare: Option<Box<Rare>>,
    rtp_time: u32,
    transport_seq_no: u16,
    /// How long after it was sent first it was sent again, in milliseconds.
    resent_after_ms: u16,
    patch: PayloadPatch,
    audio_level: Option<u8>,
    payload_type: u8,
    marker: bool,
    names_mid: bool,
    resends: u8,
}

impl Kept {
    fn of(packet: Packet, epoch: Instant) -> Self {
        let Packet { passed, .. } = packet;
        Self {
            index: packet.index,
            sent_us: us_since(epoch, packet.sent_at),
            payload: packet.payload,
            descriptor: passed.descriptor.unwrap_or_default(),
            rare: passed.rare,
            rtp_time: packet.rtp_time,
            transport_seq_no: packet.transport_seq_no,
            resent_after_ms: 0,
            patch: packet.patch,
            audio_level: passed.audio_level,
            payload_type: packet.payload_type,
            marker: packet.marker,
            names_mid: packet.names_mid,
            resends: 0,
        }
    }

    fn packet(&self, epoch: Instant) -> Packet {
        let descriptor = Some(&self.descriptor).filter(|bytes| !bytes.as_slice().is_empty());
        let passed = Passed {
            audio_level: self.audio_level,
            descriptor: descriptor.cloned(),
            rare: self.rare.clone(),
            made_at: None,
        };
        Packet {
            index: self.index,
            rtp_time: self.rtp_time,
            payload_type: self.payload_type,
            marker: self.marker,
            payload: Arc::clone(&self.payload),
            patch: self.patch,
            passed,
            transport_seq_no: self.transport_seq_no,
            sent_at: epoch + Duration::from_micros(self.sent_us),
            names_mid: self.names_mid,
            begins: false,
        }
    }
}

fn us_since(epoch: Instant, at: Instant) -> u64 {
    at.saturating_duration_since(epoch).as_micros() as u64
}

pub struct Stream {
    pub line: StreamLine,
    /// The payload type in use, and what for.
    payload_type: Option<PayloadType>,
    /// By index, lowest first.
    kept: VecDeque<Kept>,
    resend_index: u64,
    /// The receiver has reported on it.
    pub is_known: bool,
    packets: u32,
    octets: u32,
    /// Timestamp of the newest packet, and when that was: when it left, or was made where that is known.
    newest: Option<(u32, Instant)>,
    reported_at: Option<Instant>,
}

impl Stream {
    /// `seed` makes the first number of the resending stream unpredictable.
    pub fn new(line: StreamLine, seed: u16) -> Self {
        Self {
            line,
            payload_type: None,
            kept: VecDeque::new(),
            resend_index: u64::from(seed & 0x7fff),
            is_known: false,
            packets: 0,
            octets: 0,
            newest: None,
            reported_at: None,
        }
    }

    /// The payload type by which the receiver calls `format`; Opus where it does not know RED.
    #[inline]
    pub fn payload_type(&mut self, format: Format, known: &[PayloadType]) -> Option<PayloadType> {
        if self.payload_type.is_none_or(|current| current.format != format) {
            let find = |wanted: Format| known.iter().find(|known| known.format == wanted).copied();
            self.payload_type = find(format).or_else(|| find(Format::OPUS).filter(|_| format == Format::RED));
        }
        self.payload_type
    }

    pub fn names_mid(&self) -> bool {
        !self.is_known && self.packets < MID_PACKETS_MAX
    }

    /// Takes note of a packet that was just sent, and keeps it where it may be asked for again.
    #[inline]
    pub fn handle_sent(&mut self, packet: Packet, payload_bytes: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload_bytes as u32);
        if self.newest.is_none_or(|(newest, _)| packet.rtp_time.wrapping_sub(newest) < 1 << 31) {
            self.newest = Some((packet.rtp_time, packet.passed.made_at.unwrap_or(packet.sent_at)));
        }
        if self.line.kind != Kind::Video {
            return;
        }
        let kept = Kept::of(packet, self.line.framing.epoch);
        let old = |first: &Kept| kept.sent_us.saturating_sub(first.sent_us) > KEPT_FOR.as_micros() as u64;
        while self.kept.len() >= KEPT_MAX || self.kept.front().is_some_and(old) {
            self.kept.pop_front();
        }
        // A packet that filled a gap goes to its place.
        let later = self.kept.iter().rev().take_while(|other| other.index > kept.index).count();
        let at = self.kept.len() - later;
        self.kept.insert(at, kept);
    }

    /// Forgets what it kept: the picture begins anew, and nobody waits for what came before.
    pub fn forget(&mut self) {
        self.kept.clear();
    }

    /// The packet with this number, if it may be resent now. `spacing` is about a round trip.
    pub fn take_resend(&mut self, now: Instant, seq_no: u16, spacing: Duration) -> Option<(Packet, Lane)> {
        let newest = self.kept.back()?.index;
        let index = newest.checked_sub(u64::from((newest as u16).wrapping_sub(seq_no)))?;
        let at = self.kept.binary_search_by_key(&index, |kept| kept.index).ok()?;
        let epoch = self.line.framing.epoch;
        let kept = self.kept.get_mut(at)?;
        let age_ms = us_since(epoch, now).saturating_sub(kept.sent_us) / 1_000;
        let spacing = spacing.max(RESEND_INTERVAL_MIN).as_millis() as u64;
        let recent = kept.resends > 0 && age_ms < u64::from(kept.resent_after_ms) + spacing;
        if recent || kept.resends >= RESENDS_MAX {
            return None;
        }
        kept.resent_after_ms = u16::try_from(age_ms).unwrap_or(u16::MAX);
        kept.resends += 1;
        let packet = kept.packet(epoch);
        let lane = match self.resend_lane(now) {
            Some(lane) => lane,
            // The very same packet again.
            None => Lane {
                ssrc: self.line.ssrc,
                payload_type: packet.payload_type,
                seq_no: packet.index as u16,
                transport_seq_no: packet.transport_seq_no,
                sent_at: packet.sent_at,
            },
        };
        Some((packet, lane))
    }

    /// The newest packet with a payload of so many bytes, to be sent again as padding that may be of use.
    pub fn padding(&self, bytes: RangeInclusive<usize>) -> Option<Packet> {
        let mut newest = self.kept.iter().rev().take(32);
        let kept = newest.find(|kept| bytes.contains(&kept.payload.len()))?;
        Some(kept.packet(self.line.framing.epoch))
    }

    /// A place on the stream that resends; its transport number is the caller's to give.
    pub fn resend_lane(&self, now: Instant) -> Option<Lane> {
        let ssrc = self.line.resend_ssrc?;
        let payload_type = self.payload_type?.resend?;
        Some(Lane {
            ssrc,
            payload_type: *payload_type,
            seq_no: self.resend_index as u16,
            transport_seq_no: 0,
            sent_at: now,
        })
    }

    /// The SRTP index that belongs to [`Stream::resend_lane`]; the next one is another.
    pub fn next_resend_index(&mut self) -> u64 {
        self.resend_index += 1;
        self.resend_index - 1
    }

    /// A report if one is due: at once with its first packet, then each `interval` while it sends.
    pub fn poll_report(
        &mut self,
        now: Instant,
        interval: Duration,
        clock_rate: u32,
        ntp_time: u64,
    ) -> Option<SenderReport> {
        let (rtp_time, at) = self.newest?;
        let due = self
            .reported_at
            .is_none_or(|reported| now.saturating_duration_since(reported) >= interval && at > reported);
        if !due {
            return None;
        }
        self.reported_at = Some(now);
        let since_us = now.saturating_duration_since(at).as_micros() as u64;
        let ticks = since_us * u64::from(clock_rate) / 1_000_000;
        Some(SenderReport {
            ssrc: self.line.ssrc,
            ntp_time,
            rtp_time: rtp_time.wrapping_add(ticks as u32),
            packets: self.packets,
            octets: self.octets,
        })
    }

    /// When its newest picture left.
    pub fn sent_at(&self) -> Option<Instant> {
        self.newest.map(|(_, at)| at)
    }

    /// The header of a packet that holds nothing but padding.
    pub fn empty_packet(&self, now: Instant) -> Packet {
        Packet {
            index: 0,
            rtp_time: self.newest.map_or(0, |(rtp_time, _)| rtp_time),
            payload_type: 0,
            marker: false,
            payload: Arc::from([].as_slice()),
            patch: PayloadPatch::None,
            passed: Passed::default(),
            transport_seq_no: 0,
            sent_at: now,
            names_mid: self.names_mid(),
            begins: false,
        }
    }

    /// SSRCs that a goodbye names: those that were heard.
    pub fn heard(&self) -> impl Iterator<Item = u32> {
        let sent = self.packets > 0;
        std::iter::once(self.line.ssrc).chain(self.line.resend_ssrc).filter(move |_| sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_small() {
        assert!(size_of::<Kept>() <= 88, "{}", size_of::<Kept>());
    }
}
