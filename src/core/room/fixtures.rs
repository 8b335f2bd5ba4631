//! What tests of a room begin with. Rooms take ten publishers and as many viewers, whoever comes first is no
//! admin, and nothing mixes.

use std::sync::Arc;
use std::time::Duration;

use super::{Arrival, Settings};
use crate::core::format::Format;
use crate::core::ids::RoomName;
use crate::core::protocol::{Grant, RoomState};

/// One packet, one VP8 key frame of 640 × 360 (RFC 7741 §4.2, RFC 6386 §9.1).
pub const KEYFRAME: [u8; 12] = [0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 0];

/// [`KEYFRAME`] as it comes on a line, in one of its encodings.
pub fn keyframe(line: u8, encoding: u8, seq_no: u64, payload: &Arc<[u8]>) -> Arrival<'_> {
    Arrival {
        line,
        encoding,
        format: Format::VP8,
        seq_no,
        rtp_time: seq_no as u32 * 3_000,
        marker: true,
        payload,
        descriptor: None,
        audio_level: None,
        rare: None,
    }
}

/// May do all that is not an admin's.
pub const MEMBER: Grant =
    Grant { publish: true, subscribe: true, chat: true, files: true, admin: false, lowest_layer: false };

pub fn settings(name: &str) -> Settings {
    Settings {
        state: RoomState::new(RoomName::parse(name).unwrap(), 10, 0),
        publishers_max: 10,
        viewers_max: 10,
        video_bps_max: 5_000_000,
        messages_per_second: 1_000.0,
        chat_chars_max: 100,
        empty_after: Duration::from_secs(60),
        resume_within: Duration::from_secs(15),
        initial_estimate_bps: 5_000_000,
        first_is_admin: false,
        mix: None,
        may_record: true,
        epoch: 1,
    }
}
