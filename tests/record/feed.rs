//! A feed's process as a node sees it: files and streams that FFmpeg's command line made go in, packets come
//! out, and FFmpeg and GStreamer judge what is in them.

mod hearing;
mod upright;

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use antiphon::core::depacketize::{Assembler, Outcome, Unit};
use antiphon::core::feed::{FeedFault, FeedMedia, FeedSettings, FromFeed, LINE_PICTURE, LINE_SOUND, ToFeed};
use antiphon::core::mix::{MixPacket, Place};
use antiphon::core::payload::Codec;
use antiphon::worker::process::{Spawned, spawn_reading};
use antiphon::worker::wire::{self, MESSAGE_BYTES_MAX, Message};

use crate::stand::{PATIENCE, ffmpeg, program};
use hearing::{samples, tone_share};

const SETTINGS: FeedSettings = FeedSettings {
    live: false,
    height_max: 720,
    bitrate_bps: 1_000_000,
    frames_per_second_max: 30,
    copied_bps_max: 4_000_000,
    cores_max: 2,
};
const TONE_HZ: f64 = 1_000.0;
const MS: fn(u64) -> Duration = Duration::from_millis;
/// Colours of a clip, one after the other, as red, green and blue.
const COLOURS: [(&str, [u8; 3]); 3] = [("red", [255, 0, 0]), ("lime", [0, 255, 0]), ("blue", [0, 0, 255])];
/// A receiver's clock and a slow machine agree to so much.
const SLACK_MS: f64 = 60.0;
/// One that is busy leaves pictures out that would be coded too late.
const SLACK_CODED_MS: f64 = 350.0;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// A file of each colour for so long, with a tone throughout. Made once for each name.
fn clip(name: &str, colour_ms: u32, coding: &[&str]) -> PathBuf {
    let path = FOLDER.path().join(name);
    let seconds = f64::from(colour_ms) / 1_000.0;
    let colours = COLOURS.map(|(colour, _)| format!("color={colour}:s=320x180:r=25:d={seconds}"));
    let picture = format!("{}[a];{}[b];{}[c];[a][b][c]concat=n=3", colours[0], colours[1], colours[2]);
    let sound = format!("sine=frequency={TONE_HZ}:sample_rate=44100:duration={}", seconds * 3.0);
    let mut arguments = vec!["-v", "error", "-y", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound];
    arguments.extend(["-pix_fmt", "yuv420p"]);
    arguments.extend(coding);
    let target = path.to_str().unwrap();
    arguments.push(target);
    ffmpeg("ffmpeg", &arguments);
    path
}

const H264: [&str; 10] = ["-c:v", "libx264", "-bf", "0", "-g", "25", "-preset", "ultrafast", "-c:a", "aac"];

/// The process, and what it said and sent.
struct Feed {
    process: Spawned,
    said: Vec<FromFeed>,
    packets: Vec<(Duration, MixPacket)>,
    began: Instant,
    is_open: bool,
}

impl Feed {
    fn reading(input: OwnedFd, settings: FeedSettings) -> Self {
        let process = spawn_reading(&program(), "feed", input).unwrap();
        process.socket.set_nonblocking(false).unwrap();
        let (said, packets, began) = (Vec::new(), Vec::new(), Instant::now());
        let feed = Self { process, said, packets, began, is_open: true };
        feed.say(&ToFeed::Begin(settings));
        feed
    }

    fn of(path: &Path) -> Self {
        Self::reading(File::open(path).unwrap().into(), SETTINGS)
    }

    /// One that has said what is in its file.
    fn ready(path: &Path) -> (Self, FeedMedia) {
        let mut feed = Self::of(path);
        feed.wait_for("what is in the file", |feed| !feed.said.is_empty());
        let FromFeed::Ready(media) = feed.said[0] else { panic!("{:?}", feed.said) };
        (feed, media)
    }

    fn say(&self, words: &ToFeed) {
        let mut bytes = Vec::new();
        wire::write_words(words, &mut bytes).unwrap();
        self.process.socket.send(&bytes).unwrap();
    }

    fn wait_for(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline && self.is_open, "waited in vain for {what}: {:?}", self.said);
            self.listen();
        }
    }

    fn listen(&mut self) {
        self.process.socket.set_read_timeout(Some(MS(20))).unwrap();
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        match (&self.process.socket).read(&mut bytes) {
            Ok(0) => self.is_open = false,
            Ok(length) => match wire::read(&bytes[..length]).unwrap() {
                Message::Words(words) => self.said.push(words),
                Message::Packet(packet) => self.packets.push((self.began.elapsed(), packet)),
            },
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(_) => self.is_open = false,
        }
    }

    /// Listens until there was nothing to be sent for so long.
    fn falls_silent(&mut self, time: Duration) {
        let deadline = Instant::now() + PATIENCE;
        let mut since = (Instant::now(), self.packets.len());
        while since.0.elapsed() < time {
            assert!(Instant::now() < deadline, "it goes on and on");
            self.listen();
            if self.packets.len() != since.1 {
                since = (Instant::now(), self.packets.len());
            }
        }
    }

    fn plays_to_its_end(&mut self) {
        self.wait_for("the end", |feed| feed.said.contains(&FromFeed::Ended));
    }

    /// Carried out, and where it is then.
    fn change(&mut self, number: u64, paused: Option<bool>, to_ms: Option<u64>) -> u64 {
        self.say(&ToFeed::Change { number, paused, to_ms });
        let told = |feed: &Self| {
            feed.said.iter().rev().find_map(|words| match words {
                FromFeed::Position { number: told, at_ms, .. } if *told == number => Some(*at_ms),
                _ => None,
            })
        };
        self.wait_for("a change", |feed| told(feed).is_some());
        told(self).unwrap()
    }

    fn line(&self, line: u8) -> impl Iterator<Item = &(Duration, MixPacket)> {
        self.packets.iter().filter(move |(_, packet)| packet.place == Place::Line { line, encoding: 0 })
    }

    /// The pictures of what came after the first `from` packets.
    fn pictures(&self, from: usize) -> Vec<Unit> {
        let sent = self.packets.iter().skip(from).map(|(_, packet)| packet);
        let sent: Vec<&MixPacket> =
            sent.filter(|packet| packet.place == Place::Line { line: LINE_PICTURE, encoding: 0 }).collect();
        let Some(&first) = sent.first() else { return Vec::new() };
        let (mut assembler, mut outcomes) = (Assembler::new(first.codec), Vec::new());
        for packet in sent {
            assert_eq!(packet.codec, first.codec);
            assert!(packet.payload.len() <= 1_100);
            assembler.push(packet, &mut outcomes);
        }
        outcomes
            .into_iter()
            .filter_map(|outcome| match outcome {
                Outcome::Unit(unit) => Some(unit),
                _ => None,
            })
            .collect()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let _ = self.process.child.kill();
        let _ = self.process.child.wait();
    }
}

/// The mean colour of each picture, by FFmpeg's decoder.
fn colours(codec: Codec, units: &[Unit]) -> Vec<[u8; 3]> {
    let file = written(codec, units);
    let seen: Vec<[u8; 3]> = shrunk(file.path(), "scale=1:1:flags=area").chunks_exact(3).map(rgb).collect();
    assert_eq!(seen.len(), units.len(), "a picture that cannot be decoded");
    seen
}

fn rgb(bytes: &[u8]) -> [u8; 3] {
    [bytes[0], bytes[1], bytes[2]]
}

/// The pictures of a file through a filter, as FFmpeg's command line shows them: turned as their file says.
fn shrunk(path: &Path, filter: &str) -> Vec<u8> {
    let raw = ["-pix_fmt", "rgb24", "-vsync", "passthrough", "-f", "rawvideo", "-"];
    let path = path.to_str().unwrap();
    ffmpeg("ffmpeg", &[&["-v", "error", "-i", path, "-vf", filter][..], &raw].concat())
}

/// A file of these pictures.
fn written(codec: Codec, units: &[Unit]) -> tempfile::NamedTempFile {
    let suffix = if codec == Codec::Vp8 { ".ivf" } else { ".h264" };
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    if codec == Codec::Vp8 {
        file.write_all(b"DKIF\0\0\x20\0VP80").unwrap();
        file.write_all(&[0x40, 1, 0xb4, 0, 30, 0, 0, 0, 1, 0, 0, 0]).unwrap();
        file.write_all(&(units.len() as u64).to_le_bytes()).unwrap();
    }
    for (number, unit) in (0_u64..).zip(units) {
        if codec == Codec::Vp8 {
            file.write_all(&(unit.data.len() as u32).to_le_bytes()).unwrap();
            file.write_all(&number.to_le_bytes()).unwrap();
        }
        file.write_all(&unit.data).unwrap();
    }
    file
}

fn is_like(seen: [u8; 3], colour: [u8; 3]) -> bool {
    seen.iter().zip(colour).all(|(seen, colour)| seen.abs_diff(colour) < 40)
}

/// When each colour is first shown, in milliseconds from the first picture, by RTP's times.
fn turns(codec: Codec, units: &[Unit]) -> Vec<f64> {
    let seen = colours(codec, units);
    let first = units[0].rtp_time;
    let at = |index: usize| f64::from(units[index].rtp_time.wrapping_sub(first)) / 90.0;
    COLOURS
        .iter()
        .map(|(name, colour)| {
            let index = seen.iter().position(|seen| is_like(*seen, *colour));
            at(index.unwrap_or_else(|| panic!("{name} is not in {seen:?}")))
        })
        .collect()
}

fn check_clip(name: &str, coding: &[&str], is_copied: bool, codec: Codec) {
    let path = clip(name, 500, coding);
    let (mut feed, media) = Feed::ready(&path);
    assert!(media.picture && media.sound, "{name}: {media:?}");
    assert_eq!(media.is_copied, is_copied, "{name}");
    let duration_ms = media.duration_ms.unwrap();
    assert!(duration_ms.abs_diff(1_500) < 100, "{name}: {duration_ms} ms");
    feed.say(&ToFeed::Start);
    feed.plays_to_its_end();
    let units = feed.pictures(0);
    // A machine with other work leaves some out that are coded; of those that are copied none is.
    assert!(!is_copied || units.len() >= 35, "{name}: {} pictures", units.len());
    assert!(units.len() >= 10 && units[0].keyframe, "{name}: {} pictures, {:?}", units.len(), feed.said);
    assert_eq!(feed.line(LINE_PICTURE).next().unwrap().1.codec, codec, "{name}");
    let turns = turns(codec, &units);
    let slack_ms = if is_copied { SLACK_MS } else { SLACK_CODED_MS };
    for (turn, expected) in turns.iter().zip([0.0, 500.0, 1_000.0]) {
        assert!((turn - expected).abs() < slack_ms, "{name}: {turns:?}");
    }
    let share = tone_share(&samples(feed.line(LINE_SOUND)));
    assert!(share > 0.8, "{name}: {share} of the sound is its tone");
    // At its times, and no sooner: the last packet came when the clip was over.
    let (first, last) = (feed.packets[0].0, feed.packets.last().unwrap().0);
    assert!((last - first).as_millis() >= 1_350, "{name}: {:?}", last - first);
    // Sound and picture begin together, by the clock that reports are made of.
    let captured = |line| feed.line(line).next().unwrap().1.captured_us.unwrap();
    let apart_ms = (captured(LINE_PICTURE) - captured(LINE_SOUND)).abs() / 1_000;
    assert!(apart_ms <= 60, "{name}: {apart_ms} ms apart");
}

#[test]
fn what_browsers_decode_goes_on_as_it_is_and_all_else_is_coded_anew() {
    let webm = ["-c:v", "libvpx", "-deadline", "realtime", "-g", "25", "-b:v", "300k", "-c:a", "libopus"];
    let reordered = ["-c:v", "libx264", "-bf", "2", "-preset", "veryfast", "-c:a", "libmp3lame"];
    let high = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "flac"];
    check_clip("plain.mp4", &H264, true, Codec::H264);
    check_clip("plain.webm", &webm, true, Codec::Vp8);
    check_clip("reordered.mp4", &reordered, false, Codec::Vp8);
    check_clip("other.mkv", &high, false, Codec::Vp8);
    let large = ["-vf", "scale=448:800", "-c:v", "mpeg4", "-q:v", "4", "-c:a", "pcm_s16le"];
    check_clip("large.avi", &large, false, Codec::Vp8);
}

#[test]
fn sound_alone_is_played() {
    let path = clip("tone.mp3", 400, &["-vn", "-c:a", "libmp3lame"]);
    let (mut feed, media) = Feed::ready(&path);
    assert!(media.sound && !media.picture, "{media:?}");
    feed.say(&ToFeed::Start);
    feed.plays_to_its_end();
    assert_eq!(feed.line(LINE_PICTURE).count(), 0);
    let times: Vec<u32> = feed.line(LINE_SOUND).map(|(_, packet)| packet.rtp_time).collect();
    assert!(times.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == 960), "20 ms each");
    assert!(tone_share(&samples(feed.line(LINE_SOUND))) > 0.8);
}

#[test]
fn it_stands_while_it_is_paused_shows_where_it_was_sought_and_goes_on() {
    let reordered = ["-c:v", "libx264", "-bf", "2", "-preset", "ultrafast", "-c:a", "aac"];
    for (name, coding) in [("sought.mp4", &H264[..]), ("sought-coded.mp4", &reordered[..])] {
        let path = clip(name, 3_000, coding);
        let (mut feed, media) = Feed::ready(&path);
        feed.say(&ToFeed::Change { number: 1, paused: Some(true), to_ms: None });
        feed.say(&ToFeed::Start);
        // Paused from the beginning, it shows its first picture and no more.
        feed.wait_for("the first picture", |feed| !feed.pictures(0).is_empty());
        feed.falls_silent(MS(400));
        let codec = feed.packets[0].1.codec;
        let shown = colours(codec, &feed.pictures(0));
        assert!(shown.len() == 1 && is_like(shown[0], COLOURS[0].1), "{name}: {shown:?}");
        let from = feed.packets.len();
        let at_ms = feed.change(2, None, Some(7_000));
        assert_eq!(at_ms, 7_000, "{name}");
        feed.wait_for("the picture there", |feed| !feed.pictures(from).is_empty());
        feed.falls_silent(MS(400));
        let shown = colours(codec, &feed.pictures(from));
        assert!(shown.len() == 1 && is_like(shown[0], COLOURS[2].1), "{name}: {shown:?}");
        assert_eq!(feed.line(LINE_SOUND).count(), 0, "{name}: nothing is heard of one that stands");
        let (from, since) = (feed.packets.len(), Instant::now());
        feed.change(3, Some(false), None);
        feed.plays_to_its_end();
        let left_ms = since.elapsed().as_millis();
        assert!((1_500..6_000).contains(&left_ms), "{name}: the rest took {left_ms} ms");
        let seen = colours(codec, &feed.pictures(0)[1..]);
        assert!(seen.iter().all(|seen| is_like(*seen, COLOURS[2].1)), "{name}: {seen:?}");
        // One stream for a receiver: its numbers and times go on.
        let numbers: Vec<u64> = feed.line(LINE_PICTURE).map(|(_, packet)| packet.seq_no).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{name}");
        assert!(feed.packets.len() > from && media.duration_ms.unwrap().abs_diff(9_000) < 100);
    }
}

#[test]
fn who_asks_for_a_key_frame_gets_one_though_the_file_has_none() {
    let mut sparse = H264;
    sparse[5] = "1000";
    let path = clip("sparse.mp4", 3_000, &sparse);
    let (mut feed, media) = Feed::ready(&path);
    assert!(media.is_copied);
    feed.say(&ToFeed::Start);
    feed.wait_for("pictures", |feed| feed.line(LINE_PICTURE).count() > 30);
    feed.say(&ToFeed::Keyframe);
    let coded = |feed: &Feed| {
        feed.packets.iter().position(|(_, packet)| packet.codec == Codec::Vp8 && packet.place.is_picture())
    };
    feed.wait_for("the picture coded anew", |feed| coded(feed).is_some());
    let from = coded(&feed).unwrap();
    feed.wait_for("some of it", |feed| feed.packets.len() > from + 100);
    let units = feed.pictures(from);
    assert!(units[0].keyframe, "it begins with a key frame");
    // It goes on where it was: no earlier colour is seen again.
    let seen = colours(Codec::Vp8, &units);
    let before = feed.packets[from].0.as_millis() as f64;
    assert!(before > 1_000.0 && seen.iter().all(|seen| !is_like(*seen, COLOURS[2].1)), "{before} {seen:?}");
    // One that codes makes it at once.
    let from = feed.packets.len();
    feed.say(&ToFeed::Keyframe);
    feed.wait_for("another", |feed| feed.pictures(from).iter().any(|unit| unit.keyframe));
}

trait IsPicture {
    fn is_picture(&self) -> bool;
}

impl IsPicture for Place {
    fn is_picture(&self) -> bool {
        *self == Place::Line { line: LINE_PICTURE, encoding: 0 }
    }
}

#[test]
fn what_is_no_media_or_names_other_files_is_refused_and_said_why() {
    let folder = FOLDER.path();
    let plain = clip("whole.mp4", 400, &H264);
    let bytes = fs::read(&plain).unwrap();
    let secret = plain.to_str().unwrap();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("words.txt", b"these are words, not a film".to_vec()),
        // Its index lies at the end.
        ("cut.mp4", bytes[..bytes.len() / 2].to_vec()),
        ("noise.webm", (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("list.m3u8", format!("#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n").into_bytes()),
        ("list.txt", format!("ffconcat version 1.0\nfile '{secret}'\n").into_bytes()),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec()),
        (
            "still.png",
            ffmpeg(
                "ffmpeg",
                &[
                    "-v",
                    "error",
                    "-f",
                    "lavfi",
                    "-i",
                    "color=red:s=64x64",
                    "-frames:v",
                    "1",
                    "-f",
                    "image2pipe",
                    "-c:v",
                    "png",
                    "-",
                ],
            ),
        ),
    ];
    for (name, bytes) in cases {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        let mut feed = Feed::of(&path);
        feed.wait_for("a refusal", |feed| !feed.said.is_empty());
        let is_refused = matches!(
            feed.said[0],
            FromFeed::Failed(FeedFault::Unreadable | FeedFault::Empty | FeedFault::Undecodable)
        );
        assert!(is_refused, "{name}: {:?}", feed.said);
        let status = feed.process.child.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{name}");
    }
}

#[test]
fn a_file_that_is_cut_plays_as_far_as_it_goes() {
    let path = clip("cut.webm", 600, &["-c:v", "libvpx", "-g", "25", "-b:v", "300k", "-c:a", "libopus"]);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
    let (mut feed, _) = Feed::ready(&path);
    feed.say(&ToFeed::Start);
    feed.plays_to_its_end();
    assert!(feed.pictures(0).len() > 10);
}

#[test]
fn it_ends_with_its_socket_and_knows_no_secret() {
    let path = clip("ends.mp4", 3_000, &H264);
    let (mut feed, _) = Feed::ready(&path);
    feed.say(&ToFeed::Start);
    feed.wait_for("packets", |feed| feed.packets.len() > 20);
    let environment = fs::read(format!("/proc/{}/environ", feed.process.child.id())).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("PATH=") && !environment.contains("CARGO"), "{environment}");
    feed.process.socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(feed.process.child.wait().unwrap().success());
}

#[test]
fn a_live_stream_goes_on_at_once() {
    for (name, coding, is_copied, codec) in [
        ("live.flv", &H264[..], true, Codec::H264),
        ("live-reordered.flv", &["-c:v", "libx264", "-bf", "2", "-c:a", "aac"][..], false, Codec::Vp8),
    ] {
        let bytes = fs::read(clip(name, 1_000, coding)).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut feed = Feed::reading(theirs.into(), FeedSettings { live: true, ..SETTINGS });
        let writer = std::thread::spawn(move || ours.write_all(&bytes));
        feed.wait_for("what is in the stream", |feed| !feed.said.is_empty());
        let FromFeed::Ready(media) = feed.said[0] else { panic!("{name}: {:?}", feed.said) };
        assert!(media.picture && media.sound && media.is_copied == is_copied, "{name}: {media:?}");
        assert_eq!(media.duration_ms, None);
        feed.say(&ToFeed::Start);
        feed.plays_to_its_end();
        writer.join().unwrap().unwrap();
        let units = feed.pictures(0);
        let turns = turns(codec, &units);
        for (turn, expected) in turns.iter().zip([0.0, 1_000.0, 2_000.0]) {
            assert!((turn - expected).abs() < SLACK_MS, "{name}: {turns:?}");
        }
        assert!(tone_share(&samples(feed.line(LINE_SOUND))) > 0.8, "{name}");
    }
}
