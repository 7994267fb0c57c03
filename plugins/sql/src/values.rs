//! What the text of a cell means. Servers are asked for text, so that every type of theirs arrives without loss.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tidewaiter_connector::Value;
use tidewaiter_connector::cells::{CellType, is_decimal};

/// The value of a cell. What is not of its type goes over as the text that it is: a data fault, about which the operator has
/// decided.
pub(crate) fn value(cell_type: CellType, text: &str) -> Value {
    let value = match cell_type {
        CellType::Text => None,
        CellType::Integer => text.parse().ok().map(Value::Integer),
        CellType::Decimal => is_decimal(text).then(|| Value::Decimal(text.to_owned())),
        CellType::Real => text.parse().ok().map(Value::Real),
        CellType::Boolean => boolean(text).map(Value::Boolean),
        CellType::Timestamp => timestamp(text).map(Value::Timestamp),
        CellType::Json => Some(Value::Json(text.to_owned())),
        CellType::Binary => binary(text).map(Value::Binary),
        CellType::Secret => Some(Value::Secret(text.as_bytes().to_vec())),
    };
    value.unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// Whether a cell says yes.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "t" | "true" | "1" => Some(true),
        "f" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// `2026-03-01 08:00:00.5+01` as RFC 3339. What is before the year 1, after 9999, or no time at all, is none.
pub(crate) fn timestamp(text: &str) -> Option<String> {
    let (date, rest) = text.split_once([' ', 'T'])?;
    let shape = date.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    if !shape.eq(*b"0000-00-00") || date.split('-').any(|part| part.bytes().all(|byte| byte == b'0')) {
        return None;
    }
    let sign = rest.find(['+', '-', 'Z'])?;
    let (time, offset) = rest.split_at(sign);
    if !time.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.')) {
        return None;
    }
    if !offset.bytes().skip(1).all(|byte| byte.is_ascii_digit() || byte == b':') {
        return None;
    }
    let offset = match offset.len() {
        _ if matches!(offset, "Z" | "+00" | "+00:00") => "Z".to_owned(),
        3 => format!("{offset}:00"),
        6 => offset.to_owned(),
        _ => return None,
    };
    Some(format!("{date}T{time}{offset}"))
}

fn binary(text: &str) -> Option<Vec<u8>> {
    let Some(digits) = text.strip_prefix("\\x") else { return BASE64_STANDARD.decode(text).ok() };
    if digits.len() % 2 != 0 {
        return None;
    }
    let pairs = digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect()
}

/// The members of an array as PostgreSQL writes one: `{a,"b \"c\"",NULL}`. Members that are null are left out: they say nothing. None
/// if it has more than one dimension.
pub(crate) fn members(text: &str) -> Option<Vec<String>> {
    let mut rest = text.strip_prefix('{')?;
    let mut members = Vec::new();
    if rest == "}" {
        return Some(members);
    }
    loop {
        let mut member = String::new();
        let quoted = rest.strip_prefix('"');
        let mut characters = quoted.unwrap_or(rest).char_indices();
        let end = loop {
            match characters.next()? {
                (_, '\\') => member.push(characters.next()?.1),
                (at, '"') if quoted.is_some() => break at + 2,
                (at, ',' | '}') if quoted.is_none() => break at,
                (_, '{') if quoted.is_none() => return None,
                (_, character) => member.push(character),
            }
        };
        if quoted.is_some() || member != "NULL" {
            members.push(member);
        }
        match rest.get(end..)? {
            "}" => return Some(members),
            more => rest = more.strip_prefix(',')?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_rfc_3339() {
        for (text, told) in [
            ("2026-03-01 08:00:00+00", Some("2026-03-01T08:00:00Z")),
            ("2026-03-01 08:00:00.000001+05:30", Some("2026-03-01T08:00:00.000001+05:30")),
            ("2026-03-01 08:00:00-08", Some("2026-03-01T08:00:00-08:00")),
            ("infinity", None),
            ("2026-03-01", None),
            ("2026-03-01 08:00:00", None),
            ("0044-03-15 08:00:00+00 BC", None),
            ("12026-03-01 08:00:00+00", None),
            ("0000-00-00 00:00:00+00:00", None),
            ("2026-00-01 00:00:00+00:00", None),
        ] {
            assert_eq!(timestamp(text).as_deref(), told, "{text}");
        }
    }

    #[test]
    fn arrays_are_read_as_they_are_written() {
        for (text, read) in [
            ("{}", Some(vec![])),
            ("{a,b}", Some(vec!["a", "b"])),
            (r#"{"a,b","","say \"x\" \\",NULL,"NULL"}"#, Some(vec!["a,b", "", "say \"x\" \\", "NULL"])),
            ("{{1,2},{3,4}}", None),
            ("{a", None),
            ("[0:1]={a,b}", None),
            (r#"{"a"b}"#, None),
        ] {
            let read = read.map(|members| members.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(members(text), read, "{text}");
        }
    }

    #[test]
    fn numbers_and_bytes_are_exact_or_a_fault() {
        let fault = |text: &str| Value::Text(text.to_owned());
        let long = "-12345678901234567890.10";
        assert_eq!(value(CellType::Decimal, long), Value::Decimal(long.into()));
        assert_eq!(value(CellType::Decimal, "NaN"), fault("NaN"));
        assert_eq!(value(CellType::Integer, "9223372036854775808"), fault("9223372036854775808"));
        assert_eq!(value(CellType::Timestamp, "infinity"), fault("infinity"));
        assert_eq!(value(CellType::Boolean, "t"), Value::Boolean(true));
        assert_eq!(value(CellType::Binary, "\\x00ff"), Value::Binary(vec![0, 255]));
        assert_eq!(value(CellType::Binary, "\\x0"), fault("\\x0"));
    }
}
