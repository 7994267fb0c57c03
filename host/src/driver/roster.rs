//! Which connection runs what, by now. Connectors come and go while runs are under way: each goes on with what it began with.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tokio::sync::Mutex;

use super::connection::Connection;
use crate::db::{CommitError, Db};

/// The connections of a host.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    listed: RwLock<Listed>,
    /// What is written down of it comes in the order in which it happens.
    noting: Mutex<()>,
}

#[derive(Debug, Default)]
struct Listed {
    connections: HashMap<ConnectionName, Arc<Connection>>,
    /// Those that can't run, and why.
    broken: BTreeMap<ConnectionName, String>,
}

impl Roster {
    pub(crate) fn new(
        connections: HashMap<ConnectionName, Arc<Connection>>,
        broken: BTreeMap<ConnectionName, String>,
    ) -> Self {
        Self { listed: RwLock::new(Listed { connections, broken }), noting: Mutex::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Listed> {
        self.listed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Listed> {
        self.listed.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// As its next run will have it; none: there is none that can run.
    pub(crate) fn get(&self, name: &ConnectionName) -> Option<Arc<Connection>> {
        self.read().connections.get(name).cloned()
    }

    /// Why a connection can't run, if so.
    pub(crate) fn problem(&self, name: &ConnectionName) -> Option<String> {
        self.read().broken.get(name).cloned()
    }

    /// Those that run a connector.
    pub(crate) fn of(&self, connector: &ConnectorName) -> Vec<Arc<Connection>> {
        let listed = self.read();
        let of = listed.connections.values().filter(|connection| connection.config.connector == *connector);
        of.cloned().collect()
    }

    /// Gives connections something else to run, all of them at once, after that is written down.
    pub(crate) async fn place(&self, connections: Vec<Arc<Connection>>, db: &Db) -> Result<(), CommitError> {
        let _alone = self.noting.lock().await;
        db.place(connections.iter().map(|one| (one.name.clone(), one.placement())).collect()).await?;
        let mut listed = self.write();
        for connection in connections {
            listed.broken.remove(&connection.name);
            listed.connections.insert(connection.name.clone(), connection);
        }
        Ok(())
    }

    /// Puts what ran before back in the place of a connection that failed on trial, unless something else is there by now. Answers what.
    pub(crate) fn go_back(&self, failed: &Arc<Connection>) -> Option<Arc<Connection>> {
        let previous = failed.trial()?.previous;
        let mut listed = self.write();
        let placed = listed.connections.get_mut(&failed.name).filter(|placed| Arc::ptr_eq(placed, failed))?;
        *placed = Arc::clone(&previous);
        Some(previous)
    }

    /// A connection can't run, and that is why.
    pub(crate) fn breaks(&self, name: ConnectionName, problem: String) {
        self.write().broken.insert(name, problem);
    }

    /// A connection can't run any more, and that is why.
    pub(crate) fn take_out(&self, name: ConnectionName, problem: String) {
        let mut listed = self.write();
        listed.connections.remove(&name);
        listed.broken.insert(name, problem);
    }

    /// There is no such connection any more.
    pub(crate) fn remove(&self, name: &ConnectionName) {
        let mut listed = self.write();
        listed.connections.remove(name);
        listed.broken.remove(name);
    }

    /// Nothing that these connections don't run keeps them from running it any more.
    pub(crate) async fn refuse_nothing(&self, names: &[ConnectionName], db: &Db) -> Result<(), CommitError> {
        let _alone = self.noting.lock().await;
        let mut placements = db.placements().map_err(|error| CommitError::Storage(error.to_string()))?;
        placements.retain(|name, placement| names.contains(name) && placement.refused.is_some());
        placements.values_mut().for_each(|placement| placement.refused = None);
        names.iter().filter_map(|name| self.get(name)).for_each(|connection| connection.refuse(None));
        db.place(placements.into_iter().collect()).await
    }

    /// Writes down what a connection runs, as it is by then.
    pub(crate) async fn note(&self, name: &ConnectionName, db: &Db) -> Result<(), CommitError> {
        let _alone = self.noting.lock().await;
        match self.get(name) {
            Some(connection) => db.place(vec![(name.clone(), connection.placement())]).await,
            None => Ok(()),
        }
    }
}
