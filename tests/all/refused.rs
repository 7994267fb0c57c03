//! Entries that a sink's server refuses for what they say: they become dead letters of the sink, and hold up what comes after them of the same
//! object, and nothing else.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value as Json, json};
use tidewaiter::clock::Clock;
use tidewaiter_tests::web::Web;
use tidewaiter_tests::{HR, Place, until};

/// As everybody is at first.
const A: (&str, u32) = ("a", 1);

/// The uids that a server refuses, and the entries that it took.
#[derive(Clone, Debug, Default)]
struct Peer(Arc<Mutex<(HashSet<String>, Vec<Json>)>>);

impl Peer {
    fn refuses(&self, uids: &[&str]) {
        self.0.lock().unwrap().0 = uids.iter().map(|uid| (*uid).to_owned()).collect();
    }

    /// `UID ATTRIBUTE` of what it took.
    fn took(&self) -> Vec<String> {
        let said = |entry: &Json| {
            format!(
                "{} {}",
                entry["uid"].as_str().unwrap_or("-"),
                entry["attributes"]["mail"][0].as_str().unwrap_or("-")
            )
        };
        self.0.lock().unwrap().1.iter().map(said).collect()
    }

    /// Waits until it took these after the first so many.
    fn takes(&self, after: usize, entries: &[&str]) {
        let clock = Clock::start();
        while self.took().get(after..).is_none_or(|took| took != entries) {
            assert!(clock.moment().0 < 30_000, "{entries:?} never came: {:?}", self.took());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A server that refuses a request with an entry that it refuses, whole.
    fn serve(&self) -> Web {
        self.serve_after(Duration::ZERO)
    }

    /// The same, which takes its time.
    fn serve_after(&self, time: Duration) -> Web {
        let peer = self.clone();
        Web::answering(move |seen| {
            std::thread::sleep(time);
            let events: Vec<Json> = serde_json::from_str(&seen.body).unwrap();
            let entries: Vec<Json> = events.iter().map(|event| event["data"].clone()).collect();
            let mut inner = peer.0.lock().unwrap();
            let is_refused = |entry: &Json| inner.0.contains(entry["uid"].as_str().unwrap_or("-"));
            Some(match entries.iter().any(is_refused) {
                true => (StatusCode::UNPROCESSABLE_ENTITY, "no such department").into_response(),
                false => {
                    inner.1.extend(entries);
                    StatusCode::NO_CONTENT.into_response()
                }
            })
        })
    }
}

fn place(web: &Web, more: &str) -> Place {
    let place = Place::new();
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    let hook = format!("[sinks.hook]\ntype = \"webhook\"\nurl = {:?}\ngzip = false\n{more}", web.url("/in"));
    place.write("tidewaiter.toml", &format!("[http]\nlisten = \"127.0.0.1:0\"\n{hook}"));
    place
}

/// People 1 to 5 with these mails, each written on that day, one after the other.
fn people(place: &Place, mails: [(&str, u32); 5]) {
    let row = |(n, (mail, day)): (usize, (&str, u32))| format!("{0},{mail},2026-03-{day:02}T0{0}:00:00Z,\n", n + 1);
    place.people(&mails.into_iter().enumerate().map(row).collect::<String>());
    assert_eq!(place.run("sync hr account").code, 0, "a sink holds up no run");
}

/// Number, uid and what is wrong, of each dead letter.
fn letters(place: &Place) -> Vec<(u64, String, Option<String>)> {
    let letters = place.run("dead-letters list --json").json();
    let letter = |letter: &Json| {
        assert_eq!(letter["sink"], "hook");
        let text = |of: &Json| of.as_str().map(str::to_owned);
        (letter["number"].as_u64().unwrap(), text(&letter["uid"]).unwrap(), text(&letter["fault"]))
    };
    letters.as_array().unwrap().iter().map(letter).collect()
}

#[test]
fn a_refused_entry_holds_up_its_own_object_until_it_is_sent_again() {
    let peer = Peer::default();
    let web = peer.serve();
    peer.refuses(&["3"]);
    let place = place(&web, "max-retries = 1\n");
    // Nobody waits for a server's backoff: it would be counted anew each time.
    people(&place, [A; 5]);
    assert_eq!(letters(&place).len(), 1);
    let server = place.serve();
    until("a dead letter", || !letters(&place).is_empty());
    peer.takes(0, &["1 a", "2 a", "4 a", "5 a"]);
    people(&place, [A, A, ("b", 2), ("b", 2), A]);
    until("what waits", || letters(&place).len() == 2);
    let kept = letters(&place);
    let why = kept[0].2.clone().unwrap();
    assert!(why.ends_with("answers 422 Unprocessable Entity: no such department"), "{why}");
    assert_eq!((kept[1].1.as_str(), &kept[1].2), ("3", &None));
    peer.takes(4, &["4 b"]);

    // Neither a kill nor a server that still refuses changes that.
    server.kill();
    let server = place.serve();
    assert_eq!(letters(&place), kept);
    let (first, second) = (kept[0].0, kept[1].0);
    let refused = place.run(&format!("dead-letters retry {first}"));
    assert!(refused.code == 5 && refused.stderr.contains("no such department"), "{refused:?}");
    for act in ["retry", "drop"] {
        let waits = place.run(&format!("dead-letters {act} {second}"));
        assert!(waits.code == 5 && waits.stderr.contains("only waits"), "{waits:?}");
    }
    assert_eq!(peer.took().len(), 5);
    let sinks = place.run("sinks list --json").json();
    assert_eq!(
        (&sinks[0]["behind"], &sinks[0]["dead-letters"], &sinks[0]["problem"]),
        (&json!(0), &json!(2), &json!(null))
    );
    let shown = place.run(&format!("dead-letters show {first}"));
    assert!(shown.stdout.contains("hook, which hasn't got entry 3"), "{shown:?}");

    peer.refuses(&[]);
    let settled = place.run(&format!("dead-letters retry {first} {second} --json")).json();
    assert_eq!(
        (&settled["settled"], &settled["released"]),
        (&json!([first]), &json!([second])),
        "what waited goes with it"
    );
    peer.takes(5, &["3 a", "3 b"]);
    until("both", || letters(&place).is_empty());
    people(&place, [A, A, ("c", 3), ("b", 2), A]);
    peer.takes(7, &["3 c"]);
    assert_eq!(server.end().0, 0);
}

#[test]
fn an_entry_that_is_given_up_is_told_again_by_the_next_reconciliation() {
    let peer = Peer::default();
    let web = peer.serve();
    let place = place(&web, "max-retries = 0\n");
    people(&place, [A; 5]);
    assert_eq!(place.run("reconcile hr account").code, 0);
    peer.takes(0, &["1 a", "2 a", "3 a", "4 a", "5 a"]);
    peer.refuses(&["2"]);
    people(&place, [A, ("b", 2), A, A, A]);
    people(&place, [A, ("c", 3), A, A, A]);
    let kept = letters(&place);
    assert_eq!(kept.len(), 2, "a command without a server delivers before it ends, too: {kept:?}");
    peer.refuses(&[]);
    let dropped = place.run(&format!("dead-letters drop {} --json", kept[0].0)).json();
    assert_eq!(dropped["settled"], json!([kept[0].0]));
    assert_eq!(place.run("run --once").code, 0);
    peer.takes(5, &["2 c"]);
    assert_eq!(
        place.run("sinks list --json").json()[0]["problem"],
        "no host runs that delivers: `tidewaiter serve` does"
    );
    let dropped = place.run("reconcile hr account --json").json();
    assert_eq!((&dropped["changed"], &dropped["new"]), (&json!(1), &json!(0)), "{dropped}");
    assert_eq!(peer.took()[6..], ["2 c"]);
    let same = place.run("reconcile hr account --json").json();
    assert_eq!(same["changed"], 0);

    // A deletion that the sink never gets, likewise.
    peer.refuses(&["4"]);
    let rows = std::fs::read_to_string(place.path("people/people.csv")).unwrap();
    place.write(
        "people/people.csv",
        &rows.replace("4,a,2026-03-01T04:00:00Z,", "4,a,2026-03-01T04:00:00Z,2026-03-05T08:00:00Z"),
    );
    assert_eq!(place.run("sync hr account").code, 0);
    let kept = letters(&place);
    assert_eq!(kept.len(), 1);
    peer.refuses(&[]);
    let dropped = place.run(&format!("dead-letters drop 99 {}", kept[0].0));
    assert!(dropped.code == 3 && dropped.stdout.contains("done with"), "each number by itself: {dropped:?}");
    let gone = place.run("reconcile hr account --json").json();
    assert_eq!(gone["gone"], 1, "{gone}");
    assert_eq!(peer.took().last().unwrap(), "4 -");
}

#[test]
fn what_a_sink_never_got_is_no_update_and_who_drops_it_hears_what_tells_it() {
    let peer = Peer::default();
    let web = peer.serve();
    let place = place(&web, "max-retries = 0\n");
    peer.refuses(&["2"]);
    people(&place, [A; 5]);
    let kept = letters(&place);
    let dropped = place.run(&format!("dead-letters drop {}", kept[0].0)).stdout;
    assert!(dropped.contains("hr/account was never reconciled") && dropped.contains("--full"), "{dropped}");
    assert_eq!(place.run("reconcile hr account").code, 0);
    people(&place, [A, ("b", 2), A, A, A]);
    let kept = letters(&place);
    assert_eq!(kept.len(), 1);
    let dropped = place.run(&format!("dead-letters drop {}", kept[0].0)).stdout;
    assert!(!dropped.contains("never reconciled"), "{dropped}");
    peer.refuses(&[]);
    assert_eq!(place.run("reconcile hr account").code, 0);
    let kinds: Vec<Json> = place.changes().into_iter().map(|entry| entry["kind"].clone()).collect();
    assert_eq!(kinds.last().unwrap(), "create-or-update", "{kinds:?}");
    // Its place in the configuration is another one's now: what it left is to be seen.
    peer.refuses(&["3"]);
    people(&place, [A, ("b", 2), ("c", 3), A, A]);
    let toml = std::fs::read_to_string(place.path("tidewaiter.toml")).unwrap();
    place.write("tidewaiter.toml", &toml.replace("[sinks.hook]", "[sinks.hok]"));
    let sinks = place.run("sinks list").stdout;
    assert!(sinks.contains("it is not in the configuration, and has dead letters"), "{sinks}");
}

#[test]
fn a_flood_of_refusals_stops_the_sink_visibly_and_loses_nothing() {
    let peer = Peer::default();
    let web = peer.serve();
    let everybody = ["1", "2", "3", "4", "5"];
    peer.refuses(&everybody);
    let place = place(&web, "max-retries = 0\ndead-letters = 2\n");
    let server = place.serve();
    people(&place, [A; 5]);
    server.wait_for("2 of 16777216 bytes may be kept", 0);
    let sinks = place.run("sinks list").stdout;
    assert!(sinks.contains("retry or drop some"), "{sinks}");
    let kept = letters(&place);
    assert_eq!(kept.len(), 2);
    // The way out, though what comes next is refused still.
    peer.refuses(&["3", "4", "5"]);
    assert_eq!(place.run(&format!("dead-letters retry {} {}", kept[0].0, kept[1].0)).code, 0);
    peer.takes(0, &["1 a", "2 a"]);
    until("the next ones", || letters(&place).len() == 2);
    peer.refuses(&[]);
    let kept = letters(&place);
    assert_eq!(place.run(&format!("dead-letters retry {} {}", kept[0].0, kept[1].0)).code, 0);
    until("all", || peer.took().len() == 5 && letters(&place).is_empty());
    until("nothing is wrong", || place.run("sinks list --json").json()[0]["problem"].is_null());
    assert_eq!(server.end().0, 0);
}

#[test]
fn what_is_erased_is_in_no_dead_letter_of_a_sink() {
    let peer = Peer::default();
    let web = peer.serve();
    peer.refuses(&["2", "3"]);
    let place = place(&web, "max-retries = 0\n");
    people(&place, [("a@secret", 1); 5]);
    people(&place, [("a@secret", 1), ("b@secret", 2), ("c@secret", 2), ("a@secret", 1), ("a@secret", 1)]);
    assert_eq!(letters(&place).len(), 4);
    let erased = place.run("erase hr --uid 2");
    assert_eq!(erased.code, 0, "{erased:?}");
    assert_eq!(letters(&place).iter().map(|(_, uid, _)| uid.as_str()).collect::<Vec<_>>(), ["3", "3"]);

    // Beside a server, too; and what comes of it later is another matter.
    let server = place.serve();
    assert_eq!(place.run("erase hr --uid 3").code, 0);
    assert_eq!(letters(&place), []);
    peer.refuses(&[]);
    people(&place, [("a@secret", 1), ("b@secret", 2), ("new", 3), ("a@secret", 1), ("a@secret", 1)]);
    until("what came later", || peer.took().last().unwrap() == "3 new");
    assert_eq!(server.end().0, 0);
}

#[test]
fn whoever_waits_for_an_inline_sink_is_told_of_its_dead_letter() {
    let peer = Peer::default();
    let web = peer.serve();
    peer.refuses(&["3"]);
    let place = place(&web, "max-retries = 0\ninline = true\n");
    place.people("3,a,2026-03-01T08:00:00Z,\n");
    let told = place.run("sync hr account --json");
    let undelivered: Json = serde_json::from_str(&told.stdout).unwrap();
    let undelivered = &undelivered["undelivered"];
    assert_eq!((&undelivered["sink"], &undelivered["sequence"]), (&json!("hook"), &json!(1)), "{told:?}");
    assert!(undelivered["problem"].as_str().unwrap().contains("no such department"), "{undelivered}");
}

#[test]
fn acts_beside_a_request_that_is_on_its_way_end_and_keep_nothing_that_was_erased() {
    let peer = Peer::default();
    let web = peer.serve_after(Duration::from_secs(1));
    peer.refuses(&["3", "4"]);
    let place = place(&web, "max-retries = 0\n");
    let server = place.serve();
    place.people("3,a@secret,2026-03-01T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account").code, 0);
    until("it is on its way", || !web.seen().is_empty());
    assert_eq!(place.run("erase hr --uid 3").code, 0);
    until("it was refused", || place.run("sinks list --json").json()[0]["behind"] == 0);
    assert_eq!(letters(&place), [], "nothing of it is kept");

    place.people("4,a,2026-03-02T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account").code, 0);
    place.people("4,b,2026-03-03T08:00:00Z,\n");
    assert_eq!(place.run("sync hr account").code, 0);
    until("one waits", || letters(&place).len() == 2);
    let [head, waits] = [letters(&place)[0].0, letters(&place)[1].0];
    let seen = web.seen().len();
    let arguments = ["dead-letters", "retry", &head.to_string()].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut trying = place.command(&arguments).spawn().unwrap();
    until("it is tried", || web.seen().len() > seen);
    let behind = place.run(&format!("dead-letters retry {waits}"));
    assert!(behind.code == 5 && behind.stderr.contains("only waits"), "{behind:?}");
    assert_eq!(trying.wait().unwrap().code(), Some(5));
    assert!(letters(&place)[0].2.as_ref().unwrap().contains("no such department"), "its last answer stays with it");
    assert_eq!(server.end().0, 0);
}
