//! Clocks of nodes that are an hour apart: leases do not care, and a node whose clock was set back is no
//! stranger. Without a shared log: Kafka's client waits by calls that the library which shifts clocks does
//! not know, so it would wait for an hour; what the log says of time, it says for people to read.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::faults::{all_back, seat};
use crate::history::all_acknowledged;
use crate::nodes::{Setup, World};
use crate::until;

/// Lets a process believe that it is so many seconds later. What counts up from its start stays as it is.
fn at(seconds: i32) -> Vec<(&'static str, String)> {
    vec![
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1".into()),
        ("FAKETIME", format!("{seconds:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ]
}

#[test]
fn clocks_that_are_wrong_move_no_room() {
    let extra = |node: usize| at([3_600, -3_600, 0][node]);
    let mut world = World::of(Setup { extra, ..Setup::default() });
    let rooms: Vec<String> = (0..9).map(|number| format!("skew-{number}")).collect();
    rooms.iter().enumerate().for_each(|(number, room)| world.make(number % 3, room));
    let homes: BTreeSet<_> = rooms.iter().map(|room| world.home_of(room)).collect();
    assert_eq!(homes.len(), 3, "each has some: {homes:?}");
    let people = seat(&world, &rooms);
    let epochs = world.epochs_of(&rooms);
    let began = Instant::now();
    until("three leases are over", || began.elapsed() > world.lease * 3);
    assert_eq!(world.epochs_of(&rooms), epochs, "nobody took a room from another");
    assert!(people.iter().all(|person| person.story().welcomes == 1));
    for (number, person) in people.iter().enumerate() {
        assert!(person.say(&format!("m-{number}"), "what time is it?"));
    }
    all_acknowledged(&people, 1);

    // The one that is ahead dies, and its next start is behind all others at once: within a lease.
    let theirs: Vec<bool> = rooms.iter().map(|room| world.home_of(room) == Some(0)).collect();
    world.nodes[0].kill();
    let killed_at = Instant::now();
    world.change(|node| at([-7_200, -3_600, 0][node]));
    world.restart(0);
    let (moved, stayed): (Vec<_>, Vec<_>) =
        people.into_iter().enumerate().partition(|(number, _)| theirs[number / 2]);
    let moved: Vec<_> = moved.into_iter().map(|(_, person)| person).collect();
    let stayed: Vec<_> = stayed.into_iter().map(|(_, person)| person).collect();
    all_back("kill -9 amid clocks that are wrong", &world, &moved, killed_at);
    assert!(stayed.iter().all(|person| person.story().welcomes == 1));
    world.all_know(3);
    assert!(!world.log_of(0).contains("a later start of this node"), "{}", world.log_of(0));
    // It takes rooms as before.
    let again: Vec<String> = (0..30).map(|number| format!("again-{number}")).collect();
    again.iter().enumerate().for_each(|(number, room)| world.make(number % 3, room));
    assert!(again.iter().any(|room| world.home_of(room) == Some(0)));
    for (number, person) in moved.iter().chain(&stayed).enumerate() {
        assert!(person.say(&format!("after-{number}"), "and now?"));
    }
    until("all is acknowledged", || {
        moved.iter().chain(&stayed).all(|person| person.story().acknowledged.len() == 2)
    });
}
