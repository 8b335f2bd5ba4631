//! Files that are played and streams that are pushed, among people.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::core::chat::RoomHistory;
use crate::core::feed::{LINE_PICTURE, LINE_SOUND, lines, sources};
use crate::core::format::Format;
use crate::core::ids::{Identity, SessionId};
use crate::core::protocol::{Grant, Kind, ServerMessage};
use crate::core::room::fixtures::{KEYFRAME, settings};
use crate::core::room::{Arrival, Forward, Output, Settings};
use crate::core::track::SlotLine;

fn now() -> Now {
    Now { instant: Instant::now(), unix_ms: 7 }
}

fn room(change: impl FnOnce(&mut Settings)) -> Room {
    let mut settings = Settings { publishers_max: 1, ..settings("feeds") };
    settings.state.participants_max = 2;
    change(&mut settings);
    let mut room = Room::new(now(), settings);
    room.handle_restored(now(), RoomHistory::default());
    room
}

fn entrant(name: &str, part: Part, session: u128) -> Entrant {
    Entrant {
        identity: Identity::parse(name).unwrap(),
        name: name.to_owned(),
        grant: Grant {
            publish: true,
            subscribe: part == Part::Member,
            chat: false,
            files: false,
            admin: false,
            lowest_layer: false,
        },
        lines: if part == Part::Member { Vec::new() } else { lines() },
        part,
        session: SessionId(session),
        has_token: true,
        returns: false,
        slots: Vec::new(),
        seed: 7,
    }
}

/// Somebody with a slot of each kind.
fn member(room: &mut Room, name: &str) -> ParticipantKey {
    let slot =
        |mid: &str, kind, format| SlotLine { mid: mid.into(), kind, formats: vec![format], described: false };
    let slots = vec![slot("a", Kind::Audio, Format::OPUS), slot("v", Kind::Video, Format::VP8)];
    let entrant = Entrant { slots, ..entrant(name, Part::Member, 1) };
    let key = room.handle_join(now(), entrant).unwrap();
    room.handle_control_open(now(), key);
    room.handle_connected(now(), key);
    key
}

fn play(room: &mut Room, name: &str) -> Result<ParticipantKey, Refusal> {
    let [picture, sound] = sources(false);
    room.seat_feed(now(), entrant(name, Part::Player, 2), &[(LINE_PICTURE, picture), (LINE_SOUND, sound)])
}

fn publish(room: &mut Room, name: &str) -> Result<ParticipantKey, Refusal> {
    let [picture, sound] = sources(true);
    room.seat_feed(now(), entrant(name, Part::Publisher, 3), &[(LINE_PICTURE, picture), (LINE_SOUND, sound)])
}

fn outputs(room: &mut Room) -> Vec<Output> {
    std::iter::from_fn(|| room.poll_output()).collect()
}

/// A feed's packet of this number, two tenths of a second after the one before; what it is forwarded as.
fn send(room: &mut Room, from: ParticipantKey, line: u8, format: Format, number: u64) -> Vec<Forward> {
    let later = Now { instant: now().instant + Duration::from_millis(200) * number as u32, unix_ms: 207 };
    room.handle_timeout(later);
    let payload: Arc<[u8]> = Arc::from(&KEYFRAME[..]);
    let arrival = Arrival {
        line,
        encoding: 0,
        format,
        seq_no: number,
        rtp_time: number as u32 * 9_000,
        marker: true,
        payload: &payload,
        descriptor: None,
        audio_level: None,
        rare: None,
    };
    let mut forwards = Vec::new();
    assert!(room.handle_rtp(later.instant, from, &arrival, &mut forwards));
    forwards
}

#[test]
fn a_file_is_seen_and_heard_by_all_as_a_screen_is() {
    let mut room = room(|_| {});
    let ann = member(&mut room, "ann");
    let player = play(&mut room, "clip.mp4").unwrap();
    outputs(&mut room);
    for (line, format) in [(LINE_PICTURE, Format::VP8), (LINE_SOUND, Format::OPUS)] {
        // Its first packet says what it is; from then on it has a slot.
        let forwards: Vec<Forward> =
            (1..5).flat_map(|number| send(&mut room, player, line, format, number)).collect();
        assert!(forwards.len() >= 3 && forwards.iter().all(|forward| forward.to == ann), "line {line}");
    }
    let states = room.participant_states();
    let state = states.iter().find(|state| state.identity.as_str() == "clip.mp4").unwrap();
    let shown: Vec<Source> = state.tracks.iter().map(|track| track.source).collect();
    assert_eq!(shown, [Source::Screen, Source::ScreenAudio]);
}

#[test]
fn a_file_counts_as_nobody_keeps_no_room_open_and_replaces_nobody() {
    let mut room = room(|settings| {
        settings.state.locked = true;
        settings.state.lobby = true;
    });
    let started = Instant::now();
    play(&mut room, "ann").unwrap();
    assert!(room.poll_timeout() <= started + Duration::from_secs(61), "it is empty still");
    let mut open = self::room(|_| {});
    let ann = member(&mut open, "ann");
    let player = play(&mut open, "ann").unwrap();
    assert_eq!(open.identity_of(ann).unwrap().as_str(), "ann", "ann is here still");
    assert_eq!(open.identity_of(player).unwrap().as_str(), "ann-2");
    let summary = open.summary();
    assert_eq!((summary.participants, summary.publishers), (1, 0));
    publish(&mut open, "obs").unwrap();
    let summary = open.summary();
    assert_eq!((summary.participants, summary.publishers), (2, 1));
}

#[test]
fn a_stream_that_is_pushed_is_bound_by_the_rooms_limits() {
    let mut room = room(|_| {});
    let obs = publish(&mut room, "obs").unwrap();
    assert_eq!(publish(&mut room, "second").unwrap_err().code, Code::RoomFull, "one may publish");
    room.handle_leave(now(), obs);
    assert!(
        outputs(&mut room).iter().any(|output| matches!(output, Output::Gone { who, .. } if *who == obs))
    );
    publish(&mut room, "second").unwrap();
    let mut secret = self::room(|settings| settings.state.e2ee = true);
    assert_eq!(play(&mut secret, "clip").unwrap_err().code, Code::EndToEndEncrypted);
    assert_eq!(publish(&mut secret, "obs").unwrap_err().code, Code::EndToEndEncrypted);
}

#[test]
fn where_it_is_in_its_file_is_told_to_all() {
    let mut room = room(|_| {});
    member(&mut room, "ann");
    let player = play(&mut room, "clip.mp4").unwrap();
    outputs(&mut room);
    let playing =
        Playing { id: "1".into(), paused: true, position_ms: 1_500, at_ms: 9, duration_ms: Some(4_000) };
    room.set_playing(player, playing.clone());
    let told = outputs(&mut room).into_iter().find_map(|output| match output {
        Output::Tell(_, message) => match *message {
            ServerMessage::ParticipantUpdated { participant } => participant.playing,
            _ => None,
        },
        _ => None,
    });
    assert_eq!(told, Some(playing));
}

#[test]
fn a_key_frame_of_a_file_is_asked_of_its_process() {
    let mut room = room(|_| {});
    let player = play(&mut room, "clip.mp4").unwrap();
    send(&mut room, player, LINE_PICTURE, Format::VP8, 1);
    // Whoever comes later than the key frame needs one.
    let late = Now { instant: now().instant + Duration::from_secs(5), unix_ms: 10 };
    member(&mut room, "ann");
    room.handle_timeout(late);
    let asked = |output: &Output| matches!(output, Output::RequestKeyframe { from, .. } if *from == player);
    assert!(outputs(&mut room).iter().any(asked));
}
