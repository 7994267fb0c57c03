//! TCP for connectors that speak a protocol of their own: which names are looked up, what is connected to, and TLS on top. Addresses that
//! a lookup gave are remembered for the run with the ports that they were vetted for; nothing else is connected to but what a grant
//! has written out.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tidewaiter_core::grant::destination::{Destination, Host, Scheme};
use tidewaiter_core::grant::policy::Place;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::{Rule, vetted};
use super::resolve::LOOKUPS_OF_CONNECTION_MAX;
use super::{EgressError, Outgoing, SOCKETS_OF_CONNECTION_MAX, Times, no_tls, tls_error};

/// How often a run may look names up.
const LOOKUPS_MAX: u64 = 1000;
/// Addresses, each with a port, that a run remembers.
pub(super) const REMEMBERED_MAX: usize = 1000;
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// TCP connections that a run may have open.
const OPEN_MAX: usize = 16;

/// The limits of what leaves that nobody configures, by name: of a connection, and of a run.
pub(crate) fn sandbox() -> [(&'static str, u64); 4] {
    [
        ("sockets", SOCKETS_OF_CONNECTION_MAX as u64),
        ("lookups-at-once", LOOKUPS_OF_CONNECTION_MAX as u64),
        ("tcp-sockets", OPEN_MAX as u64),
        ("tcp-lookups", LOOKUPS_MAX),
    ]
}

/// What a run does over TCP.
#[derive(Debug, Default)]
pub(super) struct Tcp {
    /// Addresses that may be connected to, and whether TLS has to be spoken there.
    pub(super) known: Mutex<HashMap<SocketAddr, bool>>,
    /// Places of its sockets among those of the connection and of the host; at least as many as there are sockets.
    places: Mutex<Vec<[OwnedSemaphorePermit; 2]>>,
    lookups: AtomicU64,
    /// It connected to where TLS has to be spoken.
    needs_tls: AtomicBool,
    spoke_tls: AtomicBool,
}

/// Where a host is granted: on which port, by which entries, and whether TLS has to be spoken there.
struct Granted {
    port: u16,
    place: Place,
    needs_tls: bool,
}

impl Outgoing {
    /// The addresses that a name leads to and that may be connected to; at least one.
    ///
    /// # Errors
    /// It was not asked for or granted, leads nowhere, or where it may not.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, EgressError> {
        let found = self.found(name, Times::USUAL.connect).await;
        self.told(found)
    }

    pub(super) async fn found(&self, name: &str, max: Duration) -> Result<Vec<IpAddr>, EgressError> {
        if self.tcp.lookups.fetch_add(1, Ordering::Relaxed) >= LOOKUPS_MAX {
            return Err(EgressError::Many { what: "lookups", max: LOOKUPS_MAX });
        }
        let host: Host = name.parse()?;
        let granted = self.granted(&host)?;
        let resolved = timeout(max, self.egress.lookups.addresses(&host)).await;
        let resolved = resolved.map_err(|_| EgressError::TimedOut { what: "looking a name up", max })??;
        let mut addresses: Vec<IpAddr> = Vec::new();
        let mut refused = None;
        let mut known = self.tcp.known.lock().unwrap_or_else(PoisonError::into_inner);
        for Granted { port, place, needs_tls } in granted {
            let rule = Rule::Granted(Arc::clone(&self.policy), place);
            match vetted(&rule, &host, &resolved) {
                Err(error) => refused = Some(error),
                Ok(vetted) => {
                    for address in vetted {
                        if known.len() < REMEMBERED_MAX {
                            // One that two names lead to is as strict as the stricter of them.
                            *known.entry(SocketAddr::new(address, port)).or_default() |= needs_tls;
                        }
                        if !addresses.contains(&address) {
                            addresses.push(address);
                        }
                    }
                }
            }
        }
        match (addresses.is_empty(), refused) {
            (true, Some(refused)) => Err(refused),
            _ => Ok(addresses),
        }
    }

    /// Where a host is granted; at least one.
    fn granted(&self, host: &Host) -> Result<Vec<Granted>, EgressError> {
        let mut granted = Vec::new();
        let mut denied = EgressError::Name(host.to_string());
        for port in self.policy.asked_ports(host) {
            match self.policy.decide_tcp(host, port) {
                Ok(allowed) => granted.push(Granted { port, place: allowed.place, needs_tls: allowed.needs_tls() }),
                Err(error) => denied = error.into(),
            }
        }
        if granted.is_empty() { Err(denied) } else { Ok(granted) }
    }

    /// Whether an address may be connected to: a lookup gave it, for this port, or it is granted as it is written.
    ///
    /// # Errors
    /// It may not.
    pub fn connects(&self, to: SocketAddr) -> Result<(), EgressError> {
        let allowed = self.may_connect(to);
        if allowed.is_ok() {
            self.count(None);
        }
        self.told(allowed)
    }

    fn may_connect(&self, to: SocketAddr) -> Result<(), EgressError> {
        let known = self.tcp.known.lock().unwrap_or_else(PoisonError::into_inner).get(&to).copied();
        let needs_tls = match known {
            Some(needs_tls) => needs_tls,
            None => {
                let host = Host::Ip(to.ip());
                let allowed = self.policy.decide_tcp(&host, to.port())?;
                vetted(&Rule::Granted(Arc::clone(&self.policy), allowed.place), &host, &[to.ip()])?;
                allowed.needs_tls()
            }
        };
        self.meter.tcp_connects();
        self.tcp.needs_tls.fetch_or(needs_tls, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a place for one more socket, beside `open` that there are.
    ///
    /// # Errors
    /// There is none.
    pub async fn socket(&self, open: usize) -> Result<(), EgressError> {
        let taken = self.place(open).await;
        self.told(taken)
    }

    async fn place(&self, open: usize) -> Result<(), EgressError> {
        if open >= OPEN_MAX {
            return Err(EgressError::Busy { what: "TCP connections of a run", max: OPEN_MAX });
        }
        self.tcp.places.lock().unwrap_or_else(PoisonError::into_inner).truncate(open);
        let wait = Times::USUAL.connect;
        let place = [self.egress.sockets.enter(wait).await?, self.egress.outside.sockets.enter(wait).await?];
        self.meter.sockets(self.egress.sockets.taken());
        self.meter.tcp_sockets(open + 1);
        self.tcp.places.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        Ok(())
    }

    /// Speaks TLS over a connection: with a server of this name, which must be granted.
    ///
    /// # Errors
    /// It is not granted, is not trusted, or doesn't speak TLS.
    pub async fn tls<T>(&self, server_name: &str, transport: T) -> Result<TlsStream<T>, EgressError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let spoken = self.handshake(server_name, transport, HANDSHAKE_MAX).await;
        self.told(spoken)
    }

    pub(super) async fn handshake<T>(
        &self,
        server_name: &str,
        transport: T,
        max: Duration,
    ) -> Result<TlsStream<T>, EgressError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let host: Host = server_name.parse()?;
        let trust = &self.egress.outside.trust;
        let mut identified = None;
        for Granted { port, .. } in self.granted(&host)? {
            let to = Destination { scheme: Scheme::Tcp, host: host.clone(), port };
            identified = self.logins.identity(&to, trust).await?;
            if identified.is_some() {
                break;
            }
        }
        let config = match identified {
            Some(identified) => identified.config.clone(),
            None => trust.client(None).map_err(|error| no_tls(&error))?,
        };
        let name = match &host {
            Host::Ip(address) => ServerName::from(*address),
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| EgressError::Name(name.clone()))?,
        };
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, transport);
        let spoken = timeout(max, handshake).await;
        let spoken = spoken.map_err(|_| EgressError::TimedOut { what: "the TLS handshake", max })?;
        let stream = spoken.map_err(|error| {
            let name = host.to_string();
            match tls_error(&error) {
                Some(tls) => EgressError::of_tls(&name, tls),
                None => EgressError::Protocol { to: name, problem: error.to_string() },
            }
        })?;
        self.meter.tls_spoken();
        self.tcp.spoke_tls.store(true, Ordering::Relaxed);
        Ok(stream)
    }

    /// Whether it connected to where TLS has to be spoken, and spoke none.
    pub fn lacks_tls(&self) -> bool {
        self.tcp.needs_tls.load(Ordering::Relaxed) && !self.tcp.spoke_tls.load(Ordering::Relaxed)
    }

    /// What came of it, told to the witness if it failed.
    fn told<T>(&self, done: Result<T, EgressError>) -> Result<T, EgressError> {
        if let Err(error) = &done {
            self.meter.failed(Some(error));
            self.count(Some(error));
        }
        done
    }
}
