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

use super::load::{Cause, NotLoaded};
use super::revise::Reviser;
use super::watch::{SETTLE, Stamp};
use super::{Host, HostError, scheduled};
use crate::audit::Audit;
use crate::config::{Config, ConfigError, ConfigSource, ConnectionConfig, Differences, Documents};
use crate::driver::{Connection, Request};

/// How often it is looked at the files, at most: where there are many, that takes no more than a small part of the time.
const LOOK: Duration = Duration::from_secs(1);
/// So many times as long as a look takes, there is none.
const LOOK_PAUSE: u32 = 100;
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

/// Connections and grants that somebody wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Apply {
    /// As they are written.
    pub documents: Documents,
    /// And no other connections than those.
    pub prune: bool,
    /// Only says what would change.
    pub dry_run: bool,
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
        if now.source == ConfigSource::Program {
            let problem = "the program that embeds this host says what is configured".to_owned();
            return Err(HostError::NotReloaded { problem });
        }
        let file = now.file.clone();
        let read = spawn_blocking(move || Config::load(&file)).await?;
        let revised = read.and_then(|read| now.revised(read));
        let (next, later) = revised.map_err(|error| not(&error))?;
        let after_restart = later.into_iter().map(str::to_owned).collect();
        Ok(Reloaded { after_restart, ..Box::pin(self.take_over(next, None, (by, "reload"), audit)).await? })
    }

    /// Has other connections count, which the program that embeds the host keeps.
    pub(super) async fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<ConnectionName, Arc<ConnectionConfig>>),
        by: &Actor,
        audit: &Audit,
    ) -> Result<Reloaded, HostError> {
        let _alone = self.reloading.lock().await;
        let mut next = Config::clone(&self.config.now());
        if next.source != ConfigSource::Program {
            let problem = "it is read from files: whoever keeps those says which connections there are".to_owned();
            return Err(HostError::NotReloaded { problem });
        }
        change(&mut next.connections);
        next.fits_together().map_err(|error| not(&error))?;
        Box::pin(self.take_over(next, None, (by, "connections set"), audit)).await
    }

    /// Has other connections and grants count than are written, and written.
    async fn apply(&self, apply: Apply, by: &Actor, audit: &Audit) -> Result<Reloaded, HostError> {
        let _alone = self.reloading.lock().await;
        let (next, documents) = applied(&self.config.now(), apply.clone()).await?;
        match apply.dry_run {
            true => {
                let differences = Differences::between(&self.config.now(), &next);
                let Made { broken, .. } = Box::pin(self.made(&Arc::new(next), &differences)).await?;
                Ok(Reloaded { differences, broken, after_restart: Vec::new() })
            }
            false => Box::pin(self.take_over(next, Some(documents), (by, "connections apply"), audit)).await,
        }
    }

    /// Has a configuration count.
    async fn take_over(
        &self,
        next: Config,
        documents: Option<Documents>,
        (by, act): (&Actor, &'static str),
        audit: &Audit,
    ) -> Result<Reloaded, HostError> {
        let (now, next) = (self.config.now(), Arc::new(next));
        let differences = Differences::between(&now, &next);
        if differences.is_empty() {
            // As they are written they may differ all the same.
            store(documents, &next).await?;
            self.config.set(next);
            return Ok(Reloaded::default());
        }
        let changed = differences.changed.keys().chain(&differences.removed);
        let connectors = changed.clone().filter_map(|name| now.connections.get(name));
        let others = differences.changed.keys().chain(&differences.added).filter_map(|name| next.connections.get(name));
        let connectors: BTreeSet<&ConnectorName> = connectors.chain(others).map(|written| &written.connector).collect();
        let mut turns = Vec::new();
        for connector in &connectors {
            turns.push(self.turn(connector).await);
        }
        let Made { connections, broken } = self.made(&next, &differences).await?;
        let mut types: BTreeMap<ConnectionName, _> =
            differences.removed.iter().map(|name| (name.clone(), vec![])).collect();
        for connection in &connections {
            let scheduled = scheduled(&self.db, connection, self.clock).map_err(|error| not(&error))?;
            types.insert(connection.name.clone(), scheduled);
        }
        audit.act(by, act, differences.to_string()).await?;
        for connection in &connections {
            self.loader.note_placed(connection).await.map_err(|error| not(&error))?;
        }
        store(documents, &next).await?;
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
        for (connection, types) in types {
            let _ = self.requests.send(Request::Configured { connection, types }).await;
        }
        drop(turns);
        if now.connector_trust != next.connector_trust {
            self.trust_anew(&self.loader.connectors()).await?;
        }
        // A file that they couldn't run as they were configured may be one that they can run.
        for connector in connectors {
            self.revise_told(connector).await?;
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
                    Err(NotLoaded::Connector(fault)) if running.is_some() || matches!(fault.cause, Cause::Written) => {
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

/// A configuration with what somebody wants in it, and as it is written then.
async fn applied(now: &Arc<Config>, apply: Apply) -> Result<(Config, Documents), HostError> {
    if now.source == ConfigSource::Program || !apply.dry_run && now.source == ConfigSource::Files {
        let problem =
            "config.source is \"files\": whoever writes the files says which connections there are".to_owned();
        return Err(HostError::NotReloaded { problem });
    }
    let now = Arc::clone(now);
    let read = spawn_blocking(move || {
        let documents = Documents::of(&now)?.with(&apply.documents, apply.prune);
        let read = Config::load_with(&now.file, |_| documents.clone())?;
        Ok((now.revised(read)?.0, documents))
    });
    read.await?.map_err(|error: ConfigError| not(&error))
}

async fn store(documents: Option<Documents>, config: &Arc<Config>) -> Result<(), HostError> {
    let Some(documents) = documents else { return Ok(()) };
    let config = Arc::clone(config);
    let stored = spawn_blocking(move || documents.store(&config)).await?;
    stored.map_err(|error| HostError::NotReloaded { problem: format!("it can't be written: {error}") })
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
    let (mut known, mut refused, mut due, mut pause) = (None, None, None, LOOK);
    loop {
        let passed = closing.run_until_cancelled(tokio::time::sleep(pause)).await;
        if passed.is_none() {
            return;
        }
        let begun = reviser.clock.moment();
        let mut seen = look().await;
        let took = Duration::from_millis(reviser.clock.moment().0.saturating_sub(begun.0));
        pause = LOOK.max(took * LOOK_PAUSE);
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

    /// Has other connections and grants count, and keeps them, where the API is what changes them. A dry run says what would change, wherever they are kept.
    ///
    /// # Errors
    /// As `reload`; they are kept in files; or `by` has not the role `security`, and grants change.
    pub async fn apply(&self, apply: Apply, by: Actor) -> Result<Reloaded, HostError> {
        let now = self.config();
        let grants = Documents::of(&now).map_err(|error| not(&error))?;
        let changes_grants = grants.with(&apply.documents, apply.prune).grants != grants.grants;
        if changes_grants && !apply.dry_run {
            self.decides(&by, "connections apply", "grants")?;
        }
        let (reviser, audit, current) = (self.reviser.clone(), self.audit.clone(), Arc::clone(&self.config));
        self.act(async move {
            if let Some(reviser) = reviser {
                let done = reviser.apply(apply.clone(), &by, &audit).await;
                if let (Ok(reloaded), false) = (&done, apply.dry_run) {
                    tell(reloaded);
                }
                return done;
            }
            // Nothing runs that could say more.
            let (next, documents) = applied(&now, apply.clone()).await?;
            let (differences, next) = (Differences::between(&now, &next), Arc::new(next));
            if !apply.dry_run {
                audit.act(&by, "connections apply", differences.to_string()).await?;
                store(Some(documents), &next).await?;
                current.set(next);
            }
            Ok(Reloaded { differences, ..Reloaded::default() })
        })
        .await
    }
}
