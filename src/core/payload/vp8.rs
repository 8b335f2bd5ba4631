//! VP8 payloads, RFC 7741: what a packet is, and which picture it belongs to.

use str0m::rtp::Vp8Descriptor;

use super::{FrameInfo, Overwrite, Resolution};

/// Where the picture id begins, if there is one: after the required byte and the one of extensions.
const PICTURE_ID_OFFSET: u8 = 2;

/// The payload descriptor of one packet.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    fields: Vp8Descriptor,
    /// True for 15-bit picture ids, false for 7-bit ones (RFC 7741 section 4.2, M).
    pub wide_picture_id: bool,
    tl0_offset: u8,
    /// Temporal layer; 0 where none is said.
    pub temporal: u8,
    /// Y: this frame uses only the base temporal layer, so a receiver can begin with its layer here.
    pub layer_sync: bool,
}

impl Descriptor {
    pub fn picture_id(&self) -> Option<u16> {
        self.fields.picture_id()
    }

    pub fn tl0_picture_index(&self) -> Option<u8> {
        self.fields.tl0_pic_idx()
    }

    /// The bytes to change so that the packet carries these numbers. Fields it does not have are left out,
    /// and a picture id is cut to the width it has.
    pub fn patch(&self, picture_id: Option<u16>, tl0_picture_index: Option<u8>) -> Overwrite {
        let mut overwrite = Overwrite::default();
        if let Some(id) = picture_id.filter(|_| self.picture_id().is_some()) {
            overwrite.set_picture_id(PICTURE_ID_OFFSET, id, self.wide_picture_id);
        }
        if let Some(index) = tl0_picture_index.filter(|_| self.tl0_picture_index().is_some()) {
            overwrite.set(self.tl0_offset, index);
        }
        overwrite
    }
}

pub(super) fn inspect(payload: &[u8]) -> FrameInfo {
    let Ok(fields) = Vp8Descriptor::parse(payload) else {
        return FrameInfo::UNUSABLE;
    };
    let Some((extra, header)) = read_rest(payload) else {
        return FrameInfo::UNUSABLE;
    };
    // S set and PID 0: the first packet of the first partition.
    let start_of_frame = payload[0] & 0x10 != 0 && payload[0] & 0x07 == 0;
    let keyframe = fields.starts_keyframe(payload);
    FrameInfo {
        keyframe,
        start_of_frame,
        temporal: extra.temporal,
        resolutions: FrameInfo::single_size(keyframe.then(|| size_of_key_frame(header)).flatten()),
        descriptor: super::Descriptor::Vp8(Descriptor {
            fields,
            wide_picture_id: extra.wide_picture_id,
            tl0_offset: extra.tl0_offset,
            temporal: extra.temporal.unwrap_or(0),
            layer_sync: extra.layer_sync,
        }),
        ..FrameInfo::OPAQUE
    }
}

/// What follows the payload descriptor, and whether it is the beginning of a picture.
pub fn body(payload: &[u8]) -> Option<(&[u8], bool)> {
    let (_, body) = read_rest(payload)?;
    Some((body, payload.first()? & 0x17 == 0x10))
}

struct Extra {
    wide_picture_id: bool,
    tl0_offset: u8,
    temporal: Option<u8>,
    layer_sync: bool,
}

/// The fields that the engine's parser keeps to itself, and the VP8 payload that follows the descriptor.
fn read_rest(payload: &[u8]) -> Option<(Extra, &[u8])> {
    let mut extra =
        Extra { wide_picture_id: false, tl0_offset: PICTURE_ID_OFFSET, temporal: None, layer_sync: false };
    let (required, mut rest) = payload.split_first()?;
    if required & 0x80 == 0 {
        return Some((extra, rest));
    }
    let (extension, after) = rest.split_first()?;
    rest = after;
    if extension & 0x80 != 0 {
        extra.wide_picture_id = rest.first()? & 0x80 != 0;
        rest = rest.get(1 + usize::from(extra.wide_picture_id)..)?;
        extra.tl0_offset += 1 + u8::from(extra.wide_picture_id);
    }
    if extension & 0x40 != 0 {
        rest = rest.get(1..)?;
    }
    if extension & 0x30 != 0 {
        let (layer, after) = rest.split_first()?;
        rest = after;
        if extension & 0x20 != 0 {
            extra.temporal = Some(layer >> 6);
            extra.layer_sync = layer & 0x20 != 0;
        }
    }
    Some((extra, rest))
}

/// RFC 6386 section 9.1: frame tag, start code, then 14 bits each of width and height.
fn size_of_key_frame(header: &[u8]) -> Option<Resolution> {
    match header.get(3..10)? {
        &[0x9d, 0x01, 0x2a, w0, w1, h0, h1] => Some(Resolution {
            width: u16::from_le_bytes([w0, w1]) & 0x3fff,
            height: u16::from_le_bytes([h0, h1]) & 0x3fff,
        }),
        _ => None,
    }
}
