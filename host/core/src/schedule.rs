//! Which run begins when, as a machine over all object types: due times, one run at a time per type and per connection,
//! and the single follow-up that any number of triggers during a run share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::name::{ConnectionName, TypeKey};
use crate::run::{Outcome, RunReport, Trigger};
use crate::state::{SyncState, TypeState};
use crate::time::Moment;

/// The first delay before a failed run is tried again.
pub const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
/// The longest delay before a failed run is tried again, unless the connector asks for more.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(300);

/// Somebody who waits for the end of a run.
pub type WaiterId = u64;

/// Why a trigger starts nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such type.
    #[error("there is no object type {0}")]
    Unknown(TypeKey),
    /// The token is lost.
    #[error("{key}: the sync token is lost ({reason}); `token set` or `token reset` it first")]
    TokenLost {
        /// Which.
        key: TypeKey,
        /// In the connector's words.
        reason: String,
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
    },
    /// Tell a run that its token was set or reset.
    Supersede(TypeKey),
    /// Tell a run to end at a checkpoint.
    Stop(TypeKey),
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

#[derive(Debug)]
struct Slot {
    every: Option<Duration>,
    state: TypeState,
    due: Option<Moment>,
    running: Option<Vec<WaiterId>>,
    /// Queued in its connection, or for after the run under way.
    wanted: Option<Wanted>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Scheduler {
    slots: BTreeMap<TypeKey, Slot>,
    /// Due times; an entry that is not its slot's current one is skipped.
    due: BinaryHeap<Reverse<(Moment, TypeKey)>>,
    /// Per connection: the type that runs, and those that wait, in order.
    lanes: BTreeMap<ConnectionName, Lane>,
    shutting_down: bool,
    effects: VecDeque<Effect>,
}

#[derive(Debug, Default)]
struct Lane {
    running: bool,
    waiting: VecDeque<TypeKey>,
}

impl Scheduler {
    /// Adds a type. With a schedule, its first run is due at once.
    pub fn add(&mut self, key: TypeKey, every: Option<Duration>, state: TypeState, now: Moment) {
        self.lanes.entry(key.connection.clone()).or_default();
        self.slots.insert(key.clone(), Slot { every, state, due: None, running: None, wanted: None });
        if every.is_some() {
            self.set_due(&key, Some(now));
        }
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

    /// Whether a run of the type is under way, and when the next one is due.
    pub fn activity(&self, key: &TypeKey) -> Option<(bool, Option<Moment>)> {
        self.slots.get(key).map(|slot| (slot.running.is_some(), slot.due))
    }

    /// Whether any run is under way.
    pub fn is_busy(&self) -> bool {
        self.slots.values().any(|slot| slot.running.is_some())
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Moment) {
        while let Some(moment) = self.next_due().filter(|moment| *moment <= now) {
            let Some(Reverse((_, key))) = self.due.pop() else { return };
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            slot.due = None;
            // What was missed while the host slept is one run, not many.
            let next = slot.every.map(|every| if moment + every > now { moment + every } else { now + every });
            let trigger = if slot.state.failures > 0 { Trigger::Retry } else { Trigger::Schedule };
            self.set_due(&key, next);
            self.want(&key, trigger, None);
        }
    }

    /// Somebody wants a run, and may wait for its end.
    pub fn handle_trigger(&mut self, key: &TypeKey, trigger: Trigger, waiter: Option<WaiterId>) {
        match self.refusal(key) {
            None => self.want(key, trigger, waiter),
            Some(refusal) => self.answer(waiter.into_iter().collect(), &Err(refusal)),
        }
    }

    /// A run is over, and left this state.
    pub fn handle_finished(&mut self, report: &RunReport, state: TypeState, now: Moment) {
        let Some(slot) = self.slots.get_mut(&report.key) else { return };
        let waiters = slot.running.take().unwrap_or_default();
        // An operator's act during the run is newer than what the run knows.
        if state.revision >= slot.state.revision {
            slot.state = state;
        }
        if let (Outcome::Failed(_), Some(_)) = (&report.outcome, slot.every) {
            let due = now + retry_delay(slot.state.failures, report.retry_after_ms());
            self.set_due(&report.key, Some(due));
        }
        self.answer(waiters, &Ok(report.clone()));
        self.lane(&report.key.connection).running = false;
        self.start_next(&report.key.connection);
    }

    /// An operator set or reset the token.
    pub fn handle_state_changed(&mut self, key: &TypeKey, state: TypeState, now: Moment) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if state.revision <= slot.state.revision {
            return;
        }
        slot.state = state;
        let scheduled = slot.every;
        if slot.running.is_some() {
            self.effects.push_back(Effect::Supersede(key.clone()));
        }
        if let Some(every) = scheduled {
            self.set_due(key, Some(now + every));
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
        self.lanes.values_mut().for_each(|lane| lane.waiting.clear());
        self.answer(waiters, &Err(Refusal::ShuttingDown));
    }

    fn refusal(&self, key: &TypeKey) -> Option<Refusal> {
        if self.shutting_down {
            return Some(Refusal::ShuttingDown);
        }
        match self.slots.get(key).map(|slot| &slot.state.sync) {
            None => Some(Refusal::Unknown(key.clone())),
            Some(SyncState::TokenLost { reason, .. }) => {
                Some(Refusal::TokenLost { key: key.clone(), reason: reason.clone() })
            }
            Some(_) => None,
        }
    }

    fn want(&mut self, key: &TypeKey, trigger: Trigger, waiter: Option<WaiterId>) {
        if self.refusal(key).is_some() {
            return;
        }
        let Some(slot) = self.slots.get_mut(key) else { return };
        match &mut slot.wanted {
            Some(wanted) => wanted.waiters.extend(waiter),
            None => {
                slot.wanted = Some(Wanted { trigger, waiters: waiter.into_iter().collect() });
                self.lane(&key.connection).waiting.push_back(key.clone());
            }
        }
        self.start_next(&key.connection);
    }

    fn start_next(&mut self, connection: &ConnectionName) {
        while !self.shutting_down && !self.lane(connection).running {
            let Some(key) = self.lane(connection).waiting.pop_front() else { return };
            let refusal = self.refusal(&key);
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let Some(wanted) = slot.wanted.take() else { continue };
            if let Some(refusal) = refusal {
                self.answer(wanted.waiters, &Err(refusal));
                continue;
            }
            slot.running = Some(wanted.waiters);
            let state = slot.state.clone();
            self.effects.push_back(Effect::Start { key, trigger: wanted.trigger, state });
            self.lane(connection).running = true;
        }
    }

    fn lane(&mut self, connection: &ConnectionName) -> &mut Lane {
        self.lanes.entry(connection.clone()).or_default()
    }

    fn set_due(&mut self, key: &TypeKey, due: Option<Moment>) {
        if self.shutting_down {
            return;
        }
        if let Some(slot) = self.slots.get_mut(key) {
            slot.due = due;
            self.due.extend(due.map(|moment| Reverse((moment, key.clone()))));
        }
    }

    fn answer(&mut self, waiters: Vec<WaiterId>, result: &Result<RunReport, Refusal>) {
        let answers = waiters.into_iter().map(|waiter| Effect::Answer { waiter, result: Box::new(result.clone()) });
        self.effects.extend(answers);
    }
}

/// Doubles with every failure in a row; never less than the connector asks for.
fn retry_delay(failures: u32, retry_after_ms: Option<u64>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let delay = RETRY_DELAY_MIN.saturating_mul(1 << doublings).min(RETRY_DELAY_MAX);
    delay.max(Duration::from_millis(retry_after_ms.unwrap_or(0)))
}
