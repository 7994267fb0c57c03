//! Entries as [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md), a batch in the JSON format.

use serde_json::{Value as Json, json};
use tidewaiter_core::journal::{Body, Entry};

use crate::sink::render;

/// Of a batch.
pub(super) const CONTENT_TYPE: &str = "application/cloudevents-batch+json; charset=utf-8";
/// What all types begin with.
const PREFIX: &str = "org.tidewaiter";

/// As many of the entries, from the first on, as have no more bytes than that; at least one. Answers how many.
pub(super) fn batch(entries: &[Entry], bytes_max: usize) -> serde_json::Result<(usize, Vec<u8>)> {
    let (mut count, mut bytes) = (0, vec![b'[']);
    for entry in entries {
        let event = serde_json::to_vec(&event(entry))?;
        // With the comma before it and the bracket after it.
        if count > 0 && bytes.len() + event.len() + 2 > bytes_max {
            break;
        }
        if count > 0 {
            bytes.push(b',');
        }
        bytes.extend(event);
        count += 1;
    }
    bytes.push(b']');
    Ok((count, bytes))
}

/// One event. `id` is the entry's, which has the incarnation of the db in it: with `source` it is unique, over restored dbs, too.
fn event(entry: &Entry) -> Json {
    let (connection, object_type) = (&entry.key.connection, &entry.key.object_type);
    let mut event = json!({
        "specversion": "1.0",
        "id": entry.id.to_string(),
        "source": format!("/connections/{connection}/types/{object_type}"),
        "type": kind(&entry.body),
        "time": entry.at,
        "datacontenttype": "application/json",
        "data": render::entry(entry),
    });
    if let Some(delta) = entry.body.delta()
        && may_be_said(delta.change.uid())
    {
        event["subject"] = delta.change.uid().into();
    }
    event
}

fn kind(body: &Body) -> String {
    match body {
        Body::Delta(delta) => format!("{PREFIX}.change.{}", delta.change.kind()),
        Body::Read(delta) => format!("{PREFIX}.read.{}", delta.change.kind()),
        Body::Marker { marker, .. } => format!("{PREFIX}.marker.{}", marker.kind()),
        Body::Erased { .. } => format!("{PREFIX}.erased"),
    }
}

/// Whether an attribute of an event can have it: neither empty, nor with control characters or what is no character at all.
fn may_be_said(text: &str) -> bool {
    let is_none = |character: char| {
        let code = u32::from(character);
        (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
    };
    !text.is_empty() && !text.chars().any(|character| character.is_control() || is_none(character))
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::{change, delete, delta_of, entry, erased, marker, object};
    use super::*;
    use tidewaiter_core::journal::Marker;
    use tidewaiter_core::object::Change;

    #[test]
    fn each_kind_of_entry_is_an_event() {
        let update = |previous_uid: Option<&str>| Change::Update {
            object: object(),
            previous_uid: previous_uid.map(ToOwned::to_owned),
        };
        let either = Change::CreateOrUpdate { object: object(), previous_uid: None };
        for (body, kind, subject) in [
            (change(Change::Create(object())), "org.tidewaiter.change.create", Some("1")),
            (change(update(Some("0"))), "org.tidewaiter.change.update", Some("1")),
            (change(either), "org.tidewaiter.change.create-or-update", Some("1")),
            (change(delete("cn=Zoë,o=x")), "org.tidewaiter.change.delete", Some("cn=Zoë,o=x")),
            (change(delete("a\nb")), "org.tidewaiter.change.delete", None),
            (change(delete("\u{1fffe}")), "org.tidewaiter.change.delete", None),
            (Body::Read(delta_of(delete("1"))), "org.tidewaiter.read.delete", Some("1")),
            (marker(Marker::TokenSet), "org.tidewaiter.marker.token-set", None),
            (marker(Marker::TokenReset), "org.tidewaiter.marker.token-reset", None),
            (marker(Marker::Restored), "org.tidewaiter.marker.restored", None),
            (erased(), "org.tidewaiter.erased", None),
        ] {
            let entry = entry(42, body);
            let mut expected = json!({
                "specversion": "1.0",
                "id": "00000000c0ffee00-42",
                "source": "/connections/hr/types/account",
                "type": kind,
                "time": "2026-02-25T06:13:20.123Z",
                "datacontenttype": "application/json",
                "data": render::entry(&entry),
            });
            if let Some(subject) = subject {
                expected["subject"] = subject.into();
            }
            assert_eq!(event(&entry), expected);
        }
    }

    #[test]
    fn a_batch_has_no_more_bytes_than_allowed_but_for_a_single_entry() {
        let entries: Vec<Entry> = (1..=4).map(|sequence| entry(sequence, change(delete("1")))).collect();
        let (count, all) = batch(&entries, usize::MAX).unwrap();
        assert_eq!(count, 4);
        let events: Vec<Json> = serde_json::from_slice(&all).unwrap();
        assert_eq!(events, entries.iter().map(event).collect::<Vec<_>>());
        for (bytes_max, count) in [(all.len(), 4), (all.len() - 1, 3), (1, 1), (0, 1)] {
            let (taken, bytes) = batch(&entries, bytes_max).unwrap();
            assert_eq!(taken, count);
            assert!(bytes.len() <= bytes_max || count == 1);
            assert_eq!(serde_json::from_slice::<Vec<Json>>(&bytes).unwrap().len(), count);
        }
    }
}
