//! The mixer's time: ticks of picture and sound count from one moment, so that their timestamps agree.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub epoch: Instant,
}

impl Clock {
    /// From now on.
    pub fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    /// What the node is told of a tick, so many after the epoch: when it was, in microseconds since the Unix
    /// epoch. The wall clock is read anew each time, as it may be set meanwhile.
    pub fn captured_us(self, tick: Duration) -> Option<i64> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let at = (wall + tick).checked_sub(self.epoch.elapsed())?;
        i64::try_from(at.as_micros()).ok()
    }
}
