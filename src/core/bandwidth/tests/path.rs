//! A path with a bottleneck, and a sender of layers that goes by the estimate.
//!
//! Time goes in steps of a millisecond. Whatever is random comes from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{Estimator, PacketReport, Probe};

/// Rates of the video layers and of audio, bits a second.
pub const LAYERS_BPS: [u64; 3] = [150_000, 500_000, 1_500_000];
pub const AUDIO_BPS: u64 = 32_000;
const FRAME_MS: u64 = 33;
const AUDIO_MS: u64 = 20;
const PACKET_BYTES: u32 = 1_200;
/// A key frame every so many frames, and at each change of layer, of so many times the usual size.
const KEY_FRAMES: u64 = 120;
const KEY_FACTOR: f64 = 4.0;
const HEADROOM: f64 = 1.12;
const HEADROOM_MS: u64 = 1_500;

/// What the path does to packets.
#[derive(Debug, Clone)]
pub struct Path {
    pub rate_bps: u64,
    /// Drop-tail: longest wait at the present rate.
    pub queue_ms: f64,
    /// Where set, the queue holds so many bytes instead.
    pub queue_bytes: Option<f64>,
    pub delay_ms: f64,
    /// Uniform, each packet on its own: they overtake each other.
    pub jitter_ms: f64,
    pub loss: f64,
    /// Share of packets that come 15 ms late.
    pub reordered: f64,
    /// The receiver stands still for so long every two seconds: nothing is read, no feedback sent.
    pub stall_ms: f64,
    pub feedback_ms: u64,
    pub feedback_loss: f64,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            rate_bps: 50_000_000,
            queue_ms: 300.0,
            queue_bytes: None,
            delay_ms: 25.0,
            jitter_ms: 1.0,
            loss: 0.0,
            reordered: 0.0,
            stall_ms: 0.0,
            feedback_ms: 70,
            feedback_loss: 0.0,
        }
    }
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    pub offered_bps: u64,
    pub probe_bps: u64,
    pub received_bps: u64,
    pub lost: u32,
    pub sent: u32,
    pub layer: usize,
    pub estimate_bps: u64,
    pub estimate_min_bps: u64,
    /// Longest wait in the queue.
    pub queue_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at_ms: u64,
    bytes: u32,
    probe: Option<u32>,
}

/// A sequence number and when it arrived, in milliseconds.
type Told = (usize, Option<f64>);

/// See the module.
pub struct Run {
    pub path: Path,
    pub estimator: Estimator,
    pub now_ms: u64,
    /// Estimate after each millisecond.
    pub estimates: Vec<u64>,
    pub layers: Vec<usize>,
    pub seconds: Vec<Second>,
    /// Highest layer the publisher has.
    pub layers_offered: usize,
    pub desired_bps: Option<u64>,
    start: Instant,
    /// Since when there has been room for each layer.
    room_since_ms: [u64; 3],
    rng: StdRng,
    layer: usize,
    frames_since_key: u64,
    free_at_ms: f64,
    sent: Vec<Sent>,
    /// Sequence numbers by time of arrival, in microseconds.
    in_flight: BTreeSet<(u64, usize)>,
    arrived: BTreeMap<usize, f64>,
    reported_to: usize,
    late: Vec<usize>,
    feedback_due_ms: u64,
    feedback: VecDeque<(f64, Vec<Told>)>,
    probe: Option<(Probe, u64, u32)>,
    this: Second,
}

impl Run {
    pub fn new(path: Path, initial_bps: u64, seed: u64) -> Self {
        let start = super::epoch();
        let layer =
            LAYERS_BPS.iter().rposition(|bps| (bps + AUDIO_BPS) as f64 * HEADROOM < initial_bps as f64);
        Self {
            path,
            estimator: Estimator::new(start, initial_bps),
            now_ms: 0,
            estimates: Vec::new(),
            layers: Vec::new(),
            seconds: Vec::new(),
            layers_offered: 2,
            desired_bps: None,
            start,
            room_since_ms: [0; 3],
            rng: StdRng::seed_from_u64(seed),
            layer: layer.unwrap_or(0),
            frames_since_key: 0,
            free_at_ms: 0.0,
            sent: Vec::new(),
            in_flight: BTreeSet::new(),
            arrived: BTreeMap::new(),
            reported_to: 0,
            late: Vec::new(),
            feedback_due_ms: 0,
            feedback: VecDeque::new(),
            probe: None,
            this: Second::default(),
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    /// Goes on for so many seconds.
    pub fn run(&mut self, seconds: u64) -> &mut Self {
        for _ in 0..seconds * 1_000 {
            self.step();
        }
        self
    }

    pub fn set_rate(&mut self, rate_bps: u64) {
        let backlog_ms = (self.free_at_ms - self.now_ms as f64).max(0.0);
        self.free_at_ms = self.now_ms as f64 + backlog_ms * self.path.rate_bps as f64 / rate_bps as f64;
        self.path.rate_bps = rate_bps;
    }

    fn step(&mut self) {
        self.receive();
        self.give_feedback();
        self.take_feedback();
        if self.estimator.poll_timeout().is_some_and(|due| due <= self.now()) {
            self.estimator.handle_timeout(self.now());
        }
        self.allocate();
        self.send_media();
        self.send_probe();
        self.account();
        self.now_ms += 1;
    }

    fn account(&mut self) {
        while self.estimator.poll_estimate().is_some() {}
        let estimate_bps = self.estimator.estimate_bps();
        self.estimates.push(estimate_bps);
        self.layers.push(self.layer);
        if self.now_ms.is_multiple_of(1_000) {
            self.this.estimate_min_bps = estimate_bps;
        }
        self.this.estimate_min_bps = self.this.estimate_min_bps.min(estimate_bps);
        if self.now_ms % 1_000 == 999 {
            self.this.layer = self.layer;
            self.this.estimate_bps = estimate_bps;
            self.seconds.push(std::mem::take(&mut self.this));
        }
    }

    fn allocate(&mut self) {
        let estimate_bps = self.estimator.estimate_bps();
        let costs = LAYERS_BPS.map(|bps| (bps + AUDIO_BPS) as f64);
        for (since_ms, cost) in self.room_since_ms.iter_mut().zip(costs) {
            if cost * HEADROOM > estimate_bps as f64 {
                *since_ms = self.now_ms;
            }
        }
        let fits = costs.iter().rposition(|cost| *cost <= estimate_bps as f64).unwrap_or(0);
        let lasting = self.room_since_ms.iter().rposition(|since| self.now_ms - since >= HEADROOM_MS);
        let layer = self.layer.max(lasting.unwrap_or(0)).min(fits).min(self.layers_offered);
        if layer != self.layer {
            self.layer = layer;
            self.frames_since_key = KEY_FRAMES;
        }
        let cost = |layer: usize| LAYERS_BPS.get(layer).map_or(0, |bps| bps + AUDIO_BPS);
        let next_bps = if self.layer < self.layers_offered { cost(self.layer + 1) } else { 0 };
        let desired_bps = self.desired_bps.unwrap_or(cost(self.layers_offered));
        self.estimator.set_goal(self.now(), next_bps, desired_bps);
    }

    fn send_media(&mut self) {
        if self.now_ms % AUDIO_MS == 7 {
            self.send((AUDIO_BPS * AUDIO_MS / 8_000) as u32, None);
        }
        if !self.now_ms.is_multiple_of(FRAME_MS) {
            return;
        }
        let even = LAYERS_BPS[self.layer] as f64 * FRAME_MS as f64 / 8_000.0;
        let usual = even * KEY_FRAMES as f64 / (KEY_FRAMES as f64 + KEY_FACTOR - 1.0);
        let factor = if self.frames_since_key >= KEY_FRAMES { KEY_FACTOR } else { 1.0 };
        self.frames_since_key = if factor > 1.0 { 1 } else { self.frames_since_key + 1 };
        let mut bytes = (usual * factor * self.rng.random_range(0.8..1.2)) as u32;
        while bytes > 0 {
            let packet = bytes.min(PACKET_BYTES);
            self.send(packet, None);
            bytes -= packet;
        }
    }

    fn send_probe(&mut self) {
        if self.probe.is_none() {
            let probe = self.estimator.poll_probe(self.now());
            self.probe = probe.map(|probe| (probe, self.now_ms, 0));
        }
        let Some((probe, since_ms, mut sent)) = self.probe else { return };
        let packet = (probe.bytes / 5).clamp(50, PACKET_BYTES);
        let due = (probe.rate_bps * (self.now_ms - since_ms + 1) / 8_000) as u32;
        while sent < probe.bytes && sent < due {
            self.send(packet, Some(probe.id));
            self.this.probe_bps += u64::from(packet) * 8;
            sent += packet;
        }
        self.probe = (sent < probe.bytes).then_some((probe, since_ms, sent));
    }

    fn send(&mut self, bytes: u32, probe: Option<u32>) {
        let seq = self.sent.len();
        self.sent.push(Sent { at_ms: self.now_ms, bytes, probe });
        self.estimator.handle_sent(self.now(), bytes);
        self.this.offered_bps += u64::from(bytes) * 8;
        self.this.sent += 1;
        let now_ms = self.now_ms as f64;
        let wait_ms = (self.free_at_ms - now_ms).max(0.0);
        let full = match self.path.queue_bytes {
            Some(most) => wait_ms * self.path.rate_bps as f64 / 8_000.0 > most,
            None => wait_ms > self.path.queue_ms,
        };
        if full || self.rng.random_bool(self.path.loss) {
            self.this.lost += 1;
            return;
        }
        self.this.queue_ms = self.this.queue_ms.max(wait_ms as u64);
        self.free_at_ms = now_ms + wait_ms + f64::from(bytes) * 8_000.0 / self.path.rate_bps as f64;
        let late_ms = if self.rng.random_bool(self.path.reordered) { 15.0 } else { 0.0 };
        let jitter_ms = self.rng.random_range(0.0..=self.path.jitter_ms.max(0.001));
        let at_ms = self.after_stall(self.free_at_ms + self.path.delay_ms + jitter_ms + late_ms);
        self.in_flight.insert(((at_ms * 1_000.0) as u64, seq));
    }

    fn after_stall(&self, at_ms: f64) -> f64 {
        let phase = at_ms % 2_000.0;
        if phase < self.path.stall_ms { at_ms - phase + self.path.stall_ms } else { at_ms }
    }

    fn receive(&mut self) {
        while let Some(&(at_us, seq)) = self.in_flight.first()
            && at_us <= self.now_ms * 1_000
        {
            self.in_flight.pop_first();
            if seq < self.reported_to {
                self.late.push(seq);
            }
            self.arrived.insert(seq, at_us as f64 / 1_000.0);
            self.this.received_bps += u64::from(self.sent[seq].bytes) * 8;
        }
    }

    fn give_feedback(&mut self) {
        if self.now_ms < self.feedback_due_ms || self.after_stall(self.now_ms as f64) > self.now_ms as f64 {
            return;
        }
        self.feedback_due_ms = self.now_ms + self.path.feedback_ms;
        let Some((&newest, _)) = self.arrived.last_key_value() else { return };
        let mut late = std::mem::take(&mut self.late);
        late.sort_unstable();
        let seqs = late.into_iter().chain(self.reported_to..newest + 1);
        let reports: Vec<Told> = seqs.map(|seq| (seq, self.arrived.get(&seq).copied())).collect();
        self.reported_to = self.reported_to.max(newest + 1);
        self.arrived = self.arrived.split_off(&newest);
        if !reports.is_empty() && !self.rng.random_bool(self.path.feedback_loss) {
            self.feedback.push_back((self.now_ms as f64 + self.path.delay_ms, reports));
        }
    }

    fn take_feedback(&mut self) {
        while self.feedback.front().is_some_and(|(at_ms, _)| *at_ms <= self.now_ms as f64)
            && let Some((_, feedback)) = self.feedback.pop_front()
        {
            let reports: Vec<PacketReport> = feedback
                .into_iter()
                .map(|(seq, arrived_ms)| {
                    let sent = self.sent[seq];
                    PacketReport {
                        sent_us: sent.at_ms as i64 * 1_000,
                        bytes: sent.bytes,
                        // Receivers tell times in steps of 250 microseconds.
                        arrived_us: arrived_ms.map(|at_ms| (at_ms * 4.0).round() as i64 * 250 + 77_000_000),
                        probe: sent.probe,
                    }
                })
                .collect();
            let rtt = Duration::from_secs_f64(self.path.delay_ms * 2.0 / 1_000.0);
            self.estimator.handle_feedback(self.now(), &reports, Some(rtt));
        }
    }

    /// Share of the time from then on in which the layer was at least this.
    pub fn share_at(&self, layer: usize, from_s: usize) -> f64 {
        let layers = &self.layers[from_s * 1_000..];
        layers.iter().filter(|at| **at >= layer).count() as f64 / layers.len() as f64
    }

    /// Share of what was sent from then on that was lost.
    pub fn lost(&self, from_s: usize) -> f64 {
        let sum = |of: fn(&Second) -> u32| self.seconds[from_s..].iter().map(of).sum::<u32>();
        f64::from(sum(|s| s.lost)) / f64::from(sum(|s| s.sent))
    }

    /// The run by seconds, for failures.
    pub fn table(&self) -> String {
        let mut text = String::from("   s layer offered   probe received  lost  queue  estimate (min)\n");
        for (second, s) in self.seconds.iter().enumerate() {
            text += &format!(
                "{second:4} {:5} {:6}k {:6}k  {:6}k {:4}% {:4}ms {:8}k {:6}k\n",
                s.layer,
                s.offered_bps / 1_000,
                s.probe_bps / 1_000,
                s.received_bps / 1_000,
                s.lost * 100 / s.sent.max(1),
                s.queue_ms,
                s.estimate_bps / 1_000,
                s.estimate_min_bps / 1_000
            );
        }
        text
    }
}
