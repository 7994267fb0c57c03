//! The rows of dead letters.

use redb::{ReadableTable, Table};
use tidewaiter_core::name::TypeKey;

use super::write::Next;
use super::{Fault, all_of, type_key};
use crate::db::dead_letter::{Letters, Row, StoredLetter, name};
use crate::db::seal::{Keys, Kind};
use crate::db::store::Prepared;
use crate::db::tables::{Ordered, ordered_key};

/// Writes what comes and goes with a commit.
pub(super) fn write(
    rows: &mut Table<'_, Ordered, &'static [u8]>,
    commit: &Prepared,
    next: &mut Next,
    keys: &Keys,
) -> Result<(), Fault> {
    let Letters { kept, resolved, .. } = &commit.letters;
    for number in resolved {
        rows.remove(ordered_key(&commit.key, *number))?;
    }
    for letter in kept {
        let row = Row::new(letter, commit.state.generation, commit.run, commit.at)?;
        rows.insert(ordered_key(&commit.key, next.letter()), keys.row(Kind::DeadLetter, &row)?.as_slice())?;
    }
    Ok(())
}

/// Those of a type, or of all, in their order.
pub(super) fn read(
    rows: &impl ReadableTable<Ordered, &'static [u8]>,
    of: Option<&TypeKey>,
    keys: &Keys,
) -> Result<Vec<StoredLetter>, Fault> {
    let found = match of {
        Some(key) => rows.range(all_of(key))?,
        None => rows.iter()?,
    };
    let mut letters = Vec::new();
    for entry in found {
        let (key, stored) = entry?;
        let (connection, object_type, number) = key.value();
        let key = type_key(connection, object_type, || name(number))?;
        let row: Row = keys.parse(Kind::DeadLetter, stored.value(), || name(number))?;
        letters.push(row.letter(key, number)?);
    }
    Ok(letters)
}
