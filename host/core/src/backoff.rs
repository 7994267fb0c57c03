//! How long those that failed wait before they try again: at random below a bound that doubles with every failure in a row, so that
//! those who failed together don't come again together.

use std::time::Duration;

/// Doublings after which a bound isn't looked at any more: whatever it began with, it is beyond every longest one.
const DOUBLINGS_MAX: u32 = 16;

/// The bounds of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub min: Duration,
    /// However many there were.
    pub max: Duration,
}

impl Backoff {
    /// The longest wait after so many failures in a row.
    pub fn bound(self, failures: u32) -> Duration {
        self.min.saturating_mul(1 << failures.saturating_sub(1).min(DOUBLINGS_MAX)).min(self.max)
    }

    /// The wait after so many failures in a row, from a millisecond to the longest one; `chance` is any number.
    pub fn delay(self, failures: u32, chance: u64) -> Duration {
        let millis = u64::try_from(self.bound(failures).as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(chance % millis + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_and_never_longer_than_the_longest() {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };
        let bounds = [0, 1, 2, 3, 6, 7, 8, u32::MAX].map(|failures| backoff.bound(failures).as_secs());
        assert_eq!(bounds, [1, 1, 2, 4, 32, 60, 60, 60]);
        let delays = [0, 999, 3999, 4000, u64::MAX].map(|chance| backoff.delay(3, chance).as_millis());
        assert_eq!(delays, [1, 1000, 4000, 1, 3616], "all of the time is in play");
        assert_eq!(Backoff { min: Duration::ZERO, ..backoff }.delay(1, 7), Duration::from_millis(1));
    }
}
