//! Gives connections another file of their connector: the one that the folder has by now, or one that an operator goes back to. Whatever is decided
//! is written down before it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tidewaiter_core::schedule::Refusal;
use tidewaiter_core::state::Actor;
use tidewaiter_core::text::shown;
use tokio::sync::{Mutex, mpsc};
use utoipa::ToSchema;

use super::load::{Distrusted, Loader, NotLoaded, Revised};
use super::reload::NotReloaded;
use super::{Host, HostError, StartError, scheduled};
use crate::audit::{Audit, Event};
use crate::clock::Clock;
use crate::config::{Config, Current};
use crate::db::{Db, Revision};
use crate::driver::{Connection, Request, Roster};
use crate::meters::Meters;
use crate::trust::{ConnectorTrust, Lock, Mode, Pulled};

/// Of what somebody says why something is decided.
const WHY_BYTES_MAX: usize = 500;
/// So much of a hash has to be named.
const SHA256_PART_MIN: usize = 6;

pub(super) struct Reviser {
    pub(super) config: Arc<Current>,
    pub(super) loader: Loader,
    pub(super) roster: Arc<Roster>,
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) meters: Meters,
    /// What is decided of a connector is decided once the one before is done.
    pub(super) turns: std::sync::Mutex<BTreeMap<ConnectorName, Arc<Mutex<()>>>>,
    /// Who writes the lock file.
    pub(super) locking: Mutex<()>,
    /// Who takes over what is configured.
    pub(super) reloading: Mutex<()>,
    /// What is written and not taken over.
    pub(super) not_reloaded: std::sync::Mutex<Option<NotReloaded>>,
}

/// Writes down what somebody decided of files.
async fn decide(
    trust: &ConnectorTrust,
    (by, audit): (&Actor, &Audit),
    (act, on): (&'static str, String),
    change: impl FnOnce(&mut Lock) -> Result<(), HostError>,
) -> Result<(), HostError> {
    let mut lock = Lock::read(&trust.lock)?;
    change(&mut lock)?;
    audit.act(by, act, on).await?;
    Ok(lock.write(&trust.lock)?)
}

/// Whether somebody may decide something.
pub(super) fn decides(
    config: &Config,
    audit: &Audit,
    by: &Actor,
    act: &'static str,
    on: &str,
) -> Result<(), HostError> {
    if config.has_role_security(by) {
        return Ok(());
    }
    audit.note(&Event::NotAllowed { by: by.to_string(), act, on: on.to_owned() })?;
    Err(HostError::NotSecurity { by: by.clone() })
}

impl std::fmt::Debug for Reviser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviser").finish_non_exhaustive()
    }
}

/// A file of a connector, and who runs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RevisionRow {
    /// As it was met.
    #[serde(flatten)]
    pub revision: Revision,
    /// Connections that run it.
    pub runs: Vec<ConnectionName>,
    /// Those of them where it is on trial.
    pub on_trial: Vec<ConnectionName>,
    /// Connections that don't run it, and why.
    pub refused: BTreeMap<ConnectionName, String>,
    /// Why nobody runs it, if it is denied.
    #[serde(default)]
    pub denied: Option<String>,
}

impl Reviser {
    pub(super) async fn turn(&self, connector: &ConnectorName) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Arc::clone(turns.entry(connector.clone()).or_default())
        };
        turn.lock_owned().await
    }

    /// Connections run what the folder has by now, if they can.
    pub(super) async fn revise(&self, connector: &ConnectorName) -> Result<(), NotLoaded> {
        let _turn = self.turn(connector).await;
        self.revise_now(connector, false).await
    }

    /// As `revise`; that a connection can't run it, it says itself.
    pub(super) async fn revise_told(&self, connector: &ConnectorName) -> Result<(), HostError> {
        match self.revise(connector).await {
            Ok(()) | Err(NotLoaded::Connector(_)) => Ok(()),
            Err(error) => Err(refused(connector, error)),
        }
    }

    /// As `revise`, for whoever put the file there.
    pub(super) async fn revise_asked(&self, connector: &ConnectorName) -> Result<(), HostError> {
        self.revise(connector).await.map_err(|error| refused(connector, error))
    }

    /// As `revise`, for whoever has the turn.
    async fn revise_now(&self, connector: &ConnectorName, downgrade: bool) -> Result<(), NotLoaded> {
        let Revised { placed, noted, broken } =
            self.loader.revise(connector, &self.roster.of(connector), downgrade).await?;
        for (connection, problem) in broken {
            self.roster.breaks(connection, problem);
        }
        for connection in noted {
            self.roster.note(&connection, &self.db).await?;
        }
        Ok(self.place(connector, placed).await?)
    }

    /// What runs and may not be run any more ends now, by what is trusted now; connections run what ran before, if they can.
    pub(super) async fn retrust(&self, connector: &ConnectorName) -> Result<(), NotLoaded> {
        // Whoever has the turn may be compiling, and nothing that may not be run waits for that.
        let ended = self.end_distrusted(connector).await?;
        let _turn = self.turn(connector).await;
        let mut running = self.roster.of(connector);
        let config = self.config.now();
        let is_out = |connection: &Arc<Connection>| {
            let is_configured = config.connections.get(&connection.name) == Some(&connection.config);
            is_configured && self.roster.get(&connection.name).is_none()
        };
        running.extend(ended.into_iter().filter(is_out));
        let Distrusted { files, placed, broken } = self.loader.distrusted(connector, &running).await?;
        let gone: Vec<ConnectionName> = broken.iter().map(|(name, _)| name.clone()).collect();
        for (connection, problem) in broken {
            tracing::error!(
                target: "tidewaiter", %connection, code = "distrusted", "this connection can't run any more: {problem}"
            );
            self.roster.take_out(connection, problem);
        }
        self.place(connector, placed).await?;
        for connection in gone {
            let _ = self.requests.send(Request::Configured { connection, types: Vec::new() }).await;
        }
        if !files.is_empty() {
            let _ = self.requests.send(Request::Abandon { files, connections: BTreeSet::new() }).await;
        }
        Ok(())
    }

    /// Connections that run what may not be run are out, and what is under way of it ends.
    async fn end_distrusted(&self, connector: &ConnectorName) -> Result<Vec<Arc<Connection>>, NotLoaded> {
        let mut ended = Vec::new();
        for (connection, fault) in self.loader.distrusted_now(connector, self.roster.of(connector)).await? {
            self.roster.take_out(connection.name.clone(), fault.why);
            ended.push(connection);
        }
        if !ended.is_empty() {
            let files = ended.iter().map(|connection| connection.connector.sha256().to_owned()).collect();
            let _ = self.requests.send(Request::Abandon { files, connections: BTreeSet::new() }).await;
        }
        Ok(ended)
    }

    /// Lets connections run what is trusted now, and nothing else.
    pub(super) async fn trust_anew(
        &self,
        connectors: impl IntoIterator<Item = &ConnectorName>,
    ) -> Result<(), HostError> {
        let connectors: Vec<&ConnectorName> = connectors.into_iter().collect();
        let mut done = Ok(());
        // What has to end ends before anything is compiled, and whatever becomes of others.
        for connector in &connectors {
            done = done.and(self.retrust(connector).await.map_err(|error| refused(connector, error)));
        }
        for connector in connectors {
            done = done.and(self.revise_told(connector).await);
        }
        done
    }

    /// As `decide`, when nobody else does.
    async fn decide(
        &self,
        by: (&Actor, &Audit),
        did: (&'static str, String),
        change: impl FnOnce(&mut Lock) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let _alone = self.locking.lock().await;
        decide(&self.config.now().connector_trust, by, did, change).await
    }

    async fn pin(
        &self,
        connector: &ConnectorName,
        downgrade: bool,
        by: &Actor,
        audit: &Audit,
    ) -> Result<(), HostError> {
        let not = |problem: String| HostError::NotRevised { connector: connector.clone(), problem };
        if !matches!(self.config.now().connector_trust.mode, Mode::Pinned) {
            return Err(not("nothing is pinned where connector-trust.mode is not \"pinned\"".to_owned()));
        }
        let (sha256, version) = self.loader.pinnable(connector).await.map_err(|error| refused(connector, error))?;
        let on = format!("{connector} {version} {sha256}");
        let change = |lock: &mut Lock| lock.pin(connector, &sha256, &version, downgrade).map_err(not);
        self.decide((by, audit), ("connectors pin", on), change).await?;
        self.trust_anew([connector]).await
    }

    async fn place(&self, connector: &ConnectorName, placed: Vec<Arc<Connection>>) -> Result<(), StartError> {
        let Some(sha256) = placed.first().map(|connection| connection.connector.sha256().to_owned()) else {
            return Ok(());
        };
        let connections: Vec<ConnectionName> = placed.iter().map(|connection| connection.name.clone()).collect();
        let mut new = Vec::new();
        for connection in placed.iter().filter(|connection| self.roster.get(&connection.name).is_none()) {
            new.extend(scheduled(&self.db, connection, self.clock)?);
        }
        for connection in &placed {
            self.loader.note_placed(connection).await?;
        }
        self.roster.place(placed, &self.db).await?;
        tracing::info!(
            target: "tidewaiter", %connector, code = "revision-placed", sha256, connections = connections.len(),
            "the connector's revision runs from now on"
        );
        let _ = self.requests.send(Request::Placed { connections, new }).await;
        Ok(self.loader.sweep(&self.db)?)
    }

    /// Connections run another file that was kept.
    async fn roll_back(
        &self,
        connector: &ConnectorName,
        to: Option<&str>,
        by: &Actor,
        audit: &Audit,
    ) -> Result<(), HostError> {
        let _turn = self.turn(connector).await;
        let running = self.roster.of(connector);
        let to = to.map(|part| named(&self.db, connector, part)).transpose()?;
        let why = format!("rolled back by {by}; `tidewaiter connectors retry {connector}` runs it");
        let placed = self.loader.rolled_back(connector, to.as_deref(), &running, &why).await;
        let placed = placed.map_err(|error| refused(connector, error))?;
        if placed.is_empty() {
            let problem = match (running.is_empty(), to) {
                (true, _) => "no connection runs it",
                (false, Some(_)) => "all its connections run that",
                (false, None) => "no connection of it is known to have run well with another file; --to names one",
            };
            return Err(HostError::NotRevised { connector: connector.clone(), problem: problem.to_owned() });
        }
        let files: BTreeSet<&str> = placed.iter().map(|connection| connection.connector.sha256()).collect();
        let files = files.into_iter().collect::<Vec<_>>().join(", ");
        audit.act(by, "connectors rollback", format!("{connector} {files}")).await?;
        self.place(connector, placed).await.map_err(|error| refused(connector, error.into()))
    }

    /// Connections run what the folder has, though they went back from it.
    async fn try_again(
        &self,
        connector: &ConnectorName,
        downgrade: bool,
        by: &Actor,
        audit: &Audit,
    ) -> Result<(), HostError> {
        let act = if downgrade { "connectors retry --allow-downgrade" } else { "connectors retry" };
        audit.act(by, act, connector.to_string()).await?;
        let _turn = self.turn(connector).await;
        let of: Vec<ConnectionName> = self.config.now().of(connector).map(|(name, _)| name.clone()).collect();
        self.roster.refuse_nothing(&of, &self.db).await?;
        self.revise_now(connector, downgrade).await.map_err(|error| refused(connector, error))?;
        let broken = |name: &ConnectionName| Some(format!("{name} can't run: {}", self.roster.problem(name)?));
        match of.iter().find_map(broken) {
            Some(problem) => Err(HostError::NotRevised { connector: connector.clone(), problem }),
            None => Ok(()),
        }
    }
}

fn refused(connector: &ConnectorName, error: NotLoaded) -> HostError {
    let problem = match error {
        NotLoaded::Connector(fault) => fault.why,
        NotLoaded::Host(error) => error.to_string(),
    };
    HostError::NotRevised { connector: connector.clone(), problem }
}

/// The file whose hash begins so.
fn named(db: &Db, connector: &ConnectorName, part: &str) -> Result<String, HostError> {
    let known = db.revisions()?.remove(connector).unwrap_or_default();
    let named: Vec<&Revision> = known.iter().filter(|revision| revision.sha256.starts_with(part)).collect();
    match named[..] {
        [one] if part.len() >= SHA256_PART_MIN => Ok(one.sha256.clone()),
        _ => {
            let count = named.len();
            let problem = format!(
                "{part:?} is the beginning of {count} of its files; `connectors history {connector}` has them, and {SHA256_PART_MIN} digits are needed"
            );
            Err(HostError::NoSuchRevision { connector: connector.clone(), problem })
        }
    }
}

/// Why something is decided, as one harmless line of a bounded length.
fn said(why: Option<String>, by: &Actor) -> String {
    why.map_or_else(|| format!("by {by}"), |why| shown(&why, WHY_BYTES_MAX))
}

impl Host {
    /// The files of a connector that were met, newest first, and who runs each.
    ///
    /// # Errors
    /// None was met; or the db.
    pub fn revisions(&self, connector: &ConnectorName) -> Result<Vec<RevisionRow>, HostError> {
        let mut known = self.db.revisions()?.remove(connector).unwrap_or_default();
        if known.is_empty() {
            let problem = "no file of it was met".to_owned();
            return Err(HostError::NoSuchRevision { connector: connector.clone(), problem });
        }
        Revision::newest_first(&mut known);
        let (config, mut placements) = (self.config(), self.db.placements()?);
        placements.retain(|name, placement| placement.connector == *connector && config.connections.contains_key(name));
        let lock = Lock::read(&config.connector_trust.lock)?;
        // Where nothing runs, it is what ran last.
        let can_run = |name: &ConnectionName| self.reviser.is_none() || self.roster.get(name).is_some();
        let row = |revision: Revision| {
            let (mut runs, mut on_trial, mut refused) = (Vec::new(), Vec::new(), BTreeMap::new());
            for (name, placement) in &placements {
                if placement.sha256 == revision.sha256 && can_run(name) {
                    runs.push(name.clone());
                    on_trial.extend(placement.previous.is_some().then(|| name.clone()));
                }
                let not = placement.refused.as_ref().filter(|refused| refused.sha256 == revision.sha256);
                refused.extend(not.map(|not| (name.clone(), not.why.clone())));
            }
            let denied = lock.denied.get(&revision.sha256).cloned();
            RevisionRow { revision, runs, on_trial, refused, denied }
        };
        Ok(known.into_iter().map(row).collect())
    }

    /// Lets the connections of a connector run another file of it that was kept: the one whose hash begins so, or else the one before. What the folder
    /// has isn't run again before it is another one.
    ///
    /// # Errors
    /// There is no such file, or a connection can't run it.
    pub async fn roll_back(&self, connector: ConnectorName, to: Option<String>, by: Actor) -> Result<(), HostError> {
        let (reviser, audit) = (self.reviser(&connector)?, self.audit.clone());
        self.act(async move { reviser.roll_back(&connector, to.as_deref(), &by, &audit).await }).await
    }

    /// Lets the connections of a connector run what the folder has, though they went back from it; also what is older than what runs, if whoever says so
    /// has the role `security`.
    ///
    /// # Errors
    /// As `roll_back`.
    pub async fn try_again(&self, connector: ConnectorName, downgrade: bool, by: Actor) -> Result<(), HostError> {
        if downgrade {
            self.decides(&by, "connectors retry --allow-downgrade", connector.as_str())?;
        }
        let (reviser, audit) = (self.reviser(&connector)?, self.audit.clone());
        self.act(async move { reviser.try_again(&connector, downgrade, &by, &audit).await }).await
    }

    /// Pins the file of a connector that the folder has: it may be run, and runs. One whose version is not newer than that of the one that is pinned has to
    /// be allowed. The files that the lock has by then.
    ///
    /// # Errors
    /// The file is no connector, or a downgrade; `by` has not the role `security`; the lock can't be written.
    pub async fn pin(&self, connector: ConnectorName, downgrade: bool, by: Actor) -> Result<Lock, HostError> {
        self.decides(&by, "connectors pin", connector.as_str())?;
        let (reviser, audit) = (self.reviser(&connector)?, self.audit.clone());
        self.act(async move { reviser.pin(&connector, downgrade, &by, &audit).await }).await?;
        Ok(Lock::read(&self.config().connector_trust.lock)?)
    }

    /// Writes down what was pulled from a registry and is about to be put into the folder, and pins it where files are pinned.
    ///
    /// # Errors
    /// As `pin`.
    pub(crate) async fn expect(
        &self,
        connector: ConnectorName,
        version: String,
        pulled: Pulled,
        downgrade: bool,
        by: Actor,
    ) -> Result<Lock, HostError> {
        self.decides(&by, "connectors pull", connector.as_str())?;
        let (reviser, audit, trust) = (self.reviser.clone(), self.audit.clone(), self.config().connector_trust.clone());
        self.act(async move {
            let on = format!("{connector} {version} {} from {} {}", pulled.sha256, pulled.from, pulled.digest);
            let change = |lock: &mut Lock| {
                let not = |problem: String| HostError::NotRevised { connector: connector.clone(), problem };
                if matches!(trust.mode, Mode::Pinned) {
                    lock.pin(&connector, &pulled.sha256, &version, downgrade).map_err(not)?;
                }
                lock.pulled.insert(connector.clone(), pulled);
                Ok(())
            };
            let did = ("connectors pull", on);
            match &reviser {
                Some(reviser) => reviser.decide((&by, &audit), did, change).await,
                // Nothing runs, and nobody else is here.
                None => decide(&trust, (&by, &audit), did, change).await,
            }
        })
        .await?;
        Ok(Lock::read(&self.config().connector_trust.lock)?)
    }

    /// Denies files of connectors, by their hash: what is under way of them ends now, and nobody runs them before that is lifted.
    ///
    /// # Errors
    /// As `pin`.
    pub async fn deny(
        &self,
        files: Vec<String>,
        why: Option<String>,
        lift: bool,
        by: Actor,
    ) -> Result<Lock, HostError> {
        let act = if lift { "connectors deny --lift" } else { "connectors deny" };
        self.decides(&by, act, &files.join(" "))?;
        let why = said(why, &by);
        let on = files.join(" ");
        self.decide_of_all((act, on), by, move |lock| {
            for sha256 in files {
                match lift {
                    true => lock.denied.remove(&sha256),
                    false => lock.denied.insert(sha256, why.clone()),
                };
            }
            Ok(())
        })
        .await
    }

    /// Puts a connector in quarantine: what is under way of it ends now, and nobody runs any file of it before that ends.
    ///
    /// # Errors
    /// As `pin`.
    pub async fn quarantine(
        &self,
        connector: ConnectorName,
        why: Option<String>,
        end: bool,
        by: Actor,
    ) -> Result<Lock, HostError> {
        let act = if end { "connectors quarantine --end" } else { "connectors quarantine" };
        self.decides(&by, act, connector.as_str())?;
        let why = said(why, &by);
        self.decide_of_all((act, connector.to_string()), by, move |lock| {
            match end {
                true => lock.quarantined.remove(&connector),
                false => lock.quarantined.insert(connector, why),
            };
            Ok(())
        })
        .await
    }

    async fn decide_of_all(
        &self,
        did: (&'static str, String),
        by: Actor,
        change: impl FnOnce(&mut Lock) -> Result<(), HostError> + Send + 'static,
    ) -> Result<Lock, HostError> {
        let reviser = self.reviser.clone().ok_or(Refusal::ShuttingDown)?;
        let audit = self.audit.clone();
        self.act(async move {
            reviser.decide((&by, &audit), did, change).await?;
            reviser.trust_anew(&reviser.loader.connectors()).await
        })
        .await?;
        Ok(Lock::read(&self.config().connector_trust.lock)?)
    }

    /// Whether somebody may decide what is trusted.
    pub(super) fn decides(&self, by: &Actor, act: &'static str, on: &str) -> Result<(), HostError> {
        decides(&self.config(), &self.audit, by, act, on)
    }

    pub(super) fn reviser(&self, connector: &ConnectorName) -> Result<Arc<Reviser>, HostError> {
        let none = || HostError::NotRevised { connector: connector.clone(), problem: "this host runs nothing".into() };
        self.reviser.clone().ok_or_else(none)
    }
}
