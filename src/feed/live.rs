//! Streams that encoders push: FLV, as it comes by RTMP, into a process, and what comes of it into a room.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::figures::Account;
use super::{Feeds, Inner, deliveries};
use crate::control::{FeedRequest, FeedRole, FeedSeat, Turned};
use crate::core::feed::{FeedOrder, FromFeed, LINE_PICTURE, LINE_SOUND, ToFeed, sources};
use crate::core::ids::{Identity, RoomName};
use crate::core::protocol::Grant;
use crate::core::refusal::{Code, Refusal};
use crate::worker::{Delivery, Queues, bridge};

/// A process that takes nothing for so long hangs.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// Who pushes, and where.
#[derive(Debug, Clone)]
pub struct LiveRequest {
    pub room: RoomName,
    pub identity: Identity,
    pub name: String,
    pub grant: Grant,
    pub has_token: bool,
    pub may_create: bool,
    /// Never logged.
    pub from: IpAddr,
}

/// A stream that is taken. It ends when this is dropped.
#[derive(Debug)]
pub struct LiveFeed {
    to: UnixStream,
    /// Dropped by its task when it is over.
    over: oneshot::Receiver<()>,
}

impl LiveFeed {
    /// Hands on a part of the stream.
    ///
    /// # Errors
    /// Its seat or its process is no more.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        tokio::select! {
            written = timeout(WRITE_WITHIN, self.to.write_all(bytes)) => {
                written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
            _ = &mut self.over => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// One of those that the node takes.
struct Slot(Arc<Inner>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Feeds {
    /// Gives a stream its seat and its process.
    ///
    /// # Errors
    /// Those of a join, `node_full`, `unavailable`, `end_to_end_encrypted`; or the room is at another node.
    pub async fn open_live(&self, request: LiveRequest) -> Result<LiveFeed, Turned> {
        let inner = &self.0;
        let program = inner.program(inner.rtmp.enabled, "this node takes no RTMP: rtmp.enabled is off")?;
        let slot = inner.take_slot()?;
        let LiveRequest { room, identity, name, grant, has_token, may_create, from } = request;
        let [picture, sound] = sources(true);
        let seat = FeedRequest {
            room: room.clone(),
            identity,
            name,
            role: FeedRole::Publisher { grant, has_token, may_create, from },
            sources: vec![(LINE_PICTURE, picture), (LINE_SOUND, sound)],
        };
        let seat = inner.control.seat_feed(seat).await?;
        let (to, input) = match pipe() {
            Ok(pipe) => pipe,
            Err(error) => {
                tracing::error!(%error, "no way to a process can be had");
                seat.leave().await;
                return Err(Refusal::new(Code::Unavailable, "the stream cannot be taken now").into());
            }
        };
        let (deliver, from) = deliveries();
        let begin = ToFeed::Begin(inner.settings(true));
        let queues = bridge::start_reading(program, input, begin, Account::open, deliver);
        let (running, over) = oneshot::channel();
        tracing::info!(%room, "a stream is pushed");
        tokio::spawn(carry(seat, queues, from, room, (slot, running)));
        Ok(LiveFeed { to, over })
    }
}

impl Inner {
    fn take_slot(self: &Arc<Self>) -> Result<Slot, Refusal> {
        let before = self.live.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(Arc::clone(self));
        if before >= self.rtmp.streams_max {
            let words = format!("this node takes {before} RTMP streams already, which is its limit");
            return Err(Refusal::new(Code::NodeFull, words));
        }
        Ok(slot)
    }
}

fn pipe() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// Until the stream, its process or its seat is no more.
async fn carry(
    mut seat: FeedSeat,
    queues: Queues<ToFeed>,
    mut from: mpsc::Receiver<Delivery<FromFeed>>,
    room: RoomName,
    held: (Slot, oneshot::Sender<()>),
) {
    loop {
        tokio::select! {
            order = seat.orders.recv() => match order {
                // One that is lost is asked for again.
                Some(FeedOrder::Keyframe) => drop(queues.words.send(ToFeed::Keyframe)),
                None => break,
            },
            delivery = from.recv() => match delivery {
                Some(Delivery::Packets(packets)) => seat.send(packets),
                Some(Delivery::News(FromFeed::Ready(media))) => {
                    tracing::info!(%room, copied = media.is_copied, "a pushed stream has begun");
                    if queues.words.send(ToFeed::Start).is_err() { break }
                }
                Some(Delivery::News(FromFeed::Failed(fault))) => {
                    tracing::warn!(%room, %fault, "a pushed stream cannot be taken");
                    break;
                }
                Some(Delivery::News(FromFeed::Ended | FromFeed::Gone)) | None => break,
                Some(Delivery::News(_)) => {}
            },
        }
    }
    drop(queues);
    seat.leave().await;
    tracing::info!(%room, "a stream is pushed no more");
    drop(held);
}
