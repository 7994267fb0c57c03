//! Reading objects as they are now, in pages by the order of their uids: an object that is there during the whole pass is in one of
//! them.

use std::time::Duration;

use tidewaiter_connector::{Error, Objects, SyncOptions};

use crate::database::{Database, Failure};
use crate::selection::Selection;

/// A query of all objects by their uids, or of those after one, and its parameters.
pub(crate) fn by_uid(
    database: &dyn Database,
    selection: &Selection<'_>,
    after: Option<&str>,
) -> Result<(String, Vec<String>), Failure> {
    let (cells, from, uid) = (selection.cells(database), selection.from(database), database.key(selection.uid()));
    let mut parameters = Vec::new();
    let condition = match after {
        Some(after) => format!("WHERE {}", database.after(selection.uid(), after, &mut parameters)?),
        None => String::new(),
    };
    Ok((format!("SELECT {cells} FROM {from} {condition} ORDER BY {uid}"), parameters))
}

/// The object with this uid, if there is one.
pub(crate) fn one(
    database: &mut dyn Database,
    selection: &Selection<'_>,
    uid: &str,
    options: &SyncOptions,
    objects: &mut Objects,
) -> Result<(), Error> {
    let (cells, from) = (selection.cells(database), selection.from(database));
    let mut parameters = Vec::new();
    let is = match database.is(selection.uid(), uid, &mut parameters) {
        Err(failure) if failure.is_bad_value => return Ok(()),
        is => is?,
    };
    let query = format!("SELECT {cells} FROM {from} WHERE {is}");
    database.begin(Duration::from_millis(options.deadline_ms))?;
    let read = database.select(&query, &parameters, &mut |row| {
        // Some values have several texts; only one of them is a uid.
        match selection.is_deleted(row, 0)? || selection.uid_of(row, 0)? != uid {
            true => Ok(()),
            false => objects.push(selection.object(row, 0)?),
        }
    });
    match read {
        // What is no value of the column's type is no uid of an object.
        Err(failure) if failure.is_bad_value => Ok(()),
        read => Ok(read?),
    }
}

/// One page; `after`: the uid of the last object of the page before.
pub(crate) fn page(
    database: &mut dyn Database,
    selection: &Selection<'_>,
    after: Option<Vec<u8>>,
    options: &SyncOptions,
    objects: &mut Objects,
) -> Result<Option<Vec<u8>>, Error> {
    let after = after.map(String::from_utf8).transpose();
    let after = after.map_err(|_| Error::other("the page is none of this connector"))?;
    let size = options.page_size.max(1);
    let (query, parameters) = by_uid(database, selection, after.as_deref())?;
    database.begin(Duration::from_millis(options.deadline_ms))?;
    let (mut count, mut last) = (0, None);
    database.select(&format!("{query} LIMIT {size}"), &parameters, &mut |row| {
        count += 1;
        last = Some(selection.uid_of(row, 0)?.as_bytes().to_vec());
        match selection.is_deleted(row, 0)? {
            true => Ok(()),
            false => objects.push(selection.object(row, 0)?),
        }
    })?;
    Ok(last.filter(|_| count == size))
}
