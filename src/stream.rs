//! The shell of streams: a room's programme for ordinary players (HLS), and pushed to other services (RTMP).
//!
//! Each stream is a task here and a process of its own ([`child`]): FFmpeg never runs in the node. The task
//! takes packets of the mix from the room, restarts the process when it fails, and ends with the room.

mod bridge;
pub mod child;
mod live;
mod relay;
mod restream;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub use live::{Live, LiveState};
pub use restream::{Restream, RestreamState};

use crate::config::{self, Config};
use crate::control::{Control, Wish, Wishes, unix_ms};
use crate::core::ids::RoomName;
use crate::core::mix::MixPacket;
use crate::core::refusal::{Code, Refusal};
use crate::core::stream::Task;
use crate::core::stream::retry::Retry;

/// A stream that was stopped can be played to its end for so long.
const ENDED_FOR: Duration = Duration::from_secs(60);

/// Handle of the node's streams; cheap to clone.
#[derive(Clone)]
pub struct Streams(Arc<Inner>);

struct Inner {
    settings: config::Streams,
    /// Of the mix, as it is told to players.
    mcu: config::Mcu,
    control: Control,
    /// This very binary; without it there are no streams.
    program: Option<PathBuf>,
    serials: AtomicU64,
    hls: Mutex<BTreeMap<RoomName, Entry>>,
    restreams: Mutex<BTreeMap<RoomName, Vec<Arc<Restream>>>>,
}

struct Entry {
    serial: u64,
    live: Arc<Live>,
    task: AbortHandle,
}

impl Streams {
    pub fn new(config: &Config, control: Control) -> Self {
        let program = std::env::current_exe().inspect_err(|error| {
            tracing::warn!(%error, "no room can be streamed: this program does not know where it is");
        });
        Self(Arc::new(Inner {
            settings: config.streams.clone(),
            mcu: config.mcu.clone(),
            control,
            program: program.ok(),
            serials: AtomicU64::new(0),
            hls: Mutex::default(),
            restreams: Mutex::default(),
        }))
    }

    /// Streams a room by HLS. True if it was not streamed before.
    ///
    /// # Errors
    /// `unavailable` where it is off or the room cannot be mixed, `node_full`, `not_found`,
    /// `end_to_end_encrypted`.
    pub async fn start_hls(&self, room: &RoomName) -> Result<(Arc<Live>, bool), Refusal> {
        let inner = &self.0;
        if let Some(live) = self.hls(room).filter(|live| !live.has_ended()) {
            return Ok((live, false));
        }
        let program = inner.program()?;
        let running = inner.entries().values().filter(|entry| !entry.live.has_ended()).count();
        if running >= inner.settings.hls_max as usize {
            let words = format!("this node streams {running} rooms already, which is its limit");
            return Err(Refusal::new(Code::NodeFull, words));
        }
        let serial = inner.next_serial();
        let packets = inner.control.open_stream(room, serial, true).await?;
        let live = Arc::new(Live::new(unix_ms(), &inner.mcu));
        let mut entries = inner.entries();
        if let Some(other) = entries.get(room).filter(|entry| !entry.live.has_ended()) {
            // Somebody else was faster. Dropping the packets' queue would do, were there packets.
            let (live, control, room) = (Arc::clone(&other.live), inner.control.clone(), room.clone());
            tokio::spawn(async move { control.close_stream(&room, serial).await });
            return Ok((live, false));
        }
        let run = run_hls(Arc::clone(inner), program, room.clone(), serial, Arc::clone(&live), packets);
        let task = tokio::spawn(run).abort_handle();
        entries.insert(room.clone(), Entry { serial, live: Arc::clone(&live), task });
        drop(entries);
        inner.control.wish(room, Wish::Hls(true));
        tracing::info!(room = %room, stream = serial, "HLS began");
        Ok((live, true))
    }

    /// Begins again what a room had at its last node. What is refused here is wished for no more.
    pub async fn resume(&self, room: &RoomName, wishes: &Wishes) {
        if wishes.hls
            && let Err(refusal) = self.start_hls(room).await
        {
            tracing::warn!(room = %room, %refusal, "a stream of another node does not go on here");
            self.0.control.wish(room, Wish::Hls(false));
        }
        for url in &wishes.restreams {
            if let Err(refusal) = self.push(room, url).await {
                tracing::warn!(room = %room, %refusal, "a restream of another node does not go on here");
                self.0.control.wish(room, Wish::Restream(url.clone(), false));
            }
        }
    }

    /// A room's stream, also one that ended a moment ago.
    pub fn hls(&self, room: &RoomName) -> Option<Arc<Live>> {
        self.0.entries().get(room).map(|entry| Arc::clone(&entry.live))
    }

    /// Ends a room's stream. Players get to its end.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn stop_hls(&self, room: &RoomName) -> Result<(), Refusal> {
        let serial = {
            let entries = self.0.entries();
            let entry = entries.get(room).filter(|entry| !entry.live.has_ended());
            let entry = entry.ok_or_else(|| Refusal::new(Code::NotFound, "the room is not streamed"))?;
            entry.task.abort();
            entry.serial
        };
        Arc::clone(&self.0).end_hls(room, serial);
        self.0.control.wish(room, Wish::Hls(false));
        // A room that is gone has no streams.
        let _ = self.0.control.close_stream(room, serial).await;
        Ok(())
    }
}

impl Inner {
    /// What is run for a stream.
    fn program(&self) -> Result<PathBuf, Refusal> {
        self.program.clone().filter(|_| self.settings.enabled).ok_or_else(|| {
            Refusal::new(Code::Unavailable, "this node does not stream: streams.enabled is off")
        })
    }

    fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn restreams(&self) -> MutexGuard<'_, BTreeMap<RoomName, Vec<Arc<Restream>>>> {
        self.restreams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<RoomName, Entry>> {
        self.hls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream is over; it is forgotten later.
    fn end_hls(self: Arc<Self>, room: &RoomName, serial: u64) {
        if let Some(entry) = self.entries().get(room).filter(|entry| entry.serial == serial) {
            entry.live.end();
            tracing::info!(room = %room, stream = serial, "HLS ended");
        }
        let room = room.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ENDED_FOR).await;
            let mut entries = self.entries();
            if entries.get(&room).is_some_and(|entry| entry.serial == serial) {
                entries.remove(&room);
            }
        });
    }
}

/// Runs the process of a stream until its room is gone.
async fn run_hls(
    inner: Arc<Inner>,
    program: PathBuf,
    room: RoomName,
    serial: u64,
    live: Arc<Live>,
    mut packets: mpsc::Receiver<MixPacket>,
) {
    let mut retry = Retry::default();
    loop {
        let began = Instant::now();
        let take = |news| live.take(news, &room, &inner.control);
        match bridge::run(&program, &Task::Parts, &mut packets, take).await {
            Ok(()) => break,
            Err(error) => {
                metrics::counter!("antiphon_hls_failures_total").increment(1);
                tracing::warn!(room = %room, stream = serial, %error, "a streaming process failed");
            }
        }
        live.jump();
        let Some(wait) = retry.next(Some(began.elapsed()), rand::rng().random()) else {
            tracing::error!(room = %room, stream = serial, "HLS is given up");
            inner.control.wish(&room, Wish::Hls(false));
            // A room that is gone has no streams.
            let _ = inner.control.close_stream(&room, serial).await;
            break;
        };
        if !idle(&mut packets, wait).await {
            break;
        }
    }
    inner.end_hls(&room, serial);
}

/// Lets time pass, and packets with it. False when the room is gone.
async fn idle(packets: &mut mpsc::Receiver<MixPacket>, wait: Duration) -> bool {
    let drain = async { while packets.recv().await.is_some() {} };
    tokio::select! {
        () = drain => false,
        () = tokio::time::sleep(wait) => true,
    }
}
