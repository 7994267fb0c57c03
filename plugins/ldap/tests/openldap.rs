//! The connector against a real slapd: what is lost, repeated, late, or told wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use ldap::Ldap;
use serde_json::json;
use support::*;
use tidewaiter_connector::testing::Connection;
use tidewaiter_connector::{Change, ErrorKind, Filter, SyncToken, Value, ValueMode, ValueType};
use tidewaiter_servers::{OpenLdap, Slapd};

fn remembering() -> Slapd {
    Slapd { server_id: 1, database: "syncprov-sessionlog 10000\n".to_owned(), ..Slapd::default() }
}

fn server(slapd: &Slapd) -> OpenLdap {
    let server = OpenLdap::start(slapd);
    server.change(TREE);
    server
}

fn by_log() -> serde_json::Value {
    json!({ "by": "accesslog" })
}

#[test]
fn each_strategy_tells_of_what_happened_once_as_it_is_now() {
    let server = server(&remembering());
    server.change(&["ann", "bob", "cem", "dan"].map(|uid| person(uid, "old")).concat());
    for (name, changes, sees_deletions) in
        [("syncrepl", by_syncrepl(), true), ("accesslog", by_log(), true), ("timestamp", by_time(), false)]
    {
        let connection = people(&server, changes).batches_of(2);
        let mut names = Names::default();
        let whole = connection.replays_exactly("account", None);
        assert_eq!(names.sorted(&whole), ["ann old", "bob old", "cem old", "dan old"], "{name}");
        next_second();
        let first = connection.latest_sync_token("account").unwrap();
        assert_eq!(names.told(&connection.sync("account", first.clone())), Vec::<String>::new());
        server.change(&[renamed("ann", "new"), renamed("ann", "newer"), gone("bob"), person("eve", "new")].concat());
        server
            .change(&[moved("cem", "cemal", None), moved("dan", "dan", Some("ou=others,dc=example,dc=com"))].concat());
        server.change(&person_below("ou=others,dc=example,dc=com", "far", "away"));
        let run = connection.replays_exactly("account", first);
        let mut expected = vec!["ann newer", "cemal old", "eve new"];
        if sees_deletions {
            expected.splice(0..0, ["-bob", "-dan"]);
        }
        assert_eq!(names.sorted(&run), expected, "{name}");
        assert_eq!(names.told(&connection.sync("account", run.token())), Vec::<String>::new());
        // As it was, for the next.
        server.change(&format!("dn: uid=dan,ou=others,dc=example,dc=com\nchangetype: modrdn\nnewrdn: uid=dan\ndeleteoldrdn: 1\nnewsuperior: {PEOPLE}\n"));
        server.change("dn: uid=far,ou=others,dc=example,dc=com\nchangetype: delete\n");
        server
            .change(&[person("bob", "old"), gone("eve"), renamed("ann", "old"), moved("cemal", "cem", None)].concat());
        let mut back = names.sorted(&connection.sync("account", run.token()));
        back.retain(|told| !told.starts_with('-'));
        assert_eq!(back, ["ann old", "bob old", "cem old", "dan old"]);
        next_second();
    }
}

#[test]
fn what_leaves_the_filter_is_gone_and_what_never_was_in_it_is_not() {
    let server = server(&remembering());
    server.change(&[person("ann", "in"), person("bob", "in"), person("out", "out")].concat());
    for changes in [by_syncrepl(), by_log()] {
        let class = account(&server, json!({ "filter": "(&(objectClass=inetOrgPerson)(sn=in))", "changes": changes }));
        let connection = connection(&server, class);
        let mut names = Names::default();
        let whole = connection.sync("account", None);
        assert_eq!(names.sorted(&whole), ["ann in", "bob in"]);
        server.change(&renamed("ann", "out"));
        let run = connection.replays_exactly("account", whole.token());
        assert_eq!(names.told(&run), ["-ann"], "{changes}");
        server.change(&renamed("ann", "in"));
        assert_eq!(names.told(&connection.sync("account", run.token())), ["ann in"]);
    }
    // The log knows that this had nothing to do with the filter.
    let class = account(&server, json!({ "filter": "(sn=in)", "changes": by_log() }));
    let connection = connection(&server, class);
    let first = connection.latest_sync_token("account").unwrap();
    server.change(&format!("dn: uid=out,{PEOPLE}\nchangetype: modify\nadd: description\ndescription: x\n"));
    server.change(&person("more", "out"));
    assert_eq!(Names::default().told(&connection.sync("account", first)), Vec::<String>::new());
}

#[test]
fn whole_branches_that_are_renamed_are_told_of_by_the_log() {
    let server = server(&remembering());
    server.change(&format!("dn: ou=team,{PEOPLE}\nobjectClass: organizationalUnit\nou: team\n"));
    server.change(&["a", "b"].map(|uid| person_below(&format!("ou=team,{PEOPLE}"), uid, "x")).concat());
    let class = json!({ "account": { "base": PEOPLE, "filter": "(objectClass=inetOrgPerson)", "attributes": ["sn"],
                                     "changes": by_log() } });
    let connection = connection(&server, class);
    let mut names = Names::default();
    let first = connection.sync("account", None);
    names.told(&first);
    server.change(&format!("dn: ou=team,{PEOPLE}\nchangetype: modrdn\nnewrdn: ou=crew\ndeleteoldrdn: 1\n"));
    let run = connection.replays_exactly("account", first.token());
    assert_eq!(names.sorted(&run), [format!("uid=a,ou=crew,{PEOPLE} x"), format!("uid=b,ou=crew,{PEOPLE} x")]);
    let away = "changetype: modrdn\nnewrdn: ou=crew\ndeleteoldrdn: 1\nnewsuperior: ou=others,dc=example,dc=com\n";
    server.change(&format!("dn: ou=crew,{PEOPLE}\n{away}"));
    let run = connection.replays_exactly("account", run.token());
    let gone: Vec<String> = names.sorted(&run).into_iter().filter(|told| told.starts_with("-uid=")).collect();
    assert_eq!(gone, [format!("-uid=a,ou=crew,{PEOPLE}"), format!("-uid=b,ou=crew,{PEOPLE}")]);
}

#[test]
fn equal_times_at_a_border_are_neither_skipped_nor_repeated() {
    let server = server(&remembering());
    let mut all: Vec<String> = Vec::new();
    // Seconds with many, and seconds with few.
    for second in 0..4 {
        let count = if second % 2 == 0 { 260 } else { 3 };
        let uids: Vec<String> = (0..count).map(|n| format!("s{second}-{n}")).collect();
        server.change(&uids.iter().map(|uid| person(uid, "x")).collect::<String>());
        all.extend(uids.into_iter().map(|uid| format!("{uid} x")));
        next_second();
    }
    all.sort();
    let connection = people(&server, by_time()).batches_of(2);
    let run = connection.sync("account", None);
    assert_eq!(Names::default().sorted(&run), all);
    let checkpoints: Vec<SyncToken> = run.emits.iter().filter_map(|emit| emit.checkpoint.clone()).collect();
    let mut distinct = checkpoints.clone();
    distinct.dedup();
    assert!(distinct.len() >= 3, "one at least between any two seconds: {distinct:?}");
    // From each of them exactly the rest.
    let (mut kept, everything) = (0, run.deltas());
    for emit in &run.emits {
        kept += emit.deltas.len();
        if let Some(checkpoint) = &emit.checkpoint {
            assert_eq!(connection.sync("account", Some(checkpoint.clone())).deltas(), everything[kept..]);
        }
    }
    // A change in the second of the newest is seen, whenever it comes.
    server.change(&person("last", "x"));
    let token = connection.latest_sync_token("account").unwrap();
    server.change(&person("after", "x"));
    assert_eq!(Names::default().told(&connection.sync("account", token)), ["after x"]);
}

#[test]
fn beside_concurrent_writers_nothing_is_lost_or_repeated() {
    let server = server(&remembering());
    let reader = |name, changes, sees_deletions| Reader { name, connection: people(&server, changes), sees_deletions };
    beside_writers(
        &server,
        vec![
            reader("syncrepl", by_syncrepl(), true),
            reader("accesslog", by_log(), true),
            reader("timestamp", by_time(), false),
        ],
    );
}

#[test]
fn a_cookie_that_is_older_than_what_is_known_of_deletions_is_refused() {
    let forgetful = Slapd { server_id: 1, ..Slapd::default() };
    let mut server = server(&forgetful);
    server.change(&[person("ann", "x"), person("bob", "x")].concat());
    let connection = people(&server, by_syncrepl());
    let mut names = Names::default();
    let first = connection.sync("account", None);
    assert_eq!(names.sorted(&first), ["ann x", "bob x"]);
    server.change(&[gone("bob"), person("cem", "x")].concat());
    refused(&connection, first.token().unwrap(), "older than what the server knows of deletions");
    let unseen = json!({ "by": "syncrepl", "deletions": "unseen" });
    assert_eq!(names.told(&people(&server, unseen).sync("account", first.token())), ["cem x"]);
    // It remembers, but only while it runs.
    server = self::server(&remembering());
    server.change(&[person("ann", "x"), person("bob", "x")].concat());
    let connection = people(&server, by_syncrepl());
    let first = connection.sync("account", None);
    server.change(&gone("bob"));
    server.kill();
    server.restart();
    refused(&connection, first.token().unwrap(), "older than what the server knows of deletions");
    // From the log it remembers for as long as the log does.
    let from_log = Slapd { database: "syncprov-sessionlog-source cn=accesslog\n".to_owned(), ..forgetful };
    server = self::server(&from_log);
    server.change(&[person("ann", "x"), person("bob", "x")].concat());
    let connection = people(&server, by_syncrepl());
    let mut names = Names::default();
    let first = connection.sync("account", None);
    names.told(&first);
    server.change(&gone("bob"));
    server.kill();
    server.restart();
    assert_eq!(names.told(&connection.sync("account", first.token())), ["-bob"]);
}

#[test]
fn a_log_that_was_purged_refuses_what_is_older() {
    let purging = Slapd { server_id: 1, database: "logpurge 00+00:00:01 00+00:00:01\n".to_owned(), ..Slapd::default() };
    let server = server(&purging);
    let connection = people(&server, by_log());
    let old = connection.latest_sync_token("account").unwrap().unwrap();
    server.change(&person("ann", "x"));
    // Until it is thrown away.
    let ann = format!("(reqDN=uid=ann,{PEOPLE})");
    let is_kept = || server.search("cn=accesslog", &ann, &["1.1"]).contains("dn:");
    assert!(is_kept());
    for _ in 0..1000 {
        if !is_kept() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!is_kept(), "it was purged");
    server.change(&person("bob", "x"));
    refused(&connection, old, "it was purged meanwhile");
    let now = connection.latest_sync_token("account").unwrap();
    server.change(&person("cem", "x"));
    assert_eq!(Names::default().told(&connection.sync("account", now)), ["cem x"]);
}

#[test]
fn a_token_of_something_else_is_refused() {
    let (one, other) = (server(&remembering()), server(&Slapd { server_id: 2, ..remembering() }));
    one.change(&person("ann", "x"));
    for changes in [by_syncrepl(), by_log(), by_time()] {
        let connection = people(&one, changes.clone());
        let token = connection.latest_sync_token("account").unwrap().unwrap();
        refused(&people(&other, changes), token.clone(), "is of another server or tree");
        refused(&connection, 7, "is not a text");
        refused(&connection, "{}", "is none of this connector");
        refused(&connection, altered(&token, "/format", "ldap9".into()), "has the format \"ldap9\"");
        refused(&connection, altered(&token, "/of/filter", "(a=b)".into()), "is of (a=b) below");
        refused(&connection, altered(&token, "/position", json!({ "change": [1, null] })), "has a position that is");
    }
    let (syncrepl, log) = (people(&one, by_syncrepl()), people(&one, by_log()));
    for connection in [&syncrepl, &log] {
        let token = connection.latest_sync_token("account").unwrap().unwrap();
        refused(connection, altered(&token, "/position/cookie", "rubbish".into()), "none of slapd's");
        refused(connection, altered(&token, "/position/cookie", "rid=000".into()), "none of slapd's");
        let later = "rid=000,sid=001,csn=20991126100211.738899Z#000000#001#000000";
        refused(connection, altered(&token, "/position/cookie", later.into()), "changes that this server doesn't have");
        // Of a server that never wrote here.
        let foreign = "rid=000,sid=001,csn=20201126100211.738899Z#000000#009#000000";
        refused(
            connection,
            altered(&token, "/position/cookie", foreign.into()),
            "changes that this server doesn't have",
        );
    }
    let time = people(&one, by_time());
    let token = time.latest_sync_token("account").unwrap().unwrap();
    refused(&time, altered(&token, "/position/time", "yesterday".into()), "no time");
    // Two copies of one tree are told apart by the number of the server.
    let token = syncrepl.latest_sync_token("account").unwrap().unwrap();
    let json: serde_json::Value = serde_json::from_str(token.as_text().unwrap()).unwrap();
    let copy = json["server"].as_str().unwrap().replace("001", "002");
    refused(&syncrepl, altered(&token, "/server", copy.into()), "is of another server or tree");
}

/// Two that both are written to, and replicate.
#[test]
fn what_comes_by_replication_is_told_once_and_tokens_stay_with_their_server() {
    let one = server(&remembering());
    let follows = format!(
        "syncprov-sessionlog 10000\nsyncrepl rid=1 provider=ldap://127.0.0.1:{} bindmethod=simple binddn={} credentials=\"{}\" \
         searchbase=dc=example,dc=com type=refreshAndPersist retry=\"1 +\"\nmultiprovider on\n",
        one.port(),
        OpenLdap::ADMINISTRATOR,
        OpenLdap::PASSWORD
    );
    let two = OpenLdap::start(&Slapd { server_id: 2, database: follows, ..Slapd::default() });
    let arrived = |what: &str| {
        let until = Instant::now() + Duration::from_secs(30);
        while !two.search("dc=example,dc=com", "(objectClass=inetOrgPerson)", &["sn"]).contains(what) {
            assert!(Instant::now() < until, "{what} is not replicated: {}", two.log());
            thread::sleep(Duration::from_millis(50));
        }
    };
    one.change(&person("ann", "at-one"));
    arrived("at-one");
    let (fresh, mut names) = (people(&two, by_syncrepl()), Names::default());
    let first = fresh.latest_sync_token("account").unwrap().unwrap();
    assert_eq!(names.told(&fresh.sync("account", None)), ["ann at-one"]);
    two.change(&person("own", "at-two"));
    // What a server that never wrote before did isn't all known: no deletion of its may have been forgotten.
    refused(&fresh, first, "is older than what the server knows of deletions");
    for changes in [by_syncrepl(), by_log()] {
        let (here, there) = (people(&two, changes.clone()), people(&one, changes.clone()));
        let mut names = Names::default();
        names.told(&here.sync("account", None));
        let mut token = here.latest_sync_token("account").unwrap();
        refused(&there, token.clone().unwrap(), "is of another server or tree");
        refused(&here, there.latest_sync_token("account").unwrap().unwrap(), "is of another server or tree");
        for (round, (written, arriving)) in [("first", "second"), ("third", "fourth")].into_iter().enumerate() {
            // While one of them is read, others come from both sides.
            one.change(&[renamed("ann", arriving), person(&format!("bob{round}"), arriving)].concat());
            two.change(&person(&format!("cem{round}"), written));
            arrived(&format!("sn: {arriving}"));
            let mut told = Vec::new();
            // Who follows may have one of two entries that came, and the other one a moment later.
            let until = Instant::now() + Duration::from_secs(30);
            while told.len() < 3 && Instant::now() < until {
                let run = here.sync("account", token);
                told.extend(names.sorted(&run));
                token = run.token();
            }
            let run = here.sync("account", token);
            told.extend(names.sorted(&run));
            token = run.token();
            told.sort();
            assert_eq!(
                told,
                [format!("ann {arriving}"), format!("bob{round} {arriving}"), format!("cem{round} {written}")],
                "{changes}"
            );
        }
        one.change(&[renamed("ann", "at-one"), gone("bob0"), gone("bob1")].concat());
        two.change(&[gone("cem0"), gone("cem1")].concat());
        arrived("at-one");
    }
}

#[test]
fn a_server_that_is_killed_and_restarted_loses_and_repeats_nothing() {
    let mut server =
        server(&Slapd { database: "syncprov-sessionlog-source cn=accesslog\n".to_owned(), ..remembering() });
    let connections = [by_syncrepl(), by_log(), by_time()].map(|changes| people(&server, changes));
    let tokens: Vec<_> = connections.iter().map(|one| one.latest_sync_token("account").unwrap()).collect();
    next_second();
    server.change(&person("ann", "x"));
    server.kill();
    for connection in &connections {
        fails(connection.check(), ErrorKind::ConnectionFailed, "127.0.0.1");
    }
    server.restart();
    server.change(&person("bob", "x"));
    for (connection, token) in connections.iter().zip(tokens) {
        let token = token.or(None);
        let run = connection.sync("account", token);
        assert_eq!(Names::default().sorted(&run), ["ann x", "bob x"]);
        assert_eq!(connection.sync("account", run.token()).deltas().len(), 0);
    }
}

/// slapd keeps in memory up to where its cookie is, and finds it again when it is started; what it misses then it gives after the next
/// change. So nothing may be told as if it were all.
#[test]
fn what_slapd_got_right_before_it_was_killed_is_told_once_whenever_it_gives_it() {
    let mut server =
        server(&Slapd { database: "syncprov-sessionlog-source cn=accesslog\n".to_owned(), ..remembering() });
    let connections = [by_syncrepl(), by_log()].map(|changes| people(&server, changes));
    let mut tokens: Vec<_> = connections.iter().map(|one| one.latest_sync_token("account").unwrap()).collect();
    let loaded: String = (0..50).map(|n| person(&format!("l{n}"), "x").replace("changetype: add\n", "")).collect();
    server.load(&loaded);
    let mut told = [Vec::new(), Vec::new()];
    let mut follow = || {
        for ((connection, token), told) in connections.iter().zip(&mut tokens).zip(&mut told) {
            let run = connection.sync("account", token.clone());
            told.extend(Names::default().told(&run));
            *token = run.token();
        }
        (told[0].clone(), told[1].clone())
    };
    for round in 0..3 {
        server.change(&(0..20).map(|n| person(&format!("r{round}-{n}"), "x")).collect::<String>());
        server.kill();
        server.restart();
        follow();
    }
    server.change(&person("last", "x"));
    let (mut by_cookie, mut by_log) = follow();
    by_cookie.sort();
    by_log.sort();
    let changed: Vec<String> =
        (0..3).flat_map(|round| (0..20).map(move |n| format!("r{round}-{n} x"))).chain(["last x".to_owned()]).collect();
    let mut all: Vec<String> = (0..50).map(|n| format!("l{n} x")).chain(changed.iter().cloned()).collect();
    all.sort();
    assert_eq!(by_cookie, all);
    // What was loaded around the server is in no log.
    let mut changed = changed;
    changed.sort();
    assert_eq!(by_log, changed);
}

/// What it noted of its changes may be older than the token then, and nothing is lost.
#[test]
fn a_kill_right_after_a_run_leaves_the_token_good() {
    let database = "syncprov-sessionlog-source cn=accesslog\nsyncprov-checkpoint 1000 10\n".to_owned();
    let mut server = server(&Slapd { database, ..remembering() });
    let connection = people(&server, by_syncrepl());
    let mut token = connection.latest_sync_token("account").unwrap();
    let mut names = Names::default();
    for round in 0..6 {
        server.change(&person(&format!("p{round}"), "x"));
        let run = connection.sync("account", token);
        assert_eq!(names.told(&run), [format!("p{round} x")]);
        token = run.token();
        server.kill();
        server.restart();
        let run = connection.sync("account", token.clone());
        assert_eq!(names.told(&run), Vec::<String>::new());
        assert!(run.outcome.is_ok(), "{:?}", run.outcome);
    }
    server.change(&person("last", "x"));
    assert_eq!(names.told(&connection.sync("account", token)), ["last x"]);
}

#[test]
fn a_login_that_is_refused_says_so() {
    let server = server(&Slapd { global: "require none\n".to_owned(), ..remembering() });
    let with = |change: &dyn Fn(&mut serde_json::Value), password: &str| {
        let mut settings = support::Directory::settings(&server);
        settings["classes"] = account(&server, json!({ "changes": by_syncrepl() }));
        change(&mut settings);
        Connection::<Ldap>::new(settings).secret("password", password)
    };
    let right = OpenLdap::PASSWORD;
    fails(with(&|_| {}, "wrong").check(), ErrorKind::InvalidCredential, "invalid credentials (49)");
    fails(with(&|_| {}, "").check(), ErrorKind::InvalidCredential, "is empty");
    fails(
        with(&|settings| settings["bind"] = "no name".into(), right).check(),
        ErrorKind::Configuration,
        "no distinguished name",
    );
    fails(with(&|settings| settings["bind"] = " ".into(), right).check(), ErrorKind::Configuration, "leave it out");
    fails(
        with(&|settings| settings["classes"]["account"]["base"] = "ou=nowhere,dc=example,dc=com".into(), right).check(),
        ErrorKind::Configuration,
        "ou=nowhere",
    );
    assert_eq!(with(&|_| {}, right).check(), Ok(()));
    // Who is anonymous needs no secret, and may read here.
    let mut anonymous = support::Directory::settings(&server);
    anonymous.as_object_mut().unwrap().remove("bind");
    anonymous["classes"] = account(&server, json!({ "changes": by_time() }));
    server.change(&person("ann", "x"));
    let anonymous = Connection::<Ldap>::new(anonymous);
    assert_eq!(anonymous.check(), Ok(()));
    assert_eq!(Names::default().told(&anonymous.sync("account", None)), ["ann x"]);
    // In clear there is no TLS.
    fails(with(&|settings| settings["tls"] = "starttls".into(), right).check(), ErrorKind::ConnectionFailed, "TLS");
}

#[test]
fn settings_that_can_not_work_are_named() {
    let server = server(&remembering());
    for (more, part) in [
        (json!({ "filter": "(uid=ann" }), "the filter \"(uid=ann\": a closing parenthesis is missing"),
        (json!({ "base": "people" }), "\"people\" is no distinguished name"),
        (json!({ "attributes": ["nothing"] }), "the server knows no attribute \"nothing\""),
        (json!({ "attributes": null, "filter": "(uid=*)" }), "which attributes are read?"),
        (json!({ "attributes": null, "object_classes": ["nothing"] }), "the server knows no object class \"nothing\""),
        (json!({ "types": { "cn": "text" } }), "\"cn\" is none of it"),
        (json!({ "uid": "uid", "changes": by_syncrepl() }), "by syncrepl this server tells of deletions by entryUUID"),
        (json!({ "changes": { "by": "changelog" } }), "names no log of changes"),
        (json!({ "changes": { "by": "accesslog", "base": "cn=nowhere" } }), "cn=nowhere"),
        (json!({ "changes": { "by": "timestamp", "lag_ms": 5 } }), "from 1000"),
    ] {
        fails(connection(&server, account(&server, more)).check(), ErrorKind::Configuration, part);
    }
    let none = connection(&server, account(&server, json!({})));
    fails(none.latest_sync_token("account"), ErrorKind::Unsupported, "doesn't say how changes are found");
    fails(none.latest_sync_token("other"), ErrorKind::UnknownObjectClass, "there are: account");
    // A filter from a token or a uid is a value, whatever is in it.
    assert_eq!(none.search("account", Filter::ByUid("*)(uid=*".into())).unwrap(), []);
}

const PIXELS: &str = "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////////////////////////wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA=";
/// Of nobody, for a day.
const CERTIFICATE: &str = "MIIBeDCCAR2gAwIBAgIUBngrOsQo1kmn95A+z680RwiREJIwCgYIKoZIzj0EAwIwETEPMA0GA1UEAwwGbm9ib2R5MB4XDTI2MTEyNjEwMzcyMloXDTI2MTEyNzEwMzcyMlowETEPMA0GA1UEAwwGbm9ib2R5MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEGIgeTqkEO291Dt3DbaaaJ2yh/XLHmeMCrrTouNANEen7mKU+rjtKY//TOxTBcKuANaR5RHLOBHHfeBPYBb5JDKNTMFEwHQYDVR0OBBYEFF2GpOKBem36b0ngErSc/BfRUnz7MB8GA1UdIwQYMBaAFF2GpOKBem36b0ngErSc/BfRUnz7MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAP32UVzGS0uSpxejiE0AA3HMA/Hc1nazymQDddnUNIR5AiEAgR0CxIsv0n+igDTwkVwlr/DXNRzZxttDwphUhSrk8OM=";

#[test]
fn values_are_told_as_what_they_are() {
    let server = server(&remembering());
    server.change(&format!(
        "dn: uid=ann,{PEOPLE}\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\nuid: ann\ncn: Ann\ncn: Anna\nsn: A\njpegPhoto:: {PIXELS}\n\
         userCertificate;binary:: {CERTIFICATE}\nuserPassword: secret\ndescription: plain\ndescription;lang-de: deutsch\n\
         uidNumber: 4711\ngidNumber: 7\nhomeDirectory: /home/ann\nmanager: uid=bob,{PEOPLE}\n"
    ));
    let class = json!({ "base": PEOPLE, "filter": "(objectClass=inetOrgPerson)", "object_classes": ["inetOrgPerson", "posixAccount"],
                        "sensitive": ["manager"] });
    let everything = connection(&server, json!({ "account": class }));
    let classes = everything.object_classes().unwrap();
    let info = |name: &str| classes[0].attributes.iter().find(|one| one.name == name).unwrap().clone();
    for (name, value_type) in [
        ("jpegPhoto", ValueType::Binary),
        ("userCertificate", ValueType::Binary),
        ("userPassword", ValueType::Secret),
        ("uidNumber", ValueType::Integer),
        ("manager", ValueType::Text),
        ("cn", ValueType::Text),
    ] {
        assert_eq!(info(name).value_type, value_type, "{name}");
    }
    use tidewaiter_connector::AttributeFlags as Flags;
    assert_eq!(info("uidNumber").properties, Flags::empty());
    assert_eq!(info("cn").properties, Flags::MULTI_VALUED | Flags::CASE_IGNORE);
    for name in ["userPassword", "manager"] {
        let properties = info(name).properties;
        assert_eq!(properties, properties | Flags::SENSITIVE, "{name}");
    }
    let objects = everything.search("account", Filter::All).unwrap();
    let ann = &objects[0];
    assert_eq!(ann.name, format!("uid=ann,{PEOPLE}"));
    assert_eq!(texts(ann, "cn"), ["Ann", "Anna"]);
    assert_eq!(ann.get("uidNumber").unwrap(), [Value::Integer(4711)]);
    assert!(matches!(ann.get("jpegPhoto").unwrap(), [Value::Binary(bytes)] if bytes.starts_with(&[0xff, 0xd8])));
    assert!(matches!(ann.get("userCertificate").unwrap(), [Value::Binary(bytes)] if bytes.starts_with(&[0x30, 0x82])));
    assert_eq!(ann.get("userPassword").unwrap(), [Value::Secret(b"secret".to_vec())]);
    assert_eq!(texts(ann, "description"), ["plain"], "what is in another language is another attribute");
    assert_eq!(ann.get("telephoneNumber").unwrap(), [], "what isn't there has no value");
    // By name, it is.
    let chosen =
        json!({ "base": PEOPLE, "attributes": ["description;lang-de", "userCertificate;binary", "createTimestamp"] });
    let chosen = connection(&server, json!({ "account": chosen }));
    let objects = chosen.search("account", Filter::All).unwrap();
    let ann = objects.iter().find(|one| one.name.starts_with("uid=ann")).unwrap();
    assert_eq!(texts(ann, "description;lang-de"), ["deutsch"]);
    assert_eq!(ann.get("userCertificate;binary").unwrap().len(), 1);
    assert!(
        matches!(ann.get("createTimestamp").unwrap(), [Value::Timestamp(time)] if time.ends_with('Z') && time.contains('T'))
    );
    // What the connection doesn't want isn't read.
    let few = everything.options(|options| options.attributes = Some(vec!["SN".to_owned()]));
    let objects = few.search("account", Filter::ByUid(ann.uid.clone())).unwrap();
    assert_eq!(objects[0].attributes.len(), 1);
    assert_eq!(texts(&objects[0], "sn"), ["A"]);
}

#[test]
fn many_entries_are_read_by_pages_and_large_groups_in_parts() {
    let mut server = server(&Slapd {
        global: "sizelimit size.soft=500 size.hard=500 size.prtotal=unlimited\n".to_owned(),
        ..remembering()
    });
    let count = 12_000;
    let people: String = (0..count).map(|n| person(&format!("p{n}"), "x").replace("changetype: add\n", "")).collect();
    let members: String = (0..20_000).map(|n| format!("member: uid=p{n},{PEOPLE}\n")).collect();
    server.load(&format!("{people}dn: cn=all,{PEOPLE}\nobjectClass: groupOfNames\ncn: all\n{members}\n"));
    let mut class = account(&server, json!({ "changes": by_syncrepl() }));
    class["group"] = json!({ "base": PEOPLE, "filter": "(objectClass=groupOfNames)", "attributes": ["cn", "member"], "changes": by_log() });
    let connection = connection(&server, class.clone());
    let objects = connection.search("account", Filter::All).unwrap();
    let mut uids: Vec<_> = objects.iter().map(|object| object.uid.clone()).collect();
    uids.sort();
    uids.dedup();
    assert_eq!((objects.len(), uids.len()), (count, count));
    // An answer without pages has a limit, and less than all is no answer.
    let mut anonymous = support::Directory::settings(&server);
    anonymous.as_object_mut().unwrap().remove("bind");
    anonymous["classes"] = class;
    let anonymous = Connection::<Ldap>::new(anonymous);
    assert_eq!(anonymous.search("account", Filter::All).unwrap().len(), count);
    let run = anonymous.sync("account", None);
    assert_eq!(run.token(), None);
    fails(run.outcome, ErrorKind::Other, "size limit exceeded (4)");

    let first = connection.latest_sync_token("group").unwrap();
    server.change(&format!("dn: cn=all,{PEOPLE}\nchangetype: modify\nadd: member\nmember: uid=new,{PEOPLE}\n"));
    let run = connection.replays_exactly("group", first);
    let pieces: Vec<_> = run
        .deltas()
        .into_iter()
        .map(|delta| match &delta.change {
            Change::CreateOrUpdate(updated) => &updated.object,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(pieces.len() > 5, "{} pieces", pieces.len());
    assert!(pieces[0].get("member").is_none() && texts(pieces[0], "cn") == ["all"]);
    assert!(pieces[1..].iter().all(|piece| piece.attributes[0].mode == ValueMode::Part && piece.uid == pieces[0].uid));
    let mut told: Vec<String> = pieces[1..].iter().flat_map(|piece| texts(piece, "member")).collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 20_001);
}
