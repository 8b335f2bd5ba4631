//! Any node answers for any room, and rooms are spread.

use std::collections::BTreeSet;
use std::time::Instant;

use antiphon::bench::person::Person;
use reqwest::StatusCode;
use serde_json::json;

use crate::nodes::{Setup, World};
use crate::until;

#[test]
fn rooms_are_spread_and_any_node_leads_to_each() {
    let world = World::start(3);
    let rooms: Vec<String> = (0..24).map(|number| format!("spread-{number}")).collect();
    let asked = Instant::now();
    for (number, room) in rooms.iter().enumerate() {
        world.make(number % 3, room);
    }
    println!("{}", json!({"what": "placing", "rooms": rooms.len(), "ms": asked.elapsed().as_millis()}));
    let homes: Vec<usize> = rooms.iter().map(|room| world.home_of(room).expect("a home")).collect();
    assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 3, "each has some: {homes:?}");
    for (room, home) in rooms.iter().zip(&homes) {
        for node in 0..3 {
            let path = format!("/v1/rooms/{room}/participants?or_empty=true");
            let reply =
                world.ask("GET", &format!("{}{path}", world.nodes[node].url), None).expect("an answer");
            if node == *home {
                assert_eq!(reply.status, StatusCode::OK);
            } else {
                assert_eq!(reply.status, StatusCode::TEMPORARY_REDIRECT);
                assert_eq!(reply.location, Some(format!("{}{path}", world.nodes[*home].url)));
            }
        }
        // The name is taken everywhere.
        let again =
            world.ask("POST", &format!("{}/v1/rooms", world.nodes[*home].url), Some(json!({"name": room})));
        assert_eq!(again.expect("an answer").body["code"], "room_exists");
    }
}

#[test]
fn people_meet_whichever_node_they_came_through() {
    let world = World::start(3);
    // A registry that has just begun waits a lease for those who hold rooms; people do not wait for as long,
    // and one who has just given up would be there twice.
    world.make(0, "before");
    let people: Vec<Person> = (0..3u32)
        .map(|number| {
            let through = vec![world.nodes[number as usize].url.clone()];
            Person::start("meeting", &format!("person-{number}"), number, through).expect("a thread")
        })
        .collect();
    until("all are in", || people.iter().all(|person| person.story().welcomes == 1));
    let nodes: BTreeSet<_> = people.iter().map(|person| person.story().node).collect();
    assert_eq!(nodes.len(), 1, "one room, one node: {nodes:?}");
    until("all hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
    assert!(people[0].say("m-1", "hello"));
    until("all read it", || people.iter().all(|person| person.story().shown.contains(&"m-1".to_owned())));
    assert_eq!(people[0].story().acknowledged, ["m-1"]);
    // Who knew one node when it came in knows all now.
    let url = format!("{}/v1/rooms/meeting/participants", nodes.first().cloned().flatten().expect("it"));
    let room = world.ask("GET", &url, None).expect("an answer").body;
    assert_eq!(room.as_array().map(Vec::len), Some(3), "{room}");
}

/// Clients that reach nothing but one node by HTTP are served by it, for rooms of all.
#[test]
fn a_node_answers_for_the_others_where_it_is_told_to() {
    let extra = |_| vec![("ANTIPHON_CLUSTER__PROXY", "true".to_owned())];
    let world = World::of(Setup { extra, ..Setup::default() });
    // Of two by chance the less busy has a room, so that one node may well have the first few.
    let rooms: Vec<String> = (0..24).map(|number| format!("proxied-{number}")).collect();
    for (number, room) in rooms.iter().enumerate() {
        let body = Some(json!({"name": room}));
        let reply = world.ask("POST", &format!("{}/v1/rooms", world.nodes[number % 3].url), body);
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
    }
    let owners: BTreeSet<_> = rooms.iter().map(|room| world.owner_of(room).expect("an owner")).collect();
    assert!(owners.len() > 1, "rooms are spread: {owners:?}");
    let room = &rooms[0];
    let owner = world.owner_of(room).expect("an owner");
    let people: Vec<Person> = (0..3u32)
        .map(|number| {
            let through = vec![world.nodes[number as usize].url.clone()];
            Person::start(room, &format!("person-{number}"), number, through).expect("a thread")
        })
        .collect();
    until("all are in", || people.iter().all(|person| person.story().welcomes == 1));
    for (person, node) in people.iter().zip(&world.nodes) {
        assert_eq!(person.story().node.as_ref(), Some(&node.url), "nobody was sent elsewhere");
    }
    until("all hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
    assert!(people[0].say("m-1", "hello"));
    until("all read it", || people.iter().all(|person| person.story().shown.contains(&"m-1".to_owned())));
    for node in 0..3 {
        let messages = world.ask("GET", &format!("{}/messages", world.url_of(node, room)), None);
        assert_eq!(messages.expect("an answer").body["messages"][0]["id"], "m-1");
        // Files are as long as they are: they go by 307.
        let files = world.ask("GET", &format!("{}/files", world.url_of(node, room)), None);
        let wanted = if node == owner { StatusCode::OK } else { StatusCode::TEMPORARY_REDIRECT };
        assert_eq!(files.expect("an answer").status, wanted);
        let passed = world.figure(node, "antiphon_placement_requests_total{sent=\"proxied\"}");
        assert!(node == owner || passed > 0.0, "by node {node}");
    }
    // Who leaves does so by the node that it knows.
    drop(people);
    let list = format!("{}/participants", world.url_of((owner + 1) % 3, room));
    until("all have left", || world.ask("GET", &list, None).is_some_and(|reply| reply.body == json!([])));
    let lock = world.ask("PATCH", &world.url_of((owner + 1) % 3, room), Some(json!({"locked": true})));
    assert_eq!(lock.expect("an answer").body["locked"], true);
}

/// A room is made in the region where it is asked for, on the node there that has less to do.
#[test]
fn rooms_are_placed_in_the_region_that_asks() {
    let extra = |node: usize| vec![("ANTIPHON_CLUSTER__REGION", ["eu", "eu", "us"][node].to_owned())];
    let world = World::of(Setup { extra, ..Setup::default() });
    let mut counts = [[0; 3]; 3];
    for number in 0..36 {
        let (through, room) = (number % 3, format!("region-{number}"));
        world.make(through, &room);
        counts[through][world.home_of(&room).expect("a home")] += 1;
    }
    println!("{}", json!({"what": "regions", "by_where_asked": counts}));
    assert_eq!((counts[0][2], counts[1][2]), (0, 0), "what Europe asks for stays there: {counts:?}");
    assert_eq!(counts[2], [0, 0, 12], "{counts:?}");
    assert!(counts[0][0] + counts[1][0] > 3 && counts[0][1] + counts[1][1] > 3, "on both: {counts:?}");
}
