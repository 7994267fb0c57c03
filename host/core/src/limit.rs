//! Limits on what comes from a guest. Each has a name, a default and a reason.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// The limits of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `memory-bytes`: all linear memories and tables of an instance together.
    pub memory_bytes_max: u64,
    /// `call-time`: one call into the connector, host calls included.
    pub call_time_max: Duration,
    /// `batch-count`: deltas or objects in one `emit`.
    pub batch_count_max: u32,
    /// `batch-bytes`: size of one `emit`.
    pub batch_bytes_max: u64,
    /// `object-bytes`: size of one object.
    pub object_bytes_max: u64,
    /// `uncovered-bytes`: deltas handed over since the last checkpoint; they are staged until one covers them.
    pub uncovered_bytes_max: u64,
    /// `stage-bytes`: beyond that, deltas that no checkpoint covers are staged and not held in memory.
    pub stage_bytes: u64,
    /// `dead-letters`: deltas of a type that are kept out of the journal.
    pub dead_letters_max: u64,
    /// `dead-letter-bytes`: the same, by their size.
    pub dead_letter_bytes_max: u64,
    /// `run-deltas`: a run that has taken that many ends at a checkpoint, and goes on as another one.
    pub run_deltas_max: u64,
    /// `run-bytes`: the same, by the size of the deltas.
    pub run_bytes_max: u64,
    /// `run-time`: the same, by its time.
    pub run_time_max: Duration,
    /// `pending-bytes`: deltas waiting for the commit before theirs; beyond it, `emit` blocks.
    pub pending_bytes_max: u64,
    /// `log-line-bytes`: one line of a guest's log; what is longer is cut.
    pub log_line_bytes_max: usize,
    /// `log-lines`: lines of a guest's log in one run; what is more is counted.
    pub log_lines_max: u32,
    /// `http-requests`: requests whose answer has not begun, at the same time; one more waits.
    pub http_requests_max: u32,
    /// `http-response-bytes`: the body of one answer.
    pub http_response_bytes_max: u64,
    /// `logins-per-hour`: tokens fetched, logins refused; accounts get locked by those who try too often.
    pub logins_per_hour_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 256 * MIB,
            call_time_max: Duration::from_secs(15 * 60),
            batch_count_max: 4096,
            batch_bytes_max: 8 * MIB,
            object_bytes_max: MIB,
            uncovered_bytes_max: 1024 * MIB,
            stage_bytes: 4 * MIB,
            dead_letters_max: 1000,
            dead_letter_bytes_max: 16 * MIB,
            run_deltas_max: 1_000_000,
            run_bytes_max: 1024 * MIB,
            run_time_max: Duration::from_secs(5 * 60),
            pending_bytes_max: 16 * MIB,
            log_line_bytes_max: 4096,
            log_lines_max: 1000,
            http_requests_max: 16,
            http_response_bytes_max: 256 * MIB,
            logins_per_hour_max: 60,
        }
    }
}

impl Limits {
    /// Bytes that one call into the host may carry. Four times a batch, so that a batch that is too large meets the typed
    /// rejection and not this limit's trap.
    pub fn hostcall_bytes_max(&self) -> u64 {
        self.batch_bytes_max.saturating_mul(4)
    }
}
