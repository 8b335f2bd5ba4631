//! Puts AV1 temporal units together from RTP payloads (AV1 RTP specification, section 4), since
//! GStreamer 1.22 cannot.
//!
//! Packets are put in order first; one that does not come within [`WAITING_MAX`] others is lost, and with it
//! every unit until the next that begins a coded video sequence. Units come out as a low-overhead bitstream
//! (AV1 section 5.2), in which each OBU says its size.

use std::collections::BTreeMap;

use super::UNIT_BYTES_MAX;
use crate::core::mix::MixPacket;

/// Packets kept while one before them is missing: some 100 ms of a camera at 2 Mb/s.
const WAITING_MAX: usize = 32;

const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_TEMPORAL_DELIMITER: u8 = 2;
const OBU_TILE_LIST: u8 = 8;
const HAS_EXTENSION: u8 = 0x04;
const HAS_SIZE: u8 = 0x02;

/// A picture's bytes for the decoder, or why there are none.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Unit(Vec<u8>),
    /// Packets are lost, or hold what the specification does not know: a key frame is needed.
    Lost,
}

#[derive(Debug, Default)]
pub struct Depacketizer {
    /// The next sequence number; none before the first packet.
    next_seq_no: Option<u64>,
    waiting: BTreeMap<u64, MixPacket>,
    units: Units,
}

impl Depacketizer {
    /// Takes a packet and gives what became complete or was found lost.
    pub fn push(&mut self, packet: MixPacket) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let next = *self.next_seq_no.get_or_insert(packet.seq_no);
        if packet.seq_no < next {
            return outcomes;
        }
        self.waiting.insert(packet.seq_no, packet);
        while let Some(entry) = self.waiting.first_entry() {
            let seq_no = *entry.key();
            if Some(seq_no) != self.next_seq_no {
                if self.waiting.len() <= WAITING_MAX {
                    break;
                }
                self.units.lose(&mut outcomes);
                self.next_seq_no = Some(seq_no);
                continue;
            }
            let packet = entry.remove();
            self.next_seq_no = Some(seq_no + 1);
            self.units.take(&packet, &mut outcomes);
        }
        outcomes
    }
}

/// The same of packets that come in order.
#[derive(Debug, Default)]
pub struct Units {
    unit: Vec<u8>,
    /// An OBU whose end has not come.
    fragment: Vec<u8>,
    /// Nothing is missing since the beginning of a coded video sequence.
    whole: bool,
    rtp_time: u32,
}

impl Units {
    /// Packets before the next one are missing.
    pub fn lose(&mut self, outcomes: &mut Vec<Outcome>) {
        self.whole = false;
        self.unit.clear();
        self.fragment.clear();
        outcomes.push(Outcome::Lost);
    }

    /// A packet in its turn.
    pub fn take(&mut self, packet: &MixPacket, outcomes: &mut Vec<Outcome>) {
        let Some((&aggregation, elements)) = packet.payload.split_first() else { return };
        let (continues, starts) = (aggregation & 0x80 != 0, aggregation & 0x08 != 0);
        if packet.rtp_time != self.rtp_time {
            self.unit.clear();
            self.rtp_time = packet.rtp_time;
        }
        if starts && !continues {
            self.whole = true;
            self.unit.clear();
            self.fragment.clear();
        }
        if !self.whole {
            // Nothing to add to. The next key frame is asked for as long as packets come in vain.
            if packet.marker {
                outcomes.push(Outcome::Lost);
            }
            return;
        }
        if continues == self.fragment.is_empty() || self.add_elements(aggregation, elements).is_none() {
            self.lose(outcomes);
        } else if packet.marker && !self.unit.is_empty() {
            let mut unit = vec![OBU_TEMPORAL_DELIMITER << 3 | HAS_SIZE, 0];
            unit.append(&mut self.unit);
            outcomes.push(Outcome::Unit(unit));
        }
    }

    /// `None` when they break the specification.
    fn add_elements(&mut self, aggregation: u8, mut elements: &[u8]) -> Option<()> {
        let count = aggregation >> 4 & 0x03;
        let mut index = 0;
        while !elements.is_empty() {
            index += 1;
            // W says how many there are; the last of them comes without its length.
            let element = if index == count {
                std::mem::take(&mut elements)
            } else {
                let (length, after) = read_leb128(elements)?;
                let (element, after) = after.split_at_checked(length)?;
                elements = after;
                element
            };
            self.fragment.extend(element);
            if self.fragment.len() + self.unit.len() > UNIT_BYTES_MAX {
                return None;
            }
            // Y: the last element goes on in the next packet.
            let goes_on = elements.is_empty() && aggregation & 0x40 != 0;
            if !goes_on && !self.fragment.is_empty() {
                write_obu(&self.fragment, &mut self.unit)?;
                self.fragment.clear();
            }
        }
        (count == 0 || index == count).then_some(())
    }
}

/// Whether a unit begins with a sequence header, as one does with which a decoder can begin.
pub fn begins_sequence(unit: &[u8]) -> bool {
    // After the temporal delimiter that each unit has here.
    unit.get(2).is_some_and(|header| header >> 3 & 0x0f == OBU_SEQUENCE_HEADER)
}

/// Appends an OBU with its size, whether or not it has one.
fn write_obu(obu: &[u8], unit: &mut Vec<u8>) -> Option<()> {
    let (&header, mut body) = obu.split_first()?;
    if header & 0x80 != 0 {
        return None;
    }
    let mut extension = None;
    if header & HAS_EXTENSION != 0 {
        let (&byte, rest) = body.split_first()?;
        (extension, body) = (Some(byte), rest);
    }
    if header & HAS_SIZE != 0 {
        let (size, rest) = read_leb128(body)?;
        body = rest.get(..size)?;
    }
    // Section 5: neither is to be sent, and a receiver ignores them.
    if [OBU_TEMPORAL_DELIMITER, OBU_TILE_LIST].contains(&(header >> 3 & 0x0f)) {
        return Some(());
    }
    unit.push(header | HAS_SIZE);
    unit.extend(extension);
    write_leb128(body.len(), unit);
    unit.extend(body);
    Some(())
}

/// A number of at most four bytes of seven bits, and what follows it (AV1 section 4.10.5).
fn read_leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (index * 7);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn write_leb128(mut value: usize, out: &mut Vec<u8>) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        out.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mix::Place;
    use crate::core::payload::Codec;

    fn packet(seq_no: u64, rtp_time: u32, marker: bool, payload: &[u8]) -> MixPacket {
        let payload = payload.into();
        let (place, codec, captured_us) = (Place::Slot(0), Codec::Av1, None);
        MixPacket { place, codec, seq_no, rtp_time, captured_us, marker, payload }
    }

    /// A sequence header of two bytes, then a frame of four, in three packets.
    fn sequence(seq_no: u64, rtp_time: u32) -> [MixPacket; 3] {
        [
            // Y, W = 2, N: the sequence header with its length, the frame's first byte and header without.
            packet(seq_no, rtp_time, false, &[0x68, 3, 0x08, 1, 2, 0x30, 3]),
            // Z, Y, W = 1.
            packet(seq_no + 1, rtp_time, false, &[0xd0, 4, 5]),
            // Z, W = 0: with its length.
            packet(seq_no + 2, rtp_time, true, &[0x80, 1, 6]),
        ]
    }

    const UNIT: [u8; 12] = [0x12, 0, 0x0a, 2, 1, 2, 0x32, 4, 3, 4, 5, 6];

    fn outcomes(packets: impl IntoIterator<Item = MixPacket>) -> Vec<Outcome> {
        let mut depacketizer = Depacketizer::default();
        packets.into_iter().flat_map(|packet| depacketizer.push(packet)).collect()
    }

    #[test]
    fn fragments_and_aggregates_become_a_unit_with_sizes() {
        assert_eq!(outcomes(sequence(7, 90)), [Outcome::Unit(UNIT.to_vec())]);
        let [a, b, c] = sequence(7, 90);
        assert_eq!(outcomes([a, c, b]), [Outcome::Unit(UNIT.to_vec())]);
    }

    #[test]
    fn obus_that_have_sizes_keep_them_and_delimiters_go() {
        // W = 3, N: a delimiter, a sequence header with a size, a frame with extension and without.
        let payload = [0x38, 2, 0x12, 0, 4, 0x0a, 2, 1, 2, 0x34, 0x20, 9];
        let unit = [0x12, 0, 0x0a, 2, 1, 2, 0x36, 0x20, 1, 9];
        assert_eq!(outcomes([packet(0, 1, true, &payload)]), [Outcome::Unit(unit.to_vec())]);
    }

    #[test]
    fn after_a_loss_the_next_sequence_is_waited_for() {
        let [a, _, c] = sequence(0, 90);
        let mut packets = vec![a, c];
        packets.extend((3..40).map(|seq_no| packet(seq_no, seq_no as u32 * 100, true, &[0x10, 0x30, 7])));
        packets.extend(sequence(40, 9_000));
        packets.push(packet(43, 9_100, true, &[0x10, 0x30, 7]));
        let all = outcomes(packets);
        let units: Vec<_> = all.iter().filter(|outcome| **outcome != Outcome::Lost).collect();
        let delta = Outcome::Unit(vec![0x12, 0, 0x32, 1, 7]);
        assert_eq!(units, [&Outcome::Unit(UNIT.to_vec()), &delta]);
        assert_eq!(all.first(), Some(&Outcome::Lost));
    }

    #[test]
    fn nonsense_is_lost_and_does_no_harm() {
        let mut state = 1_u32;
        let mut depacketizer = Depacketizer::default();
        for seq_no in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..state % 23 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bytes.push((state >> 24) as u8);
            }
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            depacketizer.push(packet(seq_no ^ u64::from(state >> 30), state >> 8, state >> 31 == 1, &bytes));
        }
        assert_eq!(read_leb128(&[0x80, 0x80]), None);
    }
}
