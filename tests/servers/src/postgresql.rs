//! PostgreSQL.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Tls, appended, begin, folder, free_port, is_file, sql, unpacked, unprivileged};

/// A server with the superuser `postgres`, whose password is [`PASSWORD`](Self::PASSWORD). Ends when it is dropped.
#[derive(Debug)]
pub struct PostgreSql {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl PostgreSql {
    /// Of the superuser.
    pub const PASSWORD: &str = "as secret as it gets";

    /// Starts one; in clear, or with TLS for those who ask for it.
    ///
    /// # Panics
    /// If there is no PostgreSQL, or it doesn't start.
    pub fn start(tls: Option<&Tls>) -> Self {
        let mut this = Self { programs: programs(), folder: folder(), port: free_port(), process: None };
        let password = this.file("password", Self::PASSWORD);
        let mut initdb = unprivileged(&this.programs.join("initdb"), this.folder.path());
        initdb.args(["--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.arg(format!("--pwfile={}", password.display())).arg("--pgdata=data");
        let made = initdb.output().expect("running initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nfsync = off\n\
             max_connections = 50\nmax_prepared_transactions = 5\nshared_buffers = 64MB\n",
            this.port
        );
        if let Some(Tls { certificate, key }) = tls {
            this.file("data/server.crt", certificate);
            this.file("data/server.key", key);
            settings.push_str("ssl = on\n");
        }
        this.file("data/postgresql.auto.conf", &settings);
        // By SCRAM, but for those whose password is kept in the older form.
        this.file("data/pg_hba.conf", "host all all 127.0.0.1/32 md5\n");
        this.restart();
        this
    }

    /// Begins again, after [`kill`](Self::kill).
    ///
    /// # Panics
    /// If it doesn't start.
    pub fn restart(&mut self) {
        let log = appended(&self.folder.path().join("log"));
        let mut postgres = unprivileged(&self.programs.join("postgres"), self.folder.path());
        postgres.args(["-D", "data"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(begin("postgres", postgres, || self.log(), || sql::answers(&mut self.psql())));
    }

    /// Ends it at once, with all connections.
    ///
    /// # Panics
    /// If it can't be ended.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // SIGQUIT: at once, and not only the parent of those that serve connections.
        let told = Command::new("kill").args(["-QUIT", &process.id().to_string()]).status();
        assert!(told.is_ok_and(|status| status.success()), "kill");
        process.wait().expect("its end");
    }

    /// Its port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs statements as the superuser, one transaction each. Answers the rows, a line each, with `|` between cells.
    ///
    /// # Panics
    /// If one fails.
    #[track_caller]
    pub fn run(&self, statements: &str) -> String {
        sql::run(&mut self.psql(), statements)
    }

    /// Why statements fail.
    ///
    /// # Panics
    /// If they don't.
    #[track_caller]
    pub fn refuses(&self, statements: &str) -> String {
        sql::refuses(&mut self.psql(), statements)
    }

    /// A session that runs statements as they are written to its standard input.
    ///
    /// # Panics
    /// If psql can't be run.
    pub fn session(&self) -> Child {
        sql::session(&mut self.psql())
    }

    fn psql(&self) -> Command {
        let mut psql = unprivileged(&self.programs.join("psql"), self.folder.path());
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-d",
            "postgres",
            "-U",
            "postgres",
        ]);
        psql.arg("-p").arg(self.port.to_string()).env("PGPASSWORD", Self::PASSWORD);
        psql
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        crate::write(self.folder.path(), name, text)
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder of the newest PostgreSQL's programs.
fn programs() -> PathBuf {
    let versions = [PathBuf::from("/"), unpacked()].map(|root| root.join("usr/lib/postgresql"));
    let folders = versions.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let has_server = |bin: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|program| is_file(&bin.join(program)));
    let found = folders.map(|version| version.path().join("bin")).filter(has_server).max();
    found.expect("there is no PostgreSQL: `cargo xtask setup` fetches Debian's")
}
