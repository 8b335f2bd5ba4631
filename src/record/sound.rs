//! The mix's sound for MP4: Opus in, AAC out, as players and editors that take no Opus in MP4 take that.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::{self, Flags, Id, Parameters};
use ffmpeg_next::format::{Sample, sample};
use ffmpeg_next::frame;
use ffmpeg_next::{ChannelLayout, Packet, Rational};

use super::media::{MediaError, opus_parameters};
use crate::core::payload::AUDIO_CLOCK_RATE;

const RATE: i64 = AUDIO_CLOCK_RATE as i64;
/// In which its packets' times are.
pub const TIME_BASE: Rational = Rational(1, AUDIO_CLOCK_RATE as i32);
const BITRATE_BPS: usize = 128_000;
const CHANNELS: usize = 2;
/// Sound that is farther than this from its time is put right: by silence, or by leaving it out.
const APART_MAX: i64 = RATE / 20;
/// Silence for a sound that was away for longer is not made: its file has a gap.
const SILENCE_MAX: i64 = RATE * 60;

/// See the module.
pub struct Transcoder {
    decoder: codec::decoder::Audio,
    encoder: codec::encoder::audio::Encoder,
    /// Samples that are no whole frame yet, by channel.
    waiting: [Vec<f32>; CHANNELS],
    /// When the first of them is, in samples; none before the first.
    begins: Option<i64>,
    frame_samples: usize,
}

impl Transcoder {
    /// # Errors
    /// FFmpeg lacks a codec.
    pub fn new() -> Result<Self, MediaError> {
        let context = codec::Context::from_parameters(opus_parameters()?)?;
        let decoder = context.decoder().audio()?;
        let aac = codec::encoder::find(Id::AAC).ok_or(MediaError::Lacking("AAC encoder"))?;
        let mut context = codec::Context::new_with_codec(aac);
        context.set_flags(Flags::GLOBAL_HEADER);
        let mut encoder = context.encoder().audio()?;
        encoder.set_rate(AUDIO_CLOCK_RATE as i32);
        encoder.set_channel_layout(ChannelLayout::STEREO);
        encoder.set_format(Sample::F32(sample::Type::Planar));
        encoder.set_bit_rate(BITRATE_BPS);
        encoder.set_time_base(TIME_BASE);
        let encoder = encoder.open_as(aac)?;
        let frame_samples = (encoder.frame_size() as usize).max(1);
        Ok(Self { decoder, encoder, waiting: Default::default(), begins: None, frame_samples })
    }

    pub fn parameters(&self) -> Parameters {
        Parameters::from(&self.encoder)
    }

    /// Takes a packet of Opus that was at `at_us`, and gives what became complete.
    ///
    /// # Errors
    /// The encoder fails. What cannot be decoded is silence.
    pub fn push(&mut self, opus: &[u8], at_us: i64) -> Result<Vec<Packet>, MediaError> {
        let at = at_us.saturating_mul(RATE) / 1_000_000;
        let mut packets = Vec::new();
        self.keep_time(at, &mut packets)?;
        if self.decoder.send_packet(&Packet::copy(opus)).is_err() {
            return Ok(packets);
        }
        let mut frame = frame::Audio::empty();
        while self.decoder.receive_frame(&mut frame).is_ok() {
            self.take(&frame);
        }
        self.encode(&mut packets)?;
        Ok(packets)
    }

    fn keep_time(&mut self, at: i64, packets: &mut Vec<Packet>) -> Result<(), MediaError> {
        let begins = *self.begins.get_or_insert(at);
        let apart = at - (begins + self.waiting[0].len() as i64);
        if apart > SILENCE_MAX {
            self.waiting.iter_mut().for_each(Vec::clear);
            self.begins = Some(at);
        } else if apart > APART_MAX {
            for channel in &mut self.waiting {
                channel.resize(channel.len() + apart as usize, 0.0);
            }
            self.encode(packets)?;
        } else if apart < -APART_MAX {
            let surplus = self.waiting[0].len().min(apart.unsigned_abs() as usize);
            for channel in &mut self.waiting {
                channel.truncate(channel.len() - surplus);
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: &frame::Audio) {
        let channels = usize::from(frame.channels()).max(1);
        for (index, waiting) in self.waiting.iter_mut().enumerate() {
            let channel = index.min(channels - 1);
            match frame.format() {
                Sample::F32(sample::Type::Planar) => waiting.extend(frame.plane::<f32>(channel)),
                Sample::F32(sample::Type::Packed) if channels == CHANNELS => {
                    waiting.extend(frame.plane::<(f32, f32)>(0).iter().map(|s| [s.0, s.1][channel]));
                }
                Sample::I16(sample::Type::Packed) if channels == CHANNELS => {
                    let samples = frame.plane::<(i16, i16)>(0).iter();
                    waiting.extend(samples.map(|s| f32::from([s.0, s.1][channel]) / 32_768.0));
                }
                _ => waiting.resize(waiting.len() + frame.samples(), 0.0),
            }
        }
    }

    fn encode(&mut self, packets: &mut Vec<Packet>) -> Result<(), MediaError> {
        while self.waiting[0].len() >= self.frame_samples {
            let mut frame = frame::Audio::new(
                Sample::F32(sample::Type::Planar),
                self.frame_samples,
                ChannelLayout::STEREO,
            );
            frame.set_rate(AUDIO_CLOCK_RATE);
            frame.set_pts(self.begins);
            for (index, waiting) in self.waiting.iter_mut().enumerate() {
                frame.plane_mut::<f32>(index).copy_from_slice(&waiting[..self.frame_samples]);
                waiting.drain(..self.frame_samples);
            }
            self.begins = self.begins.map(|begins| begins + self.frame_samples as i64);
            self.encoder.send_frame(&frame)?;
            self.collect(packets);
        }
        Ok(())
    }

    fn collect(&mut self, packets: &mut Vec<Packet>) {
        loop {
            let mut packet = Packet::empty();
            if self.encoder.receive_packet(&mut packet).is_err() {
                return;
            }
            packets.push(packet);
        }
    }

    /// What the encoder still holds.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn finish(&mut self) -> Result<Vec<Packet>, MediaError> {
        let mut packets = Vec::new();
        if self.begins.is_some() {
            let lacking = self.frame_samples - self.waiting[0].len() % self.frame_samples;
            for channel in self.waiting.iter_mut().filter(|_| lacking < self.frame_samples) {
                channel.resize(channel.len() + lacking, 0.0);
            }
            self.encode(&mut packets)?;
        }
        match self.encoder.send_eof() {
            Ok(()) | Err(ffmpeg::Error::Eof) => self.collect(&mut packets),
            Err(error) => return Err(error.into()),
        }
        Ok(packets)
    }
}
