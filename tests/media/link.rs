//! One direction of an emulated path: bandwidth with a drop-tail queue, delay, jitter, loss, reordering.
//!
//! Virtual time and a seed: the same datagrams at the same instants meet the same fate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// IPv4 and UDP headers, which a link carries too.
const HEADERS_LEN: usize = 28;

/// How bad a path is.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// Propagation, one way.
    pub delay: Duration,
    /// Added to each datagram, uniform from zero; order is kept.
    pub jitter: Duration,
    /// Share of datagrams that vanish.
    pub loss: f64,
    /// Share of datagrams that are held back for [`Conditions::held_back`], so that others overtake them.
    pub reordered: f64,
    pub held_back: Duration,
    /// Bits per second, headers included; none for no limit.
    pub rate_bps: Option<u64>,
    /// What the bottleneck's queue holds, as time at its rate; beyond it datagrams are dropped.
    pub queue: Duration,
}

impl Default for Conditions {
    /// A good path: 20 ms, nothing lost.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            reordered: 0.0,
            held_back: Duration::from_millis(15),
            rate_bps: None,
            queue: Duration::from_millis(300),
        }
    }
}

/// A datagram under way.
#[derive(Debug, Clone)]
pub struct Datagram {
    pub source: SocketAddr,
    pub contents: Vec<u8>,
}

/// What became of the datagrams so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    pub offered: u64,
    pub offered_bytes: u64,
    /// Vanished at random.
    pub lost: u64,
    /// Found the queue full.
    pub dropped: u64,
    pub delivered: u64,
}

/// One direction of a path.
pub struct Link {
    pub conditions: Conditions,
    rng: StdRng,
    /// When the bottleneck has sent all that it queues.
    idle_at: Instant,
    last_arrival: Instant,
    under_way: BTreeMap<(Instant, u64), Datagram>,
    carried: Carried,
}

impl Link {
    pub fn new(now: Instant, seed: u64, conditions: Conditions) -> Self {
        Self {
            conditions,
            rng: StdRng::seed_from_u64(seed),
            idle_at: now,
            last_arrival: now,
            under_way: BTreeMap::new(),
            carried: Carried::default(),
        }
    }

    pub fn carried(&self) -> Carried {
        self.carried
    }

    /// Bytes on the wire for a datagram of this length.
    pub fn wire_len(contents_len: usize) -> u64 {
        (contents_len + HEADERS_LEN) as u64
    }

    /// A datagram enters the path.
    pub fn handle(&mut self, now: Instant, datagram: Datagram) {
        let conditions = self.conditions;
        let wire_len = Self::wire_len(datagram.contents.len());
        self.carried.offered += 1;
        self.carried.offered_bytes += wire_len;
        let mut leaves = now;
        if let Some(rate_bps) = conditions.rate_bps {
            let starts = self.idle_at.max(now);
            if starts - now > conditions.queue {
                self.carried.dropped += 1;
                return;
            }
            leaves = starts + Duration::from_secs_f64(wire_len as f64 * 8.0 / rate_bps as f64);
            self.idle_at = leaves;
        }
        if self.rng.random::<f64>() < conditions.loss {
            self.carried.lost += 1;
            return;
        }
        let arrival = leaves + conditions.delay + conditions.jitter.mul_f64(self.rng.random());
        let arrival = if self.rng.random::<f64>() < conditions.reordered {
            arrival + conditions.held_back
        } else {
            self.last_arrival = self.last_arrival.max(arrival);
            self.last_arrival
        };
        self.under_way.insert((arrival, self.carried.offered), datagram);
    }

    /// When the next datagram arrives.
    pub fn timeout(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next datagram that has arrived by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Datagram> {
        let entry = self.under_way.first_entry().filter(|entry| entry.key().0 <= now)?;
        self.carried.delivered += 1;
        Some(entry.remove())
    }
}

mod tests {
    use super::*;

    fn datagram(number: u16) -> Datagram {
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        let mut contents = number.to_be_bytes().to_vec();
        contents.resize(1000 - HEADERS_LEN, 0);
        Datagram { source: address, contents }
    }

    /// Sends 1000 datagrams of 1000 bytes at 1 Mbit/s, and says in which order which arrived, and when.
    fn run(conditions: Conditions) -> (Vec<u16>, Vec<Duration>, Carried) {
        let start = Instant::now();
        let mut link = Link::new(start, 7, conditions);
        let (mut order, mut times) = (Vec::new(), Vec::new());
        for number in 0..1000u16 {
            let sent = start + Duration::from_millis(8) * u32::from(number);
            link.handle(sent, datagram(number));
        }
        while let Some(at) = link.timeout() {
            while let Some(arrived) = link.poll(at) {
                let number = u16::from_be_bytes([arrived.contents[0], arrived.contents[1]]);
                order.push(number);
                times.push(at - start - Duration::from_millis(8) * u32::from(number));
            }
        }
        (order, times, link.carried())
    }

    #[test]
    fn a_good_path_only_delays() {
        let (order, times, _) = run(Conditions::default());
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
        assert!(times.iter().all(|time| *time == Duration::from_millis(20)));
    }

    #[test]
    fn loss_and_reordering_have_their_share_and_repeat_from_the_seed() {
        let conditions = Conditions { loss: 0.1, reordered: 0.05, ..Conditions::default() };
        let (order, _, carried) = run(conditions);
        assert!((70..130).contains(&carried.lost), "{}", carried.lost);
        let overtaken = order.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!((25..75).contains(&overtaken), "{overtaken}");
        assert_eq!(run(conditions).0, order);
    }

    #[test]
    fn jitter_keeps_order() {
        let (order, times, _) =
            run(Conditions { jitter: Duration::from_millis(30), ..Conditions::default() });
        assert!(order.is_sorted());
        assert!(times.iter().all(|time| (20..=50).contains(&(time.as_millis() as u64))));
        assert!(times.iter().any(|time| time.as_millis() > 40));
    }

    #[test]
    fn a_bottleneck_carries_its_rate_and_drops_what_its_queue_cannot_hold() {
        let (order, times, carried) = run(Conditions { rate_bps: Some(500_000), ..Conditions::default() });
        let expected = (500 + 18)..(500 + 22);
        assert!(expected.contains(&order.len()), "{}", order.len());
        assert_eq!(carried.dropped + carried.delivered, 1000);
        assert!(times.iter().all(|time| time.as_millis() <= 20 + 300 + 16));
    }
}
