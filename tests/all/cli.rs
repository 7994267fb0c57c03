//! The commands, with a server and without: what they answer, what they end with, and that bad input leaves nothing half done.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use tidewaiter_tests::{HR, Place, patched};

#[test]
fn a_connection_that_can_not_run_keeps_no_other_from_it() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    let connection = |connector: &str, settings: &str| {
        format!("connector = {connector:?}\n[settings]\n{settings}[types.account]\nclass = \"account\"\n")
    };
    place.install("hostile");
    let hostile = std::fs::read(place.path("connectors/hostile.wasm")).unwrap();
    let traps = patched(hostile, "describe:well-behaved", "describe:trap        ");
    std::fs::write(place.path("connectors/hostile.wasm"), traps).unwrap();
    let broken = [
        ("traps", connection("hostile", ""), "describe: trapped"),
        ("gone", connection("nowhere", ""), "nowhere.wasm: No such file"),
        ("unsaid", connection("csv", ""), "settings: \"folder\" is a required property"),
    ];
    for (name, text, _) in &broken {
        place.write(&format!("connections/{name}.toml"), text);
    }
    let check = place.run("check");
    assert!(check.code == 4 && check.stdout.contains("hr"), "{check:?}");
    let once = place.run("run --once");
    assert!(once.code == 2 && once.stdout.contains("hr/account: run 1 ok"), "{once:?}");
    let server = place.serve();
    assert_eq!(place.run("sync hr account").code, 0);
    let list = place.run("connections list").stdout;
    for (name, _, problem) in &broken {
        assert!(check.stdout.contains(problem) && once.stderr.contains(problem), "{problem}: {check:?} {once:?}");
        let refused = place.run(&format!("sync {name} account"));
        assert!(refused.code == 2 && refused.stderr.contains(problem), "{refused:?}");
        assert!(list.contains(&format!("{name}/account can't run: ")), "{list}");
        assert!(server.log().iter().any(|line| line.contains("can't run") && line.contains(problem)), "{problem}");
    }
    assert_eq!(server.end_by("INT").0, 0, "it ends at a checkpoint, and not at once");
}

#[test]
fn commands_own_the_db_where_no_server_runs() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    assert_eq!(place.run("token get hr account --json").json()["state"], "new");
    let first = place.run("run --once");
    assert!(first.code == 0 && first.stdout.contains("hr/account: run 1 ok, 0 changes"), "{first:?}");
    place.people("1,a@y,2026-03-02T08:00:00Z,\n2,b@x,2026-03-02T09:00:00Z,\n");
    let second = place.run("sync hr account --json").json();
    assert_eq!((&second["deltas"], &second["outcome"]), (&2.into(), &"ok".into()));

    let changes = place.changes();
    let uids: Vec<_> = changes.iter().map(|entry| entry["uid"].as_str().unwrap()).collect();
    assert_eq!(uids, ["1", "2"]);
    let after = place.run(&format!("changes --json --after {}", changes[0]["id"].as_str().unwrap()));
    assert_eq!(tidewaiter_tests::lines(&after.stdout), changes[1..]);
    assert_eq!(place.run("changes --limit 1").stdout.lines().count(), 1);

    let before = place.run("token get hr account --json").json();
    let reset = place.run("token reset hr account --json").json();
    assert_eq!(reset["token"], before["token"], "a reset answers what was thrown away");
    let token = before["token"]["binary"].as_str().unwrap();
    assert_eq!(place.run(&format!("token set hr account {token}")).code, 2, "of which type?");
    let set = place.run(&format!("token set hr account {token} --type binary --json")).json();
    assert_eq!((&set["token"], &set["state"]), (&before["token"], &"live".into()));
    let uid = std::fs::metadata(place.path("people")).unwrap().uid();
    assert_eq!(set["changed-by"], format!("uid {uid}"));
    let history = place.run("token history hr account --json").json();
    let states: Vec<_> = history.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["live", "new", "live", "live"]);

    let list = place.run("connections list --json").json();
    assert_eq!((&list[0]["state"], &list[0]["last-run"]["deltas"]), (&"live".into(), &2.into()));
    let shown = place.run("connections show hr");
    for part in ["granted", "read people", "memory-bytes", "268435456", "updated_at"] {
        assert!(shown.stdout.contains(part), "no {part} in {}", shown.stdout);
    }
    let connectors = place.run("connectors list --json").json();
    assert_eq!(connectors[0]["name"], "csv");
    assert_eq!(place.run("connectors inspect connectors/csv.wasm --json").json(), connectors[0]);
}

#[test]
fn commands_ask_the_server_where_one_runs() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    let server = place.serve();
    let socket = std::fs::metadata(place.path("data/tidewaiter.sock")).unwrap();
    assert_eq!(socket.mode() & 0o777, 0o600);
    assert_eq!(place.run("sync hr account").code, 0);
    let place_in_log = server.wait_for("trigger=command", 0);
    place.people("1,a@y,2026-03-02T08:00:00Z,\n");

    let mut follow = place.command(&["changes", "--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(place.run("run --once").code, 0);
    let mut byte = [0; 1];
    let mut line = Vec::new();
    let mut stdout = follow.stdout.take().unwrap();
    while !line.ends_with(b"\n") {
        stdout.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    let entry: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&entry["uid"], &entry["attributes"]["mail"]), (&"1".into(), &serde_json::json!(["a@y"])));
    assert_eq!(place.changes(), [entry]);

    assert_eq!(place.run("token reset hr account").code, 0);
    server.wait_for("reset by uid ", place_in_log);
    assert_eq!(place.run("connections show hr").code, 0);
    let (code, _) = server.end();
    assert_eq!((code, place.path("data/tidewaiter.sock").exists()), (0, false));
    assert_eq!(follow.wait().unwrap().code(), Some(0), "it follows until the server ends");
    // The markers and changes are all there without it, too.
    assert_eq!(place.changes().len(), 2);
}

#[test]
fn a_socket_of_a_dead_server_hinders_nobody() {
    let place = Place::new();
    place.people("");
    place.serve().kill();
    assert!(place.path("data/tidewaiter.sock").exists());
    assert_eq!(place.run("token get hr account").code, 0);
    assert_eq!(place.serve().end().0, 0);
}

#[test]
fn clients_that_are_gone_leave_their_places_to_others() {
    let place = Place::new();
    place.install("hostile");
    let slow = "connector = \"hostile\"\nsettings.do = \"endless-loop\"\n[types.account]\nclass = \"account\"\n";
    place.write("connections/slow.toml", &format!("{slow}[limits]\ncall-time = \"20s\"\n"));
    let server = place.serve();
    // More than there are places.
    for _ in 0..80 {
        let mut client = UnixStream::connect(place.path("data/tidewaiter.sock")).unwrap();
        client.write_all(b"{\"sync\":{\"connection\":\"slow\",\"object_type\":\"account\"}}\n").unwrap();
    }
    server.wait_for("sync called connection=slow", 0);
    assert_eq!(place.run("connections list").code, 0);
    assert!(!server.log().iter().any(|line| line.contains("run ended connection=slow")), "it had to wait for the run");
}

#[test]
fn who_holds_the_data_is_named() {
    let place = Place::new();
    let server = place.serve();
    let second = place.run("serve");
    let named = second.stderr.contains(&format!("in use by process {} (tidewaiter serve)", server.id()));
    assert!(second.code == 5 && named, "{second:?}");
}

#[test]
fn the_socket_answers_nonsense_with_a_reason() {
    let place = Place::new();
    let server = place.serve();
    let ask = |line: &[u8]| {
        let mut stream = UnixStream::connect(place.path("data/tidewaiter.sock")).unwrap();
        // The server may hang up on a line without end before it is all sent.
        let _ = stream.write_all(line);
        let mut byte = [0; 1];
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") && stream.read(&mut byte).unwrap() == 1 {
            answer.extend(byte);
        }
        String::from_utf8(answer).unwrap()
    };
    for nonsense in
        ["\n", "{}\n", "nope\n", "{\"sync\":{\"connection\":\"../x\",\"object_type\":\"a\"}}\n", "\"everything\"\n"]
    {
        let answer = ask(nonsense.as_bytes());
        assert!(answer.contains("bad-request"), "{nonsense:?}: {answer}");
    }
    assert!(ask(&vec![b'x'; 300_000]).contains("more than"), "a line without end");
    assert_eq!(place.run("connections list").code, 0);
    assert_eq!(server.end().0, 0);
}

#[test]
fn bad_input_is_named_and_nothing_is_done() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    let cases: &[(&str, i32, &[&str])] = &[
        ("sync hr robot", 3, &["hr/robot"]),
        ("token get crm account", 3, &["crm/account"]),
        ("connections show crm", 3, &["crm"]),
        ("connectors inspect nope.wasm", 3, &["nope.wasm"]),
        ("connectors inspect tidewaiter.toml", 2, &["tidewaiter.toml", "not a WebAssembly component"]),
        ("sync ../hr account", 2, &["../hr", "not a usable name"]),
        ("changes --after yesterday", 2, &["yesterday"]),
        ("changes --after 00c0ffee00c0ffee-1", 3, &["00c0ffee00c0ffee-1", "not an entry of this journal"]),
        ("token set hr account x --type integer", 2, &["\"x\"", "whole number"]),
        ("token set hr account = --type binary", 2, &["base64"]),
        ("changes --follow", 5, &["no server runs"]),
        ("run", 2, &["--once"]),
        ("dance", 2, &["dance"]),
        ("token get hr account --log =", 2, &["--log"]),
        ("token get hr account --config none.toml", 2, &["none.toml"]),
    ];
    for (words, code, parts) in cases {
        let ended = place.run(words);
        assert_eq!(ended.code, *code, "{words}: {ended:?}");
        assert!(parts.iter().all(|part| ended.stderr.contains(part)), "{words}: {}", ended.stderr);
        assert!(ended.stdout.is_empty() && !ended.stderr.contains("panicked"), "{words}: {ended:?}");
    }
    let state = place.run("token get hr account --json").json();
    assert_eq!((&state["revision"], &state["state"]), (&0.into(), &"new".into()));
    assert_eq!(place.changes(), [0; 0]);
}

#[test]
fn a_bad_configuration_starts_nothing() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("tidewaiter.toml", "dta = \"x\"", &["tidewaiter.toml", "line 1", "dta"]),
        ("tidewaiter.toml", "[http]\nlisten = \"0.0.0.0:1\"", &["tidewaiter.toml", "0.0.0.0:1", "loopback"]),
        ("connections/hr.toml", &HR.replace("uid =", "uuid ="), &[]),
        ("connections/hr.toml", "connector = \"csv\"\n[types]\n", &["hr.toml", "no object type"]),
        ("connections/h r.toml", HR, &["h r.toml", "not a usable name"]),
        (
            "tidewaiter.toml",
            "[sinks]\na = { type = \"ndjson\", path = \"x\" }\nb = { type = \"ndjson\", path = \"people/../x\" }",
            &["sinks a and b", "both write"],
        ),
        ("grants/crm.toml", "read = []", &["crm.toml"]),
        ("grants/hr.toml", "raed = []", &["grants/hr.toml", "line 1", "raed"]),
    ];
    for (file, text, parts) in cases {
        let place = Place::new();
        place.people("1,a@x,2026-03-01T08:00:00Z,\n");
        place.write(file, text);
        let ended = place.run("check");
        // A setting that only the connector knows is found by its own look at the source.
        let code = if parts.is_empty() { 4 } else { 2 };
        assert_eq!(ended.code, code, "{file}: {text}: {ended:?}");
        assert!(parts.iter().all(|part| ended.stderr.contains(part)), "{file}: {text}: {}", ended.stderr);
        if code == 2 {
            let served = place.run("serve");
            assert_eq!(served.code, 2, "{served:?}");
        }
    }
}

#[test]
fn check_knows_the_names_of_attributes() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    place.write("connections/hr.toml", &format!("{HR}attributes = [\"MAIL\", \"mial\"]\n"));
    let check = place.run("check");
    assert!(check.code == 4 && check.stdout.contains("the class has no \"mial\"; it has: "), "{check:?}");
    place.write("connections/hr.toml", &format!("{HR}attributes = [\"MAIL\"]\n"));
    assert_eq!(place.run("check").code, 0);
}

#[test]
fn check_reads_every_secret_and_is_audited_where_something_has_run() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    let secret = "[secrets.bind]\nfile = \"bind\"\n[credentials.api]\ntype = \"bearer\"\nto = [\"https://a.b\"]\n\
                  token = { env = \"TIDEWAITER_NOT_SET\" }\n";
    place.write("connections/hr.toml", &format!("{HR}{secret}"));
    let check = place.run("check");
    for part in ["secrets.bind: the secret from the file", "credentials.api: the secret from the environment variable"]
    {
        assert!(check.code == 4 && check.stdout.contains(part), "{check:?}");
    }
    place.write("connections/hr.toml", HR);
    assert_eq!(place.run("run --once").code, 0);
    assert_eq!(place.run("check").code, 0);
    let audit = std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
    assert_eq!(audit.matches("\"act\":\"check\"").count(), 1, "{audit}");
    place.write("tidewaiter.toml", "encryption.key = { file = \"no-key\" }\n");
    let check = place.run("check");
    assert!(check.code == 2 && check.stderr.contains("encryption: ") && check.stderr.contains("no-key"), "{check:?}");
}

#[test]
fn check_says_the_exact_lines_to_add() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    std::fs::remove_file(place.path("grants/hr.toml")).unwrap();
    let missing = place.run("check --json");
    assert_eq!(missing.code, 4, "{missing:?}");
    let found: serde_json::Value = serde_json::from_str(&missing.stdout).unwrap();
    let add = &found[0]["add"][0];
    std::fs::write(add["file"].as_str().unwrap(), add["lines"].as_str().unwrap()).unwrap();
    let fine = place.run("check");
    assert!(fine.code == 0 && fine.stdout.contains("connection hr (csv 0.1.0): can run"), "{fine:?}");
    assert!(!place.path("data/tidewaiter.redb").exists(), "check touches no db");

    place.write("connections/hr.toml", &HR.replace("\"account\"", "\"robot\""));
    let class = place.run("check");
    assert!(
        class.code == 4 && class.stdout.contains("types.account.class") && class.stdout.contains("robot"),
        "{class:?}"
    );

    place.write("connections/hr.toml", &format!("{HR}cron = \"0 0 12 1 1 * 2020\"\n"));
    let past = place.run("check");
    assert!(past.code == 4 && past.stdout.contains("types.account: cron 0 0 12 1 1 * 2020"), "{past:?}");
}

#[test]
fn a_failed_run_says_why_and_keeps_the_token() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    assert_eq!(place.run("run --once").code, 0);
    let before = place.run("token get hr account --json").json();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n2,b@x,last Tuesday,\n");
    let failed = place.run("run --once");
    assert_eq!(failed.code, 4, "{failed:?}");
    for part in ["hr/account: run", "people.csv", "line 3", "last Tuesday"] {
        assert!(failed.stderr.contains(part), "no {part} in {}", failed.stderr);
    }
    let after = place.run("token get hr account --json").json();
    assert_eq!((&after["token"], &after["failures"]), (&before["token"], &1.into()));
    assert_eq!(place.changes(), [0; 0]);
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let place = Place::new();
    place.people("0,z@x,2026-03-01T00:00:00Z,\n");
    assert_eq!(place.run("run --once").code, 0);
    place.people(&tidewaiter_tests::rows(1..=3000, 2026));
    assert_eq!(place.run("run --once").code, 0);
    let mut changes = place.command(&["changes"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(changes.stdout.take());
    let mut stderr = String::new();
    changes.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((changes.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_server_that_can_not_listen_runs_nothing() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    place.write("connections/hr.toml", &format!("{HR}every = \"100ms\"\n"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place.write("tidewaiter.toml", &format!("http.listen = \"{address}\"\n"));
    let ended = place.run("serve");
    assert!(ended.code == 1 && ended.stderr.contains(&address), "{ended:?}");
    assert_eq!(place.run("token get hr account --json").json()["revision"], 0);
}

#[test]
fn a_run_without_a_server_delivers_to_sinks_before_it_ends() {
    let place = Place::new();
    place.write("tidewaiter.toml", "[sinks]\nout = { type = \"ndjson\", path = \"out/changes.ndjson\" }\n");
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    assert_eq!(place.run("run --once").code, 0);
    place.people("1,a@y,2026-03-02T08:00:00Z,\n");
    assert_eq!(place.run("run --once").code, 0);
    let delivered = std::fs::read_to_string(place.path("out/changes.ndjson")).unwrap();
    assert_eq!(tidewaiter_tests::lines(&delivered), place.changes());
    // The file is moved away, as logs are: what comes then is in a new one, and nothing is in both.
    std::fs::rename(place.path("out/changes.ndjson"), place.path("out/changes.1")).unwrap();
    place.people("1,a@z,2026-03-03T08:00:00Z,\n");
    assert_eq!(place.run("run --once").code, 0);
    let rest = std::fs::read_to_string(place.path("out/changes.ndjson")).unwrap();
    assert_eq!(tidewaiter_tests::lines(&rest), place.changes()[1..]);
}

#[test]
fn a_log_that_nobody_reads_any_more_stops_nothing() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    let mut server = place.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        log.read_line(&mut line).unwrap();
    }
    drop(log);
    let first = place.run("sync hr account");
    let second = place.run("sync hr account");
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(first.code == 0 && second.code == 0, "{first:?} {second:?}");
}
