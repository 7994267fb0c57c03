//! The service functions as data: what can be asked, what is answered, and what can go wrong, each by a stable code. Whoever
//! asks (this process, another one over the socket) gets the same answer.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tidewaiter_core::journal::{BadEntryId, EntryId};
use tidewaiter_core::name::{ConnectionName, TypeKey};
use tidewaiter_core::run::{RunReport, Trigger};
use tidewaiter_core::schedule::Refusal;
use tidewaiter_core::state::Actor;
use tidewaiter_core::token::SyncToken;

use super::view::{ConnectionView, TokenView, TypeView};
use super::{Host, HostError};
use crate::db::TokenChange;
use crate::sink::render;

/// Entries in one answer.
const CHANGES_MAX: usize = 10_000;
/// Rows of history in one answer: all that are kept.
const ROWS_MAX: usize = 1000;
/// The longest wait for an entry.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// Something to be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Live sync of a type, now.
    Sync(TypeKey),
    /// The token of a type.
    Token(TypeKey),
    /// Set the token of a type.
    TokenSet {
        /// Which.
        key: TypeKey,
        /// To this.
        token: SyncToken,
    },
    /// Throw the token of a type away.
    TokenReset(TypeKey),
    /// What became of the token of a type.
    TokenHistory {
        /// Which.
        key: TypeKey,
        /// At most that many rows.
        limit: usize,
    },
    /// Entries of the journal.
    Changes {
        /// Those after this place.
        after: After,
        /// At most that many.
        limit: usize,
        /// Wait that long if there are none.
        wait_ms: u64,
    },
    /// All types of all connections.
    Connections,
    /// One connection.
    Connection(ConnectionName),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "named after what was asked")]
pub enum Answer {
    Sync(RunReport),
    Token(TokenView),
    TokenHistory(Vec<TokenChange>),
    /// As `sink::render` has them.
    Changes(Vec<Json>),
    Connections(Vec<TypeView>),
    Connection(Box<ConnectionView>),
}

/// A place in the journal: `0` is its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum After {
    /// By sequence, in whichever journal this is.
    Sequence(u64),
    /// By id.
    Id(EntryId),
}

impl FromStr for After {
    type Err = BadEntryId;
    fn from_str(text: &str) -> Result<Self, BadEntryId> {
        text.parse().map(Self::Sequence).or_else(|_| text.parse().map(Self::Id))
    }
}

impl TryFrom<String> for After {
    type Error = BadEntryId;
    fn try_from(text: String) -> Result<Self, BadEntryId> {
        text.parse()
    }
}

impl From<After> for String {
    fn from(after: After) -> Self {
        after.to_string()
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(sequence) => write!(f, "{sequence}"),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

/// What went wrong, in the words that go over a wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Which.
    pub code: ProblemCode,
    /// For people.
    pub message: String,
}

/// Stable codes of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// It was not understood.
    BadRequest,
    /// No such type or connection.
    Unknown,
    /// The token is lost.
    TokenLost,
    /// The host shuts down.
    ShuttingDown,
    /// Somebody else wrote the state meanwhile.
    Changed,
    /// An entry of another journal.
    OtherJournal,
    /// The db, or the host itself.
    Host,
}

impl HostError {
    /// The stable code.
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::Refused(Refusal::Unknown(_)) | Self::UnknownConnection(_) => ProblemCode::Unknown,
            Self::Refused(Refusal::TokenLost { .. }) => ProblemCode::TokenLost,
            Self::Refused(Refusal::ShuttingDown) => ProblemCode::ShuttingDown,
            Self::Changed { .. } => ProblemCode::Changed,
            Self::TokenTooLarge { .. } => ProblemCode::BadRequest,
            Self::OtherJournal { .. } => ProblemCode::OtherJournal,
            Self::Read(_) | Self::Write(_) | Self::Ended(_) => ProblemCode::Host,
        }
    }
}

impl From<HostError> for Problem {
    fn from(error: HostError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl Host {
    /// Does what is asked, in the name of whoever asks.
    ///
    /// # Errors
    /// Those of the function that is asked for.
    pub async fn answer(&self, ask: Ask, by: Actor) -> Result<Answer, HostError> {
        Ok(match ask {
            Ask::Sync(key) => Answer::Sync(self.sync(key, Trigger::Command).await?),
            Ask::Token(key) => Answer::Token(self.token(&key)?),
            Ask::TokenSet { key, token } => Answer::Token(self.token_set(&key, token, None, by).await?),
            Ask::TokenReset(key) => Answer::Token(self.token_reset(&key, None, by).await?),
            Ask::TokenHistory { key, limit } => Answer::TokenHistory(self.token_history(&key, limit.min(ROWS_MAX))?),
            Ask::Changes { after, limit, wait_ms } => {
                let wait = Duration::from_millis(wait_ms).min(WAIT_MAX);
                let entries = self.changes(after, limit.min(CHANGES_MAX), wait).await?;
                Answer::Changes(entries.iter().map(render::entry).collect())
            }
            Ask::Connections => Answer::Connections(self.types(None)?),
            Ask::Connection(name) => Answer::Connection(Box::new(self.connection(&name)?)),
        })
    }
}
