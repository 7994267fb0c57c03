//! The db's storage on redb: the file, opened again after the disk failed, and what is read from it. `write` writes a group,
//! `chore` what is done alone, `rekey` seals anew, `copy` copies, `check` and `overlay` look for damage. Decides nothing: what is
//! written is planned by `store`, what a segment says is known to `segment`.

mod check;
mod chore;
mod copy;
mod dead_letter;
mod figures;
mod overlay;
mod refused;
mod rekey;
mod shadow;
mod write;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::name::{BadName, ConnectionName, ConnectorName, TypeKey};
use tidewaiter_core::run::RunReport;
use tidewaiter_core::state::TypeState;

pub(super) use self::copy::renew;
use super::consumer::Consumer;
use super::dead_letter::StoredLetter;
use super::refused::RefusedEntry;
use super::seal::{Keys, Kind, SealError};
use super::sensitive::Sensitive;
use super::shadow::{Shadow, StoredRow};
use super::store::{Chore, Counters, Done, Quota, ReadError, StorageError, Store, Usage, Visit, Write, Written};
use super::tables::{
    APPROVED, BYTES, CONSUMERS, DEAD_LETTERS, FAULTS, FIRST_SEQUENCE, INDEX, LAST_DEAD_LETTER, LAST_RUN, LAST_SEGMENT,
    LAST_SEQUENCE, META, PLACEMENTS, REVISIONS, RUNS, RUNS_OF, SEGMENTS, SENSITIVE, SHADOWS, SINKS, STATES, TOKENS,
    USAGE, VAULT, ordered_key, parse, state_key,
};
use super::{Checked, CommitError, Faults, Figures, Placement, Revision, TokenChange};

/// Memory for pages. The journal is appended and read once, so more hardly helps; redb's default of 1 GiB fills up with it
/// (measured: 528 MiB resident after a journal of 488 MiB).
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Opens the file; called again after the disk failed, because redb refuses all work from then on.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync>;

/// A redb file.
pub(super) struct RedbStore {
    opener: Opener,
    /// The file itself; none: it isn't one.
    file: Option<PathBuf>,
    /// None while it can't be opened.
    database: RwLock<Option<Database>>,
    keys: Arc<Keys>,
    /// It has failed, and must be opened again.
    failed: AtomicBool,
    /// Held while something is written.
    writing: Mutex<()>,
}

/// What every open has in common: cache, and a line in the log when a crash left something to repair.
pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_repair_callback(|session| {
        tracing::info!(percent = session.progress() * 100.0, "checking the db after an unclean end");
    });
    builder
}

/// Opens the file of an existing db.
pub(super) fn opener(path: &Path) -> Opener {
    let path = path.to_owned();
    Box::new(move || builder().open(&path))
}

/// Opens the file for the first time.
pub(super) fn first_open(opener: &Opener) -> Result<Database, StorageError> {
    Ok(caught(|| Ok(opener()?))?)
}

/// What is wrong with the file of a db that nobody has open, in the engine's words. Changes nothing.
pub(super) fn examine(path: &Path, keys: &Keys) -> Result<Vec<String>, ReadError> {
    let mut problems = overlay::examine(path)?;
    if !problems.is_empty() {
        // Reading only goes where the tables are, and may say which of them it is.
        let read = || check::check(&Database::builder().open_read_only(path)?, true, keys);
        problems.extend(caught(read).map(|checked| checked.problems).unwrap_or_default());
    }
    Ok(problems)
}

/// What doesn't fit in a db that nothing else uses yet.
pub(super) fn problems(database: &Database, keys: &Keys) -> Result<Vec<String>, ReadError> {
    Ok(caught(|| check::check(database, true, keys))?.problems)
}

impl RedbStore {
    pub(super) fn new(opener: Opener, file: Option<PathBuf>, database: Database, keys: Arc<Keys>) -> Self {
        Self {
            opener,
            file,
            database: RwLock::new(Some(database)),
            keys,
            failed: AtomicBool::new(false),
            writing: Mutex::new(()),
        }
    }

    /// A row that is never sealed.
    fn row<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
        key: &str,
        name: impl FnOnce() -> String,
    ) -> Result<Option<T>, ReadError> {
        let read = |db: &Database| {
            let table = db.begin_read()?.open_table(table)?;
            let Some(row) = table.get(key)? else { return Ok(None) };
            Ok(Some(parse(row.value(), name)?))
        };
        Ok(self.with(read)?)
    }

    /// Does some work on the open db. Whatever the engine complains of, it is opened again before the next work.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.failed.load(Ordering::Acquire) {
            self.reopen()?;
        }
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(|| Fault::Engine("it is closed after a failure".into()))?;
        let result = caught(|| work(database));
        if matches!(result, Err(Fault::Engine(_))) {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    /// Does some work that needs the db for itself.
    fn alone<T>(&self, work: impl FnOnce(&mut Database) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.failed.load(Ordering::Acquire) {
            self.reopen()?;
        }
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_mut().ok_or_else(|| Fault::Engine("it is closed after a failure".into()))?;
        let result = caught(|| work(database));
        self.failed.fetch_or(matches!(result, Err(Fault::Engine(_))), Ordering::AcqRel);
        result
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reopen(&self) -> Result<(), Fault> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        // The file is locked until the old one is gone.
        *slot = None;
        *slot = Some(caught(|| Ok((self.opener)()?))?);
        self.failed.store(false, Ordering::Release);
        tracing::info!("the db is open again after a failure");
        Ok(())
    }
}

/// redb trusts a file that was closed cleanly and may panic on one that was changed since; that must cost an error, not the
/// writer's thread.
fn caught<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let panicked =
        || Fault::Engine("the storage engine panicked: the file was changed by something else, or is damaged".into());
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

/// The engine failed, or what it read makes no sense.
enum Fault {
    Engine(String),
    Read(ReadError),
}

macro_rules! engine_faults {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                Self::Engine(error.to_string())
            }
        })*
    };
}
engine_faults!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Read(ReadError::Row { row: "a row to be written".into(), problem: error.to_string() })
    }
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Engine(problem) => Self::Storage(problem),
            Fault::Read(error) => error,
        }
    }
}

impl From<Fault> for CommitError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Engine(problem) => Self::Storage(problem),
            Fault::Read(error) => Self::Storage(error.to_string()),
        }
    }
}

impl From<Fault> for StorageError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Engine(problem) => Self(problem),
            Fault::Read(error) => Self(error.to_string()),
        }
    }
}

impl Store for RedbStore {
    fn write(&self, group: &[Write], quota: Quota) -> Result<Written, StorageError> {
        let _writing = self.writing();
        Ok(self.with(|db| write::group(db, group, quota, &self.keys))?)
    }

    fn chore(&self, chore: &Chore) -> Result<Done, CommitError> {
        let _writing = self.writing();
        Ok(self.with(|db| chore::perform(db, chore, &self.keys))?)
    }

    fn counters(&self) -> Result<Counters, ReadError> {
        Ok(self.with(|db| read_counters(&db.begin_read()?.open_table(META)?))?)
    }

    fn states(&self) -> Result<BTreeMap<TypeKey, TypeState>, ReadError> {
        Ok(self.with(|db| read_states(&db.begin_read()?.open_table(STATES)?, &self.keys))?)
    }

    fn state(&self, key: &TypeKey) -> Result<Option<TypeState>, ReadError> {
        Ok(self.with(|db| read_state(&db.begin_read()?.open_table(STATES)?, key, &self.keys))?)
    }

    fn segments(&self, of: Option<&ConnectionName>, from: u64, visit: &mut Visit<'_>) -> Result<u64, ReadError> {
        let read = |db: &Database| {
            let txn = db.begin_read()?;
            let counters = read_counters(&txn.open_table(META)?)?;
            if from < counters.first {
                return Err(ReadError::Dropped { first: counters.first }.into());
            }
            let (index, segments) = (txn.open_table(INDEX)?, txn.open_table(SEGMENTS)?);
            let holder = index.range(..=from)?.next_back().transpose()?;
            let start = holder.map_or(from, |(first, _)| first.value());
            for entry in index.range(start..)? {
                let (first, segment) = entry?;
                let (first, (number, count, _, _, connection)) = (first.value(), segment.value());
                if of.is_some_and(|of| of.as_str() != connection) {
                    continue;
                }
                let lost = || ReadError::Missing { first, last: first + u64::from(count).saturating_sub(1) };
                let bytes = segments.get(number)?.ok_or_else(lost)?;
                let damaged = |damage| ReadError::Segment { first, damage };
                if visit(first, &self.keys.segment(bytes.value()).map_err(damaged)?)?.is_break() {
                    break;
                }
            }
            Ok(counters.sequence)
        };
        Ok(self.with(read)?)
    }

    fn runs(&self, key: Option<&TypeKey>, before: u64, limit: usize) -> Result<Vec<RunReport>, ReadError> {
        let read = |db: &Database| {
            let txn = db.begin_read()?;
            let reports = txn.open_table(RUNS)?;
            let report =
                |run: u64, bytes: &[u8]| self.keys.parse(Kind::Run, bytes, || format!("the report of run {run}"));
            let Some(key) = key else {
                let newest = reports.range(..before)?.rev().take(limit);
                return newest.map(|entry| entry.map(|(run, row)| Ok(report(run.value(), row.value())?))?).collect();
            };
            let mut found = Vec::new();
            for entry in txn.open_table(RUNS_OF)?.range(all_of(key))?.rev() {
                let run = entry?.1.value();
                if run >= before {
                    continue;
                }
                if found.len() >= limit {
                    break;
                }
                let missing =
                    || ReadError::Row { row: format!("the report of run {run}"), problem: "it is not there".into() };
                found.push(report(run, reports.get(run)?.ok_or_else(missing)?.value())?);
            }
            Ok(found)
        };
        Ok(self.with(read)?)
    }

    fn token_history(&self, key: &TypeKey, limit: usize) -> Result<Vec<TokenChange>, ReadError> {
        let read = |db: &Database| {
            let history = db.begin_read()?.open_table(TOKENS)?;
            let newest = history.range(all_of(key))?.rev().take(limit);
            let name = || format!("the token history of {key}");
            newest.map(|entry| Ok(self.keys.parse(Kind::Token, entry?.1.value(), name)?)).collect()
        };
        Ok(self.with(read)?)
    }

    fn sink_position(&self, sink: &str) -> Result<u64, ReadError> {
        let read = |db: &Database| Ok(db.begin_read()?.open_table(SINKS)?.get(sink)?.map_or(0, |row| row.value()));
        Ok(self.with(read)?)
    }

    fn consumers(&self) -> Result<BTreeMap<String, Consumer>, ReadError> {
        Ok(self.with(|db| read_consumers(&db.begin_read()?.open_table(CONSUMERS)?))?)
    }

    fn figures(&self) -> Result<Figures, ReadError> {
        Ok(self.with(|db| figures::read(db, &self.keys))?)
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        let read = |db: &Database| {
            let txn = db.begin_read()?;
            read_usage(&txn.open_table(META)?, &txn.open_table(USAGE)?)
        };
        Ok(self.with(read)?)
    }

    fn held(&self, connection: &ConnectionName) -> Result<(u64, u64), ReadError> {
        let read = |db: &Database| {
            let txn = db.begin_read()?;
            let held = txn.open_table(USAGE)?.get(connection.as_str())?.map_or(0, |row| row.value());
            Ok((held, read_number(&txn.open_table(META)?, BYTES)?))
        };
        Ok(self.with(read)?)
    }

    fn drop_staged(&self) -> Result<u64, StorageError> {
        let drop_all = |db: &Database| {
            let txn = db.begin_write()?;
            let dropped = {
                let mut tables = write::Tables::open(&txn, &self.keys)?;
                let staged = tables.staged()?;
                tables.discard(&staged)?
            };
            write::end(txn, dropped > 0)?;
            Ok(dropped)
        };
        Ok(self.with(drop_all)?)
    }

    fn sensitive(&self) -> Result<Sensitive, ReadError> {
        let read = |db: &Database| {
            let mut all = Sensitive::default();
            for entry in db.begin_read()?.open_table(SENSITIVE)?.iter()? {
                let (key, _) = entry?;
                let (connection, class, attribute) = key.value();
                all.insert(connection, class, attribute);
            }
            Ok(all)
        };
        Ok(self.with(read)?)
    }

    fn approved(&self, connection: &ConnectionName) -> Result<Option<Approved>, ReadError> {
        self.row(APPROVED, connection.as_str(), || format!("what is approved for {connection}"))
    }

    fn faults(&self, connector: &ConnectorName) -> Result<Option<Faults>, ReadError> {
        self.row(FAULTS, connector.as_str(), || format!("what went wrong with {connector}"))
    }

    fn placements(&self) -> Result<BTreeMap<ConnectionName, Placement>, ReadError> {
        let read = |db: &Database| {
            let mut all = BTreeMap::new();
            for entry in db.begin_read()?.open_table(PLACEMENTS)?.iter()? {
                let (name, placement) = entry?;
                let what = || format!("what {} runs", name.value());
                let Ok(connection) = name.value().parse() else { continue };
                all.insert(connection, parse(placement.value(), what)?);
            }
            Ok(all)
        };
        Ok(self.with(read)?)
    }

    fn revisions(&self) -> Result<BTreeMap<ConnectorName, Vec<Revision>>, ReadError> {
        let read = |db: &Database| {
            let mut all: BTreeMap<ConnectorName, Vec<Revision>> = BTreeMap::new();
            for entry in db.begin_read()?.open_table(REVISIONS)?.iter()? {
                let (key, revision) = entry?;
                let (name, sha256) = key.value();
                let what = || format!("the file {sha256} of {name}");
                let Ok(connector) = name.parse() else { continue };
                all.entry(connector).or_default().push(parse(revision.value(), what)?);
            }
            Ok(all)
        };
        Ok(self.with(read)?)
    }

    fn shadow(&self, key: &TypeKey) -> Result<Option<Shadow>, ReadError> {
        Ok(self.with(|db| shadow::read(&db.begin_read()?.open_table(SHADOWS)?, key, &self.keys))?)
    }

    fn shadows(&self) -> Result<BTreeMap<TypeKey, Shadow>, ReadError> {
        Ok(self.with(|db| shadow::read_all(&db.begin_read()?.open_table(SHADOWS)?, &self.keys))?)
    }

    fn shadow_range(&self, id: u32, from: u128) -> Result<Vec<StoredRow>, ReadError> {
        Ok(self.with(|db| shadow::range(db, id, from))?)
    }

    fn dead_letters(&self, of: Option<&TypeKey>) -> Result<Vec<StoredLetter>, ReadError> {
        let read = |db: &Database| dead_letter::read(&db.begin_read()?.open_table(DEAD_LETTERS)?, of, &self.keys);
        Ok(self.with(read)?)
    }

    fn refused(&self, of: Option<&str>) -> Result<BTreeMap<String, Vec<RefusedEntry>>, ReadError> {
        Ok(self.with(|db| refused::read(&db.begin_read()?, of, &self.keys))?)
    }

    fn kept(&self, credential: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let read = |db: &Database| {
            let vault = db.begin_read()?.open_table(VAULT)?;
            let Some(row) = vault.get(credential)? else { return Ok(None) };
            let bad = |error: SealError| ReadError::Row {
                row: format!("the refresh token of {credential}"),
                problem: error.to_string(),
            };
            Ok(Some(self.keys.open(Kind::Vault, row.value()).map_err(bad)?.into_owned()))
        };
        Ok(self.with(read)?)
    }

    fn compact(&self) -> Result<bool, StorageError> {
        Ok(self.alone(|db| db.compact().map_err(|error| Fault::Engine(error.to_string())))?)
    }

    fn backup(&self, to: &Path) -> Result<(), StorageError> {
        Ok(self.with(|db| copy::backup(db, to, &self.keys))?)
    }

    fn check(&self, deep: bool) -> Result<Checked, ReadError> {
        Ok(self.with(|db| check::check(db, deep, &self.keys))?)
    }

    fn examine(&self) -> Result<Vec<String>, ReadError> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        // Readers go on; the writer waits.
        let _writing = self.writing();
        Ok(overlay::examine(file)?)
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        let slot = self.database.get_mut().unwrap_or_else(PoisonError::into_inner);
        let close = |database: Database| database.close().map_err(|error| Fault::Engine(error.to_string()));
        if let Some(Err(Fault::Engine(problem))) = slot.take().map(|database| caught(|| close(database))) {
            tracing::error!("the db could not be closed: {problem}");
        }
    }
}

fn all_of(key: &TypeKey) -> RangeInclusive<(&str, &str, u64)> {
    ordered_key(key, 0)..=ordered_key(key, u64::MAX)
}

fn type_key(connection: &str, object_type: &str, name: impl Fn() -> String) -> Result<TypeKey, ReadError> {
    let bad = |error: BadName| ReadError::Row { row: name(), problem: error.to_string() };
    Ok(TypeKey { connection: connection.parse().map_err(bad)?, object_type: object_type.parse().map_err(bad)? })
}

fn read_number(meta: &impl ReadableTable<&'static str, u64>, name: &'static str) -> Result<u64, Fault> {
    let missing = || ReadError::Row { row: format!("{name} in the table meta"), problem: "it is not there".into() };
    Ok(meta.get(name)?.ok_or_else(missing)?.value())
}

fn read_counters(meta: &impl ReadableTable<&'static str, u64>) -> Result<Counters, Fault> {
    Ok(Counters {
        first: read_number(meta, FIRST_SEQUENCE)?,
        sequence: read_number(meta, LAST_SEQUENCE)?,
        run: read_number(meta, LAST_RUN)?,
        segment: read_number(meta, LAST_SEGMENT)?,
        letter: read_number(meta, LAST_DEAD_LETTER)?,
    })
}

fn read_usage(
    meta: &impl ReadableTable<&'static str, u64>,
    usage: &impl ReadableTable<&'static str, u64>,
) -> Result<Usage, Fault> {
    let connections = usage.iter()?.map(|entry| entry.map(|(name, bytes)| (name.value().to_owned(), bytes.value())));
    Ok(Usage { total: read_number(meta, BYTES)?, connections: connections.collect::<Result<_, _>>()? })
}

fn read_sinks(sinks: &impl ReadableTable<&'static str, u64>) -> Result<BTreeMap<String, u64>, Fault> {
    let positions = sinks.iter()?.map(|entry| entry.map(|(name, at)| (name.value().to_owned(), at.value())));
    Ok(positions.collect::<Result<_, _>>()?)
}

fn read_consumer(
    consumers: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<Consumer>, Fault> {
    let Some(bytes) = consumers.get(name)? else { return Ok(None) };
    Ok(Some(parse(bytes.value(), || format!("the consumer {name}"))?))
}

fn read_consumers(
    consumers: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<BTreeMap<String, Consumer>, Fault> {
    let mut all = BTreeMap::new();
    for entry in consumers.iter()? {
        let (name, bytes) = entry?;
        let name = name.value().to_owned();
        let consumer = parse(bytes.value(), || format!("the consumer {name}"))?;
        all.insert(name, consumer);
    }
    Ok(all)
}

type StateKey = (&'static str, &'static str);

fn read_state(
    states: &impl ReadableTable<StateKey, &'static [u8]>,
    key: &TypeKey,
    keys: &Keys,
) -> Result<Option<TypeState>, Fault> {
    of_type(states, key, (Kind::State, keys), "the state of")
}

fn read_states(
    states: &impl ReadableTable<StateKey, &'static [u8]>,
    keys: &Keys,
) -> Result<BTreeMap<TypeKey, TypeState>, Fault> {
    of_types(states, (Kind::State, keys), "the state of")
}

/// The sealed row of a type; `what` is its name in errors.
fn of_type<T: DeserializeOwned>(
    table: &impl ReadableTable<StateKey, &'static [u8]>,
    key: &TypeKey,
    (kind, keys): (Kind, &Keys),
    what: &str,
) -> Result<Option<T>, Fault> {
    let Some(bytes) = table.get(state_key(key))? else { return Ok(None) };
    Ok(Some(keys.parse(kind, bytes.value(), || format!("{what} {key}"))?))
}

/// The sealed rows of all types.
fn of_types<T: DeserializeOwned>(
    table: &impl ReadableTable<StateKey, &'static [u8]>,
    (kind, keys): (Kind, &Keys),
    what: &str,
) -> Result<BTreeMap<TypeKey, T>, Fault> {
    let mut all = BTreeMap::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let (connection, object_type) = key.value();
        let name = || format!("{what} {connection}/{object_type}");
        all.insert(type_key(connection, object_type, name)?, keys.parse(kind, value.value(), name)?);
    }
    Ok(all)
}
