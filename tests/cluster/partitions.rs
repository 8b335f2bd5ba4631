//! Ways that are cut: between a node and Redis, Kafka or another node, both ways or one. Each is on a host of
//! its own.

use std::time::{Duration, Instant};

use antiphon::bench::person::Person;
use serde_json::json;

use crate::history::{all_acknowledged, chatter, history_has, verified};
use crate::network::{has_namespaces, own_ip};
use crate::nodes::{Setup, World};
use crate::{away, bound, until};

const PACE: Duration = Duration::from_millis(100);
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// From when a node can know that its room is another's to when it has let go of it.
const YIELDED_WITHIN: Duration = Duration::from_secs(1);
/// Hosts behind those of the nodes.
const REDIS: usize = 3;
const KAFKA: usize = 4;

struct Talk {
    room: &'static str,
    people: Vec<Person>,
    said: usize,
}

impl Talk {
    fn start(world: &World, room: &'static str) -> Self {
        let people: Vec<Person> =
            ["ann", "bob"].into_iter().zip(0u32..).map(|(name, at)| join(world, room, name, at)).collect();
        until("both hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
        Self { room, people, said: 0 }
    }

    fn home(&self, world: &World) -> usize {
        world.owner_of(self.room).expect("a home")
    }

    /// Both say something for so long, and hear each other throughout.
    fn go_on(&mut self, time: Duration) {
        self.people.iter().for_each(Person::listen_anew);
        let began = Instant::now();
        self.said = chatter(&self.people, self.said, PACE, || began.elapsed() < time);
    }

    #[track_caller]
    fn has_sound(&self) -> u128 {
        let longest = self.people.iter().map(|person| person.story().silence_max).max().unwrap_or_default();
        assert!(longest < bound(SILENCE_MAX), "media has stopped for {longest:?}");
        longest.as_millis()
    }

    fn welcomes(&self) -> u32 {
        self.people.iter().map(|person| person.story().welcomes).max().unwrap_or(0)
    }
}

fn is_ready(world: &World, node: usize) -> bool {
    let url = format!("{}/readyz", world.nodes[node].url);
    world.ask("GET", &url, None).is_some_and(|reply| reply.status.is_success())
}

fn join(world: &World, room: &str, name: &str, number: u32) -> Person {
    Person::start_at(own_ip(), room, name, number, world.urls()).expect("a thread")
}

#[test]
fn ways_that_are_cut_cost_no_media_and_no_message() {
    if !has_namespaces("partitions::ways_that_are_cut_cost_no_media_and_no_message") {
        return;
    }
    let world = World::of(Setup { kafka: true, has_network: true, ..Setup::default() });
    no_redis_and_nobody_else(&world);
    no_answer_from_redis(&world);
    no_redis_and_another_takes_the_room(&world);
    no_kafka(&world);
    let findings = verified(&world);
    println!("{}", json!({"what": "the log of cut ways", "findings": findings}));
    assert_eq!(findings["faults_total"], 0);
}

/// The home is cut off from the registry for two leases, and nobody asks for the room elsewhere.
fn no_redis_and_nobody_else(world: &World) {
    let mut talk = Talk::start(world, "cut-redis");
    let (home, epoch) = (talk.home(world), world.epoch_of(talk.room));
    let network = world.network.as_ref().expect("a network");
    network.cut(home, REDIS);
    talk.go_on(world.lease * 2 + away() / 5);
    let quiet = talk.has_sound();
    all_acknowledged(&talk.people, talk.said);
    network.heal();
    let healed_at = Instant::now();
    until("its node is known again", || is_ready(world, home));
    println!(
        "{}",
        json!({"what": "home cut off from Redis", "longest_silence_ms": quiet, "said": talk.said * 2,
            "ready_ms": healed_at.elapsed().as_millis()})
    );
    assert_eq!((talk.home(world), world.epoch_of(talk.room)), (home, epoch), "it is still its own");
    assert_eq!(talk.welcomes(), 1, "nobody had to come back");
}

/// What the home says reaches Redis, and nothing comes back.
fn no_answer_from_redis(world: &World) {
    let mut talk = Talk::start(world, "deaf");
    let (home, epoch) = (talk.home(world), world.epoch_of(talk.room));
    let network = world.network.as_ref().expect("a network");
    network.cut_one_way(REDIS, home);
    talk.go_on(world.lease * 2);
    let quiet = talk.has_sound();
    network.heal();
    all_acknowledged(&talk.people, talk.said);
    until("it is heard again", || is_ready(world, home));
    let late = join(world, talk.room, "late", 9);
    until("a newcomer is in", || late.story().welcomes == 1);
    println!("{}", json!({"what": "Redis hears the home, one way", "longest_silence_ms": quiet}));
    assert_eq!((talk.home(world), world.epoch_of(talk.room)), (home, epoch), "it is still its own");
    assert_eq!(talk.welcomes(), 1, "nobody had to come back");
}

/// The home is cut off from the registry, its lease ends, and somebody comes for the room by another node.
/// Nothing is said meanwhile that would tell the home; it reads it in the log.
fn no_redis_and_another_takes_the_room(world: &World) {
    let mut talk = Talk::start(world, "taken");
    let (home, epoch) = (talk.home(world), world.epoch_of(talk.room));
    let network = world.network.as_ref().expect("a network");
    network.cut(home, REDIS);
    let cut_at = Instant::now();
    until("its lease is over", || cut_at.elapsed() > world.lease * 3 / 2);
    let elsewhere: Vec<String> =
        (0..3).filter(|node| *node != home).map(|node| world.nodes[node].url.clone()).collect();
    let late = Person::start_at(own_ip(), talk.room, "late", 9, elsewhere).expect("a thread");
    until("another has the room", || world.epoch_of(talk.room) > epoch);
    let taken_at = Instant::now();
    until("the home lets go", || {
        let left = world.figure(home, "antiphon_placement_lost_total");
        left >= 1.0 || talk.welcomes() > 1
    });
    let yielded = taken_at.elapsed();
    until("all are there", || talk.people.iter().all(|person| person.story().welcomes == 2));
    let moved = taken_at.elapsed();
    network.heal();
    talk.go_on(Duration::from_secs(1));
    all_acknowledged(&talk.people, talk.said);
    until("the late one reads it", || late.story().shown.len() >= talk.said * 2);
    println!(
        "{}",
        json!({"what": "taken from a home cut off from Redis", "yielded_ms": yielded.as_millis(),
            "all_moved_ms": moved.as_millis()})
    );
    assert!(yielded < bound(YIELDED_WITHIN), "{yielded:?}");
    history_has(world, talk.room, &talk.people);
}

/// The home is cut off from the log: what is said waits, on both sides nothing is acknowledged twice.
fn no_kafka(world: &World) {
    let mut talk = Talk::start(world, "cut-kafka");
    let home = talk.home(world);
    let network = world.network.as_ref().expect("a network");
    network.cut(home, KAFKA);
    talk.go_on(away());
    let quiet = talk.has_sound();
    assert!(talk.people[0].story().acknowledged.len() < talk.said, "nothing is acknowledged early");
    network.heal();
    let healed_at = Instant::now();
    all_acknowledged(&talk.people, talk.said);
    println!(
        "{}",
        json!({"what": "home cut off from Kafka", "longest_silence_ms": quiet, "said": talk.said * 2,
            "drained_ms": healed_at.elapsed().as_millis()})
    );
    assert_eq!(talk.welcomes(), 1, "nobody had to come back");
    history_has(world, talk.room, &talk.people);
}

/// Two nodes that answer for each other cannot reach each other: who comes through the wrong one is told so.
#[test]
fn a_node_that_cannot_reach_the_home_says_so() {
    if !has_namespaces("partitions::a_node_that_cannot_reach_the_home_says_so") {
        return;
    }
    let extra = |_| vec![("ANTIPHON_CLUSTER__PROXY", "true".to_owned())];
    let world = World::of(Setup { nodes: 2, has_network: true, extra, ..Setup::default() });
    world.make(0, "proxied");
    let home = world.owner_of("proxied").expect("a home");
    let other = 1 - home;
    let url = world.url_of(other, "proxied");
    assert_eq!(world.ask("GET", &url, None).expect("an answer").status, 200);
    let network = world.network.as_ref().expect("a network");
    network.cut(home, other);
    let asked_at = Instant::now();
    let reply = world.ask("GET", &url, None).expect("an answer, in time");
    println!("{}", json!({"what": "nodes cut from each other", "told_ms": asked_at.elapsed().as_millis()}));
    assert_eq!((reply.status.as_u16(), &reply.body["code"]), (503, &json!("unavailable")));
    assert!(reply.retry_after.is_some());
    // Who reaches the home itself notices nothing.
    assert_eq!(world.ask("GET", &world.url_of(home, "proxied"), None).expect("an answer").status, 200);
    network.heal();
    until("it answers again", || world.ask("GET", &url, None).is_some_and(|reply| reply.status == 200));
}
