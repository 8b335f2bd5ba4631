//! The shell of feeds: files that are played in rooms, and streams that encoders push.
//!
//! Each feed is a task here, a process of its own ([`child`]), which alone reads what people send, and a
//! participant of its room. The task carries packets from the process to the room and requests back; it ends
//! with the process, with the seat, or when it is told to.

pub mod child;
mod figures;
mod live;
mod player;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub use live::{LiveFeed, LiveRequest};
pub use player::{PlayWish, PlayerChange, PlayerState};

use crate::config::{self, Config};
use crate::control::Control;
use crate::core::feed::{FeedSettings, FromFeed};
use crate::core::ids::RoomName;
use crate::core::refusal::{Code, Refusal};
use crate::files::Files;
use crate::worker::Delivery;
use player::Player;

/// What a process says that may wait for its task. Full: the process waits.
const DELIVERIES_DEPTH: usize = 256;
/// Of what a room lets through of one picture, a file that is copied may have so much: its rate goes up and
/// down.
const COPIED_SHARE_PERCENT: u64 = 80;

/// Handle of the node's feeds; cheap to clone.
#[derive(Clone)]
pub struct Feeds(Arc<Inner>);

struct Inner {
    play: config::Play,
    rtmp: config::Rtmp,
    video_bps_max: u64,
    control: Control,
    files: Files,
    /// This very binary; without it nothing is played.
    program: Option<PathBuf>,
    serials: AtomicU64,
    players: Mutex<BTreeMap<RoomName, Vec<Arc<Player>>>>,
    live: AtomicU32,
}

impl Feeds {
    pub fn new(config: &Config, control: Control, files: Files) -> Self {
        let program = std::env::current_exe().inspect_err(|error| {
            tracing::warn!(%error, "nothing can be played: this program does not know where it is");
        });
        Self(Arc::new(Inner {
            play: config.play.clone(),
            rtmp: config.rtmp.clone(),
            video_bps_max: config.limits.video_bps_max,
            control,
            files,
            program: program.ok(),
            serials: AtomicU64::new(0),
            players: Mutex::default(),
            live: AtomicU32::new(0),
        }))
    }
}

impl Inner {
    /// What is run for a feed.
    fn program(&self, is_wanted: bool, words: &str) -> Result<PathBuf, Refusal> {
        let program = self.program.clone().filter(|_| is_wanted);
        program.ok_or_else(|| Refusal::new(Code::Unavailable, words))
    }

    fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn players(&self) -> MutexGuard<'_, BTreeMap<RoomName, Vec<Arc<Player>>>> {
        // The map is whole between any two statements that change it.
        self.players.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self, live: bool) -> FeedSettings {
        FeedSettings {
            live,
            height_max: self.play.height_max,
            bitrate_bps: self.play.bitrate_bps,
            frames_per_second_max: self.play.frames_per_second_max,
            copied_bps_max: self.video_bps_max / 100 * COPIED_SHARE_PERCENT,
            cores_max: self.play.cores_max,
        }
    }
}

/// Where a process's deliveries go: to its task, in order.
fn deliveries() -> (impl Fn(Delivery<FromFeed>) -> BoxFuture<'static, ()>, mpsc::Receiver<Delivery<FromFeed>>)
{
    let (sender, receiver) = mpsc::channel(DELIVERIES_DEPTH);
    let deliver = move |delivery| {
        let sender = sender.clone();
        async move {
            // A task that is over needs nothing more.
            let _ = sender.send(delivery).await;
        }
        .boxed()
    };
    (deliver, receiver)
}
