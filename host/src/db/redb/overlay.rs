//! Lets redb look over all pages of a file, its own bookkeeping too, and mend what it would mend in memory only. Never writes to
//! the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{BackendError, Database, StorageBackend};

use super::{CACHE_BYTES, Fault, caught};

/// Bytes that are replaced together.
const PAGE_SIZE: usize = 4096;
const PAGE: u64 = PAGE_SIZE as u64;

/// What redb finds wrong with a file that nobody writes to meanwhile, in words.
pub(super) fn examine(path: &Path) -> Result<Vec<String>, Fault> {
    let failed = |error: io::Error| Fault::Engine(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let overlay = Overlay { file, changes: Mutex::new(Changes { length, under: length, pages: BTreeMap::new() }) };
    let looked = caught(|| {
        let mut builder = Database::builder();
        // Reports damage where an open that trusts the file may panic.
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.create_with_backend(overlay)?;
        database.close().map_err(|error| Fault::Engine(error.to_string()))
    });
    match looked {
        Ok(()) => Ok(Vec::new()),
        Err(Fault::Engine(problem)) => Ok(vec![format!("the file's own structure: {problem}")]),
        Err(fault) => Err(fault),
    }
}

/// A file, and over it what was written since.
#[derive(Debug)]
struct Overlay {
    file: File,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    length: u64,
    /// Up to here the file's bytes count; beyond there were zeros until something was written.
    under: u64,
    /// What was written, by the number of the page.
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, number: u64, under: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE_SIZE].into_boxed_slice();
        let begin = number * PAGE;
        let there = usize::try_from(under.saturating_sub(begin)).unwrap_or(usize::MAX).min(PAGE_SIZE);
        self.file.read_exact_at(&mut page[..there], begin)?;
        Ok(page)
    }
}

/// The parts of a range by page: its number, where in it, and which part of the range.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE).unwrap_or(0);
        let part = done..length.min(done + PAGE_SIZE - within);
        done = part.end;
        (!part.is_empty()).then_some((at / PAGE, within, part))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes();
        if offset + out.len() as u64 > changes.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, part) in parts(offset, out.len()) {
            let length = part.len();
            match changes.pages.get(&number) {
                Some(page) => out[part].copy_from_slice(&page[within..within + length]),
                None => out[part].copy_from_slice(&self.page(number, changes.under)?[within..within + length]),
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut changes = self.changes();
        changes.length = length;
        changes.under = changes.under.min(length);
        changes.pages.split_off(&length.div_ceil(PAGE));
        let within = usize::try_from(length % PAGE).unwrap_or(0);
        if let Some(page) = changes.pages.get_mut(&(length / PAGE)) {
            page[within..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes();
        for (number, within, part) in parts(offset, data.len()) {
            let mut page = match changes.pages.remove(&number) {
                Some(page) => page,
                None => self.page(number, changes.under)?,
            };
            page[within..within + part.len()].copy_from_slice(&data[part]);
            changes.pages.insert(number, page);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }
}
