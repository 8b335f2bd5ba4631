//! Parts of all tracks: pictures as they are, sound as AAC, on one clock.
//!
//! An era is a stretch without a jump, with one clock and one set of parameters. It begins with the first key
//! frame, and all tracks within a moment of it, else it begins anew. A frame waits for the next one, which
//! tells how long it is, and for its part to end.

use std::time::{Duration, Instant};

use ffmpeg_next::codec;

use super::mux::{self, Frame, Written};
use super::sound::{FRAME_SAMPLES, Transcoder};
use super::{Node, StreamError, Take};
use crate::core::mix::MixPacket;
use crate::core::stream::assemble::{self, Assembler, Picture};
use crate::core::stream::cut::{Broken, Cutter, End};
use crate::core::stream::{FromStream, Init, PART_MS, Part, Track};

/// Of a track, beyond the first: then the era begins anew.
const BEGIN_WITHIN_MS: u64 = 1_500;
/// What an era's last frame is taken to last, at most.
const LAST_MS_MAX: u64 = 90;
const ASK_INTERVAL: Duration = Duration::from_millis(300);
/// AAC-LC (RFC 6381, ISO/IEC 14496-3).
const SOUND_CODEC: &str = "mp4a.40.2";

/// Makes parts. See the module.
pub struct Parts<'a> {
    node: &'a Node,
    era: u32,
    /// When this era began, in microseconds since the Unix epoch.
    began_us: Option<i64>,
    pictures: [Pictures; 2],
    sound: Lane,
    transcoder: Option<Transcoder>,
    /// Where the sound's last packet was.
    sound_clock: Option<Clock>,
}

/// A picture's track.
struct Pictures {
    assembler: Assembler,
    clock: Option<Clock>,
    lane: Lane,
    asked: Option<Instant>,
}

/// RTP's time turned into media time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    rtp_time: u32,
    at: u64,
}

impl Clock {
    /// Goes on to a packet's time.
    fn advance(&mut self, rtp_time: u32) -> Result<u64, Broken> {
        let step = rtp_time.wrapping_sub(self.rtp_time) as i32;
        let at = self.at.checked_add_signed(step.into()).ok_or(Broken::Backward)?;
        *self = Self { rtp_time, at };
        Ok(at)
    }
}

/// What one track's parts are made of.
struct Lane {
    track: Track,
    cutter: Cutter,
    pending: Vec<Frame>,
    parameters: Option<codec::Parameters>,
    codec: String,
    size: Option<(u32, u32)>,
    has_told_init: bool,
    begins_segment: bool,
    fragments: u32,
}

impl<'a> Parts<'a> {
    pub fn new(node: &'a Node) -> Self {
        let pictures = [Track::High, Track::Low].map(|track| Pictures {
            assembler: Assembler::default(),
            clock: None,
            lane: Lane::new(track),
            asked: None,
        });
        let sound = Lane::new(Track::Sound);
        Self { node, era: 0, began_us: None, pictures, sound, transcoder: None, sound_clock: None }
    }

    fn take_picture(&mut self, track: Track, packet: &MixPacket) -> Result<(), StreamError> {
        let Some(index) = self.pictures.iter().position(|pictures| pictures.lane.track == track) else {
            return Ok(());
        };
        let pictures = &mut self.pictures[index];
        let Some(picture) = pictures.assembler.push(packet) else {
            if packet.marker && pictures.assembler.is_broken() {
                pictures.ask(self.node)?;
            }
            return Ok(());
        };
        match self.place_picture(index, &picture)? {
            Ok(()) => Ok(()),
            Err(broken) => {
                self.begin_anew(broken)?;
                // It may begin the next era itself.
                self.place_picture(index, &picture)?.or(Ok(()))
            }
        }
    }

    /// Puts a picture into its track.
    fn place_picture(&mut self, index: usize, picture: &Picture) -> Result<Result<(), Broken>, StreamError> {
        let Some(captured_us) = picture.captured_us else { return Ok(Ok(())) };
        let pictures = &mut self.pictures[index];
        let lane = &mut pictures.lane;
        if !lane.cutter.has_begun() && !picture.is_key {
            return pictures.ask(self.node).map(Ok);
        }
        if picture.is_key && !lane.takes(&picture.bytes)? {
            return Ok(Err(Broken::Backward));
        }
        let began_us = *self.began_us.get_or_insert(captured_us);
        let at = match &mut pictures.clock {
            Some(clock) => match clock.advance(picture.rtp_time) {
                Ok(at) => at,
                Err(broken) => return Ok(Err(broken)),
            },
            None => {
                let at = media_time(lane.track, captured_us - began_us).unwrap_or(0);
                pictures.clock = Some(Clock { rtp_time: picture.rtp_time, at });
                at
            }
        };
        let frame = Frame { at, duration: 0, is_key: picture.is_key, bytes: picture.bytes.clone() };
        let placed = lane.place(self.node, self.era, began_us, frame)?;
        if placed.is_ok() && lane.cutter.asks_for_key() {
            self.node.say(&FromStream::Keyframe(lane.track), &[])?;
        }
        Ok(placed.and_then(|()| self.check_tracks(at)))
    }

    fn take_sound(&mut self, packet: &MixPacket) -> Result<(), StreamError> {
        let (Some(began_us), Some(captured_us)) = (self.began_us, packet.captured_us) else { return Ok(()) };
        let at = match &mut self.sound_clock {
            Some(clock) => clock.advance(packet.rtp_time),
            None => {
                let Some(at) = media_time(Track::Sound, captured_us - began_us) else { return Ok(()) };
                self.sound_clock = Some(Clock { rtp_time: packet.rtp_time, at });
                Ok(at)
            }
        };
        let at = match at {
            Ok(at) => at,
            Err(broken) => return self.begin_anew(broken),
        };
        if self.transcoder.is_none() {
            let transcoder = Transcoder::open()?;
            self.sound.parameters = Some(transcoder.encoder.parameters().clone());
            SOUND_CODEC.clone_into(&mut self.sound.codec);
            self.transcoder = Some(transcoder);
        }
        let Some(transcoder) = &mut self.transcoder else { return Ok(()) };
        let frames = match transcoder.push(&packet.payload, at) {
            Ok(frames) => frames,
            Err(StreamError::Gap) => return self.begin_anew(Broken::Gap),
            Err(error) => return Err(error),
        };
        for (at, bytes) in frames {
            // What came before the era's beginning is of nobody.
            let Ok(at) = u64::try_from(at) else { continue };
            let frame = Frame { at, duration: FRAME_SAMPLES as u64, is_key: true, bytes };
            if let Err(broken) = self.sound.place(self.node, self.era, began_us, frame)? {
                return self.begin_anew(broken);
            }
        }
        Ok(())
    }

    /// All tracks have begun by now.
    fn check_tracks(&self, at: u64) -> Result<(), Broken> {
        let lanes = self.pictures.iter().map(|pictures| &pictures.lane).chain([&self.sound]);
        let is_late = at > BEGIN_WITHIN_MS * u64::from(Track::High.timescale()) / 1_000;
        let lacks = lanes.into_iter().any(|lane| !lane.cutter.has_begun());
        if is_late && lacks { Err(Broken::NoKeyframe) } else { Ok(()) }
    }

    fn begin_anew(&mut self, broken: Broken) -> Result<(), StreamError> {
        tracing::info!(era = self.era, reason = %broken, "the stream jumps");
        let began_us = self.began_us.take().unwrap_or_default();
        let (node, era) = (self.node, self.era);
        for pictures in &mut self.pictures {
            pictures.lane.finish(node, era, began_us)?;
            pictures.clock = None;
        }
        self.sound.finish(node, era, began_us)?;
        (self.sound_clock, self.transcoder) = (None, None);
        self.era += 1;
        Ok(())
    }
}

impl Take for Parts<'_> {
    fn take(&mut self, packet: &MixPacket) -> Result<(), StreamError> {
        match Track::of(packet) {
            Some(Track::Sound) => self.take_sound(packet),
            Some(track) => self.take_picture(track, packet),
            None => Ok(()),
        }
    }
}

impl Pictures {
    fn ask(&mut self, node: &Node) -> Result<(), StreamError> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASK_INTERVAL) {
            self.asked = Some(Instant::now());
            node.say(&FromStream::Keyframe(self.lane.track), &[])?;
        }
        Ok(())
    }
}

impl Lane {
    fn new(track: Track) -> Self {
        Self {
            track,
            cutter: Cutter::new(track),
            pending: Vec::new(),
            parameters: None,
            codec: String::new(),
            size: None,
            has_told_init: false,
            begins_segment: true,
            fragments: 0,
        }
    }

    /// Reads the parameters of a key frame. False where they are not those of the era.
    fn takes(&mut self, key_frame: &[u8]) -> Result<bool, StreamError> {
        let Some(codec) = assemble::codec(key_frame) else { return Ok(self.parameters.is_some()) };
        if self.parameters.is_some() {
            return Ok(self.codec == codec);
        }
        let parameters = mux::parameters(key_frame)?;
        let decoder = codec::Context::from_parameters(parameters.clone())?.decoder().video()?;
        self.size = Some((decoder.width(), decoder.height()));
        self.parameters = Some(parameters);
        self.codec = codec;
        Ok(true)
    }

    /// Adds a frame, and tells of the parts that it ends.
    fn place(
        &mut self,
        node: &Node,
        era: u32,
        began_us: i64,
        frame: Frame,
    ) -> Result<Result<(), Broken>, StreamError> {
        let cut = match self.cutter.handle_frame(frame.at, frame.is_key) {
            Ok(cut) => cut,
            Err(broken) => return Ok(Err(broken)),
        };
        let frame = Frame { at: cut.at, ..frame };
        if let (Some(moved), [.., before, last]) = (cut.last, &mut self.pending[..]) {
            before.duration = moved.saturating_sub(before.at);
            last.at = moved;
        }
        if let Some(last) = self.pending.last_mut() {
            last.duration = frame.at.saturating_sub(last.at);
        }
        if cut.before_last
            && let Some(last) = self.pending.pop()
        {
            self.tell(node, era, began_us, false)?;
            self.pending.push(last);
        }
        if let Some(end) = cut.here {
            self.tell(node, era, began_us, end == End::Segment)?;
        }
        self.pending.push(frame);
        Ok(Ok(()))
    }

    /// Ends the era.
    fn finish(&mut self, node: &Node, era: u32, began_us: i64) -> Result<(), StreamError> {
        let ticks = |ms: u64| ms * u64::from(self.track.timescale()) / 1_000;
        let began = self.pending.first().map_or(0, |first| first.at);
        let usual = self.pending.iter().rev().nth(1).map_or(ticks(33), |before| before.duration);
        if let Some(last) = self.pending.last_mut() {
            // Nothing came after it; a part and its segment stay as short as they may be.
            let left = ticks(PART_MS).saturating_sub(last.at - began);
            last.duration = usual.min(ticks(LAST_MS_MAX)).min(left).max(1);
        }
        self.tell(node, era, began_us, true)?;
        *self = Self { fragments: self.fragments, ..Self::new(self.track) };
        Ok(())
    }

    /// Makes a part of what is pending.
    fn tell(&mut self, node: &Node, era: u32, began_us: i64, ends: bool) -> Result<(), StreamError> {
        let frames = std::mem::take(&mut self.pending);
        let (Some(first), Some(parameters)) = (frames.first(), &self.parameters) else { return Ok(()) };
        let timescale = self.track.timescale();
        self.fragments += 1;
        let Written { init, fragment } = mux::fragment(parameters, timescale, self.fragments, &frames)?;
        let track = self.track;
        if !std::mem::replace(&mut self.has_told_init, true) {
            let (codec, size, bytes) = (self.codec.clone(), self.size, init.len() as u32);
            node.say(&FromStream::Init(Init { track, era, codec, size, bytes }), &init)?;
        }
        let duration: u64 = frames.iter().map(|frame| frame.duration).sum();
        let since_us = i64::try_from(first.at * 1_000_000 / u64::from(timescale)).unwrap_or(0);
        let part = Part {
            track,
            era,
            begins: std::mem::replace(&mut self.begins_segment, ends),
            ends,
            independent: first.is_key,
            duration: u32::try_from(duration).unwrap_or(u32::MAX),
            captured_us: began_us + since_us,
            bytes: fragment.len() as u32,
        };
        node.say(&FromStream::Part(part), &fragment)
    }
}

/// Microseconds in ticks of a track; `None` before its beginning.
fn media_time(track: Track, us: i64) -> Option<u64> {
    u64::try_from(us).ok().map(|us| us * u64::from(track.timescale()) / 1_000_000)
}
