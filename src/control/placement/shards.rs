//! Which shard suits: for a room that opens, for a viewer who comes.

use super::{OpenRoom, Placement};
use crate::core::ids::ShardId;
use crate::core::spread::{ShardLoad, shard_for_viewer};

impl Placement {
    pub(super) fn shard_for_viewer(&self, open: &OpenRoom) -> ShardId {
        self.shard_by_load(open.home, |shard| open.home == shard || open.branches.contains(&shard))
    }

    /// The shard for a viewer of a room that is at `home`, and on those that it `is_on`.
    pub(in crate::control) fn shard_by_load(
        &self,
        home: ShardId,
        is_on: impl Fn(ShardId) -> bool,
    ) -> ShardId {
        let loads: Vec<ShardLoad> = (0u8..)
            .zip(self.loads.iter().zip(&self.seated_since))
            .map(|(shard, (load, &seated_since))| ShardLoad {
                busy: load.busy,
                seated_since,
                has_room: is_on(ShardId(shard)),
            })
            .collect();
        let home = usize::from(home.0);
        ShardId(shard_for_viewer(home, self.config.media.spread_at, &loads) as u8)
    }

    /// By how busy each was in the last second, then by rooms: many may come within a second.
    pub(in crate::control) fn least_busy(&self) -> ShardId {
        let busy = |shard: &usize| {
            let load = self.loads[*shard].busy + f64::from(self.rooms_on[*shard]) * 0.01;
            (load * 1_000.0) as u64
        };
        let shard = (0..self.shards.len()).min_by_key(busy).unwrap_or(0);
        ShardId(shard as u8)
    }
}
