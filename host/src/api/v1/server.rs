//! The server itself.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Served};
use crate::api::error::{ApiError, Problems};
use crate::api::extract::Principal;
use crate::host::{Exposition, HostError, NotReloaded, Reloaded, SinkView};

/// How the server does.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Health {
    /// `ok`.
    status: &'static str,
}

/// Where entries are delivered, and how far that is
#[utoipa::path(get, path = "/sinks", tag = "server", security(("bearer" = ["read"])),
    responses((status = 200, body = Vec<SinkView>), Problems))]
pub(super) async fn sinks(State(app): Served) -> Answer<Vec<SinkView>> {
    Ok(axum::Json(app.host.sinks().await?))
}

/// Take over what is configured by now
#[utoipa::path(post, path = "/reload", tag = "server", security(("bearer" = ["admin"])),
    responses((status = 200, body = Reloaded), Problems))]
pub(super) async fn reload(State(app): Served, who: Principal) -> Answer<Reloaded> {
    Ok(axum::Json(app.host.reload(who.actor()).await?))
}

/// What is written, and is not taken over
///
/// Null: all is.
#[utoipa::path(get, path = "/reload", tag = "server", security(("bearer" = ["read"])),
    responses((status = 200, body = Option<NotReloaded>), Problems))]
pub(super) async fn not_reloaded(State(app): Served) -> Answer<Option<NotReloaded>> {
    Ok(axum::Json(app.host.not_reloaded()))
}

/// What is counted
///
/// In the format of OpenMetrics, or of Prometheus where that is asked for.
#[utoipa::path(get, path = "/metrics", tag = "server", security(("bearer" = ["read"])),
    responses((status = 200, content((String = "text/plain"), (String = "application/openmetrics-text"))), Problems))]
pub(super) async fn metrics(State(app): Served, headers: HeaderMap) -> Result<Response, ApiError> {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    let format = match accepted.contains("application/openmetrics-text") {
        true => Exposition::OpenMetrics,
        false => Exposition::Prometheus,
    };
    let host = app.host.clone();
    let told = tokio::task::spawn_blocking(move || host.metrics_as(format)).await.map_err(HostError::from)??;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()))], told).into_response())
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "server", security(("bearer" = ["read"])),
    responses((status = 200, body = Object), Problems))]
pub(super) async fn openapi(State(app): Served) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], app.document.clone()).into_response()
}

/// Whether the server lives
#[utoipa::path(get, path = "/healthz", tag = "server", security(()), responses((status = 200, body = Health), Problems))]
pub(super) async fn healthz() -> axum::Json<Health> {
    axum::Json(Health { status: "ok" })
}

/// Whether the server takes requests
///
/// 503 while it shuts down, or if its db can't be read.
#[utoipa::path(get, path = "/readyz", tag = "server", security(()), responses((status = 200, body = Health), Problems))]
pub(super) async fn readyz(State(app): Served) -> Answer<Health> {
    match app.host.not_ready() {
        None => Ok(axum::Json(Health { status: "ok" })),
        Some(why) => Err(ApiError::unavailable("not-ready", why)),
    }
}
