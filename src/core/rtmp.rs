//! RTMP's chunks put together into whole messages, and messages looked at before a library acts on them
//! (Adobe RTMP 1.0, §5.3 and §5.4; AMF 0).
//!
//! Whatever bytes come, nothing here panics, and what comes out is harmless to a reader that trusts it: a
//! message is whole, its values are all there and nest no deeper than [`DEPTH_MAX`]. Chunks of several
//! messages may come between each other's. Memory is bounded by [`UNFINISHED_BYTES_MAX`].

use std::collections::BTreeMap;

/// Until the sender says another (§5.4.1).
const CHUNK_BYTES: usize = 128;
/// A message's length has 24 bits.
const CHUNK_BYTES_MAX: u32 = 0xff_ffff;
/// In place of a time that has more than 24 bits.
const EXTENDED: u32 = 0xff_ffff;
/// Of all messages that are not complete: one of the largest, and a little of others.
const UNFINISHED_BYTES_MAX: usize = 17 << 20;
/// Encoders use fewer than ten.
const CHUNK_STREAMS_MAX: usize = 64;
/// Of a command or of metadata.
const VALUES_BYTES_MAX: usize = 64 << 10;
/// Objects within objects.
const DEPTH_MAX: usize = 16;
/// A command has a name, a number and an object or nothing (§7.1.1).
const COMMAND_VALUES_MIN: usize = 3;
/// A chunk stream for whole messages; 2 is for those about the protocol.
const WHOLE: u8 = 3;

const SET_CHUNK_SIZE: u8 = 1;
const ABORT: u8 = 2;
const WINDOW_SIZE: u8 = 5;
const DATA_AMF3: u8 = 15;
const COMMAND_AMF3: u8 = 17;
const DATA: u8 = 18;
const COMMAND: u8 = 20;

/// What came is no RTMP, or none that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtmpFault {
    #[error("a chunk refers to one that did not come")]
    NoHeader,
    #[error("a message begins before the one that it would be a part of ends")]
    Torn,
    #[error("more messages are begun than are kept")]
    TooMuch,
    #[error("a chunk's size is from 1 to {CHUNK_BYTES_MAX} bytes")]
    ChunkSize,
    #[error("a command's or a message's values cannot be read")]
    Values,
}

/// A message, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub at_ms: u32,
    /// The message type id (§5.4, §7.1).
    pub kind: u8,
    pub stream: u32,
    pub body: Vec<u8>,
}

impl Message {
    /// One by which whoever reads [`write`](Self::write)'s bytes takes each message as one chunk.
    pub fn in_one_chunk() -> Self {
        Self { at_ms: 0, kind: SET_CHUNK_SIZE, stream: 0, body: CHUNK_BYTES_MAX.to_be_bytes().to_vec() }
    }

    pub fn is_command(&self) -> bool {
        matches!(self.kind, COMMAND | COMMAND_AMF3)
    }

    /// As one chunk with a full header, behind what `out` holds.
    pub fn write(&self, out: &mut Vec<u8>) {
        let long = self.at_ms >= EXTENDED;
        out.push(WHOLE);
        out.extend(&self.at_ms.min(EXTENDED).to_be_bytes()[1..]);
        out.extend(&(self.body.len() as u32).to_be_bytes()[1..]);
        out.push(self.kind);
        out.extend(self.stream.to_le_bytes());
        if long {
            out.extend(self.at_ms.to_be_bytes());
        }
        out.extend(&self.body);
    }

    /// # Errors
    /// [`RtmpFault::Values`].
    fn check(&self) -> Result<(), RtmpFault> {
        let values = match (self.kind, &self.body[..]) {
            // Those that say AMF 3 have AMF 0, behind a byte that says so.
            (COMMAND_AMF3, [0, values @ ..]) => values,
            (COMMAND | COMMAND_AMF3 | DATA | DATA_AMF3, values) => values,
            _ => return Ok(()),
        };
        let count = count_values(values).ok_or(RtmpFault::Values)?;
        if self.is_command() && count < COMMAND_VALUES_MIN { Err(RtmpFault::Values) } else { Ok(()) }
    }
}

/// What was begun and not ended, among the values of a message.
enum Open {
    Object,
    Array(u32),
}

/// How many values there are, side by side. `None` if they are not all there, of kinds that are not known, or
/// nested too deep.
fn count_values(bytes: &[u8]) -> Option<usize> {
    if bytes.len() > VALUES_BYTES_MAX {
        return None;
    }
    let (mut rest, mut open, mut count) = (bytes, Vec::new(), 0);
    loop {
        match open.last_mut() {
            None if rest.is_empty() => return Some(count),
            None => count += 1,
            Some(Open::Object) => {
                let label = u16::from_be_bytes(take(&mut rest)?);
                if label == 0 {
                    let [9] = take(&mut rest)? else { return None };
                    open.pop();
                    continue;
                }
                rest = rest.get(usize::from(label)..)?;
            }
            Some(Open::Array(0)) => {
                open.pop();
                continue;
            }
            Some(Open::Array(left)) => *left -= 1,
        }
        let [marker] = take(&mut rest)?;
        match marker {
            0 => drop(take::<8>(&mut rest)?),
            1 => drop(take::<1>(&mut rest)?),
            2 => {
                let length = u16::from_be_bytes(take(&mut rest)?);
                rest = rest.get(usize::from(length)..)?;
            }
            3 => open.push(Open::Object),
            5 | 6 => {}
            8 => {
                take::<4>(&mut rest)?;
                open.push(Open::Object);
            }
            10 => open.push(Open::Array(u32::from_be_bytes(take(&mut rest)?))),
            _ => return None,
        }
        if open.len() > DEPTH_MAX {
            return None;
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*bytes)
}

/// The last header of a chunk stream.
#[derive(Debug, Clone, Copy, Default)]
struct Header {
    at_ms: u32,
    /// As it was said: what a header that says nothing adds for the next message.
    told_ms: u32,
    is_extended: bool,
    length: usize,
    kind: u8,
    stream: u32,
}

/// Chunk streams by their ids: the last header of each, and what there is of its message.
#[derive(Debug, Default)]
struct Streams {
    of: BTreeMap<u32, (Header, Vec<u8>)>,
    unfinished: usize,
}

/// Bytes in, messages out.
#[derive(Debug)]
pub struct Chunks {
    buffer: Vec<u8>,
    /// What of it was read.
    read: usize,
    chunk_bytes: usize,
    streams: Streams,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { buffer: Vec::new(), read: 0, chunk_bytes: CHUNK_BYTES, streams: Streams::default() }
    }
}

impl Chunks {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend(bytes);
    }

    /// The next message for whoever acts on them; `None` until more bytes come.
    ///
    /// # Errors
    /// [`RtmpFault`]: nothing that follows can be read.
    pub fn poll(&mut self) -> Result<Option<Message>, RtmpFault> {
        loop {
            let mut rest = &self.buffer[self.read..];
            let before = rest.len();
            let Some((id, header)) = self.streams.read_header(&mut rest)? else { return Ok(None) };
            let part = (header.length - self.streams.begun(id)).min(self.chunk_bytes);
            if self.streams.unfinished + part > UNFINISHED_BYTES_MAX {
                return Err(RtmpFault::TooMuch);
            }
            let Some(bytes) = rest.get(..part) else { return Ok(None) };
            let message = self.streams.put(id, header, bytes)?;
            self.read += before - rest.len() + part;
            if let Some(message) = message
                && let Some(message) = self.obey(message)?
            {
                return Ok(Some(message));
            }
        }
    }

    /// Does what a message says about chunks; gives any other.
    fn obey(&mut self, message: Message) -> Result<Option<Message>, RtmpFault> {
        let number = message.body.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        match (message.kind, number) {
            (SET_CHUNK_SIZE, Some(size @ 1..=CHUNK_BYTES_MAX)) => self.chunk_bytes = size as usize,
            // The first bit has no meaning, and larger ones mean that nothing is cut (§5.4.1).
            (SET_CHUNK_SIZE, Some(size)) if size > CHUNK_BYTES_MAX && size >> 31 == 0 => {
                self.chunk_bytes = CHUNK_BYTES_MAX as usize;
            }
            (SET_CHUNK_SIZE, _) => return Err(RtmpFault::ChunkSize),
            (ABORT, Some(id)) => self.streams.give_up(id),
            (ABORT, None) => {}
            // So rarely acknowledged is never.
            (WINDOW_SIZE, Some(size)) if size > i32::MAX as u32 => {}
            _ => {
                message.check()?;
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

impl Streams {
    /// Bytes that there are of a stream's message.
    fn begun(&self, id: u32) -> usize {
        self.of.get(&id).map_or(0, |(_, body)| body.len())
    }

    fn give_up(&mut self, id: u32) {
        if let Some((_, body)) = self.of.get_mut(&id) {
            self.unfinished -= std::mem::take(body).len();
        }
    }

    fn put(&mut self, id: u32, header: Header, bytes: &[u8]) -> Result<Option<Message>, RtmpFault> {
        if self.of.len() >= CHUNK_STREAMS_MAX && !self.of.contains_key(&id) {
            return Err(RtmpFault::TooMuch);
        }
        let (known, body) = self.of.entry(id).or_default();
        *known = header;
        body.extend(bytes);
        self.unfinished += bytes.len();
        if body.len() < header.length {
            return Ok(None);
        }
        let body = std::mem::take(body);
        self.unfinished -= body.len();
        Ok(Some(Message { at_ms: header.at_ms, kind: header.kind, stream: header.stream, body }))
    }

    /// A chunk's header (§5.3.1), upon what came before it of its chunk stream. `None` if it is not all there.
    fn read_header(&self, rest: &mut &[u8]) -> Result<Option<(u32, Header)>, RtmpFault> {
        let Some([first]) = take(rest) else { return Ok(None) };
        let id = match first & 0x3f {
            0 => take(rest).map(|[low]: [u8; 1]| 64 + u32::from(low)),
            1 => take(rest).map(|[low, high]: [u8; 2]| 64 + u32::from(low) + 256 * u32::from(high)),
            id => Some(u32::from(id)),
        };
        let Some(id) = id else { return Ok(None) };
        let (format, goes_on) = (first >> 6, self.begun(id) > 0);
        if goes_on && format != 3 {
            return Err(RtmpFault::Torn);
        }
        let mut header = match (format, self.of.get(&id)) {
            (0, _) => Header::default(),
            (_, Some((known, _))) => *known,
            (_, None) => return Err(RtmpFault::NoHeader),
        };
        Ok(header.read(rest, format, goes_on).map(|()| (id, header)))
    }
}

impl Header {
    /// `None` if its fields are not all there.
    fn read(&mut self, rest: &mut &[u8], format: u8, goes_on: bool) -> Option<()> {
        if format < 3 {
            self.told_ms = number(take(rest)?);
            self.is_extended = self.told_ms == EXTENDED;
        }
        if format < 2 {
            self.length = number(take(rest)?) as usize;
            [self.kind] = take(rest)?;
        }
        if format == 0 {
            self.stream = u32::from_le_bytes(take(rest)?);
        }
        if self.is_extended {
            // Also before what goes on, where it says nothing new.
            let told_ms = u32::from_be_bytes(take(rest)?);
            self.told_ms = if goes_on { self.told_ms } else { told_ms };
        }
        if !goes_on {
            self.at_ms = if format == 0 { self.told_ms } else { self.at_ms.wrapping_add(self.told_ms) };
        }
        Some(())
    }
}

fn number([a, b, c]: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, a, b, c])
}

#[cfg(test)]
mod tests;
