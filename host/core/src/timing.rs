//! When a type is due: by interval, or by a cron expression in a time zone. Says which occurrence comes next, and knows no clock.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::time::UnixMillis;

/// The schedule of a type.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Its occurrences.
    pub when: When,
    /// Each run begins up to that much later, so that many don't begin at once. The same occurrence always gets the same delay.
    pub jitter: Duration,
    /// What becomes of occurrences that were missed.
    pub misfire: Misfire,
}

/// What the occurrences of a schedule are.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// One each interval, by the steady clock.
    Every(Duration),
    /// By the wall clock.
    Cron(Box<Cron>),
}

/// What becomes of occurrences that were missed, because the machine slept, the clock jumped, or a run took longer than the
/// interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Misfire {
    /// However many they were, one run makes up for them.
    #[default]
    FireOnce,
    /// They are left out.
    Skip,
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.when {
            When::Every(interval) if interval.subsec_millis() == 0 => write!(f, "every {} s", interval.as_secs()),
            When::Every(interval) => write!(f, "every {} ms", interval.as_millis()),
            When::Cron(cron) => cron.fmt(f),
        }
    }
}

impl Timing {
    /// Every so often, without jitter.
    pub fn every(interval: Duration) -> Self {
        Self { when: When::Every(interval), jitter: Duration::ZERO, misfire: Misfire::FireOnce }
    }

    /// How much later an occurrence begins.
    pub fn delay(&self, of: &impl Hash, occurrence: u64) -> Duration {
        let millis = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(part(&(hash(of), occurrence), millis))
    }
}

/// A place below `end` that is always the same for the same thing, and evenly spread over many.
pub(crate) fn part(of: &impl Hash, end: u64) -> u64 {
    if end == 0 { 0 } else { hash(of) % end }
}

/// A number that is always the same for the same thing, and like chance over many.
pub(crate) fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A cron expression in a time zone: five fields, or six with seconds first, or seven with years last. `L`, `W`, `#` and `?` are
/// understood.
///
/// When clocks go forward, a fixed time in the gap moves to the first time after it; when they go back, a fixed time happens once
/// and an interval goes on through both hours.
#[derive(Clone, PartialEq)]
pub struct Cron {
    pattern: croner::Cron,
    zone: TimeZone,
    /// As it was written.
    text: Box<str>,
    weekdays: Weekdays,
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.weekdays {
            Weekdays::Cron => "cron",
            Weekdays::Quartz => "quartz",
        };
        write!(f, "{kind} {} {}", self.text, self.zone.iana_name().unwrap_or("UTC"))
    }
}

/// How weekdays are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weekdays {
    /// 0 and 7 are Sunday, as cron has it.
    Cron,
    /// 1 is Sunday and 7 is Saturday, as Quartz has it, and OpenIDM's schedules.
    Quartz,
}

/// Not a cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a cron expression: {problem}")]
pub struct BadCron {
    text: String,
    problem: String,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// It is none, or never has an occurrence.
    pub fn parse(text: &str, weekdays: Weekdays, zone: TimeZone) -> Result<Self, BadCron> {
        let bad = |problem: String| BadCron { text: text.to_owned(), problem };
        let parser = CronParser::builder();
        let parser = match weekdays {
            Weekdays::Cron => parser.seconds(Seconds::Optional),
            Weekdays::Quartz => parser.seconds(Seconds::Required).alternative_weekdays(true).sloppy_ranges(true),
        };
        let pattern = parser.build().parse(text).map_err(|error| bad(error.to_string()))?;
        let cron = Self { pattern, zone, text: text.into(), weekdays };
        match cron.next(UnixMillis(0)) {
            Some(_) => Ok(cron),
            None => Err(bad("it never comes".into())),
        }
    }

    /// The first occurrence after a time; none: there is no more.
    pub fn next(&self, after: UnixMillis) -> Option<UnixMillis> {
        let after = Timestamp::from_millisecond(after.0).ok()?.to_zoned(self.zone.clone());
        let next = self.pattern.find_next_occurrence(&after, false).ok()?;
        Some(UnixMillis(next.timestamp().as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn berlin(text: &str, weekdays: Weekdays) -> Cron {
        Cron::parse(text, weekdays, TimeZone::get("Europe/Berlin").unwrap()).unwrap()
    }

    fn following(cron: &Cron, after: &str, count: usize) -> Vec<String> {
        let mut last = at(after);
        let mut next = || {
            last = cron.next(last).unwrap();
            last.to_string()
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn seconds_and_the_forms_of_quartz_are_understood() {
        for (text, weekdays, expected) in [
            ("*/20 * * * * *", Weekdays::Cron, ["2026-11-24T10:00:20.000Z", "2026-11-24T10:00:40.000Z"]),
            ("30 4 * * *", Weekdays::Cron, ["2026-11-25T03:30:00.000Z", "2026-11-26T03:30:00.000Z"]),
            ("0 0/5 * * * ?", Weekdays::Quartz, ["2026-11-24T10:05:00.000Z", "2026-11-24T10:10:00.000Z"]),
            ("0 0 12 L * ?", Weekdays::Quartz, ["2026-11-30T11:00:00.000Z", "2026-12-31T11:00:00.000Z"]),
            ("0 0 12 ? * 6L", Weekdays::Quartz, ["2026-11-27T11:00:00.000Z", "2026-12-25T11:00:00.000Z"]),
            ("0 0 12 ? * 2#1", Weekdays::Quartz, ["2026-12-07T11:00:00.000Z", "2027-01-04T11:00:00.000Z"]),
            ("0 0 12 15W * ?", Weekdays::Quartz, ["2026-12-15T11:00:00.000Z", "2027-01-15T11:00:00.000Z"]),
            ("0 0 12 ? * MON-FRI", Weekdays::Quartz, ["2026-11-24T11:00:00.000Z", "2026-11-25T11:00:00.000Z"]),
            ("0 12 * * 1", Weekdays::Cron, ["2026-11-30T11:00:00.000Z", "2026-12-07T11:00:00.000Z"]),
            ("0 0 12 ? * 1", Weekdays::Quartz, ["2026-11-29T11:00:00.000Z", "2026-12-06T11:00:00.000Z"]),
        ] {
            assert_eq!(following(&berlin(text, weekdays), "2026-11-24T10:00:00Z", 2), expected, "{text}");
        }
    }

    /// Clocks go from 2:00 to 3:00 on 2026-03-29 and from 3:00 back to 2:00 on 2026-10-25.
    #[test]
    fn a_night_of_changing_clocks_has_each_run_once() {
        let nightly = berlin("30 2 * * *", Weekdays::Cron);
        let spring = following(&nightly, "2026-03-28T12:00:00Z", 2);
        assert_eq!(spring, ["2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"], "in the gap: right after it");
        let autumn = following(&nightly, "2026-10-24T12:00:00Z", 2);
        assert_eq!(autumn, ["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"], "once, the first time");
        let hourly = berlin("30 * * * *", Weekdays::Cron);
        let through = following(&hourly, "2026-10-25T00:00:00Z", 3);
        assert_eq!(through, ["2026-10-25T00:30:00.000Z", "2026-10-25T01:30:00.000Z", "2026-10-25T02:30:00.000Z"]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for text in ["", "* * *", "61 * * * *", "0 0 31 2 *", "every day"] {
            let error = Cron::parse(text, Weekdays::Cron, TimeZone::UTC).unwrap_err();
            assert!(error.to_string().contains("is not a cron expression"), "{text}: {error}");
        }
    }

    #[test]
    fn jitter_is_bounded_and_spread() {
        let timing = Timing { jitter: Duration::from_secs(10), ..Timing::every(Duration::from_secs(60)) };
        let delays: Vec<Duration> = (0..1000).map(|n| timing.delay(&"hr/account", n)).collect();
        assert!(delays.iter().all(|delay| *delay < Duration::from_secs(10)));
        assert!(delays.iter().filter(|delay| **delay < Duration::from_secs(5)).count().abs_diff(500) < 100);
        assert_eq!(timing.delay(&"hr/account", 7), delays[7]);
    }
}
