//! `tidewaiter serve`: a host with its socket and its HTTP API, until it is told to end.

use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::door::{Hangup, signals};
use super::fail::{Exit, Fail};
use super::service;
use crate::config::{Config, ConfigSource};
use crate::host::{Host, Runs};
use crate::{api, socket};

/// As many open files as this process may have: guests may hold some each.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files can't be raised: {error}");
    }
}

pub(super) async fn serve(config: Config) -> Result<(), Fail> {
    raise_open_files();
    // One that comes meanwhile ends nothing: what is configured is looked at again once it serves.
    let _hangup = signal(SignalKind::hangup()).map_err(|error| Fail::new(Exit::Host, error))?;
    let host = Arc::new(Host::start(config, "tidewaiter serve", Runs::Scheduled).await?);
    let mut servers = match open(&host).await {
        Ok(servers) => servers,
        Err(error) => {
            host.shutdown().await;
            return Err(Fail::new(Exit::Host, error));
        }
    };
    ignored(&host.config());
    let _signals = signals(&host, Hangup::Reloads)?;
    host.begin().await;
    let config = host.config();
    tracing::info!(target: "tidewaiter", data = %config.data.display(), types = config.keys().count(), "serving");
    service::serves(&host);
    let _watched = service::watched(&host);
    host.closing().cancelled().await;
    service::ends();
    // The signal's own call came first; this one waits for its end.
    host.shutdown().await;
    while servers.join_next().await.is_some() {}
    tracing::info!(target: "tidewaiter", "ended");
    Ok(())
}

/// Says it where files of connections are left from before, and nobody reads them.
fn ignored(config: &Config) {
    let base = config.file.parent().unwrap_or(Path::new("/"));
    let folder = base.join("connections");
    if config.source == ConfigSource::Api && folder.exists() {
        tracing::warn!(
            target: "tidewaiter", folder = %folder.display(),
            "nobody reads these files, because config.source is \"api\"; `tidewaiter connections apply {}` takes them over", base.display()
        );
    }
}

async fn open(host: &Arc<Host>) -> std::io::Result<JoinSet<()>> {
    let config = host.config();
    let mut servers = JoinSet::new();
    let door = socket::Server::bind(&config.data)?;
    if let Some(http) = config.http.clone() {
        let server = api::Server::bind(http, host).await?;
        tracing::info!(target: "tidewaiter", "HTTP API at {}", server.url());
        servers.spawn(server.serve(Arc::clone(host)));
    }
    servers.spawn(door.serve(Arc::clone(host)));
    Ok(servers)
}
