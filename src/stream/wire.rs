//! What a streaming process sends its node: words as a mixer's are, then the bytes that belong to them in
//! chunks, one a datagram.

use bytes::{Bytes, BytesMut};

use crate::core::stream::{FromStream, Init, Part, Track};
use crate::worker::wire::{self, Message, WireError};

/// In place of the byte that tells words from packets.
const CHUNK: u8 = 3;
const CHUNK_BYTES: usize = 32 * 1024;
/// No part has more: three seconds of 40 Mbit/s.
const PART_BYTES_MAX: u32 = 16 << 20;

/// Something whole that a process told.
#[derive(Debug, PartialEq)]
pub enum News {
    Keyframe(Track),
    Init(Init, Bytes),
    Part(Part, Bytes),
    Pushing,
}

/// What came is none of it.
#[derive(Debug, thiserror::Error)]
pub enum StreamWireError {
    #[error(transparent)]
    Words(#[from] WireError),
    #[error("bytes that belong to nothing, or words within them")]
    Astray,
    #[error("a part of {0} bytes is too large")]
    TooLarge(u32),
}

/// Messages that carry bytes.
pub fn chunks(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    bytes.chunks(CHUNK_BYTES).map(|chunk| [&[CHUNK], chunk].concat())
}

/// Puts messages together.
#[derive(Debug, Default)]
pub struct Reader {
    waiting: Option<(FromStream, usize)>,
    bytes: BytesMut,
}

impl Reader {
    /// Takes a datagram; gives what it completes.
    ///
    /// # Errors
    /// [`StreamWireError`]: the process is broken.
    pub fn push(&mut self, message: &[u8]) -> Result<Option<News>, StreamWireError> {
        if let Some((&CHUNK, chunk)) = message.split_first() {
            let Some((_, wanted)) = &self.waiting else { return Err(StreamWireError::Astray) };
            self.bytes.extend_from_slice(chunk);
            if self.bytes.len() > *wanted {
                return Err(StreamWireError::Astray);
            }
            return Ok(self.complete());
        }
        let Message::Words(words) = wire::read::<FromStream>(message)? else {
            return Err(StreamWireError::Astray);
        };
        let wanted = match &words {
            FromStream::Keyframe(_) | FromStream::Pushing => 0,
            FromStream::Init(Init { bytes, .. }) | FromStream::Part(Part { bytes, .. }) => *bytes,
        };
        if self.waiting.is_some() {
            return Err(StreamWireError::Astray);
        }
        if wanted > PART_BYTES_MAX {
            return Err(StreamWireError::TooLarge(wanted));
        }
        self.waiting = Some((words, wanted as usize));
        Ok(self.complete())
    }

    fn complete(&mut self) -> Option<News> {
        let (words, _) = self.waiting.take_if(|(_, wanted)| *wanted == self.bytes.len())?;
        let bytes = self.bytes.split().freeze();
        Some(match words {
            FromStream::Keyframe(track) => News::Keyframe(track),
            FromStream::Init(init) => News::Init(init, bytes),
            FromStream::Part(part) => News::Part(part, bytes),
            FromStream::Pushing => News::Pushing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &FromStream) -> Vec<u8> {
        let mut message = Vec::new();
        wire::write_words(words, &mut message).unwrap();
        message
    }

    fn part(bytes: u32) -> Part {
        let (track, captured_us) = (Track::Low, 7);
        Part { track, era: 1, begins: true, ends: false, independent: true, duration: 9, captured_us, bytes }
    }

    #[test]
    fn a_part_comes_in_chunks_and_is_whole_again() {
        let contents: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
        let part = part(contents.len() as u32);
        let mut reader = Reader::default();
        assert_eq!(reader.push(&words(&FromStream::Part(part.clone()))).unwrap(), None);
        let mut news: Vec<News> =
            chunks(&contents).filter_map(|chunk| reader.push(&chunk).unwrap()).collect();
        assert_eq!(news.pop(), Some(News::Part(part, Bytes::from(contents))));
        assert!(news.is_empty());
        let asked = reader.push(&words(&FromStream::Keyframe(Track::High))).unwrap();
        assert_eq!(asked, Some(News::Keyframe(Track::High)));
    }

    #[test]
    fn what_is_astray_is_refused() {
        let mut reader = Reader::default();
        assert!(reader.push(&[CHUNK, 1]).is_err());
        assert!(reader.push(b"").is_err());
        assert!(reader.push(&words(&FromStream::Part(part(u32::MAX)))).is_err());
        let mut reader = Reader::default();
        reader.push(&words(&FromStream::Part(part(2)))).unwrap();
        assert!(reader.push(&words(&FromStream::Pushing)).is_err());
        assert!(reader.push(&[CHUNK, 1, 2, 3]).is_err());
    }
}
