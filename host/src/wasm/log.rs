//! A connector's own words, on their way into the log: escaped, cut, counted, and attributed by the host.

use std::sync::{Arc, Mutex, PoisonError};

use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::text::shown;
use tracing::Level;

use super::gauge::Gauge;

/// Whose log it is.
#[derive(Clone, Debug)]
pub struct LogSource {
    /// Of which type.
    pub key: TypeKey,
    /// Of which run.
    pub run: u64,
}

/// The log of a run. Clones are the same log; the last one that is dropped says how many lines were too many.
#[derive(Clone, Debug)]
pub(super) struct GuestLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: Option<(LogSource, Arc<Gauge>)>,
    line_bytes_max: usize,
    lines_max: u32,
    lines: Mutex<u32>,
}

impl GuestLog {
    /// Without a source, everything is dropped.
    pub(super) fn new(source: Option<(LogSource, Arc<Gauge>)>, limits: &Limits) -> Self {
        let (line_bytes_max, lines_max) = (limits.log_line_bytes_max, limits.log_lines_max);
        Self { shared: Arc::new(Shared { source, line_bytes_max, lines_max, lines: Mutex::new(0) }) }
    }

    pub(super) fn line_bytes_max(&self) -> usize {
        self.shared.line_bytes_max
    }

    /// One line.
    pub(super) fn line(&self, level: Level, stream: &'static str, text: &str) {
        let Some((LogSource { key, run }, gauge)) = &self.shared.source else { return };
        gauge.line(text.len() as u64);
        {
            let mut lines = self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
            *lines = lines.saturating_add(1);
            if *lines > self.shared.lines_max {
                return;
            }
        }
        let text = shown(text, self.shared.line_bytes_max);
        gauge.said(&text);
        let (connection, object_type) = (key.connection.as_str(), key.object_type.as_str());
        macro_rules! emit {
            ($level:expr) => {
                tracing::event!(target: "connector", $level, connection, r#type = object_type, run, stream, "{text}")
            };
        }
        match level {
            Level::ERROR => emit!(Level::ERROR),
            Level::WARN => emit!(Level::WARN),
            Level::INFO => emit!(Level::INFO),
            Level::DEBUG => emit!(Level::DEBUG),
            Level::TRACE => emit!(Level::TRACE),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let lines = *self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some((LogSource { key, run }, _)), true) = (&self.source, lines > self.lines_max) {
            let dropped = lines - self.lines_max;
            let (connection, object_type) = (key.connection.as_str(), key.object_type.as_str());
            tracing::warn!(target: "connector", connection, r#type = object_type, run, "dropped {dropped} lines");
        }
    }
}
