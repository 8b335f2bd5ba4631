//! Antiphon, a media server: rooms that forward video (SFU), with chat over data channels.
//!
//! Imports point one way: `main → cli → node → shells → core`. Shells (`billing`, `control`, `signal`,
//! `media`, `mcu`, `record`, `stream`, `feed`, `events`, `files`, `cluster`) meet only through mailboxes;
//! `control`, which joins them, calls `events` and `cluster`, starts mixers and recorders and speaks
//! `media`'s commands. `signal` hands bytes to `files`, which says through `control` what came, takes those
//! of `record` and `stream`, has `feed` play what `files` keeps, and asks `billing` who has paid. `config`,
//! `telemetry`, `mailbox`, `worker` and `token` are leaves. `tests/tidy.rs` holds this to be so.
#![forbid(unsafe_code)]
#![warn(clippy::dbg_macro, clippy::todo, clippy::unimplemented, clippy::unwrap_used)]

pub mod bench;
pub mod billing;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod core;
pub mod events;
pub mod feed;
pub mod files;
pub mod mailbox;
pub mod mcu;
pub mod media;
pub mod node;
pub mod record;
pub mod signal;
pub mod stream;
pub mod telemetry;
pub mod token;
pub mod worker;
