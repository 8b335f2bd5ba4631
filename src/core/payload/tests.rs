//! Each payload format against bytes as encoders make them, and against arbitrary ones.

use proptest::prelude::*;

use super::dependency::tests::{L3T3, hex};
use super::*;

fn size(width: u16, height: u16) -> Option<Resolution> {
    Some(Resolution { width, height })
}

/// X, I (15 bits), L, T: picture 0x1234, TL0PICIDX 7, temporal layer 2 with Y, then a frame header.
fn vp8(start: bool, header: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | u8::from(start) << 4, 0xe0, 0x92, 0x34, 7, 0b1010_0000];
    bytes.extend_from_slice(header);
    bytes
}

#[test]
fn vp8_key_frame_tells_its_size() {
    let frame = inspect(Codec::Vp8, &vp8(true, &[0x10, 0, 0, 0x9d, 1, 0x2a, 0x80, 2, 0x68, 1, 9]), None);
    assert!(frame.usable && frame.keyframe && frame.start_of_frame);
    assert_eq!((frame.temporal, frame.resolution()), (Some(2), size(640, 360)));
    let Descriptor::Vp8(vp8) = frame.descriptor else { panic!("{frame:?}") };
    assert_eq!((vp8.picture_id(), vp8.tl0_picture_index(), vp8.layer_sync), (Some(0x1234), Some(7), true));
}

#[test]
fn vp8_other_packets_are_no_key_frames() {
    assert!(!inspect(Codec::Vp8, &vp8(true, &[0x11, 0, 0]), None).keyframe, "P is set");
    let later = inspect(Codec::Vp8, &vp8(false, &[0x10, 0, 0]), None);
    assert!(later.usable && !later.keyframe && !later.start_of_frame);
    for cut in 0..6 {
        assert!(!inspect(Codec::Vp8, &vp8(true, &[0x10])[..cut], None).usable, "{cut}");
    }
}

#[test]
fn vp8_without_picture_id_is_left_as_it_is() {
    let frame = inspect(Codec::Vp8, &[0x10, 0x01, 0, 0], None);
    let Descriptor::Vp8(vp8) = frame.descriptor else { panic!("{frame:?}") };
    let untouched = vp8.patch(Some(9), Some(9));
    assert_eq!(untouched, vp8.patch(None, None));
}

/// I, P as asked, L, B, E, non-flexible; picture 0x1234, T 1, U, S as asked, D, TL0PICIDX 7.
fn vp9(inter_picture: bool, spatial: u8, rest: &[u8]) -> Vec<u8> {
    let flags = 0xac | u8::from(inter_picture) << 6;
    let mut bytes = vec![flags, 0x92, 0x34, 1 << 5 | 1 << 4 | spatial << 1 | 1, 7];
    bytes.extend_from_slice(rest);
    bytes
}

#[test]
fn vp9_layers_and_sizes_of_a_key_picture() {
    let mut key = vp9(false, 0, &[1 << 5 | 0x18, 1, 64, 0, 180, 2, 128, 1, 104, 1, 0b0000_0100, 1, 0xaa]);
    key[0] |= 0x02;
    let frame = inspect(Codec::Vp9, &key, None);
    assert!(frame.usable && frame.keyframe && frame.start_of_frame && frame.end_of_frame);
    assert_eq!((frame.spatial, frame.temporal), (Some(0), Some(1)));
    assert_eq!(frame.resolutions, [size(320, 180), size(640, 360), None, None]);
    assert_eq!(frame.resolution(), size(640, 360));
    let Descriptor::Vp9(vp9) = frame.descriptor else { panic!("{frame:?}") };
    assert_eq!((vp9.picture_id(), vp9.tl0_picture_index()), (Some(0x1234), Some(7)));
    assert!(vp9.switching_up && vp9.inter_layer && !vp9.inter_picture);
}

#[test]
fn vp9_upper_layers_and_inter_pictures_begin_nothing() {
    assert!(!inspect(Codec::Vp9, &vp9(false, 1, &[0xaa]), None).keyframe);
    assert!(!inspect(Codec::Vp9, &vp9(true, 0, &[0xaa]), None).keyframe);
}

#[test]
fn vp9_flexible_mode_names_its_references() {
    // I P F B, 7-bit id 5, two P_DIFF, then the frame.
    let frame = inspect(Codec::Vp9, &[0xd8, 5, 0x03, 0x04, 0xaa], None);
    assert!(frame.usable && !frame.keyframe);
    let Descriptor::Vp9(vp9) = frame.descriptor else { panic!("{frame:?}") };
    assert_eq!((vp9.picture_id(), vp9.wide_picture_id, vp9.layered), (Some(5), false, false));
    assert!(!inspect(Codec::Vp9, &[0xd8, 5, 3, 5, 7, 8, 0xaa], None).usable, "a fourth P_DIFF");
}

#[test]
fn vp9_size_from_the_frame_header_where_no_structure_is_sent() {
    // Profile 0 key frame, shown, sync code, BT.601, then 320 and 180 less one in 16 bits each.
    let mut header = vec![0b1000_0010, 0x49, 0x83, 0x42];
    let rest: u64 = 0b0010 << 60 | 319 << 44 | 179 << 28;
    header.extend_from_slice(&rest.to_be_bytes());
    let mut key = vec![0x88, 5];
    key.extend_from_slice(&header);
    assert_eq!(inspect(Codec::Vp9, &key, None).resolution(), size(320, 180));
}

#[test]
fn h264_parameter_sets_and_idr_slices_begin_a_picture() {
    let baseline = hex("6742c01f8c8d40501e900f08846a");
    let frame = inspect(Codec::H264, &baseline, None);
    assert!(frame.keyframe && frame.start_of_frame);
    assert_eq!(frame.resolution(), size(640, 480));
    // High profile, cropped, with emulation prevention bytes.
    let high = hex("67640028acd940780227e584000003000400000300f03c60c658");
    assert_eq!(inspect(Codec::H264, &high, None).resolution(), size(1920, 1080));
    let mut stap = vec![0x78, 0, 14];
    stap.extend_from_slice(&baseline);
    stap.extend_from_slice(&[0, 4, 0x68, 0xce, 0x3c, 0x80, 0, 2, 0x65, 0x88]);
    let aggregated = inspect(Codec::H264, &stap, None);
    assert!(aggregated.keyframe && aggregated.resolution() == size(640, 480));
}

#[test]
fn h264_fragments_count_by_their_first() {
    assert!(inspect(Codec::H264, &[0x7c, 0x85, 0x88], None).keyframe, "FU-A, S, IDR");
    let later = inspect(Codec::H264, &[0x7c, 0x05, 0x88], None);
    assert!(later.usable && !later.keyframe && !later.start_of_frame);
    let inter = inspect(Codec::H264, &[0x61, 0x9a], None);
    assert!(inter.start_of_frame && !inter.keyframe);
    assert!(!inspect(Codec::H264, &[0x61, 0x1a], None).start_of_frame, "not the first slice");
}

#[test]
fn av1_sequence_begins_with_the_n_bit() {
    // W = 1, N; a sequence header OBU with a size field, of 640x480.
    let mut key = vec![0x18];
    key.extend_from_slice(&hex("0a0b00000024c4ffdf00680210"));
    let frame = inspect(Codec::Av1, &key, None);
    assert!(frame.keyframe && frame.start_of_frame);
    assert_eq!(frame.resolution(), size(640, 480));
    assert!(!inspect(Codec::Av1, &[0x10, 0x32, 0], None).keyframe);
    assert!(!inspect(Codec::Av1, &[0x98, 0x32, 0], None).keyframe, "continues a fragment");
}

#[test]
fn a_dependency_descriptor_adds_layers_and_sizes() {
    let mut reader = DependencyReader::default();
    let dd = reader.read(&hex(L3T3)).expect("a descriptor");
    let frame = inspect(Codec::Av1, &[0x10, 0x32, 0], Some(&dd));
    assert!(frame.keyframe && frame.end_of_frame);
    assert_eq!((frame.spatial, frame.temporal, frame.resolution()), (Some(0), Some(0), size(480, 270)));
}

#[test]
fn audio_is_opaque_and_nothing_is_unusable() {
    assert!(inspect(Codec::Opus, &[0xfc], None).usable);
    for codec in [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
        assert!(!inspect(codec, &[], None).usable, "{}", codec.name());
    }
}

fn written(patch: &PayloadPatch, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    patch.write(payload, &mut out);
    out
}

#[test]
fn vp8_patch_changes_the_numbers_and_nothing_else() {
    for (wide, layer_byte) in [(true, 0x60), (false, 0x20)] {
        let id: &[u8] = if wide { &[0x81, 0x23] } else { &[0x23] };
        let payload = [&[0x90, 0xe0], id, &[77, layer_byte, 0x10, 0, 0]].concat();
        let Descriptor::Vp8(old) = inspect(Codec::Vp8, &payload, None).descriptor else { panic!("no VP8") };
        let patched = written(&PayloadPatch::Bytes(old.patch(Some(0x3456), Some(9))), &payload);
        let Descriptor::Vp8(new) = inspect(Codec::Vp8, &patched, None).descriptor else { panic!("no VP8") };
        assert_eq!(new.picture_id(), Some(if wide { 0x3456 } else { 0x56 }));
        assert_eq!(new.tl0_picture_index(), Some(9));
        let changed = payload.iter().zip(&patched).filter(|(a, b)| a != b).count();
        assert_eq!(changed, if wide { 3 } else { 2 });
    }
}

const VIDEO: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(
        codec in prop::sample::select(&VIDEO[..]), bytes: Vec<u8>, id: u16, tl0: u8,
    ) {
        let frame = inspect(codec, &bytes, None);
        let patch = match &frame.descriptor {
            Descriptor::Vp8(vp8) => PayloadPatch::Bytes(vp8.patch(Some(id), Some(tl0))),
            Descriptor::Vp9(vp9) => PayloadPatch::Bytes(vp9.patch(Some(id), Some(tl0))),
            Descriptor::None => PayloadPatch::None,
        };
        prop_assert_eq!(written(&patch, &bytes).len(), bytes.len());
    }

    /// H.264 and AV1 headers with arbitrary insides reach the bit readers.
    #[test]
    fn arbitrary_parameter_sets_never_panic(profile: u8, bytes: Vec<u8>) {
        let mut sps = vec![0x67, profile, 0, 0];
        sps.extend_from_slice(&bytes);
        inspect(Codec::H264, &sps, None);
        let mut sequence = vec![0x18, 0x08];
        sequence.extend_from_slice(&bytes);
        inspect(Codec::Av1, &sequence, None);
    }

    #[test]
    fn vp9_patch_changes_the_numbers_and_nothing_else(
        wide: bool, flexible: bool, inter: bool, layer: u8, id in 0_u16..0x8000, tl0: u8, frame: [u8; 4],
    ) {
        let mut bytes = vec![0xa8 | u8::from(flexible) << 4 | u8::from(inter) << 6];
        bytes.extend_from_slice(if wide { &[0x81, 0x23][..] } else { &[0x23][..] });
        bytes.push(layer);
        if !flexible {
            bytes.push(99);
        } else if inter {
            bytes.push(2);
        }
        bytes.extend_from_slice(&frame);
        let before = inspect(Codec::Vp9, &bytes, None);
        let Descriptor::Vp9(old) = before.descriptor else { return Err(TestCaseError::fail("unusable")) };
        let patched = written(&PayloadPatch::Bytes(old.patch(Some(id), Some(tl0))), &bytes);
        let after = inspect(Codec::Vp9, &patched, None);
        let Descriptor::Vp9(new) = after.descriptor else { return Err(TestCaseError::fail("unusable")) };
        prop_assert_eq!(new.picture_id(), Some(if wide { id } else { id & 0x7f }));
        prop_assert_eq!(new.tl0_picture_index(), (!flexible).then_some(tl0));
        prop_assert_eq!((new.spatial, new.temporal), (old.spatial, old.temporal));
        prop_assert_eq!(new.switching_up, old.switching_up);
        prop_assert_eq!(&patched[patched.len() - 4..], &frame[..]);
    }
}
