//! Two clients against each other in virtual time: one offers, the other answers as with a server that
//! offers.

use str0m::media::{Direction, MediaKind};

use super::*;
use crate::bench::source::single;

const STEP: Duration = Duration::from_millis(1);

/// Carries everything between the two for `time`, without delay. Returns the time after it.
pub fn run(pair: &mut [Client; 2], now: Instant, time: Duration) -> Instant {
    run_where(pair, now, time, |_, _| true)
}

/// The same, but for what does not pass: datagrams of the first or the second.
fn run_where(
    pair: &mut [Client; 2],
    mut now: Instant,
    time: Duration,
    mut passes: impl FnMut(usize, &[u8]) -> bool,
) -> Instant {
    let end = now + time;
    while now < end {
        for (from, to) in [(0, 1), (1, 0)] {
            pair[from].handle_timeout(now).expect("it goes on");
            while let Some(transmit) = pair[from].poll_transmit() {
                if !passes(from, &transmit.contents) {
                    continue;
                }
                let handled = pair[to].handle_datagram(now, now, transmit.source, &transmit.contents);
                handled.expect("it goes on");
            }
        }
        now += STEP;
    }
    now
}

pub fn publisher_and_viewer(now: Instant) -> [Client; 2] {
    publisher_and(now, false)
}

/// A publisher, and a viewer that receives by its engine or directly.
fn publisher_and(now: Instant, directly: bool) -> [Client; 2] {
    let offer = Offer {
        video: Some(VideoSource::new(1, single(1_000_000), now, Duration::from_secs(60))),
        audio: Some(AudioSource::new(1, now)),
        ..Offer::default()
    };
    let (mut publisher, sdp) = Client::new(now, now, ([127, 0, 0, 1], 4001).into(), offer).expect("a client");
    let mut viewer = Client::answering(now, now, ([127, 0, 0, 1], 4002).into(), false).expect("a client");
    if directly {
        viewer.receive_directly();
    }
    let answer = viewer.accept_offer(now, &sdp).expect("an answer");
    publisher.accept_answer(now, &answer).expect("an answer that fits");
    [publisher, viewer]
}

/// Media packets that the publisher sent, and that the viewer has.
fn sent_and_received([publisher, viewer]: &mut [Client; 2]) -> (u64, u64) {
    let sent = publisher.audio().map_or(0, |audio| audio.sent().packets)
        + publisher.video().map_or(0, |video| video.sent().map(|sent| sent.packets).sum());
    let tallies = viewer.slots().values().flat_map(|slot| slot.tallies.values());
    (sent.into(), tallies.map(|tally| tally.packets).sum())
}

#[test]
fn a_client_that_answers_receives_all_of_what_was_offered() {
    for directly in [false, true] {
        let start = Instant::now();
        let mut pair = publisher_and(start, directly);
        run(&mut pair, start, Duration::from_secs(3));
        let (sent, received) = sent_and_received(&mut pair);
        assert!(sent > 300, "{sent}");
        assert_eq!(received, sent);
        let [_, viewer] = &pair;
        assert!(viewer.milestones().first_frame.is_some());
        assert_eq!((viewer.slots().len(), viewer.foreign_packets()), (2, 0));
        assert_eq!(viewer.srtp_profile(), Some("SRTP_AEAD_AES_128_GCM"));
    }
}

#[test]
fn what_is_lost_is_asked_for_and_comes_again() {
    for directly in [false, true] {
        let start = Instant::now();
        let mut pair = publisher_and(start, directly);
        let now = run(&mut pair, start, Duration::from_secs(1));
        // Every twentieth datagram of video; sound would not be asked for.
        let (mut videos, mut lost, mut told) = (0, 0, 0);
        let now = run_where(&mut pair, now, Duration::from_secs(3), |from, datagram| {
            let is_media = matches!(datagram, [128..=191, 0..=191 | 224..=255, ..]);
            if from == 0 && is_media && datagram.len() > 500 {
                videos += 1;
                lost += u64::from(videos % 20 == 0);
                return videos % 20 != 0;
            }
            told += u64::from(from == 1 && datagram.len() > 1 && (128..=191).contains(&datagram[0]));
            true
        });
        run(&mut pair, now, Duration::from_millis(500));
        let (sent, received) = sent_and_received(&mut pair);
        assert!(lost > 10, "{lost}");
        assert_eq!(received, sent, "directly: {directly}");
        // Arrivals 20 times a second, reports once for each stream, and what was asked for.
        assert!((55..140).contains(&told), "{told} datagrams of feedback in 3 s, directly: {directly}");
    }
}

#[test]
fn a_picture_that_is_stuck_asks_for_a_key_frame() {
    for directly in [false, true] {
        let start = Instant::now();
        let mut pair = publisher_and(start, directly);
        let now = run(&mut pair, start, Duration::from_secs(1));
        // For longer than a sender remembers.
        let is_rtp = |datagram: &[u8]| matches!(datagram, [128..=191, ..]);
        let now = run_where(&mut pair, now, Duration::from_secs(4), |_, datagram| !is_rtp(datagram));
        assert_eq!(pair[0].key_frames_requested(), 0);
        let shown =
            |pair: &[Client; 2]| pair[1].slots().values().map(|slot| slot.playout.frames).sum::<u64>();
        let before = shown(&pair);
        run(&mut pair, now, Duration::from_secs(2));
        assert!(pair[0].key_frames_requested() > 0, "directly: {directly}");
        assert!(shown(&pair) > before + 30, "directly: {directly}");
    }
}

#[test]
fn a_later_offer_adds_a_slot_and_disturbs_nothing() {
    for directly in [false, true] {
        a_later_offer(publisher_and(Instant::now(), directly));
    }
}

fn a_later_offer(mut pair: [Client; 2]) {
    let start = Instant::now();
    let now = run(&mut pair, start, Duration::from_secs(1));
    let [publisher, viewer] = &mut pair;
    let mut api = publisher.rtc().sdp_api();
    api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
    let (offer, pending) = api.apply().expect("something to offer");
    let answer = viewer.accept_offer(now, &offer.to_sdp_string()).expect("an answer");
    let answer = SdpAnswer::from_sdp_string(&answer).expect("SDP");
    publisher.rtc().sdp_api().accept_answer(pending, answer).expect("an answer that fits");
    let shown = |viewer: &Client| viewer.slots().values().map(|slot| slot.playout.frames).sum::<u64>();
    let before = shown(viewer);
    run(&mut pair, now, Duration::from_secs(1));
    assert_eq!(pair[1].slots().len(), 3);
    assert!(shown(&pair[1]) >= before + 28);
}

#[test]
fn what_a_server_sends_in_place_of_sdp_is_an_error() {
    let now = Instant::now();
    let mut viewer = Client::answering(now, now, ([127, 0, 0, 1], 4003).into(), false).expect("a client");
    assert!(matches!(viewer.accept_offer(now, "v=1"), Err(ClientError::Sdp(_))));
    assert!(matches!(viewer.add_candidate(now, "candidate:x"), Err(ClientError::Candidate(_))));
    let candidate = "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host";
    viewer.add_candidate(now, candidate).expect("a candidate");
}
