//! Connections that have nothing to do, or little: a run that finds no change, what a connection costs while it waits, and how late
//! runs begin when many are due.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};
use tidewaiter::clock::Clock;
use tidewaiter::config::{Config, ConnectionConfig};
use tidewaiter::db::{Db, Quota};
use tidewaiter::driver::{Order, perform};

use tidewaiter::host::{Host, Runs};
use tidewaiter::trace::RunTrace;
use tidewaiter::trust::{ConnectorTrust, Mode};
use tidewaiter::wasm::{Connector, Engine, EngineOptions};
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::run::{Outcome, Trigger};
use tidewaiter_core::state::{From, SyncState, TypeState};
use tidewaiter_core::timing::{Cron, Timing, Weekdays, When};
use tidewaiter_core::token::SyncToken;
use tidewaiter_tests::{connection, connector};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::delta::{component, config, key};
use crate::measure::{begin, cpu, memory, round, spread};
use crate::plot;

const RUNS: u32 = 2000;

/// Processor time of a run that finds nothing: a fresh instance, two calls, nothing written.
pub(crate) async fn no_change(rounds: usize, out: &Path) -> Result<Json> {
    let component = component().await?;
    let data = tempfile::tempdir_in(out)?;
    let db = Db::open(data.path(), "bench", Duration::ZERO)?;
    let settings = json!({ "last": 7 });
    let connection = Arc::new(connection(key().connection, config(settings, None), component)?);
    let clock = Clock::start();
    let mut costs = Vec::new();
    for round in 0..=rounds {
        let (db, connection) = (db.clone(), Arc::clone(&connection));
        let begun = begin();
        // In a task, as in the host: where the runs of many connections follow each other.
        let mut task = JoinSet::new();
        task.spawn(async move {
            for run in 0..RUNS {
                let sync = SyncState::Live(SyncToken::Integer(7));
                let state = TypeState { sync, revision: 1, ..TypeState::first(From::Latest, clock.now()) };
                let (db, connection) = (db.clone(), Arc::clone(&connection));
                let (key, run, trigger) = (key(), u64::from(run), Trigger::Schedule);
                let order = Order {
                    db,
                    clock,
                    connection,
                    key,
                    run,
                    trigger,
                    state,
                    reading: None,
                    comparison: None,
                    trace: RunTrace::default(),
                };
                let report = perform(order, mpsc::channel(1).1).await.report;
                ensure!(report.outcome == Outcome::Ok && report.deltas == 0, "{report:?}");
            }
            Ok(())
        });
        task.join_next().await.context("a task")???;
        if round > 0 {
            costs.push(begun.end().cpu.as_secs_f64() * 1e6 / f64::from(RUNS));
        }
    }
    Ok(json!({ "cpu-us": spread(&costs) }))
}

/// Compiling, and loading what was compiled.
pub(crate) async fn load(rounds: usize, out: &Path) -> Result<Json> {
    let mut report = serde_json::Map::new();
    for name in ["synthetic", "csv", "json-js", "json-py"] {
        let Ok(bytes) = std::fs::read(connector(name)) else { continue };
        let (mut compiled, mut loaded) = (Vec::new(), Vec::new());
        for _ in 0..if bytes.len() > 1 << 22 { 1 } else { rounds } {
            let cache = tempfile::tempdir_in(out)?;
            let compiler = std::env::current_exe()?.with_file_name("tidewaiter");
            let options = EngineOptions {
                compiler: Some(compiler),
                cache: Some(cache.path().to_owned()),
                ..EngineOptions::default()
            };
            let engine = Engine::new(&options)?;
            for times in [&mut compiled, &mut loaded] {
                let begun = begin();
                Connector::load(&engine, &name.parse()?, &bytes).await?;
                times.push(begun.end().wall.as_secs_f64() * 1e3);
            }
        }
        let row = json!({ "bytes": bytes.len(), "compile-ms": spread(&compiled), "load-ms": spread(&loaded) });
        report.insert(name.to_owned(), row);
    }
    Ok(Json::Object(report))
}

/// Each count in a process of its own, so that one's memory is not the other's.
pub(crate) fn measure(out: &Path) -> Result<Json> {
    let (mut rows, mut memory, mut late) = (Vec::new(), Vec::new(), Vec::new());
    for connections in [1_u32, 1000, 10_000, 100_000] {
        let program = std::env::current_exe()?;
        let output = Command::new(program).args(["idle", &connections.to_string()]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let row: Json = serde_json::from_slice(&output.stdout)?;
        let number = |name: &str| row[name].as_f64().unwrap_or(0.0);
        memory.push((f64::from(connections), number("private-kib-per-connection")));
        if let Some(p99) = row["lateness-p99-ms"].as_f64() {
            late.push((f64::from(connections), p99));
        }
        rows.push(row);
    }
    let memory = [("private memory".to_owned(), memory)];
    plot::lines(&out.join("idle-memory.svg"), "An idle connection", "connections", "KiB each", &memory)?;
    let late = [("p99, one run a second each".to_owned(), late)];
    plot::lines(&out.join("lateness.svg"), "Lateness", "connections", "ms", &late)?;
    Ok(rows.into())
}

/// One count: memory and processor time while all wait, then lateness while all are due every second.
pub(crate) fn child(connections: u32) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let row = runtime.block_on(async {
        let mut row = idle(connections).await.context("idle")?;
        // More than this is not what a second of two processors can run.
        if connections <= 10_000 {
            let (p50, p99, runs) = lateness(connections).await.context("lateness")?;
            row["lateness-p50-ms"] = p50.into();
            row["lateness-p99-ms"] = p99.into();
            row["runs"] = runs.into();
        }
        anyhow::Ok(row)
    })?;
    println!("{row}");
    Ok(())
}

pub(crate) fn many(connections: u32, timing: &Timing, data: &Path) -> Config {
    let of = |n: u32| {
        let settings = json!({ "last": 7, "server": format!("directory-{n}.example.org") });
        (format!("c{n}").parse().expect("a name"), Arc::new(config(settings, Some(timing.clone()))))
    };
    host((0..connections).map(of).collect(), data)
}

/// A host with these connections.
pub(crate) fn host(connections: BTreeMap<ConnectionName, Arc<ConnectionConfig>>, data: &Path) -> Config {
    Config {
        connector_trust: ConnectorTrust { mode: Mode::Any, lock: data.join("none.lock") },
        connectors: connector("synthetic").parent().unwrap_or(Path::new("/")).to_owned(),
        quota: Quota::UNLIMITED,
        connections,
        ..Config::of_program(data.to_owned())
    }
}

async fn idle(connections: u32) -> Result<Json> {
    let data = tempfile::tempdir()?;
    // What a host has anyway.
    let hourly = Timing::every(Duration::from_secs(3600));
    let warm = Host::start(many(1, &hourly, &data.path().join("one")), "bench", Runs::Scheduled).await?;
    warm.shutdown().await;
    drop(warm);
    let before = memory("RssAnon");
    let host = Host::start(many(connections, &hourly, data.path()), "bench", Runs::Scheduled).await?;
    host.begin().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = memory("RssAnon").saturating_sub(before);
    host.shutdown().await;
    drop(host);
    // By interval each has a first run soon, which writes. On the 29th of February none is due now.
    let leap_day = Cron::parse("0 0 29 2 *", Weekdays::Cron, TimeZone::UTC)?;
    let timing = Timing { when: When::Cron(Box::new(leap_day)), ..hourly };
    let host = Host::start(many(connections, &timing, &data.path().join("waiting")), "bench", Runs::Scheduled).await?;
    host.begin().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu_before = cpu();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let spent = cpu().saturating_sub(cpu_before);
    host.shutdown().await;
    Ok(json!({
        "connections": connections,
        "private-kib-per-connection": round(held as f64 / 1024.0 / f64::from(connections)),
        "cpu-ms-per-second": round(spent.as_secs_f64() * 1000.0 / 3.0),
    }))
}

async fn lateness(connections: u32) -> Result<(u64, u64, u64)> {
    let data = tempfile::tempdir()?;
    let config = many(connections, &Timing::every(Duration::from_secs(1)), data.path());
    let host = Host::start(config, "bench", Runs::Scheduled).await?;
    host.begin().await;
    // The first runs establish tokens, and write.
    let mut established = tokio::time::interval(Duration::from_millis(100));
    while host.db().states()?.len() < connections as usize {
        established.tick().await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    host.lateness().reset();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let late = host.lateness();
    let figures = (late.permille(500), late.permille(990), late.runs());
    host.shutdown().await;
    Ok(figures)
}
