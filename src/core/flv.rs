//! Writes what an encoder sends by RTMP as a file of its kind: FLV (Adobe's FLV 10.1, annex E), whose tags
//! are RTMP's messages.

/// What a tag holds: its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    Sound = 8,
    Picture = 9,
}

/// A tag says its size in three bytes.
pub const TAG_BYTES_MAX: usize = 0xff_ffff;
const HEAD_BYTES: usize = 11;

/// The file's beginning, of one that may have both sound and picture.
pub const HEADER: [u8; 13] = [b'F', b'L', b'V', 1, 0b101, 0, 0, 0, 9, 0, 0, 0, 0];

/// Writes a tag of this time in milliseconds into `out`, in place of what it held. False for one that is too
/// large.
pub fn write_tag(tag: Tag, at_ms: u32, data: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    if data.len() > TAG_BYTES_MAX {
        return false;
    }
    let [_, size @ ..] = (data.len() as u32).to_be_bytes();
    // The time's highest byte comes after the others.
    let [highest, time @ ..] = at_ms.to_be_bytes();
    out.push(tag as u8);
    out.extend(size);
    out.extend(time);
    out.extend([highest, 0, 0, 0]);
    out.extend(data);
    out.extend(((HEAD_BYTES + data.len()) as u32).to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_its_kind_size_and_time_twice_over() {
        let mut out = vec![7];
        assert!(write_tag(Tag::Picture, 0x0a0b_0c0d, &[1, 2, 3], &mut out));
        let expected = [9, 0, 0, 3, 0x0b, 0x0c, 0x0d, 0x0a, 0, 0, 0, 1, 2, 3, 0, 0, 0, 14];
        assert_eq!(out, expected);
        assert!(!write_tag(Tag::Sound, 0, &vec![0; TAG_BYTES_MAX + 1], &mut out));
    }
}
