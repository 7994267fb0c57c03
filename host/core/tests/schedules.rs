//! The scheduler by itself, with two clocks that a test sets: who runs when, and after whom.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{ConnectorError, ErrorKind, Failure, Outcome, RunReport, Trigger};
use tidewaiter_core::schedule::{Concurrency, Effect, QUARANTINE_FAULTS, Scheduled, Scheduler};
use tidewaiter_core::state::{From, TypeState};
use tidewaiter_core::time::{Moment, Now, UnixMillis};
use tidewaiter_core::timing::{Cron, Misfire, Timing, Weekdays, When};

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

fn key(connection: &str, object_type: &str) -> TypeKey {
    TypeKey { connection: connection.parse().unwrap(), object_type: object_type.parse().unwrap() }
}

fn scheduled(connection: &str, object_type: &str, timing: Timing) -> Scheduled {
    Scheduled {
        key: key(connection, object_type),
        connector: "csv".parse().unwrap(),
        timing: Some(timing),
        rank: 0,
        parallel: false,
        state: TypeState::first(From::Latest, UnixMillis(0)),
        faults: 0,
    }
}

fn every(seconds: u64) -> Timing {
    Timing::every(Duration::from_secs(seconds))
}

/// A scheduler and its clocks.
struct Machine {
    scheduler: Scheduler,
    steady: u64,
    /// How far the wall clock is ahead of the steady one.
    offset: i64,
    running: Vec<(TypeKey, Trigger, TypeState)>,
}

impl Machine {
    fn new(concurrency: Concurrency, types: impl IntoIterator<Item = Scheduled>) -> Self {
        let mut scheduler = Scheduler::new(concurrency);
        types.into_iter().for_each(|scheduled| scheduler.add(scheduled));
        Self { scheduler, steady: 0, offset: 0, running: Vec::new() }
    }

    fn at_wall(mut self, text: &str) -> Self {
        self.offset = text.parse::<Timestamp>().unwrap().as_millisecond();
        self
    }

    fn now(&self) -> Now {
        let steady = i64::try_from(self.steady).unwrap();
        Now { steady: Moment(self.steady), wall: UnixMillis(steady + self.offset) }
    }

    fn begin(mut self) -> Self {
        self.scheduler.handle_begin(self.now());
        self.started();
        self
    }

    /// Takes the effects, and says what has begun.
    fn started(&mut self) -> Vec<String> {
        let mut started = Vec::new();
        while let Some(effect) = self.scheduler.poll_effect() {
            if let Effect::Start { key, trigger, state, .. } = effect {
                started.push(key.to_string());
                self.running.push((key, trigger, state));
            }
        }
        started
    }

    /// Lets the machine know what time it is.
    fn tick(&mut self) -> Vec<String> {
        self.scheduler.handle_time(self.now());
        self.started()
    }

    fn report(&self, key: TypeKey, trigger: Trigger, outcome: Outcome) -> RunReport {
        RunReport::of_nothing(1, key, trigger, self.now().wall, outcome)
    }

    fn finish(&mut self, key: &str, outcome: Outcome) -> Vec<String> {
        let place = self.running.iter().position(|(running, ..)| running.to_string() == key).unwrap();
        let (key, trigger, state) = self.running.remove(place);
        let report = self.report(key, trigger, outcome);
        self.scheduler.handle_finished(&report, state, self.now());
        self.started()
    }

    /// Passes a time, runs what is due, each in no time; says when what began.
    fn run_for(&mut self, duration: u64) -> Vec<(u64, String)> {
        let end = self.steady + duration;
        let mut log = Vec::new();
        while let Some(due) = self.scheduler.next_due().filter(|due| due.0 <= end) {
            self.steady = self.steady.max(due.0);
            let mut started = self.tick();
            while let Some(key) = started.pop() {
                log.push((self.steady, key.clone()));
                started.extend(self.finish(&key, Outcome::Ok));
            }
        }
        self.steady = end;
        log
    }

    fn wall_times(&mut self, duration: u64) -> Vec<String> {
        let offset = self.offset;
        let wall = |(steady, _): (u64, String)| UnixMillis(i64::try_from(steady).unwrap() + offset).to_string();
        self.run_for(duration).into_iter().map(wall).collect()
    }
}

fn cron(text: &str, misfire: Misfire) -> Timing {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let cron = Cron::parse(text, Weekdays::Cron, zone).unwrap();
    Timing { when: When::Cron(Box::new(cron)), jitter: Duration::ZERO, misfire }
}

fn one(timing: Timing) -> Machine {
    Machine::new(Concurrency::default(), [scheduled("hr", "account", timing)])
}

#[test]
fn a_type_that_is_alone_begins_at_once_and_keeps_its_pace() {
    let times: Vec<u64> = one(every(5)).begin().run_for(20 * SECOND).into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, [0, 5000, 10_000, 15_000, 20_000]);
}

#[test]
fn many_types_begin_spread_over_their_interval() {
    let types = (0..10_000).map(|n| scheduled(&format!("c{n}"), "account", every(1)));
    let mut machine = Machine::new(Concurrency::default(), types).begin();
    let mut per_tenth = BTreeMap::<u64, u32>::new();
    for (at, _) in machine.run_for(SECOND - 1) {
        *per_tenth.entry(at / 100).or_default() += 1;
    }
    assert_eq!(per_tenth.values().sum::<u32>(), 10_000, "each once in the first second");
    assert!(per_tenth.values().all(|count| (900..1100).contains(count)), "{per_tenth:?}");
}

#[test]
fn cron_goes_by_the_wall_clock_of_its_zone_through_the_change_to_summer_time() {
    let mut machine = one(cron("0 6 * * *", Misfire::FireOnce)).at_wall("2026-03-27T12:00:00Z");
    // The state was written just now: nothing was missed.
    let state = TypeState::first(From::Latest, machine.now().wall);
    machine.scheduler.add(Scheduled { state, ..scheduled("hr", "account", cron("0 6 * * *", Misfire::FireOnce)) });
    let times = machine.begin().wall_times(72 * HOUR);
    assert_eq!(times, ["2026-03-28T05:00:00.000Z", "2026-03-29T04:00:00.000Z", "2026-03-30T04:00:00.000Z"]);
}

#[test]
fn what_was_missed_before_the_start_is_one_run_or_none() {
    let once = one(cron("0 6 * * *", Misfire::FireOnce)).at_wall("2026-03-27T12:00:00Z").begin().wall_times(HOUR);
    assert_eq!(once, ["2026-03-27T12:00:00.000Z"]);
    let none = one(cron("0 6 * * *", Misfire::Skip)).at_wall("2026-03-27T12:00:00Z").begin().wall_times(HOUR);
    assert!(none.is_empty(), "{none:?}");
}

#[test]
fn what_was_missed_while_the_machine_slept_is_one_run_or_none() {
    for (misfire, missed) in [(Misfire::FireOnce, 1), (Misfire::Skip, 0)] {
        let mut machine = one(Timing { misfire, ..every(5) }).begin();
        machine.run_for(7 * SECOND);
        machine.steady += 60 * SECOND;
        let times = machine.run_for(0);
        assert_eq!(times.len(), missed, "{misfire:?}: {times:?}");
        let after: Vec<u64> = machine.run_for(10 * SECOND).into_iter().map(|(at, _)| at).collect();
        assert_eq!(after, [70_000, 75_000], "{misfire:?}: the pace is the old one");
    }
}

#[test]
fn a_clock_that_jumps_moves_cron_and_nothing_else() {
    let mut intervals = one(every(5)).begin();
    intervals.run_for(7 * SECOND);
    intervals.offset -= 86_400_000;
    intervals.scheduler.handle_clock_set(intervals.now());
    assert_eq!(intervals.run_for(5 * SECOND), [(10_000, "hr/account".to_owned())]);

    for (misfire, missed) in [(Misfire::FireOnce, 1), (Misfire::Skip, 0)] {
        let mut machine = one(cron("0 * * * *", misfire)).at_wall("2026-03-27T12:10:00Z");
        machine.scheduler.add(Scheduled {
            state: TypeState::first(From::Latest, machine.now().wall),
            ..scheduled("hr", "account", cron("0 * * * *", misfire))
        });
        let mut machine = machine.begin();
        machine.offset += 5 * i64::try_from(HOUR).unwrap();
        machine.scheduler.handle_clock_set(machine.now());
        assert_eq!(machine.wall_times(0).len(), missed, "forward, {misfire:?}");
        assert_eq!(machine.wall_times(HOUR), ["2026-03-27T18:00:00.000Z"], "{misfire:?}");
        machine.offset -= 3 * i64::try_from(HOUR).unwrap();
        machine.scheduler.handle_clock_set(machine.now());
        assert_eq!(machine.wall_times(HOUR), ["2026-03-27T16:00:00.000Z"], "back, {misfire:?}: it goes on at once");
    }
}

#[test]
fn a_run_longer_than_the_interval_has_one_follow_up_or_none() {
    for (misfire, follow_ups) in [(Misfire::FireOnce, 1), (Misfire::Skip, 0)] {
        let mut machine = one(Timing { misfire, ..every(5) }).begin();
        assert_eq!(machine.tick(), ["hr/account"]);
        for _ in 0..4 {
            machine.steady += 5 * SECOND;
            assert!(machine.tick().is_empty());
        }
        assert_eq!(machine.finish("hr/account", Outcome::Ok).len(), follow_ups, "{misfire:?}");
    }
}

#[test]
fn a_failed_run_longer_than_the_interval_is_tried_after_its_delay() {
    let mut machine = one(every(5)).begin();
    assert_eq!(machine.tick(), ["hr/account"]);
    machine.steady += 7 * SECOND;
    assert!(machine.tick().is_empty(), "an occurrence came during the run");
    let failure = Failure::Connector(ConnectorError {
        kind: ErrorKind::RateLimited,
        message: "slowly".into(),
        retry_after_ms: Some(60_000),
    });
    assert!(machine.finish("hr/account", Outcome::Failed(failure)).is_empty(), "not at once");
    machine.steady += 30 * SECOND;
    assert!(machine.tick().is_empty(), "not before the connector's own time");
    machine.steady += 31 * SECOND;
    assert_eq!(machine.tick(), ["hr/account"]);
}

#[test]
fn a_retry_that_is_far_away_ends_with_a_success_and_is_never_further_than_a_day() {
    let mut machine = one(every(1)).begin();
    let later = |ms| {
        Outcome::Failed(Failure::Connector(ConnectorError {
            kind: ErrorKind::RateLimited,
            message: "slowly".into(),
            retry_after_ms: Some(ms),
        }))
    };
    machine.steady += SECOND;
    machine.tick();
    let key = machine.running[0].0.to_string();
    machine.finish(&key, later(u64::MAX));
    let due = machine.scheduler.next_due().unwrap().0 - machine.steady;
    assert!(due <= 24 * HOUR, "{due}");
    let (connection, object_type) = key.split_once('/').unwrap();
    let asked = self::key(connection, object_type);
    machine.scheduler.handle_trigger(&asked, Trigger::Command, Some(1), machine.now());
    machine.started();
    machine.finish(&key, Outcome::Ok);
    assert!(machine.scheduler.next_due().unwrap().0 <= machine.steady + 2 * SECOND, "its schedule goes on");
}

fn refused() -> Outcome {
    Outcome::Failed(Failure::Connector(ConnectorError {
        kind: ErrorKind::InvalidCredential,
        message: "who are you?".into(),
        retry_after_ms: None,
    }))
}

#[test]
fn a_refused_login_is_not_tried_again_until_a_secret_changes_or_somebody_succeeds() {
    let types =
        || [scheduled("hr", "account", every(1)), scheduled("hr", "group", every(1)), scheduled("crm", "x", every(1))];
    let mut machine = Machine::new(Concurrency::default(), types()).begin();
    machine.run_for(SECOND);
    machine.steady += 2 * SECOND;
    let begun = machine.tick();
    let hr = begun.iter().find(|key| key.starts_with("hr/")).unwrap().clone();
    if begun.contains(&"crm/x".to_owned()) {
        machine.finish("crm/x", Outcome::Ok);
    }
    machine.running.iter_mut().for_each(|(_, _, state)| state.failures += 1);
    assert_eq!(machine.finish(&hr, refused()), [""; 0], "the other type waits, too");
    let after = machine.run_for(100 * SECOND);
    assert!(!after.is_empty() && after.iter().all(|(_, key)| key == "crm/x"), "{after:?}");

    machine.scheduler.handle_secret_changed(&"hr".parse().unwrap(), machine.now());
    assert_eq!(machine.started(), std::slice::from_ref(&hr), "what was refused is tried at once");
    machine.finish(&hr, refused());
    assert!(machine.run_for(100 * SECOND).iter().all(|(_, key)| key == "crm/x"));

    let (connection, object_type) = hr.split_once('/').unwrap();
    let asked = key(connection, object_type);
    machine.scheduler.handle_trigger(&asked, Trigger::Command, Some(1), machine.now());
    assert_eq!(machine.started(), std::slice::from_ref(&hr), "who asks gets a run");
    machine.running.iter_mut().for_each(|(_, _, state)| state.failures = 0);
    machine.finish(&hr, Outcome::Ok);
    let after = machine.run_for(10 * SECOND);
    assert!(
        after.iter().any(|(_, key)| key == "hr/account") && after.iter().any(|(_, key)| key == "hr/group"),
        "{after:?}"
    );
}

fn answered(kind: ErrorKind) -> Outcome {
    Outcome::Failed(Failure::Connector(ConnectorError { kind, message: "no".into(), retry_after_ms: None }))
}

fn trapped() -> Outcome {
    Outcome::Failed(Failure::Trapped { code: "trap.unreachable".into(), message: "unreachable".into() })
}

/// Counts the failure, as runs do.
fn fail(machine: &mut Machine, key: &str, outcome: Outcome) -> Vec<String> {
    for (_, _, state) in machine.running.iter_mut().filter(|(running, ..)| running.to_string() == key) {
        state.failures += 1;
        state.revision += 1;
    }
    machine.finish(key, outcome)
}

#[test]
fn those_who_fail_together_do_not_come_again_together_and_each_later_and_later() {
    let types = (0..200).map(|n| Scheduled { parallel: true, ..scheduled(&format!("c{n}"), "account", every(3600)) });
    let mut machine = Machine::new(Concurrency { total: 200, per_connector: 200 }, types).begin();
    machine.steady = 3600 * SECOND;
    let started = machine.tick();
    for key in &started {
        fail(&mut machine, key, answered(ErrorKind::Retryable));
    }
    for bound in [1, 2, 4, 8] {
        let begun = machine.steady;
        let mut times = Vec::new();
        while times.len() < 200 {
            machine.steady = machine.scheduler.next_due().unwrap().0;
            // They wait for each other, so that all begin the next time at once.
            times.extend(machine.tick().into_iter().map(|_| machine.steady - begun));
        }
        assert!(times.iter().all(|time| *time <= bound * SECOND), "{bound}: {times:?}");
        let early = times.iter().filter(|time| **time <= bound * SECOND / 2).count();
        assert!((60..140).contains(&early), "{bound}: evenly spread, and not {early} in the first half");
        for _ in 0..200 {
            let key = machine.running[0].0.to_string();
            fail(&mut machine, &key, answered(ErrorKind::Retryable));
        }
    }
}

#[test]
fn wrong_settings_wait_for_somebody_and_keep_nothing_else_from_running() {
    let types = || [scheduled("hr", "account", every(1)), scheduled("hr", "group", every(1))];
    let mut machine = Machine::new(Concurrency::default(), types()).begin();
    machine.run_for(SECOND);
    while !machine.running.iter().any(|(key, ..)| key.to_string() == "hr/account") {
        machine.steady = machine.scheduler.next_due().map_or(machine.steady, |due| due.0);
        if machine.tick() == ["hr/group"] {
            machine.finish("hr/group", Outcome::Ok);
        }
    }
    if fail(&mut machine, "hr/account", answered(ErrorKind::Configuration)) == ["hr/group"] {
        machine.finish("hr/group", Outcome::Ok);
    }
    let after = machine.run_for(100 * SECOND);
    assert!(after.len() > 90 && after.iter().all(|(_, key)| key == "hr/group"), "{after:?}");
    machine.scheduler.handle_secret_changed(&"hr".parse().unwrap(), machine.now());
    assert_eq!(machine.started(), ["hr/account"], "a secret is part of it");
    fail(&mut machine, "hr/account", answered(ErrorKind::Configuration));
    machine.scheduler.handle_trigger(&key("hr", "account"), Trigger::Command, Some(1), machine.now());
    assert_eq!(machine.started(), ["hr/account"], "who asks gets a run");
    machine.running.iter_mut().for_each(|(_, _, state)| state.failures = 0);
    machine.finish("hr/account", Outcome::Ok);
    assert!(machine.run_for(5 * SECOND).iter().any(|(_, key)| key == "hr/account"));
}

#[test]
fn wrong_settings_are_not_mended_by_a_login_of_another_type() {
    let types = ["account", "group"].map(|name| Scheduled { parallel: true, ..scheduled("hr", name, every(1)) });
    let mut machine = Machine::new(Concurrency::default(), types).begin();
    machine.steady = SECOND;
    assert_eq!(machine.tick().len(), 2);
    fail(&mut machine, "hr/account", answered(ErrorKind::Configuration));
    fail(&mut machine, "hr/group", refused());
    machine.scheduler.handle_trigger(&key("hr", "group"), Trigger::Command, Some(1), machine.now());
    assert_eq!(machine.started(), ["hr/group"]);
    machine.running.iter_mut().for_each(|(_, _, state)| state.failures = 0);
    machine.finish("hr/group", Outcome::Ok);
    let after = machine.run_for(10 * SECOND);
    assert!(!after.is_empty() && after.iter().all(|(_, key)| key == "hr/group"), "{after:?}");
}

#[test]
fn a_connector_that_traps_again_and_again_is_tried_now_and_then_by_one_run() {
    let types = ["a", "b", "c"].map(|name| scheduled(name, "account", every(1)));
    let other = Scheduled { connector: "ldap".parse().unwrap(), ..scheduled("other", "account", every(1)) };
    let mut machine = Machine::new(Concurrency::default(), types.into_iter().chain([other])).begin();
    // Begins, and ends with a trap, whatever is due; says when what began.
    let runs = |machine: &mut Machine, seconds: u64, outcome: &dyn Fn(&str) -> Outcome| {
        let (end, mut log) = (machine.steady + seconds * SECOND, Vec::new());
        while let Some(due) = machine.scheduler.next_due().filter(|due| due.0 <= end) {
            machine.steady = machine.steady.max(due.0);
            let mut started = machine.tick();
            assert!(machine.running.len() <= 4);
            while let Some(key) = started.pop() {
                log.push((machine.steady, key.clone()));
                match outcome(&key) {
                    Outcome::Ok => started.extend(machine.finish(&key, Outcome::Ok)),
                    failed => started.extend(fail(machine, &key, failed)),
                }
            }
        }
        machine.steady = end;
        log
    };
    let traps = |key: &str| if key.starts_with("other") { Outcome::Ok } else { trapped() };
    let log = runs(&mut machine, 600, &traps);
    let of =
        |log: &[(u64, String)], other: bool| log.iter().filter(|(_, key)| key.starts_with("other") == other).count();
    assert!(of(&log, true) > 500, "another connector is not concerned");
    // Five runs, and those under way; then after 60, 120 and 240 seconds.
    assert!((8..=12).contains(&of(&log, false)), "{} runs", of(&log, false));
    // A failure of the source says nothing of the connector.
    let away = |key: &str| if key.starts_with("other") { Outcome::Ok } else { answered(ErrorKind::ConnectionFailed) };
    assert!(of(&runs(&mut machine, 1200, &away), false) < 6, "it stays in quarantine");
    let log = runs(&mut machine, 3600, &|_| Outcome::Ok);
    let first = log.iter().position(|(_, key)| !key.starts_with("other")).unwrap();
    let rest: BTreeSet<&str> = log[first..].iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(rest.len(), 4, "one that goes well, and all run again: {rest:?}");
    let at_once = log[first..].iter().filter(|(time, _)| *time <= log[first].0 + SECOND).map(|(_, key)| key.as_str());
    assert_eq!(at_once.collect::<BTreeSet<_>>().len(), 4, "at once");
}

#[test]
fn a_quarantine_outlives_a_restart_and_whoever_asks_gets_a_run() {
    let known = |faults| {
        Machine::new(Concurrency::default(), [Scheduled { faults, ..scheduled("a", "account", every(1)) }]).begin()
    };
    let mut machine = known(QUARANTINE_FAULTS);
    machine.steady = SECOND;
    assert_eq!(machine.tick(), ["a/account"], "the first run shows whether it goes on");
    fail(&mut machine, "a/account", trapped());
    assert_eq!(machine.run_for(59 * SECOND), [], "and no other");
    machine.scheduler.handle_trigger(&key("a", "account"), Trigger::Command, Some(1), machine.now());
    assert_eq!(machine.started(), ["a/account"]);
    fail(&mut machine, "a/account", trapped());
    // A script gets one in its turn, and nothing begins by itself because it asked.
    let asked_only = Scheduled { faults: QUARANTINE_FAULTS, timing: None, ..scheduled("a", "account", every(1)) };
    let mut machine = Machine::new(Concurrency::default(), [asked_only]).begin();
    for _ in 0..3 {
        machine.scheduler.handle_trigger(&key("a", "account"), Trigger::Api, Some(1), machine.now());
        machine.steady += SECOND;
        assert!(machine.started().len() + machine.running.len() <= 2, "one run at most");
    }
    assert_eq!(machine.running.len(), 1);
    fail(&mut machine, "a/account", trapped());
    machine.scheduler.handle_trigger(&key("a", "account"), Trigger::Api, Some(1), machine.now());
    assert_eq!((machine.started(), machine.scheduler.next_due()), (Vec::new(), None));
    let mut machine = known(QUARANTINE_FAULTS - 1);
    machine.steady = SECOND;
    machine.tick();
    fail(
        &mut machine,
        "a/account",
        Outcome::Failed(Failure::Contract { code: "data-fault".into(), message: "x".into(), uid: None }),
    );
    assert!(!machine.run_for(59 * SECOND).is_empty(), "bad data is not the connector's");
}

#[test]
fn types_of_a_tick_run_in_their_order_one_after_the_other() {
    let ranked = |name: &str, rank| Scheduled { rank, ..scheduled("hr", name, every(5)) };
    let mut machine = Machine::new(Concurrency::default(), [ranked("a", 2), ranked("b", 0), ranked("c", 1)]).begin();
    machine.steady = 5 * SECOND;
    for expected in ["hr/b", "hr/c", "hr/a"] {
        let started = if machine.running.is_empty() { machine.tick() } else { Vec::new() };
        assert!(started.is_empty() || started == ["hr/b"], "{started:?}");
        let running = machine.running[0].0.to_string();
        assert_eq!((running.as_str(), machine.running.len()), (expected, 1));
        machine.finish(expected, Outcome::Ok);
    }
    let parallel = |name: &str| Scheduled { parallel: true, ..scheduled("hr", name, every(5)) };
    let mut machine = Machine::new(Concurrency::default(), [parallel("a"), parallel("b")]).begin();
    machine.steady = 5 * SECOND;
    assert_eq!(machine.tick().len(), 2, "parallel-types");
}

#[test]
fn so_many_runs_at_once_and_no_more() {
    let of = |connector: &str, n: u32| Scheduled {
        connector: connector.parse().unwrap(),
        ..scheduled(&format!("{connector}{n}"), "account", every(5))
    };
    let types = (0..5).map(|n| of("csv", n)).chain((0..5).map(|n| of("ldap", n)));
    let mut machine = Machine::new(Concurrency { total: 4, per_connector: 3 }, types).begin();
    machine.steady = SECOND;
    machine.tick();
    let count =
        |machine: &Machine, name: &str| machine.running.iter().filter(|r| r.0.to_string().starts_with(name)).count();
    let mut seen = BTreeSet::new();
    while !machine.running.is_empty() {
        assert!(machine.running.len() <= 4 && count(&machine, "csv") <= 3 && count(&machine, "ldap") <= 3);
        let key = machine.running[0].0.to_string();
        machine.finish(&key, Outcome::Ok);
        seen.insert(key);
    }
    assert_eq!(seen.len(), 10);
}

/// A connection whose every run leaves more to do gets its turn after the others, not before.
#[test]
fn a_noisy_connection_does_not_hold_up_quiet_ones() {
    let names = ["noisy", "quiet1", "quiet2", "quiet3"];
    let types = names.map(|name| scheduled(name, "account", every(60)));
    let mut machine = Machine::new(Concurrency { total: 1, per_connector: 1 }, types).begin();
    machine.steady = 60 * SECOND;
    machine.tick();
    let mut order = Vec::new();
    for _ in 0..7 {
        let key = machine.running[0].0.to_string();
        order.push(key.trim_end_matches("/account").to_owned());
        let outcome = if key.starts_with("noisy") { Outcome::More } else { Outcome::Ok };
        machine.finish(&key, outcome);
    }
    let first = order.iter().position(|name| name == "noisy").unwrap();
    let rest: BTreeSet<&str> = order.iter().skip(first + 1).take(names.len() - 1).map(String::as_str).collect();
    assert!(order.iter().take(4).collect::<BTreeSet<_>>().len() == 4, "everyone in the first round: {order:?}");
    assert!(!rest.is_empty() && order[4..].iter().all(|name| name == "noisy"), "and then only it: {order:?}");
    assert_eq!(machine.running[0].1, Trigger::Continue);
}

#[test]
fn reading_and_live_sync_take_turns() {
    let mut machine = one(every(3600)).begin();
    let of = machine.scheduler.next_due().unwrap();
    machine.steady = of.0;
    assert_eq!(machine.tick().len(), 1);
    let key = machine.running[0].0.clone();
    let next = |machine: &mut Machine| match machine.scheduler.poll_effect() {
        Some(Effect::Start { key, trigger, state, .. }) => {
            machine.running.push((key, trigger, state));
            "sync".to_owned()
        }
        Some(Effect::Read { waiter, .. }) => format!("read {waiter}"),
        Some(Effect::RefuseRead { waiter, refusal }) => format!("no {waiter}: {refusal}"),
        other => format!("{other:?}"),
    };
    machine.scheduler.handle_read(&key, 7);
    machine.scheduler.handle_read(&key, 8);
    machine.scheduler.handle_trigger(&key, Trigger::Command, None, machine.now());
    assert_eq!(next(&mut machine), "None", "one at a time");
    // Takes no effects, unlike `finish`.
    let ends = |machine: &mut Machine| {
        let (key, trigger, state) = machine.running.remove(0);
        let report = machine.report(key, trigger, Outcome::Ok);
        machine.scheduler.handle_finished(&report, state, machine.now());
    };
    ends(&mut machine);
    assert_eq!(next(&mut machine), "read 7");
    machine.scheduler.handle_trigger(&key, Trigger::Command, None, machine.now());
    machine.scheduler.handle_read_over(&key, TypeState::first(From::Latest, UnixMillis(0)));
    assert_eq!(next(&mut machine), "sync");
    ends(&mut machine);
    assert_eq!(next(&mut machine), "read 8");
    machine.scheduler.handle_read(&self::key("hr", "nobody"), 9);
    assert_eq!(next(&mut machine), "no 9: there is no object type hr/nobody");
    machine.scheduler.handle_read(&key, 10);
    machine.scheduler.handle_shutdown();
    let said = [next(&mut machine), next(&mut machine)];
    assert!(said[0].starts_with("Some(Stop(") && said[1] == "no 10: the host is shutting down", "{said:?}");
}

#[test]
fn a_hundred_thousand_timers_are_one_heap() {
    let types = (0..100_000).map(|n| scheduled(&format!("c{n}"), "account", every(60)));
    let mut machine = Machine::new(Concurrency::default(), types).begin();
    assert_eq!(machine.run_for(60 * SECOND - 1).len(), 100_000);
    let second: BTreeSet<String> = machine.run_for(60 * SECOND).into_iter().map(|(_, key)| key).collect();
    assert_eq!(second.len(), 100_000);
}
