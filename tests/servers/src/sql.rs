//! Statements, by a client of the server's own that reads them from its standard input.

use std::process::{Child, Command, Stdio};

use crate::fed;

/// What statements answer.
#[track_caller]
pub(crate) fn run(client: &mut Command, statements: &str) -> String {
    let done = fed(client, statements);
    assert!(done.status.success(), "{statements}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
}

/// Why they fail.
#[track_caller]
pub(crate) fn refuses(client: &mut Command, statements: &str) -> String {
    let done = fed(client, statements);
    assert!(!done.status.success(), "{statements}: done");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// Whether it is answered at all.
pub(crate) fn answers(client: &mut Command) -> bool {
    fed(client, "SELECT 1").status.success()
}

/// Runs them as they are written.
pub(crate) fn session(client: &mut Command) -> Child {
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("running a client")
}
