//! Access tokens from a token endpoint (RFC 6749): for the host's own account (client credentials), or for the one that somebody
//! once allowed (refresh token). Fetched when they are needed, kept until they are over, rotated when the endpoint wants it.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header;
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::rt::Executor;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value as Json;
use tidewaiter_core::time::Moment;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use zeroize::Zeroizing;

use super::error::EgressError;
use super::login::{Logins, basic};
use super::{Answering, Body, Tasks};
use crate::clock::Clock;
use crate::secret::{Secret, Source};

/// The largest answer of a token endpoint, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The usual [`TokenClient::time_max`].
const EXCHANGE_TIME: Duration = Duration::from_secs(120);
/// How long a token is used of which nobody says how long it lasts.
const USUAL_LIFE: Duration = Duration::from_secs(300);
/// However long an endpoint says, a token is fetched again after that.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How early a token is fetched anew that will be over.
const EARLY: Duration = Duration::from_secs(30);
/// More of an endpoint's own words isn't told.
const WORDS_MAX: usize = 200;

/// How a token is got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth {
    /// The token endpoint, with its path.
    pub token_url: http::Uri,
    /// Who asks.
    pub client_id: String,
    /// How it is proved; none: a public client, which has only a refresh token.
    pub client_secret: Option<Source>,
    /// The client is named in the body, and not in a header.
    pub in_body: bool,
    /// What is asked for.
    pub scope: Option<String>,
    /// For whom, where the endpoint wants to know.
    pub audience: Option<String>,
    /// The grant; none: client credentials.
    pub refresh_token: Option<Source>,
}

/// Storing, on its way.
pub type Storing = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Keeps the refresh tokens that endpoints give in the place of those that they were shown, over restarts and in no readable form.
pub trait Vault: fmt::Debug + Send + Sync {
    /// The one that is kept for a credential, `CONNECTION/NAME`, if it came in the place of this one or of one that came in its place.
    ///
    /// # Errors
    /// It can't be read.
    fn load(&self, credential: &str, in_place_of: &Secret) -> Result<Option<Secret>, String>;
    /// Keeps one.
    fn store(&self, credential: &str, in_place_of: &Secret, secret: Secret) -> Storing;
}

/// Where no key is to keep anything with.
#[derive(Clone, Copy, Debug)]
pub struct NoVault;

impl Vault for NoVault {
    fn load(&self, _: &str, _: &Secret) -> Result<Option<Secret>, String> {
        Ok(None)
    }

    fn store(&self, _: &str, _: &Secret, _: Secret) -> Storing {
        Box::pin(async { Err("there is no key to keep it with".to_owned()) })
    }
}

/// Sends a request to the token endpoint.
pub(super) type SendTo = Arc<dyn Fn(Request<Body>) -> Answering + Send + Sync>;

struct Token {
    access: Secret,
    until: Moment,
}

/// Gets tokens for the credentials of a connection.
pub struct TokenClient {
    connection: String,
    tasks: Tasks,
    send: SendTo,
    vault: Arc<dyn Vault>,
    clock: Clock,
    /// How long getting a token may take in all.
    pub(super) time_max: Duration,
    /// By their credential. Held while one is fetched, so that each is fetched once.
    tokens: Arc<Mutex<Tokens>>,
}

type Tokens = HashMap<String, Token>;

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    token_type: Option<String>,
    /// A number, or, from some endpoints, one in quotes.
    expires_in: Option<Json>,
    refresh_token: Option<SecretString>,
}

impl Granted {
    /// How long the access token lasts.
    fn life(&self) -> Duration {
        let seconds = self.expires_in.as_ref().and_then(|said| said.as_u64().or_else(|| said.as_str()?.parse().ok()));
        seconds.map_or(USUAL_LIFE, Duration::from_secs).min(LONGEST_LIFE)
    }
}

#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

impl TokenClient {
    pub(super) fn new(connection: &str, tasks: Tasks, send: SendTo, vault: Arc<dyn Vault>, clock: Clock) -> Self {
        Self {
            connection: connection.to_owned(),
            tasks,
            send,
            vault,
            clock,
            time_max: EXCHANGE_TIME,
            tokens: Arc::default(),
        }
    }

    /// The token that is in use for a credential is refused.
    pub(super) async fn forget(&self, credential: &str) {
        self.tokens.lock().await.remove(credential);
    }

    /// They are all given up.
    pub(super) async fn forget_all(&self) {
        self.tokens.lock().await.clear();
    }

    pub(super) async fn token(&self, name: &str, oauth: &OAuth, logins: &Logins) -> Result<Secret, EgressError> {
        let tokens = Arc::clone(&self.tokens).lock_owned().await;
        if let Some(token) = tokens.get(name).filter(|token| token.until > self.clock.moment()) {
            return Ok(token.access.clone());
        }
        logins.attempt()?;
        let bad = |problem: String| EgressError::Credential { name: name.to_owned(), problem };
        let fetched = self.fetch(name, oauth, logins, tokens).await;
        logins.fetched(fetched.is_ok());
        fetched.map_err(bad)
    }

    async fn fetch(
        &self,
        name: &str,
        oauth: &OAuth,
        logins: &Logins,
        mut tokens: OwnedMutexGuard<Tokens>,
    ) -> Result<Secret, String> {
        let given = match &oauth.refresh_token {
            Some(source) => Some(logins.read(source).await.map_err(|error| error.to_string())?),
            None => None,
        };
        let place = format!("{}/{name}", self.connection);
        let kept = given.as_ref().map(|given| self.vault.load(&place, given)).transpose()?.flatten();
        let refresh = kept.or_else(|| given.clone());
        let client_secret = match &oauth.client_secret {
            Some(source) => Some(logins.read(source).await.map_err(|error| error.to_string())?),
            None => None,
        };
        let request = request(oauth, client_secret.as_ref(), refresh.as_ref())?;
        // Not part of the guest's request, which may be given up at any time: the old token may be used up by then. Whoever asks next
        // waits for the end of it, and shows that token to nobody a second time.
        let (send, vault, clock, name) = (Arc::clone(&self.send), Arc::clone(&self.vault), self.clock, name.to_owned());
        let (answer, answered) = oneshot::channel();
        let max = self.time_max;
        self.tasks.execute(async move {
            let granted = tokio::time::timeout(max, exchange(send, vault, place, request, given)).await;
            let late = || Err(format!("the token endpoint takes longer than {} s", max.as_secs()));
            let access = granted.unwrap_or_else(|_| late()).map(|granted| {
                let life = granted.life();
                let access = Secret::from(granted.access_token.expose_secret().as_bytes().to_vec());
                let until = clock.moment() + life.saturating_sub(EARLY).max(life / 2);
                tokens.insert(name, Token { access: access.clone(), until });
                access
            });
            drop(tokens);
            // Nobody waits any more: what came is kept all the same.
            let _ = answer.send(access);
        });
        answered.await.unwrap_or_else(|_| Err("the connection ended meanwhile".to_owned()))
    }
}

/// Asks the endpoint, and keeps the refresh token that it gives in the place of the one that it was shown.
async fn exchange(
    send: SendTo,
    vault: Arc<dyn Vault>,
    place: String,
    request: Request<Body>,
    given: Option<Secret>,
) -> Result<Granted, String> {
    let response = send(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = read(response.into_body()).await.map_err(|problem| format!("the token endpoint {problem}"))?;
    if !status.is_success() {
        return Err(match serde_json::from_slice::<Refused>(&body) {
            Ok(Refused { error, error_description }) => {
                let words = format!("{error}: {}", error_description.unwrap_or_default());
                format!("the token endpoint refuses: {}", tidewaiter_core::text::shown(&words, WORDS_MAX))
            }
            Err(_) => format!("the token endpoint answers {status}"),
        });
    }
    // The answer holds secrets, so serde's words, which may quote it, are not told.
    let granted: Granted =
        serde_json::from_slice(&body).map_err(|_| "the token endpoint answers no access token".to_owned())?;
    if granted.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("the token endpoint answers a token that is no bearer token".to_owned());
    }
    if let (Some(new), Some(given)) = (&granted.refresh_token, &given) {
        // The old one may be used up already: the new one is kept before anything is done with it.
        let new = Secret::from(new.expose_secret().as_bytes().to_vec());
        vault.store(&place, given, new).await.map_err(|error| format!("its new refresh token: {error}"))?;
    }
    Ok(granted)
}

/// All of an answer; it holds secrets.
async fn read(mut body: Body) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("breaks off: {error}"))?;
        let part = frame.data_ref().map_or(&[][..], |data| data);
        if bytes.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(format!("answers more than {ANSWER_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

fn request(oauth: &OAuth, client: Option<&Secret>, refresh: Option<&Secret>) -> Result<Request<Body>, String> {
    let text = |secret: &Secret| {
        let text = String::from_utf8(secret.expose_secret().to_vec());
        text.map(SecretString::from).map_err(|_| "a secret for a token endpoint is not text".to_owned())
    };
    let mut form = form_urlencoded::Serializer::new(String::new());
    match refresh {
        Some(token) => {
            form.append_pair("grant_type", "refresh_token");
            form.append_pair("refresh_token", text(token)?.expose_secret());
        }
        None => drop(form.append_pair("grant_type", "client_credentials")),
    }
    for (name, value) in [("scope", &oauth.scope), ("audience", &oauth.audience)] {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    let mut builder = Request::builder()
        .method(Method::POST)
        .uri(oauth.token_url.clone())
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json");
    match (client, oauth.in_body) {
        (Some(secret), false) => {
            // Both halves are encoded as in a form before they are joined (RFC 6749, 2.3.1).
            let encoded = |part: &str| form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>();
            let secret = Secret::from(encoded(text(secret)?.expose_secret()).into_bytes());
            let value = HeaderValue::from_bytes(&basic(&encoded(&oauth.client_id), &secret));
            let mut value = value.map_err(|_| "its client can't be named in a header".to_owned())?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        (secret, _) => {
            form.append_pair("client_id", &oauth.client_id);
            if let Some(secret) = secret {
                form.append_pair("client_secret", text(secret)?.expose_secret());
            }
        }
    }
    let body = Full::from(form.finish()).map_err(|never| match never {}).boxed_unsync();
    builder.body(body).map_err(|error| error.to_string())
}
