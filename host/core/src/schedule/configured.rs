//! Types come, change and go while runs are under way.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{Effect, Refusal, Scheduled, Scheduler};
use crate::name::{ConnectionName, ConnectorName, TypeKey};
use crate::run::Trigger;
use crate::time::Now;

impl Scheduler {
    /// A connection has these types from now on, and no others, and may have been given something else to run. What is scheduled of it runs at once, so
    /// that it is seen whether it works. Of what goes, the run under way ends at a checkpoint, and whoever waits for another one is refused.
    pub fn handle_configured(&mut self, connection: &ConnectionName, types: Vec<Scheduled>, now: Now) {
        if self.shutting_down {
            return;
        }
        let stay: BTreeSet<&TypeKey> = types.iter().map(|scheduled| &scheduled.key).collect();
        let is_gone = |key: &&TypeKey| key.connection == *connection && !stay.contains(key);
        let gone: Vec<TypeKey> = self.slots.keys().filter(is_gone).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        if let Some(first) = types.first() {
            self.reconnect(connection, &first.connector, first.parallel);
        }
        if let Some(lane) = self.lanes.get_mut(connection) {
            lane.refused = false;
        }
        for scheduled in types {
            self.configure(scheduled, now);
        }
        self.queue(connection);
        self.start_ready();
    }

    /// A type comes, or is as it was but for its schedule.
    pub(super) fn configure(&mut self, scheduled: Scheduled, now: Now) {
        let key = scheduled.key.clone();
        let Some(slot) = self.slots.get_mut(&key) else {
            let pool = self.pools.get(&scheduled.connector).map(|pool| (pool.faults, pool.probe));
            let connector = scheduled.connector.clone();
            self.add(scheduled);
            // Those who run it already know better than what was noted.
            if let (Some(known), Some(pool)) = (pool, self.pools.get_mut(&connector)) {
                (pool.faults, pool.probe) = known;
            }
            if self.has_begun {
                self.begin(&key, Duration::ZERO, now);
            }
            return;
        };
        let is_other = slot.timing != scheduled.timing || slot.gone;
        (slot.timing, slot.rank, slot.gone, slot.misconfigured) = (scheduled.timing, scheduled.rank, false, false);
        if !self.has_begun {
            return;
        }
        let is_scheduled = slot.timing.is_some();
        match is_other {
            true => self.begin(&key, Duration::ZERO, now),
            false => self.plan(&key),
        }
        if is_scheduled {
            self.want(&key, Trigger::Revision, None, now.steady);
        }
    }

    /// What a connection runs counts for this connector from now on.
    fn reconnect(&mut self, connection: &ConnectionName, connector: &ConnectorName, parallel: bool) {
        let Some(lane) = self.lanes.get_mut(connection) else { return };
        lane.parallel = parallel;
        if lane.connector == *connector {
            return;
        }
        if let Some(pool) = self.pools.get_mut(&lane.connector) {
            pool.running -= lane.running;
            pool.queue.retain(|(_, queued)| queued != connection);
        }
        (lane.connector, lane.queued) = (connector.clone(), false);
        self.pools.entry(connector.clone()).or_default().running += lane.running;
    }

    fn remove(&mut self, key: &TypeKey) {
        self.set_due(key, None);
        let Some(slot) = self.slots.get_mut(key) else { return };
        (slot.timing, slot.next, slot.gone) = (None, None, true);
        let waiters = slot.wanted.take().map(|wanted| wanted.waiters).unwrap_or_default();
        let is_running = slot.running.is_some();
        let refusal = Refusal::Unknown(key.clone());
        self.answer(waiters, &Err(refusal.clone()));
        if let Some(lane) = self.lanes.get_mut(&key.connection) {
            lane.waiting.retain(|(_, waiting)| waiting != key);
            let (readers, stay) = std::mem::take(&mut lane.reads).into_iter().partition(|(of, _)| of == key);
            lane.reads = stay;
            let readers: VecDeque<_> = readers;
            let refused =
                readers.into_iter().map(|(_, waiter)| Effect::RefuseRead { waiter, refusal: refusal.clone() });
            self.effects.extend(refused);
        }
        match is_running {
            true => self.effects.push_back(Effect::Stop(key.clone())),
            false => self.forget(key),
        }
    }

    /// The run under way of a type that is gone is over.
    pub(super) fn last_run_over(&mut self, key: &TypeKey) {
        self.ended(&key.connection);
        self.forget(key);
        self.queue(&key.connection);
        self.start_ready();
    }

    fn forget(&mut self, key: &TypeKey) {
        self.slots.remove(key);
        if self.slots.keys().all(|other| other.connection != key.connection)
            && let Some(lane) = self.lanes.remove(&key.connection)
            && let Some(pool) = self.pools.get_mut(&lane.connector)
        {
            pool.queue.retain(|(_, queued)| *queued != key.connection);
        }
    }
}
