//! Mixed sound: the voices of a room, 20 ms at a time, for each listener without the listener's own.
//!
//! One thread keeps the ticks; each decoder and encoder has GStreamer's own beside it. Nothing here blocks
//! its callers. Ticks are counted from one moment of a monotone clock, so that they do not drift.

mod decode;
mod desk;
mod encode;
mod queue;
mod sum;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use self::desk::{Desk, Orders};
use self::sum::SAMPLES_PER_SECOND;
use super::clock::Clock;
use super::step::SoundDelay;
use crate::core::mix::{MixPacket, Voice};
use crate::mcu::graph::{self, Graph, GraphError};

const TICK: Duration = Duration::from_millis(20);
/// After a stall so many ticks are made up for at once; those before are skipped.
const CATCH_UP_TICKS: u64 = 4;
/// Between two looks at how long sound takes: 100 ms.
const DELAYS_TICKS: u64 = 5;
/// Packets on their way to the thread: 100 ms of a hundred people. A new one is dropped when full.
const PACKETS_MAX: usize = 512;

/// Mixes until it is dropped.
pub struct Sound {
    /// `None` while it is dropped, which ends the thread.
    packets: Option<SyncSender<MixPacket>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Held for no longer than a pointer takes to copy.
    orders: Mutex<Arc<Orders>>,
    /// Frames that each slot's sound takes, now and were nothing held.
    delays: Mutex<BTreeMap<u16, (usize, usize)>>,
    ticks: AtomicU32,
}

impl Shared {
    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(Arc::make_mut(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner)));
    }
}

impl Sound {
    /// `emit` gets each packet of each line that is wanted, on threads of GStreamer's, and must not block.
    ///
    /// # Errors
    /// [`GraphError`]: GStreamer does not start, or no thread can be had.
    pub fn start(clock: Clock, emit: impl Fn(MixPacket) + Send + Sync + 'static) -> Result<Self, GraphError> {
        graph::start()?;
        let shared = Arc::new(Shared::default());
        let (packets, incoming) = sync_channel(PACKETS_MAX);
        let desk = Desk::new(clock, Arc::new(emit));
        let seen = shared.clone();
        let thread = std::thread::Builder::new()
            .name("sound".into())
            .spawn(move || run(clock.epoch, desk, &incoming, &seen))
            .map_err(GraphError::NoThread)?;
        Ok(Self { packets: Some(packets), thread: Some(thread), shared })
    }

    /// Takes an Opus packet of a slot; others are passed over.
    pub fn handle_packet(&self, packet: MixPacket) {
        if let Some(packets) = &self.packets {
            // Full: the thread is behind, and what is late is of no use to it.
            let _ = packets.try_send(packet);
        }
    }

    /// Who is heard from now on, in place of those before.
    pub fn set_voices(&self, voices: &[Voice]) {
        self.shared.order(|orders| orders.voices = voices.to_vec());
    }

    /// Whether anybody takes a line; none is at first.
    pub fn set_wanted(&self, line: u8, wanted: bool) {
        self.shared.order(|orders| {
            if wanted {
                orders.wanted.insert(line);
            } else {
                orders.wanted.remove(&line);
            }
        });
    }

    /// How long a slot's sound takes from its packets to those of the mix; `None` where there is none.
    pub fn delay(&self, slot: u16) -> Option<SoundDelay> {
        let delays = self.shared.delays.lock().unwrap_or_else(PoisonError::into_inner);
        let &(now, unheld) = delays.get(&slot)?;
        let span = |frames: usize| Duration::from_secs(frames as u64) / SAMPLES_PER_SECOND;
        Some(SoundDelay { now: span(now), unheld: span(unheld) })
    }

    /// How much later slots are to be than they would be, in place of what was said before.
    pub fn set_holds(&self, holds: impl Iterator<Item = (u16, Duration)>) {
        let frames = |hold: Duration| (hold.as_micros() as usize) * SAMPLES_PER_SECOND as usize / 1_000_000;
        let holds: BTreeMap<u16, usize> = holds.map(|(slot, hold)| (slot, frames(hold))).collect();
        self.shared.order(|orders| orders.holds = holds);
    }

    /// Ticks mixed since this was last asked.
    pub fn take_ticks(&self) -> u32 {
        self.shared.ticks.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Sound {
    fn drop(&mut self) {
        self.packets = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// Mixes with the clock and decodes meanwhile, until nobody can send packets any more.
fn run(epoch: Instant, mut desk: Desk, packets: &Receiver<MixPacket>, shared: &Shared) {
    let mut tick = 1;
    loop {
        let due = Duration::from_nanos(TICK.as_nanos() as u64 * tick);
        match due.checked_sub(epoch.elapsed()) {
            Some(wait) if !wait.is_zero() => match packets.recv_timeout(wait) {
                Ok(packet) => desk.take(&packet),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            },
            _ => {
                let now = (epoch.elapsed().as_nanos() / TICK.as_nanos()) as u64;
                tick = tick.max(now.saturating_sub(CATCH_UP_TICKS));
                let orders = shared.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
                desk.mix(tick, &orders);
                shared.ticks.fetch_add(1, Ordering::Relaxed);
                if tick.is_multiple_of(DELAYS_TICKS) {
                    *shared.delays.lock().unwrap_or_else(PoisonError::into_inner) = desk.delays();
                }
                tick += 1;
            }
        }
    }
}

/// Tells when a graph has failed; the reason goes to the log. What it says besides is dropped: nobody reads
/// it, and its bus would keep it.
fn watch(graph: &Graph) -> Arc<AtomicBool> {
    let has_failed = Arc::new(AtomicBool::new(false));
    let failed = has_failed.clone();
    if let Some(bus) = graph.pipeline.bus() {
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                let first = !failed.swap(true, Ordering::Relaxed);
                if first {
                    tracing::warn!(error = %error.error(), "a graph for sound has failed");
                }
            }
            gst::BusSyncReply::Drop
        });
    }
    has_failed
}

#[cfg(test)]
mod tests;
