//! Performs one run: feeds the core's machine with what the connector and the db answer, and does what it orders, in order.
//! Decides nothing.

mod log;

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tidewaiter_core::dead_letter::{DeadLetter, Feed, related, told_as_read};
use tidewaiter_core::guard::Tally;
use tidewaiter_core::journal::Packed;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::{Change, SyncDelta};
use tidewaiter_core::run::{BatchInfo, Effect, Failure, Filter, Outcome, Reading, Run, RunReport, Spent, Trigger};
use tidewaiter_core::schema::{ChangeFeed, ObjectClassInfo, Operation};
use tidewaiter_core::state::{Actor, TypeState};
use tidewaiter_core::token::{Shown, SyncToken};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

use crate::clock::Clock;
use crate::db::{Commit, CommitError, Db, EncodeError, Letters, StagedSegment, StoredLetter, pack, pack_read, unpack};
use crate::driver::connection::{Connection, Start};
use crate::driver::pass::{Comparison, Manner};
use crate::driver::session::Session;
use crate::trace::{Coded, RunTrace};
use crate::wasm::{FromGuest, Gauge, LogSource, SyncOptions};

/// How long a connector may go on after it was asked to stop, before it is ended.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Batches on their way from the connector.
const BATCHES_ON_THE_WAY: usize = 1;

/// Something that happens to a run from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// An operator set or reset the token.
    Supersede,
    /// The host shuts down, or the type is gone.
    Stop,
    /// Nobody may run its connector any more.
    Abandon,
}

/// What a run is told.
#[derive(Debug)]
pub struct Order {
    /// Where it commits.
    pub db: Db,
    /// What it reads the time from.
    pub clock: Clock,
    /// Its connection.
    pub connection: Arc<Connection>,
    /// Its type.
    pub key: TypeKey,
    /// Its number.
    pub run: u64,
    /// Why it begins.
    pub trigger: Trigger,
    /// The state as it is stored.
    pub state: TypeState,
    /// What is read in the place of changes.
    pub reading: Option<Reading>,
    /// What it is compared with; none: it isn't.
    pub comparison: Option<Arc<Comparison>>,
    /// What is traced of it.
    pub trace: RunTrace,
}

/// How a run ended.
#[derive(Debug)]
pub struct Performed {
    /// What is known of it.
    pub report: RunReport,
    /// The state that it left.
    pub state: TypeState,
    /// Where the next page of what was read begins; none: that was all, or nothing was read.
    pub next: Option<Vec<u8>>,
}

/// A commit or a staging.
type Writing = Result<Written, CommitError>;

enum Written {
    Committed,
    Staged(Vec<StagedSegment>),
}

/// A call into the connector, part of the run's task: a run that finds nothing wakes nobody. The error is a panic of ours.
type Calling = Pin<Box<dyn Future<Output = Result<Answer, Box<dyn Any + Send>>> + Send>>;

/// A call's answer, with the session that goes on to the next call.
struct Answer {
    session: Option<Box<dyn Session>>,
    call: Called,
}

enum Called {
    Latest(Result<Option<SyncToken>, Failure>),
    Sync {
        result: Result<Option<SyncToken>, Failure>,
        stopped: bool,
    },
    Search {
        result: Result<Option<Vec<u8>>, Failure>,
        stopped: bool,
    },
    /// The dead letters whose objects were read.
    Letter {
        result: Result<Vec<StoredLetter>, Failure>,
        stopped: bool,
    },
    /// Those that are gone, of what was looked for again.
    Missing {
        result: Result<Vec<SyncDelta>, Failure>,
        stopped: bool,
    },
    Next(Result<Option<Reading>, Failure>),
}

/// A batch as it was handed over.
struct Batch {
    deltas: Packed,
    letters: Letters,
}

/// What was staged at a time; what came with it and is kept out of the journal is here.
#[derive(Default)]
struct Staging {
    segments: Vec<StagedSegment>,
    letters: Letters,
}

struct Performer {
    order: Order,
    machine: Run,
    limits: Limits,
    stop: Arc<AtomicBool>,
    to_run: mpsc::Sender<FromGuest>,
    from_guest: mpsc::Receiver<FromGuest>,
    session: Option<Box<dyn Session>>,
    /// The call under way; dropped with the run, and the instance with it.
    calling: Option<Calling>,
    /// The payloads of the batches that the machine was told of.
    held: VecDeque<Batch>,
    /// What was read of objects that dead letters are about, and its size.
    read: Vec<SyncDelta>,
    read_bytes: u64,
    /// One at most: a task of its own, so that compressing goes on beside the connector.
    writing: JoinSet<Writing>,
    /// A shadow that is brought up.
    beside: JoinSet<()>,
    /// Written and not published yet, as it was staged; dropped if the run ends without.
    staged: VecDeque<Staging>,
    /// What comes with the staging under way.
    staging: Letters,
    /// So many of them are named by the commit under way.
    publishes: usize,
    time_up: Option<Pin<Box<tokio::time::Sleep>>>,
    gauge: Arc<Gauge>,
    flush: Option<oneshot::Sender<bool>>,
    /// Where the next page begins.
    next: Option<Vec<u8>>,
    grace: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// Performs a run to its end.
pub async fn perform(mut order: Order, mut signals: mpsc::Receiver<Signal>) -> Performed {
    let terms = order.connection.terms(&order.key.object_type);
    let limits = terms.limits;
    let Order { db, key, run, trigger, state, clock, .. } = &order;
    let (key, run, trigger, state, now) = (key.clone(), *run, *trigger, state.clone(), clock.now());
    let (to_run, from_guest) = mpsc::channel(BATCHES_ON_THE_WAY);
    let (stop, gauge, mut session) = (Arc::default(), Arc::default(), None);
    let machine = match (db.full(&key.connection), order.reading.clone()) {
        (Ok(Some(full)), _) => Run::over((key, run), trigger, state, terms, Outcome::Held(full.to_string()), now),
        (_, Some(reading)) => Run::reading((key, run), state, terms, reading, now),
        _ => {
            let starting = Starting { limits, stop: &stop, to_run: &to_run, gauge: &gauge };
            match prepared(&order, starting, &mut signals).await {
                Ok(Prepared::ByToken(started)) => {
                    session = started;
                    Run::new(key, run, trigger, state, terms, now)
                }
                Ok(Prepared::ByComparison(comparison)) => {
                    order.comparison = Some(comparison);
                    Run::comparing(key, run, trigger, state, terms, now)
                }
                Err(outcome) => Run::over((key, run), trigger, state, terms, outcome, now),
            }
        }
    };
    let mut performer = Performer {
        order,
        machine,
        limits,
        stop,
        to_run,
        from_guest,
        session,
        calling: None,
        held: VecDeque::new(),
        read: Vec::new(),
        read_bytes: 0,
        writing: JoinSet::new(),
        beside: JoinSet::new(),
        staged: VecDeque::new(),
        staging: Letters::default(),
        publishes: 0,
        time_up: Some(Box::pin(tokio::time::sleep(limits.run_time_max))),
        gauge,
        flush: None,
        next: None,
        grace: None,
    };
    loop {
        while let Some(effect) = performer.machine.poll_effect() {
            if let Some((report, state)) = performer.effect(effect) {
                performer.discard().await;
                if performer.gauge.was_shown_a_secret() && report.outcome.is_refused_login() {
                    performer.order.connection.login_refused();
                }
                performer.order.trace.end(&report);
                return Performed { report, state, next: performer.next };
            }
        }
        performer.wait(&mut signals).await;
    }
}

/// What a run's instance is started with.
#[derive(Clone, Copy)]
struct Starting<'a> {
    limits: Limits,
    stop: &'a Arc<AtomicBool>,
    to_run: &'a mpsc::Sender<FromGuest>,
    gauge: &'a Arc<Gauge>,
}

/// How a run finds changes.
enum Prepared {
    /// By token; with the instance, if it was asked for the classes.
    ByToken(Option<Box<dyn Session>>),
    /// By a pass.
    ByComparison(Arc<Comparison>),
}

/// Finds out how a run finds changes, unless it is told to end before.
async fn prepared(
    order: &Order,
    starting: Starting<'_>,
    signals: &mut mpsc::Receiver<Signal>,
) -> Result<Prepared, Outcome> {
    tokio::select! {
        biased;
        Some(signal) = signals.recv() => Err(match signal {
            Signal::Supersede => Outcome::Superseded,
            Signal::Stop | Signal::Abandon => Outcome::Stopped,
        }),
        prepared = prepare(order, starting) => prepared,
    }
}

async fn prepare(order: &Order, starting: Starting<'_>) -> Result<Prepared, Outcome> {
    let Order { db, key, connection, trace, .. } = order;
    let info = connection.connector.info();
    // Who can't read all objects has nothing to compare, and is asked for its classes when it is called.
    if !info.does(Operation::Search) || order.state.held.is_some() {
        return Ok(Prepared::ByToken(None));
    }
    let mut session = None;
    if !connection.knows_classes() {
        let Starting { limits, stop, to_run, gauge } = starting;
        let log = LogSource { key: key.clone(), run: order.run };
        let (stop, to_run, gauge) = (Arc::clone(stop), to_run.clone(), Arc::clone(gauge));
        let start = Start { log, limits, stop, to_run, gauge, comparison: None, trace: trace.clone() };
        let started = connection.start(start).await;
        session = Some(started.map_err(Outcome::Failed)?);
    }
    let by_comparison = |class: &ObjectClassInfo| class.changes == ChangeFeed::ByComparison;
    let Some(class) = connection.known_class(&key.object_type).filter(by_comparison) else {
        return Ok(Prepared::ByToken(session));
    };
    let busy = || Outcome::Held("a reconciliation of it is under way, or its shadow is being brought up".to_owned());
    let hold = db.wait_for_shadow(key).await.ok_or_else(busy)?;
    let manner = Manner { reads: Feed::Comparison, full: false, dry_run: false, allow_deletes: false };
    let (again, generation) = (info.does(Operation::SearchByUid), Some(order.state.generation));
    let of = (db.clone(), order.clock);
    let begun = Comparison::begin(of, hold, &class, manner, again, generation).await;
    let begun = begun.map_err(|error| Outcome::Failed(host_failure(&error)))?;
    Ok(Prepared::ByComparison(Arc::new(begun)))
}

impl Performer {
    /// Waits for one thing to happen, and tells the machine.
    async fn wait(&mut self, signals: &mut mpsc::Receiver<Signal>) {
        let wants = self.machine.wants_batches();
        let now = self.order.clock;
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => match signal {
                Signal::Supersede => self.machine.handle_superseded(now.now()),
                Signal::Stop => {
                    self.grace = Some(Box::pin(tokio::time::sleep(STOP_GRACE)));
                    self.machine.handle_shutdown(now.now());
                }
                Signal::Abandon => {
                    (self.calling, self.session) = (None, None);
                    self.machine.handle_abandoned(Outcome::Stopped, now.now());
                }
            },
            Some(result) = self.writing.join_next() => self.written(result),
            Some(message) = self.from_guest.recv(), if wants => self.receive(message),
            answer = done(&mut self.calling) => self.answered(answer),
            () = done(&mut self.time_up) => self.machine.handle_time_up(),
            () = done(&mut self.grace) => self.machine.handle_abandoned(Outcome::Stopped, now.now()),
        }
    }

    fn written(&mut self, result: Result<Writing, JoinError>) {
        let result = result.unwrap_or_else(|error| Err(CommitError::Storage(error.to_string())));
        let result = result.map(|written| match written {
            Written::Committed => drop(self.staged.drain(..self.publishes)),
            Written::Staged(segments) => {
                self.staged.push_back(Staging { segments, letters: std::mem::take(&mut self.staging) })
            }
        });
        self.machine.handle_committed(result.map_err(Into::into), self.order.clock.now());
    }

    /// Drops what was staged and is not published.
    async fn discard(&mut self) {
        // A run that was superseded may have a staging under way, which would be nobody's.
        if let Some(Ok(Ok(Written::Staged(segments)))) = self.writing.join_next().await {
            self.staged.push_back(Staging { segments, ..Staging::default() });
        }
        let staged: Vec<StagedSegment> = self.staged.drain(..).flat_map(|staging| staging.segments).collect();
        if !staged.is_empty()
            && let Err(error) = self.order.db.discard(staged).await
        {
            tracing::warn!(target: "tidewaiter::run", run = self.order.run, "staged deltas are dropped at the next start: {error}");
        }
    }

    /// Whether objects are read because dead letters are about them.
    fn reads_for_letter(&self) -> bool {
        let filter = self.order.reading.as_ref().map(|reading| &reading.filter);
        matches!(filter, Some(Filter::Letter { .. }))
    }

    fn receive(&mut self, message: FromGuest) {
        let now = self.order.clock.now();
        match message {
            // What is told of it is known once all is read.
            FromGuest::Batch { deltas, bytes, .. } if self.reads_for_letter() => {
                self.read.extend(unpack(&deltas));
                self.read_bytes += bytes;
                if self.read_bytes > self.limits.dead_letter_bytes_max {
                    let message = format!("more than {} bytes were read", self.limits.dead_letter_bytes_max);
                    self.machine.handle_abandoned(Outcome::Failed(Failure::Host { message }), now);
                }
            }
            FromGuest::Batch { deltas, kept, resolved, bytes, checkpoint } => {
                let is_delete = |letter: &&DeadLetter| letter.kind == Change::DELETE;
                let (count, deletes) = (kept.len() as u64, kept.iter().filter(is_delete).count() as u64);
                let tally =
                    Tally { changes: u64::from(deltas.count) + count, deletes: u64::from(deltas.deletes) + deletes };
                let info = BatchInfo { tally, kept: count, resolved: resolved.len() as u64, bytes, checkpoint };
                self.held.push_back(Batch { deltas, letters: Letters { kept, resolved, ..Letters::default() } });
                self.machine.handle_batch(info, now);
            }
            FromGuest::Flush(answer) => {
                self.flush = Some(answer);
                self.machine.handle_flush(now);
            }
        }
    }

    fn answered(&mut self, answer: Result<Answer, Box<dyn Any + Send>>) {
        // What was emitted before the call returned comes first.
        while let Ok(message) = self.from_guest.try_recv() {
            self.receive(message);
        }
        let now = self.order.clock.now();
        let key = &self.order.key;
        let call = match answer {
            Ok(Answer { session, call }) => {
                self.session = session;
                call
            }
            Err(panic) => {
                let message = format!("the host panicked in a call into the connector: {}", panic_message(&*panic));
                return self.machine.handle_abandoned(Outcome::Failed(Failure::Host { message }), now);
            }
        };
        match call {
            Called::Latest(result) => {
                match &result {
                    Ok(token) => tracing::info!(
                        target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = self.order.run,
                        token_type = token.as_ref().map_or("none", SyncToken::kind), token = %Shown(token.as_ref()),
                        "getLatestSyncToken returned"
                    ),
                    Err(failure) => self.log_failure("getLatestSyncToken", failure),
                }
                self.machine.handle_latest(result, now);
            }
            Called::Sync { result, stopped } => {
                match &result {
                    Ok(token) => tracing::info!(
                        target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = self.order.run,
                        token = %Shown(token.as_ref()), stopped, "sync returned"
                    ),
                    Err(failure) => self.log_failure("sync", failure),
                }
                self.machine.handle_returned(result, stopped, now);
            }
            Called::Search { result, stopped } => {
                match &result {
                    Ok(next) => tracing::info!(
                        target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = self.order.run,
                        more = next.is_some(), stopped, "search returned"
                    ),
                    Err(failure) => self.log_failure("search", failure),
                }
                let result = result.map(|next| self.next = next);
                self.machine.handle_searched(result, stopped, now);
            }
            Called::Letter { result, stopped } => {
                match &result {
                    Ok(letters) => tracing::info!(
                        target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = self.order.run,
                        letters = letters.len(), stopped, "read what dead letters are about"
                    ),
                    Err(failure) => self.log_failure("search", failure),
                }
                let result = result.and_then(|letters| if stopped { Ok(()) } else { self.tell_read(&letters) });
                self.machine.handle_searched(result, stopped, now);
            }
            Called::Missing { result, stopped } => {
                match &result {
                    Ok(gone) => tracing::info!(
                        target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = self.order.run,
                        gone = gone.len(), stopped, "looked for what was missing"
                    ),
                    Err(failure) => self.log_failure("search", failure),
                }
                let result = result.and_then(|gone| if stopped { Ok(()) } else { self.tell_gone(&gone) });
                self.machine.handle_searched(result, stopped, now);
            }
            Called::Next(next) => {
                if let Err(failure) = &next {
                    self.log_failure("the pass", failure);
                }
                let settled = self.order.comparison.as_ref().map(|pass| pass.take_settled()).unwrap_or_default();
                let handed = if settled.is_empty() { Ok(()) } else { self.hand_over(&[], pack, settled) };
                self.machine.handle_next(handed.and(next), now);
            }
        }
    }

    /// The connector has no such object: it is gone, and that is what was read of it.
    fn gone(&mut self, uid: String) {
        let object_class = self.order.connection.class(&self.order.key.object_type);
        let change = Change::Delete { uid, name: None, last_known: None };
        let told = self.tell_gone(&[SyncDelta { object_class, change, source_time: None }]);
        self.machine.handle_searched(told, false, self.order.clock.now());
    }

    /// Hands deletions to the machine as if the connector had.
    fn tell_gone(&mut self, gone: &[SyncDelta]) -> Result<(), Failure> {
        if gone.is_empty() {
            return Ok(());
        }
        let differs = self.order.comparison.as_ref().is_some_and(|comparison| !comparison.manner().full);
        self.hand_over(gone, if differs { pack } else { pack_read }, Vec::new())
    }

    /// Hands to the machine what is told in the place of dead letters, which are settled by it.
    fn tell_read(&mut self, letters: &[StoredLetter]) -> Result<(), Failure> {
        let about: Vec<&DeadLetter> = letters.iter().map(|stored| &stored.letter).collect();
        let deltas = told_as_read(&about, std::mem::take(&mut self.read));
        let resolved: Vec<u64> = letters.iter().map(|stored| stored.number).collect();
        self.hand_over(&deltas, pack_read, resolved)
    }

    /// Hands deltas of ours to the machine, as if the connector had.
    fn hand_over(
        &mut self,
        deltas: &[SyncDelta],
        pack: fn(&[SyncDelta]) -> Result<Packed, EncodeError>,
        resolved: Vec<u64>,
    ) -> Result<(), Failure> {
        let deltas_packed = pack(deltas).map_err(|error| Failure::Host { message: error.to_string() })?;
        let tally = Tally { changes: deltas_packed.count.into(), deletes: deltas_packed.deletes.into() };
        let bytes = deltas.iter().map(|delta| delta.size() as u64).sum();
        let info = BatchInfo { tally, resolved: resolved.len() as u64, bytes, ..BatchInfo::default() };
        let letters = Letters { resolved, ..Letters::default() };
        self.held.push_back(Batch { deltas: deltas_packed, letters });
        self.machine.handle_batch(info, self.order.clock.now());
        Ok(())
    }

    /// Does one thing; answers the end of the run when this was it.
    fn effect(&mut self, effect: Effect) -> Option<(RunReport, TypeState)> {
        match effect {
            Effect::AskLatest { why } => self.ask_latest(why),
            Effect::Sync { token, why } => self.sync(token, why),
            Effect::Search(reading) => self.search(reading),
            Effect::Gone { uid } => self.gone(uid),
            Effect::Next => self.next(),
            Effect::Stage { batches } => {
                let (db, key, run, at) =
                    (self.order.db.clone(), self.order.key.clone(), self.order.run, self.order.clock.now());
                let generation = self.order.state.generation;
                let (batches, letters) = self.take(batches);
                self.staging = letters;
                let trace = self.order.trace.clone();
                self.writing.spawn(async move {
                    let staged = trace.part("stage", db.stage(&key, generation, run, batches, at)).await;
                    staged.map(Written::Staged)
                });
            }
            Effect::Forget { batches } => drop(self.held.drain(..batches)),
            Effect::Commit { published, batches, expected_revision, state, marker, report } => {
                self.publishes = published;
                let (batches, mut letters) = self.take(batches);
                let mut staged = Vec::new();
                for staging in self.staged.iter_mut().take(published).rev() {
                    letters.prepend(std::mem::take(&mut staging.letters));
                    staged.splice(..0, staging.segments.iter().cloned());
                }
                self.log_letters(&letters);
                let commit = Commit {
                    staged,
                    key: self.order.key.clone(),
                    expected_revision,
                    state,
                    batches,
                    letters,
                    marker: marker.map(|marker| (marker, Actor::Host)),
                    run: Some(self.order.run),
                    report: report.map(|report| self.with_spent(report)),
                    at: self.order.clock.now(),
                };
                let (db, trace) = (self.order.db.clone(), self.order.trace.clone());
                self.writing
                    .spawn(async move { trace.part("commit", db.commit(commit)).await.map(|_| Written::Committed) });
            }
            Effect::Stop => {
                self.stop.store(true, Ordering::Relaxed);
            }
            Effect::Flushed { durable } => {
                if let Some(answer) = self.flush.take() {
                    let _ = answer.send(durable);
                }
            }
            Effect::Finish { report, state } => {
                let report = self.with_spent(report);
                self.log_end(&report);
                if matches!(report.outcome, Outcome::Failed(_) | Outcome::WentBack(_)) {
                    self.order.connection.forget_classes();
                }
                return Some((report, state));
            }
        }
        None
    }

    /// The payloads of the first batches that are held.
    fn take(&mut self, batches: usize) -> (Vec<Packed>, Letters) {
        let (mut deltas, mut letters) = (Vec::with_capacity(batches), Letters::default());
        for batch in self.held.drain(..batches) {
            deltas.push(batch.deltas);
            letters.append(batch.letters);
        }
        (deltas, letters)
    }

    fn with_spent(&self, report: RunReport) -> RunReport {
        let Spent { held_peak_bytes, uncovered_peak_bytes, .. } = report.spent;
        RunReport { spent: Spent { held_peak_bytes, uncovered_peak_bytes, ..self.gauge.spent() }, ..report }
    }

    fn ask_latest(&mut self, why: String) {
        let (key, run, trigger) = (self.order.key.clone(), self.order.run, self.order.trigger);
        let class = self.order.connection.class(&key.object_type);
        self.call(
            move |mut session| async move {
                tracing::info!(
                    target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run,
                    trigger = %trigger, why, "getLatestSyncToken called"
                );
                let result = session.latest(&class).await;
                Answer { session: Some(session), call: Called::Latest(result) }
            },
            |failure| Called::Latest(Err(failure)),
        );
    }

    fn sync(&mut self, token: Option<SyncToken>, why: String) {
        let (key, run, trigger) = (self.order.key.clone(), self.order.run, self.order.trigger);
        let class = self.order.connection.class(&key.object_type);
        let options: SyncOptions = self.order.connection.options(&key.object_type, &self.limits);
        self.call(
            move |mut session| async move {
                tracing::info!(
                    target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run,
                    trigger = %trigger, why, token = %Shown(token.as_ref()), "sync called"
                );
                let result = session.sync(&class, token, options).await;
                let stopped = session.was_stopped();
                Answer { session: Some(session), call: Called::Sync { result, stopped } }
            },
            |failure| Called::Sync { result: Err(failure), stopped: false },
        );
    }

    fn search(&mut self, reading: Reading) {
        let (key, run) = (self.order.key.clone(), self.order.run);
        let class = self.order.connection.class(&key.object_type);
        let options: SyncOptions = self.order.connection.options(&key.object_type, &self.limits);
        let Reading { filter, page, dry_run } = reading;
        let options = SyncOptions { dry_run, ..options };
        // Each page is asked of a fresh instance.
        self.session = None;
        let uid = match filter {
            Filter::All => None,
            Filter::ByUid { uid, .. } => Some(uid),
            Filter::Letter { number } => return self.search_letter(number, options),
            Filter::Missing { uids, .. } => return self.search_missing(uids, options),
        };
        let begins = self.order.comparison.clone().filter(|_| self.order.reading.is_some());
        self.call(
            move |mut session| async move {
                let what = match &uid {
                    None if page.is_some() => "the next page",
                    None => "all",
                    Some(_) => "one object",
                };
                tracing::info!(
                    target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run, what, dry_run,
                    "search called"
                );
                let begun = match begins {
                    None => Ok(()),
                    Some(comparison) => comparison.begin_run().await.map_err(|error| host_failure(&error)),
                };
                let result = match begun {
                    Ok(()) => session.search(&class, uid.as_deref(), page, options).await,
                    Err(failure) => Err(failure),
                };
                let stopped = session.was_stopped();
                Answer { session: Some(session), call: Called::Search { result, stopped } }
            },
            |failure| Called::Search { result: Err(failure), stopped: false },
        );
    }

    /// Reads the objects that a dead letter is about, with all that have to do with them.
    fn search_letter(&mut self, number: u64, options: SyncOptions) {
        let (db, key, max) = (self.order.db.clone(), self.order.key.clone(), self.limits.call_time_max);
        self.call(
            move |mut session| async move {
                let result = async {
                    let letters = db.read_dead_letters(Some(key)).await;
                    let letters = letters.map_err(|error| Failure::Host { message: error.to_string() })?;
                    let numbered: Vec<_> = letters.iter().map(|stored| (stored.number, &stored.letter)).collect();
                    let about: BTreeSet<u64> = related(&numbered, number).iter().map(|(number, _)| *number).collect();
                    let about: Vec<StoredLetter> =
                        letters.into_iter().filter(|stored| about.contains(&stored.number)).collect();
                    let objects: BTreeSet<(&str, &str)> = about
                        .iter()
                        .flat_map(|StoredLetter { letter, .. }| {
                            letter.uids().map(|uid| (letter.object_class.as_str(), uid))
                        })
                        .collect();
                    for (class, uid) in objects {
                        session.search(class, Some(uid), None, options.clone()).await?;
                        if session.was_stopped() {
                            return Ok(Vec::new());
                        }
                    }
                    Ok(about)
                };
                // All of it takes no longer than one call may.
                let result = tokio::time::timeout(max, result).await.unwrap_or_else(|_| Err(too_long(max)));
                let stopped = session.was_stopped();
                Answer { session: Some(session), call: Called::Letter { result, stopped } }
            },
            |failure| Called::Letter { result: Err(failure), stopped: false },
        );
    }

    /// Looks for what a pass didn't find, by uid where the connector can, and finds out what of it is gone.
    fn search_missing(&mut self, uids: Vec<String>, options: SyncOptions) {
        let Some(comparison) = self.order.comparison.clone() else { return };
        let class = self.order.connection.class(&self.order.key.object_type);
        let (begins, max) = (self.order.reading.is_some(), self.limits.call_time_max);
        self.call(
            move |mut session| async move {
                let result = async {
                    if begins {
                        comparison.begin_run().await.map_err(|error| host_failure(&error))?;
                    }
                    for uid in uids.iter().filter(|_| comparison.looks_again()) {
                        session.search(&class, Some(uid), None, options.clone()).await?;
                        if session.was_stopped() {
                            return Ok(Vec::new());
                        }
                    }
                    comparison.gone(uids).await.map_err(|error| host_failure(&error))
                };
                // All of it takes no longer than one call may.
                let result = tokio::time::timeout(max, result).await.unwrap_or_else(|_| Err(too_long(max)));
                let stopped = session.was_stopped();
                Answer { session: Some(session), call: Called::Missing { result, stopped } }
            },
            |failure| Called::Missing { result: Err(failure), stopped: false },
        );
    }

    /// Finds out what is read next in the pass of this run.
    fn next(&mut self) {
        let Some(comparison) = self.order.comparison.clone() else { return };
        let (answered, session) = (self.next.take(), self.session.take());
        if comparison.is_behind() {
            let comparison = Arc::clone(&comparison);
            // What fails is met again at the end of the pass.
            self.beside.spawn(async move { drop(comparison.bring_up().await) });
        }
        let calling = async move { Answer { session, call: Called::Next(comparison.next(answered).await) } };
        self.calling = Some(Box::pin(AssertUnwindSafe(calling).catch_unwind()));
    }

    /// Begins a call, with the session of this run, which is started by the first call.
    fn call<F>(&mut self, call: impl FnOnce(Box<dyn Session>) -> F + Send + 'static, failed: fn(Failure) -> Called)
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let session = self.session.take();
        let connection = Arc::clone(&self.order.connection);
        let log = LogSource { key: self.order.key.clone(), run: self.order.run };
        let (limits, gauge) = (self.limits, Arc::clone(&self.gauge));
        let comparison = self.order.comparison.clone();
        let (stop, to_run, trace) = (Arc::clone(&self.stop), self.to_run.clone(), self.order.trace.clone());
        let calling = async move {
            let session = match session {
                Some(session) => Ok(session),
                None => connection.start(Start { log, limits, stop, to_run, gauge, comparison, trace }).await,
            };
            match session {
                Ok(session) => call(session).await,
                Err(failure) => Answer { session: None, call: failed(failure) },
            }
        };
        self.calling = Some(Box::pin(AssertUnwindSafe(calling).catch_unwind()));
    }
}

impl Coded for CommitError {
    fn code(&self) -> String {
        let code = match self {
            Self::Conflict => "conflict",
            Self::Full(_) => "full",
            _ => "storage",
        };
        code.to_owned()
    }
}

fn too_long(max: Duration) -> Failure {
    let message = format!("reading objects one by one took longer than the {} ms allowed", max.as_millis());
    Failure::Trapped { code: "limit.call-time".into(), message }
}

fn host_failure(error: &CommitError) -> Failure {
    Failure::Host { message: error.to_string() }
}

/// The end of what is under way, once; never, if nothing is.
async fn done<F: Future + Unpin>(under_way: &mut Option<F>) -> F::Output {
    match under_way {
        Some(future) => {
            let output = future.await;
            *under_way = None;
            output
        }
        None => pending().await,
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
