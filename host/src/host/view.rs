//! What the service functions answer, as data that can be shown, sent and read back. Decides nothing, and shows no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tidewaiter_core::grant::{Decided, Decision};
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::{ConnectionName, ConnectorName, TypeKey, TypeName};
use tidewaiter_core::run::RunReport;
use tidewaiter_core::schedule::QUARANTINE_FAULTS;
use tidewaiter_core::schema::masked;
use tidewaiter_core::state::{SyncState, TypeState};
use tidewaiter_core::time::UnixMillis;
use tidewaiter_core::token::SyncToken;
use utoipa::ToSchema;

use super::{Host, HostError, check};
use crate::config::Access;
use crate::db::{Consumer, Faults, KEPT, Placement, RefusedRevision, Revision, Shadow};
use crate::driver::{Connection, Source, TRIAL_RUNS};
use crate::egress::{self, Credential};
use crate::trust::Lock;

/// Runs that are shown with their connection.
const RUNS_SHOWN: usize = 10;

/// Where live sync of a type stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TokenView {
    /// Of which type.
    #[serde(flatten)]
    pub key: TypeKey,
    /// The id of its document in OpenIDM's calls.
    pub openidm_id: String,
    /// `new`, `origin`, `live`, `compared`, `token-lost`, `held` or `paused`.
    pub state: String,
    /// Why the token was refused, if it is lost.
    #[serde(default)]
    pub lost: Option<String>,
    /// What is too much, if the guard holds the type.
    #[serde(default)]
    pub held: Option<String>,
    /// By whom and when it was paused, if it is.
    #[serde(default)]
    pub paused: Option<String>,
    /// The token that is held.
    pub token: Option<SyncToken>,
    /// Counts every write; 0: nothing is stored yet.
    pub revision: u64,
    /// Counts operators' acts.
    pub generation: u64,
    /// Failed runs in a row.
    pub failures: u32,
    /// Why it is so.
    pub why: String,
    /// When it was written. Of no meaning at revision 0.
    pub changed_at: String,
    /// By whom.
    pub changed_by: String,
}

impl TokenView {
    pub(crate) fn new(key: &TypeKey, state: TypeState) -> Self {
        Self {
            openidm_id: key.openidm_id(),
            key: key.clone(),
            state: state.name().to_owned(),
            lost: match &state.sync {
                SyncState::TokenLost { reason, .. } => Some(reason.clone()),
                _ => None,
            },
            held: state.held,
            paused: state.paused,
            token: state.sync.token().cloned(),
            revision: state.revision,
            generation: state.generation,
            failures: state.failures,
            why: state.why,
            changed_at: state.changed_at.to_string(),
            changed_by: state.changed_by.to_string(),
        }
    }
}

/// A line of the list of connections: a type and how it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TypeView {
    /// Its token and state.
    #[serde(flatten)]
    pub token: TokenView,
    /// What runs it.
    pub connector: ConnectorName,
    /// The connector's class.
    pub class: String,
    /// When it runs, as in `every 15 s`; none: only when asked.
    pub schedule: Option<String>,
    /// Why its connection can't run, if it can't.
    #[serde(default)]
    pub problem: Option<String>,
    /// What else is to be known of it, as that it runs an earlier file of its connector.
    #[serde(default)]
    pub notice: Option<String>,
    /// Deltas that are kept out of the journal.
    #[serde(default)]
    pub dead_letters: u64,
    /// When the last complete pass over all its objects ended; none: there was none.
    #[serde(default)]
    pub reconciled: Option<UnixMillis>,
    /// Its last run that wrote something.
    pub last_run: Option<RunReport>,
}

/// A connection, with everything that is decided about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ConnectionView {
    /// Its name.
    pub name: ConnectionName,
    /// What it runs.
    pub connector: ConnectorName,
    /// The connector's version, in its words.
    pub connector_version: String,
    /// Which file of it.
    pub revision: RevisionView,
    /// Its settings; those that its schema calls `writeOnly` are masked.
    #[schema(value_type = Object)]
    pub settings: Json,
    /// For which version of the connector's settings they are written, where it made these of them; none: they are these.
    #[serde(default)]
    pub settings_from: Option<u32>,
    /// What the connector asked for, and what was decided.
    pub capabilities: Vec<Asked>,
    /// The id of those of them that await approval; none: nothing does.
    pub awaits_approval: Option<String>,
    /// Where it logs in: the names of its credentials, each with the authorities that it is bound to.
    pub logins: BTreeMap<String, Vec<String>>,
    /// The file that bounds what may be granted, if it is there.
    pub ceiling: Option<String>,
    /// The limits of its runs.
    pub limits: Vec<Limit>,
    /// The limits of every instance, which are not configured, and how many of them there may be.
    pub sandbox: Vec<Limit>,
    /// Host calls that did not come back in time, in the runs that are kept.
    pub abandoned_calls: u64,
    /// Its types.
    pub types: Vec<TypeView>,
    /// Its last runs, newest first.
    pub runs: Vec<RunReport>,
}

/// Somebody who reads the journal by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ConsumerView {
    /// Its name.
    pub name: String,
    /// As it is stored.
    #[serde(flatten)]
    pub consumer: Consumer,
    /// So many entries come after what it acknowledged; none: it can't go on there.
    pub behind: Option<u64>,
    /// Why it can't read on; none: it can.
    pub problem: Option<String>,
}

/// Which file of its connector a connection runs. Files are named by their hash, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RevisionView {
    /// What it runs.
    pub sha256: String,
    /// It is on trial, and goes back to this if it fails; none: it is not.
    pub goes_back_to: Option<String>,
    /// Runs with changes that ended well while it is on trial, by type.
    pub passed: BTreeMap<TypeName, u32>,
    /// How many it takes.
    pub passes_at: u32,
    /// A newer file that it doesn't run.
    pub refused: Option<RefusedRevision>,
}

impl RevisionView {
    fn of(connection: &Connection) -> Self {
        let Placement { sha256, previous, passed, refused, .. } = connection.placement();
        Self { sha256, goes_back_to: previous, passed, passes_at: TRIAL_RUNS, refused }
    }
}

/// A connector, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ConnectorView {
    /// Its name.
    pub name: ConnectorName,
    /// The file that was met last; none: none was.
    pub newest: Option<Revision>,
    /// How many files of it were met and are remembered.
    pub revisions: usize,
    /// Connections that are configured to run it.
    pub connections: Vec<ConnectionName>,
    /// Why nobody runs it, if an operator put it in quarantine.
    pub quarantined: Option<String>,
    /// Runs in a row that trapped or broke the contract.
    pub faults: u32,
    /// Connections in which it asks for more than was approved.
    pub awaits_approval: Vec<ConnectionName>,
}

/// Something that a connector asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Asked {
    /// `read`, `write`, `http`, `tcp` or `reveal`.
    pub kind: String,
    /// Which folder, authority, address or secret; where it awaits approval, as the connector asks for it.
    pub target: String,
    /// Why, in the connector's words.
    pub reason: String,
    /// It works without.
    pub optional: bool,
    /// `granted`, `in-part`, `not-granted`, `beyond-ceiling`, `awaits-approval`, or `not-available` where this host can't give it.
    pub decision: String,
    /// The entries of the file of grants that have a part in it, with their conditions; where it awaits approval, what it stands
    /// for now.
    pub by: Vec<String>,
}

impl From<&Decided> for Asked {
    fn from(decided: &Decided) -> Self {
        let decision = match decided.decision {
            Decision::Granted => "granted",
            Decision::InPart => "in-part",
            Decision::BeyondCeiling => "beyond-ceiling",
            Decision::NotGranted => "not-granted",
            Decision::AwaitsApproval => "awaits-approval",
            Decision::NotAvailable => "not-available",
        };
        Self {
            kind: decided.capability.kind().to_owned(),
            target: decided.capability.text().to_owned(),
            reason: decided.reason.clone(),
            optional: decided.optional,
            decision: decision.to_owned(),
            by: decided.by.clone(),
        }
    }
}

/// A limit by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limit {
    /// Its name, as in the configuration; the unit is in it, times are in milliseconds.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// The most that any run took of it that is kept; none: it isn't counted.
    #[serde(default)]
    pub highest: Option<u64>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The limits of a run, by their names, and what these runs took of them.
pub(crate) fn limits(limits: &Limits, runs: &[RunReport]) -> Vec<Limit> {
    let Limits {
        memory_bytes_max,
        call_time_max,
        batch_count_max,
        batch_bytes_max,
        object_bytes_max,
        uncovered_bytes_max,
        stage_bytes,
        dead_letters_max,
        dead_letter_bytes_max,
        run_deltas_max,
        run_bytes_max,
        run_time_max,
        pending_bytes_max,
        log_line_bytes_max,
        log_lines_max,
        http_requests_max,
        http_response_bytes_max,
        logins_per_hour_max,
    } = *limits;
    let rows: [(&str, u64, Option<Taken>); 19] = [
        ("memory-bytes", memory_bytes_max, Some(|run| run.spent.memory_peak_bytes)),
        ("call-time", millis(call_time_max), Some(|run| run.spent.call_peak_ms)),
        ("batch-count", batch_count_max.into(), Some(|run| run.spent.batch_peak_count)),
        ("batch-bytes", batch_bytes_max, Some(|run| run.spent.batch_peak_bytes)),
        ("hostcall-bytes", limits.hostcall_bytes_max(), None),
        ("object-bytes", object_bytes_max, Some(|run| run.spent.object_peak_bytes)),
        ("uncovered-bytes", uncovered_bytes_max, Some(|run| run.spent.uncovered_peak_bytes)),
        ("stage-bytes", stage_bytes, None),
        ("dead-letters", dead_letters_max, Some(|run| run.dead_letters)),
        ("dead-letter-bytes", dead_letter_bytes_max, None),
        ("run-deltas", run_deltas_max, Some(|run| run.deltas)),
        ("run-bytes", run_bytes_max, Some(|run| run.bytes)),
        ("run-time", millis(run_time_max), Some(run_ms)),
        ("pending-bytes", pending_bytes_max, Some(|run| run.spent.held_peak_bytes)),
        ("log-line-bytes", log_line_bytes_max as u64, Some(|run| run.spent.log_line_peak_bytes)),
        ("log-lines", log_lines_max.into(), Some(|run| run.spent.log_lines)),
        ("http-requests", http_requests_max.into(), Some(|run| run.spent.http_requests_peak)),
        ("http-response-bytes", http_response_bytes_max, Some(|run| run.spent.http_response_peak_bytes)),
        ("logins-per-hour", logins_per_hour_max.into(), None),
    ];
    let limit = |(name, value, taken): (&str, u64, Option<Taken>)| {
        let highest = taken.and_then(|taken| runs.iter().map(taken).max());
        Limit { name: name.to_owned(), value, highest }
    };
    rows.map(limit).to_vec()
}

/// What a run took of a limit.
type Taken = fn(&RunReport) -> u64;

/// The limits of each instance of a connector, and what these runs took of them.
fn sandbox(connector: &dyn Source, runs: &[RunReport]) -> Vec<Limit> {
    let limit = |(name, value): (&str, u64)| {
        let taken: Option<Taken> = match name {
            "table-elements" => Some(|run| run.spent.table_elements_peak),
            "resources" => Some(|run| run.spent.resources_peak),
            "token-bytes" => Some(|run| run.spent.token_peak_bytes),
            "sockets" => Some(|run| run.spent.sockets_peak),
            "tcp-sockets" => Some(|run| run.spent.tcp_sockets_peak),
            _ => None,
        };
        let highest = match name {
            "component-bytes" => connector.component_bytes(),
            _ => taken.and_then(|taken| runs.iter().map(taken).max()),
        };
        Limit { name: name.to_owned(), value, highest }
    };
    connector.sandbox().into_iter().chain(egress::sandbox()).map(limit).collect()
}

fn logins(access: &Access) -> BTreeMap<String, Vec<String>> {
    let to = |credential: &Credential| credential.to.iter().map(ToString::to_string).collect();
    access.credentials.iter().map(|credential| (credential.name.clone(), to(credential))).collect()
}

/// What the schedule of a type waits for after its last run, if it does.
fn waits(run: &RunReport) -> Option<String> {
    let what = match &run.outcome {
        outcome if outcome.is_refused_login() => "the source refused the login",
        outcome if outcome.is_misconfigured() => "its settings are wrong",
        _ => return None,
    };
    let RunReport { key, run, .. } = run;
    let (connection, object_type) = (&key.connection, &key.object_type);
    Some(format!(
        "{what} in run {run}, and its schedule waits: mend it, then `tidewaiter sync {connection} {object_type}`; another secret is noticed"
    ))
}

fn run_ms(run: &RunReport) -> u64 {
    u64::try_from(run.ended.0.saturating_sub(run.started.0)).unwrap_or(0)
}

impl Host {
    /// The connectors that connections name, and those of which files were met.
    ///
    /// # Errors
    /// The db, or what is trusted can't be read.
    pub fn connectors(&self) -> Result<Vec<ConnectorView>, HostError> {
        let (config, mut revisions) = (self.config(), self.db.revisions()?);
        let lock = Lock::read(&config.connector_trust.lock)?;
        let named = config.connections.values().map(|written| &written.connector);
        let names: BTreeSet<ConnectorName> = named.chain(revisions.keys()).cloned().collect();
        let mut views = Vec::new();
        for name in names {
            let mut known = revisions.remove(&name).unwrap_or_default();
            Revision::newest_first(&mut known);
            let runs = config.connections.iter().filter(|(_, written)| written.connector == name);
            let connections: Vec<ConnectionName> = runs.map(|(connection, _)| connection.clone()).collect();
            let awaits =
                |name: &&ConnectionName| self.roster.get(name).is_some_and(|placed| placed.awaiting().is_some());
            views.push(ConnectorView {
                revisions: known.len(),
                newest: known.into_iter().next(),
                awaits_approval: connections.iter().filter(awaits).cloned().collect(),
                connections,
                quarantined: lock.quarantined.get(&name).cloned(),
                faults: self.db.faults(&name)?.map_or(0, |faults| faults.count),
                name,
            });
        }
        Ok(views)
    }

    /// Those who read the journal by themselves.
    ///
    /// # Errors
    /// The db.
    pub fn consumers(&self) -> Result<Vec<ConsumerView>, HostError> {
        let (incarnation, last) = (self.db.incarnation(), self.db.last_sequence());
        let view = |(name, consumer): (String, Consumer)| {
            let problem = match consumer.expired {
                Some(since) => Some(format!("expired since {since}")),
                None if consumer.incarnation != incarnation => {
                    Some(format!("incarnation-changed: it read the journal {}", consumer.incarnation))
                }
                None => None,
            };
            let behind = problem.is_none().then(|| last.saturating_sub(consumer.position));
            ConsumerView { name, consumer, behind, problem }
        };
        Ok(self.db.consumers()?.into_iter().map(view).collect())
    }

    /// The types of a connection, or all.
    ///
    /// # Errors
    /// The db.
    pub fn types(&self, of: Option<&ConnectionName>) -> Result<Vec<TypeView>, HostError> {
        let letters = self.db.dead_letters(None)?;
        let (shadows, placements) = (self.db.shadows()?, self.db.placements()?);
        let config = self.config();
        let wanted = config.keys().filter(|key| of.is_none_or(|name| key.connection == *name));
        let view = |key: TypeKey| {
            let connection = &config.connections[&key.connection];
            let config = &connection.types[&key.object_type];
            let placed = placements.get(&key.connection).filter(|placed| placed.connector == connection.connector);
            let runs = placed.map(|placed| placed.sha256.as_str());
            let refused = placed.and_then(|placed| placed.refused.as_ref()).map(|refused| {
                let newer = refused.sha256.get(..12).unwrap_or_default();
                format!("an earlier file of its connector runs, and not {newer}: {}", refused.why)
            });
            let broken = self.roster.problem(&key.connection);
            let last_run = self.db.runs(Some(&key), 1)?.into_iter().next();
            let broken = broken.or_else(|| config.timing.as_ref().and(last_run.as_ref()).and_then(waits));
            Ok(TypeView {
                token: self.token_of(&key, config)?,
                connector: connection.connector.clone(),
                class: config.class.clone(),
                problem: broken.or(self.faulty(&connection.connector, runs)?),
                notice: refused.or_else(|| check::lacks(self.roster.get(&key.connection)?.as_ref())),
                schedule: config.timing.as_ref().map(ToString::to_string),
                dead_letters: letters.iter().filter(|stored| stored.key == key).count() as u64,
                reconciled: shadows.get(&key).and_then(Shadow::complete_at),
                last_run,
            })
        };
        wanted.map(view).collect()
    }

    /// Whether a file of a connector that is run is in quarantine.
    pub(super) fn is_faulty(&self, connector: &ConnectorName) -> Result<bool, HostError> {
        let runs = self.roster.of(connector);
        let mut files = runs.iter().map(|connection| Some(connection.connector.sha256())).collect::<Vec<_>>();
        if files.is_empty() {
            files.push(None);
        }
        files.into_iter().try_fold(false, |is_in, file| Ok(is_in || self.faulty(connector, file)?.is_some()))
    }

    /// That a connector is in quarantine, if it is.
    fn faulty(&self, connector: &ConnectorName, loaded: Option<&str>) -> Result<Option<String>, HostError> {
        let faults = self.db.faults(connector)?.filter(|faults| faults.count >= QUARANTINE_FAULTS);
        let faults = faults.filter(|faults| loaded.is_none_or(|sha256| sha256 == faults.sha256));
        Ok(faults.map(|Faults { count, at, .. }| {
            format!(
                "connector {connector} is in quarantine: {count} runs in a row trapped or broke the contract, the last one at {at}; one is tried \
                 now and then, and `tidewaiter sync` runs it at once"
            )
        }))
    }

    /// Everything about a connection.
    ///
    /// # Errors
    /// Unknown, or the db.
    pub fn connection(&self, name: &ConnectionName) -> Result<ConnectionView, HostError> {
        let connection = self.placed(name)?;
        let (info, allowed) = (connection.connector.info(), connection.allowed());
        let needed = connection.needed().map(|needed| needed.decided).unwrap_or_default();
        let is_news = |one: &&Decided| !allowed.decided.contains(one);
        let schema = serde_json::from_str(&info.settings_schema).unwrap_or_default();
        let mut runs = Vec::new();
        let config = self.config();
        for key in config.keys().filter(|key| key.connection == *name) {
            runs.extend(self.db.runs(Some(&key), usize::try_from(KEPT).unwrap_or(usize::MAX))?);
        }
        runs.sort_by_key(|report| std::cmp::Reverse(report.run));
        let mut limits = limits(&connection.config.limits, &runs);
        let sandbox = sandbox(connection.connector.as_ref(), &runs);
        let held = self.db.usage()?.connections.get(name.as_str()).copied();
        limits.push(Limit {
            name: "journal-bytes".into(),
            value: config.quota.connection_bytes,
            highest: Some(held.unwrap_or(0)),
        });
        let abandoned_calls = runs.iter().map(|run| u64::from(run.spent.abandoned_calls)).sum();
        runs.truncate(RUNS_SHOWN);
        Ok(ConnectionView {
            name: name.clone(),
            connector: connection.config.connector.clone(),
            connector_version: info.version.clone(),
            revision: RevisionView::of(&connection),
            settings_from: Some(connection.written_for.version).filter(|version| *version != info.settings_version),
            settings: masked(connection.settings(), &schema, &"***".into()),
            capabilities: allowed.decided.iter().chain(needed.iter().filter(is_news)).map(Asked::from).collect(),
            awaits_approval: connection.awaiting().map(|awaiting| awaiting.id),
            logins: logins(&connection.config.access),
            ceiling: connection
                .config
                .access
                .ceiling
                .as_ref()
                .map(|_| connection.config.access.ceiling_in.display().to_string()),
            limits,
            sandbox,
            abandoned_calls,
            types: self.types(Some(name))?,
            runs,
        })
    }
}
