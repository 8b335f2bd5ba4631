//! Whole rooms in virtual time, from seeds: people join, leave, get lost and come back, publish, mute, wish,
//! chat and send packets; a log answers late, out of order with the rest, or not at all. And clusters of
//! nodes.
//!
//! A run repeats exactly from its seed. `SEED=7 cargo test --test sim -- one_seed` runs one and tells its
//! story; the committed seeds gate, `SEEDS=1000` sweeps for new ones.

mod books;
mod checker;
mod cluster;
mod log;
mod scale;
mod sender;
mod world;

use world::World;

/// Runs that once found something, and a range that covers the ground.
const SEEDS: std::ops::Range<u64> = 0..60;
const STEPS: usize = 1_500;
/// Of clusters' ledgers.
const BOOKS_SEEDS: std::ops::Range<u64> = 0..40;
/// Of clusters.
const CLUSTER_SEEDS: std::ops::Range<u64> = 0..500;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn rooms_keep_their_promises() {
    let mut reached = checker::Reached::default();
    for seed in SEEDS.start..env("SEEDS").unwrap_or(SEEDS.end) {
        let mut world = World::new(seed);
        world.run(STEPS);
        reached.add(&world.checker.reached);
    }
    // A simulation that never gets anywhere proves nothing.
    reached.assert_all();
}

#[test]
fn one_seed() {
    let mut world = World::new(env("SEED").unwrap_or(1));
    world.run(STEPS);
    println!("{:?}", world.checker.reached);
}

#[test]
fn a_run_repeats_from_its_seed() {
    let story = |seed| {
        let mut world = World::new(seed);
        world.run(STEPS);
        (world.checker.digest, world.checker.reached.clone())
    };
    assert_eq!(story(3), story(3));
    assert_ne!(story(3).0, story(4).0);
}

#[test]
fn clusters_lose_and_double_nothing() {
    let mut reached = cluster::Reached::default();
    for seed in CLUSTER_SEEDS.start..env("SEEDS").unwrap_or(CLUSTER_SEEDS.end) {
        let mut world = cluster::World::new(seed, false);
        let findings = world.run();
        assert_eq!(findings.faults, Vec::<String>::new(), "seed {seed}");
        assert!(world.is_done(), "seed {seed}: not all was acknowledged: {:?}", world.reached);
        reached.add(&world.reached);
    }
    reached.assert_all();
}

/// A test of the test: where everyone's word counts, clients are told what the log does not have.
#[test]
fn a_cluster_without_its_fence_is_found_out() {
    let caught =
        CLUSTER_SEEDS.take(40).filter(|seed| cluster::World::new(*seed, true).run().faults_total > 0);
    assert!(caught.count() > 10, "faults that nobody sees");
}

#[test]
fn a_cluster_repeats_from_its_seed() {
    let story = |seed| {
        let mut world = cluster::World::new(seed, false);
        (world.run(), world.reached)
    };
    assert_eq!(story(3), story(3));
    assert_ne!(story(3), story(4));
}

#[test]
fn a_clusters_ledger_has_each_payment_once() {
    let mut reached = books::Reached::default();
    for seed in BOOKS_SEEDS.start..env("SEEDS").unwrap_or(BOOKS_SEEDS.end) {
        let mut world = books::World::new(seed, false);
        assert_eq!(world.run(), Vec::<String>::new(), "seed {seed}");
        reached.add(&world.reached);
    }
    println!("{reached:?}");
    reached.assert_all();
}

/// A test of the test: where everyone's word counts, an address is shown to two.
#[test]
fn a_ledger_without_its_fence_is_found_out() {
    let caught = BOOKS_SEEDS.filter(|seed| !books::World::new(*seed, true).run().is_empty()).count();
    println!("{caught} of {BOOKS_SEEDS:?}");
    assert!(caught > 5, "faults that nobody sees");
}

/// `SCALE_NODES=1000 SCALE_ROOMS=1000000 cargo test --test sim -- rooms_are_spread --nocapture` is the large
/// one (docs/SCALE.md).
#[test]
fn rooms_are_spread_and_only_those_of_a_lost_region_move() {
    let nodes = env("SCALE_NODES").unwrap_or(60) as usize;
    let size = scale::Size { nodes, rooms: env("SCALE_ROOMS").unwrap_or(nodes as u64 * 500) as usize };
    let outcome = scale::Scale::new(size, env("SEED").unwrap_or(1)).run(size);
    println!("{size:?}: {outcome:#?}");
    let [mean, _, most] = outcome.steady;
    assert!((0.3..0.6).contains(&mean) && most < mean + 0.2, "{outcome:?}");
    assert_eq!((outcome.refused, outcome.moved), (0, outcome.lost), "all found a place, and no others moved");
    assert!(outcome.moved_within <= std::time::Duration::from_secs(8), "{outcome:?}");
    let [mean, _, most] = outcome.after;
    assert!(most < antiphon::core::placement::JOINS_BELOW && most < mean + 0.2, "{outcome:?}");
    assert_eq!(outcome.full_node_seconds, 0, "nobody was turned away");
}
