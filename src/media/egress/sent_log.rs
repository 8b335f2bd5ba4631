//! What was sent under which transport-wide sequence number, until the receiver has spoken of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::core::bandwidth::PacketReport;
use crate::core::rtcp::TransportCc;

/// Packets remembered; the oldest are forgotten, and what is said of them later is ignored. Two seconds at
/// 4,000 packets a second to one receiver.
const ENTRIES_MAX: usize = 8_192;
/// Nobody speaks of older ones any more: longer than the round trips of people who still talk to each other.
const AGE_MAX: Duration = Duration::from_secs(2);

/// Small, as there is one for each packet on its way to each receiver.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Low 32 bits of the microseconds since the log's epoch.
    sent_us: u32,
    bytes: u16,
    fate: Fate,
    /// Low 8 bits of the id of its probe, if it is of one.
    probe: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not told of, or told lost.
    Unknown,
    /// The same of a packet of a probe.
    ProbeUnknown,
    Arrived,
}

#[derive(Debug)]
pub struct SentLog {
    epoch: Instant,
    /// When the newest packet was sent, and the low 32 bits of its microseconds: most are sent with another.
    pushed: (Instant, u32),
    /// Of the next packet; the wire carries its low 16 bits.
    next: u64,
    /// The last ones, ending at `next`.
    entries: VecDeque<Entry>,
    /// Reference time of the first report, as zero of the receiver's clock, and of the latest.
    reference: Option<(u32, i64)>,
    reports: Vec<PacketReport>,
}

impl SentLog {
    /// `first`: low 16 bits of the first packet's number.
    pub fn new(epoch: Instant, first: u16) -> Self {
        let next = 0x1_0000 | u64::from(first);
        Self {
            epoch,
            pushed: (epoch, 0),
            next,
            entries: VecDeque::new(),
            reference: None,
            reports: Vec::new(),
        }
    }

    fn us_since_epoch(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_micros() as u64
    }

    /// Numbers a packet that leaves now.
    #[inline]
    pub fn push(&mut self, now: Instant, bytes: usize, probe: Option<u32>) -> u16 {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.pop_front();
        }
        if self.pushed.0 != now {
            self.pushed = (now, self.us_since_epoch(now) as u32);
        }
        let now_us = self.pushed.1;
        let old = |entry: &Entry| now_us.wrapping_sub(entry.sent_us) > AGE_MAX.as_micros() as u32;
        while self.entries.front().is_some_and(old) {
            self.entries.pop_front();
        }
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        let fate = if probe.is_some() { Fate::ProbeUnknown } else { Fate::Unknown };
        self.entries.push_back(Entry { sent_us: now_us, bytes, fate, probe: probe.unwrap_or(0) as u8 });
        let number = self.next as u16;
        self.next += 1;
        number
    }

    /// What a report says of packets whose arrival was not known before, in the order of sending; and when
    /// the newest of those that arrived was sent. `probe`: the id of the latest probe.
    pub fn handle_report(
        &mut self,
        now: Instant,
        probe: Option<u32>,
        report: &TransportCc<'_>,
    ) -> (&[PacketReport], Option<Instant>) {
        self.reports.clear();
        let now_us = self.us_since_epoch(now);
        let base_us = self.reference_us(report);
        let mut newest_us = None;
        let oldest = self.next - self.entries.len() as u64;
        for (number, arrived_us) in report.packets() {
            // The packet of this number that was sent last.
            let back = u64::from((self.next as u16).wrapping_sub(number));
            let Some(full) = self.next.checked_sub(back).filter(|full| *full >= oldest && back > 0) else {
                continue;
            };
            let Some(entry) = self.entries.get_mut((full - oldest) as usize) else { continue };
            let of_probe = entry.fate == Fate::ProbeUnknown;
            if entry.fate == Fate::Arrived {
                continue;
            }
            let age_us = (now_us as u32).wrapping_sub(entry.sent_us);
            let sent_us = now_us.saturating_sub(u64::from(age_us));
            if arrived_us.is_some() {
                entry.fate = Fate::Arrived;
                newest_us = newest_us.max(Some(sent_us));
            }
            self.reports.push(PacketReport {
                sent_us: sent_us as i64,
                bytes: u32::from(entry.bytes),
                arrived_us: arrived_us.map(|us| base_us + us),
                probe: if of_probe { latest_id(probe, entry.probe) } else { None },
            });
        }
        // Nothing new can be said of these.
        while self.entries.front().is_some_and(|entry| entry.fate == Fate::Arrived) {
            self.entries.pop_front();
        }
        (&self.reports, newest_us.map(|us| self.epoch + Duration::from_micros(us)))
    }

    /// The report's reference on a clock that does not wrap. Its zero lies an hour before the first report,
    /// so that none is negative.
    fn reference_us(&mut self, report: &TransportCc<'_>) -> i64 {
        const ZERO_US: i64 = 3_600_000_000;
        // More than any connection lasts: a receiver that goes on ahead has its own clock stopped there.
        const FAR_US: i64 = 1 << 59;
        let (last, last_us) = *self.reference.get_or_insert((report.reference, ZERO_US));
        let us = (last_us + report.reference_us_since(last)).min(FAR_US);
        if us > last_us {
            self.reference = Some((report.reference, us));
        }
        us
    }
}

/// The latest id at or before `latest` with these low 8 bits.
fn latest_id(latest: Option<u32>, low: u8) -> Option<u32> {
    let latest = latest?;
    latest.checked_sub(u32::from((latest as u8).wrapping_sub(low)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rtcp::{self, Feedback};

    /// A report by vectors of one bit: `arrived` 1 ms after each other.
    fn report(base: u16, reference: u32, arrived: &[bool]) -> Vec<u8> {
        let [_, r0, r1, r2] = reference.to_be_bytes();
        let [b0, b1] = base.to_be_bytes();
        let mut bytes = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, b0, b1, 0, arrived.len() as u8];
        bytes.extend([r0, r1, r2, 0]);
        for chunk in arrived.chunks(14) {
            let bits = chunk.iter().enumerate().filter(|(_, arrived)| **arrived);
            let vector = bits.fold(2u16 << 14, |vector, (at, _)| vector | 1 << (13 - at));
            bytes.extend(vector.to_be_bytes());
        }
        bytes.extend(arrived.iter().filter(|arrived| **arrived).map(|_| 4u8));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[3] = (bytes.len() / 4 - 1) as u8;
        bytes
    }

    fn handle(log: &mut SentLog, now: Instant, bytes: &[u8]) -> Vec<(u32, Option<i64>)> {
        let mut all = Vec::new();
        rtcp::read(bytes, |feedback| {
            let Feedback::TransportCc(report) = feedback else { panic!("{feedback:?}") };
            let (reports, _) = log.handle_report(now, None, &report);
            all.extend(reports.iter().map(|report| (report.bytes, report.arrived_us)));
        });
        all
    }

    #[test]
    fn arrivals_are_told_once_and_losses_until_they_arrive() {
        let now = Instant::now();
        let mut log = SentLog::new(now, 0xfffe);
        assert_eq!(
            (0..5).map(|n| log.push(now, 100 + n, None)).collect::<Vec<_>>(),
            [0xfffe, 0xffff, 0, 1, 2]
        );
        let ms = |ms: i64| 3_600_000_000 + ms * 1_000;
        let first = handle(&mut log, now, &report(0xfffe, 10, &[true, false, true]));
        assert_eq!(first, [(100, Some(ms(1))), (101, None), (102, Some(ms(2)))]);
        let second = handle(&mut log, now, &report(0xfffe, 11, &[true, true, true, false, true]));
        assert_eq!(second, [(101, Some(ms(66))), (103, None), (104, Some(ms(68)))]);
        assert_eq!(handle(&mut log, now, &report(3, 12, &[true, true])), [], "never sent");
    }

    #[test]
    fn the_receivers_clock_goes_on_across_its_wrap() {
        let now = Instant::now();
        let mut log = SentLog::new(now, 0);
        log.push(now, 1, None);
        log.push(now, 2, None);
        let before = handle(&mut log, now, &report(0, 0xff_ffff, &[true]));
        let after = handle(&mut log, now, &report(1, 0, &[true]));
        assert_eq!(after[0].1.unwrap() - before[0].1.unwrap(), 64_000);
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let start = Instant::now();
        let mut log = SentLog::new(start, 0);
        for n in 0..20_000u64 {
            log.push(start + Duration::from_micros(n), 1, None);
        }
        assert_eq!(log.entries.len(), ENTRIES_MAX);
        assert!(size_of::<Entry>() <= 8, "{}", size_of::<Entry>());
        log.push(start + Duration::from_secs(60), 1, None);
        assert_eq!(log.entries.len(), 1);
    }

    #[test]
    fn what_has_arrived_is_forgotten_at_once() {
        let now = Instant::now();
        let mut log = SentLog::new(now, 0);
        for _ in 0..4 {
            log.push(now, 1, None);
        }
        assert_eq!(handle(&mut log, now, &report(0, 1, &[true, true, false, true])).len(), 4);
        assert_eq!(log.entries.len(), 2, "the one that may still come, and what was sent after it");
        assert_eq!(handle(&mut log, now, &report(0, 2, &[true, true, true, true])).len(), 1);
        assert_eq!(log.entries.len(), 0);
        assert_eq!(log.push(now, 1, None), 4);
    }

    #[test]
    fn times_and_probes_are_known_again_after_hours() {
        let epoch = Instant::now();
        let now = epoch + Duration::from_secs(5 * 3_600);
        let mut log = SentLog::new(epoch, 0);
        log.push(now, 1, Some(0x1_02fe));
        let bytes = report(0, 1, &[true]);
        let later = now + Duration::from_millis(80);
        rtcp::read(&bytes, |feedback| {
            let Feedback::TransportCc(report) = feedback else { panic!("{feedback:?}") };
            let (reports, newest) = log.handle_report(later, Some(0x1_0301), &report);
            assert_eq!((reports[0].sent_us, reports[0].probe), (5 * 3_600_000_000, Some(0x1_02fe)));
            assert_eq!(newest, Some(now));
        });
    }
}
