//! A room's beginning and end, and what must hold for every connection: no nonce is used twice.

use std::time::Duration;

use antiphon::bench::client::Offer;
use antiphon::bench::source::{AudioSource, VideoSource, simulcast};
use antiphon::core::participant::Part;

use crate::link::Conditions;
use crate::node::{self, Node};
use crate::world::World;

/// A member who sends, receives and talks.
fn member(world: &mut World<Node>, number: u32, conditions: Conditions) -> usize {
    let now = world.now();
    let offer = Offer {
        video: Some(VideoSource::new(number, simulcast(1_500_000), now, Duration::from_secs(3600))),
        audio: Some(AudioSource::new(number, now)),
        video_slots: 3,
        audio_slots: 3,
        channels: true,
        ..Offer::default()
    };
    node::join(world, Part::Member, offer, conditions)
}

#[test]
fn nobody_is_welcomed_before_the_history_was_read() {
    let mut world = node::world_unreadable(1, 3);
    let site = member(&mut world, 1, Conditions::default());
    let welcomed = |world: &mut World<Node>| {
        let mut messages = std::iter::from_fn(|| world.sites[site].client.poll_message());
        messages.any(|message| String::from_utf8_lossy(&message.data).contains("\"welcome\""))
    };
    world.run(Duration::from_secs(2));
    assert_eq!(world.server.unreadable, 0, "it was tried again, once a second");
    assert!(!welcomed(&mut world), "the third try failed, too");
    world.run(Duration::from_millis(1_500));
    assert!(welcomed(&mut world), "the fourth try gave the history");
}

#[test]
fn a_node_that_goes_down_says_so_when_the_last_peer_is_gone() {
    let mut world = node::world(2);
    let sites = [1, 2].map(|number| member(&mut world, number, Conditions::default()));
    world.run(Duration::from_secs(2));
    let now = world.now();
    let mut drained = world.server.drain(now);
    assert!(drained.try_recv().is_err(), "the last words are still to be said");
    world.run(Duration::from_secs(1));
    assert_eq!(drained.try_recv(), Ok(()));
    for site in sites {
        let mut messages = std::iter::from_fn(|| world.sites[site].client.poll_message());
        assert!(messages.any(|message| String::from_utf8_lossy(&message.data).contains("\"draining\"")));
    }
}

#[test]
fn a_node_that_goes_down_does_not_wait_for_the_dead() {
    let mut world = node::world(4);
    let site = member(&mut world, 1, Conditions::default());
    world.run(Duration::from_secs(2));
    world.sites[site].up.conditions.loss = 1.0;
    let now = world.now();
    let mut drained = world.server.drain(now);
    world.run(Duration::from_millis(1_200));
    assert_eq!(drained.try_recv(), Ok(()));
}

#[test]
fn who_vanishes_without_a_word_is_lost_and_then_gone() {
    let mut world = node::world(5);
    let sites = [1, 2].map(|number| member(&mut world, number, Conditions::default()));
    world.run(Duration::from_secs(3));
    let states = |world: &mut World<Node>| {
        let now = world.now();
        let stats = world.server.stats(now);
        stats.participants.iter().map(|participant| participant.connected).collect::<Vec<_>>()
    };
    assert_eq!(states(&mut world), [true, true]);
    for (up, down) in [(1.0, 1.0), (0.0, 0.0)] {
        world.sites[sites[0]].up.conditions.loss = up;
        world.sites[sites[0]].down.conditions.loss = down;
        world.run(Duration::from_secs(9));
        assert_eq!(states(&mut world), [up == 0.0, true]);
    }
    world.sites[sites[0]].up.conditions.loss = 1.0;
    world.run(Duration::from_secs(25));
    assert_eq!(states(&mut world), [true], "its seat was kept for 15 s");
}

#[test]
fn ice_can_be_restarted_whatever_the_lines_are() {
    let mut world = node::world(6);
    member(&mut world, 1, Conditions::default());
    let viewer = Offer { video_slots: 3, audio_slots: 3, ..Offer::default() };
    node::join(&mut world, Part::Viewer { of: None }, viewer, Conditions::default());
    world.run(Duration::from_secs(1));
    let (now, fragment) = (world.now(), "a=ice-ufrag:again\r\na=ice-pwd:a-password-of-22-letters\r\n");
    for peer in [1, 2] {
        let answer = world.server.restart_ice(now, peer, fragment);
        assert!(answer.contains("\r\nm=audio ") && answer.contains("\r\na=ice-pwd:"), "{answer}");
    }
}

/// Media, resends, probes, layer switches, RTCP of ours and of the engine: all under one key for each client.
/// Senders then turn their pictures themselves, and mixers and recorders need not (3GPP TS 26.114 §7.4.5).
#[test]
fn the_orientation_of_cameras_is_offered_and_not_taken() {
    let mut world = node::world(1);
    member(&mut world, 1, Conditions::default());
    let (offered, answered) = world.server.last_exchange.clone();
    let has = |sdp: &str, what: &str| sdp.contains(what);
    assert!(has(&offered, "urn:3gpp:video-orientation"));
    assert!(!has(&answered, "urn:3gpp:video-orientation"));
    for kept in ["ssrc-audio-level", "abs-send-time", "transport-wide-cc", "sdes:mid", "sdes:rtp-stream-id"] {
        assert!(has(&offered, kept) && has(&answered, kept), "{kept}");
    }
}

#[test]
fn no_nonce_is_used_twice() {
    let mut world = node::world(3);
    let lossy = Conditions { loss: 0.1, ..Conditions::default() };
    let narrow = Conditions { rate_bps: Some(900_000), ..Conditions::default() };
    for (number, conditions) in [(1, Conditions::default()), (2, lossy), (3, narrow)] {
        member(&mut world, number, conditions);
    }
    world.run(Duration::from_secs(20));
    let nonces = &world.server.nonces;
    assert!(nonces.rtp > 10_000 && nonces.rtcp > 100, "{} RTP, {} RTCP", nonces.rtp, nonces.rtcp);
}
