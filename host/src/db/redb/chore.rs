//! What is done alone, in a transaction of its own: dropping what everyone has, and replacing an entry by a tombstone.

use std::collections::BTreeMap;

use redb::{Database, ReadableTable};
use tidewaiter_core::journal::Body;
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::run::RunReport;
use tidewaiter_core::state::Actor;
use tidewaiter_core::time::UnixMillis;

use super::write::{Tables, end};
use super::{Fault, read_consumers, read_counters, read_number, read_sinks, read_states, read_usage, rekey, shadow};
use crate::db::retain::{Candidate, Judge, Policy, Retained};
use crate::db::seal::{Keys, Kind};
use crate::db::segment::Unpacked;
use crate::db::shadow::Shadow;
use crate::db::store::{Chore, Done, ReadError};
use crate::db::tables::{BYTES, FIRST_SEQUENCE, row, state_key};

/// Segments that go in one transaction; others get their turn in between.
const SEGMENTS_AT_ONCE: usize = 1024;

pub(super) fn perform(db: &Database, chore: &Chore, keys: &Keys) -> Result<Done, Fault> {
    match chore {
        Chore::Retain { policy, room, now } => Ok(Done::Retained(retain(db, policy, *room, *now, keys)?)),
        Chore::Discard { staged } => {
            let txn = db.begin_write()?;
            let numbers: Vec<u64> = staged.iter().map(|segment| segment.number).collect();
            let dropped = Tables::open(&txn, keys)?.discard(&numbers)?;
            end(txn, dropped > 0)?;
            Ok(Done::Nothing)
        }
        Chore::Erase { sequence, by, at } => {
            erase(db, *sequence, by, *at, keys)?;
            Ok(Done::Nothing)
        }
        Chore::Forget { connection, uid } => {
            forget(db, connection, uid, keys)?;
            Ok(Done::Nothing)
        }
        Chore::Shadow(chore) => {
            shadow::perform(db, chore, keys)?;
            Ok(Done::Nothing)
        }
        Chore::Rekey { from } => Ok(Done::Rekeyed(rekey::rekey(db, *from, keys)?)),
    }
}

fn retain(db: &Database, policy: &Policy, room: u64, now: UnixMillis, keys: &Keys) -> Result<Retained, Fault> {
    let txn = db.begin_write()?;
    let mut retained = Retained::default();
    {
        let mut tables = Tables::open(&txn, keys)?;
        let last = read_counters(&tables.meta)?.sequence;
        let mut consumers = read_consumers(&tables.consumers)?;
        for (name, consumer) in consumers.iter_mut().filter(|(_, consumer)| consumer.is_late(last)) {
            consumer.expired = Some(now);
            tables.consumers.insert(name.as_str(), row(consumer)?.as_slice())?;
            retained.expired.push(name.clone());
        }
        let sinks = read_sinks(&tables.sinks)?;
        let shadows = shadow::read_all(&tables.shadows, keys)?;
        let shadowed = shadows.values().map(Shadow::position).min();
        let mut judge =
            Judge::new(policy, &sinks, &consumers, shadowed, read_usage(&tables.meta, &tables.usage)?, room, now);
        tables.drop_front(&mut judge, &mut retained)?;
    }
    end(txn, retained.entries > 0 || !retained.expired.is_empty())?;
    Ok(retained)
}

impl Tables<'_> {
    fn drop_front(&mut self, judge: &mut Judge, retained: &mut Retained) -> Result<(), Fault> {
        let mut freed: BTreeMap<String, u64> = BTreeMap::new();
        let mut gone = Vec::new();
        for entry in self.index.iter()? {
            let (first, segment) = entry?;
            let (number, count, bytes, at, connection) = segment.value();
            let next = first.value() + u64::from(count);
            let candidate = Candidate { last: next - 1, connection, bytes, at: UnixMillis(at) };
            retained.more = gone.len() == SEGMENTS_AT_ONCE;
            if retained.more || !judge.drops(candidate) {
                break;
            }
            gone.push((first.value(), number, next));
            retained.entries += u64::from(count);
            retained.bytes += bytes;
            *freed.entry(connection.to_owned()).or_default() += bytes;
        }
        for (first, number, next) in gone {
            self.index.remove(first)?;
            self.segments.remove(number)?;
            self.meta.insert(FIRST_SEQUENCE, next)?;
        }
        for (connection, bytes) in freed {
            self.free(&connection, bytes)?;
        }
        Ok(())
    }

    /// Puts other content where a segment is, with as many entries.
    pub(super) fn replace(
        &mut self,
        first: u64,
        (number, count, before, at, connection): (u64, u32, u64, i64, &str),
        content: Vec<u8>,
    ) -> Result<(), Fault> {
        let sealed = self.keys.seal(Kind::Segment, content);
        let after = sealed.len() as u64;
        self.segments.insert(number, sealed.as_slice())?;
        self.index.insert(first, (number, count, after, at, connection))?;
        let held = self.usage.get(connection)?.map_or(0, |row| row.value());
        self.set_usage(connection, (held + after).saturating_sub(before))?;
        let total = read_number(&self.meta, BYTES)?;
        self.meta.insert(BYTES, (total + after).saturating_sub(before))?;
        Ok(())
    }
}

/// The entry keeps its place and its id; what it said is gone from the file once its pages are used again.
fn erase(db: &Database, sequence: u64, by: &Actor, at: UnixMillis, keys: &Keys) -> Result<(), Fault> {
    let txn = db.begin_write()?;
    {
        let mut tables = Tables::open(&txn, keys)?;
        let counters = read_counters(&tables.meta)?;
        if sequence < counters.first {
            return Err(ReadError::Dropped { first: counters.first }.into());
        }
        let missing = || ReadError::Missing { first: sequence, last: sequence };
        let holder = tables.index.range(..=sequence)?.next_back().transpose()?;
        let (first, (number, count, before, journaled, connection)) = match &holder {
            Some((first, segment)) => (first.value(), segment.value()),
            None => return Err(missing().into()),
        };
        let connection = connection.to_owned();
        drop(holder);
        let place = u32::try_from(sequence - first).ok().filter(|place| *place < count).ok_or_else(missing)?;
        let damaged = |damage| ReadError::Segment { first, damage };
        let sealed = {
            let stored = tables.segments.get(number)?.ok_or_else(missing)?;
            let opened = keys.segment(stored.value()).map_err(damaged)?;
            let segment = Unpacked::new(&opened).map_err(damaged)?;
            let tombstone = Body::Erased { by: by.clone(), at };
            segment.replaced(place, &tombstone).map_err(damaged)?
        };
        tables.replace(first, (number, count, before, journaled, connection.as_str()), sealed.bytes)?;
    }
    txn.commit()?;
    Ok(())
}

/// Reports are text but for numbers and names of ours: the uid goes wherever it stands in one.
fn forget(db: &Database, connection: &ConnectionName, uid: &str, keys: &Keys) -> Result<(), Fault> {
    let txn = db.begin_write()?;
    let (mut changed, mut lost) = (Vec::new(), false);
    {
        let mut tables = Tables::open(&txn, keys)?;
        for entry in tables.runs.iter()? {
            let (run, stored) = entry?;
            let run = run.value();
            let mut report: RunReport = keys.parse(Kind::Run, stored.value(), || format!("the report of run {run}"))?;
            if report.key.connection == *connection && report.forget(uid) {
                changed.push((run, keys.row(Kind::Run, &report)?));
            }
        }
        for (run, row) in &changed {
            tables.runs.insert(run, row.as_slice())?;
        }
        for (key, mut state) in read_states(&tables.states, keys)? {
            if key.connection == *connection && state.sync.forget(uid) {
                tables.states.insert(state_key(&key), keys.row(Kind::State, &state)?.as_slice())?;
                lost = true;
            }
        }
    }
    let shadowed = shadow::forget(&txn, connection, uid, keys)?;
    end(txn, lost || shadowed || !changed.is_empty())
}
