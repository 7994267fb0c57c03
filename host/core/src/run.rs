//! One run of live sync, as a machine: which call into the connector comes next, what is committed with which token, and
//! when it is over. It performs nothing: the driver hands outcomes in (`handle_*`), takes effects out (`poll_effect`), and keeps
//! the payloads of the batches in the order in which it reported them.
//!
//! What it guarantees: a token is ordered into a commit only together with every batch before it; at most one commit is
//! under way; nothing is ordered after the end.

mod effect;
mod end;
mod report;

use std::collections::VecDeque;

pub use self::effect::{BatchInfo, CommitFailure, Effect, Filter, Reading, Terms};
pub use self::report::{ConnectorError, ErrorKind, Failure, Outcome, RunReport, Spent, Trigger};
use crate::guard::Tally;
use crate::journal::Marker;
use crate::name::TypeKey;
use crate::state::{Actor, SyncState, TypeState};
use crate::time::UnixMillis;
use crate::token::SyncToken;

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Live sync by token.
    Sync,
    /// Live sync by comparison: a pass over all objects.
    Compare,
    /// It reads objects, and leaves live sync as it is.
    Read,
}

/// Batches that wait for a commit under way: beside their deltas, each may have a token of 64 KiB.
const HELD_COUNT_MAX: usize = 256;

#[derive(Debug)]
enum Phase {
    AskingLatest,
    /// The first token is being stored, before `sync` is called with it.
    Establishing,
    Syncing,
    /// `search` is called in the place of `sync`.
    Searching(Reading),
    /// It is being decided what is read next.
    BetweenPages,
    /// Nothing more comes from the connector.
    Ending(Outcome),
    Done,
}

#[derive(Debug)]
enum InFlight {
    /// None: it was dropped meanwhile.
    Stage(Option<Part>),
    Commit(Box<Committing>),
}

#[derive(Debug)]
struct Committing {
    sum: Sum,
    state: TypeState,
    report: Option<RunReport>,
}

/// Some deltas.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    tally: Tally,
    kept: u64,
    resolved: u64,
    bytes: u64,
}

impl Sum {
    fn of<'a>(batches: impl IntoIterator<Item = &'a BatchInfo>) -> Self {
        let add = |sum: Self, batch: &BatchInfo| {
            let BatchInfo { tally, kept, resolved, bytes, .. } = *batch;
            sum + Self { tally, kept, resolved, bytes }
        };
        batches.into_iter().fold(Self::default(), add)
    }

    /// Whether it changes anything.
    fn is_nothing(&self) -> bool {
        self.tally == Tally::default() && self.resolved == 0
    }
}

/// What was staged at a time: all of it is covered by a token, or nothing.
#[derive(Debug, Default)]
struct Part {
    sum: Sum,
    token: Option<SyncToken>,
}

/// The last place that a token covers: so many of what is staged, so many batches that are held.
struct Covered {
    staged: usize,
    batches: usize,
    token: SyncToken,
}

impl std::ops::Add for Sum {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            tally: self.tally + other.tally,
            kept: self.kept + other.kept,
            resolved: self.resolved + other.resolved,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Run {
    key: TypeKey,
    run: u64,
    trigger: Trigger,
    started: UnixMillis,
    terms: Terms,
    /// The state as it is stored, as far as this run knows.
    stored: TypeState,
    token_in: Option<SyncToken>,
    phase: Phase,
    /// Batches that the driver holds and that no commit has taken.
    held: VecDeque<BatchInfo>,
    held_bytes: u64,
    /// The most that there was of it, and of what no checkpoint covered.
    held_peak_bytes: u64,
    uncovered_peak_bytes: u64,
    /// What is staged, from the oldest; it comes before everything held.
    staged: VecDeque<Part>,
    /// The token that `sync` returned; it covers everything held.
    returned: Option<SyncToken>,
    kind: Kind,
    /// `search` returned: everything that was read is to be journaled, and the token stays.
    searched: bool,
    in_flight: Option<InFlight>,
    flush_waits: bool,
    shutting_down: bool,
    /// The time of this run is up.
    time_is_up: bool,
    /// The connector is being stopped because the budget is spent.
    budget_spent: bool,
    /// Everything that was handed over.
    taken: Sum,
    journaled: Sum,
    retries: u32,
    /// The token is refused without asking the connector.
    token_is_stale: bool,
    /// A commit of this run is durable.
    wrote: bool,
    effects: VecDeque<Effect>,
}

impl Run {
    /// Begins a run from the stored state.
    pub fn new(key: TypeKey, run: u64, trigger: Trigger, stored: TypeState, terms: Terms, now: UnixMillis) -> Self {
        let mut machine = Self::idle(key, run, trigger, stored, terms, now);
        machine.begin(now);
        machine
    }

    /// Begins a run that reads objects, whatever the state of live sync.
    pub fn reading(order: (TypeKey, u64), stored: TypeState, terms: Terms, reading: Reading, now: UnixMillis) -> Self {
        let (key, run) = order;
        let mut machine = Self::idle(key, run, Trigger::Reconcile, stored, terms, now);
        machine.kind = Kind::Read;
        machine.read(reading, now);
        machine
    }

    /// Begins a run that finds the changes by comparison, page by page.
    pub fn comparing(
        key: TypeKey,
        run: u64,
        trigger: Trigger,
        stored: TypeState,
        terms: Terms,
        now: UnixMillis,
    ) -> Self {
        let mut machine = Self::idle(key, run, trigger, stored, terms, now);
        machine.kind = Kind::Compare;
        match machine.stored.held.clone() {
            Some(why) => machine.abandon(Outcome::Guarded(why), now),
            None => machine.read(Reading { filter: Filter::All, page: None, dry_run: false }, now),
        }
        machine
    }

    /// A run that ends so before it calls anything.
    pub fn over(
        order: (TypeKey, u64),
        trigger: Trigger,
        stored: TypeState,
        terms: Terms,
        outcome: Outcome,
        now: UnixMillis,
    ) -> Self {
        let (key, run) = order;
        let mut machine = Self::idle(key, run, trigger, stored, terms, now);
        match outcome {
            Outcome::Failed(_) => machine.end(outcome, now),
            _ => machine.abandon(outcome, now),
        }
        machine
    }

    fn idle(key: TypeKey, run: u64, trigger: Trigger, stored: TypeState, terms: Terms, now: UnixMillis) -> Self {
        let token_in = stored.sync.token().cloned();
        Self {
            key,
            run,
            trigger,
            started: now,
            terms,
            token_in,
            phase: Phase::Syncing,
            held: VecDeque::new(),
            held_bytes: 0,
            held_peak_bytes: 0,
            uncovered_peak_bytes: 0,
            staged: VecDeque::new(),
            returned: None,
            kind: Kind::Sync,
            searched: false,
            in_flight: None,
            flush_waits: false,
            shutting_down: false,
            time_is_up: false,
            budget_spent: false,
            taken: Sum::default(),
            journaled: Sum::default(),
            retries: stored.failures,
            token_is_stale: false,
            wrote: false,
            effects: VecDeque::new(),
            stored,
        }
    }

    fn begin(&mut self, now: UnixMillis) {
        let why = self.stored.why.clone();
        if let Some(why) = self.stored.held.clone() {
            return self.abandon(Outcome::Guarded(why), now);
        }
        match &self.stored.sync {
            SyncState::New => {
                self.phase = Phase::AskingLatest;
                self.effects.push_back(Effect::AskLatest { why: format!("no token: {why}") });
            }
            SyncState::Origin => self.effects.push_back(Effect::Sync { token: None, why: format!("no token: {why}") }),
            SyncState::Live(token) => {
                match self.stored.token_basis.stale(&self.terms.token_basis, &self.terms.token_formats) {
                    Some(why) => self.refuse_token(why, now),
                    None => {
                        let token = Some(token.clone());
                        self.effects.push_back(Effect::Sync { token, why: "token held".into() });
                    }
                }
            }
            SyncState::Compared => {
                let why = "changes were found by comparison until now: there is no token to go on from";
                self.refuse_token(why.to_owned(), now);
            }
            SyncState::TokenLost { reason, .. } => {
                let message = format!("the token is lost ({reason}); set, rewind or reset it first");
                self.abandon(Outcome::Failed(Failure::Host { message }), now);
            }
        }
    }

    /// The token is of no use, and the connector need not be asked.
    fn refuse_token(&mut self, message: String, now: UnixMillis) {
        self.token_is_stale = true;
        let kind = ErrorKind::InvalidSyncToken;
        let error = ConnectorError { kind, message, retry_after_ms: None };
        self.end(Outcome::Failed(Failure::Connector(error)), now);
    }

    /// Reads something, unless it is known before that too much is missing.
    fn read(&mut self, reading: Reading, now: UnixMillis) {
        if let Filter::Missing { of, found, allowed: false, .. } = &reading.filter
            && let Some(why) = self.refuses_missing(*of, *found, now)
        {
            return self.end(Outcome::Guarded(why), now);
        }
        self.phase = Phase::Searching(reading.clone());
        self.effects.push_back(Effect::Search(reading));
    }

    /// Whether so many deletions are more than is let pass.
    fn refuses_missing(&self, missing: u64, found: u64, now: UnixMillis) -> Option<String> {
        if self.kind == Kind::Compare && self.stored.released {
            return None;
        }
        if found == 0 {
            return Some(format!("the source has no object any more, and had {missing}"));
        }
        // Those that were told already are among them.
        let left = missing.saturating_sub(self.taken.tally.deletes);
        let gone = Tally { changes: left, deletes: left };
        match self.kind {
            Kind::Compare => self.terms.guard.refuses(self.taken.tally + gone, self.of_hour(now) + gone),
            // A first pass has many changes; that is what it is for.
            Kind::Read | Kind::Sync => {
                let deletes = Tally { changes: 0, deletes: missing };
                self.terms.guard.refuses(deletes, deletes)
            }
        }
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether the driver should take more batches from the connector; if not, `emit` blocks.
    pub fn wants_batches(&self) -> bool {
        let few = self.held_bytes < self.terms.limits.pending_bytes_max && self.held.len() < HELD_COUNT_MAX;
        self.in_flight.is_none() || few
    }

    /// Whether `Finish` has been ordered.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// `get-latest-sync-token` answered.
    pub fn handle_latest(&mut self, answer: Result<Option<SyncToken>, Failure>, now: UnixMillis) {
        if !matches!(self.phase, Phase::AskingLatest) {
            return;
        }
        let (sync, why) = match answer {
            Err(failure) => return self.end(Outcome::Failed(failure), now),
            Ok(Some(token)) => (SyncState::Live(token), format!("established by run {}", self.run)),
            Ok(None) => (SyncState::Origin, format!("the source had no change at {now}")),
        };
        self.phase = Phase::Establishing;
        let state = self.next_state(sync, why, 0, now);
        self.commit((0, 0), state, None, None);
    }

    /// The connector handed a batch over; the driver holds it.
    pub fn handle_batch(&mut self, batch: BatchInfo, now: UnixMillis) {
        if !matches!(self.phase, Phase::Syncing | Phase::Searching(_) | Phase::BetweenPages) {
            return;
        }
        self.held_bytes += batch.bytes;
        self.taken = self.taken + Sum::of([&batch]);
        if batch.tally != Tally::default()
            && let Some(why) = self.guard(now)
        {
            self.drop_held();
            return self.end(Outcome::Guarded(why), now);
        }
        let resumable = batch.checkpoint.is_some();
        self.held.push_back(batch);
        if resumable {
            self.spend();
        }
        let uncovered = self.uncovered_bytes();
        self.held_peak_bytes = self.held_peak_bytes.max(self.held_bytes);
        self.uncovered_peak_bytes = self.uncovered_peak_bytes.max(uncovered);
        if uncovered > self.terms.limits.uncovered_bytes_max {
            let max = self.terms.limits.uncovered_bytes_max;
            let message = format!("{uncovered} bytes of deltas without a checkpoint; at most {max} are staged");
            let failure = Failure::Trapped { code: "limit.uncovered-bytes".into(), message };
            return self.end(Outcome::Failed(failure), now);
        }
        self.advance(now);
    }

    /// The connector called `flush`; only asked when everything has a checkpoint.
    pub fn handle_flush(&mut self, now: UnixMillis) {
        self.flush_waits = true;
        self.advance(now);
    }

    /// `sync` returned, after every batch of it was reported. `stopped`: the connector had been answered `stop`.
    pub fn handle_returned(&mut self, answer: Result<Option<SyncToken>, Failure>, stopped: bool, now: UnixMillis) {
        if !matches!(self.phase, Phase::Syncing) {
            return;
        }
        match answer {
            Err(failure) => self.end(Outcome::Failed(failure), now),
            Ok(_) if stopped && self.budget_spent && !self.shutting_down => self.end(Outcome::More, now),
            Ok(_) if stopped => self.end(Outcome::Stopped, now),
            Ok(Some(token)) => {
                self.returned = Some(token);
                self.end(Outcome::Ok, now);
            }
            Ok(None) if self.uncovered_bytes() > 0 => {
                let message = "sync returned no token for deltas that no checkpoint covers".to_owned();
                let failure = Failure::Contract { code: "uncovered-deltas".into(), message, uid: None };
                self.end(Outcome::Failed(failure), now);
            }
            Ok(None) => self.end(Outcome::Ok, now),
        }
    }

    /// `search` returned, after every batch of it was reported.
    pub fn handle_searched(&mut self, answer: Result<(), Failure>, stopped: bool, now: UnixMillis) {
        let Phase::Searching(reading) = &self.phase else { return };
        let (filter, dry_run) = (reading.filter.clone(), reading.dry_run);
        match (answer, filter) {
            (Err(failure), _) => return self.end(Outcome::Failed(failure), now),
            (Ok(()), _) if stopped => return self.end(Outcome::Stopped, now),
            // This is reported as a batch, and then it is all.
            (Ok(()), Filter::ByUid { uid, gone: true }) if self.taken.tally.changes == 0 => {
                self.effects.push_back(Effect::Gone { uid });
                return;
            }
            (Ok(()), _) => {}
        }
        self.searched = !dry_run;
        if self.kind == Kind::Compare {
            self.phase = Phase::BetweenPages;
            self.effects.push_back(Effect::Next);
            return self.advance(now);
        }
        self.end(Outcome::Ok, now);
    }

    /// What is read next in this pass; none: that was all.
    pub fn handle_next(&mut self, next: Result<Option<Reading>, Failure>, now: UnixMillis) {
        if !matches!(self.phase, Phase::BetweenPages) {
            return;
        }
        match next {
            Err(failure) => self.end(Outcome::Failed(failure), now),
            Ok(None) => self.end(Outcome::Ok, now),
            Ok(Some(_)) if self.shutting_down => self.end(Outcome::Stopped, now),
            Ok(Some(reading)) => {
                self.read(reading, now);
                self.advance(now);
            }
        }
    }

    /// The commit or the staging under way came to its end.
    pub fn handle_committed(&mut self, result: Result<(), CommitFailure>, now: UnixMillis) {
        let Some(in_flight) = self.in_flight.take() else { return };
        match result {
            Ok(()) => match in_flight {
                InFlight::Stage(part) => self.staged.extend(part),
                InFlight::Commit(commit) => {
                    let Committing { sum, state, report } = *commit;
                    self.journaled = self.journaled + sum;
                    self.wrote = true;
                    self.stored = state;
                    if let Some(report) = report {
                        return self.finish(report);
                    }
                }
            },
            Err(CommitFailure::Full(why)) => return self.hold(why, now),
            Err(CommitFailure::Conflict) => return self.abandon(Outcome::Superseded, now),
            Err(CommitFailure::Storage(message)) => {
                return self.abandon(Outcome::Failed(Failure::Host { message }), now);
            }
        }
        if matches!(self.phase, Phase::Establishing) {
            self.established(now);
        }
        self.advance(now);
    }

    /// There is no room for more; what was journaled before is recorded.
    fn hold(&mut self, why: String, now: UnixMillis) {
        if !self.wrote || matches!(self.phase, Phase::Ending(Outcome::Held(_))) {
            return self.abandon(Outcome::Held(why), now);
        }
        self.drop_held();
        self.end(Outcome::Held(why), now);
    }

    /// Nothing more is journaled.
    fn drop_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
        self.staged.clear();
        if let Some(InFlight::Stage(part)) = &mut self.in_flight {
            *part = None;
        }
        self.returned = None;
    }

    /// Whether more came than is let pass, with what a commit under way journals.
    fn guard(&self, now: UnixMillis) -> Option<String> {
        let counts = !self.stored.released && self.kind != Kind::Read;
        self.terms.guard.refuses(self.taken.tally, self.of_hour(now)).filter(|_| counts)
    }

    /// What this hour has, with what a commit under way journals and what waits for one.
    fn of_hour(&self, now: UnixMillis) -> Tally {
        self.stored.hour.at(now).tally + (self.taken.tally - self.journaled.tally)
    }

    /// An operator set or reset the token: nothing of this run is written any more.
    pub fn handle_superseded(&mut self, now: UnixMillis) {
        if !self.is_done() {
            self.in_flight = None;
            self.abandon(Outcome::Superseded, now);
        }
    }

    /// The host shuts down: end at the next checkpoint.
    pub fn handle_shutdown(&mut self, _now: UnixMillis) {
        if !self.shutting_down && !self.is_done() {
            self.shutting_down = true;
            self.effects.push_back(Effect::Stop);
        }
    }

    /// The time of the run is up: end at the next checkpoint.
    pub fn handle_time_up(&mut self) {
        self.time_is_up = true;
        if self.taken.tally.changes > 0 && self.uncovered_bytes() == 0 {
            self.spend();
        }
    }

    /// Stops the connector when the budget is spent. Only asked at a checkpoint, so that every run gets further.
    fn spend(&mut self) {
        let limits = &self.terms.limits;
        let spent = self.time_is_up
            || self.taken.tally.changes >= limits.run_deltas_max
            || self.taken.bytes >= limits.run_bytes_max;
        if spent && !self.budget_spent && !self.shutting_down && matches!(self.phase, Phase::Syncing) {
            self.budget_spent = true;
            self.effects.push_back(Effect::Stop);
        }
    }

    /// What was handed over since the last checkpoint: held, staged, or on its way there.
    fn uncovered_bytes(&self) -> u64 {
        let held = Sum::of(self.held.iter().rev().take_while(|batch| batch.checkpoint.is_none())).bytes;
        if self.kind != Kind::Sync || self.held.iter().any(|batch| batch.checkpoint.is_some()) {
            return held;
        }
        let under_way = match &self.in_flight {
            Some(InFlight::Stage(part)) => part.as_ref(),
            _ => None,
        };
        let staged = self.staged.iter().chain(under_way).rev().take_while(|part| part.token.is_none());
        held + staged.map(|part| part.sum.bytes).sum::<u64>()
    }

    /// The grace of a shutdown is over, or the connector can't be waited for: what is checkpointed is kept, the rest dropped.
    pub fn handle_abandoned(&mut self, outcome: Outcome, now: UnixMillis) {
        if !matches!(self.phase, Phase::Ending(_) | Phase::Done) {
            self.end(outcome, now);
        }
    }

    fn established(&mut self, now: UnixMillis) {
        match self.stored.sync.token().cloned() {
            None => self.end(Outcome::Ok, now),
            Some(_) if self.shutting_down => self.end(Outcome::Stopped, now),
            Some(token) => {
                self.phase = Phase::Syncing;
                self.effects.push_back(Effect::Sync { token: Some(token), why: "token just established".into() });
            }
        }
    }

    fn end(&mut self, outcome: Outcome, now: UnixMillis) {
        let outcome = match outcome {
            Outcome::Failed(failure) if self.goes_back(&failure) => Outcome::WentBack(failure),
            other => other,
        };
        self.phase = Phase::Ending(outcome);
        self.advance(now);
    }

    /// Orders the next commit, if one is possible now.
    fn advance(&mut self, now: UnixMillis) {
        if self.in_flight.is_some() {
            return;
        }
        match &self.phase {
            Phase::AskingLatest | Phase::Establishing | Phase::BetweenPages | Phase::Done => {}
            Phase::Syncing => self.advance_syncing(now),
            Phase::Searching(reading) if self.held_bytes >= self.terms.limits.stage_bytes => match reading.dry_run {
                true => self.forget(),
                false if self.is_on_trial() => self.stage(self.held.len()),
                // It stands by itself, whatever comes of the rest.
                false => self.commit((0, self.held.len()), self.next_revision(now), None, None),
            },
            Phase::Searching(_) => {}
            Phase::Ending(outcome) => {
                let outcome = outcome.clone();
                match self.kind {
                    Kind::Read => self.conclude_reading(outcome, now),
                    Kind::Compare => self.conclude_comparing(outcome, now),
                    Kind::Sync => self.conclude(outcome, now),
                }
            }
        }
    }

    fn advance_syncing(&mut self, now: UnixMillis) {
        let many = self.held_bytes >= self.terms.limits.stage_bytes;
        match self.covered() {
            // What the source is going to forget is journaled, whatever comes of the run.
            Some(covered) if !self.is_on_trial() || self.flush_waits => {
                let state = self.live(covered.token, now);
                self.commit((covered.staged, covered.batches), state, None, None);
            }
            Some(Covered { batches, .. }) if many && batches > 0 => self.stage(batches),
            _ if many => self.stage(self.held.len()),
            _ => self.answer_flush(true),
        }
    }

    /// Whether nothing is journaled before the run has come to its end: whoever runs it has to show first that it can.
    fn is_on_trial(&self) -> bool {
        self.terms.on_trial && self.kind != Kind::Read
    }

    /// Whether that is a reason to go on with what ran before, as if this run had not been.
    fn goes_back(&self, failure: &Failure) -> bool {
        self.is_on_trial() && (failure.is_the_connectors() || failure.refuses_token())
    }

    /// What is covered up to the last resume point.
    fn covered(&self) -> Option<Covered> {
        let staged = self.staged.len();
        if let Some(token) = self.returned.clone() {
            return Some(Covered { staged, batches: self.held.len(), token });
        }
        let held = self.held.iter().enumerate().rev();
        let mut held = held.filter_map(|(index, batch)| Some((index + 1, batch.checkpoint.clone()?)));
        if let Some((batches, token)) = held.next() {
            return Some(Covered { staged, batches, token });
        }
        let parts = self.staged.iter().enumerate().rev();
        let mut parts = parts.filter_map(|(index, part)| Some((index + 1, part.token.clone()?)));
        parts.next().map(|(staged, token)| Covered { staged, batches: 0, token })
    }

    /// What that is together.
    fn sum(&self, (staged, batches): (usize, usize)) -> Sum {
        let staged = self.staged.iter().take(staged).fold(Sum::default(), |sum, part| sum + part.sum);
        staged + Sum::of(self.held.iter().take(batches))
    }

    fn answer_flush(&mut self, durable: bool) {
        if std::mem::take(&mut self.flush_waits) {
            self.effects.push_back(Effect::Flushed { durable });
        }
    }

    fn take(&mut self, batches: usize) -> Sum {
        let taken: Vec<BatchInfo> = self.held.drain(..batches).collect();
        let sum = Sum::of(&taken);
        self.held_bytes -= sum.bytes;
        sum
    }

    fn stage(&mut self, batches: usize) {
        let token = batches.checked_sub(1).and_then(|last| self.held.get(last)?.checkpoint.clone());
        self.in_flight = Some(InFlight::Stage(Some(Part { sum: self.take(batches), token })));
        self.effects.push_back(Effect::Stage { batches });
    }

    fn forget(&mut self) {
        let batches = self.held.len();
        self.take(batches);
        self.effects.push_back(Effect::Forget { batches });
    }

    /// Journals so much of what is staged, and then so many batches that are held.
    fn commit(
        &mut self,
        (published, batches): (usize, usize),
        mut state: TypeState,
        marker: Option<Marker>,
        report: Option<RunReport>,
    ) {
        let sum = self.sum((published, batches));
        self.staged.drain(..published);
        self.take(batches);
        // What was released doesn't count.
        if !self.stored.released && self.kind != Kind::Read {
            state.hour = state.hour.plus(sum.tally, state.changed_at);
        }
        let committing = Committing { sum, state: state.clone(), report: report.clone() };
        self.in_flight = Some(InFlight::Commit(Box::new(committing)));
        let expected_revision = self.stored.revision;
        self.effects.push_back(Effect::Commit { published, batches, expected_revision, state, marker, report });
    }

    fn live(&self, token: SyncToken, now: UnixMillis) -> TypeState {
        self.next_state(SyncState::Live(token), format!("reached by run {}", self.run), self.stored.failures, now)
    }

    fn next_revision(&self, now: UnixMillis) -> TypeState {
        TypeState { revision: self.stored.revision + 1, changed_at: now, ..self.stored.clone() }
    }

    fn next_state(&self, sync: SyncState, why: String, failures: u32, now: UnixMillis) -> TypeState {
        TypeState {
            sync,
            token_basis: self.terms.token_basis.clone(),
            revision: self.stored.revision + 1,
            failures,
            why,
            changed_at: now,
            changed_by: Actor::Host,
            ..self.stored.clone()
        }
    }
}
