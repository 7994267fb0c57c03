//! What the operator configures, checked as far as it can be without asking the server.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tidewaiter_connector::cells::CellType;
use tidewaiter_connector::{Error, settings};

/// Waiting for longer is a mistake.
const LAG_MAX: Duration = Duration::from_secs(3600);

/// The settings; `settings.schema.json` says the same to the operator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub(crate) dialect: Dialect,
    server: String,
    pub(crate) database: String,
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) tls: Tls,
    #[serde(default = "utc")]
    pub(crate) zone: String,
    pub(crate) classes: BTreeMap<String, Class>,
}

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dialect {
    MariaDb,
    PostgreSql,
}

/// How the connection is kept from being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tls {
    /// No word is said before TLS is spoken with a server of the configured name.
    #[default]
    Required,
    /// Everything goes in clear.
    Off,
}

/// An object class, and where its objects are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Class {
    table: Option<String>,
    query: Option<String>,
    pub(crate) uid: String,
    name: Option<String>,
    pub(crate) deleted: Option<String>,
    pub(crate) changes: Option<Feed>,
    #[serde(default)]
    pub(crate) types: BTreeMap<String, CellType>,
    #[serde(default)]
    pub(crate) sensitive: Vec<String>,
}

/// How changes are found.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Changes")]
pub(crate) enum Feed {
    /// By a column with the time of a row's last change.
    Timestamp { column: String, lag_ms: Option<u64> },
    /// By a column whose number is larger than all before, whenever a row changes.
    Number { column: String, lag_ms: Option<u64> },
    /// By a log that triggers on a table fill; without its name it is the table of the class.
    Log { watched: Option<String> },
}

/// The same as it is written. Not a tagged enum: reading those takes a tenth of the component.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    by: By,
    column: Option<String>,
    lag_ms: Option<u64>,
    watched: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Timestamp,
    Number,
    Log,
}

impl TryFrom<Changes> for Feed {
    type Error = &'static str;

    fn try_from(changes: Changes) -> Result<Self, Self::Error> {
        match changes {
            Changes { by: By::Timestamp, column: Some(column), lag_ms, watched: None } => {
                Ok(Self::Timestamp { column, lag_ms })
            }
            Changes { by: By::Number, column: Some(column), lag_ms, watched: None } => {
                Ok(Self::Number { column, lag_ms })
            }
            Changes { by: By::Log, column: None, lag_ms: None, watched } => Ok(Self::Log { watched }),
            Changes { by: By::Log, .. } => Err("`column` and `lag_ms` are of `timestamp` and `number`"),
            _ => Err("by `timestamp` and `number`, it has a `column`, and no `watched`"),
        }
    }
}

impl Feed {
    /// How long a change may take from its time or number to its commit, if nothing else is said.
    pub(crate) fn lag(&self) -> Duration {
        match self {
            Self::Timestamp { lag_ms, .. } => Duration::from_millis(lag_ms.unwrap_or(10_000)),
            Self::Number { lag_ms, .. } => Duration::from_millis(lag_ms.unwrap_or(1_000)),
            Self::Log { .. } => Duration::ZERO,
        }
    }
}

/// Where the rows of a class are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A table or a view: its name, in parts.
    Table(&'a str),
    /// A query, as the operator wrote it.
    Query(&'a str),
}

impl Class {
    /// The column of the name.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.uid)
    }

    /// Where its rows are.
    pub(crate) fn source(&self) -> Source<'_> {
        match (&self.table, &self.query) {
            (Some(table), _) => Source::Table(table),
            (None, query) => Source::Query(query.as_deref().unwrap_or_default()),
        }
    }

    fn check(&self, class: &str) -> Result<(), Error> {
        let wrong = |problem: &str| Err(Error::configuration(format!("setting `classes.{class}`: {problem}")));
        match (&self.table, &self.query) {
            (Some(_), Some(_)) => wrong("`table` and `query`: only one of them can be set"),
            (None, None) => wrong("it needs `table` or `query`"),
            (None, Some(_)) if matches!(self.changes, Some(Feed::Log { watched: None })) => {
                wrong("which table do triggers watch? `changes` needs `watched`")
            }
            _ if self.changes.as_ref().is_some_and(|feed| feed.lag() > LAG_MAX) => wrong("`lag_ms` is over an hour"),
            _ => Ok(()),
        }
    }
}

impl Settings {
    pub(crate) fn check(self) -> Result<Self, Error> {
        self.server()?;
        let is_of_zone = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'+' | b'-' | b':');
        if !self.zone.bytes().all(is_of_zone) {
            return Err(Error::configuration(format!("setting `zone`: {:?} is not like \"Europe/Berlin\"", self.zone)));
        }
        self.classes.iter().try_for_each(|(name, class)| class.check(name))?;
        Ok(self)
    }

    /// The host and the port of the server.
    pub(crate) fn server(&self) -> Result<(&str, u16), Error> {
        settings::server(&self.server, "db.corp:5432")
    }

    /// An object class of these.
    pub(crate) fn class(&self, name: &str) -> Result<&Class, Error> {
        settings::class(&self.classes, name)
    }
}

fn utc() -> String {
    "UTC".to_owned()
}
