//! `antiphon bench audience`: what each further viewer costs, of a mix and of what is forwarded.
//!
//! One room of people for each mode, on one node, whose audience grows while it runs: viewers by WHEP, each
//! with one picture and one sound. All that grows with them is theirs, so a viewer's packet costs what the
//! node uses beyond the room without them; what the mixer uses beside it tells whether it works for each of
//! them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::report::mode_name;
use super::room::{Edge, Plan, Room};
use super::server::Server;
use super::{CompareError, record, start_gstreamer};
use crate::bench::process::Usage;
use crate::core::mix::MixSettings;
use crate::core::protocol::Mode;

/// For a newcomer's estimate to carry all there is, and for the encoders to follow.
const SETTLE: Duration = Duration::from_secs(8);
const CLIP_SECONDS: u32 = 8;
const VIEWERS_MAX: u32 = 1_000;

fn viewers(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|viewers| (1..=VIEWERS_MAX).contains(viewers));
    number.ok_or_else(|| format!("accepted: 1 to {VIEWERS_MAX} viewers"))
}

/// Options of `antiphon bench audience`.
#[derive(Debug, Clone, Args)]
pub struct AudienceArgs {
    /// Sizes of the audience, beside none
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 10, 50, 100], value_parser = viewers)]
    pub viewers: Vec<u32>,
    /// People in the room
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=25))]
    pub people: u32,
    /// Seconds to measure at each size
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..))]
    pub seconds: u32,
    /// Folder for the servers' log
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
}

/// The whole result.
#[derive(Debug, Serialize)]
pub struct Audience {
    pub people: u32,
    pub rows: Vec<Row>,
    /// What a viewer's packet costs in the mix by what it costs forwarded, of the largest audience.
    pub mixed_to_forwarded: Option<f64>,
}

/// One size in one mode.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub mode: &'static str,
    pub viewers: u32,
    /// Cores' worth of CPU.
    pub node_cores: f64,
    pub mixer_cores: f64,
    /// Datagrams a second that the viewers got.
    pub viewer_packets_per_second: f64,
    pub viewer_downlink_bps: f64,
    /// What the node used beyond the room without an audience, by those datagrams.
    pub node_ns_per_viewer_packet: Option<f64>,
    /// Used by others than node, mixer and tool.
    pub others_cores: f64,
}

/// Measures and prints one JSON object.
///
/// # Errors
/// The comparison cannot be made; see [`CompareError`].
pub fn run(args: &AudienceArgs) -> Result<(), CompareError> {
    std::fs::create_dir_all(&args.out)?;
    start_gstreamer()?;
    let recordings = record(CLIP_SECONDS)?;
    let mut rows = Vec::new();
    for mode in [Mode::Sfu, Mode::Mcu] {
        let server = Server::start(0, &args.out)?;
        let plan = Plan { people: args.people, mode, canvas: MixSettings::default().canvas };
        let mut room = Room::open(&server, plan, &recordings)?;
        let mut sizes: Vec<u32> = args.viewers.clone();
        sizes.extend([0]);
        sizes.sort_unstable();
        sizes.dedup();
        let mut alone = None;
        for viewers in sizes {
            eprintln!("{viewers} viewers, {}", mode_name(mode));
            room.admit(viewers)?;
            room.drive_for(SETTLE)?;
            let start = room.edge(&server)?;
            room.drive_for(Duration::from_secs(u64::from(args.seconds)))?;
            let end = room.edge(&server)?;
            let row = Row::of(mode, viewers, args.people, alone, [&start, &end]);
            alone = alone.or(Some(row.node_cores));
            rows.push(row);
        }
        room.close();
    }
    let mixed_to_forwarded = mixed_to_forwarded(&rows);
    let audience = Audience { people: args.people, rows, mixed_to_forwarded };
    println!("{}", serde_json::to_string_pretty(&audience)?);
    Ok(())
}

fn mixed_to_forwarded(rows: &[Row]) -> Option<f64> {
    let of = |mode: Mode| {
        let rows = rows.iter().filter(|row| row.mode == mode_name(mode));
        rows.max_by_key(|row| row.viewers)?.node_ns_per_viewer_packet
    };
    Some(of(Mode::Mcu)? / of(Mode::Sfu)?)
}

impl Row {
    /// `alone` is what the node used without an audience, in cores.
    fn of(mode: Mode, viewers: u32, people: u32, alone: Option<f64>, [start, end]: [&Edge; 2]) -> Self {
        let seconds = end.at.saturating_duration_since(start.at).as_secs_f64().max(f64::EPSILON);
        let usage = |share: Usage| share.cpu_share;
        let node_cores = usage(start.processes.node.until(&end.processes.node));
        let mixers = end.processes.mixers.iter().filter_map(|(pid, later)| {
            let (_, earlier) = start.processes.mixers.iter().find(|(other, _)| other == pid)?;
            Some(usage(earlier.until(later)))
        });
        let mixer_cores = mixers.sum();
        let people = people as usize;
        let grown = |from: &[u64], to: &[u64]| {
            let both = to.iter().zip(from).skip(people);
            both.map(|(to, from)| to.saturating_sub(*from)).sum::<u64>() as f64 / seconds
        };
        let viewer_packets_per_second = grown(&start.received_packets, &end.received_packets);
        let bits = 8.0 * grown(&start.received_bytes, &end.received_bytes);
        let own = usage(start.own.until(&end.own));
        Self {
            mode: mode_name(mode),
            viewers,
            node_cores,
            mixer_cores,
            viewer_packets_per_second,
            viewer_downlink_bps: bits / f64::from(viewers.max(1)),
            node_ns_per_viewer_packet: alone
                .filter(|_| viewers > 0 && viewer_packets_per_second > 0.0)
                .map(|alone| (node_cores - alone) * 1e9 / viewer_packets_per_second),
            others_cores: start
                .machine
                .until(&end.machine, seconds, node_cores + mixer_cores + own)
                .others_cores,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(mode: Mode, viewers: u32, ns: Option<f64>) -> Row {
        Row {
            mode: mode_name(mode),
            viewers,
            node_cores: 0.1,
            mixer_cores: 0.0,
            viewer_packets_per_second: 100.0,
            viewer_downlink_bps: 1e6,
            node_ns_per_viewer_packet: ns,
            others_cores: 0.0,
        }
    }

    #[test]
    fn the_largest_audiences_are_compared() {
        let rows = [
            row(Mode::Sfu, 0, None),
            row(Mode::Sfu, 100, Some(4_000.0)),
            row(Mode::Sfu, 2, Some(9_000.0)),
            row(Mode::Mcu, 2, Some(18_000.0)),
            row(Mode::Mcu, 100, Some(4_200.0)),
        ];
        assert!(mixed_to_forwarded(&rows).is_some_and(|ratio| (ratio - 1.05).abs() < 1e-9));
        assert_eq!(mixed_to_forwarded(&rows[..3]), None, "nothing was mixed");
    }

    #[test]
    fn sizes_have_bounds() {
        assert_eq!(viewers("100"), Ok(100));
        assert!(viewers("0").is_err() && viewers("1001").is_err() && viewers("many").is_err());
    }
}
