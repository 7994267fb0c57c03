//! The scheduler and the run machine in a simulated world: a source that grows, a connector that batches, checkpoints, fails
//! and traps, a db that refuses, operators who set and reset tokens, and a process that is killed at any step. An oracle that
//! knows the source's history checks the journal: within a generation each change is there exactly once, in order.

#![allow(clippy::unwrap_used, reason = "a test")]

mod seeds;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tidewaiter_core::guard::{Hour, Tally};
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{
    BatchInfo, CommitFailure, ConnectorError, Effect, ErrorKind, Failure, Filter, Outcome, Reading, Run, Terms, Trigger,
};
use tidewaiter_core::schedule::{self, Scheduled, Scheduler};
use tidewaiter_core::state::{Actor, From, OnTokenLost, SyncState, TypeState};
use tidewaiter_core::time::{Moment, Now, UnixMillis};
use tidewaiter_core::timing::Timing;
use tidewaiter_core::token::SyncToken;

/// What survives a kill.
#[derive(Default)]
struct Disk {
    state: Option<TypeState>,
    /// (generation, change) in commit order.
    journal: Vec<(u64, i64)>,
    /// Per generation: the token that it began with.
    began: Vec<(u64, i64)>,
    /// Transactions, to see that idle runs write nothing.
    writes: u64,
    /// What was read and journaled, a list for each commit.
    read: Vec<Vec<i64>>,
}

/// A call into the connector that has not returned.
enum Call {
    Latest,
    Sync {
        from: i64,
    },
    /// Of the objects up to the last one that a page has.
    Search {
        from: i64,
        to: i64,
    },
}

/// What the db was told to write.
enum Writing {
    Stage(usize),
    Commit { published: usize, batches: usize, expected: u64, state: Box<TypeState> },
}

/// What a kill ends.
struct Process {
    scheduler: Scheduler,
    run: Option<Run>,
    call: Option<Call>,
    /// Payloads of the batches that the machine was told of.
    held: VecDeque<Vec<i64>>,
    /// It reads, and no changes.
    reads: bool,
    /// Commits of what was read before the run.
    read_before: usize,
    writing: Option<Writing>,
    /// Written, and seen by nobody.
    staged: VecDeque<Vec<i64>>,
    stop: bool,
    runs: u64,
}

struct World {
    chance: Rng,
    now: u64,
    /// The wall clock, of what it should be; in milliseconds.
    ahead: i64,
    /// The source holds the changes 1..=last.
    last: i64,
    disk: Disk,
    process: Process,
    /// Failures happen; off while things settle.
    rough: bool,
    terms: Terms,
    /// The run under way goes on with what an operator released.
    released: bool,
    /// The run under way is one of a connector on trial; then, what was journaled and held before it.
    trial: Option<(usize, Option<SyncState>)>,
    /// Runs on trial that failed.
    went_back: u64,
}

fn key() -> TypeKey {
    TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() }
}

/// Both clocks, if the wall clock never jumped.
fn at(now: u64) -> Now {
    Now { steady: Moment(now), wall: UnixMillis(1_774_000_000_000 + i64::try_from(now).unwrap()) }
}

fn tally(changes: usize) -> Tally {
    Tally { changes: changes as u64, deletes: 0 }
}

/// More changes than that in a run are looked at first.
const GUARD_CHANGES: u64 = 25;

/// Small ones, so that runs stage and spend their budgets.
fn terms() -> Terms {
    let limits = Limits {
        stage_bytes: 250,
        run_deltas_max: 20,
        uncovered_bytes_max: 2000,
        pending_bytes_max: 400,
        ..Limits::default()
    };
    Terms { limits, ..Terms::default() }
}

fn number(token: Option<&SyncToken>) -> i64 {
    match token {
        Some(SyncToken::Integer(number)) => *number,
        None => 0,
        Some(other) => panic!("the host made up a token: {other:?}"),
    }
}

fn start(disk: &Disk, now: Now) -> Process {
    let state = disk.state.clone().unwrap_or_else(|| TypeState::first(From::Latest, UnixMillis(0)));
    let mut scheduler = Scheduler::default();
    scheduler.add(Scheduled {
        key: key(),
        connector: "csv".parse().unwrap(),
        timing: Some(Timing::every(Duration::from_secs(5))),
        rank: 0,
        parallel: false,
        state,
        faults: 0,
    });
    scheduler.handle_begin(now);
    let (held, staged) = Default::default();
    Process {
        scheduler,
        run: None,
        call: None,
        held,
        reads: false,
        read_before: 0,
        writing: None,
        staged,
        stop: false,
        runs: 0,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Rng::with_seed(seed);
        let last = i64::try_from(chance.u64(..3)).unwrap() * 7;
        let disk = Disk::default();
        let process = start(&disk, at(0));
        let mut terms = terms();
        // Some have a guard, and some a source that forgets.
        if seed.is_multiple_of(3) {
            terms.guard.run.changes = Some(GUARD_CHANGES);
            terms.guard.hour.changes = seed.is_multiple_of(2).then_some(2 * GUARD_CHANGES);
        }
        if seed.is_multiple_of(5) {
            terms.on_token_lost = OnTokenLost::FromLatest;
        }
        let (ahead, released, trial, went_back) = Default::default();
        Self { chance, now: 0, ahead, last, disk, process, rough: true, terms, released, trial, went_back }
    }

    fn both(&self) -> Now {
        Now { wall: UnixMillis(at(self.now).wall.0 + self.ahead), ..at(self.now) }
    }

    /// Somebody sets the wall clock, up to ten days forward or back of what it should be.
    fn set_clock(&mut self) {
        self.ahead = self.chance.i64(-864_000_000..=864_000_000);
        self.process.scheduler.handle_clock_set(self.both());
    }

    fn wall(&self) -> UnixMillis {
        self.both().wall
    }

    fn step(&mut self) {
        match self.chance.u64(..16) {
            0 => self.last += i64::try_from(self.chance.u64(..40)).unwrap(),
            1 if self.rough && self.chance.u64(..8) == 0 => self.process = start(&self.disk, self.both()),
            2 if self.rough && self.chance.u64(..10) == 0 => self.operate(),
            3 if self.chance.u64(..4) == 0 => {
                self.process.scheduler.handle_trigger(&key(), Trigger::Api, Some(1), self.both())
            }
            3 if self.rough && self.chance.u64(..3) == 0 => self.process.scheduler.handle_read(&key(), 2),
            3 if self.rough => self.terms.on_trial |= self.chance.u64(..4) == 0,
            4..=6 => self.finish_commit(),
            7..=12 => self.work(),
            _ => self.pass_time(),
        }
        self.settle();
    }

    fn pass_time(&mut self) {
        self.now += self.chance.u64(..4000);
        if self.chance.u64(..20) == 0 {
            self.set_clock();
        }
        self.process.scheduler.handle_time(self.both());
    }

    /// Performs the effects of both machines until there are none.
    fn settle(&mut self) {
        loop {
            if let Some(effect) = self.process.scheduler.poll_effect() {
                self.schedule(effect);
            } else if let Some(effect) = self.process.run.as_mut().and_then(Run::poll_effect) {
                self.perform(effect);
            } else {
                return;
            }
        }
    }

    fn schedule(&mut self, effect: schedule::Effect) {
        let now = self.wall();
        match effect {
            schedule::Effect::Start { key, trigger, state, .. } => {
                assert!(self.process.run.is_none(), "two runs of one type");
                let stored = self.disk.state.as_ref().map(|stored| (stored.revision, &stored.sync));
                assert_eq!(
                    Some((state.revision, &state.sync)).filter(|s| s.0 > 0),
                    stored,
                    "started from a stale state"
                );
                self.process.runs += 1;
                (self.process.stop, self.process.reads) = (false, false);
                assert!(state.held.is_none(), "a held type ran");
                self.released = state.released;
                let before = self.disk.state.as_ref().map(|stored| stored.sync.clone());
                self.trial = self.terms.on_trial.then_some((self.disk.journal.len(), before));
                self.process.run = Some(Run::new(key, self.process.runs, trigger, state, self.terms.clone(), now));
            }
            schedule::Effect::Read { key, state, .. } => {
                assert!(self.process.run.is_none(), "two runs of one type");
                self.process.runs += 1;
                (self.process.stop, self.process.reads) = (false, true);
                self.process.read_before = self.disk.read.len();
                let reading = Reading { filter: Filter::All, page: None, dry_run: false };
                let order = (key, self.process.runs);
                self.process.run = Some(Run::reading(order, state, self.terms.clone(), reading, now));
            }
            schedule::Effect::Supersede(_) => {
                if let Some(run) = &mut self.process.run {
                    run.handle_superseded(now);
                }
            }
            schedule::Effect::Stop(_)
            | schedule::Effect::Answer { .. }
            | schedule::Effect::NoteFaults { .. }
            | schedule::Effect::RefuseRead { .. } => {}
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::AskLatest { .. } => self.process.call = Some(Call::Latest),
            Effect::Sync { token, .. } => self.process.call = Some(Call::Sync { from: number(token.as_ref()) }),
            Effect::Stage { batches } => {
                assert!(self.process.writing.is_none(), "two writes at once");
                self.process.writing = Some(Writing::Stage(batches));
            }
            Effect::Commit { published, batches, expected_revision: expected, state, report, .. } => {
                assert!(self.process.writing.is_none(), "two writes at once");
                let establishes = self.disk.state.as_ref().is_none_or(|before| before.sync == SyncState::New);
                let is_trial = self.trial.is_some() && !self.process.reads;
                assert!(!is_trial || establishes || report.is_some(), "journaled before the end of a trial");
                let state = Box::new(state);
                self.process.writing = Some(Writing::Commit { published, batches, expected, state });
            }
            Effect::Stop => self.process.stop = true,
            Effect::Flushed { .. } => {}
            Effect::Search(_) => {
                let from = self.chance.i64(0..=self.last);
                self.process.call = Some(Call::Search { from, to: (from + 30).min(self.last) });
            }
            Effect::Gone { .. } | Effect::Next | Effect::Forget { .. } => unreachable!("nobody asks for one"),
            Effect::Finish { report, state } => {
                let max = self.terms.guard.run.changes.filter(|_| !self.released && !self.process.reads);
                assert!(max.is_none_or(|max| report.deltas <= max), "more than the guard lets pass: {report:?}");
                if let (Outcome::WentBack(_), Some((journaled, token))) = (&report.outcome, self.trial.take()) {
                    let stays = |now: SyncState| token.is_none_or(|token| token == SyncState::New || token == now);
                    assert!(report.deltas == 0 && self.disk.journal.len() == journaled, "{report:?}");
                    assert!(self.disk.state.as_ref().is_none_or(|now| stays(now.sync.clone())), "the token moved");
                    self.terms.on_trial = false;
                    self.went_back += 1;
                }
                self.process.run = None;
                self.process.call = None;
                self.process.writing = None;
                self.process.held.clear();
                self.process.staged.clear();
                if std::mem::take(&mut self.process.reads) {
                    let journaled = self.disk.read[self.process.read_before..].iter().map(Vec::len).sum::<usize>();
                    assert_eq!(report.deltas, journaled as u64);
                    return self.process.scheduler.handle_read_over(&key(), state);
                }
                self.process.scheduler.handle_finished(&report, state, self.both());
            }
        }
    }

    fn finish_commit(&mut self) {
        let (published, batches, expected, state) = match self.process.writing.take() {
            None => return,
            Some(Writing::Stage(batches)) => return self.finish_staging(batches),
            Some(Writing::Commit { published, batches, expected, state }) => (published, batches, expected, state),
        };
        let stored = self.disk.state.as_ref().map_or(0, |state| state.revision);
        let result = if stored != expected {
            Err(CommitFailure::Conflict)
        } else if self.rough && self.chance.u64(..20) == 0 {
            Err(CommitFailure::Storage("the disk is full".into()))
        } else {
            assert_eq!(state.revision, expected + 1);
            if self.disk.state.as_ref().is_none_or(|before| before.generation != state.generation)
                || self.disk.began.is_empty()
            {
                self.disk.began.push((state.generation, number(state.sync.token())));
            }
            // The first token of a generation that began with a reset is the one that was established.
            if self.disk.state.as_ref().is_some_and(|before| before.sync == SyncState::New) {
                self.disk.began.push((state.generation, number(state.sync.token())));
            }
            let process = &mut self.process;
            let deltas = process.staged.drain(..published).chain(process.held.drain(..batches)).flatten();
            match process.reads {
                true => self.disk.read.push(deltas.collect()),
                false => self.disk.journal.extend(deltas.map(|change| (state.generation, change))),
            }
            self.disk.state = Some(*state);
            self.disk.writes += 1;
            Ok(())
        };
        let now = self.wall();
        self.process.run.as_mut().expect("a commit has its run").handle_committed(result, now);
    }

    fn finish_staging(&mut self, batches: usize) {
        let result = match self.rough && self.chance.u64(..20) == 0 {
            true => Err(CommitFailure::Full("no room".into())),
            false => {
                self.process.staged.push_back(self.process.held.drain(..batches).flatten().collect());
                Ok(())
            }
        };
        let now = self.wall();
        self.process.run.as_mut().expect("a write has its run").handle_committed(result, now);
    }

    /// The connector does something: answers, hands a batch over, fails.
    fn work(&mut self) {
        let now = self.wall();
        let Some(call) = self.process.call.take() else { return };
        let Some(run) = &mut self.process.run else { return };
        let failure = match self.chance.bool() {
            true => Failure::Trapped { code: "trap.unreachable".into(), message: "unreachable".into() },
            false => Failure::Connector(ConnectorError {
                kind: ErrorKind::ConnectionBroken,
                message: "went away".into(),
                retry_after_ms: None,
            }),
        };
        let fails = self.rough && self.chance.u64(..25) == 0;
        let forgot = Failure::Connector(ConnectorError {
            kind: ErrorKind::InvalidSyncToken,
            message: "trimmed".into(),
            retry_after_ms: None,
        });
        let forgets = self.terms.on_token_lost == OnTokenLost::FromLatest && self.chance.u64(..8) == 0;
        match call {
            Call::Latest if fails => run.handle_latest(Err(failure), now),
            Call::Latest => {
                let token = (self.last > 0).then_some(SyncToken::Integer(self.last));
                run.handle_latest(Ok(token), now);
            }
            Call::Search { .. } if fails => run.handle_searched(Err(failure), false, now),
            Call::Search { .. } if self.process.stop => run.handle_searched(Ok(()), true, now),
            Call::Search { from, to } if from >= to => run.handle_searched(Ok(()), false, now),
            Call::Search { from, to } if !run.wants_batches() => self.process.call = Some(Call::Search { from, to }),
            Call::Search { from, to } => {
                let end = (from + self.chance.i64(1..9)).min(to);
                let objects: Vec<i64> = (from + 1..=end).collect();
                let info =
                    BatchInfo { tally: tally(objects.len()), bytes: 100, checkpoint: None, ..BatchInfo::default() };
                self.process.held.push_back(objects);
                self.process.call = Some(Call::Search { from: end, to });
                run.handle_batch(info, now);
            }
            Call::Sync { .. } if fails && forgets => run.handle_returned(Err(forgot), false, now),
            Call::Sync { .. } if fails => run.handle_returned(Err(failure), false, now),
            Call::Sync { from } if from >= self.last => {
                let token = (from > 0).then_some(SyncToken::Integer(from)).filter(|_| self.chance.u64(..3) != 0);
                // Whoever hands over without a checkpoint has to return a token.
                let token = token.or_else(|| (from > 0).then_some(SyncToken::Integer(from)));
                run.handle_returned(Ok(token), false, now);
            }
            // A connector that keeps the contract hands over nothing more.
            Call::Sync { .. } if self.process.stop => run.handle_returned(Ok(None), true, now),
            Call::Sync { from } if !run.wants_batches() => self.process.call = Some(Call::Sync { from }),
            Call::Sync { from } => {
                let to = (from + 1 + i64::try_from(self.chance.u64(..9)).unwrap()).min(self.last);
                let checkpoint = (self.chance.u64(..2) == 0).then_some(SyncToken::Integer(to));
                let deltas: Vec<i64> = (from + 1..=to).collect();
                let info = BatchInfo { tally: tally(deltas.len()), bytes: 100, checkpoint, ..BatchInfo::default() };
                self.process.held.push_back(deltas);
                self.process.call = Some(Call::Sync { from: to });
                run.handle_batch(info, now);
            }
        }
    }

    /// An operator lets what the guard held pass.
    fn release(&mut self) {
        let Some(stored) = self.disk.state.clone().filter(|state| state.held.is_some()) else { return };
        let revision = stored.revision + 1;
        let state = TypeState { held: None, released: true, hour: Hour::default(), revision, ..stored };
        self.disk.state = Some(state.clone());
        self.process.scheduler.handle_state_changed(&key(), state, self.both());
    }

    /// An operator resets the token, or sets it to somewhere; what is held is thrown away by that.
    fn operate(&mut self) {
        let Some(stored) = self.disk.state.clone() else { return };
        if stored.held.is_some() && self.chance.u64(..2) == 0 {
            return self.release();
        }
        let generation = stored.generation + 1;
        let sync = if self.chance.u64(..2) == 0 {
            SyncState::New
        } else {
            let to = i64::try_from(self.chance.u64(..u64::try_from(self.last).unwrap() + 1)).unwrap();
            self.disk.began.push((generation, to));
            SyncState::Live(SyncToken::Integer(to))
        };
        let revision = stored.revision + 1;
        let state = TypeState {
            sync,
            generation,
            revision,
            held: None,
            changed_by: Actor::Uid(1000),
            why: "operator".into(),
            ..stored
        };
        self.disk.state = Some(state.clone());
        self.process.scheduler.handle_state_changed(&key(), state, self.both());
    }

    /// Nothing fails any more, and nothing new happens in the source.
    fn calm(&mut self) {
        self.rough = false;
        for _ in 0..10_000 {
            match self.chance.u64(..3) {
                0 => self.finish_commit(),
                1 => self.work(),
                _ => self.pass_time(),
            }
            self.release();
            self.settle();
        }
    }

    /// Each generation holds what came after its first token, once, in order, without a gap; the last one all of it.
    fn judge(&self) {
        for page in &self.disk.read {
            let expected: Vec<i64> = (page[0]..).take(page.len()).collect();
            assert_eq!(*page, expected, "what was read is journaled in its order");
        }
        let state = self.disk.state.as_ref().expect("something was stored");
        let generations: Vec<u64> = self.disk.began.iter().map(|(generation, _)| *generation).collect();
        for generation in generations {
            let began = self.disk.began.iter().rev().find(|(g, _)| *g == generation).unwrap().1;
            let journaled: Vec<i64> =
                self.disk.journal.iter().filter(|(g, _)| *g == generation).map(|(_, change)| *change).collect();
            let expected: Vec<i64> = (began + 1..).take(journaled.len()).collect();
            assert_eq!(journaled, expected, "generation {generation} began at {began}");
            if generation == state.generation {
                assert_eq!(began + i64::try_from(journaled.len()).unwrap(), self.last.max(began), "not all of it");
                assert_eq!(number(state.sync.token()), self.last, "the token is behind");
            }
        }
    }
}

#[test]
fn journals_each_change_once_whatever_happens() {
    static WENT_BACK: AtomicU64 = AtomicU64::new(0);
    seeds::each(|seed| {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.calm();
        world.judge();
        WENT_BACK.fetch_add(world.went_back, Ordering::Relaxed);
    });
    assert!(WENT_BACK.load(Ordering::Relaxed) > 0, "no run failed on trial");
}

#[test]
fn a_run_without_changes_writes_nothing() {
    let mut world = World::new(1);
    world.last = 5;
    world.calm();
    let writes = world.disk.writes;
    let runs = world.process.runs;
    world.calm();
    assert!(world.process.runs > runs + 10);
    assert_eq!(world.disk.writes, writes);
}

#[test]
fn triggers_during_a_run_share_one_follow_up() {
    let mut world = World::new(1);
    world.last = 5;
    world.process.scheduler.handle_time(at(0));
    world.settle();
    assert!(world.process.run.is_some());
    for waiter in 0..5 {
        world.process.scheduler.handle_trigger(&key(), Trigger::Api, Some(waiter), at(0));
    }
    world.rough = false;
    let mut answers = Vec::new();
    while answers.len() < 5 {
        world.work();
        world.finish_commit();
        while let Some(effect) = world.process.run.as_mut().and_then(Run::poll_effect) {
            world.perform(effect);
        }
        while let Some(effect) = world.process.scheduler.poll_effect() {
            match effect {
                schedule::Effect::Answer { waiter, result } => answers.push((waiter, result.unwrap().run)),
                other => world.schedule(other),
            }
        }
    }
    assert_eq!(answers, (0..5).map(|waiter| (waiter, 2)).collect::<Vec<_>>());
    assert!(world.process.run.is_none());
}

#[test]
fn a_refused_token_stays_and_nothing_runs_until_an_operator_acts() {
    let mut world = World::new(1);
    world.last = 5;
    world.calm();
    let lost = Failure::Connector(ConnectorError {
        kind: ErrorKind::InvalidSyncToken,
        message: "trimmed".into(),
        retry_after_ms: None,
    });
    while world.process.run.is_none() || world.process.call.is_none() {
        world.pass_time();
        world.settle();
    }
    world.process.run.as_mut().unwrap().handle_returned(Err(lost), false, UnixMillis(1));
    world.settle();
    world.calm();
    let state = world.disk.state.clone().unwrap();
    assert_eq!(
        state.sync,
        SyncState::TokenLost { token: Some(SyncToken::Integer(5)), reason: "trimmed".into(), by_source: true }
    );
    let runs = world.process.runs;
    world.calm();
    assert_eq!(world.process.runs, runs, "ran with a lost token");
    let reset = TypeState { sync: SyncState::New, revision: state.revision + 1, generation: 1, ..state };
    world.disk.state = Some(reset.clone());
    world.process.scheduler.handle_state_changed(&key(), reset, world.both());
    world.calm();
    assert_eq!(number(world.disk.state.as_ref().unwrap().sync.token()), 5);
}

#[test]
fn a_dry_run_writes_nothing_and_holds_no_more_than_is_held_of_any_run() {
    let reading = Reading { filter: Filter::All, page: None, dry_run: true };
    let state = TypeState::first(From::Latest, UnixMillis(0));
    let mut run = Run::reading((key(), 1), state, terms(), reading, UnixMillis(0));
    assert!(matches!(run.poll_effect(), Some(Effect::Search(_))));
    run.handle_batch(
        BatchInfo { tally: tally(3), bytes: 300, checkpoint: None, ..BatchInfo::default() },
        UnixMillis(0),
    );
    assert_eq!(run.poll_effect(), Some(Effect::Forget { batches: 1 }), "nothing is staged");
    run.handle_batch(BatchInfo { tally: tally(2), bytes: 20, checkpoint: None, ..BatchInfo::default() }, UnixMillis(0));
    assert_eq!(run.poll_effect(), None);
    run.handle_searched(Ok(()), false, UnixMillis(0));
    let Some(Effect::Finish { report, .. }) = run.poll_effect() else { panic!("it writes something") };
    assert_eq!((report.outcome, report.deltas, report.dropped), (Outcome::Ok, 0, 5));
}

#[test]
fn an_hour_that_is_over_holds_nothing_whatever_its_bound_is_now() {
    let sync = SyncState::Live(SyncToken::Integer(1));
    let hour = Hour { since: UnixMillis(0), tally: tally(50) };
    let state = TypeState { sync, hour, revision: 1, ..TypeState::first(From::Latest, UnixMillis(0)) };
    let mut terms = terms();
    terms.guard.hour.changes = Some(5);
    let outcome = |minutes: i64, changes: usize| {
        let now = UnixMillis(minutes * 60_000);
        let mut run = Run::new(key(), 1, Trigger::Command, state.clone(), terms.clone(), now);
        let checkpoint = Some(SyncToken::Integer(2));
        run.handle_batch(BatchInfo { tally: tally(changes), bytes: 10, checkpoint, ..BatchInfo::default() }, now);
        run.handle_committed(Ok(()), now);
        run.handle_returned(Ok(None), false, now);
        std::iter::from_fn(|| run.poll_effect()).find_map(|effect| match effect {
            Effect::Finish { report, .. } | Effect::Commit { report: Some(report), .. } => Some(report.outcome),
            _ => None,
        })
    };
    assert_eq!(outcome(10, 0), Some(Outcome::Ok), "nothing came");
    assert!(matches!(outcome(10, 1), Some(Outcome::Guarded(_))));
    assert_eq!(outcome(70, 5), Some(Outcome::Ok));
    assert!(matches!(outcome(70, 6), Some(Outcome::Guarded(_))));
}

#[test]
fn deltas_without_any_token_fail_the_run() {
    let state = TypeState {
        sync: SyncState::Live(SyncToken::Integer(1)),
        revision: 1,
        ..TypeState::first(From::Latest, UnixMillis(0))
    };
    let mut run = Run::new(key(), 1, Trigger::Command, state, Terms::default(), UnixMillis(0));
    assert!(matches!(run.poll_effect(), Some(Effect::Sync { .. })));
    run.handle_batch(BatchInfo { tally: tally(3), bytes: 10, checkpoint: None, ..BatchInfo::default() }, UnixMillis(0));
    run.handle_returned(Ok(None), false, UnixMillis(0));
    let Some(Effect::Commit { batches: 0, report: Some(report), .. }) = run.poll_effect() else { panic!("no commit") };
    assert_eq!((report.deltas, report.dropped, report.token_out), (0, 3, Some(SyncToken::Integer(1))));
    assert!(matches!(report.outcome, Outcome::Failed(Failure::Contract { .. })));
}
