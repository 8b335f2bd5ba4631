//! How fast bytes come out at the far end: the rate that the receiver has acknowledged.
//!
//! By the receiver's clock alone, so that feedback that is late or lost changes nothing.

use std::collections::VecDeque;

/// Longest window that can be asked for.
const HISTORY_US: i64 = 1_200_000;
/// Bounds the memory; at 100 Mbit/s this is a fifth of a second, which serves.
const ARRIVALS_MAX: usize = 2_048;

/// What arrived at one instant. Small, as there are hundreds for each subscriber.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// Low 32 bits of the microseconds of the receiver's clock.
    at_us: u32,
    /// Low 32 bits of the bytes that arrived until then, these included.
    until_bytes: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Delivery {
    arrivals: VecDeque<Arrival>,
    /// When the newest of them arrived, by the receiver's clock; times never fall.
    newest_us: i64,
}

impl Delivery {
    /// A packet arrived. One that comes out of order counts as just arrived.
    pub fn push(&mut self, arrived_us: i64, bytes: u32) {
        if arrived_us - self.newest_us > HISTORY_US {
            self.arrivals.clear();
        }
        if self.arrivals.is_empty() || arrived_us > self.newest_us {
            self.newest_us = arrived_us;
            let before_bytes = self.arrivals.back().map_or(0, |newest| newest.until_bytes);
            let until_bytes = before_bytes.wrapping_add(bytes);
            self.arrivals.push_back(Arrival { at_us: arrived_us as u32, until_bytes });
        } else if let Some(newest) = self.arrivals.back_mut() {
            newest.until_bytes = newest.until_bytes.wrapping_add(bytes);
        }
        while self.arrivals.len() > ARRIVALS_MAX
            || self.arrivals.front().is_some_and(|first| self.age_us(*first) > HISTORY_US)
        {
            self.arrivals.pop_front();
        }
    }

    /// How long before the newest. None of those that are kept is older than 32 bits tell.
    fn age_us(&self, arrival: Arrival) -> i64 {
        i64::from((self.newest_us as u32).wrapping_sub(arrival.at_us))
    }

    /// Bits a second over the last `window_us` before the newest arrival; `None` before there is a quarter of
    /// it. Counts from one packet to another, so that few packets do not bias it.
    pub fn rate_bps(&self, window_us: i64) -> Option<f64> {
        let newest = self.arrivals.back()?;
        // The newest that is old enough, else the oldest. Its bytes belong to the time before it.
        let old_enough = self.arrivals.partition_point(|arrival| self.age_us(*arrival) >= window_us);
        let first = self.arrivals.get(old_enough.saturating_sub(1))?;
        let span_us = self.age_us(*first);
        let bytes = newest.until_bytes.wrapping_sub(first.until_bytes);
        (span_us >= window_us / 4).then(|| f64::from(bytes) * 8e6 / span_us as f64)
    }

    /// The receiver's clock has jumped.
    pub fn clear(&mut self) {
        self.arrivals.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_packets_have_their_rate() {
        let mut delivery = Delivery::default();
        assert_eq!(delivery.rate_bps(300_000), None);
        for index in 0..100 {
            delivery.push(index * 10_000, 1_000);
        }
        for window_us in [100_000, 300_000, 900_000] {
            let rate = delivery.rate_bps(window_us).unwrap();
            assert!((rate - 800_000.0).abs() < 1.0, "{rate} over {window_us} us");
        }
    }
}
