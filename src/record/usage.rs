//! What a recorder takes of the machine, second by second.

use std::time::Duration;

use crate::core::recording::Figures;
use crate::worker::process;

#[derive(Debug, Default)]
pub struct Usage {
    cpu: Duration,
    bytes: u64,
}

impl Usage {
    /// Adds what was used since the last time; `bytes` is what all files have by now.
    pub fn note(&mut self, figures: &mut Figures, bytes: u64) {
        let cpu = process::cpu_time();
        figures.cpu_ms = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu)).as_millis() as u64;
        figures.bytes = bytes.saturating_sub(std::mem::replace(&mut self.bytes, bytes));
        figures.rss_bytes = process::rss_bytes();
    }
}
