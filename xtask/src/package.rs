//! Makes what is shipped, into `target/packages`: a package for Debian with the program as it is shipped, its unit, manual pages and completions, and a list
//! of all that is in it (CycloneDX). Looks into what came out, and runs the program that is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;

use crate::shell::{output, run, run_logged, say};
use crate::{Tool, cargo};

/// The tool that makes packages for Debian.
const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };
/// The tool that lists what a program is made of.
const CARGO_CYCLONEDX: Tool = Tool { name: "cargo-cyclonedx", version: "0.5.9" };

/// Where the package puts completions, by shell.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/tidewaiter"),
    ("zsh", "usr/share/zsh/vendor-completions/_tidewaiter"),
    ("fish", "usr/share/fish/vendor_completions.d/tidewaiter.fish"),
];
const PROGRAM: &str = "usr/bin/tidewaiter";
const CONFIGURATION: &str = "etc/tidewaiter/tidewaiter.toml";
const BILL: &str = "usr/share/doc/tidewaiter/tidewaiter.cdx.json";
/// What else it has to hold.
const HELD: [&str; 4] = [
    "usr/lib/systemd/system/tidewaiter.service",
    "usr/lib/sysusers.d/tidewaiter.conf",
    "usr/share/doc/tidewaiter/copyright",
    "usr/share/man/man1/tidewaiter.1.gz",
];
/// Folders that are no sources.
const MADE: [&str; 4] = ["target", "node_modules", "__pycache__", ".git"];

/// What the sources are, where they come from git.
struct Origin {
    commit: String,
    seconds: String,
}

pub(crate) fn make(root: &Path) -> Result<()> {
    let (deb, cyclonedx) = (CARGO_DEB.find(root)?, CARGO_CYCLONEDX.find(root)?);
    let folder = root.join("target/packages");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    fs::create_dir_all(folder.join("completions"))?;
    let origin = origin(root);
    let program = build(root, origin.as_ref())?;
    run("writing manual pages", Command::new(&program).arg("man").arg(folder.join("man")))?;
    for (shell, _) in COMPLETIONS {
        fs::write(
            folder.join("completions").join(shell),
            output(Command::new(&program).args(["completions", shell]))?,
        )?;
    }
    bill(root, &cyclonedx, &folder, origin.as_ref())?;
    let mut pack = dated(Command::new(deb), origin.as_ref());
    pack.args(["deb", "--no-build", "--locked", "--profile", "dist", "--package", "tidewaiter", "--output"])
        .arg(&folder);
    run_logged(root, "deb", "packing for Debian", pack.current_dir(root))?;
    let package = package(&folder)?;
    looked_into(&package, &folder, origin.as_ref(), &fs::read_to_string(root.join("Cargo.lock"))?)?;
    say(&format!("made {}", package.display()));
    Ok(())
}

/// None: they don't come from git, or are not what is committed.
fn origin(root: &Path) -> Option<Origin> {
    let git = |words: &str| output(Command::new("git").args(words.split(' ')).current_dir(root)).ok();
    if !git("status --porcelain")?.is_empty() {
        say("what is built is not what is committed: the package names no commit");
        return None;
    }
    let (commit, seconds) = (git("rev-parse HEAD")?.trim().to_owned(), git("log -1 --format=%ct")?.trim().to_owned());
    Some(Origin { commit, seconds })
}

/// With the time of the sources in the place of now, so that what is made of the same is the same.
fn dated(mut command: Command, origin: Option<&Origin>) -> Command {
    if let Some(Origin { seconds, .. }) = origin {
        command.env("SOURCE_DATE_EPOCH", seconds);
    }
    command
}

fn build(root: &Path, origin: Option<&Origin>) -> Result<PathBuf> {
    let words = ["build", "--quiet", "--locked", "--profile", "dist", "--bin", "tidewaiter", "--package", "tidewaiter"];
    let mut build = cargo(root, &words);
    match origin {
        Some(Origin { commit, .. }) => build.env("TIDEWAITER_COMMIT", commit),
        None => build.env_remove("TIDEWAITER_COMMIT"),
    };
    run("building tidewaiter as it is shipped, which takes many minutes", &mut build)?;
    Ok(root.join("target/dist/tidewaiter"))
}

/// Lists what the program is made of. The tool writes beside each manifest, so it gets a copy of the sources.
fn bill(root: &Path, cyclonedx: &Path, folder: &Path, origin: Option<&Origin>) -> Result<()> {
    let sources = folder.join("sources");
    copy(root, &sources)?;
    let mut list = dated(Command::new(cyclonedx), origin);
    list.args(["cyclonedx", "--format", "json", "--spec-version", "1.5", "--no-build-deps", "--describe", "crate"]);
    let manifest = sources.join("Cargo.toml");
    list.arg("--manifest-path").arg(manifest).current_dir(&sources);
    run_logged(root, "cyclonedx", "listing what it is made of", &mut list)?;
    let list = fs::read_to_string(sources.join("host/tidewaiter.cdx.json")).context("reading the list")?;
    // Where it was made is of no concern.
    fs::write(folder.join("tidewaiter.cdx.json"), list.replace(&sources.display().to_string(), "/tidewaiter"))?;
    fs::remove_dir_all(&sources).with_context(|| format!("removing {}", sources.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (path, into) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type()? {
            kind if MADE.iter().any(|made| entry.file_name() == *made) || kind.is_symlink() => {}
            kind if kind.is_dir() => copy(&path, &into)?,
            _ => drop(fs::copy(&path, &into).with_context(|| format!("copying {}", path.display()))?),
        }
    }
    Ok(())
}

fn package(folder: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(folder)?.flatten().map(|file| file.path());
    let package = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    package.with_context(|| format!("no package in {}", folder.display()))
}

/// Whether a package has what it is to have, and works.
fn looked_into(package: &Path, folder: &Path, origin: Option<&Origin>, lock: &str) -> Result<()> {
    say("looking into the package");
    let unpacked = folder.join("unpacked");
    output(Command::new("dpkg-deb").arg("-R").arg(package).arg(&unpacked))?;
    let completions = COMPLETIONS.iter().map(|(_, path)| *path);
    for path in HELD.into_iter().chain(completions).chain([PROGRAM, CONFIGURATION, BILL]) {
        ensure!(unpacked.join(path).is_file(), "the package lacks /{path}");
    }
    owners(package)?;
    let pages = |folder: &Path| fs::read_dir(folder).map(Iterator::count);
    ensure!(pages(&unpacked.join("usr/share/man/man1"))? == pages(&folder.join("man"))?, "a manual page is missing");
    scripts(&unpacked.join("DEBIAN"))?;
    let version: Json =
        serde_json::from_str(&output(Command::new(unpacked.join(PROGRAM)).args(["version", "--json"]))?)?;
    ensure!(version["commit"].as_str() == origin.map(|origin| origin.commit.as_str()), "of another commit: {version}");
    for name in ["tidewaiter", "wasmtime", "redb"] {
        let said = version[name].as_str().unwrap_or_default();
        ensure!(lock.contains(&format!("name = \"{name}\"\nversion = \"{said}\"\n")), "{name} {said} is not locked");
    }
    listed(&serde_json::from_str(&fs::read_to_string(unpacked.join(BILL))?)?, &version)?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("removing {}", unpacked.display()))
}

/// All of it is root's, and nobody else writes it.
fn owners(package: &Path) -> Result<()> {
    let list = output(Command::new("dpkg-deb").arg("-c").arg(package))?;
    for line in list.lines() {
        let (mode, owner) = (line.get(..10).unwrap_or_default(), line.split_whitespace().nth(1).unwrap_or_default());
        let is_closed = mode.as_bytes().get(5) != Some(&b'w') && mode.as_bytes().get(8) != Some(&b'w');
        ensure!(matches!(owner, "root/root" | "0/0") && is_closed && !mode.contains('s'), "the package has {line}");
    }
    Ok(())
}

/// What is done beside unpacking.
fn scripts(control: &Path) -> Result<()> {
    let read =
        |name: &str| fs::read_to_string(control.join(name)).with_context(|| format!("the package has no {name}"));
    ensure!(read("conffiles")?.lines().eq([format!("/{CONFIGURATION}")]), "what operators change would be replaced");
    let described = read("control")?;
    ensure!(["libc6", "systemd"].iter().all(|name| described.contains(name)), "it says of itself: {described}");
    let made = read("postinst")?;
    let order = [made.find("systemd-sysusers"), made.find("install -d")];
    ensure!(order[0].is_some() && order[0] < order[1], "the user is made before its folders: {made}");
    for name in ["postinst", "prerm", "postrm"] {
        let script = read(name)?;
        ensure!(!script.contains("#DEBHELPER#") && !script.contains("rm -"), "{name} is {script}");
        run(&format!("reading {name}"), Command::new("sh").arg("-n").arg(control.join(name)))?;
    }
    Ok(())
}

/// The list has what the program says that it is made of, and what only tests need is not in it.
fn listed(list: &Json, version: &Json) -> Result<()> {
    let components = list["components"].as_array().context("the list has no components")?;
    let has =
        |name: &str, version: &Json| components.iter().any(|one| one["name"] == name && one["version"] == *version);
    ensure!(list["bomFormat"] == "CycloneDX" && list["metadata"]["component"]["name"] == "tidewaiter", "another list");
    if let Some(missing) = ["wasmtime", "redb"].iter().find(|name| !has(name, &version[**name])) {
        bail!("the list lacks {missing} {}", version[*missing]);
    }
    for name in ["tidewaiter-core", "rustls", "tokio", "landlock"] {
        ensure!(components.iter().any(|one| one["name"] == name), "the list lacks {name}");
    }
    ensure!(!components.iter().any(|one| one["name"] == "plotters"), "the list has what only benchmarks need");
    Ok(())
}
