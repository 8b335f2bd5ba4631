//! Which files are kept, derived from the chat's messages in the same transaction, so that quotas, retention and
//! the removal of contents that nobody refers to any more need no walk through history.

use rusqlite::{Connection, params};

use super::{Failure, signed, unsigned};
use crate::core::chat::MessagePage;
use crate::core::files::FileState;
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::protocol::ChatMessage;
use crate::events::{FileUsage, PAGE_MAX};

/// `files` has a row for each file that is kept; `unreferenced` the contents whose last file went, until they
/// are removed.
pub(super) const TABLES: &str = "
    CREATE TABLE files (
        room TEXT NOT NULL,
        id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        size INTEGER NOT NULL,
        identity TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (room, id)
    ) STRICT;
    CREATE INDEX files_by_contents ON files (sha256, size);
    CREATE INDEX files_by_identity ON files (identity, size);
    CREATE INDEX files_by_room ON files (room, seq, size);
    CREATE INDEX files_by_age ON files (at_ms);
    CREATE TABLE unreferenced (sha256 TEXT PRIMARY KEY) STRICT;
";

fn kept(message: &ChatMessage) -> Option<&FileState> {
    message.file.as_deref().filter(|file| !file.expired)
}

/// A message changed: its file came, or went.
pub(super) fn project(
    connection: &Connection,
    room: &RoomName,
    before: Option<&ChatMessage>,
    now: &ChatMessage,
) -> Result<(), Failure> {
    match (before.and_then(kept), kept(now)) {
        (None, Some(file)) => {
            let insert = "INSERT INTO files (room, id, seq, sha256, size, identity, at_ms)
                          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            connection.prepare_cached(insert)?.execute(params![
                room.as_str(),
                now.id.as_str(),
                signed(now.seq),
                file.sha256,
                signed(file.size_bytes),
                now.identity.as_str(),
                signed(now.sent_at_ms)
            ])?;
            forget(connection, &file.sha256)
        }
        (Some(file), None) => {
            let delete = "DELETE FROM files WHERE room = ?1 AND id = ?2";
            connection.prepare_cached(delete)?.execute([room.as_str(), now.id.as_str()])?;
            let note = "INSERT OR IGNORE INTO unreferenced (sha256)
                        SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM files WHERE sha256 = ?1)";
            connection.prepare_cached(note)?.execute([&file.sha256])?;
            Ok(())
        }
        _ => Ok(()),
    }
}

pub(super) fn page(
    connection: &Connection,
    room: &RoomName,
    before: u64,
    limit: u32,
) -> Result<MessagePage, Failure> {
    let limit = limit.min(PAGE_MAX) as usize;
    let sql = "SELECT messages.state FROM files JOIN messages USING (room, seq)
               WHERE files.room = ?1 AND files.seq < ?2 ORDER BY files.seq DESC LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    // One more than asked for tells whether there are more.
    let mut rows = statement.query(params![room.as_str(), signed(before), signed(limit as u64 + 1)])?;
    let mut messages = Vec::new();
    while let Some(row) = rows.next()? {
        messages.push(serde_json::from_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?);
    }
    let more = messages.len() > limit;
    messages.truncate(limit);
    Ok(MessagePage { messages, more })
}

pub(super) fn usage(
    connection: &Connection,
    room: &RoomName,
    identity: &Identity,
) -> Result<FileUsage, Failure> {
    let sum = |sql: &str, key: &str| connection.prepare_cached(sql)?.query_row([key], |row| unsigned(row, 0));
    let in_room = "SELECT coalesce(sum(size), 0) FROM files WHERE room = ?1";
    let of_identity = "SELECT coalesce(sum(size), 0) FROM files WHERE identity = ?1";
    let on_node = "SELECT coalesce(sum(size), 0) FROM (SELECT DISTINCT sha256, size FROM files)";
    Ok(FileUsage {
        room_bytes: sum(in_room, room.as_str())?,
        identity_bytes: sum(of_identity, identity.as_str())?,
        node_bytes: connection.prepare_cached(on_node)?.query_row([], |row| unsigned(row, 0))?,
    })
}

pub(super) fn before(
    connection: &Connection,
    at_ms: u64,
    limit: u32,
) -> Result<Vec<(RoomName, MessageId)>, Failure> {
    let sql = "SELECT room, id FROM files WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![signed(at_ms), limit.min(PAGE_MAX)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (room, id): (String, String) = (row.get(0)?, row.get(1)?);
        let name = |_| Failure::Name;
        found.push((RoomName::parse(&room).map_err(name)?, MessageId::parse(&id).map_err(name)?));
    }
    Ok(found)
}

pub(super) fn unreferenced(connection: &Connection, limit: u32) -> Result<Vec<String>, Failure> {
    let mut statement = connection.prepare_cached("SELECT sha256 FROM unreferenced LIMIT ?1")?;
    let found = statement.query_map([limit.min(PAGE_MAX)], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(found)
}

pub(super) fn forget(connection: &Connection, sha256: &str) -> Result<(), Failure> {
    connection.prepare_cached("DELETE FROM unreferenced WHERE sha256 = ?1")?.execute([sha256])?;
    Ok(())
}
