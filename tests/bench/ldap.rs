//! Changed entries from slapd through the sandbox into the journal, over TLS, with the server on the same machine.

use anyhow::{Result, ensure};
use serde_json::{Value as Json, json};
use tidewaiter::config::Config;
use tidewaiter::host::{Host, Runs};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Outcome, Trigger};
use tidewaiter_tests::ldap::{BY_COOKIE, BY_TIME, PEOPLE, address, people, place, server};
use tidewaiter_tests::web::Authority;

use crate::measure::{begin, round, spread};

/// So many entries, several times, by time (which waits a second for the server's clock) and by cookie; beside OpenLDAP's own client, which
/// reads the same entries without a sandbox, a journal, or TLS.
pub(crate) async fn measure(rounds: usize, entries: usize) -> Result<Json> {
    let mut report = json!({ "entries": entries });
    for (way, changes) in [("by_time", BY_TIME), ("by_cookie", BY_COOKIE)] {
        let (mut rates, mut reads) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let authority = Authority::new();
            let mut server = server(&authority, &["127.0.0.1"]);
            server.change(&people(1, 1));
            let place = place(address(&server), &authority, changes);
            let host = Host::start(Config::load(&place.path("tidewaiter.toml"))?, "bench", Runs::WhenAsked).await?;
            let key = TypeKey { connection: "hr".parse()?, object_type: "account".parse()? };
            host.sync(key.clone(), Trigger::Command).await?;
            server.load(&people(2, entries));
            let begun = begin();
            let done = host.sync(key, Trigger::Command).await?;
            let took = begun.end();
            ensure!(done.outcome == Outcome::Ok && done.deltas == entries as u64, "{done:?}");
            rates.push(entries as f64 / took.wall.as_secs_f64());
            let begun = begin();
            let read = server.search(PEOPLE, "(objectClass=inetOrgPerson)", &["uid", "cn", "sn", "mail", "entryUUID"]);
            ensure!(read.len() > entries, "nothing was read");
            reads.push(entries as f64 / begun.end().wall.as_secs_f64());
            host.shutdown().await;
        }
        let ratio: Vec<f64> = reads.iter().zip(&rates).map(|(read, rate)| read / rate).collect();
        report[way] = json!({
            "entries_per_s": spread(&rates), "read_by_ldapsearch_per_s": spread(&reads),
            "ldapsearch_to_tidewaiter": round(crate::measure::median(&ratio)),
        });
    }
    Ok(report)
}
