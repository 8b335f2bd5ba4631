//! Measures servers: clients with synthetic media, as a load tool (`antiphon bench`) and for tests.
//!
//! Independent of the server's code: what it knows of a server is what goes over the wire.

use std::process::ExitCode;

use clap::Subcommand;

pub mod client;
pub mod engine;
pub mod forward;
pub mod join;
pub mod offer;
pub mod process;
pub mod reception;
pub mod report;
pub mod source;
pub mod stamp;

pub use forward::BenchError;

/// What `antiphon bench` can measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Forwarding: CPU for each packet, loss, latency and join time, as one JSON object
    Forward(forward::ForwardArgs),
}

/// Runs a measurement; fails if nobody could connect.
///
/// # Errors
/// The run cannot be made; see [`BenchError`].
pub fn run(bench: &Bench) -> Result<ExitCode, BenchError> {
    match bench {
        Bench::Forward(args) => forward::run(args),
    }
}
