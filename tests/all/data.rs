//! What is kept, what goes, and what comes back: staging, budgets, quotas, consumers, copies, and a look at the data.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use serde_json::Value as Json;
use tidewaiter_tests::{Place, lines};

/// A connection `made` whose connector makes changes up.
fn place(settings: &str, rest: &str) -> Place {
    let place = Place::empty();
    place.install("synthetic");
    place.write("tidewaiter.toml", "");
    connection(&place, settings, rest);
    place
}

fn connection(place: &Place, settings: &str, rest: &str) {
    let types = "[types.account]\nclass = \"account\"\nfrom = \"beginning\"\n";
    let text = format!("connector = \"synthetic\"\n[settings]\n{settings}\n{types}{rest}");
    place.write("connections/made.toml", &text);
}

/// Lets the type run by itself.
fn scheduled(place: &Place, every: &str) {
    let asked = std::fs::read_to_string(place.path("connections/made.toml")).unwrap();
    place.write("connections/made.toml", &asked.replace("from =", &format!("every = \"{every}\"\nfrom =")));
}

fn numbers(changes: &[Json]) -> Vec<i64> {
    changes.iter().filter_map(|change| change["attributes"]["employee-number"][0].as_i64()).collect()
}

fn all(count: i64) -> Vec<i64> {
    (1..=count).collect()
}

#[test]
fn a_run_that_has_spent_its_budget_goes_on_as_another_one() {
    let place = place("last = 5000\nbatch = 100", "[limits]\nrun-deltas = 1500\n");
    let ended = place.run("sync made account");
    assert_eq!(ended.code, 0, "{ended:?}");
    let told: Vec<&str> = ended.stdout.lines().collect();
    // The host goes on by itself; who waits is told of every run.
    let each = ["run 1 ok, more, 1", "run 2 ok, more, 1", "run 3 ok"];
    assert!(each.iter().zip(&told).all(|(begins, line)| line.contains(begins)), "{told:?}");
    assert!(told.last().unwrap().ends_with(" 5000"), "{told:?}");
    assert_eq!(numbers(&place.changes()), all(5000));
    let shown = place.run("connections show made --json").json();
    let runs = shown["runs"].as_array().unwrap();
    let spent = &runs.last().unwrap()["spent"];
    assert!(spent["memory-peak-bytes"].as_u64().unwrap() > 65_536 && spent["cpu-us"].as_u64().unwrap() > 0, "{spent}");
    assert!(runs.iter().map(|run| run["bytes"].as_u64().unwrap()).sum::<u64>() > 5000 * 100);
}

#[test]
fn a_schedule_goes_on_by_itself_when_a_budget_is_spent() {
    let place = place("last = 3000\nbatch = 100", "[limits]\nrun-deltas = 1000\n");
    scheduled(&place, "1h");
    let server = place.serve();
    server.wait_for("trigger=continue", 0);
    server.wait_for("outcome=\"ok\"", 0);
    assert_eq!(numbers(&place.changes()), all(3000));
}

#[test]
fn deltas_that_no_checkpoint_covers_are_staged_and_published_whole() {
    let place = place("last = 150000\nbatch = 1000\ncheckpoint = 0", "");
    let ended = place.run("sync made account --json").json();
    assert_eq!((ended["outcome"].as_str(), ended["deltas"].as_u64()), (Some("ok"), Some(150_000)));
    assert_eq!(numbers(&place.changes()), all(150_000));
    let checked = place.run("db check --deep --json").json();
    assert_eq!(checked["problems"], Json::Array(vec![]));
}

#[test]
fn a_run_that_fails_leaves_nothing_staged() {
    let place = place("last = 3000000\nbatch = 1000\ncheckpoint = 0", "[limits]\nuncovered-bytes = 40000000\n");
    scheduled(&place, "1h");
    let server = place.serve();
    let ended = server.wait_for("run ended connection=made", 0);
    assert!(server.log()[ended - 1].contains("outcome=\"failed\""));
    // It is dropped once the run is over.
    let staged = || place.run("db check --json").json()["staged_bytes"].as_u64().unwrap();
    let left = (0..50).map(|_| staged()).find(|bytes| *bytes == 0);
    assert_eq!(left, Some(0), "{} bytes", staged());
    assert!(place.changes().is_empty());
}

#[test]
fn a_kill_while_deltas_are_staged_leaves_none_of_them() {
    let place = place("last = 2000000\nbatch = 1000\ncheckpoint = 0", "");
    scheduled(&place, "1h");
    let server = place.serve();
    server.wait_for("sync called", 0);
    let data = place.path("data/tidewaiter.redb");
    while std::fs::metadata(&data).unwrap().len() < 4 * 1024 * 1024 {
        std::thread::yield_now();
    }
    let visible = place.changes();
    server.kill();
    assert!(visible.is_empty(), "{} staged deltas were seen", visible.len());
    assert!(place.changes().is_empty());
    connection(&place, "last = 20\nbatch = 7\ncheckpoint = 0", "");
    assert_eq!(place.run("sync made account").code, 0);
    assert_eq!(numbers(&place.changes()), all(20));
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn a_full_journal_holds_runs_until_somebody_has_what_is_in_it() {
    let place = place("last = 1000\nbatch = 100", "");
    place.write("tidewaiter.toml", "[journal]\nmax-bytes = 40000\nmax-connection-bytes = 40000\n");
    let held = place.run("sync made account");
    assert!(held.code == 5 && held.stderr.contains("the journal of connection made holds"), "{held:?}");
    assert!(!held.stderr.contains("uid="), "what comes again is counted, not listed: {held:?}");
    let kept = numbers(&place.changes());
    assert!(!kept.is_empty() && kept == all(i64::try_from(kept.len()).unwrap()), "what was checkpointed stays");
    assert!(place.run("connections list").stdout.contains("held"));
    let shown = place.run("connections show made").stdout;
    assert!(shown.contains(&format!("run 1 held, {} changes", kept.len())), "what it journaled is recorded: {shown}");
    assert!(shown.contains("beyond the 40000 allowed"), "and why it ended: {shown}");
    let again = place.run("sync made account --json");
    assert!(again.code == 5 && again.stdout.contains("\"held\""), "{again:?}");
    assert!(!again.stderr.contains("sync called"), "the connector isn't asked for what has no place");

    scheduled(&place, "200ms");
    let server = place.serve();
    server.wait_for("outcome=\"held\"", 0);
    assert_eq!(place.run("consumers add audit").code, 0);
    let mut seen = Vec::new();
    let mut looks = 0;
    while seen.len() < 1000 {
        looks += 1;
        assert!(looks < 5000, "{} seen:\n{}", seen.len(), server.log().join("\n"));
        let page = place.run("changes --consumer audit --ack --json");
        assert_eq!(page.code, 0, "{page:?}");
        seen.extend(numbers(&lines(&page.stdout)));
    }
    assert_eq!(seen, all(1000), "each once, none left out");
    server.wait_for("dropped entries that everyone has", 0);
    let (code, _) = server.end();
    assert_eq!(code, 0);
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn a_consumer_has_a_place_of_its_own_until_it_is_too_far_behind() {
    let place = place("last = 100\nbatch = 10", "");
    assert_eq!(place.run("consumers list").stdout, "there is no consumer\n");
    assert_eq!(place.run("consumers add audit --max-lag 50").code, 0);
    assert_eq!(place.run("consumers add audit").code, 5);
    assert_eq!(place.run("consumers ack other 3").code, 3);
    assert_eq!(place.run("consumers ack audit 3").code, 5, "there is nothing yet");
    assert_eq!(place.run("consumers add ../x").code, 2);
    let synced = place.run("sync made account");
    assert_eq!(synced.code, 0);
    // Whichever looks first: a command that takes its time does so itself.
    if !synced.stderr.contains("consumer-expired") {
        place.serve().wait_for("consumer-expired", 0);
    }
    let expired = place.run("changes --consumer audit");
    assert!(expired.code == 5 && expired.stderr.contains("consumer audit is expired since"), "{expired:?}");
    assert!(place.run("consumers list").stdout.contains("expired since"));
    assert_eq!(place.run("consumers remove audit").code, 0);
    assert_eq!(place.run("consumers add audit --after 90").code, 0);
    let rest = place.run("changes --consumer audit --json --limit 3");
    assert_eq!(numbers(&lines(&rest.stdout)), [91, 92, 93]);
    let again = place.run("changes --consumer audit --json --limit 3 --ack");
    assert_eq!(again.stdout, rest.stdout, "what was not acknowledged comes again");
    let next = place.run("changes --consumer audit --json --limit 1");
    assert_eq!(numbers(&lines(&next.stdout)), [94]);
}

#[test]
fn a_copy_made_while_a_server_runs_goes_on_elsewhere() {
    let source = place("last = 500\nbatch = 50", "");
    scheduled(&source, "100ms");
    let server = source.serve();
    server.wait_for("outcome=\"ok\"", 0);
    assert_eq!(source.run("consumers add audit").code, 0);
    let backup = source.run("backup copy.redb");
    assert!(backup.code == 0 && backup.stdout.contains("entry 500"), "{backup:?}");
    assert_eq!(source.run("backup copy.redb").code, 1, "a copy is not overwritten");
    server.kill();

    let target = place("last = 510\nbatch = 50", "");
    std::fs::copy(source.path("copy.redb"), target.path("copy.redb")).unwrap();
    let restored = target.run("restore copy.redb");
    assert!(restored.code == 0 && restored.stdout.contains("restored as journal"), "{restored:?}");
    assert_eq!(target.run("restore copy.redb").code, 5, "not over data");
    assert_eq!(target.run("restore nothing.redb").code, 5);
    let taken = source.run("backup copy.redb");
    assert!(
        taken.code == 1 && taken.stderr.contains("can't make") && taken.stderr.contains("File exists"),
        "{taken:?}"
    );
    let mut damaged = std::fs::read(source.path("copy.redb")).unwrap();
    let at = damaged.windows(11).position(|part| part == b"employee-nu").unwrap();
    damaged[at] ^= 1;
    let elsewhere = Place::empty();
    elsewhere.write("tidewaiter.toml", "");
    std::fs::write(elsewhere.path("copy.redb"), damaged).unwrap();
    let refused = elsewhere.run("restore copy.redb");
    assert!(refused.code != 0 && refused.stderr.contains("checksum"), "{refused:?}");
    assert!(!elsewhere.path("data/tidewaiter.redb").exists(), "nothing is there");
    assert_eq!(target.run("sync made account").code, 0);
    let changes = target.changes();
    assert_eq!(numbers(&changes), all(510), "the token went on from where it was");
    assert_eq!(changes[500]["kind"], "restored");
    let list = target.run("consumers list").stdout;
    assert!(list.contains("incarnation-changed: it read the journal"), "{list}");
    let refused = target.run("changes --consumer audit");
    assert!(refused.code == 3 && refused.stderr.contains("incarnation-changed"), "{refused:?}");
    assert_ne!(changes[0]["id"].as_str().unwrap(), source.changes()[0]["id"].as_str().unwrap());
    assert!(target.run("token get made account").stdout.contains("generation 1"));
}

#[test]
fn damage_is_found_and_named() {
    let place = place("last = 2000\nbatch = 100", "");
    assert_eq!(place.run("sync made account").code, 0);
    let fine = place.run("db check --deep");
    assert!(
        fine.code == 0 && fine.stdout.contains("entries 1 to 2000") && fine.stdout.contains("fits together"),
        "{fine:?}"
    );
    assert_eq!(place.run("db compact").code, 0);
    assert_eq!(numbers(&place.changes()), all(2000));
    let server = place.serve();
    let refused = place.run("db compact");
    assert!(refused.code == 5 && refused.stderr.contains("stop it first"), "{refused:?}");
    assert_eq!(place.run("db check --deep").code, 0, "a look is possible while a server runs");
    let file = place.path("data/tidewaiter.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(11).position(|part| part == b"employee-nu").unwrap();
    let on_disk = OpenOptions::new().write(true).open(&file).unwrap();
    on_disk.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    let damaged = place.run("db check --deep");
    assert!(damaged.code == 4 && damaged.stdout.contains("the file's own structure"), "{damaged:?}");
    on_disk.write_all_at(&bytes[at..=at], at as u64).unwrap();
    assert_eq!(place.run("db check --deep").code, 0, "it looks at the file, and not at what the server remembers");
    assert_eq!(server.end().0, 0);
    bytes = std::fs::read(&file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let damaged = place.run("db check --deep");
    assert!(damaged.code == 4 && damaged.stdout.contains("its checksum doesn't match"), "{damaged:?}");
    assert!(damaged.stdout.contains("the file's own structure"), "{damaged:?}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "it is left as it is");
}

#[test]
fn what_is_encrypted_is_not_in_the_files() {
    let place = place("last = 500\nbatch = 100", "");
    let readable = || {
        let bytes = std::fs::read(place.path("data/tidewaiter.redb")).unwrap();
        bytes.windows(11).any(|part| part == b"employee-nu")
    };
    assert_eq!(place.run("sync made account").code, 0);
    assert!(readable(), "in clear, without a key");
    let host = std::fs::read_to_string(place.path("tidewaiter.toml")).unwrap();
    let with = |keys: &str| place.write("tidewaiter.toml", &format!("{host}\n[encryption]\n{keys}\n"));
    place.write("one", &"1".repeat(64));
    place.write("two", &"2".repeat(64));
    with("key = { file = \"one\" }");
    let rekeyed = place.run("db rekey");
    assert!(rekeyed.code == 0 && rekeyed.stdout.contains("everything is encrypted with the key"), "{rekeyed:?}");
    assert_eq!(place.run("db compact").code, 0);
    assert!(!readable(), "encrypted, and the old pages are gone");
    assert_eq!(place.run("db check --deep").code, 0);
    assert_eq!(numbers(&place.changes()), all(500));

    with("key = { file = \"two\" }");
    let lost = place.run("token get made account");
    assert!(lost.code != 0 && lost.stderr.contains("which is not configured"), "{lost:?}");
    assert!(place.run("changes").stderr.contains("which is not configured"));
    with("key = { file = \"two\" }\nold-keys = [{ file = \"one\" }]");
    let server = place.serve();
    assert_eq!(place.run("db rekey").code, 0, "while a server runs");
    assert_eq!(place.run("backup copy.redb").code, 0);
    assert_eq!(server.end().0, 0);
    with("key = { file = \"two\" }");
    assert_eq!(numbers(&place.changes()), all(500));
    std::fs::rename(place.path("data"), place.path("old")).unwrap();
    assert_eq!(place.run("restore copy.redb").code, 0);
    assert_eq!(place.run("changes --json").stdout.lines().count(), 501, "and a marker");

    with("old-keys = [{ file = \"two\" }]");
    let clear = place.run("db rekey");
    assert!(clear.code == 0 && clear.stdout.contains("nothing is encrypted any more"), "{clear:?}");
    assert!(readable());
    place.write("tidewaiter.toml", &host);
    assert_eq!(place.run("changes --json").stdout.lines().count(), 501, "and no key is needed any more");

    with("key = { file = \"two\" }");
    place.write("two", "no key");
    let bad = place.run("token get made account");
    assert!(bad.code == 2 && bad.stderr.contains("openssl rand -base64 32"), "{bad:?}");
}
