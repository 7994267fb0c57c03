//! Settings and requests of an update: what doesn't fit it waits for the operator, and what ran before goes on.

use std::fs;

use serde_json::{Value as Json, json};
use tidewaiter_tests::{Place, connector, patched, until};

/// A file of the connector `hostile` that describes itself by a word.
fn save(place: &Place, word: &str) {
    let bytes = fs::read(connector("hostile")).unwrap();
    place.save("hostile", &patched(bytes, "describe:well-behaved", &format!("{:21}", format!("describe:{word}"))));
}

/// With a connection to a source without changes.
fn place(settings: &str) -> Place {
    let place = Place::empty();
    save(&place, "one");
    place.write("people/count", "0");
    place.write("root", "r00t");
    place.write("tidewaiter.toml", "");
    configure(&place, settings);
    place.write("grants/hr.toml", "read = [\"people\"]\nhttp = [\"https://example.org\"]\nreveal = [\"root\"]\n");
    place
}

fn configure(place: &Place, settings: &str) {
    let types = "[types.account]\nclass = \"account\"\nevery = \"100ms\"\n[secrets.root]\nfile = \"root\"\n";
    let settings = format!("{settings}\n[settings]\ndo = \"revised\"\nfolder = \"people\"\n");
    let more = "more = \"https://example.org\"\nmore_folder = \"people\"\nmore_secret = \"root\"\n";
    place.write("connections/hr.toml", &format!("connector = \"hostile\"\n{settings}{more}{types}"));
}

/// What was told, each change by the word of the file that told it.
fn has_told(place: &Place, words: &[&str]) {
    let told = || -> Vec<String> {
        let word = |entry: Json| entry["attributes"]["mail"][0].as_str().unwrap().to_owned();
        place.changes().into_iter().map(word).collect()
    };
    place.write("people/count", &words.len().to_string());
    until(&format!("{words:?}"), || told().len() >= words.len());
    assert_eq!(told(), words);
}

fn is_live(place: &Place) {
    until("a first token", || place.run("token get hr account --json").json()["state"] == "live");
}

fn shown(place: &Place) -> Json {
    place.run("connections show hr --json").json()
}

#[test]
fn settings_are_what_the_connector_says_before_anything_runs() {
    let place = Place::new();
    let written = |settings: &str| {
        let types = "[types.account]\nclass = \"account\"\n";
        place.write("connections/hr.toml", &format!("connector = \"csv\"\n[settings]\n{settings}\n{types}"));
    };
    written("folder = \"people\"\nuid = 7\nsettle = 0\nupdated_at = \"S3CRET\"");
    let check = place.run("check");
    assert_eq!(check.code, 4, "{check:?}");
    for part in ["hr (csv)", "settings.uid (line 4): ", "'settle' was unexpected"] {
        assert!(check.stdout.contains(part), "{part}: {check:?}");
    }
    assert!(!check.stdout.contains("S3CRET"), "{check:?}");
    let sync = place.run("sync hr account");
    assert!(sync.code == 2 && sync.stderr.contains("settings.uid (line 4): "), "{sync:?}");
    let server = place.serve();
    assert!(place.run("connections list").stdout.contains("settings.uid (line 4): "));
    // It runs once its settings are right.
    written("folder = \"people\"\nuid = \"id\"\nupdated_at = \"updated_at\"");
    place.people("");
    until("a run", || place.run("sync hr account").code == 0);
    assert_eq!(server.end().0, 0);
}

#[test]
fn an_update_makes_its_settings_of_those_that_were_written_for_the_one_before() {
    let place = place("");
    let server = place.serve();
    is_live(&place);
    has_told(&place, &["one"]);
    assert_eq!(shown(&place)["settings"]["two"], Json::Null);

    save(&place, "settings-two");
    server.wait_for("runs from now on", 0);
    has_told(&place, &["one", "settings-two"]);
    let seen = shown(&place);
    assert_eq!((&seen["settings"]["two"], &seen["settings-from"]), (&json!(true), &json!(1)));
    let text = place.run("connections show hr").stdout;
    assert!(text.contains("the connector made these of those that are written, for version 1"), "{text}");
    for count in 2..=3 {
        has_told(&place, &[&["one"][..], &vec!["settings-two"; count]].concat());
    }
    until("the end of the trial", || shown(&place)["revision"]["goes-back-to"].is_null());

    // After a restart it is still known for which version they were written.
    assert_eq!(server.end().0, 0);
    let server = place.serve();
    has_told(&place, &["one", "settings-two", "settings-two", "settings-two", "settings-two"]);
    assert_eq!(place.run("connectors rollback hostile").code, 0);
    has_told(&place, &["one", "settings-two", "settings-two", "settings-two", "settings-two", "one"]);
    assert_eq!(place.run("connectors retry hostile").code, 0);

    // Whoever writes them down as they are by now says so. The one before doesn't know those.
    configure(&place, "settings-version = 2");
    let at = server.wait_for("settings: \"two\" is a required property", 0);
    let wrong = place.run("reload");
    assert!(wrong.code == 2 && wrong.stderr.contains("connection hr: settings: \"two\" is a required"), "{wrong:?}");
    place.write("connections/hr.toml", &{
        let text = fs::read_to_string(place.path("connections/hr.toml")).unwrap();
        text.replace("[settings]\n", "[settings]\ntwo = true\n")
    });
    server.wait_for("what is configured counts", at);
    let seen = shown(&place);
    assert_eq!((&seen["settings"]["two"], &seen["settings-from"]), (&json!(true), &Json::Null));
    let back = place.run("connectors rollback hostile");
    assert!(back.code == 5 && back.stderr.contains("written for version 2 of them, and it has 1"), "{back:?}");
    assert_eq!(server.end().0, 0);
}

#[test]
fn an_update_that_can_do_nothing_with_the_settings_waits_until_they_are_changed() {
    let place = place("");
    let with = |how: &str| {
        let text = fs::read_to_string(place.path("connections/hr.toml")).unwrap();
        let written = text.lines().filter(|line| !line.starts_with("migrates")).collect::<Vec<_>>().join("\n");
        place.write("connections/hr.toml", &written.replace("[settings]", &format!("[settings]\n{how}")));
    };
    let server = place.serve();
    is_live(&place);
    let mut told = vec![];
    for (how, part) in [
        ("traps", "migrate-settings: "),
        ("loops", "5000 ms"),
        ("refuses", "there is no way from 1"),
        ("talks", "migrate-settings: expected "),
        ("forgets", "what it makes of them is not valid: settings: \"two\" is a required property"),
    ] {
        let at = server.log().len();
        with(&format!("migrates = {how:?}"));
        let at = server.wait_for("what is configured counts", at);
        save(&place, "settings-two");
        let refused = server.wait_for("is not run, and what ran before goes on", at);
        assert!(server.log()[refused - 1].contains(part), "{how}: {}", server.log()[refused - 1]);
        told.push("one");
        has_told(&place, &told);
        // So that it is another file.
        save(&place, "one");
        until("no file that waits", || shown(&place)["revision"]["refused"].is_null());
    }
    save(&place, "settings-two");
    server.wait_for("is not run", 0);
    let at = server.log().len();
    with("");
    server.wait_for("runs from now on", at);
    told.push("settings-two");
    has_told(&place, &told);
    assert_eq!(server.end().0, 0);
}

#[test]
fn an_update_that_needs_more_than_was_approved_waits_for_that() {
    let place = place("");
    let server = place.serve();
    is_live(&place);
    has_told(&place, &["one"]);
    save(&place, "needs-more");
    server.wait_for("it needs more than was approved (http {settings.more}, read {settings.more_folder}", 0);
    has_told(&place, &["one", "one"]);
    let seen = shown(&place);
    let id = seen["awaits-approval"].as_str().unwrap().to_owned();
    let awaits = |one: &&Json| one["decision"] == "awaits-approval";
    let awaiting: Vec<&Json> = seen["capabilities"].as_array().unwrap().iter().filter(awaits).collect();
    assert_eq!(awaiting.len(), 3, "{seen}");
    assert_eq!(awaiting[0]["reason"], "to go further");
    let list = place.run("connections list").stdout;
    assert!(list.contains("an earlier file of its connector runs"), "{list}");

    // Also after a restart, and whatever else is tried.
    assert_eq!(server.end().0, 0);
    let server = place.serve();
    assert_eq!(place.run("connectors retry hostile").code, 0);
    has_told(&place, &["one", "one", "one"]);
    assert_eq!(shown(&place)["awaits-approval"], json!(id));
    let other = place.run("connectors approve hostile 00112233");
    assert!(other.code == 5 && other.stderr.contains(&format!("hr: {id}")), "{other:?}");
    let approved = place.run(&format!("connectors approve hostile {id}"));
    assert_eq!(approved.code, 0, "{approved:?}");
    has_told(&place, &["one", "one", "one", "needs-more"]);
    assert_eq!(shown(&place)["awaits-approval"], Json::Null);
    let again = place.run(&format!("connectors approve hostile {id}"));
    assert!(again.code == 5 && again.stderr.contains("nothing awaits approval"), "{again:?}");
    assert_eq!(server.end().0, 0);
}
