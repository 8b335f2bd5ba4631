//! What the kernel says a process costs: CPU time and resident memory, from `/proc` (Linux).

use std::time::{Duration, Instant};
use std::{fs, io};

use serde::Serialize;

/// Ticks a second of `/proc/PID/stat` (USER_HZ), the same on every Linux architecture that matters.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time that the whole machine has used so far, in `/proc/stat`'s ticks.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    busy: u64,
    steal: u64,
}

/// What else went on while a measurement ran. Cores' worth of CPU.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Noise {
    /// Used by others than the server and the load tool.
    pub others_cores: f64,
    /// Taken away by the machine's own host.
    pub steal_cores: f64,
}

impl Machine {
    /// # Errors
    /// The kernel keeps no account.
    pub fn now() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let ticks: Vec<u64> =
            stat.split_ascii_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let &[user, nice, system, _, _, irq, softirq, steal] = ticks.as_slice() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(Self { busy: user + nice + system + irq + softirq, steal })
    }

    /// What went on until `later`, `seconds` after this, besides the `measured_cores`.
    pub fn until(&self, later: &Self, seconds: f64, measured_cores: f64) -> Noise {
        let cores = |from: u64, to: u64| to.saturating_sub(from) as f64 / TICKS_PER_SECOND as f64 / seconds;
        Noise {
            others_cores: (cores(self.busy, later.busy) - measured_cores).max(0.0),
            steal_cores: cores(self.steal, later.steal),
        }
    }
}

/// CPU time of the calling thread so far.
///
/// # Errors
/// The kernel keeps no account.
pub fn thread_cpu() -> io::Result<Duration> {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns = schedstat.split_ascii_whitespace().next().and_then(|ns| ns.parse().ok());
    ns.map(Duration::from_nanos).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Processes that `pid` has started and that live, from the lists that its threads have of them.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = lists.flat_map(|list| {
        list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    });
    pids.collect()
}

/// A process and all that came of it, from the oldest on.
pub fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    found
}

/// A process at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    at: Instant,
    /// Sum over the threads that live, from the scheduler, exact to the nanosecond.
    cpu: Duration,
    /// utime + stime of `/proc/PID/stat`: coarse, but counts threads that ended too.
    cpu_ticks: Duration,
    pub rss_bytes: u64,
    pub threads: u32,
}

/// What a process used between two snapshots.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Usage {
    pub cpu_seconds: f64,
    /// By the coarse count, to check the fine one by.
    pub cpu_seconds_by_ticks: f64,
    /// Cores' worth of CPU: 1.0 is one core, fully busy.
    pub cpu_share: f64,
    pub rss_start_bytes: u64,
    pub rss_end_bytes: u64,
    pub threads: u32,
}

impl Snapshot {
    /// # Errors
    /// There is no such process, or it may not be looked at.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is a name in parentheses that may hold anything; utime and stime are 14 and 15.
        let ticks = stat.rsplit(')').next().map(|rest| rest.split_ascii_whitespace().skip(11));
        let ticks: u64 =
            ticks.into_iter().flatten().take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let (mut cpu_ns, mut threads) = (0, 0);
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end while the list is read.
            let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            cpu_ns += schedstat.split_ascii_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            threads += 1;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss_kib =
            rss.and_then(|rss| rss.split_ascii_whitespace().next()).and_then(|kib| kib.parse().ok());
        Ok(Self {
            at: Instant::now(),
            cpu: Duration::from_nanos(cpu_ns),
            cpu_ticks: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
            rss_bytes: rss_kib.unwrap_or(0u64) * 1024,
            threads,
        })
    }

    /// What was used from `self` to `later`.
    pub fn until(&self, later: &Self) -> Usage {
        let cpu = later.cpu.saturating_sub(self.cpu).as_secs_f64();
        Usage {
            cpu_seconds: cpu,
            cpu_seconds_by_ticks: later.cpu_ticks.saturating_sub(self.cpu_ticks).as_secs_f64(),
            cpu_share: cpu / later.at.saturating_duration_since(self.at).as_secs_f64().max(f64::EPSILON),
            rss_start_bytes: self.rss_bytes,
            rss_end_bytes: later.rss_bytes,
            threads: later.threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    #[test]
    fn work_of_this_process_shows() {
        let before = Snapshot::of(std::process::id()).expect("this process can be read");
        // Of processor time, as others may have the processor meanwhile.
        let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
        let end = used() + Duration::from_millis(20);
        while used() < end {
            std::hint::spin_loop();
        }
        let usage = before.until(&Snapshot::of(std::process::id()).expect("this process can be read"));
        assert!(usage.cpu_seconds > 0.005, "{usage:?}");
        assert!(usage.rss_end_bytes > 1 << 20);
        assert!(usage.threads >= 1);
    }

    #[test]
    fn noise_is_what_is_left() {
        let (start, end) = (Machine { busy: 1000, steal: 7 }, Machine { busy: 2500, steal: 57 });
        let noise = start.until(&end, 10.0, 0.6);
        assert!((noise.others_cores - 0.9).abs() < 1e-9 && (noise.steal_cores - 0.05).abs() < 1e-9);
        assert!(Machine::now().is_ok_and(|now| now.busy > 0));
    }

    #[test]
    fn a_family_is_a_process_and_what_it_started() {
        let mut child = std::process::Command::new("sleep").arg("20").spawn().expect("a child");
        let own = std::process::id();
        assert!(children(own).contains(&child.id()));
        assert!(family(own).starts_with(&[own]) && family(own).contains(&child.id()));
        child.kill().and_then(|()| child.wait()).expect("it ends");
        assert!(!children(own).contains(&child.id()));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Snapshot::of(u32::MAX).is_err());
    }
}
