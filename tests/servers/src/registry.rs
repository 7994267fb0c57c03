//! Debian's registry of OCI artifacts, and the client that others push with.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use crate::{Tls, appended, begin, folder, free_port, is_file, kill, root_of, unpacked, unprivileged, write};

/// Pushes files, each `PATH:TYPE`, with a configuration.
const PUSH: &str = "
import sys, oras.client
_, registry, artifact, config, *files = sys.argv
client = oras.client.OrasClient(hostname=registry, insecure=True)
client.push(target=artifact, files=files, manifest_config=config, disable_path_validation=True)
";
/// As people have it who publish WebAssembly.
const CONFIG: &str = r#"{"created":"2026-01-01T00:00:00Z","architecture":"wasm","os":"wasip2","layerDigests":[]}"#;
const PATH: &str = "usr/bin/docker-registry";

/// A registry. Ends when it is dropped; what was pushed stays through `restart`.
#[derive(Debug)]
pub struct Registry {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Registry {
    /// Who is let in, where somebody has to be.
    pub const USER: &str = "ann";
    /// Of the user.
    pub const PASSWORD: &str = "as secret as it gets";

    /// Starts one with nothing in it, for everybody and in clear.
    ///
    /// # Panics
    /// If there is none, or it doesn't start.
    pub fn start() -> Self {
        let mut this = Self { folder: folder(), port: free_port(), process: None };
        this.restart(None, false);
        this
    }

    /// Starts it anew.
    ///
    /// # Panics
    /// If it doesn't start.
    pub fn restart(&mut self, tls: Option<&Tls>, asks_who: bool) {
        kill(&mut self.process);
        let (folder, port) = (self.folder.path(), self.port);
        let tls = tls.map_or(String::new(), |Tls { certificate, key }| {
            let [certificate, key] = [write(folder, "certificate.pem", certificate), write(folder, "key.pem", key)];
            format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display())
        });
        let auth = if asks_who {
            // The hash of the password, by bcrypt.
            let hash = "$2b$04$tH1oBLSl0vVF17MdCLbJJuYa0vXYBCfvIdB5tGnVwUGHA3aTCahBa";
            let users = write(folder, "users", &format!("{}:{hash}\n", Self::USER));
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display())
        } else {
            String::new()
        };
        let configuration = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n{auth}http:\n  addr: 127.0.0.1:{port}\n{tls}",
            self.storage().display()
        );
        let configuration = write(folder, "config.yml", &configuration);
        let root = root_of(PATH).expect("there is no docker-registry: `cargo xtask setup` fetches Debian's");
        let log = folder.join("log");
        let mut command = unprivileged(&root.join(PATH), folder);
        command.arg("serve").arg(configuration).stdout(appended(&log)).stderr(appended(&log));
        let log = || fs::read_to_string(&log).unwrap_or_default();
        let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        self.process = Some(begin("docker-registry", command, log, answers));
    }

    /// Its port on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    /// Whether there is a client to push with.
    pub fn has_client() -> bool {
        is_file(&tools().join("installed-oras"))
    }

    /// Has others' client push files of a folder, each `NAME:TYPE`, as `REPOSITORY:TAG`.
    ///
    /// # Panics
    /// If it can't.
    pub fn push(&self, from: &Path, artifact: &str, files: &[&str]) {
        let python = tools().join("bin/python");
        let (registry, config) = (format!("127.0.0.1:{}", self.port), self.folder.path().join("config.json"));
        fs::write(&config, CONFIG).expect("writing the configuration of an artifact");
        let mut push = Command::new(python);
        push.current_dir(from).env("DOCKER_CONFIG", self.folder.path()).args(["-c", PUSH, &registry]);
        push.arg(format!("{registry}/{artifact}"))
            .arg(format!("{}:application/vnd.wasm.config.v0+json", config.display()));
        let output = push.args(files).output().expect("running the client of a registry");
        assert!(output.status.success(), "{artifact}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Where Python's tools are.
fn tools() -> PathBuf {
    unpacked().with_file_name("python")
}

impl Drop for Registry {
    fn drop(&mut self) {
        kill(&mut self.process);
    }
}
