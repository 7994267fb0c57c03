//! Seals with the current key what is stored with another one or with none, or in clear where there is no current one.

use redb::{Database, Key, ReadableTable, Table, TableHandle};

use super::Fault;
use super::write::Tables;
use crate::db::seal::{Keys, Kind, SealError};
use crate::db::store::ReadError;

/// Segments that are sealed anew in one transaction; others get their turn in between.
const SEGMENTS_AT_ONCE: usize = 64;
/// Small rows that are in memory at once.
const ROWS_AT_ONCE: usize = 1000;

/// Seals anew as many segments as go at once, from the entry of this sequence on. Answers where to go on; none: that was all. The small
/// rows go with the first. What is staged was sealed by this process, with the current key.
pub(super) fn rekey(db: &Database, from: u64, keys: &Keys) -> Result<Option<u64>, Fault> {
    let txn = db.begin_write()?;
    let mut next = None;
    {
        let mut tables = Tables::open(&txn, keys)?;
        if from == 0 {
            tables.rekey_rows()?;
        }
        let mut stale = Vec::new();
        for entry in tables.index.range(from..)? {
            let (first, row) = entry?;
            let (number, count, before, at, connection) = row.value();
            if tables.segments.get(number)?.is_some_and(|stored| keys.is_stale(stored.value())) {
                if stale.len() == SEGMENTS_AT_ONCE {
                    next = Some(first.value());
                    break;
                }
                stale.push((first.value(), number, count, before, at, connection.to_owned()));
            }
        }
        for (first, number, count, before, at, connection) in stale {
            let damaged = |damage| ReadError::Segment { first, damage };
            let content = match tables.segments.get(number)? {
                Some(stored) => keys.segment(stored.value()).map_err(damaged)?.into_owned(),
                None => continue,
            };
            tables.replace(first, (number, count, before, at, connection.as_str()), content)?;
        }
    }
    txn.commit()?;
    Ok(next)
}

impl Tables<'_> {
    fn rekey_rows(&mut self) -> Result<(), Fault> {
        rekey_table(&mut self.states, Kind::State, self.keys)?;
        rekey_table(&mut self.tokens, Kind::Token, self.keys)?;
        rekey_table(&mut self.runs, Kind::Run, self.keys)?;
        rekey_table(&mut self.shadows, Kind::Shadow, self.keys)?;
        rekey_table(&mut self.dead_letters, Kind::DeadLetter, self.keys)?;
        rekey_table(&mut self.refused, Kind::Refused, self.keys)?;
        match self.keys.current() {
            Some(_) => rekey_table(&mut self.vault, Kind::Vault, self.keys),
            // Never in clear: without a key no login uses them, and the next one begins with what is configured.
            None => Ok(self.vault.retain(|_, _| false)?),
        }
    }
}

fn rekey_table<K: Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
    kind: Kind,
    keys: &Keys,
) -> Result<(), Fault> {
    let mut begin: Option<Vec<u8>> = None;
    loop {
        let mut stale = Vec::new();
        let rows = match &begin {
            None => table.iter()?,
            Some(key) => table.range(K::from_bytes(key)..)?,
        };
        for entry in rows {
            let (key, stored) = entry?;
            if keys.is_stale(stored.value()) {
                let key = key.value();
                let sealed = |error: SealError| ReadError::Row {
                    row: format!("{} {key:?}", table.name()),
                    problem: error.to_string(),
                };
                let content = keys.open(kind, stored.value()).map_err(sealed)?.into_owned();
                stale.push((K::as_bytes(&key).as_ref().to_vec(), keys.seal(kind, content)));
            }
            if stale.len() == ROWS_AT_ONCE {
                break;
            }
        }
        for (key, sealed) in &stale {
            table.insert(K::from_bytes(key), sealed.as_slice())?;
        }
        match stale.pop() {
            Some((last, _)) => begin = Some(last),
            None => return Ok(()),
        }
    }
}
