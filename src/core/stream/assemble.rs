//! Puts RTP payloads together again: H.264 access units (RFC 6184, modes 0 and 1) as byte streams (annex B).
//!
//! The mixer's packets come in order or not at all. Where one is missing, all is left out until the next key
//! frame.

use crate::core::mix::MixPacket;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
const IDR_SLICE: u8 = 5;
const SEQUENCE_PARAMETER_SET: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// No picture of a mixer has more. A larger one is left out.
const UNIT_BYTES_MAX: usize = 8 << 20;

/// An access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub rtp_time: u32,
    /// As of the packets.
    pub captured_us: Option<i64>,
    pub is_key: bool,
    /// NAL units, each after a start code.
    pub bytes: Vec<u8>,
}

/// Assembles one track's pictures.
#[derive(Debug, Default)]
pub struct Assembler {
    next_seq_no: Option<u64>,
    bytes: Vec<u8>,
    is_key: bool,
    /// Of the picture that comes now, something is missing.
    is_spoiled: bool,
    /// What comes cannot be decoded before a key frame.
    is_broken: bool,
}

impl Assembler {
    /// Takes a packet; gives the picture that it ends.
    pub fn push(&mut self, packet: &MixPacket) -> Option<Picture> {
        let is_next = self.next_seq_no.is_none_or(|next| next == packet.seq_no);
        self.next_seq_no = Some(packet.seq_no + 1);
        if !is_next {
            self.spoil();
            // With parameter sets a picture begins: this one has all of its packets.
            self.is_spoiled = !begins(&packet.payload);
        }
        if self.take(&packet.payload).is_none() || self.bytes.len() > UNIT_BYTES_MAX {
            self.spoil();
        }
        if !packet.marker {
            return None;
        }
        let (bytes, is_key) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.is_key));
        let is_whole = !std::mem::take(&mut self.is_spoiled);
        self.is_broken &= !(is_key && is_whole);
        let is_usable = !self.is_broken && !bytes.is_empty();
        let (rtp_time, captured_us) = (packet.rtp_time, packet.captured_us);
        is_usable.then_some(Picture { rtp_time, captured_us, is_key, bytes })
    }

    /// Something is missing: nothing is given before a key frame.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn spoil(&mut self) {
        self.bytes.clear();
        self.is_key = false;
        self.is_spoiled = true;
        self.is_broken = true;
    }

    fn take(&mut self, payload: &[u8]) -> Option<()> {
        let (&header, rest) = payload.split_first()?;
        match header & 0x1f {
            STAP_A => {
                let mut units = rest;
                while let Some((size, after)) = units.split_first_chunk::<2>() {
                    let (unit, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
                    self.take_unit(unit)?;
                    units = after;
                }
                Some(())
            }
            FU_A => {
                let (&fragment, data) = rest.split_first()?;
                if fragment & 0x80 != 0 {
                    self.take_unit(&[header & 0xe0 | fragment & 0x1f])?;
                } else if self.bytes.is_empty() {
                    return None;
                }
                self.bytes.extend_from_slice(data);
                Some(())
            }
            _ => self.take_unit(payload),
        }
    }

    fn take_unit(&mut self, unit: &[u8]) -> Option<()> {
        self.is_key |= unit.first()? & 0x1f == IDR_SLICE;
        self.bytes.extend_from_slice(&START_CODE);
        self.bytes.extend_from_slice(unit);
        Some(())
    }
}

/// Whether a payload has a picture's parameter sets in front.
fn begins(payload: &[u8]) -> bool {
    match payload {
        [header, ..] if header & 0x1f == SEQUENCE_PARAMETER_SET => true,
        [header, _, _, unit, ..] if header & 0x1f == STAP_A => unit & 0x1f == SEQUENCE_PARAMETER_SET,
        _ => false,
    }
}

/// The codec of a byte stream with parameter sets, by RFC 6381 and ISO/IEC 14496-15 annex E.
pub fn codec(stream: &[u8]) -> Option<String> {
    let mut units = stream.windows(7).filter(|bytes| bytes.starts_with(&[0, 0, 1]));
    let set = units.find(|bytes| bytes[3] & 0x1f == SEQUENCE_PARAMETER_SET)?;
    Some(format!("avc1.{:02x}{:02x}{:02x}", set[4], set[5], set[6]))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::mix::{LINE_H264, Place};
    use crate::core::payload::Codec;

    fn packet(seq_no: u64, marker: bool, payload: &[u8]) -> MixPacket {
        let place = Place::Line { line: LINE_H264, encoding: 1 };
        let (codec, payload) = (Codec::H264, Arc::from(payload));
        MixPacket { place, codec, seq_no, rtp_time: 3_000, captured_us: Some(7), marker, payload }
    }

    /// A key frame: parameter sets together, its slice in two fragments.
    fn key(assembler: &mut Assembler, seq_no: u64) -> Option<Picture> {
        let sets = [0x78, 0, 4, 0x67, 0x42, 0xe0, 0x1f, 0, 2, 0x68, 0xce];
        assert_eq!(assembler.push(&packet(seq_no, false, &sets)), None);
        assert_eq!(assembler.push(&packet(seq_no + 1, false, &[0x7c, 0x85, 1, 2])), None);
        assembler.push(&packet(seq_no + 2, true, &[0x7c, 0x45, 3]))
    }

    #[test]
    fn units_come_out_as_a_byte_stream() {
        let mut assembler = Assembler::default();
        let picture = key(&mut assembler, 9).unwrap();
        let bytes = [0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 0, 1, 0x65, 1, 2, 3];
        assert_eq!((picture.is_key, picture.rtp_time, picture.captured_us), (true, 3_000, Some(7)));
        assert_eq!(picture.bytes, bytes);
        assert_eq!(codec(&picture.bytes).as_deref(), Some("avc1.42e01f"));
        let next = assembler.push(&packet(12, true, &[0x41, 9])).unwrap();
        assert_eq!((next.is_key, next.bytes), (false, vec![0, 0, 0, 1, 0x41, 9]));
    }

    #[test]
    fn what_is_missing_is_waited_out() {
        let mut assembler = Assembler::default();
        assert!(key(&mut assembler, 0).is_some());
        assert_eq!(assembler.push(&packet(4, true, &[0x41, 9])), None);
        assert!(assembler.is_broken());
        assert_eq!(assembler.push(&packet(5, true, &[0x41, 9])), None);
        assert!(key(&mut assembler, 6).is_some());
        assert!(!assembler.is_broken());
    }

    #[test]
    fn what_is_malformed_is_left_out() {
        for bad in [&[][..], &[0x7c], &[0x78, 0, 9, 1], &[0x7c, 0x05, 1]] {
            let mut assembler = Assembler::default();
            assert_eq!(assembler.push(&packet(0, true, bad)), None);
            assert!(assembler.is_broken(), "{bad:?}");
            assert!(key(&mut assembler, 1).is_some());
        }
    }
}
