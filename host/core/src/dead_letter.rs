//! Deltas that are kept out of the journal: those whose data is at fault, and what comes of the same objects after them, which waits.
//! Knows what waits for what, and what goes on when a dead letter is gone. Performs nothing.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::limit::Limits;
use crate::object::SyncDelta;

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
    /// Uids of objects that were read, and of which nothing is told.
    pub untold: Vec<String>,
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
            let (class, uid) = (&delta.object_class, delta.change.uid());
            let is_held = self.holds(class, delta.change.previous_uid().into_iter().chain([uid]));
            if feed != Feed::Changes && (fault.is_some() || is_held && feed == Feed::Reading) {
                sorted.untold.push(uid.to_owned());
            }
            match (feed, fault) {
                // That something is wrong with it is known, or live sync goes on with it.
                (Feed::Comparison | Feed::Reading, Some(_)) | (Feed::Reading, None) if is_held => {}
                (Feed::Changes, None) if is_held => {
                    sorted.kept.push(self.keep(DeadLetter::new(delta, None), index, limits)?)
                }
                (_, Some(fault)) => {
                    sorted.kept.push(self.keep(DeadLetter::new(delta, Some(fault)), index, limits)?);
                }
                (Feed::Comparison, None) => {
                    sorted.resolved.extend(self.numbers(class, uid).flatten());
                    sorted.passed.push(delta);
                }
                (Feed::Changes | Feed::Reading | Feed::Wanted, None) => sorted.passed.push(delta),
            }
        }
        Ok(sorted)
    }

    fn keep(&mut self, letter: DeadLetter, index: usize, limits: &Limits) -> Result<DeadLetter, TooMany> {
        self.add(None, &letter);
        if self.count > limits.dead_letters_max || self.bytes > limits.dead_letter_bytes_max {
            let problem = format!(
                "{} dead letters of {} bytes would be kept of this type, and {} of {} may be: retry or drop some",
                self.count, self.bytes, limits.dead_letters_max, limits.dead_letter_bytes_max
            );
            return Err(TooMany { index, uid: letter.uid, problem });
        }
        Ok(letter)
    }
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
