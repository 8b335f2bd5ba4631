//! When a room spreads: which shard a new viewer is seated on.

/// What a viewer is taken to cost, as a share of a core, until the shard's own figures show it.
const VIEWER_COST: f64 = 0.002;

/// What is known of a shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShardLoad {
    /// Share of the last second that it was at work, 0–1.
    pub busy: f64,
    /// Viewers that it was given since that was measured.
    pub seated_since: u32,
    /// It is the room's home, or has a branch of it.
    pub has_room: bool,
}

impl ShardLoad {
    fn expected(&self) -> f64 {
        self.busy + f64::from(self.seated_since) * VIEWER_COST
    }
}

/// The shard for a new viewer of a room that lives on shard `home`, where shards are full at `full`, 0–1.
///
/// At home while that has room, as each branch costs one copy of the room's media; then in a branch that has;
/// then wherever there is most.
pub fn shard_for_viewer(home: usize, full: f64, loads: &[ShardLoad]) -> usize {
    if loads.get(home).is_none_or(|load| load.expected() < full) {
        return home;
    }
    let least = |has_room: bool| {
        let candidates = loads.iter().enumerate().filter(move |(_, load)| load.has_room || !has_room);
        candidates.min_by(|(_, a), (_, b)| a.expected().total_cmp(&b.expected()))
    };
    match least(true) {
        Some((shard, load)) if load.expected() < full => shard,
        _ => least(false).map_or(home, |(shard, _)| shard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: f64, seated_since: u32, has_room: bool) -> ShardLoad {
        ShardLoad { busy, seated_since, has_room }
    }

    #[test]
    fn viewers_stay_at_home_while_it_has_room() {
        assert_eq!(shard_for_viewer(1, 0.7, &[load(0.0, 0, false), load(0.6, 10, true)]), 1);
        assert_eq!(shard_for_viewer(1, 0.7, &[load(0.0, 0, false), load(0.6, 60, true)]), 0);
    }

    #[test]
    fn a_branch_that_has_room_is_filled_before_another_is_made() {
        let loads = [load(0.8, 0, true), load(0.1, 0, false), load(0.5, 0, true)];
        assert_eq!(shard_for_viewer(0, 0.7, &loads), 2);
        let loads = [load(0.8, 0, true), load(0.1, 0, false), load(0.75, 0, true)];
        assert_eq!(shard_for_viewer(0, 0.7, &loads), 1);
    }

    #[test]
    fn a_burst_spreads_evenly_before_any_figure_shows_it() {
        let mut loads = [load(0.0, 0, true), load(0.0, 0, false), load(0.0, 0, false)];
        for _ in 0..3_000 {
            let shard = shard_for_viewer(0, 0.7, &loads);
            loads[shard].seated_since += 1;
            loads[shard].has_room = true;
        }
        assert!(loads.iter().all(|load| (990..=1_010).contains(&load.seated_since)), "{loads:?}");
    }

    #[test]
    fn one_shard_takes_all() {
        assert_eq!(shard_for_viewer(0, 0.7, &[load(1.0, 500, true)]), 0);
    }
}
