//! What the operator configures, checked as far as it can be without asking the server.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tidewaiter_connector::cells::CellType;
use tidewaiter_connector::{Error, settings};

use crate::dn::Dn;
use crate::filter::{Filter, is_name};

/// A second has to pass before nothing more can be stamped with it.
const LAG_MIN_MS: u64 = 1_000;
/// Waiting for longer is a mistake.
const LAG_MAX_MS: u64 = 600_000;

/// The settings; `settings.schema.json` says the same to the operator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    server: String,
    #[serde(default)]
    pub(crate) tls: Tls,
    pub(crate) bind: Option<String>,
    pub(crate) classes: BTreeMap<String, Class>,
}

/// How the connection is kept from being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tls {
    /// LDAPS: no word is said before TLS is spoken with a server of the configured name.
    #[default]
    Required,
    /// The same after the protocol's own request for it, which is all that is said before.
    #[serde(rename = "starttls")]
    AskedFor,
    /// Everything goes in clear.
    Off,
}

/// An object class, and where its objects are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Class {
    pub(crate) base: String,
    #[serde(default)]
    pub(crate) scope: Scope,
    #[serde(default = "any")]
    filter: String,
    #[serde(default = "entry_uuid")]
    pub(crate) uid: String,
    pub(crate) name: Option<String>,
    pub(crate) changes: Option<Feed>,
    pub(crate) attributes: Option<Vec<String>>,
    pub(crate) object_classes: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) types: BTreeMap<String, CellType>,
    #[serde(default)]
    pub(crate) sensitive: Vec<String>,
}

/// How far below the base objects are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// The base alone.
    Base = 0,
    /// What is right below it.
    One = 1,
    /// It, and all that is below it.
    #[default]
    Subtree = 2,
}

/// How changes are found.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Feed {
    /// By the server's own cookie: RFC 4533.
    Syncrepl {
        #[serde(default)]
        deletions: Deletions,
    },
    /// By a numbered log of changes: 389's retro changelog, and its relatives.
    Changelog,
    /// By the log that slapd's overlay `accesslog` keeps.
    Accesslog {
        #[serde(default = "cn_accesslog")]
        base: String,
    },
    /// By the time of an entry's last change.
    Timestamp { lag_ms: Option<u64> },
}

/// What becomes of deletions that the server can't tell of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Deletions {
    /// The token is refused.
    #[default]
    Told,
    /// They are passed over.
    Unseen,
}

impl Feed {
    /// How long a change may take from its time until it is to be seen.
    pub(crate) fn lag(&self) -> Duration {
        match self {
            Self::Timestamp { lag_ms } => Duration::from_millis(lag_ms.unwrap_or(2_000)),
            _ => Duration::ZERO,
        }
    }

    /// As settings and tokens have it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Syncrepl { .. } => "syncrepl",
            Self::Changelog => "changelog",
            Self::Accesslog { .. } => "accesslog",
            Self::Timestamp { .. } => "timestamp",
        }
    }
}

impl Class {
    /// Which entries are objects of the class.
    pub(crate) fn filter(&self) -> Result<Filter, Error> {
        Filter::parse(&self.filter)
            .map_err(|problem| Error::configuration(format!("the filter {:?}: {problem}", self.filter)))
    }

    fn check(&self, class: &str) -> Result<(), Error> {
        let wrong = |problem: String| Err(Error::configuration(format!("setting `classes.{class}`: {problem}")));
        if let Err(error) = self.filter() {
            return wrong(error.message().to_owned());
        }
        if Dn::parse(&self.base).is_none() {
            return wrong(format!("`base`: {:?} is no distinguished name", self.base));
        }
        let names = [&self.uid].into_iter().chain(&self.name).chain(self.attributes.iter().flatten());
        if let Some(name) = names.chain(self.object_classes.iter().flatten()).find(|name| !is_name(name)) {
            return wrong(format!("{name:?} is no name of an attribute or an object class"));
        }
        match &self.changes {
            Some(Feed::Timestamp { lag_ms: Some(ms) }) if !(LAG_MIN_MS..=LAG_MAX_MS).contains(ms) => {
                wrong(format!("`lag_ms` is from {LAG_MIN_MS} to {LAG_MAX_MS}: times of changes are whole seconds"))
            }
            Some(Feed::Accesslog { base }) if Dn::parse(base).is_none() => {
                wrong(format!("`changes.base`: {base:?} is no distinguished name"))
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    pub(crate) fn check(self) -> Result<Self, Error> {
        self.server()?;
        if self.bind.as_ref().is_some_and(|bind| bind.trim().is_empty()) {
            return Err(Error::configuration("setting `bind` is empty: leave it out to be anonymous"));
        }
        self.classes.iter().try_for_each(|(name, class)| class.check(name))?;
        Ok(self)
    }

    /// The host and the port of the server.
    pub(crate) fn server(&self) -> Result<(&str, u16), Error> {
        settings::server(&self.server, "ldap.corp:636")
    }

    /// An object class of these.
    pub(crate) fn class(&self, name: &str) -> Result<&Class, Error> {
        settings::class(&self.classes, name)
    }
}

fn any() -> String {
    "(objectClass=*)".to_owned()
}

fn entry_uuid() -> String {
    "entryUUID".to_owned()
}

fn cn_accesslog() -> String {
    "cn=accesslog".to_owned()
}
