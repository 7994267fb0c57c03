//! Reads entries out of segments, a page at a time. Leaves no entry out silently: one that should be there and isn't is an
//! error.

use std::ops::ControlFlow;

use tidewaiter_core::journal::{Entry, EntryId, Incarnation};

use super::segment::Unpacked;
use super::store::{ReadError, Store};

/// A page is closed when its entries have this size, so that large objects don't fill the memory.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The entries after a sequence, in order; at most `limit`, and fewer where they are large.
pub(super) fn read(
    store: &dyn Store,
    incarnation: Incarnation,
    after: u64,
    limit: usize,
) -> Result<Vec<Entry>, ReadError> {
    let Some(next) = after.checked_add(1).filter(|_| limit > 0) else { return Ok(Vec::new()) };
    let mut page = Page { incarnation, next, limit, bytes: 0, entries: Vec::new() };
    let last = store.segments(None, next, &mut |first, bytes| page.take(first, bytes))?;
    page.finish(last)
}

struct Page {
    incarnation: Incarnation,
    /// The next sequence that is wanted.
    next: u64,
    limit: usize,
    bytes: usize,
    entries: Vec<Entry>,
}

impl Page {
    fn is_full(&self) -> bool {
        self.entries.len() >= self.limit || self.bytes >= PAGE_BYTES
    }

    fn take(&mut self, first: u64, bytes: &[u8]) -> Result<ControlFlow<()>, ReadError> {
        if first > self.next {
            return Err(ReadError::Missing { first: self.next, last: first - 1 });
        }
        let damaged = |damage| ReadError::Segment { first, damage };
        let segment = Unpacked::new(bytes).map_err(damaged)?;
        let skip = u32::try_from(self.next - first).unwrap_or(u32::MAX);
        for entry in segment.entries(skip) {
            if self.is_full() {
                return Ok(ControlFlow::Break(()));
            }
            let (body, size) = entry.map_err(damaged)?;
            let id = EntryId { incarnation: self.incarnation, sequence: self.next };
            let head = &segment.head;
            let (key, generation, run, at) = (head.key.clone(), head.generation, head.run, head.at);
            self.entries.push(Entry { id, key, generation, run, at, body });
            self.next += 1;
            self.bytes += size;
        }
        Ok(if self.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn finish(self, last: u64) -> Result<Vec<Entry>, ReadError> {
        if !self.is_full() && self.next <= last {
            return Err(ReadError::Missing { first: self.next, last });
        }
        Ok(self.entries)
    }
}
