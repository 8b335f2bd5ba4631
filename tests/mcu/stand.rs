//! A mixer's process, senders that feed it and viewers who decode what it makes.

use std::fs;
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
use antiphon::worker::process::{Spawned, spawn};
use antiphon::worker::wire::{self, MESSAGE_BYTES_MAX, Message};
use gstreamer as gst;
use gstreamer_video::{VideoFrameExt, VideoFrameRef, VideoInfo};

use crate::source::Source;
use crate::tone::{self, Tone};

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
    /// Who speaks.
    pub tones: Vec<Tone>,
    /// One in so many packets is lost on the way to the mixer.
    pub loss: Option<u32>,
    random: u32,
    next_send: Instant,
    next_sound: Instant,
    /// No wait for news is longer.
    pub wait_max: Duration,
}

/// What a process of the mixer's holds.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    pub threads: u64,
    pub files: u64,
    pub rss_kb: u64,
    pub cpu: Duration,
}

impl Stand {
    /// A mixer that has begun.
    pub fn new() -> Self {
        let rendition = |size, bitrate_bps| Rendition { size, bitrate_bps };
        let renditions = [rendition(SMALL, 200_000), rendition(CANVAS, 600_000)];
        Self::with(MixSettings { canvas: CANVAS, frames_per_second: 15, renditions, cores_max: 4 })
    }

    pub fn with(settings: MixSettings) -> Self {
        gst::init().unwrap();
        let mixer = spawn(Path::new(env!("CARGO_BIN_EXE_antiphon")), "mix").unwrap();
        mixer.socket.set_nonblocking(false).unwrap();
        let now = Instant::now();
        let mut stand = Self {
            mixer,
            sources: Vec::new(),
            garbage: None,
            tones: Vec::new(),
            loss: None,
            random: 1,
            next_send: now,
            next_sound: now,
            wait_max: PATIENCE,
        };
        stand.say(&ToMixer::Begin(settings));
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
        let mut packets = Vec::new();
        if now >= self.next_send {
            self.next_send = now + FRAME_INTERVAL;
            for source in &mut self.sources {
                let is_garbage = self.garbage == Some(source.slot());
                packets.extend(if is_garbage { source.next_garbage() } else { source.next() });
            }
        }
        // Sound that is late comes after: as a sender who was held up sends it.
        while now >= self.next_sound && !self.tones.is_empty() {
            self.next_sound = (self.next_sound + tone::INTERVAL).max(now - Duration::from_millis(200));
            packets.extend(self.tones.iter_mut().map(Tone::next));
        }
        for packet in packets {
            self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if self.loss.is_none_or(|one_in| !(self.random >> 8).is_multiple_of(one_in)) {
                self.send(&packet);
            }
        }
    }

    pub fn send(&self, packet: &MixPacket) {
        let mut bytes = Vec::new();
        wire::write_packet(packet, &mut bytes);
        self.mixer.socket.send(&bytes).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.mixer.child.id()
    }

    /// What the process holds now (proc(5)).
    pub fn footprint(&self) -> Footprint {
        let pid = self.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        let ticks = after_name.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Footprint {
            threads: field("Threads:"),
            files: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64,
            rss_kb: field("VmRSS:"),
            // USER_HZ is 100 wherever Linux runs.
            cpu: Duration::from_millis(ticks * 10),
        }
    }

    pub fn receive(&self) -> News {
        let due = if self.tones.is_empty() { self.next_send } else { self.next_send.min(self.next_sound) };
        let wait = due.saturating_duration_since(Instant::now()).min(self.wait_max);
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
            assert!(packet.payload.len() <= 1_100);
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

    pub fn line(&self) -> u8 {
        match self.place {
            Place::Line { line, .. } => line,
            Place::Slot(_) | Place::Track { .. } => unreachable!("a viewer takes lines"),
        }
    }

    /// Whether the last picture has a colour at a pixel of the canvas.
    pub fn sees(&self, x: u32, y: u32, colour: Colour) -> bool {
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

    /// Brightness of the last picture, row by row.
    pub fn luma(&self) -> Vec<Vec<u8>> {
        let Some((info, buffer)) = &self.picture else { return Vec::new() };
        let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
        let (stride, width) = (frame.plane_stride()[0] as usize, frame.width() as usize);
        frame.plane_data(0).unwrap().chunks(stride).map(|row| row[..width].to_vec()).collect()
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
