//! The synthetic room: people who send a recording and take what the room gives, one of whom watches.
//!
//! All show the same recording, each from a place of its own, so that a clock's number and the moment at
//! which it was seen say whose picture it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::server::{Processes, Server};
use super::watcher::{Seen, Tiles, Watcher};
use super::{CompareError, Recordings};
use crate::bench::client::{Channel, Offer};
use crate::bench::clip::{Clip, Playback};
use crate::bench::crowd::Crowd;
use crate::bench::engine::Traffic;
use crate::bench::forward::local_towards;
use crate::bench::join::{ApiKey, Join, Role, Target, room_name};
use crate::bench::process::{Machine, Snapshot, thread_cpu};
use crate::bench::source::{AudioSource, VideoSource};
use crate::core::ids::Identity;
use crate::core::mix::layout::{Layout, Seen as Shown, arrange};
use crate::core::mix::{Area, Size};
use crate::core::protocol::{ClientMessage, Mode, PublishedTrack, ServerMessage, SlotWish, Source};

/// The seat of the person whose eyes are ours.
const WATCHER: usize = 0;
/// People who speak; the others' microphones are open, and it is quiet around them.
const SPEAKERS: u32 = 2;
const JOIN_INTERVAL: Duration = Duration::from_millis(100);
/// Time for everyone to be seen, and then for estimates and layers to settle.
const COMPLETE_WITHIN: Duration = Duration::from_secs(40);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// More than handshake and reports amount to: media came.
const SEEN_BYTES: u64 = 50_000;

/// What the room is to be.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub people: u32,
    pub mode: Mode,
    /// Of the mixed picture; forwarded tiles are shown in the same places.
    pub canvas: Size,
}

impl Plan {
    /// Where everybody is shown, in the order of their joining.
    pub fn areas(&self) -> Vec<Area> {
        let names = (0..self.people).filter_map(|person| Identity::parse(&format!("person-{person}")).ok());
        let names: Vec<Identity> = names.collect();
        let shown: Vec<Shown<'_>> =
            names.iter().map(|identity| Shown { identity, is_screen: false }).collect();
        arrange(&Layout::Grid, self.canvas, &shown).into_iter().map(|placed| placed.area).collect()
    }

    /// What a viewer wishes for: lines of a tile, or of the whole mix.
    pub fn wished_height(&self) -> u32 {
        match self.mode {
            Mode::Sfu => self.areas().first().map_or(self.canvas.height, |area| area.height),
            Mode::Mcu => self.canvas.height,
        }
    }

    /// Tiles that the watcher is to see: nobody is forwarded to themselves, and everybody is in the mix.
    pub fn tiles(&self) -> u32 {
        match self.mode {
            Mode::Sfu => self.people.saturating_sub(1),
            Mode::Mcu => self.people,
        }
    }
}

/// When one person's pictures were handed over.
#[derive(Debug, Clone)]
pub struct Track {
    pub playback: Playback,
    /// Nanoseconds on the run's clock, by picture.
    pub handed_over_ns: Vec<u64>,
}

impl Track {
    /// Pictures that were handed over in a span of the run's clock.
    pub fn handed_over_in(&self, [from, to]: [u64; 2]) -> usize {
        self.handed_over_ns.iter().filter(|ns| (from..to).contains(*ns)).count()
    }

    /// How late each picture was handed over in a span, by the first one and the frame rate.
    pub fn late_ms_in(&self, [from, to]: [u64; 2]) -> Vec<f64> {
        let first = self.handed_over_ns.first().copied().unwrap_or_default();
        let rate = u64::from(self.playback.clip.frames_per_second.max(1));
        let due = |index: u64| first + index * 1_000_000_000 / rate;
        let in_span = (0..).zip(&self.handed_over_ns).filter(|(_, ns)| (from..to).contains(*ns));
        in_span.map(|(index, ns)| ns.saturating_sub(due(index)) as f64 / 1e6).collect()
    }

    /// How old a picture with this number is that is seen at `at_ns`; none if none was handed over by then.
    pub fn age_ns(&self, number: u32, at_ns: u64) -> Option<u64> {
        let handed_over = self.handed_over_ns.partition_point(|ns| *ns <= at_ns);
        let newest = u32::try_from(handed_over.checked_sub(1)?).ok()?;
        let len = self.playback.clip.len().max(1);
        let back = (self.playback.number(newest) + len - number % len) % len;
        let index = newest.checked_sub(back)?;
        Some(at_ns - self.handed_over_ns.get(index as usize)?)
    }
}

/// Whose picture it is, and how old: that of whom it would be youngest. Right as long as no picture is older
/// than the distance between two people in the recording, 0.8 s with 25 in one of 20 s.
pub fn whose(tracks: &[Track], number: u32, at_ns: u64) -> Option<(usize, u64)> {
    let ages = tracks.iter().enumerate();
    ages.filter_map(|(person, track)| Some((person, track.age_ns(number, at_ns)?)))
        .min_by_key(|(_, age)| *age)
}

/// What had been counted by one moment.
pub struct Edge {
    pub at: Instant,
    pub processes: Processes,
    pub own: Snapshot,
    pub loop_cpu: Duration,
    pub machine: Machine,
    pub traffic: Traffic,
    /// Of all datagrams that came, by seat: the people first, then the audience.
    pub received_bytes: Vec<u64>,
    pub received_packets: Vec<u64>,
}

/// See the module.
pub struct Room {
    pub plan: Plan,
    pub name: String,
    run: u32,
    crowd: Crowd,
    watcher: Watcher,
    clip: Arc<Clip>,
    /// Encodings that the server takes of each, once it has said.
    active: BTreeMap<usize, Vec<String>>,
    silent: Option<usize>,
}

impl Room {
    /// Makes the room on the server and lets everyone in.
    ///
    /// # Errors
    /// Somebody could not join, or was not seen in time.
    pub fn open(server: &Server, plan: Plan, recordings: &Recordings) -> Result<Self, CompareError> {
        let local = local_towards(&server.url)
            .ok_or_else(|| CompareError::Server(format!("no way to {}", server.url)))?;
        let key = ApiKey { id: String::new(), secret: String::new() };
        let crowd = Crowd::new(Target::Whip, server.url.clone(), key, local)?;
        let run = rand::rng().random();
        let tiles = match plan.mode {
            Mode::Sfu => Tiles::EachItsSlot,
            Mode::Mcu => Tiles::Mixed(plan.canvas, plan.areas()),
        };
        let name = room_name(run, 0);
        server.make_room(&name, plan.mode)?;
        let clip = Arc::clone(&recordings.clip);
        let watcher = Watcher::new(tiles);
        let mut room = Self { plan, name, run, crowd, watcher, clip, active: BTreeMap::new(), silent: None };
        for person in 0..plan.people {
            room.join(person, recordings)?;
            room.drive_for(JOIN_INTERVAL)?;
        }
        room.wait_until_complete()?;
        Ok(room)
    }

    fn join(&mut self, person: u32, recordings: &Recordings) -> Result<(), CompareError> {
        let now = Instant::now();
        let phase = self.clip.len() * person / self.plan.people;
        let playback = Playback { clip: Arc::clone(&self.clip), phase };
        let speaks = person < SPEAKERS;
        let sound = if speaks { &recordings.voice } else { &recordings.quiet };
        let others = self.plan.people.saturating_sub(1).max(1) as usize;
        let offer = Offer {
            video: Some(VideoSource::playing(person, playback, now)),
            audio: Some(AudioSource::playing(person, Arc::clone(sound), speaks, now)),
            video_slots: others,
            audio_slots: others,
            channels: true,
            timeline: false,
        };
        let (seat, sdp) = self.crowd.engine.add(offer)?;
        if seat == WATCHER
            && let Some(seat) = self.crowd.engine.seats.get_mut(seat)
        {
            seat.client.keep_received();
        }
        let encodings = self.clip.encodings.iter().map(|recorded| recorded.encoding).collect();
        let role = Role::Person(person);
        self.crowd.join(Join {
            seat,
            run: self.run,
            room: 0,
            role,
            publishers: self.plan.people,
            encodings,
            offer: Some(sdp),
        });
        Ok(())
    }

    /// Lets an audience in, up to this many, each with a line for one picture and one for sound, and waits
    /// until all see something.
    ///
    /// # Errors
    /// One of them could not join, or sees nothing in time.
    pub fn admit(&mut self, viewers: u32) -> Result<(), CompareError> {
        let people = self.plan.people as usize;
        for number in (self.crowd.engine.seats.len() - people) as u32..viewers {
            let offer = Offer { video_slots: 1, audio_slots: 1, ..Offer::default() };
            let (seat, sdp) = self.crowd.engine.add(offer)?;
            let (run, role) = (self.run, Role::Viewer(number));
            let (publishers, encodings) = (self.plan.people, Vec::new());
            self.crowd.join(Join { seat, run, room: 0, role, publishers, encodings, offer: Some(sdp) });
            self.drive_for(JOIN_INTERVAL)?;
        }
        let deadline = Instant::now() + COMPLETE_WITHIN;
        loop {
            let audience = self.crowd.engine.seats.iter().skip(people);
            if let Some(failure) = audience.clone().find_map(|seat| seat.failure.clone()) {
                return Err(CompareError::Join(failure));
            }
            let seeing = audience.filter(|seat| seat.received_bytes > SEEN_BYTES).count() as u32;
            if seeing == viewers {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(CompareError::Unseen { people: seeing, expected: viewers });
            }
            self.drive_for(JOIN_INTERVAL)?;
        }
    }

    /// Waits until the watcher has seen every tile run within one second.
    fn wait_until_complete(&mut self) -> Result<(), CompareError> {
        let deadline = Instant::now() + COMPLETE_WITHIN;
        loop {
            self.watcher.take(false);
            self.drive_for(LOOK_INTERVAL)?;
            let seen = self.watcher.take(false);
            let people = self.people_seen(&seen);
            if people == self.plan.tiles() {
                return Ok(());
            }
            if let Some(failure) = self.crowd.engine.seats.iter().find_map(|seat| seat.failure.clone()) {
                return Err(CompareError::Join(failure));
            }
            if Instant::now() > deadline {
                return Err(CompareError::Unseen { people, expected: self.plan.tiles() });
            }
        }
    }

    fn people_seen(&mut self, seen: &Seen) -> u32 {
        let tracks = self.tracks();
        let base = self.crowd.engine.base;
        let people = seen.sightings.iter().filter_map(|sighting| {
            whose(&tracks, sighting.number, nanoseconds(base, sighting.at)).map(|(person, _)| person)
        });
        people.collect::<BTreeSet<usize>>().len() as u32
    }

    /// What everybody has sent so far.
    pub fn tracks(&mut self) -> Vec<Track> {
        let (clip, people) = (Arc::clone(&self.clip), self.plan.people);
        let seats = self.crowd.engine.seats.iter_mut().zip(0..people);
        let tracks = seats.filter_map(|(seat, person)| {
            let playback = Playback { clip: Arc::clone(&clip), phase: clip.len() * person / people };
            let handed_over_ns = seat.client.video()?.handed_over_ns().to_vec();
            Some(Track { playback, handed_over_ns })
        });
        tracks.collect()
    }

    /// Instant 0 of the run's clock.
    pub fn base(&self) -> Instant {
        self.crowd.engine.base
    }

    /// Lets the room run and tells what the watcher saw meanwhile.
    ///
    /// # Errors
    /// The system's polling failed, or GStreamer lacks an element.
    pub fn watch_for(&mut self, time: Duration) -> Result<Seen, CompareError> {
        self.watcher.take(true);
        self.drive_for(time)?;
        Ok(self.watcher.take(false))
    }

    /// One person sends no picture any more, nor anything that says so.
    pub fn silence_camera(&mut self, person: usize) {
        self.silent = Some(person);
        self.set_active(person, &[]);
    }

    /// And sends what was asked for again.
    pub fn wake_camera(&mut self, person: usize) {
        self.silent = None;
        let rids = self.clip.encodings.iter().filter_map(|recorded| recorded.encoding.rid);
        let all = || rids.map(str::to_owned).collect();
        let active = self.active.get(&person).cloned().unwrap_or_else(all);
        self.set_active(person, &active);
    }

    fn set_active(&mut self, seat: usize, rids: &[String]) {
        let seat = self.crowd.engine.seats.get_mut(seat);
        if let Some(video) = seat.and_then(|seat| seat.client.video()) {
            video.set_active(rids);
        }
    }

    /// # Errors
    /// As [`Self::watch_for`].
    pub fn drive_for(&mut self, time: Duration) -> Result<(), CompareError> {
        let end = Instant::now() + time;
        self.drive_until(end, || false)
    }

    /// Lets the room run until `end`, or until `done`.
    ///
    /// # Errors
    /// As [`Self::watch_for`].
    pub fn drive_until(&mut self, end: Instant, done: impl Fn() -> bool) -> Result<(), CompareError> {
        while Instant::now() < end && !done() {
            self.crowd.turn(end)?;
            self.look()?;
            for seat in 0..self.crowd.engine.seats.len() {
                self.hear(seat);
            }
        }
        Ok(())
    }

    /// Hands the watcher what came for it.
    fn look(&mut self) -> Result<(), CompareError> {
        let Some(seat) = self.crowd.engine.seats.get_mut(WATCHER) else { return Ok(()) };
        while let Some(packet) = seat.client.poll_received() {
            let is_video = seat.client.rtc().media(packet.mid).is_some_and(|media| media.kind().is_video());
            if is_video {
                self.watcher.push(&packet)?;
            }
        }
        for mid in self.watcher.key_frames_needed() {
            seat.client.request_key_frame(mid);
        }
        Ok(())
    }

    /// What the server says to one of the people.
    fn hear(&mut self, seat: usize) {
        while let Some(place) = self.crowd.engine.seats.get_mut(seat)
            && let Some(message) = place.client.poll_message()
        {
            match serde_json::from_slice(&message.data) {
                Ok(ServerMessage::Welcome { .. }) => self.introduce(seat),
                Ok(ServerMessage::Layers { active, .. }) => {
                    if self.silent != Some(seat) {
                        self.set_active(seat, &active);
                    }
                    self.active.insert(seat, active);
                }
                // Nothing else changes what a synthetic person does.
                _ => {}
            }
        }
    }

    /// Says what is sent and what is wished for. The mode is chosen, so that nobody is moved to the other.
    fn introduce(&mut self, seat: usize) {
        let height = self.plan.wished_height();
        let Some(client) = self.crowd.engine.seats.get_mut(seat).map(|seat| &mut seat.client) else { return };
        let track = |mid: str0m::media::Mid, source, height| PublishedTrack {
            mid: mid.to_string(),
            source,
            muted: false,
            height,
        };
        let top = self.clip.encodings.last().map(|recorded| u32::from(recorded.encoding.height));
        let audio = client.audio_mid().map(|mid| track(mid, Source::Microphone, None));
        let video = client.video_mid().map(|mid| track(mid, Source::Camera, top));
        let mids: Vec<str0m::media::Mid> = client.slots().keys().copied().collect();
        let is_video =
            |mid: &str0m::media::Mid| client.rtc().media(*mid).is_some_and(|media| media.kind().is_video());
        let wishes = mids.into_iter().filter(is_video).map(|mid| SlotWish {
            mid: mid.to_string(),
            max_height: height,
            participant: None,
            source: None,
        });
        let messages = [
            ClientMessage::Publish { tracks: audio.into_iter().chain(video).collect() },
            ClientMessage::ModeChoose { mode: Some(self.plan.mode) },
            ClientMessage::SlotsWish { slots: wishes.collect() },
        ];
        for message in messages {
            if let Ok(text) = serde_json::to_vec(&message) {
                // A channel that is not open any more is of somebody who is out.
                self.crowd.engine.send(seat, Channel::Control, &text);
            }
        }
    }

    /// # Errors
    /// The server is gone, or the system keeps no account.
    pub fn edge(&self, server: &Server) -> Result<Edge, CompareError> {
        Ok(Edge {
            at: Instant::now(),
            processes: server.processes()?,
            own: Snapshot::of(std::process::id())?,
            loop_cpu: thread_cpu()?,
            machine: Machine::now()?,
            traffic: self.crowd.engine.traffic,
            received_bytes: self.crowd.engine.seats.iter().map(|seat| seat.received_bytes).collect(),
            received_packets: self.crowd.engine.seats.iter().map(|seat| seat.received_packets).collect(),
        })
    }

    /// Everyone leaves.
    pub fn close(self) {
        self.crowd.leave();
    }
}

/// On the run's clock.
pub fn nanoseconds(base: Instant, at: Instant) -> u64 {
    at.saturating_duration_since(base).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::clip::{Frame, Recorded};
    use crate::bench::source::single;

    const FRAME_NS: u64 = 33_333_333;

    fn clip(len: u32) -> Arc<Clip> {
        let frames = (0..len).map(|_| Frame { key: true, data: vec![0] }).collect();
        let encodings = vec![Recorded { encoding: single(1_000)[0], frames }];
        Arc::new(Clip { frames_per_second: 30, encodings })
    }

    #[test]
    fn a_number_and_a_moment_say_whose_picture_it_is_and_how_old() {
        let (people, shown) = (16, 1_000u32);
        let clip = clip(600);
        let tracks: Vec<Track> = (0..people)
            .map(|person| Track {
                playback: Playback { clip: Arc::clone(&clip), phase: 600 * person / people },
                handed_over_ns: (0..shown).map(|index| u64::from(index) * FRAME_NS).collect(),
            })
            .collect();
        for person in 0..people {
            for index in [0, 1, 250, 599, 600, 999] {
                for age_ns in [1_000_000, 80_000_000, 900_000_000] {
                    let at_ns = u64::from(index) * FRAME_NS + age_ns;
                    let number = tracks[person as usize].playback.number(index);
                    assert_eq!(whose(&tracks, number, at_ns), Some((person as usize, age_ns)));
                }
            }
        }
        assert_eq!(tracks[0].age_ns(5, 0), None, "not handed over yet");
    }

    #[test]
    fn both_modes_show_the_same_grid() {
        let canvas = Size { width: 1280, height: 720 };
        let plan = |people, mode| Plan { people, mode, canvas };
        assert_eq!(plan(4, Mode::Sfu).areas(), plan(4, Mode::Mcu).areas());
        assert_eq!((plan(4, Mode::Sfu).tiles(), plan(4, Mode::Mcu).tiles()), (3, 4));
        assert_eq!((plan(4, Mode::Sfu).wished_height(), plan(4, Mode::Mcu).wished_height()), (354, 720));
        assert_eq!(plan(25, Mode::Mcu).areas().len(), 25);
    }
}
