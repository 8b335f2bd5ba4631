//! Tells loss that congestion makes from loss that the path has anyway.
//!
//! Radio loses packets whatever is sent. So loss alone says nothing; loss that is higher at a higher rate
//! does. The idea is that of libwebrtc's loss-based estimator, which fits pairs of inherent loss and
//! bandwidth to what it saw; here, simpler, what was lost lately is compared with what was lost at clearly
//! lower rates in the last seconds. Not seen by it: a policer without queue that begins to drop less than
//! [`HOPELESS`] while the rate stays as it is.

use std::collections::VecDeque;

use super::PacketReport;

/// A packet may come so much later than one sent after it before it is lost.
const REORDERING_US: i64 = 60_000;
/// Packets that wait for that; bounds the memory. The oldest is judged before its time.
const PENDING_MAX: usize = 512;
/// Time of sending that one window covers at least.
const WINDOW_US: i64 = 150_000;
/// And packets.
const WINDOW_PACKETS: u32 = 10;
/// Windows kept: about ten seconds.
const WINDOWS_MAX: usize = 66;
/// Windows that `loss` speaks of: about the last second.
const WINDOWS_TOLD: usize = 6;
/// Windows that are the present, and those of them that are enough where most is lost.
const WINDOWS_PRESENT: usize = 3;
const WINDOWS_HOPELESS: usize = 2;
/// Loss above that of calm times which counts beside a filled queue.
const EXCESS: f64 = 0.05;
/// A rate is clearly lower below this share of the present one.
const LOWER: f64 = 0.8;
/// Standard deviations that a difference must have: it is asked for several times a second.
const SIGNIFICANT: f64 = 4.0;
/// Loss that counts as congestion whatever is known.
const HOPELESS: f64 = 0.35;

#[derive(Debug, Clone, Copy)]
struct Pending {
    sent_us: i64,
    bytes: u32,
    arrived: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    span_us: i64,
    packets: u32,
    lost: u32,
    bytes: u64,
    arrived_bytes: u64,
}

impl Window {
    fn loss(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.packets.max(1))
    }

    /// Of the loss as the share of a binomial, taken with one more lost and one more arrived.
    fn variance(&self) -> f64 {
        let packets = f64::from(self.packets) + 2.0;
        let share = (f64::from(self.lost) + 1.0) / packets;
        share * (1.0 - share) / packets
    }

    fn rate_bps(&self, bytes: u64) -> f64 {
        bytes as f64 * 8e6 / self.span_us.max(50_000) as f64
    }

    fn add(&mut self, other: &Self) {
        self.span_us += other.span_us;
        self.packets += other.packets;
        self.lost += other.lost;
        self.bytes += other.bytes;
        self.arrived_bytes += other.arrived_bytes;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Loss {
    open: Window,
    open_from_us: Option<i64>,
    windows: VecDeque<Window>,
    /// The newest packets, which may still come.
    pending: VecDeque<Pending>,
    /// Sending time of the last packet of the last feedback.
    seen_until_us: Option<i64>,
    calm: f64,
    calm_windows: u32,
    /// Windows closed since `congestion` was last asked.
    fresh: bool,
}

impl Loss {
    /// The next packet that feedback speaks of. One of before that feedback was told lost, and has arrived
    /// after all.
    pub fn push(&mut self, report: &PacketReport) {
        if report.arrived_us.is_some()
            && self.seen_until_us.is_some_and(|until_us| report.sent_us <= until_us)
        {
            let missing = |pending: &&mut Pending| {
                !pending.arrived && pending.sent_us == report.sent_us && pending.bytes == report.bytes
            };
            if let Some(pending) = self.pending.iter_mut().find(missing) {
                pending.arrived = true;
                return;
            }
        }
        let (sent_us, bytes, arrived) = (report.sent_us, report.bytes, report.arrived_us.is_some());
        if self.seen_until_us.is_some_and(|until_us| sent_us < until_us) {
            self.take_back(report);
            return;
        }
        self.pending.push_back(Pending { sent_us, bytes, arrived });
    }

    /// All packets of a feedback have been pushed. `calm`: the queue is empty, so what is lost is inherent.
    pub fn flush(&mut self, calm: bool) {
        self.seen_until_us = self.pending.back().map(|pending| pending.sent_us).max(self.seen_until_us);
        while let (Some(pending), Some(until_us)) = (self.pending.front().copied(), self.seen_until_us)
            && (until_us - pending.sent_us >= REORDERING_US || self.pending.len() > PENDING_MAX)
        {
            self.pending.pop_front();
            self.judge(pending, calm);
        }
    }

    fn judge(&mut self, packet: Pending, calm: bool) {
        let from_us = *self.open_from_us.get_or_insert(packet.sent_us);
        let span_us = (packet.sent_us - from_us).max(0);
        if span_us >= WINDOW_US && self.open.packets >= WINDOW_PACKETS {
            // A pause of the sender is not part of the rate.
            let span_us = span_us.min(WINDOW_US * 4);
            self.close(Window { span_us, ..self.open }, calm);
            self.open_from_us = Some(packet.sent_us);
        }
        self.open.packets += 1;
        self.open.bytes += u64::from(packet.bytes);
        if packet.arrived {
            self.open.arrived_bytes += u64::from(packet.bytes);
        } else {
            self.open.lost += 1;
        }
    }

    fn take_back(&mut self, report: &PacketReport) {
        let windows = std::iter::once(&mut self.open).chain(self.windows.iter_mut().rev().take(2));
        if let Some(window) = windows.into_iter().find(|window| window.lost > 0)
            && report.arrived_us.is_some()
        {
            window.lost -= 1;
            window.arrived_bytes += u64::from(report.bytes);
        }
    }

    fn close(&mut self, window: Window, calm: bool) {
        if calm {
            self.calm_windows += 1;
            let share = (1.0 / f64::from(self.calm_windows)).max(0.1);
            self.calm += share * (window.loss() - self.calm);
        }
        self.windows.push_back(window);
        if self.windows.len() > WINDOWS_MAX {
            self.windows.pop_front();
        }
        self.open = Window::default();
        self.fresh = true;
    }

    /// Loss of about the last second; `None` before anything is known.
    pub fn share(&self) -> Option<f32> {
        let mut sum = self.open;
        for window in self.windows.iter().rev().take(WINDOWS_TOLD) {
            sum.add(window);
        }
        (sum.packets > 0).then(|| sum.loss() as f32)
    }

    /// Loss while the queue is empty.
    pub fn inherent(&self) -> f64 {
        self.calm
    }

    /// Whether more is lost now than when the queue was empty.
    pub fn is_losing(&self) -> bool {
        let mut sum = self.open;
        if sum.packets < WINDOW_PACKETS
            && let Some(window) = self.windows.back()
        {
            sum.add(window);
        }
        sum.lost >= 2 && sum.loss() > self.calm + EXCESS
    }

    /// Bits a second that get through, where loss says by itself that no more do. Asked after each feedback.
    pub fn congestion(&mut self) -> Option<f64> {
        if !std::mem::take(&mut self.fresh) || self.windows.len() < WINDOWS_PRESENT {
            return None;
        }
        let (mut present, mut lower) = (Window::default(), Window::default());
        let recent = self.windows.len() - WINDOWS_PRESENT;
        for window in self.windows.iter().skip(recent) {
            present.add(window);
        }
        let rate_bps = present.rate_bps(present.bytes);
        for window in self.windows.iter().take(recent) {
            if window.rate_bps(window.bytes) < LOWER * rate_bps {
                lower.add(window);
            }
        }
        if let Some(arrived_bps) = self.hopeless() {
            return Some(arrived_bps);
        }
        let arrived_bps = present.rate_bps(present.arrived_bytes);
        if lower.packets < 2 * WINDOW_PACKETS {
            return None;
        }
        // A burst into a short queue loses much in one window; congestion does in all.
        let lasting = self.windows.iter().skip(recent).all(|window| window.loss() > lower.loss() + EXCESS);
        let deviation = (present.variance() + lower.variance()).sqrt();
        let excess = present.loss() - lower.loss();
        (lasting && excess > SIGNIFICANT * deviation).then(|| arrived_bps / (1.0 - lower.loss()).max(0.5))
    }

    /// Bits a second that get through where most is lost, so that this alone tells of congestion.
    fn hopeless(&self) -> Option<f64> {
        let latest = || self.windows.iter().rev().take(WINDOWS_HOPELESS);
        let mut sum = Window::default();
        latest().for_each(|window| sum.add(window));
        let usual = Window { packets: sum.packets, lost: (self.calm * f64::from(sum.packets)) as u32, ..sum };
        let most = HOPELESS.max(self.calm + SIGNIFICANT * usual.variance().sqrt());
        (sum.loss() > most && latest().all(|window| window.loss() > HOPELESS))
            .then(|| sum.rate_bps(sum.arrived_bytes))
    }
}
