//! Deltas that are kept out of the journal: those whose data is at fault, and what comes of the same objects after them, which waits.
//! Knows what waits for what, and what goes on when a dead letter is gone. Performs nothing.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::limit::Limits;
use crate::object::{Change, SyncDelta};

/// What becomes of a delta whose data is at fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataFaults {
    /// The run fails, and the token stays before it.
    #[default]
    Fail,
    /// It becomes a dead letter, and the run goes on.
    DeadLetter,
}

/// What is wrong with a delta of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its place in the batch.
    pub index: usize,
    /// What, with class and uid.
    pub problem: String,
    /// It is larger than an object may be: what it says isn't kept.
    pub too_large: bool,
}

/// A delta that is kept out of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The class of its object.
    pub object_class: String,
    /// The uid of its object.
    pub uid: String,
    /// The uid that it had before, if that changed.
    pub previous_uid: Option<String>,
    /// What happened, as in `create`.
    pub kind: String,
    /// What is wrong with it; none: it waits for one before it.
    pub fault: Option<String>,
    /// What came; none: it was too large.
    pub delta: Option<SyncDelta>,
}

impl DeadLetter {
    fn new(delta: SyncDelta, fault: Option<Fault>) -> Self {
        let previous_uid = delta.change.previous_uid().map(str::to_owned);
        let (object_class, uid) = (delta.object_class.clone(), delta.change.uid().to_owned());
        let (kind, keeps) = (delta.change.kind().to_owned(), !fault.as_ref().is_some_and(|fault| fault.too_large));
        let (fault, delta) = (fault.map(|fault| fault.problem), keeps.then_some(delta));
        Self { object_class, uid, previous_uid, kind, fault, delta }
    }

    /// The uids that it names.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.previous_uid.as_deref().into_iter().chain([self.uid.as_str()])
    }

    /// What it takes, in bytes.
    pub fn size(&self) -> u64 {
        let fault = self.fault.as_ref().map_or(0, String::len);
        (self.delta.as_ref().map_or(0, SyncDelta::size) + self.uids().map(str::len).sum::<usize>() + fault) as u64
    }

    /// Whether it waits for others, and nothing is wrong with it.
    pub fn waits(&self) -> bool {
        self.fault.is_none()
    }
}

/// Where deltas come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The changes of a source, in their order.
    Changes,
    /// Objects as they are now, of which the changes are found by comparison: the last word on each.
    Comparison,
    /// Objects as they are now, beside live sync, which has the last word.
    Reading,
    /// One object as it is now, which somebody asked for.
    Wanted,
}

/// What becomes of the deltas of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sorted {
    /// They go on, in their order.
    pub passed: Vec<SyncDelta>,
    /// They are kept out of the journal, in their order.
    pub kept: Vec<DeadLetter>,
    /// Numbers of those kept before that are settled by what passed.
    pub resolved: Vec<u64>,
    /// Objects that were read, and of which nothing is told.
    pub untold: Vec<Untold>,
}

/// An object that was read, and of which nothing is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// Its uid.
    pub uid: String,
    /// What is wrong with it, if nobody else says so; none: dead letters have it.
    pub problem: Option<String>,
}

/// So many are kept out already that no more may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// The place in the batch of the one that is too many.
    pub index: usize,
    /// Its uid.
    pub uid: String,
    /// How many there are, and how many bytes.
    pub problem: String,
}

/// The objects of a type of which something is kept out of the journal.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// By uid: the class, and the number of the dead letter unless it has none yet.
    objects: HashMap<String, Vec<(String, Option<u64>)>>,
    count: u64,
    bytes: u64,
}

impl Held {
    /// Those of dead letters, by their numbers.
    pub fn of<'a>(letters: impl IntoIterator<Item = (u64, &'a DeadLetter)>) -> Self {
        let mut held = Self::default();
        for (number, letter) in letters {
            held.add(Some(number), letter);
        }
        held
    }

    fn add(&mut self, number: Option<u64>, letter: &DeadLetter) {
        for uid in letter.uids() {
            self.objects.entry(uid.to_owned()).or_default().push((letter.object_class.clone(), number));
        }
        self.count += 1;
        self.bytes += letter.size();
    }

    fn numbers<'a>(&'a self, class: &'a str, uid: &str) -> impl Iterator<Item = Option<u64>> + 'a {
        let of_uid = self.objects.get(uid).into_iter().flatten();
        of_uid.filter(move |(of, _)| of.eq_ignore_ascii_case(class)).map(|(_, number)| *number)
    }

    fn holds<'a>(&self, class: &str, mut uids: impl Iterator<Item = &'a str>) -> bool {
        uids.any(|uid| self.numbers(class, uid).next().is_some())
    }

    /// Sorts the deltas of a batch. `faults`: what is wrong with some of them, in their order.
    ///
    /// # Errors
    /// More would be kept out than may be.
    pub fn sort(
        &mut self,
        deltas: Vec<SyncDelta>,
        faults: Vec<Fault>,
        feed: Feed,
        limits: &Limits,
    ) -> Result<Sorted, TooMany> {
        let mut sorted = Sorted::default();
        if faults.is_empty() && (self.objects.is_empty() || feed == Feed::Wanted) {
            sorted.passed = deltas;
            return Ok(sorted);
        }
        let mut faults = faults.into_iter().peekable();
        for (index, delta) in deltas.into_iter().enumerate() {
            let fault = faults.next_if(|fault| fault.index == index);
            let (is_bad, is_held) = (fault.is_some(), self.names(&delta));
            let (leaves, keeps) = match feed {
                // What is at fault is kept, and what comes after it.
                Feed::Changes => (false, is_bad || is_held),
                // An object has one dead letter, until it is mended.
                Feed::Comparison => (is_bad, is_bad && !is_held),
                // Live sync has the last word on what is kept; what is at fault comes again with the next reading.
                Feed::Reading => (is_bad || is_held, false),
                Feed::Wanted => (false, false),
            };
            if leaves {
                let problem = fault.as_ref().filter(|_| feed == Feed::Reading).map(|fault| fault.problem.clone());
                sorted.untold.push(Untold { uid: delta.change.uid().to_owned(), problem });
            }
            if keeps {
                sorted.kept.push(self.keep(DeadLetter::new(delta, fault), index, limits)?);
            } else if !leaves {
                if feed == Feed::Comparison {
                    sorted.resolved.extend(self.numbers(&delta.object_class, delta.change.uid()).flatten());
                }
                sorted.passed.push(delta);
            }
        }
        Ok(sorted)
    }

    fn names(&self, delta: &SyncDelta) -> bool {
        self.holds(&delta.object_class, delta.change.previous_uid().into_iter().chain([delta.change.uid()]))
    }

    fn keep(&mut self, letter: DeadLetter, index: usize, limits: &Limits) -> Result<DeadLetter, TooMany> {
        self.add(None, &letter);
        if self.count > limits.dead_letters_max || self.bytes > limits.dead_letter_bytes_max {
            let problem = format!(
                "it would be dead letter {} of this type, with {} bytes in all, and {} of {} bytes may be kept: retry or drop some",
                self.count, self.bytes, limits.dead_letters_max, limits.dead_letter_bytes_max
            );
            return Err(TooMany { index, uid: letter.uid, problem });
        }
        Ok(letter)
    }
}

/// What is told in the place of related dead letters, by what their connector read of the objects that they name. An object that was
/// renamed meanwhile is told under its new uid with the one before, whatever it was called in between, and before whoever has its old
/// uid by now; one that isn't there any more as deleted.
pub fn told_as_read(letters: &[&DeadLetter], read: Vec<SyncDelta>) -> Vec<SyncDelta> {
    let mut before: HashMap<&str, &str> = HashMap::new();
    for letter in letters {
        if let Some(previous) = letter.previous_uid.as_deref().filter(|previous| *previous != letter.uid) {
            before.insert(&letter.uid, previous);
        }
    }
    // A chain has no more links than there are letters.
    let first = |uid: &str| {
        letters.iter().fold(uid.to_owned(), |uid, _| before.get(uid.as_str()).map_or(uid, |uid| (*uid).to_owned()))
    };
    let found: HashSet<String> = read.iter().map(|delta| delta.change.uid().to_owned()).collect();
    let (mut told, mut deltas, mut others) = (HashSet::new(), Vec::with_capacity(read.len()), Vec::new());
    for mut delta in read {
        let first = first(delta.change.uid());
        match &mut delta.change {
            Change::CreateOrUpdate { object, previous_uid } if first != object.uid && told.insert(first.clone()) => {
                *previous_uid = Some(first);
                deltas.push(delta);
            }
            _ => others.push(delta),
        }
    }
    // Whoever has a name by now that another one had comes after that one gave it up.
    deltas.append(&mut others);
    told.extend(found);
    for letter in letters {
        // Names that it had in between were never told.
        for uid in letter.uids().filter(|uid| !before.contains_key(uid)) {
            if told.insert(uid.to_owned()) {
                let change = Change::Delete { uid: uid.to_owned(), name: None, last_known: None };
                deltas.push(SyncDelta { object_class: letter.object_class.clone(), change, source_time: None });
            }
        }
    }
    deltas
}

/// The dead letters of a type that wait no more when some are gone, in their order: nothing before them names an object of theirs. `letters`:
/// all of the type, in their order.
pub fn released<'a>(letters: impl IntoIterator<Item = (u64, &'a DeadLetter)>, gone: &HashSet<u64>) -> Vec<u64> {
    let (mut held, mut released) = (Held::default(), Vec::new());
    for (number, letter) in letters.into_iter().filter(|(number, _)| !gone.contains(number)) {
        match letter.waits() && !held.holds(&letter.object_class, letter.uids()) {
            true => released.push(number),
            false => held.add(Some(number), letter),
        }
    }
    released
}

/// The dead letters that have to do with the same object as one of them, or with one that became or was it, in their order. None: there
/// is no such one.
pub fn related<'a>(letters: &[(u64, &'a DeadLetter)], number: u64) -> Vec<(u64, &'a DeadLetter)> {
    let mut found: HashSet<u64> = letters.iter().map(|(found, _)| *found).filter(|found| *found == number).collect();
    loop {
        let (related, others): (Vec<_>, Vec<_>) = letters.iter().copied().partition(|(one, _)| found.contains(one));
        let held = Held::of(related.iter().copied());
        let more = others.iter().filter(|(_, letter)| held.holds(&letter.object_class, letter.uids()));
        let before = found.len();
        found.extend(more.map(|(number, _)| *number));
        if found.len() == before {
            return related;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ConnectorObject;

    fn letter(uid: &str, previous_uid: Option<&str>) -> DeadLetter {
        let delta = read(uid, previous_uid);
        DeadLetter::new(delta, None)
    }

    fn read(uid: &str, previous_uid: Option<&str>) -> SyncDelta {
        let object = ConnectorObject { uid: uid.into(), name: String::new(), attributes: Vec::new() };
        let change = Change::CreateOrUpdate { object, previous_uid: previous_uid.map(str::to_owned) };
        SyncDelta { object_class: "account".into(), change, source_time: None }
    }

    fn told(letters: &[DeadLetter], found: &[&str]) -> Vec<String> {
        let letters: Vec<&DeadLetter> = letters.iter().collect();
        let told = told_as_read(&letters, found.iter().map(|uid| read(uid, None)).collect());
        let said = |delta: &SyncDelta| match &delta.change {
            Change::Delete { uid, .. } => format!("{uid} is gone"),
            change => {
                change.previous_uid().map_or(change.uid().to_owned(), |before| format!("{before} is {}", change.uid()))
            }
        };
        told.iter().map(said).collect()
    }

    #[test]
    fn as_many_bytes_are_kept_as_may_be() {
        let limits = Limits { dead_letter_bytes_max: 200, ..Limits::default() };
        let mut held = Held::default();
        let bad = |index| vec![Fault { index, problem: "bad".into(), too_large: false }];
        let mut kept = 0;
        let refused = loop {
            match held.sort(vec![read("1", None)], bad(0), Feed::Changes, &limits) {
                Ok(sorted) => kept += sorted.kept.iter().map(DeadLetter::size).sum::<u64>(),
                Err(too_many) => break too_many,
            }
        };
        assert!((100..=200).contains(&kept), "{kept}");
        assert_eq!((refused.index, refused.uid.as_str()), (0, "1"));
    }

    #[test]
    fn what_was_renamed_meanwhile_is_told_as_one_object() {
        let chain = [letter("1", None), letter("2", Some("1")), letter("3", Some("2")), letter("3", None)];
        assert_eq!(told(&chain, &["3"]), ["1 is 3"]);
        assert_eq!(told(&chain, &["2"]), ["1 is 2"], "the last rename isn't there");
        assert_eq!(told(&chain, &[]), ["1 is gone"], "what it was called in between nobody knows");
        assert_eq!(told(&chain, &["1", "3"]), ["1 is 3", "1"], "another object has the name by now");
        assert_eq!(told(&chain[..1], &["1"]), ["1"]);
        let circle = [letter("2", Some("1")), letter("1", Some("2"))];
        assert_eq!(told(&circle, &["1"]).len(), 1);
    }
}
