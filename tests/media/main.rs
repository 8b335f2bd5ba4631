//! Real media engines over an emulated bad network, in virtual time.

mod link;
mod pair;
mod world;
