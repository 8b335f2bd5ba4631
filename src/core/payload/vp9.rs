//! VP9 payloads, RFC 9628, in flexible and in non-flexible mode: layers, references, sizes, picture ids.

use super::bits::Bits;
use super::{FrameInfo, Overwrite, Resolution, SPATIAL_LAYERS_MAX};

/// RFC 9628 section 4.2: a picture has at most three P_DIFF.
const REFERENCES_MAX: usize = 3;
/// Where the picture id begins, if there is one: after the required byte.
const PICTURE_ID_OFFSET: u8 = 1;

/// The payload descriptor of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    picture_id: Option<u16>,
    /// True for 15-bit picture ids, false for 7-bit ones (M).
    pub wide_picture_id: bool,
    tl0_picture_index: Option<u8>,
    tl0_offset: u8,
    /// P: the layer's frame uses earlier pictures.
    pub inter_picture: bool,
    /// B and E: first and last packet of this layer's frame.
    pub begins: bool,
    pub ends: bool,
    /// Z: no higher spatial layer uses this frame.
    pub unused_above: bool,
    /// L: the layer fields below were there. Without it the stream has one layer.
    pub layered: bool,
    pub temporal: u8,
    pub spatial: u8,
    /// U: later pictures of higher temporal layers use nothing of them from before this picture.
    pub switching_up: bool,
    /// D: uses the spatial layer below in the same picture.
    pub inter_layer: bool,
}

impl Descriptor {
    pub fn picture_id(&self) -> Option<u16> {
        self.picture_id
    }

    pub fn tl0_picture_index(&self) -> Option<u8> {
        self.tl0_picture_index
    }

    /// The bytes to change so that the packet carries these numbers; those it has no field for are left out.
    pub fn patch(&self, picture_id: Option<u16>, tl0_picture_index: Option<u8>) -> Overwrite {
        let mut overwrite = Overwrite::default();
        if let Some(id) = picture_id.filter(|_| self.picture_id.is_some()) {
            overwrite.set_picture_id(PICTURE_ID_OFFSET, id, self.wide_picture_id);
        }
        if let Some(index) = tl0_picture_index.filter(|_| self.tl0_picture_index.is_some()) {
            overwrite.set(self.tl0_offset, index);
        }
        overwrite
    }
}

pub(super) fn inspect(payload: &[u8]) -> FrameInfo {
    let mut sizes = [None; SPATIAL_LAYERS_MAX];
    let Some((descriptor, header)) = parse(payload, &mut sizes) else {
        return FrameInfo::UNUSABLE;
    };
    let keyframe = !descriptor.inter_picture && descriptor.begins && descriptor.spatial == 0;
    if keyframe && sizes[0].is_none() {
        sizes[0] = size_of_key_frame(header);
    }
    FrameInfo {
        keyframe,
        start_of_frame: descriptor.begins,
        end_of_frame: descriptor.ends,
        spatial: descriptor.layered.then_some(descriptor.spatial),
        temporal: descriptor.layered.then_some(descriptor.temporal),
        resolutions: sizes,
        descriptor: super::Descriptor::Vp9(descriptor),
        ..FrameInfo::OPAQUE
    }
}

/// The payload descriptor, and the layer frame's bytes after it.
pub fn body(payload: &[u8]) -> Option<(Descriptor, &[u8])> {
    parse(payload, &mut [None; SPATIAL_LAYERS_MAX])
}

/// The descriptor, and the VP9 frame's bytes after it. `None` where it is cut short or breaks a rule.
fn parse<'a>(
    payload: &'a [u8],
    sizes: &mut [Option<Resolution>; SPATIAL_LAYERS_MAX],
) -> Option<(Descriptor, &'a [u8])> {
    let flags = *payload.first()?;
    let flag = |bit: u8| flags & bit != 0;
    let (has_id, has_layers, flexible, has_structure) = (flag(0x80), flag(0x20), flag(0x10), flag(0x02));
    let mut descriptor = Descriptor {
        inter_picture: flag(0x40),
        begins: flag(0x08),
        ends: flag(0x04),
        unused_above: flag(0x01),
        layered: has_layers,
        ..Descriptor::default()
    };
    let mut at = 1;
    let mut next = || {
        let byte = payload.get(at).copied();
        at += 1;
        byte
    };
    if has_id {
        let first = next()?;
        descriptor.wide_picture_id = first & 0x80 != 0;
        let high = u16::from(first & 0x7f);
        let id = if descriptor.wide_picture_id { high << 8 | u16::from(next()?) } else { high };
        descriptor.picture_id = Some(id);
    }
    if has_layers {
        let layer = next()?;
        descriptor.temporal = layer >> 5;
        descriptor.switching_up = layer & 0x10 != 0;
        descriptor.spatial = layer >> 1 & 0x07;
        descriptor.inter_layer = layer & 0x01 != 0;
        if !flexible {
            descriptor.tl0_picture_index = Some(next()?);
            // After the flags, the picture id and the layer byte.
            descriptor.tl0_offset = 2 + u8::from(has_id) * (1 + u8::from(descriptor.wide_picture_id));
        }
    }
    if flexible && descriptor.inter_picture {
        let mut references = 0;
        while next()? & 0x01 != 0 {
            references += 1;
            if references == REFERENCES_MAX {
                return None;
            }
        }
    }
    if has_structure {
        at += read_structure(payload.get(at..)?, sizes)?;
    }
    let frame = payload.get(at..)?;
    (!frame.is_empty()).then_some((descriptor, frame))
}

/// The scalability structure, RFC 9628 section 4.2.1; gives its length in bytes.
fn read_structure(bytes: &[u8], sizes: &mut [Option<Resolution>; SPATIAL_LAYERS_MAX]) -> Option<usize> {
    let head = *bytes.first()?;
    let mut at = 1;
    if head & 0x10 != 0 {
        for layer in 0..=usize::from(head >> 5) {
            let &[w0, w1, h0, h1] = bytes.get(at..)?.first_chunk()?;
            at += 4;
            if let Some(size) = sizes.get_mut(layer) {
                *size = Some(Resolution {
                    width: u16::from_be_bytes([w0, w1]),
                    height: u16::from_be_bytes([h0, h1]),
                });
            }
        }
    }
    if head & 0x08 != 0 {
        let pictures = *bytes.get(at)?;
        at += 1;
        for _ in 0..pictures {
            let picture = *bytes.get(at)?;
            at += 1 + usize::from(picture >> 2 & 0x03);
        }
    }
    (at <= bytes.len()).then_some(at)
}

/// Out of the uncompressed header (VP9 bitstream specification 6.2), for senders that tell no structure.
fn size_of_key_frame(header: &[u8]) -> Option<Resolution> {
    const SYNC_CODE: u32 = 0x49_83_42;
    const COLOR_SPACE_RGB: u32 = 7;
    let mut bits = Bits::new(header);
    if bits.number(2)? != 2 {
        return None;
    }
    let (low, high) = (bits.number(1)?, bits.number(1)?);
    // Profiles 1 and 3 (other chroma sampling) are not sent by any real-time encoder.
    if low == 1 {
        return None;
    }
    let (show_existing, not_key) = (bits.flag()?, bits.flag()?);
    bits.skip(2)?;
    if show_existing || not_key || bits.number(24)? != SYNC_CODE {
        return None;
    }
    bits.skip(high as usize)?;
    if bits.number(3)? == COLOR_SPACE_RGB {
        return None;
    }
    bits.skip(1)?;
    let (width, height) = (bits.number(16)?, bits.number(16)?);
    Some(Resolution {
        width: u16::try_from(width + 1).unwrap_or(u16::MAX),
        height: u16::try_from(height + 1).unwrap_or(u16::MAX),
    })
}
