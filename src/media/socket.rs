//! The UDP sockets of one shard, one for each address family or address listened on, all on the shard's
//! port, and beside each of them, where the system can, one that RTCP comes to ([`super::steering`]).
//!
//! They are waited for to be readable, and never for room to send, which would wake the shard after each
//! datagram that has left. Receives batches (GRO, `recvmmsg`) through `quinn-udp`, and sends runs (GSO),
//! many with one call ([`super::batch`]), by `quinn-udp` where that cannot be. A full send buffer drops the
//! run and counts it: WebRTC recovers what is worth recovering, and the shard never waits to send.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use smallvec::SmallVec;
use socket2::{Domain, Socket, Type};

use super::batch::{self, Batch};
use super::outbox::Run;
use super::routes::Routes;
use super::steering;

/// Room for one GRO buffer.
const BUFFER_BYTES: usize = 65_536;
/// Asked of the kernel; it grants what `net.core.rmem_max` and `wmem_max` allow.
const KERNEL_BUFFER_BYTES: usize = 4 << 20;

/// The doorbell; no socket has this number.
const DOORBELL: Token = Token(usize::MAX);

/// Looks for RTCP after the last datagram of an address: at the highest rate of looking, half a minute of
/// them, within which everyone who is connected has to answer for consent (RFC 7675 §5.1).
const RTCP_LOOKS: u32 = 15_000;

/// A datagram as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    pub source: SocketAddr,
    /// The address of ours that it was sent to.
    pub destination: SocketAddr,
    pub bytes: &'a [u8],
}

/// The sockets of one address.
#[derive(Debug)]
pub struct Listening {
    media: std::net::UdpSocket,
    /// Where RTCP comes in; without it, where all does.
    rtcp: Option<std::net::UdpSocket>,
}

struct Bound {
    socket: UdpSocket,
    state: UdpSocketState,
    rtcp: Option<(std::net::UdpSocket, UdpSocketState)>,
    local: SocketAddr,
    /// What the kernel cuts a message into that does not say it; 0 where it is left whole.
    segment_bytes: usize,
    /// It may have something to read: it has become readable, and no look has found it empty since.
    is_readable: bool,
    /// The last look at `socket` brought something, and nothing was waited for since.
    is_lively: bool,
    /// Looks at `rtcp` that may bring something: everyone who is connected here says so from time to time.
    rtcp_looks: u32,
}

impl Bound {
    /// Whether a look at `socket` may bring something, by what is known without asking the kernel.
    fn may_have_media(&self) -> bool {
        self.is_lively || self.is_readable
    }

    /// Whether the kernel makes a run's datagrams out of its bytes, by what it was told last.
    fn segments(&self, run: &Run) -> bool {
        match run.datagrams {
            1 => self.segment_bytes == 0 || run.bytes <= self.segment_bytes,
            _ => self.segment_bytes == run.segment_bytes,
        }
    }

    /// Sees to it that it does. False where the system cannot.
    fn prepare_for(&mut self, run: &Run) -> bool {
        self.segments(run) || self.tell_segment(if run.datagrams == 1 { 0 } else { run.segment_bytes })
    }

    fn tell_segment(&mut self, bytes: usize) -> bool {
        let told = self.segment_bytes == bytes || batch::tell_segment(&self.socket, bytes);
        if told {
            self.segment_bytes = bytes;
        }
        told
    }
}

/// Ends a wait of the shard's from another thread.
struct Doorbell(mio::Waker);

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Refused only while it rings already.
        let _ = self.0.wake();
    }
}

pub struct MediaSocket {
    bound: Vec<Bound>,
    poll: Poll,
    events: Events,
    doorbell: Waker,
    buffers: Vec<Vec<u8>>,
    metas: [RecvMeta; BATCH_SIZE],
    local_ips: Vec<IpAddr>,
    routes: Routes,
    dropped_runs: u64,
}

/// What one look at the sockets brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received {
    pub datagrams: usize,
    /// There may be more at once.
    pub more: bool,
}

impl MediaSocket {
    /// Takes over sockets from [`bind`]. `local_ips` are this machine's.
    ///
    /// # Errors
    /// The kernel refuses what a UDP socket or waiting for it needs.
    pub fn new(listening: Vec<Listening>, local_ips: Vec<IpAddr>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let doorbell = Waker::from(Arc::new(Doorbell(mio::Waker::new(poll.registry(), DOORBELL)?)));
        let mut bound = Vec::new();
        for Listening { media, rtcp } in listening {
            let mut socket = UdpSocket::from_std(media);
            poll.registry().register(&mut socket, Token(bound.len()), Interest::READABLE)?;
            let state = prepare(&socket)?;
            let rtcp = rtcp.map(|rtcp| prepare(&rtcp).map(|state| (rtcp, state))).transpose()?;
            let local = socket.local_addr()?;
            bound.push(Bound {
                socket,
                state,
                rtcp,
                local,
                segment_bytes: 0,
                // Something may have come before it was watched.
                is_readable: true,
                is_lively: false,
                rtcp_looks: 0,
            });
        }
        let buffers = vec![vec![0; BUFFER_BYTES]; BATCH_SIZE];
        let (metas, routes) = ([RecvMeta::default(); BATCH_SIZE], Routes::default());
        let events = Events::with_capacity(bound.len() + 1);
        Ok(Self { bound, poll, events, doorbell, buffers, metas, local_ips, routes, dropped_runs: 0 })
    }

    /// Ends [`MediaSocket::wait`], from wherever it is woken, also if that comes first.
    pub fn doorbell(&self) -> &Waker {
        &self.doorbell
    }

    /// Waits until a socket may have something to read, the doorbell rings, or `until`, whichever is first.
    /// RTCP that is kept apart is not waited for.
    pub fn wait(&mut self, until: Instant) {
        if self.bound.iter().any(|bound| bound.is_readable) {
            return;
        }
        let timeout = until.saturating_duration_since(Instant::now());
        // An error is a signal's: the wait was a short one.
        let _ = self.poll.poll(&mut self.events, Some(timeout));
        for bound in &mut self.bound {
            bound.is_lively = false;
        }
        for event in &self.events {
            if let Some(bound) = self.bound.get_mut(event.token().0) {
                bound.is_readable = true;
            }
        }
    }

    /// Whether RTCP is kept apart anywhere, so that [`MediaSocket::recv_rtcp`] has to be called from time
    /// to time.
    pub fn has_rtcp_apart(&self) -> bool {
        self.bound.iter().any(|bound| bound.rtcp.is_some())
    }

    /// Hands over what waits in the sockets, at most one batch of each.
    pub fn recv_batch(&mut self, mut each: impl FnMut(Datagram<'_>)) -> Received {
        let mut received = Received::default();
        for bound in self.bound.iter_mut().filter(|bound| bound.may_have_media()) {
            let Bound { socket, state, local, .. } = bound;
            // An error is an ICMP report or an empty socket; neither concerns any one peer.
            let count = receive(state, (&*socket).into(), &mut self.buffers, &mut self.metas).unwrap_or(0);
            // Less than a batch was all: the next to come makes it readable anew.
            bound.is_readable &= count == BATCH_SIZE;
            hand_over(&self.metas[..count], &self.buffers, *local, &mut each);
            bound.is_lively = count > 0;
            if count > 0 {
                bound.rtcp_looks = RTCP_LOOKS;
            }
            received.datagrams += count;
            received.more |= count == BATCH_SIZE;
        }
        received
    }

    /// The same for RTCP that is kept apart.
    pub fn recv_rtcp(&mut self, mut each: impl FnMut(Datagram<'_>)) -> Received {
        let mut received = Received::default();
        for bound in self.bound.iter_mut().filter(|bound| bound.rtcp_looks > 0) {
            let Some((socket, state)) = &bound.rtcp else { continue };
            let count = receive(state, socket.into(), &mut self.buffers, &mut self.metas).unwrap_or(0);
            hand_over(&self.metas[..count], &self.buffers, bound.local, &mut each);
            bound.rtcp_looks = if count > 0 { RTCP_LOOKS } else { bound.rtcp_looks - 1 };
            received.datagrams += count;
            received.more |= count == BATCH_SIZE;
        }
        received
    }

    /// Sends runs, with one system call as many as can be that follow each other.
    pub fn send<'a>(&mut self, now: Instant, runs: impl Iterator<Item = (&'a Run, &'a [u8])>) {
        let (mut of, mut batch) = (0, Batch::new());
        for (run, bytes) in runs {
            let Some((at, named)) = self.way(now, run) else {
                self.dropped_runs += 1;
                continue;
            };
            let bound = &self.bound[at];
            let alone = named.is_some() || run.datagrams > bound.state.max_gso_segments();
            if alone || at != of || batch.len() >= batch::RUNS_MAX || !bound.segments(run) {
                self.send_batch(of, &mut batch);
            }
            if alone || !self.bound[at].prepare_for(run) {
                self.send_alone(at, named, run, bytes);
                continue;
            }
            of = at;
            batch.push((run, bytes));
        }
        self.send_batch(of, &mut batch);
    }

    fn send_batch(&mut self, at: usize, batch: &mut Batch<'_>) {
        if batch.is_empty() {
            return;
        }
        let sent = batch::send(&self.bound[at].socket, batch);
        // One by one the kernel says why it refuses, and what it cannot do is learnt.
        for (run, bytes) in batch.drain(..).skip(sent) {
            self.send_alone(at, None, run, bytes);
        }
    }

    /// The socket by which a run leaves, and the source where it has to be named.
    fn way(&mut self, now: Instant, run: &Run) -> Option<(usize, Option<IpAddr>)> {
        let source = Some(run.source).filter(|source| self.local_ips.contains(source));
        let at = self.bound.iter().position(|bound| {
            let ip = bound.local.ip();
            let family = ip.is_ipv4() == run.destination.is_ipv4();
            family && (ip.is_unspecified() || source.is_none_or(|source| source == ip))
        })?;
        let named = source.filter(|source| {
            self.bound[at].local.ip().is_unspecified()
                && !self.routes.is_chosen(now, run.destination, *source)
        });
        Some((at, named))
    }

    /// The kernel is told the source only where it is an address of this machine, and not the one that it
    /// would take anyway.
    fn send_alone(&mut self, at: usize, named: Option<IpAddr>, run: &Run, bytes: &[u8]) {
        let bound = &mut self.bound[at];
        bound.tell_segment(0);
        let segments_max = bound.state.max_gso_segments().max(1);
        for part in bytes.chunks(run.segment_bytes.saturating_mul(segments_max).max(1)) {
            let transmit = Transmit {
                destination: run.destination,
                ecn: None,
                contents: part,
                segment_size: (part.len() > run.segment_bytes).then_some(run.segment_bytes),
                src_ip: named,
            };
            if bound.state.try_send((&bound.socket).into(), &transmit).is_err() {
                self.dropped_runs += 1;
            }
        }
    }

    /// Runs lost to full buffers and unreachable receivers, since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped_runs)
    }
}

/// Sets what a socket needs for batches.
fn prepare(socket: &impl AsFd) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(socket.into())?;
    // A smaller buffer than asked for costs packets under load, not correctness.
    let _ = state.set_recv_buffer_size(socket.into(), KERNEL_BUFFER_BYTES);
    let _ = state.set_send_buffer_size(socket.into(), KERNEL_BUFFER_BYTES);
    batch::leave_out_unread(socket);
    Ok(state)
}

/// Fills buffers with what waits in a socket, as many as there are or come. Returns how many.
fn receive(
    state: &UdpSocketState,
    socket: UdpSockRef<'_>,
    buffers: &mut [Vec<u8>],
    metas: &mut [RecvMeta],
) -> io::Result<usize> {
    let mut slices: SmallVec<[IoSliceMut<'_>; BATCH_SIZE]> =
        buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
    state.recv(socket, &mut slices, metas)
}

/// Takes apart what GRO has joined.
fn hand_over(
    metas: &[RecvMeta],
    buffers: &[Vec<u8>],
    local: SocketAddr,
    each: &mut impl FnMut(Datagram<'_>),
) {
    for (meta, buffer) in metas.iter().zip(buffers) {
        let destination = SocketAddr::new(meta.dst_ip.unwrap_or(local.ip()), local.port());
        for bytes in buffer[..meta.len].chunks(meta.stride.max(1)) {
            each(Datagram { source: meta.addr, destination, bytes });
        }
    }
}

/// Binds `port` on every address.
///
/// # Errors
/// The first address that cannot be bound, with the reason.
pub fn bind(addresses: &[IpAddr], port: u16) -> io::Result<Vec<Listening>> {
    let named = |ip: IpAddr, error: io::Error| {
        let place = SocketAddr::new(ip, port);
        io::Error::new(error.kind(), format!("cannot listen for media on UDP {place}: {error}"))
    };
    addresses.iter().map(|&ip| bind_one(ip, port).map_err(|error| named(ip, error))).collect()
}

fn bind_one(ip: IpAddr, port: u16) -> io::Result<Listening> {
    let media = unbound(ip)?;
    media.bind(&SocketAddr::new(ip, port).into())?;
    // Any free port was asked for.
    let address = media.local_addr()?;
    // Where it cannot be had, RTCP wakes the shard like everything else.
    let apart = || {
        let rtcp = unbound(ip)?;
        steering::prepare(&media, &rtcp)?;
        rtcp.bind(&address)?;
        steering::divide(&media).map(|()| rtcp)
    };
    let rtcp = apart().inspect_err(|error| tracing::debug!(%error, "RTCP has no socket of its own"));
    Ok(Listening { rtcp: rtcp.ok().map(Into::into), media: media.into() })
}

fn unbound(ip: IpAddr) -> io::Result<Socket> {
    let domain = if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    if ip.is_ipv6() {
        // IPv4 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::media::outbox::Outbox;

    #[test]
    fn runs_leave_together_and_arrive_as_they_were() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let listening = bind(&[ip], 0).expect("a port is free");
        let mut socket = MediaSocket::new(listening, vec![ip]).expect("sockets");
        let peer = || std::net::UdpSocket::bind((ip, 0)).expect("a port is free");
        let peers = [peer(), peer(), peer()];
        // To whom and how long: runs, lone datagrams shorter and longer than those of the last run, and more
        // than fit into one call.
        let mut datagrams: Vec<(usize, usize)> =
            vec![(0, 100), (0, 100), (0, 40), (1, 130), (2, 20), (0, 200), (0, 200), (1, 250), (2, 250)];
        datagrams.extend((0..200).map(|number| (number % 3, 60 + number / 3)));
        let mut outbox = Outbox::default();
        for (number, (to, len)) in datagrams.iter().enumerate() {
            let address = peers[*to].local_addr().expect("bound");
            outbox.push(ip, address, &vec![number as u8; *len]);
        }
        socket.send(Instant::now(), outbox.runs());
        assert_eq!(socket.take_dropped(), 0);
        for (number, (to, len)) in datagrams.into_iter().enumerate() {
            let mut buffer = [0; 2_000];
            let read = peers[to].recv(&mut buffer).expect("loopback delivers in order");
            assert_eq!(buffer[..read], vec![number as u8; len]);
        }
    }

    #[test]
    fn what_has_left_wakes_nobody_and_the_doorbell_does() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let mut socket =
            MediaSocket::new(bind(&[ip], 0).expect("a port is free"), vec![ip]).expect("sockets");
        let peer = std::net::UdpSocket::bind((ip, 0)).expect("a port is free");
        socket.recv_batch(|_| panic!("nothing was sent"));
        let mut outbox = Outbox::default();
        outbox.push(ip, peer.local_addr().expect("bound"), &[7; 100]);
        socket.send(Instant::now(), outbox.runs());
        // From now on there is room to send again.
        peer.recv(&mut [0; 200]).expect("loopback delivers");
        let until = Instant::now() + Duration::from_millis(30);
        socket.wait(until);
        assert!(Instant::now() >= until, "woken by what has left");
        socket.doorbell().wake_by_ref();
        let far = Instant::now() + Duration::from_secs(60);
        socket.wait(far);
        assert!(Instant::now() < far, "slept through the doorbell");
    }

    #[test]
    fn rtcp_comes_apart_and_all_else_does_not() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let listening = bind(&[ip], 0).expect("a port is free");
        let mut socket = MediaSocket::new(listening, vec![ip]).expect("sockets");
        assert!(socket.has_rtcp_apart());
        let local = socket.bound[0].local;
        assert!(bind(&[ip], local.port()).is_err(), "the port is taken");
        let peer = std::net::UdpSocket::bind((ip, 0)).expect("a port is free");
        let rtcp: [&[u8]; 4] = [&[0x80, 200, 1], &[0x8f, 205, 2], &[0x80, 192], &[0xbf, 223]];
        let others: [&[u8]; 6] =
            [&[0x80, 96, 3], &[0x80, 191], &[0x80, 224], &[0x00, 200], &[0x16, 205], &[0x80]];
        for datagram in rtcp.iter().chain(&others) {
            peer.send_to(datagram, local).expect("loopback takes it");
        }
        let mut media: Vec<Vec<u8>> = Vec::new();
        while media.len() < others.len() {
            socket.wait(Instant::now() + Duration::from_secs(10));
            socket.recv_batch(|datagram| media.push(datagram.bytes.to_vec()));
        }
        assert_eq!(media, others);
        let mut apart: Vec<Vec<u8>> = Vec::new();
        // Loopback delivers in order, so all of it is there.
        while socket.recv_rtcp(|datagram| apart.push(datagram.bytes.to_vec())).datagrams > 0 {}
        assert_eq!(apart, rtcp);
    }
}
