//! OpenIDM's calls, as people's scripts make them, against a real server.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tidewaiter_tests::{Place, Server, call};

const STAGE: &str = "repo/synchronisation/pooledSyncStage";
const SYNC: &str = "system?_action=liveSync&source=system/hr/account";

fn server() -> (Place, Server) {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    let server = place.serve();
    (place, server)
}

fn document(server: &Server) -> (u16, Value) {
    server.call("GET", &format!("{STAGE}/SYSTEMHRACCOUNT"), &[], "")
}

#[test]
fn every_form_of_live_sync_answers_the_tokens_document() {
    let (_place, server) = server();
    let (status, body) = server.call("POST", SYNC, &[], "");
    assert_eq!(status, 200, "{body}");
    let data = &body["connectorData"];
    assert!(data["nativeType"] == "JAVA_TYPE_BYTE_ARRAY" && data["syncToken"].is_string(), "{body}");
    let forms = [
        "system/hr/account?_action=liveSync",
        "system/?_action=liveSync&source=system/hr/account",
        "system?_action=activeSync&source=system%2Fhr%2Faccount&detailedFailure=true",
    ];
    for form in forms {
        assert_eq!(server.call("POST", form, &[], ""), (200, body.clone()), "{form}");
    }
    let all = server.call("POST", "system/hr?_action=liveSync", &[], "");
    assert_eq!(all, (200, json!({ "_id": "SYSTEMHR", "result": [body] })));
}

#[test]
fn the_tokens_document_is_read_set_and_deleted() {
    let (place, server) = server();
    let path = format!("{STAGE}/SYSTEMHRACCOUNT");
    assert_eq!(document(&server).0, 404, "nothing is held yet");
    assert_eq!(server.call("DELETE", &path, &[], "").0, 404);
    server.call("POST", SYNC, &[], "");
    let (status, held) = document(&server);
    assert_eq!(status, 200);
    let query = format!("{STAGE}?_queryFilter=true");
    let (_, list) = server.call("GET", &query, &[], "");
    assert_eq!((&list["result"], &list["resultCount"]), (&json!([held]), &1.into()));
    let (_, ids) = server.call("GET", &format!("{query}&_fields=_id"), &[], "");
    assert_eq!(ids["result"], json!([{ "_id": "SYSTEMHRACCOUNT", "_rev": held["_rev"] }]));

    // A script that saw another revision changes nothing.
    let stale = server.call("DELETE", &path, &[("If-Match", "\"77\"")], "");
    assert_eq!((stale.0, &document(&server).1), (412, &held));
    let revision = held["_rev"].as_str().unwrap();
    assert_eq!(server.call("DELETE", &path, &[("If-Match", revision)], ""), (200, held.clone()));
    assert_eq!(document(&server).0, 404);

    let written = json!({ "connectorData": held["connectorData"] }).to_string();
    let (status, set) = server.call("PUT", &path, &[], &written);
    assert_eq!((status, &set["connectorData"]), (201, &held["connectorData"]));
    place.people("1,a@y,2026-03-02T08:00:00Z,\n");
    server.call("POST", SYNC, &[], "");
    let kinds: Vec<_> = place.changes().iter().map(|entry| entry["kind"].clone()).collect();
    assert_eq!(kinds, ["token-reset", "token-set", "create-or-update"], "the set token was gone on from");
}

#[test]
fn a_token_keeps_its_type_and_bytes_from_script_to_script() {
    let (_place, server) = server();
    let path = format!("{STAGE}/systemhraccount");
    for (native, token) in [
        ("integer", json!(9_007_199_254_740_993_i64)),
        ("string", json!("2026-03-01T08:00:00.000+01:00 ü\n")),
        ("JAVA_TYPE_BYTE_ARRAY", json!("AAECAwT/")),
    ] {
        let written = json!({ "connectorData": { "nativeType": native, "syncToken": token } });
        assert!(server.call("PUT", &path, &[], &written.to_string()).0 < 300);
        assert_eq!(document(&server).1["connectorData"], written["connectorData"]);
    }
}

#[test]
fn a_refused_token_is_a_conflict_until_somebody_decides() {
    let (_place, server) = server();
    let path = format!("{STAGE}/SYSTEMHRACCOUNT");
    let foreign = json!({ "connectorData": { "nativeType": "integer", "syncToken": 1 } }).to_string();
    server.call("PUT", &path, &[], &foreign);
    let (status, body) = server.call("POST", SYNC, &[], "");
    assert_eq!((status, &body["detail"]["code"]), (409, &"connector.invalid-sync-token".into()));
    let (status, body) = server.call("POST", SYNC, &[], "");
    assert!(status == 409 && body["message"].as_str().unwrap().contains("token reset"), "{body}");
    assert_eq!(document(&server).1["connectorData"]["syncToken"], 1, "nobody skipped ahead");
    assert_eq!(server.call("DELETE", &path, &[], "").0, 200);
    assert_eq!(server.call("POST", SYNC, &[], "").0, 200);
}

#[test]
fn what_is_not_there_or_not_understood_gets_openidms_error() {
    let (place, server) = server();
    let put = format!("{STAGE}/SYSTEMHRACCOUNT");
    let huge = "x".repeat(1_100_000);
    let cases = [
        ("POST", "system?_action=liveSync", "", 400, "source"),
        ("POST", "system?_action=liveSync&source=a/b/c/d", "", 400, "a/b/c/d"),
        ("POST", "system?source=system/hr/account", "", 400, "_action"),
        ("POST", "system/hr/account?_action=dance", "", 400, "dance"),
        ("POST", "system?_action=liveSync&source=system/crm/account", "", 404, "crm/account"),
        ("POST", "system/hr/robot?_action=liveSync", "", 404, "hr/robot"),
        ("POST", "system/crm?_action=liveSync", "", 404, "crm"),
        ("GET", "system/hr/account", "", 405, "GET"),
        ("GET", "nothing/here", "", 404, "nothing/here"),
        ("GET", STAGE, "", 400, "_queryFilter"),
        ("GET", &format!("{STAGE}/SYSTEMCRMACCOUNT"), "", 404, "SYSTEMCRMACCOUNT"),
        ("PUT", &put, "{", 400, "document"),
        ("PUT", &put, "{\"connectorData\":{\"syncToken\":\"x\",\"nativeType\":\"integer\"}}", 400, "integer"),
        ("PUT", &put, &huge, 413, ""),
    ];
    for (method, path, body, status, part) in cases {
        let (answered, error) = server.call(method, path, &[], body);
        assert_eq!((answered, &error["code"]), (status, &status.into()), "{method} {path}: {error}");
        assert!(error["reason"].is_string() && error["message"].as_str().unwrap().contains(part), "{path}: {error}");
    }
    let large = json!({ "connectorData": { "syncToken": "y".repeat(70_000) } }).to_string();
    assert_eq!(server.call("PUT", &put, &[], &large).0, 400, "a token has its limit");
    assert_eq!(place.changes(), [0; 0]);
}

#[test]
fn nobody_gets_in_without_the_token_or_under_another_name() {
    let (place, server) = server();
    let url = format!("{}/{SYNC}", server.api());
    let token = std::fs::read_to_string(place.path("data/http-token")).unwrap();
    let right = format!("Bearer {}", token.trim());
    for wrong in [None, Some("Bearer"), Some("Bearer x"), Some("Basic eDp5"), Some(&right[..right.len() - 1])] {
        let headers: Vec<_> = wrong.iter().map(|value| ("Authorization", *value)).collect();
        assert_eq!(call("POST", &url, &headers, "").0, 401, "{wrong:?}");
    }
    assert_eq!(call("POST", &url, &[("Authorization", &right), ("Host", "evil.example.org")], "").0, 400);
    assert_eq!(call("POST", &url, &[("Authorization", &right)], "").0, 200);
    assert!(!server.log().iter().any(|line| line.contains(token.trim())), "the log has no secret");
}

#[test]
fn a_failed_run_is_told_with_its_code() {
    let (place, server) = server();
    place.people("1,a@x,last Tuesday,\n");
    let (status, body) = server.call("POST", SYNC, &[], "");
    assert!((500..=504).contains(&status) && body["message"].as_str().unwrap().contains("people.csv"), "{body}");
    assert!(body["detail"]["code"].as_str().unwrap().starts_with("connector."), "{body}");
}

/// Somebody sets the token and hangs up at some instant: it is set, and runs go on from there, or it isn't.
/// Who says nothing takes no place for ever, and no more files of the server's than there are places.
#[test]
fn silent_clients_are_bounded() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    place.write("tidewaiter.toml", "[http]\nlisten = \"127.0.0.1:0\"\nclients = 64\n");
    let server = place.serve();
    let address = server.api().split('/').nth(2).unwrap().to_owned();
    let silent: Vec<std::net::TcpStream> = (0..100).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    let is_socket = |entry: &std::io::Result<std::fs::DirEntry>| {
        let target = entry.as_ref().ok().and_then(|entry| std::fs::read_link(entry.path()).ok());
        target.is_some_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let sockets = || std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().filter(is_socket).count();
    // Until it takes no more.
    let (mut open, mut same) = (0, 0);
    while same < 20 {
        std::thread::sleep(Duration::from_millis(10));
        let now = sockets();
        same = if now == open && now >= 64 { same + 1 } else { 0 };
        open = now;
    }
    assert!(open < 80, "{open} sockets");
    drop(silent);
    assert_eq!(document(&server).0, 404, "answered, before any of them is thrown out");
}

#[test]
fn a_client_that_hangs_up_leaves_no_run_behind() {
    let place = Place::new();
    place.install("synthetic");
    let made = "connector = \"synthetic\"\n[settings]\nlast = 1000\n[types.account]\nclass = \"account\"\n";
    place.write("connections/hr.toml", made);
    let server = place.serve();
    let address = server.api().trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let secret = std::fs::read_to_string(place.path("data/http-token")).unwrap();
    for round in 0..40_u64 {
        let body = json!({ "connectorData": { "nativeType": "integer", "syncToken": 900 + round } }).to_string();
        let head = format!(
            "PUT /openidm/{STAGE}/SYSTEMHRACCOUNT HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            secret.trim(),
            body.len()
        );
        let mut client = TcpStream::connect(&address).unwrap();
        client.write_all((head + &body).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_micros(round * 40));
        drop(client);
        // One of them may be superseded, and on a busy machine the token may be set after them all: then another one goes on from it.
        let (mut ended, mut is_stored) = (Vec::new(), false);
        while !is_stored && ended.len() < 6 {
            ended.extend([place.run("sync hr account"), place.run("sync hr account")]);
            is_stored = place.run("token get hr account").stdout.contains("1000");
        }
        let last = ended.last().unwrap();
        assert!(last.code == 0 && last.stdout.ends_with(" 1000\n"), "round {round}: {ended:?}");
        assert!(is_stored, "round {round}: what is stored is what ran");
    }
}

#[test]
fn systems_are_tested_and_connectors_listed_as_openidm_does() {
    let (place, server) = server();
    server.call("POST", SYNC, &[], "");
    let (status, all) = server.call("POST", "system?_action=test", &[], "");
    assert_eq!(status, 200, "{all}");
    let (status, one) = server.call("POST", "system/hr?_action=test", &[], "");
    assert_eq!((status, &json!([one])), (200, &all));
    assert_eq!((&one["name"], &one["ok"], &one["enabled"]), (&json!("hr"), &json!(true), &json!(true)), "{one}");
    assert_eq!(one["objectTypes"], json!(["__ALL__", "account"]));
    assert_eq!(one["connectorRef"]["connectorName"], "csv");
    let (_, connectors) = server.call("POST", "system?_action=availableConnectors", &[], "");
    let reference = &connectors["connectorRef"][0];
    assert_eq!((&reference["connectorName"], &reference["systemType"]), (&json!("csv"), &json!("provisioner.openicf")));
    assert!(reference["bundleVersion"].as_str().is_some_and(|version| !version.is_empty()), "{connectors}");

    std::fs::remove_dir_all(place.path("people")).unwrap();
    let (status, broken) = server.call("POST", "system/hr?_action=test", &[], "");
    assert!(status == 200 && broken["ok"] == false && broken["error"].is_string(), "{broken}");
    assert_eq!(server.call("POST", "system/crm?_action=test", &[], "").0, 404);
}

#[test]
fn reconciliations_are_begun_followed_and_waited_for() {
    let (place, server) = server();
    server.call("POST", SYNC, &[], "");
    place.people("1,a@x,2026-03-01T08:00:00Z,\n2,b@x,2026-02-01T08:00:00Z,\n");
    let mapping = "recon?_action=recon&mapping=systemHrAccount_managedUser&waitForCompletion=true";
    let (status, done) = server.call("POST", mapping, &[], "");
    assert_eq!((status, &done["state"]), (200, &json!("SUCCESS")), "{done}");
    let id = done["_id"].as_str().unwrap();
    let (_, shown) = server.call("GET", &format!("recon/{id}"), &[], "");
    assert_eq!((&shown["state"], &shown["stage"]), (&json!("SUCCESS"), &json!("COMPLETED_SUCCESS")), "{shown}");
    assert_eq!(shown["progress"]["source"]["existing"]["processed"], 2, "{shown}");
    let uids: Vec<_> = place.changes().iter().map(|entry| entry["uid"].clone()).collect();
    assert_eq!(uids, ["1", "2"], "what live sync had skipped");

    let plural = "recon?_action=recon&mapping=systemHrAccounts_managedUser&waitForCompletion=true";
    assert_eq!(server.call("POST", plural, &[], "").0, 200);
    let by_source = "recon?_action=recon&source=system/hr/account";
    let (status, begun) = server.call("POST", by_source, &[], "");
    assert!(status == 200 && ["ACTIVE", "SUCCESS"].contains(&begun["state"].as_str().unwrap()), "{begun}");
    let one = "recon?_action=reconById&mapping=systemHrAccount_managedUser&ids=2&waitForCompletion=true";
    let (status, refused) = server.call("POST", one, &[], "");
    assert!(status == 400 && refused["message"].as_str().unwrap().contains("by its uid"), "{refused}");
    let (_, all) = server.call("GET", "recon", &[], "");
    assert_eq!(all["reconciliations"].as_array().unwrap().len(), 4);
    let failed = all["reconciliations"].as_array().unwrap().iter().find(|one| one["state"] == "FAILED").unwrap();
    assert_eq!(failed["stage"], "COMPLETED_FAILED");
    assert!(failed["stageDescription"].as_str().unwrap().contains("by its uid"), "{failed}");
    let cancel = format!("recon/{}?_action=cancel", failed["_id"].as_str().unwrap());
    assert_eq!(server.call("POST", &cancel, &[], "").0, 409, "it is over");
    let ids = "repo/synchronisation/pooledSyncStage?_queryId=query-all-ids";
    let (status, ids) = server.call("GET", ids, &[], "");
    assert_eq!((status, &ids["result"][0]["_id"]), (200, &json!("SYSTEMHRACCOUNT")), "{ids}");
    assert!(ids["result"][0].get("connectorData").is_none(), "{ids}");
    let cancel = format!("recon/{id}?_action=cancel");
    assert_eq!(server.call("POST", &cancel, &[], "").0, 409, "it is over");
    for (path, status) in [
        ("recon?_action=recon&mapping=systemCrmAccount_managedUser", 404),
        ("recon?_action=recon", 400),
        ("recon?_action=reconById&mapping=systemHrAccount_managedUser", 400),
        ("recon?_action=dance&mapping=systemHrAccount_managedUser", 400),
        ("recon/abc?_action=cancel", 404),
    ] {
        assert_eq!(server.call("POST", path, &[], "").0, status, "{path}");
    }
}

#[test]
fn a_script_may_say_its_token_as_the_password_it_always_had() {
    let (_place, server) = server();
    let url = format!("{}/{STAGE}?_queryFilter=true", server.api());
    let token = server.token();
    let names = [("X-OpenIDM-Username", "openidm-admin"), ("X-OpenIDM-Password", token.as_str())];
    assert_eq!(call("GET", &url, &names, "").0, 200);
    let basic = format!(
        "Basic {}",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("openidm-admin:{token}"))
    );
    assert_eq!(call("GET", &url, &[("Authorization", &basic)], "").0, 200);
    let elsewhere = format!("{}/api/v1/connections", server.url());
    assert_eq!(call("GET", &elsewhere, &[("Authorization", &basic)], "").0, 401, "only where scripts of OpenIDM ask");
}
