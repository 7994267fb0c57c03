//! `tidewaiter check`: everything that can be known before a run, and the exact lines to add. Of the db it asks what is approved, so that
//! it gives a connector no more than a run would, and there is noted that it did.

use std::collections::BTreeMap;

use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::name::ConnectionName;

use super::db::keys;
use super::door::Site;
use super::fail::{Exit, Fail};
use super::print;
use crate::config::{Config, SinkTo};
use crate::db::Db;
use crate::host::ask::{Answer, Ask};
use crate::host::{self, Finding, Known, Loaded, Runs, find};

pub(super) async fn check(site: &Site, json: bool) -> Result<(), Fail> {
    let config = &site.config()?;
    keys(config).await?;
    logins(config).await?;
    let approved = approved(site, config).await?;
    let Loaded { connections, broken } = host::load(config, Known::Told(&approved)).await?;
    let mut connections: Vec<_> = connections.into_values().collect();
    connections.sort_by(|a, b| a.name.cmp(&b.name));
    let problem = |(name, problem): (ConnectionName, String)| Finding {
        connection: name.to_string(),
        connector: config.connections[&name].connector.to_string(),
        problems: vec![problem],
        add: Vec::new(),
    };
    let mut findings: Vec<Finding> = broken.into_iter().map(problem).collect();
    for connection in connections {
        findings.push(find(&connection).await);
    }
    print::out(json, &findings, |findings| print::findings(&config.file, findings))?;
    match findings.iter().any(|finding| !finding.problems.is_empty()) {
        true => Err(Fail::told(Exit::RunFailed)),
        false => Ok(()),
    }
}

/// The secrets of sinks, each read and looked at.
async fn logins(config: &Config) -> Result<(), Fail> {
    for (name, sink) in &config.sinks {
        if let SinkTo::Webhook(settings) = &sink.to {
            let read = settings.logins().await;
            read.map_err(|problem| Fail::new(Exit::Usage, format!("sinks.{name}.{problem}")))?;
        }
    }
    Ok(())
}

/// What is approved for each connection that has run. Where there is no db, none has: all that its connector asks for is looked at then.
async fn approved(site: &Site, config: &Config) -> Result<BTreeMap<ConnectionName, Approved>, Fail> {
    if !Db::is_there(&config.data) {
        return Ok(BTreeMap::new());
    }
    match super::ask(site, Runs::Never, Ask::Check).await? {
        Answer::Approved(approved) => Ok(approved),
        _ => Err(Fail::other_answer()),
    }
}
