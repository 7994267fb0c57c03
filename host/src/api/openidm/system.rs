//! What is asked of systems, which are connections here: live sync, tests, and which connectors there are.

use axum::extract::State;
use axum::response::Json;
use serde_json::{Value, json};
use tidewaiter_core::name::ConnectionName;

use super::live_sync::{self, Detail};
use super::{Answer, Given, Refused, Served, action, key, no_action};
use crate::api::error::ApiError;
use crate::api::extract::{Path, Principal};
use crate::host::Host;

/// Live sync by `source`; or test all systems; or which connectors there are
///
/// `_action` is `liveSync` or `activeSync` with `source`, as in `system/hr/account`; or `test`; or `availableConnectors`.
#[utoipa::path(post, path = "/system", tag = "OpenIDM", security(("bearer" = ["operate"])),
    params(("_action" = String, Query), ("source" = Option<String>, Query), ("detailedFailure" = Option<String>, Query)),
    responses((status = 200, body = serde_json::Value), (status = "default", body = Refused)))]
pub(super) async fn all(State(app): Served, Given(parameters): Given, who: Principal) -> Answer {
    match action(&parameters)? {
        "liveSync" | "activeSync" => live_sync::by_source(&app.host, &parameters, &who).await,
        "test" => {
            let mut results = Vec::new();
            for name in app.host.config().connections.keys() {
                results.push(test(&app.host, name, &who).await?);
            }
            Ok(Json(results.into()))
        }
        "availableConnectors" => available(&app.host),
        other => Err(no_action(other, "liveSync, test and availableConnectors")),
    }
}

/// As `/system`
#[utoipa::path(post, path = "/system/", tag = "OpenIDM", security(("bearer" = ["operate"])),
    params(("_action" = String, Query), ("source" = Option<String>, Query), ("detailedFailure" = Option<String>, Query)),
    responses((status = 200, body = serde_json::Value), (status = "default", body = Refused)))]
pub(super) async fn all_too(app: Served, parameters: Given, who: Principal) -> Answer {
    all(app, parameters, who).await
}

/// Live sync of all types of a system; or test it
#[utoipa::path(post, path = "/system/{connection}", tag = "OpenIDM", security(("bearer" = ["operate"])),
    params(("_action" = String, Query), ("detailedFailure" = Option<String>, Query)),
    responses((status = 200, body = Object), (status = "default", body = Refused)))]
pub(super) async fn connection(
    State(app): Served,
    Path(name): Path<String>,
    Given(parameters): Given,
    who: Principal,
) -> Answer {
    match action(&parameters)? {
        "liveSync" | "activeSync" => live_sync::all(&app.host, &name, Detail::of(&parameters), &who).await,
        "test" => {
            let unknown = || ApiError::not_found(format!("there is no connection {name}"));
            let config = app.host.config();
            let name = config.connections.keys().find(|known| known.as_str() == name).ok_or_else(unknown)?;
            test(&app.host, name, &who).await.map(Json)
        }
        other => Err(no_action(other, "liveSync and test")),
    }
}

/// Live sync of a type of a system
#[utoipa::path(post, path = "/system/{connection}/{type}", tag = "OpenIDM", security(("bearer" = ["operate"])),
    params(("_action" = String, Query), ("detailedFailure" = Option<String>, Query)),
    responses((status = 200, body = Object), (status = "default", body = Refused)))]
pub(super) async fn object_type(
    State(app): Served,
    Path((name, object_type)): Path<(String, String)>,
    Given(parameters): Given,
    who: Principal,
) -> Answer {
    match action(&parameters)? {
        "liveSync" | "activeSync" => {
            let key = key(&name, &object_type)?;
            live_sync::one(&app.host, &key, Detail::of(&parameters), &who).await.map(Json)
        }
        other => Err(no_action(other, "liveSync")),
    }
}

/// Whether a connection can do its work. That it can't is `"ok": false` and why, and no failure of the call.
async fn test(host: &Host, name: &ConnectionName, who: &Principal) -> Result<Value, ApiError> {
    let config = host.config();
    let Some(written) = config.connections.get(name) else {
        return Err(ApiError::not_found(format!("there is no connection {name}")));
    };
    let types: Vec<&str> = std::iter::once("__ALL__").chain(written.types.keys().map(|name| name.as_str())).collect();
    let (version, problems) = match host.check(name, &who.actor()).await {
        Ok(finding) => (Some(host.connection(name)?.connector_version), finding.problems),
        Err(error) => (None, vec![error.to_string()]),
    };
    let mut result = json!({
        "name": name,
        "enabled": true,
        "config": format!("config/provisioner.openicf/{name}"),
        "objectTypes": types,
        "connectorRef": {
            "connectorName": written.connector, "bundleName": written.connector, "bundleVersion": version.unwrap_or_default()
        },
        "displayName": written.connector,
        "ok": problems.is_empty(),
    });
    if !problems.is_empty() {
        result["error"] = problems.join("\n").into();
    }
    Ok(result)
}

fn available(host: &Host) -> Answer {
    let reference = |view: crate::host::view::ConnectorView| {
        let version = view.newest.map_or(String::new(), |newest| newest.version);
        json!({
            "connectorName": view.name, "displayName": view.name, "bundleName": view.name,
            "systemType": "provisioner.openicf", "bundleVersion": version
        })
    };
    let all: Vec<Value> = host.connectors()?.into_iter().map(reference).collect();
    Ok(Json(json!({ "connectorRef": all })))
}
