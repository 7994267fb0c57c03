//! A host inside of another program: a connector and a connection come, change and go, and the program reads every change.
//!
//! `cargo run --profile house --example embed -- target/connectors`
#![allow(clippy::print_stdout, missing_docs, reason = "an example")]

use std::error::Error;
use std::path::PathBuf;

use serde_json::json;
use tidewaiter::config::{ConnectionConfig, TypeConfig};
use tidewaiter::core::grant::Grants;
use tidewaiter::core::journal::Body;
use tidewaiter::core::name::TypeKey;
use tidewaiter::core::run::Trigger;
use tidewaiter::core::state::{Actor, From};
use tidewaiter::host::Host;
use tidewaiter::host::ask::After;
use tidewaiter::trust::Mode;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let built = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "target/connectors".to_owned()));
    let place = tempfile::tempdir()?;
    let people = place.path().join("people");
    std::fs::create_dir_all(place.path().join("data/connectors"))?;
    std::fs::create_dir(&people)?;
    std::fs::write(people.join("people.csv"), "id,mail,updated_at\n1,ada@example.org,2026-03-01T08:00:00Z\n")?;

    // What is put into the folder of connectors by this program is what it wants to run. `Mode::Pinned` would have it say so of each file.
    let host = Host::builder(place.path().join("data")).trusts(Mode::Any).start().await?;
    host.set_connector("csv".parse()?, std::fs::read(built.join("csv.wasm"))?, Actor::Program).await?;

    let settings = json!({ "folder": people, "uid": "id", "updated_at": "updated_at", "settle_ms": 0 });
    let account = TypeConfig { class: "account".to_owned(), from: From::Beginning, ..TypeConfig::default() };
    let connection = ConnectionConfig::new("csv".parse()?, settings)
        .object_type("account".parse()?, account)
        .granted(Grants { read: vec![people.clone()], ..Grants::default() });
    host.set_connection("hr".parse()?, connection, Actor::Program).await?;

    let account = TypeKey { connection: "hr".parse()?, object_type: "account".parse()? };
    let report = host.sync(account, Trigger::Command).await?;
    println!("run {} journaled {} changes", report.run, report.deltas);
    let mut changes = host.subscribe(After::Sequence(0));
    while let Some(entry) = changes.next().await? {
        // Whoever stores this id once the change is dealt with, and subscribes after it, misses none and gets none twice.
        println!("{} is of {}", entry.id, entry.key);
        if matches!(&entry.body, Body::Delta(_)) {
            break;
        }
    }

    host.remove_connection(&"hr".parse()?, Actor::Program).await?;
    host.remove_connector("csv".parse()?, Actor::Program).await?;
    host.shutdown().await;
    Ok(())
}
