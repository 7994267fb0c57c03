//! Passes over everything: a first fill, and a later pass with one object in a hundred changed, from a sandboxed connector into the
//! journal and the shadow.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value as Json, json};
use tidewaiter::db::Db;
use tidewaiter::driver::Source;
use tidewaiter::host::{Host, Runs, Scope};
use tidewaiter_core::run::{RunReport, Trigger};
use tidewaiter_core::state::{Actor, From};
use tidewaiter_core::timing::Timing;

use crate::delta::{component, config, key, measured};
use crate::idle::host;
use crate::measure::{Cost, memory, reset_peak, round, spread};

/// One pass; of the objects every hundredth has this version.
async fn pass(source: &Arc<dyn Source>, db: &Db, objects: i64, version: i64, told: u64) -> Result<Cost> {
    let settings = json!({ "last": objects, "batch": 256, "compare": 1, "every": 100, "version": version });
    let (deltas, cost) = measured(source, settings, 1 + version.unsigned_abs(), db).await?;
    ensure!(deltas == told, "{told} entries were to come, and {deltas} did");
    Ok(cost)
}

/// A reconciliation of all objects while live sync is due five times a second: how late that begins at most, and how long the longest page takes.
async fn beside(objects: i64, out: &Path) -> Result<Json> {
    let data = tempfile::tempdir_in(out)?;
    let timing = Timing::every(Duration::from_millis(200));
    let mut connection = config(json!({ "last": objects, "batch": 256 }), Some(timing));
    connection.types.values_mut().for_each(|written| written.from = From::Latest);
    let key = key();
    let host = Host::start(
        host([(key.connection.clone(), Arc::new(connection))].into(), data.path()),
        "bench",
        Runs::Scheduled,
    );
    let host = host.await?;
    host.sync(key.clone(), Trigger::Api).await?;
    host.begin().await;
    let read = host.reconcile(&key, Scope::default(), Actor::Host).await?;
    let (late, runs) = (host.lateness().permille(1000), host.lateness().runs());
    let pages = host.db().runs(Some(&key), 1000)?;
    let took = |run: &RunReport| run.ended.0 - run.started.0;
    let longest = pages.iter().filter(|run| run.trigger == Trigger::Reconcile).map(took).max();
    host.shutdown().await;
    ensure!(runs > 0, "live sync never ran");
    Ok(json!({ "counts": read.counts, "live-syncs": runs, "late-ms-at-most": late, "longest-page-ms": longest }))
}

pub(crate) async fn measure(rounds: usize, objects: i64, out: &Path) -> Result<Json> {
    let source = component().await?;
    let per_second = |cost: Cost| objects as f64 / cost.wall.as_secs_f64();
    let (mut fills, mut changed, mut same) = (Vec::new(), Vec::new(), Vec::new());
    let all = objects.unsigned_abs();
    reset_peak();
    for _ in 0..rounds {
        let data = tempfile::tempdir_in(out)?;
        let db = Db::open(data.path(), "bench", Duration::ZERO)?;
        fills.push(per_second(pass(&source, &db, objects, 0, all).await?));
        changed.push(per_second(pass(&source, &db, objects, 1, all / 100).await?));
        same.push(per_second(pass(&source, &db, objects, 1, 0).await?));
    }
    let peak = memory("VmHWM");
    Ok(json!({
        "beside": beside(objects, out).await?,
        "objects": objects,
        "first-fill-per-second": spread(&fills),
        "one-percent-changed-per-second": spread(&changed),
        "nothing-changed-per-second": spread(&same),
        "peak-mib": round(peak as f64 / 1_048_576.0),
    }))
}
