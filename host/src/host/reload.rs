//! Takes over what is configured by now: connections and what they are granted come, change and go while others run. All of it is looked at before anything
//! changes; where something is wrong with it, nothing does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tidewaiter_core::state::Actor;
use tidewaiter_core::text::with_causes;
use tidewaiter_core::time::UnixMillis;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::load::{Cause, NotLoaded};
use super::revise::{Reviser, decides};
use super::watch::{SETTLE, Stamp};
use super::{Host, HostError, scheduled};
use crate::audit::Audit;
use crate::config::{Config, ConfigError, ConfigSource, ConnectionConfig, Differences, Documents, is_document};
use crate::driver::{Connection, Request};

/// How often it is looked at the files, at most: where there are many, that takes no more than a small part of the time.
const LOOK: Duration = Duration::from_secs(1);
/// So many times as long as a look takes, there is none.
const LOOK_PAUSE: u32 = 100;
/// How long what was not taken over waits: a connector that it needs may come.
const RETRY: Duration = Duration::from_secs(10);

/// What came of looking at the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Apply {
    /// As they are written.
    pub documents: Documents,
    /// And no other connections than those.
    pub prune: bool,
    /// And none of these.
    #[serde(default)]
    pub without: BTreeSet<ConnectionName>,
    /// Only if these connections are written as they were seen: their marks; none: it isn't there.
    #[serde(default)]
    pub seen: BTreeMap<ConnectionName, Option<String>>,
    /// Only says what would change.
    pub dry_run: bool,
}

/// What is written, and is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NotReloaded {
    /// Nothing that was written since counts.
    pub since: UnixMillis,
    /// Why not.
    pub problem: String,
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
        // Whoever wants none removes the files; a folder that is gone may come back.
        if !now.connections.is_empty() && next.connections.is_empty() && !next.connections_in.exists() {
            let problem = format!("{} is not there", next.connections_in.display());
            return Err(HostError::NotReloaded { problem });
        }
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
        let (now, dry_run) = (self.config.now(), apply.dry_run);
        let Applied { next, documents, changes_grants } = applied(&now, apply).await?;
        if dry_run {
            let differences = Differences::between(&now, &next);
            let Made { broken, .. } = Box::pin(self.made(&Arc::new(next), &differences)).await?;
            return Ok(Reloaded { differences, broken, after_restart: Vec::new() });
        }
        if changes_grants {
            decides(&now, audit, by, "connections apply", "grants")?;
        }
        let done = Box::pin(self.take_over(next, Some(documents), (by, "connections apply"), audit)).await;
        if let Ok(reloaded) = &done {
            tell(reloaded);
        }
        done
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
            if documents.is_some() {
                audit.act(by, act, "nothing that counts".to_owned()).await?;
            }
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
        self.meters.keep(|name| next.connections.keys().any(|known| known.as_str() == name));
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
                        let file = next.document(name).map_or(String::new(), |path| format!("{}: ", path.display()));
                        problems.push(format!("{file}connection {name}: {fault}"));
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

    /// What came of it is told to whoever reads the log, once, and kept for whoever asks.
    fn tell(&self, done: &Result<Reloaded, HostError>) {
        let mut not_reloaded = self.not_reloaded();
        match done {
            Ok(reloaded) => {
                *not_reloaded = None;
                tell(reloaded);
            }
            Err(error) => {
                let problem = error.to_string();
                let (before, at) = (not_reloaded.take(), self.clock.now());
                if before.as_ref().map(|before| &before.problem) != Some(&problem) {
                    tracing::error!(target: "tidewaiter", code = "reload-refused", "{problem}");
                }
                *not_reloaded = Some(NotReloaded { since: before.map_or(at, |before| before.since), problem });
            }
        }
    }

    fn not_reloaded(&self) -> std::sync::MutexGuard<'_, Option<NotReloaded>> {
        self.not_reloaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A configuration with what somebody wants in it.
struct Applied {
    next: Config,
    /// As it is written then.
    documents: Documents,
    changes_grants: bool,
}

async fn applied(now: &Arc<Config>, apply: Apply) -> Result<Applied, HostError> {
    let refused = |problem: &str| Err(HostError::NotReloaded { problem: problem.to_owned() });
    match now.source {
        ConfigSource::Program => return refused("the program that embeds this host says what is configured"),
        ConfigSource::Files if !apply.dry_run => {
            return refused("this host reads files: whoever writes those says which connections there are");
        }
        ConfigSource::Files | ConfigSource::Api => {}
    }
    let now = Arc::clone(now);
    let read = spawn_blocking(move || {
        let there = Documents::of(&now)?;
        if let Some(other) = apply.seen.iter().find(|(name, mark)| there.mark(name) != **mark) {
            return Ok(Err(HostError::WrittenMeanwhile { connection: other.0.clone() }));
        }
        let documents = there.with(&apply.documents, apply.prune).without(&apply.without);
        let read = Config::load_with(&now.file, |_, _| Ok(documents.clone()))?;
        let changes_grants = documents.grants != there.grants;
        Ok(Ok(Applied { next: now.revised(read)?.0, documents, changes_grants }))
    });
    let applied = read.await?.map_err(|error: ConfigError| {
        let problem = format!("as it would be written: {}", with_causes(&error));
        HostError::NotReloaded { problem }
    });
    applied?
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

fn not(error: &dyn std::error::Error) -> HostError {
    HostError::NotReloaded { problem: with_causes(error) }
}

/// The files of a configuration, and what tells one content of each from another.
fn stamps(config: &Config) -> Stamps {
    let of_folder = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| is_document(path))
    };
    let single = [config.file.clone(), config.ceiling_in.clone()];
    let files = of_folder(&config.connections_in).chain(of_folder(&config.grants_in)).chain(single);
    files.map(|path| (path.clone(), std::fs::metadata(&path).ok().as_ref().map(Stamp::of))).collect()
}

/// Takes over what is saved, until the host closes.
pub(super) async fn watch(reviser: Arc<Reviser>, audit: Audit, closing: CancellationToken) {
    let mut known = None;
    loop {
        let Some(seen) = closing.run_until_cancelled(news(&reviser, known.as_ref())).await else { return };
        let is_first = known.replace(seen).is_none();
        // What was begun of it ends, whether or not the host closes.
        match reviser.reload(&Actor::Host, &audit).await {
            Ok(reloaded) if is_first && reloaded == Reloaded::default() => *reviser.not_reloaded() = None,
            done => reviser.tell(&done),
        }
    }
}

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// What the files are, once they are others than those that are known and nobody writes to them any more, or once what was not taken over is due again.
async fn news(reviser: &Reviser, known: Option<&Stamps>) -> Stamps {
    let look = async || {
        let config = reviser.config.now();
        spawn_blocking(move || stamps(&config)).await.unwrap_or_default()
    };
    let (mut pause, retry) = (LOOK, reviser.clock.moment() + RETRY);
    loop {
        tokio::time::sleep(pause).await;
        let begun = reviser.clock.moment();
        let mut seen = look().await;
        let took = Duration::from_millis(reviser.clock.moment().0.saturating_sub(begun.0));
        pause = LOOK.max(took * LOOK_PAUSE);
        let is_due = retry <= reviser.clock.moment() && reviser.not_reloaded().is_some();
        if known == Some(&seen) && !is_due {
            continue;
        }
        loop {
            tokio::time::sleep(SETTLE).await;
            let again = look().await;
            if again == std::mem::replace(&mut seen, again.clone()) {
                return again;
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
        self.act(async move {
            let done = reviser.reload(&by, &audit).await;
            reviser.tell(&done);
            done
        })
        .await
    }

    /// Has other connections and grants count, and keeps them, where the API is what changes them. A dry run says what would change, wherever they are kept.
    ///
    /// # Errors
    /// As `reload`; they are kept in files; or `by` has not the role `security`, and grants change.
    pub async fn apply(&self, apply: Apply, by: Actor) -> Result<Reloaded, HostError> {
        let nothing = || HostError::NotReloaded { problem: "this host runs nothing".to_owned() };
        let (reviser, audit) = (self.reviser.clone().ok_or_else(nothing)?, self.audit.clone());
        self.act(async move { reviser.apply(apply, &by, &audit).await }).await
    }

    /// What is written and is not taken over, if that is so.
    pub fn not_reloaded(&self) -> Option<NotReloaded> {
        self.reviser.as_ref()?.not_reloaded().clone()
    }
}
