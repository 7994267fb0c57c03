//! A host that is configured by the program that embeds it: built, changed and read by code.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidewaiter_core::journal::Entry;
use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tidewaiter_core::refusal::Patience;
use tidewaiter_core::state::Actor;
use tokio::task::spawn_blocking;

use super::ask::After;
use super::{Host, HostError, Reloaded, Runs, StartError};
use crate::config::{Config, ConnectionConfig, SinkConfig, SinkTo};
use crate::egress::Resolve;
use crate::files;
use crate::sink::{OwnSink, Sink};
use crate::trust::Mode;

/// What others are told who find the data in use.
const HOLDER: &str = "a program with a host of its own";
/// Entries that a subscription reads at a time.
const ENTRIES: usize = 1000;
/// How long one wait for an entry lasts.
const WAIT: Duration = Duration::from_secs(60);

/// A host to be.
#[derive(Debug)]
#[must_use = "it does nothing before it is started"]
pub struct Builder {
    config: Config,
}

impl Host {
    /// A host whose data is in a folder, and that has no connections yet. Connectors are in `connectors` in there, and run if they are pinned in
    /// `connectors.lock` in there (`Host::pin`).
    pub fn builder(data: impl Into<PathBuf>) -> Builder {
        Builder { config: Config::of_program(data.into()) }
    }
}

impl Builder {
    /// Connectors are in this folder, `NAME.wasm` each. It is watched.
    pub fn connectors(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config.connectors = folder.into();
        self
    }

    /// Which files connectors may be.
    pub fn trusts(mut self, mode: Mode) -> Self {
        self.config.connector_trust.mode = mode;
        self
    }

    /// Adds a connection.
    pub fn connection(mut self, name: ConnectionName, written: ConnectionConfig) -> Self {
        self.config.connections.insert(name, Arc::new(written));
        self
    }

    /// Adds a sink of the program's own. Its name is what its place in the journal is known by.
    pub fn sink(mut self, name: impl Into<String>, sink: Box<dyn Sink>) -> Self {
        let to = SinkTo::Own(OwnSink::new(sink));
        self.config.sinks.insert(name.into(), SinkConfig { to, inline: false, patience: Patience::default() });
        self
    }

    /// Names are resolved by this, for all connectors.
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.config.resolver = Some(resolver);
        self
    }

    /// Connectors are compiled by this program, called with `compile`, in a confined process of its own; `tidewaiter` is one. Without one they are compiled in
    /// this process.
    pub fn compiler(mut self, program: impl Into<PathBuf>) -> Self {
        self.config.compiler = Some(program.into());
        self
    }

    /// Everything else that can be configured.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts it, and begins its schedules.
    ///
    /// # Errors
    /// As `Host::start`.
    pub async fn start(self) -> Result<Host, StartError> {
        let host = Box::pin(Host::start(self.config, HOLDER, Runs::Scheduled)).await?;
        host.begin().await;
        Ok(host)
    }
}

/// Entries of the journal, one after the other, as they come.
#[derive(Debug)]
pub struct Subscription<'a> {
    host: &'a Host,
    after: After,
    entries: VecDeque<Entry>,
}

impl Subscription<'_> {
    /// The next entry, as soon as there is one; none: the host ends. Dropped, it loses none.
    ///
    /// # Errors
    /// Entries that come next have been dropped, or the db.
    pub async fn next(&mut self) -> Result<Option<Entry>, HostError> {
        while self.entries.is_empty() {
            self.entries = self.host.changes(self.after, ENTRIES, WAIT).await?.into();
            if self.entries.is_empty() && self.host.closing().is_cancelled() {
                return Ok(None);
            }
        }
        let entry = self.entries.pop_front();
        if let Some(entry) = &entry {
            self.after = After::Id(entry.id);
        }
        Ok(entry)
    }
}

impl Host {
    /// The entries after a place, and those that come. Whoever stores the id of the last one that it has dealt with goes on from there.
    pub fn subscribe(&self, after: After) -> Subscription<'_> {
        Subscription { host: self, after, entries: VecDeque::new() }
    }

    /// Adds a connection, or has it as it is written here from now on, as `reload` does.
    ///
    /// # Errors
    /// Its connector can't work with it, and nothing is changed; or files say which connections there are.
    pub async fn set_connection(
        &self,
        name: ConnectionName,
        written: ConnectionConfig,
        by: Actor,
    ) -> Result<Reloaded, HostError> {
        self.change(by, move |connections| drop(connections.insert(name, Arc::new(written)))).await
    }

    /// Removes a connection: its run ends, and its token and what it journaled stay.
    ///
    /// # Errors
    /// Unknown, or as `set_connection`.
    pub async fn remove_connection(&self, name: &ConnectionName, by: Actor) -> Result<Reloaded, HostError> {
        if !self.config().connections.contains_key(name) {
            return Err(HostError::UnknownConnection(name.clone()));
        }
        let name = name.clone();
        self.change(by, move |connections| drop(connections.remove(&name))).await
    }

    async fn change(
        &self,
        by: Actor,
        change: impl FnOnce(&mut BTreeMap<ConnectionName, Arc<ConnectionConfig>>) + Send + 'static,
    ) -> Result<Reloaded, HostError> {
        let nothing = || HostError::NotReloaded { problem: "this host runs nothing".to_owned() };
        let (reviser, audit) = (self.reviser.clone().ok_or_else(nothing)?, self.audit.clone());
        Box::pin(self.act(async move { reviser.change(change, &by, &audit).await })).await
    }

    /// Puts a connector into the folder, or another file of it in the place of the one that is there; connections run it once it is compiled and trusted, on
    /// trial where they ran another one.
    ///
    /// # Errors
    /// It can't be written, or a connection can't run it: what ran before goes on.
    pub async fn set_connector(&self, name: ConnectorName, bytes: Vec<u8>, by: Actor) -> Result<(), HostError> {
        let (reviser, audit, path) = (self.reviser(&name)?, self.audit.clone(), self.config().connector(&name));
        let not = |connector: &ConnectorName, problem: String| HostError::NotRevised {
            connector: connector.clone(),
            problem,
        };
        Box::pin(self.act(async move {
            audit.act(&by, "connectors set", name.to_string()).await?;
            let written = spawn_blocking(move || files::put(&path, &bytes, 0o644)).await?;
            written.map_err(|error| not(&name, format!("it can't be written: {error}")))?;
            reviser.revise_asked(&name).await
        }))
        .await
    }

    /// Removes the file of a connector. What runs of it goes on, until its connections are removed or the host ends.
    ///
    /// # Errors
    /// It is not there, or can't be removed.
    pub async fn remove_connector(&self, name: ConnectorName, by: Actor) -> Result<(), HostError> {
        let (audit, path) = (self.audit.clone(), self.config().connector(&name));
        self.act(async move {
            audit.act(&by, "connectors remove", name.to_string()).await?;
            let removed = spawn_blocking(move || std::fs::remove_file(path)).await?;
            removed.map_err(|error| HostError::NotRevised { connector: name, problem: error.to_string() })
        })
        .await
    }
}
