//! What mixers do, as metrics.

use metrics::{counter, gauge};

use crate::core::mix::{Figures, FromMixer, ToMixer};
use crate::worker::{Resident, Work};

/// One mixer's part of the metrics.
pub struct Account(Resident);

impl Account {
    /// A mixer was started.
    pub fn open() -> Self {
        counter!("antiphon_mixer_starts_total").increment(1);
        Self(Resident::begin(gauge!("antiphon_mixers"), gauge!("antiphon_mixer_resident_memory_bytes")))
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
        self.0.note(rss_bytes);
    }

    fn fail(&self) {
        counter!("antiphon_mixer_failures_total").increment(1);
    }
}
