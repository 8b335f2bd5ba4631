//! A room that spreads over several shards: viewers elsewhere see what viewers at home see, and each shard is
//! sent one copy of what somebody there takes.

use std::collections::BTreeSet;
use std::time::Duration;

use antiphon::bench::client::Offer;
use antiphon::bench::source::{AudioSource, VideoSource, simulcast, single};
use antiphon::core::participant::Part;
use antiphon::core::protocol::RoomChange;
use antiphon::core::refusal::{Code, Refusal};
use antiphon::media::relay::RelayedPacket;
use antiphon::media::shard::RoomCommand;
use tokio::sync::oneshot;

use crate::forwarding::{TOP_ENCODING, assert_watchable, pictures, publisher, shown_share, timeline};
use crate::link::Conditions;
use crate::node::{self, Node};
use crate::world::World;

/// The same must hold whether a branch is on another shard or at another node.
fn on_shards_and_nodes(seed: u64, what: impl Fn(World<Node>)) {
    what(node::world_of_shards(seed, 2));
    what(node::world_of_nodes(seed));
}

/// A WHEP viewer on a shard.
fn viewer(world: &mut World<Node>, shard: usize, conditions: Conditions) -> Result<usize, Refusal> {
    let offer = Offer { video_slots: 1, audio_slots: 1, timeline: true, ..Offer::default() };
    node::join_on(world, shard, Part::Viewer { of: None }, offer, conditions)
}

fn good(world: &mut World<Node>, shard: usize) -> usize {
    viewer(world, shard, Conditions::default()).expect("the join is granted")
}

fn last_encoding(world: &World<Node>, site: usize) -> Option<u8> {
    timeline(pictures(world, site).first()?).last().map(|shown| shown.encoding)
}

#[test]
fn a_viewer_on_another_shard_sees_and_hears_what_one_at_home_does() {
    on_shards_and_nodes(1, |mut world| {
        publisher(&mut world, 1, Conditions::default());
        world.run(Duration::from_secs(1));
        let viewers = [good(&mut world, 0), good(&mut world, 1)];
        world.run(Duration::from_secs(15));
        for site in viewers {
            assert_watchable(&world, site);
            let share = shown_share(&world, pictures(&world, site)[0], Duration::from_secs(5));
            assert!(share > 0.98, "{share} of the pictures were shown");
            assert_eq!(last_encoding(&world, site), Some(TOP_ENCODING));
            let slots = world.sites[site].client.slots().values();
            let voice = slots.filter(|slot| slot.playout.frames == 0).flat_map(|slot| slot.tallies.values());
            let heard: u64 = voice.map(|tally| tally.packets).sum();
            assert!(heard > 14 * 50, "{heard} packets of audio");
        }
        let first = |site: usize| world.sites[site].client.milestones().first_frame.expect("a picture");
        let later = first(viewers[1]).saturating_duration_since(first(viewers[0]));
        assert!(later < Duration::from_millis(100), "a picture as soon as at home: {later:?} later");
    });
}

/// Its seat is at the home, its connection at another node. Narrow viewers at home take a lower encoding.
#[test]
fn a_publisher_in_a_branch_is_seen_there_and_at_home() {
    let mut world = node::world_of_nodes(9);
    let now = world.now();
    let offer = Offer {
        video: Some(VideoSource::new(1, simulcast(900_000), now, Duration::from_secs(3600))),
        audio: Some(AudioSource::new(1, now)),
        ..Offer::default()
    };
    node::join_on(&mut world, 1, Part::Publisher, offer, Conditions::default()).expect("it is let in");
    world.run(Duration::from_secs(1));
    let narrow = Conditions { rate_bps: Some(500_000), ..Conditions::default() };
    let sites = [
        good(&mut world, 0),
        good(&mut world, 1),
        viewer(&mut world, 0, narrow).expect("the join is granted"),
    ];
    world.run(Duration::from_secs(15));
    for site in sites {
        assert_watchable(&world, site);
    }
    for site in &sites[..2] {
        let share = shown_share(&world, pictures(&world, *site)[0], Duration::from_secs(5));
        assert!(share > 0.98, "{share} of the pictures were shown");
        assert_eq!(last_encoding(&world, *site), Some(TOP_ENCODING));
    }
    assert!(last_encoding(&world, sites[2]).is_some_and(|encoding| encoding < TOP_ENCODING));
    assert!(world.server.relayed.is_empty(), "nothing comes back to where it came from");
}

/// The home has just had a key frame, and is not to ask for another so soon.
#[test]
fn the_first_in_a_branch_need_not_wait_for_a_key_frame() {
    on_shards_and_nodes(8, |mut world| {
        let now = world.now();
        let video = VideoSource::new(1, single(300_000), now, Duration::from_secs(3600));
        let offer = Offer { video: Some(video), ..Offer::default() };
        node::join(&mut world, Part::Publisher, offer, Conditions::default());
        world.run(Duration::from_secs(1));
        let home = good(&mut world, 0);
        let seen = |world: &World<Node>| world.sites[home].client.milestones().first_frame.is_some();
        assert!(world.run_until_done(Duration::from_secs(1), seen));
        world.run(Duration::from_millis(100));
        let site = good(&mut world, 1);
        world.run(Duration::from_secs(3));
        let milestones = world.sites[site].client.milestones();
        let (connected, first) =
            (milestones.connected.expect("it is"), milestones.first_frame.expect("it came"));
        assert!(first - connected < Duration::from_millis(150), "{:?}", first - connected);
        assert_watchable(&world, site);
    });
}

/// Encodings of video that were sent to a shard since the `from`th packet.
fn relayed_to(world: &World<Node>, shard: usize, from: usize) -> BTreeSet<u8> {
    let video = |packet: &RelayedPacket| packet.format.codec.is_video();
    let relayed = world.server.relayed[from..].iter().filter(|(to, packet)| *to == shard && video(packet));
    relayed.map(|(_, packet)| packet.encoding).collect()
}

#[test]
fn a_shard_is_sent_one_copy_of_each_encoding_that_is_taken_there() {
    let mut world = node::world_of_shards(2, 3);
    publisher(&mut world, 1, Conditions::default());
    let mut sites = vec![good(&mut world, 0)];
    sites.extend((0..6).map(|_| good(&mut world, 1)));
    sites.extend((0..3).map(|_| good(&mut world, 2)));
    let narrow = Conditions { rate_bps: Some(300_000), ..Conditions::default() };
    sites.push(viewer(&mut world, 2, narrow).expect("the join is granted"));
    world.run(Duration::from_secs(20));
    let settled = world.server.relayed.len();
    world.run(Duration::from_secs(5));
    sites.iter().for_each(|&site| assert_watchable(&world, site));
    assert_eq!(relayed_to(&world, 1, settled), BTreeSet::from([TOP_ENCODING]), "what all six take");
    let second = relayed_to(&world, 2, settled);
    assert!(second.len() == 2 && second.contains(&TOP_ENCODING), "and a lower one for one: {second:?}");
    let mut copies = BTreeSet::new();
    for (to, packet) in &world.server.relayed {
        let key = (*to, packet.origin, packet.line, packet.encoding, packet.seq_no);
        assert!(copies.insert(key), "a second copy of {key:?}");
    }
}

#[test]
fn what_nobody_watches_any_more_is_not_sent() {
    on_shards_and_nodes(3, |mut world| {
        let sender = publisher(&mut world, 1, Conditions::default());
        let site = good(&mut world, 1);
        world.run(Duration::from_secs(5));
        assert_watchable(&world, site);
        world.sites[site].up.conditions.loss = 1.0;
        // Lost after 7 s, gone 15 s later; its branch closes 10 s after that.
        world.run(Duration::from_secs(12));
        let lost = world.server.relayed.len();
        world.run(Duration::from_secs(5));
        assert_eq!(relayed_to(&world, 1, lost), BTreeSet::new(), "no picture for nobody");
        world.run(Duration::from_secs(20));
        let now = world.now();
        assert!(world.server.stats_of(now, 1).is_err_and(|refusal| refusal.code == Code::NotFound));
        let gone = world.server.relayed.len();
        let again = good(&mut world, 1);
        world.run(Duration::from_secs(5));
        assert_watchable(&world, again);
        assert!(world.server.relayed.len() > gone, "and anew for the next");
        world.sites[sender].up.conditions.loss = 1.0;
        world.run(Duration::from_secs(24));
        let now = world.now();
        let stats = world.server.stats_of(now, 1).expect("the branch is open");
        let gets: Vec<_> = stats.participants.iter().flat_map(|viewer| &viewer.connection.gets).collect();
        assert!(gets.iter().all(|slot| slot.participant.is_none()), "its publisher has left: {gets:?}");
    });
}

#[test]
fn publishers_who_come_later_or_come_back_are_seen_in_a_branch() {
    on_shards_and_nodes(4, |mut world| {
        let offer = Offer { video_slots: 2, audio_slots: 2, timeline: true, ..Offer::default() };
        let part = Part::Viewer { of: None };
        let site = node::join_on(&mut world, 1, part, offer, Conditions::default()).expect("it is granted");
        world.run(Duration::from_secs(1));
        publisher(&mut world, 1, Conditions::default());
        world.run(Duration::from_secs(2));
        publisher(&mut world, 2, Conditions::default());
        world.run(Duration::from_secs(5));
        assert_watchable(&world, site);
        let mut seen: Vec<u32> =
            pictures(&world, site).iter().filter_map(|s| timeline(s).last()).map(|s| s.publisher).collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    });
}

#[test]
fn a_shard_that_was_overrun_shows_pictures_again_at_once() {
    on_shards_and_nodes(5, |mut world| {
        publisher(&mut world, 1, Conditions::default());
        let site = good(&mut world, 1);
        world.run(Duration::from_secs(5));
        world.server.relays_full = true;
        world.run(Duration::from_millis(300));
        world.server.relays_full = false;
        let over = world.now();
        world.run(Duration::from_secs(5));
        assert_watchable(&world, site);
        let next =
            timeline(pictures(&world, site)[0]).iter().find(|shown| shown.at > over).expect("a picture");
        assert!(next.at - over < Duration::from_millis(600), "{:?} later", next.at - over);
    });
}

#[test]
fn a_room_is_locked_and_closed_in_its_branches_too() {
    on_shards_and_nodes(6, |mut world| {
        publisher(&mut world, 1, Conditions::default());
        let site = good(&mut world, 1);
        world.run(Duration::from_secs(2));
        let now = world.now();
        let (reply, _) = oneshot::channel();
        let change = RoomChange { locked: Some(true), ..RoomChange::default() };
        world.server.command(now, 0, RoomCommand::Change(change, reply));
        let refused = viewer(&mut world, 1, Conditions::default());
        assert!(refused.is_err_and(|refusal| refusal.code == Code::RoomLocked));
        let (reply, _) = oneshot::channel();
        world.server.command(now, 0, RoomCommand::Close(reply));
        world.run(Duration::from_secs(2));
        assert!(world.sites[site].client.is_closed(), "who watched elsewhere is sent away as well");
        let now = world.now();
        assert!(world.server.stats_of(now, 1).is_err());
        let refused = viewer(&mut world, 1, Conditions::default());
        assert!(refused.is_err_and(|refusal| refusal.code == Code::NotFound), "no branch without a home");
    });
}

/// The end of a room and its next opening may reach a shard in either order.
#[test]
fn what_is_left_of_an_earlier_opening_makes_way() {
    let mut world = node::world_of_shards(9, 2);
    let site = good(&mut world, 1);
    world.run(Duration::from_secs(2));
    let now = world.now();
    world.server.open_again(now, 1);
    assert!(world.server.stats_of(now, 1).is_ok_and(|stats| stats.participants.is_empty()));
    let (reply, _) = oneshot::channel();
    world.server.command(now, 0, RoomCommand::Close(reply));
    world.run(Duration::from_secs(2));
    assert!(world.sites[site].client.is_closed());
    let now = world.now();
    assert!(world.server.stats_of(now, 1).is_ok(), "the new opening is none of the old one's");
}

/// A room whose last publisher has left stays open for those who wait, wherever they are.
#[test]
fn viewers_in_a_branch_keep_their_room_open() {
    on_shards_and_nodes(7, |mut world| {
        let site = good(&mut world, 1);
        world.run(Duration::from_secs(320));
        publisher(&mut world, 1, Conditions::default());
        world.run(Duration::from_secs(5));
        assert_watchable(&world, site);
    });
}
