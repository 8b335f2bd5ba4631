//! Streams of one colour each, sent over and over.

use antiphon::core::mix::{MixPacket, Place, Size};
use antiphon::core::payload::Codec;
use antiphon::mcu::mixer::picture::Colour;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;

use crate::clip::{FRAMES_PER_SECOND, Recorded, record_colours};

const FRAMES: usize = 30;
const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(20);

/// A sender of one slot.
pub struct Source {
    slot: u16,
    codec: Codec,
    frames: Vec<Vec<Recorded>>,
    next_frame: usize,
    frames_sent: u32,
    seq_no: u64,
}

impl Source {
    /// A camera of 320 by 180 pixels in front of a wall.
    pub fn new(slot: u16, codec: Codec, colour: Colour) -> Self {
        Self::sized(slot, codec, colour, Size { width: 320, height: 180 })
    }

    pub fn sized(slot: u16, codec: Codec, colour: Colour, size: Size) -> Self {
        let frames = record(codec, colour, size);
        Self { slot, codec, frames, next_frame: 0, frames_sent: 0, seq_no: 65_500 }
    }

    /// As a sender of another slot, from the beginning.
    pub fn moved(self, slot: u16) -> Self {
        Self { slot, next_frame: 0, frames_sent: 0, ..self }
    }

    /// Goes on as another sender in the same slot: a slot's numbers do not begin anew.
    pub fn follow(mut self, before: &Self) -> Self {
        (self.seq_no, self.frames_sent) = (before.seq_no, before.frames_sent);
        self
    }

    /// The recording begins with a key frame.
    pub fn begin_again(&mut self) {
        self.next_frame = 0;
    }

    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// The packets of the next frame.
    pub fn next(&mut self) -> Vec<MixPacket> {
        let frame = self.frames[self.next_frame].clone();
        self.next_frame = (self.next_frame + 1) % self.frames.len();
        let rtp_time = self.frames_sent * (90_000 / FRAMES_PER_SECOND as u32);
        self.frames_sent += 1;
        let packets = frame.into_iter().map(|(payload, marker)| {
            self.seq_no += 1;
            let (place, payload) = (Place::Slot(self.slot), payload.into());
            let (codec, seq_no, captured_us) = (self.codec, self.seq_no, None);
            MixPacket { place, codec, seq_no, rtp_time, captured_us, marker, payload }
        });
        packets.collect()
    }

    /// As many packets as a frame has, of nothing that is of its codec.
    pub fn next_garbage(&mut self) -> Vec<MixPacket> {
        let mut packets = self.next();
        let mut state = self.frames_sent;
        for packet in &mut packets {
            let garbage = (0..packet.payload.len().max(200)).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            });
            packet.payload = garbage.collect();
        }
        packets
    }
}

fn record(codec: Codec, colour: Colour, size: Size) -> Vec<Vec<Recorded>> {
    record_colours(codec, &[colour; FRAMES], size)
}

/// A picture file, all red.
pub fn still(encode: &str) -> Vec<u8> {
    let text = format!(
        "videotestsrc pattern=red num-buffers=1 ! video/x-raw,width=500,height=400 ! videoconvert ! {encode} \
         ! appsink name=out sync=false"
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let output: AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let sample = output.try_pull_sample(TIMEOUT).unwrap();
    let file = sample.buffer().unwrap().map_readable().unwrap().to_vec();
    pipeline.set_state(gst::State::Null).unwrap();
    file
}
