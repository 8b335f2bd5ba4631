//! The mix's sound for players: Opus packets in, AAC frames out (ISO/IEC 14496-3, AAC-LC).
//!
//! A packet that is missing is silence. Times are in samples.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::Sample;
use ffmpeg_next::format::sample::Type;
use ffmpeg_next::{ChannelLayout, Packet, codec, decoder, encoder, frame};

use super::StreamError;
use crate::core::stream::SOUND_CLOCK_RATE;

/// Both are stereo.
const CHANNELS: usize = 2;
/// Of AAC.
pub const FRAME_SAMPLES: usize = 1_024;
const BITRATE_BPS: usize = 128_000;

/// Encodes frames of [`FRAME_SAMPLES`].
pub struct Encoder {
    encoder: encoder::audio::Encoder,
    parameters: codec::Parameters,
}

impl Encoder {
    /// # Errors
    /// FFmpeg has no AAC encoder.
    pub fn open() -> Result<Self, StreamError> {
        let codec = encoder::find(codec::Id::AAC).ok_or(ffmpeg::Error::EncoderNotFound)?;
        let mut audio = codec::Context::new_with_codec(codec).encoder().audio()?;
        audio.set_rate(SOUND_CLOCK_RATE as i32);
        audio.set_format(Sample::F32(Type::Planar));
        audio.set_channel_layout(ChannelLayout::STEREO);
        audio.set_bit_rate(BITRATE_BPS);
        audio.set_time_base((1, SOUND_CLOCK_RATE as i32));
        let encoder = audio.open()?;
        let parameters = codec::Parameters::from(&encoder.0);
        Ok(Self { encoder, parameters })
    }

    pub fn parameters(&self) -> &codec::Parameters {
        &self.parameters
    }

    /// Encodes a frame of interleaved samples that begins at `at`. Gives frames with their times: the encoder
    /// looks ahead by one.
    ///
    /// # Errors
    /// FFmpeg's own.
    pub fn encode(&mut self, samples: &[f32], at: u64) -> Result<Vec<(i64, Vec<u8>)>, StreamError> {
        let mut input = frame::Audio::new(Sample::F32(Type::Planar), FRAME_SAMPLES, ChannelLayout::STEREO);
        input.set_rate(SOUND_CLOCK_RATE);
        input.set_pts(Some(at as i64));
        for channel in 0..CHANNELS {
            let plane = input.plane_mut::<f32>(channel);
            for (to, from) in plane.iter_mut().zip(samples.iter().skip(channel).step_by(CHANNELS)) {
                *to = *from;
            }
        }
        self.encoder.send_frame(&input)?;
        let mut frames = Vec::new();
        let mut packet = Packet::empty();
        while self.encoder.receive_packet(&mut packet).is_ok() {
            if let (Some(at), Some(bytes)) = (packet.pts(), packet.data()) {
                frames.push((at, bytes.to_vec()));
            }
        }
        Ok(frames)
    }
}

/// Decodes one sender's packets, each by itself in time.
struct Decoder(decoder::Audio);

impl Decoder {
    fn open() -> Result<Self, StreamError> {
        let codec = decoder::find(codec::Id::OPUS).ok_or(ffmpeg::Error::DecoderNotFound)?;
        Ok(Self(codec::Context::new_with_codec(codec).decoder().audio()?))
    }

    /// Interleaved stereo samples.
    fn decode(&mut self, payload: &[u8]) -> Result<Vec<f32>, StreamError> {
        self.0.send_packet(&Packet::copy(payload))?;
        let mut samples = Vec::new();
        let mut output = frame::Audio::empty();
        while self.0.receive_frame(&mut output).is_ok() {
            let count = output.samples();
            match output.format() {
                Sample::F32(Type::Planar) => {
                    let last = output.planes().saturating_sub(1);
                    let (left, right) = (output.plane::<f32>(0), output.plane::<f32>(last.min(1)));
                    samples.extend(left.iter().zip(right).take(count).flat_map(|(l, r)| [*l, *r]));
                }
                _ => return Err(ffmpeg::Error::InvalidData.into()),
            }
        }
        Ok(samples)
    }
}

/// Turns the packets of an era into AAC.
pub struct Transcoder {
    decoder: Decoder,
    pub encoder: Encoder,
    /// Interleaved, not yet encoded.
    waiting: Vec<f32>,
    /// When the first of them is due.
    at: Option<u64>,
}

/// Sound stopped for longer than this, in samples: nothing fills it.
const GAP_MAX: u64 = SOUND_CLOCK_RATE as u64;
/// Packets come at their times, but for rounding.
const JITTER: u64 = 120;

impl Transcoder {
    /// # Errors
    /// FFmpeg lacks a codec.
    pub fn open() -> Result<Self, StreamError> {
        let (decoder, encoder) = (Decoder::open()?, Encoder::open()?);
        Ok(Self { decoder, encoder, waiting: Vec::new(), at: None })
    }

    /// Takes a packet whose sound begins at `at`. Gives AAC frames with their times.
    ///
    /// # Errors
    /// [`StreamError::Gap`] after a long silence, or where time goes back; FFmpeg's own.
    pub fn push(&mut self, payload: &[u8], at: u64) -> Result<Vec<(i64, Vec<u8>)>, StreamError> {
        let samples = self.decoder.decode(payload)?;
        let due = *self.at.get_or_insert(at) + (self.waiting.len() / CHANNELS) as u64;
        if at > due + GAP_MAX || due > at + GAP_MAX {
            return Err(StreamError::Gap);
        }
        if at > due + JITTER {
            self.waiting.resize(self.waiting.len() + (at - due) as usize * CHANNELS, 0.0);
        } else if due > at + JITTER {
            // It came too late: silence stands in its place.
            return Ok(Vec::new());
        }
        self.waiting.extend(samples);
        let mut frames = Vec::new();
        while self.waiting.len() >= FRAME_SAMPLES * CHANNELS {
            let at = self.at.unwrap_or(at);
            let rest = self.waiting.split_off(FRAME_SAMPLES * CHANNELS);
            frames.extend(self.encoder.encode(&self.waiting, at)?);
            self.waiting = rest;
            self.at = Some(at + FRAME_SAMPLES as u64);
        }
        Ok(frames)
    }
}
