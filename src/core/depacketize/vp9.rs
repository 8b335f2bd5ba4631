//! VP9 pictures (RFC 9628): the frames of a picture's layers, one after the other, with an index of their
//! sizes where there are several, without which decoders take the first for the whole (VP9 bitstream
//! specification, annex B).

use crate::core::payload::vp9;

/// An index has room for so many.
const FRAMES_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Where each layer's frame begins.
    begins: Vec<usize>,
    /// A layer's frame is not at its end.
    is_open: bool,
}

impl Frames {
    /// `None` where a piece is missing.
    pub fn take(&mut self, payload: &[u8], data: &mut Vec<u8>, keyframe: &mut bool) -> Option<()> {
        let (descriptor, body) = vp9::body(payload)?;
        if descriptor.begins == self.is_open || descriptor.begins && self.begins.len() == FRAMES_MAX {
            return None;
        }
        if descriptor.begins {
            if self.begins.is_empty() {
                *keyframe = !descriptor.inter_picture && descriptor.spatial == 0;
            }
            self.begins.push(data.len());
        }
        self.is_open = !descriptor.ends;
        data.extend(body);
        Some(())
    }

    /// Ends a picture; false where it is not whole.
    pub fn finish(&mut self, data: &mut Vec<u8>) -> bool {
        let begins = std::mem::take(&mut self.begins);
        let is_whole = !std::mem::take(&mut self.is_open) && begins.first() == Some(&0);
        if is_whole && begins.len() > 1 {
            let ends = begins.iter().skip(1).copied().chain([data.len()]);
            let sizes: Vec<u32> = begins.iter().zip(ends).map(|(begin, end)| (end - begin) as u32).collect();
            // Of sizes of four bytes each.
            let marker = 0xc0 | 3 << 3 | (sizes.len() - 1) as u8;
            data.push(marker);
            data.extend(sizes.into_iter().flat_map(u32::to_le_bytes));
            data.push(marker);
        }
        is_whole
    }
}
