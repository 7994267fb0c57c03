//! The service functions that the command line, the API and embedders share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidewaiter_core::grant::BadTemplate;
use tidewaiter_core::journal::Marker;
use tidewaiter_core::name::{ConnectionName, ConnectorName, TypeKey};
use tidewaiter_core::run::{RunReport, Trigger};
use tidewaiter_core::schedule::Refusal;
use tidewaiter_core::state::{Actor, SyncState, TypeState};
use tidewaiter_core::token::SyncToken;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::Config;
use crate::db::{Commit, CommitError, Db, OpenError, ReadError};
use crate::driver::{Connection, Request, Task};
use crate::wasm::{Connector, Engine, LoadError};

/// How long another process may take to leave the db.
const OWNER_WAIT: Duration = Duration::from_secs(5);
/// Requests on their way to the scheduler.
const REQUESTS: usize = 64;

/// A host that can't start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StartError {
    #[error(transparent)]
    Db(#[from] OpenError),
    #[error(transparent)]
    State(#[from] ReadError),
    #[error("this machine can't run connectors: {0}")]
    Engine(anyhow::Error),
    #[error("connection {connection}: can't read its connector {path}: {source}")]
    Missing { connection: ConnectionName, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Connector(#[from] LoadError),
    #[error("connection {connection}: {source}")]
    Capability { connection: ConnectionName, source: BadTemplate },
}

/// Something that can't be done.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Not now, or not at all.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The db.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The db.
    #[error(transparent)]
    Write(#[from] CommitError),
}

/// A running host. Dropped, its runs end where they are; `shutdown` ends them at a checkpoint.
#[derive(Debug)]
pub struct Host {
    db: Db,
    clock: Clock,
    config: Config,
    requests: mpsc::Sender<Request>,
    scheduler: JoinSet<()>,
}

impl Host {
    /// Opens the db, loads the connectors that connections name, and starts the schedules if `scheduled`. `holder` is what others
    /// are told who find the db in use.
    ///
    /// # Errors
    /// The first thing that is wrong; nothing runs then.
    pub async fn start(config: Config, holder: &str, scheduled: bool) -> Result<Self, StartError> {
        let clock = Clock::start();
        let db = Db::open(&config.data, holder, OWNER_WAIT)?;
        let connections = load(&config).await?;
        let mut stored = db.states()?;
        let mut types = Vec::new();
        for key in config.keys() {
            let written = &config.connections[&key.connection].types[&key.object_type];
            let state = stored.remove(&key).unwrap_or_else(|| TypeState::first(written.from, clock.now()));
            types.push((key, written.every.filter(|_| scheduled), state));
        }
        let (requests, received) = mpsc::channel(REQUESTS);
        let mut scheduler = JoinSet::new();
        scheduler.spawn(Task::new(db.clone(), clock, connections, types).work(received));
        Ok(Self { db, clock, config, requests, scheduler })
    }

    /// The db, to read from.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// What is configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs live sync of a type now, and waits for its end. During a run it waits for the one follow-up that all who ask share.
    ///
    /// # Errors
    /// Unknown type, lost token, or the host shuts down.
    pub async fn sync(&self, key: TypeKey, trigger: Trigger) -> Result<RunReport, HostError> {
        let (answer, result) = oneshot::channel();
        let asked = self.requests.send(Request::Sync { key, trigger, answer }).await;
        asked.map_err(|_| Refusal::ShuttingDown)?;
        Ok(result.await.map_err(|_| Refusal::ShuttingDown)??)
    }

    /// Throws the token away: the next run asks for the latest one, and syncs nothing. Wins over a run under way. Answers the state
    /// before it, if any was stored.
    ///
    /// # Errors
    /// Unknown type, or the db.
    pub async fn token_reset(&self, key: &TypeKey, by: Actor) -> Result<Option<TypeState>, HostError> {
        self.token_write(key, SyncState::New, Marker::TokenReset, by).await
    }

    /// Sets the token: the next run goes on from it. Wins over a run under way.
    ///
    /// # Errors
    /// As `token_reset`.
    pub async fn token_set(&self, key: &TypeKey, token: SyncToken, by: Actor) -> Result<Option<TypeState>, HostError> {
        self.token_write(key, SyncState::Live(token), Marker::TokenSet, by).await
    }

    async fn token_write(
        &self,
        key: &TypeKey,
        sync: SyncState,
        marker: Marker,
        by: Actor,
    ) -> Result<Option<TypeState>, HostError> {
        let configured = self.config.connections.get(&key.connection).and_then(|c| c.types.get(&key.object_type));
        let from = configured.ok_or_else(|| Refusal::Unknown(key.clone()))?.from;
        loop {
            let now = self.clock.now();
            let before = self.db.state(key)?;
            let stored = before.clone().unwrap_or_else(|| TypeState::first(from, now));
            let verb = if marker == Marker::TokenReset { "reset" } else { "set" };
            let state = TypeState {
                sync: sync.clone(),
                revision: stored.revision + 1,
                generation: stored.generation + 1,
                failures: 0,
                why: format!("{verb} by {by} at {now}"),
                changed_at: now,
                changed_by: by.clone(),
            };
            let commit = Commit {
                key: key.clone(),
                expected_revision: stored.revision,
                state: state.clone(),
                batches: Vec::new(),
                marker: Some((marker.clone(), by.clone())),
                run: None,
                report: None,
                at: now,
            };
            match self.db.commit(commit).await {
                // A run committed in between: the operator wins, on top of it.
                Err(CommitError::Conflict) => continue,
                other => other?,
            };
            tracing::info!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, why = state.why,
                state = state.sync.name(), "token {verb}"
            );
            let _ = self.requests.send(Request::StateChanged { key: key.clone(), state }).await;
            return Ok(before);
        }
    }

    /// Ends every run at a checkpoint, and the schedules.
    pub async fn shutdown(mut self) {
        let _ = self.requests.send(Request::Shutdown).await;
        while self.scheduler.join_next().await.is_some() {}
    }
}

async fn load(config: &Config) -> Result<HashMap<ConnectionName, Arc<Connection>>, StartError> {
    let engine = Engine::new().map_err(StartError::Engine)?;
    let mut connectors: BTreeMap<ConnectorName, Connector> = BTreeMap::new();
    let mut connections = HashMap::new();
    for (name, written) in &config.connections {
        if !connectors.contains_key(&written.connector) {
            let path = config.connectors.join(format!("{}.wasm", written.connector));
            let bytes = std::fs::read(&path).map_err(|source| StartError::Missing {
                connection: name.clone(),
                path: path.clone(),
                source,
            })?;
            let connector = Connector::load(&engine, &written.connector, &bytes).await?;
            connectors.insert(written.connector.clone(), connector);
        }
        let connector = connectors[&written.connector].clone();
        let connection = Connection::new(name.clone(), written.clone(), connector)
            .map_err(|source| StartError::Capability { connection: name.clone(), source })?;
        connections.insert(name.clone(), Arc::new(connection));
    }
    Ok(connections)
}
