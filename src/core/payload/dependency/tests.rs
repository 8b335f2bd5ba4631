//! The reader against a descriptor that Chromium sent, and against arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::core::payload::Resolution;

/// First packet of an AV1 stream in mode L3T3, as Chromium sends it.
pub(in crate::core) const L3T3: &str = concat!(
    "c1017280081485214eafffaaaa863cf0430c10c302afc0aaa0063c00430010c002a000a80006000040001d954926e082",
    "b04a0941b820ac1282503157f974000ca864330e222222eca8655304224230eca877530077004200ef008601df010d",
);

pub(in crate::core) fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn reader() -> DependencyReader {
    let mut reader = DependencyReader::default();
    reader.read(&hex(L3T3)).expect("a descriptor");
    reader
}

#[test]
fn reads_the_structure_that_chromium_sends() {
    let dd = DependencyReader::default().read(&hex(L3T3)).expect("a descriptor");
    assert!(dd.attached && dd.start_of_frame && dd.end_of_frame);
    assert_eq!((dd.frame_number, dd.template_id), (0x172, 1));
    let frame = dd.frame.expect("the structure is there");
    assert_eq!((frame.spatial, frame.temporal, frame.active), (0, 0, 0x1ff));
    assert_eq!(frame.references, References::default());
    let structure = frame.structure;
    let layers: Vec<_> = structure.targets.iter().map(|target| (target.spatial, target.temporal)).collect();
    assert_eq!(layers, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]);
    let size = |width, height| Some(Resolution { width, height });
    assert_eq!(structure.resolutions, [size(120, 67), size(240, 135), size(480, 270), None]);
    // Full SVC: what a target gets holds all that lower ones get.
    assert_eq!(structure.targets[8].covers, 0b1_1111_1111);
    assert_eq!(structure.targets[4].covers, 0b0_0001_1011);
    assert_eq!(structure.choose(u8::MAX, u8::MAX, 0x1ff), Some(8));
    assert_eq!(structure.choose(u8::MAX, u8::MAX, 0x3f), Some(5));
    assert_eq!(structure.choose(1, 0, 0x1ff), Some(3));
    assert_eq!(structure.choose(0, 0, 0x1f8), Some(3), "nothing that low is active: the lowest");
    assert_eq!(structure.choose(0, 0, 0), None);
}

#[test]
fn short_descriptors_refer_to_the_structure() {
    let mut reader = reader();
    let dd = reader.read(&hex("86017340fc")).expect("a descriptor");
    let frame = dd.frame.as_ref().expect("known");
    assert!(dd.start_of_frame && !dd.end_of_frame && !dd.attached);
    assert_eq!((frame.spatial, frame.temporal, frame.active), (1, 0, 0b11_1111));
    assert_eq!(frame.references.back, 1, "the frame before, of the spatial layer below");
    let delta = reader.read(&hex("c00178")).expect("a descriptor").frame.expect("known");
    assert_eq!((delta.spatial, delta.temporal, delta.active), (0, 0, 0b11_1111));
    assert_eq!(delta.indications.of(0), Indication::Switch);
}

#[test]
fn a_packet_before_its_structure_has_numbers_only() {
    let dd = DependencyReader::default().read(&hex("860173")).expect("a descriptor");
    assert_eq!(dd.frame_number, 0x173);
    assert!(dd.frame.is_none());
    assert!(DependencyReader::default().read(&hex("8601")).is_none());
}

#[test]
fn a_late_packet_of_the_former_structure_is_still_understood_and_changes_nothing() {
    let mut reader = reader();
    // The same structure with its template ids moved by 32 and a later frame number.
    let change = Rewrite { frame_number: 0x200, template_shift: 32, active: None };
    let moved = DependencyReader::default().read(&hex(L3T3)).expect("a descriptor").rewrite(change);
    let dd = reader.read(moved.as_slice()).expect("a descriptor");
    assert_eq!(dd.frame.expect("known").structure.offset, 32);
    let late = reader.read(&hex("46017340fc")).expect("a descriptor").frame.expect("known");
    assert_eq!((late.structure.offset, late.spatial, late.active), (0, 1, 0x1ff));
}

#[test]
fn a_mask_is_inserted_replaced_and_survives_a_structure() {
    let mut reader = reader();
    for (text, attached) in [("860173", false), ("86017340fc", false), (L3T3, true)] {
        let dd = reader.read(&hex(text)).expect("a descriptor");
        let change = Rewrite { frame_number: 7, template_shift: 62, active: Some(0b1_0101) };
        let out = dd.rewrite(change);
        let read = reader_shifted_by(62).read(out.as_slice()).expect("a descriptor");
        assert_eq!(read.frame_number, 7);
        assert_eq!(read.template_id, (dd.template_id + 62) % 64);
        assert_eq!(read.attached, attached);
        let (old, new) = (dd.frame.expect("known"), read.frame.expect("known"));
        assert_eq!(new.active, 0b1_0101, "{text}");
        assert_eq!((new.spatial, new.temporal), (old.spatial, old.temporal));
        assert_eq!((new.indications, new.references), (old.indications, old.references));
        assert_eq!(new.structure.resolutions, old.structure.resolutions);
    }
}

/// A reader that knows the structure under template ids that are moved.
fn reader_shifted_by(template_shift: u8) -> DependencyReader {
    let key = DependencyReader::default().read(&hex(L3T3)).expect("a descriptor");
    let moved = key.rewrite(Rewrite { frame_number: 0, template_shift, active: None });
    let mut reader = DependencyReader::default();
    reader.read(moved.as_slice()).expect("a descriptor");
    reader
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..8),
        number: u16, shift in 0_u8..64, active: u32,
    ) {
        let mut reader = reader();
        for bytes in packets {
            if let Some(dd) = reader.read(&bytes) {
                let change = Rewrite { frame_number: number, template_shift: shift, active: None };
                prop_assert_eq!(dd.rewrite(change).as_slice().len(), bytes.len());
                let masked = dd.rewrite(Rewrite { active: Some(active), ..change });
                prop_assert!(masked.as_slice().len() <= DESCRIPTOR_BYTES_MAX);
            }
        }
    }

    /// Bytes that begin like a structure reach deeper than arbitrary ones.
    #[test]
    fn a_damaged_structure_never_panics(at in 3_usize..90, value: u8, length in 0_usize..95, active: u32) {
        let mut bytes = hex(L3T3);
        let at = at.min(bytes.len() - 1);
        bytes[at] = value;
        bytes.truncate(length.max(1));
        if let Some(dd) = DependencyReader::default().read(&bytes) {
            let out = dd.rewrite(Rewrite { frame_number: 1, template_shift: 5, active: Some(active) });
            prop_assert!(!out.as_slice().is_empty());
            if let Some(frame) = dd.frame {
                frame.structure.choose(1, 1, active);
            }
        }
    }
}
