//! The db in figures: counts rows without reading what is in them.

use redb::{Database, ReadableDatabase, ReadableTable};
use tidewaiter_core::time::UnixMillis;

use super::{Fault, read_consumers, read_counters, read_sinks, read_states, read_usage};
use crate::db::figures::{Figures, Reader};
use crate::db::seal::Keys;
use crate::db::store::Counters;
use crate::db::tables::{CONSUMERS, DEAD_LETTERS, INDEX, Indexed, META, REFUSED, SINKS, STATES, USAGE};

pub(super) fn read(db: &Database, keys: &Keys) -> Result<Figures, Fault> {
    let txn = db.begin_read()?;
    let (meta, index) = (txn.open_table(META)?, txn.open_table(INDEX)?);
    let counters = read_counters(&meta)?;
    let reader = |position| Ok::<_, Fault>(Reader { position, waits_since: waits_since(&index, position, counters)? });
    let mut dead_letters: Vec<((String, String), u64)> = Vec::new();
    for row in txn.open_table(DEAD_LETTERS)?.iter()? {
        let (key, _) = row?;
        let (connection, object_type, _) = key.value();
        match dead_letters.last_mut() {
            Some(((of, of_type), count)) if of == connection && of_type == object_type => *count += 1,
            _ => dead_letters.push(((connection.to_owned(), object_type.to_owned()), 1)),
        }
    }
    let mut refused: Vec<(String, u64)> = Vec::new();
    for row in txn.open_table(REFUSED)?.iter()? {
        let (key, _) = row?;
        match refused.last_mut() {
            Some((sink, count)) if sink == key.value().0 => *count += 1,
            _ => refused.push((key.value().0.to_owned(), 1)),
        }
    }
    let sinks = read_sinks(&txn.open_table(SINKS)?)?.into_iter().map(|(name, at)| Ok::<_, Fault>((name, reader(at)?)));
    let consumers = read_consumers(&txn.open_table(CONSUMERS)?)?.into_iter().map(|(name, consumer)| {
        let reader = reader(consumer.position)?;
        Ok::<_, Fault>((name, (consumer, reader)))
    });
    Ok(Figures {
        first: counters.first,
        last: counters.sequence,
        usage: read_usage(&meta, &txn.open_table(USAGE)?)?,
        states: read_states(&txn.open_table(STATES)?, keys)?,
        dead_letters: dead_letters.into_iter().collect(),
        refused: refused.into_iter().collect(),
        sinks: sinks.collect::<Result<_, Fault>>()?,
        beginner: reader(0)?,
        consumers: consumers.collect::<Result<_, Fault>>()?,
    })
}

/// When the first entry after a position was journaled that is kept.
fn waits_since(
    index: &impl ReadableTable<u64, Indexed>,
    position: u64,
    counters: Counters,
) -> Result<Option<UnixMillis>, Fault> {
    let next = counters.first.max(position.saturating_add(1));
    if next > counters.sequence {
        return Ok(None);
    }
    let holder = index.range(..=next)?.next_back().transpose()?;
    Ok(holder.map(|(_, segment)| UnixMillis(segment.value().3)))
}
