//! A place to run the real program in: a folder with a configuration, connectors and people, the commands in it, and a server with
//! its log and its API. Judges nothing.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

pub mod bodies;
mod built;
pub mod following;
pub mod fuzz;
pub mod ldap;
pub mod sql;
pub mod web;

use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;
use tidewaiter::clock::Clock;

pub use self::built::{connection, connection_config, info};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the connector `csv` that reads files at once.
pub const HR: &str = r#"
connector = "csv"
[settings]
folder = "people"
uid = "id"
updated_at = "updated_at"
deleted_at = "deleted_at"
settle_ms = 0
[types.account]
class = "account"
"#;

fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(name)
}

/// Waits for a minute at most.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let clock = Clock::start();
    while !is_so() {
        assert!(clock.moment().0 < 60_000, "{what}: never");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether tests are to take a minute, not many.
#[expect(clippy::disallowed_methods, reason = "how xtask says it")]
pub fn is_quick() -> bool {
    std::env::var_os("TIDEWAITER_TEST_QUICK").is_some()
}

/// A built connector.
pub fn connector(name: &str) -> PathBuf {
    let path = component(name);
    assert!(path.exists(), "{}: `cargo xtask build` makes it", path.display());
    path
}

fn component(name: &str) -> PathBuf {
    let folder = if ["hostile", "synthetic", "pg-py"].contains(&name) { "guest" } else { "connectors" };
    target(&format!("{folder}/{name}.wasm"))
}

/// The program.
pub fn program() -> PathBuf {
    let program = target("house/tidewaiter");
    assert!(program.exists(), "{}: `cargo xtask test` builds it", program.display());
    program
}

/// An example of the library.
pub fn example(name: &str) -> PathBuf {
    let example = target(&format!("house/examples/{name}"));
    assert!(example.exists(), "{}: `cargo xtask test` builds it", example.display());
    example
}

/// Whether a connector that not every machine can build is there. CI can.
pub fn built(name: &str) -> bool {
    is_there(name, component(name).exists())
}

/// Whether what a test needs is there. In CI it has to be; elsewhere the test is left out, and says so.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "how CI says that it is one, and people are told")]
pub fn is_there(what: &str, there: bool) -> bool {
    assert!(there || std::env::var_os("CI").is_none_or(|value| value != "true"), "{what} is not there");
    if !there {
        println!("skipped: {what} is not there");
    }
    there
}

/// Rows of `people.csv` with these ids, each changed a second after the one before it, from the second of March on.
pub fn rows(ids: RangeInclusive<u32>, year: u32) -> String {
    let row = |n: u32| {
        let (day, second) = (2 + n / 86_400, n % 86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{n},person{n}@example.org,{year}-03-{day:02}T{hour:02}:{minute:02}:{second:02}Z,\n")
    };
    ids.map(row).collect()
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// What a command with `--json` printed.
    pub fn json(&self) -> Json {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A component with other bytes in some places, of the same length.
pub fn patched(mut component: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let windows = component.windows(from.len()).enumerate();
    let places: Vec<usize> = windows.filter(|(_, part)| *part == from.as_bytes()).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "{from} is not in the component");
    for at in places {
        component[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    component
}

/// A folder with a configuration, `people/` and the connectors.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
}

impl Place {
    /// With the connection `hr`, granted what it needs, and an API on a free port.
    pub fn new() -> Self {
        let place = Self::empty();
        place.write("tidewaiter.toml", "[http]\nlisten = \"127.0.0.1:0\"\n");
        place.write("connections/hr.toml", HR);
        place.write("grants/hr.toml", "read = [\"people\"]\n");
        place
    }

    /// With connectors, and no configuration.
    pub fn empty() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["people", "connectors"] {
            std::fs::create_dir(place.path(name)).unwrap();
        }
        place.install("csv");
        place
    }

    /// Puts a built connector into the folder of connectors.
    pub fn install(&self, name: &str) {
        let to = self.path("connectors").join(format!("{name}.wasm"));
        std::fs::copy(connector(name), to).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, as a whole. A `tidewaiter.toml` that doesn't say which connectors are trusted trusts all.
    pub fn write(&self, name: &str, text: &str) {
        let trusting = format!("{text}\n[connector-trust]\nmode = \"any\"\n");
        let says = name != "tidewaiter.toml" || text.contains("connector-trust");
        let (path, text) = (self.path(name), if says { text } else { &trusting });
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let partial = path.with_extension("partial");
        std::fs::write(&partial, text).unwrap();
        std::fs::rename(partial, path).unwrap();
    }

    /// Writes the rows of `people/people.csv`: `id,mail,updated_at,deleted_at`.
    pub fn people(&self, rows: &str) {
        self.rows("people", rows);
    }

    /// Writes the rows of a file as that one is, in a folder of its own.
    pub fn rows(&self, folder: &str, rows: &str) {
        self.write(&format!("{folder}/people.csv"), &format!("id,mail,updated_at,deleted_at\n{rows}"));
    }

    /// A connection as `HR` is, to rows in a folder that is called as it is, with more that is said of its type.
    pub fn csv(&self, name: &str, rows: &str, of_type: &str) {
        self.rows(name, rows);
        let connection = HR.replace("folder = \"people\"", &format!("folder = {name:?}"));
        self.write(&format!("connections/{name}.toml"), &format!("{connection}{of_type}"));
        self.write(&format!("grants/{name}.toml"), &format!("read = [{name:?}]\n"));
    }

    /// Puts a file in the place of a connector's, at once.
    pub fn save(&self, connector: &str, component: &[u8]) {
        std::fs::write(self.path("new"), component).unwrap();
        std::fs::rename(self.path("new"), self.path(&format!("connectors/{connector}.wasm"))).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; the words are its arguments.
    pub fn run(&self, words: &str) -> Ended {
        let arguments: Vec<&str> = words.split_whitespace().collect();
        let output = self.command(&arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Starts a server, and waits until it serves.
    pub fn serve(&self) -> Server {
        let server = self.start();
        server.wait_for("serving", 0);
        server
    }

    /// Starts a server.
    pub fn start(&self) -> Server {
        self.start_by(self.command(&["serve"]))
    }

    /// Starts a server by a command that becomes it.
    pub fn start_by(&self, mut command: Command) -> Server {
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let (lines, into) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lines.lock().unwrap().push(line);
                into.more.notify_all();
            }
            into.lines.lock().unwrap().push(Log::END.to_owned());
            into.more.notify_all();
        });
        Server { child, log, data: self.path("data") }
    }

    /// All entries of the journal, as `changes --json` has them.
    pub fn changes(&self) -> Vec<Json> {
        let ended = self.run("changes --json");
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        lines(&ended.stdout)
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// JSON, one object a line.
pub fn lines(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Log {
    const END: &str = "(the log ends)";
}

/// A running `tidewaiter serve`. Killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Arc<Log>,
    data: PathBuf,
}

impl Server {
    /// Waits for a line with this text at or after a place, and says the place after it.
    pub fn wait_for(&self, text: &str, from: usize) -> usize {
        let lines = self.log.lines.lock().unwrap();
        let found =
            |lines: &Vec<String>| lines.iter().skip(from).position(|line| line.contains(text)).map(|at| from + at + 1);
        let ended = |lines: &Vec<String>| lines.last().is_some_and(|line| line == Log::END);
        let wait = self.log.more.wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none() && !ended(lines));
        let (lines, _) = wait.unwrap();
        found(&lines).unwrap_or_else(|| panic!("no {text:?} after line {from} of:\n{}", lines.join("\n")))
    }

    /// The lines of the log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().clone()
    }

    /// The address of the server, as in `http://127.0.0.1:4711`.
    pub fn url(&self) -> String {
        let at = self.wait_for("HTTP API at ", 0);
        self.log()[at - 1].rsplit("HTTP API at ").next().unwrap().to_owned()
    }

    /// The address of OpenIDM's calls.
    pub fn api(&self) -> String {
        format!("{}/openidm", self.url())
    }

    /// The first access token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.data.join("http-token")).unwrap().trim().to_owned()
    }

    /// Makes one of OpenIDM's calls with the first access token; answers status and body.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Json) {
        let bearer = format!("Bearer {}", self.token());
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend(headers);
        call(method, &format!("{}/{path}", self.api()), &all, body)
    }

    /// Kills it at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file in which it writes down who did what.
    pub fn audit(&self) -> PathBuf {
        self.data.join("audit.ndjson")
    }

    /// Tells it to end, waits, and answers its exit code and its log.
    pub fn end(self) -> (i32, Vec<String>) {
        self.end_by("TERM")
    }

    /// Tells it to end by a signal, as in `INT`, waits, and answers its exit code and its log.
    pub fn end_by(mut self, signal: &str) -> (i32, Vec<String>) {
        let id = self.child.id().to_string();
        let told = Command::new("sh").args(["-c", "kill -\"$1\" \"$0\"", &id, signal]).status().unwrap();
        assert!(told.success());
        let status = self.child.wait().unwrap();
        self.wait_for(Log::END, 0);
        (status.code().unwrap_or(-1), self.log())
    }

    /// Its peak memory so far, in bytes, as the kernel counts it.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls a server, and follows it nowhere; answers status and body, as a text where it isn't JSON.
pub fn call(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, Json) {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(PATIENCE))
            .build(),
    );
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response =
        agent.run(request.body(body.to_owned()).unwrap()).unwrap_or_else(|error| panic!("{url}: {error}"));
    let text = response.body_mut().read_to_string().unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Json::String(text));
    (response.status().as_u16(), json)
}
