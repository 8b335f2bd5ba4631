//! `antiphon bench compare`: the same synthetic room forwarded and mixed, and what each costs and gives.
//!
//! A room of people who all send a recorded picture with a clock in it and take what the room gives. One of
//! them is watched through a decoder of ours, then a real browser joins. All of it runs on one machine, so
//! there is one clock; how loaded the machine was is part of the result.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use gstreamer as gst;
use reqwest::Url;

use super::clip::{Clip, SoundClip};
use super::source::simulcast;
use crate::core::mix::MixSettings;
use crate::core::protocol::Mode;
use room::{Plan, Room};
use server::Server;

pub mod audience;
mod chromium;
mod clock;
mod measure;
mod page;
mod plane;
mod quality;
mod record;
pub mod report;
mod room;
mod scene;
mod server;
mod verdict;
mod watcher;

use report::{Comparison, Row};

const FRAMES_PER_SECOND: u32 = 30;
/// Bits per second of a camera's best encoding.
const CAMERA_BPS: u64 = 1_500_000;
/// For estimates, layers and bitrates to settle once everyone is seen.
const SETTLE: Duration = Duration::from_secs(5);
const PEOPLE_MAX: u32 = 25;

/// The comparison cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("GStreamer: {0}; `antiphon mix --check` says what is missing")]
    Gstreamer(String),
    #[error("the server: {0}")]
    Server(String),
    #[error("a synthetic person is out: {0}")]
    Join(String),
    #[error("{people} of {expected} tiles were seen in time: the room does not run on this machine")]
    Unseen { people: u32, expected: u32 },
    #[error("--server-pid is needed with --url, to read what the server uses")]
    Pid,
    #[error("a file, a thread or a socket cannot be had: {0}")]
    System(#[from] io::Error),
    #[error("{path} is no report of `antiphon bench compare`: {source}", path = .path.display())]
    Report { path: PathBuf, source: serde_json::Error },
    #[error("{path} is of another machine, version or setting: without --add it is replaced", path = .0.display())]
    Differs(PathBuf),
    #[error("the report is no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn people(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|people| (2..=PEOPLE_MAX).contains(people));
    number.ok_or_else(|| format!("accepted: 2 to {PEOPLE_MAX} people"))
}

/// Options of `antiphon bench compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// Sizes of the room
    #[arg(long, value_delimiter = ',', default_values_t = [2, 4, 9, 16, 25], value_parser = people)]
    pub people: Vec<u32>,
    /// Seconds to measure in each mode and size
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    pub seconds: u32,
    /// Folder for compare.html, compare.json and the servers' log
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// Keep the rows of an earlier run in the folder, of sizes that are not measured now
    #[arg(long)]
    pub add: bool,
    /// Seconds of recording that everyone plays over and over
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(4..=120))]
    pub clip_seconds: u32,
    /// The browser's program; found by its usual names if absent
    #[arg(long, value_name = "PATH")]
    pub chromium: Option<PathBuf>,
    /// Measure without a browser
    #[arg(long, conflicts_with = "chromium")]
    pub no_chromium: bool,
    /// First port of the servers that are started, HTTP; media are on the next ones. Absent: any that is free
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Measure this server, which must let anyone in, instead of starting one for each row
    #[arg(long, requires = "server_pid")]
    pub url: Option<Url>,
    /// Its process
    #[arg(long, requires = "url")]
    pub server_pid: Option<u32>,
}

/// What everyone plays.
pub struct Recordings {
    pub clip: Arc<Clip>,
    pub voice: SoundClip,
    pub quiet: SoundClip,
}

/// Loads GStreamer; once is enough.
fn start_gstreamer() -> Result<(), CompareError> {
    gst::init().map_err(|error| CompareError::Gstreamer(error.to_string()))
}

/// Measures, and writes the report as JSON and as a page.
///
/// # Errors
/// The comparison cannot be made; see [`CompareError`]. A size that does not run is a row that says so.
pub fn run(args: &CompareArgs) -> Result<(), CompareError> {
    fs::create_dir_all(&args.out)?;
    let json_path = args.out.join("compare.json");
    let earlier = if args.add { earlier(&json_path)? } else { None };
    start_gstreamer()?;
    eprintln!("recording {} s of video in three encodings", args.clip_seconds);
    let recordings = record(args.clip_seconds)?;
    let mut rows = Vec::new();
    for &people in &args.people {
        for mode in [Mode::Sfu, Mode::Mcu] {
            eprintln!("{people} people, {}", report::mode_name(mode));
            rows.push(measure_row(args, people, mode, &recordings));
        }
    }
    let mut comparison = Comparison::new(args, &recordings.clip, rows);
    if let Some(earlier) = earlier
        && !comparison.add(earlier)
    {
        return Err(CompareError::Differs(json_path));
    }
    fs::write(&json_path, serde_json::to_string_pretty(&comparison)? + "\n")?;
    let html_path = args.out.join("compare.html");
    fs::write(&html_path, page::render(&comparison))?;
    for sentence in &comparison.verdict {
        println!("{sentence}");
    }
    println!("{}\n{}", html_path.display(), json_path.display());
    Ok(())
}

/// The report of an earlier run; none where there was none.
fn earlier(path: &Path) -> Result<Option<Comparison>, CompareError> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(None) };
    let report = serde_json::from_str(&text);
    report.map(Some).map_err(|source| CompareError::Report { path: path.to_owned(), source })
}

/// # Errors
/// GStreamer lacks an element, or an encoder gives up.
pub fn record(clip_seconds: u32) -> Result<Recordings, CompareError> {
    let frames = (clip_seconds * FRAMES_PER_SECOND).min(clock::NUMBERS);
    Ok(Recordings {
        clip: Arc::new(record::video(&simulcast(CAMERA_BPS), frames, FRAMES_PER_SECOND)?),
        voice: record::sound(true)?,
        quiet: record::sound(false)?,
    })
}

/// One size in one mode. What goes wrong is said in the row.
fn measure_row(args: &CompareArgs, people: u32, mode: Mode, recordings: &Recordings) -> Row {
    let plan = Plan { people, mode, canvas: MixSettings::default().canvas };
    let measured = (|| {
        let server = match (&args.url, args.server_pid) {
            (Some(url), Some(pid)) => Server::at(url.clone(), pid)?,
            (Some(_), None) => return Err(CompareError::Pid),
            (None, _) => Server::start(args.port, &args.out)?,
        };
        let mut room = Room::open(&server, plan, recordings)?;
        room.drive_for(SETTLE)?;
        let row = measure::row(args, &server, &mut room);
        room.close();
        row
    })();
    measured.unwrap_or_else(|error| {
        eprintln!("  {error}");
        Row { failure: Some(error.to_string()), ..Row::empty(people, mode) }
    })
}
