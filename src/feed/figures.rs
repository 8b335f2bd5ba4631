//! What feeds do, as metrics.

use metrics::{Gauge, counter, gauge};

use crate::core::feed::{FeedFigures, FromFeed, ToFeed};
use crate::worker::Work;

/// One feed's part of the metrics: taken back when it is gone.
pub struct Account {
    running: Gauge,
    rss: Gauge,
    rss_bytes: f64,
}

impl Account {
    /// A feed was started.
    pub fn open() -> Self {
        counter!("antiphon_feeds_starts_total").increment(1);
        let running = gauge!("antiphon_feeds");
        running.increment(1);
        Self { running, rss: gauge!("antiphon_feeds_resident_memory_bytes"), rss_bytes: 0.0 }
    }
}

impl Work for Account {
    type To = ToFeed;
    type From = FromFeed;
    const SUBCOMMAND: &'static str = "feed";

    fn gone() -> FromFeed {
        FromFeed::Gone
    }

    fn note(&mut self, news: &FromFeed) {
        let FromFeed::Figures(FeedFigures { cpu_ms, rss_bytes, left_out }) = *news else { return };
        counter!("antiphon_feeds_cpu_milliseconds_total").increment(cpu_ms);
        counter!("antiphon_feeds_frames_left_out_total").increment(left_out);
        let rss_bytes = rss_bytes as f64;
        self.rss.increment(rss_bytes - self.rss_bytes);
        self.rss_bytes = rss_bytes;
    }

    fn fail(&self) {
        counter!("antiphon_feeds_failures_total").increment(1);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.running.decrement(1);
        self.rss.decrement(self.rss_bytes);
    }
}
