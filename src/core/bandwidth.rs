//! Bandwidth estimation: what the network carries from this server towards one subscriber.
//!
//! Sender-side congestion control after draft-ietf-rmcat-gcc-02, fed by transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01) and shaped for a forwarding server, which sends in
//! steps (layers), mostly less than the path carries, and unpaced: the publisher has paced already. So
//!
//! - delay is judged by its least value in each short while ([`queue`]);
//! - a growing or overflowing queue takes the estimate at once to 0.85 of what arrives;
//! - the estimate grows by itself only up to 1.5 of what arrives, and by probes else ([`probing`]);
//! - loss counts only where it grows with the rate or comes with delay ([`loss`]);
//! - silence of the receiver halves it each half second.
//!
//! Pure: time is an argument. Whatever the reports say, the estimate stays within [`FLOOR_BPS`] and
//! [`CAP_BPS`], memory is bounded and nothing panics.
//!
//! Simpler than libwebrtc: no adaptive threshold of the gradient (noise widens ours), no fit of loss and
//! bandwidth by likelihood, no ALR detector, no share held against flows that fill every queue: beside one
//! of these the estimate gives way until the least delay of the last 10–20 s contains their queue. A delay
//! that swings slowly and widely by itself (tens of milliseconds within a second, as some mobile networks
//! have it) is taken for a queue, and as little is sent, 0.85 of what arrives may be less than the path
//! carries until a probe shows so. A peer with REMB alone is not probed: its estimate is what it says.

mod cluster;
mod delivery;
mod loss;
mod probing;
mod queue;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use cluster::Outcome;
use delivery::Delivery;
use loss::Loss;
use probing::Probing;
use queue::{Queue, Usage};

/// Least and greatest estimate.
pub const FLOOR_BPS: u64 = 30_000;
pub const CAP_BPS: u64 = 100_000_000;

/// Share of what arrives that is kept when the queue grows.
const DECREASE: f64 = 0.85;
/// While a probe is felt, only what would fall below this share of the estimate does.
const OF_PROBE: f64 = 0.6;
/// Time over which what arrives is measured: at least and at most while the queue grows, and while it does
/// not.
const DELIVERY_SHORT_US: (i64, i64) = (100_000, 300_000);
const DELIVERY_LONG_US: i64 = 1_000_000;
/// Growth by itself: up to so much of what arrives, and a bit.
const UNPROVEN: f64 = 1.5;
const UNPROVEN_BPS: f64 = 10_000.0;
/// Growth in a second, far from the last known limit.
const GROWTH: f64 = 0.08;
/// And near it: bits that are added for each response time, a packet.
const GROWTH_NEAR_BITS: f64 = 9_600.0;
const RESPONSE: Duration = Duration::from_millis(200);
/// Above this share of the limit the estimate is near it, and above that it does not grow unproven.
const NEAR: f64 = 0.7;
const BEYOND_LIMIT: f64 = 1.05;
/// A limit is known for so long.
const LIMIT_FOR: Duration = Duration::from_secs(30);
/// A fall below this share of the former estimate is a big one.
const BIG_FALL: f64 = 0.8;
/// Longest time without feedback that is no silence, and one halving.
const SILENCE: Duration = Duration::from_millis(500);
/// Longest time that is waited for a receiver which was late before.
const PATIENCE_MAX: Duration = Duration::from_millis(1_000);
/// Silence takes the estimate no lower.
const SILENCE_FLOOR_BPS: f64 = 50_000.0;
/// Least time between two timeouts.
const TIMEOUT_MIN: Duration = Duration::from_millis(25);
/// A rise of the estimate is told from this share on.
const TOLD: f64 = 0.02;
/// Round trip that is assumed while none is known, and longest that is believed.
const RTT_INITIAL: Duration = Duration::from_millis(100);
const RTT_MAX: Duration = Duration::from_secs(2);

/// One packet that the peer's transport-wide feedback speaks of, in order of sequence number. Times are within
/// 2^60 microseconds of zero, so that no difference of them overflows.
#[derive(Debug, Clone, Copy)]
pub struct PacketReport {
    /// By the sender's clock in microseconds, with an arbitrary zero.
    pub sent_us: i64,
    /// On the wire, with IP and UDP.
    pub bytes: u32,
    /// Likewise by the receiver's clock; `None` where it is lost so far. A packet told lost may be told again
    /// as arrived, in a later feedback.
    pub arrived_us: Option<i64>,
    /// The probe it belongs to.
    pub probe: Option<u32>,
}

/// Packets to send so that the path shows what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub id: u32,
    pub rate_bps: u64,
    /// To send in all, in at least five packets.
    pub bytes: u32,
}

/// See the module. One for each subscriber.
#[derive(Debug)]
pub struct Estimator {
    estimate_bps: f64,
    told_bps: u64,
    queue: Queue,
    delivery: Delivery,
    loss: Loss,
    probing: Probing,
    usage: Usage,
    /// What arrived when the queue last grew or a probe filled it, and when that was.
    limit: Option<(f64, Instant)>,
    remb_bps: Option<f64>,
    rtt: Duration,
    feedback_at: Option<Instant>,
    /// First packet sent since the last feedback.
    waiting_since: Option<Instant>,
    /// What the estimate was before the receiver fell silent, and when it was halved last.
    silent: Option<(f64, Instant)>,
    /// Silence that is waited for; longer than [`SILENCE`] with a receiver that has been late without harm.
    patience: Duration,
    timeout_at: Instant,
    /// Kept for its memory: arrivals of one feedback.
    arrivals: Vec<(i64, i64, u32)>,
}

impl Estimator {
    pub fn new(now: Instant, initial_bps: u64) -> Self {
        let initial_bps = initial_bps.clamp(FLOOR_BPS, CAP_BPS);
        Self {
            estimate_bps: initial_bps as f64,
            told_bps: initial_bps,
            queue: Queue::default(),
            delivery: Delivery::default(),
            loss: Loss::default(),
            probing: Probing::new(),
            usage: Usage::Calm,
            limit: None,
            remb_bps: None,
            rtt: RTT_INITIAL,
            feedback_at: None,
            waiting_since: None,
            silent: None,
            patience: SILENCE,
            timeout_at: now,
            arrivals: Vec::new(),
        }
    }

    /// `desired_bps`: what would serve every wish; it is worth probing up to a bit above it, never beyond.
    /// `next_bps`: what the next layer up would need, all in sum; 0 where none waits.
    pub fn set_goal(&mut self, _now: Instant, next_bps: u64, desired_bps: u64) {
        self.probing.set_goal(next_bps.min(CAP_BPS), desired_bps.min(CAP_BPS));
    }

    /// A packet left: media, resend or padding. To be called for each.
    pub fn handle_sent(&mut self, now: Instant, _bytes: u32) {
        if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
    }

    /// Feedback of transport-wide congestion control; `rtt` smoothed, where known.
    pub fn handle_feedback(&mut self, now: Instant, reports: &[PacketReport], rtt: Option<Duration>) {
        if reports.is_empty() {
            return;
        }
        self.rtt = rtt.unwrap_or(self.rtt).min(RTT_MAX);
        let elapsed = self.feedback_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.feedback_at = Some(now);
        self.waiting_since = None;
        self.read(reports);
        let losing = self.loss.is_losing();
        self.usage = self.queue.usage(losing);
        if self.usage != Usage::Calm {
            self.probing.handle_unease(now);
        }
        self.end_silence(elapsed, losing);
        match self.usage {
            Usage::Overuse => self.decrease(now),
            Usage::Raised => {}
            Usage::Calm => self.grow(now, elapsed),
        }
        if let Some(carried_bps) = self.loss.congestion() {
            self.fall_to(now, carried_bps);
        }
        self.conclude_probe(now);
    }

    /// Receiver-estimated maximum bitrate (draft-alvestrand-rmcat-remb-03): caps the estimate, and is the
    /// estimate where the peer gives no transport-wide feedback.
    pub fn handle_remb(&mut self, _now: Instant, bps: u64) {
        let bps = bps.clamp(FLOOR_BPS, CAP_BPS) as f64;
        self.remb_bps = Some(bps);
        if self.feedback_at.is_none() {
            self.estimate_bps = bps;
        }
    }

    /// To be called when [`Self::poll_timeout`] says so; harmless at other times.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.timeout_at = now;
        if let Some(due) = self.silence_due()
            && now >= due
        {
            let (former_bps, _) = *self.silent.get_or_insert((self.estimate_bps, now));
            self.silent = Some((former_bps, now));
            let halved_bps = (self.estimate_bps / 2.0).max(SILENCE_FLOOR_BPS);
            self.estimate_bps = self.estimate_bps.min(halved_bps);
        }
        self.conclude_probe(now);
    }

    /// When to call [`Self::handle_timeout`] next; at least 25 ms after the last time.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let probe_due = match self.probing.due(self.estimate_bps) {
            Some((due, _)) if self.may_probe() => due,
            _ => None,
        };
        let times = [self.silence_due(), self.probing.ends_by(), probe_due];
        times.into_iter().flatten().min().map(|due| due.max(self.timeout_at + TIMEOUT_MIN))
    }

    /// The estimate, if it has risen by about 2 % or fallen since it was last told.
    pub fn poll_estimate(&mut self) -> Option<u64> {
        let estimate = self.estimate_bps();
        let risen = estimate as f64 > self.told_bps as f64 * (1.0 + TOLD);
        if estimate >= self.told_bps && !risen {
            return None;
        }
        self.told_bps = estimate;
        Some(estimate)
    }

    /// Bits a second that the path is believed to carry, all headers included.
    pub fn estimate_bps(&self) -> u64 {
        let estimate_bps = self.remb_bps.map_or(self.estimate_bps, |remb| remb.min(self.estimate_bps));
        (estimate_bps as u64).clamp(FLOOR_BPS, CAP_BPS)
    }

    /// Whether [`Self::poll_probe`] gives one now. Cheap, as it is asked all the time.
    pub fn is_probe_due(&self, now: Instant) -> bool {
        self.may_probe() && self.probing.is_due(now, self.estimate_bps)
    }

    /// A probe to send now, spread by the caller at its rate, in bursts of a millisecond.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        if !self.is_probe_due(now) {
            return None;
        }
        let path = probing::Now {
            noise_us: self.queue.noise_us(),
            flowing_bps: self.delivery.rate_bps(DELIVERY_LONG_US).unwrap_or(0.0),
            rtt: self.rtt,
        };
        self.probing.start(now, self.estimate_bps, &path)
    }

    /// Share of packets lost in about the last second; `None` before any feedback.
    pub fn loss(&self) -> Option<f32> {
        self.loss.share()
    }

    fn may_probe(&self) -> bool {
        self.feedback_at.is_some() && self.silent.is_none() && self.usage == Usage::Calm
    }

    /// When the receiver's silence next counts.
    fn silence_due(&self) -> Option<Instant> {
        self.feedback_at?;
        let since = self.waiting_since?;
        let due = match self.silent {
            Some((_, halved_at)) => halved_at + SILENCE,
            None => since + self.patience + self.rtt,
        };
        (self.estimate_bps > SILENCE_FLOOR_BPS).then_some(due)
    }

    /// Sorts what the feedback says to where it counts.
    fn read(&mut self, reports: &[PacketReport]) {
        self.arrivals.clear();
        for report in reports {
            self.loss.push(report);
            self.probing.handle_report(report);
            if let Some(arrived_us) = report.arrived_us {
                self.arrivals.push((arrived_us, arrived_us - report.sent_us, report.bytes));
            }
        }
        self.loss.flush(self.usage == Usage::Calm);
        self.arrivals.sort_unstable_by_key(|&(arrived_us, ..)| arrived_us);
        for &(arrived_us, delay_us, bytes) in &self.arrivals {
            if self.queue.push(arrived_us, delay_us) {
                self.delivery.clear();
            }
            self.delivery.push(arrived_us, bytes);
        }
        self.queue.flush();
    }

    /// Feedback is back: where it tells that all went well, it was late and nothing else.
    fn end_silence(&mut self, silence: Duration, losing: bool) {
        let Some((former_bps, _)) = self.silent.take() else { return };
        if self.usage == Usage::Calm && !losing {
            self.estimate_bps = self.estimate_bps.max(former_bps);
            self.patience = (silence * 5 / 4).clamp(SILENCE, PATIENCE_MAX);
        } else {
            self.probing.handle_return(former_bps);
            self.patience = SILENCE;
        }
    }

    fn decrease(&mut self, now: Instant) {
        let window_us = self.queue.raised_for_us().clamp(DELIVERY_SHORT_US.0, DELIVERY_SHORT_US.1);
        let Some(delivered_bps) = self.delivery.rate_bps(window_us) else { return };
        let kept_bps = DECREASE * delivered_bps;
        // A probe fills the queue on purpose, and its result tells more.
        if self.probing.is_felt(now) && kept_bps > OF_PROBE * self.estimate_bps {
            return;
        }
        self.limit = Some((delivered_bps, now));
        self.fall_to(now, kept_bps);
    }

    fn fall_to(&mut self, now: Instant, bps: f64) {
        let former_bps = self.estimate_bps;
        self.estimate_bps = former_bps.min(bps).max(FLOOR_BPS as f64);
        if self.estimate_bps < former_bps {
            self.probing.handle_unease(now);
        }
        if self.estimate_bps < BIG_FALL * former_bps {
            self.probing.handle_fall(now);
        }
    }

    /// Growth by itself, `elapsed` after the last feedback.
    fn grow(&mut self, now: Instant, elapsed: Duration) {
        let Some(delivered_bps) = self.delivery.rate_bps(DELIVERY_LONG_US) else { return };
        let mut most_bps = (UNPROVEN * delivered_bps + UNPROVEN_BPS).min(CAP_BPS as f64);
        let elapsed_s = elapsed.as_secs_f64().min(1.0);
        let mut step_bps = self.estimate_bps * GROWTH * elapsed_s;
        self.limit = self.limit.filter(|(_, since)| now.saturating_duration_since(*since) < LIMIT_FOR);
        if let Some((limit_bps, _)) = self.limit {
            most_bps = most_bps.min(limit_bps.max(delivered_bps) * BEYOND_LIMIT);
            if self.estimate_bps > NEAR * limit_bps {
                let response_s = (self.rtt + RESPONSE).as_secs_f64();
                step_bps = step_bps.min(GROWTH_NEAR_BITS / response_s * elapsed_s);
            }
        }
        if self.estimate_bps < most_bps {
            self.estimate_bps = (self.estimate_bps + step_bps.max(0.0)).min(most_bps);
        }
    }

    /// Takes over what a probe has shown.
    fn conclude_probe(&mut self, now: Instant) {
        let Some(outcome) = self.probing.poll_outcome(now, self.loss.inherent()) else { return };
        let before_bps = self.estimate_bps;
        self.limit = match outcome.result_bps.filter(|bps| bps.is_finite()) {
            Some(result_bps) if outcome.saturated => Some((result_bps, now)),
            Some(result_bps) => self.limit.filter(|(limit_bps, _)| *limit_bps > result_bps),
            // Lost: the limit still holds.
            None => self.limit.map(|(limit_bps, _)| (limit_bps, now)),
        };
        let flowing_bps = self.delivery.rate_bps(DELIVERY_LONG_US).unwrap_or(0.0);
        if let Some(bps) = self.shown_by(&outcome) {
            self.estimate_bps = bps.clamp(FLOOR_BPS as f64, CAP_BPS as f64);
        }
        self.probing.handle_outcome(now, &outcome, (before_bps, self.estimate_bps), flowing_bps);
    }

    /// A probe raises the estimate; it lowers it, to no less than what flows, where the path gave less than
    /// was sent into it.
    fn shown_by(&mut self, outcome: &Outcome) -> Option<f64> {
        let result_bps = outcome.result_bps.filter(|bps| bps.is_finite())?;
        if result_bps >= self.estimate_bps {
            return (self.usage != Usage::Overuse).then_some(result_bps);
        }
        if !outcome.saturated {
            return None;
        }
        let delivered_bps = self.delivery.rate_bps(DELIVERY_LONG_US).unwrap_or(0.0);
        Some(result_bps.max(delivered_bps).min(self.estimate_bps))
    }
}
