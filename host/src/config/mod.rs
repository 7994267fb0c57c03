//! What operators write: the host's file, one file per connection, one file of grants per connection. Everything is read and
//! checked as a whole before anything is started; an unknown key is an error that shows its line.

mod connection;
mod credentials;
mod current;
mod documents;
mod grants;
mod guard;
mod host_file;
mod http;
mod limits;
mod read;
mod sinks;
mod telemetry;
mod timing;
mod together;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tidewaiter_core::access::Role;
use tidewaiter_core::dead_letter::DataFaults;
use tidewaiter_core::grant::Grants;
use tidewaiter_core::guard::Guard;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::{BadName, ConnectionName, ConnectorName, TypeKey, TypeName};
use tidewaiter_core::schedule::Concurrency;
use tidewaiter_core::state::{Actor, From, OnTokenLost, TypeState};
use tidewaiter_core::time::UnixMillis;
use tidewaiter_core::timing::Timing;

pub(crate) use self::current::Current;
pub use self::current::Differences;
pub use self::documents::Documents;
pub(crate) use self::documents::is_document;
use self::documents::{CONFIGURED, CURRENT, document};
use self::grants::GrantsFile;
pub(crate) use self::grants::grant_lines;
use self::host_file::HostFile;
pub use self::http::{Http, Tls};
use self::limits::JournalTable;
use self::read::{parse, read};
pub use self::sinks::{SinkConfig, SinkTo};
pub use self::telemetry::Telemetry;
use self::telemetry::TelemetryTable;
use crate::db::Quota;
use crate::egress::{Credential, Resolve};
use crate::secret::Source;
use crate::trust::{ConnectorTrust, Mode};

/// Which files connectors may be, in the data of a program that has no file.
const PROGRAM_LOCK: &str = "connectors.lock";

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder can't be read.
    #[error("can't read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
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
    /// Who says which connections there are.
    pub source: ConfigSource,
    /// The folder of the connections' files.
    pub connections_in: PathBuf,
    /// The folder of the files of grants.
    pub grants_in: PathBuf,
    /// The file of the ceiling, which need not be there.
    pub ceiling_in: PathBuf,
    /// The program that compiles connectors, which is `tidewaiter` itself. None: they are compiled in this process. Not in the file.
    pub compiler: Option<PathBuf>,
    /// Where the db is.
    pub data: PathBuf,
    /// Where connectors are.
    pub connectors: PathBuf,
    /// Which files connectors may be.
    pub connector_trust: ConnectorTrust,
    /// Where the HTTP API listens, if at all, and for whom.
    pub http: Option<Http>,
    /// The users of this machine who have the role `security`; none: whoever the socket lets in.
    pub security: Option<Vec<u32>>,
    /// How many runs there may be at once.
    pub concurrency: Concurrency,
    /// How much the journal may hold.
    pub quota: Quota,
    /// How long entries stay that everyone has; none: until their room is needed.
    pub keep: Option<Duration>,
    /// Where entries go, by the name of the sink.
    pub sinks: BTreeMap<String, SinkConfig>,
    /// With which keys the db is encrypted.
    pub encryption: Encryption,
    /// Where traces go; none: nowhere.
    pub telemetry: Option<Telemetry>,
    /// Who is trusted over TLS beside the system's own roots: files in PEM form.
    pub trust: Vec<PathBuf>,
    /// Who resolves names for connectors; none: the system. Not in the file.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// The connections.
    pub connections: BTreeMap<ConnectionName, Arc<ConnectionConfig>>,
}

/// Who says which connections there are, and what they are granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigSource {
    /// Whoever writes their files: the host only reads them.
    #[default]
    Files,
    /// Whoever asks the host, which keeps them in its data.
    Api,
    /// The program that embeds the host.
    #[serde(skip)]
    Program,
}

/// A connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionConfig {
    /// Which connector.
    pub connector: ConnectorName,
    /// Its settings.
    pub settings: serde_json::Value,
    /// On which line of its file each of them is; empty: of none.
    pub setting_lines: BTreeMap<String, usize>,
    /// The version of the connector's settings that they are written for; none: as far as that is known, and else the one that it has.
    pub settings_version: Option<u32>,
    /// Its object types.
    pub types: BTreeMap<TypeName, TypeConfig>,
    /// They may run at the same time.
    pub parallel_types: bool,
    /// What becomes of a delta whose data is at fault.
    pub data_faults: DataFaults,
    /// What it may reach, and how it logs in.
    pub access: Access,
    /// The limits of its runs.
    pub limits: Limits,
    /// Relative folders in settings begin here.
    pub base: PathBuf,
}

impl ConnectionConfig {
    /// One without object types, that may reach nothing.
    pub fn new(connector: ConnectorName, settings: serde_json::Value) -> Self {
        Self {
            connector,
            settings,
            setting_lines: BTreeMap::new(),
            settings_version: None,
            types: BTreeMap::new(),
            parallel_types: false,
            data_faults: DataFaults::default(),
            access: Access::default(),
            limits: Limits::default(),
            base: PathBuf::from("/"),
        }
    }

    /// With an object type.
    #[must_use]
    pub fn object_type(mut self, name: TypeName, written: TypeConfig) -> Self {
        self.types.insert(name, written);
        self
    }

    /// Granted this, of what its connector asks for.
    #[must_use]
    pub fn granted(mut self, granted: Grants) -> Self {
        self.access.granted = granted;
        self
    }
}

/// Where the keys of the db are: each 32 bytes, in base64 or hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encryption {
    /// The one that is used; none: what is written isn't encrypted.
    pub key: Option<Source>,
    /// Those that were: what is there can be read.
    pub old_keys: Vec<Source>,
}

/// What a connection may reach, and how it logs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// What was granted.
    pub granted: Grants,
    /// The file that says so, which need not be there.
    pub granted_in: PathBuf,
    /// The most that any connection gets; none: whatever is granted.
    pub ceiling: Option<Arc<Grants>>,
    /// The file that says so, which need not be there.
    pub ceiling_in: PathBuf,
    /// Its logins over HTTP.
    pub credentials: Vec<Credential>,
    /// What it may be shown, by name.
    pub secrets: BTreeMap<String, Source>,
}

impl Access {
    /// Where its secrets are, each with what it is called.
    pub fn sources(&self) -> Vec<(String, &Source)> {
        let logins = self.credentials.iter().flat_map(|credential| {
            let name = format!("credentials.{}", credential.name);
            credential.kind.sources().into_iter().map(move |source| (name.clone(), source))
        });
        logins.chain(self.secrets.iter().map(|(name, source)| (format!("secrets.{name}"), source))).collect()
    }
}

/// An object type of a connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypeConfig {
    /// The connector's class.
    pub class: String,
    /// When it runs; none: only when asked.
    pub timing: Option<Timing>,
    /// Its place among the types that are due together.
    pub rank: usize,
    /// Where a new connection begins.
    pub from: From,
    /// All objects of a new connection are read and journaled, once its token is established.
    pub brings_up: bool,
    /// The only attributes wanted.
    pub attributes: Option<Vec<String>>,
    /// How much is journaled before somebody has looked.
    pub guard: Guard,
    /// What becomes of a token that the source refuses.
    pub on_token_lost: OnTokenLost,
    /// Passed to the connector as it is.
    pub options: BTreeMap<String, String>,
}

impl TypeConfig {
    /// The state of a type that never ran.
    pub fn first_state(&self, now: UnixMillis) -> TypeState {
        TypeState { pass_owed: self.brings_up.then_some(0), ..TypeState::first(self.from, now) }
    }

    /// A pass may be owed.
    pub fn may_owe_pass(&self) -> bool {
        self.brings_up || self.on_token_lost == OnTokenLost::Reconcile
    }
}

impl Config {
    /// The file of a connector.
    pub fn connector(&self, name: &ConnectorName) -> PathBuf {
        self.connectors.join(format!("{name}.wasm"))
    }

    /// The file of a connection, where operators write those.
    pub(crate) fn document(&self, name: &ConnectionName) -> Option<PathBuf> {
        (self.source == ConfigSource::Files).then(|| document(&self.connections_in, name))
    }

    /// The connections that run a connector.
    pub(crate) fn of<'a>(
        &'a self,
        connector: &'a ConnectorName,
    ) -> impl Iterator<Item = (&'a ConnectionName, &'a Arc<ConnectionConfig>)> {
        self.connections.iter().filter(move |(_, written)| written.connector == *connector)
    }

    /// Where compiled connectors are kept.
    pub fn compiled(&self) -> PathBuf {
        self.data.join("compiled")
    }

    /// What a program that embeds a host begins with: nothing but the places of things.
    pub fn of_program(data: PathBuf) -> Self {
        let lock = data.join(PROGRAM_LOCK);
        Self {
            file: PathBuf::new(),
            source: ConfigSource::Program,
            connections_in: PathBuf::new(),
            grants_in: PathBuf::new(),
            ceiling_in: PathBuf::new(),
            compiler: None,
            connectors: data.join("connectors"),
            data,
            connector_trust: ConnectorTrust { mode: Mode::Pinned, lock },
            http: None,
            security: None,
            concurrency: Concurrency::default(),
            quota: JournalTable::default().quota().unwrap_or(Quota::UNLIMITED),
            keep: None,
            sinks: BTreeMap::new(),
            encryption: Encryption::default(),
            telemetry: None,
            trust: Vec::new(),
            resolver: None,
            connections: BTreeMap::new(),
        }
    }

    /// Where the data is by the host's file, as far as that can be told, whatever is wrong with it.
    pub(crate) fn data_of(path: &Path) -> PathBuf {
        let base = path.parent().unwrap_or(Path::new("/"));
        base.join(host_file::data_of(&read::text(path).unwrap_or_default()))
    }

    /// Reads the host's file and everything that belongs to it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file and line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, Documents::read)
    }

    /// What connections and grants say that would lie in a folder, without the host's file.
    ///
    /// # Errors
    /// As `load`.
    pub(crate) fn of_documents(documents: &Documents, folder: &Path) -> Result<Self, ConfigError> {
        let [connections_in, grants_in] = documents::folders(folder);
        let connections = connections(documents, [&connections_in, &grants_in], folder, &Access::default())?;
        let config = Self { connections, connections_in, grants_in, ..Self::of_program(folder.join("data")) };
        config.fits_together()?;
        Ok(config)
    }

    /// As `load`, without connections: what is wrong with those is of no concern.
    ///
    /// # Errors
    /// As `load`.
    pub(crate) fn load_host(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, |_, _| Ok(Documents::default()))
    }

    /// As `load`, with other connections and grants than are in their folders.
    ///
    /// # Errors
    /// As `load`.
    pub(crate) fn load_with(
        path: &Path,
        documents: impl FnOnce(&Path, &Path) -> Result<Documents, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let path = std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        let file: HostFile = read(&path)?;
        let (source, data) = (file.config.source, base.join(&file.data));
        let [connections_in, grants_in] = match source {
            ConfigSource::Files | ConfigSource::Program => [base.join(&file.connections), base.join(&file.grants)],
            ConfigSource::Api => ["connections", "grants"].map(|name| data.join(CONFIGURED).join(CURRENT).join(name)),
        };
        let documents = documents(&connections_in, &grants_in)?;
        let (ceiling_in, ceiling) = ceiling(&base, file.ceiling)?;
        let bounds = Access { ceiling, ceiling_in: ceiling_in.clone(), ..Access::default() };
        let connections = connections(&documents, [&connections_in, &grants_in], &base, &bounds)?;
        let invalid = |message: String| ConfigError::Invalid { path: path.clone(), message };
        let (concurrency, keep) = (file.runs.concurrency().map_err(invalid)?, file.journal.keep().map_err(invalid)?);
        let quota = file.journal.quota().map_err(invalid)?;
        let http = file.http.map(|http| http.http(&base)).transpose().map_err(invalid)?;
        let encryption = file.encryption.encryption(&base).map_err(invalid)?;
        let telemetry = file.telemetry.map(TelemetryTable::telemetry).transpose().map_err(invalid)?;
        let connector_trust = file.connector_trust.trust(&base).map_err(invalid)?;
        let sinks = sinks::sinks(file.sinks, &base).map_err(invalid)?;
        let config = Self {
            compiler: None,
            concurrency,
            quota,
            keep,
            data,
            source,
            connectors: base.join(file.connectors),
            connector_trust,
            http,
            security: file.socket.security,
            sinks,
            trust: file.trust.into_iter().map(|path| base.join(path)).collect(),
            resolver: None,
            encryption,
            telemetry,
            connections,
            connections_in,
            grants_in,
            ceiling_in,
            file: path,
        };
        config.fits_together()?;
        Ok(config)
    }

    /// Whether somebody may approve what connectors ask for.
    pub fn has_role_security(&self, actor: &Actor) -> bool {
        match actor {
            Actor::Uid(uid) => self.security.as_ref().is_none_or(|uids| uids.contains(uid)),
            Actor::Access { role, .. } => role.allows(Role::Security),
            Actor::Program => true,
            Actor::Api | Actor::Host => false,
        }
    }

    /// The types of which a pass may be owed.
    pub(crate) fn may_owe_passes(&self) -> impl Iterator<Item = TypeKey> {
        self.keys().filter(|key| self.object_type(key).is_some_and(TypeConfig::may_owe_pass))
    }

    /// An object type of a connection.
    pub(crate) fn object_type(&self, key: &TypeKey) -> Option<&TypeConfig> {
        self.connections.get(&key.connection)?.types.get(&key.object_type)
    }

    /// All object types.
    pub fn keys(&self) -> impl Iterator<Item = TypeKey> + '_ {
        self.connections.iter().flat_map(|(connection, config)| {
            let key =
                |object_type: &TypeName| TypeKey { connection: connection.clone(), object_type: object_type.clone() };
            config.types.keys().map(key)
        })
    }
}

/// What documents say that lie in folders of connections and of grants. `bounds` is what all of them have in common.
fn connections(
    documents: &Documents,
    [connections_in, grants_in]: [&Path; 2],
    base: &Path,
    bounds: &Access,
) -> Result<BTreeMap<ConnectionName, Arc<ConnectionConfig>>, ConfigError> {
    let mut grants: BTreeMap<ConnectionName, (PathBuf, GrantsFile)> = BTreeMap::new();
    for (name, text) in &documents.grants {
        let path = document(grants_in, name);
        let granted = parse(&path, text)?;
        grants.insert(name.clone(), (path, granted));
    }
    let mut connections = BTreeMap::new();
    for (name, text) in &documents.connections {
        let nothing = || (document(grants_in, name), GrantsFile::default());
        let (granted_in, granted) = grants.remove(name).unwrap_or_else(nothing);
        let access = Access { granted: granted.grants(base), granted_in, ..bounds.clone() };
        let path = document(connections_in, name);
        connections.insert(name.clone(), Arc::new(connection::connection(&path, text, base, access)?));
    }
    match grants.into_values().next() {
        Some((path, _)) => Err(ConfigError::Orphan { path }),
        None => Ok(connections),
    }
}

/// The ceiling's file, and what it says if it is there.
fn ceiling(base: &Path, named: Option<PathBuf>) -> Result<(PathBuf, Option<Arc<Grants>>), ConfigError> {
    let path = base.join(named.as_deref().unwrap_or(Path::new("ceiling.toml")));
    // A link that leads nowhere is no ceiling that isn't there.
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => return Ok((path, None)),
        _ => {}
    }
    let file: GrantsFile = read(&path)?;
    Ok((path, Some(Arc::new(file.grants(base)))))
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
    fn what_may_be_a_secret_is_not_told() {
        let problem =
            |more: &str| load(&[("t.toml", ""), ("connections/hr.toml", &format!("{HR}{more}"))]).unwrap_err();
        for more in [
            "[credentials.api]\ntype = \"bearer\"\nto = [\"https://a.b\"]\ntoken = \"hunter2\"\n",
            "[credentials.api]\ntype = \"bearer\"\nto = [\"https://a.b\"]\ntokn = \"hunter2\"\n",
            "[secrets]\nbind = \"hunter2\"\n",
            "[secrets.bind]\nvalue = \"hunter2\"\n",
            "[secrets.bind]\nfile = [\"hunter2\"]\n",
            "[credentials.api]\ntype = \"hunter2\"\n",
            "[credentials.api]\ntype = \"bearer\"\nto = \"https://a:hunter2@b.c\"\n",
            "[limits]\n\"hunter2\nx = 1\n",
            "[limits]\nx = [1,\n\"hunter2=\" 2]\n",
        ] {
            let told = problem(more);
            assert!(!told.contains("hunter2") && told.contains("hr.toml: line "), "{told}");
        }
        let api = "[credentials.api]\ntype = \"bearer\"\nto = [\"https://a:hunter2@b.c\"]\ntoken = { env = \"T\" }\n";
        let told = problem(api);
        assert!(!told.contains("hunter2") && told.contains("credentials.api.to: \"https://…@b.c\""), "{told}");
        let told = problem("nonsense = \"hunter2\"\n");
        assert!(told.contains("hr.toml: line 7, column 1") && told.contains("nonsense = …"), "{told}");
    }

    #[test]
    fn reads_connections_and_grants_beside_the_file() {
        let config =
            load(&[("t.toml", ""), ("connections/hr.toml", HR), ("grants/hr.toml", "read = [\"people\"]")]).unwrap();
        let hr = &config.connections[&"hr".parse().unwrap()];
        let account = &hr.types[&"account".parse().unwrap()];
        let every = Some(Timing::every(Duration::from_secs(15)));
        assert_eq!((account.class.as_str(), &account.timing), ("account", &every));
        assert_eq!(hr.settings, serde_json::json!({ "folder": "people" }));
        assert!(hr.access.granted.read[0].is_absolute() && hr.access.granted.read[0].ends_with("people"));
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
    fn a_link_that_leads_nowhere_is_not_nothing() {
        for (link, part) in [("ceiling.toml", "ceiling.toml"), ("grants", "grants"), ("connections", "connections")] {
            let folder = folder(&[("t.toml", "")]);
            std::os::unix::fs::symlink("nowhere", folder.path().join(link)).unwrap();
            let problem = Config::load(&folder.path().join("t.toml")).unwrap_err().to_string();
            assert!(problem.contains(part) && problem.contains("No such file"), "{problem}");
        }
        assert!(load(&[("t.toml", "")]).is_ok());
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
    fn what_the_host_keeps_to_itself_is_in_no_folder_that_is_granted() {
        let keyed = "data = \"state/db\"\nencryption.key = { file = \"keys/db\" }\n";
        let hr = format!(
            "{HR}[secrets.bind]\nfile = \"secrets/bind\"\n[credentials.api]\ntype = \"bearer\"\nto = [\"https://a.b\"]\n\
             token = {{ file = \"people/../logins/api\" }}\n"
        );
        let granted = |folder: &str| {
            let grants = format!("read = [{folder:?}]");
            let files =
                [("t.toml", keyed), ("connections/hr.toml", &*hr), ("grants/hr.toml", &grants), ("people/x", "")];
            let there = [("state/db/x", ""), ("keys/db", "k"), ("secrets/bind", "b"), ("logins/api", "t")];
            load(&[&files[..], &there].concat())
        };
        for (folder, part) in [
            (".", "the data of the host"),
            ("state", "the data of the host"),
            ("state/db/compiled", "the data of the host"),
            ("keys", "keys/db"),
            ("people/../secrets", "secrets/bind"),
            ("logins", "logins/api"),
        ] {
            let problem = granted(folder).unwrap_err();
            assert!(problem.contains("grants/hr.toml: read: ") && problem.contains(part), "{folder}: {problem}");
        }
        assert!(granted("people").is_ok());
    }

    #[test]
    fn refuses_two_types_with_one_openidm_id() {
        let c = |name: &str| HR.replace("account", name);
        let files = [("t.toml", ""), ("connections/ab.toml", &*c("c")), ("connections/a.toml", &*c("bc"))];
        let error = load(&files).unwrap_err();
        assert!(error.contains("a/bc") && error.contains("ab/c") && error.contains("SYSTEMABC"), "{error}");
    }

    #[test]
    fn schedules_are_read_with_all_that_belongs_to_them() {
        let types = "[types.a]\nclass = \"a\"\nquartz = \"0 0/5 * * * ?\"\nzone = \"Europe/Berlin\"\njitter = \"10s\"\n\
                     misfire = \"skip\"\n[types.b]\nclass = \"b\"\ncron = \"*/5 * * * * *\"\n";
        let file = format!("connector = \"csv\"\norder = [\"b\", \"a\"]\nparallel-types = true\n{types}");
        let host = "[runs]\nat-once = 8\n[journal]\nmax-bytes = 1000\nkeep = \"720h\"\n";
        let config = load(&[("t.toml", host), ("connections/hr.toml", &file)]).unwrap();
        assert_eq!(config.concurrency, Concurrency { total: 8, per_connector: 8 });
        assert_eq!(config.quota, Quota { total_bytes: 1000, connection_bytes: 500 });
        let hr = &config.connections[&"hr".parse().unwrap()];
        let [a, b] = ["a", "b"].map(|name| &hr.types[&name.parse().unwrap()]);
        assert!(hr.parallel_types && (a.rank, b.rank) == (1, 0));
        assert_eq!(a.timing.as_ref().unwrap().to_string(), "quartz 0 0/5 * * * ? Europe/Berlin");

        for (key, part) in [
            ("every = \"1s\"\ncron = \"* * * * *\"", "one of every, cron and quartz"),
            ("cron = \"61 * * * *\"", "types.a.cron: \"61 * * * *\" is not a cron expression"),
            ("cron = \"* * * * *\"\nzone = \"Europe/Berlinn\"", "types.a.zone"),
            ("every = \"1s\"\nzone = \"Europe/Berlin\"", "types.a.zone: an interval has none"),
            ("jitter = \"1s\"", "need a schedule"),
            ("every = \"1s\"\njitter = \"-1s\"", "types.a.jitter"),
            ("evry = \"1s\"", "evry"),
            ("every = \"1s\"\nmisfire = \"often\"", "often"),
        ] {
            let file = format!("connector = \"csv\"\n[types.a]\nclass = \"a\"\n{key}\n");
            let error = load(&[("t.toml", ""), ("connections/hr.toml", &file)]).unwrap_err();
            assert!(error.contains("hr.toml") && error.contains(part), "{key}: {error}");
        }
        let order = load(&[("t.toml", ""), ("connections/hr.toml", &format!("order = [\"x\"]\n{HR}"))]).unwrap_err();
        assert!(order.contains("order: there is no type x"), "{order}");
        let runs = load(&[("t.toml", "runs.at-once = 0")]).unwrap_err();
        assert!(runs.contains("runs.at-once: 0"), "{runs}");
    }
}
