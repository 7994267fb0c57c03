//! The way to the service functions: over the socket of a running host, or into a host of our own.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;

use tidewaiter_core::state::Actor;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::OURSELVES;
use super::fail::{Exit, Fail};
use super::service;
use crate::config::Config;
use crate::db::OpenError;
use crate::host::ask::{Answer, Ask, Problem};
use crate::host::{Host, Runs, StartError};
use crate::socket::Client;

/// What a process ends with that was told twice to end.
const INTERRUPTED: i32 = 130;

pub(super) enum Door {
    Remote(Client),
    Local { host: Arc<Host>, by: Actor, _signals: JoinSet<()> },
}

/// Who runs this process.
pub(super) fn ourselves() -> Result<Actor, Fail> {
    let own = std::fs::metadata("/proc/self").map_err(|error| Fail::new(Exit::Host, format!("/proc/self: {error}")))?;
    Ok(Actor::Uid(own.uid()))
}

/// The configuration that a command is about.
pub(super) struct Site {
    file: PathBuf,
}

impl Site {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// All of it.
    pub(super) fn config(&self) -> Result<Config, Fail> {
        Ok(Config { compiler: Some(OURSELVES.into()), ..Config::load(&self.file)? })
    }

    /// All of it but its connections: what is wrong with those is of no concern.
    pub(super) fn host(&self) -> Result<Config, Fail> {
        Ok(Config { compiler: Some(OURSELVES.into()), ..Config::load_host(&self.file)? })
    }

    /// Where a host that runs is reached, if one does: whatever is wrong with the configuration since keeps nobody from asking it.
    pub(super) async fn server(&self) -> Result<Option<Client>, Fail> {
        connect(&Config::data_of(&self.file)).await
    }
}

impl Door {
    /// To the host that runs, or to one that does what is asked.
    pub(super) async fn open(site: &Site, runs: Runs) -> Result<Self, Fail> {
        if let Some(client) = site.server().await? {
            return Ok(Self::Remote(client));
        }
        let host = match Box::pin(Host::start(site.config()?, "a command of tidewaiter", runs)).await {
            // A server that was just starting serves by now.
            Err(error @ StartError::Db(OpenError::Owned { .. })) => match site.server().await? {
                Some(client) => return Ok(Self::Remote(client)),
                None => return Err(error.into()),
            },
            other => Arc::new(other?),
        };
        let signals = signals(&host, Hangup::Ends)?;
        Ok(Self::Local { host, by: ourselves()?, _signals: signals })
    }

    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<Answer, Problem> {
        match self {
            Self::Remote(client) => client.ask(ask).await,
            Self::Local { host, by, .. } => Ok(Box::pin(host.answer(ask.clone(), by.clone())).await?),
        }
    }

    /// Another way to the same functions.
    pub(super) async fn another(&self) -> Result<Self, Fail> {
        match self {
            Self::Remote(client) => {
                let other = client.another().await.map_err(|error| Fail::new(Exit::Host, error))?;
                other.map(Self::Remote).ok_or_else(Fail::other_answer)
            }
            Self::Local { host, by, .. } => {
                Ok(Self::Local { host: Arc::clone(host), by: by.clone(), _signals: JoinSet::new() })
            }
        }
    }

    /// Whether changes can come while this process waits.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    pub(super) async fn close(self) {
        if let Self::Local { host, .. } = self {
            host.shutdown().await;
        }
    }
}

async fn connect(data: &std::path::Path) -> Result<Option<Client>, Fail> {
    Client::connect(data)
        .await
        .map_err(|error| Fail::new(Exit::Host, format!("the running host can't be reached: {error}")))
}

/// What SIGHUP does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hangup {
    /// Whoever asked is gone.
    Ends,
    /// What is configured is taken over.
    Reloads,
}

/// SIGTERM, SIGINT and SIGHUP, unless that does something else, end a host at its runs' checkpoints; the second one ends the process at once.
pub(super) fn signals(host: &Arc<Host>, hangup_does: Hangup) -> Result<JoinSet<()>, Fail> {
    let failed = |error| Fail::new(Exit::Host, format!("signals can't be received: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let host = Arc::clone(host);
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (mut stopping, mut reloading) = (JoinSet::new(), JoinSet::new());
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => "SIGHUP",
            };
            if name == "SIGHUP" && hangup_does == Hangup::Reloads {
                let host = Arc::clone(&host);
                while reloading.try_join_next().is_some() {}
                // It says itself what came of it.
                reloading.spawn(async move {
                    service::reloads();
                    drop(host.reload(Actor::Host).await);
                    service::serves(&host);
                });
                continue;
            }
            if !stopping.is_empty() {
                process::exit(INTERRUPTED);
            }
            tracing::info!(target: "tidewaiter", "{name}: ending at the next checkpoint of each run; again: at once");
            let host = Arc::clone(&host);
            stopping.spawn(async move { host.shutdown().await });
        }
    });
    Ok(task)
}
