//! The host as embedders see it: schedules, requests, operators' acts, the end.

use std::path::Path;
use std::time::Duration;

use tidewaiter::config::Config;
use tidewaiter::host::{Host, HostError, Runs};
use tidewaiter_core::journal::Body;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Outcome, Trigger};
use tidewaiter_core::schedule::Refusal;
use tidewaiter_core::state::Actor;

const CONNECTION: &str = r#"
connector = "csv"
[settings]
folder = "people"
uid = "id"
updated_at = "updated_at"
settle_ms = 0
[types.account]
class = "account"
every = "100ms"
"#;

fn key(object_type: &str) -> TypeKey {
    TypeKey { connection: "hr".parse().unwrap(), object_type: object_type.parse().unwrap() }
}

fn write(folder: &Path, rows: &str) {
    let partial = folder.join("people/people.tmp");
    std::fs::write(&partial, format!("id,mail,updated_at\n{rows}")).unwrap();
    std::fs::rename(partial, folder.join("people/people.csv")).unwrap();
}

async fn host(folder: &Path, runs: Runs) -> Host {
    for name in ["people", "connections", "grants", "connectors"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    let csv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/connectors/csv.wasm");
    std::fs::copy(csv, folder.join("connectors/csv.wasm")).expect("cargo xtask build makes it");
    std::fs::write(folder.join("tidewaiter.toml"), "connector-trust.mode = \"any\"").unwrap();
    std::fs::write(folder.join("connections/hr.toml"), CONNECTION).unwrap();
    std::fs::write(folder.join("grants/hr.toml"), "read = [\"people\"]").unwrap();
    Host::start(Config::load(&folder.join("tidewaiter.toml")).unwrap(), "a test", runs).await.unwrap()
}

#[tokio::test]
async fn a_schedule_delivers_what_changed_and_a_reset_asks_for_the_latest_token_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("people")).unwrap();
    write(folder.path(), "1,a@x,2026-03-01T08:00:00Z\n");
    let host = host(folder.path(), Runs::Scheduled).await;
    host.begin().await;
    let first = host.sync(key("account"), Trigger::Command).await.unwrap();
    assert_eq!((first.outcome, first.deltas), (Outcome::Ok, 0));

    let mut journal = host.db().watch();
    write(folder.path(), "1,a@y,2026-03-02T08:00:00Z\n2,b@x,2026-03-02T09:00:00Z\n");
    tokio::time::timeout(Duration::from_secs(30), journal.wait_for(|last| *last >= 2)).await.unwrap().unwrap();

    let before = host.token_reset(&key("account"), None, Actor::Uid(1000)).await.unwrap();
    let after = host.sync(key("account"), Trigger::Command).await.unwrap();
    assert_eq!((after.outcome, after.deltas, after.token_out.as_ref()), (Outcome::Ok, 0, before.token.as_ref()));
    let kinds: Vec<String> = host
        .db()
        .entries(0, 10)
        .unwrap()
        .into_iter()
        .map(|entry| match entry.body {
            Body::Delta(delta) | Body::Read(delta) => delta.change.uid().to_owned(),
            Body::Erased { .. } => "erased".to_owned(),
            Body::Marker { marker, by } => format!("{} by {by}", marker.kind()),
        })
        .collect();
    assert_eq!(kinds, ["1", "2", "token-reset by uid 1000"]);

    // A host that comes back goes on from the token.
    host.shutdown().await;
    drop(host);
    let host = self::host(folder.path(), Runs::WhenAsked).await;
    write(folder.path(), "1,a@y,2026-03-02T08:00:00Z\n2,b@x,2026-03-02T09:00:00Z\n3,c@x,2026-03-03T08:00:00Z\n");
    assert_eq!(host.sync(key("account"), Trigger::Command).await.unwrap().deltas, 1);
    assert_eq!(host.db().last_sequence(), 4);
}

#[tokio::test]
async fn an_unknown_type_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let host = host(folder.path(), Runs::WhenAsked).await;
    let error = host.sync(key("robot"), Trigger::Command).await.unwrap_err();
    assert!(matches!(error, HostError::Refused(Refusal::Unknown(_))), "{error}");
    assert!(error.to_string().contains("hr/robot"), "{error}");
    assert!(host.token_reset(&key("robot"), None, Actor::Api).await.is_err());
}

#[tokio::test]
async fn a_column_that_comes_while_the_host_runs_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("people")).unwrap();
    write(folder.path(), "1,a@x,2026-03-01T08:00:00Z\n");
    let host = host(folder.path(), Runs::WhenAsked).await;
    assert_eq!(host.sync(key("account"), Trigger::Command).await.unwrap().outcome, Outcome::Ok);
    let rows = "id,mail,phone,updated_at\n1,a@x,555,2026-03-02T08:00:00Z\n";
    std::fs::write(folder.path().join("people/people.csv"), rows).unwrap();
    let report = host.sync(key("account"), Trigger::Command).await.unwrap();
    assert_eq!((report.outcome, report.deltas), (Outcome::Ok, 1));
    let Body::Delta(delta) = host.db().entries(0, 1).unwrap().remove(0).body else { panic!("a change") };
    assert!(delta.change.object().unwrap().attributes.iter().any(|attribute| attribute.name == "phone"));
}
