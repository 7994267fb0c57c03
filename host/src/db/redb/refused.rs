//! The rows of the dead letters of sinks.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, Table};
use tidewaiter_core::journal::{EntryId, Incarnation};

use super::write::Next;
use super::{Fault, read_number};
use crate::db::refused::{Delivered, RefusedEntry, Row, name};
use crate::db::seal::{Keys, Kind};
use crate::db::tables::{INCARNATION, META, REFUSED};

type Rows<'txn> = Table<'txn, (&'static str, u64), &'static [u8]>;

/// Writes what became of entries that a sink refuses.
pub(super) fn write(
    rows: &mut Rows<'_>,
    sink: &str,
    delivered: &Delivered,
    next: &mut Next,
    keys: &Keys,
) -> Result<(), Fault> {
    for sequence in &delivered.gone {
        rows.remove((sink, *sequence))?;
    }
    for (sequence, problem) in &delivered.judged {
        let Some(stored) = rows.get((sink, *sequence))?.map(|row| row.value().to_vec()) else { continue };
        let mut row: Row = keys.parse(Kind::Refused, &stored, || name(sink, *sequence))?;
        row.judge(problem.clone());
        rows.insert((sink, *sequence), keys.row(Kind::Refused, &row)?.as_slice())?;
    }
    for (entry, problem) in &delivered.kept {
        let row = Row::new(next.letter(), entry, problem.clone(), delivered.at)?;
        rows.insert((sink, entry.id.sequence), keys.row(Kind::Refused, &row)?.as_slice())?;
    }
    Ok(())
}

/// Those of a sink, or of all, each sink's in the order of their entries.
pub(super) fn read(
    txn: &ReadTransaction,
    of: Option<&str>,
    keys: &Keys,
) -> Result<BTreeMap<String, Vec<RefusedEntry>>, Fault> {
    let incarnation = Incarnation(read_number(&txn.open_table(META)?, INCARNATION)?);
    let rows = txn.open_table(REFUSED)?;
    let found = match of {
        Some(sink) => rows.range((sink, 0)..=(sink, u64::MAX))?,
        None => rows.iter()?,
    };
    let mut refused: BTreeMap<String, Vec<RefusedEntry>> = BTreeMap::new();
    for entry in found {
        let (key, stored) = entry?;
        let (sink, sequence) = key.value();
        let row: Row = keys.parse(Kind::Refused, stored.value(), || name(sink, sequence))?;
        let one = row.refused(sink, EntryId { incarnation, sequence })?;
        refused.entry(sink.to_owned()).or_default().push(one);
    }
    Ok(refused)
}
