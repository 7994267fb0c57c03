//! Floods that are held, tokens that are lost or taken back, settings that are wrong, connectors that trap again and again: what
//! waits for somebody, and what that somebody can do.

use serde_json::Value as Json;
use tidewaiter_tests::{HR, Place, Server, connector, rows};

/// A place whose type has more to say, with people 1 to 6 journaled.
fn place(more: &str) -> Place {
    let place = Place::new();
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n{more}"));
    place.people(&rows(1..=6, 2026));
    assert_eq!(place.run("sync hr account").code, 0);
    assert_eq!(place.changes().len(), 6);
    place
}

/// The people, of whom the first few are gone.
fn without(gone: u32, year: u32) -> String {
    let left = rows(gone + 1..=6, 2026);
    let marked = rows(1..=gone, year).lines().map(|row| format!("{row}{year}-03-01T00:00:00Z\n")).collect::<String>();
    marked + &left
}

fn state(place: &Place) -> Json {
    place.run("token get hr account --json").json()
}

fn kinds(place: &Place) -> Vec<String> {
    place.changes().iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
}

fn says(place: &Place, words: &str, code: i32, part: &str) {
    let ended = place.run(words);
    assert!(ended.code == code && ended.stderr.contains(part), "{words}: {ended:?}");
}

#[test]
fn an_export_that_lost_its_rows_is_held_until_somebody_decides() {
    let place = place("guard = { max-deletes = 1 }\n");
    let token = state(&place)["token"].clone();
    place.people(&without(3, 2027));
    for _ in 0..2 {
        says(&place, "sync hr account", 5, "3 deletions in a run, and guard.max-deletes is 1");
        assert_eq!(kinds(&place).len(), 6, "nothing of it is journaled");
    }
    let held = state(&place);
    assert_eq!((held["state"].as_str(), &held["token"]), (Some("held"), &token));
    assert!(place.run("connections list").stdout.contains("held"));
    // No schedule runs it either, and the API says why.
    let server = place.serve();
    let (status, body) = server.call("POST", "system/hr/account?_action=liveSync", &[], "");
    assert!(status == 409 && body["message"].as_str().unwrap().contains("3 deletions"), "{status} {body}");
    assert_eq!(place.run("guard release hr account").code, 0);
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 3);
    assert_eq!(server.end().0, 0);
    assert_eq!(kinds(&place)[6..], ["delete", "delete", "delete"]);
    says(&place, "guard release hr account", 5, "hr/account is not held");
    // What was released was that, and not everything from then on.
    place.people(&without(6, 2028));
    says(&place, "sync hr account", 5, "deletions in a run");
    assert_eq!(place.run("guard discard hr account").code, 0);
    let marker = place.changes().pop().unwrap();
    assert_eq!((marker["kind"].as_str(), marker["generation"].as_u64()), (Some("discarded"), Some(1)));
    let report = place.run("sync hr account --json").json();
    assert_eq!((report["deltas"].as_u64(), state(&place)["state"].as_str()), (Some(0), Some("live")));
    assert!(place.run("audit").code == 0);
    let audit = std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
    assert!(audit.contains("guard release") && audit.contains("guard discard"), "who did it is written down");
}

#[test]
fn an_hour_has_a_bound_whatever_the_runs() {
    let place = place("guard = { max-changes = 100, max-changes-per-hour = 10 }\n");
    place.people(&(rows(1..=3, 2027) + &rows(4..=6, 2026)));
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 3);
    place.people(&(rows(1..=3, 2027) + &rows(4..=6, 2028)));
    says(&place, "sync hr account", 5, "12 changes in an hour, and guard.max-changes-per-hour is 10");
    assert_eq!(kinds(&place).len(), 9);
    // Whoever takes the token in hand has decided.
    assert_eq!(place.run("token reset hr account").code, 0);
    assert_eq!(state(&place)["state"], "new");
    assert_eq!(place.run("sync hr account").code, 0);
}

#[test]
fn a_flood_is_held_out_of_origin_too() {
    let place = Place::new();
    place.write("connections/hr.toml", &format!("{HR}guard = {{ max-changes = 5 }}\n"));
    place.people("");
    assert_eq!(place.run("sync hr account").code, 0);
    assert_eq!(state(&place)["state"], "origin");
    place.people(&rows(1..=6, 2026));
    says(&place, "sync hr account", 5, "6 changes in a run");
    assert_eq!((kinds(&place).len(), state(&place)["token"].is_null()), (0, true));
    assert_eq!(place.run("guard release hr account").code, 0);
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 6);
}

#[test]
fn a_token_that_is_taken_back_gives_what_came_after_it_again() {
    let place = place("");
    place.people(&(rows(1..=6, 2026) + "7,g@x,2027-01-01T00:00:00Z,\n"));
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
    let before = state(&place);
    let after = place.run("token rewind hr account --json").json();
    assert_eq!((after["state"].as_str(), after["generation"].as_u64()), (Some("live"), Some(1)));
    assert_ne!(after["token"], before["token"]);
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
    let entries = place.changes();
    assert_eq!(kinds(&place)[6..], ["create-or-update", "token-rewound", "create-or-update"]);
    assert_eq!((&entries[6]["uid"], &entries[8]["uid"]), (&"7".into(), &"7".into()));
    assert_eq!(state(&place)["token"], before["token"]);
    // To a row of the history: the first one, which has everything after it.
    let history = place.run("token history hr account --json").json();
    let first = history.as_array().unwrap().last().unwrap();
    assert_eq!(first["state"], "live");
    says(&place, "token rewind hr account --to 9999", 3, "no token of revision 9999");
    let reset = place.run("token reset hr account --json").json()["revision"].as_u64().unwrap() + 1;
    says(&place, &format!("token rewind hr account --to {reset}"), 3, "that a run can go on from");
    let back = place.run(&format!("token rewind hr account --to {} --json", first["revision"])).json();
    assert_eq!(back["token"], first["token"]);
}

fn hostile(what: &str) -> String {
    format!("connector = \"hostile\"\n[settings]\ndo = \"{what}\"\n[types.account]\nclass = \"account\"\n")
}

/// How many runs of a connection have begun since a place in the log.
fn runs(server: &Server, connection: &str, from: usize) -> usize {
    let of = format!("run ended connection={connection}");
    server.log().iter().skip(from).filter(|line| line.contains(&of)).count()
}

/// Until a connection has run that often.
fn after_runs(server: &Server, connection: &str, count: usize) {
    let mut from = server.log().len();
    for _ in 0..count {
        from = server.wait_for(&format!("run ended connection={connection}"), from);
    }
}

#[test]
fn a_lost_token_begins_anew_where_that_was_said_and_the_journal_says_so() {
    let place = Place::new();
    place.install("hostile");
    place.write("connections/bad.toml", &format!("{}on-token-lost = \"from-latest\"\n", hostile("lose-the-token")));
    says(&place, "sync bad account", 4, "the log has been cut");
    let state = place.run("token get bad account --json").json();
    assert_eq!((state["state"].as_str(), state["generation"].as_u64()), (Some("new"), Some(1)));
    assert!(state["why"].as_str().unwrap().contains("on-token-lost is from-latest"), "{state}");
    let marker = place.changes().pop().unwrap();
    assert_eq!((marker["kind"].as_str(), marker["by"].as_str()), (Some("token-lost"), Some("the host")));
    // The next run asks for the latest one.
    let server = place.serve();
    assert_eq!(place.run("sync bad account").code, 4);
    server.wait_for("getLatestSyncToken called", 0);
    assert_eq!(place.run("token get bad account --json").json()["generation"], 2);
}

#[test]
fn wrong_settings_are_tried_once_and_then_wait() {
    let place = Place::new();
    place.write("connections/hr.toml", &format!("{HR}every = \"100ms\"\n"));
    place.people(&rows(1..=2, 2026));
    place.write(
        "connections/bad.toml",
        &format!("{}every = \"100ms\"\n", HR.replace("uid = \"id\"", "uid = \"number\"")),
    );
    place.write("grants/bad.toml", "read = [\"people\"]\n");
    let server = place.serve();
    server.wait_for("run ended connection=bad", 0);
    after_runs(&server, "hr", 30);
    assert_eq!(runs(&server, "bad", 0), 1, "trying again changes nothing");
    let list = place.run("connections list").stdout;
    assert!(list.contains("its settings are wrong in run") && list.contains("tidewaiter sync bad account"), "{list}");
    assert_eq!(place.run("sync bad account").code, 4, "who asks gets a run");
    assert_eq!(server.end().0, 0);
    place.write("connections/bad.toml", &format!("{HR}every = \"100ms\"\n"));
    let server = place.serve();
    after_runs(&server, "bad", 3);
}

#[test]
fn a_connector_that_traps_is_in_quarantine_and_another_file_of_it_is_not() {
    let place = Place::new();
    place.write("connections/hr.toml", &format!("{HR}every = \"100ms\"\n"));
    place.people(&rows(1..=2, 2026));
    place.install("hostile");
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        place.write(&format!("connections/{name}.toml"), &format!("{}every = \"1s\"\n", hostile("trap-in-the-middle")));
    }
    let server = place.serve();
    server.wait_for("is in quarantine", 0);
    let begun = server.log().len();
    after_runs(&server, "hr", 40);
    let count = |server: &Server, from: usize| names.iter().map(|name| runs(server, name, from)).sum::<usize>();
    assert!(count(&server, begun) <= 4, "but for those that were under way: {}", count(&server, begun));
    assert_eq!(runs(&server, "a", begun) + runs(&server, "b", begun), 0, "nothing begins");
    let list = place.run("connections list").stdout;
    assert!(list.contains("connector hostile is in quarantine"), "{list}");
    assert_eq!(place.run("sync a account").code, 4, "who asks gets a run");
    let (status, body) = server.call("POST", "system/a/account?_action=liveSync", &[], "");
    let why = body["message"].as_str().unwrap();
    assert!(status == 409 && why.contains("hostile is in quarantine"), "a script is a schedule: {status} {body}");
    assert_eq!(server.end().0, 0);

    let server = place.serve();
    after_runs(&server, "hr", 30);
    assert_eq!(count(&server, 0), 1, "it is known after a restart, and one run shows whether it goes on");
    assert_eq!(server.end().0, 0);

    // A section that says nothing makes it another file.
    let mut bytes = std::fs::read(connector("hostile")).unwrap();
    bytes.extend([0, 2, 1, b'x']);
    std::fs::write(place.path("connectors/hostile.wasm"), bytes).unwrap();
    let server = place.serve();
    server.wait_for("is in quarantine", 0);
    assert!(count(&server, 0) >= 5, "all begin anew");
}
