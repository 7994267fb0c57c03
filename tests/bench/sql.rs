//! Changed rows from PostgreSQL through the sandbox into the journal, over TLS, with the server on the same machine.

use anyhow::{Result, ensure};
use serde_json::{Value as Json, json};
use tidewaiter::config::Config;
use tidewaiter::host::{Host, Runs};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Outcome, Trigger};
use tidewaiter_tests::sql::{BY_TIME, place, server};
use tidewaiter_tests::web::Authority;

use crate::measure::{begin, round, spread};

/// So many changed rows, several times; beside PostgreSQL's own client, which copies the same rows out.
pub(crate) async fn measure(rounds: usize, rows: u64) -> Result<Json> {
    let authority = Authority::new();
    let (server, address) = server(&authority, &["127.0.0.1"]);
    let place = place(address, &authority, BY_TIME);
    let host = Host::start(Config::load(&place.path("tidewaiter.toml"))?, "bench", Runs::WhenAsked).await?;
    let key = TypeKey { connection: "hr".parse()?, object_type: "account".parse()? };
    host.sync(key.clone(), Trigger::Command).await?;
    server.run(&format!(
        "INSERT INTO people SELECT n, 'p' || n, 'p' || n || '@example.com' FROM generate_series(1, {rows}) AS n"
    ));
    let (mut rates, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        server.run("UPDATE people SET at = clock_timestamp()");
        server.run("VACUUM ANALYZE people");
        let begun = begin();
        let report = host.sync(key.clone(), Trigger::Command).await?;
        let took = begun.end();
        ensure!(report.outcome == Outcome::Ok && report.deltas == rows, "{report:?}");
        rates.push(rows as f64 / took.wall.as_secs_f64());
        let begun = begin();
        server.run("\\copy (SELECT at, id, login, mail FROM people ORDER BY at, id) TO '/dev/null'");
        copies.push(rows as f64 / begun.end().wall.as_secs_f64());
    }
    host.shutdown().await;
    let ratio: Vec<f64> = copies.iter().zip(&rates).map(|(copy, rate)| copy / rate).collect();
    Ok(json!({
        "rows": rows, "rows_per_s": spread(&rates), "copied_by_psql_per_s": spread(&copies),
        "psql_to_tidewaiter": round(crate::measure::median(&ratio)),
    }))
}
