//! Streams that lose, repeat and delay packets, watched from a slot that begins at any time.

use proptest::prelude::*;
use str0m::rtp::Vp8Descriptor;

use super::*;
use crate::core::forward::{Rewriter, Rewritten};
use crate::core::payload::{Codec, inspect};
use crate::core::protocol::Kind;

const FRAME_TICKS: u32 = 3_000;
const FRAME_TIME: Duration = Duration::from_millis(33);
const PARTS: u64 = 3;

/// A packet of a VP8 picture in three parts.
#[derive(Debug, Clone)]
struct Packet {
    seq_no: u64,
    rtp_time: u32,
    frame: FrameInfo,
    payload: Arc<[u8]>,
}

fn packet(seq_no: u64, key: bool, bytes: usize) -> Packet {
    let (picture, part) = (seq_no / PARTS, seq_no % PARTS);
    let id = (picture as u16 & 0x7fff) | 0x8000;
    let start = u8::from(part == 0) << 4;
    let head = [0x80 | start, 0xe0, (id >> 8) as u8, id as u8, picture as u8, 0x20, u8::from(!key), 0];
    let payload: Arc<[u8]> = head.into_iter().chain(std::iter::repeat(0)).take(bytes.max(8)).collect();
    let frame = inspect(Codec::Vp8, &payload, None);
    assert_eq!(frame.keyframe, key && part == 0);
    Packet { seq_no, rtp_time: picture as u32 * FRAME_TICKS, frame, payload }
}

impl Packet {
    fn meta(&self) -> PacketMeta<'_> {
        let marker = self.seq_no % PARTS == PARTS - 1;
        PacketMeta { seq_no: self.seq_no, rtp_time: self.rtp_time, marker, frame: &self.frame, dd: None }
    }
}

fn push(replay: &mut Replay, now: Instant, packet: &Packet) -> bool {
    replay.push(now, &packet.meta(), &packet.payload, None)
}

fn numbers(replay: &Replay) -> Vec<u64> {
    replay.packets.iter().map(|packet| packet.seq_no).collect()
}

/// Packets `from..to` of a stream whose picture 100 is the key frame, each picture when it is due.
fn fill(replay: &mut Replay, start: Instant, from: u64, to: u64) -> Instant {
    let mut now = start;
    for seq_no in from..to {
        now = start + FRAME_TIME * (seq_no / PARTS - 100) as u32;
        push(replay, now, &packet(seq_no, seq_no / PARTS == 100, 1_000));
    }
    now
}

#[test]
fn pictures_are_a_millisecond_apart_and_the_newest_keeps_its_time() {
    let mut replay = Replay::default();
    let now = fill(&mut replay, Instant::now(), 300, 311);
    assert!(replay.is_whole() && replay.will_serve(now));
    let replayed: Vec<_> = replay.packets(now).map(|(at, meta, _)| (now - at, meta.rtp_time)).collect();
    assert_eq!(replayed.len(), 11);
    for (index, (before, rtp_time)) in replayed.iter().enumerate() {
        let left = 3 - index as u32 / 3;
        assert_eq!((*before, *rtp_time), (STEP * left, 103 * FRAME_TICKS - left * STEP_TICKS));
    }
}

#[test]
fn it_is_gone_when_it_is_old_or_large_and_comes_back_with_a_key_frame() {
    let start = Instant::now();
    let mut replay = Replay::default();
    let now = fill(&mut replay, start, 300, 300 + 15 * PARTS);
    assert_eq!(now - start, Duration::from_millis(462));
    assert!(replay.is_whole());
    assert!(!replay.will_serve(now), "the next picture may come too late");
    let now = fill(&mut replay, start, 345, 351);
    assert!(!replay.is_whole() && replay.packets.capacity() == 0);
    push(&mut replay, now, &packet(351, true, 1_000));
    assert!(replay.is_whole());
    for seq_no in 352..400 {
        push(&mut replay, now, &packet(seq_no, false, 10_000));
        assert!(replay.bytes <= BYTES_MAX);
    }
    assert!(!replay.is_whole() && replay.packets.is_empty());
}

#[test]
fn nothing_is_kept_of_a_stream_that_falls_silent() {
    let mut replay = Replay::default();
    let now = fill(&mut replay, Instant::now(), 300, 303);
    assert!(!replay.will_serve(now + QUIET), "no packet may come to send it with");
    replay.handle_timeout(now + AGE_MAX);
    assert!(replay.is_whole());
    replay.handle_timeout(now + AGE_MAX + STEP);
    assert!(!replay.is_whole() && replay.packets.capacity() == 0);
}

#[test]
fn a_hole_is_not_replayed_until_it_is_filled() {
    let mut replay = Replay::default();
    let start = Instant::now();
    fill(&mut replay, start, 300, 302);
    let now = fill(&mut replay, start, 303, 309);
    assert!(!replay.is_whole() && !replay.will_serve(now));
    assert!(!push(&mut replay, now, &packet(302, true, 1_000)));
    assert!(replay.is_whole() && replay.will_serve(now));
    push(&mut replay, now, &packet(302, true, 1_000));
    assert_eq!(numbers(&replay), (300..309).collect::<Vec<_>>());
}

/// What followed it was not kept, as nobody knew that it would be of use.
#[test]
fn nothing_begins_with_a_key_frame_that_comes_late() {
    let mut replay = Replay::default();
    let now = fill(&mut replay, Instant::now(), 301, 309);
    assert!(!push(&mut replay, now, &packet(300, true, 1_000)));
    assert!(!replay.is_whole() && replay.packets.is_empty());
    assert!(push(&mut replay, now, &packet(309, true, 1_000)));
    assert!(replay.is_whole());
}

/// H.264: parameter sets and picture, each a place to begin at.
#[test]
fn a_key_frame_of_several_beginnings_is_one() {
    let mut replay = Replay::default();
    let now = Instant::now();
    let unit = |seq_no, bytes: &[u8]| Packet {
        seq_no,
        rtp_time: 9_000,
        frame: inspect(Codec::H264, bytes, None),
        payload: Arc::from(bytes),
    };
    for (seq_no, bytes) in [(7, &[0x67, 66, 0, 31][..]), (8, &[0x68, 1]), (9, &[0x65, 0x88])] {
        push(&mut replay, now, &unit(seq_no, bytes));
    }
    assert_eq!(numbers(&replay), [7, 8, 9]);
    assert!(replay.is_whole());
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrive,
    Lose,
    Repeat,
    Late(usize),
}

/// How a stream may arrive: when, and each packet with its fate and whether its picture is a key frame.
fn arrivals() -> impl Strategy<Value = Vec<(u64, Packet)>> {
    let fate = prop_oneof![
        40 => Just(Fate::Arrive),
        1 => Just(Fate::Lose),
        1 => Just(Fate::Repeat),
        2 => (1_usize..9).prop_map(Fate::Late),
    ];
    let picture = (prop::bool::weighted(0.1), 8_usize..3_000, 5_u64..60);
    (prop::collection::vec(fate, 240), prop::collection::vec(picture, 80)).prop_map(|(fates, pictures)| {
        let mut order = Vec::new();
        let mut now_ms = 0;
        for (index, fate) in fates.into_iter().enumerate() {
            let (key, bytes, pause) = pictures[index / PARTS as usize];
            now_ms += if index % PARTS as usize == 0 { pause } else { 0 };
            let packet = packet(1_200 + index as u64, key || index < 3, bytes);
            let place = 2 * order.len();
            match fate {
                Fate::Arrive => order.push((place, now_ms, packet)),
                Fate::Lose => {}
                Fate::Repeat => order.extend([(place, now_ms, packet.clone()), (place + 9, now_ms, packet)]),
                Fate::Late(by) => order.push((place + 2 * by + 1, now_ms, packet)),
            }
        }
        order.sort_by_key(|(place, ..)| *place);
        let mut latest = 0;
        let in_time = order.into_iter().map(|(_, at, packet)| {
            latest = latest.max(at);
            (latest, packet)
        });
        in_time.collect()
    })
}

/// One stream, that a decoder shows from its first packet on: numbers without a hole, pictures in order.
fn assert_continuous(sent: &[(Rewritten, &Packet)]) {
    let id = |(rewritten, packet): &(Rewritten, &Packet)| {
        let mut payload = Vec::new();
        rewritten.patch.write(&packet.payload, &mut payload);
        Vp8Descriptor::parse(&payload).expect("a VP8 payload descriptor").picture_id().expect("a picture id")
    };
    assert!(sent[0].0.begins && sent[0].1.frame.keyframe, "it begins with a key frame");
    for pair in sent.windows(2) {
        let [before, after] = pair else { unreachable!() };
        assert_eq!(after.0.seq_no, before.0.seq_no + 1, "a hole or a repeat");
        let same = after.1.rtp_time == before.1.rtp_time;
        let step = after.0.rtp_time.wrapping_sub(before.0.rtp_time);
        assert!(if same { step == 0 } else { (STEP_TICKS..1 << 31).contains(&step) }, "step of {step}");
        let pictures = id(after).wrapping_sub(id(before)) & 0x7fff;
        assert_eq!(pictures, u16::from(!same), "a picture is missing");
    }
}

proptest! {
    #[test]
    fn bounds_hold_and_only_whole_streams_are_replayed(arrivals in arrivals(), seed: u64) {
        let start = Instant::now();
        let mut replay = Replay::default();
        for (at_ms, packet) in &arrivals {
            let now = start + Duration::from_millis(*at_ms);
            push(&mut replay, now, packet);
            prop_assert!(replay.packets.len() <= PACKETS_MAX);
            let sizes = replay.packets.iter().map(|kept| kept.payload.len());
            prop_assert_eq!(replay.bytes, sizes.sum::<usize>());
            prop_assert!(replay.bytes <= BYTES_MAX);
            prop_assert!(replay.age(now).is_none_or(|age| age <= AGE_MAX));
            prop_assert!(replay.packets.front().is_none_or(|first| first.frame.keyframe));
            prop_assert!(replay.packets.iter().is_sorted_by(|one, next| one.seq_no < next.seq_no));
            prop_assert!(replay.is_whole() || !replay.will_serve(now));
            if !replay.is_whole() {
                continue;
            }
            let mut rewriter = Rewriter::new(Kind::Video, seed);
            rewriter.switch();
            let known = |meta: &PacketMeta<'_>| arrivals.iter().find(|(_, p)| p.seq_no == meta.seq_no);
            let sent: Vec<_> = replay
                .packets(now)
                .map(|(at, meta, _)| (rewriter.rewrite(at, &meta), &known(&meta).expect("it came").1))
                .map(|(rewritten, packet)| (rewritten.expect("all of it leaves"), packet))
                .collect();
            assert_continuous(&sent);
        }
    }

    /// What comes live afterwards goes on where the replay ends, in a slot that was used before, too.
    #[test]
    fn the_stream_goes_on_after_the_replay(begin in 300_u64..345, used: bool, seed: u64) {
        let start = Instant::now();
        let mut replay = Replay::default();
        let mut rewriter = Rewriter::new(Kind::Video, seed);
        let mut before = None;
        if used {
            before = rewriter.rewrite(start, &packet(9_000, true, 100).meta());
        }
        let now = fill(&mut replay, start + FRAME_TIME, 300, begin + 1);
        prop_assert!(replay.is_whole());
        let packets: Vec<_> = (300..begin + 40).map(|seq_no| packet(seq_no, seq_no < 303, 1_000)).collect();
        rewriter.switch();
        let (replayed, live) = packets.split_at((begin + 1 - 300) as usize);
        let mut sent: Vec<_> = replay
            .packets(now)
            .zip(replayed)
            .map(|((at, meta, _), packet)| (rewriter.rewrite(at, &meta).expect("it leaves"), packet))
            .collect();
        for packet in live {
            let at = now + FRAME_TIME * (packet.seq_no / PARTS - begin / PARTS) as u32;
            sent.push((rewriter.rewrite(at, &packet.meta()).expect("it leaves"), packet));
        }
        assert_continuous(&sent);
        if let Some(before) = before {
            prop_assert_eq!(sent[0].0.seq_no, before.seq_no + 1);
            let step = sent[0].0.rtp_time.wrapping_sub(before.rtp_time);
            prop_assert!((STEP_TICKS..90_000).contains(&step), "step of {}", step);
        }
    }
}
