//! Playlists of a stream: RFC 8216bis (HTTP Live Streaming, 2nd edition), protocol version 9.
//!
//! Addresses in them are relative, so that whatever stands in front of them, a viewer's pass among it, stays.

use std::fmt::Write as _;

use super::shelf::{Segment, Shelf};
use super::{Init, PART_MS, TARGET_S, Track};

/// Players stay behind the newest part by three parts, or by three target durations where they fetch whole
/// segments (RFC 8216bis §4.4.3.8).
const PART_HOLD_BACK_S: f64 = 3.0 * PART_MS as f64 / 1_000.0;
const HOLD_BACK_S: u64 = 3 * TARGET_S;
/// What is older may be left out of a delta.
const SKIP_UNTIL_S: u64 = 6 * TARGET_S;
/// Parts are listed of so many segments, with the one that grows or is about to: players begin behind fewer,
/// and all lie within three target durations of the end, as RFC 8216bis §6.2.2 wants it.
const PARTS_OF: usize = 3;

/// A rendition of the picture as the multivariant playlist tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant<'a> {
    pub init: &'a Init,
    /// At most, over any segment, with sound.
    pub bandwidth_bps: u64,
    pub frames_per_second: u32,
}

/// The multivariant playlist. `place` goes in front of every address.
pub fn multivariant(place: &str, variants: &[Variant<'_>], sound: &Init) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let _ = writeln!(
        text,
        "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"sound\",NAME=\"Room\",DEFAULT=YES,AUTOSELECT=YES,\
         CHANNELS=\"2\",URI=\"{place}{}/index.m3u8\"",
        Track::Sound.name()
    );
    for Variant { init, bandwidth_bps, frames_per_second } in variants {
        let _ = write!(text, "#EXT-X-STREAM-INF:BANDWIDTH={bandwidth_bps}");
        let _ = write!(text, ",CODECS=\"{},{}\"", init.codec, sound.codec);
        if let Some((width, height)) = init.size {
            let _ = write!(text, ",RESOLUTION={width}x{height}");
        }
        let _ = writeln!(text, ",FRAME-RATE={frames_per_second}.000,AUDIO=\"sound\"");
        let _ = writeln!(text, "{place}{}/index.m3u8", init.track.name());
    }
    text
}

/// Which text of a media playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// Without what a player has already (`_HLS_skip`).
    Delta,
    /// The stream is over.
    Ended,
}

/// A media playlist. `stream` tells this stream's addresses from those of one before it.
pub fn media<'a>(
    stream: &str,
    shelf: &Shelf,
    others: impl IntoIterator<Item = &'a Shelf>,
    extent: Extent,
) -> String {
    let segments: Vec<&Segment> = shelf.listed().collect();
    let mut text = head(&segments, shelf);
    let total: f64 = segments.iter().map(|segment| segment.seconds()).sum();
    let skipped = if extent == Extent::Delta { skippable(&segments, total) } else { 0 };
    if skipped > 0 {
        let _ = writeln!(text, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
    }
    let about_to_grow = usize::from(segments.last().is_some_and(|newest| newest.is_whole));
    let parts_from = (segments.len() + about_to_grow).saturating_sub(PARTS_OF);
    let mut era = None;
    for (index, segment) in segments.iter().enumerate() {
        let is_first = era.is_none();
        if era.replace(segment.era) != Some(segment.era) && index >= skipped {
            if !is_first {
                (0..segment.jumps).for_each(|_| text.push_str("#EXT-X-DISCONTINUITY\n"));
            }
            let _ = writeln!(text, "#EXT-X-MAP:URI=\"{stream}-init-{}.mp4\"", segment.era);
        }
        if index >= skipped {
            let with_parts = index >= parts_from && extent != Extent::Ended;
            write_segment(&mut text, stream, segment, with_parts);
        }
    }
    if extent == Extent::Ended {
        text.push_str("#EXT-X-ENDLIST\n");
        return text;
    }
    let (number, index) = shelf.edge();
    let _ = writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{stream}-{number}-{index}.m4s\"");
    for other in others {
        if let Some((number, index)) = other.newest() {
            let name = other.track.name();
            let _ = writeln!(
                text,
                "#EXT-X-RENDITION-REPORT:URI=\"../{name}/index.m3u8\",LAST-MSN={number},LAST-PART={index}"
            );
        }
    }
    text
}

fn head(segments: &[&Segment], shelf: &Shelf) -> String {
    let part_s = PART_MS as f64 / 1_000.0;
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{TARGET_S}\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={PART_HOLD_BACK_S:.3},\
         HOLD-BACK={HOLD_BACK_S}.0,CAN-SKIP-UNTIL={SKIP_UNTIL_S}.0\n\
         #EXT-X-PART-INF:PART-TARGET={part_s:.3}\n#EXT-X-INDEPENDENT-SEGMENTS\n"
    );
    let number = segments.first().map_or_else(|| shelf.edge().0, |segment| segment.number);
    let era = segments.first().map_or(0, |segment| segment.era);
    let _ = writeln!(text, "#EXT-X-MEDIA-SEQUENCE:{number}\n#EXT-X-DISCONTINUITY-SEQUENCE:{era}");
    text
}

/// How many of the oldest segments a delta leaves out. It repeats no map and no discontinuity that came
/// before, so those in question stay.
fn skippable(segments: &[&Segment], total: f64) -> usize {
    let mut left = total;
    let old = segments.iter().take_while(|segment| {
        left -= segment.seconds();
        segment.is_whole && left >= SKIP_UNTIL_S as f64
    });
    old.count()
}

fn write_segment(text: &mut String, stream: &str, segment: &Segment, with_parts: bool) {
    let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{}", date_time(segment.captured_us()));
    let number = segment.number;
    for (index, stored) in segment.parts.iter().enumerate().filter(|_| with_parts || !segment.is_whole) {
        let _ = write!(text, "#EXT-X-PART:DURATION={:.5}", stored.part.seconds());
        let _ = write!(text, ",URI=\"{stream}-{number}-{index}.m4s\"");
        text.push_str(if stored.part.independent { ",INDEPENDENT=YES\n" } else { "\n" });
    }
    if segment.is_whole {
        let _ = writeln!(text, "#EXTINF:{:.5},\n{stream}-{number}.m4s", segment.seconds());
    }
}

/// ISO 8601, in UTC, to the millisecond.
fn date_time(unix_us: i64) -> String {
    let unix_ms = unix_us.div_euclid(1_000);
    let (days, ms) = (unix_ms.div_euclid(86_400_000), unix_ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, ms) = (ms / 1_000 % 60, ms % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The proleptic Gregorian date of a day since 1970, by counting eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
