//! What a shard wants to send, gathered over one tick: datagrams copied into one arena, those that follow
//! each other to the same receiver with the same size joined into runs that one GSO send can carry.
//!
//! Only the last datagram of a run may be shorter. The arena keeps its memory from tick to tick.

use std::net::{IpAddr, SocketAddr};

/// More than the kernel takes in one GSO send would be split again (UDP_MAX_SEGMENTS is 64 on older kernels).
pub const RUN_DATAGRAMS_MAX: usize = 64;
/// A GSO send carries at most one IP packet's worth before it is segmented.
const RUN_BYTES_MAX: usize = 65_000;

/// Half of a core's second-level cache. Sends that follow each other at once are cheaper than those between which packets
/// are sealed: the network's side of the machine is still awake from the last one.
const FULL_BYTES: usize = 512 << 10;

/// Datagrams for one receiver, back to back in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub destination: SocketAddr,
    /// The address of ours that the receiver knows us by.
    pub source: IpAddr,
    pub start: usize,
    pub bytes: usize,
    /// Size of each datagram but the last.
    pub segment_bytes: usize,
    pub datagrams: usize,
    /// False once a shorter datagram closed the run.
    open: bool,
}

#[derive(Debug)]
pub struct Outbox {
    arena: Vec<u8>,
    runs: Vec<Run>,
}

impl Default for Outbox {
    /// With room for all that gathers until it is full, and for what one receiver is sent then.
    fn default() -> Self {
        Self { arena: Vec::with_capacity(FULL_BYTES + RUN_BYTES_MAX), runs: Vec::new() }
    }
}

impl Outbox {
    pub fn push(&mut self, source: IpAddr, destination: SocketAddr, datagram: &[u8]) {
        self.build(source, destination, |arena, _| {
            arena.extend_from_slice(datagram);
            Ok::<_, std::convert::Infallible>(())
        });
    }

    /// Lets `write` append a datagram to the arena, from `start` on. Gives its length; 0 if `write` failed.
    #[inline]
    pub fn build<E>(
        &mut self,
        source: IpAddr,
        destination: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>, usize) -> Result<(), E>,
    ) -> usize {
        let start = self.arena.len();
        if write(&mut self.arena, start).is_err() {
            self.arena.truncate(start);
            return 0;
        }
        let bytes = self.arena.len() - start;
        if let Some(run) = self.runs.last_mut()
            && run.open
            && run.destination == destination
            && run.source == source
            && bytes <= run.segment_bytes
            && run.datagrams < RUN_DATAGRAMS_MAX
            && run.bytes + bytes <= RUN_BYTES_MAX
        {
            run.bytes += bytes;
            run.datagrams += 1;
            run.open = bytes == run.segment_bytes;
            return bytes;
        }
        self.runs.push(Run {
            destination,
            source,
            start,
            bytes,
            segment_bytes: bytes,
            datagrams: 1,
            open: true,
        });
        bytes
    }

    /// Time to send: what was sealed first is still in the core's own cache, and its receivers wait for it.
    pub fn is_full(&self) -> bool {
        self.arena.len() >= FULL_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs in the order in which they were pushed, each with its bytes.
    pub fn runs(&self) -> impl Iterator<Item = (&Run, &[u8])> {
        self.runs.iter().map(|run| (run, &self.arena[run.start..run.start + run.bytes]))
    }

    pub fn clear(&mut self) {
        self.arena.clear();
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(outbox: &Outbox) -> Vec<(u16, usize, usize)> {
        outbox.runs().map(|(run, bytes)| (run.destination.port(), run.datagrams, bytes.len())).collect()
    }

    #[test]
    fn equal_sizes_to_one_receiver_join_and_a_shorter_one_closes() {
        let us = IpAddr::from([127, 0, 0, 1]);
        let to = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut outbox = Outbox::default();
        for size in [100, 100, 40, 100] {
            outbox.push(us, to(1), &vec![0; size]);
        }
        outbox.push(us, to(2), &[0; 100]);
        outbox.push(us, to(2), &[0; 101]);
        assert_eq!(lengths(&outbox), [(1, 3, 240), (1, 1, 100), (2, 1, 100), (2, 1, 101)]);
        outbox.clear();
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_run_stays_within_what_one_send_carries() {
        let mut outbox = Outbox::default();
        for _ in 0..200 {
            outbox.push([127, 0, 0, 1].into(), ([127, 0, 0, 1], 9).into(), &[0; 1200]);
        }
        assert!(outbox.runs().all(|(run, bytes)| run.datagrams <= 64 && bytes.len() <= RUN_BYTES_MAX));
        assert_eq!(outbox.runs().map(|(run, _)| run.datagrams).sum::<usize>(), 200);
    }
}
