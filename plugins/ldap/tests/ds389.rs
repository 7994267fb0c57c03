//! The connector against a real 389 Directory Server: what is lost, repeated, late, or told wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use serde_json::json;
use support::*;
use tidewaiter_connector::{ErrorKind, Filter};
use tidewaiter_servers::Ds389;

fn server() -> Ds389 {
    let server = Ds389::start();
    server.change(TREE);
    server
}

fn by_log() -> serde_json::Value {
    json!({ "by": "changelog" })
}

#[test]
fn each_strategy_tells_of_what_happened_once_as_it_is_now() {
    let server = server();
    server.change(&["ann", "bob", "cem", "dan"].map(|uid| person(uid, "old")).concat());
    for (name, changes, sees_deletions) in
        [("syncrepl", by_syncrepl(), true), ("changelog", by_log(), true), ("timestamp", by_time(), false)]
    {
        let connection = people(&server, changes).batches_of(2);
        let mut names = Names::default();
        let whole = connection.replays_exactly("account", None);
        assert_eq!(names.sorted(&whole), ["ann old", "bob old", "cem old", "dan old"], "{name}");
        next_second();
        let first = connection.latest_sync_token("account").unwrap();
        assert_eq!(names.told(&connection.sync("account", first.clone())), Vec::<String>::new());
        server.change(&[renamed("ann", "new"), renamed("ann", "newer"), gone("bob"), person("eve", "new")].concat());
        server.change(&[moved("cem", "cemal", None), person("hal", "x"), gone("hal")].concat());
        server.change(&person_below("ou=others,dc=example,dc=com", "far", "away"));
        let run = connection.replays_exactly("account", first);
        let mut told = names.sorted(&run);
        // What came and went may be told of as gone.
        told.retain(|told| told != "-?");
        let mut expected = vec!["ann newer", "cemal old", "eve new"];
        if sees_deletions {
            expected.insert(0, "-bob");
        }
        assert_eq!(told, expected, "{name}");
        assert_eq!(names.told(&connection.sync("account", run.token())), Vec::<String>::new());
        server.change("dn: uid=far,ou=others,dc=example,dc=com\nchangetype: delete\n");
        server
            .change(&[person("bob", "old"), gone("eve"), renamed("ann", "old"), moved("cemal", "cem", None)].concat());
        next_second();
    }
}

#[test]
fn by_the_log_what_leaves_the_filter_or_the_base_is_gone() {
    let server = server();
    server.change(&[person("ann", "in"), person("bob", "in"), person("out", "out")].concat());
    let class = account(&server, json!({ "filter": "(&(objectClass=inetOrgPerson)(sn=in))", "changes": by_log() }));
    let connection = connection(&server, class);
    let mut names = Names::default();
    let whole = connection.sync("account", None);
    assert_eq!(names.sorted(&whole), ["ann in", "bob in"]);
    server.change(&[renamed("ann", "out"), person("more", "out")].concat());
    server.change(&format!("dn: uid=out,{PEOPLE}\nchangetype: modify\nadd: description\ndescription: x\n"));
    let run = connection.replays_exactly("account", whole.token());
    assert_eq!(names.told(&run), ["-ann"]);
    server.change(&[renamed("ann", "in"), moved("bob", "bob", Some("ou=others,dc=example,dc=com"))].concat());
    let run = connection.replays_exactly("account", run.token());
    assert_eq!(names.told(&run), ["ann in", "-bob"]);
    // A branch comes and goes as a whole, by one entry of the log.
    server.change("dn: ou=team,ou=others,dc=example,dc=com\nobjectClass: organizationalUnit\nou: team\n");
    server.change(&person_below("ou=team,ou=others,dc=example,dc=com", "tim", "in"));
    let run = connection.sync("account", run.token());
    assert_eq!(names.told(&run), Vec::<String>::new());
    let rename = "changetype: modrdn\nnewrdn: ou=team\ndeleteoldrdn: 1\nnewsuperior";
    server.change(&format!("dn: ou=team,ou=others,dc=example,dc=com\n{rename}: {PEOPLE}\n"));
    let run = connection.replays_exactly("account", run.token());
    assert_eq!(names.told(&run), ["tim in"]);
    server.change(&format!("dn: ou=team,{PEOPLE}\n{rename}: ou=others,dc=example,dc=com\n"));
    let mut told = names.told(&connection.sync("account", run.token()));
    told.retain(|told| told != "-?");
    assert_eq!(told, ["-tim"]);
}

#[test]
fn blocks_of_the_log_resume_exactly() {
    let server = server();
    let connection = people(&server, by_log()).batches_of(40);
    let first = connection.latest_sync_token("account").unwrap();
    server.change(&(0..330).map(|n| person(&format!("p{n}"), "x")).collect::<String>());
    server.change(&(0..330).step_by(7).map(|n| gone(&format!("p{n}"))).collect::<String>());
    let run = connection.replays_exactly("account", first);
    let checkpoints = run.emits.iter().filter(|emit| emit.checkpoint.is_some()).count();
    assert!(checkpoints >= 3, "{checkpoints}");
    assert_eq!(connection.search("account", Filter::All).unwrap().len(), 330 - 48);
}

#[test]
fn beside_concurrent_writers_nothing_is_lost_or_repeated() {
    let server = server();
    let reader = |name, changes, sees_deletions| Reader { name, connection: people(&server, changes), sees_deletions };
    beside_writers(
        &server,
        vec![
            reader("syncrepl", by_syncrepl(), true),
            reader("changelog", by_log(), true),
            reader("timestamp", by_time(), false),
        ],
    );
}

#[test]
fn a_log_that_was_trimmed_or_is_another_one_refuses_what_is_of_before() {
    let (server, other) = (server(), server());
    server.change(&person("ann", "x"));
    for changes in [by_log(), by_syncrepl()] {
        let connection = people(&server, changes.clone());
        let token = connection.latest_sync_token("account").unwrap().unwrap();
        refused(&people(&other, changes), token.clone(), "is of another server or tree");
        refused(
            &connection,
            altered(&token, "/position", json!({ "time": "20260301080000" })),
            "has a position that is",
        );
    }
    let (log, syncrepl) = (people(&server, by_log()), people(&server, by_syncrepl()));
    let token = log.latest_sync_token("account").unwrap().unwrap();
    refused(&log, altered(&token, "/position/change/0", 999.into()), "later than anything in the log");
    refused(&log, altered(&token, "/position/change/1", "another".into()), "of another state of it");
    let of_cookie = syncrepl.latest_sync_token("account").unwrap().unwrap();
    refused(&syncrepl, altered(&of_cookie, "/position/cookie", "rubbish".into()), "none of 389's");
    let json: serde_json::Value = serde_json::from_str(of_cookie.as_text().unwrap()).unwrap();
    let cookie = json["position"]["cookie"].as_str().unwrap();
    let later = format!("{}#999", cookie.rsplit_once('#').unwrap().0);
    refused(&syncrepl, altered(&of_cookie, "/position/cookie", later.into()), "later than anything");
    let foreign = cookie.replacen("localhost", "elsewhere", 1);
    refused(&syncrepl, altered(&of_cookie, "/position/cookie", foreign.into()), "a refresh is required (4096)");
    // 389 throws entries away from the beginning, and keeps the last.
    server.change(&[person("bob", "x"), person("cem", "x")].concat());
    for number in 1..=5 {
        server.change(&format!("dn: changenumber={number},cn=changelog\nchangetype: delete\n"));
    }
    refused(&log, token, "it was trimmed meanwhile");
    refused(&syncrepl, of_cookie, "it was trimmed meanwhile");
    let now = log.latest_sync_token("account").unwrap();
    server.change(&person("dan", "x"));
    assert_eq!(Names::default().told(&log.sync("account", now)), ["dan x"]);
}

#[test]
fn a_number_that_is_missing_is_waited_for_and_named() {
    let server = server();
    let connection = people(&server, by_log());
    let first = connection.latest_sync_token("account").unwrap();
    server.change(&["ann", "bob", "cem"].map(|uid| person(uid, "x")).concat());
    server.change("dn: changenumber=5,cn=changelog\nchangetype: delete\n");
    let run = connection.sync("account", first);
    assert_eq!(Names::default().told(&run), ["ann x", "cem x"]);
    assert!(run.log.iter().any(|(_, said)| said.contains("never got the changes [5]")), "{:?}", run.log);
}

#[test]
fn a_server_that_is_killed_and_restarted_loses_and_repeats_nothing() {
    let mut server = server();
    let connections = [by_syncrepl(), by_log(), by_time()].map(|changes| people(&server, changes));
    let tokens: Vec<_> = connections.iter().map(|one| one.latest_sync_token("account").unwrap()).collect();
    next_second();
    server.change(&person("ann", "x"));
    // What it wrote last it may lose with its life.
    next_second();
    server.kill();
    for connection in &connections {
        fails(connection.check(), ErrorKind::ConnectionFailed, "127.0.0.1");
    }
    server.restart();
    server.change(&person("bob", "x"));
    for (connection, token) in connections.iter().zip(tokens) {
        let run = connection.sync("account", token);
        assert_eq!(Names::default().sorted(&run), ["ann x", "bob x"]);
        assert_eq!(connection.sync("account", run.token()).deltas().len(), 0);
    }
}

#[test]
fn what_it_needs_of_the_server_is_named() {
    let server = server();
    let wrong = people(&server, json!({ "by": "accesslog" }));
    fails(wrong.check(), ErrorKind::Configuration, "");
    let by_uuid = connection(&server, account(&server, json!({ "uid": "entryUUID", "changes": by_syncrepl() })));
    fails(by_uuid.check(), ErrorKind::Configuration, "by nsUniqueId");
    let by_uuid = connection(&server, account(&server, json!({ "uid": "entryUUID", "changes": by_log() })));
    let first = by_uuid.latest_sync_token("account").unwrap();
    server.change(&person("ann", "x"));
    assert_eq!(Names::default().told(&by_uuid.sync("account", first.clone())), ["ann x"]);
    let by_name = connection(&server, account(&server, json!({ "uid": "uid", "changes": by_log() })));
    let first = by_name.latest_sync_token("account").unwrap();
    server.change(&person("bob", "x"));
    fails(by_name.sync("account", first).outcome, ErrorKind::Configuration, "has no \"targetUid\"");
}
