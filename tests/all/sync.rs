//! Runs of the csv connector in the sandbox, over real files, into a real journal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidewaiter::clock::Clock;
use tidewaiter::config::{ConnectionConfig, TypeConfig};
use tidewaiter::db::Db;
use tidewaiter::driver::{Connection, Order, Performed, perform};
use tidewaiter_tests::connection;

use tidewaiter::trace::RunTrace;
use tidewaiter::wasm::{Connector, Engine, EngineOptions, LoadError};
use tidewaiter_core::grant::Grants;
use tidewaiter_core::journal::Body;
use tidewaiter_core::name::{ConnectorName, TypeKey};
use tidewaiter_core::run::{ErrorKind, Failure, Outcome, RunReport, Trigger};
use tidewaiter_core::state::{From, SyncState, TypeState};
use tokio::sync::mpsc;

fn name(text: &str) -> ConnectorName {
    text.parse().unwrap()
}

async fn csv() -> Connector {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/connectors/csv.wasm");
    let bytes = std::fs::read(&path).expect("cargo xtask build makes it");
    Connector::load(&Engine::new(&EngineOptions::default()).unwrap(), &name("csv"), &bytes).await.unwrap()
}

/// A company's people in a file, and a host's db.
struct World {
    folder: tempfile::TempDir,
    db: Db,
    connection: Arc<Connection>,
    runs: u64,
}

impl World {
    async fn new(granted: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("people")).unwrap();
        let db = Db::open(&folder.path().join("data"), "a test", Duration::ZERO).unwrap();
        let settings = serde_json::json!({
            "folder": "people", "uid": "id", "updated_at": "updated_at", "deleted_at": "deleted_at", "settle_ms": 0
        });
        let account = TypeConfig { class: "account".into(), ..TypeConfig::default() };
        let granted =
            Grants { read: if granted { vec![folder.path().join("people")] } else { Vec::new() }, ..Grants::default() };
        let config =
            ConnectionConfig { base: folder.path().to_owned(), ..ConnectionConfig::new(name("csv"), settings) };
        let config = config.object_type("account".parse().unwrap(), account).granted(granted);
        let connection = Arc::new(connection("hr".parse().unwrap(), config, Arc::new(csv().await)).unwrap());
        Self { folder, db, connection, runs: 0 }
    }

    fn write(&self, rows: &str) {
        let text = format!("id,mail,updated_at,deleted_at\n{rows}");
        std::fs::write(self.folder.path().join("people/people.csv"), text).unwrap();
    }

    fn key(&self) -> TypeKey {
        TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() }
    }

    async fn run(&mut self) -> (RunReport, TypeState) {
        self.runs += 1;
        let clock = Clock::start();
        let stored = self.db.state(&self.key()).unwrap();
        let order = Order {
            db: self.db.clone(),
            clock,
            connection: Arc::clone(&self.connection),
            key: self.key(),
            run: self.runs,
            trigger: Trigger::Command,
            state: stored.unwrap_or_else(|| TypeState::first(From::Latest, clock.now())),
            reading: None,
            comparison: None,
            trace: RunTrace::default(),
        };
        let (_signals, none) = mpsc::channel(1);
        let Performed { report, state, .. } = perform(order, none).await;
        (report, state)
    }

    fn journaled(&self) -> Vec<String> {
        let entries = self.db.entries(0, 1_000_000).unwrap();
        let shown = entries.into_iter().map(|entry| match entry.body {
            Body::Delta(delta) | Body::Read(delta) => format!("{} {}", delta.change.kind(), delta.change.uid()),
            Body::Erased { .. } => "erased".to_owned(),
            Body::Marker { marker, .. } => marker.kind().to_owned(),
        });
        shown.collect()
    }
}

#[tokio::test]
async fn establishes_a_token_then_journals_exactly_what_changes() {
    let mut world = World::new(true).await;
    world.write("1,a@x,2026-03-01T08:00:00Z,\n2,b@x,2026-03-01T09:00:00Z,\n");
    let (report, state) = world.run().await;
    assert_eq!((report.outcome, report.deltas), (Outcome::Ok, 0));
    assert!(matches!(state.sync, SyncState::Live(_)), "{state:?}");
    assert_eq!(world.journaled(), [""; 0]);

    world.write(
        "1,a@y,2026-03-02T08:00:00Z,\n2,b@x,2026-03-02T09:00:00Z,2026-03-02T09:00:00Z\n3,c@x,2026-03-02T10:00:00Z,\n",
    );
    let (report, _) = world.run().await;
    assert_eq!((report.outcome, report.deltas), (Outcome::Ok, 3));
    let expected = ["create-or-update 1", "delete 2", "create-or-update 3"];
    assert_eq!(world.journaled(), expected);

    let (report, state) = world.run().await;
    assert_eq!((report.outcome, report.deltas), (Outcome::Ok, 0));
    assert_eq!(world.db.state(&world.key()).unwrap().as_ref(), Some(&state), "an idle run wrote something");
    assert_eq!(world.journaled(), expected);
}

#[tokio::test]
async fn a_folder_that_is_not_granted_is_not_there() {
    let mut world = World::new(false).await;
    world.write("1,a@x,2026-03-01T08:00:00Z,\n");
    let (report, state) = world.run().await;
    let Outcome::Failed(Failure::Connector(error)) = report.outcome else { panic!("{report:?}") };
    assert!(error.message.contains("people"), "{error:?}");
    assert_ne!(error.kind, ErrorKind::InvalidSyncToken);
    assert_eq!((state.sync, state.failures), (SyncState::New, 1));
}

#[tokio::test]
async fn a_large_change_goes_through_whole_and_in_order() {
    let mut world = World::new(true).await;
    world.write("0,z@x,2026-03-01T00:00:00Z,\n");
    world.run().await;
    let rows = |count: u32| {
        let row = |n| {
            format!("{n},m{n}@x,2026-03-{:02}T{:02}:{:02}:{:02}Z,\n", 2 + n / 86400, n / 3600 % 24, n / 60 % 60, n % 60)
        };
        (1..=count).map(row).collect::<String>()
    };
    world.write(&rows(20_000));
    let (report, _) = world.run().await;
    assert_eq!((report.outcome, report.deltas, report.dropped), (Outcome::Ok, 20_000, 0));
    let expected: Vec<String> = (1..=20_000).map(|n| format!("create-or-update {n}")).collect();
    let mut journaled = Vec::new();
    loop {
        let page = world.db.entries(journaled.len() as u64, 10_000).unwrap();
        if page.is_empty() {
            break;
        }
        journaled.extend(page.into_iter().map(|entry| match entry.body {
            Body::Delta(delta) | Body::Read(delta) => format!("{} {}", delta.change.kind(), delta.change.uid()),
            Body::Marker { .. } | Body::Erased { .. } => panic!("nobody touched the token"),
        }));
    }
    assert_eq!(journaled, expected);
}

#[tokio::test]
async fn what_is_no_connector_is_refused_by_name() {
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    for bytes in [b"".as_slice(), b"not wasm at all", b"\0asm\x01\0\0\0"] {
        let error = Connector::load(&engine, &name("odd"), bytes).await.unwrap_err();
        assert!(matches!(error, LoadError::Compile { .. }), "{error}");
        assert!(error.to_string().contains("connector odd"), "{error}");
    }
    let empty = b"\0asm\x0d\0\x01\0";
    let error = Connector::load(&engine, &name("odd"), empty).await.unwrap_err();
    assert!(matches!(error, LoadError::OtherWorld { .. }), "{error}");
}

#[tokio::test]
async fn the_name_of_the_file_is_the_name_of_the_connector() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/connectors/csv.wasm");
    let bytes = std::fs::read(path).expect("cargo xtask build makes it");
    let error =
        Connector::load(&Engine::new(&EngineOptions::default()).unwrap(), &name("other"), &bytes).await.unwrap_err();
    assert!(error.to_string().contains("csv.wasm"), "{error}");
}
