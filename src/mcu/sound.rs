//! The sound half of the mixer.

use super::graph::GraphError;
use crate::core::mix::{MixPacket, Voice};

/// Mixes voices.
pub struct Sound;

impl Sound {
    /// Begins to mix; `emit` gets each encoded packet.
    ///
    /// # Errors
    /// [`GraphError`]: an encoder does not start.
    pub fn start(_emit: impl Fn(MixPacket) + Send + Sync + 'static) -> Result<Self, GraphError> {
        Ok(Self)
    }

    pub fn handle_packet(&self, _packet: MixPacket) {}

    pub fn set_voices(&self, _voices: &[Voice]) {}

    pub fn set_wanted(&self, _line: u8, _wanted: bool) {}

    /// Ticks of 20 ms since last asked.
    pub fn take_ticks(&self) -> u32 {
        0
    }
}
