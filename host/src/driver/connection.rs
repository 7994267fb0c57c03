//! A connection as runs see it: a loaded connector, settings, what was granted, and the classes of its source.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use tidewaiter_core::grant::{self, BadTemplate, Decided, Decision};
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::{ConnectionName, TypeKey, TypeName};
use tidewaiter_core::run::Failure;
use tidewaiter_core::schema::{ALL_CLASSES, Capability, CapabilityRequest, Classes, Operation};
use tokio::sync::mpsc;

use crate::config::{ConnectionConfig, TypeConfig};
use crate::db::pack;
use crate::driver::session::{Session, Source};
use crate::wasm::{ClassReader, FromGuest, Gauge, LogSource, ReadGrant, Setup, SyncOptions};

/// How many objects a connector is told to ask its source for at a time.
const PAGE_SIZE: u32 = 1000;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Its name.
    pub name: ConnectionName,
    /// What the operator wrote.
    pub config: Arc<ConnectionConfig>,
    /// What it runs.
    pub connector: Arc<dyn Source>,
    /// What was asked for and decided.
    pub decided: Vec<Decided>,
    grants: Vec<ReadGrant>,
    /// As the source declared them last; read again after a failed run.
    classes: Mutex<Option<Arc<Classes>>>,
}

impl Connection {
    /// Decides the grants of a connection.
    ///
    /// # Errors
    /// The connector asks for something by a setting that isn't there.
    pub fn new(
        name: ConnectionName,
        config: Arc<ConnectionConfig>,
        connector: Arc<dyn Source>,
    ) -> Result<Self, BadTemplate> {
        let asked = grant::expand(&connector.info().capabilities, &config.settings)?;
        let granted: Vec<PathBuf> = config.read.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
        let mut decided = Vec::new();
        let mut grants = Vec::new();
        for CapabilityRequest { capability, reason, optional } in asked {
            let decision = match &capability {
                Capability::Read(folder) => match config.base.join(folder).canonicalize() {
                    Ok(path) if grant::allows(&granted, &path) => {
                        grants.push(ReadGrant { guest_path: folder.clone(), host_path: path });
                        Decision::Granted
                    }
                    _ => Decision::NotGranted,
                },
                _ => Decision::NotAvailable,
            };
            decided.push(Decided { capability, reason, optional, decision });
        }
        Ok(Self { name, config, connector, decided, grants, classes: Mutex::new(None) })
    }

    /// The connector's name for the class of a type.
    pub(crate) fn class(&self, object_type: &TypeName) -> String {
        self.type_config(object_type).map(|config| config.class.clone()).unwrap_or_default()
    }

    fn type_config(&self, object_type: &TypeName) -> Option<&TypeConfig> {
        self.config.types.get(object_type)
    }

    /// How `sync` is to be done for a type.
    pub(crate) fn options(&self, object_type: &TypeName, limits: &Limits) -> SyncOptions {
        let config = self.type_config(object_type);
        let extra: BTreeMap<String, String> = config.map(|config| config.options.clone()).unwrap_or_default();
        SyncOptions {
            attributes: config.and_then(|config| config.attributes.clone()),
            page_size: PAGE_SIZE,
            deadline_ms: u64::try_from(limits.call_time_max.as_millis()).unwrap_or(u64::MAX),
            dry_run: false,
            batch_count_max: limits.batch_count_max,
            batch_bytes_max: limits.batch_bytes_max,
            object_bytes_max: limits.object_bytes_max,
            extra: extra.into_iter().collect(),
        }
    }

    /// Starts an instance for a run, and makes sure that the classes of the source are known.
    pub(crate) async fn start(
        self: &Arc<Self>,
        key: &TypeKey,
        run: u64,
        limits: Limits,
        stop: Arc<AtomicBool>,
        to_run: mpsc::Sender<FromGuest>,
        gauge: Arc<Gauge>,
    ) -> Result<Box<dyn Session>, Failure> {
        let log = LogSource { key: key.clone(), run };
        let known = self.classes();
        let class_reader = known.as_ref().map(|_| self.class_reader(log.clone()));
        let must_ask = known.is_none();
        let setup = Setup { classes: known, class_reader, limits, stop, to_run, gauge, ..self.setup(log.clone()) };
        let mut session = self.connector.start(setup).await.inspect_err(|failure| {
            tracing::warn!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run,
                code = failure.code(), "the connector can't be started: {failure}"
            );
        })?;
        if must_ask {
            let classes = self.ask_classes(session.as_mut(), &log, "the classes are not known").await?;
            session.set_classes(classes);
        }
        Ok(session)
    }

    fn setup(&self, log: LogSource) -> Setup {
        Setup {
            settings_json: self.config.settings.to_string(),
            grants: self.grants.clone(),
            classes: None,
            class_reader: None,
            limits: self.config.limits,
            stop: Arc::default(),
            to_run: mpsc::channel(1).0,
            pack: |deltas| pack(deltas).map_err(|error| error.to_string()),
            gauge: Arc::default(),
            log,
        }
    }

    /// For when a run meets something that the known classes don't have: sources change while a host runs.
    fn class_reader(self: &Arc<Self>, log: LogSource) -> ClassReader {
        let connection = Arc::clone(self);
        ClassReader(Box::new(move || {
            Box::pin(async move {
                let mut session = connection.connector.start(connection.setup(log.clone())).await?;
                connection.ask_classes(session.as_mut(), &log, "something came that is not declared").await
            })
        }))
    }

    async fn ask_classes(
        &self,
        session: &mut dyn Session,
        log: &LogSource,
        why: &str,
    ) -> Result<Arc<Classes>, Failure> {
        let LogSource { key, run } = log;
        tracing::info!(
            target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run, why,
            "objectClasses called"
        );
        match session.object_classes().await {
            Ok(classes) => {
                tracing::info!(
                    target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run,
                    classes = classes.len(), "objectClasses returned"
                );
                let classes = Arc::new(Classes::new(classes));
                *self.classes.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&classes));
                Ok(classes)
            }
            Err(failure) => {
                tracing::warn!(
                    target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run,
                    code = failure.code(), "objectClasses failed: {failure}"
                );
                Err(failure)
            }
        }
    }

    /// Lets the connector look at its source: its own check, if it has one, and whether the classes of all types are there. Answers
    /// what is wrong, one sentence each.
    pub async fn check(self: &Arc<Self>) -> Vec<String> {
        let Some(object_type) = self.config.types.keys().next() else { return Vec::new() };
        let key = TypeKey { connection: self.name.clone(), object_type: object_type.clone() };
        let (to_run, _nothing_comes) = mpsc::channel(1);
        let started = self.start(&key, 0, self.config.limits, Arc::default(), to_run, Arc::default()).await;
        let mut session = match started {
            Ok(session) => session,
            Err(failure) => return vec![failure.to_string()],
        };
        let mut wrong = Vec::new();
        if self.connector.info().operations.contains(&Operation::Check)
            && let Err(failure) = session.check().await
        {
            wrong.push(failure.to_string());
        }
        let classes = self.classes().unwrap_or_default();
        let names = classes.list().iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(", ");
        for (name, config) in &self.config.types {
            if config.class != ALL_CLASSES && classes.class(&config.class).is_none() {
                wrong.push(format!("types.{name}.class: the source has no class {:?}; it has: {names}", config.class));
            }
        }
        wrong
    }

    fn classes(&self) -> Option<Arc<Classes>> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next run reads them again.
    pub(crate) fn forget_classes(&self) {
        *self.classes.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
