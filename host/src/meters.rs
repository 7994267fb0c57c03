//! Counts what passes by, while it passes: runs, what leaves, logins, commits, compiling. A leaf that everything may tell something, and that knows nobody:
//! no db, no sandbox and no schedule, only the core's words and the clock. What can be read when somebody asks isn't counted here (`host/metrics.rs`).
//!
//! Series are named by what is configured and by closed lists of codes. Nothing that a guest or a server says gets into a name, so that there are never more
//! of them than `packaging/METRICS.md` says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use tidewaiter_core::name::{TypeKey, TypeName};
use tidewaiter_core::run::{Outcome, RunReport, Trigger};
use tidewaiter_core::time::UnixMillis;

use crate::clock::Clock;

/// Of runs, in seconds: most find nothing in a millisecond, and a budget ends them after minutes.
const RUN_SECONDS: [f64; 11] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 300.0, 900.0];
/// Of commits, in seconds: a flush of a good disk takes a millisecond.
const COMMIT_SECONDS: [f64; 11] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];
/// Of groups, in members.
const GROUP_MEMBERS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Of compiling, in seconds: Rust takes one, Python ten.
const COMPILE_SECONDS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Whoever has it counts. Clones count the same.
#[derive(Clone, Debug)]
pub struct Meters {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    connections: Mutex<BTreeMap<String, Arc<ConnectionMeters>>>,
    commits: Histogram,
    groups: Histogram,
    compiled: Histogram,
    not_compiled: Histogram,
    spans_dropped: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        Self::new(Clock::start())
    }
}

/// What became of something that was to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It left.
    Allowed,
    /// A rule stopped it.
    Denied,
    /// The world outside did.
    Failed,
}

/// What became of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// It was taken.
    Ok,
    /// The source refused it.
    Refused,
    /// No token came of it.
    Failed,
}

/// What a connection counts.
#[derive(Debug, Default)]
pub struct ConnectionMeters(Mutex<Counted>);

/// What was counted of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    /// By what became of it, and why.
    pub(crate) passages: BTreeMap<(&'static str, &'static str), u64>,
    pub(crate) logins: BTreeMap<&'static str, u64>,
    pub(crate) cpu_us: u64,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) abandoned_calls: u64,
    pub(crate) types: BTreeMap<TypeName, CountedOfType>,
}

/// What was counted of an object type.
#[derive(Clone, Debug)]
pub(crate) struct CountedOfType {
    /// By outcome.
    pub(crate) runs: BTreeMap<&'static str, u64>,
    pub(crate) took: Histogram,
    pub(crate) deltas: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
    /// When live sync ended well last.
    pub(crate) succeeded: Option<UnixMillis>,
    /// How long after its change in the source the last delta of a run was journaled, in milliseconds.
    pub(crate) source_lag_ms: Option<i64>,
}

impl Default for CountedOfType {
    fn default() -> Self {
        // Whoever looks for the first failure has to have seen that there was none.
        let runs = Outcome::NAMES.map(|name| (name, 0)).into();
        let (deltas, bytes, dropped, succeeded, source_lag_ms) = Default::default();
        Self { runs, took: Histogram::new(RUN_SECONDS), deltas, bytes, dropped, succeeded, source_lag_ms }
    }
}

impl Meters {
    /// None has counted anything yet.
    pub fn new(clock: Clock) -> Self {
        let inner = Inner {
            clock,
            connections: Mutex::default(),
            commits: Histogram::new(COMMIT_SECONDS),
            groups: Histogram::new(GROUP_MEMBERS),
            compiled: Histogram::new(COMPILE_SECONDS),
            not_compiled: Histogram::new(COMPILE_SECONDS),
            spans_dropped: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<String, Arc<ConnectionMeters>>> {
        self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of a connection.
    pub fn connection(&self, name: &str) -> Arc<ConnectionMeters> {
        Arc::clone(self.connections().entry(name.to_owned()).or_default())
    }

    /// Forgets the connections that are not configured any more.
    pub(crate) fn keep(&self, is_configured: impl Fn(&str) -> bool) {
        self.connections().retain(|name, _| is_configured(name));
    }

    /// What was counted of each connection that is configured. One that is about to be is counted, and not told yet.
    pub(crate) fn counted(&self, is_configured: impl Fn(&str) -> bool) -> BTreeMap<String, Counted> {
        let connections = self.connections();
        let told = connections.iter().filter(|(name, _)| is_configured(name));
        told.map(|(name, meters)| (name.clone(), meters.counted().clone())).collect()
    }

    /// How long commits took, and how many members they had.
    pub(crate) fn commits(&self) -> [&Histogram; 2] {
        [&self.inner.commits, &self.inner.groups]
    }

    /// How long compiling took where it went well, and where it didn't.
    pub(crate) fn compiling(&self) -> [&Histogram; 2] {
        [&self.inner.compiled, &self.inner.not_compiled]
    }

    /// Spans of traces went nowhere.
    pub(crate) fn spans_dropped(&self, spans: u64) {
        self.inner.spans_dropped.fetch_add(spans, Ordering::Relaxed);
    }

    /// How many did.
    pub(crate) fn dropped_spans(&self) -> u64 {
        self.inner.spans_dropped.load(Ordering::Relaxed)
    }

    /// A run is over.
    pub(crate) fn ran(&self, report: &RunReport, took: Duration) {
        self.connection(report.key.connection.as_str()).ran(report, took);
    }

    /// Live sync of a type ended well, before anything was counted.
    pub(crate) fn succeeded(&self, key: &TypeKey, at: UnixMillis) {
        let meters = self.connection(key.connection.as_str());
        meters.counted().types.entry(key.object_type.clone()).or_default().succeeded = Some(at);
    }

    /// When live sync of a type ended well last; none: not since it is counted.
    pub(crate) fn last_success(&self, key: &TypeKey) -> Option<UnixMillis> {
        self.connections().get(key.connection.as_str())?.counted().types.get(&key.object_type)?.succeeded
    }

    /// Commits a group.
    pub(crate) fn committed<T>(&self, members: usize, commit: impl FnOnce() -> T) -> T {
        let began = self.inner.clock.elapsed();
        let done = commit();
        self.inner.commits.observe((self.inner.clock.elapsed() - began).as_secs_f64());
        self.inner.groups.observe(f64::from(u32::try_from(members).unwrap_or(u32::MAX)));
        done
    }

    /// Compiles something.
    pub(crate) async fn compiled<T, E>(&self, compile: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let began = self.inner.clock.elapsed();
        let done = compile.await;
        let histogram = if done.is_ok() { &self.inner.compiled } else { &self.inner.not_compiled };
        histogram.observe((self.inner.clock.elapsed() - began).as_secs_f64());
        done
    }
}

impl ConnectionMeters {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was to leave. `code` is why it didn't, of a closed list, or `ok`.
    pub fn passage(&self, passage: Passage, code: &'static str) {
        let decision = match passage {
            Passage::Allowed => "allowed",
            Passage::Denied => "denied",
            Passage::Failed => "failed",
        };
        *self.counted().passages.entry((decision, code)).or_default() += 1;
    }

    /// A login was tried.
    pub fn login(&self, login: Login) {
        let outcome = match login {
            Login::Ok => "ok",
            Login::Refused => "refused",
            Login::Failed => "failed",
        };
        *self.counted().logins.entry(outcome).or_default() += 1;
    }

    fn ran(&self, report: &RunReport, took: Duration) {
        let mut counted = self.counted();
        let spent = &report.spent;
        counted.cpu_us += spent.cpu_us;
        counted.memory_peak_bytes = counted.memory_peak_bytes.max(spent.memory_peak_bytes);
        counted.abandoned_calls += u64::from(spent.abandoned_calls);
        let of_type = counted.types.entry(report.key.object_type.clone()).or_default();
        *of_type.runs.entry(report.outcome.name()).or_default() += 1;
        of_type.took.observe(took.as_secs_f64());
        of_type.deltas += report.deltas;
        of_type.bytes += report.bytes;
        of_type.dropped += report.dropped;
        if !matches!(report.outcome, Outcome::Ok | Outcome::More) {
            return;
        }
        if report.trigger != Trigger::Reconcile {
            of_type.succeeded = Some(report.ended);
        }
        if let Some(changed) = spent.source_time.filter(|_| report.deltas > 0) {
            of_type.source_lag_ms = Some(report.ended.0.saturating_sub(changed.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewaiter_core::run::Failure;

    use super::*;

    fn report(trigger: Trigger, at: i64, outcome: Outcome) -> RunReport {
        let key = TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() };
        RunReport::of_nothing(1, key, trigger, UnixMillis(at), outcome)
    }

    #[test]
    fn only_live_sync_that_ends_well_is_a_success() {
        let meters = Meters::default();
        let of_type = || meters.counted(|_| true)["hr"].types[&"account".parse().unwrap()].clone();
        meters.ran(&report(Trigger::Schedule, 1000, Outcome::Ok), Duration::ZERO);
        for (trigger, outcome) in [
            (Trigger::Schedule, Outcome::Failed(Failure::Host { message: String::new() })),
            (Trigger::Reconcile, Outcome::Ok),
            (Trigger::Schedule, Outcome::Superseded),
        ] {
            meters.ran(&report(trigger, 2000, outcome), Duration::ZERO);
            assert_eq!(of_type().succeeded, Some(UnixMillis(1000)));
        }
        meters.ran(&report(Trigger::Continue, 3000, Outcome::More), Duration::ZERO);
        let of_type = of_type();
        assert_eq!(of_type.succeeded, Some(UnixMillis(3000)));
        assert_eq!(
            (of_type.runs["ok"], of_type.runs["failed"], of_type.runs["more"], of_type.runs["held"]),
            (2, 1, 1, 0)
        );
        assert_eq!(of_type.runs.len(), Outcome::NAMES.len(), "each outcome has its name among all names");
    }

    #[test]
    fn the_lag_behind_the_source_is_that_of_the_last_run_that_journaled_something_with_a_time() {
        let meters = Meters::default();
        let lag = || meters.counted(|_| true)["hr"].types[&"account".parse().unwrap()].source_lag_ms;
        let with = |deltas, source_time: Option<i64>, outcome| {
            let mut report = report(Trigger::Schedule, 10_000, outcome);
            (report.deltas, report.spent.source_time) = (deltas, source_time.map(UnixMillis));
            meters.ran(&report, Duration::ZERO);
        };
        with(1, None, Outcome::Ok);
        assert_eq!(lag(), None);
        with(1, Some(4000), Outcome::Ok);
        with(0, Some(9000), Outcome::Ok);
        with(1, Some(9000), Outcome::Stopped);
        with(1, None, Outcome::Ok);
        assert_eq!(lag(), Some(6000));
    }

    #[test]
    fn what_is_not_configured_any_more_is_forgotten() {
        let meters = Meters::default();
        for name in ["hr", "crm"] {
            meters.connection(name).login(Login::Ok);
        }
        assert_eq!(meters.counted(|name| name == "crm").into_keys().collect::<Vec<_>>(), ["crm"]);
        meters.keep(|name| name == "hr");
        assert_eq!(meters.counted(|_| true).into_keys().collect::<Vec<_>>(), ["hr"]);
    }
}
