//! An entry as consumers see it: one JSON object. Values whose type is plain in JSON are plain JSON.

use serde_json::{Map, Value as Json, json};
use tidewaiter_core::journal::{Body, Entry};
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::object::{Attribute, Change, ConnectorObject, SyncDelta, Value, ValueMode, encoded};

use crate::db::Sensitive;

/// The JSON of an entry.
///
/// `{"id", "sequence", "connection", "type", "generation", "run", "at", "kind", …}`. For a change: `class`, `uid`, and where there
/// is one `name`, `previous-uid`, `source-time`, `attributes`; attributes that don't give all values are under `partial` as
/// `{"mode", "values"}`; `"read": true` where it was read on purpose and not because it changed. For an operator's act: `by`; for an entry that was erased also
/// `erased-at`.
pub fn entry(entry: &Entry) -> Json {
    let mut json = json!({
        "id": entry.id.to_string(),
        "sequence": entry.id.sequence,
        "connection": entry.key.connection,
        "type": entry.key.object_type,
        "generation": entry.generation,
        "run": entry.run,
        "at": entry.at,
    });
    match &entry.body {
        Body::Marker { marker, by } => {
            json["kind"] = marker.kind().into();
            json["by"] = by.to_string().into();
        }
        Body::Erased { by, at } => {
            json["kind"] = "erased".into();
            json["by"] = by.to_string().into();
            json["erased-at"] = at.to_string().into();
        }
        Body::Delta(delta) | Body::Read(delta) => {
            if let Body::Read(_) = entry.body {
                json["read"] = true.into();
            }
            write_delta(&mut json, delta);
        }
    }
    json
}

fn write_delta(json: &mut Json, delta: &SyncDelta) {
    json["kind"] = delta.change.kind().into();
    json["class"] = delta.object_class.clone().into();
    json["uid"] = delta.change.uid().into();
    if let Some(time) = &delta.source_time {
        json["source-time"] = time.clone().into();
    }
    if let Some(known) = delta.change.object() {
        object(json, known);
    }
    previous_uid(json, delta);
}

/// The JSON of an entry, with what is sensitive masked: `["***"]` in the place of its values.
pub fn masked(of: &Entry, sensitive: &Sensitive) -> Json {
    let mut json = entry(of);
    if let Some(delta) = of.body.delta() {
        mask(&mut json, &of.key.connection, delta, sensitive);
    }
    json
}

/// The JSON of a delta that is no entry, with what is sensitive masked.
pub fn masked_delta(connection: &ConnectionName, delta: &SyncDelta, sensitive: &Sensitive) -> Json {
    let mut json = json!({});
    write_delta(&mut json, delta);
    mask(&mut json, connection, delta, sensitive);
    json
}

fn mask(json: &mut Json, connection: &ConnectionName, delta: &SyncDelta, sensitive: &Sensitive) {
    let hidden = |name: &str| sensitive.contains(connection.as_str(), &delta.object_class, name);
    let mask = || json!(["***"]);
    for (name, values) in json.get_mut("attributes").and_then(Json::as_object_mut).into_iter().flatten() {
        if hidden(name) {
            *values = mask();
        }
    }
    for part in json.get_mut("partial").and_then(Json::as_array_mut).into_iter().flatten() {
        if part["name"].as_str().is_some_and(hidden) {
            part["values"] = mask();
        }
    }
}

fn previous_uid(json: &mut Json, delta: &SyncDelta) {
    match &delta.change {
        Change::Update { previous_uid: Some(uid), .. } | Change::CreateOrUpdate { previous_uid: Some(uid), .. } => {
            json["previous-uid"] = uid.clone().into();
        }
        Change::Delete { name: Some(name), .. } => json["name"] = name.clone().into(),
        _ => {}
    }
}

fn object(json: &mut Json, object: &ConnectorObject) {
    json["name"] = object.name.clone().into();
    let (whole, partial): (Vec<&Attribute>, _) = object.attributes.iter().partition(|a| a.mode == ValueMode::Whole);
    let values = |attribute: &Attribute| Json::Array(attribute.values.iter().map(value).collect());
    let attributes: Map<String, Json> = whole.into_iter().map(|a| (a.name.clone(), values(a))).collect();
    json["attributes"] = Json::Object(attributes);
    if !partial.is_empty() {
        let part = |a: &Attribute| json!({ "name": a.name, "mode": a.mode, "values": values(a) });
        json["partial"] = Json::Array(partial.into_iter().map(part).collect());
    }
}

/// The JSON of a value.
pub(super) fn value(value: &Value) -> Json {
    match value {
        Value::Text(text) | Value::Decimal(text) | Value::Timestamp(text) => text.clone().into(),
        Value::Integer(number) => (*number).into(),
        Value::Real(number) => (*number).into(),
        Value::Bool(flag) => (*flag).into(),
        Value::Binary(bytes) => json!({ "base64": encoded::to_text(bytes) }),
        Value::Reference { object_class, uid } => json!({ "class": object_class, "uid": uid }),
        Value::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
        Value::Secret => json!({ "secret": true }),
    }
}
