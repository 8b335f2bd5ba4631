//! Decides. No socket, clock, task, lock or async in here; time arrives as an argument, randomness as a seed.
//!
//! Every part is driven the same way: `handle_*(now, …)`, then `poll_output` until it is empty. Ordered maps
//! only, so that a run repeats from its seed. Input from the network never panics.

pub mod audit;
pub mod bandwidth;
pub mod breaker;
pub mod captured;
pub mod chat;
pub mod depacketize;
pub mod event;
pub mod feed;
pub mod fence;
pub mod files;
pub mod flv;
pub mod format;
pub mod forward;
pub mod ids;
pub mod layers;
pub mod ledger;
pub mod mix;
pub mod mode;
pub mod packetize;
pub mod participant;
pub mod payload;
pub mod placement;
pub mod projection;
pub mod protocol;
pub mod rate;
pub mod reception;
pub mod recording;
pub mod refusal;
pub mod registry;
pub mod relay;
pub mod replay;
pub mod room;
pub mod room_name;
pub mod rtcp;
pub mod rtmp;
pub mod speaker;
pub mod spread;
pub mod stats;
pub mod stream;
pub mod track;

#[cfg(test)]
mod protocol_export;
