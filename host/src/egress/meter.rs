//! What a run sends and gets, and how much of it there may be. Tells its witness what was refused.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderName;
use tokio::sync::OwnedSemaphorePermit;

use super::connect::Room;
use super::error::EgressError;

/// What a run did outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that left, and those that didn't.
    pub requests: u64,
    /// Of them, those that a rule stopped.
    pub denied: u64,
    /// The most under way at the same time.
    pub in_flight_peak: u64,
    /// The most connections to the outside that were open for its connection, those of other runs with them.
    pub sockets_peak: u64,
    /// Bytes of bodies that came.
    pub received_bytes: u64,
    /// The largest body that came, in bytes.
    pub response_peak_bytes: u64,
    /// TCP connections that were begun.
    pub tcp_connections: u64,
    /// The most of them that the run had open.
    pub tcp_sockets_peak: u64,
    /// TLS handshakes over them that went well.
    pub tls_connections: u64,
    /// Headers that a connector set where a login goes; the login took their place.
    pub replaced: u64,
}

impl Traffic {
    /// That of two instances of a run, one after the other.
    #[must_use]
    pub fn and(self, then: Self) -> Self {
        Self {
            requests: self.requests + then.requests,
            denied: self.denied + then.denied,
            in_flight_peak: self.in_flight_peak.max(then.in_flight_peak),
            sockets_peak: self.sockets_peak.max(then.sockets_peak),
            received_bytes: self.received_bytes + then.received_bytes,
            response_peak_bytes: self.response_peak_bytes.max(then.response_peak_bytes),
            tcp_connections: self.tcp_connections + then.tcp_connections,
            tcp_sockets_peak: self.tcp_sockets_peak.max(then.tcp_sockets_peak),
            tls_connections: self.tls_connections + then.tls_connections,
            replaced: self.replaced + then.replaced,
        }
    }
}

/// Failures of a run that its witness is told of; the rest is counted.
const WITNESSED_MAX: u64 = 50;

/// Told of requests that failed.
pub type Witness = Box<dyn Fn(&EgressError) + Send + Sync>;

/// Counts for one run.
pub struct Meter {
    in_flight: Room,
    response_bytes_max: u64,
    witness: Witness,
    requests: AtomicU64,
    denied: AtomicU64,
    in_flight_peak: AtomicU64,
    sockets_peak: AtomicU64,
    tcp_connections: AtomicU64,
    tcp_sockets_peak: AtomicU64,
    tls_connections: AtomicU64,
    received_bytes: AtomicU64,
    response_peak_bytes: AtomicU64,
    replaced: AtomicU64,
    witnessed: AtomicU64,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.traffic().fmt(f)
    }
}

impl Meter {
    /// For a run that may have so many requests under way, and take so many bytes of each answer.
    pub fn new(in_flight_max: usize, response_bytes_max: u64, witness: Witness) -> Arc<Self> {
        let (requests, denied, in_flight_peak, sockets_peak) = Default::default();
        let (tcp_connections, tcp_sockets_peak, tls_connections) = Default::default();
        let (received_bytes, response_peak_bytes, replaced, witnessed) = Default::default();
        let in_flight = Room::new("requests", in_flight_max);
        Arc::new(Self {
            in_flight,
            response_bytes_max,
            witness,
            requests,
            denied,
            in_flight_peak,
            sockets_peak,
            tcp_connections,
            tcp_sockets_peak,
            tls_connections,
            received_bytes,
            response_peak_bytes,
            replaced,
            witnessed,
        })
    }

    /// What there was so far.
    pub fn traffic(&self) -> Traffic {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Traffic {
            requests: read(&self.requests),
            denied: read(&self.denied),
            in_flight_peak: read(&self.in_flight_peak),
            sockets_peak: read(&self.sockets_peak),
            received_bytes: read(&self.received_bytes),
            response_peak_bytes: read(&self.response_peak_bytes),
            tcp_connections: read(&self.tcp_connections),
            tcp_sockets_peak: read(&self.tcp_sockets_peak),
            tls_connections: read(&self.tls_connections),
            replaced: read(&self.replaced),
        }
    }

    /// Takes a place among the requests under way, until the answer begins.
    pub(super) async fn begin(&self, wait: Duration) -> Result<OwnedSemaphorePermit, EgressError> {
        let turn = self.in_flight.enter(wait).await?;
        self.in_flight_peak.fetch_max(self.in_flight.taken() as u64, Ordering::Relaxed);
        Ok(turn)
    }

    /// So many connections are open.
    pub(super) fn sockets(&self, open: usize) {
        self.sockets_peak.fetch_max(open as u64, Ordering::Relaxed);
    }

    /// So many TCP sockets of the run are open.
    pub(super) fn tcp_sockets(&self, open: usize) {
        self.tcp_sockets_peak.fetch_max(open as u64, Ordering::Relaxed);
    }

    /// A TCP connection is begun.
    pub(super) fn tcp_connects(&self) {
        self.tcp_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// TLS is spoken over one.
    pub(super) fn tls_spoken(&self) {
        self.tls_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A header of the connector's own was replaced by a login.
    pub(super) fn replaced(&self, name: &HeaderName) {
        self.replaced.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "tidewaiter::egress", header = name.as_str(), "a login took the place of the connector's own header");
    }

    pub(super) fn answered(&self, error: Option<&EgressError>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failed(error);
    }

    /// Counts what a rule stopped, and tells the witness.
    pub(super) fn failed(&self, error: Option<&EgressError>) {
        if let Some(error) = error {
            self.denied.fetch_add(error.is_denial().into(), Ordering::Relaxed);
            self.witness(error);
        }
    }

    fn witness(&self, error: &EgressError) {
        if self.witnessed.fetch_add(1, Ordering::Relaxed) < WITNESSED_MAX {
            (self.witness)(error);
        }
    }

    /// Counts a part of a body; `so_far` with it.
    pub(super) fn received(&self, bytes: u64, so_far: u64) -> Result<(), EgressError> {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.response_peak_bytes.fetch_max(so_far, Ordering::Relaxed);
        match so_far > self.response_bytes_max {
            false => Ok(()),
            true => {
                let error = EgressError::ResponseSize { max: self.response_bytes_max };
                self.witness(&error);
                Err(error)
            }
        }
    }
}
