//! What leaves the mixer: a queue and the thread that writes it to the socket.
//!
//! The queue is bounded. Media beyond [`MEDIA_MAX`] is dropped and counted: its receivers ask for it again or
//! for a key frame. Words go before media and are never dropped; a node that does not take [`WORDS_MAX`] of
//! them has gone astray, and the mixer ends.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use serde::Serialize;
use socket2::Socket;

use crate::core::mix::MixPacket;
use crate::worker::wire::{self, WireError};

/// Packets that may wait: more than two key frames of every rendition.
const MEDIA_MAX: usize = 1_024;
/// Words that may wait: some minutes of figures.
const WORDS_MAX: usize = 512;

#[derive(Debug, Default)]
struct Queue {
    words: VecDeque<Vec<u8>>,
    media: VecDeque<Vec<u8>>,
    media_dropped: u64,
    closed: bool,
}

/// The way out, for every thread.
#[derive(Debug, Clone, Default)]
pub struct Outlet(Arc<(Mutex<Queue>, Condvar)>);

impl Outlet {
    /// # Errors
    /// [`WireError`]: they cannot be written as a message.
    pub fn say(&self, words: &impl Serialize) -> Result<(), WireError> {
        let mut bytes = Vec::new();
        wire::write_words(words, &mut bytes)?;
        self.change(|queue| {
            queue.closed |= queue.words.len() >= WORDS_MAX;
            queue.words.push_back(bytes);
        });
        Ok(())
    }

    pub fn send(&self, packet: &MixPacket) {
        let mut bytes = Vec::with_capacity(packet.payload.len() + 32);
        wire::write_packet(packet, &mut bytes);
        self.change(|queue| {
            if queue.media.len() < MEDIA_MAX {
                queue.media.push_back(bytes);
            } else {
                queue.media_dropped += 1;
            }
        });
    }

    /// Packets dropped since last asked.
    pub fn take_dropped(&self) -> u64 {
        self.change(|queue| std::mem::take(&mut queue.media_dropped))
    }

    /// Writes until nobody reads any more, or [`Outlet::close`].
    pub fn write_to(&self, socket: &Socket) {
        while let Some(message) = self.next() {
            // A signal is no reason to lose a message; every other error means that the node is gone.
            while let Err(error) = socket.send(&message) {
                if error.kind() != std::io::ErrorKind::Interrupted {
                    self.close();
                    break;
                }
            }
        }
    }

    pub fn close(&self) {
        self.change(|queue| queue.closed = true);
    }

    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let (queue, news) = &*self.0;
        let result = change(&mut queue.lock().unwrap_or_else(PoisonError::into_inner));
        news.notify_one();
        result
    }

    fn next(&self) -> Option<Vec<u8>> {
        let (queue, news) = &*self.0;
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |queue: &mut Queue| !queue.closed && queue.words.is_empty() && queue.media.is_empty();
        let mut queue = news.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return None;
        }
        queue.words.pop_front().or_else(|| queue.media.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::mix::{FromMixer, Place};
    use crate::core::payload::Codec;

    #[test]
    fn words_go_first_and_media_beyond_the_queue_is_counted() {
        let outlet = Outlet::default();
        let place = Place::Line { line: 0, encoding: 0 };
        let payload = Arc::from(&b"media"[..]);
        let (codec, captured_us) = (Codec::Vp8, None);
        let packet = MixPacket { place, codec, seq_no: 1, rtp_time: 2, captured_us, marker: true, payload };
        for _ in 0..MEDIA_MAX + 3 {
            outlet.send(&packet);
        }
        outlet.say(&FromMixer::Keyframe { slot: 4 }).unwrap();
        assert_eq!((outlet.take_dropped(), outlet.take_dropped()), (3, 0));
        let read = |bytes: Vec<u8>| wire::read::<FromMixer>(&bytes).unwrap();
        let words = wire::Message::Words(FromMixer::Keyframe { slot: 4 });
        assert_eq!(read(outlet.next().unwrap()), words);
        assert_eq!(read(outlet.next().unwrap()), wire::Message::Packet(packet));
        outlet.close();
        assert_eq!(outlet.next(), None);
    }
}
