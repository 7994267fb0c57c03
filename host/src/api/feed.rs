//! Entries as they are journaled, for any number of listeners: each is read and rendered once. Who comes later, or is slow, reads what it lacks from the db; nobody
//! is told an entry twice or out of order, and nobody's slowness is another's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::sse::Event;
use serde_json::Value as Json;
use tidewaiter_core::journal::Entry;
use tidewaiter_core::name::{AccessName, ConnectionName, TypeName};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::error::ApiError;
use crate::db::{ReadError, Sensitive};
use crate::host::{Host, HostError};
use crate::sink::render;

/// Entries that wait for those who listen; who falls behind by more reads the rest from the db.
const RING: usize = 512;
/// A larger one doesn't wait there, in bytes: who listens reads it from the db.
const TOLD_BYTES_MAX: usize = 32 * 1024;
/// Entries that are read from the db at once, and so many bytes of them as they are sent: a listener that doesn't fetch them keeps no more.
const PAGE: usize = 128;
const PAGE_BYTES: usize = 256 * 1024;
/// How long it is waited when entries can't be read.
const RETRY: Duration = Duration::from_millis(500);

/// An entry that is about to be told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) entry: Entry,
    /// With what is sensitive masked.
    pub(super) json: Json,
    /// The same, as it is sent.
    pub(super) event: Event,
    bytes: usize,
}

/// Which entries somebody wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) connection: Option<ConnectionName>,
    pub(super) object_type: Option<TypeName>,
    pub(super) kind: Option<String>,
    pub(super) uid: Option<String>,
}

/// Requests that last: so many at once of each access token.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<HashMap<AccessName, Arc<Semaphore>>>,
    each: usize,
}

/// What is journaled, for those who listen. None: there is something that they have to read from the db.
#[derive(Debug)]
pub(super) struct Feed {
    told: broadcast::Sender<Option<Arc<Told>>>,
}

/// Somebody who listens.
#[derive(Debug)]
pub(super) struct Listener {
    host: Arc<Host>,
    told: broadcast::Receiver<Option<Arc<Told>>>,
    /// What was read from the db and not told yet.
    read: VecDeque<Arc<Told>>,
    /// It has everything up to here.
    position: u64,
    /// There may be entries after that which the ring doesn't have.
    lacks: bool,
}

impl Wanted {
    /// Whether nothing is left out.
    pub(super) fn is_all(&self) -> bool {
        let Self { connection, object_type, kind, uid } = self;
        connection.is_none() && object_type.is_none() && kind.is_none() && uid.is_none()
    }

    pub(super) fn has(&self, entry: &Entry, json: &Json) -> bool {
        let same = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| json[name] == wanted);
        self.connection.as_ref().is_none_or(|name| *name == entry.key.connection)
            && self.object_type.as_ref().is_none_or(|name| *name == entry.key.object_type)
            && same(&self.kind, "kind")
            && same(&self.uid, "uid")
    }
}

impl Told {
    fn new(entry: Entry, sensitive: &Sensitive) -> Self {
        let json = render::masked(&entry, sensitive);
        let text = json.to_string();
        let (bytes, event) = (text.len(), event(&entry, text));
        Self { entry, json, event, bytes }
    }
}

/// An entry as it is sent: its id, and its JSON in one line.
pub(super) fn event(entry: &Entry, json: String) -> Event {
    Event::default().id(entry.id.to_string()).event("change").data(json)
}

impl Places {
    /// Half of the clients that there may be: however many one token has, another one and whoever looks whether the server lives find a place.
    pub(super) fn new(clients: usize) -> Self {
        Self { taken: Mutex::default(), each: clients.div_ceil(2) }
    }

    /// Takes one, as long as what is answered is kept.
    pub(super) fn take(&self, name: &AccessName) -> Result<OwnedSemaphorePermit, ApiError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = taken.entry(name.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        let message = || format!("{} requests of {name} wait for changes already", self.each);
        Arc::clone(of_it).try_acquire_owned().map_err(|_| ApiError::too_many(message(), 1))
    }
}

impl Feed {
    pub(super) fn new() -> Self {
        Self { told: broadcast::channel(RING).0 }
    }

    /// Tells what is journaled, until the host closes.
    pub(super) async fn work(&self, host: &Host) {
        let mut durable = host.db().watch();
        let mut last = *durable.borrow_and_update();
        while let Some(Ok(())) = host.closing().run_until_cancelled(durable.changed()).await {
            let upto = *durable.borrow_and_update();
            if self.told.receiver_count() == 0 {
                last = upto;
            }
            while last < upto {
                match read(host, last).await {
                    Ok(entries) if entries.is_empty() => last = upto,
                    Ok(entries) => {
                        for told in entries {
                            last = told.entry.id.sequence;
                            let small = told.bytes <= TOLD_BYTES_MAX;
                            drop(self.told.send(small.then_some(told)));
                        }
                    }
                    Err(HostError::Read(ReadError::Dropped { .. })) => {
                        last = upto;
                        drop(self.told.send(None));
                    }
                    Err(error) => {
                        tracing::warn!(target: "tidewaiter", "entries can't be read for those who listen: {error}");
                        if host.closing().run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Somebody who has everything up to a sequence.
    pub(super) fn listen(&self, host: Arc<Host>, position: u64) -> Listener {
        Listener { host, told: self.told.subscribe(), read: VecDeque::new(), position, lacks: true }
    }
}

impl Listener {
    /// The next entry, once there is one. Never, if the host closes.
    ///
    /// # Errors
    /// What comes next was dropped, or the db.
    pub(super) async fn next(&mut self) -> Result<Arc<Told>, HostError> {
        loop {
            if let Some(told) = self.read.pop_front() {
                self.position = told.entry.id.sequence;
                return Ok(told);
            }
            if self.lacks {
                self.read = read(&self.host, self.position).await?.into();
                self.lacks = !self.read.is_empty();
                continue;
            }
            match self.told.recv().await {
                Ok(Some(told)) if told.entry.id.sequence <= self.position => {}
                Ok(Some(told)) if told.entry.id.sequence == self.position + 1 => {
                    self.position += 1;
                    return Ok(told);
                }
                Ok(_) | Err(RecvError::Lagged(_)) => self.lacks = true,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Entries after a sequence, rendered.
async fn read(host: &Host, after: u64) -> Result<Vec<Arc<Told>>, HostError> {
    let db = host.db().clone();
    let read = spawn_blocking(move || {
        let sensitive = db.sensitive()?;
        let told = db.entries(after, PAGE)?.into_iter().map(|entry| Arc::new(Told::new(entry, &sensitive)));
        let mut bytes = 0;
        let has_room = |told: &Arc<Told>| {
            bytes += told.bytes;
            bytes - told.bytes < PAGE_BYTES
        };
        Ok::<_, ReadError>(told.take_while(has_room).collect())
    });
    Ok(read.await??)
}
