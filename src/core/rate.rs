//! How many bits a second something takes, over about the last second.

use std::time::{Duration, Instant};

const BUCKETS: usize = 5;
const BUCKET: Duration = Duration::from_millis(200);

/// A window of five buckets of 200 ms. Costs two additions a packet.
#[derive(Debug, Clone, Default)]
pub struct RateMeter {
    bytes: [u32; BUCKETS],
    current: usize,
    turned_at: Option<Instant>,
    /// Whole buckets seen, up to all of them: a young meter divides by the time it knows.
    known: usize,
    packets: u64,
    bytes_total: u64,
}

impl RateMeter {
    #[inline]
    pub fn add(&mut self, now: Instant, bytes: usize) {
        self.turn(now);
        self.bytes[self.current] = self.bytes[self.current].saturating_add(bytes as u32);
        self.packets += 1;
        self.bytes_total += bytes as u64;
    }

    /// Bits per second; 0 when nothing came for a second.
    pub fn bps(&mut self, now: Instant) -> u64 {
        self.turn(now);
        let bytes: u64 = self.bytes.iter().map(|&bytes| u64::from(bytes)).sum();
        let buckets = self.known.clamp(1, BUCKETS) as u64;
        bytes * 8 * 1_000 / (buckets * BUCKET.as_millis() as u64)
    }

    pub fn packets(&self) -> u64 {
        self.packets
    }

    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    #[inline]
    fn turn(&mut self, now: Instant) {
        let turned_at = *self.turned_at.get_or_insert(now);
        let elapsed = now.saturating_duration_since(turned_at);
        if elapsed < BUCKET {
            return;
        }
        let steps = (elapsed.as_millis() / BUCKET.as_millis()) as usize;
        for _ in 0..steps.min(BUCKETS) {
            self.current = (self.current + 1) % BUCKETS;
            self.bytes[self.current] = 0;
        }
        self.known = (self.known + steps).min(BUCKETS);
        self.turned_at = Some(turned_at + BUCKET * u32::try_from(steps).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_reads_as_its_rate_and_silence_as_nothing() {
        let start = Instant::now();
        let mut meter = RateMeter::default();
        for packet in 0..200u32 {
            meter.add(start + Duration::from_millis(10) * packet, 1_250);
        }
        let rate = meter.bps(start + Duration::from_secs(2));
        assert!((800_000..=1_050_000).contains(&rate), "{rate}");
        assert_eq!(meter.bps(start + Duration::from_secs(4)), 0);
        assert_eq!(meter.packets(), 200);
    }
}
