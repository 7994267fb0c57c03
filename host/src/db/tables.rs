//! All tables of the db, and how their rows are written. Rows that are called sealed are encrypted where there is a key, see `seal`. Small rows are JSON: they can be read with any tool, and a field can
//! be added without a migration. Only segments have a format of their own.

use redb::TableDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidewaiter_core::name::TypeKey;

use super::store::ReadError;

/// Key: one of the names below. Value: a number.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// In `META`: the format of the whole db, see `migrate`.
pub(super) const FORMAT: &str = "format";
/// In `META`: which db this is; random, written once.
pub(super) const INCARNATION: &str = "incarnation";
/// In `META`: the sequence of the journal's last entry, 0 if there is none. Stays when old segments go.
pub(super) const LAST_SEQUENCE: &str = "last-sequence";
/// In `META`: the highest number of a run that wrote something, 0 if there is none.
pub(super) const LAST_RUN: &str = "last-run";
/// In `META`: the highest number of a segment, 0 if there is none.
pub(super) const LAST_SEGMENT: &str = "last-segment";
/// In `META`: the highest number of a dead letter, 0 if there is none.
pub(super) const LAST_DEAD_LETTER: &str = "last-dead-letter";
/// In `META`: the sequence of the first entry that is kept, or will be.
pub(super) const FIRST_SEQUENCE: &str = "first-sequence";
/// In `META`: bytes of all segments, published and staged.
pub(super) const BYTES: &str = "bytes";

/// Key: connection, object type. Value: JSON of `TypeState`, sealed.
pub(super) const STATES: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("states");

/// Key: number of the segment. Value: a segment, see `segment`, sealed.
pub(super) const SEGMENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("segments");

/// What is published. Key: the sequence of the first entry. Value: number of its segment, entries, bytes, when it was journaled
/// (milliseconds since 1970), connection.
pub(super) const INDEX: TableDefinition<'_, u64, Indexed> = TableDefinition::new("index");
pub(super) type Indexed = (u64, u32, u64, i64, &'static str);

/// Segments that are written and not published: nobody sees them, and the next start drops them. Key: number of the segment.
/// Value: bytes, connection.
pub(super) const STAGED: TableDefinition<'_, u64, (u64, &str)> = TableDefinition::new("staged");

/// Bytes of the segments of a connection, published and staged. Key: connection.
pub(super) const USAGE: TableDefinition<'_, &str, u64> = TableDefinition::new("usage");

/// Key: name of the consumer. Value: JSON of `Consumer`.
pub(super) const CONSUMERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("consumers");

/// Key: number of the run. Value: JSON of `RunReport`, sealed.
pub(super) const RUNS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("runs");

/// The runs of a key. Key: connection, object type, ordinal (1, 2, 3…). Value: number of the run in `RUNS`.
pub(super) const RUNS_OF: TableDefinition<'_, Ordered, u64> = TableDefinition::new("runs-of");

/// Key: connection, object type, ordinal (1, 2, 3…). Value: JSON of `TokenChange`, sealed.
pub(super) const TOKENS: TableDefinition<'_, Ordered, &[u8]> = TableDefinition::new("token-history");

/// Key: name of the sink. Value: the last sequence that it has delivered.
pub(super) const SINKS: TableDefinition<'_, &str, u64> = TableDefinition::new("sink-positions");

/// Refresh tokens that came in the place of others. Key: connection and credential, as in `hr/api`. Value: JSON of `Kept`, always
/// sealed.
pub(super) const VAULT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("vault");

/// Attributes that people only see if they ask for it. Key: connection, class, attribute, in lower case. Value: always 1.
pub(super) const SENSITIVE: TableDefinition<'_, (&str, &str, &str), u8> = TableDefinition::new("sensitive");

/// What connections may ask for. Key: connection. Value: JSON of `Approved`.
pub(super) const APPROVED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("approved");

/// Runs of connectors that went wrong in a row. Key: connector. Value: JSON of `Faults`.
pub(super) const FAULTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("faults");

/// What connections run. Key: connection. Value: JSON of `Placement`.
pub(super) const PLACEMENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("placements");

/// Files of connectors that were met. Key: connector, hash of the file in hexadecimal. Value: JSON of `Revision`.
pub(super) const REVISIONS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("revisions");

/// Shadows. Key: connection, object type. Value: JSON of `Shadow`, sealed.
pub(super) const SHADOWS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("shadows");

/// What shadows have of objects. Key: id of the shadow, keyed hash of the uid. Value: see `shadow::encode`; the uid in it is encrypted with
/// a secret of the shadow.
pub(super) const SHADOW_ROWS: TableDefinition<'_, (u32, u128), &[u8]> = TableDefinition::new("shadow-rows");

/// Deltas that are kept out of the journal. Key: connection, object type, number of the dead letter, in the order in which they came. Value: see
/// `dead_letter::Row`, sealed.
pub(super) const DEAD_LETTERS: TableDefinition<'_, Ordered, &[u8]> = TableDefinition::new("dead-letters");

/// Entries that sinks refuse for good, and those that wait for them. Key: name of the sink, sequence of the entry. Value: see `refused::Row`, sealed.
pub(super) const REFUSED: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("refused-entries");

/// A key of rows that are numbered without gaps for each type, so that the row to drop is found without counting.
pub(super) type Ordered = (&'static str, &'static str, u64);

/// The key of a state.
pub(super) fn state_key(key: &TypeKey) -> (&str, &str) {
    (key.connection.as_str(), key.object_type.as_str())
}

/// The key of a numbered row.
pub(super) fn ordered_key(key: &TypeKey, ordinal: u64) -> (&str, &str, u64) {
    (key.connection.as_str(), key.object_type.as_str(), ordinal)
}

/// The bytes of a small row.
pub(super) fn row(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(value)
}

/// A small row from its bytes; `name` says which one if it is damaged.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], name: impl FnOnce() -> String) -> Result<T, ReadError> {
    serde_json::from_slice(bytes).map_err(|error| ReadError::Row { row: name(), problem: error.to_string() })
}
