//! Set-up, builds and checks of this project, as a program: `cargo xtask COMMAND`. Does nothing outside `target/`.

#![forbid(unsafe_code)]

mod connectors;
mod debian;
mod demo;
mod package;
mod scripts;
mod servers;
mod shell;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use shell::{run, run_logged, say};

/// The tool that checks licences, bans and sources; the newest that this project's Rust builds.
const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
/// The tool that looks whether a test notices when the code is broken.
const CARGO_MUTANTS: Tool = Tool { name: "cargo-mutants", version: "27.1.0" };
/// The tool that drives a fuzzer.
const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };

const HELP: &str = "\
cargo xtask demo [--keep]    tell the founding story with the real program; --keep: leave the server running
cargo xtask setup            make wasm32-wasip2 components buildable on this machine, and have servers to test with
cargo xtask build [NAME...]  build connectors into target/connectors
cargo xtask lint             formatting, clippy, licences, bans and sources
cargo xtask bench [PART...]  measure, each figure beside a peer, into target/bench: a report in JSON, and curves
cargo xtask soak             the simulations, with 100,000 seeds each, and 1,000 kills of each kind
cargo xtask fuzz [SECONDS]   a fuzzer on each body of tests/harness/bodies.rs, for that long (600)
cargo xtask mutants          break the decisions about what may leave, one by one, and see that a test notices
cargo xtask package          make a package for Debian, and a list of what is in it, into target/packages; no part of `test`, because it
                             builds as what is shipped is built, for many minutes
cargo xtask test [--quick]   build what is needed and pass every test; --quick: fewer seeds";

fn main() -> ExitCode {
    match perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn perform() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the project's folder")?.to_owned();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["setup"] => toolchain::find(&root).and_then(|_| servers::find(&root)),
        ["build", names @ ..] => connectors::build(&root, names),
        ["demo"] => demo::tell(&root, false),
        ["demo", "--keep"] => demo::tell(&root, true),
        ["lint"] => lint(&root),
        ["test"] => test(&root, false),
        ["test", "--quick"] => test(&root, true),
        ["soak"] => soak(&root),
        ["fuzz"] => fuzz(&root, "600"),
        ["fuzz", seconds] => fuzz(&root, seconds),
        ["mutants"] => mutants(&root),
        ["bench", parts @ ..] => bench(&root, parts),
        ["package"] => package::make(&root),
        [] | ["help" | "--help" | "-h"] => {
            help();
            Ok(())
        }
        other => bail!("unknown command {:?}\n{HELP}", other.join(" ")),
    }
}

#[expect(clippy::print_stdout, reason = "help is what was asked for")]
fn help() {
    println!("{HELP}");
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root);
    command
}

/// The plugins' workspace has a target directory of its own, so that neither build undoes the other's work.
fn plugins(root: &Path, arguments: &[&str]) -> Command {
    let mut command = cargo(&root.join("plugins"), arguments);
    command.env("CARGO_TARGET_DIR", root.join("target/plugins-native"));
    command
}

fn lint(root: &Path) -> Result<()> {
    run("formatting", &mut cargo(root, &["fmt", "--all", "--check"]))?;
    run("formatting of the plugins", &mut plugins(root, &["fmt", "--all", "--check"]))?;
    let clippy =
        ["clippy", "--quiet", "--locked", "--profile", "house", "--workspace", "--all-targets", "--", "-D", "warnings"];
    run("clippy", &mut cargo(root, &clippy))?;
    let clippy = ["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    run("clippy of the plugins", &mut plugins(root, &clippy))?;
    // Built by hand only, so that nobody else would see that its lock is out of date.
    let lock = ["update", "--quiet", "--workspace", "--locked", "--manifest-path", "tests/fuzz/Cargo.toml"];
    run("the lock of the fuzz targets", &mut cargo(root, &lock))?;
    let deny = CARGO_DENY.find(root)?;
    for manifest in ["Cargo.toml", "plugins/Cargo.toml"] {
        let mut check = Command::new(&deny);
        check.args(["--log-level", "error", "--manifest-path", manifest, "--locked", "--config"]);
        check.arg(root.join("deny.toml")).args(["check", "licenses", "bans", "sources"]).current_dir(root);
        run(&format!("licences, bans and sources of {manifest}"), &mut check)?;
    }
    advisories(root, &deny)
}

/// Known vulnerabilities, where their database can be had.
fn advisories(root: &Path, deny: &Path) -> Result<()> {
    let mut fetch = Command::new(deny);
    fetch.args(["--log-level", "error", "fetch", "db"]).current_dir(root);
    if run_logged(root, "advisories", "fetching the database of advisories", &mut fetch).is_err() {
        say("the database of advisories can't be had here: not checked");
        return Ok(());
    }
    for manifest in ["Cargo.toml", "plugins/Cargo.toml"] {
        let mut check = Command::new(deny);
        check.args(["--log-level", "error", "--manifest-path", manifest, "--locked", "--config"]);
        check.arg(root.join("deny.toml")).args(["check", "advisories"]).current_dir(root);
        run(&format!("advisories of {manifest}"), &mut check)?;
    }
    Ok(())
}

/// A program that is built once, into `target/tools`.
struct Tool {
    name: &'static str,
    version: &'static str,
}

impl Tool {
    fn find(&self, root: &Path) -> Result<PathBuf> {
        let Self { name, version } = *self;
        let tools = root.join("target/tools");
        let program = tools.join("bin").join(name);
        let installed = Command::new(&program).args([&name["cargo-".len()..], "--version"]).output();
        if installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(version)) {
            return Ok(program);
        }
        let mut install = cargo(root, &["install", "--quiet", "--locked", "--version", version, name, "--root"]);
        install.arg(&tools).env("CARGO_TARGET_DIR", tools.join("build"));
        install.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        run_logged(root, name, &format!("building {name} once"), &mut install)?;
        std::fs::remove_dir_all(tools.join("build")).with_context(|| format!("removing what building {name} left"))?;
        Ok(program)
    }
}

fn fuzz(root: &Path, seconds: &str) -> Result<()> {
    let program = CARGO_FUZZ.find(root)?;
    for body in ["destinations", "addresses", "batches"] {
        let mut fuzz = Command::new(&program);
        // Without a sanitizer, which would need another compiler: there is no unsafe code to watch.
        fuzz.args(["fuzz", "run", "--fuzz-dir", "tests/fuzz", "--sanitizer", "none", body, "--"]).current_dir(root);
        fuzz.arg(format!("-max_total_time={seconds}")).env("CARGO_TARGET_DIR", root.join("target/fuzz"));
        run(&format!("fuzzing {body} for {seconds} s"), &mut fuzz)?;
    }
    Ok(())
}

fn mutants(root: &Path) -> Result<()> {
    let mut mutants = Command::new(CARGO_MUTANTS.find(root)?);
    mutants.args([
        "mutants",
        "--package",
        "tidewaiter-core",
        "--output",
        "target",
        "--baseline",
        "skip",
        "--timeout",
        "60",
    ]);
    mutants.args(["--file", "host/core/src/grant.rs", "--file", "host/core/src/grant/*.rs", "--", "--lib"]);
    run("mutants", mutants.current_dir(root))
}

fn soak(root: &Path) -> Result<()> {
    let seeds = |command: &mut Command| run("100,000 seeds", command.env("TIDEWAITER_TEST_SEEDS", "100000"));
    let test = ["test", "--locked", "--profile", "house", "--package"];
    let core = ["tidewaiter-core", "--test", "simulation", "--test", "comparison", "--test", "dead_letters"];
    seeds(cargo(root, &test).args(core))?;
    seeds(cargo(root, &test).args(["tidewaiter", "--lib", "crash"]))?;
    seeds(cargo(root, &test).args(["tidewaiter", "--lib", "deliver"]))?;
    let kills = |command: &mut Command| run("1,000 kills", command.env("TIDEWAITER_TEST_KILLS", "1000"));
    kills(cargo(root, &test).args(["tidewaiter", "--lib", "kill"]))?;
    kills(cargo(root, &test).args(["tidewaiter-tests", "kill"]))
}

fn bench(root: &Path, parts: &[&str]) -> Result<()> {
    servers::find(root)?;
    connectors::build(root, &["csv", "ldap", "sql", "json-py"])?;
    connectors::build_guests(root)?;
    // What is measured is what is shipped: without assertions, and optimised across crates.
    let build = ["build", "--quiet", "--locked", "--profile", "dist", "--bin"];
    run("building tidewaiter as it is shipped", cargo(root, &build).args(["tidewaiter", "--package", "tidewaiter"]))?;
    run("building the benchmark", cargo(root, &build).args(["bench", "--package", "tidewaiter-tests"]))?;
    let mut bench = Command::new(root.join("target/dist/bench"));
    bench.arg(if parts.is_empty() { "all" } else { "only" }).arg("target/bench").args(parts).current_dir(root);
    run("the benchmark", &mut bench)
}

fn test(root: &Path, quick: bool) -> Result<()> {
    servers::find(root)?;
    connectors::build(root, &[])?;
    connectors::build_guests(root)?;
    // Cargo would not build it for the tests of another package. Of the whole workspace, so that the tests find their libraries built
    // with the same features.
    let build = ["build", "--quiet", "--locked", "--profile", "house", "--workspace", "--bins", "--examples"];
    run("building tidewaiter", &mut cargo(root, &build))?;
    let mut tests = cargo(root, &["test", "--locked", "--profile", "house", "--workspace"]);
    let mut guests = plugins(root, &["test", "--locked", "--workspace"]);
    for command in [&mut tests, &mut guests] {
        if quick {
            command.env("TIDEWAITER_TEST_QUICK", "1");
        }
    }
    run("tests of core, host and tests/", &mut tests)?;
    run("tests of the plugins", &mut guests)?;
    say("every test passed");
    Ok(())
}
