//! FFmpeg's part: what a codec's stream is described by, and files that streams are written to.
//!
//! Bytes go through a writer of our own ([`Sink`]), so that it is known how many there are and when they are
//! on the disk, and why one could not be written.

use std::fs::File;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::{self, Id, Parameters};
use ffmpeg_next::format::context::{Input, Output, StreamIo};
use ffmpeg_next::format::{self, sample};
use ffmpeg_next::{ChannelLayout, Dictionary, Packet, Rational};

use super::track_file::Grown;
use crate::core::payload::{AUDIO_CLOCK_RATE, Codec};
use crate::core::recording::EndReason;

/// Opus decoders here are made for it, whatever a packet holds (RFC 7587 §4.2).
const OPUS_BITRATE_BPS: usize = 64_000;
/// Of an IVF file and of a frame in it.
const IVF_HEAD_BYTES: u16 = 32;
/// Milliseconds: what containers count in here.
pub const MS: Rational = Rational(1, 1_000);

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error("FFmpeg: {0}")]
    Ffmpeg(#[from] ffmpeg::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("FFmpeg lacks its {0}")]
    Lacking(&'static str),
    #[error("the first picture says nothing of its stream")]
    Undescribed,
}

impl MediaError {
    /// It is the stream's own fault, such as a picture that is none: others can be written.
    pub fn is_of_stream(&self) -> bool {
        matches!(self, Self::Ffmpeg(_) | Self::Undescribed)
    }

    /// What becomes of a recording that cannot be written.
    pub fn ends(&self) -> EndReason {
        let code = match self {
            Self::Io(error) => error.raw_os_error(),
            Self::Ffmpeg(ffmpeg::Error::Other { errno }) => Some(*errno),
            _ => None,
        };
        let full = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT].map(|errno| errno.raw_os_error());
        if code.is_some_and(|code| full.contains(&code)) { EndReason::DiskFull } else { EndReason::Failed }
    }
}

/// FFmpeg, made ready; it writes nothing to a terminal.
///
/// # Errors
/// It does not start.
pub fn start() -> Result<(), MediaError> {
    ffmpeg::init()?;
    ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
    Ok(())
}

/// Describes a stream that begins with this unit, a key frame.
///
/// # Errors
/// FFmpeg makes nothing of it.
pub fn parameters(codec: Codec, unit: &[u8]) -> Result<Parameters, MediaError> {
    let (name, file) = match codec {
        Codec::Opus | Codec::Red => return opus_parameters(),
        Codec::H264 => ("begin.h264", unit.to_vec()),
        Codec::Vp8 => ("begin.ivf", ivf(*b"VP80", unit)),
        Codec::Vp9 => ("begin.ivf", ivf(*b"VP90", unit)),
        Codec::Av1 => ("begin.ivf", ivf(*b"AV01", unit)),
    };
    // FFmpeg reads it out of the picture itself, as its bindings have no other safe way to say it.
    let input = format::input_from_stream(StreamIo::from_read_seek(Cursor::new(file))?, Some(name), None)?;
    let stream = input.streams().next().ok_or(MediaError::Undescribed)?;
    let parameters = stream.parameters();
    let fits = match codec {
        Codec::H264 => Id::H264,
        Codec::Vp8 => Id::VP8,
        Codec::Vp9 => Id::VP9,
        Codec::Av1 => Id::AV1,
        Codec::Opus | Codec::Red => Id::OPUS,
    };
    if parameters.id() == fits { Ok(parameters.clone()) } else { Err(MediaError::Undescribed) }
}

/// How many a picture of a stream has; 0 where that is not known.
pub fn pixels(parameters: &Parameters) -> u64 {
    let decoder = codec::Context::from_parameters(parameters.clone()).and_then(|c| c.decoder().video());
    decoder.map_or(0, |decoder| u64::from(decoder.width()) * u64::from(decoder.height()))
}

/// Those that an encoder of it would have: stereo, as every decoder makes of it.
///
/// # Errors
/// FFmpeg was built without libopus.
pub fn opus_parameters() -> Result<Parameters, MediaError> {
    let lacking = || MediaError::Lacking("libopus encoder");
    let encoder = codec::encoder::find_by_name("libopus").ok_or_else(lacking)?;
    let mut context = codec::Context::new_with_codec(encoder).encoder().audio()?;
    context.set_rate(AUDIO_CLOCK_RATE as i32);
    context.set_channel_layout(ChannelLayout::STEREO);
    context.set_format(format::Sample::F32(sample::Type::Packed));
    context.set_bit_rate(OPUS_BITRATE_BPS);
    context.set_time_base(Rational(1, AUDIO_CLOCK_RATE as i32));
    Ok(Parameters::from(&context.open_as(encoder)?))
}

/// A file with one frame. Its size is left for the frame itself to say.
fn ivf(fourcc: [u8; 4], frame: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(frame.len() + 44);
    file.extend(b"DKIF\0\0");
    file.extend(IVF_HEAD_BYTES.to_le_bytes());
    file.extend(fourcc);
    file.extend([0; 4]);
    for number in [30_u32, 1, 1, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend((frame.len() as u32).to_le_bytes());
    file.extend([0; 8]);
    file.extend(frame);
    file
}

/// What is known of a file from outside the muxer that writes it.
#[derive(Debug, Default)]
pub struct Written {
    /// Its size.
    pub bytes: AtomicU64,
    /// The last error, as the system numbers them; 0 is none.
    errno: AtomicI32,
}

impl Written {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn error(&self) -> Option<io::Error> {
        Some(self.errno.load(Ordering::Relaxed)).filter(|errno| *errno != 0).map(io::Error::from_raw_os_error)
    }
}

/// A file, counted.
struct Sink {
    file: File,
    at: u64,
    written: Arc<Written>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.file.write(bytes);
        match &result {
            Ok(count) => {
                self.at += *count as u64;
                self.written.bytes.fetch_max(self.at, Ordering::Relaxed);
            }
            Err(error) => {
                self.written.errno.store(error.raw_os_error().unwrap_or(-1), Ordering::Relaxed);
            }
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sink {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

/// A file that streams are written to, and that can be played as far as it was written.
pub struct Writing {
    output: Output,
    file: File,
    pub written: Arc<Written>,
}

/// A stream of a file that is to be written.
pub struct Stream<'a> {
    pub parameters: Parameters,
    pub title: Option<&'a str>,
    /// In which its times are given.
    pub time_base: Rational,
}

impl Writing {
    /// # Errors
    /// The file cannot be made, or its container does not take a stream.
    pub fn create(
        path: &Path,
        container: &str,
        options: &[(&str, &str)],
        streams: Vec<Stream<'_>>,
        chapters: &[(i64, i64, &str)],
    ) -> Result<Self, MediaError> {
        let file = File::create(path)?;
        let written = Arc::new(Written::default());
        let sink = Sink { file: file.try_clone()?, at: 0, written: Arc::clone(&written) };
        let io = StreamIo::from_write_seek(sink)?;
        let mut output = format::output_to_stream(io, None, Some(container))?;
        for Stream { parameters, title, time_base } in streams {
            let mut stream = output.add_stream(codec::encoder::find(Id::None))?;
            stream.set_parameters(parameters);
            stream.set_time_base(time_base);
            if let Some(title) = title {
                stream.set_metadata(dictionary(&[("title", title)]));
            }
        }
        for (id, (start, end, title)) in (1..).zip(chapters) {
            output.add_chapter(id, MS, *start, *end, title)?;
        }
        output.write_header_with(dictionary(options))?;
        Ok(Self { output, file, written })
    }

    /// In which a stream's times are written.
    pub fn time_base(&self, stream: usize) -> Rational {
        self.output.stream(stream).map_or(MS, |stream| stream.time_base())
    }

    /// Writes a packet whose times are in `time_base`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(
        &mut self,
        mut packet: Packet,
        stream: usize,
        time_base: Rational,
    ) -> Result<(), MediaError> {
        packet.set_stream(stream);
        packet.set_position(-1);
        packet.rescale_ts(time_base, self.time_base(stream));
        let result = packet.write_interleaved(&mut self.output);
        match self.written.error() {
            Some(error) => Err(error.into()),
            None => Ok(result?),
        }
    }

    /// What was written so far is on the disk.
    ///
    /// # Errors
    /// As the disk has it.
    pub fn sync(&self) -> Result<(), MediaError> {
        Ok(self.file.sync_data()?)
    }

    /// Writes length and index. What was written before can be played either way.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn finish(mut self) -> Result<(), MediaError> {
        let result = self.output.write_trailer();
        let Self { output, file, written } = self;
        // What its buffer holds is written when it goes.
        drop(output);
        if let Some(error) = written.error() {
            return Err(error.into());
        }
        result?;
        Ok(file.sync_all()?)
    }
}

/// Copies all streams of `input` into another file of the same kind, with length and index. The first is
/// described as `grown` has it, if that is given.
///
/// # Errors
/// It cannot be written.
pub fn copy_whole(
    input: &mut Input,
    path: &Path,
    container: &str,
    options: &[(&str, &str)],
    grown: Option<&Grown>,
) -> Result<(), MediaError> {
    let describe = |stream: ffmpeg::Stream<'_>| {
        let title = stream.metadata().get("title").map(str::to_owned);
        (stream.parameters(), title, stream.time_base())
    };
    let mut described: Vec<(Parameters, Option<String>, Rational)> = input.streams().map(describe).collect();
    if let (Some(grown), Some((parameters, ..))) = (grown, described.first_mut()) {
        *parameters = self::parameters(grown.codec, &grown.keyframe)?;
    }
    let bases: Vec<Rational> = described.iter().map(|(.., time_base)| *time_base).collect();
    let streams = described.iter().map(|(parameters, title, time_base)| Stream {
        parameters: parameters.clone(),
        title: title.as_deref(),
        time_base: *time_base,
    });
    let mut writing = Writing::create(path, container, options, streams.collect(), &[])?;
    // So described, H.264 is taken as a byte stream; in the file its units have lengths.
    let is_measured = grown.is_some_and(|grown| grown.codec == Codec::H264);
    loop {
        let mut packet = Packet::empty();
        match packet.read(input) {
            Ok(()) => {}
            // The last cluster or fragment is cut where its writer was.
            Err(_) => break,
        }
        if is_measured && let Some(stream) = byte_stream(&packet) {
            packet = stream;
        }
        let stream = packet.stream();
        if let Some(time_base) = bases.get(stream).copied() {
            writing.write(packet, stream, time_base)?;
        }
    }
    writing.finish()
}

/// An access unit in Annex B, of one whose units have their lengths before them; `None` where it is none.
fn byte_stream(packet: &Packet) -> Option<Packet> {
    let (mut rest, mut data) = (packet.data()?, Vec::with_capacity(packet.size()));
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (unit, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        data.extend([0, 0, 0, 1]);
        data.extend(unit);
        rest = after;
    }
    let mut stream = Packet::copy(&data);
    stream.set_pts(packet.pts());
    stream.set_dts(packet.dts());
    stream.set_duration(packet.duration());
    stream.set_flags(packet.flags());
    stream.set_stream(packet.stream());
    Some(stream)
}

pub fn dictionary<'a>(pairs: &[(&str, &str)]) -> Dictionary<'a> {
    let mut dictionary = Dictionary::new();
    pairs.iter().for_each(|(key, value)| dictionary.set(key, value));
    dictionary
}
