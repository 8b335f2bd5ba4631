//! Wires the shells together and drains them.

use crate::config::Config;

/// Runs the node until it is told to stop.
///
/// # Errors
/// Whatever keeps it from serving.
pub fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("the node is not wired yet")
}
