//! H.264 payloads, RFC 6184 packetisation mode 0 and 1: single NAL units, STAP-A and FU-A.

use super::bits::Bits;
use super::{FrameInfo, Resolution};

const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SEQUENCE_PARAMETER_SET: u8 = 7;
const ACCESS_UNIT_DELIMITER: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// NAL units looked at in one STAP-A. More than an encoder ever aggregates.
const AGGREGATED_MAX: usize = 32;

pub(super) fn inspect(payload: &[u8]) -> FrameInfo {
    let mut frame = FrameInfo::OPAQUE;
    let Some((&header, rest)) = payload.split_first() else {
        return FrameInfo::UNUSABLE;
    };
    match header & 0x1f {
        STAP_A => {
            let mut units = rest;
            for _ in 0..AGGREGATED_MAX {
                let Some((size, after)) = units.split_first_chunk::<2>() else { break };
                let size = usize::from(u16::from_be_bytes(*size));
                let Some((unit, after)) = after.split_at_checked(size) else { break };
                note_unit(&mut frame, unit);
                units = after;
            }
        }
        FU_A => {
            let Some((&fragment, data)) = rest.split_first() else {
                return FrameInfo::UNUSABLE;
            };
            // S: only the first fragment says what the NAL unit begins.
            if fragment & 0x80 != 0 {
                note(&mut frame, fragment & 0x1f, data);
            }
        }
        _ => note_unit(&mut frame, payload),
    }
    frame
}

fn note_unit(frame: &mut FrameInfo, unit: &[u8]) {
    if let Some((&header, data)) = unit.split_first() {
        note(frame, header & 0x1f, data);
    }
}

fn note(frame: &mut FrameInfo, unit_type: u8, data: &[u8]) {
    match unit_type {
        // first_mb_in_slice is an Exp-Golomb number: 0 is a single set bit.
        SLICE => frame.start_of_frame |= data.first().is_some_and(|byte| byte & 0x80 != 0),
        IDR_SLICE => {
            let first = data.first().is_some_and(|byte| byte & 0x80 != 0);
            frame.start_of_frame |= first;
            frame.keyframe |= first;
        }
        SEQUENCE_PARAMETER_SET => {
            frame.start_of_frame = true;
            frame.keyframe = true;
            if let Some(size) = size_of_sequence(data) {
                frame.resolutions = FrameInfo::single_size(Some(size));
            }
        }
        ACCESS_UNIT_DELIMITER => frame.start_of_frame = true,
        _ => {}
    }
}

/// Longest piece of a sequence parameter set that is read: past the size, only usability information follows.
const SEQUENCE_BYTES_MAX: usize = 128;

/// Width and height out of a sequence parameter set without its NAL header (H.264 section 7.3.2.1.1).
fn size_of_sequence(data: &[u8]) -> Option<Resolution> {
    let mut plain = [0_u8; SEQUENCE_BYTES_MAX];
    let length = unescape(data, &mut plain);
    let mut bits = Bits::new(plain.get(..length)?);
    let profile = bits.number(8)?;
    bits.skip(16)?;
    bits.exp_golomb()?;
    let mut chroma_format = 1;
    let mut separate_planes = false;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma_format = bits.exp_golomb()?;
        if chroma_format == 3 {
            separate_planes = bits.flag()?;
        }
        bits.exp_golomb()?;
        bits.exp_golomb()?;
        bits.skip(1)?;
        if bits.flag()? {
            // Scaling lists: senders of real-time video use the flat ones.
            return None;
        }
    }
    bits.exp_golomb()?;
    skip_picture_order(&mut bits)?;
    bits.exp_golomb()?;
    bits.skip(1)?;
    let width_blocks = u64::from(bits.exp_golomb()?) + 1;
    let height_units = u64::from(bits.exp_golomb()?) + 1;
    let frames_only = bits.flag()?;
    if !frames_only {
        bits.skip(1)?;
    }
    bits.skip(1)?;
    let mut crop = [0_u64; 4];
    if bits.flag()? {
        for edge in &mut crop {
            *edge = u64::from(bits.exp_golomb()?);
        }
    }
    let fields = if frames_only { 1 } else { 2 };
    let (unit_x, unit_y) = match chroma_format {
        1 if !separate_planes => (2, 2 * fields),
        2 => (2, fields),
        _ => (1, fields),
    };
    let width = (width_blocks * 16).checked_sub((crop[0] + crop[1]) * unit_x)?;
    let height = (height_units * 16 * fields).checked_sub((crop[2] + crop[3]) * unit_y)?;
    Some(Resolution { width: u16::try_from(width).ok()?, height: u16::try_from(height).ok()? })
}

fn skip_picture_order(bits: &mut Bits<'_>) -> Option<()> {
    match bits.exp_golomb()? {
        0 => bits.exp_golomb().map(drop),
        1 => {
            bits.skip(1)?;
            bits.exp_golomb()?;
            bits.exp_golomb()?;
            let cycle = bits.exp_golomb()?;
            if cycle > 255 {
                return None;
            }
            for _ in 0..cycle {
                bits.exp_golomb()?;
            }
            Some(())
        }
        _ => Some(()),
    }
}

/// Takes the emulation prevention bytes out (H.264 section 7.4.1); gives the length.
fn unescape(data: &[u8], plain: &mut [u8; SEQUENCE_BYTES_MAX]) -> usize {
    let mut zeros = 0;
    let mut length = 0;
    for &byte in data {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        let Some(place) = plain.get_mut(length) else { break };
        *place = byte;
        length += 1;
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    length
}
