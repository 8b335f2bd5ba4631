//! The configuration of what comes into rooms beside people: files that are played, streams by RTMP.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// Files of a room that its owner has played in it. What can be is passed on as it is; all else is coded
/// anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Play {
    pub enabled: bool,
    /// At a time, in one room and on the node.
    pub players_per_room_max: u32,
    pub players_max: u32,
    /// Of a picture that is coded anew, also of one that comes by RTMP: lines, bits per second at that
    /// height, pictures a second.
    pub height_max: u32,
    pub bitrate_bps: u64,
    pub frames_per_second_max: u32,
    /// Cores that one player may run on.
    pub cores_max: u32,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            enabled: true,
            players_per_room_max: 2,
            players_max: 8,
            height_max: 720,
            bitrate_bps: 1_800_000,
            frames_per_second_max: 30,
            cores_max: 2,
        }
    }
}

/// RTMP from encoders that have no WHIP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rtmp {
    pub enabled: bool,
    /// Addresses to listen on. RTMP is not encrypted, and neither is the token in it.
    pub listen: Vec<IpAddr>,
    pub port: u16,
    /// Streams that are taken at a time.
    pub streams_max: u32,
}

impl Default for Rtmp {
    fn default() -> Self {
        Self { enabled: false, listen: vec![Ipv4Addr::UNSPECIFIED.into()], port: 1_935, streams_max: 16 }
    }
}

impl Play {
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        if !(90..=2_160).contains(&self.height_max) || !self.height_max.is_multiple_of(2) {
            wrong.push("`play.height_max`: accepted is 90 to 2160, an even number".into());
        }
        if !(100_000..=20_000_000).contains(&self.bitrate_bps) {
            wrong.push("`play.bitrate_bps`: accepted is 100000 to 20000000".into());
        }
        if !(1..=60).contains(&self.frames_per_second_max) {
            wrong.push("`play.frames_per_second_max`: accepted is 1 to 60".into());
        }
        if self.cores_max == 0 {
            wrong.push("`play.cores_max`: accepted is 1 or more".into());
        }
    }
}

impl Rtmp {
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        if self.enabled && self.port == 0 {
            wrong.push("`rtmp.port`: accepted is 1 to 65535; encoders expect 1935".into());
        }
        if self.enabled && self.listen.is_empty() {
            wrong.push("`rtmp.listen`: at least one address is needed, such as `0.0.0.0`".into());
        }
    }
}
