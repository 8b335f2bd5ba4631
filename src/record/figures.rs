//! What recorders do, as metrics.

use std::time::Duration;

use metrics::{Gauge, counter, gauge};

use crate::core::recording::{Figures, FromRecorder, ToRecorder};
use crate::worker::Work;

/// One recorder's part of the metrics: taken back when it is gone.
pub struct Account {
    running: Gauge,
    rss: Gauge,
    rss_bytes: f64,
}

impl Account {
    /// A recorder was started.
    pub fn open() -> Self {
        counter!("antiphon_recordings_recorder_starts_total").increment(1);
        let running = gauge!("antiphon_recordings_running");
        running.increment(1);
        Self { running, rss: gauge!("antiphon_recordings_resident_memory_bytes"), rss_bytes: 0.0 }
    }
}

impl Work for Account {
    type To = ToRecorder;
    type From = FromRecorder;
    const SUBCOMMAND: &'static str = "record";
    /// To copy a long mix once.
    const PUT_AWAY_WITHIN: Duration = Duration::from_secs(600);

    fn gone() -> FromRecorder {
        FromRecorder::Gone
    }

    fn note(&mut self, news: &FromRecorder) {
        if let FromRecorder::Keyframe { .. } = news {
            counter!("antiphon_recordings_keyframes_asked_total").increment(1);
        }
        let FromRecorder::Figures(figures) = news else { return };
        let Figures { bytes, units, packets, packets_lost, cpu_ms, rss_bytes, files: _ } = *figures;
        counter!("antiphon_recordings_written_bytes_total").increment(bytes);
        counter!("antiphon_recordings_units_total").increment(units);
        counter!("antiphon_recordings_packets_total").increment(packets);
        counter!("antiphon_recordings_packets_lost_total").increment(packets_lost);
        counter!("antiphon_recordings_cpu_milliseconds_total").increment(cpu_ms);
        let rss_bytes = rss_bytes as f64;
        self.rss.increment(rss_bytes - self.rss_bytes);
        self.rss_bytes = rss_bytes;
    }

    fn fail(&self) {
        counter!("antiphon_recordings_recorder_failures_total").increment(1);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.running.decrement(1);
        self.rss.decrement(self.rss_bytes);
    }
}
