//! Rooms that spread over nodes: viewers are served where they came, and each node is sent one copy of what
//! is watched there. `ANTIPHON_RELAY_VIEWERS` is how many watch on each node, for a larger run.

use std::time::{Duration, Instant};

use antiphon::cluster::Cluster;
use antiphon::cluster::relay::{BranchError, Links};
use antiphon::config::{Config, Secret};
use antiphon::core::ids::RoomName;
use antiphon::core::relay::wire::Reason;
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::json;

use crate::nodes::{Links as Between, RELAY_KEY, World, free_port};
use crate::stage::Stage;
use crate::until;

const SENT: &str = "antiphon_relay_packets_total{way=\"sent\"}";
const RESENT: &str = "antiphon_relay_packets_total{way=\"resent\"}";
const GIVEN: &str = "antiphon_relay_branches{side=\"home\"}";
const CARRIED: &str = "antiphon_relay_encodings{state=\"carried\"}";
const WITHHELD: &str = "antiphon_relay_encodings{state=\"withheld\"}";
/// Over what one more hop may cost: a network's round trip is nothing here.
const HOP_MAX_MS: f64 = 5.0;
/// From when a path works again to when all see pictures.
const REFORMED_WITHIN: Duration = Duration::from_secs(2);

fn viewers() -> usize {
    std::env::var("ANTIPHON_RELAY_VIEWERS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

/// A room that somebody sends to: its home, the other nodes, and who sends.
fn broadcast(world: &World, stage: &mut Stage, room: &str) -> (usize, Vec<usize>, usize) {
    world.make(0, room);
    let home = world.home_of(room).expect("a home");
    let publisher = stage.publish(world, home, room, 1);
    (home, (0..world.nodes.len()).filter(|node| *node != home).collect(), publisher)
}

/// A viewer through a node. One that is busy with those who came before sends the next ones to the home: then
/// this one comes again.
fn seat_in_time(world: &World, stage: &mut Stage, node: usize, room: &str) -> (usize, String) {
    let mut seated = None;
    stage.until("the node has time for one more", |stage| {
        seated = stage.watch(world, node, room).ok();
        if seated.is_none() {
            stage.run(Duration::from_millis(500));
        }
        seated.is_some()
    });
    seated.expect("it is there")
}

#[test]
fn a_broadcast_crosses_to_each_node_once() {
    let world = World::linked(3, Between::Far);
    let mut stage = Stage::new();
    let (home, others, publisher) = broadcast(&world, &mut stage, "broadcast");
    let near: Vec<usize> = (0..3).map(|_| stage.seat(&world, home, "broadcast")).collect();
    let mut far = Vec::new();
    for node in &others {
        for _ in 0..viewers() {
            let (seat, session) = seat_in_time(&world, &mut stage, *node, "broadcast");
            assert!(
                session.starts_with(&world.nodes[*node].url),
                "requests about it belong there: {session}"
            );
            far.push((seat, session));
        }
    }
    let began = Instant::now();
    let all: Vec<usize> = far.iter().map(|(seat, _)| *seat).chain(near.iter().copied()).collect();
    let seen = stage.until("all see it", |stage| stage.all_see(&all, 1, began));
    stage.until("all at the top", |stage| {
        all.iter().all(|seat| stage.last(*seat).is_some_and(|shown| shown.encoding == 2))
    });
    // Encodings that were taken on the way up rest after seconds.
    stage.run(Duration::from_secs(4));
    let before = (world.figure(home, SENT), stage.sent(publisher), Instant::now());
    let near_ns = stage.delay(&near, Duration::from_secs(2));
    let far_seats: Vec<usize> = far.iter().map(|(seat, _)| *seat).collect();
    let far_ns = stage.delay(&far_seats, Duration::from_secs(2));
    let crossed = world.figure(home, SENT) - before.0;
    let (top, all_sent) = stage.sent(publisher);
    let (top, all_sent) = (f64::from(top - before.1.0), f64::from(all_sent - before.1.1));
    // More than one for each node only where there is too much to do for all to see the top.
    let carried = world.figure(home, CARRIED);
    let copies = if carried > 2.0 { crossed / all_sent } else { crossed / top };
    let seconds = before.2.elapsed().as_secs_f64();
    let hop_ms = (far_ns as f64 - near_ns as f64) / 1e6;
    println!(
        "{}",
        json!({
            "what": "relay_broadcast",
            "viewers": far.len(),
            "all_see_ms": seen.as_millis(),
            "encodings_carried": carried,
            "packets_sent_per_second": all_sent / seconds,
            "packets_relayed_per_second": crossed / seconds,
            "copies_for_each_packet": copies,
            "delay_at_home_p50_ms": near_ns as f64 / 1e6,
            "delay_at_branch_p50_ms": far_ns as f64 / 1e6,
            "hop_p50_ms": hop_ms,
        })
    );
    assert_eq!(world.figure(home, GIVEN), 2.0, "one branch for each node, however many watch there");
    assert!(copies <= 2.05, "one copy for each of two nodes: {copies}");
    assert!(carried > 2.0 || copies > 1.95, "and no less: {copies}");
    assert!(hop_ms < HOP_MAX_MS, "{hop_ms} ms for one more hop");
    for (seat, _) in &far {
        assert_eq!(stage.faults(*seat), (0, 0), "none twice, no picture without what it refers to");
    }
    leaving(&world, &mut stage, (home, "broadcast"), &far, near.len());
}

/// The home counts viewers wherever they are; who leaves at a branch leaves the room, and the end of the room
/// is the end everywhere.
fn leaving(
    world: &World,
    stage: &mut Stage,
    (home, name): (usize, &str),
    far: &[(usize, String)],
    near: usize,
) {
    let all = far.len() + near;
    let room = world.ask("GET", &world.url_of(home, name), None).expect("an answer");
    assert_eq!(room.body["viewers"], all);
    let left = world.ask("DELETE", &far[0].1, None).expect("an answer");
    assert_eq!(left.status, StatusCode::OK);
    until("the home knows that it left", || {
        let room = world.ask("GET", &world.url_of(home, name), None).expect("an answer");
        room.body["viewers"] == all - 1
    });
    // Whoever is removed by name goes, wherever it watches.
    let removed = format!("{}/participants/viewer-{}", world.url_of(home, name), far[1].0);
    let removed = world.ask("DELETE", &removed, None).expect("an answer");
    assert!(removed.status.is_success(), "{}: {}", removed.status, removed.body);
    stage.until("it is sent away", |stage| stage.engine.seats[far[1].0].client.is_closed());
    assert!(!stage.engine.seats[far[2].0].client.is_closed(), "and nobody else");
    world.ask("DELETE", &world.url_of(home, name), None).expect("an answer");
    stage.until("all are sent away", |stage| {
        far.iter().skip(1).all(|(seat, _)| stage.engine.seats[*seat].client.is_closed())
    });
    until("no branch is left", || world.figure(home, GIVEN) == 0.0);
}

#[test]
fn a_link_that_loses_is_cut_or_is_narrow_goes_on() {
    let world = World::linked(3, Between::Far);
    let mut stage = Stage::new();
    let (home, others, _) = broadcast(&world, &mut stage, "weather");
    let seats: Vec<usize> = (0..4).map(|_| stage.seat(&world, others[0], "weather")).collect();
    stage.until("all at the top", |stage| {
        seats.iter().all(|seat| stage.last(*seat).is_some_and(|shown| shown.encoding == 2))
    });
    let way = world.nodes[home].way.as_ref().expect("a way");

    way.lose(30);
    let asked = key_frames(&stage, &seats);
    stage.run(Duration::from_secs(5));
    // How much is lost in a time is chance.
    stage.until("what was lost is sent again", |_| world.figure(home, RESENT) > 5.0);
    let asked = key_frames(&stage, &seats) - asked;
    assert!(asked <= 4, "viewers hardly notice: {asked} key frames asked for");
    way.lose(0);

    // Nobody can say who has the room while the registry is away: whoever had it last is asked.
    world.redis.act("kill9");
    way.cut(true);
    // Until both ends have given the link up.
    stage.until("the link is given up", |_| {
        world.figure(others[0], "antiphon_relay_failures_total{what=\"lost\"}") >= 1.0
    });
    stage.run(Duration::from_millis(300));
    way.cut(false);
    let again = Instant::now();
    let reformed = stage.until("all see it again", |stage| stage.all_see(&seats, 1, again));
    println!("{}", json!({"what": "relay_cut", "pictures_again_ms": reformed.as_millis()}));
    assert!(reformed < REFORMED_WITHIN, "{reformed:?}");
    world.redis.act("up");

    stage.until("all at the top again", |stage| {
        seats.iter().all(|seat| stage.last(*seat).is_some_and(|shown| shown.encoding == 2))
    });
    way.limit(230_000);
    let narrow = Instant::now();
    let adapted = stage.until("all go on with a lower encoding", |stage| {
        seats.iter().all(|seat| {
            let shown = stage.last(*seat);
            shown.is_some_and(|shown| shown.encoding < 2 && shown.at > narrow)
        })
    });
    println!(
        "{}",
        json!({"what": "relay_narrow", "lower_encoding_ms": adapted.as_millis(),
            "withheld": world.figure(home, WITHHELD)})
    );
    let settled = Instant::now();
    stage.until("and it flows", |stage| stage.all_see(&seats, 1, settled + Duration::from_secs(1)));
    for seat in &seats {
        assert_eq!(stage.faults(*seat).1, 0, "no picture without what it refers to");
    }
}

fn key_frames(stage: &Stage, seats: &[usize]) -> u64 {
    seats.iter().map(|seat| stage.engine.seats[*seat].client.key_frames_requested()).sum()
}

/// The home stands still for longer than its lease. Another node takes the room; the branch on the third goes
/// over to it, and the first, when it wakes, has nobody any more.
#[test]
fn a_branch_follows_its_room_and_leaves_a_stale_owner() {
    let world = World::linked(3, Between::Far);
    let mut stage = Stage::new();
    let (home, others, _) = broadcast(&world, &mut stage, "moving");
    let (next, watched) = (others[0], others[1]);
    let seats: Vec<usize> = (0..3).map(|_| stage.seat(&world, watched, "moving")).collect();
    let began = Instant::now();
    stage.until("all see it", |stage| stage.all_see(&seats, 1, began));
    let epoch = world.epoch_of("moving");

    world.nodes[home].signal(Signal::STOP);
    let frozen = Instant::now();
    stage.until("its lease is over", |_| frozen.elapsed() > world.lease + world.lease / 4);
    stage.publish(&world, next, "moving", 2);
    assert!(world.epoch_of("moving") > epoch);
    let moved = Instant::now();
    let followed = stage.until("all see the new one", |stage| stage.all_see(&seats, 2, moved));
    println!(
        "{}",
        json!({"what": "relay_moved", "lease_ms": world.lease.as_millis(),
            "followed_ms": followed.as_millis()})
    );
    world.nodes[home].signal(Signal::CONT);
    let woken = Instant::now();
    stage.run(Duration::from_secs(3));
    for seat in &seats {
        let slots = stage.engine.seats[*seat].client.slots().values();
        let shown = slots.flat_map(|slot| slot.playout.timeline.iter().flatten());
        let stale = shown.filter(|shown| shown.at > woken && shown.publisher == 1).count();
        assert_eq!(stale, 0, "nothing of the owner that lost its room");
        assert!(!stage.engine.seats[*seat].client.is_closed(), "viewers have stayed where they were");
    }
    assert!(stage.all_see(&seats, 2, woken + Duration::from_secs(2)));
    until("the first has no branch left", || world.figure(home, GIVEN) == 0.0);
    assert_eq!(world.figure(next, GIVEN), 1.0);
}

/// A node of the cluster that is none of the product's processes, and asks for branches by hand.
fn probe(world: &World) -> (Cluster, Links) {
    let mut config = Config::default();
    config.cluster.redis_url = Some(Secret::new(world.redis.url()));
    config.cluster.node_id = "probe".into();
    config.cluster.url = Some("http://127.0.0.1:9".into());
    config.cluster.relay.key = Some(Secret::new(RELAY_KEY));
    config.cluster.relay.listen = ([127, 0, 0, 1], free_port()).into();
    let (cluster, _notices) = Cluster::start(&config, 1).expect("an address");
    let (links, _asks) = Links::start(&config, cluster.clone()).expect("a port");
    (cluster, links.expect("there is a key"))
}

#[test]
fn only_the_home_gives_branches_and_only_under_its_epoch() {
    let world = World::linked(3, Between::Far);
    let mut stage = Stage::new();
    let (home, others, _) = broadcast(&world, &mut stage, "asked");
    // A branch, so that there is one that might be asked for another.
    let seat = stage.seat(&world, others[0], "asked");
    let began = Instant::now();
    stage.until("it sees", |stage| stage.all_see(&[seat], 1, began));
    let epoch = world.epoch_of("asked");
    let room = RoomName::parse("asked").expect("a name");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let (cluster, links) = probe(&world);
    until("it knows the others", || cluster.others().len() == 3);
    let ask = |node: usize, epoch: u64| {
        let record = cluster.others().into_iter().find(|record| record.url == world.nodes[node].url);
        runtime.block_on(links.open(&room, &record.expect("it is known"), epoch)).map(drop)
    };
    let refused = |asked: Result<(), BranchError>| match asked {
        Err(BranchError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(ask(others[0], epoch)), Reason::NotHome, "no branch of a branch");
    assert_eq!(refused(ask(others[1], epoch)), Reason::NotHome);
    assert_eq!(refused(ask(home, epoch - 1)), Reason::OtherEpoch, "one of us has missed something");
    assert_eq!(refused(ask(home, epoch + 1)), Reason::OtherEpoch);
    assert!(ask(home, epoch).is_ok());
    assert_eq!(world.figure(home, GIVEN), 2.0);
}

#[test]
fn who_has_another_key_or_is_of_the_same_region_sends_viewers_to_the_home() {
    let world = World::linked(3, Between::WrongKey);
    let mut stage = Stage::new();
    // A home with the right key: the last node is the stranger.
    let room = (0..).map(|number| format!("keys-{number}")).find(|room| {
        world.make(0, room);
        world.home_of(room) != Some(2)
    });
    let room = room.expect("one");
    let home = world.home_of(&room).expect("a home");
    stage.publish(&world, home, &room, 1);
    let sent = stage.watch(&world, 2, &room).expect_err("it has no link, so it sends viewers away");
    assert!(sent.starts_with(&format!("{}/whep?", world.url_of(home, &room))), "{sent}");
    until("the home has seen through it", || {
        world.figure(home, "antiphon_relay_failures_total{what=\"accept\"}") >= 1.0
    });
    assert_eq!(world.figure(home, GIVEN), 0.0);
    drop(world);

    let world = World::linked(2, Between::Near);
    let (home, others, _) = broadcast(&world, &mut stage, "near");
    let sent = stage.watch(&world, others[0], "near").expect_err("the home has time for it");
    assert!(sent.starts_with(&format!("{}/whep?", world.url_of(home, "near"))), "{sent}");
    // Whom the home sends there is served there.
    let offer = antiphon::bench::client::Offer { video_slots: 1, audio_slots: 1, ..Default::default() };
    let (_, sdp) = stage.engine.add(offer).expect("a socket");
    let (status, ..) = world.join(&format!("{}/whep?branch=true", world.url_of(others[0], "near")), sdp);
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(world.figure(home, GIVEN), 1.0);
    // From seven connections of ten on the home sends viewers there itself.
    let sent = (0..12).find_map(|_| {
        let watched = stage.watch(&world, home, "near");
        stage.run(Duration::from_millis(400));
        watched.err()
    });
    let sent = sent.expect("the home has enough to do");
    assert!(sent.starts_with(&format!("{}/whep?", world.url_of(others[0], "near"))), "{sent}");
    assert!(sent.ends_with("&branch=true"), "{sent}");
}
