//! What changes in a payload on its way: single bytes of its descriptor, never its length.

/// A descriptor's bytes that get other values: a picture id of two bytes and a TL0PICIDX are all there is.
const BYTES_MAX: usize = 3;

/// How a payload differs from the one that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadPatch {
    /// Not at all.
    None,
    Bytes(Overwrite),
    /// Send an empty payload. It fills the sequence number that was kept for a packet which then turned out
    /// to be of a dropped layer, and which the receiver would otherwise ask for in vain.
    Blank,
}

impl PayloadPatch {
    /// Appends the payload as it goes out.
    #[inline]
    pub fn write(&self, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::None => out.extend_from_slice(payload),
            Self::Bytes(overwrite) => {
                out.extend_from_slice(payload);
                overwrite.apply(&mut out[start..]);
            }
            Self::Blank => {}
        }
    }
}

/// Up to three bytes at the beginning of a payload with other values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overwrite {
    len: u8,
    offsets: [u8; BYTES_MAX],
    values: [u8; BYTES_MAX],
}

impl Overwrite {
    /// The byte at `offset` becomes `value`. More than three are a fault of ours and left out.
    pub(super) fn set(&mut self, offset: u8, value: u8) {
        let index = usize::from(self.len);
        debug_assert!(index < BYTES_MAX, "a descriptor has at most three bytes that change");
        if let (Some(place), Some(byte)) = (self.offsets.get_mut(index), self.values.get_mut(index)) {
            (*place, *byte) = (offset, value);
            self.len += 1;
        }
    }

    /// The picture id at `offset`, in the width that it has; cut to it.
    pub(super) fn set_picture_id(&mut self, offset: u8, id: u16, wide: bool) {
        let [high, low] = id.to_be_bytes();
        if wide {
            self.set(offset, 0x80 | high);
            self.set(offset + 1, low);
        } else {
            self.set(offset, low & 0x7f);
        }
    }

    #[inline]
    fn apply(&self, payload: &mut [u8]) {
        let changes = self.offsets.iter().zip(&self.values).take(usize::from(self.len));
        for (&offset, &value) in changes {
            if let Some(byte) = payload.get_mut(usize::from(offset)) {
                *byte = value;
            }
        }
    }
}
