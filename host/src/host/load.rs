//! Loading what connections run: each connector once, and what each connection may do with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tidewaiter_core::text::shown;

use super::seal::DbVault;
use super::{StartError, approve};
use crate::audit::{Audit, Event};
use crate::clock::Clock;
use crate::config::Config;
use crate::db::Db;
use crate::driver::Connection;
use crate::egress::{NoVault, Outside, SystemResolver, Trust, Vault};
use crate::wasm::{Connector, Engine, EngineOptions};

/// Instances that may live at the same time beside those of runs.
const INSTANCES_BESIDE: usize = 32;
/// More of a connector's own version isn't written down.
const VERSION_BYTES_MAX: usize = 100;

/// What is approved for connections.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// As the db has it: for a host that runs. New connections are noted there.
    Db(&'a Audit, &'a Db),
    /// As somebody told: for a look that notes nothing.
    Told(&'a BTreeMap<ConnectionName, Approved>),
}

/// Connections, loaded.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Those that can run.
    pub connections: HashMap<ConnectionName, Arc<Connection>>,
    /// Those that can't, and why: a connector that isn't there or is none, or that asks for what can't be told.
    pub broken: BTreeMap<ConnectionName, String>,
}

/// Loads every connector that a connection names, once, and decides the grants of every connection. One that can't run keeps no other
/// from it.
///
/// # Errors
/// What concerns all: this machine can't run connectors, or the db or the audit can't be used.
pub async fn load(config: &Config, known: Known<'_>) -> Result<Loaded, StartError> {
    let options = EngineOptions {
        // Each run has one, and for a moment a second one that reads classes.
        instances: u32::try_from(config.concurrency.total * 2 + INSTANCES_BESIDE).unwrap_or(u32::MAX),
        compiler: config.compiler.clone(),
        cache: Some(config.compiled()),
        ..EngineOptions::default()
    };
    let engine = Engine::new(&options).map_err(StartError::Engine)?;
    let resolver = config.resolver.clone().unwrap_or_else(|| Arc::new(SystemResolver));
    let vault: Arc<dyn Vault> = match &known {
        Known::Db(_, db) => Arc::new(DbVault((*db).clone())),
        Known::Told(_) => Arc::new(NoVault),
    };
    let outside = Outside::new(resolver, Trust::load(&config.trust)?, vault, Clock::start());
    let mut connectors: BTreeMap<&ConnectorName, Result<Connector, String>> = BTreeMap::new();
    let mut loaded = Loaded::default();
    for (name, written) in &config.connections {
        if !connectors.contains_key(&written.connector) {
            connectors.insert(&written.connector, component(config, &engine, &written.connector).await);
        }
        let connector = match &connectors[&written.connector] {
            Ok(connector) => connector,
            Err(problem) => {
                loaded.broken.insert(name.clone(), problem.clone());
                continue;
            }
        };
        let before = match &known {
            Known::Db(_, db) => db.approved(name)?,
            Known::Told(approved) => approved.get(name).cloned(),
        };
        let approved = approve::of(before.clone(), &written.connector, connector.info());
        let source = Arc::new(connector.clone());
        let connection = match Connection::new(name.clone(), Arc::clone(written), source, &approved, &outside) {
            Ok(connection) => connection,
            Err(problem) => {
                loaded.broken.insert(name.clone(), problem.to_string());
                continue;
            }
        };
        let connection = match known {
            Known::Told(_) => connection,
            Known::Db(audit, db) => {
                let (connection_name, connector_name) = (name.as_str(), written.connector.as_str());
                let version = shown(&connector.info().version, VERSION_BYTES_MAX);
                audit.note(&Event::Connector {
                    connection: connection_name,
                    connector: connector_name,
                    version: &version,
                    sha256: connector.sha256(),
                })?;
                if before.as_ref() != Some(&approved) {
                    approve::bring_up(name, approved, audit, db).await?;
                }
                approve::tell(&connection);
                audit.note(&Event::Grants { connection: connection_name, decided: &connection.allowed().decided })?;
                connection.noted(audit.clone(), db.clone())
            }
        };
        loaded.connections.insert(name.clone(), Arc::new(connection));
    }
    Ok(loaded)
}

async fn component(config: &Config, engine: &Engine, name: &ConnectorName) -> Result<Connector, String> {
    let path = config.connectors.join(format!("{name}.wasm"));
    let bytes =
        std::fs::read(&path).map_err(|error| format!("can't read its connector {}: {error}", path.display()))?;
    Connector::load(engine, name, &bytes).await.map_err(|error| error.to_string())
}
