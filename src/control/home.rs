//! Where a room is or is to be: asked of the cluster, before the control loop hears of it.
//!
//! A room that is open here needs nobody's word. For any other the cluster says who has it, or gives it to
//! whoever suits best; only what this node won is opened here, under the epoch that it won it with.

use futures_util::StreamExt as _;

use super::placement::{Ask, unix_ms};
use super::{Control, NewRoom, no_room};
use crate::cluster::{PlaceError, Placed, Won};
use crate::core::ids::RoomName;
use crate::core::refusal::{Code, Refusal};
use crate::core::room_name;
use crate::media::shard::RoomCommand;

pub use crate::cluster::Home;

/// Rooms that are handed over at a time.
const HAND_OVERS_AT_ONCE: usize = 8;

/// What was asked for is not done here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    #[error(transparent)]
    Away(#[from] Refusal),
    /// Ask at the node with this URL.
    #[error("the room is at another node")]
    Elsewhere(String),
    /// The room is here, and another node serves who comes: join at the one with this URL.
    #[error("another node serves the room's people")]
    ToBranch(String),
    /// The room's own node alone can serve it, the one with this URL.
    #[error("the room's own node is to serve it")]
    ToHome(String),
}

impl Control {
    /// Where requests about a room belong.
    ///
    /// # Errors
    /// `unavailable`, while nobody can say.
    pub async fn home(&self, room: &RoomName) -> Result<Home, Refusal> {
        self.cluster.home(room).await.map_err(unplaced)
    }

    /// For one whom a branch here cannot serve.
    pub(super) async fn turned_home(&self, room: &RoomName) -> Turned {
        match self.home(room).await {
            Ok(Home::Elsewhere(url)) => Turned::ToHome(url),
            Ok(_) => unplaced(PlaceError::Waiting).into(),
            Err(refusal) => refusal.into(),
        }
    }

    /// Where clients reach the other nodes.
    pub fn other_nodes(&self) -> Vec<String> {
        self.cluster.other_urls()
    }

    /// This node's name in the cluster.
    pub fn node_id(&self) -> &str {
        self.cluster.id().as_str()
    }

    /// Makes sure that a room may be opened here; `None` if it is open already, or is not to be made. Hold
    /// [`Cluster::claiming`](crate::cluster::Cluster::claiming) from before this until it is open.
    pub(super) async fn win(
        &self,
        room: &RoomName,
        may_create: bool,
        anywhere: bool,
    ) -> Result<Option<Won>, Turned> {
        if self.cluster.epoch(room).is_some() || !may_create && self.cluster.is_alone() {
            return Ok(None);
        }
        let anywhere = anywhere
            && match self.home(room).await? {
                Home::Elsewhere(url) => return Err(Turned::Elsewhere(url)),
                Home::Nowhere { orphaned: false } if !may_create => return Err(no_room().into()),
                Home::Nowhere { orphaned: false } => true,
                // Its node is gone, and may not be known to be so: nobody is sent to a third one. Who was let
                // in once need not be able to make rooms to find it again.
                Home::Nowhere { orphaned: true } => !self.cluster.admits_rooms(),
                Home::Here => false,
            };
        // A log that cannot be read keeps nobody from opening a room; the time is above all it has.
        let floor = self.events.last_epoch(room.clone()).await.unwrap_or_else(|_| unix_ms());
        match self.cluster.place(room, floor, anywhere).await.map_err(unplaced)? {
            Placed::Here(won) => Ok(Some(won)),
            Placed::Elsewhere(url) => Err(Turned::Elsewhere(url)),
        }
    }

    /// Gives a room that is to be made a name, where it has none, and this node the right to open it.
    pub(super) async fn win_new(&self, new: &mut NewRoom, anywhere: bool) -> Result<Option<Won>, Turned> {
        if let Some(name) = &new.name {
            return self.win(name, true, anywhere).await;
        }
        if anywhere && !self.cluster.admits_rooms() {
            // Only to one that takes it: two that are full would send it to and fro.
            return Err(self
                .cluster
                .other_for_rooms()
                .map_or_else(|| unplaced(PlaceError::Full).into(), Turned::Elsewhere));
        }
        loop {
            let name = room_name::generate(&mut rand::rng());
            if self.cluster.epoch(&name).is_some() {
                continue;
            }
            match self.win(&name, true, false).await {
                // Somebody's, on another node.
                Err(Turned::Elsewhere(_)) => {}
                Ok(Some(won)) if won.settings.is_some() => self.cluster.give_up(&name, won.epoch, false),
                won => {
                    new.name = Some(name);
                    return won;
                }
            }
        }
    }

    /// Hands the rooms of a node that drains to others, as far as there are any. People in them are told once
    /// the other node holds the room.
    pub(super) async fn hand_over(&self) {
        if self.cluster.is_alone() {
            return;
        }
        self.cluster.drain();
        self.release_ledger();
        let names = self.ask(|reply| Ask::Names { reply }).await.unwrap_or_default();
        let hand_over = |room: RoomName| async move {
            if self.cluster.hand_over(&room).await {
                // Full: the room goes with the node, a little later.
                let _ = self.asks.send(Ask::InRoom { room, command: RoomCommand::Move });
            }
        };
        futures_util::stream::iter(names).for_each_concurrent(HAND_OVERS_AT_ONCE, hand_over).await;
    }
}

pub(super) fn unplaced(error: PlaceError) -> Refusal {
    tracing::debug!(%error, "a room has no place now");
    match error {
        PlaceError::Leases(_) => Refusal::new(
            Code::Unavailable,
            "new rooms cannot be placed now, and those of other nodes cannot be found: try again in a moment",
        ),
        PlaceError::Waiting => {
            Refusal::new(Code::Unavailable, "the room's node does not answer: try again in a moment")
        }
        PlaceError::Full => Refusal::new(Code::NodeFull, "no node takes new rooms now: try again later"),
    }
}
