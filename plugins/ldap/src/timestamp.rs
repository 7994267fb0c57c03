//! Changes by the time of an entry's last change, which every server has, and which sees no deletions.
//!
//! **What is exact, and why.** Times are whole seconds of the server's clock. A position is a second: everything that has it, or an earlier
//! one, was told. A run first learns which seconds there are after its position. If there are any, it waits the lag, by a clock that
//! only measures how long; the server's clock was at the newest of them when it was read, so it is past it by then, and nothing more gets
//! that time, unless a write takes longer than the lag. Then it reads up to that second, and no further: what comes meanwhile has a later
//! time. Seconds are told in their order, and a checkpoint stands only between two of them, so that equal times are neither skipped nor
//! repeated.

use std::thread;
use std::time::Duration;

use tidewaiter_connector::{Changes, Error, Object, SyncOptions, SyncToken};

use crate::client::{Entry, Search};
use crate::filter::Filter;
use crate::objects::{STREAMED_AT_A_TIME, page, upsert};
use crate::seconds::{Seconds, Window, is_second, second};
use crate::selection::Selection;
use crate::source::Source;
use crate::token::{Position, Tokens, bad};

const TIME: &str = "modifyTimestamp";

/// A class whose entries have a time.
pub(crate) struct Timestamp {
    pub(crate) lag: Duration,
    pub(crate) tokens: Tokens,
}

/// What a run hands over, and how far it is.
struct Told<'a> {
    tokens: &'a Tokens,
    options: &'a SyncOptions,
    changes: &'a mut Changes,
    reached: Option<String>,
}

impl Timestamp {
    /// The newest second, once it is over. None: there is no entry.
    pub(crate) fn latest(&self, source: &mut Source<'_>) -> Result<Option<Position>, Error> {
        let (newest, _) = seconds(source, None, None)?;
        if newest.is_some() {
            thread::sleep(self.lag);
        }
        Ok(newest.map(Position::Time))
    }

    /// Hands over what changed.
    pub(crate) fn sync(
        &self,
        source: &mut Source<'_>,
        since: Option<Position>,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let since = match since {
            None => None,
            Some(Position::Time(time)) if is_second(&time) => Some(time),
            Some(_) => return Err(bad("has a position that is no time")),
        };
        let (newest, seconds) = seconds(source, since.as_deref(), None)?;
        let Some(newest) = newest else { return Ok(None) };
        thread::sleep(self.lag);
        let windows = seconds.windows(page(options) as usize, since.as_deref(), &newest);
        let mut told = Told { tokens: &self.tokens, options, changes, reached: None };
        windows.into_iter().try_for_each(|window| read(source, &window, &mut told))?;
        Ok(Some(self.tokens.write(&Position::Time(newest))))
    }
}

/// Reads a stretch of time.
fn read(source: &mut Source<'_>, window: &Window, told: &mut Told<'_>) -> Result<(), Error> {
    let size = page(told.options) as usize;
    let is_large = window.count > size;
    if window.is_coarse && is_large {
        let (_, seconds) = seconds(source, window.after.as_deref(), Some(&window.last))?;
        let windows = seconds.windows(size, window.after.as_deref(), &window.last);
        return windows
            .iter()
            .try_for_each(|window| read(source, &Window { is_coarse: false, ..window.clone() }, told));
    }
    match &window.only {
        // All of one time: as they come. Around it is what got its time meanwhile.
        Some(only) if is_large => {
            let before = within(window.after.as_deref(), only).and(Filter::at_least(TIME, zulu(only)).not());
            read_in_order(source, before, told)?;
            read_as_they_come(source, only, told)?;
            if *only == window.last { Ok(()) } else { read_in_order(source, within(Some(only), &window.last), told) }
        }
        _ => read_in_order(source, within(window.after.as_deref(), &window.last), told),
    }
}

/// What has exactly this time.
fn read_as_they_come(source: &mut Source<'_>, second: &str, told: &mut Told<'_>) -> Result<(), Error> {
    let Source { client, selection, .. } = source;
    let filter = Filter::at_least(TIME, zulu(second)).and(Filter::at_most(TIME, zulu(second)));
    let search = with_time(selection.search(selection.filter.clone().and(filter)));
    client.search_paged(&search, STREAMED_AT_A_TIME, &mut |entry| {
        let (time, object) = (time_of(&entry)?, selection.object(entry)?);
        told.push(selection, time, object)
    })
}

/// A page, and what was changed since it was counted.
fn read_in_order(source: &mut Source<'_>, filter: Filter, told: &mut Told<'_>) -> Result<(), Error> {
    let Source { client, selection, .. } = source;
    let search = with_time(selection.search(selection.filter.clone().and(filter)));
    let mut objects = Vec::new();
    client.search_paged(&search, STREAMED_AT_A_TIME, &mut |entry| {
        objects.push((time_of(&entry)?, selection.object(entry)?));
        Ok(())
    })?;
    objects.sort_by(|(one, _), (other, _)| one.cmp(other));
    objects.into_iter().try_for_each(|(time, object)| told.push(selection, time, object))
}

impl Told<'_> {
    fn push(&mut self, selection: &Selection<'_>, time: String, object: Object) -> Result<(), Error> {
        if let Some(last) = self.reached.as_ref().filter(|last| **last != time) {
            self.changes.checkpoint(self.tokens.write(&Position::Time(last.clone())))?;
        }
        upsert(selection, object, Some(&zulu(&time)), self.options, self.changes)?;
        self.reached = Some(time);
        Ok(())
    }
}

/// The newest second, and how many entries were changed in each: after one, up to another.
fn seconds(
    source: &mut Source<'_>,
    after: Option<&str>,
    last: Option<&str>,
) -> Result<(Option<String>, Seconds), Error> {
    let Source { client, selection, .. } = source;
    let filter = match (after, last) {
        (after, Some(last)) => within(after, last),
        (Some(after), None) => later(after),
        (None, None) => Filter::Present(TIME.to_owned()),
    };
    let search = selection.search(selection.filter.clone().and(filter));
    let (mut newest, mut seconds) = (None, Seconds::default());
    let search = Search { attributes: vec![TIME.to_owned()], ..search };
    client.search_paged(&search, STREAMED_AT_A_TIME, &mut |entry| {
        let time = time_of(&entry)?;
        seconds.count(&time);
        newest = newest.take().max(Some(time));
        Ok(())
    })?;
    Ok((newest, seconds))
}

/// After one second, if there is one, up to another.
fn within(after: Option<&str>, last: &str) -> Filter {
    let up_to = Filter::at_most(TIME, zulu(last));
    match after {
        Some(after) => later(after).and(up_to),
        None => up_to,
    }
}

fn later(than: &str) -> Filter {
    Filter::at_least(TIME, zulu(than)).and(Filter::at_most(TIME, zulu(than)).not())
}

fn zulu(second: &str) -> String {
    format!("{second}Z")
}

fn with_time(mut search: Search) -> Search {
    search.attributes.push(TIME.to_owned());
    search
}

fn time_of(entry: &Entry) -> Result<String, Error> {
    second(entry.text(TIME).unwrap_or_default())
}
