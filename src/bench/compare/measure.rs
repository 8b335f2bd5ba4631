//! Measures a room that runs: a window without, one with a silent camera, one with a browser, in this order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::chromium::{self, Task, Watched};
use super::quality::Quality;
use super::report::{
    Browser, BrowserFigures, Figures, Frames, Load, Percentiles, Row, ServerCost, Spread, Tiles,
};
use super::room::{Edge, Room, Track, nanoseconds, whose};
use super::scene::Scene;
use super::server::Server;
use super::watcher::{Kept, Seen};
use super::{CompareArgs, CompareError, FRAMES_PER_SECOND};
use crate::core::protocol::Mode;

/// For pictures under way to arrive before and after a window.
const GRACE: Duration = Duration::from_millis(500);
/// A camera that is silent lifts the mix's latency from its first missing picture on, if at all.
const SILENT_SECONDS: u32 = 5;
/// For the browser to fill its buffers and raise its layers.
const BROWSER_SETTLE_SECONDS: u32 = 6;
/// Beyond its own time the browser may take so long before it is given up.
const BROWSER_WITHIN: Duration = Duration::from_secs(90);
/// A browser that decodes less of what is sent shows another room than ours. A mix under pressure has half.
const BROWSER_PART_MIN: f64 = 0.4;
/// Part of a tile that is judged, in hundredths: neither the clock at its top, nor the frame around who
/// speaks, nor the name at the bottom of a mixed tile.
const JUDGED: [usize; 4] = [5, 20, 90, 60];
/// Above these the machine, the tool or others were in the way.
const BUSY_RATIO_MAX: f64 = 0.9;
const OTHERS_CORES_MAX: f64 = 0.3;
const LOOP_CORES_MAX: f64 = 0.8;
const LATE_MS_MAX: f64 = 10.0;

/// All figures of one size and mode.
///
/// # Errors
/// The server is gone, or the system gives no more.
pub fn row(args: &CompareArgs, server: &Server, room: &mut Room) -> Result<Row, CompareError> {
    let start = room.edge(server)?;
    let seen = room.watch_for(Duration::from_secs(u64::from(args.seconds)))?;
    let end = room.edge(server)?;
    let tracks = room.tracks();
    // The last to be sent, which every viewer but it itself gets.
    let silent = room.plan.people as usize - 1;
    room.silence_camera(silent);
    let seconds_silent = SILENT_SECONDS.min(args.seconds);
    let while_silent = room.watch_for(Duration::from_secs(u64::from(seconds_silent)))?;
    let tracks_silent = room.tracks();
    let quality = judge(room, &tracks, &seen);
    room.wake_camera(silent);
    let browser = watch_with_browser(args, server, room)?;

    let base = room.base();
    let span = [nanoseconds(base, start.at), nanoseconds(base, end.at)];
    let is_expected = |person: usize| room.plan.mode == Mode::Mcu || person != 0;
    let mut latencies = ages(base, &tracks, &seen);
    latencies.retain(|(person, ..)| is_expected(*person));
    let people: BTreeSet<usize> = latencies.iter().map(|(person, ..)| *person).collect();
    let sent = tracks.iter().enumerate().filter(|(person, _)| is_expected(*person));
    let sent: usize = sent.map(|(_, track)| track.handed_over_in(span)).sum();
    let area = room.plan.areas().first().copied();
    let (picture_width, picture_height) = seen.size.unwrap_or_default();
    let seconds = end.at.duration_since(start.at).as_secs_f64();
    let load = load(&start, &end, &tracks, span);
    let silent_ages = ages(base, &tracks_silent, &while_silent);
    let figures = Figures {
        people: room.plan.people,
        seconds,
        server: server_cost(&start, &end),
        ingress_bps: (end.traffic.sent_bytes - start.traffic.sent_bytes) as f64 * 8.0 / seconds,
        egress_bps: (end.traffic.received_bytes - start.traffic.received_bytes) as f64 * 8.0 / seconds,
        downlink_bps: downlink(&start, &end, seconds),
        tiles: Tiles {
            expected: room.plan.tiles(),
            seen: people.len() as u32,
            width: area.map_or(0, |area| area.width),
            height: area.map_or(0, |area| area.height),
            picture_width,
            picture_height,
        },
        latency_ms: Percentiles::of(latencies.iter().map(|(_, ms)| *ms).collect()),
        latency_one_silent_ms: Percentiles::of(
            silent_ages.iter().filter(|(person, _)| *person != silent).map(|(_, ms)| *ms).collect(),
        ),
        frames: Frames {
            sent: sent as u64,
            seen: latencies.len() as u64,
            decoded_per_second: seen.pictures as f64 / seconds,
            unreadable: seen.unreadable,
        },
        quality: Quality::mean(&quality),
        quality_samples: quality.len(),
        browser,
        strained: strained(&load),
        load,
    };
    Ok(Row { figures: Some(Box::new(figures)), ..Row::empty(room.plan.people, room.plan.mode) })
}

/// Of each picture seen: whose it is, and how old it was, in milliseconds.
fn ages(base: Instant, tracks: &[Track], seen: &Seen) -> Vec<(usize, f64)> {
    let age = |sighting: &super::watcher::Sighting| {
        let (person, age_ns) = whose(tracks, sighting.number, nanoseconds(base, sighting.at))?;
        Some((person, age_ns as f64 / 1e6))
    };
    seen.sightings.iter().filter_map(age).collect()
}

fn server_cost(start: &Edge, end: &Edge) -> ServerCost {
    let before: BTreeMap<u32, _> = start.processes.mixers.iter().copied().collect();
    let mixers = end.processes.mixers.iter();
    let cores = |(pid, after): &(u32, crate::bench::process::Snapshot)| {
        before.get(pid).map_or(0.0, |before| before.until(after).cpu_share)
    };
    ServerCost {
        node_cores: start.processes.node.until(&end.processes.node).cpu_share,
        // A sum of nothing would be -0.
        mixer_cores: mixers.clone().map(cores).fold(0.0, |sum, cores| sum + cores),
        node_rss_bytes: end.processes.node.rss_bytes,
        mixer_rss_bytes: mixers.map(|(_, after)| after.rss_bytes).sum(),
        mixers: end.processes.mixers.len(),
    }
}

fn downlink(start: &Edge, end: &Edge, seconds: f64) -> Spread {
    let pairs = start.received_bytes.iter().zip(&end.received_bytes);
    let rates: Vec<f64> = pairs.map(|(from, to)| (to - from) as f64 * 8.0 / seconds).collect();
    Spread::of(&rates)
}

fn load(start: &Edge, end: &Edge, tracks: &[Track], span: [u64; 2]) -> Load {
    let seconds = end.at.duration_since(start.at).as_secs_f64();
    let tool = start.own.until(&end.own).cpu_share;
    let server = server_cost(start, end).cores();
    let noise = start.machine.until(&end.machine, seconds, tool + server);
    let late = tracks.iter().flat_map(|track| track.late_ms_in(span)).collect();
    Load {
        busy_cores: start.machine.until(&end.machine, seconds, 0.0).others_cores,
        tool_cores: tool,
        loop_cores: end.loop_cpu.saturating_sub(start.loop_cpu).as_secs_f64() / seconds,
        others_cores: noise.others_cores,
        steal_cores: noise.steal_cores,
        late_ms_p95: Percentiles::of(late).p95,
    }
}

/// In words, why the figures say less of the modes than of the machine.
fn strained(load: &Load) -> Vec<String> {
    let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
    let mut reasons = Vec::new();
    if load.busy_cores + load.steal_cores > BUSY_RATIO_MAX * cores {
        let used = load.busy_cores + load.steal_cores;
        reasons.push(format!("the machine was full: {used:.1} of its {cores} cores in use"));
    }
    if load.others_cores + load.steal_cores > OTHERS_CORES_MAX {
        let others = load.others_cores + load.steal_cores;
        reasons.push(format!("others used {others:.1} cores"));
    }
    if load.loop_cores > LOOP_CORES_MAX {
        reasons.push(format!("the tool's loop used {:.1} of the one core it can", load.loop_cores));
    }
    if load.late_ms_p95 > LATE_MS_MAX {
        reasons
            .push(format!("the tool sent pictures {:.0} ms late at the 95th percentile", load.late_ms_p95));
    }
    reasons
}

/// Each tile that was kept, against what was sent, scaled to the tile.
fn judge(room: &mut Room, tracks: &[Track], seen: &Seen) -> Vec<Quality> {
    let Some(area) = room.plan.areas().first().copied() else { return Vec::new() };
    let (width, height) = (area.width as usize, area.height as usize);
    let scene = Scene::default();
    let mut sent = BTreeMap::new();
    let mut judged = Vec::new();
    for Kept { number, luma } in seen.kept.iter().filter(|_| !tracks.is_empty()) {
        let sent = sent.entry(*number).or_insert_with(|| {
            let [luma, ..] = scene.paint(*number, FRAMES_PER_SECOND).planes;
            luma.scaled(width, height)
        });
        let seen = luma.scaled(width, height);
        let [left, top, across, down] = JUDGED;
        let part = [width * left / 100, height * top / 100, width * across / 100, height * down / 100];
        let [seen, sent] = [&seen, &*sent].map(|plane| plane.view().cut(part[0], part[1], part[2], part[3]));
        judged.extend(seen.zip(sent).and_then(|(seen, sent)| Quality::of(&seen, &sent)));
        // The people's connections want to be looked after meanwhile; what they see is not measured.
        let _ = room.drive_for(Duration::from_millis(1));
    }
    judged
}

fn watch_with_browser(args: &CompareArgs, server: &Server, room: &mut Room) -> Result<Browser, CompareError> {
    if args.no_chromium {
        return Ok(Browser::NotMeasured("not asked for".into()));
    }
    let Some(program) = chromium::find(args.chromium.as_deref()) else {
        return Ok(Browser::NotMeasured("there is no Chromium on this machine".into()));
    };
    room.drive_for(GRACE)?;
    let task = Task {
        room: room.name.clone(),
        mode: room.plan.mode,
        people: room.plan.people,
        height: room.plan.wished_height(),
        tiles: room.plan.areas(),
        canvas: room.plan.canvas,
        settle_seconds: BROWSER_SETTLE_SECONDS,
        seconds: args.seconds,
    };
    let told = drive_beside(room, &program, server, task)?;
    let tracks = room.tracks();
    let watched = match told {
        Ok(watched) => watched,
        Err(reason) => return Ok(Browser::NotMeasured(reason)),
    };
    let figures = browser_figures(&watched, &tracks, room.base());
    let streams = if room.plan.mode == Mode::Sfu { room.plan.people } else { 1 };
    let sent = f64::from(streams * FRAMES_PER_SECOND);
    if figures.frames_per_second < sent * BROWSER_PART_MIN {
        let got = figures.frames_per_second;
        return Ok(Browser::NotMeasured(format!("it decoded {got:.0} of {sent:.0} pictures in a second")));
    }
    Ok(Browser::Measured(figures))
}

/// Lets the room run while a thread leads the browser.
fn drive_beside(
    room: &mut Room,
    program: &Path,
    server: &Server,
    task: Task,
) -> Result<Result<Watched, String>, CompareError> {
    let (program, url) = (program.to_owned(), server.url.clone());
    let time = Duration::from_secs(u64::from(task.settle_seconds + task.seconds)) + BROWSER_WITHIN;
    let work = thread::Builder::new()
        .name("bench-browser".into())
        .spawn(move || chromium::watch(&program, &url, &task))?;
    room.drive_until(Instant::now() + time, || work.is_finished())?;
    // It has deadlines of its own, shorter than ours.
    Ok(work.join().unwrap_or_else(|_| Err("the browser's thread panicked".into())))
}

fn browser_figures(watched: &Watched, tracks: &[Track], base: Instant) -> BrowserFigures {
    let (start, end) = (&watched.start, &watched.end);
    let seconds = ((end.at_ms - start.at_ms) / 1e3).max(f64::EPSILON);
    let frames = (end.frames_decoded - start.frames_decoded).max(1.0);
    let decode_ms = (end.decode_s - start.decode_s) * 1e3;
    let emitted = (end.jitter_buffer_frames - start.jitter_buffer_frames).max(1.0);
    // The browser's clock is the system's; the run's is not, so the two are read together once.
    let unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as f64;
    let base_unix_ns = unix_ns - base.elapsed().as_nanos() as f64;
    let mut last = BTreeMap::new();
    let ages = watched.sightings.iter().filter_map(|(tile, number, unix_ms)| {
        let at_ns = (unix_ms * 1e6 - base_unix_ns).max(0.0) as u64;
        let is_new = last.insert(*tile, *number) != Some(*number);
        is_new.then(|| whose(tracks, *number, at_ns).map(|(_, age_ns)| age_ns as f64 / 1e6))?
    });
    BrowserFigures {
        frames_per_second: frames / seconds,
        frames_received_per_second: (end.frames_received - start.frames_received) / seconds,
        key_frames: end.key_frames - start.key_frames,
        key_frames_asked: end.key_frames_asked - start.key_frames_asked,
        nacks: end.nacks - start.nacks,
        freezes: end.freezes - start.freezes,
        decode_ms_per_frame: decode_ms / frames,
        decode_ms_per_second: decode_ms / seconds,
        frames_dropped: end.frames_dropped - start.frames_dropped,
        jitter_buffer_ms: (end.jitter_buffer_s - start.jitter_buffer_s) * 1e3 / emitted,
        downlink_bps: (end.bytes - start.bytes) * 8.0 / seconds,
        cores: watched.cores,
        latency_ms: Percentiles::of(ages.collect()),
    }
}
