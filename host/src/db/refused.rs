//! The dead letters of sinks as they are stored: entries that a sink's server refuses for good, and those that wait for them.

use serde::{Deserialize, Serialize};
use tidewaiter_core::journal::{Body, Entry, EntryId};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::encoded;
use tidewaiter_core::time::UnixMillis;

use super::store::ReadError;

/// A dead letter of a sink.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedEntry {
    /// Its number, which no other dead letter has, ever.
    pub number: u64,
    /// What the sink hasn't got. The journal may have it no more.
    pub entry: Entry,
    /// Why the sink refused it; none: it never did.
    pub problem: Option<String>,
    /// It is to be sent again, whatever the sink said before.
    pub again: bool,
    /// Since when it is one.
    pub at: UnixMillis,
}

impl RefusedEntry {
    /// Whether it is refused, and not waiting for its turn or for another one.
    pub fn is_refused(&self) -> bool {
        self.problem.is_some() && !self.again
    }
}

/// How far a sink got, and what became of entries that it refuses.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// It has everything up to this sequence but its dead letters; none: that is as it was.
    pub position: Option<u64>,
    /// Entries that become dead letters, in their order, and why; none: they wait.
    pub kept: Vec<(Entry, Option<String>)>,
    /// Why some are refused, by the sequences of their entries; none: they are to be sent again. One that is gone stays gone.
    pub judged: Vec<(u64, Option<String>)>,
    /// Sequences of those that are done with.
    pub gone: Vec<u64>,
    /// When.
    pub at: UnixMillis,
}

impl Delivered {
    /// That it has everything up to a sequence but its dead letters.
    pub fn upto(sequence: u64, at: UnixMillis) -> Self {
        Self { position: Some(sequence), ..Self::nothing(at) }
    }

    /// Whether dead letters that are there become something else.
    pub(super) fn changes_letters(&self) -> bool {
        !(self.judged.is_empty() && self.gone.is_empty())
    }

    /// Nothing new.
    pub fn nothing(at: UnixMillis) -> Self {
        Self { position: None, kept: Vec::new(), judged: Vec::new(), gone: Vec::new(), at }
    }
}

/// A row. Sink and sequence are its key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Row {
    number: u64,
    #[serde(flatten)]
    key: TypeKey,
    generation: u64,
    run: Option<u64>,
    journaled: UnixMillis,
    /// As a segment has it, in base64.
    body: String,
    problem: Option<String>,
    again: bool,
    at: UnixMillis,
}

impl Row {
    pub(super) fn new(number: u64, entry: &Entry, problem: Option<String>, at: UnixMillis) -> Result<Self, ReadError> {
        let Entry { id, key, generation, run, at: journaled, body } = entry;
        let encoded = postcard::to_stdvec(body).map_err(|error| ReadError::Row {
            row: format!("the dead letter of entry {id}"),
            problem: error.to_string(),
        })?;
        let body = encoded::to_text(&encoded);
        let (key, generation, run, journaled) = (key.clone(), *generation, *run, *journaled);
        Ok(Self { number, key, generation, run, journaled, body, problem, again: false, at })
    }

    /// Refused for this reason; none: to be sent again.
    pub(super) fn judge(&mut self, problem: Option<String>) {
        self.again = problem.is_none();
        self.problem = problem.or(self.problem.take());
    }

    pub(super) fn refused(self, sink: &str, id: EntryId) -> Result<RefusedEntry, ReadError> {
        let Self { number, key, generation, run, journaled, body, problem, again, at } = self;
        let damaged = |problem: &str| ReadError::Row { row: name(sink, id.sequence), problem: problem.to_owned() };
        let bytes = encoded::from_text(&body).ok_or_else(|| damaged("its entry is not base64"))?;
        let body: Body = postcard::from_bytes(&bytes).map_err(|_| damaged("its entry is malformed"))?;
        let entry = Entry { id, key, generation, run, at: journaled, body };
        Ok(RefusedEntry { number, entry, problem, again, at })
    }
}

pub(super) fn name(sink: &str, sequence: u64) -> String {
    format!("the dead letter of entry {sequence} of sink {sink}")
}
