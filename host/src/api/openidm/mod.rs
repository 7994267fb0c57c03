//! OpenIDM's calls, as people's scripts make them: live sync, sync tokens, tests of systems, reconciliation. Translates; decides nothing.

mod live_sync;
mod recon;
mod stage;
mod system;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Json;
use serde::Serialize;
use serde_json::Value;
use tidewaiter_core::name::TypeKey;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::error::ApiError;
use super::extract;

type Served = State<Arc<App>>;
type Parameters = HashMap<String, String>;
type Answer = Result<Json<Value>, ApiError>;

/// The parameters of a call.
struct Given(Parameters);

impl<S: Send + Sync> FromRequestParts<S> for Given {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        extract::Query::from_request_parts(parts, state).await.map(|extract::Query(parameters)| Self(parameters))
    }
}

/// How OpenIDM says no.
#[derive(Serialize, ToSchema)]
struct Refused {
    /// The status.
    code: u16,
    /// The status in words.
    reason: String,
    /// What is wrong.
    message: String,
    /// Of a run that failed: `code` is the stable code of the failure.
    #[schema(value_type = Option<Object>, required = false, nullable = false)]
    detail: Option<Value>,
}

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(system::all))
        .routes(routes!(system::all_too))
        .routes(routes!(system::connection))
        .routes(routes!(system::object_type))
        .routes(routes!(stage::list))
        .routes(routes!(stage::get, stage::put, stage::delete))
        .routes(routes!(recon::list, recon::begin))
        .routes(routes!(recon::get, recon::act))
}

/// What is asked for.
fn action(parameters: &Parameters) -> Result<&str, ApiError> {
    let action = parameters.get("_action").map(String::as_str);
    action.ok_or_else(|| ApiError::bad_request("this needs the parameter _action"))
}

fn no_action(action: &str, there_is: &str) -> ApiError {
    ApiError::bad_request(format!("there is no action {action:?} here; there is {there_is}"))
}

fn key(connection: &str, object_type: &str) -> Result<TypeKey, ApiError> {
    let none = |_| ApiError::not_found(format!("there is no object type {connection}/{object_type}"));
    Ok(TypeKey { connection: connection.parse().map_err(none)?, object_type: object_type.parse().map_err(none)? })
}
