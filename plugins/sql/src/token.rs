//! The sync token: JSON, so that an operator can read and write it. It names what it is a position in, and is refused by everything
//! else.

use serde::{Deserialize, Serialize};
use tidewaiter_connector::{Error, SyncToken};

use crate::database::Place;
use crate::settings::{Class, Feed, Source};
use crate::values::timestamp;

/// The name of the format.
pub(crate) const FORMAT: &str = "sql1";

/// Where reading goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Position {
    /// With this time.
    From(String),
    /// After this time or number, and, of the rows that have it, after this uid; without one after all of them.
    After(String, Option<String>),
    /// After this entry of a log.
    Log(Entry),
    /// All objects are read, in the order of their uids, and this was the last one; then the log, after this entry.
    Objects(String, Entry),
}

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Which log.
    pub(crate) log: String,
    /// The transaction that wrote it; 0 where the log doesn't tell.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) transaction: u64,
    /// Its number.
    pub(crate) number: i64,
}

impl Entry {
    pub(crate) fn place(&self) -> Place {
        (self.transaction, self.number)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token<P> {
    format: String,
    /// The table; none for a query.
    table: Option<String>,
    uid: String,
    /// The strategy, and its column.
    by: String,
    position: P,
}

/// Turns positions of a class into tokens and back.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    table: Option<String>,
    uid: String,
    by: String,
    is_own: fn(&Position) -> bool,
}

impl Tokens {
    pub(crate) fn of(class: &Class, feed: &Feed) -> Self {
        let table = match class.source() {
            Source::Table(name) => Some(name.to_owned()),
            Source::Query(_) => None,
        };
        let (by, is_own): (_, fn(&Position) -> bool) = match feed {
            Feed::Timestamp { column, .. } => (format!("timestamp {column}"), is_time),
            Feed::Number { column, .. } => (format!("number {column}"), is_number),
            Feed::Log { .. } => {
                ("log".to_owned(), |position| matches!(position, Position::Log(_) | Position::Objects(..)))
            }
        };
        Self { table, uid: class.uid.clone(), by, is_own }
    }

    pub(crate) fn write(&self, position: &Position) -> SyncToken {
        let Self { table, uid, by, .. } = self.clone();
        let token = Token { format: FORMAT.to_owned(), table, uid, by, position };
        // Neither maps nor anything that can fail are in it.
        serde_json::to_string(&token).unwrap_or_default().into()
    }

    pub(crate) fn read(&self, token: &SyncToken) -> Result<Position, Error> {
        let bad = |problem: String| Error::invalid_sync_token(format!("the sync token {problem}"));
        let token: Token<Position> = serde_json::from_str(token.as_text()?)
            .map_err(|error| bad(format!("is none of this connector: {error}")))?;
        if token.format != FORMAT {
            return Err(bad(format!("has the format {:?}; {FORMAT:?} is read", token.format)));
        }
        if (&token.table, &token.uid, &token.by) != (&self.table, &self.uid, &self.by) {
            let of = |table: &Option<String>, uid: &str, by: &str| {
                format!("{} with the uid {uid} by {by}", table.as_deref().unwrap_or("a query"))
            };
            let (was, is) = (of(&token.table, &token.uid, &token.by), of(&self.table, &self.uid, &self.by));
            return Err(bad(format!("is of {was}; the settings say {is}")));
        }
        if !(self.is_own)(&token.position) {
            return Err(bad(format!("has a position that is none by {}", self.by)));
        }
        Ok(token.position)
    }
}

/// A server refused a value: if there was a token, it was the uid in it, which is none of the column's type.
pub(crate) fn bad_uid(has_token: bool, error: Error) -> Error {
    match has_token {
        true => Error::invalid_sync_token(format!("the sync token has a uid that is none: {error}")),
        false => error,
    }
}

fn is_time(position: &Position) -> bool {
    match position {
        Position::From(time) | Position::After(time, Some(_)) => timestamp(time).is_some(),
        _ => false,
    }
}

fn is_number(position: &Position) -> bool {
    matches!(position, Position::After(number, _) if number.parse::<i128>().is_ok())
}
