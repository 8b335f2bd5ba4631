//! Live figures of a room, as the API shows them.

use serde::{Deserialize, Serialize};
use str0m::crypto::dtls::SrtpProfile;

use super::ids::{Identity, NodeId, RoomName};
use super::mix::Figures;
use super::protocol::{RoomState, Source};

/// A room in a listing.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct RoomSummary {
    #[serde(flatten)]
    pub state: RoomState,
    pub participants: u32,
    pub publishers: u32,
    pub viewers: u32,
}

/// Live figures of one room, as `GET /v1/rooms/{room}/stats` shows them.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct RoomStats {
    pub room: RoomName,
    /// The room's home.
    pub shard: u8,
    pub participants: Vec<ParticipantStats>,
    /// While the room is mixed for somebody.
    pub mixer: Option<MixerStats>,
}

/// A room's mixer.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct MixerStats {
    /// GStreamer's elements that encode VP8, H.264 and Opus: `vah264enc` and the like are hardware.
    pub encoders: Vec<String>,
    /// Of the last second.
    #[serde(flatten)]
    pub figures: Figures,
}

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ParticipantStats {
    pub identity: Identity,
    /// `member`, `publisher` or `viewer`.
    pub role: &'static str,
    pub connected: bool,
    #[serde(flatten)]
    pub connection: ConnectionStats,
    pub sends: Vec<EncodingStats>,
}

/// How a participant's connection fares, by the node that serves it. Of one who is connected at another node
/// than the room's all is empty where that node has not said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ConnectionStats {
    /// The node that serves it, where that is not the room's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The shard of the node that serves it.
    pub shard: u8,
    /// `udp` or `tcp`; absent until ICE has a pair.
    pub transport: Option<String>,
    /// The SRTP profile that protects its media, as RFC 5764 names it; absent before DTLS is done.
    pub srtp_profile: Option<String>,
    /// Round-trip time by RTCP, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Send-side estimate towards this participant, bits per second.
    pub estimate_bps: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Share of our packets that it reported lost, 0–1.
    pub egress_loss: Option<f32>,
    pub gets: Vec<SlotReport>,
}

/// As the registry of RFC 5764 calls it.
pub fn srtp_profile_name(profile: SrtpProfile) -> &'static str {
    match profile {
        SrtpProfile::AES128_CM_SHA1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
        SrtpProfile::AEAD_AES_128_GCM => "SRTP_AEAD_AES_128_GCM",
        SrtpProfile::AEAD_AES_256_GCM => "SRTP_AEAD_AES_256_GCM",
        _ => "unknown",
    }
}

/// One encoding that a participant sends.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct EncodingStats {
    pub source: Source,
    pub codec: Option<String>,
    pub rid: Option<String>,
    pub height: Option<u32>,
    pub bitrate_bps: u64,
    pub packets: u64,
    /// Subscribers that take this encoding now.
    pub subscribers: u32,
}

/// What one slot of a participant gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SlotReport {
    pub mid: String,
    pub participant: Option<Identity>,
    pub source: Option<Source>,
    pub layer: Option<String>,
    pub bitrate_bps: u64,
    pub packets: u64,
}
