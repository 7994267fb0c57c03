//! JSON of somebody else: every error names the file and the path in it, no key of an object is there twice, and of each object it is known what
//! nobody took. Knows nothing of what the keys mean.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use tidewaiter_core::text::shown;

use super::ImportError;

/// Objects and lists in one another; what OpenIDM writes has a dozen.
const DEPTH_MAX: usize = 32;
/// A key, as it is shown.
const KEY_BYTES_MAX: usize = 80;
/// A path, as it is shown.
const PATH_BYTES_MAX: usize = 400;
/// What OpenIDM writes where it puts a value in.
const PROPERTY: &str = "&{";
/// Where OpenIDM keeps a value encrypted.
const CRYPTO: &str = "$crypto";

/// Reads a file.
///
/// # Errors
/// It is no JSON, has a key twice, or is too deep.
pub(super) fn parse(file: &str, text: &str) -> Result<Value, ImportError> {
    let path = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Reader { path: &path }.deserialize(&mut deserializer);
    read.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
        let path = path.borrow().iter().fold(String::new(), |path, step| below(&path, step));
        ImportError::new(file, &path, error)
    })
}

/// The path of what has this key in what has that path.
fn below(path: &str, key: &str) -> String {
    let is_plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_$-".contains(&byte));
    let key = if is_plain || key.starts_with('[') { key.to_owned() } else { format!("{key:?}") };
    let point = if path.is_empty() || key.starts_with('[') { "" } else { "." };
    shown(&format!("{path}{point}{}", shown(&key, KEY_BYTES_MAX)), PATH_BYTES_MAX)
}

/// Reads a value, and knows where it is.
#[derive(Clone, Copy)]
struct Reader<'a> {
    path: &'a RefCell<Vec<String>>,
}

impl Reader<'_> {
    fn enter<E: serde::de::Error>(self, step: String) -> Result<(), E> {
        self.path.borrow_mut().push(step);
        match self.path.borrow().len() > DEPTH_MAX {
            true => Err(E::custom(format!("more than {DEPTH_MAX} objects and lists in one another"))),
            false => Ok(()),
        }
    }

    fn leave(self) {
        self.path.borrow_mut().pop();
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            self.enter(format!("[{}]", values.len()))?;
            let Some(value) = list.next_element_seed(self)? else { break };
            values.push(value);
            self.leave();
        }
        self.leave();
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            self.enter(key.clone())?;
            if values.contains_key(&key) {
                return Err(A::Error::custom("this key is there twice"));
            }
            values.insert(key, map.next_value_seed(self)?);
            self.leave();
        }
        Ok(values.into())
    }
}

/// A value, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) file: &'a str,
    pub(super) path: String,
    value: &'a Value,
}

/// What a text of OpenIDM's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Itself.
    Text(&'a str),
    /// OpenIDM puts something in when it reads it.
    Property(&'a str),
    /// OpenIDM alone can decrypt it.
    Encrypted,
}

impl<'a> Node<'a> {
    pub(super) fn root(file: &'a str, value: &'a Value) -> Self {
        Self { file, path: String::new(), value }
    }

    /// Says what is wrong with it.
    pub(super) fn wrong(&self, problem: impl fmt::Display) -> ImportError {
        ImportError::new(self.file, &self.path, problem)
    }

    fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        }
    }

    fn is_no(&self, what: &str) -> ImportError {
        self.wrong(format!("it is {}, and not {what}", self.kind()))
    }

    /// It says nothing.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// An object.
    pub(super) fn fields(&self) -> Result<Fields<'a>, ImportError> {
        let Value::Object(of) = self.value else { return Err(self.is_no("an object")) };
        Ok(Fields { file: self.file, path: self.path.clone(), of, taken: BTreeSet::new() })
    }

    /// A text, whatever is in it.
    pub(super) fn raw(&self) -> Result<&'a str, ImportError> {
        self.value.as_str().ok_or_else(|| self.is_no("a text"))
    }

    /// A text of one line.
    pub(super) fn text(&self) -> Result<&'a str, ImportError> {
        let text = self.raw()?;
        match text.chars().any(char::is_control) {
            true => Err(self.wrong("it has control characters")),
            false => Ok(text),
        }
    }

    /// A text, or what OpenIDM has in its place. Numbers are texts, too.
    pub(super) fn said(&self) -> Result<Said<'a>, ImportError> {
        if let Value::Object(fields) = self.value {
            let inner = fields.iter().next().filter(|_| fields.len() == 1);
            return match inner {
                _ if fields.contains_key(CRYPTO) => Ok(Said::Encrypted),
                // `{"$string": "&{…}"}` and its like.
                Some((key, Value::String(text))) if key.starts_with('$') && !text.chars().any(char::is_control) => {
                    Ok(Said::Property(text))
                }
                _ => Err(self.is_no("a text")),
            };
        }
        let text = self.text()?;
        Ok(if text.contains(PROPERTY) { Said::Property(text) } else { Said::Text(text) })
    }

    /// Whether it is something that OpenIDM decrypts or puts in.
    pub(super) fn is_resolved_by_openidm(&self) -> bool {
        matches!(self.said(), Ok(Said::Encrypted | Said::Property(_)))
    }

    /// A text or a list of texts.
    pub(super) fn all(&self) -> Result<Vec<Self>, ImportError> {
        match self.value {
            Value::Array(list) => {
                let node = |(n, value)| Self { file: self.file, path: below(&self.path, &format!("[{n}]")), value };
                Ok(list.iter().enumerate().map(node).filter(|node| !node.is_empty()).collect())
            }
            _ => Ok(vec![self.clone()]),
        }
    }

    /// As OpenIDM reads it: also as a text.
    pub(super) fn flag(&self) -> Result<bool, ImportError> {
        match self.value {
            Value::Bool(value) => Ok(*value),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(self.wrong("it is neither true nor false")),
        }
    }

    /// A whole number, also as a text.
    pub(super) fn number(&self) -> Result<i64, ImportError> {
        let number = match self.value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.wrong("it is no whole number of 64 bits"))
    }
}

/// An object, of which it is known what was taken.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    file: &'a str,
    path: String,
    of: &'a Map<String, Value>,
    taken: BTreeSet<&'a str>,
}

impl<'a> Fields<'a> {
    /// What a key says, if it says anything; it counts as taken.
    pub(super) fn take(&mut self, key: &str) -> Option<Node<'a>> {
        let (key, value) = self.of.get_key_value(key)?;
        self.taken.insert(key);
        Some(self.node(key, value)).filter(|node| !node.is_empty())
    }

    /// The first of these keys that says something; those after it do not count as taken.
    pub(super) fn take_any(&mut self, keys: &[&str]) -> Option<Node<'a>> {
        keys.iter().find_map(|key| self.take(key))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.of.contains_key(key)
    }

    /// What nobody took and says something, by key.
    pub(super) fn rest(&mut self) -> Vec<(&'a str, Node<'a>)> {
        let keys: Vec<&str> = self.of.keys().map(String::as_str).filter(|key| !self.taken.contains(key)).collect();
        keys.into_iter().filter_map(|key| Some((key, self.take(key)?))).collect()
    }

    /// Everything, also what says no more than that it is there, by key.
    pub(super) fn all(&self) -> Vec<(&'a str, Node<'a>)> {
        let of = self.of.iter().filter(|(_, value)| !value.is_null());
        of.map(|(key, value)| (key.as_str(), self.node(key, value))).collect()
    }

    /// Where a key is, or would be.
    pub(super) fn at(&self, key: &str) -> Node<'a> {
        self.node(key, self.of.get(key).unwrap_or(&Value::Null))
    }

    fn node(&self, key: &str, value: &'a Value) -> Node<'a> {
        Node { file: self.file, path: below(&self.path, key), value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        parse("p.json", text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_json_is_told_with_its_path() {
        let nested = |depth| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse("p.json", &nested(20)).is_ok());
        for (text, part) in [
            ("", "p.json: "),
            ("{\"a\": {\"b\": [1, 2, }", "p.json: a.b[2]: expected value at line 1"),
            ("{\"a\": {\"b\": 1, \"b\": 2}}", "p.json: a.b: this key is there twice at line 1"),
            ("{\"a\": {\"b c\u{202e}\": 1e999}}", "p.json: a.\"b c\\u{202e}\": number out of range"),
            ("{\"a\": 1} {}", "trailing characters"),
        ] {
            assert!(problem(text).contains(part), "{text}: {}", problem(text));
        }
        for depth in [33, 200, 100_000] {
            assert!(problem(&nested(depth)).starts_with("p.json: a[0][0]"), "{}", problem(&nested(depth)));
            assert!(problem(&nested(depth)).contains("more than 32 objects and lists"));
        }
        assert!(problem(&format!("{{\"{}\": }}", "k".repeat(100_000))).len() < 600);
    }

    #[test]
    fn a_value_of_another_kind_is_told_with_its_path_and_never_itself() {
        let value = parse("p.json", r#"{"a": {"b": ["hunter2", 7, {}]}, "n": 1e300, "c": "x\u0007y"}"#).unwrap();
        let mut fields = Node::root("p.json", &value).fields().unwrap();
        let list = fields.take("a").unwrap().fields().unwrap().take("b").unwrap().all().unwrap();
        let problems = [
            list[0].number().unwrap_err(),
            list[0].flag().unwrap_err(),
            list[0].fields().unwrap_err(),
            list[1].text().unwrap_err(),
            fields.take("n").unwrap().number().unwrap_err(),
            fields.take("c").unwrap().text().unwrap_err(),
        ];
        let problems = problems.map(|problem| problem.to_string());
        assert_eq!(list.len(), 2, "an empty object says nothing");
        assert_eq!(problems[2], "p.json: a.b[0]: it is a text, and not an object");
        assert_eq!(problems[3], "p.json: a.b[1]: it is a number, and not a text");
        assert_eq!(problems[4], "p.json: n: it is no whole number of 64 bits");
        assert_eq!(problems[5], "p.json: c: it has control characters");
        assert!(!problems.iter().any(|problem| problem.contains("hunter2")), "{problems:?}");
    }

    #[test]
    fn what_nobody_took_is_known() {
        let value = parse("p.json", r#"{"a": 1, "b": "", "c": {"d": 2}, "e": null}"#).unwrap();
        let mut fields = Node::root("p.json", &value).fields().unwrap();
        assert!(fields.take("a").is_some() && fields.take("b").is_none() && fields.take("x").is_none());
        let rest: Vec<String> = fields.rest().into_iter().map(|(_, node)| node.path).collect();
        assert_eq!(rest, ["c"]);
        assert!(fields.rest().is_empty());
    }

    #[test]
    fn what_openidm_puts_in_is_told_apart() {
        let text = r#"{"a": "x", "b": "&{h}/y", "c": {"$crypto": {"v": 1}}, "d": {"$string": "&{h}"}, "e": {"f": 1}}"#;
        let value = parse("p.json", text).unwrap();
        let mut fields = Node::root("p.json", &value).fields().unwrap();
        let said: Vec<_> = ["a", "b", "c", "d"].map(|key| fields.take(key).unwrap().said().unwrap()).into();
        assert_eq!(said, [Said::Text("x"), Said::Property("&{h}/y"), Said::Encrypted, Said::Property("&{h}")]);
        assert!(fields.take("e").unwrap().said().is_err());
    }
}
