//! The few of LiveKit's protobuf messages that a synthetic client needs, by the tags of its public
//! `livekit_rtc.proto` and `livekit_models.proto`. What is left out is skipped when read.

use prost::{Message, Oneof};

use crate::bench::source::Encoding;

/// `SignalRequest`: client to server.
#[derive(Clone, PartialEq, Message)]
pub struct SignalRequest {
    #[prost(oneof = "Request", tags = "1, 2, 4, 8, 16")]
    pub message: Option<Request>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Request {
    #[prost(message, tag = "1")]
    Offer(Description),
    #[prost(message, tag = "2")]
    Answer(Description),
    #[prost(message, tag = "4")]
    AddTrack(AddTrack),
    #[prost(message, tag = "8")]
    Leave(Leave),
    #[prost(message, tag = "16")]
    Ping(Ping),
}

/// `SignalResponse`: server to client.
#[derive(Clone, PartialEq, Message)]
pub struct SignalResponse {
    #[prost(oneof = "Response", tags = "1, 2, 3, 4, 8")]
    pub message: Option<Response>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Response {
    #[prost(message, tag = "1")]
    Join(Joined),
    #[prost(message, tag = "2")]
    Answer(Description),
    #[prost(message, tag = "3")]
    Offer(Description),
    #[prost(message, tag = "4")]
    Trickle(Candidate),
    #[prost(message, tag = "8")]
    Leave(Leave),
}

/// `JoinResponse`, of which nothing is needed.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Joined {}

/// `LeaveRequest`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Leave {}

/// `SessionDescription`.
#[derive(Clone, PartialEq, Message)]
pub struct Description {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub sdp: String,
    /// An answer has that of its offer.
    #[prost(uint32, tag = "3")]
    pub id: u32,
}

/// `TrickleRequest`: a candidate as JSON.
#[derive(Clone, PartialEq, Message)]
pub struct Candidate {
    #[prost(string, tag = "1")]
    pub init: String,
}

/// `Ping`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Ping {
    #[prost(int64, tag = "1")]
    pub timestamp: i64,
    #[prost(int64, tag = "2")]
    pub rtt: i64,
}

/// `AddTrackRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct AddTrack {
    #[prost(string, tag = "1")]
    pub cid: String,
    /// `TrackType`: 0 audio, 1 video.
    #[prost(int32, tag = "3")]
    pub kind: i32,
    #[prost(uint32, tag = "4")]
    pub width: u32,
    #[prost(uint32, tag = "5")]
    pub height: u32,
    /// `TrackSource`: 1 camera, 2 microphone.
    #[prost(int32, tag = "8")]
    pub source: i32,
    #[prost(message, repeated, tag = "9")]
    pub layers: Vec<Layer>,
}

/// `VideoLayer`.
#[derive(Clone, PartialEq, Message)]
pub struct Layer {
    /// `VideoQuality`: 0 low, 1 medium, 2 high; a single layer is high.
    #[prost(int32, tag = "1")]
    pub quality: i32,
    #[prost(uint32, tag = "2")]
    pub width: u32,
    #[prost(uint32, tag = "3")]
    pub height: u32,
    #[prost(uint32, tag = "4")]
    pub bitrate_bps: u32,
}

impl AddTrack {
    /// A microphone.
    pub fn microphone() -> Self {
        Self { cid: "microphone".into(), source: 2, ..Self::default() }
    }

    /// A camera with these encodings, lowest first.
    pub fn camera(encodings: &[Encoding]) -> Self {
        let qualities = 3usize.saturating_sub(encodings.len()) as i32..;
        let layers = qualities.zip(encodings).map(|(quality, encoding)| Layer {
            quality,
            width: encoding.width.into(),
            height: encoding.height.into(),
            bitrate_bps: encoding.bitrate_bps as u32,
        });
        let top = encodings.last();
        Self {
            cid: "camera".into(),
            kind: 1,
            width: top.map_or(0, |top| top.width.into()),
            height: top.map_or(0, |top| top.height.into()),
            source: 1,
            layers: layers.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::source::{simulcast, single};

    #[test]
    fn requests_have_the_published_tags() {
        let answer = Description { kind: "answer".into(), sdp: "v=0".into(), id: 7 };
        let bytes = SignalRequest { message: Some(Request::Answer(answer)) }.encode_to_vec();
        assert_eq!(bytes, b"\x12\x0f\x0a\x06answer\x12\x03v=0\x18\x07");
        let bytes = SignalRequest { message: Some(Request::Leave(Leave {})) }.encode_to_vec();
        assert_eq!(bytes, [0x42, 0]);
    }

    #[test]
    fn responses_are_read_and_unknown_ones_skipped() {
        let offer = SignalResponse::decode(&b"\x1a\x0e\x0a\x05offer\x12\x03v=0\x18\x02"[..]);
        let expected = Description { kind: "offer".into(), sdp: "v=0".into(), id: 2 };
        assert_eq!(offer.expect("an offer").message, Some(Response::Offer(expected)));
        let update = SignalResponse::decode(&b"\x2a\x02\x0a\x00"[..]);
        assert_eq!(update.expect("some update").message, None);
        assert!(SignalResponse::decode(&b"\x1a\x0e\x0a"[..]).is_err());
    }

    #[test]
    fn a_single_encoding_is_high_and_three_are_low_to_high() {
        let qualities = |encodings: &[Encoding]| -> Vec<i32> {
            AddTrack::camera(encodings).layers.iter().map(|layer| layer.quality).collect()
        };
        assert_eq!(qualities(&single(1_500_000)), [2]);
        assert_eq!(qualities(&simulcast(1_500_000)), [0, 1, 2]);
    }
}
