//! MCU mode: a process of its own decodes, mixes and encodes; the node feeds it and takes the result.
//!
//! One process for each room that mixes, so that a codec's crash costs that room a second of mixed picture
//! and nobody else anything. RTP and [`wire`] messages alone cross a socket between the two.
//!
//! On the node's side [`bridge`] starts the process and carries what crosses the socket; [`mixer`] is what
//! runs in it.

pub mod bridge;
mod capacity;
mod figures;
pub mod graph;
pub mod mixer;
pub mod process;
pub mod wire;

use std::path::PathBuf;

use futures_util::future::BoxFuture;

pub use bridge::{Delivery, MixerQueues};
use capacity::Capacity;

use crate::core::mix::MixSettings;

/// Starts mixers, as many as the node can carry.
#[derive(Debug)]
pub struct Mixers {
    program: PathBuf,
    capacity: Capacity,
}

impl Mixers {
    /// `program` is this very binary; each mixer takes `cores_needed`.
    pub fn new(program: PathBuf, cores_needed: f64) -> Self {
        Self { program, capacity: Capacity::watch(cores_needed) }
    }

    /// `None` where the node has no room for one more.
    pub fn start(
        &self,
        settings: MixSettings,
        deliver: impl Fn(Delivery) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Option<MixerQueues> {
        self.capacity.take().then(|| bridge::start(self.program.clone(), settings, deliver))
    }
}
