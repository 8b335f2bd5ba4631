//! A server and its clients, each behind a path of its own, in virtual time: nothing sleeps.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use antiphon::bench::client::Client;

use crate::link::{Conditions, Datagram, Link};

/// More steps than this without time passing: something demands attention at once for ever.
const STEPS_AT_ONE_INSTANT_MAX: u32 = 100_000;

/// Where the server listens.
pub const SERVER: ([u8; 4], u16) = ([10, 0, 1, 1], 7882);

/// What the clients talk to.
pub trait Server {
    fn handle_datagram(&mut self, now: Instant, source: SocketAddr, contents: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    /// When it wants [`Server::handle_timeout`]; `idle_until` if it does not.
    fn timeout(&self, idle_until: Instant) -> Instant;
    /// The next datagram to send, and to whom.
    fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)>;
}

/// A client behind its path.
pub struct Site {
    pub client: Client,
    pub address: SocketAddr,
    /// To the server.
    pub up: Link,
    /// From the server.
    pub down: Link,
}

/// A star: every client has its own path to the one server.
pub struct World<S> {
    pub server: S,
    pub sites: Vec<Site>,
    start: Instant,
    now: Instant,
    seed: u64,
}

impl<S: Server> World<S> {
    /// `start` is instant 0 of stamps and of [`World::elapsed`].
    pub fn new(start: Instant, seed: u64, server: S) -> Self {
        Self { server, sites: Vec::new(), start, now: start, seed }
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    pub fn start(&self) -> Instant {
        self.start
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The address that the next client will have.
    pub fn next_address(&self) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, self.sites.len() as u8 + 1], 5000))
    }

    /// Adds a client whose offer was answered. Returns its index.
    pub fn add(&mut self, client: Client, conditions: Conditions) -> usize {
        let address = self.next_address();
        let seed = self.seed.wrapping_mul(1_000).wrapping_add(self.sites.len() as u64 * 2);
        let link = |seed| Link::new(self.now, seed, conditions);
        self.sites.push(Site { client, address, up: link(seed), down: link(seed + 1) });
        self.sites.len() - 1
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(end, |_| false);
        self.now = end;
    }

    /// Lets time pass until `done`, or `limit` at most. False if it was not done by then.
    pub fn run_until_done(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.run_until(end, done)
    }

    fn run_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) -> bool {
        let mut steps_at_now = 0;
        loop {
            self.step();
            if done(self) {
                return true;
            }
            let next = self.timeout(end + Duration::from_secs(1)).max(self.now);
            if next > end {
                return false;
            }
            steps_at_now = if next == self.now { steps_at_now + 1 } else { 0 };
            assert!(steps_at_now < STEPS_AT_ONE_INSTANT_MAX, "time stands still at {:?}", self.elapsed());
            self.now = next;
        }
    }

    fn timeout(&self, idle_until: Instant) -> Instant {
        let sites = self.sites.iter().flat_map(|site| {
            [Some(site.client.timeout()), site.up.timeout(), site.down.timeout()].into_iter().flatten()
        });
        sites.fold(self.server.timeout(idle_until), Instant::min)
    }

    /// All that is due now.
    fn step(&mut self) {
        let now = self.now;
        for site in &mut self.sites {
            while let Some(datagram) = site.up.poll(now) {
                self.server.handle_datagram(now, datagram.source, &datagram.contents);
            }
            while let Some(datagram) = site.down.poll(now) {
                let handled = site.client.handle_datagram(now, now, datagram.source, &datagram.contents);
                handled.expect("the client goes on");
            }
            if site.client.timeout() <= now {
                site.client.handle_timeout(now).expect("the client goes on");
            }
            while let Some(transmit) = site.client.poll_transmit() {
                let contents = transmit.contents.to_vec();
                site.up.handle(now, Datagram { source: transmit.source, contents });
            }
        }
        if self.server.timeout(now + Duration::from_secs(1)) <= now {
            self.server.handle_timeout(now);
        }
        while let Some((destination, contents)) = self.server.poll_transmit() {
            let site = self.sites.iter_mut().find(|site| site.address == destination);
            if let Some(site) = site {
                site.down.handle(now, Datagram { source: SERVER.into(), contents });
            }
        }
    }
}
