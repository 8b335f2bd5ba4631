//! Cuts encoded frames into RTP payloads: VP8 as RFC 7741 has it, H.264 as RFC 6184 in mode 1.

use super::payload::Codec;

/// Of one payload. With RTP's header, 15 CSRCs, extensions and SRTP's tag it stays below the 1,200 bytes that
/// WebRTC's paths are taken to carry.
pub const PAYLOAD_BYTES_MAX: usize = 1_100;

/// Required byte, extension byte, picture id of 15 bits.
const VP8_DESCRIPTOR_BYTES: usize = 4;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const ACCESS_UNIT_DELIMITER: u8 = 9;
const SEQUENCE_PARAMETER_SET: u8 = 7;
const PICTURE_PARAMETER_SET: u8 = 8;

/// The payloads of one frame, in order; the last ends it. Empty for a codec that the mixer does not encode.
pub fn packetize(codec: Codec, frame: &[u8], picture_id: u16) -> Vec<Vec<u8>> {
    match codec {
        Codec::Vp8 => vp8(frame, picture_id),
        Codec::H264 => h264(frame),
        _ => Vec::new(),
    }
}

/// RFC 7741 section 4.2: X, then S on the first; I, then a picture id with M.
fn vp8(frame: &[u8], picture_id: u16) -> Vec<Vec<u8>> {
    let [high, low] = picture_id.to_be_bytes();
    let pieces = even_pieces(frame, PAYLOAD_BYTES_MAX - VP8_DESCRIPTOR_BYTES);
    let packets = pieces.enumerate().map(|(index, piece)| {
        let start = if index == 0 { 0x10 } else { 0 };
        let mut payload = Vec::with_capacity(VP8_DESCRIPTOR_BYTES + piece.len());
        payload.extend([0x80 | start, 0x80, 0x80 | high, low]);
        payload.extend(piece);
        payload
    });
    packets.collect()
}

/// Pieces of nearly one size, so that none is a packet for a few bytes.
fn even_pieces(bytes: &[u8], bytes_max: usize) -> impl Iterator<Item = &[u8]> {
    let count = bytes.len().div_ceil(bytes_max).max(1);
    bytes.chunks(bytes.len().div_ceil(count).max(1))
}

fn h264(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut parameters = Vec::new();
    for unit in units(frame) {
        match unit[0] & 0x1f {
            ACCESS_UNIT_DELIMITER => {}
            SEQUENCE_PARAMETER_SET | PICTURE_PARAMETER_SET => parameters.push(unit),
            _ => {
                write_parameters(&mut parameters, &mut packets);
                write_unit(unit, &mut packets);
            }
        }
    }
    write_parameters(&mut parameters, &mut packets);
    packets
}

/// The NAL units of a byte stream (H.264 annex B), none empty.
fn units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, code)| *code == [0, 0, 1]).map(|(at, _)| at).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([stream.len()]).collect();
    starts.into_iter().zip(ends).filter_map(|(start, end)| {
        let unit = &stream[start + 3..end];
        // No unit ends in a zero byte: those before the next start code belong to that.
        let length = unit.iter().rposition(|byte| *byte != 0)? + 1;
        Some(&unit[..length])
    })
}

/// Parameter sets go together where they fit (RFC 6184 section 5.7.1).
fn write_parameters(parameters: &mut Vec<&[u8]>, packets: &mut Vec<Vec<u8>>) {
    let bytes: usize = parameters.iter().map(|unit| unit.len() + 2).sum();
    if parameters.len() < 2 || bytes >= PAYLOAD_BYTES_MAX {
        parameters.drain(..).for_each(|unit| write_unit(unit, packets));
        return;
    }
    let importance = parameters.iter().map(|unit| unit[0] & 0x60).max().unwrap_or_default();
    let mut payload = vec![importance | STAP_A];
    for unit in parameters.drain(..) {
        payload.extend((unit.len() as u16).to_be_bytes());
        payload.extend(unit);
    }
    packets.push(payload);
}

/// A unit by itself, or in fragments (RFC 6184 section 5.8).
fn write_unit(unit: &[u8], packets: &mut Vec<Vec<u8>>) {
    let Some((&header, body)) = unit.split_first() else { return };
    if unit.len() <= PAYLOAD_BYTES_MAX {
        packets.push(unit.to_vec());
        return;
    }
    let pieces: Vec<&[u8]> = even_pieces(body, PAYLOAD_BYTES_MAX - 2).collect();
    let last = pieces.len() - 1;
    for (index, piece) in pieces.into_iter().enumerate() {
        let start = if index == 0 { 0x80 } else { 0 };
        let end = if index == last { 0x40 } else { 0 };
        let mut payload = vec![header & 0xe0 | FU_A, start | end | header & 0x1f];
        payload.extend(piece);
        packets.push(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::payload::{Descriptor, inspect};

    fn noise(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 7 % 251) as u8 | 1).collect()
    }

    #[test]
    fn vp8_frames_come_in_packets_that_put_together_are_the_frame() {
        // A key frame's first bytes: P = 0, start code, 640 by 360.
        let mut frame = vec![0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];
        frame.extend(noise(4_000));
        let packets = packetize(Codec::Vp8, &frame, 0x7f03);
        assert_eq!(packets.len(), 4);
        for (index, packet) in packets.iter().enumerate() {
            assert!(packet.len() <= PAYLOAD_BYTES_MAX);
            let info = inspect(Codec::Vp8, packet, None);
            assert!(info.usable);
            assert_eq!((info.start_of_frame, info.keyframe), (index == 0, index == 0));
            let Descriptor::Vp8(descriptor) = info.descriptor else { panic!("no descriptor") };
            assert_eq!((descriptor.picture_id(), descriptor.wide_picture_id), (Some(0x7f03), true));
        }
        let size = inspect(Codec::Vp8, &packets[0], None).resolution().unwrap();
        assert_eq!((size.width, size.height), (640, 360));
        let whole: Vec<u8> =
            packets.iter().flat_map(|packet| packet[VP8_DESCRIPTOR_BYTES..].to_vec()).collect();
        assert_eq!(whole, frame);
    }

    #[test]
    fn h264_units_go_together_singly_and_in_fragments() {
        let (sequence, parameters) = (vec![0x67, 0x42, 0xc0, 0x1f, 0x8c], vec![0x68, 0xce, 0x3c, 0x80]);
        let mut large = vec![0x65, 0x88];
        large.extend(noise(3_000));
        let small = vec![0x06, 0x05, 0x01];
        let mut stream = vec![0, 0, 0, 1, 0x09, 0xf0];
        for unit in [&sequence, &parameters, &small, &large] {
            stream.extend([0, 0, 0, 1]);
            stream.extend(unit);
        }
        let packets = packetize(Codec::H264, &stream, 0);
        assert_eq!(packets.len(), 1 + 1 + 3);
        assert_eq!(packets[0][0], 0x60 | STAP_A);
        let info = inspect(Codec::H264, &packets[0], None);
        assert!(info.keyframe && info.start_of_frame);
        assert_eq!(packets[0].len(), 1 + 2 + sequence.len() + 2 + parameters.len());
        assert_eq!(packets[1], small);
        assert!(inspect(Codec::H264, &packets[2], None).keyframe);
        assert_eq!(packets[2][1] & 0xc0, 0x80);
        assert_eq!(packets[3][1] & 0xc0, 0);
        assert_eq!(packets[4][1] & 0xc0, 0x40);
        let whole: Vec<u8> = packets[2..].iter().flat_map(|packet| packet[2..].to_vec()).collect();
        assert_eq!(whole, large[1..]);
        assert!(packets.iter().all(|packet| packet.len() <= PAYLOAD_BYTES_MAX));
    }

    #[test]
    fn what_is_no_stream_gives_no_packets() {
        assert!(packetize(Codec::H264, b"no start code", 0).is_empty());
        assert!(packetize(Codec::H264, &[0, 0, 1, 0, 0, 1, 0, 0, 0, 1], 0).is_empty());
        assert!(packetize(Codec::Opus, b"sound", 0).is_empty());
    }
}
