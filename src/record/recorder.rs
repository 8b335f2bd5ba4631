//! The recorder's process: reads the node's messages, and writes each track to its file.
//!
//! One thread does it all: what it reads has been put into packets by the node, and what it writes goes to
//! the system without delay. When the node closes the socket the files are put in order, and the process
//! ends.

use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::Socket;

use super::media;
use super::session::Session;
use crate::core::recording::{EndReason, FromRecorder, ToRecorder};
use crate::worker::process;
use crate::worker::wire::{self, MESSAGE_BYTES_MAX, Message, WireError};

/// How often it is looked what is due.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Of writable memory. What the allocator only reserves counts, so that it is far above what is used: jitter
/// buffers of many tracks, and what FFmpeg takes for a picture.
pub const MEMORY_BYTES_MAX: u64 = 3 << 30;
/// One is enough for all that it does.
const CORES_MAX: u32 = 1;
/// Behind the node, which forwards packets.
const NICENESS: i32 = 5;
/// Words that are not taken for so long have no reader.
const SAY_WITHIN: Duration = Duration::from_secs(2);

/// Why a recorder ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    #[error("a recorder is started by a node, with a socket as its standard input: {0}")]
    NoSocket(std::io::Error),
    #[error("the node's messages cannot be read: {0}")]
    Read(std::io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a recording cannot be made: {0}")]
    Media(#[from] media::MediaError),
    #[error("somebody else writes into the recording's folder")]
    Taken,
}

/// Microseconds since the Unix epoch, by a clock that only goes forward.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    began_us: i64,
}

impl Clock {
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), began_us: since.as_micros() as i64 }
    }

    pub fn now_us(self) -> i64 {
        self.began_us + self.began.elapsed().as_micros() as i64
    }
}

/// Records until the node closes the socket.
///
/// # Errors
/// [`RecorderError`]: it was started by hand, or cannot write.
pub fn run() -> Result<(), RecorderError> {
    let socket = process::inherited_socket().map_err(RecorderError::NoSocket)?;
    process::limit(MEMORY_BYTES_MAX);
    process::keep_to_cores(CORES_MAX);
    process::step_back(NICENESS);
    media::start()?;
    socket.set_read_timeout(Some(CHECK_INTERVAL)).map_err(RecorderError::NoSocket)?;
    socket.set_write_timeout(Some(SAY_WITHIN)).map_err(RecorderError::NoSocket)?;
    let mut recorder = Recorder { socket, clock: Clock::start(), session: None, unreadable: 0 };
    let ended = recorder.read_all();
    // Whatever ended it: what was written is worth its end.
    let finished = recorder.session.map_or(Ok(()), |session| session.finish(recorder.clock.now_us()));
    ended.and(finished)
}

struct Recorder {
    socket: Socket,
    clock: Clock,
    session: Option<Session>,
    /// Messages that were not understood: the first is told of.
    unreadable: u64,
}

impl Recorder {
    fn read_all(&mut self) -> Result<(), RecorderError> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut checked_us = self.clock.now_us();
        loop {
            match (&self.socket).read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(length) => match wire::read(&bytes[..length]) {
                    Ok(message) => self.handle(message)?,
                    Err(error) => {
                        self.unreadable += 1;
                        if self.unreadable == 1 {
                            tracing::warn!(%error, "a message of the node is not understood");
                        }
                    }
                },
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(RecorderError::Read(error)),
            }
            let now_us = self.clock.now_us();
            if now_us - checked_us >= CHECK_INTERVAL.as_micros() as i64 {
                checked_us = now_us;
                self.check(now_us)?;
            }
        }
    }

    fn handle(&mut self, message: Message<ToRecorder>) -> Result<(), RecorderError> {
        let now_us = self.clock.now_us();
        match (&mut self.session, message) {
            (None, Message::Words(ToRecorder::Begin(settings))) => {
                self.session = Some(Session::begin(*settings)?);
                self.say(&FromRecorder::Ready)?;
            }
            // Before it began there is nowhere to put anything.
            (None, _) => {}
            (Some(session), Message::Words(words)) => {
                if let Err(error) = session.handle_words(words) {
                    self.fail(&error)?;
                }
            }
            (Some(session), Message::Packet(packet)) => session.handle_packet(now_us, packet),
        }
        Ok(())
    }

    fn check(&mut self, now_us: i64) -> Result<(), RecorderError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let (said, result) = session.check(now_us);
        for words in &said {
            self.say(words)?;
        }
        match result {
            Ok(()) => Ok(()),
            Err(error) => self.fail(&error),
        }
    }

    /// Tells the node why it cannot go on. The node closes the socket then.
    fn fail(&mut self, error: &media::MediaError) -> Result<(), RecorderError> {
        let reason = error.ends();
        tracing::warn!(%error, ?reason, "a recording cannot go on");
        self.end(reason)
    }

    fn end(&mut self, reason: EndReason) -> Result<(), RecorderError> {
        if self.session.as_mut().is_some_and(|session| session.end(reason)) {
            self.say(&FromRecorder::Ended { reason })?;
        }
        Ok(())
    }

    fn say(&self, words: &FromRecorder) -> Result<(), RecorderError> {
        let mut bytes = Vec::new();
        wire::write_words(words, &mut bytes)?;
        // A node that does not read is gone; the end of the socket says so.
        let _ = self.socket.send(&bytes);
        Ok(())
    }
}
