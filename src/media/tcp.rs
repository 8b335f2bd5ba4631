//! ICE-TCP (RFC 6544), passive: frames of RFC 4571 in and out, one task for each direction of a connection.
//!
//! The first frame must be a STUN request naming one of our peers, and come soon; else the connection closes.
//! It is handed to the peer's shard, which answers through a bounded queue: full, the newest frame is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use super::demux::stun_ufrag;
use super::shard::Command;
use super::thread::ShardHandle;
use crate::mailbox;

/// Frames that may wait for a slow connection: about a second of video.
const QUEUE_DEPTH: usize = 512;
/// Connections that may be open without having named a peer.
const UNKNOWN_MAX: usize = 256;
const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(5);
/// A peer that says nothing for so long is gone: ICE keeps an idle connection busier than this.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// More than a datagram that WebRTC sends; RFC 4571 would allow 64 KiB.
const FRAME_BYTES_MAX: usize = 4_096;

/// Accepts connections until the task is dropped.
pub async fn serve(listener: TcpListener, shards: Arc<[ShardHandle]>) {
    let unknown = Arc::new(Semaphore::new(UNKNOWN_MAX));
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come back instead of spinning.
                tracing::warn!(%error, "cannot accept ICE-TCP connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&unknown).try_acquire_owned() else { continue };
        let shards = Arc::clone(&shards);
        tokio::spawn(async move {
            let first = tokio::time::timeout(FIRST_FRAME_WITHIN, open(stream, &shards)).await;
            drop(permit);
            if let Ok(Some(connection)) = first {
                connection.run(remote).await;
            }
        });
    }
}

struct Connection {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    local: SocketAddr,
    shard: ShardHandle,
    first: Vec<u8>,
}

async fn open(stream: TcpStream, shards: &[ShardHandle]) -> Option<Connection> {
    stream.set_nodelay(true).ok()?;
    let local = stream.local_addr().ok()?;
    let (mut read, write) = stream.into_split();
    let first = read_frame(&mut read).await?;
    let (shard, _) = stun_ufrag(&first)?;
    let shard = shards.get(usize::from(shard.0))?.clone();
    Some(Connection { read, write, local, shard, first })
}

impl Connection {
    async fn run(self, remote: SocketAddr) {
        let Self { mut read, write, local, shard, first } = self;
        let (frames, outgoing) = mailbox::lossy(QUEUE_DEPTH);
        if shard.send(Command::TcpOpened { remote, connection: frames }).is_err() {
            return;
        }
        let writer = tokio::spawn(write_frames(write, outgoing));
        let mut next = Some(first);
        while let Some(frame) = next {
            // A full mailbox drops the frame, as a full socket buffer would.
            let _ = shard.send(Command::TcpFrame { remote, local, frame });
            next = tokio::time::timeout(IDLE_MAX, read_frame(&mut read)).await.ok().flatten();
        }
        let _ = shard.send(Command::TcpClosed { remote });
        // The shard drops its sender, and with it the writer's queue ends.
        let _ = writer.await;
    }
}

async fn read_frame(read: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = usize::from(read.read_u16().await.ok()?);
    if length == 0 || length > FRAME_BYTES_MAX {
        return None;
    }
    let mut frame = vec![0; length];
    read.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

async fn write_frames(mut write: OwnedWriteHalf, mut frames: mpsc::Receiver<Vec<u8>>) {
    let mut buffer = Vec::new();
    while let Some(first) = frames.recv().await {
        let mut next = Some(first);
        while let Some(frame) = next {
            let Ok(length) = u16::try_from(frame.len()) else { break };
            buffer.extend_from_slice(&length.to_be_bytes());
            buffer.extend_from_slice(&frame);
            next = if buffer.len() < 64 * 1024 { frames.try_recv().ok() } else { None };
        }
        if write.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.clear();
    }
}
