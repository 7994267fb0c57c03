//! What the strategies ask of a server, whatever it speaks. Each dialect answers it in one file.

use std::io;
use std::ops::Range;
use std::time::Duration;

use tidewaiter_connector::Error;
use tidewaiter_connector::cells::CellType;

use crate::postgresql::PostgreSql;
use crate::settings::{Dialect, Settings, Source};

/// A column of a table, a view or a query.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The server's own name of its type.
    pub(crate) type_name: String,
    pub(crate) cell: CellType,
    /// Each cell holds several values.
    pub(crate) is_list: bool,
    /// Its cells are points in time, whatever the zone.
    pub(crate) is_time: bool,
    /// Its cells are whole numbers.
    pub(crate) is_number: bool,
    /// Its times have no offset: the setting `zone` gives it to them.
    pub(crate) is_local: bool,
}

/// What failed.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Error,
    /// A value was none of the type that it was compared with.
    pub(crate) is_bad_value: bool,
}

impl Failure {
    /// What a server says no with.
    pub(crate) fn refused(error: Error, is_bad_value: bool) -> Self {
        Self { error, is_bad_value }
    }

    /// The same, but for values that are none: those are what the caller says.
    pub(crate) fn or_bad_value(self, say: impl FnOnce(Error) -> Error) -> Error {
        if self.is_bad_value { say(self.error) } else { self.error }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, is_bad_value: false }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// A log that triggers fill, of one table.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// Which one it is.
    pub(crate) id: String,
    /// The column whose text its entries have.
    pub(crate) uid: String,
    /// All transactions up to this one have ended.
    pub(crate) settled: u64,
    /// No transaction from this one on has begun.
    pub(crate) next: u64,
    /// The last entry that was thrown away.
    pub(crate) trimmed: Option<(u64, u64)>,
}

/// A row of an answer: the text of each cell, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) cells: &'a [Option<Range<usize>>],
}

impl<'a> Row<'a> {
    /// The text of a cell; none where the row has none.
    pub(crate) fn cell(&self, place: usize) -> Result<Option<&'a str>, Error> {
        let Some(Some(range)) = self.cells.get(place) else { return Ok(None) };
        let bytes = self.bytes.get(range.clone()).unwrap_or_default();
        let text = std::str::from_utf8(bytes);
        text.map(Some).map_err(|_| Error::other("the server sent a text that is not UTF-8"))
    }
}

/// What is done with each row. An error ends the statement, and the connection.
pub(crate) type EachRow<'a> = &'a mut dyn FnMut(Row<'_>) -> Result<(), Error>;

/// A server that was logged in to.
pub(crate) trait Database {
    /// The columns of a source.
    fn columns(&mut self, source: Source<'_>) -> Result<Vec<Column>, Error>;

    /// Begins to read one state of all tables, which later statements see, whatever others write meanwhile. Nothing can be
    /// written from then on. No statement takes longer than this.
    fn begin(&mut self, max: Duration) -> Result<(), Error>;

    /// Ends what [`begin`](Self::begin) began.
    fn end(&mut self) -> Result<(), Error>;

    /// Runs a query. Its parameters are named by [`parameter`](Self::parameter), and are never part of its text.
    fn select(&mut self, query: &str, parameters: &[&str], each: EachRow<'_>) -> Result<(), Failure>;

    /// Whether this server knows who is writing.
    ///
    /// # Errors
    /// It only follows another one.
    fn knows_writers(&mut self) -> Result<(), Error>;

    /// The time on the server's clock before which no change is still to be seen, as far as that is known: this long ago, or
    /// the beginning of the oldest transaction. None: it can't be told now. Asked before [`begin`](Self::begin).
    fn settled_time(&mut self, lag: Duration) -> Result<Option<String>, Error>;

    /// Whether a time is later than the server's clock.
    fn is_to_come(&mut self, time: &str) -> Result<bool, Error>;

    /// Waits until what was being written when this is called is there or given up; false if it takes too long. Asked before
    /// [`begin`](Self::begin).
    fn settle(&mut self, lag: Duration) -> Result<bool, Error>;

    /// A name, quoted.
    fn quoted(&self, name: &str) -> String;

    /// What stands for a parameter, counted from 1.
    fn parameter(&self, number: usize) -> String;

    /// A parameter with a time and an offset.
    fn time(&self, number: usize) -> String;

    /// A source, as what a query reads from, under the name `t`.
    fn from(&self, source: Source<'_>) -> String {
        match source {
            Source::Table(table) => {
                let parts: Vec<String> = table.split('.').map(|part| self.quoted(part)).collect();
                format!("{} AS t", parts.join("."))
            }
            Source::Query(query) => format!("(\n{}\n) AS t", query.trim_end().trim_end_matches(';')),
        }
    }

    /// A column of the source.
    fn raw(&self, column: &Column) -> String {
        format!("t.{}", self.quoted(&column.name))
    }

    /// A column with a time without an offset: with that of the setting `zone`.
    fn with_offset(&self, column: &Column) -> String;

    /// That a column is what a parameter says, where that may be no value of its type at all.
    fn is(&self, column: &Column, number: usize) -> String;

    /// What the log of a table, whose name is quoted, is at.
    fn log(&mut self, table: &str) -> Result<Log, Error>;

    /// A query of what a log notes of a table: each object once, at its last entry, of entries that no other can come before any
    /// more. It gives transaction, number, uid, and these cells of the source, which are null where it has no such object.
    /// Parameters: the id of the log, and the transaction and the number after which.
    fn logged(&self, cells: &str, source: Source<'_>, uid: &Column) -> String;
}

/// Connects and logs in.
pub(crate) fn open(settings: &Settings) -> Result<Box<dyn Database>, Error> {
    Ok(match settings.dialect {
        Dialect::PostgreSql => Box::new(PostgreSql::open(settings)?),
    })
}

/// The cells of the one row of a query; all none if there is no row.
pub(crate) fn one<const N: usize>(
    database: &mut dyn Database,
    query: &str,
    parameters: &[&str],
) -> Result<[Option<String>; N], Failure> {
    let mut cells = [const { None }; N];
    database.select(query, parameters, &mut |row| {
        for (place, cell) in cells.iter_mut().enumerate() {
            *cell = row.cell(place)?.map(str::to_owned);
        }
        Ok(())
    })?;
    Ok(cells)
}
