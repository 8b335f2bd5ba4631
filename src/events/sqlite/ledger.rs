//! Where the facts about money lie, and what no two invoices may share, kept in the same transaction as the
//! facts themselves.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Failure, recorded, signed};
use crate::core::ledger::Fact;
use crate::events::{PAGE_MAX, Recorded};

/// `ledger` has the place of each fact; `ledger_keys` the invoice of each address, place in a descriptor,
/// payment hash and outpoint.
pub(super) const TABLES: &str = "
    CREATE TABLE ledger (offset INTEGER PRIMARY KEY REFERENCES events) STRICT;
    CREATE TABLE ledger_keys (key TEXT PRIMARY KEY, invoice TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// A fact was appended here.
pub(super) fn project(connection: &Connection, offset: u64, fact: &Fact) -> Result<(), Failure> {
    connection.prepare_cached("INSERT INTO ledger (offset) VALUES (?1)")?.execute([signed(offset)])?;
    for (key, invoice) in fact.unique_keys() {
        let insert = "INSERT INTO ledger_keys (key, invoice) VALUES (?1, ?2)
                      ON CONFLICT (key) DO UPDATE SET invoice = invoice RETURNING invoice";
        let holder: Option<String> = connection
            .prepare_cached(insert)?
            .query_row(params![key, invoice.as_str()], |row| row.get(0))
            .optional()?;
        if holder.as_deref() != Some(invoice.as_str()) {
            return Err(Failure::Taken);
        }
    }
    Ok(())
}

pub(super) fn page(connection: &Connection, after: u64, limit: u32) -> Result<Vec<Recorded>, Failure> {
    let sql = "SELECT events.offset, room, id, at_ms, body FROM ledger JOIN events USING (offset)
               WHERE ledger.offset > ?1 ORDER BY ledger.offset LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![signed(after), limit.min(PAGE_MAX)])?;
    let mut facts = Vec::new();
    while let Some(row) = rows.next()? {
        facts.push(recorded(row)?);
    }
    Ok(facts)
}
