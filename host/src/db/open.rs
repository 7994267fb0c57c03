//! The data directory: made, locked for one process, and its db found or created. May not look into the db.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidewaiter_core::journal::Incarnation;
use tidewaiter_core::state::Actor;
use tidewaiter_core::time::UnixMillis;

use super::migrate;
use super::redb::{self, RedbStore, first_open, opener, problems, renew};
use super::seal::Keys;

pub(super) const DB_FILE: &str = "tidewaiter.redb";
const RESTORED_FILE: &str = "tidewaiter.redb.restored";
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
    /// A copy is not restored over a db.
    #[error("{} is there: a copy is only restored where no db is; move it away first", path.display())]
    There {
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

/// Makes the db of a data directory out of a copy: another incarnation, with a marker and a new generation for every type.
/// Blocks. `holder`, `wait`: as for `Db::open`. `note` writes down that it is about to be done, while the directory is ours.
///
/// # Errors
/// There is a db, the copy can't be read, it can't be noted, or as `Db::open`. What is there is left as it is.
pub fn restore(
    copy: &Path,
    dir: &Path,
    (holder, wait): (&str, Duration),
    by: &Actor,
    now: UnixMillis,
    keys: &Keys,
    note: impl FnOnce() -> io::Result<()>,
) -> Result<Incarnation, OpenError> {
    let _lock = lock(dir, holder, wait)?;
    let (path, begun) = (dir.join(DB_FILE), dir.join(RESTORED_FILE));
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { what, path, source }
    };
    if path.try_exists().map_err(io("look at", &path))? {
        return Err(OpenError::There { path });
    }
    let renewed = renewed(copy, &begun, dir, by, now, keys).inspect_err(|_| {
        let _ = std::fs::remove_file(&begun);
    });
    let incarnation = renewed?;
    note().map_err(io("audit", &path))?;
    let synced = File::open(&begun).and_then(|file| file.sync_all());
    synced.and_then(|()| std::fs::rename(&begun, &path)).map_err(io("rename", &begun))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))?;
    Ok(incarnation)
}

/// The copy as a db of its own, under a name that nobody opens.
fn renewed(
    copy: &Path,
    begun: &Path,
    dir: &Path,
    by: &Actor,
    now: UnixMillis,
    keys: &Keys,
) -> Result<Incarnation, OpenError> {
    let io = |source| OpenError::Io { what: "copy", path: copy.to_owned(), source };
    std::fs::copy(copy, begun).map_err(io)?;
    std::fs::set_permissions(begun, Permissions::from_mode(0o600)).map_err(io)?;
    let unusable =
        |error: Box<dyn std::error::Error + Send + Sync>| OpenError::Unusable { path: copy.to_owned(), source: error };
    // What is damaged is said now, and not when the original is long gone.
    let sound = |problems: Vec<String>| match problems.is_empty() {
        true => Ok(()),
        false => Err(unusable(format!("it is damaged: {}", problems.join("; ")).into())),
    };
    sound(redb::examine(begun, keys).map_err(|error| unusable(error.into()))?)?;
    let database = first_open(&opener(begun)).map_err(|error| unusable(error.into()))?;
    migrate::migrate(&database, dir, copy)?;
    sound(problems(&database, keys).map_err(|error| unusable(error.into()))?)?;
    let incarnation = migrate::random().map_err(|error| unusable(error.into()))?;
    renew(&database, incarnation, by, now, keys).map_err(|error| unusable(error.into()))?;
    Ok(Incarnation(incarnation))
}

/// What is wrong with the file of a db, as far as it can be told without trusting it: the engine may panic on a damaged file that it
/// opens. Changes nothing. Blocks, for some half a second a GiB. None: there is no db, or another process has it.
///
/// # Errors
/// The file can't be read.
pub fn examine(dir: &Path, holder: &str, keys: &Keys) -> Result<Option<Vec<String>>, OpenError> {
    let path = dir.join(DB_FILE);
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(source) => return Err(OpenError::Io { what: "look at", path, source }),
    }
    let _lock = match lock(dir, holder, Duration::ZERO) {
        Err(OpenError::Owned { .. }) => return Ok(None),
        other => other?,
    };
    redb::examine(&path, keys).map(Some).map_err(|error| OpenError::Unusable { path, source: Box::new(error) })
}

/// Opens the db in the data directory, which is ours.
pub(super) fn open(dir: &Path, keys: Arc<Keys>) -> Result<(RedbStore, Incarnation), OpenError> {
    let path = dir.join(DB_FILE);
    let there = path.try_exists().map_err(|source| OpenError::Io { what: "look at", path: path.clone(), source })?;
    if !there {
        migrate::create(dir, &path)?;
    }
    let opener = opener(&path);
    let unusable = |error| OpenError::Unusable { path: path.clone(), source: Box::new(error) };
    let database = first_open(&opener).map_err(unusable)?;
    let incarnation = migrate::migrate(&database, dir, &path)?;
    Ok((RedbStore::new(opener, Some(path), database, keys), incarnation))
}
