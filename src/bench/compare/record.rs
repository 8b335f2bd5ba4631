//! Records the clips: the scene in three encodings of VP8, and somebody's voice and silence in Opus.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};

use super::CompareError;
use super::scene::{Picture, Scene};
use crate::bench::clip::{Clip, Frame, Recorded, SoundClip};
use crate::bench::source::Encoding;

/// A recording cannot make a key frame when somebody asks, so it has them at this distance.
pub const KEY_INTERVAL_FRAMES: u32 = 30;
/// Samples of 20 ms.
const SOUND_SAMPLES: usize = 960;
const SOUND_PACKETS: usize = 250;
/// What is waited for one frame of an encoder.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(20);

/// A pipeline with an `appsrc` called `in` and an `appsink` called `out`, and its ends.
pub struct Line {
    pipeline: gst::Pipeline,
    pub input: AppSrc,
    pub output: AppSink,
}

impl Line {
    /// # Errors
    /// An element is missing, or does not start.
    pub fn start(text: &str) -> Result<Self, CompareError> {
        let wrong = |error: &dyn std::fmt::Display| CompareError::Gstreamer(error.to_string());
        let pipeline = gst::parse::launch(text).map_err(|error| wrong(&error))?;
        let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| wrong(&"no pipeline"))?;
        let input = pipeline.by_name("in").and_then(|end| end.downcast().ok());
        let output = pipeline.by_name("out").and_then(|end| end.downcast().ok());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(wrong(&"a pipeline without ends"));
        };
        pipeline.set_state(gst::State::Playing).map_err(|error| wrong(&error))?;
        Ok(Self { pipeline, input, output })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // One that does not stop has nothing that anyone waits for.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Records `frames` pictures in each of the encodings: 720 lines, 360 and 180, lowest first.
///
/// # Errors
/// GStreamer lacks an element, or an encoder gives up.
pub fn video(encodings: &[Encoding], frames: u32, frames_per_second: u32) -> Result<Clip, CompareError> {
    let lines: Vec<Line> = encodings
        .iter()
        .map(|encoding| Line::start(&encoder(encoding, frames_per_second)))
        .collect::<Result<_, _>>()?;
    let scene = Scene::default();
    let mut recorded: Vec<Recorded> =
        encodings.iter().map(|&encoding| Recorded { encoding, frames: Vec::new() }).collect();
    for number in 0..frames {
        let mut picture = scene.paint(number, frames_per_second);
        for (line, recorded) in lines.iter().zip(&mut recorded).rev() {
            while picture.planes[0].height > usize::from(recorded.encoding.height) {
                picture = picture.halved();
            }
            let time = u64::from(number) * 1_000_000_000 / u64::from(frames_per_second);
            recorded.frames.push(encode(line, &picture, gst::ClockTime::from_nseconds(time))?);
        }
    }
    Ok(Clip { frames_per_second, encodings: recorded })
}

fn encoder(encoding: &Encoding, frames_per_second: u32) -> String {
    let Encoding { width, height, bitrate_bps, .. } = encoding;
    format!(
        "appsrc name=in format=time \
         caps=video/x-raw,format=I420,width={width},height={height},framerate={frames_per_second}/1 \
         ! vp8enc deadline=1 cpu-used=-6 threads=1 end-usage=cbr target-bitrate={bitrate_bps} \
         lag-in-frames=0 keyframe-max-dist={KEY_INTERVAL_FRAMES} buffer-size=1000 buffer-initial-size=500 \
         buffer-optimal-size=600 ! appsink name=out sync=false"
    )
}

/// One picture in, one frame out: without lag an encoder holds none back.
fn encode(line: &Line, picture: &Picture, time: gst::ClockTime) -> Result<Frame, CompareError> {
    let gone = || CompareError::Gstreamer("the encoder gives no frame".into());
    let bytes: Vec<u8> = picture.planes.iter().flat_map(|plane| &plane.bytes).copied().collect();
    push(line, bytes, time)?;
    let sample = line.output.try_pull_sample(PATIENCE).ok_or_else(gone)?;
    let buffer = sample.buffer().ok_or_else(gone)?;
    let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
    let data = buffer.map_readable().map_err(|_| gone())?.to_vec();
    Ok(Frame { key, data })
}

fn push(line: &Line, bytes: Vec<u8>, time: gst::ClockTime) -> Result<(), CompareError> {
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(time);
    }
    let pushed = line.input.push_buffer(buffer);
    pushed.map(|_| ()).map_err(|error| CompareError::Gstreamer(error.to_string()))
}

/// Five seconds of Opus: of a voice, or of an open microphone in a quiet room.
///
/// # Errors
/// GStreamer lacks an element, or the encoder gives up.
pub fn sound(speaks: bool) -> Result<SoundClip, CompareError> {
    let line = Line::start(
        "appsrc name=in format=time caps=audio/x-raw,format=S16LE,layout=interleaved,channels=1,rate=48000 \
         ! opusenc frame-size=20 bitrate=32000 inband-fec=true ! appsink name=out sync=false",
    )?;
    for packet in 0..SOUND_PACKETS {
        let samples = (0..SOUND_SAMPLES).flat_map(|at| sample(packet * SOUND_SAMPLES + at, speaks));
        push(&line, samples.collect(), gst::ClockTime::from_mseconds(packet as u64 * 20))?;
    }
    line.input.end_of_stream().map_err(|error| CompareError::Gstreamer(error.to_string()))?;
    let mut packets = Vec::new();
    while let Some(sample) = line.output.try_pull_sample(PATIENCE) {
        let packet = sample.buffer().and_then(|buffer| Some(buffer.map_readable().ok()?.to_vec()));
        packets.extend(packet);
    }
    if packets.is_empty() {
        return Err(CompareError::Gstreamer("the encoder gives no sound".into()));
    }
    Ok(Arc::from(packets))
}

/// A buzz with overtones that swells four times a second, as syllables do; or faint noise.
fn sample(at: usize, speaks: bool) -> [u8; 2] {
    let seconds = at as f64 / 48_000.0;
    let tone = |hertz: f64| (seconds * hertz * std::f64::consts::TAU).sin();
    let value = if speaks {
        let swell = 0.5 - 0.5 * (seconds * 4.0 * std::f64::consts::TAU).cos();
        swell * (tone(140.0) + 0.6 * tone(280.0) + 0.4 * tone(700.0) + 0.2 * tone(1_400.0)) * 4_000.0
    } else {
        f64::from((at as u32).wrapping_mul(2_654_435_761) >> 28) - 8.0
    };
    (value as i16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::start_gstreamer;
    use super::*;
    use crate::bench::source::simulcast;

    #[test]
    fn a_recording_has_every_frame_with_its_clock_in_every_encoding() {
        start_gstreamer().expect("GStreamer");
        let encodings = &simulcast(1_500_000)[..2];
        let clip = video(encodings, 40, 30).expect("a recording");
        assert_eq!(clip.len(), 40);
        for Recorded { frames, encoding } in &clip.encodings {
            let keys: Vec<usize> = (0..frames.len()).filter(|index| frames[*index].key).collect();
            assert_eq!(keys, [0, KEY_INTERVAL_FRAMES as usize], "{encoding:?}");
        }
        assert!(sound(true).expect("sound").len().abs_diff(SOUND_PACKETS) <= 1);
    }
}
