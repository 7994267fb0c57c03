//! The delta path: changes from a connector into the durable journal, by the three ways that they can come.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};
use tidewaiter::clock::Clock;
use tidewaiter::config::ConnectionConfig;
use tidewaiter::db::Db;
use tidewaiter::driver::{Order, Source, perform};

use tidewaiter::trace::RunTrace;
use tidewaiter::wasm::{Connector, Engine, EngineOptions};
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Outcome, Trigger};
use tidewaiter_core::state::{From, TypeState};
use tidewaiter_tests::{connection, connection_config, connector};
use tokio::sync::mpsc;

use crate::measure::{Cost, begin, median, memory, ratios, reset_peak, round, spread};
use crate::native::{NativeSource, Way, delta};
use crate::plot;

const BATCHES: [i64; 3] = [16, 256, 4096];

pub(crate) fn key() -> TypeKey {
    TypeKey { connection: "hr".parse().expect("a name"), object_type: "account".parse().expect("a name") }
}

pub(crate) fn limits() -> Limits {
    Limits {
        run_deltas_max: u64::MAX,
        run_bytes_max: u64::MAX,
        run_time_max: Duration::from_secs(3600),
        ..Limits::default()
    }
}

pub(crate) fn config(settings: Json, timing: Option<tidewaiter_core::timing::Timing>) -> ConnectionConfig {
    let mut config = connection_config("synthetic", settings, From::Beginning, limits());
    config.types.values_mut().for_each(|account| account.timing = timing.clone());
    config
}

/// The component, loaded.
pub(crate) async fn component() -> Result<Arc<dyn Source>> {
    let bytes = std::fs::read(connector("synthetic"))?;
    // As a host does: what the compiler takes isn't what is measured.
    let compiler = Some(std::env::current_exe()?.with_file_name("tidewaiter"));
    let engine = Engine::new(&EngineOptions { compiler, ..EngineOptions::default() })?;
    Ok(Arc::new(Connector::load(&engine, &"synthetic".parse().context("a name")?, &bytes).await?))
}

/// One run from the first change to the last, into a db of its own.
pub(crate) async fn run(source: &Arc<dyn Source>, last: i64, batch: i64, checkpoint: i64, dir: &Path) -> Result<Cost> {
    let data = tempfile::tempdir_in(dir)?;
    let db = Db::open(data.path(), "bench", Duration::ZERO)?;
    fill(source, last, batch, checkpoint, &db).await
}

/// The same, into this db.
pub(crate) async fn fill(source: &Arc<dyn Source>, last: i64, batch: i64, checkpoint: i64, db: &Db) -> Result<Cost> {
    let settings = json!({ "last": last, "batch": batch, "checkpoint": checkpoint });
    let (deltas, cost) = measured(source, settings, 1, db).await?;
    let counted = (deltas, db.last_sequence());
    let all = last.unsigned_abs();
    ensure!(counted == (all, all), "{all} changes, {} reported, {} journaled", counted.0, counted.1);
    Ok(cost)
}

/// What one run journals with these settings, and what it costs.
pub(crate) async fn measured(source: &Arc<dyn Source>, settings: Json, run: u64, db: &Db) -> Result<(u64, Cost)> {
    let connection = connection(key().connection, config(settings, None), Arc::clone(source))?;
    let clock = Clock::start();
    let order = Order {
        db: db.clone(),
        clock,
        connection: Arc::new(connection),
        key: key(),
        run,
        trigger: Trigger::Command,
        state: db.state(&key())?.unwrap_or_else(|| TypeState::first(From::Beginning, clock.now())),
        reading: None,
        comparison: None,
        trace: RunTrace::default(),
    };
    let begun = begin();
    let report = perform(order, mpsc::channel(1).1).await.report;
    let cost = begun.end();
    ensure!(report.outcome == Outcome::Ok, "{:?}", report.outcome);
    Ok((report.deltas, cost))
}

/// What the disk itself takes: the encoded changes, appended and flushed batch by batch.
fn raw(last: i64, batch: i64, dir: &Path) -> Result<Cost> {
    let file = tempfile::NamedTempFile::new_in(dir)?;
    let mut file = OpenOptions::new().append(true).open(file.path())?;
    let numbers: Vec<i64> = (1..=last).collect();
    let encoded: Vec<Vec<u8>> = numbers
        .chunks(usize::try_from(batch)?)
        .map(|chunk| {
            chunk.iter().try_fold(Vec::new(), |bytes, n| postcard::to_extend(&delta(synthetic::delta(*n)), bytes))
        })
        .collect::<Result<_, _>>()?;
    let begun = begin();
    for bytes in encoded {
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    Ok(begun.end())
}

pub(crate) async fn measure(rounds: usize, last: i64, out: &Path) -> Result<Json> {
    let ways: [(&str, Arc<dyn Source>); 3] = [
        ("component", component().await?),
        ("native", Arc::new(NativeSource::new(Way::Native))),
        ("ndjson", Arc::new(NativeSource::new(Way::Ndjson))),
    ];
    let mut walls: BTreeMap<(i64, &str), Vec<f64>> = BTreeMap::new();
    let mut cpus: BTreeMap<(i64, &str), Vec<f64>> = BTreeMap::new();
    let per = |duration: Duration| duration.as_secs_f64() * 1e9 / last as f64;
    for round in 0..=rounds {
        for batch in BATCHES {
            for (name, source) in &ways {
                let cost = run(source, last, batch, 1, out).await.with_context(|| format!("{name}, batch {batch}"))?;
                if round > 0 {
                    walls.entry((batch, name)).or_default().push(per(cost.wall));
                    cpus.entry((batch, name)).or_default().push(per(cost.cpu));
                }
            }
        }
    }
    // As many flushes as changes would be absurd: a part of them is enough for the limit of the disk.
    let part = last.min(20_000);
    let raw = (0..rounds).map(|_| raw(part, 256, out)).collect::<Result<Vec<_>>>()?;
    let raw: Vec<f64> = raw.iter().map(|cost| cost.wall.as_secs_f64() * 1e9 / part as f64).collect();
    let mut report = serde_json::Map::new();
    for batch in BATCHES {
        let mut row = serde_json::Map::new();
        for (name, _) in &ways {
            let (wall, cpu) = (&walls[&(batch, *name)], &cpus[&(batch, *name)]);
            row.insert(
                (*name).to_owned(),
                json!({
                    "ns-per-delta": spread(wall),
                    "deltas-per-second": round(1e9 / median(wall)),
                    "cpu-ns-per-delta": spread(cpu),
                }),
            );
        }
        let ratio = |of: &str, to: &str, table: &BTreeMap<(i64, &str), Vec<f64>>| {
            spread(&ratios(&table[&(batch, of)], &table[&(batch, to)]))
        };
        row.insert("component-to-native".into(), ratio("component", "native", &walls));
        row.insert("ndjson-cpu-to-component".into(), ratio("ndjson", "component", &cpus));
        report.insert(format!("batch-{batch}"), Json::Object(row));
    }
    report.insert("raw-append-fdatasync-256".into(), json!({ "ns-per-delta": spread(&raw) }));
    let line = |name: &str| {
        let points = BATCHES.iter().map(|batch| (*batch as f64, median(&walls[&(*batch, name)]) / 1000.0)).collect();
        (name.to_owned(), points)
    };
    let lines: Vec<_> = ways.iter().map(|(name, _)| line(name)).collect();
    plot::lines(&out.join("delta-path.svg"), "Delta path, durable", "deltas in a batch", "µs per delta", &lines)?;
    Ok(Json::Object(report))
}

/// Memory and throughput of one long run.
pub(crate) async fn long(last: i64, checkpoint: i64, out: &Path) -> Result<Json> {
    let component = component().await?;
    let mut peaks = Vec::new();
    for part in [last / 10, last / 3, last] {
        reset_peak();
        let cost = run(&component, part, 256, checkpoint, out).await?;
        peaks.push((part, memory("VmHWM"), part as f64 / cost.wall.as_secs_f64()));
    }
    let points: Vec<(f64, f64)> = peaks.iter().map(|peak| (peak.0 as f64, peak.1 as f64 / 1048576.0)).collect();
    plot::lines(&out.join("memory.svg"), "Peak memory of one run", "deltas", "MiB", &[("component".into(), points)])?;
    let row = |peak: &(i64, u64, f64)| json!({ "deltas": peak.0, "peak-mib": round(peak.1 as f64 / 1048576.0), "deltas-per-second": round(peak.2) });
    Ok(peaks.iter().map(row).collect())
}
