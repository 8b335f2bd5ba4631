//! Voices of one tone each, and listeners who tell which tones they hear.

use std::collections::VecDeque;
use std::time::Duration;

use antiphon::core::mix::{MixPacket, Place, ToMixer};
use antiphon::core::payload::Codec;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};

use crate::sound::{AMPLITUDE, FRAMES, SAMPLES_PER_SECOND};
pub use crate::sound::{amplitude, record};
use crate::stand::{News, Stand};

pub const INTERVAL: Duration = Duration::from_millis(20);
const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(20);
/// Sound is judged in tenths of a second.
const TENTH: usize = SAMPLES_PER_SECOND / 10;

/// A sender of one slot.
pub struct Tone {
    slot: u16,
    packets: Vec<Vec<u8>>,
    sent: usize,
}

impl Tone {
    pub fn new(slot: u16, hz: f64) -> Self {
        Self { slot, packets: record(|_| true, hz), sent: 0 }
    }

    /// One whose microphone is on in a quiet room.
    pub fn silent(slot: u16) -> Self {
        Self { slot, packets: vec![vec![0xf8, 0xff, 0xfe]], sent: 0 }
    }

    /// As a sender of another slot, from the beginning.
    pub fn moved(self, slot: u16) -> Self {
        Self { slot, sent: 0, ..self }
    }

    pub fn next(&mut self) -> MixPacket {
        let payload = self.packets[self.sent % self.packets.len()].as_slice().into();
        self.sent += 1;
        MixPacket {
            place: Place::Slot(self.slot),
            codec: Codec::Opus,
            seq_no: 65_500 + self.sent as u64,
            rtp_time: (self.sent as u32).wrapping_mul(FRAMES as u32),
            captured_us: None,
            marker: false,
            payload,
        }
    }
}

/// Decodes a line of sound, each packet at its own time.
pub struct Listener {
    line: u8,
    pipeline: gst::Pipeline,
    input: AppSrc,
    output: AppSink,
    /// The last second, left channel.
    heard: VecDeque<f64>,
}

impl Listener {
    pub fn new(stand: &Stand, line: u8) -> Self {
        stand.say(&ToMixer::Wanted { line, encodings: 1 });
        let text = "appsrc name=in format=time caps=audio/x-opus,channel-mapping-family=0,channels=2,rate=48000 \
                    ! opusdec ! audio/x-raw,format=S16LE,channels=2 ! appsink name=out sync=false";
        let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let input = pipeline.by_name("in").unwrap().downcast().unwrap();
        let output = pipeline.by_name("out").unwrap().downcast().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { line, pipeline, input, output, heard: VecDeque::new() }
    }

    /// Takes a packet of its line. Gives its tick and its samples, left channel.
    pub fn take(&mut self, news: &News) -> Option<(i64, Vec<f64>)> {
        let News::Packet(packet) = news else { return None };
        if packet.place != (Place::Line { line: self.line, encoding: 0 }) {
            return None;
        }
        self.input.push_buffer(gst::Buffer::from_mut_slice(packet.payload.to_vec())).unwrap();
        let sample = self.output.try_pull_sample(TIMEOUT).expect("sound of a packet");
        let bytes = sample.buffer().unwrap().map_readable().unwrap();
        let frames = bytes.chunks_exact(4);
        let left: Vec<f64> =
            frames.map(|frame| f64::from(i16::from_le_bytes([frame[0], frame[1]]))).collect();
        self.heard.extend(&left);
        let old = self.heard.len().saturating_sub(SAMPLES_PER_SECOND);
        self.heard.drain(..old);
        Some((packet.captured_us.expect("the mixer says when its ticks are"), left))
    }

    /// Whether each tone is in the last second, or not, as it is to be. Most of its tenths say so: a machine
    /// that is busy tears some.
    pub fn hears(&self, tones: &[(f64, bool)]) -> bool {
        let sound: Vec<f64> = self.heard.iter().copied().collect();
        let tenths: Vec<&[f64]> = sound.chunks_exact(TENTH).collect();
        let has = |hz: f64, is_heard: bool| {
            let amplitudes = tenths.iter().map(|tenth| amplitude(tenth, hz));
            let fits = amplitudes.filter(|amplitude| match is_heard {
                true => *amplitude > AMPLITUDE / 3.0,
                false => *amplitude < AMPLITUDE / 10.0,
            });
            fits.count() >= 6
        };
        tenths.len() == 10 && tones.iter().all(|(hz, is_heard)| has(*hz, *is_heard))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}
