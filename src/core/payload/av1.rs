//! AV1 payloads: the aggregation header and the sequence header (AV1 RTP specification, section 4.4).
//!
//! Layers and references come from the dependency descriptor, see [`super::dependency`].

use super::bits::Bits;
use super::{FrameInfo, Resolution};

const SEQUENCE_HEADER: u8 = 1;

pub(super) fn inspect(payload: &[u8]) -> FrameInfo {
    let Some((&aggregation, elements)) = payload.split_first() else {
        return FrameInfo::UNUSABLE;
    };
    // Z: continues a fragment. N: first packet of a coded video sequence.
    let continues = aggregation & 0x80 != 0;
    let keyframe = aggregation & 0x08 != 0 && !continues;
    let size = keyframe.then(|| first_element(aggregation, elements).and_then(size_of_sequence)).flatten();
    FrameInfo {
        keyframe,
        start_of_frame: !continues,
        resolutions: FrameInfo::single_size(size),
        ..FrameInfo::OPAQUE
    }
}

/// The first OBU element. Only a lone element (W = 1) comes without its length.
fn first_element(aggregation: u8, elements: &[u8]) -> Option<&[u8]> {
    if aggregation >> 4 & 0x03 == 1 {
        return Some(elements);
    }
    let (length, after) = leb128(elements)?;
    after.get(..usize::try_from(length).ok()?)
}

fn leb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(8) {
        value |= u64::from(byte & 0x7f) << (index * 7);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

/// Largest frame size of a sequence header OBU (AV1 section 5.5).
fn size_of_sequence(unit: &[u8]) -> Option<Resolution> {
    let (&header, mut body) = unit.split_first()?;
    if header >> 3 & 0x0f != SEQUENCE_HEADER {
        return None;
    }
    if header & 0x04 != 0 {
        body = body.get(1..)?;
    }
    if header & 0x02 != 0 {
        body = leb128(body)?.1;
    }
    let mut bits = Bits::new(body);
    bits.skip(4)?;
    let reduced = bits.flag()?;
    if reduced {
        bits.skip(5)?;
    } else {
        skip_operating_points(&mut bits)?;
    }
    let (width_bits, height_bits) = (bits.number(4)? + 1, bits.number(4)? + 1);
    let (width, height) = (bits.number(width_bits)? + 1, bits.number(height_bits)? + 1);
    Some(Resolution { width: u16::try_from(width).ok()?, height: u16::try_from(height).ok()? })
}

fn skip_operating_points(bits: &mut Bits<'_>) -> Option<()> {
    let mut decoder_model = None;
    if bits.flag()? {
        bits.skip(64)?;
        if bits.flag()? {
            bits.exp_golomb()?;
        }
        if bits.flag()? {
            decoder_model = Some(bits.number(5)? + 1);
            bits.skip(32 + 5 + 5)?;
        }
    }
    let display_delay = bits.flag()?;
    let points = bits.number(5)? + 1;
    for _ in 0..points {
        bits.skip(12)?;
        if bits.number(5)? > 7 {
            bits.skip(1)?;
        }
        if let Some(delay_bits) = decoder_model
            && bits.flag()?
        {
            bits.skip(2 * delay_bits as usize + 1)?;
        }
        if display_delay && bits.flag()? {
            bits.skip(4)?;
        }
    }
    Some(())
}
