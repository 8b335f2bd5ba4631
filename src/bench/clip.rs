//! Media that can be decoded: recorded before a measurement, so that encoding does not weigh on it, and
//! played by any number of synthetic clients.

use std::sync::Arc;

use super::source::Encoding;

/// A camera's pictures in all encodings, to be played over and over.
#[derive(Debug)]
pub struct Clip {
    pub frames_per_second: u32,
    /// Lowest first; all of the same pictures.
    pub encodings: Vec<Recorded>,
}

/// One encoding of a clip.
#[derive(Debug)]
pub struct Recorded {
    pub encoding: Encoding,
    pub frames: Vec<Frame>,
}

/// A coded picture of VP8.
#[derive(Debug)]
pub struct Frame {
    pub key: bool,
    pub data: Vec<u8>,
}

/// A clip and where in it a camera begins: cameras that begin elsewhere show different pictures, and have
/// their key frames at different times.
#[derive(Debug, Clone)]
pub struct Playback {
    pub clip: Arc<Clip>,
    /// Frames.
    pub phase: u32,
}

/// Packets of Opus, 20 ms each, to be played over and over.
pub type SoundClip = Arc<[Vec<u8>]>;

impl Clip {
    /// Pictures in it.
    pub fn len(&self) -> u32 {
        self.encodings.first().map_or(0, |recorded| recorded.frames.len() as u32)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Playback {
    /// The picture that a camera shows as its `index`th.
    pub fn number(&self, index: u32) -> u32 {
        index.wrapping_add(self.phase) % self.clip.len().max(1)
    }

    /// That picture in one encoding.
    pub fn frame(&self, encoding: usize, index: u32) -> Option<&Frame> {
        self.clip.encodings.get(encoding)?.frames.get(self.number(index) as usize)
    }
}
