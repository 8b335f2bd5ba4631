//! A home and a branch with lodgers, and between them what a node has there: the merger, on a way that can be
//! cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::chat::{RoomHistory, apply};
use crate::core::event::{Appended, Event, EventBody};
use crate::core::format::Format;
use crate::core::ids::{FarId, Identity, MessageId, SessionId, ShardId, Site};
use crate::core::participant::{Entrant, Part, Presence};
use crate::core::protocol::{
    ChatMessage, ClientMessage, Code, Grant, Kind, LeaveReason, Mode, PublishedTrack, Request, RoomChange,
    ServerMessage, SlotWish, Source,
};
use crate::core::refusal::Refusal;
use crate::core::relay::Upstream;
use crate::core::relay::merge::{Merged, Merger};
use crate::core::relay::wire::{Frame, LENGTH_BYTES};
use crate::core::room::fixtures;
use crate::core::room::{Admission, Arrival, Audience, Forward, Now, Output, ParticipantKey, Room, Settings};
use crate::core::track::{PublishedLine, SlotLine};

const SHARD: ShardId = ShardId(3);
/// By which the branch knows its home.
const HOME: Site = Site::Far(FarId(9));
/// A key frame of 640 by 360 in VP8 (RFC 7741).
const KEY: [u8; 14] = [0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 0, 0, 0];
const SOUND: u8 = 0;
const PICTURE: u8 = 1;

fn settings(epoch: u64) -> Settings {
    Settings { may_record: false, epoch, ..fixtures::settings("spread") }
}

fn entrant(name: &str, part: Part, session: u128) -> Entrant {
    let line = |mid: &str, kind, rids: &[&str]| PublishedLine {
        mid: mid.into(),
        kind,
        rids: rids.iter().map(|rid| (*rid).into()).collect(),
    };
    let slot =
        |mid: &str, kind, format| SlotLine { mid: mid.into(), kind, formats: vec![format], described: false };
    let slots = if part == Part::Publisher {
        Vec::new()
    } else {
        vec![slot("ra", Kind::Audio, Format::OPUS), slot("rv", Kind::Video, Format::VP8)]
    };
    Entrant {
        identity: Identity::parse(name).unwrap(),
        name: name.to_owned(),
        grant: Grant {
            publish: true,
            subscribe: part != Part::Publisher,
            chat: true,
            files: true,
            admin: name == "chair",
            lowest_layer: false,
        },
        part,
        session: SessionId::of_lodger(SHARD, session << 8),
        has_token: true,
        returns: false,
        lines: vec![line("a", Kind::Audio, &[]), line("v", Kind::Video, &["q", "f"])],
        slots,
        seed: 7,
    }
}

/// See the module.
struct World {
    home: Room,
    branch: Room,
    merger: Merger,
    /// By which the home knows the branch; another with each link.
    site: Site,
    is_cut: bool,
    now: Now,
    messages: BTreeMap<MessageId, ChatMessage>,
    events: Vec<EventBody>,
    offset: u64,
    /// What people were told, by where they are connected and by whom.
    told: Vec<(String, ServerMessage)>,
    admissions: Vec<Admission>,
    gone: Vec<(String, LeaveReason)>,
    key_frames: usize,
    /// How often branches have said how their lodgers fare.
    looked: usize,
    seq_no: u64,
}

impl World {
    fn new() -> Self {
        let now = Now { instant: Instant::now(), unix_ms: 7 };
        let mut home = Room::new(now, settings(1));
        home.handle_restored(now, RoomHistory::default());
        let mut world = Self {
            home,
            branch: Room::new_branch(now, SHARD, settings(1)),
            merger: Merger::default(),
            site: Site::Far(FarId(1)),
            is_cut: false,
            now,
            messages: BTreeMap::new(),
            events: Vec::new(),
            offset: 0,
            told: Vec::new(),
            admissions: Vec::new(),
            gone: Vec::new(),
            key_frames: 0,
            looked: 0,
            seq_no: 0,
        };
        world.merger.handle_linked(true);
        world.drain();
        world
    }

    /// Carries all that is said, until all is quiet.
    fn drain(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.branch.poll_output() {
                quiet = false;
                self.hear_branch(output);
            }
            while let Some(output) = self.merger.poll_output() {
                quiet = false;
                match output {
                    Merged::Up(_) if self.is_cut => {}
                    Merged::Up(news) => {
                        let Ok(Frame::Up(news)) = crossed(&Frame::Up(news)) else { panic!("unreadable") };
                        self.home.handle_upstream(self.now, self.site, news);
                    }
                    Merged::Down(_, news) => self.branch.handle_downstream(self.now, HOME, news),
                }
            }
            while let Some(output) = self.home.poll_output() {
                quiet = false;
                self.hear_home(output);
            }
            if quiet {
                return;
            }
        }
    }

    fn hear_branch(&mut self, output: Output) {
        match output {
            Output::Upstream(news) => self.merger.handle_upstream(SHARD, news),
            Output::Tell(audience, message) => {
                assert!(matches!(audience, Audience::One(_)), "the home tells what all are told");
                for key in self.branch.audience(audience) {
                    self.told.push((name(&self.branch, key), (*message).clone()));
                }
            }
            Output::Admission { admission, .. } => self.admissions.push(admission),
            Output::Gone { reason, .. } => self.gone.push(("branch".into(), reason)),
            Output::Look => {
                let mut stats = self.branch.stats(self.now.instant);
                for (_, stats) in &mut stats {
                    stats.connection.rtt_ms = Some(40.0);
                }
                self.branch.tell_figures(stats);
            }
            Output::RequestKeyframe { .. } => self.key_frames += 1,
            Output::Append(event) => panic!("a branch logs nothing: {event:?}"),
            _ => {}
        }
    }

    fn hear_home(&mut self, output: Output) {
        match output {
            Output::Downstream { news, .. } if !self.is_cut => {
                let Ok(Frame::Down(news)) = crossed(&Frame::Down(news)) else { panic!("unreadable") };
                self.merger.handle_downstream(news);
            }
            Output::Tell(audience, message) => {
                for (_, to) in self.home.beyond(audience) {
                    let news = crate::core::relay::Downstream::Tell { to, message: message.clone() };
                    if !self.is_cut {
                        self.merger.handle_downstream(news);
                    }
                }
                for key in self.home.audience(audience) {
                    if self.home.participant(key).is_some_and(|p| p.via.is_none()) {
                        self.told.push((name(&self.home, key), (*message).clone()));
                    }
                }
            }
            Output::Append(event) => self.append(event),
            Output::RequestKeyframe { .. } => panic!("nobody is connected at the home who sends"),
            Output::Gone { reason, .. } => self.gone.push(("home".into(), reason)),
            Output::Looked => self.looked += 1,
            _ => {}
        }
    }

    fn append(&mut self, event: Event) {
        self.offset += 1;
        let message = event.body.message_id().cloned().and_then(|id| {
            let message = apply(self.messages.get(&id).cloned(), &event)?;
            self.messages.insert(id, message.clone());
            Some(message)
        });
        self.events.push(event.body.clone());
        self.home.handle_appended(Appended { id: event.id, offset: self.offset, is_new: true, message });
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_ms += time.as_millis() as u64;
        self.home.handle_timeout(self.now);
        self.branch.handle_timeout(self.now);
        self.drain();
    }

    /// Joins through the branch.
    fn lodge(&mut self, name: &str, part: Part, session: u128) -> Result<ParticipantKey, Refusal> {
        self.branch.ask_for_seat(self.now, entrant(name, part.clone(), session), false);
        self.drain();
        match self.admissions.pop().expect("an answer") {
            Admission::Seated(key) => {
                self.branch.handle_connected(self.now, key);
                if part == Part::Member {
                    self.branch.handle_control_open(self.now, key);
                }
                self.drain();
                Ok(key)
            }
            Admission::AtHome => Err(Refusal::new(Code::NotFound, "at home")),
            Admission::Refused(refusal) => Err(refusal),
        }
    }

    fn lodger(&mut self, name: &str, session: u128) -> ParticipantKey {
        let key = self.lodge(name, Part::Member, session).expect("it is let in");
        self.ask(key, 1, ClientMessage::Publish { tracks: tracks() });
        key
    }

    /// Joins at the home.
    fn stay(&mut self, name: &str, session: u128) -> ParticipantKey {
        let entrant = Entrant { session: SessionId(session << 8), ..entrant(name, Part::Member, session) };
        let key = self.home.handle_join(self.now, entrant).expect("it is let in");
        self.home.handle_control_open(self.now, key);
        self.home.handle_connected(self.now, key);
        self.drain();
        key
    }

    /// A lodger asks something.
    fn ask(&mut self, key: ParticipantKey, request: u64, message: ClientMessage) {
        self.branch.handle_request(self.now, key, Request { request: Some(request), message });
        self.drain();
    }

    fn ask_at_home(&mut self, key: ParticipantKey, message: ClientMessage) {
        self.home.handle_request(self.now, key, Request { request: None, message });
        self.drain();
    }

    fn say(&mut self, key: ParticipantKey, request: u64, id: &str) {
        let id = MessageId::parse(id).unwrap();
        self.ask(key, request, ClientMessage::ChatSend { id, text: "hello".into(), reply_to: None });
    }

    /// A packet of a lodger's; to whom it goes at the branch and at the home.
    fn send(&mut self, from: ParticipantKey, line: u8, encoding: u8) -> (Vec<String>, Vec<String>) {
        self.seq_no += 1;
        let payload: Arc<[u8]> = Arc::from(&KEY[..]);
        let arrival = Arrival {
            line,
            encoding,
            format: if line == SOUND { Format::OPUS } else { Format::VP8 },
            seq_no: self.seq_no,
            rtp_time: self.seq_no as u32 * 3_000,
            marker: true,
            payload: &payload,
            descriptor: None,
            audio_level: (line == SOUND).then_some((20, true)),
            rare: None,
        };
        let (mut here, mut there) = (Vec::new(), Vec::new());
        if self.branch.handle_rtp(self.now.instant, from, &arrival, &mut here) {
            let sites: Vec<Site> = self.branch.relays(from, line, encoding).collect();
            let origin = self.branch.origin_of(from);
            for site in sites {
                assert_eq!(site, HOME);
                let sender = self.home.sender(origin, self.site).expect("it lodges there");
                self.home.handle_rtp(self.now.instant, sender, &arrival, &mut there);
                let back: Vec<Site> = self.home.relays(sender, line, encoding).collect();
                assert!(!back.contains(&self.site), "nothing comes back");
            }
        }
        let names = |room: &Room, forwards: Vec<Forward>| {
            forwards.into_iter().map(|forward| name(room, forward.to)).collect()
        };
        let gets = (names(&self.branch, here), names(&self.home, there));
        self.drain();
        gets
    }

    /// Sends until slots are bound and pictures begin.
    fn stream(&mut self, from: ParticipantKey, line: u8, encoding: u8) -> (Vec<String>, Vec<String>) {
        for _ in 0..20 {
            self.send(from, line, encoding);
            self.pass(Duration::from_millis(50));
        }
        self.send(from, line, encoding)
    }

    /// The link is lost; both ends know.
    fn cut(&mut self) {
        self.is_cut = true;
        self.merger.handle_lost();
        self.home.handle_upstream(self.now, self.site, Upstream::Closed);
        self.drain();
    }

    fn link(&mut self) {
        self.is_cut = false;
        self.site = Site::Far(FarId(match self.site {
            Site::Far(FarId(number)) => number + 1,
            Site::Shard(_) => 1,
        }));
        self.merger.handle_linked(true);
        self.drain();
    }

    /// What somebody was told since this was asked last.
    fn heard(&mut self, who: &str) -> Vec<ServerMessage> {
        let (of, rest) = std::mem::take(&mut self.told).into_iter().partition(|(to, _)| to == who);
        self.told = rest;
        let of: Vec<(String, ServerMessage)> = of;
        of.into_iter().map(|(_, message)| message).collect()
    }

    fn at_home(&self, name: &str) -> ParticipantKey {
        self.home.seat_named(&Identity::parse(name).unwrap()).expect("it is in the room")
    }
}

/// Through the bytes of the wire.
fn crossed(frame: &Frame) -> Result<Frame, crate::core::relay::wire::WireError> {
    Frame::decode(&frame.encode()[LENGTH_BYTES..])
}

fn name(room: &Room, key: ParticipantKey) -> String {
    room.identity_of(key).map(|identity| identity.to_string()).unwrap_or_default()
}

fn tracks() -> Vec<PublishedTrack> {
    let track = |mid: &str, source, height| PublishedTrack { mid: mid.into(), source, muted: false, height };
    vec![track("a", Source::Microphone, None), track("v", Source::Camera, Some(720))]
}

fn welcomes(messages: &[ServerMessage]) -> usize {
    messages.iter().filter(|message| matches!(message, ServerMessage::Welcome { .. })).count()
}

fn chat_ids(messages: &[ServerMessage]) -> Vec<String> {
    let id = |message: &ServerMessage| match message {
        ServerMessage::ChatMessage { message } => Some(message.id.to_string()),
        _ => None,
    };
    messages.iter().filter_map(id).collect()
}

fn answers(messages: &[ServerMessage]) -> Vec<(u64, bool)> {
    let answer = |message: &ServerMessage| match message {
        ServerMessage::Ok { request: Some(request) } => Some((*request, true)),
        ServerMessage::Error { request: Some(request), .. } => Some((*request, false)),
        _ => None,
    };
    messages.iter().filter_map(answer).collect()
}

#[test]
fn a_member_in_a_branch_is_one_like_any_other() {
    let mut world = World::new();
    world.stay("ann", 1);
    let bob = world.lodger("bob", 2);
    let cal = world.lodger("cal", 3);
    let welcome = world.heard("bob").into_iter().find_map(|message| match message {
        ServerMessage::Welcome { me, participants, slots, .. } => Some((me, participants, slots)),
        _ => None,
    });
    let (me, participants, slots) = welcome.expect("it is welcomed");
    assert_eq!((me.as_str(), slots.len()), ("bob", 2), "its slots are those of the branch");
    let seen: Vec<_> = participants.iter().map(|one| one.identity.as_str()).collect();
    assert_eq!(seen, ["ann", "bob"]);
    let joined = |messages: &[ServerMessage], who: &str| {
        let joined = messages.iter().filter_map(|message| match message {
            ServerMessage::ParticipantJoined { participant } => Some(&participant.identity),
            _ => None,
        });
        joined.filter(|identity| identity.as_str() == who).count()
    };
    let ann_heard = world.heard("ann");
    assert_eq!((joined(&ann_heard, "bob"), joined(&ann_heard, "cal")), (1, 1), "once each");
    // Media: those in the branch have it from the branch, those at home from the one copy.
    assert_eq!(world.stream(bob, SOUND, 0), (vec!["cal".to_owned()], vec!["ann".to_owned()]));
    assert_eq!(world.stream(bob, PICTURE, 1), (vec!["cal".to_owned()], vec!["ann".to_owned()]));
    // Chat: one order, told once.
    world.heard("cal");
    world.heard("ann");
    world.say(bob, 7, "m-1");
    world.say(cal, 8, "m-2");
    for who in ["ann", "bob", "cal"] {
        let heard = world.heard(who);
        assert_eq!(chat_ids(&heard), ["m-1", "m-2"], "{who}");
        let own: &[(u64, bool)] = match who {
            "bob" => &[(7, true)],
            "cal" => &[(8, true)],
            _ => &[],
        };
        assert_eq!(answers(&heard), own, "{who}");
    }
    let joins = world.events.iter().filter(|event| matches!(event, EventBody::ParticipantJoined { .. }));
    assert_eq!(joins.count(), 3);
}

#[test]
fn nothing_crosses_that_nobody_takes() {
    let mut world = World::new();
    let bob = world.lodger("bob", 2);
    world.stream(bob, PICTURE, 0);
    for _ in 0..30 {
        world.pass(Duration::from_millis(100));
    }
    let crosses = |world: &World, line, encoding| world.branch.relays(bob, line, encoding).count();
    assert_eq!(crosses(&world, PICTURE, 0), 0, "nobody is at home");
    assert_eq!(crosses(&world, SOUND, 0), 0, "nothing says yet that it sends");
    world.send(bob, SOUND, 0);
    assert_eq!(crosses(&world, SOUND, 0), 1, "the home has to know who speaks");
    world.stay("ann", 1);
    let asked = world.key_frames;
    world.pass(Duration::from_millis(100));
    assert_eq!(world.stream(bob, PICTURE, 0).1, ["ann"]);
    assert_eq!(crosses(&world, PICTURE, 0), 1, "once");
    assert!(world.key_frames > asked || asked > 0, "its publisher is asked where it is");
}

#[test]
fn one_by_whip_says_nothing_and_is_seen_and_heard() {
    let mut world = World::new();
    world.stay("ann", 1);
    let pub_ = world.lodge("obs", Part::Publisher, 2).expect("it is let in");
    assert_eq!(world.stream(pub_, PICTURE, 0).1, ["ann"]);
    assert_eq!(world.stream(pub_, SOUND, 0).1, ["ann"]);
    let state = world.home.participant_states().into_iter().find(|one| one.identity.as_str() == "obs");
    let sources: Vec<_> = state.expect("it is seen").tracks.iter().map(|track| track.source).collect();
    assert_eq!(sources, [Source::Microphone, Source::Camera]);
}

#[test]
fn what_concerns_its_own_reception_is_decided_where_it_is() {
    let mut world = World::new();
    let ann = world.stay("ann", 1);
    world.ask_at_home(ann, ClientMessage::Publish { tracks: tracks() });
    let bob = world.lodger("bob", 2);
    let cal = world.lodger("cal", 3);
    world.stream(cal, PICTURE, 1);
    let pinned = |world: &World| {
        let participant = world.branch.participant(bob).unwrap();
        world.branch.slot_state(participant, 1).unwrap().participant.map(|one| one.to_string())
    };
    assert_eq!(pinned(&world).as_deref(), Some("cal"));
    world.heard("bob");
    let off = SlotWish { mid: "rv".into(), max_height: 0, participant: None, source: None };
    world.ask(bob, 5, ClientMessage::SlotsWish { slots: vec![off] });
    assert_eq!(world.stream(cal, PICTURE, 1).0, Vec::<String>::new(), "off screen");
    let heard = world.heard("bob");
    assert!(answers(&heard).contains(&(5, true)));
    assert!(heard.iter().any(|message| matches!(message, ServerMessage::Slots { .. })));
}

#[test]
fn moderators_at_home_rule_over_lodgers() {
    let mut world = World::new();
    let chair = world.stay("chair", 1);
    let bob = world.lodger("bob", 2);
    world.stream(bob, SOUND, 0);
    world.heard("bob");
    let bob_is = || Identity::parse("bob").unwrap();
    world.ask_at_home(chair, ClientMessage::ModerateMute { participant: bob_is(), source: None });
    assert!(world.heard("bob").iter().any(|message| matches!(message, ServerMessage::Muted { .. })));
    assert_eq!(world.send(bob, SOUND, 0), (Vec::new(), Vec::new()));
    world.ask(bob, 9, ClientMessage::Publish { tracks: tracks() });
    assert_eq!(world.stream(bob, SOUND, 0).1, ["chair"], "it has unmuted itself");
    world.ask_at_home(chair, ClientMessage::ModerateRemove { participant: bob_is() });
    assert_eq!(world.gone, [("home".into(), LeaveReason::Removed), ("branch".into(), LeaveReason::Removed)]);
    assert!(world.branch.participant(bob).is_none());
    // A lodger may be a moderator as well.
    let second = world.lodge("chair", Part::Member, 4).expect("it is let in");
    assert!(world.home.participant(chair).is_none_or(|p| p.via.is_some()), "one identity, one participant");
    let change = RoomChange { locked: Some(true), ..RoomChange::default() };
    world.ask(second, 3, ClientMessage::RoomUpdate(change));
    assert!(world.home.state().locked && world.branch.state().locked);
    let refused = world.lodge("late", Part::Member, 5).unwrap_err();
    assert_eq!(refused.code, Code::RoomLocked, "the home's own word");
}

#[test]
fn a_lobby_is_the_homes() {
    let mut world = World::new();
    let chair = world.stay("chair", 1);
    let change = RoomChange { lobby: Some(true), ..RoomChange::default() };
    world.ask_at_home(chair, ClientMessage::RoomUpdate(change));
    let bob = world.lodge("bob", Part::Member, 2).expect("it waits");
    assert!(matches!(world.heard("bob")[..], [ServerMessage::Waiting { .. }]));
    assert_eq!(world.branch.participant(bob).unwrap().presence, Presence::Waiting);
    let participant = Identity::parse("bob").unwrap();
    world.ask_at_home(chair, ClientMessage::ModerateAdmit { participant });
    assert!(world.heard("bob").iter().any(|message| matches!(message, ServerMessage::Welcome { .. })));
    assert_eq!(world.branch.participant(bob).unwrap().presence, Presence::Here);
    let cal = world.lodge("cal", Part::Member, 3).expect("it waits");
    let participant = Identity::parse("cal").unwrap();
    world.ask_at_home(chair, ClientMessage::ModerateDeny { participant });
    assert!(world.branch.participant(cal).is_none());
    assert_eq!(world.gone.last(), Some(&("branch".into(), LeaveReason::Denied)));
}

/// A room with a lobby, and its chair at the home.
fn with_lobby() -> (World, ParticipantKey) {
    let mut world = World::new();
    let chair = world.stay("chair", 1);
    let change = RoomChange { lobby: Some(true), ..RoomChange::default() };
    world.ask_at_home(chair, ClientMessage::RoomUpdate(change));
    (world, chair)
}

fn admit(name: &str) -> ClientMessage {
    ClientMessage::ModerateAdmit { participant: Identity::parse(name).unwrap() }
}

/// Who knocked, and who knocks no more.
fn knocks(messages: &[ServerMessage]) -> (Vec<&str>, Vec<&str>) {
    let knocked = messages.iter().filter_map(|message| match message {
        ServerMessage::Knock { identity, .. } => Some(identity.as_str()),
        _ => None,
    });
    let gone = messages.iter().filter_map(|message| match message {
        ServerMessage::KnockGone { identity } => Some(identity.as_str()),
        _ => None,
    });
    (knocked.collect(), gone.collect())
}

#[test]
fn who_waits_in_the_lobby_keeps_its_place_while_the_link_is_lost() {
    let (mut world, chair) = with_lobby();
    let [bob, cal, dan] = [("bob", 2), ("cal", 3), ("dan", 4)]
        .map(|(name, session)| world.lodge(name, Part::Member, session).expect("it waits"));
    let heard = world.heard("chair");
    assert_eq!(knocks(&heard), (vec!["bob", "cal", "dan"], vec![]));
    world.heard("cal");
    world.cut();
    world.pass(Duration::from_secs(5));
    assert_eq!(knocks(&world.heard("chair")), (vec![], vec![]), "they stand there still");
    // Who is let in meanwhile is lost at first; who is not finds out.
    world.ask_at_home(chair, admit("cal"));
    let seat = world.at_home("cal");
    assert!(matches!(world.home.participant(seat).unwrap().presence, Presence::Lost { .. }));
    let participant = Identity::parse("dan").unwrap();
    world.ask_at_home(chair, ClientMessage::ModerateDeny { participant });
    world.heard("chair");
    // What it was told went nowhere.
    world.heard("cal");
    world.link();
    let presence = |world: &World, key| world.branch.participant(key).map(|participant| participant.presence);
    assert_eq!(presence(&world, bob), Some(Presence::Waiting));
    assert_eq!(presence(&world, cal), Some(Presence::Here));
    assert_eq!(presence(&world, dan), None, "under the same epoch nobody knocks twice");
    assert_eq!(welcomes(&world.heard("cal")), 1);
    assert_eq!(world.home.participant(seat).unwrap().presence, Presence::Here);
    assert_eq!(knocks(&world.heard("chair")), (vec![], vec![]), "nobody has knocked again");
    world.ask_at_home(chair, admit("bob"));
    assert_eq!(welcomes(&world.heard("bob")), 1);
    world.ask(bob, 1, ClientMessage::Publish { tracks: tracks() });
    let seen = world.stream(bob, PICTURE, 1);
    assert_eq!(seen, (vec!["cal".to_owned()], vec!["chair".to_owned()]));
}

#[test]
fn a_place_in_the_lobby_that_is_not_taken_again_in_time_is_given_up() {
    let (mut world, _) = with_lobby();
    let bob = world.lodge("bob", Part::Member, 2).expect("it waits");
    world.heard("chair");
    world.cut();
    for _ in 0..160 {
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(knocks(&world.heard("chair")), (vec![], vec!["bob"]));
    world.link();
    assert!(world.branch.participant(bob).is_none(), "it is to knock anew");
}

/// Nobody has said there that it was let in, or that it is who it says it is.
#[test]
fn who_waits_while_the_home_is_lost_knocks_at_the_next() {
    let (mut world, _) = with_lobby();
    let guest = Entrant { has_token: false, ..entrant("bob", Part::Member, 2) };
    world.branch.ask_for_seat(world.now, guest, false);
    world.drain();
    let Some(Admission::Seated(guest)) = world.admissions.pop() else { panic!("it waits") };
    world.branch.handle_connected(world.now, guest);
    world.branch.handle_control_open(world.now, guest);
    world.drain();
    assert!(matches!(world.heard("bob")[..], [ServerMessage::Waiting { .. }]));
    world.heard("chair");
    world.cut();
    let mut settings = settings(2);
    settings.state.lobby = true;
    world.home = Room::new(world.now, settings);
    world.home.handle_restored(world.now, RoomHistory::default());
    let chair = world.stay("chair", 5);
    let bob = world.stay("bob", 6);
    assert_eq!(knocks(&world.heard("chair")), (vec!["bob"], vec![]));
    world.merger.handle_moved();
    world.link();
    assert_eq!(knocks(&world.heard("chair")), (vec!["bob-2"], vec![]), "it has taken nobody's place");
    assert!(world.home.participant(bob).is_some() && world.gone.is_empty());
    assert_eq!(world.branch.participant(guest).unwrap().presence, Presence::Waiting);
    assert!(matches!(world.heard("bob-2")[..], [ServerMessage::Waiting { .. }]));
    world.ask_at_home(chair, admit("bob-2"));
    assert_eq!(welcomes(&world.heard("bob-2")), 1);
}

#[test]
fn a_lost_link_keeps_seats_and_words() {
    let mut world = World::new();
    world.stay("ann", 1);
    let bob = world.lodger("bob", 2);
    world.stream(bob, PICTURE, 1);
    world.say(bob, 3, "before");
    // The last word before is on its way when the link goes.
    world.is_cut = true;
    world.say(bob, 4, "on-its-way");
    world.ask(bob, 5, ClientMessage::React { emoji: "👍".into() });
    world.cut();
    let seat = world.at_home("bob");
    assert!(matches!(world.home.participant(seat).unwrap().presence, Presence::Lost { .. }));
    assert_eq!(world.branch.participant(bob).unwrap().presence, Presence::Here, "its connection stays");
    world.say(bob, 6, "meanwhile");
    world.heard("bob");
    world.ask(bob, 7, ClientMessage::React { emoji: "👍".into() });
    assert_eq!(answers(&world.heard("bob")), [(7, false)], "to be said again");
    world.pass(Duration::from_secs(2));
    world.heard("ann");
    world.link();
    let heard = world.heard("bob");
    assert_eq!(welcomes(&heard), 1, "all there is to know");
    assert_eq!(chat_ids(&heard), ["on-its-way", "meanwhile"]);
    let mut answered = answers(&heard);
    answered.sort_unstable();
    assert_eq!(answered, [(4, true), (5, false), (6, true)], "each is answered once");
    assert_eq!(chat_ids(&world.heard("ann")), ["on-its-way", "meanwhile"]);
    assert_eq!(world.at_home("bob"), seat, "the same seat");
    assert_eq!(world.stream(bob, PICTURE, 1).1, ["ann"], "and its picture flows again");
    assert!(world.gone.is_empty());
}

#[test]
fn a_seat_that_is_not_taken_again_in_time_is_given_up() {
    let mut world = World::new();
    world.stay("ann", 1);
    let bob = world.lodger("bob", 2);
    world.cut();
    for _ in 0..160 {
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(world.gone, [("home".into(), LeaveReason::Lost)]);
    world.link();
    assert!(world.branch.participant(bob).is_none(), "it is to join anew");
    assert_eq!(world.gone.last(), Some(&("branch".into(), LeaveReason::Lost)));
}

#[test]
fn a_new_home_seats_lodgers_as_the_same() {
    let mut world = World::new();
    let bob = world.lodger("bob", 2);
    let obs = world.lodge("obs", Part::Publisher, 3).expect("it is let in");
    world.stream(bob, PICTURE, 1);
    world.stream(obs, PICTURE, 1);
    world.is_cut = true;
    world.say(bob, 4, "unheard");
    world.cut();
    // Its home is gone; somebody has opened the room under the next epoch.
    let mut home = Room::new(world.now, settings(2));
    home.handle_restored(world.now, RoomHistory::default());
    world.home = home;
    world.stay("ann", 1);
    world.heard("bob");
    world.merger.handle_moved();
    world.link();
    let heard = world.heard("bob");
    assert_eq!(welcomes(&heard), 1);
    assert_eq!((chat_ids(&heard), answers(&heard)), (vec!["unheard".into()], vec![(4, true)]));
    assert!(world.gone.is_empty(), "nobody had to connect anew");
    assert_eq!(world.stream(bob, SOUND, 0).1, ["ann"]);
    // Those in the branch see each other, too.
    assert_eq!(world.stream(obs, PICTURE, 1), (vec!["bob".to_owned()], vec!["ann".to_owned()]));
    // One that does not seat lodgers: they are to join anew.
    world.cut();
    world.merger.handle_linked(false);
    world.drain();
    assert!(world.branch.participant(bob).is_none());
    assert_eq!(world.gone.last(), Some(&("branch".into(), LeaveReason::Moved)));
}

#[test]
fn lost_connections_come_back_and_who_leaves_is_gone() {
    let mut world = World::new();
    world.stay("ann", 1);
    let bob = world.lodger("bob", 2);
    let presence = |world: &World| {
        let state = world.home.participant_states().into_iter().find(|one| one.identity.as_str() == "bob");
        state.map(|state| state.connected)
    };
    world.branch.handle_lost(world.now, bob);
    world.drain();
    assert_eq!(presence(&world), Some(false));
    // Over a new connection.
    let again = entrant("bob", Part::Member, 2);
    world.branch.ask_for_seat(world.now, again, true);
    world.drain();
    let Some(Admission::Seated(key)) = world.admissions.pop() else { panic!("it is there") };
    assert_eq!(key, bob);
    world.branch.handle_connected(world.now, bob);
    world.branch.handle_control_open(world.now, bob);
    world.drain();
    assert_eq!(presence(&world), Some(true));
    world.ask(bob, 1, ClientMessage::Publish { tracks: tracks() });
    assert_eq!(world.stream(bob, PICTURE, 1).1, ["ann"]);
    world.branch.handle_leave(world.now, bob);
    world.drain();
    assert_eq!(presence(&world), None);
    assert!(world.gone.contains(&("home".into(), LeaveReason::Left)));
}

#[test]
fn a_session_goes_on_at_home() {
    let mut world = World::new();
    let bob = world.lodger("bob", 2);
    let Entrant { session, lines, slots, .. } = entrant("bob", Part::Member, 2);
    let seat = world.home.handle_resume(world.now, session, lines, slots, 8).expect("it is there");
    world.home.handle_connected(world.now, seat);
    world.home.handle_control_open(world.now, seat);
    world.drain();
    assert!(world.branch.participant(bob).is_none(), "the branch has let it go");
    assert!(world.home.participant(seat).is_some_and(|p| p.via.is_none() && p.slots.len() == 2));
    assert_eq!(world.gone, [("branch".into(), LeaveReason::Replaced)]);
}

#[test]
fn a_room_that_is_mixed_has_its_members_at_home() {
    let mut world = World::new();
    let chair = world.stay("chair", 1);
    let bob = world.lodger("bob", 2);
    let obs = world.lodge("obs", Part::Publisher, 3).expect("it is let in");
    world.home.settings.mix = Some(crate::core::mix::MixSettings::default());
    let change = RoomChange { mode: Some(Mode::Mcu), ..RoomChange::default() };
    world.ask_at_home(chair, ClientMessage::RoomUpdate(change));
    assert!(world.branch.participant(bob).is_none_or(|p| p.lodger.is_none()));
    assert_eq!(world.gone, [("branch".into(), LeaveReason::Moved)]);
    let seat = world.at_home("bob");
    assert!(
        matches!(world.home.participant(seat).unwrap().presence, Presence::Lost { .. }),
        "its seat waits"
    );
    assert!(world.branch.participant(obs).is_some(), "who receives nothing need not have the mix");
    assert_eq!(world.lodge("cal", Part::Member, 4).unwrap_err().message, "at home");
}

/// Somebody's round trip as the home shows it, and what it gets.
fn shown(world: &mut World, name: &str) -> (Option<f64>, usize) {
    let stats = world.home.stats(world.now.instant).into_iter().map(|(_, stats)| stats);
    let one = stats.into_iter().find(|stats| stats.identity.as_str() == name).expect("it is in the room");
    (one.connection.rtt_ms, one.connection.gets.len())
}

#[test]
fn how_lodgers_fare_is_asked_where_they_are_connected() {
    let mut world = World::new();
    assert!(!world.home.look(world.now.instant), "there is nobody to ask about");
    let ann = world.stay("ann", 1);
    world.ask_at_home(ann, ClientMessage::Publish { tracks: tracks() });
    let bob = world.lodger("bob", 2);
    let cal = world.lodger("cal", 3);
    world.stream(bob, PICTURE, 1);
    world.stream(cal, SOUND, 0);
    assert_eq!(shown(&mut world, "bob"), (None, 0), "nobody has looked yet");
    assert!(world.home.look(world.now.instant));
    assert!(world.home.look(world.now.instant), "who comes second waits with the first");
    world.drain();
    assert_eq!(world.looked, 1);
    assert_eq!(shown(&mut world, "cal"), (Some(40.0), 1), "and of its slots the one that carries something");
    assert_eq!(shown(&mut world, "ann").0, None, "of who is connected here the shard knows");
    assert!(!world.home.look(world.now.instant), "it is fresh");
    world.pass(Duration::from_secs(2));
    // A link that carries nothing any more, which nobody knows yet.
    world.is_cut = true;
    assert!(world.home.look(world.now.instant));
    world.drain();
    assert_eq!(world.looked, 1, "nothing has come");
    for _ in 0..6 {
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(world.looked, 2, "nobody waits for ever");
    assert_eq!(shown(&mut world, "bob"), (None, 0), "what was said long ago is shown no more");
    world.pass(Duration::from_secs(1));
    assert!(world.home.look(world.now.instant));
    world.cut();
    assert_eq!(world.looked, 3, "there is nobody left to wait for");
}
