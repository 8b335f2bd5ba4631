//! `antiphon bench forward`: rooms of publishers and viewers against a running server, and what it cost.
//!
//! One thread drives all clients and one joins them, so the tool takes little more than a core; its own CPU
//! share is in the report, and above about 0.9 the figures are the tool's and not the server's.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use rand::RngExt;
use reqwest::Url;

use super::client::Offer;
use super::compare::CompareError;
use super::crowd::Crowd;
use super::engine::Seat;
use super::join::{ApiKey, Join, Role, Target};
use super::process::{Machine, Snapshot};
use super::report::{self, Report, Window};
use super::source::{AudioSource, Encoding, VideoSource, simulcast, single};

/// How long clients may take to connect and see a picture, on top of the time that the join rate takes.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// Time for estimates, layers and caches to settle before measuring.
const SETTLE: Duration = Duration::from_secs(2);
/// Time for what is under way to arrive after measuring.
const GRACE: Duration = Duration::from_millis(500);

/// The run cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("no way to {0}: the host of --url is not known, or this machine has no route to it")]
    Unreachable(Url),
    #[error("nobody could connect: see `failures` in the report")]
    Nobody,
    #[error("--server-pid {0}: no such process, or not ours to look at: {1}")]
    Pid(u32, io::Error),
    #[error("this machine has no more sockets, threads or memory: {0}")]
    System(#[from] io::Error),
    #[error("{path} has no runs: files named SERVER.WORKLOAD.ROUND.json", path = .0.display())]
    NoRuns(PathBuf),
    #[error("the report is no JSON: {0}")]
    Report(#[from] serde_json::Error),
    #[error(transparent)]
    Compare(#[from] CompareError),
}

fn base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let usable = url.scheme() == "http" && url.has_host();
    usable.then_some(url).ok_or_else(|| "accepted: an http:// URL with a host".into())
}

/// Options of `antiphon bench forward`.
#[derive(Debug, Clone, Args)]
pub struct ForwardArgs {
    /// Kind of server
    #[arg(long, value_enum, default_value_t = Target::Whip)]
    pub target: Target,
    /// Base URL of the server; it must let anyone join, as `antiphon serve --dev` does
    #[arg(long, default_value = "http://127.0.0.1:7880", value_parser = base_url)]
    pub url: Url,
    /// LiveKit: id of the key that signs tokens
    #[arg(long, default_value = "devkey")]
    pub api_key: String,
    /// LiveKit: its secret
    #[arg(long, default_value = "secret")]
    pub api_secret: String,
    #[arg(long, default_value_t = 1)]
    pub rooms: u32,
    /// Publishers in each room
    #[arg(long, default_value_t = 1)]
    pub publishers: u32,
    /// Viewers in each room; each gets all publishers of its room
    #[arg(long, default_value_t = 10)]
    pub subscribers: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 15)]
    pub seconds: u32,
    /// Process of the server, to read its CPU time and memory
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Video bits per second of each publisher; with simulcast, of its top encoding
    #[arg(long, default_value_t = 1_500_000)]
    pub bitrate: u64,
    /// Publish three encodings
    #[arg(long)]
    pub simulcast: bool,
    /// Seconds between key frames that nobody asked for
    #[arg(long, default_value_t = 10)]
    pub key_interval: u32,
    /// Joins a second
    #[arg(long, default_value_t = 15.0)]
    pub join_rate: f64,
    /// Read datagrams that come as a run as one: less work for this tool, near a server's limit
    #[arg(long)]
    pub read_runs: bool,
}

/// Who sits where.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub room: u32,
    /// Number of the publisher, unique in the run; none for a viewer.
    pub publisher: Option<u32>,
}

/// Measures and prints one JSON object.
///
/// # Errors
/// The run cannot be made, or nobody could connect; see [`BenchError`].
pub fn run(args: &ForwardArgs) -> Result<(), BenchError> {
    let report = measure(args)?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    let anyone = report.connected.publishers + report.connected.subscribers > 0;
    if anyone { Ok(()) } else { Err(BenchError::Nobody) }
}

/// Measures.
///
/// # Errors
/// The run cannot be made; see [`BenchError`].
pub fn measure(args: &ForwardArgs) -> Result<Report, BenchError> {
    let snapshot = |pid: u32| Snapshot::of(pid).map_err(|error| BenchError::Pid(pid, error));
    let server_idle = args.server_pid.map(snapshot).transpose()?;
    let mut run = Run::new(args)?;
    run.join_all(true)?;
    run.join_all(false)?;
    run.drive_for(SETTLE)?;

    let start = run.window_edge(args, true)?;
    run.drive_for(Duration::from_secs(u64::from(args.seconds)))?;
    let end = run.window_edge(args, false)?;
    run.drive_for(GRACE)?;

    let report = report::make(args, &mut run.crowd.engine.seats, &run.places, server_idle, &start, &end);
    run.crowd.leave();
    Ok(report)
}

struct Run<'a> {
    args: &'a ForwardArgs,
    /// Sets this run's rooms apart from those of another.
    number: u32,
    crowd: Crowd,
    places: Vec<Place>,
}

impl<'a> Run<'a> {
    fn new(args: &'a ForwardArgs) -> Result<Self, BenchError> {
        let unreachable = || BenchError::Unreachable(args.url.clone());
        let local = local_towards(&args.url).ok_or_else(unreachable)?;
        let key = ApiKey { id: args.api_key.clone(), secret: args.api_secret.clone() };
        let mut crowd = Crowd::new(args.target, args.url.clone(), key, local)?;
        crowd.engine.reads_runs = args.read_runs;
        Ok(Self { args, number: rand::rng().random(), crowd, places: Vec::new() })
    }

    /// Joins all publishers or all viewers at the rate asked for, and waits until they are in.
    fn join_all(&mut self, publishers: bool) -> Result<(), BenchError> {
        let each = if publishers { self.args.publishers } else { self.args.subscribers };
        let first = self.places.len();
        let start = Instant::now();
        let mut next_at = start;
        for room in 0..self.args.rooms {
            for number in 0..each {
                self.drive_until(next_at, |_| false)?;
                next_at += Duration::from_secs_f64(1.0 / self.args.join_rate.max(0.01));
                self.join(room, publishers.then_some(room * each + number), number)?;
            }
        }
        let in_time = Instant::now() + CONNECT_WITHIN;
        self.drive_until(in_time, |run| {
            run.crowd.engine.seats.iter().skip(first).all(|seat| is_in(seat, publishers))
        })
    }

    fn join(&mut self, room: u32, publisher: Option<u32>, number: u32) -> Result<(), BenchError> {
        let (seat, offer) = if publisher.is_none() && self.args.target.offers_to_viewers() {
            (self.crowd.engine.add_answering()?, None)
        } else {
            let lines = self.args.publishers as usize;
            let offer = match publisher {
                Some(publisher) => self.publish(publisher, Instant::now()),
                None => Offer { audio_slots: lines, video_slots: lines, ..Offer::default() },
            };
            let (seat, offer) = self.crowd.engine.add(offer)?;
            (seat, Some(offer))
        };
        if publisher.is_none() {
            self.crowd.engine.seats[seat].client.receive_directly();
        }
        self.places.push(Place { room, publisher });
        let role = if publisher.is_some() { Role::Publisher(number) } else { Role::Viewer(number) };
        let (run, publishers, encodings) = (self.number, self.args.publishers, self.encodings());
        let join = Join { seat, run, room, role, publishers, encodings, offer };
        self.crowd.join(join);
        Ok(())
    }

    fn encodings(&self) -> Vec<Encoding> {
        let bitrate = self.args.bitrate;
        if self.args.simulcast { simulcast(bitrate) } else { single(bitrate) }
    }

    fn publish(&self, publisher: u32, now: Instant) -> Offer {
        let key_interval = Duration::from_secs(u64::from(self.args.key_interval.max(1)));
        let base = self.crowd.engine.base;
        let video = VideoSource::new(publisher, self.encodings(), now, key_interval);
        Offer {
            video: Some(video.out_of_step(base)),
            audio: Some(AudioSource::new(publisher, now).out_of_step(base)),
            ..Offer::default()
        }
    }

    fn drive_for(&mut self, duration: Duration) -> Result<(), BenchError> {
        self.drive_until(Instant::now() + duration, |_| false)
    }

    /// Runs the loop until `end`, or until `done`.
    fn drive_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) -> Result<(), BenchError> {
        loop {
            let now = Instant::now();
            if now >= end || done(self) {
                return Ok(());
            }
            self.crowd.turn(end)?;
        }
    }

    fn window_edge(&mut self, args: &ForwardArgs, begins: bool) -> Result<Window, BenchError> {
        if begins {
            for seat in &mut self.crowd.engine.seats {
                seat.client.record_delays(true);
            }
        }
        let own = Snapshot::of(std::process::id())?;
        let snapshot = |pid: u32| Snapshot::of(pid).map_err(|error| BenchError::Pid(pid, error));
        let server = args.server_pid.map(snapshot).transpose()?;
        Ok(Window::edge(
            &mut self.crowd.engine.seats,
            &self.places,
            self.crowd.engine.traffic,
            server,
            own,
            Machine::now()?,
        ))
    }
}

/// Whether nothing more is to be waited for: in, with a picture if it is a viewer, or out.
fn is_in(seat: &Seat, publisher: bool) -> bool {
    let milestones = seat.client.milestones();
    let there = if publisher { milestones.connected } else { milestones.first_frame };
    there.is_some() || seat.failure.is_some()
}

/// This machine's address on the way to the server.
pub fn local_towards(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    let server = (host, url.port_or_known_default()?).to_socket_addrs().ok()?.next()?;
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(server).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_http_with_a_host() {
        assert!(base_url("http://127.0.0.1:7880").is_ok());
        for bad in ["127.0.0.1:7880", "https://example.org", "http://", "rooms"] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn clients_towards_loopback_are_on_loopback() {
        let url = Url::parse("http://127.0.0.1:7880").expect("a URL");
        assert_eq!(local_towards(&url), Some(IpAddr::from([127, 0, 0, 1])));
    }
}
