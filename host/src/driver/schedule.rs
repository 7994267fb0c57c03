//! The one task that owns the scheduler: takes requests, starts runs when they are due, tells waiters. Each run is a task of its
//! own, which ends with this one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tidewaiter_core::name::{ConnectionName, ConnectorName, TypeKey};
use tidewaiter_core::run::{Failure, Outcome, Reading, RunReport, Trigger};
use tidewaiter_core::schedule::{Concurrency, Effect, QUARANTINE_FAULTS, Refusal, Scheduled, Scheduler, WaiterId};
use tidewaiter_core::state::TypeState;
use tidewaiter_core::time::{Moment, UnixMillis};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use utoipa::ToSchema;

use super::connection::Connection;
use super::lateness::Lateness;
use super::pass::Comparison;
use super::roster::Roster;
use super::run::{Order, Performed, Signal, perform};
use crate::clock::Clock;
use crate::db::{Db, Faults, RefusedRevision, Waits};
use crate::meters::Meters;
use crate::trace::Traces;

/// Something asked of the scheduler.
#[derive(Debug)]
pub(crate) enum Request {
    /// Run a type now, and tell how it ended.
    Sync { key: TypeKey, trigger: Trigger, answer: oneshot::Sender<Result<RunReport, Refusal>> },
    /// Read objects of a type, when its turn comes.
    Read {
        key: TypeKey,
        reading: Reading,
        /// What it is compared with.
        comparison: Option<Arc<Comparison>>,
        answer: oneshot::Sender<Result<Performed, Refusal>>,
    },
    /// An operator wrote this state.
    StateChanged { key: TypeKey, state: TypeState },
    /// These connections run another revision of their connector; with the types of those that could not run before.
    Placed { connections: Vec<ConnectionName>, new: Vec<Scheduled> },
    /// What is under way of these files of connectors and of these connections ends now: they may not do any more what they did.
    Abandon { files: BTreeSet<String>, connections: BTreeSet<ConnectionName> },
    /// A connection has these types from now on, and no others.
    Configured { connection: ConnectionName, types: Vec<Scheduled> },
    /// Tell what each type does.
    Activity { answer: oneshot::Sender<BTreeMap<TypeKey, Activity>> },
    /// Answer, to prove that this task works.
    Answer(oneshot::Sender<()>),
    /// From now on what is due is run.
    Begin,
    /// End every run at a checkpoint, then end.
    Shutdown,
}

/// What a type does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Activity {
    /// A run of it is under way.
    pub running: bool,
    /// When the next one is due; none: when somebody asks.
    pub due: Option<UnixMillis>,
    /// When live sync of it ended well last, as far as that is known: of what was before the host began, the history has only runs that wrote something.
    pub succeeded: Option<UnixMillis>,
}

/// How often the wall clock is looked at, at least, while something is due.
const CLOCK_LOOK: Duration = Duration::from_secs(10);
/// Signals on their way to a run.
const SIGNALS: usize = 4;
/// A difference that is not drift, in milliseconds.
const CLOCK_SET: u64 = 1000;

/// Something that somebody wants to have read.
struct Wanted {
    reading: Reading,
    comparison: Option<Arc<Comparison>>,
    reader: oneshot::Sender<Result<Performed, Refusal>>,
}

struct Running {
    order: (u64, Trigger, TypeState),
    /// Who is told what was read; none: it is live sync.
    reader: Option<oneshot::Sender<Result<Performed, Refusal>>>,
    signals: mpsc::Sender<Signal>,
    /// When it began, by the clock that measures.
    began: Duration,
    /// As it was when the run began.
    connection: Arc<Connection>,
}

pub(crate) struct Task {
    db: Db,
    clock: Clock,
    roster: Arc<Roster>,
    scheduler: Scheduler,
    waiters: HashMap<WaiterId, oneshot::Sender<Result<RunReport, Refusal>>>,
    /// What is to be read, and for whom.
    readings: HashMap<WaiterId, Wanted>,
    last_waiter: WaiterId,
    /// The number of the last run that began.
    last_run: Arc<AtomicU64>,
    running: HashMap<TypeKey, Running>,
    runs: JoinSet<(TypeKey, Performed)>,
    keys: HashMap<tokio::task::Id, TypeKey>,
    /// Of connections whose login was refused: each ends when a secret has changed.
    secrets: JoinSet<ConnectionName>,
    watched: HashSet<ConnectionName>,
    /// What is being written of connectors that went wrong.
    notes: JoinSet<()>,
    lateness: Arc<Lateness>,
    meters: Meters,
    traces: Traces,
    /// How far the wall clock was ahead of the steady one when it was last looked at.
    offset: i64,
    shutting_down: bool,
}

impl Task {
    /// With what is stored of each type, and its schedule.
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        roster: Arc<Roster>,
        concurrency: Concurrency,
        (lateness, last_run, meters, traces): (Arc<Lateness>, Arc<AtomicU64>, Meters, Traces),
        types: Vec<Scheduled>,
    ) -> Self {
        let mut scheduler = Scheduler::new(concurrency);
        for scheduled in types {
            scheduler.add(scheduled);
        }
        Self {
            db,
            clock,
            roster,
            scheduler,
            waiters: HashMap::new(),
            readings: HashMap::new(),
            last_waiter: 0,
            last_run,
            running: HashMap::new(),
            runs: JoinSet::new(),
            keys: HashMap::new(),
            secrets: JoinSet::new(),
            watched: HashSet::new(),
            notes: JoinSet::new(),
            lateness,
            meters,
            traces,
            offset: clock.both().offset(),
            shutting_down: false,
        }
    }

    /// Works until it is told to shut down, or nobody can ask for anything any more.
    pub(crate) async fn work(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            while let Some(effect) = self.scheduler.poll_effect() {
                self.effect(effect);
            }
            if self.shutting_down && self.runs.is_empty() {
                self.notes.join_all().await;
                return;
            }
            let due = self.scheduler.next_due().map(|moment| self.clock.until(moment).min(CLOCK_LOOK));
            tokio::select! {
                request = requests.recv(), if !self.shutting_down => self.request(request.unwrap_or(Request::Shutdown)),
                Some(ended) = self.runs.join_next_with_id() => self.ended(ended),
                Some(Ok(connection)) = self.secrets.join_next() => self.secret_changed(&connection),
                Some(_) = self.notes.join_next() => {}
                () = sleep(due) => self.time_passed(),
            }
        }
    }

    fn time_passed(&mut self) {
        let now = self.clock.both();
        if now.offset().abs_diff(self.offset) > CLOCK_SET {
            tracing::warn!(ms = now.offset() - self.offset, "the wall clock was set");
            self.offset = now.offset();
            self.scheduler.handle_clock_set(now);
        }
        self.scheduler.handle_time(now);
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Sync { key, trigger, answer } => {
                self.last_waiter += 1;
                self.waiters.insert(self.last_waiter, answer);
                self.scheduler.handle_trigger(&key, trigger, Some(self.last_waiter), self.clock.both());
            }
            Request::Read { key, reading, comparison, answer: reader } => {
                self.last_waiter += 1;
                self.readings.insert(self.last_waiter, Wanted { reading, comparison, reader });
                self.scheduler.handle_read(&key, self.last_waiter);
            }
            Request::StateChanged { key, state } => {
                self.scheduler.handle_state_changed(&key, state, self.clock.both());
            }
            Request::Placed { connections, new } => {
                self.scheduler.handle_placed(&connections, new, self.clock.both());
            }
            Request::Abandon { files, connections } => {
                let ends = |one: &&Running| {
                    files.contains(one.connection.connector.sha256()) || connections.contains(&one.connection.name)
                };
                for running in self.running.values().filter(ends) {
                    let _ = running.signals.try_send(Signal::Abandon);
                }
            }
            Request::Configured { connection, types } => {
                self.scheduler.handle_configured(&connection, types, self.clock.both());
            }
            Request::Activity { answer } => drop(answer.send(self.activity())),
            Request::Answer(answer) => {
                // Who is gone needs none.
                let _ = answer.send(());
            }
            Request::Begin => self.scheduler.handle_begin(self.clock.both()),
            Request::Shutdown => {
                self.shutting_down = true;
                self.scheduler.handle_shutdown();
            }
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Start { key, trigger, state, since } => self.start(key, trigger, state, Some(since), None),
            Effect::Read { key, waiter, state } => {
                let Some(wanted) = self.readings.remove(&waiter) else { return };
                self.start(key, Trigger::Reconcile, state, None, Some(wanted));
            }
            Effect::RefuseRead { waiter, refusal } => {
                if let Some(wanted) = self.readings.remove(&waiter) {
                    let _ = wanted.reader.send(Err(refusal));
                }
            }
            Effect::Supersede(key) => self.signal(&key, Signal::Supersede),
            Effect::Stop(key) => self.signal(&key, Signal::Stop),
            Effect::NoteFaults { connector, faults } => self.note_faults(connector, faults),
            Effect::Answer { waiter, result } => {
                if let Some(answer) = self.waiters.remove(&waiter) {
                    let _ = answer.send(*result);
                }
            }
        }
    }

    fn activity(&self) -> BTreeMap<TypeKey, Activity> {
        let now = self.clock.both();
        let wall = |due: Moment| UnixMillis(i64::try_from(due.0).unwrap_or(i64::MAX).saturating_add(now.offset()));
        let of = |key: TypeKey| {
            let (running, due) = self.scheduler.activity(&key)?;
            let succeeded = self.meters.last_success(&key);
            Some((key, Activity { running, due: due.map(wall), succeeded }))
        };
        self.scheduler.keys().cloned().collect::<Vec<_>>().into_iter().filter_map(of).collect()
    }

    fn note_faults(&mut self, connector: ConnectorName, count: u32) {
        if count >= QUARANTINE_FAULTS {
            tracing::error!(
                target: "tidewaiter::run", %connector, faults = count, code = "quarantine",
                "the connector is in quarantine: so many runs in a row trapped or broke the contract; one is tried now and then"
            );
        }
        let Some(sha256) = self.roster.of(&connector).first().map(|found| found.connector.sha256().to_owned()) else {
            return;
        };
        let (db, faults) = (self.db.clone(), Faults { sha256, count, at: self.clock.now() });
        self.notes.spawn(async move {
            if let Err(error) = db.note_faults(&connector, faults).await {
                tracing::warn!(target: "tidewaiter::run", %connector, "what went wrong is not noted: {error}");
            }
        });
    }

    fn signal(&mut self, key: &TypeKey, signal: Signal) {
        if let Some(running) = self.running.get(key) {
            // Room for all kinds; each is sent once.
            let _ = running.signals.try_send(signal);
        }
    }

    /// Begins a run: of live sync, due since then, or one that reads.
    fn start(
        &mut self,
        key: TypeKey,
        trigger: Trigger,
        state: TypeState,
        since: Option<Moment>,
        wanted: Option<Wanted>,
    ) {
        let run = self.last_run.fetch_add(1, Ordering::AcqRel) + 1;
        let Some(connection) = self.roster.get(&key.connection) else {
            // It was taken out just now, and the scheduler hears of that next.
            match wanted {
                Some(wanted) => {
                    self.scheduler.handle_read_over(&key, state);
                    let _ = wanted.reader.send(Err(Refusal::Unknown(key)));
                }
                None => {
                    let report = nothing_done(&key, (run, trigger, &state), self.clock.now(), Outcome::Stopped);
                    self.scheduler.handle_finished(&report, state, self.clock.both());
                }
            }
            return;
        };
        let (signals, received) = mpsc::channel(SIGNALS);
        let (mut reading, mut comparison, mut reader) = (None, None, None);
        if let Some(wanted) = wanted {
            (reading, comparison, reader) = (Some(wanted.reading), wanted.comparison, Some(wanted.reader));
        }
        let (began, of) = (self.clock.elapsed(), Arc::clone(&connection));
        let running = Running { order: (run, trigger, state.clone()), reader, signals, began, connection: of };
        self.running.insert(key.clone(), running);
        let (db, of) = (self.db.clone(), key.clone());
        let (clock, key_of) = (self.clock, key.clone());
        let trace = self.traces.run((&key, &connection.config.connector), run, trigger);
        let order = Order { db, clock, connection, key: key_of, run, trigger, state, reading, comparison, trace };
        let (clock, lateness) = (self.clock, Arc::clone(&self.lateness));
        let task = self.runs.spawn(async move {
            if let (Trigger::Schedule, Some(since)) = (trigger, since) {
                lateness.count(clock.moment().0.saturating_sub(since.0));
            }
            (of, perform(order, received).await)
        });
        self.keys.insert(task.id(), key);
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, (TypeKey, Performed)), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(key) = self.keys.remove(&id) else { return };
        let Some(mut running) = self.running.remove(&key) else { return };
        let (connection, took) = (Arc::clone(&running.connection), self.clock.elapsed() - running.began);
        let reader = running.reader.take();
        let mut performed = match ended {
            Ok((_, (_, performed))) => performed,
            Err(error) => self.panicked(&key, running, &error),
        };
        let report = &performed.report;
        self.meters.ran(report, took);
        // A write that failed may have happened all the same, and who superseded a run may have gone without a word: what is stored
        // decides.
        if matches!(report.outcome, Outcome::Failed(Failure::Host { .. }) | Outcome::Superseded)
            && let Ok(Some(stored)) = self.db.state(&key)
        {
            performed.state = TypeState { failures: performed.state.failures, ..stored };
        }
        if let Some(reader) = reader {
            self.scheduler.handle_read_over(&key, performed.state.clone());
            let _ = reader.send(Ok(performed));
            return;
        }
        self.judge_revision(&connection, report);
        if report.outcome.is_refused_login() || report.outcome.is_misconfigured() {
            self.watch_secrets(&key.connection);
        }
        self.scheduler.handle_finished(&performed.report, performed.state, self.clock.both());
    }

    /// What a run says of its connector, where that is on trial.
    fn judge_revision(&mut self, connection: &Arc<Connection>, report: &RunReport) {
        let key = &report.key;
        let is_news = match &report.outcome {
            Outcome::WentBack(failure) => {
                let (sha256, at) = (connection.connector.sha256().to_owned(), report.ended);
                let why = format!("run {} of {key} failed ({}): {failure}", report.run, failure.code());
                if let Some(unread) = self.closed(connection) {
                    tracing::error!(
                        target: "tidewaiter::run", connection = %key.connection, code = "no-way-back", sha256,
                        "the connector's new revision goes on, because what ran before doesn't read the format of the token that {unread} holds: {why}"
                    );
                    connection.ends_trial();
                    return self.note_placement(&key.connection);
                }
                let back = self.roster.go_back(connection);
                if let Some(previous) = &back {
                    tracing::error!(
                        target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, code = "went-back",
                        sha256, back_to = previous.connector.sha256(), "the connector's new revision is not run any more: {why}"
                    );
                    previous.refuse(Some(RefusedRevision { sha256, why, at, waits: Waits::Retry }));
                    if let Err(error) = previous.note_placed() {
                        tracing::warn!(target: "tidewaiter::run", connection = %key.connection, "what it runs is not in the audit: {error}");
                    }
                }
                back.is_some()
            }
            Outcome::Ok | Outcome::More if report.deltas + report.dead_letters > 0 => {
                connection.passes(&key.object_type)
            }
            _ => false,
        };
        if is_news {
            self.note_placement(&key.connection);
        }
    }

    fn note_placement(&mut self, name: &ConnectionName) {
        let (roster, db, name) = (Arc::clone(&self.roster), self.db.clone(), name.clone());
        self.notes.spawn(async move {
            if let Err(error) = roster.note(&name, &db).await {
                tracing::warn!(target: "tidewaiter::run", connection = %name, "what it runs is not noted: {error}");
            }
        });
    }

    /// The type for which a connection can't go back any more, if so: what it would go back to doesn't read the token that is held by now.
    fn closed(&self, connection: &Connection) -> Option<TypeKey> {
        connection.trial()?.previous.unread(&self.db.states().ok()?)
    }

    fn watch_secrets(&mut self, name: &ConnectionName) {
        let Some(connection) = self.roster.get(name) else { return };
        if self.watched.insert(name.clone()) {
            let name = name.clone();
            self.secrets.spawn(async move {
                connection.secret_changed().await;
                name
            });
        }
    }

    fn secret_changed(&mut self, connection: &ConnectionName) {
        self.watched.remove(connection);
        tracing::info!(target: "tidewaiter::run", %connection, "a secret has changed: what was refused is tried again");
        self.scheduler.handle_secret_changed(connection, self.clock.both());
    }

    /// A bug of ours ended a run; it ends that run only.
    fn panicked(&self, key: &TypeKey, running: Running, error: &JoinError) -> Performed {
        let (run, trigger, mut state) = running.order;
        let message = format!("the run ended unexpectedly: {error}");
        tracing::error!(target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run, "{message}");
        state.failures = state.failures.saturating_add(u32::from(trigger != Trigger::Reconcile));
        let outcome = Outcome::Failed(Failure::Host { message });
        let report = nothing_done(key, (run, trigger, &state), self.clock.now(), outcome);
        Performed { report, state, next: None }
    }
}

/// Whether the task that takes these requests works: waits for its answer, as long as there is none. No: it has ended.
pub(crate) async fn works(requests: &mpsc::Sender<Request>) -> bool {
    let (answer, answered) = oneshot::channel();
    requests.send(Request::Answer(answer)).await.is_ok() && answered.await.is_ok()
}

/// Of a run that wrote nothing.
fn nothing_done(
    key: &TypeKey,
    (run, trigger, state): (u64, Trigger, &TypeState),
    now: UnixMillis,
    outcome: Outcome,
) -> RunReport {
    let token = state.sync.token().cloned();
    let report = RunReport::of_nothing(run, key.clone(), trigger, now, outcome);
    RunReport { token_in: token.clone(), token_out: token, ..report }
}

async fn sleep(due: Option<Duration>) {
    match due {
        Some(duration) => tokio::time::sleep(duration).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tidewaiter_core::run::Filter;
    use tidewaiter_core::state::From;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_run_of_a_connection_that_was_just_taken_out_is_answered_and_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path(), "a test", Duration::ZERO).unwrap();
        let clock = Clock::start();
        let key = TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() };
        let scheduled = || Scheduled {
            key: key.clone(),
            connector: "csv".parse().unwrap(),
            timing: None,
            rank: 0,
            parallel: false,
            state: TypeState::first(From::Latest, clock.now()),
            faults: 0,
        };
        let counts = (Arc::default(), Arc::default(), Meters::default(), Traces::default());
        let roster = Arc::new(Roster::new(HashMap::new(), std::collections::BTreeMap::new()));
        let task = Task::new(db, clock, roster, Concurrency::default(), counts, vec![scheduled()]);
        let (requests, received) = mpsc::channel(10);
        let working = JoinSet::from_iter([task.work(received)]);
        let answered = async || {
            let (answer, result) = oneshot::channel();
            requests.send(Request::Sync { key: key.clone(), trigger: Trigger::Command, answer }).await.unwrap();
            timeout(Duration::from_secs(10), result).await.unwrap().unwrap()
        };
        for _ in 0..2 {
            assert_eq!(answered().await.unwrap().outcome, Outcome::Stopped);
        }
        let (answer, read) = oneshot::channel();
        let reading = Reading { filter: Filter::All, page: None, dry_run: true };
        let wanted = Request::Read { key: key.clone(), reading, comparison: None, answer };
        requests.send(wanted).await.unwrap();
        let read = timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
        assert!(matches!(read, Err(Refusal::Unknown(_))));
        // It is there again, or gone for good.
        let connection = key.connection.clone();
        for (types, is_known) in [(vec![scheduled()], true), (Vec::new(), false)] {
            requests.send(Request::Configured { connection: connection.clone(), types }).await.unwrap();
            assert_eq!(answered().await.is_ok(), is_known);
        }
        requests.send(Request::Shutdown).await.unwrap();
        timeout(Duration::from_secs(10), working.join_all()).await.unwrap();
    }
}
