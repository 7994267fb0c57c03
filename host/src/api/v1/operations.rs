//! Work that takes long.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Answer, Served, Wait};
use crate::api::App;
use crate::api::error::{ApiError, Problems};
use crate::api::extract::Path;
use crate::api::operation::{Done, Operation, Order};

/// How long somebody waits for the end of an operation.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Waiting {
    /// Answer with its result if it ends so soon, as in `30s`; at most `60s`. Left out: answer at once, with an operation to follow.
    #[param(value_type = Option<String>)]
    wait: Option<Wait>,
}

/// Begins an operation. Waits for its end as long as whoever asks wants to: 200 if it did what was asked, a problem if it didn't, 202 if it is under way still.
pub(super) async fn follow(
    app: &Arc<App>,
    order: Order,
    waiting: &Waiting,
    work: impl Future<Output = Result<Done, ApiError>> + Send + 'static,
) -> Result<Response, ApiError> {
    let id = app.operations.begin(order, work)?;
    let ended = match waiting.wait {
        Some(Wait(wait)) => app.operations.wait(&id, wait).await,
        None => None,
    };
    let status = match ended {
        Some(Err(error)) => return Err(error),
        Some(Ok(_)) => StatusCode::OK,
        None => StatusCode::ACCEPTED,
    };
    let mut response = (status, axum::Json(app.operations.get(&app.host, &id)?)).into_response();
    if let Ok(place) = HeaderValue::from_str(&format!("/api/v1/operations/{id}")) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// Operations that are under way, and that were
#[utoipa::path(get, path = "/operations", tag = "runs", security(("bearer" = ["read"])),
    responses((status = 200, body = Vec<Operation>), Problems))]
pub(super) async fn list(State(app): Served) -> Answer<Vec<Operation>> {
    Ok(axum::Json(app.operations.list(&app.host)))
}

/// An operation
///
/// That it failed is in it, and is no failure of this request.
#[utoipa::path(get, path = "/operations/{operation}", tag = "runs", security(("bearer" = ["read"])),
    responses((status = 200, body = Operation), Problems))]
pub(super) async fn get(State(app): Served, Path(id): Path<String>) -> Answer<Operation> {
    Ok(axum::Json(app.operations.get(&app.host, &id)?))
}
