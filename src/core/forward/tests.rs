//! Slots fed with sources that lose, repeat and overtake packets, switched and thinned at random.
//!
//! The receiver's view is checked against a ledger of what each source sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use str0m::rtp::Vp8Descriptor;

use super::*;
use crate::core::payload::dependency::tests::{L3T3, hex};
use crate::core::payload::{Codec, DependencyReader, inspect};

const FRAME_TICKS: u32 = 3_000;
const FRAME_TIME: Duration = Duration::from_millis(33);

#[derive(Debug, Clone)]
struct Packet {
    seq_no: u64,
    rtp_time: u32,
    marker: bool,
    payload: Vec<u8>,
    dd: Option<Vec<u8>>,
    /// Index of the frame in its source, from 0.
    frame: u64,
}

struct Slot {
    rewriter: Rewriter,
    reader: DependencyReader,
    codec: Codec,
    now: Instant,
}

impl Slot {
    fn new(codec: Codec, seed: u64) -> Self {
        let kind = if codec.is_video() { Kind::Video } else { Kind::Audio };
        let rewriter = Rewriter::new(kind, seed);
        Self { rewriter, reader: DependencyReader::default(), codec, now: Instant::now() }
    }

    fn switch(&mut self) {
        self.rewriter.switch();
        self.reader = DependencyReader::default();
    }

    fn send(&mut self, packet: &Packet) -> Option<Rewritten> {
        let dd = packet.dd.as_ref().and_then(|bytes| self.reader.read(bytes));
        let frame = inspect(self.codec, &packet.payload, dd.as_ref());
        let (seq_no, rtp_time, marker) = (packet.seq_no, packet.rtp_time, packet.marker);
        self.rewriter
            .rewrite(self.now, &PacketMeta { seq_no, rtp_time, marker, frame: &frame, dd: dd.as_ref() })
    }
}

/// A VP8 encoder of one layer, or of two temporal ones that alternate.
#[derive(Debug, Clone, Copy)]
struct Vp8Source {
    seq_no: u64,
    rtp_time: u32,
    picture_id: u16,
    tl0: u8,
    layered: bool,
}

impl Vp8Source {
    fn frame(&self, index: u64) -> Vec<Packet> {
        let key = index == 0;
        let temporal = if self.layered { (index % 2) as u8 } else { 0 };
        let id = self.picture_id.wrapping_add(index as u16) & 0x7fff | 0x8000;
        let base = if self.layered { index / 2 } else { index };
        let (high, low) = ((id >> 8) as u8, id as u8);
        (0..PACKETS)
            .map(|part| Packet {
                seq_no: self.seq_no + index * PACKETS + part,
                rtp_time: self.rtp_time.wrapping_add(index as u32 * FRAME_TICKS),
                marker: part == PACKETS - 1,
                payload: vec![
                    0x80 | u8::from(part == 0) << 4,
                    0xe0,
                    high,
                    low,
                    self.tl0.wrapping_add(base as u8),
                    temporal << 6 | 0x20,
                    u8::from(!key),
                    0,
                ],
                dd: None,
                frame: index,
            })
            .collect()
    }
}

const PACKETS: u64 = 3;

fn vp8_source() -> impl Strategy<Value = Vp8Source> {
    (1_u64..1 << 40, any::<u32>(), 0_u16..0x8000, any::<u8>(), any::<bool>()).prop_map(
        |(seq_no, rtp_time, picture_id, tl0, layered)| Vp8Source {
            seq_no,
            rtp_time,
            picture_id,
            tl0,
            layered,
        },
    )
}

/// What the network does to a packet.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Arrive,
    Lose,
    Repeat,
    /// Arrives after so many others.
    Late(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        20 => Just(Fate::Arrive),
        2 => Just(Fate::Lose),
        2 => Just(Fate::Repeat),
        3 => (1_usize..20).prop_map(Fate::Late),
    ]
}

/// The packets in the order of their arrival. The first one stays: a source begins with its key frame.
fn deliver(packets: &[Packet], fates: &[Fate]) -> Vec<Packet> {
    let mut arrivals: BTreeMap<(usize, usize), Packet> = BTreeMap::new();
    for (index, packet) in packets.iter().enumerate() {
        let fate = if index == 0 { Fate::Arrive } else { fates[index % fates.len()] };
        match fate {
            Fate::Arrive => drop(arrivals.insert((index, index), packet.clone())),
            Fate::Lose => {}
            Fate::Repeat => {
                arrivals.insert((index, index), packet.clone());
                arrivals.insert((index + 3, index), packet.clone());
            }
            Fate::Late(by) => drop(arrivals.insert((index + by, index), packet.clone())),
        }
    }
    arrivals.into_values().collect()
}

/// Picture id and TL0PICIDX that the packet goes out with.
fn vp8_numbers(packet: &Packet, rewritten: &Rewritten) -> (Option<u16>, Option<u8>) {
    let mut payload = Vec::new();
    rewritten.patch.write(&packet.payload, &mut payload);
    let fields = Vp8Descriptor::parse(&payload).expect("made well");
    (fields.picture_id(), fields.tl0_pic_idx())
}

/// Whether the packet goes out with picture id `id`, whatever its TL0PICIDX.
fn carries_id(packet: &Packet, rewritten: &Rewritten, id: u16) -> bool {
    rewritten.patch != PayloadPatch::Blank && vp8_numbers(packet, rewritten).0 == Some(id)
}

#[test]
fn the_first_source_is_forwarded_without_a_copy() {
    let source = Vp8Source { seq_no: 70_000, rtp_time: 5, picture_id: 9, tl0: 3, layered: false };
    let mut slot = Slot::new(Codec::Vp8, 0xdead_beef_ffff_1234);
    let first = slot.send(&source.frame(0)[0]).expect("forwarded");
    assert_eq!((first.seq_no, first.rtp_time), (0x1234, 0xdead_beef));
    assert_eq!(first.patch, PayloadPatch::None);
    let second = slot.send(&source.frame(0)[1]).expect("forwarded");
    assert_eq!((second.seq_no, second.rtp_time, second.patch), (0x1235, 0xdead_beef, PayloadPatch::None));
}

#[test]
fn nothing_is_forwarded_before_a_key_frame() {
    let source = Vp8Source { seq_no: 10, rtp_time: 5, picture_id: 9, tl0: 3, layered: false };
    let mut slot = Slot::new(Codec::Vp8, 0);
    assert_eq!(slot.send(&source.frame(1)[0]), None);
    assert!(slot.rewriter.awaits_source());
    assert!(slot.send(&source.frame(0)[0]).is_some());
    assert!(!slot.rewriter.awaits_source());
}

#[test]
fn a_switch_goes_on_in_time_and_number() {
    let a = Vp8Source { seq_no: 10, rtp_time: 5, picture_id: 9, tl0: 3, layered: false };
    let b = Vp8Source { seq_no: 9_000, rtp_time: 77, picture_id: 0x7fff, tl0: 200, layered: false };
    let mut slot = Slot::new(Codec::Vp8, 1_000);
    let sent: Vec<_> = a.frame(0).iter().filter_map(|packet| slot.send(packet)).collect();
    let last = &sent[2];
    slot.switch();
    slot.now += Duration::from_millis(40);
    let packet = &b.frame(0)[0];
    let next = slot.send(packet).expect("forwarded");
    assert_eq!(next.seq_no, last.seq_no + 1);
    assert_eq!(next.rtp_time.wrapping_sub(last.rtp_time), 3_600, "40 ms of 90 kHz");
    assert_eq!(vp8_numbers(packet, &next), (Some(10), Some(4)));
}

#[test]
fn padding_leaves_no_gap_and_a_jump_of_the_source_leaves_one() {
    let mut slot = Slot::new(Codec::Opus, 0);
    let packet = |seq_no: u64, payload: &[u8]| Packet {
        seq_no,
        rtp_time: seq_no as u32 * 960,
        marker: false,
        payload: payload.to_vec(),
        dd: None,
        frame: seq_no,
    };
    let first = slot.send(&packet(500, &[1])).expect("forwarded");
    assert_eq!((first.seq_no, first.marker), (0, true));
    assert_eq!(slot.send(&packet(501, &[])), None);
    let second = slot.send(&packet(502, &[1])).expect("forwarded");
    assert_eq!((second.seq_no, second.marker), (1, false));
    assert_eq!(slot.send(&packet(504, &[1])).map(|out| out.seq_no), Some(3));
    let late_padding = slot.send(&packet(503, &[])).expect("its number is taken");
    assert_eq!((late_padding.seq_no, late_padding.patch), (2, PayloadPatch::Blank));
    assert_eq!(slot.send(&packet(90_000, &[1])).map(|out| out.seq_no), Some(5));
}

#[test]
fn audio_switched_often_neither_overlaps_nor_runs_ahead() {
    let mut slot = Slot::new(Codec::Opus, 7);
    let begin = slot.now;
    let mut times = Vec::new();
    for turn in 0..200_u64 {
        slot.switch();
        slot.now += Duration::from_millis(5 + turn % 3 * 20);
        let packet = Packet {
            seq_no: turn * 77,
            rtp_time: (turn * 12_345) as u32,
            marker: false,
            payload: vec![1],
            dd: None,
            frame: 0,
        };
        times.push(slot.send(&packet).expect("forwarded").rtp_time);
    }
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= AUDIO_STEP));
    let elapsed = ((slot.now - begin).as_millis() * 48) as u32;
    assert!(times[199].abs_diff(elapsed) < 2 * AUDIO_STEP, "{} {elapsed}", times[199]);
}

#[test]
fn a_rewriter_is_small() {
    assert!(size_of::<Rewriter>() <= 1_024, "{}", size_of::<Rewriter>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_slot_is_one_stream_whatever_it_is_fed(
        seed: u64,
        stretches in prop::collection::vec((vp8_source(), 1_u64..60, 0_u64..90), 1..5),
        fates in prop::collection::vec(fate(), 1..150),
    ) {
        let mut slot = Slot::new(Codec::Vp8, seed);
        let mut out_of = BTreeSet::new();
        let mut highest: Option<u64> = None;
        let mut time_before: Option<u32> = None;
        let mut next_id: Option<u16> = None;
        for (source, frames, pause_ms) in stretches {
            slot.switch();
            slot.now += Duration::from_millis(pause_ms);
            let sent: Vec<Packet> = (0..frames).flat_map(|index| source.frame(index)).collect();
            let mut by_source = BTreeMap::new();
            let mut first = true;
            for packet in deliver(&sent, &fates) {
                slot.now += FRAME_TIME / PACKETS as u32;
                let Some(out) = slot.send(&packet) else {
                    prop_assert!(by_source.contains_key(&packet.seq_no), "only repeated packets are dropped");
                    continue;
                };
                prop_assert!(out_of.insert(out.seq_no), "two packets have {}", out.seq_no);
                prop_assert_eq!(out.marker, packet.marker);
                if first {
                    prop_assert_eq!(out.seq_no, highest.map_or(seed & 0x7fff, |highest| highest + 1));
                    if let Some(before) = time_before {
                        let step = out.rtp_time.wrapping_sub(before);
                        prop_assert!((1..1 << 31).contains(&step), "after a switch time goes on: {step}");
                    }
                    first = false;
                }
                by_source.insert(packet.seq_no, (packet, out));
            }
            let (first_in, (first_packet, first_out)) = by_source.iter().next().expect("the key frame");
            let first_id = next_id.unwrap_or(source.picture_id);
            prop_assert!(carries_id(first_packet, first_out, first_id), "picture ids go on");
            for (seq_no, (packet, out)) in &by_source {
                prop_assert_eq!(out.seq_no - first_out.seq_no, seq_no - first_in, "gaps are kept");
                let ticks = packet.frame as u32 * FRAME_TICKS;
                prop_assert_eq!(out.rtp_time, first_out.rtp_time.wrapping_add(ticks));
            }
            let (_, (packet, out)) = by_source.iter().next_back().expect("the key frame");
            highest = Some(out.seq_no);
            time_before = Some(out.rtp_time);
            let id = (first_id + packet.frame as u16) & 0x7fff;
            prop_assert!(carries_id(packet, out, id));
            next_id = Some((id + 1) & 0x7fff);
        }
    }

    #[test]
    fn a_dropped_temporal_layer_leaves_no_hole(
        source in vp8_source(), frames in 2_u64..60, fates in prop::collection::vec(fate(), 1..150),
    ) {
        let source = Vp8Source { layered: true, ..source };
        let mut slot = Slot::new(Codec::Vp8, 0);
        slot.rewriter.set_layers(Layers { spatial: 0, temporal: 0 });
        let sent: Vec<Packet> = (0..frames).flat_map(|index| source.frame(index)).collect();
        let clean = fates.iter().all(|fate| matches!(fate, Fate::Arrive | Fate::Repeat));
        let mut seen = BTreeMap::new();
        for packet in deliver(&sent, &fates) {
            if let Some(out) = slot.send(&packet) {
                let upper = packet.frame % 2 == 1;
                prop_assert_eq!(out.patch == PayloadPatch::Blank, upper, "only where one was lost");
                prop_assert!(!(upper && clean));
                prop_assert!(seen.insert(out.seq_no, packet).is_none());
            }
        }
        let order: Vec<u64> = seen.values().map(|packet| packet.seq_no).collect();
        prop_assert!(order.is_sorted());
        if clean {
            prop_assert!(seen.keys().copied().eq(0..frames.div_ceil(2) * PACKETS));
        }
    }
}

#[cfg(test)]
mod scalable;
