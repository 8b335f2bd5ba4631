//! The streaming process: reads packets of the mix from its node, and makes parts of them or pushes them on.
//!
//! It ends when the node closes the socket. FFmpeg reads nothing here but what our own mixer made, and what
//! an RTMP server says.

mod mux;
mod parts;
mod push;
mod sound;

use std::io::{ErrorKind, Read};

use ffmpeg_next as ffmpeg;
use socket2::Socket;

use super::wire;
use crate::core::mix::MixPacket;
use crate::core::stream::{FromStream, Task};
use crate::worker::process;
use crate::worker::wire::{self as mix_wire, MESSAGE_BYTES_MAX, Message, WireError};

/// Why a streaming process ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("a streaming process is started by a node, with a socket as its standard input: {0}")]
    NoSocket(std::io::Error),
    #[error("the node cannot be read or written: {0}")]
    Node(#[from] std::io::Error),
    #[error("FFmpeg: {0}")]
    Ffmpeg(#[from] ffmpeg::Error),
    #[error("FFmpeg's muxer wrote what it should not")]
    Muxer,
    #[error("sound stopped, or its time went back")]
    Gap,
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Of writable memory, of which what the allocator only reserves is a part.
const MEMORY_BYTES_MAX: u64 = 3 << 30;

/// Streams until the node closes the socket.
///
/// # Errors
/// [`StreamError`]: it was started by hand, or FFmpeg fails.
pub fn run() -> Result<(), StreamError> {
    let socket = process::inherited_socket().map_err(StreamError::NoSocket)?;
    process::limit(MEMORY_BYTES_MAX);
    ffmpeg::init()?;
    // What it would say may hold a stream's key.
    ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
    let node = Node(socket);
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let task = loop {
        match node.read(&mut bytes)? {
            Some(Message::Words(task)) => break task,
            Some(Message::Packet(_)) => {}
            None => return Ok(()),
        }
    };
    match task {
        Task::Parts => node.each_packet(&mut bytes, parts::Parts::new(&node)),
        Task::Push(push) => node.each_packet(&mut bytes, push::Pusher::new(&node, push)),
    }
}

/// Takes packets as they come.
trait Take {
    /// # Errors
    /// It cannot go on.
    fn take(&mut self, packet: &MixPacket) -> Result<(), StreamError>;
}

/// The way to the node.
struct Node(Socket);

impl Node {
    fn each_packet(&self, bytes: &mut [u8], mut taker: impl Take) -> Result<(), StreamError> {
        while let Some(message) = self.read(bytes)? {
            if let Message::Packet(packet) = message {
                taker.take(&packet)?;
            }
        }
        Ok(())
    }

    /// The next message; `None` when the node is gone.
    fn read(&self, bytes: &mut [u8]) -> Result<Option<Message<Task>>, StreamError> {
        loop {
            match (&self.0).read(bytes) {
                Ok(0) => return Ok(None),
                Ok(length) => return Ok(Some(mix_wire::read(bytes.get(..length).unwrap_or_default())?)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says something, and the bytes that belong to it.
    fn say(&self, words: &FromStream, bytes: &[u8]) -> Result<(), StreamError> {
        let mut message = Vec::new();
        mix_wire::write_words(words, &mut message)?;
        self.send(&message)?;
        for chunk in wire::chunks(bytes) {
            self.send(&chunk)?;
        }
        Ok(())
    }

    fn send(&self, message: &[u8]) -> Result<(), StreamError> {
        loop {
            match self.0.send(message) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }
}
