//! What is configured, as it is by now: connections, and what they are granted, come, change and go while a host runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::ConnectionName;
use utoipa::ToSchema;

use super::{Access, Config, ConfigError, ConnectionConfig};

/// What is configured by now. Whoever does something with it takes it once.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<Config>>);

impl Current {
    pub(crate) fn new(config: Config) -> Self {
        Self(RwLock::new(Arc::new(config)))
    }

    pub(crate) fn now(&self) -> Arc<Config> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, config: Arc<Config>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// What differs between two configurations of the same host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Differences {
    /// Connections that came.
    pub added: Vec<ConnectionName>,
    /// Connections that changed, and in what, as in `settings` or `grants`.
    pub changed: BTreeMap<ConnectionName, Vec<String>>,
    /// Connections that went.
    pub removed: Vec<ConnectionName>,
    /// Keys of the host's file that changed, of those that count at once.
    pub host: Vec<String>,
}

impl Differences {
    pub(crate) fn between(now: &Config, next: &Config) -> Self {
        let mut found = Self::default();
        for (name, written) in &next.connections {
            match now.connections.get(name).map(|known| known.differs_in(written)) {
                None => found.added.push(name.clone()),
                Some(parts) if parts.is_empty() => {}
                Some(parts) => {
                    found.changed.insert(name.clone(), parts.into_iter().map(str::to_owned).collect());
                }
            }
        }
        let host = [
            ("connector-trust", now.connector_trust != next.connector_trust),
            ("socket", now.security != next.security),
        ];
        found.host = host.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect();
        found.removed = now.connections.keys().filter(|name| !next.connections.contains_key(*name)).cloned().collect();
        found
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty() && self.host.is_empty()
    }
}

impl fmt::Display for Differences {
    /// As in `added a; changed b (settings, grants); removed c; host: socket`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: &[ConnectionName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let changed = self.changed.iter().map(|(name, parts)| format!("{name} ({})", parts.join(", ")));
        let changed = changed.collect::<Vec<_>>().join(", ");
        let host = self.host.join(", ");
        let said =
            [("added", names(&self.added)), ("changed", changed), ("removed", names(&self.removed)), ("host:", host)];
        let said = said.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| format!("{what} {names}"));
        match said.collect::<Vec<_>>() {
            said if said.is_empty() => f.write_str("nothing changed"),
            said => f.write_str(&said.join("; ")),
        }
    }
}

impl Config {
    /// This host with what of `read`, its configuration as it was read again, counts at once; and the keys of the host's file that count after a restart.
    ///
    /// # Errors
    /// They don't fit together.
    pub(crate) fn revised(&self, read: Self) -> Result<(Self, Vec<&'static str>), ConfigError> {
        let differs = [
            ("data", self.data != read.data),
            ("config", self.source != read.source),
            ("connectors", self.connectors != read.connectors),
            ("encryption", self.encryption != read.encryption),
            ("http", self.http != read.http),
            ("journal", (self.quota, self.keep) != (read.quota, read.keep)),
            ("runs", self.concurrency != read.concurrency),
            ("sinks", self.sinks != read.sinks),
            ("telemetry", self.telemetry != read.telemetry),
            ("trust", self.trust != read.trust),
        ];
        let later = differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
        let Self { connections, connector_trust, security, connections_in, grants_in, ceiling_in, .. } = read;
        let of = self.clone();
        let next = Self { connections, connector_trust, security, connections_in, grants_in, ceiling_in, ..of };
        next.fits_together()?;
        Ok((next, later))
    }
}

impl ConnectionConfig {
    /// The parts in which another one differs, as the files call them.
    fn differs_in(&self, other: &Self) -> Vec<&'static str> {
        let (access, others) = (&self.access, &other.access);
        let differs = [
            ("connector", self.connector != other.connector),
            (
                "settings",
                (&self.settings, self.settings_version, &self.base)
                    != (&other.settings, other.settings_version, &other.base),
            ),
            ("types", (&self.types, self.parallel_types) != (&other.types, other.parallel_types)),
            ("data-faults", self.data_faults != other.data_faults),
            ("limits", self.limits != other.limits),
            ("credentials", access.credentials != others.credentials),
            ("secrets", access.secrets != others.secrets),
            ("grants", access.granted != others.granted),
            ("ceiling", access.ceiling != others.ceiling),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part).collect()
    }
}

impl Access {
    /// Whether something is taken away where another one comes in its place.
    pub(crate) fn loses_by(&self, other: &Self) -> bool {
        let is_lower = match (&self.ceiling, &other.ceiling) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(now), Some(next)) => !next.has_all_of(now),
        };
        let keeps_login = |one| other.credentials.contains(one);
        is_lower
            || !other.granted.has_all_of(&self.granted)
            || !self.credentials.iter().all(keeps_login)
            || !self.secrets.iter().all(|(name, source)| other.secrets.get(name) == Some(source))
    }
}
