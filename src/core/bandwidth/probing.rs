//! When to probe and how fast.
//!
//! A sender of fixed layers learns nothing above what it sends, so steps up are tried out with padding: at
//! the start, for the next layer that waits, and back after a fall; twice the estimate each time it worked,
//! ever later where it did not. Never above what would serve every wish.

use std::time::{Duration, Instant};

use super::PacketReport;
use super::Probe;
use super::cluster::{Cluster, Outcome};

/// First probe, in shares of the initial estimate; the second is twice that.
const INITIAL_FACTOR: f64 = 3.0;
/// More than what is wished for, so that the estimate passes the head room that the allocation wants.
const BEYOND: f64 = 1.25;
/// An estimate of this share of the aim needs no probe.
const ENOUGH: f64 = 0.93;
/// A probe with this share of its rate has worked.
const WORKED: f64 = 0.7;
/// A probe that raises the estimate by less ends the doubling.
const RAISED: f64 = 1.1;
const BACK_OFF_FIRST: Duration = Duration::from_secs(2);
const BACK_OFF_MAX: Duration = Duration::from_secs(15);
/// Wait after the first probe of which feedback told too little; doubles while that goes on, as with a peer
/// that cannot be sent padding.
const UNTOLD_WAIT: Duration = Duration::from_millis(500);
/// Longest wait while the path is known to have carried more.
const BACK_OFF_FALLEN_MAX: Duration = Duration::from_secs(6);
/// For so long after a fall.
const FALLEN_FOR: Duration = Duration::from_secs(300);
/// The path must have been calm for so long after a fall.
const CALM_FOR: Duration = Duration::from_millis(1_000);
const CALM_FOR_MAX: Duration = Duration::from_secs(8);
/// Falls closer together are one.
const FALL_GAP: Duration = Duration::from_secs(3);
/// And those closer than this make the next probe wait longer.
const FALL_SOON: Duration = Duration::from_secs(20);
/// The queue may hold a probe for so long after its result.
const FELT_FOR: Duration = Duration::from_millis(1_000);
/// Doubling, and the step where that has failed: a probe far above the path fills its queue.
const DOUBLE: f64 = 2.0;
const CAREFUL: f64 = 1.5;
/// Share of what flows that probes may cost which fail again and again.
const COST: f64 = 0.05;
/// Share of what flows that is taken to go on beside a probe and to be part of its rate.
const BESIDE: f64 = 0.5;
/// Length of a probe on a path without jitter and with much.
const LENGTH_MIN: Duration = Duration::from_millis(40);
const LENGTH_MAX: Duration = Duration::from_millis(200);
/// Noise of the delay that asks for the longest probe, in microseconds.
const NOISE_MAX_US: f64 = 8_000.0;
const BYTES_MIN: f64 = 1_500.0;
const BYTES_MAX: f64 = 60_000.0;

/// See the module.
#[derive(Debug)]
pub struct Probing {
    next_bps: f64,
    desired_bps: f64,
    begun: bool,
    /// Follows at once: the last one worked, or the path is back.
    follow_up_bps: Option<f64>,
    active: Option<Cluster>,
    ended_at: Option<Instant>,
    next_id: u32,
    back_off: Duration,
    untold_wait: Duration,
    not_before: Option<Instant>,
    /// Rate that failed last; lower ones need not wait as long.
    failed_bps: f64,
    fallen_at: Option<Instant>,
    calm_for: Duration,
    /// Last time the queue was not empty.
    uneasy_at: Option<Instant>,
}

impl Probing {
    pub fn new() -> Self {
        Self {
            next_bps: 0.0,
            desired_bps: 0.0,
            begun: false,
            follow_up_bps: None,
            active: None,
            ended_at: None,
            next_id: 0,
            back_off: Duration::ZERO,
            untold_wait: UNTOLD_WAIT,
            not_before: None,
            failed_bps: f64::INFINITY,
            fallen_at: None,
            calm_for: Duration::ZERO,
            uneasy_at: None,
        }
    }

    pub fn set_goal(&mut self, next_bps: u64, desired_bps: u64) {
        self.next_bps = next_bps as f64;
        self.desired_bps = desired_bps.max(next_bps) as f64;
    }

    /// The queue is filled.
    pub fn handle_unease(&mut self, now: Instant) {
        self.uneasy_at = Some(now);
    }

    /// The estimate fell, much.
    pub fn handle_fall(&mut self, now: Instant) {
        let since = self.fallen_at.map(|at| now.saturating_duration_since(at));
        if since.is_none_or(|since| since > FALL_GAP) {
            self.calm_for = match since {
                Some(since) if since < FALL_SOON => (self.calm_for * 2).min(CALM_FOR_MAX),
                _ => CALM_FOR,
            };
            // A probe that made the queue grow has failed, too.
            if self.is_felt(now) {
                self.not_before = self.not_before.map(|at| at.min(now + BACK_OFF_FALLEN_MAX));
            } else {
                self.forget_failure();
            }
        }
        self.fallen_at = Some(now);
        self.follow_up_bps = None;
    }

    fn forget_failure(&mut self) {
        self.back_off = Duration::ZERO;
        self.not_before = None;
        self.failed_bps = f64::INFINITY;
    }

    /// Feedback came back after a silence in which the estimate fell from `former_bps`.
    pub fn handle_return(&mut self, former_bps: f64) {
        self.follow_up_bps = Some(former_bps);
        self.not_before = None;
        self.calm_for = Duration::ZERO;
    }

    pub fn handle_report(&mut self, report: &PacketReport) {
        if let Some(cluster) = &mut self.active {
            cluster.push(report);
        }
    }

    /// What came of the probe under way, once that is known.
    pub fn poll_outcome(&mut self, now: Instant, inherent_loss: f64) -> Option<Outcome> {
        let outcome = self.active.as_ref()?.outcome(now, inherent_loss)?;
        self.active = None;
        self.ended_at = Some(now);
        Some(outcome)
    }

    /// Plans what follows, the estimate having gone from one to the other by the outcome.
    /// `flowing_bps`: what arrives in all.
    pub fn handle_outcome(
        &mut self,
        now: Instant,
        outcome: &Outcome,
        (before_bps, after_bps): (f64, f64),
        flowing_bps: f64,
    ) {
        if outcome.told {
            self.untold_wait = UNTOLD_WAIT;
        }
        let worked = outcome.result_bps.is_some_and(|result| result > WORKED * outcome.probe_bps);
        if worked && after_bps > before_bps * RAISED {
            if outcome.probe_bps >= WORKED * self.failed_bps {
                self.forget_failure();
            }
            self.follow_up_bps = Some(self.step() * after_bps);
            return;
        }
        if outcome.result_bps.is_none() && !outcome.told {
            self.not_before = Some(now + self.untold_wait);
            self.untold_wait = (self.untold_wait * 2).min(BACK_OFF_MAX);
            self.failed_bps = self.failed_bps.min(outcome.probe_bps);
            return;
        }
        let fallen = self.fallen_at.is_some_and(|at| now.saturating_duration_since(at) < FALLEN_FOR);
        let longest = if fallen { BACK_OFF_FALLEN_MAX } else { BACK_OFF_MAX };
        self.back_off = (self.back_off * 2).clamp(BACK_OFF_FIRST, longest);
        let again = self.back_off > BACK_OFF_FIRST;
        let cost_s = outcome.bits / (COST * flowing_bps).max(1.0);
        let affordable = Duration::from_secs_f64(cost_s.min(BACK_OFF_MAX.as_secs_f64()));
        self.not_before = Some(now + if again { self.back_off.max(affordable) } else { self.back_off });
        self.failed_bps = outcome.probe_bps;
    }

    /// By how much the next probe may exceed the estimate.
    fn step(&self) -> f64 {
        if self.next_bps * BEYOND >= WORKED * self.failed_bps { CAREFUL } else { DOUBLE }
    }

    /// Rate to probe at, whenever that may be.
    fn aim(&self, estimate_bps: f64) -> Option<f64> {
        let most = self.desired_bps * BEYOND;
        if estimate_bps >= ENOUGH * most {
            return None;
        }
        let next = self.next_bps * BEYOND;
        if let Some(rate) = self.follow_up_bps {
            return Some(rate.min(most)).filter(|rate| *rate > estimate_bps);
        }
        if !self.begun {
            return Some((INITIAL_FACTOR * estimate_bps).min(most));
        }
        let failed = next >= WORKED * self.failed_bps;
        let rate = if failed { next.min(self.step() * estimate_bps) } else { next };
        (estimate_bps < ENOUGH * next).then_some(rate)
    }

    /// When the next probe is due and its rate; `None` while there is nothing to find out.
    pub fn due(&self, estimate_bps: f64) -> Option<(Option<Instant>, f64)> {
        if self.active.is_some() {
            return None;
        }
        let rate = self.aim(estimate_bps)?;
        let calm_at = self.uneasy_at.map(|at| at + self.calm_for);
        let beyond = rate.max(self.next_bps * BEYOND) >= WORKED * self.failed_bps;
        Some((calm_at.max(self.not_before.filter(|_| beyond)), rate))
    }

    /// Whether [`Probing::start`] gives one now.
    pub fn is_due(&self, now: Instant, estimate_bps: f64) -> bool {
        self.due(estimate_bps).is_some_and(|(due, _)| due.is_none_or(|due| now >= due))
    }

    /// Whether a probe is under way, or was until a moment ago.
    pub fn is_felt(&self, now: Instant) -> bool {
        let ended = self.ended_at.is_some_and(|at| now.saturating_duration_since(at) < FELT_FOR);
        self.active.is_some() || ended
    }

    /// The probe under way must be given up then.
    pub fn ends_by(&self) -> Option<Instant> {
        self.active.as_ref().map(Cluster::ends_by)
    }

    /// The next probe, if it is due; from now on it is under way.
    pub fn start(&mut self, now: Instant, estimate_bps: f64, path: &Now) -> Option<Probe> {
        let (due, rate_bps) = self.due(estimate_bps)?;
        if due.is_some_and(|due| now < due) {
            return None;
        }
        self.begun = true;
        self.follow_up_bps = None;
        let more = (LENGTH_MAX - LENGTH_MIN).as_secs_f64() * (path.noise_us / NOISE_MAX_US).min(1.0);
        let length_s = LENGTH_MIN.as_secs_f64() + more;
        let padding_bps = (rate_bps - BESIDE * path.flowing_bps).max(rate_bps / 2.0);
        let bytes = (padding_bps * length_s / 8.0).clamp(BYTES_MIN, BYTES_MAX);
        let probe = Probe { id: self.next_id, rate_bps: padding_bps as u64, bytes: bytes as u32 };
        self.next_id = self.next_id.wrapping_add(1);
        self.active = Some(Cluster::new(now, probe, rate_bps, path.rtt));
        Some(probe)
    }
}

/// What the path is like when a probe begins.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub noise_us: f64,
    pub flowing_bps: f64,
    pub rtt: Duration,
}
