//! What waits for the end of a tick, that of all peers of a shard in one place.
//!
//! Each peer's is linked in the order in which it came ([`Waiting`]). Once all has left, the memory is used again
//! from its beginning, so that it stays in the core's own cache, which a queue in each peer would not. Bounded by
//! what each peer lets wait ([`Waiting::len`]), as every tick takes all of it out.

#[derive(Debug)]
pub struct Queue<T> {
    entries: Vec<Entry<T>>,
    /// How many of them have not left.
    left: usize,
}

#[derive(Debug)]
struct Entry<T> {
    /// None once it has left.
    item: Option<T>,
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

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), left: 0 }
    }
}

impl<T> Queue<T> {
    #[inline]
    pub fn push(&mut self, waiting: &mut Waiting, item: T) {
        let at = self.entries.len() as u32;
        self.entries.push(Entry { item: Some(item), next: None });
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

    /// Takes out the peer's first one.
    #[inline]
    pub fn pop(&mut self, waiting: &mut Waiting) -> Option<T> {
        let (first, last) = waiting.ends?;
        let entry = self.entries.get_mut(first as usize)?;
        let item = entry.item.take()?;
        waiting.ends = entry.next.map(|next| (next, last));
        waiting.count -= 1;
        self.left -= 1;
        if self.left == 0 {
            self.entries.clear();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_gets_its_own_in_order_and_the_memory_is_used_again() {
        let mut queue = Queue::default();
        let mut peers: [Waiting; 3] = Default::default();
        for round in 0..4 {
            for number in 0..6 {
                for (peer, waiting) in peers.iter_mut().enumerate() {
                    queue.push(waiting, (peer, round, number));
                }
            }
            assert_eq!((queue.entries.len(), peers[1].len()), (18, 6), "round {round}");
            for (peer, waiting) in peers.iter_mut().enumerate() {
                let popped: Vec<_> = std::iter::from_fn(|| queue.pop(waiting)).collect();
                assert_eq!(popped, (0..6).map(|number| (peer, round, number)).collect::<Vec<_>>());
            }
        }
        assert!(queue.pop(&mut peers[0]).is_none() && peers[0].len() == 0);
    }
}
