//! What operators write: the host's file, one file per connection, one file of grants per connection. Everything is read and
//! checked as a whole before anything is started; an unknown key is an error that shows its line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::{BadName, ConnectionName, ConnectorName, TypeKey, TypeName, object_class};
use tidewaiter_core::state::From;

/// The shortest interval of a schedule.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder can't be read.
    #[error("can't read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file says something that it can't say.
    #[error("{path}: {message}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What, with the line shown.
        message: String,
    },
    /// The name of a file is not one.
    #[error("{path}: {source}")]
    Name {
        /// Which.
        path: PathBuf,
        /// Why.
        source: BadName,
    },
    /// Two types have the same id for OpenIDM's scripts.
    #[error("{first} and {second} would both be {id} to OpenIDM's calls; rename one of them")]
    SameId {
        /// One.
        first: TypeKey,
        /// The other.
        second: TypeKey,
        /// The id.
        id: String,
    },
    /// Two sinks would write into each other's lines.
    #[error("the sinks {first} and {second} both write to {path}")]
    SameFile {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// The file.
        path: PathBuf,
    },
    /// Grants without a connection.
    #[error("{path} grants something to a connection that doesn't exist")]
    Orphan {
        /// Which.
        path: PathBuf,
    },
}

/// Everything that is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The host's file.
    pub file: PathBuf,
    /// The program that compiles connectors, which is `tidewaiter` itself. None: they are compiled in this process. Not in the file.
    pub compiler: Option<PathBuf>,
    /// Where the db is.
    pub data: PathBuf,
    /// Where connectors are.
    pub connectors: PathBuf,
    /// Where the HTTP API listens, if at all.
    pub listen: Option<std::net::SocketAddr>,
    /// Files that entries are written to, by the name of their sink.
    pub sinks: BTreeMap<String, PathBuf>,
    /// The connections.
    pub connections: BTreeMap<ConnectionName, ConnectionConfig>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Which connector.
    pub connector: ConnectorName,
    /// Its settings, as the connector gets them.
    pub settings: serde_json::Value,
    /// Its object types.
    pub types: BTreeMap<TypeName, TypeConfig>,
    /// Folders that may be read.
    pub read: Vec<PathBuf>,
    /// The file that grants them, which need not be there.
    pub grants: PathBuf,
    /// The limits of its runs.
    pub limits: Limits,
    /// Relative folders in settings begin here.
    pub base: PathBuf,
}

/// An object type of a connection.
#[derive(Clone, Debug)]
pub struct TypeConfig {
    /// The connector's class.
    pub class: String,
    /// Between two scheduled runs; none: only when asked.
    pub every: Option<Duration>,
    /// Where a new connection begins.
    pub from: From,
    /// The only attributes wanted.
    pub attributes: Option<Vec<String>>,
    /// Passed to the connector as it is.
    pub options: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct HostFile {
    #[serde(default = "data")]
    data: PathBuf,
    #[serde(default = "connectors")]
    connectors: PathBuf,
    #[serde(default = "connections")]
    connections: PathBuf,
    #[serde(default = "grants")]
    grants: PathBuf,
    http: Option<HttpTable>,
    #[serde(default)]
    sinks: BTreeMap<String, SinkTable>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTable {
    listen: std::net::SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, tag = "type", rename_all = "kebab-case")]
enum SinkTable {
    Ndjson { path: PathBuf },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionFile {
    connector: ConnectorName,
    #[serde(default)]
    settings: serde_json::Map<String, serde_json::Value>,
    types: BTreeMap<TypeName, TypeTable>,
    #[serde(default)]
    limits: LimitsTable,
}

/// What a connection may have more or less of than others.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LimitsTable {
    memory_bytes: Option<u64>,
    call_time: Option<jiff::SignedDuration>,
    uncovered_bytes: Option<u64>,
    log_lines: Option<u32>,
}

impl LimitsTable {
    fn limits(self) -> Result<Limits, String> {
        let mut limits = Limits::default();
        let time = self.call_time.map(jiff::SignedDuration::unsigned_abs).unwrap_or(limits.call_time_max);
        if time.is_zero() || self.call_time.is_some_and(|time| time.is_negative()) {
            return Err("limits.call-time: a call needs some time".into());
        }
        limits.call_time_max = time;
        limits.memory_bytes_max = self.memory_bytes.unwrap_or(limits.memory_bytes_max);
        limits.uncovered_bytes_max = self.uncovered_bytes.unwrap_or(limits.uncovered_bytes_max);
        limits.log_lines_max = self.log_lines.unwrap_or(limits.log_lines_max);
        match limits.uncovered_bytes_max < limits.batch_bytes_max {
            true => Err(format!("limits.uncovered-bytes: a batch of {} bytes must fit", limits.batch_bytes_max)),
            false => Ok(limits),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeTable {
    class: String,
    every: Option<jiff::SignedDuration>,
    #[serde(default)]
    from: From,
    attributes: Option<Vec<String>>,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantsFile {
    #[serde(default)]
    read: Vec<PathBuf>,
}

impl Config {
    /// Where compiled connectors are kept.
    pub fn compiled(&self) -> PathBuf {
        self.data.join("compiled")
    }

    /// Reads the host's file and everything that belongs to it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file and line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let path = std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        let file: HostFile = read(&path)?;
        let mut grants: BTreeMap<ConnectionName, (PathBuf, GrantsFile)> = BTreeMap::new();
        for (name, path) in toml_files(&base.join(&file.grants))? {
            let granted = read(&path)?;
            grants.insert(name, (path, granted));
        }
        let mut connections = BTreeMap::new();
        for (name, path) in toml_files(&base.join(&file.connections))? {
            let nothing = || (base.join(&file.grants).join(format!("{name}.toml")), GrantsFile::default());
            let granted = grants.remove(&name).unwrap_or_else(nothing);
            connections.insert(name, connection(&path, &base, granted)?);
        }
        if let Some((path, _)) = grants.into_values().next() {
            return Err(ConfigError::Orphan { path });
        }
        let listen = file.http.map(|http| http.listen);
        if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback()) {
            let message = format!("http.listen: {listen} can be reached from elsewhere; only loopback is served");
            return Err(ConfigError::Invalid { path, message });
        }
        let config = Self {
            compiler: None,
            data: base.join(file.data),
            connectors: base.join(file.connectors),
            listen,
            sinks: file.sinks.into_iter().map(|(name, SinkTable::Ndjson { path })| (name, base.join(path))).collect(),
            connections,
            file: path,
        };
        config.distinct_ids()?;
        config.distinct_files()?;
        Ok(config)
    }

    /// All object types.
    pub fn keys(&self) -> impl Iterator<Item = TypeKey> + '_ {
        self.connections.iter().flat_map(|(connection, config)| {
            let key =
                |object_type: &TypeName| TypeKey { connection: connection.clone(), object_type: object_type.clone() };
            config.types.keys().map(key)
        })
    }

    fn distinct_ids(&self) -> Result<(), ConfigError> {
        let mut ids: BTreeMap<String, TypeKey> = BTreeMap::new();
        for second in self.keys() {
            let id = second.openidm_id();
            if let Some(first) = ids.insert(id.clone(), second.clone()) {
                return Err(ConfigError::SameId { first, second, id });
            }
        }
        Ok(())
    }

    fn distinct_files(&self) -> Result<(), ConfigError> {
        let mut files: BTreeMap<&Path, &String> = BTreeMap::new();
        for (second, path) in &self.sinks {
            if let Some(first) = files.insert(path, second) {
                let (first, second, path) = (first.clone(), second.clone(), path.clone());
                return Err(ConfigError::SameFile { first, second, path });
            }
        }
        Ok(())
    }
}

fn connection(
    path: &Path,
    base: &Path,
    (grants, granted): (PathBuf, GrantsFile),
) -> Result<ConnectionConfig, ConfigError> {
    let file: ConnectionFile = read(path)?;
    let invalid = |message: String| ConfigError::Invalid { path: path.into(), message };
    if file.types.is_empty() {
        return Err(invalid("no object type: add [types.NAME] with its class".into()));
    }
    let mut types = BTreeMap::new();
    for (name, table) in file.types {
        let every = table.every.map(|every| every.unsigned_abs());
        if every.is_some_and(|every| every < EVERY_MIN) || table.every.is_some_and(|every| every.is_negative()) {
            return Err(invalid(format!("types.{name}.every is shorter than {} ms", EVERY_MIN.as_millis())));
        }
        let class = object_class(&table.class).to_owned();
        let config =
            TypeConfig { class, every, from: table.from, attributes: table.attributes, options: table.options };
        types.insert(name, config);
    }
    let read = granted.read.into_iter().map(|folder| base.join(folder)).collect();
    let settings = serde_json::Value::Object(file.settings);
    let limits = file.limits.limits().map_err(invalid)?;
    Ok(ConnectionConfig { connector: file.connector, settings, types, read, grants, limits, base: base.to_owned() })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    toml::from_str(&text).map_err(|error| ConfigError::Invalid { path: path.into(), message: error.to_string() })
}

/// The `NAME.toml` of a folder. A folder that isn't there has none.
fn toml_files(folder: &Path) -> Result<BTreeMap<ConnectionName, PathBuf>, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: folder.into(), source };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other.map_err(unreadable)?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name =
                ConnectionName::try_from(stem).map_err(|source| ConfigError::Name { path: path.clone(), source })?;
            files.insert(name, path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    const HR: &str = "connector = \"csv\"\n[settings]\nfolder = \"people\"\n[types.account]\nclass = \"__ACCOUNT__\"\nevery = \"15s\"\n";

    fn load(files: &[(&str, &str)]) -> Result<Config, String> {
        let folder = folder(files);
        Config::load(&folder.path().join("t.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_connections_and_grants_beside_the_file() {
        let config =
            load(&[("t.toml", ""), ("connections/hr.toml", HR), ("grants/hr.toml", "read = [\"people\"]")]).unwrap();
        let hr = &config.connections[&"hr".parse().unwrap()];
        let account = &hr.types[&"account".parse().unwrap()];
        assert_eq!((account.class.as_str(), account.every), ("account", Some(Duration::from_secs(15))));
        assert_eq!(hr.settings, serde_json::json!({ "folder": "people" }));
        assert!(hr.read[0].is_absolute() && hr.read[0].ends_with("people"));
    }

    #[test]
    fn names_the_file_and_shows_the_line_of_what_is_wrong() {
        let unknown = load(&[("t.toml", "dta = \"x\"")]).unwrap_err();
        assert!(unknown.contains("t.toml") && unknown.contains("line 1") && unknown.contains("dta"), "{unknown}");
        let every = load(&[("t.toml", ""), ("connections/hr.toml", &HR.replace("15s", "5ms"))]).unwrap_err();
        assert!(every.contains("hr.toml") && every.contains("types.account.every"), "{every}");
        let orphan = load(&[("t.toml", ""), ("grants/hr.toml", "")]).unwrap_err();
        assert!(orphan.contains("grants/hr.toml"), "{orphan}");
        let none = load(&[]).unwrap_err();
        assert!(none.contains("t.toml"), "{none}");
    }

    #[test]
    fn refuses_what_would_do_harm() {
        let far = load(&[("t.toml", "http.listen = \"0.0.0.0:8080\"")]).unwrap_err();
        assert!(far.contains("t.toml") && far.contains("0.0.0.0:8080"), "{far}");
        let sinks = "[sinks]\na = { type = \"ndjson\", path = \"x\" }\nb = { type = \"ndjson\", path = \"x\" }\n";
        let twice = load(&[("t.toml", sinks)]).unwrap_err();
        assert!(twice.contains("sinks a and b"), "{twice}");
        let never = load(&[("t.toml", ""), ("connections/hr.toml", &format!("{HR}[limits]\ncall-time = \"0s\"\n"))]);
        assert!(never.unwrap_err().contains("limits.call-time"));
    }

    #[test]
    fn refuses_two_types_with_one_openidm_id() {
        let c = |name: &str| HR.replace("account", name);
        let files = [("t.toml", ""), ("connections/ab.toml", &*c("c")), ("connections/a.toml", &*c("bc"))];
        let error = load(&files).unwrap_err();
        assert!(error.contains("a/bc") && error.contains("ab/c") && error.contains("SYSTEMABC"), "{error}");
    }
}
