//! The mixer as a node sees it: the real process, its socket, real bitstreams in and out.
//!
//! Nothing here depends on how fast the machine is, up to [`stand::PATIENCE`].

mod clip;
mod compare;
mod lips;
mod people;
mod sound;
mod source;
mod stand;
mod tone;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use antiphon::core::mix::backdrop::Backdrop;
use antiphon::core::mix::{BackdropPart, Fit, FromMixer, LINE_H264, LINE_VP8, Place, Scene, Tile, ToMixer};
use antiphon::core::payload::{Codec, inspect};
use antiphon::mcu::mixer::painter::avatar_colour;
use antiphon::mcu::mixer::picture::Colour;

use source::Source;
use stand::{CANVAS, News, SMALL, Stand, Viewer, middle, quarter};

const COLOURS: [Colour; 4] =
    [Colour([81, 90, 240]), Colour([145, 54, 34]), Colour([60, 220, 110]), Colour([190, 60, 150])];
const BACKGROUND: u32 = 0x101418;

/// One mixer at a time: each wants a processor of its own.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tile(key: u32, slot: Option<u16>, place: u32) -> Tile {
    let label = String::new();
    let (area, fit, sound) = (quarter(place), Fit::Cover, None);
    Tile { key, slot, serial: 1, sound, area, fit, label, muted: false, speaking: false }
}

fn scene(tiles: Vec<Tile>) -> Scene {
    Scene { background: BACKGROUND, tiles, voices: Vec::new() }
}

fn at(place: u32, colour: Colour) -> (u32, u32, Colour) {
    let (x, y) = middle(place);
    (x, y, colour)
}

#[test]
fn every_codec_is_seen_in_its_place_in_every_encoding() {
    let _turn = turn();
    let mut stand = Stand::new();
    for (slot, codec) in (0..).zip([Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1]) {
        stand.sources.push(Source::new(slot, codec, COLOURS[usize::from(slot)]));
    }
    stand.show(scene((0..4).map(|index| tile(index, Some(index as u16), index)).collect()));
    let colours: Vec<_> = (0..).zip(COLOURS).map(|(place, colour)| at(place, colour)).collect();
    for line in [LINE_VP8, LINE_H264] {
        for (encoding, size) in [(0, SMALL), (1, CANVAS)] {
            let mut viewer = Viewer::new(&stand, line, encoding);
            // One who comes later asks for a key frame, as receivers do.
            stand.say(&ToMixer::Keyframe { line, encoding });
            stand.wait_for_colours(&mut viewer, &colours);
            assert_eq!(viewer.width(), size.width);
        }
    }
}

#[test]
fn a_tile_goes_where_the_scene_says() {
    let _turn = turn();
    let mut stand = Stand::new();
    stand.sources.push(Source::new(5, Codec::Vp8, COLOURS[0]));
    stand.show(scene(vec![tile(1, Some(5), 0)]));
    let mut viewer = Viewer::new(&stand, LINE_VP8, 1);
    let nothing = Colour::from_rgb(BACKGROUND);
    stand.wait_for_colours(&mut viewer, &[at(0, COLOURS[0]), at(3, nothing)]);
    stand.show(scene(vec![tile(1, Some(5), 3)]));
    stand.wait_for_colours(&mut viewer, &[at(0, nothing), at(3, COLOURS[0])]);
}

#[test]
fn who_sends_nothing_has_an_avatar_and_the_others_go_on() {
    let _turn = turn();
    let mut stand = Stand::new();
    stand.sources.push(Source::new(1, Codec::H264, COLOURS[1]));
    let mut silent = tile(2, Some(2), 1);
    silent.label = "Ada Lovelace".into();
    let mut slotless = tile(3, None, 2);
    slotless.label = "Grace".into();
    // Beside the initials.
    let beside = |place, name| {
        let area = quarter(place);
        (area.x + 20, area.y + 20, Colour::from_rgb(avatar_colour(name)))
    };
    let seen = [beside(1, "Ada Lovelace"), beside(2, "Grace"), at(0, COLOURS[1])];
    stand.show(scene(vec![tile(1, Some(1), 0), silent.clone(), slotless.clone()]));
    let mut viewer = Viewer::new(&stand, LINE_VP8, 1);
    stand.wait_for_colours(&mut viewer, &seen);
    // One who stops becomes an avatar; one who begins is seen.
    stand.sources = vec![Source::new(2, Codec::Vp8, COLOURS[2])];
    let mut stopped = tile(1, Some(1), 0);
    stopped.label = "Alan".into();
    stand.show(scene(vec![stopped, silent, slotless]));
    stand.wait_for_colours(&mut viewer, &[beside(0, "Alan"), at(1, COLOURS[2]), beside(2, "Grace")]);
}

#[test]
fn garbage_in_one_slot_harms_no_other() {
    let _turn = turn();
    let mut stand = Stand::new();
    for (slot, codec) in [(0, Codec::Vp8), (1, Codec::H264)] {
        stand.sources.push(Source::new(slot, codec, COLOURS[usize::from(slot)]));
    }
    stand.garbage = Some(0);
    stand.show(scene(vec![tile(0, Some(0), 0), tile(1, Some(1), 1)]));
    let mut viewer = Viewer::new(&stand, LINE_VP8, 1);
    let mut asked = 0;
    stand.wait_for("key frames asked for in vain", |news, _| {
        viewer.take(news);
        asked += u32::from(matches!(news, News::Words(FromMixer::Keyframe { slot: 0 })));
        asked > 5
    });
    stand.wait_for_colours(&mut viewer, &[at(1, COLOURS[1])]);
    stand.garbage = None;
    stand.wait_for_colours(&mut viewer, &[at(0, COLOURS[0]), at(1, COLOURS[1])]);
    stand.garbage = Some(1);
    stand.wait_for_colours(&mut viewer, &[at(0, COLOURS[0])]);
}

#[test]
fn a_picture_lies_behind_the_tiles_and_one_that_is_broken_does_no_harm() {
    let _turn = turn();
    let mut stand = Stand::new();
    let red = Colour([81, 90, 240]);
    stand.show(scene(vec![tile(1, None, 0)]));
    let mut viewer = Viewer::new(&stand, LINE_VP8, 1);
    stand.wait_for_colours(&mut viewer, &[at(3, Colour::from_rgb(BACKGROUND))]);
    for encode in ["pngenc", "jpegenc"] {
        let file = source::still(encode);
        let backdrop = Backdrop::parse(&file).unwrap();
        BackdropPart::of(&backdrop).for_each(|part| stand.say(&ToMixer::Backdrop(part)));
        stand.wait_for_colours(&mut viewer, &[at(3, red)]);
        // Cut off in the middle of its pixels.
        let half = Backdrop::parse(&file[..file.len() / 2]).unwrap();
        BackdropPart::of(&half).for_each(|part| stand.say(&ToMixer::Backdrop(part)));
        stand.say(&ToMixer::NoBackdrop);
        stand.wait_for_colours(&mut viewer, &[at(3, Colour::from_rgb(BACKGROUND))]);
    }
}

#[test]
fn whoever_asks_gets_a_key_frame_soon() {
    let _turn = turn();
    let mut stand = Stand::new();
    stand.show(scene(vec![tile(1, None, 0)]));
    for line in [LINE_VP8, LINE_H264] {
        let place = Place::Line { line, encoding: 1 };
        let is_key = |news: &News| match news {
            News::Packet(packet) if packet.place == place => {
                inspect(packet.codec, &packet.payload, None).keyframe
            }
            _ => false,
        };
        let is_delta = |news: &News| match news {
            News::Packet(packet) => packet.place == place && packet.marker && !is_key(news),
            _ => false,
        };
        stand.say(&ToMixer::Wanted { line, encodings: 0b10 });
        stand.wait_for("the first key frame", |news, _| is_key(news));
        // On a machine that is busy one answer may be late; most are not.
        let mut times = Vec::new();
        for _ in 0..5 {
            let mut deltas = 0;
            stand.wait_for("frames between", |news, _| {
                deltas += u32::from(is_delta(news));
                deltas > 6
            });
            let asked = Instant::now();
            stand.say(&ToMixer::Keyframe { line, encoding: 1 });
            stand.wait_for("a key frame", |news, _| is_key(news));
            times.push(asked.elapsed());
        }
        times.sort();
        assert!(times[0] < Duration::from_millis(500), "line {line}: {times:?}");
    }
}

#[test]
fn the_process_tells_how_it_fares_and_ends_with_its_socket() {
    let _turn = turn();
    let mut stand = Stand::new();
    stand.sources.push(Source::new(1, Codec::Vp8, COLOURS[1]));
    stand.show(scene(vec![tile(1, Some(1), 0)]));
    stand.say(&ToMixer::Wanted { line: LINE_VP8, encodings: 0b10 });
    stand.say(&ToMixer::Bitrate { line: LINE_VP8, encoding: 1, bps: 300_000 });
    stand.wait_for("figures of a mixer at work", |news, _| match news {
        News::Words(FromMixer::Figures(figures)) => {
            figures.frames > 0 && figures.cpu > 0.0 && figures.rss_bytes > 1_000_000
        }
        _ => false,
    });
    stand.say(&ToMixer::Wanted { line: LINE_VP8, encodings: 0 });
    stand.wait_for("figures of a mixer that nobody needs", |news, _| match news {
        News::Words(FromMixer::Figures(figures)) => figures.frames == 0,
        _ => false,
    });
    stand.close();
}
