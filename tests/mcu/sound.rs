//! Tones as packets of Opus, and how loud a tone is in samples.

use std::f64::consts::TAU;

use antiphon::mcu::graph::{Graph, Stage};
use gstreamer as gst;

/// Of a packet.
pub const FRAMES: usize = 960;
pub const SAMPLES_PER_SECOND: usize = 48_000;
/// A recording: a second, in which every tone turns a whole number of times.
const PACKETS: usize = 50;
pub const AMPLITUDE: f64 = 5_000.0;
const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(20);

/// Opus packets of a second, with a tone in those that `sounds` says; the encoder has had a second to get
/// used to it.
pub fn record(sounds: impl Fn(usize) -> bool, hz: f64) -> Vec<Vec<u8>> {
    let encoder = Graph::start(Stage::EncodeOpus, &[("bitrate_bps", &64_000)]).unwrap();
    let take = |number: usize| {
        let sample = |at: usize| {
            let amplitude = if sounds(number % PACKETS) { AMPLITUDE } else { 0.0 };
            (amplitude * (at as f64 * hz * TAU / SAMPLES_PER_SECOND as f64).sin()) as i16
        };
        let frames = (number * FRAMES..(number + 1) * FRAMES).map(sample);
        let bytes: Vec<u8> = frames.flat_map(|sample| [sample, sample]).flat_map(i16::to_le_bytes).collect();
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let time = gst::ClockTime::from_mseconds(20 * number as u64);
        buffer.get_mut().unwrap().set_pts(time);
        encoder.input.push_buffer(buffer).unwrap();
        let sample = encoder.output.try_pull_sample(TIMEOUT).expect("a packet for a block");
        sample.buffer().unwrap().map_readable().unwrap().to_vec()
    };
    (0..2 * PACKETS).map(take).skip(PACKETS).collect()
}

/// Of a tone that turns a whole number of times (Goertzel).
pub fn amplitude(sound: &[f64], hz: f64) -> f64 {
    let turn = 2.0 * (hz * TAU / SAMPLES_PER_SECOND as f64).cos();
    let (a, b) = sound.iter().fold((0.0, 0.0), |(a, b), sample| (sample + turn * a - b, a));
    2.0 * (a * a + b * b - turn * a * b).max(0.0).sqrt() / sound.len() as f64
}
