//! Changes by a log that triggers fill, which sees deletions.
//!
//! **What is exact, and why.** Entries have an order, and are read up to a place that the dialect knows to be settled: whatever could
//! still have been written at or before it is there, or was given up. So no entry can appear before a position that was passed. An
//! object is told of at its last entry, as it is in the same state of the database; where a later one is there already, but
//! can't be read yet, that one will tell of it.

use std::time::Duration;

use tidewaiter_connector::{Changes, Error, SyncOptions, SyncToken, warn};

use crate::database::{Database, Log, Place};
use crate::objects;
use crate::selection::Selection;
use crate::settings::{Class, Source};
use crate::token::{Entry, Position, Tokens, bad_uid};

/// A class whose changes are in a log.
pub(crate) struct Logged<'a> {
    pub(crate) class: &'a Class,
    pub(crate) watched: Option<&'a str>,
    pub(crate) tokens: Tokens,
}

/// Where the cells of an object begin in what a log gives.
const FIRST: usize = 3;

impl Logged<'_> {
    /// Begins to read, and the log, which has to note what objects are told apart by.
    fn begin(&self, database: &mut dyn Database, selection: &Selection<'_>, max: Duration) -> Result<Log, Error> {
        let table = match (self.watched, self.class.source()) {
            (Some(watched), _) => watched,
            (None, Source::Table(table) | Source::Query(table)) => table,
        };
        let log = database.begin_log(table, max)?;
        let uid = &selection.uid().name;
        if log.uid != *uid {
            return Err(selection.wrong(&format!("its uid is {uid:?}, and the log notes {:?}", log.uid)));
        }
        Ok(log)
    }

    /// After everything that is there.
    pub(crate) fn latest(
        &self,
        database: &mut dyn Database,
        selection: &Selection<'_>,
        max: Duration,
    ) -> Result<Position, Error> {
        let log = self.begin(database, selection, max)?;
        database.end()?;
        Ok(Position::Log(entry(&log, settled(&log)?)))
    }

    /// Hands over what changed.
    pub(crate) fn sync(
        &self,
        database: &mut dyn Database,
        (selection, since): (&Selection<'_>, Option<Position>),
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let log = self.begin(database, selection, Duration::from_millis(options.deadline_ms))?;
        match since {
            Some(Position::Log(entry)) => {
                checked(&entry, &log)?;
                self.entries(database, selection, &log, entry, changes)
            }
            Some(Position::Objects(uid, then)) => {
                checked(&then, &log)?;
                self.objects(database, selection, Some(uid), then, changes).map(Some)
            }
            _ => self.objects(database, selection, None, entry(&log, settled(&log)?), changes).map(Some),
        }
    }

    /// What the log tells of, after an entry.
    fn entries(
        &self,
        database: &mut dyn Database,
        selection: &Selection<'_>,
        log: &Log,
        since: Entry,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let Some(settled) = log.settled else {
            warn!("a transaction that began before goes on: changes wait for its end");
            return Ok(None);
        };
        let mut parameters = Vec::new();
        let of = (self.class.source(), selection.uid());
        let query = database.logged(&selection.cells(database), of, (&since, settled), &mut parameters);
        let mut reached = since.clone();
        let read = database.select(&query, &parameters, &mut |row| {
            let no_number = || Error::other("the server told no number");
            let transaction = row.cell(0)?.and_then(|text| text.parse().ok()).ok_or_else(no_number)?;
            let number = row.cell(1)?.and_then(|text| text.parse().ok()).ok_or_else(no_number)?;
            let entry = Entry { log: log.id.clone(), transaction, number };
            // A view may have several rows with one uid: they stand and fall together.
            if entry != reached {
                changes.checkpoint_when_due(|| Some(self.token(reached.clone())))?;
            }
            changes.push(match row.cell(FIRST)? {
                Some(_) => selection.delta(row, FIRST, None)?,
                None => selection.gone(row.cell(2)?.unwrap_or_default()),
            })?;
            reached = entry;
            Ok(())
        });
        read.map_err(|failure| {
            failure.or_bad_value(|error| {
                let problem = format!("the log has uids that are none of the column's type, so watch it anew: {error}");
                selection.wrong(&problem)
            })
        })?;
        // It stays close to the end of the log, so that what is trimmed is behind it.
        Ok((settled > since.place()).then(|| self.token(entry(log, settled))))
    }

    /// All objects, where there is no token to begin from: the log may have begun later than they did. What changes meanwhile is told
    /// again by the log, from the entry on that was the last when this was begun.
    fn objects(
        &self,
        database: &mut dyn Database,
        selection: &Selection<'_>,
        after: Option<String>,
        then: Entry,
        changes: &mut Changes,
    ) -> Result<SyncToken, Error> {
        let by_uid = objects::by_uid(database, selection, after.as_deref());
        let (query, parameters) = by_uid.map_err(|failure| failure.or_bad_value(|error| bad_uid(true, error)))?;
        let mut reached: Option<String> = None;
        let read = database.select(&query, &parameters, &mut |row| {
            let uid = selection.uid_of(row, 0)?;
            if let Some(last) = reached.as_ref().filter(|last| *last != uid) {
                let position = Position::Objects(last.clone(), then.clone());
                changes.checkpoint_when_due(|| Some(self.tokens.write(&position)))?;
            }
            changes.push(selection.delta(row, 0, None)?)?;
            reached = Some(uid.to_owned());
            Ok(())
        });
        read.map_err(|failure| failure.or_bad_value(|error| bad_uid(after.is_some(), error)))?;
        Ok(self.token(then))
    }

    fn token(&self, entry: Entry) -> SyncToken {
        self.tokens.write(&Position::Log(entry))
    }
}

fn settled(log: &Log) -> Result<Place, Error> {
    log.settled.ok_or_else(|| {
        Error::retryable("a transaction that began before goes on: what it writes can't be told from what is to come")
    })
}

fn entry(log: &Log, (transaction, number): Place) -> Entry {
    Entry { log: log.id.clone(), transaction, number }
}

/// Whether the log still has everything after an entry.
fn checked(entry: &Entry, log: &Log) -> Result<(), Error> {
    let bad = |problem: &str| Err(Error::invalid_sync_token(format!("the sync token {problem}")));
    if entry.log != log.id {
        return bad("is of another log: the table was made anew, or watched anew");
    }
    if entry.place() >= log.next {
        return bad("is later than anything in the log: an older state of the database was put back");
    }
    if log.trimmed.is_some_and(|trimmed| trimmed > entry.place()) {
        return bad("is older than what the log still has: it was trimmed meanwhile");
    }
    Ok(())
}
