//! Changes as OpenIDM's own live sync tells its synchronisation service of them: `POST sync?_action=notifyUpdate&…`, one a request. It
//! has no word for what an operator did to a token, and none for what was erased.

use http::Uri;
use http::uri::{InvalidUri, PathAndQuery};
use serde_json::{Map, Value as Json, json};
use tidewaiter_core::journal::Entry;
use tidewaiter_core::object::{Attribute, Change, ConnectorObject, Value, ValueMode, encoded};

use crate::sink::render;

/// The query and the body of a request, if OpenIDM has a word for it.
pub(super) fn notification(entry: &Entry) -> Option<(String, Json)> {
    let delta = entry.body.delta()?;
    let (action, new) = match &delta.change {
        Change::Create(object) => ("notifyCreate", resource(object, None)),
        Change::Update { object, previous_uid } | Change::CreateOrUpdate { object, previous_uid } => {
            ("notifyUpdate", resource(object, previous_uid.as_deref()))
        }
        Change::Delete { .. } => ("notifyDelete", Json::Null),
    };
    let container = format!("system/{}/{}", entry.key.connection, entry.key.object_type);
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("_action", action);
    query.append_pair("resourceContainer", &container);
    query.append_pair("resourceId", delta.change.uid());
    Some((query.finish(), json!({ "oldValue": null, "newValue": new })))
}

/// A URL with more in its query.
pub(super) fn with_query(url: &Uri, query: &str) -> Result<Uri, http::Error> {
    let joined = match url.query() {
        Some(before) => format!("{}?{before}&{query}", url.path()),
        None => format!("{}?{query}", url.path()),
    };
    let path: Result<PathAndQuery, InvalidUri> = joined.try_into();
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(path?);
    Ok(Uri::from_parts(parts)?)
}

/// An object as OpenIDM has them. It expects one value where there is one; what isn't whole would be taken for all of it, so that is
/// apart.
fn resource(object: &ConnectorObject, previous_uid: Option<&str>) -> Json {
    let (whole, partial): (Vec<&Attribute>, _) = object.attributes.iter().partition(|a| a.mode == ValueMode::Whole);
    let mut resource: Map<String, Json> = whole.into_iter().map(|a| (a.name.clone(), values(&a.values))).collect();
    if !partial.is_empty() {
        let part = |a: &Attribute| json!({ "name": a.name, "mode": a.mode, "values": list(&a.values) });
        resource.insert("_partial".into(), partial.into_iter().map(part).collect());
    }
    if !object.name.is_empty() {
        resource.insert("__NAME__".into(), object.name.clone().into());
    }
    if let Some(uid) = previous_uid {
        resource.insert("_previous-id".into(), uid.into());
    }
    resource.insert("_id".into(), object.uid.clone().into());
    Json::Object(resource)
}

fn values(values: &[Value]) -> Json {
    match values {
        [] => Json::Null,
        [one] => value(one),
        many => list(many),
    }
}

fn list(values: &[Value]) -> Json {
    values.iter().map(value).collect()
}

fn value(value: &Value) -> Json {
    match value {
        Value::Binary(bytes) => encoded::to_text(bytes).into(),
        other => render::value(other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::{change, delete, delta_of, entry, erased, marker, object};
    use super::*;
    use tidewaiter_core::journal::{Body, Marker};

    #[test]
    fn each_kind_of_change_is_a_notification() {
        let mut new = json!({
            "_id": "1",
            "__NAME__": "Ann",
            "mail": "a@x",
            "phones": ["1", "2"],
            "fax": null,
            "photo": "AQID",
            "boss": { "class": "account", "uid": "2" },
            "age": 7,
            "password": { "secret": true },
            "_partial": [{ "name": "groups", "mode": "added", "values": ["g"] }],
        });
        let told = |of| notification(&entry(1, change(of)));
        let query = |action: &str, uid: &str| {
            format!("_action={action}&resourceContainer=system%2Fhr%2Faccount&resourceId={uid}")
        };
        let whole = |new: &Json| json!({ "oldValue": null, "newValue": new });
        assert_eq!(told(Change::Create(object())), Some((query("notifyCreate", "1"), whole(&new))));
        let either = Change::CreateOrUpdate { object: object(), previous_uid: None };
        assert_eq!(told(either), Some((query("notifyUpdate", "1"), whole(&new))));
        new["_previous-id"] = "0".into();
        let update = Change::Update { object: object(), previous_uid: Some("0".into()) };
        assert_eq!(told(update), Some((query("notifyUpdate", "1"), whole(&new))));
        let read = notification(&entry(1, Body::Read(delta_of(delete("1")))));
        assert_eq!(read, Some((query("notifyDelete", "1"), whole(&Json::Null))), "what was read is told like a change");
        let gone = told(delete("cn=A B&_action=x"));
        assert_eq!(gone, Some((query("notifyDelete", "cn%3DA+B%26_action%3Dx"), whole(&Json::Null))));
    }

    #[test]
    fn what_openidm_has_no_word_for_is_not_told() {
        for body in [marker(Marker::TokenSet), marker(Marker::TokenReset), marker(Marker::Restored), erased()] {
            assert_eq!(notification(&entry(1, body)), None);
        }
    }

    #[test]
    fn a_query_joins_the_one_that_is_there() {
        let joined = |url: &str| with_query(&url.parse().unwrap(), "a=1").unwrap().to_string();
        assert_eq!(joined("https://idm.example/openidm/sync"), "https://idm.example/openidm/sync?a=1");
        assert_eq!(joined("https://idm.example/openidm/sync?b=2"), "https://idm.example/openidm/sync?b=2&a=1");
        assert_eq!(joined("https://idm.example"), "https://idm.example/?a=1");
        let long = with_query(&"https://idm.example".parse().unwrap(), &"x".repeat(100_000));
        assert!(long.is_err(), "named, and not cut");
    }
}
