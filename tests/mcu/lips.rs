//! One who claps: the picture changes and the tone begins at the same moment, and does so in the mix, however
//! much later than the other one of the two arrives.

use std::time::{Duration, Instant};

use antiphon::core::mix::{
    Area, LINE_SOUND, LINE_VP8, MixPacket, MixSettings, Place, Rendition, Scene, Size, ToMixer, Voice,
};
use antiphon::core::payload::Codec;
use antiphon::mcu::mixer::picture::Colour;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};

use crate::clip::record_colours;
use crate::stand::{News, PATIENCE, Stand};
use crate::tone::{self, Listener};
use crate::{BACKGROUND, tile, turn};

const SIZE: Size = Size { width: 160, height: 90 };
const PICTURE_SLOT: u16 = 1;
const SOUND_SLOT: u16 = 2;
const TONE_HZ: f64 = 1_000.0;
/// Pictures and packets of sound in a second, of which the second half is bright and sounds.
const PICTURES: u64 = 20;
const PACKETS: u64 = 50;
const MS: i64 = 1_000;
/// What its clock shows when it begins: not what ours does.
const CLOCK_US: i64 = -77_000_000;
const DARK: Colour = Colour([40, 128, 128]);
const BRIGHT: Colour = Colour([210, 128, 128]);
/// Claps that are looked at, and how far apart sound and picture may be in their median.
const CLAPS: usize = 6;
const APART_US_MAX: i64 = 40 * MS;

/// Somebody who claps, each of whose two streams takes its time to arrive.
struct Clapper {
    began: Instant,
    pictures: Vec<Vec<(Vec<u8>, bool)>>,
    sounds: Vec<Vec<u8>>,
    picture_takes: Duration,
    sound_takes: Duration,
    tells_time: bool,
    pictures_sent: u64,
    packets_sent: u64,
    seq_no: u64,
}

impl Clapper {
    fn new(picture_takes: Duration, sound_takes: Duration, tells_time: bool) -> Self {
        let half = PICTURES as usize / 2;
        let colours: Vec<Colour> = [vec![DARK; half], vec![BRIGHT; half]].concat();
        Self {
            began: Instant::now(),
            pictures: record_colours(Codec::Vp8, &colours, SIZE),
            sounds: tone::record(|number| number >= PACKETS as usize / 2, TONE_HZ),
            picture_takes,
            sound_takes,
            tells_time,
            pictures_sent: 0,
            packets_sent: 0,
            seq_no: 0,
        }
    }

    /// Sends what has arrived by now.
    fn send_due(&mut self, stand: &Stand) {
        loop {
            let since = self.began.elapsed();
            let picture_at = Duration::from_millis(1_000 / PICTURES * self.pictures_sent);
            let sound_at = Duration::from_millis(1_000 / PACKETS * self.packets_sent);
            if since >= picture_at + self.picture_takes {
                self.send_picture(stand, picture_at);
            } else if since >= sound_at + self.sound_takes {
                self.send_sound(stand, sound_at);
            } else {
                return;
            }
        }
    }

    fn captured_us(&self, at: Duration) -> Option<i64> {
        self.tells_time.then_some(CLOCK_US + at.as_micros() as i64)
    }

    fn send_picture(&mut self, stand: &Stand, at: Duration) {
        let picture = self.pictures[(self.pictures_sent % PICTURES) as usize].clone();
        for (payload, marker) in picture {
            self.seq_no += 1;
            stand.send(&MixPacket {
                place: Place::Slot(PICTURE_SLOT),
                codec: Codec::Vp8,
                seq_no: self.seq_no,
                rtp_time: (self.pictures_sent * 90_000 / PICTURES) as u32,
                captured_us: self.captured_us(at),
                marker,
                payload: payload.into(),
            });
        }
        self.pictures_sent += 1;
    }

    fn send_sound(&mut self, stand: &Stand, at: Duration) {
        stand.send(&MixPacket {
            place: Place::Slot(SOUND_SLOT),
            codec: Codec::Opus,
            seq_no: self.packets_sent,
            rtp_time: (self.packets_sent * 48_000 / PACKETS) as u32,
            captured_us: self.captured_us(at),
            marker: false,
            payload: self.sounds[(self.packets_sent % PACKETS) as usize].as_slice().into(),
        });
        self.packets_sent += 1;
    }
}

/// Decodes the mixed picture, each frame with the time of its tick.
struct Watcher {
    pipeline: gst::Pipeline,
    input: AppSrc,
    output: AppSink,
    frame: Vec<u8>,
}

impl Watcher {
    fn new() -> Self {
        let text = "appsrc name=in format=time caps=video/x-vp8,framerate=30/1 ! vp8dec ! videoconvert \
                    ! video/x-raw,format=I420 ! appsink name=out sync=false";
        let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let input = pipeline.by_name("in").unwrap().downcast().unwrap();
        let output = pipeline.by_name("out").unwrap().downcast().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, input, output, frame: Vec::new() }
    }

    /// Frames that were decoded: when their ticks were, and whether they are bright.
    fn take(&mut self, news: &News) -> Vec<(i64, bool)> {
        if let News::Packet(packet) = news
            && packet.place == (Place::Line { line: LINE_VP8, encoding: 1 })
        {
            // Without the descriptor of RFC 7741: its four bytes are those that the mixer writes.
            self.frame.extend(&packet.payload[4..]);
            if packet.marker {
                let mut buffer = gst::Buffer::from_mut_slice(std::mem::take(&mut self.frame));
                let time = gst::ClockTime::from_useconds(packet.captured_us.unwrap() as u64);
                buffer.get_mut().unwrap().set_pts(time);
                self.input.push_buffer(buffer).unwrap();
            }
        }
        let mut frames = Vec::new();
        while let Some(sample) = self.output.try_pull_sample(gst::ClockTime::ZERO) {
            let buffer = sample.buffer().unwrap();
            let at_us = buffer.pts().unwrap().useconds() as i64;
            let bytes = buffer.map_readable().unwrap();
            let middle = SIZE.width * SIZE.height / 2 + SIZE.width / 2;
            frames.push((at_us, bytes[middle as usize] > 125));
        }
        frames
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// When something changed, and to what.
#[derive(Default)]
struct Changes {
    is_on: Option<bool>,
    at_us: Vec<i64>,
}

impl Changes {
    fn note(&mut self, at_us: i64, is_on: bool) {
        if self.is_on.replace(is_on).is_some_and(|before| before != is_on) {
            self.at_us.push(at_us);
        }
    }
}

/// How much later sound was than the picture, in the median of the last claps; `None` before there were
/// enough.
fn apart_us(pictures: &Changes, sounds: &Changes) -> Option<i64> {
    let nearest = |at_us: &i64| {
        let apart = sounds.at_us.iter().map(|sound_us| sound_us - at_us);
        apart.min_by_key(|apart_us| apart_us.abs())
    };
    // The last one's sound may be on its way.
    let newest = pictures.at_us.len().checked_sub(1)?;
    let mut apart: Vec<i64> = pictures.at_us[..newest].iter().rev().take(CLAPS).filter_map(nearest).collect();
    apart.sort_unstable();
    (apart.len() == CLAPS).then(|| apart[CLAPS / 2])
}

/// Mixes until `done` says so of how much later the sound is than the picture.
fn clap(mut clapper: Clapper, what: &str, done: impl Fn(i64) -> bool) {
    let rendition = |size, bitrate_bps| Rendition { size, bitrate_bps };
    let renditions = [rendition(Size { width: 80, height: 44 }, 100_000), rendition(SIZE, 300_000)];
    let mut stand =
        Stand::with(MixSettings { canvas: SIZE, frames_per_second: 30, renditions, cores_max: 4 });
    let area = Area { x: 0, y: 0, width: SIZE.width, height: SIZE.height };
    let mut shown = tile(1, Some(PICTURE_SLOT), 0);
    (shown.area, shown.sound) = (area, Some(SOUND_SLOT));
    let voices = vec![Voice { slot: SOUND_SLOT, serial: 1, key: 1, minus: None }];
    stand.show(Scene { background: BACKGROUND, tiles: vec![shown], voices });
    let mut listener = Listener::new(&stand, LINE_SOUND);
    stand.say(&ToMixer::Wanted { line: LINE_VP8, encodings: 0b10 });
    let (mut watcher, mut pictures, mut sounds) = (Watcher::new(), Changes::default(), Changes::default());
    let deadline = Instant::now() + PATIENCE;
    clapper.began = Instant::now();
    stand.wait_max = Duration::from_millis(2);
    let mut apart = None;
    while !apart.is_some_and(&done) {
        assert!(Instant::now() < deadline, "{what}: sound comes {apart:?} µs after its picture");
        clapper.send_due(&stand);
        let news = stand.receive();
        for (at_us, is_bright) in watcher.take(&news) {
            pictures.note(at_us, is_bright);
        }
        if let Some((at_us, samples)) = listener.take(&news) {
            for (number, part) in samples.chunks_exact(240).enumerate() {
                sounds.note(at_us + 5 * MS * number as i64, tone::amplitude(part, TONE_HZ) > 1_500.0);
            }
        }
        apart = apart_us(&pictures, &sounds);
    }
    println!("{what}: sound comes {} ms after its picture", apart.unwrap() / MS);
}

#[test]
fn sound_and_picture_of_a_sender_are_in_step_whichever_arrives_later() {
    let _turn = turn();
    gst::init().unwrap();
    let ms = Duration::from_millis;
    let in_step = |apart_us: i64| apart_us.abs() <= APART_US_MAX;
    clap(Clapper::new(ms(10), ms(130), false), "one who does not tell the time", |apart_us| {
        !in_step(apart_us)
    });
    clap(Clapper::new(ms(10), ms(10), true), "both at once", in_step);
    clap(Clapper::new(ms(10), ms(130), true), "late sound", in_step);
    clap(Clapper::new(ms(150), ms(10), true), "a late picture", in_step);
}
