//! What the room says and does about its recording.

use std::sync::Arc;

use super::*;
use crate::core::chat::RoomHistory;
use crate::core::event::Event;
use crate::core::mix::MixSettings;
use crate::core::protocol::{PublishedTrack, Request, RoomChange, Source};
use crate::core::recording::RecordingId;
use crate::core::room::fixtures::{KEYFRAME, MEMBER, keyframe, settings};
use crate::core::room::{Forward, Settings};
use crate::core::track::PublishedLine;

struct World {
    room: Room,
    now: Instant,
    at_ms: u64,
    orders: Vec<RecorderOrder>,
    told: Vec<(Audience, ServerMessage)>,
    events: Vec<Event>,
    wishes: Vec<(Asker, bool, bool)>,
    people: Vec<ParticipantKey>,
    seq_no: u64,
}

impl World {
    fn new(rule: ConsentRule) -> Self {
        let mut settings =
            Settings { first_is_admin: true, mix: Some(MixSettings::default()), ..settings("recorded") };
        settings.state.recording_consent = rule;
        let now = Instant::now();
        let room = Room::new(Now { instant: now, unix_ms: 1_000 }, settings);
        let mut world = Self {
            room,
            now,
            at_ms: 1_000,
            orders: Vec::new(),
            told: Vec::new(),
            events: Vec::new(),
            wishes: Vec::new(),
            people: Vec::new(),
            seq_no: 0,
        };
        world.room.handle_restored(world.stamp(), RoomHistory::default());
        world.join("ann");
        world.join("bob");
        world
    }

    fn stamp(&self) -> Now {
        Now { instant: self.now, unix_ms: self.at_ms }
    }

    fn join(&mut self, name: &str) {
        self.join_in_layers(name, &[]);
    }

    fn join_in_layers(&mut self, name: &str, rids: &[&str]) {
        let line = |mid: &str, kind| PublishedLine { mid: Mid::from(mid), kind, rids: Vec::new() };
        let rids = rids.iter().map(|rid| (*rid).into()).collect();
        let entrant = Entrant {
            identity: Identity::parse(name).unwrap(),
            name: name.to_uppercase(),
            grant: MEMBER,
            part: Part::Member,
            session: SessionId(self.people.len() as u128 + 1),
            has_token: false,
            returns: false,
            lines: vec![line("a", Kind::Audio), PublishedLine { rids, ..line("v", Kind::Video) }],
            slots: Vec::new(),
            seed: 7,
        };
        let stamp = self.stamp();
        let key = self.room.handle_join(stamp, entrant).unwrap();
        self.room.handle_control_open(stamp, key);
        self.room.handle_connected(stamp, key);
        self.people.push(key);
        self.publish(key, false);
        self.drain();
    }

    fn publish(&mut self, key: ParticipantKey, muted: bool) {
        let track = |mid: &str, source| PublishedTrack { mid: mid.into(), source, muted, height: None };
        let tracks = vec![track("a", Source::Microphone), track("v", Source::Camera)];
        self.ask(key, ClientMessage::Publish { tracks });
    }

    fn ask(&mut self, key: ParticipantKey, message: ClientMessage) {
        let stamp = self.stamp();
        self.room.handle_request(stamp, key, Request { request: Some(5), message });
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Recorder(order) => self.orders.push(order),
                Output::Tell(audience, message) => self.told.push((audience, *message)),
                Output::Append(event) => self.events.push(event),
                Output::StartRecording { asker, tracks, mix, .. } => self.wishes.push((asker, tracks, mix)),
                _ => {}
            }
        }
    }

    fn start(&mut self, tracks: bool, mix: bool) -> Result<RecordingState, Refusal> {
        let wish = RecordingWish { id: RecordingId::parse("r1").unwrap(), tracks, mix };
        let started = self.room.start_recording(self.stamp(), wish, None);
        self.drain();
        started
    }

    fn hear(&mut self, news: FromRecorder) {
        let stamp = self.stamp();
        self.room.handle_recorder(stamp, news);
        self.drain();
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now += Duration::from_millis(100);
            self.at_ms += 100;
            let stamp = self.stamp();
            self.room.handle_timeout(stamp);
            self.drain();
        }
    }

    /// A key frame of somebody's; the packets of the recorder.
    fn packet(&mut self, key: ParticipantKey) -> Vec<Forward> {
        self.packet_in_layer(key, 0)
    }

    fn packet_in_layer(&mut self, key: ParticipantKey, encoding: u8) -> Vec<Forward> {
        self.seq_no += 1;
        let payload: Arc<[u8]> = KEYFRAME.as_slice().into();
        let arrival = keyframe(1, encoding, self.seq_no, &payload);
        let mut forwards = Vec::new();
        self.room.handle_rtp(self.now, key, &arrival, &mut forwards);
        self.drain();
        let recorder = self.room.recorder_seat();
        forwards.retain(|forward| Some(forward.to) == recorder);
        forwards
    }

    /// Whose camera comes to the recorder, once it flows.
    fn is_recorded(&mut self, key: ParticipantKey) -> bool {
        for _ in 0..3 {
            self.packet(key);
            self.pass(100);
        }
        !self.packet(key).is_empty()
    }

    fn last_tracks(&self) -> Vec<(String, Source)> {
        let tracks = self.orders.iter().rev().find_map(|order| match order {
            RecorderOrder::Tell(ToRecorder::Tracks(tracks)) => Some(tracks.clone()),
            _ => None,
        });
        let tracks = tracks.unwrap_or_default().into_iter();
        tracks.map(|track| (track.identity.as_str().to_owned(), track.source)).collect()
    }

    fn ended(&self) -> Option<EndReason> {
        self.told.iter().rev().find_map(|(_, message)| match message {
            ServerMessage::RecordingEnded { reason, .. } => Some(*reason),
            _ => None,
        })
    }
}

#[test]
fn all_are_told_and_everyone_is_recorded_where_a_notice_does() {
    let mut world = World::new(ConsentRule::Notice);
    world.start(true, false).unwrap();
    assert!(matches!(&world.orders[..], [RecorderOrder::Start(settings)] if settings.part == 1));
    let (audience, message) = world.told.last().unwrap().clone();
    let ServerMessage::Room { room } = message else { panic!("{message:?}") };
    assert_eq!((audience, room.recording.map(|recording| recording.active)), (Audience::All, Some(false)));
    world.hear(FromRecorder::Ready);
    assert!(world.room.state().recording.as_ref().unwrap().active);
    for who in world.people.clone() {
        assert!(world.is_recorded(who));
    }
    assert_eq!(world.last_tracks().len(), 4, "sound and picture of two");
    assert_eq!(world.start(true, false).unwrap_err().code, Code::AlreadyRecording);
    // Who comes later is told by the welcome, and recorded, too.
    world.join("cleo");
    let welcome = world.told.iter().rev().find_map(|(_, message)| match message {
        ServerMessage::Welcome { room, .. } => Some(room.clone()),
        _ => None,
    });
    assert!(welcome.unwrap().recording.is_some());
    world.pass(200);
    let chapter = |order: &RecorderOrder| match order {
        RecorderOrder::Tell(ToRecorder::Chapter { title, .. }) => title == "CLEO joins",
        _ => false,
    };
    assert!(world.orders.iter().any(chapter), "{:?}", world.orders);
    let stopped = world.room.stop_recording(world.stamp(), None, None).unwrap();
    world.drain();
    assert_eq!((stopped.id.as_str(), world.ended()), ("r1", Some(EndReason::Stopped)));
    assert_eq!(world.orders.last(), Some(&RecorderOrder::Stop));
    assert_eq!(world.room.state().recording, None);
    let kinds: Vec<&EventBody> = world.events.iter().map(|event| &event.body).collect();
    assert!(kinds.iter().any(|body| matches!(body, EventBody::RecordingStarted { .. })));
    assert!(kinds.iter().any(|body| matches!(body, EventBody::RecordingEnded { .. })));
}

#[test]
fn where_people_are_asked_only_those_who_agreed_are_recorded_for_as_long_as_they_do() {
    let mut world = World::new(ConsentRule::Ask);
    assert_eq!(world.start(true, true).unwrap_err().code, Code::ConsentNeeded);
    world.start(true, false).unwrap();
    world.hear(FromRecorder::Ready);
    let [ann, bob] = world.people[..] else { panic!() };
    assert!(!world.is_recorded(ann) && !world.is_recorded(bob));
    assert!(world.last_tracks().is_empty());
    world.ask(bob, ClientMessage::RecordingConsent { agreed: true });
    world.ask(ann, ClientMessage::RecordingConsent { agreed: false });
    assert!(!world.is_recorded(ann) && world.is_recorded(bob));
    assert!(world.last_tracks().iter().all(|(who, _)| who == "bob"));
    world.ask(bob, ClientMessage::RecordingConsent { agreed: false });
    assert!(world.packet(bob).is_empty(), "nothing of it comes any more");
    assert!(world.last_tracks().is_empty());
    // The next recording asks anew.
    world.room.stop_recording(world.stamp(), None, None).unwrap();
    world.drain();
    let states = world.room.participant_states();
    assert!(states.iter().all(|state| state.recording_consent.is_none()));
    // And whoever leaves it to a notice later records all.
    let change = RoomChange { recording_consent: Some(ConsentRule::Notice), ..RoomChange::default() };
    world.room.change(world.stamp(), change, None).unwrap();
    world.start(true, false).unwrap();
    world.hear(FromRecorder::Ready);
    assert!(world.is_recorded(ann) && world.is_recorded(bob));
}

#[test]
fn the_mix_cannot_be_recorded_without_asking_and_then_be_asked_for() {
    let mut world = World::new(ConsentRule::Notice);
    world.start(false, true).unwrap();
    let change = RoomChange { recording_consent: Some(ConsentRule::Ask), ..RoomChange::default() };
    let refusal = world.room.change(world.stamp(), change, None).unwrap_err();
    assert_eq!(refusal.code, Code::ConsentNeeded);
}

#[test]
fn only_an_admin_begins_ends_and_marks() {
    let mut world = World::new(ConsentRule::Notice);
    let [ann, bob] = world.people[..] else { panic!() };
    world.ask(bob, ClientMessage::RecordingStart { tracks: true, mix: false });
    assert!(world.wishes.is_empty());
    let refused = |world: &World, to| match world.told.last() {
        Some((audience, ServerMessage::Error { code, .. })) => {
            *audience == Audience::One(to) && *code == Code::Forbidden
        }
        _ => false,
    };
    assert!(refused(&world, bob));
    world.ask(ann, ClientMessage::RecordingStart { tracks: true, mix: false });
    let (asker, ..) = world.wishes.pop().unwrap();
    let wish = RecordingWish { id: RecordingId::parse("r2").unwrap(), tracks: true, mix: false };
    world.room.handle_recording_wish(world.stamp(), &asker, Ok(wish), Identity::parse("ann").unwrap());
    world.drain();
    let ok = |(audience, message): &(Audience, ServerMessage)| {
        *audience == Audience::One(ann) && *message == ServerMessage::Ok { request: Some(5) }
    };
    assert!(world.told.iter().any(ok));
    world.hear(FromRecorder::Ready);
    world.ask(bob, ClientMessage::RecordingMark { title: "x".into() });
    assert!(refused(&world, bob));
    world.ask(ann, ClientMessage::RecordingMark { title: " here ".into() });
    let mark = RecorderOrder::Tell(ToRecorder::Chapter { at_ms: world.at_ms, title: "here".into() });
    assert!(world.orders.contains(&mark));
    world.ask(bob, ClientMessage::RecordingStop);
    assert!(world.room.state().recording.is_some());
    world.ask(ann, ClientMessage::RecordingStop);
    assert_eq!(world.ended(), Some(EndReason::Stopped));
}

#[test]
fn a_recorder_that_fails_is_replaced_until_that_is_of_no_use() {
    let mut world = World::new(ConsentRule::Notice);
    world.start(true, false).unwrap();
    for part in 1..=FAILURES_MAX {
        let ordered = world.orders.iter().rev().find_map(|order| match order {
            RecorderOrder::Start(settings) => Some(settings.part),
            _ => None,
        });
        assert_eq!(ordered, Some(part));
        world.hear(FromRecorder::Ready);
        assert!(world.is_recorded(world.people[0]), "part {part}");
        world.hear(FromRecorder::Gone);
        assert_eq!(world.room.recorder_seat(), None);
        world.pass(1_000);
    }
    assert_eq!((world.ended(), world.room.state().recording.as_ref()), (Some(EndReason::Failed), None));
}

#[test]
fn a_recorder_that_dies_in_an_empty_room_is_replaced() {
    let mut world = World::new(ConsentRule::Notice);
    for key in world.people.clone() {
        let stamp = world.stamp();
        world.room.handle_leave(stamp, key);
    }
    world.start(true, false).unwrap();
    world.hear(FromRecorder::Ready);
    world.pass(2_000);
    world.hear(FromRecorder::Gone);
    assert!(world.room.poll_timeout() <= world.now + Duration::from_millis(100), "it looks after it soon");
    world.pass(1_000);
    let starts = world.orders.iter().filter(|order| matches!(order, RecorderOrder::Start(_))).count();
    assert_eq!(starts, 2);
    world.hear(FromRecorder::Ready);
    assert!(world.room.recorder_seat().is_some());
    // The room ends all the same, and its recording with it.
    world.pass(400_000);
    assert_eq!(world.ended(), Some(EndReason::Closed));
}

#[test]
fn one_that_says_nothing_has_failed() {
    let mut world = World::new(ConsentRule::Notice);
    world.start(true, false).unwrap();
    world.pass(11_000);
    let starts = world.orders.iter().filter(|order| matches!(order, RecorderOrder::Start(_))).count();
    assert_eq!(starts, 2);
}

#[test]
fn it_ends_with_the_last_who_leaves_and_what_a_recorder_says_ends_it() {
    let mut world = World::new(ConsentRule::Notice);
    world.start(true, false).unwrap();
    world.hear(FromRecorder::Ready);
    world.pass(200);
    for who in world.people.clone() {
        assert_eq!(world.ended(), None);
        world.room.handle_leave(world.stamp(), who);
        world.drain();
    }
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event.body, EventBody::RecordingEnded { reason: EndReason::Empty, .. }))
    );
    let mut world = World::new(ConsentRule::Notice);
    world.start(true, false).unwrap();
    world.hear(FromRecorder::Ready);
    world.hear(FromRecorder::Ended { reason: EndReason::DiskFull });
    assert_eq!(world.ended(), Some(EndReason::DiskFull));
}

#[test]
fn a_muted_track_keeps_its_name_and_a_key_frame_is_asked_of_the_right_one() {
    let mut world = World::new(ConsentRule::Notice);
    world.start(true, false).unwrap();
    world.hear(FromRecorder::Ready);
    let bob = world.people[1];
    assert!(world.is_recorded(bob));
    let before = world.last_tracks();
    world.publish(bob, true);
    world.publish(bob, false);
    assert_eq!(world.last_tracks(), before);
    assert!(world.is_recorded(bob));
    let forward = world.packet(bob).pop().unwrap();
    let serial = world.room.slot_serial(forward.to, forward.slot).unwrap();
    world.pass(1_000);
    let stamp = world.stamp();
    world.room.handle_recorder(stamp, FromRecorder::Keyframe { serial });
    let asked = std::iter::from_fn(|| world.room.poll_output())
        .any(|output| matches!(output, Output::RequestKeyframe { from, .. } if from == bob));
    assert!(asked);
}

#[test]
fn a_room_of_ciphertext_or_a_node_that_does_not_is_not_recorded() {
    let mut world = World::new(ConsentRule::Notice);
    assert_eq!(world.start(false, false).unwrap_err().code, Code::Malformed);
    world.room.state.e2ee = true;
    assert_eq!(world.start(true, false).unwrap_err().code, Code::EndToEndEncrypted);
    world.room.state.e2ee = false;
    world.room.settings.mix = None;
    assert_eq!(world.start(true, true).unwrap_err().code, Code::Unavailable);
    world.room.settings.may_record = false;
    assert_eq!(world.start(true, false).unwrap_err().code, Code::Unavailable);
}

#[test]
fn the_best_layer_that_flows_is_recorded_and_none_is_waited_for() {
    let mut world = World::new(ConsentRule::Notice);
    world.join_in_layers("cleo", &["q", "h", "f"]);
    let cleo = *world.people.last().unwrap();
    world.start(true, false).unwrap();
    world.hear(FromRecorder::Ready);
    // All rest, as nobody watches.
    world.pass(3_000);
    let active = |world: &World| {
        let told = world.told.iter().rev().find_map(|(_, message)| match message {
            ServerMessage::Layers { active, .. } => Some(active.join("")),
            _ => None,
        });
        told.unwrap_or_default()
    };
    let flows = |world: &mut World, encodings: &[u8], ms: u64| -> Vec<u8> {
        let mut taken = Vec::new();
        for _ in 0..ms / 100 {
            for encoding in encodings {
                let forwards = world.packet_in_layer(cleo, *encoding);
                taken.extend(forwards.iter().map(|_| *encoding));
            }
            world.pass(100);
        }
        taken.dedup();
        taken
    };
    assert_eq!(flows(&mut world, &[0], 300), [0], "the lowest is there first");
    assert!(active(&world).contains('f'), "and the top one is wanted: {}", active(&world));
    assert_eq!(flows(&mut world, &[0], 6_000), [0], "for as long as it takes");
    assert!(active(&world).contains('f'), "{}", active(&world));
    assert_eq!(flows(&mut world, &[0, 1], 500), [0, 1]);
    assert_eq!(flows(&mut world, &[0, 1, 2], 500), [1, 2]);
    assert_eq!(flows(&mut world, &[0, 1], 800), [1], "what is gone is gone on without, soon");
    let (forward, seat) = (world.packet_in_layer(cleo, 1), world.room.recorder_seat().unwrap());
    assert_eq!(world.room.slot_encoding(seat, forward[0].slot), Some(1));
}
