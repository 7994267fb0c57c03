//! Sync tokens: opaque resume points of a source. They are stored, given back and compared for equality; nothing in the
//! host may look into one.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::object::encoded;

/// The largest token that is kept, in bytes. Part of the contract (`wit/types.wit`).
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// A resume point, with the type that the connector gave it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncToken {
    /// A whole number: a change number, a revision.
    Integer(i64),
    /// A text: a timestamp, a cookie.
    Text(String),
    /// Bytes, base64 in JSON.
    Binary(#[serde(with = "encoded")] Vec<u8>),
}

impl SyncToken {
    /// Bytes that the token takes.
    pub fn size(&self) -> usize {
        match self {
            Self::Integer(_) => 8,
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// The name of the token's type, for logs and answers.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Integer(_) => "integer",
            Self::Text(_) => "text",
            Self::Binary(_) => "binary",
        }
    }
}

/// One line for logs: whole when short, else its beginning and its size.
impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 96;
        let text = match self {
            Self::Integer(number) => return write!(f, "{number}"),
            Self::Text(text) => text.escape_debug().to_string(),
            Self::Binary(bytes) => encoded::to_text(bytes),
        };
        match text.char_indices().nth(SHOWN) {
            None => f.write_str(&text),
            Some((cut, _)) => write!(f, "{}… ({} bytes)", &text[..cut], self.size()),
        }
    }
}

impl fmt::Debug for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({self})", self.kind())
    }
}

/// As it is in JSON.
impl PartialSchema for SyncToken {
    fn schema() -> RefOr<Schema> {
        let only = |name: &str, value: ObjectBuilder| ObjectBuilder::new().property(name, value).required(name);
        let typed = |of: Type| ObjectBuilder::new().schema_type(of);
        let integer = typed(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        let binary = typed(Type::String).description(Some("base64")).content_encoding("base64");
        let kinds = OneOfBuilder::new()
            .item(only("integer", integer))
            .item(only("text", typed(Type::String)))
            .item(only("binary", binary));
        kinds.description(Some("A resume point, with the type that the connector gave it.")).into()
    }
}

impl ToSchema for SyncToken {}

/// `none` where there is no token, for log lines.
pub struct Shown<'a>(pub Option<&'a SyncToken>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(token) => write!(f, "{token}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_type_and_bytes_through_json() {
        for token in
            [SyncToken::Integer(i64::MIN), SyncToken::Text("15000".into()), SyncToken::Binary(vec![0, 255, 10])]
        {
            let json = serde_json::to_string(&token).unwrap();
            assert_eq!(serde_json::from_str::<SyncToken>(&json).unwrap(), token, "{json}");
        }
        assert_ne!(SyncToken::Integer(1), SyncToken::Text("1".into()));
    }

    #[test]
    fn shows_long_and_hostile_tokens_in_one_short_line() {
        let shown = SyncToken::Text(format!("a\nb\u{1b}{}", "x".repeat(5000))).to_string();
        assert!(shown.starts_with("a\\nb\\u{1b}xxx") && shown.ends_with("… (5004 bytes)"), "{shown}");
        assert_eq!(SyncToken::Integer(44002).to_string(), "44002");
    }
}
