//! Work that may take long, as something to be followed: begun here, done whether or not whoever asked is there still, and remembered for a while. What the work is,
//! the host knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tidewaiter_core::name::{ConnectionName, TypeKey, TypeName};
use tidewaiter_core::run::{Outcome, Trigger};
use tidewaiter_core::state::Actor;
use tidewaiter_core::time::UnixMillis;
use tokio::sync::watch;
use tokio::task::JoinSet;
use utoipa::ToSchema;

use super::error::{self, ApiError, Problem};
use crate::clock::Clock;
use crate::driver::Progress;
use crate::host::{BroughtUp, Host, HostError, Reconciled, Scope, Synced};

/// Those that are over and are remembered.
const KEPT: usize = 1000;
/// Those that are under way.
const ACTIVE_MAX: usize = 256;
const ID_BYTES: usize = 12;
/// What it is called to read all objects of a type, and to read one.
pub(super) const RECONCILE: &str = "reconcile";
const RECONCILE_OBJECT: &str = "reconcile-object";

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Standing {
    /// It is under way.
    Active,
    /// It did what was asked.
    Succeeded,
    /// It didn't.
    Failed,
}

/// An operation, as it stands. Those that are over are remembered until the server ends, or 1,000 others came to their end.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Operation {
    /// Its id.
    pub(super) id: String,
    /// What is done: `sync`, `reconcile`, `reconcile-object` or `bring-up`.
    pub(super) action: &'static str,
    /// On which connection.
    pub(super) connection: ConnectionName,
    /// On which type of it; none: all.
    pub(super) object_type: Option<TypeName>,
    /// Who began it.
    pub(super) by: String,
    /// When it began.
    pub(super) began: UnixMillis,
    /// When it ended.
    pub(super) ended: Option<UnixMillis>,
    /// Where it stands.
    pub(super) standing: Standing,
    /// How far the pass over all objects is.
    pub(super) progress: Option<Progress>,
    /// What it did.
    pub(super) result: Option<Done>,
    /// Why it didn't.
    pub(super) problem: Option<Problem>,
}

/// What an operation did.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Done {
    /// Live sync: the last run of it.
    Sync(Box<Synced>),
    /// A reconciliation.
    Reconcile(Box<Reconciled>),
    /// Bringing up, by type.
    BringUp(Vec<BroughtUp>),
}

/// What is to be done, and for whom.
pub(super) struct Order {
    pub(super) action: &'static str,
    pub(super) connection: ConnectionName,
    pub(super) object_type: Option<TypeName>,
    pub(super) by: String,
}

type Ended = Result<Done, ApiError>;

struct Entry {
    order: Order,
    began: UnixMillis,
    /// None: it is under way.
    ended: watch::Receiver<Option<(UnixMillis, Ended)>>,
}

/// The operations of a server.
pub(super) struct Operations {
    /// By when they began.
    entries: Mutex<BTreeMap<u64, (String, Entry)>>,
    tasks: Mutex<JoinSet<()>>,
    clock: Clock,
}

impl Operations {
    pub(super) fn new(clock: Clock) -> Self {
        Self { entries: Mutex::default(), tasks: Mutex::default(), clock }
    }

    /// Begins something. Answers its id.
    pub(super) fn begin(
        &self,
        order: Order,
        work: impl Future<Output = Ended> + Send + 'static,
    ) -> Result<String, ApiError> {
        let mut entries = self.entries();
        let active = entries.values().filter(|(_, entry)| entry.ended.borrow().is_none()).count();
        if active >= ACTIVE_MAX {
            return Err(ApiError::too_many(format!("{ACTIVE_MAX} operations are under way"), 1));
        }
        let id = id().map_err(|message| ApiError::unavailable("host", message))?;
        let (end, ended) = watch::channel(None);
        let began = self.clock.now();
        let number = entries.last_key_value().map_or(0, |(number, _)| number + 1);
        entries.insert(number, (id.clone(), Entry { order, began, ended }));
        forget(&mut entries);
        drop(entries);
        let clock = self.clock;
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let done = work.await;
            end.send_replace(Some((clock.now(), done)));
        });
        Ok(id)
    }

    /// Waits for the end of one, and no longer than that. None: it is under way still.
    pub(super) async fn wait(&self, id: &str, wait: Duration) -> Option<Ended> {
        let mut ended = self.find(id)?;
        let over = tokio::time::timeout(wait, ended.wait_for(Option::is_some)).await;
        over.ok()?.ok()?.as_ref().map(|(_, done)| done.clone())
    }

    fn find(&self, id: &str) -> Option<watch::Receiver<Option<(UnixMillis, Ended)>>> {
        self.entries().values().find(|(known, _)| known == id).map(|(_, entry)| entry.ended.clone())
    }

    /// One of them.
    pub(super) fn get(&self, host: &Host, id: &str) -> Result<Operation, ApiError> {
        let entries = self.entries();
        let found = entries.values().find(|(known, _)| known == id);
        let unknown = || ApiError::not_found(format!("there is no operation {id}, or it is forgotten"));
        found.map(|(id, entry)| entry.view(host, id)).ok_or_else(unknown)
    }

    /// All of them, the last one first.
    pub(super) fn list(&self, host: &Host) -> Vec<Operation> {
        self.entries().values().rev().map(|(id, entry)| entry.view(host, id)).collect()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, (String, Entry)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn view(&self, host: &Host, id: &str) -> Operation {
        let Order { action, connection, object_type, by } = &self.order;
        let ended = self.ended.borrow().clone();
        let key = |object_type: &TypeName| TypeKey { connection: connection.clone(), object_type: object_type.clone() };
        let read_whole = object_type.as_ref().filter(|_| *action == RECONCILE);
        let pass = || read_whole.and_then(|object_type| host.pass(&key(object_type)));
        let (ended, standing, result, problem) = match ended {
            None => (None, Standing::Active, None, None),
            Some((at, Ok(done))) => (Some(at), Standing::Succeeded, Some(done), None),
            Some((at, Err(error))) => (Some(at), Standing::Failed, None, Some(error.problem())),
        };
        Operation {
            id: id.to_owned(),
            action,
            connection: connection.clone(),
            object_type: object_type.clone(),
            by: by.clone(),
            began: self.began,
            ended,
            standing,
            progress: if standing == Standing::Active { pass() } else { None },
            result,
            problem,
        }
    }
}

/// Those that are over and that nobody remembers any more.
fn forget(entries: &mut BTreeMap<u64, (String, Entry)>) {
    let over: Vec<u64> = entries.iter().filter(|(_, (_, one))| one.ended.borrow().is_some()).map(|(n, _)| *n).collect();
    for number in over.iter().take(over.len().saturating_sub(KEPT)) {
        entries.remove(number);
    }
}

fn id() -> Result<String, String> {
    let mut bytes = [0; ID_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(tidewaiter_core::text::hex(&bytes))
}

/// Live sync of a type until there is nothing more to do. It failed if its last run did, or if an inline sink hasn't got what it is to have.
pub(super) async fn sync(host: Arc<Host>, key: TypeKey) -> Ended {
    let mut undelivered = None;
    loop {
        let mut synced = host.sync_and_deliver(key.clone(), Trigger::Api).await?;
        undelivered = undelivered.or(synced.undelivered.take());
        if synced.report.outcome == Outcome::More {
            continue;
        }
        return match error::of_run(&synced.report).or_else(|| undelivered.as_ref().map(error::undelivered)) {
            None => Ok(Done::Sync(Box::new(synced))),
            Some(error) => Err(error),
        };
    }
}

impl Order {
    /// To read objects of a type.
    pub(super) fn reconcile(key: &TypeKey, scope: &Scope, by: &Actor) -> Self {
        let action = if scope.uid.is_some() { RECONCILE_OBJECT } else { RECONCILE };
        let (connection, object_type) = (key.connection.clone(), Some(key.object_type.clone()));
        Self { action, connection, object_type, by: by.to_string() }
    }
}

impl Operation {
    /// Whether objects are read.
    pub(super) fn is_reconciliation(&self) -> bool {
        [RECONCILE, RECONCILE_OBJECT].contains(&self.action)
    }
}

/// What a reconciliation did; it failed if its last run did.
pub(super) fn reconciled(done: Result<Reconciled, HostError>) -> Ended {
    let done = done?;
    match error::of_run(&done.last) {
        None => Ok(Done::Reconcile(Box::new(done))),
        Some(error) => Err(error),
    }
}

/// What bringing up did; it failed if the last run of it did.
pub(super) fn brought_up(done: Result<Vec<BroughtUp>, HostError>) -> Ended {
    let done = done?;
    let last = done.last().and_then(|one| one.reconciled.as_ref().map(|pass| &pass.last).or(one.established.as_ref()));
    match last.and_then(error::of_run) {
        None => Ok(Done::BringUp(done)),
        Some(error) => Err(error),
    }
}
