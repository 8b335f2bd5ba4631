//! Nodes and Redis that die, freeze, forget and go: who has a room then, and what people notice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use antiphon::bench::person::Person;
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::json;

use crate::nodes::World;
use crate::{bound, until};

/// Somebody in each room, through any node.
pub fn seat(world: &World, rooms: &[String]) -> Vec<Person> {
    let people: Vec<Person> = rooms
        .iter()
        .enumerate()
        .flat_map(|(number, room)| {
            let number = number as u32 * 2;
            [("ann", number), ("bob", number + 1)]
                .map(|(name, number)| Person::start(room, name, number, world.urls()).expect("a thread"))
        })
        .collect();
    until("all are in", || people.iter().all(|person| person.story().welcomes > 0));
    people
}

/// Rooms of which this node has all, as they are made through it until it has enough.
pub fn rooms_of(world: &World, node: usize, count: usize) -> Vec<String> {
    let mut rooms = Vec::new();
    for number in 0.. {
        let room = format!("fault-{number}");
        world.make(number % world.nodes.len(), &room);
        if world.home_of(&room) == Some(node) {
            rooms.push(room);
        }
        if rooms.len() == count {
            break;
        }
    }
    rooms
}

pub fn percentile(mut values: Vec<Duration>, share: f64) -> u128 {
    values.sort_unstable();
    let at = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1)) - 1;
    values.get(at).map_or(0, Duration::as_millis)
}

/// Everyone is back in its room, heard and able to speak; what that took.
pub fn all_back(what: &str, world: &World, people: &[Person], lost_at: Instant) {
    until("all are back", || people.iter().all(|person| person.story().welcomes >= 2));
    let back = lost_at.elapsed();
    let gaps: Vec<_> = people.iter().flat_map(|person| person.story().gaps).collect();
    let heard = until("all hear each other", || people.iter().all(|p| !p.story().media_gaps.is_empty()));
    let media: Vec<_> = people.iter().flat_map(|person| person.story().media_gaps).collect();
    println!(
        "{}",
        json!({
            "what": what,
            "lease_ms": world.lease.as_millis(),
            "people": people.len(),
            "all_back_ms": back.as_millis(),
            "all_heard_ms": (back + heard).as_millis(),
            "chat_gap_p50_ms": percentile(gaps.clone(), 0.5),
            "chat_gap_p95_ms": percentile(gaps.clone(), 0.95),
            "chat_gap_max_ms": percentile(gaps, 1.0),
            "media_gap_p95_ms": percentile(media.clone(), 0.95),
            "media_gap_max_ms": percentile(media, 1.0),
        })
    );
    for person in people {
        assert!(["ann", "bob"].contains(&person.story().identity.as_str()), "under its own name");
    }
}

#[test]
fn a_node_that_is_killed_costs_its_rooms_seconds() {
    let mut world = World::start(3);
    let rooms = rooms_of(&world, 0, 5);
    let people = seat(&world, &rooms);
    let epochs: Vec<u64> = rooms.iter().map(|room| world.epoch_of(room)).collect();
    until("all hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
    // Who is in a locked room comes back into it; nobody else does.
    let locked = world.ask("PATCH", &world.url_of(0, &rooms[0]), Some(json!({"locked": true})));
    assert_eq!(locked.expect("an answer").body["locked"], true);
    // The registry is told of it a moment after the owner is.
    until("the registry knows of the lock", || world.settings_of(&rooms[0]).contains("\"locked\":true"));
    world.nodes[0].kill();
    let lost_at = Instant::now();
    // Said while nobody listens: it is kept and sent.
    for (number, person) in people.iter().enumerate() {
        assert!(person.say(&format!("unsent-{number}"), "are you there?"));
    }
    all_back("kill -9", &world, &people, lost_at);
    for (room, epoch) in rooms.iter().zip(&epochs) {
        let home = world.home_of(room).expect("a home");
        assert_ne!(home, 0);
        assert!(world.epoch_of(room) > *epoch, "{room}: {} after {epoch}", world.epoch_of(room));
    }
    let home = world.home_of(&rooms[0]).expect("a home");
    let kept = world.ask("GET", &world.url_of(home, &rooms[0]), None).expect("an answer");
    assert_eq!((&kept.body["locked"], &kept.body["participants"]), (&json!(true), &json!(2)));
    until("what was unsent is said", || people.iter().all(|person| person.story().acknowledged.len() == 1));
    for pair in people.chunks(2) {
        let (ann, bob) = (pair[0].story(), pair[1].story());
        until("both read both", || {
            let read: BTreeSet<_> = pair[0].story().shown.into_iter().collect();
            read.len() == 2 && pair[1].story().shown.iter().collect::<BTreeSet<_>>().len() == 2
        });
        assert_ne!(ann.acknowledged, bob.acknowledged);
    }
    // It comes back as another incarnation and takes new rooms.
    world.restart(0);
    world.all_know(3);
}

#[test]
fn a_node_that_was_frozen_gives_up_what_others_have() {
    let world = World::start(3);
    let rooms = rooms_of(&world, 0, 2);
    let people = seat(&world, &rooms);
    until("all hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
    let epochs: Vec<u64> = rooms.iter().map(|room| world.epoch_of(room)).collect();
    world.nodes[0].signal(Signal::STOP);
    let frozen_at = Instant::now();
    all_back("SIGSTOP", &world, &people, frozen_at);
    let next: Vec<u64> = rooms.iter().map(|room| world.epoch_of(room)).collect();
    assert!(next.iter().zip(&epochs).all(|(next, epoch)| next > epoch));
    until("three leases have passed", || frozen_at.elapsed() > world.lease * 3);
    world.nodes[0].signal(Signal::CONT);
    let woken_at = Instant::now();
    let url = format!("{}/v1/rooms", world.nodes[0].url);
    until("it has dropped them", || {
        let listed = world.ask("GET", &url, None).map(|reply| reply.body);
        listed.is_some_and(|rooms_left| {
            let names: Vec<_> =
                rooms_left.as_array().into_iter().flatten().map(|room| &room["name"]).collect();
            rooms.iter().all(|room| !names.iter().any(|name| *name == room))
        })
    });
    let dropped = woken_at.elapsed();
    println!("{}", json!({"what": "woken node dropped its rooms", "ms": dropped.as_millis()}));
    assert!(dropped < bound(Duration::from_secs(1)), "{dropped:?}");
    for room in &rooms {
        let reply = world.ask("GET", &format!("{url}/{room}"), None).expect("an answer");
        assert_eq!(reply.status, StatusCode::TEMPORARY_REDIRECT, "{}", reply.body);
    }
    assert!(rooms.iter().map(|room| world.epoch_of(room)).eq(next), "nobody was disturbed again");
    assert!(people.iter().all(|person| person.story().welcomes == 2));
}

#[test]
fn without_redis_rooms_go_on_and_new_ones_wait() {
    let world = World::start(2);
    let rooms = rooms_of(&world, 0, 2);
    let people = seat(&world, &rooms);
    let epochs: Vec<u64> = rooms.iter().map(|room| world.epoch_of(room)).collect();
    for (how, back) in [("kill9", "up"), ("freeze", "thaw")] {
        world.redis.act(how);
        let gone_at = Instant::now();
        let ready = format!("{}/readyz", world.nodes[0].url);
        until("the node is not ready", || {
            world
                .ask("GET", &ready, None)
                .is_some_and(|reply| reply.status == StatusCode::SERVICE_UNAVAILABLE)
        });
        let url = format!("{}/v1/rooms", world.nodes[0].url);
        let reply = world.ask("POST", &url, Some(json!({"name": "while-away"}))).expect("an answer");
        assert_eq!((reply.status.as_u16(), &reply.body["code"]), (503, &json!("unavailable")));
        assert!(reply.retry_after.is_some());
        let (before, media_at) = (people[0].story(), people[1].story().media_at);
        let id = format!("during-{how}");
        assert!(people[0].say(&id, "still here"));
        until("chat goes on", || people[1].story().shown.contains(&id));
        until("leases have run out", || gone_at.elapsed() > world.lease * 2);
        until("media goes on", || people[1].story().media_at > media_at);
        assert_eq!(people[0].story().welcomes, before.welcomes, "nobody had to come back");
        world.redis.act(back);
        let back_at = Instant::now();
        // At once, through the other node: it must not take the room before its owner has spoken.
        let name = format!("late-{how}");
        let late = Person::start(&rooms[0], &name, 99, vec![world.nodes[1].url.clone()]).expect("a thread");
        until("the node is ready", || {
            world.ask("GET", &ready, None).is_some_and(|reply| reply.status == StatusCode::OK)
        });
        println!(
            "{}",
            json!({"what": format!("Redis {back} after {how}"), "ready_ms": back_at.elapsed().as_millis()})
        );
        until("the late one is in", || late.story().welcomes == 1);
        assert_eq!(late.story().node.as_deref(), Some(world.nodes[0].url.as_str()));
        let now: Vec<u64> = rooms.iter().map(|room| world.epoch_of(room)).collect();
        assert_eq!(now, epochs, "owners hold on");
        assert!(people.iter().all(|person| person.story().welcomes == 1));
    }
}

#[test]
fn a_redis_that_was_emptied_hears_again_who_has_what() {
    let world = World::start(2);
    let rooms = rooms_of(&world, 0, 3);
    let people = seat(&world, &rooms);
    let epochs: Vec<u64> = rooms.iter().map(|room| world.epoch_of(room)).collect();
    world.redis.act("empty");
    let emptied_at = Instant::now();
    // At once, through the other node: it must not be given away.
    let late = Person::start(&rooms[0], "cid", 99, vec![world.nodes[1].url.clone()]).expect("a thread");
    until("all is said again", || {
        rooms.iter().zip(&epochs).all(|(room, epoch)| world.epoch_of(room) == *epoch)
    });
    println!("{}", json!({"what": "emptied Redis", "asserted_ms": emptied_at.elapsed().as_millis()}));
    until("the late one is in", || late.story().welcomes == 1);
    assert_eq!(late.story().node.as_deref(), Some(world.nodes[0].url.as_str()));
    assert!(people.iter().all(|person| person.story().welcomes == 1), "nobody had to come back");
    assert!(rooms.iter().map(|room| world.epoch_of(room)).eq(epochs));
}

#[test]
fn a_node_that_drains_hands_its_rooms_over() {
    let mut world = World::start(3);
    let rooms = rooms_of(&world, 0, 5);
    let people = seat(&world, &rooms);
    let epochs: Vec<u64> = rooms.iter().map(|room| world.epoch_of(room)).collect();
    until("all hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
    world.nodes[0].signal(Signal::TERM);
    let told_at = Instant::now();
    all_back("drain", &world, &people, told_at);
    assert!(world.nodes[0].wait(), "it ends by itself: {}", world.log_of(0));
    println!("{}", json!({"what": "drained node ended", "ms": told_at.elapsed().as_millis()}));
    for (room, epoch) in rooms.iter().zip(&epochs) {
        assert!(world.epoch_of(room) > *epoch);
    }
}
