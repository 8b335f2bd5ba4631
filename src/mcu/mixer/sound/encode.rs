//! One encoder of mixed sound. Blocks go in with the ticks, packets come out on the graph's own thread, each
//! for the lines that were to take it.
//!
//! A packet's block is known by its presentation time, so one that is lost in between moves no other. Times
//! have no gaps where the encoder pauses, since `opusenc` would go on with the old ones for a packet.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer_app::AppSinkCallbacks;

use super::TICK;
use super::sum::{FRAMES, Limiter, Sum};
use crate::core::mix::{MixPacket, Place};
use crate::core::payload::Codec;
use crate::mcu::graph::{Graph, GraphError, Stage};
use crate::mcu::mixer::clock::Clock;

const BITRATE_BPS: u32 = 64_000;
const BLOCK: gst::ClockTime = gst::ClockTime::from_mseconds(20);
/// Blocks whose packets are waited for. The oldest is given up: it has been lost.
const PENDING_MAX: usize = 50;

/// Takes packets, on any thread; must not block.
pub type Emit = Arc<dyn Fn(MixPacket) + Send + Sync>;

/// A line and the sequence number that its packet gets.
pub type Taker = (u8, u64);

/// Who takes the packet of a block.
#[derive(Debug)]
struct Pending {
    block: u64,
    tick: u64,
    takers: Vec<Taker>,
}

/// Runs until it is dropped.
pub struct Encoder {
    graph: Graph,
    limiter: Limiter,
    /// Blocks encoded so far.
    blocks: u64,
    pending: Arc<Mutex<VecDeque<Pending>>>,
    has_failed: Arc<AtomicBool>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("graph", &self.graph).finish_non_exhaustive()
    }
}

impl Encoder {
    /// # Errors
    /// [`GraphError`]: GStreamer's elements for Opus are missing.
    pub fn start(clock: Clock, emit: Emit) -> Result<Self, GraphError> {
        let graph = Graph::start(Stage::EncodeOpus, &[("bitrate_bps", &BITRATE_BPS)])?;
        let pending = Arc::new(Mutex::new(VecDeque::new()));
        let waiting = pending.clone();
        let new_sample = move |sink: &gstreamer_app::AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
            let bytes = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            // The nearest block: the encoder may shift its times by the few milliseconds that it looks ahead.
            let time = buffer.pts().unwrap_or_default() + BLOCK / 2;
            let block = time.nseconds() / BLOCK.nseconds();
            let of = take(&mut waiting.lock().unwrap_or_else(PoisonError::into_inner), block);
            if let Some(Pending { tick, takers, .. }) = of {
                let payload: Arc<[u8]> = Arc::from(bytes.as_slice());
                let captured_us = clock.captured_us(TICK.saturating_mul(tick as u32));
                takers.into_iter().for_each(|taker| {
                    emit(MixPacket { captured_us, ..packet(taker, tick, payload.clone()) });
                });
            }
            Ok(gst::FlowSuccess::Ok)
        };
        graph.output.set_callbacks(AppSinkCallbacks::builder().new_sample(new_sample).build());
        let has_failed = super::watch(&graph);
        Ok(Self { graph, limiter: Limiter::default(), blocks: 0, pending, has_failed })
    }

    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Encodes the sound of a tick for these lines. Never blocks: the graph's `appsrc` drops its oldest when
    /// full, which says that it is stuck.
    pub fn encode(&mut self, tick: u64, sum: &Sum, takers: Vec<Taker>) {
        let block = self.limiter.limit(sum);
        let bytes: Vec<u8> = block.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(BLOCK * self.blocks);
            buffer.set_duration(BLOCK);
        }
        {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.len() >= PENDING_MAX {
                pending.pop_front();
            }
            pending.push_back(Pending { block: self.blocks, tick, takers });
        }
        self.blocks += 1;
        // It fails only when the graph did, which `has_failed` tells.
        let _ = self.graph.input.push_buffer(buffer);
    }
}

/// Who takes the packet of this block; those before it are forgotten, since packets come in order.
fn take(pending: &mut VecDeque<Pending>, block: u64) -> Option<Pending> {
    while pending.front()?.block < block {
        pending.pop_front();
    }
    if pending.front()?.block == block { pending.pop_front() } else { None }
}

/// A line's packet: sound has no marker where silence is sent too (RFC 7587 §4.2).
fn packet((line, seq_no): Taker, tick: u64, payload: Arc<[u8]>) -> MixPacket {
    let rtp_time = tick.wrapping_mul(FRAMES as u64) as u32;
    let place = Place::Line { line, encoding: 0 };
    MixPacket { place, codec: Codec::Opus, seq_no, rtp_time, captured_us: None, marker: false, payload }
}
