//! Reading objects as they are now. Pages are asked for over one connection, because servers keep the position of the next one with
//! it; so one call hands over all of them, each as it comes.

use tidewaiter_connector::{Changes, Delta, Error, Object, Objects, Stopped, SyncOptions};

use crate::client::{Client, Found};
use crate::filter::Filter;
use crate::parts::pieces;
use crate::selection::Selection;
use crate::values::timestamp;

/// Less than so many at a time is more asking than reading.
const PAGE_MIN: u32 = 100;

/// Answers are taken as they come, so that a page takes no room here; and a server begins anew with each.
pub(crate) const STREAMED_AT_A_TIME: u32 = 10_000;

/// How many entries are held at a time.
pub(crate) fn page(options: &SyncOptions) -> u32 {
    options.page_size.max(PAGE_MIN)
}

/// All objects.
pub(crate) fn all(
    client: &mut Client,
    selection: &Selection<'_>,
    options: &SyncOptions,
    objects: &mut Objects,
) -> Result<(), Error> {
    let search = selection.search(selection.filter.clone());
    client.search_paged(&search, STREAMED_AT_A_TIME, &mut |entry| {
        let mut pieces = pieces(selection.object(entry)?, options.object_bytes_max).into_iter();
        pieces.try_for_each(|piece| objects.push(piece))
    })
}

/// The same, as changes: where nothing is known of what was before.
pub(crate) fn all_as_changes(
    client: &mut Client,
    selection: &Selection<'_>,
    options: &SyncOptions,
    changes: &mut Changes,
) -> Result<(), Error> {
    let search = selection.search(selection.filter.clone());
    client.search_paged(&search, STREAMED_AT_A_TIME, &mut |entry| {
        Ok(upsert(selection, selection.object(entry)?, None, options, changes)?)
    })
}

/// The object with this uid, if there is one.
pub(crate) fn one(
    client: &mut Client,
    selection: &Selection<'_>,
    uid: &str,
    options: &SyncOptions,
    objects: &mut Objects,
) -> Result<(), Error> {
    let search = selection.search(selection.filter.clone().and(Filter::is(&selection.class.uid, uid)));
    let done = client.search(&search, &[], &mut |found| {
        let Found::Entry(entry) = found else { return Ok(()) };
        // Some values have several texts; only one of them is a uid.
        if selection.uid(&entry)? != uid {
            return Ok(());
        }
        let mut pieces = pieces(selection.object(entry)?, options.object_bytes_max).into_iter();
        pieces.try_for_each(|piece| objects.push(piece))
    })?;
    done.outcome.check(&search.what())
}

/// Tells of an object that came or changed.
pub(crate) fn upsert(
    selection: &Selection<'_>,
    object: Object,
    at: Option<&str>,
    options: &SyncOptions,
    changes: &mut Changes,
) -> Result<(), Stopped> {
    pieces(object, options.object_bytes_max).into_iter().try_for_each(|piece| {
        let mut delta = Delta::upsert(selection.name_of_class(), piece);
        delta.source_time = at.and_then(timestamp);
        changes.push(delta)
    })
}
