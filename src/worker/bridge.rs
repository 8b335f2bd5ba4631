//! The node's end of a worker: its process, the socket to it, and the two queues by which a room reaches it.
//!
//! One task for each worker. It ends when the room drops its queues or the process ends; either way nothing
//! of the other is left. A worker that does not read loses packets, never words: one that does not take
//! words any more is broken, and ended.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

use super::process::{self, Spawned};
use super::wire::{self, MESSAGE_BYTES_MAX, Message};
use crate::core::mix::MixPacket;
use crate::mailbox::{self, ControlSender, LossySender};

/// Packets that may wait for a worker: a second of 25 pictures. Full: packets are dropped, and asked for
/// again as if the network had lost them.
const PACKETS_DEPTH: usize = 4_096;
/// Words that may wait. Full: the worker is stuck, and ended.
const WORDS_DEPTH: usize = 1_024;
/// A worker that takes no words for so long does not work either.
const SAY_WITHIN: Duration = Duration::from_secs(2);
/// Packets that are handed on at a time.
const BATCH_MAX: usize = 64;
/// How often it is looked whether a worker that tidies up has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How a room reaches its worker.
#[derive(Debug)]
pub struct Queues<To> {
    pub words: ControlSender<To>,
    pub packets: LossySender<MixPacket>,
}

/// From a worker, for its room.
#[derive(Debug)]
pub enum Delivery<From> {
    News(From),
    Packets(Vec<MixPacket>),
}

/// A kind of work for a room, and the account of one worker that does it.
pub trait Work: Send + 'static {
    /// What workers are told, and what they tell.
    type To: Serialize + Send + Sync + 'static;
    type From: DeserializeOwned + Send + 'static;
    /// By which the program becomes such a worker.
    const SUBCOMMAND: &'static str;
    /// A worker whose socket is closed gets so long to put its work away.
    const PUT_AWAY_WITHIN: Duration = Duration::ZERO;

    /// It is no more.
    fn gone() -> Self::From;
    /// Takes note of what the worker says.
    fn note(&mut self, news: &Self::From);
    /// It ended without having been told to.
    fn fail(&self);
}

/// Starts a worker, whose first word is `begin`; what it says goes to `deliver`, [`Work::gone`] last.
pub fn start<W: Work>(
    program: PathBuf,
    begin: W::To,
    open: impl FnOnce() -> W + Send + 'static,
    deliver: impl Fn(Delivery<W::From>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> Queues<W::To> {
    run(move || process::spawn(&program, W::SUBCOMMAND), begin, open, deliver)
}

/// As [`start`], of a worker that reads `input` ([`process::spawn_reading`]).
pub fn start_reading<W: Work>(
    program: PathBuf,
    input: OwnedFd,
    begin: W::To,
    open: impl FnOnce() -> W + Send + 'static,
    deliver: impl Fn(Delivery<W::From>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> Queues<W::To> {
    run(move || process::spawn_reading(&program, W::SUBCOMMAND, input), begin, open, deliver)
}

fn run<W: Work>(
    spawn: impl FnOnce() -> io::Result<Spawned> + Send + 'static,
    begin: W::To,
    open: impl FnOnce() -> W + Send + 'static,
    deliver: impl Fn(Delivery<W::From>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> Queues<W::To> {
    let (words, words_of) = mailbox::control(WORDS_DEPTH);
    let (packets, packets_of) = mailbox::lossy(PACKETS_DEPTH);
    tokio::spawn(async move {
        let kind = W::SUBCOMMAND;
        match Bridge::open(spawn, words_of, packets_of, open) {
            Ok((mut bridge, child)) => {
                tracing::info!(kind, process = child.id(), "worker started");
                let ended = bridge.run(begin, &deliver).await;
                if ended.is_err() {
                    bridge.work.fail();
                }
                let within = if ended.is_ok() { W::PUT_AWAY_WITHIN } else { Duration::ZERO };
                drop(bridge);
                reap(kind, child, ended, within).await;
            }
            Err(error) => tracing::error!(kind, %error, "a worker cannot be started"),
        }
        deliver(Delivery::News(W::gone())).await;
    });
    Queues { words, packets }
}

/// Ends the process, whatever it is doing, and says why.
async fn reap(kind: &str, mut child: Child, ended: io::Result<()>, within: Duration) {
    let waited = put_away(&mut child, within).await;
    let killed = tokio::task::spawn_blocking(move || {
        // It may have ended by itself, which is as good.
        let _ = child.kill();
        child.wait()
    });
    let status = match waited {
        Some(status) => Ok(status),
        None => killed.await.map_err(io::Error::other).and_then(|status| status),
    };
    match (ended, status) {
        (Ok(()), _) => tracing::info!(kind, "worker stopped"),
        (Err(error), Ok(status)) => tracing::warn!(kind, %error, %status, "worker failed"),
        (Err(error), Err(unknown)) => tracing::warn!(kind, %error, %unknown, "worker failed"),
    }
}

/// How the process ended, if it did by itself in time.
async fn put_away(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + within;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    None
}

struct Bridge<W: Work> {
    /// Of packets in sequence (`SOCK_SEQPACKET`), which are read and written as datagrams are.
    socket: UnixDatagram,
    words: mpsc::Receiver<W::To>,
    packets: mpsc::Receiver<MixPacket>,
    out: Vec<u8>,
    inward: Vec<u8>,
    work: W,
}

impl<W: Work> Bridge<W> {
    fn open(
        spawn: impl FnOnce() -> io::Result<Spawned>,
        words: mpsc::Receiver<W::To>,
        packets: mpsc::Receiver<MixPacket>,
        open: impl FnOnce() -> W,
    ) -> io::Result<(Self, Child)> {
        let Spawned { child, socket } = spawn()?;
        let socket = UnixDatagram::from_std(std::os::fd::OwnedFd::from(socket).into())?;
        let (out, inward) = (Vec::new(), vec![0; MESSAGE_BYTES_MAX]);
        Ok((Self { socket, words, packets, out, inward, work: open() }, child))
    }

    /// Carries messages both ways until the room has enough (`Ok`) or the worker is no more.
    async fn run(
        &mut self,
        begin: W::To,
        deliver: &impl Fn(Delivery<W::From>) -> BoxFuture<'static, ()>,
    ) -> io::Result<()> {
        self.say(&begin).await?;
        loop {
            tokio::select! {
                // Words first: they say whose the packets are that come after them.
                biased;
                words = self.words.recv() => match words {
                    Some(words) => self.say(&words).await?,
                    None => return self.send_what_waits(),
                },
                ready = self.socket.readable() => {
                    ready?;
                    for delivery in read(&self.socket, &mut self.inward)? {
                        if let Delivery::News(news) = &delivery {
                            self.work.note(news);
                        }
                        deliver(delivery).await;
                    }
                }
                packet = self.packets.recv() => match packet {
                    Some(packet) => self.send_packet(&packet)?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Words are few and small: a worker that leaves no room for them has stood still for long.
    async fn say(&mut self, words: &W::To) -> io::Result<()> {
        wire::write_words(words, &mut self.out).map_err(io::Error::other)?;
        let sent = tokio::time::timeout(SAY_WITHIN, self.socket.send(&self.out)).await;
        sent.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the worker does not read"))?.map(drop)
    }

    /// The last packets of a room that has enough.
    fn send_what_waits(&mut self) -> io::Result<()> {
        while let Ok(packet) = self.packets.try_recv() {
            self.send_packet(&packet)?;
        }
        Ok(())
    }

    fn send_packet(&mut self, packet: &MixPacket) -> io::Result<()> {
        wire::write_packet(packet, &mut self.out);
        match self.socket.try_send(&self.out) {
            // As if the network had lost it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// Reads what is there, as far as one batch.
fn read<From: DeserializeOwned>(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<Vec<Delivery<From>>> {
    let mut deliveries = Vec::new();
    let mut packets = Vec::new();
    while packets.len() < BATCH_MAX {
        let length = match socket.try_recv(buffer) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the worker closed its socket"));
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        match wire::read::<From>(buffer.get(..length).unwrap_or_default()) {
            Ok(Message::Packet(packet)) => packets.push(packet),
            Ok(Message::Words(news)) => deliveries.push(Delivery::News(news)),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    if !packets.is_empty() {
        deliveries.push(Delivery::Packets(packets));
    }
    Ok(deliveries)
}
