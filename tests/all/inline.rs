//! Sinks that whoever asks for a run waits for, and what is told of a record that could not be handed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value as Json, json};
use tidewaiter_tests::web::Web;
use tidewaiter_tests::{Place, Server};

const SYNC: &str = "system/bad/account?_action=liveSync";

/// What the server of the sink does, and how often it has answered.
#[derive(Debug, Default)]
struct Hook {
    fails: AtomicBool,
    answered: AtomicUsize,
}

/// A source whose words are in `people/changes`, and a sink that fails as long as it is told to.
fn place(inline: bool) -> (Place, Arc<Hook>, Web) {
    let hook: Arc<Hook> = Arc::default();
    let told = Arc::clone(&hook);
    let web = Web::answering(move |_| {
        // Slower than whoever doesn't wait.
        std::thread::sleep(std::time::Duration::from_millis(200));
        told.answered.fetch_add(1, Ordering::SeqCst);
        let status = if told.fails.load(Ordering::SeqCst) { StatusCode::CONFLICT } else { StatusCode::NO_CONTENT };
        Some(status.into_response())
    });
    let place = Place::empty();
    place.install("hostile");
    let url = web.url("/hook");
    place.write(
        "tidewaiter.toml",
        &format!(
            "[http]\nlisten = \"127.0.0.1:0\"\n[sinks.hook]\ntype = \"webhook\"\nurl = {url:?}\ngzip = false\ninline = {inline}\n"
        ),
    );
    place.write("grants/bad.toml", "read = [\"people\"]\n");
    place.write(
        "connections/bad.toml",
        "connector = \"hostile\"\ndata-faults = \"dead-letter\"\nsettings = { do = \"faulty\", folder = \"people\" }\n\
         [types.account]\nclass = \"account\"\n",
    );
    (place, hook, web)
}

fn happens(place: &Place, line: &str) {
    let before = std::fs::read_to_string(place.path("people/changes")).unwrap_or_default();
    place.write("people/changes", &format!("{before}{line}\n"));
}

fn sync(server: &Server, more: &str) -> Json {
    let (status, body) = server.call("POST", &format!("{SYNC}{more}"), &[], "");
    assert_eq!(status, 200, "{body}");
    body
}

#[test]
fn whoever_asks_for_a_run_waits_for_inline_sinks_and_for_no_others() {
    for inline in [true, false] {
        let (place, hook, _web) = place(inline);
        let server = place.serve();
        happens(&place, "1,a");
        assert!(sync(&server, "").get("lastException").is_none());
        assert_eq!(hook.answered.load(Ordering::SeqCst), usize::from(inline), "inline: {inline}");
        assert_eq!(sync(&server, "")["connectorData"]["syncToken"], 1, "a run without changes waits for nobody");
        assert_eq!(server.end().0, 0);
    }
}

#[test]
fn a_record_that_could_not_be_handed_on_is_told_and_is_no_failure() {
    let (place, hook, web) = place(true);
    let server = place.serve();
    hook.fails.store(true, Ordering::SeqCst);
    happens(&place, "1,a");
    let body = sync(&server, "&detailedFailure=true");
    assert_eq!(body["connectorData"]["syncToken"], 1, "{body}");
    let exception = &body["lastException"];
    let throwable = exception["throwable"].as_str().unwrap();
    assert!(throwable.starts_with("sink hook: ") && throwable.contains("409"), "{body}");
    let delta: Json = serde_json::from_str(exception["syncDelta"].as_str().unwrap()).unwrap();
    assert_eq!((&delta["uid"], &delta["attributes"]["mail"]), (&json!("1"), &json!(["a"])));
    // The delta is only told to who asks for it; and the command says it, too.
    happens(&place, "2,b");
    assert!(sync(&server, "")["lastException"].get("syncDelta").is_none());
    happens(&place, "3,c");
    let ended = place.run("sync bad account");
    assert!(
        ended.code == 4
            && ended.stdout.contains("1 change")
            && ended.stderr.contains("sink hook has not got entry 3 yet"),
        "{ended:?}"
    );
    // What comes later is told of the next run.
    hook.fails.store(false, Ordering::SeqCst);
    while !web.seen().iter().any(|seen| seen.body.contains(r#""uid":"3""#)) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    happens(&place, "4,d");
    assert!(sync(&server, "&detailedFailure=true").get("lastException").is_none());
    // As OpenIDM tells of a record that it could not process.
    happens(&place, "4,e\n5,nan\n5,f");
    let exception = sync(&server, "&detailedFailure=true")["lastException"].clone();
    assert!(
        exception["throwable"].as_str().unwrap().contains("\"5\": attribute \"number\": its value is no proper real"),
        "{exception}"
    );
    assert!(exception["syncDelta"].as_str().unwrap().contains(r#""number":["***"]"#), "{exception}");
    assert!(sync(&server, "").get("lastException").is_none(), "it is gone with the next run");
    assert_eq!(server.end().0, 0);
}
