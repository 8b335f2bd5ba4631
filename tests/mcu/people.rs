//! Rooms of people who see and hear each other: layouts, names, tones, losses, and who comes and goes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use antiphon::core::ids::Identity;
use antiphon::core::mix::layout::{Layout, LayoutBox, Seen, arrange};
use antiphon::core::mix::{
    Area, Fit, LINE_H264, LINE_MINUS, LINE_SOUND, LINE_VP8, MixPacket, Place, Scene, Size, Tile, ToMixer,
    Voice,
};
use antiphon::core::payload::Codec;
use antiphon::mcu::mixer::picture::Colour;
use gstreamer as gst;
use gstreamer::prelude::*;

use crate::source::Source;
use crate::stand::{CANVAS, Footprint, News, Stand, Viewer};
use crate::tone::{Listener, Tone};
use crate::{BACKGROUND, COLOURS, at, scene, tile, turn};

/// Whole turns in a tenth of a second.
const TONES_HZ: [f64; 4] = [400.0, 700.0, 1_100.0, 1_700.0];
/// Of the first slot with sound.
const SOUND_SLOT: u16 = 30;

fn voice(number: u16) -> Voice {
    let minus = Some(LINE_MINUS + number as u8);
    Voice { slot: SOUND_SLOT + number, serial: 1, key: u32::from(number), minus }
}

/// Tiles of a layout, as a room has them, and where each one's colour is seen: in its middle, where nothing
/// lies over it.
fn laid_out(layout: &Layout) -> (Vec<Tile>, Vec<(u32, u32, Colour)>) {
    let people: Vec<Identity> = (0..4).map(|n| Identity::parse(&format!("p{n}")).unwrap()).collect();
    let seen: Vec<Seen> =
        people.iter().zip(0..).map(|(identity, n)| Seen { identity, is_screen: n == 2 }).collect();
    let placed = arrange(layout, CANVAS, &seen);
    let tiles = placed.iter().map(|placed| {
        let index = placed.index as u32;
        Tile { area: placed.area, fit: placed.fit, ..tile(index, Some(index as u16), 0) }
    });
    let colours = placed.iter().map(|placed| {
        let Area { x, y, width, height } = placed.area;
        (x + width / 2, y + height / 2, COLOURS[placed.index])
    });
    (tiles.collect(), colours.collect())
}

#[test]
fn every_layout_shows_everyone_in_their_place_in_every_codec() {
    let _turn = turn();
    let mut stand = Stand::new();
    for (slot, codec) in (0..).zip([Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1]) {
        stand.sources.push(Source::new(slot, codec, COLOURS[usize::from(slot)]));
    }
    let one = |x, width, of: Option<&str>, fit| {
        let participant = of.map(|of| Identity::parse(of).unwrap());
        LayoutBox { x, y: 100, width, height: 800, participant, fit }
    };
    let boxes = vec![one(0, 500, Some("p3"), None), one(500, 300, None, Some(Fit::Contain))];
    let layouts = [
        Layout::Grid,
        Layout::Speaker,
        Layout::Presenter,
        Layout::PictureInPicture,
        Layout::Custom { boxes },
    ];
    let mut viewers = [LINE_VP8, LINE_H264].map(|line| Viewer::new(&stand, line, 1));
    for layout in layouts {
        let (tiles, colours) = laid_out(&layout);
        assert!(colours.len() >= 2);
        stand.show(scene(tiles));
        for viewer in &mut viewers {
            stand.say(&ToMixer::Keyframe { line: viewer.line(), encoding: 1 });
            stand.wait_for_colours(viewer, &colours);
        }
    }
}

/// The bright pixels of a name in white on black, cut to what is written.
fn written(name: &str, font_px: u32) -> Vec<Vec<bool>> {
    let text = format!(
        "videotestsrc pattern=black num-buffers=1 ! video/x-raw,format=GRAY8,width=640,height=60 \
         ! videoconvert ! textoverlay text=\"{name}\" font-desc=\"DejaVu Sans {font_px}px\" \
         auto-resize=false draw-shadow=false draw-outline=false valignment=center halignment=center \
         ! videoconvert ! video/x-raw,format=GRAY8 ! appsink name=out sync=false"
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let output: gstreamer_app::AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let sample = output.try_pull_sample(gst::ClockTime::from_seconds(20)).unwrap();
    let bytes = sample.buffer().unwrap().map_readable().unwrap().to_vec();
    pipeline.set_state(gst::State::Null).unwrap();
    cut(bytes.chunks(640).map(|row| row.iter().map(|luma| *luma > 128).collect()).collect())
}

/// Without the empty rows and columns around.
fn cut(rows: Vec<Vec<bool>>) -> Vec<Vec<bool>> {
    let is_used = |row: &Vec<bool>| row.contains(&true);
    let Some(top) = rows.iter().position(is_used) else { return Vec::new() };
    let bottom = rows.iter().rposition(is_used).unwrap();
    let columns = rows[0].len();
    let used: Vec<usize> = (0..columns).filter(|x| rows.iter().any(|row| row[*x])).collect();
    let (left, right) = (used[0], used[used.len() - 1]);
    rows[top..=bottom].iter().map(|row| row[left..=right].to_vec()).collect()
}

/// Share of pixels on which two writings agree, each laid over the other from its upper left.
fn likeness(a: &[Vec<bool>], b: &[Vec<bool>]) -> f64 {
    let pixel = |of: &[Vec<bool>], x: usize, y: usize| {
        of.get(y).and_then(|row| row.get(x)).copied().unwrap_or_default()
    };
    let width = a.iter().chain(b).map(Vec::len).max().unwrap_or_default();
    let all = (0..a.len().max(b.len())).flat_map(|y| (0..width).map(move |x| (x, y)));
    let (mut both, mut either) = (0, 0);
    for (x, y) in all {
        both += u32::from(pixel(a, x, y) && pixel(b, x, y));
        either += u32::from(pixel(a, x, y) || pixel(b, x, y));
    }
    f64::from(both) / f64::from(either.max(1))
}

#[test]
fn each_tile_has_the_name_of_its_owner() {
    let _turn = turn();
    let mut stand = Stand::new();
    let dark = Colour([40, 128, 128]);
    stand.sources.push(Source::new(1, Codec::Vp8, dark));
    let names = ["Ada Lovelace", "Ada Byron", "Grace Hopper", "Zoë"];
    let area = Area { x: 0, y: 0, width: CANVAS.width, height: CANVAS.height };
    // As the mixer chooses it for a tile of this height.
    let writings = names.map(|name| written(name, 20));
    for (right, name) in names.iter().enumerate() {
        let label = (*name).to_owned();
        stand.show(scene(vec![Tile { area, label, ..tile(1, Some(1), 0) }]));
        let mut viewer = Viewer::new(&stand, LINE_VP8, 1);
        stand.say(&ToMixer::Keyframe { line: LINE_VP8, encoding: 1 });
        stand.wait_for(name, |news, _| {
            viewer.take(news);
            let rows = viewer.luma();
            let below = rows.iter().skip(rows.len() * 5 / 6);
            let seen = cut(below.map(|row| row.iter().map(|luma| *luma > 128).collect()).collect());
            let alike = writings.iter().map(|writing| likeness(&seen, writing));
            let alike: Vec<f64> = alike.collect();
            let best = alike.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap().0;
            best == right && alike[right] > 0.7
        });
    }
}

/// Four who are seen and heard, and listeners on all lines.
fn four_speakers(stand: &mut Stand) -> Vec<(Listener, Vec<(f64, bool)>)> {
    for (number, hz) in (0..).zip(TONES_HZ) {
        stand.tones.push(Tone::new(SOUND_SLOT + number, hz));
    }
    let all = (LINE_SOUND, TONES_HZ.map(|hz| (hz, true)).to_vec());
    let others = (0..4_u8).map(|own| {
        let heard = TONES_HZ.iter().zip(0..).map(|(hz, number)| (*hz, number != own));
        (LINE_MINUS + own, heard.collect::<Vec<_>>())
    });
    let lines: Vec<_> = [all].into_iter().chain(others).collect();
    lines.into_iter().map(|(line, heard)| (Listener::new(stand, line), heard)).collect()
}

fn wait_to_hear(stand: &mut Stand, listeners: &mut [(Listener, Vec<(f64, bool)>)], viewer: &mut Viewer) {
    stand.wait_for("everyone heard by all but themselves", |news, _| {
        viewer.take(news);
        let mut took = false;
        for (listener, _) in &mut *listeners {
            took |= listener.take(news).is_some();
        }
        took && listeners.iter().all(|(listener, tones)| listener.hears(tones))
    });
}

#[test]
fn everyone_is_seen_and_heard_by_all_but_themselves_with_a_packet_in_twenty_lost() {
    let _turn = turn();
    let mut stand = Stand::new();
    for (slot, codec) in (0..).zip([Codec::Vp8, Codec::H264]) {
        stand.sources.push(Source::new(slot, codec, COLOURS[usize::from(slot)]));
    }
    let tiles = vec![tile(0, Some(0), 0), tile(1, Some(1), 1)];
    stand.show(Scene { background: BACKGROUND, tiles, voices: (0..4).map(voice).collect() });
    let mut listeners = four_speakers(&mut stand);
    let mut viewer = Viewer::new(&stand, LINE_VP8, 1);
    wait_to_hear(&mut stand, &mut listeners, &mut viewer);
    stand.loss = Some(20);
    // What was lost before this is not in the last second any more.
    let since = Instant::now();
    stand.wait_for("a second of losses", |news, _| {
        viewer.take(news);
        listeners.iter_mut().for_each(|(listener, _)| drop(listener.take(news)));
        since.elapsed() > Duration::from_millis(1_200)
    });
    wait_to_hear(&mut stand, &mut listeners, &mut viewer);
    stand.wait_for_colours(&mut viewer, &[at(0, COLOURS[0]), at(1, COLOURS[1])]);
}

#[test]
fn a_sender_may_change_its_codec_and_its_size() {
    let _turn = turn();
    let mut stand = Stand::new();
    let size = |width, height| Size { width, height };
    stand.sources.push(Source::new(1, Codec::Vp8, COLOURS[0]));
    stand.show(scene(vec![tile(1, Some(1), 0), tile(2, None, 1)]));
    let mut viewer = Viewer::new(&stand, LINE_VP8, 1);
    stand.wait_for_colours(&mut viewer, &[at(0, COLOURS[0])]);
    for (number, codec, size) in [
        (1, Codec::Vp8, size(640, 360)),
        (2, Codec::H264, size(640, 360)),
        (3, Codec::H264, size(176, 144)),
        (0, Codec::Vp9, size(320, 240)),
        (1, Codec::Vp9, size(160, 90)),
        (2, Codec::Av1, size(320, 180)),
        (3, Codec::Vp8, size(180, 320)),
    ] {
        let next = Source::sized(1, codec, COLOURS[number], size).follow(&stand.sources[0]);
        stand.sources = vec![next];
        stand.wait_for_colours(&mut viewer, &[at(0, COLOURS[number])]);
    }
}

/// The place of one of nine.
fn ninth(index: u32) -> Area {
    let (width, height) = ((CANVAS.width / 3) & !1, CANVAS.height / 3);
    Area { x: index % 3 * width, y: index / 3 * height, width, height }
}

/// Stretches of the mix in which somebody comes and goes, at most, and how often in one.
const STRETCHES: usize = 10;
const STRETCH_CHANGES: usize = 14;
/// Of the stand's fifteen pictures a second.
const FRAME_US: i64 = 66_667;
const SOUND_US: i64 = 20_000;

/// What was amiss in a stretch, by the ticks that packets name and by when they came; at most, each.
#[derive(Debug, Default)]
struct Stretch {
    /// Between two pictures, and between two packets of sound.
    picture_gap_us: i64,
    sound_gap_us: i64,
    /// After their ticks, beyond what one takes at best.
    pictures_late_us: i64,
    sounds_late_us: i64,
    ticks_us: BTreeMap<Place, i64>,
    pictures_took_us: Vec<i64>,
    sounds_took_us: Vec<i64>,
}

impl Stretch {
    fn note(&mut self, packet: &MixPacket) {
        let tick_us = packet.captured_us.unwrap();
        // By the wall clock, as ticks are told.
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
        let (gap_us, took_us) = if packet.codec == Codec::Opus {
            (&mut self.sound_gap_us, &mut self.sounds_took_us)
        } else {
            (&mut self.picture_gap_us, &mut self.pictures_took_us)
        };
        if packet.codec == Codec::Opus || packet.marker {
            took_us.push(now_us - tick_us);
        }
        if let Some(before_us) = self.ticks_us.insert(packet.place, tick_us) {
            *gap_us = i64::max(*gap_us, tick_us - before_us);
        }
    }

    fn summed_up(mut self) -> Self {
        let spread = |took_us: Vec<i64>| Some(took_us.iter().max()? - took_us.iter().min()?);
        self.pictures_late_us = spread(std::mem::take(&mut self.pictures_took_us)).unwrap();
        self.sounds_late_us = spread(std::mem::take(&mut self.sounds_took_us)).unwrap();
        self.ticks_us.clear();
        self
    }

    /// No picture late by more than two frames' time, and no gap in the sound: neither a tick left out, nor
    /// one that came after a receiver that waits for two of them has played what it had.
    fn is_smooth(&self) -> bool {
        // Ticks are told by the wall clock, which may be slewed.
        self.picture_gap_us <= 2 * FRAME_US + SOUND_US / 20
            && self.pictures_late_us <= 2 * FRAME_US
            && self.sound_gap_us <= SOUND_US + SOUND_US / 20
            && self.sounds_late_us <= 2 * SOUND_US
    }
}

/// Eight who stay, with the sound of three, and the ninth with theirs who comes and goes, each time into
/// slots that nobody had.
struct Ninth {
    away: Option<(Source, Tone)>,
    comings: u16,
}

impl Ninth {
    /// Slots of the mixer are no more.
    const SLOTS: u16 = 50;
    const SLOT: u16 = 100;

    fn slot(&self) -> u16 {
        Self::SLOT + self.comings % Self::SLOTS
    }

    fn come(&mut self, stand: &mut Stand) {
        self.comings += 1;
        let (source, tone) = self.away.take().unwrap();
        stand.sources.push(source.moved(self.slot()));
        stand.tones.push(tone.moved(Self::SLOTS + self.slot()));
        stand.show(self.scene(9));
    }

    fn go(&mut self, stand: &mut Stand) {
        self.away = stand.sources.pop().zip(stand.tones.pop());
        stand.show(self.scene(8));
    }

    fn scene(&self, count: u32) -> Scene {
        let slot = |n: u32| if n == 8 { self.slot() } else { n as u16 };
        let serial = |n: u32| if n == 8 { u64::from(self.comings) } else { 1 };
        let tiles =
            (0..count).map(|n| Tile { area: ninth(n), serial: serial(n), ..tile(n, Some(slot(n)), 0) });
        let own = Voice { slot: Self::SLOTS + self.slot(), serial: serial(8), ..voice(3) };
        let voices = (0..3).map(voice).chain((count == 9).then_some(own));
        Scene { background: BACKGROUND, tiles: tiles.collect(), voices: voices.collect() }
    }
}

/// Watches the mix while somebody comes or goes every third picture; nobody else's picture may be gone.
fn churn(
    stand: &mut Stand,
    viewer: &mut Viewer,
    ninth: &mut Ninth,
    others: &[(u32, u32, Colour)],
) -> Stretch {
    let mut stretch = Stretch::default();
    for _ in 0..STRETCH_CHANGES {
        let mut pictures = 0;
        stand.wait_for("three pictures", |news, _| {
            let News::Packet(packet) = news else { return false };
            viewer.take(news);
            let is_picture = packet.place == viewer.place;
            if is_picture || packet.codec == Codec::Opus {
                stretch.note(packet);
            }
            if is_picture && packet.marker {
                pictures += 1;
                for (x, y, colour) in others {
                    assert!(viewer.sees(*x, *y, *colour), "the picture at {x}, {y} is gone");
                }
            }
            pictures == 3
        });
        if ninth.away.is_some() { ninth.come(stand) } else { ninth.go(stand) }
    }
    stretch
}

#[test]
fn people_come_and_go_unnoticed_by_the_others() {
    let _turn = turn();
    let mut stand = Stand::new();
    let codec = |n: u16| if n.is_multiple_of(2) { Codec::Vp8 } else { Codec::H264 };
    stand.sources = (0..8).map(|n| Source::new(n, codec(n), COLOURS[usize::from(n) % 4])).collect();
    stand.tones = (0..3).map(|n| Tone::new(SOUND_SLOT + n, TONES_HZ[usize::from(n)])).collect();
    let others: Vec<_> = (0..8)
        .map(|n| {
            let Area { x, y, width, height } = ninth(n);
            (x + width / 2, y + height / 2, COLOURS[n as usize % 4])
        })
        .collect();
    let own = (Source::new(0, Codec::Vp8, COLOURS[0]), Tone::new(0, TONES_HZ[3]));
    let mut ninth = Ninth { away: Some(own), comings: 0 };
    ninth.come(&mut stand);
    let mut viewer = Viewer::new(&stand, LINE_VP8, 1);
    stand.say(&ToMixer::Wanted { line: LINE_SOUND, encodings: 1 });
    stand.wait_for_colours(&mut viewer, &others);
    // What comings and goings do to the others they do in every stretch; a machine that has no time for the
    // mixer has some in one of them.
    let mut rough = Vec::new();
    while rough.len() < STRETCHES {
        let stretch = churn(&mut stand, &mut viewer, &mut ninth, &others).summed_up();
        if stretch.is_smooth() {
            println!("smooth after {} that were not: {stretch:?}", rough.len());
            return;
        }
        rough.push(stretch);
    }
    panic!("never smooth: {rough:?}");
}

#[test]
fn a_hundred_who_come_and_go_leave_nothing_behind() {
    let _turn = turn();
    let mut stand = Stand::new();
    let codecs = [Codec::Vp8, Codec::H264, Codec::Vp9];
    let mut recorded: Vec<Option<Source>> =
        (0..3).map(|n| Some(Source::new(n as u16, codecs[n], COLOURS[n]))).collect();
    let mut viewer = Viewer::new(&stand, LINE_VP8, 1);
    let mut listener = Listener::new(&stand, LINE_SOUND);
    let mut footprints: Vec<Footprint> = Vec::new();
    for cycle in 0..100_u64 {
        let place = cycle as usize % 3;
        let mut source = recorded[place].take().unwrap();
        source.begin_again();
        stand.sources = vec![source];
        stand.tones = vec![Tone::silent(SOUND_SLOT + place as u16)];
        let mut shown = tile(place as u32, Some(place as u16), (cycle % 4) as u32);
        shown.serial = cycle + 1;
        let voices = vec![Voice { serial: cycle + 1, ..voice(place as u16) }];
        stand.show(Scene { background: BACKGROUND, tiles: vec![shown], voices });
        stand.say(&ToMixer::Wanted { line: LINE_MINUS + place as u8, encodings: (cycle % 2) as u32 });
        stand.say(&ToMixer::Wanted { line: LINE_H264, encodings: (cycle % 2) as u32 });
        let seen = [at((cycle % 4) as u32, COLOURS[place])];
        stand.wait_for("who came", |news, _| {
            viewer.take(news);
            listener.take(news);
            seen.iter().all(|(x, y, colour)| viewer.sees(*x, *y, *colour))
        });
        recorded[place] = stand.sources.pop();
        if [39, 99].contains(&cycle) {
            footprints.push(stand.footprint());
        }
    }
    let [before, after] = footprints[..] else { panic!("two of them") };
    // Graphs that are being put away, and memory that the allocator keeps, come and go.
    assert!(after.threads <= before.threads + 8, "{before:?}, then {after:?}");
    assert!(after.files <= before.files + 8, "{before:?}, then {after:?}");
    assert!(after.rss_kb <= before.rss_kb + before.rss_kb / 4, "{before:?}, then {after:?}");
}

#[test]
fn work_and_threads_grow_with_people_and_not_with_their_square() {
    let _turn = turn();
    let mut stand = Stand::new();
    let (mut threads, mut cpu) = (Vec::new(), Vec::new());
    for people in [4_u16, 8, 16] {
        let tones = (0..people).map(|n| Tone::new(SOUND_SLOT + n, 400.0 + 100.0 * f64::from(n)));
        stand.tones = tones.collect();
        stand.show(Scene {
            background: BACKGROUND,
            tiles: Vec::new(),
            voices: (0..people).map(voice).collect(),
        });
        let mut came = std::collections::BTreeSet::new();
        for n in 0..people {
            stand.say(&ToMixer::Wanted { line: LINE_MINUS + n as u8, encodings: 1 });
        }
        // From when all speak each has an encoder of their own.
        let since = Instant::now();
        stand.wait_for("sound for each", |news, _| {
            if let News::Packet(packet) = news {
                came.insert(packet.place);
            }
            came.len() == usize::from(people) && since.elapsed() > Duration::from_secs(1)
        });
        let (since, before) = (Instant::now(), stand.footprint());
        stand.wait_for("a while of that", |_, _| since.elapsed() > Duration::from_secs(2));
        let after = stand.footprint();
        threads.push(after.threads);
        cpu.push((after.cpu - before.cpu).as_secs_f64() / since.elapsed().as_secs_f64());
    }
    let [four, eight, sixteen] = threads[..] else { panic!("{threads:?}") };
    assert!(sixteen - eight <= 2 * (eight - four) + 8, "{threads:?}");
    // With what it takes for nobody: squares would be sixteen times as much.
    assert!(cpu[2] <= 6.0 * cpu[0], "{cpu:?} of a core");
    println!("threads {threads:?}, cores {cpu:.3?}");
}
