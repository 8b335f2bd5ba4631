//! Measures servers: clients with synthetic media, as a load tool (`antiphon bench`) and for tests.
//!
//! What it knows of a server is what goes over the wire. Clients are independent of the server's code, except
//! for viewers of the load tool, which receive by its ingress (`client/direct.rs`).

use clap::Subcommand;

pub mod bare;
mod burst;
pub mod client;
pub mod clip;
pub mod compare;
pub mod crowd;
pub mod engine;
pub mod forward;
pub mod join;
mod keys;
pub mod offer;
pub mod person;
mod phase;
pub mod plot;
pub mod process;
pub mod receive;
pub mod reception;
pub mod report;
pub mod source;
pub mod stamp;
pub mod summary;

pub use forward::BenchError;

/// What `antiphon bench` can measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Forwarding: CPU for each packet, loss, latency and join time, as one JSON object
    Forward(forward::ForwardArgs),
    /// The bare limit: rewrite, seal and send the same traffic and do nothing else, as one JSON object
    Bare(bare::BareArgs),
    /// Forwarded against mixed: the same room in both modes, as JSON and as a page with plots
    Compare(compare::CompareArgs),
    /// What each further viewer costs, of a mix and of what is forwarded, as one JSON object
    Audience(compare::audience::AudienceArgs),
    /// Medians, spreads and ratios of many runs, as JSON and as a page with plots
    Summary(summary::SummaryArgs),
}

/// Runs a measurement and prints its report as one JSON object.
///
/// # Errors
/// The run cannot be made, or nobody could connect; see [`BenchError`].
pub fn run(bench: &Bench) -> Result<(), BenchError> {
    match bench {
        Bench::Forward(args) => forward::run(args),
        Bench::Bare(args) => bare::run(args),
        Bench::Compare(args) => Ok(compare::run(args)?),
        Bench::Audience(args) => Ok(compare::audience::run(args)?),
        Bench::Summary(args) => summary::run(args),
    }
}
