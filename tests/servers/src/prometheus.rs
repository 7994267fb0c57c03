//! Debian's Prometheus, and the tool that looks over what it is told to read.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output};

use tempfile::TempDir;

use crate::{appended, begin, fed, folder, free_port, give, kill, libraries, root_of, unprivileged, write};

const PATH: &str = "usr/bin/prometheus";
const TOOL: &str = "usr/bin/promtool";

/// A server that watches one target. Ends when it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    _folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Prometheus {
    /// Watches what is at `/metrics` of an address, once a second, with these rules.
    ///
    /// # Panics
    /// If there is none, or it doesn't start.
    pub fn watching(target: SocketAddr, rules: &Path) -> Self {
        let (folder, port) = (folder(), free_port());
        let place = folder.path().join("rules.yaml");
        fs::copy(rules, &place).expect("copying rules");
        give(&place);
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\n\
             scrape_configs: [{{job_name: tidewaiter, static_configs: [{{targets: ['{target}']}}]}}]\n",
            place.display().to_string()
        );
        let config = write(folder.path(), "prometheus.yml", &config);
        let root = root_of(PATH).expect("there is no prometheus: `cargo xtask setup` fetches Debian's");
        let log = folder.path().join("log");
        let mut command = unprivileged(&root.join(PATH), folder.path());
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.stdout(appended(&log)).stderr(appended(&log));
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let process = Some(begin("prometheus", command, said, answers));
        Self { _folder: folder, port, process }
    }

    /// Where its API is.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What its tool says of metrics, in the format that it spoke first.
    ///
    /// # Panics
    /// It isn't there.
    pub fn check_metrics(text: &str) -> Output {
        fed(tool().args(["check", "metrics"]), text)
    }

    /// What its tool says of rules.
    ///
    /// # Panics
    /// It isn't there.
    pub fn check_rules(file: &Path) -> Output {
        fed(tool().args(["check", "rules"]).arg(file), "")
    }

    /// What its tool says of rules, tried on series of a file.
    ///
    /// # Panics
    /// It isn't there.
    pub fn test_rules(file: &Path) -> Output {
        fed(tool().args(["test", "rules"]).arg(file), "")
    }
}

fn tool() -> Command {
    let program = root_of(TOOL).expect("promtool: `cargo xtask setup` gets it").join(TOOL);
    let mut command = Command::new(&program);
    if let Some(libraries) = libraries(&program) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        kill(&mut self.process);
    }
}
