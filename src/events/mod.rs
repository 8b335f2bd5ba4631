//! The append-only log of what happened, behind one trait.
//!
//! An event has an id; appending it twice changes nothing and answers as the first time did. What was
//! answered is durable.
