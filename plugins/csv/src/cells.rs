//! From the text of a cell to the values of an attribute.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::Offset;
use serde::de::IgnoredAny;
use tidewaiter_connector::Value;
use tidewaiter_connector::cells::{CellType, is_decimal};

use crate::time;

/// Reads one value. Space around it means nothing, except in a text. The error says what was expected.
fn read(cell_type: CellType, cell: &str, zone: Offset) -> Result<Value, &'static str> {
    let trimmed = cell.trim();
    Ok(match cell_type {
        CellType::Text => Value::Text(cell.to_owned()),
        CellType::Integer => Value::Integer(trimmed.parse().map_err(|_| "not a whole number of 64 bits")?),
        CellType::Decimal if is_decimal(trimmed) => Value::Decimal(trimmed.to_owned()),
        CellType::Decimal => return Err("not a decimal number like -12.50"),
        CellType::Real => {
            let real: f64 = trimmed.parse().map_err(|_| "not a number")?;
            Value::Real(Some(real).filter(|real| real.is_finite()).ok_or("not a finite number")?)
        }
        CellType::Boolean => Value::Boolean(boolean(trimmed).ok_or("neither true nor false")?),
        CellType::Timestamp => {
            let parsed = time::parse(trimmed, zone).ok_or("not a time")?;
            Value::Timestamp(time::rfc3339(trimmed, parsed))
        }
        CellType::Json => {
            serde_json::from_str::<IgnoredAny>(trimmed).map_err(|_| "not JSON")?;
            Value::Json(trimmed.to_owned())
        }
        // Base64 in the cell.
        CellType::Binary => Value::Binary(STANDARD.decode(trimmed).map_err(|_| "not base64")?),
        CellType::Secret => Value::Secret(cell.as_bytes().to_vec()),
    })
}

/// All values of a cell. An empty cell has none, and so has an empty part of a list.
pub(crate) fn read_all(
    cell_type: CellType,
    cell: &str,
    separator: Option<&str>,
    zone: Offset,
) -> Result<Vec<Value>, &'static str> {
    match separator {
        _ if cell.is_empty() => Ok(Vec::new()),
        None => Ok(vec![read(cell_type, cell, zone)?]),
        Some(separator) => {
            let parts = cell.split(separator).filter(|part| !part.is_empty());
            parts.map(|part| read(cell_type, part, zone)).collect()
        }
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
            (CellType::Secret, " 0 ", Value::Secret(b" 0 ".to_vec())),
        ] {
            assert_eq!(read_all(cell_type, cell, None, Offset::UTC), Ok(vec![expected]), "{cell}");
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
            assert!(read_all(cell_type, cell, None, Offset::UTC).is_err(), "{cell_type:?} {cell}");
        }
    }

    #[test]
    fn a_list_is_split_at_its_separator() {
        let read = |cell| read_all(CellType::Integer, cell, Some("; "), Offset::UTC).unwrap();
        assert_eq!(read("1; 2; ; 3"), [1, 2, 3].map(Value::Integer));
        assert_eq!(read(""), []);
    }
}
