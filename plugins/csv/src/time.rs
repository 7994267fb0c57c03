//! Reading times. A position is in microseconds: what is finer than that orders by digest.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

/// RFC 3339 with an offset; or `YYYY-MM-DD HH:MM:SS[.fff]` (`T` does too) and `YYYY-MM-DD`, which are in `zone`.
pub(crate) fn parse(text: &str, zone: Offset) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() == "2026-03-01".len() {
        let date: Date = text.parse().ok()?;
        return zone.to_timestamp(date.at(0, 0, 0, 0)).ok();
    }
    let clock = text.get("2026-03-01 08:00".len()..)?;
    if clock.contains(['Z', 'z', '+', '-']) {
        return text.parse().ok();
    }
    zone.to_timestamp(text.parse::<DateTime>().ok()?).ok()
}

/// RFC 3339: the text itself where it is that already, so that the source's offset survives.
pub(crate) fn rfc3339(text: &str, parsed: Timestamp) -> String {
    if is_rfc3339(text.as_bytes()) { text.to_owned() } else { parsed.to_string() }
}

fn is_rfc3339(text: &[u8]) -> bool {
    let shape = |pattern: &[u8], part: &[u8]| {
        let fits = |(p, b): (&u8, &u8)| {
            if *p == b'0' { b.is_ascii_digit() } else { p == b }
        };
        pattern.len() == part.len() && pattern.iter().zip(part).all(fits)
    };
    let Some((clock, rest)) = text.split_at_checked("2026-03-01T08:00:00".len()) else {
        return false;
    };
    let offset = match rest.split_first() {
        Some((b'.', rest)) => after_digits(rest),
        _ => Some(rest),
    };
    shape(b"0000-00-00T00:00:00", clock)
        && !clock.ends_with(b"60")
        && offset.is_some_and(|o| o == b"Z" || shape(b"+00:00", o) || shape(b"-00:00", o))
}

/// What comes after at least one digit.
fn after_digits(text: &[u8]) -> Option<&[u8]> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then(|| &text[digits..])
}

/// `+01:00`, `-05:30` or `Z`.
pub(crate) fn offset(text: &str) -> Option<Offset> {
    if text == "Z" {
        return Some(Offset::UTC);
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str, max: i32| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|number: &i32| digits && *number <= max)
    };
    Offset::from_seconds(sign * (number(hours, 23)? * 3600 + number(minutes, 59)? * 60)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_all_documented_forms() {
        let zone = offset("+02:00").unwrap();
        for (text, expected) in [
            ("2026-03-01T08:00:00Z", "2026-03-01T08:00:00Z"),
            ("2026-03-01T08:00:00.25+01:00", "2026-03-01T07:00:00.25Z"),
            ("2026-03-01T08:00:00-05:30", "2026-03-01T13:30:00Z"),
            ("2026-03-01 08:00:00", "2026-03-01T06:00:00Z"),
            ("2026-03-01T08:00:00.123456", "2026-03-01T06:00:00.123456Z"),
            (" 2026-03-01 ", "2026-02-28T22:00:00Z"),
        ] {
            assert_eq!(parse(text, zone).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "x", "2026-02-30", "2026-03-01T25:00:00Z", "01.03.2026 08:00:00", "1767225600"] {
            assert_eq!(parse(text, zone), None, "{text}");
        }
    }

    #[test]
    fn a_time_that_is_rfc_3339_stays_as_it_is() {
        for text in ["2026-03-01T08:00:00Z", "2026-03-01T08:00:00.5+01:00", "2026-03-01T08:00:00-00:30"] {
            assert_eq!(rfc3339(text, parse(text, Offset::UTC).unwrap()), text);
        }
        for text in ["2026-03-01", "2026-03-01 08:00:00", "2026-03-01 08:00:00Z", "2026-03-01T08:00:00+01"] {
            let parsed = parse(text, Offset::UTC).unwrap();
            assert_eq!(rfc3339(text, parsed), parsed.to_string(), "{text}");
        }
    }

    #[test]
    fn zones_are_offsets() {
        assert_eq!(offset("-05:30").unwrap().seconds(), -19_800);
        assert_eq!(offset("Z"), Some(Offset::UTC));
        for text in ["", "+1:00", "+24:00", "Europe/Berlin", "+01", "+-1:00"] {
            assert_eq!(offset(text), None, "{text}");
        }
    }
}
