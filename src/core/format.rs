//! What an RTP payload is, apart from the number that one peer calls it by.
//!
//! Payload types differ from peer to peer; a [`Format`] is the same for all. Two formats are the same where a
//! decoder for one takes the other: codec and profile, and for H.264 the packetization mode (RFC 6184 §8.1).

use serde::{Deserialize, Serialize};
use str0m::format::PayloadParams;

use super::payload::Codec;

/// A codec with the parameters that a receiver must agree to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub codec: Codec,
    /// H.264: profile-idc, profile-iop and packetization mode; VP9 and AV1: the profile; else 0.
    pub profile: u32,
}

impl Format {
    pub const OPUS: Self = Self { codec: Codec::Opus, profile: 0 };
    pub const RED: Self = Self { codec: Codec::Red, profile: 0 };
    pub const VP8: Self = Self { codec: Codec::Vp8, profile: 0 };
    /// Constrained baseline, packetization mode 1.
    pub const H264_BASELINE: Self = Self { codec: Codec::H264, profile: 0x42_c0_01 };

    /// `None` for a codec that is not forwarded here.
    pub fn of(params: &PayloadParams) -> Option<Self> {
        use str0m::format::Codec as Negotiated;
        let spec = params.spec();
        let format = spec.format;
        let (codec, profile) = match spec.codec {
            Negotiated::Opus => (Codec::Opus, 0),
            Negotiated::Vp8 => (Codec::Vp8, 0),
            Negotiated::Vp9 => (Codec::Vp9, format.profile_id.unwrap_or(0)),
            Negotiated::Av1 => (Codec::Av1, format.profile.map_or(0, u32::from)),
            Negotiated::H264 => {
                // The level is negotiated apart, and constraint flags after the first two matter to no
                // decoder.
                let profile = (format.profile_level_id.unwrap_or(0x42_0010) >> 8) & 0xff_c0;
                (Codec::H264, profile << 8 | u32::from(format.packetization_mode.unwrap_or(0)))
            }
            _ => return None,
        };
        Some(Self { codec, profile })
    }
}
