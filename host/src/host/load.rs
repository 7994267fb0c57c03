//! Loading what connections run: each file of a connector once, and what each connection may do with it. A connection runs what is in the
//! folder, unless it went back from that; then it runs what was kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::{fmt, io};

use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tidewaiter_core::text::shown;
use tokio::task::spawn_blocking;

use super::kept::{Bytes, Kept};
use super::seal::DbVault;
use super::{StartError, approve};
use crate::audit::Audit;
use crate::clock::Clock;
use crate::config::{Config, ConnectionConfig, Current};
use crate::db::{Db, Placement, ReadError, RefusedRevision, Revision, Waits};
use crate::driver::settings::{Fitting, WrittenFor};
use crate::driver::{Connection, Needed, Source, Trial};
use crate::egress::{NoVault, Outside, SystemResolver, Trust, Vault};
use crate::meters::Meters;
use crate::trust::{ConnectorTrust, Distrust, Mode, Origin, Signed, Trusted, is_older};
use crate::wasm::{Connector, Engine, EngineOptions};

/// Instances that may live at the same time beside those of runs.
const INSTANCES_BESIDE: usize = 32;
/// More of a connector's own version isn't written down.
const VERSION_BYTES_MAX: usize = 100;
/// So many files of each connector are kept, the ones that were met last, beside those that are run.
const REVISIONS_KEPT: usize = 5;
/// So many files of each connector are remembered: authors save often.
const REVISIONS_REMEMBERED: usize = 50;

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
    let (noted, told) = match known {
        Known::Db(audit, db) => (Some((audit.clone(), db.clone())), BTreeMap::new()),
        Known::Told(approved) => (None, approved.clone()),
    };
    Loader::new(Arc::new(Current::new(config.clone())), noted, told, Meters::default())?.all().await
}

/// Loads connectors, at the start and whenever a file comes.
pub(super) struct Loader {
    config: Arc<Current>,
    engine: Engine,
    outside: Outside,
    kept: Kept,
    clock: Clock,
    /// Where it is noted what is loaded; none: nowhere.
    noted: Option<(Audit, Db)>,
    /// Without a db: what is approved.
    told: BTreeMap<ConnectionName, Approved>,
}

/// Why a connection doesn't get something else to run.
pub(super) enum NotLoaded {
    /// Its connector is at fault.
    Connector(Fault),
    /// Nothing can be done now.
    Host(StartError),
}

/// Why a file is not run.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) why: String,
    pub(super) cause: Cause,
}

/// What is wrong where a file is not run.
#[derive(Clone, Debug)]
pub(super) enum Cause {
    /// The file itself.
    File,
    /// It is not trusted.
    Trust,
    /// What is written in the configuration doesn't fit it.
    Written,
    /// It doesn't work without what nobody has approved.
    Approval(Needed),
}

impl Fault {
    fn new(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), cause: Cause::File }
    }

    fn distrusted(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), cause: Cause::Trust }
    }

    fn written(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), cause: Cause::Written }
    }

    fn needing(name: &ConnectionName, needed: Needed) -> Self {
        let (id, asks) = (&needed.awaiting.id, approve::texts(&needed.awaiting.capabilities));
        let why = format!("it needs more than was approved ({asks}): `tidewaiter connections approve {name} {id}`");
        Self { why, cause: Cause::Approval(needed) }
    }

    fn waits(&self) -> Waits {
        match self.cause {
            Cause::File => Waits::Retry,
            Cause::Trust | Cause::Written | Cause::Approval(_) => Waits::Change,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl From<Distrust> for Fault {
    fn from(distrust: Distrust) -> Self {
        Self::distrusted(distrust)
    }
}

impl<E: Into<StartError>> From<E> for NotLoaded {
    fn from(error: E) -> Self {
        Self::Host(error.into())
    }
}

/// What comes of a file.
#[derive(Default)]
pub(super) struct Revised {
    /// Connections that run it, or can run at all only now.
    pub(super) placed: Vec<Arc<Connection>>,
    /// Connections that go on with what they had, and what they don't run is another matter by now.
    pub(super) noted: Vec<ConnectionName>,
    /// Connections that can't run, and why.
    pub(super) broken: Vec<(ConnectionName, String)>,
}

/// What comes of a change of what is trusted.
#[derive(Default)]
pub(super) struct Distrusted {
    /// Files that may not be run any more.
    pub(super) files: BTreeSet<String>,
    /// Connections that run an earlier one.
    pub(super) placed: Vec<Arc<Connection>>,
    /// Connections that can't run, and why.
    pub(super) broken: Vec<(ConnectionName, String)>,
}

/// Files of one connector, loaded once each.
pub(super) struct Shelf<'a> {
    loader: &'a Loader,
    /// As it was when it was filled.
    config: Arc<Config>,
    name: &'a ConnectorName,
    /// What the folder has.
    file: Result<Arc<Bytes>, String>,
    loaded: HashMap<String, Result<Connector, Fault>>,
}

impl Loader {
    pub(super) fn new(
        current: Arc<Current>,
        noted: Option<(Audit, Db)>,
        told: BTreeMap<ConnectionName, Approved>,
        meters: Meters,
    ) -> Result<Self, StartError> {
        let config = current.now();
        let options = EngineOptions {
            // Each run has one, and for a moment a second one that reads classes.
            instances: u32::try_from(config.concurrency.total * 2 + INSTANCES_BESIDE).unwrap_or(u32::MAX),
            compiler: config.compiler.clone(),
            cache: Some(config.compiled()),
            meters: meters.clone(),
            ..EngineOptions::default()
        };
        let engine = Engine::new(&options).map_err(StartError::Engine)?;
        let resolver = config.resolver.clone().unwrap_or_else(|| Arc::new(SystemResolver));
        let vault: Arc<dyn Vault> = match &noted {
            Some((_, db)) => Arc::new(DbVault(db.clone())),
            None => Arc::new(NoVault),
        };
        let clock = Clock::start();
        let outside = Outside::new(resolver, Trust::load(&config.trust)?, vault, clock).counted(meters);
        let kept = Kept::new(&config.data);
        Ok(Self { config: current, engine, outside, kept, clock, noted, told })
    }

    /// What runs instances.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The connectors that connections name.
    pub(super) fn connectors(&self) -> BTreeSet<ConnectorName> {
        self.config.now().connections.values().map(|written| written.connector.clone()).collect()
    }

    pub(super) async fn shelf<'a>(&'a self, name: &'a ConnectorName, config: &Arc<Config>) -> Shelf<'a> {
        let path = config.connector(name);
        let read = spawn_blocking(move || {
            let file = Bytes::read(&path).map(Arc::new);
            file.map_err(|error| format!("can't read its connector {}: {error}", path.display()))
        });
        let file = read.await.unwrap_or_else(|error| Err(error.to_string()));
        Shelf { loader: self, config: Arc::clone(config), name, file, loaded: HashMap::new() }
    }

    /// All connections, as a host begins with them.
    pub(super) async fn all(&self) -> Result<Loaded, StartError> {
        let mut placements = match &self.noted {
            Some((_, db)) => db.placements()?,
            None => BTreeMap::new(),
        };
        let (mut loaded, mut placed) = (Loaded::default(), Vec::new());
        let config = self.config.now();
        for connector in self.connectors() {
            let mut shelf = self.shelf(&connector, &config).await;
            for (name, written) in config.of(&connector) {
                let stored = placements.remove(name).filter(|stored| stored.connector == connector);
                match self.begin(name, written, &mut shelf, stored.as_ref()).await {
                    Ok(connection) => {
                        let placement = connection.placement();
                        if stored.as_ref() != Some(&placement) {
                            placed.push((name.clone(), placement));
                        }
                        self.note_placed(&connection).await?;
                        loaded.connections.insert(name.clone(), connection);
                    }
                    Err(NotLoaded::Connector(problem)) => {
                        loaded.broken.insert(name.clone(), problem.why);
                    }
                    Err(NotLoaded::Host(error)) => return Err(error),
                }
            }
        }
        if let Some((_, db)) = &self.noted {
            if !placed.is_empty() {
                db.place(placed).await?;
            }
            self.sweep(db)?;
        }
        Ok(loaded)
    }

    /// What a connection begins with, by what it ran last and by what there is now.
    async fn begin(
        &self,
        name: &ConnectionName,
        written: &Arc<ConnectionConfig>,
        shelf: &mut Shelf<'_>,
        stored: Option<&Placement>,
    ) -> Result<Arc<Connection>, NotLoaded> {
        let file = shelf.sha256()?;
        let Some(stored) = stored else { return self.as_installed(name, written, shelf, None).await };
        let refused = stored.refused.as_ref().filter(|refused| refused.sha256 == file && refused.waits == Waits::Retry);
        let before = match (self.as_stored(name, written, shelf, stored).await, refused) {
            (Ok(before), _) => before,
            (Err(error @ NotLoaded::Host(_)), _) => return Err(error),
            (Err(NotLoaded::Connector(problem)), Some(RefusedRevision { why, .. })) => {
                return Err(NotLoaded::Connector(Fault::new(format!(
                    "the file in the folder is not run ({why}), and what ran before is not there: {problem}; `tidewaiter connectors retry {}` runs it",
                    written.connector
                ))));
            }
            (Err(NotLoaded::Connector(problem)), None) => {
                no_way_back(name, &file, &problem);
                let installed = self.as_installed(name, written, shelf, stored.settings.as_ref()).await;
                let Err(NotLoaded::Connector(fault @ Fault { cause: Cause::Trust | Cause::Written, .. })) = &installed
                else {
                    return installed;
                };
                let others = [&stored.previous, &stored.before].into_iter().flatten();
                let earlier = self.earlier(name, written, shelf, others, stored.settings.as_ref()).await?;
                let Some(earlier) = earlier else { return installed };
                self.refuse(&earlier, file, fault.clone());
                return Ok(earlier);
            }
        };
        if stored.sha256 == file || refused.is_some() {
            return Ok(before);
        }
        match self.in_place_of(&before, shelf, false).await {
            Err(NotLoaded::Connector(fault)) => {
                self.refuse(&before, file, fault);
                Ok(before)
            }
            connection => connection,
        }
    }

    /// A connection as it is configured by now: one that runs goes on with the file that it runs, unless it got another connector.
    pub(super) async fn configured(
        &self,
        name: &ConnectionName,
        written: &Arc<ConnectionConfig>,
        shelf: &mut Shelf<'_>,
        now: Option<&Connection>,
    ) -> Result<Arc<Connection>, NotLoaded> {
        let Some(now) = now.filter(|now| now.config.connector == written.connector) else {
            let mut placements = self.noted.as_ref().map(|(_, db)| db.placements()).transpose()?.unwrap_or_default();
            let stored = placements.remove(name).filter(|stored| stored.connector == written.connector);
            return self.begin(name, written, shelf, stored.as_ref()).await;
        };
        let written_for = Some(&now.written_for);
        let connection = self.made(name, written, Arc::clone(&now.connector), written_for).await?;
        connection.stands_as(&now.placement());
        let Some(Trial { previous, passed }) = now.trial() else { return Ok(connection) };
        match self.made(name, written, Arc::clone(&previous.connector), written_for).await {
            Ok(previous) => connection.begins_trial(Trial { previous, passed }),
            Err(error @ NotLoaded::Host(_)) => return Err(error),
            Err(NotLoaded::Connector(problem)) => {
                no_way_back(name, connection.connector.sha256(), &problem);
                let before = Some(previous.connector.sha256().to_owned());
                connection.stands_as(&Placement { before, ..now.placement() });
            }
        }
        Ok(connection)
    }

    /// A connection that runs what the folder has, if that may be installed.
    async fn as_installed(
        &self,
        name: &ConnectionName,
        written: &Arc<ConnectionConfig>,
        shelf: &mut Shelf<'_>,
        written_for: Option<&WrittenFor>,
    ) -> Result<Arc<Connection>, NotLoaded> {
        let file = shelf.sha256()?;
        shelf.installable(None, false).map_err(NotLoaded::Connector)?;
        self.connection(name, written, shelf, &file, written_for).await
    }

    /// A connection with the first of these files that it can run.
    async fn earlier(
        &self,
        name: &ConnectionName,
        written: &Arc<ConnectionConfig>,
        shelf: &mut Shelf<'_>,
        files: impl IntoIterator<Item = &String>,
        written_for: Option<&WrittenFor>,
    ) -> Result<Option<Arc<Connection>>, NotLoaded> {
        for file in files {
            let made = self.connection(name, written, shelf, file, written_for).await;
            match made.and_then(|connection| self.reads_tokens(&connection).map(|()| connection)) {
                Ok(connection) => return Ok(Some(connection)),
                Err(NotLoaded::Connector(_)) => {}
                Err(error @ NotLoaded::Host(_)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Those of the connections of a connector that run what may not be run any more, and why not.
    pub(super) async fn distrusted_now(
        &self,
        connector: &ConnectorName,
        running: Vec<Arc<Connection>>,
    ) -> Result<Vec<(Arc<Connection>, Fault)>, NotLoaded> {
        let shelf = self.shelf(connector, &self.config.now()).await;
        let mut found = Vec::new();
        for connection in running {
            if let Err(fault) = shelf.trusted(connection.connector.sha256()).await? {
                found.push((connection, fault));
            }
        }
        Ok(found)
    }

    /// What connections of a connector run that may not be run any more, and what they run in its place.
    pub(super) async fn distrusted(
        &self,
        connector: &ConnectorName,
        running: &[Arc<Connection>],
    ) -> Result<Distrusted, NotLoaded> {
        let mut shelf = self.shelf(connector, &self.config.now()).await;
        let mut found = Distrusted::default();
        for now in running {
            let files: Vec<String> =
                now.trial().map(|trial| trial.previous.connector.sha256().to_owned()).into_iter().collect();
            if let Some(previous) = files.first()
                && shelf.trusted(previous).await?.is_err()
            {
                found.files.insert(previous.clone());
                now.ends_trial();
            }
            let sha256 = now.connector.sha256().to_owned();
            let Err(fault) = shelf.trusted(&sha256).await? else { continue };
            found.files.insert(sha256.clone());
            let files = files.into_iter().chain(now.ran_well_before()).collect::<Vec<_>>();
            match self.earlier(&now.name, &now.config, &mut shelf, &files, Some(&now.written_for)).await? {
                Some(earlier) => {
                    self.refuse(&earlier, sha256, fault);
                    found.placed.push(earlier);
                }
                None => found.broken.push((now.name.clone(), fault.why)),
            }
        }
        Ok(found)
    }

    /// What an operator is about to pin: the file in the folder, its version.
    pub(super) async fn pinnable(&self, connector: &ConnectorName) -> Result<(String, String), NotLoaded> {
        let shelf = self.shelf(connector, &self.config.now()).await;
        let file = shelf.file.clone().map_err(|problem| NotLoaded::Connector(Fault::new(problem)))?;
        let any = ConnectorTrust { mode: Mode::Any, ..shelf.config.connector_trust.clone() };
        any.judge(connector, &file.sha256, None, Origin::Folder)
            .map_err(|distrust| NotLoaded::Connector(distrust.into()))?;
        let loaded = Connector::load(&self.engine, connector, &file.bytes).await;
        let loaded = loaded.map_err(|error| NotLoaded::Connector(Fault::new(error)))?;
        Ok((file.sha256.clone(), loaded.info().version.clone()))
    }

    /// A connection with what it ran last, on trial if it was.
    async fn as_stored(
        &self,
        name: &ConnectionName,
        written: &Arc<ConnectionConfig>,
        shelf: &mut Shelf<'_>,
        stored: &Placement,
    ) -> Result<Arc<Connection>, NotLoaded> {
        let written_for = stored.settings.as_ref();
        let connection = self.connection(name, written, shelf, &stored.sha256, written_for).await?;
        connection.stands_as(stored);
        let Some(previous) = &stored.previous else { return Ok(connection) };
        match self.connection(name, written, shelf, previous, written_for).await {
            Ok(previous) => connection.begins_trial(Trial { previous, passed: stored.passed.clone() }),
            Err(error @ NotLoaded::Host(_)) => return Err(error),
            Err(NotLoaded::Connector(problem)) => no_way_back(name, &stored.sha256, &problem),
        }
        Ok(connection)
    }

    /// The connection with what the folder has: on trial, or, where that is what it would go back to, as it ran before.
    async fn in_place_of(
        &self,
        now: &Arc<Connection>,
        shelf: &mut Shelf<'_>,
        downgrade: bool,
    ) -> Result<Arc<Connection>, NotLoaded> {
        let (file, proven) = (shelf.sha256()?, now.proven());
        shelf.installable(Some(now), downgrade).map_err(NotLoaded::Connector)?;
        if proven.connector.sha256() == file {
            proven.refuse(None);
            return Ok(proven);
        }
        let connection = self.connection(&now.name, &now.config, shelf, &file, Some(&now.written_for)).await?;
        self.reads_tokens(&connection)?;
        if let Some(needed) = connection.allowed().needed() {
            return Err(NotLoaded::Connector(Fault::needing(&now.name, needed)));
        }
        connection.begins_trial(Trial { previous: proven, passed: BTreeMap::new() });
        Ok(connection)
    }

    /// Whether a connection would read the tokens that its types hold.
    fn reads_tokens(&self, connection: &Connection) -> Result<(), NotLoaded> {
        let states = self.noted.as_ref().map(|(_, db)| db.states()).transpose()?.unwrap_or_default();
        let Some(key) = connection.unread(&states) else { return Ok(()) };
        let what = "has a format that it doesn't read; `token reset` or `token set` it, then `connectors retry`";
        Err(NotLoaded::Connector(Fault::new(format!("the token of {key} {what}"))))
    }

    /// The connections of a connector that get what the folder has by now, and those that can run only now. What is wrong is told of the rest.
    ///
    /// # Errors
    /// The file can't be read, or what concerns all.
    pub(super) async fn revise(
        &self,
        connector: &ConnectorName,
        running: &[Arc<Connection>],
        downgrade: bool,
    ) -> Result<Revised, NotLoaded> {
        let config = self.config.now();
        let (mut shelf, mut revised) = (self.shelf(connector, &config).await, Revised::default());
        let file = shelf.sha256()?;
        let mut placements = self.noted.as_ref().map(|(_, db)| db.placements()).transpose()?.unwrap_or_default();
        for (name, written) in config.of(connector) {
            let now = running.iter().find(|connection| connection.name == *name);
            let made = match now {
                None => {
                    let stored = placements.remove(name).filter(|stored| stored.connector == *connector);
                    self.begin(name, written, &mut shelf, stored.as_ref()).await
                }
                Some(now) if now.connector.sha256() == file => {
                    // Nothing else is there any more.
                    if now.refused().is_some() {
                        now.refuse(None);
                        now.needs(None);
                        revised.noted.push(name.clone());
                    }
                    continue;
                }
                Some(now) if now.refused().is_some_and(|known| known.sha256 == file && known.waits == Waits::Retry) => {
                    continue;
                }
                Some(now) => self.in_place_of(now, &mut shelf, downgrade).await,
            };
            match (made, now) {
                (Ok(connection), _) => revised.placed.push(connection),
                (Err(error @ NotLoaded::Host(_)), _) => return Err(error),
                (Err(NotLoaded::Connector(fault)), Some(now)) => {
                    self.refuse(now, file.clone(), fault);
                    revised.noted.push(name.clone());
                }
                (Err(NotLoaded::Connector(problem)), None) => {
                    tracing::error!(target: "tidewaiter", connection = %name, "this connection can't run: {problem}");
                    revised.broken.push((name.clone(), problem.why));
                }
            }
        }
        Ok(revised)
    }

    /// The connections of a connector with another file of it, which was kept: what an operator says isn't tried first. Without a name, each gets what
    /// ran well in it before.
    pub(super) async fn rolled_back(
        &self,
        connector: &ConnectorName,
        to: Option<&str>,
        running: &[Arc<Connection>],
        why: &str,
    ) -> Result<Vec<Arc<Connection>>, NotLoaded> {
        let (mut shelf, mut placed) = (self.shelf(connector, &self.config.now()).await, Vec::new());
        for now in running {
            let Some(to) = to.map(str::to_owned).or_else(|| now.ran_well_before()) else { continue };
            if now.connector.sha256() == to {
                continue;
            }
            let connection = self.connection(&now.name, &now.config, &mut shelf, &to, Some(&now.written_for)).await?;
            self.reads_tokens(&connection)?;
            // Where the folder has nothing, what ran may come back.
            let file = shelf.sha256().unwrap_or_else(|_| now.connector.sha256().to_owned());
            let refused = Some(file).filter(|file| *file != to);
            connection.refuse(refused.map(|sha256| RefusedRevision {
                sha256,
                why: why.to_owned(),
                at: self.clock.now(),
                waits: Waits::Retry,
            }));
            placed.push(connection);
        }
        Ok(placed)
    }

    /// Says why a connection doesn't run a file.
    fn refuse(&self, connection: &Connection, sha256: String, fault: Fault) {
        let (waits, Fault { why, cause }) = (fault.waits(), fault);
        connection.needs(match cause {
            Cause::Approval(needed) => Some(needed),
            Cause::File | Cause::Trust | Cause::Written => None,
        });
        if connection.refused().is_some_and(|known| known.sha256 == sha256 && known.why == why) {
            return;
        }
        tracing::error!(
            target: "tidewaiter", connection = %connection.name, code = "revision-refused", sha256,
            "the connector's new revision is not run, and what ran before goes on: {why}"
        );
        connection.refuse(Some(RefusedRevision { sha256, why, at: self.clock.now(), waits }));
    }

    /// A connection with a file of its connector.
    async fn connection(
        &self,
        name: &ConnectionName,
        written: &Arc<ConnectionConfig>,
        shelf: &mut Shelf<'_>,
        sha256: &str,
        written_for: Option<&WrittenFor>,
    ) -> Result<Arc<Connection>, NotLoaded> {
        let connector = shelf.connector(sha256).await?;
        self.made(name, written, Arc::new(connector), written_for).await
    }

    /// A connection with what is loaded already.
    async fn made(
        &self,
        name: &ConnectionName,
        written: &Arc<ConnectionConfig>,
        source: Arc<dyn Source>,
        written_for: Option<&WrittenFor>,
    ) -> Result<Arc<Connection>, NotLoaded> {
        let fitting = Fitting::of(written, source.as_ref(), written_for).await;
        let fitting = fitting.map_err(|problem| NotLoaded::Connector(Fault::written(problem)))?;
        let before = match &self.noted {
            Some((_, db)) => db.approved(name)?,
            None => self.told.get(name).cloned(),
        };
        let approved = approve::of(before.clone(), &written.connector, source.info());
        let written = Arc::clone(written);
        let made = Connection::fitted(fitting, name.clone(), written, source, &approved, &self.outside);
        let connection = made.map_err(|problem| NotLoaded::Connector(Fault::written(problem)))?;
        let Some((audit, db)) = &self.noted else { return Ok(Arc::new(connection)) };
        approve::tell(&connection);
        let connection = connection.noted(audit.clone(), db.clone());
        if before.as_ref() != Some(&approved) {
            connection.brings_up(approved);
        }
        Ok(Arc::new(connection))
    }

    /// Writes down what a connection is about to run, and what it may ask for if it is new.
    pub(super) async fn note_placed(&self, connection: &Connection) -> Result<(), StartError> {
        if let (Some(approved), Some((audit, db))) = (connection.brought_up(), &self.noted) {
            approve::bring_up(&connection.name, approved, audit, db).await?;
        }
        Ok(connection.note_placed()?)
    }

    /// Drops the files that nobody goes back to.
    pub(super) fn sweep(&self, db: &Db) -> Result<(), ReadError> {
        let mut wanted = placed(db)?;
        for mut revisions in db.revisions()?.into_values() {
            Revision::newest_first(&mut revisions);
            wanted.extend(revisions.into_iter().take(REVISIONS_KEPT).map(|revision| revision.sha256));
        }
        if let Err(error) = self.kept.sweep(&wanted) {
            tracing::warn!(target: "tidewaiter", "files of connectors that nobody runs can't be dropped: {error}");
        }
        Ok(())
    }
}

impl Shelf<'_> {
    /// The hash of what the folder has.
    fn sha256(&self) -> Result<String, NotLoaded> {
        let sha256 = self.file.as_ref().map(|file| file.sha256.clone());
        sha256.map_err(|problem| NotLoaded::Connector(Fault::new(problem)))
    }

    /// Whether what the folder has may be installed, in the place of what runs: it may be less than what may be gone back to.
    fn installable(&self, now: Option<&Connection>, downgrade: bool) -> Result<(), Fault> {
        let file = self.file.as_ref().map_err(Fault::new)?;
        let trust = &self.config.connector_trust;
        let trusted = trust.judge(self.name, &file.sha256, file.signed.as_ref(), Origin::Folder)?;
        // Of what is pinned an operator decided that.
        let (Mode::Signed(_), Some(version), Some(now)) = (&trust.mode, trusted.version, now) else {
            return Ok(());
        };
        let runs = &now.connector.info().version;
        match !downgrade && is_older(&version, runs) {
            false => Ok(()),
            true => {
                let (version, runs) = (shown(&version, VERSION_BYTES_MAX), shown(runs, VERSION_BYTES_MAX));
                let why = format!(
                    "its version {version:?} is older than {runs:?}, which runs; `tidewaiter connectors rollback` goes back to what ran, and `connectors retry {} --allow-downgrade` runs it all the same",
                    self.name
                );
                Err(Fault::distrusted(why))
            }
        }
    }

    /// A file of the connector, from the folder or as it was kept.
    async fn connector(&mut self, sha256: &str) -> Result<Connector, NotLoaded> {
        if !self.loaded.contains_key(sha256) {
            let connector = self.load(sha256).await?;
            self.loaded.insert(sha256.to_owned(), connector);
        }
        self.loaded[sha256].clone().map_err(NotLoaded::Connector)
    }

    fn of_folder(&self, sha256: &str) -> Option<&Arc<Bytes>> {
        self.file.as_ref().ok().filter(|file| file.sha256 == sha256)
    }

    /// Whether a file may be run, and its bytes: those of the folder, or those that were kept, whose statement nobody can have taken away.
    async fn trusted(&self, sha256: &str) -> Result<Result<(Trusted, io::Result<Arc<Bytes>>), Fault>, NotLoaded> {
        let judge =
            |signed: Option<&Signed>| self.config.connector_trust.judge(self.name, sha256, signed, Origin::Kept);
        let in_folder = self.of_folder(sha256).map(|file| (judge(file.signed.as_ref()), file));
        if let Some((Ok(trusted), file)) = in_folder {
            return Ok(Ok((trusted, Ok(Arc::clone(file)))));
        }
        let (kept, of) = (self.loader.kept.clone(), sha256.to_owned());
        let kept = spawn_blocking(move || kept.read(&of).map(Arc::new)).await?;
        let judged = judge(kept.as_ref().ok().and_then(|file| file.signed.as_ref()));
        Ok(match (judged, in_folder) {
            (Ok(trusted), _) => Ok((trusted, kept)),
            (Err(_), Some((Err(distrust), _))) | (Err(distrust), _) => Err(distrust.into()),
        })
    }

    async fn load(&self, sha256: &str) -> Result<Result<Connector, Fault>, NotLoaded> {
        let Loader { engine, kept, noted, clock, .. } = self.loader;
        let (trusted, file) = match self.trusted(sha256).await? {
            Ok((trusted, Ok(file))) => (trusted, file),
            Ok((_, Err(error))) => {
                return Ok(Err(Fault::new(format!("what was kept of its connector can't be read: {error}"))));
            }
            Err(fault) => return Ok(Err(fault)),
        };
        let connector = match Connector::load(engine, self.name, &file.bytes).await {
            Ok(connector) => connector,
            Err(error) => return Ok(Err(Fault::new(error))),
        };
        let info = connector.info();
        if let Some(version) = trusted.version.filter(|version| *version != info.version) {
            let said = shown(&info.version, VERSION_BYTES_MAX);
            let why = format!("it says that its version is {said:?}, and is trusted as {version:?}");
            return Ok(Err(Fault::distrusted(why)));
        }
        let is_of_folder = self.of_folder(sha256).is_some_and(|of_folder| Arc::ptr_eq(of_folder, &file));
        if let (Some((_, db)), true) = (noted, is_of_folder) {
            let kept = kept.clone();
            if let Err(error) = spawn_blocking(move || kept.keep(&file)).await? {
                tracing::warn!(
                    target: "tidewaiter", connector = %self.name, sha256, "the file can't be kept, and after a restart there is no way back to it: {error}"
                );
            }
            let mut known = db.revisions()?.remove(self.name).unwrap_or_default();
            let now = clock.now();
            let seen = known.iter().find(|known| known.sha256 == sha256).map_or(now, |known| known.seen);
            let version = shown(&info.version, VERSION_BYTES_MAX);
            let token_format = shown(&info.token_format_written, VERSION_BYTES_MAX);
            let (sha256, bytes, trust) = (sha256.to_owned(), connector.component_bytes(), trusted.why);
            Revision::newest_first(&mut known);
            let placed = placed(db)?;
            let old = known.into_iter().skip(REVISIONS_REMEMBERED).map(|revision| revision.sha256);
            let forgotten = old.filter(|other| *other != sha256 && !placed.contains(other)).collect();
            let revision = Revision { sha256, version, bytes, seen, last_seen: now, trust, token_format };
            db.note_revision(self.name, revision, forgotten).await?;
        }
        Ok(Ok(connector))
    }
}

fn no_way_back(connection: &ConnectionName, sha256: &str, problem: &Fault) {
    tracing::warn!(
        target: "tidewaiter", %connection, sha256, "there is no way back from the connector's revision: {problem}"
    );
}

/// The files that connections run, may go back to, or ran well with before.
fn placed(db: &Db) -> Result<BTreeSet<String>, ReadError> {
    let of = |Placement { sha256, previous, before, .. }| [Some(sha256), previous, before].into_iter().flatten();
    Ok(db.placements()?.into_values().flat_map(of).collect())
}
