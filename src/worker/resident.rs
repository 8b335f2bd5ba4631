//! What every worker adds to its kind's metrics while it is there: one that runs, and its memory.

use metrics::Gauge;

/// One worker's part; taken back when it is gone.
pub struct Resident {
    running: Gauge,
    rss: Gauge,
    rss_bytes: f64,
}

impl Resident {
    /// A worker was started. `running` counts those of its kind, `rss` is the memory of all of them in bytes.
    pub fn begin(running: Gauge, rss: Gauge) -> Self {
        running.increment(1);
        Self { running, rss, rss_bytes: 0.0 }
    }

    /// So much memory it has now.
    pub fn note(&mut self, rss_bytes: u64) {
        let rss_bytes = rss_bytes as f64;
        self.rss.increment(rss_bytes - self.rss_bytes);
        self.rss_bytes = rss_bytes;
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.running.decrement(1);
        self.rss.decrement(self.rss_bytes);
    }
}
