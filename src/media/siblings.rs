//! The way from one shard to the others of its node: bounded queues, and what waits where one is full.

use std::collections::VecDeque;

use super::relay::Relay;
use super::shard::RelayOut;
use crate::mailbox::ControlSender;

/// News that may wait for one shard. A shard that has not read for so long has stood still; more is lost.
const WAITING_MAX: usize = 4_096;

/// All shards of a node, by their ids.
pub struct Siblings(Vec<Sibling>);

struct Sibling {
    relays: ControlSender<Relay>,
    /// In order; while there is any, packets are dropped, so that none overtakes it.
    waiting: VecDeque<Relay>,
}

impl Siblings {
    pub fn new(relays: impl IntoIterator<Item = ControlSender<Relay>>) -> Self {
        Self(relays.into_iter().map(|relays| Sibling { relays, waiting: VecDeque::new() }).collect())
    }

    /// Sends what waits, as far as there is room again.
    pub fn flush(&mut self) {
        for sibling in &mut self.0 {
            while let Some(relay) = sibling.waiting.pop_front() {
                if let Err(relay) = sibling.relays.offer(relay) {
                    sibling.waiting.push_front(relay);
                    break;
                }
            }
        }
    }

    /// Sends or keeps it. Packets that found no room are given back, and lost.
    pub fn send(&mut self, RelayOut { to, relay }: RelayOut) -> Option<RelayOut> {
        let sibling = self.0.get_mut(usize::from(to.0))?;
        let is_media = relay.freight.is_media();
        let refused = if sibling.waiting.is_empty() { sibling.relays.offer(relay) } else { Err(relay) };
        let relay = refused.err()?;
        if is_media {
            return Some(RelayOut { to, relay });
        }
        if sibling.waiting.len() < WAITING_MAX {
            sibling.waiting.push_back(relay);
        } else {
            tracing::error!(shard = to.0, "news for a shard was lost: it has stood still too long");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::{RoomName, ShardId};
    use crate::core::relay::Upstream;
    use crate::mailbox;
    use crate::media::relay::Freight;

    fn out(freight: Freight) -> RelayOut {
        let room = RoomName::parse("abc").unwrap();
        RelayOut { to: ShardId(0), relay: Relay { room, epoch: 1, from: ShardId(1).into(), freight } }
    }

    #[test]
    fn packets_are_lost_where_news_waits_and_news_keeps_its_order() {
        let (sender, mut receiver) = mailbox::control(1);
        let mut siblings = Siblings::new([sender]);
        assert!(siblings.send(out(Freight::Packets(Vec::new()))).is_none());
        for viewers in 1..=3 {
            assert!(siblings.send(out(Freight::Up(Upstream::Viewers(viewers)))).is_none());
        }
        assert!(siblings.send(out(Freight::Packets(Vec::new()))).is_some_and(|lost| lost.to == ShardId(0)));
        assert!(receiver.try_recv().is_ok_and(|relay| relay.freight.is_media()));
        for expected in 1..=3 {
            siblings.flush();
            let Ok(Relay { freight: Freight::Up(Upstream::Viewers(viewers)), .. }) = receiver.try_recv()
            else {
                panic!("news {expected} is lost");
            };
            assert_eq!(viewers, expected);
        }
        assert!(siblings.send(out(Freight::Packets(Vec::new()))).is_none());
    }
}
