//! Changes by a log that triggers fill, which sees deletions.
//!
//! **What is exact, and why.** An entry has the number of its transaction. Entries are read in the order of (transaction, number), and
//! only those of transactions before the oldest one that still goes on: none of those can write any more, so no entry can appear
//! before a position that was passed. An object is told of at its last entry, as it is in the same state of the database;
//! where a later one is there already, but can't be read yet, that one will tell of it.

use std::time::Duration;

use tidewaiter_connector::{Changes, Error, SyncOptions, SyncToken};

use crate::database::{Database, Log};
use crate::selection::Selection;
use crate::settings::{Class, Source};
use crate::token::{Entry, Position, Tokens};

/// Larger than every number of an entry.
const LAST: u64 = i64::MAX.unsigned_abs();

/// A class whose changes are in a log.
pub(crate) struct Logged<'a> {
    pub(crate) class: &'a Class,
    pub(crate) watched: Option<&'a str>,
    pub(crate) tokens: Tokens,
}

impl Logged<'_> {
    /// After everything that has ended.
    pub(crate) fn latest(database: &mut dyn Database) -> Result<Position, Error> {
        Ok(settled(&database.log()?))
    }

    /// The table that is watched, quoted.
    fn watched(&self, database: &dyn Database) -> String {
        let table = match (self.watched, self.class.source()) {
            (Some(watched), _) => watched,
            (None, Source::Table(table) | Source::Query(table)) => table,
        };
        table.split('.').map(|part| database.quoted(part)).collect::<Vec<_>>().join(".")
    }

    /// Hands over what changed.
    pub(crate) fn sync(
        &self,
        database: &mut dyn Database,
        (class, since): (&str, Option<Position>),
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let selection = Selection::of(database, class, self.class, options.attributes.as_deref())?;
        database.begin(Duration::from_millis(options.deadline_ms))?;
        let log = database.log()?;
        let Some(since) = since else { return self.everything(database, &selection, &log, changes) };
        let since = checked(since, &log)?;
        let query = database.logged(&selection.cells(database), self.class.source(), selection.uid());
        let watched = self.watched(database);
        let parameters = [watched.as_str(), &since.transaction.to_string(), &since.number.to_string()];
        let mut reached = None;
        database.select(&query, &parameters, &mut |row| {
            let number = |place| row.cell(place)?.and_then(|text| text.parse().ok()).ok_or_else(no_number);
            let entry = Entry { log: log.id.clone(), transaction: number(0)?, number: number(1)? };
            let uid = row.cell(2)?.unwrap_or_default();
            changes.push(match row.cell(FIRST)? {
                Some(_) => selection.delta(row, FIRST, None)?,
                None => selection.gone(uid),
            })?;
            changes.checkpoint_when_due(|| Some(self.tokens.write(&Position::Log(entry.clone()))))?;
            reached = Some(entry);
            Ok(())
        })?;
        Ok(reached.map(|entry| self.tokens.write(&Position::Log(entry))))
    }

    /// All objects, where there is no token to begin from: the log may have begun later than they did.
    fn everything(
        &self,
        database: &mut dyn Database,
        selection: &Selection<'_>,
        log: &Log,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let query = format!("SELECT {} FROM {}", selection.cells(database), database.from(self.class.source()));
        database.select(&query, &[], &mut |row| Ok(changes.push(selection.delta(row, 0, None)?)?))?;
        Ok(Some(self.tokens.write(&settled(log))))
    }
}

/// Where the cells of an object begin.
const FIRST: usize = 3;

fn no_number() -> Error {
    Error::other("the server told no number")
}

fn settled(log: &Log) -> Position {
    Position::Log(Entry { log: log.id.clone(), transaction: log.settled, number: LAST })
}

/// An entry after which the log still has everything.
fn checked(position: Position, log: &Log) -> Result<Entry, Error> {
    let bad = |problem: &str| Err(Error::invalid_sync_token(format!("the sync token {problem}")));
    let Position::Log(entry) = position else { return bad("is of no log") };
    if entry.log != log.id {
        return bad("is of another log: of another database, or of one that was made anew");
    }
    if entry.transaction >= log.next {
        return bad("is later than anything in the log: an older state of the database was put back");
    }
    if log.trimmed.is_some_and(|trimmed| trimmed > (entry.transaction, entry.number)) {
        return bad("is older than what the log still has: it was trimmed meanwhile");
    }
    Ok(entry)
}
