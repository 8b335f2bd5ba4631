//! `antiphon events`: the log that the nodes of a cluster share, for operators.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::{ConfigArgs, Flags};
use crate::config::Config;
use crate::core::audit::Audit;
use crate::core::event::EventBody;
use crate::core::ids::NodeId;
use crate::core::projection::{Projection, Stay};
use crate::events::kafka::record::Record;
use crate::events::kafka::{KafkaLog, KafkaSettings, Read, read_all};

/// A copy that takes nothing for so long is given up.
const QUIET: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum Events {
    /// Print what happens, one JSON object a line
    Tail {
        #[command(flatten)]
        config: ConfigArgs,
        /// Only this room
        #[arg(long)]
        room: Option<String>,
        /// End at the end of the log
        #[arg(long)]
        once: bool,
        /// Names and texts of messages, too: they are people's own
        #[arg(long)]
        text: bool,
    },
    /// Read the log from its beginning: make a node's copy of it anew, or show what it comes to
    Replay {
        #[command(flatten)]
        config: ConfigArgs,
        /// An empty directory for the copy; a node that is stopped may take the file from there
        #[arg(required_unless_present = "show")]
        directory: Option<PathBuf>,
        /// Print what the log comes to, one JSON object for each room
        #[arg(long, value_enum)]
        show: Option<Show>,
        /// With --show, only this room
        #[arg(long, requires = "show")]
        room: Option<String>,
        /// With --show, what is over as well
        #[arg(long, requires = "show")]
        past: bool,
    },
    /// Read the whole log and prove that it is sound; prints what was found, and fails on any fault
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// What is derived from the log.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Show {
    /// Who is in each room
    Members,
    /// Which node has each room, and under which epoch
    Placement,
}

impl Events {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Tail { config, room, once, text } => {
                tail(&settings(config)?.1, room.as_deref(), once, text)
            }
            Self::Replay { config, directory, show: what, room, past } => {
                let (_, settings) = settings(config)?;
                directory.map_or(Ok(()), |directory| replay(settings.clone(), directory))?;
                what.map_or(Ok(()), |what| show(&settings, what, room.as_deref(), past))
            }
            Self::Verify { config } => verify(&settings(config)?.1),
        }
    }
}

fn settings(args: ConfigArgs) -> anyhow::Result<(Config, KafkaSettings)> {
    let config = args.load(Flags::default())?;
    ensure!(
        !config.cluster.kafka_brokers.is_empty(),
        "cluster.kafka_brokers is not set: there is no shared log. A node that is alone keeps its log in \
         {}/events.sqlite, for `sqlite3` to read",
        config.node.data_dir.display()
    );
    let mut settings = KafkaSettings::of(&config.cluster)?;
    settings.client = format!("{}-operator", settings.client);
    settings.begins_with_snapshots = false;
    Ok((config, settings))
}

/// As [`read_all`]; what the client complained of is said with what came of it.
fn read_each(
    settings: &KafkaSettings,
    follow: bool,
    each: impl FnMut(Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    read_all(settings, follow, each).map_err(|error| match settings.voice.advice() {
        Some(advice) => error.context(advice),
        None => error,
    })
}

fn tail(settings: &KafkaSettings, room: Option<&str>, once: bool, text: bool) -> anyhow::Result<()> {
    read_each(settings, !once, |read| {
        let place = json!({"partition": read.partition, "offset": read.offset});
        let Ok(record) = Record::parse(&read.payload) else {
            println!("{}", json!({"at": place, "unreadable": true}));
            return anyhow::Ok(());
        };
        if room.is_some_and(|room| room != record.room.as_str()) {
            return Ok(());
        }
        let Record { room, writer, opens, events, .. } = record;
        let events: Vec<_> = events.iter().map(|event| shown(event, text)).collect();
        println!(
            "{}",
            json!({"at": place, "room": room, "writer": writer, "opens": opens, "events": events})
        );
        Ok(())
    })
}

/// An event as operators see it.
fn shown(event: &crate::core::event::Event, text: bool) -> serde_json::Value {
    let whole = serde_json::to_value(event).unwrap_or_default();
    if text {
        return whole;
    }
    let kind = whole["body"]["kind"].clone();
    let seq = match &event.body {
        EventBody::ChatSent { seq, .. } => Some(*seq),
        _ => None,
    };
    json!({"id": event.id, "at_ms": event.at_ms, "kind": kind, "seq": seq})
}

/// Prints what the log comes to. Identities are told, names that people gave themselves are not.
fn show(settings: &KafkaSettings, what: Show, room: Option<&str>, past: bool) -> anyhow::Result<()> {
    let mut projection = Projection::default();
    read_each(settings, false, |read| {
        // What nobody can read changes nothing; `verify` counts it.
        if let Ok(Record { room, writer, opens, events, .. }) = Record::parse(&read.payload) {
            projection.handle_record(&room, &writer, opens, &events);
        }
        anyhow::Ok(())
    })?;
    for (name, view) in projection.rooms().filter(|(name, _)| room.is_none_or(|room| room == name.as_str())) {
        let shown = match what {
            Show::Members => {
                let stays = view.members.iter().filter(|stay| past || stay.ended.is_none());
                json!({"room": name, "members": stays.map(told).collect::<Vec<_>>()})
            }
            Show::Placement if past => json!({"room": name, "placement": view.placement}),
            Show::Placement => json!({"room": name, "placement": Vec::from_iter(view.owner())}),
        };
        let is_empty = shown.as_object().is_some_and(|shown| shown.values().any(|all| all == &json!([])));
        if past || !is_empty {
            println!("{shown}");
        }
    }
    Ok(())
}

fn told(stay: &Stay) -> serde_json::Value {
    let mut told = serde_json::to_value(stay).unwrap_or_default();
    told.as_object_mut().map(|told| told.remove("name"));
    told
}

fn replay(settings: KafkaSettings, directory: PathBuf) -> anyhow::Result<()> {
    std::fs::create_dir_all(&directory).context("the directory cannot be made")?;
    ensure!(std::fs::read_dir(&directory)?.next().is_none(), "{} is not empty", directory.display());
    let mut total = 0u64;
    read_each(&settings, false, |_| {
        total += 1;
        anyhow::Ok(())
    })?;
    let reader = NodeId::parse("operator")?;
    let mut log = KafkaLog::open(&directory, settings, reader, 0)?;
    let mut at = std::time::Instant::now();
    let mut taken = log.taken();
    while log.taken() < total {
        log.poll(Duration::from_millis(50));
        if log.taken() > taken {
            (taken, at) = (log.taken(), std::time::Instant::now());
        }
        ensure!(at.elapsed() < QUIET, "the log gave {taken} of {total} records, and then no more");
    }
    println!("{}", json!({"records": taken, "directory": directory}));
    Ok(())
}

fn verify(settings: &KafkaSettings) -> anyhow::Result<()> {
    let mut audit = Audit::default();
    read_each(settings, false, |read| {
        match Record::parse(&read.payload) {
            Ok(Record { room, writer, opens, events, .. }) => {
                audit.handle_record(&room, &writer, opens, &events);
            }
            Err(_) => audit.handle_unreadable(),
        }
        anyhow::Ok(())
    })?;
    let findings = audit.findings();
    println!("{}", serde_json::to_string_pretty(&findings)?);
    ensure!(findings.faults_total == 0, "the log has {} faults", findings.faults_total);
    Ok(())
}
