//! The configuration of recordings: whether rooms may be recorded, how much of it is kept, and for how long.

use serde::{Deserialize, Serialize};

/// Recordings are made in `node.data_dir`, under `recordings`, and move to the bucket of `files.s3`, if
/// there is one, once they are finished. Sizes in bytes; 0 is no bound.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recordings {
    /// Off, nothing new is recorded; what is there can be fetched.
    pub enabled: bool,
    /// With less free space on its disk no recording begins, and those that run end.
    pub disk_free_min_bytes: u64,
    /// One recording.
    pub recording_bytes_max: u64,
    /// All recordings of one room: with more none begins.
    pub room_bytes_max: u64,
    /// All recordings on the node's disk: with more none begins.
    pub node_bytes_max: u64,
    /// Days after which a recording is removed; 0 keeps all until they are deleted.
    pub retention_days: u64,
    /// People are asked before they are recorded, in rooms of which nothing else was said.
    pub ask_consent: bool,
}

impl Default for Recordings {
    fn default() -> Self {
        Self {
            enabled: true,
            disk_free_min_bytes: 1 << 30,
            recording_bytes_max: 0,
            room_bytes_max: 100 << 30,
            node_bytes_max: 500 << 30,
            retention_days: 90,
            ask_consent: false,
        }
    }
}
