//! Reading objects as they are now, page by page: what differs from what the journal said before is journaled, or all of it. Live
//! sync has its turn between pages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidewaiter_core::backoff::Backoff;
use tidewaiter_core::dead_letter::Feed;
use tidewaiter_core::name::{ConnectionName, TypeKey};
use tidewaiter_core::run::{Filter, Outcome, Reading, RunReport, Trigger};
use tidewaiter_core::schedule::Refusal;
use tidewaiter_core::schema::{ALL_CLASSES, ChangeFeed, ObjectClassInfo, Operation};
use tidewaiter_core::shadow::Counts;
use tidewaiter_core::state::{Actor, SyncState, TypeState};
use tidewaiter_core::time::Moment;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use utoipa::ToSchema;

use super::{Host, HostError, placed};
use crate::clock::Clock;
use crate::config::Current;
use crate::db::{Db, ReadError};
use crate::driver::{Comparison, Connection, Manner, Performed, Progress, Request, Roster};

/// How often it is looked whether a pass is owed.
const OWED_LOOK: Duration = Duration::from_secs(1);
/// How long one that failed waits.
const OWED_RETRY: Backoff = Backoff { min: Duration::from_secs(5), max: Duration::from_secs(300) };

/// What is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scope {
    /// The one object with this uid, which is journaled whatever was said of it before; none: all of the type's class.
    pub uid: Option<String>,
    /// If that one isn't there, it is journaled as deleted.
    pub gone: bool,
    /// All objects are journaled, and not only those that differ.
    pub full: bool,
    /// Reads, compares and counts, and journals nothing.
    pub dry_run: bool,
    /// Journals deletions however many they are.
    pub allow_deletes: bool,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reconciled {
    /// Pages that were read to their end.
    pub pages: u64,
    /// Entries journaled; in a dry run, those that would be.
    pub objects: u64,
    /// What the comparison found.
    #[serde(flatten)]
    pub counts: Counts,
    /// The last run, which tells how it ended.
    pub last: RunReport,
}

/// The passes that are under way.
pub(super) type Passes = Arc<Mutex<HashMap<TypeKey, Weak<Comparison>>>>;

/// Makes what reads the objects of types.
pub(super) struct Reconcilers {
    config: Arc<Current>,
    roster: Arc<Roster>,
    db: Db,
    clock: Clock,
    requests: mpsc::Sender<Request>,
    passes: Passes,
}

/// Reads the objects of one type.
pub(super) struct Reconciler {
    key: TypeKey,
    pub(super) connection: Arc<Connection>,
    db: Db,
    clock: Clock,
    requests: mpsc::Sender<Request>,
    passes: Passes,
}

/// What bringing a type up did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BroughtUp {
    /// Which.
    pub key: TypeKey,
    /// The run that established its token, or the last one that found all there was; none: it had a token.
    pub established: Option<RunReport>,
    /// What was read; none: there was no token to go on from afterwards, or no need.
    pub reconciled: Option<Reconciled>,
}

impl Host {
    /// Reads objects of a type as they are now, and journals what differs from what was said of them before; of those that aren't
    /// there any more, that they are gone. What was read before something failed stays journaled, and isn't told again.
    ///
    /// # Errors
    /// Unknown type, a connector that can't read objects or isn't reached, another pass over the type, the source hasn't the one object, or
    /// the host shuts down. That reading failed is in the report.
    pub async fn reconcile(&self, key: &TypeKey, scope: Scope, by: Actor) -> Result<Reconciled, HostError> {
        let (reconciler, audit, key) = (self.reconciler(key)?, self.audit.clone(), key.clone());
        reconciler.can_read(&scope)?;
        self.act(async move {
            audit.act(&by, "reconcile", key.to_string()).await?;
            let uid = scope.uid.clone();
            let done = reconciler.read(scope).await?;
            match uid {
                Some(uid) if done.objects == 0 && done.last.outcome == Outcome::Ok => {
                    Err(HostError::NoSuchObject { key, uid })
                }
                _ => Ok(done),
            }
        })
        .await
    }

    /// Brings the types of a connection up, in their order: a token is established where there is none, then all objects are read and
    /// journaled where they differ from what was said before. Live sync goes on from the token meanwhile. Ends with the first type that
    /// can't be brought up.
    ///
    /// # Errors
    /// As `reconcile`, for the first type; that a run failed is in its report.
    pub async fn bring_up(&self, connection: &ConnectionName, by: Actor) -> Result<Vec<BroughtUp>, HostError> {
        self.can_run(connection)?;
        let config = self.config();
        let configured = config.connections.get(connection);
        let types = &configured.ok_or_else(|| HostError::UnknownConnection(connection.clone()))?.types;
        let mut keys: Vec<(usize, TypeKey)> = Vec::new();
        for (object_type, config) in types {
            keys.push((config.rank, TypeKey { connection: connection.clone(), object_type: object_type.clone() }));
        }
        keys.sort();
        let reconcilers = keys.iter().map(|(_, key)| self.reconciler(key)).collect::<Result<Vec<_>, _>>()?;
        for reconciler in &reconcilers {
            reconciler.can_read(&Scope::default())?;
        }
        let (audit, on) = (self.audit.clone(), connection.to_string());
        self.act(async move {
            audit.act(&by, "connections bring-up", on).await?;
            let mut all = Vec::new();
            for reconciler in reconcilers {
                let one = reconciler.bring_up().await?;
                let is_up = one.is_up();
                all.push(one);
                if !is_up {
                    break;
                }
            }
            Ok(all)
        })
        .await
    }

    /// Makes the passes that are owed, now.
    ///
    /// # Errors
    /// As `reconcile`; what is owed after the first one that fails stays owed.
    pub async fn pay_owed(&self) -> Result<Vec<Reconciled>, HostError> {
        let mut made = Vec::new();
        for key in self.config().may_owe_passes() {
            let Ok(reconciler) = self.reconciler(&key) else { continue };
            if reconciler.owes()? {
                made.push(reconciler.read(Scope::default()).await?);
            }
        }
        Ok(made)
    }

    /// Begins the task that makes the passes that are owed: after a token was lost, or for a new type, where an operator said so.
    pub(super) async fn pay_owed_passes(&self) {
        let (reconcilers, closing) = (self.reconcilers(), self.closing.clone());
        self.tasks.lock().await.retention.spawn(async move {
            closing.run_until_cancelled(owed(reconcilers)).await;
        });
    }

    /// How far the pass over a type is; none: there is none.
    pub fn pass(&self, key: &TypeKey) -> Option<Progress> {
        let passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.get(key).and_then(Weak::upgrade).map(|pass| pass.progress())
    }

    /// Has the pass over a type end before its next page. What it journaled stays; no deletion is told that it hasn't told.
    ///
    /// # Errors
    /// There is none; or it can't be written down.
    pub async fn cancel_pass(&self, key: &TypeKey, by: &Actor) -> Result<Progress, HostError> {
        let (passes, audit, key, by) = (Arc::clone(&self.passes), self.audit.clone(), key.clone(), by.clone());
        let on = key.to_string();
        let under_way = move || {
            let passes = passes.lock().unwrap_or_else(PoisonError::into_inner);
            passes.get(&key).and_then(Weak::upgrade).ok_or_else(|| HostError::NoPass { key: key.clone() })
        };
        under_way()?;
        self.act(async move {
            audit.act(&by, "reconcile cancel", on).await?;
            // It may have ended meanwhile.
            let pass = under_way()?;
            pass.cancel();
            Ok(pass.progress())
        })
        .await
    }

    pub(super) fn reconciler(&self, key: &TypeKey) -> Result<Reconciler, HostError> {
        self.reconcilers().of(key)
    }

    fn reconcilers(&self) -> Reconcilers {
        Reconcilers {
            config: Arc::clone(&self.config),
            roster: Arc::clone(&self.roster),
            db: self.db.clone(),
            clock: self.clock,
            requests: self.requests.clone(),
            passes: Arc::clone(&self.passes),
        }
    }
}

impl Reconcilers {
    fn of(&self, key: &TypeKey) -> Result<Reconciler, HostError> {
        let connection = placed(&self.roster, &key.connection)?;
        self.config.now().object_type(key).ok_or_else(|| Refusal::Unknown(key.clone()))?;
        Ok(Reconciler {
            key: key.clone(),
            connection,
            db: self.db.clone(),
            clock: self.clock,
            requests: self.requests.clone(),
            passes: Arc::clone(&self.passes),
        })
    }
}

/// Makes the passes that are owed, for ever, those of several types at a time. One that fails is tried again.
async fn owed(reconcilers: Reconcilers) {
    let mut failed: HashMap<TypeKey, (u32, Moment)> = HashMap::new();
    let mut under_way: HashMap<TypeKey, AbortHandle> = HashMap::new();
    let mut passes = JoinSet::new();
    let mut looks = tokio::time::interval(OWED_LOOK);
    loop {
        looks.tick().await;
        while let Some(ended) = passes.try_join_next() {
            // Where a bug of ours ended one, it is tried again.
            let Ok((key, problem)): Result<(TypeKey, Option<String>), _> = ended else { continue };
            let Some(problem) = problem else {
                failed.remove(&key);
                continue;
            };
            let count = failed.get(&key).map_or(1, |(count, _)| count.saturating_add(1));
            let due = reconcilers.clock.moment() + OWED_RETRY.delay(count, getrandom::u64().unwrap_or(u64::MAX));
            let TypeKey { connection, object_type } = &key;
            tracing::warn!(
                target: "tidewaiter::run", %connection, r#type = %object_type, code = "pass-failed",
                "the pass over all objects that is owed came to no end ({problem}); it is tried again"
            );
            failed.insert(key, (count, due));
        }
        under_way.retain(|_, pass| !pass.is_finished());
        let now = reconcilers.clock.moment();
        for key in reconcilers.config.now().may_owe_passes() {
            let waits = under_way.contains_key(&key) || failed.get(&key).is_some_and(|(_, due)| now < *due);
            let Some(reconciler) = reconcilers.of(&key).ok().filter(|one| !waits && one.owes().unwrap_or(false)) else {
                continue;
            };
            let of = key.clone();
            let pass = passes.spawn(async move {
                let problem = match reconciler.read(Scope::default()).await {
                    Ok(Reconciled { last, .. }) if last.outcome == Outcome::Ok => None,
                    Ok(Reconciled { last, .. }) => Some(last.outcome.name().to_owned()),
                    Err(error) => Some(error.to_string()),
                };
                (of, problem)
            });
            under_way.insert(key, pass);
        }
    }
}

impl BroughtUp {
    /// Whether it came to its end.
    pub fn is_up(&self) -> bool {
        let established = self.established.as_ref().is_none_or(|run| run.outcome == Outcome::Ok);
        established && self.reconciled.as_ref().is_none_or(|pass| pass.last.outcome == Outcome::Ok)
    }
}

impl Reconciler {
    /// Whether a pass is owed, and its token established.
    fn owes(&self) -> Result<bool, ReadError> {
        let Some(state) = self.db.state(&self.key)? else { return Ok(false) };
        let (Some(owed), SyncState::Live(_) | SyncState::Origin, None) = (state.pass_owed, &state.sync, &state.paused)
        else {
            return Ok(false);
        };
        let made = self.db.shadow(&self.key)?.and_then(|shadow| shadow.complete_generation());
        Ok(made.is_none_or(|made| made < owed))
    }

    async fn bring_up(&self) -> Result<BroughtUp, HostError> {
        let mut one = BroughtUp { key: self.key.clone(), established: None, reconciled: None };
        let by_comparison = self.class().await?.changes == ChangeFeed::ByComparison;
        let state = self.db.state(&self.key)?;
        // What is found by comparison is brought up by every run.
        if by_comparison || state.is_none_or(|state| !matches!(state.sync, SyncState::Live(_) | SyncState::Origin)) {
            let mut trigger = Trigger::Command;
            one.established = Some(loop {
                let (answer, result) = oneshot::channel();
                let request = Request::Sync { key: self.key.clone(), trigger, answer };
                self.requests.send(request).await.map_err(|_| Refusal::ShuttingDown)?;
                let run = result.await.map_err(|_| Refusal::ShuttingDown)??;
                if run.outcome != Outcome::More {
                    break run;
                }
                trigger = Trigger::Continue;
            });
        }
        if !by_comparison && one.is_up() {
            one.reconciled = Some(self.read(Scope::default()).await?);
        }
        Ok(one)
    }

    /// Whether the connector does what is wanted of it.
    fn can_read(&self, scope: &Scope) -> Result<(), HostError> {
        let class = self.connection.class(&self.key.object_type);
        let operation = if scope.uid.is_some() { Operation::SearchByUid } else { Operation::Search };
        let connector = self.connection.connector.info();
        let what = match () {
            () if scope.uid.is_none() && scope.gone => "gone is said of one object: name its uid".to_owned(),
            () if scope.uid.is_some() && (scope.full || scope.allow_deletes) => {
                "full and allow-deletes are said of all objects, and here is the uid of one".to_owned()
            }
            () if class == ALL_CLASSES => "all classes are read one by one: add a type for each".to_owned(),
            () if !connector.does(operation) && scope.uid.is_some() => {
                format!("connector {} can't read one object by its uid", connector.name)
            }
            () if !connector.does(operation) => format!("connector {} can't read all objects", connector.name),
            () => return Ok(()),
        };
        Err(self.cannot(what))
    }

    fn cannot(&self, what: String) -> HostError {
        HostError::CannotRead { key: self.key.clone(), what }
    }

    pub(super) async fn read(&self, scope: Scope) -> Result<Reconciled, HostError> {
        let Scope { uid, gone, full, dry_run, allow_deletes } = scope;
        if let Some(uid) = uid {
            // What is told of it would be followed by what is older.
            let letters = self.db.read_dead_letters(Some(self.key.clone())).await?;
            if let Some(stored) = letters.iter().find(|stored| !dry_run && stored.letter.uids().any(|one| one == uid)) {
                return Err(HostError::Kept { number: stored.number, uid });
            }
            let reading = Reading { filter: Filter::ByUid { uid, gone }, page: None, dry_run };
            let Performed { report: last, .. } = self.page(reading, None).await?;
            let objects = if dry_run { last.dropped } else { last.deltas };
            return Ok(Reconciled { pages: 1, objects, counts: Counts::default(), last });
        }
        let pass = self.begin_pass(Manner { reads: Feed::Reading, full, dry_run, allow_deletes }).await?;
        let (mut reading, mut objects) = (pass.first(), 0);
        loop {
            let performed = self.page(reading.clone(), Some(Arc::clone(&pass))).await?;
            let Performed { report: mut last, next, .. } = performed;
            objects += last.deltas;
            match last.outcome {
                // An operator's act on the token changes nothing about what is read.
                Outcome::Superseded => continue,
                _ if pass.is_cancelled() => return Err(HostError::PassCancelled { key: self.key.clone() }),
                Outcome::Ok => match pass.next(next).await {
                    Ok(Some(next)) => {
                        reading = next;
                        continue;
                    }
                    Ok(None) => {}
                    Err(failure) => last.outcome = Outcome::Failed(failure),
                },
                _ => {}
            }
            let Progress { counts, pages, .. } = pass.progress();
            let Counts { read, new, changed, gone, left } = counts;
            let objects = match (dry_run, full) {
                (false, _) => objects,
                (true, true) => read - left + gone,
                (true, false) => new + changed + gone,
            };
            return Ok(Reconciled { pages, objects, counts, last });
        }
    }

    /// The type's class, as its source declares it.
    async fn class(&self) -> Result<ObjectClassInfo, HostError> {
        let class = self.connection.class_info(&self.key).await;
        let class =
            class.map_err(|failure| self.cannot(format!("the source can't be asked for its classes: {failure}")))?;
        let name = self.connection.class(&self.key.object_type);
        class.ok_or_else(|| self.cannot(format!("the source has no class {name:?}")))
    }

    async fn begin_pass(&self, manner: Manner) -> Result<Arc<Comparison>, HostError> {
        let Self { key, connection, .. } = self;
        let class = self.class().await?;
        let hold = self.db.wait_for_shadow(key).await.ok_or_else(|| HostError::PassUnderWay { key: key.clone() })?;
        let is_live = |state: &TypeState| matches!(state.sync, SyncState::Live(_) | SyncState::Origin);
        let generation = self.db.state(key)?.filter(is_live).map(|state| state.generation);
        let again = connection.connector.info().does(Operation::SearchByUid);
        let of = (self.db.clone(), self.clock);
        let pass = Arc::new(Comparison::begin(of, hold, &class, manner, again, generation).await?);
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.insert(key.clone(), Arc::downgrade(&pass));
        drop(passes);
        Ok(pass)
    }

    /// Reads the objects that a dead letter is about, and journals them in its place.
    pub(super) async fn read_letter(&self, number: u64) -> Result<RunReport, HostError> {
        let reading = Reading { filter: Filter::Letter { number }, page: None, dry_run: false };
        loop {
            let Performed { report, .. } = self.page(reading.clone(), None).await?;
            // Something else was written meanwhile: what is there now is another matter.
            if report.outcome != Outcome::Superseded {
                return Ok(report);
            }
        }
    }

    /// Each page is a run of its own.
    async fn page(&self, reading: Reading, comparison: Option<Arc<Comparison>>) -> Result<Performed, Refusal> {
        let (answer, performed) = oneshot::channel();
        let asked = self.requests.send(Request::Read { key: self.key.clone(), reading, comparison, answer }).await;
        asked.map_err(|_| Refusal::ShuttingDown)?;
        performed.await.map_err(|_| Refusal::ShuttingDown)?
    }
}
