//! A panic of the host itself in a run: that run fails and says so, what was checkpointed is kept, everything else goes on.

use std::sync::Arc;
use std::time::Duration;

use tidewaiter::clock::Clock;
use tidewaiter::db::{Db, pack};
use tidewaiter::driver::{Calling, Order, Session, Source, perform};

use tidewaiter::trace::RunTrace;
use tidewaiter::wasm::{FromGuest, Setup, SyncOptions};
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::{Change, SyncDelta};
use tidewaiter_core::run::{Failure, Outcome, RunReport, Trigger};
use tidewaiter_core::schema::{Classes, ConnectorInfo, ObjectClassInfo};
use tidewaiter_core::state::{From, TypeState};
use tidewaiter_core::token::SyncToken;
use tidewaiter_tests::{connection, connection_config, info};
use tokio::sync::mpsc;

/// Where it panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Start,
    Classes,
    Latest,
    Sync,
    Nowhere,
}

#[derive(Debug)]
struct Panics {
    place: Where,
    info: ConnectorInfo,
}

struct Panicking {
    place: Where,
    to_run: mpsc::Sender<FromGuest>,
}

impl Panicking {
    fn here(&self, place: Where) {
        assert!(self.place != place, "on purpose");
    }
}

impl Source for Panics {
    fn info(&self) -> &ConnectorInfo {
        &self.info
    }

    fn start(&self, setup: Setup) -> Calling<'_, Box<dyn Session>> {
        Box::pin(async move {
            let session = Panicking { place: self.place, to_run: setup.to_run };
            session.here(Where::Start);
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

impl Session for Panicking {
    fn set_classes(&mut self, _: Arc<Classes>) {}

    fn object_classes(&mut self) -> Calling<'_, Vec<ObjectClassInfo>> {
        self.here(Where::Classes);
        Box::pin(async { Ok(Vec::new()) })
    }

    fn check(&mut self) -> Calling<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn latest<'a>(&'a mut self, _: &'a str) -> Calling<'a, Option<SyncToken>> {
        self.here(Where::Latest);
        Box::pin(async { Ok(Some(SyncToken::Integer(0))) })
    }

    fn sync<'a>(
        &'a mut self,
        class: &'a str,
        token: Option<SyncToken>,
        _: SyncOptions,
    ) -> Calling<'a, Option<SyncToken>> {
        let first = match token {
            Some(SyncToken::Integer(last)) => last + 1,
            _ => 1,
        };
        Box::pin(async move {
            for (number, checkpoint) in [(first, Some(SyncToken::Integer(first))), (first + 1, None)] {
                let change = Change::Delete { uid: number.to_string(), name: None, last_known: None };
                let delta = SyncDelta { object_class: class.to_owned(), change, source_time: None };
                let batch = FromGuest::Batch {
                    deltas: pack(&[delta]).unwrap(),
                    kept: Vec::new(),
                    resolved: Vec::new(),
                    bytes: 10,
                    checkpoint,
                };
                self.to_run.send(batch).await.unwrap();
            }
            self.here(Where::Sync);
            Ok(Some(SyncToken::Integer(first + 1)))
        })
    }

    fn was_stopped(&self) -> bool {
        false
    }
}

fn key() -> TypeKey {
    TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() }
}

async fn run(db: &Db, number: u64, place: Where, from: From) -> RunReport {
    let config = connection_config("panics", serde_json::json!({}), from, Limits::default());
    let clock = Clock::start();
    let source: Arc<dyn Source> = Arc::new(Panics { place, info: info("panics") });
    let connection = connection(key().connection, config, source).unwrap();
    let state = db.state(&key()).unwrap().unwrap_or_else(|| TypeState::first(from, clock.now()));
    let order = Order {
        db: db.clone(),
        clock,
        connection: Arc::new(connection),
        key: key(),
        run: number,
        trigger: Trigger::Command,
        state,
        reading: None,
        comparison: None,
        trace: RunTrace::default(),
    };
    perform(order, mpsc::channel(1).1).await.report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_call_ends_its_run_and_nothing_else() {
    for place in [Where::Start, Where::Classes, Where::Latest, Where::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), "a test", Duration::ZERO).unwrap();
        let from = if place == Where::Latest { From::Latest } else { From::Beginning };
        let report = run(&db, 1, place, from).await;
        let Outcome::Failed(Failure::Host { message }) = &report.outcome else { panic!("{place:?}: {report:?}") };
        assert!(message.contains("panicked") && message.contains("on purpose"), "{place:?}: {message}");
        let kept = u64::from(place == Where::Sync);
        assert_eq!((report.deltas, db.last_sequence()), (kept, kept), "{place:?}: what was checkpointed");

        let next = run(&db, 2, Where::Nowhere, from).await;
        assert_eq!(next.outcome, Outcome::Ok, "{place:?}");
        let token = db.state(&key()).unwrap().and_then(|state| state.sync.token().cloned());
        let reached = 2 + kept.cast_signed();
        assert_eq!(token, Some(SyncToken::Integer(reached)), "{place:?}");
    }
}
