//! Owns how other programs are run: quietly, with their output in a log that is shown when they fail.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How many lines of a failed program's output are shown.
const SHOWN_LINES: usize = 40;

/// Says what is being done, on one line.
#[expect(clippy::print_stderr, reason = "this is the program's voice")]
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// Runs a program with its output in `target/logs/NAME.log`, and says how long it took.
pub(crate) fn run_logged(root: &Path, name: &str, what: &str, command: &mut Command) -> Result<()> {
    let folder = root.join("target/logs");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.log"));
    let log = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    say(what);
    let (status, took) = timed(|| {
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .status()
            .with_context(|| missing(command))
    })?;
    if !status.success() {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        bail!("{what}: {} ended with {status}; the end of {}:\n{last}", program(command), path.display());
    }
    say(&format!("{what}: done in {} s", took.as_secs()));
    Ok(())
}

/// Runs a program with its output shown.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    let status = command.stdin(Stdio::null()).status().with_context(|| missing(command))?;
    if !status.success() {
        bail!("{what}: {} ended with {status}", program(command));
    }
    Ok(())
}

/// What a program prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().with_context(|| missing(command))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", program(command), output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes a folder, and holds it as long as what is answered lives. Of two at once the second waits, and finds the work done.
pub(crate) fn hold(folder: &Path) -> Result<File> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let lock = File::create(folder.join("lock")).with_context(|| format!("creating a lock in {}", folder.display()))?;
    lock.lock().with_context(|| format!("waiting for the lock in {}", folder.display()))?;
    Ok(lock)
}

/// Whether a program is on the PATH.
#[expect(clippy::disallowed_methods, reason = "PATH is where programs are looked for")]
pub(crate) fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|folder| folder.join(program).is_file()))
}

#[expect(clippy::disallowed_methods, reason = "only shown")]
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let began = std::time::Instant::now();
    let result = work()?;
    Ok((result, began.elapsed()))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn missing(command: &Command) -> String {
    format!("{} can't be started: is it installed?", program(command))
}
