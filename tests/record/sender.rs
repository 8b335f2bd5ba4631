//! Somebody who claps: the picture turns bright and a tone begins at the same moment, once a second. Each of
//! their two streams takes its time to arrive, and loses what it is told to.

use std::time::{Duration, Instant};

use antiphon::core::mix::{MixPacket, Place, Size};
use antiphon::core::payload::Codec;
use antiphon::mcu::mixer::picture::Colour;

use crate::clip::{Recorded, record_colours};
use crate::sound;

pub const SIZE: Size = Size { width: 160, height: 90 };
pub const TONE_HZ: f64 = 1_000.0;
/// In a second, of which the second half is bright and sounds.
pub const PICTURES: u64 = 20;
pub const PACKETS: u64 = 50;
const DARK: Colour = Colour([40, 128, 128]);
const BRIGHT: Colour = Colour([210, 128, 128]);
/// What its clock shows when it begins: not what ours does.
const CLOCK_US: i64 = -77_000_000;
/// 1.5 Mbit/s at this rate of pictures.
const HEAVY_PACKETS: usize = 8;
/// A packet that is lost comes so much later when it is resent.
const RESENT_AFTER: Duration = Duration::from_millis(120);

/// Coded once, sent by many.
pub struct Clip {
    codec: Codec,
    pictures: Vec<Vec<Recorded>>,
    sounds: Vec<Vec<u8>>,
}

impl Clip {
    pub fn new(codec: Codec) -> Self {
        Self::of_size(codec, SIZE)
    }

    pub fn of_size(codec: Codec, size: Size) -> Self {
        let half = PICTURES as usize / 2;
        let colours: Vec<Colour> = [vec![DARK; half], vec![BRIGHT; half]].concat();
        let sounds = sound::record(|number| number >= PACKETS as usize / 2, TONE_HZ);
        Self { codec, pictures: record_colours(codec, &colours, size), sounds }
    }
}

impl Clip {
    /// As many bytes as a camera of 720p sends: each picture is followed by packets that decoders pass over.
    pub fn heavy() -> Self {
        let mut clip = Self::new(Codec::Vp8);
        for picture in &mut clip.pictures {
            picture.iter_mut().for_each(|(_, marker)| *marker = false);
            // A payload descriptor of one byte (RFC 7741 §4.2), then nothing that means anything.
            picture.extend((1..=HEAVY_PACKETS).map(|packet| (vec![0; 1_160], packet == HEAVY_PACKETS)));
        }
        clip
    }
}

/// What becomes of a packet on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Comes,
    /// Comes after it was asked for.
    Resent,
    Lost,
}

/// See the module.
pub struct Sender<'a> {
    clip: &'a Clip,
    pub began: Instant,
    pub picture_serial: u32,
    pub sound_serial: u32,
    picture_takes: Duration,
    sound_takes: Duration,
    fate: Box<dyn FnMut() -> Fate + 'a>,
    pictures_sent: u64,
    packets_sent: u64,
    seq_no: u64,
    /// On their way, with when they arrive.
    underway: Vec<(Instant, MixPacket)>,
    /// The next picture begins the clip again, with its key frame.
    begins_again: bool,
    at: usize,
    /// A better layer, with which this picture comes, too.
    rises: Option<(&'a Clip, u64)>,
    has_risen: bool,
}

/// A layer's first report comes so many pictures after it begins.
const REPORTED_AFTER: u64 = 15;
/// A receiver's slot goes on after another layer's last timestamp: a millisecond of it.
const RISE_TICKS: u64 = 90;

impl<'a> Sender<'a> {
    pub fn new(clip: &'a Clip, serial: u32, picture_takes: Duration, sound_takes: Duration) -> Self {
        Self {
            clip,
            began: Instant::now(),
            picture_serial: serial,
            sound_serial: serial + 1,
            picture_takes,
            sound_takes,
            fate: Box::new(|| Fate::Comes),
            pictures_sent: 0,
            packets_sent: 0,
            seq_no: 100,
            underway: Vec::new(),
            begins_again: false,
            at: 0,
            rises: None,
            has_risen: false,
        }
    }

    /// From this picture on it comes in another layer; this one in both.
    pub fn rising(mut self, layer: &'a Clip, picture: u64) -> Self {
        self.rises = Some((layer, picture));
        self
    }

    pub fn losing(mut self, fate: impl FnMut() -> Fate + 'a) -> Self {
        self.fate = Box::new(fate);
        self
    }

    /// Somebody asked for a key frame: the next picture is one, at the cost of its colour.
    pub fn begin_again(&mut self) {
        self.begins_again = true;
    }

    pub fn pictures_sent(&self) -> u64 {
        self.pictures_sent
    }

    /// What has arrived by now.
    pub fn arrived(&mut self, now: Instant) -> Vec<MixPacket> {
        while now >= self.began + Duration::from_millis(1_000 / PICTURES * self.pictures_sent) {
            self.send_picture();
        }
        while now >= self.began + Duration::from_millis(1_000 / PACKETS * self.packets_sent) {
            self.send_sound();
        }
        let (here, there) = self.underway.drain(..).partition(|(at, _)| *at <= now);
        self.underway = there;
        let mut here: Vec<(Instant, MixPacket)> = here;
        here.sort_by_key(|(at, packet)| (*at, packet.seq_no));
        here.into_iter().map(|(_, packet)| packet).collect()
    }

    fn send_picture(&mut self) {
        if let Some((layer, picture)) = self.rises
            && picture + 1 == self.pictures_sent
            && !self.has_risen
        {
            // The picture before, in the better layer.
            (self.clip, self.has_risen) = (layer, true);
            (self.pictures_sent, self.at) = (picture, picture as usize % self.clip.pictures.len());
            self.begins_again = true;
            return self.send_picture();
        }
        let at = Duration::from_millis(1_000 / PICTURES * self.pictures_sent);
        if std::mem::take(&mut self.begins_again) {
            self.at = 0;
        }
        let risen = self.rises.filter(|_| self.has_risen).map(|(_, picture)| self.pictures_sent - picture);
        let is_reported = risen.is_none_or(|since| since > REPORTED_AFTER);
        for (payload, marker) in self.clip.pictures[self.at].clone() {
            self.seq_no += 1;
            let packet = MixPacket {
                place: Place::Track {
                    slot: 3,
                    serial: self.picture_serial,
                    encoding: risen.is_some().into(),
                },
                codec: self.clip.codec,
                seq_no: self.seq_no,
                rtp_time: (self.pictures_sent * 90_000 / PICTURES + risen.map_or(0, |_| RISE_TICKS)) as u32,
                captured_us: is_reported.then_some(CLOCK_US + at.as_micros() as i64),
                marker,
                payload: payload.into(),
            };
            self.send(packet, self.began + at + self.picture_takes);
        }
        self.at = (self.at + 1) % self.clip.pictures.len();
        self.pictures_sent += 1;
    }

    fn send_sound(&mut self) {
        let at = Duration::from_millis(1_000 / PACKETS * self.packets_sent);
        let packet = MixPacket {
            place: Place::Track { slot: 70, serial: self.sound_serial, encoding: 0 },
            codec: Codec::Opus,
            seq_no: self.packets_sent,
            rtp_time: (self.packets_sent * 48_000 / PACKETS) as u32,
            captured_us: Some(CLOCK_US + at.as_micros() as i64),
            marker: false,
            payload: self.clip.sounds[(self.packets_sent % PACKETS) as usize].as_slice().into(),
        };
        self.packets_sent += 1;
        self.send(packet, self.began + at + self.sound_takes);
    }

    fn send(&mut self, packet: MixPacket, arrives: Instant) {
        match (self.fate)() {
            Fate::Comes => self.underway.push((arrives, packet)),
            Fate::Resent => self.underway.push((arrives + RESENT_AFTER, packet)),
            Fate::Lost => {}
        }
    }
}
