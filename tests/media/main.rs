//! Real media engines over an emulated bad network, in virtual time.

mod far;
mod forwarding;
mod joining;
mod lifecycle;
mod link;
mod node;
mod pair;
mod relays;
mod world;
