//! The network between two nodes, for a test that wants it worse than loopback: UDP is passed on, or lost, or
//! held to a rate.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a bottleneck's queue holds.
const QUEUE: Duration = Duration::from_millis(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A way to one port of this machine, from all who send to [`Path::port`].
pub struct Path {
    port: u16,
    conditions: Arc<Conditions>,
}

#[derive(Default)]
struct Conditions {
    over: AtomicBool,
    cut: AtomicBool,
    /// Of a thousand datagrams, either way.
    lost: AtomicU64,
    /// Back to who sends to the port; 0 for no limit.
    bits_per_second: AtomicU64,
    /// To the port, likewise.
    bits_per_second_in: AtomicU64,
}

impl Path {
    pub fn to(port: u16) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let own = front.local_addr().expect("its address").port();
        let conditions = Arc::<Conditions>::default();
        let shared = Arc::clone(&conditions);
        std::thread::spawn(move || carry(Arc::new(front), port, shared));
        Self { port: own, conditions }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Nothing comes through, or all again.
    pub fn cut(&self, cut: bool) {
        self.conditions.cut.store(cut, Ordering::Relaxed);
    }

    pub fn lose(&self, of_a_thousand: u64) {
        self.conditions.lost.store(of_a_thousand, Ordering::Relaxed);
    }

    pub fn limit(&self, bits_per_second: u64) {
        self.conditions.bits_per_second.store(bits_per_second, Ordering::Relaxed);
    }

    /// The same of what is sent to the port.
    pub fn limit_in(&self, bits_per_second: u64) {
        self.conditions.bits_per_second_in.store(bits_per_second, Ordering::Relaxed);
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.conditions.over.store(true, Ordering::Relaxed);
    }
}

impl Conditions {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn loses(&self, count: &mut u64) -> bool {
        // Spread by a multiplier, so that each run loses the same.
        *count = count.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.cut.load(Ordering::Relaxed) || (*count >> 33) % 1_000 < self.lost.load(Ordering::Relaxed)
    }
}

/// A bottleneck, which passes a datagram at once and drops what would have to wait for longer than a queue.
struct Bottleneck {
    free_at: Instant,
}

impl Bottleneck {
    fn new() -> Self {
        Self { free_at: Instant::now() }
    }

    fn passes(&mut self, bytes: usize, bits_per_second: u64) -> bool {
        if bits_per_second == 0 {
            return true;
        }
        let now = Instant::now();
        self.free_at = self.free_at.max(now);
        let passes = self.free_at - now <= QUEUE;
        if passes {
            self.free_at += Duration::from_secs_f64(bytes as f64 * 8.0 / bits_per_second as f64);
        }
        passes
    }
}

fn carry(front: Arc<UdpSocket>, port: u16, conditions: Arc<Conditions>) {
    let mut ways: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut buffer = [0; 2_048];
    let mut count = 1;
    let mut bottleneck = Bottleneck::new();
    front.set_read_timeout(Some(LOOK_EVERY)).expect("it is taken");
    while !conditions.is_over() {
        let Ok((length, from)) = front.recv_from(&mut buffer) else { continue };
        let limit = conditions.bits_per_second_in.load(Ordering::Relaxed);
        if conditions.loses(&mut count) || !bottleneck.passes(length, limit) {
            continue;
        }
        let way = ways.entry(from).or_insert_with(|| {
            let way = Arc::new(UdpSocket::bind("127.0.0.1:0").expect("a free port"));
            way.connect(("127.0.0.1", port)).expect("an address");
            way.set_read_timeout(Some(LOOK_EVERY)).expect("it is taken");
            let (back, front, conditions) = (Arc::clone(&way), Arc::clone(&front), Arc::clone(&conditions));
            std::thread::spawn(move || carry_back(&back, &front, from, &conditions));
            way
        });
        // A node that is gone takes nothing.
        let _ = way.send(&buffer[..length]);
    }
}

fn carry_back(back: &UdpSocket, front: &UdpSocket, to: SocketAddr, conditions: &Conditions) {
    let mut buffer = [0; 2_048];
    let mut count = 7;
    let mut bottleneck = Bottleneck::new();
    while !conditions.is_over() {
        let Ok(length) = back.recv(&mut buffer) else { continue };
        let limit = conditions.bits_per_second.load(Ordering::Relaxed);
        if !conditions.loses(&mut count) && bottleneck.passes(length, limit) {
            let _ = front.send_to(&buffer[..length], to);
        }
    }
}
