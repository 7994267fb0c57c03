//! The engine: connectors are compiled in a confined child process and kept, instances come from a pool where there can be one.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tidewaiter::wasm::{Allocation, CompileError, Connector, Engine, EngineOptions, LoadError};
use tidewaiter_tests::{Place, connector, program};

fn options(compiler: &Path, cache: &Path) -> EngineOptions {
    EngineOptions { compiler: Some(compiler.to_owned()), cache: Some(cache.to_owned()), ..EngineOptions::default() }
}

async fn load(options: &EngineOptions, name: &str) -> Result<Connector, LoadError> {
    let bytes = fs::read(connector(name)).unwrap();
    Connector::load(&Engine::new(options).unwrap(), &name.parse().unwrap(), &bytes).await
}

/// A compiler that does something else.
pub(crate) fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("compiler");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    path
}

fn entry(cache: &Path) -> PathBuf {
    let mut entries = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.file_name().unwrap() != "key").unwrap()
}

fn compile_error(result: Result<Connector, LoadError>) -> CompileError {
    match result {
        Err(LoadError::Compile { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connector_is_compiled_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("compiled");
    load(&options(&program(), &cache), "csv").await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&cache), mode(&entry(&cache)), mode(&cache.join("key"))), (0o700, 0o600, 0o600));
    load(&options(Path::new("/bin/false"), &cache), "csv").await.unwrap();
    let other = compile_error(load(&options(Path::new("/bin/false"), &cache), "hostile").await);
    assert!(matches!(other, CompileError::Died { .. }), "{other}");
}

#[tokio::test]
async fn a_tampered_or_foreign_entry_is_never_used() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, elsewhere) = (dir.path().join("compiled"), dir.path().join("elsewhere"));
    let (compiler, none) = (program(), Path::new("/bin/false"));
    load(&options(&compiler, &cache), "hostile").await.unwrap();
    let path = entry(&cache);
    let good = fs::read(&path).unwrap();
    let refused = async |what: &str| {
        let error = compile_error(load(&options(none, &cache), "hostile").await);
        assert!(matches!(error, CompileError::Died { .. }), "{what}: it was not compiled again: {error}");
    };
    for at in [0, 31, 32, 40, 200, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        refused(&format!("byte {at} changed")).await;
    }
    for length in [0, 10, 32, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        refused(&format!("cut at {length}")).await;
    }
    fs::write(&path, &good).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    refused("readable by others").await;
    fs::remove_file(&path).unwrap();
    fs::write(dir.path().join("copy"), &good).unwrap();
    std::os::unix::fs::symlink(dir.path().join("copy"), &path).unwrap();
    refused("a link to somewhere else").await;
    fs::remove_file(&path).unwrap();
    load(&options(&compiler, &elsewhere), "hostile").await.unwrap();
    fs::copy(entry(&elsewhere), &path).unwrap();
    refused("sealed by another host").await;
    fs::remove_file(&path).unwrap();
    load(&options(&compiler, &cache), "csv").await.unwrap();
    fs::rename(entry(&cache), &path).unwrap();
    refused("the code of another connector").await;
    load(&options(&compiler, &cache), "hostile").await.unwrap();
    assert_eq!(fs::read(&path).unwrap().len(), good.len(), "it was compiled again and kept");
}

#[tokio::test]
async fn a_compiler_that_dies_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("compiled");
    for (text, expected) in [
        ("kill -9 $$", "the compiler died (signal: 9 (SIGKILL))"),
        ("echo 'out of memory' >&2; exit 1", "the compiler died (exit status: 1): out of memory"),
        ("cat >/dev/null; exit 65", "not a WebAssembly component"),
        ("printf nonsense", "can't be loaded"),
    ] {
        let error = compile_error(load(&options(&script(dir.path(), text), &cache), "hostile").await);
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    let gone = compile_error(load(&options(Path::new("/nowhere"), &cache), "hostile").await);
    assert!(gone.to_string().contains("can't run the compiler /nowhere"), "{gone}");
    let compile_time = Duration::from_millis(200);
    let slow = EngineOptions { compile_time, ..options(&script(dir.path(), "exec sleep 60"), &cache) };
    let error = compile_error(load(&slow, "hostile").await);
    assert!(matches!(error, CompileError::TooLong(time) if time == compile_time), "{error}");
    load(&options(&program(), &cache), "hostile").await.unwrap();
}

#[test]
fn the_compiler_is_confined() {
    let mut child = Command::new(program());
    let mut child =
        child.arg("compile").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let limits = || fs::read_to_string(proc.join("limits")).unwrap();
    // The nice value is set after the limits, and Landlock sets the last of these bits.
    let confined = || {
        let nice = fs::read_to_string(proc.join("stat")).unwrap();
        let nice = nice.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap() == "10";
        nice && fs::read_to_string(proc.join("status")).unwrap().contains("NoNewPrivs:\t1")
    };
    while !confined() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::yield_now();
    }
    for limit in ["Max cpu time", "Max file size", "Max address space", "Max core file size"] {
        let line = limits().lines().find(|line| line.starts_with(limit)).unwrap().to_owned();
        assert!(!line.contains("unlimited"), "{line}");
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(65), "nothing is not a component");
}

#[test]
fn instances_come_from_the_system_where_addresses_are_short() {
    let options = EngineOptions { instances: 1 << 20, ..EngineOptions::default() };
    let Allocation::Pooled(slots) = Engine::new(&options).unwrap().allocation() else { panic!("no pool at all") };
    assert!((16..1 << 20).contains(&slots), "{slots}");
    // Too few for any pool, enough for one instance.
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 24000000; exec \"$0\" run --once"]).arg(program());
    let output = limited.current_dir(place.path("")).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && log.contains("too few addresses"), "{log}");
}
