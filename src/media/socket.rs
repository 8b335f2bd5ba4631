//! The UDP sockets of one shard, one for each address family or address listened on, all on the shard's port.
//!
//! Receives batches (GRO, `recvmmsg`) and sends runs (GSO) through `quinn-udp`. A full send buffer drops the
//! run and counts it: WebRTC recovers what is worth recovering, and the shard never waits.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::outbox::Run;

/// Room for one GRO buffer.
const BUFFER_BYTES: usize = 65_536;
/// Asked of the kernel; it grants what `net.core.rmem_max` and `wmem_max` allow.
const KERNEL_BUFFER_BYTES: usize = 4 << 20;

/// A datagram as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    pub source: SocketAddr,
    /// The address of ours that it was sent to.
    pub destination: SocketAddr,
    pub bytes: &'a [u8],
}

struct Bound {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

pub struct MediaSocket {
    bound: Vec<Bound>,
    buffers: Vec<Vec<u8>>,
    dropped_runs: u64,
}

impl MediaSocket {
    /// Takes over sockets from [`bind`]; must run inside the shard's runtime.
    ///
    /// # Errors
    /// The kernel refuses what a UDP socket needs.
    pub fn new(sockets: Vec<std::net::UdpSocket>) -> io::Result<Self> {
        let mut bound = Vec::new();
        for socket in sockets {
            let socket = UdpSocket::from_std(socket)?;
            let state = UdpSocketState::new((&socket).into())?;
            // A smaller buffer than asked for costs packets under load, not correctness.
            let _ = state.set_recv_buffer_size((&socket).into(), KERNEL_BUFFER_BYTES);
            let _ = state.set_send_buffer_size((&socket).into(), KERNEL_BUFFER_BYTES);
            bound.push(Bound { local: socket.local_addr()?, socket, state });
        }
        Ok(Self { bound, buffers: vec![vec![0; BUFFER_BYTES]; BATCH_SIZE], dropped_runs: 0 })
    }

    /// Waits until a socket may have something to read.
    pub async fn readable(&self) -> io::Result<()> {
        let waits = self.bound.iter().map(|bound| Box::pin(bound.socket.readable()));
        match self.bound.as_slice() {
            [] => std::future::pending().await,
            [only] => only.socket.readable().await,
            _ => futures_util::future::select_all(waits).await.0,
        }
    }

    /// Hands over what waits in the sockets, at most one batch of each; true if there may be more.
    pub fn recv_batch(&mut self, mut each: impl FnMut(Datagram<'_>)) -> bool {
        let mut more = false;
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        for bound in &self.bound {
            let mut slices: Vec<IoSliceMut<'_>> =
                self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let received = bound.socket.try_io(Interest::READABLE, || {
                bound.state.recv((&bound.socket).into(), &mut slices, &mut metas)
            });
            // An error here is an ICMP report or an empty socket; neither concerns any one peer.
            let Ok(count) = received else { continue };
            drop(slices);
            more |= count == BATCH_SIZE;
            for (meta, buffer) in metas.iter().zip(&self.buffers).take(count) {
                let ip = meta.dst_ip.unwrap_or(bound.local.ip());
                let destination = SocketAddr::new(ip, bound.local.port());
                for bytes in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    each(Datagram { source: meta.addr, destination, bytes });
                }
            }
        }
        more
    }

    /// Sends one run. `source` is given to the kernel only where it is an address of this machine.
    pub fn send(&mut self, run: &Run, bytes: &[u8], source: Option<IpAddr>) {
        let fits = |bound: &&Bound| {
            let ip = bound.local.ip();
            let family = ip.is_ipv4() == run.destination.is_ipv4();
            family && (ip.is_unspecified() || source.is_none_or(|source| source == ip))
        };
        let Some(bound) = self.bound.iter().find(fits) else {
            self.dropped_runs += 1;
            return;
        };
        let segments_max = bound.state.max_gso_segments().max(1);
        for part in bytes.chunks(run.segment_bytes.saturating_mul(segments_max).max(1)) {
            let transmit = Transmit {
                destination: run.destination,
                ecn: None,
                contents: part,
                segment_size: (part.len() > run.segment_bytes).then_some(run.segment_bytes),
                src_ip: source,
            };
            let sent = bound
                .socket
                .try_io(Interest::WRITABLE, || bound.state.try_send((&bound.socket).into(), &transmit));
            if sent.is_err() {
                self.dropped_runs += 1;
            }
        }
    }

    /// Runs lost to full buffers and unreachable receivers, since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped_runs)
    }
}

/// Binds `port` on every address.
///
/// # Errors
/// The first address that cannot be bound, with the reason.
pub fn bind(addresses: &[IpAddr], port: u16) -> io::Result<Vec<std::net::UdpSocket>> {
    let bind_one = |ip: IpAddr| {
        let domain = if ip.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
        if ip.is_ipv6() {
            // IPv4 has a socket of its own.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(ip, port).into())?;
        Ok(socket.into())
    };
    let named = |ip: IpAddr, error: io::Error| {
        let place = SocketAddr::new(ip, port);
        io::Error::new(error.kind(), format!("cannot listen for media on UDP {place}: {error}"))
    };
    addresses.iter().map(|&ip| bind_one(ip).map_err(|error| named(ip, error))).collect()
}
