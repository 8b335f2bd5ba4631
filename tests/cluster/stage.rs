//! Who sends and who watches, by real clients over UDP, driven by one loop.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use antiphon::bench::client::Offer;
use antiphon::bench::engine::Engine;
use antiphon::bench::reception::Shown;
use antiphon::bench::source::{AudioSource, VideoSource, simulcast};
use reqwest::StatusCode;

use crate::LONG;
use crate::nodes::World;

/// Of the top encoding; the others take a third and a tenth.
pub const TOP_BPS: u64 = 300_000;
const TURN: Duration = Duration::from_millis(10);

/// Clients of one test.
pub struct Stage {
    pub engine: Engine,
}

impl Stage {
    pub fn new() -> Self {
        Self { engine: Engine::new(IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("epoll") }
    }

    /// A publisher by WHIP through this node, wherever that leads. `number` marks its media.
    pub fn publish(&mut self, world: &World, node: usize, room: &str, number: u32) -> usize {
        let now = Instant::now();
        let offer = Offer {
            video: Some(VideoSource::new(number, simulcast(TOP_BPS), now, Duration::from_secs(3600))),
            audio: Some(AudioSource::new(number, now)),
            ..Offer::default()
        };
        let (seat, sdp) = self.engine.add(offer).expect("a socket");
        let mut url = format!("{}/whip?identity=sender-{number}", world.url_of(node, room));
        for _ in 0..3 {
            match world.join(&url, sdp.clone()) {
                (StatusCode::CREATED, _, answer) => {
                    self.engine.answer(seat, &answer);
                    return seat;
                }
                (StatusCode::TEMPORARY_REDIRECT, Some(location), _) => url = location,
                (status, _, body) => panic!("{status}: {body}"),
            }
        }
        panic!("{room} is sent from node to node");
    }

    /// As [`Stage::publish`], where it is served at once.
    pub fn publish_at(&mut self, world: &World, node: usize, room: &str, number: u32) -> usize {
        let now = Instant::now();
        let offer = Offer {
            video: Some(VideoSource::new(number, simulcast(TOP_BPS), now, Duration::from_secs(3600))),
            audio: Some(AudioSource::new(number, now)),
            ..Offer::default()
        };
        let (seat, sdp) = self.engine.add(offer).expect("a socket");
        let url = format!("{}/whip?identity=sender-{number}", world.url_of(node, room));
        let (status, location, answer) = world.join(&url, sdp);
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        assert!(location.is_some_and(|at| at.starts_with(&world.nodes[node].url)), "requests belong there");
        self.engine.answer(seat, &answer);
        seat
    }

    /// Packets that a publisher has sent: sound and the top encoding, which viewers on a good path take, and
    /// all.
    pub fn sent(&mut self, publisher: usize) -> (u32, u32) {
        let client = &mut self.engine.seats[publisher].client;
        let sound = client.audio().map_or(0, |audio| audio.sent().packets);
        let video: Vec<u32> =
            client.video().map(|video| video.sent().map(|sent| sent.packets).collect()).unwrap_or_default();
        (sound + video.last().unwrap_or(&0), sound + video.iter().sum::<u32>())
    }

    /// A WHEP viewer through this node. Gives its seat and its session's address, or where it was sent.
    pub fn watch(&mut self, world: &World, node: usize, room: &str) -> Result<(usize, String), String> {
        let (seat, sdp) = self.offer();
        let url = format!("{}/whep?identity=viewer-{seat}", world.url_of(node, room));
        match world.join(&url, sdp) {
            (StatusCode::CREATED, location, answer) => {
                self.engine.answer(seat, &answer);
                Ok((seat, location.expect("a session")))
            }
            (StatusCode::TEMPORARY_REDIRECT, Some(location), _) => Err(location),
            (status, _, body) => panic!("{status}: {body}"),
        }
    }

    /// A viewer that is to join: its seat and its offer.
    pub fn offer(&mut self) -> (usize, String) {
        let offer = Offer { video_slots: 1, audio_slots: 1, timeline: true, ..Offer::default() };
        self.engine.add(offer).expect("a socket")
    }

    /// As [`Stage::watch`], where it is served at once.
    pub fn seat(&mut self, world: &World, node: usize, room: &str) -> usize {
        self.watch(world, node, room).expect("it is served here").0
    }

    /// Goes on for so long.
    pub fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.engine.turn(end.min(Instant::now() + TURN)).expect("epoll");
        }
    }

    /// Goes on until something is so. Gives how long that took.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) -> Duration {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < LONG, "not so after {LONG:?}: {what}");
            self.engine.turn(Instant::now() + TURN).expect("epoll");
        }
        began.elapsed()
    }

    /// What a viewer was shown last.
    pub fn last(&self, seat: usize) -> Option<Shown> {
        let slots = self.engine.seats[seat].client.slots().values();
        slots
            .flat_map(|slot| slot.playout.timeline.iter().flatten().last())
            .max_by_key(|shown| shown.at)
            .copied()
    }

    /// All of these see this publisher, by pictures of after `since`.
    pub fn all_see(&self, seats: &[usize], publisher: u32, since: Instant) -> bool {
        let sees = |seat: &usize| {
            self.last(*seat).is_some_and(|shown| shown.publisher == publisher && shown.at > since)
        };
        seats.iter().all(sees)
    }

    /// Packets that came twice, and pictures without what they refer to, of a viewer.
    pub fn faults(&self, seat: usize) -> (u64, u64) {
        let slots = self.engine.seats[seat].client.slots().values();
        slots.fold((0, 0), |(twice, broken), slot| {
            (twice + slot.sequence.duplicates, broken + slot.playout.broken)
        })
    }

    /// Half of the packets that come within this time have been under way for less; nanoseconds.
    pub fn delay(&mut self, seats: &[usize], time: Duration) -> u64 {
        self.record(seats, time);
        self.median(seats)
    }

    /// The same of each of these by itself, within the same time.
    pub fn delays<const N: usize>(&mut self, seats: [usize; N], time: Duration) -> [u64; N] {
        self.record(&seats, time);
        seats.map(|seat| self.median(&[seat]))
    }

    fn record(&mut self, seats: &[usize], time: Duration) {
        for seat in seats {
            self.engine.seats[*seat].client.record_delays(true);
        }
        self.run(time);
    }

    fn median(&mut self, seats: &[usize]) -> u64 {
        let mut delays = Vec::new();
        for seat in seats {
            delays.extend(self.engine.seats[*seat].client.drain_delays());
            self.engine.seats[*seat].client.record_delays(false);
        }
        delays.sort_unstable();
        delays.get(delays.len() / 2).copied().expect("packets came")
    }
}
