//! What the HTTP API costs: entries that are told to many listeners, from their commit on, and reads of what a server has at hand.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};
use tidewaiter::api::Server;
use tidewaiter::clock::Clock;
use tidewaiter::config::Http;
use tidewaiter::host::{Host, Runs};
use tidewaiter_core::timing::Timing;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::group::commit;
use crate::idle::many;
use crate::measure::{begin, own_cpu, round};

const LISTENERS: usize = 1000;
const CONNECTIONS: u32 = 200;
/// Between commits.
const EVERY: Duration = Duration::from_millis(50);
/// Who commits what is told: none of the connections that run.
const WRITER: u64 = 9999;
const READS: u32 = 20_000;
/// Of those who ask at once.
const CLIENTS: u32 = 8;

/// When each entry was durable, by its sequence, in steady milliseconds.
type Durable = Arc<Mutex<BTreeMap<u64, u64>>>;

fn http() -> Http {
    Http {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        hosts: Vec::new(),
        tls: None,
        requests_per_second: NonZeroU32::MAX,
        clients: 2 * LISTENERS,
    }
}

/// A host with connections, its server, and what the head of a request goes on with.
async fn served(data: &Path, timing: &Timing) -> Result<(Arc<Host>, JoinSet<()>, SocketAddr, String)> {
    let host = Arc::new(Host::start(many(CONNECTIONS, timing, data), "bench", Runs::Scheduled).await?);
    let server = Server::bind(http(), &host).await?;
    let address = server.address();
    let mut tasks = JoinSet::new();
    tasks.spawn(server.serve(Arc::clone(&host)));
    host.begin().await;
    let token = std::fs::read_to_string(data.join("http-token"))?;
    let head = format!("Host: {address}\r\nAuthorization: Bearer {}\r\n\r\n", token.trim());
    Ok((host, tasks, address, head))
}

/// From a commit that is durable to each of those who listen.
pub(crate) async fn streams(commits: u64, out: &Path) -> Result<Json> {
    let data = tempfile::tempdir_in(out)?;
    let (host, mut server, address, head) = served(data.path(), &Timing::every(Duration::from_secs(1))).await?;
    let (clock, durable) = (Clock::start(), Durable::default());
    let first = host.db().last_sequence();
    let mut listeners = JoinSet::new();
    for _ in 0..LISTENERS {
        let mut stream = net::TcpStream::connect(address).await?;
        let request = format!("GET /api/v1/changes/stream?after={first}&connection=c{WRITER} HTTP/1.1\r\n{head}");
        stream.write_all(request.as_bytes()).await?;
        listeners.spawn(listen(stream, commits, clock, Arc::clone(&durable)));
    }
    // Until all are told what comes.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut tick = tokio::time::interval(EVERY);
    let begun = begin();
    for revision in 1..=commits {
        tick.tick().await;
        host.db().commit(commit(WRITER, revision)).await?;
        durable.lock().unwrap_or_else(PoisonError::into_inner).insert(revision, clock.moment().0);
    }
    let mut late = Vec::new();
    while let Some(ended) = listeners.join_next().await {
        late.extend(ended??);
    }
    let cost = begun.end();
    host.shutdown().await;
    while server.join_next().await.is_some() {}
    late.sort_unstable();
    let permille = |n: usize| late[(late.len() * n / 1000).min(late.len() - 1)];
    Ok(json!({
        "listeners": LISTENERS, "connections": CONNECTIONS, "commits": commits, "told": late.len(),
        "ms": { "p50": permille(500), "p99": permille(990), "most": permille(1000) },
        "cpu-share": round(cost.cpu.as_secs_f64() / cost.wall.as_secs_f64()),
    }))
}

/// One who listens, until it was told of so many commits: each once, in order. Answers by how many milliseconds each was late.
async fn listen(stream: net::TcpStream, commits: u64, clock: Clock, durable: Durable) -> Result<Vec<u64>> {
    let mut lines = BufReader::new(stream).lines();
    let (mut told, mut last, mut late) = (0, 0, Vec::new());
    while told < commits {
        let line = lines.next_line().await?.context("the stream ended")?;
        let Some(text) = line.strip_prefix("data: ") else { continue };
        let now = clock.moment().0;
        let change: Json = serde_json::from_str(text)?;
        told += 1;
        let sequence = change["sequence"].as_u64().context("no sequence")?;
        ensure!(sequence > last, "{sequence} after {last}");
        last = sequence;
        // Who is told before the committer knows is not late.
        let at = durable.lock().unwrap_or_else(PoisonError::into_inner).get(&told).copied();
        late.push(at.map_or(0, |at| now.saturating_sub(at)));
    }
    Ok(late)
}

/// Processor time that the server takes for a read of what is at hand, asked by one client and by several: they are another process.
pub(crate) async fn reads(out: &Path) -> Result<Json> {
    let data = tempfile::tempdir_in(out)?;
    let hourly = Timing::every(Duration::from_secs(3600));
    let (host, mut server, address, head) = served(data.path(), &hourly).await?;
    let mut report = json!({ "reads": READS });
    for (name, path) in [("token", "/api/v1/connections/c0/types/account/token"), ("ready", "/readyz")] {
        for clients in [1, CLIENTS] {
            let request = format!("GET {path} HTTP/1.1\r\n{head}");
            let mut asker = Command::new(std::env::current_exe()?);
            asker.arg("ask").arg(address.to_string()).arg(clients.to_string()).arg(request);
            let begun = own_cpu();
            ensure!(asker.status().await?.success(), "who asks failed");
            let us = (own_cpu() - begun).as_secs_f64() * 1e6 / f64::from(READS);
            report[name][format!("cpu-us-for-{clients}")] = json!(round(us));
        }
    }
    host.shutdown().await;
    while server.join_next().await.is_some() {}
    Ok(report)
}

/// Who asks: so many at once, each when it has its answer.
pub(crate) fn ask(address: &str, clients: u32, request: &str) -> Result<()> {
    let open = || TcpStream::connect(address).and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    let mut streams = (0..clients).map(|_| open()).collect::<io::Result<Vec<_>>>()?;
    for _ in 0..READS / clients {
        for stream in &mut streams {
            stream.write_all(request.as_bytes())?;
        }
        for stream in &mut streams {
            answer(stream)?;
        }
    }
    Ok(())
}

fn answer(stream: &mut TcpStream) -> Result<()> {
    let (mut bytes, mut seen) = ([0; 8192], 0);
    loop {
        let read = stream.read(&mut bytes[seen..])?;
        ensure!(read > 0, "the server hung up");
        seen += read;
        let text = std::str::from_utf8(&bytes[..seen])?;
        ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no length")?;
        if body.len() >= length.parse::<usize>()? {
            return Ok(());
        }
    }
}
