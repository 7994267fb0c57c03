//! Who looks at the page: a browser that has shown an access token once, and has a cookie since. What it is in a cookie says nothing of the token, and no other
//! site's page can use it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Form, http};
use maud::html;
use serde::Deserialize;
use tidewaiter_core::text::hex;
use tidewaiter_core::time::Moment;
use utoipa::ToSchema;

use super::layout::outside;
use super::{Page, Served, page};
use crate::api::admit::From;
use crate::api::error::{ApiError, Otherwise};
use crate::api::extract::Principal;
use crate::audit::Event;
use crate::clock::Clock;
use crate::host::HostError;

const COOKIE: &str = "tidewaiter";
/// Where browsers say whose page made them ask.
const SITE: &str = "sec-fetch-site";
const SESSION_BYTES: usize = 32;
/// Of browsers that have shown the same token: one more ends the session that was quiet for longest.
const SESSIONS_MAX: usize = 100;
/// Without a look at the page.
const QUIET_MAX: Duration = Duration::from_secs(12 * 3600);

/// Browsers that have shown a token.
pub(in crate::api) struct Sessions {
    open: Mutex<HashMap<String, (Principal, Moment)>>,
    clock: Clock,
}

/// What a browser shows.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct Login {
    /// An access token.
    token: String,
}

impl Sessions {
    pub(in crate::api) fn new(clock: Clock) -> Self {
        Self { open: Mutex::default(), clock }
    }

    /// Whose session a request belongs to, if it may.
    ///
    /// # Errors
    /// Another site's page made the browser ask.
    pub(in crate::api) fn of(&self, method: &http::Method, headers: &HeaderMap) -> Result<Option<Principal>, ApiError> {
        let Some(id) = cookie(headers) else { return Ok(None) };
        if !method.is_safe() && !is_own(headers) {
            return Err(of_others());
        }
        let (mut open, now) = (self.all(), self.clock.moment());
        let found = open.get_mut(id).filter(|(_, until)| *until > now);
        Ok(found.map(|(who, until)| {
            *until = now + QUIET_MAX;
            who.clone()
        }))
    }

    fn begin(&self, who: Principal) -> Result<String, ApiError> {
        let mut bytes = [0; SESSION_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| ApiError::unavailable("host", error.to_string()))?;
        let (mut open, now) = (self.all(), self.clock.moment());
        open.retain(|_, (_, until)| *until > now);
        let of_it = || open.iter().filter(|(_, (other, _))| other.name == who.name);
        if of_it().count() >= SESSIONS_MAX {
            let oldest = of_it().min_by_key(|(_, (_, until))| *until).map(|(id, _)| id.clone());
            oldest.map(|id| open.remove(&id));
        }
        open.insert(hex(&bytes), (who, now + QUIET_MAX));
        Ok(hex(&bytes))
    }

    fn end(&self, headers: &HeaderMap) {
        if let Some(id) = cookie(headers) {
            self.all().remove(id);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, (Principal, Moment)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut named = all.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    named.find(|(name, _)| *name == COOKIE).map(|(_, id)| id)
}

/// Whether a browser says that a page of another site made it ask: refused whoever lets it in, because a proxy may add an access token to whatever comes.
pub(in crate::api) fn is_of_others(headers: &HeaderMap) -> bool {
    match headers.get(SITE) {
        Some(site) => site != "same-origin" && site != "none",
        None => headers.contains_key(header::ORIGIN) && !is_own(headers),
    }
}

pub(in crate::api) fn of_others() -> ApiError {
    ApiError::forbidden("this was asked by a page of another site")
}

/// Whether a page of this server made the browser ask: browsers say it in `Sec-Fetch-Site`, and older ones where they come from in `Origin`.
fn is_own(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SITE) {
        return site == "same-origin";
    }
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origin.is_some() && origin == text(header::HOST)
}

/// The form to log in
#[utoipa::path(get, path = "/ui/login", tag = "page", security(()), responses((status = 200, body = String, content_type = "text/html")))]
pub(in crate::api) async fn form() -> Page {
    Ok(page(&shown(None)))
}

fn shown(problem: Option<&str>) -> maud::Markup {
    outside(
        "Log in",
        &html! {
            h1 { "Tidewaiter" }
            form method="post" action="/ui/login" class="login" {
                label for="token" { "Access token" }
                input id="token" name="token" type="password" autocomplete="current-password" required autofocus
                    aria-describedby="hint" aria-invalid=[problem.map(|_| "true")];
                p id="hint" { "The first one is in the file " code { "http-token" } " of the server’s data; " code { "tidewaiter access add" } " makes others." }
                @if let Some(problem) = problem { p role="alert" class="bad" { (problem) } }
                button type="submit" { "Log in" }
            }
        },
    )
}

/// Log in
#[utoipa::path(post, path = "/ui/login", tag = "page", security(()), request_body(content = Login, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303), (status = 401, body = String, content_type = "text/html"), Otherwise))]
pub(in crate::api) async fn begin(
    State(app): Served,
    from: Option<Extension<From>>,
    headers: HeaderMap,
    login: Result<Form<Login>, FormRejection>,
) -> Result<Response, ApiError> {
    if !is_own(&headers) {
        return Err(of_others());
    }
    let Form(login) = login.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let Some(who) = app.host.access().admits(login.token.trim()) else {
        app.limits.stranger(from.map(|Extension(from)| from))?;
        let text = shown(Some("That is no access token, or it has expired or was revoked."));
        return Ok((StatusCode::UNAUTHORIZED, page(&text)).into_response());
    };
    let begun = Event::Act { by: who.actor().to_string(), act: "log in", on: "the page".to_owned() };
    app.host.audit().note(&begun).map_err(HostError::from)?;
    let id = app.sessions.begin(Principal(who))?;
    let secure = if app.secure { "; Secure" } else { "" };
    Ok(sent_home(&format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict{secure}")))
}

/// Log out
#[utoipa::path(post, path = "/ui/logout", tag = "page", security(("bearer" = ["read"])),
    responses((status = 303), Otherwise))]
pub(in crate::api) async fn end(State(app): Served, headers: HeaderMap) -> Response {
    app.sessions.end(&headers);
    sent_home(&format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"))
}

fn sent_home(cookie: &str) -> Response {
    let mut response = Redirect::to("/").into_response();
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_server_make_a_browser_act() {
        let own = |pairs: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
            }
            is_own(&headers)
        };
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[("origin", "http://127.0.0.1:8585"), ("host", "127.0.0.1:8585")]));
        for other in [
            &[][..],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://127.0.0.1:9999"), ("host", "127.0.0.1:8585")],
            &[("origin", "null"), ("host", "127.0.0.1:8585")],
            &[("host", "127.0.0.1:8585")],
        ] {
            assert!(!own(other), "{other:?}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=b; tidewaiter=c0ffee".parse().unwrap());
        assert_eq!(cookie(&headers), Some("c0ffee"));
        assert_eq!(cookie(&HeaderMap::new()), None);
    }
}
