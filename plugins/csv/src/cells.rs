//! From the text of a cell to the values of an attribute.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::Offset;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tidewaiter_connector::{Value, ValueType};

use crate::time;

/// What the cells of a column hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CellType {
    #[default]
    Text,
    Integer,
    Decimal,
    Real,
    Boolean,
    Timestamp,
    Json,
    /// Base64 in the cell.
    Binary,
}

impl CellType {
    pub(crate) fn value_type(self) -> ValueType {
        match self {
            Self::Text => ValueType::Text,
            Self::Integer => ValueType::Integer,
            Self::Decimal => ValueType::Decimal,
            Self::Real => ValueType::Real,
            Self::Boolean => ValueType::Boolean,
            Self::Timestamp => ValueType::Timestamp,
            Self::Json => ValueType::Json,
            Self::Binary => ValueType::Binary,
        }
    }

    /// Reads one value. Space around it means nothing, except in a text. The error says what was expected.
    fn read(self, cell: &str, zone: Offset) -> Result<Value, &'static str> {
        let trimmed = cell.trim();
        Ok(match self {
            Self::Text => Value::Text(cell.to_owned()),
            Self::Integer => Value::Integer(trimmed.parse().map_err(|_| "not a whole number of 64 bits")?),
            Self::Decimal if is_decimal(trimmed) => Value::Decimal(trimmed.to_owned()),
            Self::Decimal => return Err("not a decimal number like -12.50"),
            Self::Real => {
                let real: f64 = trimmed.parse().map_err(|_| "not a number")?;
                Value::Real(Some(real).filter(|real| real.is_finite()).ok_or("not a finite number")?)
            }
            Self::Boolean => Value::Boolean(boolean(trimmed).ok_or("neither true nor false")?),
            Self::Timestamp => {
                let parsed = time::parse(trimmed, zone).ok_or("not a time")?;
                Value::Timestamp(time::rfc3339(trimmed, parsed))
            }
            Self::Json => {
                serde_json::from_str::<IgnoredAny>(trimmed).map_err(|_| "not JSON")?;
                Value::Json(trimmed.to_owned())
            }
            Self::Binary => Value::Binary(STANDARD.decode(trimmed).map_err(|_| "not base64")?),
        })
    }

    /// All values of a cell. An empty cell has none, and so has an empty part of a list.
    pub(crate) fn read_all(
        self,
        cell: &str,
        separator: Option<&str>,
        zone: Offset,
    ) -> Result<Vec<Value>, &'static str> {
        match separator {
            _ if cell.is_empty() => Ok(Vec::new()),
            None => Ok(vec![self.read(cell, zone)?]),
            Some(separator) => {
                let parts = cell.split(separator).filter(|part| !part.is_empty());
                parts.map(|part| self.read(part, zone)).collect()
            }
        }
    }
}

fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(unsigned),
    }
}

fn boolean(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["true", "t", "yes", "y", "1"]) {
        Some(true)
    } else if is(&["false", "f", "no", "n", "0"]) {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_become_values_of_their_type() {
        let value = |text: &str| Value::Timestamp(text.to_owned());
        for (cell_type, cell, expected) in [
            (CellType::Text, " a ", Value::Text(" a ".to_owned())),
            (CellType::Integer, " -7", Value::Integer(-7)),
            (CellType::Decimal, "-12.50", Value::Decimal("-12.50".to_owned())),
            (CellType::Real, "1e3", Value::Real(1000.0)),
            (CellType::Boolean, "Yes", Value::Boolean(true)),
            (CellType::Boolean, "0", Value::Boolean(false)),
            (CellType::Timestamp, "2026-03-01", value("2026-03-01T00:00:00Z")),
            (CellType::Json, "{\"a\":[1]}", Value::Json("{\"a\":[1]}".to_owned())),
            (CellType::Binary, "AP8=", Value::Binary(vec![0, 255])),
        ] {
            assert_eq!(cell_type.read_all(cell, None, Offset::UTC), Ok(vec![expected]), "{cell}");
        }
    }

    #[test]
    fn cells_of_another_type_are_refused() {
        for (cell_type, cell) in [
            (CellType::Integer, "1.5"),
            (CellType::Integer, "9223372036854775808"),
            (CellType::Decimal, "1e3"),
            (CellType::Decimal, ".5"),
            (CellType::Decimal, "+1"),
            (CellType::Real, "NaN"),
            (CellType::Real, "inf"),
            (CellType::Boolean, "maybe"),
            (CellType::Timestamp, "tomorrow"),
            (CellType::Json, "{"),
            (CellType::Binary, "*"),
        ] {
            assert!(cell_type.read_all(cell, None, Offset::UTC).is_err(), "{cell_type:?} {cell}");
        }
    }

    #[test]
    fn a_list_is_split_at_its_separator() {
        let read = |cell| CellType::Integer.read_all(cell, Some("; "), Offset::UTC).unwrap();
        assert_eq!(read("1; 2; ; 3"), [1, 2, 3].map(Value::Integer));
        assert_eq!(read(""), []);
    }
}
