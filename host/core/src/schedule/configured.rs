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
        // Where nothing is stored yet, what is configured says where it begins.
        if slot.state.revision == 0 && scheduled.state.revision == 0 {
            slot.state = scheduled.state;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Concurrency;
    use crate::state::{From, SyncState, TypeState};
    use crate::time::{Moment, UnixMillis};

    /// A connection was told to begin at the beginning before it ever ran, and its first run began at the latest change all the same: what there was before was never
    /// told. What isn't stored follows what is configured.
    #[test]
    fn where_a_type_begins_may_be_said_until_it_ran() {
        let key = TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() };
        let from = |from: From| Scheduled {
            key: key.clone(),
            connector: "csv".parse().unwrap(),
            timing: None,
            rank: 0,
            parallel: false,
            state: TypeState::first(from, UnixMillis(0)),
            faults: 0,
        };
        let now = Now { steady: Moment(0), wall: UnixMillis(0) };
        let mut scheduler = Scheduler::new(Concurrency::default());
        scheduler.add(from(From::Latest));
        scheduler.handle_begin(now);
        scheduler.handle_configured(&key.connection, vec![from(From::Beginning)], now);
        assert_eq!(scheduler.state(&key).unwrap().sync, SyncState::Origin);
        // What is stored stays.
        let stored = TypeState { revision: 1, ..TypeState::first(From::Latest, UnixMillis(0)) };
        scheduler.handle_state_changed(&key, stored, now);
        scheduler.handle_configured(&key.connection, vec![from(From::Beginning)], now);
        assert_eq!(scheduler.state(&key).unwrap().sync, SyncState::New);
    }
}
