//! For sources whose values are text: what the cells of a column hold. Reading them is the connector's, because each source writes
//! times, truth and bytes in its own way.

use serde::Deserialize;

use crate::ValueType;

/// What the cells of a column hold, as operators write it in settings: `"decimal"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the cases are those of the contract's `value`")]
pub enum CellType {
    #[default]
    Text,
    Integer,
    Decimal,
    Real,
    Boolean,
    Timestamp,
    Json,
    Binary,
    Secret,
}

impl CellType {
    /// The type of the values.
    pub fn value_type(self) -> ValueType {
        match self {
            Self::Text => ValueType::Text,
            Self::Integer => ValueType::Integer,
            Self::Decimal => ValueType::Decimal,
            Self::Real => ValueType::Real,
            Self::Boolean => ValueType::Boolean,
            Self::Timestamp => ValueType::Timestamp,
            Self::Json => ValueType::Json,
            Self::Binary => ValueType::Binary,
            Self::Secret => ValueType::Secret,
        }
    }
}

/// Whether a text is a decimal number as the contract has it: `-?[0-9]+(\.[0-9]+)?`.
pub fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(unsigned),
    }
}
