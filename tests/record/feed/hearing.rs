//! What is heard of a feed's packets, by GStreamer's decoder.

use std::time::Duration;

use antiphon::core::mix::MixPacket;
use antiphon::core::payload::Codec;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};

use super::TONE_HZ;
use crate::sound::{SAMPLES_PER_SECOND, amplitude};

/// The sound of packets, left channel.
pub fn samples<'a>(packets: impl Iterator<Item = &'a (Duration, MixPacket)>) -> Vec<f64> {
    gst::init().unwrap();
    let text = "appsrc name=in format=time caps=audio/x-opus,channel-mapping-family=0,channels=2,rate=48000 \
                ! opusdec ! audio/x-raw,format=S16LE,channels=2 ! appsink name=out sync=false";
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let input: AppSrc = pipeline.by_name("in").unwrap().downcast().unwrap();
    let output: AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut heard = Vec::new();
    for (_, packet) in packets {
        assert_eq!(packet.codec, Codec::Opus);
        input.push_buffer(gst::Buffer::from_mut_slice(packet.payload.to_vec())).unwrap();
        let sample = output.try_pull_sample(gst::ClockTime::from_seconds(20)).expect("sound of a packet");
        let bytes = sample.buffer().unwrap().map_readable().unwrap();
        let left = bytes.chunks_exact(4).map(|frame| f64::from(i16::from_le_bytes([frame[0], frame[1]])));
        heard.extend(left);
    }
    pipeline.set_state(gst::State::Null).unwrap();
    heard
}

/// How much of the sound, in tenths of a second, is the tone.
pub fn tone_share(sound: &[f64]) -> f64 {
    let tenths: Vec<&[f64]> = sound.chunks_exact(SAMPLES_PER_SECOND / 10).collect();
    let is_tone = |tenth: &&&[f64]| {
        let power = tenth.iter().map(|sample| sample * sample).sum::<f64>() / tenth.len() as f64;
        let tone = amplitude(tenth, TONE_HZ);
        // A sine's power is half its amplitude's square: most of what is heard is the tone.
        tone > 500.0 && tone * tone / 2.0 > 0.8 * power
    };
    tenths.iter().filter(is_tone).count() as f64 / tenths.len() as f64
}
