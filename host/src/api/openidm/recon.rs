//! Reconciliations, as OpenIDM's scripts begin and follow them. There are no mappings here: the name of one leads to the type that is read.

use axum::extract::State;
use axum::response::Json;
use serde_json::{Value, json};
use tidewaiter_core::name::TypeKey;

use super::{Answer, Given, Parameters, Refused, Served, action, key, no_action};
use crate::api::App;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Path, Principal};
use crate::api::operation::{Done, Operation, Order, RECONCILE, Standing, reconciled};
use crate::driver::Progress;
use crate::host::{Host, Scope};

/// The longest wait of a script that waits for completion.
const COMPLETION_MAX: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Reconciliations that are under way, and that were
#[utoipa::path(get, path = "/recon", tag = "OpenIDM", security(("bearer" = ["read"])),
    responses((status = 200, body = Object), (status = "default", body = Refused)))]
pub(super) async fn list(State(app): Served) -> Answer {
    let all = app.operations.list(&app.host).into_iter().filter(Operation::is_reconciliation);
    let all: Vec<Value> = all.map(|one| document(&one)).collect();
    Ok(Json(json!({ "reconciliations": all })))
}

/// Begin a reconciliation
///
/// `_action` is `recon`, or `reconById` with `ids`; `mapping` begins as in `systemHrAccount_`, or `source` is as in `system/hr/account`.
#[utoipa::path(post, path = "/recon", tag = "OpenIDM", security(("bearer" = ["operate"])),
    params(("_action" = String, Query), ("mapping" = Option<String>, Query), ("source" = Option<String>, Query), ("ids" = Option<String>, Query),
        ("waitForCompletion" = Option<String>, Query)),
    responses((status = 200, body = Object), (status = "default", body = Refused)))]
pub(super) async fn begin(State(app): Served, Given(parameters): Given, who: Principal) -> Answer {
    let uid = match action(&parameters)? {
        "recon" => None,
        "reconById" => Some(one_id(&parameters)?),
        other => return Err(no_action(other, "recon and reconById")),
    };
    let (key, by) = (wanted(&app.host, &parameters)?, who.actor());
    app.host.token(&key)?;
    let (host, scope) = (app.host.clone(), Scope { uid, ..Scope::default() });
    let order = Order::reconcile(&key, &scope, &by);
    let id = app.operations.begin(order, async move { reconciled(host.reconcile(&key, scope, by).await) })?;
    if parameters.get("waitForCompletion").is_some_and(|value| value == "true") {
        app.operations.wait(&id, COMPLETION_MAX).await.transpose()?;
    }
    let standing = app.operations.get(&app.host, &id)?.standing;
    Ok(Json(json!({ "_id": id, "state": state(standing, None) })))
}

/// A reconciliation
#[utoipa::path(get, path = "/recon/{id}", tag = "OpenIDM", security(("bearer" = ["read"])),
    responses((status = 200, body = Object), (status = "default", body = Refused)))]
pub(super) async fn get(State(app): Served, Path(id): Path<String>) -> Answer {
    Ok(Json(document(&find(&app, &id)?)))
}

/// Cancel a reconciliation
///
/// `_action` is `cancel`. It ends before its next page.
#[utoipa::path(post, path = "/recon/{id}", tag = "OpenIDM", security(("bearer" = ["operate"])), params(("_action" = String, Query)),
    responses((status = 200, body = Object), (status = "default", body = Refused)))]
pub(super) async fn act(
    State(app): Served,
    Path(id): Path<String>,
    Given(parameters): Given,
    who: Principal,
) -> Answer {
    match action(&parameters)? {
        "cancel" => {}
        other => return Err(no_action(other, "cancel")),
    }
    let one = find(&app, &id)?;
    let (Standing::Active, RECONCILE, Some(object_type)) = (one.standing, one.action, one.object_type) else {
        return Err(ApiError::conflict("unknown", format!("reconciliation {id} is over, or reads one object only")));
    };
    app.host.cancel_pass(&TypeKey { connection: one.connection, object_type }, &who.actor()).await?;
    Ok(Json(json!({ "_id": id, "action": "cancel", "status": "INITIATED" })))
}

fn find(app: &App, id: &str) -> Result<Operation, ApiError> {
    let one = app.operations.get(&app.host, id)?;
    let unknown = || ApiError::not_found(format!("there is no reconciliation {id}"));
    one.is_reconciliation().then_some(one).ok_or_else(unknown)
}

fn one_id(parameters: &Parameters) -> Result<String, ApiError> {
    match parameters.get("ids").map(|ids| ids.trim()) {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        _ => Err(ApiError::bad_request("reconById needs the parameter ids, with one id")),
    }
}

/// The type that a mapping reads: its name begins as in `systemHrAccount_`.
fn wanted(host: &Host, parameters: &Parameters) -> Result<TypeKey, ApiError> {
    if let Some(source) = parameters.get("source") {
        let path = source.trim_matches('/');
        return match path.strip_prefix("system/").unwrap_or(path).split_once('/') {
            Some((connection, object_type)) => key(connection, object_type),
            None => Err(ApiError::bad_request(format!("source {source:?} is not of the form system/CONNECTION/TYPE"))),
        };
    }
    let mapping = parameters.get("mapping").ok_or_else(|| ApiError::bad_request("this needs the parameter mapping"))?;
    let asked = mapping.split_once('_').map_or(mapping.as_str(), |(source, _)| source).to_ascii_uppercase();
    let unknown =
        || ApiError::not_found(format!("there is no object type that {mapping} reads, as in systemHrAccount_…"));
    // Names may have `_` in them themselves.
    let whole = mapping.to_ascii_uppercase();
    let mut keys: Vec<TypeKey> = host.config().keys().filter(|key| whole.starts_with(&key.openidm_id())).collect();
    keys.sort_by_key(|key| std::cmp::Reverse(key.openidm_id().len()));
    // Mappings are often called by what they read in the plural.
    let plural = |key: &TypeKey| asked.strip_suffix('S') == Some(key.openidm_id().as_str());
    let exact = keys.iter().find(|key| key.openidm_id() == asked || plural(key));
    let begins = |key: &&TypeKey| whole[key.openidm_id().len()..].starts_with('_') || whole == key.openidm_id();
    exact.or_else(|| keys.iter().find(begins)).cloned().ok_or_else(unknown)
}

fn state(standing: Standing, code: Option<&str>) -> &'static str {
    match (standing, code) {
        (Standing::Active, _) => "ACTIVE",
        (Standing::Succeeded, _) => "SUCCESS",
        (Standing::Failed, Some("cancelled")) => "CANCELED",
        (Standing::Failed, _) => "FAILED",
    }
}

fn stage(standing: Standing, code: Option<&str>) -> (&'static str, &'static str) {
    match state(standing, code) {
        "ACTIVE" => ("ACTIVE_RECONCILING_SOURCE", "reconciling source entries"),
        "SUCCESS" => ("COMPLETED_SUCCESS", "reconciliation completed."),
        "CANCELED" => ("COMPLETED_CANCELED", "reconciliation aborted."),
        _ => ("COMPLETED_FAILED", "reconciliation failed"),
    }
}

fn document(one: &Operation) -> Value {
    let mapping = one.object_type.as_ref().map(|object_type| format!("system/{}/{object_type}", one.connection));
    let counts = match &one.result {
        Some(Done::Reconcile(done)) => Some(done.counts),
        _ => one.progress.map(|Progress { counts, .. }| counts),
    };
    let total = one.progress.map(|progress| progress.expected.to_string());
    let processed = counts.map_or(0, |counts| counts.read);
    let code = one.problem.as_ref().map(Problem::code);
    let (stage, description) = stage(one.standing, code);
    let why = one.problem.as_ref().map(Problem::detail);
    json!({
        "_id": one.id,
        "mapping": mapping,
        "state": state(one.standing, code),
        "stage": stage,
        "stageDescription": why.unwrap_or(description),
        "progress": { "source": { "existing": { "processed": processed, "total": total.unwrap_or_else(|| processed.to_string()) } } },
        "started": one.began,
        "ended": one.ended,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_reconciliation_stands_is_told_in_openidms_words() {
        assert_eq!(state(Standing::Active, None), "ACTIVE");
        assert_eq!(state(Standing::Succeeded, None), "SUCCESS");
        assert_eq!(state(Standing::Failed, Some("cancelled")), "CANCELED");
        assert_eq!(state(Standing::Failed, Some("host")), "FAILED");
        assert_eq!(stage(Standing::Failed, Some("cancelled")).0, "COMPLETED_CANCELED");
    }
}
