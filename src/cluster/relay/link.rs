//! One connection between two nodes: packets by datagrams, each kept for a second to be sent again, and
//! streams for all else.
//!
//! Its locks are held for a look or a push, never while something is waited for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{Counter, counter, gauge};
use quinn::{Connection, SendDatagramError};
use tokio::sync::{Semaphore, mpsc};

use super::locked;
use crate::core::relay::budget::Budget;
use crate::core::relay::resend::{Gaps, Kept};
use crate::core::relay::wire::{Datagram, OVERSIZE_BYTES_MAX, encode_media};
use crate::core::relay::{Data, Packet};

/// Bytes that may wait to be sent: the oldest go when it is full. Far below it encodings are withheld.
pub const SEND_BUFFER_BYTES: usize = 1 << 20;
/// Packets and data that may wait for one branch. Full: they are dropped and counted.
const ROUTE_DEPTH: usize = 2_048;
/// Packets too large for a datagram that may be on their way at a time. Full: they are dropped and counted.
const OVERSIZE_AT_ONCE: usize = 256;
/// How often it is looked for what is missing, while something is.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How often it is looked at what waits to be sent.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See the module.
pub struct Link {
    pub connection: Connection,
    sending: Mutex<Sending>,
    /// Where packets go, by the branch that they are for or from.
    routes: Mutex<BTreeMap<u32, mpsc::Sender<Carried>>>,
    last_branch: AtomicU32,
    oversize: Arc<Semaphore>,
    counts: Counts,
}

#[derive(Default)]
struct Sending {
    kept: Kept,
    budget: Budget,
    /// Encodings carried and withheld, as last told.
    told: (usize, usize),
}

struct Counts {
    sent: Counter,
    received: Counter,
    resent: Counter,
    bytes_sent: Counter,
    bytes_received: Counter,
    lost: Counter,
    full: Counter,
    withheld: Counter,
}

impl Counts {
    fn new() -> Self {
        let packets = |way: &'static str| counter!("antiphon_relay_packets_total", "way" => way);
        let bytes = |way: &'static str| counter!("antiphon_relay_bytes_total", "way" => way);
        let dropped = |reason: &'static str| counter!("antiphon_relay_dropped_total", "reason" => reason);
        Self {
            sent: packets("sent"),
            received: packets("received"),
            resent: packets("resent"),
            bytes_sent: bytes("sent"),
            bytes_received: bytes("received"),
            lost: dropped("lost"),
            full: dropped("full"),
            withheld: dropped("withheld"),
        }
    }
}

/// What a link carries that may be lost.
#[derive(Debug)]
pub enum Carried {
    Packet(Packet),
    Data(Data),
}

/// What comes over a link for a branch, or from it.
pub struct Route {
    pub branch: u32,
    pub carried: mpsc::Receiver<Carried>,
    link: Arc<Link>,
}

impl Route {
    /// Sends packets to the other side, as far as the link carries them.
    pub fn send(&self, packets: &[Packet]) {
        self.link.send(self.branch, packets);
    }

    /// Sends application data likewise, once.
    pub fn send_data(&self, data: Data) {
        self.link.transmit(Datagram::Data { branch: self.branch, data }.encode());
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        locked(&self.link.routes).remove(&self.branch);
    }
}

impl Link {
    /// Takes a connection over; its tasks end with it.
    pub fn start(connection: Connection) -> Arc<Self> {
        let link = Arc::new(Self {
            connection,
            sending: Mutex::default(),
            routes: Mutex::default(),
            last_branch: AtomicU32::new(0),
            oversize: Arc::new(Semaphore::new(OVERSIZE_AT_ONCE)),
            counts: Counts::new(),
        });
        let (large, larges) = mpsc::channel(OVERSIZE_AT_ONCE);
        tokio::spawn(take_oversize(link.connection.clone(), large));
        tokio::spawn(Arc::clone(&link).read(larges));
        link
    }

    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// A branch of ours whose packets come over this link, under a number of our own.
    pub fn route(self: &Arc<Self>) -> Route {
        self.route_of(self.last_branch.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    /// A branch of the other node, under the number that it has chosen: who dials numbers.
    pub fn route_of(self: &Arc<Self>, branch: u32) -> Route {
        let (sender, carried) = mpsc::channel(ROUTE_DEPTH);
        locked(&self.routes).insert(branch, sender);
        Route { branch, carried, link: Arc::clone(self) }
    }

    /// Sends packets to a branch beyond this link, as far as it carries them.
    pub fn send(&self, branch: u32, packets: &[Packet]) {
        let now = Instant::now();
        let mut datagrams = Vec::with_capacity(packets.len());
        {
            let mut sending = locked(&self.sending);
            for packet in packets {
                let flow = (branch, packet.origin, packet.line, packet.encoding);
                if packet.format.codec.is_video() && !sending.budget.admit(now, flow, packet.payload.len()) {
                    self.counts.withheld.increment(1);
                    continue;
                }
                let datagram = encode_media(sending.kept.next_seq_no(), branch, packet);
                sending.kept.push(now, datagram.clone());
                sending.budget.note_sent();
                datagrams.push(datagram);
            }
        }
        self.counts.sent.increment(datagrams.len() as u64);
        datagrams.into_iter().for_each(|datagram| self.transmit(datagram));
    }

    fn transmit(&self, datagram: Bytes) {
        self.counts.bytes_sent.increment(datagram.len() as u64);
        let fits = self.connection.max_datagram_size().is_some_and(|most| datagram.len() <= most);
        if fits
            && !matches!(self.connection.send_datagram(datagram.clone()), Err(SendDatagramError::TooLarge))
        {
            return;
        }
        // Until the path is known to carry more, and where it does not, it goes as a stream of its own.
        let Ok(permit) = Arc::clone(&self.oversize).try_acquire_owned() else {
            return self.counts.full.increment(1);
        };
        let connection = self.connection.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Ok(mut stream) = connection.open_uni().await {
                // A link that is gone takes its packets with it.
                let _ = stream.write_all(&datagram).await;
                let _ = stream.finish();
            }
        });
    }

    async fn read(self: Arc<Self>, mut larges: mpsc::Receiver<Bytes>) {
        let open = gauge!("antiphon_relay_links");
        open.increment(1.0);
        let mut gaps = Gaps::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut asked_at = Instant::now();
        loop {
            tokio::select! {
                datagram = self.connection.read_datagram() => match datagram {
                    Ok(datagram) => self.take(&mut gaps, &datagram),
                    Err(_) => break,
                },
                Some(large) = larges.recv() => self.take(&mut gaps, &large),
                () = tokio::time::sleep(ASK_EVERY), if gaps.has_missing() => {}
                _ = look.tick() => self.look(),
            }
            let now = Instant::now();
            if gaps.has_missing() && now.saturating_duration_since(asked_at) >= ASK_EVERY {
                asked_at = now;
                self.ask(&mut gaps, now);
            }
        }
        locked(&self.routes).clear();
        self.tell((0, 0));
        open.decrement(1.0);
    }

    fn take(&self, gaps: &mut Gaps, bytes: &[u8]) {
        match Datagram::decode(bytes) {
            Ok(Datagram::Media { seq_no, branch, packet }) => {
                self.counts.bytes_received.increment(bytes.len() as u64);
                if !gaps.handle(Instant::now(), seq_no) {
                    return;
                }
                self.counts.received.increment(1);
                self.hand_on(branch, Carried::Packet(packet));
            }
            Ok(Datagram::Data { branch, data }) => {
                self.counts.bytes_received.increment(bytes.len() as u64);
                self.hand_on(branch, Carried::Data(data));
            }
            Ok(Datagram::Missing(named)) => {
                let found: Vec<Bytes> = {
                    let mut sending = locked(&self.sending);
                    sending.budget.note_missing(named.len());
                    named.into_iter().filter_map(|seq_no| sending.kept.find(seq_no)).collect()
                };
                self.counts.resent.increment(found.len() as u64);
                found.into_iter().for_each(|datagram| self.transmit(datagram));
            }
            Err(error) => tracing::debug!(%error, "a datagram of another node is passed over"),
        }
    }

    fn hand_on(&self, branch: u32, carried: Carried) {
        // What is for a branch that is no more concerns nobody.
        let route = locked(&self.routes).get(&branch).cloned();
        if route.is_some_and(|route| route.try_send(carried).is_err()) {
            self.counts.full.increment(1);
        }
    }

    fn ask(&self, gaps: &mut Gaps, now: Instant) {
        let named = gaps.poll_missing(now, self.connection.rtt());
        self.counts.lost.increment(gaps.take_lost());
        if !named.is_empty() {
            // If it is lost, it is asked again.
            let _ = self.connection.send_datagram(Datagram::Missing(named).encode());
        }
    }

    /// Looks whether the link carries what is sent.
    fn look(&self) {
        let waits = SEND_BUFFER_BYTES.saturating_sub(self.connection.datagram_send_buffer_space());
        let (changed, figures) = {
            let mut sending = locked(&self.sending);
            let changed = sending.budget.handle_backlog(Instant::now(), waits);
            let withheld = sending.budget.withheld();
            (changed, (sending.budget.flows() - withheld, withheld))
        };
        if changed {
            tracing::info!(
                withheld = figures.1,
                waiting_bytes = waits,
                "a link to another node carries other encodings than before"
            );
        }
        self.tell(figures);
    }

    fn tell(&self, figures: (usize, usize)) {
        let before = std::mem::replace(&mut locked(&self.sending).told, figures);
        let gauge = |state: &'static str| gauge!("antiphon_relay_encodings", "state" => state);
        gauge("carried").increment(figures.0 as f64 - before.0 as f64);
        gauge("withheld").increment(figures.1 as f64 - before.1 as f64);
    }
}

/// Packets that came as streams, being too large for a datagram.
async fn take_oversize(connection: Connection, large: mpsc::Sender<Bytes>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let large = large.clone();
        tokio::spawn(async move {
            if let Ok(bytes) = stream.read_to_end(OVERSIZE_BYTES_MAX).await {
                // As if the network had lost it.
                let _ = large.try_send(Bytes::from(bytes));
            }
        });
    }
}
