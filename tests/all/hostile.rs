//! Guests that misbehave, each in its way: the run ends with the stable code of what it did, what was checkpointed before is kept,
//! nothing else is journaled, and everybody else goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidewaiter::config::Config;
use tidewaiter::host::{Host, Runs};
use tidewaiter::wasm::{Connector, Engine, EngineOptions, LoadError};
use tidewaiter_core::journal::Body;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Failure, Outcome, RunReport, Trigger};
use tidewaiter_core::state::{Actor, SyncState};
use tidewaiter_core::token::SyncToken;
use tidewaiter_tests::{Place, connector, patched};
use tokio::task::JoinSet;

fn hostile(what: &str) -> String {
    // Where it is not about time, a busy machine gets enough of it.
    let time = if what.starts_with("endless") { "2s" } else { "20s" };
    format!(
        "connector = \"hostile\"\n[settings]\ndo = \"{what}\"\n[types.account]\nclass = \"account\"\n\
         [limits]\ncall-time = \"{time}\"\nmemory-bytes = 67108864\nlog-lines = 20\n"
    )
}

fn key(connection: &str) -> TypeKey {
    TypeKey { connection: connection.parse().unwrap(), object_type: "account".parse().unwrap() }
}

fn place(what: &str) -> Place {
    let place = Place::new();
    place.install("hostile");
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    place.write("connections/bad.toml", &hostile(what));
    place
}

async fn start(place: &Place) -> Arc<Host> {
    let config = Config::load(&place.path("tidewaiter.toml")).unwrap();
    Arc::new(Host::start(config, "a test", Runs::WhenAsked).await.unwrap())
}

fn journaled(host: &Host) -> Vec<String> {
    let uid = |body| match body {
        Body::Delta(delta) | Body::Read(delta) => tidewaiter_core::object::Change::uid(&delta.change).to_owned(),
        Body::Marker { marker, .. } => marker.kind().to_owned(),
        Body::Erased { .. } => "erased".to_owned(),
    };
    host.db().entries(0, 100_000).unwrap().into_iter().map(|entry| uid(entry.body)).collect()
}

fn failure(report: RunReport) -> Failure {
    match report.outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// Runs what misbehaves, and answers its failure and what it left; a well-behaved neighbour then still runs.
async fn run(what: &str) -> (Failure, Vec<String>, SyncState) {
    let place = place(what);
    let host = start(&place).await;
    let report = host.sync(key("bad"), Trigger::Command).await.unwrap();
    let state = host.db().state(&key("bad")).unwrap().map_or(SyncState::New, |state| state.sync);
    let journaled = journaled(&host);
    assert_eq!(host.sync(key("hr"), Trigger::Command).await.unwrap().outcome, Outcome::Ok, "{what}: the neighbour");
    (failure(report), journaled, state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_contract_fails_the_run_by_its_code_and_keeps_the_token() {
    for (what, code, part) in [
        ("empty-uid", "contract.empty-uid", "uid"),
        ("too-many-deltas", "contract.batch-too-large", "5000"),
        ("too-many-bytes", "contract.batch-too-large", "8388608"),
        ("undeclared-class", "contract.undeclared-class", "robot"),
        ("undeclared-attribute", "contract.data-fault", "salary"),
        ("attribute-twice", "contract.data-fault", "MAIL"),
        ("not-a-number", "contract.data-fault", "is no proper real"),
        ("swallow-rejection", "contract.empty-uid", "uid"),
        ("deltas-without-token", "contract.uncovered-deltas", "no token"),
        ("huge-checkpoint", "contract.token-too-large", "70000"),
        ("huge-last-token", "contract.token-too-large", "70000"),
    ] {
        let (failure, journaled, state) = run(what).await;
        assert_eq!(failure.code(), code, "{what}: {failure}");
        assert!(failure.to_string().contains(part), "{what}: {failure}");
        assert_eq!((journaled, state), (vec![], SyncState::Live(SyncToken::Integer(0))), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_or_a_limit_fails_the_run_by_its_code_and_keeps_the_token() {
    for (what, code) in [
        ("endless-loop", "limit.call-time"),
        ("endless-host-call", "limit.call-time"),
        ("memory-hog", "limit.memory-bytes"),
        ("deep-recursion", "trap.stack-overflow"),
        ("deltas-without-end", "limit.uncovered-bytes"),
    ] {
        let (failure, journaled, state) = run(what).await;
        assert_eq!(failure.code(), code, "{what}: {failure}");
        assert_eq!((journaled, state), (vec![], SyncState::Live(SyncToken::Integer(0))), "{what}");
        let traced = failure.to_string().contains("hostile::recurse");
        assert_eq!(traced, what == "deep-recursion", "the guest's backtrace: {failure}");
    }
    for what in ["host-call-bomb", "random-bomb", "handle-bomb"] {
        let (failure, journaled, _) = run(what).await;
        assert!(failure.code().starts_with("trap."), "{what}: {} {failure}", failure.code());
        assert_eq!(journaled, [""; 0], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_in_the_middle_keeps_what_was_checkpointed_and_nothing_else() {
    let (failure, journaled, state) = run("trap-in-the-middle").await;
    assert_eq!(failure.code(), "trap.unreachable-code-reached", "{failure}");
    assert_eq!((journaled, state), (vec!["before".to_owned()], SyncState::Live(SyncToken::Integer(1))));
}

#[test]
fn a_trap_is_told_with_where_it_was_and_the_guests_last_words() {
    let place = place("trap-in-the-middle");
    assert_eq!(place.run("sync bad account").code, 4);
    let shown = place.run("connections show bad").stdout;
    let run: Vec<&str> = shown.lines().skip_while(|line| !line.contains(", trap.unreachable-code-reached: ")).collect();
    assert!(run[0].contains(" < tidewaiter:connector/live-sync@0.1.0#sync"), "the backtrace: {shown}");
    assert!(run[1..].iter().any(|line| line.contains("  | ") && line.contains("panicked at")), "its words: {shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_token_that_is_too_large_is_not_kept() {
    let (failure, journaled, state) = run("huge-first-token").await;
    assert!(failure.to_string().contains("70000"), "{failure}");
    assert_eq!((journaled, state), (vec![], SyncState::New));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emit_outside_sync_is_refused() {
    let (failure, journaled, state) = run("emit-outside-sync").await;
    assert_eq!(failure.code(), "contract.not-in-sync");
    assert_eq!((journaled, state), (vec![], SyncState::Live(SyncToken::Integer(0))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outside_is_reached_without_a_grant() {
    let (failure, _, _) = run("reach-out").await;
    assert_eq!(failure.to_string(), "connector error: open: nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_waits_for_an_operator() {
    let (failure, _, state) = run("lose-the-token").await;
    assert_eq!(failure.code(), "connector.invalid-sync-token");
    let SyncState::TokenLost { token, reason, by_source } = state else { panic!("{state:?}") };
    assert!(by_source);
    assert_eq!((token, reason.as_str()), (Some(SyncToken::Integer(0)), "the log has been cut"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_loop_holds_up_nobody() {
    let place = place("endless-loop");
    place.write("connections/worse.toml", &hostile("endless-loop"));
    place.write("connections/worst.toml", &hostile("endless-host-call"));
    let host = start(&place).await;
    // More of them than there are workers.
    let mut loops = JoinSet::new();
    for name in ["bad", "worse", "worst"] {
        let host = Arc::clone(&host);
        loops.spawn(async move { host.sync(key(name), Trigger::Command).await.unwrap() });
    }
    let (mut rounds, mut ended) = (0, 0);
    while ended < 3 {
        let run = tokio::time::timeout(Duration::from_secs(10), host.sync(key("hr"), Trigger::Command)).await;
        assert_eq!(run.expect("not starved").unwrap().outcome, Outcome::Ok);
        rounds += u32::from(loops.len() == 3);
        while let Some(run) = loops.try_join_next() {
            assert_eq!(failure(run.unwrap()).code(), "limit.call-time");
            ended += 1;
        }
    }
    assert!(rounds >= 3, "only {rounds} runs beside three loops");
}

/// Stops the host while the guest works, once it journaled something.
async fn stopped(what: &str) -> (RunReport, Vec<String>, Option<SyncToken>) {
    let place = place(what);
    let host = start(&place).await;
    let mut run = JoinSet::new();
    let asked = Arc::clone(&host);
    run.spawn(async move { asked.sync(key("bad"), Trigger::Command).await.unwrap() });
    host.db().watch().wait_for(|last| *last > 0).await.unwrap();
    host.shutdown().await;
    let token = host.db().state(&key("bad")).unwrap().and_then(|state| state.sync.token().cloned());
    (run.join_next().await.unwrap().unwrap(), journaled(&host), token)
}

fn counted(journaled: &[String]) -> Option<SyncToken> {
    let last = i64::try_from(journaled.len()).unwrap();
    assert!((1..=last).map(|number| number.to_string()).eq(journaled.iter().cloned()), "something is missing");
    Some(SyncToken::Integer(last))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_end_stops_a_connector_at_a_checkpoint() {
    let (report, journaled, token) = stopped("endless-changes").await;
    assert_eq!(report.outcome, Outcome::Stopped);
    assert_eq!(token, counted(&journaled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_wins_over_a_run_under_way() {
    let place = place("endless-changes");
    let host = start(&place).await;
    let mut run = JoinSet::new();
    let asked = Arc::clone(&host);
    run.spawn(async move { asked.sync(key("bad"), Trigger::Command).await.unwrap() });
    host.db().watch().wait_for(|last| *last > 0).await.unwrap();
    let set = host.token_set(&key("bad"), SyncToken::Integer(-7), None, Actor::Uid(1000)).await.unwrap();
    assert_eq!(run.join_next().await.unwrap().unwrap().outcome, Outcome::Superseded);
    assert_eq!(host.token(&key("bad")).unwrap(), set, "the run wrote nothing after the operator");
    let mut journaled = journaled(&host);
    assert_eq!(journaled.pop().as_deref(), Some("token-set"));
    counted(&journaled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emit_after_stop_breaks_the_contract() {
    let (report, journaled, token) = stopped("emit-after-stop").await;
    assert_eq!(failure(report).code(), "contract.after-stop");
    assert_eq!(token, counted(&journaled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_that_ignores_stop_is_ended() {
    let (report, journaled, token) = stopped("ignore-stop").await;
    assert!(matches!(report.outcome, Outcome::Stopped | Outcome::Failed(_)), "{report:?}");
    assert_eq!(token, counted(&journaled));
}

#[test]
fn a_flood_of_hostile_words_is_bounded_and_on_lines_of_its_own() {
    let place = place("log-flood");
    let ended = place.run("sync bad account --log connector=trace");
    assert_eq!(ended.code, 0, "{}", &ended.stderr[..ended.stderr.len().min(2000)]);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(lines.len() <= 22, "{} lines", lines.len());
    for line in &lines {
        assert!(line.len() < 4500 && line.contains(" connector: ") && line.contains("connection=\"bad\""), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    assert!(lines.last().unwrap().contains("dropped 99981 lines"), "{}", lines.last().unwrap());

    place.write("connections/bad.toml", &hostile("hostile-words"));
    let ended = place.run("sync bad account --log info");
    assert_eq!(ended.code, 4);
    for line in ended.stderr.lines() {
        let steers = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!line.starts_with("INFO") && !line.chars().any(steers), "{line:?}");
    }
}

#[test]
fn the_log_has_a_guests_own_words_and_every_delta_that_is_not_journaled() {
    let place = place("reach-out");
    let ended = place.run("sync bad account --log connector=info");
    let said = ended.stderr.lines().find(|line| line.contains("tried everything")).unwrap();
    for part in ["connection=\"bad\"", "type=\"account\"", "run=1", "stream=\"stderr\""] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    place.write("connections/bad.toml", &hostile("trap-in-the-middle"));
    let ended = place.run("sync bad account");
    let dropped = ended.stderr.lines().find(|line| line.contains("code=\"uncovered-delta\"")).unwrap();
    for part in ["connection=bad", "type=account", "class=\"account\"", "uid=\"after\"", "not journaled"] {
        assert!(dropped.contains(part), "no {part} in {dropped}");
    }
}

/// Why the component with other bytes in some places isn't loaded.
async fn refusal(from: &str, to: &str) -> LoadError {
    let bytes = patched(std::fs::read(connector("hostile")).unwrap(), from, to);
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    Connector::load(&engine, &"hostile".parse().unwrap(), &bytes).await.unwrap_err()
}

#[tokio::test]
async fn garbage_from_describe_is_refused_by_name() {
    for (word, part) in [
        ("trap         ", "trapped"),
        ("loop         ", "5000 ms"),
        ("garbage-name ", "not a usable name"),
        ("garbage-json ", "settings-schema"),
        ("bad-schema   ", "settings-schema is not a JSON Schema: /type: "),
        ("endless-ref  ", "settings-schema has $ref"),
        ("huge-text    ", "summary has 10000000 bytes"),
        ("nothing      ", "operations is empty"),
    ] {
        let error = refusal("describe:well-behaved", &format!("describe:{}", &word[..12])).await.to_string();
        assert!(error.contains("connector hostile") && error.contains(part), "{word}: {error}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
}

#[tokio::test]
async fn an_unknown_import_is_refused_by_name() {
    let error = refusal("wasi:random/", "evil:random/").await;
    assert!(matches!(&error, LoadError::UnknownImport { import, .. } if import.starts_with("evil:random/")), "{error}");
}

#[tokio::test]
async fn damaged_components_are_refused_without_harm() {
    let bytes = std::fs::read(connector("hostile")).unwrap();
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    for cut in (0..bytes.len()).step_by(bytes.len() / 40) {
        assert!(Connector::load(&engine, &"hostile".parse().unwrap(), &bytes[..cut]).await.is_err(), "cut at {cut}");
    }
    assert!(!Path::new("/tmp/hostile").exists());
}
