//! A copy of a db in one file, made while it is in use, and a db made from one. A restored db is another incarnation: its sequences
//! can't be taken for those of the one that was lost, and every token begins a new generation.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable};
use tidewaiter_core::journal::{Body, Marker};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::state::{Actor, TypeState};
use tidewaiter_core::time::UnixMillis;

use super::write::{self, Tables};
use super::{Fault, builder, caught, read_states};
use crate::db::dead_letter::Letters;
use crate::db::seal::{Keys, sealed};
use crate::db::segment::{Encoder, Head};
use crate::db::store::{Prepared, Quota, ReadError, StorageError, Write};
use crate::db::tables::{
    APPROVED, CONSUMERS, DEAD_LETTERS, FAULTS, INCARNATION, INDEX, META, PLACEMENTS, REFUSED, REVISIONS, RUNS, RUNS_OF,
    SEGMENTS, SENSITIVE, SHADOW_ROWS, SHADOWS, SINKS, STAGED, STATES, TOKENS, USAGE, VAULT,
};

/// Copies what one snapshot has into a new file.
pub(super) fn backup(db: &Database, to: &Path, keys: &Keys) -> Result<(), Fault> {
    let target = |error: io::Error| ReadError::Target { path: to.display().to_string(), problem: error.to_string() };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(to).map_err(target)?;
    let copied = copy(db, to, keys);
    if copied.is_err() {
        let _ = std::fs::remove_file(to);
    }
    copied
}

macro_rules! copy_tables {
    ($from:ident, $to:ident: $($table:expr),*) => {$({
        let (from, mut to) = ($from.open_table($table)?, $to.open_table($table)?);
        for entry in from.iter()? {
            let (key, value) = entry?;
            to.insert(key.value(), value.value())?;
        }
    })*};
}

fn copy(db: &Database, to: &Path, keys: &Keys) -> Result<(), Fault> {
    let from = db.begin_read()?;
    let target = builder().create(to)?;
    let txn = target.begin_write()?;
    copy_tables!(from, txn: META, STATES, INDEX, USAGE, RUNS, RUNS_OF, TOKENS);
    copy_tables!(from, txn: SINKS, CONSUMERS, VAULT, SENSITIVE, APPROVED, FAULTS, PLACEMENTS, REVISIONS);
    copy_tables!(from, txn: SHADOWS, SHADOW_ROWS, DEAD_LETTERS, REFUSED);
    {
        let (segments, mut copies) = (from.open_table(SEGMENTS)?, txn.open_table(SEGMENTS)?);
        for entry in from.open_table(INDEX)?.iter()? {
            let number = entry?.1.value().0;
            let missing = || Fault::Engine(format!("segment {number} is not there"));
            copies.insert(number, segments.get(number)?.ok_or_else(missing)?.value())?;
        }
        txn.open_table(STAGED)?;
    }
    {
        // What is staged belongs to runs that the copy doesn't have.
        let mut tables = Tables::open(&txn, keys)?;
        for entry in from.open_table(STAGED)?.iter()? {
            let staged = entry?.1;
            let (bytes, connection) = staged.value();
            tables.free(connection, bytes)?;
        }
    }
    txn.commit()?;
    target.close().map_err(|error| Fault::Engine(error.to_string()))?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Fault::Engine(format!("{}: {error}", folder.display())))
}

/// Makes a copy into a db of its own: another incarnation, and a marker for every type.
pub(in crate::db) fn renew(
    db: &Database,
    incarnation: u64,
    by: &Actor,
    now: UnixMillis,
    keys: &Keys,
) -> Result<(), StorageError> {
    let renew = || {
        let txn = db.begin_write()?;
        txn.open_table(META)?.insert(INCARNATION, incarnation)?;
        txn.commit()?;
        let states = read_states(&db.begin_read()?.open_table(STATES)?, keys)?;
        let act = |(key, state)| Ok(Write::Commit(Box::new(restored(key, state, by, now, keys)?)));
        let acts = states.into_iter().map(act).collect::<Result<Vec<_>, Fault>>()?;
        write::group(db, &acts, Quota::UNLIMITED, keys)?;
        Ok::<_, Fault>(())
    };
    Ok(caught(renew)?)
}

fn restored(key: TypeKey, stored: TypeState, by: &Actor, now: UnixMillis, keys: &Keys) -> Result<Prepared, Fault> {
    let state = TypeState {
        revision: stored.revision + 1,
        generation: stored.generation + 1,
        why: format!("restored by {by} at {now}"),
        changed_at: now,
        changed_by: by.clone(),
        ..stored
    };
    let head = Head { key: key.clone(), generation: state.generation, run: None, at: now };
    let bad = |error: crate::db::segment::EncodeError| Fault::Engine(error.to_string());
    let mut encoder = Encoder::new(&head).map_err(bad)?;
    encoder.push(&Body::Marker { marker: Marker::Restored, by: by.clone() }).map_err(bad)?;
    Ok(Prepared {
        key,
        expected_revision: stored.revision,
        state,
        staged: Vec::new(),
        segments: sealed(encoder.finish(), keys),
        letters: Letters::default(),
        marked: true,
        run: None,
        report: None,
        at: now,
    })
}
