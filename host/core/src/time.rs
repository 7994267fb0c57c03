//! Two kinds of time, never mixed: `Moment` runs steadily and decides when things are due; `UnixMillis` is the wall clock and
//! is only written down. A clock that jumps moves no schedule.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// Milliseconds of a steady clock since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The same instant by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// By the steady one.
    pub steady: Moment,
    /// By the wall clock.
    pub wall: UnixMillis,
}

impl Now {
    /// How many milliseconds the wall clock is ahead of the steady one; it changes when somebody sets the clock.
    pub fn offset(&self) -> i64 {
        self.wall.0.saturating_sub(i64::try_from(self.steady.0).unwrap_or(i64::MAX))
    }

    /// When it will be that time by the wall clock, if nobody sets it; now, if it has been.
    pub fn until(&self, wall: UnixMillis) -> Moment {
        let millis = u64::try_from(wall.0.saturating_sub(self.wall.0)).unwrap_or(0);
        self.steady + Duration::from_millis(millis)
    }
}

/// Wall clock time in milliseconds since 1970. RFC 3339 where people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct UnixMillis(pub i64);

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for UnixMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => serializer.serialize_i64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for UnixMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(time.as_millisecond()))
    }
}
