//! A sender's packets, sealed as a peer seals them, against one connection's reading of them.

use std::sync::OnceLock;

use str0m::crypto::dtls::SrtpProfile;
use str0m::media::Pt;

use super::*;
use crate::core::rtcp::{Feedback, read};
use crate::media::srtp::Sealer;
use crate::media::srtp::keys::{Keys, MasterKey};

const MS: Duration = Duration::from_millis(1);

fn master(seed: u8) -> MasterKey {
    MasterKey { key: vec![seed; 16], salt: vec![seed; 12] }
}

/// A connection with one line of sound and one of video in two encodings, and who seals for it.
fn connection(now: Instant) -> (Ingress, Sealer) {
    let profile = SrtpProfile::AEAD_AES_128_GCM;
    let slot = KeySlot::new(OnceLock::new());
    let _ = slot.set(Keys { profile, outgoing: master(1), incoming: master(2) });
    let line = |mid: &str, kind, rids: &[&str]| PublishedLine {
        mid: mid.into(),
        kind,
        rids: rids.iter().map(|rid| Rid::from(*rid)).collect(),
    };
    let pt = |pt, resend: Option<u8>, format| PayloadType {
        pt: Pt::from(pt),
        resend: resend.map(Pt::from),
        is_resent: resend.is_some(),
        format,
    };
    let negotiated = IngressLines {
        keys: slot,
        lines: vec![line("a", Kind::Audio, &[]), line("v", Kind::Video, &["q", "f"])],
        payload_types: vec![pt(111, None, Format::OPUS), pt(96, Some(97), Format::VP8)],
        meanings: Meanings::for_tests(),
        declared: vec![Declared { ssrc: 77, line: 1, encoding: 1, repairs: false }],
    };
    (Ingress::new(now, negotiated, 1), Sealer::new(profile, &master(2)).expect("keys"))
}

/// One packet with extensions: the transport-wide number, and whatever else.
fn packet(ssrc: u32, pt: u8, index: u64, extensions: &[u8], payload: &[u8], sealer: &Sealer) -> Vec<u8> {
    let mut bytes = vec![0x90, pt];
    bytes.extend((index as u16).to_be_bytes());
    bytes.extend((index as u32 * 960).to_be_bytes());
    bytes.extend(ssrc.to_be_bytes());
    let mut block = vec![0x31, 0, index as u8];
    block.extend(extensions);
    block.resize(block.len().next_multiple_of(4), 0);
    bytes.extend([0xbe, 0xde, 0, (block.len() / 4) as u8]);
    bytes.extend(block);
    let header_len = bytes.len();
    bytes.extend(payload);
    sealer.seal_rtp(&mut bytes, 0, header_len, ssrc, index).expect("sealed");
    bytes
}

const MID_A: &[u8] = &[0x40, b'a'];
const MID_V_RID_Q: &[u8] = &[0x40, b'v', 0xa0, b'q'];
const MID_V_REPAIRS_Q: &[u8] = &[0x40, b'v', 0xb0, b'q'];

fn feedback(ingress: &mut Ingress, now: Instant) -> Vec<u8> {
    let (mut all, mut compound) = (Vec::new(), Vec::new());
    while ingress.poll_feedback(now, &mut compound) {
        all.extend_from_slice(&compound);
    }
    all
}

#[test]
fn packets_find_their_line_by_what_they_say_and_by_their_source_later() {
    let now = Instant::now();
    let (mut ingress, sealer) = connection(now);
    let first = packet(5, 96, 10, MID_V_RID_Q, b"picture", &sealer);
    let incoming = ingress.receive(now, &first).expect("taken");
    assert_eq!((incoming.line, incoming.encoding, incoming.format), (1, 0, Format::VP8));
    assert_eq!((incoming.seq_no, &*incoming.payload), (10, &b"picture"[..]));
    let next = packet(5, 96, 11, &[], b"more", &sealer);
    assert_eq!(ingress.receive(now, &next).expect("taken").encoding, 0);
    assert_eq!(ingress.receive(now, &next).unwrap_err(), Untaken::Nothing, "twice");
    let declared = packet(77, 96, 1, &[], b"x", &sealer);
    assert_eq!(ingress.receive(now, &declared).expect("taken").encoding, 1);
    // There is but one line for sound.
    let sound = packet(6, 111, 1, &[], b"x", &sealer);
    assert_eq!(ingress.receive(now, &sound).expect("taken").line, 0);
    let unknown = packet(7, 96, 1, &[], b"x", &sealer);
    assert_eq!(ingress.receive(now, &unknown).unwrap_err(), Untaken::Unknown, "one of two encodings");
}

#[test]
fn what_was_forged_changes_nothing() {
    let now = Instant::now();
    let (mut ingress, sealer) = connection(now);
    let genuine = packet(5, 111, 10, MID_A, b"sound", &sealer);
    for at in 0..genuine.len() {
        let mut forged = genuine.clone();
        forged[at] ^= 1;
        assert!(ingress.receive(now, &forged).is_err(), "byte {at}");
    }
    for len in 0..genuine.len() {
        assert!(ingress.receive(now, &genuine[..len]).is_err(), "{len} bytes");
    }
    assert!(ingress.streams.is_empty());
    assert_eq!(ingress.poll_timeout(), None);
    assert!(ingress.receive(now, &genuine).is_ok());
}

#[test]
fn numbers_go_on_over_the_wrap() {
    let now = Instant::now();
    let (mut ingress, sealer) = connection(now);
    for index in [65_534, 65_537, 65_535, 65_536] {
        let sealed = packet(5, 111, index, MID_A, b"sound", &sealer);
        assert_eq!(ingress.receive(now, &sealed).expect("taken").seq_no, index);
    }
}

#[test]
fn a_lost_packet_is_asked_for_and_comes_under_its_own_number() {
    let mut now = Instant::now();
    let (mut ingress, sealer) = connection(now);
    for index in [1, 2, 4] {
        let sealed = packet(5, 96, index, MID_V_RID_Q, b"picture", &sealer);
        ingress.receive(now, &sealed).expect("taken");
    }
    assert_eq!(ingress.take_alarm(), Some(now), "at once");
    let asked = feedback(&mut ingress, now);
    read(&asked, |feedback| {
        let Feedback::Nack { ssrc: 5, lost } = feedback else { panic!("{feedback:?}") };
        assert_eq!(lost.iter().collect::<Vec<_>>(), [3]);
    });
    now += 30 * MS;
    let resend = packet(9, 97, 500, MID_V_REPAIRS_Q, b"\0\x03lost", &sealer);
    let incoming = ingress.receive(now, &resend).expect("taken");
    assert_eq!((incoming.seq_no, &*incoming.payload, incoming.format), (3, &b"lost"[..], Format::VP8));
    assert_eq!((incoming.line, incoming.encoding), (1, 0));
    let again = packet(9, 97, 501, MID_V_REPAIRS_Q, b"\0\x03lost", &sealer);
    assert_eq!(ingress.receive(now, &again).unwrap_err(), Untaken::Nothing);
}

#[test]
fn padding_is_taken_off_and_a_probe_is_told_of_alone() {
    let now = Instant::now();
    let (mut ingress, sealer) = connection(now);
    let padded = |ssrc, pt, extensions, payload| {
        let mut bytes = packet(ssrc, pt, 1, extensions, payload, &sealer);
        // The bit belongs to what is authenticated: seal it anew.
        let header_len = bytes.len() - payload.len() - 16;
        bytes.truncate(header_len);
        bytes[0] |= 0x20;
        bytes.extend(payload);
        sealer.seal_rtp(&mut bytes, 0, header_len, ssrc, 1).expect("sealed");
        bytes
    };
    let sound = padded(5, 111, MID_A, &b"sound\0\0\x03"[..]);
    assert_eq!(*ingress.receive(now, &sound).expect("taken").payload, b"sound"[..]);
    let probe = padded(0, 96, &[], &[0, 0, 0, 4]);
    assert_eq!(ingress.receive(now, &probe).unwrap_err(), Untaken::Nothing);
    let absurd = padded(6, 96, MID_V_RID_Q, &[9]);
    assert_eq!(ingress.receive(now, &absurd).unwrap_err(), Untaken::Malformed);
    let told = feedback(&mut ingress, now + ARRIVALS_INTERVAL);
    let mut arrived = 0;
    read(&told, |feedback| {
        let Feedback::TransportCc(report) = feedback else { panic!("{feedback:?}") };
        arrived += report.packets().filter(|(_, at)| at.is_some()).count();
    });
    assert_eq!(arrived, 1, "all three have the same transport-wide number");
}

#[test]
fn limits_wait_for_their_stream_and_key_frames_come_with_it() {
    let now = Instant::now();
    let (mut ingress, sealer) = connection(now);
    ingress.request_keyframe(now, "v".into(), Some("q".into()));
    ingress.limit_bitrate(now, "v".into(), Some("q".into()), 300_000);
    ingress.request_keyframe(now, "nobody's".into(), None);
    assert_eq!(feedback(&mut ingress, now), [0u8; 0]);
    let sealed = packet(5, 96, 1, MID_V_RID_Q, b"picture", &sealer);
    ingress.receive(now, &sealed).expect("taken");
    let mut asked = Vec::new();
    let told = feedback(&mut ingress, now);
    read(&told, |feedback| asked.push(feedback));
    assert_eq!(asked, [Feedback::Remb { bps: 300_000 }]);
    ingress.request_keyframe(now, "v".into(), Some("q".into()));
    assert_eq!(ingress.take_alarm(), Some(now));
    let told = feedback(&mut ingress, now);
    read(&told, |feedback| assert_eq!(feedback, Feedback::KeyframeRequest { ssrc: 5 }));
    assert!(!told.is_empty());
    assert_eq!(feedback(&mut ingress, now), [0u8; 0], "once");
}

#[test]
fn reports_and_clocks_follow_the_sender_s_reports() {
    let now = Instant::now();
    let (mut ingress, sealer) = connection(now);
    let sealed = packet(5, 111, 10, MID_A, b"sound", &sealer);
    assert_eq!(ingress.receive(now, &sealed).expect("taken").captured_us, None);
    let ntp_time = crate::core::rtcp::ntp_time(5_000_000);
    let report = SenderReport { ssrc: 5, ntp_time, rtp_time: 10 * 960, packets: 1, octets: 5 };
    ingress.handle_sender_report(now, &report);
    let sealed = packet(5, 111, 12, MID_A, b"sound", &sealer);
    assert_eq!(ingress.receive(now, &sealed).expect("taken").captured_us, Some(5_040_000));
    // A packet that says it itself knows better.
    let mut extensions = vec![0xd7];
    extensions.extend(crate::core::rtcp::ntp_time(6_000_000).to_be_bytes());
    let sealed = packet(5, 111, 13, &extensions, b"sound", &sealer);
    assert_eq!(ingress.receive(now, &sealed).expect("taken").captured_us, Some(6_000_000));
    let at = now + REPORT_INTERVAL;
    let told = feedback(&mut ingress, at);
    let mut blocks = Vec::new();
    read(&told, |feedback| {
        if let Feedback::Report(block) = feedback {
            blocks.push(block)
        }
    });
    let [block] = blocks[..] else { panic!("{blocks:?}") };
    assert_eq!((block.ssrc, block.lost, block.highest_seq_no), (5, 1, 13));
    assert_eq!((block.last_report, block.delay_since_last_report), ((ntp_time >> 16) as u32, 65_536));
    assert_eq!(ingress.poll_timeout(), Some(at + REPORT_INTERVAL));
    let later = at + 2 * REPORTED_FOR;
    assert_eq!(feedback(&mut ingress, later), [0u8; 0], "who is silent is not reported on");
    assert_eq!(ingress.poll_timeout(), None);
}

#[test]
fn sources_are_bounded() {
    let mut now = Instant::now();
    let (mut ingress, sealer) = connection(now);
    for ssrc in 1..=(STREAMS_MAX as u32 + 5) {
        now += MS;
        let sealed = packet(ssrc, 111, 1, MID_A, b"x", &sealer);
        assert!(ingress.receive(now, &sealed).is_ok());
    }
    assert_eq!(ingress.streams.len(), STREAMS_MAX);
    assert_eq!(ingress.place_of(5), None, "silent longest");
}
