//! The documents of sync tokens, where OpenIDM keeps them.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Json;
use serde::Deserialize;
use serde_json::{Value, json};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::encoded;
use tidewaiter_core::token::SyncToken;
use utoipa::ToSchema;

use super::{Answer, Given, Served};
use crate::api::error::ApiError;
use crate::api::extract::{Expected, Path, Principal};
use crate::host::Host;
use crate::host::view::TokenView;

/// `{"_id", "_rev", "connectorData": {"nativeType", "syncToken"}}`; both null where no token is held.
pub(super) fn document(view: &TokenView) -> Value {
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

/// Sync tokens that are held
#[utoipa::path(get, path = "/repo/synchronisation/pooledSyncStage", tag = "OpenIDM", security(("bearer" = ["read"])),
    params(("_queryFilter" = Option<String>, Query, description = "`true`"), ("_queryId" = Option<String>, Query, description = "`query-all-ids`"), ("_fields" = Option<String>, Query, description = "As in `_id`")),
    responses((status = 200, body = Object), (status = "default", body = super::Refused)))]
pub(super) async fn list(State(app): Served, Given(parameters): Given) -> Answer {
    let host = &app.host;
    let asked = |name: &str| parameters.get(name).map(String::as_str);
    let fields = match (asked("_queryFilter"), asked("_queryId")) {
        (Some("true"), _) => asked("_fields").filter(|fields| !fields.is_empty()),
        (None, Some("query-all-ids")) => Some("_id"),
        _ => return Err(ApiError::bad_request("the queries here are _queryFilter=true and _queryId=query-all-ids")),
    };
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

/// A sync token
#[utoipa::path(get, path = "/repo/synchronisation/pooledSyncStage/{id}", tag = "OpenIDM", security(("bearer" = ["read"])),
    responses((status = 200, body = Object), (status = "default", body = super::Refused)))]
pub(super) async fn get(State(app): Served, Path(id): Path<String>) -> Answer {
    let view = app.host.token(&by_id(&app.host, &id)?)?;
    match exists(&view) {
        true => Ok(Json(document(&view))),
        false => Err(no_document(&id)),
    }
}

fn no_document(id: &str) -> ApiError {
    ApiError::not_found(format!("no sync token is held for {id}"))
}

#[derive(Deserialize, ToSchema)]
pub(super) struct Document {
    #[serde(rename = "connectorData")]
    data: ConnectorData,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectorData {
    sync_token: Value,
    native_type: Option<String>,
}

/// Set a sync token
#[utoipa::path(put, path = "/repo/synchronisation/pooledSyncStage/{id}", tag = "OpenIDM", security(("bearer" = ["operate"])),
    params(("if-match" = Option<String>, Header, description = "Its `_rev`, or `*`")), request_body = Document,
    responses((status = 200, body = Object), (status = 201, body = Object), (status = "default", body = super::Refused)))]
pub(super) async fn put(
    State(app): Served,
    Path(id): Path<String>,
    who: Principal,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let (host, key) = (&app.host, by_id(&app.host, &id)?);
    let body = body.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let written: Document = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("not a token's document: {error}")))?;
    let token = token(written.data).map_err(ApiError::bad_request)?;
    let before = host.token(&key)?;
    let expected = expected(&headers, &before)?;
    let view = host.token_set(&key, token, expected, who.actor()).await?;
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
        (Some(other), _) => Err(format!(
            "there is no nativeType {other:?}; there are integer, JAVA_TYPE_LONG, string and JAVA_TYPE_BYTE_ARRAY"
        )),
        (None, _) => Err("syncToken is neither a number nor a text".to_owned()),
    }
}

/// Reset a sync token
#[utoipa::path(delete, path = "/repo/synchronisation/pooledSyncStage/{id}", tag = "OpenIDM", security(("bearer" = ["operate"])),
    params(("if-match" = Option<String>, Header, description = "Its `_rev`, or `*`")),
    responses((status = 200, body = Object), (status = "default", body = super::Refused)))]
pub(super) async fn delete(State(app): Served, Path(id): Path<String>, who: Principal, headers: HeaderMap) -> Answer {
    let (host, key) = (&app.host, by_id(&app.host, &id)?);
    let before = host.token(&key)?;
    if !exists(&before) {
        return Err(no_document(&id));
    }
    let expected = expected(&headers, &before)?;
    Ok(Json(document(&host.token_reset(&key, expected, who.actor()).await?)))
}

/// The revision that a script insists on, if it does: `If-Match` with one, or `*` for any, `If-None-Match: *` for none.
fn expected(headers: &HeaderMap, now: &TokenView) -> Result<Option<u64>, ApiError> {
    let other = |mark: &str| ApiError::changed(format!("If-Match {mark}, but the revision is {}", now.revision));
    match Expected::of(headers)? {
        Expected::Anything => Ok(None),
        Expected::Nothing if exists(now) => Err(ApiError::changed(format!("{} is there already", now.openidm_id))),
        Expected::Nothing => Ok(Some(now.revision)),
        Expected::Something if exists(now) => Ok(None),
        Expected::Something => Err(other("*")),
        Expected::This(mark) => match mark.parse() {
            Ok(revision) if exists(now) => Ok(Some(revision)),
            _ => Err(other(&mark)),
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
