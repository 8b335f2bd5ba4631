//! What crosses the socket between a node and a worker: one message a datagram (`SOCK_SEQPACKET`).
//!
//! The first byte tells packets from words. A packet is its place, its codec, its marker, its extended
//! sequence number, its timestamp and its capture time, then the payload; words are JSON. Numbers are
//! big-endian. Both sides are ours and of one build, yet a message that cannot be read is an error and no
//! panic: a worker may be broken.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::mix::{MixPacket, Place};
use crate::core::payload::Codec;

/// No message is longer: the largest RTP payload, a scene of a hundred tiles.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

const WORDS: u8 = 0;
const SLOT_PACKET: u8 = 1;
const LINE_PACKET: u8 = 2;
const TRACK_PACKET: u8 = 3;
/// Of a packet before its payload.
const HEAD_BYTES: usize = 30;
/// In place of a capture time that is not known.
const UNKNOWN_US: i64 = i64::MIN;

/// By their place: the byte on the wire.
const CODECS: [Codec; 6] = [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];

/// A message as it came.
#[derive(Debug, PartialEq)]
pub enum Message<T> {
    Words(T),
    Packet(MixPacket),
}

/// What came is no message of ours.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("a message of {0} bytes is too short or of no known kind")]
    Malformed(usize),
    #[error("words that are not understood: {0}")]
    Words(#[from] serde_json::Error),
}

/// Writes words into `out`, in place of what it held.
///
/// # Errors
/// They cannot be put into JSON, which is a fault of their type.
pub fn write_words(words: &impl Serialize, out: &mut Vec<u8>) -> Result<(), WireError> {
    out.clear();
    out.push(WORDS);
    Ok(serde_json::to_writer(out, words)?)
}

/// Writes a packet into `out`, in place of what it held.
pub fn write_packet(packet: &MixPacket, out: &mut Vec<u8>) {
    out.clear();
    let codec = CODECS.iter().position(|codec| *codec == packet.codec).unwrap_or_default() as u8;
    match packet.place {
        Place::Slot(slot) => {
            out.push(SLOT_PACKET);
            out.extend(slot.to_be_bytes());
            out.extend([0; 5]);
        }
        Place::Line { line, encoding } => out.extend([LINE_PACKET, line, encoding, 0, 0, 0, 0, 0]),
        Place::Track { slot, serial, encoding } => {
            out.push(TRACK_PACKET);
            out.extend(slot.to_be_bytes());
            out.extend(serial.to_be_bytes());
            out.push(encoding);
        }
    }
    out.extend([codec, u8::from(packet.marker)]);
    out.extend(packet.seq_no.to_be_bytes());
    out.extend(packet.rtp_time.to_be_bytes());
    out.extend(packet.captured_us.unwrap_or(UNKNOWN_US).to_be_bytes());
    out.extend(&packet.payload[..]);
}

/// # Errors
/// [`WireError`], with what is wrong.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<Message<T>, WireError> {
    if let [WORDS, words @ ..] = bytes {
        return Ok(Message::Words(serde_json::from_slice(words)?));
    }
    let malformed = || WireError::Malformed(bytes.len());
    let (head, payload) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or_else(malformed)?;
    let [kind, a, b, t0, t1, t2, t3, encoding, codec, marker, rest @ ..] = *head;
    let place = match kind {
        SLOT_PACKET => Place::Slot(u16::from_be_bytes([a, b])),
        LINE_PACKET => Place::Line { line: a, encoding: b },
        TRACK_PACKET => {
            let (slot, serial) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([t0, t1, t2, t3]));
            Place::Track { slot, serial, encoding }
        }
        _ => return Err(malformed()),
    };
    let codec = *CODECS.get(usize::from(codec)).ok_or_else(malformed)?;
    let [s0, s1, s2, s3, s4, s5, s6, s7, t0, t1, t2, t3, c0, c1, c2, c3, c4, c5, c6, c7] = rest;
    let captured_us = i64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
    Ok(Message::Packet(MixPacket {
        place,
        codec,
        seq_no: u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        rtp_time: u32::from_be_bytes([t0, t1, t2, t3]),
        captured_us: Some(captured_us).filter(|captured_us| *captured_us != UNKNOWN_US),
        marker: marker != 0,
        payload: Arc::from(payload),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mix::ToMixer;

    fn packet(place: Place) -> MixPacket {
        let payload = Arc::from(&b"payload"[..]);
        let captured_us = (!matches!(place, Place::Line { .. })).then_some(-7);
        let (codec, seq_no, rtp_time) = (Codec::H264, 1 << 40 | 7, 90_001);
        MixPacket { place, codec, seq_no, rtp_time, captured_us, marker: true, payload }
    }

    #[test]
    fn a_packet_and_words_survive_the_socket() {
        let mut bytes = vec![1, 2, 3];
        let track = Place::Track { slot: 0x1234, serial: 0x1234_5678, encoding: 2 };
        for place in [Place::Slot(0x1234), Place::Line { line: 3, encoding: 1 }, track] {
            write_packet(&packet(place), &mut bytes);
            assert_eq!(read::<ToMixer>(&bytes).unwrap(), Message::Packet(packet(place)));
        }
        let words = ToMixer::Keyframe { line: 1, encoding: 0 };
        write_words(&words, &mut bytes).unwrap();
        assert_eq!(read::<ToMixer>(&bytes).unwrap(), Message::Words(words));
    }

    #[test]
    fn what_is_broken_is_refused() {
        let mut bytes = Vec::new();
        write_packet(&packet(Place::Slot(1)), &mut bytes);
        for length in 0..HEAD_BYTES {
            assert!(read::<ToMixer>(&bytes[..length]).is_err(), "{length} bytes");
        }
        bytes[0] = 9;
        assert!(read::<ToMixer>(&bytes).is_err());
        assert!(read::<ToMixer>(b"\0{\"no_such\":1}").is_err());
    }
}
