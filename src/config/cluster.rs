//! Configuration of a node among others: where they meet, and what this one is to them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use std::path::PathBuf;

use super::kafka::{FileError, Kafka, check_pem};
use super::{Secret, check};

/// Several nodes as one. Without `redis_url` the node is alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Where the nodes agree on who holds which room: `redis://HOST:PORT`,
    /// `redis-sentinel://HOST:PORT,HOST:PORT/MASTER` or `redis-cluster://HOST:PORT,HOST:PORT`; with
    /// `rediss` in place of `redis` by TLS.
    pub redis_url: Option<Secret>,
    /// PEM file with the authorities that Redis' certificate is checked against; absent, the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_ca_file: Option<PathBuf>,
    /// Unique in the cluster.
    pub node_id: String,
    /// Rooms are made in the region where they are asked for, while it has room.
    pub region: String,
    /// How clients reach this very node, such as `https://a.meet.example.org`.
    pub url: Option<String>,
    /// Answer for a room's node, in place of sending clients there with a 307: for networks in which they
    /// reach only the load balancer by HTTP. Files always go by 307.
    pub proxy: bool,
    /// Milliseconds for which a room is held without a sign of life of its node.
    pub lease_ms: u64,
    /// Replicas that must have a claim before it counts (Redis `WAIT`).
    pub redis_replicas: u32,
    /// Where the nodes keep what happened: `HOST:PORT` of Kafka's brokers, by commas. Without it each node
    /// keeps what happened on it, and a room that moves leaves its history behind.
    pub kafka_brokers: String,
    pub kafka_topic: String,
    /// Of a topic that is made; one that is there keeps what it has.
    pub kafka_partitions: u32,
    pub kafka_replication: u32,
    /// How its brokers are spoken to.
    pub kafka: Kafka,
    /// What this node can send, bits per second.
    pub egress_bps_max: u64,
    /// What this node can forward, packets per second.
    pub packets_per_second_max: u64,
    /// Connections that this node can carry.
    pub peers_max: u32,
    pub relay: Relay,
}

/// Links between nodes, by which a room has viewers on several. Without `key` a room stays on its node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// The secret that all nodes share, and by which they know each other: 32 bytes or more, such as
    /// `openssl rand -hex 32` prints.
    pub key: Option<Secret>,
    /// Where links come in, by UDP.
    pub listen: SocketAddr,
    /// `HOST:PORT` by which other nodes reach that; absent, the host of `cluster.url` and the port of
    /// `listen`.
    pub address: Option<String>,
}

impl Default for Relay {
    fn default() -> Self {
        Self { key: None, listen: ([0, 0, 0, 0], RELAY_PORT).into(), address: None }
    }
}

/// Below all others of a node, as those of media go up.
const RELAY_PORT: u16 = 7_879;
/// A key that can be guessed lets anybody into all rooms.
const RELAY_KEY_BYTES_MIN: usize = 32;

impl Relay {
    /// `HOST:PORT` that other nodes are told, where links are wanted. `url` is the node's own.
    pub fn advertised(&self, url: &str) -> Option<String> {
        self.key.as_ref()?;
        let own = || {
            let host = url.split_once("://").map_or(url, |(_, host)| host);
            let host = host.trim_end_matches('/');
            let bare = match host.rsplit_once(':') {
                // An IPv6 address is in brackets, and its colons are none before a port.
                Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) => bare,
                _ => host,
            };
            format!("{bare}:{}", self.listen.port())
        };
        Some(self.address.clone().unwrap_or_else(own))
    }

    fn check(&self, in_cluster: bool, wrong: &mut Vec<String>) {
        let Some(key) = &self.key else { return };
        if key.reveal().len() < RELAY_KEY_BYTES_MIN {
            wrong.push(format!(
                "`cluster.relay.key`: accepted is a secret of {RELAY_KEY_BYTES_MIN} bytes or more, the same on all \
                 nodes; `openssl rand -hex 32` makes one"
            ));
        }
        if !in_cluster {
            wrong.push("`cluster.relay.key`: links between nodes need cluster.redis_url, too".into());
        }
        let port = |address: &str| {
            let (host, port) = address.rsplit_once(':')?;
            (!host.is_empty()).then(|| port.parse::<u16>().ok())?
        };
        if self.listen.port() == 0 {
            wrong.push(
                "`cluster.relay.listen`: the port is 1 to 65535, as other nodes have to know it".into(),
            );
        }
        if self.address.as_deref().is_some_and(|address| port(address).is_none_or(|port| port == 0)) {
            wrong.push("`cluster.relay.address`: accepted is HOST:PORT, such as `10.0.0.7:7879`".into());
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            redis_url: None,
            redis_ca_file: None,
            node_id: String::new(),
            region: String::new(),
            url: None,
            proxy: false,
            lease_ms: 5_000,
            redis_replicas: 0,
            kafka_brokers: String::new(),
            kafka_topic: "antiphon.room.log".into(),
            kafka_partitions: 32,
            kafka_replication: 1,
            kafka: Kafka::default(),
            egress_bps_max: 10_000_000_000,
            packets_per_second_max: 1_000_000,
            peers_max: 10_000,
            relay: Relay::default(),
        }
    }
}

/// What an address of Redis begins with.
const REDIS_SCHEMES: [&str; 6] = [
    "redis://",
    "redis-sentinel://",
    "redis-cluster://",
    "rediss://",
    "rediss-sentinel://",
    "rediss-cluster://",
];

impl Cluster {
    /// Reads the files that are named, and says of each that cannot be used why.
    pub fn check_files(&self) -> Vec<FileError> {
        let redis = self.redis_ca_file.as_ref();
        let redis = redis.and_then(|path| check_pem("cluster.redis_ca_file", path, "CERTIFICATE").err());
        redis.into_iter().chain(self.kafka.check_files()).collect()
    }

    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        if !(500..=60_000).contains(&self.lease_ms) {
            wrong.push("`cluster.lease_ms`: accepted is 500 to 60000".into());
        }
        for (key, most) in [
            ("egress_bps_max", self.egress_bps_max),
            ("packets_per_second_max", self.packets_per_second_max),
            ("peers_max", self.peers_max.into()),
            ("kafka_partitions", self.kafka_partitions.into()),
            ("kafka_replication", self.kafka_replication.into()),
        ] {
            if most == 0 {
                wrong.push(format!("`cluster.{key}`: accepted is 1 or more"));
            }
        }
        self.relay.check(self.redis_url.is_some(), wrong);
        self.kafka.check(wrong);
        if self.kafka != Kafka::default() && self.kafka_brokers.is_empty() {
            wrong.push("`cluster.kafka`: without cluster.kafka_brokers there is nobody to speak to".into());
        }
        let Some(redis) = &self.redis_url else {
            if !self.kafka_brokers.is_empty() {
                wrong.push("`cluster.kafka_brokers`: a shared log needs cluster.redis_url, too".into());
            }
            return;
        };
        if !REDIS_SCHEMES.iter().any(|scheme| redis.reveal().starts_with(scheme)) {
            wrong.push(
                "`cluster.redis_url`: accepted is redis://HOST:PORT, redis-sentinel://HOST:PORT,HOST:PORT/MASTER \
                 or redis-cluster://HOST:PORT,HOST:PORT; with rediss in place of redis by TLS"
                    .into(),
            );
        }
        if self.redis_ca_file.is_some() && !redis.reveal().starts_with("rediss") {
            wrong.push(
                "`cluster.redis_ca_file`: cluster.redis_url is without TLS; accepted with rediss://".into(),
            );
        }
        let plain = self.node_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !plain || !(1..=64).contains(&self.node_id.len()) {
            wrong.push(
                "`cluster.node_id`: with cluster.redis_url each node needs its own, of 1 to 64 letters, digits, \
                 '-' and '_'"
                    .into(),
            );
        }
        let url = self.url.as_deref().unwrap_or_default();
        if !check::is_origin(url.strip_suffix('/').unwrap_or(url)) {
            wrong.push(
                "`cluster.url`: with cluster.redis_url it is needed, such as `https://a.meet.example.org`, without \
                 a path: clients of this node's rooms are sent there"
                    .into(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(key: Option<&str>, address: Option<&str>) -> Relay {
        let (key, address) = (key.map(Secret::new), address.map(str::to_owned));
        Relay { key, address, ..Relay::default() }
    }

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn other_nodes_are_told_the_host_of_the_url() {
        let told = |url: &str| relay(Some(KEY), None).advertised(url).unwrap();
        assert_eq!(told("https://a.meet.example.org"), "a.meet.example.org:7879");
        assert_eq!(told("http://127.0.0.1:7880/"), "127.0.0.1:7879");
        assert_eq!(told("http://[2001:db8::7]:7880"), "[2001:db8::7]:7879");
        assert_eq!(told("http://[2001:db8::7]"), "[2001:db8::7]:7879");
        assert_eq!(relay(Some(KEY), Some("10.0.0.7:9")).advertised("x").unwrap(), "10.0.0.7:9");
        assert_eq!(relay(None, Some("10.0.0.7:9")).advertised("x"), None);
    }

    #[test]
    fn what_is_wrong_says_what_is_accepted() {
        let wrong = |relay: Relay, in_cluster| {
            let mut wrong = Vec::new();
            relay.check(in_cluster, &mut wrong);
            wrong
        };
        assert_eq!(wrong(relay(Some(KEY), Some("10.0.0.7:7879")), true), Vec::<String>::new());
        assert_eq!(wrong(relay(None, None), false), Vec::<String>::new());
        assert!(wrong(relay(Some("short"), None), true)[0].contains("32 bytes"));
        assert!(wrong(relay(Some(KEY), None), false)[0].contains("cluster.redis_url"));
        assert!(wrong(relay(Some(KEY), Some("10.0.0.7")), true)[0].contains("HOST:PORT"));
    }
}
