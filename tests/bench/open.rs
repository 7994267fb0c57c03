//! Opening a db whose process was killed while it wrote, by its size.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value as Json, json};
use tidewaiter::db::Db;
use tidewaiter::driver::Source;

use crate::measure::{begin, round, spread};
use crate::native::{NativeSource, Way};
use crate::{delta, plot};

/// Changes in the journals that are opened.
const CHANGES: [i64; 3] = [1_000_000, 3_000_000, 10_000_000];

/// Fills a journal, and is killed before it could close anything.
pub(crate) fn child(folder: &Path, last: i64) -> Result<()> {
    let source: Arc<dyn Source> = Arc::new(NativeSource::new(Way::Native));
    tokio::runtime::Runtime::new()?.block_on(async {
        let db = Db::open(folder, "bench", Duration::ZERO)?;
        delta::fill(&source, last, 256, 1, &db).await?;
        kill_process(getpid(), Signal::KILL)?;
        std::future::pending::<Result<()>>().await
    })
}

pub(crate) fn measure(rounds: usize, out: &Path) -> Result<Json> {
    let (mut rows, mut points) = (serde_json::Map::new(), Vec::new());
    for last in CHANGES {
        let folder = tempfile::tempdir_in(out)?;
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["fill".as_ref(), folder.path().as_os_str()]).arg(last.to_string()).stdout(Stdio::null());
        ensure!(child.status()?.code().is_none(), "the child was killed");
        let file = folder.path().join("tidewaiter.redb");
        let gib = std::fs::metadata(&file).context("the db")?.len() as f64 / f64::from(1 << 30);
        let mut times = Vec::new();
        for _ in 0..rounds {
            // Opening mends it: each time a copy, as it was left.
            let copy = tempfile::tempdir_in(out)?;
            std::fs::copy(&file, copy.path().join("tidewaiter.redb"))?;
            let begun = begin();
            let db = Db::open(copy.path(), "bench", Duration::ZERO)?;
            times.push(begun.end().wall.as_secs_f64());
            ensure!(db.last_sequence() == last.unsigned_abs(), "{} of {last} changes are there", db.last_sequence());
        }
        let per_gib: Vec<f64> = times.iter().map(|seconds| seconds / gib).collect();
        points.push((gib, crate::measure::median(&times)));
        let row = json!({ "gib": round(gib), "seconds": spread(&times), "seconds-per-gib": spread(&per_gib) });
        rows.insert(format!("changes-{last}"), row);
    }
    plot::lines(&out.join("open.svg"), "Open after SIGKILL", "GiB", "s", &[("db".to_owned(), points)])?;
    Ok(Json::Object(rows))
}
