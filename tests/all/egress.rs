//! What leaves over HTTP: a connector sends requests to real servers, by grants, names and logins that a test gives it. Each refusal
//! is told to the connector as a code and to the operator in words, and no server ever sees what was refused.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value as Json, json};
use tidewaiter::config::Config;
use tidewaiter::egress::{Resolve, Resolving};
use tidewaiter::host::{Host, Runs};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Outcome, RunReport, Trigger};
use tidewaiter_tests::Place;
use tidewaiter_tests::web::{Authority, Proxy, Web, local_address};

/// Names as a test wants them: each answer in its turn, the last one for ever.
#[derive(Debug, Default)]
struct Names(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    fn new(names: &[(&str, &[&str])]) -> Arc<Self> {
        let answer = |address: &&str| vec![address.parse().unwrap()];
        let names = names.iter().map(|(name, turns)| ((*name).to_owned(), turns.iter().map(answer).collect()));
        Arc::new(Self(Mutex::new(names.collect())))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: &str) -> Resolving {
        let mut names = self.0.lock().unwrap();
        let answer = match names.get_mut(name) {
            None => Err(io::Error::other("no such name")),
            Some(turns) if turns.len() > 1 => Ok(turns.remove(0)),
            Some(turns) => Ok(turns[0].clone()),
        };
        Box::pin(async { answer })
    }
}

/// A host with a connection `bad` that sends what it is told.
struct Sender {
    place: Place,
    names: Arc<Names>,
    /// More of `tidewaiter.toml`.
    host: String,
    /// More of the connection.
    more: String,
}

impl Sender {
    fn new(grants: &str) -> Self {
        let place = Place::empty();
        place.install("hostile");
        place.write("grants/bad.toml", grants);
        Self { place, names: Names::new(&[]), host: String::new(), more: String::new() }
    }

    fn names(self, names: &[(&str, &[&str])]) -> Self {
        Self { names: Names::new(names), ..self }
    }

    fn settings(&self, settings: &Json) {
        let table = toml_of(settings);
        let connection = format!(
            "connector = \"hostile\"\nsettings = {table}\n[types.account]\nclass = \"account\"\n{}\n",
            self.more
        );
        self.place.write("tidewaiter.toml", &self.host);
        self.place.write("connections/bad.toml", &connection);
    }

    async fn host(&self, settings: &Json) -> Host {
        self.settings(settings);
        let config = Config::load(&self.place.path("tidewaiter.toml")).unwrap();
        let config = Config { resolver: Some(Arc::clone(&self.names) as Arc<dyn Resolve>), ..config };
        Host::start(config, "a test", Runs::WhenAsked).await.unwrap()
    }

    /// Sends requests in one run. What the connector says of each, and the report.
    async fn send(&self, ask: Json, requests: Json) -> (Vec<String>, RunReport) {
        self.run(&json!({ "do": "fetch", "ask": ask, "requests": requests })).await
    }

    async fn run(&self, settings: &Json) -> (Vec<String>, RunReport) {
        let host = self.host(settings).await;
        let said = said(&host).await;
        host.shutdown().await;
        said
    }
}

async fn said(host: &Host) -> (Vec<String>, RunReport) {
    let key = TypeKey { connection: "bad".parse().unwrap(), object_type: "account".parse().unwrap() };
    let report = host.sync(key, Trigger::Command).await.unwrap();
    let Outcome::Failed(failure) = &report.outcome else { panic!("{report:?}") };
    let said = failure.to_string();
    let said = said.strip_prefix("connector error: ").unwrap_or_else(|| panic!("{said}"));
    (said.split("; ").map(str::to_owned).collect(), report)
}

/// JSON as an inline value of TOML.
fn toml_of(value: &Json) -> String {
    match value {
        Json::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name:?} = {}", toml_of(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn noted(report: &RunReport, part: &str) -> bool {
    report.spent.log.iter().any(|line| line.starts_with("host: ") && line.contains(part))
}

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

fn secret(sender: &Sender, name: &str, text: &str) {
    sender.place.write(name, text);
}

/// Nothing that a person or a program could read has these words.
fn shown_nowhere(sender: &Sender, words: &[&str], reports: &[&RunReport]) {
    let shown = ["connections show bad --json", "connections show bad", "changes --json", "check"]
        .map(|command| sender.place.run(command))
        .map(|ended| ended.stdout + &ended.stderr)
        .join("\n");
    let logged = sender.place.run("sync bad account --log trace").stderr;
    for word in words {
        assert!(!shown.contains(word) && !logged.contains(word), "{word} is shown");
        assert!(!format!("{reports:?}").contains(word), "{word} is in a report");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_put_in_by_the_host_and_goes_nowhere_else() {
    let (web, other) = (Web::new(), Web::new());
    let (origin, elsewhere) = (web.url(""), other.url(""));
    let mut sender = Sender::new(&format!("http = [{origin:?}, {elsewhere:?}]"));
    sender.more = format!(
        "[credentials.api]\ntype = \"bearer\"\nto = [{origin:?}]\ntoken = {{ file = \"token\" }}\n\
         [credentials.key]\ntype = \"header\"\nto = [{origin:?}]\nname = \"x-api-key\"\nvalue = {{ command = [\"echo\", \"k3y\"] }}\n\
         [credentials.old]\ntype = \"basic\"\nto = [{elsewhere:?}]\nuser = \"us\u{e9}r\"\npassword = {{ file = \"password\" }}\n"
    );
    secret(&sender, "token", "t0ken-1\n");
    secret(&sender, "password", "pa:ss");
    let own = json!({ "url": web.url("/"), "headers": { "authorization": "Bearer guest", "x-api-key": "guest" } });
    let ask = json!([origin, elsewhere]);
    let requests = json!([web.url("/"), own, other.url("/")]);
    let (said, first) = sender.send(ask.clone(), requests).await;
    assert_eq!(said, ["200 hello"; 3]);
    assert_eq!(first.spent.http_headers_replaced, 2);
    for seen in web.seen() {
        assert_eq!(seen.header("authorization"), ["Bearer t0ken-1"]);
        assert_eq!(seen.header("x-api-key"), ["k3y"]);
    }
    // us\u{e9}r:pa:ss
    assert_eq!(other.seen()[0].header("authorization"), ["Basic dXPDqXI6cGE6c3M="]);
    assert_eq!(other.seen()[0].header("x-api-key"), [""; 0]);

    secret(&sender, "token", "t0ken-2");
    let (_, second) = sender.send(ask.clone(), json!([web.url("/")])).await;
    assert_eq!(web.seen()[2].header("authorization"), ["Bearer t0ken-2"], "read again at each run");
    std::fs::remove_file(sender.place.path("token")).unwrap();
    let (said, third) = sender.send(ask, json!([web.url("/")])).await;
    assert_eq!(said, ["refused ErrorCode::ConfigurationError"]);
    assert!(noted(&third, "egress.credential: the credential api: the secret from the file"), "{third:?}");
    assert_eq!(web.seen().len(), 3, "nothing leaves without its login");
    secret(&sender, "token", "t0ken-3");
    shown_nowhere(&sender, &["t0ken", "k3y", "pa:ss", "dXPDqXI6cGE6c3M"], &[&first, &second, &third]);
    let shown = sender.place.run("connections show bad").stdout;
    assert!(shown.contains(&format!("api  {origin}")), "{shown}");
}

/// A token endpoint that counts, and an API that takes only the last token.
fn oauth_server() -> (Web, Web, Arc<Mutex<Vec<String>>>) {
    let given: Arc<Mutex<Vec<String>>> = Arc::default();
    let local = "127.0.0.1".parse().unwrap();
    let giving = Arc::clone(&given);
    let endpoint = Web::at(
        local,
        None,
        Arc::new(move |seen| {
            let mut given = giving.lock().unwrap();
            if seen.body.contains("client_secret=wrong")
                || seen.header("authorization").contains(&"Basic Y2xpZW50Ondyb25n")
            {
                let refused = json!({ "error": "invalid_client", "error_description": "who are you?" });
                return Some((StatusCode::BAD_REQUEST, refused.to_string()).into_response());
            }
            let token = format!("acc3ss-{}", given.len() + 1);
            given.push(token);
            let granted = json!({ "access_token": given.last(), "token_type": "Bearer", "expires_in": 3600 });
            Some(granted.to_string().into_response())
        }),
    );
    let taking = Arc::clone(&given);
    let api = Web::at(
        local,
        None,
        Arc::new(move |seen| {
            let last = taking.lock().unwrap().last().map(|token| format!("Bearer {token}")).unwrap_or_default();
            let refused = seen.uri == "/refuse" || seen.header("authorization") != [last];
            refused.then(|| StatusCode::UNAUTHORIZED.into_response())
        }),
    );
    (endpoint, api, given)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_fetched_once_kept_and_fetched_again_when_it_is_refused() {
    let (endpoint, api, given) = oauth_server();
    let origin = api.url("");
    let mut sender = Sender::new(&format!("http = [{origin:?}]"));
    sender.more = format!(
        "[limits]\nlogins-per-hour = 3\n\
         [credentials.api]\ntype = \"oauth2-client\"\nto = [{origin:?}]\ntoken-url = {:?}\nclient-id = \"cl:ient\"\n\
         client-secret = {{ file = \"secret\" }}\nscope = \"read all\"\n",
        endpoint.url("/token")
    );
    secret(&sender, "secret", "s3cr3t&");
    let settings = json!({
        "do": "fetch", "ask": [origin],
        "requests": [api.url("/1"), api.url("/2"), api.url("/refuse"), api.url("/3")],
    });
    let host = sender.host(&settings).await;
    let (said_first, first) = said(&host).await;
    assert_eq!(said_first, ["200 hello", "200 hello", "401 ", "200 hello"]);
    assert_eq!(given.lock().unwrap().len(), 2, "one, and another one after it was refused");
    let (said_second, second) = said(&host).await;
    assert_eq!(said_second, ["200 hello", "200 hello", "401 ", "200 hello"], "the one of the last run is still good");
    assert_eq!(given.lock().unwrap().len(), 3);
    let (said_third, third) = said(&host).await;
    let denied = "refused ErrorCode::HttpRequestDenied";
    assert_eq!(said_third, ["200 hello", "200 hello", "401 ", denied], "no more than three logins an hour");
    assert!(noted(&third, "egress.login_limit: 3 logins in an hour are all that are allowed"), "{third:?}");
    host.shutdown().await;
    let asked = &endpoint.seen()[0];
    assert_eq!((asked.method.as_str(), asked.uri.as_str()), ("POST", "/token"));
    assert_eq!(asked.body, "grant_type=client_credentials&scope=read+all");
    // cl%3Aient:s3cr3t%26
    assert_eq!(asked.header("authorization"), ["Basic Y2wlM0FpZW50OnMzY3IzdCUyNg=="]);
    shown_nowhere(&sender, &["s3cr3t", "acc3ss", "Y2wlM0FpZW50"], &[&first, &second, &third]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_endpoint_that_refuses_is_quoted_and_nothing_leaves() {
    let (endpoint, api, given) = oauth_server();
    let origin = api.url("");
    let mut sender = Sender::new(&format!("http = [{origin:?}]"));
    sender.more = format!(
        "[credentials.api]\ntype = \"oauth2-client\"\nto = [{origin:?}]\ntoken-url = {:?}\nclient-id = \"client\"\n\
         client-secret = {{ file = \"secret\" }}\nclient-in = \"body\"\n",
        endpoint.url("/token")
    );
    secret(&sender, "secret", "wrong");
    let (said, report) = sender.send(json!([origin]), json!([api.url("/")])).await;
    assert_eq!(said, ["refused ErrorCode::ConfigurationError"]);
    let words = "the credential api: the token endpoint refuses: invalid_client: who are you?";
    assert!(noted(&report, words), "{report:?}");
    assert_eq!((api.seen().len(), given.lock().unwrap().len()), (0, 0));
    assert!(endpoint.seen()[0].body.contains("client_id=client&client_secret=wrong"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_where_it_is_bound_to() {
    let authority = Authority::new();
    let local = "127.0.0.1".parse().unwrap();
    let web = Web::at(local, Some(authority.server(&["127.0.0.1"], true)), Arc::new(|_| None));
    let origin = format!("https://{}", web.address);
    let mut sender = Sender::new(&format!("http = [{origin:?}]"));
    authority.write(&sender.place.path("ca.pem"));
    sender.host = "trust = [\"ca.pem\"]".into();
    let (without, _) = sender.send(json!([origin]), json!([origin])).await;
    assert!(without[0].starts_with("refused "), "{without:?}");
    let (certificate, key) = authority.sign(&["client"]);
    secret(&sender, "client.pem", &certificate);
    secret(&sender, "client.key", &key);
    sender.more = format!(
        "[credentials.us]\ntype = \"mtls\"\nto = [{origin:?}]\ncertificate = \"client.pem\"\nkey = {{ file = \"client.key\" }}\n"
    );
    let (with, report) = sender.send(json!([origin]), json!([origin, origin])).await;
    assert_eq!(with, ["200 hello", "200 hello"], "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_shown_to_a_connector_only_by_name_and_grant() {
    let reveal = |name: &str| json!({ "do": "reveal", "secret": "bind", "reveal": name });
    let mut sender = Sender::new("reveal = [\"bind\", \"other\"]");
    sender.more =
        "[limits]\nlogins-per-hour = 2\n[secrets.bind]\nfile = \"bind\"\n[secrets.other]\nfile = \"bind\"\n".into();
    secret(&sender, "bind", "b1nd\n");
    assert_eq!(sender.run(&reveal("bind")).await.0, ["secret: b1nd"]);
    assert_eq!(sender.run(&reveal("other")).await.0, ["refused: not granted"], "not asked for");
    sender.place.write("ceiling.toml", "");
    assert_eq!(sender.run(&reveal("bind")).await.0, ["refused: not granted"], "beyond the ceiling");
    std::fs::remove_file(sender.place.path("ceiling.toml")).unwrap();
    sender.place.write("grants/bad.toml", "");
    assert_eq!(sender.run(&reveal("bind")).await.0, ["refused: not granted"], "not granted");
    sender.place.write("grants/bad.toml", "reveal = [\"bind\"]");
    let host = sender.host(&reveal("bind")).await;
    assert_eq!(said(&host).await.0, ["secret: b1nd"]);
    assert_eq!(said(&host).await.0, ["secret: b1nd"]);
    assert_eq!(said(&host).await.0, ["refused: not granted"], "two an hour");
    host.shutdown().await;
    drop(host);
    sender.more.clear();
    assert_eq!(sender.run(&reveal("bind")).await.0, ["refused: unknown"], "none is configured");
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
    secret(&sender, "bind", "b1nd");
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
    assert_eq!(acts, ["\"token reset\" \"bad/account\""]);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_waits_for_another_secret_and_goes_on_by_itself() {
    let local = "127.0.0.1".parse().unwrap();
    let web = Web::at(
        local,
        None,
        Arc::new(|seen| {
            let refused = seen.header("authorization") != ["Bearer right"];
            refused.then(|| StatusCode::UNAUTHORIZED.into_response())
        }),
    );
    let origin = web.url("");
    let mut sender = Sender::new(&format!("http = [{origin:?}]"));
    sender.more = format!(
        "every = \"100ms\"\n[credentials.api]\ntype = \"bearer\"\nto = [{origin:?}]\ntoken = {{ file = \"token\" }}\n"
    );
    secret(&sender, "token", "wrong");
    let settings = json!({ "do": "log-in", "ask": [origin], "url": web.url("/") });
    sender.settings(&settings);
    let config = Config::load(&sender.place.path("tidewaiter.toml")).unwrap();
    let host = Host::start(config, "a test", Runs::Scheduled).await.unwrap();
    host.begin().await;
    let mut durable = host.db().watch();
    while web.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    // Time for some 30 more tries, if there were any.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(web.seen().len(), 1, "a refused login is not tried again");
    secret(&sender, "token", "right");
    durable.wait_for(|last| *last > 0).await.unwrap();
    assert_eq!(web.seen()[1].header("authorization"), ["Bearer right"]);
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_is_replaced_is_kept_over_restarts_and_in_no_readable_form() {
    let local = "127.0.0.1".parse().unwrap();
    // Each refresh token is good for one use.
    let good: Arc<Mutex<String>> = Arc::new(Mutex::new("r3fresh-0".into()));
    let rotating = Arc::clone(&good);
    let endpoint = Web::at(
        local,
        None,
        Arc::new(move |seen| {
            let mut good = rotating.lock().unwrap();
            if !seen.body.contains(&format!("refresh_token={good}")) {
                return Some(
                    (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }).to_string()).into_response(),
                );
            }
            let number: u32 = good.rsplit('-').next().unwrap().parse().unwrap();
            *good = format!("r3fresh-{}", number + 1);
            let granted = json!({ "access_token": format!("acc3ss-{number}"), "refresh_token": *good });
            Some(granted.to_string().into_response())
        }),
    );
    let api = Web::new();
    let origin = api.url("");
    let mut sender = Sender::new(&format!("http = [{origin:?}]"));
    sender.more = format!(
        "[credentials.api]\ntype = \"oauth2-refresh\"\nto = [{origin:?}]\ntoken-url = {:?}\nclient-id = \"us\"\n\
         refresh-token = {{ file = \"refresh\" }}\n",
        endpoint.url("/token")
    );
    secret(&sender, "refresh", "r3fresh-0");
    sender.settings(&json!({ "do": "fetch" }));
    let keyless = sender.place.run("check");
    assert!(keyless.code == 2 && keyless.stderr.contains("[encryption]"), "{keyless:?}");
    sender.host = "[encryption]\nkey = { file = \"key\" }\n".into();
    secret(&sender, "key", &"0123456789abcdef".repeat(4));
    for run in 0..3 {
        let (said, report) = sender.send(json!([origin]), json!([api.url("/")])).await;
        assert_eq!(said, ["200 hello"], "{report:?}");
        assert_eq!(api.seen()[run].header("authorization"), [format!("Bearer acc3ss-{run}")]);
    }
    assert_eq!(good.lock().unwrap().as_str(), "r3fresh-3");
    let file = std::fs::read(sender.place.path("data/tidewaiter.redb")).unwrap();
    assert!(!file.windows(7).any(|part| part == b"r3fresh"));
    *good.lock().unwrap() = "r3fresh-7".into();
    secret(&sender, "refresh", "r3fresh-7");
    let (said, _) = sender.send(json!([origin]), json!([api.url("/")])).await;
    assert_eq!(said, ["200 hello"], "a new one of the operator's takes the place of what was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_counts_whatever_kind_it_is() {
    let web = Web::new();
    let origin = web.url("");
    let mut sender = Sender::new(&format!("http = [{origin:?}]"));
    sender.more = format!(
        "[limits]\nlogins-per-hour = 2\n\
         [credentials.api]\ntype = \"bearer\"\nto = [{origin:?}]\ntoken = {{ file = \"token\" }}\n"
    );
    secret(&sender, "token", "wrong");
    let refused = web.url("/refuse");
    let (said, report) =
        sender.send(json!([origin]), json!([refused, web.url("/"), refused, refused, web.url("/")])).await;
    let denied = "refused ErrorCode::HttpRequestDenied";
    assert_eq!(said, ["401 ", "200 hello", "401 ", denied, denied]);
    assert!(noted(&report, "egress.login_limit"), "{report:?}");
    assert_eq!(web.seen().len(), 3);
}
