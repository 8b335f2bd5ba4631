//! Nodes as processes of the product, and plain requests to them.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Client, StatusCode, redirect::Policy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::kafka::Kafka;
use crate::path::Path as Way;
use crate::redis::Redis;
use crate::until;

/// Nodes of one cluster, and a runtime to ask them from.
pub struct World {
    pub redis: Redis,
    /// What the nodes share their log in, if they do.
    pub kafka: Option<Kafka>,
    pub nodes: Vec<Node>,
    pub lease: Duration,
    links: Links,
    runtime: Runtime,
    http: Client,
    directory: tempfile::TempDir,
}

/// A process of the product. It is killed with the test.
pub struct Node {
    pub url: String,
    id: String,
    ports: Ports,
    process: Child,
    /// By which links of other nodes come to it.
    pub way: Option<Way>,
}

#[derive(Clone, Copy)]
struct Ports {
    http: u16,
    udp: u16,
    /// Where links come in, and where others believe them to.
    relay: Option<(u16, u16)>,
}

/// By which linked nodes know each other.
pub const RELAY_KEY: &str = "a-secret-of-32-bytes-that-all-share";

/// How nodes are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    None,
    /// All in one region, each with room for ten connections.
    Near,
    /// Each in a region of its own.
    Far,
    /// As [`Links::Far`], and the last node has another key than the others.
    WrongKey,
}

/// A status, where it leads, and the body.
pub struct Reply {
    pub status: StatusCode,
    pub location: Option<String>,
    pub retry_after: Option<String>,
    pub body: Value,
}

impl World {
    /// Starts Redis and `count` nodes, and waits until they know each other.
    pub fn start(count: usize) -> Self {
        Self::with(count, None, Links::None)
    }

    /// As [`World::start`], with links between nodes.
    pub fn linked(count: usize, links: Links) -> Self {
        Self::with(count, None, links)
    }

    /// As [`World::start`], with a log that the nodes share.
    pub fn sharing_a_log(count: usize) -> Self {
        Self::with(count, Some(Kafka::start()), Links::None)
    }

    fn with(count: usize, kafka: Option<Kafka>, links: Links) -> Self {
        let lease_ms = std::env::var("ANTIPHON_LEASE_MS").ok().and_then(|text| text.parse().ok());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        // As browsers and load balancers see it: redirects are followed by whoever wants to.
        let http = Client::builder().redirect(Policy::none()).timeout(Duration::from_secs(8)).build();
        let mut world = Self {
            redis: Redis::start(true),
            kafka,
            nodes: Vec::new(),
            lease: Duration::from_millis(lease_ms.unwrap_or(2_000)),
            links,
            runtime: runtime.expect("a runtime"),
            http: http.expect("a client"),
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        for number in 0..count {
            let id = format!("node-{number}");
            let own = free_port();
            let way = (links != Links::None).then(|| Way::to(own));
            let relay = way.as_ref().map(|way| (own, way.port()));
            let ports = Ports { http: free_port(), udp: free_pair(), relay };
            let process = world.spawn(&id, ports);
            world.nodes.push(Node {
                url: format!("http://127.0.0.1:{}", ports.http),
                id,
                ports,
                process,
                way,
            });
        }
        world.all_know(count);
        world
    }

    fn spawn(&self, id: &str, ports: Ports) -> Child {
        let data = self.directory.path().join(id);
        let log = self.directory.path().join(format!("{id}.log"));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let dev = ["serve", "--dev"];
        let brokers = self.kafka.as_ref().map(Kafka::brokers).unwrap_or_default();
        let region = if self.links == Links::Far || self.links == Links::WrongKey { id } else { "one" };
        let is_last = id == "node-2" && self.links == Links::WrongKey;
        let key = if is_last { "another-secret-of-32-bytes-or-more" } else { RELAY_KEY };
        let relay = ports.relay.map(|(own, told)| {
            [
                ("ANTIPHON_CLUSTER__RELAY__KEY", key.to_owned()),
                ("ANTIPHON_CLUSTER__RELAY__LISTEN", format!("127.0.0.1:{own}")),
                ("ANTIPHON_CLUSTER__RELAY__ADDRESS", format!("127.0.0.1:{told}")),
            ]
        });
        Command::new(env!("CARGO_BIN_EXE_antiphon"))
            .args(dev)
            .envs(relay.into_iter().flatten())
            .env("ANTIPHON_CLUSTER__REGION", region)
            // Linked nodes have their viewers on both of two shards.
            .env("ANTIPHON_MEDIA__SHARDS", if ports.relay.is_some() { "2" } else { "1" })
            .env("ANTIPHON_MEDIA__SPREAD_AT", if ports.relay.is_some() { "0" } else { "0.7" })
            .env("ANTIPHON_CLUSTER__PEERS_MAX", if self.links == Links::Near { "10" } else { "10000" })
            .env("ANTIPHON_CLUSTER__KAFKA_BROKERS", brokers)
            .envs([
                ("ANTIPHON_HTTP__LISTEN", format!("127.0.0.1:{}", ports.http)),
                ("ANTIPHON_MEDIA__UDP_PORT", ports.udp.to_string()),
                ("ANTIPHON_MEDIA__LISTEN", "127.0.0.1".into()),
                ("ANTIPHON_MEDIA__TCP_PORT", "0".into()),
                ("ANTIPHON_MCU__ENABLED", "false".into()),
                ("ANTIPHON_NODE__DATA_DIR", data.display().to_string()),
                ("ANTIPHON_CLUSTER__REDIS_URL", self.redis.url()),
                ("ANTIPHON_CLUSTER__NODE_ID", id.into()),
                ("ANTIPHON_CLUSTER__URL", format!("http://127.0.0.1:{}", ports.http)),
                ("ANTIPHON_CLUSTER__LEASE_MS", self.lease.as_millis().to_string()),
                ("ANTIPHON_LIMITS__JOINS_PER_SECOND", "1000".into()),
                ("ANTIPHON_LOG__FILTER", "info,str0m=warn,dimpl=warn,is=warn,antiphon::cluster=debug".into()),
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the product")
    }

    /// Waits until every node says that `count` are alive.
    pub fn all_know(&self, count: usize) {
        let wanted = format!("antiphon_placement_nodes {count}");
        until(&format!("{count} nodes know each other"), || {
            self.nodes.iter().filter(|node| node.runs()).all(|node| {
                self.text(&format!("{}/metrics", node.url)).is_some_and(|text| text.contains(&wanted))
            })
        });
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// A room's address at a node.
    pub fn url_of(&self, node: usize, room: &str) -> String {
        format!("{}/v1/rooms/{room}", self.nodes[node].url)
    }

    /// A figure of a node: what stands behind this in its metrics.
    pub fn figure(&self, node: usize, name: &str) -> f64 {
        let text = self.text(&format!("{}/metrics", self.nodes[node].url)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// Joins with an SDP offer: status, where it leads, and the answer.
    pub fn join(&self, url: &str, offer: String) -> (StatusCode, Option<String>, String) {
        let request = self.http.post(url).header("content-type", "application/sdp").body(offer);
        self.runtime.block_on(async {
            let response = request.send().await.expect("an answer");
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let (status, location) = (response.status(), location.map(str::to_owned));
            (status, location, response.text().await.unwrap_or_default())
        })
    }

    fn text(&self, url: &str) -> Option<String> {
        let asked = async { self.http.get(url).send().await.ok()?.text().await.ok() };
        self.runtime.block_on(asked)
    }

    /// One request, without following anything. `None`: nobody answers.
    pub fn ask(&self, method: &str, url: &str, body: Option<Value>) -> Option<Reply> {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.runtime.block_on(async {
            let response = request.send().await.ok()?;
            let header = |name: &str| {
                response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
            };
            let (status, location, retry_after) =
                (response.status(), header("location"), header("retry-after"));
            let bytes = response.bytes().await.ok()?;
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Some(Reply { status, location, retry_after, body })
        })
    }

    /// Makes a room through this node, wherever that leads.
    pub fn make(&self, through: usize, room: &str) {
        let mut url = format!("{}/v1/rooms", self.nodes[through].url);
        for _ in 0..3 {
            let reply = self.ask("POST", &url, Some(json!({"name": room}))).expect("an answer");
            match reply.location {
                Some(location) if reply.status == StatusCode::TEMPORARY_REDIRECT => url = location,
                _ => {
                    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
                    return;
                }
            }
        }
        panic!("{room} is sent from node to node");
    }

    /// The node that serves a room, by its own word.
    pub fn home_of(&self, room: &str) -> Option<usize> {
        let shows = |node: &Node| {
            let reply = self.ask("GET", &format!("{}/v1/rooms/{room}", node.url), None);
            reply.is_some_and(|reply| reply.status == StatusCode::OK)
        };
        self.nodes.iter().position(|node| node.runs() && shows(node))
    }

    /// What the registry would tell the room's next node of it.
    pub fn settings_of(&self, room: &str) -> String {
        self.redis.ask(&["hget", &format!("an:{{r:{room}}}:own"), "settings"])
    }

    /// The epoch under which Redis has a room.
    pub fn epoch_of(&self, room: &str) -> u64 {
        let answer = self.redis.ask(&["hget", &format!("an:{{r:{room}}}:own"), "epoch"]);
        answer.trim().parse().unwrap_or(0)
    }

    /// Starts a node anew, that was killed or has ended.
    pub fn restart(&mut self, node: usize) {
        let process = self.spawn(&self.nodes[node].id, self.nodes[node].ports);
        self.nodes[node].process = process;
    }

    /// What a node has logged.
    pub fn log_of(&self, node: usize) -> String {
        let path = self.directory.path().join(format!("{}.log", self.nodes[node].id));
        std::fs::read_to_string(Path::new(&path)).unwrap_or_default()
    }
}

impl Node {
    pub fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
        state.is_some_and(|state| !["Z", "X", "T"].contains(&state))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it is there");
    }

    pub fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    /// Waits for the end of a process that was told to go.
    pub fn wait(&mut self) -> bool {
        self.process.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago, for TCP and, as nobody else here uses them, for UDP.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The first of two ports in a row that were free for UDP.
fn free_pair() -> u16 {
    let is_free = |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok();
    std::iter::repeat_with(free_port)
        .find(|port| *port < u16::MAX && is_free(*port) && is_free(port + 1))
        .expect("there are many")
}
