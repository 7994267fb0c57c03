//! What a sink is handed, and what waits, where its server refuses some entries for good: a dead letter of a sink holds up what comes after it
//! of the same object, and nothing else. Performs nothing.

use std::collections::HashSet;

use crate::journal::{Body, Entry};
use crate::name::TypeKey;

/// What a sink's dead letters may come to, and when an entry becomes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// How often an entry that is refused is sent again before it becomes a dead letter; none: for ever.
    pub retries_max: Option<u32>,
    /// The most dead letters of the sink, with what waits for them.
    pub letters_max: u64,
    /// The most bytes of them.
    pub letter_bytes_max: u64,
}

impl Patience {
    /// No entry becomes a dead letter.
    pub const FOREVER: Self = Self { retries_max: None, letters_max: 0, letter_bytes_max: 0 };
}

/// An object, or the operators' acts on a type, as a sink tells them apart.
type Object = (TypeKey, String, String);

/// A dead letter of a sink, as far as it decides what goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Of which entry.
    pub sequence: u64,
    /// The sink refused it; otherwise it waits, for one before it or for its turn.
    pub refused: bool,
    objects: Vec<Object>,
    bytes: u64,
}

impl Letter {
    /// The one of an entry.
    pub fn new(entry: &Entry, refused: bool) -> Self {
        Self { sequence: entry.id.sequence, refused, objects: objects(entry), bytes: size(entry) }
    }
}

fn objects(entry: &Entry) -> Vec<Object> {
    let object = |class: &str, uid: &str| (entry.key.clone(), class.to_lowercase(), uid.to_owned());
    match &entry.body {
        Body::Delta(delta) | Body::Read(delta) => {
            let uids = delta.change.previous_uid().into_iter().chain([delta.change.uid()]);
            uids.map(|uid| object(&delta.object_class, uid)).collect()
        }
        Body::Marker { .. } => vec![object("", "")],
        Body::Erased { .. } => Vec::new(),
    }
}

/// What an entry takes, in bytes.
pub fn size(entry: &Entry) -> u64 {
    entry.body.delta().map_or(0, |delta| delta.size() as u64)
}

/// What becomes of entries that come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The first so many go to the sink.
    Deliver(usize),
    /// The first so many wait for dead letters of the same objects.
    Wait(usize),
}

/// What to do after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Hand it fewer, to find the one that it refuses.
    Fewer,
    /// Try the same one again, later.
    Again,
    /// It is a dead letter.
    Never,
}

/// The entries in front of a sink.
#[derive(Debug)]
pub struct Line {
    patience: Patience,
    letters: Vec<Letter>,
    /// The most entries that are handed over at once, while one of them is looked for.
    at_once: usize,
    /// The one that was refused by itself last, and how often.
    refusals: (u64, u32),
}

impl Line {
    /// Without dead letters yet.
    pub fn new(patience: Patience) -> Self {
        Self { patience, letters: Vec::new(), at_once: usize::MAX, refusals: (0, 0) }
    }

    /// Its dead letters are these, in the order of their entries.
    pub fn know(&mut self, letters: Vec<Letter>) {
        self.letters = letters;
    }

    /// One more, of an entry that comes after theirs.
    pub fn keep(&mut self, letter: Letter) {
        self.letters.push(letter);
    }

    /// How many dead letters there are, with what waits for them.
    pub fn letters(&self) -> usize {
        self.letters.len()
    }

    /// Whether an entry that is refused becomes a dead letter at some time.
    pub fn gives_up(&self) -> bool {
        self.patience.retries_max.is_some()
    }

    /// The most entries to hand over now, of so many.
    pub fn at_once(&self, most: usize) -> usize {
        self.at_once.min(most)
    }

    /// The sequences of the dead letters whose turn has come: nothing before them of the same object was refused. In their order.
    pub fn due(&self) -> Vec<u64> {
        let (mut held, mut due) = (HashSet::new(), Vec::new());
        for letter in &self.letters {
            match letter.refused || letter.objects.iter().any(|object| held.contains(object)) {
                true => held.extend(letter.objects.iter()),
                false => due.push(letter.sequence),
            }
        }
        due
    }

    /// What becomes of the first of these entries, and of those after it that share its lot.
    pub fn turn(&self, entries: &[Entry]) -> Turn {
        if self.letters.is_empty() {
            return Turn::Deliver(entries.len());
        }
        let mut held: HashSet<Object> = self.letters.iter().flat_map(|letter| letter.objects.iter().cloned()).collect();
        // One that waits has what comes after it wait, under the names that it knows.
        let mut waits = |entry: &Entry| {
            let objects = objects(entry);
            let waits = objects.iter().any(|object| held.contains(object));
            held.extend(objects.into_iter().filter(|_| waits));
            waits
        };
        let lots: Vec<bool> = entries.iter().map(&mut waits).collect();
        let count = lots.iter().take_while(|waits| **waits == lots[0]).count();
        match lots.first() {
            Some(true) => Turn::Wait(count),
            _ => Turn::Deliver(count),
        }
    }

    /// How many of these may be kept: one at least.
    ///
    /// # Errors
    /// None: what there would be, and what there may be.
    pub fn room_for(&self, entries: &[Entry]) -> Result<usize, String> {
        let Patience { letters_max, letter_bytes_max, .. } = self.patience;
        let (mut count, mut bytes) =
            (self.letters.len() as u64, self.letters.iter().map(|letter| letter.bytes).sum::<u64>());
        for (room, entry) in entries.iter().enumerate() {
            count += 1;
            bytes += size(entry);
            if count <= letters_max && bytes <= letter_bytes_max {
                continue;
            }
            let problem = format!(
                "it would have {count} dead letters of {bytes} bytes in all, and {letters_max} of {letter_bytes_max} bytes may be kept: \
                 retry or drop some"
            );
            return if room == 0 { Err(problem) } else { Ok(room) };
        }
        Ok(entries.len())
    }

    /// The sink took what it was handed.
    pub fn taken(&mut self) {
        self.refusals = (0, 0);
        self.at_once = self.at_once.saturating_mul(2);
    }

    /// The sink refused so many entries that it was handed, of which this is the first.
    pub fn refused(&mut self, first: u64, handed: usize) -> Refused {
        if handed > 1 {
            self.at_once = handed / 2;
            return Refused::Fewer;
        }
        self.at_once = 1;
        let before = if self.refusals.0 == first { self.refusals.1 } else { 0 };
        self.refusals = (first, before + 1);
        match self.patience.retries_max {
            Some(most) if before >= most => {
                self.refusals = (0, 0);
                Refused::Never
            }
            _ => Refused::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{EntryId, Incarnation, Marker};
    use crate::object::{Change, ConnectorObject, SyncDelta};
    use crate::state::Actor;
    use crate::time::UnixMillis;

    const PATIENCE: Patience = Patience { retries_max: Some(2), letters_max: 5, letter_bytes_max: 1000 };

    fn entry(sequence: u64, body: Body) -> Entry {
        Entry {
            id: EntryId { incarnation: Incarnation(1), sequence },
            key: TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() },
            generation: 1,
            run: Some(1),
            at: UnixMillis(1),
            body,
        }
    }

    fn of(sequence: u64, uid: &str, previous_uid: Option<&str>) -> Entry {
        let object = ConnectorObject { uid: uid.into(), name: String::new(), attributes: Vec::new() };
        let change = Change::Update { object, previous_uid: previous_uid.map(str::to_owned) };
        entry(sequence, Body::Delta(SyncDelta { object_class: "account".into(), change, source_time: None }))
    }

    fn line(letters: &[(Entry, bool)]) -> Line {
        let mut line = Line::new(PATIENCE);
        line.know(letters.iter().map(|(entry, refused)| Letter::new(entry, *refused)).collect());
        line
    }

    #[test]
    fn entries_of_an_object_wait_for_its_dead_letter_and_others_go_on() {
        let line = line(&[(of(1, "a", None), true)]);
        let next = [of(2, "b", None), of(3, "c", Some("a")), of(4, "c", None), of(5, "d", None)];
        assert_eq!(line.turn(&next), Turn::Deliver(1));
        assert_eq!(line.turn(&next[1..]), Turn::Wait(2), "it was renamed, and so waits under its new name, too");
        assert_eq!(line.turn(&next[3..]), Turn::Deliver(1));
        assert_eq!(line.turn(&[]), Turn::Deliver(0));
        let mut elsewhere = of(2, "a", None);
        elsewhere.key.object_type = "other".parse().unwrap();
        assert_eq!(line.turn(&[elsewhere]), Turn::Deliver(1));
    }

    #[test]
    fn what_waited_goes_in_its_order_once_nothing_before_it_is_refused() {
        let letters =
            |refused| line(&[(of(1, "a", None), refused), (of(2, "b", Some("a")), false), (of(3, "b", None), false)]);
        assert_eq!(letters(true).due(), [0u64; 0]);
        assert_eq!(letters(false).due(), [1, 2, 3]);
        let again = line(&[(of(1, "a", None), false), (of(2, "b", None), true), (of(3, "b", None), false)]);
        assert_eq!(again.due(), [1]);
    }

    #[test]
    fn acts_of_operators_wait_for_one_another_and_tombstones_for_nothing() {
        let marker = |sequence| entry(sequence, Body::Marker { marker: Marker::TokenReset, by: Actor::Api });
        let line = line(&[(marker(1), true)]);
        assert_eq!(line.turn(&[marker(2), of(3, "a", None)]), Turn::Wait(1));
        let erased = entry(2, Body::Erased { by: Actor::Api, at: UnixMillis(1) });
        assert_eq!(line.turn(&[erased, of(3, "a", None)]), Turn::Deliver(2));
    }

    #[test]
    fn the_one_that_is_refused_is_found_and_has_its_retries() {
        let mut line = line(&[]);
        assert_eq!(line.at_once(100), 100);
        for (handed, next) in [(100, 50), (50, 25), (25, 12), (3, 1)] {
            assert_eq!((line.refused(7, handed), line.at_once(100)), (Refused::Fewer, next));
        }
        let expected = [Refused::Again, Refused::Again, Refused::Never];
        let thrice = |line: &mut Line, first| [(); 3].map(|()| line.refused(first, 1));
        assert_eq!(thrice(&mut line, 7), expected);
        assert_eq!(line.refused(8, 1), Refused::Again, "it went meanwhile");
        assert_eq!(thrice(&mut line, 9), expected, "each one has as many");
        line.taken();
        assert_eq!(line.at_once(100), 2);
        assert_eq!(thrice(&mut line, 10), expected);
        (0..100).for_each(|_| line.taken());
        assert_eq!(line.at_once(100), 100);
        let mut patient = Line::new(Patience { retries_max: None, ..PATIENCE });
        assert!((0..1000).all(|_| patient.refused(1, 1) == Refused::Again));
    }

    #[test]
    fn as_many_are_kept_as_may_be() {
        let line = line(&[(of(1, "a", None), true), (of(2, "a", None), false)]);
        let more: Vec<Entry> = (3..7).map(|sequence| of(sequence, "a", None)).collect();
        assert_eq!((line.room_for(&more[..3]), line.room_for(&more)), (Ok(3), Ok(3)), "as many as there is room for");
        let full: Vec<(Entry, bool)> = (1..6).map(|sequence| (of(sequence, "a", None), true)).collect();
        let full = self::line(&full);
        assert!(full.room_for(&more).unwrap_err().starts_with("it would have 6 dead letters"));
        assert!(line.room_for(&[of(3, &"a".repeat(1000), None)]).unwrap_err().contains("of 1000 bytes may be kept"));
    }
}
