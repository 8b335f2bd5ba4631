//! Where a shard's datagrams leave it: into the outbox for UDP, into a connection's queue for ICE-TCP.

use std::collections::HashMap;
use std::net::SocketAddr;

use str0m::net::Protocol;

use super::outbox::Outbox;
use crate::mailbox::LossySender;

/// A path to a peer: the pair of addresses that ICE has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    pub proto: Protocol,
    /// Ours.
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Queues of the ICE-TCP connections by their remote address; a full one drops.
pub type TcpConnections = HashMap<SocketAddr, LossySender<Vec<u8>>>;

pub struct Wire<'a> {
    pub outbox: &'a mut Outbox,
    pub tcp: &'a TcpConnections,
    /// Datagrams that found a queue full.
    pub dropped: &'a mut u64,
}

impl Wire<'_> {
    /// Sends the datagram that `write` appends to a buffer from `start` on. Gives its length; 0 when it was
    /// not to be had or not to be sent.
    #[inline]
    pub fn send<E>(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut Vec<u8>, usize) -> Result<(), E>,
    ) -> usize {
        if path.proto == Protocol::Udp {
            return self.outbox.build(path.source.ip(), path.destination, write);
        }
        let mut frame = Vec::with_capacity(1_500);
        if write(&mut frame, 0).is_err() {
            return 0;
        }
        let len = frame.len();
        if self.tcp.get(&path.destination).is_some_and(|connection| connection.send(frame)) {
            return len;
        }
        *self.dropped += 1;
        0
    }
}
