//! Writes a group in one transaction: opens all tables once, lets the plan judge each member, then does what it decided.

use redb::{Database, ReadableTable, Table, WriteTransaction};
use tidewaiter_core::name::{ConnectionName, TypeKey};
use tidewaiter_core::run::RunReport;
use tidewaiter_core::state::TypeState;

use super::{Fault, all_of, dead_letter, read_consumer, read_counters, read_number, read_state, refused};
use crate::db::consumer::Consumer;
use crate::db::seal::{Keys, Kind};
use crate::db::segment::Segment;
use crate::db::store::{Counters, Done, KEPT, Known, Plan, Prepared, Quota, Step, Stored, Write, Written};
use crate::db::tables::{
    APPROVED, BYTES, CONSUMERS, DEAD_LETTERS, FAULTS, INDEX, Indexed, LAST_DEAD_LETTER, LAST_RUN, LAST_SEGMENT,
    LAST_SEQUENCE, META, Ordered, PLACEMENTS, REFUSED, REVISIONS, RUNS, RUNS_OF, SEGMENTS, SENSITIVE, SHADOWS, SINKS,
    STAGED, STATES, TOKENS, USAGE, VAULT, ordered_key, row, state_key,
};
use crate::db::{StagedSegment, TokenChange};

type Rows<'txn> = Table<'txn, &'static str, &'static [u8]>;

/// Everything that a transaction may write.
pub(super) struct Tables<'txn> {
    pub(super) keys: &'txn Keys,
    pub(super) meta: Table<'txn, &'static str, u64>,
    pub(super) states: Table<'txn, (&'static str, &'static str), &'static [u8]>,
    pub(super) segments: Table<'txn, u64, &'static [u8]>,
    pub(super) index: Table<'txn, u64, Indexed>,
    staged: Table<'txn, u64, (u64, &'static str)>,
    pub(super) usage: Table<'txn, &'static str, u64>,
    pub(super) runs: Table<'txn, u64, &'static [u8]>,
    runs_of: Table<'txn, Ordered, u64>,
    pub(super) tokens: Table<'txn, Ordered, &'static [u8]>,
    pub(super) sinks: Table<'txn, &'static str, u64>,
    pub(super) consumers: Rows<'txn>,
    pub(super) vault: Rows<'txn>,
    sensitive: Table<'txn, (&'static str, &'static str, &'static str), u8>,
    approved: Table<'txn, &'static str, &'static [u8]>,
    faults: Table<'txn, &'static str, &'static [u8]>,
    placements: Table<'txn, &'static str, &'static [u8]>,
    revisions: Table<'txn, (&'static str, &'static str), &'static [u8]>,
    pub(super) shadows: Table<'txn, (&'static str, &'static str), &'static [u8]>,
    pub(super) dead_letters: Table<'txn, Ordered, &'static [u8]>,
    pub(super) refused: Table<'txn, (&'static str, u64), &'static [u8]>,
}

pub(super) fn group(db: &Database, group: &[Write], quota: Quota, keys: &Keys) -> Result<Written, Fault> {
    let txn = db.begin_write()?;
    let (members, counters, changed) = {
        let mut tables = Tables::open(&txn, keys)?;
        let before = read_counters(&tables.meta)?;
        let total = read_number(&tables.meta, BYTES)?;
        let mut plan = Plan::new(&tables, quota, before, total);
        let steps = group.iter().map(|write| plan.judge(write)).collect::<Result<Vec<_>, Fault>>()?;
        let (counters, total, bytes) = (plan.counters, plan.total, std::mem::take(&mut plan.bytes));
        let mut next = Next { segment: before.segment + 1, letter: before.letter + 1 };
        let mut members = Vec::with_capacity(group.len());
        let changed = steps.iter().any(Result::is_ok);
        for (write, step) in group.iter().zip(steps) {
            members.push(match step {
                Err(error) => Err(error),
                Ok(step) => Ok(tables.perform(write, step, &mut next)?),
            });
        }
        let given = (next.segment - 1, next.letter - 1);
        debug_assert_eq!(given, (counters.segment, counters.letter), "the plan and the work count alike");
        for (connection, bytes) in bytes {
            tables.set_usage(connection.as_str(), bytes)?;
        }
        tables.meta.insert(BYTES, total)?;
        tables.set_counters(before, counters)?;
        (members, counters, changed)
    };
    end(txn, changed)?;
    Ok(Written { members, counters })
}

/// Ends a transaction; one that changed nothing costs no flush.
pub(super) fn end(txn: WriteTransaction, changed: bool) -> Result<(), Fault> {
    if changed { Ok(txn.commit()?) } else { Ok(txn.abort()?) }
}

/// What is given out while a group is written.
pub(super) struct Next {
    segment: u64,
    letter: u64,
}

impl Next {
    pub(super) fn letter(&mut self) -> u64 {
        self.letter += 1;
        self.letter - 1
    }

    fn segment(&mut self) -> u64 {
        self.segment += 1;
        self.segment - 1
    }
}

impl Stored for Tables<'_> {
    type Error = Fault;

    fn known(&self, key: &TypeKey) -> Result<Option<Known>, Fault> {
        let known = |state: TypeState| Known { revision: state.revision, name: state.sync.name() };
        Ok(read_state(&self.states, key, self.keys)?.map(known))
    }

    fn bytes(&self, connection: &ConnectionName) -> Result<u64, Fault> {
        Ok(self.usage.get(connection.as_str())?.map_or(0, |row| row.value()))
    }

    fn consumer(&self, name: &str) -> Result<Option<Consumer>, Fault> {
        read_consumer(&self.consumers, name)
    }

    fn is_staged(&self, number: u64) -> Result<bool, Fault> {
        Ok(self.staged.get(number)?.is_some())
    }
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction, keys: &'txn Keys) -> Result<Self, Fault> {
        Ok(Self {
            keys,
            meta: txn.open_table(META)?,
            states: txn.open_table(STATES)?,
            segments: txn.open_table(SEGMENTS)?,
            index: txn.open_table(INDEX)?,
            staged: txn.open_table(STAGED)?,
            usage: txn.open_table(USAGE)?,
            runs: txn.open_table(RUNS)?,
            runs_of: txn.open_table(RUNS_OF)?,
            tokens: txn.open_table(TOKENS)?,
            sinks: txn.open_table(SINKS)?,
            consumers: txn.open_table(CONSUMERS)?,
            vault: txn.open_table(VAULT)?,
            sensitive: txn.open_table(SENSITIVE)?,
            approved: txn.open_table(APPROVED)?,
            faults: txn.open_table(FAULTS)?,
            placements: txn.open_table(PLACEMENTS)?,
            revisions: txn.open_table(REVISIONS)?,
            shadows: txn.open_table(SHADOWS)?,
            dead_letters: txn.open_table(DEAD_LETTERS)?,
            refused: txn.open_table(REFUSED)?,
        })
    }

    fn perform(&mut self, write: &Write, step: Step, next: &mut Next) -> Result<Done, Fault> {
        match (write, step) {
            (Write::Commit(commit), Step::Commit { sequences, history }) => {
                self.publish(commit, sequences.first, next)?;
                self.commit(commit, history, next)?;
                Ok(Done::Committed(sequences))
            }
            (Write::Stage { connection, segments }, _) => self.stage(connection, segments, next),
            (Write::Delivered { sink, delivered }, _) => {
                if let Some(position) = delivered.position {
                    self.sinks.insert(sink.as_str(), position)?;
                }
                refused::write(&mut self.refused, sink, delivered, next, self.keys)?;
                Ok(Done::Nothing)
            }
            (Write::AddConsumer { name, .. } | Write::Acknowledge { name, .. }, Step::Consumer(consumer)) => {
                self.consumers.insert(name.as_str(), row(&consumer)?.as_slice())?;
                Ok(Done::Nothing)
            }
            (Write::Keep { credential, content }, _) => {
                let sealed = self.keys.seal(Kind::Vault, content.clone());
                self.vault.insert(credential.as_str(), sealed.as_slice())?;
                Ok(Done::Nothing)
            }
            (Write::Approve { connection, approved }, _) => {
                self.approved.insert(connection.as_str(), row(approved)?.as_slice())?;
                Ok(Done::Nothing)
            }
            (Write::Faults { connector, faults }, _) => {
                self.faults.insert(connector.as_str(), row(faults)?.as_slice())?;
                Ok(Done::Nothing)
            }
            (Write::Place { placements }, _) => {
                for (connection, placement) in placements {
                    self.placements.insert(connection.as_str(), row(placement)?.as_slice())?;
                }
                Ok(Done::Nothing)
            }
            (Write::Revision { connector, revision, forgotten }, _) => {
                for sha256 in forgotten {
                    self.revisions.remove((connector.as_str(), sha256.as_str()))?;
                }
                let key = (connector.as_str(), revision.sha256.as_str());
                self.revisions.insert(key, row(revision)?.as_slice())?;
                Ok(Done::Nothing)
            }
            (Write::Sensitive { connection, attributes }, _) => {
                for (class, attribute) in attributes {
                    self.sensitive.insert((connection.as_str(), class.as_str(), attribute.as_str()), 1)?;
                }
                Ok(Done::Nothing)
            }
            (Write::RemoveConsumer { name }, _) => {
                self.consumers.remove(name.as_str())?;
                Ok(Done::Nothing)
            }
            (write, step) => unreachable!("{step:?} for {write:?}"),
        }
    }

    /// Writes segments that nobody sees.
    fn stage(&mut self, connection: &ConnectionName, segments: &[Segment], next: &mut Next) -> Result<Done, Fault> {
        let mut staged = Vec::with_capacity(segments.len());
        for segment in segments {
            let (number, bytes) = (next.segment(), segment.bytes.len() as u64);
            self.segments.insert(number, segment.bytes.as_slice())?;
            self.staged.insert(number, (bytes, connection.as_str()))?;
            staged.push(StagedSegment { number, count: segment.count, bytes });
        }
        Ok(Done::Staged(staged))
    }

    /// Gives the entries of a commit their sequences.
    fn publish(&mut self, commit: &Prepared, first: u64, next: &mut Next) -> Result<(), Fault> {
        let connection = commit.key.connection.as_str();
        let mut sequence = first;
        for StagedSegment { number, count, bytes } in &commit.staged {
            self.staged.remove(number)?;
            self.index.insert(sequence, (*number, *count, *bytes, commit.at.0, connection))?;
            sequence += u64::from(*count);
        }
        for segment in &commit.segments {
            let (number, bytes) = (next.segment(), segment.bytes.len() as u64);
            self.segments.insert(number, segment.bytes.as_slice())?;
            self.index.insert(sequence, (number, segment.count, bytes, commit.at.0, connection))?;
            sequence += u64::from(segment.count);
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Prepared, history: bool, next: &mut Next) -> Result<(), Fault> {
        self.states.insert(state_key(&commit.key), self.keys.row(Kind::State, &commit.state)?.as_slice())?;
        dead_letter::write(&mut self.dead_letters, commit, next, self.keys)?;
        if history {
            self.token_change(commit)?;
        }
        match &commit.report {
            Some(report) => self.report(report),
            None => Ok(()),
        }
    }

    fn token_change(&mut self, commit: &Prepared) -> Result<(), Fault> {
        let change = TokenChange::new(&commit.state, commit.run, commit.at);
        let newest = self.tokens.range(all_of(&commit.key))?.next_back().transpose()?;
        let ordinal = match &newest {
            // The run that established a token ends with it: that is one event.
            Some((_, last)) if !commit.marked && same_token(self.keys, last.value(), &change) => return Ok(()),
            Some((key, _)) => key.value().2 + 1,
            None => 1,
        };
        drop(newest);
        self.tokens.insert(ordered_key(&commit.key, ordinal), self.keys.row(Kind::Token, &change)?.as_slice())?;
        if ordinal > KEPT {
            self.tokens.remove(ordered_key(&commit.key, ordinal - KEPT))?;
        }
        Ok(())
    }

    fn report(&mut self, report: &RunReport) -> Result<(), Fault> {
        if self.runs.insert(report.run, self.keys.row(Kind::Run, report)?.as_slice())?.is_some() {
            return Ok(());
        }
        let newest = self.runs_of.range(all_of(&report.key))?.next_back().transpose()?;
        let ordinal = newest.map_or(1, |(key, _)| key.value().2 + 1);
        self.runs_of.insert(ordered_key(&report.key, ordinal), report.run)?;
        if ordinal > KEPT {
            let oldest = self.runs_of.remove(ordered_key(&report.key, ordinal - KEPT))?.map(|run| run.value());
            if let Some(run) = oldest {
                self.runs.remove(run)?;
            }
        }
        Ok(())
    }

    pub(super) fn set_usage(&mut self, connection: &str, bytes: u64) -> Result<(), Fault> {
        match bytes {
            0 => self.usage.remove(connection)?.map(drop),
            bytes => self.usage.insert(connection, bytes)?.map(drop),
        };
        Ok(())
    }

    fn set_counters(&mut self, before: Counters, after: Counters) -> Result<(), Fault> {
        for (name, before, after) in [
            (LAST_SEQUENCE, before.sequence, after.sequence),
            (LAST_RUN, before.run, after.run),
            (LAST_SEGMENT, before.segment, after.segment),
            (LAST_DEAD_LETTER, before.letter, after.letter),
        ] {
            if before != after {
                self.meta.insert(name, after)?;
            }
        }
        Ok(())
    }

    /// The numbers of all segments that are staged.
    pub(super) fn staged(&self) -> Result<Vec<u64>, Fault> {
        Ok(self.staged.iter()?.map(|entry| entry.map(|(number, _)| number.value())).collect::<Result<_, _>>()?)
    }

    /// Drops those of these segments that are staged still. Answers how many.
    pub(super) fn discard(&mut self, numbers: &[u64]) -> Result<u64, Fault> {
        let mut dropped = 0;
        for number in numbers {
            let staged = self.staged.remove(number)?.map(|row| (row.value().0, row.value().1.to_owned()));
            let Some((bytes, connection)) = staged else { continue };
            self.segments.remove(number)?;
            self.free(&connection, bytes)?;
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Counts bytes that a connection has no more.
    pub(super) fn free(&mut self, connection: &str, bytes: u64) -> Result<(), Fault> {
        let held = self.usage.get(connection)?.map_or(0, |row| row.value());
        self.set_usage(connection, held.saturating_sub(bytes))?;
        let total = read_number(&self.meta, BYTES)?;
        self.meta.insert(BYTES, total.saturating_sub(bytes))?;
        Ok(())
    }
}

fn same_token(keys: &Keys, last: &[u8], change: &TokenChange) -> bool {
    let last = keys.parse::<TokenChange>(Kind::Token, last, String::new);
    last.is_ok_and(|last| {
        (&last.state, &last.token, last.generation) == (&change.state, &change.token, change.generation)
    })
}
