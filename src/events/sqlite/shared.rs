//! What a node keeps of a log that it shares with others: how far it has read, whose word counts, and what it
//! has still to write.
//!
//! A record of the shared log, the place behind it and what it does are one transaction, so that after a
//! crash reading goes on where it stood. What is to be written is durable before it is sent.

use std::collections::BTreeMap;

use rusqlite::{Connection, TransactionBehavior, params};

use super::{Failure, SqliteLog, append_one, signed, unsigned};
use crate::core::event::{Appended, Event};
use crate::core::fence::{Fence, Writer};
use crate::core::ids::{NodeId, RoomName};
use crate::events::LogError;
use crate::events::kafka::snapshot::Snapshot;

pub(super) const TABLES: &str = "
    CREATE TABLE positions (
        partition INTEGER PRIMARY KEY,
        next INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE writers (
        room TEXT PRIMARY KEY,
        epoch INTEGER NOT NULL,
        node TEXT NOT NULL,
        incarnation INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        room TEXT NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
";

/// What a record that was read does here.
#[derive(Debug)]
pub struct Applied<'a> {
    pub partition: i32,
    /// The place behind it.
    pub next: i64,
    /// Those that count.
    pub events: &'a [Event],
    /// Who has the room from here on.
    pub opened: Option<(&'a RoomName, &'a Writer)>,
    /// Its number and text, where it may be ours: then it need not be written any more.
    pub written: Option<(u64, &'a [u8])>,
}

/// What a copy that began with snapshots has of a room by its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// How many events the room had.
    pub events: u64,
    /// The place behind all that is in it.
    pub next: i64,
    /// Of the oldest message in it.
    pub first_seq: u64,
}

/// Beside the tables that every log has, and made where they are missing: an older version passes over them.
/// `changed` has the rooms of which snapshots are to be written, with the place behind their last record;
/// `bases` those that began with one.
const SNAPSHOT_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS changed (
        room TEXT PRIMARY KEY,
        partition INTEGER NOT NULL,
        next INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS bases (
        room TEXT PRIMARY KEY,
        events INTEGER NOT NULL,
        next INTEGER NOT NULL,
        first_seq INTEGER NOT NULL
    ) STRICT;
";

/// A record that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub number: u64,
    pub room: RoomName,
    pub record: Vec<u8>,
}

impl SqliteLog {
    /// Takes a record of the shared log.
    ///
    /// # Errors
    /// [`LogError::Rejected`] blames the events; then nothing but the place behind them is to be noted, by
    /// taking it again without them.
    pub fn apply(&mut self, applied: &Applied<'_>) -> Result<Vec<Appended>, LogError> {
        let path = self.path.clone();
        let apply = |connection: &mut Connection| -> Result<Vec<Appended>, Failure> {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answers = apply_one(&change, applied)?;
            change.commit()?;
            Ok(answers)
        };
        apply(&mut self.connection).map_err(|failure| failure.explain(&path))
    }

    /// Takes records of the shared log in one commit: all, or none.
    ///
    /// # Errors
    /// As [`SqliteLog::apply`].
    pub fn apply_all(&mut self, applied: &[Applied<'_>]) -> Result<Vec<Vec<Appended>>, LogError> {
        if applied.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.path.clone();
        let apply = |connection: &mut Connection| -> Result<Vec<Vec<Appended>>, Failure> {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answers = applied.iter().map(|one| apply_one(&change, one)).collect::<Result<_, _>>()?;
            change.commit()?;
            Ok(answers)
        };
        apply(&mut self.connection).map_err(|failure| failure.explain(&path))
    }

    /// Makes what only a shared log has.
    ///
    /// # Errors
    /// The disk.
    pub fn prepare_shared(&self) -> Result<(), LogError> {
        self.read(|connection| Ok(connection.execute_batch(SNAPSHOT_TABLES)?))
    }

    /// Whether each commit is on the disk before it is answered.
    ///
    /// # Errors
    /// The disk.
    pub fn sync_each(&self, sync: bool) -> Result<(), LogError> {
        let how = if sync { "FULL" } else { "NORMAL" };
        self.read(|connection| Ok(connection.pragma_update(None, "synchronous", how)?))
    }

    /// Begins with snapshots, in place of whatever is here but the outbox. Reading goes on at `positions`.
    ///
    /// # Errors
    /// The disk.
    pub fn restore<'a>(
        &mut self,
        snapshots: impl Iterator<Item = &'a Snapshot>,
        positions: &[(i32, i64)],
    ) -> Result<(), LogError> {
        let path = self.path.clone();
        let restore = |connection: &mut Connection| -> Result<(), Failure> {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for snapshot in snapshots {
                let room = snapshot.room.as_str();
                note_writer(&change, &snapshot.room, &snapshot.writer)?;
                let base =
                    "INSERT OR REPLACE INTO bases (room, events, next, first_seq) VALUES (?1, ?2, ?3, ?4)";
                let (events, first) = (signed(snapshot.events), signed(snapshot.first_seq()));
                change.prepare_cached(base)?.execute(params![room, events, snapshot.next, first])?;
                for message in &snapshot.messages {
                    let sql =
                        "INSERT OR REPLACE INTO messages (room, seq, id, state) VALUES (?1, ?2, ?3, ?4)";
                    let state = serde_json::to_string(message)?;
                    let values = params![room, signed(message.seq), message.id.as_str(), state];
                    change.prepare_cached(sql)?.execute(values)?;
                    super::files::project(&change, &snapshot.room, None, message)?;
                }
            }
            for (partition, next) in positions {
                note_position(&change, *partition, *next)?;
            }
            Ok(change.commit()?)
        };
        restore(&mut self.connection).map_err(|failure| failure.explain(&path))
    }

    /// Takes over what another copy has still to write, under the same numbers, and goes on counting there;
    /// and the rooms of which it has to write snapshots.
    ///
    /// # Errors
    /// The disk, of either.
    pub fn adopt(&mut self, other: &Self) -> Result<(), LogError> {
        let (queued, last, changed) = (other.queued()?, other.last_number()?, other.all_changed()?);
        let path = self.path.clone();
        let adopt = |connection: &mut Connection| -> Result<(), Failure> {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for Queued { number, room, record } in &queued {
                let sql = "INSERT OR REPLACE INTO outbox (number, room, record) VALUES (?1, ?2, ?3)";
                change.prepare_cached(sql)?.execute(params![signed(*number), room.as_str(), record])?;
            }
            // A number that was given out is never given out again, whatever became of its record.
            change
                .execute("DELETE FROM sqlite_sequence WHERE name = 'outbox' AND seq < ?1", [signed(last)])?;
            change.execute(
                "INSERT INTO sqlite_sequence (name, seq) SELECT 'outbox', ?1
                 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'outbox')",
                [signed(last)],
            )?;
            change.execute("DELETE FROM changed", [])?;
            for (room, partition, next) in &changed {
                note_changed(&change, room, *partition, *next)?;
            }
            Ok(change.commit()?)
        };
        adopt(&mut self.connection).map_err(|failure| failure.explain(&path))
    }

    fn last_number(&self) -> Result<u64, LogError> {
        self.read(|connection| {
            let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'";
            Ok(connection.query_row(sql, [], |row| unsigned(row, 0))?)
        })
    }

    fn all_changed(&self) -> Result<Vec<(RoomName, i32, i64)>, LogError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT room, partition, next FROM changed")?;
            let mut rows = statement.query([])?;
            let mut changed = Vec::new();
            while let Some(row) = rows.next()? {
                changed.push((name(&row.get::<_, String>(0)?)?, row.get(1)?, row.get(2)?));
            }
            Ok(changed)
        })
    }

    /// Rooms of a partition of which there is no snapshot since their last record.
    ///
    /// # Errors
    /// The disk.
    pub fn changed(&self, partition: i32) -> Result<Vec<RoomName>, LogError> {
        let all = self.all_changed()?.into_iter();
        Ok(all.filter(|(_, of, _)| *of == partition).map(|(room, ..)| room).collect())
    }

    /// Snapshots of all that a partition changed before this place are written.
    ///
    /// # Errors
    /// The disk.
    pub fn forget_changed(&self, partition: i32, next: i64) -> Result<(), LogError> {
        self.read(|connection| {
            let sql = "DELETE FROM changed WHERE partition = ?1 AND next <= ?2";
            connection.prepare_cached(sql)?.execute(params![partition, next])?;
            Ok(())
        })
    }

    /// Rooms that began with a snapshot.
    ///
    /// # Errors
    /// The disk.
    pub fn bases(&self) -> Result<BTreeMap<RoomName, Base>, LogError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT room, events, next, first_seq FROM bases")?;
            let mut rows = statement.query([])?;
            let mut bases = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let base =
                    Base { events: unsigned(row, 1)?, next: row.get(2)?, first_seq: unsigned(row, 3)? };
                bases.insert(name(&row.get::<_, String>(0)?)?, base);
            }
            Ok(bases)
        })
    }

    /// Makes records durable that are to be written, in their order; answers with their numbers. `make` gets
    /// the number.
    ///
    /// # Errors
    /// The disk.
    pub fn queue<'a>(
        &mut self,
        rooms: impl IntoIterator<Item = &'a RoomName>,
        mut make: impl FnMut(usize, u64) -> Vec<u8>,
    ) -> Result<Vec<Queued>, LogError> {
        let path = self.path.clone();
        let rooms: Vec<_> = rooms.into_iter().collect();
        let mut queue = |connection: &mut Connection| -> Result<Vec<Queued>, Failure> {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut queued = Vec::with_capacity(rooms.len());
            for (index, room) in rooms.iter().enumerate() {
                let insert = "INSERT INTO outbox (room, record) VALUES (?1, x'') RETURNING number";
                let number =
                    change.prepare_cached(insert)?.query_row([room.as_str()], |row| unsigned(row, 0))?;
                let record = make(index, number);
                let fill = "UPDATE outbox SET record = ?2 WHERE number = ?1";
                change.prepare_cached(fill)?.execute(params![signed(number), record])?;
                queued.push(Queued { number, room: (*room).clone(), record });
            }
            change.commit()?;
            Ok(queued)
        };
        queue(&mut self.connection).map_err(|failure| failure.explain(&path))
    }

    /// What was to be written when the process ended, in its order.
    ///
    /// # Errors
    /// The disk.
    pub fn queued(&self) -> Result<Vec<Queued>, LogError> {
        self.read(|connection| {
            let sql = "SELECT number, room, record FROM outbox ORDER BY number";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut queued = Vec::new();
            while let Some(row) = rows.next()? {
                let room: String = row.get(1)?;
                let room = RoomName::from_stored(&room).map_err(|_| Failure::Name)?;
                queued.push(Queued { number: unsigned(row, 0)?, room, record: row.get(2)? });
            }
            Ok(queued)
        })
    }

    /// Where to go on reading, by partition.
    ///
    /// # Errors
    /// The disk.
    pub fn positions(&self) -> Result<Vec<(i32, i64)>, LogError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT partition, next FROM positions")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Whose word counts, up to there.
    ///
    /// # Errors
    /// The disk.
    pub fn fence(&self) -> Result<Fence, LogError> {
        self.read(|connection| {
            let sql = "SELECT room, epoch, node, incarnation FROM writers";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut writers = Vec::new();
            while let Some(row) = rows.next()? {
                let (room, node): (String, String) = (row.get(0)?, row.get(2)?);
                let room = RoomName::from_stored(&room).map_err(|_| Failure::Name)?;
                let node = NodeId::parse(&node).map_err(|_| Failure::Name)?;
                let (epoch, incarnation) = (unsigned(row, 1)?, unsigned(row, 3)?);
                writers.push((room, Writer { epoch, node, incarnation }));
            }
            Ok(Fence::restore(writers))
        })
    }

    /// How many events a room has: the same on every node.
    ///
    /// # Errors
    /// The disk.
    pub fn count(&self, room: &RoomName) -> Result<u64, LogError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT count(*) FROM events WHERE room = ?1")?;
            Ok(statement.query_row([room.as_str()], |row| unsigned(row, 0))?)
        })
    }
}

fn apply_one(change: &Connection, applied: &Applied<'_>) -> Result<Vec<Appended>, Failure> {
    let answers = applied.events.iter().map(|event| append_one(change, event));
    let answers = answers.collect::<Result<Vec<_>, _>>()?;
    note_position(change, applied.partition, applied.next)?;
    if let Some((room, writer)) = applied.opened {
        note_writer(change, room, writer)?;
    }
    if let Some(event) = applied.events.first() {
        note_changed(change, &event.room, applied.partition, applied.next)?;
    }
    if let Some((number, record)) = applied.written {
        // Numbers begin anew in a new copy, so the same number alone may be an older record's.
        let written = "DELETE FROM outbox WHERE number = ?1 AND record = ?2";
        change.prepare_cached(written)?.execute(params![signed(number), record])?;
    }
    Ok(answers)
}

fn note_position(change: &Connection, partition: i32, next: i64) -> Result<(), Failure> {
    let place = "INSERT INTO positions (partition, next) VALUES (?1, ?2)
                 ON CONFLICT (partition) DO UPDATE SET next = ?2";
    change.prepare_cached(place)?.execute(params![partition, next])?;
    Ok(())
}

fn note_writer(change: &Connection, room: &RoomName, writer: &Writer) -> Result<(), Failure> {
    let opened = "INSERT INTO writers (room, epoch, node, incarnation) VALUES (?1, ?2, ?3, ?4)
                  ON CONFLICT (room) DO UPDATE SET epoch = ?2, node = ?3, incarnation = ?4";
    let Writer { epoch, node, incarnation } = writer;
    let values = params![room.as_str(), signed(*epoch), node.as_str(), signed(*incarnation)];
    change.prepare_cached(opened)?.execute(values)?;
    Ok(())
}

fn note_changed(change: &Connection, room: &RoomName, partition: i32, next: i64) -> Result<(), Failure> {
    let changed = "INSERT INTO changed (room, partition, next) VALUES (?1, ?2, ?3)
                   ON CONFLICT (room) DO UPDATE SET partition = ?2, next = ?3";
    change.prepare_cached(changed)?.execute(params![room.as_str(), partition, next])?;
    Ok(())
}

fn name(text: &str) -> Result<RoomName, Failure> {
    RoomName::parse(text).map_err(|_| Failure::Name)
}
