//! Promises that need a look from outside while things happen. The others are tested where ARCHITECTURE.md says.

use std::sync::Arc;

use tidewaiter::config::Config;
use tidewaiter::host::{Host, Runs};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::Trigger;
use tidewaiter_core::token::SyncToken;
use tidewaiter_tests::{HR, Place};
use tokio::task::JoinSet;

/// One transaction: whoever looks, at whatever instant, finds the token and the deltas that it covers, or neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_has_the_token_and_the_deltas_that_it_covers() {
    let place = Place::new();
    place.install("hostile");
    let endless = "connector = \"hostile\"\nsettings.do = \"endless-changes\"\n[types.account]\nclass = \"account\"\n";
    place.write("connections/hr.toml", endless);
    let config = Config::load(&place.path("tidewaiter.toml")).unwrap();
    let host = Arc::new(Host::start(config, "a test", Runs::WhenAsked).await.unwrap());
    let key = TypeKey { connection: "hr".parse().unwrap(), object_type: "account".parse().unwrap() };
    let mut run = JoinSet::new();
    let (asked, of) = (Arc::clone(&host), key.clone());
    run.spawn(async move { asked.sync(of, Trigger::Command).await.unwrap() });

    // This source's token is the number of its last change.
    let token = || match host.db().state(&key).unwrap().and_then(|state| state.sync.token().cloned()) {
        Some(SyncToken::Integer(number)) => u64::try_from(number).unwrap(),
        _ => 0,
    };
    let mut journal = host.db().watch();
    let mut looks = 0;
    while looks < 200 {
        journal.changed().await.unwrap();
        let before = token();
        // The state is there a moment before the end of the journal is told.
        journal.wait_for(|last| *last >= before).await.unwrap();
        let last =
            host.db().entries(before.saturating_sub(1), 1_000_000).unwrap().last().map_or(0, |entry| entry.id.sequence);
        let after = token();
        assert!(before <= last && last <= after, "tokens {before} and {after} around the journal's end {last}");
        looks += 1;
    }
    host.shutdown().await;
    assert_eq!(token(), host.db().last_sequence());
    run.join_next().await.unwrap().unwrap();
}

/// One run at a time: schedule, API and two kinds of commands ask at once, and the log never shows two runs in one.
#[test]
fn one_run_at_a_time_per_type_whoever_asks() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    place.write("connections/hr.toml", &format!("{HR}every = \"100ms\"\n"));
    let server = place.serve();
    std::thread::scope(|scope| {
        for asker in 0..4 {
            let (place, server) = (&place, &server);
            scope.spawn(move || {
                for _ in 0..10 {
                    match asker % 2 {
                        0 => assert_eq!(place.run("sync hr account").code, 0),
                        _ => assert_eq!(server.call("POST", "system/hr/account?_action=liveSync", &[], "").0, 200),
                    }
                }
            });
        }
    });
    let (code, log) = server.end();
    assert_eq!(code, 0);
    let run = |line: &str| line.split_once(" run=")?.1.split(' ').next()?.parse::<u64>().ok();
    let (mut current, mut ended) = (None, 0);
    for line in log.iter().filter(|line| line.contains("tidewaiter::run")) {
        let Some(number) = run(line) else { continue };
        assert!(current.is_none_or(|current| current == number), "a run within run {current:?}: {line}");
        current = Some(number);
        if line.contains("run ended") {
            (current, ended) = (None, ended + 1);
        }
    }
    assert!(ended >= 10, "{ended} runs for forty that asked, who may share one");
}
