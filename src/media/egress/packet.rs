//! One RTP packet on its way out, and how it is written (RFC 3550 §5.1, RFC 8285).
//!
//! A [`Packet`] is complete: written twice it gives the same bytes, which is what allows it to be sent again
//! where the receiver has no resend stream.

use std::sync::Arc;
use std::time::Instant;

use str0m::media::Media;
use str0m::rtp::Extension;

use crate::core::payload::dependency;
use crate::core::payload::{DescriptorBytes, PayloadPatch};
use crate::core::replay::{CONTRIBUTORS_MAX, Rare};

/// The header without CSRCs and extensions.
const FIXED_BYTES: usize = 12;
/// Extension data of one-byte headers is no longer than this, and their ids end at 14 (RFC 8285 §4.2).
const ONE_BYTE_DATA_MAX: usize = 16;
const ONE_BYTE_ID_MAX: u8 = 14;
const ONE_BYTE_PROFILE: u16 = 0xbede;
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// A packet as it leaves, but for what [`Framing`] says of its stream.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Extended sequence number: the SRTP index.
    pub index: u64,
    pub rtp_time: u32,
    pub payload_type: u8,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    pub patch: PayloadPatch,
    pub passed: Passed,
    /// Given when it is sent first.
    pub transport_seq_no: u16,
    pub sent_at: Instant,
    /// Carries the stream's MID.
    pub names_mid: bool,
    /// A new source begins: what came before it is of no use any more.
    pub begins: bool,
}

/// Header extensions that come from the publisher and go on to the receiver.
#[derive(Debug, Clone, Default)]
pub struct Passed {
    /// RFC 6464: level and voice flag as on the wire.
    pub audio_level: Option<u8>,
    pub descriptor: Option<DescriptorBytes>,
    pub rare: Option<Box<Rare>>,
    /// When this machine made what it carries, which may take longer with one packet than with another:
    /// reports tell the stream's time by this.
    pub made_at: Option<Instant>,
}

/// Ids of the header extensions that a receiver has agreed to on one line; 0 for none.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtensionIds {
    pub transport_cc: u8,
    mid: u8,
    send_time: u8,
    audio_level: u8,
    orientation: u8,
    playout_delay: u8,
    descriptor: u8,
}

impl ExtensionIds {
    pub fn of(media: &Media) -> Self {
        let id = |uri: &str| {
            let found = media.remote_extmap().iter().find(|(_, extension)| extension.as_uri() == uri);
            found.map_or(0, |(id, _)| id)
        };
        Self {
            transport_cc: id(Extension::TransportSequenceNumber.as_uri()),
            mid: id(Extension::RtpMid.as_uri()),
            send_time: id(Extension::AbsoluteSendTime.as_uri()),
            audio_level: id(Extension::AudioLevel.as_uri()),
            orientation: id(Extension::VideoOrientation.as_uri()),
            playout_delay: id(Extension::PlayoutDelay.as_uri()),
            descriptor: id(dependency::URI),
        }
    }
}

/// What all packets of one stream have in common.
#[derive(Debug, Clone)]
pub struct Framing {
    pub ids: ExtensionIds,
    pub mid: String,
    /// Instant from which send times count.
    pub epoch: Instant,
}

/// Where a packet goes: by its own stream, or by the stream that resends.
#[derive(Debug, Clone, Copy)]
pub struct Lane {
    pub ssrc: u32,
    pub payload_type: u8,
    pub seq_no: u16,
    pub transport_seq_no: u16,
    pub sent_at: Instant,
}

impl Framing {
    /// Appends the header of `packet` on `lane`. Gives its length.
    pub fn write_header(&self, packet: &Packet, lane: Lane, padded: bool, out: &mut Vec<u8>) -> usize {
        let is_usual = self.write_usual(packet, lane, padded, out);
        is_usual.unwrap_or_else(|| self.write_any(packet, lane, padded, out))
    }

    fn write_any(&self, packet: &Packet, lane: Lane, padded: bool, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let csrcs = packet.passed.rare.as_ref().map_or(&[][..], |rare| &rare.contributors);
        let csrcs = csrcs.get(..CONTRIBUTORS_MAX).unwrap_or(csrcs);
        out.push(0x90 | u8::from(padded) << 5 | csrcs.len() as u8);
        out.push(u8::from(packet.marker) << 7 | lane.payload_type & 0x7f);
        out.extend_from_slice(&lane.seq_no.to_be_bytes());
        out.extend_from_slice(&packet.rtp_time.to_be_bytes());
        out.extend_from_slice(&lane.ssrc.to_be_bytes());
        csrcs.iter().for_each(|csrc| out.extend_from_slice(&csrc.to_be_bytes()));
        let fixed_bytes = FIXED_BYTES + 4 * csrcs.len();
        debug_assert_eq!(out.len() - start, fixed_bytes);
        out.extend_from_slice(&[0; 4]);
        let mut extensions = Extensions { two_byte: self.needs_two_bytes(packet), out };
        self.write_extensions(packet, lane, &mut extensions);
        let two_byte = extensions.two_byte;
        let data_start = start + fixed_bytes + 4;
        if out.len() == data_start {
            // None: neither the block nor its flag.
            out.truncate(start + fixed_bytes);
            out[start] &= !0x10;
            return fixed_bytes;
        }
        let words = (out.len() - data_start).div_ceil(4);
        out.resize(data_start + 4 * words, 0);
        let profile = if two_byte { TWO_BYTE_PROFILE } else { ONE_BYTE_PROFILE };
        out[data_start - 4..data_start - 2].copy_from_slice(&profile.to_be_bytes());
        out[data_start - 2..data_start].copy_from_slice(&(words as u16).to_be_bytes());
        out.len() - start
    }

    /// The header of nearly every packet, as [`Framing::write_any`] would write it but at one go: no
    /// contributors, and of extensions only the transport-wide number and the level, with one-byte headers.
    #[inline]
    fn write_usual(&self, packet: &Packet, lane: Lane, padded: bool, out: &mut Vec<u8>) -> Option<usize> {
        let (ids, passed) = (&self.ids, &packet.passed);
        if passed.rare.is_some()
            || passed.descriptor.is_some()
            || packet.names_mid
            || ids.transport_cc == 0
            || self.needs_two_bytes(packet)
        {
            return None;
        }
        let mut head = [0; FIXED_BYTES + 12];
        head[0] = 0x90 | u8::from(padded) << 5;
        head[1] = u8::from(packet.marker) << 7 | lane.payload_type & 0x7f;
        head[2..4].copy_from_slice(&lane.seq_no.to_be_bytes());
        head[4..8].copy_from_slice(&packet.rtp_time.to_be_bytes());
        head[8..12].copy_from_slice(&lane.ssrc.to_be_bytes());
        head[12..14].copy_from_slice(&ONE_BYTE_PROFILE.to_be_bytes());
        head[16] = ids.transport_cc << 4 | 1;
        head[17..19].copy_from_slice(&lane.transport_seq_no.to_be_bytes());
        let level = passed.audio_level.filter(|_| ids.audio_level != 0);
        if let Some(level) = level {
            head[15] = 2;
            head[19] = ids.audio_level << 4;
            head[20] = level;
            out.extend_from_slice(&head);
            return Some(head.len());
        }
        head[15] = 1;
        out.extend_from_slice(&head[..FIXED_BYTES + 8]);
        Some(FIXED_BYTES + 8)
    }

    fn needs_two_bytes(&self, packet: &Packet) -> bool {
        let ids = &self.ids;
        let long = packet.passed.descriptor.as_ref().is_some_and(|d| d.as_slice().len() > ONE_BYTE_DATA_MAX);
        let described = ids.descriptor != 0 && (long || ids.descriptor > ONE_BYTE_ID_MAX);
        let others =
            [ids.transport_cc, ids.mid, ids.send_time, ids.audio_level, ids.orientation, ids.playout_delay];
        described || others.iter().any(|id| *id > ONE_BYTE_ID_MAX)
    }

    #[inline]
    fn write_extensions(&self, packet: &Packet, lane: Lane, out: &mut Extensions<'_>) {
        let ids = &self.ids;
        if ids.transport_cc != 0 {
            out.push(ids.transport_cc, &lane.transport_seq_no.to_be_bytes());
        } else if ids.send_time != 0 {
            // 6 bits of seconds, 18 of fractions.
            let since = lane.sent_at.saturating_duration_since(self.epoch).as_micros() as u64;
            let time = (since << 18) / 1_000_000;
            out.push(ids.send_time, &(time as u32).to_be_bytes()[1..]);
        }
        if ids.mid != 0 && packet.names_mid {
            out.push(ids.mid, self.mid.as_bytes());
        }
        if let Some(level) = packet.passed.audio_level.filter(|_| ids.audio_level != 0) {
            out.push(ids.audio_level, &[level]);
        }
        if let Some(descriptor) = packet.passed.descriptor.as_ref().filter(|_| ids.descriptor != 0) {
            out.push(ids.descriptor, descriptor.as_slice());
        }
        let Some(rare) = &packet.passed.rare else { return };
        if let Some(orientation) = rare.orientation.filter(|_| ids.orientation != 0) {
            out.push(ids.orientation, &[orientation]);
        }
        if let Some(delay) = rare.playout_delay.filter(|_| ids.playout_delay != 0) {
            out.push(ids.playout_delay, &delay);
        }
    }
}

struct Extensions<'a> {
    two_byte: bool,
    out: &'a mut Vec<u8>,
}

impl Extensions<'_> {
    #[inline]
    fn push(&mut self, id: u8, data: &[u8]) {
        if self.two_byte {
            self.out.extend_from_slice(&[id, data.len() as u8]);
        } else if let Some(len) = data.len().checked_sub(1).filter(|len| *len < ONE_BYTE_DATA_MAX) {
            self.out.push(id << 4 | len as u8);
        } else {
            // An empty value, or a MID of more than 16 characters: has no one-byte form.
            return;
        }
        self.out.extend_from_slice(data);
    }
}

#[cfg(test)]
mod tests;
