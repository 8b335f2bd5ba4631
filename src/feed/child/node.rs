//! The way to the node: words and packets, and the wait for either its words or for time to pass.

use std::io::{ErrorKind, Read as _};
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::Socket;

use super::FeedError;
use crate::core::feed::{FromFeed, ToFeed};
use crate::core::mix::MixPacket;
use crate::worker::wire::{self, MESSAGE_BYTES_MAX, Message};

/// A node that takes nothing for so long is gone, or as good as gone.
const SAY_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
pub struct Node {
    socket: Socket,
    bytes: Vec<u8>,
    out: Vec<u8>,
}

impl Node {
    pub fn new(socket: Socket) -> Result<Self, FeedError> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(SAY_WITHIN))?;
        Ok(Self { socket, bytes: vec![0; MESSAGE_BYTES_MAX], out: Vec::new() })
    }

    /// The next words, however long they take.
    pub fn wait(&mut self) -> Result<ToFeed, FeedError> {
        loop {
            self.socket.set_read_timeout(None)?;
            let length = self.read()?;
            if let Some(words) = length.map(|length| self.words(length)).transpose()?.flatten() {
                return Ok(words);
            }
        }
    }

    /// Words that come within this time.
    pub fn wait_for(&mut self, time: Duration) -> Result<Option<ToFeed>, FeedError> {
        self.socket.set_read_timeout(Some(time.max(Duration::from_millis(1))))?;
        let length = self.read()?;
        length.map_or(Ok(None), |length| self.words(length))
    }

    /// Words that are there.
    pub fn poll(&mut self) -> Result<Option<ToFeed>, FeedError> {
        match rustix::net::recv(&self.socket, &mut self.bytes[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(FeedError::Closed),
            Ok((length, _)) => self.words(length),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(rustix::io::Errno::CONNRESET) => Err(FeedError::Closed),
            Err(error) => Err(std::io::Error::from(error).into()),
        }
    }

    /// Until the node closes the socket.
    pub fn wait_for_end(&mut self) {
        while self.wait().is_ok() {}
    }

    fn read(&mut self) -> Result<Option<usize>, FeedError> {
        match (&self.socket).read(&mut self.bytes) {
            Ok(0) => Err(FeedError::Closed),
            Ok(length) => Ok(Some(length)),
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted]
                    .contains(&error.kind()) =>
            {
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(FeedError::Closed),
            Err(error) => Err(error.into()),
        }
    }

    fn words(&self, length: usize) -> Result<Option<ToFeed>, FeedError> {
        match wire::read(self.bytes.get(..length).unwrap_or_default())? {
            Message::Words(words) => Ok(Some(words)),
            // It is sent none.
            Message::Packet(_) => Ok(None),
        }
    }

    pub fn say(&mut self, words: &FromFeed) -> Result<(), FeedError> {
        wire::write_words(words, &mut self.out)?;
        self.write()
    }

    pub fn send(&mut self, packet: &MixPacket) -> Result<(), FeedError> {
        wire::write_packet(packet, &mut self.out);
        self.write()
    }

    fn write(&self) -> Result<(), FeedError> {
        loop {
            match self.socket.send(&self.out) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error.kind()) => {
                    return Err(FeedError::Closed);
                }
                sent => return Ok(sent.map(drop)?),
            }
        }
    }
}
