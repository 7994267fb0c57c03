//! What operators do to the state of a type: the token is set, reset or taken back, and what the guard held is let pass or thrown
//! away. Each is one transaction on top of whatever a run wrote meanwhile, and wins over a run under way.

use serde::{Deserialize, Serialize};
use tidewaiter_core::guard::Hour;
use tidewaiter_core::journal::Marker;
use tidewaiter_core::name::{ConnectionName, TypeKey, TypeName};
use tidewaiter_core::schedule::Refusal;
use tidewaiter_core::state::{Actor, SyncState, TokenBasis, TypeState};
use tidewaiter_core::time::UnixMillis;
use tidewaiter_core::token::{SyncToken, TOKEN_BYTES_MAX};

use super::act::{Acting, Written};
use super::view::TokenView;
use super::{Host, HostError};
use crate::config::TypeConfig;
use crate::db::{Db, KEPT, Letters, TokenChange};

/// Types of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TypesOf {
    /// Which connection.
    pub connection: ConnectionName,
    /// The one type of it; none: all.
    pub object_type: Option<TypeName>,
}

/// What is done.
#[derive(Clone, Debug)]
enum Act {
    Reset,
    Set(SyncToken),
    /// To the row of its history with this revision; none: to the newest one with another token than is held.
    Rewind(Option<u64>),
    Release,
    Discard,
    Pause,
    Resume,
}

impl Act {
    /// As the audit and the log have it.
    fn name(&self) -> &'static str {
        match self {
            Self::Reset => "token reset",
            Self::Set(_) => "token set",
            Self::Rewind(_) => "token rewind",
            Self::Release => "guard release",
            Self::Discard => "guard discard",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// What it makes of a state, and what the journal has of it.
    fn perform(&self, key: &TypeKey, stored: &TypeState, db: &Db) -> Result<(TypeState, Option<Marker>), HostError> {
        if stored.sync == SyncState::Compared && !matches!(self, Self::Release | Self::Pause | Self::Resume) {
            let what = match self {
                Self::Discard => "its changes are found by comparison: mend the source, then release it",
                _ => "its changes are found by comparison, and it has no token",
            };
            let what = what.to_owned();
            return Err(HostError::CannotRead { key: key.clone(), what });
        }
        let not_held = || HostError::NotHeld { key: key.clone() };
        let (sync, marker, verb) = match self {
            Self::Reset => (SyncState::New, Marker::TokenReset, "reset"),
            Self::Set(token) => (SyncState::Live(token.clone()), Marker::TokenSet, "set"),
            Self::Rewind(to) => {
                let history = db.token_history(key, usize::try_from(KEPT).unwrap_or(usize::MAX))?;
                (earlier(key, stored, &history, *to)?, Marker::TokenRewound, "rewound")
            }
            Self::Discard if stored.held.is_none() => return Err(not_held()),
            Self::Discard => (SyncState::New, Marker::Discarded, "discarded"),
            Self::Release if stored.held.is_none() => return Err(not_held()),
            Self::Pause => {
                let paused = Some(String::new());
                return Ok((TypeState { paused, why: "paused".to_owned(), ..stored.clone() }, None));
            }
            Self::Resume if stored.paused.is_none() => return Err(HostError::NotPaused { key: key.clone() }),
            Self::Resume => {
                return Ok((TypeState { paused: None, why: "resumed".to_owned(), ..stored.clone() }, None));
            }
            Self::Release => {
                let why = "released".to_owned();
                let released = TypeState { held: None, released: true, hour: Hour::default(), why, ..stored.clone() };
                return Ok((released, None));
            }
        };
        let (generation, why) = (stored.generation + 1, verb.to_owned());
        // Whoever sets a token says that it is right for what is configured.
        let (failures, held, released, token_basis) = (0, None, false, TokenBasis::default());
        let state = TypeState { sync, generation, why, failures, held, released, token_basis, ..stored.clone() };
        Ok((state, Some(marker)))
    }
}

/// Where an earlier row of the history was.
fn earlier(
    key: &TypeKey,
    stored: &TypeState,
    history: &[TokenChange],
    to: Option<u64>,
) -> Result<SyncState, HostError> {
    let resumable = |row: &TokenChange| match (row.state.as_str(), &row.token) {
        ("live", Some(token)) => Some(SyncState::Live(token.clone())),
        ("origin", None) => Some(SyncState::Origin),
        _ => None,
    };
    let fits_again = matches!(stored.sync, SyncState::TokenLost { by_source: false, .. });
    let found = match to {
        Some(revision) => history.iter().find(|row| row.revision == revision).and_then(resumable),
        // One that was refused because of the settings fits again once they are put back; one that the source refused doesn't.
        None => history.iter().filter_map(resumable).find(|sync| fits_again || sync.token() != stored.sync.token()),
    };
    found.ok_or_else(|| HostError::NoSuchToken { key: key.clone(), revision: to })
}

/// An act on a type, and on whose terms.
struct Order {
    on: Acting,
    config: TypeConfig,
    act: Act,
    expected: Option<u64>,
    by: Actor,
}

impl Order {
    /// Answers the state before and after.
    async fn perform(self) -> Result<(TypeState, TypeState), HostError> {
        loop {
            let at = self.on.clock.now();
            let (stored, state, marker) = self.next(at)?;
            let written = Written {
                expected_revision: stored.revision,
                state: state.clone(),
                marker: marker.map(|marker| (marker, self.by.clone())),
                letters: Letters::default(),
                at,
            };
            if self.on.write(written).await? {
                let TypeKey { connection, object_type } = &self.on.key;
                tracing::info!(
                    target: "tidewaiter::run", %connection, r#type = %object_type, why = state.why, state = state.name(),
                    "{}", self.act.name()
                );
                return Ok((stored, state));
            }
        }
    }

    /// What is stored, what is to be stored, and what the journal has of it.
    fn next(&self, now: UnixMillis) -> Result<(TypeState, TypeState, Option<Marker>), HostError> {
        let Acting { db, key, .. } = &self.on;
        let stored = db.state(key)?.unwrap_or_else(|| self.config.first_state(now));
        if let Some(expected) = self.expected.filter(|expected| *expected != stored.revision) {
            return Err(HostError::Changed { key: key.clone(), expected, found: stored.revision });
        }
        let (mut state, marker) = self.act.perform(key, &stored, db)?;
        state.why = format!("{} by {} at {now}", state.why, self.by);
        if matches!(self.act, Act::Pause) {
            state.paused = Some(format!("by {} at {now}", self.by));
        }
        state.revision = stored.revision + 1;
        (state.changed_at, state.changed_by) = (now, self.by.clone());
        Ok((stored, state, marker))
    }
}

impl Host {
    /// The token of a type, and the state around it.
    ///
    /// # Errors
    /// Unknown type, or the db.
    pub fn token(&self, key: &TypeKey) -> Result<TokenView, HostError> {
        self.token_of(key, &self.type_config(key)?)
    }

    /// The same, of every type.
    ///
    /// # Errors
    /// The db.
    pub fn tokens(&self) -> Result<Vec<TokenView>, HostError> {
        let config = self.config();
        let of = |key: TypeKey| self.token_of(&key, &config.connections[&key.connection].types[&key.object_type]);
        config.keys().map(of).collect()
    }

    pub(super) fn token_of(&self, key: &TypeKey, config: &TypeConfig) -> Result<TokenView, HostError> {
        let stored = self.db.state(key)?.unwrap_or_else(|| config.first_state(self.clock.now()));
        Ok(TokenView::new(key, stored))
    }

    /// What became of the token of a type, newest first.
    ///
    /// # Errors
    /// Unknown type, or the db.
    pub fn token_history(&self, key: &TypeKey, limit: usize) -> Result<Vec<TokenChange>, HostError> {
        self.type_config(key)?;
        Ok(self.db.token_history(key, limit)?)
    }

    /// Throws the token away: the next run asks for the latest one, and syncs nothing. Wins over a run under way. With `expected`,
    /// only if the state has that revision. Answers the state before it.
    ///
    /// # Errors
    /// Unknown type, another revision, or the db.
    pub async fn token_reset(&self, key: &TypeKey, expected: Option<u64>, by: Actor) -> Result<TokenView, HostError> {
        self.state_act(key, Act::Reset, expected, by).await.map(|(before, _)| before)
    }

    /// Sets the token: the next run goes on from it. Wins over a run under way. With `expected`, only if the state has that
    /// revision. Answers the state after it.
    ///
    /// # Errors
    /// As `token_reset`; or the token is too large.
    pub async fn token_set(
        &self,
        key: &TypeKey,
        token: SyncToken,
        expected: Option<u64>,
        by: Actor,
    ) -> Result<TokenView, HostError> {
        if token.size() > TOKEN_BYTES_MAX {
            return Err(HostError::TokenTooLarge { bytes: token.size() });
        }
        self.state_act(key, Act::Set(token), expected, by).await.map(|(_, after)| after)
    }

    /// Takes the token back to one that its history has: what came after it comes again. `to` is the revision of a row; none: the
    /// newest row with another token than is held. Answers the state after it.
    ///
    /// # Errors
    /// As `token_reset`; or there is no such row, or none that a run can go on from.
    pub async fn token_rewind(&self, key: &TypeKey, to: Option<u64>, by: Actor) -> Result<TokenView, HostError> {
        self.state_act(key, Act::Rewind(to), None, by).await.map(|(_, after)| after)
    }

    /// Lets what the guard held pass: the guard counts nothing until a run has come to its end. Answers the state after it.
    ///
    /// # Errors
    /// Unknown type, it isn't held, or the db.
    pub async fn release(&self, key: &TypeKey, by: Actor) -> Result<TokenView, HostError> {
        self.state_act(key, Act::Release, None, by).await.map(|(_, after)| after)
    }

    /// Throws away what the guard held, and the token with it: the next run asks for the latest one. Answers the state before it.
    ///
    /// # Errors
    /// As `release`.
    pub async fn discard(&self, key: &TypeKey, by: Actor) -> Result<TokenView, HostError> {
        self.state_act(key, Act::Discard, None, by).await.map(|(before, _)| before)
    }

    /// Pauses types of a connection, or all of them: a run under way ends, and none begins until they are resumed. Whoever asks for a reconciliation gets it all the
    /// same. Answers the states after it.
    ///
    /// # Errors
    /// Unknown, or the db.
    pub async fn pause(&self, of: &TypesOf, by: Actor) -> Result<Vec<TokenView>, HostError> {
        self.each(of, Act::Pause, |_| true, by).await
    }

    /// Lets types of a connection that are paused go on.
    ///
    /// # Errors
    /// As `pause`; or nothing of it is paused.
    pub async fn resume(&self, of: &TypesOf, by: Actor) -> Result<Vec<TokenView>, HostError> {
        self.each(of, Act::Resume, |view| view.paused.is_some(), by).await
    }

    /// Acts on those of the types that are so; on the first one all the same if none is.
    async fn each(
        &self,
        of: &TypesOf,
        act: Act,
        is_so: impl Fn(&TokenView) -> bool,
        by: Actor,
    ) -> Result<Vec<TokenView>, HostError> {
        let views = self.types_of(of)?.iter().map(|key| self.token(key)).collect::<Result<Vec<_>, _>>()?;
        let some = views.iter().any(&is_so);
        let mut after = Vec::new();
        for view in views.iter().filter(|view| !some || is_so(view)) {
            after.push(self.state_act(&view.key, act.clone(), None, by.clone()).await?.1);
        }
        Ok(after)
    }

    /// The types that are meant.
    fn types_of(&self, of: &TypesOf) -> Result<Vec<TypeKey>, HostError> {
        let config = self.config();
        let written = config.connections.get(&of.connection);
        let written = written.ok_or_else(|| HostError::UnknownConnection(of.connection.clone()))?;
        let key =
            |object_type: &TypeName| TypeKey { connection: of.connection.clone(), object_type: object_type.clone() };
        match &of.object_type {
            Some(object_type) => self.type_config(&key(object_type)).map(|_| vec![key(object_type)]),
            None => Ok(written.types.keys().map(key).collect()),
        }
    }

    async fn state_act(
        &self,
        key: &TypeKey,
        act: Act,
        expected: Option<u64>,
        by: Actor,
    ) -> Result<(TokenView, TokenView), HostError> {
        let config = self.type_config(key)?;
        let (audit, who, what, on) = (self.audit.clone(), by.clone(), act.name(), key.to_string());
        let order = Order { on: self.acting(key.clone()), config, act, expected, by };
        let done = async move {
            audit.act(&who, what, on).await?;
            order.perform().await
        };
        let (before, state) = self.act(done).await?;
        Ok((TokenView::new(key, before), TokenView::new(key, state)))
    }

    pub(super) fn type_config(&self, key: &TypeKey) -> Result<TypeConfig, HostError> {
        Ok(self.config().object_type(key).cloned().ok_or_else(|| Refusal::Unknown(key.clone()))?)
    }
}
