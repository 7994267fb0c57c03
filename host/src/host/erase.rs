//! Erasing what the journal says of an object, for good: its entries keep their places and ids, and say nothing any more. What was
//! erased is remembered by a hash, so that a copy that is restored loses it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidewaiter_core::journal::{Body, Entry};
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::object::Change;
use tidewaiter_core::state::Actor;
use tidewaiter_core::text::hex;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::{Host, HostError};
use crate::clock::Clock;
use crate::db::{Db, ReadError};

/// Beside the db and not in it, so that it outlives a db that is lost.
const ERASED_FILE: &str = "erased.ndjson";
/// Entries that are looked at together.
const PAGE_COUNT: usize = 10_000;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// Somebody had an object erased.
    Erased(Erased),
    /// A journal has nothing any more of what is erased above.
    Applied { incarnation: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct Erased {
    connection: ConnectionName,
    /// Random, so that a list of known uids can't be tried on all lines at once.
    salt: u64,
    /// Of salt and uid, in hexadecimal.
    sha256: String,
    by: Actor,
    at: String,
}

impl Erased {
    fn is_of(&self, entry: &Entry) -> bool {
        uids(entry).iter().any(|uid| hash(self.salt, uid) == self.sha256)
    }
}

fn hash(salt: u64, uid: &str) -> String {
    hex(&Sha256::new().chain_update(salt.to_be_bytes()).chain_update(uid).finalize())
}

/// The uids of an entry that says something of an object.
fn uids(entry: &Entry) -> Vec<&str> {
    let Body::Delta(delta) = &entry.body else { return Vec::new() };
    let previous = match &delta.change {
        Change::Update { previous_uid, .. } | Change::CreateOrUpdate { previous_uid, .. } => previous_uid.as_deref(),
        Change::Create(_) | Change::Delete { .. } => None,
    };
    previous.into_iter().chain([delta.change.uid()]).collect()
}

/// Erases in one journal what is to be forgotten, and remembers it beside it. One at a time: a line that says that all above it is
/// done must not follow one that isn't.
#[derive(Debug)]
pub(super) struct Erasures {
    path: PathBuf,
    db: Db,
    clock: Clock,
    one_at_a_time: Mutex<()>,
}

impl Host {
    /// Erases all that the journal, and the logs of runs, say of an object. Answers how many entries that were.
    ///
    /// # Errors
    /// Unknown connection, the audit, or the db.
    pub async fn erase(&self, connection: &ConnectionName, uid: &str, by: Actor) -> Result<u64, HostError> {
        if !self.config.connections.contains_key(connection) {
            return Err(HostError::UnknownConnection(connection.clone()));
        }
        let salt = getrandom::u64().map_err(|error| HostError::Erased(io::Error::other(error)))?;
        let sha256 = hash(salt, uid);
        // The audit and the list name the object by its hash: its uid may be what is to be forgotten.
        self.audit.act(&by, "erase", format!("{connection} sha256:{sha256} salt:{salt}")).await?;
        let at = self.clock.now().to_string();
        self.erasures.erase(Erased { connection: connection.clone(), salt, sha256, by, at }, uid).await
    }
}

impl Erasures {
    pub(super) fn new(data: &Path, db: Db, clock: Clock) -> Self {
        Self { path: data.join(ERASED_FILE), db, clock, one_at_a_time: Mutex::new(()) }
    }

    async fn erase(&self, erased: Erased, uid: &str) -> Result<u64, HostError> {
        let _turn = self.one_at_a_time.lock().await;
        // Logs of runs may name it where no entry does.
        let named = BTreeSet::from([(erased.connection.clone(), uid.to_owned())]);
        self.remember(&Line::Erased(erased)).map_err(HostError::Erased)?;
        self.apply(named).await
    }

    /// Erases what is remembered and still there: after a restore, or where that was not seen through to its end.
    pub(super) async fn erase_again(&self) -> Result<(), HostError> {
        let _turn = self.one_at_a_time.lock().await;
        match self.apply(BTreeSet::new()).await? {
            0 => {}
            entries => tracing::info!(entries, "what was erased before is erased in this journal, too"),
        }
        Ok(())
    }

    /// Answers how many entries say nothing any more. `names` are those that go from the logs beside those of the entries.
    async fn apply(&self, mut names: BTreeSet<(ConnectionName, String)>) -> Result<u64, HostError> {
        let incarnation = self.db.incarnation().to_string();
        let mut pending: BTreeMap<ConnectionName, Vec<Erased>> = BTreeMap::new();
        for line in self.remembered().map_err(HostError::Erased)? {
            match line {
                Line::Erased(erased) => pending.entry(erased.connection.clone()).or_default().push(erased),
                Line::Applied { incarnation: of } if of == incarnation => pending.clear(),
                Line::Applied { .. } => {}
            }
        }
        if pending.is_empty() {
            return Ok(0);
        }
        let (mut after, mut count) = (self.db.first_sequence()?.saturating_sub(1), 0);
        loop {
            let db = self.db.clone();
            let page = match spawn_blocking(move || db.entries(after, PAGE_COUNT)).await? {
                // Delivered and gone meanwhile: that is erased, too.
                Err(ReadError::Dropped { first }) => {
                    after = first - 1;
                    continue;
                }
                page => page?,
            };
            let Some(last) = page.last() else { break };
            after = last.id.sequence;
            for entry in &page {
                let mut of_it = pending.get(&entry.key.connection).into_iter().flatten();
                let Some(erased) = of_it.find(|erased| erased.is_of(entry)) else { continue };
                names.extend(uids(entry).into_iter().map(|uid| (entry.key.connection.clone(), uid.to_owned())));
                let gone = self.db.erase(entry.id.sequence, erased.by.clone(), self.clock.now()).await;
                if gone.is_err() && self.db.first_sequence()? <= entry.id.sequence {
                    gone?;
                }
                count += 1;
            }
        }
        for (connection, uid) in names {
            self.db.forget(&connection, &uid).await?;
        }
        self.remember(&Line::Applied { incarnation }).map_err(HostError::Erased)?;
        Ok(count)
    }

    fn remember(&self, line: &Line) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let mut text = serde_json::to_vec(line)?;
        let length = file.metadata()?.len();
        let mut last = [0];
        if length > 0 && file.read_exact_at(&mut last, length - 1).is_ok() && last != *b"\n" {
            // A crash broke a line off: it stands for itself.
            text.insert(0, b'\n');
        }
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()
    }

    fn remembered(&self) -> io::Result<Vec<Line>> {
        let text = match std::fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        // A line that a crash broke off was not acted upon.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}
