//! The configuration of streams: what leaves rooms for players and other services.

use serde::{Deserialize, Serialize};

/// HLS of a room's programme, and pushes of it by RTMP. Both need the mixer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    pub enabled: bool,
    /// Rooms that are streamed by HLS at a time.
    pub hls_max: u32,
    /// Pushes of one room, and of the node.
    pub restreams_per_room_max: u32,
    pub restreams_max: u32,
    /// A room's owner may push to loopback and private addresses, so to whatever this machine can reach.
    pub private_targets: bool,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            enabled: true,
            hls_max: 16,
            restreams_per_room_max: 4,
            restreams_max: 16,
            private_targets: false,
        }
    }
}
