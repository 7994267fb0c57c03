//! OpenLDAP's slapd.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::ldap::Clients;
use crate::{Tls, appended, begin, folder, free_port, give, kill, root_of, unprivileged};

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct Slapd {
    /// Offers TLS after it is asked for it, and at once on a port of its own.
    pub tls: Option<Tls>,
    /// Its number among those that write. 0: it has none.
    pub server_id: u16,
    /// Lines for the database of the people.
    pub database: String,
    /// Lines for the database of the log.
    pub log: String,
    /// Lines for the whole server, before any database.
    pub global: String,
}

/// A server of `dc=example,dc=com` and of `cn=accesslog`, which both give cookies. Its administrator is [`ADMINISTRATOR`](Self::ADMINISTRATOR), whose
/// password is [`PASSWORD`](Self::PASSWORD). Ends when it is dropped.
#[derive(Debug)]
pub struct OpenLdap {
    root: PathBuf,
    folder: TempDir,
    port: u16,
    tls_port: Option<u16>,
    server_id: u16,
    process: Option<Child>,
}

impl OpenLdap {
    /// Who may do everything.
    pub const ADMINISTRATOR: &str = "cn=admin,dc=example,dc=com";
    /// Of the administrator.
    pub const PASSWORD: &str = "as secret as it gets";

    /// Starts one, with nothing in it.
    ///
    /// # Panics
    /// If there is no slapd, or it doesn't start.
    pub fn start(slapd: &Slapd) -> Self {
        let tls_port = slapd.tls.as_ref().map(|_| free_port());
        let root = root_of("usr/sbin/slapd").expect("there is no slapd: `cargo xtask setup` fetches Debian's");
        let mut this =
            Self { root, folder: folder(), port: free_port(), tls_port, server_id: slapd.server_id, process: None };
        for name in ["people", "log"] {
            let path = this.folder.path().join(name);
            fs::create_dir(&path).expect("a folder of the server");
            give(&path);
        }
        this.file("slapd.conf", &this.configuration(slapd));
        this.restart();
        this
    }

    fn configuration(&self, slapd: &Slapd) -> String {
        let (root, folder) = (self.root.display(), self.folder.path().display());
        let Slapd { tls, server_id, database, log, global } = slapd;
        let tls = tls.as_ref().map_or(String::new(), |Tls { certificate, key }| {
            let [certificate, key] = [self.file("certificate.pem", certificate), self.file("key.pem", key)];
            format!("TLSCertificateFile {}\nTLSCertificateKeyFile {}\n", certificate.display(), key.display())
        });
        let server_id = if *server_id > 0 { format!("serverID {server_id}\n") } else { String::new() };
        let schemas: String = ["core", "cosine", "inetorgperson", "nis"]
            .map(|name| format!("include {root}/etc/ldap/schema/{name}.schema\n"))
            .concat();
        let modules: String = ["back_mdb", "syncprov", "accesslog"].map(|name| format!("moduleload {name}\n")).concat();
        let administrator = Self::ADMINISTRATOR;
        format!(
            "modulepath {root}/usr/lib/ldap\n{modules}{schemas}{server_id}{tls}{global}\n\
             database mdb\nsuffix cn=accesslog\nrootdn {administrator}\ndirectory {folder}/log\nmaxsize 4294967296\ndbnosync\n\
             index entryCSN,objectClass,reqStart,reqResult eq\noverlay syncprov\nsyncprov-nopresent TRUE\nsyncprov-reloadhint TRUE\n{log}\n\
             database mdb\nsuffix dc=example,dc=com\nrootdn {administrator}\nrootpw \"{}\"\ndirectory {folder}/people\n\
             maxsize 4294967296\ndbnosync\nindex objectClass,entryUUID,entryCSN,modifyTimestamp,uid eq\n\
             overlay syncprov\noverlay accesslog\nlogdb cn=accesslog\nlogops writes\nlogsuccess TRUE\n{database}\n",
            Self::PASSWORD
        )
    }

    /// Begins again, after [`kill`](Self::kill).
    ///
    /// # Panics
    /// If it doesn't start.
    pub fn restart(&mut self) {
        let log = appended(&self.folder.path().join("slapd.log"));
        let mut urls = format!("ldap://127.0.0.1:{}", self.port);
        if let Some(port) = self.tls_port {
            urls.push_str(&format!(" ldaps://127.0.0.1:{port}"));
        }
        let mut slapd = self.program("usr/sbin/slapd");
        slapd.args(["-d", "0", "-f", "slapd.conf", "-h", &urls]).stdin(Stdio::null()).stdout(Stdio::null());
        slapd.stderr(log);
        self.process = Some(begin("slapd", slapd, || self.log(), || self.clients().are_answered()));
    }

    /// Ends it at once, with all connections.
    ///
    /// # Panics
    /// If it can't be ended.
    pub fn kill(&mut self) {
        kill(&mut self.process);
    }

    /// Ends it in order, adds many entries at once as LDIF, and starts it again.
    ///
    /// # Panics
    /// If one can't be added.
    pub fn load(&mut self, ldif: &str) {
        let Some(mut process) = self.process.take() else { panic!("it isn't running") };
        let told = Command::new("kill").arg(process.id().to_string()).status();
        assert!(told.is_ok_and(|status| status.success()), "kill");
        process.wait().expect("its end");
        let file = self.file("load.ldif", ldif);
        let mut slapadd = self.program("usr/sbin/slapd");
        // As slapd is called for it: the package's own program of that name is a link. With the server's number, so that its cookie
        // moves on.
        slapadd.args(["-T", "add", "-q", "-S", &self.server_id.to_string(), "-f", "slapd.conf"]);
        slapadd.args(["-b", "dc=example,dc=com", "-w", "-l"]).arg(&file);
        let done = slapadd.output().expect("running slapadd");
        assert!(done.status.success(), "slapadd: {}", String::from_utf8_lossy(&done.stderr));
        fs::remove_file(file).expect("removing what was loaded");
        self.restart();
    }

    /// Its port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its port for TLS at once.
    ///
    /// # Panics
    /// If it was started without TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("started with TLS")
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("slapd.log")).unwrap_or_default()
    }

    /// Changes entries as the administrator: LDIF, in which entries without `changetype` are added.
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
        Clients { folder: self.folder.path(), port: self.port, name: Self::ADMINISTRATOR, password: Self::PASSWORD }
    }

    fn program(&self, path: &str) -> Command {
        unprivileged(&self.root.join(path), self.folder.path())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        crate::write(self.folder.path(), name, text)
    }
}

impl Drop for OpenLdap {
    fn drop(&mut self) {
        self.kill();
    }
}
