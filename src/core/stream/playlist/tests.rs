//! Playlists, as RFC 8216bis wants them.

use bytes::Bytes;

use super::super::shelf::tests::{filled, part};
use super::*;

fn whole(shelf: &Shelf) -> String {
    media("s", shelf, [], Extent::Whole)
}

fn lines<'a>(text: &'a str, tag: &'a str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(tag)).collect()
}

#[test]
fn a_playlist_lists_segments_then_parts_then_what_comes() {
    let text = whole(&filled(2, 1));
    let wanted = "\
#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:3
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.500,HOLD-BACK=9.0,CAN-SKIP-UNTIL=18.0
#EXT-X-PART-INF:PART-TARGET=0.500
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-MAP:URI=\"s-init-0.mp4\"
#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:00.000Z
#EXT-X-PART:DURATION=0.50000,URI=\"s-0-0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.50000,URI=\"s-0-1.m4s\"
#EXT-X-PART:DURATION=0.50000,URI=\"s-0-2.m4s\"
#EXT-X-PART:DURATION=0.50000,URI=\"s-0-3.m4s\"
#EXTINF:2.00000,
s-0.m4s
#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:02.000Z
#EXT-X-PART:DURATION=0.50000,URI=\"s-1-0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.50000,URI=\"s-1-1.m4s\"
#EXT-X-PART:DURATION=0.50000,URI=\"s-1-2.m4s\"
#EXT-X-PART:DURATION=0.50000,URI=\"s-1-3.m4s\"
#EXTINF:2.00000,
s-1.m4s
#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:04.000Z
#EXT-X-PART:DURATION=0.50000,URI=\"s-2-0.m4s\",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"s-2-1.m4s\"
";
    assert_eq!(text, wanted);
}

#[test]
fn parts_are_listed_of_the_newest_segments_alone() {
    let text = whole(&filled(40, 2));
    assert_eq!(lines(&text, "#EXTINF:").len(), 11);
    // Two that are whole, and the one that grows.
    assert_eq!(lines(&text, "#EXT-X-PART:").len(), 2 * 4 + 2);
    assert_eq!(lines(&text, "#EXT-X-MEDIA-SEQUENCE:"), ["29"]);
}

#[test]
fn a_delta_leaves_out_what_is_old_and_ends_as_the_whole_does() {
    let shelf = filled(40, 2);
    let (whole, delta) = (whole(&shelf), media("s", &shelf, [], Extent::Delta));
    assert_eq!(lines(&delta, "#EXT-X-SKIP:"), ["SKIPPED-SEGMENTS=2"]);
    assert_eq!(lines(&delta, "#EXTINF:").len(), 9);
    assert!(lines(&delta, "#EXT-X-MAP:").is_empty());
    let end = delta.split_once("SKIPPED-SEGMENTS=2\n").unwrap().1;
    assert!(whole.ends_with(end));
    // What is left out is older than the boundary told.
    assert!(whole.lines().filter(|line| line.starts_with("#EXTINF")).count() - 2 >= 18 / 2);
    let short = filled(5, 0);
    assert!(!media("s", &short, [], Extent::Delta).contains("SKIP:"));
}

#[test]
fn eras_are_told_by_discontinuities_and_maps_of_their_own() {
    let mut shelf = filled(1, 2);
    shelf.put(part(2, true, true), Bytes::new());
    let text = whole(&shelf);
    let at = text.find("#EXT-X-DISCONTINUITY\n#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"s-init-2.mp4\"");
    assert!(at > text.find("s-1.m4s"), "{text}");
    for number in 0..60 {
        shelf.put(part(2, number % 4 == 0, number % 4 == 3), Bytes::new());
    }
    let text = whole(&shelf);
    assert!(!text.contains("#EXT-X-DISCONTINUITY\n"));
    assert_eq!(lines(&text, "#EXT-X-DISCONTINUITY-SEQUENCE:"), ["2"]);
}

#[test]
fn other_renditions_are_reported_and_an_end_is_told() {
    let (shelf, mut other) = (filled(3, 0), filled(2, 3));
    other.track = Track::Low;
    let text = media("s", &shelf, [&other], Extent::Whole);
    assert_eq!(
        lines(&text, "#EXT-X-RENDITION-REPORT:"),
        ["URI=\"../low/index.m3u8\",LAST-MSN=2,LAST-PART=2"]
    );
    assert_eq!(lines(&text, "#EXT-X-PRELOAD-HINT:"), ["TYPE=PART,URI=\"s-3-0.m4s\""]);
    let ended = media("s", &shelf, [&other], Extent::Ended);
    assert!(ended.ends_with("s-2.m4s\n#EXT-X-ENDLIST\n"));
    assert!(!ended.contains("PART:") && !ended.contains("HINT") && !ended.contains("REPORT"));
}

#[test]
fn the_multivariant_playlist_names_all_tracks() {
    let init = |track, codec: &str, size| Init { track, era: 0, codec: codec.to_owned(), size, bytes: 0 };
    let high = init(Track::High, "avc1.42e01f", Some((1_280, 720)));
    let low = init(Track::Low, "avc1.42e01e", Some((640, 360)));
    let sound = init(Track::Sound, "mp4a.40.2", None);
    let variant = |init, bandwidth_bps| Variant { init, bandwidth_bps, frames_per_second: 30 };
    let text = multivariant("p/", &[variant(&high, 2_400_000), variant(&low, 800_000)], &sound);
    let wanted = "\
#EXTM3U
#EXT-X-VERSION:9
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"sound\",NAME=\"Room\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",\
URI=\"p/sound/index.m3u8\"
#EXT-X-STREAM-INF:BANDWIDTH=2400000,CODECS=\"avc1.42e01f,mp4a.40.2\",RESOLUTION=1280x720,\
FRAME-RATE=30.000,AUDIO=\"sound\"
p/high/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=800000,CODECS=\"avc1.42e01e,mp4a.40.2\",RESOLUTION=640x360,\
FRAME-RATE=30.000,AUDIO=\"sound\"
p/low/index.m3u8
";
    assert_eq!(text, wanted);
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (unix_ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_795_687_199_999, "2026-11-26T09:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(date_time(unix_ms * 1_000), text);
    }
}
