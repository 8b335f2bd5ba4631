//! Many nodes as one: which node holds which room, behind one trait, in memory or in Redis.
//!
//! A lease says who holds a room until when, under which epoch; a new holder has a higher one. All changes are
//! made by comparing first, so that of two who want a room one gets it. Time is the registry's own: clocks of
//! nodes are not compared. What only delays or repeats requests can do no harm; what empties the registry
//! costs one lease's time, in which holders say again what they hold.
//!
//! No thread of media waits for any of this. [`Cluster`] is the way in for the control loop.

mod clock;
mod handle;
mod keeper;
pub mod memory;
pub mod redis;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::core::ids::{NodeId, RoomName};
use crate::core::placement::{NodeRecord, Owner, Renewal};

pub use clock::boot_time;
pub use handle::{Cluster, Home, LeaseNotice, PlaceError, Placed, Won};

/// The registry cannot be asked now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("the registry of rooms cannot be reached: {0}")]
    Unreachable(String),
    /// What it holds is none of ours; an operator has to look.
    #[error("the registry of rooms answers what cannot be read: {0}")]
    Unreadable(String),
}

/// A wish to hold a room.
#[derive(Debug, Clone)]
pub struct Bid {
    pub room: RoomName,
    /// Who is to hold it.
    pub node: NodeId,
    pub incarnation: u64,
    /// The highest epoch that the event log knows of this room; the new one is above it.
    pub floor: u64,
    /// Somebody else asks for the node, and does not know what it holds by now.
    pub on_behalf: bool,
    /// It may be held by a node whose word the registry lost: while that may be said again, wait.
    pub may_be_held: bool,
}

/// The answer to a [`Bid`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    Won {
        epoch: u64,
        /// The room's settings, from a holder that did not end it.
        settings: Option<String>,
    },
    Held(Owner),
    /// The registry was emptied lately; ask again after this time.
    Settling(Duration),
}

/// What is known of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Never held, or ended by its holder.
    Free,
    /// Its holder's lease has run out.
    Orphaned,
    Held(Owner),
}

/// A lease, as its holder names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub room: RoomName,
    pub node: NodeId,
    pub incarnation: u64,
    pub epoch: u64,
}

/// The answer to a node's sign of life.
#[derive(Debug, Clone, PartialEq)]
pub enum Pulse {
    /// All nodes that are alive.
    Nodes(Vec<NodeRecord>),
    /// A later start of the same node has taken this one's place.
    Superseded,
}

/// An answer that is on its way.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, LeaseError>>;

/// The registry of rooms and nodes. Every call ends within a second or so, whatever became of the registry.
/// Calls may be given up, repeated and made at the same time.
pub trait Leases: Send + Sync {
    /// Says that a node is alive, and asks who else is.
    ///
    /// # Errors
    /// [`LeaseError`], as of all calls.
    fn heartbeat<'a>(&'a self, node: &'a NodeRecord) -> Answer<'a, Pulse>;

    /// Signs a node off.
    ///
    /// # Errors
    /// [`LeaseError`].
    fn sign_off<'a>(&'a self, node: &'a NodeId, incarnation: u64) -> Answer<'a, ()>;

    /// # Errors
    /// [`LeaseError`].
    fn look_up<'a>(&'a self, room: &'a RoomName) -> Answer<'a, Known>;

    /// Takes a room that nobody holds. The holder itself may claim it anew, as it does after a restart and
    /// where it does not know whether an earlier claim was heard.
    ///
    /// # Errors
    /// [`LeaseError`]; it may have been won all the same.
    fn claim<'a>(&'a self, bid: &'a Bid) -> Answer<'a, Claim>;

    /// Holds on to a room. `settings` replace those that are kept with it. The same incarnation's higher epoch
    /// is one of its own claims that came late, and no reason to let go.
    ///
    /// # Errors
    /// [`LeaseError`].
    fn renew<'a>(&'a self, lease: &'a Lease, settings: &'a str) -> Answer<'a, Renewal>;

    /// Gives a room up. One that has `ended` leaves nothing behind but its epoch; else whoever claims it next
    /// gets its settings. False if it was not held any more.
    ///
    /// # Errors
    /// [`LeaseError`].
    fn release<'a>(&'a self, lease: &'a Lease, ended: bool) -> Answer<'a, bool>;

    /// Gives a room to another node, under a new epoch. `None` if it was not held any more.
    ///
    /// # Errors
    /// [`LeaseError`].
    fn hand_over<'a>(&'a self, lease: &'a Lease, to: &'a NodeId, incarnation: u64)
    -> Answer<'a, Option<u64>>;
}

/// A registry that all parts of a node share.
pub type SharedLeases = Arc<dyn Leases>;
