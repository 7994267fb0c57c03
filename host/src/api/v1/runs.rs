//! What runs did.

use axum::extract::State;
use serde::Deserialize;
use tidewaiter_core::name::{ConnectionName, TypeKey, TypeName};
use tidewaiter_core::run::RunReport;
use utoipa::IntoParams;

use super::{Answer, Page, Served, rows};
use crate::api::error::{ApiError, Problems};
use crate::api::extract::{Path, Query};
use crate::host::HostError;

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Of {
    /// Of which connection; only with `type`.
    connection: Option<ConnectionName>,
    /// Of which object type of it.
    r#type: Option<TypeName>,
    /// Those before this number.
    before: Option<u64>,
    /// At most that many, 1 to 1,000; left out: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Runs that wrote something, newest first
///
/// Each with why it began, how it ended, what it used, and the last lines that its connector logged. 1,000 are kept of each type.
#[utoipa::path(get, path = "/runs", tag = "runs", security(("bearer" = ["read"])),
    params(Of), responses((status = 200, body = Page<RunReport>), Problems))]
pub(super) async fn list(State(app): Served, Query(of): Query<Of>) -> Answer<Page<RunReport>> {
    let key = match (of.connection, of.r#type) {
        (None, None) => None,
        (Some(connection), Some(object_type)) => Some(TypeKey { connection, object_type }),
        _ => return Err(ApiError::bad_request("connection and type are for use together")),
    };
    if let Some(key) = &key {
        app.host.token(key)?;
    }
    let limit = rows(of.limit)?;
    let before = of.before.unwrap_or(u64::MAX);
    let items = app.host.db().runs_before(key.as_ref(), before, limit).map_err(HostError::from)?;
    let next = items.last().filter(|_| items.len() == limit).map(|last| last.run.to_string());
    Ok(axum::Json(Page { items, next }))
}

/// A run
#[utoipa::path(get, path = "/runs/{run}", tag = "runs", security(("bearer" = ["read"])),
    responses((status = 200, body = RunReport), Problems))]
pub(super) async fn get(State(app): Served, Path(run): Path<u64>) -> Answer<RunReport> {
    let found = app.host.db().runs_before(None, run.saturating_add(1), 1).map_err(HostError::from)?;
    let found = found.into_iter().find(|report| report.run == run);
    let unknown = || ApiError::not_found(format!("there is no run {run}, it wrote nothing, or it is kept no more"));
    found.map(axum::Json).ok_or_else(unknown)
}
