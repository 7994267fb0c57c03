//! The schedule of a type as operators write it: `every`, or `cron` or `quartz` with a `zone`, and what goes with them.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use serde::Deserializer;
use serde::de::{Unexpected, Visitor};
use tidewaiter_core::timing::{Cron, Misfire, Timing, Weekdays, When};

/// The shortest interval of a schedule.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// The keys of a type that say when it runs.
pub(super) struct TimingTable {
    pub(super) every: Option<SignedDuration>,
    pub(super) cron: Option<String>,
    pub(super) quartz: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) jitter: Option<SignedDuration>,
    pub(super) misfire: Option<Misfire>,
}

impl TimingTable {
    /// The schedule; none: only when asked. An error begins with the key that is wrong.
    pub(super) fn timing(self) -> Result<Option<Timing>, String> {
        let Self { every, cron, quartz, zone, jitter, misfire } = self;
        let zone = zone.map(|name| TimeZone::get(&name).map_err(|error| format!("zone: {error}"))).transpose()?;
        let by_zone = |text: &str, weekdays, key: &str| {
            let zone = zone.clone().unwrap_or_else(TimeZone::system);
            Cron::parse(text, weekdays, zone).map_err(|error| format!("{key}: {error}"))
        };
        let when = match (every, &cron, &quartz) {
            (None, None, None) => None,
            (Some(every), None, None) => Some(When::Every(interval(every)?)),
            (None, Some(text), None) => Some(When::Cron(Box::new(by_zone(text, Weekdays::Cron, "cron")?))),
            (None, None, Some(text)) => Some(When::Cron(Box::new(by_zone(text, Weekdays::Quartz, "quartz")?))),
            _ => return Err("every: a type has one of every, cron and quartz".into()),
        };
        let Some(when) = when else {
            return match zone.is_some() || jitter.is_some() || misfire.is_some() {
                true => Err("every: zone, jitter and misfire need a schedule".into()),
                false => Ok(None),
            };
        };
        if zone.is_some() && matches!(when, When::Every(_)) {
            return Err("zone: an interval has none".into());
        }
        let jitter = jitter.unwrap_or_default();
        if jitter.is_negative() {
            return Err("jitter: it is negative".into());
        }
        Ok(Some(Timing { when, jitter: jitter.unsigned_abs(), misfire: misfire.unwrap_or_default() }))
    }
}

/// A time with its unit, where there is one.
pub(super) fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SignedDuration>, D::Error> {
    struct Span;
    impl Visitor<'_> for Span {
        type Value = SignedDuration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time with its unit, as in \"500ms\", \"15s\", \"10m\" or \"720h\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SignedDuration, E> {
            text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(Span).map(Some)
}

fn interval(every: SignedDuration) -> Result<Duration, String> {
    match !every.is_negative() && every.unsigned_abs() >= EVERY_MIN {
        true => Ok(every.unsigned_abs()),
        false => Err(format!("every: it is shorter than {} ms", EVERY_MIN.as_millis())),
    }
}
