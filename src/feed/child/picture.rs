//! A feed's pictures: as they came where a room can take them so, and else coded anew as VP8, which every
//! browser decodes.
//!
//! As they came are upright H.264 without pictures that wait for later ones, and VP8. Receivers ask for key
//! frames, which nobody can make of a file that is copied: then it is coded from there on ([`Copier`] says
//! when).

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use ffmpeg_next::codec::{self, Id};
use ffmpeg_next::format::context::{Output, StreamIo};
use ffmpeg_next::format::{self, Pixel};
use ffmpeg_next::software::scaling;
use ffmpeg_next::{Dictionary, Packet, Rational, decoder, encoder, frame, picture};

use super::FeedError;
use super::input::{Coded, Track};
use super::pace::Unit;
use super::turn::Turn;
use crate::core::feed::{FeedFault, FeedSettings, LINE_PICTURE};
use crate::core::packetize::packetize;
use crate::core::payload::Codec;

/// Of one that says nothing, or something strange.
const FRAMES_PER_SECOND: f64 = 30.0;
/// Seconds between key frames that nobody asked for.
const KEY_FRAME_SECONDS: f64 = 10.0;
/// Over which a bitrate is taken.
const RATE_WINDOW_US: i64 = 2_000_000;
/// Frames that may be in an encoder.
const HELD_MAX: usize = 64;

/// Why a picture is not to be copied any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Its pictures are not in the order in which they are shown.
    Reordered,
    TooMuch,
}

/// Pictures as they came.
pub struct Copier {
    codec: Codec,
    /// Gives H.264 its start codes and parameter sets.
    annex_b: Option<AnnexB>,
    bps_max: u64,
    picture_id: u16,
    last_us: Option<i64>,
    /// Begins with a key frame.
    has_begun: bool,
    window: VecDeque<(i64, usize)>,
    window_bytes: usize,
}

impl Copier {
    /// `None` where it has to be coded anew.
    pub fn of(track: &Track, settings: &FeedSettings) -> Result<Option<Self>, FeedError> {
        let codec = match track.parameters.id() {
            Id::H264 => Codec::H264,
            Id::VP8 => Codec::Vp8,
            _ => return Ok(None),
        };
        let video = codec::Context::from_parameters(track.parameters.clone())?.decoder().video()?;
        let is_plain = matches!(video.format(), Pixel::YUV420P | Pixel::YUVJ420P | Pixel::None);
        let bps = track.parameters.bit_rate().max(0) as u64;
        let is_upright = track.turn.is_none();
        if video.has_b_frames() || !is_plain || !is_upright || bps > settings.copied_bps_max {
            return Ok(None);
        }
        let annex_b = if codec == Codec::H264 { Some(AnnexB::open(track)?) } else { None };
        Ok(Some(Self {
            codec,
            annex_b,
            bps_max: settings.copied_bps_max,
            picture_id: 0,
            last_us: None,
            has_begun: false,
            window: VecDeque::new(),
            window_bytes: 0,
        }))
    }

    /// After a seek.
    pub fn restart(&mut self) {
        (self.last_us, self.has_begun) = (None, false);
        self.window.clear();
        self.window_bytes = 0;
    }

    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The unit of a packet; none before the first key frame.
    pub fn take(&mut self, coded: &Coded) -> Result<Result<Option<Unit>, Unfit>, FeedError> {
        let is_key = coded.packet.is_key();
        if !self.has_begun && !is_key {
            return Ok(Ok(None));
        }
        self.has_begun = true;
        if self.last_us.replace(coded.at_us).is_some_and(|last_us| coded.at_us <= last_us) {
            return Ok(Err(Unfit::Reordered));
        }
        let bytes = coded.packet.data().unwrap_or_default();
        if self.is_too_much(coded.at_us, bytes.len()) {
            return Ok(Err(Unfit::TooMuch));
        }
        let payloads = match &mut self.annex_b {
            Some(annex_b) => packetize(self.codec, &annex_b.convert(&coded.packet)?, 0),
            None => packetize(self.codec, bytes, self.picture_id),
        };
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        let (line, codec, at_us) = (LINE_PICTURE, self.codec, coded.at_us);
        let unit = Unit { line, codec, at_us, is_key, payloads };
        Ok(Ok(Some(unit).filter(|unit| !unit.payloads.is_empty())))
    }

    fn is_too_much(&mut self, at_us: i64, bytes: usize) -> bool {
        self.window.push_back((at_us, bytes));
        self.window_bytes += bytes;
        while let Some((_, bytes)) = self.window.front().filter(|(at, _)| at_us - *at > RATE_WINDOW_US) {
            self.window_bytes -= bytes;
            self.window.pop_front();
        }
        let bits_max = self.bps_max * RATE_WINDOW_US as u64 / 1_000_000;
        self.bps_max > 0 && self.window_bytes as u64 * 8 > bits_max
    }
}

/// Turns H.264 of any container into a byte stream (ITU-T H.264 annex B), by FFmpeg's muxer of it.
struct AnnexB {
    output: Output,
    written: Arc<Mutex<Vec<u8>>>,
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AnnexB {
    fn open(track: &Track) -> Result<Self, FeedError> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let io = StreamIo::from_write(Sink(Arc::clone(&written)))?;
        let mut output = format::output_to_stream(io, None, Some("h264"))?;
        let mut stream = output.add_stream(encoder::find(Id::None))?;
        stream.set_parameters(track.parameters.clone());
        // Whatever is written comes out at once.
        output.write_header_with([("flush_packets", "1")].into_iter().collect::<Dictionary>())?;
        Ok(Self { output, written })
    }

    fn convert(&mut self, packet: &Packet) -> Result<Vec<u8>, FeedError> {
        let mut packet = packet.clone();
        packet.set_stream(0);
        packet.set_position(-1);
        packet.write(&mut self.output)?;
        Ok(std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Pictures that are decoded, scaled where they are too large, and coded anew.
pub struct Coder {
    parameters: codec::Parameters,
    rate: Rational,
    turn: Turn,
    settings: FeedSettings,
    decoder: decoder::Video,
    encoding: Option<Encoding>,
    picture_id: u16,
    /// Media times of frames that are in the decoder come with them; of those in the encoder they are here.
    next_due_us: i64,
    key_is_due: bool,
    /// Left out, as they would have come too late.
    pub left_out: u64,
}

struct Encoding {
    encoder: encoder::video::Encoder,
    scaler: Option<scaling::Context>,
    /// Of what it was made for.
    source: (Pixel, u32, u32),
    /// Its own time: one for each frame.
    time: i64,
    held: VecDeque<(i64, i64)>,
}

impl Coder {
    pub fn open(track: &Track, settings: &FeedSettings) -> Result<Self, FeedError> {
        let decoder = open_decoder(&track.parameters)?;
        let told = f64::from(track.frame_rate);
        let most = f64::from(settings.frames_per_second_max);
        let rate = if told.is_finite() && told >= 1.0 { told.min(most) } else { FRAMES_PER_SECOND.min(most) };
        Ok(Self {
            parameters: track.parameters.clone(),
            rate: Rational::new((rate * 1_000.0) as i32, 1_000),
            turn: track.turn,
            settings: *settings,
            decoder,
            encoding: None,
            picture_id: 0,
            next_due_us: i64::MIN,
            key_is_due: false,
            left_out: 0,
        })
    }

    /// After a seek: whatever comes next begins with a key frame.
    pub fn restart(&mut self) -> Result<(), FeedError> {
        self.decoder = open_decoder(&self.parameters)?;
        self.next_due_us = i64::MIN;
        if let Some(encoding) = &mut self.encoding {
            encoding.held.clear();
        }
        self.key_is_due = true;
        Ok(())
    }

    pub fn want_key(&mut self) {
        self.key_is_due = true;
    }

    /// The units of a packet: frames at `from_us` and later, but for those that are too late by the time that
    /// they would be coded, as `is_late` says.
    pub fn take(
        &mut self,
        coded: &Coded,
        from_us: i64,
        is_late: impl Fn(i64) -> bool,
    ) -> Result<Vec<Unit>, FeedError> {
        let mut packet = coded.packet.clone();
        packet.set_pts(Some(coded.at_us));
        packet.set_dts(None);
        // What is broken costs its own picture.
        if self.decoder.send_packet(&packet).is_err() {
            return Ok(Vec::new());
        }
        self.receive(from_us, is_late)
    }

    /// What is left at the end.
    pub fn finish(&mut self, from_us: i64) -> Result<Vec<Unit>, FeedError> {
        self.decoder.send_eof()?;
        let mut units = self.receive(from_us, |_| false)?;
        let encoding = self.encoding.take();
        if let Some(mut encoding) = encoding {
            encoding.encoder.send_eof()?;
            self.drain(&mut encoding, &mut units);
        }
        Ok(units)
    }

    fn receive(&mut self, from_us: i64, is_late: impl Fn(i64) -> bool) -> Result<Vec<Unit>, FeedError> {
        let interval_us = (1e6 / f64::from(self.rate)) as i64;
        let (mut units, mut decoded) = (Vec::new(), frame::Video::empty());
        while self.decoder.receive_frame(&mut decoded).is_ok() {
            let Some(at_us) = decoded.timestamp().or_else(|| decoded.pts()) else { continue };
            // More of them than are to be sent.
            if at_us < from_us || at_us < self.next_due_us.saturating_sub(interval_us / 4) {
                continue;
            }
            if is_late(at_us) {
                self.left_out += 1;
                continue;
            }
            self.next_due_us = self.next_due_us.saturating_add(interval_us).max(at_us + interval_us / 2);
            self.encode(&decoded, at_us, &mut units)?;
        }
        Ok(units)
    }

    fn encode(&mut self, decoded: &frame::Video, at_us: i64, units: &mut Vec<Unit>) -> Result<(), FeedError> {
        let source = (decoded.format(), decoded.width(), decoded.height());
        let mut encoding = match self.encoding.take().filter(|encoding| encoding.source == source) {
            Some(encoding) => encoding,
            None => Encoding::open(decoded, self.rate, self.turn, &self.settings)?,
        };
        let mut scaled = frame::Video::empty();
        let mut picture = match &mut encoding.scaler {
            Some(scaler) => {
                scaler.run(decoded, &mut scaled)?;
                scaled
            }
            None => decoded.clone(),
        };
        if !self.turn.is_none() {
            picture = self.turn.apply(&picture);
        }
        encoding.time += 1;
        if encoding.held.len() >= HELD_MAX {
            encoding.held.pop_front();
        }
        encoding.held.push_back((encoding.time, at_us));
        picture.set_pts(Some(encoding.time));
        let is_key = std::mem::take(&mut self.key_is_due);
        picture.set_kind(if is_key { picture::Type::I } else { picture::Type::None });
        encoding.encoder.send_frame(&picture)?;
        self.drain(&mut encoding, units);
        self.encoding = Some(encoding);
        Ok(())
    }

    fn drain(&mut self, encoding: &mut Encoding, units: &mut Vec<Unit>) {
        let mut packet = Packet::empty();
        while encoding.encoder.receive_packet(&mut packet).is_ok() {
            let time = packet.pts().unwrap_or_default();
            let mut at_us = None;
            while let Some((_, held_us)) = encoding.held.front().filter(|(held, _)| *held <= time) {
                at_us = Some(*held_us);
                encoding.held.pop_front();
            }
            let (Some(at_us), Some(bytes)) = (at_us, packet.data()) else { continue };
            let payloads = packetize(Codec::Vp8, bytes, self.picture_id);
            self.picture_id = (self.picture_id + 1) & 0x7fff;
            let is_key = packet.is_key();
            units.push(Unit { line: LINE_PICTURE, codec: Codec::Vp8, at_us, is_key, payloads });
        }
    }
}

fn open_decoder(parameters: &codec::Parameters) -> Result<decoder::Video, FeedError> {
    let undecodable = |_| FeedFault::Undecodable;
    let context = codec::Context::from_parameters(parameters.clone())?;
    Ok(context.decoder().video().map_err(undecodable)?)
}

impl Encoding {
    fn open(
        decoded: &frame::Video,
        rate: Rational,
        turn: Turn,
        settings: &FeedSettings,
    ) -> Result<Self, FeedError> {
        let source = (decoded.format(), decoded.width(), decoded.height());
        let (width, height) = fitting(source.1, source.2, decoded.aspect_ratio(), turn, settings.height_max);
        // It is turned last, when it has fewer pixels.
        let lying = turn.size((width, height));
        let is_as_it_is = source == (Pixel::YUV420P, lying.0, lying.1);
        let scaler = if is_as_it_is {
            None
        } else {
            let (format, from_width, from_height) = source;
            let flags = scaling::Flags::BILINEAR;
            Some(scaling::Context::get(
                format,
                from_width,
                from_height,
                Pixel::YUV420P,
                lying.0,
                lying.1,
                flags,
            )?)
        };
        let codec = encoder::find_by_name("libvpx").ok_or(FeedFault::NoEncoder)?;
        let mut video = codec::Context::new_with_codec(codec).encoder().video()?;
        video.set_width(width);
        video.set_height(height);
        video.set_format(Pixel::YUV420P);
        video.set_time_base(rate.invert());
        video.set_frame_rate(Some(rate));
        video.set_gop((f64::from(rate) * KEY_FRAME_SECONDS) as u32);
        // A small picture does with less.
        let share = f64::from(width * height) / (f64::from(settings.height_max).powi(2) * 16.0 / 9.0);
        let bitrate_bps = (settings.bitrate_bps as f64 * share.powf(0.75).clamp(0.15, 1.0)) as usize;
        video.set_bit_rate(bitrate_bps);
        let bitrate = bitrate_bps.to_string();
        let options = [
            // A constant bitrate, kept over half a second.
            ("minrate", bitrate.as_str()),
            ("maxrate", &bitrate),
            ("bufsize", &(bitrate_bps / 2).to_string()),
            ("deadline", "realtime"),
            ("cpu-used", "-8"),
            ("lag-in-frames", "0"),
            ("auto-alt-ref", "0"),
            ("threads", "2"),
        ];
        let options = options.into_iter().collect::<Dictionary>();
        let encoder = video.open_as_with(codec, options).map_err(|_| FeedFault::NoEncoder)?;
        Ok(Self { encoder, scaler, source, time: 0, held: VecDeque::new() })
    }
}

/// The size in which a picture is coded: upright, square pixels, even, no higher than this.
fn fitting(width: u32, height: u32, aspect: Rational, turn: Turn, height_max: u32) -> (u32, u32) {
    let aspect = f64::from(aspect);
    let stretch = if aspect.is_finite() && aspect > 0.1 && aspect < 10.0 { aspect } else { 1.0 };
    let (wide, high) = turn.size((f64::from(width) * stretch, f64::from(height)));
    let (width_max, height_max) = (f64::from(height_max) * 16.0 / 9.0, f64::from(height_max));
    let scale = (height_max / high).min(width_max.max(height_max) / wide).min(1.0);
    let even = |length: f64| ((length / 2.0).round() as u32 * 2).max(2);
    (even(wide * scale), even(high * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_keeps_its_shape_and_gets_no_larger() {
        let square = Rational::new(1, 1);
        let fit = |width, height, aspect| fitting(width, height, aspect, Turn::default(), 720);
        assert_eq!(fit(640, 360, square), (640, 360));
        assert_eq!(fit(1_920, 1_080, square), (1_280, 720));
        assert_eq!(fit(3_840, 1_600, square), (1_280, 534));
        assert_eq!(fit(1_080, 1_920, square), (406, 720));
        assert_eq!(fit(720, 576, Rational::new(64, 45)), (1_024, 576));
        assert_eq!(fit(641, 361, Rational::new(0, 1)), (642, 362));
    }
}
