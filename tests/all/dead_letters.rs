//! Deltas whose data is at fault: what is journaled beside them, what waits for them, and what becomes of them.

use serde_json::{Value as Json, json};
use tidewaiter_tests::{Ended, Place, connector, patched};

/// A source whose words are in two files, see `tests/hostile/src/faulty.rs`.
fn place(settings: &str, rest: &str) -> Place {
    let place = Place::empty();
    place.install("hostile");
    place.write("tidewaiter.toml", "");
    place.write("grants/bad.toml", "read = [\"people\"]\n");
    configure(&place, settings, rest);
    place.write("people/objects", "");
    place
}

fn configure(place: &Place, settings: &str, rest: &str) {
    place.write(
        "connections/bad.toml",
        &format!(
            "connector = \"hostile\"\ndata-faults = \"dead-letter\"\n[settings]\ndo = \"faulty\"\nfolder = \"people\"\n{settings}\n\
             [types.account]\nclass = \"account\"\n{rest}"
        ),
    );
}

/// The lines of what happened, which only grow.
fn happens(place: &Place, lines: &str) -> Ended {
    let path = place.path("people/changes");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    place.write("people/changes", &format!("{before}{lines}"));
    place.run("sync bad account --json")
}

/// Of the entries from a place on, uid and mail; an object that is gone has none.
fn said(place: &Place, from: usize) -> Vec<String> {
    let one = |entry: &Json| {
        let mail = entry["attributes"]["mail"][0].as_str().unwrap_or_else(|| entry["kind"].as_str().unwrap());
        format!("{}={mail}", entry["uid"].as_str().unwrap())
    };
    place.changes()[from..].iter().map(one).collect()
}

/// Number, uid, and whether it waits.
fn letters(place: &Place) -> Vec<(u64, String, bool)> {
    let list = place.run("dead-letters list bad --json").json();
    let one = |letter: &Json| {
        (letter["number"].as_u64().unwrap(), letter["uid"].as_str().unwrap().to_owned(), letter["fault"].is_null())
    };
    list.as_array().unwrap().iter().map(one).collect()
}

fn letter(number: u64, uid: &str, waits: bool) -> (u64, String, bool) {
    (number, uid.to_owned(), waits)
}

fn refused(ended: &Ended, code: i32, part: &str) {
    assert!(ended.code == code && ended.stderr.contains(part), "{ended:?}");
}

#[test]
fn a_poison_record_in_the_middle_stops_the_run_or_becomes_a_dead_letter() {
    let place = place("", "");
    let dead_letter = std::fs::read_to_string(place.path("connections/bad.toml")).unwrap();
    place.write("connections/bad.toml", &dead_letter.replace("dead-letter", "fail"));
    refused(&happens(&place, "1,a\n2,b\n3,nan\n4,d\n"), 4, "\"3\": attribute \"number\": its value is no proper real");
    assert_eq!((said(&place, 0), letters(&place)), (vec!["1=a".into(), "2=b".into()], vec![]), "up to the checkpoint");
    place.write("connections/bad.toml", &dead_letter);
    let report = happens(&place, "").json();
    assert_eq!((&report["deltas"], &report["dead_letters"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(report["token_out"], json!({ "integer": 4 }), "{report}");
    assert_eq!((said(&place, 2), letters(&place)), (vec!["4=d".into()], vec![letter(1, "3", false)]));
    assert_eq!(happens(&place, "5,e\n").json()["dead_letters"], 0, "it is told once");
    assert_eq!(said(&place, 3), ["5=e"]);
    let list = place.run("connections list").stdout;
    assert!(list.contains("live, never reconciled, 1 dead letter "), "{list}");
    let show = place.run("dead-letters show 1").stdout;
    let audit = std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
    assert!(audit.contains(r#""event":"read""#) && audit.contains("dead letter 1"), "who reads one is written down");
    for part in [
        "bad/account",
        "account 3",
        "create-or-update",
        "its value is no proper real",
        "in run 2",
        r#""number":["***"]"#,
    ] {
        assert!(show.contains(part), "no {part} in {show}");
    }
    refused(&place.run("dead-letters show 2"), 3, "there is no dead letter 2");
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn what_comes_after_a_dead_letter_waits_and_is_told_in_order_once_that_is_given_up() {
    let place = place("", "");
    assert_eq!(happens(&place, "1,a\n2,nan\n3,c\n2,b\n2,c\n4,d\n").code, 0);
    assert_eq!(said(&place, 0), ["1=a", "3=c", "4=d"]);
    let held = [letter(1, "2", false), letter(2, "2", true), letter(3, "2", true)];
    assert_eq!(letters(&place), held);
    refused(&place.run("dead-letters drop 3"), 5, "only waits");
    // Of a later run, too.
    assert_eq!(happens(&place, "2,gone\n5,e\n").code, 0);
    assert_eq!(said(&place, 3), ["5=e"]);
    let dropped = place.run("dead-letters drop 1 --json").json();
    assert_eq!(dropped, json!({ "settled": [1], "released": [2, 3, 4] }));
    assert_eq!((said(&place, 4), letters(&place)), (vec!["2=b".into(), "2=c".into(), "2=delete".into()], vec![]));
    assert_eq!(happens(&place, "2,again\n").code, 0);
    assert_eq!(said(&place, 7), ["2=again"], "nothing waits any more");
    refused(&place.run("dead-letters drop 1"), 3, "there is no dead letter 1");
    let audit = std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
    assert!(audit.contains(r#""act":"dead-letters drop","on":"bad/account 1""#), "{audit}");
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn an_object_that_was_renamed_waits_under_all_its_uids() {
    let place = place("", "");
    assert_eq!(happens(&place, "1,a\n1,nan\n2,b,1\n2,c\n3,d,2\n4,e\n2,new\n").code, 0);
    assert_eq!(said(&place, 0), ["1=a", "4=e"]);
    assert_eq!(letters(&place).len(), 5);
    assert_eq!(place.run("dead-letters drop 1").code, 0);
    assert_eq!(said(&place, 2), ["2=b", "2=c", "3=d", "2=new"]);
    let renamed: Vec<Json> = place.changes()[2..].iter().map(|entry| entry["previous-uid"].clone()).collect();
    assert_eq!(renamed, [json!("1"), Json::Null, json!("2"), Json::Null]);
}

#[test]
fn a_retry_tells_the_object_as_it_is_now_and_is_done_with_all_that_is_kept_of_it() {
    let place = place("", "");
    assert_eq!(happens(&place, "1,a\n2,nan\n2,b\n3,huge\n4,nan\n5,e\n").code, 0);
    let show = place.run("dead-letters show 3").stdout;
    assert!(show.contains("more than the 1048576 of an object") && show.contains("too large to be kept"), "{show}");
    place.write("people/objects", "1,a\n2,now\n3,nan\n");
    assert_eq!(place.run("dead-letters retry 2 --json").json()["settled"], json!([1, 2]), "by any of them");
    refused(&place.run("dead-letters retry 3"), 5, "dead letter 3 is still there: run");
    assert_eq!(place.run("dead-letters retry 4").code, 0);
    assert_eq!(said(&place, 2), ["2=now", "4=delete"], "{:?}", place.changes());
    assert!(place.changes()[2..].iter().all(|entry| entry["read"] == true));
    assert_eq!(letters(&place), [letter(3, "3", false)]);
    assert_eq!(happens(&place, "2,next\n4,next\n3,next\n").code, 0);
    assert_eq!((said(&place, 4), letters(&place).len()), (vec!["2=next".into(), "4=next".into()], 2));
}

#[test]
fn where_no_object_is_read_by_its_uid_what_came_is_told_if_it_is_fine_by_now() {
    let place = place("", "");
    let component = std::fs::read(connector("hostile")).unwrap();
    let component = patched(component, "describe:well-behaved", "describe:only-sync   ");
    std::fs::write(place.path("connectors/hostile.wasm"), component).unwrap();
    assert_eq!(happens(&place, "1,salary\n2,salary\n2,b\n3,huge\n").code, 0);
    refused(&place.run("dead-letters retry 1"), 5, "attribute \"salary\" is not declared");
    // The source says what that is.
    configure(&place, "salary = true", "");
    assert_eq!(place.run("dead-letters retry 1").code, 0);
    let told = place.changes().pop().unwrap();
    assert_eq!(
        (&told["uid"], &told["attributes"]["salary"], &told["read"]),
        (&json!("1"), &json!(["salary"]), &Json::Null)
    );
    refused(&place.run("dead-letters retry 2"), 5, "and 3 is kept of the same object");
    refused(&place.run("dead-letters retry 4"), 5, "too large to be kept");
    assert_eq!(place.changes().len(), 1);
}

#[test]
fn a_reconciliation_leaves_to_live_sync_what_waits() {
    let place = place("", "");
    assert_eq!(happens(&place, "1,a\n2,b\n3,c\n2,nan\n3,nan\n").code, 0);
    place.write("people/objects", "1,a\n3,new\n4,d\n5,nan\n");
    let dry = place.run("reconcile bad account --dry-run --allow-deletes --json").json();
    assert_eq!((&dry["objects"], &dry["left"]), (&json!(1), &json!(2)), "{dry}");
    let pass = place.run("reconcile bad account --allow-deletes --json").json();
    assert_eq!((&pass["new"], &pass["gone"], &pass["left"]), (&json!(1), &json!(0), &json!(2)), "{pass}");
    assert_eq!(said(&place, 3), ["4=d"], "2 isn't told to be gone, nor 3 how it is");
    let held = [letter(1, "2", false), letter(2, "3", false)];
    assert_eq!(letters(&place), held, "what a reading finds at fault keeps nothing of live sync");
    let again = place.run("reconcile bad account");
    assert!(again.stdout.contains("2 objects left out"), "{again:?}");
    assert!(again.stderr.contains("uid=\"5\"") && again.stderr.contains("its value is no proper real"), "{again:?}");
    // What waits would be told after it.
    refused(&place.run("reconcile bad account --uid 3"), 5, "`tidewaiter dead-letters retry 2` reads it");
    assert_eq!(happens(&place, "5,fine\n").code, 0);
    assert_eq!((said(&place, 4), letters(&place)), (vec!["5=fine".into()], held.to_vec()));
}

#[test]
fn by_comparison_an_object_at_fault_is_not_gone_and_is_told_once_it_is_mended() {
    let place = place("compare = true", "");
    let passes = |objects: &str| {
        let before = place.changes().len();
        place.write("people/objects", objects);
        assert_eq!(place.run("sync bad account").code, 0);
        (said(&place, before), letters(&place).len())
    };
    assert_eq!(passes("1,a\n2,nan\n3,c\n"), (vec!["1=a".into(), "3=c".into()], 1));
    assert_eq!(passes("1,a\n2,nan\n3,c\n"), (vec![], 1), "told once");
    assert_eq!(passes("1,a\n2,b\n3,c\n"), (vec!["2=b".into()], 0));
    assert_eq!(passes("1,a\n2,huge\n3,c\n"), (vec![], 1));
    assert_eq!(passes("1,a\n2,b\n3,c\n"), (vec![], 0), "it is as it was");
    assert_eq!(passes("1,a\n2,nan\n"), (vec!["3=delete".into()], 1));
    assert_eq!(passes("1,a\n"), (vec!["2=delete".into()], 0));
    assert_eq!(passes("1,a\n3,nan\n"), (vec![], 1));
    assert_eq!(passes("1,a\n"), (vec![], 0), "it went, and was never told");
    assert_eq!(passes("1,a\n2,nan\n"), (vec![], 1));
    place.write("people/objects", "1,a\n2,d\n");
    assert_eq!(place.run("dead-letters retry 5").code, 0);
    assert_eq!(passes("1,a\n2,d\n"), (vec![], 0), "the retry told it");
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn a_retry_tells_a_rename_as_one_and_all_of_it_or_nothing() {
    let place = place("", "");
    assert_eq!(happens(&place, "1,a\n4,x\n1,nan\n2,b,1\n3,c,2\n").code, 0);
    place.write("people/objects", "3,nan\n");
    refused(&place.run("dead-letters retry 1"), 5, "still there");
    assert_eq!((place.changes().len(), letters(&place).len()), (2, 3), "nothing is told of a part");
    place.write("people/objects", "3,fine\n");
    assert_eq!(place.run("dead-letters retry 2 --json").json()["settled"], json!([1, 2, 3]));
    let told = place.changes();
    assert_eq!(
        (said(&place, 2), &told[2]["previous-uid"], &told[2]["read"]),
        (vec!["3=fine".into()], &json!("1"), &json!(true))
    );
    assert_eq!(letters(&place), []);
}

#[test]
fn what_waited_belongs_to_the_generation_in_which_it_came() {
    let place = place("", "");
    assert_eq!(happens(&place, "1,a\n2,nan\n2,b\n").code, 0);
    assert_eq!(place.run("token set bad account --type integer 0").code, 0);
    assert_eq!(happens(&place, "").code, 0);
    for (number, _, _) in letters(&place).into_iter().filter(|(_, _, waits)| !waits) {
        assert_eq!(place.run(&format!("dead-letters drop {number}")).code, 0);
    }
    let of = |entry: &Json| entry["uid"] == "2";
    let told: Vec<Json> =
        place.changes().into_iter().filter(of).map(|entry| json!([entry["generation"], entry["run"]])).collect();
    assert_eq!(told, [json!([0, 1]), json!([1, 2])], "once in each");
}

#[test]
fn what_is_erased_is_gone_under_every_name_that_a_dead_letter_knows() {
    for (lines, uid, entries) in [("1,a\n1,nan\n2,b,1\n3,c\n", "2", 3), ("1,a\n2,b,1\n2,nan\n2,c\n3,d\n", "1", 4)] {
        let place = place("", "");
        assert_eq!(happens(&place, lines).code, 0);
        assert_eq!(place.run(&format!("erase bad --uid {uid} --json")).json(), entries, "{lines}");
        let left: Vec<Json> = place.changes().into_iter().filter(|entry| entry["kind"] != "erased").collect();
        assert_eq!((left.len(), &left[0]["uid"], letters(&place).len()), (1, &json!("3"), 0), "{lines}");
    }
}

#[test]
fn what_is_kept_waits_for_the_token_as_what_is_journaled_does() {
    let place = place("at-once = true", "");
    // More than is held in memory before a token covers it.
    let big: String = (10..20).map(|uid| format!("{uid},big\n")).collect();
    let lines = format!("1,nan\n1,a\n{big}2,nan\n");
    configure(&place, "at-once = true", "[limits]\nuncovered-bytes = 8400000\n");
    refused(&happens(&place, &lines), 4, "limit.uncovered-bytes");
    assert_eq!((said(&place, 0), letters(&place)), (vec![], vec![]), "no token, and nothing of it");
    configure(&place, "at-once = true", "");
    let report = happens(&place, "").json();
    assert_eq!((&report["deltas"], &report["dead_letters"]), (&json!(10), &json!(3)), "{report}");
    assert_eq!(letters(&place), [letter(1, "1", false), letter(2, "1", true), letter(3, "2", false)], "in their order");
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn a_flood_of_bad_objects_fills_neither_the_log_nor_the_memory() {
    let place = place("", "");
    place.write("people/objects", &(0..3000).map(|uid| format!("{uid},nan\n")).collect::<String>());
    let flooded = place.run("reconcile bad account --json");
    assert_eq!((&flooded.json()["left"], letters(&place)), (&json!(3000), vec![]));
    let named = flooded.stderr.lines().filter(|line| line.contains("code=\"data-fault\"")).count();
    assert_eq!(named, 1000, "the rest is counted");
}

#[test]
fn so_many_dead_letters_and_no_more() {
    let place = place("", "[limits]\ndead-letters = 2\n");
    refused(
        &happens(&place, "1,nan\n2,nan\n3,c\n4,nan\n5,e\n"),
        4,
        "and 2 of 16777216 bytes may be kept: retry or drop some",
    );
    assert_eq!((said(&place, 0), letters(&place).len()), (vec![], 2), "the batch that has the third is not taken");
    assert_eq!(place.run("dead-letters drop 1").code, 0);
    assert_eq!(happens(&place, "").code, 0);
    assert_eq!((said(&place, 0), letters(&place).len()), (vec!["3=c".into(), "5=e".into()], 2));
}

#[test]
fn what_is_kept_is_copied_encrypted_and_erased() {
    let place = place("", "");
    place.write("key", &"7".repeat(64));
    place.write("tidewaiter.toml", "[encryption]\nkey = { file = \"key\" }\n");
    assert_eq!(happens(&place, "1,nan\n1,unmistakable\n2,nan\n3,b,2\n4,c\n").code, 0);
    assert_eq!(place.run("backup copy").code, 0);
    for file in ["data/tidewaiter.redb", "copy"] {
        let bytes = std::fs::read(place.path(file)).unwrap();
        assert!(!bytes.windows(12).any(|part| part == b"unmistakable"), "{file}");
    }
    assert_eq!(place.run("erase bad --uid 2").code, 0);
    assert_eq!(letters(&place), [letter(1, "1", false), letter(2, "1", true)], "as 3, too");
    assert_eq!(said(&place, 0), ["4=c"]);
    std::fs::remove_file(place.path("data/tidewaiter.redb")).unwrap();
    assert_eq!(place.run("restore copy").code, 0);
    assert_eq!(letters(&place), [letter(1, "1", false), letter(2, "1", true)], "what was erased is in no copy");
    place.write("new", &"8".repeat(64));
    place.write("tidewaiter.toml", "[encryption]\nkey = { file = \"new\" }\nold-keys = [{ file = \"key\" }]\n");
    assert_eq!(place.run("db rekey").code, 0);
    place.write("tidewaiter.toml", "[encryption]\nkey = { file = \"new\" }\n");
    assert_eq!(place.run("dead-letters drop 1 --json").json()["released"], json!([2]));
    assert_eq!(place.run("db check --deep").code, 0);
}

#[test]
fn a_server_goes_on_while_dead_letters_come_and_go() {
    let place = place("", "every = \"100ms\"\n");
    place.write("people/changes", "");
    let server = place.serve();
    let mut seen = server.wait_for("run ended", 0);
    let mut lines = String::new();
    for round in 1..=5 {
        lines.push_str(&format!("1,nan\n1,{round}\n2,{round}\n"));
        place.write("people/changes", &lines);
        seen = server.wait_for("code=\"waits-for-dead-letter\"", seen);
        seen = server.wait_for("deltas=1", seen);
        let number = letters(&place)[0].0;
        assert_eq!(place.run(&format!("dead-letters drop {number}")).code, 0);
    }
    let expected: Vec<String> = (1..=5).flat_map(|round| [format!("2={round}"), format!("1={round}")]).collect();
    assert_eq!(said(&place, 0), expected);
    assert_eq!(letters(&place), []);
    assert!(server.log().iter().any(|line| line.contains("code=\"dead-letter\"") && line.contains("uid=\"1\"")));
    assert_eq!(server.end().0, 0);
}
