//! Logins over HTTP, which the host puts in: where they go, where they never show, when they are tried again. With real servers, token
//! endpoints too.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;
use tidewaiter::config::Config;
use tidewaiter::host::{Host, Runs};
use tidewaiter_core::run::RunReport;
use tidewaiter_tests::web::{Authority, Web};

use crate::sender::{Sender, noted, said};

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
    sender.place.write("token", "t0ken-1\n");
    sender.place.write("password", "pa:ss");
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

    sender.place.write("token", "t0ken-2");
    let (_, second) = sender.send(ask.clone(), json!([web.url("/")])).await;
    assert_eq!(web.seen()[2].header("authorization"), ["Bearer t0ken-2"], "read again at each run");
    std::fs::remove_file(sender.place.path("token")).unwrap();
    let (said, third) = sender.send(ask, json!([web.url("/")])).await;
    assert_eq!(said, ["refused ErrorCode::ConfigurationError"]);
    assert!(noted(&third, "egress.credential: the credential api: the secret from the file"), "{third:?}");
    assert_eq!(web.seen().len(), 3, "nothing leaves without its login");
    sender.place.write("token", "t0ken-3");
    shown_nowhere(&sender, &["t0ken", "k3y", "pa:ss", "dXPDqXI6cGE6c3M"], &[&first, &second, &third]);
    let shown = sender.place.run("connections show bad").stdout;
    assert!(shown.contains(&format!("api  {origin}")), "{shown}");
}

/// A token endpoint that counts, and an API that takes only the last token.
fn oauth_server() -> (Web, Web, Arc<Mutex<Vec<String>>>) {
    let given: Arc<Mutex<Vec<String>>> = Arc::default();
    let giving = Arc::clone(&given);
    let endpoint = Web::answering(move |seen| {
        let mut given = giving.lock().unwrap();
        if seen.body.contains("client_secret=wrong") || seen.header("authorization").contains(&"Basic Y2xpZW50Ondyb25n")
        {
            let refused = json!({ "error": "invalid_client", "error_description": "who are you?" });
            return Some((StatusCode::BAD_REQUEST, refused.to_string()).into_response());
        }
        let token = format!("acc3ss-{}", given.len() + 1);
        given.push(token);
        let granted = json!({ "access_token": given.last(), "token_type": "Bearer", "expires_in": 3600 });
        Some(granted.to_string().into_response())
    });
    let taking = Arc::clone(&given);
    let api = Web::answering(move |seen| {
        let last = taking.lock().unwrap().last().map(|token| format!("Bearer {token}")).unwrap_or_default();
        let refused = seen.uri == "/refuse" || seen.header("authorization") != [last];
        refused.then(|| StatusCode::UNAUTHORIZED.into_response())
    });
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
    sender.place.write("secret", "s3cr3t&");
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
    sender.place.write("secret", "wrong");
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
    sender.place.write("client.pem", &certificate);
    sender.place.write("client.key", &key);
    sender.more = format!(
        "[credentials.us]\ntype = \"mtls\"\nto = [{origin:?}]\ncertificate = \"client.pem\"\nkey = {{ file = \"client.key\" }}\n"
    );
    let (with, report) = sender.send(json!([origin]), json!([origin, origin])).await;
    assert_eq!(with, ["200 hello", "200 hello"], "{report:?}");
    let other = Web::at(local, Some(authority.server(&["127.0.0.1"], true)), Arc::new(|_| None));
    let other = format!("https://{}", other.address);
    sender.place.write("grants/bad.toml", &format!("http = [{origin:?}, {other:?}]"));
    let (elsewhere, _) = sender.send(json!([origin, other]), json!([origin, other])).await;
    assert!(elsewhere[0] == "200 hello" && elsewhere[1].starts_with("refused "), "{elsewhere:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_shown_to_a_connector_only_by_name_and_grant() {
    let reveal = |name: &str| json!({ "do": "reveal", "secret": "bind", "reveal": name });
    let mut sender = Sender::new("reveal = [\"bind\", \"other\"]");
    sender.more =
        "[limits]\nlogins-per-hour = 2\n[secrets.bind]\nfile = \"bind\"\n[secrets.other]\nfile = \"bind\"\n".into();
    sender.place.write("bind", "b1nd\n");
    assert_eq!(sender.run(&reveal("bind")).await.0, ["secret: b1nd"]);
    assert_eq!(sender.run(&reveal("other")).await.0, ["refused: not granted"], "not asked for");
    sender.place.write("ceiling.toml", "");
    assert_eq!(sender.run(&reveal("bind")).await.0, ["refused: not granted"], "beyond the ceiling");
    std::fs::remove_file(sender.place.path("ceiling.toml")).unwrap();
    sender.place.write("grants/bad.toml", "");
    assert_eq!(sender.run(&reveal("bind")).await.0, ["refused: not granted"], "not granted");
    sender.place.write("grants/bad.toml", "reveal = [\"bind\"]");
    let host = sender.host(&reveal("bind")).await;
    for _ in 0..4 {
        assert_eq!(said(&host).await.0, ["secret: b1nd"], "as often as it works");
    }
    host.shutdown().await;
    drop(host);
    let mut refused = reveal("bind");
    refused["do"] = "log-in-with-what-is-shown".into();
    let host = sender.host(&refused).await;
    assert_eq!(said(&host).await.0, ["secret: b1nd"]);
    assert_eq!(said(&host).await.0, ["secret: b1nd"]);
    assert_eq!(said(&host).await.0, ["refused: not granted"], "two an hour");
    host.shutdown().await;
    drop(host);
    sender.more.clear();
    assert_eq!(sender.run(&reveal("bind")).await.0, ["refused: unknown"], "none is configured");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_waits_for_another_secret_and_goes_on_by_itself() {
    let web = Web::answering(|seen| {
        let refused = seen.header("authorization") != ["Bearer right"];
        refused.then(|| StatusCode::UNAUTHORIZED.into_response())
    });
    let origin = web.url("");
    let mut sender = Sender::new(&format!("http = [{origin:?}]"));
    sender.more = format!(
        "every = \"100ms\"\n[credentials.api]\ntype = \"bearer\"\nto = [{origin:?}]\ntoken = {{ file = \"token\" }}\n"
    );
    sender.place.write("token", "wrong");
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
    sender.place.write("token", "right");
    durable.wait_for(|last| *last > 0).await.unwrap();
    assert_eq!(web.seen()[1].header("authorization"), ["Bearer right"]);
    host.shutdown().await;
}

/// With a refresh token for `api`, which this endpoint takes.
fn refreshing(api: &str, endpoint: &Web) -> Sender {
    let mut sender = Sender::new(&format!("http = [{api:?}]"));
    sender.more = format!(
        "[credentials.api]\ntype = \"oauth2-refresh\"\nto = [{api:?}]\ntoken-url = {:?}\nclient-id = \"us\"\n\
         refresh-token = {{ file = \"refresh\" }}\n",
        endpoint.url("/token")
    );
    sender.place.write("refresh", "r3fresh-0");
    sender.place.write("key", &"0123456789abcdef".repeat(4));
    sender.host = "[encryption]\nkey = { file = \"key\" }\n".into();
    sender
}

/// With a login for these that stays the same, so many times an hour.
fn bearing(to: &[&str], per_hour: u32) -> Sender {
    let mut sender = Sender::new(&format!("http = {to:?}"));
    sender.more = format!(
        "[limits]\nlogins-per-hour = {per_hour}\n\
         [credentials.api]\ntype = \"bearer\"\nto = {to:?}\ntoken = {{ file = \"token\" }}\n"
    );
    sender.place.write("token", "wrong");
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_is_replaced_is_kept_over_restarts_and_in_no_readable_form() {
    // Each refresh token is good for one use.
    let good: Arc<Mutex<String>> = Arc::new(Mutex::new("r3fresh-0".into()));
    let rotating = Arc::clone(&good);
    let endpoint = Web::answering(move |seen| {
        let mut good = rotating.lock().unwrap();
        if !seen.body.contains(&format!("refresh_token={good}")) {
            return Some((StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }).to_string()).into_response());
        }
        let number: u32 = good.rsplit('-').next().unwrap().parse().unwrap();
        *good = format!("r3fresh-{}", number + 1);
        let granted = json!({ "access_token": format!("acc3ss-{number}"), "refresh_token": *good });
        Some(granted.to_string().into_response())
    });
    let api = Web::new();
    let origin = api.url("");
    let mut sender = refreshing(&origin, &endpoint);
    let keys = std::mem::take(&mut sender.host);
    sender.settings(&json!({ "do": "fetch" }));
    let keyless = sender.place.run("check");
    assert!(keyless.code == 2 && keyless.stderr.contains("[encryption]"), "{keyless:?}");
    sender.host = keys;
    for run in 0..3 {
        let (said, report) = sender.send(json!([origin]), json!([api.url("/")])).await;
        assert_eq!(said, ["200 hello"], "{report:?}");
        assert_eq!(api.seen()[run].header("authorization"), [format!("Bearer acc3ss-{run}")]);
    }
    assert_eq!(good.lock().unwrap().as_str(), "r3fresh-3");
    let file = std::fs::read(sender.place.path("data/tidewaiter.redb")).unwrap();
    assert!(!file.windows(7).any(|part| part == b"r3fresh"));
    *good.lock().unwrap() = "r3fresh-7".into();
    sender.place.write("refresh", "r3fresh-7");
    let (said, _) = sender.send(json!([origin]), json!([api.url("/")])).await;
    assert_eq!(said, ["200 hello"], "a new one of the operator's takes the place of what was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_is_shown_once_whoever_goes_away() {
    let shown = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&shown);
    let endpoint = Web::answering(move |_| {
        *counted.lock().unwrap() += 1;
        std::thread::sleep(std::time::Duration::from_millis(500));
        let granted = json!({ "access_token": "acc3ss", "refresh_token": "r3fresh-1" });
        Some(granted.to_string().into_response())
    });
    let api = Web::new();
    let origin = api.url("");
    let sender = refreshing(&origin, &endpoint);
    // The first one is given up while the endpoint is asked.
    let hasty = json!({ "url": api.url("/"), "give-up-ms": 100 });
    let (said, report) = sender.send(json!([origin]), json!([hasty, api.url("/")])).await;
    assert_eq!(said, ["given up", "200 hello"], "{report:?}");
    assert_eq!(*shown.lock().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_again_and_again_is_not_used_any_more() {
    let (web, other) = (Web::new(), Web::new());
    let (here, there) = (web.url(""), other.url(""));
    let (refused, fine) = (web.url("/refuse"), web.url("/"));
    let requests = json!([refused, refused, fine, refused, refused, refused, refused, fine, other.url("/")]);
    let denied = "refused ErrorCode::HttpRequestDenied";
    let (said, report) = bearing(&[&here, &there], 40).send(json!([here, there]), requests).await;
    let expected = ["401 ", "401 ", "200 hello", "401 ", "401 ", "401 ", denied, denied, "200 hello"];
    assert_eq!(said, expected, "by one authority, and in a row");
    assert!(noted(&report, "egress.login_refused"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_was_sent_counts_whether_or_not_its_answer_is_waited_for() {
    let web = Web::new();
    let here = web.url("");
    let nobody = "http://127.0.0.1:1";
    let hasty = json!({ "url": web.url("/never"), "timeout-ms": 100 });
    let sender = bearing(&[&here, nobody], 2);
    let unsent = format!("{nobody}/");
    let (said, report) = sender.send(json!([here, nobody]), json!([unsent, unsent, unsent, web.url("/")])).await;
    assert_eq!(said[3], "200 hello", "where nobody was reached nothing was sent: {report:?}");
    let (said, report) = sender.send(json!([here]), json!([hasty, hasty, web.url("/")])).await;
    assert_eq!(said[2], "refused ErrorCode::HttpRequestDenied", "{said:?}");
    assert!(noted(&report, "egress.login_limit"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_counts_whatever_kind_it_is() {
    let web = Web::new();
    let origin = web.url("");
    let refused = web.url("/refuse");
    let requests = json!([refused, web.url("/"), refused, refused, web.url("/")]);
    let (said, report) = bearing(&[&origin], 2).send(json!([origin]), requests).await;
    let denied = "refused ErrorCode::HttpRequestDenied";
    assert_eq!(said, ["401 ", "200 hello", "401 ", denied, denied]);
    assert!(noted(&report, "egress.login_limit"), "{report:?}");
    assert_eq!(web.seen().len(), 3);
}
