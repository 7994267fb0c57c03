//! `tidewaiter connections export | diff | apply`: connections and their grants as files, from one environment to another; and what becomes of what
//! is written.

use std::io::Write;
use std::path::Path;

use tidewaiter_core::name::ConnectionName;

use super::door::Site;
use super::fail::{Exit, Fail};
use super::print;
use crate::config::{ConfigSource, Documents};
use crate::host::ask::{Answer, Ask};
use crate::host::{Apply, Reloaded, Runs};

pub(super) fn export(site: &Site, folder: &Path, connections: &[ConnectionName], json: bool) -> Result<(), Fail> {
    let mut documents = Documents::of(&site.host()?)?;
    if let Some(unknown) = connections.iter().find(|name| !documents.connections.contains_key(*name)) {
        return Err(Fail::new(Exit::Unknown, format!("there is no connection {unknown}")));
    }
    if !connections.is_empty() {
        documents = documents.only(connections);
    }
    documents.export(folder).map_err(|error| Fail::new(Exit::Refused, format!("{}: {error}", folder.display())))?;
    let names: Vec<&ConnectionName> = documents.connections.keys().collect();
    print::out(json, &names, |names| format!("connections that are in {} now: {}", folder.display(), names.len()))
}

pub(super) async fn diff(site: &Site, folder: &Path, prune: bool, json: bool) -> Result<(), Fail> {
    let asked = Apply { documents: Documents::of_folder(folder)?, prune, dry_run: true, ..Apply::default() };
    let reloaded = reloaded(site, Ask::Apply(asked)).await?;
    print::out(json, &reloaded, print::reloaded)?;
    if reloaded.differences.is_empty() { Ok(()) } else { Err(Fail::told(Exit::RunFailed)) }
}

pub(super) async fn apply(site: &Site, folder: &Path, prune: bool, json: bool) -> Result<(), Fail> {
    let (config, documents) = (site.host()?, Documents::of_folder(folder)?);
    let are_files = config.source == ConfigSource::Files;
    let asked = Apply { documents: documents.clone(), prune, dry_run: are_files, ..Apply::default() };
    let seen = reloaded(site, Ask::Apply(asked)).await?;
    if are_files {
        // Whoever may write the files writes them; the host has looked at them, and takes them over.
        let written = Documents::of(&config)?.with(&documents, prune).store(&config);
        written.map_err(|error| Fail::new(Exit::Host, format!("it can't be written: {error}")))?;
        if site.server().await?.is_some() {
            reloaded(site, Ask::Reload).await?;
        }
    }
    print::out(json, &seen, print::reloaded)
}

pub(super) async fn reload(site: &Site, json: bool) -> Result<(), Fail> {
    if site.server().await?.is_none() {
        return Err(Fail::new(Exit::Usage, "no server runs, and one that starts reads what is configured"));
    }
    print::out(json, &reloaded(site, Ask::Reload).await?, print::reloaded)
}

async fn reloaded(site: &Site, ask: Ask) -> Result<Reloaded, Fail> {
    match super::ask(site, Runs::WhenAsked, ask).await? {
        Answer::Reloaded(reloaded) => Ok(reloaded),
        _ => Err(Fail::other_answer()),
    }
}

/// Says on standard error that what is written is not what counts, if so.
pub(super) async fn warn(site: &Site) -> Result<(), Fail> {
    let Some(mut server) = site.server().await? else { return Ok(()) };
    if let Ok(Answer::NotReloaded(Some(refused))) = server.ask(&Ask::NotReloaded).await {
        let _ = writeln!(std::io::stderr(), "tidewaiter: since {}: {}", refused.since, refused.problem);
    }
    Ok(())
}
