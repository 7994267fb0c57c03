//! A host whose connector sends requests: what `egress` and `logins` test with.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use tidewaiter::config::Config;
use tidewaiter::egress::{Resolve, Resolving};
use tidewaiter::host::{Host, Runs};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Outcome, RunReport, Trigger};
use tidewaiter_tests::Place;

/// Names as a test wants them: each answer in its turn, the last one for ever.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    pub(crate) fn new(names: &[(&str, &[&str])]) -> Arc<Self> {
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
pub(crate) struct Sender {
    pub(crate) place: Place,
    names: Arc<Names>,
    /// More of `tidewaiter.toml`.
    pub(crate) host: String,
    /// More of the connection.
    pub(crate) more: String,
}

impl Sender {
    pub(crate) fn new(grants: &str) -> Self {
        let place = Place::empty();
        place.install("hostile");
        place.write("grants/bad.toml", grants);
        Self { place, names: Names::new(&[]), host: String::new(), more: String::new() }
    }

    pub(crate) fn names(self, names: &[(&str, &[&str])]) -> Self {
        Self { names: Names::new(names), ..self }
    }

    pub(crate) fn settings(&self, settings: &Json) {
        let table = toml_of(settings);
        let connection = format!(
            "connector = \"hostile\"\nsettings = {table}\n[types.account]\nclass = \"account\"\n{}\n",
            self.more
        );
        self.place.write("tidewaiter.toml", &self.host);
        self.place.write("connections/bad.toml", &connection);
    }

    pub(crate) async fn host(&self, settings: &Json) -> Host {
        self.settings(settings);
        let config = Config::load(&self.place.path("tidewaiter.toml")).unwrap();
        let config = Config { resolver: Some(Arc::clone(&self.names) as Arc<dyn Resolve>), ..config };
        Host::start(config, "a test", Runs::WhenAsked).await.unwrap()
    }

    /// Sends requests in one run. What the connector says of each, and the report.
    pub(crate) async fn send(&self, ask: Json, requests: Json) -> (Vec<String>, RunReport) {
        self.run(&json!({ "do": "fetch", "ask": ask, "requests": requests })).await
    }

    pub(crate) async fn run(&self, settings: &Json) -> (Vec<String>, RunReport) {
        let host = self.host(settings).await;
        let said = said(&host).await;
        host.shutdown().await;
        said
    }
}

/// One run. What the connector says of each request, and the report.
pub(crate) async fn said(host: &Host) -> (Vec<String>, RunReport) {
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

/// Whether the host wrote this into the log of a run.
pub(crate) fn noted(report: &RunReport, part: &str) -> bool {
    report.spent.log.iter().any(|line| line.starts_with("host: ") && line.contains(part))
}
