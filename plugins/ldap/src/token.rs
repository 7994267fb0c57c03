//! The sync token: JSON, so that an operator can read and write it. It names what it is a position in, and is refused by everything
//! else.

use serde::{Deserialize, Serialize};
use tidewaiter_connector::{Error, SyncToken};

use crate::selection::Selection;
use crate::settings::Feed;

/// The name of the format.
pub(crate) const FORMAT: &str = "ldap1";

/// Where reading goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Position {
    /// After what a server gave this for.
    Cookie(String),
    /// The same, where it is no text: in Base64.
    CookieBase64(String),
    /// After the change with this number, whose entry in the log was given this when it was made.
    Change(u64, Option<String>),
    /// After everything that was changed in this second or before it.
    Time(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token<P> {
    format: String,
    /// What it is a position in.
    of: Of,
    /// The server that gave it.
    server: String,
    position: P,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    base: String,
    scope: u8,
    filter: String,
    uid: String,
    by: String,
}

/// Turns positions of a class on a server into tokens and back.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    of: Of,
    server: String,
}

impl Tokens {
    pub(crate) fn of(selection: &Selection<'_>, feed: &Feed, server: String) -> Self {
        let class = selection.class;
        let of = Of {
            base: class.base.clone(),
            scope: class.scope as u8,
            filter: selection.filter.to_string(),
            uid: class.uid.clone(),
            by: feed.name().to_owned(),
        };
        Self { of, server }
    }

    pub(crate) fn write(&self, position: &Position) -> SyncToken {
        let Self { of, server } = self.clone();
        let token = Token { format: FORMAT.to_owned(), of, server, position };
        // Neither maps nor anything that can fail are in it.
        serde_json::to_string(&token).unwrap_or_default().into()
    }

    pub(crate) fn read(&self, token: &SyncToken) -> Result<Position, Error> {
        let token: Token<Position> = serde_json::from_str(token.as_text()?)
            .map_err(|error| bad(format!("is none of this connector: {error}")))?;
        if token.format != FORMAT {
            return Err(bad(format!("has the format {:?}; {FORMAT:?} is read", token.format)));
        }
        if token.of != self.of {
            return Err(bad(format!("is of {}; the settings say {}", token.of, self.of)));
        }
        if token.server != self.server {
            return Err(bad(format!(
                "is of another server or tree ({:?}); this is {:?}, whose changes have an order of their own",
                token.server, self.server
            )));
        }
        Ok(token.position)
    }
}

impl std::fmt::Display for Of {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { base, scope, filter, uid, by } = self;
        let scope = ["", " (the entry alone)", " (one level)"].get(3 - usize::from(*scope).clamp(1, 3)).unwrap_or(&"");
        write!(f, "{filter} below {base:?}{scope} with the uid {uid} by {by}")
    }
}

/// A token that can't be gone on from.
pub(crate) fn bad(problem: impl std::fmt::Display) -> Error {
    Error::invalid_sync_token(format!("the sync token {problem}"))
}

/// One that names what the server doesn't know.
pub(crate) fn unknown_changes() -> Error {
    bad(
        "names changes that this server doesn't have: it is of another one, or an older state of it was put back; or slapd was killed before \
         it noted that it has them, and the next write and `token set` with the same token mend that",
    )
}
