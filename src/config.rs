//! The configuration: one TOML file, every key also as `ANTIPHON_SECTION__KEY`, flags above both.
//!
//! Parsed once into valid types; what is wrong names itself, its place and what is accepted. Secrets have no
//! readable `Debug` and print as `hidden`. Pure: reading the file and the environment is [`load`]'s.

mod check;
mod cluster;
mod files;
mod kafka;
mod load;
mod payments;
mod play;
mod recordings;
mod streams;
mod telemetry;
mod turn;

pub use check::Problems;
pub use cluster::{Cluster, Relay};
pub use files::{Files, S3};
pub use kafka::{FileError, Kafka, Mechanism, Protocol};
pub use load::{Flags, LoadError, Sources};
pub use payments::{Bitcoind, Chain, Lnd, Payments};
pub use play::{Play, Rtmp};
pub use recordings::Recordings;
pub use streams::Streams;
pub use telemetry::{Otlp, Telemetry};
pub use turn::Turn;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A value that must not reach a log or a screen.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str("hidden")
    }
}

/// Key id that `--dev` nodes accept besides those configured.
pub const DEV_KEY_ID: &str = "devkey";
/// Its secret. Known to all, so a node refuses it unless it serves on loopback alone.
pub const DEV_KEY_SECRET: &str = "known-to-all-and-for-development-only";

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `--dev`: loopback only, everything open, [`DEV_KEY_ID`] accepted. A flag, never in the file.
    #[serde(skip)]
    pub dev: bool,
    pub http: Http,
    pub tls: Tls,
    pub node: Node,
    pub media: Media,
    pub mcu: Mcu,
    pub turn: Turn,
    pub auth: Auth,
    pub limits: Limits,
    pub rooms: Rooms,
    pub files: Files,
    pub recordings: Recordings,
    pub payments: Payments,
    pub streams: Streams,
    pub play: Play,
    pub rtmp: Rtmp,
    pub cluster: Cluster,
    pub telemetry: Telemetry,
    pub log: Log,
}

/// The client, the API and the metrics.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    pub listen: SocketAddr,
    /// The address that people type, such as `https://meet.example.org`; absent, taken from the request.
    pub public_url: Option<String>,
    /// Origins that may call the API from a page of their own; `*` for any.
    pub cors_origins: Vec<String>,
    /// Reverse proxies in front of this node: from these addresses `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 7880).into(),
            public_url: None,
            cors_origins: vec!["*".into()],
            trusted_proxies: Vec::new(),
        }
    }
}

/// PEM files; both or neither. Read again when they change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Names this node in logs and metrics.
    pub name: String,
    /// Addresses under which clients reach the media ports, when they are not this machine's own.
    pub public_ip: Vec<IpAddr>,
    /// Event log, files, recordings.
    pub data_dir: PathBuf,
    /// Seconds that a SIGTERM waits for rooms to empty.
    pub drain_seconds: u64,
}

impl Default for Node {
    fn default() -> Self {
        Self { name: "antiphon".into(), public_ip: Vec::new(), data_dir: "./data".into(), drain_seconds: 30 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// Addresses to bind the media sockets to.
    pub listen: Vec<IpAddr>,
    /// First UDP port; each shard takes the next one.
    pub udp_port: u16,
    /// ICE-TCP; 0 turns it off.
    pub tcp_port: u16,
    /// Threads that forward; 0 for one per core.
    pub shards: u8,
    /// Share of its time, 0–1: a shard that is at work for more seats further viewers of its rooms on other
    /// shards.
    pub spread_at: f64,
    /// First guess of what a new client's downlink carries, bits per second.
    pub initial_estimate_bps: u64,
    /// Offer UDP candidates. Off, only ICE-TCP is left: for networks that drop UDP, and for tests.
    pub udp: bool,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            listen: vec![IpAddr::from([0, 0, 0, 0]), IpAddr::from([0u16; 8])],
            udp_port: 7882,
            tcp_port: 7881,
            shards: 0,
            spread_at: 0.7,
            initial_estimate_bps: 1_000_000,
            udp: true,
        }
    }
}

/// Who may do what without asking further.
/// Mixed rooms (MCU mode).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mcu {
    /// Rooms may be mixed where GStreamer has all that it takes.
    pub enabled: bool,
    /// Pixels of the mixed picture. Slow viewers get one of half the size.
    pub width: u32,
    pub height: u32,
    pub frames_per_second: u32,
    /// Bits per second that the mixed picture may take.
    pub bitrate_bps: u64,
    /// Cores that must be idle for one more mix; with fewer it is refused. A mix of four in 720p takes 0.6.
    pub cores_needed: f64,
    /// Cores that one mix may run on.
    pub cores_max: u32,
}

impl Default for Mcu {
    fn default() -> Self {
        Self {
            enabled: true,
            width: 1_280,
            height: 720,
            frames_per_second: 30,
            bitrate_bps: 1_800_000,
            cores_needed: 0.6,
            cores_max: 4,
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Key id (`iss`) → HS256 secret. `antiphon keys` makes a pair.
    pub keys: std::collections::BTreeMap<String, Secret>,
    /// Guests may join and make rooms without a token.
    pub guests: bool,
}

/// Bounds, each with a clear refusal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub rooms: u32,
    /// Members and publishers in one room.
    pub participants_per_room: u32,
    /// Participants of one room that send media at a time.
    pub publishers_per_room: u32,
    /// WHEP viewers of one room.
    pub viewers_per_room: u32,
    /// Joins a second from one address, over a ten second window.
    pub joins_per_second: f64,
    /// Bits per second of one publisher's video encoding before it is asked to slow down.
    pub video_bps_max: u64,
    /// Messages a second on a control channel, over a ten second window.
    pub messages_per_second: f64,
    pub chat_chars_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rooms: 10_000,
            participants_per_room: 100,
            publishers_per_room: 100,
            viewers_per_room: 10_000,
            joins_per_second: 20.0,
            video_bps_max: 5_000_000,
            messages_per_second: 20.0,
            chat_chars_max: 4_000,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rooms {
    /// Seconds after which a room with no one in it ends. Its history stays.
    pub empty_seconds: u64,
    /// Seconds for which a lost connection may resume.
    pub resume_seconds: u64,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { empty_seconds: 300, resume_seconds: 15 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// As in `RUST_LOG`.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info,str0m=warn,dimpl=warn,is=warn".into(), json: false }
    }
}
