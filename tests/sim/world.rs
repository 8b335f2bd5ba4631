//! One room with its people and its log, all made from a seed.

mod answers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antiphon::core::chat::RoomHistory;
use antiphon::core::event::Event;
use antiphon::core::format::Format;
use antiphon::core::ids::{Identity, MessageId, RoomName, SessionId};
use antiphon::core::participant::{Entrant, Part};
use antiphon::core::payload::{Codec, inspect};
use antiphon::core::protocol::{
    ClientMessage, Grant, Kind, PublishedTrack, Request, RoomChange, RoomState, SlotWish, Source,
};
use antiphon::core::room::{Arrival, Forward, Now, Output, ParticipantKey, Room, Settings};
use antiphon::core::track::{PublishedLine, SlotLine};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use str0m::media::{Mid, Rid};

use crate::checker::{Checker, Flow};
use crate::log::Log;
use crate::sender::{Sender, vp8};

const NAMES: [&str; 7] = ["ada", "bob", "cyd", "dan", "eve", "fay", "gus"];
const VP8: Format = Format { codec: Codec::Vp8, profile: 0 };

/// A connection from the client's side.
struct Client {
    identity: Identity,
    session: SessionId,
    connection: u64,
    key: ParticipantKey,
    grant: Grant,
    lost: bool,
    in_room: bool,
    senders: Vec<Sender>,
    mids: Vec<String>,
    slot_mids: Vec<String>,
    last_chat: Option<(MessageId, String)>,
}

pub struct World {
    pub checker: Checker,
    rng: StdRng,
    room: Room,
    start: Instant,
    now: Duration,
    clients: Vec<Client>,
    log: Log,
    appends: VecDeque<(Duration, Event)>,
    forwards: Vec<Forward>,
    next: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let start = Instant::now();
        let lobby = rng.random_bool(0.3);
        let name = RoomName::parse("simulated").expect("a name");
        let state = RoomState { lobby, ..RoomState::new(name, rng.random_range(3..8), 0) };
        let settings = Settings {
            state,
            publishers_max: 6,
            viewers_max: 3,
            video_bps_max: 5_000_000,
            messages_per_second: 50.0,
            chat_chars_max: 200,
            empty_after: Duration::from_secs(1_000_000),
            resume_within: Duration::from_secs(15),
            initial_estimate_bps: 1_000_000,
            first_is_admin: true,
            mix: None,
            may_record: true,
            epoch: seed,
        };
        let mut room = Room::new(Now { instant: start, unix_ms: 0 }, settings);
        room.handle_restored(Now { instant: start, unix_ms: 0 }, RoomHistory::default());
        Self {
            checker: Checker::default(),
            rng,
            room,
            start,
            now: Duration::ZERO,
            clients: Vec::new(),
            log: Log::default(),
            appends: VecDeque::new(),
            forwards: Vec::new(),
            next: seed << 32,
        }
    }

    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.now += Duration::from_millis(self.rng.random_range(1..60));
            self.step();
            self.answer_appends();
            if self.room.poll_timeout() <= self.stamp().instant {
                self.room.handle_timeout(self.stamp());
            }
            self.drain();
        }
        self.now += Duration::from_secs(10);
        self.answer_appends();
        self.drain();
        self.checker.assert_agreement();
    }

    fn stamp(&self) -> Now {
        Now { instant: self.start + self.now, unix_ms: self.now.as_millis() as u64 }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn pick(&mut self) -> Option<usize> {
        (!self.clients.is_empty()).then(|| self.rng.random_range(0..self.clients.len()))
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..=3 => self.join(),
            4 => self.leave(),
            5..=6 => self.lose_or_recover(),
            7..=8 => self.resume(),
            9..=11 => self.publish(),
            12..=15 => self.wish(),
            16..=22 => self.chat(),
            23..=24 => self.moderate(),
            25..=30 => self.estimate(),
            31..=32 => self.ask_keyframe(),
            _ => {
                for _ in 0..4 {
                    self.packets();
                }
            }
        }
    }

    fn lines(&mut self) -> (Vec<PublishedLine>, Vec<SlotLine>, Vec<Sender>) {
        let rids: Vec<Rid> = ["q", "h", "f"].into_iter().map(Rid::from).collect();
        let simulcast = self.rng.random_bool(0.7);
        let video_rids = if simulcast { rids } else { Vec::new() };
        let line =
            |mid: &str, kind, rids: &[Rid]| PublishedLine { mid: Mid::from(mid), kind, rids: rids.to_vec() };
        let lines = vec![
            line("0", Kind::Audio, &[]),
            line("1", Kind::Video, &video_rids),
            line("2", Kind::Video, &[]),
        ];
        let senders = lines.iter().map(|line| {
            let count = line.rids.len().max(1);
            let rids =
                if line.rids.is_empty() { vec![None] } else { line.rids.iter().copied().map(Some).collect() };
            Sender {
                rids,
                video: line.kind == Kind::Video,
                seq_no: vec![0; count],
                picture_id: 0,
                keyframe_due: vec![true; count],
            }
        });
        let senders = senders.collect();
        let slot = |mid: String, kind, formats: &[Format]| SlotLine {
            mid: Mid::from(mid.as_str()),
            kind,
            formats: formats.to_vec(),
            described: false,
        };
        let mut slots = vec![
            slot("a0".into(), Kind::Audio, &[Format::OPUS]),
            slot("a1".into(), Kind::Audio, &[Format::OPUS]),
        ];
        for index in 0..self.rng.random_range(1..5) {
            slots.push(slot(format!("v{index}"), Kind::Video, &[VP8]));
        }
        (lines, slots, senders)
    }

    fn join(&mut self) {
        let name = NAMES[self.rng.random_range(0..NAMES.len())];
        let viewer = self.rng.random_bool(0.2);
        let grant = Grant {
            publish: !viewer && self.rng.random_bool(0.85),
            subscribe: self.rng.random_bool(0.85),
            chat: self.rng.random_bool(0.9),
            files: true,
            admin: false,
            lowest_layer: false,
        };
        let (lines, slots, senders) = self.lines();
        let session = SessionId(u128::from(self.fresh()));
        let part = if viewer { Part::Viewer { of: None } } else { Part::Member };
        let mids = lines.iter().map(|line| line.mid.to_string()).collect();
        let slot_mids = slots.iter().map(|slot| slot.mid.to_string()).collect();
        let seed = self.rng.random();
        let entrant = Entrant {
            identity: Identity::parse(name).expect("a name"),
            name: name.to_owned(),
            grant,
            part,
            session,
            has_token: self.rng.random_bool(0.3),
            returns: false,
            lines,
            slots,
            seed,
        };
        match self.room.handle_join(self.stamp(), entrant) {
            Ok(key) => {
                self.checker.reached.count("joined");
                let connection = self.fresh();
                // Whoever was replaced is gone by what the room says before this.
                self.drain();
                let identity = self.room.identity_of(key).expect("just seated");
                let client = Client {
                    identity,
                    session,
                    connection,
                    key,
                    grant,
                    lost: false,
                    in_room: false,
                    senders,
                    mids,
                    slot_mids,
                    last_chat: None,
                };
                self.clients.push(client);
                self.connected(key);
            }
            Err(_) => self.checker.reached.count("refused"),
        }
        self.drain();
    }

    fn leave(&mut self) {
        let Some(index) = self.pick() else { return };
        self.checker.reached.count("left");
        self.room.handle_leave(self.stamp(), self.clients[index].key);
        self.drain();
    }

    fn lose_or_recover(&mut self) {
        let Some(index) = self.pick() else { return };
        let (key, lost) = (self.clients[index].key, self.clients[index].lost);
        if !self.clients[index].in_room {
            return;
        }
        if lost {
            self.checker.reached.count("recovered");
            self.room.handle_recovered(self.stamp(), key);
        } else {
            self.checker.reached.count("lost");
            self.room.handle_lost(self.stamp(), key);
        }
        self.clients[index].lost = !lost;
    }

    fn resume(&mut self) {
        let Some(index) = self.pick() else { return };
        let (lines, slots, senders) = self.lines();
        let slot_mids = slots.iter().map(|slot| slot.mid.to_string()).collect();
        let seed = self.rng.random();
        let session = self.clients[index].session;
        let resumed = self.room.handle_resume(self.stamp(), session, lines, slots, seed);
        assert_eq!(resumed.ok(), Some(self.clients[index].key), "a session lives as long as its participant");
        self.checker.reached.count("resumed");
        let connection = self.fresh();
        let client = &mut self.clients[index];
        client.senders = senders;
        client.slot_mids = slot_mids;
        client.connection = connection;
        client.lost = false;
        let key = client.key;
        self.drain();
        self.connected(key);
        self.drain();
    }

    fn connected(&mut self, key: ParticipantKey) {
        self.room.handle_control_open(self.stamp(), key);
        self.room.handle_connected(self.stamp(), key);
    }

    fn request(&mut self, index: usize, message: ClientMessage) {
        let request = Some(self.fresh());
        let key = self.clients[index].key;
        self.room.handle_request(self.stamp(), key, Request { request, message });
        self.drain();
    }

    fn publish(&mut self) {
        let Some(index) = self.pick() else { return };
        let sources = [Source::Microphone, Source::Camera, Source::Screen];
        let mids = self.clients[index].mids.clone();
        let mut tracks = Vec::new();
        for (mid, source) in mids.into_iter().zip(sources) {
            if self.rng.random_bool(0.7) {
                tracks.push(PublishedTrack { mid, source, muted: self.rng.random_bool(0.2), height: None });
            }
        }
        self.request(index, ClientMessage::Publish { tracks });
    }

    fn wish(&mut self) {
        let Some(index) = self.pick() else { return };
        let mids = self.clients[index].slot_mids.clone();
        let heights = [0, 90, 180, 360, 720, 2160];
        let mut slots = Vec::new();
        for mid in mids.into_iter().filter(|mid| mid.starts_with('v')) {
            let pinned = self.rng.random_bool(0.3);
            let name = NAMES[self.rng.random_range(0..NAMES.len())];
            slots.push(SlotWish {
                mid,
                max_height: heights[self.rng.random_range(0..heights.len())],
                participant: pinned.then(|| Identity::parse(name).expect("a name")),
                source: None,
            });
        }
        self.request(index, ClientMessage::SlotsWish { slots });
    }

    fn chat(&mut self) {
        let Some(index) = self.pick() else { return };
        let retry = self.clients[index].last_chat.clone().filter(|_| self.rng.random_bool(0.3));
        if retry.is_some() {
            self.checker.reached.count("retry answered");
        }
        let (id, text) = retry.unwrap_or_else(|| {
            let number = self.fresh();
            (MessageId::parse(&format!("m{number}")).expect("an id"), format!("text {number}"))
        });
        self.clients[index].last_chat = Some((id.clone(), text.clone()));
        let message = match self.rng.random_range(0..5) {
            0 => ClientMessage::ChatReact { id, emoji: "👍".into(), on: self.rng.random_bool(0.7) },
            1 => ClientMessage::ChatEdit { id, text: format!("{text}!") },
            2 if self.rng.random_bool(0.3) => ClientMessage::ChatDelete { id },
            _ => ClientMessage::ChatSend { id, text, reply_to: None },
        };
        self.request(index, message);
    }

    fn moderate(&mut self) {
        let Some(index) = self.pick() else { return };
        let participant = Identity::parse(NAMES[self.rng.random_range(0..NAMES.len())]).expect("a name");
        let message = match self.rng.random_range(0..6) {
            0 => ClientMessage::ModerateMute { participant, source: None },
            1 => ClientMessage::ModerateRemove { participant },
            2 => ClientMessage::ModerateDeny { participant },
            3 => {
                let locked = Some(self.rng.random_bool(0.3));
                ClientMessage::RoomUpdate(RoomChange { locked, ..RoomChange::default() })
            }
            _ => ClientMessage::ModerateAdmit { participant },
        };
        self.request(index, message);
    }

    fn estimate(&mut self) {
        let Some(index) = self.pick() else { return };
        let bps = 10u64.pow(self.rng.random_range(4..8)) * self.rng.random_range(1..10);
        self.room.handle_estimate(self.stamp().instant, self.clients[index].key, bps);
    }

    fn ask_keyframe(&mut self) {
        let Some(index) = self.pick() else { return };
        let slot = self.rng.random_range(0..8);
        self.room.handle_keyframe_request(self.stamp().instant, self.clients[index].key, slot);
    }

    /// One packet of one encoding, as a publisher's encoder would make it.
    fn packets(&mut self) {
        let Some(index) = self.pick() else { return };
        if self.clients[index].lost {
            return;
        }
        let client = &mut self.clients[index];
        let line = self.rng.random_range(0..client.senders.len());
        let sender = &mut client.senders[line];
        let encoding = self.rng.random_range(0..sender.rids.len());
        sender.seq_no[encoding] += 1;
        sender.picture_id = (sender.picture_id + 1) & 0x7fff;
        let keyframe = sender.video && std::mem::take(&mut sender.keyframe_due[encoding]);
        let payload = if sender.video { vp8(sender.picture_id, keyframe) } else { vec![0xfc; 60] };
        let payload = Arc::from(payload);
        let arrival = Arrival {
            line: line as u8,
            encoding: encoding as u8,
            format: if sender.video { VP8 } else { Format::OPUS },
            seq_no: sender.seq_no[encoding],
            rtp_time: (self.now.as_millis() as u32).wrapping_mul(if sender.video { 90 } else { 48 }),
            marker: true,
            payload: &payload,
            descriptor: None,
            audio_level: (!sender.video).then(|| (self.rng.random_range(10..128), true)),
            rare: None,
        };
        let (from, key, video) = (client.identity.clone(), client.key, sender.video);
        self.checker.reached.count("packet in");
        let mut forwards = std::mem::take(&mut self.forwards);
        self.room.handle_rtp(self.start + self.now, key, &arrival, &mut forwards);
        for forward in forwards.drain(..) {
            let to = self.clients.iter().find(|client| client.key == forward.to).expect("a known receiver");
            let payload = forward.replayed.as_ref().map_or(&payload, |replayed| &replayed.payload);
            if forward.replayed.is_some() {
                self.checker.reached.count("replayed");
            }
            let flow = Flow {
                from: &from,
                line,
                encoding: encoding as u8,
                keyframe: video && inspect(Codec::Vp8, payload, None).keyframe,
                video,
                to: &to.identity,
                session: to.session,
                connection: to.connection,
                may_receive: to.grant.subscribe && to.in_room && !to.lost,
            };
            self.checker.forwarded(&flow, &forward);
        }
        self.forwards = forwards;
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Tell(audience, message) => {
                    for key in self.room.audience(audience) {
                        self.told(key, &message);
                    }
                }
                Output::Downstream { .. } | Output::Upstream(_) => unreachable!("this room has no branch"),
                Output::Admission { .. } | Output::Look | Output::Looked => {
                    unreachable!("this room has no lodgers")
                }
                Output::Said { .. } | Output::KeepFile(_) => unreachable!("here are no files"),
                Output::Mixer(_) => unreachable!("this node has no mixer"),
                Output::Recorder(_) | Output::StartRecording { .. } => unreachable!("nobody records"),
                Output::RequestKeyframe { from, mid, rid } => {
                    self.checker.reached.count("keyframe request");
                    let client = self.clients.iter_mut().find(|client| client.key == from);
                    let Some(client) = client else { continue };
                    let line =
                        client.mids.iter().position(|known| *known == mid.to_string()).expect("its line");
                    let sender = &mut client.senders[line];
                    let encoding = sender.rids.iter().position(|known| *known == rid);
                    sender.keyframe_due[encoding.expect("its encoding")] = true;
                }
                Output::Gone { who, reason } => {
                    if reason == antiphon::core::protocol::LeaveReason::Removed {
                        self.checker.reached.count("removed");
                    }
                    let index =
                        self.clients.iter().position(|client| client.key == who).expect("a known seat");
                    let client = self.clients.remove(index);
                    self.checker.gone(&client.identity);
                }
                Output::Append(event) => {
                    let delay = Duration::from_millis(self.rng.random_range(0..300));
                    let after = self.appends.back().map_or(Duration::ZERO, |(at, _)| *at);
                    self.appends.push_back(((self.now + delay).max(after), event));
                }
                Output::ReadMessage(id) => {
                    let stored = self.log.message(&id);
                    self.room.handle_message_read(self.stamp(), &id, Ok(stored));
                }
                Output::LimitBitrate { .. } => {}
                Output::SetGoal { next_bps, desired_bps, .. } => assert!(next_bps <= desired_bps),
                Output::ReadHistory { .. } | Output::Restore => {}
                Output::Ended => panic!("the room ended by itself"),
            }
        }
    }
}
