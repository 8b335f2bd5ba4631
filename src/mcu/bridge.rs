//! The node's end of a mixer: its process, the socket to it, and the two queues by which a room reaches it.
//!
//! One task for each mixer. It ends when the room drops its queues or the process ends; either way nothing of
//! the other is left. A mixer that does not read loses packets, never words: one that does not take words any
//! more is broken, and ended.

use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

use super::figures::Account;
use super::process::{self, Spawned};
use super::wire::{self, MESSAGE_BYTES_MAX, Message};
use crate::core::mix::{FromMixer, MixPacket, MixSettings, ToMixer};
use crate::mailbox::{self, ControlSender, LossySender};

/// Packets that may wait for a mixer: a second of 25 pictures. Full: packets are dropped, and asked for again
/// as if the network had lost them.
const PACKETS_DEPTH: usize = 4_096;
/// Words that may wait. Full: the mixer is stuck, and ended.
const WORDS_DEPTH: usize = 1_024;
/// A mixer that takes no words for so long does not mix either.
const SAY_WITHIN: Duration = Duration::from_secs(2);
/// Packets that are handed on at a time.
const BATCH_MAX: usize = 64;

/// How a room reaches its mixer.
#[derive(Debug)]
pub struct MixerQueues {
    pub words: ControlSender<ToMixer>,
    pub packets: LossySender<MixPacket>,
}

/// From a mixer, for its room.
#[derive(Debug)]
pub enum Delivery {
    News(FromMixer),
    Packets(Vec<MixPacket>),
}

/// Starts a mixer; what it says goes to `deliver`, [`FromMixer::Gone`] last.
pub fn start(
    program: PathBuf,
    settings: MixSettings,
    deliver: impl Fn(Delivery) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> MixerQueues {
    let (words, words_of) = mailbox::control(WORDS_DEPTH);
    let (packets, packets_of) = mailbox::lossy(PACKETS_DEPTH);
    tokio::spawn(async move {
        match Bridge::open(&program, words_of, packets_of) {
            Ok((mut bridge, child)) => {
                tracing::info!(process = child.id(), "mixer started");
                let ended = bridge.run(settings, &deliver).await;
                if ended.is_err() {
                    bridge.account.fail();
                }
                drop(bridge);
                reap(child, ended).await;
            }
            Err(error) => tracing::error!(%error, "a mixer cannot be started"),
        }
        deliver(Delivery::News(FromMixer::Gone)).await;
    });
    MixerQueues { words, packets }
}

/// Ends the process, whatever it is doing, and says why.
async fn reap(mut child: Child, ended: io::Result<()>) {
    let waited = tokio::task::spawn_blocking(move || {
        // It may have ended by itself, which is as good.
        let _ = child.kill();
        child.wait()
    });
    let status = waited.await.map_err(io::Error::other).and_then(|status| status);
    match (ended, status) {
        (Ok(()), _) => tracing::info!("mixer stopped"),
        (Err(error), Ok(status)) => tracing::warn!(%error, %status, "mixer failed"),
        (Err(error), Err(unknown)) => tracing::warn!(%error, %unknown, "mixer failed"),
    }
}

struct Bridge {
    /// Of packets in sequence (`SOCK_SEQPACKET`), which are read and written as datagrams are.
    socket: UnixDatagram,
    words: mpsc::Receiver<ToMixer>,
    packets: mpsc::Receiver<MixPacket>,
    out: Vec<u8>,
    inward: Vec<u8>,
    account: Account,
}

impl Bridge {
    fn open(
        program: &std::path::Path,
        words: mpsc::Receiver<ToMixer>,
        packets: mpsc::Receiver<MixPacket>,
    ) -> io::Result<(Self, Child)> {
        let Spawned { child, socket } = process::spawn(program, "mix")?;
        let socket = UnixDatagram::from_std(std::os::fd::OwnedFd::from(socket).into())?;
        let (out, inward) = (Vec::new(), vec![0; MESSAGE_BYTES_MAX]);
        let bridge = Self { socket, words, packets, out, inward, account: Account::open() };
        Ok((bridge, child))
    }

    /// Carries messages both ways until the room has enough (`Ok`) or the mixer is no more.
    async fn run(
        &mut self,
        settings: MixSettings,
        deliver: &impl Fn(Delivery) -> BoxFuture<'static, ()>,
    ) -> io::Result<()> {
        self.say(&ToMixer::Begin(settings)).await?;
        loop {
            tokio::select! {
                words = self.words.recv() => match words {
                    Some(words) => self.say(&words).await?,
                    None => return Ok(()),
                },
                packet = self.packets.recv() => match packet {
                    Some(packet) => self.send_packet(&packet)?,
                    None => return Ok(()),
                },
                ready = self.socket.readable() => {
                    ready?;
                    for delivery in read(&self.socket, &mut self.inward)? {
                        if let Delivery::News(news) = &delivery {
                            self.account.note(news);
                        }
                        deliver(delivery).await;
                    }
                }
            }
        }
    }

    /// Words are few and small: a mixer that leaves no room for them has stood still for long.
    async fn say(&mut self, words: &ToMixer) -> io::Result<()> {
        wire::write_words(words, &mut self.out).map_err(io::Error::other)?;
        let sent = tokio::time::timeout(SAY_WITHIN, self.socket.send(&self.out)).await;
        sent.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the mixer does not read"))?.map(drop)
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
fn read(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<Vec<Delivery>> {
    let mut deliveries = Vec::new();
    let mut packets = Vec::new();
    while packets.len() < BATCH_MAX {
        let length = match socket.try_recv(buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the mixer closed its socket")),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        match wire::read::<FromMixer>(buffer.get(..length).unwrap_or_default()) {
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
