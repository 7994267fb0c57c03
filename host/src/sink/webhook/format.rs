//! In whose words entries are sent.

use std::fmt;
use std::io;

use serde::Deserialize;
use tidewaiter_core::journal::{Entry, EntryId};

use super::{cloudevents, openidm};

/// In whose words entries are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Batches of CloudEvents 1.0.
    #[default]
    CloudEvents,
    /// As OpenIDM tells its synchronisation service of a change: one change a request.
    OpenIdm,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CloudEvents => "cloudevents",
            Self::OpenIdm => "openidm",
        })
    }
}

/// What one request carries.
#[derive(Debug)]
pub(super) struct Message {
    /// The same for the same entries.
    pub(super) id: String,
    /// What is added to the URL.
    pub(super) query: Option<String>,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Format {
    /// The most entries that a request can carry, if that is bounded.
    pub(crate) fn entries_max(self) -> Option<usize> {
        match self {
            Self::CloudEvents => None,
            Self::OpenIdm => Some(1),
        }
    }

    /// What is sent for the first of these entries, of which there is at least one: as many as have no more bytes than that, and the
    /// sequence of the last of them. No message: the format has no word for it.
    pub(super) fn message(self, entries: &[Entry], bytes_max: usize) -> io::Result<(Option<Message>, u64)> {
        let Some(first) = entries.first() else { unreachable!("a sink is handed entries") };
        match self {
            Self::CloudEvents => {
                let (count, body) = cloudevents::batch(entries, bytes_max)?;
                let last = entries[count - 1].id;
                let content_type = cloudevents::CONTENT_TYPE;
                Ok((Some(Message { id: id(first.id, last), query: None, content_type, body }), last.sequence))
            }
            Self::OpenIdm => {
                let id = first.id.to_string();
                let message = |(query, body): (String, serde_json::Value)| -> io::Result<Message> {
                    let (query, body) = (Some(query), serde_json::to_vec(&body)?);
                    Ok(Message { id, query, content_type: "application/json", body })
                };
                Ok((openidm::notification(first).map(message).transpose()?, first.id.sequence))
            }
        }
    }
}

/// The id of a request: the first entry's, and the last one's sequence where that is another.
fn id(first: EntryId, last: EntryId) -> String {
    match first == last {
        true => first.to_string(),
        false => format!("{first}-{}", last.sequence),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tidewaiter_core::journal::{Body, Incarnation, Marker};
    use tidewaiter_core::name::TypeKey;
    use tidewaiter_core::object::{Attribute, Change, ConnectorObject, SyncDelta, Value, ValueMode};
    use tidewaiter_core::state::Actor;
    use tidewaiter_core::time::UnixMillis;

    pub(in super::super) fn entry(sequence: u64, body: Body) -> Entry {
        Entry {
            id: EntryId { incarnation: Incarnation(0xc0ff_ee00), sequence },
            key: TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() },
            generation: 1,
            run: Some(7),
            at: UnixMillis(1_772_000_000_123),
            body,
        }
    }

    pub(in super::super) fn change(change: Change) -> Body {
        Body::Delta(delta_of(change))
    }

    pub(in super::super) fn delta_of(change: Change) -> SyncDelta {
        SyncDelta { object_class: "account".into(), change, source_time: None }
    }

    pub(in super::super) fn marker(marker: Marker) -> Body {
        Body::Marker { marker, by: Actor::Api }
    }

    pub(in super::super) fn erased() -> Body {
        Body::Erased { by: Actor::Api, at: UnixMillis(1_772_000_001_000) }
    }

    pub(in super::super) fn delete(uid: &str) -> Change {
        Change::Delete { uid: uid.into(), name: None, last_known: None }
    }

    /// With a value of each kind, and each number of values.
    pub(in super::super) fn object() -> ConnectorObject {
        let attribute =
            |name: &str, mode, values: &[Value]| Attribute { name: name.into(), values: values.into(), mode };
        let text = |text: &str| Value::Text(text.into());
        let boss = Value::Reference { object_class: "account".into(), uid: "2".into() };
        let attributes = vec![
            attribute("mail", ValueMode::Whole, &[text("a@x")]),
            attribute("phones", ValueMode::Whole, &[text("1"), text("2")]),
            attribute("fax", ValueMode::Whole, &[]),
            attribute("photo", ValueMode::Whole, &[Value::Binary(vec![1, 2, 3])]),
            attribute("boss", ValueMode::Whole, &[boss]),
            attribute("age", ValueMode::Whole, &[Value::Integer(7)]),
            attribute("password", ValueMode::Whole, &[Value::Secret]),
            attribute("groups", ValueMode::Added, &[text("g")]),
        ];
        ConnectorObject { uid: "1".into(), name: "Ann".into(), attributes }
    }

    #[test]
    fn the_same_entries_have_the_same_id_and_others_another() {
        let entries: Vec<Entry> = (1..=3).map(|sequence| entry(sequence, change(delete("1")))).collect();
        let ids = |entries: &[Entry], bytes_max| {
            let (message, last) = Format::CloudEvents.message(entries, bytes_max).unwrap();
            (message.unwrap().id, last)
        };
        assert_eq!(ids(&entries, usize::MAX), ("00000000c0ffee00-1-3".to_owned(), 3));
        assert_eq!(ids(&entries[..2], usize::MAX), ("00000000c0ffee00-1-2".to_owned(), 2));
        assert_eq!(ids(&entries, 1), ("00000000c0ffee00-1".to_owned(), 1), "one that is larger goes by itself");
        let (message, last) = Format::OpenIdm.message(&entries[1..], usize::MAX).unwrap();
        assert_eq!((message.unwrap().id, last), ("00000000c0ffee00-2".to_owned(), 2));
        let (message, last) = Format::OpenIdm.message(&[entry(9, erased())], usize::MAX).unwrap();
        assert!(message.is_none() && last == 9);
    }
}
