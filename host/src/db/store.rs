//! What the db needs from a storage engine: small enough to be implemented on PostgreSQL or NATS JetStream later. Decides which
//! members of a group are written and with which sequences (`plan`); performs nothing itself, and knows no engine.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::RunReport;
use tidewaiter_core::state::TypeState;
use tidewaiter_core::time::UnixMillis;

use super::segment::{Segment, SegmentDamage};
use super::{Committed, TokenChange};

/// How many rows of the token's history, and how many run reports, are kept for each key: at a run a minute, most of a day;
/// at a change a day, years. Older ones go in the transaction that adds one.
pub(super) const KEPT: u64 = 1000;

/// Where entries and states are kept.
pub(super) trait Store: Send + Sync + 'static {
    /// Writes a group in one durable transaction, each member judged as of the members before it. An error means that
    /// nothing is known to be written; what is visible then is either all of it or nothing.
    fn write(&self, group: &[Write]) -> Result<Written, StorageError>;
    /// Sequences and numbers given out so far.
    fn counters(&self) -> Result<Counters, ReadError>;
    /// All states.
    fn states(&self) -> Result<BTreeMap<TypeKey, TypeState>, ReadError>;
    /// One state.
    fn state(&self, key: &TypeKey) -> Result<Option<TypeState>, ReadError>;
    /// Hands over the segments in order, from the one that holds the sequence `from` or else the next, until told to stop.
    /// Answers the last sequence of the same snapshot.
    fn segments(&self, from: u64, visit: &mut Visit<'_>) -> Result<u64, ReadError>;
    /// Reports of runs, newest first.
    fn runs(&self, key: Option<&TypeKey>, limit: usize) -> Result<Vec<RunReport>, ReadError>;
    /// The token's history, newest first.
    fn token_history(&self, key: &TypeKey, limit: usize) -> Result<Vec<TokenChange>, ReadError>;
    /// The last sequence that a sink has delivered, 0 if none.
    fn sink_position(&self, sink: &str) -> Result<u64, ReadError>;
}

/// Takes a segment by its first sequence.
pub(super) type Visit<'a> = dyn FnMut(u64, &[u8]) -> Result<ControlFlow<()>, ReadError> + 'a;

/// The storage engine failed; in its words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StorageError(pub(super) String);

/// Something that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A segment of the journal is damaged. Entries before it can be read.
    #[error("the journal's segment that begins with sequence {first} is damaged: {damage}")]
    Segment {
        /// The sequence of its first entry.
        first: u64,
        /// What is wrong with it.
        damage: SegmentDamage,
    },
    /// Entries are not there.
    #[error("the journal has no entries {first} to {last}")]
    Missing {
        /// The first that is missing.
        first: u64,
        /// The last that is missing.
        last: u64,
    },
    /// Another row is damaged.
    #[error("{row} is damaged: {problem}")]
    Row {
        /// Which.
        row: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The storage engine failed; in its words.
    #[error("the db could not be read: {0}")]
    Storage(String),
}

impl From<StorageError> for ReadError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error.0)
    }
}

/// A member of a group.
#[derive(Debug)]
pub(super) enum Write {
    Commit(Box<Prepared>),
    SinkPosition { sink: String, sequence: u64 },
}

/// A commit whose entries are encoded.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) key: TypeKey,
    pub(super) expected_revision: u64,
    pub(super) state: TypeState,
    pub(super) segments: Vec<Segment>,
    pub(super) marked: bool,
    pub(super) run: Option<u64>,
    pub(super) report: Option<RunReport>,
    pub(super) at: UnixMillis,
}

/// What became of a group.
#[derive(Debug)]
pub(super) struct Written {
    /// For each member, in order; none if it met a conflict.
    pub(super) members: Vec<Option<Committed>>,
    pub(super) counters: Counters,
}

/// Sequences and numbers given out so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    /// The sequence of the last entry, 0 if there is none.
    pub(super) sequence: u64,
    /// The highest number of a run, 0 if there is none.
    pub(super) run: u64,
}

/// What is decided for a member before the first write of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It expects another revision than the one stored, or ordered by a member before it.
    Conflict,
    /// It is written.
    Write {
        /// The sequences of its entries.
        sequences: Committed,
        /// The token's history gets a row.
        history: bool,
    },
}

/// What is stored of a key, as far as a verdict needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) revision: u64,
    /// The name of the state.
    pub(super) name: &'static str,
}

/// Judges the members of a group and counts the counters up. `stored` is asked once for each key.
pub(super) fn plan<E>(
    group: &[Write],
    counters: &mut Counters,
    mut stored: impl FnMut(&TypeKey) -> Result<Option<Known>, E>,
) -> Result<Vec<Verdict>, E> {
    let mut known: HashMap<&TypeKey, Option<Known>> = HashMap::new();
    let mut verdicts = Vec::with_capacity(group.len());
    for write in group {
        let Write::Commit(commit) = write else {
            let sequences = Committed::none(counters.sequence);
            verdicts.push(Verdict::Write { sequences, history: false });
            continue;
        };
        if !known.contains_key(&commit.key) {
            known.insert(&commit.key, stored(&commit.key)?);
        }
        let before = known[&commit.key];
        if before.map_or(0, |known| known.revision) != commit.expected_revision {
            verdicts.push(Verdict::Conflict);
            continue;
        }
        let now = Known { revision: commit.state.revision, name: commit.state.sync.name() };
        let history = commit.report.is_some() || commit.marked || before.map(|known| known.name) != Some(now.name);
        known.insert(&commit.key, Some(now));
        let first = counters.sequence + 1;
        counters.sequence += commit.segments.iter().map(|segment| u64::from(segment.count)).sum::<u64>();
        let reported = commit.report.as_ref().map(|report| report.run);
        counters.run = counters.run.max(commit.run.unwrap_or(0)).max(reported.unwrap_or(0));
        verdicts.push(Verdict::Write { sequences: Committed { first, last: counters.sequence }, history });
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use tidewaiter_core::state::{From, SyncState};
    use tidewaiter_core::token::SyncToken;

    use super::*;

    fn commit(object_type: &str, expected_revision: u64, entries: u32) -> Write {
        let key = TypeKey { connection: "hr".parse().unwrap(), object_type: object_type.parse().unwrap() };
        let sync = SyncState::Live(SyncToken::Integer(1));
        let state =
            TypeState { revision: expected_revision + 1, sync, ..TypeState::first(From::Latest, UnixMillis(0)) };
        let segments = vec![Segment { bytes: vec![], count: entries }];
        let at = UnixMillis(0);
        let prepared =
            Prepared { key, expected_revision, state, segments, marked: false, run: Some(5), report: None, at };
        Write::Commit(Box::new(prepared))
    }

    fn written(first: u64, last: u64, history: bool) -> Verdict {
        Verdict::Write { sequences: Committed { first, last }, history }
    }

    #[test]
    fn judges_each_member_as_of_those_before_it() {
        let group = [
            commit("a", 3, 2),
            commit("a", 3, 9),
            commit("a", 4, 1),
            commit("b", 1, 9),
            commit("b", 0, 0),
            Write::SinkPosition { sink: "s".into(), sequence: 1 },
            commit("b", 1, 4),
        ];
        let mut counters = Counters { sequence: 10, run: 2 };
        let mut asked = 0;
        let stored = |key: &TypeKey| {
            asked += 1;
            Ok::<_, ()>((key.object_type.as_str() == "a").then_some(Known { revision: 3, name: "live" }))
        };
        let verdicts = plan(&group, &mut counters, stored).unwrap();
        let conflict = Verdict::Conflict;
        let (a, b) = (written(11, 12, false), written(13, 13, false));
        let (first, position) = (written(14, 13, true), written(14, 13, false));
        assert_eq!(verdicts, [a, conflict, b, conflict, first, position, written(14, 17, false)]);
        assert_eq!((counters, asked), (Counters { sequence: 17, run: 5 }, 2));
    }
}
