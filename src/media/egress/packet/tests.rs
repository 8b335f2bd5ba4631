//! Headers byte by byte.

use super::*;
use crate::core::replay::Contributors;

fn packet(passed: Passed) -> Packet {
    Packet {
        index: 0x1_0002,
        rtp_time: 0x0a0b_0c0d,
        payload_type: 96,
        marker: true,
        payload: Arc::from([].as_slice()),
        patch: PayloadPatch::None,
        passed,
        transport_seq_no: 7,
        sent_at: Instant::now(),
        names_mid: true,
        begins: false,
    }
}

fn header(ids: ExtensionIds, packet: &Packet) -> Vec<u8> {
    let framing = Framing { ids, mid: "v1".to_owned(), epoch: packet.sent_at };
    let lane =
        Lane { ssrc: 5, payload_type: 96, seq_no: 2, transport_seq_no: 0x0102, sent_at: packet.sent_at };
    let mut out = vec![0xff];
    let len = framing.write_header(packet, lane, false, &mut out);
    assert_eq!(len, out.len() - 1);
    out.split_off(1)
}

const FIXED: [u8; 11] = [0xe0, 0, 2, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, 5];

#[test]
fn a_header_without_extensions_has_no_block() {
    let out = header(ExtensionIds::default(), &packet(Passed::default()));
    assert_eq!(out, [&[0x80], &FIXED[..]].concat());
}

#[test]
fn short_extensions_take_the_one_byte_form() {
    let ids = ExtensionIds { transport_cc: 3, mid: 4, audio_level: 1, ..ExtensionIds::default() };
    let out = header(ids, &packet(Passed { audio_level: Some(0x85), ..Passed::default() }));
    let block = [0xbe, 0xde, 0, 2, 0x31, 1, 2, 0x41, b'v', b'1', 0x10, 0x85];
    assert_eq!(out, [&[0x90], &FIXED[..], &block].concat());
}

#[test]
fn the_usual_way_and_the_other_write_the_same() {
    let ids = ExtensionIds { transport_cc: 3, mid: 4, audio_level: 1, ..ExtensionIds::default() };
    for (audio_level, padded) in [(None, false), (None, true), (Some(0x85), false), (Some(5), true)] {
        let passed = Passed { audio_level, ..Passed::default() };
        let packet = Packet { names_mid: false, ..packet(passed) };
        let framing = Framing { ids, mid: "v1".to_owned(), epoch: packet.sent_at };
        let sent_at = packet.sent_at;
        let lane = Lane { ssrc: 5, payload_type: 97, seq_no: 2, transport_seq_no: 0x0102, sent_at };
        let (mut usual, mut other) = (Vec::new(), Vec::new());
        assert_eq!(framing.write_usual(&packet, lane, padded, &mut usual), Some(usual.len()));
        assert_eq!(framing.write_any(&packet, lane, padded, &mut other), other.len());
        assert_eq!(usual, other);
    }
}

#[test]
fn a_long_descriptor_takes_the_two_byte_form() {
    let ids = ExtensionIds { transport_cc: 3, descriptor: 12, ..ExtensionIds::default() };
    let descriptor = Some(DescriptorBytes::new(&[9; 17]));
    let out = header(ids, &packet(Passed { descriptor, ..Passed::default() }));
    let mut block = vec![0x10, 0, 0, 6, 3, 2, 1, 2, 12, 17];
    block.extend([9; 17]);
    block.push(0);
    assert_eq!(out, [&[0x90], &FIXED[..], &block].concat());
}

#[test]
fn contributors_stand_before_the_extensions() {
    let rare = Rare {
        orientation: None,
        playout_delay: None,
        contributors: Contributors::from_slice(&[7, 0x0102_0304]),
    };
    let passed = Passed { rare: Some(Box::new(rare)), ..Passed::default() };
    let csrcs = [0, 0, 0, 7, 1, 2, 3, 4];
    let out = header(ExtensionIds::default(), &packet(passed.clone()));
    assert_eq!(out, [&[0x82], &FIXED[..], &csrcs].concat());
    let out = header(ExtensionIds { mid: 4, ..ExtensionIds::default() }, &packet(passed));
    assert_eq!(out, [&[0x92], &FIXED[..], &csrcs, &[0xbe, 0xde, 0, 1, 0x41, b'v', b'1', 0]].concat());
    let rare = Rare { contributors: (0..20).collect(), orientation: None, playout_delay: None };
    let out =
        header(ExtensionIds::default(), &packet(Passed { rare: Some(rare.into()), ..Passed::default() }));
    assert_eq!((out[0], out.len()), (0x8f, 12 + 15 * 4));
}

#[test]
fn what_the_receiver_did_not_agree_to_is_left_out() {
    let rare = Some(Box::new(Rare {
        orientation: Some(3),
        playout_delay: Some([1, 2, 3]),
        contributors: Contributors::new(),
    }));
    let passed =
        Passed { audio_level: Some(1), descriptor: Some(DescriptorBytes::new(&[1])), rare, made_at: None };
    let out = header(ExtensionIds { playout_delay: 2, ..ExtensionIds::default() }, &packet(passed));
    assert_eq!(out, [&[0x90], &FIXED[..], &[0xbe, 0xde, 0, 1, 0x22, 1, 2, 3]].concat());
}
