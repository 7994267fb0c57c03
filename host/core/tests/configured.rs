//! The scheduler, while types come, change and go at any moment: everybody who waits is answered, and nothing is left over.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use tidewaiter_core::name::{ConnectionName, TypeKey};
use tidewaiter_core::run::{Outcome, RunReport, Trigger};
use tidewaiter_core::schedule::{Concurrency, Effect, Refusal, Scheduled, Scheduler, WaiterId};
use tidewaiter_core::state::{From, TypeState};
use tidewaiter_core::time::{Moment, Now, UnixMillis};
use tidewaiter_core::timing::Timing;

const CONNECTIONS: [&str; 3] = ["a", "b", "c"];
const TYPES: [&str; 3] = ["x", "y", "z"];
const CONNECTORS: [&str; 2] = ["csv", "sql"];

fn key(connection: &str, object_type: &str) -> TypeKey {
    TypeKey { connection: connection.parse().unwrap(), object_type: object_type.parse().unwrap() }
}

fn now(steady: u64) -> Now {
    Now { steady: Moment(steady), wall: UnixMillis(i64::try_from(steady).unwrap()) }
}

fn scheduled(key: TypeKey, connector: &str, seconds: Option<u64>) -> Scheduled {
    Scheduled {
        key,
        connector: connector.parse().unwrap(),
        timing: seconds.map(|seconds| Timing::every(Duration::from_secs(seconds))),
        rank: 0,
        parallel: false,
        state: TypeState::first(From::Latest, UnixMillis(0)),
        faults: 0,
    }
}

fn report(key: TypeKey, outcome: Outcome) -> RunReport {
    RunReport::of_nothing(1, key, Trigger::Schedule, UnixMillis(0), outcome)
}

#[derive(Default)]
struct World {
    scheduler: Scheduler,
    /// What runs, and whether it reads.
    running: BTreeMap<TypeKey, (TypeState, bool)>,
    stopping: BTreeSet<TypeKey>,
    waiting: BTreeSet<WaiterId>,
    started: BTreeMap<TypeKey, usize>,
}

impl World {
    fn settle(&mut self) {
        while let Some(effect) = self.scheduler.poll_effect() {
            let (key, state, reads) = match effect {
                Effect::Start { key, state, .. } => (key, state, false),
                Effect::Read { key, state, waiter } => {
                    assert!(self.waiting.remove(&waiter));
                    (key, state, true)
                }
                Effect::RefuseRead { waiter, refusal } => {
                    assert!(matches!(refusal, Refusal::Unknown(_)) && self.waiting.remove(&waiter));
                    continue;
                }
                Effect::Answer { waiter, .. } => {
                    assert!(self.waiting.remove(&waiter), "nobody is answered twice");
                    continue;
                }
                Effect::Stop(key) => {
                    assert!(self.running.contains_key(&key));
                    self.stopping.insert(key);
                    continue;
                }
                Effect::Supersede(_) | Effect::NoteFaults { .. } => continue,
            };
            *self.started.entry(key.clone()).or_default() += 1;
            assert!(self.running.insert(key.clone(), (state, reads)).is_none(), "{key} runs twice");
            assert!(self.running.keys().filter(|other| other.connection == key.connection).count() == 1);
            assert!(self.running.len() <= 2);
        }
    }

    fn finish(&mut self, key: &TypeKey, outcome: Outcome, at: u64) {
        let (state, reads) = self.running.remove(key).unwrap();
        self.stopping.remove(key);
        match reads {
            true => self.scheduler.handle_read_over(key, state),
            false => self.scheduler.handle_finished(&report(key.clone(), outcome), state, now(at)),
        }
        self.settle();
    }
}

#[test]
fn whatever_comes_changes_and_goes_everybody_is_answered_and_the_rest_runs_on() {
    for seed in 0..3_000 {
        let (mut seeded, mut at, mut last_waiter) = (Rng::with_seed(seed), 0, 0);
        let concurrency = Concurrency { total: 2, per_connector: 2 };
        let mut world = World { scheduler: Scheduler::new(concurrency), ..World::default() };
        world.scheduler.handle_begin(now(0));
        let mut configured: BTreeMap<ConnectionName, Vec<TypeKey>> = BTreeMap::new();
        for _ in 0..60 {
            at += seeded.u64(..1500);
            let connection = CONNECTIONS[seeded.usize(..3)];
            let of = key(connection, TYPES[seeded.usize(..3)]);
            match seeded.u32(..6) {
                0 => {
                    let keys: Vec<TypeKey> =
                        TYPES.iter().filter(|_| seeded.bool()).map(|name| key(connection, name)).collect();
                    let connector = CONNECTORS[seeded.usize(..2)];
                    let types = keys.iter().map(|key| {
                        scheduled(key.clone(), connector, Some(seeded.u64(1..4)).filter(|seconds| *seconds < 3))
                    });
                    let types = types.collect();
                    world.scheduler.handle_configured(&connection.parse().unwrap(), types, now(at));
                    world.settle();
                    configured.insert(connection.parse().unwrap(), keys);
                    let is_gone = |key: &&TypeKey| {
                        key.connection.as_str() == connection && !configured[&key.connection].contains(key)
                    };
                    assert!(world.running.keys().filter(is_gone).all(|key| world.stopping.contains(key)), "it is told");
                }
                1 => {
                    last_waiter += 1;
                    world.waiting.insert(last_waiter);
                    world.scheduler.handle_trigger(&of, Trigger::Command, Some(last_waiter), now(at));
                }
                2 => {
                    last_waiter += 1;
                    world.waiting.insert(last_waiter);
                    world.scheduler.handle_read(&of, last_waiter);
                }
                3 => world.scheduler.handle_time(now(at)),
                _ => {
                    let running: Vec<TypeKey> = world.running.keys().cloned().collect();
                    if !running.is_empty() {
                        world.finish(&running[seeded.usize(..running.len())], Outcome::Ok, at);
                    }
                }
            }
            world.settle();
        }
        // What waits has its turn, and then nothing is left.
        while let Some(key) = world.running.keys().next().cloned() {
            world.finish(&key, Outcome::Ok, at);
        }
        assert!(world.waiting.is_empty() && !world.scheduler.is_busy(), "seed {seed}: {:?}", world.waiting);
        // And the schedules go on, of those that are there, and of no others.
        world.started.clear();
        for _ in 0..20 {
            at += 1000;
            world.scheduler.handle_time(now(at));
            world.settle();
            while let Some(key) = world.running.keys().next().cloned() {
                world.finish(&key, Outcome::Ok, at);
            }
        }
        for key in configured.values().flatten() {
            let is_due = world.scheduler.activity(key).unwrap().1.is_some();
            assert_eq!(is_due, world.started.get(key).is_some_and(|runs| *runs >= 5), "seed {seed}: {key}");
        }
        let there: BTreeSet<&TypeKey> = configured.values().flatten().collect();
        assert!(world.started.keys().all(|key| there.contains(key)), "seed {seed}");
    }
}
