//! Configuration of a node among others: where they meet, and what this one is to them.

use serde::{Deserialize, Serialize};

use super::{Secret, check};

/// Several nodes as one. Without `redis_url` the node is alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Where the nodes agree on who holds which room: `redis://HOST:PORT`,
    /// `redis-sentinel://HOST:PORT,HOST:PORT/MASTER` or `redis-cluster://HOST:PORT,HOST:PORT`.
    pub redis_url: Option<Secret>,
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
    /// What this node can send, bits per second.
    pub egress_bps_max: u64,
    /// What this node can forward, packets per second.
    pub packets_per_second_max: u64,
    /// Connections that this node can carry.
    pub peers_max: u32,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            redis_url: None,
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
            egress_bps_max: 10_000_000_000,
            packets_per_second_max: 1_000_000,
            peers_max: 10_000,
        }
    }
}

impl Cluster {
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
        let Some(redis) = &self.redis_url else {
            if !self.kafka_brokers.is_empty() {
                wrong.push("`cluster.kafka_brokers`: a shared log needs cluster.redis_url, too".into());
            }
            return;
        };
        if !["redis://", "redis-sentinel://", "redis-cluster://"]
            .iter()
            .any(|scheme| redis.reveal().starts_with(scheme))
        {
            wrong.push(
                "`cluster.redis_url`: accepted is redis://HOST:PORT, redis-sentinel://HOST:PORT,HOST:PORT/MASTER \
                 or redis-cluster://HOST:PORT,HOST:PORT"
                    .into(),
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
