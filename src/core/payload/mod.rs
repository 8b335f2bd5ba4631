//! Reads RTP payload descriptors, so that a packet is forwarded knowing what it is without being decoded.
//!
//! Everything in here is a total function over bytes from the network: it never panics, and allocates only
//! for the description of a scalable stream's structure, which comes with a key frame. Audio is opaque.

pub mod av1;
mod bits;
pub mod dependency;
pub mod h264;
mod patch;
pub mod vp8;
pub mod vp9;

use serde::{Deserialize, Serialize};

pub use dependency::{DependencyDescriptor, DependencyReader, DescriptorBytes};
pub use patch::{Overwrite, PayloadPatch};

/// What a payload holds. Audio passes through opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    Opus,
    /// Redundant audio, RFC 2198.
    Red,
    Vp8,
    Vp9,
    H264,
    Av1,
}

impl Codec {
    pub const fn is_video(self) -> bool {
        !matches!(self, Self::Opus | Self::Red)
    }

    /// RTP timestamp ticks a second.
    pub const fn clock_rate(self) -> u32 {
        if self.is_video() { VIDEO_CLOCK_RATE } else { AUDIO_CLOCK_RATE }
    }

    /// The lower-case name used in the control protocol and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Red => "red",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::H264 => "h264",
            Self::Av1 => "av1",
        }
    }
}

/// Every video payload format forwarded here has a 90 kHz clock.
pub const VIDEO_CLOCK_RATE: u32 = 90_000;
/// Opus has a 48 kHz clock whatever it carries (RFC 7587 section 4.1).
pub const AUDIO_CLOCK_RATE: u32 = 48_000;
/// Spatial layers whose size is kept. A stream may have more; those have no known size.
pub const SPATIAL_LAYERS_MAX: usize = 4;

/// A picture's size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolution {
    pub width: u16,
    pub height: u16,
}

/// What one packet says about the frame it carries a piece of.
#[derive(Debug, Clone, Copy)]
pub struct FrameInfo {
    /// False for a packet that carries nothing to decode: padding only, or a descriptor that breaks its RFC.
    /// Such a packet is not forwarded and leaves no gap.
    pub usable: bool,
    /// A decoder that has nothing can begin at this packet. Always false for audio, where it can anywhere.
    pub keyframe: bool,
    /// First packet of a frame (of a layer's frame where layers are coded apart). For H.264 a guess: the
    /// first packet of an access unit cannot be told from one that follows its parameter sets.
    pub start_of_frame: bool,
    /// Last packet of a frame, where the descriptor says so (VP9, dependency descriptor).
    pub end_of_frame: bool,
    pub spatial: Option<u8>,
    pub temporal: Option<u8>,
    /// Sizes by spatial layer, lowest first, in packets that tell (key frames, mostly).
    pub resolutions: [Option<Resolution>; SPATIAL_LAYERS_MAX],
    pub descriptor: Descriptor,
}

/// The payload descriptor where there is one that is rewritten while forwarding.
#[derive(Debug, Clone, Copy)]
pub enum Descriptor {
    None,
    Vp8(vp8::Descriptor),
    Vp9(vp9::Descriptor),
}

impl FrameInfo {
    const OPAQUE: Self = Self {
        usable: true,
        keyframe: false,
        start_of_frame: false,
        end_of_frame: false,
        spatial: None,
        temporal: None,
        resolutions: [None; SPATIAL_LAYERS_MAX],
        descriptor: Descriptor::None,
    };

    const UNUSABLE: Self = Self { usable: false, ..Self::OPAQUE };

    /// The largest size that the packet tells of.
    pub fn resolution(&self) -> Option<Resolution> {
        self.resolutions.iter().rev().find_map(|size| *size)
    }

    fn single_size(size: Option<Resolution>) -> [Option<Resolution>; SPATIAL_LAYERS_MAX] {
        let mut sizes = [None; SPATIAL_LAYERS_MAX];
        sizes[0] = size;
        sizes
    }
}

/// Reads what `payload` says of itself. `dd` is the packet's dependency descriptor, read by the
/// [`DependencyReader`] of its stream; any codec may carry one.
#[inline]
pub fn inspect(codec: Codec, payload: &[u8], dd: Option<&DependencyDescriptor>) -> FrameInfo {
    if payload.is_empty() {
        return FrameInfo::UNUSABLE;
    }
    let mut frame = match codec {
        Codec::Opus | Codec::Red => return FrameInfo::OPAQUE,
        Codec::Vp8 => vp8::inspect(payload),
        Codec::Vp9 => vp9::inspect(payload),
        Codec::H264 => h264::inspect(payload),
        Codec::Av1 => av1::inspect(payload),
    };
    if let Some(dd) = dd {
        dd.describe(&mut frame);
    }
    // A descriptor may promise a key frame that the payload beside it does not hold.
    frame.keyframe &= frame.usable;
    frame
}

#[cfg(test)]
mod tests;
