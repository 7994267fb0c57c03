//! Gives connections another file of their connector: the one that the folder has by now, or one that an operator goes back to. Whatever is decided
//! is written down before it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tidewaiter_core::state::Actor;
use tokio::sync::{Mutex, mpsc};

use super::load::{Loader, NotLoaded, Revised};
use super::{Host, HostError, StartError, scheduled};
use crate::audit::Audit;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::{Db, Revision};
use crate::driver::{Connection, Request, Roster};

/// So much of a hash has to be named.
const SHA256_PART_MIN: usize = 6;

pub(super) struct Reviser {
    pub(super) config: Arc<Config>,
    pub(super) loader: Loader,
    pub(super) roster: Arc<Roster>,
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) requests: mpsc::Sender<Request>,
    /// What is decided of a connector is decided once the one before is done.
    pub(super) turns: std::sync::Mutex<BTreeMap<ConnectorName, Arc<Mutex<()>>>>,
}

impl std::fmt::Debug for Reviser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviser").finish_non_exhaustive()
    }
}

/// A file of a connector, and who runs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

impl Reviser {
    async fn turn(&self, connector: &ConnectorName) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Arc::clone(turns.entry(connector.clone()).or_default())
        };
        turn.lock_owned().await
    }

    /// Connections run what the folder has by now, if they can.
    pub(super) async fn revise(&self, connector: &ConnectorName) -> Result<(), NotLoaded> {
        let _turn = self.turn(connector).await;
        self.revise_now(connector).await
    }

    /// As `revise`, for whoever has the turn.
    async fn revise_now(&self, connector: &ConnectorName) -> Result<(), NotLoaded> {
        let Revised { placed, refused, broken } = self.loader.revise(connector, &self.roster.of(connector)).await?;
        for (connection, problem) in broken {
            self.roster.breaks(connection, problem);
        }
        for connection in refused {
            self.roster.note(&connection, &self.db).await?;
        }
        Ok(self.place(connector, placed).await?)
    }

    async fn place(&self, connector: &ConnectorName, placed: Vec<Arc<Connection>>) -> Result<(), StartError> {
        let Some(sha256) = placed.first().map(|connection| connection.connector.sha256().to_owned()) else {
            return Ok(());
        };
        let connections: Vec<ConnectionName> = placed.iter().map(|connection| connection.name.clone()).collect();
        let mut new = Vec::new();
        for connection in placed.iter().filter(|connection| self.roster.get(&connection.name).is_none()) {
            new.extend(scheduled(&self.config, &self.db, connection, self.clock)?);
        }
        placed.iter().try_for_each(|connection| connection.note_placed())?;
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
        let why = format!("rolled back by {by}");
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
    async fn try_again(&self, connector: &ConnectorName, by: &Actor, audit: &Audit) -> Result<(), HostError> {
        audit.act(by, "connectors retry", connector.to_string()).await?;
        let _turn = self.turn(connector).await;
        let connections = self.config.connections.iter();
        let of = connections.filter(|(_, written)| written.connector == *connector).map(|(name, _)| name.clone());
        self.roster.refuse_nothing(&of.collect::<Vec<_>>(), &self.db).await?;
        self.revise_now(connector).await.map_err(|error| refused(connector, error))
    }
}

fn refused(connector: &ConnectorName, error: NotLoaded) -> HostError {
    let problem = match error {
        NotLoaded::Connector(problem) => problem,
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
        let mut placements = self.db.placements()?;
        placements
            .retain(|name, placement| placement.connector == *connector && self.config.connections.contains_key(name));
        let row = |revision: Revision| {
            let (mut runs, mut on_trial, mut refused) = (Vec::new(), Vec::new(), BTreeMap::new());
            for (name, placement) in &placements {
                if placement.sha256 == revision.sha256 {
                    runs.push(name.clone());
                    on_trial.extend(placement.previous.is_some().then(|| name.clone()));
                }
                let not = placement.refused.as_ref().filter(|refused| refused.sha256 == revision.sha256);
                refused.extend(not.map(|not| (name.clone(), not.why.clone())));
            }
            RevisionRow { revision, runs, on_trial, refused }
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

    /// Lets the connections of a connector run what the folder has, though they went back from it.
    ///
    /// # Errors
    /// As `roll_back`.
    pub async fn try_again(&self, connector: ConnectorName, by: Actor) -> Result<(), HostError> {
        let (reviser, audit) = (self.reviser(&connector)?, self.audit.clone());
        self.act(async move { reviser.try_again(&connector, &by, &audit).await }).await
    }

    fn reviser(&self, connector: &ConnectorName) -> Result<Arc<Reviser>, HostError> {
        let none = || HostError::NotRevised { connector: connector.clone(), problem: "this host runs nothing".into() };
        self.reviser.clone().ok_or_else(none)
    }
}
