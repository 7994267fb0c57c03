//! The db's storage on redb: the tables read and written, and the file opened again after the disk failed. Decides nothing:
//! what is written is planned by `store`, what a segment says is known to `segment`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::RunReport;
use tidewaiter_core::state::TypeState;

use super::store::{
    Counters, KEPT, Known, Prepared, ReadError, StorageError, Store, Verdict, Visit, Write, Written, plan,
};
use super::tables::{
    JOURNAL, LAST_RUN, LAST_SEQUENCE, META, RUNS, RUNS_OF, SINKS, STATES, TOKENS, ordered_key, parse, row, state_key,
};
use super::{Committed, TokenChange};

/// Memory for pages. The journal is appended and read once, so more hardly helps; redb's default of 1 GiB fills up with it
/// (measured: 528 MiB resident after a journal of 488 MiB).
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Opens the file; called again after the disk failed, because redb refuses all work from then on.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync>;

/// A redb file.
pub(super) struct RedbStore {
    opener: Opener,
    /// None while it can't be opened.
    database: RwLock<Option<Database>>,
    /// It has failed, and must be opened again.
    failed: AtomicBool,
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

impl RedbStore {
    pub(super) fn new(opener: Opener, database: Database) -> Self {
        Self { opener, database: RwLock::new(Some(database)), failed: AtomicBool::new(false) }
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

impl From<Fault> for StorageError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Engine(problem) => Self(problem),
            Fault::Read(error) => Self(error.to_string()),
        }
    }
}

impl Store for RedbStore {
    fn write(&self, group: &[Write]) -> Result<Written, StorageError> {
        Ok(self.with(|db| write_group(db, group))?)
    }

    fn counters(&self) -> Result<Counters, ReadError> {
        Ok(self.with(|db| read_counters(&db.begin_read()?.open_table(META)?))?)
    }

    fn states(&self) -> Result<BTreeMap<TypeKey, TypeState>, ReadError> {
        let read = |db: &Database| {
            let table = db.begin_read()?.open_table(STATES)?;
            let mut states = BTreeMap::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                let (connection, object_type) = key.value();
                let name = || format!("the state of {connection}/{object_type}");
                let key = type_key(connection, object_type, name)?;
                states.insert(key, parse(value.value(), name)?);
            }
            Ok(states)
        };
        Ok(self.with(read)?)
    }

    fn state(&self, key: &TypeKey) -> Result<Option<TypeState>, ReadError> {
        Ok(self.with(|db| read_state(&db.begin_read()?.open_table(STATES)?, key))?)
    }

    fn segments(&self, from: u64, visit: &mut Visit<'_>) -> Result<u64, ReadError> {
        let read = |db: &Database| {
            let txn = db.begin_read()?;
            let journal = txn.open_table(JOURNAL)?;
            let holder = journal.range(..=from)?.next_back().transpose()?;
            let start = holder.map_or(from, |(first, _)| first.value());
            for entry in journal.range(start..)? {
                let (first, bytes) = entry?;
                if visit(first.value(), bytes.value())?.is_break() {
                    break;
                }
            }
            Ok(read_counters(&txn.open_table(META)?)?.sequence)
        };
        Ok(self.with(read)?)
    }

    fn runs(&self, key: Option<&TypeKey>, limit: usize) -> Result<Vec<RunReport>, ReadError> {
        let read = |db: &Database| {
            let txn = db.begin_read()?;
            let reports = txn.open_table(RUNS)?;
            let report = |run: u64, bytes: &[u8]| parse(bytes, || format!("the report of run {run}"));
            let Some(key) = key else {
                let newest = reports.iter()?.rev().take(limit);
                return newest.map(|entry| entry.map(|(run, row)| Ok(report(run.value(), row.value())?))?).collect();
            };
            let mut found = Vec::new();
            for entry in txn.open_table(RUNS_OF)?.range(all_of(key))?.rev().take(limit) {
                let run = entry?.1.value();
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
            newest.map(|entry| Ok(parse(entry?.1.value(), name)?)).collect()
        };
        Ok(self.with(read)?)
    }

    fn sink_position(&self, sink: &str) -> Result<u64, ReadError> {
        let read = |db: &Database| Ok(db.begin_read()?.open_table(SINKS)?.get(sink)?.map_or(0, |row| row.value()));
        Ok(self.with(read)?)
    }
}

fn all_of(key: &TypeKey) -> RangeInclusive<(&str, &str, u64)> {
    ordered_key(key, 0)..=ordered_key(key, u64::MAX)
}

fn type_key(connection: &str, object_type: &str, name: impl Fn() -> String) -> Result<TypeKey, ReadError> {
    let bad = |error: tidewaiter_core::name::BadName| ReadError::Row { row: name(), problem: error.to_string() };
    Ok(TypeKey { connection: connection.parse().map_err(bad)?, object_type: object_type.parse().map_err(bad)? })
}

fn read_counters(meta: &impl ReadableTable<&'static str, u64>) -> Result<Counters, Fault> {
    let number = |name: &'static str| {
        let missing = || ReadError::Row { row: format!("{name} in the table meta"), problem: "it is not there".into() };
        Ok::<_, Fault>(meta.get(name)?.ok_or_else(missing)?.value())
    };
    Ok(Counters { sequence: number(LAST_SEQUENCE)?, run: number(LAST_RUN)? })
}

type StateKey = (&'static str, &'static str);

fn read_state(states: &impl ReadableTable<StateKey, &'static [u8]>, key: &TypeKey) -> Result<Option<TypeState>, Fault> {
    let Some(bytes) = states.get(state_key(key))? else { return Ok(None) };
    Ok(Some(parse(bytes.value(), || format!("the state of {key}"))?))
}

fn write_group(db: &Database, group: &[Write]) -> Result<Written, Fault> {
    let txn = db.begin_write()?;
    let mut counters = read_counters(&txn.open_table(META)?)?;
    let verdicts = {
        let states = txn.open_table(STATES)?;
        plan(group, &mut counters, |key| {
            let known = |state: TypeState| Known { revision: state.revision, name: state.sync.name() };
            Ok::<_, Fault>(read_state(&states, key)?.map(known))
        })?
    };
    let sequences = |verdict: &Verdict| match verdict {
        Verdict::Conflict => None,
        Verdict::Write { sequences, .. } => Some(*sequences),
    };
    let members: Vec<Option<Committed>> = verdicts.iter().map(sequences).collect();
    if members.iter().all(Option::is_none) {
        txn.abort()?;
        return Ok(Written { members, counters });
    }
    for (write, verdict) in group.iter().zip(&verdicts) {
        match (write, verdict) {
            (_, Verdict::Conflict) => {}
            (Write::SinkPosition { sink, sequence }, _) => {
                txn.open_table(SINKS)?.insert(sink.as_str(), sequence)?;
            }
            (Write::Commit(commit), Verdict::Write { sequences, history }) => {
                write_commit(&txn, commit, sequences.first, *history)?;
            }
        }
    }
    write_counters(&txn, counters)?;
    txn.commit()?;
    Ok(Written { members, counters })
}

fn write_counters(txn: &WriteTransaction, counters: Counters) -> Result<(), Fault> {
    let mut meta = txn.open_table(META)?;
    meta.insert(LAST_SEQUENCE, counters.sequence)?;
    meta.insert(LAST_RUN, counters.run)?;
    Ok(())
}

fn write_commit(txn: &WriteTransaction, commit: &Prepared, first: u64, history: bool) -> Result<(), Fault> {
    let mut journal = txn.open_table(JOURNAL)?;
    let mut next = first;
    for segment in &commit.segments {
        journal.insert(next, segment.bytes.as_slice())?;
        next += u64::from(segment.count);
    }
    txn.open_table(STATES)?.insert(state_key(&commit.key), row(&commit.state)?.as_slice())?;
    if history {
        write_token_change(txn, commit)?;
    }
    match &commit.report {
        Some(report) => write_report(txn, report),
        None => Ok(()),
    }
}

fn write_token_change(txn: &WriteTransaction, commit: &Prepared) -> Result<(), Fault> {
    let mut history = txn.open_table(TOKENS)?;
    let change = TokenChange::new(&commit.state, commit.run, commit.at);
    let newest = history.range(all_of(&commit.key))?.next_back().transpose()?;
    let ordinal = match &newest {
        // The run that established a token ends with it: that is one event.
        Some((_, last)) if !commit.marked && same_token(last.value(), &change) => return Ok(()),
        Some((key, _)) => key.value().2 + 1,
        None => 1,
    };
    drop(newest);
    history.insert(ordered_key(&commit.key, ordinal), row(&change)?.as_slice())?;
    if ordinal > KEPT {
        history.remove(ordered_key(&commit.key, ordinal - KEPT))?;
    }
    Ok(())
}

fn same_token(last: &[u8], change: &TokenChange) -> bool {
    let last = serde_json::from_slice::<TokenChange>(last);
    last.is_ok_and(|last| {
        (&last.state, &last.token, last.generation) == (&change.state, &change.token, change.generation)
    })
}

fn write_report(txn: &WriteTransaction, report: &RunReport) -> Result<(), Fault> {
    let mut reports = txn.open_table(RUNS)?;
    if reports.insert(report.run, row(report)?.as_slice())?.is_some() {
        return Ok(());
    }
    let mut runs_of = txn.open_table(RUNS_OF)?;
    let newest = runs_of.range(all_of(&report.key))?.next_back().transpose()?;
    let ordinal = newest.map_or(1, |(key, _)| key.value().2 + 1);
    runs_of.insert(ordered_key(&report.key, ordinal), report.run)?;
    if ordinal > KEPT {
        let oldest = runs_of.remove(ordered_key(&report.key, ordinal - KEPT))?;
        if let Some(run) = oldest.map(|run| run.value()) {
            reports.remove(run)?;
        }
    }
    Ok(())
}
