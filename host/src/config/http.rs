//! The HTTP API's table in the host's file.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Requests a second by one access token.
const REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// Clients at a time.
const CLIENTS: usize = 2048;

/// Where the HTTP API listens, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The address.
    pub listen: SocketAddr,
    /// Names under which it is asked, beside those of loopback.
    pub hosts: Vec<String>,
    /// How TLS is spoken; none: it isn't, and only this machine can ask.
    pub tls: Option<Tls>,
    /// Requests a second that one access token may make.
    pub requests_per_second: NonZeroU32,
    /// Clients at a time; more wait.
    pub clients: usize,
}

/// A certificate and its key, in PEM form. Read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct HttpTable {
    listen: SocketAddr,
    #[serde(default)]
    hosts: Vec<String>,
    tls: Option<TlsTable>,
    #[serde(default = "requests_per_second")]
    requests_per_second: NonZeroU32,
    #[serde(default = "clients")]
    clients: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    certificate: PathBuf,
    key: PathBuf,
}

fn requests_per_second() -> NonZeroU32 {
    REQUESTS_PER_SECOND
}

fn clients() -> usize {
    CLIENTS
}

impl HttpTable {
    pub(super) fn http(self, base: &Path) -> Result<Http, String> {
        let Self { listen, hosts, tls, requests_per_second, clients } = self;
        if !listen.ip().is_loopback() && tls.is_none() {
            return Err(format!(
                "http.listen: {listen} can be reached from elsewhere, and only loopback is served without http.tls"
            ));
        }
        if let Some(bad) = hosts.iter().find(|host| host.is_empty() || host.contains([':', '/', '*', ' '])) {
            return Err(format!("http.hosts: {bad:?} is no name of a host, as in \"idm.example.org\""));
        }
        if !(1..=100_000).contains(&clients) {
            return Err(format!("http.clients: {clients} is not between 1 and 100000"));
        }
        let tls = tls.map(|tls| Tls { certificate: base.join(tls.certificate), key: base.join(tls.key) });
        Ok(Http { listen, hosts, tls, requests_per_second, clients })
    }
}
