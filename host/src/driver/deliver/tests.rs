//! What a sink gets of the journal, whatever its server refuses, whatever fails, whenever the host ends, and whatever operators do about dead
//! letters; and a consumer beside it, while entries are dropped that both have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use tidewaiter_core::journal::{Body, Marker};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::{Change, ConnectorObject, SyncDelta};
use tidewaiter_core::state::{Actor, From, TypeState};
use tidewaiter_core::time::UnixMillis;
use tokio::task::JoinSet;

use super::*;
use crate::db::{Commit, Letters, Policy, Quota, pack};
use crate::sink::Delivering;

const SINK: &str = "hook";
const CONSUMER: &str = "audit";

/// A server, and how it behaves now.
#[derive(Debug, Default)]
struct Behaviour {
    /// It refuses what names one of these.
    refuses: BTreeSet<String>,
    /// Of a hundred requests so many fail, before or after they were taken.
    fails: u32,
    /// Sequences of the entries that it took, as they came.
    took: Vec<u64>,
    chance: Rng,
}

#[derive(Clone, Debug, Default)]
struct Peer(Arc<Mutex<Behaviour>>);

fn names(entry: &Entry) -> Vec<String> {
    match &entry.body {
        Body::Delta(delta) => {
            delta.change.previous_uid().into_iter().chain([delta.change.uid()]).map(str::to_owned).collect()
        }
        _ => vec!["a marker".to_owned()],
    }
}

impl Sink for Peer {
    fn entries_max(&self) -> usize {
        7
    }

    fn resume(&mut self, _: Journal, after: u64) -> io::Result<u64> {
        match self.0.lock().unwrap().fails(10) {
            true => Err(io::Error::other("it can't be made ready")),
            false => Ok(after),
        }
    }

    fn deliver(&mut self, entries: Vec<Entry>) -> Delivering<'_> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut peer = self.0.lock().unwrap();
            if peer.fails(50) {
                return Err(Undelivered::because("broken"));
            }
            let many = peer.chance.usize(1..=entries.len());
            if entries[..many].iter().flat_map(names).any(|uid| peer.refuses.contains(&uid)) {
                return Err(Undelivered { refused: true, ..Undelivered::because("refused") });
            }
            peer.took.extend(entries[..many].iter().map(|entry| entry.id.sequence));
            match peer.fails(50) {
                true => Err(Undelivered::because("taken, and nobody heard of it")),
                false => Ok(entries[many - 1].id.sequence),
            }
        })
    }
}

impl Behaviour {
    fn fails(&mut self, percent: u32) -> bool {
        self.chance.u32(..100) < self.fails * percent / 100
    }
}

struct World {
    chance: Rng,
    db: Db,
    peer: Peer,
    patience: Patience,
    task: JoinSet<()>,
    /// The names in each entry.
    journal: BTreeMap<u64, Vec<String>>,
    dropped: BTreeSet<u64>,
    /// Sequences of what the consumer read, each where it came first.
    read: Vec<u64>,
    revision: u64,
}

fn key() -> TypeKey {
    TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() }
}

impl World {
    fn new(seed: u64, db: Db) -> Self {
        let mut chance = Rng::with_seed(seed);
        let peer = Peer::default();
        peer.0.lock().unwrap().chance = chance.fork();
        let patience = Patience { retries_max: Some(chance.u32(..3)), letters_max: 10_000, letter_bytes_max: 1 << 30 };
        let (task, journal, dropped, read) = Default::default();
        Self { chance, db, peer, patience, task, journal, dropped, read, revision: 0 }
    }

    fn uid(&mut self) -> String {
        self.chance.u8(..8).to_string()
    }

    /// The host ends at any instant, and another one begins.
    async fn restart(&mut self) {
        self.task.shutdown().await;
        // What it had on its way to the db is there before the next one begins.
        self.db.delivered(SINK, Delivered::nothing(UnixMillis(1))).await.unwrap();
        let parts = (self.db.clone(), Clock::start());
        let (mut delivery, _) =
            Delivery::new(parts, SINK.to_owned(), Box::new(self.peer.clone()), self.patience).unwrap();
        delivery.retry = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(4) };
        self.task.spawn(delivery.work(CancellationToken::new()));
    }

    async fn journal(&mut self) {
        let mut deltas = Vec::new();
        for _ in 0..self.chance.u64(..12) {
            let (uid, other) = (self.uid(), self.uid());
            let object = ConnectorObject { uid: uid.clone(), name: String::new(), attributes: Vec::new() };
            let change = match self.chance.u8(..4) {
                0 => Change::Delete { uid, name: None, last_known: None },
                1 => Change::Update { object, previous_uid: Some(other) },
                _ => Change::Update { object, previous_uid: None },
            };
            deltas.push(SyncDelta { object_class: "account".into(), change, source_time: None });
        }
        let marker = (self.chance.u8(..4) == 0).then_some((Marker::TokenReset, Actor::Host));
        let before = self.db.last_sequence();
        self.revision += 1;
        let commit = Commit {
            key: key(),
            expected_revision: self.revision - 1,
            state: TypeState { revision: self.revision, ..TypeState::first(From::Latest, UnixMillis(1)) },
            staged: Vec::new(),
            batches: vec![pack(&deltas).unwrap()],
            letters: Letters::default(),
            marker,
            run: Some(1),
            report: None,
            at: UnixMillis(1),
        };
        self.db.commit(commit).await.unwrap();
        for entry in self.db.entries(before, 100).unwrap() {
            self.journal.insert(entry.id.sequence, names(&entry));
        }
    }

    fn letters(&self) -> BTreeMap<u64, bool> {
        let letters = self.db.refused(Some(SINK)).unwrap().into_values().flatten();
        letters.map(|one| (one.entry.id.sequence, one.is_refused())).collect()
    }

    async fn acted(&self, delivered: Delivered) {
        self.db.delivered(SINK, delivered).await.unwrap();
    }

    /// An operator has one sent again, or gives one up.
    async fn operate(&mut self) {
        let letters = self.letters();
        let refused: Vec<u64> =
            letters.iter().filter(|(_, refused)| **refused).map(|(sequence, _)| *sequence).collect();
        let Some(sequence) = self.chance.choice(&refused).copied() else { return };
        let nothing = Delivered::nothing(UnixMillis(1));
        match self.chance.bool() {
            true => self.acted(Delivered { judged: vec![(sequence, None)], ..nothing }).await,
            false => {
                self.dropped.insert(sequence);
                self.acted(Delivered { gone: vec![sequence], ..nothing }).await;
            }
        }
    }

    /// The consumer reads on after what it acknowledged; it may end before it acknowledges all of that, and then it reads it again.
    async fn consume(&mut self, acknowledges_all: bool) {
        let acknowledged = self.db.consumer_position(CONSUMER).unwrap();
        let entries = self.db.entries(acknowledged, self.chance.usize(1..10)).unwrap();
        for (sequence, entry) in (acknowledged + 1..).zip(&entries) {
            assert_eq!(entry.id.sequence, sequence, "an entry is missing");
            if self.read.last().is_none_or(|last| *last < sequence) {
                self.read.push(sequence);
            }
        }
        let done = if acknowledges_all { entries.len() } else { self.chance.usize(..=entries.len()) };
        if let Some(upto) = entries[..done].last() {
            self.db.acknowledge(CONSUMER, (upto.id.sequence, false), UnixMillis(1)).await.unwrap();
        }
    }

    async fn retain(&self) {
        let policy = Policy { keep: Some(Duration::ZERO), quota: Quota::UNLIMITED, sinks: vec![SINK.into()] };
        self.db.retain(policy, UnixMillis(i64::MAX)).await.unwrap();
    }

    async fn step(&mut self) {
        match self.chance.u8(..12) {
            0 => self.restart().await,
            1 | 2 => self.operate().await,
            3 => {
                let refuses = (0..self.chance.u64(..4)).map(|_| self.uid()).collect();
                let mut peer = self.peer.0.lock().unwrap();
                (peer.refuses, peer.fails) = (refuses, if self.chance.bool() { 60 } else { 0 });
                if self.chance.u8(..8) == 0 {
                    peer.refuses.insert("a marker".into());
                }
            }
            4 | 5 => tokio::time::sleep(Duration::from_millis(self.chance.u64(..6))).await,
            6 => self.settles().await,
            7 => self.consume(false).await,
            8 => self.retain().await,
            _ => self.journal().await,
        }
    }

    /// Whatever it refuses, a server that answers gets all but what names the objects that it refused, and what waits.
    async fn settles(&self) {
        self.peer.0.lock().unwrap().fails = 0;
        let is_done = || {
            let letters = self.letters();
            let position = self.db.sink_position(SINK).unwrap();
            let refused = letters.iter().filter(|(_, refused)| **refused).map(|(sequence, _)| *sequence);
            let refused: Vec<u64> = refused.collect();
            let waits_for = |sequence: &u64| {
                // Over whatever waits for it in turn.
                let mut held: BTreeSet<&String> = BTreeSet::new();
                letters.keys().take_while(|one| *one < sequence).for_each(|one| {
                    if refused.contains(one) || self.journal[one].iter().any(|name| held.contains(name)) {
                        held.extend(&self.journal[one]);
                    }
                });
                self.journal[sequence].iter().any(|name| held.contains(name))
            };
            let all_wait = letters.keys().all(|sequence| refused.contains(sequence) || waits_for(sequence));
            position == self.db.last_sequence() && all_wait
        };
        for _ in 0..5000 {
            if is_done() {
                let (took, letters) = (self.took(), self.letters());
                let missing = |sequence: &&u64| {
                    !took.contains(sequence) && !letters.contains_key(sequence) && !self.dropped.contains(sequence)
                };
                assert_eq!(self.journal.keys().find(missing), None, "an entry is nowhere");
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("it got stuck at {}: {:?}", self.db.sink_position(SINK).unwrap(), self.letters());
    }

    /// In the order in which each came first.
    fn took(&self) -> Vec<u64> {
        let mut known = BTreeSet::new();
        self.peer.0.lock().unwrap().took.iter().copied().filter(|sequence| known.insert(*sequence)).collect()
    }

    /// The server takes everything: so it gets everything.
    async fn end(&mut self) {
        self.peer.0.lock().unwrap().refuses.clear();
        // A request that was on its way before that may have been refused since.
        for _ in 0..10 {
            let judged = self.letters().into_keys().map(|sequence| (sequence, None)).collect();
            self.acted(Delivered { judged, ..Delivered::nothing(UnixMillis(1)) }).await;
            self.settles().await;
        }
        assert_eq!(self.letters(), BTreeMap::new());
        while self.db.consumer_position(CONSUMER).unwrap() < self.db.last_sequence() {
            self.consume(true).await;
        }
        assert_eq!(self.read, self.journal.keys().copied().collect::<Vec<u64>>(), "what a consumer got");
        self.retain().await;
        assert_eq!(self.db.first_sequence().unwrap(), self.db.last_sequence() + 1, "everyone has everything");
        let took = self.took();
        let place: BTreeMap<u64, usize> = took.iter().enumerate().map(|(place, sequence)| (*sequence, place)).collect();
        for (sequence, names) in &self.journal {
            let Some(at) = place.get(sequence) else {
                assert!(self.dropped.contains(sequence), "entry {sequence} was never delivered");
                continue;
            };
            // What comes after it of the same object comes after it.
            for (later, _) in
                self.journal.range(sequence + 1..).filter(|(_, other)| other.iter().any(|name| names.contains(name)))
            {
                assert!(place.get(later).is_none_or(|later_at| later_at > at), "entry {later} came before {sequence}");
            }
        }
    }
}

async fn history(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(seed, Db::open(dir.path(), "a test", Duration::ZERO).unwrap());
    world.db.add_consumer(CONSUMER, 0, None, UnixMillis(1)).await.unwrap();
    world.restart().await;
    for _ in 0..60 {
        world.step().await;
    }
    world.end().await;
    world.task.shutdown().await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how a long run asks for more seeds")]
async fn a_sink_gets_every_entry_in_the_order_of_its_object_whatever_is_refused() {
    let seeds = std::env::var("TIDEWAITER_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    // They sleep most of the time.
    let mut side_by_side = JoinSet::new();
    for first in 0..8 {
        side_by_side.spawn(async move {
            for seed in (first..seeds).step_by(8) {
                let mut one = JoinSet::new();
                one.spawn(history(seed));
                assert!(one.join_next().await.unwrap().is_ok(), "seed {seed}");
            }
        });
    }
    side_by_side.join_all().await;
}
