//! Members who are connected at another node than their room's, while the way there is not at its best.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::members::{Member, is_answer, watch};
use crate::nodes::{Links as Between, World};
use crate::stage::Stage;
use crate::until;

const WITHHELD: &str = "antiphon_relay_encodings{state=\"withheld\"}";
const LOST: &str = "antiphon_relay_failures_total{what=\"lost\"}";
/// What a narrow way carries: sound and two encodings of three, but not the fullest.
const NARROW_BPS: u64 = 230_000;

/// A lodger sends three encodings, and the way to the home carries less than the fullest of them. Those who
/// watch at the home go on with a lower one, and have the fullest again once it is wide again.
#[test]
fn a_link_that_is_narrow_upwards_carries_what_fits() {
    let world = World::linked(2, Between::Far);
    let mut stage = Stage::new();
    let _chair = Member::join(&world, &mut stage, 0, "narrow", "chair", 1);
    let home = world.home_of("narrow").expect("a home");
    let other = 1 - home;
    let _bob = Member::join(&world, &mut stage, other, "narrow", "bob", 2);
    let seats: Vec<usize> = (0..3).map(|_| watch(&world, &mut stage, home, "narrow", "bob")).collect();
    let near = watch(&world, &mut stage, other, "narrow", "bob");
    let at_top = |stage: &Stage, seats: &[usize], since: Instant| {
        let shown = |seat: &usize| stage.last(*seat);
        seats.iter().filter_map(shown).filter(|shown| shown.encoding == 2 && shown.at > since).count()
            == seats.len()
    };
    let began = Instant::now();
    stage.until("all at the top", |stage| at_top(stage, &seats, began) && at_top(stage, &[near], began));

    let way = world.nodes[home].way.as_ref().expect("a way");
    way.limit_in(NARROW_BPS);
    let narrow = Instant::now();
    let adapted = stage.until("all at the home go on with a lower encoding", |stage| {
        let shown = |seat: &usize| stage.last(*seat);
        seats.iter().filter_map(shown).all(|shown| shown.encoding < 2 && shown.at > narrow)
    });
    let withheld = world.figure(other, WITHHELD);
    let settled = Instant::now();
    stage.until("and it flows", |stage| stage.all_see(&seats, 2, settled + Duration::from_secs(1)));
    assert!(at_top(&stage, &[near], settled), "who watches where it is connected has the top throughout");
    assert_eq!(world.figure(home, WITHHELD), 0.0, "the way down carries all");

    way.limit_in(0);
    let wide = Instant::now();
    let regained = stage.until("all have the top again", |stage| at_top(stage, &seats, wide));
    println!(
        "{}",
        json!({"what": "member_link_narrow", "bps": NARROW_BPS, "lower_encoding_ms": adapted.as_millis(),
            "withheld": withheld, "top_again_ms": regained.as_millis()})
    );
    for seat in seats.iter().chain([&near]) {
        assert_eq!(stage.faults(*seat), (0, 0), "none twice, no picture without what it refers to");
    }
}

/// Whoever knocks at another node is still there for the room's owner when the link was lost meanwhile, and
/// is let in without coming again; also one whom the owner has let in before the link stood.
#[test]
fn a_link_that_is_cut_keeps_places_in_the_lobby() {
    let world = World::linked(2, Between::Far);
    let mut stage = Stage::new();
    let mut chair = Member::join(&world, &mut stage, 0, "lobby", "chair", 1);
    let home = world.home_of("lobby").expect("a home");
    let other = 1 - home;
    let asked = chair.ask(&mut stage, json!({"type": "room.update", "lobby": true}));
    chair.hears(&mut stage, "there is a lobby", is_answer(asked));
    let mut guests = ["bob", "cal"].map(|name| {
        let number = if name == "bob" { 2 } else { 3 };
        Member::knock(&world, &mut stage, other, "lobby", name, number)
    });
    for name in ["bob", "cal"] {
        chair.hears(&mut stage, "somebody knocks", |message| {
            message["type"] == "knock" && message["identity"] == name
        });
    }
    let way = world.nodes[home].way.as_ref().expect("a way");
    way.cut(true);
    stage.until("the link is given up", |_| world.figure(other, LOST) >= 1.0);
    let admit = |name: &str| json!({"type": "moderate.admit", "participant": name});
    let cal_is_in = chair.ask(&mut stage, admit("cal"));
    chair.hears(&mut stage, "cal is let in", is_answer(cal_is_in));
    way.cut(false);
    let again = Instant::now();
    guests[1].hears(&mut stage, "cal is welcomed", |message| message["type"] == "welcome");
    let welcomed = again.elapsed();
    let bob_is_in = chair.ask(&mut stage, admit("bob"));
    chair.hears(&mut stage, "bob is let in, who waits still", is_answer(bob_is_in));
    guests[0].hears(&mut stage, "bob is welcomed", |message| message["type"] == "welcome");
    println!("{}", json!({"what": "lobby_link_cut", "welcomed_ms": welcomed.as_millis()}));
    chair.listen(&mut stage);
    assert_eq!(chair.count(|message| message["type"] == "knock"), 2, "nobody has knocked again");
    for guest in &guests {
        assert!(!stage.engine.seats[guest.seat].client.is_closed());
    }
    until("both are at the home", || {
        let url = format!("{}/participants", world.url_of(home, "lobby"));
        let people = world.ask("GET", &url, None).expect("an answer").body;
        people
            .as_array()
            .is_some_and(|people| people.len() == 3 && people.iter().all(|one| one["connected"] == true))
    });
}
