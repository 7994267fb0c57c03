//! How the API says no: OpenIDM's error body.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;
use tidewaiter_core::run::{ErrorKind, Failure};

use crate::host::HostError;
use crate::host::ask::ProblemCode;

/// An answer that is not the one that was asked for: `{"code", "reason", "message"}`, and for a failed run `"detail": {"code"}`
/// with the stable code of the failure.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    code: Option<String>,
}

impl ApiError {
    pub(super) fn of(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::of(StatusCode::UNAUTHORIZED, "this needs `Authorization: Bearer` with the token of the file http-token")
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::of(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn method(message: impl Into<String>) -> Self {
        Self::of(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::of(StatusCode::CONFLICT, message)
    }

    pub(super) fn changed(message: impl Into<String>) -> Self {
        Self::of(StatusCode::PRECONDITION_FAILED, message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, message)
    }
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
        Self { status, message: failure.to_string(), code: Some(failure.code()) }
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        let status = match error.code() {
            ProblemCode::BadRequest | ProblemCode::IncarnationChanged => StatusCode::BAD_REQUEST,
            ProblemCode::Unknown => StatusCode::NOT_FOUND,
            ProblemCode::NotAllowed => StatusCode::FORBIDDEN,
            ProblemCode::Dropped => StatusCode::GONE,
            ProblemCode::TokenLost
            | ProblemCode::Held
            | ProblemCode::Quarantined
            | ProblemCode::Busy
            | ProblemCode::Configuration
            | ProblemCode::Consumer => StatusCode::CONFLICT,
            ProblemCode::Changed => StatusCode::PRECONDITION_FAILED,
            ProblemCode::ShuttingDown | ProblemCode::Broken => StatusCode::SERVICE_UNAVAILABLE,
            ProblemCode::Host | ProblemCode::Gone => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::of(status, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let mut body = json!({ "code": self.status.as_u16(), "reason": reason, "message": self.message });
        if let Some(code) = self.code {
            body["detail"] = json!({ "code": code });
        }
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}
