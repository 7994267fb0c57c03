//! Names that operators and connectors give to things, checked once where they come in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A name that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a usable name: it takes letters, digits, `-` and `_`, begins with a letter or digit, and has at most 64 of them"
)]
pub struct BadName(String);

/// Where the operator's and OpenIDM's world meet: `system/hr/account`.
const OPENIDM_PREFIX: &str = "SYSTEM";

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length = 64)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                if is_name(&text) { Ok(Self(text)) } else { Err(BadName(text)) }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A connector: the stem of its file.
    ConnectorName
}
name! {
    /// Somebody who reads the journal by itself.
    ConsumerName
}
name! {
    /// A connection: a connector configured by an operator.
    ConnectionName
}
name! {
    /// Somebody with an access token: what that is called.
    AccessName
}
name! {
    /// An object type: the operator's name for a kind of object in a connection.
    TypeName
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// What a state belongs to: an object type of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct TypeKey {
    /// The connection.
    pub connection: ConnectionName,
    /// The object type in it.
    pub object_type: TypeName,
}

impl TypeKey {
    /// OpenIDM's id of the token document: `system/mssql/account` is `SYSTEMMSSQLACCOUNT`. Different keys can have the same id;
    /// a configuration in which two do is refused.
    pub fn openidm_id(&self) -> String {
        format!("{OPENIDM_PREFIX}{}{}", self.connection, self.object_type).to_ascii_uppercase()
    }
}

impl fmt::Display for TypeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.connection, self.object_type)
    }
}

/// The connector's name for a class that an operator wrote: ConnId's `__ACCOUNT__` and `__GROUP__` are accepted at this edge.
pub fn object_class(written: &str) -> &str {
    match written {
        "__ACCOUNT__" => "account",
        "__GROUP__" => "group",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_mean_something_elsewhere() {
        for bad in ["", "-a", "_a", "a/b", "a b", "a.b", "é", "../x", &"x".repeat(65)] {
            assert!(ConnectionName::from_str(bad).is_err(), "{bad:?}");
        }
        assert!(ConnectionName::from_str(&"x".repeat(64)).is_ok());
    }

    #[test]
    fn builds_the_id_that_openidm_scripts_use() {
        let key = TypeKey { connection: "mssql".parse().unwrap(), object_type: "account".parse().unwrap() };
        assert_eq!(key.openidm_id(), "SYSTEMMSSQLACCOUNT");
    }
}
