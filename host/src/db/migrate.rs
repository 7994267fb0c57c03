//! The format of the whole db, numbered: creates it, brings an older one up, refuses a newer one and whatever isn't ours. Never
//! rebuilds anything.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::{Database, ReadableDatabase, TableError, WriteTransaction};
use tidewaiter_core::journal::Incarnation;

use super::open::OpenError;
use super::redb::builder;
use super::tables::{
    FORMAT, INCARNATION, JOURNAL, LAST_RUN, LAST_SEQUENCE, META, RUNS, RUNS_OF, SINKS, STATES, TOKENS,
};

/// Brings a db from one format to the next, in one transaction and so that doing it again does no harm.
type Migration = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// The n-th leads from format n to n + 1.
const MIGRATIONS: [Migration; 0] = [];

/// The format that this host writes.
const FORMAT_NOW: u64 = MIGRATIONS.len() as u64 + 1;

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

fn write_first(database: &Database) -> Result<(), redb::Error> {
    let incarnation = getrandom::u64().map_err(|error| redb::Error::Io(io::Error::other(error)))?;
    let txn = database.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        for (name, number) in [(FORMAT, FORMAT_NOW), (INCARNATION, incarnation), (LAST_SEQUENCE, 0), (LAST_RUN, 0)] {
            meta.insert(name, number)?;
        }
        txn.open_table(STATES)?;
        txn.open_table(JOURNAL)?;
        txn.open_table(RUNS)?;
        txn.open_table(RUNS_OF)?;
        txn.open_table(TOKENS)?;
        txn.open_table(SINKS)?;
    }
    txn.commit()?;
    Ok(())
}

/// Makes sure that the db has the format of this host.
pub(super) fn migrate(database: &Database, dir: &Path, path: &Path) -> Result<Incarnation, OpenError> {
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
