//! Reads single bits, most significant first, out of bytes that came from the network.
//!
//! Total: whatever the bytes are, a read either gives a value or `None`; nothing panics and nothing loops.

/// A position in a bit string.
#[derive(Debug, Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next bit.
    #[inline]
    pub(super) fn flag(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// An unsigned number of `width` bits; `width` is at most 32.
    #[inline]
    pub(super) fn number(&mut self, width: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..width {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    pub(super) fn skip(&mut self, width: usize) -> Option<()> {
        let end = self.at.checked_add(width)?;
        (end <= self.bytes.len() * 8).then(|| self.at = end)
    }

    /// `ns(n)` of the AV1 specification, section 4.10.7: a number below `n`, in as few bits as that takes.
    pub(super) fn non_symmetric(&mut self, n: u32) -> Option<u32> {
        if n <= 1 {
            return Some(0);
        }
        let width = u32::BITS - n.leading_zeros();
        let short = (1_u32.checked_shl(width)?).wrapping_sub(n);
        let value = self.number(width - 1)?;
        if value < short {
            return Some(value);
        }
        let extra = self.number(1)?;
        Some((value << 1 | extra).wrapping_sub(short))
    }

    /// `uvlc()` of AV1 and `ue(v)` of H.264: an Exp-Golomb number.
    pub(super) fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.number(zeros)?;
        Some(rest + ((1_u32 << zeros) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_cross_byte_borders_and_end_with_the_bytes() {
        let mut bits = Bits::new(&[0b1010_0101, 0b1100_0000]);
        assert_eq!(bits.number(3), Some(0b101));
        assert_eq!(bits.number(7), Some(0b001_0111));
        assert_eq!(bits.position(), 10);
        assert_eq!(bits.number(7), None);
    }

    #[test]
    fn exp_golomb_matches_the_table_of_h264() {
        // 1, 010, 011, 00100, 00101 are 0, 1, 2, 3, 4 (H.264 table 9-2).
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let read: Vec<_> = (0..5).map_while(|_| bits.exp_golomb()).collect();
        assert_eq!(read, [0, 1, 2, 3, 4]);
        assert_eq!(Bits::new(&[0; 8]).exp_golomb(), None);
    }

    #[test]
    fn non_symmetric_matches_the_specification() {
        // For n = 5 the codes are 00, 01, 10, 110, 111.
        let mut bits = Bits::new(&[0b0001_1011, 0b0111_0000]);
        let read: Vec<_> = (0..5).map_while(|_| bits.non_symmetric(5)).collect();
        assert_eq!(read, [0, 1, 2, 3, 4]);
        assert_eq!(bits.non_symmetric(1), Some(0));
    }
}
