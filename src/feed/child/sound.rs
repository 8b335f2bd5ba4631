//! A feed's sound: Opus as it came, and all else decoded and coded as Opus, 20 ms a packet.

use std::collections::VecDeque;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::{self, Id};
use ffmpeg_next::format::{Sample, sample};
use ffmpeg_next::software::resampling;
use ffmpeg_next::{ChannelLayout, Packet, Rational, decoder, encoder, frame};

use super::FeedError;
use super::input::{Coded, Track};
use super::pace::Unit;
use crate::core::feed::{FeedFault, LINE_SOUND};
use crate::core::payload::{AUDIO_CLOCK_RATE, Codec};

const CHANNELS: usize = 2;
const BITRATE_BPS: usize = 96_000;
/// Of a packet: 20 ms.
const FRAME_SAMPLES: usize = 960;
const FRAME_US: i64 = 20_000;
/// Times of packets are rounded in most containers; what is further off is a gap, or was cut.
const JITTER_US: i64 = 40_000;
/// What is resampled to and coded.
const FORMAT: Sample = Sample::F32(sample::Type::Packed);

/// See the module.
pub enum Sound {
    Copied,
    Coded(Box<Transcoder>),
}

impl Sound {
    pub fn of(track: &Track) -> Result<Self, FeedError> {
        let undecodable = |_| FeedFault::Undecodable;
        let context = codec::Context::from_parameters(track.parameters.clone())?;
        let decoder = context.decoder().audio().map_err(undecodable)?;
        // RTP's Opus has one stream of at most two channels (RFC 7587 §3.1).
        if track.parameters.id() == Id::OPUS && decoder.channels() <= CHANNELS as u16 {
            return Ok(Self::Copied);
        }
        Ok(Self::Coded(Box::new(Transcoder::open(track, decoder)?)))
    }

    pub fn restart(&mut self) -> Result<(), FeedError> {
        match self {
            Self::Copied => Ok(()),
            Self::Coded(transcoder) => transcoder.restart(),
        }
    }

    /// The units of a packet, at `from_us` and later.
    pub fn take(&mut self, coded: &Coded, from_us: i64) -> Result<Vec<Unit>, FeedError> {
        let mut units = match self {
            Self::Copied => {
                let payload = coded.packet.data().unwrap_or_default().to_vec();
                vec![unit(coded.at_us, payload)]
            }
            Self::Coded(transcoder) => transcoder.take(coded)?,
        };
        units.retain(|unit| unit.at_us >= from_us);
        Ok(units)
    }

    pub fn finish(&mut self) -> Result<Vec<Unit>, FeedError> {
        match self {
            Self::Copied => Ok(Vec::new()),
            Self::Coded(transcoder) => transcoder.finish(),
        }
    }
}

fn unit(at_us: i64, payload: Vec<u8>) -> Unit {
    Unit { line: LINE_SOUND, codec: Codec::Opus, at_us, is_key: false, payloads: vec![payload] }
}

/// Decodes, and codes as Opus.
pub struct Transcoder {
    parameters: codec::Parameters,
    decoder: decoder::Audio,
    resampler: Option<Resampler>,
    encoder: encoder::audio::Encoder,
    /// Interleaved samples that are not coded yet, and when the first of them is.
    waiting: VecDeque<f32>,
    at_us: Option<i64>,
    /// When what the encoder holds is.
    held: VecDeque<i64>,
    coded: i64,
}

/// What it was made for, with it.
struct Resampler {
    context: resampling::Context,
    source: (Sample, u16, u32),
}

impl Transcoder {
    fn open(track: &Track, decoder: decoder::Audio) -> Result<Self, FeedError> {
        Ok(Self {
            parameters: track.parameters.clone(),
            decoder,
            resampler: None,
            encoder: open_encoder()?,
            waiting: VecDeque::new(),
            at_us: None,
            held: VecDeque::new(),
            coded: 0,
        })
    }

    fn restart(&mut self) -> Result<(), FeedError> {
        let undecodable = |_| FeedFault::Undecodable;
        let context = codec::Context::from_parameters(self.parameters.clone())?;
        self.decoder = context.decoder().audio().map_err(undecodable)?;
        (self.resampler, self.at_us) = (None, None);
        self.waiting.clear();
        Ok(())
    }

    fn take(&mut self, coded: &Coded) -> Result<Vec<Unit>, FeedError> {
        let mut packet = coded.packet.clone();
        packet.set_pts(Some(coded.at_us));
        packet.set_dts(None);
        // What is broken is silence of its length, by the times of what follows.
        if self.decoder.send_packet(&packet).is_err() {
            return Ok(Vec::new());
        }
        self.receive()
    }

    fn finish(&mut self) -> Result<Vec<Unit>, FeedError> {
        self.decoder.send_eof()?;
        let mut units = self.receive()?;
        let rest = self.waiting.len() % (FRAME_SAMPLES * CHANNELS);
        if rest > 0 {
            self.waiting.resize(self.waiting.len() + FRAME_SAMPLES * CHANNELS - rest, 0.0);
            self.encode(&mut units)?;
        }
        Ok(units)
    }

    fn receive(&mut self) -> Result<Vec<Unit>, FeedError> {
        let (mut units, mut decoded) = (Vec::new(), frame::Audio::empty());
        while self.decoder.receive_frame(&mut decoded).is_ok() {
            let at_us = decoded.timestamp().or_else(|| decoded.pts());
            self.place(at_us);
            self.resample(&mut decoded)?;
            self.encode(&mut units)?;
        }
        Ok(units)
    }

    /// Samples that come now are of this time. Where that does not follow what came before, they are not of
    /// one packet with it.
    fn place(&mut self, told_us: Option<i64>) {
        let Some(at_us) = self.at_us else {
            self.at_us = told_us;
            return;
        };
        let waiting = (self.waiting.len() / CHANNELS) as i64;
        let due_us = at_us + waiting * 1_000_000 / i64::from(AUDIO_CLOCK_RATE);
        if let Some(told_us) = told_us.filter(|told_us| (told_us - due_us).abs() > JITTER_US) {
            self.waiting.clear();
            self.at_us = Some(told_us);
        }
    }

    fn resample(&mut self, decoded: &mut frame::Audio) -> Result<(), FeedError> {
        if decoded.channel_layout().is_empty() {
            decoded.set_channel_layout(ChannelLayout::default(i32::from(decoded.channels())));
        }
        let source = (decoded.format(), decoded.channels(), decoded.rate());
        let mut resampler = match self.resampler.take().filter(|resampler| resampler.source == source) {
            Some(resampler) => resampler,
            None => {
                let (format, _, rate) = source;
                let from = (format, decoded.channel_layout(), rate);
                let to = (FORMAT, ChannelLayout::STEREO, AUDIO_CLOCK_RATE);
                let context = resampling::Context::get(from.0, from.1, from.2, to.0, to.1, to.2)
                    .map_err(|_| FeedFault::Undecodable)?;
                Resampler { context, source }
            }
        };
        // Enough for what comes of it, and for what the resampler still holds.
        let samples = decoded.samples() as u64 * u64::from(AUDIO_CLOCK_RATE);
        let most = samples.div_ceil(u64::from(decoded.rate().max(1))) as usize + FRAME_SAMPLES;
        let mut output = frame::Audio::new(FORMAT, most, ChannelLayout::STEREO);
        output.set_rate(AUDIO_CLOCK_RATE);
        resampler.context.run(decoded, &mut output)?;
        let samples = output.samples() * CHANNELS;
        let bytes = output.data(0);
        let floats = bytes.chunks_exact(4).take(samples);
        self.waiting.extend(floats.map(|float| f32::from_ne_bytes([float[0], float[1], float[2], float[3]])));
        self.resampler = Some(resampler);
        Ok(())
    }

    fn encode(&mut self, units: &mut Vec<Unit>) -> Result<(), FeedError> {
        while self.waiting.len() >= FRAME_SAMPLES * CHANNELS {
            let at_us = self.at_us.unwrap_or_default();
            self.at_us = Some(at_us + FRAME_US);
            let mut input = frame::Audio::new(FORMAT, FRAME_SAMPLES, ChannelLayout::STEREO);
            input.set_rate(AUDIO_CLOCK_RATE);
            input.set_pts(Some(self.coded));
            self.coded += FRAME_SAMPLES as i64;
            let taken = self.waiting.drain(..FRAME_SAMPLES * CHANNELS);
            for (to, from) in input.data_mut(0).chunks_exact_mut(4).zip(taken) {
                to.copy_from_slice(&from.to_ne_bytes());
            }
            self.held.push_back(at_us);
            self.encoder.send_frame(&input)?;
            let mut packet = Packet::empty();
            while self.encoder.receive_packet(&mut packet).is_ok() {
                if let (Some(at_us), Some(bytes)) = (self.held.pop_front(), packet.data()) {
                    units.push(unit(at_us, bytes.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn open_encoder() -> Result<encoder::audio::Encoder, FeedError> {
    let codec = encoder::find_by_name("libopus").ok_or(FeedFault::NoEncoder)?;
    let mut audio = codec::Context::new_with_codec(codec).encoder().audio()?;
    audio.set_rate(AUDIO_CLOCK_RATE as i32);
    audio.set_channel_layout(ChannelLayout::STEREO);
    audio.set_format(FORMAT);
    audio.set_bit_rate(BITRATE_BPS);
    audio.set_time_base(Rational::new(1, AUDIO_CLOCK_RATE as i32));
    audio.open_as(codec).map_err(|_: ffmpeg::Error| FeedFault::NoEncoder.into())
}
