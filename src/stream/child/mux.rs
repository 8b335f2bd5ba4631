//! Fragmented MP4 by FFmpeg's muxer: one run of it makes one fragment, so that parts end where we say.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::context::StreamIo;
use ffmpeg_next::{Dictionary, Packet, Rational, codec, format, packet};

use super::StreamError;

/// One fragment, of a track whose earlier ones were written before; its header is not of any interest after
/// the first. `cmaf` are the constraints of ISO/IEC 23000-19.
const FLAGS: &str = "cmaf+empty_moov+default_base_moof+frag_custom+frag_discont+skip_trailer";

/// A frame to be muxed. Times in ticks of its track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub at: u64,
    pub duration: u64,
    pub is_key: bool,
    pub bytes: Vec<u8>,
}

/// What a muxer wrote.
#[derive(Debug)]
pub struct Written {
    /// `ftyp` and `moov`.
    pub init: Vec<u8>,
    /// `moof` and `mdat`.
    pub fragment: Vec<u8>,
}

/// Writes a fragment of frames, the `number`th of its track.
///
/// # Errors
/// FFmpeg's own: these are no frames of that codec.
pub fn fragment(
    parameters: &codec::Parameters,
    timescale: u32,
    number: u32,
    frames: &[Frame],
) -> Result<Written, StreamError> {
    let sink = Sink::default();
    let io = StreamIo::from_write(sink.clone())?;
    let mut output = format::output_to_stream(io, None, Some("mp4"))?;
    let time_base = Rational::new(1, i32::try_from(timescale).map_err(|_| ffmpeg::Error::InvalidData)?);
    let mut stream = output.add_stream(codec::Id::None)?;
    stream.set_parameters(parameters.clone());
    stream.set_time_base(time_base);
    let number = number.max(1).to_string();
    let scale = timescale.to_string();
    let options = [
        ("movflags", FLAGS),
        ("fragment_index", &number),
        ("video_track_timescale", &scale),
        ("use_editlist", "0"),
    ];
    output.write_header_with(options.iter().collect::<Dictionary>())?;
    for frame in frames {
        let mut packet = Packet::copy(&frame.bytes);
        let at = i64::try_from(frame.at).map_err(|_| ffmpeg::Error::InvalidData)?;
        packet.set_stream(0);
        packet.set_pts(Some(at));
        packet.set_dts(Some(at));
        packet.set_duration(frame.duration as i64);
        packet.set_flags(if frame.is_key { packet::Flags::KEY } else { packet::Flags::empty() });
        packet.write(&mut output)?;
    }
    output.write_trailer()?;
    drop(output);
    let written = std::mem::take(&mut *sink.bytes());
    split(&written).ok_or(StreamError::Muxer)
}

/// Parts a file before its first fragment.
fn split(file: &[u8]) -> Option<Written> {
    let mut at = 0;
    while let Some(head) = file.get(at..)?.first_chunk::<8>() {
        let [s0, s1, s2, s3, kind @ ..] = *head;
        if [*b"moof", *b"styp", *b"sidx"].contains(&kind) {
            let (init, fragment) = file.split_at(at);
            return Some(Written { init: init.to_vec(), fragment: fragment.to_vec() });
        }
        at += usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).ok().filter(|size| *size >= 8)?;
    }
    None
}

/// Where a muxer writes to, and we read from.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The parameters of a byte stream (annex B) that begins with its parameter sets, as FFmpeg reads them.
///
/// # Errors
/// It is no such stream.
pub fn parameters(key_frame: &[u8]) -> Result<codec::Parameters, StreamError> {
    let io = StreamIo::from_read(io::Cursor::new(key_frame.to_vec()))?;
    let options: Dictionary = [("fpsprobesize", "0")].iter().collect();
    let input = format::input_from_stream(io, Some("picture.h264"), Some(options))?;
    let stream = input.stream(0).ok_or(StreamError::Muxer)?;
    Ok(stream.parameters())
}

#[cfg(test)]
mod tests {
    use super::super::sound::Encoder;
    use super::*;

    /// Boxes of a file: kinds and contents.
    fn boxes(bytes: &[u8]) -> Vec<(String, &[u8])> {
        let mut found = Vec::new();
        let mut rest = bytes;
        while rest.len() >= 8 {
            let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            found.push((String::from_utf8_lossy(&rest[4..8]).into_owned(), &rest[8..size]));
            rest = &rest[size..];
        }
        found
    }

    fn find<'a>(bytes: &'a [u8], path: &[&str]) -> &'a [u8] {
        path.iter().fold(bytes, |bytes, kind| {
            boxes(bytes).into_iter().find(|(other, _)| other == kind).unwrap_or_else(|| panic!("no {kind}")).1
        })
    }

    #[test]
    fn a_fragment_begins_when_its_first_frame_does_and_lasts_as_long_as_all() {
        let mut encoder = Encoder::open().unwrap();
        let mut packets = Vec::new();
        for index in 0..20 {
            packets.extend(encoder.encode(&vec![0.1; 1_024 * 2], index * 1_024).unwrap());
        }
        let frames: Vec<Frame> = packets
            .into_iter()
            .filter_map(|(at, bytes)| {
                Some(Frame { at: u64::try_from(at).ok()?, duration: 1_024, is_key: true, bytes })
            })
            .map(|frame| Frame { at: frame.at + (1 << 33), ..frame })
            .collect();
        let Written { init, fragment } = fragment(encoder.parameters(), 48_000, 7, &frames).unwrap();
        let kinds = |bytes: &[u8]| boxes(bytes).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds(&init), ["ftyp", "moov"]);
        assert_eq!(kinds(&fragment), ["moof", "mdat"]);
        let number = &find(&fragment, &["moof", "mfhd"])[4..8];
        assert_eq!(number, 7_u32.to_be_bytes());
        let began = &find(&fragment, &["moof", "traf", "tfdt"])[4..12];
        assert_eq!(u64::from_be_bytes(began.try_into().unwrap()), frames[0].at);
    }
}
