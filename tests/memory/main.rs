//! What a subscriber costs in memory: the heap that a shard holds with some viewers more, over that with few,
//! in virtual time. A program of its own without a test harness: its allocator counts the whole process, in
//! which nothing else may run.

#[path = "../media/far.rs"]
mod far;
#[allow(dead_code)]
#[path = "../media/link.rs"]
mod link;
#[allow(dead_code)]
#[path = "../media/node.rs"]
mod node;
#[allow(dead_code)]
#[path = "../media/world.rs"]
mod world;

use std::alloc::System;
use std::time::Duration;

use antiphon::bench::client::Offer;
use antiphon::bench::source::{AudioSource, VideoSource, single};
use antiphon::core::participant::Part;
use cap::Cap;

use crate::link::Conditions;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const FEW: usize = 2;
const MORE: usize = 6;

/// What a shard holds with this many viewers of `slots` pictures and sounds each, which `publishers` send at
/// `video_bps` each.
fn bytes_held(viewers: usize, slots: usize, publishers: u32, video_bps: u64) -> usize {
    let mut world = node::world(1);
    for number in 0..publishers {
        let now = world.now();
        let offer = Offer {
            video: Some(VideoSource::new(number, single(video_bps), now, Duration::from_secs(3600))),
            audio: Some(AudioSource::new(number, now)),
            ..Offer::default()
        };
        node::join(&mut world, Part::Publisher, offer, Conditions::default());
    }
    for _ in 0..viewers {
        let offer = Offer { video_slots: slots, audio_slots: slots, ..Offer::default() };
        node::join(&mut world, Part::Viewer { of: None }, offer, Conditions::default());
    }
    world.run(Duration::from_secs(4));
    let shards = world.server.shards;
    let before = ALLOCATOR.allocated();
    drop(shards);
    before.saturating_sub(ALLOCATOR.allocated())
}

/// Kilobytes for each viewer.
fn kilobytes(slots: usize, publishers: u32, video_bps: u64) -> usize {
    let held = |viewers| bytes_held(viewers, slots, publishers, video_bps);
    (held(MORE) - held(FEW)) / (MORE - FEW) / 1_000
}

fn main() {
    for (slots, publishers, video_bps, most) in
        [(1, 0, 0, 60), (1, 1, 1_500_000, 120), (9, 0, 0, 80), (9, 9, 166_000, 150), (9, 9, 1_500_000, 350)]
    {
        // Queues double as they grow, when by chance they have to: the least of some runs is what is needed.
        let runs = (0..3).map(|_| kilobytes(slots, publishers, video_bps));
        let cost = runs.min().unwrap_or(usize::MAX);
        println!("{slots} slots, {publishers} publishers at {video_bps} bit/s: {cost} kB a viewer");
        assert!(cost <= most, "{cost} kB of {most} with {slots} slots and {publishers} publishers");
    }
}
