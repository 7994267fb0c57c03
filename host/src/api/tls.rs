//! TLS of the API's server: the certificate and its key, read again when the files change. A pair that can't be used takes nobody's place.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidewaiter_core::time::Moment;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clock::Clock;
use crate::config::Tls;
use crate::files;

const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How often it is looked whether the files changed, at most.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// How TLS is spoken with those who come.
pub(super) struct Acceptor {
    from: Tls,
    clock: Clock,
    now: Mutex<Now>,
}

struct Now {
    acceptor: TlsAcceptor,
    /// What the files had when they were looked at last, whether or not that could be used.
    seen: [Vec<u8>; 2],
    looked: Moment,
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// They can't be read, or aren't a certificate and its key.
    pub(super) fn open(from: Tls, clock: Clock) -> io::Result<Self> {
        let seen = read(&from)?;
        let acceptor = acceptor(&from, &seen)?;
        let now = Now { acceptor, seen, looked: clock.moment() };
        Ok(Self { from, clock, now: Mutex::new(now) })
    }

    /// Speaks TLS with a client.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let acceptor = self.current();
        acceptor.accept(stream).await
    }

    fn current(&self) -> TlsAcceptor {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = self.clock.moment();
        if moment >= now.looked + LOOK {
            now.looked = moment;
            let seen = match read(&self.from) {
                Ok(seen) if seen != now.seen => seen,
                _ => return now.acceptor.clone(),
            };
            match acceptor(&self.from, &seen) {
                Ok(acceptor) => {
                    tracing::info!(target: "tidewaiter", certificate = %self.from.certificate.display(), "the certificate was changed");
                    now.acceptor = acceptor;
                }
                // While one of the two files is written still, they don't fit together.
                Err(error) => {
                    tracing::warn!(target: "tidewaiter", "http.tls was changed, and the certificate of before is used still: {error}")
                }
            }
            now.seen = seen;
        }
        now.acceptor.clone()
    }
}

fn read(from: &Tls) -> io::Result<[Vec<u8>; 2]> {
    let bytes = |path: &std::path::Path| {
        files::bytes(path, FILE_BYTES_MAX)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    Ok([bytes(&from.certificate)?, bytes(&from.key)?])
}

fn acceptor(from: &Tls, [certificate, key]: &[Vec<u8>; 2]) -> io::Result<TlsAcceptor> {
    let at =
        |path: &std::path::Path, problem: &str| io::Error::other(format!("http.tls: {}: {problem}", path.display()));
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| at(&from.certificate, &error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| at(&from.key, &error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_no_client_auth();
    let config = config.with_single_cert(chain, key).map_err(|error| at(&from.certificate, &error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
