//! MCU mode: a process of its own decodes, mixes and encodes; the node feeds it and takes the result.
//!
//! One process for each room that mixes, so that a codec's crash costs that room a second of mixed picture
//! and nobody else anything. RTP and [`wire`] messages alone cross a socket between the two.
//!
//! On the node's side [`crate::worker`] starts the process and carries what crosses the socket; [`mixer`] is
//! what runs in it.

mod capacity;
mod figures;
pub mod graph;
pub mod mixer;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use futures_util::future::BoxFuture;

use capacity::Capacity;
use figures::Account;

use crate::core::mix::{FromMixer, MixSettings, ToMixer};
use crate::worker::{Delivery, Queues, bridge};

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
        deliver: impl Fn(Delivery<FromMixer>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Option<Queues<ToMixer>> {
        let begin = ToMixer::Begin(settings);
        self.capacity.take().then(|| bridge::start(self.program.clone(), begin, Account::open, deliver))
    }
}

/// Asks a mixer that mixes nothing whether it could; in a process of its own, as the node itself has no use
/// for GStreamer. Gives the program back.
///
/// # Errors
/// What is missing, in words.
pub fn check(program: &Path) -> Result<PathBuf, String> {
    let output = Command::new(program).args(["mix", "--check"]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(program.to_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let reason = words.lines().find(|line| line.starts_with("mixing is not possible"));
    Err(reason.unwrap_or("a mixer cannot be run").to_owned())
}
