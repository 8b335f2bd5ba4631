//! What every registry of rooms does, run against memory and a real Redis; and what only Redis can suffer.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antiphon::cluster::memory::MemoryLeases;
use antiphon::cluster::redis::RedisLeases;
use antiphon::cluster::{Bid, Claim, Known, Lease, LeaseError, Leases, Pulse};
use antiphon::config::Secret;
use antiphon::core::ids::NodeId;
use antiphon::core::placement::{NodeRecord, NodeState, Owner, Renewal};
use tokio::time::sleep;

use super::brokers::Identity;
use super::redis::Redis;
use super::room;

const TTL: Duration = Duration::from_millis(400);
const ORPHAN_KEPT: Duration = Duration::from_secs(60);
/// For what takes a moment on a machine with much to do.
const SOON: Duration = Duration::from_secs(20);

/// One test for each name and each registry; all of one registry share one server and differ in their rooms.
macro_rules! for_every_registry {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&super::MemoryLeases::new(super::TTL, super::ORPHAN_KEPT)).await;
                }
            )*
        }
        #[tokio::test]
        async fn redis() {
            let redis = Redis::start(false);
            let leases = connect(&redis);
            settled(&leases).await;
            $( $name(&leases).await; )*
        }
        #[tokio::test]
        async fn redis_cluster() {
            let servers = cluster();
            let hosts: Vec<String> = servers.iter().map(Redis::address).collect();
            let leases = connect_to(&format!("redis-cluster://{}", hosts.join(",")), 0);
            settled(&leases).await;
            $( $name(&leases).await; )*
        }
    };
}

for_every_registry!(
    first_come_wins_and_the_next_epoch_is_higher,
    of_many_who_claim_at_once_one_wins,
    a_lease_runs_out_unless_renewed,
    a_room_that_was_lost_stays_lost,
    a_room_that_ended_is_free_and_its_epoch_rises,
    the_epoch_is_above_what_the_log_knows,
    settings_go_to_the_next_holder,
    a_holder_may_claim_anew_and_nobody_may_for_it,
    a_room_is_handed_over_to_one_other,
    late_words_of_an_earlier_epoch_change_nothing,
    nodes_know_each_other_until_they_fall_silent,
    a_later_start_of_a_node_takes_its_place,
);

fn connect(redis: &Redis) -> RedisLeases {
    connect_to(&redis.url(), 0)
}

fn connect_to(url: &str, replicas: u32) -> RedisLeases {
    RedisLeases::new(&Secret::new(url), None, TTL, ORPHAN_KEPT, replicas).expect("an address")
}

#[tokio::test]
async fn a_redis_by_tls_is_spoken_to_if_its_authority_is_ours() {
    let directory = tempfile::tempdir().expect("a directory");
    let (good, other) = (Identity::make(directory.path(), "good"), Identity::make(directory.path(), "other"));
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let (key, ca) = (good.keystore.display(), good.ca_file.display());
    let files = format!("--tls-cert-file {key} --tls-key-file {key} --tls-ca-cert-file {ca}");
    let _redis = Redis::with(false, &format!("--tls-port {port} {files} --tls-auth-clients no"));
    let leases = |ca_file: &Path| {
        let url = Secret::new(format!("rediss://127.0.0.1:{port}"));
        RedisLeases::new(&url, Some(ca_file), TTL, ORPHAN_KEPT, 0).expect("an address")
    };
    settled(&leases(&good.ca_file)).await;
    let refused = leases(&other.ca_file).look_up(&room("room")).await;
    assert!(matches!(refused, Err(LeaseError::Unreachable(_))), "{refused:?}");
    let missing = RedisLeases::new(
        &Secret::new("rediss://127.0.0.1:1"),
        Some(Path::new("/nowhere/ca.pem")),
        TTL,
        ORPHAN_KEPT,
        0,
    );
    let words = missing.err().expect("there is no such file").to_string();
    assert!(words.contains("cluster.redis_ca_file") && words.contains("/nowhere/ca.pem"), "{words}");
}

/// Three servers that share the slots of a Redis Cluster.
fn cluster() -> Vec<Redis> {
    let options = "--cluster-enabled yes --cluster-node-timeout 2000";
    let servers: Vec<Redis> = (0..3).map(|_| Redis::with(false, options)).collect();
    let hosts: Vec<String> = servers.iter().map(Redis::address).collect();
    let mut words = vec!["--cluster", "create"];
    words.extend(hosts.iter().map(String::as_str));
    words.push("--cluster-yes");
    let told = servers[0].ask(&words);
    let deadline = Instant::now() + SOON;
    while !servers.iter().all(|server| server.ask(&["cluster", "info"]).contains("cluster_state:ok")) {
        assert!(Instant::now() < deadline, "no cluster: {told}");
    }
    servers
}

/// A process that watches a master, and names the next.
struct Sentinel(std::process::Child);

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a new registry gives out rooms.
async fn settled(leases: &dyn Leases) {
    let deadline = Instant::now() + SOON;
    loop {
        match leases.claim(&bid("settled", "z")).await {
            Ok(Claim::Settling(wait)) => sleep(wait).await,
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("a plain name")
}

fn bid(name: &str, of: &str) -> Bid {
    Bid { room: room(name), node: node(of), incarnation: 1, floor: 0, on_behalf: false, may_be_held: true }
}

fn lease(name: &str, of: &str, epoch: u64) -> Lease {
    Lease { room: room(name), node: node(of), incarnation: 1, epoch }
}

fn owner(of: &str, epoch: u64) -> Owner {
    Owner { node: node(of), incarnation: 1, epoch }
}

/// Claims a room that can be had, and says under which epoch and with which settings.
async fn won(leases: &dyn Leases, bid: &Bid) -> (u64, Option<String>) {
    match leases.claim(bid).await.expect("an answer") {
        Claim::Won { epoch, settings } => (epoch, settings),
        other => panic!("{} is not to be had: {other:?}", bid.room),
    }
}

async fn renewed(leases: &dyn Leases, lease: &Lease) -> Renewal {
    leases.renew(lease, "").await.expect("an answer")
}

async fn first_come_wins_and_the_next_epoch_is_higher(leases: &dyn Leases) {
    assert_eq!(leases.look_up(&room("first")).await, Ok(Known::Free));
    let (epoch, settings) = won(leases, &bid("first", "a")).await;
    assert_eq!((epoch, settings), (1, None));
    assert_eq!(leases.claim(&bid("first", "b")).await, Ok(Claim::Held(owner("a", 1))));
    assert_eq!(leases.look_up(&room("first")).await, Ok(Known::Held(owner("a", 1))));
    sleep(TTL * 3 / 2).await;
    assert_eq!(leases.look_up(&room("first")).await, Ok(Known::Orphaned));
    assert_eq!(won(leases, &bid("first", "b")).await.0, 2);
}

async fn of_many_who_claim_at_once_one_wins(leases: &dyn Leases) {
    let names: Vec<String> = (0..40).map(|at| format!("n{at}")).collect();
    let bids: Vec<Bid> = names.iter().map(|name| bid("many", name)).collect();
    let claims = futures_util::future::join_all(bids.iter().map(|bid| leases.claim(bid))).await;
    let claims: Vec<Claim> = claims.into_iter().map(|claim| claim.expect("an answer")).collect();
    let winners = claims.iter().filter(|claim| matches!(claim, Claim::Won { epoch: 1, .. })).count();
    assert_eq!(winners, 1, "{claims:?}");
    assert_eq!(claims.iter().filter(|claim| matches!(claim, Claim::Held(_))).count(), 39);
}

async fn a_lease_runs_out_unless_renewed(leases: &dyn Leases) {
    let (epoch, _) = won(leases, &bid("renewed", "a")).await;
    let held = lease("renewed", "a", epoch);
    for _ in 0..6 {
        sleep(TTL / 3).await;
        assert_eq!(renewed(leases, &held).await, Renewal::Renewed);
        assert_eq!(leases.claim(&bid("renewed", "b")).await, Ok(Claim::Held(owner("a", epoch))));
    }
    sleep(TTL * 3 / 2).await;
    // Nobody took it meanwhile.
    assert_eq!(renewed(leases, &held).await, Renewal::Renewed);
    assert!(matches!(leases.claim(&bid("renewed", "b")).await, Ok(Claim::Held(_))));
}

async fn a_room_that_was_lost_stays_lost(leases: &dyn Leases) {
    let (epoch, _) = won(leases, &bid("lost", "a")).await;
    sleep(TTL * 3 / 2).await;
    let (next, _) = won(leases, &bid("lost", "b")).await;
    assert!(next > epoch);
    assert_eq!(renewed(leases, &lease("lost", "a", epoch)).await, Renewal::Lost);
    assert_eq!(leases.release(&lease("lost", "a", epoch), true).await, Ok(false));
    assert_eq!(leases.hand_over(&lease("lost", "a", epoch), &node("c"), 1).await, Ok(None));
    assert_eq!(renewed(leases, &lease("lost", "b", next)).await, Renewal::Renewed);
}

async fn a_room_that_ended_is_free_and_its_epoch_rises(leases: &dyn Leases) {
    let (epoch, _) = won(leases, &bid("ended", "a")).await;
    let held = lease("ended", "a", epoch);
    leases.renew(&held, "settings").await.expect("an answer");
    assert_eq!(leases.release(&held, true).await, Ok(true));
    assert_eq!(leases.look_up(&room("ended")).await, Ok(Known::Free));
    // A renewal that was on its way does not bring it back.
    assert_eq!(renewed(leases, &held).await, Renewal::Lost);
    assert_eq!(won(leases, &bid("ended", "b")).await, (epoch + 1, None));
}

async fn the_epoch_is_above_what_the_log_knows(leases: &dyn Leases) {
    // As old logs count: milliseconds of the time, which no number may lose a digit of.
    let floor = 1_795_687_824_914;
    let (epoch, _) = won(leases, &Bid { floor, ..bid("floor", "a") }).await;
    assert_eq!(epoch, floor + 1);
    assert_eq!(leases.release(&lease("floor", "a", epoch), true).await, Ok(true));
    assert_eq!(won(leases, &Bid { floor: 7, ..bid("floor", "b") }).await.0, epoch + 1);
}

async fn settings_go_to_the_next_holder(leases: &dyn Leases) {
    let (epoch, _) = won(leases, &bid("settings", "a")).await;
    let words = r#"{"locked":true,"name":"Zoë"}"#;
    leases.renew(&lease("settings", "a", epoch), words).await.expect("an answer");
    assert_eq!(leases.release(&lease("settings", "a", epoch), false).await, Ok(true));
    assert_eq!(leases.look_up(&room("settings")).await, Ok(Known::Orphaned));
    let (epoch, settings) = won(leases, &bid("settings", "b")).await;
    assert_eq!(settings.as_deref(), Some(words));
    sleep(TTL * 3 / 2).await;
    assert_eq!(won(leases, &bid("settings", "c")).await, (epoch + 1, Some(words.to_owned())));
}

async fn a_holder_may_claim_anew_and_nobody_may_for_it(leases: &dyn Leases) {
    let (first, _) = won(leases, &bid("anew", "a")).await;
    let for_it = Bid { on_behalf: true, ..bid("anew", "a") };
    assert_eq!(leases.claim(&for_it).await, Ok(Claim::Held(owner("a", first))));
    let restarted = Bid { incarnation: 2, ..bid("anew", "a") };
    let (second, _) = won(leases, &restarted).await;
    assert!(second > first);
    assert_eq!(renewed(leases, &lease("anew", "a", first)).await, Renewal::Lost);
    // A claim that came late has raised the epoch: its own incarnation does not let go for that.
    let (third, _) = won(leases, &restarted).await;
    let held = Lease { incarnation: 2, ..lease("anew", "a", second) };
    assert_eq!((third, renewed(leases, &held).await), (second + 1, Renewal::Renewed));
}

async fn a_room_is_handed_over_to_one_other(leases: &dyn Leases) {
    let (epoch, _) = won(leases, &bid("handed", "a")).await;
    let held = lease("handed", "a", epoch);
    assert_eq!(leases.hand_over(&held, &node("b"), 1).await, Ok(Some(epoch + 1)));
    assert_eq!(leases.hand_over(&held, &node("c"), 1).await, Ok(None));
    assert_eq!(renewed(leases, &held).await, Renewal::Lost);
    assert_eq!(leases.look_up(&room("handed")).await, Ok(Known::Held(owner("b", epoch + 1))));
    assert_eq!(won(leases, &bid("handed", "b")).await.0, epoch + 2);
}

async fn late_words_of_an_earlier_epoch_change_nothing(leases: &dyn Leases) {
    let (first, _) = won(leases, &bid("late", "a")).await;
    let (second, _) = won(leases, &bid("late", "a")).await;
    assert_eq!(leases.release(&lease("late", "a", first), true).await, Ok(false));
    assert_eq!(leases.look_up(&room("late")).await, Ok(Known::Held(owner("a", second))));
}

fn record(name: &str, incarnation: u64) -> NodeRecord {
    NodeRecord {
        relay: None,
        seats_lodgers: false,
        id: node(name),
        incarnation,
        url: format!("http://{name}"),
        region: "eu".into(),
        state: NodeState::Active,
        score: 0.25,
        rooms: 3,
    }
}

async fn nodes_know_each_other_until_they_fall_silent(leases: &dyn Leases) {
    leases.heartbeat(&record("quiet", 1)).await.expect("an answer");
    let known = leases.heartbeat(&record("loud", 1)).await.expect("an answer");
    assert_eq!(known, Pulse::Nodes(vec![record("loud", 1), record("quiet", 1)]));
    sleep(TTL * 3 / 2).await;
    let known = leases.heartbeat(&record("loud", 1)).await.expect("an answer");
    assert_eq!(known, Pulse::Nodes(vec![record("loud", 1)]));
    leases.sign_off(&node("loud"), 2).await.expect("an answer");
    leases.heartbeat(&record("quiet", 1)).await.expect("an answer");
    leases.sign_off(&node("loud"), 1).await.expect("an answer");
    let known = leases.heartbeat(&record("quiet", 1)).await.expect("an answer");
    assert_eq!(known, Pulse::Nodes(vec![record("quiet", 1)]));
    leases.sign_off(&node("quiet"), 1).await.expect("an answer");
}

async fn a_later_start_of_a_node_takes_its_place(leases: &dyn Leases) {
    leases.heartbeat(&record("twice", 10)).await.expect("an answer");
    leases.heartbeat(&record("twice", 11)).await.expect("an answer");
    assert_eq!(leases.heartbeat(&record("twice", 10)).await, Ok(Pulse::Superseded));
    leases.sign_off(&node("twice"), 11).await.expect("an answer");
}

#[tokio::test]
async fn what_was_held_is_said_again_after_redis_was_emptied() {
    let redis = Redis::start(false);
    let leases = connect(&redis);
    settled(&leases).await;
    let (epoch, _) = won(&leases, &bid("kept", "a")).await;
    let held = lease("kept", "a", epoch);
    for how in ["empty", "kill9"] {
        redis.act(how);
        redis.act("up");
        let deadline = Instant::now() + SOON;
        // Who asks for it at once has to wait: its holder is alive.
        let claim = loop {
            match leases.claim(&bid("kept", "b")).await {
                Ok(claim) => break claim,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        assert!(matches!(claim, Claim::Settling(wait) if wait <= TTL * 3), "{claim:?}");
        assert_eq!(renewed(&leases, &held).await, Renewal::Reasserted);
        assert_eq!(leases.claim(&bid("kept", "b")).await, Ok(Claim::Held(owner("a", epoch))));
    }
}

#[tokio::test]
async fn of_two_who_say_what_they_hold_the_higher_epoch_counts() {
    let redis = Redis::start(false);
    let leases = connect(&redis);
    redis.act("empty");
    assert_eq!(renewed(&leases, &lease("two", "old", 4)).await, Renewal::Reasserted);
    assert_eq!(renewed(&leases, &lease("two", "new", 5)).await, Renewal::Reasserted);
    assert_eq!(renewed(&leases, &lease("two", "old", 4)).await, Renewal::Lost);
    assert_eq!(renewed(&leases, &lease("two", "new", 5)).await, Renewal::Renewed);
}

#[tokio::test]
async fn a_redis_that_hangs_or_is_gone_delays_nobody_for_long() {
    let redis = Redis::start(true);
    let leases = Arc::new(connect(&redis));
    settled(&*leases).await;
    let (epoch, _) = won(&*leases, &bid("delay", "a")).await;
    for (how, back) in [("freeze", "thaw"), ("kill9", "up")] {
        redis.act(how);
        let asked = Instant::now();
        assert!(leases.look_up(&room("delay")).await.is_err(), "{how}");
        assert!(leases.renew(&lease("delay", "a", epoch), "").await.is_err(), "{how}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{how} took {:?}", asked.elapsed());
        redis.act(back);
        let deadline = Instant::now() + SOON;
        // It kept what it knew: the same epoch is renewed.
        while leases.renew(&lease("delay", "a", epoch), "").await != Ok(Renewal::Renewed) {
            assert!(Instant::now() < deadline, "{back}");
        }
    }
}

#[tokio::test]
async fn a_master_that_dies_is_followed_by_its_replica() {
    // The replica is there at once, not after five seconds in which others might come.
    let master = Redis::with(false, "--repl-diskless-sync-delay 0");
    let replica = Redis::with(false, &format!("--replicaof {}", master.address().replace(':', " ")));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("its address").port();
    drop(free);
    let file = directory.path().join("sentinel.conf");
    let words = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main {} 1\n\
         sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
        directory.path().display(),
        master.address().replace(':', " "),
    );
    std::fs::write(&file, words).expect("written");
    let sentinel = std::process::Command::new("redis-server")
        .arg(&file)
        .arg("--sentinel")
        .stdout(std::process::Stdio::null())
        .spawn()
        .map(Sentinel)
        .expect("redis-server");
    let leases = connect_to(&format!("redis-sentinel://127.0.0.1:{port}/main"), 1);
    // A claim counts once the replica has it.
    settled(&leases).await;
    let deadline = Instant::now() + SOON;
    let (epoch, _) = loop {
        match leases.claim(&bid("followed", "a")).await {
            Ok(Claim::Won { epoch, settings }) => break (epoch, settings),
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        sleep(TTL / 4).await;
    };
    // Sentinel has to know of the replica before it can make it the master.
    while !replica.ask(&["-p", &port.to_string(), "sentinel", "replicas", "main"]).contains("slave") {
        assert!(Instant::now() < deadline, "Sentinel does not see the replica");
        sleep(TTL / 4).await;
    }
    master.act("kill9");
    let killed = Instant::now();
    let held = lease("followed", "a", epoch);
    let deadline = Instant::now() + SOON;
    loop {
        match leases.renew(&held, "").await {
            Ok(renewal) => {
                assert_eq!(renewal, Renewal::Renewed, "the replica has the claim");
                break;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(TTL / 4).await;
    }
    println!("{{\"what\": \"Sentinel failover\", \"ms\": {}}}", killed.elapsed().as_millis());
    assert_eq!(leases.claim(&bid("followed", "b")).await, Ok(Claim::Held(owner("a", epoch))));
    drop(sentinel);
}
