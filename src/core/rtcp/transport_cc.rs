//! Transport-wide congestion control feedback: which packets arrived, and when
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

use std::ops::Range;

/// More statuses than this in one report are not read: at 100 ms between reports it is 80,000 packets a
/// second to one receiver.
const STATUSES_MAX: usize = 8_192;
/// The unit of the reference time.
pub(super) const REFERENCE_US: i64 = 64_000;
/// The unit of the arrival times that follow.
pub(super) const DELTA_US: i64 = 250;

/// One report; its length was checked against its own counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportCc<'a> {
    /// Transport-wide sequence number of the first packet spoken of.
    pub base_seq_no: u16,
    /// In units of 64 ms of the receiver's clock, 24 bits, wrapping.
    pub reference: u32,
    statuses: usize,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportCc<'a> {
    /// Reads what follows the two SSRCs. `None` for one that is cut short.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
        let rest = &bytes[8..];
        let told = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (mut covered, mut end) = (0, 0);
        while covered < told {
            let chunk = u16::from_be_bytes([*rest.get(end)?, *rest.get(end + 1)?]);
            covered += chunk_len(chunk);
            end += 2;
        }
        let (chunks, deltas) = rest.split_at(end);
        Some(Self {
            base_seq_no: u16::from_be_bytes([head[0], head[1]]),
            reference: u32::from_be_bytes([0, head[4], head[5], head[6]]),
            statuses: told.min(STATUSES_MAX),
            chunks,
            deltas,
        })
    }

    /// Each packet's sequence number with its arrival, microseconds after the reference time; `None` for one
    /// that did not arrive yet. Ends early where arrival times are missing.
    pub fn packets(&self) -> Packets<'a> {
        Packets {
            number: self.base_seq_no,
            left: self.statuses,
            chunks: self.chunks,
            chunk: 0,
            of_chunk: 0..0,
            deltas: self.deltas,
            time_us: 0,
        }
    }

    /// Microseconds from `earlier` reference time to this one, the shorter way around the wrap.
    pub fn reference_us_since(&self, earlier: u32) -> i64 {
        let steps = self.reference.wrapping_sub(earlier) & 0xff_ffff;
        let steps = if steps >= 0x80_0000 { i64::from(steps) - 0x100_0000 } else { i64::from(steps) };
        steps * REFERENCE_US
    }
}

/// Reads a report from its beginning.
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    /// Of the next packet.
    number: u16,
    left: usize,
    /// Those not begun.
    chunks: &'a [u8],
    chunk: u16,
    /// Places of `chunk` not read.
    of_chunk: Range<usize>,
    deltas: &'a [u8],
    time_us: i64,
}

impl Packets<'_> {
    #[inline]
    fn symbol(&mut self) -> Option<u8> {
        loop {
            if let Some(at) = self.of_chunk.next() {
                return Some(symbol(self.chunk, at));
            }
            let (chunk, rest) = self.chunks.split_first_chunk::<2>()?;
            self.chunk = u16::from_be_bytes(*chunk);
            self.of_chunk = 0..chunk_len(self.chunk);
            self.chunks = rest;
        }
    }
}

impl Iterator for Packets<'_> {
    type Item = (u16, Option<i64>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let number = self.number;
        self.number = number.wrapping_add(1);
        let delta = match self.symbol()? {
            0 => return Some((number, None)),
            1 => {
                let (delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                i64::from(*delta)
            }
            // A large or negative one; the fourth symbol is reserved and read as libwebrtc does.
            _ => {
                let (delta, rest) = self.deltas.split_first_chunk::<2>()?;
                self.deltas = rest;
                i64::from(i16::from_be_bytes(*delta))
            }
        };
        self.time_us += delta * DELTA_US;
        Some((number, Some(self.time_us)))
    }
}

/// How many packets a chunk speaks of.
fn chunk_len(chunk: u16) -> usize {
    match chunk >> 14 {
        0 | 1 => usize::from(chunk & 0x1fff),
        2 => 14,
        _ => 7,
    }
}

/// The status at this place of a chunk: run length, or a vector of one or two bits each.
fn symbol(chunk: u16, at: usize) -> u8 {
    match chunk >> 14 {
        0 | 1 => (chunk >> 13 & 3) as u8,
        2 => (chunk >> (13 - at.min(13)) & 1) as u8,
        _ => (chunk >> (12 - 2 * at.min(6)) & 3) as u8,
    }
}
