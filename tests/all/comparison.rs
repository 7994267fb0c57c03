//! Changes that are found by reading everything and comparing: of a CSV file without times, whatever happens on the way.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tidewaiter_tests::{Ended, Place};

const HR: &str = r#"
connector = "csv"
[types.account]
class = "account"
every = "100ms"
TYPE
[settings]
folder = "people"
file = "people.csv"
uid = "id"
name = "login"
settle_ms = 0
"#;

/// A file without times, of lines like `1,ann,a@x`.
fn place(of_type: &str) -> Place {
    let place = Place::new();
    place.write("connections/hr.toml", &HR.replace("TYPE", of_type));
    place
}

fn people(place: &Place, rows: &str) {
    place.write("people/people.csv", &format!("id,login,mail\n{rows}"));
}

fn sync(place: &Place) -> Vec<(String, String)> {
    let before = place.changes().len();
    let ended = place.run("sync hr account");
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut said = said(&place.changes()[before..]);
    // What is gone is found in no order.
    said.sort_by_key(|(kind, uid)| (kind == "delete").then(|| uid.clone()));
    said
}

fn said(entries: &[Json]) -> Vec<(String, String)> {
    let text = |entry: &Json, name: &str| entry[name].as_str().unwrap_or("").to_owned();
    entries.iter().map(|entry| (text(entry, "kind"), text(entry, "uid"))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(kind, uid)| ((*kind).to_owned(), (*uid).to_owned())).collect()
}

fn refused(ended: &Ended, code: i32, part: &str) {
    assert!(ended.code == code && ended.stderr.contains(part), "{ended:?}");
}

#[test]
fn what_comes_changes_is_renamed_and_goes_is_seen_without_any_time() {
    let place = place("");
    people(&place, "1,ann,a@x\n2,bob,b@x\n3,cid,c@x\n");
    assert_eq!(sync(&place), pairs(&[("create-or-update", "1"), ("create-or-update", "2"), ("create-or-update", "3")]));
    let state = place.run("token get hr account --json").json();
    assert_eq!((&state["state"], &state["token"]), (&"compared".into(), &Json::Null));
    assert_eq!(sync(&place), []);
    people(&place, "4,dan,d@x\n3,cid,new@x\n1,anna,a@x\n");
    assert_eq!(sync(&place), pairs(&[("create", "4"), ("update", "3"), ("update", "1"), ("delete", "2")]));
    assert_eq!(place.changes()[5]["name"], "anna");
    assert_eq!(sync(&place), []);
    // Who comes again is new.
    people(&place, "4,dan,d@x\n3,cid,new@x\n1,anna,a@x\n2,bob,b@x\n");
    assert_eq!(sync(&place), pairs(&[("create", "2")]));
    refused(&place.run("token reset hr account"), 2, "found by comparison, and it has no token");
    assert_eq!(place.run("reconcile hr account --json").json()["objects"], 0, "it is the same pass");
    assert_eq!(place.run("db check --deep").code, 0);
    // A copy knows what it was made of.
    assert_eq!(place.run("backup copy").code, 0);
    people(&place, "4,dan,d@x\n3,cid,new@x\n1,anna,a@x\n");
    assert_eq!(sync(&place), pairs(&[("delete", "2")]));
    std::fs::rename(place.path("data"), place.path("lost")).unwrap();
    assert_eq!(place.run("restore copy").code, 0);
    assert_eq!(sync(&place), pairs(&[("delete", "2")]));
}

#[test]
fn an_empty_answer_deletes_nobody_until_somebody_says_so() {
    let place = place("");
    people(&place, "1,ann,a@x\n2,bob,b@x\n");
    sync(&place);
    people(&place, "");
    refused(&place.run("sync hr account"), 5, "the source has no object any more, and had 2");
    refused(&place.run("sync hr account"), 5, "is held");
    assert_eq!(place.changes().len(), 2);
    // The export is repaired: nothing was lost.
    people(&place, "1,ann,a@x\n2,bob,b@x\n");
    assert_eq!(place.run("guard release hr account").code, 0);
    assert_eq!(sync(&place), []);
    // And one that is right.
    people(&place, "");
    assert_eq!(place.run("sync hr account").code, 5);
    assert_eq!(place.run("guard release hr account").code, 0);
    assert_eq!(sync(&place), pairs(&[("delete", "1"), ("delete", "2")]));
    // The release was for that pass.
    people(&place, "1,ann,a@x\n");
    assert_eq!(sync(&place).len(), 1);
    people(&place, "");
    assert_eq!(place.run("sync hr account").code, 5);
}

#[test]
fn too_many_deletions_are_held_before_the_first_of_them() {
    let place = place("guard = { max-deletes = 1 }");
    people(&place, "1,ann,a@x\n2,bob,b@x\n3,cid,c@x\n");
    sync(&place);
    people(&place, "3,cid,new@x\n");
    refused(&place.run("sync hr account"), 5, "2 deletions in a run, and guard.max-deletes is 1");
    assert_eq!(said(&place.changes()[3..]), pairs(&[("update", "3")]));
    refused(&place.run("guard discard hr account"), 2, "mend the source, then release it");
    assert_eq!(place.run("guard release hr account").code, 0);
    assert_eq!(sync(&place), pairs(&[("delete", "1"), ("delete", "2")]));
}

#[test]
fn what_can_not_be_read_deletes_nobody() {
    let place = place("");
    people(&place, "1,ann,a@x\n2,bob,b@x\n");
    sync(&place);
    for (rows, part) in [
        ("1,ann,a@x\n2,bob\n", "people.csv: line 3: 2 cells, where the header names 3 columns"),
        ("1,ann,a@x\n1,bob,b@x\n", "\"1\" is there twice"),
        ("1,ann,a@x\n2,bob,b@x", "still being written"),
        ("1,ann,a@x\n2,\"bob,b@x\n", "still being written"),
    ] {
        people(&place, rows);
        refused(&place.run("sync hr account"), 4, part);
    }
    std::fs::remove_file(place.path("people/people.csv")).unwrap();
    assert_eq!(place.run("sync hr account").code, 4);
    assert_eq!(place.changes().len(), 2);
    people(&place, "1,ann,a@x\n2,bob,b@x\n");
    assert_eq!(sync(&place), []);
}

#[test]
fn a_kill_in_the_middle_of_a_pass_repeats_nothing_and_loses_nothing() {
    let place = place("");
    let rows: String = (0..200_000).map(|id| format!("{id},p{id},{id}@x\n")).collect();
    people(&place, &rows);
    for kills in 0..3 {
        let host = place.serve();
        host.wait_for("search called", 0);
        std::thread::sleep(std::time::Duration::from_millis(300 * (kills + 1)));
        host.kill();
    }
    assert_eq!(place.run("sync hr account").code, 0);
    let rows: String =
        (1..200_001).map(|id| format!("{id},p{id},{id}@{}\n", if id % 100 == 0 { "y" } else { "x" })).collect();
    people(&place, &rows);
    let host = place.serve();
    host.wait_for("search called", 0);
    std::thread::sleep(std::time::Duration::from_millis(500));
    host.kill();
    assert_eq!(place.run("sync hr account").code, 0);
    let mut is: BTreeMap<String, String> = BTreeMap::new();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for entry in place.changes() {
        let (kind, uid) = (entry["kind"].as_str().unwrap(), entry["uid"].as_str().unwrap());
        let before = match kind {
            "delete" => is.remove(uid),
            _ => is.insert(uid.to_owned(), entry["attributes"].to_string()),
        };
        assert_eq!(before.is_some(), matches!(kind, "delete" | "update"), "{entry}");
        assert_ne!(before.as_ref(), is.get(uid), "said twice: {entry}");
        *kinds.entry(if kind == "create-or-update" { "create" } else { kind }.to_owned()).or_default() += 1;
    }
    assert_eq!(is.len(), 200_000);
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(kinds, [("create", 200_001), ("delete", 1), ("update", 1999)]);
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn a_lost_token_is_followed_by_a_pass_where_that_was_said() {
    let place = Place::new();
    let hr = std::fs::read_to_string(place.path("connections/hr.toml")).unwrap();
    let hr =
        hr.replace("class = \"account\"\n", "class = \"account\"\nevery = \"100ms\"\non-token-lost = \"reconcile\"\n");
    place.write("connections/hr.toml", &hr);
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account").code, 0);
    // What happens until the token is established anew is seen by no token.
    place.people("1,a@x,2026-03-01T08:00:00Z,\n2,b@x,2026-03-02T08:00:00Z,\n");
    assert_eq!(place.run("token set hr account Zm9yZWlnbg==").code, 0);
    let host = place.serve();
    host.wait_for("pass ended", 0);
    let kinds = said(&place.changes());
    assert_eq!(
        kinds,
        pairs(&[("token-set", ""), ("token-lost", ""), ("create-or-update", "1"), ("create-or-update", "2")])
    );
    place.people("1,a@x,2026-03-01T08:00:00Z,\n2,new@x,2026-03-03T08:00:00Z,\n");
    host.wait_for("deltas=1", host.log().len());
    assert_eq!(place.changes().len(), 5);
}

#[test]
fn a_guard_counts_each_deletion_once_however_many_pages_they_take() {
    let place = place("guard = { max-deletes = 2000 }");
    let rows = |from: u32| (from..3000).map(|id| format!("{id},p{id},{id}@x\n")).collect::<String>();
    people(&place, &rows(0));
    sync(&place);
    people(&place, &rows(1500));
    let said = sync(&place);
    assert!(said.len() == 1500 && said.iter().all(|(kind, _)| kind == "delete"), "{}", said.len());
}

#[test]
fn a_pass_that_is_owed_is_made_after_the_token_and_without_a_server_too() {
    let place = Place::new();
    let hr = std::fs::read_to_string(place.path("connections/hr.toml")).unwrap();
    let hr = hr.replace("class = \"account\"\n", "class = \"account\"\ninitial = \"bring-up\"\n");
    place.write("connections/hr.toml", &hr);
    place.people("1,a@x,2026-03-01T08:00:00Z,\n2,b@x,2026-03-01T08:00:00Z,\n");
    // A pass without a token says nothing of what comes before there is one.
    assert_eq!(place.run("reconcile hr account --json").json()["objects"], 2);
    place.people("1,a@x,2026-03-01T08:00:00Z,\n2,new@x,2026-03-02T08:00:00Z,\n");
    let ended = place.run("run --once");
    assert!(ended.code == 0 && ended.stdout.contains("1 object journaled of 2 read (0 new, 1 changed)"), "{ended:?}");
    let ended = place.run("run --once");
    assert!(ended.code == 0 && !ended.stdout.contains("journaled"), "it is owed no more: {ended:?}");
    assert_eq!(place.changes().len(), 3);
}
