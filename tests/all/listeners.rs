//! Many who follow the journal over HTTP at once, while connections run: each is told of each change once, in order, and soon.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::Value as Json;
use tidewaiter::clock::Clock;
use tidewaiter_tests::{Place, is_quick, rows, until};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

/// Connections that run each second, and have nothing to tell.
const CONNECTIONS: u32 = 200;
/// Those that have, and how long it is from one change to the next one, of either.
const SOURCES: [&str; 2] = ["hr", "crm"];
const EVERY: Duration = Duration::from_millis(50);
/// What `cargo xtask bench streams` measures alone is far below; beside other tests only a collapse is one.
const LATE_MAX: i64 = 3000;

/// One who listens until there were so many changes: by how many milliseconds each came later than it was journaled.
async fn listen(stream: TcpStream, changes: u32) -> Vec<i64> {
    let clock = Clock::start();
    let mut lines = BufReader::new(stream).lines();
    let (mut late, mut last) = (Vec::new(), BTreeMap::<String, u32>::new());
    while last.values().sum::<u32>() < changes {
        let line = lines.next_line().await.unwrap().expect("the stream goes on");
        let Some(text) = line.strip_prefix("data: ") else { continue };
        let change: Json = serde_json::from_str(text).unwrap();
        let last = last.entry(change["connection"].as_str().unwrap().to_owned()).or_default();
        *last += 1;
        assert_eq!(change["uid"], last.to_string(), "each once, in order");
        let at: jiff::Timestamp = change["at"].as_str().unwrap().parse().unwrap();
        late.push(clock.now().0 - at.as_millisecond());
    }
    late
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_listen_are_told_of_each_change_while_connections_run() {
    let (listeners, changes) = if is_quick() { (100, 40) } else { (1000, 200) };
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    let place = Place::new();
    place.install("synthetic");
    for name in SOURCES {
        place.csv(name, "", "from = \"beginning\"\nevery = \"100ms\"\n");
    }
    for n in 0..CONNECTIONS {
        let made =
            "connector = \"synthetic\"\n[settings]\nlast = 0\n[types.account]\nclass = \"account\"\nevery = \"1s\"\n";
        place.write(&format!("connections/c{n}.toml"), made);
    }
    let server = place.serve();
    let (address, bearer) = (server.url().trim_start_matches("http://").to_owned(), server.token());
    let mut told = JoinSet::new();
    for _ in 0..listeners {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let path = "/api/v1/changes/stream?after=0";
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {bearer}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        told.spawn(listen(stream, changes));
    }
    let mut tick = interval(EVERY);
    for count in 1..=changes / 2 {
        for name in SOURCES {
            tick.tick().await;
            place.rows(name, &rows(1..=count, 2026));
        }
    }
    let mut late = Vec::new();
    while let Some(one) = timeout(Duration::from_secs(60), told.join_next()).await.expect("each is told of all") {
        late.extend(one.unwrap());
    }
    late.sort_unstable();
    assert_eq!(late.len(), listeners * changes as usize);
    let p99 = late[late.len() * 99 / 100];
    println!(
        "{listeners} listeners, {changes} changes: p50 {} ms, p99 {p99} ms, with the look at the file",
        late[late.len() / 2]
    );
    assert!(p99 < LATE_MAX, "{p99} ms");
    until("the connections ran", || place.run("token get c7 account --json").json()["state"] == "live");
    assert_eq!(server.end().0, 0);
}
