//! Two clients against each other in virtual time: one offers, the other answers as with a server that
//! offers.

use str0m::media::{Direction, MediaKind};

use super::*;
use crate::bench::source::single;

const STEP: Duration = Duration::from_millis(1);

/// Carries everything between the two for `time`, without delay. Returns the time after it.
pub fn run(pair: &mut [Client; 2], mut now: Instant, time: Duration) -> Instant {
    let end = now + time;
    while now < end {
        for (from, to) in [(0, 1), (1, 0)] {
            pair[from].handle_timeout(now).expect("it goes on");
            while let Some(transmit) = pair[from].poll_transmit() {
                let handled = pair[to].handle_datagram(now, now, transmit.source, &transmit.contents);
                handled.expect("it goes on");
            }
        }
        now += STEP;
    }
    now
}

pub fn publisher_and_viewer(now: Instant) -> [Client; 2] {
    let offer = Offer {
        video: Some(VideoSource::new(1, single(1_000_000), now, Duration::from_secs(60))),
        audio: Some(AudioSource::new(1, now)),
        ..Offer::default()
    };
    let (mut publisher, sdp) = Client::new(now, now, ([127, 0, 0, 1], 4001).into(), offer).expect("a client");
    let mut viewer = Client::answering(now, now, ([127, 0, 0, 1], 4002).into(), false).expect("a client");
    let answer = viewer.accept_offer(now, &sdp).expect("an answer");
    publisher.accept_answer(now, &answer).expect("an answer that fits");
    [publisher, viewer]
}

#[test]
fn a_client_that_answers_receives_all_of_what_was_offered() {
    let start = Instant::now();
    let mut pair = publisher_and_viewer(start);
    run(&mut pair, start, Duration::from_secs(3));
    let [publisher, viewer] = &mut pair;
    assert!(viewer.milestones().first_frame.is_some());
    assert_eq!(viewer.slots().len(), 2);
    let sent = publisher.audio().map_or(0, |audio| audio.sent().packets)
        + publisher.video().map_or(0, |video| video.sent().map(|sent| sent.packets).sum());
    let received: u64 =
        viewer.slots().values().flat_map(|slot| slot.tallies.values()).map(|tally| tally.packets).sum();
    assert!(sent > 300, "{sent}");
    assert_eq!(received, u64::from(sent));
    assert_eq!(viewer.foreign_packets(), 0);
}

#[test]
fn a_later_offer_adds_a_slot_and_disturbs_nothing() {
    let start = Instant::now();
    let mut pair = publisher_and_viewer(start);
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
