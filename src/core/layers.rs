//! Who gets which encoding: shares what the network carries to one subscriber among its video slots.
//!
//! Never more than the estimate, but for lowest layers of little cost, kept to the last: estimates that low
//! are more often wrong (a receiver short of processor time) than true. Going down is immediate;
//! going up needs head room that has lasted, and ever longer after attempts that failed, so that a noisy
//! estimate does not make layers flap (each change costs a key frame). Decides alike for alike input.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Head room, in percent of the cost, without which no layer is raised.
const HEADROOM_PERCENT: u64 = 12;
/// How long the head room must have lasted: a lower estimate within this time counts.
const HEADROOM_HOLD: Duration = Duration::from_millis(1_500);
/// Estimates closer together than this are kept as their minimum; bounds the memory of [`Estimates`].
const ESTIMATE_GRAIN: Duration = Duration::from_millis(50);
/// A raise that has to be taken back within this time has failed.
const RAISE_FAILED_WITHIN: Duration = Duration::from_secs(10);
/// No raise for so long after the first failure; doubles with each further one.
const BACK_OFF_FIRST: Duration = Duration::from_secs(2);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// Estimate down to which the most important slot keeps its lowest layer: that of the estimator, so that
/// something always flows from which it can rise again.
const KEEP_FLOOR_BPS: u64 = crate::core::bandwidth::FLOOR_BPS;
/// Lowest layers are kept up to this sum whatever the estimate: faces that move a little beat frozen ones.
const LOWEST_FLOOR_BPS: u64 = 200_000;

/// Which slots come first. Ordered: the greater, the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Other,
    Speaker,
    /// Chosen by the viewer, or a shared screen.
    Pinned,
}

/// One encoding that a track is offered in; for a scalable stream one spatial layer with all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerOffer {
    /// In pixels.
    pub height: u32,
    /// Measured and smoothed; where it is paused, as it was last measured; 0 where it never flowed.
    pub bitrate_bps: u64,
    /// False where it cannot be had: its publisher has stopped it by itself.
    pub alive: bool,
}

impl LayerOffer {
    /// What taking it is expected to cost. A quiet screen does not stay quiet: a measured rate counts no less
    /// than a quarter of the usual one.
    pub fn cost_bps(&self) -> u64 {
        let usual = usual_bps(self.height);
        if self.bitrate_bps == 0 { usual } else { self.bitrate_bps.max(usual / 4) }
    }
}

/// What a slot wants.
#[derive(Debug, Clone)]
pub struct Demand<'a, S> {
    pub slot: S,
    pub priority: Priority,
    /// The slot's height on the viewer's screen in pixels; 0 where it is not seen: nothing is sent.
    pub max_height: u32,
    /// What it gets now, for a slot that was not allocated before.
    pub current: Option<usize>,
    /// Lowest first.
    pub layers: &'a [LayerOffer],
}

/// What every slot gets, and what to tell the bandwidth estimation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation<S> {
    /// In the order of the demands: index into its layers, or `None` for a pause.
    pub choices: Vec<(S, Option<usize>)>,
    /// Rate at which the next raise would fit; 0 where none is due.
    pub next_bps: u64,
    /// Rate that would serve every wish.
    pub desired_bps: u64,
}

/// See the module. One for each subscriber.
#[derive(Debug)]
pub struct Allocator<S> {
    estimates: Estimates,
    /// What each slot got last; no more entries than there were demands.
    granted: BTreeMap<S, Grant>,
    raised_at: Option<Instant>,
    back_off: Duration,
    no_raise_before: Option<Instant>,
    /// Of what is pinned and gets nothing: it does not wait for ever longer.
    no_start_before: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    layer: Option<usize>,
    /// It wanted a layer, and there was no room for one.
    starved: bool,
}

impl<S: Ord + Copy> Allocator<S> {
    /// `initial_bps` holds until the first estimate; `u64::MAX` for a peer whose bandwidth cannot be
    /// estimated.
    pub fn new(initial_bps: u64) -> Self {
        Self {
            estimates: Estimates { latest_bps: initial_bps, lows: VecDeque::new() },
            granted: BTreeMap::new(),
            raised_at: None,
            back_off: Duration::ZERO,
            no_raise_before: None,
            no_start_before: None,
        }
    }

    /// What the network is believed to carry from now on, all media together.
    pub fn handle_estimate(&mut self, now: Instant, bps: u64) {
        self.estimates.push(now, bps);
    }

    /// The latest estimate, bits a second.
    pub fn estimate_bps(&self) -> u64 {
        self.estimates.latest_bps
    }

    /// Shares the estimate, less `audio_bps`, among the slots. To be called after an estimate, after a change
    /// of what is wished or offered, and about every half second, as head room counts only once it has
    /// lasted.
    pub fn allocate(&mut self, now: Instant, audio_bps: u64, demands: &[Demand<'_, S>]) -> Allocation<S> {
        let budget = self.estimates.latest_bps.saturating_sub(audio_bps);
        let mut slots: Vec<Slot> = demands.iter().map(|demand| self.slot(demand)).collect();
        self.note_overuse(now, budget, demands, &slots);
        let may_raise = self.no_raise_before.is_none_or(|until| now >= until);
        let lasting = self.estimates.lowest_bps(now).saturating_sub(audio_bps);
        let lasting = less_headroom(lasting);
        let may_start = self.no_start_before.is_none_or(|until| now >= until);
        let budgets = Budgets {
            keep: budget,
            raise: if may_raise { lasting } else { 0 },
            start: if may_start { lasting } else { 0 },
        };

        let mut order: Vec<usize> = (0..demands.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(demands[index].priority));
        let used = share(demands, &mut slots, &order, budgets, self.estimates.latest_bps);
        self.remember(now, demands, &slots);

        let next_step = next_step_bps(demands, &slots, &order);
        let wanted: u64 = demands.iter().zip(&slots).filter_map(|(demand, slot)| slot.top_cost(demand)).sum();
        let starving = demands.iter().zip(&slots).any(|(demand, slot)| slot.waits_pinned(demand));
        let next_bps = match next_step {
            Some(step) if may_raise || may_start && starving => {
                with_headroom(used.saturating_add(step)).saturating_add(audio_bps)
            }
            _ => 0,
        };
        Allocation {
            choices: demands.iter().zip(&slots).map(|(demand, slot)| (demand.slot, slot.chosen)).collect(),
            next_bps,
            // A layer may cost more than its better, when that one is quiet.
            desired_bps: with_headroom(wanted).saturating_add(audio_bps).max(next_bps),
        }
    }

    fn slot(&self, demand: &Demand<'_, S>) -> Slot {
        let granted = self.granted.get(&demand.slot).copied();
        let current = granted.map_or(demand.current, |granted| granted.layer);
        let fresh = current.is_none() && !granted.is_some_and(|granted| granted.starved);
        Slot { top: top_layer(demand), current, fresh, chosen: None }
    }

    /// Sees whether what was granted still fits; if not soon after a raise, raises wait longer.
    fn note_overuse(&mut self, now: Instant, budget: u64, demands: &[Demand<'_, S>], slots: &[Slot]) {
        let held = |(demand, slot): (&Demand<'_, S>, &Slot)| {
            let layer = slot.current?.min(slot.top?);
            demand.layers.get(layer).map(LayerOffer::cost_bps)
        };
        let cost: u64 = demands.iter().zip(slots).filter_map(held).sum();
        let Some(raised_at) = self.raised_at else { return };
        if now.saturating_duration_since(raised_at) > RAISE_FAILED_WITHIN {
            self.raised_at = None;
            self.back_off = Duration::ZERO;
        } else if cost > budget {
            self.raised_at = None;
            self.back_off = (self.back_off * 2).clamp(BACK_OFF_FIRST, BACK_OFF_MAX);
            self.no_raise_before = Some(now + self.back_off);
            self.no_start_before = Some(now + BACK_OFF_FIRST);
        }
    }

    fn remember(&mut self, now: Instant, demands: &[Demand<'_, S>], slots: &[Slot]) {
        let raised = slots.iter().any(|slot| slot.chosen > slot.current && !slot.fresh);
        if raised {
            self.raised_at = Some(now);
        }
        let grant =
            |slot: &Slot| Grant { layer: slot.chosen, starved: slot.top.is_some() && slot.chosen.is_none() };
        self.granted = demands.iter().zip(slots).map(|(demand, slot)| (demand.slot, grant(slot))).collect();
    }
}

/// A demand while it is being served.
struct Slot {
    /// The best layer it has use for; `None` where it wants nothing or nothing is to be had.
    top: Option<usize>,
    current: Option<usize>,
    /// Gets something for the first time, or again after it wanted nothing.
    fresh: bool,
    chosen: Option<usize>,
}

impl Slot {
    /// The next layer up that can be had, and what it costs more than the one chosen.
    fn next<S>(&self, demand: &Demand<'_, S>) -> Option<(usize, u64)> {
        let from = self.chosen.map_or(0, |chosen| chosen + 1);
        let next =
            (from..=self.top?).find(|&layer| demand.layers.get(layer).is_some_and(|offer| offer.alive))?;
        let cost = |layer: usize| demand.layers.get(layer).map_or(0, LayerOffer::cost_bps);
        Some((next, cost(next).saturating_sub(self.chosen.map_or(0, cost))))
    }

    /// Chosen by the viewer, or a screen, and gets nothing.
    fn waits_pinned<S>(&self, demand: &Demand<'_, S>) -> bool {
        demand.priority == Priority::Pinned && self.top.is_some() && self.chosen.is_none()
    }

    fn top_cost<S>(&self, demand: &Demand<'_, S>) -> Option<u64> {
        demand.layers.get(self.top?).map(LayerOffer::cost_bps)
    }
}

#[derive(Clone, Copy)]
struct Budgets {
    /// For what slots have already.
    keep: u64,
    /// For more than that.
    raise: u64,
    /// For the first layer of what is pinned.
    start: u64,
}

/// Lowest layers first, then upgrades in rounds, the important slots before the others. Gives the sum of
/// costs.
fn share<S>(
    demands: &[Demand<'_, S>],
    slots: &mut [Slot],
    order: &[usize],
    budgets: Budgets,
    estimate: u64,
) -> u64 {
    let mut used = 0;
    let mut step = |slot: &mut Slot, demand: &Demand<'_, S>, is_first: bool| {
        let Some((layer, cost)) = slot.next(demand) else { return false };
        let has_it = slot.current.is_some_and(|current| layer <= current);
        let is_start = slot.fresh && slot.chosen.is_none();
        let more = if slot.waits_pinned(demand) { budgets.start } else { budgets.raise };
        let budget = if has_it || is_start { budgets.keep } else { more.min(budgets.keep) };
        let cheap = used + cost <= LOWEST_FLOOR_BPS;
        let kept_anyway = slot.chosen.is_none() && estimate >= KEEP_FLOOR_BPS && (is_first || cheap);
        let fits = used + cost <= budget || kept_anyway;
        if fits {
            used += cost;
            slot.chosen = Some(layer);
        }
        fits
    };
    let first = order.iter().copied().find(|&index| slots[index].top.is_some());
    for &index in order {
        step(&mut slots[index], &demands[index], Some(index) == first);
    }
    for class in order.chunk_by(|&a, &b| demands[a].priority == demands[b].priority) {
        loop {
            let mut raised = false;
            for &index in class {
                raised |= step(&mut slots[index], &demands[index], false);
            }
            if !raised {
                break;
            }
        }
    }
    used
}

/// What the first slot in line for more would cost more.
fn next_step_bps<S>(demands: &[Demand<'_, S>], slots: &[Slot], order: &[usize]) -> Option<u64> {
    let starting = order.iter().filter(|&&index| slots[index].chosen.is_none());
    let rising = order.iter().filter(|&&index| slots[index].chosen.is_some());
    starting.chain(rising).find_map(|&index| slots[index].next(&demands[index])).map(|(_, cost)| cost)
}

/// The smallest layer that is as high as the slot, or the highest there is.
fn top_layer<S>(demand: &Demand<'_, S>) -> Option<usize> {
    if demand.max_height == 0 {
        return None;
    }
    let alive = || demand.layers.iter().enumerate().filter(|(_, offer)| offer.alive);
    alive()
        .find(|(_, offer)| offer.height >= demand.max_height)
        .or_else(|| alive().next_back())
        .map(|(index, _)| index)
}

fn less_headroom(bps: u64) -> u64 {
    (u128::from(bps) * 100 / u128::from(100 + HEADROOM_PERCENT)) as u64
}

fn with_headroom(bps: u64) -> u64 {
    bps.saturating_mul(100 + HEADROOM_PERCENT) / 100
}

/// Usual rate of camera video by height, where it was not measured yet; straight lines between these.
fn usual_bps(height: u32) -> u64 {
    const BY_HEIGHT: [(u32, u64); 8] = [
        (0, 50_000),
        (180, 150_000),
        (270, 300_000),
        (360, 500_000),
        (540, 1_000_000),
        (720, 1_800_000),
        (1_080, 3_000_000),
        (2_160, 8_000_000),
    ];
    let between = BY_HEIGHT.windows(2).find_map(|pair| match pair {
        &[(low, low_bps), (high, high_bps)] if height <= high => {
            let share = u64::from(height - low) * (high_bps - low_bps) / u64::from(high - low);
            Some(low_bps + share)
        }
        _ => None,
    });
    between.unwrap_or(8_000_000)
}

/// The latest estimate, and the lowest of late.
#[derive(Debug)]
struct Estimates {
    latest_bps: u64,
    /// Rising in time and in rate: an entry is dropped once a later one is lower. Spaced by the grain, so
    /// there are no more than fit into the hold time.
    lows: VecDeque<(Instant, u64)>,
}

impl Estimates {
    fn push(&mut self, now: Instant, bps: u64) {
        // What held until now counts as of now.
        let former = self.latest_bps;
        self.note(now, former);
        self.note(now, bps);
        self.latest_bps = bps;
    }

    fn note(&mut self, now: Instant, bps: u64) {
        while self.lows.back().is_some_and(|&(_, low)| low >= bps) {
            self.lows.pop_back();
        }
        let too_close = |&(at, _): &(Instant, u64)| now.saturating_duration_since(at) < ESTIMATE_GRAIN;
        if !self.lows.back().is_some_and(too_close) {
            self.lows.push_back((now, bps));
        }
        self.expire(now);
    }

    fn expire(&mut self, now: Instant) {
        while self.lows.front().is_some_and(|&(at, _)| now.saturating_duration_since(at) > HEADROOM_HOLD) {
            self.lows.pop_front();
        }
    }

    fn lowest_bps(&mut self, now: Instant) -> u64 {
        self.expire(now);
        self.lows.front().map_or(self.latest_bps, |&(_, low)| low.min(self.latest_bps))
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
