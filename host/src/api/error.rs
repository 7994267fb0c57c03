//! How the API says no: one error, in the shape that its caller knows. Decides which status and which code a problem has; says nothing that
//! whoever asks may not know.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tidewaiter_core::run::{ErrorKind, Failure, Outcome, RunReport};
use utoipa::{IntoResponses, ToSchema};

use crate::host::ask::ProblemCode;
use crate::host::{HostError, NotTaken};

/// An answer that is not the one that was asked for.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: String,
    message: String,
    run: Option<Box<RunReport>>,
    retry_after_s: Option<u64>,
}

/// What each code of a problem means. Of codes with a point, what is before it.
pub(super) const CODES: &[(&str, &str)] = &[
    ("bad-request", "It was not understood."),
    ("unauthorized", "There is no access token, or none that is one."),
    ("not-allowed", "It is for another role."),
    ("unknown", "There is no such thing."),
    ("no-such-method", "That is there, and this can't be done to it."),
    ("timeout", "The body of the request didn't come."),
    ("too-large", "The body of the request is larger than what is taken."),
    ("media-type", "The body of the request is none of JSON."),
    ("too-many-requests", "More is asked for than is taken; `Retry-After` says when to try again."),
    ("idempotency-key-used", "The idempotency key belongs to another request."),
    ("idempotency-key-busy", "The same request is under way."),
    ("idempotency-answer-gone", "The same request was done, and its answer was too large to be kept."),
    ("changed", "It is not what was seen: somebody else changed it meanwhile."),
    ("exists", "There is one of that name, or there are too many."),
    ("broken", "The connection is configured, and can't run."),
    ("configuration", "What is configured can't be taken over."),
    ("token-lost", "The source refuses the sync token; somebody has to set, rewind or reset it."),
    ("held", "The guard holds the type, or nothing is held; or a dead letter stays."),
    ("paused", "An operator paused it; or it is not paused."),
    ("quarantined", "The connector is in quarantine."),
    ("busy", "Another pass over the objects is under way."),
    ("cancelled", "Somebody cancelled it."),
    ("superseded", "Somebody acted on the state during the run; that wins."),
    ("no-room", "The journal has no room; it goes on when there is some."),
    ("went-back", "The connector's new file failed, and what ran before has not run yet."),
    ("incarnation-changed", "The entry is one of another journal: this one was restored."),
    ("undelivered", "The entries are journaled, and an inline sink hasn't taken them yet; it is tried again."),
    ("dropped", "The entries were delivered to everybody, and have been dropped."),
    ("consumer", "The consumer is expired, exists already, or acknowledges what is not there."),
    ("shutting-down", "The server is shutting down."),
    ("not-ready", "The server takes no requests."),
    ("gone", "The host behind the socket ended while it was asked."),
    ("host", "The host failed, or its db; the log has more."),
    ("connector", "The connector answered an error; after the point is its kind."),
    ("trap", "The connector crashed."),
    ("limit", "The connector was ended at a limit; after the point is which."),
    ("contract", "The connector broke the contract; after the point is how."),
    ("egress", "The connector was ended at what it may reach."),
];

/// A problem, as RFC 9457 has it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Problem {
    /// Which kind of problem: a place in the API's reference.
    r#type: String,
    /// The status in words.
    title: String,
    /// The status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, for people.
    detail: String,
    /// What is wrong, by a stable code.
    code: String,
    /// The run that came to no good end, if that is the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    run: Option<RunReport>,
}

impl Problem {
    /// The stable code.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// What is wrong, for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }
}

/// What a page may answer instead.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is what the document says of ApiError")]
pub(super) enum Otherwise {
    /// It can't be shown, or not to whoever asks. Browsers get a page that says so.
    #[response(status = "default", content_type = "application/problem+json")]
    Problem(#[to_schema] Problem),
}

/// What every operation may answer instead.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is what the document says of ApiError")]
pub(super) enum Problems {
    /// It was not understood.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(#[to_schema] Problem),
    /// There is no access token, or none that is one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] Problem),
    /// The access token is for another role.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] Problem),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(#[to_schema] Problem),
    /// The body doesn't come.
    #[response(status = 408, content_type = "application/problem+json")]
    Timeout(#[to_schema] Problem),
    /// Not in the present state.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(#[to_schema] Problem),
    /// Entries that have been dropped.
    #[response(status = 410, content_type = "application/problem+json")]
    Gone(#[to_schema] Problem),
    /// It is not what was seen.
    #[response(status = 412, content_type = "application/problem+json")]
    PreconditionFailed(#[to_schema] Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] Problem),
    /// The body is none of JSON.
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(#[to_schema] Problem),
    /// The idempotency key was used for something else.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(#[to_schema] Problem),
    /// Too much is asked for.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(#[to_schema] Problem),
    /// The host, or a run, failed.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(#[to_schema] Problem),
    /// Not now.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Problem),
    /// The source of a connection was too slow.
    #[response(status = 504, content_type = "application/problem+json")]
    GatewayTimeout(#[to_schema] Problem),
}

impl ApiError {
    pub(super) fn of(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), run: None, retry_after_s: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::of(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::of(StatusCode::FORBIDDEN, "not-allowed", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::of(StatusCode::NOT_FOUND, "unknown", message)
    }

    pub(super) fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::of(StatusCode::CONFLICT, code, message)
    }

    pub(super) fn changed(message: impl Into<String>) -> Self {
        Self::of(StatusCode::PRECONDITION_FAILED, "changed", message)
    }

    pub(super) fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    pub(super) fn too_many(message: impl Into<String>, retry_after_s: u64) -> Self {
        let retry_after_s = Some(retry_after_s.max(1));
        Self { retry_after_s, ..Self::of(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", message) }
    }

    /// A bug of ours, which is told to the log.
    pub(super) fn bug(what: &str) -> Self {
        tracing::error!(target: "tidewaiter", code = "panic", "a request ended by a bug: {what}");
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, "host", "this request ended by a bug; the log has more")
    }

    pub(super) fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The status in words.
    pub(super) fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or_default()
    }

    /// As the API has it.
    pub(super) fn problem(&self) -> Problem {
        Problem {
            r#type: format!("/api/v1/reference#problem-{}", self.code.split('.').next().unwrap_or_default()),
            title: self.title().to_owned(),
            status: self.status.as_u16(),
            detail: self.message.clone(),
            code: self.code.clone(),
            run: self.run.as_deref().cloned(),
        }
    }

    /// As OpenIDM has it: `{"code", "reason", "message"}`, and for a failed run `"detail": {"code"}` with the stable code of the failure.
    fn openidm(&self) -> Value {
        let mut body = json!({ "code": self.status.as_u16(), "reason": self.title(), "message": self.message });
        if self.run.is_some() {
            body["detail"] = json!({ "code": self.code });
        }
        body
    }

    /// In the shape that OpenIDM's scripts know.
    pub(super) fn openidm_response(&self) -> Response {
        self.respond(Json(self.openidm()).into_response())
    }

    fn respond(&self, body: Response) -> Response {
        let mut response = body;
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// What an inline sink that lacks entries says.
pub(super) fn undelivered(NotTaken { sink, sequence, problem }: &NotTaken) -> ApiError {
    let message = format!("what was journaled hasn't reached sink {sink}, from entry {sequence} on: {problem}");
    ApiError::unavailable("undelivered", message)
}

/// What a run says that came to no good end; none: it did what was asked.
pub(super) fn of_run(report: &RunReport) -> Option<ApiError> {
    let key = &report.key;
    let error = match &report.outcome {
        Outcome::Ok | Outcome::More => return None,
        Outcome::Failed(failure) => ApiError::from(failure),
        Outcome::WentBack(failure) => ApiError::unavailable(
            "went-back",
            format!("{key}: the connector's new revision failed, and what ran before has not run yet: {failure}"),
        ),
        Outcome::Stopped => {
            ApiError::unavailable("shutting-down", "the host is shutting down; the run ended at a checkpoint")
        }
        Outcome::Held(why) => ApiError::unavailable("no-room", format!("{key}: {why}")),
        Outcome::Guarded(why) => ApiError::conflict("held", format!("{key} is held: {why}")),
        Outcome::Superseded => ApiError::conflict(
            "superseded",
            format!("{key}: somebody acted on the token, the guard, a dead letter or the schedule during the run"),
        ),
    };
    Some(ApiError { run: Some(Box::new(report.clone())), ..error })
}

impl From<&Failure> for ApiError {
    fn from(failure: &Failure) -> Self {
        let status = match failure {
            Failure::Connector(error) => match error.kind {
                ErrorKind::ConnectionFailed
                | ErrorKind::ConnectionBroken
                | ErrorKind::RateLimited
                | ErrorKind::Retryable => StatusCode::SERVICE_UNAVAILABLE,
                ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                ErrorKind::InvalidSyncToken => StatusCode::CONFLICT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Failure::Trapped { .. } | Failure::Contract { .. } | Failure::Host { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::of(status, &failure.code(), failure.to_string())
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        let code = error.code();
        let status = match code {
            ProblemCode::BadRequest | ProblemCode::IncarnationChanged => StatusCode::BAD_REQUEST,
            ProblemCode::Unknown => StatusCode::NOT_FOUND,
            ProblemCode::NotAllowed => StatusCode::FORBIDDEN,
            ProblemCode::Dropped => StatusCode::GONE,
            ProblemCode::TokenLost
            | ProblemCode::Held
            | ProblemCode::Paused
            | ProblemCode::Cancelled
            | ProblemCode::Exists
            | ProblemCode::Quarantined
            | ProblemCode::Busy
            | ProblemCode::Configuration
            | ProblemCode::Consumer => StatusCode::CONFLICT,
            ProblemCode::Changed => StatusCode::PRECONDITION_FAILED,
            ProblemCode::ShuttingDown | ProblemCode::Broken => StatusCode::SERVICE_UNAVAILABLE,
            ProblemCode::Host | ProblemCode::Gone => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::of(status, code.name(), error.to_string())
    }
}

/// In the shape of the API; whoever wants another one finds the error beside it.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.respond(Json(self.problem()).into_response());
        let problem = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_of_the_host_is_explained_once() {
        let explained: BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
        assert_eq!(explained.len(), CODES.len());
        for code in ProblemCode::ALL {
            assert!(explained.contains(code.name()), "{}", code.name());
        }
        for kind in [ErrorKind::TimedOut, ErrorKind::InvalidSyncToken, ErrorKind::Other] {
            let error = tidewaiter_core::run::ConnectorError { kind, message: "no".into(), retry_after_ms: None };
            let problem = ApiError::from(&Failure::Connector(error)).problem();
            assert_eq!(problem.r#type, "/api/v1/reference#problem-connector");
        }
    }
}
