//! The file of a connection: what it runs, its settings, its object types, its limits, its logins and secrets.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tidewaiter_core::dead_letter::DataFaults;
use tidewaiter_core::name::{ConnectorName, TypeName, object_class};
use tidewaiter_core::state::{From, OnTokenLost};
use tidewaiter_core::timing::Misfire;
use toml::Spanned;

use super::credentials::{self, CredentialTable, SourceTable};
use super::guard::GuardTable;
use super::limits::LimitsTable;
use super::timing::{self, TimingTable};
use super::{Access, ConfigError, ConnectionConfig, TypeConfig, parse};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ConnectionFile {
    connector: ConnectorName,
    #[serde(default)]
    settings: BTreeMap<String, Spanned<serde_json::Value>>,
    settings_version: Option<u32>,
    types: BTreeMap<TypeName, TypeTable>,
    #[serde(default)]
    order: Vec<TypeName>,
    #[serde(default)]
    parallel_types: bool,
    #[serde(default)]
    data_faults: DataFaults,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    credentials: BTreeMap<String, CredentialTable>,
    #[serde(default)]
    secrets: BTreeMap<String, SourceTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeTable {
    class: String,
    #[serde(default, deserialize_with = "timing::span")]
    every: Option<jiff::SignedDuration>,
    cron: Option<String>,
    quartz: Option<String>,
    zone: Option<String>,
    #[serde(default, deserialize_with = "timing::span")]
    jitter: Option<jiff::SignedDuration>,
    misfire: Option<Misfire>,
    #[serde(default)]
    from: From,
    #[serde(default)]
    initial: Initial,
    attributes: Option<Vec<String>>,
    #[serde(default)]
    guard: GuardTable,
    #[serde(default, rename = "on-token-lost")]
    on_token_lost: OnTokenLost,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

/// What a new type begins with, besides its token.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Initial {
    /// Nothing.
    #[default]
    None,
    /// All objects are read.
    BringUp,
}

/// Reads one; what it may reach is in other files.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub(super) fn connection(
    path: &Path,
    text: &str,
    base: &Path,
    access: Access,
) -> Result<ConnectionConfig, ConfigError> {
    let file: ConnectionFile = parse(path, text)?;
    let invalid = |message: String| ConfigError::Invalid { path: path.into(), message };
    if file.types.is_empty() {
        return Err(invalid("no object type: add [types.NAME] with its class".into()));
    }
    let mut types = BTreeMap::new();
    for (name, table) in file.types {
        let TypeTable { every, cron, quartz, zone, jitter, misfire, .. } = table;
        let timing = TimingTable { every, cron, quartz, zone, jitter, misfire };
        let timing = timing.timing().map_err(|problem| invalid(format!("types.{name}.{problem}")))?;
        let class = object_class(&table.class).to_owned();
        // Those that `order` doesn't name come after those that it names.
        let rank = file.order.iter().position(|named| *named == name).unwrap_or(file.order.len());
        let TypeTable { from, initial, attributes, guard, on_token_lost, options, .. } = table;
        let (brings_up, guard) = (initial == Initial::BringUp, guard.guard());
        let config = TypeConfig { class, timing, rank, from, brings_up, attributes, guard, on_token_lost, options };
        types.insert(name, config);
    }
    if let Some(unknown) = file.order.iter().find(|name| !types.contains_key(name)) {
        return Err(invalid(format!("order: there is no type {unknown}")));
    }
    let credentials = credentials::credentials(file.credentials, base).map_err(invalid)?;
    let secret = |(name, table): (String, SourceTable)| match table.source(base) {
        Ok(source) => Ok((name, source)),
        Err(problem) => Err(invalid(format!("secrets.{name}: {problem}"))),
    };
    let secrets = file.secrets.into_iter().map(secret).collect::<Result<_, _>>()?;
    let access = Access { credentials, secrets, ..access };
    let line = |at: &Spanned<_>| text.get(..at.span().start).map_or(0, |before| before.matches('\n').count()) + 1;
    let setting_lines = file.settings.iter().map(|(name, value)| (name.clone(), line(value))).collect();
    let settings = file.settings.into_iter().map(|(name, value)| (name, value.into_inner())).collect();
    let limits = file.limits.limits().map_err(invalid)?;
    let ConnectionFile { connector, settings_version, parallel_types, data_faults, .. } = file;
    let base = base.to_owned();
    Ok(ConnectionConfig {
        connector,
        settings,
        setting_lines,
        settings_version,
        types,
        parallel_types,
        data_faults,
        access,
        limits,
        base,
    })
}
