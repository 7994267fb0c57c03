//! OpenLDAP's clients, which work with any directory.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use tempfile::TempDir;

use crate::{root_of, unprivileged};

/// Who asks which server of this machine.
pub(crate) struct Login<'a> {
    pub(crate) port: u16,
    pub(crate) name: &'a str,
    pub(crate) password: &'a str,
}

/// Runs a client, and answers what it prints; or what it says when it fails.
pub(crate) fn run(
    folder: &TempDir,
    login: &Login<'_>,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, String> {
    let root: PathBuf = root_of("usr/bin/ldapmodify").expect("there is no ldapmodify: `cargo xtask setup` fetches it");
    let mut client = unprivileged(&root.join("usr/bin").join(program), folder.path());
    client.args(["-x", "-H", &format!("ldap://127.0.0.1:{}", login.port), "-D", login.name, "-w", login.password]);
    client.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = client.spawn().expect("running a client");
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_owned();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("its output");
    // What it didn't read it has said something about.
    let _ = writer.join();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
