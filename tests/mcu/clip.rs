//! Pictures of one colour each, coded and cut into packets by GStreamer.

use antiphon::core::mix::Size;
use antiphon::core::payload::Codec;
use antiphon::mcu::mixer::picture::{Colour, Picture};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};

pub const FRAMES_PER_SECOND: u64 = 15;
const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(20);

/// One packet of a recording: its payload and whether it ends a frame.
pub type Recorded = (Vec<u8>, bool);

/// A frame of each colour, in packets.
pub fn record_colours(codec: Codec, colours: &[Colour], size: Size) -> Vec<Vec<Recorded>> {
    let Size { width, height } = size;
    let encode = match codec {
        Codec::Vp8 => "vp8enc deadline=1 cpu-used=8 ! rtpvp8pay mtu=1200",
        Codec::Vp9 => "vp9enc deadline=1 cpu-used=8 lag-in-frames=0 ! rtpvp9pay mtu=1200",
        Codec::H264 => "openh264enc ! h264parse config-interval=-1 ! rtph264pay mtu=1200",
        _ => "av1enc cpu-used=8 ! video/x-av1,stream-format=obu-stream,alignment=tu",
    };
    let text = format!(
        "appsrc name=in format=time caps=video/x-raw,format=I420,width={width},height={height},framerate=15/1 ! {encode} \
         ! appsink name=out sync=false"
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let input: AppSrc = pipeline.by_name("in").unwrap().downcast().unwrap();
    let output: AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut picture = Picture::new(size);
    for (index, colour) in (0..).zip(colours) {
        picture.fill(picture.area(), *colour);
        let mut buffer = gst::Buffer::from_mut_slice(picture.bytes().to_vec());
        let time = gst::ClockTime::from_nseconds(index * 1_000_000_000 / FRAMES_PER_SECOND);
        buffer.get_mut().unwrap().set_pts(time);
        input.push_buffer(buffer).unwrap();
    }
    input.end_of_stream().unwrap();
    let mut frames = vec![Vec::new()];
    while let Some(sample) = output.try_pull_sample(TIMEOUT) {
        // A payloader may give a frame's packets one by one or as a list.
        let list = sample.buffer_list_owned();
        let buffers = list.iter().flat_map(|list| list.iter_owned()).chain(sample.buffer_owned());
        for buffer in buffers {
            let bytes = buffer.map_readable().unwrap();
            let (payload, marker) = match codec {
                Codec::Av1 => (av1_payload(&bytes), true),
                _ => (rtp_payload(&bytes).to_vec(), bytes[1] & 0x80 != 0),
            };
            frames.last_mut().unwrap().push((payload, marker));
            if marker {
                frames.push(Vec::new());
            }
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    frames.retain(|frame| !frame.is_empty());
    assert!(frames.len() > 5, "{codec:?}: {} frames", frames.len());
    frames
}

/// What follows the header and its extension (RFC 3550 section 5.1).
fn rtp_payload(bytes: &[u8]) -> &[u8] {
    let mut start = 12 + 4 * usize::from(bytes[0] & 0x0f);
    if bytes[0] & 0x10 != 0 {
        start += 4 + 4 * usize::from(u16::from_be_bytes([bytes[start + 2], bytes[start + 3]]));
    }
    &bytes[start..]
}

/// A temporal unit in one packet: each OBU with its length (W = 0), without the delimiter.
fn av1_payload(unit: &[u8]) -> Vec<u8> {
    const SEQUENCE_HEADER: u8 = 1;
    let mut payload = vec![0];
    let mut rest = unit;
    while let Some(&header) = rest.first() {
        assert_eq!(header & 0x06, 0x02, "an OBU without a size, or with an extension");
        let (mut size, mut at) = (0, 1);
        loop {
            size |= usize::from(rest[at] & 0x7f) << (7 * (at - 1));
            at += 1;
            if rest[at - 1] & 0x80 == 0 {
                break;
            }
        }
        let (obu, after) = rest.split_at(at + size);
        rest = after;
        let kind = header >> 3 & 0x0f;
        if kind == SEQUENCE_HEADER {
            payload[0] |= 0x08;
        }
        if kind != 2 {
            let mut length = obu.len();
            while length > 0x7f {
                payload.push(length as u8 | 0x80);
                length >>= 7;
            }
            payload.push(length as u8);
            payload.extend(obu);
        }
    }
    payload
}
