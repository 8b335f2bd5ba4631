//! What a node keeps of a log that it shares with others: how far it has read, whose word counts, and what it
//! has still to write.
//!
//! A record of the shared log, the place behind it and what it does are one transaction, so that after a
//! crash reading goes on where it stood. What is to be written is durable before it is sent.

use rusqlite::{Connection, TransactionBehavior, params};

use super::{Failure, SqliteLog, append_one, signed, unsigned};
use crate::core::event::{Appended, Event};
use crate::core::fence::{Fence, Writer};
use crate::core::ids::{NodeId, RoomName};
use crate::events::LogError;

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
    /// Ours, which need not be written any more.
    pub written: Option<u64>,
}

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
            let answers = applied.events.iter().map(|event| append_one(&change, event));
            let answers = answers.collect::<Result<Vec<_>, _>>()?;
            let place = "INSERT INTO positions (partition, next) VALUES (?1, ?2)
                         ON CONFLICT (partition) DO UPDATE SET next = ?2";
            change.prepare_cached(place)?.execute(params![applied.partition, applied.next])?;
            if let Some((room, writer)) = applied.opened {
                let opened = "INSERT INTO writers (room, epoch, node, incarnation) VALUES (?1, ?2, ?3, ?4)
                              ON CONFLICT (room) DO UPDATE SET epoch = ?2, node = ?3, incarnation = ?4";
                let Writer { epoch, node, incarnation } = writer;
                let values = params![room.as_str(), signed(*epoch), node.as_str(), signed(*incarnation)];
                change.prepare_cached(opened)?.execute(values)?;
            }
            if let Some(number) = applied.written {
                let written = "DELETE FROM outbox WHERE number = ?1";
                change.prepare_cached(written)?.execute([signed(number)])?;
            }
            change.commit()?;
            Ok(answers)
        };
        apply(&mut self.connection).map_err(|failure| failure.explain(&path))
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
                let room = RoomName::parse(&room).map_err(|_| Failure::Name)?;
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
                let room = RoomName::parse(&room).map_err(|_| Failure::Name)?;
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
