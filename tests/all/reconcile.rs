//! Objects that are read again on purpose: all of them, or one, while live sync goes on; and connectors that get it wrong.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use tidewaiter_servers::PostgreSql;
use tidewaiter_tests::sql::{BY_TIME, place, server};
use tidewaiter_tests::web::Authority;
use tidewaiter_tests::{Place, rows};

/// A table with so many people, followed from now on.
fn followed(people: u32, more: &str) -> (PostgreSql, Place) {
    let authority = Authority::new();
    let (server, address) = server(&authority, &["127.0.0.1"]);
    server.run(&format!(
        "INSERT INTO people (id, login, mail) SELECT n, 'p' || n, n || '@x' FROM generate_series(1, {people}) AS n"
    ));
    let place = place(address, &authority, BY_TIME);
    let text = std::fs::read_to_string(place.path("connections/hr.toml")).unwrap();
    place.write("connections/hr.toml", &text.replace("[secrets.password]", &format!("{more}[secrets.password]")));
    assert_eq!(place.run("sync hr account").code, 0);
    assert_eq!(place.changes(), Vec::<Json>::new());
    (server, place)
}

fn token(place: &Place) -> Json {
    place.run("token get hr account --json").json()["token"].clone()
}

#[test]
fn what_a_consumer_lost_comes_again_and_is_marked() {
    let (server, place) = followed(2500, "");
    let before = token(&place);
    let dry = place.run("reconcile hr account --full --dry-run --json").json();
    assert_eq!((&dry["objects"], place.changes().len()), (&2500.into(), 0), "{dry}");
    let full = place.run("reconcile hr account --full --json").json();
    assert_eq!((full["objects"].as_u64(), full["last"]["outcome"].as_str()), (Some(2500), Some("ok")), "{full}");
    let entries = place.changes();
    let uids: BTreeSet<&str> = entries.iter().map(|entry| entry["uid"].as_str().unwrap()).collect();
    assert_eq!((entries.len(), uids.len()), (2500, 2500));
    assert!(entries.iter().all(|entry| entry["read"] == true && entry["kind"] == "create-or-update"));
    assert_eq!(token(&place), before, "live sync is where it was");
    // One, as it is now; and one that is gone.
    server.run("DELETE FROM people WHERE id = 8");
    let mistyped = place.run("reconcile hr account --uid 8");
    assert!(mistyped.code == 3 && mistyped.stderr.contains("no object \"8\"; --gone"), "{mistyped:?}");
    assert_eq!(place.changes().len(), 2500, "a wrong uid deletes nothing");
    for (uid, kind) in [("7", "create-or-update"), ("8 --gone", "delete")] {
        assert_eq!(place.run(&format!("reconcile hr account --uid {uid} --json")).json()["objects"], 1);
        let uid = &uid[..1];
        let entry = place.changes().pop().unwrap();
        assert_eq!((&entry["uid"], &entry["kind"], &entry["read"]), (&uid.into(), &kind.into(), &true.into()));
    }
    // What changes is told as before.
    server.run("UPDATE people SET mail = 'new@x', at = clock_timestamp() WHERE id = 7");
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
    assert!(place.changes().pop().unwrap().get("read").is_none());
    assert_eq!(place.run("db check --deep").code, 0);
    assert_eq!(place.run("erase hr --uid 7 --json").json(), 3, "what was read is erased, too");
}

#[test]
fn live_sync_has_its_turn_between_pages_and_a_kill_leaves_whole_pages() {
    let (server, place) = followed(60_000, "every = \"100ms\"\n");
    let host = place.serve();
    let reading = place.command(&["reconcile", "hr", "account", "--full"]).spawn().unwrap();
    host.wait_for("search returned", 0);
    server.run("UPDATE people SET mail = 'new@x', at = clock_timestamp() WHERE id = 7");
    assert!({ reading }.wait().unwrap().success());
    let entries = place.changes();
    let changed = entries.iter().position(|entry| entry.get("read").is_none()).unwrap();
    assert_eq!(entries[changed]["uid"], "7");
    assert!(changed < entries.len() - 1, "it didn't wait for the end of the pass");
    assert_eq!(entries.iter().filter(|entry| entry["read"] == true).count(), 60_000);

    let seen = host.log().len();
    let mut reading = place.command(&["reconcile", "hr", "account", "--full"]).spawn().unwrap();
    host.wait_for("search returned", host.wait_for("search returned", seen));
    host.kill();
    assert!(!reading.wait().unwrap().success());
    let again = place.changes().len() - entries.len();
    assert!(again > 0 && again < 60_000 && again % 1000 == 0, "{again} entries");
    server.run("UPDATE people SET mail = 'newer@x', at = clock_timestamp() WHERE id = 7");
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn what_can_not_be_read_is_named() {
    let place = Place::new();
    place.people(&rows(1..=2, 2026));
    for (words, code, part) in [
        ("reconcile hr account --full", 2, "connector csv can't read all objects"),
        ("reconcile hr account --uid 1", 2, "connector csv can't read one object by its uid"),
        ("reconcile hr account", 2, "--uid"),
        ("reconcile hr group --full", 3, "there is no object type hr/group"),
    ] {
        let ended = place.run(words);
        assert!(ended.code == code && ended.stderr.contains(part), "{words}: {ended:?}");
    }
}

#[test]
fn connectors_that_read_wrongly_are_contained() {
    let place = Place::new();
    place.install("hostile");
    for (what, how, part) in [
        ("search-changes", "--full", "sync-results.emit outside the call it belongs to"),
        ("search-other", "--uid wanted", "in the place of the one that was asked for"),
        ("search-traps", "--full", "trapped: wasm trap"),
        ("search-stays", "--full", "the position that it was called with"),
        ("search-has-no-end", "--full", "pages in a row without an object"),
        ("search-far", "--full", "a position of 70000 bytes"),
        ("search-loses-the-token", "--full", "the log has been cut"),
    ] {
        let hostile = "connector = \"hostile\"\n[types.account]\nclass = \"account\"\n[settings]\ndo = ";
        place.write("connections/bad.toml", &format!("{hostile}\"{what}\"\n"));
        let ended = place.run(&format!("reconcile bad account {how}"));
        assert!(ended.code == 4 && ended.stderr.contains(part), "{what}: {ended:?}");
    }
    assert_eq!(place.changes(), Vec::<Json>::new(), "a page is journaled as a whole, or not at all");
    let state = place.run("token get bad account --json").json();
    assert_eq!((&state["state"], &state["failures"]), (&"new".into(), &0.into()), "live sync is as it was");
}
