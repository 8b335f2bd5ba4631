//! What feeds do, as metrics.

use metrics::{counter, gauge};

use crate::core::feed::{FeedFigures, FromFeed, ToFeed};
use crate::worker::{Resident, Work};

/// One feed's part of the metrics.
pub struct Account(Resident);

impl Account {
    /// A feed was started.
    pub fn open() -> Self {
        counter!("antiphon_feeds_starts_total").increment(1);
        Self(Resident::begin(gauge!("antiphon_feeds"), gauge!("antiphon_feeds_resident_memory_bytes")))
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
        self.0.note(rss_bytes);
    }

    fn fail(&self) {
        counter!("antiphon_feeds_failures_total").increment(1);
    }
}
