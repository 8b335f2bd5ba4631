//! Nodes of versions next to each other: what each says to the others is read by both, for good.
//!
//! `versions/N.json` holds what version N writes; a file that was committed is never changed. A test that
//! runs with `ANTIPHON_PREVIOUS=/path/to/antiphon` has the first node run that program.

use std::fmt::Debug;
use std::time::Duration;

use antiphon::core::event::EventBody;
use antiphon::core::placement::NodeRecord;
use antiphon::core::protocol::RoomState;
use antiphon::core::relay::wire::Frame;
use antiphon::events::kafka::record::Record;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::faults::{rooms_of, seat};
use crate::history::{all_acknowledged, history_has, verified};
use crate::nodes::World;
use crate::until;

const VERSIONS: [&str; 1] = [include_str!("versions/1.json")];

/// All that stands in `one` stands in `other`, in the same form; there may be more.
fn covers(other: &Value, one: &Value) -> bool {
    match (other, one) {
        (Value::Object(other), Value::Object(one)) => {
            one.iter().all(|(key, value)| other.get(key).is_some_and(|other| covers(other, value)))
        }
        (Value::Array(other), Value::Array(one)) => {
            other.len() == one.len() && other.iter().zip(one).all(|(other, one)| covers(other, one))
        }
        _ => other == one,
    }
}

/// The same with a field more in each object: what a newer version may write. An object with one field alone
/// may be a variant's name, which is told by its field.
fn with_more(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: serde_json::Map<_, _> =
                fields.iter().map(|(key, value)| (key.clone(), with_more(value))).collect();
            if fields.len() > 1 {
                fields.insert("from_a_newer_version".into(), json!({"a": [1]}));
            }
            Value::Object(fields)
        }
        Value::Array(values) => values.iter().map(with_more).collect(),
        other => other.clone(),
    }
}

/// What was written then is read now, what is written now has all of it, and more would be no harm.
#[track_caller]
fn stays<T: DeserializeOwned + Serialize + Debug>(examples: &Value, may_have_more: bool) -> Vec<T> {
    let examples = examples.as_array().expect("a list");
    assert!(!examples.is_empty());
    let read = |value: &Value| -> T {
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
    };
    let each = examples.iter().map(|example| {
        let then = read(example);
        let written = serde_json::to_value(&then).expect("plain data");
        assert!(covers(&written, example), "{example}\nis now\n{written}");
        if may_have_more {
            let newer = serde_json::to_value(read(&with_more(example))).expect("plain data");
            assert!(covers(&newer, example), "{example}\nwith more is now\n{newer}");
        }
        then
    });
    each.collect()
}

#[test]
fn what_a_version_wrote_is_read_for_good() {
    for version in VERSIONS {
        let version: Value = serde_json::from_str(version).expect("JSON");
        let records: Vec<Record> = stays(&version["records"], false);
        for event in records.iter().flat_map(|record| &record.events) {
            assert!(!matches!(event.body, EventBody::Unknown(_)), "{:?}", event.body);
        }
        stays::<NodeRecord>(&version["nodes"], true);
        stays::<RoomState>(&version["settings"], true);
        stays::<Frame>(&version["frames"], true);
    }
}

/// Kinds, fields and nodes of a version that is not there yet, among real nodes.
#[test]
fn what_a_newer_version_says_is_passed_over() {
    let world = World::sharing_a_log(2);
    let rooms = rooms_of(&world, 0, 1);
    let people = seat(&world, &rooms);
    let brokers = world.kafka.as_ref().expect("a shared log").brokers();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .create()
        .expect("a producer");
    let writer = json!({"epoch": 1, "node": "newer", "incarnation": 5, "zone": "b"});
    let event =
        |id: &str, body: Value| json!({"id": id, "room": "next", "at_ms": 1, "body": body, "sig": "x"});
    let opened = json!({"kind": "room.opened", "mode": "sfu", "access": "open", "theme": "dark"});
    let sent = json!({"kind": "chat.sent", "message": "m-9", "seq": 1, "identity": "zoe", "name": "Zoe",
        "text": "from the future", "mood": "calm"});
    let pinned = json!({"kind": "chat.pinned", "message": "m-9"});
    let events = [event("room:1.1", opened), event("chat:m-9", sent), event("pin:1.1", pinned)];
    for (number, (event, opens)) in events.iter().zip([true, false, false]).enumerate() {
        let record = json!({"room": "next", "writer": writer, "opens": opens, "number": number,
            "events": [event], "codec": 2});
        let bytes = serde_json::to_vec(&record).expect("plain data");
        producer.send(BaseRecord::to("antiphon.room.log").key("next").payload(&bytes)).expect("it is taken");
    }
    producer.flush(Duration::from_secs(10)).expect("it is there");
    // A node that is doing what nobody here knows, in Redis; and a field more in a room.
    let record = json!({"id": "newer", "incarnation": 5, "url": "http://127.0.0.1:9", "state": "hibernating",
        "score": 0.0, "gpu": true});
    let record = format!("{}000 5 {record}", world.redis.ask(&["time"]).lines().next().unwrap_or_default());
    world.redis.ask(&["hset", "an:nodes", "newer", &record]);
    world.redis.ask(&["hset", &format!("an:{{r:{}}}:own", rooms[0]), "zone", "b"]);

    for node in 0..2 {
        let url = format!("{}/messages", world.url_of(node, "next"));
        until("what it said is read", || {
            let page = world.ask("GET", &url, None).map(|reply| reply.body).unwrap_or_default();
            page["messages"][0]["text"] == "from the future"
        });
    }
    for number in 0..6 {
        world.make(number % 2, &format!("now-{number}"));
        assert!(world.home_of(&format!("now-{number}")).is_some(), "none is sent to who hibernates");
    }
    for (number, person) in people.iter().enumerate() {
        assert!(person.say(&format!("m-{number}"), "we go on"));
    }
    all_acknowledged(&people, 1);
    history_has(&world, &rooms[0], &people);
    assert_eq!(verified(&world)["faults_total"], 0);
}

/// One node after the other is drained and comes back, as in an upgrade; then one dies. With
/// `ANTIPHON_PREVIOUS` the first is of another version than the others.
#[test]
fn nodes_are_upgraded_one_by_one() {
    let mut world = World::sharing_a_log(3);
    let (old, new) = (rooms_of(&world, 0, 2), {
        let rooms = rooms_of_another(&world, 1, 2);
        assert_eq!(rooms.len(), 2);
        rooms
    });
    let rooms = [old, new].concat();
    let people = seat(&world, &rooms);
    until("all hear each other", || people.iter().all(|person| person.story().media_at.is_some()));
    let mut said = 0;
    let mut go_on = |world: &World| {
        for (number, person) in people.iter().enumerate() {
            assert!(person.say(&format!("m-{said}-{number}"), "we go on"));
        }
        said += 1;
        all_acknowledged(&people, said);
        let homes: Vec<_> = rooms.iter().map(|room| world.home_of(room)).collect();
        println!("{}", json!({"what": "upgrade", "homes": homes}));
    };
    go_on(&world);
    for node in [1, 0] {
        world.nodes[node].signal(Signal::TERM);
        assert!(world.nodes[node].wait(), "it ends by itself: {}", world.log_of(node));
        until("all are elsewhere", || {
            rooms.iter().all(|room| world.home_of(room).is_some_and(|at| at != node))
        });
        until("all are in", || people.iter().all(|person| person.story().node.is_some()));
        go_on(&world);
        world.restart(node);
        world.all_know(3);
    }
    let home = world.home_of(&rooms[0]).expect("a home");
    world.nodes[home].kill();
    until("all are elsewhere", || rooms.iter().all(|room| world.home_of(room).is_some_and(|at| at != home)));
    go_on(&world);
    for (room, pair) in rooms.iter().zip(people.chunks(2)) {
        history_has(&world, room, pair);
    }
    assert_eq!(verified(&world)["faults_total"], 0);
}

/// As [`rooms_of`], by other names.
fn rooms_of_another(world: &World, node: usize, count: usize) -> Vec<String> {
    let names = (0..).map(|number| format!("new-{number}"));
    let made = names.filter(|room| {
        world.make(node, room);
        world.home_of(room) == Some(node)
    });
    made.take(count).collect()
}
