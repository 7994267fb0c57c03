//! What is counted, as whoever watches a host reads it: what passed by (`meters`), and what the db, the roster, the sandbox and the process say when they are
//! asked. Looks, and holds nothing up: one snapshot of the db, whose entries it doesn't read.

mod process;
mod sheet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tidewaiter_core::run::{Outcome, Trigger};
use tidewaiter_core::schedule::Scheduled;
use tidewaiter_core::time::UnixMillis;

use self::process::Process;
use super::{Host, HostError};
use crate::config::Config;
use crate::db::{Db, Figures, ReadError};
use crate::driver::LatenessBuckets;
use crate::meters::{Counted, Meters};
use crate::trust::Lock;
use crate::wasm::Allocation;

/// Consumers that are shown, by name: whoever may ask for things may add as many as they like.
const CONSUMERS_MAX: usize = 1000;
/// So many of the last runs of a type are looked through for one that ended well.
const RECALLED_MAX: usize = 20;

/// A format in which figures are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// What Prometheus spoke before, and some others still do.
    Prometheus,
}

impl Exposition {
    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Everything that is told at a time.
#[derive(Debug)]
struct Look {
    config: Arc<Config>,
    now: UnixMillis,
    /// By connection.
    counted: BTreeMap<String, Counted>,
    figures: Figures,
    /// Connections that can't run.
    broken: BTreeSet<ConnectionName>,
    /// Connectors that connections run.
    connectors: BTreeMap<ConnectorName, bool>,
    /// Sinks whose last attempt failed.
    failing: BTreeSet<String>,
    /// How many live, and how many there may be; none: nothing runs, or as many as there is room for.
    instances: Option<usize>,
    instances_max: Option<u32>,
    lateness: LatenessBuckets,
    commits: [Histogram; 2],
    compiling: [Histogram; 2],
    is_reload_refused: bool,
    dropped_spans: u64,
    process: Process,
    up_seconds: f64,
}

impl Host {
    /// What is counted, in the format of OpenMetrics: all at once, in a few milliseconds.
    ///
    /// # Errors
    /// The db.
    pub fn metrics(&self) -> Result<String, HostError> {
        self.metrics_as(Exposition::OpenMetrics)
    }

    /// The same in the format that somebody reads.
    ///
    /// # Errors
    /// The db.
    pub fn metrics_as(&self, format: Exposition) -> Result<String, HostError> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.look()?));
        let mut told = String::new();
        let written = match format {
            Exposition::OpenMetrics => text::encode(&mut told, &registry),
            Exposition::Prometheus => prometheus_text::encode(&mut told, &registry),
        };
        debug_assert!(written.is_ok(), "a text takes all that is written into it");
        Ok(told)
    }

    fn look(&self) -> Result<Look, HostError> {
        let config = self.config.now();
        let mut figures = self.db.figures()?;
        while figures.consumers.len() > CONSUMERS_MAX {
            figures.consumers.pop_last();
        }
        let broken = config.connections.keys().filter(|name| self.roster.problem(name).is_some());
        // What is wrong with it, whoever wants to run something is told.
        let lock = Lock::read(&config.connector_trust.lock).unwrap_or_default();
        let mut connectors = BTreeMap::new();
        for written in config.connections.values() {
            if !connectors.contains_key(&written.connector) {
                let is_in = lock.quarantined.contains_key(&written.connector) || self.is_faulty(&written.connector)?;
                connectors.insert(written.connector.clone(), is_in);
            }
        }
        let fails = |name: &&String| self.sinks.get(*name).is_some_and(|sink| sink.borrow().problem.is_some());
        let engine = self.reviser.as_ref().map(|reviser| reviser.loader.engine());
        let instances_max = match engine.map(crate::wasm::Engine::allocation) {
            Some(Allocation::Pooled(instances)) => Some(instances),
            Some(Allocation::OnDemand) | None => None,
        };
        Ok(Look {
            now: self.clock.now(),
            counted: self.meters.counted(|name| config.connections.keys().any(|known| known.as_str() == name)),
            figures,
            broken: broken.cloned().collect(),
            connectors,
            failing: config.sinks.keys().filter(fails).cloned().collect(),
            instances: engine.map(crate::wasm::Engine::instances),
            instances_max,
            lateness: self.lateness.buckets(),
            commits: self.meters.commits().map(Histogram::clone),
            compiling: self.meters.compiling().map(Histogram::clone),
            is_reload_refused: self.not_reloaded().is_some(),
            dropped_spans: self.meters.dropped_spans(),
            process: Process::look(),
            up_seconds: self.clock.elapsed().as_secs_f64(),
            config,
        })
    }
}

/// When live sync of each type ended well last, as far as the history of runs has it: a run that found nothing isn't in there.
pub(super) fn recall(db: &Db, meters: &Meters, types: &[Scheduled]) -> Result<(), ReadError> {
    for Scheduled { key, .. } in types {
        let runs = db.runs(Some(key), RECALLED_MAX)?;
        let is_well = |outcome: &Outcome| matches!(outcome, Outcome::Ok | Outcome::More);
        if let Some(run) = runs.iter().find(|run| is_well(&run.outcome) && run.trigger != Trigger::Reconcile) {
            meters.succeeded(key, run.ended);
        }
    }
    Ok(())
}
