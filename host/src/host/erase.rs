//! Erasing what the journal says of an object, for good: its entries keep their places and ids, and say nothing any more. What was
//! erased is remembered by a hash, so that a copy that is restored loses it again.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidewaiter_core::journal::{Body, Entry};
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::object::Change;
use tidewaiter_core::state::Actor;
use tokio::task::spawn_blocking;

use super::{Host, HostError};
use crate::db::ReadError;

/// Beside the db and not in it, so that it outlives a db that is lost.
const ERASED_FILE: &str = "erased.ndjson";
/// Entries that are looked at together.
const PAGE_COUNT: usize = 10_000;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// Somebody had an object erased.
    Erased {
        connection: ConnectionName,
        /// Random, so that a list of known uids can't be tried on all lines at once.
        salt: u64,
        /// Of salt and uid, in hexadecimal.
        sha256: String,
        by: Actor,
        at: String,
    },
    /// A journal has nothing any more of what is erased above.
    Applied { incarnation: String },
}

fn hash(salt: u64, uid: &str) -> String {
    let digest = Sha256::new().chain_update(salt.to_be_bytes()).chain_update(uid).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
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
        let line = Line::Erased { connection: connection.clone(), salt, sha256, by: by.clone(), at };
        self.remember(&line).map_err(HostError::Erased)?;
        let of_it = |entry: &Entry| entry.key.connection == *connection && uids(entry).contains(&uid);
        let (erased, _) = self.erase_where(by, of_it).await?;
        self.db.forget(connection, uid).await?;
        let incarnation = self.db.incarnation().to_string();
        self.remember(&Line::Applied { incarnation }).map_err(HostError::Erased)?;
        Ok(erased)
    }

    /// Erases again what was erased from another journal than this one, as after a restore.
    pub(super) async fn erase_again(&self) -> Result<(), HostError> {
        let incarnation = self.db.incarnation().to_string();
        let lines = self.remembered().map_err(HostError::Erased)?;
        // What was erased after that was not seen through to its end, or from another journal.
        let is_applied = |line: &Line| matches!(line, Line::Applied { incarnation: of } if *of == incarnation);
        let is_done = lines.last().is_none_or(is_applied);
        let erasures: Vec<_> = lines.into_iter().filter(|line| matches!(line, Line::Erased { .. })).collect();
        if erasures.is_empty() || is_done {
            return Ok(());
        }
        let matches = |entry: &Entry| {
            erasures.iter().any(|line| match line {
                Line::Erased { connection, salt, sha256, .. } if entry.key.connection == *connection => {
                    uids(entry).iter().any(|uid| hash(*salt, uid) == *sha256)
                }
                _ => false,
            })
        };
        let (erased, names) = self.erase_where(Actor::Host, matches).await?;
        for (connection, uid) in names {
            self.db.forget(&connection, &uid).await?;
        }
        tracing::info!(entries = erased, "what was erased before is erased in this journal, too");
        self.remember(&Line::Applied { incarnation }).map_err(HostError::Erased)
    }

    /// Answers how many entries say nothing any more, and of whom they were.
    async fn erase_where(
        &self,
        by: Actor,
        matches: impl Fn(&Entry) -> bool,
    ) -> Result<(u64, BTreeSet<(ConnectionName, String)>), HostError> {
        let (mut after, mut erased) = (self.db.first_sequence()?.saturating_sub(1), 0);
        let mut names = BTreeSet::new();
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
            let Some(last) = page.last() else { return Ok((erased, names)) };
            after = last.id.sequence;
            for entry in page.iter().filter(|entry| matches(entry)) {
                names.extend(uids(entry).into_iter().map(|uid| (entry.key.connection.clone(), uid.to_owned())));
                let gone = self.db.erase(entry.id.sequence, by.clone(), self.clock.now()).await;
                if gone.is_err() && self.db.first_sequence()? <= entry.id.sequence {
                    gone?;
                }
                erased += 1;
            }
        }
    }

    fn erased_path(&self) -> PathBuf {
        self.config.data.join(ERASED_FILE)
    }

    fn remember(&self, line: &Line) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(self.erased_path())?;
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
        let text = match std::fs::read_to_string(self.erased_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        // A line that a crash broke off was not acted upon.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}
