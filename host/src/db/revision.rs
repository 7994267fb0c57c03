//! Which file of its connector a connection runs, and which files were met. Performs nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::{ConnectorName, TypeName};
use tidewaiter_core::time::UnixMillis;
use utoipa::ToSchema;

use crate::driver::settings::WrittenFor;

/// What a connection runs. Files are named by their hash, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Placement {
    /// Of which connector. What is known of another one doesn't count.
    pub connector: ConnectorName,
    /// What it runs.
    pub sha256: String,
    /// What it goes back to if that fails; none: it is not on trial.
    #[serde(default)]
    pub previous: Option<String>,
    /// Runs with changes that ended well while it is on trial.
    #[serde(default)]
    pub passed: BTreeMap<TypeName, u32>,
    /// What it ran well with before that; none: it is not known.
    #[serde(default)]
    pub before: Option<String>,
    /// What it went back from, and doesn't run again by itself.
    #[serde(default)]
    pub refused: Option<RefusedRevision>,
    /// For which version of its connector's settings its settings were written; none: it is not known.
    #[serde(default)]
    pub settings: Option<WrittenFor>,
}

/// A file that a connection doesn't run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RefusedRevision {
    /// Which.
    pub sha256: String,
    /// Why, for people.
    pub why: String,
    /// Since when.
    pub at: UnixMillis,
    /// What it waits for.
    #[serde(default)]
    pub waits: Waits,
}

/// What a file waits for that a connection doesn't run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Waits {
    /// Somebody who says that it is run all the same.
    #[default]
    Retry,
    /// A change of what is trusted, configured or approved: it is looked at again whenever that is.
    #[serde(alias = "trust")]
    Change,
}

/// A file of a connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Revision {
    /// Its hash.
    pub sha256: String,
    /// What it says of itself.
    pub version: String,
    /// Its size.
    pub bytes: u64,
    /// When it was met first.
    pub seen: UnixMillis,
    /// When it was met last.
    pub last_seen: UnixMillis,
    /// Why it was trusted then.
    #[serde(default)]
    pub trust: String,
    /// The format of the tokens that it writes; empty: it doesn't say.
    #[serde(default)]
    pub token_format: String,
}

impl Revision {
    /// By when they were met last, and first.
    pub fn newest_first(revisions: &mut [Self]) {
        revisions.sort_by_key(|revision| Reverse((revision.last_seen, revision.seen)));
    }
}
