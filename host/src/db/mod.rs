//! redb lives here, and only here. The durable layer: the state of each object type, the journal of entries, the reports of
//! runs, the history of tokens, the positions of sinks. Everything that belongs together is written in one transaction, and
//! nothing is visible or answered before that is durable.
//!
//! It knows no connector, no schedule and no clock: times are handed in. `store` is the little that is needed of a storage
//! engine, `redb` is that on redb, `commit` what is written together, `writer` groups it, `segment` has the bytes of the journal,
//! `dead_letter` what is kept out of it, `refused` what sinks refuse of it, `tables` and `migrate` the rest of the file's format, `open` the data directory, `revision`
//! what connections run, `consumer` and `retain` the rules of who reads and what may go, `figures` what is counted of all of it.

mod commit;
mod consumer;
mod dead_letter;
mod figures;
mod journal;
mod migrate;
mod open;
mod redb;
mod refused;
mod retain;
mod revision;
mod seal;
mod segment;
mod sensitive;
mod shadow;
mod store;
mod tables;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::journal::{Entry, Incarnation, Packed};
use tidewaiter_core::name::{ConnectionName, ConnectorName, TypeKey};
use tidewaiter_core::run::RunReport;
use tidewaiter_core::state::{Actor, TypeState};
use tidewaiter_core::time::UnixMillis;

use self::commit::{encode, prepare};
use self::segment::Head;
use self::store::{Chore, Counters, Done, Store, Write};
use self::writer::{Durable, Order, Writer};
use crate::meters::Meters;

pub use self::commit::{Commit, CommitError, Committed, StagedSegment, TokenChange};
pub use self::consumer::{Consumer, ConsumerError};
pub use self::dead_letter::{Letters, StoredLetter, Told};
pub use self::figures::{Figures, Reader};
pub(crate) use self::migrate::FORMAT_NOW;
pub use self::open::{OpenError, examine, restore};
pub use self::refused::{Delivered, RefusedEntry};
pub use self::retain::{Policy, Retained};
pub use self::revision::{Placement, RefusedRevision, Revision, Waits};
pub use self::seal::{KeyId, Keys};
pub use self::segment::{EncodeError, SegmentDamage, pack, pack_read, unpack};
pub use self::sensitive::Sensitive;
pub use self::shadow::{Digester, Shadow, ShadowHold, Uid, VisitRow};
pub(crate) use self::store::KEPT;
pub use self::store::{Full, Quota, ReadError, Usage};

/// The db of a data directory. Clones are the same db; the last one that is dropped writes what is queued, closes the file
/// and leaves the directory to others.
#[derive(Clone, Debug)]
pub struct Db {
    inner: Arc<Inner>,
}

/// In the order in which they go: nobody writes, then the file is closed, then the directory is free.
struct Inner {
    writer: Writer,
    store: Arc<dyn Store>,
    durable: Arc<Durable>,
    incarnation: Incarnation,
    keys: Arc<Keys>,
    /// Whose turn it is to bring up the shadow of a type.
    shadows: Mutex<HashMap<TypeKey, Arc<tokio::sync::Mutex<()>>>>,
    _lock: Option<open::Lock>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// What a look at the whole db found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The first entry that is kept, or will be.
    pub first: u64,
    /// The last entry.
    pub last: u64,
    /// Published segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of segments that runs under way have staged.
    #[serde(default)]
    pub staged_bytes: u64,
    /// Types that have a state.
    pub types: u64,
    /// What doesn't fit, a sentence each.
    pub problems: Vec<String>,
}

/// Runs of a connector in a row that trapped or broke the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Of which file: its hash. Another one begins anew.
    pub sha256: String,
    /// How many.
    pub count: u32,
    /// When the last one ended.
    pub at: UnixMillis,
}

/// Names of sensitive attributes that are kept of a connection.
const SENSITIVE_MAX: usize = 20_000;

impl Db {
    /// Opens the db in a data directory, which is made if need be. Blocks. `holder` is what others are told who find it in use,
    /// as in `tidewaiter serve`; for as long as `wait` another process may take to leave it.
    ///
    /// # Errors
    /// In use, of a newer format, damaged, or the file system refuses. What is there is left as it is.
    pub fn open(dir: &Path, holder: &str, wait: Duration) -> Result<Self, OpenError> {
        Self::open_sealed(dir, holder, wait, Keys::default())
    }

    /// As `open`; what is written is sealed with the current one of these keys.
    ///
    /// # Errors
    /// As `open`. A row that is sealed with another key is an error where it is read.
    pub fn open_sealed(dir: &Path, holder: &str, wait: Duration, keys: Keys) -> Result<Self, OpenError> {
        let (lock, keys) = (open::lock(dir, holder, wait)?, Arc::new(keys));
        let (store, incarnation) = open::open(dir, Arc::clone(&keys))?;
        let unreadable = |error| OpenError::Unusable { path: dir.to_owned(), source: Box::new(error) };
        let counters = store.counters().map_err(unreadable)?;
        let dropped = store.drop_staged().map_err(|error| unreadable(error.into()))?;
        if dropped > 0 {
            tracing::info!(segments = dropped, "segments that were staged and not published are dropped");
        }
        let started = Self::on(Arc::new(store), counters, incarnation, keys, Some(lock));
        started.map_err(|source| OpenError::Io { what: "start the writer of", path: dir.to_owned(), source })
    }

    fn on(
        store: Arc<dyn Store>,
        counters: Counters,
        incarnation: Incarnation,
        keys: Arc<Keys>,
        lock: Option<open::Lock>,
    ) -> std::io::Result<Self> {
        let durable = Arc::new(Durable::new(counters));
        let writer = Writer::spawn(Arc::clone(&store), Arc::clone(&durable))?;
        Ok(Self {
            inner: Arc::new(Inner {
                writer,
                store,
                durable,
                incarnation,
                keys,
                shadows: Mutex::default(),
                _lock: lock,
            }),
        })
    }

    /// Which db this is.
    pub fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// The states of all types that have one.
    ///
    /// # Errors
    /// A damaged row, or the storage engine failed.
    pub fn states(&self) -> Result<BTreeMap<TypeKey, TypeState>, ReadError> {
        self.inner.store.states()
    }

    /// The state of a type; none if nothing was ever stored.
    ///
    /// # Errors
    /// As `states`.
    pub fn state(&self, key: &TypeKey) -> Result<Option<TypeState>, ReadError> {
        self.inner.store.state(key)
    }

    /// Writes everything of a commit in one transaction, and returns when it is durable. Once it is queued, it is written even
    /// if nobody waits for it.
    ///
    /// # Errors
    /// The state is another one than was expected, or the storage engine failed.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        debug_assert_eq!(commit.state.revision, commit.expected_revision + 1, "a state counts its writes");
        let prepared = prepare(commit, &self.inner.keys).await?;
        match self.write(Write::Commit(Box::new(prepared))).await? {
            Done::Committed(committed) => Ok(committed),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes deltas that no token covers yet, where nobody sees them, and returns when that is durable. They have their place in
    /// the journal once a commit names them; until then they count against the quota.
    ///
    /// # Errors
    /// There is no room, or the storage engine failed.
    pub async fn stage(
        &self,
        key: &TypeKey,
        generation: u64,
        run: u64,
        batches: Vec<Packed>,
        at: UnixMillis,
    ) -> Result<Vec<StagedSegment>, CommitError> {
        let head = Head { key: key.clone(), generation, run: Some(run), at };
        let segments = encode(&head, None, batches, &self.inner.keys).await?;
        match self.write(Write::Stage { connection: key.connection.clone(), segments }).await? {
            Done::Staged(staged) => Ok(staged),
            other => Err(unexpected(&other)),
        }
    }

    /// Drops those of these segments that were not published after all.
    ///
    /// # Errors
    /// The storage engine failed; the next start drops them.
    pub async fn discard(&self, staged: Vec<StagedSegment>) -> Result<(), CommitError> {
        self.inner.writer.perform(Order::Chore(Chore::Discard { staged })).await.map(drop)
    }

    async fn write(&self, write: Write) -> Result<Done, CommitError> {
        self.inner.writer.perform(Order::Write(write)).await
    }

    /// How much there may be from now on. What is there already stays.
    pub fn set_quota(&self, quota: Quota) {
        self.inner.durable.set_quota(quota);
    }

    /// Commits are counted there from now on.
    pub fn set_meters(&self, meters: Meters) {
        self.inner.durable.set_meters(meters);
    }

    /// All of it in figures, as of one instant.
    ///
    /// # Errors
    /// As `states`.
    pub fn figures(&self) -> Result<Figures, ReadError> {
        self.inner.store.figures()
    }

    /// What keeps a connection from writing anything more, if something does.
    ///
    /// # Errors
    /// As `states`.
    pub fn full(&self, connection: &ConnectionName) -> Result<Option<Full>, ReadError> {
        let (held, total) = self.inner.store.held(connection)?;
        Ok(self.inner.durable.quota().refuses(connection.as_str(), held, total, 1))
    }

    /// Bytes of segments, published and staged.
    ///
    /// # Errors
    /// As `states`.
    pub fn usage(&self) -> Result<Usage, ReadError> {
        self.inner.store.usage()
    }

    /// Drops entries that everyone has, by the one rule of `retain`, and expires consumers that are too far behind.
    ///
    /// # Errors
    /// The storage engine failed.
    pub async fn retain(&self, policy: Policy, now: UnixMillis) -> Result<Retained, CommitError> {
        let room = self.inner.durable.take_refused();
        match self.inner.writer.perform(Order::Chore(Chore::Retain { policy, room, now })).await? {
            Done::Retained(retained) => Ok(retained),
            other => Err(unexpected(&other)),
        }
    }

    /// Replaces what an entry says by a tombstone; its id stays.
    ///
    /// # Errors
    /// There is no such entry, or the storage engine failed.
    pub async fn erase(&self, sequence: u64, by: Actor, at: UnixMillis) -> Result<(), CommitError> {
        self.inner.writer.perform(Order::Chore(Chore::Erase { sequence, by, at })).await.map(drop)
    }

    /// The consumers, by name.
    ///
    /// # Errors
    /// As `states`.
    pub fn consumers(&self) -> Result<BTreeMap<String, Consumer>, ReadError> {
        self.inner.store.consumers()
    }

    /// Adds a consumer that has everything up to a sequence.
    ///
    /// # Errors
    /// There is one of that name, or the storage engine failed.
    pub async fn add_consumer(
        &self,
        name: &str,
        position: u64,
        max_lag: Option<u64>,
        now: UnixMillis,
    ) -> Result<(), CommitError> {
        let consumer = Consumer::new(self.incarnation(), position, max_lag, now);
        self.write(Write::AddConsumer { name: name.to_owned(), consumer }).await.map(drop)
    }

    /// Where a consumer goes on.
    ///
    /// # Errors
    /// There is none of that name, it is expired, its position is of another db, or as `states`.
    pub fn consumer_position(&self, name: &str) -> Result<u64, ReadError> {
        let consumer = self.consumers()?.remove(name);
        let consumer = consumer.ok_or_else(|| ConsumerError::Unknown { name: name.to_owned() })?;
        Ok(consumer.resumes(name, self.incarnation())?)
    }

    /// A consumer has everything up to a sequence; returns when that is durable. With it: whether it named the journal, too, so that one that read
    /// another one goes on with this.
    ///
    /// # Errors
    /// As `consumer_position`; or the entry is not there yet.
    pub async fn acknowledge(&self, name: &str, upto: (u64, bool), at: UnixMillis) -> Result<(), CommitError> {
        let (incarnation, (sequence, knows)) = (self.incarnation(), upto);
        self.write(Write::Acknowledge { name: name.to_owned(), incarnation, sequence, knows, at }).await.map(drop)
    }

    /// Removes a consumer: nothing waits for it any more.
    ///
    /// # Errors
    /// There is none of that name, or the storage engine failed.
    pub async fn remove_consumer(&self, name: &str) -> Result<(), CommitError> {
        self.write(Write::RemoveConsumer { name: name.to_owned() }).await.map(drop)
    }

    /// Copies everything that is durable now into a new file, while others go on. Blocks.
    ///
    /// # Errors
    /// The file is there already or can't be written, or the db can't be read.
    pub fn backup(&self, to: &Path) -> Result<(), ReadError> {
        Ok(self.inner.store.backup(to)?)
    }

    /// The key that is written with; none: what is written can be read by whoever has the file.
    pub fn key(&self) -> Option<KeyId> {
        self.inner.keys.current()
    }

    /// Seals with the current key, or with none, what is stored otherwise; others get their turn in between.
    ///
    /// # Errors
    /// Something is sealed with a key that isn't there, or the storage engine failed.
    pub async fn rekey(&self) -> Result<(), CommitError> {
        let mut from = 0;
        loop {
            match self.inner.writer.perform(Order::Chore(Chore::Rekey { from })).await? {
                Done::Rekeyed(Some(next)) => from = next,
                Done::Rekeyed(None) => return Ok(()),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// The attributes that are sensitive.
    ///
    /// # Errors
    /// As `states`.
    pub fn sensitive(&self) -> Result<Sensitive, ReadError> {
        self.inner.store.sensitive()
    }

    /// Notes that these attributes of a connection, by class and name, are sensitive, and returns when that is durable. Writes only
    /// what is new.
    ///
    /// # Errors
    /// More than any source has, or the storage engine failed.
    pub async fn note_sensitive(
        &self,
        connection: &ConnectionName,
        attributes: Vec<(String, String)>,
    ) -> Result<(), CommitError> {
        let known = self.sensitive().map_err(|error| CommitError::Storage(error.to_string()))?;
        let new = |(class, name): &(String, String)| !known.contains(connection.as_str(), class, name);
        let lower = |(class, name): (String, String)| (class.to_lowercase(), name.to_lowercase());
        let attributes: Vec<_> = attributes.into_iter().filter(new).map(lower).collect();
        // They stay for good, so a source that makes new ones up each time would fill the disk.
        let all = known.count(connection.as_str()) + attributes.len();
        if all > SENSITIVE_MAX {
            let problem =
                format!("{all} sensitive attributes of {connection}, more than the {SENSITIVE_MAX} that are kept");
            return Err(CommitError::Storage(problem));
        }
        match attributes.is_empty() {
            true => Ok(()),
            false => self.write(Write::Sensitive { connection: connection.clone(), attributes }).await.map(drop),
        }
    }

    /// Takes a uid out of the shadows, and of the reports of runs: their failures, and the last lines of their logs.
    ///
    /// # Errors
    /// A damaged row, or the storage engine failed.
    pub async fn forget(&self, connection: &ConnectionName, uid: &str) -> Result<(), CommitError> {
        let chore = Chore::Forget { connection: connection.clone(), uid: uid.to_owned() };
        self.inner.writer.perform(Order::Chore(chore)).await.map(drop)
    }

    /// Whether a directory has a db.
    pub fn is_there(dir: &Path) -> bool {
        dir.join(open::DB_FILE).exists()
    }

    /// What went wrong with a connector; none: nothing ever did.
    ///
    /// # Errors
    /// As `states`.
    pub fn faults(&self, connector: &ConnectorName) -> Result<Option<Faults>, ReadError> {
        self.inner.store.faults(connector)
    }

    /// Notes what went wrong with a connector, and returns when that is durable.
    ///
    /// # Errors
    /// The storage engine failed.
    pub async fn note_faults(&self, connector: &ConnectorName, faults: Faults) -> Result<(), CommitError> {
        self.write(Write::Faults { connector: connector.clone(), faults }).await.map(drop)
    }

    /// What a connection may ask for; none: it has not run yet.
    ///
    /// # Errors
    /// As `states`.
    pub fn approved(&self, connection: &ConnectionName) -> Result<Option<Approved>, ReadError> {
        self.inner.store.approved(connection)
    }

    /// Writes down what a connection may ask for, and returns when that is durable.
    ///
    /// # Errors
    /// The storage engine failed.
    pub async fn approve(&self, connection: &ConnectionName, approved: Approved) -> Result<(), CommitError> {
        self.write(Write::Approve { connection: connection.clone(), approved }).await.map(drop)
    }

    /// What connections run. Those that never ran aren't there.
    ///
    /// # Errors
    /// As `states`.
    pub fn placements(&self) -> Result<BTreeMap<ConnectionName, Placement>, ReadError> {
        self.inner.store.placements()
    }

    /// Connections run this from now on, all of them or none.
    ///
    /// # Errors
    /// The storage engine failed.
    pub async fn place(&self, placements: Vec<(ConnectionName, Placement)>) -> Result<(), CommitError> {
        self.write(Write::Place { placements }).await.map(drop)
    }

    /// The files that were met of each connector.
    ///
    /// # Errors
    /// As `states`.
    pub fn revisions(&self) -> Result<BTreeMap<ConnectorName, Vec<Revision>>, ReadError> {
        self.inner.store.revisions()
    }

    /// A file of a connector was met, and others, by their hashes, are remembered no longer.
    ///
    /// # Errors
    /// The storage engine failed.
    pub async fn note_revision(
        &self,
        connector: &ConnectorName,
        revision: Revision,
        forgotten: Vec<String>,
    ) -> Result<(), CommitError> {
        self.write(Write::Revision { connector: connector.clone(), revision, forgotten }).await.map(drop)
    }

    /// The dead letters of a type, or all, each type's in the order in which they came. Blocks for as long as it takes to read all of them, which may be
    /// megabytes.
    ///
    /// # Errors
    /// As `states`.
    pub fn dead_letters(&self, of: Option<&TypeKey>) -> Result<Vec<StoredLetter>, ReadError> {
        self.inner.store.dead_letters(of)
    }

    /// The same, elsewhere.
    ///
    /// # Errors
    /// As `states`.
    pub async fn read_dead_letters(&self, of: Option<TypeKey>) -> Result<Vec<StoredLetter>, ReadError> {
        let db = self.clone();
        let read = tokio::task::spawn_blocking(move || db.dead_letters(of.as_ref())).await;
        read.unwrap_or_else(|error| Err(ReadError::Storage(error.to_string())))
    }

    /// What is kept for a credential, `CONNECTION/NAME`.
    ///
    /// # Errors
    /// As `states`; or its key isn't there.
    pub fn kept(&self, credential: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.inner.store.kept(credential)
    }

    /// Keeps something for a credential, sealed, and returns when that is durable.
    ///
    /// # Errors
    /// There is no key to seal it with, or the storage engine failed.
    pub async fn keep(&self, credential: &str, content: Vec<u8>) -> Result<(), CommitError> {
        if self.key().is_none() {
            return Err(CommitError::Storage("there is no key to encrypt it with".into()));
        }
        self.write(Write::Keep { credential: credential.to_owned(), content }).await.map(drop)
    }

    /// Looks whether everything fits together; `deep`: every entry is read. Blocks.
    ///
    /// # Errors
    /// As `states`.
    pub fn check(&self, deep: bool) -> Result<Checked, ReadError> {
        self.inner.store.check(deep)
    }

    /// As `examine` of the directory, while this has it open: nothing is written meanwhile. Blocks.
    ///
    /// # Errors
    /// As `states`.
    pub fn examine(&self) -> Result<Vec<String>, ReadError> {
        self.inner.store.examine()
    }

    /// Gives room that nothing uses back to the file system, while nothing else works with it. Blocks. False: there was none.
    ///
    /// # Errors
    /// The storage engine failed.
    pub fn compact(&self) -> Result<bool, ReadError> {
        Ok(self.inner.store.compact()?)
    }

    /// The entries after a sequence, in order; at most `limit`, and fewer where they are large. None: there are no more yet.
    /// Blocks for the time of reading some megabytes at most.
    ///
    /// # Errors
    /// A damaged segment, a missing entry, or the storage engine failed.
    pub fn entries(&self, after: u64, limit: usize) -> Result<Vec<Entry>, ReadError> {
        if after >= self.last_sequence() {
            return Ok(Vec::new());
        }
        journal::read(self.inner.store.as_ref(), self.inner.incarnation, after, limit)
    }

    /// The sequence of the last durable entry, 0 if there is none.
    pub fn last_sequence(&self) -> u64 {
        self.inner.durable.sequence()
    }

    /// Tells the last durable sequence as it grows.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.durable.watch()
    }

    /// Tells when somebody acted on dead letters of sinks: some are gone, or their turn has come.
    pub fn watch_letters(&self) -> tokio::sync::watch::Receiver<()> {
        self.inner.durable.watch_letters()
    }

    /// The reports of the last runs, of one type or of all, newest first. At most 1,000 are kept for each type.
    ///
    /// # Errors
    /// As `states`.
    pub fn runs(&self, key: Option<&TypeKey>, limit: usize) -> Result<Vec<RunReport>, ReadError> {
        self.inner.store.runs(key, u64::MAX, limit)
    }

    /// As `runs`, of those before a number.
    ///
    /// # Errors
    /// As `states`.
    pub fn runs_before(&self, key: Option<&TypeKey>, before: u64, limit: usize) -> Result<Vec<RunReport>, ReadError> {
        self.inner.store.runs(key, before, limit)
    }

    /// The highest number of a run that wrote something, 0 if there is none.
    pub fn last_run(&self) -> u64 {
        self.inner.durable.run()
    }

    /// What became of the token of a type, newest first. At most 1,000 rows are kept; checkpoints within a run have none.
    ///
    /// # Errors
    /// As `states`.
    pub fn token_history(&self, key: &TypeKey, limit: usize) -> Result<Vec<TokenChange>, ReadError> {
        self.inner.store.token_history(key, limit)
    }

    /// The last sequence that a sink has delivered, 0 if none.
    ///
    /// # Errors
    /// The storage engine failed.
    pub fn sink_position(&self, sink: &str) -> Result<u64, ReadError> {
        self.inner.store.sink_position(sink)
    }

    /// Stores how far a sink got and what became of entries that it refuses, and returns when that is durable.
    ///
    /// # Errors
    /// The storage engine failed.
    pub async fn delivered(&self, sink: &str, delivered: Delivered) -> Result<(), CommitError> {
        self.write(Write::Delivered { sink: sink.to_owned(), delivered: Box::new(delivered) }).await.map(drop)
    }

    /// The dead letters of a sink, or of all sinks, each sink's in the order of their entries. Blocks, as `dead_letters`.
    ///
    /// # Errors
    /// As `states`.
    pub fn refused(&self, of: Option<&str>) -> Result<BTreeMap<String, Vec<RefusedEntry>>, ReadError> {
        self.inner.store.refused(of)
    }

    /// The sequence of the first entry that is kept, or will be.
    ///
    /// # Errors
    /// As `states`.
    pub fn first_sequence(&self) -> Result<u64, ReadError> {
        Ok(self.inner.store.counters()?.first)
    }
}

fn unexpected(done: &Done) -> CommitError {
    CommitError::Storage(format!("an answer to another question: {done:?}"))
}

#[cfg(test)]
mod tests;
