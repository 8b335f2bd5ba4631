//! Scalable streams thinned at random: nothing is forwarded whose references were dropped.

use super::*;
use crate::core::replay::Replay;

/// Temporal layers of a period of four pictures, as in L3T3.
const TEMPORAL: [u8; 4] = [0, 2, 1, 2];
const SPATIAL: u8 = 3;

/// A layer's frame: picture index and spatial layer.
type FrameKey = (u64, u8);

/// The picture that one of temporal layer `temporal` is predicted from.
fn predicted_from(index: u64) -> Option<u64> {
    match index % 4 {
        _ if index == 0 => None,
        0 => Some(index - 4),
        2 => Some(index - 2),
        _ => Some(index - 1),
    }
}

/// Full SVC as in the table L3T3: each frame needs its own layer's former picture and the layer below.
fn needs(index: u64, spatial: u8) -> Vec<FrameKey> {
    let former = predicted_from(index).map(|from| (from, spatial));
    let below = spatial.checked_sub(1).map(|below| (index, below));
    former.into_iter().chain(below).collect()
}

fn vp9_picture(index: u64, key_every: u64) -> Vec<Packet> {
    let since_key = index % key_every;
    let temporal = if since_key == 0 { 0 } else { TEMPORAL[(since_key % 4) as usize] };
    let mut packets = Vec::new();
    for spatial in 0..SPATIAL {
        for part in 0..2_u64 {
            let flags =
                0xa0 | u8::from(since_key != 0) << 6 | u8::from(part == 0) << 3 | u8::from(part == 1) << 2;
            let layer = temporal << 5 | 1 << 4 | spatial << 1 | u8::from(spatial > 0);
            packets.push(Packet {
                seq_no: 100 + index * 6 + u64::from(spatial) * 2 + part,
                rtp_time: index as u32 * FRAME_TICKS,
                marker: spatial == SPATIAL - 1 && part == 1,
                payload: vec![flags, 0x80 | (index >> 8) as u8, index as u8, layer, (index / 4) as u8, 0xaa],
                dd: None,
                frame: index,
            });
        }
    }
    packets
}

/// Template ids of Chromium's L3T3 for a key picture and for the four pictures of a period.
fn dd_picture(index: u64, templates: &BTreeMap<(u8, u8, bool), Vec<u8>>) -> Vec<Packet> {
    let key = index == 0;
    let temporal = TEMPORAL[(index % 4) as usize];
    let mut packets = Vec::new();
    for spatial in 0..SPATIAL {
        let number = (index as u16).wrapping_mul(3).wrapping_add(u16::from(spatial));
        let candidates = &templates[&(spatial, temporal, key)];
        // The second picture of the highest temporal layer has its own template.
        let template = candidates[usize::from(index % 4 == 3).min(candidates.len() - 1)];
        let [high, low] = number.to_be_bytes();
        for part in 0..2_u64 {
            let first = u8::from(part == 0) << 7 | u8::from(part == 1) << 6 | template;
            let mut dd = vec![first, high, low];
            if key && spatial == 0 && part == 0 {
                dd = hex(L3T3);
                dd[0] = first;
                (dd[1], dd[2]) = (high, low);
            }
            packets.push(Packet {
                seq_no: 100 + index * 6 + u64::from(spatial) * 2 + part,
                rtp_time: index as u32 * FRAME_TICKS,
                marker: spatial == SPATIAL - 1 && part == 1,
                payload: vec![if part == 0 { 0x10 } else { 0x90 }, 0x30, 0xaa],
                dd: Some(dd),
                frame: index,
            });
        }
    }
    packets
}

/// Chromium's template ids by spatial layer, temporal layer, and whether they are for key pictures. Found by
/// asking the reader about every id; those of key pictures need no former picture.
fn templates() -> BTreeMap<(u8, u8, bool), Vec<u8>> {
    let mut reader = DependencyReader::default();
    reader.read(&hex(L3T3)).expect("a descriptor");
    let mut found: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    for id in 0..15_u8 {
        let dd = reader.read(&[0xc0 | id, 1, 0x72]).expect("a descriptor");
        let frame = dd.frame.expect("known");
        let key = frame.references.back & !1 == 0 && frame.temporal == 0;
        found.entry((frame.spatial, frame.temporal, key)).or_default().push(id);
    }
    found
}

fn spatial_of(packet: &Packet) -> u8 {
    ((packet.seq_no - 100) % 6 / 2) as u8
}

#[derive(Debug, Clone, Copy)]
struct Thinning {
    after: usize,
    layers: Layers,
}

fn thinning() -> impl Strategy<Value = Vec<Thinning>> {
    let layers = (0..SPATIAL, 0_u8..3).prop_map(|(spatial, temporal)| Layers { spatial, temporal });
    let one = (1_usize..60, layers).prop_map(|(after, layers)| Thinning { after, layers });
    prop::collection::vec(one, 0..6)
}

/// Feeds the packets, thinning as told, and gives what was forwarded of each.
fn feed(slot: &mut Slot, packets: &[Packet], thinnings: &[Thinning]) -> Vec<(Packet, Option<Rewritten>)> {
    let mut results = Vec::new();
    let mut thinnings = thinnings.iter();
    let mut next = thinnings.next();
    let mut count = 0;
    for packet in packets {
        if let Some(thinning) = next
            && count >= thinning.after
        {
            slot.rewriter.set_layers(thinning.layers);
            (next, count) = (thinnings.next(), 0);
        }
        count += 1;
        results.push((packet.clone(), slot.send(packet)));
    }
    results
}

/// No frame is forwarded of whose references a packet was dropped, and numbers are those of one stream.
fn check(results: &[(Packet, Option<Rewritten>)], needs: impl Fn(u64, u8) -> Vec<FrameKey>) {
    let mut dropped: BTreeSet<FrameKey> = BTreeSet::new();
    let mut forwarded: BTreeMap<FrameKey, u64> = BTreeMap::new();
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (packet, out) in results {
        if !seen.insert(packet.seq_no) {
            assert!(out.is_none(), "a repeated packet");
            continue;
        }
        let key = (packet.frame, spatial_of(packet));
        match out {
            Some(out) if out.patch != PayloadPatch::Blank => {
                assert!(numbers.insert(out.seq_no, packet.seq_no).is_none());
                forwarded.insert(key, packet.seq_no);
            }
            Some(out) => {
                assert!(numbers.insert(out.seq_no, packet.seq_no).is_none());
                dropped.insert(key);
            }
            None => drop(dropped.insert(key)),
        }
    }
    assert!(numbers.values().is_sorted(), "in the order of the source");
    for key in forwarded.keys() {
        assert!(!dropped.contains(key), "{key:?} was forwarded in part");
        for needed in needs(key.0, key.1) {
            assert!(!dropped.contains(&needed), "{key:?} needs {needed:?}");
        }
    }
}

/// Without loss the numbers have no hole.
fn check_numbers(results: &[(Packet, Option<Rewritten>)]) {
    let out: Vec<_> = results.iter().filter_map(|(_, out)| out.as_ref()).collect();
    assert!(out.iter().all(|out| out.patch != PayloadPatch::Blank));
    assert!(out.windows(2).all(|pair| pair[1].seq_no == pair[0].seq_no + 1));
}

/// And each picture ends with a marker; in a picture that goes up in the middle of a stream, so does the
/// layer that was the highest before. A dependency descriptor says itself where a frame ends.
fn check_clean(results: &[(Packet, Option<Rewritten>)]) {
    check_numbers(results);
    let out: Vec<_> = results.iter().filter_map(|(packet, out)| Some((packet, out.as_ref()?))).collect();
    let mut top_before = 0;
    for pair in out.windows(2) {
        let [(packet, out), (next, _)] = pair else { continue };
        if packet.frame != next.frame {
            assert!(out.marker, "{packet:?}");
            top_before = spatial_of(packet);
        } else if out.marker {
            assert!(spatial_of(packet) == top_before && spatial_of(next) > top_before, "{packet:?}");
        }
    }
}

/// What a slot that begins with these layers gets of a replay of the packets.
fn replay(slot: &mut Slot, packets: &[Packet], layers: Layers) -> Vec<(Packet, Option<Rewritten>)> {
    let mut replay = Replay::default();
    for packet in packets {
        let dd = packet.dd.as_ref().and_then(|bytes| slot.reader.read(bytes));
        let frame = inspect(slot.codec, &packet.payload, dd.as_ref());
        let (seq_no, rtp_time, marker) = (packet.seq_no, packet.rtp_time, packet.marker);
        let meta = PacketMeta { seq_no, rtp_time, marker, frame: &frame, dd: dd.as_ref() };
        replay.push(slot.now, &meta, &Arc::from(&packet.payload[..]), None);
    }
    assert!(replay.is_whole());
    slot.rewriter.switch();
    slot.rewriter.set_layers(layers);
    let replayed = replay.packets(slot.now).zip(packets);
    replayed.map(|((at, meta, _), packet)| (packet.clone(), slot.rewriter.rewrite(at, &meta))).collect()
}

fn key_every(period: u64) -> impl Fn(u64, u8) -> Vec<FrameKey> {
    move |index, spatial| {
        let start = index - index % period;
        needs(index - start, spatial).into_iter().map(|(frame, layer)| (start + frame, layer)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn vp9_layers_are_dropped_whole(
        thinnings in thinning(),
        period in 8_u64..40,
        fates in prop::collection::vec(fate(), 1..150),
        lossy: bool,
    ) {
        let packets: Vec<Packet> = (0..60).flat_map(|index| vp9_picture(index, period)).collect();
        let mut slot = Slot::new(Codec::Vp9, 0);
        if lossy {
            let results = feed(&mut slot, &deliver(&packets, &fates), &thinnings);
            check(&results, key_every(period));
        } else {
            let results = feed(&mut slot, &packets, &thinnings);
            check(&results, key_every(period));
            check_clean(&results);
        }
    }

    #[test]
    fn described_frames_are_dropped_with_what_needs_them(
        thinnings in thinning(), fates in prop::collection::vec(fate(), 1..150), lossy: bool,
    ) {
        let templates = templates();
        let packets: Vec<Packet> = (0..60).flat_map(|index| dd_picture(index, &templates)).collect();
        let mut slot = Slot::new(Codec::Av1, 0);
        if lossy {
            check(&feed(&mut slot, &deliver(&packets, &fates), &thinnings), key_every(u64::MAX));
        } else {
            let results = feed(&mut slot, &packets, &thinnings);
            check(&results, key_every(u64::MAX));
            check_numbers(&results);
        }
    }

    #[test]
    fn a_replay_is_thinned_as_what_comes_live(
        pictures in 1_usize..27, spatial in 0..SPATIAL, temporal in 0_u8..3, described: bool,
    ) {
        let templates = templates();
        let picture = |index| if described { dd_picture(index, &templates) } else { vp9_picture(index, 60) };
        let packets: Vec<Packet> = (0..60).flat_map(picture).collect();
        let mut slot = Slot::new(if described { Codec::Av1 } else { Codec::Vp9 }, 0);
        let (before, live) = packets.split_at(6 * pictures);
        let mut results = replay(&mut slot, before, Layers { spatial, temporal });
        results.extend(feed(&mut slot, live, &[]));
        check(&results, key_every(60));
        check_numbers(&results);
        prop_assert!(results[0].1.as_ref().is_some_and(|first| first.begins));
        for (packet, out) in &results {
            let fits = spatial_of(packet) <= spatial && TEMPORAL[(packet.frame % 4) as usize] <= temporal;
            prop_assert_eq!(out.is_some(), fits, "{:?}", packet);
        }
    }
}

fn highest_after(results: &[(Packet, Option<Rewritten>)], from: u64) -> Option<(u8, u8)> {
    let sent = results.iter().filter(|(packet, out)| packet.frame >= from && out.is_some());
    sent.map(|(packet, _)| (spatial_of(packet), TEMPORAL[(packet.frame % 4) as usize])).max()
}

#[test]
fn vp9_goes_down_at_once_and_up_with_a_key_picture() {
    let mut slot = Slot::new(Codec::Vp9, 0);
    let packets = |pictures: std::ops::Range<u64>| -> Vec<Packet> {
        pictures.flat_map(|index| vp9_picture(index, 40)).collect()
    };
    assert_eq!(highest_after(&feed(&mut slot, &packets(0..8), &[]), 0), Some((2, 2)));
    slot.rewriter.set_layers(Layers::LOWEST);
    assert_eq!(highest_after(&feed(&mut slot, &packets(8..16), &[]), 0), Some((0, 0)));
    slot.rewriter.set_layers(Layers::ALL);
    assert_eq!(
        highest_after(&feed(&mut slot, &packets(16..40), &[]), 0),
        Some((0, 2)),
        "U raises temporal layers"
    );
    assert!(slot.rewriter.awaits_keyframe());
    assert_eq!(highest_after(&feed(&mut slot, &packets(40..44), &[]), 0), Some((2, 2)));
    assert!(!slot.rewriter.awaits_keyframe());
}

#[test]
fn described_layers_go_down_at_a_switch_point_and_say_which_remain() {
    let templates = templates();
    let packets = |pictures: std::ops::Range<u64>| -> Vec<Packet> {
        pictures.flat_map(|index| dd_picture(index, &templates)).collect()
    };
    let mut slot = Slot::new(Codec::Av1, 0);
    let first = feed(&mut slot, &packets(0..8), &[]);
    assert_eq!(highest_after(&first, 0), Some((2, 2)));
    assert!(
        first.iter().all(|(packet, out)| out
            .as_ref()
            .and_then(|out| out.dd.as_ref())
            .is_some_and(|dd| Some(dd.as_slice()) == packet.dd.as_deref())),
        "nothing to change"
    );
    slot.rewriter.set_layers(Layers { spatial: 1, temporal: 2 });
    let lower = feed(&mut slot, &packets(8..16), &[]);
    assert_eq!(highest_after(&lower, 8), Some((1, 2)));
    let mut reader = DependencyReader::default();
    let key = first[0].1.as_ref().and_then(|out| out.dd.as_ref()).expect("forwarded");
    reader.read(key.as_slice()).expect("a descriptor");
    // The base layer of the first picture comes before the frame that can be switched at.
    let after = lower.iter().filter(|(packet, _)| packet.frame > 8);
    let sent: Vec<_> = after.filter_map(|(_, out)| out.as_ref()?.dd.as_ref()).collect();
    assert!(!sent.is_empty());
    for dd in &sent {
        let read = reader.read(dd.as_slice()).expect("a descriptor");
        assert_eq!(read.frame.expect("known").active, 0b11_1111);
    }
    slot.rewriter.set_layers(Layers::ALL);
    assert_eq!(highest_after(&feed(&mut slot, &packets(16..24), &[]), 0), Some((1, 2)));
    assert!(slot.rewriter.awaits_keyframe(), "the middle of a full SVC stream offers no way up");
}

#[test]
fn frame_numbers_and_templates_go_on_across_a_switch() {
    let templates = templates();
    let mut slot = Slot::new(Codec::Av1, 0);
    let first: Vec<Packet> = (0..5).flat_map(|index| dd_picture(index, &templates)).collect();
    feed(&mut slot, &first, &[]);
    slot.switch();
    let again = feed(&mut slot, &dd_picture(0, &templates), &[]);
    let dd = again[0].1.as_ref().and_then(|out| out.dd.clone()).expect("forwarded");
    let read = DependencyReader::default().read(dd.as_slice()).expect("a descriptor");
    assert_eq!(read.frame_number, 15);
    let frame = read.frame.expect("known");
    assert_eq!((frame.structure.offset, read.template_id), (15, 16), "after the 15 templates of the first");
}

#[test]
fn a_vp9_patch_is_applied_to_a_copy() {
    let mut slot = Slot::new(Codec::Vp9, 0);
    let packets: Vec<Packet> = (0..3).flat_map(|index| vp9_picture(index, 40)).collect();
    feed(&mut slot, &packets, &[]);
    slot.switch();
    let packet = &vp9_picture(0, 40)[0];
    let out = slot.send(packet).expect("forwarded");
    let payload: Arc<[u8]> = Arc::from(&packet.payload[..]);
    let mut patched = Vec::new();
    out.patch.write(&payload, &mut patched);
    let Descriptor::Vp9(vp9) = inspect(Codec::Vp9, &patched, None).descriptor else { panic!("still VP9") };
    assert_eq!((vp9.picture_id(), vp9.tl0_picture_index()), (Some(3), Some(1)));
}
