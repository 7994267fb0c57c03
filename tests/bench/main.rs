//! The report of `cargo xtask bench`: what the host costs, each figure beside a peer that was measured in the same run.
//!
//! - `delta`: changes from a connector into the journal
//! - `group`: durable commits, alone and by many
//! - `idle`: connections that have nothing to do, or little
//! - `pass`: reading everything, and comparing
//! - `native`: the peers of the sandboxed connector
//! - `ldap`: entries from a directory
//! - `sql`: rows from a database
//! - `streams`: what the HTTP API costs
//! - `swaps`: connectors that are replaced while connections run
//! - `measure`, `plot`: clocks, medians, curves

#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::cast_precision_loss, reason = "a program that prints figures")]
#![allow(clippy::print_stdout, reason = "a report")]

mod delta;
mod group;
mod idle;
mod ldap;
mod measure;
mod native;
mod open;
mod pass;
mod plot;
mod sql;
mod streams;
mod swaps;

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value as Json, json};

/// As in the program itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ndjson", last] => native::print_ndjson(last.parse()?),
        ["run", "no-change", folder] => {
            println!("{}", tokio::runtime::Runtime::new()?.block_on(idle::no_change(10, folder.as_ref()))?);
            Ok(())
        }
        ["run", way, last] => runtime_run(way, last.parse()?),
        ["ask", address, clients, request] => streams::ask(address, clients.parse()?, request),
        ["idle", connections] => idle::child(connections.parse()?),
        ["fill", folder, last] => open::child(folder.as_ref(), last.parse()?),
        ["all", folder] => report(
            folder.into(),
            &[
                "delta",
                "group",
                "no-change",
                "idle",
                "load",
                "open",
                "pass",
                "sql",
                "ldap",
                "first-run",
                "first-run-python",
                "streams",
                "reads",
                "swaps",
                "memory",
                "pass-memory",
            ],
        ),
        ["only", folder, parts @ ..] => report(folder.into(), parts),
        _ => anyhow::bail!(
            "bench all FOLDER | only FOLDER delta|group|no-change|idle|load|open|pass|pass-memory|sql|ldap|first-run|first-run-python|streams|reads|swaps|memory…"
        ),
    }
}

fn report(out: PathBuf, parts: &[&str]) -> Result<()> {
    std::fs::create_dir_all(&out)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut report = json!({ "machine": machine() });
    for part in parts {
        println!("{part}…");
        report[*part] = match *part {
            "delta" => runtime.block_on(delta::measure(5, 200_000, &out))?,
            "memory" => runtime.block_on(delta::long(10_000_000, 1, &out))?,
            "pass" => runtime.block_on(pass::measure(3, 1_000_000, &out))?,
            "pass-memory" => runtime.block_on(pass::measure(1, 10_000_000, &out))?,
            "group" => runtime.block_on(group::measure(5, &out))?,
            "no-change" => runtime.block_on(idle::no_change(5, &out))?,
            "load" => runtime.block_on(idle::load(5, &out))?,
            "sql" => runtime.block_on(sql::measure(3, 1_000_000))?,
            "ldap" => runtime.block_on(ldap::measure(3, 100_000))?,
            "streams" => runtime.block_on(streams::streams(600, &out))?,
            "reads" => runtime.block_on(streams::reads(&out))?,
            "swaps" => runtime.block_on(swaps::measure(1000, &out))?,
            "first-run-python" => runtime.block_on(swaps::first_run_of_python(5, &out))?,
            "first-run" => runtime.block_on(swaps::first_run(10, &out))?,
            "open" => open::measure(5, &out)?,
            "idle" => idle::measure(&out)?,
            other => anyhow::bail!("there is no part {other}"),
        };
    }
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(out.join("report.json"), &text)?;
    println!("{text}");
    Ok(())
}

fn machine() -> Json {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let found = text.lines().find(|line| line.starts_with(name));
        found.and_then(|line| line.split_once(':')).map(|(_, rest)| rest.trim().to_owned())
    };
    json!({
        "processor": line(&read("/proc/cpuinfo"), "model name"),
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "memory": line(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "tidewaiter": env!("CARGO_PKG_VERSION"),
        "lock": locked(&["wasmtime", "redb", "tokio", "mimalloc", "postcard", "lz4_flex"]),
    })
}

/// The versions in the lock file.
fn locked(names: &[&str]) -> Json {
    let text = include_str!("../../Cargo.lock");
    let version = |name: &&str| {
        let (_, rest) = text.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(((*name).to_owned(), Json::from(rest.split('"').next()?)))
    };
    Json::Object(names.iter().filter_map(version).collect())
}

/// One way alone, for a profiler.
fn runtime_run(way: &str, last: i64) -> Result<()> {
    let source: std::sync::Arc<dyn tidewaiter::driver::Source> = match way {
        "native" => std::sync::Arc::new(native::NativeSource::new(native::Way::Native)),
        "ndjson" => std::sync::Arc::new(native::NativeSource::new(native::Way::Ndjson)),
        _ => tokio::runtime::Runtime::new()?.block_on(delta::component())?,
    };
    let cost =
        tokio::runtime::Runtime::new()?.block_on(delta::run(&source, last, 256, 1, std::path::Path::new("target")))?;
    println!("{cost:?}");
    Ok(())
}
