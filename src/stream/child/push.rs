//! A publication by RTMP: pictures and sound as FLV, to the node's relay.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::{Dictionary, Packet, Rational, codec, format, packet};

use super::mux;
use super::sound::Transcoder;
use super::{Node, StreamError, Take};
use crate::core::mix::MixPacket;
use crate::core::stream::assemble::{Assembler, Picture};
use crate::core::stream::{FromStream, Push, SEGMENT_MS, SOUND_CLOCK_RATE, Track};

/// Services want a key frame every two to four seconds. One that a stream of segments asked for serves too.
const KEYFRAME_AFTER: Duration = Duration::from_millis(SEGMENT_MS + 200);
const ASK_INTERVAL: Duration = Duration::from_millis(300);
/// FLV counts milliseconds.
const TIMESCALE: i32 = 1_000;
const PICTURE: usize = 0;
const SOUND: usize = 1;

/// Pushes. See the module.
pub struct Pusher<'a> {
    node: &'a Node,
    push: Push,
    assembler: Assembler,
    transcoder: Option<Transcoder>,
    output: Option<Output>,
    last_key: Instant,
    asked: Option<Instant>,
    /// The first sound packet since the publication began: its time in samples and its RTP time.
    sound_clock: Option<(u64, u32)>,
}

/// A publication that goes on.
struct Output {
    context: format::context::Output,
    /// What it counts from, in microseconds since the Unix epoch.
    began_us: i64,
    last_ms: [i64; 2],
}

impl<'a> Pusher<'a> {
    pub fn new(node: &'a Node, push: Push) -> Self {
        let assembler = Assembler::default();
        let (transcoder, output, asked, sound_clock) = (None, None, None, None);
        Self { node, push, assembler, transcoder, output, last_key: Instant::now(), asked, sound_clock }
    }

    fn take_picture(&mut self, packet: &MixPacket) -> Result<(), StreamError> {
        let picture = self.assembler.push(packet);
        let is_due = self.last_key.elapsed() >= KEYFRAME_AFTER || self.assembler.is_broken();
        if is_due || self.output.is_none() {
            self.ask()?;
        }
        let Some((picture, captured_us)) =
            picture.and_then(|picture| Some((picture.clone(), picture.captured_us?)))
        else {
            return Ok(());
        };
        if picture.is_key {
            self.last_key = Instant::now();
            if self.output.is_none() {
                return self.begin(&picture);
            }
        }
        match &mut self.output {
            Some(output) => output.write(PICTURE, captured_us, picture.is_key, &picture.bytes),
            None => Ok(()),
        }
    }

    fn ask(&mut self) -> Result<(), StreamError> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASK_INTERVAL) {
            self.asked = Some(Instant::now());
            self.node.say(&FromStream::Keyframe(Track::High), &[])?;
        }
        Ok(())
    }

    /// Opens the publication. Its first frames are such as are captured from then on: those that waited
    /// meanwhile are late.
    fn begin(&mut self, key_frame: &Picture) -> Result<(), StreamError> {
        let transcoder = Transcoder::open()?;
        let Push { port, tc_url, app, play_path } = &self.push;
        let options = [
            ("rtmp_tcurl", tc_url.as_str()),
            ("rtmp_app", app),
            ("rtmp_playpath", play_path),
            ("rtmp_live", "live"),
            ("flvflags", "no_duration_filesize"),
        ];
        let url = format!("rtmp://127.0.0.1:{port}/");
        let mut context = format::output_as_with(&url, "flv", options.iter().collect())?;
        let pictures = mux::parameters(&key_frame.bytes)?;
        for parameters in [&pictures, transcoder.encoder.parameters()] {
            let mut stream = context.add_stream(codec::Id::None)?;
            stream.set_parameters(parameters.clone());
            stream.set_time_base(Rational::new(1, TIMESCALE));
        }
        context.write_header_with([("flvflags", "no_duration_filesize")].iter().collect::<Dictionary>())?;
        self.node.say(&FromStream::Pushing, &[])?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(std::io::Error::other)?;
        self.output = Some(Output { context, began_us: now.as_micros() as i64, last_ms: [-1; 2] });
        self.transcoder = Some(transcoder);
        self.sound_clock = None;
        Ok(())
    }

    fn take_sound(&mut self, packet: &MixPacket) -> Result<(), StreamError> {
        let (Some(output), Some(transcoder)) = (&mut self.output, &mut self.transcoder) else {
            return Ok(());
        };
        let Some(captured_us) = packet.captured_us else { return Ok(()) };
        let Ok(since_us) = u64::try_from(captured_us - output.began_us) else { return Ok(()) };
        let samples = since_us * u64::from(SOUND_CLOCK_RATE) / 1_000_000;
        let (at, rtp_time) = *self.sound_clock.get_or_insert((samples, packet.rtp_time));
        let at = at + u64::from(packet.rtp_time.wrapping_sub(rtp_time));
        for (at, bytes) in transcoder.push(&packet.payload, at)? {
            let since_us = at * 1_000_000 / i64::from(SOUND_CLOCK_RATE);
            output.write(SOUND, output.began_us + since_us, true, &bytes)?;
        }
        Ok(())
    }
}

impl Take for Pusher<'_> {
    fn take(&mut self, packet: &MixPacket) -> Result<(), StreamError> {
        match Track::of(packet) {
            Some(Track::High) => self.take_picture(packet),
            Some(Track::Sound) => self.take_sound(packet),
            Some(Track::Low) | None => Ok(()),
        }
    }
}

impl Output {
    fn write(
        &mut self,
        stream: usize,
        captured_us: i64,
        is_key: bool,
        bytes: &[u8],
    ) -> Result<(), StreamError> {
        let at = (captured_us - self.began_us).div_euclid(1_000);
        let last = &mut self.last_ms[stream];
        // Pictures begin with a key frame, and time goes on in each.
        if at <= *last || *last < 0 && !is_key {
            return Ok(());
        }
        *last = at;
        let mut packet = Packet::copy(bytes);
        packet.set_stream(stream);
        packet.set_pts(Some(at));
        packet.set_dts(Some(at));
        packet.set_flags(if is_key { packet::Flags::KEY } else { packet::Flags::empty() });
        packet.write_interleaved(&mut self.context).map_err(|error: ffmpeg::Error| error.into())
    }
}
