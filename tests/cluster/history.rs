//! What was acknowledged is there, once and in one order, whatever happens to nodes, Redis and Kafka.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use antiphon::bench::person::{Person, Story};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::nodes::World;
use crate::until;

/// Has everyone say something each so often, for so long; how much was said.
pub fn chatter(people: &[Person], from: usize, pace: Duration, mut goes_on: impl FnMut() -> bool) -> usize {
    let mut number = from;
    while goes_on() {
        for (who, person) in people.iter().enumerate() {
            assert!(person.say(&format!("m-{who}-{number}"), "words"), "too much waits");
        }
        number += 1;
        let next = Instant::now() + pace;
        until("it is time", || Instant::now() >= next);
    }
    number
}

pub fn all_acknowledged(people: &[Person], count: usize) {
    let lacks = |person: &&Person| person.story().acknowledged.len() != count;
    let began = Instant::now();
    let mut told = false;
    until("all is acknowledged", || {
        if began.elapsed() > Duration::from_secs(30) && !told {
            // Whose is not, before it is given up.
            told = true;
            for story in people.iter().filter(lacks).map(Person::story) {
                let said = story.acknowledged.len();
                let Story { node, welcomes, identity, trouble, .. } = story;
                eprintln!("{identity} at {node:?}: {said} of {count}, welcomes: {welcomes}, {trouble:?}");
            }
        }
        !people.iter().any(|person| lacks(&person))
    });
}

/// What `antiphon events verify` found in the whole log.
pub fn verified(world: &World) -> Value {
    serde_json::from_str(&told_of_log(world, &["verify"])).expect("one JSON object")
}

/// What `antiphon events replay` shows of a room.
pub fn replayed(world: &World, what: &str, room: &str) -> Value {
    let told = told_of_log(world, &["replay", "--show", what, "--room", room]);
    serde_json::from_str(&told).unwrap_or_default()
}

fn told_of_log(world: &World, how: &[&str]) -> String {
    let brokers = world.kafka.as_ref().expect("a shared log").brokers();
    let output = Command::new(env!("CARGO_BIN_EXE_antiphon"))
        .arg("events")
        .args(how)
        .arg("--dev")
        .env("ANTIPHON_CLUSTER__KAFKA_BROKERS", brokers)
        .env("ANTIPHON_CLUSTER__REDIS_URL", world.redis.url())
        .env("ANTIPHON_CLUSTER__NODE_ID", "operator")
        .env("ANTIPHON_CLUSTER__URL", "http://127.0.0.1:1")
        .output()
        .expect("the product");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    String::from_utf8(output.stdout).expect("text")
}

/// Who is in a room and which node has it, by the log alone, are as the nodes and the registry say.
fn projections_agree(world: &World, room: &str, people: &[Person]) {
    let members = replayed(world, "members", room);
    let told = members["members"].as_array().into_iter().flatten();
    let told: BTreeSet<String> =
        told.filter_map(|stay| stay["identity"].as_str()).map(str::to_owned).collect();
    let identities: BTreeSet<String> = people.iter().map(|person| person.story().identity).collect();
    assert_eq!(told, identities, "{members}");
    let placement = replayed(world, "placement", room);
    let last = &placement["placement"][0];
    let home = world.home_of(room).expect("a home");
    assert_eq!(
        (&last["node"], last["epoch"].as_u64()),
        (&json!(format!("node-{home}")), Some(world.epoch_of(room)))
    );
}

/// All that anyone was acknowledged is in the room's history, once.
pub fn history_has(world: &World, room: &str, people: &[Person]) {
    let home = world.home_of(room).expect("a home");
    let mut after = 0;
    let mut kept: Vec<String> = Vec::new();
    loop {
        let url = format!("{}/messages?limit=200&after={after}", world.url_of(home, room));
        let page = world.ask("GET", &url, None).expect("an answer").body;
        let messages = page["messages"].as_array().cloned().unwrap_or_default();
        kept.extend(messages.iter().filter_map(|one| one["id"].as_str()).map(str::to_owned));
        after = messages.last().and_then(|one| one["seq"].as_u64()).unwrap_or(after);
        if page["more"] != json!(true) {
            break;
        }
    }
    let once: BTreeSet<&String> = kept.iter().collect();
    assert_eq!(once.len(), kept.len(), "nothing is twice");
    for person in people {
        let story = person.story();
        let missing: Vec<_> = story.acknowledged.iter().filter(|id| !once.contains(id)).collect();
        assert!(missing.is_empty(), "acknowledged, and not there: {missing:?}");
        let own: Vec<_> = kept.iter().filter(|id| story.acknowledged.contains(id)).cloned().collect();
        assert_eq!(own, story.acknowledged, "in the order in which they were said");
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_or_doubled() {
    let mut world = World::sharing_a_log(3);
    let people: Vec<Person> = ["ann", "bob"]
        .into_iter()
        .zip(0u32..)
        .map(|(name, number)| Person::start("talk", name, number, world.urls()).expect("a thread"))
        .collect();
    until("both are in", || people.iter().all(|person| person.story().welcomes == 1));
    let pace = Duration::from_millis(100);

    // The room's node is killed in the middle of it.
    let home = world.home_of("talk").expect("a home");
    let began = Instant::now();
    let said = chatter(&people, 0, pace, || began.elapsed() < Duration::from_secs(2));
    world.nodes[home].kill();
    let said = chatter(&people, said, pace, || !people.iter().all(|person| person.story().welcomes == 2));
    all_acknowledged(&people, said);
    history_has(&world, "talk", &people);
    let gaps: Vec<u128> = people.iter().flat_map(|p| p.story().gaps).map(|gap| gap.as_millis()).collect();
    println!("{}", json!({"what": "kill -9 amid chat", "said": said * 2, "chat_gaps_ms": gaps}));
    world.restart(home);
    world.all_know(3);

    // The next one is frozen for three leases, and wakes with what it had not sent yet.
    let home = world.home_of("talk").expect("a home");
    world.nodes[home].signal(Signal::STOP);
    let frozen_at = Instant::now();
    let said = chatter(&people, said, pace, || frozen_at.elapsed() < world.lease * 3);
    world.nodes[home].signal(Signal::CONT);
    let said = chatter(&people, said, pace, || !people.iter().all(|person| person.story().welcomes >= 3));
    all_acknowledged(&people, said);

    // Kafka is away, then Redis too: chat waits, and nobody has to come back.
    let before: Vec<u32> = people.iter().map(|person| person.story().welcomes).collect();
    let kafka = world.kafka.as_ref().expect("a shared log");
    kafka.act("kill9");
    let away = Instant::now();
    let said = chatter(&people, said, pace, || away.elapsed() < world.lease);
    world.redis.act("kill9");
    let said = chatter(&people, said, pace, || away.elapsed() < world.lease * 2);
    assert!(
        people.iter().all(|person| person.story().acknowledged.len() < said),
        "nothing is acknowledged early"
    );
    kafka.act("up");
    world.redis.act("up");
    let back = Instant::now();
    all_acknowledged(&people, said);
    println!(
        "{}",
        json!({"what": "Kafka and Redis back", "said": said * 2, "drained_ms": back.elapsed().as_millis()})
    );
    let now: Vec<u32> = people.iter().map(|person| person.story().welcomes).collect();
    assert_eq!(now, before, "nobody had to come back");
    history_has(&world, "talk", &people);
    projections_agree(&world, "talk", &people);
    let findings = verified(&world);
    println!("{}", json!({"what": "the whole log", "findings": findings}));
    assert_eq!(findings["faults_total"], 0);
}
