//! A sink of the program's own: every change is handed to it, in order, at least once, and it is asked again for what it didn't take.
//!
//! `cargo run --profile house --example own_sink -- target/connectors`
#![allow(clippy::print_stdout, missing_docs, reason = "an example")]

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tidewaiter::config::{ConnectionConfig, TypeConfig};
use tidewaiter::core::grant::Grants;
use tidewaiter::core::journal::Entry;
use tidewaiter::core::state::From;
use tidewaiter::core::timing::{Misfire, Timing, When};
use tidewaiter::host::Host;
use tidewaiter::sink::{Delivering, Journal, Sink, Undelivered};
use tidewaiter::trust::Mode;
use tokio::sync::mpsc;

/// Hands entries to the rest of the program. The first time it is not ready, as a peer over a network would be now and then.
#[derive(Debug)]
struct Program {
    to: mpsc::Sender<Entry>,
    was_ready: bool,
}

impl Sink for Program {
    fn entries_max(&self) -> usize {
        100
    }

    fn resume(&mut self, _: Journal, after: u64) -> io::Result<u64> {
        // Whoever knows better how far it is, as from a file that it wrote, says so here.
        Ok(after)
    }

    fn deliver(&mut self, entries: Vec<Entry>) -> Delivering<'_> {
        Box::pin(async move {
            if !std::mem::replace(&mut self.was_ready, true) {
                return Err(Undelivered::because("not ready yet"));
            }
            let mut last = 0;
            for entry in entries {
                last = entry.id.sequence;
                self.to.send(entry).await.map_err(Undelivered::because)?;
            }
            Ok(last)
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let connectors = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "target/connectors".to_owned()));
    let place = tempfile::tempdir()?;
    let people = place.path().join("people");
    std::fs::create_dir(&people)?;
    let rows = "1,ada@example.org,2026-03-01T08:00:00Z\n2,grace@example.org,2026-03-01T08:00:01Z\n";
    std::fs::write(people.join("people.csv"), format!("id,mail,updated_at\n{rows}"))?;

    let every = When::Every(Duration::from_secs(1));
    let account = TypeConfig {
        class: "account".to_owned(),
        timing: Some(Timing { when: every, jitter: Duration::ZERO, misfire: Misfire::default() }),
        from: From::Beginning,
        ..TypeConfig::default()
    };
    let settings = json!({ "folder": people, "uid": "id", "updated_at": "updated_at", "settle_ms": 0 });
    let connection = ConnectionConfig::new("csv".parse()?, settings)
        .object_type("account".parse()?, account)
        .granted(Grants { read: vec![people], ..Grants::default() });

    let (to, mut entries) = mpsc::channel(1);
    let host = Host::builder(place.path().join("data"))
        .connectors(std::path::absolute(connectors)?)
        .trusts(Mode::Any)
        .connection("hr".parse()?, connection)
        .sink("program", Box::new(Program { to, was_ready: false }))
        .start()
        .await?;
    for _ in 0..2 {
        let entry = entries.recv().await.ok_or("the host ended")?;
        println!("{} is of {}", entry.id, entry.key);
    }
    host.shutdown().await;
    Ok(())
}
