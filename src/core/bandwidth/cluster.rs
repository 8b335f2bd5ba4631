//! What one probe shows: the lower of the rates at which its packets were sent and came in.
//!
//! Both are slopes of a line through time and bytes, over all packets from the first of the probe to its
//! last, media between them too. A line is moved less by jitter than first and last packet are.

use std::time::{Duration, Instant};

use super::queue::slope;
use super::{PacketReport, Probe};

/// Packets without which there is no result.
const PACKETS_MIN: usize = 4;
/// Share of its packets that must have arrived, of those that would in calm times.
const ARRIVED_MIN: f64 = 0.8;
/// Share of its bytes that feedback must have told of, arrived or lost, for a probe to have failed.
const TOLD_MIN: f64 = 0.8;
/// Packets looked at; bounds the memory.
const PACKETS_MAX: usize = 1_024;
/// How long after its last packet was due the feedback of a probe may come, besides two round trips.
const PATIENCE: Duration = Duration::from_millis(700);
/// A probe is over with a packet sent so long after its last one.
const OVER_AFTER_US: i64 = 100_000;

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Microseconds after the first packet.
    sent_us: f64,
    arrived_us: Option<f64>,
    bytes: u32,
    of_probe: bool,
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// That was aimed at, media beside the probe included.
    pub probe_bps: f64,
    /// Cost of the probe.
    pub bits: f64,
    /// `None` where too little arrived to tell.
    pub result_bps: Option<f64>,
    /// False where feedback spoke of too little of it: nothing is known then.
    pub told: bool,
    /// The path gave less than was sent, so that the result is what it carries.
    pub saturated: bool,
}

/// A probe that is under way.
#[derive(Debug)]
pub struct Cluster {
    probe: Probe,
    aim_bps: f64,
    ends_by: Instant,
    /// When its first packet was sent and arrived, each by its own clock.
    start_us: Option<(i64, i64)>,
    last_sent_us: Option<i64>,
    probe_bytes: u64,
    samples: Vec<Sample>,
    over: bool,
}

impl Cluster {
    /// `aim_bps`: of the probe together with the media that is expected beside it.
    pub fn new(now: Instant, probe: Probe, aim_bps: f64, rtt: Duration) -> Self {
        let length = Duration::from_secs_f64(f64::from(probe.bytes) * 8.0 / (probe.rate_bps as f64).max(1.0));
        let ends_by = now + length.min(Duration::from_secs(2)) + rtt * 2 + PATIENCE;
        Self {
            probe,
            aim_bps,
            ends_by,
            start_us: None,
            last_sent_us: None,
            probe_bytes: 0,
            samples: Vec::new(),
            over: false,
        }
    }

    /// When to give up waiting.
    pub fn ends_by(&self) -> Instant {
        self.ends_by
    }

    /// The next packet that feedback speaks of, of this probe or not; again, if it was lost and has come.
    pub fn push(&mut self, report: &PacketReport) {
        let of_probe = report.probe == Some(self.probe.id);
        if self.over || (self.samples.is_empty() && !of_probe) {
            return;
        }
        let (first_sent_us, first_arrived_us) =
            *self.start_us.get_or_insert((report.sent_us, report.arrived_us.unwrap_or_default()));
        let sent_us = (report.sent_us - first_sent_us) as f64;
        let arrived_us = report.arrived_us.map(|at_us| (at_us - first_arrived_us) as f64);
        let missing = |sample: &&mut Sample| {
            sample.arrived_us.is_none() && sample.sent_us == sent_us && sample.bytes == report.bytes
        };
        let may_be_late = self.samples.last().is_some_and(|newest| sent_us <= newest.sent_us);
        if arrived_us.is_some()
            && may_be_late
            && let Some(sample) = self.samples.iter_mut().find(missing)
        {
            sample.arrived_us = arrived_us;
        } else if self.samples.len() < PACKETS_MAX {
            self.samples.push(Sample { sent_us, arrived_us, bytes: report.bytes, of_probe });
            if of_probe {
                self.probe_bytes += u64::from(report.bytes);
                self.last_sent_us = self.last_sent_us.max(Some(report.sent_us));
            }
        }
        let past = self.last_sent_us.is_some_and(|last_us| report.sent_us > last_us + OVER_AFTER_US);
        let complete = self.probe_bytes >= u64::from(self.probe.bytes);
        self.over = past || (complete && self.samples.iter().all(|sample| sample.arrived_us.is_some()));
    }

    /// The result, once all packets have been spoken of or `now` is too late for more.
    /// `inherent`: share of packets that the path loses anyway.
    pub fn outcome(&self, now: Instant, inherent: f64) -> Option<Outcome> {
        if !self.over && now < self.ends_by {
            return None;
        }
        let probe_bps = self.aim_bps;
        let (result_bps, saturated) = match self.rates(inherent) {
            Some((sent_bps, received_bps)) => {
                let result_bps = sent_bps.min(received_bps).min(2.0 * probe_bps);
                (Some(result_bps), received_bps < 0.85 * sent_bps.min(2.0 * probe_bps))
            }
            None => (None, false),
        };
        let bits = f64::from(self.probe.bytes) * 8.0;
        let told = self.probe_bytes as f64 >= TOLD_MIN * f64::from(self.probe.bytes);
        Some(Outcome { probe_bps, bits, result_bps, told, saturated })
    }

    /// Rates of sending and of coming in.
    fn rates(&self, inherent: f64) -> Option<(f64, f64)> {
        let end = self.samples.iter().rposition(|sample| sample.of_probe)? + 1;
        let samples = self.samples.get(..end)?;
        let mut bytes = 0_u64;
        let mut points = Vec::with_capacity(samples.len());
        for sample in samples {
            bytes += u64::from(sample.bytes);
            if let Some(arrived_us) = sample.arrived_us {
                points.push((bytes as f64, sample.sent_us, arrived_us));
            }
        }
        let expected = (1.0 - inherent).clamp(0.5, 1.0);
        let share = |arrived: usize| arrived as f64 / samples.len() as f64 / expected;
        // One more may be lost: of few packets, one is a large share.
        if points.len() < PACKETS_MIN || share(points.len() + 1) < ARRIVED_MIN {
            return None;
        }
        let share = share(points.len());
        let received = slope(points.iter().map(|&(bytes, _, arrived)| (bytes, arrived)))?;
        let sent = slope(points.iter().map(|&(bytes, sent, _)| (bytes, sent)))?;
        let bps = |us_per_byte: f64| if us_per_byte > 0.0 { 8e6 / us_per_byte } else { f64::INFINITY };
        (received > 0.0).then(|| (bps(sent), bps(received) * share.min(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outcome of 20 packets sent at 2 Mbit/s into a path of `path_bps` that loses every `lost`-th.
    fn probe(path_bps: f64, lost: usize, inherent: f64) -> Outcome {
        let start = Instant::now();
        let probe = Probe { id: 7, rate_bps: 2_000_000, bytes: 20_000 };
        let mut cluster = Cluster::new(start, probe, 2e6, Duration::from_millis(50));
        let mut free_s = 0.0_f64;
        for index in 0..20 {
            let sent_s = index as f64 * 0.004;
            free_s = free_s.max(sent_s) + 8_000.0 / path_bps;
            let arrived_us = (index % lost != lost - 1).then_some(((5.0 + free_s) * 1e6) as i64);
            let sent_us = (sent_s * 1e6) as i64;
            cluster.push(&PacketReport { sent_us, bytes: 1_000, arrived_us, probe: Some(7) });
        }
        cluster.push(&PacketReport { sent_us: 300_000, bytes: 1_000, arrived_us: None, probe: None });
        cluster.outcome(start, inherent).expect("all packets are known")
    }

    #[test]
    fn a_wide_path_shows_the_rate_and_a_narrow_one_its_own() {
        let wide = probe(50e6, 100, 0.0);
        assert!((wide.result_bps.unwrap() - 2e6).abs() < 1e4 && !wide.saturated, "{wide:?}");
        let narrow = probe(1e6, 100, 0.0);
        assert!((narrow.result_bps.unwrap() - 1e6).abs() < 1e4 && narrow.saturated, "{narrow:?}");
    }

    #[test]
    fn loss_voids_a_probe_unless_the_path_always_loses() {
        assert_eq!(probe(50e6, 3, 0.0).result_bps, None);
        let usual = probe(50e6, 3, 0.3);
        assert!((usual.result_bps.unwrap() - 2e6).abs() < 1e4, "{usual:?}");
    }
}
