//! What tests of a room begin with. Rooms take ten publishers and as many viewers, whoever comes first is no
//! admin, and nothing mixes.

use std::time::Duration;

use super::Settings;
use crate::core::ids::RoomName;
use crate::core::protocol::{Grant, RoomState};

/// One packet, one VP8 key frame of 640 × 360 (RFC 7741 §4.2, RFC 6386 §9.1).
pub const KEYFRAME: [u8; 12] = [0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 0];

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
