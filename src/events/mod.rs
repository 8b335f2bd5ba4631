//! The append-only log of what happened, behind one trait.
//!
//! An event has an id; appending it twice changes nothing and answers as the first time did. What was
//! answered is durable. A batch is appended as a whole or not at all, in its order. Chat messages as they
//! stand are kept beside the events, by [`crate::core::chat::apply`], and change together with them.
//!
//! The log keeps what was said before an edit or a delete: it is the record for audits. Pages of messages do
//! not show it.

pub mod kafka;
pub mod memory;
pub mod sqlite;
pub mod writer;

use std::path::PathBuf;

use crate::core::chat::{HistoryRange, MessagePage, RoomHistory};
use crate::core::event::{Appended, Event, EventId};
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::protocol::ChatMessage;

/// No page of messages or events is longer, whatever was asked for.
pub const PAGE_MAX: u32 = 500;

/// Bytes that are kept in files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileUsage {
    pub room_bytes: u64,
    /// Of this identity in all rooms.
    pub identity_bytes: u64,
    pub node_bytes: u64,
}

/// An event with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Grows along the log; places of one room need not be next to each other.
    pub offset: u64,
    pub event: Event,
}

/// A log of events. Calls block: drive it from a thread of its own, see [`writer::EventWriter`].
pub trait EventLog: Send {
    /// Durable on return, with an answer for each event, in order.
    ///
    /// # Errors
    /// Nothing was appended. [`LogError::Rejected`] blames the events, all others the log.
    fn append(&mut self, batch: &[Event]) -> Result<Vec<Appended>, LogError>;

    /// Messages as they stand, oldest first, at most `limit` and [`PAGE_MAX`]; none is no error.
    ///
    /// # Errors
    /// The log cannot be read.
    fn messages(&mut self, room: &RoomName, range: HistoryRange, limit: u32)
    -> Result<MessagePage, LogError>;

    /// One message as it stands.
    ///
    /// # Errors
    /// The log cannot be read.
    fn message(&mut self, room: &RoomName, id: &MessageId) -> Result<Option<ChatMessage>, LogError>;

    /// What a room needs when it opens.
    ///
    /// # Errors
    /// The log cannot be read.
    fn history(&mut self, room: &RoomName) -> Result<RoomHistory, LogError>;

    /// The highest epoch under which the room was open; 0 for one that never was.
    ///
    /// # Errors
    /// The log cannot be read.
    fn last_epoch(&mut self, room: &RoomName) -> Result<u64, LogError>;

    /// Events after this place, as they were appended; 0 for the first. At most `limit` and [`PAGE_MAX`].
    ///
    /// # Errors
    /// The log cannot be read.
    fn events(&mut self, room: &RoomName, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError>;

    /// Facts about money in all rooms, after this place, as they were appended; 0 for the first. At most
    /// `limit` and [`PAGE_MAX`]. Appending a fact whose address, payment hash or outpoint is another
    /// invoice's is rejected, whoever made it.
    ///
    /// # Errors
    /// The log cannot be read.
    fn ledger(&mut self, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError>;

    /// The place of an event.
    ///
    /// # Errors
    /// The log cannot be read.
    fn place(&mut self, room: &RoomName, id: &EventId) -> Result<Option<u64>, LogError>;

    /// Messages that carry a file which is still kept, newest first, before a `seq`; at most `limit` and
    /// [`PAGE_MAX`].
    ///
    /// # Errors
    /// The log cannot be read.
    fn files(&mut self, room: &RoomName, before: u64, limit: u32) -> Result<MessagePage, LogError>;

    /// What is kept in files. The node's figure counts the same contents once.
    ///
    /// # Errors
    /// The log cannot be read.
    fn file_usage(&mut self, room: &RoomName, identity: &Identity) -> Result<FileUsage, LogError>;

    /// Files that came before this time (ms since the Unix epoch), oldest first.
    ///
    /// # Errors
    /// The log cannot be read.
    fn files_before(&mut self, at_ms: u64, limit: u32) -> Result<Vec<(RoomName, MessageId)>, LogError>;

    /// Contents, by their SHA-256, that had a file and have none now.
    ///
    /// # Errors
    /// The log cannot be read.
    fn unreferenced(&mut self, limit: u32) -> Result<Vec<String>, LogError>;

    /// Such contents were removed: forget them.
    ///
    /// # Errors
    /// The log cannot be written.
    fn forget_unreferenced(&mut self, sha256: &str) -> Result<(), LogError>;

    /// Writes something durably that is no event, to see whether it can.
    ///
    /// # Errors
    /// Appending would fail too.
    fn probe(&mut self) -> Result<(), LogError>;
}

/// Why the log cannot do its work, for the operator but for [`LogError::Rejected`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    #[error(
        "the directory for {path} cannot be used: {detail}; make it, or set node.data_dir to one that exists"
    )]
    Directory { path: PathBuf, detail: String },
    #[error("{path} is in use by another process; stop it, or give each node its own node.data_dir")]
    InUse { path: PathBuf },
    #[error(
        "{path} has version {found} of the event log, and this antiphon knows {known}; run a newer one, \
         or set node.data_dir to another directory"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{path} is a database of another program; set node.data_dir to another directory")]
    Foreign { path: PathBuf },
    #[error(
        "{path} is damaged: {detail}; restore it from a backup, or move it away to begin with an empty log"
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error("no space is left for {path}; free some, and the log goes on by itself")]
    Full { path: PathBuf },
    #[error("{path} may not be written: {detail}; give antiphon's user the right to write it")]
    Denied { path: PathBuf, detail: String },
    #[error("{path} cannot be used: {detail}; look after the disk")]
    Failed { path: PathBuf, detail: String },
    /// A bug in who made the events, such as a `seq` used twice.
    #[error("the log refuses these events: {0}")]
    Rejected(String),
    /// The room is another node's.
    #[error("another node has the room and writes its log")]
    Fenced,
    /// This node has begun with snapshots, and reads what is older.
    #[error("what is older is being read: ask again in a moment")]
    CatchingUp,
    /// What was appended is kept, and will be written.
    #[error("Kafka is away; what waits for it is kept, and written when it is back")]
    Away,
    /// By the writer, at once.
    #[error("the event log takes nothing now: too much waits to be written, or it is closed; try again")]
    Refused,
}
