//! Loop two, one for each core: moves media. A shard owns its sockets, its peers and its rooms; nothing of it
//! is shared, and everything that reaches it from another thread comes as a value through a bounded queue.

mod batch;
mod channel;
mod demux;
mod descriptor;
mod egress;
mod far;
pub mod ingress;
pub mod negotiate;
mod outbox;
mod pace;
mod peer;
pub mod relay;
mod routes;
pub mod shard;
mod siblings;
mod socket;
pub mod srtp;
mod steering;
pub mod tcp;
mod thread;
mod wheel;
mod wire;

pub use demux::{PeerSerial, credentials};
pub use siblings::Siblings;
pub use socket::{Datagram, bind};
pub use thread::{Inbox, ShardHandle, spawn};
