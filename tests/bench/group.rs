//! Durable commits: one against what the disk takes for the same bytes, and many writers against one.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value as Json, json};
use tidewaiter::db::{Commit, Db, Letters, pack};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::state::{From, SyncState, TypeState};
use tidewaiter_core::time::UnixMillis;
use tidewaiter_core::token::SyncToken;
use tokio::task::JoinSet;

use crate::measure::{begin, median, ratios, spread};
use crate::native::delta;
use crate::plot;

const WRITERS: [u64; 3] = [1, 10, 1000];
/// For so many commits each writer count is measured, at least.
const COMMITS: u64 = 200;

pub(crate) fn commit(writer: u64, revision: u64) -> Commit {
    let sync = SyncState::Live(SyncToken::Integer(revision.cast_signed()));
    let key = TypeKey { connection: format!("c{writer}").parse().expect("a name"), ..crate::delta::key() };
    Commit {
        key,
        expected_revision: revision - 1,
        state: TypeState { sync, revision, ..TypeState::first(From::Latest, UnixMillis(0)) },
        staged: Vec::new(),
        batches: vec![pack(&[delta(synthetic::delta(revision.cast_signed()))]).expect("a small one")],
        letters: Letters::default(),
        marker: None,
        run: Some(1),
        report: None,
        at: UnixMillis(0),
    }
}

/// Commits per second of so many writers.
async fn commits(writers: u64, dir: &Path) -> Result<f64> {
    let data = tempfile::tempdir_in(dir)?;
    let db = Db::open(data.path(), "bench", Duration::ZERO)?;
    let each = COMMITS.div_ceil(writers).max(10);
    let mut tasks = JoinSet::new();
    let begun = begin();
    for writer in 0..writers {
        let db = db.clone();
        tasks.spawn(async move {
            for revision in 1..=each {
                db.commit(commit(writer, revision)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok((writers * each) as f64 / begun.end().wall.as_secs_f64())
}

/// Appends per second of as many bytes as a change has, each flushed.
fn appends(dir: &Path) -> Result<f64> {
    let file = tempfile::NamedTempFile::new_in(dir)?;
    let mut file = OpenOptions::new().append(true).open(file.path())?;
    let bytes = postcard::to_stdvec(&delta(synthetic::delta(1)))?;
    let begun = begin();
    for _ in 0..COMMITS {
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    Ok(COMMITS as f64 / begun.end().wall.as_secs_f64())
}

pub(crate) async fn measure(rounds: usize, out: &Path) -> Result<Json> {
    let mut rates: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let mut raw = Vec::new();
    for round in 0..=rounds {
        let appended = appends(out)?;
        if round > 0 {
            raw.push(appended);
        }
        for writers in WRITERS {
            let rate = commits(writers, out).await?;
            if round > 0 {
                rates.entry(writers).or_default().push(rate);
            }
        }
    }
    let points = WRITERS.iter().map(|writers| (*writers as f64, median(&rates[writers]) / 1000.0)).collect();
    let lines = [("group commit".to_owned(), points)];
    plot::lines(&out.join("group-commit.svg"), "Durable commits", "writers", "thousand commits a second", &lines)?;
    let rows = WRITERS.iter().map(|writers| (format!("writers-{writers}"), spread(&rates[writers])));
    let mut report: Json = rows.collect::<serde_json::Map<_, _>>().into();
    report["raw-append-fdatasync"] = spread(&raw);
    // Time per commit to time per append.
    report["one-commit-to-raw"] = spread(&ratios(&raw, &rates[&1]));
    report["thousand-writers-to-one"] = spread(&ratios(&rates[&1000], &rates[&1]));
    Ok(json!(report))
}
