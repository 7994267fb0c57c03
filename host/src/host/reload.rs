//! Takes over what is configured by now: connections and what they are granted come, change and go while others run. All of it is looked at before anything
//! changes; where something is wrong with it, nothing does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tidewaiter_core::state::Actor;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::load::NotLoaded;
use super::revise::Reviser;
use super::watch::{SETTLE, Stamp};
use super::{Host, HostError, scheduled};
use crate::audit::Audit;
use crate::config::{Config, Differences};
use crate::driver::{Connection, Request};

/// How often it is looked at the files.
const LOOK: Duration = Duration::from_secs(1);
/// How long what was not taken over waits: a connector that it needs may come.
const RETRY: Duration = Duration::from_secs(10);

/// What came of looking at the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reloaded {
    /// What changed.
    #[serde(flatten)]
    pub differences: Differences,
    /// New connections that can't run yet, and why.
    pub broken: BTreeMap<ConnectionName, String>,
    /// Keys of the host's file that differ from what runs, and count after a restart.
    pub after_restart: Vec<String>,
}

/// Connections as they are configured by now, before anything changes.
#[derive(Default)]
struct Made {
    connections: Vec<Arc<Connection>>,
    broken: BTreeMap<ConnectionName, String>,
}

impl Reviser {
    /// Reads the configuration again, and takes over what counts at once.
    async fn reload(&self, by: &Actor, audit: &Audit) -> Result<Reloaded, HostError> {
        let _alone = self.reloading.lock().await;
        let now = self.config.now();
        let file = now.file.clone();
        let read = spawn_blocking(move || Config::load(&file)).await?;
        let revised = read.and_then(|read| now.revised(read));
        let (next, later) = revised.map_err(|error| not(&error))?;
        let after_restart = later.into_iter().map(str::to_owned).collect();
        Ok(Reloaded { after_restart, ..self.take_over(next, by, audit).await? })
    }

    /// Has a configuration count.
    async fn take_over(&self, next: Config, by: &Actor, audit: &Audit) -> Result<Reloaded, HostError> {
        let (now, next) = (self.config.now(), Arc::new(next));
        let differences = Differences::between(&now, &next);
        if differences.is_empty() {
            self.config.set(next);
            return Ok(Reloaded::default());
        }
        let changed = differences.changed.keys().chain(&differences.removed);
        let connectors = changed.clone().filter_map(|name| now.connections.get(name));
        let others = differences.changed.keys().chain(&differences.added).filter_map(|name| next.connections.get(name));
        let connectors: BTreeSet<&ConnectorName> = connectors.chain(others).map(|written| &written.connector).collect();
        let mut turns = Vec::new();
        for connector in connectors {
            turns.push(self.turn(connector).await);
        }
        let Made { connections, broken } = self.made(&next, &differences).await?;
        audit.act(by, "reload", differences.to_string()).await?;
        for connection in &connections {
            self.loader.note_placed(connection).await.map_err(|error| not(&error))?;
        }
        // From here on it counts.
        self.roster.place(connections.clone(), &self.db).await?;
        self.config.set(Arc::clone(&next));
        for name in &differences.removed {
            self.roster.remove(name);
        }
        for (name, problem) in &broken {
            tracing::error!(target: "tidewaiter", connection = %name, "this connection can't run: {problem}");
            self.roster.take_out(name.clone(), problem.clone());
        }
        let loses = |name: &&ConnectionName| match (now.connections.get(*name), next.connections.get(*name)) {
            (Some(before), Some(after)) => before.access.loses_by(&after.access),
            _ => true,
        };
        let losing = changed.filter(loses).cloned().collect();
        let _ = self.requests.send(Request::Abandon { files: BTreeSet::new(), connections: losing }).await;
        let mut types: BTreeMap<ConnectionName, _> =
            differences.removed.iter().map(|name| (name.clone(), vec![])).collect();
        for connection in &connections {
            types.insert(
                connection.name.clone(),
                scheduled(&self.db, connection, self.clock).map_err(|error| not(&error))?,
            );
        }
        for (connection, types) in types {
            let _ = self.requests.send(Request::Configured { connection, types }).await;
        }
        drop(turns);
        if now.connector_trust != next.connector_trust {
            self.trust_anew(&self.loader.connectors()).await?;
        }
        Ok(Reloaded { differences, broken, after_restart: Vec::new() })
    }

    /// Makes the connections that come or change. None that runs may be unable to afterwards.
    async fn made(&self, next: &Arc<Config>, differences: &Differences) -> Result<Made, HostError> {
        let concerned =
            |name: &ConnectionName| differences.changed.contains_key(name) || differences.added.contains(name);
        let concerned = next.connections.iter().filter(|(name, _)| concerned(name));
        let mut by_connector: BTreeMap<&ConnectorName, Vec<_>> = BTreeMap::new();
        for (name, written) in concerned {
            by_connector.entry(&written.connector).or_default().push((name, written));
        }
        let (mut made, mut problems) = (Made::default(), Vec::new());
        for (connector, connections) in by_connector {
            let mut shelf = self.loader.shelf(connector, next).await;
            for (name, written) in connections {
                let running = self.roster.get(name);
                match self.loader.configured(name, written, &mut shelf, running.as_deref()).await {
                    Ok(connection) => made.connections.push(connection),
                    Err(NotLoaded::Host(error)) => return Err(not(&error)),
                    Err(NotLoaded::Connector(fault)) if running.is_some() => {
                        problems.push(format!("connection {name}: {fault}"));
                    }
                    Err(NotLoaded::Connector(fault)) => {
                        made.broken.insert(name.clone(), fault.why);
                    }
                }
            }
        }
        match problems.is_empty() {
            true => Ok(made),
            false => Err(HostError::NotReloaded { problem: problems.join("\n") }),
        }
    }

    /// As `reload`, told to whoever reads the log.
    async fn reload_told(&self, by: &Actor, audit: &Audit) -> Result<Reloaded, HostError> {
        let done = self.reload(by, audit).await;
        match &done {
            Ok(reloaded) => tell(reloaded),
            Err(error) => refuse(error),
        }
        done
    }
}

fn tell(reloaded: &Reloaded) {
    let Reloaded { differences, after_restart, .. } = reloaded;
    if !after_restart.is_empty() {
        let keys = after_restart.join(", ");
        tracing::warn!(target: "tidewaiter", keys, code = "needs-restart", "these keys of the host's file count after a restart");
    }
    tracing::info!(target: "tidewaiter", code = "reloaded", "what is configured counts: {differences}");
}

fn refuse(error: &HostError) {
    tracing::error!(target: "tidewaiter", code = "reload-refused", "{error}");
}

fn not(error: &dyn std::error::Error) -> HostError {
    let mut problem = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        problem = format!("{problem}: {error}");
        source = error.source();
    }
    HostError::NotReloaded { problem }
}

/// The files of a configuration, and what tells one content of each from another.
fn stamps(config: &Config) -> BTreeMap<PathBuf, Option<Stamp>> {
    let of_folder = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
    };
    let single = [config.file.clone(), config.ceiling_in.clone()];
    let files = of_folder(&config.connections_in).chain(of_folder(&config.grants_in)).chain(single);
    files.map(|path| (path.clone(), std::fs::metadata(&path).ok().as_ref().map(Stamp::of))).collect()
}

/// Takes over what is saved, until the host closes.
pub(super) async fn watch(reviser: Arc<Reviser>, audit: Audit, closing: CancellationToken) {
    let look = async || {
        let config = reviser.config.now();
        spawn_blocking(move || stamps(&config)).await.unwrap_or_default()
    };
    let (mut known, mut refused, mut due) = (None, None, None);
    loop {
        let passed = closing.run_until_cancelled(tokio::time::sleep(LOOK)).await;
        if passed.is_none() {
            return;
        }
        let mut seen = look().await;
        let is_due = due.is_some_and(|due| due <= reviser.clock.moment());
        if known.as_ref() == Some(&seen) && !is_due {
            continue;
        }
        // Nobody writes to them any more.
        loop {
            tokio::time::sleep(SETTLE).await;
            let again = look().await;
            if again == std::mem::replace(&mut seen, again.clone()) {
                break;
            }
        }
        let is_first = known.replace(seen).is_none();
        match reviser.reload(&Actor::Host, &audit).await {
            Ok(reloaded) if is_first && reloaded == Reloaded::default() => (refused, due) = (None, None),
            Ok(reloaded) => {
                tell(&reloaded);
                (refused, due) = (None, None);
            }
            Err(error) => {
                due = Some(reviser.clock.moment() + RETRY);
                if refused.replace(error.to_string()).as_ref() != Some(&error.to_string()) {
                    refuse(&error);
                }
            }
        }
    }
}

impl Host {
    /// Looks at the configuration again. What it says of connections, grants, who may decide and what is trusted counts from then on; a run under way ends with
    /// what it began with, or at once where something was taken away from its connection.
    ///
    /// # Errors
    /// Something is wrong with it, or a connection that runs could not any more; nothing is changed then. Or the db.
    pub async fn reload(&self, by: Actor) -> Result<Reloaded, HostError> {
        let nothing = || HostError::NotReloaded { problem: "no server runs, and one that starts reads it".to_owned() };
        let (reviser, audit) = (self.reviser.clone().ok_or_else(nothing)?, self.audit.clone());
        self.act(async move { reviser.reload_told(&by, &audit).await }).await
    }
}
