//! Processes that each do one kind of work for one room: a mixer, a recorder. Whatever the network brings is
//! read and decoded there, so that a crash costs one room that work and nobody else anything.
//!
//! [`bridge`] is the node's end and [`process`] the start of either; [`wire`] is what crosses the socket
//! between them. What a worker is told and tells is its own: see [`bridge::Work`].

pub mod bridge;
pub mod process;
mod resident;
pub mod wire;

pub use bridge::{Delivery, Queues, Work};
pub use resident::Resident;
