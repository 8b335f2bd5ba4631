//! A picture behind the tiles of a mix, as its owner uploads it: checked here, decoded in the mixer's
//! process.

use std::sync::Arc;

use crate::core::refusal::{Code, Refusal};

/// No larger file is taken.
pub const BYTES_MAX: usize = 1 << 20;
/// Nor a picture with a longer side: small files may hold enormous ones.
const SIDE_MAX: u32 = 4_096;

const PNG_SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Start of image and the first byte of the next marker (ITU-T T.81 annex B).
const JPEG_SIGNATURE: [u8; 3] = [0xff, 0xd8, 0xff];

/// How a picture is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Png,
    Jpeg,
}

/// See the module. Cheap to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backdrop {
    pub format: Format,
    pub bytes: Arc<[u8]>,
}

impl Backdrop {
    /// Takes a file for what it begins with, whatever it is called.
    ///
    /// # Errors
    /// `too_large`; `unsupported_media_type` for what is neither PNG nor JPEG or has no size of use.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > BYTES_MAX {
            let words = format!("a background has at most {BYTES_MAX} bytes: make it smaller");
            return Err(Refusal::new(Code::TooLarge, words));
        }
        let size = if bytes.starts_with(&PNG_SIGNATURE) {
            png_size(bytes).map(|size| (Format::Png, size))
        } else if bytes.starts_with(&JPEG_SIGNATURE) {
            jpeg_size(bytes).map(|size| (Format::Jpeg, size))
        } else {
            None
        };
        let is_fit = |side: u32| (2..=SIDE_MAX).contains(&side);
        match size {
            Some((format, (width, height))) if is_fit(width) && is_fit(height) => {
                Ok(Self { format, bytes: Arc::from(bytes) })
            }
            _ => {
                let words =
                    format!("a background is a PNG or JPEG picture of 2 to {SIDE_MAX} pixels each way");
                Err(Refusal::new(Code::UnsupportedMediaType, words))
            }
        }
    }
}

/// Of the header that every PNG begins with (PNG specification, 11.2.1).
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.get(12..24)?;
    let [b'I', b'H', b'D', b'R', w0, w1, w2, w3, h0, h1, h2, h3] = *header else { return None };
    Some((u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3])))
}

/// Of the frame header, which the segments before it are passed over for (ITU-T T.81 B.2.2).
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut rest = bytes.get(2..)?;
    loop {
        let [0xff, marker, after @ ..] = rest else { return None };
        // Fill bytes may stand before a marker.
        if *marker == 0xff {
            rest = rest.get(1..)?;
            continue;
        }
        let [l0, l1, segment @ ..] = after else { return None };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        // Start of frame, but for three of its numbers that mean something else.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let [_precision, h0, h1, w0, w1, ..] = segment else { return None };
            let [height, width] = [[*h0, *h1], [*w0, *w1]].map(u16::from_be_bytes);
            return Some((width.into(), height.into()));
        }
        rest = after.get(length.max(2)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        [&PNG_SIGNATURE[..], &[0, 0, 0, 13], b"IHDR", &width.to_be_bytes(), &height.to_be_bytes()].concat()
    }

    fn jpeg(width: u16, height: u16) -> Vec<u8> {
        let segment = [0xff, 0xe0, 0, 4, 1, 2];
        let frame = [&[0xff, 0xff, 0xc2, 0, 17, 8], &height.to_be_bytes()[..], &width.to_be_bytes()];
        [&[0xff, 0xd8][..], &segment, &frame.concat()].concat()
    }

    #[test]
    fn pictures_are_known_by_what_they_begin_with_and_have_a_bound() {
        assert_eq!(Backdrop::parse(&png(1_280, 720)).unwrap().format, Format::Png);
        assert_eq!(Backdrop::parse(&jpeg(1_280, 720)).unwrap().format, Format::Jpeg);
        for wrong in [png(60_000, 60_000), png(0, 9), jpeg(5_000, 20), b"GIF89a".to_vec(), Vec::new()] {
            let refusal = Backdrop::parse(&wrong).unwrap_err();
            assert_eq!(refusal.code, Code::UnsupportedMediaType, "{wrong:?}");
        }
        assert_eq!(Backdrop::parse(&vec![0; BYTES_MAX + 1]).unwrap_err().code, Code::TooLarge);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for whole in [png(640, 360), jpeg(640, 360)] {
            for length in 0..whole.len() {
                assert!(Backdrop::parse(&whole[..length]).is_err(), "{length} bytes");
            }
        }
        // Segments without a length must not hold it up.
        assert!(Backdrop::parse(&[0xff, 0xd8, 0xff, 0xe0, 0, 0].repeat(1_000)).is_err());
    }
}
