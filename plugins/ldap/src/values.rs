//! What the bytes of a value mean.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tidewaiter_connector::Value;
use tidewaiter_connector::cells::{CellType, is_decimal};

/// The value of these bytes. What is not of its type goes over as what it is: a data fault, about which the operator has decided.
pub(crate) fn value(cell_type: CellType, bytes: Vec<u8>) -> Value {
    match cell_type {
        CellType::Binary => return Value::Binary(bytes),
        CellType::Secret => return Value::Secret(bytes),
        _ => {}
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Value::Binary(error.into_bytes()),
    };
    let value = match cell_type {
        CellType::Text | CellType::Binary | CellType::Secret => None,
        CellType::Integer => text.parse().ok().map(Value::Integer),
        CellType::Decimal => is_decimal(&text).then(|| Value::Decimal(text.clone())),
        CellType::Real => text.parse().ok().map(Value::Real),
        CellType::Boolean => boolean(&text).map(Value::Boolean),
        CellType::Timestamp => timestamp(&text).map(Value::Timestamp),
        CellType::Json => Some(Value::Json(text.clone())),
    };
    value.unwrap_or(Value::Text(text))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "TRUE" => Some(true),
        "FALSE" => Some(false),
        _ => None,
    }
}

/// Generalized time, `20260301080000.5+0100`, as RFC 3339. Minutes and seconds may be left out, and so may a fraction, which is one of the
/// last part that is there: only one of seconds can be told.
pub(crate) fn timestamp(text: &str) -> Option<String> {
    let sign = text.find(['Z', '+', '-'])?;
    let (time, offset) = text.split_at(sign);
    let (whole, fraction) = time.split_once(['.', ',']).map_or((time, None), |(whole, rest)| (whole, Some(rest)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !fraction.is_none_or(digits) || fraction.is_some() && whole.len() != 14 {
        return None;
    }
    let (date, clock) = whole.split_at_checked(8)?;
    let clock = match clock.len() {
        2 => format!("{clock}0000"),
        4 => format!("{clock}00"),
        6 => clock.to_owned(),
        _ => return None,
    };
    let offset = match offset.len() {
        1 => "Z".to_owned(),
        3 if digits(&offset[1..]) => format!("{offset}:00"),
        5 if digits(&offset[1..]) => format!("{}:{}", &offset[..3], &offset[3..]),
        _ => return None,
    };
    let fraction = fraction.map_or(String::new(), |digits| format!(".{digits}"));
    let (year, month, day) = (&date[..4], &date[4..6], &date[6..]);
    Some(format!("{year}-{month}-{day}T{}:{}:{}{fraction}{offset}", &clock[..2], &clock[2..4], &clock[4..]))
}

/// A text for bytes that a token holds.
pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_rfc_3339() {
        for (text, told) in [
            ("20260301080000Z", Some("2026-03-01T08:00:00Z")),
            ("20260301080000.123456Z", Some("2026-03-01T08:00:00.123456Z")),
            ("20260301080000,5+0530", Some("2026-03-01T08:00:00.5+05:30")),
            ("2026030108Z", Some("2026-03-01T08:00:00Z")),
            ("202603010815-08", Some("2026-03-01T08:15:00-08:00")),
            ("2026030108.5Z", None),
            ("20260301080000", None),
            ("20260301Z", None),
            ("2026030108000éZ", None),
            ("20260301080000.Z", None),
            ("", None),
        ] {
            assert_eq!(timestamp(text).as_deref(), told, "{text}");
        }
    }

    #[test]
    fn what_is_not_of_its_type_stays_what_it_is() {
        let of = |cell, text: &str| value(cell, text.as_bytes().to_vec());
        assert_eq!(of(CellType::Integer, "7"), Value::Integer(7));
        let large = "9223372036854775808";
        assert_eq!(of(CellType::Integer, large), Value::Text(large.into()));
        assert_eq!(of(CellType::Boolean, "TRUE"), Value::Boolean(true));
        assert_eq!(of(CellType::Boolean, "yes"), Value::Text("yes".into()));
        assert_eq!(value(CellType::Text, vec![0xff]), Value::Binary(vec![0xff]));
        assert_eq!(of(CellType::Secret, "{SSHA}x"), Value::Secret(b"{SSHA}x".to_vec()));
        assert_eq!(of(CellType::Timestamp, "20260301080000Z"), Value::Timestamp("2026-03-01T08:00:00Z".into()));
    }
}
