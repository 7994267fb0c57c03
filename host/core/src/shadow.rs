//! Comparing what is read with what was journaled: the form in which two objects are the same, and a pass over all objects of a
//! type, which says of each whether it is told, and of what wasn't read whether it is gone. Hashes are made and kept by others.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use crate::object::{Attribute, ConnectorObject, Value, ValueMode};
use crate::schema::ObjectClassInfo;

/// What was told in a pass and is in no row yet is remembered up to this many; then the rows are brought up.
pub const TOLD_MAX: usize = 100_000;

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
        let named = |attribute| {
            let attribute: &Attribute = attribute;
            (attribute.name.to_lowercase(), attribute)
        };
        let mut attributes: Vec<_> = object.attributes.iter().map(named).collect();
        attributes.retain(|(name, _)| !self.volatile.contains(name));
        attributes.sort_by(|(one, _), (other, _)| one.cmp(other));
        text(&object.name, into);
        for (name, attribute) in attributes {
            if attribute.mode != ValueMode::Whole {
                return false;
            }
            text(&name, into);
            into.extend_from_slice(&(attribute.values.len() as u64).to_le_bytes());
            let in_order = attribute.values.len() < 2 || self.ordered.contains(&name);
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

/// What the shadow has of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Of what the journal last said; none: it didn't say everything.
    pub hash: Option<u128>,
    /// The entry that said it.
    pub sequence: u64,
    /// Its number in the shadow; no other row ever has it.
    pub ordinal: u64,
}

/// What becomes of an object that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The journal said nothing of it before.
    New,
    /// The journal said something else.
    Changed,
    /// The journal said just that.
    Same,
    /// The journal said something of it since the pass began: that is newer.
    Newer,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// A pass over all objects of a type.
#[derive(Debug)]
pub struct Pass {
    /// The last entry before it.
    start: u64,
    /// Rows with this ordinal and later ones came since.
    first_new: u64,
    /// Rows before it.
    rows: u64,
    seen: Bits,
    seen_old: u64,
    /// Objects that it had not met before.
    advanced: u64,
    /// Keys of what was told and is in no row yet.
    told: HashSet<u128>,
    /// Keys of what went since it began.
    left: HashSet<u128>,
    counts: Counts,
}

impl Pass {
    /// A pass that begins after that entry, over a shadow with so many rows that gives the next one this ordinal.
    pub fn new(start: u64, rows: u64, first_new: u64) -> Self {
        let (seen, told, left, counts) = Default::default();
        Self { start, first_new, rows, seen, seen_old: 0, advanced: 0, told, left, counts }
    }

    /// What becomes of an object that was read: by its key, the row there is, and its hash.
    pub fn judge(&mut self, key: u128, row: Option<Row>, hash: Option<u128>) -> Verdict {
        self.counts.read += 1;
        if let Some(row) = row {
            self.see(row.ordinal);
        }
        let verdict = match row {
            _ if self.told.contains(&key) => return Verdict::Newer,
            None if self.left.contains(&key) => return Verdict::Newer,
            Some(row) if row.sequence > self.start => return Verdict::Newer,
            Some(row) if hash.is_some() && row.hash == hash => return Verdict::Same,
            Some(_) => {
                self.counts.changed += 1;
                Verdict::Changed
            }
            None => {
                self.counts.new += 1;
                Verdict::New
            }
        };
        self.told.insert(key);
        self.advanced += 1;
        verdict
    }

    fn see(&mut self, ordinal: u64) {
        if ordinal < self.first_new && self.seen.set(ordinal) {
            self.seen_old += 1;
            self.advanced += 1;
        }
    }

    /// Whether the rows should be brought up, because so much was told that is in none.
    pub fn is_ahead(&self) -> bool {
        self.told.len() >= TOLD_MAX
    }

    /// What was told and may be in no row yet.
    pub fn told(&self) -> impl Iterator<Item = u128> + '_ {
        self.told.iter().copied()
    }

    /// Whether a row says what was said since the pass began.
    pub fn knows(&self, row: &Row) -> bool {
        row.sequence > self.start
    }

    /// A row says now what was told.
    pub fn settle(&mut self, key: u128) {
        self.told.remove(&key);
    }

    /// Nothing of what was told is under way any more: rows say it, or it was never journaled.
    pub fn settle_all(&mut self) {
        self.told.clear();
    }

    /// The journal says that the object is gone: what is read of it is older.
    pub fn left(&mut self, key: u128) {
        self.left.insert(key);
    }

    /// Whether every object that there was has been read.
    pub fn is_complete(&self) -> bool {
        self.seen_old >= self.rows
    }

    /// Whether a row's object was there before, wasn't read, and nothing was said of it since.
    pub fn misses(&self, row: &Row) -> bool {
        row.ordinal < self.first_new && row.sequence <= self.start && !self.seen.has(row.ordinal)
    }

    /// It is gone, and that is told.
    pub fn gone(&mut self, row: &Row) {
        self.see(row.ordinal);
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
        let mut pass = Pass::new(10, 1, 1);
        assert_eq!(pass.judge(1, Some(Row { hash: None, sequence: 3, ordinal: 0 }), None), Verdict::Changed);
    }

    #[test]
    fn an_object_is_told_once_and_only_if_it_differs() {
        let row = |hash, sequence, ordinal| Some(Row { hash: Some(hash), sequence, ordinal });
        let mut pass = Pass::new(10, 3, 3);
        assert_eq!(pass.judge(1, row(7, 10, 0), Some(7)), Verdict::Same);
        assert_eq!(pass.judge(2, row(7, 10, 1), Some(8)), Verdict::Changed);
        assert_eq!(pass.judge(2, row(7, 10, 1), Some(9)), Verdict::Newer, "it comes on a second page");
        assert_eq!(pass.judge(3, row(7, 11, 2), Some(8)), Verdict::Newer, "live sync told of it meanwhile");
        assert_eq!(pass.judge(4, None, Some(1)), Verdict::New);
        assert_eq!(pass.judge(4, None, Some(1)), Verdict::Newer);
        pass.settle(4);
        assert_eq!(pass.judge(4, row(1, 12, 3), Some(2)), Verdict::Newer);
        assert_eq!(pass.judge(6, None, Some(1)), Verdict::New);
        pass.settle_all();
        assert_eq!(pass.judge(6, None, Some(1)), Verdict::New, "it was never journaled");
        pass.left(5);
        assert_eq!(pass.judge(5, None, Some(1)), Verdict::Newer, "it went meanwhile");
        assert!(pass.is_complete());
        assert_eq!(pass.counts(), Counts { read: 10, new: 3, changed: 1, gone: 0 });
    }

    #[test]
    fn only_what_was_there_before_and_was_not_read_is_missing() {
        let row = |sequence, ordinal| Row { hash: Some(1), sequence, ordinal };
        let mut pass = Pass::new(10, 3, 70);
        pass.judge(1, Some(row(10, 64)), Some(1));
        pass.judge(1, Some(row(10, 64)), Some(1));
        assert!(!pass.is_complete());
        assert!(!pass.misses(&row(10, 64)), "it was read");
        assert!(pass.misses(&row(10, 69)));
        assert!(pass.misses(&row(10, 0)));
        assert!(!pass.misses(&row(11, 69)), "something was said of it since");
        assert!(!pass.misses(&row(10, 70)), "it came since");
        pass.gone(&row(10, 69));
        assert!(!pass.misses(&row(10, 69)), "its end was told");
        pass.gone(&row(10, 0));
        assert!(pass.is_complete());
    }
}
