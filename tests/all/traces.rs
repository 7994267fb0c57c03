//! Traces of runs, as a collector gets them: decoded from what was really sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tidewaiter::clock::Clock;
use tidewaiter::host::Host;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{RunReport, Trigger};
use tidewaiter_tests::web::Web;
use tidewaiter_tests::{HR, is_quick, rows, until};

use crate::sender::Sender;

async fn synced(host: &Host, connection: &str) -> RunReport {
    let key = TypeKey { connection: connection.parse().unwrap(), object_type: "account".parse().unwrap() };
    host.sync(key, Trigger::Command).await.unwrap()
}

/// A host with `hr`, which works, and `bad`, which does what the settings say; its traces go to a collector.
fn place(collector: &str) -> Sender {
    let mut sender = Sender::new("");
    sender.place.people(&rows(1..=3, 2026));
    sender.place.write("connections/hr.toml", &format!("{HR}from = \"beginning\"\n"));
    sender.place.write("grants/hr.toml", "read = [\"people\"]\n");
    sender.host = format!("[telemetry]\notlp = {collector:?}\nservice-name = \"tides\"\n");
    sender
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key).and_then(|attribute| attribute.value.clone());
    match found {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

/// The traces that came: the spans of each.
fn traces(collector: &Web) -> BTreeMap<Vec<u8>, Vec<Span>> {
    let mut traces: BTreeMap<Vec<u8>, Vec<Span>> = BTreeMap::new();
    for seen in collector.seen() {
        assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("POST", "/v1/traces"));
        assert_eq!(seen.header("content-type"), ["application/x-protobuf"]);
        let request = ExportTraceServiceRequest::decode(&*seen.bytes).unwrap();
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap().attributes;
            assert_eq!(text(&resource, "service.name"), "tides");
            assert_eq!(text(&resource, "service.version"), env!("CARGO_PKG_VERSION"));
            assert_eq!(text(&resource, "service.instance.id").len(), 16);
            for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
                traces.entry(span.trace_id.clone()).or_default().push(span);
            }
        }
    }
    traces
}

/// The run of a trace, and its parts in their order.
fn run_of(spans: &[Span]) -> (&Span, Vec<&Span>) {
    let (roots, mut parts): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|span| span.parent_span_id.is_empty());
    let [root] = roots[..] else { panic!("{spans:?}") };
    assert_eq!(root.name, "run");
    for part in &parts {
        assert_eq!(part.parent_span_id, root.span_id, "{part:?}");
        let (begins, ends) = (part.start_time_unix_nano, part.end_time_unix_nano);
        assert!(root.start_time_unix_nano <= begins && begins <= ends && ends <= root.end_time_unix_nano, "{part:?}");
    }
    parts.sort_by_key(|part| part.start_time_unix_nano);
    (root, parts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_run_is_one_trace_with_its_calls_and_commits() {
    let collector = Web::answering(|_| Some(axum::http::StatusCode::OK.into_response()));
    let sender = place(&collector.url(""));
    let host = sender.host(&json!({ "do": "hostile-words", "secret-of-mine": "s3cret-setting" })).await;
    let reports = [synced(&host, "hr").await, synced(&host, "hr").await, synced(&host, "bad").await];
    host.shutdown().await;

    let traces = traces(&collector);
    let mut runs = BTreeMap::new();
    for spans in traces.values() {
        let (run, parts) = run_of(spans);
        let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        runs.insert(text(&run.attributes, "tidewaiter.run"), (run.clone(), names));
    }
    assert_eq!(runs.len(), 3, "one trace for each run");
    for (report, outcome, names) in [
        (&reports[0], "ok", vec!["start", "object-classes", "sync", "commit"]),
        (&reports[1], "ok", vec!["start", "sync"]),
        (&reports[2], "failed", vec!["start", "object-classes", "get-latest-sync-token", "sync", "commit"]),
    ] {
        let (run, parts) = &runs[&report.run.to_string()];
        let of = |key: &str| text(&run.attributes, key);
        assert_eq!(of("tidewaiter.connection"), report.key.connection.as_str());
        assert_eq!([of("tidewaiter.type"), of("tidewaiter.trigger")], ["account", "command"]);
        assert_eq!(
            [of("tidewaiter.outcome"), of("tidewaiter.deltas")],
            [outcome.to_owned(), report.deltas.to_string()]
        );
        let parts: BTreeSet<&str> = parts.iter().map(String::as_str).collect();
        assert_eq!(parts, names.into_iter().collect::<BTreeSet<_>>());
    }
    let (bad, _) = &runs[&reports[2].run.to_string()];
    assert_eq!(text(&bad.attributes, "error.type"), "connector.other");
    let failed = traces.values().flatten().find(|span| span.name == "sync" && span.trace_id == bad.trace_id).unwrap();
    assert_eq!(text(&failed.attributes, "error.type"), "connector.other");
    assert_eq!(failed.status.clone().unwrap().code, 2, "an error");

    // Nothing of what was read, set or said.
    let sent: Vec<u8> = collector.seen().iter().flat_map(|seen| seen.bytes.to_vec()).collect();
    let sent = String::from_utf8_lossy(&sent);
    let token = tidewaiter_core::token::Shown(reports[0].token_out.as_ref()).to_string();
    for word in ["example.org", "s3cret-setting", "everything is fine", "people", token.trim_matches('"')] {
        assert!(!sent.contains(word), "{word}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_or_never_answers_holds_up_no_run() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let count = if is_quick() { 50 } else { 2000 };
    for (address, drops) in [(closed, true), (silent.local_addr().unwrap(), !is_quick())] {
        let sender = place(&format!("http://{address}"));
        let host = Arc::new(sender.host(&json!({ "do": "person" })).await);
        synced(&host, "hr").await;
        let clock = Clock::start();
        for _ in 0..count {
            synced(&host, "hr").await;
        }
        let each = clock.elapsed() / count;
        println!("{each:?} a run beside a collector at {address}");
        assert!(each < Duration::from_millis(100), "{each:?}");
        let dropped = || {
            let text = host.metrics().unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("tidewaiter_trace_spans_dropped_total "));
            line.unwrap().parse::<u64>().unwrap()
        };
        // Three spans a run: of the silent one's no more are held than a queue and a request have.
        until("some are dropped", || !drops || dropped() > 0);
        let began = clock.elapsed();
        host.shutdown().await;
        assert!(clock.elapsed() - began < Duration::from_secs(5), "{:?}", clock.elapsed() - began);
    }
}
