//! What is derived from a shared log beside its messages: who is in each room, and which node has it.
//!
//! A fold over the log's records in their order, with the log's own fence, so every reader comes to the same,
//! from the beginning as well as from a copy. A record that does not count changes nothing, and one that is
//! read twice changes nothing the second time. It holds what stands; what was stands in the log.

use std::collections::BTreeMap;

use serde::Serialize;

use super::event::{CloseReason, Event, EventBody, EventId};
use super::fence::{Fence, Verdict, Writer};
use super::ids::{Identity, NodeId, RoomName};
use super::protocol::LeaveReason;

/// Openings and stays of one room that are kept. Full: the oldest that are over are forgotten, and counted.
const PAST_MAX: usize = 1_000;

/// How a stay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// As the room said.
    Left(LeaveReason),
    /// Another node has the room from here on; whoever came along has a stay there.
    NodeChanged,
    RoomClosed,
}

/// Somebody's time in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stay {
    pub identity: Identity,
    pub name: String,
    /// Of the opening in which it began.
    pub epoch: u64,
    /// Milliseconds since the Unix epoch.
    pub joined_at_ms: u64,
    /// Absent while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// A node's time with a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placement {
    pub epoch: u64,
    pub node: NodeId,
    /// Which start of the node.
    pub incarnation: u64,
    /// Milliseconds since the Unix epoch; absent where the record said nothing of when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_at_ms: Option<u64>,
    /// Why the room ended there; absent while it is open, and where another node has it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<CloseReason>,
}

/// One room, as the log has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RoomView {
    /// By when they came; those that last have no end.
    pub members: Vec<Stay>,
    /// By epoch; the last is the room's.
    pub placement: Vec<Placement>,
    /// Older ones that were forgotten.
    pub forgotten: u64,
    /// The last event that was taken, of those that the room counts: what is not after it was read before.
    #[serde(skip)]
    last: (u64, u64),
}

impl RoomView {
    /// Who is in it.
    pub fn present(&self) -> impl Iterator<Item = &Stay> {
        self.members.iter().filter(|stay| stay.ended.is_none())
    }

    /// Which node has it, unless it is closed.
    pub fn owner(&self) -> Option<&Placement> {
        self.placement.last().filter(|placement| placement.closed.is_none())
    }

    fn handle_opening(&mut self, writer: &Writer, at_ms: Option<u64>) {
        if self.placement.last().is_some_and(|last| last.epoch >= writer.epoch) {
            return;
        }
        // Whoever was in it is on the old node, or nowhere.
        self.end_stays(None, at_ms, Ended::NodeChanged);
        let Writer { epoch, node, incarnation } = writer.clone();
        self.placement.push(Placement { epoch, node, incarnation, opened_at_ms: at_ms, closed: None });
        if self.placement.len() > PAST_MAX {
            self.placement.remove(0);
            self.forgotten += 1;
        }
    }

    fn is_new(&mut self, id: &EventId) -> bool {
        let Some(place) = id.room_place() else { return true };
        let is_new = place > self.last;
        self.last = self.last.max(place);
        is_new
    }

    fn handle_event(&mut self, epoch: u64, event: &Event) {
        let at_ms = event.at_ms;
        match &event.body {
            EventBody::ParticipantJoined { identity, name } if self.is_new(&event.id) => {
                // One identity is one participant; its earlier stay was said to be over, or is now.
                self.end_stays(Some(identity), Some(at_ms), Ended::Left(LeaveReason::Replaced));
                self.members.push(Stay {
                    identity: identity.clone(),
                    name: name.clone(),
                    epoch,
                    joined_at_ms: at_ms,
                    left_at_ms: None,
                    ended: None,
                });
                self.forget();
            }
            EventBody::ParticipantLeft { identity, reason } if self.is_new(&event.id) => {
                self.end_stays(Some(identity), Some(at_ms), Ended::Left(*reason));
            }
            EventBody::RoomClosed { reason } => {
                self.end_stays(None, Some(at_ms), Ended::RoomClosed);
                if let Some(last) = self.placement.last_mut().filter(|last| last.closed.is_none()) {
                    last.closed = Some(*reason);
                }
            }
            _ => {}
        }
    }

    fn end_stays(&mut self, of: Option<&Identity>, at_ms: Option<u64>, how: Ended) {
        let lasting = self.members.iter_mut().filter(|stay| stay.ended.is_none());
        for stay in lasting.filter(|stay| of.is_none_or(|of| stay.identity == *of)) {
            (stay.left_at_ms, stay.ended) = (at_ms, Some(how));
        }
    }

    fn forget(&mut self) {
        let over = self.members.iter().position(|stay| stay.ended.is_some());
        if let Some(over) = over.filter(|_| self.members.len() > PAST_MAX) {
            self.members.remove(over);
            self.forgotten += 1;
        }
    }
}

/// All rooms of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Projection {
    fence: Fence,
    rooms: BTreeMap<RoomName, RoomView>,
}

impl Projection {
    /// The next record of the log, as its readers judge it.
    pub fn handle_record(&mut self, room: &RoomName, writer: &Writer, opens: bool, events: &[Event]) {
        let verdict = self.fence.handle_record(room, writer, opens);
        // The ledger is no room, and who keeps it stands in its own facts.
        if verdict == Verdict::Fenced || *room == RoomName::ledger() {
            return;
        }
        let view = self.rooms.entry(room.clone()).or_default();
        if opens {
            view.handle_opening(writer, events.first().map(|event| event.at_ms));
        }
        for event in events {
            view.handle_event(writer.epoch, event);
        }
    }

    pub fn room(&self, room: &RoomName) -> Option<&RoomView> {
        self.rooms.get(room)
    }

    pub fn rooms(&self) -> impl Iterator<Item = (&RoomName, &RoomView)> {
        self.rooms.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::EventIds;
    use crate::core::protocol::{Access, Mode};

    fn room() -> RoomName {
        RoomName::parse("room").unwrap()
    }

    fn writer(node: &str, epoch: u64) -> Writer {
        Writer { epoch, node: NodeId::parse(node).unwrap(), incarnation: 3 }
    }

    /// Writes what a node says of the room, each event in a record of its own.
    struct Node {
        writer: Writer,
        ids: EventIds,
        at_ms: u64,
    }

    impl Node {
        fn open(node: &str, epoch: u64, at_ms: u64, log: &mut Projection) -> Self {
            let mut node = Self { writer: writer(node, epoch), ids: EventIds::new("room", epoch), at_ms };
            let opened = EventBody::RoomOpened { mode: Mode::Sfu, access: Access::Open, by: None };
            let event = node.event(opened);
            log.handle_record(&room(), &node.writer, true, &[event]);
            node
        }

        fn event(&mut self, body: EventBody) -> Event {
            self.at_ms += 1;
            Event { id: self.ids.next_id(), room: room(), at_ms: self.at_ms, body }
        }

        fn say(&mut self, log: &mut Projection, body: EventBody) -> Event {
            let event = self.event(body);
            log.handle_record(&room(), &self.writer, false, std::slice::from_ref(&event));
            event
        }
    }

    fn joined(who: &str) -> EventBody {
        EventBody::ParticipantJoined { identity: Identity::parse(who).unwrap(), name: who.to_uppercase() }
    }

    fn left(who: &str, reason: LeaveReason) -> EventBody {
        EventBody::ParticipantLeft { identity: Identity::parse(who).unwrap(), reason }
    }

    fn present(log: &Projection) -> Vec<&str> {
        log.room(&room()).unwrap().present().map(|stay| stay.identity.as_str()).collect()
    }

    #[test]
    fn who_is_in_a_room_follows_it_from_node_to_node() {
        let mut log = Projection::default();
        let mut a = Node::open("a", 1, 1_000, &mut log);
        let ann = a.say(&mut log, joined("ann"));
        a.say(&mut log, joined("bob"));
        a.say(&mut log, left("bob", LeaveReason::Left));
        a.say(&mut log, joined("cid"));
        assert_eq!(present(&log), ["ann", "cid"]);
        log.handle_record(&room(), &a.writer, false, &[ann]);
        assert_eq!(present(&log), ["ann", "cid"], "said twice, come once");

        let mut b = Node::open("b", 2, 2_000, &mut log);
        assert_eq!(present(&log), [""; 0], "they are at the node that had it");
        b.say(&mut log, joined("ann"));
        a.say(&mut log, joined("zoe"));
        assert_eq!(present(&log), ["ann"], "who has lost the room seats nobody");

        let view = log.room(&room()).unwrap();
        let cid = view.members.iter().find(|stay| stay.identity.as_str() == "cid").unwrap();
        assert_eq!((cid.epoch, cid.ended, cid.left_at_ms), (1, Some(Ended::NodeChanged), Some(2_001)));
        assert_eq!(view.owner().unwrap().node, NodeId::parse("b").unwrap());
        assert_eq!(view.placement.iter().map(|one| one.epoch).collect::<Vec<_>>(), [1, 2]);

        b.say(&mut log, EventBody::RoomClosed { reason: CloseReason::Empty });
        let view = log.room(&room()).unwrap();
        assert_eq!((view.owner(), view.present().count()), (None, 0));
        assert_eq!(view.placement[1].closed, Some(CloseReason::Empty));
        Node::open("a", 3, 3_000, &mut log);
        assert_eq!(log.room(&room()).unwrap().owner().unwrap().epoch, 3);
    }

    #[test]
    fn of_two_that_open_under_one_epoch_the_first_has_the_room() {
        let mut log = Projection::default();
        Node::open("a", 7, 1_000, &mut log);
        Node::open("b", 7, 1_000, &mut log).say(&mut log, joined("ann"));
        let view = log.room(&room()).unwrap();
        assert_eq!((view.placement.len(), view.present().count()), (1, 0));
        assert_eq!(view.owner().unwrap().node, NodeId::parse("a").unwrap());
    }

    #[test]
    fn read_again_from_its_beginning_the_log_says_the_same() {
        let (mut log, mut records) = (Projection::default(), Vec::new());
        for epoch in 1..=4u64 {
            let node = if epoch % 2 == 0 { "even" } else { "odd" };
            let mut ids = EventIds::new("room", epoch);
            for (number, body) in
                [joined("ann"), joined("bob"), left("ann", LeaveReason::Lost)].into_iter().enumerate()
            {
                let at_ms = epoch * 1_000 + number as u64;
                let event = Event { id: ids.next_id(), room: room(), at_ms, body };
                records.push((writer(node, epoch), number == 0, event));
            }
        }
        let read = |log: &mut Projection| {
            for (writer, opens, event) in &records {
                log.handle_record(&room(), writer, *opens, std::slice::from_ref(event));
            }
        };
        read(&mut log);
        let mut again = Projection::default();
        read(&mut again);
        assert_eq!(log, again);
        assert_eq!(present(&log), ["bob"]);
        // A copy that reads on from a place that it has read already comes to the same, too.
        read(&mut again);
        assert_eq!(log, again);
    }

    #[test]
    fn what_is_kept_of_the_past_is_bounded() {
        let mut log = Projection::default();
        let mut node = Node::open("a", 1, 1_000, &mut log);
        node.say(&mut log, joined("stays"));
        for _ in 0..PAST_MAX + 5 {
            node.say(&mut log, joined("ann"));
            node.say(&mut log, left("ann", LeaveReason::Left));
        }
        let view = log.room(&room()).unwrap();
        assert_eq!((view.members.len(), view.forgotten), (PAST_MAX, 6));
        assert_eq!(present(&log), ["stays"]);
    }
}
