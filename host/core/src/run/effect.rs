//! What goes into the machine of a run and comes out of it.

use std::collections::BTreeSet;

use super::report::RunReport;
use crate::guard::{Guard, Tally};
use crate::journal::Marker;
use crate::limit::Limits;
use crate::state::{OnTokenLost, TokenBasis, TypeState};
use crate::token::SyncToken;

/// What an operator says of the runs of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The limits of each.
    pub limits: Limits,
    /// How much is journaled before somebody has looked.
    pub guard: Guard,
    /// What becomes of a refused token.
    pub on_token_lost: OnTokenLost,
    /// What a token of the type depends on. One that was stored with another basis is refused before it is shown to the connector.
    pub token_basis: TokenBasis,
    /// Hashes of the formats of token that the connector reads; none: it doesn't say.
    pub token_formats: BTreeSet<u64>,
    /// Its connector has to show first that it can: nothing is journaled before a run of it has come to its end.
    pub on_trial: bool,
}

/// What a run reads where it reads objects as they are now, and no changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which.
    pub filter: Filter,
    /// Where it goes on; none: at the beginning.
    pub page: Option<Vec<u8>>,
    /// Counts, and journals nothing.
    pub dry_run: bool,
}

/// Which objects are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All of the class.
    All,
    /// The one with this uid, if it is there.
    ByUid {
        /// Which.
        uid: String,
        /// If it isn't, that is what is journaled.
        gone: bool,
    },
    /// Those that a dead letter is about: the one that it names, under all its uids.
    Letter {
        /// Which dead letter.
        number: u64,
    },
    /// Some that a pass didn't find: those that aren't there are journaled as deleted.
    Missing {
        /// Which.
        uids: Vec<String>,
        /// How many the pass didn't find, these included.
        of: u64,
        /// How many objects the pass found.
        found: u64,
        /// However many that are: an operator said so.
        allowed: bool,
    },
}

/// What the machine needs to know of a batch; the driver holds the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchInfo {
    /// How many deltas, and deletions among them.
    pub tally: Tally,
    /// How many of them are kept out of the journal.
    pub kept: u64,
    /// How many that were kept before are settled by it.
    pub resolved: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The checkpoint that came with them.
    pub checkpoint: Option<SyncToken>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Call `get-latest-sync-token`.
    AskLatest {
        /// For the log.
        why: String,
    },
    /// Call `sync`.
    Sync {
        /// With this token.
        token: Option<SyncToken>,
        /// For the log.
        why: String,
    },
    /// Call `search`, of an instance that has read nothing yet.
    Search(Reading),
    /// Say what is read next in this pass.
    Next,
    /// Hold a batch that says that the object with this uid is gone, and report it.
    Gone {
        /// Its uid.
        uid: String,
    },
    /// Write the first `batches` that are held where nobody sees them: no token covers them yet, and they are too many to hold.
    Stage {
        /// How many of the batches held, from the oldest.
        batches: usize,
    },
    /// Forget the first `batches` that are held: of a dry run only the count is wanted.
    Forget {
        /// How many of the batches held, from the oldest.
        batches: usize,
    },
    /// Journal the first of what is staged and then the first `batches` that are held, and store the state, in one transaction, if the
    /// stored revision is the expected one.
    Commit {
        /// How many stagings, from the oldest.
        published: usize,
        /// How many of the batches held, from the oldest.
        batches: usize,
        /// The revision that must be stored for this to happen.
        expected_revision: u64,
        /// The state to store; its revision is the next one.
        state: TypeState,
        /// What is journaled before the batches, in the host's name.
        marker: Option<Marker>,
        /// The run is over with this commit: record it.
        report: Option<RunReport>,
    },
    /// Answer `stop` to the connector's next `emit`.
    Stop,
    /// Answer the waiting `flush`.
    Flushed {
        /// Everything up to the last checkpoint is durable.
        durable: bool,
    },
    /// The run is over. The instance and whatever batches are still held are dropped.
    Finish {
        /// What to tell.
        report: RunReport,
        /// The state after it, as far as this run knows.
        state: TypeState,
    },
}

/// Why a commit did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitFailure {
    /// Somebody else wrote the state: an operator's act.
    Conflict,
    /// There is no room, in the db's words.
    Full(String),
    /// The db could not write.
    Storage(String),
}
