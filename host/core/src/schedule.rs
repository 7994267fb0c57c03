//! Which run begins when, as a machine over all object types: due times, one run at a time per type and per connection, so many
//! at once in all, connections in turn, and the single follow-up that any number of triggers during a run share.

mod configured;
mod failure;
mod turn;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use self::failure::retry_delay;
pub use self::failure::{PROBE, QUARANTINE_FAULTS, RETRY, RETRY_AFTER_MAX};
use self::turn::{Lane, Pool};
use crate::name::{ConnectionName, ConnectorName, TypeKey};
use crate::run::{Outcome, RunReport, Trigger};
use crate::state::{SyncState, TypeState};
use crate::time::{Moment, Now, UnixMillis};
use crate::timing::{Misfire, Timing, When, hash, part};

/// First runs by interval are spread over this much time for each type, and over no more than the interval.
const STAGGER: Duration = Duration::from_millis(5);

/// How many runs there may be at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Of all connectors.
    pub total: usize,
    /// Of one connector.
    pub per_connector: usize,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { total: 64, per_connector: 32 }
    }
}

/// A type, as the scheduler gets to know it.
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// Which.
    pub key: TypeKey,
    /// What its runs run.
    pub connector: ConnectorName,
    /// Its schedule; none: only when asked.
    pub timing: Option<Timing>,
    /// Its place among the types of its connection that are due together.
    pub rank: usize,
    /// The types of its connection may run at the same time.
    pub parallel: bool,
    /// Its state.
    pub state: TypeState,
    /// Runs of its connector that went wrong in a row.
    pub faults: u32,
}

/// Somebody who waits for the end of a run.
pub type WaiterId = u64;

/// Why a trigger starts nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such type.
    #[error("there is no object type {0}")]
    Unknown(TypeKey),
    /// The token is lost.
    #[error("{key}: the sync token is lost ({reason}); `token set`, `token rewind` or `token reset` it first")]
    TokenLost {
        /// Which.
        key: TypeKey,
        /// In the connector's words.
        reason: String,
    },
    /// More came than the guard lets pass.
    #[error("{key} is held: {why}; look at what came, then `guard release` or `guard discard` it")]
    Held {
        /// Which.
        key: TypeKey,
        /// What is too much.
        why: String,
    },
    /// An operator paused it.
    #[error("{key} is paused {why}; resume it first")]
    Paused {
        /// Which.
        key: TypeKey,
        /// By whom, and when.
        why: String,
    },
    /// Its connector is in quarantine.
    #[error(
        "{key}: connector {connector} is in quarantine: {faults} runs in a row trapped or broke the contract; one is tried now and then"
    )]
    Quarantined {
        /// Which.
        key: TypeKey,
        /// What runs it.
        connector: ConnectorName,
        /// How many.
        faults: u32,
    },
    /// The host shuts down.
    #[error("the host is shutting down")]
    ShuttingDown,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Begin a run.
    Start {
        /// Of this type.
        key: TypeKey,
        /// Because of this.
        trigger: Trigger,
        /// From this state.
        state: TypeState,
        /// Since when it has been due or asked for.
        since: Moment,
    },
    /// Somebody's turn to read objects of a type has come; nothing else runs of it until that is over.
    Read {
        /// Of this type.
        key: TypeKey,
        /// Whose.
        waiter: WaiterId,
        /// From this state.
        state: TypeState,
    },
    /// Refuse somebody who wants to read.
    RefuseRead {
        /// Whom.
        waiter: WaiterId,
        /// Why.
        refusal: Refusal,
    },
    /// Tell a run that its token was set or reset.
    Supersede(TypeKey),
    /// Tell a run to end at a checkpoint.
    Stop(TypeKey),
    /// Note how many runs of a connector went wrong in a row.
    NoteFaults {
        /// Of which connector.
        connector: ConnectorName,
        /// How many; 0: the last one was fine.
        faults: u32,
    },
    /// Tell a waiter how its run ended.
    Answer {
        /// Who.
        waiter: WaiterId,
        /// How.
        result: Box<Result<RunReport, Refusal>>,
    },
}

/// A run that is wanted.
#[derive(Debug)]
struct Wanted {
    trigger: Trigger,
    waiters: Vec<WaiterId>,
}

/// An occurrence of a schedule, by both clocks.
#[derive(Clone, Copy, Debug)]
struct Occurrence {
    steady: Moment,
    wall: UnixMillis,
}

/// What runs of a type.
#[derive(Debug)]
enum Running {
    /// Live sync, and who waits for its end.
    Sync(Vec<WaiterId>),
    /// Somebody reads objects.
    Read,
}

#[derive(Debug)]
struct Slot {
    timing: Option<Timing>,
    rank: usize,
    state: TypeState,
    /// The next occurrence of the schedule.
    next: Option<Occurrence>,
    /// When the next run begins: the occurrence and its jitter, or an earlier or later try after a failure.
    due: Option<Moment>,
    running: Option<Running>,
    /// Queued in its connection, or for after the run under way.
    wanted: Option<Wanted>,
    /// Its settings are wrong: nothing is due until a run is asked for and succeeds, or a secret changes.
    misconfigured: bool,
    /// There is no such type any more; only its last run is under way.
    gone: bool,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Scheduler {
    concurrency: Concurrency,
    slots: BTreeMap<TypeKey, Slot>,
    /// Due times; an entry that is not its slot's current one is skipped.
    due: BinaryHeap<Reverse<(Moment, TypeKey)>>,
    lanes: BTreeMap<ConnectionName, Lane>,
    pools: BTreeMap<ConnectorName, Pool>,
    running: usize,
    last_ticket: u64,
    has_begun: bool,
    shutting_down: bool,
    effects: VecDeque<Effect>,
}

impl Scheduler {
    /// Runs at most that many at once.
    pub fn new(concurrency: Concurrency) -> Self {
        Self { concurrency, ..Self::default() }
    }

    /// Adds a type. Nothing is due before `handle_begin`.
    pub fn add(&mut self, scheduled: Scheduled) {
        let Scheduled { key, connector, timing, rank, parallel, state, faults } = scheduled;
        let pool = self.pools.entry(connector.clone()).or_default();
        pool.faults = faults;
        pool.probe = (faults >= QUARANTINE_FAULTS).then_some(Moment(0));
        let (waiting, reads) = Default::default();
        let (running, refused, has_read, queued) = (0, false, false, false);
        let lane = || Lane { connector, parallel, running, refused, waiting, reads, has_read, queued };
        self.lanes.entry(key.connection.clone()).or_insert_with(lane);
        let (next, due, running, wanted, misconfigured, gone) = Default::default();
        self.slots.insert(key, Slot { timing, rank, state, next, due, running, wanted, misconfigured, gone });
    }

    /// Connections run another revision of their connector, and some can run only now. What is scheduled of them runs at once, so that it is seen
    /// whether it works; what their connector did wrong before is forgotten.
    pub fn handle_placed(&mut self, connections: &[ConnectionName], new: Vec<Scheduled>, now: Now) {
        let added: Vec<TypeKey> = new.iter().map(|scheduled| scheduled.key.clone()).collect();
        new.into_iter().for_each(|scheduled| self.configure(scheduled, now));
        for connection in connections {
            if let Some(pool) = self.lanes.get(connection).and_then(|lane| self.pools.get_mut(&lane.connector)) {
                (pool.faults, pool.probe) = (0, None);
            }
        }
        if !self.has_begun || self.shutting_down {
            return;
        }
        let is_placed = |key: &&TypeKey| connections.contains(&key.connection) && !added.contains(key);
        let keys: Vec<TypeKey> = self.slots.keys().filter(is_placed).cloned().collect();
        for key in keys {
            let is_held = self.lanes.get(&key.connection).is_some_and(|lane| lane.refused);
            let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.timing.is_some() && !is_held) else {
                continue;
            };
            slot.misconfigured = false;
            self.plan(&key);
            self.want(&key, Trigger::Revision, None, now.steady);
        }
        self.start_ready();
    }

    /// The schedules begin. By interval, the first run is due at once, or a little later where there are many types; by cron, at
    /// the next occurrence, or at once where one came since the state was written and nothing says that it is to be skipped.
    pub fn handle_begin(&mut self, now: Now) {
        let spread = STAGGER.saturating_mul(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX));
        self.has_begun = true;
        let keys: Vec<TypeKey> = self.slots.keys().cloned().collect();
        keys.iter().for_each(|key| self.begin(key, spread, now));
    }

    fn begin(&mut self, key: &TypeKey, spread: Duration, now: Now) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.next = match slot.timing.as_ref().map(|timing| (&timing.when, timing.misfire)) {
            None => None,
            Some((When::Every(interval), _)) => {
                let spread = u64::try_from(spread.min(*interval).as_millis()).unwrap_or(u64::MAX);
                // By connection, so that its types keep their order.
                let first = Duration::from_millis(part(&key.connection, spread));
                Some(Occurrence { steady: now.steady + first, wall: now.wall })
            }
            Some((When::Cron(cron), misfire)) => {
                let since = if misfire == Misfire::Skip { now.wall } else { slot.state.changed_at.min(now.wall) };
                cron.next(since).map(|wall| Occurrence { steady: now.until(wall), wall })
            }
        };
        self.plan(key);
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When `handle_time` is to be called next.
    pub fn next_due(&mut self) -> Option<Moment> {
        while let Some(Reverse((moment, key))) = self.due.peek() {
            if self.slots.get(key).is_some_and(|slot| slot.due == Some(*moment)) {
                return Some(*moment);
            }
            self.due.pop();
        }
        None
    }

    /// The state of a type, as far as it is known here.
    pub fn state(&self, key: &TypeKey) -> Option<&TypeState> {
        self.slots.get(key).map(|slot| &slot.state)
    }

    /// The types that there are.
    pub fn keys(&self) -> impl Iterator<Item = &TypeKey> {
        self.slots.keys()
    }

    /// Whether a run of the type is under way, and when the next one is due.
    pub fn activity(&self, key: &TypeKey) -> Option<(bool, Option<Moment>)> {
        self.slots.get(key).map(|slot| (slot.running.is_some(), slot.due))
    }

    /// Whether any run is under way.
    pub fn is_busy(&self) -> bool {
        self.running > 0
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Now) {
        while let Some(moment) = self.next_due().filter(|moment| *moment <= now.steady) {
            let Some(Reverse((_, key))) = self.due.pop() else { return };
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            slot.due = None;
            let retry = slot.state.failures > 0;
            let runs = slot.occur(now) || retry;
            self.plan(&key);
            if runs && self.admits(&key, now.steady) {
                self.want(&key, if retry { Trigger::Retry } else { Trigger::Schedule }, None, moment);
            }
        }
        self.start_ready();
    }

    /// The wall clock was set: what goes by it is due at other moments.
    pub fn handle_clock_set(&mut self, now: Now) {
        let held = |key: &TypeKey| self.lanes.get(&key.connection).is_some_and(|lane| lane.refused);
        let keys: Vec<TypeKey> = self.slots.keys().filter(|key| !held(key)).cloned().collect();
        for key in keys {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let Some(When::Cron(cron)) = slot.timing.as_ref().map(|timing| &timing.when) else { continue };
            let Some(next) = slot.next else { continue };
            let wall = if next.wall <= now.wall { Some(next.wall) } else { cron.next(now.wall) };
            slot.next = wall.map(|wall| Occurrence { steady: now.until(wall), wall });
            // A retry is due by the steady clock, and comes first.
            if slot.state.failures == 0 || slot.running.is_some() {
                self.plan(&key);
            }
        }
    }

    /// Somebody wants a run, and may wait for its end.
    pub fn handle_trigger(&mut self, key: &TypeKey, trigger: Trigger, waiter: Option<WaiterId>, now: Now) {
        let refusal = self.refusal(key).or_else(|| match trigger {
            // Scripts ask by schedules of their own.
            Trigger::Api => self.quarantine(key, now.steady),
            _ => None,
        });
        match refusal {
            None => self.want(key, trigger, waiter, now.steady),
            Some(refusal) => self.answer(waiter.into_iter().collect(), &Err(refusal)),
        }
        self.start_ready();
    }

    /// A run is over, and left this state.
    pub fn handle_finished(&mut self, report: &RunReport, state: TypeState, now: Now) {
        let Some(slot) = self.slots.get_mut(&report.key) else { return };
        let Some(Running::Sync(waiters)) = slot.running.take() else { return };
        // An operator's act during the run is newer than what the run knows.
        if state.revision >= slot.state.revision {
            slot.state = state;
        }
        if slot.gone {
            self.answer(waiters, &Ok(report.clone()));
            return self.last_run_over(&report.key);
        }
        if let Outcome::WentBack(_) = &report.outcome {
            return self.goes_back(report, waiters, now);
        }
        if let (Outcome::Failed(_), Some(_)) = (&report.outcome, &slot.timing) {
            let chance = hash(&(&report.key, slot.state.failures, now.wall.0));
            let due = now.steady + retry_delay(slot.state.failures, report.retry_after_ms(), chance);
            // An occurrence that came meanwhile waits as long as the retry does.
            if slot.wanted.take_if(|wanted| wanted.waiters.is_empty()).is_some()
                && let Some(lane) = self.lanes.get_mut(&report.key.connection)
            {
                lane.waiting.retain(|(_, key)| *key != report.key);
            }
            self.set_due(&report.key, Some(due));
        }
        match &report.outcome {
            outcome if outcome.is_refused_login() => self.hold(&report.key.connection),
            outcome if outcome.is_misconfigured() => self.wait_for_settings(&report.key),
            Outcome::Ok | Outcome::More => {
                if let Some(slot) = self.slots.get_mut(&report.key) {
                    slot.misconfigured = false;
                }
                // A retry that was far away has no reason any more.
                self.plan(&report.key);
                self.release_login(&report.key.connection, now);
            }
            _ => {}
        }
        self.count_fault(report, now);
        self.answer(waiters, &Ok(report.clone()));
        self.ended(&report.key.connection);
        if report.outcome == Outcome::More {
            self.want(&report.key, Trigger::Continue, None, now.steady);
        }
        self.queue(&report.key.connection);
        self.start_ready();
    }

    /// Somebody wants to read objects of a type.
    pub fn handle_read(&mut self, key: &TypeKey, waiter: WaiterId) {
        let refusal = match self.refusal(key) {
            Some(refusal @ (Refusal::Unknown(_) | Refusal::ShuttingDown)) => Some(refusal),
            // Live sync has to wait for somebody. What there is can be read.
            _ => None,
        };
        if let Some(refusal) = refusal {
            return self.effects.push_back(Effect::RefuseRead { waiter, refusal });
        }
        if let Some(lane) = self.lanes.get_mut(&key.connection) {
            lane.reads.push_back((key.clone(), waiter));
        }
        self.queue(&key.connection);
        self.start_ready();
    }

    /// What somebody read is over, and left this state.
    pub fn handle_read_over(&mut self, key: &TypeKey, state: TypeState) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(Running::Read) = slot.running.take_if(|running| matches!(running, Running::Read)) else { return };
        if state.revision >= slot.state.revision {
            slot.state = state;
        }
        if slot.gone {
            return self.last_run_over(key);
        }
        self.ended(&key.connection);
        self.queue(&key.connection);
        self.start_ready();
    }

    /// An operator set or reset the token.
    pub fn handle_state_changed(&mut self, key: &TypeKey, state: TypeState, now: Now) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if state.revision <= slot.state.revision {
            return;
        }
        slot.state = state;
        if slot.running.is_some() {
            self.effects.push_back(Effect::Supersede(key.clone()));
        }
        // The next regular occurrence is soon enough; a retry that was far away has no reason any more.
        let regular = slot.next.is_some_and(|next| next.steady > now.steady);
        let retry = slot.due.is_some_and(|due| due > now.steady + RETRY.max);
        if regular || retry {
            self.plan(key);
        }
    }

    /// The host shuts down: runs end at a checkpoint, nothing new begins.
    pub fn handle_shutdown(&mut self) {
        self.shutting_down = true;
        self.due.clear();
        let running = self.slots.iter().filter(|(_, slot)| slot.running.is_some());
        self.effects.extend(running.map(|(key, _)| Effect::Stop(key.clone())));
        let wanted = self.slots.values_mut().filter_map(|slot| {
            slot.due = None;
            slot.wanted.take()
        });
        let waiters: Vec<WaiterId> = wanted.flat_map(|wanted| wanted.waiters).collect();
        let lanes = self.lanes.values_mut();
        let reads = lanes.flat_map(|lane| {
            lane.waiting.clear();
            std::mem::take(&mut lane.reads)
        });
        let refusal = Refusal::ShuttingDown;
        self.effects.extend(reads.map(|(_, waiter)| Effect::RefuseRead { waiter, refusal: refusal.clone() }));
        self.answer(waiters, &Err(Refusal::ShuttingDown));
    }

    fn refusal(&self, key: &TypeKey) -> Option<Refusal> {
        if self.shutting_down {
            return Some(Refusal::ShuttingDown);
        }
        match self.slots.get(key).filter(|slot| !slot.gone).map(|slot| &slot.state.sync) {
            None => Some(Refusal::Unknown(key.clone())),
            Some(SyncState::TokenLost { reason, .. }) => {
                Some(Refusal::TokenLost { key: key.clone(), reason: reason.clone() })
            }
            Some(_) => {
                let state = &self.slots.get(key)?.state;
                let paused = state.paused.clone().map(|why| Refusal::Paused { key: key.clone(), why });
                state.held.clone().map(|why| Refusal::Held { key: key.clone(), why }).or(paused)
            }
        }
    }

    /// The next run begins with the next occurrence, and its jitter.
    fn plan(&mut self, key: &TypeKey) {
        let Some(slot) = self.slots.get(key) else { return };
        let jitter = |next: &Occurrence| {
            slot.timing.as_ref().map_or(Duration::ZERO, |timing| timing.delay(&key.connection, next.steady.0))
        };
        let due = slot.next.filter(|_| !slot.misconfigured).map(|next| next.steady + jitter(&next));
        self.set_due(key, due);
    }

    fn set_due(&mut self, key: &TypeKey, due: Option<Moment>) {
        if self.shutting_down {
            return;
        }
        if let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.due != due) {
            slot.due = due;
            self.due.extend(due.map(|moment| Reverse((moment, key.clone()))));
        }
    }

    fn answer(&mut self, waiters: Vec<WaiterId>, result: &Result<RunReport, Refusal>) {
        let answers = waiters.into_iter().map(|waiter| Effect::Answer { waiter, result: Box::new(result.clone()) });
        self.effects.extend(answers);
    }
}

impl Slot {
    /// Goes past every occurrence that has come. Answers whether they make a run.
    fn occur(&mut self, now: Now) -> bool {
        let (Some(timing), Some(mut next)) = (&self.timing, self.next) else { return false };
        let mut passed = 0_u64;
        let mut more = true;
        match &timing.when {
            When::Every(interval) => {
                let behind = now.steady.0.checked_sub(next.steady.0);
                let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
                passed = behind.map_or(0, |behind| behind / millis + 1);
                next.steady = Moment(next.steady.0.saturating_add(passed.saturating_mul(millis)));
            }
            When::Cron(cron) if next.steady <= now.steady => {
                passed = 1;
                let following = cron.next(next.wall);
                passed += u64::from(following.is_some_and(|wall| wall <= now.wall));
                match if passed == 1 { following } else { cron.next(now.wall) } {
                    Some(wall) => next = Occurrence { steady: now.until(wall), wall },
                    None => more = false,
                }
            }
            When::Cron(_) => {}
        }
        self.next = Some(next).filter(|_| more);
        match timing.misfire {
            Misfire::FireOnce => passed > 0,
            Misfire::Skip => passed == 1 && self.running.is_none(),
        }
    }
}
