//! Real servers for tests: each in a folder of its own, on a free port of this machine, and gone at the end. As they come with Debian;
//! those that refuse to run as root run as nobody.

mod browser;
mod ds389;
mod ldap;
mod mariadb;
mod openldap;
mod postgresql;
mod prometheus;
mod registry;
mod sql;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

pub use browser::Browser;
pub use ds389::Ds389;
pub use mariadb::MariaDb;
pub use openldap::{OpenLdap, Slapd};
pub use postgresql::PostgreSql;
pub use prometheus::Prometheus;
pub use registry::Registry;
use tempfile::TempDir;

/// Debian's nobody, and its group.
const NOBODY: (u32, u32) = (65_534, 65_534);

/// What a server speaks TLS with, in PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Its certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// A folder that the server's user owns.
fn folder() -> TempDir {
    let folder = TempDir::with_prefix("tidewaiter-server-").expect("a temporary folder");
    give(folder.path());
    folder
}

/// Gives a file or folder to the user that servers run as.
fn give(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY.0), Some(NOBODY.1)).expect("giving a file to nobody");
    }
}

/// A program, run as who servers run as.
fn unprivileged(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    if is_root() {
        command.uid(NOBODY.0).gid(NOBODY.1);
    }
    if let Some(libraries) = libraries(program) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

/// How often a server is asked whether it has started, and how long it is left alone in between.
const ASKED_MAX: u32 = 1000;
const ASKED_EVERY: Duration = Duration::from_millis(30);
/// How often one is begun that ends before it answers, or never does: what is tested is not how it starts.
const BEGUN_MAX: usize = 3;

/// Begins a server, and waits until it answers.
///
/// # Panics
/// If it doesn't start: with how each attempt ended, and what it logged.
fn begin(name: &str, mut command: Command, log: impl Fn() -> String, answers: impl Fn() -> bool) -> Child {
    let mut attempts = Vec::new();
    for _ in 0..BEGUN_MAX {
        let mut process = command.spawn().unwrap_or_else(|error| panic!("running {name}: {error}"));
        match await_start(&mut process, &answers) {
            Ok(()) => return process,
            Err(how) => attempts.push(how),
        }
        kill(&mut Some(process));
    }
    panic!("{name} doesn't start ({}): {}", attempts.join("; "), log());
}

/// Waits until a server answers; an error says how it failed to.
fn await_start(process: &mut Child, answers: impl Fn() -> bool) -> Result<(), String> {
    for asked in 0..ASKED_MAX {
        if answers() {
            return Ok(());
        }
        if let Some(status) = process.try_wait().expect("the state of a server") {
            return Err(format!("ended with {status}, asked {asked} times"));
        }
        thread::sleep(ASKED_EVERY);
    }
    Err(format!("runs, and doesn't answer, asked {ASKED_MAX} times"))
}

/// Ends a server at once, with all connections.
fn kill(process: &mut Option<Child>) {
    let Some(mut process) = process.take() else { return };
    process.kill().expect("killing a server");
    process.wait().expect("its end");
}

/// Runs the tool that others sign with, in a folder, and tells it a password as often as it asks.
///
/// # Panics
/// It isn't there.
pub fn minisign(folder: &Path, words: &str, password: &str) -> Output {
    let path = "usr/bin/minisign";
    let program = root_of(path).expect("minisign: `cargo xtask setup` gets it").join(path);
    let mut command = Command::new(&program);
    command.current_dir(folder).args(words.split_whitespace());
    if let Some(libraries) = libraries(&program) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    fed(&mut command, &format!("{password}\n{password}\n"))
}

/// Runs the tool that looks at units of systemd; the words are its arguments.
///
/// # Panics
/// It isn't there.
pub fn systemd_analyze(folder: &Path, words: &str) -> Output {
    let path = "usr/bin/systemd-analyze";
    let root = root_of(path).expect("systemd-analyze: `cargo xtask setup` gets it");
    let program = root.join(path);
    let mut command = Command::new(&program);
    command.current_dir(folder).args(words.split_whitespace());
    if let Some(libraries) = libraries(&program) {
        // Units that come with it are beside it, too.
        command.env("LD_LIBRARY_PATH", libraries).env("SYSTEMD_UNIT_PATH", root.join("lib/systemd/system"));
    }
    command.output().expect("running systemd-analyze")
}

/// Runs a program with something to read.
fn fed(command: &mut Command, input: &str) -> Output {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("running a client");
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_owned();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("its output");
    // What it didn't read it has said something about.
    let _ = writer.join();
    output
}

/// A file that is added to.
fn appended(path: &Path) -> fs::File {
    fs::File::options().create(true).append(true).open(path).expect("a log")
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Where packages lie that were unpacked and not installed: see `cargo xtask setup`.
fn unpacked() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the project's folder").join("target/tools/servers")
}

/// Where a program is that the machine has, or else one that was unpacked: what its path is below.
fn root_of(path: &str) -> Option<PathBuf> {
    [PathBuf::from("/"), unpacked()].into_iter().find(|root| root.join(path).is_file())
}

/// Writes a file that only the server's user reads.
fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("writing a file of the server");
    give(&path);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&path, mode).expect("its permissions");
    path
}

/// The libraries that lie beside an unpacked program.
fn libraries(program: &Path) -> Option<OsString> {
    let unpacked = unpacked();
    let folder = unpacked.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    // 389's own, those that its plugins have of each other, systemd's, and those of sound, which a browser wants to have.
    let folders = ["", "dirsrv", "dirsrv/plugins", "systemd", "pulseaudio"].map(|name| folder.join(name));
    program.starts_with(&unpacked).then(|| std::env::join_paths(folders).expect("no colon in the project's path"))
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
