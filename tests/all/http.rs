//! The HTTP API: who may do what, what is answered, what fails and how.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tidewaiter::clock::Clock;
use tidewaiter_tests::web::Authority;
use tidewaiter_tests::{HR, Place, Server, call, is_quick, is_there, patched, rows, until};

/// Every operation, and the role that it takes; none: it is for anybody.
const ROUTES: &[(&str, &str, Option<&str>)] = &[
    ("GET", "/api/v1/access", Some("admin")),
    ("POST", "/api/v1/access", Some("admin")),
    ("DELETE", "/api/v1/access/{name}", Some("admin")),
    ("GET", "/api/v1/changes", Some("read")),
    ("GET", "/api/v1/changes/stream", Some("read")),
    ("GET", "/api/v1/changes/{id}", Some("read")),
    ("GET", "/api/v1/connections", Some("read")),
    ("GET", "/api/v1/connections/{connection}", Some("read")),
    ("POST", "/api/v1/connections/{connection}/approve", Some("security")),
    ("POST", "/api/v1/connections/{connection}/bring-up", Some("operate")),
    ("POST", "/api/v1/connections/{connection}/check", Some("operate")),
    ("DELETE", "/api/v1/connections/{connection}/document", Some("admin")),
    ("GET", "/api/v1/connections/{connection}/document", Some("admin")),
    ("PUT", "/api/v1/connections/{connection}/document", Some("admin")),
    ("POST", "/api/v1/connections/{connection}/erase", Some("admin")),
    ("POST", "/api/v1/connections/{connection}/pause", Some("operate")),
    ("POST", "/api/v1/connections/{connection}/resume", Some("operate")),
    ("GET", "/api/v1/connections/{connection}/types", Some("read")),
    ("GET", "/api/v1/connections/{connection}/types/{type}", Some("read")),
    ("POST", "/api/v1/connections/{connection}/types/{type}/guard/discard", Some("operate")),
    ("POST", "/api/v1/connections/{connection}/types/{type}/guard/release", Some("operate")),
    ("DELETE", "/api/v1/connections/{connection}/types/{type}/pass", Some("operate")),
    ("GET", "/api/v1/connections/{connection}/types/{type}/pass", Some("read")),
    ("POST", "/api/v1/connections/{connection}/types/{type}/pause", Some("operate")),
    ("POST", "/api/v1/connections/{connection}/types/{type}/reconcile", Some("operate")),
    ("POST", "/api/v1/connections/{connection}/types/{type}/resume", Some("operate")),
    ("POST", "/api/v1/connections/{connection}/types/{type}/sync", Some("operate")),
    ("DELETE", "/api/v1/connections/{connection}/types/{type}/token", Some("operate")),
    ("GET", "/api/v1/connections/{connection}/types/{type}/token", Some("read")),
    ("PUT", "/api/v1/connections/{connection}/types/{type}/token", Some("operate")),
    ("GET", "/api/v1/connections/{connection}/types/{type}/token/history", Some("read")),
    ("POST", "/api/v1/connections/{connection}/types/{type}/token/rewind", Some("operate")),
    ("GET", "/api/v1/connectors", Some("read")),
    ("POST", "/api/v1/connectors/deny", Some("security")),
    ("GET", "/api/v1/connectors/lock", Some("read")),
    ("POST", "/api/v1/connectors/{connector}/approve", Some("security")),
    ("POST", "/api/v1/connectors/{connector}/pin", Some("security")),
    ("DELETE", "/api/v1/connectors/{connector}/quarantine", Some("security")),
    ("PUT", "/api/v1/connectors/{connector}/quarantine", Some("security")),
    ("POST", "/api/v1/connectors/{connector}/retry", Some("operate")),
    ("GET", "/api/v1/connectors/{connector}/revisions", Some("read")),
    ("POST", "/api/v1/connectors/{connector}/rollback", Some("operate")),
    ("GET", "/api/v1/consumers", Some("read")),
    ("POST", "/api/v1/consumers", Some("operate")),
    ("DELETE", "/api/v1/consumers/{consumer}", Some("operate")),
    ("POST", "/api/v1/consumers/{consumer}/acknowledge", Some("read")),
    ("GET", "/api/v1/consumers/{consumer}/changes", Some("read")),
    ("GET", "/api/v1/dead-letters", Some("read")),
    ("DELETE", "/api/v1/dead-letters/{number}", Some("operate")),
    ("GET", "/api/v1/dead-letters/{number}", Some("read")),
    ("POST", "/api/v1/dead-letters/{number}/retry", Some("operate")),
    ("GET", "/api/v1/openapi.json", Some("read")),
    ("GET", "/api/v1/operations", Some("read")),
    ("GET", "/api/v1/operations/{operation}", Some("read")),
    ("GET", "/api/v1/reload", Some("read")),
    ("GET", "/api/v1/reference", Some("read")),
    ("POST", "/api/v1/reload", Some("admin")),
    ("GET", "/api/v1/runs", Some("read")),
    ("GET", "/api/v1/runs/{run}", Some("read")),
    ("GET", "/api/v1/sinks", Some("read")),
    ("GET", "/healthz", None),
    ("GET", "/metrics", Some("read")),
    ("GET", "/readyz", None),
    ("GET", "/openidm/recon", Some("read")),
    ("POST", "/openidm/recon", Some("operate")),
    ("GET", "/openidm/recon/{id}", Some("read")),
    ("POST", "/openidm/recon/{id}", Some("operate")),
    ("GET", "/openidm/repo/synchronisation/pooledSyncStage", Some("read")),
    ("DELETE", "/openidm/repo/synchronisation/pooledSyncStage/{id}", Some("operate")),
    ("GET", "/openidm/repo/synchronisation/pooledSyncStage/{id}", Some("read")),
    ("PUT", "/openidm/repo/synchronisation/pooledSyncStage/{id}", Some("operate")),
    ("POST", "/openidm/system", Some("operate")),
    ("POST", "/openidm/system/", Some("operate")),
    ("POST", "/openidm/system/{connection}", Some("operate")),
    ("POST", "/openidm/system/{connection}/{type}", Some("operate")),
    ("GET", "/", Some("read")),
    ("GET", "/ui/changes", Some("read")),
    ("GET", "/ui/changes/{id}", Some("read")),
    ("GET", "/ui/connections/{connection}", Some("read")),
    ("GET", "/ui/connectors", Some("read")),
    ("GET", "/ui/dead-letters", Some("read")),
    ("GET", "/ui/icon.svg", None),
    ("GET", "/ui/live", Some("read")),
    ("GET", "/ui/login", None),
    ("POST", "/ui/login", None),
    ("POST", "/ui/logout", Some("read")),
    ("GET", "/ui/page.js", None),
    ("GET", "/ui/style.css", None),
];

const ROLES: [&str; 4] = ["read", "operate", "security", "admin"];
const ANN: &str = "1,a@x,2026-03-01T08:00:00Z,\n";
const BOB: &str = "2,b@x,2026-03-02T08:00:00Z,\n";

fn allows(role: &str, needed: &str) -> bool {
    role == needed || role == "admin" || needed == "read"
}

/// A caller with an access token, who sees to it that each write is written down.
struct Caller {
    url: String,
    bearer: String,
    audit: PathBuf,
}

impl Caller {
    fn new(server: &Server, token: &str) -> Self {
        Self { url: server.url(), bearer: format!("Bearer {token}"), audit: server.audit() }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.send(method, path, &[], body)
    }

    fn send(&self, method: &str, path: &str, more: &[(&str, &str)], body: &Value) -> (u16, Value) {
        let mut headers = vec![("Authorization", self.bearer.as_str())];
        let text = if body.is_null() { String::new() } else { body.to_string() };
        if !body.is_null() {
            headers.push(("Content-Type", "application/json"));
        }
        headers.extend(more);
        let from = self.audited().len();
        let (status, said) = call(method, &format!("{}{path}", self.url), &headers, &text);
        // A reload that changes nothing writes nothing, and an answer that is said again was written down before.
        let is_again = path.ends_with("/reload") || more.iter().any(|(name, _)| *name == "Idempotency-Key");
        let is_write = method != "GET" && (200..300).contains(&status) && !is_again;
        let is_written = || self.audited()[from..].contains("\"by\":\"api ");
        assert!(!is_write || is_written(), "{method} {path} {more:?} is in no audit: {status} {said}");
        (status, said)
    }

    fn audited(&self) -> String {
        std::fs::read_to_string(&self.audit).unwrap_or_default()
    }

    fn v1(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.call(method, &format!("/api/v1/{path}"), body)
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.v1("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

fn served() -> (Place, Server, Caller) {
    let place = Place::new();
    place.people(ANN);
    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    (place, server, admin)
}

fn with_role(server: &Server, admin: &Caller, name: &str, role: &str) -> Caller {
    let (status, new) = admin.v1("POST", "access", &json!({ "name": name, "role": role }));
    assert_eq!(status, 200, "{new}");
    Caller::new(server, new["token"].as_str().unwrap())
}

/// A path with names in it that are those of nothing.
fn filled(path: &str) -> String {
    let path = path.replace("{number}", "999999").replace("{run}", "999999");
    let parts: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "nobody" } else { part }).collect();
    parts.join("/")
}

#[test]
fn each_role_may_do_what_is_its_own_and_nothing_else() {
    let (_place, server, admin) = served();
    let document = admin.get("openapi.json");
    let mut there = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let role = operation["security"][0]["bearer"][0].as_str();
            there.push((method.to_uppercase(), path.clone(), role.map(str::to_owned)));
        }
    }
    there.sort();
    let mut listed: Vec<_> =
        ROUTES.iter().map(|(method, path, role)| ((*method).into(), (*path).into(), role.map(str::to_owned))).collect();
    listed.sort();
    assert_eq!(there, listed, "each operation is in the table of this test");

    // One logs in on a page of this server only.
    let own = [("Sec-Fetch-Site", "same-origin")];
    for role in ROLES {
        let caller = with_role(&server, &admin, &format!("a-{role}"), role);
        for (method, path, needed) in ROUTES {
            if path.ends_with("/stream")
                || *path == "/ui/live"
                || *path == "/openidm/system"
                || *path == "/openidm/system/"
            {
                continue;
            }
            let (status, body) = caller.send(method, &filled(path), &own, &json!({}));
            let refused = status == 403 && (body["code"] == "not-allowed" || body["code"] == 403);
            let may = needed.is_none_or(|needed| allows(role, needed));
            // A token of the role read acknowledges for itself only.
            let others = path.ends_with("/acknowledge");
            assert!(refused != may || others, "{role} {method} {path}: {status} {body}");
            assert!(status < 500 && status != 401, "{role} {method} {path}: {status} {body}");
        }
    }
    for (method, path, needed) in ROUTES {
        let (status, _) = call(method, &format!("{}{}", server.url(), filled(path)), &[], "");
        // A browser is shown where to log in.
        let refused = status == 401 || (status == 303 && *method == "GET");
        assert_eq!(refused, needed.is_some(), "nobody in particular: {method} {path}: {status}");
    }
    let audit = std::fs::read_to_string(_place.path("data/audit.ndjson")).unwrap();
    assert!(audit.contains("\"not-allowed\"") && audit.contains("api a-read"), "who was refused is written down");
}

#[test]
fn live_sync_is_followed_or_waited_for_and_a_run_that_fails_is_no_success() {
    let (place, _server, admin) = served();
    let sync = "connections/hr/types/account/sync";
    let (status, begun) = admin.v1("POST", sync, &Value::Null);
    assert!(status == 202 && begun["standing"].is_string(), "{status} {begun}");
    let operation = format!("operations/{}", begun["id"].as_str().unwrap());
    until("the operation ends", || admin.get(&operation)["standing"] == "succeeded");
    let done = admin.get(&operation);
    assert_eq!((&done["action"], &done["by"]), (&json!("sync"), &json!("api first")));

    place.people(&format!("{ANN}{BOB}"));
    let (status, done) = admin.v1("POST", &format!("{sync}?wait=30s"), &Value::Null);
    assert_eq!((status, &done["standing"]), (200, &json!("succeeded")), "{done}");
    let run = done["result"]["sync"]["run"].as_u64().unwrap();
    assert_eq!(admin.get(&format!("runs/{run}"))["trigger"], "api");
    assert_eq!(admin.get("runs?connection=hr&type=account&limit=1")["items"][0]["run"], run);

    place.people("1,a@x,last Tuesday,\n");
    let (status, problem) = admin.v1("POST", &format!("{sync}?wait=30s"), &Value::Null);
    assert!((500..=504).contains(&status), "{problem}");
    assert!(problem["code"].as_str().unwrap().starts_with("connector."), "{problem}");
    assert_eq!((&problem["status"], &problem["run"]["key"]["connection"]), (&json!(status), &json!("hr")), "{problem}");
    for bad in ["2h", "-1s", "soon"] {
        let (status, problem) = admin.v1("POST", &format!("{sync}?wait={bad}"), &Value::Null);
        assert!(status == 400 && problem["detail"].as_str().unwrap().contains(bad), "{problem}");
    }
}

#[test]
fn a_token_is_changed_only_by_who_saw_it() {
    let (_place, _server, admin) = served();
    admin.v1("POST", "connections/hr/types/account/sync?wait=30s", &Value::Null);
    let path = "/api/v1/connections/hr/types/account/token";
    let (_, seen) = admin.call("GET", path, &Value::Null);
    let revision = seen["revision"].to_string();
    let new = json!({ "token": { "integer": 7 } });
    let (status, problem) = admin.send("PUT", path, &[("If-Match", "\"99\"")], &new);
    assert_eq!((status, &problem["code"]), (412, &json!("changed")));
    let (status, set) = admin.send("PUT", path, &[("If-Match", &format!("\"{revision}\""))], &new);
    assert_eq!((status, &set["token"], &set["changed-by"]), (200, &json!({ "integer": 7 }), &json!("api first")));
    let (status, _) = admin.send("DELETE", path, &[("If-Match", &revision)], &Value::Null);
    assert_eq!(status, 412);
    let (status, back) = admin.call("POST", &format!("{path}/rewind"), &json!({}));
    assert_eq!((status, &back["token"]), (200, &seen["token"]));
    assert_eq!(admin.call("DELETE", path, &Value::Null).0, 200);
    let history = admin.get("connections/hr/types/account/token/history?limit=3");
    let whys: Vec<bool> =
        history.as_array().unwrap().iter().map(|row| row["why"].as_str().unwrap().contains("by api first")).collect();
    assert_eq!(whys, [true; 3]);
    for bad in
        [json!({}), json!({ "token": 7 }), json!({ "token": { "integer": 1.5 } }), json!({ "token": {}, "x": 1 })]
    {
        assert_eq!(admin.call("PUT", path, &bad).0, 400, "{bad}");
    }
    assert_eq!(call("PUT", &format!("{}{path}", admin.url), &[("Authorization", &admin.bearer)], "{}").0, 415);

    // One that the source refuses isn't what a rewind goes back to.
    assert_eq!(admin.call("PUT", path, &new).0, 200);
    let (status, problem) = admin.v1("POST", "connections/hr/types/account/sync?wait=30s", &Value::Null);
    assert_eq!((status, &problem["code"]), (409, &json!("connector.invalid-sync-token")), "{problem}");
    let (status, back) = admin.call("POST", &format!("{path}/rewind"), &Value::Null);
    assert_eq!((status, &back["token"]), (200, &seen["token"]), "{back}");
    assert_eq!(admin.v1("POST", "connections/hr/types/account/sync?wait=30s", &Value::Null).0, 200);
}

#[test]
fn what_is_paused_runs_for_nobody_until_it_is_resumed_and_over_a_restart() {
    let place = Place::new();
    place.people(ANN);
    place.write("connections/hr.toml", &format!("{HR}every = \"100ms\"\nfrom = \"beginning\"\n"));
    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    until("the first change comes", || !place.changes().is_empty());
    let (status, paused) = admin.v1("POST", "connections/hr/pause", &Value::Null);
    assert!(
        status == 200 && paused[0]["state"] == "paused" && paused[0]["paused"].as_str().unwrap().contains("api first"),
        "{paused}"
    );
    let (status, problem) = admin.v1("POST", "connections/hr/types/account/sync?wait=30s", &Value::Null);
    assert_eq!((status, &problem["code"]), (409, &json!("paused")), "{problem}");
    assert!(place.run("sync hr account").code == 5);
    let before = place.changes().len();
    place.people(&format!("{ANN}{BOB}"));
    drop(server.end());

    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(place.changes().len(), before, "nothing ran");
    let (status, body) = server.call("POST", "system/hr/account?_action=liveSync", &[], "");
    assert!(status == 409 && body["message"].as_str().unwrap().contains("paused"), "{body}");
    let (status, resumed) = admin.v1("POST", "connections/hr/types/account/resume", &Value::Null);
    assert_eq!((status, &resumed[0]["state"]), (200, &json!("live")), "{resumed}");
    until("what came meanwhile is told", || place.changes().len() > before);
    let (status, problem) = admin.v1("POST", "connections/hr/resume", &Value::Null);
    assert_eq!((status, &problem["code"]), (409, &json!("paused")), "{problem}");
}

/// The lines of a stream of events.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(caller: &Caller, path: &str, more: &str) -> Self {
        let address = caller.url.trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let of = format!("Host: {address}\r\nAuthorization: {}\r\nConnection: close\r\n", caller.bearer);
        let head = format!("GET {path} HTTP/1.1\r\n{of}{more}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut events = Self(BufReader::new(stream));
        let status = events.line().unwrap();
        assert!(status.contains("200"), "{status}");
        events
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).unwrap();
        (read > 0).then_some(line)
    }

    /// The next event: its id, and its data.
    fn next(&mut self) -> Option<(String, Value)> {
        let (mut id, clock) = (String::new(), Clock::start());
        loop {
            let line = self.line()?;
            assert!(clock.moment().0 < 30_000, "nothing is told but that the stream lives");
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.trim().to_owned();
            }
            if let Some(text) = line.strip_prefix("data: ") {
                return Some((id, serde_json::from_str(text).unwrap()));
            }
        }
    }
}

#[test]
fn changes_come_by_page_by_wait_and_as_a_stream_that_goes_on_where_it_ended() {
    let (place, server, admin) = served();
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    admin.v1("POST", "reload", &Value::Null);
    let sync = || admin.v1("POST", "connections/hr/types/account/sync?wait=30s", &Value::Null);
    let mut live = Events::open(&admin, "/api/v1/changes/stream?connection=hr", "");
    assert_eq!(sync().0, 200);
    let (first, change) = live.next().unwrap();
    assert_eq!((&change["uid"], &change["id"]), (&json!("1"), &json!(first)));

    place.people(&format!("{ANN}{BOB}"));
    assert_eq!(sync().0, 200);
    let (second, change) = live.next().unwrap();
    assert_eq!(change["uid"], "2");
    let mut again = Events::open(&admin, "/api/v1/changes/stream", &format!("Last-Event-ID: {first}\r\n"));
    assert_eq!(again.next().unwrap().0, second, "no more and no less");
    let mut one = Events::open(&admin, "/api/v1/changes/stream?after=0&uid=2", "");
    assert_eq!(one.next().unwrap().0, second);

    let page = admin.get("changes?limit=1");
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (1, &json!(first)));
    let page = admin.get(&format!("changes?after={first}"));
    assert_eq!(page["items"][0]["id"], second);
    assert_eq!(admin.get(&format!("changes/{second}"))["uid"], "2");
    assert_eq!(admin.get("changes?uid=2&kind=create-or-update")["items"].as_array().unwrap().len(), 1);
    assert_eq!(admin.get("changes?connection=hr&type=robot")["items"], json!([]));

    let waits = std::thread::scope(|scope| {
        let asked = scope.spawn(|| admin.get(&format!("changes?after={second}&wait=30s")));
        std::thread::sleep(Duration::from_millis(200));
        place.people(&format!("{ANN}{BOB}3,c@x,2026-03-03T08:00:00Z,\n"));
        assert_eq!(sync().0, 200);
        asked.join().unwrap()
    });
    assert_eq!(waits["items"][0]["uid"], "3");
    // One that is too large to wait for those who listen is told at once as any other.
    let large = format!("4,{}@x,2026-03-04T08:00:00Z,\n", "d".repeat(40_000));
    place.people(&format!("{ANN}{BOB}3,c@x,2026-03-03T08:00:00Z,\n{large}"));
    assert_eq!(sync().0, 200);
    let told: Vec<Value> = (0..2).map(|_| live.next().unwrap().1["uid"].clone()).collect();
    assert_eq!(told, ["3", "4"]);
    let found = admin.get("changes?uid=3&limit=1");
    assert_eq!((found["items"].as_array().unwrap().len(), &found["items"][0]["id"]), (1, &found["next"]));
    for (query, status) in
        [("limit=0", 400), ("limit=1001", 400), ("after=x", 400), ("wait=61s", 400), ("colour=red", 400)]
    {
        assert_eq!(admin.v1("GET", &format!("changes?{query}"), &Value::Null).0, status, "{query}");
    }
    let (status, problem) = admin.v1("GET", "changes/stream?after=1000", &Value::Null);
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("1000"), "not there yet: {problem}");
    let other = "ffffffffffffffff-1";
    let (status, problem) = admin.v1("GET", &format!("changes?after={other}"), &Value::Null);
    assert_eq!((status, &problem["code"]), (400, &json!("incarnation-changed")));

    // Whoever's token is revoked is told nothing any more, by whatever waits.
    let tail = admin.get("changes?limit=1000")["next"].as_str().unwrap().to_owned();
    let waits = with_role(&server, &admin, "waits", "read");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| waits.v1("GET", &format!("changes?after={tail}&wait=30s"), &Value::Null));
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(admin.v1("DELETE", "access/waits", &Value::Null).0, 200);
        assert_eq!(admin.call("DELETE", "/api/v1/connections/hr/types/account/token", &Value::Null).0, 200);
        assert_eq!(asked.join().unwrap().0, 401);
    });
    let reader = with_role(&server, &admin, "reader", "read");
    let mut stream = Events::open(&reader, "/api/v1/changes/stream", "");
    assert_eq!(admin.v1("DELETE", "access/reader", &Value::Null).0, 200);
    let clock = Clock::start();
    while stream.line().is_some() {
        assert!(clock.moment().0 < 30_000, "the stream goes on");
    }
    assert_eq!(reader.v1("GET", "changes", &Value::Null).0, 401);
    let another = with_role(&server, &admin, "another", "read");
    assert_eq!(another.v1("GET", "changes?sensitive=true", &Value::Null).0, 403);
    let audit = admin.audited();
    assert!(audit.lines().any(|line| line.contains("not-allowed") && line.contains("what is sensitive")), "{audit}");
}

#[test]
fn one_access_token_leaves_room_for_others() {
    let place = Place::new();
    place.people(ANN);
    place.write("tidewaiter.toml", "[http]\nlisten = \"127.0.0.1:0\"\nclients = 8\n");
    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    let greedy = with_role(&server, &admin, "greedy", "read");
    let stream = "/api/v1/changes/stream";
    let open: Vec<Events> = (0..4).map(|_| Events::open(&greedy, stream, "")).collect();
    let (status, problem) = greedy.call("GET", stream, &Value::Null);
    assert_eq!((status, &problem["code"]), (429, &json!("too-many-requests")), "{problem}");
    assert_eq!(greedy.v1("GET", "changes?after=0&wait=1s", &Value::Null).0, 429);
    assert_eq!(greedy.v1("GET", "changes?after=0", &Value::Null).0, 200, "what doesn't wait takes no place");
    drop(Events::open(&admin, stream, ""));
    assert_eq!(admin.v1("GET", "changes?after=0&wait=1s", &Value::Null).0, 200);
    drop(open);
    until("the places are free", || greedy.v1("GET", "changes?after=0&wait=1s", &Value::Null).0 == 200);
}

#[test]
fn a_consumer_reads_on_where_it_acknowledged_and_nobody_does_that_for_it() {
    let (place, server, admin) = served();
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    admin.v1("POST", "reload", &Value::Null);
    place.people(&format!("{ANN}{BOB}"));
    admin.v1("POST", "connections/hr/types/account/sync?wait=30s", &Value::Null);
    assert_eq!(admin.v1("POST", "consumers", &json!({ "name": "warehouse" })).0, 200);
    assert_eq!(admin.v1("POST", "consumers", &json!({ "name": "warehouse" })).0, 409);
    let (own, other) = (with_role(&server, &admin, "warehouse", "read"), with_role(&server, &admin, "shop", "read"));
    let changes = own.get("consumers/warehouse/changes?limit=1");
    let first = changes["items"][0]["id"].clone();
    let upto = json!({ "upto": first });
    assert_eq!(other.v1("POST", "consumers/warehouse/acknowledge", &upto).0, 403);
    let (status, view) = own.v1("POST", "consumers/warehouse/acknowledge", &upto);
    assert_eq!((status, &view["behind"]), (200, &json!(1)), "{view}");
    assert_eq!(own.get("consumers/warehouse/changes")["items"][0]["uid"], "2");
    assert_eq!(own.v1("GET", "consumers/shop/changes", &Value::Null).0, 404);
    assert_eq!(admin.v1("DELETE", "consumers/warehouse", &Value::Null), (200, json!([])));
}

#[test]
fn the_same_request_with_the_same_key_is_done_once() {
    let (_place, server, admin) = served();
    let key = [("Idempotency-Key", "4f6a")];
    let send = |body: &Value| admin.send("POST", "/api/v1/access", &key, body);
    let wanted = json!({ "name": "once", "role": "read" });
    let (status, first) = send(&wanted);
    assert_eq!(status, 200, "{first}");
    assert_eq!(send(&wanted), (200, first));
    let (status, problem) = send(&json!({ "name": "twice", "role": "read" }));
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency-key-used")));
    assert_eq!(admin.v1("POST", "access", &wanted).0, 409, "without the key it is another request");
    // Another one's key is another key.
    let other = with_role(&server, &admin, "other", "admin");
    assert_eq!(other.send("POST", "/api/v1/access", &key, &json!({ "name": "third", "role": "read" })).0, 200);
    // What wasn't done is tried again.
    let again = [("Idempotency-Key", "9c01")];
    assert_eq!(admin.send("POST", "/api/v1/access", &again, &wanted).0, 409);
    assert_eq!(admin.v1("DELETE", "access/once", &Value::Null).0, 200);
    assert_eq!(admin.send("POST", "/api/v1/access", &again, &wanted).0, 200);
    let long = "x".repeat(256);
    assert_eq!(admin.send("POST", "/api/v1/access", &[("Idempotency-Key", &long)], &wanted).0, 400);
}

#[test]
fn connections_are_made_changed_and_removed_where_the_api_says_which_there_are() {
    let (_place, _server, admin) = served();
    let written = json!({ "connection": { "connector": "csv" }, "grants": {} });
    let (status, problem) = admin.v1("PUT", "connections/crm/document", &written);
    assert!(status == 409 && problem["code"] == "configuration", "{problem}");

    let place = Place::empty();
    place.install("csv");
    place.people(ANN);
    place.write("tidewaiter.toml", "config.source = \"api\"\n[http]\nlisten = \"127.0.0.1:0\"\n");
    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    let folder = place.path("people").display().to_string();
    let crm = |every: &str| {
        json!({
            "connection": {
                "connector": "csv",
                "settings": { "folder": folder, "uid": "id", "updated_at": "updated_at", "settle_ms": 0 },
                "types": { "account": { "class": "account", "from": "beginning", "every": every } }
            },
            "grants": { "read": [folder] }
        })
    };
    let path = "/api/v1/connections/crm/document";
    let (status, made) = admin.send("PUT", path, &[("If-None-Match", "*")], &crm("1h"));
    assert_eq!((status, &made["added"]), (200, &json!(["crm"])), "{made}");
    until("it runs", || !place.changes().is_empty());
    assert_eq!(admin.send("PUT", path, &[("If-None-Match", "*")], &crm("1h")).0, 412);
    assert_eq!(admin.send("PUT", path, &[("If-Match", "\"abc\"")], &crm("2h")).0, 412);
    let (status, changed) = admin.send("PUT", path, &[("If-Match", "*")], &crm("2h"));
    assert!(status == 200 && changed["changed"]["crm"].is_array(), "{changed}");
    let (_, document) = admin.call("GET", path, &Value::Null);
    assert_eq!(document["connection"]["types"]["account"]["every"], "2h");
    let mut wrong = crm("2h");
    wrong["connection"]["typos"] = json!({});
    let (status, problem) = admin.call("PUT", path, &wrong);
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("typos"), "{problem}");
    assert_eq!(admin.call("DELETE", path, &Value::Null).0, 200);
    assert_eq!(admin.call("GET", path, &Value::Null).0, 404);
    assert_eq!(admin.call("DELETE", path, &Value::Null).0, 404);
    let audit = std::fs::read_to_string(place.path("data/audit.ndjson")).unwrap();
    assert!(audit.lines().filter(|line| line.contains("\"by\":\"api first\"") && line.contains("crm")).count() >= 3);
}

#[test]
fn what_is_asked_amiss_is_a_problem_with_a_code() {
    let (_place, server, admin) = served();
    let reference = admin.get("reference");
    for (method, path, body, status, code) in [
        ("GET", "nothing/here", json!(null), 404, "unknown"),
        ("PATCH", "connections", json!(null), 405, "no-such-method"),
        ("GET", "connections/crm", json!(null), 404, "unknown"),
        ("GET", "connections/a%20b", json!(null), 404, "unknown"),
        ("GET", "connections/hr/types/robot", json!(null), 404, "unknown"),
        ("GET", "runs/999", json!(null), 404, "unknown"),
        ("GET", "runs?connection=hr", json!(null), 400, "bad-request"),
        ("GET", "operations/abc", json!(null), 404, "unknown"),
        ("GET", "dead-letters/7", json!(null), 404, "unknown"),
        ("POST", "connections/hr/types/account/guard/release", json!(null), 409, "held"),
        ("POST", "connectors/csv/approve", json!({ "id": "abc" }), 409, ""),
        ("POST", "connectors/deny", json!({ "files": ["abc"] }), 400, "bad-request"),
        ("POST", "access", json!({ "name": "x", "role": "root" }), 400, "bad-request"),
        ("POST", "access", json!({ "name": "../x", "role": "read" }), 400, "bad-request"),
        (
            "POST",
            "access",
            json!({ "name": "x", "role": "read", "expires": "2020-01-01T00:00:00Z" }),
            400,
            "bad-request",
        ),
        ("DELETE", "access/nobody", json!(null), 404, "unknown"),
    ] {
        let (answered, problem) = admin.v1(method, path, &body);
        assert!(answered == status || code.is_empty(), "{method} {path}: {answered} {problem}");
        assert!(code.is_empty() || problem["code"] == code, "{method} {path}: {problem}");
        assert_eq!(problem["status"], answered, "{method} {path}: {problem}");
        let explained = problem["type"].as_str().unwrap().split_once('#').unwrap().1;
        assert!(reference.as_str().unwrap().contains(&format!("id=\"{explained}\"")), "{explained}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    }
    let huge = json!({ "name": "x".repeat(1_100_000) });
    assert_eq!(admin.v1("POST", "access", &huge).0, 413);
    assert_eq!(call("GET", &format!("{}/healthz", server.url()), &[], "").0, 200);
    assert_eq!(call("GET", &format!("{}/readyz", server.url()), &[], ""), (200, json!({ "status": "ok" })));
}

#[test]
fn a_connection_is_checked_brought_up_and_read_whole() {
    let (place, _server, admin) = served();
    place.csv("big", &rows(1..=60_000, 2026), "");
    place.csv("closed", "", "");
    place.write("grants/closed.toml", "");
    place.csv("much", &rows(1..=300, 2026), "from = \"beginning\"\n[limits]\nrun-deltas = 100\n");
    assert_eq!(admin.v1("POST", "reload", &Value::Null).0, 200);
    let problems = |name: &str| {
        let (status, found) = admin.v1("POST", &format!("connections/{name}/check"), &Value::Null);
        assert_eq!(status, 200, "{found}");
        (found["problems"].as_array().unwrap().len(), found["add"].as_array().unwrap().len())
    };
    assert_eq!((problems("hr"), problems("closed")), ((0, 0), (1, 1)));
    assert_eq!(admin.v1("POST", "connections/nobody/check", &Value::Null).0, 404);

    let (status, done) = admin.v1("POST", "connections/hr/bring-up?wait=30s", &Value::Null);
    assert_eq!((status, &done["action"], &done["standing"]), (200, &json!("bring-up"), &json!("succeeded")), "{done}");
    assert_eq!(place.changes().len(), 1, "the object that was there");
    let (status, done) = admin.v1("POST", "connections/much/bring-up?wait=30s", &Value::Null);
    let first = &done["result"]["bring-up"][0];
    assert_eq!((status, &first["established"]["outcome"]), (200, &json!("ok")), "as many runs as it takes: {done}");
    assert_eq!(first["reconciled"]["read"], 300, "{done}");
    let (status, problem) = admin.v1("POST", "connections/closed/bring-up?wait=30s", &Value::Null);
    assert!(status >= 400 && problem["code"].is_string(), "a failed action is no success: {status} {problem}");
    assert_eq!(admin.v1("POST", "connections/nobody/bring-up", &Value::Null).0, 404);

    let pass = "connections/big/types/account/pass";
    assert_eq!(admin.v1("DELETE", pass, &Value::Null).0, 404, "there is none");
    let reconcile = |wait: &str, body: &Value| admin.v1("POST", &format!("connections/{wait}"), body);
    let one = "hr/types/account/reconcile?wait=30s";
    let (status, problem) = reconcile(one, &json!({ "uid": "1" }));
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("by its uid"), "csv can't: {problem}");
    for bad in [json!({ "gone": true }), json!({ "uid": "1", "full": true }), json!({ "dry_run": true })] {
        assert_eq!(reconcile(one, &bad).0, 400, "{bad}");
    }
    let (status, begun) = reconcile("big/types/account/reconcile", &Value::Null);
    assert_eq!(status, 202, "{begun}");
    let cancelled = || admin.v1("DELETE", pass, &Value::Null).0 == 200;
    until("there is something to cancel", cancelled);
    let operation = format!("operations/{}", begun["id"].as_str().unwrap());
    until("it ends", || admin.get(&operation)["standing"] != "active");
    let ended = admin.get(&operation);
    assert_eq!((&ended["standing"], &ended["problem"]["code"]), (&json!("failed"), &json!("cancelled")), "{ended}");
    assert_eq!(admin.v1("DELETE", pass, &Value::Null).0, 404, "there is none any more");
}

#[test]
fn what_an_inline_sink_lacks_is_no_success() {
    let place = Place::new();
    place.people(ANN);
    let sink = "[sinks.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/in\"\ninline = true\n";
    place.write("tidewaiter.toml", &format!("[http]\nlisten = \"127.0.0.1:0\"\n{sink}"));
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    let (status, problem) = admin.v1("POST", "connections/hr/types/account/sync?wait=30s", &Value::Null);
    assert_eq!((status, &problem["code"]), (503, &json!("undelivered")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("sink hook"), "{problem}");
    assert_eq!(place.changes().len(), 1, "it is journaled all the same");
}

#[test]
fn another_file_of_a_connector_is_approved_and_taken_back() {
    let place = Place::empty();
    place.install("hostile");
    place.write("tidewaiter.toml", "[http]\nlisten = \"127.0.0.1:0\"\n");
    let of_it = "connector = \"hostile\"\n[settings]\ndo = \"person\"\nmore = \"https://more.example.org\"\n[types.account]\nclass = \"account\"\n";
    for name in ["one", "two"] {
        place.write(&format!("connections/{name}.toml"), of_it);
        place.write(&format!("grants/{name}.toml"), "http = [\"https://more.example.org\"]\n");
    }
    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    let act = |path: &str, body: &Value| admin.v1("POST", path, body);
    for name in ["one", "two"] {
        let (status, done) = act(&format!("connections/{name}/types/account/sync?wait=30s"), &Value::Null);
        assert_eq!(status, 200, "{done}");
    }
    let refused = act("connectors/hostile/rollback", &json!({}));
    assert_eq!(refused.0, 409, "there is nothing to go back to: {}", refused.1);

    let component = std::fs::read(place.path("connectors/hostile.wasm")).unwrap();
    place.save("hostile", &patched(component, "describe:well-behaved", "describe:asks-more   "));
    server.wait_for("asks for more than was approved", 0);
    let awaits = |name: &str| admin.get(&format!("connections/{name}"))["awaits-approval"].clone();
    until("both ask", || ["one", "two"].iter().all(|name| awaits(name).is_string()));
    let awaiting = || admin.get("connectors")[0]["awaits-approval"].clone();
    assert_eq!(awaiting(), json!(["one", "two"]));
    let (status, problem) = act("connections/one/approve", &json!({ "id": "00112233445566778899aabbccddeeff" }));
    assert_eq!((status, &problem["code"]), (412, &json!("changed")), "another list than was seen: {problem}");
    assert!(problem["detail"].as_str().unwrap().contains(awaits("one").as_str().unwrap()), "{problem}");
    let (status, approved) = act("connections/one/approve", &json!({ "id": awaits("one") }));
    assert!(status == 200 && approved["awaits-approval"].is_null(), "{approved}");
    assert_eq!(awaiting(), json!(["two"]));
    let (status, files) = act("connectors/hostile/approve", &json!({ "id": awaits("two") }));
    assert_eq!(status, 200, "{files}");
    assert_eq!(awaiting(), json!([]));

    let runs = || {
        admin
            .get("connectors/hostile/revisions")
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["runs"].clone())
            .collect::<Vec<_>>()
    };
    until("both run it", || runs()[0] == json!(["one", "two"]));
    let (status, files) = act("connectors/hostile/rollback", &json!({}));
    assert_eq!(status, 200, "{files}");
    until("both went back", || runs()[1] == json!(["one", "two"]));
    let (status, problem) = act("connectors/hostile/rollback", &json!({ "to": "000000" }));
    assert_eq!((status, &problem["code"]), (404, &json!("unknown")), "{problem}");
}

#[test]
fn what_is_erased_is_gone_for_whoever_asks() {
    let (place, server, admin) = served();
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    admin.v1("POST", "reload", &Value::Null);
    admin.v1("POST", "connections/hr/types/account/sync?wait=30s", &Value::Null);
    let text = |caller: &Caller| caller.get("changes").to_string();
    assert!(text(&admin).contains("a@x"));
    let one = json!({ "uid": "1" });
    let operator = with_role(&server, &admin, "operator", "operate");
    assert_eq!(operator.v1("POST", "connections/hr/erase", &one).0, 403);
    assert_eq!(admin.v1("POST", "connections/hr/erase", &one), (200, json!({ "entries": 1 })));
    assert!(!text(&admin).contains("a@x"), "{}", text(&admin));
    assert_eq!(admin.v1("POST", "connections/crm/erase", &one).0, 404);
}

/// What comes back to bytes that are sent as they are, until the server hangs up or says no more for a while.
fn answer(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // It may hang up before it has all.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        said.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn what_makes_no_sense_is_refused_and_harms_nobody() {
    let (_place, server, admin) = served();
    let bearer = &admin.bearer;
    let head = format!("Host: localhost\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n");
    let post = |rest: &str| format!("POST /api/v1/access HTTP/1.1\r\n{head}{rest}");
    let long = "x".repeat(200_000);
    let refused = [
        "nonsense\r\n\r\n".to_owned(),
        format!("GET /api/v1/connections HTTP/9.9\r\n{head}\r\n"),
        format!("GET /api/v1/connections HTTP/1.1\r\n{head}no colon\r\n\r\n"),
        format!("GET /api/v1/connections HTTP/1.1\r\n{head}X: \0\r\n\r\n"),
        format!("GET /api/v1/connections HTTP/1.1\r\nHost: evil.example.org\r\nAuthorization: {bearer}\r\n\r\n"),
        "GET http://evil.example.org/api/v1/connections HTTP/1.1\r\nHost: evil.example.org\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\n{head}\r\n"),
        format!("GET /api/v1/connections HTTP/1.1\r\n{head}X: {long}\r\n\r\n"),
        format!("GET /api/v1/connections HTTP/1.1\r\n{head}{}\r\n", "X: y\r\n".repeat(2000)),
        format!("GET /api/v1/connections/%00 HTTP/1.1\r\n{head}\r\n"),
        format!("GET /api/v1/connections/%ff HTTP/1.1\r\n{head}\r\n"),
        format!("GET /api/v1/../../etc/passwd HTTP/1.1\r\n{head}\r\n"),
        format!("GET /api/v1/changes/stream HTTP/1.1\r\n{head}Last-Event-ID: \u{1b}[2J\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "CONNECT evil.example.org:443 HTTP/1.1\r\nHost: evil.example.org\r\n\r\n".to_owned(),
        post("Content-Length: -1\r\n\r\n{}"),
        post("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        post("Content-Length: 99999999999999999999\r\n\r\n{}"),
        post("Content-Length: 2000000000\r\n\r\n{}"),
        post("Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
        post("Transfer-Encoding: gzip\r\n\r\n{}"),
        post("Content-Length: 3\r\n\r\n{\"a"),
        post(&format!("Content-Length: 100000\r\n\r\n{}", "[".repeat(100_000))),
        post("Content-Length: 4\r\n\r\n\u{fe}\u{ff}"),
        "\u{16}\u{3}\u{1}\u{2}".repeat(100),
    ];
    for request in &refused {
        let said = answer(&server, request.as_bytes());
        let status = said.split(' ').nth(1).unwrap_or("nothing");
        let shown = request.get(..request.len().min(200)).unwrap_or_default();
        assert!(status == "nothing" || status.starts_with('4') || status == "505", "{shown:?}: {said}");
        assert!(!said.contains("root:") && !said.contains("\u{1b}"), "{said}");
    }
    let two = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.org\r\n\r\n";
    assert!(answer(&server, two.as_bytes()).contains(" 400 "), "one of two hosts");
    // What follows a request that ends amiss is not taken for another one of somebody's.
    let smuggled = post(
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert!(!answer(&server, smuggled.as_bytes()).contains("HTTP/1.1 200"));
    assert!(admin.get("access").as_array().unwrap().len() == 1, "none of it made an access token");
    assert!(!server.log().iter().any(|line| line.contains("bug") || line.contains("panic")), "{:?}", server.log());
}

/// They write a byte now and then, or never read: their places are taken back, and meanwhile others are answered.
#[test]
fn who_is_slow_loses_its_place_and_holds_up_nobody() {
    let place = Place::new();
    place.people(&rows(1..=40_000, 2026));
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    place.write("tidewaiter.toml", "[http]\nlisten = \"127.0.0.1:0\"\nclients = 12\n");
    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    assert_eq!(admin.v1("POST", "connections/hr/types/account/sync?wait=60s", &Value::Null).0, 200);
    let address = server.url().trim_start_matches("http://").to_owned();
    let bearer = admin.bearer.clone();
    let line = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n")
    };
    let open = |sent: String| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        stream
    };
    let head = || open(line("GET", "/healthz"));
    let body = || open(format!("{}Content-Length: 1000\r\n\r\n", line("POST", "/api/v1/access")));
    let deaf = || open(format!("{}\r\n", line("GET", "/api/v1/changes/stream?after=0")));
    let clock = Clock::start();
    let mut slow: Vec<TcpStream> = (0..3).flat_map(|_| [head(), body(), deaf()]).collect();
    let hung_up = |stream: &mut TcpStream| stream.write_all(b"x").is_err();
    let mut slowest = 0;
    let mut writing: Vec<TcpStream> =
        slow.iter().enumerate().filter(|(at, _)| at % 3 < 2).map(|(_, stream)| stream.try_clone().unwrap()).collect();
    while !writing.is_empty() {
        let before = clock.moment().0;
        assert_eq!(admin.v1("GET", "connections", &Value::Null).0, 200);
        slowest = slowest.max(clock.moment().0 - before);
        writing.retain_mut(|stream| !hung_up(stream));
        std::thread::sleep(Duration::from_millis(500));
        assert!(clock.moment().0 < 60_000, "{} still have their place", writing.len());
    }
    assert!(slowest < 5_000, "{slowest} ms");
    // More who don't listen than there are places.
    slow.extend((0..12).map(|_| deaf()));
    let waits = std::thread::spawn(move || admin.v1("GET", "connections", &Value::Null).0);
    assert_eq!(waits.join().unwrap(), 200, "when their places are taken back");
    drop(slow);
    assert_eq!(server.end().0, 0);
}

#[test]
fn who_asks_too_much_waits_and_others_do_not() {
    let place = Place::new();
    place.people(ANN);
    place.write("tidewaiter.toml", "[http]\nlisten = \"127.0.0.1:0\"\nrequests-per-second = 20\n");
    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    let other = with_role(&server, &admin, "other", "read");
    let limited = (0..200).any(|_| admin.v1("GET", "reload", &Value::Null).0 == 429);
    assert!(limited, "200 requests at once are more than 20 a second");
    let limited = (0..200).any(|_| other.v1("POST", "reload", &Value::Null).0 == 429);
    assert!(limited, "what is refused is counted, too");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(other.v1("GET", "reload", &Value::Null).0, 200, "another one's share is its own");
    let stranger = Caller::new(&server, "tw_0000");
    let statuses: Vec<u16> = (0..300).map(|_| stranger.v1("GET", "reload", &Value::Null).0).collect();
    assert!(statuses.contains(&401) && statuses.contains(&429), "guessing is slow");
}

#[test]
fn access_is_given_and_taken_by_the_command_line_too() {
    let (place, server, _admin) = served();
    let ended = place.run("access add ops --role operate --expires 90d");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let ops = Caller::new(&server, ended.stdout.trim());
    assert_eq!(ops.v1("GET", "connections", &Value::Null).0, 200);
    assert_eq!(ops.v1("GET", "access", &Value::Null).0, 403);
    let listed: Value = serde_json::from_str(&place.run("access list --json").stdout).unwrap();
    assert!(listed.to_string().contains("\"operate\"") && !listed.to_string().contains(ended.stdout.trim()));
    assert_eq!(place.run("access add ops --role read").code, 5);
    assert_eq!(place.run("access add old --role read --expires 2020-01-01T00:00:00Z").code, 2);
    assert_eq!(place.run("access add x --role root").code, 2);
    assert_eq!(place.run("access revoke ops").code, 0);
    assert_eq!(ops.v1("GET", "connections", &Value::Null).0, 401);
    assert_eq!(place.run("access revoke ops").code, 3);
    for line in server.log().iter().chain(std::fs::read_to_string(place.path("data/audit.ndjson")).iter()) {
        assert!(!line.contains(ended.stdout.trim()), "no log has it");
    }
}

#[test]
fn over_tls_others_may_ask_and_a_new_certificate_counts_without_a_restart() {
    let place = Place::new();
    place.people(ANN);
    let [first, second] = [(); 2].map(|()| Authority::new());
    let write = |authority: &Authority| {
        let (certificate, key) = authority.sign(&["idm.example.org"]);
        place.write("key.pem", &key);
        place.write("cert.pem", &certificate);
    };
    write(&first);
    let http = "[http]\nlisten = \"0.0.0.0:0\"\nhosts = [\"idm.example.org\"]\n";
    place.write("tidewaiter.toml", http);
    assert_eq!(place.run("check").code, 2, "from elsewhere only over TLS");
    place.write("tidewaiter.toml", &format!("{http}tls = {{ certificate = \"cert.pem\", key = \"key.pem\" }}\n"));
    let server = place.serve();
    let port: u16 = server.url().rsplit(':').next().unwrap().parse().unwrap();
    assert!(server.url().starts_with("https://"));
    let bearer = format!("Bearer {}", server.token());
    let get = |authority: &Authority, host: &str| {
        let head = format!("GET /api/v1/connections HTTP/1.1\r\nHost: {host}\r\nAuthorization: {bearer}\r\n");
        authority.ask(port, "idm.example.org", &head)
    };
    assert_eq!(get(&first, "idm.example.org").unwrap(), 200);
    assert_eq!(get(&first, "evil.example.org").unwrap(), 400);
    assert!(get(&second, "idm.example.org").is_err(), "another authority's");
    write(&second);
    until("the new certificate is shown", || get(&second, "idm.example.org").is_ok_and(|status| status == 200));
    place.write("cert.pem", "nonsense");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(get(&second, "idm.example.org").unwrap(), 200, "what can't be used takes nobody's place");
}

/// Everything that is in the document, tried with what it says and with what it doesn't: no bug of ours answers, and nothing is answered that it doesn't have.
#[test]
fn schemathesis_finds_nothing() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python");
    if !is_there("schemathesis", tools.join("installed-schemathesis").is_file()) {
        return;
    }
    let place = Place::new();
    place.people(&format!("{ANN}{BOB}"));
    place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    place.write("tidewaiter.toml", "[http]\nlisten = \"127.0.0.1:0\"\nrequests-per-second = 100000\n");
    let server = place.serve();
    let admin = Caller::new(&server, &server.token());
    admin.v1("POST", "connections/hr/types/account/sync?wait=30s", &Value::Null);
    admin.v1("POST", "consumers", &json!({ "name": "warehouse" }));
    // So that it meets what is there, and not only what isn't.
    place.write(
        "schemathesis.toml",
        "[parameters]\n\"path.connection\" = \"hr\"\n\"path.type\" = \"account\"\n\"path.connector\" = \"csv\"\n\"path.consumer\" = \"warehouse\"\n",
    );
    let document = place.path("openapi.json");
    std::fs::write(&document, admin.get("openapi.json").to_string()).unwrap();
    let mut tried = std::process::Command::new(tools.join("bin/python"));
    let examples = if is_quick() { "10" } else { "100" };
    // A stream has no end that could be waited for.
    let words = "-m schemathesis.cli --config-file schemathesis.toml run openapi.json --phases examples,coverage,fuzzing --checks \
                 not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth \
                 --exclude-path /api/v1/changes/stream --exclude-path /ui/live --exclude-path /api/v1/access/{name} --generation-database none --seed 1 --no-color --continue-on-failure -n";
    tried.args(words.split_whitespace()).arg(examples);
    tried.args(["--url", &server.url(), "--header", &format!("Authorization: {}", admin.bearer)]);
    let output = tried.current_dir(place.path("")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("API calls") || told.contains("generated"), "it tried something: {told}");
}

/// A browser that shows a token gets a cookie, and acts by it only where a page of this server has it ask.
#[test]
fn a_browser_acts_only_for_pages_of_this_server() {
    let (_place, server, admin) = served();
    let url = server.url();
    let form = [("Content-Type", "application/x-www-form-urlencoded"), ("Sec-Fetch-Site", "same-origin")];
    let login = |headers: &[(&str, &str)], token: &str| {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .build(),
        );
        let mut request = ureq::http::Request::builder().method("POST").uri(format!("{url}/ui/login"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = agent.run(request.body(format!("token={token}")).unwrap()).unwrap();
        let cookie = answer.headers().get("set-cookie").map(|cookie| cookie.to_str().unwrap().to_owned());
        (answer.status().as_u16(), cookie)
    };
    assert_eq!(login(&form, "tw_0"), (401, None));
    assert_eq!(login(&[form[0], ("Sec-Fetch-Site", "cross-site")], &server.token()), (403, None));
    let (status, cookie) = login(&form, &server.token());
    let cookie = cookie.unwrap();
    assert!(status == 303 && cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains(&server.token()));
    let cookie = cookie.split(';').next().unwrap();
    let ask = |method: &str, path: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("Cookie", cookie)];
        headers.extend(more);
        call(method, &format!("{url}{path}"), &headers, "")
    };
    let (status, page) = ask("GET", "/", &[]);
    assert!(status == 200 && page.as_str().unwrap().contains("/ui/connections/hr"), "{page}");
    let pause = "/api/v1/connections/hr/pause";
    for more in [&[][..], &[("Sec-Fetch-Site", "cross-site")], &[("Origin", "http://evil.example.org")]] {
        assert_eq!(ask("POST", pause, more).0, 403, "{more:?}");
    }
    for more in [("Sec-Fetch-Site", "cross-site"), ("Origin", "http://evil.example.org"), ("Origin", "null")] {
        let proxied = admin.send("POST", pause, &[more], &Value::Null);
        assert_eq!(proxied.0, 403, "whoever adds the access token: {}", proxied.1);
    }
    let (status, nobody) = ask("GET", "/ui/connections/nobody", &[("Accept", "text/html,*/*")]);
    assert!(status == 404 && nobody.as_str().unwrap().contains("<h1>Not Found</h1>"), "{nobody}");
    assert_eq!(admin.get("connections/hr/types/account")["paused"], Value::Null);
    assert_eq!(ask("POST", pause, &[("Sec-Fetch-Site", "same-origin")]).0, 200);
    assert_eq!(ask("POST", "/ui/logout", &[("Sec-Fetch-Site", "same-origin")]).0, 303);
    assert_eq!(ask("GET", "/", &[]).0, 303, "to where one logs in");
    assert_eq!(ask("POST", pause, &[("Sec-Fetch-Site", "same-origin")]).0, 401);

    // A token that is called as one that was revoked doesn't let its browsers in again.
    let old = with_role(&server, &admin, "ops", "operate");
    let (_, cookie) = login(&form, old.bearer.trim_start_matches("Bearer "));
    let cookie = cookie.unwrap();
    let look = || call("GET", &format!("{url}/"), &[("Cookie", cookie.split(';').next().unwrap())], "").0;
    assert_eq!(look(), 200);
    assert_eq!(admin.v1("DELETE", "access/ops", &Value::Null).0, 200);
    assert_eq!(look(), 303);
    let _new = with_role(&server, &admin, "ops", "operate");
    assert_eq!(look(), 303);
    // Whoever logs in again and again ends sessions of their own.
    let (_, kept) = login(&form, &server.token());
    let other = with_role(&server, &admin, "many", "read");
    for _ in 0..110 {
        assert_eq!(login(&form, other.bearer.trim_start_matches("Bearer ")).0, 303);
    }
    let kept = kept.unwrap();
    assert_eq!(call("GET", &format!("{url}/"), &[("Cookie", kept.split(';').next().unwrap())], "").0, 200);
    assert!((0..300).any(|_| login(&form, "tw_0").0 == 429), "guessing is slow");
}
