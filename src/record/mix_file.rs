//! The mix's file: one MP4 of H.264 and AAC, in fragments of a second while it is written, so that it can be
//! played as far as it was written. Its end puts it in order: see [`super::finish`].

use std::path::Path;
use std::sync::Arc;

use ffmpeg_next::codec::packet::Flags;
use ffmpeg_next::{Packet, Rational};

use super::media::{self, MediaError, Stream, Writing, Written};
use super::sound::{self, Transcoder};
use super::track_file::SYNC_INTERVAL_US;
use crate::core::depacketize::{Unit, opus_duration_us};
use crate::core::payload::{Codec, VIDEO_CLOCK_RATE};

pub const FILE_NAME: &str = "mix.mp4";
const PICTURE: usize = 0;
const SOUND: usize = 1;
const VIDEO_BASE: Rational = Rational(1, VIDEO_CLOCK_RATE as i32);
const OPTIONS: [(&str, &str); 3] = [
    ("movflags", "frag_keyframe+delay_moov+default_base_moof"),
    ("frag_duration", "1000000"),
    ("flush_packets", "1"),
];
/// Pictures are this far apart at least.
const STEP_TICKS: i64 = 90;
/// What the last picture lasts where there is no other to tell by.
const PICTURE_US: i64 = 1_000_000 / 30;
const PICTURE_US_MAX: i64 = 200_000;

/// See the module.
pub struct MixFile {
    writing: Writing,
    transcoder: Transcoder,
    /// From the recording's beginning.
    pub start_us: i64,
    pub end_us: i64,
    last_ticks: i64,
    /// A picture is written when its length is known: with the next one.
    held: Option<(Unit, i64)>,
    /// What the next picture is taken to last.
    picture_us: i64,
    synced_us: i64,
}

impl MixFile {
    /// A file that begins with this picture, at `at_us` from the recording's beginning.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path, unit: &Unit, at_us: i64) -> Result<Self, MediaError> {
        let transcoder = Transcoder::new()?;
        let picture = media::parameters(Codec::H264, &unit.data)?;
        let streams = vec![
            Stream { parameters: picture, title: None, time_base: VIDEO_BASE },
            Stream { parameters: transcoder.parameters(), title: None, time_base: sound::TIME_BASE },
        ];
        Ok(Self {
            writing: Writing::create(path, "mp4", &OPTIONS, streams, &[])?,
            transcoder,
            start_us: at_us,
            end_us: at_us,
            last_ticks: i64::MIN,
            held: None,
            picture_us: PICTURE_US,
            synced_us: at_us,
        })
    }

    /// Writes a picture that was at `at_us`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_picture(&mut self, unit: Unit, at_us: i64) -> Result<(), MediaError> {
        if let Some((before, before_us)) = self.held.replace((unit, at_us)) {
            let lasted_us = at_us - before_us;
            self.picture_us = lasted_us.min(PICTURE_US_MAX);
            self.write_held(&before, before_us, lasted_us)?;
        }
        self.end_us = self.end_us.max(at_us);
        if at_us - self.synced_us >= SYNC_INTERVAL_US {
            self.synced_us = at_us;
            self.writing.sync()?;
        }
        Ok(())
    }

    /// Where it ends if it is finished so.
    pub fn ends_us(&self, until_us: Option<i64>) -> i64 {
        let pictures_us =
            self.held.as_ref().map(|(_, at_us)| at_us + Self::lasts_us(*at_us, self.picture_us, until_us));
        pictures_us.unwrap_or_default().max(self.end_us)
    }

    fn lasts_us(at_us: i64, picture_us: i64, until_us: Option<i64>) -> i64 {
        let lasts_us = until_us.map(|until_us| until_us - at_us);
        lasts_us.filter(|us| (0..=PICTURE_US_MAX).contains(us)).unwrap_or(picture_us)
    }

    fn write_held(&mut self, unit: &Unit, at_us: i64, length_us: i64) -> Result<(), MediaError> {
        let ticks = |us: i64| us.saturating_mul(VIDEO_CLOCK_RATE.into()) / 1_000_000;
        let at = ticks(at_us).max(self.last_ticks.saturating_add(STEP_TICKS));
        self.last_ticks = at;
        let mut packet = Packet::copy(&unit.data);
        packet.set_pts(Some(at));
        packet.set_dts(Some(at));
        packet.set_duration(ticks(length_us).max(STEP_TICKS));
        if unit.keyframe {
            packet.set_flags(Flags::KEY);
        }
        self.writing.write(packet, PICTURE, VIDEO_BASE)
    }

    /// Writes a packet of sound that was at `at_us`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_sound(&mut self, unit: &Unit, at_us: i64) -> Result<(), MediaError> {
        if at_us < self.start_us {
            return Ok(());
        }
        self.end_us = self.end_us.max(at_us + opus_duration_us(&unit.data).unwrap_or_default());
        let packets = self.transcoder.push(&unit.data, at_us)?;
        self.write_all_sound(packets)
    }

    fn write_all_sound(&mut self, packets: Vec<Packet>) -> Result<(), MediaError> {
        let mut packets = packets.into_iter();
        packets.try_for_each(|packet| self.writing.write(packet, SOUND, sound::TIME_BASE))
    }

    pub fn written(&self) -> Arc<Written> {
        Arc::clone(&self.writing.written)
    }

    /// Ends it. Its last picture is seen until `until_us`, where that is known and not far.
    ///
    /// # Errors
    /// Its end cannot be written; what came before can be played.
    pub fn finish(mut self, until_us: Option<i64>) -> Result<(), MediaError> {
        if let Some((unit, at_us)) = self.held.take() {
            let lasts_us = Self::lasts_us(at_us, self.picture_us, until_us);
            self.write_held(&unit, at_us, lasts_us)?;
        }
        let packets = self.transcoder.finish()?;
        self.write_all_sound(packets)?;
        self.writing.finish()
    }
}
