//! TCP connections of connectors that speak a protocol of their own: where they lead, and TLS over them.

use serde_json::{Value as Json, json};
use tidewaiter_core::run::RunReport;
use tidewaiter_tests::web::{Authority, Echo, Web, local_address};

use crate::sender::{Sender, noted};

/// One run that connects. What the connector says of each connection, and the report.
async fn connect(sender: &Sender, ask: Json, connections: Json) -> (Vec<String>, RunReport) {
    sender.run(&json!({ "do": "connect", "tcp": ask, "connections": connections })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_leads_where_it_was_asked_for_and_granted() {
    let (echo, other) = (Echo::new(None), Echo::new(None));
    let (here, there) = (echo.to(), other.to());
    let sender = Sender::new(&format!("tcp = [{here:?}]"));
    let both = json!([{ "to": here }, { "to": there }]);
    let (said, report) = connect(&sender, json!([here, there]), both.clone()).await;
    assert_eq!(said, ["you said hello", "refused PermissionDenied"]);
    assert!(noted(&report, "egress.host_not_granted"), "{:?}", report.spent.log);
    assert_eq!((report.spent.tcp_connections, report.spent.tls_connections), (1, 0));
    sender.place.write("grants/bad.toml", &format!("tcp = [{here:?}, {there:?}]"));
    let (said, report) = connect(&sender, json!([there]), both.clone()).await;
    assert_eq!(said, ["refused PermissionDenied", "you said hello"]);
    assert!(noted(&report, "egress.not_asked"), "{:?}", report.spent.log);
    sender.place.write("ceiling.toml", &format!("tcp = [{here:?}]"));
    let (said, report) = connect(&sender, json!([here, there]), both).await;
    assert_eq!(said, ["you said hello", "refused PermissionDenied"]);
    assert!(noted(&report, "egress.beyond_ceiling"), "{:?}", report.spent.log);
    assert_eq!((echo.heard().len(), other.heard().len()), (2, 1));
    let check = sender.place.run("check");
    assert!(check.stdout.contains(&format!("tcp = [\"{here}\", \"{there}\"]")), "the ceiling's lines: {check:?}");
}

/// A name is looked up by us, each time, and leads to where its grant lets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_leads_to_addresses_that_were_looked_at() {
    let Some(here) = local_address() else { return };
    let echo = Echo::at(here, None);
    let (port, address) = (echo.address.port(), here.to_string());
    let name = format!("db.corp:{port}");
    let sender = Sender::new(&format!("tcp = [{{ to = {name:?}, in = [{address:?}] }}]"))
        .names(&[("db.corp", &[&address, "127.0.0.1", &address]), ("other.corp", &[&address])]);
    let connections = json!([
        { "to": name },
        { "to": name },
        { "to": name },
        { "to": "db.corp:1" },
        { "to": format!("other.corp:{port}") },
        // As it was looked up, and written out.
        { "to": echo.to() },
        { "to": format!("127.0.0.1:{port}") },
    ]);
    let asked = json!([name, format!("other.corp:{port}"), format!("127.0.0.1:{port}")]);
    let (said, report) = connect(&sender, asked, connections).await;
    let (done, refused) = ("you said hello", "refused PermissionDenied");
    assert_eq!(said[..4], [done, refused, done, refused]);
    assert_eq!(said[4..], [refused, done, refused]);
    assert!(noted(&report, "egress.address_not_granted"), "{:?}", report.spent.log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_else_is_done_with_sockets() {
    let echo = Echo::new(None);
    let to = echo.to();
    let sender = Sender::new(&format!("tcp = [{to:?}]"));
    let (said, report) = sender.run(&json!({ "do": "misuse-sockets", "tcp": [to] })).await;
    let what = ["listen", "listen here", "bind here", "bind a port", "udp", "look up", "connect"];
    assert_eq!(said, what.map(|what| format!("{what}: refused")));
    assert!(noted(&report, "localhost is no host that was asked for"), "{:?}", report.spent.log);
    let (said, _) = sender.run(&json!({ "do": "sockets-bomb", "tcp": [to], "to": to })).await;
    assert!(said[0].starts_with("16 connections, then refused"), "{said:?}");
    let (said, _) = sender.run(&json!({ "do": "sockets-come-and-go", "tcp": [to], "to": to })).await;
    assert_eq!(said, ["100 times"], "those that are gone don't count");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_by_the_host_with_whom_the_grant_names() {
    let authority = Authority::new();
    let echo = Echo::new(Some(authority.server(&["db.corp", "evil.corp", "other"], false)));
    let impostor = Echo::new(Some(Authority::new().server(&["db.corp"], false)));
    // It answers whatever comes in words of its own.
    let plain = Web::new();
    let name = "db.corp:1";
    let plain_to = plain.address.to_string();
    let asked = json!([echo.to(), impostor.to(), plain_to, name, "evil.corp:1"]);
    let mut sender = Sender::new(&format!("tcp = [{:?}, {:?}, {:?}, {name:?}]", echo.to(), impostor.to(), plain_to));
    authority.write(&sender.place.path("ca.pem"));
    let to = |to: &str, name: &str| json!([{ "to": to, "tls": name }]);
    let one = |echo: &Echo, name: &str| to(&echo.to(), name);
    let (said, _) = connect(&sender, asked.clone(), one(&echo, "db.corp")).await;
    assert!(said[0].ends_with("the certificate is not trusted"), "{said:?}");
    sender.host = "trust = [\"ca.pem\"]".into();
    let (said, report) = connect(&sender, asked.clone(), one(&echo, "db.corp")).await;
    assert_eq!(said, ["you said hello"]);
    assert_eq!((report.spent.tcp_connections, report.spent.tls_connections), (1, 1));
    for (there, name, part) in [
        (echo.to(), "evil.corp", "no granted TCP capability has this name"),
        (echo.to(), "other", "no granted TCP capability has this name"),
        (impostor.to(), "db.corp", "the certificate is not trusted"),
        (plain_to, "db.corp", "the handshake failed"),
    ] {
        let (said, _) = connect(&sender, asked.clone(), to(&there, name)).await;
        assert!(said[0].ends_with(part), "{name}: {said:?}");
    }
    assert_eq!(echo.heard().iter().filter(|line| *line == "hello").count(), 1);
    assert!(impostor.heard().iter().all(|line| line.starts_with("no TLS")), "{:?}", impostor.heard());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_over_tcp_where_it_is_bound_to() {
    let authority = Authority::new();
    let echo = Echo::new(Some(authority.server(&["db.corp"], true)));
    let asked = json!([echo.to(), "db.corp:1"]);
    let mut sender = Sender::new(&format!("tcp = [{:?}, \"db.corp:1\"]", echo.to()));
    authority.write(&sender.place.path("ca.pem"));
    sender.host = "trust = [\"ca.pem\"]".into();
    let connections = json!([{ "to": echo.to(), "tls": "db.corp" }]);
    let (said, _) = connect(&sender, asked.clone(), connections.clone()).await;
    assert_ne!(said, ["you said hello"], "it wants one");
    let (certificate, key) = authority.sign(&["client"]);
    sender.place.write("client.pem", &certificate);
    sender.place.write("client.key", &key);
    sender.more = "[credentials.db]\ntype = \"mtls\"\nto = [\"db.corp:1\"]\ncertificate = \"client.pem\"\n\
                   key = { file = \"client.key\" }\n"
        .into();
    let (said, _) = connect(&sender, asked, connections).await;
    assert_eq!(said, ["you said hello"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_speaks_no_tls_where_it_has_to_journals_nothing() {
    let authority = Authority::new();
    let (secure, plain) = (Echo::new(Some(authority.server(&["127.0.0.1"], false))), Echo::new(None));
    let grants = [&secure, &plain].map(|echo| format!("{{ to = {:?}, tls = \"required\" }}", echo.to()));
    let mut sender = Sender::new(&format!("tcp = [{}]", grants.join(", ")));
    authority.write(&sender.place.path("ca.pem"));
    sender.host = "trust = [\"ca.pem\"]".into();
    let settings = |connections: Json| json!({ "do": "connect-and-emit", "tcp": [secure.to(), plain.to()], "connections": connections });
    for (connections, ends) in [
        (json!([{ "to": plain.to() }]), Some("egress.tls-required")),
        (json!([{ "to": secure.to(), "tls": "127.0.0.1" }]), None),
    ] {
        sender.settings(&settings(connections));
        let ended = sender.place.run("sync bad account");
        assert_eq!(ended.code, if ends.is_some() { 4 } else { 0 }, "{ended:?}");
        assert!(ends.is_none_or(|code| ended.stderr.contains(code)), "{ended:?}");
    }
    let uids: Vec<String> =
        sender.place.changes().iter().map(|entry| entry["uid"].as_str().unwrap().to_owned()).collect();
    assert_eq!(uids, ["you said hello"], "of the second");
    // Nor does it get its first token, at which the system's past would be left behind.
    let mut first = settings(json!([{ "to": plain.to() }]));
    first["do"] = "connect-first".into();
    sender.settings(&first);
    assert_eq!(sender.place.run("token reset bad account").code, 0);
    let ended = sender.place.run("sync bad account");
    assert!(ended.code == 4 && ended.stderr.contains("egress.tls-required"), "{ended:?}");
    assert_eq!(sender.place.run("token get bad account --json").json()["state"], "new");
    let nobody = json!([{ "to": plain.to(), "tls": "127.0.0.1" }]);
    let (said, _) = connect(&sender, json!([plain.to()]), nobody).await;
    assert!(said[0].starts_with("TLS with 127.0.0.1: "), "its own words say more: {said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_looks_only_so_many_names_up() {
    let sender = Sender::new("tcp = [\"db.corp:1\"]").names(&[("db.corp", &["192.0.2.1"])]);
    let (granted, other) = (json!({ "to": "db.corp:1" }), json!({ "to": "other.corp:1", "times": 1000 }));
    let (said, report) = connect(&sender, json!(["db.corp:1"]), json!([other, granted])).await;
    assert_eq!(said[0], "refused PermissionDenied");
    assert_ne!(said[1], said[0], "the name is granted, and not even looked up");
    assert_eq!(report.spent.tcp_connections, 0);
}
