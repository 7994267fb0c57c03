//! Tokens that no longer mean what they meant: what they depend on was changed.

use serde_json::Value as Json;
use tidewaiter_tests::{HR, Place, patched};

fn connection(place: &Place, folder: &str, more: &str) {
    let text = HR.replace("\"people\"", &format!("\"{folder}\"")).replace("settle_ms = 0", "settle_ms = 1");
    place.write("connections/hr.toml", &format!("{text}{more}"));
}

/// A place whose token is of the folder `people`; there is another one, with older rows.
fn place() -> Place {
    let place = Place::new();
    place.write("grants/hr.toml", "read = [\"people\", \"others\"]\n");
    place.write("others/people.csv", "id,mail,updated_at,deleted_at\n7,old@x,2025-01-01T08:00:00Z,\n");
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account").code, 0);
    place.people("1,b@x,2026-03-02T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account").code, 0);
    place
}

fn state(place: &Place) -> (String, Json) {
    let state = place.run("token get hr account --json").json();
    (state["state"].as_str().unwrap().to_owned(), state["token"].clone())
}

#[test]
fn a_token_is_refused_once_a_setting_that_it_depends_on_is_changed() {
    let place = place();
    let (_, token) = state(&place);
    // Another one may change.
    connection(&place, "people", "");
    place.people("1,c@x,2026-03-03T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
    // What is in the other folder is older than the token: without a word it would be skipped for ever.
    connection(&place, "others", "");
    let refused = place.run("sync hr account");
    assert!(
        refused.code == 4 && refused.stderr.contains("the setting folder was changed since it was stored"),
        "{refused:?}"
    );
    assert_eq!(state(&place).0, "token-lost");
    let told = place.run("token get hr account").stdout;
    assert!(told.contains("refused") && told.contains("the setting folder was changed"), "{told}");
    assert_eq!(place.run("sync hr account").code, 5, "it waits for somebody");
    // Put back, it fits again.
    connection(&place, "people", "");
    assert_eq!(place.run("token rewind hr account").code, 0);
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 0);
    // Who sets a token says that it is right.
    connection(&place, "others", "");
    let text = token["binary"].as_str().unwrap();
    assert_eq!(place.run(&format!("token set hr account --type binary {text}")).code, 0);
    assert_eq!(place.run("sync hr account").code, 0);
    assert_eq!(state(&place).0, "live");
    place.write("others/people.csv", "id,mail,updated_at,deleted_at\n7,new@x,2026-04-01T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
}

#[test]
fn what_becomes_of_a_stale_token_can_be_said_beforehand() {
    let place = place();
    connection(&place, "others", "on-token-lost = \"reconcile\"\n");
    assert_eq!(place.run("sync hr account").code, 4);
    let marker = place.changes().pop().unwrap();
    assert_eq!(marker["kind"], "token-lost");
    assert_eq!(place.run("run --once").code, 0);
    let told: Vec<Json> = place.changes()[2..].iter().map(|entry| entry["uid"].clone()).collect();
    assert!(told.contains(&"7".into()) && told.contains(&"1".into()), "{told:?}: 7 came, and 1 is gone");
    assert_eq!(state(&place).0, "live");
}

#[test]
fn a_version_that_does_not_read_the_format_of_the_token_never_sees_it() {
    let place = place();
    let installed = place.path("connectors/csv.wasm");
    let bytes = std::fs::read(&installed).unwrap();
    let renamed = patched(bytes.clone(), "csv1", "csv2");
    std::fs::write(&installed, renamed).unwrap();
    place.people("1,c@x,2026-03-03T08:00:00Z,\n");
    let before = place.run("sync hr account");
    assert!(
        before.code == 0 && before.stderr.contains("a format that it doesn't read"),
        "what ran before goes on: {before:?}"
    );
    // Where nothing is left to go back to.
    std::fs::remove_dir_all(place.path("data/revisions")).unwrap();
    place.people("1,d@x,2026-03-04T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account").code, 2, "somebody has to say so");
    assert_eq!(place.run("connectors retry csv").code, 0);
    let refused = place.run("sync hr account");
    let why = "the format of the token is none that this version of its connector reads";
    assert!(refused.code == 4 && refused.stderr.contains(why), "{refused:?}");
    assert_eq!(state(&place).0, "token-lost");
    // Put back, it goes on.
    std::fs::write(&installed, bytes).unwrap();
    assert_eq!(place.run("token rewind hr account").code, 0);
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
}
