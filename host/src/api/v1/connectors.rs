//! Files of connectors: which there are, which run, and who decides it.

use axum::extract::State;
use serde::Deserialize;
use tidewaiter_core::name::ConnectorName;
use utoipa::ToSchema;

use super::connections::Approval;
use super::{Answer, Served};
use crate::api::error::{ApiError, Problems};
use crate::api::extract::{self, Path, Principal};
use crate::host::view::ConnectorView;
use crate::host::{HostError, RevisionRow};
use crate::trust::Lock;

/// Which file.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct To {
    /// Its hash begins so; left out: the one before.
    to: Option<String>,
}

/// Whether an older file is meant, too.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::api) struct Downgrade {
    /// Also where it is older than what runs, or than what is pinned.
    #[serde(default)]
    allow_downgrade: bool,
}

/// Why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Why {
    /// For people.
    why: Option<String>,
}

/// Files of connectors.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Files {
    /// Their hashes, 64 hexadecimal digits each.
    #[schema(min_items = 1)]
    files: Vec<String>,
    /// For people.
    why: Option<String>,
    /// Deny them no more.
    #[serde(default)]
    lift: bool,
}

/// Connectors: those that connections name, and those of which files were met
#[utoipa::path(get, path = "/connectors", tag = "connectors", security(("bearer" = ["read"])),
    responses((status = 200, body = Vec<ConnectorView>), Problems))]
pub(super) async fn list(State(app): Served) -> Answer<Vec<ConnectorView>> {
    Ok(axum::Json(app.host.connectors()?))
}

/// The files of a connector that were met, newest first, and who runs each
#[utoipa::path(get, path = "/connectors/{connector}/revisions", tag = "connectors", security(("bearer" = ["read"])),
    params(("connector" = ConnectorName, Path)), responses((status = 200, body = Vec<RevisionRow>), Problems))]
pub(super) async fn revisions(State(app): Served, Path(name): Path<ConnectorName>) -> Answer<Vec<RevisionRow>> {
    Ok(axum::Json(app.host.revisions(&name)?))
}

/// Let connections run another file of their connector that was kept
#[utoipa::path(post, path = "/connectors/{connector}/rollback", tag = "connectors", security(("bearer" = ["operate"])),
    request_body = To, params(("connector" = ConnectorName, Path)), responses((status = 200, body = Vec<RevisionRow>), Problems))]
pub(super) async fn roll_back(
    State(app): Served,
    Path(name): Path<ConnectorName>,
    who: Principal,
    extract::Json(to): extract::Json<To>,
) -> Answer<Vec<RevisionRow>> {
    app.host.roll_back(name.clone(), to.to, who.actor()).await?;
    Ok(axum::Json(app.host.revisions(&name)?))
}

/// Let connections run the file that they went back from
///
/// `allow-downgrade` is for the role `security`.
#[utoipa::path(post, path = "/connectors/{connector}/retry", tag = "connectors", security(("bearer" = ["operate"])),
    request_body = Downgrade, params(("connector" = ConnectorName, Path)), responses((status = 200, body = Vec<RevisionRow>), Problems))]
pub(super) async fn retry(
    State(app): Served,
    Path(name): Path<ConnectorName>,
    who: Principal,
    extract::Json(downgrade): extract::Json<Downgrade>,
) -> Answer<Vec<RevisionRow>> {
    app.host.try_again(name.clone(), downgrade.allow_downgrade, who.actor()).await?;
    Ok(axum::Json(app.host.revisions(&name)?))
}

/// Let a connector ask for what awaits approval, in all its connections where it is that
#[utoipa::path(post, path = "/connectors/{connector}/approve", tag = "connectors", security(("bearer" = ["security"])),
    request_body = Approval, params(("connector" = ConnectorName, Path)), responses((status = 200, body = Vec<RevisionRow>), Problems))]
pub(super) async fn approve(
    State(app): Served,
    Path(name): Path<ConnectorName>,
    who: Principal,
    extract::Json(approval): extract::Json<Approval>,
) -> Answer<Vec<RevisionRow>> {
    app.host.approve_all(&name, &approval.id, who.actor()).await?;
    Ok(axum::Json(app.host.revisions(&name)?))
}

/// Pin the file of a connector that the folder has
#[utoipa::path(post, path = "/connectors/{connector}/pin", tag = "connectors", security(("bearer" = ["security"])),
    request_body = Downgrade, params(("connector" = ConnectorName, Path)), responses((status = 200, body = Lock), Problems))]
pub(super) async fn pin(
    State(app): Served,
    Path(name): Path<ConnectorName>,
    who: Principal,
    extract::Json(downgrade): extract::Json<Downgrade>,
) -> Answer<Lock> {
    Ok(axum::Json(app.host.pin(name, downgrade.allow_downgrade, who.actor()).await?))
}

/// Put a connector in quarantine
///
/// What is under way of it ends now, and nobody runs any file of it before that ends.
#[utoipa::path(put, path = "/connectors/{connector}/quarantine", tag = "connectors", security(("bearer" = ["security"])),
    request_body = Why, params(("connector" = ConnectorName, Path)), responses((status = 200, body = Lock), Problems))]
pub(super) async fn quarantine(
    State(app): Served,
    Path(name): Path<ConnectorName>,
    who: Principal,
    extract::Json(why): extract::Json<Why>,
) -> Answer<Lock> {
    Ok(axum::Json(app.host.quarantine(name, why.why, false, who.actor()).await?))
}

/// Let a connector out of quarantine
#[utoipa::path(delete, path = "/connectors/{connector}/quarantine", tag = "connectors", security(("bearer" = ["security"])),
    params(("connector" = ConnectorName, Path)), responses((status = 200, body = Lock), Problems))]
pub(super) async fn end_quarantine(
    State(app): Served,
    Path(name): Path<ConnectorName>,
    who: Principal,
) -> Answer<Lock> {
    Ok(axum::Json(app.host.quarantine(name, None, true, who.actor()).await?))
}

/// Deny files of connectors, or lift that
///
/// What is under way of them ends now.
#[utoipa::path(post, path = "/connectors/deny", tag = "connectors", security(("bearer" = ["security"])),
    request_body = Files, responses((status = 200, body = Lock), Problems))]
pub(super) async fn deny(
    State(app): Served,
    who: Principal,
    extract::Json(files): extract::Json<Files>,
) -> Answer<Lock> {
    let Files { files, why, lift } = files;
    let is_hash =
        |file: &String| file.len() == 64 && file.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if files.is_empty() || !files.iter().all(is_hash) {
        return Err(ApiError::bad_request("files are named by their hashes: 64 digits each, of 0 to 9 and a to f"));
    }
    Ok(axum::Json(app.host.deny(files, why, lift, who.actor()).await?))
}

/// Which files connectors may be: what is pinned, denied, and in quarantine
#[utoipa::path(get, path = "/connectors/lock", tag = "connectors", security(("bearer" = ["read"])),
    responses((status = 200, body = Lock), Problems))]
pub(super) async fn lock(State(app): Served) -> Answer<Lock> {
    Ok(axum::Json(Lock::read(&app.host.config().connector_trust.lock).map_err(HostError::from)?))
}
