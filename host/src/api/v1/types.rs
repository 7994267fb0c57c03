//! Object types: live sync, tokens, reconciliation, the guard.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use tidewaiter_core::name::{ConnectionName, TypeName};
use tidewaiter_core::token::SyncToken;
use utoipa::{IntoParams, ToSchema};

use super::operations::{Waiting, follow};
use super::{Answer, Served, key, marked, rows};
use crate::api::error::{ApiError, Problems};
use crate::api::extract::{self, Expected, Path, Principal, Query};
use crate::api::operation::{self, Operation, Order, reconciled};
use crate::audit::Event;
use crate::db::TokenChange;
use crate::driver::Progress;
use crate::host::view::{TokenView, TypeView};
use crate::host::{HostError, Scope, TypesOf};

type Names = (ConnectionName, TypeName);

/// A sync token to be set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewToken {
    /// With its type, as in `{"integer": 44002}`, `{"text": "…"}`, `{"binary": "base64"}`.
    token: SyncToken,
}

/// Where a sync token goes back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Rewind {
    /// The revision of a row of its history; left out: the newest one with another token.
    to: Option<u64>,
}

/// How much of the history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Rows {
    /// Rows at most, 1 to 1,000; left out: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// The types of a connection
#[utoipa::path(get, path = "/connections/{connection}/types", tag = "types", security(("bearer" = ["read"])),
    params(("connection" = ConnectionName, Path)), responses((status = 200, body = Vec<TypeView>), Problems))]
pub(super) async fn list(State(app): Served, Path(name): Path<ConnectionName>) -> Answer<Vec<TypeView>> {
    if !app.host.config().connections.contains_key(&name) {
        return Err(HostError::UnknownConnection(name).into());
    }
    Ok(axum::Json(app.host.types(Some(&name))?))
}

/// An object type
#[utoipa::path(get, path = "/connections/{connection}/types/{type}", tag = "types", security(("bearer" = ["read"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path)), responses((status = 200, body = TypeView), Problems))]
pub(super) async fn get(State(app): Served, Path(names): Path<Names>) -> Answer<TypeView> {
    let key = key(names);
    app.host.token(&key)?;
    let found = app.host.types(Some(&key.connection))?.into_iter().find(|view| view.token.key == key);
    found.map(axum::Json).ok_or_else(|| ApiError::not_found(format!("there is no object type {key}")))
}

/// Run live sync now
///
/// During a run this is the one follow-up that all who ask share. Answers when the run has ended and every inline sink has its entries.
#[utoipa::path(post, path = "/connections/{connection}/types/{type}/sync", tag = "types", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path), Waiting), responses((status = 200, body = Operation), (status = 202, body = Operation, headers(("location" = String))), Problems))]
pub(super) async fn sync(
    State(app): Served,
    Path(names): Path<Names>,
    Query(waiting): Query<Waiting>,
    who: Principal,
) -> Result<Response, ApiError> {
    let (key, by) = (key(names), who.actor().to_string());
    app.host.token(&key)?;
    let asked = Event::Act { by: by.clone(), act: "sync", on: key.to_string() };
    app.host.audit().note(&asked).map_err(HostError::from)?;
    let (connection, object_type) = (key.connection.clone(), Some(key.object_type.clone()));
    let order = Order { action: "sync", connection, object_type, by };
    follow(&app, order, &waiting, operation::sync(app.host.clone(), key)).await
}

/// Pause an object type
#[utoipa::path(post, path = "/connections/{connection}/types/{type}/pause", tag = "types", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path)), responses((status = 200, body = Vec<TokenView>), Problems))]
pub(super) async fn pause(
    State(app): Served,
    Path((connection, object_type)): Path<Names>,
    who: Principal,
) -> Answer<Vec<TokenView>> {
    let of = TypesOf { connection, object_type: Some(object_type) };
    Ok(axum::Json(app.host.pause(&of, who.actor()).await?))
}

/// Let an object type that is paused go on
#[utoipa::path(post, path = "/connections/{connection}/types/{type}/resume", tag = "types", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path)), responses((status = 200, body = Vec<TokenView>), Problems))]
pub(super) async fn resume(
    State(app): Served,
    Path((connection, object_type)): Path<Names>,
    who: Principal,
) -> Answer<Vec<TokenView>> {
    let of = TypesOf { connection, object_type: Some(object_type) };
    Ok(axum::Json(app.host.resume(&of, who.actor()).await?))
}

/// The sync token of a type
///
/// Its ETag is the revision of the state, for `If-Match`.
#[utoipa::path(get, path = "/connections/{connection}/types/{type}/token", tag = "types", security(("bearer" = ["read"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path)), responses((status = 200, body = TokenView, headers(("etag" = String))), Problems))]
pub(super) async fn token_get(State(app): Served, Path(names): Path<Names>) -> Result<Response, ApiError> {
    Ok(shown(&app.host.token(&key(names))?))
}

/// Set the sync token of a type
///
/// The next run goes on from it. Wins over a run under way, and the journal gets a marker.
#[utoipa::path(put, path = "/connections/{connection}/types/{type}/token", tag = "types", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path), ("if-match" = Option<String>, Header, description = "Only if the state has this revision")),
    request_body = NewToken, responses((status = 200, body = TokenView, headers(("etag" = String))), Problems))]
pub(super) async fn token_set(
    State(app): Served,
    Path(names): Path<Names>,
    who: Principal,
    headers: HeaderMap,
    extract::Json(new): extract::Json<NewToken>,
) -> Result<Response, ApiError> {
    let key = key(names);
    let expected = expected(&headers, &app.host.token(&key)?)?;
    Ok(shown(&app.host.token_set(&key, new.token, expected, who.actor()).await?))
}

/// Reset the sync token of a type
///
/// The next run asks the connector where its source is now, and brings nothing of what came before. Answers what was.
#[utoipa::path(delete, path = "/connections/{connection}/types/{type}/token", tag = "types", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path), ("if-match" = Option<String>, Header, description = "Only if the state has this revision")),
    responses((status = 200, body = TokenView), Problems))]
pub(super) async fn token_reset(
    State(app): Served,
    Path(names): Path<Names>,
    who: Principal,
    headers: HeaderMap,
) -> Answer<TokenView> {
    let key = key(names);
    let expected = expected(&headers, &app.host.token(&key)?)?;
    Ok(axum::Json(app.host.token_reset(&key, expected, who.actor()).await?))
}

/// Take the sync token of a type back
///
/// What came after it comes again.
#[utoipa::path(post, path = "/connections/{connection}/types/{type}/token/rewind", tag = "types", security(("bearer" = ["operate"])),
    request_body = Rewind, params(("connection" = ConnectionName, Path), ("type" = TypeName, Path)), responses((status = 200, body = TokenView, headers(("etag" = String))), Problems))]
pub(super) async fn token_rewind(
    State(app): Served,
    Path(names): Path<Names>,
    who: Principal,
    extract::Json(rewind): extract::Json<Rewind>,
) -> Result<Response, ApiError> {
    Ok(shown(&app.host.token_rewind(&key(names), rewind.to, who.actor()).await?))
}

/// What became of the sync token of a type, newest first
#[utoipa::path(get, path = "/connections/{connection}/types/{type}/token/history", tag = "types", security(("bearer" = ["read"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path), Rows), responses((status = 200, body = Vec<TokenChange>), Problems))]
pub(super) async fn token_history(
    State(app): Served,
    Path(names): Path<Names>,
    Query(query): Query<Rows>,
) -> Answer<Vec<TokenChange>> {
    Ok(axum::Json(app.host.token_history(&key(names), rows(query.limit)?)?))
}

/// Read objects as they are now, and journal what differs
#[utoipa::path(post, path = "/connections/{connection}/types/{type}/reconcile", tag = "types", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path), Waiting), request_body = Scope,
    responses((status = 200, body = Operation), (status = 202, body = Operation, headers(("location" = String))), Problems))]
pub(super) async fn reconcile(
    State(app): Served,
    Path(names): Path<Names>,
    Query(waiting): Query<Waiting>,
    who: Principal,
    extract::Json(scope): extract::Json<Scope>,
) -> Result<Response, ApiError> {
    let (key, by) = (key(names), who.actor());
    app.host.token(&key)?;
    let (order, host) = (Order::reconcile(&key, &scope, &by), app.host.clone());
    follow(&app, order, &waiting, async move { reconciled(host.reconcile(&key, scope, by).await) }).await
}

/// How far the pass over a type is
///
/// Null: there is none.
#[utoipa::path(get, path = "/connections/{connection}/types/{type}/pass", tag = "types", security(("bearer" = ["read"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path)), responses((status = 200, body = Option<Progress>), Problems))]
pub(super) async fn pass(State(app): Served, Path(names): Path<Names>) -> Answer<Option<Progress>> {
    let key = key(names);
    app.host.token(&key)?;
    Ok(axum::Json(app.host.pass(&key)))
}

/// Cancel the pass over a type
///
/// It ends before its next page. What it journaled stays.
#[utoipa::path(delete, path = "/connections/{connection}/types/{type}/pass", tag = "types", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path)), responses((status = 200, body = Progress), Problems))]
pub(super) async fn cancel_pass(State(app): Served, Path(names): Path<Names>, who: Principal) -> Answer<Progress> {
    let key = key(names);
    app.host.token(&key)?;
    Ok(axum::Json(app.host.cancel_pass(&key, &who.actor()).await?))
}

/// Let what the guard of a type held pass
#[utoipa::path(post, path = "/connections/{connection}/types/{type}/guard/release", tag = "types", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path)), responses((status = 200, body = TokenView), Problems))]
pub(super) async fn release(State(app): Served, Path(names): Path<Names>, who: Principal) -> Answer<TokenView> {
    Ok(axum::Json(app.host.release(&key(names), who.actor()).await?))
}

/// Throw away what the guard of a type held, and the sync token with it
///
/// Answers what was.
#[utoipa::path(post, path = "/connections/{connection}/types/{type}/guard/discard", tag = "types", security(("bearer" = ["operate"])),
    params(("connection" = ConnectionName, Path), ("type" = TypeName, Path)), responses((status = 200, body = TokenView), Problems))]
pub(super) async fn discard(State(app): Served, Path(names): Path<Names>, who: Principal) -> Answer<TokenView> {
    Ok(axum::Json(app.host.discard(&key(names), who.actor()).await?))
}

fn shown(view: &TokenView) -> Response {
    marked(&view.revision.to_string(), view)
}

/// The revision that a request insists on, if it does.
fn expected(headers: &HeaderMap, now: &TokenView) -> Result<Option<u64>, ApiError> {
    let other = |what: &str| {
        ApiError::changed(format!("{}: {what} is asked for, and the revision is {}", now.key, now.revision))
    };
    match Expected::of(headers)? {
        Expected::Anything => Ok(None),
        Expected::Something if now.revision > 0 => Ok(None),
        Expected::Something => Err(other("something that is there")),
        Expected::Nothing if now.revision == 0 => Ok(Some(0)),
        Expected::Nothing => Err(other("nothing that is there")),
        Expected::This(mark) => mark.parse().map(Some).map_err(|_| other(&format!("revision {mark:?}"))),
    }
}
