//! How long forwarded packets stay: from socket read to socket write.
//!
//! Each shard counts for itself, in a [`Tally`], and adds it to the node's [`Histogram`] once a second: kept
//! singly until somebody asks, as the recorder of the other metrics does, samples of every packet would fill
//! the memory.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NAME: &str = "antiphon_forward_latency_seconds";
/// Upper bounds of the buckets, in microseconds: ten of them to a tenth of a second.
const BOUNDS_US: [u64; 12] = [10, 25, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000];
/// With the one that has no bound.
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Of all shards of this process.
pub static FORWARD_LATENCY: Histogram = Histogram::new();

/// One shard's packets since it was last added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Tally {
    /// Takes note of packets that took so long.
    pub fn record(&mut self, latency: Duration, packets: u64) {
        let us = latency.as_micros() as u64;
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BUCKETS - 1);
        self.counts[bucket] += packets;
        self.sum_us += us.saturating_mul(packets);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }

    pub fn add(&self, tally: &Tally) {
        for (sum, count) in self.counts.iter().zip(tally.counts) {
            sum.fetch_add(count, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(tally.sum_us, Ordering::Relaxed);
    }

    /// In the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut text = format!("# HELP {NAME} Socket read to socket write\n# TYPE {NAME} histogram\n");
        let mut below = 0;
        let bounds = BOUNDS_US.iter().map(|bound| (*bound as f64 / 1e6).to_string());
        let bounds = bounds.chain(std::iter::once("+Inf".to_owned()));
        for (bound, count) in bounds.zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            // Writing to a string does not fail.
            let _ = writeln!(text, "{NAME}_bucket{{le=\"{bound}\"}} {below}");
        }
        let sum_s = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "{NAME}_sum {sum_s}\n{NAME}_count {below}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_by_how_long_they_stayed() {
        let histogram = Histogram::new();
        let mut tally = Tally::default();
        tally.record(Duration::from_micros(10), 3);
        tally.record(Duration::from_micros(11), 2);
        tally.record(Duration::from_secs(2), 1);
        histogram.add(&tally);
        histogram.add(&tally);
        let text = histogram.render();
        for line in [
            "antiphon_forward_latency_seconds_bucket{le=\"0.00001\"} 6",
            "antiphon_forward_latency_seconds_bucket{le=\"0.000025\"} 10",
            "antiphon_forward_latency_seconds_bucket{le=\"0.1\"} 10",
            "antiphon_forward_latency_seconds_bucket{le=\"+Inf\"} 12",
            "antiphon_forward_latency_seconds_sum 4.000104",
            "antiphon_forward_latency_seconds_count 12",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
