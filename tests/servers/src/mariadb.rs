//! MariaDB.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Tls, appended, begin, fed, folder, free_port, give, is_file, kill, sql, unpacked, unprivileged};

/// What a new server is made of, in its folder of shared files.
const TABLES: [&str; 3] = ["mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"];

/// A server with the database `hr`, the user `admin` who may do everything, whose password is [`PASSWORD`](Self::PASSWORD), and
/// `tidewaiter`, who may see which transactions go on, with the same password. Ends when it is dropped.
#[derive(Debug)]
pub struct MariaDb {
    usr: PathBuf,
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

impl MariaDb {
    /// Of the users.
    pub const PASSWORD: &str = "as secret as it gets";

    /// Starts one; in clear, or with TLS for those who ask for it.
    ///
    /// # Panics
    /// If there is no MariaDB, or it doesn't start.
    pub fn start(tls: Option<&Tls>) -> Self {
        let mut this = Self { usr: usr(), folder: folder(), port: free_port(), options: Vec::new(), process: None };
        fs::create_dir(this.folder.path().join("data")).expect("the folder of its data");
        give(&this.folder.path().join("data"));
        this.make();
        this.options.extend([format!("--port={}", this.port), "--bind-address=127.0.0.1".to_owned()]);
        this.options.extend(["--skip-log-bin", "--plugin-load-add=auth_ed25519"].map(str::to_owned));
        if let Some(Tls { certificate, key }) = tls {
            let (certificate, key) = (this.file("server.crt", certificate), this.file("server.key", key));
            this.options.push(format!("--ssl-cert={}", certificate.display()));
            this.options.push(format!("--ssl-key={}", key.display()));
        }
        this.restart();
        this
    }

    /// Fills the folder of its data.
    fn make(&self) {
        let shared = self.usr.join("share/mysql");
        let read = |name: &str| fs::read_to_string(shared.join(name)).expect("the tables of a new server");
        let users = ["admin", "tidewaiter"]
            .map(|user| format!("CREATE USER {user}@'127.0.0.1' IDENTIFIED BY '{}';\n", Self::PASSWORD));
        let statements = [
            "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket = NULL;\n".to_owned(),
            TABLES.map(read).concat(),
            "FLUSH PRIVILEGES;\nCREATE DATABASE hr CHARACTER SET utf8mb4;\n".to_owned(),
            users.concat(),
            "GRANT ALL ON *.* TO admin@'127.0.0.1' WITH GRANT OPTION;\nGRANT PROCESS ON *.* TO tidewaiter@'127.0.0.1';\n\
             GRANT SELECT ON hr.* TO tidewaiter@'127.0.0.1';\n"
                .to_owned(),
        ];
        let mut command = self.server();
        let made = fed(command.arg("--bootstrap"), &statements.concat());
        assert!(made.status.success(), "mariadbd makes no server: {}", String::from_utf8_lossy(&made.stderr));
    }

    fn server(&self) -> Command {
        let folder = self.folder.path();
        let log = appended(&folder.join("log"));
        let mut mariadbd = unprivileged(&self.usr.join("sbin/mariadbd"), folder);
        // A machine's zone is not that of the times in a session: here it never is.
        mariadbd.env("TZ", "ELSEWHERE-9");
        // First of all, and no file that the machine may have.
        mariadbd.arg("--no-defaults").stderr(log).stdin(Stdio::null()).stdout(Stdio::null());
        let path = |option: &str, path: PathBuf| format!("--{option}={}", path.display());
        mariadbd.args([
            path("basedir", self.usr.clone()),
            path("lc-messages-dir", self.usr.join("share/mysql")),
            path("plugin-dir", self.usr.join("lib/mysql/plugin")),
            path("datadir", folder.join("data")),
            path("tmpdir", folder.to_owned()),
            path("socket", folder.join("socket")),
            path("pid-file", folder.join("pid")),
        ]);
        mariadbd.args(["--skip-name-resolve", "--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M"]);
        mariadbd.args([
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=fsync",
            "--character-set-server=utf8mb4",
        ]);
        mariadbd
    }

    /// Begins again, after [`kill`](Self::kill).
    ///
    /// # Panics
    /// If it doesn't start.
    pub fn restart(&mut self) {
        let mut mariadbd = self.server();
        mariadbd.args(&self.options);
        self.process = Some(begin("mariadbd", mariadbd, || self.log(), || sql::answers(&mut self.client())));
    }

    /// Restarts it with one more option, such as `--read-only`.
    ///
    /// # Panics
    /// If it doesn't start.
    pub fn restart_with(&mut self, option: &str) {
        self.kill();
        self.options.push(option.to_owned());
        self.restart();
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
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs statements as `admin`, one transaction each. Answers the rows, a line each, with tabulators between cells.
    ///
    /// # Panics
    /// If one fails.
    #[track_caller]
    pub fn run(&self, statements: &str) -> String {
        sql::run(&mut self.client(), statements)
    }

    /// Why statements fail.
    ///
    /// # Panics
    /// If they don't.
    #[track_caller]
    pub fn refuses(&self, statements: &str) -> String {
        sql::refuses(&mut self.client(), statements)
    }

    /// A session that runs statements as they are written to its standard input.
    ///
    /// # Panics
    /// If the client can't be run.
    pub fn session(&self) -> Child {
        sql::session(self.client().arg("--unbuffered"))
    }

    fn client(&self) -> Command {
        let mut client = unprivileged(&self.usr.join("bin/mariadb"), self.folder.path());
        client.args([
            "--no-defaults",
            "--batch",
            "--skip-column-names",
            "--skip-ssl",
            "--default-character-set=utf8mb4",
        ]);
        client.args(["--host=127.0.0.1", "--user=admin", "--database=hr", &format!("--port={}", self.port)]);
        client.env("MYSQL_PWD", Self::PASSWORD);
        client
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        crate::write(self.folder.path(), name, text)
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder that programs, plugins and shared files are in.
fn usr() -> PathBuf {
    let has_server = |usr: &PathBuf| ["sbin/mariadbd", "bin/mariadb"].iter().all(|program| is_file(&usr.join(program)));
    let found = [Path::new("/").join("usr"), unpacked().join("usr")].into_iter().find(has_server);
    found.expect("there is no MariaDB: `cargo xtask setup` fetches Debian's")
}
