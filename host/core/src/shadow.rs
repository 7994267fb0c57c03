//! Comparing what is read with what was journaled: the form in which two objects are the same, and a pass over all objects of a
//! type, which says of each whether it is told, and of what wasn't read whether it is gone. Hashes are made and kept by others.

mod keys;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::keys::Keys;
use crate::object::{Attribute, ConnectorObject, Value, ValueMode};
use crate::schema::ObjectClassInfo;

/// What makes two objects of a class the same. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Form {
    /// Attributes whose values have an order.
    pub ordered: BTreeSet<String>,
    /// Attributes that change by themselves and are left out.
    pub volatile: BTreeSet<String>,
}

impl Form {
    /// The form of a class, as it is declared.
    pub fn of(class: &ObjectClassInfo) -> Self {
        let mut form = Self::default();
        for attribute in &class.attributes {
            let name = attribute.name.to_lowercase();
            if attribute.ordered {
                form.ordered.insert(name.clone());
            }
            if attribute.volatile {
                form.volatile.insert(name);
            }
        }
        form
    }

    /// Writes the object in the form: attributes by name, their values as a multiset unless they have an order. Of a secret only
    /// that there is one counts. Answers false if the object is not a whole one, which is the same as no other.
    pub fn write(&self, object: &ConnectorObject, into: &mut Vec<u8>) -> bool {
        let mut attributes: Vec<(Cow<'_, str>, &Attribute)> =
            object.attributes.iter().map(|attribute| (lower(&attribute.name), attribute)).collect();
        attributes.retain(|(name, _)| !self.volatile.contains(name.as_ref()));
        attributes.sort_by(|(one, _), (other, _)| one.cmp(other));
        text(&object.name, into);
        for (name, attribute) in attributes {
            if attribute.mode != ValueMode::Whole {
                return false;
            }
            text(&name, into);
            into.extend_from_slice(&(attribute.values.len() as u64).to_le_bytes());
            let in_order = attribute.values.len() < 2 || self.ordered.contains(name.as_ref());
            if in_order {
                attribute.values.iter().for_each(|one| value(one, into));
                continue;
            }
            let written = attribute.values.iter().map(|one| {
                let mut bytes = Vec::new();
                value(one, &mut bytes);
                bytes
            });
            let mut values: Vec<Vec<u8>> = written.collect();
            values.sort_unstable();
            values.iter().for_each(|bytes| into.extend_from_slice(bytes));
        }
        true
    }
}

/// A name in lower case; most are.
fn lower(name: &str) -> Cow<'_, str> {
    match name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        true => Cow::Borrowed(name),
        false => Cow::Owned(name.to_lowercase()),
    }
}

/// With its length, so that no two lists of texts are written alike.
fn text(text: &str, into: &mut Vec<u8>) {
    bytes(text.as_bytes(), into);
}

fn bytes(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    into.extend_from_slice(bytes);
}

fn value(value: &Value, into: &mut Vec<u8>) {
    let (tag, content): (u8, &[u8]) = match value {
        Value::Text(text) => (0, text.as_bytes()),
        Value::Integer(number) => (1, &number.to_le_bytes()),
        Value::Decimal(text) => (2, text.as_bytes()),
        Value::Real(real) => (3, &real.to_bits().to_le_bytes()),
        Value::Bool(is) => (4, &[u8::from(*is)]),
        Value::Binary(content) => (5, content),
        Value::Timestamp(text) => (6, text.as_bytes()),
        Value::Reference { object_class, uid } => {
            into.push(7);
            text(object_class, into);
            return text(uid, into);
        }
        Value::Json(text) => (8, text.as_bytes()),
        Value::Secret => (9, &[]),
    };
    into.push(tag);
    bytes(content, into);
}

/// What becomes of an object that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The journal said nothing of it before.
    New,
    /// The journal said something else.
    Changed,
    /// The journal said something of it that is forgotten, because not everyone got it.
    Doubted,
    /// The journal said just that.
    Same,
    /// The journal said something of it since the pass began: that is newer.
    Newer,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Objects that were read.
    pub read: u64,
    /// Of them: the journal had said nothing.
    pub new: u64,
    /// Of them: the journal had said something else.
    pub changed: u64,
    /// Objects that were not there any more.
    pub gone: u64,
    /// Objects of which nothing is told, because something is wrong with them or dead letters have them.
    #[serde(default)]
    pub left: u64,
}

/// The rows of a shadow as a pass has them: 12 bytes each. Half of a key and three eighths of a hash are told apart as well as need be: both are
/// keyed, so that nobody makes two alike. Of ten million objects two have one key by one chance in 300,000, and of ten million that
/// changed one looks as it was by one chance in 28 million.
#[derive(Debug, Default)]
pub struct Index {
    /// Where the rows begin whose keys begin with these 16 bits; what comes after the last ones ends with the rows.
    begins: Vec<usize>,
    /// By key. The next 48 bits of it, and the hash.
    rows: Vec<Row>,
}

type Row = ([u8; PART], [u8; PART]);

const PART: usize = 6;

impl Index {
    /// With room for so many rows.
    pub fn with_capacity(rows: u64) -> Self {
        Self { begins: Vec::new(), rows: Vec::with_capacity(usize::try_from(rows).unwrap_or(0)) }
    }

    /// Adds the row with the next larger key.
    pub fn push(&mut self, key: u128, hash: Option<u128>) {
        let (bucket, rest) = split(short(key));
        if self.begins.len() <= bucket {
            self.begins.resize(bucket + 1, self.rows.len());
        }
        self.rows.push((rest, hash.map_or(UNKNOWN, known)));
    }

    fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Where a key is.
    fn find(&self, key: u64) -> Option<usize> {
        let (bucket, rest) = split(key);
        let begin = |bucket: usize| self.begins.get(bucket).copied().unwrap_or(self.rows.len());
        let (begin, end) = (begin(bucket), begin(bucket + 1));
        let found = self.rows[begin..end].binary_search_by_key(&rest, |row| row.0);
        found.ok().map(|place| begin + place)
    }

    /// The keys, in their order.
    fn keys(&self) -> impl Iterator<Item = u64> {
        let ends = self.begins.iter().skip(1).copied().chain([self.rows.len()]);
        let buckets = self.begins.iter().copied().zip(ends).enumerate();
        let of = |(bucket, (begin, end)): (usize, (usize, usize))| {
            self.rows[begin..end].iter().map(move |(rest, _)| joined(bucket, rest))
        };
        buckets.flat_map(of)
    }
}

/// In the place of a hash that isn't known. No hash is it.
const UNKNOWN: [u8; PART] = [0; PART];

fn short(key: u128) -> u64 {
    (key >> 64) as u64
}

/// The first bits of a key, and the rest.
fn split(key: u64) -> (usize, [u8; PART]) {
    let [first, second, rest @ ..] = key.to_be_bytes();
    (usize::from(u16::from_be_bytes([first, second])), rest)
}

fn joined(bucket: usize, rest: &[u8; PART]) -> u64 {
    rest.iter().fold(bucket as u64, |key, byte| key << 8 | u64::from(*byte))
}

fn known(hash: u128) -> [u8; PART] {
    let [first, second, third, fourth, fifth, sixth, ..] = hash.to_be_bytes();
    match [first, second, third, fourth, fifth, sixth] {
        UNKNOWN => [0, 0, 0, 0, 0, 1],
        known => known,
    }
}

/// A pass over all objects of a type.
#[derive(Debug)]
pub struct Pass {
    /// What the journal had said before.
    index: Index,
    seen: Bits,
    seen_count: u64,
    /// Keys of what was told, and may not be journaled yet.
    told: HashSet<u64>,
    /// Keys of what the journal said something of since it began.
    journaled: Keys,
    /// Objects that it met for the first time.
    advanced: u64,
    counts: Counts,
}

impl Pass {
    /// A pass over a shadow as it is now.
    pub fn new(index: Index) -> Self {
        let (seen, told, journaled, counts) = Default::default();
        Self { index, seen, seen_count: 0, told, journaled, advanced: 0, counts }
    }

    /// What becomes of an object that was read, by its key and its hash.
    pub fn judge(&mut self, key: u128, hash: Option<u128>) -> Verdict {
        self.counts.read += 1;
        let place = self.index.find(short(key));
        if let Some(place) = place {
            self.see(place);
        }
        let verdict = match place.map(|place| self.index.rows[place].1) {
            _ if self.is_newer(key) => return Verdict::Newer,
            Some(row) if hash.is_some_and(|hash| row == known(hash)) => return Verdict::Same,
            Some(row) => {
                self.counts.changed += 1;
                if row == UNKNOWN { Verdict::Doubted } else { Verdict::Changed }
            }
            None => {
                self.counts.new += 1;
                Verdict::New
            }
        };
        self.told.insert(short(key));
        self.advanced += 1;
        verdict
    }

    fn is_newer(&self, key: u128) -> bool {
        self.told.contains(&short(key)) || self.journaled.contains(short(key))
    }

    fn see(&mut self, place: usize) {
        if self.seen.set(place as u64) {
            self.seen_count += 1;
            self.advanced += 1;
        }
    }

    /// The journal said something of this since the pass began.
    pub fn journaled(&mut self, key: u128) {
        self.told.remove(&short(key));
        self.journaled.insert(short(key));
    }

    /// Nothing of what was told is under way any more: it is journaled, or never will be.
    pub fn settle(&mut self) {
        self.told.clear();
    }

    /// Whether every object that there was has been read.
    pub fn is_complete(&self) -> bool {
        self.seen_count >= self.index.len()
    }

    /// How many objects were there before, weren't read, and nothing was said of since.
    pub fn missing(&self) -> u64 {
        let is_missing = |(place, key): &(usize, u64)| {
            !self.seen.has(*place as u64) && !self.told.contains(key) && !self.journaled.contains(*key)
        };
        self.index.keys().enumerate().filter(is_missing).count() as u64
    }

    /// Whether an object is one of those.
    pub fn misses(&self, key: u128) -> bool {
        let place = self.index.find(short(key));
        place.is_some_and(|place| !self.seen.has(place as u64)) && !self.is_newer(key)
    }

    /// An object was read, and nothing is told of it. Answers whether that is new.
    pub fn leave(&mut self, key: u128) -> bool {
        self.counts.read += 1;
        self.counts.left += 1;
        if let Some(place) = self.index.find(short(key)) {
            self.see(place);
        }
        let is_new = self.journaled.insert(short(key));
        self.advanced += u64::from(is_new);
        is_new
    }

    /// It is gone, and that is told.
    pub fn gone(&mut self, key: u128) {
        if let Some(place) = self.index.find(short(key)) {
            self.see(place);
        }
        self.counts.gone += 1;
    }

    /// How many objects it met for the first time: a pass that goes on has more.
    pub fn advanced(&self) -> u64 {
        self.advanced
    }

    /// What it did.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// A set of small numbers.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn place(number: u64) -> (usize, u64) {
        (usize::try_from(number / 64).unwrap_or(usize::MAX), 1 << (number % 64))
    }

    /// Answers whether it wasn't in it.
    fn set(&mut self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{AttributeInfo, ChangeFeed, ValueType};

    fn form() -> Form {
        let info = |name: &str| AttributeInfo::new(name, ValueType::Text);
        Form::of(&ObjectClassInfo {
            name: "account".into(),
            attributes: vec![
                AttributeInfo { multi_valued: true, ..info("Mail") },
                AttributeInfo { multi_valued: true, ordered: true, ..info("Steps") },
                AttributeInfo { volatile: true, ..info("lastLogin") },
            ],
            reports_deletes: false,
            whole_objects: true,
            changes: ChangeFeed::ByComparison,
        })
    }

    fn written(attributes: &[(&str, &[Value])]) -> Vec<u8> {
        let attribute = |(name, values): &(&str, &[Value])| Attribute {
            name: (*name).to_owned(),
            values: values.to_vec(),
            mode: ValueMode::Whole,
        };
        let attributes = attributes.iter().map(attribute).collect();
        let mut bytes = Vec::new();
        assert!(form().write(&ConnectorObject { uid: "u".into(), name: "n".into(), attributes }, &mut bytes));
        bytes
    }

    fn texts(texts: &[&str]) -> Vec<Value> {
        texts.iter().map(|text| Value::Text((*text).to_owned())).collect()
    }

    #[test]
    fn objects_are_the_same_but_for_what_has_no_order_and_what_changes_by_itself() {
        let (ab, ba) = (texts(&["a", "b"]), texts(&["b", "a"]));
        let one = written(&[("mail", &ab), ("steps", &ab), ("lastLogin", &ab)]);
        assert_eq!(one, written(&[("STEPS", &ab), ("lastlogin", &ba), ("Mail", &ba)]));
        for other in [
            written(&[("mail", &ab), ("steps", &ba)]),
            written(&[("mail", &ab)]),
            written(&[("mail", &ab), ("steps", &ab), ("more", &[])]),
            written(&[("mail", &texts(&["a", "a", "b"])), ("steps", &ab)]),
            written(&[("mail", &texts(&["ab"])), ("steps", &ab)]),
            written(&[("mail", &texts(&["A", "b"])), ("steps", &ab)]),
        ] {
            assert_ne!(one, other);
        }
        let kinds: Vec<Vec<u8>> = [
            Value::Text("1".into()),
            Value::Decimal("1".into()),
            Value::Timestamp("1".into()),
            Value::Json("1".into()),
            Value::Integer(1),
            Value::Real(1.0),
            Value::Bool(true),
            Value::Binary(b"1".to_vec()),
            Value::Secret,
            Value::Reference { object_class: "1".into(), uid: String::new() },
            Value::Reference { object_class: String::new(), uid: "1".into() },
        ]
        .map(|value| written(&[("a", &[value])]))
        .to_vec();
        assert_eq!(kinds.iter().collect::<BTreeSet<_>>().len(), kinds.len(), "each kind of value differs");
    }

    #[test]
    fn an_object_of_which_only_a_part_was_read_is_like_no_other() {
        for mode in [ValueMode::Part, ValueMode::Added, ValueMode::Removed] {
            let attributes = vec![Attribute { name: "mail".into(), values: Vec::new(), mode }];
            let object = ConnectorObject { uid: "u".into(), name: "n".into(), attributes };
            assert!(!form().write(&object, &mut Vec::new()));
        }
        let mut pass = pass(&[(1, None)]);
        assert_eq!(pass.judge(key(1), None), Verdict::Doubted);
        assert_eq!(self::pass(&[(1, None)]).judge(key(1), Some(0)), Verdict::Doubted);
    }

    /// A key that isn't like its neighbours.
    fn key(number: u64) -> u128 {
        u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64
    }

    fn hash(number: u64) -> u128 {
        u128::from(number) << 80
    }

    fn pass(rows: &[(u64, Option<u64>)]) -> Pass {
        let mut rows: Vec<_> = rows.iter().map(|(number, known)| (key(*number), known.map(hash))).collect();
        rows.sort_unstable();
        let mut index = Index::with_capacity(rows.len() as u64);
        rows.into_iter().for_each(|(key, hash)| index.push(key, hash));
        Pass::new(index)
    }

    #[test]
    fn an_object_is_told_once_and_only_if_it_differs() {
        let mut pass = pass(&[(1, Some(7)), (2, Some(7)), (3, Some(7))]);
        assert_eq!(pass.judge(key(1), Some(hash(7))), Verdict::Same);
        assert_eq!(pass.judge(key(2), Some(hash(8))), Verdict::Changed);
        assert_eq!(pass.judge(key(2), Some(hash(9))), Verdict::Newer, "it comes on a second page");
        pass.journaled(key(3));
        assert_eq!(pass.judge(key(3), Some(hash(8))), Verdict::Newer, "live sync told of it meanwhile");
        assert_eq!(pass.judge(key(4), Some(hash(1))), Verdict::New);
        assert_eq!(pass.judge(key(4), Some(hash(1))), Verdict::Newer);
        pass.journaled(key(4));
        pass.settle();
        assert_eq!(pass.judge(key(4), Some(hash(2))), Verdict::Newer);
        assert_eq!(pass.judge(key(6), Some(hash(1))), Verdict::New);
        pass.settle();
        assert_eq!(pass.judge(key(6), Some(hash(1))), Verdict::New, "it was never journaled");
        pass.journaled(key(5));
        assert_eq!(pass.judge(key(5), Some(hash(1))), Verdict::Newer, "it went meanwhile");
        assert!(pass.is_complete());
        assert_eq!(pass.counts(), Counts { read: 10, new: 3, changed: 1, ..Counts::default() });
        // A pass that only meets what it knows gets nowhere.
        let before = pass.advanced();
        pass.judge(key(1), Some(hash(7)));
        pass.judge(key(4), Some(hash(3)));
        assert_eq!((before, pass.advanced()), (7, 7));
    }

    #[test]
    fn only_what_was_there_before_and_was_not_read_is_missing() {
        let rows: Vec<_> = (0..70).map(|number| (number, Some(1))).collect();
        let mut pass = pass(&rows);
        for number in 3..70 {
            pass.judge(key(number), Some(hash(1)));
            pass.judge(key(number), Some(hash(1)));
        }
        assert!(!pass.is_complete() && pass.missing() == 3);
        assert!(!pass.misses(key(64)), "it was read");
        assert!(pass.misses(key(0)) && pass.misses(key(1)) && pass.misses(key(2)));
        assert!(!pass.misses(key(70)), "it never was");
        pass.journaled(key(1));
        assert!(!pass.misses(key(1)), "something was said of it since");
        pass.gone(key(0));
        assert!(!pass.misses(key(0)), "its end was told");
        assert_eq!(pass.missing(), 1);
        pass.gone(key(2));
        pass.gone(key(1));
        assert!(pass.is_complete());
        assert_eq!(pass.missing(), 0);
    }

    #[test]
    fn every_row_is_found_wherever_it_is() {
        for len in [0u64, 1, 2, 3, 17, 1000, 5000] {
            let rows: Vec<_> = (0..len).map(|number| (number, Some(number + 1))).collect();
            let mut even = pass(&rows);
            assert!((0..len).all(|number| even.judge(key(number), Some(hash(number + 1))) == Verdict::Same), "{len}");
            assert!(even.is_complete());
            assert_eq!(even.judge(key(len), Some(hash(1))), Verdict::New);
            // However uneven they are.
            for shift in [0, 20, 64] {
                let mut index = Index::default();
                (0..len).for_each(|number| index.push(u128::from(number) << shift << 32, Some(hash(number + 1))));
                let short = |number: u64| (u128::from(number) << shift << 32 >> 64) as u64;
                let mut distinct: Vec<u64> = (0..len).map(short).collect();
                assert_eq!(index.keys().collect::<Vec<_>>(), distinct);
                for number in 0..len {
                    let found = index.find(short(number)).unwrap();
                    assert_eq!(distinct[found], short(number), "{len} {shift} {number}");
                }
                distinct.dedup();
                assert!(
                    distinct
                        .iter()
                        .all(|key| distinct.binary_search(&(key + 1)).is_ok() || index.find(key + 1).is_none())
                );
                assert_eq!(index.find(u64::MAX), None);
            }
        }
    }
}
