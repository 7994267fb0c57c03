//! What is written together, what comes of it, and how its entries are encoded before the writer gets them.

use serde::{Deserialize, Serialize};
use tidewaiter_core::journal::{Body, Marker, Packed};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{CommitFailure, RunReport};
use tidewaiter_core::state::{Actor, TypeState};
use tidewaiter_core::time::UnixMillis;
use tidewaiter_core::token::SyncToken;
use utoipa::ToSchema;

use super::consumer::ConsumerError;
use super::dead_letter::{Letters, Told};
use super::seal::{Keys, sealed};
use super::segment::{EncodeError, Encoder, Head, Segment};
use super::store::{Full, Prepared};

/// What is to be written together.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Of which type.
    pub key: TypeKey,
    /// The revision that must be stored for this to happen; 0: nothing may be stored yet.
    pub expected_revision: u64,
    /// The state to store; its revision is the next one. Its generation is that of the entries.
    pub state: TypeState,
    /// Staged before: published first.
    pub staged: Vec<StagedSegment>,
    /// Deltas to journal, in source order.
    pub batches: Vec<Packed>,
    /// Dead letters that come and go.
    pub letters: Letters,
    /// What an operator did and who: journaled before the deltas.
    pub marker: Option<(Marker, Actor)>,
    /// The run that commits; none for an operator's act.
    pub run: Option<u64>,
    /// The run is over with this commit.
    pub report: Option<RunReport>,
    /// When it is journaled.
    pub at: UnixMillis,
}

/// A segment that is written and not published: nobody sees it, and nobody ever will unless a commit names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedSegment {
    /// Its number.
    pub(crate) number: u64,
    /// Entries in it.
    pub(crate) count: u32,
    /// Its size.
    pub(crate) bytes: u64,
}

/// The sequences that a commit got. `last < first`: it had no entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Of its first entry.
    pub first: u64,
    /// Of its last entry.
    pub last: u64,
}

/// Why a commit did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Somebody else wrote the state meanwhile. Nothing of the commit is stored.
    #[error("the state was written by somebody else meanwhile")]
    Conflict,
    /// There is no room. Nothing of the commit is stored.
    #[error(transparent)]
    Full(#[from] Full),
    /// A consumer can't do that.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// The storage engine failed, in its words. If the disk took the commit before it reported the failure, all of the commit
    /// is stored, otherwise nothing: read the state again before going on.
    #[error("the db could not write: {0}")]
    Storage(String),
}

impl From<CommitError> for CommitFailure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => Self::Conflict,
            CommitError::Full(full) => Self::Full(full.to_string()),
            CommitError::Consumer(error) => Self::Storage(error.to_string()),
            CommitError::Storage(message) => Self::Storage(message),
        }
    }
}

impl From<EncodeError> for CommitError {
    fn from(error: EncodeError) -> Self {
        Self::Storage(error.to_string())
    }
}

/// A row of the token's history: what was stored at the end of a run, by an operator, or when the kind of state changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenChange {
    /// The revision of the state.
    pub revision: u64,
    /// Its generation.
    pub generation: u64,
    /// When it was committed.
    pub at: UnixMillis,
    /// Who wrote it.
    pub by: Actor,
    /// Why the state is what it is.
    pub why: String,
    /// The name of the state.
    pub state: String,
    /// The token that was held from then on.
    pub token: Option<SyncToken>,
    /// The run that wrote it; none for an operator's act.
    pub run: Option<u64>,
}

impl TokenChange {
    pub(super) fn new(state: &TypeState, run: Option<u64>, at: UnixMillis) -> Self {
        Self {
            revision: state.revision,
            generation: state.generation,
            at,
            by: state.changed_by.clone(),
            why: state.why.clone(),
            state: state.sync.name().to_owned(),
            token: state.sync.token().cloned(),
            run,
        }
    }
}

/// Encodes the entries here, on the caller's side, so that the writer only writes. Lets others work after each segment.
pub(super) async fn prepare(commit: Commit, keys: &Keys) -> Result<Prepared, EncodeError> {
    let Commit { key, expected_revision, state, staged, batches, mut letters, marker, run, report, at } = commit;
    let marked = marker.is_some();
    let mut segments = Vec::new();
    for Told { generation, run, deltas } in std::mem::take(&mut letters.told) {
        let head = Head { key: key.clone(), generation, run, at };
        segments.extend(encode(&head, None, vec![deltas], keys).await?);
    }
    if marked || batches.iter().any(|batch| batch.count > 0) {
        let head = Head { key: key.clone(), generation: state.generation, run, at };
        segments.extend(encode(&head, marker, batches, keys).await?);
    }
    Ok(Prepared { key, expected_revision, state, staged, segments, letters, marked, run, report, at })
}

pub(super) async fn encode(
    head: &Head,
    marker: Option<(Marker, Actor)>,
    batches: Vec<Packed>,
    keys: &Keys,
) -> Result<Vec<Segment>, EncodeError> {
    let mut encoder = Encoder::new(head)?;
    if let Some((marker, by)) = marker {
        encoder.push(&Body::Marker { marker, by })?;
    }
    for batch in batches {
        let mut rest = batch.bytes.as_slice();
        while encoder.push_packed(&mut rest)? {
            tokio::task::yield_now().await;
        }
    }
    Ok(sealed(encoder.finish(), keys))
}
