//! Connectors that are replaced while connections run: what a swap takes, how late runs are meanwhile, and what is left of the files before.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tidewaiter::clock::Clock;
use tidewaiter::config::Config;
use tidewaiter::driver::Lateness;
use tidewaiter::host::{Host, Runs};
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::text::hex;
use tidewaiter_core::timing::Timing;
use tidewaiter_tests::{built, connector, patched};

use crate::delta::config;
use crate::idle::host;
use crate::measure::{memory, round, spread};

const CONNECTIONS: u32 = 200;
/// Each connection runs as often.
const EVERY: Duration = Duration::from_secs(1);
/// Files that take turns: what comes is always another one than the one before, and on trial.
const FILES: u8 = 5;

/// From a save to the first change that the new file tells, where no file is compiled yet, and its schedule has it run once an hour.
pub(crate) async fn first_run(rounds: u32, out: &Path) -> Result<Json> {
    let data = tempfile::tempdir_in(out)?;
    let (host, bytes) = begun(data.path(), 1, Duration::from_secs(3600)).await?;
    let (clock, mut took) = (Clock::start(), Vec::new());
    for round in 1..=rounds {
        let before = "describe:well-behaved";
        let word = format!("round-{round}");
        let file =
            patched(bytes.clone(), before, &format!("{:width$}", format!("describe:{word}"), width = before.len()));
        count(data.path(), round)?;
        let begun = clock.moment();
        put(data.path(), &file, 0)?;
        until("a change", || Ok(host.db().last_sequence() >= u64::from(round))).await?;
        took.push((clock.moment().0 - begun.0) as f64);
        let told = host.db().entries(u64::from(round) - 1, 1)?;
        ensure!(format!("{told:?}").contains(&word), "{told:?}");
    }
    host.shutdown().await;
    Ok(json!({ "bytes": bytes.len(), "ms": spread(&took) }))
}

/// The same of a connector in Python, which is eighteen megabytes large, while others run each second.
pub(crate) async fn first_run_of_python(rounds: u32, out: &Path) -> Result<Json> {
    const OTHERS: u32 = 20;
    ensure!(built("json-py"), "there is no connector in Python: `cargo xtask build json-py`");
    let data = tempfile::tempdir_in(out)?;
    let bytes = std::fs::read(connector("json-py"))?;
    let save = |round: u32| put_as(data.path(), "json-py", &bytes, u8::try_from(round)?);
    save(0)?;
    let rows = |last: u32| {
        let row = |rev: u32| json!({ "uid": rev.to_string(), "rev": rev, "name": "x" });
        let rows = Json::Array((1..=last).map(row).collect()).to_string();
        let people = data.path().join("people");
        std::fs::write(people.join("new"), rows)?;
        std::fs::rename(people.join("new"), people.join("people.json")).context("the rows")
    };
    count(data.path(), 0)?;
    put(data.path(), &std::fs::read(connector("hostile"))?, 0)?;
    rows(1)?;
    let mut config = many(data.path(), OTHERS, EVERY);
    let mut python =
        crate::delta::config(json!({ "folder": "people" }), Some(Timing::every(Duration::from_secs(3600))));
    python.connector = "json-py".parse().context("a name")?;
    python.access.granted.read = vec![data.path().join("people")];
    python.base = data.path().to_owned();
    config.connections.insert("python".parse().context("a name")?, Arc::new(python));
    config.compiler = Some(std::env::current_exe()?.with_file_name("tidewaiter"));
    let host = Host::start(config, "bench", Runs::Scheduled).await?;
    host.begin().await;
    until("first tokens", || Ok(host.db().states()?.len() == OTHERS as usize + 1)).await?;
    until("the first row", || Ok(host.db().last_sequence() == 1)).await?;
    tokio::time::sleep(3 * EVERY).await;
    host.lateness().reset();
    let (clock, mut took) = (Clock::start(), Vec::new());
    for round in 1..=rounds {
        rows(round + 1)?;
        let begun = clock.moment();
        let sha256 = save(round)?;
        until("a change", || Ok(host.db().last_sequence() == u64::from(round) + 1)).await?;
        took.push((clock.moment().0 - begun.0) as f64);
        let runs = host.db().placements()?.into_values().any(|placement| placement.sha256 == sha256);
        ensure!(runs, "another file told it");
    }
    let late = late(host.lateness());
    host.shutdown().await;
    Ok(json!({ "bytes": bytes.len(), "ms": spread(&took), "others": OTHERS, "lateness-of-others-ms": late }))
}

/// The source of all connections has so many changes.
fn count(data: &Path, changes: u32) -> Result<()> {
    let people = data.join("people");
    std::fs::create_dir_all(&people)?;
    std::fs::write(people.join("new"), changes.to_string())?;
    std::fs::rename(people.join("new"), people.join("count")).context("the count of changes")
}

/// A host whose connections have a first token, and the bytes of their connector.
async fn begun(data: &Path, connections: u32, every: Duration) -> Result<(Host, Vec<u8>)> {
    count(data, 0)?;
    let bytes = std::fs::read(connector("hostile"))?;
    put(data, &bytes, 0)?;
    let mut config = many(data, connections, every);
    config.compiler = Some(std::env::current_exe()?.with_file_name("tidewaiter"));
    let host = Host::start(config, "bench", Runs::Scheduled).await?;
    host.begin().await;
    until("first tokens", || Ok(host.db().states()?.len() == connections as usize)).await?;
    Ok((host, bytes))
}

pub(crate) async fn measure(swaps: u32, out: &Path) -> Result<Json> {
    let data = tempfile::tempdir_in(out)?;
    let (host, bytes) = begun(data.path(), CONNECTIONS, EVERY).await?;
    tokio::time::sleep(3 * EVERY).await;
    host.lateness().reset();
    let (clock, mut took, mut grown, mut mapped) = (Clock::start(), Vec::new(), Vec::new(), Vec::new());
    for swap in 1..=swaps {
        count(data.path(), swap)?;
        let sha256 = put(data.path(), &bytes, u8::try_from(swap % u32::from(FILES))?)?;
        let begun = clock.moment();
        let is_placed = || Ok(host.db().placements()?.values().all(|placement| placement.sha256 == sha256));
        let placed = until("a swap", is_placed).await;
        placed.with_context(|| {
            format!(
                "swap {swap}: {:?}",
                host.db().placements().map(|all| all
                    .into_iter()
                    .filter(|(_, one)| one.sha256 != sha256)
                    .take(2)
                    .collect::<Vec<_>>())
            )
        })?;
        took.push((clock.moment().0 - begun.0) as f64);
        if swap % 100 == 0 {
            // What is compared is what is left when runs that were under way are over.
            tokio::time::sleep(2 * EVERY).await;
            grown.push(memory("RssAnon"));
            mapped.push(code_mappings()?);
        }
    }
    let passed = clock.moment().0;
    let runs = host.lateness().runs();
    let late = late(host.lateness());
    // Each connection has the changes of its source, once each, in their order.
    let all = u64::from(CONNECTIONS) * u64::from(swaps);
    until("the last changes", || Ok(host.db().last_sequence() >= all)).await?;
    tokio::time::sleep(2 * EVERY).await;
    host.shutdown().await;
    let mut counts: BTreeMap<ConnectionName, u64> = BTreeMap::new();
    let mut after = 0;
    loop {
        let entries = host.db().entries(after, 10_000)?;
        let Some(last) = entries.last() else { break };
        after = last.id.sequence;
        for entry in entries {
            let count = counts.entry(entry.key.connection.clone()).or_default();
            *count += 1;
            let uid = entry.body.delta().map(|delta| delta.change.uid().to_owned());
            ensure!(uid == Some(count.to_string()), "{}: {uid:?} in the place of {count}", entry.key);
        }
    }
    ensure!(
        counts.len() == CONNECTIONS as usize && counts.values().all(|count| *count == u64::from(swaps)),
        "{counts:?}"
    );
    let due = u64::from(CONNECTIONS) * passed / u64::try_from(EVERY.as_millis())?;
    Ok(json!({
        "connections": CONNECTIONS,
        "swaps": swaps,
        "swap-ms": spread(&took),
        "scheduled-runs": runs,
        // One that is due while a run for a swap waits is that run.
        "scheduled-runs-due": due,
        "lateness-ms": late,
        "private-mib-each-100-swaps": grown.iter().map(|bytes| round(*bytes as f64 / f64::from(1 << 20))).collect::<Vec<_>>(),
        "code-mappings-each-100-swaps": mapped,
    }))
}

fn late(lateness: &Lateness) -> Json {
    json!({ "p50": lateness.permille(500), "p99": lateness.permille(990), "most": lateness.permille(1000) })
}

fn many(data: &Path, connections: u32, every: Duration) -> Config {
    let timing = Timing::every(every);
    let of = |n: u32| {
        let name = format!("c{n}").parse().context("a name")?;
        let mut config = config(json!({ "do": "revised", "folder": "people" }), Some(timing.clone()));
        config.connector = "hostile".parse().context("a name")?;
        config.access.granted.read = vec![data.join("people")];
        config.base = data.to_owned();
        anyhow::Ok((name, Arc::new(config)))
    };
    let connections = (0..connections).map(of).collect::<Result<_>>().unwrap_or_default();
    Config { connectors: data.join("connectors"), ..host(connections, data) }
}

/// Puts one of the files into the folder of connectors, at once. Answers its hash.
fn put(data: &Path, bytes: &[u8], number: u8) -> Result<String> {
    put_as(data, "hostile", bytes, number)
}

fn put_as(data: &Path, name: &str, bytes: &[u8], number: u8) -> Result<String> {
    let folder = data.join("connectors");
    std::fs::create_dir_all(&folder)?;
    // A section that says nothing makes it another file.
    let file = [bytes, &[0, 2, 1, b'a' + number]].concat();
    let begun = folder.with_extension("new");
    std::fs::write(&begun, &file)?;
    std::fs::rename(&begun, folder.join(format!("{name}.wasm")))?;
    Ok(hex(&Sha256::digest(&file)))
}

async fn until(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let clock = Clock::start();
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    while !is_so()? {
        ensure!(clock.moment().0 < 60_000, "{what}: never");
        looks.tick().await;
    }
    Ok(())
}

/// Pieces of executable memory that belong to no file.
fn code_mappings() -> Result<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let is_code = |line: &&str| {
        let mut parts = line.split_whitespace();
        parts.nth(1).is_some_and(|rights| rights.contains('x')) && !line.contains('/') && !line.contains('[')
    };
    Ok(maps.lines().filter(is_code).count())
}
