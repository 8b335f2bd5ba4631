//! How full the bottleneck's queue is, and whether it fills, from the one-way delay of packets.
//!
//! A server does not pace: frames leave as bursts, and the last packet of a burst waits for the first ones
//! without anything being wrong. So this looks at the **least** delay among packets that arrive in the same
//! short while (as CoDel, RFC 8289, does): jitter, bursts and a receiver that reads its socket late all have
//! some packet with little delay in it, a standing queue has none. The trend of that least delay tells
//! overuse, as the delay gradient of draft-ietf-rmcat-gcc-02 section 4 does, and its noise widens the
//! threshold (section 4.4 there adapts it to the gradient instead).

use std::collections::VecDeque;

/// Arrivals are looked at together for so long, and on until a gap, at most [`BIN_MAX_US`].
const BIN_US: i64 = 50_000;
const BIN_MAX_US: i64 = 100_000;
/// Arrivals closer together may be one clump: a receiver that was late to read.
const CLUMP_GAP_US: i64 = 5_000;
/// Packets sent within this are one burst (section 4.1 of the draft), and all but its least delay are of its
/// own making.
const BURST_US: i64 = 5_000;
/// Bins that are kept.
const BINS_MAX: usize = 64;
/// A delay this much above the least is no queue yet.
const THRESHOLD_MIN_US: f64 = 20_000.0;
const THRESHOLD_MAX_US: f64 = 100_000.0;
/// How the noise of the delay widens the threshold.
const NOISE_FACTOR: f64 = 3.0;
/// Trend is taken over this long.
const TREND_US: i64 = 400_000;
/// The queue grows where delay rises faster than this, in seconds per second, and by [`GROWTH_MIN_US`].
const GROWING: f64 = 0.03;
const GROWTH_MIN_US: f64 = 8_000.0;
/// And drains where it falls faster than this.
const DRAINING: f64 = -0.05;
/// The least delay is that of the last one to two of these.
const BASE_WINDOW_US: i64 = 10_000_000;
/// A raised delay that neither grows nor falls nor loses for so long is a longer path, not a queue.
const REBASE_AFTER_US: i64 = 3_000_000;
/// A larger step of delay is a new clock.
const CLOCK_JUMP_US: i64 = 20_000_000;

/// What the queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Empty, or nearly.
    Calm,
    /// Filled but not growing: what is sent fits, or about so.
    Raised,
    /// Growing, or full and losing.
    Overuse,
}

#[derive(Debug, Clone, Copy)]
struct Bin {
    at_us: i64,
    least_us: i64,
}

#[derive(Debug, Clone, Copy)]
struct OpenBin {
    from_us: i64,
    last_us: i64,
    least_us: i64,
    /// Those that count.
    packets: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    open: Option<OpenBin>,
    /// When the first packet of the present burst was sent, and the least delay in it.
    burst: Option<(i64, i64)>,
    bins: VecDeque<Bin>,
    /// Least delay since `base_from_us`, and of the window before.
    base: Option<(i64, i64)>,
    base_from_us: i64,
    mean_us: f64,
    noise_us: f64,
    raised_from_us: Option<i64>,
}

impl Queue {
    /// A packet arrived `delay_us` after it was sent, both clocks having arbitrary zeros. Returns whether the
    /// clock has jumped, by which everything known is void.
    pub fn push(&mut self, arrived_us: i64, delay_us: i64) -> bool {
        let known = self.open.map(|bin| bin.least_us).or(self.bins.back().map(|bin| bin.least_us));
        let jumped = known.is_some_and(|known| (delay_us - known).abs() > CLOCK_JUMP_US);
        if jumped {
            *self = Self::default();
        }
        let counts = self.is_least_of_burst(arrived_us - delay_us, delay_us);
        if let Some(open) = self.open {
            let (length, gap) = (arrived_us - open.from_us, arrived_us - open.last_us);
            if open.packets > 0 && length >= BIN_US && (gap >= CLUMP_GAP_US || length >= BIN_MAX_US) {
                self.close(open);
            }
        }
        let bin = self.open.get_or_insert(OpenBin {
            from_us: arrived_us,
            last_us: arrived_us,
            least_us: delay_us,
            packets: 0,
        });
        bin.last_us = bin.last_us.max(arrived_us);
        if counts {
            bin.least_us = if bin.packets == 0 { delay_us } else { bin.least_us.min(delay_us) };
            bin.packets += 1;
        }
        jumped
    }

    /// Whether no packet of the same burst had so little delay.
    fn is_least_of_burst(&mut self, sent_us: i64, delay_us: i64) -> bool {
        match &mut self.burst {
            Some((from_us, least_us)) if (sent_us - *from_us).abs() <= BURST_US => {
                let less = delay_us < *least_us;
                *least_us = delay_us.min(*least_us);
                less
            }
            burst => {
                *burst = Some((sent_us, delay_us));
                true
            }
        }
    }

    /// All packets of a feedback have been pushed.
    pub fn flush(&mut self) {
        if let Some(open) = self.open.filter(|bin| bin.packets > 0 && bin.last_us - bin.from_us >= BIN_US) {
            self.close(open);
        }
    }

    fn close(&mut self, bin: OpenBin) {
        self.open = None;
        self.bins.push_back(Bin { at_us: bin.last_us, least_us: bin.least_us });
        if self.bins.len() > BINS_MAX {
            self.bins.pop_front();
        }
        let (before, current) = self.base.unwrap_or((bin.least_us, bin.least_us));
        self.base = Some((before, current.min(bin.least_us)));
        let raised = self.level_us() >= self.threshold_us();
        if bin.last_us - self.base_from_us > BASE_WINDOW_US && !raised {
            self.base = Some((current.min(bin.least_us), bin.least_us));
            self.base_from_us = bin.last_us;
        }
        let level_us = self.level_us();
        let distance = (level_us - self.mean_us).abs().min(THRESHOLD_MIN_US * 2.0);
        let share = (1.0 / (self.bins.len() as f64 + 1.0)).max(0.05);
        self.noise_us += share * (distance - self.noise_us);
        self.mean_us += 0.2 * (level_us - self.mean_us);
        self.raised_from_us = raised.then(|| self.raised_from_us.unwrap_or(bin.last_us));
    }

    /// Delay above the least known.
    pub fn level_us(&self) -> f64 {
        match (self.bins.back(), self.base) {
            (Some(bin), Some((before, current))) => (bin.least_us - before.min(current)) as f64,
            _ => 0.0,
        }
    }

    /// How much the least delay moves by itself.
    pub fn noise_us(&self) -> f64 {
        self.noise_us
    }

    fn threshold_us(&self) -> f64 {
        (THRESHOLD_MIN_US + NOISE_FACTOR * self.noise_us).min(THRESHOLD_MAX_US)
    }

    /// How long the queue has been filled: what arrives in this time is what the bottleneck carries.
    pub fn raised_for_us(&self) -> i64 {
        let last_us = self.bins.back().map_or(0, |bin| bin.at_us);
        self.raised_from_us.map_or(0, |from_us| last_us - from_us)
    }

    /// `losing`: whether more is lost than when the queue was calm.
    pub fn usage(&mut self, losing: bool) -> Usage {
        let Some((last, raised_from_us)) = self.bins.back().copied().zip(self.raised_from_us) else {
            return Usage::Calm;
        };
        let from_us = raised_from_us.max(last.at_us - TREND_US);
        let (count, span_us, slope) = self.trend(from_us);
        if count < 2 {
            return Usage::Raised;
        }
        let grown_us = slope * span_us as f64;
        let growing = slope > GROWING && grown_us > GROWTH_MIN_US.max(2.0 * self.noise_us);
        if growing || (losing && count >= 3 && slope > DRAINING) {
            return Usage::Overuse;
        }
        if last.at_us - raised_from_us > REBASE_AFTER_US && !losing && slope.abs() < GROWING {
            self.base = Some((last.least_us, last.least_us));
            self.base_from_us = last.at_us;
            self.raised_from_us = None;
            return Usage::Calm;
        }
        Usage::Raised
    }

    /// Bins since, the time they span, and the slope of a line through their delays (least squares).
    fn trend(&self, from_us: i64) -> (usize, i64, f64) {
        let run = || self.bins.iter().rev().take_while(|bin| bin.at_us >= from_us);
        let count = run().count();
        let Some(first) = run().last() else { return (0, 0, 0.0) };
        let points =
            run().map(|bin| ((bin.at_us - first.at_us) as f64, (bin.least_us - first.least_us) as f64));
        let span_us = self.bins.back().map_or(0, |last| last.at_us - first.at_us);
        (count, span_us, slope(points).unwrap_or(0.0))
    }
}

/// Slope of the line of least squares through points (x, y); `None` where they have no width.
pub fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let (mut count, mut sum_x, mut sum_y) = (0.0, 0.0, 0.0);
    for (x, y) in points.clone() {
        count += 1.0;
        sum_x += x;
        sum_y += y;
    }
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (mut square, mut product) = (0.0, 0.0);
    for (x, y) in points {
        square += (x - mean_x) * (x - mean_x);
        product += (x - mean_x) * (y - mean_y);
    }
    (count >= 2.0 && square > 0.0).then(|| product / square)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes a packet each 10 ms for `for_ms`, with the delay that `delay_ms` tells of the time.
    fn feed(queue: &mut Queue, from_ms: i64, for_ms: i64, delay_ms: impl Fn(i64) -> i64) {
        for at_ms in (from_ms..from_ms + for_ms).step_by(10) {
            queue.push(at_ms * 1_000, delay_ms(at_ms) * 1_000);
        }
        queue.flush();
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_draining_one_is_not() {
        let mut queue = Queue::default();
        feed(&mut queue, 0, 2_000, |_| 30);
        assert_eq!(queue.usage(false), Usage::Calm);
        feed(&mut queue, 2_000, 300, |at| 30 + (at - 2_000) / 2);
        assert_eq!(queue.usage(false), Usage::Overuse);
        feed(&mut queue, 2_300, 500, |at| 180 - (at - 2_300) / 5);
        assert_eq!(queue.usage(true), Usage::Raised);
        feed(&mut queue, 2_800, 500, |_| 30);
        assert_eq!(queue.usage(true), Usage::Calm);
    }

    #[test]
    fn a_full_queue_is_overuse_only_while_it_loses_and_in_time_a_longer_path() {
        let mut queue = Queue::default();
        feed(&mut queue, 0, 2_000, |_| 30);
        feed(&mut queue, 2_000, 500, |_| 130);
        assert_eq!(queue.usage(true), Usage::Overuse);
        assert_eq!(queue.usage(false), Usage::Raised);
        feed(&mut queue, 2_500, 4_000, |_| 130);
        assert_eq!(queue.usage(false), Usage::Calm);
    }

    #[test]
    fn a_clump_is_no_queue() {
        let mut queue = Queue::default();
        for round in 0..20 {
            feed(&mut queue, round * 2_000, 1_700, |_| 30);
            for late_ms in (0..300).rev().step_by(10) {
                queue.push((round * 2_000 + 2_000) * 1_000, (30 + late_ms) * 1_000);
            }
            queue.flush();
            assert_ne!(queue.usage(true), Usage::Overuse, "round {round}");
        }
    }
}
