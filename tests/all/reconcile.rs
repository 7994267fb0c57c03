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

/// The kinds and uids of entries.
fn said(entries: &[Json]) -> Vec<(&str, &str)> {
    entries.iter().map(|entry| (entry["kind"].as_str().unwrap(), entry["uid"].as_str().unwrap_or(""))).collect()
}

#[test]
fn only_what_differs_from_what_was_said_is_journaled() {
    let (server, place) = followed(2500, "");
    let list = place.run("connections list").stdout;
    assert!(list.contains("live, never reconciled"), "{list}");
    let dry = place.run("reconcile hr account --dry-run --json").json();
    assert_eq!((&dry["objects"], &dry["new"], place.changes().len()), (&2500.into(), &2500.into(), 0), "{dry}");
    assert!(place.run("connections list").stdout.contains("never reconciled"), "a dry run is no pass");
    let first = place.run("reconcile hr account --json").json();
    assert_eq!((&first["objects"], &first["pages"]), (&2500.into(), &3.into()), "{first}");
    assert_eq!(said(&place.changes()[..1]), [("create-or-update", "1")]);
    let list = place.run("connections list").stdout;
    assert!(list.contains("live") && !list.contains("never reconciled"), "{list}");
    let again = place.run("reconcile hr account --json").json();
    assert_eq!((&again["objects"], &again["read"]), (&0.into(), &2500.into()), "{again}");
    // What live sync by time can't see: a row that is gone, one that is put in with an old time, and one that is changed without one.
    server.run("DELETE FROM people WHERE id = 3");
    server.run("INSERT INTO people (id, login, mail, at) VALUES (9000, 'late', 'l@x', '2020-01-01')");
    server.run("UPDATE people SET mail = 'silent@x' WHERE id = 4");
    // And what it can.
    server.run("UPDATE people SET mail = 'loud@x', at = clock_timestamp() WHERE id = 5");
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
    let dry = place.run("reconcile hr account --dry-run --json").json();
    let counts = ["new", "changed", "gone", "objects"].map(|name| dry[name].as_u64().unwrap());
    assert_eq!((counts, place.changes().len()), ([1, 1, 1, 3], 2501), "{dry}");
    let text = place.run("reconcile hr account").stdout;
    assert!(text.contains("3 objects journaled of 2500 read (1 new, 1 changed), and 1 gone"), "{text}");
    let entries = place.changes();
    let found: BTreeSet<_> = said(&entries[2501..]).into_iter().collect();
    assert_eq!(found, [("create", "9000"), ("update", "4"), ("delete", "3")].into());
    assert!(entries[2501..].iter().all(|entry| entry.get("read").is_none()), "these are changes");
    assert_eq!(place.run("reconcile hr account --json").json()["objects"], 0);
    assert_eq!(place.run("db check --deep").code, 0);
    // An object that is erased is known no more.
    assert_eq!(place.run("erase hr --uid 4 --json").json(), 2);
    assert_eq!(place.run("reconcile hr account --json").json()["new"], 1);
    // A target that lost all of it is healed by all of it.
    let full = place.run("reconcile hr account --full --json").json();
    assert_eq!((&full["objects"], &full["gone"]), (&2500.into(), &0.into()), "{full}");
}

#[test]
fn a_pass_that_misses_too_much_deletes_nothing_until_that_is_allowed() {
    let (server, place) = followed(20, "[types.account.guard]\nmax-deletes = 2\n\n");
    assert_eq!(place.run("reconcile hr account --json").json()["objects"], 20);
    server.run("DELETE FROM people WHERE id <= 3");
    server.run("UPDATE people SET mail = 'silent@x' WHERE id = 4");
    let ended = place.run("reconcile hr account");
    assert!(ended.code == 5 && ended.stderr.contains("3 deletions in a run, and guard.max-deletes is 2"), "{ended:?}");
    assert_eq!(said(&place.changes()[20..]), [("update", "4")], "what is there is told");
    assert_eq!(place.run("sync hr account").code, 0, "live sync goes on");
    assert_eq!(place.run("reconcile hr account --allow-deletes --json").json()["gone"], 3);
    assert_eq!(place.changes().len(), 24);
    // A source that lost everything is doubted without any guard.
    server.run("TRUNCATE people");
    let ended = place.run("reconcile hr account --full");
    assert!(ended.code == 5 && ended.stderr.contains("the source has no object any more, and had 17"), "{ended:?}");
    assert_eq!(place.changes().len(), 24);
    assert_eq!(place.run("reconcile hr account --allow-deletes --json").json()["gone"], 17);
}

#[test]
fn bringing_up_establishes_the_token_first_and_then_reads() {
    let authority = Authority::new();
    let (server, address) = server(&authority, &["127.0.0.1"]);
    server.run("INSERT INTO people (id, login, mail) SELECT n, 'p' || n, n || '@x' FROM generate_series(1, 1500) AS n");
    let place = place(address, &authority, BY_TIME);
    let up = place.run("connections bring-up hr --json").json();
    assert_eq!((&up[0]["established"]["deltas"], &up[0]["reconciled"]["objects"]), (&0.into(), &1500.into()), "{up}");
    server.run("UPDATE people SET mail = 'new@x', at = clock_timestamp() WHERE id = 7");
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
    let again = place.run("connections bring-up hr").stdout;
    assert!(again.contains("0 objects journaled of 1500 read"), "{again}");
    // The same, without a word, for a new type that says so.
    let text = std::fs::read_to_string(place.path("connections/hr.toml")).unwrap();
    let other =
        text.replace("class = \"account\"\n", "class = \"account\"\nevery = \"100ms\"\ninitial = \"bring-up\"\n");
    assert_ne!(text, other);
    place.write("connections/other.toml", &other);
    let grants = std::fs::read_to_string(place.path("grants/hr.toml")).unwrap();
    place.write("grants/other.toml", &grants);
    let host = place.serve();
    host.wait_for("pass ended", 0);
    let of_other = place.changes().iter().filter(|entry| entry["connection"] == "other").count();
    assert_eq!(of_other, 1500);
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
    let odd = std::fs::read_to_string(place.path("connections/hr.toml")).unwrap();
    place.write("connections/odd.toml", &odd.replace("account", "group"));
    place.write("grants/odd.toml", "read = [\"people\"]\n");
    for (words, code, part) in [
        ("reconcile odd group", 2, "odd/group: the source has no class \"group\""),
        ("connections bring-up nobody", 3, "there is no connection nobody"),
        ("reconcile hr account --uid 1", 2, "connector csv can't read one object by its uid"),
        ("reconcile hr account --uid 1 --full", 2, "--full"),
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
