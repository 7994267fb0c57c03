//! Entries of the journal: what consumers get, in one gap-free sequence per db.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::TypeKey;
use crate::object::SyncDelta;
use crate::state::Actor;
use crate::time::UnixMillis;

/// Which db an entry's sequence belongs to. A restored db is another incarnation, so that its sequences can't be taken for
/// those of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The id of an entry: `INCARNATION-SEQUENCE`. The same entry has it always; consumers recognise repeats by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryId {
    /// Of which db.
    pub incarnation: Incarnation,
    /// Its place, from 1.
    pub sequence: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.incarnation, self.sequence)
    }
}

/// A text that is not an entry's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an entry's id, as in 00c0ffee00c0ffee-42")]
pub struct BadEntryId(String);

impl FromStr for EntryId {
    type Err = BadEntryId;
    fn from_str(text: &str) -> Result<Self, BadEntryId> {
        let bad = || BadEntryId(text.to_owned());
        let (incarnation, sequence) = text.split_once('-').ok_or_else(bad)?;
        let incarnation = u64::from_str_radix(incarnation, 16).map_err(|_| bad())?;
        Ok(Self { incarnation: Incarnation(incarnation), sequence: sequence.parse().map_err(|_| bad())? })
    }
}

/// What an operator did to a token; consumers get it like a change, because what comes after it may repeat or skip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Marker {
    /// The token was set to a value.
    TokenSet,
    /// The token was thrown away; the next run asks for the latest.
    TokenReset,
    /// The db was restored from a copy: what was journaled after the copy was made is not here, and comes again.
    Restored,
    /// The token was set to one that was held before: what comes after it comes again.
    TokenRewound,
    /// What the guard held was thrown away, and the token with it; the next run asks for the latest.
    Discarded,
    /// The source refused the token, and as it is configured the next run asks for the latest: what happened in between is skipped.
    TokenLost,
}

impl Marker {
    /// The name of the case, for logs and answers.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TokenSet => "token-set",
            Self::TokenReset => "token-reset",
            Self::Restored => "restored",
            Self::TokenRewound => "token-rewound",
            Self::Discarded => "discarded",
            Self::TokenLost => "token-lost",
        }
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// A change of the source.
    Delta(SyncDelta),
    /// An operator's act.
    Marker {
        /// Which.
        marker: Marker,
        /// Who.
        by: Actor,
    },
    /// What it said was erased; the place stays.
    Erased {
        /// By whom.
        by: Actor,
        /// When.
        at: UnixMillis,
    },
    /// An object as it is now, read on purpose and not because it changed. It may say what was said before.
    Read(SyncDelta),
}

impl Body {
    /// What it says of an object, if it does.
    pub fn delta(&self) -> Option<&SyncDelta> {
        match self {
            Self::Delta(delta) | Self::Read(delta) => Some(delta),
            Self::Marker { .. } | Self::Erased { .. } => None,
        }
    }
}

/// Deltas in the bytes of the journal. They are packed where a connector hands them over, by the thread that has them in its cache,
/// so that nothing of the host moves them around as objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// How many.
    pub count: u32,
    /// How many of them are deletions.
    pub deletes: u32,
    /// The bytes; only the db reads them.
    pub bytes: Vec<u8>,
}

/// An entry as it is read from the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Where it comes from.
    pub key: TypeKey,
    /// The token generation it was written in.
    pub generation: u64,
    /// The run that wrote it; none for an operator's act.
    pub run: Option<u64>,
    /// When it was journaled.
    pub at: UnixMillis,
    /// What it says.
    pub body: Body,
}
