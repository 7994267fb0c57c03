//! The library in a program of its own: the examples are run as they are, and what they don't show is tested here.

use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::json;
use tidewaiter::config::{ConnectionConfig, TypeConfig};
use tidewaiter::core::grant::Grants;
use tidewaiter::core::name::TypeKey;
use tidewaiter::core::run::Trigger;
use tidewaiter::core::state::{Actor, From};
use tidewaiter::host::ask::After;
use tidewaiter::host::{Host, HostError};
use tidewaiter_tests::{connector, example, program};

/// What an example prints.
fn output(name: &str) -> String {
    let built = connector("csv");
    let mut command = Command::new(example(name));
    let output = command.arg(built.parent().unwrap()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn every_example_does_what_it_says() {
    let embed = output("embed");
    assert!(embed.starts_with("run 1 journaled 1 changes\n") && embed.ends_with("-1 is of hr/account\n"), "{embed}");
    let own_sink = output("own_sink");
    assert_eq!(own_sink.lines().filter(|line| line.ends_with(" is of hr/account")).count(), 2, "{own_sink}");
    let own_secrets = output("own_secrets");
    assert!(own_secrets.contains("run 1 ended ok\nthe data is encrypted with the key "), "{own_secrets}");
}

fn key() -> TypeKey {
    TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_changes_what_its_host_runs_and_is_told_what_is_wrong() {
    let place = tempfile::tempdir().unwrap();
    let people = place.path().join("people");
    std::fs::create_dir_all(place.path().join("data/connectors")).unwrap();
    std::fs::create_dir(&people).unwrap();
    std::fs::write(people.join("people.csv"), "id,mail,updated_at\n1,a@x,2026-03-01T08:00:00Z\n").unwrap();
    let host = Arc::new(Host::builder(place.path().join("data")).compiler(program()).start().await.unwrap());
    let (csv, by) = ("csv".parse::<tidewaiter::core::name::ConnectorName>().unwrap(), || Actor::Program);
    let connection = |settings| {
        let account = TypeConfig { class: "account".into(), from: From::Beginning, ..TypeConfig::default() };
        ConnectionConfig::new("csv".parse().unwrap(), settings)
            .object_type("account".parse().unwrap(), account)
            .granted(Grants { read: vec![people.clone()], ..Grants::default() })
    };
    let settings = json!({ "folder": people, "uid": "id", "updated_at": "updated_at", "settle_ms": 0 });

    // It waits for its connector, and then for somebody who trusts it.
    let set = host.set_connection("hr".parse().unwrap(), connection(settings.clone()), by()).await.unwrap();
    assert!(set.broken.values().all(|problem| problem.contains("csv.wasm")) && set.broken.len() == 1, "{set:?}");
    let bytes = std::fs::read(connector("csv")).unwrap();
    host.set_connector(csv.clone(), bytes, by()).await.unwrap();
    let refused = host.sync(key(), Trigger::Command).await.unwrap_err().to_string();
    assert!(refused.contains("is not pinned"), "{refused}");
    host.pin(csv.clone(), false, by()).await.unwrap();
    assert_eq!(host.sync(key(), Trigger::Command).await.unwrap().deltas, 1);

    let wrong = connection(json!({ "folder": people }));
    let refused = host.set_connection("hr".parse().unwrap(), wrong, by()).await.unwrap_err();
    assert!(
        matches!(&refused, HostError::NotReloaded { problem } if problem.contains("\"uid\" is a required")),
        "{refused}"
    );
    assert!(host.reload(by()).await.is_err(), "there are no files");

    // Who waits for entries gets them, and hears of the end.
    let waiting = tokio::task::JoinSet::from_iter([{
        let host = Arc::clone(&host);
        async move {
            let mut changes = host.subscribe(After::Sequence(0));
            let mut seen = 0;
            while changes.next().await.unwrap().is_some() {
                seen += 1;
            }
            seen
        }
    }]);
    let more = "2,b@x,2026-03-02T08:00:00Z\n";
    let text = std::fs::read_to_string(people.join("people.csv")).unwrap();
    std::fs::write(people.join("people.csv"), text + more).unwrap();
    assert_eq!(host.sync(key(), Trigger::Command).await.unwrap().deltas, 1);
    let removed = host.remove_connection(&"hr".parse().unwrap(), by()).await.unwrap();
    assert_eq!(removed.differences.removed.len(), 1);
    assert!(host.sync(key(), Trigger::Command).await.is_err());
    assert!(host.remove_connection(&"hr".parse().unwrap(), by()).await.is_err());
    host.remove_connector(csv.clone(), by()).await.unwrap();
    assert!(host.remove_connector(csv, by()).await.is_err());
    host.shutdown().await;
    assert_eq!(waiting.join_all().await, [2]);
}
