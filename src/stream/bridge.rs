//! The node's end of a streaming process: packets to it, parts from it.
//!
//! A process that does not read loses packets; one that says nonsense is ended. It ends with the task, too.

use std::io;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

use super::wire::{News, Reader};
use crate::core::mix::MixPacket;
use crate::core::stream::Task;
use crate::worker::process::{self, Spawned};
use crate::worker::wire::{self as mix_wire, MESSAGE_BYTES_MAX};

/// A process that takes no words for so long does not stream either.
const SAY_WITHIN: Duration = Duration::from_secs(5);
/// Messages that are read at a time.
const BATCH_MAX: usize = 64;

/// Runs a process until nobody sends packets any more.
///
/// # Errors
/// It cannot be started, ended, or is broken.
pub async fn run(
    program: &Path,
    task: &Task,
    packets: &mut mpsc::Receiver<MixPacket>,
    mut take: impl FnMut(News),
) -> io::Result<()> {
    let Spawned { child, socket } = process::spawn(program, "stream")?;
    let child = Running(Some(child));
    let socket = UnixDatagram::from_std(std::os::fd::OwnedFd::from(socket).into())?;
    let mut out = Vec::new();
    mix_wire::write_words(task, &mut out).map_err(io::Error::other)?;
    let sent = tokio::time::timeout(SAY_WITHIN, socket.send(&out)).await;
    sent.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the process does not read"))??;
    let (mut reader, mut inward) = (Reader::default(), vec![0; MESSAGE_BYTES_MAX]);
    loop {
        tokio::select! {
            packet = packets.recv() => match packet {
                Some(packet) => send_packet(&socket, &packet, &mut out)?,
                None => return Ok(()),
            },
            ready = socket.readable() => {
                ready?;
                if let Err(error) = read(&socket, &mut reader, &mut inward, &mut take) {
                    return Err(child.explain(error).await);
                }
            }
        }
    }
}

fn send_packet(socket: &UnixDatagram, packet: &MixPacket, out: &mut Vec<u8>) -> io::Result<()> {
    mix_wire::write_packet(packet, out);
    match socket.try_send(out) {
        // It finds a packet missing, and asks for a key frame.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        // What it said last is read before its end is found.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent.map(drop),
    }
}

/// Reads what is there, as far as one batch.
fn read(
    socket: &UnixDatagram,
    reader: &mut Reader,
    buffer: &mut [u8],
    take: &mut impl FnMut(News),
) -> io::Result<()> {
    for _ in 0..BATCH_MAX {
        let length = match socket.try_recv(buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process ended")),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let news = reader.push(buffer.get(..length).unwrap_or_default()).map_err(io::Error::other)?;
        news.into_iter().for_each(&mut *take);
    }
    Ok(())
}

/// A process that is ended with whoever holds it.
struct Running(Option<Child>);

impl Running {
    /// Adds to an error how the process ended.
    async fn explain(mut self, error: io::Error) -> io::Error {
        let Some(mut child) = self.0.take() else { return error };
        let waited = tokio::task::spawn_blocking(move || {
            // It may have ended by itself, which is as good.
            let _ = child.kill();
            child.wait()
        });
        match waited.await {
            Ok(Ok(status)) => io::Error::new(error.kind(), format!("{error}: {status}")),
            Ok(Err(_)) | Err(_) => error,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            // Killed, it ends at once; waited for, it leaves nothing behind.
            std::thread::spawn(move || child.wait());
        }
    }
}
