//! The header of an RTP packet as it came (RFC 3550 §5.1) and what its extensions say (RFC 8285).
//!
//! Reading is a total function over bytes from the network, and nothing of it is to be believed before the
//! packet has been opened: the header is what is authenticated with it.

use str0m::media::Media;
use str0m::rtp::Extension;

use crate::core::payload::dependency;

const FIXED_BYTES: usize = 12;
const ONE_BYTE_PROFILE: u16 = 0xbede;
/// The lower four bits are the application's.
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Bytes before the payload.
    pub len: usize,
    pub marker: bool,
    pub payload_type: u8,
    pub seq_no: u16,
    pub rtp_time: u32,
    pub ssrc: u32,
    /// The payload ends with padding, whose last byte says how much.
    pub has_padding: bool,
    pub values: Values<'a>,
}

/// What extensions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Values<'a> {
    pub transport_seq_no: Option<u16>,
    pub mid: Option<&'a [u8]>,
    pub rid: Option<&'a [u8]>,
    /// RFC 8852: of the stream that this one repairs.
    pub repaired_rid: Option<&'a [u8]>,
    /// RFC 6464, as on the wire.
    pub audio_level: Option<u8>,
    /// 3GPP TS 26.114 §7.4.5.
    pub orientation: Option<u8>,
    pub playout_delay: Option<[u8; 3]>,
    pub descriptor: Option<&'a [u8]>,
    /// When its media was captured by its sender's clock, as seconds since 1900 and their fractions, 32
    /// bits each (abs-capture-time).
    pub captured_at: Option<u64>,
}

/// What an extension means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    TransportSeqNo,
    Mid,
    Rid,
    RepairedRid,
    AudioLevel,
    Orientation,
    PlayoutDelay,
    Descriptor,
    CaptureTime,
}

/// What a peer means by its ids; those of one bundle agree (RFC 8843 §9.1).
#[derive(Debug, Clone, Default)]
pub struct Meanings {
    /// By one-byte id.
    short: [Option<Meaning>; 16],
    /// Of greater ids, which few use.
    long: Vec<(u8, Meaning)>,
}

impl Meanings {
    /// Learns what one negotiated line says.
    pub fn learn(&mut self, media: &Media) {
        let uris = [
            (Extension::TransportSequenceNumber.as_uri(), Meaning::TransportSeqNo),
            (Extension::RtpMid.as_uri(), Meaning::Mid),
            (Extension::RtpStreamId.as_uri(), Meaning::Rid),
            (Extension::RepairedRtpStreamId.as_uri(), Meaning::RepairedRid),
            (Extension::AudioLevel.as_uri(), Meaning::AudioLevel),
            (Extension::VideoOrientation.as_uri(), Meaning::Orientation),
            (Extension::PlayoutDelay.as_uri(), Meaning::PlayoutDelay),
            (dependency::URI, Meaning::Descriptor),
            (Extension::AbsoluteCaptureTime.as_uri(), Meaning::CaptureTime),
        ];
        for (id, extension) in media.remote_extmap().iter() {
            let known = uris.iter().find(|(uri, _)| *uri == extension.as_uri());
            if let Some((_, meaning)) = known {
                self.set(id, *meaning);
            }
        }
    }

    fn set(&mut self, id: u8, meaning: Meaning) {
        if let Some(short) = self.short.get_mut(usize::from(id)) {
            *short = Some(meaning);
        } else if self.of(id).is_none() {
            self.long.push((id, meaning));
        }
    }

    #[inline]
    fn of(&self, id: u8) -> Option<Meaning> {
        match self.short.get(usize::from(id)) {
            Some(short) => *short,
            None => self.long.iter().find(|(known, _)| *known == id).map(|(_, meaning)| *meaning),
        }
    }
}

impl<'a> Header<'a> {
    /// `None` for what is no RTP packet.
    #[inline]
    pub fn read(bytes: &'a [u8], meanings: &Meanings) -> Option<Self> {
        let fixed: &[u8; FIXED_BYTES] = bytes.first_chunk()?;
        let [first, second, seq_no @ ..] = fixed;
        if first >> 6 != 2 {
            return None;
        }
        let [s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *seq_no;
        let mut len = FIXED_BYTES + 4 * usize::from(first & 15);
        let mut values = Values::default();
        if first & 0x10 != 0 {
            let &[p0, p1, w0, w1] = bytes.get(len..)?.first_chunk()?;
            let data = len + 4;
            len = data + 4 * usize::from(u16::from_be_bytes([w0, w1]));
            values.read(u16::from_be_bytes([p0, p1]), bytes.get(data..len)?, meanings);
        }
        (len <= bytes.len()).then_some(Self {
            len,
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            seq_no: u16::from_be_bytes([s0, s1]),
            rtp_time: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([i0, i1, i2, i3]),
            has_padding: first & 0x20 != 0,
            values,
        })
    }
}

impl<'a> Values<'a> {
    #[inline]
    fn read(&mut self, profile: u16, data: &'a [u8], meanings: &Meanings) {
        match profile {
            ONE_BYTE_PROFILE => self.read_short(data, meanings),
            _ if profile & 0xfff0 == TWO_BYTE_PROFILE => self.read_long(data, meanings),
            _ => {}
        }
    }

    #[inline]
    fn read_short(&mut self, mut data: &'a [u8], meanings: &Meanings) {
        while let Some((&first, rest)) = data.split_first() {
            // Padding, and the id that ends the block (RFC 8285 §4.2).
            match first >> 4 {
                0 => data = rest,
                15 => return,
                id => {
                    let Some((value, after)) = rest.split_at_checked(usize::from(first & 15) + 1) else {
                        return;
                    };
                    self.take(meanings.of(id), value);
                    data = after;
                }
            }
        }
    }

    fn read_long(&mut self, mut data: &'a [u8], meanings: &Meanings) {
        while let Some((&id, rest)) = data.split_first() {
            if id == 0 {
                data = rest;
                continue;
            }
            let Some((&len, rest)) = rest.split_first() else { return };
            let Some((value, after)) = rest.split_at_checked(usize::from(len)) else { return };
            self.take(meanings.of(id), value);
            data = after;
        }
    }

    #[inline]
    fn take(&mut self, meaning: Option<Meaning>, value: &'a [u8]) {
        match (meaning, value) {
            (Some(Meaning::TransportSeqNo), &[high, low, ..]) => {
                self.transport_seq_no = Some(u16::from_be_bytes([high, low]));
            }
            (Some(Meaning::AudioLevel), &[level, ..]) => self.audio_level = Some(level),
            (Some(Meaning::Mid), [_, ..]) => self.mid = Some(value),
            (Some(Meaning::Rid), [_, ..]) => self.rid = Some(value),
            (Some(Meaning::RepairedRid), [_, ..]) => self.repaired_rid = Some(value),
            (Some(Meaning::Orientation), &[orientation, ..]) => self.orientation = Some(orientation),
            (Some(Meaning::PlayoutDelay), &[a, b, c]) => self.playout_delay = Some([a, b, c]),
            (Some(Meaning::Descriptor), [_, ..]) => self.descriptor = Some(value),
            (Some(Meaning::CaptureTime), _) => self.captured_at = captured_at(value),
            _ => {}
        }
    }
}

/// By the clock of whoever captured it, and where that is not the sender, how far that clock is ahead of
/// the sender's.
fn captured_at(value: &[u8]) -> Option<u64> {
    let (captured_at, rest) = value.split_first_chunk()?;
    let ahead = rest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Some(u64::from_be_bytes(*captured_at).wrapping_sub(ahead))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Meanings {
        /// Ids as Chromium has them, and one that is long.
        pub fn for_tests() -> Self {
            let mut meanings = Self::default();
            meanings.set(3, Meaning::TransportSeqNo);
            meanings.set(1, Meaning::AudioLevel);
            meanings.set(4, Meaning::Mid);
            meanings.set(10, Meaning::Rid);
            meanings.set(11, Meaning::RepairedRid);
            meanings.set(13, Meaning::CaptureTime);
            meanings.set(200, Meaning::Descriptor);
            meanings
        }
    }

    fn meanings() -> Meanings {
        Meanings::for_tests()
    }

    fn packet(first: u8, profile: u16, extension: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, 0x80 | 96, 1, 2, 0, 0, 0, 3, 0, 0, 0, 4];
        bytes.resize(12 + 4 * usize::from(first & 15), 0);
        bytes.extend(profile.to_be_bytes());
        bytes.extend((extension.len().div_ceil(4) as u16).to_be_bytes());
        bytes.extend(extension);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn one_byte_extensions_are_read_around_padding_and_unknown_ones() {
        let extension =
            [0x31, 0x12, 0x34, 0, 0, 0x70, 9, 0x10, 0x85, 0x41, b'a', b'b', 0xa0, b'h', 0xf0, 0x31, 9, 9];
        let bytes = packet(0xb2, ONE_BYTE_PROFILE, &extension, &[7; 5]);
        let header = Header::read(&bytes, &meanings()).unwrap();
        let values = Values {
            transport_seq_no: Some(0x1234),
            audio_level: Some(0x85),
            mid: Some(b"ab"),
            rid: Some(b"h"),
            ..Values::default()
        };
        assert_eq!(header.values, values);
        assert_eq!((header.len, header.has_padding), (12 + 8 + 4 + 20, true));
        assert_eq!((header.marker, header.payload_type, header.seq_no), (true, 96, 0x0102));
        assert_eq!((header.rtp_time, header.ssrc), (3, 4));
        assert_eq!(bytes[header.len..], [7; 5]);
    }

    #[test]
    fn two_byte_extensions_hold_long_values_and_great_ids() {
        let mut extension = vec![200, 20];
        extension.extend([5; 20]);
        extension.extend([3, 2, 0, 9, 4, 0]);
        let bytes = packet(0x90, TWO_BYTE_PROFILE | 5, &extension, &[]);
        let header = Header::read(&bytes, &meanings()).unwrap();
        assert_eq!(header.values.descriptor, Some(&[5; 20][..]));
        assert_eq!((header.values.transport_seq_no, header.values.mid), (Some(9), None));
    }

    #[test]
    fn the_time_of_capture_is_its_sender_s() {
        let captured = |value: &[u8]| {
            let mut extension = vec![0xd0 | (value.len() - 1) as u8];
            extension.extend(value);
            let bytes = packet(0x90, ONE_BYTE_PROFILE, &extension, &[]);
            Header::read(&bytes, &meanings()).unwrap().values.captured_at
        };
        assert_eq!(captured(&[0, 0, 0, 9, 0x80, 0, 0, 0]), Some(9 << 32 | 1 << 31));
        let a_second_behind = [0, 0, 0, 9, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0];
        assert_eq!(captured(&a_second_behind), Some(10 << 32));
        assert_eq!(captured(&[0, 0, 0, 9]), None);
    }

    #[test]
    fn what_is_cut_short_is_no_packet() {
        let bytes = packet(0x91, ONE_BYTE_PROFILE, &[0x31, 0, 1], &[]);
        for len in 0..bytes.len() {
            assert_eq!(Header::read(&bytes[..len], &meanings()), None, "{len}");
        }
        assert!(Header::read(&bytes, &meanings()).is_some());
        assert_eq!(Header::read(&[0x40; 20], &meanings()), None, "another version");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_to_an_end(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(header) = Header::read(&bytes, &meanings()) {
                prop_assert!(header.len <= bytes.len());
            }
            // And with an extension block of their own.
            bytes.resize(bytes.len().max(16), 0);
            bytes[0] = 0x90;
            bytes[12..14].copy_from_slice(&ONE_BYTE_PROFILE.to_be_bytes());
            let words = ((bytes.len() - 16) / 4) as u16;
            bytes[14..16].copy_from_slice(&words.to_be_bytes());
            prop_assert!(Header::read(&bytes, &meanings()).is_some());
        }
    }
}
