//! Dead letters as they are stored: with their number, and when and by which run they were kept out of the journal.

use serde::{Deserialize, Serialize};
use tidewaiter_core::dead_letter::DeadLetter;
use tidewaiter_core::journal::{Body, Packed};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::{SyncDelta, encoded};
use tidewaiter_core::time::UnixMillis;

use super::store::ReadError;

/// A dead letter that is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredLetter {
    /// Its number, which no other one has, ever.
    pub number: u64,
    /// Of which type.
    pub key: TypeKey,
    /// The token generation in which it came.
    pub generation: u64,
    /// The run that kept it.
    pub run: Option<u64>,
    /// When.
    pub at: UnixMillis,
    /// What it is.
    pub letter: DeadLetter,
}

/// What comes and goes with a commit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Letters {
    /// They are kept out of the journal, in their order.
    pub kept: Vec<DeadLetter>,
    /// Numbers of those that are settled.
    pub resolved: Vec<u64>,
    /// What waited and is told now, journaled before the batches of the commit.
    pub told: Vec<Told>,
}

/// Deltas that waited, as they would have been journaled when they came.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The token generation in which they came.
    pub generation: u64,
    /// The run that they came with.
    pub run: Option<u64>,
    /// What they say.
    pub deltas: Packed,
}

impl Letters {
    /// Adds what comes after it.
    pub(crate) fn append(&mut self, later: Self) {
        self.kept.extend(later.kept);
        self.resolved.extend(later.resolved);
        self.told.extend(later.told);
    }

    /// Adds what comes before it.
    pub(crate) fn prepend(&mut self, mut earlier: Self) {
        earlier.append(std::mem::take(self));
        *self = earlier;
    }
}

/// A row. Its number and type are its key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Row {
    object_class: String,
    uid: String,
    previous_uid: Option<String>,
    kind: String,
    fault: Option<String>,
    /// As a segment has it, in base64: JSON has no word for some numbers that are at fault.
    delta: Option<String>,
    generation: u64,
    run: Option<u64>,
    at: UnixMillis,
}

impl Row {
    pub(super) fn new(
        letter: &DeadLetter,
        generation: u64,
        run: Option<u64>,
        at: UnixMillis,
    ) -> Result<Self, ReadError> {
        let DeadLetter { object_class, uid, previous_uid, kind, fault, delta } = letter.clone();
        let encode = |delta: SyncDelta| postcard::to_stdvec(&Body::Delta(delta));
        let delta = delta.map(encode).transpose().map_err(|error| ReadError::Row {
            row: format!("the dead letter of {uid:?}"),
            problem: error.to_string(),
        })?;
        let delta = delta.map(|bytes| encoded::to_text(&bytes));
        Ok(Self { object_class, uid, previous_uid, kind, fault, delta, generation, run, at })
    }

    pub(super) fn letter(self, key: TypeKey, number: u64) -> Result<StoredLetter, ReadError> {
        let Self { object_class, uid, previous_uid, kind, fault, delta, generation, run, at } = self;
        let damaged = |problem: &str| ReadError::Row { row: name(number), problem: problem.to_owned() };
        let decode = |text: String| {
            let bytes = encoded::from_text(&text).ok_or_else(|| damaged("its delta is not base64"))?;
            match postcard::from_bytes(&bytes) {
                Ok(Body::Delta(delta)) => Ok(delta),
                _ => Err(damaged("its delta is malformed")),
            }
        };
        let delta = delta.map(decode).transpose()?;
        let letter = DeadLetter { object_class, uid, previous_uid, kind, fault, delta };
        Ok(StoredLetter { number, key, generation, run, at, letter })
    }
}

pub(super) fn name(number: u64) -> String {
    format!("dead letter {number}")
}
