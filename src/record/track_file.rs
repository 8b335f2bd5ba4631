//! One track's file: Matroska, as its packets came, playable as far as it was written.
//!
//! A cluster is closed and handed to the system each second. It is on the disk, whatever befalls the machine,
//! after [`SYNC_INTERVAL_US`] more.

use std::path::Path;
use std::sync::Arc;

use ffmpeg_next::Packet;
use ffmpeg_next::codec::packet::Flags;

use super::media::{self, MS, MediaError, Stream, Writing, Written};
use crate::core::depacketize::{Unit, opus_duration_us};
use crate::core::payload::Codec;

/// What of a file may be lost with its machine.
pub const SYNC_INTERVAL_US: i64 = 5_000_000;
/// Clusters of a second; each packet that ends one is handed on.
const OPTIONS: [(&str, &str); 3] =
    [("cluster_time_limit", "1000"), ("flush_packets", "1"), ("avoid_negative_ts", "disabled")];
/// What a picture lasts of which nothing is known, and at most.
const PICTURE_US: i64 = 33_333;
const PICTURE_US_MAX: i64 = 200_000;
/// Times in a file are whole milliseconds.
const TICK_US: i64 = 1_000;

/// The key frame of a file's largest pictures.
pub struct Grown {
    pub codec: Codec,
    pub keyframe: Vec<u8>,
}

/// See the module.
pub struct TrackFile {
    codec: Codec,
    writing: Writing,
    /// From the recording's beginning.
    pub end_us: i64,
    last_us: i64,
    /// The next unit is there at the earliest.
    free_us: i64,
    picture_us: i64,
    synced_us: i64,
    /// What the file says its pictures measure, or the largest since then.
    pixels: u64,
    grown: Option<Grown>,
}

impl TrackFile {
    /// A file that begins with this unit, at `at_us` from the recording's beginning.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(
        path: &Path,
        title: &str,
        codec: Codec,
        unit: &Unit,
        at_us: i64,
    ) -> Result<Self, MediaError> {
        let parameters = media::parameters(codec, &unit.data)?;
        let pixels = media::pixels(&parameters);
        let streams = vec![Stream { parameters, title: Some(title), time_base: MS }];
        let writing = Writing::create(path, "matroska", &OPTIONS, streams, &[])?;
        Ok(Self {
            codec,
            writing,
            end_us: at_us,
            last_us: at_us,
            free_us: at_us,
            picture_us: PICTURE_US,
            synced_us: at_us,
            pixels,
            grown: None,
        })
    }

    /// Writes a unit that was at `at_us`, or as soon after the one before as the file can tell.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, unit: &Unit, at_us: i64) -> Result<(), MediaError> {
        let at_us = at_us.max(self.free_us);
        let length_us = if self.codec.is_video() {
            if at_us > self.last_us {
                self.picture_us = (at_us - self.last_us).min(PICTURE_US_MAX);
            }
            self.picture_us
        } else {
            opus_duration_us(&unit.data).unwrap_or(20_000)
        };
        (self.last_us, self.free_us, self.end_us) = (at_us, at_us + TICK_US, at_us + length_us);
        let mut packet = Packet::copy(&unit.data);
        packet.set_pts(Some(at_us / TICK_US));
        packet.set_dts(Some(at_us / TICK_US));
        packet.set_duration(length_us / TICK_US);
        if unit.keyframe {
            packet.set_flags(Flags::KEY);
        }
        self.writing.write(packet, 0, MS)?;
        if unit.keyframe && self.codec.is_video() {
            self.note_size(&unit.data);
        }
        if at_us - self.synced_us >= SYNC_INTERVAL_US {
            self.synced_us = at_us;
            self.writing.sync()?;
        }
        Ok(())
    }

    /// Pictures of another size may begin with each key frame.
    fn note_size(&mut self, keyframe: &[u8]) {
        let Ok(parameters) = media::parameters(self.codec, keyframe) else { return };
        let pixels = media::pixels(&parameters);
        if pixels > self.pixels {
            self.pixels = pixels;
            self.grown = Some(Grown { codec: self.codec, keyframe: keyframe.to_vec() });
        }
    }

    pub fn take_grown(&mut self) -> Option<Grown> {
        self.grown.take()
    }

    pub fn bytes(&self) -> u64 {
        self.writing.written.bytes()
    }

    /// Outlives it.
    pub fn written(&self) -> Arc<Written> {
        Arc::clone(&self.writing.written)
    }

    /// # Errors
    /// Its length and index cannot be written; what came before can be played.
    pub fn finish(self) -> Result<(), MediaError> {
        self.writing.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_the_beginning_is_there_without_two_of_one_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("voice.mka");
        // Silence of 20 ms.
        let unit = Unit { data: vec![0xfc, 0xff, 0xfe], keyframe: true, rtp_time: 0, captured_us: None };
        let mut file = TrackFile::create(&path, "Ann", Codec::Opus, &unit, 0).unwrap();
        for at_us in [0, 0, 0, 37_400] {
            file.write(&unit, at_us).unwrap();
        }
        file.finish().unwrap();
        let mut input = ffmpeg_next::format::input(&path).unwrap();
        let times: Vec<i64> = input.packets().filter_map(|(_, packet)| packet.pts()).collect();
        let steps: Vec<i64> = times.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(steps, [1, 1, 35]);
    }
}
