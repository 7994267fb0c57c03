//! The first pass: over every row, for its position. Owns which rows are changes; it reads no more of a row than its place in
//! the order.

use std::ops::ControlFlow;

use tidewaiter_connector::{Context, Error, warn};

use crate::deliver::delta;
use crate::files::{Columns, CsvFile, being_written};
use crate::progress::Entry;
use crate::rows::{Place, Reader, Row, RowEnd};
use crate::settings::{BadRows, Config};
use crate::time;

/// Why a row can't be read.
pub(crate) struct Bad {
    /// The column, where it is one.
    pub(crate) column: Option<usize>,
    pub(crate) reason: String,
}

impl Bad {
    pub(crate) fn new(column: Option<usize>, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { column, reason }
    }

    /// As the settings say: an error, or a warning and on.
    pub(crate) fn handle(self, file: &CsvFile, line: u64, config: &Config) -> Result<(), Error> {
        let column = self.column.map(|column| format!(", column {:?}", file.columns.names[column]));
        let what = format!("line {line}{}: {}", column.unwrap_or_default(), self.reason);
        match config.settings.bad_rows {
            BadRows::Reject => Err(file.error(what)),
            BadRows::Skip => {
                warn!("{}: {what}; the row is left out", file.name);
                Ok(())
            }
        }
    }
}

/// Visits the rows of all files that are not older than `since`, with their position, and answers the newest time of all.
pub(crate) fn scan(
    files: &[CsvFile],
    config: &Config,
    since: i64,
    mut visit: impl FnMut(Entry),
) -> Result<Option<i64>, Error> {
    let mut newest = None;
    let mut scratch = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        each_row(file, config, false, |row, place| {
            let at = match position(row, &file.columns, config) {
                Ok(at) => at,
                Err(bad) => {
                    bad.handle(file, place.line, config)?;
                    return Ok(ControlFlow::Continue(()));
                }
            };
            newest = newest.max(Some(at));
            if at >= since {
                visit(Entry {
                    at,
                    digest: row.digest(&mut scratch),
                    file: number,
                    length: place.length,
                    offset: place.offset,
                });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        file.unchanged(config)?;
    }
    Ok(newest)
}

/// Visits the complete rows of a file. `all`: one that may be half a row is an error, and not left for later.
pub(crate) fn each_row(
    file: &CsvFile,
    config: &Config,
    all: bool,
    mut visit: impl FnMut(&Row, Place) -> Result<ControlFlow<()>, Error>,
) -> Result<(), Error> {
    file.rewind()?;
    let context = || file.name.clone();
    let mut reader = Reader::new(&file.file, config.delimiter).with_context(context)?;
    reader.next().with_context(context)?;
    while let Some((row, place)) = reader.next().with_context(context)? {
        let flow = match place.end {
            RowEnd::Line => visit(row, place)?,
            // Without knowing that the file is at rest, what has no line end may be half a row.
            _ if config.settle.is_zero() && all => return Err(being_written(&file.name)),
            _ if config.settle.is_zero() => ControlFlow::Break(()),
            RowEnd::File => visit(row, place)?,
            RowEnd::Quote => {
                Bad::new(None, "a quote is not closed").handle(file, place.line, config)?;
                ControlFlow::Break(())
            }
        };
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

/// Whether a row has the cells that the header names, and a uid.
pub(crate) fn shape(row: &Row, columns: &Columns) -> Result<(), Bad> {
    if row.len() != columns.names.len() {
        let (cells, named) = (row.len(), columns.names.len());
        return Err(Bad::new(None, format!("{cells} cells, where the header names {named} columns")));
    }
    if text(row, columns.uid)?.is_empty() {
        return Err(Bad::new(Some(columns.uid), "no uid"));
    }
    Ok(())
}

/// The time of a row's change, in microseconds. Without a column of times, all are the same.
pub(crate) fn position(row: &Row, columns: &Columns, config: &Config) -> Result<i64, Bad> {
    shape(row, columns)?;
    let Some(updated_at) = columns.updated_at else { return Ok(i64::MIN) };
    let updated = time_of(row, updated_at, config)?;
    match columns.deleted_at {
        Some(column) if !text(row, column)?.is_empty() => Ok(updated.max(time_of(row, column, config)?)),
        _ => Ok(updated),
    }
}

pub(crate) fn text(row: &Row, column: usize) -> Result<&str, Bad> {
    row.text(column).ok_or_else(|| Bad::new(Some(column), "not UTF-8"))
}

fn time_of(row: &Row, column: usize, config: &Config) -> Result<i64, Bad> {
    let cell = text(row, column)?;
    let parsed =
        time::parse(cell, config.zone).ok_or_else(|| Bad::new(Some(column), format!("{cell:?} is not a time")))?;
    Ok(parsed.as_microsecond())
}

/// Reads the first rows of a file as a run would.
pub(crate) fn check(file: &CsvFile, config: &Config, rows_max: usize) -> Result<(), Error> {
    let mut rows = 0;
    each_row(file, config, false, |row, place| {
        let read = position(row, &file.columns, config).and_then(|_| delta(row, file, config));
        if let Err(bad) = read {
            bad.handle(file, place.line, config)?;
        }
        rows += 1;
        Ok(if rows < rows_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
}
