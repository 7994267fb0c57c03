//! The format of the whole db, numbered: creates it, brings an older one up, refuses a newer one and whatever isn't ours. Never
//! rebuilds anything.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use tidewaiter_core::journal::Incarnation;

use super::open::OpenError;
use super::redb::builder;
use super::segment::Unpacked;
use super::tables::{
    APPROVED, BYTES, CONSUMERS, DEAD_LETTERS, FAULTS, FIRST_SEQUENCE, FORMAT, INCARNATION, INDEX, LAST_DEAD_LETTER,
    LAST_RUN, LAST_SEGMENT, LAST_SEQUENCE, META, PLACEMENTS, REFUSED, REVISIONS, RUNS, RUNS_OF, SEGMENTS, SENSITIVE,
    SHADOW_ROWS, SHADOWS, SINKS, STAGED, STATES, TOKENS, USAGE, VAULT,
};

/// Brings a db from one format to the next, in one transaction and so that doing it again does no harm.
type Migration = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// The n-th leads from format n to n + 1.
const MIGRATIONS: [Migration; 7] = [to_2, to_3, to_4, to_5, to_6, to_7, to_8];

/// The format that this host writes.
pub(crate) const FORMAT_NOW: u64 = MIGRATIONS.len() as u64 + 1;

/// Makes a db where there is none. The name is only given to a complete one, so that a crash leaves none.
pub(super) fn create(dir: &Path, path: &Path) -> Result<(), OpenError> {
    let begun = path.with_extension("redb.new");
    let io = |what: &'static str, source: io::Error| OpenError::Io { what, path: begun.clone(), source };
    match std::fs::remove_file(&begun) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(&begun).map_err(|error| io("create", error))?;
    let unusable = |error: redb::Error| OpenError::Unusable { path: begun.clone(), source: Box::new(error) };
    let database = builder().create(&begun).map_err(|error| unusable(error.into()))?;
    write_first(&database).map_err(unusable)?;
    database.close().map_err(|error| unusable(error.into()))?;
    std::fs::rename(&begun, path).map_err(|error| io("rename", error))?;
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| OpenError::Io { what: "sync", path: dir.to_owned(), source })
}

pub(super) fn write_first(database: &Database) -> Result<(), redb::Error> {
    let incarnation = random()?;
    let txn = database.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        let zero = [LAST_SEQUENCE, LAST_RUN, LAST_SEGMENT, LAST_DEAD_LETTER, BYTES].map(|name| (name, 0));
        let counted = [(FIRST_SEQUENCE, 1)].into_iter().chain(zero);
        for (name, number) in [(FORMAT, FORMAT_NOW), (INCARNATION, incarnation)].into_iter().chain(counted) {
            meta.insert(name, number)?;
        }
        txn.open_table(STATES)?;
        txn.open_table(SEGMENTS)?;
        txn.open_table(INDEX)?;
        txn.open_table(STAGED)?;
        txn.open_table(USAGE)?;
        txn.open_table(CONSUMERS)?;
        txn.open_table(RUNS)?;
        txn.open_table(RUNS_OF)?;
        txn.open_table(TOKENS)?;
        txn.open_table(SINKS)?;
        txn.open_table(VAULT)?;
        txn.open_table(SENSITIVE)?;
        txn.open_table(APPROVED)?;
        txn.open_table(FAULTS)?;
        txn.open_table(PLACEMENTS)?;
        txn.open_table(REVISIONS)?;
        txn.open_table(SHADOWS)?;
        txn.open_table(SHADOW_ROWS)?;
        txn.open_table(DEAD_LETTERS)?;
        txn.open_table(REFUSED)?;
    }
    txn.commit()?;
    Ok(())
}

/// For an incarnation.
pub(super) fn random() -> Result<u64, redb::Error> {
    getrandom::u64().map_err(|error| redb::Error::Io(io::Error::other(error)))
}

/// Segments get numbers and an index; before, they were stored by the sequence of their first entry, which is their number now.
fn to_2(txn: &WriteTransaction) -> Result<(), redb::Error> {
    let journal: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
    txn.rename_table(journal, SEGMENTS)?;
    let (mut meta, mut index, mut usage) = (txn.open_table(META)?, txn.open_table(INDEX)?, txn.open_table(USAGE)?);
    let (mut total, mut last) = (0, 0);
    for entry in txn.open_table(SEGMENTS)?.iter()? {
        let (first, stored) = entry?;
        let (first, stored) = (first.value(), stored.value());
        let damaged = |damage| redb::Error::Corrupted(format!("the segment that begins with {first}: {damage}"));
        let segment = Unpacked::new(stored).map_err(damaged)?;
        let (connection, bytes) = (segment.head.key.connection.as_str(), stored.len() as u64);
        index.insert(first, (first, segment.count, bytes, segment.head.at.0, connection))?;
        let held = usage.get(connection)?.map_or(0, |row| row.value());
        usage.insert(connection, held + bytes)?;
        (total, last) = (total + bytes, first);
    }
    for (name, number) in [(FIRST_SEQUENCE, 1), (LAST_SEGMENT, last), (BYTES, total)] {
        meta.insert(name, number)?;
    }
    txn.open_table(STAGED)?;
    txn.open_table(CONSUMERS)?;
    Ok(())
}

/// Rows may be sealed; refresh tokens and sensitive attributes have tables.
fn to_3(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(VAULT)?;
    txn.open_table(SENSITIVE)?;
    Ok(())
}

/// What is approved has a table. What connections ask for at the next start is approved then, as for new ones.
fn to_4(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(APPROVED)?;
    Ok(())
}

/// What went wrong with connectors has a table. States have what the guard knows, and markers have more cases.
fn to_5(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(FAULTS)?;
    Ok(())
}

/// Shadows and dead letters have tables, and states have one more case.
fn to_6(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(SHADOWS)?;
    txn.open_table(SHADOW_ROWS)?;
    txn.open_table(DEAD_LETTERS)?;
    txn.open_table(META)?.insert(LAST_DEAD_LETTER, 0)?;
    Ok(())
}

/// The dead letters of sinks have a table.
fn to_7(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(REFUSED)?;
    Ok(())
}

/// What connections run, and the files of connectors, have tables.
fn to_8(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(PLACEMENTS)?;
    txn.open_table(REVISIONS)?;
    Ok(())
}

/// Makes sure that the db has the format of this host. A file that was changed by something else may make redb panic.
pub(super) fn migrate(database: &Database, dir: &Path, path: &Path) -> Result<Incarnation, OpenError> {
    let panicked = |_| Err(OpenError::Unusable { path: path.to_owned(), source: "the storage engine panicked".into() });
    catch_unwind(AssertUnwindSafe(|| migrate_to_now(database, dir, path))).unwrap_or_else(panicked)
}

fn migrate_to_now(database: &Database, dir: &Path, path: &Path) -> Result<Incarnation, OpenError> {
    let unusable = |error: redb::Error| OpenError::Unusable { path: path.to_owned(), source: Box::new(error) };
    let foreign = || OpenError::Foreign { path: path.to_owned() };
    let (format, incarnation) = read_meta(database).map_err(unusable)?.ok_or_else(foreign)?;
    if format > FORMAT_NOW {
        return Err(OpenError::Newer { dir: dir.to_owned(), format, known: FORMAT_NOW });
    }
    let done = usize::try_from(format).ok().and_then(|format| format.checked_sub(1)).ok_or_else(foreign)?;
    for (step, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        tracing::info!(from = step + 1, to = step + 2, "migrating the db");
        perform(database, *migration, step as u64 + 2).map_err(unusable)?;
    }
    Ok(Incarnation(incarnation))
}

fn perform(database: &Database, migration: Migration, format: u64) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    migration(&txn)?;
    txn.open_table(META)?.insert(FORMAT, format)?;
    txn.commit()?;
    Ok(())
}

/// Format and incarnation; none if the tables are not ours.
fn read_meta(database: &Database) -> Result<Option<(u64, u64)>, redb::Error> {
    let meta = match database.begin_read()?.open_table(META) {
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
        Ok(meta) => meta,
    };
    let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|number| number.value()));
    Ok(number(FORMAT)?.zip(number(INCARNATION)?))
}
