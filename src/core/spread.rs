//! When a room spreads: which shard a new viewer is seated on, and which node serves it, or a member.

use super::placement::{JOINS_BELOW, NodeRecord, NodeState, ROOMS_BELOW};

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

/// From this score on a room's home has viewers served by other nodes of its region.
pub const SPREAD_FROM: f64 = 0.7;
/// A node that has a branch already goes on with it until the home is as far below that.
const HYSTERESIS: f64 = 0.1;

/// How somebody comes into a room that may spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comer {
    /// Receives, and is not seen.
    Viewer,
    /// Has a seat at the home, wherever it is connected.
    Member,
}

/// Whether this node serves whoever came to it, for a room whose home is `home`, by a branch. Else it sends
/// it there. A member is served where the home seats it.
///
/// Where it is of another region: whoever came to it is nearer to it than to the home, and the way between
/// the two is carried once for all. Where the home has much to do, and this node has not. `asked`: the home
/// itself has sent the viewer.
pub fn hosts_branch(
    comer: Comer,
    here: &NodeRecord,
    home: &NodeRecord,
    has_branch: bool,
    asked: bool,
) -> bool {
    if here.state != NodeState::Active || here.score >= JOINS_BELOW {
        return false;
    }
    if comer == Comer::Member && !home.seats_lodgers {
        return false;
    }
    if here.region != home.region || asked {
        return true;
    }
    let from = if has_branch { SPREAD_FROM - HYSTERESIS } else { SPREAD_FROM };
    home.score >= from && here.score < ROOMS_BELOW.min(home.score)
}

/// The node that a home with much to do sends a viewer or a member to: of its region, with room, and with
/// less to do; of those the one with least. `None`: it serves it itself.
pub fn node_for<'a>(comer: Comer, home: &NodeRecord, others: &'a [NodeRecord]) -> Option<&'a NodeRecord> {
    if home.score < SPREAD_FROM {
        return None;
    }
    let near = others.iter().filter(|node| node.region == home.region && node.id != home.id);
    let fit = near.filter(|node| node.relay.is_some() && node.takes_rooms() && node.score < home.score);
    // A node that seats lodgers knows how to have some, too.
    let fit = fit.filter(|node| comer == Comer::Viewer || node.seats_lodgers);
    fit.min_by(|a, b| a.score.total_cmp(&b.score))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::NodeId;

    fn node(id: &str, region: &str, score: f64) -> NodeRecord {
        NodeRecord {
            id: NodeId::parse(id).unwrap(),
            incarnation: 1,
            url: format!("http://{id}"),
            region: region.into(),
            state: NodeState::Active,
            score,
            rooms: 0,
            relay: Some(format!("{id}:7879")),
            seats_lodgers: true,
        }
    }

    #[test]
    fn a_viewer_of_another_region_is_served_where_it_came() {
        let home = node("home", "eu", 0.1);
        assert!(hosts_branch(Comer::Viewer, &node("a", "us", 0.5), &home, false, false));
        assert!(!hosts_branch(Comer::Viewer, &node("a", "eu", 0.0), &home, false, false));
        assert!(
            !hosts_branch(Comer::Viewer, &node("a", "us", JOINS_BELOW), &home, true, false),
            "it takes nobody more"
        );
        let draining = NodeRecord { state: NodeState::Draining, ..node("a", "us", 0.0) };
        assert!(!hosts_branch(Comer::Viewer, &draining, &home, false, true));
    }

    #[test]
    fn a_member_is_served_where_it_came_as_a_viewer_is_but_of_an_older_home() {
        let mut home = node("home", "eu", 0.75);
        let here = node("a", "us", 0.1);
        assert!(hosts_branch(Comer::Member, &here, &home, false, false));
        home.seats_lodgers = false;
        assert!(!hosts_branch(Comer::Member, &here, &home, true, true));
        assert!(hosts_branch(Comer::Viewer, &here, &home, false, false));
        let mut others = [node("b", "eu", 0.2), node("c", "eu", 0.3)];
        others[0].seats_lodgers = false;
        assert_eq!(node_for(Comer::Member, &home, &others).unwrap().id.as_str(), "c");
        assert_eq!(node_for(Comer::Viewer, &home, &others).unwrap().id.as_str(), "b");
    }

    #[test]
    fn a_home_with_much_to_do_is_helped_within_its_region() {
        let here = node("a", "eu", 0.3);
        assert!(hosts_branch(Comer::Viewer, &here, &node("home", "eu", 0.75), false, false));
        assert!(!hosts_branch(Comer::Viewer, &here, &node("home", "eu", 0.65), false, false));
        assert!(
            hosts_branch(Comer::Viewer, &here, &node("home", "eu", 0.65), true, false),
            "what is there is used"
        );
        assert!(!hosts_branch(Comer::Viewer, &node("a", "eu", 0.85), &node("home", "eu", 0.9), false, false));
        assert!(
            hosts_branch(Comer::Viewer, &here, &node("home", "eu", 0.1), false, true),
            "the home has asked for it"
        );
    }

    #[test]
    fn a_home_sends_viewers_to_who_has_least_to_do() {
        let mut others = [node("a", "eu", 0.5), node("b", "eu", 0.2), node("c", "us", 0.0)];
        assert_eq!(node_for(Comer::Viewer, &node("home", "eu", 0.8), &others).unwrap().id.as_str(), "b");
        assert_eq!(node_for(Comer::Viewer, &node("home", "eu", 0.6), &others), None);
        others[1].relay = None;
        assert_eq!(node_for(Comer::Viewer, &node("home", "eu", 0.8), &others).unwrap().id.as_str(), "a");
        assert_eq!(node_for(Comer::Viewer, &node("home", "eu", 0.8), &others[2..]), None);
    }

    /// Nobody is sent to and fro: who is sent to a node by the home is served there.
    #[test]
    fn whoever_is_sent_is_served() {
        for step in 0..120u32 {
            let home = node("home", "eu", f64::from(step) / 100.0);
            let others: Vec<_> =
                (0..12u32).map(|n| node(&format!("n{n}"), "eu", f64::from(n) / 10.0)).collect();
            if let Some(chosen) = node_for(Comer::Viewer, &home, &others) {
                assert!(hosts_branch(Comer::Viewer, chosen, &home, false, true));
            }
        }
    }

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
