//! Logins over HTTP, put into requests by the host: a connector never sees them, and they go nowhere but to the authorities that
//! they are bound to.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Request;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use rustls::ClientConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tidewaiter_core::grant::destination::Destination;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::error::EgressError;
use super::oauth::{OAuth, TokenClient};
use super::tls::{Trust, certificates};
use crate::clock::Clock;
use crate::meters::{ConnectionMeters, Login};
use crate::secret::{Secret, SecretError, Source, fingerprint};

/// A login that an operator configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its name, as in `[credentials.NAME]`.
    pub name: String,
    /// Where it goes, and nowhere else.
    pub to: Vec<Destination>,
    /// What it is.
    pub kind: Kind,
}

/// What a login is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Authorization: Basic`.
    Basic {
        /// In clear: it is no secret.
        user: String,
        /// The other half.
        password: Source,
    },
    /// `Authorization: Bearer`, with a token that stays the same.
    Bearer {
        /// The token.
        token: Source,
    },
    /// A header of any name.
    Header {
        /// Its name.
        name: HeaderName,
        /// Its value.
        value: Source,
    },
    /// `Authorization: Bearer`, with a token from a token endpoint.
    OAuth(OAuth),
    /// A client certificate.
    Mtls {
        /// A PEM file: the certificate, and those between it and its root.
        certificate: PathBuf,
        /// Its key in PEM.
        key: Source,
    },
}

impl Kind {
    /// Where its secrets are.
    pub fn sources(&self) -> Vec<&Source> {
        match self {
            Self::Basic { password: one, .. }
            | Self::Bearer { token: one }
            | Self::Header { value: one, .. }
            | Self::Mtls { key: one, .. } => vec![one],
            Self::OAuth(oauth) => oauth.client_secret.iter().chain(&oauth.refresh_token).collect(),
        }
    }

    /// The header that it is put into; none: it is no header.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Basic { .. } | Self::Bearer { .. } | Self::OAuth(_) => Some(&header::AUTHORIZATION),
            Self::Header { name, .. } => Some(name),
            Self::Mtls { .. } => None,
        }
    }
}

/// So many refusals in a row by one authority, and a run sends it no login again: accounts get locked after few.
const REFUSALS_MAX: u32 = 3;

/// The logins of a connection.
pub struct Logins {
    credentials: Vec<Credential>,
    tokens: TokenClient,
    clock: Clock,
    per_hour_max: u32,
    /// The secrets that were read last, so that it can be told whether they have changed.
    read: Mutex<HashMap<Source, Fingerprint>>,
    /// When a login was tried, by the steady clock's milliseconds: those of the last hour.
    tried: StdMutex<Vec<u64>>,
    meters: Arc<ConnectionMeters>,
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Logins {
    /// With at most so many logins an hour: accounts get locked by those who try too often.
    pub fn new(
        credentials: Vec<Credential>,
        tokens: TokenClient,
        clock: Clock,
        per_hour_max: u32,
        meters: Arc<ConnectionMeters>,
    ) -> Self {
        Self { credentials, tokens, clock, per_hour_max, read: Mutex::default(), tried: StdMutex::default(), meters }
    }

    /// For one run, which reads each secret once.
    pub fn of_run(self: &Arc<Self>) -> RunLogins {
        RunLogins {
            logins: Arc::clone(self),
            values: Mutex::default(),
            refusals: StdMutex::default(),
            identities: Mutex::default(),
        }
    }

    /// Whether there is a login for a destination that is the same each time. Tokens count when they are fetched.
    fn is_static(&self, to: &Destination) -> bool {
        let is_static = |one: &&Credential| !matches!(one.kind, Kind::OAuth(_));
        self.credentials.iter().filter(is_static).any(|one| one.to.contains(to))
    }

    /// Notes a login, if there may be one more.
    pub(crate) fn attempt(&self) -> Result<(), EgressError> {
        self.tried(true)
    }

    /// Whether there may be one more.
    pub(crate) fn has_left(&self) -> Result<(), EgressError> {
        self.tried(false)
    }

    /// Notes a login that was used: those that are too many are refused before they leave.
    pub(crate) fn spent(&self) {
        let _ = self.tried(true);
    }

    /// One was refused that the connector made by itself, with what it was shown.
    pub(crate) fn refused_to_connector(&self) {
        self.spent();
        self.meters.login(Login::Refused);
    }

    /// A token was fetched, or could not be.
    pub(super) fn fetched(&self, is_there: bool) {
        self.meters.login(if is_there { Login::Ok } else { Login::Failed });
    }

    /// Whether there may be one more, which is noted if it is one.
    fn tried(&self, is_one: bool) -> Result<(), EgressError> {
        const HOUR: u64 = 3_600_000;
        let now = self.clock.moment().0;
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.retain(|at| now.saturating_sub(*at) < HOUR);
        if tried.len() >= self.per_hour_max as usize {
            return Err(EgressError::Logins { max: self.per_hour_max });
        }
        tried.extend(is_one.then_some(now));
        Ok(())
    }

    /// Reads a secret, and remembers which one it was.
    pub(crate) async fn read(&self, source: &Source) -> Result<Secret, SecretError> {
        let secret = source.read().await?;
        self.read.lock().await.insert(source.clone(), fingerprint(&secret));
        Ok(secret)
    }

    /// Whether a secret is another one than the one that was read last. Where it is, tokens that came of it are given up.
    pub async fn changed(&self) -> bool {
        let known: Vec<_> = self.read.lock().await.clone().into_iter().collect();
        let mut changed = false;
        for (source, before) in known {
            let Ok(now) = source.read().await.map(|secret| fingerprint(&secret)) else { continue };
            if now != before {
                // What is known now; whoever is refused with it waits for the next one.
                self.read.lock().await.insert(source, now);
                changed = true;
            }
        }
        if changed {
            self.tokens.forget_all().await;
        }
        changed
    }
}

/// Tells keys apart.
pub(super) type Fingerprint = [u8; 32];

/// TLS that shows a client certificate.
#[derive(Debug)]
pub(super) struct Identified {
    /// The place of its credential.
    pub(super) place: usize,
    pub(super) fingerprint: Fingerprint,
    pub(super) config: ClientConfig,
}

fn identified(place: usize, certificate: &Path, secret: &Secret, trust: &Trust) -> Result<Identified, String> {
    let key = PrivateKeyDer::from_pem_slice(secret.expose_secret());
    let key = key.map_err(|_| "its key is not one in PEM form".to_owned())?;
    let chain = certificates(certificate).map_err(|error| error.to_string())?;
    // Of the certificates, too: they are renewed more often than keys.
    let shown = chain.iter().fold(Sha256::new_with_prefix(fingerprint(secret)), Sha256::chain_update);
    let config = trust.client(Some((chain, key))).map_err(|error| error.to_string())?;
    Ok(Identified { place, fingerprint: shown.finalize().into(), config })
}

/// The logins of a run.
#[derive(Debug)]
pub struct RunLogins {
    logins: Arc<Logins>,
    /// Those that stay the same, by the place of their credential.
    values: Mutex<HashMap<usize, HeaderValue>>,
    /// Answers in a row that refused one that stays the same, by where it went.
    refusals: StdMutex<HashMap<Destination, u32>>,
    identities: Mutex<HashMap<usize, Arc<Identified>>>,
}

impl RunLogins {
    /// The client certificate for a destination, if there is one.
    pub(super) async fn identity(
        &self,
        to: &Destination,
        trust: &Trust,
    ) -> Result<Option<Arc<Identified>>, EgressError> {
        for (place, credential) in self.logins.credentials.iter().enumerate() {
            let Kind::Mtls { certificate, key } = &credential.kind else { continue };
            if !credential.to.contains(to) {
                continue;
            }
            let mut identities = self.identities.lock().await;
            if let Some(known) = identities.get(&place) {
                return Ok(Some(Arc::clone(known)));
            }
            let bad = |problem: String| EgressError::Credential { name: credential.name.clone(), problem };
            let secret = self.logins.read(key).await.map_err(|error| bad(error.to_string()))?;
            let read = Arc::new(identified(place, certificate, &secret, trust).map_err(bad)?);
            identities.insert(place, Arc::clone(&read));
            return Ok(Some(read));
        }
        Ok(None)
    }

    /// Puts the logins for a destination into a request, in the place of whatever the connector wrote there. Answers the names of
    /// headers that were replaced.
    pub(super) async fn put_into(
        &self,
        headers: &mut HeaderMap,
        to: &Destination,
    ) -> Result<Vec<HeaderName>, EgressError> {
        let mut replaced = Vec::new();
        if self.logins.is_static(to) {
            self.logins.has_left()?;
            if self.refusals().get(to).is_some_and(|count| *count >= REFUSALS_MAX) {
                return Err(EgressError::Refused { max: REFUSALS_MAX });
            }
        }
        for (place, credential) in self.logins.credentials.iter().enumerate() {
            let Some(name) = credential.kind.header().filter(|_| credential.to.contains(to)) else { continue };
            let value = self.value(place, credential).await?;
            if headers.insert(name, value).is_some() {
                replaced.push(name.clone());
            }
        }
        Ok(replaced)
    }

    fn refusals(&self) -> MutexGuard<'_, HashMap<Destination, u32>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is about to leave, with a login or without.
    pub(super) fn leaves<B>(self: &Arc<Self>, request: &mut Request<B>, to: &Destination) -> Leaving {
        let logins = self.logins.is_static(to).then(|| (Arc::clone(self), to.clone()));
        Leaving { logins, connection: capture_connection(request) }
    }

    /// A login was refused: a token is not used again, and the next request asks for another one.
    pub(super) async fn refused(&self, to: &Destination) {
        for credential in &self.logins.credentials {
            if let (Kind::OAuth(_), true) = (&credential.kind, credential.to.contains(to)) {
                self.logins.meters.login(Login::Refused);
                self.logins.tokens.forget(&credential.name).await;
            }
        }
    }

    async fn value(&self, place: usize, credential: &Credential) -> Result<HeaderValue, EgressError> {
        let bad = |problem: String| EgressError::Credential { name: credential.name.clone(), problem };
        let unread = |error: SecretError| bad(error.to_string());
        let in_header = |text: &[u8]| {
            let value = HeaderValue::from_bytes(text).map_err(|_| bad("it has characters that no header has".into()));
            value.map(|mut value| {
                value.set_sensitive(true);
                value
            })
        };
        if let Kind::OAuth(oauth) = &credential.kind {
            let token = self.logins.tokens.token(&credential.name, oauth, &self.logins).await?;
            return in_header(&bearer(token.expose_secret()));
        }
        let mut values = self.values.lock().await;
        if let Some(value) = values.get(&place) {
            return Ok(value.clone());
        }
        let text = match &credential.kind {
            Kind::Basic { user, password } => basic(user, &self.logins.read(password).await.map_err(unread)?),
            Kind::Bearer { token } => bearer(self.logins.read(token).await.map_err(unread)?.expose_secret()),
            Kind::Header { value, .. } => {
                Zeroizing::new(self.logins.read(value).await.map_err(unread)?.expose_secret().to_vec())
            }
            Kind::OAuth(_) | Kind::Mtls { .. } => return Err(bad("it is no header that stays the same".to_owned())),
        };
        let value = in_header(&text)?;
        values.insert(place, value.clone());
        Ok(value)
    }
}

/// A request on its way. Whoever lets it go before its answer comes may have spent a login of the account's all the same: it counts, if
/// there was a connection to send it over.
#[derive(Debug)]
pub(super) struct Leaving {
    /// None: it has no login that stays the same, or was answered.
    logins: Option<(Arc<RunLogins>, Destination)>,
    connection: CaptureConnection,
}

impl Leaving {
    /// An answer came: whether it refuses the login.
    pub(super) fn answered(mut self, refused: bool) {
        let Some((logins, to)) = self.logins.take() else { return };
        logins.logins.meters.login(if refused { Login::Refused } else { Login::Ok });
        match refused {
            false => drop(logins.refusals().remove(&to)),
            true => {
                *logins.refusals().entry(to).or_default() += 1;
                logins.logins.spent();
            }
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some((logins, _)) = self.logins.take()
            && self.connection.connection_metadata().is_some()
        {
            logins.logins.spent();
        }
    }
}

pub(super) fn basic(user: &str, password: &Secret) -> Zeroizing<Vec<u8>> {
    let mut pair = Zeroizing::new(format!("{user}:").into_bytes());
    pair.extend_from_slice(password.expose_secret());
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*pair));
    Zeroizing::new([b"Basic ", encoded.as_bytes()].concat())
}

fn bearer(token: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([b"Bearer ", token].concat())
}
