//! What a feed reads: packets of the one picture and the one sound in a file or a live stream, with their
//! times in microseconds from its beginning.

use std::fs::File;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::{Id, Parameters};
use ffmpeg_next::format::context::{Input as Context, StreamIo};
use ffmpeg_next::format::stream::Disposition;
use ffmpeg_next::util::mathematics::Rescale as _;
use ffmpeg_next::{Dictionary, Packet, Rational, format, media};

use super::FeedError;
use super::turn::Turn;
use crate::core::feed::FeedFault;
use crate::core::protocol::Kind;

/// Containers that are tried. None of them names other files; playlists and scripts do, and are not here.
const CONTAINERS: &str = "mov,matroska,ogg,mp3,wav,flac,aac,avi,mpegts,flv";
const LIVE_CONTAINERS: &str = "flv";
/// How far a live stream is read to find out what is in it.
const LIVE_PROBED_US: &str = "1000000";
const US: Rational = Rational(1, 1_000_000);
/// Packets in a row that cannot be read: what follows is no better.
const BROKEN_MAX: u32 = 100;

/// One of the streams of an input.
pub struct Track {
    index: usize,
    time_base: Rational,
    pub parameters: Parameters,
    pub frame_rate: Rational,
    pub turn: Turn,
}

/// See the module.
pub struct Input {
    context: Context,
    pub picture: Option<Track>,
    pub sound: Option<Track>,
    /// The first time in it.
    start_us: Option<i64>,
}

/// A packet, and when it is.
pub struct Coded {
    pub kind: Kind,
    pub at_us: i64,
    pub packet: Packet,
}

impl Input {
    pub fn open(file: File, live: bool) -> Result<Self, FeedError> {
        let (io, containers) = if live {
            (StreamIo::from_read(file)?, LIVE_CONTAINERS)
        } else {
            (StreamIo::from_read_seek(file)?, CONTAINERS)
        };
        let mut options = vec![
            ("format_whitelist", containers),
            // What a container names beside itself is not opened.
            ("protocol_whitelist", "none"),
        ];
        if live {
            options.push(("analyzeduration", LIVE_PROBED_US));
        }
        let options: Dictionary = options.into_iter().collect();
        let context =
            format::input_from_stream(io, None, Some(options)).map_err(|_| FeedFault::Unreadable)?;
        let find = |kind| {
            let stream = context.streams().best(kind)?;
            // A picture of the cover is none of the time.
            let is_cover = stream.disposition().contains(Disposition::ATTACHED_PIC);
            (!is_cover && stream.parameters().id() != Id::None).then(|| Track {
                index: stream.index(),
                time_base: stream.time_base(),
                parameters: stream.parameters(),
                frame_rate: stream.avg_frame_rate(),
                turn: Turn::of(&stream),
            })
        };
        let (picture, sound) = (find(media::Type::Video), find(media::Type::Audio));
        if picture.is_none() && sound.is_none() {
            return Err(FeedFault::Empty.into());
        }
        let mut input = Self { context, picture, sound, start_us: None };
        if !live {
            input.start_us = Some(input.begins_us());
        }
        Ok(input)
    }

    /// In microseconds; `None` where the container does not say.
    pub fn duration_us(&self) -> Option<i64> {
        Some(self.context.duration()).filter(|duration| *duration > 0)
    }

    fn begins_us(&self) -> i64 {
        let tracks = [&self.picture, &self.sound].into_iter().flatten();
        let starts = tracks.filter_map(|track| {
            let start = self.context.stream(track.index)?.start_time();
            (start != i64::MIN).then(|| start.rescale(track.time_base, US))
        });
        starts.min().unwrap_or_default()
    }

    /// The next packet of picture or sound; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Coded>, FeedError> {
        let mut broken = 0;
        loop {
            let mut packet = Packet::empty();
            match packet.read(&mut self.context) {
                Ok(()) => {}
                Err(ffmpeg::Error::Eof) => return Ok(None),
                Err(ffmpeg::Error::InvalidData) if broken < BROKEN_MAX => {
                    broken += 1;
                    continue;
                }
                Err(_) => return Err(FeedFault::Unreadable.into()),
            }
            let is_of = |track: &&Track| track.index == packet.stream();
            let (kind, time_base) = match (&self.picture, &self.sound) {
                (Some(track), _) if is_of(&track) => (Kind::Video, track.time_base),
                (_, Some(track)) if is_of(&track) => (Kind::Audio, track.time_base),
                _ => continue,
            };
            let Some(time) = packet.pts().or(packet.dts()) else { continue };
            if packet.data().is_none_or(<[u8]>::is_empty) {
                continue;
            }
            let us = time.rescale(time_base, US);
            let start_us = *self.start_us.get_or_insert(us);
            return Ok(Some(Coded { kind, at_us: us - start_us, packet }));
        }
    }

    /// Goes on at the last key frame before this time.
    pub fn seek(&mut self, to_us: i64) -> Result<(), FeedError> {
        let to_us = to_us + self.start_us.unwrap_or_default();
        self.context.clear_eof();
        let sought = self.context.seek(to_us, ..to_us);
        // Before the first key frame there is only the beginning.
        sought.or_else(|_| self.context.seek(to_us, ..)).map_err(|_| FeedFault::Unreadable.into())
    }
}
