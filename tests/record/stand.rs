//! A recorder's process, senders that feed it, and FFmpeg's command line, which judges what it wrote.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use antiphon::core::ids::{Identity, RoomName};
use antiphon::core::mix::MixPacket;
use antiphon::core::protocol::Source;
use antiphon::core::recording::manifest::Manifest;
use antiphon::core::recording::{
    EndReason, FromRecorder, RecordedTrack, RecorderSettings, RecordingId, RecordingState, ToRecorder,
};
use antiphon::worker::process::{Spawned, spawn};
use antiphon::worker::wire::{self, MESSAGE_BYTES_MAX, Message};

use crate::sender::Sender;

/// What is waited for at most. A slow machine with other work gets there too.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The program of this build, or for measurements that of another (`ANTIPHON_BIN`).
pub fn program() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_antiphon");
    std::env::var_os("ANTIPHON_BIN").map_or_else(|| built.into(), PathBuf::from)
}

pub struct Stand {
    recorder: Spawned,
    pub folder: PathBuf,
    _root: tempfile::TempDir,
    pub began: Instant,
    pub said: Vec<FromRecorder>,
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

impl Stand {
    /// A recorder that has begun.
    pub fn new(change: impl FnOnce(&mut RecorderSettings)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("room").join("id");
        let recording = RecordingState {
            id: RecordingId::parse("id").unwrap(),
            tracks: true,
            mix: false,
            active: true,
            started_at_ms: unix_ms(),
            by: None,
        };
        let mut settings = RecorderSettings {
            room: RoomName::parse("room").unwrap(),
            recording,
            part: 1,
            folder: folder.to_str().unwrap().to_owned(),
            disk_free_min_bytes: 0,
            bytes_max: 0,
        };
        change(&mut settings);
        let recorder = spawn(&program(), "record").unwrap();
        recorder.socket.set_nonblocking(false).unwrap();
        let (began, said) = (Instant::now(), Vec::new());
        let mut stand = Self { recorder, folder, _root: root, began, said };
        stand.say(&ToRecorder::Begin(Box::new(settings)));
        stand.wait_for(|said| said.contains(&FromRecorder::Ready));
        stand
    }

    pub fn say(&self, words: &ToRecorder) {
        let mut bytes = Vec::new();
        wire::write_words(words, &mut bytes).unwrap();
        self.recorder.socket.send(&bytes).unwrap();
    }

    pub fn send(&self, packet: &MixPacket) {
        let mut bytes = Vec::new();
        wire::write_packet(packet, &mut bytes);
        self.recorder.socket.send(&bytes).unwrap();
    }

    /// All tracks of these senders.
    pub fn name(&self, senders: &[&Sender<'_>]) {
        self.name_as(senders, [Source::Camera, Source::Microphone]);
    }

    pub fn name_as(&self, senders: &[&Sender<'_>], [picture, sound]: [Source; 2]) {
        let track = |serial: u32, source| RecordedTrack {
            serial,
            source,
            identity: Identity::parse(&format!("p{}", serial / 10)).unwrap(),
            name: format!("Person {}", serial / 10),
        };
        let tracks = senders
            .iter()
            .flat_map(|sender| [track(sender.picture_serial, picture), track(sender.sound_serial, sound)]);
        self.say(&ToRecorder::Tracks(tracks.collect()));
    }

    /// Takes what is said until `done` says so of it, or the recorder closes its socket.
    pub fn wait_for(&mut self, done: impl Fn(&[FromRecorder]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.said) {
            assert!(Instant::now() < deadline, "waited in vain; said was {:?}", self.said);
            if !self.listen(Duration::from_millis(50)) {
                return;
            }
        }
    }

    /// Takes what is said. False where the recorder is gone.
    fn listen(&mut self, wait: Duration) -> bool {
        self.recorder.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        match (&self.recorder.socket).read(&mut bytes) {
            Ok(0) => false,
            Ok(length) => {
                if let Message::Words(words) = wire::read(&bytes[..length]).unwrap() {
                    self.said.push(words);
                }
                true
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => true,
            Err(_) => false,
        }
    }

    /// Has these senders send for so long; they send key frames when asked.
    pub fn run(&mut self, senders: &mut [&mut Sender<'_>], length: Duration) {
        let until = Instant::now() + length;
        while Instant::now() < until {
            for sender in senders.iter_mut() {
                for packet in sender.arrived(Instant::now()) {
                    self.send(&packet);
                }
            }
            let before = self.said.len();
            self.listen(Duration::from_millis(2));
            for words in &self.said[before..] {
                if let FromRecorder::Keyframe { serial } = words {
                    let asked = senders.iter_mut().find(|sender| sender.picture_serial == *serial);
                    asked.into_iter().for_each(|sender| sender.begin_again());
                }
            }
        }
    }

    /// The recorder is killed, as by the kernel.
    pub fn kill(mut self) -> Folder {
        self.recorder.child.kill().unwrap();
        self.recorder.child.wait().unwrap();
        Folder { path: self.folder, _root: self._root }
    }

    /// The room has enough: the recorder puts its files in order, and ends.
    pub fn end(self, reason: EndReason) -> Folder {
        self.say(&ToRecorder::End { at_ms: unix_ms(), reason });
        self.close()
    }

    /// The node closes the socket.
    pub fn close(self) -> Folder {
        let Self { recorder: Spawned { mut child, socket }, folder, _root, .. } = self;
        drop(socket);
        let status = child.wait().unwrap();
        assert!(status.success(), "the recorder ended with {status}");
        Folder { path: folder, _root }
    }
}

/// What a recorder has left.
pub struct Folder {
    pub path: PathBuf,
    _root: tempfile::TempDir,
}

impl Folder {
    pub fn manifest(&self) -> Manifest {
        serde_json::from_slice(&fs::read(self.path.join("recording.json")).unwrap()).unwrap()
    }

    /// The file of a track's kind: its only one.
    pub fn only(&self, ending: &str) -> PathBuf {
        let all: Vec<PathBuf> = fs::read_dir(&self.path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(ending))
            .collect();
        assert_eq!(all.len(), 1, "{ending}: {all:?}");
        all[0].clone()
    }

    /// As a node does with what was cut.
    pub fn finish(&self) {
        let status = Command::new(program()).args(["record", "--finish"]).arg(&self.path).status().unwrap();
        assert!(status.success());
    }
}

/// Runs a command of FFmpeg's; what it says on standard output.
pub fn ffmpeg(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().expect("FFmpeg's command line is installed");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.trim().is_empty(), "{program} {arguments:?}: {words}");
    output.stdout
}

/// Decodes every frame, and fails on the first that cannot be.
pub fn decodes(path: &Path) {
    let path = path.to_str().unwrap();
    ffmpeg("ffmpeg", &["-v", "error", "-xerror", "-err_detect", "explode", "-i", path, "-f", "null", "-"]);
}

/// What FFmpeg says of a file.
pub fn probe(path: &Path) -> serde_json::Value {
    let entries = "format=duration,start_time:stream=index,codec_name,codec_type,start_time,nb_read_packets,\
                   nb_read_frames:stream_tags=title:chapter=start_time,end_time:chapter_tags=title";
    let path = path.to_str().unwrap();
    let said = ffmpeg(
        "ffprobe",
        &["-v", "error", "-count_frames", "-show_chapters", "-show_entries", entries, "-of", "json", path],
    );
    serde_json::from_slice(&said).unwrap()
}

/// Times of the pictures of a file, in milliseconds, and how bright each is.
pub fn pictures(path: &Path) -> Vec<(f64, u8)> {
    let path = path.to_str().unwrap();
    let times = ffmpeg(
        "ffprobe",
        &["-v", "error", "-select_streams", "v:0", "-show_entries", "frame=pts_time", "-of", "csv=p=0", path],
    );
    let times = String::from_utf8(times).unwrap();
    let times = times.lines().map(|line| line.trim_end_matches(',')).filter(|line| !line.is_empty());
    let times = times.map(|line| line.parse::<f64>().unwrap() * 1_000.0);
    let luma = ffmpeg(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-i",
            path,
            "-map",
            "v:0",
            "-vf",
            "scale=1:1:flags=area",
            "-pix_fmt",
            "gray",
            "-vsync",
            "passthrough",
            "-f",
            "rawvideo",
            "-",
        ],
    );
    let times: Vec<f64> = times.collect();
    assert_eq!(times.len(), luma.len(), "a picture without a time in {path}");
    times.into_iter().zip(luma).collect()
}

/// The sound of a file from the recording's beginning, one channel of 48 kHz.
pub fn samples(path: &Path) -> Vec<f64> {
    let path = path.to_str().unwrap();
    let bytes = ffmpeg(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-copyts",
            "-i",
            path,
            "-map",
            "a:0",
            "-af",
            "aresample=async=1:first_pts=0",
            "-ac",
            "1",
            "-ar",
            "48000",
            "-f",
            "s16le",
            "-",
        ],
    );
    bytes.chunks_exact(2).map(|sample| f64::from(i16::from_le_bytes([sample[0], sample[1]]))).collect()
}

/// When pictures turn bright.
pub fn flashes(pictures: &[(f64, u8)]) -> Vec<f64> {
    pictures.windows(2).filter(|pair| pair[0].1 < 125 && pair[1].1 >= 125).map(|pair| pair[1].0).collect()
}

/// When the tone begins, in milliseconds, to 5 ms.
pub fn beeps(samples: &[f64]) -> Vec<f64> {
    let loud: Vec<bool> = samples
        .chunks_exact(240)
        .map(|part| crate::sound::amplitude(part, crate::sender::TONE_HZ) > 1_500.0)
        .collect();
    (1..loud.len()).filter(|&at| loud[at] && !loud[at - 1]).map(|at| at as f64 * 5.0).collect()
}

/// How far the nearest beep is from each flash, in the median.
pub fn apart_ms(flashes: &[f64], beeps: &[f64]) -> f64 {
    let nearest =
        |flash: &f64| beeps.iter().map(|beep| beep - flash).min_by(|a, b| a.abs().total_cmp(&b.abs()));
    let mut apart: Vec<f64> = flashes.iter().filter_map(nearest).collect();
    assert!(apart.len() >= 2, "{flashes:?} {beeps:?}");
    apart.sort_by(f64::total_cmp);
    apart[apart.len() / 2]
}
