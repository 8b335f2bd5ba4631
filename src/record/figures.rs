//! What recorders do, as metrics.

use std::time::Duration;

use metrics::{counter, gauge};

use crate::core::recording::{Figures, FromRecorder, ToRecorder};
use crate::worker::{Resident, Work};

/// One recorder's part of the metrics.
pub struct Account(Resident);

impl Account {
    /// A recorder was started.
    pub fn open() -> Self {
        counter!("antiphon_recordings_recorder_starts_total").increment(1);
        Self(Resident::begin(
            gauge!("antiphon_recordings_running"),
            gauge!("antiphon_recordings_resident_memory_bytes"),
        ))
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
        self.0.note(rss_bytes);
    }

    fn fail(&self) {
        counter!("antiphon_recordings_recorder_failures_total").increment(1);
    }
}
