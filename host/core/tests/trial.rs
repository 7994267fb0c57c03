//! Runs of a connector that is on trial: nothing is journaled before they end, and nothing at all where they show that it can't do it.

#![allow(clippy::unwrap_used, reason = "a test")]

use tidewaiter_core::guard::Tally;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{
    BatchInfo, ConnectorError, Effect, ErrorKind, Failure, Filter, Outcome, Reading, Run, RunReport, Terms, Trigger,
};
use tidewaiter_core::schedule::{self, Scheduled, Scheduler};
use tidewaiter_core::state::{From, SyncState, TypeState};
use tidewaiter_core::time::{Moment, Now, UnixMillis};
use tidewaiter_core::token::SyncToken;

const NOW: UnixMillis = UnixMillis(1_774_000_000_000);

fn state() -> TypeState {
    let sync = SyncState::Live(SyncToken::Integer(1));
    TypeState { sync, revision: 7, failures: 2, ..TypeState::first(From::Latest, UnixMillis(0)) }
}

fn key() -> TypeKey {
    TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() }
}

fn terms() -> Terms {
    let limits = Limits { stage_bytes: 100, ..Limits::default() };
    Terms { limits, on_trial: true, ..Terms::default() }
}

fn batch(checkpoint: Option<i64>) -> BatchInfo {
    let tally = Tally { changes: 10, deletes: 0 };
    BatchInfo { tally, bytes: 100, checkpoint: checkpoint.map(SyncToken::Integer), ..BatchInfo::default() }
}

fn trap() -> Failure {
    Failure::Trapped { code: "trap.unreachable".into(), message: "unreachable".into() }
}

fn error(kind: ErrorKind) -> Failure {
    Failure::Connector(ConnectorError { kind, message: "no".into(), retry_after_ms: None })
}

/// What was ordered, with every write done at once: how many stagings and batches were journaled with which token, and the end.
#[derive(Debug, Default)]
struct Done {
    staged: Vec<usize>,
    journaled: Vec<(usize, usize, SyncState)>,
    flushed: bool,
    report: Option<RunReport>,
    state: Option<TypeState>,
}

fn drive(run: &mut Run, done: &mut Done) {
    while let Some(effect) = run.poll_effect() {
        match effect {
            Effect::Stage { batches } => {
                done.staged.push(batches);
                run.handle_committed(Ok(()), NOW);
            }
            Effect::Commit { published, batches, state, .. } => {
                if published + batches > 0 {
                    done.journaled.push((published, batches, state.sync));
                }
                run.handle_committed(Ok(()), NOW);
            }
            Effect::Flushed { durable } => done.flushed = durable,
            Effect::Finish { report, state } => (done.report, done.state) = (Some(report), Some(state)),
            _ => {}
        }
    }
}

fn with(batches: &[Option<i64>]) -> (Run, Done) {
    let (mut run, mut done) = (Run::new(key(), 1, Trigger::Revision, state(), terms(), NOW), Done::default());
    for checkpoint in batches {
        run.handle_batch(batch(*checkpoint), NOW);
        drive(&mut run, &mut done);
    }
    assert_eq!(done.journaled, [], "journaled before the end");
    (run, done)
}

fn live(token: i64) -> SyncState {
    SyncState::Live(SyncToken::Integer(token))
}

#[test]
fn what_fails_on_trial_leaves_everything_as_it_was() {
    for failure in [trap(), error(ErrorKind::InvalidSyncToken)] {
        let (mut run, mut done) = with(&[Some(2), None, Some(3), None]);
        run.handle_returned(Err(failure.clone()), false, NOW);
        drive(&mut run, &mut done);
        assert_eq!((done.staged.len(), done.journaled.len()), (4, 0));
        let report = done.report.unwrap();
        assert_eq!((report.outcome, report.deltas, report.dropped), (Outcome::WentBack(failure), 0, 40));
        assert_eq!(report.token_out, Some(SyncToken::Integer(1)));
        // It is recorded, and says nothing of what runs next.
        let before = state();
        let left = done.state.unwrap();
        assert_eq!((left.sync, left.failures, left.revision), (before.sync, before.failures, before.revision + 1));
    }
}

#[test]
fn what_ends_on_trial_is_journaled_whole() {
    let (mut run, mut done) = with(&[Some(2), None, Some(3), None]);
    run.handle_returned(Ok(Some(SyncToken::Integer(4))), false, NOW);
    drive(&mut run, &mut done);
    assert_eq!(done.journaled, [(4, 0, live(4))]);
    assert_eq!(done.report.unwrap().deltas, 40);
}

#[test]
fn what_the_source_interrupts_on_trial_is_kept_up_to_the_last_checkpoint() {
    // The source goes away, the budget is spent, the host shuts down: none of it is the connector's fault, and every run gets further.
    for (answer, stopped) in [(Err(error(ErrorKind::ConnectionBroken)), false), (Ok(None), true)] {
        let (mut run, mut done) = with(&[Some(2), None, Some(3), None]);
        run.handle_returned(answer, stopped, NOW);
        drive(&mut run, &mut done);
        assert_eq!(done.journaled, [(3, 0, live(3))]);
        let report = done.report.unwrap();
        assert_eq!((report.deltas, report.dropped), (30, 10));
    }
}

#[test]
fn what_the_source_forgets_is_journaled_even_on_trial() {
    let (mut run, mut done) = with(&[None, Some(3)]);
    run.handle_flush(NOW);
    drive(&mut run, &mut done);
    assert!(done.flushed);
    assert_eq!(done.journaled, [(2, 0, live(3))]);
    run.handle_batch(batch(Some(4)), NOW);
    run.handle_returned(Err(trap()), false, NOW);
    drive(&mut run, &mut done);
    assert_eq!(done.journaled.len(), 1, "and what comes after it isn't, where that fails");
    let report = done.report.unwrap();
    assert_eq!((report.deltas, report.token_out), (20, Some(SyncToken::Integer(3))));
    assert!(matches!(report.outcome, Outcome::WentBack(_)));
}

#[test]
fn a_pass_on_trial_is_journaled_whole_or_not_at_all() {
    for fails in [false, true] {
        let mut run = Run::comparing(key(), 1, Trigger::Revision, state(), terms(), NOW);
        let mut done = Done::default();
        for page in 0..3_u8 {
            run.handle_batch(batch(None), NOW);
            drive(&mut run, &mut done);
            let fails = fails && page == 2;
            run.handle_searched(if fails { Err(trap()) } else { Ok(()) }, false, NOW);
            drive(&mut run, &mut done);
            let next = Reading { filter: Filter::All, page: Some(vec![page]), dry_run: false };
            run.handle_next(Ok((page < 2).then_some(next)), NOW);
            assert_eq!(done.journaled, [], "journaled before the end");
            drive(&mut run, &mut done);
        }
        let report = done.report.unwrap();
        match fails {
            true => assert_eq!((done.journaled, report.outcome), (vec![], Outcome::WentBack(trap()))),
            false => assert_eq!(done.journaled, [(3, 0, SyncState::Compared)]),
        }
    }
}

#[test]
fn who_waits_gets_the_end_of_what_ran_before_and_nothing_is_counted() {
    let mut scheduler = Scheduler::default();
    let connector = "csv".parse().unwrap();
    let (timing, state) = (None, state());
    scheduler.add(Scheduled { key: key(), connector, timing, rank: 0, parallel: false, state, faults: 0 });
    let now = Now { steady: Moment(0), wall: NOW };
    scheduler.handle_trigger(&key(), Trigger::Command, Some(7), now);
    let begun = |scheduler: &mut Scheduler| match scheduler.poll_effect() {
        Some(schedule::Effect::Start { state, .. }) => Run::new(key(), 1, Trigger::Command, state, terms(), NOW),
        other => panic!("{other:?}"),
    };
    for (answer, outcome) in [(Err(trap()), Outcome::WentBack(trap())), (Ok(Some(SyncToken::Integer(1))), Outcome::Ok)]
    {
        let (mut run, mut done) = (begun(&mut scheduler), Done::default());
        run.handle_returned(answer, false, NOW);
        drive(&mut run, &mut done);
        let report = done.report.unwrap();
        assert_eq!(report.outcome, outcome);
        scheduler.handle_finished(&report, done.state.unwrap(), now);
    }
    let Some(schedule::Effect::Answer { waiter: 7, result }) = scheduler.poll_effect() else {
        panic!("nobody is told")
    };
    assert_eq!(result.unwrap().outcome, Outcome::Ok);
    assert_eq!(scheduler.poll_effect(), None, "no fault of the connector, and no other run");
}
