//! Who may ask.

use axum::extract::State;
use serde::Deserialize;
use tidewaiter_core::access::Role;
use tidewaiter_core::name::AccessName;
use tidewaiter_core::time::UnixMillis;
use utoipa::ToSchema;

use super::{Answer, Served};
use crate::access::{AccessView, NewAccess};
use crate::api::error::Problems;
use crate::api::extract::{self, Path, Principal};

/// An access token that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Wanted {
    /// What it is called; the audit names it.
    name: AccessName,
    /// What may be done with it.
    role: Role,
    /// When it ends to be one; left out: when it is revoked.
    expires: Option<UnixMillis>,
}

/// The access tokens that there are
#[utoipa::path(get, path = "/access", tag = "server", security(("bearer" = ["admin"])),
    responses((status = 200, body = Vec<AccessView>), Problems))]
pub(super) async fn list(State(app): Served) -> Answer<Vec<AccessView>> {
    Ok(axum::Json(app.host.access().list()))
}

/// Make an access token
///
/// It is shown this once.
#[utoipa::path(post, path = "/access", tag = "server", security(("bearer" = ["admin"])),
    request_body = Wanted, responses((status = 200, body = NewAccess), Problems))]
pub(super) async fn add(
    State(app): Served,
    who: Principal,
    extract::Json(wanted): extract::Json<Wanted>,
) -> Answer<NewAccess> {
    let Wanted { name, role, expires } = wanted;
    Ok(axum::Json(app.host.access_add(&name, role, expires, who.actor()).await?))
}

/// Revoke an access token
///
/// It is none any more at once, and streams that it opened end.
#[utoipa::path(delete, path = "/access/{name}", tag = "server", security(("bearer" = ["admin"])),
    params(("name" = AccessName, Path)), responses((status = 200, body = Vec<AccessView>), Problems))]
pub(super) async fn revoke(
    State(app): Served,
    Path(name): Path<AccessName>,
    who: Principal,
) -> Answer<Vec<AccessView>> {
    app.host.access_revoke(&name, who.actor()).await?;
    list(State(app)).await
}
