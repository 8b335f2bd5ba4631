//! The mark in the last bytes of every synthetic payload: who sent it, as which packet of which frame, when.
//!
//! It sits at the end, so that a server may rewrite the payload descriptor at the front. With it loss, order,
//! duplicates and one-way latency are exact, as long as sender and receiver share one clock.

/// Bytes that a stamp takes at the end of a payload.
pub const STAMP_LEN: usize = 30;
/// "ANTI", so that a packet of another origin is not taken for ours.
const MAGIC: u32 = 0x414e_5449;
/// [`Stamp::encoding`] of audio; video encodings count from 0, lowest first.
pub const AUDIO: u8 = u8::MAX;

/// What the sender knew about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the publisher, unique in one run.
    pub publisher: u32,
    /// Video encoding from 0, lowest first, or [`AUDIO`].
    pub encoding: u8,
    /// Part of a key frame.
    pub key: bool,
    /// Index of this packet in its frame.
    pub part: u16,
    /// Packets in this frame.
    pub parts: u16,
    /// Number of the captured picture, the same in all encodings of it.
    pub frame: u32,
    /// Number of the packet within its encoding.
    pub counter: u32,
    /// When it was made, nanoseconds on the run's clock.
    pub sent_ns: u64,
}

impl Stamp {
    /// Appends itself to `payload`.
    pub fn write(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(&MAGIC.to_be_bytes());
        payload.extend_from_slice(&self.publisher.to_be_bytes());
        payload.push(self.encoding);
        payload.push(u8::from(self.key));
        payload.extend_from_slice(&self.part.to_be_bytes());
        payload.extend_from_slice(&self.parts.to_be_bytes());
        payload.extend_from_slice(&self.frame.to_be_bytes());
        payload.extend_from_slice(&self.counter.to_be_bytes());
        payload.extend_from_slice(&self.sent_ns.to_be_bytes());
    }

    /// Reads the stamp of a payload; none if it is not one of ours.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAMP_LEN] = payload.last_chunk()?;
        let u16_at = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        if u32_at(0)? != MAGIC {
            return None;
        }
        Some(Self {
            publisher: u32_at(4)?,
            encoding: bytes[8],
            key: bytes[9] != 0,
            part: u16_at(10)?,
            parts: u16_at(12)?,
            frame: u32_at(14)?,
            counter: u32_at(18)?,
            sent_ns: u64::from_be_bytes(*bytes.last_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_behind_any_payload() {
        let stamp = Stamp {
            publisher: 7,
            encoding: 2,
            key: true,
            part: 3,
            parts: 5,
            frame: 1 << 20,
            counter: u32::MAX,
            sent_ns: 1 << 50,
        };
        let mut payload = vec![0x90, 0x80];
        stamp.write(&mut payload);
        assert_eq!(payload.len(), 2 + STAMP_LEN);
        assert_eq!(Stamp::read(&payload), Some(stamp));
    }

    #[test]
    fn a_payload_of_another_origin_has_no_stamp() {
        assert_eq!(Stamp::read(&[0; 29]), None);
        assert_eq!(Stamp::read(&[0; 300]), None);
    }
}
