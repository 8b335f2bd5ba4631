//! Keeps an encoder within its bitrate where its own rate control cannot: at the coarsest quantizer a busy
//! picture may still take three times as much. Frames are left out then until what was sent is paid for.

use std::time::Duration;

/// Ahead of the bitrate by this much, frames are left out.
const SLACK: Duration = Duration::from_millis(250);
/// A key frame may cost more than this; the rest is forgiven, so that no picture stands still for long.
const DEBT_MAX: Duration = Duration::from_millis(750);

/// What an encoder has sent beyond its bitrate.
#[derive(Debug, Default)]
pub struct Budget {
    debt: Duration,
    last_tick: Duration,
}

impl Budget {
    /// Whether the frame of a tick, from the epoch, can be paid for.
    pub fn allows(&mut self, tick: Duration) -> bool {
        self.debt = self.debt.saturating_sub(tick.saturating_sub(self.last_tick));
        self.last_tick = tick;
        self.debt <= SLACK
    }

    /// A frame was sent.
    pub fn spend(&mut self, bytes: usize, bitrate_bps: u64) {
        let time = Duration::from_secs_f64(bytes as f64 * 8.0 / bitrate_bps.max(1) as f64);
        self.debt = (self.debt + time).min(DEBT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits a second that are sent for frames of a size, 30 a second.
    fn sent_bps(frame_bytes: usize, bitrate_bps: u64) -> usize {
        let mut budget = Budget::default();
        let mut bytes = 0;
        for index in 0..300 {
            if budget.allows(Duration::from_millis(index * 100 / 3)) {
                budget.spend(frame_bytes, bitrate_bps);
                bytes += frame_bytes;
            }
        }
        bytes * 8 / 10
    }

    #[test]
    fn what_fits_is_sent_whole_and_what_does_not_is_thinned() {
        assert_eq!(sent_bps(4_000, 1_000_000), 30 * 4_000 * 8);
        let thinned = sent_bps(10_000, 800_000);
        assert!((760_000..860_000).contains(&thinned), "{thinned}");
    }

    #[test]
    fn after_a_key_frame_the_picture_goes_on_soon() {
        let mut budget = Budget::default();
        assert!(budget.allows(Duration::ZERO));
        budget.spend(1_000_000, 400_000);
        assert!(!budget.allows(Duration::from_millis(400)));
        assert!(budget.allows(Duration::from_millis(520)));
    }
}
