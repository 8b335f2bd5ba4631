//! The comparison as data: one row for each size and mode. Rates are bits per second of UDP payload, times
//! milliseconds, CPU in cores: 1.0 is one core, fully busy.

use std::fs;

use serde::{Deserialize, Serialize};

use super::quality::Quality;
use super::{CompareArgs, FRAMES_PER_SECOND, SETTLE, verdict};
use crate::bench::clip::Clip;
use crate::core::mix::MixSettings;
use crate::core::protocol::Mode;

/// Of this form; a later one that means something else has another number.
const SCHEMA: u32 = 2;

/// All of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    pub schema: u32,
    /// Of the program that measured.
    pub version: String,
    /// When, UTC.
    pub made_at_unix_s: u64,
    pub machine: Computer,
    pub settings: Settings,
    /// By size, forwarded before mixed.
    pub rows: Vec<Row>,
    /// What the rows say, in words.
    pub verdict: Vec<String>,
}

/// What it ran on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Computer {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub seconds: u32,
    pub frames_per_second: u32,
    pub canvas: [u32; 2],
    /// Of a camera, lowest first.
    pub encodings: Vec<Layer>,
    pub clip_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub width: u16,
    pub height: u16,
    /// As set.
    pub bitrate_bps: u64,
    /// As the recording has it.
    pub recorded_bps: u64,
}

/// One size in one mode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub people: u32,
    pub mode: Mode,
    /// Why there are no figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Box<Figures>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// In the room.
    pub people: u32,
    pub seconds: f64,
    pub server: ServerCost,
    pub ingress_bps: f64,
    pub egress_bps: f64,
    pub downlink_bps: Spread,
    pub tiles: Tiles,
    /// From handing a picture to its sender until a viewer has decoded it.
    pub latency_ms: Percentiles,
    /// The same of all others while one camera has fallen silent without a word.
    pub latency_one_silent_ms: Percentiles,
    pub frames: Frames,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Tiles that quality is the mean of.
    pub quality_samples: usize,
    pub browser: Browser,
    pub load: Load,
    /// Why the figures are not those of an idle machine; empty where it had room.
    pub strained: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ServerCost {
    pub node_cores: f64,
    pub mixer_cores: f64,
    pub node_rss_bytes: u64,
    pub mixer_rss_bytes: u64,
    /// Processes that mix.
    pub mixers: usize,
}

impl ServerCost {
    pub fn cores(&self) -> f64 {
        self.node_cores + self.mixer_cores
    }

    pub fn rss_bytes(&self) -> u64 {
        self.node_rss_bytes + self.mixer_rss_bytes
    }
}

/// Over all people.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub mean: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Zeros of nothing.
    pub fn of(values: &[f64]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        Self {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(0.0, f64::max),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tiles {
    pub expected: u32,
    pub seen: u32,
    /// Size of a tile on the screen.
    pub width: u32,
    pub height: u32,
    /// Size of what came: one stream's picture, or the mix.
    pub picture_width: usize,
    pub picture_height: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: usize,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// Of milliseconds; zeros of nothing.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).clamp(1, values.len().max(1));
            values.get(rank - 1).map_or(0.0, |ms| (ms * 10.0).round() / 10.0)
        };
        Self { count: values.len(), p50: at(50), p95: at(95), p99: at(99), max: at(100) }
    }
}

/// Pictures of those who are to be seen, times one viewer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Frames {
    pub sent: u64,
    pub seen: u64,
    /// Decoded pictures a second: of all streams together, or of the mix.
    pub decoded_per_second: f64,
    /// Tiles whose clock could not be read.
    pub unreadable: u64,
}

impl Frames {
    /// Of what was sent, what was never seen.
    pub fn dropped_ratio(&self) -> f64 {
        1.0 - self.seen.min(self.sent) as f64 / self.sent.max(1) as f64
    }
}

/// A real browser in the room, or why there was none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Browser {
    Measured(BrowserFigures),
    NotMeasured(String),
}

impl Browser {
    pub fn figures(&self) -> Option<&BrowserFigures> {
        match self {
            Self::Measured(figures) => Some(figures),
            Self::NotMeasured(_) => None,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BrowserFigures {
    /// Decoded, of those received.
    pub frames_per_second: f64,
    pub frames_received_per_second: f64,
    pub key_frames: f64,
    pub key_frames_asked: f64,
    pub nacks: f64,
    /// Pictures that stood still for long, as the browser counts it.
    pub freezes: f64,
    pub decode_ms_per_frame: f64,
    /// Over all streams.
    pub decode_ms_per_second: f64,
    pub frames_dropped: f64,
    /// What its jitter buffer holds a picture back, on average.
    pub jitter_buffer_ms: f64,
    pub downlink_bps: f64,
    /// Cores that all its processes use.
    pub cores: f64,
    /// From handing a picture to its sender until it is due on the screen.
    pub latency_ms: Percentiles,
}

/// The machine while it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Used by all.
    pub busy_cores: f64,
    /// By this tool, its decoders included; and by its loop alone, which is one thread.
    pub tool_cores: f64,
    pub loop_cores: f64,
    /// By neither the server nor this tool.
    pub others_cores: f64,
    pub steal_cores: f64,
    /// How late pictures were handed over, at the 95th percentile.
    pub late_ms_p95: f64,
}

impl Row {
    pub fn empty(people: u32, mode: Mode) -> Self {
        Self { people, mode, failure: None, figures: None }
    }
}

impl Comparison {
    pub fn new(args: &CompareArgs, clip: &Clip, rows: Vec<Row>) -> Self {
        let canvas = MixSettings::default().canvas;
        let encodings = clip.encodings.iter().map(|recorded| {
            let bytes: usize = recorded.frames.iter().map(|frame| frame.data.len()).sum();
            let seconds = f64::from(clip.len()) / f64::from(clip.frames_per_second);
            Layer {
                width: recorded.encoding.width,
                height: recorded.encoding.height,
                bitrate_bps: recorded.encoding.bitrate_bps,
                recorded_bps: (bytes as f64 * 8.0 / seconds) as u64,
            }
        });
        let settings = Settings {
            seconds: args.seconds,
            frames_per_second: FRAMES_PER_SECOND,
            canvas: [canvas.width, canvas.height],
            encodings: encodings.collect(),
            clip_seconds: args.clip_seconds,
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            made_at_unix_s: now.unwrap_or(SETTLE).as_secs(),
            machine: Computer::this(),
            settings,
            verdict: verdict::sentences(&rows),
            rows,
        }
    }

    /// Takes over rows of sizes that it has none of. False where they are of another machine, version or
    /// setting.
    pub fn add(&mut self, earlier: Self) -> bool {
        let is_alike = (self.schema, &self.version, &self.machine, &self.settings)
            == (earlier.schema, &earlier.version, &earlier.machine, &earlier.settings);
        if is_alike {
            let measured: Vec<u32> = self.rows.iter().map(|row| row.people).collect();
            self.rows.extend(earlier.rows.into_iter().filter(|row| !measured.contains(&row.people)));
            self.rows.sort_by_key(|row| (row.people, row.mode == Mode::Mcu));
            self.verdict = verdict::sentences(&self.rows);
        }
        is_alike
    }

    /// The figures of one size and mode, if it ran.
    pub fn figures(&self, people: u32, mode: Mode) -> Option<&Figures> {
        figures(&self.rows, people, mode)
    }
}

/// See [`Comparison::figures`].
pub fn figures(rows: &[Row], people: u32, mode: Mode) -> Option<&Figures> {
    rows.iter().find(|row| row.people == people && row.mode == mode)?.figures.as_deref()
}

impl Computer {
    fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.unwrap_or_default() * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// For people.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Sfu => "forwarded",
        Mode::Mcu => "mixed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_values_that_were_there() {
        let all = Percentiles::of((1..=200).map(f64::from).collect());
        assert_eq!((all.count, all.p50, all.p95, all.p99, all.max), (200, 100.0, 190.0, 198.0, 200.0));
        let one = Percentiles::of(vec![7.04]);
        assert_eq!((one.p50, one.max), (7.0, 7.0));
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn what_was_never_seen_was_dropped() {
        let frames = |sent, seen| Frames { sent, seen, decoded_per_second: 0.0, unreadable: 0 };
        assert!((frames(100, 75).dropped_ratio() - 0.25).abs() < 1e-9);
        assert!(frames(100, 102).dropped_ratio().abs() < 1e-9 && frames(0, 0).dropped_ratio() > 0.99);
    }

    #[test]
    fn this_machine_is_known() {
        let this = Computer::this();
        assert!(this.cores > 0 && this.memory_bytes > 1 << 20 && !this.kernel.is_empty(), "{this:?}");
    }
}
