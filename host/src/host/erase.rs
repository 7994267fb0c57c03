//! Erasing what the journal says of an object, for good: its entries keep their places and ids, and say nothing any more. What was
//! erased is remembered by a hash, so that a copy that is restored loses it again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidewaiter_core::dead_letter::related;
use tidewaiter_core::journal::Entry;
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::state::Actor;
use tidewaiter_core::text::hex;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;

use super::act::Acting;
use super::dead_letter::Settling;
use super::refused::refused;
use super::{Host, HostError};
use crate::clock::Clock;
use crate::db::{Db, Delivered, ReadError, RefusedEntry, StoredLetter};
use crate::driver::Request;

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

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Erased {
    connection: ConnectionName,
    /// Random, so that a list of known uids can't be tried on all lines at once.
    salt: u64,
    /// Of salt and uid, in hexadecimal.
    sha256: String,
    by: Actor,
    at: String,
    /// What it covers; none, in lines of older hosts: all that there is.
    #[serde(default)]
    covers: Option<Covers>,
}

/// What was journaled before an erasure, or by runs that were under way then: an object that comes later is another matter.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Covers {
    /// In this journal; in another one, which is a copy from before, all.
    incarnation: String,
    sequence: u64,
    run: u64,
}

impl Erased {
    fn new(
        connection: &ConnectionName,
        uid: &str,
        by: Actor,
        covers: Option<Covers>,
        clock: &Clock,
    ) -> Result<Self, HostError> {
        let salt = getrandom::u64().map_err(|error| HostError::Erased(io::Error::other(error)))?;
        let (sha256, at) = (hash(salt, uid), clock.now().to_string());
        Ok(Self { connection: connection.clone(), salt, sha256, by, at, covers })
    }

    /// Whether an entry is from before it.
    fn covers(&self, entry: &Entry) -> bool {
        let Some(covers) = &self.covers else { return true };
        covers.incarnation != entry.id.incarnation.to_string()
            || entry.id.sequence <= covers.sequence
            || entry.run.is_some_and(|run| run <= covers.run)
    }

    fn is(&self, uid: &str) -> bool {
        hash(self.salt, uid) == self.sha256
    }
}

fn hash(salt: u64, uid: &str) -> String {
    hex(&Sha256::new().chain_update(salt.to_be_bytes()).chain_update(uid).finalize())
}

/// The uids of an entry that says something of an object.
fn uids(entry: &Entry) -> Vec<&str> {
    let Some(delta) = entry.body.delta() else { return Vec::new() };
    delta.change.previous_uid().into_iter().chain([delta.change.uid()]).collect()
}

/// Erases in one journal what is to be forgotten, and remembers it beside it. One at a time: a line that says that all above it is
/// done must not follow one that isn't.
#[derive(Debug)]
pub(super) struct Erasures {
    path: PathBuf,
    db: Db,
    clock: Clock,
    /// The number of the last run that began.
    last_run: Arc<AtomicU64>,
    one_at_a_time: Mutex<()>,
}

impl Host {
    /// Erases all that the journal, dead letters and the logs of runs say of an object. Answers how many entries and dead letters that were.
    ///
    /// # Errors
    /// Unknown connection, the audit, or the db.
    pub async fn erase(&self, connection: &ConnectionName, uid: &str, by: Actor) -> Result<u64, HostError> {
        if !self.config().connections.contains_key(connection) {
            return Err(HostError::UnknownConnection(connection.clone()));
        }
        let covers = Some(self.erasures.covered());
        let erased = Erased::new(connection, uid, by.clone(), covers, &self.clock)?;
        let (audit, erasures, uid) = (self.audit.clone(), Arc::clone(&self.erasures), uid.to_owned());
        let requests = self.requests.clone();
        self.act(async move {
            // The audit and the list name the object by its hash: its uid may be what is to be forgotten.
            let on = format!("{} sha256:{} salt:{}", erased.connection, erased.sha256, erased.salt);
            audit.act(&by, "erase", on).await?;
            erasures.erase(erased, &uid, &requests).await
        })
        .await
    }
}

impl Erasures {
    pub(super) fn new(data: &Path, db: Db, last_run: Arc<AtomicU64>, clock: Clock) -> Self {
        Self { path: data.join(ERASED_FILE), db, clock, last_run, one_at_a_time: Mutex::new(()) }
    }

    /// What an erasure covers now.
    fn covered(&self) -> Covers {
        let incarnation = self.db.incarnation().to_string();
        // Runs first: what they journal from now on is theirs by number.
        let run = self.last_run.load(Ordering::Acquire);
        Covers { incarnation, sequence: self.db.last_sequence(), run }
    }

    /// Answers how many entries and dead letters say nothing any more. That it is done is not noted: a run that is under way may have read the object, and
    /// journal it yet. The next start looks again.
    async fn erase(&self, erased: Erased, uid: &str, requests: &mpsc::Sender<Request>) -> Result<u64, HostError> {
        let _turn = self.one_at_a_time.lock().await;
        let connection = erased.connection.clone();
        self.remember(&Line::Erased(erased)).map_err(HostError::Erased)?;
        // Logs of runs may name it where no entry does.
        self.db.forget(&connection, uid).await?;
        self.apply(Some(requests)).await
    }

    /// Erases what is remembered and still there: after a restore, or where that was not seen through to its end. For when nothing
    /// runs.
    pub(super) async fn erase_again(&self) -> Result<(), HostError> {
        let _turn = self.one_at_a_time.lock().await;
        if self.pending().map_err(HostError::Erased)?.is_empty() {
            return Ok(());
        }
        match self.apply(None).await? {
            0 => {}
            entries => tracing::info!(entries, "what was erased before is erased in this journal, too"),
        }
        self.look_through_shadows().await?;
        let incarnation = self.db.incarnation().to_string();
        self.remember(&Line::Applied { incarnation }).map_err(HostError::Erased)
    }

    /// Erases all that is pending. An object that was renamed goes under all its uids: each that turns up is looked for in turn.
    async fn apply(&self, requests: Option<&mpsc::Sender<Request>>) -> Result<u64, HostError> {
        let mut entries = 0;
        loop {
            let (letters, of_letters) = self.look_through_letters(requests).await?;
            let (refused, of_refused) = self.look_through_refused().await?;
            let (erased, of_entries) = self.look_through().await?;
            entries += letters + refused + erased;
            if !of_letters && !of_refused && !of_entries {
                return Ok(entries);
            }
        }
    }

    /// Looks once through the journal. Answers how many entries say nothing any more, and whether other uids turned up.
    async fn look_through(&self) -> Result<(u64, bool), HostError> {
        let mut pending = self.pending().map_err(HostError::Erased)?;
        let (mut count, mut renamed, mut forgotten) = (0, false, BTreeSet::new());
        let mut after = self.db.first_sequence()?.saturating_sub(1);
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
            let Some(last) = page.last() else { return Ok((count, renamed)) };
            after = last.id.sequence;
            for entry in &page {
                let connection = &entry.key.connection;
                let Some(of_it) = pending.get_mut(connection) else { continue };
                let uids = uids(entry);
                let is_it = |erased: &&Erased| erased.covers(entry) && uids.iter().any(|uid| erased.is(uid));
                let Some(like) = of_it.iter().find(is_it).cloned() else { continue };
                for uid in uids {
                    let is_known = |erased: &Erased| erased.covers(entry) && erased.is(uid);
                    renamed |= self.remember_name((connection, uid), of_it, &like, is_known)?;
                    if forgotten.insert((connection.clone(), uid.to_owned())) {
                        self.db.forget(connection, uid).await?;
                    }
                }
                let gone = self.db.erase(entry.id.sequence, like.by, self.clock.now()).await;
                if gone.is_err() && self.db.first_sequence()? <= entry.id.sequence {
                    gone?;
                }
                count += 1;
            }
        }
    }

    /// Takes away the dead letters of what is pending, with all that have to do with them. Answers how many, and whether other uids turned up.
    async fn look_through_letters(&self, requests: Option<&mpsc::Sender<Request>>) -> Result<(u64, bool), HostError> {
        let mut pending = self.pending().map_err(HostError::Erased)?;
        let incarnation = self.db.incarnation().to_string();
        let letters = self.db.read_dead_letters(None).await?;
        let (mut count, mut renamed) = (0, false);
        for of_type in letters.chunk_by(|one, next| one.key == next.key) {
            let key = &of_type[0].key;
            let Some(of_it) = pending.get_mut(&key.connection) else { continue };
            let numbered: Vec<_> = of_type.iter().map(|stored| (stored.number, &stored.letter)).collect();
            let mut gone = HashSet::new();
            for StoredLetter { number, run, letter, .. } in of_type {
                let covers = |erased: &&Erased| {
                    let covers = erased.covers.as_ref().filter(|covers| covers.incarnation == incarnation);
                    covers.is_none_or(|covers| run.is_some_and(|run| run <= covers.run))
                };
                let is_it = |erased: &&Erased| covers(erased) && letter.uids().any(|uid| erased.is(uid));
                let Some(like) = of_it.iter().find(is_it).cloned() else { continue };
                // What they say of other names nobody else may know.
                for (other, letter) in related(&numbered, *number) {
                    gone.insert(other);
                    for uid in letter.uids() {
                        if self.remember_name((&key.connection, uid), of_it, &like, |erased| erased.is(uid))? {
                            self.db.forget(&key.connection, uid).await?;
                            renamed = true;
                        }
                    }
                }
            }
            if !gone.is_empty() {
                count += gone.len() as u64;
                let (db, requests, key) = (self.db.clone(), requests.cloned(), key.clone());
                Settling(Acting { db, clock: self.clock, requests, key }).forget(gone).await?;
            }
        }
        Ok((count, renamed))
    }

    /// Takes away the dead letters of sinks that are of what is pending. Answers how many, and whether other uids turned up.
    async fn look_through_refused(&self) -> Result<(u64, bool), HostError> {
        let mut pending = self.pending().map_err(HostError::Erased)?;
        let (mut gone, mut renamed): (BTreeMap<String, Vec<u64>>, _) = (BTreeMap::new(), false);
        for (sink, RefusedEntry { entry, .. }) in refused(&self.db, None).await? {
            let Some(of_it) = pending.get_mut(&entry.key.connection) else { continue };
            let uids = uids(&entry);
            let is_it = |erased: &&Erased| erased.covers(&entry) && uids.iter().any(|uid| erased.is(uid));
            let Some(like) = of_it.iter().find(is_it).cloned() else { continue };
            for uid in uids {
                let is_known = |erased: &Erased| erased.covers(&entry) && erased.is(uid);
                if self.remember_name((&entry.key.connection, uid), of_it, &like, is_known)? {
                    // The journal may have the entry no more, that would say it.
                    self.db.forget(&entry.key.connection, uid).await?;
                    renamed = true;
                }
            }
            gone.entry(sink).or_default().push(entry.id.sequence);
        }
        let count = gone.values().map(|of_sink| of_sink.len() as u64).sum();
        for (sink, gone) in gone {
            self.db.delivered(&sink, Delivered { gone, ..Delivered::nothing(self.clock.now()) }).await?;
        }
        Ok((count, renamed))
    }

    /// Remembers a name of what is to be erased, before it is: whoever goes on with this after a crash finds no uid in it. Answers whether it is new.
    fn remember_name(
        &self,
        (connection, uid): (&ConnectionName, &str),
        of_it: &mut Vec<Erased>,
        like: &Erased,
        is_known: impl Fn(&Erased) -> bool,
    ) -> Result<bool, HostError> {
        if of_it.iter().any(is_known) {
            return Ok(false);
        }
        let other = Erased::new(connection, uid, like.by.clone(), like.covers.clone(), &self.clock)?;
        self.remember(&Line::Erased(other.clone())).map_err(HostError::Erased)?;
        of_it.push(other);
        Ok(true)
    }

    /// Takes what is pending out of shadows, which may have what the journal has no more.
    async fn look_through_shadows(&self) -> Result<(), HostError> {
        let (db, mut pending) = (self.db.clone(), self.pending().map_err(HostError::Erased)?);
        // Here it was done when it was said, and what is known by now came later.
        let here = db.incarnation().to_string();
        let is_copy = |erased: &Erased| erased.covers.as_ref().is_none_or(|covers| covers.incarnation != here);
        pending.values_mut().for_each(|of_it| of_it.retain(is_copy));
        let found = spawn_blocking(move || {
            let mut found = Vec::new();
            for (key, shadow) in db.shadows()? {
                let Some(of_it) = pending.get(&key.connection) else { continue };
                db.scan_shadow(&shadow, 0, &mut |_, uid| {
                    let uid = uid.reveal()?;
                    if of_it.iter().any(|erased| erased.is(&uid)) {
                        found.push((key.connection.clone(), uid));
                    }
                    Ok(true)
                })?;
            }
            Ok::<_, ReadError>(found)
        });
        for (connection, uid) in found.await?? {
            self.db.forget(&connection, &uid).await?;
        }
        Ok(())
    }

    /// What is to be erased in this journal, by connection.
    fn pending(&self) -> io::Result<BTreeMap<ConnectionName, Vec<Erased>>> {
        let incarnation = self.db.incarnation().to_string();
        let mut pending: BTreeMap<ConnectionName, Vec<Erased>> = BTreeMap::new();
        for line in self.remembered()? {
            match line {
                Line::Erased(erased) => pending.entry(erased.connection.clone()).or_default().push(erased),
                Line::Applied { incarnation: of } if of == incarnation => pending.clear(),
                Line::Applied { .. } => {}
            }
        }
        Ok(pending)
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
