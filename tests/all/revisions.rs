//! Connectors come, change and go while a host runs: what is saved runs at once, and what fails undoes itself.

use std::time::Duration;

use fastrand::Rng;
use serde_json::Value as Json;
use tidewaiter::clock::Clock;
use tidewaiter_tests::{Place, Server, connector, is_quick, patched, until};

/// A file of the connector `hostile` that does what the word says, and says it with each change.
fn revision(word: &str) -> Vec<u8> {
    let bytes = std::fs::read(connector("hostile")).unwrap();
    let before = "describe:well-behaved";
    patched(bytes, before, &format!("{:width$}", format!("describe:{word}"), width = before.len()))
}

/// Puts a file in the place of the connector, at once.
fn save(place: &Place, word: &str) {
    place.save("hostile", &revision(word));
}

/// The source has so many changes by now.
fn count(place: &Place, count: u64) {
    std::fs::write(place.path("people/new"), count.to_string()).unwrap();
    std::fs::rename(place.path("people/new"), place.path("people/count")).unwrap();
}

/// With connections to a source without changes, each with a schedule.
fn place(connections: &[&str], every: &str) -> Place {
    let place = Place::empty();
    save(&place, "one");
    place.write("people/count", "0");
    place.write("tidewaiter.toml", "");
    for name in connections {
        let types = format!("[types.account]\nclass = \"account\"\nevery = {every:?}\n");
        let settings = "[settings]\ndo = \"revised\"\nfolder = \"people\"\n";
        place.write(&format!("connections/{name}.toml"), &format!("connector = \"hostile\"\n{settings}{types}"));
        place.write(&format!("grants/{name}.toml"), "read = [\"people\"]\n");
    }
    place
}

fn shown(place: &Place, name: &str) -> Json {
    place.run(&format!("connections show {name} --json")).json()
}

/// What a connection told: each change with the word of the revision that told it.
fn told(place: &Place, name: &str) -> Vec<(String, String)> {
    let changes = place.changes().into_iter().filter(|entry| entry["connection"] == name);
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    changes.map(|entry| (text(&entry["uid"]), text(&entry["attributes"]["mail"][0]))).collect()
}

/// Waits until a connection has told so many changes, and sees that each is there once, in order.
fn has_told(place: &Place, name: &str, count: usize) -> Vec<String> {
    until(&format!("change {count} of {name}"), || told(place, name).len() >= count);
    let (uids, words): (Vec<String>, Vec<String>) = told(place, name).into_iter().unzip();
    assert_eq!(uids, (1..=count).map(|number| number.to_string()).collect::<Vec<_>>());
    words
}

fn begun(place: &Place) -> Server {
    let server = place.serve();
    until("a first token", || place.run("token get hr account --json").json()["state"] == "live");
    // That run is over, too.
    server.wait_for("run ended connection=hr", 0);
    server
}

#[test]
fn a_file_that_is_saved_runs_at_once() {
    let place = place(&["hr"], "1h");
    let server = begun(&place);
    count(&place, 2);
    let clock = Clock::start();
    save(&place, "two");
    assert_eq!(has_told(&place, "hr", 2), ["two", "two"]);
    println!("a save ran within {} ms", clock.moment().0);
    let view = shown(&place, "hr");
    let trial = &view["revision"];
    assert_eq!((&trial["passed"]["account"], &trial["passes-at"]), (&1.into(), &3.into()));
    assert_ne!(trial["sha256"], trial["goes-back-to"]);
    // As it is saved by programs that write in place, and in pieces.
    count(&place, 3);
    let bytes = revision("three");
    for part in [bytes.len() / 3, bytes.len() / 2, bytes.len()] {
        std::fs::write(place.path("connectors/hostile.wasm"), &bytes[..part]).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(has_told(&place, "hr", 3)[2], "three");
    // And where the folder goes and comes back.
    std::fs::rename(place.path("connectors"), place.path("away")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(place.run("sync hr account").code, 0, "what runs goes on");
    std::fs::create_dir(place.path("connectors")).unwrap();
    count(&place, 4);
    save(&place, "four");
    assert_eq!(has_told(&place, "hr", 4)[3], "four");
    count(&place, 5);
    save(&place, "five");
    assert_eq!(has_told(&place, "hr", 5)[4], "five");
    // Of two that come at once, the last.
    count(&place, 6);
    save(&place, "six");
    save(&place, "seven");
    assert_eq!(has_told(&place, "hr", 6)[5], "seven");
    assert_eq!(server.end().0, 0);
}

#[test]
fn a_revision_that_fails_on_trial_undoes_itself_and_nothing_is_lost_or_repeated() {
    for word in ["traps", "traps-late", "forgets", "traps-third"] {
        let place = place(&["hr", "other"], "100ms");
        let server = begun(&place);
        count(&place, 1);
        has_told(&place, "hr", 1);
        save(&place, word);
        server.wait_for("runs from now on", 0);
        if word == "traps-third" {
            // It shows only with what comes by and by.
            count(&place, 2);
            assert_eq!(has_told(&place, "hr", 2)[1], word);
        }
        count(&place, 3);
        server.wait_for("went-back", 0);
        for name in ["hr", "other"] {
            let words = has_told(&place, name, 3);
            assert_eq!(words[2], "one", "{word}: {words:?}");
        }
        for name in ["hr", "other"] {
            until("a way back", || shown(&place, name)["revision"]["refused"].is_object());
        }
        let view = shown(&place, "hr");
        let refused = &view["revision"]["refused"];
        assert!(refused["why"].as_str().unwrap().contains("of hr/account failed"), "{word}: {view}");
        assert!(view["revision"]["goes-back-to"].is_null(), "{view}");
        assert_eq!(place.run("token get hr account --json").json()["failures"], 0, "it was not the source's, either");
        let list = place.run("connections list").stdout;
        assert!(list.contains("an earlier file of its connector runs") && !list.contains("quarantine"), "{list}");
        let audit = std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
        let runs = audit.lines().filter(|line| line.contains(r#""connection":"hr","connector":"hostile""#));
        assert_eq!(runs.count(), 3, "one, {word}, and back: {audit}");
        assert_eq!(server.end().0, 0);

        // It is known after a restart, and another file is another matter.
        let server = place.serve();
        count(&place, 4);
        assert_eq!(has_told(&place, "hr", 4)[3], "one");
        // Longer than a file takes to be looked at.
        std::thread::sleep(Duration::from_millis(500));
        save(&place, "two");
        server.wait_for("runs from now on", 0);
        // A run that was under way then tells what is there by the file before, still.
        let is_told = |number: usize| {
            count(&place, number as u64);
            has_told(&place, "hr", number)[number - 1] == "two"
        };
        assert!((5..8).any(is_told), "{word}");
        let (_, log) = server.end();
        assert!(!log.iter().any(|line| line.contains("went-back")), "{word}: {log:#?}");
    }
}

#[test]
fn a_revision_that_does_not_read_the_token_is_not_run() {
    let place = place(&["hr"], "100ms");
    save(&place, "format-1");
    let server = begun(&place);
    count(&place, 1);
    has_told(&place, "hr", 1);
    save(&place, "format-2");
    server.wait_for("the token of hr/account has a format that it doesn't read", 0);
    count(&place, 2);
    assert_eq!(has_told(&place, "hr", 2), ["format-1", "format-1"]);
    let text = place.run("connections show hr").stdout;
    assert!(text.contains("a newer file is not run since"), "{text}");
    assert_eq!(server.end().0, 0);
    // A restart decides as it was decided.
    let server = place.serve();
    count(&place, 3);
    assert_eq!(has_told(&place, "hr", 3)[2], "format-1");
    assert_eq!(server.end().0, 0);
}

#[test]
fn a_connector_that_comes_later_is_run_and_one_that_is_none_is_not() {
    let place = place(&["hr"], "100ms");
    std::fs::remove_file(place.path("connectors/hostile.wasm")).unwrap();
    let server = place.serve();
    let list = place.run("connections list").stdout;
    assert!(list.contains("can't read its connector"), "{list}");
    std::fs::write(place.path("connectors/hostile.wasm"), "no component").unwrap();
    server.wait_for("not a WebAssembly component", 0);
    until("the new reason", || place.run("connections list").stdout.contains("not a WebAssembly component"));
    count(&place, 2);
    save(&place, "one");
    until("a first token", || place.run("token get hr account --json").json()["state"] == "live");
    count(&place, 3);
    until("a change", || !told(&place, "hr").is_empty());
    // What is no component takes nothing away.
    let at = server.log().len();
    std::fs::write(place.path("connectors/hostile.wasm"), "no component").unwrap();
    server.wait_for("revision-refused", at);
    let before = told(&place, "hr").len();
    count(&place, 9);
    until("more changes", || told(&place, "hr").len() > before);
    assert_eq!(server.end().0, 0);
}

#[test]
fn what_was_decided_of_a_file_outlives_restarts_missing_folders_and_lost_copies() {
    let place = place(&["hr"], "100ms");
    let server = begun(&place);
    save(&place, "forgets");
    server.wait_for("went-back", 0);
    let rollback = place.run("connectors rollback hostile");
    assert!(
        rollback.code == 5 && rollback.stderr.contains("known to have run well"),
        "not to what failed: {rollback:?}"
    );
    assert_eq!(server.end().0, 0);
    // The folder comes late.
    std::fs::rename(place.path("connectors"), place.path("away")).unwrap();
    std::fs::create_dir(place.path("connectors")).unwrap();
    let server = place.serve();
    std::fs::remove_dir(place.path("connectors")).unwrap();
    std::fs::rename(place.path("away"), place.path("connectors")).unwrap();
    count(&place, 1);
    assert_eq!(has_told(&place, "hr", 1), ["one"]);
    // A pipe is no connector, and holds nothing up.
    let file = place.path("connectors/hostile.wasm");
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(400));
    let at = server.log().len();
    save(&place, "two");
    server.wait_for("runs from now on", at);
    count(&place, 2);
    assert_eq!(has_told(&place, "hr", 2)[1], "two");
    // On trial it stays, whatever else is in the folder by the next start.
    std::fs::write(&file, "no component").unwrap();
    server.wait_for("not a WebAssembly component", at);
    assert_eq!(server.end().0, 0);
    let server = place.serve();
    count(&place, 3);
    assert_eq!(has_told(&place, "hr", 3)[2], "two");
    assert_eq!(shown(&place, "hr")["revision"]["passed"]["account"], 2);
    save(&place, "traps");
    server.wait_for("went-back", 0);
    assert_eq!(server.end().0, 0);
    // What isn't there can't be run, and what failed isn't run in its place before somebody says so.
    std::fs::remove_dir_all(place.path("data/revisions")).unwrap();
    let server = place.serve();
    let list = place.run("connections list").stdout;
    assert!(list.contains("what ran before is not there") && list.contains("connectors retry hostile"), "{list}");
    save(&place, "three");
    count(&place, 4);
    assert_eq!(has_told(&place, "hr", 4)[3], "three");
    assert_eq!(server.end().0, 0);
}

#[test]
fn an_operator_goes_back_and_on_again_with_a_server_and_without() {
    let place = place(&["hr"], "100ms");
    let server = begun(&place);
    save(&place, "two");
    server.wait_for("runs from now on", 0);
    for number in 1..=4 {
        count(&place, number);
        has_told(&place, "hr", usize::try_from(number).unwrap());
    }
    let on_trial = || shown(&place, "hr")["revision"]["goes-back-to"].clone();
    until("the end of the trial", || on_trial().is_null());
    let history = place.run("connectors history hostile --json").json();
    assert_eq!((history[0]["runs"][0].clone(), history[1]["runs"].clone()), ("hr".into(), serde_json::json!([])));
    let (two, one) = (history[0]["sha256"].as_str().unwrap(), history[1]["sha256"].as_str().unwrap());
    assert_eq!(place.run("connectors rollback hostile").code, 0);
    count(&place, 5);
    assert_eq!(has_told(&place, "hr", 5)[4], "one");
    let text = place.run("connectors history hostile").stdout;
    assert!(text.contains("not run in hr: rolled back by uid"), "{text}");
    assert_eq!(server.end().0, 0);

    // Without a server, by its name, and with a restart in between.
    count(&place, 6);
    assert_eq!(place.run("sync hr account").code, 0);
    assert_eq!(has_told(&place, "hr", 6)[5], "one");
    assert_eq!(place.run("connectors retry hostile").code, 0);
    count(&place, 7);
    assert_eq!(place.run("sync hr account").code, 0);
    assert_eq!(has_told(&place, "hr", 7)[6], "two");
    assert_eq!(shown(&place, "hr")["revision"]["goes-back-to"], one);
    assert_eq!(place.run(&format!("connectors rollback hostile --to {}", &one[..12])).code, 0);
    assert_eq!(place.run(&format!("connectors rollback hostile --to {}", &two[..12])).code, 0);
    count(&place, 8);
    assert_eq!(place.run("sync hr account").code, 0);
    assert_eq!(has_told(&place, "hr", 8)[7], "two");
    for (words, code, why) in [
        ("connectors rollback hostile --to 00", 3, "6 digits are needed"),
        ("connectors rollback nobody", 5, "no connection runs it"),
        ("connectors history nobody", 3, "no file of it was met"),
    ] {
        let refused = place.run(words);
        assert!(refused.code == code && refused.stderr.contains(why), "{refused:?}");
    }
    let audit = std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
    assert!(audit.contains(&format!(r#""act":"connectors rollback","on":"hostile {one}""#)), "{audit}");
}

#[test]
fn a_kill_at_any_instant_of_a_swap_loses_nothing() {
    let place = place(&["hr", "other"], "100ms");
    let (mut seeded, mut number) = (Rng::with_seed(20_261_127), 0);
    let server = begun(&place);
    until("a first token", || place.run("token get other account --json").json()["state"] == "live");
    server.kill();
    let words = ["two", "traps", "three", "traps-late", "forgets"];
    let mut went_back = 0;
    for round in 0..if is_quick() { 6 } else { 40 } {
        let server = place.start();
        for _ in 0..3 {
            number += 3;
            count(&place, number);
            save(&place, words[seeded.usize(..words.len())]);
            std::thread::sleep(Duration::from_millis(seeded.u64(..600)));
        }
        went_back += server.log().iter().filter(|line| line.contains("went-back")).count();
        server.kill();
        for name in ["hr", "other"] {
            let uids: Vec<String> = told(&place, name).into_iter().map(|(uid, _)| uid).collect();
            let expected: Vec<String> = (1..=uids.len()).map(|number| number.to_string()).collect();
            assert_eq!(uids, expected, "round {round}");
        }
    }
    save(&place, "last");
    let server = place.serve();
    for name in ["hr", "other"] {
        has_told(&place, name, usize::try_from(number).unwrap());
    }
    assert_eq!(server.end().0, 0);
    println!("{went_back} times what failed went back");
}
