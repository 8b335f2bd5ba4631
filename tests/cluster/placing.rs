//! Any node answers for any room, and rooms are spread.

use std::collections::BTreeSet;
use std::time::Instant;

use antiphon::bench::person::Person;
use reqwest::StatusCode;
use serde_json::json;

use crate::nodes::World;
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
    let room = world.ask(
        "GET",
        &format!("{}/v1/rooms/meeting", nodes.first().cloned().flatten().expect("it")),
        None,
    );
    assert_eq!(room.expect("an answer").body["participants"], 3);
}
