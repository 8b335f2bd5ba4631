//! How soon somebody who joins sees something, and what that costs the publisher.

use std::time::Duration;

use antiphon::bench::client::Offer;
use antiphon::bench::source::{Encoding, VideoSource, simulcast, single};
use antiphon::core::participant::Part;

use crate::link::Conditions;
use crate::node::{self, Node};
use crate::world::World;

const MS: Duration = Duration::from_millis(1);
/// Between two key frames that nobody asks for.
const KEY_INTERVAL: Duration = Duration::from_secs(5);
const PUBLISHER: usize = 0;

/// A world with one publisher, just after one of its key frames.
fn after_a_key_frame(seed: u64, encodings: Vec<Encoding>) -> World<Node> {
    let mut world = node::world(seed);
    let video = VideoSource::new(1, encodings, world.now(), KEY_INTERVAL);
    let offer = Offer { video: Some(video), ..Offer::default() };
    assert_eq!(node::join(&mut world, Part::Publisher, offer, Conditions::default()), PUBLISHER);
    world.run(Duration::from_secs(3));
    let before = key_frames(&mut world);
    while key_frames(&mut world) == before {
        world.run(MS);
    }
    world
}

fn key_frames(world: &mut World<Node>) -> u32 {
    let video = world.sites[PUBLISHER].client.video().expect("it has a camera");
    video.sent().last().expect("an encoding").key_frames
}

fn viewer(world: &mut World<Node>, conditions: Conditions) -> usize {
    let offer = Offer { video_slots: 1, timeline: true, ..Offer::default() };
    node::join(world, Part::Viewer { of: None }, offer, conditions)
}

/// From connecting to the first picture.
fn wait_for_picture(world: &mut World<Node>, viewer: usize) -> Duration {
    let seen = |world: &World<Node>| world.sites[viewer].client.milestones().first_frame.is_some();
    assert!(world.run_until_done(Duration::from_secs(5), seen), "a picture within 5 s");
    let milestones = world.sites[viewer].client.milestones();
    let first = milestones.first_frame.zip(milestones.connected);
    first.map(|(shown, connected)| shown.saturating_duration_since(connected)).expect("both were reached")
}

fn round_trip() -> Duration {
    2 * Conditions::default().delay
}

#[test]
fn soon_after_a_key_frame_the_picture_needs_no_other() {
    let mut world = after_a_key_frame(1, single(300_000));
    let key_frames_before = key_frames(&mut world);
    world.run(200 * MS);
    let viewer = viewer(&mut world, Conditions::default());
    let waited = wait_for_picture(&mut world, viewer);
    assert!(waited <= round_trip() + 50 * MS, "{waited:?} from connected to a picture");
    assert_eq!(key_frames(&mut world), key_frames_before);
    assert_eq!(world.sites[PUBLISHER].client.key_frames_requested(), 0);
    world.run(3 * Duration::from_secs(1));
    let slot = world.sites[viewer].client.slots().values().next().expect("a slot");
    assert_eq!(slot.playout.broken, 0);
    assert!(slot.playout.freeze_max < 100 * MS, "{:?}", slot.playout.freeze_max);
    assert_eq!(world.sites[PUBLISHER].client.key_frames_requested(), 0);
}

#[test]
fn long_after_a_key_frame_the_publisher_is_asked_for_one() {
    let mut world = after_a_key_frame(2, single(300_000));
    let key_frames_before = key_frames(&mut world);
    world.run(2 * Duration::from_secs(1));
    let viewer = viewer(&mut world, Conditions::default());
    let waited = wait_for_picture(&mut world, viewer);
    assert!(waited <= 2 * round_trip() + 50 * MS, "{waited:?} from connected to a picture");
    assert_eq!(key_frames(&mut world), key_frames_before + 1);
}

/// Half a second of video at once would fill the path's queue beyond its end.
#[test]
fn a_narrow_path_gets_a_key_frame_of_its_own_where_one_may_be_asked_for() {
    for (path_bps, video_bps) in [(2_000_000, 1_500_000), (1_000_000, 800_000), (700_000, 500_000)] {
        let mut world = after_a_key_frame(3, single(video_bps));
        world.run(300 * MS);
        let viewer = viewer(&mut world, Conditions { rate_bps: Some(path_bps), ..Conditions::default() });
        let waited = wait_for_picture(&mut world, viewer);
        assert!(waited <= 2 * round_trip() + 100 * MS, "{waited:?} from connected to a picture");
        world.run(3 * Duration::from_secs(1));
        let slot = world.sites[viewer].client.slots().values().next().expect("a slot");
        assert!(slot.playout.freeze_max < 100 * MS, "{:?} at {path_bps} bit/s", slot.playout.freeze_max);
    }
}

/// They come one by one, the first long after a key frame, the others soon after that one asked.
#[test]
fn many_who_join_at_once_share_one_key_frame() {
    let mut world = after_a_key_frame(4, simulcast(1_500_000));
    world.run(2 * Duration::from_secs(1));
    let mut viewers = Vec::new();
    for _ in 0..12 {
        viewers.push(viewer(&mut world, Conditions::default()));
        world.run(25 * MS);
    }
    for viewer in viewers {
        let waited = wait_for_picture(&mut world, viewer);
        assert!(waited <= 2 * round_trip() + 50 * MS, "{waited:?} from connected to a picture");
    }
    let asked = world.sites[PUBLISHER].client.key_frames_requested();
    assert!(asked <= 2, "asked {asked} times");
}

#[test]
fn nothing_stalls_for_those_who_join_behind_lossy_paths() {
    for seed in 5..9 {
        let mut world = after_a_key_frame(seed, simulcast(1_500_000));
        let lossy = Conditions { loss: 0.05, ..Conditions::default() };
        (world.sites[PUBLISHER].up.conditions, world.sites[PUBLISHER].down.conditions) = (lossy, lossy);
        let mut viewers = Vec::new();
        for _ in 0..8 {
            viewers.push(viewer(&mut world, lossy));
            world.run(90 * MS);
        }
        world.run(Duration::from_secs(10));
        for viewer in viewers {
            let waited = wait_for_picture(&mut world, viewer);
            assert!(waited < 2 * Duration::from_secs(1), "{waited:?} from connected to a picture");
            let now = world.now();
            for slot in world.sites[viewer].client.slots().values() {
                assert_eq!(slot.playout.broken, 0, "no picture without what it refers to");
                let since_last = now - slot.playout.last_shown().expect("a picture");
                let stall = slot.playout.freeze_max.max(since_last);
                assert!(stall <= Duration::from_secs(1), "the picture stood still for {stall:?}");
            }
        }
    }
}
