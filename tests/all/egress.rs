//! What leaves over HTTP: a connector sends requests to real servers, by grants and names that a test gives it. Each refusal is told to
//! the connector as a code and to the operator in words, and no server ever sees what was refused.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::Trigger;
use tidewaiter_tests::web::{Authority, Proxy, Web, local_address};

use tidewaiter::config::Config;
use tidewaiter::egress::{Resolve, Resolving};
use tidewaiter::host::{Host, Runs};

use crate::sender::{Sender, noted};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_leaves_if_it_was_asked_for_and_granted_and_is_below_the_ceiling() {
    let (web, other) = (Web::new(), Web::new());
    let origin = web.url("");
    let grants = format!("http = [{origin:?}, {:?}]", other.url(""));
    let sender = Sender::new(&grants);
    let (said, report) =
        sender.send(json!([origin]), json!([web.url("/a?b=c"), other.url("/"), "http://127.0.0.1:1/"])).await;
    assert_eq!(said, ["200 hello", "refused ErrorCode::HttpRequestDenied", "refused ErrorCode::HttpRequestDenied"]);
    assert!(noted(&report, &format!("egress.not_asked: GET {} was not asked for", other.url(""))), "{report:?}");
    let seen = web.seen();
    assert_eq!((seen.len(), other.seen().len()), (1, 0));
    assert_eq!((seen[0].method.as_str(), seen[0].uri.as_str()), ("GET", "/a?b=c"));
    assert_eq!(seen[0].header("host"), [web.address.to_string()]);
    let spent = &report.spent;
    assert_eq!((spent.http_requests, spent.http_denied, spent.http_requests_peak), (3, 2, 1));
    assert_eq!((spent.http_received_bytes, spent.http_response_peak_bytes), (5, 5));

    let sender = Sender::new("");
    let (said, report) = sender.send(json!([origin]), json!([web.url("/")])).await;
    assert_eq!(said, ["refused ErrorCode::HttpRequestDenied"]);
    assert!(noted(&report, &format!("egress.host_not_granted: GET {origin} is not granted")), "{report:?}");

    let sender = Sender::new(&grants);
    sender.place.write("ceiling.toml", "http = [\"https://*.example.com\"]");
    let (said, report) = sender.send(json!([origin]), json!([web.url("/")])).await;
    assert_eq!(said, ["refused ErrorCode::HttpRequestDenied"]);
    assert!(noted(&report, "egress.beyond_ceiling"), "{report:?}");
    let shown = sender.place.run("connections show bad").stdout;
    assert!(shown.contains(&format!("beyond-ceiling  http {origin}")), "{shown}");
    let found = sender.place.run("check --json").stdout;
    let found: Json = serde_json::from_str(&found).unwrap();
    let add = &found[0]["add"][0];
    std::fs::write(add["file"].as_str().unwrap(), add["lines"].as_str().unwrap()).unwrap();
    let (said, _) = sender.send(json!([origin]), json!([web.url("/")])).await;
    assert_eq!(said, ["200 hello"], "with the lines that check said");
    assert_eq!(web.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_are_granted_one_by_one() {
    let web = Web::new();
    let origin = web.url("");
    let sender = Sender::new(&format!("http = [{{ to = {origin:?}, methods = [\"GET\"] }}]"));
    let post = json!({ "url": web.url("/"), "method": "POST", "body": "x" });
    let (said, report) = sender.send(json!([origin]), json!([post, web.url("/")])).await;
    assert_eq!(said, ["refused ErrorCode::HttpRequestDenied", "200 hello"]);
    assert!(noted(&report, &format!("POST {origin} is not granted")), "{report:?}");
    let sender = Sender::new(&format!("http = [{origin:?}]"));
    let (said, _) = sender.send(json!([origin]), json!([post])).await;
    assert_eq!(said, ["200 hello"]);
    let seen = web.seen();
    assert_eq!((seen.len(), seen[1].method.as_str(), seen[1].body.as_str()), (2, "POST", "x"));
}

/// Every kind of address that is not public, and every form of an IPv4 address inside an IPv6 one: a granted name that leads there
/// leads nowhere. The loopback ones have a server that would answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_granted_name_leads_to_no_address_that_is_not_granted() {
    let web = Web::new();
    let port = web.address.port();
    let addresses = [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.1.1",
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "198.18.0.1",
        "192.0.0.1",
        "192.88.99.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fec0::1",
        "fd00::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "5f00::1",
        "2001:2::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "::ffff:0:7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::1",
        "2001:0:7f00:1::1",
        "2606:4700::5efe:7f00:1",
    ];
    let names: Vec<(String, [&str; 1])> =
        addresses.iter().enumerate().map(|(n, address)| (format!("a{n}.example.com"), [*address])).collect();
    let table: Vec<(&str, &[&str])> = names.iter().map(|(name, turns)| (name.as_str(), &turns[..])).collect();
    let sender = Sender::new(&format!("http = [\"http://*.example.com:{port}\"]")).names(&table);
    let requests: Vec<String> = names.iter().map(|(name, _)| format!("http://{name}:{port}/")).collect();
    let (said, report) = sender.send(json!([format!("http://*.example.com:{port}")]), json!(requests)).await;
    assert_eq!(said.len(), addresses.len());
    for (address, said) in addresses.iter().zip(&said) {
        assert_eq!(said, "refused ErrorCode::DestinationIpProhibited", "{address}");
    }
    assert_eq!(report.spent.http_denied, addresses.len() as u64);
    assert!(
        noted(&report, "a45.example.com leads to 2606:4700::5efe:7f00:1, which is a IPv4 inside IPv6 address"),
        "{report:?}"
    );
    assert_eq!(web.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_changes_its_address_is_looked_at_each_time() {
    let Some(here) = local_address() else { return };
    let web = Web::at(here, None, Arc::new(|_| None));
    let (port, address) = (web.address.port(), here.to_string());
    let grants = format!("http = [{{ to = \"http://api.example.com:{port}\", in = [{address:?}] }}]");
    let sender = Sender::new(&grants).names(&[("api.example.com", &[&address, "127.0.0.1", &address])]);
    let close = format!("http://api.example.com:{port}/close");
    let (said, _) = sender.send(json!([close]), json!([close, close, close])).await;
    assert_eq!(said, ["200 closed", "refused ErrorCode::DestinationIpProhibited", "200 closed"]);
    let seen = web.seen();
    assert_eq!((seen.len(), seen[0].header("host")), (2, vec![format!("api.example.com:{port}").as_str()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_be_read_as_another_destination_does_not_leave() {
    let web = Web::new();
    let (origin, address) = (web.url(""), web.address.to_string());
    let port = web.address.port();
    let sender = Sender::new(&format!("http = [{origin:?}, \"http://granted.example:{port}\"]"))
        .names(&[("granted.example", &["127.0.0.1"]), ("evil.example", &["127.0.0.1"])]);
    let to = |authority: &str, path: &str| json!({ "scheme": "http", "authority": authority, "path": path });
    let with = |name: &str, value: &str| json!({ "url": web.url("/"), "headers": { name: value } });
    let requests = json!([
        to(&address, "http://169.254.169.254/latest/meta-data"),
        to(&address, "*"),
        to(&format!("user@{address}"), "/"),
        to(&format!("{address}@evil.example"), "/"),
        to(&format!("granted.example:{port}@{address}"), "/"),
        to(&format!("2130706433:{port}"), "/"),
        to(&format!("127.1:{port}"), "/"),
        to(&format!("0x7f.0.0.1:{port}"), "/"),
        to(&format!("[::ffff:127.0.0.1]:{port}"), "/"),
        to(&format!("granted.example.:{port}"), "/"),
        to(&format!("gr\u{e4}nted.example:{port}"), "/"),
        to("127.0.0.1", "/"),
        to("127.0.0.1:0", "/"),
        to("", "/"),
        with("host", "evil.example"),
        with("connection", "upgrade"),
        with("upgrade", "websocket"),
        with("transfer-encoding", "chunked"),
        with("proxy-authorization", "Basic eA=="),
        json!({ "url": web.url("/"), "method": "CONNECT" }),
        json!({ "url": format!("https://{address}/") }),
        json!({ "scheme": "gopher", "authority": address, "path": "/" }),
        json!({ "url": web.url("/{long}") }),
        json!({ "url": web.url("/"), "method": "X".repeat(33) }),
        to(&format!("{}{address}", "a".repeat(300)), "/"),
    ]);
    let (said, report) = sender.send(json!([origin, format!("http://granted.example:{port}")]), requests.clone()).await;
    assert_eq!(said.len(), requests.as_array().unwrap().len());
    for (request, said) in requests.as_array().unwrap().iter().zip(&said) {
        assert!(!said.starts_with("200"), "{request}: {said}");
    }
    assert_eq!(web.seen().len(), 0, "{said:?}");
    assert_eq!(
        said[9], "refused ErrorCode::DestinationIpProhibited",
        "the dot at the end is no way around: {report:?}"
    );
    assert_eq!(said[22], "refused ErrorCode::HttpRequestUriTooLong");
    assert_eq!(said[23..], ["method refused", "authority refused"], "the engine would keep them, however long");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_the_connectors_own_and_are_checked_again() {
    let (web, inner) = (Web::new(), Web::new());
    let origin = web.url("");
    let sender = Sender::new(&format!("http = [{origin:?}]"));
    let redirect = web.url(&format!("/redirect?{}", inner.url("/secret")));
    let (said, _) = sender.send(json!([origin]), json!([redirect, inner.url("/secret"), web.url("/switch")])).await;
    assert_eq!(said[0], "302 ");
    assert_eq!(said[1], "refused ErrorCode::HttpRequestDenied");
    assert_eq!(said[2], "refused ErrorCode::HttpProtocolError", "nobody switches protocols");
    assert_eq!(inner.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_bounded_in_size_and_time() {
    let web = Web::new();
    let origin = web.url("");
    let mut sender = Sender::new(&format!("http = [{origin:?}]"));
    sender.more = "[limits]\nhttp-response-bytes = 100000\nhttp-requests = 3\n".into();
    let timed = |path: &str, ms: u64| json!({ "url": web.url(path), "timeout-ms": ms });
    let requests = json!([
        web.url("/big?100000"),
        web.url("/big?100001"),
        web.url("/headers?200"),
        web.url("/headers?100"),
        timed("/never", 300),
        timed("/stalls", 3000),
        timed("/", 0),
    ]);
    let (said, report) = sender.send(json!([origin]), requests).await;
    assert_eq!(said[0], "200 100000 bytes");
    assert!(said[1].starts_with("200 broken off after "), "{}", said[1]);
    assert!(noted(&report, "egress.response_too_large: a response of more than the 100000 bytes"), "{report:?}");
    assert_eq!(said[2], "refused ErrorCode::HttpProtocolError", "more headers than a response has");
    assert_eq!(said[3], "refused ErrorCode::HttpProtocolError", "100 kB of them");
    assert_eq!(said[4], "refused ErrorCode::ConnectionTimeout");
    assert!(said[5].starts_with("200 broken off after 5 bytes"), "{}", said[5]);
    assert!(said[6] == "200 hello" || said[6] == "refused ErrorCode::ConnectionTimeout", "no time is some time");
    assert!(report.spent.http_response_peak_bytes > 100_000);

    let many: Vec<String> = (0..10).map(|_| web.url("/slow")).collect();
    let settings = json!({ "do": "fetch", "ask": [origin], "at-once": true, "requests": many });
    let (said, report) = sender.run(&settings).await;
    assert_eq!(said, ["200 slow"; 10]);
    assert_eq!(report.spent.http_requests_peak, 3, "the others waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_ever_uses_another_ones_sockets() {
    let web = Web::new();
    let origin = web.url("");
    let sender = Sender::new(&format!("http = [{origin:?}]"));
    let settings = json!({ "do": "fetch", "ask": [origin], "requests": [web.url("/"), web.url("/")] });
    sender.settings(&settings);
    let text = std::fs::read_to_string(sender.place.path("connections/bad.toml")).unwrap();
    sender.place.write("connections/other.toml", &text);
    sender.place.write("grants/other.toml", &format!("http = [{origin:?}]"));
    let host = sender.host(&settings).await;
    for name in ["bad", "other", "bad", "other"] {
        let key = TypeKey { connection: name.parse().unwrap(), object_type: "account".parse().unwrap() };
        host.sync(key, Trigger::Command).await.unwrap();
    }
    let ports: Vec<u16> = web.seen().iter().map(|seen| seen.from.port()).collect();
    let (one, other) = (ports[0], ports[2]);
    assert_ne!(one, other);
    assert_eq!(ports, [one, one, other, other, one, one, other, other], "each keeps its own for the next run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_the_hosts_and_trusts_whom_the_operator_trusts() {
    let (authority, plain) = (Authority::new(), Web::new());
    let web =
        Web::at("127.0.0.1".parse().unwrap(), Some(authority.server(&["api.example.com"], false)), Arc::new(|_| None));
    let proxy = Proxy::new(HashMap::from([
        ("api.example.com:443".to_owned(), web.address),
        ("other.example.com:443".to_owned(), web.address),
        ("plain.example.com:80".to_owned(), plain.address),
    ]));
    let at = format!("http://{}", proxy.address);
    let grants = format!("http = [{{ to = \"https://*.example.com\", proxy = {at:?} }}]");
    let ask = json!(["https://*.example.com"]);
    let in_clear = Sender::new(&format!("http = [{{ to = \"http://plain.example.com\", proxy = {at:?} }}]"));
    let (said, _) = in_clear.send(json!(["http://plain.example.com"]), json!(["http://plain.example.com/"])).await;
    assert_eq!(said, ["200 hello"], "through the proxy to the port that is meant");
    assert_eq!(plain.seen()[0].header("host"), ["plain.example.com"]);
    let requests = json!(["https://api.example.com/x", "https://other.example.com/", "https://api.example.org/"]);
    let sender = Sender::new(&grants);
    let (said, report) = sender.send(ask.clone(), requests.clone()).await;
    assert_eq!(said[0], "refused ErrorCode::TlsCertificateError");
    assert!(
        noted(&report, "egress.tls: TLS with https://api.example.com: invalid peer certificate: UnknownIssuer"),
        "{report:?}"
    );

    let mut sender = Sender::new(&grants);
    authority.write(&sender.place.path("ca.pem"));
    sender.host = "trust = [\"ca.pem\"]".into();
    let (said, _) = sender.send(ask, requests).await;
    let other = "refused ErrorCode::TlsCertificateError";
    assert_eq!(said, ["200 hello", other, "refused ErrorCode::HttpRequestDenied"], "the name is checked");
    assert_eq!(web.seen()[0].header("host"), ["api.example.com"]);
    let asked = proxy.asked();
    assert_eq!(asked[0], "CONNECT plain.example.com:80 HTTP/1.1");
    assert!(asked[1..].iter().all(|line| line.contains(".example.com:443 HTTP/1.1")), "the same rules hold: {asked:?}");
}

/// Never answers, and counts who asks.
#[derive(Debug, Default)]
struct Stuck(std::sync::atomic::AtomicUsize);

impl Resolve for Stuck {
    fn resolve(&self, _: &str) -> Resolving {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(std::future::pending())
    }
}

/// A lookup that nobody waits for any more still holds a thread of the system's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_that_do_not_end_are_bounded() {
    let sender = Sender::new("http = [\"https://*.example.com\"]");
    let request = |number: u32| json!({ "url": format!("https://{number}.example.com/"), "timeout-ms": 1 });
    let requests: Vec<Json> = (0..40).map(request).collect();
    sender.settings(&json!({ "do": "fetch", "ask": ["https://*.example.com"], "requests": requests }));
    let config = Config::load(&sender.place.path("tidewaiter.toml")).unwrap();
    let stuck = Arc::new(Stuck::default());
    let config = Config { resolver: Some(Arc::clone(&stuck) as Arc<dyn Resolve>), ..config };
    let host = Host::start(config, "a test", Runs::WhenAsked).await.unwrap();
    let (said, _) = crate::sender::said(&host).await;
    assert_eq!(said.len(), 40);
    assert_eq!(stuck.0.load(std::sync::atomic::Ordering::Relaxed), 8);
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_that_a_run_took_of_each_limit_is_shown() {
    let web = Web::new();
    let sender = Sender::new(&format!("http = [{:?}]", web.url("")));
    sender.send(json!([web.url("")]), json!([web.url("/"), web.url("/")])).await;
    let shown = sender.place.run("connections show bad --json").json();
    let highest = |part: &str, name: &str| {
        let limit = shown[part].as_array().unwrap().iter().find(|limit| limit["name"] == name);
        let limit = limit.unwrap_or_else(|| panic!("{name} is not listed"));
        assert!(limit["value"].as_u64().unwrap() >= limit["highest"].as_u64().unwrap_or(0), "{limit}");
        limit["highest"].as_u64()
    };
    let size = std::fs::metadata(sender.place.path("connectors/hostile.wasm")).unwrap().len();
    assert_eq!(highest("sandbox", "component-bytes"), Some(size));
    assert_eq!(highest("sandbox", "sockets"), Some(1), "one after the other, over the same");
    assert_eq!(highest("limits", "http-requests"), Some(1));
    assert!((4..40).contains(&highest("sandbox", "resources").unwrap()), "{shown}");
    assert!((10..1000).contains(&highest("sandbox", "table-elements").unwrap()), "{shown}");
    assert_eq!(highest("sandbox", "token-bytes"), Some(8));
    assert_eq!(highest("limits", "journal-bytes"), Some(0));
    for uncounted in ["stack-bytes", "random-bytes"] {
        assert_eq!(highest("sandbox", uncounted), None);
    }
}

/// What the audit says, of one kind.
fn audited(sender: &Sender, event: &str) -> Vec<Json> {
    let text = std::fs::read_to_string(sender.place.path("data/audit.ndjson")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reached_refused_shown_and_done_is_audited() {
    let web = Web::new();
    let origin = web.url("");
    let mut sender = Sender::new(&format!("http = [{origin:?}]\nreveal = [\"bind\"]"));
    sender.more = "[secrets.bind]\nfile = \"bind\"\n".into();
    sender.place.write("bind", "b1nd");
    for _ in 0..2 {
        sender.send(json!([origin]), json!([web.url("/"), "http://127.0.0.1:1/"])).await;
    }
    sender.run(&json!({ "do": "reveal", "secret": "bind", "reveal": "bind" })).await;
    assert_eq!(sender.place.run("token reset bad account").code, 0);
    assert_eq!(sender.place.run("changes").code, 0);
    let connector = &audited(&sender, "connector")[0];
    assert_eq!((&connector["connector"], connector["sha256"].as_str().unwrap().len()), (&json!("hostile"), 64));
    let grants = &audited(&sender, "grants")[0]["decided"][0];
    assert_eq!((&grants["capability"]["http"], &grants["decision"]), (&json!(origin), &json!("granted")));
    let refused = audited(&sender, "refused");
    assert_eq!(refused.len(), 2, "once in each start of the host: {refused:?}");
    assert_eq!((&refused[0]["connection"], &refused[0]["code"]), (&json!("bad"), &json!("egress.not_asked")));
    let revealed = &audited(&sender, "revealed")[0];
    assert_eq!((&revealed["secret"], &revealed["run"]), (&json!("bind"), &json!(3)));
    let acts: Vec<_> = audited(&sender, "act").iter().map(|act| format!("{} {}", act["act"], act["on"])).collect();
    let asked = "http {settings.ask}, read {settings.folder}, reveal {settings.secret}, tcp {settings.tcp}";
    assert_eq!(acts, [format!("\"bring up\" \"bad: {asked}\""), "\"token reset\" \"bad/account\"".to_owned()]);
    let read = audited(&sender, "read");
    assert_eq!(read.len(), 1, "the marker of the reset");
    let text = std::fs::read_to_string(sender.place.path("data/audit.ndjson")).unwrap();
    assert!(!text.contains("b1nd"));
    let whole = sender.place.run("audit");
    assert!(whole.code == 0 && whole.stdout.ends_with("whole\n"), "{whole:?}");
    sender.place.write("data/audit.ndjson", &text.replacen("\"granted\"", "\"refused\"", 1));
    let changed = sender.place.run("audit");
    assert!(changed.code == 4 && changed.stdout.contains("doesn't follow from the one before it"), "{changed:?}");
}
