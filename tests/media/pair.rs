//! The emulation itself, and the synthetic client, against a bare engine: what a path loses, retransmission
//! must bring back, and nothing else may be needed for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antiphon::bench::client::{Client, Offer};
use antiphon::bench::reception::{Arrival, Slot};
use antiphon::bench::source::{AudioSource, VideoSource, simulcast, single};
use antiphon::bench::stamp::{AUDIO, Stamp};
use str0m::change::SdpOffer;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::link::Conditions;
use crate::world::{SERVER, Server, World};

/// A receiving engine with nothing around it. One [`Slot`] for each SSRC, as nothing here rewrites streams.
struct Receiver {
    rtc: Rtc,
    timeout: Instant,
    transmits: VecDeque<(SocketAddr, Vec<u8>)>,
    slots: std::collections::BTreeMap<u32, Slot>,
}

impl Receiver {
    fn answer(now: Instant, offer: &str) -> (Self, String) {
        let mut rtc = Rtc::builder()
            .set_crypto_provider(Arc::new(str0m_aws_lc_rs::default_provider()))
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .build(now);
        rtc.add_local_candidate(Candidate::host(SERVER.into(), "udp").expect("a host candidate"));
        let offer = SdpOffer::from_sdp_string(offer).expect("an offer");
        let answer = rtc.sdp_api().accept_offer(offer).expect("an answer");
        let receiver = Self { rtc, timeout: now, transmits: VecDeque::new(), slots: Default::default() };
        (receiver, answer.to_sdp_string())
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().expect("the engine goes on") {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return;
                }
                Output::Transmit(out) => self.transmits.push_back((out.destination, out.contents.to_vec())),
                Output::Event(Event::RtpPacket(packet)) => {
                    let stamp = Stamp::read(&packet.payload).expect("a stamp");
                    let ssrc = *packet.header.ssrc;
                    self.slots.entry(ssrc).or_default().handle(Arrival {
                        seq_no: *packet.seq_no,
                        ssrc,
                        marker: packet.header.marker,
                        stamp,
                        at: packet.timestamp,
                    });
                }
                Output::Event(_) => {}
            }
        }
    }

    fn slot(&self, encoding: u8) -> Option<&Slot> {
        self.slots.values().find(|slot| slot.tallies.keys().any(|(_, which)| *which == encoding))
    }
}

impl Server for Receiver {
    fn handle_datagram(&mut self, now: Instant, source: SocketAddr, contents: &[u8]) {
        let receive = Receive::new(Protocol::Udp, source, SERVER.into(), contents).expect("a datagram");
        self.rtc.handle_input(Input::Receive(now, receive)).expect("the engine goes on");
        self.drain();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.rtc.handle_input(Input::Timeout(now)).expect("the engine goes on");
        self.drain();
    }

    fn timeout(&self, _idle_until: Instant) -> Instant {
        self.timeout
    }

    fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.transmits.pop_front()
    }
}

/// A publisher, connected to a bare receiver over a path.
fn connected(conditions: Conditions, encodings: usize) -> World<Receiver> {
    let start = Instant::now();
    let encodings = if encodings == 1 { single(1_500_000) } else { simulcast(1_500_000) };
    let offer = Offer {
        video: Some(VideoSource::new(1, encodings, start, Duration::from_secs(3600))),
        audio: Some(AudioSource::new(1, start)),
        ..Offer::default()
    };
    let address = SocketAddr::from(([10, 0, 0, 1], 5000));
    let (mut client, sdp) = Client::new(start, start, address, offer).expect("a client");
    let (server, answer) = Receiver::answer(start, &sdp);
    let mut world = World::new(start, 11, server);
    client.accept_answer(start, &answer).expect("the answer fits");
    world.add(client, conditions);
    let up = |world: &World<Receiver>| world.sites[0].client.milestones().connected.is_some();
    assert!(world.run_until_done(Duration::from_secs(10), up), "connects");
    world
}

#[test]
fn every_encoding_and_the_voice_arrive_over_a_good_path() {
    let mut world = connected(Conditions::default(), 3);
    world.run(Duration::from_secs(5));
    for encoding in [0, 1, 2] {
        let slot = world.server.slot(encoding).expect("the encoding arrived");
        assert!(slot.playout.frames >= 145, "{}", slot.playout.frames);
        assert_eq!(slot.playout.broken, 0);
    }
    let voice = world.server.slot(AUDIO).expect("audio arrived");
    assert!(voice.tallies[&(1, AUDIO)].packets >= 245);
}

/// Runs 20 s and returns the longest freeze and the share of lost packets that retransmission brought back.
fn watch(conditions: Conditions) -> (Duration, f64) {
    let mut world = connected(conditions, 1);
    world.run(Duration::from_secs(20));
    let sent = world.sites[0].client.video().and_then(|video| video.sent().next()).expect("video");
    let sent_before = sent.packets;
    world.run(Duration::from_secs(1));
    let slot = world.server.slot(0).expect("video arrived");
    let received = slot.tallies[&(1, 0)].received(0, sent_before);
    let missing = u64::from(sent_before) - received;
    let lost = f64::from(sent_before) * conditions.loss;
    let recovered = if lost > 0.0 { 1.0 - missing as f64 / lost } else { 1.0 };
    (slot.playout.freeze_max, recovered)
}

#[test]
fn two_percent_loss_is_healed_without_a_visible_freeze() {
    let (freeze, recovered) = watch(Conditions { loss: 0.02, ..Conditions::default() });
    assert!(recovered > 0.97, "{recovered}");
    assert!(freeze < Duration::from_millis(400), "{freeze:?}");
}

#[test]
fn reordering_and_jitter_lose_nothing() {
    let jitter = Duration::from_millis(30);
    let (freeze, recovered) = watch(Conditions { jitter, reordered: 0.1, ..Conditions::default() });
    assert_eq!(recovered, 1.0);
    assert!(freeze < Duration::from_millis(150), "{freeze:?}");
}
