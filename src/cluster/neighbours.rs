//! The nodes around this one, and which of them has a room.

use super::{Cluster, Known, LeaseError};
use crate::core::ids::{NodeId, RoomName};
use crate::core::placement::NodeRecord;

impl Cluster {
    /// What the registry says of a room.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn known(&self, room: &RoomName) -> Result<Known, LeaseError> {
        self.0.check_reachable()?;
        self.0.leases.look_up(room).await
    }

    /// The node that has a room, and the epoch under which, where it is another that is alive.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn home_node(&self, room: &RoomName) -> Result<Option<(NodeRecord, u64)>, LeaseError> {
        let Known::Held(owner) = self.known(room).await? else { return Ok(None) };
        let other = self.node(&owner.node).filter(|node| node.id != self.0.id);
        Ok(other.map(|node| (node, owner.epoch)))
    }

    /// A node that is alive, by what was last heard.
    pub fn node(&self, id: &NodeId) -> Option<NodeRecord> {
        self.0.state().nodes.iter().find(|node| node.id == *id).cloned()
    }

    /// What this node says of itself.
    pub fn record(&self) -> NodeRecord {
        self.0.record()
    }

    /// The other nodes that are alive, as they say of themselves.
    pub fn others(&self) -> Vec<NodeRecord> {
        let nodes = self.0.state().nodes.clone();
        nodes.into_iter().filter(|node| node.id != self.0.id).collect()
    }
}
