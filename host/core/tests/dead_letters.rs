//! Deltas of a simulated source, of which some are at fault and some rename an object, sorted batch by batch while an operator drops and
//! retries dead letters. An oracle checks the journal: nothing is told out of order, twice, or not at all.

#![allow(clippy::unwrap_used, reason = "a test")]

mod seeds;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use fastrand::Rng;
use tidewaiter_core::dead_letter::{DeadLetter, Fault, Feed, Held, related, released};
use tidewaiter_core::limit::Limits;
use tidewaiter_core::object::{Change, ConnectorObject, SyncDelta};

const UIDS: u64 = 6;

/// What the source did as its `number`th deed, which is in the object's name.
fn delta(number: u64, uid: &str, previous_uid: Option<&str>) -> SyncDelta {
    let (uid, name) = (uid.to_owned(), number.to_string());
    let change = match previous_uid {
        None if number.is_multiple_of(5) => Change::Delete { uid, name: Some(name), last_known: None },
        previous_uid => {
            let object = ConnectorObject { uid, name, attributes: Vec::new() };
            Change::CreateOrUpdate { object, previous_uid: previous_uid.map(str::to_owned) }
        }
    };
    // As names of classes compare.
    let object_class = if number.is_multiple_of(2) { "account" } else { "ACCOUNT" }.to_owned();
    SyncDelta { object_class, change, source_time: None }
}

fn number(delta: &SyncDelta) -> u64 {
    match &delta.change {
        Change::Delete { name, .. } => name.as_ref().unwrap().parse().unwrap(),
        change => change.object().unwrap().name.parse().unwrap(),
    }
}

fn number_of(letter: &DeadLetter) -> u64 {
    letter.fault.as_ref().map_or_else(|| number(letter.delta.as_ref().unwrap()), |number| number.parse().unwrap())
}

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Delta(u64),
    /// An object as it was after that many deeds.
    Read(String, u64),
}

#[derive(Default)]
struct World {
    /// By number, the uids of everything that the source did.
    deeds: BTreeMap<u64, BTreeSet<String>>,
    faults: BTreeSet<u64>,
    journal: Vec<Said>,
    letters: BTreeMap<u64, DeadLetter>,
    last_letter: u64,
    dropped: BTreeSet<u64>,
    /// In the place of which an object is told as it was read.
    settled: BTreeSet<u64>,
    /// Dead letters whose objects have been read, and that are not gone yet.
    retrying: Option<HashSet<u64>>,
}

impl World {
    fn letters(&self) -> Vec<(u64, &DeadLetter)> {
        self.letters.iter().map(|(number, letter)| (*number, letter)).collect()
    }

    /// A run hands over some batches, which are committed together.
    fn run(&mut self, rng: &mut Rng) {
        let mut held = Held::of(self.letters());
        for _ in 0..rng.usize(1..4) {
            let (mut deltas, mut faults) = (Vec::new(), Vec::new());
            for index in 0..rng.usize(1..5) {
                let number = self.deeds.len() as u64 + 1;
                let (uid, other) = (rng.u64(0..UIDS).to_string(), rng.u64(0..UIDS).to_string());
                let previous = (rng.u8(0..5) == 0).then_some(other.as_str());
                if rng.u8(0..6) == 0 {
                    faults.push(Fault { index, problem: number.to_string(), too_large: rng.bool() });
                    self.faults.insert(number);
                }
                deltas.push(delta(number, &uid, previous));
                let uids = previous.filter(|_| deltas[index].change.previous_uid().is_some());
                self.deeds.insert(number, uids.into_iter().chain([uid.as_str()]).map(str::to_owned).collect());
            }
            let sorted = held.sort(deltas, faults, Feed::Changes, &Limits::default()).unwrap();
            assert!(sorted.resolved.is_empty() && sorted.untold.is_empty());
            self.journal.extend(sorted.passed.iter().map(|delta| Said::Delta(number(delta))));
            for letter in sorted.kept {
                assert_eq!(letter.waits(), !self.faults.contains(&number_of(&letter)));
                self.last_letter += 1;
                self.letters.insert(self.last_letter, letter);
            }
        }
    }

    /// Takes some away, and lets on what waits no more.
    fn resolve(&mut self, gone: &HashSet<u64>) {
        let on = released(self.letters(), gone);
        self.letters.retain(|number, _| !gone.contains(number));
        for number in on {
            let letter = self.letters.remove(&number).unwrap();
            self.journal.push(Said::Delta(number_of(&letter)));
        }
    }

    fn any(&self, rng: &mut Rng) -> Option<u64> {
        let dead: Vec<u64> =
            self.letters.iter().filter(|(_, letter)| !letter.waits()).map(|(number, _)| *number).collect();
        (!dead.is_empty()).then(|| dead[rng.usize(0..dead.len())])
    }

    fn drop_one(&mut self, rng: &mut Rng) {
        let Some(number) = self.any(rng) else { return };
        self.dropped.insert(number_of(&self.letters[&number]));
        self.resolve(&HashSet::from([number]));
    }

    /// All objects that have to do with one are read, and told as they are.
    fn begin_retry(&mut self, rng: &mut Rng) {
        let Some(number) = self.any(rng) else { return };
        let letters = self.letters();
        let related = related(&letters, number);
        let uids: BTreeSet<String> =
            related.iter().flat_map(|(_, letter)| letter.uids().map(str::to_owned).collect::<Vec<_>>()).collect();
        self.retrying = Some(related.iter().map(|(number, _)| *number).collect());
        let upto = self.deeds.len() as u64;
        self.journal.extend(uids.into_iter().map(|uid| Said::Read(uid, upto)));
    }

    fn end_retry(&mut self) {
        let Some(gone) = self.retrying.take() else { return };
        let settled = self.letters.iter().filter(|(number, _)| gone.contains(number));
        self.settled.extend(settled.map(|(_, letter)| number_of(letter)));
        self.resolve(&gone);
    }

    fn check(&self) {
        let told: Vec<u64> = self
            .journal
            .iter()
            .filter_map(|said| match said {
                Said::Delta(number) => Some(*number),
                Said::Read(..) => None,
            })
            .collect();
        let held: BTreeSet<u64> = self.letters.values().map(number_of).collect();
        for (number, uids) in &self.deeds {
            let times = told.iter().filter(|told| *told == number).count()
                + [&self.dropped, &self.settled, &held].iter().filter(|set| set.contains(number)).count();
            assert_eq!(times, 1, "{number} of {uids:?}");
        }
        assert!(self.dropped.iter().all(|number| self.faults.contains(number)), "nobody drops what only waits");
        assert!(!told.iter().any(|number| self.faults.contains(number)));
        for uid in (0..UIDS).map(|uid| uid.to_string()) {
            let mut last = 0;
            for said in &self.journal {
                match said {
                    Said::Delta(number) if self.deeds[number].contains(&uid) => {
                        assert!(*number > last, "{number} of {uid} after {last}");
                        last = *number;
                    }
                    // What is told of it afterwards may have been read already, and is told in its order.
                    Said::Read(of, upto) if *of == uid => assert!(*upto >= last, "{uid} is told as it was before"),
                    _ => {}
                }
            }
            // What is settled was read before anything later is told.
            for settled in self.settled.iter().filter(|settled| self.deeds[settled].contains(&uid)) {
                let is_read = |said: &Said| matches!(said, Said::Read(of, upto) if *of == uid && upto >= settled);
                let read = self.journal.iter().position(is_read);
                let is_later = |said: &Said| matches!(said, Said::Delta(number) if number > settled && self.deeds[number].contains(&uid));
                let later = self.journal.iter().position(is_later);
                assert!(read.is_some_and(|read| later.is_none_or(|later| read < later)), "{settled} of {uid}");
            }
        }
    }
}

fn world(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut world = World::default();
    for _ in 0..rng.usize(1..30) {
        match rng.u8(0..8) {
            0 => world.drop_one(&mut rng),
            // One at a time.
            1 if world.retrying.is_none() => world.begin_retry(&mut rng),
            2 => world.end_retry(),
            _ => world.run(&mut rng),
        }
        world.check();
    }
    world.end_retry();
    while !world.letters.is_empty() {
        let before = world.letters.len();
        world.drop_one(&mut rng);
        assert!(world.letters.len() < before, "something waits for nothing: {:?}", world.letters);
        world.check();
    }
}

#[test]
fn what_waits_for_a_dead_letter_is_told_after_it_in_order_and_once() {
    seeds::each(world);
}
