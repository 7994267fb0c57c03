//! OpenIDM's live sync and token calls, as people's scripts make them. Translates; decides nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Json;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::encoded;
use tidewaiter_core::run::{Outcome, Trigger};
use tidewaiter_core::state::Actor;
use tidewaiter_core::token::SyncToken;

use super::error::ApiError;
use crate::audit::Event;
use crate::db::ReadError;
use crate::host::ask::After;
use crate::host::view::TokenView;
use crate::host::{Host, HostError, NotTaken, Synced};
use crate::sink::render;

type Served = State<Arc<Host>>;
type Parameters = Result<Query<HashMap<String, String>>, QueryRejection>;
type Answer = Result<Json<Value>, ApiError>;

const STAGE: &str = "/repo/synchronisation/pooledSyncStage";

pub(super) fn routes() -> Router<Arc<Host>> {
    let document = get(token_get).put(token_put).delete(token_delete);
    Router::new()
        .route("/system", post(system))
        .route("/system/", post(system))
        .route("/system/{connection}", post(connection))
        .route("/system/{connection}/{type}", post(object_type))
        .route(STAGE, get(token_list))
        .route(&format!("{STAGE}/{{id}}"), document)
}

async fn system(host: Served, parameters: Parameters) -> Answer {
    let parameters = live_sync(parameters)?;
    let source =
        parameters.get("source").ok_or_else(|| ApiError::bad_request("liveSync needs the parameter source"))?;
    let path = source.trim_matches('/');
    let parts: Vec<&str> = path.strip_prefix("system/").unwrap_or(path).split('/').collect();
    match parts.as_slice() {
        [connection] => sync_all(&host, connection, is_detailed(&parameters)).await,
        [connection, object_type] => {
            sync(&host, &key(connection, object_type)?, is_detailed(&parameters)).await.map(Json)
        }
        _ => Err(ApiError::bad_request(format!("source {source:?} is not of the form system/CONNECTION/TYPE"))),
    }
}

async fn connection(host: Served, Path(name): Path<String>, parameters: Parameters) -> Answer {
    let parameters = live_sync(parameters)?;
    sync_all(&host, &name, is_detailed(&parameters)).await
}

async fn object_type(
    host: Served,
    Path((name, object_type)): Path<(String, String)>,
    parameters: Parameters,
) -> Answer {
    let parameters = live_sync(parameters)?;
    sync(&host, &key(&name, &object_type)?, is_detailed(&parameters)).await.map(Json)
}

/// Whether the delta is wanted beside what went wrong with it.
fn is_detailed(parameters: &HashMap<String, String>) -> bool {
    parameters.get("detailedFailure").is_some_and(|value| value == "true")
}

fn live_sync(parameters: Parameters) -> Result<HashMap<String, String>, ApiError> {
    let Query(parameters) = parameters.map_err(|error| ApiError::bad_request(error.body_text()))?;
    match parameters.get("_action").map(String::as_str) {
        Some("liveSync" | "activeSync") => Ok(parameters),
        Some(other) => Err(ApiError::bad_request(format!("there is no action {other:?} here; there is liveSync"))),
        None => Err(ApiError::bad_request("this needs the parameter _action")),
    }
}

fn key(connection: &str, object_type: &str) -> Result<TypeKey, ApiError> {
    let none = |_| ApiError::not_found(format!("there is no object type {connection}/{object_type}"));
    Ok(TypeKey { connection: connection.parse().map_err(none)?, object_type: object_type.parse().map_err(none)? })
}

/// All types of a connection, one after the other; the first that fails is the answer.
async fn sync_all(host: &Host, connection: &str, detailed: bool) -> Answer {
    let keys: Vec<TypeKey> = host.config().keys().filter(|key| key.connection.as_str() == connection).collect();
    if keys.is_empty() {
        return Err(ApiError::not_found(format!("there is no connection {connection}")));
    }
    let mut results = Vec::new();
    for key in &keys {
        results.push(sync(host, key, detailed).await?);
    }
    Ok(Json(json!({ "_id": format!("SYSTEM{}", connection.to_ascii_uppercase()), "result": results })))
}

/// One type. A record that could not be handed on is no failure: it is told under `lastException`.
async fn sync(host: &Host, key: &TypeKey, detailed: bool) -> Result<Value, ApiError> {
    let asked = Event::Act { by: Actor::Api.to_string(), act: "sync", on: key.to_string() };
    host.audit().note(&asked).map_err(HostError::from)?;
    let mut synced = host.sync_and_deliver(key.clone(), Trigger::Api).await?;
    let mut exception = last_exception(host, &synced, detailed).await?;
    while synced.report.outcome == Outcome::More {
        synced = host.sync_and_deliver(key.clone(), Trigger::Api).await?;
        if exception.is_none() {
            exception = last_exception(host, &synced, detailed).await?;
        }
    }
    match &synced.report.outcome {
        Outcome::Ok | Outcome::More => {
            let mut document = document(&host.token(key)?);
            if let Some(exception) = exception {
                document["lastException"] = exception;
            }
            Ok(document)
        }
        Outcome::Failed(failure) => Err(failure.into()),
        Outcome::WentBack(failure) => Err(ApiError::unavailable(format!(
            "{key}: the connector's new revision failed, and what ran before has not run yet: {failure}"
        ))),
        Outcome::Stopped => Err(ApiError::unavailable("the host is shutting down; the run ended at a checkpoint")),
        Outcome::Held(why) => Err(ApiError::unavailable(format!("{key}: {why}"))),
        Outcome::Guarded(why) => Err(ApiError::conflict(format!("{key} is held: {why}"))),
        Outcome::Superseded => Err(ApiError::conflict(format!(
            "{key}: somebody acted on the token, the guard or a dead letter during the run"
        ))),
    }
}

/// `{"throwable", "syncDelta"}` of the first entry that an inline sink failed to take, or else of the first dead letter; `syncDelta` is JSON in a
/// text, and only there if it is asked for.
async fn last_exception(host: &Host, synced: &Synced, detailed: bool) -> Result<Option<Value>, ApiError> {
    let (throwable, delta) = match &synced.undelivered {
        Some(NotTaken { sink, sequence, problem }) => {
            let entries = match host.changes(After::Sequence(sequence - 1), 1, Duration::ZERO).await {
                // Everybody else has it, and it was dropped.
                Err(HostError::Read(ReadError::Dropped { .. })) => Vec::new(),
                entries => entries?,
            };
            let sensitive = host.db().sensitive().map_err(HostError::from)?;
            let delta = entries.first().map(|entry| render::masked(entry, &sensitive));
            (format!("sink {sink}: {problem}"), delta)
        }
        None if synced.report.dead_letters == 0 => return Ok(None),
        None => {
            let of_run = host.dead_letters(Some(&synced.report.key.connection)).await?.into_iter();
            let mut faults = of_run.filter(|letter| letter.run == Some(synced.report.run) && letter.fault.is_some());
            let Some(letter) = faults.next() else { return Ok(None) };
            let number = letter.number;
            (letter.fault.unwrap_or_default(), host.dead_letter(number).await?.delta)
        }
    };
    let mut exception = json!({ "throwable": throwable });
    if let Some(delta) = delta.filter(|_| detailed) {
        exception["syncDelta"] = delta.to_string().into();
    }
    Ok(Some(exception))
}

/// `{"_id", "_rev", "connectorData": {"nativeType", "syncToken"}}`; both null where no token is held.
fn document(view: &TokenView) -> Value {
    let (native, token) = match &view.token {
        None => (Value::Null, Value::Null),
        Some(SyncToken::Integer(number)) => ("integer".into(), (*number).into()),
        Some(SyncToken::Text(text)) => ("string".into(), text.clone().into()),
        Some(SyncToken::Binary(bytes)) => ("JAVA_TYPE_BYTE_ARRAY".into(), encoded::to_text(bytes).into()),
    };
    let data = json!({ "nativeType": native, "syncToken": token });
    json!({ "_rev": view.revision.to_string(), "_id": view.openidm_id, "connectorData": data })
}

/// There is a document where there is a token, usable or not.
fn exists(view: &TokenView) -> bool {
    view.token.is_some() || view.state == "token-lost"
}

async fn token_list(host: Served, parameters: Parameters) -> Answer {
    let Query(parameters) = parameters.map_err(|error| ApiError::bad_request(error.body_text()))?;
    if parameters.get("_queryFilter").map(String::as_str) != Some("true") {
        return Err(ApiError::bad_request("the only query here is _queryFilter=true"));
    }
    let fields = parameters.get("_fields").filter(|fields| !fields.is_empty());
    let shown = |view: &TokenView| fields.map_or_else(|| document(view), |fields| selected(document(view), fields));
    let result: Vec<Value> = host.tokens()?.iter().filter(|view| exists(view)).map(shown).collect();
    Ok(Json(json!({
        "result": result, "resultCount": result.len(), "pagedResultsCookie": null, "totalPagedResultsPolicy": "NONE",
        "totalPagedResults": -1, "remainingPagedResults": -1
    })))
}

/// `_id` and `_rev` are always there, as in OpenIDM.
fn selected(document: Value, fields: &str) -> Value {
    let Value::Object(members) = document else { return document };
    let wanted = |name: &str| matches!(name, "_id" | "_rev") || fields.split(',').any(|field| field.trim() == name);
    members.into_iter().filter(|(name, _)| wanted(name)).collect()
}

/// OpenIDM's id leads to a type: `SYSTEMHRACCOUNT`, also in small letters and without `SYSTEM`.
fn by_id(host: &Host, id: &str) -> Result<TypeKey, ApiError> {
    let asked = id.to_ascii_uppercase();
    let found = host.config().keys().find(|key| key.openidm_id() == asked);
    found.ok_or_else(|| ApiError::not_found(format!("there is no object type with the id {id}")))
}

async fn token_get(host: Served, Path(id): Path<String>) -> Answer {
    let view = host.token(&by_id(&host, &id)?)?;
    match exists(&view) {
        true => Ok(Json(document(&view))),
        false => Err(no_document(&id)),
    }
}

fn no_document(id: &str) -> ApiError {
    ApiError::not_found(format!("no sync token is held for {id}"))
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "connectorData")]
    data: ConnectorData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnectorData {
    sync_token: Value,
    native_type: Option<String>,
}

async fn token_put(
    host: Served,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let key = by_id(&host, &id)?;
    let body = body.map_err(|error| ApiError::of(error.status(), error.body_text()))?;
    let written: Document = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("not a token's document: {error}")))?;
    let token = token(written.data).map_err(ApiError::bad_request)?;
    let before = host.token(&key)?;
    let expected = expected(&headers, &before)?;
    let view = host.token_set(&key, token, expected, Actor::Api).await?;
    let status = if exists(&before) { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(document(&view))))
}

fn token(data: ConnectorData) -> Result<SyncToken, String> {
    match (data.native_type.as_deref(), data.sync_token) {
        (None | Some("integer" | "JAVA_TYPE_LONG"), Value::Number(number)) => {
            let whole =
                number.as_i64().ok_or_else(|| format!("syncToken {number} is not a whole number of 64 bits"))?;
            Ok(SyncToken::Integer(whole))
        }
        (None | Some("string"), Value::String(text)) => Ok(SyncToken::Text(text)),
        (Some("JAVA_TYPE_BYTE_ARRAY"), Value::String(text)) => {
            encoded::from_text(&text).map(SyncToken::Binary).ok_or_else(|| "syncToken is not base64".to_owned())
        }
        (Some(native @ ("integer" | "JAVA_TYPE_LONG" | "string" | "JAVA_TYPE_BYTE_ARRAY")), _) => {
            Err(format!("syncToken is not of the nativeType {native}"))
        }
        (Some(other), _) => {
            Err(format!("there is no nativeType {other:?}; there are integer, string and JAVA_TYPE_BYTE_ARRAY"))
        }
        (None, _) => Err("syncToken is neither a number nor a text".to_owned()),
    }
}

async fn token_delete(host: Served, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let key = by_id(&host, &id)?;
    let before = host.token(&key)?;
    if !exists(&before) {
        return Err(no_document(&id));
    }
    let expected = expected(&headers, &before)?;
    Ok(Json(document(&host.token_reset(&key, expected, Actor::Api).await?)))
}

/// The revision that a script insists on, if it does: `If-Match` with one, or `*` for any, `If-None-Match: *` for none.
fn expected(headers: &HeaderMap, now: &TokenView) -> Result<Option<u64>, ApiError> {
    let text =
        |name| headers.get(name).and_then(|value| value.to_str().ok()).map(|value| value.trim().trim_matches('"'));
    if text(header::IF_NONE_MATCH) == Some("*") {
        return match exists(now) {
            true => Err(ApiError::changed(format!("{} is there already", now.openidm_id))),
            false => Ok(Some(now.revision)),
        };
    }
    match text(header::IF_MATCH) {
        None => Ok(None),
        Some("*") if exists(now) => Ok(None),
        Some(revision) => match revision.parse() {
            Ok(revision) if exists(now) => Ok(Some(revision)),
            _ => Err(ApiError::changed(format!("If-Match {revision}, but the revision is {}", now.revision))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<SyncToken, String> {
        token(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn tokens_keep_their_type_on_the_way_in() {
        assert_eq!(parsed(r#"{"syncToken":15000,"nativeType":"integer"}"#), Ok(SyncToken::Integer(15000)));
        assert_eq!(parsed(r#"{"syncToken":15000,"nativeType":"JAVA_TYPE_LONG"}"#), Ok(SyncToken::Integer(15000)));
        assert_eq!(parsed(r#"{"syncToken":"15000"}"#), Ok(SyncToken::Text("15000".into())));
        let binary = parsed(r#"{"syncToken":"AP8=","nativeType":"JAVA_TYPE_BYTE_ARRAY"}"#);
        assert_eq!(binary, Ok(SyncToken::Binary(vec![0, 255])));
        for bad in [
            r#"{"syncToken":1.5}"#,
            r#"{"syncToken":null}"#,
            r#"{"syncToken":"1","nativeType":"integer"}"#,
            r#"{"syncToken":"=","nativeType":"JAVA_TYPE_BYTE_ARRAY"}"#,
            r#"{"syncToken":1,"nativeType":"float"}"#,
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
