//! What the db needs from a storage engine: small enough to be implemented on PostgreSQL or NATS JetStream later. Decides which
//! members of a group are written, with which sequences, and which are refused (`plan`); performs nothing itself, and knows no
//! engine.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::journal::Incarnation;
use tidewaiter_core::name::{ConnectionName, ConnectorName, TypeKey};
use tidewaiter_core::run::RunReport;
use tidewaiter_core::state::{Actor, TypeState};
use tidewaiter_core::time::UnixMillis;

use super::consumer::{Consumer, ConsumerError};
use super::dead_letter::{Letters, StoredLetter};
use super::refused::{Delivered, RefusedEntry};
use super::retain::{Policy, Retained};
use super::revision::{Placement, Revision};
use super::segment::{Segment, SegmentDamage};
use super::shadow::{Shadow, ShadowChore, StoredRow};
use super::{CommitError, Committed, StagedSegment, TokenChange};

/// How many rows of the token's history, and how many run reports, are kept for each key: at a run a minute, most of a day;
/// at a change a day, years. Older ones go in the transaction that adds one.
pub(crate) const KEPT: u64 = 1000;

/// A storage engine. Reads see what is durable; a read that began sees no later write.
pub(super) trait Store: Send + Sync + 'static {
    /// Writes a group in one durable transaction, each member judged as of the members before it. An error means that
    /// nothing is known to be written; what is visible then is either all of it or nothing.
    fn write(&self, group: &[Write], quota: Quota) -> Result<Written, StorageError>;
    /// Does one thing in a transaction of its own.
    fn chore(&self, chore: &Chore) -> Result<Done, CommitError>;
    /// Sequences and numbers given out so far.
    fn counters(&self) -> Result<Counters, ReadError>;
    /// All states.
    fn states(&self) -> Result<BTreeMap<TypeKey, TypeState>, ReadError>;
    /// One state.
    fn state(&self, key: &TypeKey) -> Result<Option<TypeState>, ReadError>;
    /// Hands over the segments, or those of one connection, in order, from the one that holds the sequence `from` or else the next, until told to stop.
    /// Answers the last sequence of the same snapshot.
    fn segments(&self, of: Option<&ConnectionName>, from: u64, visit: &mut Visit<'_>) -> Result<u64, ReadError>;
    /// Reports of runs, newest first; those before a number.
    fn runs(&self, key: Option<&TypeKey>, before: u64, limit: usize) -> Result<Vec<RunReport>, ReadError>;
    /// The token's history, newest first.
    fn token_history(&self, key: &TypeKey, limit: usize) -> Result<Vec<TokenChange>, ReadError>;
    /// The last sequence that a sink has delivered, 0 if none.
    fn sink_position(&self, sink: &str) -> Result<u64, ReadError>;
    /// The consumers.
    fn consumers(&self) -> Result<BTreeMap<String, Consumer>, ReadError>;
    /// All of it in figures, of one snapshot.
    fn figures(&self) -> Result<super::Figures, ReadError>;
    /// Bytes of segments, published and staged: of all, and of each connection that has any.
    fn usage(&self) -> Result<Usage, ReadError>;
    /// The bytes of one connection, and of all. Asked before each run, so it reads two numbers and not all.
    fn held(&self, connection: &ConnectionName) -> Result<(u64, u64), ReadError>;
    /// Drops what a process staged that is gone. Answers how many segments.
    fn drop_staged(&self) -> Result<u64, StorageError>;
    /// The attributes that are sensitive.
    fn sensitive(&self) -> Result<super::Sensitive, ReadError>;
    /// What a connection may ask for; none: it has not run yet.
    fn approved(&self, connection: &ConnectionName) -> Result<Option<Approved>, ReadError>;
    /// What went wrong with a connector; none: nothing ever did.
    fn faults(&self, connector: &ConnectorName) -> Result<Option<super::Faults>, ReadError>;
    /// What connections run; those that never ran aren't there.
    fn placements(&self) -> Result<BTreeMap<ConnectionName, Placement>, ReadError>;
    /// The files that were met of each connector.
    fn revisions(&self) -> Result<BTreeMap<ConnectorName, Vec<Revision>>, ReadError>;
    /// The shadow of a type.
    fn shadow(&self, key: &TypeKey) -> Result<Option<Shadow>, ReadError>;
    /// All shadows.
    fn shadows(&self) -> Result<BTreeMap<TypeKey, Shadow>, ReadError>;
    /// Keys, hashes and stored uids of some rows of a shadow from a key on; none: there are no more.
    fn shadow_range(&self, id: u32, from: u128) -> Result<Vec<StoredRow>, ReadError>;
    /// The dead letters of a type, or all, each type's in the order in which they came.
    fn dead_letters(&self, of: Option<&TypeKey>) -> Result<Vec<StoredLetter>, ReadError>;
    /// The dead letters of a sink, or of all, each sink's in the order of their entries.
    fn refused(&self, of: Option<&str>) -> Result<BTreeMap<String, Vec<RefusedEntry>>, ReadError>;
    /// What is kept for a credential.
    fn kept(&self, credential: &str) -> Result<Option<Vec<u8>>, ReadError>;
    /// Gives unused room back, while nothing else works with the file. False: there was none.
    fn compact(&self) -> Result<bool, StorageError>;
    /// Copies what one snapshot has into a new file; staged segments are left out.
    fn backup(&self, to: &std::path::Path) -> Result<(), StorageError>;
    /// Looks whether everything fits together.
    fn check(&self, deep: bool) -> Result<super::Checked, ReadError>;
    /// Looks what is wrong with the file itself.
    fn examine(&self) -> Result<Vec<String>, ReadError>;
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
    /// A segment of the journal is damaged, or encrypted with a key that isn't there. Entries before it can be read.
    #[error("the journal's segment that begins with sequence {first} can't be read: {damage}")]
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
    /// Entries were delivered to everyone, and have been dropped since.
    #[error("the journal begins with entry {first}; the ones before it were delivered and have been dropped")]
    Dropped {
        /// The first that is kept.
        first: u64,
    },
    /// A consumer can't go on.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// A copy can't be begun.
    #[error("can't make {path}: {problem}")]
    Target {
        /// Where it was to be.
        path: String,
        /// Why not.
        problem: String,
    },
    /// Another row is, likewise.
    #[error("{row} can't be read: {problem}")]
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
    Stage {
        connection: ConnectionName,
        segments: Vec<Segment>,
    },
    Delivered {
        sink: String,
        delivered: Box<Delivered>,
    },
    AddConsumer {
        name: String,
        consumer: Consumer,
    },
    Acknowledge {
        name: String,
        incarnation: Incarnation,
        sequence: u64,
        /// It named the journal, too.
        knows: bool,
        at: UnixMillis,
    },
    RemoveConsumer {
        name: String,
    },
    /// These attributes, by class and name in lower case, are sensitive.
    Sensitive {
        connection: ConnectionName,
        attributes: Vec<(String, String)>,
    },
    /// A connection may ask for this.
    Approve {
        connection: ConnectionName,
        approved: Approved,
    },
    /// So many runs of a connector went wrong.
    Faults {
        connector: ConnectorName,
        faults: super::Faults,
    },
    /// Connections run this.
    Place {
        placements: Vec<(ConnectionName, Placement)>,
    },
    /// A file of a connector was met.
    Revision {
        connector: ConnectorName,
        revision: Revision,
        /// Hashes of others that are remembered no longer.
        forgotten: Vec<String>,
    },
    /// Keep this for a credential, sealed.
    Keep {
        credential: String,
        content: Vec<u8>,
    },
}

/// What is done alone, because it reads much.
#[derive(Debug)]
pub(super) enum Chore {
    /// Drop what may be dropped, and so much that there is room for so many bytes more.
    Retain { policy: Policy, room: u64, now: UnixMillis },
    /// Drop staged segments that were not published after all. What was published meanwhile stays: a commit that failed for
    /// whoever waited for it may have happened.
    Discard { staged: Vec<StagedSegment> },
    /// Replace what an entry says by a tombstone.
    Erase { sequence: u64, by: Actor, at: UnixMillis },
    /// Take a uid out of the reports of runs, and out of shadows.
    Forget { connection: ConnectionName, uid: String },
    /// Write something of a shadow.
    Shadow(Box<ShadowChore>),
    /// Seal with the current key what is sealed otherwise, from this sequence on; 0: the small rows, too.
    Rekey { from: u64 },
}

/// A commit whose entries are encoded.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) key: TypeKey,
    pub(super) expected_revision: u64,
    pub(super) state: TypeState,
    /// Published before `segments`.
    pub(super) staged: Vec<StagedSegment>,
    pub(super) segments: Vec<Segment>,
    pub(super) letters: Letters,
    pub(super) marked: bool,
    pub(super) run: Option<u64>,
    pub(super) report: Option<RunReport>,
    pub(super) at: UnixMillis,
}

impl Prepared {
    fn entries(&self) -> u64 {
        let staged = self.staged.iter().map(|staged| u64::from(staged.count));
        staged.chain(self.segments.iter().map(|segment| u64::from(segment.count))).sum()
    }
}

/// What became of a group.
#[derive(Debug)]
pub(super) struct Written {
    /// For each member, in order.
    pub(super) members: Vec<Result<Done, CommitError>>,
    pub(super) counters: Counters,
}

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Done {
    Committed(Committed),
    Staged(Vec<StagedSegment>),
    Retained(Retained),
    /// Where to go on; none: that was all.
    Rekeyed(Option<u64>),
    /// Nothing more to tell.
    Nothing,
}

/// Sequences and numbers given out so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    /// The sequence of the first entry that is kept, or will be.
    pub(super) first: u64,
    /// The sequence of the last entry, 0 if there is none.
    pub(super) sequence: u64,
    /// The highest number of a run, 0 if there is none.
    pub(super) run: u64,
    /// The highest number of a segment, 0 if there is none.
    pub(super) segment: u64,
    /// The highest number of a dead letter, 0 if there is none.
    pub(super) letter: u64,
}

/// Bytes of segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all connections.
    pub total: u64,
    /// Of each.
    pub connections: BTreeMap<String, u64>,
}

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of the segments of one connection.
    pub connection_bytes: u64,
    /// Bytes of all segments.
    pub total_bytes: u64,
}

impl Quota {
    /// Whatever the disk has.
    pub const UNLIMITED: Self = Self { connection_bytes: u64::MAX, total_bytes: u64::MAX };

    /// What keeps a connection from writing that much more.
    pub(super) fn refuses(&self, connection: &str, held: u64, total: u64, more: u64) -> Option<Full> {
        let over = |used: u64, max: u64| used.saturating_add(more) > max;
        if over(held, self.connection_bytes) {
            return Some(Full {
                connection: Some(connection.to_owned()),
                used: held,
                max: self.connection_bytes,
                more,
            });
        }
        over(total, self.total_bytes).then_some(Full { connection: None, used: total, max: self.total_bytes, more })
    }
}

/// There is no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} holds {used} bytes, and {more} more are beyond the {max} allowed: entries go once every sink and consumer has them", 
    connection.as_ref().map_or("the journal".to_owned(), |name| format!("the journal of connection {name}")))]
pub struct Full {
    /// Of this connection; none: of all.
    pub connection: Option<String>,
    /// What there is.
    pub used: u64,
    /// What there may be.
    pub max: u64,
    /// What was to be added.
    pub more: u64,
}

/// What is decided for a member before the first write of its group.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Write it, with these sequences; the token's history gets a row.
    Commit { sequences: Committed, history: bool },
    /// Write the segments under the next numbers.
    Stage,
    /// Write the row.
    Consumer(Consumer),
    /// Do what it says.
    Do,
}

/// What is stored of a key, as far as a verdict needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) revision: u64,
    /// The name of the state.
    pub(super) name: &'static str,
}

/// What is stored, for the judge of a group.
pub(super) trait Stored {
    /// A read failed.
    type Error;
    /// A state.
    fn known(&self, key: &TypeKey) -> Result<Option<Known>, Self::Error>;
    /// The bytes that a connection has.
    fn bytes(&self, connection: &ConnectionName) -> Result<u64, Self::Error>;
    /// A consumer.
    fn consumer(&self, name: &str) -> Result<Option<Consumer>, Self::Error>;
    /// Whether a segment is staged.
    fn is_staged(&self, number: u64) -> Result<bool, Self::Error>;
}

/// Judges the members of a group, in order, and counts up what they change.
pub(super) struct Plan<'a, S> {
    stored: &'a S,
    quota: Quota,
    pub(super) counters: Counters,
    /// Bytes of all segments.
    pub(super) total: u64,
    known: HashMap<TypeKey, Option<Known>>,
    /// Bytes of the connections that the group writes to.
    pub(super) bytes: HashMap<ConnectionName, u64>,
    consumers: HashMap<String, Option<Consumer>>,
}

impl<'a, S: Stored> Plan<'a, S> {
    pub(super) fn new(stored: &'a S, quota: Quota, counters: Counters, total: u64) -> Self {
        let (known, bytes, consumers) = Default::default();
        Self { stored, quota, counters, total, known, bytes, consumers }
    }

    /// What is to be done for a member, or why nothing is.
    pub(super) fn judge(&mut self, write: &Write) -> Result<Result<Step, CommitError>, S::Error> {
        Ok(match write {
            Write::Commit(commit) => self.commit(commit)?,
            Write::Stage { connection, segments } => match self.add(connection, segments, true)? {
                Some(full) => Err(CommitError::Full(full)),
                None => {
                    self.counters.segment += segments.len() as u64;
                    Ok(Step::Stage)
                }
            },
            Write::Delivered { delivered, .. } => {
                self.counters.letter += delivered.kept.len() as u64;
                Ok(Step::Do)
            }
            Write::Keep { .. }
            | Write::Sensitive { .. }
            | Write::Approve { .. }
            | Write::Faults { .. }
            | Write::Place { .. }
            | Write::Revision { .. } => Ok(Step::Do),
            Write::AddConsumer { name, consumer } => match self.consumer(name)? {
                Some(_) => Err(ConsumerError::Exists { name: name.clone() }.into()),
                None if consumer.position > self.counters.sequence => {
                    let (sequence, last) = (consumer.position, self.counters.sequence);
                    Err(ConsumerError::Ahead { name: name.clone(), sequence, last }.into())
                }
                None => Ok(self.put(name, consumer.clone())),
            },
            Write::Acknowledge { name, incarnation, sequence, knows, at } => {
                let (last, found) = (self.counters.sequence, self.consumer(name)?);
                match found.ok_or_else(|| ConsumerError::Unknown { name: name.clone() }) {
                    Err(error) => Err(error.into()),
                    Ok(consumer) => match consumer.acknowledged(name, *incarnation, (*sequence, *knows), last, *at) {
                        Err(error) => Err(error.into()),
                        Ok(consumer) => Ok(self.put(name, consumer)),
                    },
                }
            }
            Write::RemoveConsumer { name } => match self.consumer(name)? {
                None => Err(ConsumerError::Unknown { name: name.clone() }.into()),
                Some(_) => {
                    self.consumers.insert(name.clone(), None);
                    Ok(Step::Do)
                }
            },
        })
    }

    fn commit(&mut self, commit: &Prepared) -> Result<Result<Step, CommitError>, S::Error> {
        if !self.known.contains_key(&commit.key) {
            self.known.insert(commit.key.clone(), self.stored.known(&commit.key)?);
        }
        let before = self.known[&commit.key];
        if before.map_or(0, |known| known.revision) != commit.expected_revision {
            return Ok(Err(CommitError::Conflict));
        }
        for StagedSegment { number, .. } in &commit.staged {
            if !self.stored.is_staged(*number)? {
                return Ok(Err(CommitError::Storage(format!("segment {number} is not staged any more"))));
            }
        }
        // An operator's act is never refused for want of room: it may be what makes some.
        let is_act = commit.marked || commit.run.is_none();
        if let Some(full) = self.add(&commit.key.connection, &commit.segments, !is_act)? {
            return Ok(Err(CommitError::Full(full)));
        }
        let now = Known { revision: commit.state.revision, name: commit.state.sync.name() };
        let history = commit.report.is_some() || commit.marked || before.map(|known| known.name) != Some(now.name);
        self.known.insert(commit.key.clone(), Some(now));
        let first = self.counters.sequence + 1;
        self.counters.sequence += commit.entries();
        self.counters.segment += commit.segments.len() as u64;
        self.counters.letter += commit.letters.kept.len() as u64;
        let reported = commit.report.as_ref().map(|report| report.run);
        self.counters.run = self.counters.run.max(commit.run.unwrap_or(0)).max(reported.unwrap_or(0));
        Ok(Ok(Step::Commit { sequences: Committed { first, last: self.counters.sequence }, history }))
    }

    /// Counts segments that are added, or says why they can't be.
    fn add(
        &mut self,
        connection: &ConnectionName,
        segments: &[Segment],
        limited: bool,
    ) -> Result<Option<Full>, S::Error> {
        let more: u64 = segments.iter().map(|segment| segment.bytes.len() as u64).sum();
        if more == 0 {
            return Ok(None);
        }
        let held = self.held(connection)?;
        let refused = self.quota.refuses(connection.as_str(), held, self.total, more);
        if let Some(full) = refused.filter(|_| limited) {
            return Ok(Some(full));
        }
        self.bytes.insert(connection.clone(), held + more);
        self.total += more;
        Ok(None)
    }

    fn held(&mut self, connection: &ConnectionName) -> Result<u64, S::Error> {
        match self.bytes.get(connection) {
            Some(bytes) => Ok(*bytes),
            None => self.stored.bytes(connection),
        }
    }

    fn consumer(&mut self, name: &str) -> Result<Option<Consumer>, S::Error> {
        match self.consumers.get(name) {
            Some(consumer) => Ok(consumer.clone()),
            None => self.stored.consumer(name),
        }
    }

    fn put(&mut self, name: &str, consumer: Consumer) -> Step {
        self.consumers.insert(name.to_owned(), Some(consumer.clone()));
        Step::Consumer(consumer)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tidewaiter_core::state::{From, SyncState};
    use tidewaiter_core::token::SyncToken;

    use super::*;

    fn commit(object_type: &str, expected_revision: u64, entries: u32) -> Write {
        let key = TypeKey { connection: "hr".parse().unwrap(), object_type: object_type.parse().unwrap() };
        let sync = SyncState::Live(SyncToken::Integer(1));
        let state =
            TypeState { revision: expected_revision + 1, sync, ..TypeState::first(From::Latest, UnixMillis(0)) };
        let segments = match entries {
            0 => vec![],
            count => vec![Segment { bytes: vec![0; count as usize], count }],
        };
        let (staged, at) = (vec![], UnixMillis(0));
        let (letters, marked, run, report) = (Letters::default(), false, Some(5), None);
        let prepared = Prepared { key, expected_revision, state, staged, segments, letters, marked, run, report, at };
        Write::Commit(Box::new(prepared))
    }

    fn stage(bytes: usize) -> Write {
        let segments = vec![Segment { bytes: vec![0; bytes], count: 1 }, Segment { bytes: vec![], count: 1 }];
        Write::Stage { connection: "hr".parse().unwrap(), segments }
    }

    struct Before {
        asked: Cell<u32>,
    }

    impl Stored for Before {
        type Error = ();
        fn known(&self, key: &TypeKey) -> Result<Option<Known>, ()> {
            self.asked.set(self.asked.get() + 1);
            Ok((key.object_type.as_str() == "a").then_some(Known { revision: 3, name: "live" }))
        }
        fn bytes(&self, _: &ConnectionName) -> Result<u64, ()> {
            Ok(100)
        }
        fn consumer(&self, name: &str) -> Result<Option<Consumer>, ()> {
            Ok((name == "old").then(|| Consumer::new(Incarnation(1), 4, None, UnixMillis(0))))
        }
        fn is_staged(&self, number: u64) -> Result<bool, ()> {
            Ok(number == 7)
        }
    }

    fn judged(quota: Quota, group: &[Write]) -> (Vec<Result<Step, CommitError>>, Counters, u64, u32) {
        let before = Before { asked: Cell::new(0) };
        let counters = Counters { first: 1, sequence: 10, run: 2, segment: 7, letter: 0 };
        let mut plan = Plan::new(&before, quota, counters, 1000);
        let steps = group.iter().map(|write| plan.judge(write).unwrap()).collect();
        (steps, plan.counters, plan.total, before.asked.get())
    }

    fn written(first: u64, last: u64, history: bool) -> Result<Step, CommitError> {
        Ok(Step::Commit { sequences: Committed { first, last }, history })
    }

    #[test]
    fn judges_each_member_as_of_those_before_it() {
        let group = [
            commit("a", 3, 2),
            commit("a", 3, 9),
            commit("a", 4, 1),
            commit("b", 1, 9),
            commit("b", 0, 0),
            Write::Delivered { sink: "s".into(), delivered: Box::new(Delivered::upto(1, UnixMillis(1))) },
            stage(50),
            commit("b", 1, 4),
        ];
        let (steps, counters, total, asked) = judged(Quota::UNLIMITED, &group);
        let conflict = Err(CommitError::Conflict);
        let (a, b) = (written(11, 12, false), written(13, 13, false));
        let first = written(14, 13, true);
        assert_eq!(
            steps,
            [a, conflict.clone(), b, conflict, first, Ok(Step::Do), Ok(Step::Stage), written(14, 17, false)]
        );
        assert_eq!(counters, Counters { first: 1, sequence: 17, run: 5, segment: 12, letter: 0 });
        assert_eq!((total, asked), (1000 + 2 + 1 + 50 + 4, 2));
    }

    #[test]
    fn refuses_what_has_no_room_and_goes_on_with_what_has() {
        let quota = Quota { connection_bytes: 110, total_bytes: 2000 };
        let full = |used| Err(CommitError::Full(Full { connection: Some("hr".into()), used, max: 110, more: 1 }));
        let group = [commit("a", 3, 10), commit("a", 4, 1), stage(1), commit("a", 4, 0)];
        assert_eq!(judged(quota, &group).0, [written(11, 20, false), full(110), full(110), written(21, 20, false)]);
        let everyone = Quota { connection_bytes: 2000, total_bytes: 1005 };
        let full = Err(CommitError::Full(Full { connection: None, used: 1000, max: 1005, more: 6 }));
        assert_eq!(judged(everyone, &[commit("a", 3, 6), commit("a", 3, 5)]).0, [full, written(11, 15, false)]);
        let Write::Commit(mut act) = commit("a", 3, 500) else { unreachable!() };
        act.marked = true;
        assert_eq!(judged(quota, &[Write::Commit(act)]).0, [written(11, 510, true)], "an operator's act has room");
    }

    #[test]
    fn refuses_a_commit_whose_staged_segments_are_gone() {
        let publishing = |number| {
            let Write::Commit(mut commit) = commit("a", 3, 1) else { unreachable!() };
            commit.staged = vec![StagedSegment { number, count: 4, bytes: 9 }];
            Write::Commit(commit)
        };
        let (steps, counters, ..) = judged(Quota::UNLIMITED, &[publishing(6), publishing(7)]);
        assert!(matches!(&steps[0], Err(CommitError::Storage(message)) if message.contains("segment 6")), "{steps:?}");
        assert_eq!((&steps[1], counters.sequence), (&written(11, 15, false), 15), "four staged and one more");
    }

    #[test]
    fn consumers_are_judged_as_of_the_members_before() {
        let named = |name: &str| name.to_owned();
        let add = |name: &str| Write::AddConsumer {
            name: named(name),
            consumer: Consumer::new(Incarnation(1), 0, None, UnixMillis(0)),
        };
        let acknowledge = |name: &str, sequence| Write::Acknowledge {
            name: named(name),
            incarnation: Incarnation(1),
            sequence,
            knows: false,
            at: UnixMillis(3),
        };
        let remove = |name: &str| Write::RemoveConsumer { name: named(name) };
        let group = [
            add("old"),
            add("new"),
            acknowledge("new", 11),
            acknowledge("new", 10),
            remove("old"),
            acknowledge("old", 5),
            remove("old"),
            Write::AddConsumer {
                name: named("ahead"),
                consumer: Consumer::new(Incarnation(1), 11, None, UnixMillis(0)),
            },
        ];
        let (steps, ..) = judged(Quota::UNLIMITED, &group);
        let refused: Vec<bool> = steps.iter().map(Result::is_err).collect();
        assert_eq!(refused, [true, false, true, false, false, true, true, true], "{steps:?}");
    }
}
