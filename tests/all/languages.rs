//! The contract in other languages than Rust: the connectors in Python and JavaScript keep it as the one in Rust does.

use serde_json::{Value, json};
use tidewaiter::config::Config;
use tidewaiter::host::{Host, Runs};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Failure, Outcome, RunReport, Trigger};
use tidewaiter_tests::{Place, built, is_quick};

struct World {
    place: Place,
    host: Host,
}

impl World {
    async fn new(connector: &str) -> Self {
        let place = Place::empty();
        place.install(connector);
        place.write("tidewaiter.toml", "");
        let connection = format!(
            "connector = \"{connector}\"\nsettings.folder = \"people\"\n[types.account]\nclass = \"account\"\n"
        );
        place.write("connections/hr.toml", &connection);
        place.write("grants/hr.toml", "read = [\"people\"]");
        place.write("people/people.json", "[]");
        let host = Host::start(Config::load(&place.path("tidewaiter.toml")).unwrap(), "a test", Runs::WhenAsked);
        Self { host: host.await.unwrap(), place }
    }

    async fn run(&self) -> RunReport {
        let key = TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() };
        self.host.sync(key, Trigger::Command).await.unwrap()
    }

    /// Runs with these rows, and answers what was journaled since.
    async fn sync(&self, rows: &Value) -> Vec<Value> {
        let before = self.host.db().last_sequence();
        self.place.write("people/people.json", &rows.to_string());
        let report = self.run().await;
        assert_eq!(report.outcome, Outcome::Ok);
        let entries = self.host.db().entries(before, 1000).unwrap();
        assert_eq!(report.deltas, entries.len() as u64);
        entries.iter().map(tidewaiter::sink::render::entry).collect()
    }

    async fn fail(&self) -> Failure {
        match self.run().await.outcome {
            Outcome::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }
}

fn told(entries: &[Value]) -> Vec<String> {
    entries.iter().map(|e| format!("{} {}", e["kind"].as_str().unwrap(), e["uid"].as_str().unwrap())).collect()
}

async fn keeps_the_contract(connector: &str) {
    // These two take long to compile.
    if is_quick() || !built(connector) {
        return;
    }
    let world = World::new(connector).await;
    // A source without a change has no token; its first change must not be skipped.
    assert_eq!(world.sync(&json!([])).await, [Value::Null; 0]);
    let ann = json!({ "uid": "1", "name": "ann", "rev": 1, "mail": "ann@x", "age": 44, "left": null });
    let first = world.sync(&json!([ann])).await;
    assert_eq!(told(&first), ["create-or-update 1"]);
    let attributes = json!({ "rev": ["1"], "mail": ["ann@x"], "age": ["44"], "left": [] });
    assert_eq!((&first[0]["name"], &first[0]["attributes"]), (&"ann".into(), &attributes));

    // Changed, added, deleted, in the order of the source, whatever that of the file; twenty of one rev are more than a batch.
    let mut rows = vec![
        json!({ "uid": "1", "name": "ann", "rev": 4, "deleted": true }),
        json!({ "uid": "2", "rev": 2, "name": "bob" }),
    ];
    rows.extend((10..30).map(|n| json!({ "uid": n.to_string(), "rev": 3, "name": "x", "note": "é\"\n" })));
    let second = world.sync(&Value::Array(rows.clone())).await;
    let same = (10..30).map(|n| format!("create-or-update {n}"));
    let expected: Vec<String> =
        std::iter::once("create-or-update 2".into()).chain(same).chain(["delete 1".into()]).collect();
    assert_eq!(told(&second), expected);
    assert_eq!(second[1]["attributes"]["note"], json!(["é\"\n"]));
    assert_eq!(world.sync(&Value::Array(rows.clone())).await, [Value::Null; 0]);

    // Half a file is no reason to skip anything.
    let last = world.host.db().last_sequence();
    world.place.write("people/people.json", "[{\"uid\": \"3\", \"re");
    let broken = world.fail().await;
    assert!(broken.code() == "connector.retryable" && broken.to_string().contains("people.json"), "{broken}");
    assert_eq!(world.host.db().last_sequence(), last);
    rows.push(json!({ "uid": "3", "rev": 5, "name": "eve" }));
    assert_eq!(told(&world.sync(&Value::Array(rows)).await), ["create-or-update 3"]);

    // A file that never had the token's change is another file.
    world.place.write("people/people.json", &json!([{ "uid": "9", "rev": 1, "name": "z" }]).to_string());
    assert_eq!(world.fail().await.code(), "connector.invalid-sync-token");
    assert_eq!(world.host.types(None).unwrap()[0].token.state, "token-lost");
}

#[tokio::test]
async fn python_keeps_the_contract() {
    keeps_the_contract("json-py").await;
}

#[tokio::test]
async fn javascript_keeps_the_contract() {
    keeps_the_contract("json-js").await;
}
