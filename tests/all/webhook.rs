//! Delivery to a URL: what is sent, and what becomes of it when the server fails, is slow, or isn't who it should be.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fastrand::Rng;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value as Json, json};
use tidewaiter::clock::Clock;
use tidewaiter_tests::web::{Authority, Relay, Seen, Web};
use tidewaiter_tests::{HR, Place, is_quick, lines, rows, until};

/// A key of 24 bytes.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// With everybody of `people.csv` to be delivered to a URL; `more` lines belong to the sink.
fn place(url: &str, more: &str, people: u32) -> Place {
    let place = Place::new();
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    place.write("tidewaiter.toml", &hook(url, more));
    place.people(&rows(1..=people, 2026));
    place
}

fn hook(url: &str, more: &str) -> String {
    format!("[sinks.hook]\ntype = \"webhook\"\nurl = {url:?}\n{more}")
}

fn ok() -> Option<Response> {
    Some(StatusCode::NO_CONTENT.into_response())
}

fn answered(status: u16, words: &'static str) -> Option<Response> {
    Some((StatusCode::from_u16(status).unwrap(), words).into_response())
}

fn sync(place: &Place) {
    assert_eq!(place.run("sync hr account").code, 0, "a sink holds up no run");
}

/// One more change.
fn change(place: &Place, people: u32) {
    place.people(&rows(1..=people, 2026));
    sync(place);
}

/// The events of a request.
fn events(seen: &Seen) -> Vec<Json> {
    let mut text = String::new();
    match seen.header("content-encoding")[..] {
        [] => text.push_str(&seen.body),
        ["gzip"] => drop(flate2::read::GzDecoder::new(&*seen.bytes).read_to_string(&mut text).unwrap()),
        _ => panic!("{seen:?}"),
    }
    serde_json::from_str(&text).unwrap()
}

/// What was delivered, in the order in which it came.
fn delivered(seen: &[Seen]) -> Vec<Json> {
    seen.iter().flat_map(events).map(|event| event["data"].clone()).collect()
}

/// Each entry where it came first; a repeat has to say the same.
fn without_repeats(entries: Vec<Json>) -> Vec<Json> {
    let mut known: HashMap<String, Json> = HashMap::new();
    let mut first = Vec::new();
    for entry in entries {
        match known.insert(entry["id"].as_str().unwrap().to_owned(), entry.clone()) {
            None => first.push(entry),
            Some(before) => assert_eq!(before, entry, "one id, one entry"),
        }
    }
    first
}

/// Whether a request is signed by `SECRET`, over the bytes that came.
fn is_signed(seen: &Seen) -> bool {
    let key = BASE64_STANDARD.decode(&SECRET["whsec_".len()..]).unwrap();
    let one = |name| <[&str; 1]>::try_from(seen.header(name)).unwrap()[0];
    let (id, time) = (one("webhook-id"), one("webhook-timestamp"));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(&seen.bytes);
    let age = Clock::start().now().0 / 1000 - time.parse::<i64>().unwrap();
    let signature = one("webhook-signature").strip_prefix("v1,").unwrap();
    (0..300).contains(&age) && mac.verify_slice(&BASE64_STANDARD.decode(signature).unwrap()).is_ok()
}

#[test]
fn everything_arrives_once_in_order_signed_and_packed() {
    let web = Web::answering(|_| ok());
    let secrets = "secret = { file = \"hook.key\" }\nbearer = { file = \"hook.token\" }\nbatch = 40\n";
    let place = place(&web.url("/in?of=us"), secrets, 250);
    place.write("hook.key", SECRET);
    place.write("hook.token", "tok3n\n");
    let server = place.serve();
    sync(&place);
    assert_eq!(place.run("token reset hr account").code, 0);
    until("a marker", || delivered(&web.seen()).len() == 251);
    assert_eq!(server.end().0, 0);
    let seen = web.seen();
    assert_eq!(delivered(&seen), place.changes());
    for request in &seen {
        assert!(is_signed(request), "{request:?}");
        assert_eq!((request.method.as_str(), request.uri.as_str()), ("POST", "/in?of=us"));
        assert_eq!(request.header("content-type"), ["application/cloudevents-batch+json; charset=utf-8"]);
        assert_eq!(request.header("content-encoding"), ["gzip"]);
        assert_eq!(request.header("authorization"), ["Bearer tok3n"]);
        assert!((1..=40).contains(&events(request).len()));
    }
    let ids: HashSet<&str> = seen.iter().map(|request| request.header("webhook-id")[0]).collect();
    assert_eq!(ids.len(), seen.len());
    let first = &events(&seen[0])[0];
    assert_eq!((&first["type"], &first["subject"]), (&json!("org.tidewaiter.change.create-or-update"), &json!("1")));
    assert_eq!((&first["source"], &first["id"]), (&json!("/connections/hr/types/account"), &first["data"]["id"]));
    let ports: HashSet<u16> = seen.iter().map(|request| request.from.port()).collect();
    assert_eq!(ports.len(), 1, "one connection for all");

    assert_eq!(place.serve().end().0, 0);
    assert_eq!(web.seen().len(), seen.len(), "what was delivered is not sent again by the next host");
    change(&place, 251);
    assert_eq!(delivered(&web.seen()[seen.len()..]), place.changes()[251..], "a command delivers before it ends");
}

#[test]
fn what_is_not_taken_is_sent_again_as_it_was_and_in_order() {
    let elsewhere = Web::answering(|_| ok());
    let (turn, clock, to) = (AtomicUsize::new(0), Clock::start(), elsewhere.url("/"));
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    let web = Web::answering(move |_| {
        noted.lock().unwrap().push(clock.moment().0);
        match turn.fetch_add(1, Ordering::Relaxed) {
            0 => answered(500, "br\u{1b}oken"),
            1 => Some((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "3")], "").into_response()),
            2 => answered(404, ""),
            3 => Some((StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, to.clone())], "").into_response()),
            _ => ok(),
        }
    });
    let place = place(&web.url("/"), "", 3);
    let server = place.serve();
    sync(&place);
    let at = server.wait_for("hook", 0);
    change(&place, 4);
    let at = server.wait_for("429 Too Many Requests", at);
    change(&place, 5);
    let at = server.wait_for("404 Not Found", at);
    server.wait_for("308 Permanent Redirect: redirects are not followed", at);
    until("delivery", || web.seen().get(4..).is_some_and(|taken| delivered(taken).len() == 5));
    let (code, log) = server.end();
    assert_eq!(code, 0);
    let seen = web.seen();
    assert_eq!(without_repeats(delivered(&seen)), place.changes());
    assert!(seen[..5].iter().all(|again| again.bytes == seen[0].bytes), "nothing is added to what was sent once");
    assert!(seen[..5].iter().all(|again| again.header("webhook-id") == seen[0].header("webhook-id")));
    assert_eq!(delivered(&seen[4..]), place.changes(), "what was taken is not sent again");
    assert!(elsewhere.seen().is_empty(), "redirects are not followed");
    let times = times.lock().unwrap();
    assert!(times[2] - times[1] >= 3000, "it asked for three seconds: {times:?}");
    let told = |part: &str| log.iter().filter(|line| line.contains("delivery-failed") && line.contains(part)).count();
    assert_eq!((told("sink=\"hook\""), told("500 Internal Server Error: br\\u{1b}oken")), (4, 1), "{log:#?}");
}

#[test]
fn an_answer_that_never_comes_or_breaks_off_is_none() {
    let hangs = AtomicBool::new(true);
    // The path says that it hangs.
    let web = Web::answering(move |_| if hangs.swap(false, Ordering::Relaxed) { None } else { ok() });
    let relay = Relay::new(web.address);
    let place = place(&format!("http://{}/never", relay.address), "timeout = \"500ms\"\n", 3);
    let server = place.serve();
    sync(&place);
    let at = server.wait_for("took longer than the 500 ms allowed", 0);
    until("delivery", || web.seen().len() == 2);
    until("its answer", || place.run("sinks list --json").json()[0]["behind"] == 0);
    // The server has it, and nobody is told.
    relay.cuts_after(5);
    change(&place, 4);
    let is_fourth = |seen: &&Seen| delivered(std::slice::from_ref(seen)).iter().any(|entry| entry["uid"] == "4");
    let times = || web.seen().iter().filter(is_fourth).count();
    until("one that was lost", || times() >= 1);
    server.wait_for("delivery-failed", at);
    relay.cuts_after(u64::MAX);
    until("a repeat", || times() >= 2);
    assert_eq!(server.end().0, 0);
    let (seen, changes) = (web.seen(), place.changes());
    assert_eq!(seen[0].bytes, seen[1].bytes);
    assert!(seen.iter().filter(is_fourth).all(|again| delivered(std::slice::from_ref(again)) == changes[3..]));
    assert_eq!(without_repeats(delivered(&seen)), changes);
}

#[test]
fn a_kill_at_any_instant_loses_nothing_and_repeats_what_is_recognised() {
    const ROWS: u32 = 500;
    let web = Web::answering(|_| {
        // However fast this machine is, some kills come in the middle.
        std::thread::sleep(Duration::from_millis(2));
        ok()
    });
    let place = place(&web.url("/"), "batch = 7\n", 0);
    place.write("connections/hr.toml", &format!("{HR}every = \"100ms\"\nfrom = \"beginning\"\n"));
    let (mut seeded, rounds) = (Rng::with_seed(20_261_126), if is_quick() { 4 } else { 20 });
    let (mut in_the_middle, mut repeats) = (0, 0);
    for round in 0..rounds {
        let added = rows(round * ROWS + 1..=(round + 1) * ROWS, 2026);
        place.write(&format!("people/{round:03}.csv"), &format!("id,mail,updated_at,deleted_at\n{added}"));
        let (server, before) = (place.start(), web.seen().len());
        until("a delivery", || web.seen().len() > before);
        std::thread::sleep(Duration::from_millis(seeded.u64(..150)));
        server.kill();
        let all = delivered(&web.seen());
        let known = without_repeats(all.clone());
        in_the_middle += u32::from(known.len() < ((round + 1) * ROWS) as usize);
        repeats = all.len() - known.len();
    }
    let server = place.serve();
    let all = (rounds * ROWS) as usize;
    until("the last one", || without_repeats(delivered(&web.seen())).len() == all);
    assert_eq!(server.end().0, 0);
    assert!(without_repeats(delivered(&web.seen())) == place.changes(), "lost, or moved");
    assert!(in_the_middle > rounds / 4, "only {in_the_middle} kills came in the middle of a delivery");
    println!("{in_the_middle} of {rounds} kills in the middle, {repeats} repeats");
}

#[test]
fn https_is_spoken_with_whom_the_operator_trusts() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let config = ours.server(&["127.0.0.1"], false);
    let web = Web::at("127.0.0.1".parse().unwrap(), Some(config), Arc::new(|_| ok()));
    let url = format!("https://{}/", web.address);
    let place = place(&url, "", 3);
    let trusts = |authority: &Authority| {
        authority.write(&place.path("ca.pem"));
        place.write("tidewaiter.toml", &format!("trust = [\"ca.pem\"]\n{}", hook(&url, "")));
    };
    trusts(&theirs);
    let server = place.serve();
    sync(&place);
    server.wait_for(&format!("TLS with https://{}: invalid peer certificate", web.address), 0);
    assert!(web.seen().is_empty(), "nothing leaves");
    assert_eq!(server.end().0, 0);
    trusts(&ours);
    let server = place.serve();
    until("delivery", || !web.seen().is_empty());
    assert_eq!(server.end().0, 0);
    assert_eq!(delivered(&web.seen()), place.changes());
}

#[test]
fn a_sink_that_hangs_slows_nothing_and_ends_with_its_host() {
    let web = Web::new();
    let file = "[sinks.out]\ntype = \"ndjson\"\npath = \"out.ndjson\"\n";
    let place = place(&web.url("/never"), &format!("timeout = \"10m\"\n{file}"), 3);
    let written = || std::fs::read_to_string(place.path("out.ndjson")).map_or(0, |text| text.lines().count());
    let server = place.serve();
    sync(&place);
    until("a request", || web.seen().len() == 1);
    let clock = Clock::start();
    change(&place, 4);
    until("the file", || written() == 4);
    assert!(clock.moment().0 < 10_000, "{:?}", clock.moment());
    let (code, log) = server.end();
    assert!(clock.moment().0 < 30_000, "{:?}", clock.moment());
    assert_eq!(code, 0);
    assert!(log.iter().any(|line| line.contains("a sink is slow")), "{log:#?}");
    assert_eq!(lines(&std::fs::read_to_string(place.path("out.ndjson")).unwrap()), place.changes());
    let taken = Web::answering(|_| ok());
    place.write("tidewaiter.toml", &hook(&taken.url("/"), file));
    assert_eq!(place.serve().end().0, 0);
    assert_eq!(delivered(&taken.seen()), place.changes(), "the next host delivers what was left");
}

#[test]
fn openidm_is_told_of_one_change_a_request_in_its_own_words() {
    let web = Web::answering(|_| ok());
    let place = place(&web.url("/openidm/sync"), "format = \"openidm\"\ngzip = false\n", 2);
    let server = place.serve();
    sync(&place);
    assert_eq!(place.run("token reset hr account").code, 0, "a marker");
    sync(&place);
    place.people("1,a@x,2026-03-02T00:00:01Z,\n2,b@x,2026-03-04T00:00:00Z,2026-03-04T00:00:00Z\n");
    sync(&place);
    until("all", || web.seen().len() == 3);
    assert_eq!(server.end().0, 0);
    let (seen, changes) = (web.seen(), place.changes());
    let of_objects = changes.iter().filter(|entry| entry["uid"].is_string());
    let ids: Vec<&str> = of_objects.map(|entry| entry["id"].as_str().unwrap()).collect();
    assert!(changes.len() == 4 && ids.len() == 3);
    let to = |action: &str, uid: u32| {
        format!("/openidm/sync?_action={action}&resourceContainer=system%2Fhr%2Faccount&resourceId={uid}")
    };
    for (at, action, uid) in [(0, "notifyUpdate", 1), (1, "notifyUpdate", 2), (2, "notifyDelete", 2)] {
        assert_eq!((&seen[at].uri, seen[at].header("webhook-id")), (&to(action, uid), vec![ids[at]]));
        assert_eq!(seen[at].header("content-type"), ["application/json"]);
        assert!(seen[at].header("content-encoding").is_empty());
    }
    let body: Json = serde_json::from_str(&seen[0].body).unwrap();
    assert_eq!((&body["oldValue"], &body["newValue"]["_id"]), (&Json::Null, &json!("1")));
    assert_eq!(body["newValue"]["mail"], "person1@example.org");
    let gone: Json = serde_json::from_str(&seen[2].body).unwrap();
    assert_eq!(gone, json!({ "oldValue": null, "newValue": null }));
}

#[test]
fn secrets_are_read_anew_and_in_no_log() {
    // A server that says what it was told.
    let web = Web::answering(|seen| match seen.header("authorization")[..] {
        ["Bearer n3wer"] => ok(),
        [shown] => Some((StatusCode::UNAUTHORIZED, format!("no {shown}, {shown}")).into_response()),
        _ => None,
    });
    let more = "secret = { file = \"hook.key\" }\nbearer = { file = \"hook.token\" }\n";
    let place = place(&web.url("/s3cretpath"), more, 3);
    let sensitive = [SECRET, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "hunter2", "n3wer", "s3cretpath"];
    let is_harmless = |text: &str| sensitive.iter().all(|part| !text.contains(part));
    let checked = place.run("check");
    assert!(checked.code == 2 && checked.stderr.contains("sinks.hook.secret: "), "{checked:?}");
    place.write("hook.key", "hunter2");
    place.write("hook.token", "hunter2");
    let checked = place.run("check");
    assert!(
        checked.code == 2 && checked.stderr.contains("24 to 64 bytes") && is_harmless(&checked.stderr),
        "{checked:?}"
    );
    let server = place.serve();
    sync(&place);
    let at = server.wait_for("secret: the file", 0);
    assert!(web.seen().is_empty(), "nothing leaves unsigned");
    place.write("hook.key", SECRET);
    server.wait_for("401 Unauthorized: no Bearer [erased], Bearer [erased]", at);
    place.write("hook.token", "n3wer");
    until("delivery", || web.seen().iter().any(|seen| seen.header("authorization") == ["Bearer n3wer"]));
    let (code, log) = server.end();
    assert_eq!(code, 0);
    assert!(web.seen().iter().all(is_signed));
    assert!(log.iter().all(|line| is_harmless(line)), "{log:#?}");
    assert_eq!(place.run("check").code, 0);
}

#[test]
fn a_wrong_configuration_of_a_sink_is_named_with_its_line() {
    let url = "https://hook.example/hunter2";
    for (table, parts) in [
        (hook(url, "gzp = true\n"), &["line 4", "gzp = true"][..]),
        (hook(url, "gzip = \"yes\"\n"), &["line 4", "gzip = \"yes\""]),
        (hook(url, "format = \"xml\"\n"), &["line 4", "cloudevents"]),
        (hook(url, "batch = 0\n"), &["line 4", "batch = 0"]),
        (hook(url, "timeout = 7\n"), &["line 4", "a time with its unit"]),
        (hook(url, "bearer = \"hunter2\"\n"), &["line 4", "{ file = \"…\" }"]),
        (hook(url, "secret = \"hunter2\"\n"), &["line 4", "{ file = \"…\" }"]),
        (hook(url, "secret = {}\n"), &["sinks.hook.secret: it is one of"]),
        (hook(url, "path = \"x\"\n"), &["sinks.hook.path: "]),
        (hook(url, "refusals = [200]\n"), &["sinks.hook.refusals: 200 is no status of a refusal"]),
        (hook(url, "dead-letters = 5\n"), &["sinks.hook.dead-letters: without max-retries"]),
        (hook(url, "max-retries = 1\ndead-letters = 10001\n"), &["sinks.hook.dead-letters: 10001 is not in 1..=10000"]),
        ("[sinks.hook]\ntype = \"ndjson\"\npath = \"x\"\nmax-retries = 1\n".into(), &["sinks.hook.max-retries: "]),
        (hook(url, "batch = 5000\n"), &["sinks.hook.batch: 5000 is not in 1..=4096"]),
        (hook(url, "batch-bytes = 5000000\n"), &["sinks.hook.batch-bytes: "]),
        (hook(url, "timeout = \"0s\"\n"), &["sinks.hook.timeout: "]),
        (hook(url, "format = \"openidm\"\nbatch = 2\n"), &["sinks.hook.batch: ", "openidm has one entry"]),
        (hook("hook.example/hunter2", ""), &["sinks.hook.url: "]),
        (hook("ftp://hook.example/hunter2", ""), &["sinks.hook.url: ", "neither http:// nor https://"]),
        (hook("https://hunter2@hook.example/", ""), &["sinks.hook.url: ", "password has no place"]),
        ("[sinks.hook]\ntype = \"webhook\"\n".into(), &["sinks.hook.url: it is missing"]),
        ("[sinks.hook]\ntype = \"ndjson\"\n".into(), &["sinks.hook.path: it is missing"]),
        ("[sinks.hook]\ntype = \"ndjson\"\npath = \"x\"\ngzip = true\n".into(), &["sinks.hook.gzip: "]),
        ("[sinks.hook]\ntype = \"pigeon\"\n".into(), &["line 2", "pigeon"]),
    ] {
        let place = Place::new();
        place.write("tidewaiter.toml", &table);
        let ended = place.run("check");
        assert_eq!(ended.code, 2, "{table}: {ended:?}");
        assert!(ended.stderr.contains("tidewaiter.toml"), "{ended:?}");
        assert!(parts.iter().all(|part| ended.stderr.contains(part)), "{table}: {}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{table}: {}", ended.stderr);
    }
    let place = place(url, "secret = { file = \"people/hook.key\" }\n", 1);
    let exposed = place.run("check");
    assert!(exposed.code == 2 && exposed.stderr.contains("grants/hr.toml: read: "), "{exposed:?}");
}
