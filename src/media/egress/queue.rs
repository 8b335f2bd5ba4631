//! Packets that wait for the end of a tick, those of all peers of a shard in one place.
//!
//! Each peer's are linked in the order in which they came ([`Waiting`]). Once all have left, the memory is
//! used again from its beginning, so that it stays in the core's own cache, which a queue in each peer would
//! not.

use super::packet::Packet;

#[derive(Debug, Default)]
pub struct Queue {
    entries: Vec<Entry>,
    /// How many of them have not left.
    left: usize,
}

#[derive(Debug)]
struct Entry {
    slot: u16,
    /// None once it has left.
    packet: Option<Packet>,
    /// The same peer's next one.
    next: Option<u32>,
}

/// One peer's part of a [`Queue`]. What is in it stays there until it is popped.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The first and the last.
    ends: Option<(u32, u32)>,
    count: usize,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.count
    }
}

impl Queue {
    #[inline]
    pub fn push(&mut self, waiting: &mut Waiting, slot: u16, packet: Packet) {
        let at = self.entries.len() as u32;
        self.entries.push(Entry { slot, packet: Some(packet), next: None });
        self.left += 1;
        waiting.count += 1;
        let Some((_, last)) = &mut waiting.ends else {
            waiting.ends = Some((at, at));
            return;
        };
        if let Some(entry) = self.entries.get_mut(*last as usize) {
            entry.next = Some(at);
        }
        *last = at;
    }

    /// Takes out the peer's first one, with its slot.
    #[inline]
    pub fn pop(&mut self, waiting: &mut Waiting) -> Option<(u16, Packet)> {
        let (first, last) = waiting.ends?;
        let entry = self.entries.get_mut(first as usize)?;
        let (slot, packet) = (entry.slot, entry.packet.take()?);
        waiting.ends = entry.next.map(|next| (next, last));
        waiting.count -= 1;
        self.left -= 1;
        if self.left == 0 {
            self.entries.clear();
        }
        Some((slot, packet))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::core::payload::PayloadPatch;
    use crate::media::egress::Passed;

    fn packet(index: u64) -> Packet {
        Packet {
            index,
            rtp_time: 0,
            payload_type: 0,
            marker: false,
            payload: Arc::from([].as_slice()),
            patch: PayloadPatch::None,
            passed: Passed::default(),
            transport_seq_no: 0,
            sent_at: Instant::now(),
            names_mid: false,
            begins: false,
        }
    }

    #[test]
    fn each_peer_gets_its_own_in_order_and_the_memory_is_used_again() {
        let mut queue = Queue::default();
        let mut peers: [Waiting; 3] = Default::default();
        for round in 0..4 {
            for index in 0..6 {
                for (slot, peer) in peers.iter_mut().enumerate() {
                    queue.push(peer, slot as u16, packet(round * 6 + index));
                }
            }
            assert_eq!((queue.entries.len(), peers[1].len()), (18, 6), "round {round}");
            for (slot, peer) in peers.iter_mut().enumerate() {
                let popped = std::iter::from_fn(|| queue.pop(peer)).map(|(of, packet)| (of, packet.index));
                let expected = (0..6).map(|index| (slot as u16, round * 6 + index));
                assert_eq!(popped.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            }
        }
        assert!(queue.pop(&mut peers[0]).is_none() && peers[0].len() == 0);
    }
}
