//! The only place that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidewaiter_core::time::{Moment, Now, UnixMillis};

/// The steady clock and the wall clock of a process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
}

#[expect(clippy::disallowed_methods, reason = "this is where clocks are read")]
impl Clock {
    /// A steady clock that begins now.
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Steady time since the start.
    pub fn moment(&self) -> Moment {
        Moment(0) + self.began.elapsed()
    }

    /// The same, as finely as the machine has it: for measuring, and not for deciding.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Wall clock time; one before 1970 counts as 1970.
    pub fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Both clocks.
    pub fn both(&self) -> Now {
        Now { steady: self.moment(), wall: self.now() }
    }

    /// How long it is until a moment; zero if it has passed.
    pub fn until(&self, moment: Moment) -> Duration {
        Duration::from_millis(moment.0.saturating_sub(self.moment().0))
    }
}
