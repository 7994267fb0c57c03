//! Whose turn it is: one run at a time per type and per connection, so many at once in all, connections in turn, and in each of
//! them live sync and reading.

use std::collections::{BTreeMap, VecDeque};

use super::{Effect, Running, Scheduler, Slot, WaiterId, Wanted};
use crate::name::{ConnectionName, ConnectorName, TypeKey};
use crate::run::Trigger;
use crate::time::Moment;

/// A connection: what runs, and what waits for its turn in it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) connector: ConnectorName,
    pub(super) parallel: bool,
    pub(super) running: usize,
    /// The source refused the login: nothing is due until a run is asked for and succeeds, or a secret changes.
    pub(super) refused: bool,
    /// By the time they were wanted, and those of the same time by rank.
    pub(super) waiting: VecDeque<(Moment, TypeKey)>,
    /// Who wants to read objects. Reading and live sync take turns.
    pub(super) reads: VecDeque<(TypeKey, WaiterId)>,
    /// The last turn was one of reading.
    pub(super) has_read: bool,
    /// It stands in its pool's queue.
    pub(super) queued: bool,
}

/// The connections of a connector that wait for a free place, first come, first served: one that wants much stands in line once,
/// like one that wants little.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) running: usize,
    /// Runs in a row that trapped or broke the contract.
    pub(super) faults: u32,
    /// In quarantine: the first run that is due from then on may begin, and shows whether it goes on.
    pub(super) probe: Option<Moment>,
    pub(super) queue: VecDeque<(u64, ConnectionName)>,
}

impl Scheduler {
    /// Puts a type in its connection's line.
    pub(super) fn want(&mut self, key: &TypeKey, trigger: Trigger, waiter: Option<WaiterId>, since: Moment) {
        if self.refusal(key).is_some() {
            return;
        }
        let Some(slot) = self.slots.get_mut(key) else { return };
        // Who waits for what a run left does not need a run that begins after now.
        if let (Trigger::Continue, Some(Running::Sync(waiters))) = (trigger, &mut slot.running) {
            waiters.extend(waiter);
            return;
        }
        if let Some(wanted) = &mut slot.wanted {
            wanted.waiters.extend(waiter);
            return;
        }
        slot.wanted = Some(Wanted { trigger, waiters: waiter.into_iter().collect() });
        let rank = slot.rank;
        let slots = &self.slots;
        let rank_of = |key: &TypeKey| slots.get(key).map_or(0, |slot| slot.rank);
        if let Some(lane) = self.lanes.get_mut(&key.connection) {
            let before = |(at, other): &(Moment, TypeKey)| (*at, rank_of(other)) <= (since, rank);
            let place = lane.waiting.iter().rposition(before).map_or(0, |place| place + 1);
            lane.waiting.insert(place, (since, key.clone()));
        }
        self.queue(&key.connection);
    }

    /// Lets a connection stand in line, if it has something that can begin.
    pub(super) fn queue(&mut self, connection: &ConnectionName) {
        let Some(lane) = self.lanes.get_mut(connection) else { return };
        let free = lane.parallel || lane.running == 0;
        if self.shutting_down || lane.queued || !free || next_turn(&self.slots, lane).is_none() {
            return;
        }
        lane.queued = true;
        self.last_ticket += 1;
        let pool = self.pools.entry(lane.connector.clone()).or_default();
        pool.queue.push_back((self.last_ticket, connection.clone()));
    }

    /// Begins runs while there are free places; whoever stands in line longest is next.
    pub(super) fn start_ready(&mut self) {
        while !self.shutting_down && self.running < self.concurrency.total {
            let max = self.concurrency.per_connector;
            let free = self.pools.values_mut().filter(|pool| pool.running < max && !pool.queue.is_empty());
            let Some(pool) = free.min_by_key(|pool| pool.queue[0].0) else { return };
            let Some((_, connection)) = pool.queue.pop_front() else { return };
            self.start_next(&connection);
            self.queue(&connection);
        }
    }

    fn start_next(&mut self, connection: &ConnectionName) {
        let Some(lane) = self.lanes.get_mut(connection) else { return };
        lane.queued = false;
        match next_turn(&self.slots, lane) {
            None => {}
            Some(Turn::Sync(place)) => self.start_sync(connection, place),
            Some(Turn::Read(place)) => self.start_read(connection, place),
        }
    }

    fn start_sync(&mut self, connection: &ConnectionName, place: usize) {
        let Some(lane) = self.lanes.get_mut(connection) else { return };
        let Some((since, key)) = lane.waiting.remove(place) else { return };
        let refusal = self.refusal(&key);
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let Some(wanted) = slot.wanted.take() else { return };
        if let Some(refusal) = refusal {
            return self.answer(wanted.waiters, &Err(refusal));
        }
        slot.running = Some(Running::Sync(wanted.waiters));
        let state = slot.state.clone();
        self.begun(connection, false);
        self.effects.push_back(Effect::Start { key, trigger: wanted.trigger, state, since });
    }

    fn start_read(&mut self, connection: &ConnectionName, place: usize) {
        let Some(lane) = self.lanes.get_mut(connection) else { return };
        let Some((key, waiter)) = lane.reads.remove(place) else { return };
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.running = Some(Running::Read);
        let state = slot.state.clone();
        self.begun(connection, true);
        self.effects.push_back(Effect::Read { key, waiter, state });
    }

    /// A run of a connection begins.
    fn begun(&mut self, connection: &ConnectionName, reads: bool) {
        self.running += 1;
        if let Some(lane) = self.lanes.get_mut(connection) {
            lane.running += 1;
            lane.has_read = reads;
            if let Some(pool) = self.pools.get_mut(&lane.connector) {
                pool.running += 1;
            }
        }
    }

    /// A run of a connection is over.
    pub(super) fn ended(&mut self, connection: &ConnectionName) {
        self.running -= 1;
        if let Some(lane) = self.lanes.get_mut(connection) {
            lane.running -= 1;
            if let Some(pool) = self.pools.get_mut(&lane.connector) {
                pool.running -= 1;
            }
        }
    }
}

/// Whose turn it is in a connection.
enum Turn {
    Sync(usize),
    Read(usize),
}

/// The first in line whose type isn't running already; of reading and live sync, the one that didn't have the last turn.
fn next_turn(slots: &BTreeMap<TypeKey, Slot>, lane: &Lane) -> Option<Turn> {
    let is_free = |key: &TypeKey| slots.get(key).is_some_and(|slot| slot.running.is_none());
    let sync = lane.waiting.iter().position(|(_, key)| is_free(key)).map(Turn::Sync);
    let read = lane.reads.iter().position(|(key, _)| is_free(key)).map(Turn::Read);
    if lane.has_read { sync.or(read) } else { read.or(sync) }
}
