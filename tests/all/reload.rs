//! Connections and what they are granted come, change and go while a server runs; what is wrong changes nothing.

use std::fs;

use serde_json::Value as Json;
use tidewaiter::clock::Clock;
use tidewaiter_tests::{Place, Server, until};

/// A connection of the connector `csv` to a folder.
fn folder(place: &Place, name: &str, rows: &str) {
    place.write(&format!("{name}/people.csv"), &format!("id,mail,updated_at,deleted_at\n{rows}"));
    place.write(&format!("grants/{name}.toml"), &format!("read = [{name:?}]\n"));
    place.write(&format!("connections/{name}.toml"), &connection(name, "every = \"100ms\""));
}

fn connection(folder: &str, more: &str) -> String {
    format!(
        "connector = \"csv\"\n[settings]\nfolder = {folder:?}\nuid = \"id\"\nupdated_at = \"updated_at\"\n\
         deleted_at = \"deleted_at\"\nsettle_ms = 0\n[types.account]\nclass = \"account\"\n{more}\n"
    )
}

fn row(id: u32, minute: u32) -> String {
    format!("{id},{id}@x,2026-03-01T08:{minute:02}:00Z,\n")
}

/// What was told, as `connection/uid`.
fn told(place: &Place) -> Vec<String> {
    let text = |entry: &Json, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let entries = place.changes().into_iter().filter(|entry| !text(entry, "uid").is_empty());
    entries.map(|entry| format!("{}/{}", text(&entry, "connection"), text(&entry, "uid"))).collect()
}

fn has_told(place: &Place, what: &[&str]) {
    until(&format!("{what:?}"), || told(place).len() >= what.len());
    let mut told = told(place);
    told.sort();
    assert_eq!(told, what);
}

fn is_live(place: &Place, name: &str) {
    until("a token", || place.run(&format!("token get {name} account --json")).json()["state"] == "live");
}

/// The line of the log that says what was taken over.
fn taken_over(server: &Server, from: usize) -> (usize, String) {
    let at = server.wait_for("what is configured counts", from);
    (at, server.log()[at - 1].clone())
}

fn hang_up(server: &Server) {
    let killed = std::process::Command::new("kill").args(["-HUP", &server.id().to_string()]).status();
    assert!(killed.unwrap().success());
}

#[test]
fn connections_come_change_and_go_while_a_server_runs() {
    let place = Place::empty();
    place.write("tidewaiter.toml", "");
    folder(&place, "one", &row(1, 1));
    let server = place.serve();
    is_live(&place, "one");

    // One comes, with all that its source has.
    folder(&place, "two", &(row(1, 1) + &row(2, 2)));
    place.write("connections/two.toml", &connection("two", "every = \"100ms\"\ninitial = \"bring-up\""));
    has_told(&place, &["two/1", "two/2"]);

    // One gets another folder, and what it then may not do is not done.
    let (at, line) = taken_over(&server, 0);
    assert!(line.contains("added two"), "{line}");
    place.write("three/people.csv", &format!("id,mail,updated_at,deleted_at\n{}", row(7, 7)));
    place.write("connections/one.toml", &connection("three", "every = \"100ms\"\nfrom = \"beginning\""));
    let (at, line) = taken_over(&server, at);
    assert!(line.contains("changed one (settings, types)"), "{line}");
    until("what is not granted isn't there", || {
        place.run("sync one account").stderr.contains("folder \"three\": No such file")
    });
    place.write("grants/one.toml", "read = [\"three\"]\n");
    let (at, line) = taken_over(&server, at);
    assert!(line.contains("changed one (grants)"), "{line}");
    // Its token is one of the other folder.
    until("a token of other settings", || {
        place.run("sync one account").stderr.contains("the setting folder was changed since it was stored")
    });
    assert_eq!(place.run("token reset one account").code, 0);

    // One goes; what it told and where it is stay.
    fs::remove_file(place.path("grants/two.toml")).unwrap();
    fs::remove_file(place.path("connections/two.toml")).unwrap();
    let (at, line) = taken_over(&server, at);
    assert!(line.contains("removed two"), "{line}");
    let gone = place.run("sync two account");
    assert!(gone.code == 3 && gone.stderr.contains("two"), "{gone:?}");
    place.write("two/people.csv", &format!("id,mail,updated_at,deleted_at\n{}", row(3, 30)));
    // Two files that belong together count together, however they are saved.
    place.write("grants/two.toml", "read = [\"two\"]\n");
    server.wait_for("grants something to a connection that doesn't exist", at);
    place.write("connections/two.toml", &connection("two", "every = \"100ms\""));
    until("what came meanwhile", || told(&place).contains(&"two/3".to_owned()));
    assert_eq!(server.end().0, 0);
}

#[test]
fn what_is_wrong_changes_nothing_and_is_told_with_its_line() {
    let place = Place::empty();
    place.write("tidewaiter.toml", "");
    for name in ["one", "two"] {
        folder(&place, name, &row(1, 1));
    }
    let server = place.serve();
    is_live(&place, "one");
    is_live(&place, "two");

    let as_it_was = fs::read_to_string(place.path("connections/one.toml")).unwrap();
    place.write("connections/two.toml", &connection("two", "every = \"1h\""));
    taken_over(&server, 0);
    let at = server.log().len();
    place.write("connections/one.toml", &as_it_was.replace("class =", "clas ="));
    let at = server.wait_for("is not taken over, and what runs goes on", at);
    assert!(server.log()[at - 1].contains("connections/one.toml"), "{:?}", server.log());
    server.wait_for("clas = ", at);
    let refused = place.run("reload");
    assert!(refused.code == 2 && refused.stderr.contains("line 9") && refused.stderr.contains("clas"), "{refused:?}");

    // Nothing else that was saved with it counts.
    place.write("connections/two.toml", &connection("two", "every = \"100ms\""));
    place.write("two/people.csv", &format!("id,mail,updated_at,deleted_at\n{}{}", row(1, 1), row(2, 2)));
    place.write("one/people.csv", &format!("id,mail,updated_at,deleted_at\n{}{}", row(1, 1), row(2, 2)));
    has_told(&place, &["one/2"]);
    // What a connector can't work with is as wrong as what can't be read.
    let at = server.log().len();
    place.write("connections/one.toml", &as_it_was.replace("folder = \"one\"\n", ""));
    server.wait_for("connection one: settings: \"folder\" is a required property", at);
    let refused = place.run("reload");
    assert!(refused.code == 2 && refused.stderr.contains("\"folder\" is a required"), "{refused:?}");
    let schedule =
        |name: &str| place.run(&format!("connections show {name} --json")).json()["types"][0]["schedule"].clone();
    assert_eq!(schedule("two"), "every 3600 s");
    place.write("connections/one.toml", &as_it_was);
    has_told(&place, &["one/2", "two/2"]);
    assert_eq!(schedule("two"), "every 100 ms");
    assert_eq!(server.end().0, 0);
}

#[test]
fn what_lies_in_the_place_of_a_file_holds_up_nothing() {
    let place = Place::empty();
    place.write("tidewaiter.toml", "");
    folder(&place, "one", &row(1, 1));
    let server = place.serve();
    is_live(&place, "one");
    let said = || place.run("connections list").stderr;
    assert_eq!(said(), "");

    // What an editor leaves is none of ours.
    place.write("connections/.#one.toml", "nonsense");
    let made = std::process::Command::new("mkfifo").arg(place.path("connections/pipe.toml")).status();
    assert!(made.unwrap().success());
    let at = server.wait_for("pipe.toml: it is no regular file", 0);
    until("it is told", || said().contains("pipe.toml: it is no regular file"));
    fs::remove_file(place.path("connections/pipe.toml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", place.path("ceiling.toml")).unwrap();
    let at = server.wait_for("ceiling.toml: it is no regular file", at);
    fs::remove_file(place.path("ceiling.toml")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("ceiling.toml")).unwrap();
    let at = server.wait_for("ceiling.toml: No such file", at);
    fs::remove_file(place.path("ceiling.toml")).unwrap();
    // A folder that is gone may come back, and takes nothing away.
    fs::rename(place.path("connections"), place.path("away")).unwrap();
    fs::remove_file(place.path("grants/one.toml")).unwrap();
    let at = server.wait_for("connections is not there", at);
    fs::rename(place.path("away"), place.path("connections")).unwrap();
    place.write("grants/one.toml", &format!("read = [\"one\"]\n# {}", "x".repeat(1 << 20)));
    let at = server.wait_for("grants/one.toml: it has more than 1048576 bytes", at);
    place.write("grants/one.toml", "read = [\"one\", \"two\"]\n");
    taken_over(&server, at);
    assert_eq!(said(), "");

    // Nothing that is wrong with the host's file, either, and not its end.
    place.write("tidewaiter.toml", "[runs\nbroken");
    until("it is told", || said().contains("tidewaiter.toml: line 1"));
    let since = || said().split_once(": ").unwrap().1[..30].to_owned();
    let first = since();
    place.write("tidewaiter.toml", "[runs]\nbroken = 1");
    until("it is told", || said().contains("tidewaiter.toml: line 2"));
    assert_eq!(since(), first, "nothing counts since then");
    assert_eq!(place.run("connections deny").code, 2);
    fs::remove_file(place.path("tidewaiter.toml")).unwrap();
    assert_eq!(place.run("sync one account").code, 0);
    let made = std::process::Command::new("mkfifo").arg(place.path("tidewaiter.toml")).status();
    assert!(made.unwrap().success());
    until("it is told", || said().contains("tidewaiter.toml: it is no regular file"));
    assert_eq!(server.end().0, 0);
    let none = place.run("connections list");
    assert!(none.code == 2 && none.stderr.contains("no regular file"), "{none:?}");
}

#[test]
fn a_signal_and_a_command_take_over_too_and_say_what_needs_a_restart() {
    let place = Place::empty();
    place.write("tidewaiter.toml", "");
    folder(&place, "one", &row(1, 1));
    let none = place.run("reload");
    assert!(none.code == 2 && none.stderr.contains("no server runs"), "{none:?}");
    let server = place.serve();
    is_live(&place, "one");
    let same = place.run("reload");
    assert!(same.code == 0 && same.stdout == "nothing differs\n", "{same:?}");
    place.write("tidewaiter.toml", "data = \"elsewhere\"\nruns.at-once = 3\nsocket.security = []\n");
    let at = server.wait_for("count after a restart", 0);
    assert!(server.log()[at - 1].contains("data, runs"), "{:?}", server.log());
    // Where the socket is follows from what is written.
    place.write("tidewaiter.toml", "runs.at-once = 3\nsocket.security = []\n");
    let seen = place.run("reload --json").json();
    assert_eq!(seen["after-restart"], serde_json::json!(["runs"]), "{seen}");
    // Who may decide counts at once.
    let refused = place.run("connectors quarantine csv");
    assert!(refused.code == 5 && refused.stderr.contains("may not decide"), "{refused:?}");

    let at = server.log().len();
    hang_up(&server);
    server.wait_for("what is configured counts", at);
    let audit = fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
    assert!(audit.contains("\"host: socket\""), "{audit}");
    place.write("connections/one.toml", &connection("one", "every = \"1h\""));
    until("the audit", || fs::read_to_string(place.path("data/audit.ndjson")).unwrap().contains("changed one (types)"));
    assert_eq!(server.end().0, 0);

    // Also one that is still starting: it compiles for a while.
    fs::remove_dir_all(place.path("data")).unwrap();
    let server = place.start();
    until("its data", || place.path("data/audit.ndjson").exists());
    hang_up(&server);
    server.wait_for("serving", 0);
    assert_eq!(server.end().0, 0);
}

#[test]
fn what_is_taken_away_from_a_connection_ends_its_run_at_once() {
    let place = Place::empty();
    place.install("hostile");
    place.write("tidewaiter.toml", "");
    let types = "[types.account]\nclass = \"account\"\nevery = \"100ms\"\n";
    let settings = "[settings]\ndo = \"endless-host-call\"\nfolder = \"people\"\n";
    let written = format!("connector = \"hostile\"\n{settings}[limits]\ncall-time = \"10m\"\n{types}");
    place.write("connections/hr.toml", &written);
    place.write("grants/hr.toml", "read = [\"people\", \"connectors\"]\n");
    let server = place.serve();
    let at = server.wait_for("sync called", 0);
    // What is given besides waits for the next run.
    place.write("grants/hr.toml", "read = [\"people\", \"connectors\", \"grants\"]\n");
    let (at, _) = taken_over(&server, at);
    let clock = Clock::start();
    place.write("grants/hr.toml", "read = [\"grants\"]\n");
    let at = server.wait_for("run ended", at);
    assert!(clock.moment().0 < 10_000, "it would have slept for an hour");
    assert!(!server.log()[..at - 1].iter().any(|line| line.contains("run ended")), "{:?}", server.log());
    let view = place.run("connections show hr --json").json();
    assert_eq!(view["capabilities"][0]["decision"], "not-granted", "{view}");
    let at = server.wait_for("sync called", at);
    fs::remove_file(place.path("grants/hr.toml")).unwrap();
    server.wait_for("run ended", at);
    let at = server.wait_for("sync called", at);
    fs::remove_file(place.path("connections/hr.toml")).unwrap();
    server.wait_for("removed hr", at);
    until("no connection", || place.run("connections list --json").json().as_array().unwrap().is_empty());
    assert_eq!(server.end().0, 0, "nothing of it runs on");
}
