//! Whom to trust: the system's roots, and those that the operator adds. TLS 1.2 at least, HTTP/1.1 only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Trust that can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file has no certificate that can be used.
    #[error("{}: {problem}", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A client's key can't be used.
    #[error("the client certificate: {0}")]
    Identity(#[from] rustls::Error),
}

/// Roots, and how TLS is spoken.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// The system's roots and those in these PEM files.
    ///
    /// # Errors
    /// A file without a usable certificate.
    pub fn load(files: &[PathBuf]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        for path in files {
            for certificate in certificates(path)? {
                let bad =
                    |error: rustls::Error| TlsError::Certificate { path: path.clone(), problem: error.to_string() };
                roots.add(certificate).map_err(bad)?;
            }
        }
        if roots.is_empty() {
            let problems: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
            let problems = problems.join("; ");
            tracing::warn!(target: "tidewaiter::egress", problems, "no certificate is trusted: no HTTPS is possible");
        }
        Ok(Self { roots: Arc::new(roots), provider: Arc::new(rustls::crypto::ring::default_provider()) })
    }

    /// No roots: no HTTPS.
    pub fn nobody() -> Self {
        Self { roots: Arc::new(RootCertStore::empty()), provider: Arc::new(rustls::crypto::ring::default_provider()) }
    }

    /// A client that shows this certificate, or none.
    ///
    /// # Errors
    /// The key doesn't belong to the certificate, or can't be used.
    pub fn client(
        &self,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(Arc::clone(&self.roots));
        Ok(match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        })
    }
}

/// The certificates of a PEM file; at least one.
///
/// # Errors
/// It can't be read, or has none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |problem: String| TlsError::Certificate { path: path.to_owned(), problem };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(bad("it has no certificate in PEM form".into())),
        Ok(found) => Ok(found),
        Err(error) => Err(bad(error.to_string())),
    }
}
