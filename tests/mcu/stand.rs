//! A mixer's process, senders that feed it and viewers who decode what it makes.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use antiphon::core::mix::{
    Area, FromMixer, LINE_H264, MixPacket, MixSettings, Place, Rendition, Scene, Size, ToMixer,
};
use antiphon::core::payload::Codec;
use antiphon::mcu::graph::{Graph, Stage};
use antiphon::mcu::mixer::picture::Colour;
use antiphon::mcu::process::{Spawned, spawn};
use antiphon::mcu::wire::{self, MESSAGE_BYTES_MAX, Message};
use gstreamer as gst;
use gstreamer_video::{VideoFrameExt, VideoFrameRef, VideoInfo};

use crate::source::Source;

pub const CANVAS: Size = Size { width: 640, height: 360 };
pub const SMALL: Size = Size { width: 320, height: 180 };
/// What is waited for at most. A slow machine with other work gets there too.
pub const PATIENCE: Duration = Duration::from_secs(40);
const FRAME_INTERVAL: Duration = Duration::from_millis(66);
/// A codec changes colours a little.
const TOLERANCE: u8 = 10;

/// What came from the mixer.
#[derive(Debug)]
pub enum News {
    Words(FromMixer),
    Packet(MixPacket),
    /// Nothing for now.
    Silence,
    Closed,
}

pub struct Stand {
    mixer: Spawned,
    pub sources: Vec<Source>,
    /// This slot's packets hold nothing of use.
    pub garbage: Option<u16>,
    next_send: Instant,
}

impl Stand {
    /// A mixer that has begun.
    pub fn new() -> Self {
        gst::init().unwrap();
        let mixer = spawn(Path::new(env!("CARGO_BIN_EXE_antiphon"))).unwrap();
        mixer.socket.set_nonblocking(false).unwrap();
        let mut stand = Self { mixer, sources: Vec::new(), garbage: None, next_send: Instant::now() };
        let rendition = |size, bitrate_bps| Rendition { size, bitrate_bps };
        let renditions = [rendition(SMALL, 200_000), rendition(CANVAS, 600_000)];
        stand.say(&ToMixer::Begin(MixSettings { canvas: CANVAS, frames_per_second: 15, renditions }));
        let mut encoders = Vec::new();
        stand.wait_for("ready", |news, _| {
            if let News::Words(FromMixer::Ready { encoders: named }) = news {
                encoders = named.clone();
            }
            !encoders.is_empty()
        });
        assert_eq!(encoders.len(), 3, "{encoders:?}");
        stand
    }

    pub fn say(&self, words: &ToMixer) {
        let mut bytes = Vec::new();
        wire::write_words(words, &mut bytes).unwrap();
        self.mixer.socket.send(&bytes).unwrap();
    }

    pub fn show(&self, scene: Scene) {
        self.say(&ToMixer::Scene(Box::new(scene)));
    }

    /// Sends, and takes what comes, until `done` says so of it.
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut(&News, &Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "waited in vain for: {what}");
            self.send_due();
            let news = self.receive();
            if let News::Words(FromMixer::Keyframe { slot }) = news {
                let wanted = self.sources.iter_mut().find(|source| source.slot() == slot);
                wanted.into_iter().for_each(Source::begin_again);
            }
            if done(&news, self) {
                return;
            }
            assert!(!matches!(news, News::Closed), "the mixer ended while waiting for: {what}");
        }
    }

    /// A frame of every source, when it is time.
    fn send_due(&mut self) {
        let now = Instant::now();
        if now < self.next_send {
            return;
        }
        self.next_send = now + FRAME_INTERVAL;
        let mut bytes = Vec::new();
        for source in &mut self.sources {
            let is_garbage = self.garbage == Some(source.slot());
            for packet in if is_garbage { source.next_garbage() } else { source.next() } {
                wire::write_packet(&packet, &mut bytes);
                self.mixer.socket.send(&bytes).unwrap();
            }
        }
    }

    fn receive(&self) -> News {
        let wait = self.next_send.saturating_duration_since(Instant::now());
        self.mixer.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        match (&self.mixer.socket).read(&mut bytes) {
            Ok(0) => News::Closed,
            Ok(length) => match wire::read(&bytes[..length]).unwrap() {
                Message::Words(words) => News::Words(words),
                Message::Packet(packet) => News::Packet(packet),
            },
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                News::Silence
            }
            Err(_) => News::Closed,
        }
    }

    /// Sends until a viewer sees all of these colours where they belong.
    pub fn wait_for_colours(&mut self, viewer: &mut Viewer, colours: &[(u32, u32, Colour)]) {
        let what = format!("{colours:?} by {:?}", viewer.place);
        self.wait_for(&what, |news, _| {
            viewer.take(news);
            colours.iter().all(|(x, y, colour)| viewer.sees(*x, *y, *colour))
        });
    }

    /// Closes the socket; the process is to end by itself.
    pub fn close(self) {
        let Spawned { mut child, socket } = self.mixer;
        drop(socket);
        let pid = child.id();
        let (ended, end) = channel();
        thread::spawn(move || ended.send(child.wait().map(|status| status.success())));
        let status = end.recv_timeout(PATIENCE);
        assert!(matches!(status, Ok(Ok(true))), "process {pid} ended so: {status:?}");
    }
}

/// Decodes one encoding of a line.
pub struct Viewer {
    pub place: Place,
    graph: Graph,
    picture: Option<(VideoInfo, gst::Buffer)>,
}

impl Viewer {
    pub fn new(stand: &Stand, line: u8, encoding: u8) -> Self {
        let stage = if line == LINE_H264 { Stage::DecodeH264 } else { Stage::DecodeVp8 };
        stand.say(&ToMixer::Wanted { line, encodings: 0b11 });
        let graph = Graph::start(stage, &[("latency_ms", &20)]).unwrap();
        Self { place: Place::Line { line, encoding }, graph, picture: None }
    }

    pub fn take(&mut self, news: &News) {
        if let News::Packet(packet) = news
            && packet.place == self.place
        {
            assert!(packet.payload.len() <= 1_160);
            let codec = if self.line() == LINE_H264 { Codec::H264 } else { Codec::Vp8 };
            assert_eq!(packet.codec, codec);
            let marker = if packet.marker { 0x80 } else { 0 };
            let mut bytes = vec![0x80, marker | 96];
            bytes.extend((packet.seq_no as u16).to_be_bytes());
            bytes.extend(packet.rtp_time.to_be_bytes());
            bytes.extend([0, 0, 0, 1]);
            bytes.extend(&packet.payload[..]);
            self.graph.input.push_buffer(gst::Buffer::from_mut_slice(bytes)).unwrap();
        }
        if let Some(sample) = self.graph.output.try_pull_sample(gst::ClockTime::ZERO) {
            let info = VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
            self.picture = Some((info, sample.buffer_owned().unwrap()));
        }
    }

    fn line(&self) -> u8 {
        match self.place {
            Place::Line { line, .. } => line,
            Place::Slot(_) => unreachable!("a viewer takes lines"),
        }
    }

    /// Whether the last picture has a colour at a pixel of the canvas.
    fn sees(&self, x: u32, y: u32, colour: Colour) -> bool {
        let Some((info, buffer)) = &self.picture else { return false };
        let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
        let (x, y) = (x * frame.width() / CANVAS.width, y * frame.height() / CANVAS.height);
        (0..3).all(|plane| {
            let shift = u32::from(plane > 0);
            let stride = frame.plane_stride()[plane as usize] as usize;
            let at = (y >> shift) as usize * stride + (x >> shift) as usize;
            frame.plane_data(plane).unwrap()[at].abs_diff(colour.0[plane as usize]) <= TOLERANCE
        })
    }

    /// Pixels across.
    pub fn width(&self) -> u32 {
        self.picture.as_ref().map_or(0, |(info, _)| info.width())
    }
}

/// A quarter of the canvas, 0 to 3.
pub fn quarter(index: u32) -> Area {
    let (width, height) = (CANVAS.width / 2, CANVAS.height / 2);
    Area { x: index % 2 * width, y: index / 2 * height, width, height }
}

/// The middle of a quarter.
pub fn middle(index: u32) -> (u32, u32) {
    let area = quarter(index);
    (area.x + area.width / 2, area.y + area.height / 2)
}
