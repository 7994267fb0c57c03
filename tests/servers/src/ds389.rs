//! 389 Directory Server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use tempfile::TempDir;

use crate::ldap::Clients;
use crate::{appended, begin, folder, free_port, give, kill, root_of, unprivileged};

/// Its folders, by the names that the package's template has for them.
const FOLDERS: [(&str, &str); 11] = [
    ("schema_dir", "config/schema"),
    ("lock_dir", "lock"),
    ("tmp_dir", "tmp"),
    ("cert_dir", "cert"),
    ("ldif_dir", "ldif"),
    ("bak_dir", "bak"),
    ("run_dir", "run"),
    ("inst_dir", "inst"),
    ("log_dir", "log"),
    ("db_dir", "db"),
    ("db_home_dir", "db-home"),
];
/// Those of its plugins that tell of changes, and that the template leaves off.
const PLUGINS: [&str; 2] = ["Retro Changelog Plugin", "Content Synchronization"];
/// A plugin that the server makes by itself, and then looks for where it is installed.
const ENTRY_UUID: &str = "dn: cn=entryuuid,cn=plugins,cn=config
objectClass: top
objectClass: nsSlapdPlugin
cn: entryuuid
nsslapd-pluginPath: libentryuuid-plugin
nsslapd-pluginInitfunc: entryuuid_plugin_init
nsslapd-pluginType: betxnpreoperation
nsslapd-pluginEnabled: on
nsslapd-pluginId: entryuuid
nsslapd-pluginVersion: none
nsslapd-pluginVendor: 389 Project
nsslapd-pluginDescription: entryuuid

";
/// The database of the people.
const DATABASE: &str = "dn: cn=userRoot,cn=ldbm database,cn=plugins,cn=config
objectClass: top
objectClass: extensibleObject
objectClass: nsBackendInstance
cn: userRoot
nsslapd-suffix: dc=example,dc=com

dn: cn=\"dc=example,dc=com\",cn=mapping tree,cn=config
objectClass: top
objectClass: extensibleObject
objectClass: nsMappingTree
cn: dc=example,dc=com
nsslapd-state: backend
nsslapd-backend: userRoot
";

/// A server of `dc=example,dc=com` that keeps a numbered log and gives cookies. Its manager is [`MANAGER`](Self::MANAGER), whose password is
/// [`PASSWORD`](Self::PASSWORD). Ends when it is dropped.
#[derive(Debug)]
pub struct Ds389 {
    root: PathBuf,
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Ds389 {
    /// Who may do everything.
    pub const MANAGER: &str = "cn=Directory Manager";
    /// Of the manager.
    pub const PASSWORD: &str = "as secret as it gets";

    /// Starts one, with nothing in it.
    ///
    /// # Panics
    /// If there is no 389 Directory Server, or it doesn't start.
    pub fn start() -> Self {
        let root = root_of("usr/sbin/ns-slapd");
        let root = root.expect("there is no 389 Directory Server: `cargo xtask setup` fetches Debian's");
        let mut this = Self { root, folder: folder(), port: free_port(), process: None };
        fs::create_dir(this.folder.path().join("config")).expect("a folder of the server");
        give(&this.folder.path().join("config"));
        for (_, name) in FOLDERS {
            let path = this.folder.path().join(name);
            fs::create_dir(&path).expect("a folder of the server");
            give(&path);
        }
        let schemas = fs::read_dir(this.root.join("usr/share/dirsrv/schema")).expect("its schema");
        for schema in schemas.flatten() {
            this.copy(&schema.path(), "config/schema");
        }
        let etc = this.root.join("etc/dirsrv");
        this.copy(&etc.join("schema/99user.ldif"), "config/schema");
        this.copy(&etc.join("config/slapd-collations.conf"), "config");
        this.copy(&etc.join("config/certmap.conf"), "config");
        this.file("config/dse.ldif", &this.configuration());
        this.restart();
        this.change(DATABASE);
        this
    }

    /// The package's template, filled in.
    fn configuration(&self) -> String {
        let template = self.root.join("usr/share/dirsrv/data/template-dse.ldif");
        let mut text = fs::read_to_string(template).expect("the package's template");
        let folder = self.folder.path().display().to_string();
        for (name, path) in FOLDERS {
            text = text.replace(&format!("%{name}%"), &format!("{folder}/{path}"));
        }
        let id = unprivileged(Path::new("id"), self.folder.path()).arg("-un").output().expect("running id");
        let user = String::from_utf8_lossy(&id.stdout).trim().to_owned();
        for (name, value) in [
            ("fqdn", "localhost"),
            ("ds_port", &self.port.to_string()),
            ("ds_user", &user),
            ("rootdn", Self::MANAGER),
            ("ds_passwd", &format!("{{CLEAR}}{}\nnsslapd-rootpwstoragescheme: CLEAR", Self::PASSWORD)),
            ("ldapi_enabled", "off"),
            ("ldapi", &format!("{folder}/run/ldapi")),
            ("ldapi_autobind", "off"),
            ("ds_suffix", "dc=example,dc=com"),
            ("config_dir", &format!("{folder}/config")),
            ("db_lib", "bdb"),
        ] {
            text = text.replace(&format!("%{name}%"), value);
        }
        text = text.replacen("nsslapd-port:", "nsslapd-listenhost: 127.0.0.1\nnsslapd-port:", 1);
        text.push_str(ENTRY_UUID);
        let entries = text.split("\n\n").map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(|entry| format!("{}\n\n", self.entry(entry))).collect()
    }

    /// An entry of the template: its library by its whole path, and its plugin on, where it is wanted.
    fn entry(&self, entry: &str) -> String {
        let libraries = self.root.join(plugins());
        let is_wanted = PLUGINS.iter().any(|name| entry.starts_with(&format!("dn: cn={name},")));
        let line = |line: &str| match line.split_once(": ") {
            Some((name, library)) if name.eq_ignore_ascii_case("nsslapd-pluginpath") => {
                format!("{name}: {}.so", libraries.join(library).display())
            }
            Some((name, "off")) if is_wanted && name.eq_ignore_ascii_case("nsslapd-pluginenabled") => {
                format!("{name}: on")
            }
            _ => line.to_owned(),
        };
        let mut lines: Vec<String> = entry.lines().map(line).collect();
        if entry.starts_with("dn: cn=Retro Changelog Plugin,") {
            lines.push("nsslapd-attribute: nsuniqueid:targetUniqueId".to_owned());
            lines.push("nsslapd-attribute: entryuuid:targetEntryUUID".to_owned());
        }
        if entry.starts_with("dn: cn=config,cn=ldbm database,") {
            lines.push("nsslapd-db-durable-transaction: off".to_owned());
        }
        lines.join("\n")
    }

    /// Begins again, after [`kill`](Self::kill).
    ///
    /// # Panics
    /// If it doesn't start.
    pub fn restart(&mut self) {
        let log = appended(&self.folder.path().join("output"));
        let mut slapd = unprivileged(&self.root.join("usr/sbin/ns-slapd"), self.folder.path());
        let config = self.folder.path().join("config");
        slapd.arg("-D").arg(config).args(["-i", "run/pid", "-d", "0"]).stdin(Stdio::null()).stdout(Stdio::null());
        slapd.stderr(log);
        self.process = Some(begin("ns-slapd", slapd, || self.log(), || self.clients().are_answered()));
    }

    /// Ends it at once, with all connections.
    ///
    /// # Panics
    /// If it can't be ended.
    pub fn kill(&mut self) {
        kill(&mut self.process);
    }

    /// Its port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logged.
    pub fn log(&self) -> String {
        ["output", "log/errors"]
            .map(|name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default())
            .concat()
    }

    /// Changes entries as the manager: LDIF, in which entries without `changetype` are added.
    ///
    /// # Panics
    /// If a change is refused.
    #[track_caller]
    pub fn change(&self, ldif: &str) {
        self.clients().change(ldif);
    }

    /// Entries as LDIF: of this filter, and with these attributes.
    ///
    /// # Panics
    /// If they can't be read.
    #[track_caller]
    pub fn search(&self, base: &str, filter: &str, attributes: &[&str]) -> String {
        self.clients().search(base, filter, attributes)
    }

    fn clients(&self) -> Clients<'_> {
        Clients { folder: self.folder.path(), port: self.port, name: Self::MANAGER, password: Self::PASSWORD }
    }

    fn copy(&self, from: &Path, folder: &str) {
        let name = from.file_name().expect("a file").to_string_lossy();
        let text = fs::read_to_string(from).expect("a file of the package");
        self.file(&format!("{folder}/{name}"), &text);
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        crate::write(self.folder.path(), name, text)
    }
}

impl Drop for Ds389 {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the package has its plugins.
fn plugins() -> String {
    format!("usr/lib/{}-linux-gnu/dirsrv/plugins", std::env::consts::ARCH)
}
