//! Measures servers: clients with synthetic media, as a load tool (`antiphon bench`) and for tests.
//!
//! Independent of the server's code: what it knows of a server is what goes over the wire.

pub mod client;
pub mod reception;
pub mod source;
pub mod stamp;
