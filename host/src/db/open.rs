//! The data directory: made, locked for one process, and its db found or created. May not look into the db.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidewaiter_core::journal::Incarnation;

use super::migrate;
use super::redb::{RedbStore, first_open, opener};

const DB_FILE: &str = "tidewaiter.redb";
const LOCK_FILE: &str = "tidewaiter.lock";
/// How often a lock that is held is tried again.
const LOCK_STEP: Duration = Duration::from_millis(20);
/// More of the lock file is not read: it is shown in an error.
const OWNER_BYTES_MAX: u64 = 200;

/// A db that can't be opened. Whatever is there is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the data directory.
    #[error("{} is in use by {by}", dir.display())]
    Owned {
        /// The data directory.
        dir: PathBuf,
        /// Who, as in `process 4711 (tidewaiter serve)`.
        by: String,
    },
    /// It was written by a newer tidewaiter.
    #[error("the db in {} has format {format}; this tidewaiter reads up to {known}: use a newer one", dir.display())]
    Newer {
        /// The data directory.
        dir: PathBuf,
        /// The format that it has.
        format: u64,
        /// The newest format that this host reads.
        known: u64,
    },
    /// It is a database, of another program.
    #[error("{} is not a db of tidewaiter", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged, or no database at all.
    #[error("{} can't be opened as a db, and is left as it is", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why, in the words of the storage engine.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system refused.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The data directory is this process's until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Makes the data directory if need be and takes it, waiting for another process to leave it.
pub(super) fn lock(dir: &Path, holder: &str, wait: Duration) -> Result<Lock, OpenError> {
    let failed =
        |what: &'static str, path: &Path, source: io::Error| OpenError::Io { what, path: path.to_owned(), source };
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(|error| failed("create", dir, error))?;
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(|error| failed("open", &path, error))?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path, error)),
            Err(TryLockError::WouldBlock) if waited >= wait => {
                return Err(OpenError::Owned { dir: dir.to_owned(), by: owner(file) });
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(LOCK_STEP);
                waited += LOCK_STEP;
            }
        }
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "process {} ({holder})", std::process::id()));
    written.map_err(|error| failed("write", &path, error))?;
    Ok(Lock { _file: file })
}

fn owner(file: File) -> String {
    let mut text = Vec::new();
    let read = file.take(OWNER_BYTES_MAX).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    match text.lines().next() {
        Some(owner) if read.is_ok() => owner.escape_debug().to_string(),
        _ => "another process".to_owned(),
    }
}

/// Opens the db in the data directory, which is ours.
pub(super) fn open(dir: &Path) -> Result<(RedbStore, Incarnation), OpenError> {
    let path = dir.join(DB_FILE);
    let there = path.try_exists().map_err(|source| OpenError::Io { what: "look at", path: path.clone(), source })?;
    if !there {
        migrate::create(dir, &path)?;
    }
    let opener = opener(&path);
    let unusable = |error| OpenError::Unusable { path: path.clone(), source: Box::new(error) };
    let database = first_open(&opener).map_err(unusable)?;
    let incarnation = migrate::migrate(&database, dir, &path)?;
    Ok((RedbStore::new(opener, database), incarnation))
}
