//! Transport-wide congestion control feedback: which packets arrived, and when
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

/// More statuses than this in one report are not read: at 100 ms between reports it is 80,000 packets a
/// second to one receiver.
const STATUSES_MAX: usize = 8_192;
/// The unit of the reference time.
const REFERENCE_US: i64 = 64_000;
/// The unit of the arrival times that follow.
const DELTA_US: i64 = 250;

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
    pub fn packets(&self) -> impl Iterator<Item = (u16, Option<i64>)> {
        let chunks = self.chunks.chunks_exact(2).map(|chunk| u16::from_be_bytes([chunk[0], chunk[1]]));
        let symbols = chunks.flat_map(|chunk| (0..chunk_len(chunk)).map(move |at| symbol(chunk, at)));
        let numbers = (0..self.statuses as u16).map(|at| self.base_seq_no.wrapping_add(at));
        let mut deltas = self.deltas.iter().copied();
        let mut time = 0i64;
        numbers.zip(symbols).map_while(move |(number, symbol)| {
            let delta = match symbol {
                0 => return Some((number, None)),
                1 => i64::from(deltas.next()?),
                // A large or negative one; the fourth symbol is reserved and read as libwebrtc does.
                _ => i64::from(i16::from_be_bytes([deltas.next()?, deltas.next()?])),
            };
            time += delta * DELTA_US;
            Some((number, Some(time)))
        })
    }

    /// Microseconds from `earlier` reference time to this one, the shorter way around the wrap.
    pub fn reference_us_since(&self, earlier: u32) -> i64 {
        let steps = self.reference.wrapping_sub(earlier) & 0xff_ffff;
        let steps = if steps >= 0x80_0000 { i64::from(steps) - 0x100_0000 } else { i64::from(steps) };
        steps * REFERENCE_US
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
