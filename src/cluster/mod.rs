//! Many nodes as one: which node holds which room, behind one trait, in memory or in Redis.
//!
//! A lease says who holds a room until when, under which epoch; a new holder has a higher one. All changes
//! are made by comparing first, so that of two who want a room one gets it. Time is the registry's own:
//! clocks of nodes are not compared. What only delays or repeats requests can do no harm; what empties the
//! registry costs one lease's time, in which holders say again what they hold.
//!
//! No thread of media waits for any of this. [`Cluster`] is the way in for the control loop. By [`relay`] a
//! room that one node holds has viewers on others.

mod clock;
mod guarded;
mod handle;
mod incarnation;
mod keeper;
pub mod memory;
mod neighbours;
pub mod redis;
pub mod relay;
mod reunion;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::core::ids::{NodeId, RoomName};
use crate::core::placement::{NodeRecord, Renewal};

pub use crate::core::registry::{Bid, Claim, Known, Lease, Pulse};

pub use clock::boot_time;
pub use handle::{Cluster, Home, LeaseNotice, PlaceError, Placed, Won};
pub use incarnation::incarnation;

/// The registry cannot be asked now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("the registry of rooms cannot be reached: {0}")]
    Unreachable(String),
    /// What it holds is none of ours; an operator has to look.
    #[error("the registry of rooms answers what cannot be read: {0}")]
    Unreadable(String),
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

    /// Holds on to a room. `settings` replace those that are kept with it. The same incarnation's higher
    /// epoch is one of its own claims that came late, and no reason to let go.
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
