//! Tells the program what it is built by and for, which no macro has, and which redb is linked, which redb itself doesn't say. Reads the
//! lock and asks the compiler, and needs neither git nor network.

#![expect(clippy::disallowed_methods, reason = "how cargo talks to a build script")]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=TIDEWAITER_TARGET={target}");
    println!("cargo::rustc-env=TIDEWAITER_RUSTC={}", rustc().unwrap_or_default());
    // Where this crate is built without its workspace, another lock counts, and nobody here knows which.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let redb = std::fs::read_to_string(&lock).ok().and_then(|text| locked(&text, "redb"));
    if redb.is_some() {
        println!("cargo::rerun-if-changed={}", lock.display());
    }
    println!("cargo::rustc-env=TIDEWAITER_REDB={}", redb.unwrap_or_default());
}

/// As in `rustc 1.95.0 (59807616e 2026-04-14)`.
fn rustc() -> Option<String> {
    let output = Command::new(std::env::var_os("RUSTC")?).arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The version of a package in a lock.
fn locked(lock: &str, package: &str) -> Option<String> {
    let after = lock.split(&format!("name = \"{package}\"\nversion = \"")).nth(1)?;
    after.split('"').next().map(str::to_owned)
}
