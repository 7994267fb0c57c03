//! What can be known of a connection before a run: what it lacks, and the exact lines to add. Runs nothing but the connector's own look at its
//! source.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidewaiter_core::grant::policy::EgressGrant;
use tidewaiter_core::grant::{Decided, Decision, Grants, destination};
use tidewaiter_core::name::{ConnectionName, TypeName};
use tidewaiter_core::schema::Capability;
use tidewaiter_core::state::Actor;
use tidewaiter_core::text::shown;
use tidewaiter_core::timing::{Timing, When};
use utoipa::ToSchema;

use super::{Host, HostError};
use crate::clock::Clock;
use crate::config::{TypeConfig, grant_lines};
use crate::driver::Connection;

/// More of a connector's words isn't shown.
const REASON_BYTES_MAX: usize = 200;

/// What was found of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Which.
    pub connection: String,
    /// Its connector, and the version of it.
    pub connector: String,
    /// One sentence each; none: it can run.
    pub problems: Vec<String>,
    /// Lines to add, and the file that they belong to.
    pub add: Vec<Addition>,
}

/// Lines that a file lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Addition {
    /// Which file.
    pub file: String,
    /// What to add to it.
    pub lines: String,
}

impl Host {
    /// Looks whether a connection can do its work: its grants, its secrets, and with those, its source.
    ///
    /// # Errors
    /// Unknown, or its connector can't run.
    pub async fn check(&self, name: &ConnectionName, by: &Actor) -> Result<Finding, HostError> {
        let connection = self.placed(name)?;
        self.audit.act(by, "check", name.to_string()).await?;
        Ok(find(&connection).await)
    }
}

pub(crate) async fn find(connection: &Arc<Connection>) -> Finding {
    let allowed = connection.allowed();
    let mut problems: Vec<String> = allowed.decided.iter().filter_map(|decided| problem(connection, decided)).collect();
    for (name, source) in connection.config.access.sources() {
        if let Err(error) = source.read().await {
            problems.push(format!("{name}: {error}"));
        }
    }
    // A source that can't be reached for want of a grant would only be told a second time.
    if problems.is_empty() {
        problems = connection.check().await;
    }
    problems.extend(past(connection));
    Finding {
        connection: connection.name.to_string(),
        connector: format!("{} {}", connection.config.connector, shown(&connection.connector.info().version, 40)),
        problems,
        add: additions(connection),
    }
}

/// What a connection lacks of what its connector needs, if it lacks something.
pub(super) fn lacks(connection: &Connection) -> Option<String> {
    let first = connection.allowed().decided.iter().find_map(|decided| problem(connection, decided))?;
    Some(format!("{first}; `tidewaiter check` has all of it"))
}

/// Schedules that have no occurrence any more.
fn past(connection: &Connection) -> Vec<String> {
    let now = Clock::start().now();
    let ended = |timing: &Timing| matches!(&timing.when, When::Cron(cron) if cron.next(now).is_none());
    let types = connection.config.types.iter();
    let problem = |(name, config): (&TypeName, &TypeConfig)| {
        let timing = config.timing.as_ref().filter(|timing| ended(timing))?;
        Some(format!("types.{name}: {timing} has no occurrence from now on"))
    };
    types.filter_map(problem).collect()
}

fn problem(connection: &Connection, decided: &Decided) -> Option<String> {
    let unknown = |name: &String| !connection.config.access.secrets.contains_key(name);
    let lacks_secret = matches!(&decided.capability, Capability::Reveal(name) if unknown(name));
    let awaits = decided.decision == Decision::AwaitsApproval;
    if (decided.optional && !awaits) || (decided.decision == Decision::Granted && !lacks_secret) {
        return None;
    }
    let reason = shown(&decided.reason, REASON_BYTES_MAX);
    let asked = match &decided.capability {
        Capability::Read(folder) => format!("it reads the folder {folder:?} ({reason})"),
        Capability::Http(to) => format!("it sends requests to {} ({reason})", shown(to, REASON_BYTES_MAX)),
        Capability::Reveal(name) => {
            format!("it needs to see the secret {:?} ({reason})", shown(name, REASON_BYTES_MAX))
        }
        Capability::Tcp(to) => format!("it connects to {} ({reason})", shown(to, REASON_BYTES_MAX)),
        Capability::Write(folder) => format!("it writes into the folder {folder:?} ({reason})"),
    };
    Some(match (&decided.capability, decided.decision) {
        (Capability::Read(folder), _) if !connection.config.base.join(folder).is_dir() => {
            format!("{asked}, which is not there")
        }
        (Capability::Reveal(name), Decision::Granted) => {
            format!("{asked}, and none is configured: add [secrets.{name}] to the connection")
        }
        (_, Decision::BeyondCeiling) => format!("{asked}, which is granted, and beyond the ceiling"),
        (_, Decision::InPart) => format!("{asked}, which is granted in part: {}", decided.by.join(", ")),
        (_, Decision::AwaitsApproval) => {
            format!(
                "{asked}, which an update asks for and nobody has approved: see `tidewaiter connections show {}`",
                connection.name
            )
        }
        (_, Decision::NotAvailable) => format!("{asked}, which this host can't give"),
        _ => format!("{asked}, which is not granted"),
    })
}

/// What to write into which file so that all is granted that is asked for and can be: whole keys, with what they say already.
fn additions(connection: &Connection) -> Vec<Addition> {
    let access = &connection.config.access;
    let missing = |wanted: &[Decision]| Grants {
        read: asked(connection, wanted, |capability| match capability {
            Capability::Read(folder) => Some(connection.config.base.join(folder)).filter(|folder| folder.is_dir()),
            _ => None,
        }),
        egress: asked(connection, wanted, |capability| destination(capability)?.ok().map(EgressGrant::to)),
        reveal: asked(connection, wanted, |capability| match capability {
            Capability::Reveal(name) => Some(name.clone()),
            _ => None,
        }),
    };
    let add = |file: &Path, there: &Grants, missing: Grants| {
        let lines = grant_lines(there, &missing, &connection.config.base);
        (!lines.is_empty()).then(|| Addition { file: file.display().to_string(), lines: lines.join("\n") })
    };
    let granted = missing(&[Decision::NotGranted]);
    let above = missing(&[Decision::BeyondCeiling]);
    let ceiling = access.ceiling.as_deref().and_then(|ceiling| add(&access.ceiling_in, ceiling, above));
    add(&access.granted_in, &access.granted, granted).into_iter().chain(ceiling).collect()
}

/// Of what is asked for, with these decisions, what `pick` takes.
fn asked<T>(connection: &Connection, wanted: &[Decision], pick: impl Fn(&Capability) -> Option<T>) -> Vec<T> {
    let allowed = connection.allowed();
    let decided = allowed.decided.iter().filter(|decided| wanted.contains(&decided.decision));
    decided.filter_map(|decided| pick(&decided.capability)).collect()
}
