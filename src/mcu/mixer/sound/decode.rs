//! One slot's decoder: RTP goes in as it comes, blocks come out with the ticks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer_app::AppSinkCallbacks;

use super::queue::{Frame, VoiceQueue};
use super::sum::{Block, CHANNELS, FRAMES};
use crate::core::mix::MixPacket;
use crate::mcu::graph::{Graph, GraphError, Stage};

/// What a missing packet is waited for before it is concealed. Less than the queue holds behind it, so that
/// nothing runs dry meanwhile.
const LATENCY_MS: u32 = 30;
/// As in the graph's capabilities; any would do.
const PAYLOAD_TYPE: u8 = 96;
/// A sequence number this far from the one before is another stream's.
const SEQ_NO_JUMP: u64 = 500;
const BYTES_PER_SAMPLE: usize = 2;
/// What sound is delayed by beside its queue: a packet is decoded when the next one is there, and the encoder
/// looks ahead (6.5 ms). The queue's depth before a pull is half a block more than what sound waits in it.
const FIXED_DELAY: usize = FRAMES + 312 - FRAMES / 2;

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Decoder {
    graph: Graph,
    queue: Arc<Mutex<VoiceQueue>>,
    has_failed: Arc<AtomicBool>,
    seq_no: u64,
}

impl Decoder {
    /// For a stream that begins with this packet, which is still to be fed.
    ///
    /// # Errors
    /// [`GraphError`]: GStreamer's elements for Opus are missing.
    pub fn start(first: &MixPacket) -> Result<Self, GraphError> {
        let graph = Graph::start(Stage::DecodeOpus, &[("latency_ms", &LATENCY_MS)])?;
        let queue = Arc::new(Mutex::new(VoiceQueue::default()));
        let filled = queue.clone();
        let new_sample = move |sink: &gstreamer_app::AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let bytes = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
            let bytes = bytes.ok_or(gst::FlowError::Error)?;
            let (samples, _) = bytes.as_chunks::<BYTES_PER_SAMPLE>();
            let frames = samples.as_chunks::<CHANNELS>().0.iter();
            let frames: Vec<Frame> = frames.map(|frame| frame.map(i16::from_le_bytes)).collect();
            filled.lock().unwrap_or_else(PoisonError::into_inner).push(&frames);
            Ok(gst::FlowSuccess::Ok)
        };
        graph.output.set_callbacks(AppSinkCallbacks::builder().new_sample(new_sample).build());
        let has_failed = super::watch(&graph);
        Ok(Self { graph, queue, has_failed, seq_no: first.seq_no })
    }

    /// Whether a packet is of the stream that this decodes, and this still does.
    pub fn takes(&self, packet: &MixPacket) -> bool {
        let follows = self.seq_no.abs_diff(packet.seq_no) < SEQ_NO_JUMP;
        follows && !self.has_failed.load(Ordering::Relaxed)
    }

    /// Never blocks: the graph's `appsrc` drops its oldest when full, which says that it is stuck.
    pub fn feed(&mut self, packet: &MixPacket) {
        self.seq_no = packet.seq_no;
        // It fails only when the graph did, which `takes` tells.
        let _ = self.graph.input.push_buffer(gst::Buffer::from_slice(rtp(packet)));
    }

    /// Ends it without waiting for that.
    pub fn put_away(self) {
        self.graph.put_away();
    }

    /// Plays it so many frames later than it would be.
    pub fn hold(&self, frames: usize) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).hold(frames);
    }

    /// Frames that it takes, now and were nothing held; `None` while nothing is played.
    pub fn delay(&self) -> Option<(usize, usize)> {
        let delay = self.queue.lock().unwrap_or_else(PoisonError::into_inner).delay()?;
        Some((delay.0 + FIXED_DELAY, delay.1 + FIXED_DELAY))
    }

    /// Drops what waits to be pulled.
    pub fn forget(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        *queue = VoiceQueue::default();
    }

    /// The next 20 ms; false where there is nothing to be heard.
    pub fn pull(&self, block: &mut Block) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pull(block)
    }
}

/// The packet as on the wire (RFC 3550 §5.1).
pub fn rtp(packet: &MixPacket) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + packet.payload.len());
    bytes.extend([0x80, PAYLOAD_TYPE | u8::from(packet.marker) << 7]);
    bytes.extend((packet.seq_no as u16).to_be_bytes());
    bytes.extend(packet.rtp_time.to_be_bytes());
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend(&packet.payload[..]);
    bytes
}
