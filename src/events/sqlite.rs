//! The log in one SQLite file: the embedded default.
//!
//! WAL with `synchronous=FULL`, so that what was answered outlives a kill and a power loss: some 5 ms a
//! commit on an SSD where `NORMAL` takes 0.5, won back by the writer, which commits together what waits
//! together. `events` is the truth and only grows; `messages` holds the chat as it stands, changed in the
//! same transaction. One process at a time has the log, held by a lock file beside it that the system
//! releases with the process; readers such as a backup may open the database itself.

mod files;
mod ledger;
mod shared;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior, params};

pub use shared::{Applied, Base, Queued};

use super::{EventLog, FileUsage, LogError, PAGE_MAX, Recorded};
use crate::core::chat::{HistoryRange, MessagePage, RoomHistory, WINDOW, apply};
use crate::core::event::{Appended, Event, EventBody, EventId};
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::protocol::ChatMessage;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "events.sqlite3";

/// `antp` in ASCII: tells our database from another program's.
const APPLICATION_ID: i64 = 0x616e_7470;

/// Each step takes the database from the version that is its index to the next.
const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE events (
        offset INTEGER PRIMARY KEY,
        room TEXT NOT NULL,
        id TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (room, id)
    ) STRICT;
    CREATE INDEX events_by_room ON events (room, offset);
    CREATE TABLE messages (
        room TEXT NOT NULL,
        seq INTEGER NOT NULL,
        id TEXT NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (room, seq),
        UNIQUE (room, id)
    ) STRICT;
",
    files::TABLES,
    shared::TABLES,
    ledger::TABLES,
];

const VERSION: i64 = MIGRATIONS.len() as i64;

/// How long a commit waits for a program that has the database locked, such as a backup.
const BUSY_WAIT: Duration = Duration::from_millis(500);

/// An [`EventLog`] in a file.
#[derive(Debug)]
pub struct SqliteLog {
    connection: Connection,
    path: PathBuf,
    /// Held for as long as the log is open.
    _lock: File,
}

impl SqliteLog {
    /// Opens the log at `path`, making it, and its directory if only that is missing.
    ///
    /// # Errors
    /// All of [`LogError`] but `Rejected` and `Refused`, each saying what to do.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        make_directory(path)?;
        let lock = lock(path)?;
        let failed = |error| explain(path, &error);
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY_WAIT).map_err(failed)?;
        migrate(path, &mut connection)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        Ok(Self { connection, path: path.to_owned(), _lock: lock })
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, LogError> {
        read(&self.connection).map_err(|failure| failure.explain(&self.path))
    }
}

/// What goes wrong below: SQLite, or JSON that is not ours.
#[derive(Debug)]
enum Failure {
    Sqlite(rusqlite::Error),
    Json(serde_json::Error),
    Name,
    /// A payment, address or hash that is another invoice's.
    Taken,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl Failure {
    fn explain(self, path: &Path) -> LogError {
        let detail = match self {
            Self::Sqlite(error) => return explain(path, &error),
            // The category and place only: the text itself may be somebody's words.
            Self::Json(error) => {
                format!("a row has bad JSON ({:?}, column {})", error.classify(), error.column())
            }
            Self::Name => "a row names no room".to_owned(),
            Self::Taken => {
                return LogError::Rejected("an address, hash or payment is another invoice's".into());
            }
        };
        LogError::Corrupt { path: path.to_owned(), detail }
    }
}

fn explain(path: &Path, error: &rusqlite::Error) -> LogError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => LogError::Full { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => LogError::Corrupt { path, detail },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LogError::InUse { path },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            LogError::Denied { path, detail }
        }
        Some(ErrorCode::ConstraintViolation) => LogError::Rejected(detail),
        _ => LogError::Failed { path, detail },
    }
}

fn make_directory(path: &Path) -> Result<(), LogError> {
    let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    // What people wrote is nobody else's business on this machine.
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(|error| directory_error(path, &error))
}

fn directory_error(path: &Path, error: &std::io::Error) -> LogError {
    LogError::Directory { path: path.to_owned(), detail: error.to_string() }
}

fn lock(path: &Path) -> Result<File, LogError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let file = OpenOptions::new().create(true).append(true).open(&beside);
    let file = file.map_err(|error| LogError::Denied { path: beside.clone(), detail: error.to_string() })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(LogError::Failed { path: beside, detail: error.to_string() }),
    }
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<(), LogError> {
    let failed = |error| explain(path, &error);
    let number = |connection: &Connection, pragma| {
        connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(failed)
    };
    let found = number(connection, "user_version")?;
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection.query_row(tables, [], |row| row.get(0)).map_err(failed)?;
    if tables > 0 && number(connection, "application_id")? != APPLICATION_ID {
        return Err(LogError::Foreign { path: path.to_owned() });
    }
    let steps = usize::try_from(found).ok().and_then(|found| MIGRATIONS.get(found..));
    let Some(steps) = steps else {
        return Err(LogError::Newer { path: path.to_owned(), found, known: VERSION });
    };
    if steps.is_empty() {
        return Ok(());
    }
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    for step in steps {
        change.execute_batch(step).map_err(failed)?;
    }
    change.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    change.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    change.commit().map_err(failed)
}

/// SQLite's integers are signed; ours count milliseconds and messages, and never get near the end.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(|number: i64| u64::try_from(number).unwrap_or(0))
}

fn append_one(connection: &Connection, event: &Event) -> Result<Appended, Failure> {
    let room = event.room.as_str();
    let insert = "INSERT INTO events (room, id, at_ms, body) VALUES (?1, ?2, ?3, ?4)
                  ON CONFLICT (room, id) DO NOTHING RETURNING offset";
    let body = serde_json::to_string(&event.body)?;
    let added = connection
        .prepare_cached(insert)?
        .query_row(params![room, event.id.as_str(), signed(event.at_ms), body], |row| unsigned(row, 0))
        .optional()?;
    if let (Some(offset), EventBody::Ledger(fact)) = (added, &event.body) {
        ledger::project(connection, offset, fact)?;
    }
    let offset = match added {
        Some(offset) => offset,
        None => connection
            .prepare_cached("SELECT offset FROM events WHERE room = ?1 AND id = ?2")?
            .query_row(params![room, event.id.as_str()], |row| unsigned(row, 0))?,
    };
    let message = match event.body.message_id() {
        None => None,
        Some(id) if added.is_some() => project(connection, event, id)?,
        Some(id) => message(connection, &event.room, id)?,
    };
    Ok(Appended { id: event.id.clone(), offset, is_new: added.is_some(), message })
}

/// Lets the event change its message; the message as it stands then.
fn project(connection: &Connection, event: &Event, id: &MessageId) -> Result<Option<ChatMessage>, Failure> {
    let before = message(connection, &event.room, id)?;
    let after = apply(before.clone(), event);
    let Some(now) = &after else { return Ok(None) };
    if after != before {
        let sql = match before {
            None => "INSERT INTO messages (room, seq, id, state) VALUES (?1, ?2, ?3, ?4)",
            Some(_) => "UPDATE messages SET state = ?4 WHERE room = ?1 AND seq = ?2 AND id = ?3",
        };
        let state = serde_json::to_string(now)?;
        let values = params![event.room.as_str(), signed(now.seq), id.as_str(), state];
        connection.prepare_cached(sql)?.execute(values)?;
        files::project(connection, &event.room, before.as_ref(), now)?;
    }
    Ok(after)
}

fn message(connection: &Connection, room: &RoomName, id: &MessageId) -> Result<Option<ChatMessage>, Failure> {
    let state: Option<String> = connection
        .prepare_cached("SELECT state FROM messages WHERE room = ?1 AND id = ?2")?
        .query_row([room.as_str(), id.as_str()], |row| row.get(0))
        .optional()?;
    state.map(|state| Ok(serde_json::from_str(&state)?)).transpose()
}

fn page(
    connection: &Connection,
    room: &RoomName,
    range: HistoryRange,
    limit: u32,
) -> Result<MessagePage, Failure> {
    let limit = limit.min(PAGE_MAX) as usize;
    let (sql, seq) = match range {
        HistoryRange::After(seq) => {
            ("SELECT state FROM messages WHERE room = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3", signed(seq))
        }
        HistoryRange::Before(seq) => (
            "SELECT state FROM messages WHERE room = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
            signed(seq),
        ),
        HistoryRange::Newest => {
            ("SELECT state FROM messages WHERE room = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT ?3", i64::MAX)
        }
    };
    let mut statement = connection.prepare_cached(sql)?;
    // One more than asked for tells whether there are more.
    let mut rows = statement.query(params![room.as_str(), seq, signed(limit as u64 + 1)])?;
    let mut messages = Vec::new();
    while let Some(row) = rows.next()? {
        messages.push(serde_json::from_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?);
    }
    let more = messages.len() > limit;
    messages.truncate(limit);
    if !matches!(range, HistoryRange::After(_)) {
        messages.reverse();
    }
    Ok(MessagePage { messages, more })
}

fn recorded(row: &Row<'_>) -> Result<Recorded, Failure> {
    let room: String = row.get(1)?;
    let event = Event {
        id: EventId::from_stored(row.get(2)?),
        room: RoomName::from_stored(&room).map_err(|_| Failure::Name)?,
        at_ms: unsigned(row, 3)?,
        body: serde_json::from_str::<EventBody>(&row.get::<_, String>(4)?)?,
    };
    Ok(Recorded { offset: unsigned(row, 0)?, event })
}

impl EventLog for SqliteLog {
    fn append(&mut self, batch: &[Event]) -> Result<Vec<Appended>, LogError> {
        let path = &self.path;
        let append = |connection: &mut Connection| -> Result<Vec<Appended>, Failure> {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answers = batch.iter().map(|event| append_one(&change, event)).collect::<Result<_, _>>()?;
            change.commit()?;
            Ok(answers)
        };
        append(&mut self.connection).map_err(|failure| failure.explain(path))
    }

    fn messages(
        &mut self,
        room: &RoomName,
        range: HistoryRange,
        limit: u32,
    ) -> Result<MessagePage, LogError> {
        self.read(|connection| page(connection, room, range, limit))
    }

    fn message(&mut self, room: &RoomName, id: &MessageId) -> Result<Option<ChatMessage>, LogError> {
        self.read(|connection| message(connection, room, id))
    }

    fn history(&mut self, room: &RoomName) -> Result<RoomHistory, LogError> {
        self.read(|connection| {
            let page = page(connection, room, HistoryRange::Newest, WINDOW as u32)?;
            let last_seq = page.messages.last().map_or(0, |message| message.seq);
            let last_offset = connection
                .prepare_cached("SELECT coalesce(max(offset), 0) FROM events WHERE room = ?1")?
                .query_row([room.as_str()], |row| unsigned(row, 0))?;
            Ok(RoomHistory { page, last_seq, last_offset })
        })
    }

    fn last_epoch(&mut self, room: &RoomName) -> Result<u64, LogError> {
        self.read(|connection| {
            // Epochs rise along the log, so the last one is the highest.
            let sql =
                "SELECT id FROM events WHERE room = ?1 AND id GLOB 'room:*' ORDER BY offset DESC LIMIT 1";
            let mut statement = connection.prepare_cached(sql)?;
            let id: Option<String> = statement.query_row([room.as_str()], |row| row.get(0)).optional()?;
            Ok(id.and_then(|id| EventId::from_stored(id).room_epoch()).unwrap_or(0))
        })
    }

    fn events(&mut self, room: &RoomName, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        self.read(|connection| {
            let sql = "SELECT offset, room, id, at_ms, body FROM events
                       WHERE room = ?1 AND offset > ?2 ORDER BY offset LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![room.as_str(), signed(after), limit.min(PAGE_MAX)])?;
            let mut events = Vec::new();
            while let Some(row) = rows.next()? {
                events.push(recorded(row)?);
            }
            Ok(events)
        })
    }

    fn ledger(&mut self, after: u64, limit: u32) -> Result<Vec<Recorded>, LogError> {
        self.read(|connection| ledger::page(connection, after, limit))
    }

    fn place(&mut self, room: &RoomName, id: &EventId) -> Result<Option<u64>, LogError> {
        self.read(|connection| {
            let sql = "SELECT offset FROM events WHERE room = ?1 AND id = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row([room.as_str(), id.as_str()], |row| unsigned(row, 0)).optional()?)
        })
    }

    fn files(&mut self, room: &RoomName, before: u64, limit: u32) -> Result<MessagePage, LogError> {
        self.read(|connection| files::page(connection, room, before, limit))
    }

    fn file_usage(&mut self, room: &RoomName, identity: &Identity) -> Result<FileUsage, LogError> {
        self.read(|connection| files::usage(connection, room, identity))
    }

    fn files_before(&mut self, at_ms: u64, limit: u32) -> Result<Vec<(RoomName, MessageId)>, LogError> {
        self.read(|connection| files::before(connection, at_ms, limit))
    }

    fn unreferenced(&mut self, limit: u32) -> Result<Vec<String>, LogError> {
        self.read(|connection| files::unreferenced(connection, limit))
    }

    fn forget_unreferenced(&mut self, sha256: &str) -> Result<(), LogError> {
        self.read(|connection| files::forget(connection, sha256))
    }

    fn probe(&mut self) -> Result<(), LogError> {
        // Writes the header's page through a whole commit, and changes nothing.
        self.read(|connection| Ok(connection.pragma_update(None, "user_version", VERSION)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_and_survived() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(FILE_NAME);
        let mut log = SqliteLog::open(&path).expect("a new log");
        let event = |n: u64| Event {
            id: EventId::from_stored(format!("test:{n}")),
            room: RoomName::parse("room").expect("a plain name"),
            at_ms: n,
            body: EventBody::Unknown(serde_json::json!({"kind": "test", "filler": "x".repeat(10_000)})),
        };
        let pages = |log: &SqliteLog, most: i64| {
            log.connection.pragma_update(None, "max_page_count", most).expect("a pragma");
        };
        log.append(&[event(1)]).expect("there is space");
        pages(&log, 1);
        assert_eq!(log.append(&[event(2), event(3)]), Err(LogError::Full { path }));
        pages(&log, 100_000);
        log.append(&[event(4)]).expect("there is space again");
        let room = RoomName::parse("room").expect("a plain name");
        let kept: Vec<u64> =
            log.events(&room, 0, 10).expect("readable").into_iter().map(|found| found.event.at_ms).collect();
        assert_eq!(kept, vec![1, 4]);
    }

    #[test]
    fn commits_are_synced_to_the_disk() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = SqliteLog::open(&directory.path().join(FILE_NAME)).expect("a new log");
        let pragma = |name| {
            let value = |row: &Row<'_>| row.get::<_, rusqlite::types::Value>(0);
            log.connection.pragma_query_value(None, name, value).expect("a pragma")
        };
        assert_eq!(pragma("journal_mode"), rusqlite::types::Value::Text("wal".into()));
        // 2 is FULL: the write-ahead log is synced by each commit, not only by a checkpoint.
        assert_eq!(pragma("synchronous"), rusqlite::types::Value::Integer(2));
    }
}
