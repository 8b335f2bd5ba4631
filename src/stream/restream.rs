//! Pushes of a room's programme to other services, by RTMP.
//!
//! Each has a process, a relay ([`super::relay`]) and a task that tries again when either ends. The key in a
//! push's address is shown and logged nowhere.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::{counter, gauge};
use rand::RngExt as _;
use serde::Serialize;
use tokio::sync::mpsc;

use super::relay::{Relay, RelayError, may_reach};
use super::wire::News;
use super::{Inner, Streams, bridge, idle};
use crate::control::{Wish, unix_ms};
use crate::core::ids::RoomName;
use crate::core::mix::MixPacket;
use crate::core::refusal::{Code, Refusal};
use crate::core::stream::retry::Retry;
use crate::core::stream::target::Target;
use crate::core::stream::{Push, PushState, Task};

/// A push as the API shows it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct RestreamState {
    pub id: String,
    /// Without the stream's key.
    pub url: String,
    pub state: PushState,
    /// Since when it is in this state, milliseconds since the Unix epoch.
    pub since_ms: u64,
    pub started_at_ms: u64,
    /// To the server, since it began.
    pub sent_bytes: u64,
    /// Times that it was tried again.
    pub retries: u32,
    /// Why it ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A push that was asked for.
pub struct Restream {
    serial: u64,
    target: Target,
    started_at_ms: u64,
    sent: AtomicU64,
    status: Mutex<Status>,
    task: Mutex<Option<tokio::task::AbortHandle>>,
}

struct Status {
    state: PushState,
    since_ms: u64,
    live_since: Option<Instant>,
    retries: u32,
    reason: Option<String>,
}

impl Restream {
    fn new(serial: u64, target: Target) -> Self {
        gauge!("antiphon_restreams", "state" => name(PushState::Connecting)).increment(1);
        let (state, since_ms, reason) = (PushState::Connecting, unix_ms(), None);
        let status = Status { state, since_ms, live_since: None, retries: 0, reason };
        let (sent, task) = (AtomicU64::new(0), Mutex::new(None));
        Self { serial, target, started_at_ms: since_ms, sent, status: Mutex::new(status), task }
    }

    pub fn state(&self) -> RestreamState {
        let status = self.status();
        RestreamState {
            id: self.serial.to_string(),
            url: self.target.shown(),
            state: status.state,
            since_ms: status.since_ms,
            started_at_ms: self.started_at_ms,
            sent_bytes: self.sent.load(Ordering::Relaxed),
            retries: status.retries,
            reason: status.reason.clone(),
        }
    }

    fn is_running(&self) -> bool {
        self.status().state != PushState::Failed
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: PushState, reason: Option<String>) {
        let mut status = self.status();
        gauge!("antiphon_restreams", "state" => name(status.state)).decrement(1);
        gauge!("antiphon_restreams", "state" => name(state)).increment(1);
        status.live_since = (state == PushState::Live).then(Instant::now);
        status.retries += u32::from(state == PushState::Retrying);
        (status.state, status.since_ms) = (state, unix_ms());
        if reason.is_some() {
            status.reason = reason;
        }
    }
}

impl Drop for Restream {
    fn drop(&mut self) {
        gauge!("antiphon_restreams", "state" => name(self.status().state)).decrement(1);
        counter!("antiphon_restreams_sent_bytes_total").increment(self.sent.load(Ordering::Relaxed));
    }
}

impl Streams {
    /// Pushes a room's programme to an address.
    ///
    /// # Errors
    /// `malformed`, `forbidden` for an address in a private network, `unavailable` where it is off or the
    /// room cannot be mixed, `quota_exceeded`, `node_full`, `not_found`, `end_to_end_encrypted`.
    pub async fn push(&self, room: &RoomName, url: &str) -> Result<RestreamState, Refusal> {
        let inner = &self.0;
        let target = Target::parse(url)?;
        let program = inner.program()?;
        match may_reach(&target, inner.settings.private_targets).await {
            Err(RelayError::Private) => {
                let words = "the server's address is private, and this node pushes to public ones alone";
                return Err(Refusal::new(Code::Forbidden, words));
            }
            // A name that is not known yet is tried again.
            _ => inner.admit_push(room)?,
        }
        let serial = inner.next_serial();
        let packets = inner.control.open_stream(room, serial, false).await?;
        let restream = Arc::new(Restream::new(serial, target));
        {
            let mut restreams = inner.restreams();
            restreams.entry(room.clone()).or_default().push(Arc::clone(&restream));
        }
        let run = run(Arc::clone(inner), program, room.clone(), Arc::clone(&restream), packets);
        let task = tokio::spawn(run).abort_handle();
        *restream.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        inner.control.wish(room, Wish::Restream(restream.target.whole(), true));
        tracing::info!(room = %room, stream = serial, "restream began");
        Ok(restream.state())
    }

    /// A room's pushes, in the order in which they began.
    pub fn pushes(&self, room: &RoomName) -> Vec<RestreamState> {
        let restreams = self.0.restreams();
        restreams.get(room).into_iter().flatten().map(|restream| restream.state()).collect()
    }

    /// Ends a push, and forgets it.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn end_push(&self, room: &RoomName, id: &str) -> Result<(), Refusal> {
        let restream = self.0.forget_push(room, |restream| restream.serial.to_string() == id);
        let restream =
            restream.ok_or_else(|| Refusal::new(Code::NotFound, "the room has no such restream"))?;
        if let Some(task) = &*restream.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
        self.0.control.wish(room, Wish::Restream(restream.target.whole(), false));
        // A room that is gone has no streams.
        let _ = self.0.control.close_stream(room, restream.serial).await;
        tracing::info!(room = %room, stream = restream.serial, "restream ended");
        Ok(())
    }
}

impl Inner {
    fn admit_push(&self, room: &RoomName) -> Result<(), Refusal> {
        let restreams = self.restreams();
        let of_room = restreams.get(room).map_or(0, Vec::len);
        if of_room >= self.settings.restreams_per_room_max as usize {
            let words = format!("the room has {of_room} restreams, which is its limit: end one of them");
            return Err(Refusal::new(Code::QuotaExceeded, words));
        }
        let running = restreams.values().flatten().filter(|restream| restream.is_running()).count();
        if running >= self.settings.restreams_max as usize {
            return Err(Refusal::new(Code::NodeFull, "this node has no room for one more restream"));
        }
        Ok(())
    }

    /// Takes a push out of the list.
    fn forget_push(&self, room: &RoomName, is_it: impl Fn(&Restream) -> bool) -> Option<Arc<Restream>> {
        let mut restreams = self.restreams();
        let of_room = restreams.get_mut(room)?;
        let found = of_room.iter().position(|restream| is_it(restream)).map(|at| of_room.remove(at));
        if of_room.is_empty() {
            restreams.remove(room);
        }
        found
    }
}

/// Pushes until the room is gone or the server does not want it.
async fn run(
    inner: Arc<Inner>,
    program: PathBuf,
    room: RoomName,
    restream: Arc<Restream>,
    mut packets: mpsc::Receiver<MixPacket>,
) {
    let (mut retry, serial) = (Retry::default(), restream.serial);
    loop {
        restream.set(PushState::Connecting, None);
        let Some(reason) = attempt(&inner, &program, &room, &restream, &mut packets).await else { break };
        counter!("antiphon_restreams_failures_total").increment(1);
        tracing::warn!(room = %room, stream = serial, reason, "a restream failed");
        let lived = restream.status().live_since.map(|since| since.elapsed());
        let Some(wait) = retry.next(lived, rand::rng().random()) else {
            restream.set(PushState::Failed, Some(reason));
            tracing::warn!(room = %room, stream = serial, "a restream is given up");
            // A room that is gone has no streams.
            let _ = inner.control.close_stream(&room, serial).await;
            // It is shown until somebody ends it, or the room does.
            while packets.recv().await.is_some() {}
            return;
        };
        restream.set(PushState::Retrying, Some(reason));
        if !idle(&mut packets, wait).await {
            break;
        }
    }
    inner.forget_push(&room, |other| other.serial == serial);
}

/// One publication. Gives why it ended; `None` when the room is gone.
async fn attempt(
    inner: &Inner,
    program: &std::path::Path,
    room: &RoomName,
    restream: &Restream,
    packets: &mut mpsc::Receiver<MixPacket>,
) -> Option<String> {
    let relay = match Relay::open().await {
        Ok(relay) => relay,
        Err(error) => return Some(error.to_string()),
    };
    let target = &restream.target;
    let push = Push {
        port: relay.port,
        tc_url: target.tc_url(),
        app: target.app.clone(),
        play_path: target.key().to_owned(),
    };
    let take = |news| match news {
        News::Keyframe(track) => inner.control.ask_for_stream_keyframe(room, track),
        News::Pushing => restream.set(PushState::Live, None),
        News::Init(..) | News::Part(..) => {}
    };
    let task = Task::Push(push);
    tokio::select! {
        ended = relay.run(target, inner.settings.private_targets, &restream.sent) => {
            Some(ended.to_string())
        }
        ended = bridge::run(program, &task, packets, take) => {
            // The process says nothing that is of use to an owner.
            ended.err().map(|_| "the server did not take the publication, or ended it".to_owned())
        }
    }
}

fn name(state: PushState) -> &'static str {
    match state {
        PushState::Connecting => "connecting",
        PushState::Live => "live",
        PushState::Retrying => "retrying",
        PushState::Failed => "failed",
    }
}
