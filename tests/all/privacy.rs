//! What people see, what is kept, and what is forgotten: sensitive attributes, unwanted ones, erased objects.

use serde_json::{Value as Json, json};
use tidewaiter_tests::{HR, Place, lines};

fn person(attributes: &str) -> Place {
    let place = Place::empty();
    place.install("hostile");
    place.write("tidewaiter.toml", "[sinks]\nfile = { type = \"ndjson\", path = \"out.ndjson\" }\n");
    let connection = format!(
        "connector = \"hostile\"\n[settings]\ndo = \"person\"\n[types.account]\nclass = \"account\"\n{attributes}"
    );
    place.write("connections/bad.toml", &connection);
    place
}

fn printed(place: &Place, command: &str) -> Json {
    lines(&place.run(command).stdout)[0]["attributes"].clone()
}

#[test]
fn what_is_sensitive_is_masked_for_people_and_delivered_to_sinks() {
    let place = person("");
    assert_eq!(place.run("sync bad account").code, 0);
    assert_eq!(printed(&place, "changes --json"), json!({ "mail": ["x"], "Number": ["***"] }));
    let shown = json!({ "mail": ["x"], "Number": [7.5] });
    assert_eq!(printed(&place, "changes --json --show-sensitive"), shown);
    let delivered = std::fs::read_to_string(place.path("out.ndjson")).unwrap();
    assert_eq!(lines(&delivered)[0]["attributes"], shown);
    let audit = lines(&std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap());
    let read: Vec<&Json> = audit.iter().filter(|line| line["event"] == "read").map(|line| &line["sensitive"]).collect();
    assert_eq!(read, [&json!(false), &json!(true)], "and it is written down who saw it");
}

#[test]
fn an_attribute_that_is_not_wanted_is_not_kept_whatever_the_connector_hands_over() {
    let place = person("attributes = [\"MAIL\"]\n");
    assert_eq!(place.run("sync bad account").code, 0);
    assert_eq!(printed(&place, "changes --json --show-sensitive"), json!({ "mail": ["x"] }));
}

#[test]
fn a_renamed_object_is_erased_under_all_its_uids() {
    let place = person("");
    place.write(
        "connections/bad.toml",
        "connector = \"hostile\"\n[settings]\ndo = \"rename\"\n[types.account]\nclass = \"account\"\n",
    );
    assert_eq!(place.run("sync bad account").code, 0);
    assert_eq!(place.run("backup copy.redb").code, 0);
    let erased = place.run("erase bad --uid new-uid");
    assert!(erased.code == 0 && erased.stdout.starts_with("2 entries"), "{erased:?}");
    let left: Vec<Json> = place.changes().iter().map(|entry| entry["uid"].clone()).collect();
    assert_eq!(left, [Json::Null, Json::Null, json!("other")]);
    // A copy from before: the list has each of the uids.
    std::fs::remove_file(place.path("data/tidewaiter.redb")).unwrap();
    assert_eq!(place.run("restore copy.redb").code, 0);
    let uids = |place: &Place| -> Vec<Json> { place.changes().iter().map(|entry| entry["uid"].clone()).collect() };
    assert_eq!(uids(&place)[..3], left);
    // And where the list has one of them, as after a crash between two lines, the other is found again.
    let list = std::fs::read_to_string(place.path("data/erased.ndjson")).unwrap();
    place.write("data/erased.ndjson", list.lines().next().unwrap());
    std::fs::remove_file(place.path("data/tidewaiter.redb")).unwrap();
    assert_eq!(place.run("restore copy.redb").code, 0);
    assert_eq!(uids(&place)[..3], left);
    let audit = lines(&std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap());
    assert_eq!(audit.iter().filter(|line| line["act"] == "restore").count(), 2);
    assert_eq!(place.run("audit").code, 0);
    let nothing = place.run("erase bad --uid never-there");
    assert!(
        nothing.code == 0 && nothing.stdout.starts_with("neither the journal nor a dead letter has anything of it"),
        "{nothing:?}"
    );
}

/// Everything in the data folder that has these words.
fn holders(place: &Place, words: &[u8]) -> Vec<String> {
    let has =
        |path: &std::path::Path| std::fs::read(path).unwrap_or_default().windows(words.len()).any(|part| part == words);
    let entries = std::fs::read_dir(place.path("data")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file() && has(path)).map(|path| path.display().to_string()).collect()
}

#[test]
fn an_erased_object_is_gone_from_journal_logs_and_files_and_from_what_is_restored() {
    let place = Place::new();
    let row = |uid: &str, mail: &str, day: u32| format!("{uid},{mail},2026-03-{day:02}T08:00:00Z,\n");
    let (erika, max) = ("erika-4711", "max-4712");
    place.people(&row(max, "m@x", 1));
    assert_eq!(place.run("run --once").code, 0);
    place.people(&(row(max, "m@x", 1) + &row(erika, "erika.mustermann@x", 2)));
    assert_eq!(place.run("run --once").code, 0);
    place.people(&(row(max, "m@y", 3) + &row(erika, "erika.mustermann@y", 4)));
    assert_eq!(place.run("run --once").code, 0);
    // A run that fails, and whose words have the uid.
    place.people(&(row(max, "m@y", 3) + &format!("{erika},erika.mustermann@y,erika-4711 yesterday,\n")));
    assert_eq!(place.run("run --once").code, 4);
    assert!(place.run("connections show hr").stdout.contains("erika-4711"));
    assert_eq!(place.run("backup copy.redb").code, 0);

    assert_eq!(place.run("erase crm --uid x").code, 3, "no such connection");
    let erased = place.run(&format!("erase hr --uid {erika}"));
    assert!(
        erased.code == 0 && erased.stdout.starts_with("2 entries and dead letters say nothing any more"),
        "{erased:?}"
    );
    let kinds = |place: &Place| -> Vec<String> {
        let entries = place.changes();
        entries.iter().map(|entry| format!("{} {}", entry["kind"].as_str().unwrap(), entry["uid"])).collect()
    };
    let after = ["erased null", "create-or-update \"max-4712\"", "erased null"];
    assert_eq!(kinds(&place).len(), 3);
    assert!(kinds(&place).iter().all(|kind| after.contains(&kind.as_str())), "{:?}", kinds(&place));
    let shown = place.run("connections show hr").stdout;
    assert!(!shown.contains("erika") && shown.contains("[erased]"), "{shown}");
    assert_eq!(place.run("db compact").code, 0);
    for words in [&b"erika-4711"[..], b"erika.mustermann"] {
        assert_eq!(holders(&place, words), [""; 0]);
    }
    assert_eq!(place.run("db check --deep").code, 0);

    std::fs::remove_file(place.path("data/tidewaiter.redb")).unwrap();
    assert_eq!(place.run("restore copy.redb").code, 0);
    place.write("tidewaiter.toml", "[sinks]\nfile = { type = \"ndjson\", path = \"out.ndjson\" }\n");
    // The source has forgotten the object too: a new run has nothing to say of it.
    place.people(&row(max, "m@y", 3));
    assert_eq!(place.run("run --once").code, 0);
    let delivered = std::fs::read_to_string(place.path("out.ndjson")).unwrap();
    assert!(delivered.contains("max-4712") && !delivered.contains("erika.mustermann"), "{delivered}");
    let restored = kinds(&place);
    assert_eq!(restored.iter().filter(|kind| *kind == "erased null").count(), 2, "{restored:?}");
    assert!(!restored.iter().any(|kind| kind.contains("erika")), "{restored:?}");
    let shown = place.run("connections show hr").stdout;
    assert!(!shown.contains("erika-4711") && shown.contains("[erased]"), "{shown}");
}

#[test]
fn an_object_that_comes_after_it_was_erased_is_another_matter() {
    let place = Place::new();
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    place.people("1,ann@x,2026-03-01T08:00:00Z,\n2,bob@x,2026-03-01T08:00:00Z,\n");
    let server = place.serve();
    assert_eq!(place.run("sync hr account").code, 0);
    assert_eq!(place.run("erase hr --uid 1 --json").json(), 1);
    // Hired again.
    place.people("1,again@x,2026-03-02T08:00:00Z,\n2,bob@x,2026-03-01T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account --json").json()["deltas"], 1);
    assert_eq!(place.run("erase hr --uid 999 --json").json(), 0, "it never was");
    let is_there = || place.changes().last().unwrap()["attributes"]["mail"][0] == "again@x";
    assert!(is_there());
    server.end();
    let server = place.serve();
    assert!(is_there(), "after a start, too");
    assert_eq!(place.run("erase hr --uid 1 --json").json(), 1, "until it is erased again");
    server.end();
    assert!(!place.changes().iter().any(|entry| entry.to_string().contains("again@x")));
}
