//! MCU mode: a process of its own decodes, mixes and encodes; the node feeds it and takes the result.
//!
//! One process for each room that mixes, so that a codec's crash costs that room a second of mixed picture
//! and nobody else anything. RTP and [`wire`] messages alone cross a socket between the two.

pub mod graph;
pub mod wire;
