//! How fast bytes come out at the far end: the rate that the receiver has acknowledged.
//!
//! By the receiver's clock alone, so that feedback that is late or lost changes nothing.

use std::collections::VecDeque;

/// Longest window that can be asked for.
const HISTORY_US: i64 = 1_200_000;
/// Bounds the memory; at 100 Mbit/s this is a fifth of a second, which serves.
const ARRIVALS_MAX: usize = 2_048;

/// See the module.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Microseconds of the receiver's clock, never falling, with bytes.
    arrivals: VecDeque<(i64, u32)>,
}

impl Delivery {
    /// A packet arrived. One that comes out of order counts as just arrived.
    pub fn push(&mut self, arrived_us: i64, bytes: u32) {
        let newest = self.arrivals.back().map_or(arrived_us, |&(at, _)| at.max(arrived_us));
        self.arrivals.push_back((newest, bytes));
        while self.arrivals.len() > ARRIVALS_MAX
            || self.arrivals.front().is_some_and(|&(at, _)| newest - at > HISTORY_US)
        {
            self.arrivals.pop_front();
        }
    }

    /// Bits a second over the last `window_us` before the newest arrival; `None` before there is a quarter of
    /// it. Counts from one packet to another, so that few packets do not bias it.
    pub fn rate_bps(&self, window_us: i64) -> Option<f64> {
        let newest = self.arrivals.back()?.0;
        let mut bytes = 0_u64;
        let mut span_us = 0;
        let mut behind = 0_u64;
        for &(at, size) in self.arrivals.iter().rev() {
            // The bytes of the first packet belong to the time before it.
            if newest - at > span_us {
                span_us = newest - at;
                bytes += behind;
                behind = 0;
            }
            if span_us >= window_us {
                break;
            }
            behind += u64::from(size);
        }
        (span_us >= window_us / 4).then(|| bytes as f64 * 8e6 / span_us as f64)
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
