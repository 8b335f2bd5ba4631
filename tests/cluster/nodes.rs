//! Nodes as processes of the product, and plain requests to them.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, redirect::Policy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::kafka::Kafka;
use crate::network::{Network, Place};
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
    /// What they are on, where each has an address of its own.
    pub network: Option<Arc<Network>>,
    setup: Setup,
    runtime: Runtime,
    http: Client,
    directory: tempfile::TempDir,
}

/// A process of the product. It is killed with the test.
pub struct Node {
    pub url: String,
    id: String,
    ports: Ports,
    place: Place,
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

/// What a world is made of.
pub struct Setup {
    pub nodes: usize,
    /// Nodes share a log in Kafka.
    pub kafka: bool,
    pub links: Links,
    pub lease: Duration,
    /// What Redis knew survives a crash of it.
    pub redis_keeps: bool,
    /// Each node, Redis and Kafka are hosts of a network, in that order.
    pub has_network: bool,
    /// What the first node's disk holds, in MiB, where it is small. Within `has_namespaces` only.
    pub small_disk_mib: Option<u32>,
    /// More of a node's environment.
    pub extra: fn(usize) -> Vec<(&'static str, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        let lease_ms = std::env::var("ANTIPHON_LEASE_MS").ok().and_then(|text| text.parse().ok());
        Self {
            nodes: 3,
            kafka: false,
            links: Links::None,
            lease: Duration::from_millis(lease_ms.unwrap_or(2_000)),
            redis_keeps: true,
            has_network: false,
            small_disk_mib: None,
            extra: |_| Vec::new(),
        }
    }
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
        Self::of(Setup { nodes: count, ..Setup::default() })
    }

    /// As [`World::start`], with links between nodes.
    pub fn linked(count: usize, links: Links) -> Self {
        Self::of(Setup { nodes: count, links, ..Setup::default() })
    }

    /// As [`World::start`], with a log that the nodes share.
    pub fn sharing_a_log(count: usize) -> Self {
        Self::of(Setup { nodes: count, kafka: true, ..Setup::default() })
    }

    /// As it is described.
    pub fn of(setup: Setup) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        // As browsers and load balancers see it: redirects are followed by whoever wants to.
        let http = Client::builder().redirect(Policy::none()).timeout(Duration::from_secs(8)).build();
        let count = setup.nodes;
        let network = setup.has_network.then(|| Network::start(count + 2));
        let place = |host| network.as_ref().map_or(Place::HERE, |network| Place::host(network, host));
        let mut world = Self {
            redis: Redis::start_at(place(count), setup.redis_keeps, ""),
            kafka: setup.kafka.then(|| Kafka::start(place(count + 1))),
            nodes: Vec::new(),
            lease: setup.lease,
            network: network.clone(),
            runtime: runtime.expect("a runtime"),
            http: http.expect("a client"),
            directory: tempfile::tempdir().expect("a temporary directory"),
            setup,
        };
        if let Some(mib) = world.setup.small_disk_mib {
            mount(&world.data_of(0), mib);
        }
        for number in 0..count {
            let id = format!("node-{number}");
            let own = free_port();
            let way = (world.setup.links != Links::None).then(|| Way::to(own));
            let relay = way.as_ref().map(|way| (own, way.port()));
            let ports = Ports { http: free_port(), udp: free_pair(), relay };
            let place = place(number);
            let process = world.spawn(number, &place, ports);
            let url = format!("http://{}:{}", place.ip(), ports.http);
            world.nodes.push(Node { url, id, ports, place, process, way });
        }
        world.all_know(count);
        world
    }

    fn spawn(&self, number: usize, place: &Place, ports: Ports) -> Child {
        let id = format!("node-{number}");
        let log = self.directory.path().join(format!("{id}.log"));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let Setup { links, extra, .. } = &self.setup;
        let brokers = self.kafka.as_ref().map(Kafka::brokers).unwrap_or_default();
        let region = if *links == Links::Far || *links == Links::WrongKey { &id } else { "one" };
        let is_last = number == 2 && *links == Links::WrongKey;
        let key = if is_last { "another-secret-of-32-bytes-or-more" } else { RELAY_KEY };
        let relay = ports.relay.map(|(own, told)| {
            [
                ("ANTIPHON_CLUSTER__RELAY__KEY", key.to_owned()),
                ("ANTIPHON_CLUSTER__RELAY__LISTEN", format!("127.0.0.1:{own}")),
                ("ANTIPHON_CLUSTER__RELAY__ADDRESS", format!("127.0.0.1:{told}")),
            ]
        });
        let ip = place.ip();
        let mut command = place.command(program(number));
        if ip.is_loopback() {
            command.args(["serve", "--dev"]);
        } else {
            // What is open to all is on loopback alone; this is open to guests.
            command.arg("serve");
            command.envs([("ANTIPHON_AUTH__GUESTS", "true"), ("ANTIPHON_AUTH__KEYS__MEET", RELAY_KEY)]);
        }
        command
            .envs(relay.into_iter().flatten())
            .env("ANTIPHON_CLUSTER__REGION", region)
            // Linked nodes have their viewers on both of two shards.
            .env("ANTIPHON_MEDIA__SHARDS", if ports.relay.is_some() { "2" } else { "1" })
            .env("ANTIPHON_MEDIA__SPREAD_AT", if ports.relay.is_some() { "0" } else { "0.7" })
            .env("ANTIPHON_CLUSTER__PEERS_MAX", if *links == Links::Near { "10" } else { "10000" })
            .env("ANTIPHON_CLUSTER__KAFKA_BROKERS", brokers)
            .envs([
                ("ANTIPHON_HTTP__LISTEN", format!("{ip}:{}", ports.http)),
                ("ANTIPHON_MEDIA__UDP_PORT", ports.udp.to_string()),
                ("ANTIPHON_MEDIA__LISTEN", ip.to_string()),
                ("ANTIPHON_MEDIA__TCP_PORT", "0".into()),
                ("ANTIPHON_MCU__ENABLED", "false".into()),
                ("ANTIPHON_NODE__DATA_DIR", self.data_of(number).display().to_string()),
                ("ANTIPHON_CLUSTER__REDIS_URL", self.redis.url()),
                ("ANTIPHON_CLUSTER__NODE_ID", id.clone()),
                ("ANTIPHON_CLUSTER__URL", format!("http://{ip}:{}", ports.http)),
                ("ANTIPHON_CLUSTER__LEASE_MS", self.lease.as_millis().to_string()),
                ("ANTIPHON_LIMITS__JOINS_PER_SECOND", "1000".into()),
                // What waited is said in one go.
                ("ANTIPHON_LIMITS__MESSAGES_PER_SECOND", "1000".into()),
                ("ANTIPHON_LOG__FILTER", "info,str0m=warn,dimpl=warn,is=warn,antiphon::cluster=debug".into()),
            ])
            .envs(extra(number))
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().expect("the product")
    }

    /// Where a node keeps its data.
    pub fn data_of(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("node-{number}"))
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
        self.send_offer(self.http.post(url), offer)
    }

    /// Changes a session by an SDP fragment, whatever its entity tag: status, and the answer.
    pub fn patch(&self, url: &str, fragment: &str) -> (StatusCode, String) {
        let request = self.http.patch(url).header("if-match", "*").body(fragment.to_owned());
        let request = request.header("content-type", "application/trickle-ice-sdpfrag");
        self.runtime.block_on(async {
            let response = request.send().await.expect("an answer");
            (response.status(), response.text().await.unwrap_or_default())
        })
    }

    /// As [`World::join`], within a trace.
    pub fn join_within(&self, trace: &str, url: &str, offer: String) -> (StatusCode, Option<String>, String) {
        self.send_offer(self.http.post(url).header("traceparent", trace), offer)
    }

    fn send_offer(&self, request: RequestBuilder, offer: String) -> (StatusCode, Option<String>, String) {
        let request = request.header("content-type", "application/sdp").body(offer);
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
        self.send(self.http.request(method.parse().expect("a method"), url), body)
    }

    /// As [`World::ask`], within a trace.
    pub fn ask_within(&self, trace: &str, method: &str, url: &str, body: Option<Value>) -> Option<Reply> {
        let request = self.http.request(method.parse().expect("a method"), url);
        self.send(request.header("traceparent", trace), body)
    }

    fn send(&self, mut request: RequestBuilder, body: Option<Value>) -> Option<Reply> {
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
        let mut moves = 0;
        until("the room is made", || {
            let Some(reply) = self.ask("POST", &url, Some(json!({"name": room}))) else { return false };
            match reply.location {
                // Made by a request whose answer was late.
                _ if reply.body["code"] == "room_exists" => true,
                Some(location) if reply.status == StatusCode::TEMPORARY_REDIRECT => {
                    (url, moves) = (location, moves + 1);
                    assert!(moves < 3, "{room} is sent from node to node");
                    false
                }
                // A registry that is late on a busy machine, or that a node has just come back to.
                _ if reply.retry_after.is_some() => false,
                _ => {
                    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
                    true
                }
            }
        });
    }

    /// The node that serves a room, by its own word.
    pub fn home_of(&self, room: &str) -> Option<usize> {
        let shows = |node: &Node| {
            let reply = self.ask("GET", &format!("{}/v1/rooms/{room}", node.url), None);
            reply.is_some_and(|reply| reply.status == StatusCode::OK)
        };
        self.nodes.iter().position(|node| node.runs() && shows(node))
    }

    /// The node that holds a room, by the registry's word.
    pub fn owner_of(&self, room: &str) -> Option<usize> {
        let owner = self.redis.ask(&["hget", &format!("an:{{r:{room}}}:own"), "node"]);
        self.nodes.iter().position(|node| node.id == owner.trim())
    }

    /// What the registry would tell the room's next node of it.
    pub fn settings_of(&self, room: &str) -> String {
        self.redis.ask(&["hget", &format!("an:{{r:{room}}}:own"), "settings"])
    }

    /// The epochs under which Redis has rooms, all asked at once.
    pub fn epochs_of(&self, rooms: &[String]) -> Vec<u64> {
        let script = "local e = {} for i, k in ipairs(KEYS) do e[i] = redis.call('HGET', k, 'epoch') or '0' end return e";
        let (count, keys) =
            (rooms.len().to_string(), rooms.iter().map(|room| format!("an:{{r:{room}}}:own")));
        let keys: Vec<String> = keys.collect();
        let mut words = vec!["eval", script, &count];
        words.extend(keys.iter().map(String::as_str));
        self.redis.ask(&words).lines().map(|line| line.trim().parse().unwrap_or(0)).collect()
    }

    /// The epoch under which Redis has a room.
    pub fn epoch_of(&self, room: &str) -> u64 {
        let answer = self.redis.ask(&["hget", &format!("an:{{r:{room}}}:own"), "epoch"]);
        answer.trim().parse().unwrap_or(0)
    }

    /// Starts a node anew, that was killed or has ended.
    pub fn restart(&mut self, node: usize) {
        let Node { place, ports, .. } = &self.nodes[node];
        self.nodes[node].process = self.spawn(node, place, *ports);
    }

    /// What the next start of nodes has in its environment beside the rest.
    pub fn change(&mut self, extra: fn(usize) -> Vec<(&'static str, String)>) {
        self.setup.extra = extra;
    }

    /// What a node has logged.
    pub fn log_of(&self, node: usize) -> String {
        let path = self.directory.path().join(format!("{}.log", self.nodes[node].id));
        std::fs::read_to_string(Path::new(&path)).unwrap_or_default()
    }
}

impl Node {
    /// An address of this node, which may have left out its origin.
    pub fn absolute(&self, address: &str) -> String {
        if address.starts_with('/') { format!("{}{address}", self.url) } else { address.to_owned() }
    }

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

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What nodes warned of, for whoever reads why it failed.
            for node in 0..self.nodes.len() {
                let log = self.log_of(node);
                let warned = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
                warned.take(10).for_each(|line| eprintln!("node-{node}: {line}"));
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn mount(at: &Path, mib: u32) {
    std::fs::create_dir_all(at).expect("a directory");
    let size = format!("size={mib}m");
    let mut command = std::process::Command::new("mount");
    let mounted = command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at);
    assert!(mounted.status().expect("mount").success());
}

/// The program that a node runs: the first that of another version, where one is named.
fn program(number: usize) -> PathBuf {
    let other = std::env::var_os("ANTIPHON_PREVIOUS").filter(|_| number == 0);
    other.map_or_else(|| env!("CARGO_BIN_EXE_antiphon").into(), PathBuf::from)
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
