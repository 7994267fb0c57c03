//! Quartz's cron expressions, in the form in which the key `quartz` of a type reads the same occurrences out of them. What that can't say is refused
//! with its reason, and never said nearly.

use jiff::tz::TimeZone;
use tidewaiter_core::text::shown;
use tidewaiter_core::timing::{Cron, Weekdays};

/// More of an expression isn't shown.
const SHOWN_BYTES_MAX: usize = 100;

/// An expression that can't be said here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?}: {problem}", shown(text, SHOWN_BYTES_MAX))]
pub(super) struct Untranslated {
    text: String,
    problem: String,
}

/// A field of an expression.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Of its values, from `min` on.
    names: &'static [&'static str],
    /// The largest step that Quartz takes.
    step_max: u32,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const SECOND: Field = Field { name: "seconds", min: 0, max: 59, names: &[], step_max: 59 };
const MINUTE: Field = Field { name: "minutes", min: 0, max: 59, names: &[], step_max: 59 };
const HOUR: Field = Field { name: "hours", min: 0, max: 23, names: &[], step_max: 23 };
const DAY: Field = Field { name: "days of the month", min: 1, max: 31, names: &[], step_max: 31 };
const MONTH: Field = Field { name: "months", min: 1, max: 12, names: &MONTHS, step_max: 12 };
const WEEKDAY: Field = Field { name: "days of the week", min: 1, max: 7, names: &DAYS, step_max: 7 };
const YEAR: Field = Field { name: "years", min: 1970, max: 2099, names: &[], step_max: 129 };

/// Says a Quartz expression as `quartz = "…"` takes it.
///
/// # Errors
/// Quartz refuses it, or it has something that can't be said here.
pub(super) fn translate(text: &str) -> Result<String, Untranslated> {
    translated(&text.to_ascii_uppercase()).map_err(|problem| Untranslated { text: text.to_owned(), problem })
}

fn translated(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split([' ', '\t']).filter(|part| !part.is_empty()).collect();
    let (second, minute, hour, day, month, weekday, year) = match *parts {
        [second, minute, hour, day, month, weekday] => (second, minute, hour, day, month, weekday, None),
        [second, minute, hour, day, month, weekday, year] => (second, minute, hour, day, month, weekday, Some(year)),
        _ => return Err(format!("it has {} fields, and those of Quartz have six or seven", parts.len())),
    };
    match (day, weekday) {
        ("?", "?") => return Err("one of day of the month and day of the week has to be said".into()),
        ("?", _) | (_, "?") => {}
        _ => return Err("one of day of the month and day of the week has to be ?; Quartz refuses it otherwise".into()),
    }
    let mut fields = vec![SECOND.plain(second)?, MINUTE.plain(minute)?, HOUR.plain(hour)?];
    fields.push(days(day, month)?);
    fields.push(MONTH.plain(month)?);
    fields.push(weekdays(weekday)?);
    fields.extend(year.map(|year| YEAR.plain(year)).transpose()?);
    let translated = fields.join(" ");
    Cron::parse(&translated, Weekdays::Quartz, TimeZone::UTC).map_err(|error| error.to_string())?;
    Ok(translated)
}

/// The days of the month: also `L`, `LW`, `15W`.
fn days(text: &str, months: &str) -> Result<String, String> {
    match text {
        "?" | "L" | "LW" => return Ok(text.to_owned()),
        _ if text.contains(',') && text.contains(['L', 'W']) => {
            return Err("L and W stand by themselves, and in no list".into());
        }
        _ if text.starts_with("L-") => {
            return Err("so many days before the last one of a month can't be said here".into());
        }
        _ => {}
    }
    let Some(day) = text.strip_suffix('W') else { return DAY.plain(text) };
    let day = DAY.value(day)?;
    // Where there is no such day, Quartz looks at the weekday of one of the next month, and may take the last day of this one.
    match MONTH.values(months)?.into_iter().all(|month| day <= shortest(month)) {
        true => Ok(text.to_owned()),
        false => Err(format!("not all of its months have a day {day}, and what Quartz does then can't be said here")),
    }
}

/// The days of each month in any year.
fn shortest(month: u32) -> u32 {
    match month {
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days of the week: also `L`, `6L`, `6#3`.
fn weekdays(text: &str) -> Result<String, String> {
    if text.contains(',') && text.contains(['L', '#']) {
        return Err("L and # stand by themselves, and in no list".into());
    }
    match (text, text.strip_suffix('L'), text.split_once('#')) {
        ("?", ..) => Ok("?".into()),
        // By itself it is the last day of the week.
        ("L", ..) => Ok("7".into()),
        (_, Some(day), _) => Ok(format!("{}L", WEEKDAY.value(day)?)),
        (_, _, Some((day, nth @ ("1" | "2" | "3" | "4" | "5")))) => Ok(format!("{}#{nth}", WEEKDAY.value(day)?)),
        (_, _, Some(_)) => Err("after # comes a number from 1 to 5".into()),
        _ => WEEKDAY.plain(text),
    }
}

impl Field {
    /// A field of values, ranges and steps, as it is written unless it would be read otherwise.
    fn plain(&self, text: &str) -> Result<String, String> {
        let parts: Vec<String> = text.split(',').map(|part| self.part(part)).collect::<Result<_, _>>()?;
        Ok(if parts.iter().any(|part| part == "*") { "*".into() } else { parts.join(",") })
    }

    fn part(&self, text: &str) -> Result<String, String> {
        let (range, step) = match text.split_once('/') {
            None => (text, None),
            Some((range, step)) => (range, Some(self.step(step)?)),
        };
        let is_name = range.contains(|character: char| character.is_ascii_alphabetic());
        if is_name && step.is_some() {
            return Err(format!("{}: what a step after a name means Quartz doesn't say", self.name));
        }
        match (range, step) {
            ("*", None) => Ok("*".into()),
            // They would be counted from another year.
            ("*" | "", Some(step)) if self.min == YEAR.min => Ok(format!("{}/{step}", self.min)),
            ("*" | "", Some(step)) => Ok(format!("*/{step}")),
            _ => match range.split_once('-') {
                None => self.value(range).map(|_| text.to_owned()),
                Some((from, to)) => self.range(text, self.value(from)?, self.value(to)?, step),
            },
        }
    }

    /// A range; one whose end is before its beginning goes on from the first value, as Quartz has it.
    fn range(&self, text: &str, from: u32, to: u32, step: Option<u32>) -> Result<String, String> {
        if from <= to {
            return Ok(text.to_owned());
        }
        if self.min == YEAR.min {
            return Err("years: a range ends before it begins".into());
        }
        let values = self.wrapped(from, to, step).into_iter().map(|value| value.to_string());
        Ok(values.collect::<Vec<_>>().join(","))
    }

    fn wrapped(&self, from: u32, to: u32, step: Option<u32>) -> Vec<u32> {
        let count = self.max + 1 - self.min;
        let steps = (from..=to + count).step_by(step.unwrap_or(1) as usize);
        let mut values: Vec<u32> = steps.map(|value| self.min + (value - self.min) % count).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// All values of a field that was found to be one.
    fn values(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut values = Vec::new();
        for part in self.plain(text)?.split(',') {
            let (range, step) = part.split_once('/').unwrap_or((part, ""));
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.min, self.max),
                Some((from, to)) => (self.value(from)?, self.value(to)?),
                None if step.is_empty() => (self.value(range)?, self.value(range)?),
                None => (self.value(range)?, self.max),
            };
            values.extend((from..=to).step_by(step.parse().unwrap_or(1)));
        }
        Ok(values)
    }

    /// A number, or the name of one.
    fn value(&self, text: &str) -> Result<u32, String> {
        let named = (self.min..).zip(self.names).find(|(_, name)| **name == text).map(|(value, _)| value);
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = named.or_else(|| text.parse().ok().filter(|_| digits));
        value.filter(|value| (self.min..=self.max).contains(value)).ok_or_else(|| {
            format!("{}: {:?} is none of {}..={}", self.name, shown(text, SHOWN_BYTES_MAX), self.min, self.max)
        })
    }

    fn step(&self, text: &str) -> Result<u32, String> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let step = text.parse().ok().filter(|step| digits && (1..=self.step_max).contains(step));
        step.ok_or_else(|| {
            format!("{}: {:?} is no step of 1..={}", self.name, shown(text, SHOWN_BYTES_MAX), self.step_max)
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tidewaiter_core::time::UnixMillis;

    use super::*;

    /// The first, the second and the nth occurrence from 2026-11-24T10:00:00Z on.
    fn occurrences(expression: &str, nth: usize) -> [String; 3] {
        let cron = Cron::parse(expression, Weekdays::Quartz, TimeZone::UTC).unwrap();
        let mut last = UnixMillis("2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap().as_millisecond());
        let mut all = Vec::new();
        for _ in 0..nth {
            last = cron.next(last).unwrap();
            all.push(Timestamp::from_millisecond(last.0).unwrap().to_string());
        }
        [all[0].clone(), all[1].clone(), all[nth - 1].clone()]
    }

    /// What is expected was counted day by day from what Quartz's manual says of each form, and not by any cron library.
    #[test]
    fn what_is_translated_has_the_occurrences_that_quartz_has() {
        for (written, translated, first, second, nth, last) in [
            (
                "0/15 * * * * ?",
                "0/15 * * * * ?",
                "2026-11-24T10:00:15Z",
                "2026-11-24T10:00:30Z",
                40,
                "2026-11-24T10:10:00Z",
            ),
            (
                "*/15 * * * * ?",
                "*/15 * * * * ?",
                "2026-11-24T10:00:15Z",
                "2026-11-24T10:00:30Z",
                40,
                "2026-11-24T10:10:00Z",
            ),
            (
                "0 0/5 * * * ?",
                "0 0/5 * * * ?",
                "2026-11-24T10:05:00Z",
                "2026-11-24T10:10:00Z",
                40,
                "2026-11-24T13:20:00Z",
            ),
            (
                "0 0 22-2 * * ?",
                "0 0 0,1,2,22,23 * * ?",
                "2026-11-24T22:00:00Z",
                "2026-11-24T23:00:00Z",
                40,
                "2026-12-02T02:00:00Z",
            ),
            (
                "0 30 22-4/2 * * ?",
                "0 30 0,2,4,22 * * ?",
                "2026-11-24T22:30:00Z",
                "2026-11-25T00:30:00Z",
                40,
                "2026-12-04T04:30:00Z",
            ),
            (
                "57-2 59 23 * * ?",
                "0,1,2,57,58,59 59 23 * * ?",
                "2026-11-24T23:59:00Z",
                "2026-11-24T23:59:01Z",
                40,
                "2026-11-30T23:59:57Z",
            ),
            (
                "0 0 12 ? * FRI-MON",
                "0 0 12 ? * 1,2,6,7",
                "2026-11-27T12:00:00Z",
                "2026-11-28T12:00:00Z",
                40,
                "2027-02-01T12:00:00Z",
            ),
            (
                "0 0 12 ? * MON-FRI",
                "0 0 12 ? * MON-FRI",
                "2026-11-24T12:00:00Z",
                "2026-11-25T12:00:00Z",
                40,
                "2027-01-18T12:00:00Z",
            ),
            (
                "0 0 12 ? * SUN-SUN",
                "0 0 12 ? * SUN-SUN",
                "2026-11-29T12:00:00Z",
                "2026-12-06T12:00:00Z",
                40,
                "2027-08-29T12:00:00Z",
            ),
            (
                "0 0 12 ? * 1",
                "0 0 12 ? * 1",
                "2026-11-29T12:00:00Z",
                "2026-12-06T12:00:00Z",
                40,
                "2027-08-29T12:00:00Z",
            ),
            (
                "0 0 12 ? * 2,4,SAT",
                "0 0 12 ? * 2,4,SAT",
                "2026-11-25T12:00:00Z",
                "2026-11-28T12:00:00Z",
                40,
                "2027-02-24T12:00:00Z",
            ),
            (
                "0 0 12 ? * 2/2",
                "0 0 12 ? * 2/2",
                "2026-11-25T12:00:00Z",
                "2026-11-27T12:00:00Z",
                40,
                "2027-02-24T12:00:00Z",
            ),
            (
                "0 0 12 ? * */3",
                "0 0 12 ? * */3",
                "2026-11-25T12:00:00Z",
                "2026-11-28T12:00:00Z",
                40,
                "2027-02-24T12:00:00Z",
            ),
            (
                "0 0 12 ? * /3",
                "0 0 12 ? * */3",
                "2026-11-25T12:00:00Z",
                "2026-11-28T12:00:00Z",
                40,
                "2027-02-24T12:00:00Z",
            ),
            (
                "0 0 12 ? * L",
                "0 0 12 ? * 7",
                "2026-11-28T12:00:00Z",
                "2026-12-05T12:00:00Z",
                40,
                "2027-08-28T12:00:00Z",
            ),
            (
                "0 0 12 ? * 6L",
                "0 0 12 ? * 6L",
                "2026-11-27T12:00:00Z",
                "2026-12-25T12:00:00Z",
                40,
                "2030-02-22T12:00:00Z",
            ),
            (
                "0 0 12 ? * FRIL",
                "0 0 12 ? * 6L",
                "2026-11-27T12:00:00Z",
                "2026-12-25T12:00:00Z",
                40,
                "2030-02-22T12:00:00Z",
            ),
            (
                "0 0 12 ? * 6#3",
                "0 0 12 ? * 6#3",
                "2026-12-18T12:00:00Z",
                "2027-01-15T12:00:00Z",
                40,
                "2030-03-15T12:00:00Z",
            ),
            (
                "0 0 12 ? * MON#5",
                "0 0 12 ? * 2#5",
                "2026-11-30T12:00:00Z",
                "2027-03-29T12:00:00Z",
                40,
                "2036-03-31T12:00:00Z",
            ),
            ("0 0 0 L * ?", "0 0 0 L * ?", "2026-11-30T00:00:00Z", "2026-12-31T00:00:00Z", 40, "2030-02-28T00:00:00Z"),
            (
                "0 0 0 LW * ?",
                "0 0 0 LW * ?",
                "2026-11-30T00:00:00Z",
                "2026-12-31T00:00:00Z",
                40,
                "2030-02-28T00:00:00Z",
            ),
            (
                "0 0 0 15W * ?",
                "0 0 0 15W * ?",
                "2026-12-15T00:00:00Z",
                "2027-01-15T00:00:00Z",
                40,
                "2030-03-15T00:00:00Z",
            ),
            (
                "0 0 0 1W * ?",
                "0 0 0 1W * ?",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
                40,
                "2030-03-01T00:00:00Z",
            ),
            (
                "0 0 0 31W JAN,MAY,AUG ?",
                "0 0 0 31W JAN,MAY,AUG ?",
                "2027-01-29T00:00:00Z",
                "2027-05-31T00:00:00Z",
                40,
                "2040-01-31T00:00:00Z",
            ),
            (
                "0 0 0 28-3 * ?",
                "0 0 0 1,2,3,28,29,30,31 * ?",
                "2026-11-28T00:00:00Z",
                "2026-11-29T00:00:00Z",
                40,
                "2027-05-30T00:00:00Z",
            ),
            (
                "0 0 0 */10 * ?",
                "0 0 0 */10 * ?",
                "2026-12-01T00:00:00Z",
                "2026-12-11T00:00:00Z",
                40,
                "2027-10-31T00:00:00Z",
            ),
            (
                "0 0 0 1 NOV-FEB ?",
                "0 0 0 1 1,2,11,12 ?",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
                40,
                "2036-11-01T00:00:00Z",
            ),
            (
                "0 0 0 1 11-2/3 ?",
                "0 0 0 1 2,11 ?",
                "2027-02-01T00:00:00Z",
                "2027-11-01T00:00:00Z",
                40,
                "2046-11-01T00:00:00Z",
            ),
            (
                "0 0 0 1 */5 ?",
                "0 0 0 1 */5 ?",
                "2027-01-01T00:00:00Z",
                "2027-06-01T00:00:00Z",
                40,
                "2040-01-01T00:00:00Z",
            ),
            ("0 0 0 29 2 ?", "0 0 0 29 2 ?", "2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z", 3, "2036-02-29T00:00:00Z"),
            (
                "0 0 0 1 1 ? */2",
                "0 0 0 1 1 ? 1970/2",
                "2028-01-01T00:00:00Z",
                "2030-01-01T00:00:00Z",
                3,
                "2032-01-01T00:00:00Z",
            ),
            (
                "0 0 0 1 1 ? 2027/3",
                "0 0 0 1 1 ? 2027/3",
                "2027-01-01T00:00:00Z",
                "2030-01-01T00:00:00Z",
                3,
                "2033-01-01T00:00:00Z",
            ),
            (
                "0 0 0 1 1 ? 2030-2032",
                "0 0 0 1 1 ? 2030-2032",
                "2030-01-01T00:00:00Z",
                "2031-01-01T00:00:00Z",
                3,
                "2032-01-01T00:00:00Z",
            ),
            (
                "0 0 0 ? JAN SUN 2027",
                "0 0 0 ? JAN SUN 2027",
                "2027-01-03T00:00:00Z",
                "2027-01-10T00:00:00Z",
                3,
                "2027-01-17T00:00:00Z",
            ),
            (
                "0 15,45 8-18 ? * mon-fri",
                "0 15,45 8-18 ? * MON-FRI",
                "2026-11-24T10:15:00Z",
                "2026-11-24T10:45:00Z",
                40,
                "2026-11-25T18:45:00Z",
            ),
            (
                "5/7 * * * * ?",
                "5/7 * * * * ?",
                "2026-11-24T10:00:05Z",
                "2026-11-24T10:00:12Z",
                40,
                "2026-11-24T10:04:54Z",
            ),
            (
                "0  0\t1 * * ?",
                "0 0 1 * * ?",
                "2026-11-25T01:00:00Z",
                "2026-11-26T01:00:00Z",
                40,
                "2027-01-03T01:00:00Z",
            ),
        ] {
            let read = translate(written).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read, translated, "{written}");
            assert_eq!(occurrences(&read, nth), [first, second, last], "{written}");
        }
    }

    #[test]
    fn what_can_not_be_said_is_refused_with_its_reason() {
        for (written, part) in [
            ("", "0 fields"),
            ("0 0 12 * *", "5 fields"),
            ("0 0 12 * * ? * *", "8 fields"),
            ("0 0 12 * * *", "has to be ?"),
            ("0 0 12 1 * MON", "has to be ?"),
            ("0 0 12 ? * ?", "has to be said"),
            ("0 ? 12 * * ?", "minutes"),
            ("60 * * * * ?", "seconds: \"60\" is none of 0..=59"),
            ("0 0 24 * * ?", "hours"),
            ("0 0 12 0 * ?", "days of the month"),
            ("0 0 12 ? * 0", "days of the week: \"0\" is none of 1..=7"),
            ("0 0 12 ? * 8", "days of the week"),
            ("0 0 12 ? * MONDAY", "days of the week"),
            ("0 0 12 ? 13 MON", "months"),
            ("0 0/60 * * * ?", "minutes: \"60\" is no step of 1..=59"),
            ("0 0/0 * * * ?", "no step"),
            ("0 0/-1 * * * ?", "no step"),
            ("0 0 12 ? * MON-FRI/2", "a step after a name"),
            ("0 0 12 ? * 2#6", "after # comes"),
            ("0 0 12 ? * 2#1,6#3", "in no list"),
            ("0 0 12 ? * 2L,6", "in no list"),
            ("0 0 12 L-3 * ?", "days before the last one"),
            ("0 0 12 L,15 * ?", "in no list"),
            ("0 0 12 1W,15W * ?", "in no list"),
            ("0 0 12 WL * ?", "days of the month"),
            ("0 0 12 31W * ?", "not all of its months have a day 31"),
            ("0 0 12 30W 1-3 ?", "not all of its months have a day 30"),
            ("0 0 12 31 2 ?", "it never comes"),
            ("0 0 12 1 1 ? 1969", "years"),
            ("0 0 12 1 1 ? 2030-2020", "years: a range ends before it begins"),
            ("0 0 12 1,,2 * ?", "days of the month: \"\""),
            ("0 0 12 99999999999999999999 * ?", "days of the month"),
            ("0 0 12 \u{202e}1 * ?", "\\u{202e}"),
            ("@daily", "1 fields"),
            ("0 0 12 ? * +MON", "days of the week"),
        ] {
            let problem = translate(written).unwrap_err().to_string();
            assert!(problem.contains(part), "{written:?}: {problem}");
        }
        assert!(translate(&"9".repeat(100_000)).unwrap_err().to_string().len() < 500);
    }
}
