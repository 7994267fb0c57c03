//! The service functions that the command line, the API and embedders share: the library's face.
//!
//! `ask` is the same functions as data, so that they can be asked over a socket; `view` is what they answer.

mod access;
mod act;
mod approve;
pub mod ask;
mod builder;
mod check;
mod dead_letter;
mod erase;
mod kept;
mod load;
mod metrics;
mod reconcile;
mod refused;
mod reload;
mod revise;
pub(crate) mod seal;
mod sinks;
mod token;
pub mod view;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tidewaiter_core::grant::BadAsk;
use tidewaiter_core::journal::{Entry, EntryId, Incarnation};
use tidewaiter_core::name::{ConnectionName, ConnectorName, TypeKey};
use tidewaiter_core::run::{RunReport, Trigger};
use tidewaiter_core::schedule::{Refusal, Scheduled};
use tidewaiter_core::state::Actor;
use tidewaiter_core::token::TOKEN_BYTES_MAX;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::act::Acting;
pub use self::builder::{Builder, Subscription};
pub(crate) use self::check::find;
pub use self::check::{Addition, Finding};
pub use self::dead_letter::{LetterView, Settled};
use self::erase::Erasures;
pub(crate) use self::kept::{Bytes, beside};
use self::load::Loader;
pub use self::load::{Known, Loaded, load};
pub use self::metrics::Exposition;
use self::reconcile::Passes;
pub use self::reconcile::{BroughtUp, Reconciled, Scope};
pub use self::reload::{Apply, NotReloaded, Reloaded};
use self::revise::Reviser;
pub use self::revise::RevisionRow;
use self::seal::KeyError;
pub use self::sinks::{NotTaken, SinkView, Synced};
pub use self::token::TypesOf;
use self::watch::Watch;
use crate::access::{AccessError, AccessTokens};
use crate::audit::{Audit, AuditError};
use crate::clock::Clock;
use crate::config::{Config, ConfigSource, Current};
use crate::db::{CommitError, Db, OpenError, Policy, ReadError};
use crate::driver::{Activity, Connection, Lateness, Request, Roster, Task, retain, works};
use crate::egress::TlsError;
use crate::meters::Meters;
use crate::trace::{TraceError, Traces};
use crate::trust::LockError;

/// How long another process may take to leave the db.
pub(crate) const OWNER_WAIT: Duration = Duration::from_secs(5);
/// How long sinks may take to deliver what is left when the host ends; the rest is delivered by the next one.
const LAST_DELIVERY: Duration = Duration::from_secs(10);
/// How long a collector may take for the last traces; what it hasn't got then is dropped.
const LAST_TRACES: Duration = Duration::from_secs(2);
/// Requests on their way to the scheduler.
const REQUESTS: usize = 64;

/// What a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// What is asked for; from `begin` on also what is due.
    Scheduled,
    /// What is asked for.
    WhenAsked,
    /// Nothing: no connector is loaded, no sink is opened. For reading the db, and for setting tokens.
    Never,
}

/// A host that can't start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StartError {
    #[error(transparent)]
    Db(#[from] OpenError),
    #[error(transparent)]
    State(#[from] ReadError),
    #[error("this machine can't run connectors: {0}")]
    Engine(anyhow::Error),
    #[error("what a connection may ask for can't be noted: {0}")]
    Approval(#[from] CommitError),
    #[error("trust: {0}")]
    Trust(#[from] TlsError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("encryption: {0}")]
    Key(#[from] KeyError),
    #[error(transparent)]
    Erase(Box<HostError>),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("sink {sink}: {source}")]
    Sink { sink: String, source: std::io::Error },
    #[error("the start ended unexpectedly: {0}")]
    Ended(#[from] JoinError),
}

/// Something that can't be done.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Not now, or not at all.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No such connection.
    #[error("there is no connection {0}")]
    UnknownConnection(ConnectionName),
    /// It is configured, and can't run.
    #[error("connection {connection} can't run: {problem}")]
    Broken {
        /// Which.
        connection: ConnectionName,
        /// Why.
        problem: String,
    },
    /// The state is not the one that was seen.
    #[error("{key}: the state has revision {found}, not {expected}: somebody else wrote it meanwhile")]
    Changed {
        /// Of which type.
        key: TypeKey,
        /// What was seen.
        expected: u64,
        /// What is stored; 0: nothing.
        found: u64,
    },
    /// Larger than any token.
    #[error("a sync token of {bytes} bytes; at most {TOKEN_BYTES_MAX} are kept")]
    TokenTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Nothing is held.
    #[error("{key} is not held by its guard")]
    NotHeld {
        /// Which type.
        key: TypeKey,
    },
    /// Nothing is paused.
    #[error("{key} is not paused")]
    NotPaused {
        /// Which type.
        key: TypeKey,
    },
    /// The history has no token to go back to.
    #[error("{key}: {}", match revision {
        Some(revision) => format!("its history has no token of revision {revision} that a run can go on from; `token history` has them"),
        None => "its history has no other token that a run can go on from".to_owned(),
    })]
    NoSuchToken {
        /// Of which type.
        key: TypeKey,
        /// The row that was named.
        revision: Option<u64>,
    },
    /// Its connector can't do that.
    #[error("{key}: {what}")]
    CannotRead {
        /// Which type.
        key: TypeKey,
        /// Why not.
        what: String,
    },
    /// One pass at a time.
    #[error("{key}: a pass over its objects is under way")]
    PassUnderWay {
        /// Which type.
        key: TypeKey,
    },
    /// There is none to be cancelled.
    #[error("{key}: no pass over its objects is under way")]
    NoPass {
        /// Which type.
        key: TypeKey,
    },
    /// Somebody cancelled it.
    #[error("{key}: the pass over its objects was cancelled; what it journaled stays")]
    PassCancelled {
        /// Which type.
        key: TypeKey,
    },
    /// The source hasn't it.
    #[error("{key}: the source has no object {uid:?}; --gone, or `gone` over HTTP, journals that it is deleted")]
    NoSuchObject {
        /// Of which type.
        key: TypeKey,
        /// Which.
        uid: String,
    },
    /// There is no such dead letter.
    #[error("there is no dead letter {number}")]
    NoSuchLetter {
        /// Which.
        number: u64,
    },
    /// Nothing is wrong with it.
    #[error("dead letter {number} only waits for one of the same object before it: retry or drop that one")]
    OnlyWaits {
        /// Which.
        number: u64,
    },
    /// Dead letters are kept of it.
    #[error(
        "dead letter {number} is of object {uid:?}: `tidewaiter dead-letters retry {number}` reads it, and is done with what waits for it"
    )]
    Kept {
        /// One of them.
        number: u64,
        /// Of which object.
        uid: String,
    },
    /// It can't be told.
    #[error("dead letter {number} is still there: {why}")]
    NotRetried {
        /// Which.
        number: u64,
        /// Why not.
        why: String,
    },
    /// An entry of another journal.
    #[error("{id} is not an entry of this journal, whose entries are {incarnation}-1 and on")]
    IncarnationChanged {
        /// Which.
        id: EntryId,
        /// This journal.
        incarnation: Incarnation,
    },
    /// The db.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The db.
    #[error(transparent)]
    Write(#[from] CommitError),
    /// It can't be written down, and so it isn't done.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Whoever asks has not the role for it.
    #[error(
        "{by} may not decide what connectors may be and ask for: socket.security in the configuration lists who may"
    )]
    NotSecurity {
        /// Who.
        by: Actor,
    },
    /// What awaits approval is not what was shown.
    #[error("connection {connection}: {}", match now {
        Some(now) => format!("what awaits approval now is {now}, not {id}: look at it again"),
        None => "nothing awaits approval".to_owned(),
    })]
    NotAwaited {
        /// Of which connection.
        connection: ConnectionName,
        /// What was named.
        id: String,
        /// What awaits approval, if anything does.
        now: Option<String>,
    },
    /// There is no such file of a connector.
    #[error("connector {connector}: {problem}")]
    NoSuchRevision {
        /// Which.
        connector: ConnectorName,
        /// What is not there.
        problem: String,
    },
    /// No other file of it is run.
    #[error("connector {connector}: {problem}")]
    NotRevised {
        /// Which.
        connector: ConnectorName,
        /// Why not.
        problem: String,
    },
    /// What is written of a connection is not what was seen.
    #[error("connection {connection} is written otherwise than it was seen: somebody else wrote it meanwhile")]
    WrittenMeanwhile {
        /// Which.
        connection: ConnectionName,
    },
    /// What is configured can't be taken over.
    #[error("what is configured is not taken over, and what runs goes on: {problem}")]
    NotReloaded {
        /// Why not.
        problem: String,
    },
    /// What is trusted can't be read or written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What is asked for can't be told.
    #[error(transparent)]
    Ask(#[from] BadAsk),
    /// Access can't be given or taken.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// What is erased can't be remembered, and so it isn't.
    #[error("erased.ndjson in the data folder: {0}")]
    Erased(std::io::Error),
    /// A bug of ours.
    #[error("ended unexpectedly: {0}")]
    Ended(#[from] JoinError),
}

/// A running host. Dropped, its runs end where they are; `shutdown` ends them at a checkpoint.
#[derive(Debug)]
pub struct Host {
    db: Db,
    audit: Audit,
    access: AccessTokens,
    erasures: Arc<Erasures>,
    /// One approval at a time.
    approving: Arc<Mutex<()>>,
    clock: Clock,
    config: Arc<Current>,
    roster: Arc<Roster>,
    /// None: it runs nothing.
    reviser: Option<Arc<Reviser>>,
    requests: mpsc::Sender<Request>,
    lateness: Arc<Lateness>,
    meters: Meters,
    sinks: sinks::Sinks,
    /// Passes that were begun here, as long as they last.
    passes: Passes,
    tasks: Mutex<Tasks>,
    closing: CancellationToken,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Tasks {
    /// What operators asked for, until it is done.
    acts: JoinSet<()>,
    scheduler: JoinSet<()>,
    deliveries: JoinSet<()>,
    retention: JoinSet<()>,
    traces: JoinSet<()>,
    /// Nothing more is journaled: deliver what is left, and end.
    journal_ends: CancellationToken,
}

impl Host {
    /// Opens the db, and unless it runs nothing, loads the connectors that connections name and opens the sinks. `holder` is what
    /// others are told who find the db in use.
    ///
    /// # Errors
    /// The first thing that is wrong; nothing runs then.
    pub async fn start(config: Config, holder: &str, runs: Runs) -> Result<Self, StartError> {
        let current = Arc::new(Current::new(config));
        let (config, clock) = (current.now(), Clock::start());
        let (data, name) = (config.data.clone(), holder.to_owned());
        let keys = seal::keys(&config.encryption).await?;
        let db = spawn_blocking(move || Db::open_sealed(&data, &name, OWNER_WAIT, keys)).await??;
        let meters = Meters::new(clock);
        db.set_quota(config.quota);
        db.set_meters(meters.clone());
        let audit = Audit::open(&config.data, clock)?;
        let access = AccessTokens::open(&config.data, clock)?;
        let last_run = Arc::new(AtomicU64::new(db.last_run()));
        let erasures = Arc::new(Erasures::new(&config.data, db.clone(), Arc::clone(&last_run), clock));
        // Before anybody is handed an entry.
        erasures.erase_again().await.map_err(|error| StartError::Erase(Box::new(error)))?;
        let (loader, Loaded { connections, broken }, (deliveries, sinks)) = match runs {
            Runs::Never => Default::default(),
            Runs::Scheduled | Runs::WhenAsked => {
                let noted = Some((audit.clone(), db.clone()));
                let loader = Loader::new(Arc::clone(&current), noted, BTreeMap::new(), meters.clone())?;
                let loaded = loader.all().await?;
                (Some(loader), loaded, sinks::deliveries(&db, &config, clock)?)
            }
        };
        for (name, problem) in &broken {
            tracing::error!(target: "tidewaiter", connection = %name, "this connection can't run: {problem}");
        }
        let mut types = Vec::new();
        for connection in connections.values() {
            types.extend(scheduled(&db, connection, clock)?);
        }
        metrics::recall(&db, &meters, &types)?;
        if runs != Runs::Scheduled {
            types.iter_mut().for_each(|scheduled| scheduled.timing = None);
        }
        let roster = Arc::new(Roster::new(connections, broken));
        let lateness = Arc::new(Lateness::default());
        let (requests, received) = mpsc::channel(REQUESTS);
        let journal_ends = CancellationToken::new();
        let mut tasks = Tasks {
            acts: JoinSet::new(),
            scheduler: JoinSet::new(),
            deliveries: JoinSet::new(),
            retention: JoinSet::new(),
            traces: JoinSet::new(),
            journal_ends,
        };
        let mut traces = Traces::default();
        if let (Some(telemetry), Runs::Scheduled | Runs::WhenAsked) = (&config.telemetry, runs) {
            let (instance, outside) = (db.incarnation().to_string(), sinks::outside(&config, clock)?);
            let (told, exporting) = Traces::to(telemetry, instance, &outside, meters.clone())?;
            traces = told;
            tasks.traces.spawn(exporting.work(tasks.journal_ends.clone()));
        }
        tasks.scheduler.spawn(
            Task::new(
                db.clone(),
                clock,
                Arc::clone(&roster),
                config.concurrency,
                (Arc::clone(&lateness), last_run, meters.clone(), traces),
                types,
            )
            .work(received),
        );
        for delivery in deliveries {
            tasks.deliveries.spawn(delivery.work(tasks.journal_ends.clone()));
        }
        let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
        if runs != Runs::Never {
            let policy =
                Policy { keep: config.keep, quota: config.quota, sinks: config.sinks.keys().cloned().collect() };
            tasks.retention.spawn(retain::work(db.clone(), clock, policy, closing.clone()));
        }
        let reviser = loader.map(|loader| {
            let (config, roster, meters) = (Arc::clone(&current), Arc::clone(&roster), meters.clone());
            let (turns, locking, reloading, not_reloaded) = Default::default();
            Arc::new(Reviser {
                config,
                loader,
                roster,
                db: db.clone(),
                clock,
                requests: requests.clone(),
                meters,
                turns,
                locking,
                reloading,
                not_reloaded,
            })
        });
        if let (Some(reviser), Runs::Scheduled) = (&reviser, runs) {
            tasks.retention.spawn(Watch::new(Arc::clone(reviser)).work(closing.clone()));
            if config.source != ConfigSource::Program {
                tasks.retention.spawn(reload::watch(Arc::clone(reviser), audit.clone(), closing.clone()));
            }
        }
        let host = Self {
            db,
            audit,
            access,
            erasures,
            approving: Arc::default(),
            clock,
            config: current,
            roster,
            reviser,
            requests,
            lateness,
            meters,
            sinks,
            passes: Passes::default(),
            tasks: Mutex::new(tasks),
            closing,
            ended,
        };
        if runs == Runs::Scheduled {
            host.pay_owed_passes().await;
        }
        Ok(host)
    }

    /// What is done and refused is written down here.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Who may ask over HTTP.
    pub fn access(&self) -> &AccessTokens {
        &self.access
    }

    /// The db, to read from.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// How late scheduled runs begin.
    pub fn lateness(&self) -> &Lateness {
        &self.lateness
    }

    /// What is configured by now.
    pub fn config(&self) -> Arc<Config> {
        self.config.now()
    }

    /// Runs live sync of a type now, and waits for its end. During a run it waits for the one follow-up that all who ask share.
    ///
    /// # Errors
    /// Unknown type, lost token, or the host shuts down.
    pub async fn sync(&self, key: TypeKey, trigger: Trigger) -> Result<RunReport, HostError> {
        self.can_run(&key.connection)?;
        let (answer, result) = oneshot::channel();
        let asked = self.requests.send(Request::Sync { key, trigger, answer }).await;
        asked.map_err(|_| Refusal::ShuttingDown)?;
        Ok(result.await.map_err(|_| Refusal::ShuttingDown)??)
    }

    fn can_run(&self, connection: &ConnectionName) -> Result<(), HostError> {
        can_run(&self.roster, connection)
    }

    /// A connection, as its next run will have it.
    fn placed(&self, name: &ConnectionName) -> Result<Arc<Connection>, HostError> {
        placed(&self.roster, name)
    }

    /// What each type does now, and when its next run is due. Of a host that ends, nothing.
    pub async fn activity(&self) -> BTreeMap<TypeKey, Activity> {
        let (answer, told) = oneshot::channel();
        let _ = self.requests.send(Request::Activity { answer }).await;
        told.await.unwrap_or_default()
    }

    /// Begins the schedules: the first run of each type is due now. For when everything else that is to work with the host does.
    pub async fn begin(&self) {
        let _ = self.requests.send(Request::Begin).await;
    }

    /// Whether the scheduler works: waits for an answer of its task, as long as there is none. No: it has ended.
    pub async fn works(&self) -> bool {
        works(&self.requests).await
    }

    /// For acts on the state of a type.
    fn acting(&self, key: TypeKey) -> Acting {
        Acting { db: self.db.clone(), clock: self.clock, requests: Some(self.requests.clone()), key }
    }

    /// Does what somebody asked for, who may go away before it is done: it is done all the same.
    async fn act<T: Send + 'static>(
        &self,
        act: impl Future<Output = Result<T, HostError>> + Send + 'static,
    ) -> Result<T, HostError> {
        let (answer, answered) = oneshot::channel();
        let mut tasks = self.tasks.lock().await;
        while tasks.acts.try_join_next().is_some() {}
        tasks.acts.spawn(async move { drop(answer.send(act.await)) });
        drop(tasks);
        answered.await.unwrap_or_else(|_| Err(Refusal::ShuttingDown.into()))
    }

    /// The entries after a place, in order; at most `limit`, and fewer where they are large. If there are none, waits that long
    /// for one.
    ///
    /// # Errors
    /// An entry of another journal, or the db.
    pub async fn changes(&self, after: ask::After, limit: usize, wait: Duration) -> Result<Vec<Entry>, HostError> {
        let after = self.position(after)?;
        let mut durable = self.db.watch();
        let grown = self.closing.run_until_cancelled(durable.wait_for(|last| *last > after));
        let _ = tokio::time::timeout(wait, grown).await;
        let db = self.db.clone();
        Ok(spawn_blocking(move || db.entries(after, limit)).await??)
    }

    /// The sequence of a place from which entries are read, if it is one of this journal.
    ///
    /// # Errors
    /// It is of another one, or the db.
    pub fn position(&self, place: ask::After) -> Result<u64, HostError> {
        match self.sequence(place)? {
            // The beginning is what is kept.
            0 => Ok(self.db.first_sequence()? - 1),
            sequence => Ok(sequence),
        }
    }

    /// Why it takes no requests, if it doesn't: it is shutting down, or its db can't be read.
    pub fn not_ready(&self) -> Option<String> {
        match self.db.first_sequence() {
            _ if self.closing.is_cancelled() => Some("the host is shutting down".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    fn sequence(&self, place: ask::After) -> Result<u64, HostError> {
        let incarnation = self.db.incarnation();
        match place {
            ask::After::Sequence(sequence) => Ok(sequence),
            ask::After::Id(id) if id.incarnation == incarnation => Ok(id.sequence),
            ask::After::Id(id) => Err(HostError::IncarnationChanged { id, incarnation }),
        }
    }

    /// Told when the host begins to end: servers on top of it stop to take requests then.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Waits until no run is under way any more, and whoever waited for one has been answered.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Ends the schedules and every run at a checkpoint, then delivers what is left to the sinks.
    pub async fn shutdown(&self) {
        self.closing.cancel();
        let _ = self.requests.send(Request::Shutdown).await;
        let mut tasks = self.tasks.lock().await;
        while tasks.scheduler.join_next().await.is_some() {}
        while tasks.retention.join_next().await.is_some() {}
        self.ended.cancel();
        tasks.journal_ends.cancel();
        let delivered = async { while tasks.deliveries.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_DELIVERY, delivered).await.is_err() {
            tracing::warn!(target: "tidewaiter::sink", "a sink is slow: what is left is delivered after the next start");
            tasks.deliveries.shutdown().await;
        }
        let told = async { while tasks.traces.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_TRACES, told).await.is_err() {
            tasks.traces.shutdown().await;
        }
    }
}

fn can_run(roster: &Roster, connection: &ConnectionName) -> Result<(), HostError> {
    match roster.problem(connection) {
        None => Ok(()),
        Some(problem) => Err(HostError::Broken { connection: connection.clone(), problem }),
    }
}

fn placed(roster: &Roster, name: &ConnectionName) -> Result<Arc<Connection>, HostError> {
    can_run(roster, name)?;
    roster.get(name).ok_or_else(|| HostError::UnknownConnection(name.clone()))
}

/// The types of a connection, as the scheduler gets to know them.
fn scheduled(db: &Db, connection: &Connection, clock: Clock) -> Result<Vec<Scheduled>, ReadError> {
    let sha256 = connection.connector.sha256();
    let written = &connection.config;
    let faults = db.faults(&written.connector)?.filter(|known| known.sha256 == sha256).map_or(0, |known| known.count);
    let scheduled = written.types.iter().map(|(object_type, of_type)| {
        let key = TypeKey { connection: connection.name.clone(), object_type: object_type.clone() };
        let state = db.state(&key)?.unwrap_or_else(|| of_type.first_state(clock.now()));
        Ok(Scheduled {
            connector: written.connector.clone(),
            timing: of_type.timing.clone(),
            rank: of_type.rank,
            parallel: written.parallel_types,
            faults,
            state,
            key,
        })
    });
    scheduled.collect()
}
