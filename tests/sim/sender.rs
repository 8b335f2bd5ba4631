//! What a simulated publisher's encoder makes.

use str0m::media::Rid;

/// A line that somebody sends on, as the client's encoder stands.
pub struct Sender {
    pub rids: Vec<Option<Rid>>,
    pub video: bool,
    pub seq_no: Vec<u64>,
    pub picture_id: u16,
    pub keyframe_due: Vec<bool>,
}

/// A VP8 payload of one packet: a descriptor with a 15-bit picture id (RFC 7741 §4.2), then the frame.
pub fn vp8(picture_id: u16, keyframe: bool) -> Vec<u8> {
    let mut payload = vec![0x90, 0x80, 0x80 | (picture_id >> 8) as u8, picture_id as u8];
    if keyframe {
        // Frame tag of a key frame, start code, 640 × 360 (RFC 6386 §9.1).
        payload.extend([0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
    } else {
        payload.extend([0x11, 0, 0]);
    }
    payload.extend([0; 40]);
    payload
}
