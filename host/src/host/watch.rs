//! Watches the folder of connectors, and gives connections what comes there while they run. A file counts once nothing writes to it any
//! more; its bytes are read once. Each connector is loaded in a task of its own, so that a large one holds up no other.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tidewaiter_core::name::ConnectorName;
use tidewaiter_core::time::Moment;
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::kept::beside;
use super::load::NotLoaded;
use super::revise::Reviser;

/// A file that didn't change for so long is complete. One that was not, and is none yet, is tried again when it changes.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// How often it is looked, whether or not the system tells of changes: on some file systems it doesn't.
const LOOK: Duration = Duration::from_secs(1);
/// How long it waits where the host could not do it.
const RETRY: Duration = Duration::from_secs(10);

/// Device, number, and when it was made, where the file system knows: numbers are used again.
type Inode = (u64, u64, Option<SystemTime>);

fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino(), metadata.created().ok())
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: Inode,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let inode = inode(metadata);
        Self { inode, bytes: metadata.len(), changed: (metadata.ctime(), metadata.ctime_nsec()) }
    }
}

/// What became of a connector's file.
type Done = (ConnectorName, Result<(), NotLoaded>);
/// Of a connector's file, and of its statement and the signature of that.
type Stamped = Option<[Option<Stamp>; 3]>;
type Stamps = BTreeMap<ConnectorName, Stamped>;

pub(super) struct Watch {
    reviser: Arc<Reviser>,
    /// What was looked at.
    known: Stamps,
    /// What may be written to still, and when it is looked at.
    settling: HashMap<ConnectorName, (Stamped, Moment)>,
    /// What is trusted, as it was looked at: whatever runs is looked at again where that changes.
    lock: Option<Option<Stamp>>,
    loading: JoinSet<Done>,
    busy: BTreeMap<Id, ConnectorName>,
}

impl Watch {
    pub(super) fn new(reviser: Arc<Reviser>) -> Self {
        let (known, settling, lock, loading, busy) = Default::default();
        Self { reviser, known, settling, lock, loading, busy }
    }

    /// Works until the host closes.
    pub(super) async fn work(mut self, closing: CancellationToken) {
        let news = Arc::new(Notify::new());
        let mut watched = None;
        loop {
            watched = watch_again(watched, self.reviser.config.now().connectors.clone(), &news).await;
            let wait = self.look().await;
            tokio::select! {
                () = closing.cancelled() => return,
                () = news.notified() => {}
                Some(done) = self.loading.join_next_with_id() => self.loaded(done),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Begins to load what has settled. Answers when to look again.
    async fn look(&mut self) -> Duration {
        let reviser = Arc::clone(&self.reviser);
        let stamps = spawn_blocking(move || {
            let config = reviser.config.now();
            // A folder or a pipe of that name is none.
            let stamp = |path: &Path| std::fs::metadata(path).ok().filter(Metadata::is_file).as_ref().map(Stamp::of);
            let stamped = |name: &ConnectorName| {
                let path = config.connector(name);
                let [statement, signature] = beside(&path).map(|path| stamp(&path));
                stamp(&path).map(|file| [Some(file), statement, signature])
            };
            let connectors = reviser.loader.connectors().into_iter();
            let stamps = connectors.map(|name| (name.clone(), stamped(&name))).collect::<Stamps>();
            (stamps, stamp(&config.connector_trust.lock))
        });
        let ((stamps, lock), now) = (stamps.await.unwrap_or_default(), self.reviser.clock.moment());
        if self.lock.replace(lock).is_some_and(|known| known != lock) {
            self.known.clear();
            let gone = stamps.iter().filter(|(_, stamp)| stamp.is_none()).map(|(name, _)| name.clone());
            gone.collect::<Vec<_>>().into_iter().for_each(|name| self.load(name, false));
        }
        let mut wait = LOOK;
        for (name, stamp) in stamps {
            if self.known.get(&name) == Some(&stamp) {
                self.settling.remove(&name);
                continue;
            }
            let settles = now + SETTLE;
            let (seen, due) = self.settling.entry(name.clone()).or_insert((stamp, settles));
            if *seen != stamp {
                (*seen, *due) = (stamp, settles);
            }
            let is_busy = self.busy.values().any(|busy| *busy == name);
            match *due <= now {
                true if is_busy => {}
                true => {
                    self.settling.remove(&name);
                    let before = self.known.insert(name.clone(), stamp);
                    match stamp {
                        Some(_) => self.load(name, true),
                        // It wasn't there when the host began, and that was told.
                        None if before.is_none() => {}
                        None => tracing::warn!(
                            target: "tidewaiter", connector = %name, code = "connector-gone", "its file is gone, and what runs of it goes on"
                        ),
                    }
                }
                false => wait = wait.min(self.reviser.clock.until(*due)),
            }
        }
        wait
    }

    /// Looks at what of a connector runs, and at its file if there is one.
    fn load(&mut self, name: ConnectorName, is_there: bool) {
        let (reviser, of) = (Arc::clone(&self.reviser), name.clone());
        let task = self.loading.spawn(async move {
            let done = match reviser.retrust(&of).await {
                Ok(()) if is_there => reviser.revise(&of).await,
                other => other,
            };
            (of, done)
        });
        self.busy.insert(task.id(), name);
    }

    fn loaded(&mut self, done: Result<(Id, Done), JoinError>) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(name) = self.busy.remove(&id) else { return };
        let error = match done {
            Ok((_, (_, Ok(())))) => return,
            Ok((_, (_, Err(error)))) => error,
            Err(error) => NotLoaded::Host(error.into()),
        };
        let (retry, error) = match error {
            // It was replaced at that very moment.
            NotLoaded::Connector(fault) => (LOOK, fault.why),
            NotLoaded::Host(error) => (RETRY, error.to_string()),
        };
        tracing::error!(target: "tidewaiter", connector = %name, code = "revise-failed", "what runs goes on: {error}");
        // The same content is looked at again.
        let stamp = self.known.remove(&name).flatten();
        self.settling.insert(name, (stamp, self.reviser.clock.moment() + retry));
    }
}

/// The watcher of a folder, and which one it was: another one may have come in its place.
type Watched = (RecommendedWatcher, Inode);

/// Has the system tell of what changes in a folder, if it can. It is looked now and then all the same.
async fn watch_again(watched: Option<Watched>, folder: PathBuf, news: &Arc<Notify>) -> Option<Watched> {
    let news = Arc::clone(news);
    let begun = spawn_blocking(move || {
        let metadata = std::fs::metadata(&folder).ok()?;
        let inode = inode(&metadata);
        if let Some(watched) = watched.filter(|(_, known)| *known == inode) {
            return Some(watched);
        }
        let tell = move |_: notify::Result<notify::Event>| news.notify_one();
        let mut watcher = notify::recommended_watcher(tell).ok()?;
        watcher.watch(&folder, RecursiveMode::NonRecursive).ok()?;
        Some((watcher, inode))
    });
    begun.await.ok().flatten()
}
