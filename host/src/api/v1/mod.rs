//! `/api/v1`: the service functions of the host as resources, and the document that says what they are. Translates; decides nothing.

mod access;
mod changes;
mod connections;
mod connectors;
mod consumers;
mod dead_letters;
mod operations;
mod runs;
mod server;
mod types;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tidewaiter_core::name::{ConnectionName, TypeKey, TypeName};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::error::ApiError;

pub(super) use self::changes::{entry_id, note, one as change};

pub(super) type Served = State<Arc<App>>;
pub(super) type Answer<T> = Result<axum::Json<T>, ApiError>;

/// Rows in one answer, unless said otherwise, and at most.
const ROWS: usize = 100;
const ROWS_MAX: usize = 1000;

/// Some of what there is, and how to go on.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Page<T> {
    /// These.
    items: Vec<T>,
    /// What to say as `after` or `before` for those that come next; none: there are no others.
    next: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidewaiter",
        description = "Connections, their runs, their sync tokens, and every change that they brought.\n\nEvery request needs `Authorization: Bearer` with an access token. The role in \
            `security` of an operation is the one that it takes: `read` is in every role, `admin` has all. What fails is a problem as RFC 9457 has it, with a stable `code`. `Idempotency-Key` on a \
            POST has it done once: for 24 hours, or until the server ends, the same request is answered as it was."
    ),
    modifiers(&Bearer),
    tags(
        (name = "connections", description = "What is configured, and how it does"),
        (name = "types", description = "Object types: live sync, sync tokens, reconciliation, the guard"),
        (name = "runs", description = "What runs did, and operations that take long"),
        (name = "changes", description = "The journal"),
        (name = "dead letters", description = "What is kept out of the journal, or out of a sink"),
        (name = "connectors", description = "Files of connectors, and what they may ask for"),
        (name = "server", description = "The server, and who may ask it")
    )
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An access token")).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The routes, and their document.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    let api = OpenApiRouter::new()
        .routes(routes!(connections::list))
        .routes(routes!(connections::get))
        .routes(routes!(connections::document, connections::put, connections::delete))
        .routes(routes!(connections::pause))
        .routes(routes!(connections::resume))
        .routes(routes!(connections::bring_up))
        .routes(routes!(connections::check))
        .routes(routes!(connections::approve))
        .routes(routes!(connections::erase))
        .routes(routes!(types::list))
        .routes(routes!(types::get))
        .routes(routes!(types::sync))
        .routes(routes!(types::pause))
        .routes(routes!(types::resume))
        .routes(routes!(types::token_get, types::token_set, types::token_reset))
        .routes(routes!(types::token_rewind))
        .routes(routes!(types::token_history))
        .routes(routes!(types::reconcile))
        .routes(routes!(types::pass, types::cancel_pass))
        .routes(routes!(types::release))
        .routes(routes!(types::discard))
        .routes(routes!(runs::list))
        .routes(routes!(runs::get))
        .routes(routes!(operations::list))
        .routes(routes!(operations::get))
        .routes(routes!(changes::list))
        .routes(routes!(changes::stream))
        .routes(routes!(changes::get))
        .routes(routes!(consumers::list, consumers::add))
        .routes(routes!(consumers::remove))
        .routes(routes!(consumers::changes))
        .routes(routes!(consumers::acknowledge))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::get, dead_letters::give_up))
        .routes(routes!(dead_letters::retry))
        .routes(routes!(connectors::list))
        .routes(routes!(connectors::revisions))
        .routes(routes!(connectors::roll_back))
        .routes(routes!(connectors::retry))
        .routes(routes!(connectors::approve))
        .routes(routes!(connectors::pin))
        .routes(routes!(connectors::quarantine, connectors::end_quarantine))
        .routes(routes!(connectors::deny))
        .routes(routes!(connectors::lock))
        .routes(routes!(server::sinks))
        .routes(routes!(server::reload, server::not_reloaded))
        .routes(routes!(access::list, access::add))
        .routes(routes!(access::revoke))
        .routes(routes!(server::openapi));
    OpenApiRouter::with_openapi(Document::openapi())
        .nest("/api/v1", api)
        .routes(routes!(server::metrics))
        .routes(routes!(server::healthz))
        .routes(routes!(server::readyz))
}

/// Two names in a path.
fn key((connection, object_type): (ConnectionName, TypeName)) -> TypeKey {
    TypeKey { connection, object_type }
}

/// An answer that has a mark, by which a change of it can insist on what was seen.
fn marked<T: Serialize>(mark: &str, body: T) -> Response {
    let mut response = axum::Json(body).into_response();
    if let Ok(mark) = HeaderValue::from_str(&format!("\"{mark}\"")) {
        response.headers_mut().insert(header::ETAG, mark);
    }
    response
}

/// Rows that are asked for.
fn rows(limit: Option<u32>) -> Result<usize, ApiError> {
    match limit.map(|limit| limit as usize) {
        None => Ok(ROWS),
        Some(limit @ 1..=ROWS_MAX) => Ok(limit),
        Some(limit) => Err(ApiError::bad_request(format!("limit is {limit}, and goes from 1 to {ROWS_MAX}"))),
    }
}

/// A time to wait, as in `30s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Wait(Duration);

impl TryFrom<String> for Wait {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let span = text.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        span.filter(|span| *span <= WAIT_MAX)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no time to wait, as in `30s`; at most `{}s`", WAIT_MAX.as_secs()))
    }
}

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded() {
        let wait = |text: &str| Wait::try_from(text.to_owned());
        assert_eq!(wait("30s"), Ok(Wait(Duration::from_secs(30))));
        assert_eq!(wait("1m"), Ok(Wait(Duration::from_secs(60))));
        for bad in ["", "30", "-1s", "61s", "1h", "99999999999999999h", "x"] {
            assert!(wait(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_operation_says_for_whom_it_is() {
        let document = routes().into_openapi();
        crate::api::admit::Roles::of(&document);
    }
}
