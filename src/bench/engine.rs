//! The loop that drives all clients over real UDP: one thread, one epoll, one socket for each client.
//!
//! Datagrams are received singly unless runs are asked for ([`Engine::reads_runs`]), so that a server's use
//! of GSO is not flattered by a receiver that never splits its packets: on loopback the splitting is charged
//! to the server, as a network card's driver would be. A socket that is full drops, as a network does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use smallvec::SmallVec;
use str0m::net::Transmit;

use super::burst;
use super::client::{Channel, Client, ClientError, Offer};
use super::receive::{self, Received};

/// Wakes the loop for an answer; no client has this number.
const ANSWER: Token = Token(usize::MAX);
/// Shortest time between two wake-ups of one client, so that none can keep the loop busy.
const REST: Duration = Duration::from_micros(250);
/// Receive buffer asked of the kernel for each socket: half a second of 50 Mbit/s.
const RECEIVE_BUFFER_LEN: usize = 4 << 20;

/// A client and its socket.
pub struct Seat {
    pub client: Client,
    /// Why it is out, once it is.
    pub failure: Option<String>,
    /// When its joining began.
    pub joined_at: Option<Instant>,
    /// Of all datagrams that came.
    pub received_bytes: u64,
    pub received_packets: u64,
    socket: UdpSocket,
    /// The earliest entry of this seat in the queue of wake-ups.
    scheduled: Option<Instant>,
}

/// Datagrams through all sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    pub received: u64,
    pub received_bytes: u64,
    pub sent: u64,
    pub sent_bytes: u64,
    /// Not sent because a socket was full.
    pub unsent: u64,
}

/// All clients of a run.
pub struct Engine {
    pub seats: Vec<Seat>,
    /// Instant 0 of the stamps.
    pub base: Instant,
    pub traffic: Traffic,
    /// What comes as a run is read as one (GRO), but for loopback: about a quarter less work for this loop. A
    /// server on the same machine interrupts this loop's core more often then, which is charged to it.
    pub reads_runs: bool,
    local: IpAddr,
    poll: Poll,
    events: Events,
    /// Seats that have something to read, in this turn.
    ready: Vec<usize>,
    wakes: BinaryHeap<Reverse<(Instant, usize)>>,
    buffer: Vec<u8>,
}

impl Engine {
    /// Clients will be at `local`.
    ///
    /// # Errors
    /// The system has no epoll to give.
    pub fn new(local: IpAddr) -> io::Result<Self> {
        Ok(Self {
            seats: Vec::new(),
            base: Instant::now(),
            traffic: Traffic::default(),
            reads_runs: false,
            local,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            ready: Vec::new(),
            wakes: BinaryHeap::new(),
            buffer: vec![0; 65_536],
        })
    }

    /// What announces an answer to this loop.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn waker(&self) -> io::Result<Arc<Waker>> {
        Ok(Arc::new(Waker::new(self.poll.registry(), ANSWER)?))
    }

    /// Adds a client that offers. Returns its seat and its SDP offer.
    ///
    /// # Errors
    /// The system has no more sockets, or the address cannot be used.
    pub fn add(&mut self, offer: Offer) -> io::Result<(usize, String)> {
        let base = self.base;
        self.place(|local| Client::new(Instant::now(), base, local, offer))
    }

    /// Adds a client that waits for the server's offer. Returns its seat.
    ///
    /// # Errors
    /// The system has no more sockets, or the address cannot be used.
    pub fn add_answering(&mut self) -> io::Result<usize> {
        let base = self.base;
        let placed = self
            .place(|local| Client::answering(Instant::now(), base, local, false).map(|client| (client, ())));
        placed.map(|(seat, ())| seat)
    }

    fn place<T>(
        &mut self,
        make: impl FnOnce(SocketAddr) -> Result<(Client, T), ClientError>,
    ) -> io::Result<(usize, T)> {
        let mut socket = UdpSocket::bind(SocketAddr::new(self.local, 0))?;
        // A smaller buffer than asked for is no failure; what it loses is counted as loss.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_LEN);
        receive::note_times(&socket)?;
        if self.reads_runs && !self.local.is_loopback() {
            receive::join_runs(&socket)?;
        }
        let seat = self.seats.len();
        self.poll.registry().register(&mut socket, Token(seat), Interest::READABLE)?;
        let (client, made) =
            make(socket.local_addr()?).map_err(|error| io::Error::other(error.to_string()))?;
        self.seats.push(Seat {
            client,
            failure: None,
            joined_at: None,
            received_bytes: 0,
            received_packets: 0,
            socket,
            scheduled: None,
        });
        Ok((seat, made))
    }

    /// Hands a client its answer.
    pub fn answer(&mut self, seat: usize, sdp: &str) {
        self.tell(seat, |client, now| client.accept_answer(now, sdp));
    }

    /// Hands a client an offer of the server. Returns its answer; none if it cannot go on.
    pub fn offer(&mut self, seat: usize, sdp: &str) -> Option<String> {
        let mut answer = None;
        self.tell(seat, |client, now| {
            answer = Some(client.accept_offer(now, sdp)?);
            Ok(())
        });
        answer
    }

    /// Hands a client a candidate of the server.
    pub fn candidate(&mut self, seat: usize, candidate: &str) {
        self.tell(seat, |client, now| client.add_candidate(now, candidate));
    }

    /// Sends on a client's data channel; false while it cannot.
    pub fn send(&mut self, seat: usize, to: Channel, data: &[u8]) -> bool {
        let mut is_sent = false;
        self.tell(seat, |client, now| {
            is_sent = client.send_message(now, to, data)?;
            Ok(())
        });
        is_sent
    }

    fn tell(&mut self, seat: usize, what: impl FnOnce(&mut Client, Instant) -> Result<(), ClientError>) {
        let now = Instant::now();
        if let Some(place) = self.seats.get_mut(seat) {
            let done = what(&mut place.client, now);
            place.settle(seat, now, done, &mut self.wakes, &mut self.traffic);
        }
    }

    /// Waits for what comes next, until `limit` at the latest, and does it.
    ///
    /// # Errors
    /// The system's polling failed.
    pub fn turn(&mut self, limit: Instant) -> io::Result<()> {
        self.wake();
        let next = self.wakes.peek().map_or(limit, |Reverse((at, _))| (*at).min(limit));
        let wait = next.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.ready.clear();
        self.ready.extend(self.events.iter().map(|event| event.token().0));
        for at in 0..self.ready.len() {
            let seat = self.ready[at];
            if let Some(place) = self.seats.get_mut(seat) {
                place.receive(seat, &mut self.buffer, &mut self.wakes, &mut self.traffic);
            }
            // Who sends is not to wait for all who receive: they would send at once then, which no people do.
            self.wake();
        }
        Ok(())
    }

    /// Lets every client do what is due by now. Each at an instant of its own, as that is when it sends:
    /// with the pass's, a server would answer for the time that this loop spent on the clients before.
    fn wake(&mut self) {
        let until = Instant::now();
        while let Some(Reverse((_, seat))) =
            self.wakes.peek().filter(|Reverse((at, _))| *at <= until).copied()
        {
            let now = Instant::now();
            self.wakes.pop();
            let Some(place) = self.seats.get_mut(seat).filter(|place| place.failure.is_none()) else {
                continue;
            };
            // An entry that a later, earlier one has replaced.
            if place.scheduled.is_none_or(|scheduled| scheduled > now) {
                continue;
            }
            place.scheduled = None;
            let due = place.client.timeout() <= now;
            let done = if due { place.client.handle_timeout(now) } else { Ok(()) };
            place.settle(seat, now, done, &mut self.wakes, &mut self.traffic);
        }
    }
}

type Wakes = BinaryHeap<Reverse<(Instant, usize)>>;

impl Seat {
    fn receive(&mut self, seat: usize, buffer: &mut [u8], wakes: &mut Wakes, traffic: &mut Traffic) {
        // Readiness is told once: read until there is nothing left.
        while let Ok(received) = receive::receive(&self.socket, buffer) {
            let Received { len, datagram_len, source, arrived, now } = received;
            let Some(run) = buffer.get(..len) else { continue };
            let mut handled = Ok(());
            for datagram in run.chunks(datagram_len) {
                traffic.received += 1;
                traffic.received_bytes += datagram.len() as u64;
                self.received_bytes += datagram.len() as u64;
                self.received_packets += 1;
                if self.failure.is_none() && handled.is_ok() {
                    handled = self.client.handle_datagram(now, arrived, source, datagram);
                }
            }
            if self.failure.is_none() {
                self.settle(seat, now, handled, wakes, traffic);
            }
        }
    }

    /// After every call into the client: send what it has to send, and note when it wants to be woken.
    fn settle(
        &mut self,
        seat: usize,
        now: Instant,
        done: Result<(), ClientError>,
        wakes: &mut Wakes,
        traffic: &mut Traffic,
    ) {
        if let Err(error) = done {
            self.failure = Some(error.to_string());
        }
        let transmits: SmallVec<[Transmit; 16]> =
            std::iter::from_fn(|| self.client.poll_transmit()).collect();
        let datagrams = transmits.iter().map(|transmit| (transmit.destination, &transmit.contents[..]));
        let sent = burst::send(&self.socket, datagrams);
        traffic.sent += sent.datagrams;
        traffic.sent_bytes += sent.bytes;
        traffic.unsent += sent.refused;
        let at = self.client.timeout().max(now + REST);
        if self.scheduled.is_none_or(|scheduled| at < scheduled) {
            self.scheduled = Some(at);
            wakes.push(Reverse((at, seat)));
        }
    }
}
