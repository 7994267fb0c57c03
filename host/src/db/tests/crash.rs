//! The db on a disk that loses power: what was not flushed is lost, torn or there, flushes fail, the disk fills up. A model that knows
//! what was acknowledged says what must be there afterwards: all of it, and of a group that was under way all or nothing.

use std::io;
use std::sync::MutexGuard;

use fastrand::Rng;

use super::*;

/// What a disk has, and what is on its way there.
#[derive(Debug, Default)]
struct Platter {
    /// As a process sees it.
    seen: Vec<u8>,
    /// As it is after a power cut, but for what is unflushed.
    flushed: Vec<u8>,
    unflushed: Vec<(usize, Vec<u8>)>,
    /// Fails everything from the n-th write or flush on.
    fails_after: Option<u64>,
    /// Counts power cuts: what was opened before one can't write any more.
    cuts: u64,
}

#[derive(Clone, Debug, Default)]
struct Power {
    platter: Arc<Mutex<Platter>>,
    /// After so many cuts it was opened.
    cuts: u64,
}

impl Power {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap()
    }

    /// The power goes, and comes back: of each write that was not flushed nothing, a part or all is there.
    fn cut(&self, chance: &mut Rng) {
        let mut platter = self.platter();
        let mut after = std::mem::take(&mut platter.flushed);
        let length = platter.seen.len().max(after.len());
        after.resize(length, 0);
        for (at, bytes) in std::mem::take(&mut platter.unflushed) {
            let kept = match chance.u64(..3) {
                0 => 0,
                1 => bytes.len(),
                _ => usize::try_from(chance.u64(..bytes.len() as u64 + 1)).unwrap() / 512 * 512,
            };
            after[at..at + kept].copy_from_slice(&bytes[..kept]);
        }
        platter.seen = after.clone();
        platter.flushed = after;
        platter.fails_after = None;
        platter.cuts += 1;
    }

    /// The disk as whoever opens it now has it.
    fn now(&self) -> Self {
        Self { platter: Arc::clone(&self.platter), cuts: self.platter().cuts }
    }

    fn step(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.platter();
        if platter.cuts != self.cuts {
            return Err(io::ErrorKind::NotConnected.into());
        }
        match &mut platter.fails_after {
            Some(0) => return Err(io::ErrorKind::StorageFull.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(platter)
    }
}

impl StorageBackend for Power {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (platter, at) = (self.platter(), usize::try_from(offset).unwrap());
        out.copy_from_slice(&platter.seen[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.step()?;
        let len = usize::try_from(len).unwrap();
        platter.seen.resize(len, 0);
        platter.flushed.resize(len, 0);
        platter.unflushed.retain(|(at, bytes)| at + bytes.len() <= len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.step()?;
        for (at, bytes) in std::mem::take(&mut platter.unflushed) {
            platter.flushed[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut platter, at) = (self.step()?, usize::try_from(offset).unwrap());
        platter.seen[at..at + data.len()].copy_from_slice(data);
        platter.unflushed.push((at, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }
}

const TYPES: [&str; 3] = ["a", "b", "c"];

/// What must be there.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    /// Sequence and uid of what is kept.
    journal: Vec<(u64, String)>,
    last: u64,
    revisions: [u64; 3],
    sink: u64,
    /// What the consumer acknowledged.
    consumer: u64,
    /// Type, number and uid of the dead letters.
    letters: Vec<(usize, u64, String)>,
    /// Sequence, number and problem of the dead letters of the sink.
    refused: Vec<(u64, u64, Option<String>)>,
    last_letter: u64,
}

impl Model {
    fn commit(&mut self, of: usize, uids: impl IntoIterator<Item = String>) {
        self.revisions[of] += 1;
        for uid in uids {
            self.last += 1;
            self.journal.push((self.last, uid));
        }
    }

    fn letters(&mut self, of: usize, Letters { kept, resolved, .. }: &Letters) {
        self.letters.retain(|(_, number, _)| !resolved.contains(number));
        for letter in kept {
            self.last_letter += 1;
            self.letters.push((of, self.last_letter, letter.uid.clone()));
        }
        self.letters.sort();
    }
}

/// A delta that is kept out of the journal.
pub(super) fn kept(uid: &str, fault: Option<&str>) -> DeadLetter {
    let (object_class, fault) = ("account".to_owned(), fault.map(str::to_owned));
    let (uid, kind, delta) = (uid.to_owned(), Change::DELETE.to_owned(), Some(named(uid)));
    DeadLetter { object_class, uid, previous_uid: None, kind, fault, delta }
}

struct World {
    chance: Rng,
    power: Power,
    store: RedbStore,
    durable: Durable,
    model: Model,
    /// What is staged now, with its uids.
    staged: Vec<(StagedSegment, Vec<String>)>,
    names: u64,
}

fn opened(power: &Power) -> RedbStore {
    let backend = power.now();
    let opener = move || builder().create_with_backend(backend.clone());
    let database = opener().unwrap();
    RedbStore::new(Box::new(opener), None, database, Arc::default())
}

impl World {
    fn new(seed: u64) -> Self {
        let power = Power::default();
        let database = builder().create_with_backend(power.clone()).unwrap();
        migrate::write_first(&database).unwrap();
        drop(database);
        let store = opened(&power);
        let durable = Durable::new(store.counters().unwrap());
        let consumer = Consumer::new(Incarnation(1), 0, None, UnixMillis(1));
        let added = write_group(&store, &durable, &[Write::AddConsumer { name: "audit".into(), consumer }]);
        assert!(added[0].is_ok());
        let (chance, model) = (Rng::with_seed(seed), Model::default());
        Self { chance, power, store, durable, model, staged: Vec::new(), names: 0 }
    }

    fn uids(&mut self) -> Vec<String> {
        let count = if self.chance.u64(..20) == 0 { 3000 } else { self.chance.u64(..6) };
        (0..count)
            .map(|_| {
                self.names += 1;
                format!("uid-{}", self.names)
            })
            .collect()
    }

    async fn step(&mut self) {
        match self.chance.u64(..12) {
            0 => self.cut(),
            1 => self.stage().await,
            2 => self.retain(),
            3 if !self.staged.is_empty() => {
                let (segment, _) = self.staged.remove(0);
                self.store.chore(&Chore::Discard { staged: vec![segment] }).unwrap();
            }
            _ => self.commits().await,
        }
    }

    /// A group of some commits and whatever else comes with them; now and then one of them expects the wrong revision.
    async fn commits(&mut self) {
        let (mut group, mut model) = (Vec::new(), self.model.clone());
        for _ in 0..=self.chance.u64(..3) {
            let of = usize::try_from(self.chance.u64(..3)).unwrap();
            let wrong = self.chance.u64(..6) == 0;
            let uids = self.uids();
            let deltas: Vec<SyncDelta> = uids.iter().map(|uid| named(uid)).collect();
            let revision = model.revisions[of] + 1 + u64::from(wrong);
            let staged = if wrong || self.chance.u64(..2) == 0 { Vec::new() } else { std::mem::take(&mut self.staged) };
            let published: Vec<String> = staged.iter().flat_map(|(_, uids)| uids.clone()).collect();
            let mut commit = commit(TYPES[of], revision, 0);
            let resolved = model.letters.iter().filter(|(of_type, ..)| *of_type == of).map(|(_, number, _)| *number);
            commit.letters.resolved = resolved.take(usize::try_from(self.chance.u64(..3)).unwrap()).collect();
            commit.letters.kept =
                (0..self.chance.u64(..3)).map(|n| kept(&format!("{}-{n}", self.names), Some("bad"))).collect();
            commit.batches = vec![pack(&deltas).unwrap()];
            commit.staged = staged.into_iter().map(|(segment, _)| segment).collect();
            if !wrong {
                model.commit(of, published.into_iter().chain(uids));
                model.letters(of, &commit.letters);
            }
            group.push(Write::Commit(Box::new(prepare(commit, &Keys::default()).await.unwrap())));
        }
        if self.chance.u64(..3) == 0 {
            model.sink = self.chance.u64(..model.last + 1).max(model.sink);
            let delivered = self.delivered(&mut model);
            group.push(Write::Delivered { sink: "file".into(), delivered: Box::new(delivered) });
        }
        if self.chance.u64(..3) == 0 {
            let (sequence, knows) = (self.chance.u64(..model.last + 1), self.chance.bool());
            // What came twice changes nothing.
            model.consumer = sequence.max(model.consumer);
            let (name, incarnation) = ("audit".to_owned(), Incarnation(1));
            group.push(Write::Acknowledge { name, incarnation, sequence, knows, at: UnixMillis(1) });
        }
        self.write(group, model);
    }

    /// A sink got on: it refuses some, and is done with some that it refused.
    fn delivered(&mut self, model: &mut Model) -> Delivered {
        let mut delivered = Delivered::upto(model.sink, UnixMillis(1));
        for (sequence, _, problem) in &mut model.refused {
            match self.chance.u64(..4) {
                0 => delivered.gone.push(*sequence),
                1 => {
                    let judged = self.chance.bool().then(|| "refused again".to_owned());
                    *problem = judged.clone().or(problem.take());
                    delivered.judged.push((*sequence, judged));
                }
                _ => {}
            }
        }
        model.refused.retain(|(sequence, ..)| !delivered.gone.contains(sequence));
        // Somebody else was done with it before: it stays gone.
        delivered.judged.push((1, Some("gone".into())));
        for _ in 0..self.chance.u64(..3) {
            self.names += 1;
            model.last_letter += 1;
            let (sequence, problem) = (1_000_000 + self.names, self.chance.bool().then(|| "refused".to_owned()));
            model.refused.push((sequence, model.last_letter, problem.clone()));
            let id = EntryId { incarnation: Incarnation(1), sequence };
            let body = Body::Delta(named(&format!("uid-{}", self.names)));
            let (key, at) = (key("a"), UnixMillis(1));
            delivered.kept.push((Entry { id, key, generation: 1, run: None, at, body }, problem));
        }
        delivered
    }

    async fn stage(&mut self) {
        let uids = self.uids();
        if uids.is_empty() {
            return;
        }
        let deltas: Vec<SyncDelta> = uids.iter().map(|uid| named(uid)).collect();
        let key = key("a");
        let head = Head { key: key.clone(), generation: 2, run: Some(1), at: UnixMillis(1) };
        let segments = encode(&head, None, vec![pack(&deltas).unwrap()], &Keys::default()).await.unwrap();
        let model = self.model.clone();
        let answers = self.write(vec![Write::Stage { connection: key.connection, segments }], model);
        if let Some(Ok(Done::Staged(staged))) = answers.into_iter().next() {
            let mut rest = uids.into_iter();
            for segment in staged {
                let of = rest.by_ref().take(segment.count as usize).collect();
                self.staged.push((segment, of));
            }
        }
    }

    fn retain(&mut self) {
        let policy = Policy { keep: Some(Duration::ZERO), quota: Quota::UNLIMITED, sinks: vec!["file".into()] };
        if self.store.chore(&Chore::Retain { policy, room: 0, now: UnixMillis(i64::MAX) }).is_ok() {
            // Whole segments go: how many is known to the db, and never one that the sink or the consumer has not got.
            let first = self.store.counters().unwrap().first;
            let delivered = self.model.sink.min(self.model.consumer);
            assert!(first <= delivered + 1, "an entry that was not delivered was dropped");
            self.model.journal.retain(|(sequence, _)| *sequence >= first);
        }
    }

    /// Writes a group, perhaps on a disk that fails in the middle; then what is there is the old or the new.
    fn write(&mut self, group: Vec<Write>, new: Model) -> Vec<Result<Done, CommitError>> {
        let fails = self.chance.u64(..4) == 0;
        if fails {
            let after = self.chance.u64(..12);
            self.power.platter().fails_after = Some(after);
        }
        let answers = write_group(&self.store, &self.durable, &group);
        let failed = answers.iter().any(|answer| matches!(answer, Err(CommitError::Storage(_))));
        if failed {
            // Either the disk comes back, or the power goes.
            if self.chance.u64(..2) == 0 {
                self.power_cycle()
            } else {
                self.power.platter().fails_after = None
            }
            // As a run does that is told of a failure, and of which the commit may have happened.
            let staged = group.iter().filter_map(|write| match write {
                Write::Commit(commit) => Some(commit.staged.clone()),
                _ => None,
            });
            let staged = staged.flatten().chain(self.staged.drain(..).map(|(segment, _)| segment)).collect();
            self.store.chore(&Chore::Discard { staged }).unwrap();
            let there = self.read();
            assert!(
                there == self.model || there == new,
                "neither the old nor the new:\n{there:?}\n{:?}\n{new:?}",
                self.model
            );
            self.model = there;
            // What was being staged is known to nobody.
            self.store.drop_staged().unwrap();
        } else {
            self.power.platter().fails_after = None;
            self.model = new;
        }
        answers
    }

    fn cut(&mut self) {
        self.power_cycle();
        assert_eq!(self.read(), self.model, "what was acknowledged is there after a power cut");
    }

    fn power_cycle(&mut self) {
        self.power.cut(&mut self.chance);
        self.store = opened(&self.power);
        self.store.drop_staged().unwrap();
        self.durable = Durable::new(self.store.counters().unwrap());
        self.staged.clear();
    }

    fn read(&self) -> Model {
        let counters = self.store.counters().unwrap();
        let journal = (counters.first..).zip(journaled(&self.store)).collect();
        let revision = |name: &str| self.store.state(&key(name)).unwrap().map_or(0, |state| state.revision);
        let sink = self.store.sink_position("file").unwrap();
        let consumer = self.store.consumers().unwrap()["audit"].position;
        let stored = |of: usize| self.store.dead_letters(Some(&key(TYPES[of]))).unwrap().into_iter();
        let letters = (0..3).flat_map(|of| stored(of).map(move |stored| (of, stored.number, stored.letter.uid)));
        let (letters, last_letter) = (letters.collect(), counters.letter);
        let refused = self.store.refused(Some("file")).unwrap().into_values().flatten();
        let refused = refused.map(|one| (one.entry.id.sequence, one.number, one.problem)).collect();
        let (last, revisions) = (counters.sequence, TYPES.map(revision));
        Model { journal, last, revisions, sink, consumer, letters, refused, last_letter }
    }
}

/// The uids of all entries, which are one behind the other.
pub(super) fn journaled(store: &RedbStore) -> Vec<String> {
    let counters = store.counters().unwrap();
    let (mut uids, mut after) = (Vec::new(), counters.first - 1);
    while after < counters.sequence {
        for entry in journal::read(store, Incarnation(1), after, 10_000).unwrap() {
            let Body::Delta(delta) = entry.body else { panic!("no marker was written") };
            after += 1;
            assert_eq!(entry.id.sequence, after, "a gap");
            uids.push(delta.change.uid().to_owned());
        }
    }
    uids
}

pub(super) fn named(uid: &str) -> SyncDelta {
    let change = Change::Delete { uid: uid.into(), name: None, last_known: None };
    SyncDelta { object_class: "account".into(), change, source_time: None }
}

#[expect(clippy::disallowed_methods, reason = "how xtask says how long a test may take")]
fn seeds() -> u64 {
    let asked = std::env::var("TIDEWAITER_TEST_SEEDS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if std::env::var_os("TIDEWAITER_TEST_QUICK").is_some() { 200 } else { 2000 })
}

#[test]
fn a_disk_that_loses_power_loses_nothing_that_was_acknowledged() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for seed in 0..seeds() {
        let history = async {
            let mut world = World::new(seed);
            for _ in 0..25 {
                world.step().await;
            }
            assert_eq!(world.read(), world.model);
            assert_eq!(world.store.check(true).unwrap().problems, Vec::<String>::new());
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(history)));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
