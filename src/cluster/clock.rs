//! The clock that goes on while the machine sleeps, so that a node that was frozen or suspended notices.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the machine started, suspends included.
pub fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    duration(now.tv_sec, now.tv_nsec)
}

/// Processor time that this process has used, on all its threads.
pub fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    duration(used.tv_sec, used.tv_nsec)
}

fn duration(seconds: i64, nanoseconds: i64) -> Duration {
    Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0))
}
