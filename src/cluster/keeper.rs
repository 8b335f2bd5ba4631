//! The task that keeps this node's word: a sign of life and all its leases, each fifth of a lease's time.
//!
//! While the registry does not answer it alone goes on asking, at growing, jittered intervals; then it says
//! again what this node holds, unless somebody else has it by now.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::StreamExt as _;
use metrics::{counter, gauge};
use tokio::time::Instant;

use super::clock::cpu_time;
use super::{Cluster, LeaseError, LeaseNotice, Pulse, boot_time};
use crate::core::ids::RoomName;
use crate::core::placement::LeaseEvent;
use crate::mailbox::ControlSender;

/// Renewals on their way at a time.
const RENEWALS_AT_ONCE: usize = 128;

/// Processor time is looked at over so long: what a node does within less, such as to start, is no load.
const CPU_WINDOW_S: f64 = 1.0;

/// Keeps on until the control loop is gone.
pub(super) async fn run(cluster: Cluster, notices: ControlSender<LeaseNotice>) {
    tokio::select! {
        () = tell(&cluster, &notices) => {}
        () = beat(cluster.clone()) => {}
    }
}

async fn beat(cluster: Cluster) {
    let mut keeper = Keeper {
        cpu_used: cpu_time(),
        at: boot_time(),
        cpu_share: 0.0,
        away_since: None,
        logged_reachable: None,
        cluster,
    };
    let every = keeper.cluster.0.times.renew_every;
    let mut pauses: Option<ExponentialBackoff> = None;
    loop {
        let began = Instant::now();
        let beaten = keeper.beat().await;
        keeper.cluster.0.news.notify_one();
        let next = match beaten {
            Ok(()) => {
                pauses = None;
                began + every
            }
            Err(_) => {
                let pauses = pauses.get_or_insert_with(|| backoff(every));
                Instant::now() + pauses.next().unwrap_or(every)
            }
        };
        tokio::time::sleep_until(next).await;
    }
}

fn backoff(every: Duration) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(every / 4)
        .with_max_delay(every)
        .without_max_times()
        .with_jitter()
        .build()
}

struct Keeper {
    cluster: Cluster,
    /// Since when the registry, which has answered before, does not.
    away_since: Option<Duration>,
    /// Whether it answers, as it was last logged.
    logged_reachable: Option<bool>,
    /// Processor time that this process had used when it was last asked.
    cpu_used: Duration,
    at: Duration,
    /// Of the machine's processors that this process used, as far as it is known.
    cpu_share: f64,
}

impl Keeper {
    async fn beat(&mut self) -> Result<(), LeaseError> {
        let inner = &*self.cluster.0;
        if inner.superseded.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Before anything is waited for: a node that was frozen knows so at once.
        inner.state().holdings.handle_timeout(boot_time());
        self.measure();
        let inner = &*self.cluster.0;
        let result = match inner.leases.heartbeat(&inner.record()).await {
            Ok(Pulse::Nodes(nodes)) => {
                gauge!("antiphon_placement_nodes").set(nodes.len() as f64);
                inner.state().nodes = nodes;
                self.renew().await
            }
            Ok(Pulse::Superseded) => {
                tracing::error!(
                    node = %inner.id,
                    "a later start of this node is in the cluster: this one gives up its rooms; \
                     give each node its own cluster.node_id"
                );
                inner.superseded.store(true, Ordering::Relaxed);
                inner.state().holdings.handle_superseded();
                Ok(())
            }
            Err(error) => Err(error),
        };
        self.note_reach(result.as_ref().err());
        let inner = &*self.cluster.0;
        let mut state = inner.state();
        state.holdings.handle_timeout(boot_time());
        gauge!("antiphon_placement_leases").set(state.holdings.len() as f64);
        gauge!("antiphon_placement_leases_uncertain").set(state.holdings.uncertain() as f64);
        drop(state);
        gauge!("antiphon_placement_score").set(inner.score());
        result
    }

    /// Share of the machine's processors that this process took since the last time.
    fn measure(&mut self) {
        let (used, at) = (cpu_time(), boot_time());
        let passed = at.saturating_sub(self.at).as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        if passed >= CPU_WINDOW_S {
            self.cpu_share = used.saturating_sub(self.cpu_used).as_secs_f64() / passed / cores;
            (self.cpu_used, self.at) = (used, at);
        }
        let mut state = self.cluster.0.state();
        state.load.cpu = state.load.cpu.max(self.cpu_share);
    }

    async fn renew(&self) -> Result<(), LeaseError> {
        let inner = &*self.cluster.0;
        let held: Vec<(RoomName, u64, String)> = {
            let state = inner.state();
            let settings = |room: &RoomName| state.settings.get(room).cloned().unwrap_or_default();
            state.holdings.rooms().map(|(room, epoch)| (room.clone(), epoch, settings(room))).collect()
        };
        let mut renewals = futures_util::stream::iter(held)
            .map(|(room, epoch, settings)| async move {
                let sent = boot_time();
                let lease = inner.lease(room, epoch);
                let renewal = inner.leases.renew(&lease, &settings).await;
                (sent, lease, renewal)
            })
            .buffer_unordered(RENEWALS_AT_ONCE);
        while let Some((sent, lease, renewal)) = renewals.next().await {
            // After one that failed the others would only wait for the same.
            let renewal = renewal?;
            inner.state().holdings.handle_renewal(sent, &lease.room, lease.epoch, &renewal);
        }
        Ok(())
    }

    fn note_reach(&mut self, error: Option<&LeaseError>) {
        let now = boot_time();
        match (error, self.away_since) {
            // From the last answer on, which was a beat ago.
            (Some(_), None) if self.cluster.0.reachable.load(Ordering::Relaxed) => {
                self.away_since = Some(now.saturating_sub(self.cluster.0.times.renew_every));
            }
            (None, Some(since)) => {
                self.away_since = None;
                self.cluster.0.note_back(now, now.saturating_sub(since));
            }
            _ => {}
        }
        let is_reachable = error.is_none();
        self.cluster.0.reachable.store(is_reachable, Ordering::Relaxed);
        gauge!("antiphon_placement_reachable").set(f64::from(u8::from(is_reachable)));
        if self.logged_reachable.replace(is_reachable) == Some(is_reachable) {
            return;
        }
        match error {
            Some(error) => tracing::warn!(%error, "no new rooms until it answers; those of this node go on"),
            None => tracing::info!("the registry of rooms answers"),
        }
    }
}

/// Tells the control loop what becomes of its leases, as soon as it is known, whatever the registry does.
/// Ends when that is gone.
async fn tell(cluster: &Cluster, notices: &ControlSender<LeaseNotice>) {
    loop {
        let event = cluster.0.state().holdings.poll_event();
        match event {
            None => cluster.0.news.notified().await,
            Some(LeaseEvent::Lost { room, epoch }) => {
                counter!("antiphon_placement_lost_total").increment(1);
                tracing::warn!(room = %room, epoch, "another node has this room: it is dropped here");
                cluster.forget(&room);
                if notices.send_when_free(LeaseNotice::Lost { room, epoch }).await.is_err() {
                    return;
                }
            }
            Some(LeaseEvent::Uncertain(room)) => {
                tracing::debug!(room = %room, "the room's lease could not be renewed yet");
            }
            Some(LeaseEvent::Certain(room)) => {
                tracing::debug!(room = %room, "the room's lease is renewed again");
            }
        }
    }
}
