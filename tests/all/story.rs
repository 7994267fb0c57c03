//! The founding story, as the log tells it: a first run, changes, a reset by the API, and a kill in the middle of a large change.

use std::time::Duration;

use serde_json::Value;
use tidewaiter_tests::{HR, Place, Server, lines};

const DOCUMENT: &str = "repo/synchronisation/pooledSyncStage/SYSTEMHRACCOUNT";

/// The lines of runs since a place in the log: without time, level, run's number and token, which differ from run to run.
fn told(server: &Server, from: usize) -> Vec<String> {
    let (word, value) = (["run=", "token=", "token_in=", "token_out="], |text: &str| text.to_owned());
    let line = |line: &String| {
        let (_, text) = line.split_once("tidewaiter::run: ")?;
        let words = text.split(' ').filter(|part| !part.starts_with(word[0])).map(|part| match part.split_once('=') {
            Some((name @ ("token" | "token_in" | "token_out"), token)) if token != "none" => format!("{name}=TOKEN"),
            Some((name, time)) if time.contains("T") && time.ends_with("Z\"") => format!("{name}=TIME\""),
            _ if part.ends_with("Z\"") => "TIME\"".to_owned(),
            _ => value(part),
        });
        Some(words.collect::<Vec<_>>().join(" "))
    };
    server.log().iter().skip(from).filter_map(line).collect()
}

#[test]
fn the_log_tells_the_founding_story_line_by_line() {
    let place = Place::new();
    place.people("1,ann@x,2026-03-01T08:00:00Z,\n");
    let server = place.serve();
    let post = || {
        let from = server.log().len();
        let answer = server.call("POST", "system?_action=liveSync&source=system/hr/account", &[], "");
        server.wait_for("run ended", from);
        answer
    };

    // First run: no token, so the latest is asked for; sync finds nothing.
    let (status, first) = post();
    assert_eq!((status, &first["_id"]), (200, &"SYSTEMHRACCOUNT".into()));
    let bring_up = |why: &str| {
        [
            format!("getLatestSyncToken called connection=hr type=account trigger=api why=\"no token: {why}\""),
            "getLatestSyncToken returned connection=hr type=account token_type=\"binary\" token=TOKEN".to_owned(),
            "sync called connection=hr type=account trigger=api why=\"token just established\" token=TOKEN".to_owned(),
            "sync returned connection=hr type=account token=none stopped=false".to_owned(),
            "run ended connection=hr type=account outcome=\"ok\" deltas=0 token_in=none token_out=TOKEN".to_owned(),
        ]
    };
    let classes = [
        "objectClasses called connection=hr type=account why=\"the classes are not known\"".to_owned(),
        "objectClasses returned connection=hr type=account classes=1".to_owned(),
    ];
    let expected: Vec<String> = classes.into_iter().chain(bring_up("first run")).collect();
    assert_eq!(told(&server, 0), expected);

    // A row is added, one is changed, one is marked as deleted: exactly those.
    place.people(
        "1,ann@y,2026-03-02T08:00:00Z,\n2,bob@x,2026-03-02T09:00:00Z,\n3,eve@x,2026-03-01T07:00:00Z,2026-03-02T10:00:00Z\n",
    );
    let from = server.log().len();
    assert_eq!(post().0, 200);
    let run = [
        "sync called connection=hr type=account trigger=api why=\"token held\" token=TOKEN",
        "sync returned connection=hr type=account token=TOKEN stopped=false",
        "run ended connection=hr type=account outcome=\"ok\" deltas=3 token_in=TOKEN token_out=TOKEN",
    ];
    assert_eq!(told(&server, from), run);

    // The reset that people's scripts make: the next run asks again, and syncs nothing.
    let from = server.log().len();
    let (status, old) = server.call("DELETE", DOCUMENT, &[], "");
    assert_eq!((status, old["_id"].as_str()), (200, Some("SYSTEMHRACCOUNT")));
    assert_eq!(post().0, 200);
    let mut expected =
        vec!["token reset connection=hr type=account why=\"reset by api first at TIME\" state=\"new\"".to_owned()];
    expected.extend(bring_up("reset by api first at TIME"));
    assert_eq!(told(&server, from), expected);

    let kinds: Vec<String> = place
        .changes()
        .iter()
        .map(|e| format!("{} {}", e["kind"].as_str().unwrap(), e["uid"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(kinds, ["create-or-update 1", "create-or-update 2", "delete 3", "token-reset -"]);
    assert_eq!(server.end().0, 0);
}

/// A server that is in the middle of a large change, of which something is delivered.
fn in_the_middle(rows: u32) -> (Place, Server) {
    let place = Place::new();
    place.write("connections/hr.toml", &format!("{HR}every = \"100ms\"\n"));
    place.write("tidewaiter.toml", "[sinks]\nout = { type = \"ndjson\", path = \"out.ndjson\" }\n");
    place.people("0,z@x,2026-03-01T00:00:00Z,\n");
    let server = place.serve();
    server.wait_for("run ended", 0);
    place.people(&tidewaiter_tests::rows(1..=rows, 2026));
    while std::fs::metadata(place.path("out.ndjson")).unwrap().len() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    (place, server)
}

fn uids(entries: &[Value]) -> Vec<u32> {
    entries.iter().map(|entry| entry["uid"].as_str().unwrap().parse().unwrap()).collect()
}

/// Starts a server again, and looks at what is there when it has caught up.
fn exactly_once_after_all(place: &Place, rows: u32) {
    let server = place.serve();
    server.wait_for("outcome=\"ok\"", 0);
    assert_eq!(server.end().0, 0);
    let all: Vec<u32> = (1..=rows).collect();
    assert!(uids(&place.changes()) == all, "the journal has something twice, or lost something");
    let mut delivered = uids(&lines(&std::fs::read_to_string(place.path("out.ndjson")).unwrap()));
    delivered.dedup();
    assert!(delivered == all, "the sink has something out of order, or lost something");
}

#[test]
fn a_kill_in_the_middle_of_a_large_change_loses_and_repeats_nothing() {
    let (place, server) = in_the_middle(60_000);
    server.kill();
    let before = uids(&place.changes()).len();
    assert!(before > 0 && before < 60_000, "{before} were journaled");
    exactly_once_after_all(&place, 60_000);
}

#[test]
fn sigint_in_the_middle_of_a_large_change_ends_at_a_checkpoint() {
    let (place, server) = in_the_middle(60_000);
    let (code, log) = server.end_by("INT");
    assert!(log.iter().any(|line| line.contains("SIGINT")) && log.last().unwrap().contains("the log ends"));
    assert!(log.iter().any(|line| line.contains("outcome=\"stopped\"")), "{}", log.join("\n"));
    let delivered = uids(&lines(&std::fs::read_to_string(place.path("out.ndjson")).unwrap()));
    assert_eq!((code, delivered), (0, uids(&place.changes())), "what is journaled is delivered before the end");
    exactly_once_after_all(&place, 60_000);
}
