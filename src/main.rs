//! The `antiphon` binary: everything is in the library.

fn main() {}
