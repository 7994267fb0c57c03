//! How much there may be: runs at once, the journal, and what a connection takes.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::Deserialize;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::schedule::Concurrency;

use super::timing::span;
use crate::db::Quota;

/// The most runs at once that can be configured: each has an instance, with its own addresses.
const RUNS_MAX: usize = 1000;
/// What the journal may hold unless something else is configured.
const JOURNAL_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// How many runs there may be at once.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RunsTable {
    at_once: Option<usize>,
    at_once_per_connector: Option<usize>,
}

impl RunsTable {
    pub(super) fn concurrency(&self) -> Result<Concurrency, String> {
        let usual = Concurrency::default();
        let total = self.at_once.unwrap_or(usual.total);
        let per_connector = self.at_once_per_connector.unwrap_or(usual.per_connector.min(total));
        for (name, value) in [("at-once", total), ("at-once-per-connector", per_connector)] {
            if !(1..=RUNS_MAX).contains(&value) {
                return Err(format!("runs.{name}: {value} is not in 1..={RUNS_MAX}"));
            }
        }
        Ok(Concurrency { total, per_connector })
    }
}

/// How much the journal may hold, and for how long.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct JournalTable {
    max_bytes: Option<NonZeroU64>,
    max_connection_bytes: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "span")]
    keep: Option<jiff::SignedDuration>,
}

impl JournalTable {
    pub(super) fn quota(&self) -> Result<Quota, String> {
        let total_bytes = self.max_bytes.map_or(JOURNAL_BYTES, NonZeroU64::get);
        let connection_bytes = self.max_connection_bytes.map_or(total_bytes / 2, NonZeroU64::get);
        match connection_bytes > total_bytes {
            true => {
                Err(format!("journal.max-connection-bytes: {connection_bytes} are more than the {total_bytes} of all"))
            }
            false => Ok(Quota { total_bytes, connection_bytes }),
        }
    }

    pub(super) fn keep(&self) -> Result<Option<Duration>, String> {
        match self.keep {
            Some(keep) if keep.is_negative() => Err("journal.keep: it is negative".into()),
            keep => Ok(keep.map(jiff::SignedDuration::unsigned_abs)),
        }
    }
}

/// What a connection may have more or less of than others.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LimitsTable {
    memory_bytes: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "span")]
    call_time: Option<jiff::SignedDuration>,
    uncovered_bytes: Option<u64>,
    dead_letters: Option<u64>,
    run_deltas: Option<NonZeroU64>,
    run_bytes: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "span")]
    run_time: Option<jiff::SignedDuration>,
    log_lines: Option<u32>,
    http_requests: Option<NonZeroU32>,
    http_response_bytes: Option<NonZeroU64>,
    logins_per_hour: Option<u32>,
}

impl LimitsTable {
    pub(super) fn limits(self) -> Result<Limits, String> {
        let mut limits = Limits::default();
        let time = |given: Option<jiff::SignedDuration>, usual: Duration, name: &str| match given {
            None => Ok(usual),
            Some(time) if time.is_positive() => Ok(time.unsigned_abs()),
            Some(_) => Err(format!("limits.{name}: it needs some time")),
        };
        limits.call_time_max = time(self.call_time, limits.call_time_max, "call-time")?;
        limits.run_time_max = time(self.run_time, limits.run_time_max, "run-time")?;
        limits.run_deltas_max = self.run_deltas.map_or(limits.run_deltas_max, NonZeroU64::get);
        limits.run_bytes_max = self.run_bytes.map_or(limits.run_bytes_max, NonZeroU64::get);
        limits.memory_bytes_max = self.memory_bytes.map_or(limits.memory_bytes_max, NonZeroU64::get);
        limits.uncovered_bytes_max = self.uncovered_bytes.unwrap_or(limits.uncovered_bytes_max);
        limits.dead_letters_max = self.dead_letters.unwrap_or(limits.dead_letters_max);
        limits.log_lines_max = self.log_lines.unwrap_or(limits.log_lines_max);
        limits.http_requests_max = self.http_requests.map_or(limits.http_requests_max, NonZeroU32::get);
        limits.http_response_bytes_max =
            self.http_response_bytes.map_or(limits.http_response_bytes_max, NonZeroU64::get);
        limits.logins_per_hour_max = self.logins_per_hour.unwrap_or(limits.logins_per_hour_max);
        match limits.uncovered_bytes_max < limits.batch_bytes_max {
            true => Err(format!("limits.uncovered-bytes: a batch of {} bytes must fit", limits.batch_bytes_max)),
            false => Ok(limits),
        }
    }
}
