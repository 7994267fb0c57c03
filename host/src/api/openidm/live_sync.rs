//! Live sync, as OpenIDM answers it: with the token's document, whatever became of single records.

use std::time::Duration;

use axum::response::Json;
use serde_json::{Value, json};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Outcome, Trigger};

use super::stage::document;
use super::{Answer, Parameters, key};
use crate::api::error::{ApiError, of_run};
use crate::api::extract::Principal;
use crate::api::v1::{entry_id, note};
use crate::audit::Event;
use crate::db::ReadError;
use crate::host::ask::After;
use crate::host::{Host, HostError, NotTaken, Synced};
use crate::sink::render;

/// Whether the delta is wanted beside what went wrong with it.
#[derive(Clone, Copy)]
pub(super) struct Detail(bool);

impl Detail {
    pub(super) fn of(parameters: &Parameters) -> Self {
        Self(parameters.get("detailedFailure").is_some_and(|value| value == "true"))
    }
}

/// Of what the parameter `source` names: a type, or all types of a connection.
pub(super) async fn by_source(host: &Host, parameters: &Parameters, who: &Principal) -> Answer {
    let source =
        parameters.get("source").ok_or_else(|| ApiError::bad_request("liveSync needs the parameter source"))?;
    let path = source.trim_matches('/');
    let parts: Vec<&str> = path.strip_prefix("system/").unwrap_or(path).split('/').collect();
    match parts.as_slice() {
        [connection] => all(host, connection, Detail::of(parameters), who).await,
        [connection, object_type] => {
            one(host, &key(connection, object_type)?, Detail::of(parameters), who).await.map(Json)
        }
        _ => Err(ApiError::bad_request(format!("source {source:?} is not of the form system/CONNECTION/TYPE"))),
    }
}

/// All types of a connection, one after the other in their order; the first that fails is the answer.
pub(super) async fn all(host: &Host, connection: &str, detail: Detail, who: &Principal) -> Answer {
    let config = host.config();
    let mut keys: Vec<TypeKey> = config.keys().filter(|key| key.connection.as_str() == connection).collect();
    keys.sort_by_key(|key| config.object_type(key).map(|config| config.rank));
    if keys.is_empty() {
        return Err(ApiError::not_found(format!("there is no connection {connection}")));
    }
    let mut results = Vec::new();
    for key in &keys {
        results.push(one(host, key, detail, who).await?);
    }
    Ok(Json(json!({ "_id": format!("SYSTEM{}", connection.to_ascii_uppercase()), "result": results })))
}

/// One type. A record that could not be handed on is no failure: it is told under `lastException`.
pub(super) async fn one(host: &Host, key: &TypeKey, detail: Detail, who: &Principal) -> Result<Value, ApiError> {
    let asked = Event::Act { by: who.actor().to_string(), act: "sync", on: key.to_string() };
    host.audit().note(&asked).map_err(HostError::from)?;
    let mut synced = host.sync_and_deliver(key.clone(), Trigger::Api).await?;
    let mut exception = last_exception(host, &synced, detail, who).await?;
    while synced.report.outcome == Outcome::More {
        synced = host.sync_and_deliver(key.clone(), Trigger::Api).await?;
        if exception.is_none() {
            exception = last_exception(host, &synced, detail, who).await?;
        }
    }
    if let Some(error) = of_run(&synced.report) {
        return Err(error);
    }
    let mut document = document(&host.token(key)?);
    if let Some(exception) = exception {
        document["lastException"] = exception;
    }
    Ok(document)
}

/// `{"throwable", "syncDelta"}` of the first entry that an inline sink failed to take, or else of the first dead letter; `syncDelta` is JSON in a
/// text, and only there if it is asked for.
async fn last_exception(
    host: &Host,
    synced: &Synced,
    Detail(detailed): Detail,
    who: &Principal,
) -> Result<Option<Value>, ApiError> {
    let (throwable, delta) = match &synced.undelivered {
        Some(NotTaken { sink, sequence, problem }) => {
            let entries = match host.changes(After::Sequence(sequence - 1), 1, Duration::ZERO).await {
                // Everybody else has it, and it was dropped.
                Err(HostError::Read(ReadError::Dropped { .. })) => Vec::new(),
                entries => entries?,
            };
            let sensitive = host.db().sensitive().map_err(HostError::from)?;
            let delta = entries.first().map(|entry| render::masked(entry, &sensitive));
            if let Some(delta) = delta.as_ref().filter(|_| detailed) {
                note(host, who, [delta, delta].map(entry_id), false)?;
            }
            (format!("sink {sink}: {problem}"), delta)
        }
        None if synced.report.dead_letters == 0 => return Ok(None),
        None => {
            let of_run = host.dead_letters(Some(&synced.report.key.connection)).await?.into_iter();
            let mut faults = of_run.filter(|letter| letter.run == Some(synced.report.run) && letter.fault.is_some());
            let Some(letter) = faults.next() else { return Ok(None) };
            let delta = match detailed {
                true => host.dead_letter(letter.number, &who.actor()).await?.delta,
                false => None,
            };
            (letter.fault.unwrap_or_default(), delta)
        }
    };
    let mut exception = json!({ "throwable": throwable });
    if let Some(delta) = delta.filter(|_| detailed) {
        exception["syncDelta"] = delta.to_string().into();
    }
    Ok(Some(exception))
}
