//! What an instance uses, read by its run while it works: memory, processor time, and its last words.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use tidewaiter_core::run::Spent;
use tidewaiter_core::text::shown;
use tidewaiter_core::time::UnixMillis;
use tidewaiter_core::token::SyncToken;

use crate::egress::{Outgoing, Traffic};

/// More of a line of ours isn't kept.
const NOTE_BYTES_MAX: usize = 2048;
/// Lines of the log that a run's report keeps.
const LINES_KEPT: usize = 20;
/// A call that was polled without working for this long was not waiting for its turn but in a host call, in microseconds.
const STUCK_BELOW_US: u64 = 1000;

/// The gauge of a run's instance.
#[derive(Debug, Default)]
pub struct Gauge {
    memory_peak_bytes: AtomicU64,
    table_elements_peak: AtomicU64,
    resources_peak: AtomicU64,
    token_peak_bytes: AtomicU64,
    cpu_us: AtomicU64,
    last_poll_us: AtomicU64,
    call_peak_ms: AtomicU64,
    abandoned_calls: AtomicU32,
    batch_peak_count: AtomicU64,
    batch_peak_bytes: AtomicU64,
    object_peak_bytes: AtomicU64,
    /// Milliseconds since 1970; 0: it gave none.
    source_time: AtomicI64,
    log_line_peak_bytes: AtomicU64,
    log_lines: AtomicU64,
    log: Mutex<VecDeque<String>>,
    /// The way out of the instance that works, and what went out through those before it.
    outgoing: Mutex<(Option<Arc<Outgoing>>, Traffic)>,
    was_shown_a_secret: AtomicBool,
}

impl Gauge {
    /// It was shown a secret.
    pub fn shows_a_secret(&self) {
        self.was_shown_a_secret.store(true, Ordering::Relaxed);
    }

    /// Whether it was shown a secret.
    pub fn was_shown_a_secret(&self) -> bool {
        self.was_shown_a_secret.load(Ordering::Relaxed)
    }

    /// What was used so far.
    pub fn spent(&self) -> Spent {
        let traffic = traffic(&self.outgoing.lock().unwrap_or_else(PoisonError::into_inner));
        Spent {
            http_requests: traffic.requests,
            http_denied: traffic.denied,
            http_requests_peak: traffic.in_flight_peak,
            sockets_peak: traffic.sockets_peak,
            tcp_connections: traffic.tcp_connections,
            tcp_sockets_peak: traffic.tcp_sockets_peak,
            tls_connections: traffic.tls_connections,
            http_received_bytes: traffic.received_bytes,
            http_response_peak_bytes: traffic.response_peak_bytes,
            http_headers_replaced: traffic.replaced,
            memory_peak_bytes: self.memory_peak_bytes.load(Ordering::Relaxed),
            table_elements_peak: self.table_elements_peak.load(Ordering::Relaxed),
            resources_peak: self.resources_peak.load(Ordering::Relaxed),
            token_peak_bytes: self.token_peak_bytes.load(Ordering::Relaxed),
            cpu_us: self.cpu_us.load(Ordering::Relaxed),
            call_peak_ms: self.call_peak_ms.load(Ordering::Relaxed),
            abandoned_calls: self.abandoned_calls.load(Ordering::Relaxed),
            batch_peak_count: self.batch_peak_count.load(Ordering::Relaxed),
            batch_peak_bytes: self.batch_peak_bytes.load(Ordering::Relaxed),
            object_peak_bytes: self.object_peak_bytes.load(Ordering::Relaxed),
            log_line_peak_bytes: self.log_line_peak_bytes.load(Ordering::Relaxed),
            log_lines: self.log_lines.load(Ordering::Relaxed),
            source_time: Some(self.source_time.load(Ordering::Relaxed)).filter(|at| *at != 0).map(UnixMillis),
            log: self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect(),
            ..Spent::default()
        }
    }

    pub(super) fn holds(&self, bytes: u64) {
        self.memory_peak_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(super) fn table_elements(&self, count: u64) {
        self.table_elements_peak.fetch_max(count, Ordering::Relaxed);
    }

    pub(super) fn resources(&self, count: u64) {
        self.resources_peak.fetch_max(count, Ordering::Relaxed);
    }

    /// A token was handed over, whether or not it may be that large.
    pub(super) fn token(&self, token: Option<&SyncToken>) {
        self.token_peak_bytes.fetch_max(token.map_or(0, SyncToken::size) as u64, Ordering::Relaxed);
    }

    /// A call came back after so many milliseconds, or was given up; `abandoned`: in a host call.
    pub(super) fn called(&self, ms: u64, abandoned: bool) {
        self.call_peak_ms.fetch_max(ms, Ordering::Relaxed);
        self.abandoned_calls.fetch_add(abandoned.into(), Ordering::Relaxed);
    }

    /// A batch was handed over: its deltas, their bytes, and those of the largest.
    pub(super) fn handed_over(&self, count: u64, bytes: u64, largest: u64) {
        self.batch_peak_count.fetch_max(count, Ordering::Relaxed);
        self.batch_peak_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.object_peak_bytes.fetch_max(largest, Ordering::Relaxed);
    }

    /// The last delta that was handed over is of this time; none: it has none.
    pub(super) fn of_time(&self, at: Option<UnixMillis>) {
        if let Some(UnixMillis(at)) = at {
            self.source_time.store(at, Ordering::Relaxed);
        }
    }

    /// A line of so many bytes came for the log.
    pub(super) fn line(&self, bytes: u64) {
        self.log_lines.fetch_add(1, Ordering::Relaxed);
        self.log_line_peak_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// What goes out through this counts, too.
    pub(super) fn watch(&self, outgoing: Arc<Outgoing>) {
        let mut watched = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        *watched = (Some(outgoing), traffic(&watched));
    }

    /// A line of ours for the run's log, among the connector's own.
    pub fn note(&self, line: &str) {
        self.said(&shown(&format!("host: {line}"), NOTE_BYTES_MAX));
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

fn traffic((now, before): &(Option<Arc<Outgoing>>, Traffic)) -> Traffic {
    before.and(now.as_ref().map(|outgoing| outgoing.traffic()).unwrap_or_default())
}

/// Processor time of this thread, in microseconds.
fn thread_us() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}
