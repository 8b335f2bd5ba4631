//! Whether this node can carry one more mixer: said before quality drops, not after.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks at the machine.
const INTERVAL: Duration = Duration::from_secs(1);

/// How much of the machine is idle, in thousandths of a core; `None` until that is known. Shared with the
/// task that keeps it true.
type IdleMillicores = Mutex<Option<u32>>;

/// The machine's idle cores, and how many of them one more mixer takes.
#[derive(Debug, Clone)]
pub struct Capacity {
    idle_millicores: Arc<IdleMillicores>,
    needed_millicores: u32,
}

impl Capacity {
    /// Watches the machine from now on, on the current runtime, for mixers that take so many cores each.
    pub fn watch(cores_needed: f64) -> Self {
        let idle_millicores = Arc::new(IdleMillicores::default());
        let kept = Arc::downgrade(&idle_millicores);
        tokio::spawn(async move {
            let mut before = idle();
            loop {
                tokio::time::sleep(INTERVAL).await;
                let Some(kept) = kept.upgrade() else { return };
                let now = idle();
                if let Some((before, now)) = before.zip(now) {
                    *lock(&kept) = Some(now.saturating_since(before));
                }
                before = now;
            }
        });
        Self { idle_millicores, needed_millicores: (cores_needed * 1_000.0) as u32 }
    }

    /// Room for one more, which is taken into account at once.
    pub fn take(&self) -> bool {
        let mut idle = lock(&self.idle_millicores);
        let Some(millicores) = *idle else { return true };
        let left = millicores.checked_sub(self.needed_millicores);
        *idle = Some(left.unwrap_or(millicores));
        left.is_some()
    }
}

fn lock(idle: &IdleMillicores) -> MutexGuard<'_, Option<u32>> {
    // It is one number: whoever panicked left it whole.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
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
        u32::try_from(idle * u64::from(self.cores) * 1_000 / total).unwrap_or(u32::MAX)
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
        let capacity = Capacity { idle_millicores: Arc::default(), needed_millicores: 600 };
        assert!(capacity.take(), "what is not known yet keeps nobody out");
        *lock(&capacity.idle_millicores) = Some(1_500);
        assert!(capacity.take() && capacity.take());
        assert!(!capacity.take() && !capacity.take());
    }
}
