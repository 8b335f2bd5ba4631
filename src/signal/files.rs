//! Files of a room over HTTP: uploads by tus 1.0.0 (tus.io/protocols/resumable-upload), lists, downloads.
//!
//! An upload and the file that it becomes have one address. A request with `Tus-Resumable` speaks of the
//! upload, one without of the file.

mod access;
mod download;
mod link;
mod list;
mod tus;

pub use download::{__path_contents, __path_thumbnail, contents, thumbnail};
pub use link::{__path_link, Asker, Link, Links, Shown, Signature, link, path};
pub use list::{__path_list, list};
pub use tus::{
    __path_cancel, __path_create, __path_receive, TUS_HEADERS, cancel, create, overridden, receive, speak,
};
