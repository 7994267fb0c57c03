//! Objects of a source and what happened to them, in the contract's words (`wit/types.wit`), without its encoding.

use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// What every value, attribute, object and delta adds to a size, in bytes. Part of the contract.
pub const ITEM_BYTES: usize = 16;

/// One value of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A decimal number as text.
    Decimal(String),
    /// A binary floating point number; finite.
    Real(f64),
    /// True or false.
    Bool(bool),
    /// Bytes.
    Binary(#[serde(with = "encoded")] Vec<u8>),
    /// RFC 3339 with an offset.
    Timestamp(String),
    /// Points to another object of the source.
    Reference {
        /// Its class.
        object_class: String,
        /// Its uid.
        uid: String,
    },
    /// One JSON text.
    Json(String),
    /// A value that is never kept in clear. The host drops the bytes where it has no key to encrypt them with; that
    /// there was a value stays.
    Secret,
}

/// What the values of an attribute say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueMode {
    /// All values.
    Whole,
    /// Some of them.
    Part,
    /// Those that came.
    Added,
    /// Those that went.
    Removed,
}

/// An attribute of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// The source's name for it; compared without regard to case.
    pub name: String,
    /// Empty: the object has no value.
    pub values: Vec<Value>,
    /// What the values say.
    pub mode: ValueMode,
}

/// An object as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectorObject {
    /// The identifier that stays.
    pub uid: String,
    /// What people call it; may change, may be empty.
    pub name: String,
    /// Its attributes; one that is absent was not read.
    pub attributes: Vec<Attribute>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// The object came.
    Create(ConnectorObject),
    /// The object changed.
    Update {
        /// As it is now.
        object: ConnectorObject,
        /// The uid it had before, if that changed.
        previous_uid: Option<String>,
    },
    /// The object came or changed; the source can't tell.
    CreateOrUpdate {
        /// As it is now.
        object: ConnectorObject,
        /// The uid it had before, if that changed.
        previous_uid: Option<String>,
    },
    /// The object went.
    Delete {
        /// Which.
        uid: String,
        /// Its name, where the source still knows it.
        name: Option<String>,
        /// What the source still knows of it.
        last_known: Option<ConnectorObject>,
    },
}

/// One change handed over by a connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncDelta {
    /// The class of the object.
    pub object_class: String,
    /// What happened to it.
    pub change: Change,
    /// When, by the source's clock.
    pub source_time: Option<String>,
}

impl SyncDelta {
    /// When the change was made, by the clock of the source; none: the source doesn't say, or says no time.
    pub fn changed_at(&self) -> Option<UnixMillis> {
        let time: jiff::Timestamp = self.source_time.as_ref()?.parse().ok()?;
        Some(UnixMillis(time.as_millisecond()))
    }
}

impl Value {
    fn size(&self) -> usize {
        ITEM_BYTES
            + match self {
                Self::Text(text) | Self::Decimal(text) | Self::Timestamp(text) | Self::Json(text) => text.len(),
                Self::Binary(bytes) => bytes.len(),
                Self::Reference { object_class, uid } => object_class.len() + uid.len(),
                Self::Integer(_) | Self::Real(_) | Self::Bool(_) | Self::Secret => 0,
            }
    }
}

impl ConnectorObject {
    /// The object's size by the contract's rule, in bytes.
    pub fn size(&self) -> usize {
        let attributes = self.attributes.iter();
        let attribute = |a: &Attribute| ITEM_BYTES + a.name.len() + a.values.iter().map(Value::size).sum::<usize>();
        ITEM_BYTES + self.uid.len() + self.name.len() + attributes.map(attribute).sum::<usize>()
    }
}

impl Change {
    /// The uid of the object that changed.
    pub fn uid(&self) -> &str {
        match self {
            Self::Create(object) | Self::Update { object, .. } | Self::CreateOrUpdate { object, .. } => &object.uid,
            Self::Delete { uid, .. } => uid,
        }
    }

    /// The uid that the object had before, if that changed.
    pub fn previous_uid(&self) -> Option<&str> {
        match self {
            Self::Update { previous_uid, .. } | Self::CreateOrUpdate { previous_uid, .. } => previous_uid.as_deref(),
            Self::Create(_) | Self::Delete { .. } => None,
        }
    }

    /// The object handed over with the change, if any.
    pub fn object(&self) -> Option<&ConnectorObject> {
        match self {
            Self::Create(object) | Self::Update { object, .. } | Self::CreateOrUpdate { object, .. } => Some(object),
            Self::Delete { last_known, .. } => last_known.as_ref(),
        }
    }

    /// The name of the case in which an object went.
    pub const DELETE: &str = "delete";

    /// The name of the case, for logs and answers.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update { .. } => "update",
            Self::CreateOrUpdate { .. } => "create-or-update",
            Self::Delete { .. } => Self::DELETE,
        }
    }

    fn object_mut(&mut self) -> Option<&mut ConnectorObject> {
        match self {
            Self::Create(object) | Self::Update { object, .. } | Self::CreateOrUpdate { object, .. } => Some(object),
            Self::Delete { last_known, .. } => last_known.as_mut(),
        }
    }

    fn size(&self) -> usize {
        let object = self.object().map_or(0, ConnectorObject::size);
        match self {
            Self::Create(_) => object,
            Self::Update { previous_uid, .. } | Self::CreateOrUpdate { previous_uid, .. } => {
                object + previous_uid.as_ref().map_or(0, String::len)
            }
            Self::Delete { uid, name, .. } => object + uid.len() + name.as_ref().map_or(0, String::len),
        }
    }
}

impl SyncDelta {
    /// Leaves out every attribute that is not among these; names compare case-insensitively.
    pub fn keep_only(&mut self, names: &[String]) {
        let wanted = |attribute: &Attribute| names.iter().any(|name| name.eq_ignore_ascii_case(&attribute.name));
        if let Some(object) = self.change.object_mut() {
            object.attributes.retain(wanted);
        }
    }

    /// The delta's size by the contract's rule, in bytes.
    pub fn size(&self) -> usize {
        let time = self.source_time.as_ref().map_or(0, String::len);
        ITEM_BYTES + self.object_class.len() + self.change.size() + time
    }
}

/// Bytes in serde: as they are in the journal, base64 (RFC 4648, padded) where people read.
pub mod encoded {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Base64 of the bytes.
    pub fn to_text(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    /// The bytes of base64, if it is well-formed.
    pub fn from_text(text: &str) -> Option<Vec<u8>> {
        STANDARD.decode(text).ok()
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => to_text(bytes).serialize(serializer),
            false => bytes.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if !deserializer.is_human_readable() {
            return Vec::deserialize(deserializer);
        }
        let text = String::deserialize(deserializer)?;
        from_text(&text).ok_or_else(|| serde::de::Error::custom("not base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_are_not_wanted_are_left_out_of_every_change() {
        let attribute = |name: &str| Attribute { name: name.into(), values: vec![], mode: ValueMode::Whole };
        let object = || ConnectorObject {
            uid: "1".into(),
            name: "a".into(),
            attributes: ["mail", "Salary", "phone"].map(attribute).to_vec(),
        };
        let changes = [
            Change::Create(object()),
            Change::Update { object: object(), previous_uid: None },
            Change::CreateOrUpdate { object: object(), previous_uid: None },
            Change::Delete { uid: "1".into(), name: None, last_known: Some(object()) },
        ];
        for change in changes {
            let mut delta = SyncDelta { object_class: "account".into(), change, source_time: None };
            delta.keep_only(&["MAIL".into(), "salary".into()]);
            let left: Vec<_> = delta.change.object().unwrap().attributes.iter().map(|a| a.name.as_str()).collect();
            assert_eq!(left, ["mail", "Salary"]);
        }
        let mut bare = SyncDelta {
            object_class: "a".into(),
            change: Change::Delete { uid: "1".into(), name: None, last_known: None },
            source_time: None,
        };
        bare.keep_only(&[]);
        assert_eq!(bare.change.object(), None);
    }
}
