//! What nodes send each other about a room that spreads over them.
//!
//! A *link* is one QUIC connection (RFC 9000) from a node that has branches to the node that is their rooms'
//! home. For each branch there is a stream with [`Frame`]s, JSON behind a length; packets and requests to
//! send them again ride datagrams (RFC 9221), see [`Datagram`]. All numbers are big-endian.
//!
//! Versions meet by ALPN (RFC 7301), [`ALPN`]: the highest that both know. Within one, fields and kinds of
//! frames may be added; who does not know them passes over them. Whatever comes is read without a panic.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use str0m::media::{Mid, Rid};

use super::{Data, Downstream, Packet, Upstream};
use crate::core::format::Format;
use crate::core::ids::{NodeId, RoomName, SessionId};
use crate::core::payload::{Codec, DescriptorBytes};
use crate::core::protocol::RoomState;
use crate::core::replay::{CONTRIBUTORS_MAX, Contributors, Rare};
use crate::core::room::ParticipantKey;

/// Versions of the protocol, the one to be preferred first. A node keeps the one before the newest.
pub const ALPN: &[&[u8]] = &[b"antiphon-relay/1"];

/// Of one frame: the mirror of a room with some thousand publishers.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// A frame's length comes before it.
pub const LENGTH_BYTES: usize = 4;
/// Of what came as a stream, being too large for a datagram: more than any RTP payload.
pub const OVERSIZE_BYTES_MAX: usize = 66_000;
/// Packets that one request names.
pub const NAMED_MAX: usize = 256;

/// What came over a link cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("it ends too early")]
    Short,
    #[error("a frame is longer than {FRAME_BYTES_MAX} bytes")]
    Long,
    #[error("it is of a kind that this version does not know")]
    Unknown,
}

/// One message on the stream of a branch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// From the branch's node, first: it wants a branch of a room that the other holds under this epoch.
    Open {
        room: RoomName,
        epoch: u64,
        branch: u32,
        node: NodeId,
        /// Of the request that it wants it for (W3C Trace Context), where that is kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<String>,
    },
    /// From the home's node: packets of this branch carry its number.
    Accepted {
        state: Box<RoomState>,
        epoch: u64,
    },
    /// From the home's node; nothing comes after it.
    Refused(Reason),
    Down(Downstream),
    Up(Upstream),
}

/// Why a node gives no branch of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It does not hold the room, or has but a branch of it itself: there is no branch of a branch.
    #[error("it is not the room's home")]
    NotHome,
    /// One of the two has missed that the room was opened anew.
    #[error("it has the room under another epoch")]
    OtherEpoch,
    /// The room stays on its node, as one that costs money does.
    #[error("the room does not spread")]
    Confined,
    #[error("it has too much to do")]
    Busy,
    /// Said by a newer version.
    #[serde(other)]
    #[error("for a reason that this version does not know")]
    Unknown,
}

impl Frame {
    /// With its length before it.
    pub fn encode(&self) -> Vec<u8> {
        // Plain data always has a JSON form; were it not so, an empty frame is passed over.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + json.len());
        bytes.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&json);
        bytes
    }

    /// The length that stands before a frame.
    ///
    /// # Errors
    /// [`WireError::Long`].
    pub fn length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, WireError> {
        let length = u32::from_be_bytes(bytes) as usize;
        if length <= FRAME_BYTES_MAX { Ok(length) } else { Err(WireError::Long) }
    }

    /// # Errors
    /// [`WireError::Unknown`]: to be passed over.
    pub fn decode(json: &[u8]) -> Result<Self, WireError> {
        serde_json::from_slice(json).map_err(|_| WireError::Unknown)
    }
}

/// What one datagram carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// `seq_no` counts what the sender sent on this link, and wraps.
    Media { seq_no: u32, branch: u32, packet: Packet },
    /// These did not come: send them again.
    Missing(Vec<u32>),
    /// It comes once, or not at all.
    Data { branch: u32, data: Data },
}

const MEDIA: u8 = 1;
const MISSING: u8 = 2;
const DATA: u8 = 3;

const MARKER: u8 = 1 << 0;
const LEVEL: u8 = 1 << 1;
const DESCRIPTOR: u8 = 1 << 2;
const ORIENTATION: u8 = 1 << 3;
const PLAYOUT_DELAY: u8 = 1 << 4;
const CONTRIBUTORS: u8 = 1 << 5;

impl Datagram {
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Media { seq_no, branch, packet } => encode_media(*seq_no, *branch, packet),
            Self::Missing(named) => {
                let mut bytes = BytesMut::with_capacity(1 + 4 * named.len());
                bytes.put_u8(MISSING);
                named.iter().take(NAMED_MAX).for_each(|seq_no| bytes.put_u32(*seq_no));
                bytes.freeze()
            }
            Self::Data { branch, data } => {
                let mut bytes = BytesMut::with_capacity(10 + data.bytes.len());
                bytes.put_u8(DATA);
                bytes.put_u32(*branch);
                bytes.put_u32(data.origin.0);
                bytes.put_u8(u8::from(data.is_binary));
                bytes.put_slice(&data.bytes);
                bytes.freeze()
            }
        }
    }

    /// # Errors
    /// [`WireError`], for what is no datagram of a version that we know: it is passed over.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            MEDIA => {
                let (seq_no, branch) = (reader.u32()?, reader.u32()?);
                Ok(Self::Media { seq_no, branch, packet: decode_media(&mut reader)? })
            }
            MISSING => {
                let named = reader.0.chunks_exact(4).take(NAMED_MAX);
                let named = named.map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
                Ok(Self::Missing(named.collect()))
            }
            DATA => {
                let (branch, origin) = (reader.u32()?, ParticipantKey(reader.u32()?));
                let is_binary = reader.u8()? != 0;
                Ok(Self::Data { branch, data: Data { origin, is_binary, bytes: Arc::from(reader.0) } })
            }
            _ => Err(WireError::Unknown),
        }
    }
}

/// As [`Datagram::Media`], of a packet that stays whose it is.
pub fn encode_media(seq_no: u32, branch: u32, packet: &Packet) -> Bytes {
    let rare = packet.rare.as_deref();
    let orientation = rare.and_then(|rare| rare.orientation);
    let playout_delay = rare.and_then(|rare| rare.playout_delay);
    let contributors = rare.map_or(&[][..], |rare| &rare.contributors);
    let contributors = contributors.get(..CONTRIBUTORS_MAX).unwrap_or(contributors);
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(packet.marker, MARKER)
        | flag(packet.audio_level.is_some(), LEVEL)
        | flag(packet.descriptor.is_some(), DESCRIPTOR)
        | flag(orientation.is_some(), ORIENTATION)
        | flag(playout_delay.is_some(), PLAYOUT_DELAY)
        | flag(!contributors.is_empty(), CONTRIBUTORS);
    let mut bytes = BytesMut::with_capacity(48 + packet.payload.len());
    bytes.put_u8(MEDIA);
    bytes.put_u32(seq_no);
    bytes.put_u32(branch);
    bytes.put_u8(flags);
    bytes.put_u32(packet.origin.0);
    bytes.put_u8(packet.line);
    bytes.put_u8(packet.encoding);
    bytes.put_u8(codec_number(packet.format.codec));
    bytes.put_u32(packet.format.profile);
    bytes.put_u64(packet.seq_no);
    bytes.put_u32(packet.rtp_time);
    if let Some((level, voice)) = packet.audio_level {
        bytes.put_u8(u8::from(voice) << 7 | level.min(0x7f));
    }
    if let Some(descriptor) = &packet.descriptor {
        // No longer than one extension holds, 255 bytes.
        bytes.put_u8(descriptor.as_slice().len() as u8);
        bytes.put_slice(descriptor.as_slice());
    }
    orientation.iter().for_each(|orientation| bytes.put_u8(*orientation));
    playout_delay.iter().for_each(|delay| bytes.put_slice(delay));
    if !contributors.is_empty() {
        bytes.put_u8(contributors.len() as u8);
        contributors.iter().for_each(|contributor| bytes.put_u32(*contributor));
    }
    bytes.put_slice(&packet.payload);
    bytes.freeze()
}

fn decode_media(reader: &mut Reader<'_>) -> Result<Packet, WireError> {
    let flags = reader.u8()?;
    let has = |flag: u8| flags & flag != 0;
    let origin = ParticipantKey(reader.u32()?);
    let (line, encoding) = (reader.u8()?, reader.u8()?);
    let codec = codec_of(reader.u8()?)?;
    let format = Format { codec, profile: reader.u32()? };
    let (seq_no, rtp_time) = (reader.u64()?, reader.u32()?);
    let level = if has(LEVEL) { Some(reader.u8()?) } else { None };
    let descriptor = if has(DESCRIPTOR) {
        let length = reader.u8()?;
        Some(DescriptorBytes::new(reader.take(usize::from(length))?))
    } else {
        None
    };
    let orientation = if has(ORIENTATION) { Some(reader.u8()?) } else { None };
    let playout_delay =
        if has(PLAYOUT_DELAY) { Some([reader.u8()?, reader.u8()?, reader.u8()?]) } else { None };
    let mut contributors = Contributors::new();
    if has(CONTRIBUTORS) {
        for _ in 0..reader.u8()? {
            let contributor = reader.u32()?;
            if contributors.len() < CONTRIBUTORS_MAX {
                contributors.push(contributor);
            }
        }
    }
    let is_rare = orientation.is_some() || playout_delay.is_some() || !contributors.is_empty();
    Ok(Packet {
        origin,
        line,
        encoding,
        format,
        seq_no,
        rtp_time,
        marker: has(MARKER),
        audio_level: level.map(|level| (level & 0x7f, level & 0x80 != 0)),
        descriptor,
        rare: is_rare.then(|| Box::new(Rare { orientation, playout_delay, contributors })),
        payload: Arc::from(reader.0),
    })
}

/// A codec's number on the wire, for good.
fn codec_number(codec: Codec) -> u8 {
    match codec {
        Codec::Opus => 1,
        Codec::Red => 2,
        Codec::Vp8 => 3,
        Codec::Vp9 => 4,
        Codec::H264 => 5,
        Codec::Av1 => 6,
    }
}

fn codec_of(number: u8) -> Result<Codec, WireError> {
    Ok(match number {
        1 => Codec::Opus,
        2 => Codec::Red,
        3 => Codec::Vp8,
        4 => Codec::Vp9,
        5 => Codec::H264,
        6 => Codec::Av1,
        _ => return Err(WireError::Unknown),
    })
}

/// The rest of what is read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

/// What this version knows of something, or none.
pub fn known<'de, T, D>(input: D) -> Result<Option<T>, D::Error>
where
    T: de::DeserializeOwned,
    D: Deserializer<'de>,
{
    let value = serde_json::Value::deserialize(input)?;
    Ok(serde_json::from_value(value).ok())
}

/// An m-line's name as text.
pub mod mid {
    use super::{Deserialize, Deserializer, Mid, Serializer};

    /// # Errors
    /// The output's own.
    pub fn serialize<S: Serializer>(mid: &Mid, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(mid)
    }

    /// # Errors
    /// Anything but text.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Mid, D::Error> {
        Ok(Mid::from(String::deserialize(input)?.as_str()))
    }
}

/// An encoding's name as text, or nothing.
pub mod rid {
    use super::{Deserialize, Deserializer, Rid, Serialize as _, Serializer};

    /// # Errors
    /// The output's own.
    pub fn serialize<S: Serializer>(rid: &Option<Rid>, output: S) -> Result<S::Ok, S::Error> {
        rid.map(|rid| rid.to_string()).serialize(output)
    }

    /// # Errors
    /// Anything but text or nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Rid>, D::Error> {
        Ok(Option::<String>::deserialize(input)?.map(|text| Rid::from(text.as_str())))
    }
}

/// A session as text: it opens to whoever holds it, so it crosses links alone, which are encrypted.
pub mod session {
    use super::{Deserialize, Deserializer, Serializer, SessionId, de};

    /// # Errors
    /// The output's own.
    pub fn serialize<S: Serializer>(session: &SessionId, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&session.reveal())
    }

    /// # Errors
    /// Anything but 32 hex digits.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<SessionId, D::Error> {
        let text = String::deserialize(input)?;
        SessionId::parse(&text).ok_or_else(|| de::Error::custom("it is no session"))
    }
}

/// Names of encodings as text.
pub mod rids {
    use super::{Deserialize, Deserializer, Rid, Serializer};

    /// # Errors
    /// The output's own.
    pub fn serialize<S: Serializer>(rids: &[Rid], output: S) -> Result<S::Ok, S::Error> {
        output.collect_seq(rids.iter().map(ToString::to_string))
    }

    /// # Errors
    /// Anything but a list of text.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Rid>, D::Error> {
        let texts = Vec::<String>::deserialize(input)?;
        Ok(texts.iter().map(|text| Rid::from(text.as_str())).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet() -> impl Strategy<Value = Packet> {
        let head = (any::<u32>(), any::<u8>(), any::<u8>(), 1..=6u8, any::<u32>());
        let times = (any::<u64>(), any::<u32>(), any::<bool>());
        let level = proptest::option::of((0..=127u8, any::<bool>()));
        let bytes = |max: usize| proptest::collection::vec(any::<u8>(), 0..max);
        let descriptor = proptest::option::of(bytes(256));
        let rare = proptest::option::of((
            proptest::option::of(any::<u8>()),
            proptest::option::of(any::<[u8; 3]>()),
            proptest::collection::vec(any::<u32>(), 0..=CONTRIBUTORS_MAX),
        ));
        (head, times, level, descriptor, rare, bytes(1_500)).prop_map(
            |((origin, line, encoding, codec, profile), times, audio_level, descriptor, rare, payload)| {
                let rare = rare.map(|(orientation, playout_delay, contributors)| {
                    let contributors = Contributors::from_slice(&contributors);
                    Rare { orientation, playout_delay, contributors }
                });
                let is_rare = |rare: &Rare| {
                    rare.orientation.is_some()
                        || rare.playout_delay.is_some()
                        || !rare.contributors.is_empty()
                };
                Packet {
                    origin: ParticipantKey(origin),
                    line,
                    encoding,
                    format: Format { codec: codec_of(codec).unwrap(), profile },
                    seq_no: times.0,
                    rtp_time: times.1,
                    marker: times.2,
                    audio_level,
                    descriptor: descriptor.map(|bytes| DescriptorBytes::new(&bytes)),
                    rare: rare.filter(is_rare).map(Box::new),
                    payload: Arc::from(payload),
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_packet_survives_the_wire(packet in packet(), seq_no: u32, branch: u32) {
            let sent = Datagram::Media { seq_no, branch, packet };
            prop_assert_eq!(Datagram::decode(&sent.encode()), Ok(sent));
        }

        /// Cut anywhere, it is refused or read as less, and nothing panics.
        #[test]
        fn a_packet_that_was_cut_is_no_harm(packet in packet(), share in 0.0..1.0f64) {
            let sent = Datagram::Media { seq_no: 1, branch: 2, packet }.encode();
            let kept = (sent.len() as f64 * share) as usize;
            let _ = Datagram::decode(&sent[..kept]);
        }

        #[test]
        fn whatever_comes_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Datagram::decode(&bytes);
            let _ = Frame::decode(&bytes);
        }

        #[test]
        fn what_members_send_each_other_survives_the_wire(
            branch: u32,
            origin: u32,
            is_binary: bool,
            bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
        ) {
            let data = Data { origin: ParticipantKey(origin), is_binary, bytes: bytes.into() };
            let sent = Datagram::Data { branch, data };
            prop_assert_eq!(Datagram::decode(&sent.encode()), Ok(sent));
        }

        #[test]
        fn requests_survive_the_wire(named in proptest::collection::vec(any::<u32>(), 0..NAMED_MAX)) {
            let sent = Datagram::Missing(named);
            prop_assert_eq!(Datagram::decode(&sent.encode()), Ok(sent));
        }
    }

    /// What a node of the first version says, byte for byte: another version has to read it.
    #[test]
    fn the_first_version_is_read_for_good() {
        let demand = br#"{"up":{"demand":{"seat":3,"line":1,"serial":9,"encodings":4}}}"#;
        let seat = ParticipantKey(3);
        let expected = Upstream::Demand { seat, line: 1, serial: 9, encodings: 4 };
        assert!(matches!(Frame::decode(demand), Ok(Frame::Up(up)) if up == expected));
        let open = br#"{"open":{"room":"abc","epoch":7,"branch":1,"node":"n-1","colour":"new"}}"#;
        assert!(matches!(Frame::decode(open), Ok(Frame::Open { epoch: 7, branch: 1, .. })));
        let keyframe = br#"{"up":{"keyframe":{"seat":3,"mid":"v0","rid":null}}}"#;
        assert!(matches!(Frame::decode(keyframe), Ok(Frame::Up(Upstream::Keyframe { rid: None, .. }))));
    }

    #[test]
    fn what_only_a_newer_version_says_is_passed_over() {
        assert!(matches!(Frame::decode(br#"{"sing":{}}"#), Err(WireError::Unknown)));
        assert!(matches!(Frame::decode(br#"{"refused":"moody"}"#), Ok(Frame::Refused(Reason::Unknown))));
        assert_eq!(Datagram::decode(&[9, 1, 2]), Err(WireError::Unknown));
        assert_eq!(Datagram::decode(&[]), Err(WireError::Short));
        assert_eq!(Frame::length([0xff; 4]), Err(WireError::Long));
    }

    #[test]
    fn a_track_in_a_format_of_a_newer_version_has_none() {
        let track = r#"{"serial":1,"source":"camera","format":{"codec":"av2","profile":0},"muted":false,
            "silenced":false,"height_told":720}"#;
        let track: super::super::MirroredTrack = serde_json::from_str(track).unwrap();
        assert_eq!((track.format, track.height_told), (None, Some(720)));
    }
}
