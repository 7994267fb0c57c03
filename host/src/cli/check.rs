//! `tidewaiter check`: everything that can be known before a run, and the exact lines to add. Touches no db.

use std::sync::Arc;

use serde::Serialize;
use tidewaiter_core::grant::{Decided, Decision};
use tidewaiter_core::name::TypeName;
use tidewaiter_core::schema::Capability;
use tidewaiter_core::text::shown;
use tidewaiter_core::timing::{Timing, When};

use super::fail::{Exit, Fail};
use super::print;
use crate::clock::Clock;
use crate::config::{Config, TypeConfig};
use crate::driver::Connection;
use crate::host;

/// More of a connector's words isn't shown.
const REASON_BYTES_MAX: usize = 200;

/// What was found of a connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Finding {
    pub(super) connection: String,
    pub(super) connector: String,
    /// One sentence each; none: it can run.
    pub(super) problems: Vec<String>,
    /// Lines to add, and the file that they belong to.
    pub(super) add: Option<Addition>,
}

#[derive(Debug, Serialize)]
pub(super) struct Addition {
    pub(super) file: String,
    pub(super) lines: String,
}

pub(super) async fn check(config: &Config, json: bool) -> Result<(), Fail> {
    let mut connections: Vec<_> = host::load(config).await?.into_values().collect();
    connections.sort_by(|a, b| a.name.cmp(&b.name));
    let mut findings = Vec::new();
    for connection in connections {
        findings.push(find(&connection).await);
    }
    print::out(json, &findings, |findings| print::findings(&config.file, findings))?;
    match findings.iter().any(|finding| !finding.problems.is_empty()) {
        true => Err(Fail::told(Exit::RunFailed)),
        false => Ok(()),
    }
}

async fn find(connection: &Arc<Connection>) -> Finding {
    let mut problems: Vec<String> =
        connection.decided.iter().filter_map(|decided| problem(connection, decided)).collect();
    // A source that can't be reached for want of a grant would only be told a second time.
    if problems.is_empty() {
        problems = connection.check().await;
    }
    problems.extend(past(connection));
    Finding {
        connection: connection.name.to_string(),
        connector: format!("{} {}", connection.config.connector, shown(&connection.connector.info().version, 40)),
        problems,
        add: addition(connection),
    }
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
    if decided.optional || decided.decision == Decision::Granted {
        return None;
    }
    let reason = shown(&decided.reason, REASON_BYTES_MAX);
    Some(match (&decided.capability, decided.decision) {
        (Capability::Read(folder), _) if !connection.config.base.join(folder).is_dir() => {
            format!("it reads the folder {folder:?} ({reason}), which is not there")
        }
        (Capability::Read(folder), _) => format!("it reads the folder {folder:?} ({reason}), which is not granted"),
        (other, _) => format!("it asks for {other:?} ({reason}), which this host can't give"),
    })
}

/// The line of the grants file with everything that is asked for and there, and what is granted already.
fn addition(connection: &Connection) -> Option<Addition> {
    let wanted = connection.decided.iter().filter(|decided| decided.decision == Decision::NotGranted);
    let folders = wanted.filter_map(|decided| match &decided.capability {
        Capability::Read(folder) if connection.config.base.join(folder).is_dir() => Some(folder.clone()),
        _ => None,
    });
    let missing: Vec<String> = folders.collect();
    if missing.is_empty() {
        return None;
    }
    let base = &connection.config.base;
    let granted =
        connection.config.read.iter().map(|path| path.strip_prefix(base).unwrap_or(path).display().to_string());
    let all: Vec<String> = granted.chain(missing).map(|folder| format!("{folder:?}")).collect();
    let file = connection.config.grants.display().to_string();
    Some(Addition { file, lines: format!("read = [{}]", all.join(", ")) })
}
