//! What is known of an object type between runs; one row of the db each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Role;
use crate::guard::Hour;
use crate::name::AccessName;
use crate::text::erase;
use crate::time::UnixMillis;
use crate::token::SyncToken;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The host itself.
    Host,
    /// Somebody on this machine, by user id.
    Uid(u32),
    /// Somebody with the one bearer token that the API had. Only in what was written before there were several.
    Api,
    /// The program that embeds the host.
    Program,
    /// Somebody with an access token.
    Access {
        /// What it is called.
        name: AccessName,
        /// Its role then.
        role: Role,
    },
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host"),
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Api => f.write_str("api"),
            Self::Program => f.write_str("the program"),
            Self::Access { name, .. } => write!(f, "api {name}"),
        }
    }
}

/// Where live sync stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncState {
    /// No token is held: the next run asks for the latest one.
    New,
    /// No token is held, and the next run passes none to `sync`: the source had no change when it was asked, so that its
    /// first change is not skipped.
    Origin,
    /// The next run goes on from this token.
    Live(SyncToken),
    /// Changes are found by comparison, and there is no token.
    Compared,
    /// The source refused the token. Nothing runs until an operator sets or resets it.
    TokenLost {
        /// The refused token.
        token: Option<SyncToken>,
        /// In the connector's words, or ours.
        reason: String,
        /// The source said so, and will again. Otherwise it was we who didn't ask it: the token is good again once what it depends on is put back.
        #[serde(default)]
        by_source: bool,
    },
}

impl SyncState {
    /// Takes a uid out of its words. Answers whether it was in them.
    pub fn forget(&mut self, uid: &str) -> bool {
        match self {
            Self::TokenLost { reason, .. } => erase(reason, uid),
            Self::New | Self::Origin | Self::Live(_) | Self::Compared => false,
        }
    }

    /// The name of the state.
    pub fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Origin => "origin",
            Self::Live(_) => "live",
            Self::Compared => "compared",
            Self::TokenLost { .. } => "token-lost",
        }
    }

    /// The token that is held, usable or not.
    pub fn token(&self) -> Option<&SyncToken> {
        match self {
            Self::New | Self::Origin | Self::Compared => None,
            Self::Live(token) => Some(token),
            Self::TokenLost { token, .. } => token.as_ref(),
        }
    }
}

/// What a token depends on: by name, a hash of what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenBasis(pub BTreeMap<String, u64>);

impl TokenBasis {
    /// The name of the format that the token was written in.
    pub const FORMAT: &str = "the format of the token";

    /// Whether the token has one of these formats, by their hashes, as far as both are known.
    pub fn is_read(&self, formats: &BTreeSet<u64>) -> bool {
        let format = self.0.get(Self::FORMAT);
        formats.is_empty() || format.is_none_or(|format| formats.contains(format))
    }

    /// Why the token no longer means what it meant, if so. What only one of the two knows says nothing: a connector may have learnt of it since.
    /// `formats`: hashes of those that its connector reads by now; none: it doesn't say.
    pub fn stale(&self, now: &Self, formats: &BTreeSet<u64>) -> Option<String> {
        if !self.is_read(formats) {
            return Some(format!("{} is none that this version of its connector reads", Self::FORMAT));
        }
        let other =
            |(name, hash): &(&String, &u64)| *name != Self::FORMAT && now.0.get(*name).is_some_and(|now| now != *hash);
        let (what, _) = self.0.iter().find(other)?;
        Some(format!("{what} was changed since it was stored, and what a token means depends on that"))
    }
}

/// The whole row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeState {
    /// Where live sync stands.
    pub sync: SyncState,
    /// Counts every write of this row; a commit that expects another one meets `Conflict`.
    pub revision: u64,
    /// Counts an operator's acts on the token. Exactly once holds within one.
    pub generation: u64,
    /// Runs that failed since the last one that didn't.
    pub failures: u32,
    /// Nothing runs, in these words, until an operator decides: more came than the guard lets pass.
    #[serde(default)]
    pub held: Option<String>,
    /// By whom and when it was paused, if it is: nothing runs until an operator lets it go on.
    #[serde(default)]
    pub paused: Option<String>,
    /// An operator released what was held: nothing is counted until a run has come to its end.
    #[serde(default)]
    pub released: bool,
    /// What was journaled in this hour.
    #[serde(default)]
    pub hour: Hour,
    /// The generation since which a pass is owed: what an operator ordered for a new type or a lost token.
    #[serde(default)]
    pub pass_owed: Option<u64>,
    /// What the token depends on, as it was when that was stored.
    #[serde(default)]
    pub token_basis: TokenBasis,
    /// Why the state is what it is, for the log: `first run`, `reset by uid 1000 at 2026-03-01T08:00:00Z`.
    pub why: String,
    /// When the row was written.
    pub changed_at: UnixMillis,
    /// Who wrote it.
    pub changed_by: Actor,
}

impl TypeState {
    /// The state of a type that never ran. Revision 0: nothing is stored yet.
    pub fn first(from: From, now: UnixMillis) -> Self {
        let (sync, why) = match from {
            From::Latest => (SyncState::New, "first run"),
            From::Beginning => (SyncState::Origin, "first run, from the beginning"),
        };
        let why = why.to_owned();
        Self {
            sync,
            revision: 0,
            generation: 0,
            failures: 0,
            held: None,
            paused: None,
            released: false,
            hour: Hour::default(),
            pass_owed: None,
            token_basis: TokenBasis::default(),
            why,
            changed_at: now,
            changed_by: Actor::Host,
        }
    }

    /// The name of the state: that of live sync, or `held`, or `paused`.
    pub fn name(&self) -> &'static str {
        match () {
            () if self.held.is_some() => "held",
            () if self.paused.is_some() => "paused",
            () => self.sync.name(),
        }
    }
}

/// What becomes of a type whose token the source refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTokenLost {
    /// Nothing runs until an operator sets or resets the token.
    #[default]
    Stop,
    /// The next run asks for the latest one: what happened in between is skipped, and the journal has a marker that says so.
    FromLatest,
    /// As `FromLatest`, and then a pass over all objects finds what happened in between.
    Reconcile,
}

impl OnTokenLost {
    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::FromLatest => "from-latest",
            Self::Reconcile => "reconcile",
        }
    }
}

/// Where a new connection begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// At the latest change: only what happens from now on.
    #[default]
    Latest,
    /// At the first change that the source can still report.
    Beginning,
}
