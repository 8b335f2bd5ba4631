//! A room of two and its mixer, packet by packet.

use std::sync::Arc;

use super::*;
use crate::core::chat::RoomHistory;
use crate::core::ids::ShardId;
use crate::core::mix::LINE_SOUND;
use crate::core::mix::backdrop::{self, Backdrop};
use crate::core::mix::colour::Colour;
use crate::core::protocol::ModeReason;
use crate::core::protocol::{ClientMessage, Request, SlotState};
use crate::core::protocol::{PublishedTrack, RoomChange, RoomState};
use crate::core::relay::Upstream;
use crate::core::room::fixtures::{MEMBER, settings};
use crate::core::room::{Arrival, Forward, Settings};
use crate::core::stream::{Takers, Track};

const KEYFRAME: [u8; 60] = vp8(true);
const DELTA: [u8; 60] = vp8(false);

/// One packet, one picture (RFC 7741 §4.2, RFC 6386 §9.1), of 640 × 360 where it is a key frame.
const fn vp8(keyframe: bool) -> [u8; 60] {
    let mut payload = [0; 60];
    payload[0] = 0x10;
    payload[1] = if keyframe { 0x10 } else { 0x11 };
    if keyframe {
        let head = [0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];
        let mut at = 0;
        while at < head.len() {
            payload[4 + at] = head[at];
            at += 1;
        }
    }
    payload
}

struct World {
    room: Room,
    now: Instant,
    orders: Vec<MixerOrder>,
    told: Vec<(Audience, ServerMessage)>,
    people: Vec<ParticipantKey>,
    seq_no: u64,
}

impl World {
    /// Two members who send sound and picture and receive one voice and two pictures.
    fn new() -> Self {
        let settings =
            Settings { first_is_admin: true, mix: Some(MixSettings::default()), ..settings("mixed") };
        let now = Instant::now();
        let room = Room::new(Now { instant: now, unix_ms: 0 }, settings);
        let (orders, told, people) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { room, now, orders, told, people, seq_no: 0 };
        world.room.handle_restored(world.stamp(), RoomHistory::default());
        for name in ["ann", "bob"] {
            world.join(name);
        }
        world
    }

    fn stamp(&self) -> Now {
        Now { instant: self.now, unix_ms: 0 }
    }

    fn join(&mut self, name: &str) {
        let line = |mid: &str, kind| PublishedLine { mid: Mid::from(mid), kind, rids: Vec::new() };
        let slot = |mid: &str, kind, format| SlotLine {
            mid: Mid::from(mid),
            kind,
            formats: vec![format],
            described: false,
        };
        let entrant = Entrant {
            identity: Identity::parse(name).unwrap(),
            name: name.to_owned(),
            grant: MEMBER,
            part: Part::Member,
            session: SessionId(self.people.len() as u128 + 1),
            has_token: false,
            returns: false,
            lines: vec![line("a", Kind::Audio), line("v", Kind::Video)],
            slots: vec![
                slot("s0", Kind::Audio, Format::OPUS),
                slot("s1", Kind::Video, Format::VP8),
                slot("s2", Kind::Video, Format::VP8),
            ],
            seed: 7,
        };
        let stamp = self.stamp();
        let key = self.room.handle_join(stamp, entrant).unwrap();
        self.room.handle_control_open(stamp, key);
        self.room.handle_connected(stamp, key);
        let track =
            |mid: &str, source| PublishedTrack { mid: mid.into(), source, muted: false, height: None };
        let tracks = vec![track("a", Source::Microphone), track("v", Source::Camera)];
        self.ask(key, ClientMessage::Publish { tracks });
        self.people.push(key);
    }

    fn ask(&mut self, key: ParticipantKey, message: ClientMessage) {
        let stamp = self.stamp();
        self.room.handle_request(stamp, key, Request { request: None, message });
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Mixer(order) => self.orders.push(order),
                Output::Tell(audience, message) => self.told.push((audience, *message)),
                _ => {}
            }
        }
    }

    fn hear(&mut self, news: FromMixer) {
        let stamp = self.stamp();
        self.room.handle_mixer(stamp, news);
        self.drain();
    }

    /// A packet comes in; whom it goes to.
    fn packet(
        &mut self,
        from: ParticipantKey,
        line: u8,
        encoding: u8,
        payload: &[u8],
    ) -> Vec<ParticipantKey> {
        let is_sound = self.room.participant(from).unwrap().lines[usize::from(line)].kind == Kind::Audio;
        self.seq_no += 1;
        let arrival = Arrival {
            line,
            encoding,
            format: if is_sound { Format::OPUS } else { Format::VP8 },
            seq_no: self.seq_no,
            rtp_time: self.seq_no as u32 * 3_000,
            marker: true,
            payload: &Arc::from(payload),
            descriptor: None,
            audio_level: None,
            rare: None,
        };
        let mut forwards: Vec<Forward> = Vec::new();
        assert!(self.room.handle_rtp(self.now, from, &arrival, &mut forwards));
        self.drain();
        forwards.into_iter().map(|forward| forward.to).collect()
    }

    /// A tenth of a second in which everyone sends, and the mixer what is wanted of it.
    fn pass(&mut self, keyframe: bool) {
        let payload = if keyframe { KEYFRAME } else { DELTA };
        for key in self.people.clone() {
            self.packet(key, 0, 0, &[1; 30]);
            self.packet(key, 1, 0, &payload);
        }
        if let Some(mixer) = self.room.mixer_seat() {
            for (line, encodings) in self.room.mixing.wanted.clone() {
                for encoding in (0..2).filter(|encoding| encodings >> encoding & 1 == 1) {
                    let asked = |order: &MixerOrder| {
                        matches!(order, MixerOrder::Tell(ToMixer::Keyframe { line: of, encoding: which })
                            if (*of, *which) == (line, encoding))
                    };
                    let is_asked = self.orders.iter().any(asked);
                    self.orders.retain(|order| !asked(order));
                    self.packet(mixer, line, encoding, if is_asked { &KEYFRAME } else { &DELTA });
                }
            }
        }
        self.now += Duration::from_millis(100);
        self.hear(FromMixer::Pulse);
        let stamp = self.stamp();
        self.room.handle_timeout(stamp);
        self.drain();
    }

    /// Tenths of a second without a word of the mixer.
    fn pass_in_silence(&mut self, tenths: u32) {
        for _ in 0..tenths {
            self.now += Duration::from_millis(100);
            let stamp = self.stamp();
            self.room.handle_timeout(stamp);
            self.drain();
        }
    }

    fn slots(&self, key: ParticipantKey) -> Vec<SlotState> {
        let participant = self.room.participant(key).unwrap();
        (0..participant.slots.len()).filter_map(|slot| self.room.slot_state(participant, slot)).collect()
    }

    fn sources(&self, key: ParticipantKey) -> Vec<Option<Source>> {
        self.slots(key).into_iter().map(|slot| slot.source).collect()
    }

    fn set_mode(&mut self, mode: Mode) {
        let change = RoomChange { mode: Some(mode), ..RoomChange::default() };
        let stamp = self.stamp();
        self.room.change(stamp, change, None).unwrap();
        self.drain();
    }

    fn scene(&self) -> &Scene {
        let scenes = self.orders.iter().rev().find_map(|order| match order {
            MixerOrder::Tell(ToMixer::Scene(scene)) => Some(scene),
            _ => None,
        });
        scenes.unwrap()
    }
}

const FORWARDED: [Option<Source>; 3] = [Some(Source::Microphone), Some(Source::Camera), None];
const MIXED: [Option<Source>; 3] = [Some(Source::MixAudio), Some(Source::Mix), None];
fn ready() -> FromMixer {
    FromMixer::Ready { encoders: vec!["vp8enc".to_owned()] }
}

/// A world whose room is mixed for all.
fn mixed() -> World {
    let mut world = World::new();
    world.pass(true);
    world.set_mode(Mode::Mcu);
    world.hear(ready());
    for _ in 0..3 {
        world.pass(true);
    }
    world
}

#[test]
fn a_room_is_forwarded_until_its_mix_flows() {
    let mut world = World::new();
    world.pass(true);
    let ann = world.people[0];
    assert_eq!(world.sources(ann), FORWARDED);
    world.set_mode(Mode::Mcu);
    assert_eq!(world.orders, [MixerOrder::Start(MixSettings::default())]);
    world.pass(false);
    assert_eq!(world.sources(ann), FORWARDED, "no mixer yet");
    world.hear(ready());
    let mixer = world.room.mixer_stats().unwrap();
    assert_eq!((mixer.encoders, mixer.figures.frames), (vec!["vp8enc".to_owned()], 0));
    world.hear(FromMixer::Figures(Figures { frames: 30, ..Figures::default() }));
    assert_eq!(world.room.mixer_stats().unwrap().figures.frames, 30);
    assert_eq!(world.sources(ann), FORWARDED, "nothing mixed yet");
    let scene = world.scene();
    assert_eq!(scene.tiles.iter().map(|tile| tile.label.as_str()).collect::<Vec<_>>(), ["ann", "bob"]);
    assert!(scene.tiles.iter().all(|tile| tile.slot.is_some() && !tile.muted));
    assert_eq!(scene.voices.len(), 2);
    for _ in 0..3 {
        world.pass(true);
    }
    assert_eq!(world.sources(ann), MIXED);
    let told = |world: &World, mode, reason| {
        let message = ServerMessage::Mode { mode, reason };
        world.told.contains(&(Audience::One(ann), message))
    };
    assert!(told(&world, Mode::Sfu, ModeReason::Starting) && told(&world, Mode::Mcu, ModeReason::Room));
    world.set_mode(Mode::Sfu);
    assert_eq!(world.sources(ann), FORWARDED);
}

#[test]
fn the_mixer_gets_everyone_and_each_hears_all_but_themselves() {
    let mut world = mixed();
    let (ann, bob) = (world.people[0], world.people[1]);
    let mixer = world.room.mixer_seat().unwrap();
    assert_eq!(world.packet(ann, 1, 0, &KEYFRAME), [mixer], "whoever gets the mix gets nothing else");
    assert_eq!(world.packet(ann, 0, 0, &[1; 30]), [mixer]);
    let (of_ann, of_bob) = (world.room.mixing.minus[&ann], world.room.mixing.minus[&bob]);
    assert_eq!(world.packet(mixer, of_ann, 0, &[2; 30]), [ann]);
    assert_eq!(world.packet(mixer, of_bob, 0, &[2; 30]), [bob]);
    assert_eq!(world.packet(mixer, LINE_SOUND, 0, &[2; 30]), []);
    let voices = &world.scene().voices;
    assert!(voices.iter().all(|voice| voice.minus.is_some()) && voices[0].key != voices[1].key);
    assert!(world.room.heard.is_empty() || world.room.heard.iter().all(|name| name.as_str() != "mixer"));
}

#[test]
fn one_may_choose_the_mix_and_another_not() {
    let mut world = World::new();
    world.pass(true);
    let (ann, bob) = (world.people[0], world.people[1]);
    world.ask(ann, ClientMessage::ModeChoose { mode: Some(Mode::Mcu) });
    world.hear(ready());
    for _ in 0..3 {
        world.pass(true);
    }
    assert_eq!(world.sources(ann), MIXED);
    assert_eq!(world.sources(bob), FORWARDED);
    world.ask(ann, ClientMessage::ModeChoose { mode: None });
    assert_eq!(world.sources(ann), FORWARDED);
    let orders = world.orders.len();
    for _ in 0..105 {
        world.pass(false);
    }
    assert!(world.orders[orders..].contains(&MixerOrder::Stop), "nobody wants it any more");
    assert_eq!(world.room.mixer_seat(), None);
}

#[test]
fn whoever_comes_later_begins_with_a_key_frame_of_the_mix() {
    let mut world = mixed();
    for _ in 0..50 {
        world.pass(false);
    }
    world.join("cyd");
    let cyd = world.people[2];
    for _ in 0..8 {
        world.pass(true);
    }
    assert_eq!(world.sources(cyd), MIXED);
    assert!(world.slots(cyd).iter().all(|slot| !slot.paused));
    let slot = &world.room.participant(cyd).unwrap().slots[1];
    assert!(slot.current.is_some(), "it has its picture");
}

#[test]
fn a_mixer_that_fails_or_falls_silent_is_done_without_and_started_again() {
    let mut world = mixed();
    let ann = world.people[0];
    world.hear(FromMixer::Gone);
    assert_eq!(world.sources(ann), FORWARDED);
    let failed = ServerMessage::Mode { mode: Mode::Sfu, reason: ModeReason::Failed };
    assert!(world.told.contains(&(Audience::One(ann), failed)));
    world.orders.clear();
    for _ in 0..8 {
        world.pass(true);
    }
    assert!(matches!(world.orders[..], [MixerOrder::Start(_)]), "{:?}", world.orders);
    world.hear(ready());
    for _ in 0..3 {
        world.pass(true);
    }
    assert_eq!(world.sources(ann), MIXED);
    // A pause is nobody's pause but the mixer's, and it is not ended for one.
    world.orders.clear();
    world.pass_in_silence(8);
    assert_eq!(world.sources(ann), FORWARDED, "nobody waits for a mixer that stands still");
    for _ in 0..3 {
        world.pass(true);
    }
    assert_eq!(world.sources(ann), MIXED);
    assert!(!world.orders.contains(&MixerOrder::Stop));
    world.pass_in_silence(31);
    assert!(world.orders.contains(&MixerOrder::Stop));
    assert_eq!(world.sources(ann), FORWARDED);
}

#[test]
fn a_room_that_is_encrypted_end_to_end_is_not_mixed_and_says_why() {
    let mut world = World::new();
    world.room.state.e2ee = true;
    world.pass(true);
    let (ann, stamp) = (world.people[0], world.stamp());
    let change = RoomChange { mode: Some(Mode::Mcu), ..RoomChange::default() };
    let refusal = world.room.change(stamp, change, None).unwrap_err();
    assert_eq!(refusal.code, Code::EndToEndEncrypted);
    assert!(refusal.message.contains("encrypted end to end"), "{refusal}");
    world.ask(ann, ClientMessage::ModeChoose { mode: Some(Mode::Mcu) });
    let refused = |(to, message): &(Audience, ServerMessage)| {
        let is_refused = matches!(message, ServerMessage::Error { code: Code::EndToEndEncrypted, .. });
        *to == Audience::One(ann) && is_refused
    };
    assert!(world.told.iter().any(refused));
    world.pass(true);
    assert_eq!((world.orders.len(), world.sources(ann)), (0, FORWARDED.to_vec()));
}

#[test]
fn a_backdrop_goes_to_each_mixer_that_the_room_has() {
    let mut world = World::new();
    let format = backdrop::Format::Png;
    let backdrop = Backdrop { format, bytes: (0..=255).cycle().take(80_000).collect() };
    let stamp = world.stamp();
    assert!(world.room.set_backdrop(stamp, Some(backdrop)).has_backdrop);
    world.pass(true);
    let told = |world: &World| -> Vec<(bool, bool, usize)> {
        let parts = world.orders.iter().filter_map(|order| match order {
            MixerOrder::Tell(ToMixer::Backdrop(part)) => {
                Some((part.is_first, part.is_last, part.base64.len()))
            }
            _ => None,
        });
        parts.collect()
    };
    assert_eq!(told(&world), [], "there is no mixer yet");
    world.set_mode(Mode::Mcu);
    for _ in 0..2 {
        world.orders.clear();
        world.hear(ready());
        assert_eq!(told(&world), [(true, false, 43_692), (false, false, 43_692), (false, true, 19_288)]);
        world.hear(FromMixer::Gone);
        for _ in 0..12 {
            world.pass(true);
        }
    }
    world.hear(ready());
    let stamp = world.stamp();
    assert!(!world.room.set_backdrop(stamp, None).has_backdrop);
    world.drain();
    assert!(world.orders.contains(&MixerOrder::Tell(ToMixer::NoBackdrop)));
}

#[test]
fn packets_of_the_mix_name_who_is_in_it_and_its_background_is_the_owners() {
    let mut world = mixed();
    let (ann, bob) = (world.people[0], world.people[1]);
    assert_eq!(world.room.contributors(LINE_VP8)[..], [ann.csrc(), bob.csrc()]);
    world.room.heard = vec![Identity::parse("bob").unwrap()];
    let (of_ann, of_bob) = (world.room.mixing.minus[&ann], world.room.mixing.minus[&bob]);
    assert_eq!(world.room.contributors(LINE_SOUND)[..], [bob.csrc()]);
    assert_eq!(world.room.contributors(of_ann)[..], [bob.csrc()]);
    assert!(world.room.contributors(of_bob).is_empty());
    let states = world.room.participant_states();
    assert_eq!(states.iter().map(|state| state.csrc).collect::<Vec<_>>(), [ann.csrc(), bob.csrc()]);
    let tile = &world.scene().tiles[1];
    let voice = world.scene().voices.iter().find(|voice| voice.key == tile.key).unwrap();
    assert_eq!(tile.sound, Some(voice.slot), "its voice is in step with it");
    let background = Colour::try_from("#a0b0c0".to_owned()).unwrap();
    let change = RoomChange { background: Some(background), ..RoomChange::default() };
    let stamp = world.stamp();
    assert_eq!(world.room.change(stamp, change, None).unwrap().background, background);
    world.drain();
    assert_eq!(world.scene().background, 0xa0_b0_c0);
}

#[test]
fn a_node_without_room_for_a_mix_says_so_and_forwards() {
    let mut world = World::new();
    world.set_mode(Mode::Mcu);
    world.hear(FromMixer::Refused);
    assert_eq!(world.room.state.mode, Mode::Sfu);
    let ann = world.people[0];
    world.ask(ann, ClientMessage::ModeChoose { mode: Some(Mode::Mcu) });
    world.hear(FromMixer::Refused);
    let refused = |(to, message): &(Audience, ServerMessage)| {
        *to == Audience::One(ann) && matches!(message, ServerMessage::Error { code: Code::Unavailable, .. })
    };
    assert!(world.told.iter().any(refused));
    world.room.settings.mix = None;
    let stamp = world.stamp();
    let change = RoomChange { mode: Some(Mode::Mcu), ..RoomChange::default() };
    assert_eq!(world.room.change(stamp, change, None).unwrap_err().code, Code::Unavailable);
}

#[test]
fn a_camera_that_is_off_leaves_an_avatar_and_a_mute_shows() {
    let mut world = mixed();
    let ann = world.people[0];
    let muted = |mid: &str, source| PublishedTrack { mid: mid.into(), source, muted: true, height: None };
    let tracks = vec![muted("a", Source::Microphone), muted("v", Source::Camera)];
    world.ask(ann, ClientMessage::Publish { tracks });
    world.pass_in_silence(2);
    let tile = &world.scene().tiles[0];
    assert_eq!((tile.slot, tile.muted, tile.label.as_str()), (None, true, "ann"));
}

#[test]
fn csrcs_mean_the_same_in_a_branch_as_at_home() {
    let mut world = World::new();
    world.join("cal");
    // Who sends nothing has no seat in a branch, so that those after sit elsewhere there.
    world.room.unpublish_all(world.people[0]);
    let stamp = world.stamp();
    world.room.handle_upstream(stamp, ShardId(1).into(), Upstream::Opened);
    let settings = world.room.settings.clone();
    let mut branch = Room::new_branch(stamp, ShardId(1), settings);
    while let Some(output) = world.room.poll_output() {
        if let Output::Downstream { news, .. } = output {
            branch.handle_downstream(stamp, ShardId(0).into(), news);
        }
    }
    let csrcs = |room: &Room| -> Vec<(String, u32)> {
        let states = room.participant_states().into_iter();
        states.map(|state| (state.identity.to_string(), state.csrc)).collect()
    };
    let at_home = csrcs(&world.room);
    assert_eq!(at_home.len(), 3);
    assert_eq!(csrcs(&branch), at_home[1..]);
    assert!(branch.seated().any(|(key, p)| p.origin.is_some_and(|origin| origin != key)));
}

#[test]
fn a_stream_has_a_forwarded_room_mixed_and_nobody_in_it_moved() {
    let mut world = World::new();
    let takers = |hls, restreams| Takers { hls, restreams };
    let stamp = world.stamp();
    world.room.set_takers(stamp, takers(true, 0)).unwrap();
    world.drain();
    assert!(world.orders.iter().any(|order| matches!(order, MixerOrder::Start(_))));
    let is_out = |room: &RoomState| room.hls && room.mode == Mode::Sfu;
    let told = |message: &ServerMessage| matches!(message, ServerMessage::Room { room } if is_out(room));
    assert!(world.told.iter().any(|(_, message)| told(message)));
    world.hear(FromMixer::Ready { encoders: Vec::new() });
    for second in 0..30 {
        world.pass(second == 0);
    }
    let wanted = |world: &World, line| world.room.mixing.wanted.get(&line).copied();
    assert_eq!((wanted(&world, LINE_H264), wanted(&world, LINE_SOUND)), (Some(0b11), Some(1)));
    assert_eq!(wanted(&world, LINE_VP8), Some(0), "nobody in the room takes the mix");
    world.orders.clear();
    world.room.ask_for_stream_keyframe(Track::High);
    world.drain();
    let asked = MixerOrder::Tell(ToMixer::Keyframe { line: LINE_H264, encoding: 1 });
    assert_eq!(world.orders, [asked]);
    // A push alone takes the full picture alone.
    let stamp = world.stamp();
    world.room.set_takers(stamp, takers(false, 1)).unwrap();
    world.drain();
    assert_eq!(wanted(&world, LINE_H264), Some(0b10));
    let stamp = world.stamp();
    world.room.set_takers(stamp, takers(false, 0)).unwrap();
    for _ in 0..110 {
        world.pass(false);
    }
    assert!(world.orders.contains(&MixerOrder::Stop));
}

#[test]
fn a_mixer_that_dies_in_an_empty_room_is_started_again_while_it_is_streamed() {
    let mut world = World::new();
    for key in std::mem::take(&mut world.people) {
        let stamp = world.stamp();
        world.room.handle_leave(stamp, key);
    }
    let stamp = world.stamp();
    world.room.set_takers(stamp, Takers { hls: true, restreams: 0 }).unwrap();
    world.drain();
    world.hear(ready());
    world.hear(FromMixer::Gone);
    world.pass_in_silence(10);
    let starts =
        |world: &World| world.orders.iter().filter(|order| matches!(order, MixerOrder::Start(_))).count();
    assert_eq!(starts(&world), 2);
    // One that falls silent is seen to, too.
    world.hear(ready());
    world.pass_in_silence(60);
    assert!(starts(&world) >= 3);
    // And once nobody takes its mix, it goes: nobody is here.
    let stamp = world.stamp();
    world.room.set_takers(stamp, Takers::default()).unwrap();
    world.orders.clear();
    world.pass_in_silence(150);
    assert!(world.orders.contains(&MixerOrder::Stop));
    assert!(!world.room.has_work(), "it rests until it ends");
}

#[test]
fn what_cannot_be_mixed_cannot_be_streamed() {
    let mut world = World::new();
    world.room.settings.mix = None;
    let stamp = world.stamp();
    let takers = Takers { hls: true, restreams: 0 };
    assert_eq!(world.room.set_takers(stamp, takers).unwrap_err().code, Code::Unavailable);
    world.room.state.e2ee = true;
    assert_eq!(world.room.set_takers(stamp, takers).unwrap_err().code, Code::EndToEndEncrypted);
    assert_eq!(world.room.takers(), Takers::default());
}
