//! What a node does with what it hears, as the product does: opens, renews, writes, reads and drops rooms.

use std::time::Duration;

use antiphon::core::event::{Event, EventBody, EventId};
use antiphon::core::fence::{Verdict, Writer};
use antiphon::core::ids::{Identity, RoomName};
use antiphon::core::placement::{LeaseEvent, Renewal};
use antiphon::core::registry::{Bid, Lease};
use rand::RngExt as _;

use super::{Ask, FAULTY, NODES, Open, PATIENCE, Record, TTL, What, World, message, room};

impl World {
    pub(super) fn open(&mut self, node: usize, sent: Duration, room: RoomName, epoch: u64) {
        let it = &mut self.nodes[node];
        it.holdings.handle_won(sent, room.clone(), epoch);
        it.open.insert(room.clone(), Open { epoch, last_seq: None });
        let writer = Writer { epoch, node: it.id.clone(), incarnation: it.incarnation };
        self.write(node, Record { room, writer, opens: true, events: Vec::new() });
    }

    pub(super) fn drop_lost(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        while let Some(event) = it.holdings.poll_event() {
            match event {
                LeaseEvent::Lost { room, epoch } => {
                    self.reached.lost += 1;
                    if it.open.get(&room).is_some_and(|open| open.epoch == epoch) {
                        it.open.remove(&room);
                    }
                }
                LeaseEvent::Uncertain(_) => self.reached.uncertain += 1,
                LeaseEvent::Certain(_) => {}
            }
        }
    }

    pub(super) fn tick(&mut self, node: usize) {
        self.after(TTL / 5, What::Tick(node));
        if !self.nodes[node].alive {
            return;
        }
        let it = &mut self.nodes[node];
        it.holdings.handle_timeout(self.now);
        let (id, incarnation) = (it.id.clone(), it.incarnation);
        let held: Vec<_> = it.holdings.rooms().map(|(room, epoch)| (room.clone(), epoch)).collect();
        self.drop_lost(node);
        for (room, epoch) in held {
            self.ask(node, Ask::Renew(Lease { room, node: id.clone(), incarnation, epoch }));
        }
    }

    /// Keeps a record in the outbox and sends it.
    fn write(&mut self, node: usize, record: Record) {
        self.nodes[node].outbox.push(record.clone());
        self.send(node, record);
    }

    pub(super) fn send(&mut self, node: usize, record: Record) {
        let slow = self.now < FAULTY && self.rng.random_bool(0.05);
        let wait = if slow { self.ms(100, 10_000) } else { self.ms(1, 20) };
        let it = &mut self.nodes[node];
        it.arrives_at = it.arrives_at.max(self.now + wait);
        let wait = it.arrives_at - self.now;
        self.after(wait, What::Append(record));
    }

    /// Reads what is new in the log.
    pub(super) fn look(&mut self, node: usize) {
        let wait = self.ms(5, 60);
        self.after(wait, What::Look(node));
        if !self.nodes[node].alive {
            return;
        }
        while let Some(record) = self.log.get(self.nodes[node].position).cloned() {
            self.nodes[node].position += 1;
            self.take(node, &record);
        }
    }

    fn take(&mut self, node: usize, record: &Record) {
        let now = self.now;
        let it = &mut self.nodes[node];
        let Record { room, writer, opens, events } = record;
        let verdict = it.fence.handle_record(room, writer, *opens);
        let counts = verdict == Verdict::Counts || self.fenceless;
        let own = writer.node == it.id;
        if own {
            let same = |kept: &Record| {
                kept.writer == *writer && kept.opens == *opens && kept.room == *room && kept.events == *events
            };
            if let Some(at) = it.outbox.iter().position(same) {
                it.outbox.remove(at);
            }
        }
        let of_this_start = own && writer.incarnation == it.incarnation;
        if !counts {
            if of_this_start && it.open.get(room).is_some_and(|open| open.epoch == writer.epoch) {
                it.holdings.handle_renewal(now, room, writer.epoch, &Renewal::Lost);
                self.drop_lost(node);
            }
            return;
        }
        let last = it.last_seqs.entry(room.clone()).or_default();
        for event in events {
            let EventBody::ChatSent { seq, message, .. } = &event.body else { continue };
            if it.known.entry(room.clone()).or_default().insert(message.clone()) {
                *last = (*last).max(*seq);
            }
            if of_this_start {
                self.acknowledged.insert((room.clone(), message.clone()));
            }
        }
        let last = *last;
        if *opens && let Some(open) = it.open.get_mut(room) {
            if of_this_start && open.epoch == writer.epoch {
                open.last_seq.get_or_insert(last);
            } else if open.epoch < writer.epoch && !self.fenceless {
                let epoch = open.epoch;
                it.holdings.handle_renewal(now, room, epoch, &Renewal::Lost);
                self.drop_lost(node);
            }
        }
    }

    /// A client tries one node after the other until it is acknowledged.
    pub(super) fn say(&mut self, number: usize, of: u64) {
        let (name, id) = (room(number), message(number, of));
        if self.acknowledged.contains(&(name.clone(), id.clone())) {
            return;
        }
        let again = PATIENCE + self.ms(0, 500);
        self.after(again, What::Say { room: number, number: of });
        let node = self.rng.random_range(0..NODES);
        let it = &mut self.nodes[node];
        if !it.alive || self.now < it.frozen_until {
            return;
        }
        let Some(open) = it.open.get_mut(&name) else { return self.place(node, name) };
        let Some(last_seq) = &mut open.last_seq else { return };
        if it.known.get(&name).is_some_and(|known| known.contains(&id)) {
            // It was said before, and the answer was lost.
            self.acknowledged.insert((name, id));
            return;
        }
        let is_on_its_way = it.outbox.iter().any(|kept| {
            kept.events.iter().any(|event| event.id == EventId::of_message(&id))
                && kept.writer.epoch == open.epoch
        });
        if is_on_its_way {
            return;
        }
        *last_seq += 1;
        let body = EventBody::ChatSent {
            message: id.clone(),
            seq: *last_seq,
            identity: Identity::parse("ann").expect("a name"),
            name: "Ann".into(),
            text: String::new(),
            reply_to: None,
            file: None,
        };
        let event = Event { id: EventId::of_message(&id), room: name.clone(), at_ms: 0, body };
        let writer = Writer { epoch: open.epoch, node: it.id.clone(), incarnation: it.incarnation };
        self.write(node, Record { room: name, writer, opens: false, events: vec![event] });
    }

    /// Bids for a room that is not open here, for itself or now and then for another.
    fn place(&mut self, node: usize, room: RoomName) {
        let other = self.rng.random_range(0..NODES);
        let on_behalf = other != node && self.rng.random_bool(0.2);
        let whose = if on_behalf { other } else { node };
        let (bidder, incarnation) = (self.nodes[whose].id.clone(), self.nodes[whose].incarnation);
        let it = &mut self.nodes[node];
        if !on_behalf && !it.claiming.insert(room.clone()) {
            // As long as it waits for an answer, which may never come.
            it.claiming.remove(&room);
            return;
        }
        let floor = it.fence.writer(&room).map_or(0, |writer| writer.epoch);
        let bid = Bid { room, node: bidder, incarnation, floor, on_behalf, may_be_held: floor > 0 };
        self.ask(node, Ask::Claim(bid));
    }
}
