//! The host's file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::credentials::SourceTable;
use super::http::HttpTable;
use super::limits::{JournalTable, RunsTable};
use super::sinks::SinkTable;
use super::telemetry::TelemetryTable;
use super::{ConfigSource, Encryption};
use crate::trust::{ConnectorTrust, Key, Keys, Mode};

/// Which files connectors may be, beside it.
const TRUST_LOCK: &str = "tidewaiter.lock";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct HostFile {
    #[serde(default = "data")]
    pub(super) data: PathBuf,
    #[serde(default = "connectors")]
    pub(super) connectors: PathBuf,
    #[serde(default = "connections")]
    pub(super) connections: PathBuf,
    #[serde(default = "grants")]
    pub(super) grants: PathBuf,
    /// Where it is not named, it need not be there.
    pub(super) ceiling: Option<PathBuf>,
    #[serde(default)]
    pub(super) trust: Vec<PathBuf>,
    #[serde(default)]
    pub(super) connector_trust: TrustTable,
    #[serde(default)]
    pub(super) config: ConfigTable,
    #[serde(default)]
    pub(super) encryption: EncryptionTable,
    pub(super) http: Option<HttpTable>,
    #[serde(default)]
    pub(super) socket: SocketTable,
    #[serde(default)]
    pub(super) runs: RunsTable,
    #[serde(default)]
    pub(super) journal: JournalTable,
    #[serde(default)]
    pub(super) sinks: BTreeMap<String, SinkTable>,
    pub(super) telemetry: Option<TelemetryTable>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TrustTable {
    #[serde(default)]
    mode: TrustMode,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    revoked_keys: Vec<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TrustMode {
    #[default]
    Pinned,
    Signed,
    Any,
}

impl TrustTable {
    pub(super) fn trust(self, base: &Path) -> Result<ConnectorTrust, String> {
        let named = |problem: String| format!("connector-trust: {problem}");
        let keys = |texts: Vec<String>| texts.into_iter().map(Key::new).collect::<Result<Vec<Key>, _>>().map_err(named);
        let has_keys = !self.keys.is_empty() || !self.revoked_keys.is_empty();
        let mode = match self.mode {
            TrustMode::Signed if self.keys.is_empty() => return Err(named("`signed` needs keys".to_owned())),
            TrustMode::Signed => Mode::Signed(Keys { trusted: keys(self.keys)?, revoked: keys(self.revoked_keys)? }),
            _ if has_keys => return Err(named("keys are for mode = \"signed\"".to_owned())),
            TrustMode::Pinned => Mode::Pinned,
            TrustMode::Any => Mode::Any,
        };
        Ok(ConnectorTrust { mode, lock: base.join(TRUST_LOCK) })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigTable {
    #[serde(default)]
    pub(super) source: ConfigSource,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SocketTable {
    pub(super) security: Option<Vec<u32>>,
}

fn data() -> PathBuf {
    "data".into()
}
fn connectors() -> PathBuf {
    "connectors".into()
}
fn connections() -> PathBuf {
    "connections".into()
}
fn grants() -> PathBuf {
    "grants".into()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct EncryptionTable {
    key: Option<SourceTable>,
    #[serde(default)]
    old_keys: Vec<SourceTable>,
}

impl EncryptionTable {
    pub(super) fn encryption(self, base: &Path) -> Result<Encryption, String> {
        let source = |table: SourceTable| table.source(base).map_err(|problem| format!("encryption: {problem}"));
        let key = self.key.map(source).transpose()?;
        Ok(Encryption { key, old_keys: self.old_keys.into_iter().map(source).collect::<Result<_, _>>()? })
    }
}

/// Where the data is, as far as that can be told from a file that can't be read: a host that runs there is asked nevertheless.
pub(super) fn data_of(text: &str) -> PathBuf {
    #[derive(Deserialize)]
    struct Data {
        #[serde(default = "data")]
        data: PathBuf,
    }
    if let Ok(Data { data }) = toml::from_str(text) {
        return data;
    }
    let top = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    let said = top.filter(|line| line.trim_start().starts_with("data")).filter_map(|line| toml::from_str(line).ok());
    said.map(|Data { data }| data).last().unwrap_or_else(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_data_is_is_read_from_a_broken_file_too() {
        for (text, data) in [
            ("data = \"a\"\n[runs]\nat-once = 2\n", "a"),
            ("conectors = \"b\"\ndata = \"a\"\n", "a"),
            ("broken\n data=\"a\" # there\n[runs\ndata = \"b\"\n", "a"),
            ("[runs\ndata = \"b\"\n", "data"),
            ("data = \n", "data"),
            ("", "data"),
        ] {
            assert_eq!(data_of(text), PathBuf::from(data), "{text}");
        }
    }
}
