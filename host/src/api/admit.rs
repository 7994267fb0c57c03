//! Who is let in, before a handler sees anything of a request: by the name of the host that is asked, the access token, the role that the
//! route's document wants, and how much is asked for. What is in no document is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde_json::Value;
use tidewaiter_core::access::Role;
use tidewaiter_core::name::AccessName;
use tokio::time::timeout;
use utoipa::openapi::OpenApi;

use super::App;
use super::error::ApiError;
use super::extract::Principal;
use super::idempotency;
use super::page::{self, session};
use crate::audit::Event;
use crate::host::HostError;

/// The largest body of a request, in bytes: a connection's file and its grants.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The same, of who needs no access token: one token, on a form.
const STRANGERS_BODY_BYTES_MAX: usize = 4 * 1024;
/// How long a client may take with the head of a request, from the end of the one before, with its body, and with a part of its answer.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Requests without an access token that is one, of one address: so many at once, and so many a second from then on.
const STRANGERS_BURST: NonZeroU32 = NonZeroU32::new(100).unwrap();
const STRANGERS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// So much of a request is written down that is refused, in bytes.
const NOTED_BYTES_MAX: usize = 512;
/// The names under which a host of loopback is asked.
const LOOPBACK: &str = "localhost";
/// Where scripts of OpenIDM say who they are.
const OPENIDM_PASSWORD: &str = "x-openidm-password";

/// Who may do what on which route.
#[derive(Debug)]
pub(super) struct Roles(HashMap<(String, Method), Needed>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needed {
    /// Anybody.
    Nobody,
    /// Somebody with this role.
    Role(Role),
}

/// How much may be asked for.
#[derive(Debug)]
pub(super) struct Limits {
    known: DefaultKeyedRateLimiter<AccessName>,
    strangers: DefaultKeyedRateLimiter<IpAddr>,
}

impl Roles {
    /// As the document says it, in the `security` of each operation.
    ///
    /// # Panics
    /// An operation says nothing: that is a bug of ours, and is found when the server starts.
    pub(super) fn of(document: &OpenApi) -> Self {
        let document = serde_json::to_value(document).unwrap_or_default();
        let mut roles = HashMap::new();
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                let Ok(method) = method.to_uppercase().parse() else { continue };
                let needed = needed(&operation["security"]);
                assert!(needed.is_some(), "{method} {path} says for whom it is");
                roles.extend(needed.map(|needed| ((path.clone(), method), needed)));
            }
        }
        Self(roles)
    }

    fn needed(&self, path: &str, method: &Method) -> Option<Needed> {
        let method = if method == Method::HEAD { Method::GET } else { method.clone() };
        self.0.get(&(path.to_owned(), method)).copied()
    }
}

fn needed(security: &Value) -> Option<Needed> {
    let first = security.as_array()?.first()?.as_object()?;
    match first.values().next() {
        None => Some(Needed::Nobody),
        Some(roles) => Some(Needed::Role(roles.as_array()?.first()?.as_str()?.parse().ok()?)),
    }
}

impl Limits {
    /// So many requests a second by one access token.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let strangers = Quota::per_second(STRANGERS_PER_SECOND).allow_burst(STRANGERS_BURST);
        Self { known: RateLimiter::hashmap(Quota::per_second(per_second)), strangers: RateLimiter::hashmap(strangers) }
    }

    fn known(&self, name: &AccessName) -> Result<(), ApiError> {
        limited(&self.known, name)
    }

    /// Somebody without an access token that is one.
    pub(super) fn stranger(&self, from: Option<From>) -> Result<(), ApiError> {
        let Some(From(address)) = from else { return Ok(()) };
        // What is known of addresses that have been quiet for a while says nothing any more.
        if self.strangers.len() > 1000 {
            self.strangers.retain_recent();
        }
        limited(&self.strangers, &address)
    }
}

fn limited<K: std::hash::Hash + Eq + Clone>(limiter: &DefaultKeyedRateLimiter<K>, key: &K) -> Result<(), ApiError> {
    limiter.check_key(key).map_err(|until| {
        let wait = until.wait_time_from(DefaultClock::default().now());
        ApiError::too_many("more requests than are taken", wait.as_secs() + 1)
    })
}

/// The address that a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct From(pub(super) IpAddr);

/// Lets a request in that may be made, with its body, and gives what is answered the shape that whoever asks knows.
pub(super) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (openidm, page) = (is_openidm(&request), is_page(&request) && wants_page(request.headers()));
    let mut response = admitted(app, request, next).await.into_response();
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = match () {
            () if openidm => error.openidm_response(),
            () if page => page::failed(&error).await,
            () => response,
        };
    }
    close(&mut response);
    response
}

/// Nobody guesses what an answer is, and nobody keeps it, unless it says otherwise.
pub(super) fn close(response: &mut Response) {
    let headers = response.headers_mut();
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

async fn admitted(app: Arc<App>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    named(&app, request.headers())?;
    let route = request.extensions().get::<MatchedPath>();
    let needed = route.map(|path| app.roles.needed(path.as_str(), request.method()));
    if needed == Some(Some(Needed::Nobody)) {
        return Ok(next.run(whole(request, STRANGERS_BODY_BYTES_MAX).await?).await);
    }
    if !request.method().is_safe() && session::is_of_others(request.headers()) {
        return Err(session::of_others());
    }
    let principal = match principal(&app, &request) {
        // A browser that has shown no token yet.
        Err(error) if error.is_unauthorized() && is_page(&request) => {
            return Ok(Redirect::to("/ui/login").into_response());
        }
        principal => principal?,
    };
    app.limits.known(&principal.name)?;
    let what = || format!("{} {}", request.method(), request.uri().path());
    let role = match needed {
        None => return Err(ApiError::not_found(format!("there is nothing at {}", request.uri().path()))),
        Some(Some(Needed::Role(role))) => role,
        Some(_) => {
            let message = format!("{} does nothing", what());
            return Err(ApiError::of(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", message));
        }
    };
    if !principal.role.allows(role) {
        let message = format!("this is for the role {role}, and {} has the role {}", principal.name, principal.role);
        return Err(refused(&app, &principal, what(), message)?);
    }
    request.extensions_mut().insert(principal.clone());
    idempotency::once(app, &principal.name, whole(request, BODY_BYTES_MAX).await?, next).await
}

/// Writes down what somebody tried that is for another role.
pub(super) fn refused(app: &App, who: &Principal, mut what: String, message: String) -> Result<ApiError, ApiError> {
    what.truncate(what.floor_char_boundary(NOTED_BYTES_MAX));
    let refused = Event::NotAllowed { by: who.actor().to_string(), act: "http", on: what };
    app.host.audit().note(&refused).map_err(HostError::from)?;
    Ok(ApiError::forbidden(message))
}

/// Browsers say that they take pages.
fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|wanted| wanted.to_str().ok())
        .is_some_and(|wanted| wanted.contains("text/html"))
}

fn is_page(request: &Request) -> bool {
    let path = request.uri().path();
    let is_shown = path == "/" || path == "/api/v1/reference" || path.starts_with("/ui/");
    *request.method() == Method::GET && is_shown && path != "/ui/live"
}

/// By another name, a page in somebody's browser could ask.
fn named(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(ApiError::bad_request("there is more than one Host header"));
    }
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    match host.is_none_or(|host| is_loopback(host) || app.names.iter().any(|name| is_named(host, name))) {
        true => Ok(()),
        false => Err(ApiError::bad_request("the Host header has none of the names in http.hosts")),
    }
}

fn principal(app: &App, request: &Request) -> Result<Principal, ApiError> {
    let openidm = is_openidm(request);
    let token = token(request.headers(), openidm);
    if token.is_none()
        && let Some(who) = app.sessions.of(request.method(), request.headers())?
        && app.host.access().is_current(&who)
    {
        return Ok(who);
    }
    if let Some(who) = token.as_deref().and_then(|token| app.host.access().admits(token)) {
        return Ok(Principal(who));
    }
    app.limits.stranger(request.extensions().get().copied())?;
    Err(ApiError::unauthorized(match token {
        None => {
            "this needs `Authorization: Bearer` with an access token; http-token in the data directory is the first one"
        }
        Some(_) => "that is no access token, or it has expired or was revoked",
    }))
}

/// Whether it is one of OpenIDM's calls.
pub(super) fn is_openidm(request: &Request) -> bool {
    request.uri().path().starts_with("/openidm/")
}

/// The access token; scripts of OpenIDM say it as a password.
fn token(headers: &HeaderMap, openidm: bool) -> Option<String> {
    if let Some(given) = headers.get(header::AUTHORIZATION) {
        let (scheme, rest) = given.to_str().ok()?.split_once(' ')?;
        return match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some(rest.trim().to_owned()),
            "basic" if openidm => {
                let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
                text.split_once(':').map(|(_, password)| password.to_owned())
            }
            _ => None,
        };
    }
    let password = headers.get(OPENIDM_PASSWORD).filter(|_| openidm)?;
    password.to_str().ok().map(str::to_owned)
}

/// With its body, if that comes and isn't too large.
async fn whole(request: Request, bytes_max: usize) -> Result<Request, ApiError> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (head, body) = request.into_parts();
    let read = timeout(SILENCE_MAX, to_bytes(body, bytes_max)).await;
    let read = read.map_err(|_| ApiError::of(StatusCode::REQUEST_TIMEOUT, "timeout", "the body doesn't come"))?;
    let too_large = |_| {
        let message = format!("a body of more than the {bytes_max} bytes that are taken, or one that broke off");
        ApiError::of(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    };
    Ok(Request::from_parts(head, read.map_err(too_large)?.into()))
}

fn is_named(host: &str, name: &str) -> bool {
    let (host, _) = split(host);
    host.eq_ignore_ascii_case(name)
}

fn is_loopback(host: &str) -> bool {
    let (name, _) = split(host);
    let plain = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case(LOOPBACK) || plain.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The name and the port.
fn split(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            port.parse().map_or((host, None), |port| (name, Some(port)))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_names_of_this_machine() {
        for ours in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8080"] {
            assert!(is_loopback(ours), "{ours}");
        }
        for other in ["", "example.org", "localhost.example.org:80", "192.168.0.1:80", "127.0.0.1.nip.io", "[::2]:1"] {
            assert!(!is_loopback(other), "{other}");
        }
        assert!(
            is_named("Idm.Example.org:8443", "idm.example.org") && !is_named("x.idm.example.org", "idm.example.org")
        );
    }

    #[test]
    fn passwords_are_tokens_only_where_openidms_scripts_ask() {
        let of = |name: &str, value: &str, openidm| {
            let mut headers = HeaderMap::new();
            headers.insert(name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
            token(&headers, openidm)
        };
        let basic = format!("Basic {}", STANDARD.encode("openidm-admin:tw_1:2"));
        for (name, value, openidm, expected) in [
            ("authorization", "Bearer tw_1", false, Some("tw_1")),
            ("authorization", "bearer  tw_1", true, Some("tw_1")),
            ("authorization", "tw_1", true, None),
            ("authorization", &basic, true, Some("tw_1:2")),
            ("authorization", &basic, false, None),
            ("x-openidm-password", "tw_1", true, Some("tw_1")),
            ("x-openidm-password", "tw_1", false, None),
        ] {
            assert_eq!(of(name, value, openidm).as_deref(), expected, "{name}: {value}");
        }
    }

    #[test]
    fn what_is_in_no_document_is_for_nobody() {
        assert_eq!(needed(&serde_json::json!([{}])), Some(Needed::Nobody));
        assert_eq!(needed(&serde_json::json!([{ "bearer": ["operate"] }])), Some(Needed::Role(Role::Operate)));
        for nothing in [serde_json::json!(null), serde_json::json!([]), serde_json::json!([{ "bearer": ["root"] }])] {
            assert_eq!(needed(&nothing), None, "{nothing}");
        }
    }
}
