//! Passes over a simulated source, by comparison and as reconciliations beside live sync: objects come, change and go while
//! it is read, calls fail, writes fail, and the process is killed at any step. An oracle that knows the source checks the journal:
//! every entry says something new, and at the end the journal says what the source has.

#![allow(clippy::unwrap_used, reason = "a test")]

mod seeds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use tidewaiter_core::guard::Tally;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{
    BatchInfo, CommitFailure, ConnectorError, Effect, ErrorKind, Failure, Filter, Outcome, Reading, Run, RunReport,
    Terms, Trigger,
};
use tidewaiter_core::shadow::{Index, Pass, Verdict};
use tidewaiter_core::state::{From, OnTokenLost, SyncState, TypeState};
use tidewaiter_core::time::UnixMillis;
use tidewaiter_core::token::SyncToken;

const UIDS: u64 = 40;
const PAGE: usize = 7;
const NOW: UnixMillis = UnixMillis(1_774_000_000_000);

/// What an entry says of an object; none: it is gone.
type Said = (u64, Option<u64>);

/// What survives a kill.
struct Disk {
    state: TypeState,
    journal: Vec<Said>,
    /// The shadow: what was said last by uid, and up to which entry it is brought up.
    rows: BTreeMap<u64, u64>,
    position: usize,
    /// Passes that came to their end.
    complete: u32,
}

impl Disk {
    /// As the host does it: from the entries behind the position. Answers what they are about.
    fn bring_up(&mut self) -> Vec<u64> {
        let behind = &self.journal[self.position..];
        for (uid, value) in behind {
            match value {
                None => self.rows.remove(uid),
                Some(value) => self.rows.insert(*uid, *value),
            };
        }
        let said = behind.iter().map(|(uid, _)| *uid).collect();
        self.position = self.journal.len();
        said
    }
}

/// Spread, as keyed hashes are.
fn key_of(uid: u64) -> u128 {
    u128::from((uid + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64
}

fn hash_of(value: u64) -> u128 {
    u128::from(value + 1) << 80
}

/// What a connector is asked for, and how far it is.
struct Call {
    /// Uids that are still to be handed over; looked up when they are.
    uids: VecDeque<u64>,
    next: Option<usize>,
    /// What a pass missed, to be told at the end of the call if it is gone.
    missing: Vec<u64>,
}

enum Writing {
    Commit { batches: usize, expected: u64, state: TypeState },
}

struct Process {
    run: Option<Run>,
    pass: Option<Pass>,
    call: Option<Call>,
    held: VecDeque<Vec<Said>>,
    writing: Option<Writing>,
    /// The reading under way; none: live sync, or a run by comparison.
    reading: Option<Reading>,
    next: Option<usize>,
    /// What is missing of a pass, chunk by chunk.
    missing: Option<VecDeque<u64>>,
    by_token: bool,
    /// The source as it was when the pass began, where it is read as of then.
    snapshot: Option<BTreeMap<u64, u64>>,
}

struct World {
    chance: Rng,
    source: BTreeMap<u64, u64>,
    /// The source's log, as a live sync of it goes through it.
    log: Vec<Said>,
    values: u64,
    disk: Disk,
    process: Process,
    /// Changes come by comparison; otherwise by token, and passes are reconciliations.
    compares: bool,
    rough: bool,
    terms: Terms,
    reports: Vec<RunReport>,
}

fn key() -> TypeKey {
    TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() }
}

fn failure() -> Failure {
    let (kind, message) = (ErrorKind::ConnectionBroken, "went away".to_owned());
    Failure::Connector(ConnectorError { kind, message, retry_after_ms: None })
}

fn idle() -> Process {
    let (held, by_token) = (VecDeque::new(), false);
    Process {
        run: None,
        pass: None,
        call: None,
        held,
        writing: None,
        reading: None,
        next: None,
        missing: None,
        by_token,
        snapshot: None,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = Limits { stage_bytes: 250, pending_bytes_max: 400, ..Limits::default() };
        let disk = Disk {
            state: TypeState::first(From::Beginning, NOW),
            journal: Vec::new(),
            rows: BTreeMap::new(),
            position: 0,
            complete: 0,
        };
        let terms = Terms { limits, on_token_lost: OnTokenLost::Stop, ..Terms::default() };
        Self {
            chance: Rng::with_seed(seed),
            source: BTreeMap::new(),
            log: Vec::new(),
            values: 0,
            disk,
            process: idle(),
            compares: seed.is_multiple_of(2),
            rough: true,
            terms,
            reports: Vec::new(),
        }
    }

    /// Something happens in the source.
    fn change(&mut self) {
        let uid = self.chance.u64(..UIDS);
        let value = if self.source.contains_key(&uid) && self.chance.u64(..3) == 0 {
            self.source.remove(&uid);
            None
        } else {
            // Some changes are back to what it was before, a few times.
            self.values += self.chance.u64(..3);
            self.source.insert(uid, self.values);
            Some(self.values)
        };
        self.log.push((uid, value));
    }

    fn step(&mut self) {
        match self.chance.u64(..12) {
            0..=2 => self.change(),
            3 if self.rough && self.chance.u64(..12) == 0 => self.process = idle(),
            3 if self.rough && self.chance.u64(..6) == 0 => self.supersede(),
            4..=6 => self.write(),
            7..=9 => self.work(),
            _ => self.begin(),
        }
        self.settle();
    }

    /// An operator does something to the token while objects are read: the page is read again.
    fn supersede(&mut self) {
        if let Some(run) = self.process.run.as_mut().filter(|_| !self.compares && !self.process.by_token) {
            run.handle_superseded(NOW);
        }
    }

    /// A run begins, if none is under way.
    fn begin(&mut self) {
        if self.process.run.is_some() {
            return;
        }
        let (stored, terms) = (self.disk.state.clone(), self.terms.clone());
        if self.compares {
            self.begin_pass();
            self.process.run = Some(Run::comparing(key(), 1, Trigger::Schedule, stored, terms, NOW));
            return;
        }
        // Live sync has its turn between pages.
        if self.process.pass.is_none() || self.chance.bool() {
            if self.process.pass.is_none() && self.disk.state.sync.token().is_some() && self.chance.u64(..3) == 0 {
                self.begin_pass();
                self.process.reading = Some(Reading { filter: Filter::All, page: None, dry_run: false });
                return;
            }
            self.process.by_token = true;
            self.process.run = Some(Run::new(key(), 1, Trigger::Schedule, stored, terms, NOW));
            return;
        }
        let reading = self.process.reading.clone().unwrap();
        self.bring_up();
        self.process.pass.as_mut().unwrap().settle();
        self.process.by_token = false;
        self.process.run = Some(Run::reading((key(), 1), stored, terms, reading, NOW));
    }

    fn begin_pass(&mut self) {
        self.disk.bring_up();
        let rows = self.disk.rows.iter().map(|(uid, value)| (key_of(*uid), hash_of(*value)));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        let mut index = Index::with_capacity(rows.len() as u64);
        rows.into_iter().for_each(|(key, hash)| index.push(key, Some(hash)));
        self.process.pass = Some(Pass::new(index));
        self.process.missing = None;
        self.process.snapshot = self.chance.bool().then(|| self.source.clone());
    }

    fn bring_up(&mut self) {
        let said = self.disk.bring_up();
        let pass = self.process.pass.as_mut().unwrap();
        said.into_iter().for_each(|uid| pass.journaled(key_of(uid)));
    }

    fn settle(&mut self) {
        while let Some(effect) = self.process.run.as_mut().and_then(Run::poll_effect) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Sync { token, .. } => {
                let from = match token {
                    Some(SyncToken::Integer(from)) => usize::try_from(from).unwrap(),
                    _ => 0,
                };
                self.process.call = Some(Call { uids: VecDeque::new(), next: Some(from), missing: Vec::new() });
            }
            Effect::Search(Reading { filter, page, .. }) => self.search(filter, page),
            Effect::Next => {
                let next = self.next();
                let run = self.process.run.as_mut().unwrap();
                run.handle_next(Ok(next), NOW);
            }
            Effect::Commit { batches, expected_revision: expected, state, published, .. } => {
                assert!(self.process.writing.is_none(), "two writes at once");
                assert_eq!(published, 0, "nothing was staged");
                self.process.writing = Some(Writing::Commit { batches, expected, state });
            }
            Effect::Finish { report, .. } => self.finish(report),
            Effect::Stage { .. } | Effect::Forget { .. } | Effect::Gone { .. } | Effect::AskLatest { .. } => {
                unreachable!("{effect:?}")
            }
            Effect::Stop | Effect::Flushed { .. } => {}
        }
    }

    /// Pages go by uid, and the source may page without an order: then an object comes twice, or is on no page.
    fn search(&mut self, filter: Filter, page: Option<Vec<u8>>) {
        let (uids, next, missing): (Vec<u64>, _, _) = match filter {
            Filter::Missing { uids, .. } => {
                let uids: Vec<u64> = uids.iter().map(|uid| uid.parse().unwrap()).collect();
                (uids.clone(), None, uids)
            }
            Filter::All => {
                let from = page.map_or(0, |page| usize::from(page[0]));
                let to = from + PAGE;
                let mut uids: Vec<u64> = (from as u64..to as u64).collect();
                if self.chance.u64(..4) == 0 {
                    uids.push(self.chance.u64(..to as u64));
                }
                (uids, (to < usize::try_from(UIDS).unwrap()).then_some(to), Vec::new())
            }
            Filter::ByUid { .. } | Filter::Letter { .. } => unreachable!(),
        };
        self.process.call = Some(Call { uids: uids.into(), next, missing });
    }

    /// What a pass reads next.
    fn next(&mut self) -> Option<Reading> {
        if let Some(page) = self.process.next.take() {
            let page = Some(vec![u8::try_from(page).unwrap()]);
            return Some(Reading { filter: Filter::All, page, dry_run: false });
        }
        self.bring_up();
        let pass = self.process.pass.as_mut().unwrap();
        let rows = &self.disk.rows;
        let missing = self.process.missing.get_or_insert_with(|| {
            let missing: VecDeque<u64> = rows.keys().copied().filter(|uid| pass.misses(key_of(*uid))).collect();
            assert!(!pass.is_complete() || missing.is_empty(), "complete, and something is missing");
            assert_eq!(missing.len() as u64, pass.missing());
            missing
        });
        let of = missing.len() as u64;
        let uids: Vec<String> = missing.drain(..missing.len().min(3)).map(|uid| uid.to_string()).collect();
        if uids.is_empty() {
            self.disk.complete += 1;
            return None;
        }
        // An empty source has lost its objects here, and nobody doubts it.
        let filter = Filter::Missing { uids, of, found: pass.counts().read, allowed: true };
        Some(Reading { filter, page: None, dry_run: false })
    }

    fn finish(&mut self, report: RunReport) {
        let (ok, superseded) = (report.outcome == Outcome::Ok, report.outcome == Outcome::Superseded);
        self.reports.push(report);
        self.process.run = None;
        self.process.call = None;
        self.process.writing = None;
        self.process.held.clear();
        let over = match () {
            () if self.compares => true,
            () if self.process.by_token || superseded => return,
            () if !ok => true,
            () => {
                self.process.reading = self.next();
                self.process.reading.is_none()
            }
        };
        if over {
            self.process.pass = None;
        }
    }

    fn write(&mut self) {
        let Some(Writing::Commit { batches, expected, state }) = self.process.writing.take() else { return };
        assert_eq!(self.disk.state.revision, expected, "nobody else writes here");
        let result = match self.rough && self.chance.u64(..20) == 0 {
            true => Err(CommitFailure::Storage("the disk is full".into())),
            false => {
                self.disk.journal.extend(self.process.held.drain(..batches).flatten());
                self.disk.state = state;
                Ok(())
            }
        };
        self.process.run.as_mut().unwrap().handle_committed(result, NOW);
    }

    fn work(&mut self) {
        let Some(mut call) = self.process.call.take() else { return };
        let run = self.process.run.as_mut().unwrap();
        let fails = self.rough && self.chance.u64(..30) == 0;
        if self.process.by_token {
            let from = call.next.unwrap();
            let to = (from + self.chance.usize(1..5)).min(self.log.len());
            match () {
                () if fails => run.handle_returned(Err(failure()), false, NOW),
                () if from == to => run.handle_returned(Ok(None), false, NOW),
                () => {
                    let token = SyncToken::Integer(i64::try_from(to).unwrap());
                    self.process.call = Some(Call { next: Some(to), ..call });
                    self.hand_over(self.log[from..to].to_vec(), Some(token));
                }
            }
            return;
        }
        if fails {
            return run.handle_searched(Err(failure()), false, NOW);
        }
        if !run.wants_batches() {
            self.process.call = Some(call);
            return;
        }
        let uids: Vec<u64> = call.uids.drain(..call.uids.len().min(3)).collect();
        let again = !call.missing.is_empty();
        let source = self.process.snapshot.as_ref().filter(|_| !again).unwrap_or(&self.source);
        let read: Vec<(u64, u64)> = uids.into_iter().filter_map(|uid| Some((uid, *source.get(&uid)?))).collect();
        let told = self.judge(&read);
        let is_over = call.uids.is_empty();
        let (next, missing) = (call.next, std::mem::take(&mut call.missing));
        self.process.call = (!is_over).then_some(Call { missing: missing.clone(), ..call });
        self.hand_over(told, None);
        if is_over {
            self.process.next = next;
            let gone = self.gone(&missing);
            self.hand_over(gone, None);
            if let Some(run) = &mut self.process.run {
                run.handle_searched(Ok(()), false, NOW);
            }
        }
    }

    fn judge(&mut self, read: &[(u64, u64)]) -> Vec<Said> {
        // Now and then the rows are brought up in the middle of a page.
        if self.chance.u64(..4) == 0 {
            self.bring_up();
        }
        let pass = self.process.pass.as_mut().unwrap();
        let is_told = |(uid, value): &&(u64, u64)| {
            matches!(
                pass.judge(key_of(*uid), Some(hash_of(*value))),
                Verdict::New | Verdict::Changed | Verdict::Doubted
            )
        };
        read.iter().filter(is_told).map(|(uid, value)| (*uid, Some(*value))).collect()
    }

    fn gone(&mut self, missing: &[u64]) -> Vec<Said> {
        if missing.is_empty() {
            return Vec::new();
        }
        self.bring_up();
        let pass = self.process.pass.as_mut().unwrap();
        let gone: Vec<Said> = missing.iter().filter(|uid| pass.misses(key_of(**uid))).map(|uid| (*uid, None)).collect();
        gone.iter().for_each(|(uid, _)| pass.gone(key_of(*uid)));
        gone
    }

    fn hand_over(&mut self, said: Vec<Said>, checkpoint: Option<SyncToken>) {
        if said.is_empty() && checkpoint.is_none() {
            return;
        }
        let deletes = said.iter().filter(|(_, value)| value.is_none()).count() as u64;
        let tally = Tally { changes: said.len() as u64, deletes };
        self.process.held.push_back(said);
        let info = BatchInfo { tally, bytes: 100, checkpoint, ..BatchInfo::default() };
        self.process.run.as_mut().unwrap().handle_batch(info, NOW);
    }

    /// Nothing fails any more, and nothing new happens in the source: two more passes come to their end.
    fn calm(&mut self) {
        self.rough = false;
        let complete = self.disk.complete;
        for _ in 0..20_000 {
            match self.chance.u64(..3) {
                0 => self.write(),
                1 => self.work(),
                _ => self.begin(),
            }
            self.settle();
            if self.disk.complete >= complete + 2 && self.process.run.is_none() {
                return;
            }
        }
        panic!("no pass came to its end");
    }

    fn judge_all(&self) {
        let mut said: BTreeMap<u64, u64> = BTreeMap::new();
        for (place, (uid, value)) in self.disk.journal.iter().enumerate() {
            let before = match value {
                Some(value) => said.insert(*uid, *value),
                None => said.remove(uid),
            };
            // The source's own log may say the same twice; a comparison never does.
            if self.compares {
                assert_ne!(before, *value, "entry {place} of {uid} says what was said before");
            }
        }
        assert_eq!(said, self.source, "the journal says what the source has");
        let read: BTreeSet<&str> = self.reports.iter().map(|report| report.outcome.name()).collect();
        assert!(read.contains("ok"), "{read:?}");
        if self.compares {
            assert_eq!(self.disk.state.sync, SyncState::Compared);
        }
    }
}

#[test]
fn the_journal_says_what_the_source_has_whatever_happens() {
    seeds::each(|seed| {
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.step();
        }
        world.calm();
        world.judge_all();
    });
}

#[test]
fn a_pass_that_finds_nothing_new_writes_nothing() {
    let mut world = World::new(2);
    (0..30).for_each(|_| world.change());
    world.calm();
    let (revision, entries) = (world.disk.state.revision, world.disk.journal.len());
    world.calm();
    assert_eq!((world.disk.state.revision, world.disk.journal.len()), (revision, entries));
}
