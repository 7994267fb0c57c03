//! A connection as runs see it: a loaded connector, settings, what was granted, and the classes of its source.

mod trial;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tidewaiter_core::dead_letter::{Feed, Held};
use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::grant::destination::Pattern;
use tidewaiter_core::grant::policy::EgressPolicy;
use tidewaiter_core::grant::{self, BadAsk, Decided, Decision, Grants};
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::{ConnectionName, TypeKey, TypeName};
use tidewaiter_core::run::{Failure, Terms};
use tidewaiter_core::schema::{
    ALL_CLASSES, AttributeInfo, Capability, Classes, ConnectorInfo, ObjectClassInfo, Operation, masked,
};
use tidewaiter_core::state::TokenBasis;
use tidewaiter_core::text::{hex, shown};
use tokio::sync::mpsc;

use self::trial::Standing;
pub(crate) use self::trial::{TRIAL_RUNS, Trial};
use crate::audit::{Audit, Event};
use crate::config::{ConnectionConfig, TypeConfig};
use crate::db::{Db, pack, pack_read};
use crate::driver::pass::Comparison;
use crate::driver::session::{Session, Source};
use crate::driver::settings::{Fitting, WrittenFor};
use crate::driver::traced::Traced;
use crate::egress::{Egress, EgressError, Meter, Outgoing, Outside};
use crate::trace::RunTrace;
use crate::wasm::{
    ClassReader, Compare, FromGuest, Gauge, LogSource, ReadGrant, ReadHeld, ReadingHeld, Reveal, RevealRefusal,
    Revealing, Setup, SyncOptions,
};

/// So many bytes of a hash that nobody finds another list with the same.
const AWAITING_ID_BYTES: usize = 16;
/// How many objects a connector is told to ask its source for at a time.
const PAGE_SIZE: u32 = 1000;

/// How often it is looked whether a secret has changed, where a source refused the login.
const SECRET_LOOK: Duration = Duration::from_secs(5);
/// Classes and attributes of a source, together.
const SCHEMA_NAMES_MAX: usize = 20_000;
/// The longest name of one, in bytes.
const SCHEMA_NAME_BYTES_MAX: usize = 1024;
/// How often a run may ask to be shown secrets.
const REVEALS_MAX: u32 = 50;
/// More of what a request was isn't logged.
const WORDS_BYTES_MAX: usize = 1000;
/// More of a name that a guest made up isn't logged.
const NAME_BYTES_MAX: usize = 200;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Its name.
    pub name: ConnectionName,
    /// What the operator wrote.
    pub config: Arc<ConnectionConfig>,
    /// What its connector made of its settings; none: it gets them as they are written.
    migrated: Option<Json>,
    /// For which version of them they were written.
    pub written_for: WrittenFor,
    /// What it runs.
    pub connector: Arc<dyn Source>,
    /// By type.
    token_bases: BTreeMap<TypeName, TokenBasis>,
    allowed: Mutex<Arc<Allowed>>,
    egress: Arc<Egress>,
    audit: Option<Audit>,
    /// Where it is noted which attributes are sensitive.
    db: Option<Db>,
    /// What it may ask for, where that is not written down yet.
    brought_up: Mutex<Option<Approved>>,
    /// As the source declared them last; read again after a failed run.
    classes: Mutex<Option<Arc<Classes>>>,
    /// Which other files of its connector it knows.
    standing: Mutex<Standing>,
}

/// What an instance is started with.
pub(crate) struct Start {
    /// Whose words are in the log.
    pub(crate) log: LogSource,
    pub(crate) limits: Limits,
    /// Set: the connector is answered `stop`.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) to_run: mpsc::Sender<FromGuest>,
    pub(crate) gauge: Arc<Gauge>,
    /// What objects that are read are compared with.
    pub(crate) comparison: Option<Arc<Comparison>>,
    /// What the start and the calls are parts of.
    pub(crate) trace: RunTrace,
}

/// What a connection may do, from one approval to the next.
#[derive(Debug)]
pub struct Allowed {
    /// What was asked for and decided.
    pub decided: Vec<Decided>,
    /// What an update asks for and is not approved.
    pub awaiting: Option<Awaiting>,
    read: Vec<ReadGrant>,
    asked_egress: Vec<Pattern>,
    awaiting_egress: Vec<Pattern>,
    needs: bool,
}

/// What awaits approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaiting {
    /// As the connector asks for it.
    pub capabilities: Vec<Capability>,
    /// A name for exactly these: who approves names what was shown, and not what an update made of it since.
    pub id: String,
}

/// What a file doesn't work without, and nobody has approved.
#[derive(Clone, Debug)]
pub(crate) struct Needed {
    pub(crate) awaiting: Awaiting,
    /// The same, as it is shown.
    pub(crate) decided: Vec<Decided>,
}

impl Awaiting {
    fn new(capabilities: Vec<Capability>) -> Option<Self> {
        let digest = Sha256::digest(format!("{capabilities:?}"));
        let id = hex(&digest[..AWAITING_ID_BYTES]);
        (!capabilities.is_empty()).then_some(Self { capabilities, id })
    }
}

impl Allowed {
    /// What awaits approval, if the connector doesn't work without it.
    pub(crate) fn needed(&self) -> Option<Needed> {
        let awaiting = self.awaiting.clone().filter(|_| self.needs)?;
        let decided = self.decided.iter().filter(|one| one.decision == Decision::AwaitsApproval).cloned().collect();
        Some(Needed { awaiting, decided })
    }

    fn decide(
        config: &ConnectionConfig,
        settings: &Json,
        info: &ConnectorInfo,
        approved: &Approved,
    ) -> Result<Self, BadAsk> {
        let (access, requests) = (&config.access, &info.capabilities);
        // What is asked for is shown, and so can't be made of what is not.
        let schema = serde_json::from_str(&info.settings_schema).unwrap_or_default();
        let settings = masked(settings, &schema, &Json::Object(serde_json::Map::new()));
        let (granted, ceiling) = (without_links(&access.granted), access.ceiling.as_deref().map(without_links));
        let lacking = approved.lacks(requests);
        let (awaiting, asked): (Vec<_>, Vec<_>) =
            requests.iter().cloned().partition(|request| lacking.contains(&request.capability));
        let asked = grant::expand(&asked, &settings)?;
        let asked_egress = grant::asked_egress(&asked)?;
        let mut decided = Vec::new();
        let mut read = Vec::new();
        for request in asked {
            let folder = match &request.capability {
                Capability::Read(folder) => config.base.join(folder).canonicalize().ok(),
                _ => None,
            };
            let decision = grant::decide(request, folder.as_deref(), &granted, ceiling.as_ref());
            if let (Capability::Read(guest_path), Decision::Granted, Some(host_path)) =
                (&decision.capability, decision.decision, folder)
            {
                read.push(ReadGrant { guest_path: guest_path.clone(), host_path });
            }
            decided.push(decision);
        }
        decided.extend(awaiting.iter().map(|request| Decided::awaiting(request, &settings)));
        let needs = awaiting.iter().any(|request| !request.optional);
        // What can't be told keeps nothing from running.
        let awaiting = awaiting.iter().filter_map(|one| grant::expand(std::slice::from_ref(one), &settings).ok());
        let awaiting_egress = awaiting.filter_map(|asked| grant::asked_egress(&asked).ok()).flatten().collect();
        Ok(Self { decided, awaiting: Awaiting::new(lacking), read, asked_egress, awaiting_egress, needs })
    }
}

impl Connection {
    /// Decides the grants of a connection, whose connector may ask for what is approved. What it sends outside goes through `outside`.
    ///
    /// # Errors
    /// The connector asks for something by a setting that isn't there, or for what can't be.
    pub fn new(
        name: ConnectionName,
        config: Arc<ConnectionConfig>,
        connector: Arc<dyn Source>,
        approved: &Approved,
        outside: &Outside,
    ) -> Result<Self, BadAsk> {
        let written_for = WrittenFor::new(&config.settings, connector.info().settings_version);
        Self::fitted(Fitting { migrated: None, written_for }, name, config, connector, approved, outside)
    }

    /// As `new`, with settings that were made of those that were written.
    ///
    /// # Errors
    /// As `new`.
    pub(crate) fn fitted(
        Fitting { migrated, written_for }: Fitting,
        name: ConnectionName,
        config: Arc<ConnectionConfig>,
        connector: Arc<dyn Source>,
        approved: &Approved,
        outside: &Outside,
    ) -> Result<Self, BadAsk> {
        let settings = migrated.as_ref().unwrap_or(&config.settings);
        let allowed = Allowed::decide(&config, settings, connector.info(), approved)?;
        let (access, ceiling) = (&config.access, config.access.ceiling.as_deref());
        let policy = EgressPolicy {
            asked: allowed.asked_egress.clone(),
            awaiting: allowed.awaiting_egress.clone(),
            granted: access.granted.egress.clone(),
            ceiling: ceiling.map(|ceiling| ceiling.egress.clone()),
        };
        let (credentials, per_hour) = (access.credentials.clone(), config.limits.logins_per_hour_max);
        let egress = Arc::new(Egress::new(name.as_str(), outside.clone(), policy, credentials, per_hour));
        let allowed = Mutex::new(Arc::new(allowed));
        let token_bases =
            token_bases(&config, settings, (&connector.info().settings_schema, &connector.info().token_format_written));
        let (audit, db, brought_up, classes, standing) = Default::default();
        Ok(Self {
            name,
            config,
            migrated,
            written_for,
            connector,
            token_bases,
            allowed,
            egress,
            audit,
            db,
            brought_up,
            classes,
            standing,
        })
    }

    /// Its settings, as the connector gets them.
    pub fn settings(&self) -> &Json {
        self.migrated.as_ref().unwrap_or(&self.config.settings)
    }

    /// What it may do.
    pub fn allowed(&self) -> Arc<Allowed> {
        Arc::clone(&self.allowed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it might do with this approved.
    ///
    /// # Errors
    /// As `new`.
    pub fn with(&self, approved: &Approved) -> Result<Allowed, BadAsk> {
        Allowed::decide(&self.config, self.settings(), self.connector.info(), approved)
    }

    /// Lets the connector do that from the next run on.
    pub fn allow(&self, allowed: Allowed) {
        self.egress.ask(allowed.asked_egress.clone(), allowed.awaiting_egress.clone());
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(allowed);
    }

    /// What it is refused and shown is written down from now on, and which attributes are sensitive.
    #[must_use]
    pub fn noted(self, audit: Audit, db: Db) -> Self {
        Self { audit: Some(audit), db: Some(db), ..self }
    }

    /// It is new, and may ask for this: to be written down before it runs.
    pub(crate) fn brings_up(&self, approved: Approved) {
        *self.brought_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(approved);
    }

    /// What is to be written down of what it may ask for, once.
    pub(crate) fn brought_up(&self) -> Option<Approved> {
        self.brought_up.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the operator says of the runs of a type.
    pub(crate) fn terms(&self, object_type: &TypeName) -> Terms {
        let config = self.type_config(object_type);
        let (guard, on_token_lost) = config.map(|config| (config.guard, config.on_token_lost)).unwrap_or_default();
        let token_basis = self.token_bases.get(object_type).cloned().unwrap_or_default();
        let info = self.connector.info();
        let formats = info.token_formats_read.iter().chain([&info.token_format_written]);
        let token_formats = formats.filter(|format| !format.is_empty()).map(|format| hashed(format)).collect();
        let on_trial = self.is_on_trial(object_type);
        Terms { limits: self.config.limits, guard, on_token_lost, token_basis, token_formats, on_trial }
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
    pub(crate) async fn start(self: &Arc<Self>, start: Start) -> Result<Box<dyn Session>, Failure> {
        let Start { log, limits, stop, to_run, gauge, comparison, trace } = start;
        let LogSource { key, run } = &log;
        let known = self.classes();
        let class_reader = known.as_ref().map(|_| self.class_reader(log.clone()));
        let must_ask = known.is_none();
        let mut setup = Setup { classes: known, class_reader, limits, stop, to_run, ..self.setup(log.clone(), gauge) };
        if let Some(comparison) = comparison {
            if !comparison.manner().full {
                setup.pack_read = setup.pack;
            }
            setup.reads = comparison.manner().reads;
            setup.compare = Some(Compare(Arc::new(move |deltas, untold| comparison.judge(deltas, untold))));
        }
        let session = trace.part("start", self.connector.start(setup)).await.inspect_err(|failure| {
            tracing::warn!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run,
                code = failure.code(), "the connector can't be started: {failure}"
            );
        })?;
        let mut session: Box<dyn Session> = Box::new(Traced { session, trace });
        if must_ask {
            let classes = self.ask_classes(session.as_mut(), &log, "the classes are not known").await?;
            session.set_classes(classes);
        }
        Ok(session)
    }

    /// Asks for the classes of the source, whether or not they are known.
    pub(crate) async fn ask_for_classes(self: &Arc<Self>, key: &TypeKey, why: &str) -> Result<Arc<Classes>, Failure> {
        let log = LogSource { key: key.clone(), run: 0 };
        let mut session = self.connector.start(self.setup(log.clone(), Arc::default())).await?;
        self.ask_classes(session.as_mut(), &log, why).await
    }

    /// Whether the classes of the source are known.
    pub(crate) fn knows_classes(&self) -> bool {
        self.classes().is_some()
    }

    /// The class of a type, as its source declared it last.
    pub(crate) fn known_class(&self, object_type: &TypeName) -> Option<ObjectClassInfo> {
        self.classes()?.class(&self.class(object_type)).cloned()
    }

    /// The class of a type, as its source declares it. Asks the connector where that isn't known.
    pub(crate) async fn class_info(self: &Arc<Self>, key: &TypeKey) -> Result<Option<ObjectClassInfo>, Failure> {
        let classes = match self.classes() {
            Some(classes) => classes,
            None => self.ask_for_classes(key, "the classes are not known").await?,
        };
        Ok(classes.class(&self.class(&key.object_type)).cloned())
    }

    fn setup(self: &Arc<Self>, log: LogSource, gauge: Arc<Gauge>) -> Setup {
        Setup {
            settings_json: self.settings().to_string(),
            grants: self.allowed().read.clone(),
            classes: None,
            class_reader: None,
            limits: self.config.limits,
            stop: Arc::default(),
            to_run: mpsc::channel(1).0,
            pack: |deltas| pack(deltas).map_err(|error| error.to_string()),
            pack_read: |deltas| pack_read(deltas).map_err(|error| error.to_string()),
            compare: None,
            reads: Feed::Wanted,
            data_faults: self.config.data_faults,
            read_held: self.read_held(&log.key),
            outgoing: Some(self.outgoing(&log, &gauge)),
            reveal: Some(self.reveal(&log, &gauge)),
            gauge,
            log,
        }
    }

    /// What is kept out of the journal of a type.
    fn read_held(&self, key: &TypeKey) -> ReadHeld {
        let (db, key) = (self.db.clone(), key.clone());
        ReadHeld(Arc::new(move || {
            let (db, key) = (db.clone(), key.clone());
            Box::pin(async move {
                let Some(db) = db else { return Ok(Held::default()) };
                let letters = db.read_dead_letters(Some(key)).await.map_err(|error| error.to_string())?;
                Ok(Held::of(letters.iter().map(|stored| (stored.number, &stored.letter))))
            }) as ReadingHeld
        }))
    }

    /// The way out of one run. Who reads the run's log later sees what was refused.
    fn outgoing(&self, log: &LogSource, gauge: &Arc<Gauge>) -> Arc<Outgoing> {
        let Limits { http_requests_max, http_response_bytes_max, .. } = self.config.limits;
        let (LogSource { key, run }, gauge, audit) = (log.clone(), Arc::downgrade(gauge), self.audit.clone());
        let witness = move |error: &EgressError| {
            let (code, error, is_denial) =
                (error.code(), shown(&error.to_string(), WORDS_BYTES_MAX), error.is_denial());
            if let Some(audit) = audit.as_ref().filter(|_| is_denial) {
                audit.refused(&key, run, code, &error);
            }
            tracing::warn!(
                target: "tidewaiter::egress", connection = %key.connection, r#type = %key.object_type, run,
                code, "{error}"
            );
            if let Some(gauge) = gauge.upgrade() {
                gauge.note(&format!("{code}: {error}"));
            }
        };
        let in_flight = usize::try_from(http_requests_max).unwrap_or(usize::MAX >> 4);
        Arc::new(self.egress.of_run(Meter::new(in_flight, http_response_bytes_max, Box::new(witness))))
    }

    /// Shows secrets to a run: those that were asked for and granted.
    fn reveal(self: &Arc<Self>, log: &LogSource, gauge: &Arc<Gauge>) -> Reveal {
        let (connection, log, asked) = (Arc::clone(self), log.clone(), Arc::new(AtomicU32::new(0)));
        let gauge = Arc::downgrade(gauge);
        Reveal(Arc::new(move |name| {
            let (connection, log, asked) = (Arc::clone(&connection), log.clone(), Arc::clone(&asked));
            let gauge = gauge.clone();
            Box::pin(async move {
                // A guest that asks and asks gets no more lines in logs for it.
                if asked.fetch_add(1, Ordering::Relaxed) >= REVEALS_MAX {
                    return Err(RevealRefusal::NotGranted);
                }
                let secret = connection.revealed(&name, &log).await?;
                if let Some(gauge) = gauge.upgrade() {
                    gauge.shows_a_secret();
                }
                Ok(secret)
            }) as Revealing
        }))
    }

    /// The source refused a login with a secret that was shown: it counts, because accounts are locked after few.
    pub(crate) fn login_refused(&self) {
        self.egress.logins().refused_to_connector();
    }

    /// Returns once a secret is another one than the one that was used last. Never, where there are none.
    pub(crate) async fn secret_changed(&self) {
        loop {
            tokio::time::sleep(SECRET_LOOK).await;
            if self.egress.logins().changed().await {
                return;
            }
        }
    }

    async fn revealed(&self, name: &str, log: &LogSource) -> Result<Vec<u8>, RevealRefusal> {
        let LogSource { key, run } = log;
        let refused = |refusal, problem: String| {
            let name = shown(name, NAME_BYTES_MAX);
            tracing::warn!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run,
                secret = name, "a secret is not revealed: {problem}"
            );
            if let Some(audit) = &self.audit {
                audit.refused(key, *run, "secret.not_revealed", &format!("the secret {name:?}: {problem}"));
            }
            refusal
        };
        let asked = |decided: &&Decided| matches!(&decided.capability, Capability::Reveal(asked) if asked == name);
        match self.allowed().decided.iter().find(asked).map(|decided| decided.decision) {
            Some(Decision::Granted) => {}
            Some(Decision::AwaitsApproval) => {
                return Err(refused(RevealRefusal::NotGranted, "it awaits approval".into()));
            }
            Some(Decision::BeyondCeiling) => {
                return Err(refused(RevealRefusal::NotGranted, "it is beyond the ceiling".into()));
            }
            Some(_) => return Err(refused(RevealRefusal::NotGranted, "it is not granted".into())),
            None => return Err(refused(RevealRefusal::NotGranted, "it was not asked for".into())),
        }
        let source = self.config.access.secrets.get(name);
        let source = source.ok_or_else(|| refused(RevealRefusal::Unknown, "none is configured".into()))?;
        let allowed = self.egress.logins().has_left();
        allowed.map_err(|error| refused(RevealRefusal::NotGranted, error.to_string()))?;
        let secret = self.egress.logins().read(source).await;
        let secret = secret.map_err(|error| refused(RevealRefusal::Unknown, error.to_string()))?;
        if let Some(audit) = &self.audit {
            let (connection, object_type) = (key.connection.as_str(), key.object_type.as_str());
            let noted = audit.note(&Event::Revealed { connection, r#type: object_type, run: *run, secret: name });
            noted.map_err(|error| refused(RevealRefusal::NotGranted, error.to_string()))?;
        }
        tracing::info!(
            target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run,
            secret = name, "a secret is revealed to the connector"
        );
        Ok(secret.expose_secret().to_vec())
    }

    /// For when a run meets something that the known classes don't have: sources change while a host runs.
    fn class_reader(self: &Arc<Self>, log: LogSource) -> ClassReader {
        let connection = Arc::clone(self);
        ClassReader(Box::new(move || {
            Box::pin(async move {
                let setup = connection.setup(log.clone(), Arc::default());
                let mut session = connection.connector.start(setup).await?;
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
                bounded(&classes)?;
                if let Some(db) = &self.db {
                    // Before anything of theirs is journaled.
                    let noted = db.note_sensitive(&self.name, sensitive(&classes)).await;
                    noted.map_err(|error| Failure::Host { message: error.to_string() })?;
                }
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
        let (stop, gauge, comparison, trace) = Default::default();
        let (log, limits) = (LogSource { key, run: 0 }, self.config.limits);
        let started = self.start(Start { log, limits, stop, to_run, gauge, comparison, trace }).await;
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
            let of = |class: &&ObjectClassInfo| {
                config.class == ALL_CLASSES || class.name.eq_ignore_ascii_case(&config.class)
            };
            let known: Vec<&AttributeInfo> =
                classes.list().iter().filter(of).flat_map(|class| &class.attributes).collect();
            for attribute in config.attributes.iter().flatten().filter(|_| !known.is_empty()) {
                if !known.iter().any(|known| known.name.eq_ignore_ascii_case(attribute)) {
                    let has = known.iter().map(|known| known.name.as_str()).collect::<Vec<_>>().join(", ");
                    wrong.push(format!("types.{name}.attributes: the class has no {attribute:?}; it has: {has}"));
                }
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

/// Refuses what no source has.
fn bounded(classes: &[ObjectClassInfo]) -> Result<(), Failure> {
    let names = classes.iter().flat_map(|class| class.attributes.iter().map(|one| &one.name).chain([&class.name]));
    let (count, longest) = names.fold((0, 0), |(count, longest), name| (count + 1, name.len().max(longest)));
    match count > SCHEMA_NAMES_MAX || longest > SCHEMA_NAME_BYTES_MAX {
        false => Ok(()),
        true => {
            let message = format!(
                "classes and attributes with {count} names of up to {longest} bytes; \
                 at most {SCHEMA_NAMES_MAX} of {SCHEMA_NAME_BYTES_MAX} bytes are taken"
            );
            Err(Failure::Contract { code: "schema-too-large".into(), message, uid: None })
        }
    }
}

/// What the tokens of each type depend on: its connector and the format that this writes, its class, and the settings that the schema calls
/// relevant.
fn token_bases(
    config: &ConnectionConfig,
    settings: &Json,
    (settings_schema, format): (&str, &str),
) -> BTreeMap<TypeName, TokenBasis> {
    let schema: Json = serde_json::from_str(settings_schema).unwrap_or_default();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let relevant = properties.filter(|(_, property)| property["x-token-relevant"] == true);
    let settings: Vec<(String, u64)> = relevant
        .map(|(name, property)| {
            let value = settings.get(name).unwrap_or(&property["default"]);
            (format!("the setting {name}"), hashed(&value.to_string()))
        })
        .collect();
    let basis = |class: &str| {
        let connector = ("the connector".to_owned(), hashed(config.connector.as_str()));
        let class = ("the class of the type".to_owned(), hashed(&class.to_lowercase()));
        let written = Some(format).filter(|format| !format.is_empty());
        let format = written.map(|format| (TokenBasis::FORMAT.to_owned(), hashed(format)));
        TokenBasis(settings.iter().cloned().chain([connector, class]).chain(format).collect())
    };
    config.types.iter().map(|(name, config)| (name.clone(), basis(&config.class))).collect()
}

fn hashed(text: &str) -> u64 {
    let hash = Sha256::new().chain_update(b"tidewaiter token basis").chain_update(text).finalize();
    u64::from_be_bytes(std::array::from_fn(|i| hash[i]))
}

/// The sensitive attributes of classes, by class and name.
fn sensitive(classes: &[ObjectClassInfo]) -> Vec<(String, String)> {
    let of = |class: &ObjectClassInfo| {
        let sensitive = class.attributes.iter().filter(|attribute| attribute.sensitive);
        sensitive.map(|attribute| (class.name.clone(), attribute.name.clone())).collect::<Vec<_>>()
    };
    classes.iter().flat_map(of).collect()
}

/// Folders where they really are; those that aren't there are granted to nobody.
fn without_links(grants: &Grants) -> Grants {
    let read = grants.read.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
    Grants { read, ..grants.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::config::Access;

    fn basis(class: &str, settings: Json) -> TokenBasis {
        let account = TypeConfig { class: class.into(), ..TypeConfig::default() };
        let config = ConnectionConfig {
            connector: "csv".parse().unwrap(),
            settings: settings.clone(),
            setting_lines: BTreeMap::new(),
            settings_version: None,
            types: BTreeMap::from([("account".parse().unwrap(), account)]),
            parallel_types: false,
            data_faults: tidewaiter_core::dead_letter::DataFaults::Fail,
            access: Access::default(),
            limits: Limits::default(),
            base: "/".into(),
        };
        let schema = json!({ "properties": {
            "folder": { "x-token-relevant": true }, "delimiter": { "x-token-relevant": true, "default": "," }, "settle_ms": {},
        } });
        token_bases(&config, &settings, (&schema.to_string(), "1")).into_values().next().unwrap()
    }

    #[test]
    fn a_token_depends_on_its_class_and_on_what_the_connector_says() {
        let before = basis("account", json!({ "folder": "people" }));
        for same in [json!({ "settle_ms": 7, "folder": "people" }), json!({ "folder": "people", "delimiter": "," })] {
            assert_eq!(before.stale(&basis("ACCOUNT", same.clone()), &BTreeSet::new()), None, "{same}");
        }
        for (other, what) in [
            (json!({ "folder": "others" }), "folder"),
            (json!({ "folder": "people", "delimiter": ";" }), "delimiter"),
            (json!({}), "folder"),
        ] {
            let why = before.stale(&basis("account", other.clone()), &BTreeSet::new()).unwrap();
            assert!(why.starts_with(&format!("the setting {what} was changed")), "{other}: {why}");
        }
        let other = basis("group", json!({ "folder": "people" }));
        assert!(before.stale(&other, &BTreeSet::new()).unwrap().starts_with("the class of the type was changed"));
        // A version of the connector that knows more of what its tokens depend on.
        let mut more = before.clone();
        more.0.insert("the setting zone".into(), 7);
        let none = BTreeSet::new();
        assert_eq!((before.stale(&more, &none), more.stale(&before, &none)), (None, None));
        assert_eq!(TokenBasis::default().stale(&before, &none), None, "stored by a host that didn't know");
        // And of a version that writes another format: what it reads decides.
        let formats = |formats: &[&str]| formats.iter().map(|format| hashed(format)).collect::<BTreeSet<_>>();
        assert_eq!(before.stale(&before, &formats(&["2", "1"])), None);
        assert!(before.stale(&before, &formats(&["2"])).unwrap().starts_with("the format of the token is none"));
    }
}
