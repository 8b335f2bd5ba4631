//! What mixers do, as metrics.

use metrics::{Gauge, counter, gauge};

use crate::core::mix::{Figures, FromMixer, ToMixer};
use crate::worker::Work;

/// One mixer's part of the metrics: taken back when it is gone.
pub struct Account {
    running: Gauge,
    rss: Gauge,
    rss_bytes: f64,
}

impl Account {
    /// A mixer was started.
    pub fn open() -> Self {
        counter!("antiphon_mixer_starts_total").increment(1);
        let running = gauge!("antiphon_mixers");
        running.increment(1);
        Self { running, rss: gauge!("antiphon_mixer_resident_memory_bytes"), rss_bytes: 0.0 }
    }
}

impl Work for Account {
    type To = ToMixer;
    type From = FromMixer;
    const SUBCOMMAND: &'static str = "mix";

    fn gone() -> FromMixer {
        FromMixer::Gone
    }

    fn note(&mut self, news: &FromMixer) {
        let FromMixer::Figures(figures) = news else { return };
        let Figures {
            frames, frames_late, frames_left_out, sound_ticks, undecodable, cpu, rss_bytes, ..
        } = *figures;
        counter!("antiphon_mixer_frames_total").increment(frames.into());
        counter!("antiphon_mixer_frames_late_total").increment(frames_late.into());
        counter!("antiphon_mixer_frames_left_out_total").increment(frames_left_out.into());
        counter!("antiphon_mixer_sound_ticks_total").increment(sound_ticks.into());
        counter!("antiphon_mixer_packets_undecodable_total").increment(undecodable.into());
        // Cores used over a second are seconds of one core, here in thousandths, as counters are whole.
        counter!("antiphon_mixer_cpu_milliseconds_total").increment((cpu * 1_000.0) as u64);
        let rss_bytes = rss_bytes as f64;
        self.rss.increment(rss_bytes - self.rss_bytes);
        self.rss_bytes = rss_bytes;
    }

    fn fail(&self) {
        counter!("antiphon_mixer_failures_total").increment(1);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.running.decrement(1);
        self.rss.decrement(self.rss_bytes);
    }
}
