//! What machines do to a server: a disk that is full, one that can't be written, a process that is stopped for a while, and guests
//! that take all they can get.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tidewaiter_tests::{HR, Place, Server, is_quick, rows};

fn all(count: u32) -> Vec<String> {
    (1..=count).map(|number| number.to_string()).collect()
}

fn uids(place: &Place) -> Vec<String> {
    place.changes().iter().map(|entry| entry["uid"].as_str().unwrap().to_owned()).collect()
}

fn pid(server: &Server) -> Pid {
    Pid::from_raw(server.id().cast_signed()).unwrap()
}

/// People, read twice a second.
fn place(first: u32) -> Place {
    let place = Place::new();
    place.write("connections/hr.toml", &format!("{HR}every = \"500ms\"\nfrom = \"beginning\"\n"));
    place.people(&rows(1..=first, 2026));
    place
}

fn more_people(place: &Place, rows: &str) {
    place.write("people/more.csv", &format!("id,mail,updated_at,deleted_at\n{rows}"));
}

#[test]
fn a_full_disk_stops_runs_until_there_is_room() {
    let place = place(100);
    assert_eq!(place.run("sync hr account").code, 0);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" serve"]).arg(tidewaiter_tests::program());
    let server = place.start_by(command);
    server.wait_for("outcome=\"ok\"", 0);
    // Files may grow a little beyond the size of this one: to the program this is a disk that is full.
    let size = std::fs::metadata(place.path("data/tidewaiter.redb")).unwrap().len();
    prlimit(Some(pid(&server)), Resource::Fsize, Rlimit { current: Some(size + 32 * 1024), maximum: None }).unwrap();
    more_people(&place, &rows(101..=20_000, 2026));
    let full = server.wait_for("the db could not write", 0);
    let ended = server.wait_for("run ended connection=hr", full);
    assert!(server.log()[ended - 1].contains("outcome=\"failed\""), "{}", server.log()[ended - 1]);
    let again = server.wait_for("the db could not write", ended);
    let there = uids(&place);
    assert!((100..20_000).contains(&there.len()), "{} entries", there.len());
    assert_eq!(there, all(u32::try_from(there.len()).unwrap()), "what is there can be read, up to some checkpoint");

    prlimit(Some(pid(&server)), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    server.wait_for("outcome=\"ok\"", again);
    assert_eq!(server.end().0, 0);
    assert!(uids(&place) == all(20_000), "lost, repeated or moved");
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn a_disk_that_can_not_be_written_is_named_and_left_alone() {
    let place = place(10);
    assert_eq!(place.run("sync hr account").code, 0);
    let before = std::fs::read(place.path("data/tidewaiter.redb")).unwrap();
    let script = "mount --bind data data && mount -o remount,ro,bind data && exec \"$0\" \"$@\"";
    for words in [&["serve"][..], &["sync", "hr", "account"], &["token", "reset", "hr", "account"], &["changes"]] {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(tidewaiter_tests::program()).args(words);
        let ended = command.current_dir(place.path("")).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success(), "{words:?}");
        assert!(said.contains("data/tidewaiter.lock: Read-only file system"), "{words:?}: {said}");
    }
    assert!(std::fs::read(place.path("data/tidewaiter.redb")).unwrap() == before, "it was changed");
    assert_eq!(uids(&place), all(10));
}

#[test]
fn a_process_that_is_stopped_for_a_minute_goes_on_where_it_was() {
    let place = place(10);
    place.install("synthetic");
    let made = "connector = \"synthetic\"\n[settings]\nlast = 600000\n[types.account]\nclass = \"account\"\nfrom = \"beginning\"\n";
    place.write("connections/made.toml", &format!("{made}every = \"1h\"\n[limits]\nrun-deltas = 10000000\n"));
    let server = place.serve();
    server.wait_for("outcome=\"ok\"", 0);
    // In the middle of its run.
    while place.run("db check --json").json()["last"].as_u64().unwrap() < 1000 {}
    kill_process(pid(&server), Signal::STOP).unwrap();
    more_people(&place, &rows(11..=20, 2026));
    std::thread::sleep(Duration::from_secs(if is_quick() { 3 } else { 60 }));
    let stopped = server.log().len();
    assert!(!server.log().iter().any(|line| line.contains("run ended connection=made")), "it was too fast");
    kill_process(pid(&server), Signal::CONT).unwrap();
    server.wait_for("run ended connection=hr", stopped);
    let made = server.wait_for("run ended connection=made", stopped);
    assert!(server.log()[made - 1].contains("outcome=\"ok\""), "{}", server.log()[made - 1]);
    // Missed times are made up for by one run, and then its pace is the old one.
    let seen = server.log().len();
    server.wait_for("run ended connection=hr", seen);
    let (code, log) = server.end();
    assert_eq!(code, 0, "{log:?}");
    let mut by_connection = BTreeMap::<String, Vec<String>>::new();
    for entry in place.changes() {
        let connection = entry["connection"].as_str().unwrap().to_owned();
        by_connection.entry(connection).or_default().push(entry["uid"].as_str().unwrap().to_owned());
    }
    assert_eq!(by_connection["hr"], all(20));
    let made: Vec<String> = (1..=600_000).map(|number| format!("uid-{number}")).collect();
    assert!(by_connection["made"] == made, "the run that was stopped lost, repeated or moved something");
}

#[test]
fn guests_that_take_all_they_can_get_take_nobodys_turn() {
    let place = Place::new();
    place.install("hostile");
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    place.write("connections/hr.toml", &format!("{HR}every = \"100ms\"\n"));
    let ways = [
        ("spins", "endless-loop", "limit.call-time"),
        ("allocates", "memory-hog", "limit.memory-bytes"),
        ("recurses", "deep-recursion", "trap.stack-overflow"),
        ("blocks", "endless-host-call", "limit.call-time"),
    ];
    for (name, what, _) in ways {
        let limits = "[limits]\ncall-time = \"3s\"\nmemory-bytes = 67108864\n";
        let settings = format!("connector = \"hostile\"\n[settings]\ndo = \"{what}\"\n");
        let types = "[types.account]\nclass = \"account\"\nevery = \"200ms\"\n";
        place.write(&format!("connections/{name}.toml"), &format!("{settings}{types}{limits}"));
    }
    let server = place.serve();
    for (name, _, code) in ways {
        let ended = server.wait_for(&format!("run ended connection={name} "), 0);
        let log = server.log();
        let began = log.iter().position(|line| line.contains(&format!("sync called connection={name} "))).unwrap();
        // Whoever takes long has seen the neighbour come and go all the time.
        let beside = log[began..ended].iter().filter(|line| line.contains("run ended connection=hr "));
        let beside: Vec<_> = beside.collect();
        assert!(beside.iter().all(|line| line.contains("outcome=\"ok\"")), "{beside:?}");
        assert!(code != "limit.call-time" || beside.len() >= 10, "{name}: only {} runs beside it", beside.len());
        // And so it goes on.
        let next = server.wait_for("run ended connection=hr ", ended);
        server.wait_for("run ended connection=hr ", next);
        let shown = place.run(&format!("connections show {name}")).stdout;
        assert!(shown.contains(code), "{name}: {shown}");
        assert!(shown.contains("host calls abandoned: 0") == (name != "blocks"), "{name}: {shown}");
    }
    let shown = place.run("connections show allocates --json").json();
    let limits = shown["limits"].as_array().unwrap();
    let memory = limits.iter().find(|limit| limit["name"] == "memory-bytes").unwrap();
    assert!((1 << 20..=64 << 20).contains(&memory["highest"].as_u64().unwrap()), "{memory}");
    let sandbox = shown["sandbox"].as_array().unwrap();
    assert!(sandbox.iter().any(|limit| limit["name"] == "stack-bytes" && limit["value"] == 512 * 1024), "{sandbox:?}");
    assert_eq!(server.end().0, 0);
}
