//! What comes out of an assembler for what goes in.

use proptest::prelude::*;

use super::*;
use crate::core::mix::Place;

fn packet(codec: Codec, rtp_time: u32, marker: bool, payload: &[u8]) -> MixPacket {
    let place = Place::Track { slot: 0, serial: 1, encoding: 0 };
    let captured_us = Some(i64::from(rtp_time));
    MixPacket { place, codec, seq_no: 0, rtp_time, captured_us, marker, payload: payload.into() }
}

fn push(assembler: &mut Assembler, rtp_time: u32, marker: bool, payload: &[u8]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    assembler.push(&packet(assembler.codec, rtp_time, marker, payload), &mut outcomes);
    outcomes
}

fn unit(data: &[u8], keyframe: bool, rtp_time: u32) -> Outcome {
    let captured_us = Some(i64::from(rtp_time));
    Outcome::Unit(Unit { data: data.to_vec(), keyframe, rtp_time, captured_us })
}

/// VP8: the beginning of a key frame, of a delta frame, and what goes on.
const KEY: [u8; 3] = [0x10, 0x00, 1];
const DELTA: [u8; 3] = [0x10, 0x01, 2];
const MORE: [u8; 2] = [0x00, 3];

#[test]
fn vp8_begins_with_a_key_frame_and_again_after_a_loss() {
    let mut vp8 = Assembler::new(Codec::Vp8);
    assert_eq!(push(&mut vp8, 1, true, &DELTA), [Outcome::NeedsKeyframe]);
    assert_eq!(push(&mut vp8, 2, false, &KEY), []);
    assert_eq!(push(&mut vp8, 2, true, &MORE), [unit(&[0, 1, 3], true, 2)]);
    assert_eq!(push(&mut vp8, 3, true, &DELTA), [unit(&[1, 2], false, 3)]);
    vp8.lose();
    assert_eq!(push(&mut vp8, 4, true, &MORE), [Outcome::NeedsKeyframe]);
    assert_eq!(push(&mut vp8, 5, true, &DELTA), [Outcome::NeedsKeyframe]);
    assert_eq!(push(&mut vp8, 6, true, &KEY), [unit(&[0, 1], true, 6)]);
}

#[test]
fn a_picture_without_a_marker_ends_where_the_next_begins() {
    let mut vp8 = Assembler::new(Codec::Vp8);
    assert_eq!(push(&mut vp8, 1, false, &KEY), []);
    assert_eq!(push(&mut vp8, 2, true, &DELTA), [unit(&[0, 1], true, 1), unit(&[1, 2], false, 2)]);
}

#[test]
fn a_picture_that_lost_its_middle_is_none() {
    let mut vp8 = Assembler::new(Codec::Vp8);
    push(&mut vp8, 1, true, &KEY);
    assert_eq!(push(&mut vp8, 2, false, &DELTA), []);
    vp8.lose();
    assert_eq!(push(&mut vp8, 2, true, &MORE), [Outcome::NeedsKeyframe]);
}

#[test]
fn vp9_has_an_index_where_it_has_layers() {
    let mut vp9 = Assembler::new(Codec::Vp9);
    // B, E, no layers; then L: layer 0 begins and ends, layer 1 in two packets.
    assert_eq!(push(&mut vp9, 1, true, &[0x0c, 7]), [unit(&[7], true, 1)]);
    assert_eq!(push(&mut vp9, 2, false, &[0x6c, 0x00, 0, 7, 8]), []);
    assert_eq!(push(&mut vp9, 2, false, &[0x68, 0x02, 0, 9]), []);
    let whole = [7, 8, 9, 10, 0xd9, 2, 0, 0, 0, 2, 0, 0, 0, 0xd9];
    assert_eq!(push(&mut vp9, 2, true, &[0x64, 0x02, 0, 10]), [unit(&whole, false, 2)]);
    // The end of a layer's frame is missing.
    assert_eq!(push(&mut vp9, 3, true, &[0x48, 7]), [Outcome::NeedsKeyframe]);
}

const SEQUENCE: [u8; 2] = [0x67, 1];
const PICTURE: [u8; 2] = [0x68, 2];

fn annex_b(units: &[&[u8]]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
}

#[test]
fn h264_has_its_parameter_sets_at_every_key_frame() {
    let mut h264 = Assembler::new(Codec::H264);
    // STAP-A with both sets, then an IDR slice in fragments.
    assert_eq!(push(&mut h264, 1, false, &[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 2]), []);
    assert_eq!(push(&mut h264, 1, false, &[0x7c, 0x85, 0x80]), []);
    let first = annex_b(&[&SEQUENCE, &PICTURE, &[0x65, 0x80, 9]]);
    assert_eq!(push(&mut h264, 1, true, &[0x7c, 0x45, 9]), [unit(&first, true, 1)]);
    assert_eq!(push(&mut h264, 2, true, &[0x61, 0x80]), [unit(&annex_b(&[&[0x61, 0x80]]), false, 2)]);
    let second = annex_b(&[&SEQUENCE, &PICTURE, &[0x65, 0x80]]);
    assert_eq!(push(&mut h264, 3, true, &[0x65, 0x80]), [unit(&second, true, 3)]);
    assert_eq!(push(&mut h264, 4, true, &SEQUENCE), [], "sets alone show nothing");
    // A fragment without its beginning.
    assert_eq!(push(&mut h264, 5, true, &[0x7c, 0x45, 9]), [Outcome::NeedsKeyframe]);
}

#[test]
fn a_packet_of_opus_says_how_long_it_lasts() {
    assert_eq!(opus_duration_us(&[15 << 3]), Some(20_000));
    assert_eq!(opus_duration_us(&[0xf8, 0xff, 0xfe]), Some(20_000));
    assert_eq!(opus_duration_us(&[3 << 3 | 1]), Some(120_000));
    assert_eq!(opus_duration_us(&[16 << 3 | 3, 4]), Some(10_000));
    assert_eq!(opus_duration_us(&[3 << 3 | 3, 0x3f]), None);
    assert_eq!(opus_duration_us(&[]), None);
}

proptest! {
    #[test]
    fn nonsense_does_no_harm_and_nothing_begins_without_a_key_frame(
        codec in prop::sample::select(&[Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::Opus][..]),
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..40), any::<bool>(), 0u32..4, any::<bool>()),
            0..60,
        ),
    ) {
        let mut assembler = Assembler::new(codec);
        let mut may_begin = codec == Codec::Opus;
        for (payload, marker, rtp_time, lost) in packets {
            if lost {
                assembler.lose();
                may_begin = codec == Codec::Opus;
            }
            for outcome in push(&mut assembler, rtp_time, marker, &payload) {
                if let Outcome::Unit(unit) = outcome {
                    may_begin |= unit.keyframe;
                    prop_assert!(may_begin);
                } else {
                    may_begin = false;
                }
            }
        }
    }
}
