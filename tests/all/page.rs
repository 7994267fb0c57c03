//! The page, in a browser: Debian's Chromium walks through all of it, see `tests/browser/walk.js`.

use std::path::Path;
use std::process::Command;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value as Json, json};
use tidewaiter_servers::Browser;
use tidewaiter_tests::web::Web;
use tidewaiter_tests::{Place, connector, is_there, patched, rows};

/// Bytes of all that a browser fetches to show the overview.
const FIRST_VIEW_MAX: usize = 60 << 10;
/// So many objects that a reconciliation takes a while.
const MANY: u32 = 150_000;
/// The uid of an object that a sink's server refuses.
const REFUSED: u32 = 500_000;
const OF_HOSTILE: &str = "[types.account]\nclass = \"account\"\n";

/// With something of all that a page can show: what is held, paused, refused, sensitive, not approved, and what failed.
fn place(web: &Web) -> Place {
    let place = Place::empty();
    place.install("hostile");
    let hook = format!("[sinks.hook]\ntype = \"webhook\"\nurl = {:?}\ngzip = false\nmax-retries = 0\n", web.url("/in"));
    place.write("tidewaiter.toml", &format!("[http]\nlisten = \"127.0.0.1:0\"\n{hook}"));
    place.csv("hr", &rows(1..=3, 2026), "from = \"beginning\"\nevery = \"1h\"\n");
    place.csv("big", &rows(1..=MANY, 2026), "");
    place.csv("refused", &rows(REFUSED..=REFUSED + 2, 2026), "from = \"beginning\"\n");
    for name in ["kept", "thrown"] {
        place.csv(name, &rows(1..=3, 2026), "from = \"beginning\"\nguard = { max-changes = 1 }\n");
    }
    for (name, settings) in [("person", "do = \"person\"\n"), ("trap", "do = \"trap-in-the-middle\"\n")] {
        let settings = format!("connector = \"hostile\"\n[settings]\n{settings}{OF_HOSTILE}");
        place.write(&format!("connections/{name}.toml"), &settings);
    }
    let asks =
        format!("do = \"fetch\"\nask = [{:?}]\nmore = \"https://more.example.org\"\nrequests = []\n", web.url(""));
    place.write("connections/asks.toml", &format!("connector = \"hostile\"\n[settings]\n{asks}{OF_HOSTILE}"));
    place
}

#[test]
fn everybody_can_use_every_page_and_button() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (node, walk) = (root.join("target/tools/python/bin/node"), root.join("target/tools/browser"));
    if !is_there("a browser", walk.join("installed").is_file() && Browser::is_there()) {
        return;
    }
    let uid = REFUSED.to_string();
    let web = Web::answering(move |seen| {
        let events: Vec<Json> = serde_json::from_str(&seen.body).unwrap_or_default();
        let refused = events.iter().any(|event| event["data"]["uid"] == uid);
        refused.then(|| (StatusCode::UNPROCESSABLE_ENTITY, "no such department").into_response())
    });
    let place = place(&web);
    let server = place.serve();
    for connection in ["hr", "refused", "kept", "thrown", "person", "trap"] {
        server.call("POST", &format!("system/{connection}/account?_action=liveSync"), &[], "");
    }
    server.wait_for("kept as a dead letter", 0);
    let from = server.log().len();
    let hostile = std::fs::read(connector("hostile")).unwrap();
    place.save("hostile", &patched(hostile, "describe:well-behaved", "describe:asks-more   "));
    server.wait_for("asks for more than was approved", from);

    let browser = Browser::find(&place.path(""));
    std::fs::copy(root.join("tests/browser/walk.js"), walk.join("walk.js")).unwrap();
    let given = json!({
        "url": server.url(),
        "token": server.token(),
        "browser": { "path": browser.program, "env": browser.environment },
        "people": place.path("hr/people.csv"),
        "screenshots": root.join("target/screenshots"),
        "view": FIRST_VIEW_MAX,
    });
    let walked = Command::new(node).arg("walk.js").arg(given.to_string()).current_dir(&walk).output().unwrap();
    let said = String::from_utf8_lossy(&walked.stdout);
    assert!(walked.status.success(), "{said}{}", String::from_utf8_lossy(&walked.stderr));
    print!("{said}");
    let (code, log) = server.end();
    assert!(code == 0 && !log.iter().any(|line| line.contains("by a bug")), "{log:?}");
}
