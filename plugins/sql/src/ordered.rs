//! Changes by a column that only grows: a time, or a number.
//!
//! **What is exact, and why.** Rows are read in the order of (column, uid), from the token on, up to a bound behind which nothing
//! more can become visible; so no row can appear before a position that was passed. The uid is part of the position, so rows
//! with an equal time or number are neither skipped nor repeated.

use std::time::Duration;

use tidewaiter_connector::{Changes, Error, SyncOptions, SyncToken, warn};

use crate::database::{Column, Database, Failure, one};
use crate::selection::Selection;
use crate::settings::{Class, Feed};
use crate::token::{Position, Tokens, bad_uid};

/// A class whose changes have an order.
pub(crate) struct Ordered<'a> {
    pub(crate) class: &'a Class,
    pub(crate) feed: &'a Feed,
    pub(crate) column: &'a str,
    pub(crate) tokens: Tokens,
}

impl Ordered<'_> {
    fn is_time(&self) -> bool {
        matches!(self.feed, Feed::Timestamp { .. })
    }

    /// The latest position. None: there is no row.
    pub(crate) fn latest(
        &self,
        database: &mut dyn Database,
        selection: &Selection<'_>,
    ) -> Result<Option<Position>, Error> {
        database.knows_writers(self.class.source())?;
        if self.is_time() {
            let settled = database.settled_time(self.feed.lag())?;
            let settled = settled.ok_or_else(|| Error::retryable("what goes on can't be told from what is over"))?;
            return Ok(Some(Position::From(settled)));
        }
        let column = self.column(selection, database)?;
        let latest = self.largest(database, column)?;
        if latest.is_some() && !database.settle(self.feed.lag())? {
            return Err(Error::retryable(
                "a transaction that began before goes on: its changes are not to be seen yet",
            ));
        }
        Ok(latest.map(|number| Position::After(number, None)))
    }

    fn largest(&self, database: &mut dyn Database, column: &Column) -> Result<Option<String>, Error> {
        let query = format!("SELECT max({}) FROM {}", database.raw(column), database.from(self.class.source()));
        let [largest] = one(database, &query, &[])?;
        Ok(largest)
    }

    /// The bound of this run; none: there is nothing to read.
    fn bound(
        &self,
        database: &mut dyn Database,
        column: &Column,
        since: Option<&Position>,
    ) -> Result<Option<String>, Error> {
        if self.is_time() {
            let time = match since {
                Some(Position::From(time) | Position::After(time, _)) => Some(time),
                _ => None,
            };
            if let Some(time) = time
                && database.is_to_come(time)?
            {
                return Err(Error::invalid_sync_token("the sync token is of a time that is still to come"));
            }
            return database.settled_time(self.feed.lag());
        }
        let largest = self.largest(database, column)?;
        if let (Some(largest), Some(Position::After(number, None))) = (&largest, since)
            && largest == number
        {
            return Ok(None);
        }
        if largest.is_some() && !database.settle(self.feed.lag())? {
            warn!("a transaction that began before goes on: changes wait for its end");
            return Ok(None);
        }
        Ok(largest)
    }

    /// Hands over what changed.
    pub(crate) fn sync(
        &self,
        database: &mut dyn Database,
        (selection, since): (&Selection<'_>, Option<Position>),
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        database.knows_writers(self.class.source())?;
        let column = self.column(selection, database)?;
        let Some(bound) = self.bound(database, column, since.as_ref())? else { return Ok(None) };
        let (query, parameters) = self
            .query(database, selection, since.as_ref(), &bound)
            .map_err(|failure| failure.or_bad_value(|error| bad_uid(since.is_some(), error)))?;
        database.begin(Duration::from_millis(options.deadline_ms))?;
        let mut reached: Option<(String, String)> = None;
        let read = database.select(&query, &parameters, &mut |row| {
            let at = row.cell(0)?.unwrap_or_default();
            let uid = selection.uid_of(row, 1)?;
            if let Some((time, key)) = &reached
                && (time.as_str(), key.as_str()) != (at, uid)
            {
                changes.checkpoint_when_due(|| Some(self.after(time, key)))?;
            }
            changes.push(selection.delta(row, 1, self.is_time().then_some(at))?)?;
            keep(&mut reached, at, uid);
            Ok(())
        });
        read.map_err(|failure| failure.or_bad_value(|error| bad_uid(since.is_some(), error)))?;
        Ok(match (self.is_time(), reached) {
            // All that have it or less were there.
            (false, Some(_)) => Some(self.tokens.write(&Position::After(bound, None))),
            (_, reached) => reached.map(|(time, key)| self.after(&time, &key)),
        })
    }

    fn after(&self, at: &str, key: &str) -> SyncToken {
        self.tokens.write(&Position::After(at.to_owned(), Some(key.to_owned())))
    }

    fn query(
        &self,
        database: &dyn Database,
        selection: &Selection<'_>,
        since: Option<&Position>,
        bound: &str,
    ) -> Result<(String, Vec<String>), Failure> {
        let (column, uid) = (self.column(selection, database)?, database.key(selection.uid()));
        let at = database.raw(column);
        let compared = if self.is_time() { "<" } else { "<=" };
        let mut parameters = Vec::new();
        let mut conditions = vec![format!("{at} {compared} {}", database.value(column, bound, &mut parameters)?)];
        match since {
            None => conditions.push(database.has(column)),
            Some(Position::From(time)) => {
                conditions.push(format!("{at} >= {}", database.value(column, time, &mut parameters)?));
            }
            Some(Position::After(position, None)) => {
                conditions.push(database.after(column, position, &mut parameters)?);
            }
            Some(Position::After(position, Some(key))) => {
                conditions.push(database.after_both((column, position), (selection.uid(), key), &mut parameters)?);
            }
            Some(Position::Log(_) | Position::Objects(..)) => {
                return Err(Error::invalid_sync_token("the sync token is of a log").into());
            }
        }
        let (cells, from) = (selection.cells(database), selection.from(database));
        let conditions = conditions.join(" AND ");
        Ok((format!("SELECT {at}, {cells} FROM {from} WHERE {conditions} ORDER BY {at}, {uid}"), parameters))
    }

    /// The column, if it can say what the strategy needs.
    fn column<'s>(&self, selection: &'s Selection<'_>, database: &dyn Database) -> Result<&'s Column, Error> {
        let column = selection.column(self.column)?;
        let (suits, wanted) = match self.is_time() {
            true => (column.is_time, database.time_type()),
            false => (column.is_number, "a type of whole numbers"),
        };
        if suits {
            return Ok(column);
        }
        let problem = format!("the column {:?} is of type {}; it has to be {wanted}", column.name, column.type_name);
        Err(selection.wrong(&problem))
    }

    /// Whether it can work; how many rows have nothing in the column, and so are never seen.
    pub(crate) fn check(&self, database: &mut dyn Database, selection: &Selection<'_>) -> Result<u64, Error> {
        database.knows_writers(self.class.source())?;
        let (has, from) = (database.has(self.column(selection, database)?), selection.from(database));
        let query = format!("SELECT count(*) FROM {from} WHERE ({has}) IS NOT TRUE");
        let [counted] = one(database, &query, &[])?;
        Ok(counted.and_then(|count| count.parse().ok()).unwrap_or_default())
    }
}

/// Remembers a position in the room of the one before.
fn keep(reached: &mut Option<(String, String)>, at: &str, uid: &str) {
    let (time, key) = reached.get_or_insert_default();
    time.clear();
    time.push_str(at);
    key.clear();
    key.push_str(uid);
}
