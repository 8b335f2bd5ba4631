//! The way from a shard to branches and homes at other nodes: a bounded queue for each, and what waits where
//! one is full, as between shards.

use std::collections::{BTreeMap, VecDeque};

use super::relay::{Freight, Relay};
use crate::core::ids::FarId;
use crate::core::relay::{Cargo, Upstream};
use crate::mailbox::Inlet;

/// News that may wait for one way. Whoever takes so much without reading is lost; its link is, too.
const WAITING_MAX: usize = 4_096;

/// Ways to other nodes, by their numbers.
#[derive(Default)]
pub struct FarRoutes(BTreeMap<FarId, Route>);

struct Route {
    queue: Inlet<Cargo>,
    /// In order; while there is any, packets are dropped, so that none overtakes it.
    waiting: VecDeque<Cargo>,
    /// The last word was said: it goes once that is on its way.
    ends: bool,
}

impl FarRoutes {
    pub fn add(&mut self, id: FarId, queue: Inlet<Cargo>) {
        self.0.insert(id, Route { queue, waiting: VecDeque::new(), ends: false });
    }

    pub fn remove(&mut self, id: FarId) {
        self.0.remove(&id);
    }

    /// Sends what waits, as far as there is room again.
    pub fn flush(&mut self) {
        self.0.retain(|_, route| {
            route.flush();
            !(route.ends && route.waiting.is_empty())
        });
    }

    /// Sends or keeps it. True for packets that found no room, and are lost.
    pub fn send(&mut self, to: FarId, relay: &Relay) -> bool {
        let cargo = match &relay.freight {
            Freight::Packets(packets) => {
                Cargo::Packets(packets.iter().map(super::relay::RelayedPacket::crossing).collect())
            }
            Freight::Data(data) => Cargo::Data(data.clone()),
            Freight::Down(news) => Cargo::Down(news.clone()),
            Freight::Up(news) => Cargo::Up(news.clone()),
            // The rest concerns workers, which are of this node.
            _ => return false,
        };
        let is_media = relay.freight.is_media();
        // Without a way there is nobody left to miss it.
        let Some(route) = self.0.get_mut(&to) else { return false };
        route.flush();
        route.ends |= matches!(relay.freight, Freight::Up(Upstream::Closed));
        let refused = if route.waiting.is_empty() { route.queue.offer(cargo) } else { Err(cargo) };
        let Err(cargo) = refused else { return false };
        if is_media {
            return true;
        }
        if route.waiting.len() < WAITING_MAX {
            route.waiting.push_back(cargo);
        }
        false
    }
}

impl Route {
    fn flush(&mut self) {
        while let Some(cargo) = self.waiting.pop_front() {
            if let Err(cargo) = self.queue.offer(cargo) {
                self.waiting.push_front(cargo);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::{RoomName, ShardId};
    use crate::mailbox;

    const TO: FarId = FarId(3);

    fn relay(freight: Freight) -> Relay {
        Relay { room: RoomName::parse("abc").unwrap(), epoch: 1, from: ShardId(0).into(), freight }
    }

    #[test]
    fn packets_are_lost_where_news_waits_and_news_keeps_its_order() {
        let (sender, mut receiver) = mailbox::control(1);
        let mut routes = FarRoutes::default();
        routes.add(TO, Inlet::new(move |cargo| sender.offer(cargo)));
        assert!(!routes.send(TO, &relay(Freight::Packets(Vec::new()))));
        for viewers in 1..=3 {
            assert!(!routes.send(TO, &relay(Freight::Up(Upstream::Viewers(viewers)))));
        }
        assert!(routes.send(TO, &relay(Freight::Packets(Vec::new()))), "lost");
        assert!(matches!(receiver.try_recv(), Ok(Cargo::Packets(_))));
        for expected in 1..=3 {
            routes.flush();
            assert!(matches!(receiver.try_recv(), Ok(Cargo::Up(Upstream::Viewers(n))) if n == expected));
        }
        routes.remove(TO);
        assert!(!routes.send(TO, &relay(Freight::Packets(Vec::new()))), "there is nobody to miss it");
    }
}
