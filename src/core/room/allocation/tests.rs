//! Which of a track's encodings a viewer gets first, and what its publisher is told to send.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::core::chat::RoomHistory;
use crate::core::format::Format;
use crate::core::ids::SessionId;
use crate::core::participant::Entrant;
use crate::core::protocol::{ClientMessage, PublishedTrack, Request, SlotWish};
use crate::core::room::Now;
use crate::core::room::fixtures::{KEYFRAME, MEMBER, keyframe, settings};
use crate::core::track::{PublishedLine, SlotLine};

/// Ann has a camera in three encodings; Bob watches.
struct World {
    room: Room,
    now: Instant,
    at_ms: u64,
    /// What Ann's client was told to send last.
    wanted: String,
    ann: ParticipantKey,
    bob: ParticipantKey,
    seq_no: u64,
}

impl World {
    fn new() -> Self {
        let now = Now { instant: Instant::now(), unix_ms: 1_000 };
        let mut room = Room::new(now, settings("layers"));
        room.handle_restored(now, RoomHistory::default());
        let rids = ["q", "h", "f"].into_iter().map(Rid::from).collect();
        let camera = PublishedLine { mid: "v".into(), kind: Kind::Video, rids };
        let slot =
            SlotLine { mid: "s".into(), kind: Kind::Video, formats: vec![Format::VP8], described: false };
        let ann = join(&mut room, now, "ann", vec![camera], Vec::new());
        let bob = join(&mut room, now, "bob", Vec::new(), vec![slot]);
        let (wanted, at_ms) = (String::new(), now.unix_ms);
        let mut world = Self { room, now: now.instant, at_ms, wanted, ann, bob, seq_no: 0 };
        world.publish(false);
        world
    }

    fn ask(&mut self, key: ParticipantKey, message: ClientMessage) {
        let now = Now { instant: self.now, unix_ms: self.at_ms };
        self.room.handle_request(now, key, Request { request: None, message });
        self.drain();
    }

    fn publish(&mut self, muted: bool) {
        let camera = PublishedTrack { mid: "v".into(), source: Source::Camera, muted, height: Some(720) };
        self.ask(self.ann, ClientMessage::Publish { tracks: vec![camera] });
    }

    fn wish(&mut self, max_height: u32) {
        let wish = SlotWish { mid: "s".into(), max_height, participant: None, source: None };
        self.ask(self.bob, ClientMessage::SlotsWish { slots: vec![wish] });
    }

    fn drain(&mut self) {
        while let Some(output) = self.room.poll_output() {
            if let Output::Tell(_, message) = output
                && let ServerMessage::Layers { active, .. } = *message
            {
                self.wanted = active.join("");
            }
        }
    }

    /// Ann's client sends key frames in those of `encodings` that it was told to. Those that Bob got.
    fn flows(&mut self, encodings: &[u8], ms: u64) -> Vec<u8> {
        let mut got = Vec::new();
        for _ in 0..ms / 100 {
            let sent: Vec<u8> = encodings.iter().copied().filter(|&index| self.is_wanted(index)).collect();
            for encoding in sent {
                self.seq_no += 1;
                let payload: Arc<[u8]> = KEYFRAME.as_slice().into();
                let arrival = keyframe(0, encoding, self.seq_no, &payload);
                let mut forwards = Vec::new();
                self.room.handle_rtp(self.now, self.ann, &arrival, &mut forwards);
                self.drain();
                got.extend(forwards.iter().filter(|forward| forward.to == self.bob).map(|_| encoding));
            }
            self.now += Duration::from_millis(100);
            self.at_ms += 100;
            self.room.handle_timeout(Now { instant: self.now, unix_ms: self.at_ms });
            self.drain();
        }
        got.dedup();
        got
    }

    fn is_wanted(&self, index: u8) -> bool {
        self.wanted.is_empty() || self.wanted.contains(["q", "h", "f"][usize::from(index)])
    }
}

fn join(
    room: &mut Room,
    now: Now,
    name: &str,
    lines: Vec<PublishedLine>,
    slots: Vec<SlotLine>,
) -> ParticipantKey {
    let entrant = Entrant {
        identity: Identity::parse(name).unwrap(),
        name: name.to_uppercase(),
        grant: MEMBER,
        part: Part::Member,
        session: SessionId(name.len() as u128 + u128::from(name.as_bytes()[0])),
        has_token: false,
        returns: false,
        lines,
        slots,
        seed: 7,
    };
    let key = room.handle_join(now, entrant).unwrap();
    room.handle_control_open(now, key);
    room.handle_connected(now, key);
    key
}

#[test]
fn a_larger_encoding_is_waited_for_with_one_that_flows() {
    let mut world = World::new();
    world.wish(180);
    world.flows(&[0, 1, 2], 300);
    assert_eq!(world.flows(&[0, 1, 2], 3_000).last(), Some(&0));
    assert_eq!(world.wanted, "q", "what nobody takes is rested");
    // The tile goes, and comes back large while the publisher cannot send more at once.
    world.wish(0);
    assert_eq!(world.flows(&[0], 500), [0u8; 0]);
    world.wish(720);
    assert_eq!(world.flows(&[0], 1_000), [0], "meanwhile there is the small one");
    assert!(world.wanted.contains('f'), "{}", world.wanted);
    assert_eq!(world.flows(&[0, 1, 2], 2_000).last(), Some(&2));
}

#[test]
fn a_camera_that_is_turned_on_again_begins_with_its_lowest_encoding() {
    for away_ms in [1_700, 6_000] {
        let mut world = World::new();
        world.wish(720);
        assert_eq!(world.flows(&[0, 1, 2], 3_000).last(), Some(&2));
        world.publish(true);
        world.flows(&[], away_ms);
        world.publish(false);
        assert!(world.is_wanted(0), "after {away_ms} ms: {}", world.wanted);
        world.flows(&[], 300);
        assert_eq!(world.flows(&[0], 500), [0], "after {away_ms} ms");
        assert_eq!(world.flows(&[0, 1, 2], 2_000).last(), Some(&2), "after {away_ms} ms: {}", world.wanted);
    }
}

#[test]
fn a_lowest_encoding_that_never_comes_is_not_waited_for() {
    let mut world = World::new();
    world.wish(720);
    world.flows(&[], 300);
    world.publish(true);
    world.flows(&[], 3_000);
    world.publish(false);
    assert_eq!(world.flows(&[2], 5_000), [2]);
}
