//! `tidewaiter connections export | diff | apply`: connections and their grants as files, from one environment to another.

use std::path::Path;

use tidewaiter_core::name::ConnectionName;

use super::door::Site;
use super::fail::{Exit, Fail};
use super::print;
use crate::config::{ConfigSource, Documents};
use crate::host::ask::{Answer, Ask};
use crate::host::{Apply, Reloaded, Runs};
use crate::socket::Client;

pub(super) fn export(site: &Site, folder: &Path, connections: &[ConnectionName], json: bool) -> Result<(), Fail> {
    let mut documents = Documents::of(&site.config()?)?;
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
    let asked = Apply { documents: Documents::of_folder(folder)?, prune, dry_run: true };
    let reloaded = reloaded(site, Ask::Apply(asked)).await?;
    print::out(json, &reloaded, print::reloaded)?;
    if reloaded.differences.is_empty() { Ok(()) } else { Err(Fail::told(Exit::RunFailed)) }
}

pub(super) async fn apply(site: &Site, folder: &Path, prune: bool, json: bool) -> Result<(), Fail> {
    let (config, documents) = (site.config()?, Documents::of_folder(folder)?);
    let reloaded = match config.source {
        ConfigSource::Api | ConfigSource::Program => {
            reloaded(site, Ask::Apply(Apply { documents, prune, dry_run: false })).await?
        }
        // Whoever may write the files writes them; the host looks at them before, and takes them over.
        ConfigSource::Files => {
            let asked = Apply { documents: documents.clone(), prune, dry_run: true };
            let seen = reloaded(site, Ask::Apply(asked)).await?;
            let written = Documents::of(&config)?.with(&documents, prune).store(&config);
            written.map_err(|error| Fail::new(Exit::Host, error))?;
            if let Ok(Some(_)) = Client::connect(&config.data).await {
                self::reloaded(site, Ask::Reload).await?;
            }
            seen
        }
    };
    print::out(json, &reloaded, print::reloaded)
}

pub(super) async fn reloaded(site: &Site, ask: Ask) -> Result<Reloaded, Fail> {
    match super::ask(site, Runs::Never, ask).await? {
        Answer::Reloaded(reloaded) => Ok(reloaded),
        _ => Err(Fail::other_answer()),
    }
}
