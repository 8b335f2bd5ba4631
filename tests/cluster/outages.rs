//! Redis, Kafka or the disk are away for a while: what goes on meanwhile, and what is so afterwards.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use antiphon::bench::person::Person;
use reqwest::StatusCode;
use serde_json::json;

use crate::faults::{rooms_of, seat};
use crate::history::{all_acknowledged, chatter, history_has, verified};
use crate::network::has_namespaces;
use crate::nodes::{Setup, World};
use crate::{away, bound, until};

/// From one word to the next: a room takes so many that wait, however long something is away.
fn pace() -> Duration {
    Duration::from_millis(100).max(away() / 100)
}

/// Sound that stops for longer is a fault; less is a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Beyond a lease, for all to be as it was once Redis is there.
const RECOVERY: Duration = Duration::from_secs(2);

fn listen_anew(people: &[Person]) {
    people.iter().for_each(Person::listen_anew);
}

/// The longest that anybody heard nothing, which must not have been long, but for what the machine kept the
/// clients themselves from taking and sending it; and that, in milliseconds.
#[track_caller]
fn silence(people: &[Person]) -> (u128, u128) {
    let longest = people.iter().map(|person| person.story().silence_max).max().unwrap_or_default();
    let stall = people.iter().map(|person| person.story().stall_max).max().unwrap_or_default();
    let by_nodes = longest.saturating_sub(stall);
    assert!(by_nodes < bound(SILENCE_MAX), "media has stopped for {longest:?}, clients for {stall:?}");
    assert!(
        people
            .iter()
            .all(|person| person.story().media_at.is_some_and(|at| at.elapsed() < bound(SILENCE_MAX)))
    );
    (longest.as_millis(), stall.as_millis())
}

fn welcomes(people: &[Person]) -> Vec<u32> {
    people.iter().map(|person| person.story().welcomes).collect()
}

fn is_ready(world: &World, node: usize) -> bool {
    let reply = world.ask("GET", &format!("{}/readyz", world.nodes[node].url), None);
    reply.is_some_and(|reply| reply.status == StatusCode::OK)
}

#[test]
fn redis_may_be_away_for_long_and_come_back_empty() {
    let world = World::of(Setup { nodes: 2, redis_keeps: false, ..Setup::default() });
    let rooms = rooms_of(&world, 0, 2);
    let people = seat(&world, &rooms);
    until("all hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
    let epochs = world.epochs_of(&rooms);
    world.redis.act("kill9");
    listen_anew(&people);
    let gone_at = Instant::now();
    let said = chatter(&people, 0, pace(), || gone_at.elapsed() < away());
    let reply = world.ask("POST", &format!("{}/v1/rooms", world.nodes[1].url), Some(json!({"name": "new"})));
    let reply = reply.expect("an answer");
    assert_eq!((reply.status.as_u16(), reply.retry_after.is_some()), (503, true), "{}", reply.body);
    all_acknowledged(&people, said);
    world.redis.act("up");
    let back_at = Instant::now();
    // At once, through the other node: nobody has said yet whose the room is.
    let late = Person::start(&rooms[0], "late", 99, vec![world.nodes[1].url.clone()]).expect("a thread");
    until("all is as before", || {
        is_ready(&world, 0) && is_ready(&world, 1) && world.epochs_of(&rooms) == epochs
    });
    let recovered = back_at.elapsed();
    until("the late one is in", || late.story().welcomes == 1);
    let late_in = back_at.elapsed();
    assert_eq!(late.story().node.as_deref(), Some(world.nodes[0].url.as_str()));
    assert_eq!(world.epochs_of(&rooms), epochs, "owners hold on");
    assert!(welcomes(&people).iter().all(|count| *count == 1), "nobody had to come back");
    let quiet = silence(&people);
    println!(
        "{}",
        json!({"what": "Redis away, then empty", "away_s": away().as_secs(), "said": said * people.len(),
            "longest_silence_ms": quiet.0, "clients_stalled_ms": quiet.1,
            "recovered_ms": recovered.as_millis(),
            "newcomer_in_ms": late_in.as_millis()})
    );
    assert!(recovered < bound(world.lease + RECOVERY), "{recovered:?}");
    // New rooms are welcome again.
    world.make(1, "new");
}

#[test]
fn chat_waits_for_kafka_and_media_for_nothing() {
    let world = World::of(Setup { nodes: 2, kafka: true, ..Setup::default() });
    let rooms = rooms_of(&world, 0, 1);
    let people = seat(&world, &rooms);
    until("all hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
    let kafka = world.kafka.as_ref().expect("a shared log");
    let mut said = 0;
    for (what, gone, back) in [
        ("Kafka frozen", ("freeze", None), ("thaw", None)),
        ("Kafka killed", ("kill9", None), ("up", None)),
        ("Kafka and Redis killed", ("kill9", Some("kill9")), ("up", Some("up"))),
    ] {
        kafka.act(gone.0);
        gone.1.into_iter().for_each(|how| world.redis.act(how));
        listen_anew(&people);
        let gone_at = Instant::now();
        let acknowledged = people[0].story().acknowledged.len();
        let before = said;
        said = chatter(&people, said, pace(), || gone_at.elapsed() < away());
        let now = people[0].story().acknowledged.len();
        assert!(now < said, "nothing is acknowledged early: {acknowledged} before, {now} of {said} now");
        let quiet = silence(&people);
        back.1.into_iter().for_each(|how| world.redis.act(how));
        kafka.act(back.0);
        let back_at = Instant::now();
        all_acknowledged(&people, said);
        println!(
            "{}",
            json!({"what": what, "away_s": away().as_secs(), "said": (said - before) * people.len(),
                "longest_silence_ms": quiet.0,
                "clients_stalled_ms": quiet.1, "drained_ms": back_at.elapsed().as_millis()})
        );
    }
    assert!(welcomes(&people).iter().all(|count| *count == 1), "nobody had to come back");
    history_has(&world, &rooms[0], &people);
    let findings = verified(&world);
    assert_eq!(findings["faults_total"], 0, "{findings}");
}

#[test]
fn a_full_disk_refuses_chat_and_stops_no_media() {
    if !has_namespaces("outages::a_full_disk_refuses_chat_and_stops_no_media") {
        return;
    }
    let world = World::of(Setup { nodes: 2, kafka: true, small_disk_mib: Some(8), ..Setup::default() });
    let rooms = rooms_of(&world, 0, 1);
    let people = seat(&world, &rooms);
    until("all hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
    let began = Instant::now();
    let said = chatter(&people, 0, pace(), || began.elapsed() < Duration::from_secs(1));
    all_acknowledged(&people, said);
    let ballast = world.data_of(0).join("ballast");
    let mut file = File::create(&ballast).expect("a file");
    while file.write_all(&[7; 4_096]).is_ok() {}
    listen_anew(&people);
    let full_at = Instant::now();
    let said = chatter(&people, said, pace(), || full_at.elapsed() < away());
    // The write-ahead log has some space of its own, and then none.
    assert!(people.iter().any(|person| person.story().acknowledged.len() < said));
    until("its author is told", || people.iter().any(|person| person.story().trouble.is_some()));
    until("no new rooms", || !is_ready(&world, 0));
    let quiet = silence(&people);
    let told = world.log_of(0).matches("cannot be written").count();
    assert!((1..20).contains(&told), "it is said, and not again and again: {told} times");
    drop(file);
    std::fs::remove_file(&ballast).expect("it is there");
    let freed_at = Instant::now();
    all_acknowledged(&people, said);
    let drained = freed_at.elapsed();
    until("new rooms again", || is_ready(&world, 0));
    println!(
        "{}",
        json!({"what": "disk full", "full_s": away().as_secs(), "longest_silence_ms": quiet.0,
            "clients_stalled_ms": quiet.1, "drained_ms": drained.as_millis()})
    );
    assert!(welcomes(&people).iter().all(|count| *count == 1), "nobody had to come back");
    history_has(&world, &rooms[0], &people);
    let findings = verified(&world);
    assert_eq!(findings["faults_total"], 0, "{findings}");
}
