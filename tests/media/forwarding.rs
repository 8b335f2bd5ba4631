//! Publisher, shard and viewers over bad networks. What the viewer sees is judged by the frames that a
//! decoder could show, what the server sends by the bytes that enter the viewer's path.

use std::time::Duration;

use antiphon::bench::client::Offer;
use antiphon::bench::reception::{Shown, Slot};
use antiphon::bench::source::{AudioSource, VideoSource, simulcast};
use antiphon::core::participant::Part;

use crate::link::Conditions;
use crate::node::{self, Node};
use crate::world::World;

/// The longest that a picture may stand still.
const STALL_MAX: Duration = Duration::from_secs(1);
/// Of the top encoding.
pub const TOP_BPS: u64 = 1_500_000;
pub const TOP_ENCODING: u8 = 2;

/// Someone with a camera, three encodings and a microphone.
pub fn publisher(world: &mut World<Node>, number: u32, conditions: Conditions) -> usize {
    let now = world.now();
    let offer = Offer {
        video: Some(VideoSource::new(number, simulcast(TOP_BPS), now, Duration::from_secs(3600))),
        audio: Some(AudioSource::new(number, now)),
        ..Offer::default()
    };
    node::join(world, Part::Publisher, offer, conditions)
}

/// Someone who watches `videos` participants.
fn viewer(world: &mut World<Node>, videos: usize, conditions: Conditions) -> usize {
    let offer = Offer { video_slots: videos, audio_slots: videos, timeline: true, ..Offer::default() };
    node::join(world, Part::Viewer { of: None }, offer, conditions)
}

/// A room with one publisher on a good path and one viewer on this one, both connected.
fn room_of_two(seed: u64, conditions: Conditions) -> (World<Node>, usize) {
    let mut world = node::world(seed);
    publisher(&mut world, 1, Conditions::default());
    let viewer = viewer(&mut world, 1, conditions);
    let seen = |world: &World<Node>| world.sites[viewer].client.milestones().first_frame.is_some();
    assert!(world.run_until_done(Duration::from_secs(10), seen), "a picture within 10 s");
    (world, viewer)
}

/// The slots in which a site sees something.
pub fn pictures(world: &World<Node>, site: usize) -> Vec<&Slot> {
    let slots = world.sites[site].client.slots().values();
    slots.filter(|slot| slot.playout.frames > 0).collect()
}

pub fn timeline(slot: &Slot) -> &[Shown] {
    slot.playout.timeline.as_deref().expect("the viewer keeps a timeline")
}

/// The longest time without a new picture, that since the last one included.
fn stall(world: &World<Node>, slot: &Slot) -> Duration {
    let since_last = slot.playout.last_shown().map_or(Duration::MAX, |last| world.now() - last);
    slot.playout.freeze_max.max(since_last)
}

/// What must hold on any path: one stream for each slot, no frame without what it refers to, no long stall.
pub fn assert_watchable(world: &World<Node>, site: usize) {
    assert_watchable_within(world, site, STALL_MAX);
}

fn assert_watchable_within(world: &World<Node>, site: usize, stall_max: Duration) {
    for slot in pictures(world, site) {
        assert_eq!(slot.ssrcs.len(), 1, "a slot has one SSRC");
        assert_eq!(slot.playout.broken, 0, "every switch is on a key frame");
        let stall = stall(world, slot);
        assert!(stall <= stall_max, "the picture stood still for {stall:?}");
    }
}

/// Share of the pictures captured in the run's last `period` that the viewer saw.
pub fn shown_share(world: &World<Node>, slot: &Slot, period: Duration) -> f64 {
    let shown = timeline(slot).iter().filter(|shown| world.now() - shown.at <= period).count();
    shown as f64 / (period.as_secs_f64() * 30.0)
}

#[test]
fn a_good_path_shows_every_picture_at_the_top_layer() {
    let (mut world, viewer) = room_of_two(1, Conditions::default());
    world.run(Duration::from_secs(20));
    assert_watchable(&world, viewer);
    let slot = pictures(&world, viewer)[0];
    let share = shown_share(&world, slot, Duration::from_secs(5));
    assert!(share > 0.98, "{share}");
    let last = timeline(slot).last().expect("a picture");
    assert_eq!(last.encoding, TOP_ENCODING);
    let voice = world.sites[viewer].client.slots().values().filter(|slot| slot.playout.frames == 0);
    let heard: u64 = voice.flat_map(|slot| slot.tallies.values()).map(|tally| tally.packets).sum();
    assert!(heard >= 20 * 50, "{heard} packets of audio");
}

#[test]
fn who_is_granted_the_lowest_layer_alone_gets_no_other_on_the_best_path() {
    let mut world = node::world(11);
    publisher(&mut world, 1, Conditions::default());
    world.server.lowest_layer = true;
    let looks = viewer(&mut world, 1, Conditions::default());
    world.server.lowest_layer = false;
    let pays = viewer(&mut world, 1, Conditions::default());
    world.run(Duration::from_secs(20));
    for site in [looks, pays] {
        assert_watchable(&world, site);
    }
    let shown = |site| timeline(pictures(&world, site)[0]);
    assert!(shown(looks).len() > 15 * 30, "{} pictures", shown(looks).len());
    assert!(shown(looks).iter().all(|shown| shown.encoding == 0), "not for a moment");
    assert_eq!(shown(pays).last().expect("a picture").encoding, TOP_ENCODING, "others get all");
}

/// Runs 30 s with this much loss both ways. Returns the share of pictures shown, and of lost packets that was
/// brought back.
fn lossy(seed: u64, loss: f64, stall_max: Duration) -> (f64, f64) {
    let (mut world, viewer) = room_of_two(seed, Conditions::default());
    let conditions = Conditions { loss, ..Conditions::default() };
    world.sites[viewer].up.conditions = conditions;
    world.sites[viewer].down.conditions = conditions;
    world.run(Duration::from_secs(30));
    assert_watchable_within(&world, viewer, stall_max);
    let slot = pictures(&world, viewer)[0];
    // By the slot's own numbers; the newest may still be under way.
    let sent = slot.sequence.next().saturating_sub(200);
    let missing = u64::from(sent) - slot.sequence.received(0, sent);
    let recovered = 1.0 - missing as f64 / (f64::from(sent) * loss);
    (shown_share(&world, slot, Duration::from_secs(20)), recovered)
}

#[test]
fn two_percent_loss_is_repaired() {
    let (shown, recovered) = lossy(2, 0.02, STALL_MAX);
    assert!(shown > 0.98 && recovered > 0.98, "{shown} shown, {recovered} recovered");
}

#[test]
fn ten_percent_loss_is_repaired() {
    // What one run shows depends on which packets are lost: whole key frames or single ones, or what asks for
    // them, which is asked again half a second later.
    let runs: Vec<(f64, f64)> = (1..=6).map(|seed| lossy(seed, 0.10, STALL_MAX + STALL_MAX / 2)).collect();
    let shown = runs.iter().map(|(shown, _)| shown).sum::<f64>() / runs.len() as f64;
    let recovered = runs.iter().fold(1.0, |least: f64, (_, recovered)| least.min(*recovered));
    assert!(shown > 0.96 && recovered > 0.97, "{shown} shown, {recovered} recovered");
}

/// The engine asks five times for a packet, so at 20 % each way one lost packet in 170 stays lost, and a key
/// frame has to do.
#[test]
fn twenty_percent_loss_is_watchable() {
    let (shown, recovered) = lossy(4, 0.20, STALL_MAX);
    assert!(shown > 0.85 && recovered > 0.95, "{shown} shown, {recovered} recovered");
}

#[test]
fn a_publisher_behind_a_lossy_path_is_repaired_at_the_server() {
    let mut world = node::world(5);
    publisher(&mut world, 1, Conditions { loss: 0.05, ..Conditions::default() });
    let viewer = viewer(&mut world, 1, Conditions::default());
    world.run(Duration::from_secs(20));
    assert_watchable(&world, viewer);
    let share = shown_share(&world, pictures(&world, viewer)[0], Duration::from_secs(10));
    assert!(share > 0.95, "{share} of the pictures were shown");
}

#[test]
fn reordering_and_jitter_cost_no_picture() {
    let jitter = Duration::from_millis(30);
    let (mut world, viewer) = room_of_two(6, Conditions { jitter, reordered: 0.05, ..Conditions::default() });
    world.run(Duration::from_secs(30));
    assert_watchable(&world, viewer);
    let slot = pictures(&world, viewer)[0];
    let share = shown_share(&world, slot, Duration::from_secs(10));
    assert!(share > 0.98, "{share} of the pictures were shown");
    let top = timeline(slot).iter().filter(|shown| shown.encoding == TOP_ENCODING).count();
    assert!(top as f64 > 0.9 * timeline(slot).len() as f64, "{top} of {} at the top", timeline(slot).len());
}

/// Bits per second that entered a site's downlink since `bytes_before`.
fn offered_bps(world: &World<Node>, site: usize, bytes_before: u64, period: Duration) -> u64 {
    let bytes = world.sites[site].down.carried().offered_bytes - bytes_before;
    (bytes as f64 * 8.0 / period.as_secs_f64()) as u64
}

#[test]
fn bandwidth_that_falls_and_returns_moves_the_layer_down_and_up() {
    let path = |rate_bps| Conditions { rate_bps: Some(rate_bps), ..Conditions::default() };
    let (mut world, viewer) = room_of_two(7, path(3_000_000));
    world.run(Duration::from_secs(15));
    let slot = pictures(&world, viewer)[0];
    assert_eq!(
        timeline(slot).last().map(|shown| shown.encoding),
        Some(TOP_ENCODING),
        "3 Mbit/s carry the top"
    );

    world.sites[viewer].down.conditions = path(300_000);
    world.run(Duration::from_secs(2));
    let fallen = world.sites[viewer].down.carried().offered_bytes;
    world.run(Duration::from_secs(10));
    let bps = offered_bps(&world, viewer, fallen, Duration::from_secs(10));
    assert!(bps <= 300_000, "{bps} bit/s into a path of 300 kbit/s");
    assert_watchable(&world, viewer);

    world.sites[viewer].down.conditions = path(3_000_000);
    let returned = world.now();
    world.run(Duration::from_secs(15));
    assert_watchable(&world, viewer);
    let slot = pictures(&world, viewer)[0];
    let top = timeline(slot).iter().find(|shown| shown.at > returned && shown.encoding == TOP_ENCODING);
    let after = top.map(|shown| shown.at - returned);
    assert!(after.is_some(), "back at the top within 15 s");
    assert_eq!(timeline(slot).last().map(|shown| shown.encoding), Some(TOP_ENCODING), "and stays there");
}

/// A network that was gone for six seconds: the estimate has fallen, and must not keep the picture out.
#[test]
fn the_picture_is_back_soon_after_an_outage() {
    let (mut world, viewer) = room_of_two(9, Conditions::default());
    world.run(Duration::from_secs(10));
    let gone = Conditions { loss: 1.0, ..Conditions::default() };
    (world.sites[viewer].up.conditions, world.sites[viewer].down.conditions) = (gone, gone);
    world.run(Duration::from_secs(6));
    let back = Conditions::default();
    (world.sites[viewer].up.conditions, world.sites[viewer].down.conditions) = (back, back);
    let returned = world.now();
    world.run(Duration::from_secs(10));
    let slot = pictures(&world, viewer)[0];
    let first = timeline(slot).iter().find(|shown| shown.at > returned).expect("a picture");
    assert!(first.at - returned < Duration::from_secs(2), "{:?}", first.at - returned);
    assert_eq!(timeline(slot).last().map(|shown| shown.encoding), Some(TOP_ENCODING));
}

#[test]
fn a_viewer_of_three_has_one_continuous_stream_for_each() {
    let mut world = node::world(8);
    for number in 1..=3 {
        publisher(&mut world, number, Conditions::default());
    }
    let viewer = viewer(&mut world, 3, Conditions { loss: 0.01, ..Conditions::default() });
    world.run(Duration::from_secs(15));
    assert_watchable(&world, viewer);
    let slots = pictures(&world, viewer);
    assert_eq!(slots.len(), 3, "a slot for each publisher");
    let mut seen: Vec<u32> =
        slots.iter().filter_map(|slot| timeline(slot).last()).map(|s| s.publisher).collect();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3]);
    let stats = world.server.stats(world.now());
    assert_eq!(stats.participants.len(), 4);
}
