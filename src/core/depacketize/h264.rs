//! H.264 access units (RFC 6184, packetization modes 0 and 1) in the byte stream format of Annex B.
//!
//! Parameter sets are remembered, and put before key frames that come without them, so that a decoder can
//! begin at each.

const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SEQUENCE_PARAMETER_SET: u8 = 7;
const PICTURE_PARAMETER_SET: u8 = 8;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// A parameter set is no longer.
const SET_BYTES_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Units {
    sequence: Vec<u8>,
    picture: Vec<u8>,
    has_sequence: bool,
    has_picture: bool,
    has_slice: bool,
    /// A unit's fragments go on.
    is_open: bool,
}

impl Units {
    /// `None` for what breaks the RFC, or lacks a piece.
    pub fn take(&mut self, payload: &[u8], data: &mut Vec<u8>, keyframe: &mut bool) -> Option<()> {
        let (&header, mut rest) = payload.split_first()?;
        let kind = header & 0x1f;
        if self.is_open && kind != FU_A {
            return None;
        }
        match kind {
            STAP_A => {
                while !rest.is_empty() {
                    let (size, after) = rest.split_first_chunk::<2>()?;
                    let (unit, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
                    self.add(unit, data, keyframe)?;
                    rest = after;
                }
            }
            FU_A => {
                let (&fragment, body) = rest.split_first()?;
                let (starts, ends) = (fragment & 0x80 != 0, fragment & 0x40 != 0);
                if starts == self.is_open {
                    return None;
                }
                if starts {
                    *keyframe |= fragment & 0x1f == IDR_SLICE;
                    self.has_slice = true;
                    data.extend(START_CODE);
                    data.push(header & 0xe0 | fragment & 0x1f);
                }
                data.extend(body);
                self.is_open = !ends;
            }
            1..=23 => self.add(payload, data, keyframe)?,
            _ => return None,
        }
        Some(())
    }

    fn add(&mut self, unit: &[u8], data: &mut Vec<u8>, keyframe: &mut bool) -> Option<()> {
        let kind = unit.first()? & 0x1f;
        match kind {
            SEQUENCE_PARAMETER_SET | PICTURE_PARAMETER_SET if unit.len() > SET_BYTES_MAX => return None,
            SEQUENCE_PARAMETER_SET => (self.sequence, self.has_sequence) = (unit.to_vec(), true),
            PICTURE_PARAMETER_SET => (self.picture, self.has_picture) = (unit.to_vec(), true),
            SLICE..=IDR_SLICE => {
                *keyframe |= kind == IDR_SLICE;
                self.has_slice = true;
            }
            _ => {}
        }
        data.extend(START_CODE);
        data.extend(unit);
        Some(())
    }

    /// What was taken of the unit at hand is of no use.
    pub fn forget_unit(&mut self) {
        self.is_open = false;
    }

    /// Ends an access unit; false where it shows nothing, such as parameter sets alone. It is broken where a
    /// piece is missing, or no decoder could begin with it as it claims.
    pub fn finish(&mut self, data: &mut Vec<u8>, keyframe: &mut bool, broken: &mut bool) -> bool {
        *broken |= std::mem::take(&mut self.is_open);
        let had_sequence = std::mem::take(&mut self.has_sequence);
        let had_picture = std::mem::take(&mut self.has_picture);
        let shows = std::mem::take(&mut self.has_slice);
        if *keyframe && !(had_sequence && had_picture) {
            *broken |= self.sequence.is_empty() || self.picture.is_empty();
            let mut whole = Vec::with_capacity(data.len() + self.sequence.len() + self.picture.len() + 8);
            for unit in [&self.sequence, &self.picture] {
                whole.extend(START_CODE);
                whole.extend(unit);
            }
            whole.append(data);
            *data = whole;
        }
        shows
    }
}
