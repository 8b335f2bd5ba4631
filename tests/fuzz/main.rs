//! Whatever comes from the network, broken in every way: SDP offers and fragments, tokens, control messages,
//! datagrams. Each input gets an answer or a counted refusal; never a panic, never a lost neighbour.
//!
//! Inputs are mutations of good ones, from seeds, so a failure repeats. `FUZZ_SECONDS=600` fuzzes each parser
//! for that long; `FUZZ_SEED` begins elsewhere. The default is short and always the same.

mod mutate;
mod node;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use antiphon::config::Secret;
use antiphon::core::payload::{self, Codec, DependencyReader};
use antiphon::core::relay::wire::{Datagram, Frame};
use antiphon::core::rtcp::{self, Feedback};
use antiphon::token::Keys;
use mutate::Mutator;
use node::{Node, OFFER};

/// Runs of each parser when no time is given.
const RUNS: u64 = 3_000;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Calls `once` with a mutator until the budget is spent; the panic of a failing input names its seed.
fn fuzz(what: &str, runs: u64, mut once: impl FnMut(&mut Mutator)) {
    let first = env("FUZZ_SEED").unwrap_or(1);
    let until = env("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut seed = first;
    loop {
        let over = until.map_or(seed >= first + runs, |until| Instant::now() >= until);
        if over {
            break;
        }
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| once(&mut Mutator::new(seed))));
        assert!(caught.is_ok(), "{what} panicked: FUZZ_SEED={seed} repeats it");
        seed += 1;
    }
    println!("{what}: {} inputs", seed - first);
}

#[test]
fn offers_are_accepted_or_refused() {
    let node = Node::new();
    let (mut accepted, mut refused) = (0u64, 0u64);
    fuzz("SDP offers", RUNS / 3, |mutator| {
        let offer = mutator.lines(OFFER);
        match node.negotiate(offer) {
            Ok(_) => accepted += 1,
            Err(refusal) => {
                assert!(!refusal.message.is_empty() && refusal.message.len() < 400, "words, not the offer");
                refused += 1;
            }
        }
    });
    assert!(accepted > 0 && refused > 0, "{accepted} accepted and {refused} refused: the mutations miss");
}

/// What longer runs have found.
#[test]
fn inputs_that_were_once_too_much_are_refused() {
    let node = Node::new();
    // The engine asserts that a payload type is claimed once.
    let offer = Mutator::new(1_732).lines(OFFER);
    assert!(node.negotiate(offer).is_err());
}

#[test]
fn fragments_change_ice_or_are_refused() {
    let mut node = Node::new();
    let good = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
                a=candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host\r\na=end-of-candidates\r\n";
    let (mut changed, mut refused) = (0u64, 0u64);
    fuzz("SDP fragments", RUNS / 3, |mutator| {
        let fragment = mutator.lines(good);
        match node.patch(fragment) {
            Ok(_) => changed += 1,
            Err(_) => refused += 1,
        }
    });
    assert!(changed > 0 && refused > 0, "{changed} changed and {refused} refused: the mutations miss");
    node.assert_neighbour_lives();
}

#[test]
fn tokens_are_verified_or_refused() {
    let keys =
        Keys::new(&BTreeMap::from([("devkey".to_owned(), Secret::new("a secret of some length, to sign"))]));
    let grant =
        antiphon::token::RoomGrant::owner(&antiphon::core::ids::RoomName::parse("fuzzed").expect("a name"));
    let identity = antiphon::core::ids::Identity::parse("ada").expect("a name");
    let token = antiphon::token::Token { identity, name: None, room: grant };
    let good = keys.sign(token, 4_000_000_000).expect("signed");
    assert!(keys.verify(&good).is_ok());
    fuzz("tokens", RUNS, |mutator| {
        let token = mutator.text(&good);
        assert!(token == good || keys.verify(&token).is_err(), "a token that nobody signed was accepted");
    });
}

#[test]
fn control_messages_are_answered() {
    let corpus = [
        r#"{"type":"publish","request":1,"tracks":[{"mid":"0","source":"microphone"}]}"#,
        r#"{"type":"slots.wish","slots":[{"mid":"2","max_height":720,"participant":"bob"}]}"#,
        r#"{"type":"chat.send","id":"m1","text":"hello","reply_to":"m0","request":2}"#,
        r#"{"type":"chat.history","before":18446744073709551615}"#,
        r#"{"type":"room.update","participants_max":3,"locked":true}"#,
        r#"{"type":"me.update","name":"Ada","hand_raised":true}"#,
        r#"{"type":"moderate.mute","participant":"bob","source":"camera"}"#,
    ];
    let mut node = Node::new();
    fuzz("control messages", RUNS, |mutator| {
        let good = corpus[mutator.below(corpus.len())];
        node.control(mutator.bytes(good.as_bytes()));
    });
    node.assert_neighbour_lives();
}

#[test]
fn datagrams_are_taken_or_dropped() {
    let mut node = Node::new();
    let corpus = node.good_datagrams();
    fuzz("datagrams", RUNS, |mutator| {
        let good = &corpus[mutator.below(corpus.len())];
        let bytes = mutator.bytes(good);
        node.datagram(mutator.below(3), &bytes);
    });
    assert!(node.dropped() > 0, "nothing was counted as dropped");
    node.assert_neighbour_lives();
}

#[test]
fn payloads_are_read_or_found_unusable() {
    let corpus: [(Codec, &[u8]); 5] = [
        (Codec::Vp8, &[0x90, 0xe0, 0x80, 0x11, 0x22, 0x20, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 2, 0x68, 1]),
        (Codec::Vp9, &[0xaa, 0x81, 0x23, 0x12, 0x58, 0x18, 1, 0x40, 0, 0xb4, 1, 4, 1]),
        (Codec::H264, &[0x78, 0, 8, 0x67, 0x42, 0xe0, 0x1f, 0xda, 2, 0x80, 0xf6, 0, 4, 0x65, 0x88, 0x84, 0]),
        (Codec::Av1, &[0x18, 0x0a, 0x0b, 0, 0, 0, 0x24, 0xc4, 0xff, 0xdf, 0x3f, 0xfe, 0x96, 0x40]),
        (Codec::Opus, &[0xfc, 1, 2, 3]),
    ];
    let descriptor = [0xc0, 0, 1, 0x80, 0, 0xeb, 0x85, 0x19, 0x23, 0x11, 0x52, 0x20, 0x9f, 0x40];
    let mut reader = DependencyReader::default();
    fuzz("payloads", RUNS * 10, |mutator| {
        let (codec, good) = corpus[mutator.below(corpus.len())];
        let dd = reader.read(&mutator.bytes(&descriptor));
        let frame = payload::inspect(codec, &mutator.bytes(good), dd.as_ref());
        assert!(frame.usable || !frame.keyframe, "an unusable packet cannot begin anything");
    });
}

#[test]
fn receivers_feedback_is_read_or_skipped() {
    let corpus: [&[u8]; 5] = [
        &[0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 9, 0xff, 0xfe, 0x80, 3],
        &[
            0x8f, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 9, 0xff, 0xfe, 0, 7, 0x80, 0, 1, 5, 0x20, 2, 0xc9, 0, 4, 0,
            4, 0,
        ],
        &[
            0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7, 0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 3,
            0, 0, 0,
        ],
        &[0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x0b, 0xd0, 0x90, 0, 0, 0, 7],
        &[
            0x81, 201, 0, 7, 0, 0, 0, 1, 0, 0, 0, 5, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 1,
            0, 0,
        ],
    ];
    let mut read = 0u64;
    fuzz("RTCP feedback", RUNS * 10, |mutator| {
        let good = corpus[mutator.below(corpus.len())];
        let bytes = mutator.bytes(good);
        rtcp::read(&bytes, |feedback| {
            read += 1;
            match feedback {
                Feedback::Nack { lost, .. } => assert!(lost.iter().count() <= bytes.len() * 5),
                Feedback::TransportCc(report) => assert!(report.packets().count() <= 1 << 13),
                _ => {}
            }
        });
    });
    assert!(read > 0, "the mutations leave nothing that can be read");
}

/// From another node, which has the cluster's key and may be of another version.
#[test]
fn what_links_carry_is_read_or_passed_over() {
    // Seat 3, line 1, encoding 2, VP8, with level, descriptor, orientation, delay and contributors.
    let media =
        b"\x01\0\0\0\x09\0\0\0\x01\x3f\0\0\0\x03\x01\x02\x03\0\0\0\0\0\0\0\0\0\0\x10\x01\0\x0f\x42\x40\
        \x85\x03abc\x01\x01\x02\x03\x01\0\0\0\x07\x90\x80\x01payload";
    let missing = b"\x02\0\0\0\x09\0\0\0\x0c";
    assert!(matches!(Datagram::decode(media), Ok(Datagram::Media { seq_no: 9, branch: 1, .. })));
    let (mut read, mut passed) = (0u64, 0u64);
    fuzz("datagrams of links", RUNS, |mutator| {
        let good: &[u8] = if mutator.below(4) == 0 { missing } else { media };
        match Datagram::decode(&mutator.bytes(good)) {
            // What was read is what is written.
            Ok(datagram) => {
                assert_eq!(Datagram::decode(&datagram.encode()), Ok(datagram));
                read += 1;
            }
            Err(_) => passed += 1,
        }
    });
    assert!(read > 0 && passed > 0, "{read} read and {passed} passed over: the mutations miss");
    let corpus = [
        r#"{"open":{"room":"abc","epoch":7,"branch":1,"node":"n-1"}}"#,
        r#"{"up":{"demand":{"seat":3,"line":1,"serial":9,"encodings":4}}}"#,
        r#"{"up":{"keyframe":{"seat":3,"mid":"v0","rid":"h"}}}"#,
        r#"{"down":{"dismiss":{"identity":"ann","reason":"removed"}}}"#,
        r#"{"down":{"ended":"moved"}}"#,
        r#"{"refused":"not_home"}"#,
    ];
    for good in corpus {
        assert!(Frame::decode(good.as_bytes()).is_ok(), "{good}");
    }
    fuzz("frames of links", RUNS, |mutator| {
        let good = corpus[mutator.below(corpus.len())];
        if let Ok(frame) = Frame::decode(&mutator.bytes(good.as_bytes())) {
            let again = frame.encode();
            assert!(Frame::decode(&again[4..]).is_ok());
        }
    });
}
