//! Probes: bursts at a rate that the estimator wants to know of, on the resend stream of the video slot that
//! sent last. What they carry are recent packets once more, so that a probe may repair something.

use std::time::Instant;

use super::wire_len;
use super::{Egress, Wire};
use crate::core::protocol::Kind;

/// The most that RTP padding can be (RFC 3550 §5.1).
const PADDING_BYTES: u8 = 255;
/// Less is all header.
const PADDING_BYTES_MIN: u8 = 32;
/// Packets of a probe, at least.
const PIECES_MIN: u32 = 6;
/// A probe under way.
pub(super) struct Probing {
    id: u32,
    rate_bps: u64,
    bytes: u32,
    sent_bytes: u32,
    began: Instant,
}

impl Egress {
    /// Sends as much of a probe as is due by its rate.
    pub(super) fn run_probe(&mut self, now: Instant, wire: &mut Wire<'_>) {
        if self.probe.is_none() {
            if self.is_blind || !self.estimator.is_probe_due(now) {
                return;
            }
            let Some(slot) = self.probe_slot() else { return };
            if self.streams.get(usize::from(slot)).is_none_or(|stream| stream.resend_lane(now).is_none()) {
                return;
            }
            self.probe = self.estimator.poll_probe(now).map(|probe| Probing {
                id: probe.id,
                rate_bps: probe.rate_bps,
                bytes: probe.bytes,
                sent_bytes: 0,
                began: now,
            });
            self.probed = self.probe.as_ref().map(|probe| probe.id).or(self.probed);
        }
        let Some(slot) = self.probe_slot() else { return };
        while let Some(probe) = &self.probe {
            let elapsed_us = now.saturating_duration_since(probe.began).as_micros() as u64 + 1_000;
            let due = probe.rate_bps.saturating_mul(elapsed_us) / 8_000_000;
            if u64::from(probe.sent_bytes) >= due {
                return;
            }
            let (id, left) = (probe.id, probe.bytes.saturating_sub(probe.sent_bytes));
            if left == 0 {
                self.probe = None;
                return;
            }
            // Several packets, whatever its size: a single one has no rate.
            let piece = (probe.bytes / PIECES_MIN) as usize;
            let bytes = self.send_padding(now, slot, id, piece, wire);
            if bytes == 0 {
                self.probe = None;
                return;
            }
            self.account(now, bytes, true);
            if let Some(probe) = &mut self.probe {
                probe.sent_bytes += (bytes + super::OVERHEAD_BYTES) as u32;
            }
        }
    }

    /// The video slot that sent last: its resend stream carries probes.
    fn probe_slot(&self) -> Option<u16> {
        let slots = self.streams.iter().enumerate();
        let ready = slots.filter(|(_, s)| s.line.kind == Kind::Video && s.sent_at().is_some());
        let (slot, _) = ready.max_by_key(|(_, stream)| stream.sent_at())?;
        u16::try_from(slot).ok()
    }

    /// A recent packet of at most `piece` bytes once more, or padding alone where there is none of a useful
    /// size.
    fn send_padding(
        &mut self,
        now: Instant,
        slot: u16,
        probe: u32,
        piece: usize,
        wire: &mut Wire<'_>,
    ) -> usize {
        let Some(stream) = self.streams.get_mut(usize::from(slot)) else { return 0 };
        let Some(mut lane) = stream.resend_lane(now) else { return 0 };
        if let Some(packet) = stream.padding(usize::from(PADDING_BYTES)..=piece) {
            return self.send_on_resend_lane(now, slot, &packet, Some(probe), wire);
        }
        let (Some(keys), Some(path)) = (&self.protection, &self.path) else { return 0 };
        let index = stream.next_resend_index();
        let padding = u8::try_from(piece).unwrap_or(PADDING_BYTES).max(PADDING_BYTES_MIN);
        lane.transport_seq_no = self.sent.push(now, wire_len(usize::from(padding)), Some(probe));
        let empty = stream.empty_packet(now);
        wire.send(path, |out, start| {
            let header_len = stream.line.framing.write_header(&empty, lane, true, out);
            out.resize(out.len() + usize::from(padding) - 1, 0);
            out.push(padding);
            keys.sealer.seal_rtp(out, start, header_len, lane.ssrc, index)
        })
    }
}
