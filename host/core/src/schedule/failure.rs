//! What becomes of those that fail: when they are tried again, and what they wait for. Each kind of failure has one mechanism.

use std::collections::BTreeMap;
use std::time::Duration;

use super::turn::{Lane, Pool};
use super::{Effect, Refusal, Scheduler, Slot, WaiterId};
use crate::backoff::Backoff;
use crate::name::{ConnectionName, TypeKey};
use crate::run::{Outcome, RunReport, Trigger};
use crate::time::{Moment, Now};

/// How long a failed run waits before it is tried again, unless the connector asks for more.
pub const RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(300) };

/// So many runs of a connector in a row that trap or break the contract, whatever the connection: then it is in quarantine.
pub const QUARANTINE_FAULTS: u32 = 5;
/// How long a connector in quarantine waits for its next run.
pub const PROBE: Backoff = Backoff { min: Duration::from_secs(60), max: Duration::from_secs(3600) };

/// The longest that a connector can ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

impl Scheduler {
    /// A secret of a connection has changed: what its source refused is tried again.
    pub fn handle_secret_changed(&mut self, connection: &ConnectionName, now: Now) {
        self.release_login(connection, now);
        let keys: Vec<TypeKey> = self.slots.keys().filter(|key| key.connection == *connection).cloned().collect();
        for key in keys {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if std::mem::take(&mut slot.misconfigured) {
                self.try_again(&key, now);
            }
        }
        self.start_ready();
    }

    /// Nothing of a type is due any more: whoever asks for a run gets it.
    pub(super) fn wait_for_settings(&mut self, key: &TypeKey) {
        if let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.timing.is_some()) {
            slot.misconfigured = true;
            slot.due = None;
        }
    }

    /// Nothing of a connection is due any more: accounts get locked by those who try too often. Whoever asks for a run gets it.
    pub(super) fn hold(&mut self, connection: &ConnectionName) {
        let Some(lane) = self.lanes.get_mut(connection) else { return };
        lane.refused = true;
        for (key, slot) in self.slots.iter_mut().filter(|(key, _)| key.connection == *connection) {
            slot.due = None;
            // What goes on without a schedule would never come back.
            let comes_back = slot.timing.is_some();
            if slot.wanted.take_if(|wanted| comes_back && wanted.waiters.is_empty()).is_some() {
                lane.waiting.retain(|(_, waiting)| waiting != key);
            }
        }
    }

    /// Its schedules go on, and what failed is tried again.
    pub(super) fn release_login(&mut self, connection: &ConnectionName, now: Now) {
        let Some(lane) = self.lanes.get_mut(connection).filter(|lane| lane.refused) else { return };
        lane.refused = false;
        let keys: Vec<TypeKey> = self.slots.keys().filter(|key| key.connection == *connection).cloned().collect();
        keys.iter().for_each(|key| self.try_again(key, now));
    }

    /// Its schedule goes on, at once if its last run failed.
    fn try_again(&mut self, key: &TypeKey, now: Now) {
        self.plan(key);
        let failed = |slot: &Slot| slot.timing.is_some() && slot.state.failures > 0 && !slot.misconfigured;
        if self.slots.get(key).is_some_and(failed) && self.admits(key, now.steady) {
            self.want(key, Trigger::Retry, None, now.steady);
        }
    }

    /// Whether a run by schedule may begin. What has to wait for the end of a quarantine is due again when the next one is tried.
    pub(super) fn admits(&mut self, key: &TypeKey, now: Moment) -> bool {
        if self.quarantine(key, now).is_none() {
            return true;
        }
        let probe = self.pool(key).and_then(|pool| pool.probe).unwrap_or(now).max(now + PROBE.min);
        if let Some(slot) = self.slots.get(key)
            && slot.due.is_none_or(|due| due > probe)
        {
            self.set_due(key, Some(probe));
        }
        false
    }

    /// That a run may not begin because its connector is in quarantine, if that is so. One may, now and then: the one that this is
    /// asked for then.
    pub(super) fn quarantine(&mut self, key: &TypeKey, now: Moment) -> Option<Refusal> {
        let connector = self.lanes.get(&key.connection)?.connector.clone();
        let pool = self.pools.get_mut(&connector)?;
        let (probe, faults) = (pool.probe?, pool.faults);
        if probe <= now && pool.running == 0 {
            pool.probe = Some(now + probe_delay(faults));
            return None;
        }
        Some(Refusal::Quarantined { key: key.clone(), connector, faults })
    }

    /// A run failed on trial. It says nothing of what ran before, which runs at once, and whoever waits gets the end of that.
    pub(super) fn goes_back(&mut self, report: &RunReport, waiters: Vec<WaiterId>, now: Now) {
        self.ended(&report.key.connection);
        match self.refusal(&report.key) {
            Some(_) => self.answer(waiters, &Ok(report.clone())),
            None => {
                self.want(&report.key, Trigger::Retry, None, now.steady);
                for waiter in waiters {
                    self.want(&report.key, Trigger::Retry, Some(waiter), now.steady);
                }
            }
        }
        self.queue(&report.key.connection);
        self.start_ready();
    }

    fn pool(&self, key: &TypeKey) -> Option<&Pool> {
        self.pools.get(&self.lanes.get(&key.connection)?.connector)
    }

    /// Counts the runs of a connector that went wrong in a row: it is not the source's failure, nor that of the settings or of data.
    pub(super) fn count_fault(&mut self, report: &RunReport, now: Now) {
        let wrong = match &report.outcome {
            Outcome::Failed(failure) if failure.is_the_connectors() => true,
            Outcome::Ok | Outcome::More => false,
            _ => return,
        };
        let Some(lane) = self.lanes.get(&report.key.connection) else { return };
        let connector = lane.connector.clone();
        let Some(pool) = self.pools.get_mut(&connector) else { return };
        if !wrong && pool.faults == 0 {
            return;
        }
        pool.faults = if wrong { pool.faults.saturating_add(1) } else { 0 };
        let (faults, was_quarantined) = (pool.faults, pool.probe.is_some());
        pool.probe = (faults >= QUARANTINE_FAULTS).then_some(now.steady + probe_delay(faults));
        if !wrong && was_quarantined {
            let is_its = |lanes: &BTreeMap<ConnectionName, Lane>, key: &TypeKey| {
                lanes.get(&key.connection).is_some_and(|lane| lane.connector == connector && !lane.refused)
            };
            let keys: Vec<TypeKey> = self.slots.keys().filter(|key| is_its(&self.lanes, key)).cloned().collect();
            keys.iter().filter(|key| **key != report.key).for_each(|key| self.try_again(key, now));
        }
        self.effects.push_back(Effect::NoteFaults { connector, faults });
    }
}

/// Never less than the connector asks for.
pub(super) fn retry_delay(failures: u32, retry_after_ms: Option<u64>, chance: u64) -> Duration {
    let delay = RETRY.delay(failures, chance);
    match retry_after_ms {
        None => delay,
        Some(asked) => Duration::from_millis(asked).saturating_add(delay.min(RETRY.min)).min(RETRY_AFTER_MAX),
    }
}

/// Not at random: there is one run at a time of it.
fn probe_delay(faults: u32) -> Duration {
    PROBE.bound(faults.saturating_sub(QUARANTINE_FAULTS).saturating_add(1))
}
