//! What an instance uses, read by its run while it works: memory, processor time, and its last words.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use tidewaiter_core::run::Spent;

/// Lines of the log that a run's report keeps.
const LINES_KEPT: usize = 20;
/// A call that was polled without working for this long was not waiting for its turn but in a host call, in microseconds.
const STUCK_BELOW_US: u64 = 1000;

/// The gauge of a run's instance.
#[derive(Debug, Default)]
pub struct Gauge {
    memory_peak_bytes: AtomicU64,
    cpu_us: AtomicU64,
    last_poll_us: AtomicU64,
    log: Mutex<VecDeque<String>>,
}

impl Gauge {
    /// What was used so far.
    pub fn spent(&self) -> Spent {
        Spent {
            memory_peak_bytes: self.memory_peak_bytes.load(Ordering::Relaxed),
            cpu_us: self.cpu_us.load(Ordering::Relaxed),
            log: self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect(),
        }
    }

    pub(super) fn holds(&self, bytes: u64) {
        self.memory_peak_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(super) fn said(&self, line: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LINES_KEPT {
            log.pop_front();
        }
        log.push_back(line.to_owned());
    }

    /// Counts the time that a call takes on its processor.
    pub(super) async fn timed<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        std::future::poll_fn(|context| {
            let before = thread_us();
            let polled = call.as_mut().poll(context);
            let spent = thread_us().saturating_sub(before);
            self.last_poll_us.store(spent, Ordering::Relaxed);
            self.cpu_us.fetch_add(spent, Ordering::Relaxed);
            polled
        })
        .await
    }

    /// Whether the call was waiting in a host call when it was last looked at: a guest that computes does so until the next tick.
    pub(super) fn waits(&self) -> bool {
        self.last_poll_us.load(Ordering::Relaxed) < STUCK_BELOW_US
    }
}

/// Processor time of this thread, in microseconds.
fn thread_us() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}
