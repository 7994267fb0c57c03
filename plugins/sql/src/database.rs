//! What the strategies ask of a server, whatever it speaks. Each dialect answers it in one file.

use std::io;
use std::ops::Range;
use std::time::Duration;

use tidewaiter_connector::cells::CellType;
use tidewaiter_connector::{Error, ErrorKind};

use crate::mariadb::MariaDb;
use crate::postgresql::PostgreSql;
use crate::settings::{Dialect, Settings, Source};
use crate::token::Entry;

/// A column of a table, a view or a query.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The server's own name of its type.
    pub(crate) type_name: String,
    pub(crate) cell: CellType,
    /// Takes apart a cell that holds several values; none where it is one of another kind.
    pub(crate) members: Option<Members>,
    /// Its cells are points in time, whatever the zone.
    pub(crate) is_time: bool,
    /// Its cells are whole numbers.
    pub(crate) is_number: bool,
    /// Its times have no offset: the setting `zone` gives it to them.
    pub(crate) is_local: bool,
    /// The order of a text that the server lets no two rows have that are equal by it, where it doesn't compare bytes.
    pub(crate) collation: Option<String>,
}

/// Takes the text of a cell apart.
pub(crate) type Members = fn(&str) -> Option<Vec<String>>;

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

    /// What kind of failure it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        self.error.kind()
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
    /// Everything up to here was written, and is there to be read; none: it can't be told now.
    pub(crate) settled: Option<Place>,
    /// Nothing was written from here on.
    pub(crate) next: Place,
    /// The last entry that was thrown away.
    pub(crate) trimmed: Option<Place>,
}

/// Where an entry of a log is: its transaction, where the log has those, and its number.
pub(crate) type Place = (u64, i64);

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

    /// Runs a query. Its parameters are those that were added while its text was made, and are never part of that.
    fn select(&mut self, query: &str, parameters: &[String], each: EachRow<'_>) -> Result<(), Failure>;

    /// Whether this server knows who is writing to a source.
    ///
    /// # Errors
    /// It only follows another one, or the source is in no state that others see at once.
    fn knows_writers(&mut self, source: Source<'_>) -> Result<(), Error>;

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

    /// What the server calls a time with an offset.
    fn time_type(&self) -> &'static str;

    /// What stands for a value that a column is compared with, and is added to the parameters. That it is none of the column's type
    /// is said here, or by the server.
    fn value(&self, column: &Column, value: &str, parameters: &mut Vec<String>) -> Result<String, Failure>;

    /// A table's name in its parts, quoted.
    fn quoted_table(&self, table: &str) -> String {
        table.split('.').map(|part| self.quoted(part)).collect::<Vec<_>>().join(".")
    }

    /// A source, as what a query reads from, under the name `t`.
    fn from(&self, source: Source<'_>) -> String {
        match source {
            Source::Table(table) => format!("{} AS t", self.quoted_table(table)),
            Source::Query(query) => format!("(\n{}\n) AS t", query.trim_end().trim_end_matches(';')),
        }
    }

    /// A column of the source.
    fn raw(&self, column: &Column) -> String {
        format!("t.{}", self.quoted(&column.name))
    }

    /// A column with a time without an offset: with that of the setting `zone`.
    fn with_offset(&self, column: &Column) -> String;

    /// That a row has something in a column of times or numbers.
    fn has(&self, column: &Column) -> String {
        format!("{} IS NOT NULL", self.raw(column))
    }

    /// What rows are put in order by, so that they have one: two texts that differ differ in it, too.
    fn key(&self, column: &Column) -> String {
        self.raw(column)
    }

    /// That a column is what a value says, which may be none of its type at all.
    fn is(&self, column: &Column, value: &str, parameters: &mut Vec<String>) -> Result<String, Failure>;

    /// That a row comes after a value of a column.
    fn after(&self, column: &Column, value: &str, parameters: &mut Vec<String>) -> Result<String, Failure> {
        Ok(format!("{} > {}", self.raw(column), self.value(column, value, parameters)?))
    }

    /// That a row comes after a value of one column, or has that and comes after a value of another one.
    fn after_both(
        &self,
        first: (&Column, &str),
        second: (&Column, &str),
        parameters: &mut Vec<String>,
    ) -> Result<String, Failure>;

    /// [Begins](Self::begin) to read a state in which all that the log of a table has up to some place can be seen, and tells what
    /// the log is at.
    fn begin_log(&mut self, table: &str, max: Duration) -> Result<Log, Error>;

    /// A query of what a log notes of a table after an entry: each object once, at its last entry, of entries up to where all
    /// [is there](Log::settled). It gives transaction, number, uid, and these cells of the source, which are null where it has no
    /// such object.
    fn logged(
        &self,
        cells: &str,
        of: (Source<'_>, &Column),
        between: (&Entry, Place),
        parameters: &mut Vec<String>,
    ) -> String;
}

/// Connects and logs in.
pub(crate) fn open(settings: &Settings) -> Result<Box<dyn Database>, Error> {
    Ok(match settings.dialect {
        Dialect::MariaDb => Box::new(MariaDb::open(settings)?),
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
    let parameters: Vec<String> = parameters.iter().map(|&parameter| parameter.to_owned()).collect();
    database.select(query, &parameters, &mut |row| {
        for (place, cell) in cells.iter_mut().enumerate() {
            *cell = row.cell(place)?.map(str::to_owned);
        }
        Ok(())
    })?;
    Ok(cells)
}
