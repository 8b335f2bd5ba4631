//! Whether this node can carry one more mixer: said before quality drops, not after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Between two looks at the machine.
const INTERVAL: Duration = Duration::from_secs(1);

/// How much of the machine is idle, in thousandths of a core; shared with the task that keeps it true.
#[derive(Debug, Clone)]
pub struct Capacity {
    idle_millicores: Arc<AtomicU32>,
    /// What one mixer takes.
    needed_millicores: u32,
}

impl Capacity {
    /// Watches the machine from now on, on the current runtime, for mixers that take so many cores each.
    pub fn watch(cores_needed: f64) -> Self {
        let idle_millicores = Arc::new(AtomicU32::new(u32::MAX));
        let kept = Arc::downgrade(&idle_millicores);
        tokio::spawn(async move {
            let mut before = idle();
            loop {
                tokio::time::sleep(INTERVAL).await;
                let Some(kept) = kept.upgrade() else { return };
                let now = idle();
                if let Some((before, now)) = before.zip(now) {
                    kept.store(now.saturating_since(before), Ordering::Relaxed);
                }
                before = now;
            }
        });
        Self { idle_millicores, needed_millicores: (cores_needed * 1_000.0) as u32 }
    }

    /// Room for one more, which is taken into account at once.
    pub fn take(&self) -> bool {
        let take = |idle: u32| match idle {
            u32::MAX => Some(idle),
            _ => idle.checked_sub(self.needed_millicores),
        };
        self.idle_millicores.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Idle time of all cores, and all their time, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Idle {
    idle: u64,
    total: u64,
    cores: u32,
}

impl Idle {
    fn saturating_since(self, before: Self) -> u32 {
        let total = self.total.saturating_sub(before.total).max(1);
        let idle = self.idle.saturating_sub(before.idle);
        (idle * u64::from(self.cores) * 1_000 / total).min(u64::from(u32::MAX - 1)) as u32
    }
}

fn idle() -> Option<Idle> {
    read(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// Of `/proc/stat` (proc(5)): the line of all cores, and how many there are.
fn read(text: &str) -> Option<Idle> {
    let all = text.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<u64> = all.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    // Of user, nice, system, idle, iowait, irq, softirq and steal; guests are in user and nice already.
    let total = ticks.iter().take(8).sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let cores = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    Some(Idle { idle, total, cores: cores.max(1) as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_cores_are_read_from_the_kernels_account() {
        let before = read("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1\ncpu1 1\nintr 1\n").unwrap();
        let now = read("cpu  150 0 150 900 0 0 0 0 0 0\ncpu0 1\ncpu1 1\nintr 1\n").unwrap();
        assert_eq!(now.saturating_since(before), 1_000);
        assert_eq!(read("nothing of it"), None);
    }

    #[test]
    fn a_mixer_takes_its_share_until_none_is_left() {
        let idle_millicores = Arc::new(AtomicU32::new(1_500));
        let capacity = Capacity { idle_millicores, needed_millicores: 600 };
        assert!(capacity.take() && capacity.take());
        assert!(!capacity.take());
    }
}
