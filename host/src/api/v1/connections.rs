//! Connections.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tidewaiter_core::name::ConnectionName;
use utoipa::ToSchema;

use super::operations::{Waiting, follow};
use super::{Answer, Served, marked};
use crate::api::error::{ApiError, Problems};
use crate::api::extract::{self, Expected, Path, Principal, Query};
use crate::api::operation::{Operation, Order, brought_up};
use crate::audit::Event;
use crate::config::Documents;
use crate::host::ask::{Answer as Answered, Ask};
use crate::host::view::{ConnectionView, TokenView, TypeView};
use crate::host::{Apply, Finding, HostError, Reloaded, TypesOf};

/// A connection as it is written: with the keys of `connections/NAME.toml` and `grants/NAME.toml`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Written {
    /// The connection.
    #[schema(value_type = Object)]
    connection: Map<String, Json>,
    /// What it may reach; nothing where this is left out.
    #[serde(default)]
    #[schema(value_type = Object)]
    grants: Map<String, Json>,
}

/// What awaits approval, as it was shown.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Approval {
    /// The id beside it.
    pub(super) id: String,
}

/// An object.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Object {
    /// Its uid.
    uid: String,
}

/// What became of what was known of an object.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Erased {
    /// So many entries say nothing any more.
    entries: u64,
}

/// All connections
///
/// Each object type of each, its state and its last run.
#[utoipa::path(get, path = "/connections", tag = "connections", security(("bearer" = ["read"])),
    responses((status = 200, body = Vec<TypeView>), Problems))]
pub(super) async fn list(State(app): Served) -> Answer<Vec<TypeView>> {
    Ok(axum::Json(app.host.types(None)?))
}

/// A connection
///
/// Its settings, grants, limits, types and last runs.
#[utoipa::path(get, path = "/connections/{connection}", tag = "connections", security(("bearer" = ["read"])),
    params(("connection" = ConnectionName, Path)), responses((status = 200, body = ConnectionView), Problems))]
pub(super) async fn get(State(app): Served, Path(name): Path<ConnectionName>) -> Answer<ConnectionView> {
    Ok(axum::Json(app.host.connection(&name)?))
}

/// A connection as it is written
///
/// It may have secrets in it, where somebody wrote them there instead of naming a file. Its ETag is for `If-Match`.
#[utoipa::path(get, path = "/connections/{connection}/document", tag = "connections", security(("bearer" = ["admin"])),
    params(("connection" = ConnectionName, Path)), responses((status = 200, body = Written, headers(("etag" = String))), Problems))]
pub(super) async fn document(
    State(app): Served,
    Path(name): Path<ConnectionName>,
    who: Principal,
) -> Result<Response, ApiError> {
    let documents = documents(&app.host).await?;
    let mark = documents.mark(&name).ok_or_else(|| HostError::UnknownConnection(name.clone()))?;
    let table = |text: Option<&String>| {
        let text = text.map_or("", String::as_str);
        toml::from_str(text).map_err(|error| ApiError::of(StatusCode::INTERNAL_SERVER_ERROR, "host", error.to_string()))
    };
    let written =
        Written { connection: table(documents.connections.get(&name))?, grants: table(documents.grants.get(&name))? };
    let read = Event::Act { by: who.actor().to_string(), act: "connections document", on: name.to_string() };
    app.host.audit().note(&read).map_err(HostError::from)?;
    Ok(marked(&mark, written))
}

/// Make or change a connection
///
/// Only where `config.source` is `"api"`; else whoever writes the files says which connections there are. All of it counts, or nothing does.
#[utoipa::path(put, path = "/connections/{connection}/document", tag = "connections", security(("bearer" = ["admin"])),
    params(("connection" = ConnectionName, Path), ("if-match" = Option<String>, Header, description = "Only what has this mark is changed; `*`: only what is there"),
        ("if-none-match" = Option<String>, Header, description = "`*`: only what isn't there is made")),
    request_body = Written, responses((status = 200, body = Reloaded), Problems))]
pub(super) async fn put(
    State(app): Served,
    Path(name): Path<ConnectionName>,
    who: Principal,
    headers: HeaderMap,
    extract::Json(written): extract::Json<Written>,
) -> Answer<Reloaded> {
    let text = |table: &Map<String, Json>, what: &str| {
        toml::to_string(table).map_err(|error| ApiError::bad_request(format!("{what}: {error}")))
    };
    let mut documents = Documents::default();
    documents.connections.insert(name.clone(), text(&written.connection, "connection")?);
    if !written.grants.is_empty() {
        documents.grants.insert(name.clone(), text(&written.grants, "grants")?);
    }
    let apply = Apply { documents, seen: seen(&app.host, &name, &headers).await?, ..Apply::default() };
    Ok(axum::Json(app.host.apply(apply, who.actor()).await?))
}

/// Remove a connection
///
/// Its tokens and entries stay, and count again if it comes back. As `put`, only where `config.source` is `"api"`.
#[utoipa::path(delete, path = "/connections/{connection}/document", tag = "connections", security(("bearer" = ["admin"])),
    params(("connection" = ConnectionName, Path), ("if-match" = Option<String>, Header, description = "Only what has this mark is removed")),
    responses((status = 200, body = Reloaded), Problems))]
pub(super) async fn delete(
    State(app): Served,
    Path(name): Path<ConnectionName>,
    who: Principal,
    headers: HeaderMap,
) -> Answer<Reloaded> {
    if !app.host.config().connections.contains_key(&name) {
        return Err(HostError::UnknownConnection(name).into());
    }
    let seen = seen(&app.host, &name, &headers).await?;
    let apply = Apply { without: BTreeSet::from([name]), seen, ..Apply::default() };
    Ok(axum::Json(app.host.apply(apply, who.actor()).await?))
}

async fn documents(host: &crate::host::Host) -> Result<Documents, ApiError> {
    let config = host.config();
    let read = tokio::task::spawn_blocking(move || Documents::of(&config)).await.map_err(HostError::from)?;
    read.map_err(|error| ApiError::of(StatusCode::INTERNAL_SERVER_ERROR, "configuration", error.to_string()))
}

/// What the request insists on of a connection, in the host's words.
async fn seen(
    host: &crate::host::Host,
    name: &ConnectionName,
    headers: &HeaderMap,
) -> Result<BTreeMap<ConnectionName, Option<String>>, ApiError> {
    let now = || async { Ok::<_, ApiError>(documents(host).await?.mark(name)) };
    let mark = match Expected::of(headers)? {
        Expected::Anything => return Ok(BTreeMap::new()),
        Expected::Nothing => None,
        Expected::Something => match now().await? {
            None => return Err(ApiError::changed(format!("there is no connection {name}"))),
            now => now,
        },
        Expected::This(mark) => Some(mark),
    };
    Ok(BTreeMap::from([(name.clone(), mark)]))
}

/// Pause a connection
///
/// What is under way of it ends, and no run of any of its types begins until it is resumed.
#[utoipa::path(post, path = "/connections/{connection}/pause", tag = "connections", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path)), responses((status = 200, body = Vec<TokenView>), Problems))]
pub(super) async fn pause(
    State(app): Served,
    Path(connection): Path<ConnectionName>,
    who: Principal,
) -> Answer<Vec<TokenView>> {
    let of = TypesOf { connection, object_type: None };
    Ok(axum::Json(app.host.pause(&of, who.actor()).await?))
}

/// Let a connection that is paused go on
#[utoipa::path(post, path = "/connections/{connection}/resume", tag = "connections", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path)), responses((status = 200, body = Vec<TokenView>), Problems))]
pub(super) async fn resume(
    State(app): Served,
    Path(connection): Path<ConnectionName>,
    who: Principal,
) -> Answer<Vec<TokenView>> {
    let of = TypesOf { connection, object_type: None };
    Ok(axum::Json(app.host.resume(&of, who.actor()).await?))
}

/// Bring a connection up
///
/// Establishes the token of each type that has none, then reads all objects and journals what differs, then goes on from the token.
#[utoipa::path(post, path = "/connections/{connection}/bring-up", tag = "connections", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), Waiting), responses((status = 200, body = Operation), (status = 202, body = Operation, headers(("location" = String))), Problems))]
pub(super) async fn bring_up(
    State(app): Served,
    Path(connection): Path<ConnectionName>,
    Query(waiting): Query<Waiting>,
    who: Principal,
) -> Result<Response, ApiError> {
    if !app.host.config().connections.contains_key(&connection) {
        return Err(HostError::UnknownConnection(connection).into());
    }
    let by = who.actor();
    let order = Order { action: "bring-up", connection: connection.clone(), object_type: None, by: by.to_string() };
    let host = app.host.clone();
    follow(&app, order, &waiting, async move { brought_up(host.bring_up(&connection, by).await) }).await
}

/// Look whether a connection can do its work
///
/// Its grants, its secrets, and with those, its source. What it lacks is no failure of this request: see `problems`.
#[utoipa::path(post, path = "/connections/{connection}/check", tag = "connections", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path)), responses((status = 200, body = Finding), Problems))]
pub(super) async fn check(State(app): Served, Path(name): Path<ConnectionName>, who: Principal) -> Answer<Finding> {
    Ok(axum::Json(app.host.check(&name, &who.actor()).await?))
}

/// Let a connector ask for what awaits approval, in one connection
#[utoipa::path(post, path = "/connections/{connection}/approve", tag = "connections", security(("bearer" = ["security"])),
    request_body = Approval, params(("connection" = ConnectionName, Path)), responses((status = 200, body = ConnectionView), Problems))]
pub(super) async fn approve(
    State(app): Served,
    Path(name): Path<ConnectionName>,
    who: Principal,
    extract::Json(approval): extract::Json<Approval>,
) -> Answer<ConnectionView> {
    app.host.approve(&name, &approval.id, who.actor()).await?;
    Ok(axum::Json(app.host.connection(&name)?))
}

/// Erase what is known of an object
///
/// The journal and the logs of runs say nothing of it any more. Its source still has it: remove it there first.
#[utoipa::path(post, path = "/connections/{connection}/erase", tag = "connections", security(("bearer" = ["admin"])),
    request_body = Object, params(("connection" = ConnectionName, Path)), responses((status = 200, body = Erased), Problems))]
pub(super) async fn erase(
    State(app): Served,
    Path(connection): Path<ConnectionName>,
    who: Principal,
    extract::Json(object): extract::Json<Object>,
) -> Result<Response, ApiError> {
    let ask = Ask::Erase { connection, uid: object.uid };
    match Box::pin(app.host.answer(ask, who.actor())).await? {
        Answered::Erased(entries) => Ok(axum::Json(Erased { entries }).into_response()),
        _ => Err(ApiError::of(StatusCode::INTERNAL_SERVER_ERROR, "host", "an answer to another question")),
    }
}
