//! Budgets that are ample, short, noisy and failing, in virtual time.

use proptest::prelude::*;

use super::*;

const CAMERA: [LayerOffer; 3] = [offer(180, 150_000), offer(360, 500_000), offer(720, 1_800_000)];

const fn offer(height: u32, bitrate_bps: u64) -> LayerOffer {
    LayerOffer { height, bitrate_bps, alive: true }
}

fn demand(slot: u32, priority: Priority, max_height: u32) -> Demand<'static, u32> {
    Demand { slot, priority, max_height, current: None, layers: &CAMERA }
}

fn choices(allocation: &Allocation<u32>) -> Vec<Option<usize>> {
    allocation.choices.iter().map(|(_, choice)| *choice).collect()
}

fn cost(demands: &[Demand<'_, u32>], allocation: &Allocation<u32>) -> u64 {
    let cost_of = |(demand, (_, choice)): (&Demand<'_, u32>, &(u32, Option<usize>))| {
        choice.map_or(0, |layer| demand.layers[layer].cost_bps())
    };
    demands.iter().zip(&allocation.choices).map(cost_of).sum()
}

/// Runs an allocator at steps of 100 ms, with an estimate for each.
struct Run {
    allocator: Allocator<u32>,
    begin: Instant,
    now: Instant,
    demands: Vec<Demand<'static, u32>>,
}

impl Run {
    fn new(initial_bps: u64, demands: Vec<Demand<'static, u32>>) -> Self {
        let now = Instant::now();
        Self { allocator: Allocator::new(initial_bps), begin: now, now, demands }
    }

    fn step(&mut self, bps: u64) -> Allocation<u32> {
        self.now += Duration::from_millis(100);
        self.allocator.handle_estimate(self.now, bps);
        self.allocator.allocate(self.now, 0, &self.demands)
    }

    /// The time from now at which the allocation first is as told.
    fn until(&mut self, bps: u64, wanted: &[Option<usize>]) -> Option<Duration> {
        let from = self.now;
        (0..600).find_map(|_| (choices(&self.step(bps)) == wanted).then(|| self.now - from))
    }
}

#[test]
fn lowest_layers_first_then_upgrades_by_priority() {
    let demands = [
        demand(1, Priority::Other, 720),
        demand(2, Priority::Pinned, 720),
        demand(3, Priority::Speaker, 720),
    ];
    let at = |bps: u64| {
        let allocation = Allocator::new(bps).allocate(Instant::now(), 0, &demands);
        choices(&allocation)
    };
    assert_eq!(at(160_000), [None, Some(0), None]);
    assert_eq!(at(310_000), [None, Some(0), Some(0)]);
    assert_eq!(at(450_000), [Some(0), Some(0), Some(0)]);
    assert_eq!(at(1_000_000), [Some(0), Some(1), Some(0)], "112 % of 800 kbit/s");
    assert_eq!(at(2_400_000), [Some(0), Some(2), Some(0)]);
    assert_eq!(at(3_000_000), [Some(0), Some(2), Some(1)]);
    assert_eq!(at(u64::MAX), [Some(2), Some(2), Some(2)]);
}

#[test]
fn no_more_than_the_slot_shows_and_nothing_off_screen() {
    let demands =
        [demand(1, Priority::Other, 200), demand(2, Priority::Other, 0), demand(3, Priority::Other, 90)];
    let allocation = Allocator::new(u64::MAX).allocate(Instant::now(), 0, &demands);
    assert_eq!(choices(&allocation), [Some(1), None, Some(0)]);
    assert_eq!(allocation.next_bps, 0, "nothing is missing");
    assert_eq!(allocation.desired_bps, 650_000 * 112 / 100);
}

#[test]
fn dead_layers_are_passed_over() {
    let mut layers = CAMERA;
    layers[1].alive = false;
    let one = |layers: &[LayerOffer]| {
        let demand = Demand { slot: 1, priority: Priority::Other, max_height: 360, current: None, layers };
        Allocator::new(u64::MAX).allocate(Instant::now(), 0, &[demand]).choices[0].1
    };
    assert_eq!(one(&layers), Some(2), "the smallest that is high enough");
    layers[2].alive = false;
    assert_eq!(one(&layers), Some(0));
    layers[0].alive = false;
    assert_eq!(one(&layers), None);
    assert_eq!(one(&[]), None);
}

#[test]
fn audio_comes_first_and_the_most_important_picture_last() {
    let demands = [demand(1, Priority::Other, 720), demand(2, Priority::Pinned, 720)];
    let mut allocator = Allocator::new(200_000);
    let now = Instant::now();
    let allocation = allocator.allocate(now, 100_000, &demands);
    assert_eq!(choices(&allocation), [None, Some(0)], "kept though 100 kbit/s do not hold it");
    allocator.handle_estimate(now, KEEP_FLOOR_BPS);
    assert_eq!(choices(&allocator.allocate(now, 100_000, &demands)), [None, Some(0)], "something flows");
    allocator.handle_estimate(now, KEEP_FLOOR_BPS - 1);
    assert_eq!(choices(&allocator.allocate(now, 100_000, &demands)), [None, None]);
}

#[test]
fn down_at_once_and_up_after_a_while() {
    let mut run = Run::new(3_000_000, vec![demand(1, Priority::Other, 720)]);
    assert_eq!(choices(&run.step(3_000_000)), [Some(2)]);
    assert_eq!(choices(&run.step(300_000)), [Some(0)]);
    let up = run.until(3_000_000, &[Some(2)]).expect("up again");
    assert!((Duration::from_millis(1_400)..Duration::from_secs(2)).contains(&up), "{up:?}");
}

#[test]
fn the_next_step_is_what_padding_proves() {
    let mut run = Run::new(600_000, vec![demand(1, Priority::Other, 720)]);
    let allocation = run.step(600_000);
    assert_eq!(choices(&allocation), [Some(1)]);
    assert_eq!(allocation.next_bps, 1_800_000 * 112 / 100);
    assert!(allocation.desired_bps >= allocation.next_bps);
}

#[test]
fn a_raise_that_fails_is_tried_ever_more_rarely() {
    let mut run = Run::new(600_000, vec![demand(1, Priority::Other, 720)]);
    let mut waits = Vec::new();
    for _ in 0..7 {
        waits.push(run.until(2_500_000, &[Some(2)]).expect("raised"));
        run.step(2_500_000);
        assert_eq!(choices(&run.step(600_000)), [Some(1)], "the link does not carry it");
    }
    assert!(waits[2..].windows(2).all(|pair| pair[1] >= pair[0]), "{waits:?}");
    assert!(waits[6] >= Duration::from_secs(28) && waits[6] <= BACK_OFF_MAX + HEADROOM_HOLD, "{waits:?}");
    assert_eq!(run.until(2_500_000, &[Some(2)]).map(|wait| wait <= BACK_OFF_MAX + HEADROOM_HOLD), Some(true));
    for _ in 0..150 {
        run.step(2_500_000);
    }
    run.step(600_000);
    let healed = run.until(2_500_000, &[Some(2)]).expect("raised");
    assert!(healed < Duration::from_secs(3), "a raise that lasted clears the record: {healed:?}");
}

#[test]
fn a_new_speaker_takes_from_the_others() {
    let mut run =
        Run::new(1_300_000, vec![demand(1, Priority::Speaker, 360), demand(2, Priority::Other, 360)]);
    run.demands.push(demand(3, Priority::Other, 360));
    assert_eq!(choices(&run.step(1_300_000)), [Some(1), Some(1), Some(0)]);
    run.demands[0].priority = Priority::Other;
    run.demands[2].priority = Priority::Speaker;
    let allocation = run.step(1_300_000);
    assert_eq!(allocation.choices[2].1, Some(1), "{allocation:?}");
    assert!(cost(&run.demands, &allocation) <= 1_300_000);
}

#[test]
fn a_slot_that_was_starved_waits_for_head_room_and_a_new_one_does_not() {
    let mut run = Run::new(170_000, vec![demand(1, Priority::Pinned, 180), demand(2, Priority::Other, 180)]);
    assert_eq!(choices(&run.step(170_000)), [Some(0), None]);
    assert_eq!(choices(&run.step(310_000)), [Some(0), None]);
    run.demands[1].max_height = 0;
    run.step(310_000);
    run.demands[1].max_height = 180;
    assert_eq!(choices(&run.step(310_000)), [Some(0), Some(0)], "asked for anew");
}

/// A screen costs what is usual until its rate is known. Raises that failed before it came are no reason to
/// keep it waiting once it is known to be cheap.
#[test]
fn a_screen_does_not_wait_for_raises_that_failed_before() {
    const UNKNOWN: [LayerOffer; 1] = [offer(720, 0)];
    const MEASURED: [LayerOffer; 1] = [offer(720, 300_000)];
    let mut run = Run::new(600_000, vec![demand(1, Priority::Speaker, 720)]);
    for _ in 0..6 {
        run.until(2_500_000, &[Some(2)]).expect("raised");
        run.step(2_500_000);
        run.step(600_000);
    }
    run.demands.push(Demand { layers: &UNKNOWN, ..demand(2, Priority::Pinned, 720) });
    run.demands.push(demand(3, Priority::Pinned, 180));
    run.demands.swap(1, 2);
    assert_eq!(choices(&run.step(1_500_000))[2], None, "too much, as far as is known");
    run.demands[2].layers = &MEASURED;
    let mut waited = Duration::ZERO;
    while choices(&run.step(1_500_000))[2].is_none() {
        waited += Duration::from_millis(100);
        assert!(waited < BACK_OFF_FIRST + HEADROOM_HOLD, "{waited:?}");
    }
}

#[test]
fn usual_rates_rise_with_height() {
    assert_eq!((usual_bps(0), usual_bps(180), usual_bps(720)), (50_000, 150_000, 1_800_000));
    assert_eq!(usual_bps(450), 750_000);
    assert_eq!(usual_bps(10_000), 8_000_000);
    assert!((0..3_000).map(usual_bps).is_sorted());
    assert_eq!(LayerOffer { height: 720, bitrate_bps: 10_000, alive: true }.cost_bps(), 450_000);
}

fn any_demands() -> impl Strategy<Value = Vec<(u8, u32)>> {
    prop::collection::vec((0_u8..3, prop::sample::select(vec![0_u32, 90, 180, 360, 720, 1_080])), 1..8)
}

fn priority(class: u8) -> Priority {
    [Priority::Other, Priority::Speaker, Priority::Pinned][usize::from(class)]
}

proptest! {
    #[test]
    fn never_more_than_the_estimate_but_for_one_lowest_layer(
        wishes in any_demands(),
        estimates in prop::collection::vec((0_u64..6_000_000, 1_u64..3_000), 1..40),
        audio in 0_u64..200_000,
    ) {
        let demands: Vec<_> =
            (0..).zip(&wishes).map(|(slot, wish)| demand(slot, priority(wish.0), wish.1)).collect();
        let mut allocator = Allocator::new(300_000);
        let mut now = Instant::now();
        for (bps, ms) in estimates {
            now += Duration::from_millis(ms);
            allocator.handle_estimate(now, bps);
            let allocation = allocator.allocate(now, audio, &demands);
            let used = cost(&demands, &allocation);
            let alone = allocation.choices.iter().filter(|(_, choice)| choice.is_some()).count() == 1
                && used == CAMERA[0].bitrate_bps;
            prop_assert!(used + audio <= bps || used == 0 || alone, "{used} of {bps}: {allocation:?}");
            for (demand, (_, choice)) in demands.iter().zip(&allocation.choices) {
                prop_assert!(demand.max_height != 0 || choice.is_none());
            }
            prop_assert!(allocator.estimates.lows.len() <= 32);
        }
    }

    /// An estimate that wavers by a tenth about any level settles: hardly a change after half a minute.
    #[test]
    fn a_noisy_estimate_makes_no_layer_flap(
        wishes in any_demands(),
        level in 200_000_u64..6_000_000,
        noise in prop::collection::vec(-10_i64..=10, 31),
    ) {
        let demands: Vec<_> =
            (0..).zip(&wishes).map(|(slot, wish)| demand(slot, priority(wish.0), wish.1)).collect();
        let mut run = Run::new(level, demands);
        let mut last = Vec::new();
        let mut changes = 0;
        for step in 0..600 {
            let wavered = level.saturating_add_signed(level as i64 / 100 * noise[step % noise.len()]);
            let now = choices(&run.step(wavered));
            if step >= 300 && now != last {
                changes += 1;
            }
            last = now;
        }
        prop_assert!(changes <= 4, "{changes} changes in {:?}", run.now - run.begin);
    }
}
