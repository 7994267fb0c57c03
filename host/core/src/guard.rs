//! Bounds on how much is journaled of a type before somebody has looked. The classic accident is an export that lost its rows:
//! what follows is a flood of deletions, each of them well-formed. Counts, and says when it is too much; decides nothing else.

use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;

/// The bounds of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// In one run.
    pub run: Most,
    /// In an hour, whatever the runs.
    pub hour: Most,
}

/// How many there may be; none: as many as there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Most {
    /// Changes of any kind.
    pub changes: Option<u64>,
    /// Deletions among them.
    pub deletes: Option<u64>,
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Changes of any kind.
    pub changes: u64,
    /// Deletions among them.
    pub deletes: u64,
}

impl std::ops::Add for Tally {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { changes: self.changes + other.changes, deletes: self.deletes + other.deletes }
    }
}

impl std::ops::Sub for Tally {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { changes: self.changes - other.changes, deletes: self.deletes - other.deletes }
    }
}

/// What was journaled in an hour, from its first change on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hour {
    /// When it began.
    pub since: UnixMillis,
    /// What has been journaled in it.
    #[serde(flatten)]
    pub tally: Tally,
}

impl Default for Hour {
    fn default() -> Self {
        Self { since: UnixMillis(0), tally: Tally::default() }
    }
}

impl Hour {
    /// As of now: another one, if it is over. Where the clock was set back, what was counted still counts.
    #[must_use]
    pub fn at(self, now: UnixMillis) -> Self {
        let age = now.0.saturating_sub(self.since.0);
        match age {
            0..HOUR => self,
            ..0 => Self { since: now, ..self },
            HOUR.. => Self { since: now, tally: Tally::default() },
        }
    }

    /// With what is journaled now.
    #[must_use]
    pub fn plus(self, tally: Tally, now: UnixMillis) -> Self {
        match tally == Tally::default() {
            true => self,
            false => {
                let Self { since, tally: before } = self.at(now);
                Self { since, tally: before + tally }
            }
        }
    }
}

impl Guard {
    /// What is too much of what a run has and of what an hour has, in the words of the configuration.
    pub fn refuses(&self, run: Tally, hour: Tally) -> Option<String> {
        let over = |count: u64, max: Option<u64>, what: &str, when: &str, name: &str| {
            let max = max.filter(|max| count > *max)?;
            Some(format!("{count} {what} in {when}, and guard.{name} is {max}"))
        };
        over(run.deletes, self.run.deletes, "deletions", "a run", "max-deletes")
            .or_else(|| over(run.changes, self.run.changes, "changes", "a run", "max-changes"))
            .or_else(|| over(hour.deletes, self.hour.deletes, "deletions", "an hour", "max-deletes-per-hour"))
            .or_else(|| over(hour.changes, self.hour.changes, "changes", "an hour", "max-changes-per-hour"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(changes: u64, deletes: u64) -> Tally {
        Tally { changes, deletes }
    }

    #[test]
    fn names_the_bound_that_is_exceeded_and_none_that_is_reached() {
        let most = |changes, deletes| Most { changes: Some(changes), deletes: Some(deletes) };
        let guard = Guard { run: most(10, 2), hour: most(20, 4) };
        for (run, hour, part) in [
            (tally(10, 2), tally(20, 4), None),
            (tally(10, 3), tally(10, 3), Some("3 deletions in a run, and guard.max-deletes is 2")),
            (tally(11, 0), tally(11, 0), Some("11 changes in a run, and guard.max-changes is 10")),
            (tally(2, 2), tally(20, 5), Some("5 deletions in an hour, and guard.max-deletes-per-hour is 4")),
            (tally(2, 2), tally(21, 4), Some("21 changes in an hour, and guard.max-changes-per-hour is 20")),
        ] {
            assert_eq!(guard.refuses(run, hour).as_deref(), part);
        }
        assert_eq!(Guard::default().refuses(tally(u64::MAX, 9), tally(9, 9)), None);
    }

    #[test]
    fn an_hour_ends_by_the_clock_and_not_by_setting_it_back() {
        let start = UnixMillis(1_774_000_000_000);
        let at = |minutes: i64| UnixMillis(start.0 + minutes * 60_000);
        let hour = Hour::default().plus(tally(3, 1), start);
        assert_eq!(hour, Hour { since: start, tally: tally(3, 1) });
        assert_eq!(hour.plus(Tally::default(), at(70)), hour, "nothing, and nothing is written");
        assert_eq!(hour.plus(tally(1, 1), at(59)).tally, tally(4, 2));
        assert_eq!(hour.plus(tally(1, 1), at(60)), Hour { since: at(60), tally: tally(1, 1) });
        let back = hour.plus(tally(1, 0), at(-600));
        assert_eq!(back, Hour { since: at(-600), tally: tally(4, 1) }, "a clock that was set back forgives nothing");
    }
}
