//! Fifty rooms on one node, leases as operators have them, and a log that all share: the node is killed, or
//! drained.

use std::time::{Duration, Instant};

use antiphon::bench::person::Person;
use rustix::process::Signal;
use serde_json::json;

use crate::faults::{percentile, rooms_of};
use crate::history::{all_acknowledged, history_has, verified};
use crate::nodes::{Setup, World};
use crate::{bound, until};

/// Fifty by `make test-faults`; beside other tests on the same cores, twenty.
fn room_count() -> usize {
    if std::env::var_os("ANTIPHON_AWAY_S").is_some() { 50 } else { 20 }
}

/// As `cluster.lease_ms` has it.
const LEASE: Duration = Duration::from_secs(5);
const OWNED_WITHIN: Duration = Duration::from_secs(7);
/// Nineteen of twenty people.
const BACK_WITHIN: Duration = Duration::from_secs(8);
const MEDIA_GAP_MAX: Duration = Duration::from_secs(1);
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

/// Fifty rooms of the first node. Somebody is in each and has said something; in each fifth there are two,
/// who hear each other.
struct Fifty {
    rooms: Vec<String>,
    people: Vec<Person>,
    /// Where each of them is.
    at: Vec<usize>,
}

impl Fifty {
    fn start(world: &World) -> Self {
        let rooms = rooms_of(world, 0, room_count());
        let at: Vec<usize> =
            (0..room_count()).flat_map(|room| vec![room; if room % 5 == 0 { 2 } else { 1 }]).collect();
        let start = |(number, room): (u32, &usize)| {
            Person::start(&rooms[*room], &format!("person-{number}"), number, world.urls()).expect("a thread")
        };
        let people: Vec<Person> = (0..).zip(&at).map(start).collect();
        until("all are in", || people.iter().all(|person| person.story().welcomes > 0));
        let fifty = Self { rooms, people, at };
        until("pairs hear each other", || fifty.pairs().all(|person| person.story().media_at.is_some()));
        say(&fifty.people, "before");
        all_acknowledged(&fifty.people, 1);
        fifty
    }

    /// Those who are not alone.
    fn pairs(&self) -> impl Iterator<Item = &Person> {
        self.people.iter().zip(&self.at).filter(|(_, room)| **room % 5 == 0).map(|(person, _)| person)
    }
}

fn say(people: &[Person], when: &str) {
    for (number, person) in people.iter().enumerate() {
        assert!(person.say(&format!("{when}-{number}"), "words"));
    }
}

/// Waits until all rooms have another owner and all people are back and heard; when the rooms had.
fn all_moved(world: &World, fifty: &Fifty, epochs: &[u64], since: Instant) -> Duration {
    let mut owned = None;
    until("all are back", || {
        if owned.is_none() {
            let now = world.epochs_of(&fifty.rooms);
            owned = now.iter().zip(epochs).all(|(now, before)| now > before).then(|| since.elapsed());
        }
        owned.is_some() && fifty.people.iter().all(|person| person.story().welcomes >= 2)
    });
    until("pairs hear each other", || fifty.pairs().all(|person| !person.story().media_gaps.is_empty()));
    owned.expect("it was waited for")
}

/// What it cost, and that nothing is lost or twice.
fn costs(what: &str, world: &World, people: &[Person], owned: Duration) -> (u128, u128) {
    let gaps: Vec<_> = people.iter().flat_map(|person| person.story().gaps).collect();
    let media: Vec<_> = people.iter().flat_map(|person| person.story().media_gaps).collect();
    println!(
        "{}",
        json!({
            "what": what, "lease_ms": world.lease.as_millis(), "rooms": room_count(), "people": people.len(),
            "all_owned_ms": owned.as_millis(),
            "back_p50_ms": percentile(gaps.clone(), 0.5), "back_p95_ms": percentile(gaps.clone(), 0.95),
            "back_max_ms": percentile(gaps.clone(), 1.0),
            "media_gap_p95_ms": percentile(media.clone(), 0.95),
            "media_gap_max_ms": percentile(media.clone(), 1.0),
        })
    );
    (percentile(gaps, 0.95), percentile(media, 1.0))
}

fn nothing_is_lost(world: &World, fifty: &Fifty, said: usize) {
    all_acknowledged(&fifty.people, said);
    for (person, room) in fifty.people.iter().zip(&fifty.at) {
        history_has(world, &fifty.rooms[*room], std::slice::from_ref(person));
    }
    let findings = verified(world);
    println!("{}", json!({"what": "the log of fifty rooms", "findings": findings}));
    assert_eq!(findings["faults_total"], 0);
}

fn world() -> World {
    World::of(Setup { kafka: true, lease: LEASE, ..Setup::default() })
}

#[test]
fn fifty_rooms_of_a_killed_node_are_back_in_seconds() {
    let mut world = world();
    let fifty = Fifty::start(&world);
    let epochs = world.epochs_of(&fifty.rooms);
    world.nodes[0].kill();
    let killed_at = Instant::now();
    // Said while nobody listens: it is kept and sent.
    say(&fifty.people, "amid");
    let owned = all_moved(&world, &fifty, &epochs, killed_at);
    let (back_p95_ms, _) = costs("kill -9, fifty rooms", &world, &fifty.people, owned);
    assert!(owned <= bound(OWNED_WITHIN), "{owned:?}");
    assert!(back_p95_ms <= bound(BACK_WITHIN).as_millis(), "{back_p95_ms} ms");
    nothing_is_lost(&world, &fifty, 2);
}

#[test]
fn fifty_rooms_of_a_node_that_drains_go_on_without_a_break() {
    let mut world = world();
    let fifty = Fifty::start(&world);
    let epochs = world.epochs_of(&fifty.rooms);
    world.nodes[0].signal(Signal::TERM);
    let told_at = Instant::now();
    say(&fifty.people, "amid");
    let owned = all_moved(&world, &fifty, &epochs, told_at);
    let (_, media_gap_max_ms) = costs("drain, fifty rooms", &world, &fifty.people, owned);
    assert!(media_gap_max_ms <= bound(MEDIA_GAP_MAX).as_millis(), "{media_gap_max_ms} ms");
    assert!(world.nodes[0].wait(), "it ends by itself: {}", world.log_of(0));
    assert!(told_at.elapsed() <= bound(DRAINED_WITHIN), "{:?}", told_at.elapsed());
    println!("{}", json!({"what": "drained node ended", "ms": told_at.elapsed().as_millis()}));
    nothing_is_lost(&world, &fifty, 2);
}
