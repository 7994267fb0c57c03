//! Making and reading the contract's words in the idiom of Rust: values, objects, deltas, tokens. Owns no behaviour beyond the
//! size of a delta as the contract counts it.

use crate::{Attribute, Change, Deleted, Delta, Error, Object, Reference, SyncToken, Updated, Value, ValueMode};

/// What the contract adds to the bytes of each value, attribute, object and delta.
const OVERHEAD: u64 = 16;

macro_rules! values {
    ($($type:ty => |$value:ident| $made:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $made
            }
        }

        impl IntoValues for $type {
            fn into_values(self) -> Vec<Value> {
                vec![self.into()]
            }
        }
    )*};
}

values! {
    &str => |value| Self::Text(value.to_owned());
    String => |value| Self::Text(value);
    i64 => |value| Self::Integer(value);
    i32 => |value| Self::Integer(value.into());
    u32 => |value| Self::Integer(value.into());
    f64 => |value| Self::Real(value);
    bool => |value| Self::Boolean(value);
    Reference => |value| Self::Reference(value);
}

/// What an attribute's values are made from: one of them, a list of them, or an option.
pub trait IntoValues {
    /// The values.
    fn into_values(self) -> Vec<Value>;
}

impl IntoValues for Value {
    fn into_values(self) -> Vec<Value> {
        vec![self]
    }
}

impl<T: Into<Value>> IntoValues for Vec<T> {
    fn into_values(self) -> Vec<Value> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<Value>, const N: usize> IntoValues for [T; N] {
    fn into_values(self) -> Vec<Value> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<Value>> IntoValues for Option<T> {
    fn into_values(self) -> Vec<Value> {
        self.into_iter().map(Into::into).collect()
    }
}

impl Value {
    fn size(&self) -> u64 {
        let bytes = match self {
            Self::Text(text) | Self::Decimal(text) | Self::Timestamp(text) | Self::Json(text) => text.len(),
            Self::Binary(bytes) | Self::Secret(bytes) => bytes.len(),
            Self::Reference(reference) => reference.object_class.len() + reference.uid.len(),
            Self::Integer(_) | Self::Real(_) | Self::Boolean(_) => 0,
        };
        bytes as u64 + OVERHEAD
    }
}

impl Reference {
    /// Points to the object of this class with this uid.
    pub fn new(class: impl Into<String>, uid: impl Into<String>) -> Self {
        Self { object_class: class.into(), uid: uid.into() }
    }
}

impl Attribute {
    /// All values that the object has now.
    pub fn whole(name: impl Into<String>, values: impl IntoValues) -> Self {
        Self::new(name, values, ValueMode::Whole)
    }

    /// Values that say what `mode` says.
    pub fn new(name: impl Into<String>, values: impl IntoValues, mode: ValueMode) -> Self {
        Self { name: name.into(), values: values.into_values(), mode }
    }

    fn size(&self) -> u64 {
        let values: u64 = self.values.iter().map(Value::size).sum();
        self.name.len() as u64 + values + OVERHEAD
    }
}

impl Object {
    /// An object without attributes.
    pub fn new(uid: impl Into<String>, name: impl Into<String>) -> Self {
        Self { uid: uid.into(), name: name.into(), attributes: Vec::new() }
    }

    /// With this attribute, whole: `.with("mail", "a@b")`, `.with("groups", vec!["x", "y"])`, `.with("fax", None::<&str>)`.
    #[must_use]
    pub fn with(self, name: impl Into<String>, values: impl IntoValues) -> Self {
        self.with_attribute(Attribute::whole(name, values))
    }

    /// With this attribute.
    #[must_use]
    pub fn with_attribute(mut self, attribute: Attribute) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// The values of an attribute; none if it is absent.
    pub fn get(&self, name: &str) -> Option<&[Value]> {
        let mut attributes = self.attributes.iter();
        let found = attributes.find(|attribute| attribute.name.eq_ignore_ascii_case(name));
        found.map(|attribute| attribute.values.as_slice())
    }

    pub(crate) fn size(&self) -> u64 {
        let attributes: u64 = self.attributes.iter().map(Attribute::size).sum();
        (self.uid.len() + self.name.len()) as u64 + attributes + OVERHEAD
    }
}

impl From<Object> for Updated {
    fn from(object: Object) -> Self {
        Self { object, previous_uid: None }
    }
}

impl Delta {
    /// An object that is new.
    pub fn create(class: impl Into<String>, object: Object) -> Self {
        Change::Create(object).of(class)
    }

    /// An object that changed.
    pub fn update(class: impl Into<String>, object: impl Into<Updated>) -> Self {
        Change::Update(object.into()).of(class)
    }

    /// An object that is new or changed, where the source can't tell.
    pub fn upsert(class: impl Into<String>, object: impl Into<Updated>) -> Self {
        Change::CreateOrUpdate(object.into()).of(class)
    }

    /// An object that went, of which the source knows nothing but the uid. For more: `Change::Delete(…).of(class)`.
    pub fn delete(class: impl Into<String>, uid: impl Into<String>) -> Self {
        let deleted = Deleted { uid: uid.into(), name: None, last_known: None };
        Change::Delete(deleted).of(class)
    }

    /// When it happened, by the source's clock: RFC 3339 with an offset.
    #[must_use]
    pub fn at(mut self, source_time: impl Into<String>) -> Self {
        self.source_time = Some(source_time.into());
        self
    }

    /// The uid of the object that it is about.
    pub fn uid(&self) -> &str {
        match &self.change {
            Change::Create(object) => &object.uid,
            Change::Update(updated) | Change::CreateOrUpdate(updated) => &updated.object.uid,
            Change::Delete(deleted) => &deleted.uid,
        }
    }

    /// Its size as the contract counts it.
    pub fn size(&self) -> u64 {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() as u64);
        let change = match &self.change {
            Change::Create(object) => object.size(),
            Change::Update(updated) | Change::CreateOrUpdate(updated) => {
                updated.object.size() + optional(&updated.previous_uid)
            }
            Change::Delete(deleted) => {
                deleted.uid.len() as u64 + optional(&deleted.name) + deleted.last_known.as_ref().map_or(0, Object::size)
            }
        };
        self.object_class.len() as u64 + optional(&self.source_time) + change + OVERHEAD
    }
}

impl Change {
    /// This change of an object of this class.
    pub fn of(self, class: impl Into<String>) -> Delta {
        Delta { object_class: class.into(), change: self, source_time: None }
    }
}

impl From<i64> for SyncToken {
    fn from(token: i64) -> Self {
        Self::Integer(token)
    }
}

impl From<String> for SyncToken {
    fn from(token: String) -> Self {
        Self::Text(token)
    }
}

impl From<&str> for SyncToken {
    fn from(token: &str) -> Self {
        Self::Text(token.to_owned())
    }
}

impl From<Vec<u8>> for SyncToken {
    fn from(token: Vec<u8>) -> Self {
        Self::Binary(token)
    }
}

/// Reading a token back; one of another type is answered `invalid-sync-token`.
impl SyncToken {
    /// The number of an integer token.
    pub fn as_integer(&self) -> Result<i64, Error> {
        match self {
            Self::Integer(token) => Ok(*token),
            other => Err(other.is_not("an integer")),
        }
    }

    /// The text of a text token.
    pub fn as_text(&self) -> Result<&str, Error> {
        match self {
            Self::Text(token) => Ok(token),
            other => Err(other.is_not("a text")),
        }
    }

    /// The bytes of a binary token.
    pub fn as_binary(&self) -> Result<&[u8], Error> {
        match self {
            Self::Binary(token) => Ok(token),
            other => Err(other.is_not("binary")),
        }
    }

    fn is_not(&self, expected: &str) -> Error {
        Error::invalid_sync_token(format!("the sync token is not {expected}"))
    }
}
