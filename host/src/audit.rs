//! The audit: who did what, what connectors may reach, what they were refused and shown. One line of JSON each, only ever appended, each
//! with the hash of the line before it, so that a line that was changed or taken out is found. Holds no secret and no attribute.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tidewaiter_core::grant::Decided;
use tidewaiter_core::name::{ConnectionName, TypeKey};
use tidewaiter_core::state::Actor;
use tidewaiter_core::text::hex;

use crate::clock::Clock;

const AUDIT_FILE: &str = "audit.ndjson";
/// So much of the end is read for the last line, in bytes, and twice as much where it is longer.
const TAIL_BYTES: u64 = 64 * 1024;
/// What is refused to a connection: the same is written once, and so much of it, until the host starts again.
const REFUSALS_MAX: u32 = 1000;

/// Something that is written down.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Event<'a> {
    /// What a connection may reach, as of now.
    Grants {
        /// Which.
        connection: &'a str,
        /// Everything that was asked for, and what was decided.
        decided: &'a [Decided],
    },
    /// The component that a connection runs.
    Connector {
        /// Whose.
        connection: &'a str,
        /// Its name.
        connector: &'a str,
        /// Its version, in its own words.
        version: &'a str,
        /// Of the file, in hexadecimal.
        sha256: &'a str,
    },
    /// A connector tried what it may not.
    Refused {
        /// Of which connection.
        connection: &'a str,
        /// Of which type.
        r#type: &'a str,
        /// In which run it was the first time.
        run: u64,
        /// The stable code.
        code: &'a str,
        /// In words.
        what: &'a str,
    },
    /// A connector was shown a secret.
    Revealed {
        /// Of which connection.
        connection: &'a str,
        /// Of which type.
        r#type: &'a str,
        /// In which run.
        run: u64,
        /// Its name.
        secret: &'a str,
    },
    /// Somebody did something. Written before it is done.
    Act {
        /// Who.
        by: String,
        /// What, as the command is called.
        act: &'a str,
        /// To what.
        on: String,
    },
    /// Somebody tried what is for another role.
    NotAllowed {
        /// Who.
        by: String,
        /// What, as the command is called.
        act: &'a str,
        /// To what.
        on: String,
    },
    /// Somebody read data.
    Read {
        /// Who.
        by: String,
        /// The first and the last entry.
        entries: [String; 2],
        /// With what is sensitive.
        sensitive: bool,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
    /// The SHA-256 of the line before, in hexadecimal; of nothing, for the first one.
    before: &'a str,
}

/// The audit can't be written, and so nothing is done that it should have.
#[derive(Debug, thiserror::Error)]
#[error("the audit {} can't be written: {source}", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// The open file. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Audit {
    inner: Arc<Mutex<Inner>>,
    path: Arc<Path>,
    clock: Clock,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// The hash of the last line.
    last: String,
    refusals: HashSet<[u8; 32]>,
    /// How many, by connection.
    counts: HashMap<ConnectionName, u32>,
}

impl Audit {
    /// Opens it in a data directory, which is ours. A line that a crash broke off is ended, and stays as it is.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(data: &Path, clock: Clock) -> Result<Self, AuditError> {
        let path = data.join(AUDIT_FILE);
        let opened = open(&path).map_err(|source| AuditError { path: path.clone(), source })?;
        Ok(Self { inner: Arc::new(Mutex::new(opened)), path: path.into(), clock })
    }

    /// Writes down what somebody is about to do. Returns once it is durable.
    ///
    /// # Errors
    /// It can't be: then it must not be done.
    pub async fn act(&self, by: &Actor, act: &'static str, on: String) -> Result<(), AuditError> {
        let (this, by) = (self.clone(), by.to_string());
        let written = tokio::task::spawn_blocking(move || this.write(&Event::Act { by, act, on }, true)).await;
        written.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| self.failed(error))
    }

    /// Writes something down that has happened.
    ///
    /// # Errors
    /// It can't be.
    pub fn note(&self, event: &Event<'_>) -> Result<(), AuditError> {
        self.write(event, false).map_err(|error| self.failed(error))
    }

    /// Writes down what a connector was refused, the first time.
    pub fn refused(&self, key: &TypeKey, run: u64, code: &str, what: &str) {
        let print: [u8; 32] = Sha256::digest(format!("{key} {code} {what}")).into();
        let what = {
            let mut inner = self.inner();
            let count = inner.counts.get(&key.connection).copied().unwrap_or(0);
            if count > REFUSALS_MAX || !inner.refusals.insert(print) {
                return;
            }
            inner.counts.insert(key.connection.clone(), count + 1);
            if count == REFUSALS_MAX { "more was refused, and is not written down" } else { what }
        };
        let (connection, object_type) = (key.connection.as_str(), key.object_type.as_str());
        if let Err(error) = self.note(&Event::Refused { connection, r#type: object_type, run, code, what }) {
            tracing::error!(target: "tidewaiter::audit", "{error}");
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: io::Error) -> AuditError {
        AuditError { path: self.path.to_path_buf(), source }
    }

    fn write(&self, event: &Event<'_>, durable: bool) -> io::Result<()> {
        let at = self.clock.now().to_string();
        let mut inner = self.inner();
        let mut line = serde_json::to_vec(&Line { at, event, before: &inner.last })?;
        line.push(b'\n');
        let length = inner.file.metadata()?.len();
        if let Err(error) = inner.file.write_all(&line) {
            // A part of it would be glued to the next line.
            let _ = inner.file.set_len(length);
            return Err(error);
        }
        inner.last = hash(&line[..line.len() - 1]);
        if durable { inner.file.sync_data() } else { Ok(()) }
    }
}

fn hash(line: &[u8]) -> String {
    hex(&Sha256::digest(line))
}

fn open(path: &Path) -> io::Result<Inner> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut last = last_line(&file)?;
    if last.pop_if(|byte| *byte == b'\n').is_none() && !last.is_empty() {
        file.write_all(b"\n")?;
    }
    Ok(Inner { file, last: hash(&last), refusals: HashSet::new(), counts: HashMap::new() })
}

/// With its end, if it has one.
fn last_line(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut size = TAIL_BYTES;
    loop {
        let begin = length.saturating_sub(size);
        let mut tail = Vec::new();
        (&mut &*file).seek(SeekFrom::Start(begin))?;
        file.take(length - begin).read_to_end(&mut tail)?;
        let before_end = tail.len().saturating_sub(1);
        match tail[..before_end].iter().rposition(|byte| *byte == b'\n') {
            Some(end) => return Ok(tail.split_off(end + 1)),
            None if begin == 0 => return Ok(tail),
            None => size *= 2,
        }
    }
}

/// What a look at an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditChecked {
    /// Lines that are there.
    pub lines: u64,
    /// The hash of the last one, in hexadecimal: kept elsewhere, it tells whether lines were taken from the end.
    pub last: String,
    /// What is wrong with them, by their numbers.
    pub problems: Vec<String>,
}

/// Whether each line of a data directory's audit follows from the one before it.
///
/// # Errors
/// It can't be read.
pub fn check(data: &Path) -> Result<AuditChecked, AuditError> {
    let path = data.join(AUDIT_FILE);
    let failed = |source| AuditError { path: path.clone(), source };
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(AuditChecked::default()),
        other => BufReader::new(other.map_err(failed)?),
    };
    let mut checked = AuditChecked::default();
    let mut last = hash(b"");
    for line in file.split(b'\n') {
        let line = line.map_err(failed)?;
        checked.lines += 1;
        match serde_json::from_slice::<Json>(&line) {
            Ok(json) if json["before"] == last.as_str() => {}
            Ok(_) => checked.problems.push(format!("line {} doesn't follow from the one before it", checked.lines)),
            Err(_) => checked.problems.push(format!("line {} is broken off", checked.lines)),
        }
        last = hash(&line);
    }
    checked.last = last;
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path, count: usize) {
        let audit = Audit::open(dir, Clock::start()).unwrap();
        for n in 0..count {
            let read = Event::Read { by: "uid 1000".into(), entries: [n.to_string(), n.to_string()], sensitive: false };
            audit.note(&read).unwrap();
        }
    }

    fn problems(dir: &Path) -> Vec<String> {
        check(dir).unwrap().problems
    }

    #[test]
    fn each_line_follows_from_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check(dir.path()).unwrap(), AuditChecked::default());
        written(dir.path(), 3);
        let before = check(dir.path()).unwrap().last;
        written(dir.path(), 2);
        let checked = check(dir.path()).unwrap();
        assert_eq!((checked.lines, checked.problems), (5, vec![]));
        assert!(checked.last.len() == 64 && checked.last != before, "lines at the end can be told by it");
        let path = dir.path().join(AUDIT_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("uid 1000", "uid 1001", 1)).unwrap();
        assert_eq!(problems(dir.path()), ["line 2 doesn't follow from the one before it"]);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.remove(2);
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        assert_eq!(problems(dir.path()), ["line 3 doesn't follow from the one before it"]);
    }

    #[test]
    fn a_line_of_any_length_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), 1);
        for bytes in [1, TAIL_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1, 5 * TAIL_BYTES] {
            let by = "x".repeat(usize::try_from(bytes).unwrap());
            let audit = Audit::open(dir.path(), Clock::start()).unwrap();
            audit.note(&Event::Act { by, act: "backup", on: String::new() }).unwrap();
        }
        written(dir.path(), 1);
        let checked = check(dir.path()).unwrap();
        assert_eq!((checked.lines, checked.problems), (7, vec![]));
    }

    #[test]
    fn a_line_that_a_crash_broke_off_stays_and_the_next_one_follows_from_it() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), 2);
        let path = dir.path().join(AUDIT_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        written(dir.path(), 1);
        let checked = check(dir.path()).unwrap();
        assert_eq!((checked.lines, checked.problems.len()), (3, 1));
        assert_eq!(checked.problems, ["line 2 is broken off"]);
    }

    #[test]
    fn the_same_refusal_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), Clock::start()).unwrap();
        let key = TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() };
        for run in 0..3 {
            audit.refused(&key, run, "egress.not_asked", "GET http://a");
            audit.refused(&key, run, "egress.not_asked", "GET http://b");
        }
        let text = std::fs::read_to_string(dir.path().join(AUDIT_FILE)).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("{\"at\":\""), "{text}");
        assert!(text.contains("\"event\":\"refused\",\"connection\":\"hr\",\"type\":\"account\",\"run\":0,"), "{text}");
    }
}
