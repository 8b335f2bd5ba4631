//! The command line: `serve`, `check-config`, `token`, `bench`, `keys`, `events`, `remux`, and
//! `mix`, `record`, `stream`, `feed` and `probe`, which are for servers alone.
//!
//! Exit codes: 0, 1 for what failed, 2 for a wrong usage or configuration. Output meant for programs goes to
//! stdout, words for people to stderr.

mod events;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::bench;
use crate::config::{Config, DEV_KEY_ID, DEV_KEY_SECRET, Flags, LoadError, Log, Sources};
use crate::core::ids::{Identity, RoomName};
use crate::core::mix::MixSettings;
use crate::feed;
use crate::files::probe_child;
use crate::mcu::graph::{self, Missing, Stage};
use crate::mcu::mixer;
use crate::node;
use crate::record::remux::{self, RemuxError};
use crate::record::{finish_folder, recorder};
use crate::stream;
use crate::telemetry;
use crate::token::{EVERY_ROOM, Keys, RoomGrant, Token, new_key};

/// Video rooms that forward, with chat over data channels
#[derive(Debug, Parser)]
#[command(name = "antiphon", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Print the effective configuration as TOML, secrets hidden, and point out what deserves a thought
    CheckConfig(ServeArgs),
    /// Print a token (JWT) for one person and one room
    Token(TokenArgs),
    /// Measure a running server
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Read the log that the nodes of a cluster share
    #[command(subcommand)]
    Events(events::Events),
    /// Print a new key, ready for the configuration
    Keys,
    /// Make one file of all tracks of a recording, with its chapters and its chat; nothing is decoded
    Remux {
        /// A recording's folder: DATA_DIR/recordings/ROOM/ID
        #[arg(value_name = "ROOM_RECORDING_DIR")]
        folder: PathBuf,
        /// Ends in .mkv for Matroska, which takes every codec, or .mp4
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// Look into the file that is standard input; started by a server
    #[command(hide = true)]
    Probe,
    /// Stream one room out; started by a server, which speaks to it through standard input
    #[command(hide = true)]
    Stream,
    /// Play a file or a stream into one room; started by a server, which speaks to it through standard input
    #[command(hide = true)]
    Feed,
    /// Record one room; started by a server, which speaks to it through standard input
    #[command(hide = true)]
    Record {
        /// Put the files of a recording in order whose recorder failed
        #[arg(long, value_name = "DIR")]
        finish: Option<PathBuf>,
    },
    /// Mix one room; started by a server, which speaks to it through standard input
    #[command(hide = true)]
    Mix {
        /// Only say whether this machine can mix
        #[arg(long)]
        check: bool,
    },
}

/// Where the configuration comes from. Flags win over environment over file.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// TOML file; every key may also be set as ANTIPHON_SECTION__KEY
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Try it out: loopback only, rooms open to anyone, a known development key
    #[arg(long)]
    dev: bool,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// HTTP address, such as 0.0.0.0:7880
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address under which clients reach the media ports; may be given again
    #[arg(long, value_name = "IP")]
    public_ip: Vec<IpAddr>,
    /// Event log, files, recordings
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl ServeArgs {
    fn load(self) -> Result<Config, LoadError> {
        let Self { config, listen, public_ip, data_dir } = self;
        config.load(Flags { listen, public_ip, data_dir, ..Flags::default() })
    }
}

impl ConfigArgs {
    fn load(self, flags: Flags) -> Result<Config, LoadError> {
        // A variable that is no UTF-8 is none of ours: names and values of the configuration all are.
        let env = std::env::vars_os()
            .filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
        let Self { config: file, dev } = self;
        Config::load(&Sources { file, env: env.collect(), flags: Flags { dev, ..flags } })
    }
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// The room, or * for all
    #[arg(long, value_parser = parse_room)]
    room: String,
    /// Who this is
    #[arg(long, value_parser = parse_identity)]
    identity: Identity,
    /// What others see
    #[arg(long)]
    name: Option<String>,
    /// May rule the room
    #[arg(long)]
    admin: bool,
    /// May not send audio and video
    #[arg(long)]
    no_publish: bool,
    /// May not see and hear others
    #[arg(long)]
    no_subscribe: bool,
    /// May neither write nor read messages
    #[arg(long)]
    no_chat: bool,
    /// May neither send nor fetch files
    #[arg(long)]
    no_files: bool,
    /// How long it holds, such as 30m, 6h or 7d
    #[arg(long, default_value = "6h", value_parser = parse_duration)]
    ttl: Duration,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Does what the command line says.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout and is no failure; clap knows. A closed pipe is nobody's loss.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("antiphon: {error:#}");
            ExitCode::from(if error.is::<LoadError>() { 2 } else { 1 })
        }
    }
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Serve(args) => serve(args.load()?),
            Self::CheckConfig(args) => check_config(&args.load()?),
            Self::Token(args) => token(args),
            Self::Events(what) => what.run(),
            Self::Bench(what) => Ok(bench::run(&what)?),
            Self::Keys => {
                keys();
                Ok(())
            }
            Self::Probe => Ok(probe_child::run()?),
            Self::Stream => {
                telemetry::start_log(&Log::default());
                Ok(stream::child::run()?)
            }
            Self::Feed => {
                telemetry::start_log(&Log::default());
                Ok(feed::child::run()?)
            }
            Self::Remux { folder, output } => Ok(remux(&folder, &output)?),
            Self::Record { finish } => {
                telemetry::start_log(&Log::default());
                match finish {
                    Some(folder) => Ok(finish_folder(&folder)?),
                    None => Ok(recorder::run()?),
                }
            }
            Self::Mix { check: true } => {
                anyhow::ensure!(check_mixing(), "mixing is not possible here");
                Ok(())
            }
            Self::Mix { check: false } => {
                telemetry::start_log(&Log::default());
                Ok(mixer::run()?)
            }
        }
    }
}

/// Reads the files that the cluster's configuration names.
fn check_files(config: &Config) -> Result<(), LoadError> {
    let wrong: Vec<String> = config.cluster.check_files().iter().map(ToString::to_string).collect();
    if wrong.is_empty() { Ok(()) } else { Err(LoadError::Wrong(wrong)) }
}

fn serve(config: Config) -> anyhow::Result<()> {
    check_files(&config)?;
    for warning in config.warnings() {
        eprintln!("warning: {warning}");
    }
    if config.dev {
        eprintln!("development node: open to anyone on this machine, at http://{}", config.http.listen);
        eprintln!("development key: id {DEV_KEY_ID}, secret {DEV_KEY_SECRET}");
    }
    node::run(config)
}

fn check_config(config: &Config) -> anyhow::Result<()> {
    print!("{}", toml::to_string_pretty(config).context("the configuration cannot be shown as TOML")?);
    for warning in config.warnings() {
        eprintln!("warning: {warning}");
    }
    check_files(config)?;
    check_mixing();
    Ok(())
}

/// Says whether this machine can mix. Mixing needs GStreamer's elements, which come in packages of their own.
fn check_mixing() -> bool {
    if let Err(error) = graph::start() {
        eprintln!("mixing is not possible: {error}");
        return false;
    }
    let missing = graph::missing();
    for Missing { element, package } in &missing {
        eprintln!("missing: {element}, of the package {package}");
    }
    if missing.is_empty() {
        let encoder = mixer::h264_encoder(&MixSettings::default()).and_then(Stage::encoder);
        match &encoder {
            Some(element) => eprintln!("mixing is possible, H.264 by {element}"),
            None => eprintln!("mixing is not possible: no encoder of H.264 works here"),
        }
        return encoder.is_some();
    }
    let packages: BTreeSet<&str> = missing.iter().map(|missing| missing.package).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    eprintln!("mixing is not possible: install {}", packages.join(" "));
    false
}

fn remux(folder: &Path, output: &Path) -> Result<(), RemuxError> {
    let made = remux::run(folder, output)?;
    println!("{}: {} streams, {} chapters", output.display(), made.streams, made.chapters);
    if made.chat_left_out {
        let chat = folder.join("chat.vtt");
        eprintln!("the chat is left out, as MP4 has no place for WebVTT: it is in {}", chat.display());
    }
    Ok(())
}

fn token(args: TokenArgs) -> anyhow::Result<()> {
    let config = args.config.load(Flags::default())?;
    anyhow::ensure!(
        !config.auth.keys.is_empty(),
        "auth.keys is empty, so the server would not know the token's key: `antiphon keys` makes one"
    );
    let room = RoomGrant {
        room: args.room,
        publish: !args.no_publish,
        subscribe: !args.no_subscribe,
        chat: !args.no_chat,
        files: !args.no_files,
        admin: args.admin,
        lowest_layer: false,
    };
    let expires_at_s = jsonwebtoken::get_current_timestamp().saturating_add(args.ttl.as_secs());
    let token = Token { identity: args.identity, name: args.name, room };
    println!("{}", Keys::new(&config.auth.keys).sign(token, expires_at_s)?);
    Ok(())
}

fn keys() {
    let (id, secret) = new_key();
    println!("[auth.keys]\n{id} = \"{}\"", secret.reveal());
    eprintln!(
        "Put this into the configuration file, or set ANTIPHON_AUTH__KEYS__{} to the secret. Whoever has it may make \
         any token.",
        id.to_uppercase()
    );
}

fn parse_room(text: &str) -> Result<String, String> {
    if text != EVERY_ROOM {
        RoomName::parse(text).map_err(|error| format!("{error}, or it is {EVERY_ROOM}"))?;
    }
    Ok(text.to_owned())
}

fn parse_identity(text: &str) -> Result<Identity, String> {
    Identity::parse(text).map_err(|error| error.to_string())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let accepted = "accepted is a number with s, m, h or d, such as 6h";
    let at = text.len().saturating_sub(1);
    let (number, unit) = text.split_at_checked(at).ok_or(accepted)?;
    let unit_s: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(accepted.into()),
    };
    let count: u64 = number.parse().map_err(|_| accepted)?;
    match count.checked_mul(unit_s) {
        Some(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => Err(accepted.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("6h"), Ok(Duration::from_secs(21_600)));
        for bad in ["", "h", "6", "0s", "-1h", "6é", "99999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_room_is_a_name_or_a_star() {
        assert!(parse_room("*").is_ok() && parse_room("abc").is_ok());
        assert!(parse_room("a b").unwrap_err().contains("3 to 64"));
    }

    #[test]
    fn the_effective_configuration_hides_its_secrets() {
        let flags = Flags { dev: true, ..Flags::default() };
        let config = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
        let text = toml::to_string_pretty(&config).unwrap();
        assert!(text.contains("devkey = \"hidden\"") && !text.contains(DEV_KEY_SECRET), "{text}");
        assert!(text.contains("listen = \"127.0.0.1:7880\""));
    }
}
